"""Messages of all sizes by the real command, from an officer over a colleague to the office, and back the receipts.

One story is told once: Ana submits alone, meets Budi, and he meets the office. The tests look at what was seen then.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from meshnode.core.limits import MIB
from meshnode.core.message import File, Manifest, parts_for, stream_head, stream_size
from meshnode.core.sealing import CHUNK_SIZE
from tests.app.fleets import Fleet, Node
from tests.app.relay import Relay

KIND, REFERENCE = "ktp-el-perekaman", "Siti Rahayu, Cipatujah"
META = {"nik": "3206014107920003", "nama lengkap": "Siti Rahayu binti Ahmad", "empty": ""}


def content(seed: object, size: int) -> bytes:
    return random.Random(repr(seed)).randbytes(size)


@dataclass
class Submitted:
    """One message: its files, and what the command said."""

    files: list[Path]
    arguments: tuple[str, ...]
    answer: dict[str, Any] = field(default_factory=dict)

    @property
    def size_bytes(self) -> int:
        return sum(path.stat().st_size for path in self.files)


class Story:
    """What was seen at each stage."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.messages = self._prepare()
        self.alone: list[dict[str, Any]] = []
        self.carried: list[dict[str, Any]] = []
        self.delivered: list[dict[str, Any]] = []
        self.clear: dict[str, list[str]] = {}
        self.store_bytes = 0
        self.carrying: dict[str, int] = {}

    def _prepare(self) -> list[Submitted]:
        head = len(stream_head(Manifest("", (), "", time.time_ns() // 1_000_000, (File("f", 2**18),))))
        sizes = [0, 1]
        for parts in (1, 2):
            sizes += [parts * CHUNK_SIZE - head + more for more in (-1, 0, 1)]
        messages = [Submitted([self._file(f"of {size}", "f", size)], ()) for size in sizes]
        messages.append(Submitted([self._file("several", "pas foto.jpg", 5 * MIB + 3)], ()))
        messages.append(Submitted([self._file("large", "arsip lama 1974.tar", 64 * MIB)], ()))
        named = [
            self._file("names", name, size)
            for name, size in [
                ("foto wajah é.jpg", 120_000),
                ("指紋 kanan 🙂.wsq", 70_001),
                ("kosong", 0),
                ("-rf", 3),
                ("iris.kiri.bin", 300_000),
            ]
        ]
        meta = [word for key, value in META.items() for word in ("--meta", f"{key}={value}")]
        arguments = ("--kind", KIND, "--reference", REFERENCE, "--priority", "urgent", *meta)
        messages.append(Submitted(named, arguments))
        return messages

    def _file(self, folder: str, name: str, size: int) -> Path:
        path = self.folder / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content((folder, name), size))
        return path

    def secrets(self) -> dict[str, bytes]:
        """What must be nowhere to be seen."""
        found = {"kind": KIND.encode(), "reference": REFERENCE.encode()}
        found |= {f"meta {key}": key.encode() for key in META if len(key) > 5}
        found |= {f"meta value of {key}": value.encode() for key, value in META.items() if value}
        for message in self.messages:
            for path in message.files:
                if len(path.name) > 5:
                    found[f"name {path.name}"] = path.name.encode()
                    found[f"JSON name {path.name}"] = json.dumps(path.name)[1:-1].encode()
                data = path.read_bytes()
                if len(data) < 24:
                    continue
                for at in {0, len(data) // 2} if len(data) > MIB else {0}:
                    found[f"{path} at {at}"] = data[at : at + 24]
        return found

    def in_clear(self, where: dict[str, bytes]) -> list[str]:
        return [
            f"{name} in {place}"
            for name, secret in self.secrets().items()
            for place, data in where.items()
            if secret in data
        ]


def files_of(node: Node) -> dict[str, bytes]:
    """All files of a home, and the names of all."""
    paths = [path for path in node.home.rglob("*") if path.is_file()]
    found = {str(path.relative_to(node.home)): path.read_bytes() for path in paths}
    return {**found, "names": "\n".join(found).encode(), "log": node.log().encode()}


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with Fleet(tmp_path_factory.mktemp("fleet")) as fleet:
        fleet.enroll("office", "office")
        fleet.enroll("ana")
        fleet.enroll("budi")
        yield fleet


@pytest.fixture(scope="module")
def story(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Story:
    ana, budi, office = (fleet.nodes[name] for name in ("ana", "budi", "office"))
    story = Story(tmp_path_factory.mktemp("files"))
    fleet.start(ana)
    for message in story.messages:
        message.answer = ana.submit(*message.arguments, "--", *message.files)
    story.clear["ana"] = story.in_clear(files_of(ana))
    story.alone = ana.get("messages")

    with Relay(ana.address, record=True) as relay:
        budi.configure(peers=[relay.address])
        fleet.start(budi)
        fleet.until("Budi carries all", lambda: set(ana.states()) == {"carried"})
        story.carried = ana.get("messages")
        story.clear["budi"] = story.in_clear(files_of(budi))
        assert len(relay.recorded[1]) > 64 * MIB
        story.clear["the wire"] = story.in_clear({"the wire": bytes(relay.recorded[1])})
        story.store_bytes = budi.store_size()
        story.carrying = budi.get("status")["carrying"]

        office.configure(peers=[budi.address])
        fleet.start(office)
        fleet.until("all are delivered", lambda: set(ana.states()) == {"delivered"})
    story.delivered = ana.get("messages")
    return story


def test_the_command_says_key_bundles_and_size(story: Story) -> None:
    journals, number = set(), 1
    for message in story.messages:
        answer = message.answer
        assert sorted(answer) == ["bundles", "key", "size_bytes"]
        assert answer["size_bytes"] == message.size_bytes
        assert re.fullmatch(r"[0-9a-f]{32}:[0-9]+", answer["key"])
        journal, _, first = answer["key"].partition(":")
        assert int(first) == number, "numbers follow each other"
        number += answer["bundles"]
        journals.add(journal)
    assert len(journals) == 1, "one journal as long as the daemon runs"


def test_a_message_becomes_just_as_many_bundles_as_it_needs(story: Story) -> None:
    for message in story.messages[:8]:
        path = message.files[0]
        manifest = Manifest("", (), "", time.time_ns() // 1_000_000, (File(path.name, path.stat().st_size),))
        assert message.answer["bundles"] == parts_for(stream_size(manifest))
    assert [message.answer["bundles"] for message in story.messages[:8]] == [1, 1, 1, 1, 2, 2, 2, 3]


def test_messages_are_listed_in_order_with_what_the_officer_called_them(story: Story) -> None:
    for listed in (story.alone, story.carried, story.delivered):
        assert [row["key"] for row in listed] == [message.answer["key"] for message in story.messages]
        assert [row["size_bytes"] for row in listed] == [message.size_bytes for message in story.messages]
        assert [(row["kind"], row["reference"]) for row in listed] == [("", "")] * 10 + [(KIND, REFERENCE)]
        assert all(
            sorted(row)
            == ["copies", "key", "kind", "reason", "reference", "size_bytes", "state", "submitted_ms", "to"]
            for row in listed
        )
        now_ms = time.time_ns() // 1_000_000
        assert all(now_ms - 300_000 < row["submitted_ms"] <= now_ms for row in listed)


def test_the_state_of_each_stage(story: Story) -> None:
    def states(listed: list[dict[str, Any]]) -> set[tuple[str, int]]:
        return {(row["state"], row["copies"]) for row in listed}

    assert states(story.alone) == {("on_this_device_only", 0)}
    assert states(story.carried) == {("carried", 1)}
    assert {state for state, _ in states(story.delivered)} == {"delivered"}


def test_everything_arrives_byte_for_byte_under_its_own_name(fleet: Fleet, story: Story) -> None:
    inbox = fleet.nodes["office"].inbox()
    assert sorted(inbox) == sorted(message.answer["key"] for message in story.messages)
    for message in story.messages:
        folder = inbox[message.answer["key"]]
        assert folder.name == message.answer["key"].replace(":", "-")
        assert folder.parent.name == "ana"
        names = {path.name for path in message.files} | {"message.json"}
        assert {path.name for path in folder.iterdir()} == names
        for path in message.files:
            assert (folder / path.name).read_bytes() == path.read_bytes()


def test_the_record_beside_the_files(fleet: Fleet, story: Story) -> None:
    ana, inbox = fleet.nodes["ana"], fleet.nodes["office"].inbox()
    for message, row in zip(story.messages, story.delivered, strict=True):
        record = json.loads((inbox[message.answer["key"]] / "message.json").read_bytes())
        received_ms = record.pop("received_ms")
        assert row["submitted_ms"] <= received_ms <= time.time_ns() // 1_000_000
        types = [file.pop("type") for file in record["files"]]
        assert record == {
            "key": message.answer["key"],
            "source": {"name": "ana", "id": ana.device},
            "kind": row["kind"],
            "meta": META if row["kind"] else {},
            "reference": row["reference"],
            "submitted_ms": row["submitted_ms"],
            "files": [
                {
                    "name": path.name,
                    "size_bytes": path.stat().st_size,
                    "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
                }
                for path in message.files
            ],
        }
    assert types[0] == "image/jpeg"
    assert types[3] == "application/octet-stream"


def test_nothing_is_in_clear_where_the_office_is_not(story: Story) -> None:
    assert set(story.clear) == {"ana", "budi", "the wire"}
    assert len(story.secrets()) > 25
    assert story.clear == {place: [] for place in story.clear}


def test_the_offices_own_store_holds_nothing_in_clear(fleet: Fleet, story: Story) -> None:
    files = files_of(fleet.nodes["office"])
    store = {name: data for name, data in files.items() if not name.startswith("inbox/")}
    store.pop("names")
    assert any(name.startswith("store.db") for name in store)
    assert story.in_clear(store) == []


def test_the_carrier_is_freed(fleet: Fleet, story: Story) -> None:
    total = sum(message.answer["bundles"] for message in story.messages)
    assert story.carrying["bundles"] == total
    assert story.carrying["sources"] == 1
    assert story.carrying["bytes"] > sum(message.size_bytes for message in story.messages)
    assert story.store_bytes > story.carrying["bytes"]
    budi = fleet.nodes["budi"]
    nothing = {"bundles": 0, "bytes": 0, "sources": 0}
    fleet.until("nothing is carried", lambda: budi.get("status")["carrying"] == nothing)
    fleet.until("the disk has its space back", lambda: budi.store_size() < 2 * MIB, within_s=5)


def test_the_source_keeps_what_was_delivered_for_some_days(fleet: Fleet, story: Story) -> None:
    assert fleet.nodes["ana"].get("status")["store"]["bytes"] > 64 * MIB


def test_the_files_stay_as_they_were(story: Story) -> None:
    for message in story.messages:
        for path in message.files:
            assert path.read_bytes() == content((path.parent.name, path.name), path.stat().st_size)


def test_without_json_it_says_that_it_is_safe(fleet: Fleet, story: Story) -> None:
    done = fleet.nodes["ana"].run("submit", "--reference", "Pak Dadang", story.messages[1].files[0])
    assert done.returncode == 0
    assert re.fullmatch(r"Safe on this device \(Pak Dadang\): [0-9a-f]{32}:[0-9]+\n", done.stdout)


def test_the_urgent_overtakes_the_routine_one(tmp_path: Path) -> None:
    with Fleet(tmp_path) as fleet:
        fleet.enroll("office", "office")
        ana, budi = fleet.enroll("ana"), fleet.enroll("budi")
        fleet.start(ana)
        ana.give({"first": content("first", 6 * MIB)})
        ana.give({"then": content("then", 2 * MIB)}, priority="urgent")
        with Relay(budi.address) as relay:
            relay.hold_after(3 * MIB)
            ana.configure(peers=[relay.address])
            ana.stop()
            fleet.start(budi, ana)
            relay.wait_held()
            fleet.until("the urgent one is carried", lambda: "carried" in ana.states())
            assert ana.states() == ["on_this_device_only", "carried"]
            relay.flow()
            fleet.until("the other one too", lambda: ana.states() == ["carried", "carried"])

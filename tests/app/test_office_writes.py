"""The other way: the office writes to officers it may never meet, and answers what they submitted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from meshnode.app.cli.screen import devices_screen, received_screen
from tests.app.fleets import Fleet, Node, assert_refused

IRIS = "rekaman 3 ditolak: iris kiri tidak terbaca, rekam ulang"


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Fleet, Node, Node, Node]]:
    """The office meets Siti, Siti meets Budi; the office and Budi never meet."""
    with Fleet(tmp_path_factory.mktemp("line")) as fleet:
        office, siti, budi = fleet.enroll("kantor", "office"), fleet.enroll("siti"), fleet.enroll("budi")
        for node in (office, siti, budi):
            assert node.run("fleet", "update", fleet.publish()).returncode == 0
        siti.configure(peers=[office.address, budi.address])
        fleet.start(office, siti, budi)
        fleet.until("all are known at the office", lambda: len(office.get("devices")) == 2)
        yield fleet, office, siti, budi


def received(node: Node, reference: str) -> list[dict[str, Any]]:
    return [message for message in node.get("received") if message["reference"] == reference]


def test_a_message_to_one_device_goes_over_a_colleague(
    line: tuple[Fleet, Node, Node, Node], tmp_path: Path
) -> None:
    fleet, office, siti, budi = line
    form = tmp_path / "undangan.pdf"
    form.write_bytes(b"%PDF-1.7\n" + bytes(range(256)) * 2000)
    taken = office.submit("--to", "budi", "--reference", "rapat", "--text", "Besok jam 8", form)
    (letter,) = fleet.until("Budi has it", lambda: received(budi, "rapat"))
    assert (letter["key"], letter["text"], letter["source"]["name"]) == (
        taken["key"],
        "Besok jam 8",
        "kantor",
    )
    assert (Path(str(letter["path"])) / "undangan.pdf").read_bytes() == form.read_bytes()
    assert received(siti, "rapat") == []
    fleet.until("the office knows", lambda: "delivered" in office.states())
    fleet.until("Siti is free", lambda: siti.get("status")["carrying"]["bundles"] == 0)
    assert [it["to"] for it in office.get("messages") if it["key"] == taken["key"]] == ["budi"]


def test_a_message_to_all_reaches_all(line: tuple[Fleet, Node, Node, Node]) -> None:
    fleet, office, siti, budi = line
    done = office.run("submit", "--to", "all", "--reference", "siap", "--text", "KTP siap di desa", "--json")
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)) == 2
    for node in (siti, budi):
        assert fleet.until(f"{node.name} has it", lambda node=node: received(node, "siap"))  # type: ignore[misc]
        assert "KTP siap di desa" in node.call("messages", "--received").stdout
        assert "The office has written" in node.call("status").stdout


def test_the_answer_becomes_the_state_of_the_message(line: tuple[Fleet, Node, Node, Node]) -> None:
    fleet, office, _, budi = line
    refused, accepted = budi.give({"a": b"1" * 100})["key"], budi.give({"b": b"2" * 100})["key"]
    fleet.until("both are at the office", lambda: {refused, accepted} <= set(office.inbox()))
    assert office.run("answer", refused, "refused", "--reason", IRIS).returncode == 0
    assert office.run("answer", accepted, "accepted").returncode == 0

    def states() -> dict[str, tuple[str, str]]:
        return {it["key"]: (it["state"], it["reason"]) for it in budi.get("messages")}

    fleet.until("both are answered", lambda: states()[accepted][0] == "accepted" and states()[refused][1])
    assert states()[refused] == ("refused", IRIS)
    counts = budi.get("status")["messages"]
    assert (counts["delivered"], counts["accepted"], counts["refused"]) == (2, 1, 1)
    assert IRIS in budi.call("messages").stdout
    assert "record it again" in budi.call("status").stdout
    budi.stop()
    fleet.start(budi)
    fleet.until("answers outlive a restart", lambda: states()[refused] == ("refused", IRIS))


def test_who_writes_to_whom_is_refused_by_a_sentence(line: tuple[Fleet, Node, Node, Node]) -> None:
    _, office, siti, budi = line
    key = budi.give({"c": b"3"})["key"]
    assert_refused(siti.run("submit", "--to", "budi", "--text", "hi"), "Only an office writes to devices")
    assert_refused(office.run("submit", "--to", "nobody", "--text", "hi"), "No device 'nobody'")
    assert_refused(office.run("answer", "0" * 32 + ":1", "accepted"), "No message")
    assert_refused(office.run("answer", "nonsense", "accepted"), "No message 'nonsense'")
    assert_refused(budi.run("answer", key, "accepted"), "Only an office")
    assert office.run("submit").returncode == 2
    for body, says in [
        (b"{", "an answer is an object"),
        (b'{"key": "k", "verdict": "x"}', "its verdict is none of"),
    ]:
        status, answer = office.request("POST", "/v1/answers", body)
        assert status == 422
        assert says in answer["error"]


def test_screens_for_people() -> None:
    assert devices_screen([]) == "No device has been heard of here yet."
    assert received_screen([]) == "The office has not written to this device."
    letter = {
        "key": "k",
        "source": {"name": "kantor"},
        "kind": "answer",
        "reference": "",
        "received_ms": 0,
        "text": "one\n\x1b[2Jtwo",
        "files": [{"name": "message.txt"}],
        "path": "/home/received",
    }
    shown = received_screen([letter])
    assert "answer, from kantor" in shown
    assert "  one\n" in shown
    assert "\x1b[2J" not in shown

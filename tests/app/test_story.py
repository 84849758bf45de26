"""`meshnode why`: the story of one message, at its device, where it is carried and at the office, with real daemons."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from meshnode.app.cli.why import story_screen
from meshnode.app.happenings import Happening, in_order
from meshnode.drivers.sqlite import SCHEMA_VERSION
from tests.app.fleets import Fleet, Node, assert_refused
from tests.drivers.test_store import DOWNGRADES


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with Fleet(tmp_path_factory.mktemp("fleet")) as fleet:
        yield fleet


def story(node: Node, key: str) -> dict[str, Any]:
    """As a program reads it, by the command."""
    done = node.call("why", "--json", key)
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def codes(told: dict[str, Any]) -> list[str]:
    return [event["code"] for event in told["story"]]


def make_older(node: Node, version: int) -> None:
    """As if an older meshnode had written its store."""
    with closing(sqlite3.connect(node.home / "store.db")) as connection:
        for newer in range(SCHEMA_VERSION, version, -1):
            connection.executescript(DOWNGRADES[newer])
        connection.execute(f"PRAGMA user_version = {version}")


@pytest.mark.slow
def test_a_story_from_the_officer_to_the_verdict(fleet: Fleet) -> None:
    began_ms = time.time() * 1000
    office, ana, budi = fleet.enroll("kantor", "office"), fleet.enroll("ana"), fleet.enroll("budi")
    for node in (office, ana, budi):
        assert node.call("fleet", "update", fleet.publish()).returncode == 0
    budi.configure(peers=[ana.address])
    fleet.start(ana)
    files = {"form.json": b"{}", "photo.jpg": bytes(600_000)}
    key = ana.give(files, reference="Ibu Aminah", kind="surat", priority="urgent")["key"]
    told = story(ana, key)
    assert (told["key"], told["reference"], told["kind"], told["to"]) == (
        key,
        "Ibu Aminah",
        "surat",
        "office",
    )
    assert (told["size_bytes"], told["bundles"], told["priority"]) == (600_002, 3, "urgent")
    assert (told["state"], told["copies"], codes(told)) == ("on_this_device_only", 0, ["taken", "sealed"])

    fleet.start(budi)
    fleet.until("budi has it", lambda: ana.states() == ["carried"])
    check_carried(ana, budi, key, began_ms)
    for node in (ana, budi):
        node.stop()
    fleet.start(ana)
    check_carried(ana, budi, key, began_ms)  # as it was before the start
    ana.stop()

    budi.configure(peers=[office.address])
    fleet.start(office, budi)
    fleet.until("the office has signed", lambda: story(budi, key)["state"] == "delivered")
    assert [(event["code"], event["peer"]) for event in story(office, key)["story"]] == [
        ("came", "budi"),
        ("delivered", None),
    ]
    assert [(event["code"], event["peer"]) for event in story(budi, key)["story"]] == [
        ("came", "ana"),
        ("delivered", "kantor"),
    ]
    fleet.until("ana is known", lambda: "ana" in {it["name"] for it in office.get("devices")})
    assert office.call("answer", key, "refused", "--reason", "left iris unreadable").returncode == 0
    fleet.until("budi has the answer", lambda: budi.get("status")["carrying"]["bundles"] == 1)
    budi.stop()
    budi.configure(peers=[ana.address])
    fleet.start(ana, budi)
    fleet.until("ana has it", lambda: ana.states() == ["refused"])
    check_refused(ana, office, key)


def check_carried(ana: Node, budi: Node, key: str, began_ms: float) -> None:
    told = story(ana, key)
    assert (told["state"], told["copies"], codes(told)) == ("carried", 1, ["taken", "sealed", "carried"])
    times = [event["at_ms"] for event in told["story"]]
    assert began_ms - 1 <= times[0] <= times[1] <= time.time() * 1000
    assert began_ms - 1 <= times[2] <= time.time() * 1000
    assert told["story"][2]["peer"] == "budi"
    assert told["now"].startswith("1 other device has all of it (budi)")
    if budi.process is not None:
        here = story(budi, key)
        assert (here["state"], here["source"], here["bundles"], codes(here)) == (
            "carried_here",
            "ana",
            3,
            ["came"],
        )
        assert here["story"][0]["text"] == "3 bundles came from ana itself."
        assert here["reference"] == ""


def check_refused(ana: Node, office: Node, key: str) -> None:
    told = story(ana, key)
    assert told["state"] == "refused"
    assert codes(told) == ["taken", "sealed", "carried", "delivered", "answered"]
    assert told["story"][3]["text"] == "The office has signed for it; its receipt came with budi."
    assert told["now"] == "The registry has REFUSED it (left iris unreadable): record it again."
    assert codes(story(office, key)) == ["came", "delivered", "answered"]
    text = ana.call("why", "Ibu Aminah").stdout.splitlines()
    assert text[0] == f"Ibu Aminah, from ana to office, 3 bundles, 600 kB, urgent, {key}"
    assert [line.strip().split("  ")[1] for line in text[1:-1]] == [event["text"] for event in told["story"]]
    assert text[-1] == f"Now: {told['now']}"


def test_a_message_from_before_times_were_kept_has_none_and_all_else(tmp_path: Path) -> None:
    with Fleet(tmp_path) as fleet:
        office, ana, budi = fleet.enroll("kantor", "office"), fleet.enroll("ana"), fleet.enroll("budi")
        for node in (office, ana, budi):
            assert node.call("fleet", "update", fleet.publish()).returncode == 0
        budi.configure(peers=[ana.address])
        fleet.start(ana, budi)
        key = ana.give({"photo.jpg": bytes(600_000)}, reference="Siti")["key"]
        fleet.until("budi has it", lambda: ana.states() == ["carried"])
        for node in (ana, budi):
            node.stop()
            make_older(node, 5)
        fleet.start(ana)
        told = story(ana, key)
        assert [(event["code"], event["peer"]) for event in told["story"]] == [
            ("taken", None),
            ("sealed", None),
            ("carried", "budi"),
        ]
        assert [event["at_ms"] is None for event in told["story"]] == [False, False, True]
        assert ana.states() == ["carried"]
        assert ana.get("status")["alarms"] == []
        fleet.start(budi)
        here = story(budi, key)
        (came,) = here["story"]
        assert (came["bundles"], came["at_ms"], here["state"]) == (3, None, "carried_here")
        assert len(budi.call("why", key).stdout.splitlines()) == 3


# --- which message is meant -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ben(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A device with three messages, two of which are called the same."""
    with Fleet(tmp_path_factory.mktemp("ben")) as fleet:
        fleet.enroll("office", "office")
        ben = fleet.enroll("ben")
        fleet.start(ben)
        for reference in ("Pak Dedi", "Bu Euis", "Bu Euis"):
            ben.give({"f": b"x"}, reference=reference)
        yield ben


def test_a_message_is_found_by_whatever_names_it(ben: Node) -> None:
    keys = [message["key"] for message in ben.get("messages")]
    for key in keys:
        for text in (key, key.upper()):
            assert story(ben, text)["key"] == key
    assert story(ben, "Pak Dedi")["key"] == keys[0]
    assert ben.request("GET", f"/v1/messages/{keys[1]}")[1]["key"] == keys[1]


def test_what_names_none_or_more_than_one_is_refused(ben: Node) -> None:
    keys = [message["key"] for message in ben.get("messages")]
    for text in (keys[0][:8], "Bu Euis"):
        assert_refused(ben.call("why", text), "may be more than one message")
    for text in ("Pak", "f" * 32 + ":1", keys[0][:32] + ":77", "%2e%2e", "../status", keys[0] + "x", "zz:1"):
        assert_refused(ben.call("why", text), "No message ")
    status, answer = ben.request("GET", "/v1/messages/nobody")
    assert (status, answer["code"]) == (404, "unknown")
    status, answer = ben.request("GET", f"/v1/messages/{keys[0][:4]}")
    assert (status, answer["code"]) == (409, "ambiguous")
    assert ben.request("GET", f"/v1/messages/{keys[0][:32]}:{'9' * 5000}")[0] == 404


# --- in which order it is told ----------------------------------------------------------------------------------


def test_the_oldest_comes_first_and_what_has_no_time_stays_where_it_was_told() -> None:
    told = [
        Happening("a", "", 50),
        Happening("b", "", None),
        Happening("c", "", 20),
        Happening("d", "", None),
        Happening("e", "", 70),
        Happening("f", "", 20),
    ]
    assert "".join(it.code for it in in_order(told)) == "cdfabe"


def test_a_terminal_is_told_nothing_that_it_would_obey() -> None:
    told = {
        "key": "ab" * 16 + ":1",
        "reference": "\x1b[31mred",
        "kind": "",
        "source": "ana",
        "to": "office",
        "size_bytes": None,
        "bundles": None,
        "priority": None,
        "story": [
            {"at_ms": None, "code": "answered", "text": "\x1b]0;title\x07", "peer": None, "bundles": None}
        ],
        "now": "\x1b[2J",
    }
    assert "\x1b" not in story_screen(told)

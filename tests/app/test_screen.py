"""What officers see: the screens made of what a node says, and the commands that show them."""

from __future__ import annotations

import copy
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshnode.app.cli.screen import (
    Look,
    duration,
    json_text,
    messages_screen,
    peers_screen,
    plain,
    size,
    table,
)
from meshnode.app.cli.status import status_screen
from tests.app.fleets import START_S, Fleet, Node, command, environment

STATUS: dict[str, Any] = {
    "device": {
        "name": "officer-07",
        "id": "ab" * 16,
        "roles": ["officer"],
        "fleet": "Tasikmalaya",
        "fleet_version": 3,
    },
    "uplink": False,
    "uplink_problem": None,
    "messages": {
        "submitted": 0,
        "on_this_device_only": 0,
        "carried": 0,
        "delivered": 0,
        "accepted": 0,
        "refused": 0,
    },
    "received": 0,
    "oldest_waiting_s": None,
    "carrying": {"bundles": 0, "bytes": 0, "sources": 0},
    "contacts": [],
    "store": {"bytes": 245_760, "free_bytes": 5 << 30, "floor_bytes": 1 << 28, "quota_bytes": 8 << 30},
    "alarms": [],
}
BUDI = {"name": "budi", "id": "cd" * 16, "address": "10.0.0.2:7766", "roles": ["officer"], "since_s": 70}
OFFICE = {"name": "kantor", "id": "ef" * 16, "address": "10.0.0.1:7766", "roles": ["office"], "since_s": 4}


def shown(**changes: Any) -> list[str]:
    """The lines of a status screen, without colours and blank lines."""
    told = copy.deepcopy(STATUS)
    for key, value in changes.items():
        told[key] = {**told[key], **value} if isinstance(value, dict) else value
    lines = click.unstyle(status_screen(told)).splitlines()
    return [line.strip() for line in lines if line.strip()]


def test_a_new_device() -> None:
    assert shown() == [
        "officer-07 · officer of Tasikmalaya (fleet document 3)",
        "No messages submitted on this device yet.",
        "Nobody in contact.",
        "Carrying nothing for colleagues.",
        "246 kB on disk, 5.1 GB free for more.",
        "What to do: nothing; all is well.",
    ]


def test_a_day_in_the_field() -> None:
    lines = shown(
        messages={"submitted": 12, "on_this_device_only": 2, "carried": 3, "delivered": 7},
        oldest_waiting_s=7500,
        carrying={"bundles": 41, "bytes": 9_400_000, "sources": 2},
        contacts=[BUDI],
    )
    assert lines[1:7] == [
        "7  safe at the office",
        "3  carried by colleagues too",
        "2  on this device only",
        "12 messages submitted. The oldest that is not at the office waits for 2 h 5 min.",
        "In contact with budi (officer, 1 min).",
        "Carrying 41 bundles (9.4 MB) of 2 colleagues.",
    ]
    assert lines[-1] == "What to do: nothing; it goes on by itself while you are in contact."


def test_one_of_each() -> None:
    lines = shown(
        messages={"submitted": 1, "on_this_device_only": 1, "carried": 0, "delivered": 0},
        carrying={"bundles": 1, "bytes": 1, "sources": 1},
        contacts=[BUDI, OFFICE],
        uplink=True,
    )
    assert lines[1:6] == [
        "1  on this device only",
        "1 message submitted.",
        "In contact with budi (officer, 1 min), kantor (office, 4 s).",
        "The office is reached from here.",
        "Carrying 1 bundle (1 B) of 1 colleague.",
    ]


@pytest.mark.parametrize(
    ("counts", "contacts", "advice"),
    [
        ((2, 2, 0, 0), [], "keep this device safe, and meet a colleague or come near the office."),
        (
            (2, 0, 2, 0),
            [],
            "nothing; colleagues carry it, and this device keeps its copy until the office has signed.",
        ),
        ((2, 1, 1, 0), [BUDI], "nothing; it goes on by itself while you are in contact."),
        ((2, 0, 0, 2), [], "nothing; all is well."),
    ],
)
def test_what_to_do_next(
    counts: tuple[int, int, int, int], contacts: list[dict[str, Any]], advice: str
) -> None:
    keys = ("submitted", "on_this_device_only", "carried", "delivered")
    assert (
        shown(messages=dict(zip(keys, counts, strict=True)), contacts=contacts)[-1] == f"What to do: {advice}"
    )


def test_alarms_come_before_everything() -> None:
    lines = shown(
        alarms=[{"code": "disk-full", "text": "This disk is full."}, {"code": "x", "text": "Other."}]
    )
    assert lines[-3:] == [
        "! This disk is full.",
        "! Other.",
        "What to do: see what is marked with '!' above.",
    ]


def test_what_was_refused_hides_nothing() -> None:
    counts = {"submitted": 3, "on_this_device_only": 1, "carried": 0, "delivered": 2, "refused": 1}
    lines = shown(messages=counts)
    assert lines[1:4] == ["1  safe at the office", "1  on this device only", "1  refused by the registry"]
    assert [line.removeprefix("What to do: ")[:16] for line in lines[-2:]] == [
        "keep this device",
        "see with `meshno",
    ]


def test_the_office_in_the_same_wifi_is_no_trouble() -> None:
    told = {**STATUS, "contacts": [OFFICE], "uplink_problem": {"code": "silent", "text": "Tell the office."}}
    assert "In contact with kantor (office, 4 s)." in status_screen(told)
    assert "not reached" not in status_screen(told)
    assert "not reached from here. Tell the office." in status_screen({**told, "contacts": [BUDI]})


def test_a_disk_below_its_floor_has_nothing_free() -> None:
    assert "246 kB on disk, 0 B free for more." in shown(store={"free_bytes": 1})


@pytest.mark.parametrize(
    ("seconds", "says"),
    [
        (0, "0 s"),
        (59, "59 s"),
        (60, "1 min"),
        (3599, "59 min"),
        (3600, "1 h 0 min"),
        (172_799, "47 h 59 min"),
        (172_800, "2 days"),
        (10**9, "11574 days"),
    ],
)
def test_durations(seconds: int, says: str) -> None:
    assert duration(seconds) == says


@pytest.mark.parametrize(
    ("bytes_", "says"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (1_440_000, "1.4 MB"),
        (256_000_000, "256 MB"),
        (8 << 30, "8.6 GB"),
        (10**15, "1000000 GB"),
    ],
)
def test_sizes(bytes_: int, says: str) -> None:
    assert size(bytes_) == says


@pytest.mark.parametrize("width", [20, 24, 44, 80, 100])
def test_a_screen_fits_its_terminal(width: int) -> None:
    told = copy.deepcopy(STATUS)
    told["messages"].update(submitted=4200, delivered=3100, carried=1099, on_this_device_only=1, refused=1)
    told["contacts"] = [BUDI, OFFICE]
    told["alarms"] = [{"code": "x", "text": "This disk is full: nothing more is taken or carried."}]
    drawn = status_screen(told, Look(width, is_plain=False))
    lines = click.unstyle(drawn).splitlines()
    assert drawn != click.unstyle(drawn)
    assert max(map(len, lines)) <= width
    (bar,) = [line.strip() for line in lines if "█" in line]
    assert bar.endswith("▓░▒")  # one of thousands is still to be seen
    assert len(bar) == min(40, width - 4)


def test_what_is_plain_is_nothing_but_text() -> None:
    told = copy.deepcopy(STATUS)
    told["messages"].update(submitted=3, delivered=2, on_this_device_only=1)
    drawn = status_screen(told, Look(80, is_plain=True))
    assert drawn.replace("\n", "").replace("·", "").isascii()
    assert drawn.replace("\n", "").isprintable()


def test_a_table_that_does_not_fit_is_stacked() -> None:
    rows = [["siti", "10.0.0.2:7766"], ["budi", "10.0.0.3:7766"]]
    assert table(["name", "address"], rows, Look(19)) == table(["name", "address"], rows)
    assert table(["name", "address"], rows, Look(18)).splitlines() == [
        "name: siti",
        "address:",
        "  10.0.0.2:7766",
        "",
        "name: budi",
        "address:",
        "  10.0.0.3:7766",
    ]


@given(st.text())
def test_no_text_can_command_a_terminal(text: str) -> None:
    assert plain(text).isprintable()
    assert len(plain(text)) == len(text)
    if text.isprintable():
        assert plain(text) == text


@given(st.lists(st.lists(st.text("ab "), min_size=2, max_size=2)))
def test_columns_stand_below_each_other(rows: list[list[str]]) -> None:
    lines = table(["x", "second"], rows).split("\n")
    width = max([1, *(len(row[0]) for row in rows)])
    assert len(lines) == len(rows) + 1
    for line, row in zip(lines[1:], rows, strict=True):
        assert line == f"{row[0].ljust(width)}  {row[1]}".rstrip()


def test_messages() -> None:
    message = {
        "key": "ab:1",
        "reference": "Siti\x1b[2J",
        "kind": "",
        "size_bytes": 1_440_000,
        "submitted_ms": 1_700_000_000_000,
        "to": "office",
        "state": "on_this_device_only",
        "reason": "",
        "copies": 0,
    }
    told = [
        message,
        {**message, "state": "carried", "copies": 2},
        {**message, "state": "delivered", "kind": "ktp-el"},
        {**message, "state": "accepted"},
        {**message, "state": "delivered", "to": "budi"},
    ]
    lines = messages_screen(told).splitlines()
    refused = messages_screen([{**message, "state": "refused", "reason": "left iris\x1b[2J"}])
    assert "REFUSED: left iris\ufffd[2J" in refused
    assert lines[0].split() == ["submitted", "where", "size", "kind", "reference", "key"]
    assert [line[18:41].strip() for line in lines[1:]] == [
        "on this device only",
        "carried by 2 colleagues",
        "safe at the office",
        "accepted",
        "delivered, to budi",
    ]
    assert "\x1b" not in "".join(lines)
    assert lines[1].endswith("1.4 MB  -       Siti\ufffd[2J   ab:1")
    assert messages_screen([]) == "No messages submitted on this device yet."


def test_peers() -> None:
    told = [{**BUDI, "uplink": False, "fleet_version": 3}, {**OFFICE, "uplink": True, "fleet_version": 3}]
    assert peers_screen(told).splitlines() == [
        "name    role     address        in contact for  reaches the office",
        "budi    officer  10.0.0.2:7766  1 min           no",
        "kantor  office   10.0.0.1:7766  4 s             yes",
    ]
    assert peers_screen([]) == "Nobody in contact."


# --- the commands ---


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Node, Node]]:
    with Fleet(tmp_path_factory.mktemp("fleet")) as fleet:
        office, ana = fleet.enroll("office", "office"), fleet.enroll("ana")
        ana.configure(peers=[office.address])
        fleet.start(office, ana)
        ana.give({"photo": bytes(300_000)}, kind="photo", reference="Siti Rahayu \x1b]0;x")
        fleet.until("it is delivered", lambda: ana.states() == ["delivered"])
        yield ana, office


def test_the_commands_show_what_the_node_says(pair: tuple[Node, Node]) -> None:
    ana, office = pair
    told = ana.get("messages")
    assert json.loads(ana.run("messages", "--json").stdout) == told
    assert ana.call("messages").stdout == messages_screen(told) + "\n"
    assert "safe at the office" in ana.call("messages").stdout
    assert "\x1b" not in ana.call("messages").stdout
    (peer,) = json.loads(ana.call("peers", "--json").stdout)
    assert (peer["name"], peer["roles"], peer["address"]) == ("office", ["office"], office.address)
    assert peer["uplink"] is True
    assert ana.call("peers").stdout.splitlines()[1].split()[:3] == ["office", "office", office.address]
    status = json.loads(ana.call("status", "--json").stdout)
    assert status.keys() == STATUS.keys()
    assert ana.call("status").stdout.splitlines()[0] == "ana · officer of Tasikmalaya (fleet document 2)"
    assert "  1  safe at the office\n" in ana.call("status").stdout


def test_watching_until_interrupted(pair: tuple[Node, Node], tmp_path: Path) -> None:
    ana, _ = pair
    with subprocess.Popen(
        [*command(ana.home), "status", "--watch"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    ) as watching:
        assert watching.stdout is not None
        assert watching.stderr is not None
        os.set_blocking(watching.stdout.fileno(), True)
        began_s = time.monotonic()
        heads = 0
        for line in watching.stdout:
            heads += line.startswith("ana ·".encode())
            assert time.monotonic() - began_s < START_S
            if heads == 2:
                break
        watching.send_signal(signal.SIGINT)
        rest, said = watching.stdout.read(), watching.stderr.read()
        assert watching.wait(10) == 130
    assert rest.startswith(b"\n")
    assert said == b"\n"


@given(st.text())
def test_json_is_json_and_commands_no_terminal(text: str) -> None:
    told = json_text({"reference": text})
    assert json.loads(told) == {"reference": text}
    assert all(letter.isprintable() or letter in " \n" or ord(letter) > 0x9F for letter in told)

"""Real daemons in numbers: a chain, along which a message runs at once, and a crowd in one Wi-Fi.

The seconds here are real: they are what officers wait.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from statistics import median
from time import monotonic

import pytest

from tests.app.fleets import Fleet, Node
from tests.network import netns
from tests.network.test_daemons import measured, noted, settle

Record = Callable[[str, object], None]
Crowd = tuple[Fleet, netns.Place, list[Node], list[netns.Host]]

RUNS = 5
HOME_S = 2.0

CROWD = 10
PAIRS = CROWD * (CROWD - 1) // 2
#: Bytes for each byte that was needed. Of 2 MB, one bundle that comes twice on a busy machine is a twentieth, and ten
#: handshakes are a fortieth; everything from everybody would be 9.
DUPLICATES_MAX = 1.25
#: Pairs that dial each other at once, and end one of the two contacts: more of them on a busy machine.
COLLISIONS = 15
MET_S = 15.0
SPREAD_S = 15.0
MESSAGES = 20
MESSAGE_SIZE = 100_000


def test_a_chain_of_four(tmp_path: Path, record_property: Record) -> None:
    with Fleet(tmp_path) as fleet:
        office = fleet.enroll("office", "office")
        ana, budi, citra = (fleet.enroll(name) for name in ("ana", "budi", "citra"))
        chain = [ana, budi, citra, office]
        for near, far in pairwise(chain):
            near.configure(peers=[far.address])
        fleet.start(*chain)
        fleet.until("all meet", lambda: [len(node.contacts()) for node in chain] == [1, 2, 2, 1])
        there_s, home_s = zip(*(_send_along(fleet, ana, office) for _ in range(RUNS)), strict=True)
        figures = {"200 kB over two carriers": median(there_s), "its receipt is home": median(home_s)}
        for what, took_s in figures.items():
            noted(record_property, f"{what}, median of {RUNS}: s", took_s)
        assert median(home_s) < HOME_S
        assert [len(node.contacts()) for node in chain] == [1, 2, 2, 1]


def _send_along(fleet: Fleet, ana: Node, office: Node) -> tuple[float, float]:
    """When a message is at the office, and when Ana knows, in seconds from its submission."""
    began_s = monotonic()
    key = ana.give({"photo": bytes(200_000)})["key"]
    fleet.until("it is at the office", lambda: key in office.inbox())
    there_s = monotonic() - began_s
    fleet.until("its receipt is home", lambda: set(ana.states()) == {"delivered"})
    return there_s, monotonic() - began_s


@pytest.fixture
def crowd(tmp_path: Path) -> Iterator[Crowd]:
    if reason := netns.why_not():
        pytest.skip(reason)
    with netns.Lab() as lab, Fleet(tmp_path) as fleet:
        fleet.enroll("office", "office")
        place = lab.place()
        hosts = [lab.host(f"10.77.0.{number}/24") for number in range(1, CROWD + 2)]
        nodes = [settle(fleet, f"officer-{number}", host) for number, host in enumerate(hosts, 1)]
        yield fleet, place, nodes, hosts


@pytest.mark.slow
def test_a_crowd_on_one_wifi(crowd: Crowd, record_property: Record) -> None:
    fleet, place, (*nodes, newcomer), (*hosts, last) = crowd
    fleet.start(*nodes, newcomer)
    began_s = monotonic()
    for host in hosts:
        host.plug(place)
    fleet.until("all meet", lambda: all(len(node.contacts()) == CROWD - 1 for node in nodes), MET_S)
    measured(record_property, f"from one Wi-Fi to the contacts of {CROWD}, all with all", began_s)

    opened = sum(node.log().count("contact with") - node.log().count("ended") for node in nodes) / 2
    noted(record_property, f"contacts opened, for {PAIRS} pairs", opened)
    assert opened <= PAIRS + COLLISIONS

    before = sum(map(received_bytes, hosts))
    began_s = monotonic()
    for _ in range(MESSAGES):
        nodes[0].give({"photo": bytes(MESSAGE_SIZE)})
    others = nodes[1:]

    fleet.until("all carry everything", lambda: all(map(carries_all, others)), SPREAD_S)
    measured(record_property, "2 MB from one to all others", began_s)
    needed = len(others) * MESSAGES * MESSAGE_SIZE
    ratio = (sum(map(received_bytes, hosts)) - before) / needed
    noted(record_property, "bytes on all interfaces for each byte that was needed", ratio)
    assert ratio < DUPLICATES_MAX

    began_s = monotonic()
    last.plug(place)
    fleet.until("a newcomer carries everything", lambda: carries_all(newcomer), SPREAD_S)
    measured(record_property, "2 MB from all others to a newcomer", began_s)
    ratio = received_bytes(last) / (MESSAGES * MESSAGE_SIZE)
    noted(record_property, "bytes to the newcomer for each byte that was needed", ratio)
    assert ratio < DUPLICATES_MAX


def carries_all(node: Node) -> bool:
    return bool(node.get("status")["carrying"]["bundles"] == MESSAGES)


def received_bytes(host: netns.Host) -> int:
    """What has come in by `eth0`."""
    (link,) = json.loads(host.ip("-json", "-statistics", "link", "show", "dev", "eth0"))
    return int(link["stats64"]["rx"]["bytes"])

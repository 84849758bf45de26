"""Real daemons in network namespaces: they find each other without being told, and notice when somebody is gone.

Settings are those of a new node, but for what a test is about. The seconds here are real: they are what officers wait.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from meshnode.core.limits import DEAD_AFTER_S, PING_AFTER_S
from tests.app.fleets import Fleet, Node
from tests.network import netns

#: From the same network to a carried message, and from a dead link to its end.
FOUND_S = 3.0
GONE_S = DEAD_AFTER_S + PING_AFTER_S
PHOTO = {"photo": bytes(range(256)) * 3000}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[tuple[netns.Lab, Fleet]]:
    if reason := netns.why_not():
        pytest.skip(reason)
    with netns.Lab() as lab, Fleet(tmp_path) as fleet:
        yield lab, fleet


def settle(fleet: Fleet, name: str, host: netns.Host, role: str = "officer", settings: str = "") -> Node:
    """A member in a host, with the settings of a new node and perhaps one more."""
    node = fleet.enroll(name, role)
    (node.home / "config.toml").write_text(settings)
    node.namespace = host.namespace
    return node


def measured(record_property: Callable[[str, object], None], what: str, began_s: float) -> float:
    """Seconds since then, for the report."""
    return noted(record_property, f"{what}: s", time.monotonic() - began_s)


def noted(record_property: Callable[[str, object], None], what: str, value: float) -> float:
    """A figure, for the report."""
    record_property(what, round(value, 2))
    sys.stderr.write(f"\n{what}: {value:.2f}\n")
    return value


def test_two_that_come_into_the_same_network(
    world: tuple[netns.Lab, Fleet], record_property: Callable[[str, object], None]
) -> None:
    lab, fleet = world
    fleet.enroll("office", "office")
    here, there = lab.host("10.77.0.1/24"), lab.host("10.77.0.2/24")
    ana, budi = settle(fleet, "ana", here), settle(fleet, "budi", there)
    fleet.start(ana, budi)
    ana.give(PHOTO)
    place = lab.place()
    here.plug(place)
    began_s = time.monotonic()
    there.plug(place)
    fleet.until("it is carried", lambda: ana.states() == ["carried"], FOUND_S)
    measured(record_property, "from the same network to carried", began_s)

    # Budi gets another address while they are in contact
    began_s = time.monotonic()
    there.set_address("10.77.0.9/24")
    fleet.until(
        "he is met at the new address",
        lambda: [peer["address"].partition(":")[0] for peer in ana.get("peers")] == ["10.77.0.9"],
        2 * FOUND_S,
    )
    measured(record_property, "from another address to a new contact", began_s)
    began_s = time.monotonic()
    ana.give(PHOTO)
    fleet.until("it is carried", lambda: ana.states() == ["carried", "carried"], FOUND_S)
    measured(record_property, "from submitted to carried", began_s)
    assert budi.contacts() == ["ana"]


@pytest.mark.slow
def test_a_link_and_a_peer_that_die_without_a_word(
    world: tuple[netns.Lab, Fleet], record_property: Callable[[str, object], None]
) -> None:
    lab, fleet = world
    place = lab.place()
    hosts = [lab.host(f"10.77.0.{number}/24", place) for number in (1, 2, 3)]
    fleet.enroll("office", "office")
    ana, budi, citra = (
        settle(fleet, name, host) for name, host in zip(("ana", "budi", "citra"), hosts, strict=True)
    )
    fleet.start(ana, budi, citra)
    fleet.until("all meet", lambda: sorted(ana.contacts()) == ["budi", "citra"])
    fleet.until("all meet", lambda: sorted(budi.contacts()) == ["ana", "citra"])

    began_s = time.monotonic()
    hosts[1].unplug()  # nothing comes through any more, and no connection is told
    citra.signal(signal.SIGSTOP)  # a device that hangs
    fleet.until("Ana notices", lambda: ana.contacts() == [], GONE_S)
    measured(record_property, "from a dead link and a hung peer to the end of both contacts", began_s)
    for name in ("budi", "citra"):
        assert ana.logged(f"contact with {name} ended: silent")
    fleet.until("Budi notices", lambda: budi.contacts() == [], began_s + GONE_S - time.monotonic())

    ana.give(PHOTO)
    began_s = time.monotonic()
    hosts[1].plug(place)
    fleet.until("Budi carries it", lambda: ana.states() == ["carried"], FOUND_S)
    measured(record_property, "from the link's return to carried", began_s)
    began_s = time.monotonic()
    citra.signal(signal.SIGCONT)
    fleet.until("Citra carries it", lambda: ana.get("messages")[0]["copies"] == 2, 4 * FOUND_S)
    measured(record_property, "from the hung peer's return to carried", began_s)


def test_three_places_one_carrier(
    world: tuple[netns.Lab, Fleet], record_property: Callable[[str, object], None]
) -> None:
    lab, fleet = world
    hamlet, town = lab.place(), lab.place()
    officer = lab.host("10.1.0.1/24", hamlet)
    carrier = lab.host("10.1.0.2/24")
    gateway = lab.host("10.2.0.1/24", town)
    office = settle(fleet, "office", gateway, "office")
    ana, budi = settle(fleet, "ana", officer), settle(fleet, "budi", carrier)
    fleet.start(office, ana, budi)
    key = ana.give(PHOTO)["key"]

    began_s = time.monotonic()
    carrier.plug(hamlet)
    fleet.until("Budi carries it", lambda: ana.states() == ["carried"], FOUND_S)
    measured(record_property, "in the hamlet", began_s)

    carrier.unplug()
    carrier.set_address("10.2.0.7/24")
    began_s = time.monotonic()
    carrier.plug(town)
    fleet.until("it is at the office", lambda: key in office.inbox(), FOUND_S)
    measured(record_property, "in the town", began_s)
    fleet.until("he is rid of it", lambda: budi.get("status")["carrying"]["bundles"] == 0)
    assert ana.states() == ["carried"]

    carrier.unplug()
    carrier.set_address("10.1.0.2/24")
    began_s = time.monotonic()
    carrier.plug(hamlet)
    # Ana may not have noticed yet that he was gone
    fleet.until("the receipt is home", lambda: ana.states() == ["delivered"], FOUND_S)
    measured(record_property, "the receipt in the hamlet", began_s)


def test_the_office_over_the_internet(
    world: tuple[netns.Lab, Fleet], record_property: Callable[[str, object], None]
) -> None:
    lab, fleet = world
    village, city = lab.place(), lab.place()
    internet = lab.host("198.51.100.1/24", village)
    internet.ip("link", "add", "eth1", "type", "veth", "peer", "name", "city", "netns", city.namespace)
    internet.ip("address", "add", "203.0.113.1/24", "dev", "eth1")
    internet.ip("link", "set", "eth1", "up")
    city.adopt("city")
    forward = ["ip", "netns", "exec", internet.namespace, "sysctl", "-q", "net.ipv4.ip_forward=1"]
    subprocess.run(forward, check=True)
    phone, server = lab.host("198.51.100.7/24", village), lab.host("203.0.113.7/24", city)
    server.ip("route", "add", "default", "via", "203.0.113.1")

    office = settle(fleet, "office", server, "office")
    fleet.authority().set_addresses(("203.0.113.7:7766",))
    ana = settle(fleet, "ana", phone)
    fleet.start(office, ana)
    ana.give(PHOTO)
    assert ana.states() == ["on_this_device_only"]
    assert ana.get("status")["uplink"] is False
    began_s = time.monotonic()
    phone.ip("route", "add", "default", "via", "198.51.100.1")
    fleet.until("it is delivered", lambda: ana.states() == ["delivered"], 2 * FOUND_S)
    measured(record_property, "from the internet to delivered", began_s)
    status = ana.get("status")
    assert status["uplink"] is True
    assert [contact["address"] for contact in status["contacts"]] == ["203.0.113.7:7766"]

"""Real daemons in networks that are not as they should be: each way to find a peer is shown where the others fail."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from time import monotonic

import pytest

from tests.app.fleets import Fleet, Node
from tests.network import netns
from tests.network.test_daemons import measured, settle

pytestmark = pytest.mark.slow

Record = Callable[[str, object], None]
World = tuple[netns.Lab, Fleet]

ROOT = Path(__file__).parents[2]
#: What an officer waits who walks into a network.
FOUND_S = 2.0
#: Before it has an IPv6 address, a kernel makes sure for up to two seconds that nobody else has it.
IPV6_S = 2.0
#: By then the other ways would have succeeded.
IN_VAIN_S = 1.5


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    if reason := netns.why_not():
        pytest.skip(reason)
    with netns.Lab() as lab, Fleet(tmp_path) as fleet:
        fleet.enroll("office", "office")
        yield lab, fleet


def addresses(node: Node) -> dict[str, str]:
    """The host part of the address of each peer that it is in contact with, by name."""
    return {peer["name"]: peer["address"].rpartition(":")[0] for peer in node.get("peers")}


def _met(one: Node, other: Node) -> bool:
    return other.name in one.contacts()


def walk_in(
    fleet: Fleet, place: netns.Place, nodes: tuple[Node, Node], hosts: tuple[netns.Host, ...], within_s: float
) -> float:
    """Bring two into one place, and wait until they have met; when they came."""
    for host in hosts[:-1]:
        host.plug(place)
    began_s = monotonic()
    hosts[-1].plug(place)
    for one, other in (nodes, nodes[::-1]):
        fleet.until("they meet", partial(_met, one, other), within_s)
    return began_s


def test_by_probe_where_multicast_is_filtered(world: World, record_property: Record) -> None:
    lab, fleet = world
    hosts = lab.host("10.77.0.1/24"), lab.host("10.77.0.2/24")
    ana, budi = settle(fleet, "ana", hosts[0]), settle(fleet, "budi", hosts[1])
    fleet.start(ana, budi)
    began_s = walk_in(fleet, lab.place(multicast=False), (ana, budi), hosts, FOUND_S)
    measured(record_property, "found by probe", began_s)


def test_by_dns_sd_where_there_is_no_ipv4(world: World, record_property: Record) -> None:
    lab, fleet = world
    hosts = lab.host(), lab.host()
    ana, budi = settle(fleet, "ana", hosts[0]), settle(fleet, "budi", hosts[1])
    fleet.start(ana, budi)
    began_s = walk_in(fleet, lab.place(), (ana, budi), hosts, IPV6_S + FOUND_S)
    measured(record_property, "found by DNS-SD over IPv6", began_s)
    for node in (ana, budi):
        (address,) = addresses(node).values()
        assert address.startswith("[fe80::")
        assert address.endswith("%eth0]")


@pytest.mark.parametrize("ip", ["IPv4", "IPv6"])
def test_by_memory_where_nothing_is_announced(world: World, record_property: Record, ip: str) -> None:
    lab, fleet = world
    place = lab.place()
    hosts = (lab.host("10.77.0.1/24"), lab.host("10.77.0.2/24")) if ip == "IPv4" else (lab.host(), lab.host())
    ana, budi = settle(fleet, "ana", hosts[0]), settle(fleet, "budi", hosts[1])
    fleet.start(ana, budi)
    walk_in(fleet, place, (ana, budi), hosts, IPV6_S + FOUND_S)
    for node, host in zip((ana, budi), hosts, strict=True):
        node.stop()
        host.unplug()
        (node.home / "config.toml").write_text("discovery = false\n")
    fleet.start(ana, budi)
    began_s = walk_in(fleet, place, (ana, budi), hosts, IPV6_S + FOUND_S)
    measured(record_property, f"found by memory, {ip}", began_s)


def test_at_the_gateway_where_all_else_is_filtered(world: World, record_property: Record) -> None:
    lab, fleet = world
    place = lab.place(multicast=False, broadcast=False)
    hotspot, guest = lab.host("10.77.0.1/24", place), lab.host("10.77.0.2/24", place)
    hotspot.knows(guest, "10.77.0.2")
    guest.knows(hotspot, "10.77.0.1")
    ana, budi = settle(fleet, "ana", hotspot), settle(fleet, "budi", guest)
    fleet.start(ana, budi)
    hotspot.ip("route", "add", "default", "via", "10.77.0.9")  # its own uplink; nobody is there
    fleet.watch(IN_VAIN_S)
    assert budi.contacts() == []
    began_s = monotonic()
    guest.ip("route", "add", "default", "via", "10.77.0.1", "metric", "600")
    fleet.until("they meet", lambda: budi.contacts() == ["ana"], FOUND_S)
    measured(record_property, "found at the gateway", began_s)


def test_vpns_and_containers_are_left_alone(world: World) -> None:
    lab, fleet = world
    place = lab.place()
    here, there = lab.host("10.77.0.1/24", place), lab.host("10.77.0.2/24", place)
    container = lab.namespace()
    here.set("net.ipv6.conf.default.disable_ipv6", 1)  # where the kernel itself would speak
    here.ip("link", "add", "docker0", "type", "bridge", "mcast_snooping", "0")
    here.ip("link", "add", "veth7", "type", "veth", "peer", "name", "eth0", "netns", container)
    here.ip("link", "set", "veth7", "master", "docker0", "up")
    here.ip("address", "add", "172.17.0.1/16", "dev", "docker0")
    here.ip("tuntap", "add", "dev", "tun0", "mode", "tun")
    here.ip("address", "add", "10.8.0.1/24", "dev", "tun0")
    for name in ("docker0", "tun0"):
        here.ip("link", "set", name, "up")
    ana, budi = settle(fleet, "ana", here), settle(fleet, "budi", there)
    fleet.start(ana, budi)
    fleet.until("they meet", lambda: ana.contacts() == ["budi"])
    fleet.watch(IN_VAIN_S)
    assert sent(here, "eth0") > 0
    assert sent(here, "docker0") == sent(here, "tun0") == 0
    assert addresses(ana) == {"budi": "10.77.0.2"} or addresses(budi) == {"ana": "10.77.0.1"}

    say = "from meshnode.drivers import network; print('local', *network.local_networks())"
    told = here.start("env", f"PYTHONPATH={ROOT}", sys.executable, "-c", say).expect("local", 10.0)
    assert [each for each in told.split()[1:] if ":" not in each] == ["10.77.0.1/24"]


def sent(host: netns.Host, name: str) -> int:
    """Packets that left the host through this interface, or would have."""
    (link,) = json.loads(host.ip("-json", "-statistics", "link", "show", "dev", name))
    going: dict[str, int] = link["stats64"]["tx"]
    return going["packets"] + going["dropped"]


def test_two_networks_at_once_and_one_goes(world: World, record_property: Record) -> None:
    lab, fleet = world
    wifi, hotspot = lab.place(), lab.place()
    here = lab.host("10.1.0.1/24", wifi)
    here.ip("link", "add", "eth1", "type", "veth", "peer", "name", "second", "netns", hotspot.namespace)
    here.ip("address", "add", "10.2.0.1/24", "dev", "eth1")
    here.ip("link", "set", "eth1", "up")
    hotspot.adopt("second")
    ana = settle(fleet, "ana", here)
    budi = settle(fleet, "budi", lab.host("10.1.0.2/24", wifi))
    citra = settle(fleet, "citra", lab.host("10.2.0.2/24", hotspot))
    began_s = monotonic()
    fleet.start(ana, budi, citra)
    fleet.until("all meet", lambda: sorted(ana.contacts()) == ["budi", "citra"], 2 * FOUND_S)
    measured(record_property, "from the start of three daemons to contacts in two networks", began_s)

    so_far = len(ana.log())
    began_s = monotonic()
    here.ip("address", "flush", "dev", "eth0")
    fleet.until("one contact ends", lambda: ana.contacts() == ["citra"], FOUND_S)
    measured(record_property, "from a lost network to the end of its contact", began_s)
    ana.give({"photo": b"1"})
    fleet.until("it is carried", lambda: ana.states() == ["carried"], FOUND_S)
    assert not ana.logged("contact with citra", so_far)

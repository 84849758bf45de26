"""What is announced and understood; and, in network namespaces, who finds whom when links come, go and change."""

from __future__ import annotations

import errno
import logging
import os
import pathlib
import socket
import sys
import time
from collections.abc import Callable, Iterator

import pytest
import trio
from hypothesis import example, given
from hypothesis import strategies as st
from zeroconf import ServiceInfo

from meshnode.drivers import network
from meshnode.drivers.dnssd import Announcement, Discovery, Sighting, responder
from meshnode.drivers.dnssd.announcement import TYPE, announcement_in, text_of
from tests.network import netns

ROOT = pathlib.Path(__file__).parents[2]
FLEET, OTHER_FLEET = bytes(range(16)), bytes(16)
START_S = 10.0  # a Python starts, on a busy machine
FOUND_S = 3.0


# --- the programs that run in the hosts ---


async def node(name: str, fleet: bytes, ask_again_s: float) -> None:
    """Say whom we sight and when the network changed; have an uplink after each line on stdin; end with it."""
    responder.ASK_AGAIN_S = ask_again_s

    def announcement(uplink: bool) -> Announcement:
        return Announcement(fleet, name.encode().ljust(16), ("officer", "gateway"), uplink, 7766)

    def sighted(sighting: Sighting) -> None:
        host, port = sighting.address
        uplink = " with uplink" if sighting.uplink else ""
        say(f"sighted {sighting.device.decode().strip()} at {host}:{port} {sighting.roles}{uplink}")

    def changed() -> None:
        say("changed")
        discovery.network_changed()

    discovery = Discovery(
        announcement(False), sighted, lambda: [str(own).partition("/")[0] for own in network.local_networks()]
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(network.watch, changed)
        await nursery.start(discovery.run)
        say("ready")
        while await trio.to_thread.run_sync(sys.stdin.readline):
            discovery.update(announcement(True))
        stopping_s = trio.current_time()
        nursery.cancel_scope.cancel()
    say(f"stopped in {trio.current_time() - stopping_s:.3f} s")


def forge(packets: list[bytes]) -> None:
    """Send these as mDNS packets."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as forger:
        forger.bind(("10.77.0.66", 5353))
        forger.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("10.77.0.66"))
        for packet in packets:
            forger.sendto(packet, ("224.0.0.251", 5353))
    say("forged")


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    if sys.argv[1] == "forge":
        forge([bytes.fromhex(packet) for packet in sys.argv[2:]])
    else:
        trio.run(node, sys.argv[1], bytes.fromhex(sys.argv[2]), float(sys.argv[3]))


# --- what is announced and understood ---

identifiers = st.binary(min_size=16, max_size=16)
announcements = st.builds(
    Announcement,
    fleet=identifiers,
    device=identifiers,
    roles=st.lists(st.sampled_from(["officer", "gateway", "office"]), unique=True).map(tuple),
    uplink=st.booleans(),
    port=st.integers(1, 65535),
)
GOOD = {"v": "1", "fleet": "ab" * 16, "id": "cd" * 16, "roles": "officer", "uplink": "1"}


def text(**changes: str | None) -> bytes:
    keys = {key: value for key, value in (GOOD | changes).items() if value is not None}
    return ServiceInfo(TYPE, TYPE, properties=keys).text


@given(announcements)
def test_what_is_announced_is_understood(announcement: Announcement) -> None:
    told = ServiceInfo(TYPE, TYPE, properties=text_of(announcement, "0")).text
    assert announcement_in(told, announcement.port) == announcement


@given(st.binary(), st.none() | st.integers(0, 65535))
@example(text(), 7766)
@example(text()[:-1], 7766)
def test_any_bytes_are_an_announcement_or_none(received: bytes, port: int | None) -> None:
    announcement = announcement_in(received, port)
    assert announcement is None or (len(announcement.fleet), len(announcement.device)) == (16, 16)


@pytest.mark.parametrize(
    "changes",
    [
        {"v": None},
        {"v": "2"},
        {"fleet": None},
        {"fleet": "AB" * 16},
        {"fleet": "ab" * 15},
        {"id": "cd" * 17},
        {"id": "xy" * 16},
        {"id": " " + "cd" * 15 + " "},
        {"roles": "officer,"},
        {"roles": "Officer"},
        {"uplink": None},
        {"uplink": "yes"},
    ],
)
def test_what_is_not_exactly_right_is_none(changes: dict[str, str | None]) -> None:
    assert announcement_in(text(), 7766) is not None
    assert announcement_in(text(**changes), 7766) is None


def test_later_versions_may_add_keys_and_no_port_is_none() -> None:
    assert announcement_in(text(later="yes"), 7766) == announcement_in(text(), 7766)
    assert announcement_in(text(), 0) is None
    assert announcement_in(text(), None) is None


# --- without a network ---

OWN = Announcement(FLEET, b"budi".ljust(16), ("officer",), uplink=False, port=7766)


def nothing_sighted(sighting: Sighting) -> None:
    raise AssertionError(sighting)


async def test_a_failure_is_one_line_and_is_tried_again_at_the_next_change(
    caplog: pytest.LogCaptureFixture,
) -> None:
    send, receive = trio.open_memory_channel[None](10)

    def addresses() -> list[str]:
        trio.from_thread.run_sync(send.send_nowait, None)
        raise OSError(errno.ENETUNREACH, os.strerror(errno.ENETUNREACH))

    discovery = Discovery(OWN, nothing_sighted, addresses)
    with caplog.at_level(logging.WARNING), send, receive:
        async with trio.open_nursery() as nursery:
            await nursery.start(discovery.run)
            await receive.receive()
            discovery.network_changed()
            await receive.receive()
            nursery.cancel_scope.cancel()
    lines = [record.getMessage() for record in caplog.records if record.name == "meshnode.dnssd"]
    assert len(lines) == 2
    assert all("Network is unreachable" in line and "\n" not in line for line in lines)
    assert not any(record.exc_info for record in caplog.records)


async def test_it_can_be_cancelled_at_once_and_does_nothing_when_it_does_not_run() -> None:
    discovery = Discovery(OWN, nothing_sighted, list)
    discovery.network_changed()
    with trio.CancelScope() as scope:
        scope.cancel()
        await discovery.run()
    assert scope.cancelled_caught
    discovery.network_changed()
    discovery.update(OWN)


# --- in network namespaces ---


@pytest.fixture
def lab() -> Iterator[netns.Lab]:
    if reason := netns.why_not():
        pytest.skip(reason)
    with netns.Lab() as lab:
        yield lab


def start(
    host: netns.Host, name: str, *, fleet: bytes = FLEET, ask_again_s: float = responder.ASK_AGAIN_S
) -> netns.Process:
    return start_program(host, name, fleet.hex(), str(ask_again_s))


def start_program(host: netns.Host, *arguments: str) -> netns.Process:
    python = (sys.executable, "-W", "error", "-m", "tests.network.test_dnssd")
    return host.start("env", f"PYTHONPATH={ROOT}", *python, *arguments)


def seconds(
    what: str,
    act: Callable[[], object],
    *expected: tuple[netns.Process, str],
    within_s: float = FOUND_S,
) -> float:
    """Do something and wait for what is to be printed after it; how long it took."""
    begin_s = time.monotonic()
    act()
    for process, wanted in expected:
        process.expect(wanted, within_s)
    took_s = time.monotonic() - begin_s
    say(f"{what}: {took_s:.3f} s")
    return took_s


def sightings(process: netns.Process) -> list[str]:
    return [line for line in process.printed if line.startswith("sighted")]


class Pair:
    """Budi and Sari, who have found each other in one place."""

    def __init__(self, lab: netns.Lab, *, ipv6: bool = True) -> None:
        self.place = lab.place()
        self.budi_host = lab.host("10.77.0.1/24", self.place, ipv6=ipv6)
        self.sari_host = lab.host("10.77.0.2/24", self.place, ipv6=ipv6)
        self.budi, self.sari = start(self.budi_host, "budi"), start(self.sari_host, "sari")
        self.budi.expect("sighted sari at 10.77.0.2:7766 ('officer', 'gateway')", START_S)
        self.sari.expect("sighted budi at 10.77.0.1:7766 ('officer', 'gateway')", START_S)

    def found_again(self) -> tuple[tuple[netns.Process, str], tuple[netns.Process, str]]:
        return (self.sari, "sighted budi at 10.77.0.1"), (self.budi, "sighted sari at 10.77.0.2")


@pytest.fixture
def pair(lab: netns.Lab) -> Pair:
    return Pair(lab)


def test_who_starts_later_on_a_link_that_is_up_is_found(lab: netns.Lab) -> None:
    place = lab.place()
    budi = start(lab.host("10.77.0.1/24", place), "budi")
    budi.expect("ready", START_S)
    sari = start(lab.host("10.77.0.2/24", place), "sari")
    sari.expect("ready", START_S)
    seconds("start", lambda: None, (budi, "sighted sari at 10.77.0.2"), (sari, "sighted budi at 10.77.0.1"))


def test_two_whose_carrier_comes_later(lab: netns.Lab) -> None:
    place = lab.place()
    hosts = lab.host("10.77.0.1/24"), lab.host("10.77.0.2/24")
    budi, sari = start(hosts[0], "budi"), start(hosts[1], "sari")
    budi.expect("ready", START_S)
    sari.expect("ready", START_S)

    def walk_in() -> None:
        for host in hosts:
            host.plug(place)

    found = (budi, "sighted sari at 10.77.0.2"), (sari, "sighted budi at 10.77.0.1")
    seconds("carrier later", walk_in, *found)


def test_two_that_start_without_any_network(lab: netns.Lab) -> None:
    place = lab.place()
    hosts = lab.host(place=place), lab.host(place=place)
    for host in hosts:
        host.down()
    budi, sari = start(hosts[0], "budi"), start(hosts[1], "sari")
    budi.expect("ready", START_S)
    sari.expect("ready", START_S)

    def connect() -> None:
        for number, host in enumerate(hosts, start=1):
            host.up()
            host.set_address(f"10.77.0.{number}/24")

    found = (budi, "sighted sari at 10.77.0.2"), (sari, "sighted budi at 10.77.0.1")
    seconds("address later", connect, *found)


def test_a_new_address_is_told_and_the_old_one_is_not(pair: Pair) -> None:
    seconds(
        "new address",
        lambda: pair.budi_host.set_address("10.77.0.9/24"),
        (pair.sari, "sighted budi at 10.77.0.9"),
        (pair.budi, "sighted sari at 10.77.0.2"),
    )
    assert pair.sari.end(FOUND_S) == 0
    new = [line for line in sightings(pair.sari) if "10.77.0.9" in line]
    assert sightings(pair.sari)[-len(new) :] == new


def test_who_comes_back_with_the_same_address_is_told_again(pair: Pair) -> None:
    pair.budi_host.unplug()
    pair.budi.expect("changed", FOUND_S)
    seconds("carrier back", lambda: pair.budi_host.plug(pair.place), *pair.found_again())


def test_a_short_loss_of_the_carrier_is_one_change(lab: netns.Lab) -> None:
    pair = Pair(lab, ipv6=False)

    def flap() -> None:
        pair.budi_host.unplug()
        pair.budi_host.plug(pair.place)

    seconds("flap", flap, *pair.found_again())
    assert pair.budi.end(FOUND_S) == 0
    assert pair.budi.printed.count("changed") == 1


def test_what_is_no_change_of_the_network_is_not_reported(lab: netns.Lab) -> None:
    pair = Pair(lab, ipv6=False)  # an address that comes late would be a change
    pair.budi_host.ip("link", "set", "eth0", "mtu", "1400")  # of this link nothing was known before
    pair.budi.expect("changed", FOUND_S)
    pair.budi_host.ip("link", "set", "eth0", "mtu", "1300")
    lifetime = ("valid_lft", "600", "preferred_lft", "600")
    pair.budi_host.ip("address", "replace", "10.77.0.1/24", "dev", "eth0", *lifetime)
    with pytest.raises(AssertionError, match="s passed without 'changed'"):
        pair.budi.expect("changed", within_s=2 * network.LATEST_S)


def test_link_local_addresses_are_enough(lab: netns.Lab) -> None:
    place = lab.place()
    hosts = lab.host(), lab.host()
    budi, sari = start(hosts[0], "budi"), start(hosts[1], "sari")
    budi.expect("ready", START_S)
    sari.expect("ready", START_S)

    def walk_in() -> None:
        for host in hosts:
            host.plug(place)

    # The kernels make sure for a second or two that nobody else has these addresses.
    found = (budi, "sighted sari at fe80::"), (sari, "sighted budi at fe80::")
    seconds("IPv6 only", walk_in, *found, within_s=2 * FOUND_S)
    for process in (budi, sari):
        assert process.end(FOUND_S) == 0
        assert all("%eth0:7766" in line for line in sightings(process))


def test_who_moves_on_finds_others(lab: netns.Lab, pair: Pair) -> None:
    elsewhere = lab.place()
    tono = start(lab.host("10.77.0.2/24", elsewhere), "tono")
    tono.expect("ready", START_S)
    seconds(
        "moved",
        lambda: pair.budi_host.plug(elsewhere),
        (tono, "sighted budi at 10.77.0.1"),
        (pair.budi, "sighted tono at 10.77.0.2"),
    )


def test_an_update_is_told_without_a_change(pair: Pair) -> None:
    seconds("update", lambda: pair.budi.write("uplink\n"), (pair.sari, "with uplink"))


def test_who_was_not_heard_at_first_is_found_by_asking_again(lab: netns.Lab) -> None:
    place = lab.place(multicast=False)
    budi = start(lab.host("10.77.0.1/24", place), "budi", ask_again_s=0.5)
    sari = start(lab.host("10.77.0.2/24", place), "sari", ask_again_s=0.5)
    budi.expect("ready", START_S)
    sari.expect("ready", START_S)
    with pytest.raises(AssertionError, match="s passed without 'sighted'"):
        budi.expect("sighted", within_s=1.0)
    seconds(
        "asked again",
        lambda: place.set_multicast(True),
        (budi, "sighted sari at 10.77.0.2"),
        (sari, "sighted budi at 10.77.0.1"),
    )


def test_another_fleet_is_not_sighted(lab: netns.Lab) -> None:
    place = lab.place()
    stranger = start(lab.host("10.77.0.3/24", place), "stranger", fleet=OTHER_FLEET)
    stranger.expect("ready", START_S)
    budi, sari = (
        start(lab.host("10.77.0.1/24", place), "budi"),
        start(lab.host("10.77.0.2/24", place), "sari"),
    )
    budi.expect("sighted sari", START_S)
    sari.expect("sighted budi", START_S)
    for process in (stranger, budi, sari):
        assert process.end(FOUND_S) == 0
    assert not [line for line in sightings(budi) + sightings(sari) if "stranger" in line]
    assert not sightings(stranger)


def forged(name: bytes, keys: bytes, address: str) -> bytes:
    """A response with PTR (twice), SRV, TXT and A of an instance, by RFC 1035 and without compression."""

    def labels(*parts: bytes) -> bytes:
        return b"".join(bytes([len(part)]) + part for part in (*parts, b""))

    def numbers(*values: int) -> bytes:
        return b"".join(value.to_bytes(2, "big") for value in values)

    def record(owner: bytes, kind: int, data: bytes) -> bytes:
        return owner + numbers(kind, 1, 0, 120, len(data)) + data

    service, host = labels(b"_meshnode", b"_tcp", b"local"), labels(name, b"local")
    instance = labels(name, b"_meshnode", b"_tcp", b"local")
    pointer, srv = record(service, 12, instance), record(instance, 33, numbers(0, 0, 7766) + host)
    txt, a = record(instance, 16, keys), record(host, 1, socket.inet_aton(address))
    return numbers(0, 0x8400, 0, 5, 0, 0) + pointer + pointer + srv + txt + a


def test_forged_and_broken_packets_do_no_harm(lab: netns.Lab) -> None:
    # An IPv6 address is ready a second later: then they join again, and miss what is sent meanwhile.
    pair = Pair(lab, ipv6=False)
    eve = b"eve".ljust(16)
    name, keys = eve.hex().encode(), text(fleet=FLEET.hex(), id=eve.hex())
    good = forged(name, keys, "10.77.0.66")
    packets = [
        *(good[:size] for size in range(0, len(good), 7)),
        forged(name, keys, "127.0.0.1"),
        forged(name, keys, "224.0.0.251"),
        forged(name, b"\xff" + keys, "10.77.0.67"),
        forged(b"\xc3\x28" * 20, keys, "10.77.0.68"),  # zeroconf could not say this name again
        forged(b"ab" * 16, text(fleet=FLEET.hex(), id=b"budi".ljust(16).hex()), "10.77.0.69"),
        good,
    ]
    host = lab.host("10.77.0.66/24", pair.place)
    start_program(host, "forge", *(packet.hex() for packet in packets)).expect("forged", START_S)
    pair.budi.expect("sighted eve at 10.77.0.66:7766 ('officer',) with uplink", FOUND_S)
    # Asks again, says what it knows already, and hears.
    pair.budi_host.unplug()
    seconds("after forgeries", lambda: pair.budi_host.plug(pair.place), *pair.found_again())
    assert pair.budi.end(FOUND_S) == 0
    assert {line.split()[3] for line in sightings(pair.budi)} == {"10.77.0.2:7766", "10.77.0.66:7766"}
    assert not [line for line in pair.budi.printed if "Exception" in line]


def test_it_ends_within_a_second_and_leaves_nothing_open(pair: Pair) -> None:
    pair.budi_host.down()
    pair.budi.expect("changed", FOUND_S)
    for process in (pair.budi, pair.sari):
        assert process.end(FOUND_S) == 0
        *said, stopped = process.printed
        assert stopped.startswith("stopped in 0.")
        assert not [line for line in said if "Warning" in line or "Traceback" in line], said

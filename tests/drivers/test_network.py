"""The gateway in the kernel's table, what counts as a change, and how changes are damped."""

from __future__ import annotations

import ipaddress
import itertools
import struct
import sys

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from meshnode.drivers import network
from meshnode.drivers.network import InterfaceAddress, Links, burst, gateway_in

little_endian = pytest.mark.skipif(
    sys.byteorder != "little", reason="the tables are of a little-endian machine"
)

HEAD = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT   \n"
LOCAL = "wlan0\t0001A8C0\t00000000\t0001\t0\t0\t600\t00FFFFFF\t0\t0\t0   \n"
WIFI = "wlan0\t00000000\t0101A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0   \n"
CABLE = "eth0\t00000000\tFE00000A\t0003\t0\t0\t100\t00000000\t0\t0\t0   \n"
DOWN = "eth1\t00000000\t0100000A\t0002\t0\t0\t0\t00000000\t0\t0\t0   \n"
NO_GATEWAY = "ppp0\t00000000\t00000000\t0001\t0\t0\t0\t00000000\t0\t0\t0   \n"
HALF = "tun0\t00000000\t0100080A\t0003\t0\t0\t0\t00000080\t0\t0\t0   \n"


@little_endian
@pytest.mark.parametrize(
    ("table", "gateway"),
    [
        ("", None),
        (HEAD, None),
        (HEAD + LOCAL, None),
        (HEAD + LOCAL + WIFI, "192.168.1.1"),
        (HEAD + WIFI + CABLE + LOCAL, "10.0.0.254"),
        (HEAD + DOWN + NO_GATEWAY + HALF, None),
        (HEAD + DOWN + NO_GATEWAY + HALF + WIFI, "192.168.1.1"),
    ],
)
def test_the_gateway_is_that_of_the_usable_default_route_with_the_lowest_metric(
    table: str, gateway: str | None
) -> None:
    assert gateway_in(table) == gateway


def test_addresses_are_sorted_and_not_loopback() -> None:
    found = network.addresses()
    assert found == sorted(set(found))
    assert not any(ipaddress.IPv4Address(address.ip).is_loopback for address in found)
    gateway = network.default_gateway()
    assert gateway is None or ipaddress.IPv4Address(gateway).version == 4


# --- damping ---


async def test_one_message_is_reported_after_it_was_quiet(autojump_clock: trio.testing.MockClock) -> None:
    send, receive = trio.open_memory_channel[bool](0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(send.send, True)
        assert await burst(receive.receive)
    assert trio.current_time() == pytest.approx(network.QUIET_S)


@pytest.mark.parametrize(("messages", "reported_s"), [(4, 0.5), (1000, 1.0)])
async def test_many_messages_are_one_report(
    messages: int, reported_s: float, autojump_clock: trio.testing.MockClock
) -> None:
    send, receive = trio.open_memory_channel[bool](0)

    async def chatter() -> None:
        for number in range(messages):
            await send.send(number == 1)
            await trio.sleep(0.1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(chatter)
        assert await burst(receive.receive)
        assert trio.current_time() == pytest.approx(reported_s)
        nursery.cancel_scope.cancel()


async def test_a_burst_of_nothing_new_is_false(autojump_clock: trio.testing.MockClock) -> None:
    send, receive = trio.open_memory_channel[bool](2)
    send.send_nowait(False)
    send.send_nowait(False)
    assert not await burst(receive.receive)


async def test_where_netlink_is_refused_it_looks_now_and_then(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = InterfaceAddress("wlan0", "192.168.1.7", 24)
    looks = itertools.chain([[], [], [here]], itertools.repeat([here]))
    reports: list[float] = []

    def refuse() -> None:
        raise PermissionError

    monkeypatch.setattr(network, "_open_netlink", refuse)
    monkeypatch.setattr(network, "addresses", lambda: next(looks))
    monkeypatch.setattr(network, "default_gateway", lambda: None)
    async with trio.open_nursery() as nursery:
        await nursery.start(network.watch, lambda: reports.append(trio.current_time()))
        await trio.sleep(10 * network.POLL_S)
        nursery.cancel_scope.cancel()
    assert reports == pytest.approx([2 * network.POLL_S])


# --- what counts ---

NEW_LINK, GONE_LINK, NEW_ADDRESS, GONE_ADDRESS, NEW_ROUTE = 16, 17, 20, 21, 24
UP, RUNNING, MULTICAST, LOWER_UP = 0x1, 0x40, 0x1000, 0x10000
ON, OFF = UP | RUNNING | LOWER_UP | MULTICAST, UP | MULTICAST


def message(kind: int, body: bytes) -> bytes:
    message = struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body
    return message + bytes(-len(message) % 4)


def link(kind: int, index: int, flags: int = 0, family: int = 0) -> bytes:
    return message(kind, struct.pack("=BxHiII", family, 1, index, flags, 0) + b"attributes")


def test_a_link_that_flaps_counts_and_one_that_stays_does_not() -> None:
    links = Links()
    assert links.changed_by(link(NEW_LINK, 2, ON))
    assert not links.changed_by(link(NEW_LINK, 2, ON))
    assert not links.changed_by(link(NEW_LINK, 2, ON & ~MULTICAST))
    assert links.changed_by(link(NEW_LINK, 2, OFF) + link(NEW_LINK, 2, ON))
    assert not links.changed_by(link(NEW_LINK, 2, ON))
    assert links.changed_by(link(NEW_LINK, 2, ON) + link(NEW_LINK, 3, OFF))


def test_a_link_that_goes_counts_once() -> None:
    links = Links()
    links.changed_by(link(NEW_LINK, 2, ON))
    assert links.changed_by(link(GONE_LINK, 2))
    assert not links.changed_by(link(GONE_LINK, 2))
    assert links.changed_by(link(NEW_LINK, 2, ON))


def test_a_bridge_that_speaks_of_its_port_is_not_the_port() -> None:
    assert not Links().changed_by(link(NEW_LINK, 2, ON, family=7) + link(GONE_LINK, 2, family=7))


def test_an_address_that_goes_counts_and_one_that_is_renewed_is_left_to_a_look() -> None:
    assert Links().changed_by(message(NEW_ROUTE, bytes(13)) + message(GONE_ADDRESS, bytes(9)))
    assert not Links().changed_by(message(NEW_ADDRESS, bytes(9)) + message(NEW_ROUTE, bytes(13)))


@given(st.lists(st.tuples(st.sampled_from([1, 2, 3]), st.sampled_from([ON, OFF, None]))), st.data())
def test_messages_count_alike_one_by_one_and_together(
    told: list[tuple[int, int | None]], data: st.DataObject
) -> None:
    messages = [
        link(GONE_LINK, index) if flags is None else link(NEW_LINK, index, flags) for index, flags in told
    ]
    one_by_one, together = Links(), Links()
    cut = data.draw(st.integers(0, len(messages)))
    first = [one_by_one.changed_by(each) for each in messages[:cut]]
    rest = [one_by_one.changed_by(each) for each in messages[cut:]]
    assert together.changed_by(b"".join(messages[:cut])) == any(first)
    assert together.changed_by(b"".join(messages[cut:])) == any(rest)

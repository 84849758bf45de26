"""Which interfaces are local, the gateways in the kernel's tables, what counts as a change, how changes are damped."""

from __future__ import annotations

import ipaddress
import itertools
import socket
import struct
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from meshnode.drivers import network
from meshnode.drivers.network import InterfaceAddress, Links, burst, gateways6_in, gateways_in, is_local

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
    ("table", "gateways"),
    [
        ("", []),
        (HEAD, []),
        (HEAD + LOCAL, []),
        (HEAD + LOCAL + WIFI, [("wlan0", "192.168.1.1")]),
        (HEAD + WIFI + CABLE + LOCAL, [("eth0", "10.0.0.254"), ("wlan0", "192.168.1.1")]),
        (HEAD + DOWN + NO_GATEWAY + HALF, []),
        (HEAD + DOWN + NO_GATEWAY + HALF + WIFI, [("wlan0", "192.168.1.1")]),
    ],
)
def test_the_gateways_are_those_of_usable_default_routes_the_lowest_metric_first(
    table: str, gateways: list[tuple[str, str]]
) -> None:
    assert gateways_in(table) == gateways


def route6(target: str, bits: str, gateway: str, metric: str, flags: str, name: str) -> str:
    zero = "0" * 32
    return (
        f"{target or zero} {bits} {zero} 00 {gateway or zero} {metric} 00000002 00000000 {flags} {name:>8}\n"
    )


ROUTER = "fe800000000000000000000000000001"
WIFI6 = route6("", "00", ROUTER, "00000400", "00450003", "wlan0")
CABLE6 = route6("", "00", "fd000000000000000000000000000001", "00000100", "00000003", "eth0")
LOCAL6 = route6("fe80" + "0" * 28, "40", "", "00000100", "00000001", "wlan0")
NO_GATEWAY6 = route6("", "00", "", "ffffffff", "00200200", "lo")
ELSEWHERE6 = route6("20010db8" + "0" * 24, "20", ROUTER, "00000100", "00000003", "wlan0")


@pytest.mark.parametrize(
    ("table", "gateways"),
    [
        ("", []),
        (LOCAL6 + NO_GATEWAY6 + ELSEWHERE6, []),
        (LOCAL6 + WIFI6 + NO_GATEWAY6, [("wlan0", "fe80::1%wlan0")]),
        (WIFI6 + CABLE6, [("eth0", "fd00::1"), ("wlan0", "fe80::1%wlan0")]),
    ],
)
def test_an_ipv6_gateway_that_is_link_local_comes_with_its_link(
    table: str, gateways: list[tuple[str, str]]
) -> None:
    assert gateways6_in(table) == gateways


def test_addresses_are_sorted_and_not_loopback() -> None:
    found = network.addresses()
    assert found == sorted(set(found))
    assert not any(ipaddress.ip_address(address.ip).is_loopback for address in found)
    own = {address.ip for address in found}
    assert {str(each).partition("/")[0] for each in network.local_networks()} <= own
    for gateway in network.default_gateways():
        assert ipaddress.ip_address(gateway).version in (4, 6)


# --- which interfaces are local ---

UP_BROADCAST = 0x1 | 0x2 | 0x1000


def describe(
    sysfs: Path, name: str, *there: str, kind: int = 1, flags: int = UP_BROADCAST, below: Iterable[str] = ()
) -> None:
    """Describe an interface as Linux does, with these files and folders besides its type and flags."""
    about = sysfs / name
    about.mkdir()
    (about / "type").write_text(f"{kind}\n")
    (about / "flags").write_text(f"{flags:#x}\n")
    for each in there:
        (about / each).mkdir()
    for each in below:
        (about / f"lower_{each}").symlink_to(sysfs / each)


def test_which_interfaces_are_local(tmp_path: Path) -> None:
    describe(tmp_path, "wlan0", "device")
    describe(tmp_path, "eth0")  # one end of a veth
    describe(tmp_path, "lo", kind=772)
    describe(tmp_path, "tun0", "tun_flags", kind=65534, flags=0x1090)
    describe(tmp_path, "tap0", "tun_flags")
    describe(tmp_path, "wg0", kind=65534, flags=0x91)
    describe(tmp_path, "ppp0", kind=512, flags=0x1091)
    describe(tmp_path, "wwan0", "device", flags=UP_BROADCAST | 0x80)
    describe(tmp_path, "rmnet0", "device", kind=519)
    describe(tmp_path, "veth7")
    describe(tmp_path, "docker0", "bridge", below=["veth7"])
    describe(tmp_path, "virbr0", "bridge")
    describe(tmp_path, "br0", "bridge", below=["veth7", "wlan0"])
    describe(tmp_path, "bond0", below=["wlan0"])
    describe(tmp_path, "bond0.7", below=["bond0"])
    describe(tmp_path, "br7", "bridge", below=["bond0.7"])
    local = {each.name for each in tmp_path.iterdir() if is_local(each.name, tmp_path)}
    assert local == {"wlan0", "eth0", "veth7", "br0", "bond0", "bond0.7", "br7"}
    assert is_local("wlan0:1", tmp_path), "a second address of it"


@pytest.mark.parametrize(
    ("name", "local"),
    [("en0", True), ("bridge0", True), ("wlan0", True)]
    + [
        (name, False)
        for name in ("utun3", "bridge100", "vmnet8", "docker0", "tun0", "awdl0", "vEthernet (WSL)")
    ],
)
def test_where_nothing_but_the_name_is_known(tmp_path: Path, name: str, local: bool) -> None:
    assert is_local(name, tmp_path) is local


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
    private = InterfaceAddress("wlan0", "2001:db8::7", 64, temporary=True)
    looks = itertools.chain([[], [private], [here, private]], itertools.repeat([here]))
    reports: list[float] = []

    def refuse() -> None:
        raise PermissionError

    monkeypatch.setattr(network, "_open_netlink", refuse)
    monkeypatch.setattr(network, "addresses", lambda: next(looks))
    monkeypatch.setattr(network, "_default_routes", list)
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


@pytest.mark.parametrize(
    ("flags", "counts"), [(0x80, True), (0x00, True), (0x01, False), (0x40, False), (0x08, False)]
)
def test_ipv6_addresses_that_are_tried_out_or_replaced_for_privacy_do_not_count(
    flags: int, counts: bool
) -> None:
    gone = message(GONE_ADDRESS, struct.pack("=BBBBi", socket.AF_INET6, 64, flags, 0, 2))
    assert Links().changed_by(gone) is counts


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

"""What this machine's network looks like, and when it changes.

A change is an address or a default gateway that came or went, or a link that lost or regained its carrier,
also when all ended up as it was: whoever walks out of one Wi-Fi and into the next may get the same address
there, and has other neighbours. Nothing else counts. The kernel also tells of Wi-Fi scans and renewed leases,
every few minutes; if those were changes, a whole fleet would ask for its neighbours all day.

On Linux the kernel's messages (rtnetlink) wake the watcher, and nothing wakes it while the network is still.
Elsewhere, and where netlink is refused, it looks every `POLL_S`. A link that comes up says so in several
messages, so a change is reported once they have stopped for `QUIET_S`, and after `LATEST_S` in any case.

IPv4 only: neighbours on a field Wi-Fi or a phone's hotspot always have IPv4, if need be link-local.
"""

from __future__ import annotations

import errno
import ipaddress
import pathlib
import socket
import struct
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import ifaddr
import trio

QUIET_S = 0.2
LATEST_S = 1.0
POLL_S = 5.0


@dataclass(frozen=True, order=True)
class InterfaceAddress:
    """One IPv4 address of this machine: the interface's name, the address, and the bits of its network."""

    name: str
    ip: str
    prefix: int


def addresses() -> list[InterfaceAddress]:
    """The IPv4 addresses of all interfaces but loopback, sorted; OSError when the system cannot say."""
    found = {
        InterfaceAddress(ip.nice_name, ip.ip, ip.network_prefix)
        for adapter in ifaddr.get_adapters()
        for ip in adapter.ips
        if isinstance(ip.ip, str)
    }
    return sorted(address for address in found if not ipaddress.IPv4Address(address.ip).is_loopback)


def default_gateway() -> str | None:
    """The IPv4 address of the default gateway; None where there is none, or not on Linux."""
    if sys.platform != "linux":
        return None
    try:
        return gateway_in(pathlib.Path("/proc/net/route").read_text("ascii"))
    except OSError:
        return None


_ROUTE_UP_GATEWAY = 0x0001 | 0x0002  # RTF_UP | RTF_GATEWAY


def gateway_in(table: str) -> str | None:
    """The gateway of the default route with the lowest metric, in a table as /proc/net/route shows it."""
    routes = []
    for line in table.splitlines()[1:]:
        _name, destination, gateway, flags, _references, _use, metric, mask, *_ = line.split()
        usable = int(flags, 16) & _ROUTE_UP_GATEWAY == _ROUTE_UP_GATEWAY
        if usable and int(destination, 16) == int(mask, 16) == 0:
            # The kernel prints the four bytes as if they were a number of this machine.
            routes.append((int(metric), socket.inet_ntoa(struct.pack("=I", int(gateway, 16)))))
    return min(routes)[1] if routes else None


async def watch(
    on_change: Callable[[], None], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Call `on_change` after each change of the network, until cancelled.

    No change is missed after `task_status` has started, so look at the network only then.
    """
    try:
        netlink = _open_netlink()
    except OSError:  # a sandbox, or Android
        netlink = None
    if netlink is None:
        await _watch_by_looking(on_change, task_status)
    else:
        with netlink:
            await _watch_by_netlink(netlink, on_change, task_status)


async def _watch_by_looking(on_change: Callable[[], None], task_status: trio.TaskStatus[None]) -> None:
    known = _state()
    task_status.started()
    while True:
        await trio.sleep(POLL_S)
        before, known = known, _state()
        if known != before:
            on_change()


async def _watch_by_netlink(
    netlink: trio.socket.SocketType, on_change: Callable[[], None], task_status: trio.TaskStatus[None]
) -> None:
    links = Links()
    known = _state()
    task_status.started()
    while True:
        flapped = await burst(lambda: _receive(netlink, links))
        before, known = known, _state()
        if flapped or known != before:
            on_change()


def _state() -> tuple[list[InterfaceAddress], str | None] | None:
    try:
        return addresses(), default_gateway()
    except OSError:
        return None


async def burst(receive: Callable[[], Awaitable[bool]]) -> bool:
    """Wait for a first item, then take more until none came for `QUIET_S`, or `LATEST_S` have passed.

    Returns whether any item was true.
    """
    any_true = await receive()
    latest = trio.current_time() + LATEST_S
    while True:
        with trio.move_on_at(min(latest, trio.current_time() + QUIET_S)) as quiet:
            any_true = await receive() or any_true
        if quiet.cancelled_caught:
            return any_true


# --- rtnetlink(7) -----------------------------------------------------------------------------------------

_GROUPS = 0x01 | 0x10 | 0x40  # RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV4_ROUTE
_MESSAGE = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, sequence, port
_LINK = struct.Struct("=BxHiII")  # struct ifinfomsg: family, type, index, flags, change
_NEW_LINK, _GONE_LINK, _GONE_ADDRESS = 16, 17, 21
_UP_RUNNING_CARRIER = 0x1 | 0x40 | 0x10000  # IFF_UP | IFF_RUNNING | IFF_LOWER_UP
_RECEIVE_SIZE = 64 * 1024


class Links:
    """Remembers which links were up, to tell a flap from all else that the kernel says of links."""

    def __init__(self) -> None:
        self._flags: dict[int, int] = {}

    def changed_by(self, data: bytes) -> bool:
        """Whether these netlink messages tell of a change by themselves, even if all ends up as it was.

        What need not be a change, such as a renewed address, is left to a look at the addresses.
        """
        changed = False
        while len(data) >= _MESSAGE.size:
            length, kind, *_ = _MESSAGE.unpack_from(data)
            if kind == _GONE_ADDRESS:
                changed = True
            elif kind in (_NEW_LINK, _GONE_LINK):
                family, _type, index, flags, _change = _LINK.unpack_from(data, _MESSAGE.size)
                # Bridges speak of their ports in the same messages, under a family of their own.
                if family == socket.AF_UNSPEC:
                    changed |= self._now(index, flags & _UP_RUNNING_CARRIER if kind == _NEW_LINK else None)
            data = data[max(_MESSAGE.size, (length + 3) & ~3) :]
        return changed

    def _now(self, index: int, flags: int | None) -> bool:
        before = self._flags.pop(index, None)
        if flags is not None:
            self._flags[index] = flags
        return flags != before


def _open_netlink() -> trio.socket.SocketType | None:
    if sys.platform != "linux":
        return None
    netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
    try:
        netlink.bind((0, _GROUPS))
    except OSError:
        netlink.close()
        raise
    return trio.socket.from_stdlib_socket(netlink)


async def _receive(netlink: trio.socket.SocketType, links: Links) -> bool:
    try:
        data = await netlink.recv(_RECEIVE_SIZE)
    except OSError as error:
        if error.errno != errno.ENOBUFS:
            raise
        return True  # So much happened that the kernel dropped some of it.
    return links.changed_by(data)

"""What this machine's network looks like, and when it changes.

A change is an address or a default gateway that came or went, or a link that lost or regained its carrier,
also when all ended up as it was: whoever walks out of one Wi-Fi and into the next may get the same address
there, and has other neighbours. Nothing else counts. The kernel also tells of Wi-Fi scans and renewed leases,
every few minutes, and of IPv6 addresses that are tried out or replaced for privacy; if those were changes, a
whole fleet would ask for its neighbours all day.

On Linux the kernel's messages (rtnetlink) wake the watcher, and nothing wakes it while the network is still.
Elsewhere, and where netlink is refused, it looks every `POLL_S`. A link that comes up says so in several
messages, so a change is reported once they have stopped for `QUIET_S`, and after `LATEST_S` in any case.

Neighbours are looked for on **local** interfaces only: not in a VPN, where they would be strangers or far away,
nor on the bridges of containers and virtual machines, where nobody is but this machine itself.

An IPv6 address that is valid on its link only is told with its link, as `fe80::1%wlan0`.
"""

from __future__ import annotations

import errno
import ipaddress
import re
import socket
import struct
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import ifaddr
import trio

QUIET_S = 0.2
LATEST_S = 1.0
POLL_S = 5.0

#: An address, with its zone if it has one, and the network around it.
LocalNetwork = ipaddress.IPv4Interface | ipaddress.IPv6Interface

_SYSFS: Final = Path("/sys/class/net")


@dataclass(frozen=True, order=True)
class InterfaceAddress:
    """One address of this machine: the interface's name, the address, and the bits of its network.

    `temporary`: an IPv6 address that is used for privacy, and replaced by another one every day.
    """

    name: str
    ip: str
    prefix: int
    temporary: bool = False


def addresses() -> list[InterfaceAddress]:
    """The addresses of all interfaces but loopback, sorted; OSError when the system cannot say.

    An IPv6 address that is still being tried out (RFC 4862) is not one yet.
    """
    flags = _ipv6_flags()
    found = set()
    for adapter in ifaddr.get_adapters():
        for each in adapter.ips:
            name, ip = each.nice_name, each.ip
            if not isinstance(ip, str):
                plain, _flow, scope = ip
                ip = f"{plain}%{zone_of(scope)}" if scope else plain
                said = flags.get((name, plain), 0)
                if said & _NOT_YET:
                    continue
                found.add(InterfaceAddress(name, ip, each.network_prefix, bool(said & _TEMPORARY)))
            else:
                found.add(InterfaceAddress(name, ip, each.network_prefix))
    return sorted(address for address in found if not ipaddress.ip_address(address.ip).is_loopback)


def local_networks() -> list[LocalNetwork]:
    """Where neighbours find this machine: its addresses there, each with its network; OSError as in `addresses`."""
    return [
        ipaddress.ip_interface(f"{each.ip}/{each.prefix}")
        for each in addresses()
        if not each.temporary and is_local(each.name)
    ]


def zone_of(index: int) -> str:
    """What stands behind the % of an address of this interface: its name, or its number if it has none."""
    try:
        return socket.if_indextoname(index)
    except OSError:
        return str(index)


# --- interfaces -------------------------------------------------------------------------------------------

_ETHERNET: Final = 1  # ARPHRD_ETHER, which Wi-Fi is too
_POINT_TO_POINT, _NO_ARP = 0x10, 0x80  # IFF_POINTOPOINT, IFF_NOARP
#: Where the system does not say more than a name.
_VIRTUAL: Final = re.compile(
    r"(utun|tun|tap|wg|ppp|ipsec|gif|stf|awdl|llw|zt|tailscale|bridge1\d\d|docker|br-|virbr|lxc|vmnet|vboxnet|vethernet)"
    r"|.*(hyper-v|virtualbox|vmware|wireguard|wintun|tap-windows)",
    re.IGNORECASE,
)


def is_local(name: str, sysfs: Path = _SYSFS) -> bool:
    """Whether neighbours may be behind this interface. `sysfs` is where Linux describes interfaces.

    One end of a veth counts: it is all that a container has. A bridge counts if it leads to a device.
    """
    name = name.partition(":")[0]  # eth0:1 is a second address of eth0
    about = sysfs / name
    try:
        kind = int((about / "type").read_text())
        flags = int((about / "flags").read_text(), 16)
    except (OSError, ValueError):
        return not _VIRTUAL.match(name)
    if kind != _ETHERNET or flags & (_POINT_TO_POINT | _NO_ARP) or (about / "tun_flags").exists():
        return False
    return not (about / "bridge").exists() or _has_device(name, sysfs)


def _has_device(name: str, sysfs: Path) -> bool:
    """Whether it is a device or, as a bridge, a bond or a VLAN, stands upon one."""
    about = sysfs / name
    below = (link.name.removeprefix("lower_") for link in about.glob("lower_*"))
    return (about / "device").exists() or any(_has_device(each, sysfs) for each in below)


# --- gateways ---------------------------------------------------------------------------------------------


def default_gateways() -> list[str]:
    """The addresses of all default gateways on local interfaces; none where there are none, or not on Linux.

    All, because the Wi-Fi of a colleague's phone matters also while this device prefers its own mobile data.
    """
    return list(dict.fromkeys(ip for name, ip in _default_routes() if is_local(name)))


def _default_routes() -> list[tuple[str, str]]:
    return [*gateways_in(_read("/proc/net/route")), *gateways6_in(_read("/proc/net/ipv6_route"))]


def _read(path: str) -> str:
    if sys.platform != "linux":
        return ""
    try:
        return Path(path).read_text("ascii")
    except OSError:  # Android, or no IPv6
        return ""


_ROUTE_UP_GATEWAY = 0x0001 | 0x0002  # RTF_UP | RTF_GATEWAY


def _is_usable(flags: str) -> bool:
    return int(flags, 16) & _ROUTE_UP_GATEWAY == _ROUTE_UP_GATEWAY


def gateways_in(table: str) -> list[tuple[str, str]]:
    """Interface and gateway of each default route, the lowest metric first, in a table as /proc/net/route."""
    routes = []
    for line in table.splitlines()[1:]:
        name, destination, gateway, flags, _references, _use, metric, mask, *_ = line.split()
        if _is_usable(flags) and int(destination, 16) == int(mask, 16) == 0:
            # The kernel prints the four bytes as if they were a number of this machine.
            routes.append((int(metric), name, socket.inet_ntoa(struct.pack("=I", int(gateway, 16)))))
    return [(name, ip) for _metric, name, ip in sorted(routes)]


def gateways6_in(table: str) -> list[tuple[str, str]]:
    """The same in a table as /proc/net/ipv6_route."""
    routes = []
    for line in table.splitlines():
        target, bits, _from, _bits, gateway, metric, _references, _use, flags, name = line.split()
        if _is_usable(flags) and int(target, 16) == int(bits, 16) == 0:
            ip = ipaddress.IPv6Address(int(gateway, 16))
            routes.append((int(metric, 16), name, f"{ip}%{name}" if ip.is_link_local else str(ip)))
    return [(name, ip) for _metric, name, ip in sorted(routes)]


_TEMPORARY: Final = 0x01  # IFA_F_TEMPORARY
_NOT_YET: Final = 0x08 | 0x40  # IFA_F_DADFAILED | IFA_F_TENTATIVE


def _ipv6_flags() -> dict[tuple[str, str], int]:
    """Flags (rtnetlink(7), IFA_F_) by the interface's name and the address, as far as the system tells them."""
    flags = {}
    for line in _read("/proc/net/if_inet6").splitlines():
        ip, _index, _prefix, _scope, said, name = line.split()
        flags[name, str(ipaddress.IPv6Address(int(ip, 16)))] = int(said, 16)
    return flags


# --- changes ----------------------------------------------------------------------------------------------


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


def _state() -> tuple[list[InterfaceAddress], list[tuple[str, str]]] | None:
    try:
        return [address for address in addresses() if not address.temporary], _default_routes()
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

_GROUPS = (
    0x01 | 0x10 | 0x40 | 0x100 | 0x400
)  # RTMGRP_: LINK, IPV4_IFADDR, IPV4_ROUTE, IPV6_IFADDR, IPV6_ROUTE
_MESSAGE = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, sequence, port
_LINK = struct.Struct("=BxHiII")  # struct ifinfomsg: family, type, index, flags, change
_ADDRESS = struct.Struct("=BxBx")  # struct ifaddrmsg begins so: family, prefix, flags, scope
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
                family, said = _ADDRESS.unpack_from(data, _MESSAGE.size)
                changed |= family != socket.AF_INET6 or not said & (_TEMPORARY | _NOT_YET)
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

"""Asks the local network by broadcast who of the fleet is there: many a Wi-Fi forwards no multicast, and so no DNS-SD.

A **question** is one datagram to the broadcast address of each local IPv4 network, at the fleet's UDP port. Whoever
hears one of its own fleet answers it once, by a datagram to where it came from. Question and answer say the same, who
is asking or answering and at which TCP port that device is reached, so both have **heard** of the other after one
exchange. Anybody can forge either: hearing is a reason to dial, no more.

    b"meshnode/1", kind (0 asks, 1 answers), fleet (16 bytes), device (16 bytes), TCP port (2 bytes): 45 bytes

Nobody can use a node against others. An answer is as long as the question and begets nothing, it goes only to an
address of a network that this device is in, at most once in `PER_SOURCE_S` to each, and from a flood no more than
`PER_S` datagrams a second are taken in.

Questions come in a burst at the start and after each change of the network, since a datagram may be lost and a switch
may not forward at first; later now and then, in case both bursts were lost.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
import struct
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv4Interface, IPv4Network
from typing import Final

import trio

#: Pauses before the questions of a burst: at once, and when a Wi-Fi or a switch may have needed a moment.
BURST_S: Final = (0.0, 1.0, 2.0)
#: Between questions while there is no contact. One broadcast a minute is nothing for a battery or a network.
ALONE_S: Final = 60.0
#: Between questions while there is one. Whoever comes new asks himself; this is for bursts that were lost.
ACCOMPANIED_S: Final = 600.0
#: Of one source no more is taken in than one question and one answer in this time.
PER_SOURCE_S: Final = 0.5
#: Datagrams taken in a second. A crowd that starts at once stays below.
PER_S: Final = 64

_FORM: Final = struct.Struct("!10sB16s16sH")
_MAGIC: Final = b"meshnode/1"
_ASKS, _ANSWERS = 0, 1

#: On which a network that has just gone answers a broadcast.
_GONE: Final = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EADDRNOTAVAIL, errno.ENODEV)

_log = logging.getLogger("meshnode.probe")


@dataclass(frozen=True)
class Probe:
    """What a datagram says: ids of 16 bytes, and the TCP port at which the device is reached."""

    fleet: bytes
    device: bytes
    port: int
    asks: bool = True


def encode(probe: Probe) -> bytes:
    """The datagram."""
    kind = _ASKS if probe.asks else _ANSWERS
    return _FORM.pack(_MAGIC, kind, probe.fleet, probe.device, probe.port)


def decode(data: bytes) -> Probe | None:
    """What these bytes say; None if they are no probe."""
    if len(data) != _FORM.size:
        return None
    magic, kind, fleet, device, port = _FORM.unpack(data)
    if magic != _MAGIC or kind not in (_ASKS, _ANSWERS) or port == 0:
        return None
    return Probe(fleet, device, port, asks=kind == _ASKS)


class Restraint:
    """Lets through so much as serves neighbours, and no more, whoever floods."""

    def __init__(self) -> None:
        self._taken: dict[tuple[str, bool], float] = {}
        self._second_s = 0.0
        self._count = 0

    def allows(self, source: str, asks: bool, now_s: float) -> bool:
        """Whether a datagram from there is to be taken in now."""
        if now_s - self._second_s >= 1.0:
            self._second_s, self._count = now_s, 0
            self._taken = {who: at_s for who, at_s in self._taken.items() if now_s - at_s < PER_SOURCE_S}
        if self._count >= PER_S or now_s - self._taken.get((source, asks), -PER_SOURCE_S) < PER_SOURCE_S:
            return False
        self._taken[source, asks] = now_s
        self._count += 1
        return True


class Prober:
    """Asks and answers for one device while `run` runs.

    `own` is what this device says. `on_heard` gets the id of another device of the fleet and its (IPv4, TCP port).
    `networks` gives this device's addresses on local networks and may raise OSError; `is_alone` says whether it has no
    contact. `port` is the UDP port at which the fleet asks; where somebody else has taken it, this device only asks.
    """

    def __init__(
        self,
        own: Probe,
        on_heard: Callable[[bytes, tuple[str, int]], None],
        networks: Callable[[], Iterable[IPv4Interface]],
        is_alone: Callable[[], bool],
        port: int,
    ) -> None:
        self._own = own
        self._on_heard = on_heard
        self._networks = networks
        self._is_alone = is_alone
        self._port = port
        self._changed = trio.Event()
        self._asked_s = float("-inf")
        self._restraint = Restraint()
        self._near: frozenset[IPv4Network] = frozenset()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Ask and answer, until cancelled."""
        with contextlib.ExitStack() as closing:
            asking = closing.enter_context(_socket(0))
            through = [asking]
            try:
                through.append(closing.enter_context(_socket(self._port)))
            except OSError as problem:
                _log.warning("does not hear probes at UDP port %d: %s", self._port, problem.strerror)
            self._look()
            async with trio.open_nursery() as nursery:
                for each in through:
                    nursery.start_soon(self._hear, each)
                task_status.started()
                await self._ask(asking)

    def network_changed(self) -> None:
        """Ask anew: call it whenever the network may have become another one."""
        self._changed.set()

    # --- asking ---

    async def _ask(self, asking: trio.socket.SocketType) -> None:
        while True:
            self._changed = changed = trio.Event()
            for pause_s in _pauses():
                with trio.move_on_after(pause_s):
                    await changed.wait()
                if changed.is_set():
                    break
                if pause_s < ALONE_S or self._is_due():
                    await self._ask_once(asking)

    def _is_due(self) -> bool:
        return self._is_alone() or trio.current_time() - self._asked_s >= ACCOMPANIED_S

    async def _ask_once(self, asking: trio.socket.SocketType) -> None:
        self._asked_s = trio.current_time()
        self._look()
        data = encode(self._own)
        for network in sorted(self._near):
            if network.num_addresses > 2:  # a smaller one has no broadcast address
                await _send(asking, data, str(network.broadcast_address), self._port)

    def _look(self) -> None:
        try:
            self._near = frozenset(each.network for each in self._networks())
        except OSError:
            self._near = frozenset()

    # --- hearing ---

    async def _hear(self, hearing: trio.socket.SocketType) -> None:
        answer = encode(Probe(self._own.fleet, self._own.device, self._own.port, asks=False))
        while True:
            try:
                data, (host, port) = await hearing.recvfrom(_FORM.size + 1)
            except OSError:  # what a network says of a datagram that was sent before
                await trio.lowlevel.checkpoint()
                continue
            heard = decode(data)
            if heard is None or heard.fleet != self._own.fleet or heard.device == self._own.device:
                continue
            if not self._is_near(host) or not self._restraint.allows(host, heard.asks, trio.current_time()):
                continue
            if heard.asks:
                await _send(hearing, answer, host, port)
            self._on_heard(heard.device, (host, heard.port))

    def _is_near(self, host: str) -> bool:
        try:
            address = IPv4Address(host)
        except AddressValueError:
            return False
        return any(address in network for network in self._near)


def _pauses() -> Iterator[float]:
    yield from BURST_S
    while True:
        yield ALONE_S


async def _send(through: trio.socket.SocketType, data: bytes, host: str, port: int) -> None:
    try:
        await through.sendto(data, (host, port))
    except OSError as problem:
        if problem.errno not in _GONE:
            _log.info("cannot send a probe to %s: %s", host, problem.strerror)


def _socket(port: int) -> trio.socket.SocketType:
    """A UDP socket at this port that several nodes of one machine can have at once. Raises OSError."""
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        udp.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        if port:
            udp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if sys.platform == "darwin":
                udp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        udp.bind(("", port))
    except OSError:
        udp.close()
        raise
    return trio.socket.from_stdlib_socket(udp)

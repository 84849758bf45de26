"""Where simulated daemons live: places, who is in range of whom, and the byte streams between them.

A `Pipe` is one end of a stream in memory that behaves as TCP does where it matters to a daemon. It holds a bounded
number of bytes, so a sender has to wait for a slow receiver; bytes take time, if it is given a rate and a latency; it
can be cut, also in the middle of what is on its way; and it can fall silent: nobody is told, and nothing arrives.
trio's own memory streams are unbounded or in lockstep, and hide what backpressure does.

`Places` is the switchboard. Each daemon has a `Place`, its whole outside (`meshnode.app.outside.Outside`): dialling
`name:port` gives a pipe if the other is in range and listens. Who the peer is, the switchboard says; there is no TLS,
and no thread. All times are those of the running trio clock; chance comes from the seed and the place's name.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

import trio

from meshnode.core.identity import Certificate
from meshnode.core.limits import GIB, HANDSHAKE_S, KIB
from meshnode.drivers.tls import NoContact
from meshnode.sim.pinned import call_here

T = TypeVar("T")

#: Bytes that have been sent and not been taken, in one direction.
CAPACITY_BYTES: Final = 256 * KIB
#: What travels as one; a cut between two of them is a cut in the middle of a frame.
PIECE_SIZE: Final = 4 * KIB
PORT: Final = 7766
#: Callers that were connected and not yet accepted.
BACKLOG: Final = 16
#: 2026-01-01 UTC.
WALL_START_MS: Final = 1_767_225_600_000


@dataclass(slots=True)
class Nature:
    """How pipes of a pair are: bytes a second (None: no limit), delay, and bytes that fit in one direction."""

    rate_bytes_per_s: float | None = None
    latency_s: float = 0.0
    capacity_bytes: int = CAPACITY_BYTES


@dataclass(slots=True)
class _Way:
    """One direction: what is on its way, and when it arrives."""

    nature: Nature
    pieces: deque[tuple[float, bytes]] = field(default_factory=deque)
    held_bytes: int = 0
    carried_bytes: int = 0
    cut_at_bytes: float = float("inf")
    free_s: float = 0.0
    ended: bool = False
    refused: bool = False
    changed: trio.Event = field(default_factory=trio.Event)

    def tell(self) -> None:
        self.changed.set()
        self.changed = trio.Event()

    def room(self) -> int:
        return self.nature.capacity_bytes - self.held_bytes

    def put(self, data: bytes) -> None:
        now_s = trio.current_time()
        rate = self.nature.rate_bytes_per_s
        self.free_s = max(now_s, self.free_s) + (len(data) / rate if rate else 0.0)
        self.pieces.append((self.free_s + self.nature.latency_s, data))
        self.held_bytes += len(data)
        self.carried_bytes += len(data)
        self.tell()

    def take(self, size_max: int | None) -> bytes:
        """All that has arrived, up to `size_max`."""
        now_s, taken, size = trio.current_time(), [], 0
        while self.pieces and self.pieces[0][0] <= now_s and (size_max is None or size < size_max):
            arrived_s, data = self.pieces.popleft()
            if size_max is not None and size + len(data) > size_max:
                self.pieces.appendleft((arrived_s, data[size_max - size :]))
                data = data[: size_max - size]
            taken.append(data)
            size += len(data)
        self.held_bytes -= size
        self.tell()
        return b"".join(taken)


@dataclass(slots=True)
class _Fate:
    """What happens to both directions of a pair at once."""

    cut: bool = False
    silent: bool = False


class Pipe(trio.abc.HalfCloseableStream):
    """One end of a pair; make them with `pipe_pair`. `near` and `far` are the two ends' host and port."""

    def __init__(
        self, out: _Way, into: _Way, fate: _Fate, near: tuple[str, int], far: tuple[str, int]
    ) -> None:
        self.near = near
        self.far = far
        self._out = out
        self._into = into
        self._fate = fate
        self._closed = False
        self._sending = False
        self._receiving = False

    @property
    def sent_bytes(self) -> int:
        """Bytes that were sent from this end, whether or not they have arrived."""
        return self._out.carried_bytes

    @property
    def is_over(self) -> bool:
        """Whether it was cut, or closed at either end."""
        return self._fate.cut or self._closed or self._out.refused

    def cut(self) -> None:
        """Both ends break now; what is on its way is gone."""
        self._fate.cut = True
        for way in (self._out, self._into):
            way.pieces.clear()
            way.held_bytes = 0
            way.tell()

    def cut_after(self, size_bytes: int) -> None:
        """Cut when so many more bytes have been sent from this end: they arrive before it breaks, none after them."""
        self._out.cut_at_bytes = self._out.carried_bytes + size_bytes

    def fall_silent(self) -> None:
        """From now on nothing arrives, at either end, and nobody is told."""
        self._fate.silent = True

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """As `trio.abc.SendStream`: returns when all of it has found room."""
        if self._sending:
            raise trio.BusyResourceError("another task is sending")
        self._sending = True
        try:
            await trio.lowlevel.checkpoint()
            left = bytes(data)
            self._check_sending()
            while left:
                size = await self._room()
                self._out.put(left[:size])
                left = left[size:]
                if self._out.carried_bytes >= self._out.cut_at_bytes:
                    await self._break_after_arrival()
        finally:
            self._sending = False

    async def _room(self) -> int:
        while (room := self._out.room()) <= 0:
            await self._out.changed.wait()
            self._check_sending()
        return int(min(room, PIECE_SIZE, self._out.cut_at_bytes - self._out.carried_bytes))

    async def _break_after_arrival(self) -> None:
        while self._out.held_bytes and not self.is_over:
            await self._out.changed.wait()
        self.cut()
        self._check_sending()

    def _check_sending(self) -> None:
        if self._closed or self._out.ended:
            raise trio.ClosedResourceError("this end was closed")
        if self._fate.cut or self._out.refused:
            raise trio.BrokenResourceError("the connection broke")

    async def wait_send_all_might_not_block(self) -> None:
        """As `trio.abc.SendStream`."""
        if self._sending:
            raise trio.BusyResourceError("another task is sending")
        self._sending = True
        try:
            await trio.lowlevel.checkpoint()
            self._check_sending()
            while self._out.room() <= 0:
                await self._out.changed.wait()
                self._check_sending()
        finally:
            self._sending = False

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """As `trio.abc.ReceiveStream`."""
        if max_bytes is not None and max_bytes < 1:
            raise ValueError("max_bytes must be at least 1")
        if self._receiving:
            raise trio.BusyResourceError("another task is receiving")
        self._receiving = True
        try:
            await trio.lowlevel.checkpoint()
            while True:
                if self._closed:
                    raise trio.ClosedResourceError("this end was closed")
                if self._fate.cut:
                    raise trio.BrokenResourceError("the connection broke")
                if not self._fate.silent:
                    if data := self._into.take(max_bytes):
                        return data
                    if self._into.ended and not self._into.pieces:
                        return b""
                await self._wait_for_more()
        finally:
            self._receiving = False

    async def _wait_for_more(self) -> None:
        pieces = self._into.pieces
        until_s = pieces[0][0] if pieces and not self._fate.silent else float("inf")
        with trio.move_on_at(until_s):
            await self._into.changed.wait()

    async def send_eof(self) -> None:
        """As `trio.abc.HalfCloseableStream`."""
        if self._sending:
            raise trio.BusyResourceError("another task is sending")
        if not self._out.ended:
            self._check_sending()
        self._out.ended = True
        self._out.tell()
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        """As `trio.abc.AsyncResource`: the other end gets what is on its way, then the end."""
        self._closed = self._out.ended = True
        if not self._fate.silent:
            self._into.refused = True
        self._out.tell()
        self._into.tell()
        await trio.lowlevel.checkpoint()


def pipe_pair(
    nature: Nature | None = None, left: tuple[str, int] = ("left", 1), right: tuple[str, int] = ("right", 2)
) -> tuple[Pipe, Pipe]:
    """The two ends of a new stream."""
    nature = nature or Nature()
    there, back, fate = _Way(nature), _Way(nature), _Fate()
    return Pipe(there, back, fate, left, right), Pipe(back, there, fate, right, left)


class Listener(trio.abc.Listener[Pipe]):
    """Where one daemon is called. When it is closed, callers are refused."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._callers, self._next = trio.open_memory_channel[Pipe](BACKLOG)

    def take(self, pipe: Pipe) -> None:
        """Connect a caller. Raises NoContact if nobody listens any more."""
        try:
            self._callers.send_nowait(pipe)
        except (trio.WouldBlock, trio.BrokenResourceError):
            raise NoContact(problem="connection refused") from None

    async def accept(self) -> Pipe:
        """As `trio.abc.Listener`."""
        try:
            return await self._next.receive()
        except trio.EndOfChannel:
            raise trio.ClosedResourceError from None

    async def aclose(self) -> None:
        """As `trio.abc.AsyncResource`."""
        if self._place.listener is self:
            self._place.listener = None
        self._next.close()
        self._callers.close()
        await trio.lowlevel.checkpoint()


class Place:
    """The outside of one daemon, as `Outside` describes it. Make it with `Places.settle`.

    `free_bytes` and `wall_offset_ms` may be changed while the daemon runs: a disk that fills, a clock that is wrong.
    """

    def __init__(self, places: Places, name: str, certificate: Certificate, seed: int) -> None:
        self.name = name
        self.certificate = certificate
        self.total_bytes = 64 * GIB
        self.free_bytes = 32 * GIB
        self.wall_offset_ms = 0
        self.listener: Listener | None = None
        self._places = places
        self._random = random.Random(f"{seed} {name}")
        self._on_change: Callable[[], None] | None = None
        self._port = 50_000

    def listen(self) -> Listener:
        """Be there for callers, until it is closed; one at a time."""
        assert self.listener is None
        self.listener = Listener(self)
        return self.listener

    def run_sync(self, sync_fn: Callable[[], T], /) -> Awaitable[T]:
        """As `Outside.run_sync`: in place."""
        return call_here(sync_fn)

    def caller(self, stream: trio.abc.Stream) -> tuple[str, int] | None:
        """As `Outside.caller`."""
        return _pipe(stream).far

    async def accept(self, stream: trio.abc.Stream) -> tuple[trio.abc.Stream, Certificate]:
        """As `Outside.accept`."""
        await trio.lowlevel.checkpoint()
        return stream, self._places.at(_pipe(stream).far[0]).certificate

    async def dial(self, host: str, port: int) -> tuple[trio.abc.Stream, Certificate]:
        """As `Outside.dial`: a call out of range goes unanswered, unless the other comes into range meanwhile."""
        self._port += 1
        return await self._places.connect(self, (self.name, self._port), (host, port))

    def local_host(self, stream: trio.abc.Stream) -> str | None:
        """As `Outside.local_host`: places have names only."""
        return None

    async def watch(
        self, on_change: Callable[[], None], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """As `Outside.watch`: `notice` is a change."""
        self._on_change = on_change
        task_status.started()
        try:
            await trio.sleep_forever()
        finally:
            self._on_change = None

    def notice(self) -> None:
        """The network of this place has changed."""
        if self._on_change is not None:
            self._on_change()

    def own_hosts(self) -> list[str]:
        """As `Outside.own_hosts`."""
        return []

    def gateway(self) -> str | None:
        """As `Outside.gateway`."""
        return None

    def disk(self, path: Path) -> tuple[int, int]:
        """As `Outside.disk`."""
        return self.total_bytes, self.free_bytes

    def wall_ms(self) -> int:
        """As `Outside.wall_ms`."""
        return WALL_START_MS + self.wall_offset_ms + int(trio.current_time() * 1000)

    def entropy(self, size: int) -> bytes:
        """As `Outside.entropy`: from the seed."""
        return self._random.randbytes(size)


class Places:
    """All places, who is in range of whom, and the pipes between them. At first nobody is in range of anybody."""

    def __init__(self, seed: int = 0, nature: Nature | None = None) -> None:
        self._seed = seed
        self._nature = nature or Nature()
        self._places: dict[str, Place] = {}
        self._natures: dict[frozenset[str], Nature] = {}
        self._pipes: dict[frozenset[str], list[Pipe]] = {}
        self._changed = trio.Event()

    def settle(self, name: str, certificate: Certificate) -> Place:
        """A new place, for the device of this certificate. Its address is `name:7766`."""
        assert name not in self._places
        self._places[name] = Place(self, name, certificate, self._seed)
        return self._places[name]

    def at(self, name: str) -> Place:
        """The place of this name."""
        return self._places[name]

    def meet(self, one: str, other: str, nature: Nature | None = None) -> None:
        """They come into range, and see that their network has changed."""
        self._natures[frozenset((one, other))] = nature or self._nature
        self._changed.set()
        self._changed = trio.Event()
        self._notice(one, other)

    def part(self, one: str, other: str) -> None:
        """They go out of range and notice it: their pipes break, with all that is on its way."""
        self._natures.pop(frozenset((one, other)), None)
        for pipe in self.pipes(one, other):
            pipe.cut()
        self._notice(one, other)

    def fade(self, one: str, other: str) -> None:
        """They go out of range, and nothing tells them: their pipes fall silent."""
        self._natures.pop(frozenset((one, other)), None)
        for pipe in self.pipes(one, other):
            pipe.fall_silent()

    def _notice(self, *names: str) -> None:
        for name in names:
            self._places[name].notice()

    def pipes(self, one: str, other: str) -> list[Pipe]:
        """The open pipes between two, as the ends of `one`, oldest first."""
        pair = frozenset((one, other))
        self._pipes[pair] = [pipe for pipe in self._pipes.get(pair, ()) if not pipe.is_over]
        return [pipe for pipe in self._pipes[pair] if pipe.near[0] == one]

    async def connect(
        self, place: Place, near: tuple[str, int], far: tuple[str, int]
    ) -> tuple[trio.abc.Stream, Certificate]:
        """A pipe from `place` to where it dials. Raises NoContact."""
        pair = frozenset((near[0], far[0]))
        with trio.move_on_after(HANDSHAKE_S):
            while pair not in self._natures:
                await self._changed.wait()
            nature = self._natures[pair]
            await trio.sleep(2 * nature.latency_s)
            listener = self._places[far[0]].listener if far[1] == PORT else None
            if listener is None or pair not in self._natures:
                raise NoContact(problem="connection refused")
            here, there = pipe_pair(nature, near, far)
            listener.take(there)
            self.pipes(*sorted(pair))  # forgets those that are over
            self._pipes[pair] += [here, there]
            return here, self._places[far[0]].certificate
        raise NoContact(problem="no answer")


def _pipe(stream: trio.abc.Stream) -> Pipe:
    assert isinstance(stream, Pipe)
    return stream

"""Byte streams in memory, for daemons on virtual time.

A `Pipe` is one end of a stream that behaves as TCP does where it matters to a daemon. It holds a bounded number of
bytes, so a sender has to wait for a slow receiver; bytes take time, if it is given a rate and a latency; it can be
cut, also in the middle of what is on its way; and it can fall silent: nobody is told, and nothing arrives. trio's own
memory streams are unbounded or in lockstep, and hide what backpressure does.
"""

from __future__ import annotations

import operator
from collections import deque
from dataclasses import dataclass, field
from typing import Final

import trio

from meshnode.core.limits import KIB

#: Bytes that have been sent and not been taken, in one direction.
CAPACITY_BYTES: Final = 256 * KIB
#: What travels as one; a cut between two of them is a cut in the middle of a frame.
PIECE_SIZE: Final = 4 * KIB


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
    taken_s: float = 0.0
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
        if size:
            self.held_bytes -= size
            self.taken_s = now_s
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
    def heard_s(self) -> float:
        """When bytes were last taken at this end."""
        return self._into.taken_s

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
        if max_bytes is not None and operator.index(max_bytes) < 1:
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
        if self._closed or not self._out.ended:
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

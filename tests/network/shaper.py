"""A relay on loopback that is as bad as a link in the field: it carries a TCP connection slowly, late, in fits, one way
only, or for some seconds at a time.

`Nature` says how; `silence` and `flow` change it at any time, without a word to either end. What TCP makes of a lossy
link is what a program sees of it: the bytes stop for a while, and then all come.

    with Shaper(office.address, Nature(rate_bytes_per_s=20_000)) as weak:
        ana.configure(peers=[weak.address])
"""

from __future__ import annotations

import contextlib
import random
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from tests.app.fleets import STOP_S

#: From the one who dials to the one who is dialled, and back.
THERE, BACK = 0, 1
_HERE: Final = "127.0.0.1"
#: What is taken from an end at once, and what the sockets of the relay may hold besides: little, as a radio does.
_PIECE_SIZE: Final = 4096
_SOCKET_SIZE: Final = 16 * 1024


@dataclass(frozen=True)
class Nature:
    """What a link is like. `delay_s`: one way. `stall_s`: it stands still at random, every `stall_every_bytes` or so,
    for up to this long. `cut_after_s`: each connection is cut when it is so old."""

    rate_bytes_per_s: float = float("inf")
    delay_s: float = 0.0
    stall_s: float = 0.0
    stall_every_bytes: int = 100_000
    cut_after_s: float = float("inf")


class Shaper:
    """A relay to `target`, listening at `address`."""

    def __init__(self, target: str, nature: Nature | None = None, seed: int = 1) -> None:
        host, _, port = target.rpartition(":")
        self._target = host, int(port)
        self.nature = nature or Nature()
        self.chance = random.Random(seed)
        self.changed = threading.Condition()
        self.silent: set[int] = set()
        #: Bytes that were taken from an end, each way; whether they arrived or were cut off.
        self.taken_bytes = [0, 0]
        #: Connections that were carried.
        self.connections = 0
        self.is_over = False
        self._open: set[_Connection] = set()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server((_HERE, 0))
        self.address = f"{_HERE}:{self._listener.getsockname()[1]}"
        self.begin(self._accept)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self.changed:
            self.is_over = True
            for connection in list(self._open):
                connection.cut()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(STOP_S)

    def silence(self, *ways: int) -> None:
        """From now on nothing passes, one way or both, and nobody is told."""
        with self.changed:
            self.silent = set(ways or (THERE, BACK))
            self.changed.notify_all()

    def flow(self) -> None:
        """All passes again, and first what was held up."""
        with self.changed:
            self.silent = set()
            self.changed.notify_all()

    def begin(self, work: Callable[[], None]) -> None:
        """Run `work` in a thread of this relay."""
        thread = threading.Thread(target=work, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(self._target, STOP_S, (_HERE, 0))
            except OSError:
                near.close()
                continue
            far.settimeout(None)
            with self.changed:
                self.connections += 1
                connection = _Connection(self, near, far)
                self._open.add(connection)
            self.begin(connection.watch)

    def forget(self, connection: _Connection) -> None:
        """It is over."""
        with self.changed:
            self._open.discard(connection)


class _Connection:
    """One connection through the relay; it is over when either end is, or when its time has come."""

    def __init__(self, shaper: Shaper, near: socket.socket, far: socket.socket) -> None:
        self._shaper = shaper
        self._ends = near, far
        self._is_cut = False
        for end in self._ends:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SOCKET_SIZE)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_SIZE)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._ways = [_Way(shaper, self, THERE, near, far), _Way(shaper, self, BACK, far, near)]

    def cut(self) -> None:
        """End it, with whatever is on its way."""
        with self._shaper.changed:
            self._is_cut = True
            for end in self._ends:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
            self._shaper.changed.notify_all()

    @property
    def is_cut(self) -> bool:
        return self._is_cut

    def watch(self) -> None:
        """Until it is cut, at its time at the latest; then clear up."""
        works = [work for way in self._ways for work in (way.take, way.give)]
        threads = [threading.Thread(target=work, daemon=True) for work in works]
        for thread in threads:
            thread.start()
        after_s = self._shaper.nature.cut_after_s
        with self._shaper.changed:
            self._shaper.changed.wait_for(lambda: self._is_cut, None if after_s == float("inf") else after_s)
        self.cut()
        for thread in threads:
            thread.join(STOP_S)
        for end in self._ends:
            end.close()
        self._shaper.forget(self)


class _Way:
    """One direction of a connection: bytes that are taken now, and given when their time has come."""

    def __init__(
        self, shaper: Shaper, connection: _Connection, way: int, source: socket.socket, sink: socket.socket
    ) -> None:
        self._shaper = shaper
        self._connection = connection
        self._way = way
        self._source = source
        self._sink = sink
        self._pieces: deque[tuple[float, bytes]] = deque()
        self._free_s = 0.0
        self._to_stall_bytes = self._next_stall()

    def _next_stall(self) -> float:
        nature = self._shaper.nature
        if not nature.stall_s:
            return float("inf")
        return self._shaper.chance.expovariate(1 / nature.stall_every_bytes)

    def take(self) -> None:
        """Take from the source as fast as the link is."""
        with contextlib.suppress(OSError):
            while data := self._source.recv(_PIECE_SIZE):
                with self._shaper.changed:
                    self._shaper.taken_bytes[self._way] += len(data)
                    self._pieces.append((self._arrival_s(len(data)), data))
                    self._shaper.changed.notify_all()
                    self._wait_until(lambda: self._free_s)
        with self._shaper.changed:
            self._pieces.append((max(self._free_s, time.monotonic()) + self._shaper.nature.delay_s, b""))
            self._shaper.changed.notify_all()

    def _arrival_s(self, size: int) -> float:
        nature = self._shaper.nature
        self._free_s = max(self._free_s, time.monotonic()) + size / nature.rate_bytes_per_s
        self._to_stall_bytes -= size
        if self._to_stall_bytes <= 0:
            self._free_s += self._shaper.chance.uniform(0, nature.stall_s)
            self._to_stall_bytes = self._next_stall()
        return self._free_s + nature.delay_s

    def give(self) -> None:
        """Give to the sink what has travelled long enough; the end of the source last."""
        with contextlib.suppress(OSError):
            while data := self._next():
                self._sink.sendall(data)
        self._connection.cut()

    def _next(self) -> bytes:
        with self._shaper.changed:
            self._wait_until(lambda: self._pieces[0][0] if self._pieces else float("inf"))
            return b"" if self._connection.is_cut else self._pieces.popleft()[1]

    def _wait_until(self, due_s: Callable[[], float]) -> None:
        """Wait, with the lock, until it is time and nothing is silent, or the connection is cut."""
        while not self._connection.is_cut:
            left_s = due_s() - time.monotonic()
            if self._way in self._shaper.silent:
                left_s = float("inf")
            if left_s <= 0:
                return
            self._shaper.changed.wait(None if left_s == float("inf") else left_s)

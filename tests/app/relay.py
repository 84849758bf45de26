"""A relay on loopback that two daemons meet through: it records, holds after so many bytes, or cuts."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from tests.app.fleets import STOP_S, WITHIN_S


class Relay:
    """A TCP relay on loopback that a node dials instead of `target`: remembers what it carries, and can stop.

    Only what flows from the one who dials to `target` is counted and stopped; the other direction always flows.
    """

    def __init__(self, target: str, record: bool = False) -> None:
        host, _, port = target.rpartition(":")
        self._target = host, int(port)
        self._record = record
        self._changed = threading.Condition()
        self._allowed: float = float("inf")
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self.recorded = [bytearray(), bytearray()]
        self.carried_bytes = 0
        self.waiting = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._start(self._accept)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join(STOP_S)

    def hold_after(self, size_bytes: int) -> None:
        """Carry so many bytes more, then hold."""
        with self._changed:
            self._allowed = self.carried_bytes + size_bytes
            self._changed.notify_all()

    def flow(self) -> None:
        """Carry everything from now on."""
        with self._changed:
            self._allowed = float("inf")
            self._changed.notify_all()

    def wait_held(self, connections: int = 1, within_s: float = WITHIN_S) -> None:
        """Wait until so many connections have bytes that are held."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.waiting >= connections, within_s), "nothing was held"

    def cut(self) -> None:
        """Drop every connection now, and carry everything from now on."""
        with self._changed:
            for end in self._open:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
            self._open.clear()
            self._allowed = float("inf")
            self._changed.notify_all()

    def _start(self, target: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(self._target, STOP_S)
            except OSError:
                near.close()
                continue
            far.settimeout(None)
            with self._changed:
                self._open += [near, far]
            left = threading.Semaphore(0)
            self._start(self._pump, near, far, 0, left)
            self._start(self._pump, far, near, 1, left)
            self._start(self._bury, near, far, left)

    def _pump(self, source: socket.socket, sink: socket.socket, way: int, left: threading.Semaphore) -> None:
        try:
            while data := source.recv(65536):
                if way == 0:
                    self._send_allowed(source, sink, data)
                else:
                    sink.sendall(data)
                if self._record:
                    self.recorded[way] += data
        except OSError:
            pass
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        left.release()

    def _send_allowed(self, source: socket.socket, sink: socket.socket, data: bytes) -> None:
        while data:
            with self._changed:
                if self._allowed <= self.carried_bytes:
                    self.waiting += 1
                    self._changed.notify_all()
                    self._changed.wait_for(
                        lambda: self._allowed > self.carried_bytes or source not in self._open
                    )
                    self.waiting -= 1
                    if source not in self._open:
                        raise OSError("cut")
                size = int(min(len(data), self._allowed - self.carried_bytes))
                self.carried_bytes += size
            sink.sendall(data[:size])
            data = data[size:]

    def _bury(self, near: socket.socket, far: socket.socket, left: threading.Semaphore) -> None:
        left.acquire()
        left.acquire()
        near.close()
        far.close()

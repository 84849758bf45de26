"""Servers between a device and the office, for tests: a CONNECT proxy, and whatever else answers.

Run as a program, `python -m tests.drivers.proxies HOST PORT` is a CONNECT proxy at that address that resolves and
connects by itself. It prints `ready`, then each target.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial

import trio

Handler = Callable[[trio.SocketStream], Awaitable[object]]


@asynccontextmanager
async def listening(
    answer: Handler, host: str = "127.0.0.1", port: int = 0
) -> AsyncIterator[tuple[str, int]]:
    """Serve connections with `answer`; host and port."""
    (listener,) = await trio.open_tcp_listeners(port, host=host)
    where = listener.socket.getsockname()[:2]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(trio.serve_listeners, answer, [listener]))
        yield where
        nursery.cancel_scope.cancel()


async def say_nothing(_: trio.SocketStream) -> None:
    """Take a connection and keep it."""
    await trio.sleep_forever()


class ConnectProxy:
    """An HTTP proxy that knows CONNECT.

    `routes` is its DNS, None: the real one. `authorization` is what it wants to hear. `asked` are targets, `heads` all
    that it was told, `bytes` what went through.
    """

    def __init__(
        self,
        routes: dict[tuple[str, int], tuple[str, int]] | None = None,
        authorization: str | None = None,
        on_asked: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._routes = routes
        self._authorization = authorization
        self._on_asked = on_asked
        self.asked: list[str] = []
        self.heads: list[bytes] = []
        self.bytes = 0
        self.address = ("", 0)

    @asynccontextmanager
    async def running(self, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[None]:
        """Serve while the block runs."""
        async with listening(self.serve, host, port) as self.address:
            yield

    async def serve(self, stream: trio.SocketStream) -> None:
        """One connection."""
        async with stream:
            head = b""
            while b"\r\n\r\n" not in head:
                data = await stream.receive_some(1000)
                if not data:
                    return
                head += data
            self.heads.append(head)
            method, target, _ = head.split(b" ", 2)
            self.asked.append(target.decode())
            self._on_asked(target.decode())
            answer = await self._answer(stream, head, method, target.decode())
            if answer:
                await stream.send_all(b"HTTP/1.1 " + answer + b"\r\nContent-Length: 0\r\n\r\n")

    async def _answer(
        self, stream: trio.SocketStream, head: bytes, method: bytes, target: str
    ) -> bytes | None:
        if method != b"CONNECT":
            return b"405 Method Not Allowed"
        if self._authorization and f"\r\nProxy-Authorization: {self._authorization}\r\n".encode() not in head:
            return b"407 Proxy Authentication Required"
        host, _, port = target.rpartition(":")
        where = (host.strip("[]"), int(port))
        if self._routes is not None:
            if where not in self._routes:
                return b"502 Bad Gateway"
            where = self._routes[where]
        try:
            there = await trio.open_tcp_stream(*where)
        except OSError:
            return b"502 Bad Gateway"
        async with there:
            await stream.send_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._pump, stream, there, nursery.cancel_scope)
                nursery.start_soon(self._pump, there, stream, nursery.cancel_scope)
        return None

    async def _pump(
        self, source: trio.SocketStream, sink: trio.SocketStream, scope: trio.CancelScope
    ) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async for data in source:
                self.bytes += len(data)
                await sink.send_all(data)
        scope.cancel()


async def _main(host: str, port: str) -> None:
    async with ConnectProxy(on_asked=lambda target: print(target, flush=True)).running(host, int(port)):  # noqa: T201
        print("ready", flush=True)  # noqa: T201
        await trio.sleep_forever()


if __name__ == "__main__":
    trio.run(_main, sys.argv[1], sys.argv[2])

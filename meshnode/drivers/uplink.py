"""Connections to the outer world by an interface of one's choice, with their bytes counted, and a look at its web.

`connect` is TCP through one interface or through any. `interface_of` tells which one a connection uses; `Counted`
counts what flows through it, TLS and all, but not the headers below (some 3 %). `look_at_web` asks the web port of a
host for a page that cannot be there.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Iterable
from typing import Final

import h11
import trio

from meshnode.core.limits import KIB
from meshnode.core.uplink import Web

#: No web server has this page: what answers with one is something in between.
WEB_PATH: Final = "/meshnode-uplink-check"
WEB_HEAD_SIZE_MAX: Final = 16 * KIB
WEB_S: Final = 5.0

#: Linux only; since 5.7 anybody may bind to an interface.
_BIND_TO_DEVICE: Final = getattr(socket, "SO_BINDTODEVICE", None)


class CannotBindError(Exception):
    """This system does not let us choose the interface."""


async def connect(host: str, port: int, interface: str | None = None) -> trio.SocketStream:
    """A TCP connection, through this interface only if one is named.

    Raises OSError (`socket.gaierror` for a name that is not resolved) or UnicodeError (no name can have such a label);
    CannotBindError if the interface cannot be chosen.
    """
    if interface is None:
        return await trio.open_tcp_stream(host, port)
    if _BIND_TO_DEVICE is None:
        raise CannotBindError
    problem: OSError | None = None
    for family, _, _, _, where in await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        tcp = trio.socket.socket(family, socket.SOCK_STREAM)
        try:
            try:
                tcp.setsockopt(socket.SOL_SOCKET, _BIND_TO_DEVICE, interface.encode() + b"\0")
            except PermissionError:
                raise CannotBindError from None
            await tcp.connect(where)
        except OSError as error:
            tcp.close()
            problem = error
        except BaseException:
            tcp.close()
            raise
        else:
            return trio.SocketStream(tcp)
    raise problem or OSError("no address")


async def connect_by_any(host: str, port: int, interfaces: Iterable[str]) -> trio.SocketStream:
    """As `connect`, through the one of these interfaces that is the fastest; the last problem if none leads there."""
    won: list[trio.SocketStream] = []
    problems: list[Exception] = []

    async def attempt(interface: str, scope: trio.CancelScope) -> None:
        try:
            stream = await connect(host, port, interface)
        except (OSError, UnicodeError, CannotBindError) as problem:
            problems.append(problem)
        else:
            won.append(stream)
            scope.cancel()

    async with trio.open_nursery() as nursery:
        for interface in interfaces:
            nursery.start_soon(attempt, interface, nursery.cancel_scope)
    if not won:
        raise problems[-1]
    for late in won[1:]:
        await trio.aclose_forcefully(late)
    return won[0]


def interface_of(stream: trio.SocketStream, addresses: Iterable[tuple[str, str]]) -> str | None:
    """The name of the interface that has this connection's own address; None for loopback, or if nobody can say.

    `addresses`: (name of an interface, IP address), of all of them.
    """
    try:
        name = stream.socket.getsockname()
        zone = socket.if_indextoname(name[3]) if len(name) == 4 and name[3] else None
    except OSError:  # it has hung up already, or the interface has gone
        return None
    own = ipaddress.ip_address(name[0].partition("%")[0])
    own = getattr(own, "ipv4_mapped", None) or own
    if own.is_loopback:
        return None
    for interface, ip in addresses:
        if ipaddress.ip_address(ip.partition("%")[0]) == own and zone in (None, interface):
            return interface
    return None


class Counted(trio.abc.Stream):
    """A stream that tells `on_bytes` of each piece that has gone out or come in."""

    def __init__(self, transport_stream: trio.abc.Stream, on_bytes: Callable[[int], None]) -> None:
        self.transport_stream = transport_stream
        self._on_bytes = on_bytes

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """As trio's; counted before it goes, since what breaks off has mostly gone."""
        self._on_bytes(len(data))
        await self.transport_stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """As trio's."""
        await self.transport_stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """As trio's."""
        data = await self.transport_stream.receive_some(max_bytes)
        self._on_bytes(len(data))
        return data

    async def aclose(self) -> None:
        """As trio's."""
        await self.transport_stream.aclose()


def socket_of(stream: trio.abc.Stream) -> trio.SocketStream:
    """The connection under TLS and counting."""
    while not isinstance(stream, trio.SocketStream):
        stream = getattr(stream, "transport_stream")  # noqa: B009 - TLS is another driver's
    return stream


async def look_at_web(stream: trio.abc.Stream, host: str) -> Web | None:
    """What a web server at the other end says when asked for `WEB_PATH` of `host`; None if that is no HTTP, or
    nothing within `WEB_S`. Closes the stream."""
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=WEB_HEAD_SIZE_MAX)
    headers = [("Host", f"[{host}]" if ":" in host else host), ("Connection", "close")]
    try:
        with trio.move_on_after(WEB_S):
            request = connection.send(h11.Request(method="GET", target=WEB_PATH, headers=headers))
            end = connection.send(h11.EndOfMessage())
            assert request is not None
            assert end is not None
            await stream.send_all(request + end)
            left = WEB_HEAD_SIZE_MAX
            while left > 0:
                event = connection.next_event()
                if isinstance(event, h11.Response):
                    return _web_in(event)
                if isinstance(event, h11.ConnectionClosed):
                    return None
                if event is h11.NEED_DATA:
                    data = await stream.receive_some(left)
                    left -= len(data)
                    connection.receive_data(bytes(data))
    except (h11.ProtocolError, trio.BrokenResourceError, trio.ClosedResourceError):
        pass
    finally:
        await trio.aclose_forcefully(stream)
    return None


def _web_in(answer: h11.Response) -> Web:
    location = dict(answer.headers).get(b"location", b"")
    return Web(answer.status_code, location.decode("latin-1"))

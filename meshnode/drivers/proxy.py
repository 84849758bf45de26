"""The way out through an HTTP proxy (CONNECT, RFC 9110 section 9.3.6), where the system names one.

The proxy resolves the name and sees host, port and how much flows, nothing else: what goes through is the TLS of the
members. A password for the proxy is in its URL; it is sent to the proxy and shown to nobody.
"""

from __future__ import annotations

import base64
import urllib.request
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote, urlsplit

import h11
import trio

from meshnode.core.errors import MeshnodeError
from meshnode.core.limits import HANDSHAKE_S, KIB
from meshnode.core.words import Words, say

#: All that a proxy may say before the tunnel begins.
HEAD_SIZE_MAX: Final = 8 * KIB

_DEFAULT_PORT: Final = 80


class ProxyTrouble(MeshnodeError):
    """the proxy {proxy} {problem}."""


@dataclass(frozen=True, slots=True)
class Proxy:
    """Where it is, and what it wants to hear of who we are, if anything."""

    host: str
    port: int
    authorization: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return _authority(self.host, self.port)


def system_proxy(host: str, port: int) -> Proxy | None:
    """The proxy that the system names for connections to there; None: connect directly. Raises ProxyTrouble."""
    named = urllib.request.getproxies()
    url = next((named[kind] for kind in ("https", "all", "http") if named.get(kind)), None)
    if url is None or urllib.request.proxy_bypass(_authority(host, port)):
        return None
    return parse_proxy(url)


def parse_proxy(url: str) -> Proxy:
    """Read [http://][NAME[:PASSWORD]@]HOST[:PORT][/]. Raises ProxyTrouble, without what may be a password."""
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        host, port = parts.hostname, parts.port or _DEFAULT_PORT
    except ValueError:
        raise ProxyTrouble(proxy=say("of this system"), problem="is not named by a URL") from None
    if not host:
        raise ProxyTrouble(proxy=say("of this system"), problem="is not named by a URL with a host")
    if parts.scheme != "http":
        problem = say("is of the kind {scheme}://, only http:// is supported", scheme=parts.scheme)
        raise ProxyTrouble(proxy=_authority(host, port), problem=problem)
    if parts.username is None:
        return Proxy(host, port)
    who = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return Proxy(host, port, f"Basic {base64.b64encode(who.encode()).decode()}")


async def tunnel(stream: trio.abc.Stream, proxy: Proxy, host: str, port: int) -> None:
    """Have the proxy at the other end of `stream` connect it with `host`; from then on the stream leads there.

    Raises ProxyTrouble when it does not: the stream is of no use then, and is closed.
    """
    try:
        with trio.move_on_after(HANDSHAKE_S):
            await _connect(stream, proxy, host, port)
            return
        raise ProxyTrouble(proxy=proxy, problem="does not answer")
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        await trio.aclose_forcefully(stream)
        raise ProxyTrouble(proxy=proxy, problem="hung up") from None
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise


async def _connect(stream: trio.abc.Stream, proxy: Proxy, host: str, port: int) -> None:
    there = _authority(host, port)
    headers = [("Host", there)]
    if proxy.authorization is not None:
        headers.append(("Proxy-Authorization", proxy.authorization))
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_SIZE_MAX)
    try:
        request = connection.send(h11.Request(method="CONNECT", target=there, headers=headers))
        end = connection.send(h11.EndOfMessage())
        assert request is not None
        assert end is not None
        await stream.send_all(request + end)
        status = await _status(stream, connection, proxy)
    except h11.ProtocolError:
        raise ProxyTrouble(proxy=proxy, problem="answers with something that is not HTTP") from None
    if not 200 <= status < 300:
        raise ProxyTrouble(proxy=proxy, problem=_refusal(status))
    if connection.trailing_data[0]:
        raise ProxyTrouble(proxy=proxy, problem="sends something of its own through the tunnel")


async def _status(stream: trio.abc.Stream, connection: h11.Connection, proxy: Proxy) -> int:
    left = HEAD_SIZE_MAX
    while True:
        event = connection.next_event()
        if isinstance(event, h11.Response):
            return event.status_code
        if isinstance(event, h11.InformationalResponse):
            continue
        if left == 0:
            raise ProxyTrouble(proxy=proxy, problem="answers at too great length")
        data = await stream.receive_some(left)
        if not data:
            raise ProxyTrouble(proxy=proxy, problem="hung up")
        left -= len(data)
        connection.receive_data(bytes(data))


def _refusal(status: int) -> Words:
    if status == 407:
        return say(
            "asks for a name and a password (407): put them into the proxy's URL, http://NAME:PASSWORD@HOST:PORT"
        )
    if status in (502, 503, 504):
        return say("does not reach the office itself ({status})", status=status)
    return say("refuses to connect with the office ({status})", status=status)


def _authority(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

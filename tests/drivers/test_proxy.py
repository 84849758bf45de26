"""Through an HTTP proxy that is real: what it is told, what its refusals become, and what is kept from the logs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from meshnode.core.limits import HANDSHAKE_S
from meshnode.drivers.proxy import (
    HEAD_SIZE_MAX,
    Proxy,
    ProxyTrouble,
    parse_proxy,
    system_proxy,
    tunnel,
)
from tests.drivers.proxies import ConnectProxy, listening, say_nothing

DEADLINE_S = 10.0
VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return monkeypatch


# --- which proxy ---


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("http://proxy.example:3128", "proxy.example", 3128),
        ("http://proxy.example:3128/", "proxy.example", 3128),
        ("proxy.example:3128", "proxy.example", 3128),
        ("http://proxy.example", "proxy.example", 80),
        ("http://[fd00::1]:8080", "fd00::1", 8080),
        ("http://10.0.0.1:8080", "10.0.0.1", 8080),
    ],
)
def test_where_the_proxy_is(url: str, host: str, port: int) -> None:
    assert parse_proxy(url) == Proxy(host, port)


def test_a_password_goes_to_the_proxy_and_is_shown_nowhere() -> None:
    proxy = parse_proxy("http://ana%40kab:s%3Aecret@proxy.example:3128")
    assert proxy.authorization == "Basic YW5hQGthYjpzOmVjcmV0"  # ana@kab:s:ecret
    for shown in (str(proxy), repr(proxy)):
        assert "YW5h" not in shown
        assert "ecret" not in shown


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("https://ana:secret@proxy.example:3128", "is of the kind https://, only http:// is supported"),
        ("socks5://ana:secret@proxy.example:1080", "is of the kind socks5://"),
        ("http://ana:secret@proxy.example:port", "is not named by a URL"),
        ("http://ana:secret@", "is not named by a URL with a host"),
        ("http://[::1", "is not named by a URL"),
    ],
)
def test_what_is_no_proxy_of_ours(url: str, says: str) -> None:
    with pytest.raises(ProxyTrouble) as refusal:
        parse_proxy(url)
    assert says in str(refusal.value)
    assert "secret" not in str(refusal.value)


@given(st.text("ahtps:/@[]%.0\n", max_size=20) | st.text(max_size=20))
def test_any_text_is_a_proxy_or_refused(url: str) -> None:
    with suppress(ProxyTrouble):
        assert parse_proxy(url).port


def test_the_system_names_none(environment: pytest.MonkeyPatch) -> None:
    assert system_proxy("office.example", 7766) is None


def test_the_one_for_https_first(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("http_proxy", "http://third:1")
    assert system_proxy("office.example", 7766) == Proxy("third", 1)
    environment.setenv("all_proxy", "http://second:1")
    assert system_proxy("office.example", 7766) == Proxy("second", 1)
    environment.setenv("https_proxy", "http://first:1")
    assert system_proxy("office.example", 7766) == Proxy("first", 1)


def test_hosts_without_a_proxy(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("HTTPS_PROXY", "http://proxy:1")
    environment.setenv("NO_PROXY", "localhost,.kab.example,10.0.0.7")
    assert system_proxy("office.kab.example", 7766) is None
    assert system_proxy("10.0.0.7", 7766) is None
    assert system_proxy("office.example", 7766) == Proxy("proxy", 1)


# --- through it ---


@asynccontextmanager
async def dialled(
    answer: Callable[[trio.SocketStream], Awaitable[object]],
) -> AsyncIterator[trio.SocketStream]:
    async with listening(answer) as (host, port):
        stream = await trio.open_tcp_stream(host, port)
        async with stream:
            yield stream


async def echo(stream: trio.SocketStream) -> None:
    async with stream:
        while data := await stream.receive_some(1000):
            await stream.send_all(data)


async def test_a_tunnel(environment: pytest.MonkeyPatch) -> None:
    with trio.fail_after(DEADLINE_S):
        async with listening(echo) as (host, port):
            # the name is for the proxy to resolve
            proxying = ConnectProxy(
                routes={("office.invalid", 7766): (host, port)}, authorization="Basic YTpi"
            )
            async with proxying.running(), await trio.open_tcp_stream(*proxying.address) as stream:
                proxy = Proxy(*proxying.address, "Basic YTpi")
                await tunnel(stream, proxy, "office.invalid", 7766)
                await stream.send_all(b"hello")
                assert await stream.receive_some(5) == b"hello"
            assert proxying.asked == ["office.invalid:7766"]
            assert b"\r\nHost: office.invalid:7766\r\n" in proxying.heads[0]


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", r"asks for a name and a password \(407\)"),
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 3\r\n\r\nno!", r"refuses to connect .* \(403\)"),
        (b"HTTP/1.0 502 Bad Gateway\r\n\r\n", r"does not reach the office itself \(502\)"),
        (b"HTTP/1.1 302 Found\r\nLocation: http://portal/\r\n\r\n", r"\(302\)"),
        (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", "not HTTP"),
        (b"\x15\x03\x01\x00\x02\x02\x46", "not HTTP"),
        (b"", "hung up"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * HEAD_SIZE_MAX, "not HTTP|at too great length"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 1000, "at too great length"),
        (b"HTTP/1.1 200 OK\r\n\r\nhello", "sends something of its own"),
    ],
)
async def test_a_proxy_that_does_not(said: bytes, problem: str) -> None:
    async def answer(stream: trio.SocketStream) -> None:
        async with stream:
            head = b""
            while b"\r\n\r\n" not in head:
                head += await stream.receive_some(1000)
            with suppress(trio.BrokenResourceError):
                await stream.send_all(said)

    with trio.fail_after(DEADLINE_S):
        async with dialled(answer) as stream:
            proxy = Proxy("proxy.example", 3128, "Basic c2VjcmV0")
            with pytest.raises(ProxyTrouble, match=problem) as refusal:
                await tunnel(stream, proxy, "office.example", 7766)
            assert str(refusal.value).startswith("the proxy proxy.example:3128 ")
            assert "c2Vj" not in str(refusal.value)
            with pytest.raises(trio.ClosedResourceError):
                await stream.send_all(b"x")


async def test_more_than_one_piece(environment: pytest.MonkeyPatch) -> None:
    async def answer(stream: trio.SocketStream) -> None:
        async with stream:
            for byte in b"HTTP/1.1 200 Connection established\r\nVia: 1.1 proxy\r\n\r\n":
                await stream.send_all(bytes([byte]))
                await trio.lowlevel.checkpoint()
            await stream.receive_some(1)

    with trio.fail_after(DEADLINE_S):
        async with dialled(answer) as stream:
            await tunnel(stream, Proxy("proxy", 1), "::1", 7766)


async def test_a_proxy_that_says_nothing(autojump_clock: trio.testing.MockClock) -> None:
    async with dialled(say_nothing) as stream:
        began_s = trio.current_time()
        with pytest.raises(ProxyTrouble, match="does not answer"):
            await tunnel(stream, Proxy("proxy", 1), "office.example", 7766)
        assert trio.current_time() - began_s == pytest.approx(HANDSHAKE_S)

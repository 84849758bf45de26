"""Connections by an interface of one's choice, counted bytes, and a look at a web server, all real and on loopback."""

from __future__ import annotations

import socket

import pytest
import trio

from meshnode.core.uplink import Web
from meshnode.drivers.uplink import (
    WEB_HEAD_SIZE_MAX,
    WEB_S,
    CannotBindError,
    Counted,
    connect,
    connect_by_any,
    interface_of,
    look_at_web,
)
from tests.drivers.proxies import listening, say_nothing

DEADLINE_S = 10.0
needs_binding = pytest.mark.skipif(
    not hasattr(socket, "SO_BINDTODEVICE"), reason="only Linux binds to an interface"
)


async def echo(stream: trio.SocketStream) -> None:
    async with stream:
        async for data in stream:
            await stream.send_all(data)


@needs_binding
async def test_by_an_interface() -> None:
    with trio.fail_after(DEADLINE_S):
        async with listening(echo) as (host, port):
            async with await connect(host, port, "lo") as stream:
                bound = stream.socket.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 16)
                assert bound.rstrip(b"\0") == b"lo"
            with pytest.raises(OSError, match="No such device"):
                await connect(host, port, "nowhere0")
            async with await connect_by_any(host, port, ["nowhere0", "lo"]) as stream:
                await stream.send_all(b"x")
                assert await stream.receive_some(1) == b"x"
            with pytest.raises(OSError, match="No such device"):
                await connect_by_any(host, port, ["nowhere0", "nowhere1"])


async def test_a_system_that_cannot_bind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("meshnode.drivers.uplink._BIND_TO_DEVICE", None)
    with pytest.raises(CannotBindError):
        await connect("127.0.0.1", 1, "lo")
    with pytest.raises(CannotBindError):
        await connect_by_any("127.0.0.1", 1, ["lo"])


class Named:
    """Enough of a connection to have a local address."""

    def __init__(self, *name: object) -> None:
        self.socket = self
        self.name = name

    def getsockname(self) -> tuple[object, ...]:
        return self.name


ADDRESSES = [("eth0", "10.0.0.2"), ("wwan0", "100.64.0.9"), ("eth0", "fe80::1%eth0"), ("lo2", "fe80::1%lo2")]


@pytest.mark.parametrize(
    ("name", "interface"),
    [
        (("10.0.0.2", 1), "eth0"),
        (("100.64.0.9", 1), "wwan0"),
        (("::ffff:100.64.0.9", 1, 0, 0), "wwan0"),
        (("127.0.0.1", 1), None),
        (("::1", 1, 0, 0), None),
        (("10.9.9.9", 1), None),
        (("fe80::1%lo", 1, 0, 1), None),  # nothing has it on this link
    ],
)
def test_which_interface_it_is(name: tuple[object, ...], interface: str | None) -> None:
    assert interface_of(Named(*name), ADDRESSES) == interface  # type: ignore[arg-type]


async def test_bytes_are_counted_both_ways() -> None:
    counts: list[int] = []
    with trio.fail_after(DEADLINE_S):
        async with (
            listening(echo) as (host, port),
            Counted(await connect(host, port), counts.append) as stream,
        ):
            await stream.send_all(bytes(300))
            got = 0
            while got < 300:
                got += len(await stream.receive_some())
    assert sum(counts) == 600


@pytest.mark.parametrize(
    ("said", "web"),
    [
        (b"HTTP/1.1 302 Found\r\nLOCATION: http://login.example/\r\n\r\n", Web(302, "http://login.example/")),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 90000\r\n\r\n<html>", Web(200)),
        (b"HTTP/1.1 511 Network Authentication Required\r\n\r\n", Web(511)),
        (b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 404 Not Found\r\n\r\n", Web(404)),
        (b"SSH-2.0-OpenSSH\r\n\r\n", None),
        (b"", None),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * (WEB_HEAD_SIZE_MAX + 1), None),
    ],
)
async def test_a_look_at_the_web(said: bytes, web: Web | None) -> None:
    heads: list[bytes] = []

    async def answer(stream: trio.SocketStream) -> None:
        async with stream:
            heads.append(await stream.receive_some(1000))
            try:
                await stream.send_all(said)
                if said:
                    await stream.receive_some(1)
            except trio.BrokenResourceError:
                pass

    with trio.fail_after(DEADLINE_S):
        async with listening(answer) as (host, port):
            assert await look_at_web(await connect(host, port), "fd00::1") == web
    assert heads[0].startswith(b"GET /meshnode-uplink-check HTTP/1.1\r\nHost: [fd00::1]\r\n")


async def test_a_web_that_says_nothing(autojump_clock: trio.testing.MockClock) -> None:
    async with listening(say_nothing) as (host, port):
        began_s = trio.current_time()
        assert await look_at_web(await connect(host, port), host) is None
        assert trio.current_time() - began_s == pytest.approx(WEB_S)

"""TLS over any stream: whatever is sent arrives, in order and in large pieces, and the end is told from damage."""

from __future__ import annotations

import random
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from meshnode.core.limits import KIB
from meshnode.drivers.tls import Credentials, TlsStream
from tests.drivers.test_tls import Papers

Pipe = trio.StapledStream[trio.testing.MemorySendStream, trio.testing.MemoryReceiveStream]
Ends = tuple[TlsStream[Pipe], TlsStream[Pipe]]


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> tuple[Credentials, Credentials]:
    papers = Papers(tmp_path_factory.mktemp("papers"), "Tasikmalaya")
    return papers.member("ana"), papers.member("budi")


@asynccontextmanager
async def meeting(members: tuple[Credentials, Credentials]) -> AsyncIterator[Ends]:
    """Both ends of a stream on which hands were shaken."""
    near, far = trio.testing.memory_stream_pair()
    ana = TlsStream(near, members[0].context(server=False))
    budi = TlsStream(far, members[1].context(server=True), server_side=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ana.do_handshake)
        nursery.start_soon(budi.do_handshake)
    yield ana, budi


async def received(stream: TlsStream[Pipe], max_bytes: int | None = None) -> bytes:
    """All that comes until the end."""
    data = bytearray()
    while piece := await stream.receive_some(max_bytes):
        assert max_bytes is None or len(piece) <= max_bytes
        data += piece
    return bytes(data)


@pytest.mark.parametrize("max_bytes", [None, 1000, 20_000, 1_000_000])
async def test_what_both_send_at_once_arrives_whole(
    members: tuple[Credentials, Credentials], max_bytes: int | None
) -> None:
    dice = random.Random(7)
    pieces = [
        [dice.randbytes(dice.choice([0, 1, 500, 16_384, 16_385, 300_000])) for _ in range(12)] for _ in "ab"
    ]
    came: list[bytes] = [b"", b""]

    async def send(stream: TlsStream[Pipe], some: list[bytes]) -> None:
        for piece in some:
            await stream.send_all(piece)
        await stream.transport_stream.send_eof()

    async def take(at: int, stream: TlsStream[Pipe]) -> None:
        came[at] = await received(stream, max_bytes)

    async with meeting(members) as ends, trio.open_nursery() as nursery:
        for at, stream in enumerate(ends):
            nursery.start_soon(send, stream, pieces[at])
            nursery.start_soon(take, at, ends[1 - at])
    assert came == [b"".join(some) for some in pieces]


async def test_all_records_that_have_come_are_handed_on_at_once(
    members: tuple[Credentials, Credentials],
) -> None:
    data = bytes(100 * KIB)
    async with meeting(members) as (ana, budi):
        await ana.send_all(data)
        assert await budi.receive_some(128 * KIB) == data
        await ana.send_all(data)
        assert len(await budi.receive_some(50_000)) == 50_000
        assert len(await budi.receive_some()) == len(data) - 50_000


@pytest.mark.parametrize("says_goodbye", [False, True])
async def test_the_end(members: tuple[Credentials, Credentials], says_goodbye: bool) -> None:
    async with meeting(members) as (ana, budi):
        await ana.send_all(b"last words")
        if says_goodbye:
            with pytest.raises(ssl.SSLWantReadError):
                ana._tls.unwrap()
            await ana.send_all(b"")
        await ana.aclose()
        assert await budi.receive_some() == b"last words"
        assert await budi.receive_some() == b""
        assert await budi.receive_some() == b"", "and so it stays"


async def test_the_end_is_told_though_the_peer_takes_nothing_in(
    members: tuple[Credentials, Credentials], autojump_clock: trio.testing.MockClock
) -> None:
    async with meeting(members) as (ana, budi), trio.open_nursery() as nursery:
        budi.transport_stream.send_stream.send_all_hook = trio.sleep_forever
        nursery.start_soon(budi.send_all, b"nobody hears this")
        await trio.testing.wait_all_tasks_blocked()
        await ana.transport_stream.send_eof()
        with trio.fail_after(1.0):
            assert await budi.receive_some() == b""
        nursery.cancel_scope.cancel()


async def test_damage_is_not_taken_for_the_end(members: tuple[Credentials, Credentials]) -> None:
    async with meeting(members) as (ana, budi):
        await ana.send_all(b"whole")
        await ana.transport_stream.send_all(b"\x17\x03\x03\x00\x20" + bytes(32))
        assert await budi.receive_some() == b"whole"
        with pytest.raises(trio.BrokenResourceError):
            await budi.receive_some()


async def test_a_handshake_that_is_cut_off(members: tuple[Credentials, Credentials]) -> None:
    near, far = trio.testing.memory_stream_pair()
    ana = TlsStream(near, members[0].context(server=False))
    await far.aclose()
    with pytest.raises(trio.BrokenResourceError):
        await ana.do_handshake()


async def test_whoever_waits_can_be_cancelled_and_go_on(members: tuple[Credentials, Credentials]) -> None:
    async with meeting(members) as (ana, budi):
        with trio.CancelScope() as scope:
            scope.cancel()
            await budi.receive_some()
        assert scope.cancelled_caught
        await ana.send_all(b"still there")
        assert await budi.receive_some() == b"still there"

"""Pipes keep the contract of a trio stream, take their time, and end as connections in the field end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

import pytest
import trio
from trio.testing import check_half_closeable_stream

from meshnode.core.limits import KIB
from meshnode.sim.pinned import run
from meshnode.sim.pipes import Nature, Pipe, pipe_pair

NATURES = [Nature(), Nature(rate_bytes_per_s=1e6, latency_s=0.05), Nature(capacity_bytes=1000)]


@pytest.mark.parametrize("nature", NATURES, ids=["ideal", "slow", "narrow"])
def test_a_pipe_is_a_trio_stream(nature: Nature) -> None:
    async def pair() -> tuple[Pipe, Pipe]:
        return pipe_pair(nature)

    async def clogged() -> tuple[Pipe, Pipe]:
        left, right = pipe_pair(nature)
        for pipe in (left, right):
            await pipe.send_all(bytes(nature.capacity_bytes))
        return left, right

    run(0, partial(check_half_closeable_stream, pair, clogged), within_s=3600)


def in_virtual_time(test: Callable[[], Awaitable[None]]) -> Callable[[], None]:
    def whole() -> None:
        run(0, test, within_s=3600)

    whole.__name__ = test.__name__
    return whole


async def drain(pipe: Pipe) -> tuple[bytes, str]:
    """All that comes, and how it ended."""
    got = bytearray()
    try:
        while data := await pipe.receive_some():
            got += data
    except trio.BrokenResourceError:
        return bytes(got), "broken"
    return bytes(got), "end"


@in_virtual_time
async def test_a_sender_waits_for_a_receiver_that_does_not_take() -> None:
    left, right = pipe_pair(Nature(capacity_bytes=64 * KIB))
    with trio.move_on_after(60) as scope:
        await left.send_all(bytes(65 * KIB))
    assert scope.cancelled_caught
    assert left.sent_bytes == 64 * KIB
    assert len(await right.receive_some()) == 64 * KIB
    await left.send_all(bytes(KIB))


@in_virtual_time
async def test_bytes_take_their_time() -> None:
    left, right = pipe_pair(Nature(rate_bytes_per_s=100_000, latency_s=0.5))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(left.send_all, bytes(1_000_000))
        got = 0
        while got < 1_000_000:
            got += len(await right.receive_some())
            assert got <= (trio.current_time() - 0.5) * 100_000 + 1
    assert trio.current_time() == pytest.approx(10.5)


@in_virtual_time
async def test_a_cut_in_the_middle() -> None:
    left, right = pipe_pair(Nature(latency_s=0.1))
    sent = bytes(range(256)) * 100
    left.cut_after(10_001)
    ends: list[tuple[bytes, str]] = []

    async def receive() -> None:
        ends.append(await drain(right))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        with pytest.raises(trio.BrokenResourceError):
            await left.send_all(sent)
    assert ends == [(sent[:10_001], "broken")]
    with pytest.raises(trio.BrokenResourceError):
        await right.send_all(b"x")
    assert left.is_over
    assert right.is_over


@in_virtual_time
async def test_a_cut_takes_what_is_on_its_way() -> None:
    left, right = pipe_pair(Nature(latency_s=1))
    await left.send_all(b"lost")
    right.cut()
    assert await drain(right) == (b"", "broken")


@in_virtual_time
async def test_silence_tells_nobody() -> None:
    left, right = pipe_pair(Nature(capacity_bytes=KIB))
    left.fall_silent()
    await left.send_all(b"into the void")
    for waiting in (right.receive_some, left.receive_some, partial(left.send_all, bytes(KIB))):
        with trio.move_on_after(600) as scope:
            await waiting()
        assert scope.cancelled_caught
    await left.aclose()
    with trio.move_on_after(600) as scope:
        await right.receive_some()
    assert scope.cancelled_caught
    await right.send_all(b"nor does this fail")

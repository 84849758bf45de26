"""What one peer can make a link hold, and how long it can keep the node busy."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from trio.testing import lockstep_stream_pair

from meshnode.core.frames import Pong, encode
from meshnode.core.ports import Lost, Received
from meshnode.drivers import link as link_module
from meshnode.drivers.link import REST_AFTER_S, Link

PONG = encode(Pong())


async def test_who_asks_and_takes_no_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "WAITING_SIZE_MAX", 100_000)
    near, _far = lockstep_stream_pair()
    said: list[object] = []
    link = Link(5, near, lambda *_: None, said.append)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(link.run)
        await trio.testing.wait_all_tasks_blocked()
        sent = 0
        while not link._scope.cancel_called:
            link.send(PONG)
            sent += 1
        assert 1000 < sent < 2000, "a small frame costs more than its bytes"
        await trio.testing.wait_all_tasks_blocked()
        assert said == [Lost(5, "it takes nothing in")]
        link.send(PONG)
        assert not link._frames


async def test_who_takes_the_answers_is_told_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "WAITING_SIZE_MAX", 100_000)
    near, far = trio.testing.memory_stream_pair()
    link = Link(5, near, lambda *_: None, lambda _: None)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(link.run)
        for _ in range(20):
            for _ in range(1000):
                link.send(PONG)
            await trio.testing.wait_all_tasks_blocked()
            assert await far.receive_some(10_000) == PONG * 1000
        assert not link._scope.cancel_called
        nursery.cancel_scope.cancel()


async def test_what_takes_long_is_followed_by_as_long_a_rest(mock_clock: trio.testing.MockClock) -> None:
    heard: list[bytes] = []

    def deliver(said: object) -> None:
        if isinstance(said, Received):
            heard.append(said.data)
            mock_clock.jump(0.5 if said.data == b"costly" else REST_AFTER_S / 2)

    near, far = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Link(5, near, lambda *_: None, deliver).run)
        for data in (b"cheap", b"costly", b"next"):
            await far.send_all(data)
            await trio.testing.wait_all_tasks_blocked()
        assert heard == [b"cheap", b"costly"]
        for passed_s, expected in ((0.4, 2), (0.11, 3)):
            mock_clock.jump(passed_s)
            await trio.testing.wait_all_tasks_blocked()
            assert len(heard) == expected
        nursery.cancel_scope.cancel()

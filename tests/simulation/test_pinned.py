"""The pin on trio's scheduler: still there, and still doing what it is for."""

from __future__ import annotations

import threading
import time
from functools import partial

import pytest
import trio
from trio._core import _run

from meshnode.sim.pinned import ThreadRefused, call_here, run

HINT = "trio's scheduler has changed: see meshnode.sim.pinned"


async def order_of(tasks: int, rounds: int) -> list[tuple[int, int]]:
    """The order in which tasks that are always ready together get their turns."""
    turns: list[tuple[int, int]] = []

    async def take_turns(name: int) -> None:
        for turn in range(rounds):
            turns.append((name, turn))
            if turn % 2:
                await trio.sleep(1)
            else:
                await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        for name in range(tasks):
            nursery.start_soon(take_turns, name)
    return turns


def test_one_seed_is_one_order() -> None:
    turns = partial(order_of, 8, 20)
    first = run(7, turns)
    assert run(7, turns) == first, HINT
    assert run(8, turns) != first, f"the seed means nothing; {HINT}"


def test_the_flag_is_needed_and_the_draw_is_trios_own() -> None:
    assert _run._ALLOW_DETERMINISTIC_SCHEDULING in (True, False), HINT
    before = _run._r.getstate()
    flags: list[bool] = []

    async def look() -> None:
        flags.append(_run._ALLOW_DETERMINISTIC_SCHEDULING)
        await trio.lowlevel.checkpoint()
        assert _run._r.getstate() != before, f"a turn draws nothing; {HINT}"

    was = _run._ALLOW_DETERMINISTIC_SCHEDULING
    run(1, look)
    assert flags == [True]
    assert was == _run._ALLOW_DETERMINISTIC_SCHEDULING
    assert _run._r.getstate() == before


def test_a_week_passes_in_a_moment() -> None:
    async def week() -> float:
        began_s = trio.current_time()
        await trio.sleep(7 * 24 * 3600)
        return trio.current_time() - began_s

    began_s = time.monotonic()
    assert run(0, week) == 7 * 24 * 3600
    assert time.monotonic() - began_s < 10


def test_what_hangs_ends() -> None:
    with pytest.raises(trio.TooSlowError):
        run(0, trio.sleep_forever, within_s=1e6)


def test_threads_are_refused() -> None:
    async def to_thread() -> None:
        with pytest.raises(ThreadRefused):
            await trio.to_thread.run_sync(int)

    async def own() -> None:
        with pytest.raises(ThreadRefused):
            threading.Thread(target=int).start()

    async def here() -> int:
        return await call_here(threading.get_ident)

    run(0, to_thread)
    run(0, own)
    assert run(0, here) == threading.get_ident()
    threading.Thread(target=int).start()


def test_threads_that_were_idle_are_refused_too() -> None:
    async def with_thread() -> None:
        await trio.to_thread.run_sync(int)

    trio.run(with_thread)  # leaves a worker in trio's cache
    with pytest.raises(ThreadRefused):
        run(0, with_thread)

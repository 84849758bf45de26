"""Runs trio code on virtual time so that a run is a function of its seed.

Three things have to be pinned. Time: a `MockClock` that jumps to the next deadline once every task waits. The order of
tasks that are ready together: trio draws it from a generator of its own, and only if a flag says so does it sort them
first, so that the draw means the same in each run. Threads: the clock sees tasks only, and would jump over whatever a
worker thread is still doing, so that a run with threads depends on how fast the machine is; here they are refused, and
what blocks is called in place (`call_here`).

Generator, flag and thread cache are trio's internals, which no other module here touches. If trio changes them, `run`
raises at once, and a test watches that they still do what they are pinned for.

What trio leaves to chance even then: which of two timeouts of the same instant is delivered first. Their tasks become
ready together, and are sorted then, so it does not show.
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar
from unittest.mock import patch

import trio
from trio._core import _run as scheduler
from trio._core import _thread_cache as threads
from trio.testing import MockClock

T = TypeVar("T")

_FLAG: Final = "_ALLOW_DETERMINISTIC_SCHEDULING"
_GENERATOR: Final = "_r"
_START: Final = "start_thread_soon"

#: Virtual seconds after which a run counts as stuck.
WITHIN_S: Final = 30 * 24 * 3600.0


class ThreadRefused(AssertionError):
    """Something wanted a thread while virtual time ran."""


def run(seed: int, main: Callable[[], Awaitable[T]], within_s: float = WITHIN_S) -> T:
    """Run `main` on virtual time, which begins at 0 s; its result. The same seed gives the same order of all tasks.

    Raises what `main` raises; trio.TooSlowError after `within_s` of virtual time; AttributeError if this trio is
    built differently. Not to be called from within a run.
    """

    async def whole() -> T:
        with trio.fail_after(within_s):
            return await main()

    with _pinned(seed):
        return trio.run(whole, clock=MockClock(autojump_threshold=0))


async def call_here(sync_fn: Callable[[], T], /) -> T:
    """What stands in for `trio.to_thread.run_sync`: calls it in place, after others had a turn."""
    await trio.lowlevel.checkpoint()
    return sync_fn()


@contextmanager
def _pinned(seed: int) -> Iterator[None]:
    generator = getattr(scheduler, _GENERATOR)
    state = generator.getstate()
    with (
        patch.object(scheduler, _FLAG, True),
        patch.object(threads.ThreadCache, _START, _refuse),
        patch.object(threading.Thread, "start", _refuse),
    ):
        generator.seed(seed)
        try:
            yield
        finally:
            generator.setstate(state)


def _refuse(*_: Any, **__: Any) -> None:
    raise ThreadRefused("a thread was asked for while virtual time runs, and the clock would jump over it")

"""Group commit: what is answered, when, and together with what."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from meshnode.core.errors import StoreTrouble
from meshnode.core.intervals import Ranges
from meshnode.core.limits import KIB, PAYLOAD_SIZE_MAX
from meshnode.core.ports import Write, WriteFailed, Written
from meshnode.core.rows import DropBundles, PutAddress, PutBundle, Row, Snapshot, StoredBundle
from meshnode.drivers import writer
from meshnode.drivers.sqlite import SqliteStore
from meshnode.drivers.writer import BACKLOG_BYTES, BATCH_BYTES, BATCH_ROWS, Writer
from tests.core.fleets import Fleet, Source

SOURCE = Source(Fleet(), "ana")
DEADLINE_S = 10.0


class Gate:
    """A store whose commits and tidyings wait until the test lets them through."""

    def __init__(self) -> None:
        self.begun: list[tuple[list[Row], float]] = []
        self.done = 0
        self.tidied = 0
        self.untidy = 1
        self.failing: Callable[[list[Row]], bool] = lambda rows: False
        self._passes = threading.Semaphore(0)

    def let(self, commits: int = 1) -> None:
        self._passes.release(commits)

    def load(self) -> Snapshot:
        return Snapshot()

    def read(self, journal: object, number: int) -> StoredBundle | None:
        raise AssertionError("the writing side does not read")

    def commit(self, rows: list[Row], clock_s: float) -> None:
        self.begun.append((rows, clock_s))
        assert self._passes.acquire(timeout=DEADLINE_S)
        if self.failing(rows):
            raise StoreTrouble(path="store.db", problem="the disk is full")
        self.done += 1

    def tidy(self) -> bool:
        self.tidied += 1
        self.untidy -= 1
        return self.untidy > 0

    def sizes(self) -> tuple[int, int]:
        return 0, 0

    def close(self) -> None:
        pass


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what happens in a thread."""
    with trio.fail_after(DEADLINE_S):
        while not condition():
            await trio.lowlevel.checkpoint()


class Rig:
    """A running writer, its store, and what it has answered, with how many commits were done by then."""

    def __init__(self) -> None:
        self.store = Gate()
        self.writer = Writer(self.store, lambda: 7.5)
        self.answers: list[tuple[Written | WriteFailed, int]] = []
        self._answered = trio.Event()

    def hear(self, answer: Written | WriteFailed) -> None:
        self.answers.append((answer, self.store.done))
        self._answered.set()

    async def wait(self, count: int) -> None:
        with trio.fail_after(DEADLINE_S):
            while len(self.answers) < count:
                self._answered = trio.Event()
                await self._answered.wait()

    async def begun(self, count: int) -> None:
        """Wait until so many commits are under way or over."""
        await until(lambda: len(self.store.begun) >= count)


@pytest.fixture
async def rig(nursery: trio.Nursery) -> Rig:
    rig = Rig()
    nursery.start_soon(rig.writer.run, rig.hear)
    return rig


def put(token: int, size: int = 2000) -> Write:
    return Write(token, (PutBundle(SOURCE.bundle(token, size=size), SOURCE.journal, 0.0, 1),))


def small(token: int, rows: int = 1) -> Write:
    return Write(token, tuple(PutAddress(f"h{n}:1", SOURCE.device, 0.0) for n in range(rows)))


def test_the_gate_is_a_tidy_store() -> None:
    Writer(Gate(), lambda: 0.0)


async def test_nothing_is_answered_before_its_commit_is_done(rig: Rig) -> None:
    rig.writer.put(put(1))
    await rig.begun(1)
    await wait_all_tasks_blocked(0.05)
    assert rig.answers == []
    rig.store.let()
    await rig.wait(1)
    assert rig.answers == [(Written((1,)), 1)]
    assert rig.store.begun == [(list(put(1).rows), 7.5)]


async def test_what_comes_during_a_commit_goes_into_the_next_in_order(rig: Rig) -> None:
    rig.writer.put(put(1))
    await rig.begun(1)
    for token in range(2, 30):
        rig.writer.put(put(token))
    rig.store.let(2)
    await rig.wait(2)
    assert [answer for answer, _ in rig.answers] == [Written((1,)), Written(tuple(range(2, 30)))]
    assert rig.store.begun[1][0] == [row for token in range(2, 30) for row in put(token).rows]


async def test_a_commit_is_cut_by_bytes(rig: Rig) -> None:
    rig.writer.put(small(1))
    await rig.begun(1)
    full = BATCH_BYTES // PAYLOAD_SIZE_MAX
    for token in range(2, 2 + full + 3):
        rig.writer.put(put(token, PAYLOAD_SIZE_MAX))
    rig.store.let(3)
    await rig.wait(3)
    assert [len(answer.tokens) for answer, _ in rig.answers] == [1, full, 3]


async def test_a_commit_is_cut_by_rows_but_a_write_never_is(rig: Rig) -> None:
    rig.writer.put(small(1))
    await rig.begun(1)
    rig.writer.put(small(2, BATCH_ROWS - 1))
    rig.writer.put(small(3, 2 * BATCH_ROWS))
    rig.writer.put(small(4))
    rig.store.let(3)
    await rig.wait(3)
    assert [answer.tokens for answer, _ in rig.answers] == [(1,), (2, 3), (4,)]


async def test_a_failure_is_of_exactly_that_commit(rig: Rig) -> None:
    rig.store.failing = lambda rows: put(3).rows[0] in rows
    rig.writer.put(put(1))
    await rig.begun(1)
    rig.writer.put(put(2))
    rig.writer.put(put(3))
    rig.store.let(2)
    await rig.wait(2)
    rig.writer.put(put(4))
    rig.store.let()
    await rig.wait(3)
    (first, _), (second, _), (third, _) = rig.answers
    assert (first, third) == (Written((1,)), Written((4,)))
    assert isinstance(second, WriteFailed)
    assert second.tokens == (2, 3)
    assert str(second.problem) == "The store store.db cannot be used: the disk is full."


async def test_a_write_without_rows_is_answered_in_its_turn_and_commits_nothing(rig: Rig) -> None:
    rig.writer.put(Write(1, ()))
    await rig.wait(1)
    assert rig.answers == [(Written((1,)), 0)]
    assert rig.store.begun == []


async def test_when_cancelled_it_finishes_what_is_queued_and_answers() -> None:
    rig = Rig()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.writer.run, rig.hear)
        rig.writer.put(put(1))
        await rig.begun(1)
        rig.writer.put(put(2))
        nursery.cancel_scope.cancel()
        rig.writer.put(put(3))
        rig.store.let(2)
    assert [answer for answer, _ in rig.answers] == [Written((1,)), Written((2, 3))]
    assert rig.store.done == 2


async def test_room_for_more_only_when_the_queue_is_short(rig: Rig, nursery: trio.Nursery) -> None:
    entered: list[str] = []

    async def submitter(name: str) -> None:
        await rig.writer.room()
        entered.append(name)

    await rig.writer.room()
    for token in range(1, BACKLOG_BYTES // PAYLOAD_SIZE_MAX + 2):
        rig.writer.put(put(token, PAYLOAD_SIZE_MAX))
    nursery.start_soon(submitter, "one")
    nursery.start_soon(submitter, "other")
    await rig.begun(1)
    await wait_all_tasks_blocked(0.05)
    assert entered == []
    rig.store.let(3)
    await until(lambda: len(entered) == 2)


async def test_the_store_is_tidied_when_there_is_nothing_else_to_do(rig: Rig) -> None:
    rig.store.untidy = 3
    await until(lambda: rig.store.tidied == 3)
    rig.writer.put(put(1))
    rig.store.let()
    await rig.wait(1)
    await wait_all_tasks_blocked(0.05)
    assert rig.store.tidied == 3, "nothing was dropped"
    rig.store.untidy = 2
    rig.writer.put(Write(2, (DropBundles(SOURCE.journal, Ranges.single(1)),)))
    rig.store.let()
    await rig.wait(2)
    await until(lambda: rig.store.tidied == 5)


async def test_many_new_bundles_are_a_reason_to_tidy_too(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "UNTIDY_BUNDLES", 3)
    await until(lambda: rig.store.tidied == 1)
    for token in range(1, 6):
        rig.writer.put(put(token))
        rig.store.let()
        await rig.wait(token)
        await wait_all_tasks_blocked(0.05)
        assert rig.store.tidied == (1 if token < 3 else 2)


async def test_a_store_that_cannot_be_tidied_harms_nobody(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def tidy() -> bool:
        raise StoreTrouble(path="store.db", problem="busy")

    await until(lambda: rig.store.tidied == 1)
    monkeypatch.setattr(rig.store, "tidy", tidy)
    rig.writer.put(Write(1, (DropBundles(SOURCE.journal, Ranges.single(1)),)))
    rig.writer.put(put(2))
    rig.store.let(2)
    await rig.wait(1)
    rig.writer.put(put(3))
    rig.store.let()
    await rig.wait(2)
    assert rig.answers[-1][0] == Written((3,))


async def test_a_real_store_gives_the_space_back_in_a_few_steps(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store.db")
    steps = 0
    tidy = store.tidy
    tidied = trio.Event()

    def counted() -> bool:
        nonlocal steps
        steps += 1
        more = tidy()
        if not more:
            trio.from_thread.run_sync(tidied.set)
        return more

    store.tidy = counted  # type: ignore[method-assign]
    try:
        count = 64
        store.commit([put(number, PAYLOAD_SIZE_MAX).rows[0] for number in range(1, count + 1)], 1.0)
        writer = Writer(store, lambda: 2.0)
        async with trio.open_nursery() as nursery:
            writer.put(Write(1, (DropBundles(SOURCE.journal, Ranges.span(1, count)),)))
            nursery.start_soon(writer.run, lambda _: None)
            with trio.fail_after(DEADLINE_S):
                await tidied.wait()
            nursery.cancel_scope.cancel()
    finally:
        store.close()
    assert steps <= 4
    assert (tmp_path / "store.db").stat().st_size < 768 * KIB  # a page of 32 KiB or two for each empty table

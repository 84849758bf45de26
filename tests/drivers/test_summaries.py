"""Summaries: they change how long a start takes, and never what it finds."""

from __future__ import annotations

import sqlite3
import struct
import sys
import tempfile
from array import array
from collections.abc import Iterable
from contextlib import closing
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from meshnode.core.entries import BLOCK_SIZE, Entries, Entry, Lot
from meshnode.core.errors import StoreTrouble
from meshnode.core.intervals import Ranges
from meshnode.core.rows import DropBundles, PutBundle, Row, Snapshot
from meshnode.drivers.memory import MemoryStore
from meshnode.drivers.sqlite import SqliteStore, loading, summaries
from meshnode.drivers.sqlite.pages import Pages
from meshnode.drivers.sqlite.summaries import pack_lot, unpack_lot
from tests.core.fleets import Fleet, Source

FLEET = Fleet()
SITI, AGUS = Source(FLEET, "siti"), Source(FLEET, "agus")
#: The end of one block, and the beginning of the next.
FIRST, LAST = BLOCK_SIZE - 300, BLOCK_SIZE + 300


@cache
def put(source: Source, number: int) -> PutBundle:
    """The row of a bundle of its own size and age."""
    bundle = source.bundle(number, size=1000 + number % 50)
    return PutBundle(bundle, source.journal, number + 0.125, 1)


def puts(source: Source, first: int, last: int) -> list[Row]:
    return [put(source, number) for number in range(first, last + 1)]


def tidy(store: SqliteStore) -> int:
    """In how many steps."""
    steps = 1
    while store.tidy():
        steps += 1
    return steps


def blocks(store: SqliteStore) -> list[tuple[int, int]]:
    return store._writer.execute("SELECT journal, block FROM summary ORDER BY journal, block").fetchall()


def found(snapshot: Snapshot) -> dict[bytes, dict[int, Entry]]:
    return {record.id: dict(record.entries) for record in snapshot.journals}


@pytest.fixture(scope="module")
def summed(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A store of two blocks of one journal, each with a summary."""
    path = tmp_path_factory.mktemp("summed") / "store.db"
    with closing(SqliteStore(path)) as store:
        store.commit(puts(SITI, FIRST, LAST), 1.0)
    with closing(SqliteStore(path)) as store:
        store.load()
        tidy(store)
        assert blocks(store) == [(1, 0), (1, 1)]
    return path.read_bytes()


@pytest.fixture
def path(summed: bytes, tmp_path: Path) -> Path:
    path = tmp_path / "store.db"
    path.write_bytes(summed)
    return path


ALL = {number: put(SITI, number) for number in range(FIRST, LAST + 1)}


def numbers_in(path: Path) -> tuple[set[int], dict[str, int]]:
    """What a start finds, and what is damaged."""
    with closing(SqliteStore(path)) as store:
        snapshot = store.load()
    return set(snapshot.journals[0].entries), snapshot.damaged


# --- they do what they are for ----------------------------------------------------------------------------------


def test_what_is_summed_up_is_not_read_row_by_row(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def reads(rows: object) -> bool:
        raise AssertionError("rows are read")

    monkeypatch.setattr(loading, "is_whole", reads)
    with closing(SqliteStore(path)) as store:
        (record,) = store.load().journals
    assert record.entries.ranges == Ranges.span(FIRST, LAST)
    for number, row in ALL.items():
        assert record.entries[number] == Entry(
            1000 + number % 50, 1, number, 1, row.born_s, record.entries[number].lifetime_s
        )


def test_the_next_start_finds_the_same_with_and_without_them(path: Path) -> None:
    with closing(SqliteStore(path)) as store:
        short = store.load()
        store._writer.execute("DELETE FROM summary")
        assert store.load() == short
        assert tidy(store) == 3, "a block a step, and one that finds nothing to do"
        assert blocks(store) == [(1, 0), (1, 1)]
        assert store.load() == short
        assert tidy(store) == 1


def test_small_blocks_have_none(tmp_path: Path) -> None:
    with closing(SqliteStore(tmp_path / "store.db")) as store:
        store.commit(puts(SITI, 1, summaries.ENTRIES_MIN - 1), 1.0)
        store.load()
        tidy(store)
        assert blocks(store) == []


def test_a_block_that_changes_is_left_alone_until_others_have_changed_enough(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(summaries, "QUIET_CHANGES", 10)
    with closing(SqliteStore(path)) as store:
        store.load()
        store.commit([put(SITI, LAST + 1)], 2.0)
        for number in range(1, 11):
            assert blocks(store) == [(1, 0)]
            assert tidy(store) == 1
            store.commit([put(AGUS, number)], 2.0)
        assert tidy(store) == 2
        assert blocks(store) == [(1, 0), (1, 1)]


# --- and nothing else -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "row", [put(SITI, 1), put(SITI, FIRST), DropBundles(SITI.journal, Ranges.single(FIRST + 7))]
)
def test_a_change_removes_the_summary_of_its_block_alone(path: Path, row: Row) -> None:
    with closing(SqliteStore(path)) as store:
        store.commit([row], 2.0)
        assert blocks(store) == [(1, 1)]


def test_a_change_that_is_undone_leaves_it_and_the_next_one_removes_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full() -> None:
        raise OSError(28, "No space left on device")

    drop = DropBundles(SITI.journal, Ranges.span(FIRST, LAST - 1))
    with closing(SqliteStore(path)) as store:
        with monkeypatch.context() as patch:
            patch.setattr(store._slots, "flush", full)
            with pytest.raises(StoreTrouble):
                store.commit([drop], 2.0)
        assert blocks(store) == [(1, 0), (1, 1)]
        store.commit([drop], 2.0)
        assert blocks(store) == []
    assert numbers_in(path) == ({LAST}, {})


class LikeMemory(RuleBasedStateMachine):
    """Whatever is put, dropped, tidied and started again: what a start finds is what is in memory."""

    def __init__(self) -> None:
        super().__init__()
        self._patch = pytest.MonkeyPatch()
        self._patch.setattr(summaries, "ENTRIES_MIN", 2)
        self._patch.setattr(loading, "ENTRIES_MIN", 2)
        self._patch.setattr(summaries, "QUIET_CHANGES", 3)
        self._folder = tempfile.TemporaryDirectory()
        self._path = Path(self._folder.name) / "store.db"
        self.store = SqliteStore(self._path)
        self.memory = MemoryStore()

    def teardown(self) -> None:
        self.store.close()
        self._folder.cleanup()
        self._patch.undo()

    numbers = st.sampled_from([*range(1, 4), *range(BLOCK_SIZE - 3, BLOCK_SIZE + 3), 2 * BLOCK_SIZE + 1])
    sources = st.sampled_from([SITI, AGUS])

    def _commit(self, rows: Iterable[Row]) -> None:
        for store in (self.store, self.memory):
            store.commit(list(rows), 1.0)

    @rule(source=sources, some=st.sets(numbers, min_size=1), born_s=st.sampled_from([1.5, 2.5]))
    def puts(self, source: Source, some: set[int], born_s: float) -> None:
        self._commit([replace(put(source, number), born_s=born_s) for number in sorted(some)])

    @rule(source=sources, first=numbers, last=numbers)
    def drops(self, source: Source, first: int, last: int) -> None:
        self._commit([DropBundles(source.journal, Ranges.span(first, last))])

    @rule()
    def tidies(self) -> None:
        tidy(self.store)

    @rule()
    def starts_again(self) -> None:
        self.store.close()
        self.store = SqliteStore(self._path)
        self.store.load()
        tidy(self.store)

    @invariant()
    def finds_the_same(self) -> None:
        snapshot = self.store.load()
        assert found(snapshot) == found(self.memory.load())
        assert snapshot.damaged == {}


TestLikeMemory = LikeMemory.TestCase
TestLikeMemory.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)


# --- what rots --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE summary SET crc = crc + 1 WHERE block = 0",
        "UPDATE summary SET data = substr(data, 1, 500) WHERE block = 0",
        "UPDATE summary SET data = 'text' WHERE block = 0",
        "UPDATE summary SET block = 7 WHERE block = 0",
        "UPDATE summary SET journal = 9 WHERE block = 0",
        "UPDATE summary SET data = (SELECT data FROM summary WHERE block = 1) WHERE block = 0",
    ],
)
def test_a_summary_that_has_rotted_is_passed_over_and_written_again(path: Path, damage: str) -> None:
    with closing(SqliteStore(path)) as store:
        store._writer.execute(damage)
        assert found(store.load()).keys() == {SITI.journal}
        assert tidy(store) == 2
    assert numbers_in(path) == (set(ALL), {})


def test_a_summary_of_a_block_that_is_not_there_any_more_is_not_believed(path: Path) -> None:
    with closing(SqliteStore(path)) as store:
        store._writer.execute("DELETE FROM entry WHERE number < ?", (BLOCK_SIZE,))
    assert numbers_in(path) == ({number for number in ALL if number >= BLOCK_SIZE}, {})


@pytest.mark.parametrize("number", [FIRST, BLOCK_SIZE - 1, BLOCK_SIZE, LAST])
def test_a_summary_whose_ends_are_not_those_of_its_block_is_not_believed(path: Path, number: int) -> None:
    with closing(SqliteStore(path)) as store:
        store._writer.execute("DELETE FROM entry WHERE number = ?", (number,))
    assert numbers_in(path) == (set(ALL) - {number}, {})


@pytest.mark.parametrize("number", [FIRST, BLOCK_SIZE - 1, BLOCK_SIZE, LAST])
def test_a_row_at_the_end_of_a_block_that_has_rotted_is_left_out_and_counted(path: Path, number: int) -> None:
    with closing(SqliteStore(path)) as store:
        store._writer.execute("UPDATE entry SET lifetime_s = -1 WHERE number = ?", (number,))
    assert numbers_in(path) == (set(ALL) - {number}, {"bundle": 1})


#: Of a row in the file: its journal is told by its type, 9 for 1 and 8 for 0; its number has two bytes.
ROTTEN_JOURNAL = 0


@pytest.mark.parametrize("to", [ROTTEN_JOURNAL, 1, 3, FIRST + 40, BLOCK_SIZE + 40, 2 * BLOCK_SIZE, 32_767])
@pytest.mark.parametrize("summed_up", [0, 1])
def test_a_key_that_has_rotted_hides_no_other(path: Path, to: int, summed_up: int) -> None:
    """Neither when it ends a block too early, nor when it leads a search astray."""
    unsummed = range(BLOCK_SIZE, LAST + 1) if summed_up == 0 else range(FIRST, BLOCK_SIZE)
    with closing(SqliteStore(path)) as store:
        store._writer.execute("DELETE FROM summary WHERE block <> ?", (summed_up,))
    clean = path.read_bytes()
    ends = FIRST, BLOCK_SIZE - 1, BLOCK_SIZE, LAST
    for number in (*unsummed[:9], *unsummed[20:-9:25], *unsummed[-9:], *ends):
        if to in (number - 1, number, number + 1):
            continue
        end = clean.index(struct.pack(">d", number + 0.125)) - 4
        at = clean.index(number.to_bytes(2, "big"), end - 4, end)  # then bundle, size, first
        rotten = bytearray(clean)
        if to == ROTTEN_JOURNAL:
            assert rotten[at - 11] == 9
            rotten[at - 11] = 8
        else:
            rotten[at : at + 2] = to.to_bytes(2, "big")
        path.write_bytes(rotten)
        assert numbers_in(path) == (set(ALL) - {number}, {"bundle": 1}), number


def test_they_are_nothing_to_who_looks_for_rows_in_what_is_left(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        size = len(connection.execute("SELECT data FROM summary WHERE block = 0").fetchone()[0])
    with closing(Pages(path)) as pages:
        rows = list(pages.rows(lambda types: len(types) == 4, set()))
    like = [row.values for row in rows if isinstance(row.values[2], bytes) and len(row.values[2]) == size]
    assert [(values[0], values[1]) for values in like] == [(1, 0)]
    assert not any(row.in_table for row in rows if row.values in like), (
        "so it is neither custody nor an entry"
    )


# --- bytes ------------------------------------------------------------------------------------------------------

ROWS = [(n, 1000 + n, 1, n, 1, 0.5, 2**40) for n in (5, 6, 7, 9)]


def test_bytes_are_the_same_on_every_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    lot = Lot.of(ROWS)
    data = pack_lot(lot)
    assert array("H", (1005, 1006, 1007, 1009)).tobytes() in data or sys.byteorder == "big"
    assert unpack_lot(data) == lot
    monkeypatch.setattr(sys, "byteorder", "middle")
    assert struct.pack(">4H", 1005, 1006, 1007, 1009) in pack_lot(lot)
    assert unpack_lot(pack_lot(lot)) == lot


def test_what_is_no_summary_is_refused_wherever_it_is_cut_or_changed() -> None:
    data = pack_lot(Lot.of(ROWS))
    for at in range(len(data)):
        with pytest.raises(ValueError, match=r".+"):
            unpack_lot(data[:at])
        changed = bytearray(data)
        changed[at] ^= 0x41
        try:
            lot = unpack_lot(bytes(changed))
        except ValueError:
            continue
        assert len(list(Entries(lots=[lot]).values())) == 4

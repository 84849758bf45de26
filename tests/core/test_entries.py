"""Entries against a dictionary, and what a lot makes of its columns."""

from __future__ import annotations

from array import array
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from meshnode.core.entries import Entries, Entry, Lot
from meshnode.core.intervals import NONE, Ranges

BLOCK = 4
NUMBERS = st.integers(1, 22)
SOME = st.sets(NUMBERS, max_size=9)


@st.composite
def items(draw: st.DrawFn) -> dict[int, Entry]:
    """Entries of any numbers: all alike, or each of its own kind."""
    chosen = draw(SOME)
    alike = draw(st.booleans())
    made: dict[int, Entry] = {}
    for number in chosen:
        size = 1000 if alike else draw(st.sampled_from([1, 255, 256, 65_536, 262_144]))
        first = number if alike else draw(st.integers(max(1, number - 3), number))
        born_s = 5.5 if alike else draw(st.floats(-50, 50))
        lifetime_s = 60 if alike else draw(st.sampled_from([1, 70, 2**40]))
        made[number] = Entry(size, int(alike), first, number - first + 1, born_s, lifetime_s)
    return made


def lots_of(entries: dict[int, Entry], block_size: int = BLOCK) -> list[Lot]:
    """One a block."""
    blocks: dict[int, list[tuple[float, ...]]] = {}
    for number, entry in sorted(entries.items()):
        blocks.setdefault(number // block_size, []).append((number, *entry))
    return [Lot.of(rows) for rows in blocks.values()]


def due_s(entry: Entry) -> float:
    """When it expires."""
    return entry.born_s + entry.lifetime_s


class AsADictionary(RuleBasedStateMachine):
    """Some in lots, some not, and whatever is done to them."""

    @initialize(old=items(), new=items())
    def begin(self, old: dict[int, Entry], new: dict[int, Entry]) -> None:
        new = {number: entry for number, entry in new.items() if number not in old}
        self.entries = Entries(new, lots_of(old), BLOCK)
        self.model = old | new

    @rule(number=NUMBERS, some=items())
    def put(self, number: int, some: dict[int, Entry]) -> None:
        self.entries.update(some)
        self.model.update(some)
        self.entries[number] = self.model[number] = Entry(7, 1, number, 1, 0.25, 9)

    @rule(number=NUMBERS)
    def removed_one(self, number: int) -> None:
        assert self.entries.pop(number, None) == self.model.pop(number, None)
        with pytest.raises(KeyError):
            del self.entries[number]
        with pytest.raises(KeyError):
            self.entries[number]

    @rule(some=SOME, more=st.integers(0, 10**12))
    def removed_some(self, some: set[int], more: int) -> None:
        ranges = Ranges.of(some) | Ranges.span(18, more)
        gone = [number for number in self.model if number in ranges]
        size = sum(self.model[number].size for number in gone)
        assert self.entries.size_of(ranges) == size
        assert self.entries.remove(ranges) == size
        for number in gone:
            del self.model[number]

    @rule(now_s=st.floats(-60, 200))
    def time_passes(self, now_s: float) -> None:
        old, next_s = self.entries.expired(now_s)
        assert old == Ranges.of(n for n, entry in self.model.items() if due_s(entry) < now_s)
        assert next_s <= min(map(due_s, self.model.values()), default=inf)

    @rule()
    def goes_on_as_a_copy(self) -> None:
        before, self.entries = self.entries, self.entries.copy()
        before.remove(Ranges.span(1, 9))
        before[15] = Entry(9, 0, 15, 1, 0.0, 1)

    @rule()
    def cleared(self) -> None:
        self.entries.clear()
        self.model.clear()

    @invariant()
    def are_alike(self) -> None:
        assert self.entries == self.model
        assert dict(self.entries) == self.model
        assert sorted(self.entries) == sorted(self.model)
        assert sorted(self.entries.values()) == sorted(self.model.values())
        assert len(self.entries) == len(self.model)
        assert bool(self.entries) == bool(self.model)
        assert self.entries.ranges == Ranges.of(self.model)
        assert self.entries.size == sum(entry.size for entry in self.model.values())
        assert self.entries.expires_s <= min(map(due_s, self.model.values()), default=inf)
        for number in range(25):
            assert (number in self.entries) == (number in self.model)
            assert self.entries.get(number) == self.model.get(number)


TestAsADictionary = AsADictionary.TestCase
TestAsADictionary.settings = settings(max_examples=80, stateful_step_count=25)


@given(items().filter(bool))
def test_a_lot_of_whatever_numbers_gives_back_what_it_was_made_of(entries: dict[int, Entry]) -> None:
    lot = Lot.of((number, *entry) for number, entry in sorted(entries.items()))
    assert {number: lot[number] for number in lot.held} == entries
    assert lot.size == sum(entry.size for entry in entries.values())
    assert lot.expires_s == min(map(due_s, entries.values()))
    with pytest.raises(KeyError):
        lot[max(entries) + 1]
    assert Lot.restored(lot.columns, lot.held, lot.size, lot.expires_s) == lot


def test_a_lot_is_looked_through_only_when_something_in_it_may_have_expired() -> None:
    late, soon = Entry(1, 0, 1, 1, 0.0, 100), Entry(1, 0, 2, 1, 0.0, 10)
    entries = Entries(lots=lots_of({1: late, 2: soon}))
    assert entries.expired(20.0) == (Ranges.single(2), 10.0)
    entries.remove(Ranges.single(2))
    assert entries.expired(20.0) == (NONE, 100.0), "looked at once more, and then no more before its time"
    assert entries.expires_s == 100.0


def test_a_million_bundles_alike_in_all_but_age_and_size_take_ten_bytes_each() -> None:
    rows = [(n, 1136 + n % 500, 1, n, 1, 1000.0 + n, 2_592_000) for n in range(4096, 8192)]
    columns = Lot.of(rows).columns
    assert sum(len(column.tobytes()) for column in columns if isinstance(column, array)) < 4096 * 10 + 20


@pytest.mark.parametrize("held", [NONE, Ranges.span(1, 2), Ranges([(1, 2), (4, 5)])])
def test_columns_of_other_numbers_are_refused(held: Ranges) -> None:
    lot = Lot.of([(n, n, 1, 1, 9, float(n), n) for n in (1, 2, 3)])
    with pytest.raises(ValueError, match="do not fit"):
        Lot.restored(lot.columns, held, 1, 1.0)

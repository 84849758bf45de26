"""What a journal holds, by number: a million entries in some ten megabytes, and there at once after a start.

What is new is in a dictionary, an object each. What was here before comes in lots: the numbers of one block, as
columns, and beside them what most questions are about: which numbers, how many bytes, when the first of them expires. A
lot never changes. Whoever takes something out of it gets another lot, which shares its columns and holds less; so a
copy of all entries is cheap, and stays as it is while the ledger goes on.

A column of equal values has just one, and the others are as narrow as their values allow. `part` stands for the first
number of a message, since it is 0 for nearly all.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from operator import add, sub
from typing import Any, Final, NamedTuple, TypeVar

from meshnode.core.intervals import NONE, Ranges

#: Numbers of a block: 0 to 4095, 4096 to 8191, ... Stores count on it, so it stays.
BLOCK_SIZE: Final = 4096

T = TypeVar("T")


class Entry(NamedTuple):
    """What is known of a held bundle without reading it. `first` names its message."""

    size: int
    priority: int
    first: int
    parts: int
    born_s: float
    lifetime_s: int


class Columns(NamedTuple):
    """One value a number, or one for all of them. `part`: how far into its message a bundle is, from 0 on."""

    size: Sequence[int]
    priority: Sequence[int]
    part: Sequence[int]
    parts: Sequence[int]
    born_s: Sequence[float]
    lifetime_s: Sequence[int]


@dataclass(frozen=True, slots=True)
class Lot:
    """Some entries of one block. `numbers`: those that the columns are of, ascending; `held`: those of them that count.
    `size`: bytes of these. `expires_s`: none of them expires before."""

    numbers: Sequence[int]
    columns: Columns
    held: Ranges
    size: int
    expires_s: float

    @classmethod
    def of(cls, rows: Iterable[Sequence[Any]]) -> Lot:
        """Of one or more rows (number, *Entry), ascending by number."""
        numbers, sizes, priorities, firsts, parts, born_s, lifetimes_s = zip(*rows, strict=True)
        offsets = tuple(map(sub, numbers, firsts))
        columns = Columns(
            _narrow(sizes),
            _narrow(priorities),
            _narrow(offsets),
            _narrow(parts),
            _once(array("d", born_s)),
            _narrow(lifetimes_s),
        )
        is_span = numbers[-1] - numbers[0] + 1 == len(numbers)
        held = Ranges.span(numbers[0], numbers[-1]) if is_span else Ranges.of(numbers)
        return cls.restored(columns, held, sum(sizes), min(map(add, born_s, lifetimes_s)))

    @classmethod
    def restored(cls, columns: Columns, held: Ranges, size: int, expires_s: float) -> Lot:
        """From what a complete one had. Raises ValueError if the columns are not of that many numbers."""
        numbers: Sequence[int] = range(held.pairs[0][0], held.pairs[-1][1] + 1) if held else ()
        if len(held.pairs) > 1:
            numbers = array("Q", held)
        if not numbers or any(len(column) not in (1, len(numbers)) for column in columns):
            raise ValueError("columns do not fit the numbers")
        return cls(numbers, columns, held, size, expires_s)

    def __len__(self) -> int:
        return len(self.held)

    def __getitem__(self, number: int) -> Entry:
        """Raises KeyError for what is not held."""
        if number not in self.held:
            raise KeyError(number)
        return self._entry(number, bisect_left(self.numbers, number))

    def _entry(self, number: int, at: int) -> Entry:
        size, priority, part, parts, born_s, lifetime_s = self.columns
        return Entry(
            _at(size, at),
            _at(priority, at),
            number - _at(part, at),
            _at(parts, at),
            _at(born_s, at),
            _at(lifetime_s, at),
        )

    def size_of(self, ranges: Ranges) -> int:
        """Bytes of these; all have to be held."""
        if ranges == self.held:
            return self.size
        sizes = self.columns.size
        if len(sizes) == 1:
            return sizes[0] * len(ranges)
        total = 0
        for first, last in ranges.pairs:
            at = bisect_left(self.numbers, first)
            total += sum(sizes[at : at + last - first + 1])
        return total

    def without(self, ranges: Ranges) -> Lot:
        """What is left; all of `ranges` have to be held."""
        return replace(self, held=self.held - ranges, size=self.size - self.size_of(ranges))

    def expired(self, now_s: float) -> tuple[Ranges, Lot]:
        """Those that expire before `now_s`, and the lot with what was learned: when the first of all expires."""
        born_s, lifetimes_s = self.columns.born_s, self.columns.lifetime_s
        due: dict[int, float] = {}
        for first, last in self.held.pairs:
            start = bisect_left(self.numbers, first)
            for number, at in zip(
                range(first, last + 1), range(start, start + last - first + 1), strict=True
            ):
                due[number] = _at(born_s, at) + _at(lifetimes_s, at)
        old = Ranges.of(number for number, at_s in due.items() if at_s < now_s)
        return old, replace(self, expires_s=min(due.values(), default=inf))


def _at(column: Sequence[T], at: int) -> T:
    return column[at] if len(column) > 1 else column[0]


def _once(column: array[float]) -> array[float]:
    return column[:1] if len(column) > 1 and column.count(column[0]) == len(column) else column


def _narrow(column: Sequence[int]) -> Sequence[int]:
    least, most = min(column), max(column)
    if least < 0:
        raise ValueError("a column has a negative number")
    code = next(code for code, size in (("B", 1), ("H", 2), ("I", 4), ("Q", 8)) if most < 256**size)
    return array(code, column[:1] if least == most else column)


class Entries(MutableMapping[int, Entry]):
    """The entries of a journal. Each lot is of one block; what is in none is in a dictionary."""

    __slots__ = ("_block_size", "_lots", "_new")

    def __init__(
        self,
        entries: Mapping[int, Entry] | None = None,
        lots: Iterable[Lot] = (),
        block_size: int = BLOCK_SIZE,
    ) -> None:
        """`entries` are in none of the `lots`."""
        self._new = dict(entries or {})
        self._block_size = block_size
        self._lots = {lot.numbers[0] // block_size: lot for lot in lots}

    # --- one of them --------------------------------------------------------------------------------------------

    def __getitem__(self, number: int) -> Entry:
        entry = self._new.get(number)
        if entry is not None:
            return entry
        lot = self._lots.get(number // self._block_size)
        if lot is None:
            raise KeyError(number)
        return lot[number]

    def get(self, number: int, default: Any = None) -> Any:
        """As of a dictionary."""
        entry = self._new.get(number)
        if entry is None and number in self:
            return self[number]
        return default if entry is None else entry

    def __contains__(self, number: object) -> bool:
        if number in self._new:
            return True
        if not self._lots or not isinstance(number, int):
            return False
        lot = self._lots.get(number // self._block_size)
        return lot is not None and number in lot.held

    def __setitem__(self, number: int, entry: Entry) -> None:
        if self._lots and number not in self._new:
            self._take_out(number)
        self._new[number] = entry

    def __delitem__(self, number: int) -> None:
        if self._new.pop(number, None) is None and not self._take_out(number):
            raise KeyError(number)

    def _take_out(self, number: int) -> bool:
        lot = self._lots.get(number // self._block_size)
        if lot is None or number not in lot.held:
            return False
        self._put_back(number // self._block_size, lot.without(Ranges.single(number)))
        return True

    def _put_back(self, block: int, lot: Lot) -> None:
        if lot.held:
            self._lots[block] = lot
        else:
            del self._lots[block]

    # --- all of them --------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[int]:
        for lot in list(self._lots.values()):
            yield from lot.held
        yield from self._new

    def __len__(self) -> int:
        return len(self._new) + sum(map(len, self._lots.values()))

    def __bool__(self) -> bool:
        return bool(self._new or self._lots)

    def __repr__(self) -> str:
        return f"Entries({dict(self)!r})"

    def clear(self) -> None:
        """Nothing is held any more."""
        self._new.clear()
        self._lots.clear()

    def copy(self) -> Entries:
        """Another one, that goes its own way."""
        other = Entries(self._new, block_size=self._block_size)
        other._lots = dict(self._lots)
        return other

    @property
    def ranges(self) -> Ranges:
        """The numbers."""
        pairs = [pair for lot in self._lots.values() for pair in lot.held.pairs]
        return Ranges.of(self._new) | Ranges(pairs)

    @property
    def size(self) -> int:
        """Bytes of all payloads."""
        return sum(entry.size for entry in self._new.values()) + sum(lot.size for lot in self._lots.values())

    @property
    def expires_s(self) -> float:
        """None of them expires before."""
        new = (entry.born_s + entry.lifetime_s for entry in self._new.values())
        return min(min(new, default=inf), min((lot.expires_s for lot in self._lots.values()), default=inf))

    # --- some of them -------------------------------------------------------------------------------------------

    def size_of(self, ranges: Ranges) -> int:
        """Bytes of those of `ranges` that are here."""
        size = sum(self._new[number].size for number in self._new_in(ranges))
        for block in self._blocks_in(ranges):
            lot = self._lots[block]
            size += lot.size_of(ranges & lot.held)
        return size

    def remove(self, ranges: Ranges) -> int:
        """Take out those of `ranges` that are here; their bytes."""
        size = sum(self._new.pop(number).size for number in self._new_in(ranges))
        for block in self._blocks_in(ranges):
            lot = self._lots[block]
            left = lot.without(ranges & lot.held)
            size += lot.size - left.size
            self._put_back(block, left)
        return size

    def expired(self, now_s: float) -> tuple[Ranges, float]:
        """Those that expire before `now_s`, and when the first of all expires, or earlier."""
        due = {number: entry.born_s + entry.lifetime_s for number, entry in self._new.items()}
        old = Ranges.of(number for number, at_s in due.items() if at_s < now_s)
        next_s = min(due.values(), default=inf)
        for block, lot in self._lots.items():
            if lot.expires_s < now_s:
                some, self._lots[block] = lot.expired(now_s)
                old |= some
            next_s = min(next_s, self._lots[block].expires_s)
        return old, next_s

    def _new_in(self, ranges: Ranges) -> list[int]:
        if len(ranges) > len(self._new):
            return [number for number in self._new if number in ranges]
        return [number for number in ranges if number in self._new]

    def _blocks_in(self, ranges: Ranges) -> list[int]:
        """The blocks with lots that these may be in."""
        found: dict[int, None] = {}
        for first, last in ranges.pairs if self._lots else NONE.pairs:
            blocks = range(first // self._block_size, last // self._block_size + 1)
            some = self._lots if len(blocks) > len(self._lots) else blocks
            found.update((block, None) for block in some if block in blocks and block in self._lots)
        return list(found)

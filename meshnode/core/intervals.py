"""Sets of bundle numbers, kept as ranges: `1-57, 60`.

Everything that a node says about a journal is such a set: what it holds, what it wants, what the office has signed
for. A set of a million numbers without gaps is one pair, so comparing two nodes costs by the gap and not by the
bundle, as with TCP's selective acknowledgement (RFC 2018).

Invariant: the pairs `(first, last)` are inclusive, ascending, and neither overlap nor touch, so that equal sets are
equal values. An operation looks only at the pairs that both sides have in common, found by bisection: taking one number
out of a set with thousands of gaps is cheap, and that happens for every bundle.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from operator import itemgetter

from meshnode.core.errors import RemoteError
from meshnode.core.limits import NUMBER_MAX, RANGES_MAX
from meshnode.core.words import say

Pair = tuple[int, int]

_first = itemgetter(0)
_last = itemgetter(1)


def _window(pairs: tuple[Pair, ...], first: int, last: int) -> tuple[int, int]:
    """`pairs[lo:hi]` are those that share a number with `first` to `last`."""
    lo = bisect_left(pairs, first, key=_last)
    return lo, max(lo, bisect_right(pairs, last, lo, key=_first))


def _overlap(mine: tuple[Pair, ...], theirs: tuple[Pair, ...]) -> tuple[tuple[Pair, ...], tuple[Pair, ...]]:
    """Of both only the pairs within the other's first and last number; the rest cannot matter to either."""
    if not mine or not theirs:
        return (), ()
    lo, hi = _window(mine, theirs[0][0], theirs[-1][1])
    at, to = _window(theirs, mine[0][0], mine[-1][1])
    return mine[lo:hi], theirs[at:to]


class Ranges:
    """An immutable set of whole numbers from 1 on, as ascending inclusive ranges."""

    __slots__ = ("pairs",)

    pairs: tuple[Pair, ...]

    def __init__(self, pairs: Iterable[Pair] = ()) -> None:
        """The union of `pairs`, which may come in any order and overlap; a pair with first > last is empty."""
        merged: list[Pair] = []
        for first, last in sorted(pairs):
            if first > last:
                continue
            if merged and first <= merged[-1][1] + 1:
                if last > merged[-1][1]:
                    merged[-1] = (merged[-1][0], last)
            else:
                merged.append((first, last))
        self.pairs = tuple(merged)

    @classmethod
    def _of(cls, pairs: tuple[Pair, ...]) -> Ranges:
        """Pairs that already obey the invariant."""
        made = cls.__new__(cls)
        made.pairs = pairs
        return made

    @classmethod
    def single(cls, number: int) -> Ranges:
        """The set of one number."""
        return cls._of(((number, number),))

    @classmethod
    def span(cls, first: int, last: int) -> Ranges:
        """All numbers from `first` to `last`, both included; empty when first > last."""
        return cls._of(((first, last),) if first <= last else ())

    @classmethod
    def of(cls, numbers: Iterable[int]) -> Ranges:
        """The set of these numbers."""
        return cls((number, number) for number in numbers)

    def __or__(self, other: Ranges) -> Ranges:
        small, large = sorted((self, other), key=lambda ranges: len(ranges.pairs))
        if not small.pairs:
            return large
        # One number more on either side: what touches is merged too.
        lo, hi = _window(large.pairs, small.pairs[0][0] - 1, small.pairs[-1][1] + 1)
        merged = Ranges(large.pairs[lo:hi] + small.pairs)
        return Ranges._of(large.pairs[:lo] + merged.pairs + large.pairs[hi:])

    def __and__(self, other: Ranges) -> Ranges:
        mine, theirs = _overlap(self.pairs, other.pairs)
        out: list[Pair] = []
        i = j = 0
        while i < len(mine) and j < len(theirs):
            first = max(mine[i][0], theirs[j][0])
            last = min(mine[i][1], theirs[j][1])
            if first <= last:
                out.append((first, last))
            if mine[i][1] < theirs[j][1]:
                i += 1
            else:
                j += 1
        return Ranges._of(tuple(out))

    def __sub__(self, other: Ranges) -> Ranges:
        if not self.pairs or not other.pairs:
            return self
        lo, hi = _window(self.pairs, other.pairs[0][0], other.pairs[-1][1])
        if lo == hi:
            return self
        mine, theirs = _overlap(self.pairs[lo:hi], other.pairs)
        out: list[Pair] = []
        j, ends = 0, len(theirs)
        for first, last in mine:
            start = first
            while j < ends and theirs[j][1] < start:
                j += 1
            k = j
            while k < ends and theirs[k][0] <= last:
                if start < theirs[k][0]:
                    out.append((start, theirs[k][0] - 1))
                start = theirs[k][1] + 1
                k += 1
            if start <= last:
                out.append((start, last))
        return Ranges._of(self.pairs[:lo] + tuple(out) + self.pairs[hi:])

    def plus(self, number: int) -> Ranges:
        """With one number more."""
        pairs = self.pairs
        at = bisect_right(pairs, (number, NUMBER_MAX + 1))  # where a pair that begins after it would be
        first = last = number
        lo = hi = at
        if at and pairs[at - 1][1] >= number - 1:
            first, before = pairs[at - 1]
            if before >= number:
                return self
            lo -= 1
        if at < len(pairs) and pairs[at][0] == number + 1:
            last = pairs[at][1]
            hi += 1
        return Ranges._of((*pairs[:lo], (first, last), *pairs[hi:]))

    def minus(self, number: int) -> Ranges:
        """Without one number."""
        pairs = self.pairs
        at = bisect_right(pairs, (number, NUMBER_MAX + 1)) - 1
        if at < 0 or pairs[at][1] < number:
            return self
        first, last = pairs[at]
        left = ((first, number - 1),) if first < number else ()
        right = ((number + 1, last),) if number < last else ()
        return Ranges._of(pairs[:at] + left + right + pairs[at + 1 :])

    def __contains__(self, number: int) -> bool:
        at = bisect_right(self.pairs, (number, NUMBER_MAX + 1)) - 1
        return at >= 0 and self.pairs[at][1] >= number

    def covers(self, first: int, last: int) -> bool:
        """Whether every number from `first` to `last` is in the set (true for none)."""
        if first > last:
            return True
        at = bisect_right(self.pairs, (first, NUMBER_MAX + 1)) - 1
        return at >= 0 and self.pairs[at][1] >= last

    def __le__(self, other: Ranges) -> bool:
        return all(other.covers(first, last) for first, last in self.pairs)

    def __iter__(self) -> Iterator[int]:
        for first, last in self.pairs:
            yield from range(first, last + 1)

    def __len__(self) -> int:
        return sum(last - first + 1 for first, last in self.pairs)

    def __bool__(self) -> bool:
        return bool(self.pairs)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ranges) and self.pairs == other.pairs

    def __hash__(self) -> int:
        return hash(self.pairs)

    @property
    def last(self) -> int:
        """The largest number, 0 for the empty set."""
        return self.pairs[-1][1] if self.pairs else 0

    def head(self, count: int) -> Ranges:
        """The smallest `count` numbers (none if that is not positive)."""
        left = count
        out: list[Pair] = []
        for first, last in self.pairs:
            if left <= 0:
                break
            taken = min(left, last - first + 1)
            out.append((first, first + taken - 1))
            left -= taken
        return Ranges._of(tuple(out))

    def tail(self, count: int) -> Ranges:
        """The largest `count` numbers (none if that is not positive)."""
        left = count
        out: list[Pair] = []
        for first, last in reversed(self.pairs):
            if left <= 0:
                break
            taken = min(left, last - first + 1)
            out.append((last - taken + 1, last))
            left -= taken
        return Ranges._of(tuple(out[::-1]))

    def __str__(self) -> str:
        return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in self.pairs) or "none"

    def __repr__(self) -> str:
        return f"Ranges({str(self)!r})"

    def to_wire(self) -> list[int]:
        """`[first, last, first, last, ...]`, ascending."""
        return [number for pair in self.pairs for number in pair]


def ranges_from_wire(value: object, field: str) -> Ranges:
    """Read what `Ranges.to_wire` wrote.

    Raises RemoteError naming `field` unless it is a list of at most 2 * RANGES_MAX whole numbers from 1 to NUMBER_MAX,
    in pairs, ascending, with a gap between one pair and the next.
    """
    if type(value) is not list or len(value) % 2 or len(value) > 2 * RANGES_MAX:
        raise RemoteError(field, say("is not a list of at most {most} ranges", most=RANGES_MAX))
    pairs: list[Pair] = []
    before = -1
    for at in range(0, len(value), 2):
        first, last = value[at], value[at + 1]
        if type(first) is not int or type(last) is not int:
            raise RemoteError(field, "has a range that is not of whole numbers")
        if not (max(1, before + 2) <= first <= last <= NUMBER_MAX):
            wrong = say("has the range {first}-{last} out of order or out of bounds", first=first, last=last)
            raise RemoteError(field, wrong)
        pairs.append((first, last))
        before = last
    return Ranges._of(tuple(pairs))


NONE = Ranges()

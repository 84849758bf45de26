"""Ranges against Python's own sets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshnode.core.errors import RemoteError
from meshnode.core.fields import pack, unpack
from meshnode.core.intervals import NONE, Ranges, ranges_from_wire
from meshnode.core.limits import NUMBER_MAX, RANGES_MAX

#: Few numbers, so that ranges touch, overlap and fill gaps all the time.
numbers = st.integers(1, 40)
sets = st.sets(numbers, max_size=25)
pairs = st.lists(st.tuples(numbers, numbers), max_size=8)

#: Anything that a frame can carry where ranges should stand.
anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=4)
    | st.binary(max_size=4),
    lambda inner: st.lists(inner, max_size=6),
    max_leaves=12,
)


def check(ranges: Ranges, expected: set[int]) -> None:
    assert list(ranges) == sorted(expected)
    assert ranges == Ranges.of(expected)
    assert hash(ranges) == hash(Ranges.of(expected))
    assert len(ranges) == len(expected)
    assert bool(ranges) == bool(expected)
    assert ranges.last == max(expected, default=0)
    for (_, before), (first, last) in zip(ranges.pairs, ranges.pairs[1:], strict=False):
        assert before + 1 < first <= last, "pairs overlap or touch"


@given(pairs)
def test_the_union_of_any_pairs(some: list[tuple[int, int]]) -> None:
    check(Ranges(some), {n for first, last in some for n in range(first, last + 1)})


@given(sets)
def test_made_of_numbers(some: set[int]) -> None:
    check(Ranges.of(some), some)
    check(Ranges.of([*some, *some]), some)


@given(numbers, numbers)
def test_single_and_span(first: int, last: int) -> None:
    check(Ranges.single(first), {first})
    check(Ranges.span(first, last), set(range(first, last + 1)))


@given(sets, sets)
def test_operators(one: set[int], other: set[int]) -> None:
    a, b = Ranges.of(one), Ranges.of(other)
    check(a | b, one | other)
    check(a & b, one & other)
    check(a - b, one - other)
    assert (a <= b) == (one <= other)
    assert (a == b) == (one == other)
    check(a, one)
    check(b, other)


@given(sets, numbers)
def test_one_more_or_less(some: set[int], number: int) -> None:
    check(Ranges.of(some).plus(number), some | {number})
    check(Ranges.of(some).minus(number), some - {number})


@given(sets, sets, sets)
def test_operators_in_a_row(one: set[int], two: set[int], three: set[int]) -> None:
    check((Ranges.of(one) | Ranges.of(two)) - Ranges.of(three), (one | two) - three)
    check((Ranges.of(one) - Ranges.of(two)) & Ranges.of(three), (one - two) & three)


@given(sets, st.integers(0, 45))
def test_contains(some: set[int], number: int) -> None:
    assert (number in Ranges.of(some)) == (number in some)


@given(sets, st.integers(0, 45), st.integers(0, 45))
def test_covers(some: set[int], first: int, last: int) -> None:
    assert Ranges.of(some).covers(first, last) == (set(range(first, last + 1)) <= some)


@given(sets, st.integers(-3, 30))
def test_head(some: set[int], count: int) -> None:
    check(Ranges.of(some).head(count), set(sorted(some)[: max(0, count)]))


@given(sets, st.integers(-3, 30))
def test_tail(some: set[int], count: int) -> None:
    check(Ranges.of(some).tail(count), set(sorted(some)[-count:] if count > 0 else []))


def test_a_million_numbers_are_one_pair() -> None:
    many = Ranges.span(1, 1_000_000)
    assert many.pairs == ((1, 1_000_000),)
    assert len(many - Ranges.single(500_000)) == 999_999
    assert NUMBER_MAX in Ranges.span(1, NUMBER_MAX)
    assert NUMBER_MAX + 1 not in Ranges.span(1, NUMBER_MAX)
    assert len(Ranges.span(1, NUMBER_MAX)) == NUMBER_MAX


@given(sets)
def test_reads_as_people_write_it(some: set[int]) -> None:
    text = str(Ranges.of(some))
    parts = [] if text == "none" else [part.split("-") for part in text.split(", ")]
    check(Ranges((int(part[0]), int(part[-1])) for part in parts), some)
    assert text in repr(Ranges.of(some))


def test_not_equal_to_other_things() -> None:
    assert NONE != ()
    assert not NONE


# --- the wire ---------------------------------------------------------------------------------------------------


@given(sets)
def test_wire_round_trip(some: set[int]) -> None:
    wire = unpack(pack(Ranges.of(some).to_wire()), "ranges")
    check(ranges_from_wire(wire, "ranges"), some)


@given(st.lists(st.integers(-2, 12), max_size=6) | anything)
def test_any_value_is_ranges_or_refused(value: object) -> None:
    try:
        ranges = ranges_from_wire(value, "HAVE.journals[3].ranges")
    except RemoteError as problem:
        assert str(problem).startswith("HAVE.journals[3].ranges ")  # noqa: PT017 - most are refused, some are not
    else:
        assert ranges.to_wire() == value, "there is one way to write a set"
        assert Ranges(ranges.pairs).pairs == ranges.pairs


@pytest.mark.parametrize(
    "value",
    [
        [1],
        [1, 2, 3],
        [0, 5],
        [5, 4],
        [1, 2, 3, 4],  # touch: 1-4
        [1, 5, 4, 8],
        [7, 8, 1, 2],
        [1, NUMBER_MAX + 1],
        [1, 2**64 - 1],
        [-5, -3],
        [True, True],
        [1.0, 2.0],
        [b"1", b"2"],
        [None, None],
        {},
        None,
        "1-5",
        [n for at in range(RANGES_MAX + 1) for n in (3 * at + 1, 3 * at + 1)],
    ],
)
def test_refused(value: object) -> None:
    with pytest.raises(RemoteError, match="field "):
        ranges_from_wire(value, "field")


def test_as_many_ranges_as_there_may_be() -> None:
    wire = [n for at in range(RANGES_MAX) for n in (3 * at + 1, 3 * at + 1)]
    assert ranges_from_wire(wire, "field").to_wire() == wire

"""Which messages are whole, which numbers contradict each other, what is missing, and who was restored."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshnode.core.bundle import Previous
from meshnode.core.identity import DeviceId, JournalId
from meshnode.core.intervals import NONE, Pair, Ranges
from meshnode.core.ledger import Journal
from meshnode.core.rows import Entry
from meshnode.office.reassembly import Restored, gaps, inconsistent, restored_devices, whole_messages

JOURNAL = JournalId(b"journal-of-siti-")
SITI, BUDI = DeviceId(b"s" * 16), DeviceId(b"b" * 16)


def journal_of(claims: dict[int, Pair], receipted: Ranges = NONE) -> Journal:
    """A journal that holds these numbers, each with the (first, last) that it claims."""
    journal = Journal(JOURNAL, SITI, receipted=receipted)
    for number, (first, last) in claims.items():
        journal.entries[number] = Entry(1000, 1, first, last - first + 1, 0.0, 3600)
    journal.held = Ranges.of(claims)
    return journal


def honest(spans: Iterable[Pair], numbers: Iterable[int], receipted: Ranges = NONE) -> Journal:
    of = {number: span for span in spans for number in range(span[0], span[1] + 1)}
    return journal_of({number: of[number] for number in numbers}, receipted)


@st.composite
def arrivals(draw: st.DrawFn) -> tuple[list[Pair], list[int], set[Pair], set[Pair]]:
    """(all messages, numbers that are here, messages that are receipted, messages to skip)."""
    sizes = draw(st.lists(st.integers(1, 4), min_size=1, max_size=8))
    spans, first = [], 1
    for size in sizes:
        spans.append((first, first + size - 1))
        first += size
    here = draw(st.lists(st.integers(1, first - 1), unique=True))
    receipted = draw(st.sets(st.sampled_from(spans)))
    skip = draw(st.sets(st.sampled_from(spans)))
    return spans, here, receipted, skip


@given(arrivals())
def test_what_is_whole_is_found_and_nothing_else(
    drawn: tuple[list[Pair], list[int], set[Pair], set[Pair]],
) -> None:
    spans, here, receipted, skip = drawn
    journal = honest(spans, here, Ranges(receipted))
    expected = [
        (first, last)
        for first, last in spans
        if set(range(first, last + 1)) <= set(here) and (first, last) not in receipted | skip
    ]
    assert whole_messages(journal, Ranges(skip)) == expected
    assert inconsistent(journal) == NONE


@given(
    st.dictionaries(
        st.integers(1, 12),
        st.tuples(st.integers(0, 3), st.integers(0, 3)),
    ),
    st.sets(st.integers(1, 12)),
)
def test_numbers_that_contradict_each_other_never_become_a_message(
    reaches: dict[int, tuple[int, int]], receipted: set[int]
) -> None:
    claims = {number: (max(1, number - back), number + on) for number, (back, on) in reaches.items()}
    journal = journal_of(claims, Ranges.of(receipted))
    offered = {number: claim for number, claim in claims.items() if number not in receipted}

    def contradicted(claim: Pair) -> bool:
        span = set(range(claim[0], claim[1] + 1))
        others = (other for other in offered.values() if other != claim)
        return bool(span & receipted) or any(span & set(range(a, b + 1)) for a, b in others)

    bad = {number for number, claim in offered.items() if contradicted(claim)}
    assert set(inconsistent(journal)) == bad
    for first, last in whole_messages(journal):
        assert all(claims[number] == (first, last) for number in range(first, last + 1))
        assert not bad & set(range(first, last + 1))


def test_a_part_that_claims_another_message_poisons_both_but_not_their_neighbours() -> None:
    journal = journal_of({1: (1, 1), 2: (2, 4), 3: (3, 3), 4: (2, 4), 5: (5, 5)})
    assert whole_messages(journal) == [(1, 1), (5, 5)]
    assert inconsistent(journal) == Ranges.span(2, 4)


def test_a_message_that_reaches_into_what_is_receipted_contradicts_the_receipt() -> None:
    journal = journal_of({1: (1, 3), 3: (1, 3)}, receipted=Ranges.single(2))
    assert whole_messages(journal) == []
    assert inconsistent(journal) == Ranges.of([1, 3])


def test_own_bundles_that_are_kept_after_their_receipt_are_not_delivered_again() -> None:
    journal = honest([(1, 2), (3, 3)], [1, 2, 3], receipted=Ranges.span(1, 2))
    assert whole_messages(journal) == [(3, 3)]


@pytest.mark.parametrize(
    ("journal", "last", "missing"),
    [
        (journal_of({}), 0, NONE),
        (journal_of({14: (14, 14)}, Ranges.span(1, 12)), 0, Ranges.single(13)),
        (journal_of({2: (2, 4)}, Ranges.single(1)), 0, Ranges.span(3, 4)),
        (journal_of({}, Ranges.span(1, 5)), 8, Ranges.span(6, 8)),
        (journal_of({3: (3, 3)}), 2, Ranges.span(1, 2)),
    ],
    ids=["unknown", "hole", "rest-of-message", "tail", "beyond-the-tail"],
)
def test_gaps_are_what_exists_and_has_not_come(journal: Journal, last: int, missing: Ranges) -> None:
    assert gaps(journal, last) == missing


def test_two_journals_after_the_same_one_mean_a_restored_device() -> None:
    a, b, c, d = (JournalId(letter * 16) for letter in (b"a", b"b", b"c", b"d"))
    claims = [
        (c, SITI, Previous(a, 7)),
        (b, SITI, Previous(a, 9)),
        (d, SITI, Previous(b, 2)),
        (d, BUDI, Previous(a, 7)),  # names a journal that is not its own: a claim of Budi's, not of Siti's
    ]
    assert list(restored_devices(claims)) == [Restored(SITI, a, (b, c))]
    assert list(restored_devices(claims[1:])) == []
    assert list(restored_devices([claims[0], claims[0]])) == []  # the same journal seen twice

"""The order of sending, and what is discarded for whom."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshnode.core.bundle import ROUTINE, URGENT, Header
from meshnode.core.identity import DeviceId
from meshnode.core.intervals import Ranges
from meshnode.core.ledger import Journal, Ledger
from meshnode.core.limits import PAYLOAD_SIZE_MAX
from meshnode.core.routing import SendKey, claim, heaviest_source, send_key, to_displace
from meshnode.core.rows import Entry

ME = DeviceId(b"m" * 16)
SITI, AGUS, WATI = (DeviceId(letter * 16) for letter in (b"s", b"a", b"w"))


def header(source: DeviceId, epoch: bytes = b"e" * 8) -> Header:
    """A header of which only the journal matters."""
    return Header(source, b"o" * 16, b"k" * 8, epoch, 1, 1, 1, 1, 0, 60, None, 2000, b"h" * 32)


def message(
    first: int, parts: int = 1, *, size: int = 2000, priority: int = ROUTINE, born_s: float = 0.0
) -> dict[int, Entry]:
    """The entries of one message."""
    return {first + n: Entry(size, priority, first, parts, born_s, 60) for n in range(parts)}


def carry(ledger: Ledger, source: DeviceId, *messages: dict[int, Entry], epoch: bytes = b"e" * 8) -> Journal:
    """Let a ledger hold these messages of a source."""
    head = header(source, epoch)
    journal = ledger.open(head, head.journal)
    for entries in messages:
        ledger.add(journal, entries)
    return journal


def order(*parts: tuple[Journal, bool]) -> list[tuple[DeviceId | None, int]]:
    """(source, number) of everything in these journals (and whether revoked), as it would be sent."""
    keys: list[tuple[SendKey, DeviceId | None]] = []
    for journal, revoked in parts:
        for number, entry in journal.entries.items():
            keys.append((send_key(journal, number, entry, revoked=revoked), journal.source))
    return [(source, key[-1]) for key, source in sorted(keys, key=lambda pair: pair[0])]


# --- sending ----------------------------------------------------------------------------------------------------


def test_urgent_first_then_small_then_old() -> None:
    journal = carry(
        Ledger(ME),
        SITI,
        message(1, 3, size=PAYLOAD_SIZE_MAX),
        message(4, size=5000, born_s=2.0),
        message(5, size=5000, born_s=1.0),
        message(6, size=1500, born_s=9.0),
        message(7, 2, size=PAYLOAD_SIZE_MAX, priority=URGENT, born_s=9.0),
    )
    assert [number for _, number in order((journal, False))] == [7, 8, 6, 5, 4, 1, 2, 3]


def test_what_a_revoked_device_signed_goes_last_however_urgent() -> None:
    ledger = Ledger(ME)
    revoked = carry(ledger, SITI, message(1, priority=URGENT))
    trusted = carry(ledger, AGUS, message(1, 2, size=PAYLOAD_SIZE_MAX, born_s=9.0))
    assert order((revoked, True), (trusted, False)) == [(AGUS, 1), (AGUS, 2), (SITI, 1)]


@given(
    st.lists(st.tuples(st.integers(1, 4), st.sampled_from([0.0, 1.0])), min_size=1, max_size=5),
    st.data(),
)
def test_parts_stay_together_and_in_order(messages: list[tuple[int, float]], data: st.DataObject) -> None:
    """Whatever the ages, which a carrier knows to a second at best and differently for each part."""
    ledger = Ledger(ME)
    journals = []
    for source in (SITI, AGUS):
        first = 1
        entries = []
        for parts, born_s in messages:
            entries.append(
                {
                    first + n: Entry(
                        PAYLOAD_SIZE_MAX, 1, first, parts, born_s + data.draw(st.floats(0, 2)), 60
                    )
                    for n in range(parts)
                }
            )
            first += parts
        journals.append(carry(ledger, source, *entries))
    sent = order(*((journal, False) for journal in journals))
    at = 0
    while at < len(sent):
        sender, number = sent[at]
        entry = next(j for j in journals if j.source == sender).entries[number]
        assert number == entry.first, "a message begins with its first part"
        assert sent[at : at + entry.parts] == [(sender, number + n) for n in range(entry.parts)]
        at += entry.parts


# --- room -------------------------------------------------------------------------------------------------------


def test_the_heaviest_source() -> None:
    ledger = Ledger(ME)
    assert heaviest_source(ledger) == (None, 0)
    carry(ledger, SITI, message(1, size=3000))
    carry(ledger, AGUS, message(1, size=2000), epoch=b"1" * 8)
    assert heaviest_source(ledger) == (SITI, 3000)
    carry(ledger, AGUS, message(1, size=2000), epoch=b"2" * 8)
    assert heaviest_source(ledger) == (AGUS, 4000)
    carry(ledger, ME, message(1, size=9000))
    assert heaviest_source(ledger) == (AGUS, 4000), "what is mine does not count"


def test_a_light_source_may_displace_a_heavy_one_and_not_the_other_way_round() -> None:
    ledger = Ledger(ME)
    carry(ledger, SITI, message(1, size=9000))
    carry(ledger, AGUS, message(1, size=1000))
    assert claim(ledger, AGUS, 0) == 4000
    assert claim(ledger, WATI, 0) == 4500
    assert claim(ledger, SITI, 0) == 0
    assert claim(ledger, SITI, 700) == 700
    assert claim(ledger, SITI, -700) == 0
    assert claim(ledger, AGUS, 700) == 4700


def test_equal_sources_displace_nothing_of_each_other() -> None:
    ledger = Ledger(ME)
    carry(ledger, SITI, message(1, size=5000))
    carry(ledger, AGUS, message(1, size=5000))
    assert claim(ledger, SITI, 0) == claim(ledger, AGUS, 0) == 0


@given(st.lists(st.tuples(st.sampled_from([SITI, AGUS, WATI]), st.integers(1200, 9000)), max_size=60))
def test_nobody_is_pushed_out(arrivals: list[tuple[DeviceId, int]]) -> None:
    """Filled to the brim in any order, a source is displaced only while it has more than the one that comes."""
    quota = 30_000
    ledger = Ledger(ME)
    journals = {source: carry(ledger, source) for source in (SITI, AGUS, WATI)}
    for number, (source, size) in enumerate(arrivals, 1):
        room = quota - ledger.foreign_size
        if claim(ledger, source, room) < size:
            continue
        if room < size:
            for victim, ranges in list(to_displace(ledger, size - room)):
                assert victim.source is not None
                before = ledger.foreign_bytes[victim.source]
                assert before > ledger.foreign_bytes.get(source, 0)
                ledger.drop(victim, ranges)
        if quota - ledger.foreign_size >= size:
            ledger.add(journals[source], message(number, size=size))
        assert ledger.foreign_size <= quota


def displaced(ledger: Ledger, needed: int) -> list[tuple[DeviceId | None, Ranges]]:
    """What would go."""
    return [(journal.source, ranges) for journal, ranges in to_displace(ledger, needed)]


def test_whole_messages_go_largest_and_newest_first() -> None:
    ledger = Ledger(ME)
    carry(ledger, AGUS, message(1))
    carry(
        ledger,
        SITI,
        message(1, born_s=1.0),
        message(2, 2, born_s=1.0),
        message(4, 2, born_s=2.0),
        message(6, born_s=2.0),
    )
    assert displaced(ledger, 1) == [(SITI, Ranges.span(4, 5))]
    assert displaced(ledger, 4001) == [(SITI, Ranges.span(4, 5)), (SITI, Ranges.span(2, 3))]
    assert displaced(ledger, 8001) == [
        (SITI, Ranges.span(4, 5)),
        (SITI, Ranges.span(2, 3)),
        (SITI, Ranges.single(6)),
    ]
    assert displaced(ledger, 0) == []


def test_a_message_of_which_the_beginning_is_not_here_counts_once() -> None:
    ledger = Ledger(ME)
    tail = message(1, 4)
    del tail[1]
    carry(ledger, SITI, tail, message(5))
    assert displaced(ledger, 6000) == [(SITI, Ranges.span(2, 4))]
    assert displaced(ledger, 6001) == [(SITI, Ranges.span(2, 4)), (SITI, Ranges.single(5))]


@pytest.mark.parametrize("needed", [1, 10**9])
def test_own_bundles_never_go(needed: int) -> None:
    ledger = Ledger(ME, frozenset({b"h" * 16}))
    carry(ledger, ME, message(1, size=10**6))
    for_me = Header(AGUS, b"h" * 16, b"k" * 8, b"e" * 8, 1, 1, 1, 1, 0, 60, None, 2000, b"h" * 32)
    ledger.add(ledger.open(for_me, for_me.journal), message(1, size=10**6))
    assert displaced(ledger, needed) == []
    carry(ledger, SITI, message(1, size=2000))
    assert displaced(ledger, needed) == [(SITI, Ranges.single(1))]

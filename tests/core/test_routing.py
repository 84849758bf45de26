"""The order of sending, and what is discarded for whom."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshnode.core.bundle import ROUTINE, URGENT, Header
from meshnode.core.holders import Holders
from meshnode.core.identity import DeviceId, JournalId
from meshnode.core.intervals import NONE, Ranges
from meshnode.core.ledger import Journal, Ledger
from meshnode.core.limits import AWAY_S_MAX, MESSAGE_SIZE_MAX, PAYLOAD_SIZE_MAX
from meshnode.core.routing import (
    ARRIVED,
    Candidate,
    Order,
    better_placed,
    claim,
    copies_of,
    gain,
    heaviest_source,
    most_copies,
    to_displace,
)
from meshnode.core.rows import Entry

ME = DeviceId(b"m" * 16)
SITI, AGUS, WATI, BUDI = (DeviceId(letter * 16) for letter in (b"s", b"a", b"w", b"b"))


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


NOW_S = 50_400.0
HOUR_S = 3600.0


def order_to(
    peer_s: float = 0.0,
    own_s: float = AWAY_S_MAX,
    *,
    told: dict[DeviceId, float] | None = None,
    holders: Holders | None = None,
    offers: dict[JournalId, Ranges] | None = None,
    revoked: frozenset[DeviceId] = frozenset(),
    now_s: float = NOW_S,
) -> Order:
    """An order of sending to Wati, who is `peer_s` from an office; this node is `own_s`."""
    numbers = told or {}

    def told_s(device: DeviceId) -> float:
        return numbers.get(device, AWAY_S_MAX)

    holders = holders or Holders(told_s)
    return Order(WATI, (), peer_s, own_s, offers or {}, holders, told_s, revoked, now_s)


def sent(order: Order, *journals: Journal) -> list[tuple[DeviceId | None, int]]:
    """(source, number) of everything in these journals, as it would be sent."""
    messages = {
        order.of_message(journal, entry): (journal, entry)
        for journal in journals
        for entry in journal.entries.values()
    }
    found: list[tuple[DeviceId | None, int]] = []
    for key in sorted(messages):
        journal, entry = messages[key]
        span = range(entry.first, entry.first + entry.parts)
        numbers = [number for number in span if number in journal.entries]
        found.extend((journal.source, number) for number in order.of_parts(journal, entry.first, numbers))
    return found


def numbers(order: Order, journal: Journal) -> list[int]:
    """As `sent`, of one journal."""
    return [number for _, number in sent(order, journal)]


# --- sending: what always holds ---------------------------------------------------------------------------------


def test_to_an_office_urgent_first_then_small_then_old() -> None:
    journal = carry(
        Ledger(ME),
        SITI,
        message(1, 3, size=PAYLOAD_SIZE_MAX),
        message(4, size=5000, born_s=2.0),
        message(5, size=5000, born_s=1.0),
        message(6, size=1500, born_s=9.0),
        message(7, 2, size=PAYLOAD_SIZE_MAX, priority=URGENT, born_s=9.0),
    )
    assert numbers(order_to(0.0), journal) == [7, 8, 6, 5, 4, 1, 2, 3]


def test_before_anything_is_learned_it_is_the_same() -> None:
    journal = carry(Ledger(ME), SITI, message(1, size=9000), message(2, size=2000), message(3, size=5000))
    assert numbers(order_to(AWAY_S_MAX), journal) == [2, 3, 1]


def test_what_a_revoked_device_signed_goes_last_however_urgent() -> None:
    ledger = Ledger(ME)
    revoked = carry(ledger, SITI, message(1, priority=URGENT))
    trusted = carry(ledger, AGUS, message(1, 2, size=PAYLOAD_SIZE_MAX, born_s=9.0))
    assert sent(order_to(revoked=frozenset({SITI})), revoked, trusted) == [(AGUS, 1), (AGUS, 2), (SITI, 1)]


@given(
    st.lists(st.tuples(st.integers(1, 4), st.sampled_from([0.0, 1.0])), min_size=1, max_size=5),
    st.floats(0, AWAY_S_MAX),
    st.floats(0, AWAY_S_MAX),
    st.data(),
)
def test_parts_stay_together(
    messages: list[tuple[int, float]], peer_s: float, own_s: float, data: st.DataObject
) -> None:
    """Whatever the ages, which a carrier knows to a second at best and differently for each part."""
    ledger = Ledger(ME)
    journals = []
    for source in (SITI, AGUS):
        first = 1
        entries = []
        for parts, born_s in messages:
            ages = [born_s + data.draw(st.floats(0, 2)) for _ in range(parts)]
            entries.append(
                {first + n: Entry(PAYLOAD_SIZE_MAX, 1, first, parts, age, 60) for n, age in enumerate(ages)}
            )
            first += parts
        journals.append(carry(ledger, source, *entries))
    at, all_sent = 0, sent(order_to(peer_s, own_s), *journals)
    assert len(all_sent) == sum(len(journal.entries) for journal in journals)
    while at < len(all_sent):
        sender, number = all_sent[at]
        entry = next(j for j in journals if j.source == sender).entries[number]
        whole = {(sender, entry.first + n) for n in range(entry.parts)}
        assert set(all_sent[at : at + entry.parts]) == whole
        at += entry.parts


@given(
    st.builds(
        Candidate,
        st.integers(1, 2**28),
        st.floats(0, AWAY_S_MAX),
        st.floats(0, AWAY_S_MAX),
        st.lists(st.floats(0, AWAY_S_MAX), max_size=8).map(tuple),
        st.floats(0, 10**9),
    )
)
def test_what_a_message_is_worth_can_be_told(candidate: Candidate) -> None:
    """Finite and not negative, as NEXT carries it."""
    assert 0 <= gain(candidate) < inf


# --- sending: gain ----------------------------------------------------------------------------------------------


def worth(
    size: int = 1000,
    peer_h: float = 10.0,
    own_h: float = 40.0,
    others_h: tuple[float, ...] = (),
    age_h: float = 0.0,
) -> float:
    """What a message is worth, all times in hours."""
    others_s = tuple(each * HOUR_S for each in others_h)
    return gain(Candidate(size, peer_h * HOUR_S, own_h * HOUR_S, others_s, age_h * HOUR_S))


def test_the_delay_that_one_more_copy_saves() -> None:
    """40 hours alone; 1 / (1/40 + 1/10) = 8 with a copy at the peer."""
    assert worth(1000) == pytest.approx((40 - 8) * HOUR_S / 1000)
    assert worth(500) == pytest.approx(2 * worth(1000))


def test_a_copy_is_worth_less_where_others_are_and_least_where_they_are_near() -> None:
    assert worth() > worth(others_h=(80.0,)) > worth(others_h=(20.0,)) > worth(others_h=(20.0, 20.0)) > 0


def test_a_nearer_peer_gains_more() -> None:
    assert worth(peer_h=1.0) > worth(peer_h=10.0) > worth(peer_h=100.0) > 0


def test_who_is_said_to_be_near_and_does_not_deliver_is_believed_less_and_less() -> None:
    """An hour away, as it says; after four days it cannot be."""
    ratio_new = worth(others_h=(1.0,)) / worth()
    ratio_old = worth(others_h=(1.0,), age_h=96.0) / worth(age_h=96.0)
    assert ratio_new < 0.05
    assert ratio_old > 0.4


def test_nothing_starves() -> None:
    """Of the largest message there is, which somebody has said to hold next to the office, against small new ones."""
    day_h = 24.0
    starved = worth(MESSAGE_SIZE_MAX, others_h=(0.0,), age_h=day_h)
    assert starved < worth(2_000_000)
    assert worth(MESSAGE_SIZE_MAX, others_h=(0.0,), age_h=30 * day_h) > starved
    assert worth(2_000_000, others_h=(0.0,), age_h=30 * day_h) > worth(2_000_000)


def test_those_that_others_hold_go_last() -> None:
    journal = carry(Ledger(ME), SITI, message(1, size=2000), message(2, size=2100))
    holders = Holders(lambda device: HOUR_S)
    holders.see(journal.id, AGUS, Ranges.single(1))
    order = order_to(10 * HOUR_S, 40 * HOUR_S, told={AGUS: HOUR_S}, holders=holders)
    assert numbers(order, journal) == [2, 1]
    assert numbers(order_to(10 * HOUR_S, 40 * HOUR_S), journal) == [1, 2]
    peers_own = replace(order, peer=AGUS)
    assert numbers(peers_own, journal) == [1, 2], "what the peer itself holds is no reason"


def test_a_message_near_completion_goes_first() -> None:
    size = PAYLOAD_SIZE_MAX
    journal = carry(Ledger(ME), SITI, message(1, 2, size=size), message(3, 4, size=size))
    assert numbers(order_to(), journal)[0] == 1
    nearly = order_to(offers={journal.id: Ranges.span(3, 5)})
    assert numbers(nearly, journal)[0] == 3


def test_what_cannot_become_whole_from_here_goes_after_all_that_can() -> None:
    half = message(1, 2, size=2000)
    del half[2]
    journal = carry(Ledger(ME), SITI, half, message(3, 2))
    assert numbers(order_to(), journal) == [3, 4, 1]
    assert numbers(order_to(offers={journal.id: Ranges.single(2)}), journal) == [1, 3, 4], "the rest is there"


def test_rare_parts_first() -> None:
    journal = carry(Ledger(ME), SITI, message(1, 6, size=PAYLOAD_SIZE_MAX))
    holders = Holders(lambda device: HOUR_S)
    holders.see(journal.id, AGUS, Ranges.span(1, 3))
    holders.hear(journal.id, BUDI, Ranges.span(3, 4))
    found = numbers(order_to(10 * HOUR_S, 40 * HOUR_S, holders=holders), journal)
    assert set(found[:2]) == {5, 6}
    assert set(found[2:5]) == {1, 2, 4}


def test_two_carriers_that_know_nothing_of_each_other_begin_elsewhere() -> None:
    """Of fifty devices hardly any two begin at the same part of a hundred."""
    journal = carry(Ledger(ME), SITI, message(1, 100, size=PAYLOAD_SIZE_MAX))
    order = order_to(10 * HOUR_S, 40 * HOUR_S)
    devices = [DeviceId(hashlib.sha256(bytes([n])).digest()[:16]) for n in range(50)]
    begun = {numbers(replace(order, peer=device), journal)[0] for device in devices}
    assert len(begun) > 30


def test_a_message_to_the_peer_itself_is_delivered_like_at_an_office() -> None:
    ledger = Ledger(ME)
    to_wati = Header(AGUS, bytes(WATI), b"k" * 8, b"e" * 8, 1, 1, 1, 1, 0, 60, None, 2000, b"h" * 32)
    for_her = ledger.open(to_wati, to_wati.journal)
    ledger.add(for_her, message(1, size=2000))
    order = replace(order_to(10 * HOUR_S, 40 * HOUR_S), devices={WATI, BUDI})
    arrives = order.of_message(for_her, for_her.entries[1])
    assert -arrives[0][1] == pytest.approx(gain(Candidate(2000, 0.0, 0.0, (), NOW_S)))
    elsewhere = replace(order, peer=BUDI).of_message(for_her, for_her.entries[1])
    assert -elsewhere[0][1] == pytest.approx(gain(Candidate(2000, 40 * HOUR_S, 40 * HOUR_S, (), NOW_S)))


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
            for victim, ranges in to_displace(ledger, Holders(lambda _: 0.0), size - room):
                assert victim.source is not None
                before = ledger.foreign_bytes[victim.source]
                assert before > ledger.foreign_bytes.get(source, 0)
                ledger.drop(victim, ranges)
        if quota - ledger.foreign_size >= size:
            ledger.add(journals[source], message(number, size=size))
        assert ledger.foreign_size <= quota


def displaced(
    ledger: Ledger, needed: int, holders: Holders | None = None, copies_min: int = 0
) -> list[tuple[DeviceId | None, Ranges]]:
    """What would go."""
    found = to_displace(ledger, holders or Holders(lambda _: 0.0), needed, copies_min)
    return [(journal.source, ranges) for journal, ranges in found]


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


def test_the_most_widely_copied_go_first_and_what_has_arrived_before_them() -> None:
    ledger = Ledger(ME)
    journal = carry(ledger, SITI, *(message(number) for number in range(1, 6)), message(6, 2))
    holders = Holders(lambda _: 0.0)
    assert most_copies(ledger, holders) == 0
    holders.see(journal.id, AGUS, Ranges.span(2, 5))
    holders.see(journal.id, WATI, Ranges.span(3, 4))
    holders.hear(journal.id, BUDI, Ranges.span(1, 7))
    assert [copies_of(holders, journal.id, number) for number in range(1, 7)] == [0, 1, 2, 2, 1, 0]
    assert most_copies(ledger, holders) == 2, "what was only heard of does not count"
    assert {n for _, ranges in displaced(ledger, 4000, holders) for n in ranges} == {3, 4}
    assert displaced(ledger, 1, holders, copies_min=3) == []
    assert displaced(ledger, 4001, holders, copies_min=2) == [], "and nothing goes in vain"
    holders.see(journal.id, BUDI, Ranges.single(1), ends=True)
    assert most_copies(ledger, holders) == ARRIVED
    assert displaced(ledger, 1, holders, copies_min=ARRIVED) == [(SITI, Ranges.single(1))]


def test_what_is_better_placed_here() -> None:
    other = JournalId(b"o" * 16)
    holders = Holders(lambda _: 0.0)
    offered = Ranges.span(1, 9)
    holders.see(other, AGUS, offered)
    holders.see(other, WATI, Ranges.span(3, 4))
    holders.see(other, BUDI, Ranges.single(9), ends=True)
    assert better_placed(holders, other, offered, 2, farther=True) == Ranges([(1, 2), (5, 8)])
    assert better_placed(holders, other, offered, 3, farther=True) == Ranges.span(1, 8)
    assert better_placed(holders, other, offered, 1, farther=True) == NONE, (
        "one other holds them, as of what is here"
    )
    assert better_placed(holders, other, offered, 3, farther=False) == NONE
    assert better_placed(holders, other, offered, ARRIVED, farther=False) == Ranges.span(1, 8)
    assert better_placed(holders, other, offered, 0, farther=True) == NONE


@pytest.mark.parametrize("needed", [1, 10**9])
def test_own_bundles_never_go(needed: int) -> None:
    ledger = Ledger(ME, frozenset({b"h" * 16}))
    carry(ledger, ME, message(1, size=10**6))
    for_me = Header(AGUS, b"h" * 16, b"k" * 8, b"e" * 8, 1, 1, 1, 1, 0, 60, None, 2000, b"h" * 32)
    ledger.add(ledger.open(for_me, for_me.journal), message(1, size=10**6))
    assert displaced(ledger, needed) == []
    carry(ledger, SITI, message(1, size=2000))
    assert displaced(ledger, min(needed, 2000)) == [(SITI, Ranges.single(1))]

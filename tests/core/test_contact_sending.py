"""One contact: in which order things are sent, how far ahead, and what is asked for and taken back."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshnode.core.bundle import ROUTINE, URGENT
from meshnode.core.contact import Contact
from meshnode.core.errors import RemoteError
from meshnode.core.frames import (
    Cert,
    Ping,
    Want,
    Wanted,
    encode,
)
from meshnode.core.identity import DeviceId, JournalId
from meshnode.core.intervals import NONE, Ranges
from meshnode.core.ledger import Ledger
from meshnode.core.limits import (
    ASKED_AGAIN_MAX,
    ASKED_AGAIN_PER_S,
    KIB,
    NUMBER_MAX,
    PAYLOAD_SIZE_MAX,
    SEND_AHEAD_BYTES,
    SEND_AHEAD_FIRST_BYTES,
    SEND_AHEAD_S,
)
from meshnode.core.ports import SendBundle
from meshnode.core.receipt import Receipt
from meshnode.core.requests import PLACED_MAX
from meshnode.core.routing import Candidate
from meshnode.core.rows import Entry
from tests.core.contacts import (
    CERTIFICATES,
    FLEET,
    ME,
    ORDER,
    PLENTY,
    SOURCE,
    J,
    ask,
    carrying,
    contact,
    drain,
    frame,
    order_to,
    pump,
    sizes,
)


def test_sent_by_priority_and_size_whatever_order_they_were_asked_in() -> None:
    ledger, _ = carrying(
        (PAYLOAD_SIZE_MAX, ROUTINE, 2), (9000, ROUTINE, 1), (3000, ROUTINE, 1), (9000, URGENT, 1)
    )
    peer = contact()
    ask(peer, ledger, [1, 2, 3])
    ask(peer, ledger, [5, 4])
    assert drain(peer, ledger) == [5, 4, 3, 1, 2]


@given(
    st.lists(
        st.tuples(st.just(PAYLOAD_SIZE_MAX), st.integers(0, 1), st.integers(1, 5)), min_size=1, max_size=6
    ),
    st.integers(0, 3),
    st.data(),
)
def test_parts_of_a_message_stay_together(
    messages: list[tuple[int, int, int]], wants: int, data: st.DataObject
) -> None:
    """In however many pieces they were asked for, and whoever else holds some of them."""
    ledger, journal = carrying(*messages)
    others = [DeviceId(letter * 16) for letter in (b"x", b"y")]
    order = order_to(86_400.0, dict.fromkeys(others, 172_800.0))
    for other in others:
        order.holders.see(
            journal.id, other, Ranges.of(data.draw(st.sets(st.sampled_from(list(journal.held)))))
        )
    peer = contact()
    numbers = data.draw(st.permutations(list(journal.held)))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(numbers)), min_size=wants, max_size=wants)))
    for start, end in zip([0, *cuts], [*cuts, len(numbers)], strict=True):
        want = Want(PLENTY, (Wanted(journal.id, Ranges.of(numbers[start:end]), NONE, True),))
        peer.note_want(want, ledger, order)
    sent = drain(peer, ledger, order)
    assert sorted(sent) == sorted(numbers)
    firsts = [journal.entries[number].first for number in sent]
    changes = sum(before != after for before, after in pairwise(firsts))
    assert changes == len(messages) - 1


def test_of_equals_the_older_one_goes_first_whenever_they_were_asked_for() -> None:
    ledger, journal = carrying()
    for first, born_s in ((1, 100.0), (3, 101.0)):
        ledger.add(
            journal,
            {number: Entry(PAYLOAD_SIZE_MAX, ROUTINE, first, 2, born_s, 60) for number in (first, first + 1)},
        )
    peer = contact()
    for numbers, now_s in (([1, 2], 110.0), ([3, 4], 120.0)):
        want = Want(PLENTY, (Wanted(journal.id, Ranges.of(numbers), NONE, True),))
        peer.note_want(want, ledger, replace(ORDER, now_s=now_s))
    assert drain(peer, ledger, replace(ORDER, now_s=130.0)) == [1, 2, 3, 4]


def test_what_is_urgent_overtakes_what_is_queued_but_not_what_the_link_has() -> None:
    ledger, journal = carrying((PAYLOAD_SIZE_MAX, ROUTINE, 12))
    peer = contact()
    ask(peer, ledger, range(1, 13))
    assert pump(peer, ledger) == [1], "one, and not a byte more ahead"
    ledger.add(journal, {13: Entry(2000, URGENT, 13, 1, 0.0, 60)})
    ask(peer, ledger, [13])
    assert pump(peer, ledger) == []
    peer.note_sent(PAYLOAD_SIZE_MAX, 0.0)
    assert pump(peer, ledger) == [13, 2]


# --- sending ahead of the link ----------------------------------------------------------------------------------


def most_ahead(peer: Contact, ledger: Ledger, size: int, rate: float, began_s: float, until_s: float) -> int:
    """Send on a link of `rate` bytes a second; the most bytes that stood in it in the last second."""
    standing: deque[int] = deque()
    most, now_s = 0, began_s
    while now_s < until_s:
        standing.extend(pump(peer, ledger, now_s))
        if now_s > until_s - 1.0:
            most = max(most, len(standing) * size)
        standing.popleft()
        now_s += size / rate
        peer.note_sent(size, now_s)
    for _ in standing:
        peer.note_sent(size, now_s)
    return most


@pytest.mark.parametrize("size", [4000, 16 * KIB])
@pytest.mark.parametrize(
    ("rate", "ahead"),
    [
        (20e3, SEND_AHEAD_FIRST_BYTES),  # a bad radio link
        (1e6, SEND_AHEAD_S * 1e6),  # a usual one
        (4e6, SEND_AHEAD_S * 4e6),
        (20e6, SEND_AHEAD_BYTES),  # a cable
    ],
)
def test_a_link_is_given_what_it_sends_in_a_moment(rate: float, ahead: float, size: int) -> None:
    ledger, journal = carrying(*[(size, ROUTINE, 1)] * (int(2 * rate / size) + 500))
    peer = contact()
    ask(peer, ledger, journal.held, PLENTY)
    most = most_ahead(peer, ledger, size, rate, 0.0, 2.0)
    assert 0.9 * ahead <= most <= 1.1 * ahead + 2 * size


def test_a_link_that_slows_down_is_given_less() -> None:
    size = 4000
    ledger, journal = carrying(*[(size, ROUTINE, 1)] * 5000)
    peer = contact()
    ask(peer, ledger, journal.held, PLENTY)
    assert most_ahead(peer, ledger, size, 2e6, 0.0, 3.0) > 150_000
    assert most_ahead(peer, ledger, size, 40e3, 3.0, 20.0) <= SEND_AHEAD_FIRST_BYTES + size


# --- a place that changes ---------------------------------------------------------------------------------------

AGUS, SITI = DeviceId(b"x" * 16), DeviceId(b"y" * 16)
#: Agus is near an office, Siti is as far as the peer.
TOLD_S = {AGUS: 3600.0, SITI: 86_400.0}


def test_what_somebody_near_has_come_to_hold_meanwhile_is_sent_last() -> None:
    ledger, journal = carrying(*[(2000, ROUTINE, 1)] * 4)
    order = order_to(86_400.0, TOLD_S)
    peer = contact()
    peer.note_want(Want(PLENTY, (Wanted(journal.id, journal.held, NONE, True),)), ledger, order)
    order.holders.see(journal.id, SITI, Ranges.of([1]))
    order.holders.hear(journal.id, AGUS, Ranges.of([2]))
    assert drain(peer, ledger, order) == [3, 4, 1, 2]


def test_a_carrier_of_the_second_half_gives_way_as_well() -> None:
    """It does not hold the bundle that a message is named by."""
    ledger, journal = carrying((PAYLOAD_SIZE_MAX, ROUTINE, 2), (PAYLOAD_SIZE_MAX, ROUTINE, 2))
    ledger.drop(journal, Ranges.of([1, 3]))
    order = order_to(86_400.0, TOLD_S)
    peer = contact()
    peer.note_want(Want(PLENTY, (Wanted(journal.id, journal.held, NONE, True),)), ledger, order)
    order.holders.see(journal.id, AGUS, Ranges.of([1, 2]))
    assert drain(peer, ledger, order) == [4, 2]


def test_what_has_become_whole_meanwhile_is_sent_as_such() -> None:
    """Along a chain of nodes each part is asked for as it arrives."""
    ledger, journal = carrying((PAYLOAD_SIZE_MAX, ROUTINE, 2), (PAYLOAD_SIZE_MAX, ROUTINE, 3))
    second = {2: journal.entries[2]}
    ledger.drop(journal, Ranges.of([2]))
    peer = contact()
    ask(peer, ledger, [1, 3, 4, 5], 0)
    ledger.add(journal, second)
    ask(peer, ledger, [2], PLENTY)
    assert drain(peer, ledger) == [1, 2, 3, 4, 5]


holdings = st.tuples(st.sampled_from([AGUS, SITI]), st.sets(st.integers(1, 8)), st.booleans())


@given(st.integers(1, 8), st.lists(st.lists(holdings, max_size=3), max_size=8))
def test_each_time_the_one_worth_most_now(
    count: int, rounds: list[list[tuple[DeviceId, set[int], bool]]]
) -> None:
    """Others only ever come to hold more; after each bundle that is sent they have."""
    ledger, journal = carrying(*[(2000, ROUTINE, 1)] * count)
    order = order_to(86_400.0, TOLD_S)
    peer = contact()
    peer.note_want(Want(PLENTY, (Wanted(journal.id, journal.held, NONE, True),)), ledger, order)
    left = set(journal.held)
    rounds += [[]] * (count - len(rounds))
    peer._ahead_bytes = 1  # one at a time
    for changes in rounds[:count]:
        for device, numbers, is_seen in changes:
            known = dict(order.holders.of(journal.id)).get(device, NONE)
            note = order.holders.see if is_seen else order.holders.hear
            note(journal.id, device, known | Ranges.of(numbers))
        best = min(left, key=lambda number: order.of_message(journal, journal.entries[number]))
        assert pump(peer, ledger, order=order) == [best]
        peer.note_sent(2000, 0.0)
        left.remove(best)


def test_only_a_few_places_are_looked_up_again() -> None:
    """However many there are, and however many of them others have come to hold."""
    looked_up = 0

    def worth(message: Candidate) -> float:
        nonlocal looked_up
        looked_up += 1
        return 1 / (1 + len(message.others_away_s))

    ledger, journal = carrying(*[(2000, ROUTINE, 1)] * PLACED_MAX)
    order = replace(order_to(86_400.0, TOLD_S), worth=worth)
    peer = contact()
    peer.note_want(Want(PLENTY, (Wanted(journal.id, journal.held, NONE, True),)), ledger, order)
    assert looked_up == PLACED_MAX
    order.holders.see(journal.id, AGUS, Ranges.span(1, PLACED_MAX * 9 // 10))
    peer._ahead_bytes = 1
    looked_up = 0
    assert len(pump(peer, ledger, order=order)) == 1
    assert looked_up <= 20


def test_however_much_is_asked_for_an_event_gives_a_place_to_some_only() -> None:
    """A peer that lacks everything names it all in one frame; nobody else waits for that, and all of it goes."""
    ledger, journal = carrying(*[(2000, ROUTINE, 1)] * (3 * PLACED_MAX), (2000, URGENT, 1))
    peer = contact()
    ask(peer, ledger, journal.held)
    assert len(peer.requests) == len(journal.held)
    assert len(peer.requests._queue) == PLACED_MAX
    peer.note_want(Want(PLENTY, (Wanted(journal.id, NONE, Ranges.span(900, 1000), True),)), ledger, ORDER)
    assert len(peer.requests._queue) == 2 * PLACED_MAX
    sent = drain(peer, ledger)
    assert sorted(sent) == list(journal.held - Ranges.span(900, 1000))
    assert sent[0] == journal.held.last, "what is urgent goes as soon as it has a place"


# --- credit, and what is asked for and taken back ---------------------------------------------------------------


@given(
    st.lists(st.tuples(sizes, st.integers(0, 1), st.just(1)), min_size=1, max_size=30),
    st.lists(st.integers(0, 3 * PAYLOAD_SIZE_MAX), max_size=10),
)
def test_never_more_than_the_credit(messages: list[tuple[int, int, int]], grants: list[int]) -> None:
    ledger, journal = carrying(*messages)
    peer = contact()
    credit = sent = 0
    for grant in grants:
        credit += grant
        ask(peer, ledger, [] if sent else list(journal.held), credit)
        for number in drain(peer, ledger):
            sent += journal.entries[number].size
        assert sent <= credit
    ask(peer, ledger, [] if grants else list(journal.held), credit + len(messages) * PAYLOAD_SIZE_MAX)
    drain(peer, ledger)
    assert pump(peer, ledger) == []


def test_credit_is_never_taken_back() -> None:
    ledger, _ = carrying((2000, ROUTINE, 1), (2000, ROUTINE, 1))
    peer = contact()
    ask(peer, ledger, [1, 2], 4000)
    ask(peer, ledger, [], 2000)
    assert drain(peer, ledger) == [1, 2]


def test_what_is_no_longer_wanted_is_not_sent() -> None:
    ledger, journal = carrying(*[(2000, ROUTINE, 1)] * 6)
    peer = contact()
    ask(peer, ledger, range(1, 7), 0)
    peer.note_want(Want(0, (Wanted(journal.id, NONE, Ranges.of([2, 5]), True),)), ledger, ORDER)
    peer.note_want(Want(PLENTY, (Wanted(journal.id, Ranges.single(5), NONE, True),)), ledger, ORDER)
    assert drain(peer, ledger) == [1, 3, 4, 5, 6]
    assert peer.requests._queue == []


def test_what_is_not_here_any_more_or_delivered_is_not_sent() -> None:
    ledger, journal = carrying(*[(2000, ROUTINE, 1)] * 4, source=ME)
    peer = contact()
    ask(peer, ledger, [1, 2, 3, 4, 99], 0)
    ledger.forget_rotten(journal, 2)
    ledger.apply(Receipt(FLEET.endpoint, journal.id, 1, Ranges.single(3), 0, b"", b""), 0.0)
    assert journal.held == Ranges.of([1, 3, 4])
    ask(peer, ledger, [], PLENTY)
    assert drain(peer, ledger) == [1, 4]


def test_of_unknown_journals_nothing_is_sent() -> None:
    ledger, journal = carrying((2000, ROUTINE, 1))
    ledger.apply(Receipt(FLEET.endpoint, J, 1, NONE, 0, b"", b""), 0.0)
    peer = contact()
    rows = tuple(Wanted(j, Ranges.span(1, 9), NONE, True) for j in (J, JournalId(b"x" * 16), journal.id))
    peer.note_want(Want(PLENTY, rows), ledger, ORDER)
    (effect,) = peer.pump(ledger, CERTIFICATES, ORDER, 0.0)
    assert isinstance(effect, SendBundle)
    assert (effect.journal, effect.number) == (journal.id, 1)


def test_asked_twice_sent_once_and_asked_again_sent_again() -> None:
    ledger, _ = carrying((2000, ROUTINE, 1), (2000, ROUTINE, 1))
    peer = contact()
    ask(peer, ledger, [1, 2])
    ask(peer, ledger, [1, 2])
    assert drain(peer, ledger) == [1, 2]
    ask(peer, ledger, [2])
    assert drain(peer, ledger) == [2]


def test_the_certificate_of_a_source_comes_before_its_first_bundle() -> None:
    ledger, journal = carrying((2000, ROUTINE, 1), (2000, ROUTINE, 1))
    peer = contact()
    ask(peer, ledger, [1, 2], known=False)
    effects = list(peer.pump(ledger, CERTIFICATES, ORDER, 0.0))
    assert frame(effects[0]) == Cert(CERTIFICATES[SOURCE].der)
    assert [effect.number for effect in effects[1:] if isinstance(effect, SendBundle)] == [1, 2]
    assert journal.source == SOURCE


def test_no_certificate_for_whom_the_peer_knows() -> None:
    ledger, _ = carrying((2000, ROUTINE, 1))
    peer = contact()
    ask(peer, ledger, [1], known=True)
    assert [type(effect) for effect in peer.pump(ledger, CERTIFICATES, ORDER, 0.0)] == [SendBundle]


def test_age_is_the_time_since_birth() -> None:
    for born_s, age_s in ((100.0, 0), (87.1, 12), (105.0, 0)):
        ledger, journal = carrying((2000, ROUTINE, 1))
        journal.entries[1] = journal.entries[1]._replace(born_s=born_s)
        peer = contact()
        ask(peer, ledger, [1])
        (effect,) = peer.pump(ledger, CERTIFICATES, ORDER, 100.0)
        assert isinstance(effect, SendBundle)
        assert effect.age_s == age_s


def test_what_could_not_be_sent_costs_no_credit() -> None:
    """The receiver never sees it, so its count and ours would drift apart until nothing moves."""
    ledger, journal = carrying(*[(PAYLOAD_SIZE_MAX, ROUTINE, 1)] * 40)
    peer = contact()
    ask(peer, ledger, range(1, 41), 2 * PAYLOAD_SIZE_MAX)
    sent = 0
    for _ in range(40):
        for _ in pump(peer, ledger):
            peer.note_unsent(PAYLOAD_SIZE_MAX)
            sent += 1
    assert sent == 40
    ask(peer, ledger, list(journal.held), 2 * PAYLOAD_SIZE_MAX)
    assert drain(peer, ledger) == [1, 2]


def test_wanting_and_dropping_for_ever_costs_no_memory() -> None:
    ledger, journal = carrying(*[(2000, ROUTINE, 1)] * 100)
    peer = contact()
    everything = Ranges.span(1, NUMBER_MAX)
    for _ in range(50):
        for row in (Wanted(journal.id, everything, NONE, True), Wanted(journal.id, NONE, everything, True)):
            peer.note_want(Want(0, (row,)), ledger, ORDER)
    assert len(peer.requests._queue) <= 400
    ask(peer, ledger, [7, 3], PLENTY)
    assert drain(peer, ledger) == [3, 7]


@given(st.lists(st.tuples(st.booleans(), st.sets(st.integers(1, 9))), max_size=12), st.data())
def test_what_was_asked_for_last_and_not_taken_back_is_sent(
    wants: list[tuple[bool, set[int]]], data: st.DataObject
) -> None:
    """Three messages of three parts; some is sent in between."""
    ledger, journal = carrying(*[(PAYLOAD_SIZE_MAX, ROUTINE, 3)] * 3)
    peer = contact()
    wanted: set[int] = set()
    for asks, numbers in wants:
        ranges = Ranges.of(numbers)
        row = Wanted(journal.id, ranges, NONE, True) if asks else Wanted(journal.id, NONE, ranges, True)
        peer.note_want(Want(PLENTY, (row,)), ledger, ORDER)
        wanted = wanted | numbers if asks else wanted - numbers
        if data.draw(st.booleans()):
            sent = pump(peer, ledger)
            assert set(sent) <= wanted
            wanted -= set(sent)
            for _ in sent:
                peer.note_sent(PAYLOAD_SIZE_MAX, 0.0)
    assert sorted(drain(peer, ledger)) == sorted(wanted)
    assert (peer.requests._queue, peer.requests._messages) == ([], {})


def test_what_was_taken_back_is_swept_out_though_one_is_still_wanted() -> None:
    """Or each WANT of ten bytes would go through all of it."""
    ledger, journal = carrying(*[(2000, ROUTINE, 1)] * 2000)
    peer = contact()
    ask(peer, ledger, journal.held, 0)
    peer.note_want(Want(0, (Wanted(journal.id, NONE, Ranges.span(2, 2000), True),)), ledger, ORDER)
    assert len(peer.requests._queue) <= 300
    assert len(peer.requests._messages) == len(peer.requests._queue)
    ask(peer, ledger, [7], PLENTY)
    assert drain(peer, ledger) == [1, 7]


def test_asking_for_the_same_for_ever_is_the_peers_fault_and_now_and_then_is_none() -> None:
    count = 1000
    ledger, journal = carrying(*[(2000, ROUTINE, 1)] * count)
    slow, hasty = contact(), contact()
    everything = Want(0, (Wanted(journal.id, journal.held, NONE, True),))
    for at in range(3 * ASKED_AGAIN_MAX // count):
        list(slow.feed(encode(Ping()), at * count / ASKED_AGAIN_PER_S))
        slow.note_want(everything, ledger, ORDER)
    for _ in range(ASKED_AGAIN_MAX // count + 3):  # the first time, and twice all that there is
        hasty.note_want(everything, ledger, ORDER)
    with pytest.raises(RemoteError, match="WANT asks for the same again and again"):
        hasty.note_want(everything, ledger, ORDER)

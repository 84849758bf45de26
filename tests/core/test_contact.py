"""One contact: who is alive, what may be on its way, in which order things are sent, and who waits for whom."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshnode.core.bundle import ROUTINE, URGENT, Header
from meshnode.core.contact import Contact, first_ranges, have_frames, stored_frames
from meshnode.core.errors import RemoteError
from meshnode.core.frames import (
    Cert,
    Frame,
    FrameReader,
    Have,
    Held,
    Hello,
    Next,
    Ping,
    Pong,
    Want,
    Wanted,
    encode,
)
from meshnode.core.holders import Holders
from meshnode.core.identity import DeviceId, JournalId
from meshnode.core.intervals import NONE, Ranges
from meshnode.core.ledger import Journal, Ledger
from meshnode.core.limits import (
    ASKED_AGAIN_MAX,
    ASKED_AGAIN_PER_S,
    AWAY_S_MAX,
    CREDIT_BYTES,
    DEAD_AFTER_S,
    FRAME_SIZE_MAX,
    HANDSHAKE_S,
    HOLD_S,
    JOURNALS_PER_FRAME,
    KIB,
    NUMBER_MAX,
    PAYLOAD_SIZE_MAX,
    PEER_JOURNALS_MAX,
    PEER_RANGES_MAX,
    PING_AFTER_S,
    RANGES_MAX,
    SEND_AHEAD_BYTES,
    SEND_AHEAD_FIRST_BYTES,
    SEND_AHEAD_S,
    STALL_BYTES,
)
from meshnode.core.ports import Effect, Send, SendBundle
from meshnode.core.receipt import Receipt
from meshnode.core.routing import Candidate, Order
from meshnode.core.rows import Entry
from tests.core.fleets import Fleet

FLEET = Fleet()
ME = FLEET.device("siti")
SOURCE = FLEET.device("agus")
CERTIFICATES = {FLEET.device(name): FLEET.certificate(name) for name in ("siti", "agus", "wati")}
HELLO = Hello("wati", ("officer",), 7766, 1, 0, False, 0)
J = JournalId(b"j" * 16)
PLENTY = 1 << 40


def contact(now_s: float = 0.0, *, greeted: bool = True) -> Contact:
    """A contact that opened at `now_s`."""
    made = Contact(1, FLEET.certificate("wati"), "10.0.0.1:7766", now_s, dialled=True)
    if greeted:
        made.hello = HELLO
    return made


def frame(effect: Effect | None) -> Frame:
    """What a Send says."""
    assert isinstance(effect, Send)
    (said,) = FrameReader().feed(effect.data)
    return said


# --- liveness ---------------------------------------------------------------------------------------------------


def test_nothing_but_hello_comes_first() -> None:
    for early in (Ping(), Have(True, ())):
        with pytest.raises(RemoteError, match="before HELLO"):
            list(contact(greeted=False).feed(encode(early) + encode(HELLO), 0.0))
    assert list(contact(greeted=False).feed(encode(HELLO), 0.0)) == [HELLO]


def test_a_peer_that_says_no_hello_is_not_waited_for() -> None:
    silent = contact(100.0, greeted=False)
    list(silent.feed(b"\0", 99.0 + HANDSHAKE_S))  # bytes are no HELLO
    assert silent.check_alive(99.9 + HANDSHAKE_S) is None
    assert silent.next_look_s() <= 100.0 + HANDSHAKE_S
    assert silent.check_alive(100.0 + HANDSHAKE_S) == "said no HELLO"


def test_silence_is_death_and_any_byte_is_life() -> None:
    peer = contact(100.0)
    assert peer.check_alive(99.9 + DEAD_AFTER_S) is None
    assert peer.check_alive(100.0 + DEAD_AFTER_S) == "silent"
    list(peer.feed(b"\0", 114.0))  # the beginning of a frame that takes its time
    assert peer.check_alive(113.9 + DEAD_AFTER_S) is None
    assert peer.check_alive(114.0 + DEAD_AFTER_S) == "silent"


def test_a_ping_after_own_silence_only() -> None:
    peer = contact(100.0)
    assert not peer.ping_due(99.9 + PING_AFTER_S)
    assert peer.ping_due(100.0 + PING_AFTER_S)
    list(peer.feed(encode(Ping()), 105.0))
    assert peer.ping_due(105.0), "that the peer talks does not mean that it hears us"
    assert frame(peer.ping(105.0)) == Ping()
    assert not peer.ping_due(104.9 + PING_AFTER_S)
    peer.say(Pong(), 109.0)
    assert not peer.ping_due(113.9)
    assert peer.ping_due(114.0)


def test_a_ping_is_said_well_before_the_peer_gives_up() -> None:
    assert 2 * PING_AFTER_S < DEAD_AFTER_S


# --- receiving: credit ------------------------------------------------------------------------------------------


def wanting(peer: Contact, numbers: Ranges | None = None) -> list[Wanted]:
    """Ask for these, or for the first thousand."""
    numbers = numbers or Ranges.span(1, 1000)
    peer.wanting[J] = numbers
    return [Wanted(J, numbers, NONE, False)]


def test_the_first_want_grants_credit_for_as_much_as_there_is_room() -> None:
    for room, granted in ((PLENTY, CREDIT_BYTES), (5000, 5000), (0, 0), (-1, 0)):
        said = frame(contact().want(wanting(contact()), room, 0.0))
        assert said == Want(granted, (Wanted(J, Ranges.span(1, 1000), NONE, False),))


def test_more_than_was_granted_is_the_peers_fault() -> None:
    peer = contact()
    peer.want(wanting(peer), 5000, 0.0)
    peer.arrived(J, 1, 3000, 0.0)
    peer.arrived(J, 2, 2000, 0.0)
    with pytest.raises(RemoteError, match="BUNDLE came without credit"):
        peer.arrived(J, 3, 1, 0.0)


def test_a_bundle_without_any_want_is_the_peers_fault() -> None:
    with pytest.raises(RemoteError, match="BUNDLE came without credit"):
        contact().arrived(J, 1, 1136, 0.0)


def test_nothing_is_said_that_is_not_new() -> None:
    peer = contact()
    assert peer.want([], PLENTY, 0.0) is None, "nothing is wanted"
    assert peer.want(wanting(peer), PLENTY, 0.0) is not None
    assert peer.want([], PLENTY, 0.0) is None, "no new credit"
    peer.arrived(J, 1, 2000, 0.0)
    peer.settled_bytes += 2000
    assert peer.want([], PLENTY, 0.0) is None, "hardly any"


sizes = st.sampled_from([1136, 2000, 100 * KIB, PAYLOAD_SIZE_MAX])


@given(st.lists(st.tuples(sizes, st.integers(0, 3)), max_size=80), st.sampled_from([0, 700 * KIB, PLENTY]))
@settings(max_examples=60)
def test_a_sender_that_obeys_is_never_stuck_and_never_too_much_is_on_its_way(
    arrivals: list[tuple[int, int]], room: int
) -> None:
    """Bundles come as far as credit goes, and are settled some later; each asks anew."""
    peer = contact()
    peer.want(wanting(peer), room or PLENTY, 0.0)
    credit = peer._credit_told
    unsettled: list[int] = []
    for number, (size, settle) in enumerate(arrivals, 1):
        if peer.received_bytes + size <= credit:
            peer.arrived(J, number, size, 0.0)
            unsettled.append(size)
        for _ in range(min(settle, len(unsettled))):
            peer.settled_bytes += unsettled.pop(0)
        if said := peer.want([], room or PLENTY, 0.0):
            want = frame(said)
            assert isinstance(want, Want)
            assert want.credit > credit
            credit = want.credit
        assert credit - peer.settled_bytes <= CREDIT_BYTES
    peer.settled_bytes += sum(unsettled)
    said = peer.want([], PLENTY, 0.0)
    if said is not None:
        credit = frame(said).credit  # type: ignore[union-attr]
    assert credit - peer.received_bytes >= PAYLOAD_SIZE_MAX, "the next bundle may come"


def test_credit_waits_for_room() -> None:
    peer = contact()
    peer.want(wanting(peer), PAYLOAD_SIZE_MAX, 0.0)
    peer.arrived(J, 1, PAYLOAD_SIZE_MAX, 0.0)
    peer.settled_bytes += PAYLOAD_SIZE_MAX
    assert peer.want([], 0, 0.0) is None
    assert frame(peer.want([], 1000, 0.0)) == Want(PAYLOAD_SIZE_MAX + 1000, ())


def test_what_is_owed_shrinks_with_each_arrival() -> None:
    peer = contact()
    peer.want(wanting(peer, Ranges.of([1, 2, 4])), PLENTY, 0.0)
    peer.arrived(J, 2, 2000, 7.0)
    assert peer.wanting == {J: Ranges.of([1, 4])}
    assert peer.wanting_since_s == 7.0
    for number in (4, 1):
        peer.arrived(J, number, 2000, 8.0)
    assert peer.wanting == {}


def test_a_good_piece_counts_as_an_arrival_however_it_comes_and_less_does_not() -> None:
    piece = bytes(STALL_BYTES)
    frame_head = (FRAME_SIZE_MAX).to_bytes(4, "big")
    peer = contact(100.0)
    list(peer.feed((frame_head + piece)[: STALL_BYTES - 1], 105.0))
    assert peer.wanting_since_s == 100.0
    list(peer.feed(piece[:1], 106.0))
    assert peer.wanting_since_s == 106.0
    for at in range(1, 8):
        list(peer.feed(piece[: STALL_BYTES // 8], 106.0 + at))
        assert peer.wanting_since_s == 106.0, "the next piece is counted from nothing"
    list(peer.feed(piece[: STALL_BYTES // 8], 114.0))
    assert peer.wanting_since_s == 114.0


def test_offers_replace_and_add_and_are_bounded() -> None:
    peer = contact()
    peer.note_offer(Held(J, Ranges.span(1, 9), 0))
    peer.note_stored(J, Ranges.span(12, 13), ends=False)
    assert peer.offers == {J: Ranges([(1, 9), (12, 13)])}
    peer.note_offer(Held(J, Ranges.single(5), 0))
    assert peer.offers == {J: Ranges.single(5)}
    peer.note_offer(Held(J, NONE, 0))
    peer.note_stored(J, NONE, ends=False)
    assert peer.offers == {}
    for number in range(PEER_JOURNALS_MAX):
        peer.note_stored(JournalId(number.to_bytes(16, "big")), Ranges.single(1), ends=False)
    with pytest.raises(RemoteError, match="lists more than"):
        peer.note_stored(J, Ranges.single(1), ends=False)


def test_the_ranges_of_all_offers_together_are_bounded() -> None:
    peer = contact()
    for _ in range(PEER_RANGES_MAX // RANGES_MAX):  # what is replaced does not count
        peer.note_offer(Held(J, Ranges.single(1), 0))
        peer.note_offer(Held(J, gappy(RANGES_MAX), 0))
        peer.set_offer(J, NONE)
    for journal in journal_ids(PEER_RANGES_MAX // RANGES_MAX):
        peer.note_stored(journal, gappy(PEER_RANGES_MAX), ends=False)
        assert len(peer.offers[journal].pairs) == RANGES_MAX, "no more of one journal than a HAVE could say"
    with pytest.raises(RemoteError, match="lists more than 131072 ranges"):
        peer.note_stored(JournalId(b"x" * 16), Ranges.single(1), ends=False)


# --- sending ----------------------------------------------------------------------------------------------------


def carrying(*messages: tuple[int, int, int], source: DeviceId = SOURCE) -> tuple[Ledger, Journal]:
    """A ledger with messages of (size, priority, parts), numbered from 1 on."""
    ledger = Ledger(ME)
    header = Header(source, b"o" * 16, b"k" * 8, b"e" * 8, 1, 1, 1, 1, 0, 60, None, 2000, b"h" * 32)
    journal = ledger.open(header, header.journal)
    first = 1
    for size, priority, parts in messages:
        ledger.add(journal, {first + n: Entry(size, priority, first, parts, 0.0, 60) for n in range(parts)})
        first += parts
    return ledger, journal


def order_to(
    peer_away_s: float = 0.0, told_s: Mapping[DeviceId, float] | None = None, holders: Holders | None = None
) -> Order:
    """The order of sending to a peer at this distance from an office, 0: there. `told_s`: that of others."""
    told = told_s or {}

    def away_s(device: DeviceId) -> float:
        return told.get(device, AWAY_S_MAX)

    return Order(
        peer=FLEET.device("wati"),
        devices=CERTIFICATES,
        peer_away_s=peer_away_s,
        own_away_s=AWAY_S_MAX,
        offers={},
        holders=holders or Holders(away_s),
        told_s=away_s,
        revoked=(),
        now_s=0.0,
    )


#: To an office: the smallest first.
ORDER = order_to()


def ask(
    peer: Contact, ledger: Ledger, numbers: Iterable[int], credit: int = CREDIT_BYTES, *, known: bool = True
) -> None:
    """The peer wants these of the only journal."""
    (journal_id,) = ledger.journals
    want = Want(credit, (Wanted(journal_id, Ranges.of(numbers), NONE, known),))
    peer.note_want(want, ledger, ORDER)


def pump(peer: Contact, ledger: Ledger, now_s: float = 0.0, order: Order = ORDER) -> list[int]:
    """The numbers that are handed to the link now."""
    effects = list(peer.pump(ledger, CERTIFICATES, order, now_s))
    return [effect.number for effect in effects if isinstance(effect, SendBundle)]


def drain(peer: Contact, ledger: Ledger, order: Order = ORDER) -> list[int]:
    """The numbers that are sent when the link sends as fast as it gets them."""
    sent: list[int] = []
    while numbers := pump(peer, ledger, order=order):
        (journal,) = ledger.journals.values()
        for number in numbers:
            peer.note_sent(journal.entries[number].size, 0.0)
        sent += numbers
    return sent


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

    ledger, journal = carrying(*[(2000, ROUTINE, 1)] * 1000)
    order = replace(order_to(86_400.0, TOLD_S), worth=worth)
    peer = contact()
    peer.note_want(Want(PLENTY, (Wanted(journal.id, journal.held, NONE, True),)), ledger, order)
    assert looked_up == 1000
    order.holders.see(journal.id, AGUS, Ranges.span(1, 900))
    peer._ahead_bytes = 1
    looked_up = 0
    assert len(pump(peer, ledger, order=order)) == 1
    assert looked_up <= 20


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
    assert peer._queue == []


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
    assert len(peer._queue) <= 400
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
    assert (peer._queue, peer._messages) == ([], {})


def test_what_was_taken_back_is_swept_out_though_one_is_still_wanted() -> None:
    """Or each WANT of ten bytes would go through all of it."""
    ledger, journal = carrying(*[(2000, ROUTINE, 1)] * 2000)
    peer = contact()
    ask(peer, ledger, journal.held, 0)
    peer.note_want(Want(0, (Wanted(journal.id, NONE, Ranges.span(2, 2000), True),)), ledger, ORDER)
    assert len(peer._queue) <= 300
    assert len(peer._messages) == len(peer._queue)
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


# --- who waits for whom -----------------------------------------------------------------------------------------


class End:
    """One end of a contact, with messages of (size, priority, parts) that the other asks for."""

    def __init__(self, name: str, other: str, messages: list[tuple[int, int, int]], *, dialled: bool) -> None:
        self.contact = Contact(1, FLEET.certificate(other), "", 0.0, dialled=dialled)
        self.contact.hello = HELLO
        self.ledger, self.journal = carrying(*messages, source=FLEET.device(name))
        #: On the way from this end: frames and bundles, in order; and what its link has not reported sent yet.
        self.line: deque[Effect] = deque()
        self.standing: deque[int] = deque()
        self.nexts: list[Next] = []
        #: The sizes of all bundles that either end has sent, in order.
        self.air: list[int] = []

    def pump(self, now_s: float = 0.0) -> list[int]:
        """Send what may be sent; the numbers of the bundles among it."""
        effects = list(self.contact.pump(self.ledger, CERTIFICATES, ORDER, now_s))
        for effect in effects:
            self.line.append(effect)
            if isinstance(effect, SendBundle):
                self.standing.append(effect.size)
                self.air.append(effect.size)
            elif isinstance(said := frame(effect), Next):
                self.nexts.append(said)
        return [effect.number for effect in effects if isinstance(effect, SendBundle)]

    def ask(self, other: End, numbers: Ranges) -> None:
        """Ask the other end for these."""
        self.contact.wanting[other.journal.id] = numbers
        rows = [Wanted(other.journal.id, numbers, NONE, True)]
        self.line.append(self.contact.want(rows, PLENTY, 0.0) or Send(1, b""))

    def take(self, effect: Effect, now_s: float = 0.0) -> None:
        """Something came from the other end, and a node would do this."""
        match effect:
            case SendBundle():
                self.contact.arrived(effect.journal, effect.number, effect.size, now_s)
                self.contact.settled_bytes += effect.size
                if want := self.contact.want([], PLENTY, now_s):
                    self.line.append(want)
            case Send():
                said = frame(effect)
                if isinstance(said, Want):
                    self.contact.note_want(said, self.ledger, ORDER)
                    self.pump(now_s)
                elif isinstance(said, Next):
                    self.contact.note_next(said)
                    self.pump(now_s)

    def sent(self, now_s: float = 0.0) -> None:
        """The link has sent a bundle."""
        self.contact.note_sent(self.standing.popleft(), now_s)
        self.pump(now_s)


def meet(ours: list[tuple[int, int, int]], theirs: list[tuple[int, int, int]]) -> tuple[End, End]:
    """Two that have just asked each other for everything."""
    siti, wati = End("siti", "wati", ours, dialled=True), End("wati", "siti", theirs, dialled=False)
    wati.air = siti.air
    for end, other in ((siti, wati), (wati, siti)):
        if other.journal.held:
            end.ask(other, other.journal.held)
    return siti, wati


def settle(*ends: End) -> None:
    """Carry all frames over, but report no bundle as sent."""
    while any(end.line for end in ends):
        for end, other in zip(ends, reversed(ends), strict=True):
            while end.line:
                other.take(end.line.popleft())


ranks = st.lists(st.tuples(sizes, st.integers(0, 1), st.integers(1, 3)), max_size=6)


@given(ranks, ranks, st.data())
def test_two_that_trade_never_wait_for_each_other(
    ours: list[tuple[int, int, int]], theirs: list[tuple[int, int, int]], data: st.DataObject
) -> None:
    """In whatever order frames, bundles and the links' reports come, with equal ranks too: all gets through in no time,
    and of two that know of each other what comes next exactly one waits."""
    ends = siti, wati = meet(ours, theirs)
    while True:
        moves = [(end, what) for end in ends for what in ("line", "standing") if getattr(end, what)]
        if not moves:
            break
        end, what = data.draw(st.sampled_from(moves))
        if what == "line":
            (wati if end is siti else siti).take(end.line.popleft())
        else:
            end.sent()
        on_the_way = [frame(effect) for end in ends for effect in end.line if isinstance(effect, Send)]
        trading = all(end.contact._queue and end.contact.wanting for end in ends)
        known = all(end.nexts and end.contact._next_heard for end in ends)
        if trading and known and not any(isinstance(said, (Next, Want)) for said in on_the_way):
            assert sum(end.contact.holds_until_s > 0.0 for end in ends) == 1
    assert [end.contact.wanting for end in ends] == [{}, {}]
    assert [end.contact._queue for end in ends] == [[], []]


def test_whoever_has_the_lesser_bundle_waits_until_the_better_ones_are_through() -> None:
    siti, wati = meet(
        [(9000, ROUTINE, 1), (30_000, URGENT, 1)],
        [(2000, URGENT, 1), (3000, ROUTINE, 1), (20_000, ROUTINE, 1)],
    )
    settle(siti, wati)
    while siti.standing or wati.standing:
        for end in (siti, wati):
            if end.standing:
                end.sent()
        settle(siti, wati)
    assert siti.air == [2000, 30_000, 3000, 9000, 20_000]
    assert siti.nexts[0] == Next((0, -1 / 30_000))
    assert wati.nexts[0] == Next((0, -1 / 2000))


def test_equal_bundles_go_from_the_one_that_was_dialled_first() -> None:
    siti, wati = meet([(2000, ROUTINE, 1)], [(2000, ROUTINE, 1)])
    siti.take(wati.line.popleft())
    wati.take(siti.line.popleft())
    assert (list(siti.standing), list(wati.standing)) == ([], []), "neither knows yet what the other has"
    wati.take(siti.line.popleft())
    siti.take(wati.line.popleft())
    assert (list(siti.standing), list(wati.standing)) == ([], [2000])


def test_nothing_is_said_of_what_comes_next_where_bundles_go_one_way() -> None:
    siti, wati = meet([(2000, ROUTINE, 1)] * 9, [])
    settle(siti, wati)
    while siti.standing:
        siti.sent()
        settle(siti, wati)
    assert not wati.contact.wanting
    assert siti.nexts == []
    assert wati.nexts == []


def test_what_comes_next_is_said_when_it_changes_and_at_the_end() -> None:
    siti, wati = meet([(9000, ROUTINE, 1), (9000, ROUTINE, 1)], [(300_000, ROUTINE, 1)])
    settle(siti, wati)
    while siti.standing or wati.standing:
        for end in (siti, wati):
            if end.standing:
                end.sent()
        settle(siti, wati)
    assert siti.nexts == [Next((2, -1 / 9000)), Next(None)]
    assert wati.nexts == [Next((2, -1 / 300_000)), Next(None)]


def test_nobody_waits_longer_than_for_some_of_what_is_owed() -> None:
    siti, wati = meet([(9000, ROUTINE, 1)], [(2000, ROUTINE, 1), (3000, ROUTINE, 1)])
    siti.take(wati.line.popleft())
    siti.contact.note_next(Next((2, -1 / 2000)))
    assert siti.contact.holds_until_s == HOLD_S
    assert siti.pump(HOLD_S - 0.1) == []
    siti.contact.arrived(wati.journal.id, 1, 2000, 4.0)
    assert siti.pump(HOLD_S) == [], "some of it came"
    assert siti.pump(4.0 + HOLD_S - 0.1) == []
    assert siti.pump(4.0 + HOLD_S) == [1]


def test_nobody_waits_for_who_owes_nothing_or_has_nothing() -> None:
    for next_heard, owes, waits in (
        (None, True, True),
        (None, False, False),
        (Next(None), True, False),
        (Next((0, -1.0)), True, True),
        (Next((0, -1.0)), False, False),
        (Next((2, -1 / 9001)), True, False),
    ):
        siti, wati = meet([(9000, ROUTINE, 1)], [(2000, ROUTINE, 1)])
        if not owes:
            siti.contact.wanting = {}
        if next_heard:
            siti.contact.note_next(next_heard)
        siti.take(wati.line.popleft())
        assert (siti.contact.holds_until_s > 0.0) is waits
        assert list(siti.standing) == ([] if waits else [9000])


# --- frames of several journals ---------------------------------------------------------------------------------


def gappy(pairs: int) -> Ranges:
    """As many ranges, with numbers that take as many bytes as numbers can."""
    return Ranges((NUMBER_MAX - 2 * at, NUMBER_MAX - 2 * at) for at in range(pairs))


def journal_ids(count: int) -> list[JournalId]:
    """As many ids."""
    return [JournalId(number.to_bytes(16, "big")) for number in range(count)]


@given(
    st.lists(st.sampled_from([0, 1, 2, 500, RANGES_MAX - 1, RANGES_MAX, RANGES_MAX + 5]), max_size=8),
    st.booleans(),
)
@settings(max_examples=30)
def test_have_frames_name_every_journal_and_fit(pairs: list[int], whole: bool) -> None:
    rows = [Held(j, gappy(n), 2**62) for j, n in zip(journal_ids(len(pairs)), pairs, strict=True)]
    frames = list(have_frames(rows, whole=whole))
    assert all(len(encode(said)) <= 4 + FRAME_SIZE_MAX for said in frames)
    said = [held for have in frames for held in have.journals]
    assert said == [Held(held.journal, first_ranges(held.ranges), held.serial) for held in rows]
    assert [have.whole for have in frames[:-1]] == [False] * (len(frames) - 1)
    assert bool(frames) == (whole or bool(rows))
    assert not frames or frames[-1].whole == whole


def test_have_frames_of_many_journals() -> None:
    rows = [Held(j, Ranges.span(1, 9), 1 << 16) for j in journal_ids(2 * JOURNALS_PER_FRAME + 1)]
    frames = list(have_frames(rows, whole=True))
    assert [len(have.journals) for have in frames] == [JOURNALS_PER_FRAME, JOURNALS_PER_FRAME, 1]
    assert [have.whole for have in frames] == [False, False, True]
    assert list(FrameReader().feed(b"".join(encode(have) for have in frames))) == frames


@given(st.lists(st.sampled_from([1, 2, RANGES_MAX, 2 * RANGES_MAX + 5]), max_size=12))
@settings(max_examples=20)
def test_stored_frames_say_everything_and_fit(pairs: list[int]) -> None:
    rows = [(j, gappy(n), n > 1) for j, n in zip(journal_ids(len(pairs)), pairs, strict=True)]
    frames = list(stored_frames(rows))
    said: dict[JournalId, Ranges] = {}
    assert list(FrameReader().feed(b"".join(encode(stored) for stored in frames))) == frames
    for stored in frames:
        for journal, ranges, ends in stored.journals:
            said[journal] = said.get(journal, NONE) | ranges
            assert (journal, ends) in {(row[0], row[2]) for row in rows}
    assert said == {journal: ranges for journal, ranges, _ in rows}


def test_first_ranges() -> None:
    assert first_ranges(gappy(5)) == gappy(5)
    assert first_ranges(gappy(RANGES_MAX + 1)).pairs == gappy(RANGES_MAX + 1).pairs[:RANGES_MAX]

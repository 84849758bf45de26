"""Which bundle is asked of whom."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from meshnode.core.bundle import Header
from meshnode.core.contact import Contact
from meshnode.core.fetching import Fetching
from meshnode.core.frames import BundleFrame, Held, Hello, Want, Wanted, encode
from meshnode.core.holders import Holders
from meshnode.core.identity import DeviceId, JournalId
from meshnode.core.intervals import NONE, Ranges
from meshnode.core.ledger import Ledger
from meshnode.core.limits import (
    FRAME_SIZE_MAX,
    HUSH_S,
    JOURNALS_PER_FRAME,
    KIB,
    NUMBER_MAX,
    PAYLOAD_SIZE_MAX,
    RANGES_MAX,
    STALL_BYTES,
    STALL_S,
    TAKE_OVER_MIN,
)
from meshnode.core.rows import Entry
from tests.core.fleets import Fleet, Source

FLEET = Fleet()
ME = FLEET.device("siti")
SOURCE, OTHER = DeviceId(b"1" * 16), DeviceId(b"2" * 16)
PLENTY = 1 << 40
NOBODY = Holders(lambda device: 0.0)


def header(source: DeviceId = SOURCE, destination: bytes = b"o" * 16) -> Header:
    """A header of which only the journal matters."""
    return Header(source, destination, b"k" * 8, b"e" * 8, 1, 1, 1, 1, 0, 60, None, 2000, b"h" * 32)


J = header().journal


def contact(name: str, *numbers: int, journal: JournalId = J) -> Contact:
    """A contact that offers these."""
    made = Contact(1, FLEET.certificate(name), "10.0.0.1:7766", 0.0, dialled=True)
    if numbers:
        made.note_offer(Held(journal, Ranges.of(numbers), 0))
    return made


def ask(
    fetching: Fetching, peer: Contact, room: int = PLENTY, own_room: int = PLENTY, now_s: float = 0.0
) -> Ranges:
    """What is asked of a peer, of journals together."""
    rows = fetching.ask(peer, [], room, own_room, now_s)
    return Ranges(pair for row in rows for pair in row.ranges.pairs)


def carry(ledger: Ledger, source: DeviceId, size: int, number: int = 1) -> None:
    """Let the ledger hold a bundle of that size."""
    head = header(source)
    ledger.add(ledger.open(head, head.journal), {number: Entry(size, 1, number, 1, 0.0, 60)})


def test_each_bundle_is_asked_of_one_contact() -> None:
    fetching = Fetching(Ledger(ME), NOBODY)
    agus, wati = contact("agus", 1, 2, 3), contact("wati", 2, 3, 4)
    assert ask(fetching, agus) == Ranges.span(1, 3)
    assert ask(fetching, wati) == Ranges.single(4)
    assert ask(fetching, agus) == ask(fetching, wati) == NONE
    assert agus.wanting == {J: Ranges.span(1, 3)}
    assert wati.wanting == {J: Ranges.single(4)}


def test_what_is_here_delivered_landing_or_declined_is_not_asked_for() -> None:
    ledger = Ledger(ME)
    fetching = Fetching(ledger, NOBODY)
    carry(ledger, SOURCE, 2000, 1)
    ledger.apply(FLEET.receipt(J, Ranges.single(2)), 0.0)
    fetching.land(J, 3)
    fetching.decline(J, 4)
    assert not fetching.lacks(J, 1)
    assert not fetching.lacks(J, 2)
    assert not fetching.lacks(J, 3)
    assert fetching.lacks(J, 4)
    assert ask(fetching, contact("agus", 1, 2, 3, 4, 5)) == Ranges.single(5)
    fetching.landed(J, Ranges.single(3))  # writing it failed
    assert ask(fetching, contact("agus", 3)) == Ranges.single(3)


def test_what_a_lost_contact_owed_is_asked_of_the_others() -> None:
    fetching = Fetching(Ledger(ME), NOBODY)
    agus, wati = contact("agus", 1, 2, 3), contact("wati", 1, 2, 3)
    assert ask(fetching, agus) == Ranges.span(1, 3)
    agus.wanting[J] -= Ranges.single(2)  # came
    fetching.arrived(J, 2)
    fetching.land(J, 2)
    fetching.release(agus)
    assert agus.wanting == {}
    assert ask(fetching, wati) == Ranges.of([1, 3])


def test_what_a_contact_no_longer_offers_is_asked_of_the_others() -> None:
    fetching = Fetching(Ledger(ME), NOBODY)
    agus, wati = contact("agus", 1, 2, 3), contact("wati", 1, 2, 3)
    ask(fetching, agus)
    agus.note_offer(Held(J, Ranges.single(2), 0))
    fetching.withdraw(agus, J)
    assert agus.wanting == {J: Ranges.single(2)}
    assert ask(fetching, wati) == Ranges.of([1, 3])


def test_what_is_delivered_meanwhile_is_not_owed_any_more() -> None:
    """It will not be sent, so waiting for it would make the contact look stalled for ever."""
    ledger = Ledger(ME)
    fetching = Fetching(ledger, NOBODY)
    agus = contact("agus", 1, 2, 3)
    ask(fetching, agus)
    ledger.apply(FLEET.receipt(J, Ranges.span(1, 2)), 0.0)
    assert fetching.delivered(agus, J)
    assert agus.offers == agus.wanting == {J: Ranges.single(3)}
    ledger.apply(FLEET.receipt(J, Ranges.span(1, 3), 2 << 16), 0.0)
    assert fetching.delivered(agus, J)
    assert agus.offers == agus.wanting == {}
    assert not fetching.delivered(agus, J)


# --- room -------------------------------------------------------------------------------------------------------


def test_no_room_nothing_asked() -> None:
    ledger = Ledger(ME)
    fetching = Fetching(ledger, NOBODY)
    assert ask(fetching, contact("agus", 1, 2), room=PAYLOAD_SIZE_MAX - 1) == NONE
    assert ask(fetching, contact("agus", 1, 2), room=PAYLOAD_SIZE_MAX) == Ranges.span(1, 2)


def test_of_a_heavy_source_nothing_is_asked_when_the_quota_is_full() -> None:
    ledger = Ledger(ME)
    fetching = Fetching(ledger, NOBODY)
    carry(ledger, SOURCE, 9 * PAYLOAD_SIZE_MAX)
    carry(ledger, OTHER, PAYLOAD_SIZE_MAX)
    light = header(OTHER).journal
    assert ask(fetching, contact("agus", 2, 3), room=0) == NONE
    assert ask(fetching, contact("agus", 2, 3, journal=light), room=0) == Ranges.span(2, 3)


def test_an_unknown_journal_is_probed_when_the_quota_is_full() -> None:
    """Its source is known only from a bundle; it may be light, so one bundle is worth a look."""
    ledger = Ledger(ME)
    fetching = Fetching(ledger, NOBODY)
    unknown = JournalId(b"u" * 16)
    assert ask(fetching, contact("agus", 3, 4, 5, journal=unknown), room=0) == NONE, (
        "there is nothing to displace"
    )
    carry(ledger, SOURCE, PAYLOAD_SIZE_MAX)
    assert ask(fetching, contact("agus", 3, 4, 5, journal=unknown), room=0) == NONE, "that is too little"
    carry(ledger, SOURCE, PAYLOAD_SIZE_MAX, 2)
    agus, wati = contact("agus", 3, 4, 5, journal=unknown), contact("wati", 3, 4, 5, journal=unknown)
    assert ask(fetching, agus, room=0) == Ranges.single(3)
    assert ask(fetching, agus, room=0) == NONE, "one is under way"
    assert ask(fetching, wati, room=0) == NONE, "one is under way"
    assert ask(fetching, wati, room=PLENTY) == Ranges.span(4, 5)


def test_an_office_asks_for_what_ends_there_whatever_the_quota() -> None:
    ledger = Ledger(ME, frozenset({b"o" * 16}))
    fetching = Fetching(ledger, NOBODY)
    carry(ledger, SOURCE, 2000)
    foreign = header(OTHER, b"p" * 16)
    ledger.add(ledger.open(foreign, foreign.journal), {1: Entry(2000, 1, 1, 1, 0.0, 60)})
    agus = contact("agus", 2, 3)
    agus.note_offer(Held(foreign.journal, Ranges.span(4, 5), 0))
    agus.note_offer(Held(JournalId(b"u" * 16), Ranges.span(6, 7), 0))
    rows = {row.journal: row.ranges for row in fetching.ask(agus, [], 0, PLENTY, 0.0)}
    assert rows == {J: Ranges.span(2, 3), JournalId(b"u" * 16): Ranges.span(6, 7)}
    assert fetching.ask(contact("wati", 8), [], PLENTY, 0, 0.0) == [], "the floor holds for all"


def test_whose_certificate_is_known_is_said() -> None:
    ledger = Ledger(ME)
    fetching = Fetching(ledger, NOBODY)
    carry(ledger, SOURCE, 2000)
    unknown = JournalId(b"u" * 16)
    agus = contact("agus", 2)
    agus.note_offer(Held(unknown, Ranges.single(1), 0))
    rows = fetching.ask(agus, [SOURCE], PLENTY, PLENTY, 0.0)
    assert rows == [
        Wanted(J, Ranges.single(2), NONE, True),
        Wanted(unknown, Ranges.single(1), NONE, False),
    ]


def test_however_much_is_offered_a_want_fits_into_a_frame() -> None:
    fetching = Fetching(Ledger(ME), NOBODY)
    agus = contact("agus")
    gappy = Ranges((NUMBER_MAX - 2 * at, NUMBER_MAX - 2 * at) for at in range(RANGES_MAX))
    for number in range(12):
        agus.note_offer(Held(JournalId(number.to_bytes(16, "big")), gappy, 0))
    for number in range(JOURNALS_PER_FRAME + 9):
        agus.note_offer(Held(JournalId((1000 + number).to_bytes(16, "big")), Ranges.single(NUMBER_MAX), 0))
    asked: dict[JournalId, Ranges] = {}
    while rows := fetching.ask(agus, [], PLENTY, PLENTY, 0.0):
        assert len(encode(Want(2**60, tuple(rows)))) <= 4 + FRAME_SIZE_MAX
        assert len(rows) <= JOURNALS_PER_FRAME
        asked |= {row.journal: row.ranges for row in rows}
    assert asked == agus.offers == agus.wanting


# --- helping out ------------------------------------------------------------------------------------------------


def test_an_idle_contact_takes_over_half_of_what_is_not_under_way() -> None:
    fetching = Fetching(Ledger(ME), NOBODY)
    agus, wati = contact("agus", *range(1, 101)), contact("wati", *range(1, 101))
    rows = fetching.ask(agus, [], PLENTY, PLENTY, 0.0)
    agus.want(rows, 20 * PAYLOAD_SIZE_MAX, 0.0)
    assert agus.in_flight == 6, "what a sender hands to its link ahead, and not all that the credit allows"
    taken = fetching.take_over(wati, [agus, wati], [], 1.0)
    assert taken is not None
    asked, other, withdrawn = taken
    assert other is agus
    assert asked == Wanted(J, Ranges.span(54, 100), NONE, False)
    assert withdrawn == Wanted(J, NONE, Ranges.span(54, 100), False)
    assert agus.wanting == {J: Ranges.span(1, 53)}
    assert wati.wanting == {J: Ranges.span(54, 100)}


def test_too_little_is_not_worth_it() -> None:
    fetching = Fetching(Ledger(ME), NOBODY)
    agus, wati = contact("agus", *range(1, 2 * TAKE_OVER_MIN)), contact("wati", *range(1, 99))
    ask(fetching, agus)
    assert agus.in_flight == 0
    assert fetching.take_over(wati, [agus], [], 1.0) is None
    assert fetching.take_over(agus, [agus], [], 1.0) is None


def test_of_a_stalled_contact_everything_is_taken_over() -> None:
    fetching = Fetching(Ledger(ME), NOBODY)
    agus, wati = contact("agus", 1, 2, 3), contact("wati", 2, 3)
    agus.want(fetching.ask(agus, [], PLENTY, PLENTY, 0.0), PLENTY, 0.0)
    assert fetching.take_over(wati, [agus], [], HUSH_S - 0.1) is None
    taken = fetching.take_over(wati, [agus], [], HUSH_S)
    assert taken is not None
    assert taken[0].ranges == taken[2].dropped == Ranges.span(2, 3)
    assert agus.wanting == {J: Ranges.single(1)}
    assert wati.wanting_since_s == HUSH_S, "the one that helps is given time"


def test_of_a_contact_that_talks_and_sends_nothing_everything_is_taken_over_later() -> None:
    fetching = Fetching(Ledger(ME), NOBODY)
    agus, wati = contact("agus", 1, 2, 3), contact("wati", 2, 3)
    agus.want(fetching.ask(agus, [], PLENTY, PLENTY, 0.0), PLENTY, 0.0)
    for second in range(1, int(STALL_S)):
        list(agus.feed(encode(Hello("agus", (), 1, 1, 0, False, 0)), float(second)))
        assert fetching.take_over(wati, [agus], [], second + 0.5) is None
    assert fetching.take_over(wati, [agus], [], STALL_S) is not None


@pytest.mark.parametrize(("bytes_per_s", "waited_for"), [(410, True), (400, False)])
def test_a_bundle_on_a_weak_link_is_waited_for_unless_it_only_trickles(
    bytes_per_s: int, waited_for: bool
) -> None:
    """It takes ten minutes, so that to give up after STALL_S would be to begin anew for ever."""
    assert (bytes_per_s * STALL_S >= STALL_BYTES) == waited_for
    fetching = Fetching(Ledger(ME), NOBODY)
    agus, wati = contact("agus", 1), contact("wati", 1)
    agus.want(fetching.ask(agus, [], PLENTY, PLENTY, 0.0), PLENTY, 0.0)
    on_its_way = encode(BundleFrame(0, Source(FLEET, "dewi").bundle(size=PAYLOAD_SIZE_MAX)))
    taken = None
    for second in range(len(on_its_way) // bytes_per_s):
        taken = taken or fetching.take_over(wati, [agus], [], second + 0.5)
        if taken:
            break
        list(agus.feed(on_its_way[second * bytes_per_s :][:bytes_per_s], second + 1.0))
    assert (taken is None) == waited_for
    assert agus.wanting == ({J: Ranges.single(1)} if waited_for else {})


def test_the_busiest_is_helped_first() -> None:
    fetching = Fetching(Ledger(ME), NOBODY)
    agus = contact("agus", *range(1, 30))
    wati = contact("wati", *range(101, 200))
    for peer in (agus, wati):
        ask(fetching, peer)
    idle = contact("dewi", *range(1, 200))
    taken = fetching.take_over(idle, [agus, wati], [], 1.0)
    assert taken is not None
    assert taken[1] is wati


def test_what_has_not_changed_is_not_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of thousands of journals, each time that something comes."""
    fetching = Fetching(Ledger(ME), NOBODY)
    peer = contact("agus")
    for at in range(JOURNALS_PER_FRAME // 2):
        peer.note_offer(Held(JournalId(at.to_bytes(16, "big")), Ranges.span(1, 3), 0))
    assert ask(fetching, peer)
    looked: list[JournalId] = []
    unasked = Fetching._unasked

    def counted(self: Fetching, of: Contact, journal: JournalId, offered: Ranges) -> Ranges:
        looked.append(journal)
        return unasked(self, of, journal, offered)

    monkeypatch.setattr(Fetching, "_unasked", counted)
    for _ in range(10):
        assert ask(fetching, peer) == NONE
    assert not looked
    other = contact("wati", 1, 2, 3)
    assert ask(fetching, other) == Ranges.span(1, 3)
    fetching.release(other)
    peer.note_offer(Held(J, Ranges.single(2), 0))
    assert ask(fetching, peer) == Ranges.single(2)
    assert len(looked) > JOURNALS_PER_FRAME // 2, "what was loosened may be in any"


class Askers(RuleBasedStateMachine):
    """Three contacts that offer, withdraw, deliver and fail: nothing is ever asked of two of them at once."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger(ME)
        self.fetching = Fetching(self.ledger, NOBODY)
        self.peers = [contact(name) for name in ("agus", "wati", "dewi")]
        self.now_s = 0.0

    peer = st.integers(0, 2)
    numbers = st.sets(st.integers(1, 20), max_size=12).map(Ranges.of)

    @rule(which=peer, some=numbers)
    def has(self, which: int, some: Ranges) -> None:
        self.peers[which].note_offer(Held(J, some, 0))
        self.fetching.withdraw(self.peers[which], J)

    @rule(which=peer, some=numbers)
    def stored(self, which: int, some: Ranges) -> None:
        self.peers[which].note_stored(J, some, ends=False)

    @rule(which=peer, seconds=st.sampled_from([0.0, 1.0, 21.0]), room=st.sampled_from([20 * KIB, PLENTY]))
    def asks(self, which: int, seconds: float, room: int) -> None:
        self.now_s += seconds
        peer = self.peers[which]
        rows = self.fetching.ask(peer, [], PLENTY, PLENTY, self.now_s)
        if not rows and not peer.wanting:
            taken = self.fetching.take_over(peer, self.peers, [], self.now_s)
            if taken is not None:
                rows = [taken[0]]
        peer.want(rows, room, self.now_s)

    @rule(which=peer, lands=st.booleans())
    def comes(self, which: int, lands: bool) -> None:
        peer = self.peers[which]
        for number in peer.wanting.get(J, NONE):
            if peer.received_bytes + 2000 > peer._credit_told:
                return
            peer.arrived(J, number, 2000, self.now_s)
            self.fetching.arrived(J, number)
            if lands:
                self.fetching.land(J, number)
            else:
                self.fetching.decline(J, number)
            return

    @rule()
    def written(self) -> None:
        landing = self.fetching.landing.get(J, NONE)
        head = header()
        journal = self.ledger.open(head, J)
        self.ledger.add(journal, {n: Entry(2000, 1, n, 1, 0.0, 60) for n in landing})
        self.fetching.landed(J, landing)

    @rule(some=numbers)
    def receipted(self, some: Ranges) -> None:
        journal = self.ledger.journals.get(J)
        serial = journal.serial if journal else 0
        droppable = self.ledger.apply(FLEET.receipt(J, some, serial + 1), 0.0)
        if droppable:
            self.ledger.drop(self.ledger.journals[J], droppable)
        for peer in self.peers:
            self.fetching.delivered(peer, J)

    @rule(which=peer)
    def lost(self, which: int) -> None:
        self.fetching.release(self.peers[which])
        self.peers[which] = contact(["agus", "wati", "dewi"][which])

    @invariant()
    def asked_of_one_only_and_of_one_that_has_it(self) -> None:
        seen = NONE
        for peer in self.peers:
            owed = peer.wanting.get(J, NONE)
            assert not owed & seen, "asked of two"
            assert owed <= peer.offers.get(J, NONE), "asked of one that has it not"
            assert not owed & self.fetching.landing.get(J, NONE), "asked for though it is here"
            assert owed == self.ledger.lacking(J, owed)
            seen |= owed
        assert self.fetching._asked.get(J, NONE) == seen

    @invariant()
    def nothing_is_forgotten(self) -> None:
        """Whatever somebody offers and nobody was asked for is asked for at the next occasion."""
        for peer in self.peers:
            offered = self.ledger.lacking(J, peer.offers.get(J, NONE))
            waiting = offered - self.fetching.landing.get(J, NONE) - self.fetching.declined.get(J, NONE)
            waiting -= self.fetching._asked.get(J, NONE)
            trial = Fetching(self.ledger, NOBODY)
            trial.landing, trial.declined, trial._asked = (
                dict(table) for table in (self.fetching.landing, self.fetching.declined, self.fetching._asked)
            )
            copy = contact("agus")
            copy.offers = dict(peer.offers)
            assert ask(trial, copy) == waiting


TestAskers = Askers.TestCase
TestAskers.settings = settings(max_examples=60, stateful_step_count=30)


@given(st.lists(st.sets(st.integers(1, 200), max_size=100).map(Ranges.of), min_size=1, max_size=5))
@settings(max_examples=40)
def test_everything_that_is_offered_is_asked_for_once(offers: list[Ranges]) -> None:
    fetching = Fetching(Ledger(ME), NOBODY)
    asked = []
    for offer in offers:
        peer = contact("agus")
        peer.note_offer(Held(J, offer, 0))
        asked.append(ask(fetching, peer))
    assert sum(len(some) for some in asked) == len(Ranges(pair for offer in offers for pair in offer.pairs))
    for some, offer in zip(asked, offers, strict=True):
        assert some <= offer

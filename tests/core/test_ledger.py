"""The ledger against a model that counts everything anew, and the digests of finished journals."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from meshnode.core.bundle import Header
from meshnode.core.entries import Entries, Lot
from meshnode.core.frames import BUCKETS, Held
from meshnode.core.identity import DeviceId, EndpointId, JournalId
from meshnode.core.intervals import NONE, Ranges
from meshnode.core.ledger import Ledger, digest_bytes, digest_total
from meshnode.core.receipt import Receipt
from meshnode.core.rows import Entry, JournalRecord, Snapshot

ME = DeviceId(b"m" * 16)
OFFICE = EndpointId(b"o" * 16)
NUMBERS = range(1, 13)

numbers = st.sets(st.sampled_from(NUMBERS), max_size=8)


def header(source: DeviceId, destination: bytes, number: int = 1) -> Header:
    """A header of which only the journal matters."""
    return Header(source, destination, b"k" * 8, b"e" * 8, number, 1, 1, 1, 0, 60, None, 2000, b"h" * 32)


def entry(number: int, size: int = 2000, born_s: float = 0.0, lifetime_s: int = 60) -> Entry:
    """An entry of a message of its own."""
    return Entry(size, 1, number, 1, born_s, lifetime_s)


def receipt(journal: JournalId, serial: int, ranges: Ranges) -> Receipt:
    """A receipt whose signature nobody looks at."""
    return Receipt(OFFICE, journal, serial, ranges, 0, b"", b"")


@dataclass
class Model:
    """What a journal should be, as plain sets."""

    header: Header
    mine: bool
    for_me: bool
    known: bool = False
    entries: dict[int, Entry] = field(default_factory=dict)
    receipted: set[int] = field(default_factory=set)
    newest: Receipt | None = None
    newest_at_s: float = 0.0
    kept: list[tuple[float, set[int]]] = field(default_factory=list)

    @property
    def foreign(self) -> bool:
        return not self.mine and not self.for_me


class Books(RuleBasedStateMachine):
    """Four journals: mine, another's, yet another's of the same device, and one that ends here."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        endpoints = frozenset({b"h" * 16})
        one, two = DeviceId(b"1" * 16), DeviceId(b"2" * 16)
        heads = [header(ME, OFFICE), header(one, OFFICE), header(one, b"p" * 16), header(two, b"h" * 16)]
        self.models = {
            head.journal: Model(head, head.source == ME, head.destination in endpoints) for head in heads
        }
        self.ids = sorted(self.models)
        self.ledger = Ledger(ME, endpoints)
        self.endpoints = endpoints

    @initialize()
    def nothing(self) -> None:
        assert list(self.ledger.offers()) == []

    @rule(which=st.integers(0, 3), some=numbers, size=st.sampled_from([1200, 2000, 262_144]))
    def stored(self, which: int, some: set[int], size: int) -> None:
        model = self.models[self.ids[which]]
        model.known = True
        journal = self.ledger.open(model.header, self.ids[which])
        entries = {n: entry(n, size, self.now_s, lifetime_s=size % 97) for n in some}
        self.ledger.add(journal, entries)
        for number, item in entries.items():
            model.entries.setdefault(number, item)

    @rule(which=st.integers(0, 3), some=numbers)
    def dropped(self, which: int, some: set[int]) -> None:
        model = self.models[self.ids[which]]
        if not model.known:
            return
        gone = self.ledger.drop(self.ledger.journals[self.ids[which]], Ranges.of(some))
        expected = some & set(model.entries)
        if model.mine:
            expected &= model.receipted
        assert gone == Ranges.of(expected)
        for number in expected:
            del model.entries[number]

    @rule(which=st.integers(0, 3), number=st.sampled_from(NUMBERS))
    def rotten(self, which: int, number: int) -> None:
        model = self.models[self.ids[which]]
        if model.known:
            self.ledger.forget_rotten(self.ledger.journals[self.ids[which]], number)
            model.entries.pop(number, None)

    @rule(which=st.integers(0, 3), some=numbers, serial=st.integers(1, 6))
    def receipted(self, which: int, some: set[int], serial: int) -> None:
        model = self.models[self.ids[which]]
        new = receipt(self.ids[which], serial, Ranges.of(some))
        droppable = self.ledger.apply(new, self.now_s)
        before = model.newest.serial if model.newest else 0
        if serial <= before and some <= model.receipted:
            assert droppable is None
            return
        fresh = (some - model.receipted) & set(model.entries)
        model.receipted |= some
        if serial > before:
            model.newest, model.newest_at_s = new, self.now_s
        if model.mine:
            assert droppable == NONE
            model.kept.append((self.now_s, fresh))
        else:
            assert droppable == Ranges.of(model.receipted & set(model.entries))

    @rule(seconds=st.integers(1, 40))
    def time_passes(self, seconds: int) -> None:
        self.now_s += seconds
        expired = {
            self.ids[which]: {
                number
                for number, item in model.entries.items()
                if model.foreign and self.now_s - item.born_s > item.lifetime_s
            }
            for which, model in enumerate(self.models[i] for i in self.ids)
        }
        found = {journal.id: set(ranges) for journal, ranges in self.ledger.expired(self.now_s)}
        assert found == {journal: some for journal, some in expired.items() if some}

    @rule(ago_s=st.integers(0, 30))
    def outlived(self, ago_s: int) -> None:
        before_s = self.now_s - ago_s
        for journal_id, model in self.models.items():
            if journal_id not in self.ledger.journals:
                continue
            due = set().union(*(some for at_s, some in model.kept if at_s < before_s))
            model.kept = [(at_s, some) for at_s, some in model.kept if at_s >= before_s]
            assert set(self.ledger.outlived(self.ledger.journals[journal_id], before_s)) == due

    @rule(in_lots=st.booleans())
    def restarted(self, in_lots: bool) -> None:
        """All that a store keeps is the bundles and the newest receipts."""

        def entries_of(model: Model) -> Entries:
            if not in_lots or not model.entries:
                return Entries(model.entries)
            return Entries(lots=[Lot.of((number, *item) for number, item in sorted(model.entries.items()))])

        snapshot = Snapshot(
            journals=[
                JournalRecord(
                    i, model.header.source, model.header.destination, model.header.epoch, entries_of(model)
                )
                for i, model in self.models.items()
                if model.known
            ],
            receipts=[(m.newest, m.newest_at_s) for m in self.models.values() if m.newest is not None],
        )
        self.ledger = Ledger.restore(ME, self.endpoints, snapshot)
        for model in self.models.values():
            model.receipted = set(model.newest.ranges) if model.newest else set()
            fresh = model.receipted & set(model.entries)
            model.kept = [(model.newest_at_s, fresh)] if model.mine and fresh else []

    @invariant()
    def journals_are_as_counted(self) -> None:
        offers = {held.journal: held for held in self.ledger.offers()}
        for journal_id, model in self.models.items():
            journal = self.ledger.journals.get(journal_id)
            held, receipted = set(model.entries), model.receipted
            if journal is None:
                assert not held
                assert not receipted
                continue
            assert journal.entries == model.entries
            assert set(journal.held) == held
            assert set(journal.receipted) == receipted
            assert set(journal.on_offer) == held - receipted
            assert journal.serial == (model.newest.serial if model.newest else 0)
            expected = Held(
                journal_id, Ranges.of(held - receipted), journal.serial, self.ledger.is_for_me(journal)
            )
            assert offers.get(journal_id) == (expected if held - receipted else None)
            if model.known:
                assert self.ledger.is_mine(journal) == model.mine
                assert self.ledger.is_foreign(journal) == model.foreign

    @invariant()
    def nothing_that_is_here_or_delivered_is_lacking(self) -> None:
        offered = Ranges.span(1, 15)
        for journal_id, model in self.models.items():
            expected = set(offered) - set(model.entries) - model.receipted
            if not model.mine or not model.known:
                assert set(self.ledger.lacking(journal_id, offered)) == expected

    @invariant()
    def bytes_are_as_counted(self) -> None:
        sizes: dict[DeviceId, int] = {}
        count = 0
        for model in self.models.values():
            if model.foreign:
                for item in model.entries.values():
                    sizes[model.header.source] = sizes.get(model.header.source, 0) + item.size
                    count += 1
        assert self.ledger.foreign_bytes == sizes
        assert self.ledger.foreign_size == sum(sizes.values())
        assert self.ledger.foreign_count == count

    @invariant()
    def digests_are_as_counted(self) -> None:
        fresh = Ledger(ME, self.endpoints)
        for model in self.models.values():
            if model.newest:
                fresh.apply(model.newest, 0.0)
        assert self.ledger.digest_buckets([]) == fresh.digest_buckets([])


TestBooks = Books.TestCase
TestBooks.settings = settings(max_examples=60, stateful_step_count=30)


# --- digests ----------------------------------------------------------------------------------------------------

journals = st.sampled_from([JournalId(bytes((first,)) + b"j" * 15) for first in (0, 0x10, 0xFF)])
receipts = st.dictionaries(journals, st.integers(1, 4), max_size=3)


def ledger_of(known: dict[JournalId, int]) -> Ledger:
    """A ledger that knows receipts of these serials, and came to know older ones first."""
    ledger = Ledger(ME)
    for journal, serial in known.items():
        for older in range(1, serial + 1):
            ledger.apply(receipt(journal, older, Ranges.span(1, older)), 0.0)
    return ledger


@given(receipts, receipts)
def test_digests_are_equal_for_equal_receipts_only(
    one: dict[JournalId, int], other: dict[JournalId, int]
) -> None:
    a, b = ledger_of(one).digest_buckets([]), ledger_of(other).digest_buckets([])
    assert len(a) == BUCKETS
    assert (a == b) == (one == other)
    assert (digest_total(a) == digest_total(b)) == (one == other)
    assert (digest_bytes(a) == digest_bytes(b)) == (one == other)
    differing = {at for at in range(BUCKETS) if a[at] != b[at]}
    assert differing == {journal[0] for journal in {*one, *other} if one.get(journal) != other.get(journal)}


@given(receipts, st.lists(journals))
def test_listed_journals_are_left_out(known: dict[JournalId, int], listed: list[JournalId]) -> None:
    rest = {journal: serial for journal, serial in known.items() if journal not in listed}
    ledger = ledger_of(known)
    assert ledger.digest_buckets(set(listed)) == ledger_of(rest).digest_buckets([])
    named = {held.journal: held.serial for held in ledger.finished_in(set(range(BUCKETS)), listed)}
    assert named == rest
    assert list(ledger.finished_in(set(), listed)) == []


def test_journals_named_after_a_digest_keep_what_is_on_offer() -> None:
    """A bundle that came after the lists were exchanged must not be unsaid by the comparison of receipts."""
    ledger = Ledger(ME)
    head = header(DeviceId(b"1" * 16), OFFICE)
    journal = ledger.open(head, head.journal)
    ledger.apply(receipt(head.journal, 1, Ranges.span(1, 3)), 0.0)
    ledger.add(journal, {4: entry(4)})
    assert list(ledger.finished_in({head.journal[0]}, [])) == [Held(head.journal, Ranges.single(4), 1)]


# --- own bundles ------------------------------------------------------------------------------------------------


def own() -> tuple[Ledger, JournalId]:
    """A ledger with own bundles 1 to 5."""
    ledger = Ledger(ME)
    head = header(ME, OFFICE)
    ledger.add(ledger.open(head, head.journal), {n: entry(n) for n in range(1, 6)})
    return ledger, head.journal


def test_own_bundles_are_dropped_only_when_receipted() -> None:
    ledger, journal_id = own()
    journal = ledger.journals[journal_id]
    assert ledger.drop(journal, Ranges.span(1, 5)) == NONE
    assert ledger.apply(receipt(journal_id, 1, Ranges.span(2, 3)), 10.0) == NONE
    assert list(ledger.expired(10.0**9)) == []
    assert ledger.outlived(journal, 10.0) == NONE
    assert ledger.outlived(journal, 10.1) == Ranges.span(2, 3)
    assert ledger.outlived(journal, 10.1) == NONE
    assert ledger.drop(journal, Ranges.span(1, 5)) == Ranges.span(2, 3)
    assert journal.held == Ranges.of([1, 4, 5])


def test_own_bundles_of_this_process_are_taken_back_only_where_they_were_lost() -> None:
    """Nobody else can have what this process has not written yet."""
    ledger, journal_id = own()
    ledger._epoch = ledger.journals[journal_id].epoch
    assert ledger.lacking(journal_id, Ranges.span(1, 9)) == NONE
    ledger.forget_rotten(ledger.journals[journal_id], 3)
    assert ledger.lacking(journal_id, Ranges.span(1, 9)) == Ranges.single(3)
    ledger.add(ledger.journals[journal_id], {3: entry(3)})
    assert ledger.lacking(journal_id, Ranges.span(1, 9)) == NONE


def test_own_bundles_of_past_processes_are_taken_back() -> None:
    """This store was replaced by an older copy, and others have what it has forgotten."""
    ledger, journal_id = own()
    held = ledger.journals[journal_id].held
    assert ledger.lacking(journal_id, Ranges.span(1, 9)) == Ranges.span(1, 9) - held


def test_a_journal_of_which_only_a_receipt_is_known() -> None:
    ledger = Ledger(ME)
    head = header(DeviceId(b"1" * 16), OFFICE)
    assert ledger.apply(receipt(head.journal, 5, Ranges.span(1, 9)), 0.0) == NONE
    assert ledger.lacking(head.journal, Ranges.span(8, 12)) == Ranges.span(10, 12)
    journal = ledger.open(head, head.journal)
    ledger.add(journal, {9: entry(9), 10: entry(10)})
    assert ledger.held_in_vain(journal) == Ranges.single(9)
    assert ledger.drop(journal, ledger.held_in_vain(journal)) == Ranges.single(9)
    assert ledger.foreign_size == 2000


@pytest.mark.parametrize("order", [(1, 2), (2, 1)])
def test_receipts_of_two_offices_add_up(order: tuple[int, int]) -> None:
    ledger, journal_id = own()
    ranges = {1: Ranges.span(1, 2), 2: Ranges.span(4, 5)}
    for serial in order:
        assert ledger.apply(receipt(journal_id, serial, ranges[serial]), 0.0) is not None
    assert ledger.journals[journal_id].receipted == Ranges.of([1, 2, 4, 5])
    assert ledger.journals[journal_id].serial == 2
    for serial in order:
        assert ledger.apply(receipt(journal_id, serial, ranges[serial]), 0.0) is None

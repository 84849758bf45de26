"""What a node knows of every journal: what it holds, what is receipted, and what each takes up.

Invariants
    held        = the numbers whose bundle is durable here, and only those
    receipted   = the union of all receipts seen; it only grows
    on offer    = held - receipted: what a peer may still want from us
    of others   = held of journals that are neither ours nor for us nor for all: what counts against the quota
    an own bundle that is not receipted is never dropped (`drop` refuses)
    an own bundle of the present process is lacking only if it was here and rotted: nobody else can have it before.
    Those of past processes that others have are taken back, after this store was replaced by an older copy

A journal is *finished* here when we know a receipt and hold nothing on offer: all that is left to compare is whether
both sides know the same receipt. Finished journals are summed up by one XOR of digests a bucket, kept up to date as
receipts come, so that the cost of a contact does not grow with the years.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from math import inf

from meshnode.core.bundle import Header, Previous
from meshnode.core.entries import Entries, Entry
from meshnode.core.frames import BUCKETS, DIGEST_SIZE, Held
from meshnode.core.identity import DeviceId, JournalId
from meshnode.core.intervals import NONE, Ranges
from meshnode.core.introducing import EVERYONE
from meshnode.core.receipt import Receipt
from meshnode.core.rows import Snapshot


@dataclass(slots=True)
class Journal:
    """One journal. `source` and the like are unknown while only a receipt of it has been seen."""

    id: JournalId
    source: DeviceId | None = None
    destination: bytes = b""
    epoch: bytes = b""
    entries: Entries = field(default_factory=Entries)
    held: Ranges = NONE
    receipted: Ranges = NONE
    receipt: Receipt | None = None
    #: What its first bundle names, if that was here ever.
    previous: Previous | None = None
    #: Own bundles that are receipted: since when, so that they can be let go of some days later.
    kept: list[tuple[float, Ranges]] = field(default_factory=list)
    #: Bundles that rotted here.
    lost: Ranges = NONE
    #: None of the bundles expires before this.
    expires_s: float = inf

    @property
    def serial(self) -> int:
        """The newest receipt's serial, 0 for none."""
        return self.receipt.serial if self.receipt else 0

    @property
    def on_offer(self) -> Ranges:
        """Held and not known to be delivered."""
        return self.held - self.receipted


def _digest(journal: JournalId, serial: int) -> int:
    data = hashlib.sha256(journal + serial.to_bytes(8, "big")).digest()[:DIGEST_SIZE]
    return int.from_bytes(data, "big")


class Ledger:
    """All journals of one node. `me` is its device, `endpoints` those that it holds the keys of, `epoch` that of
    the journals which it writes now."""

    def __init__(
        self, me: DeviceId, endpoints: frozenset[bytes] = frozenset(), epoch: bytes | None = None
    ) -> None:
        self.me = me
        self._epoch = epoch
        self.endpoints = endpoints
        self.journals: dict[JournalId, Journal] = {}
        #: Bytes of others' bundles by source; sources without any are absent.
        self.foreign_bytes: dict[DeviceId, int] = {}
        #: Bytes carried for others, and how many bundles.
        self.foreign_size = self.foreign_count = 0
        #: How often something that was here or known has come to lack.
        self.shrunk = 0
        #: By endpoint: how many journals it has signed for.
        self.signed_for: Counter[bytes] = Counter()
        self._buckets = [0] * BUCKETS

    @classmethod
    def restore(
        cls, me: DeviceId, endpoints: frozenset[bytes], snapshot: Snapshot, epoch: bytes | None = None
    ) -> Ledger:
        """The ledger that a store's snapshot describes."""
        ledger = cls(me, endpoints, epoch)
        for record in snapshot.journals:
            journal = Journal(record.id, record.source, record.destination, record.epoch)
            journal.previous = record.previous
            ledger.journals[record.id] = journal
            journal.entries = record.entries.copy()
            ledger._count(journal, journal.entries.ranges, journal.entries.size, journal.entries.expires_s)
        for receipt, at_s in snapshot.receipts:
            ledger.apply(receipt, at_s)
        return ledger

    # --- questions ----------------------------------------------------------------------------------------------

    def is_mine(self, journal: Journal) -> bool:
        """Whether this device wrote it."""
        return journal.source == self.me

    def is_for_me(self, journal: Journal) -> bool:
        """Whether this node is where it goes to."""
        return journal.destination in self.endpoints

    def is_foreign(self, journal: Journal) -> bool:
        """Whether it is carried for others and counts against the quota. Introductions do not: they are for all, small,
        and one a device."""
        here = self.is_mine(journal) or self.is_for_me(journal)
        return not here and journal.destination != EVERYONE

    @property
    def is_office(self) -> bool:
        """Whether this node is where the fleet's messages go to, and not only an endpoint of its own."""
        return any(endpoint != self.me for endpoint in self.endpoints)

    def lacking(self, journal: JournalId, offered: Ranges) -> Ranges:
        """What of `offered` is neither held nor delivered, and of use here."""
        known = self.journals.get(journal)
        if known is None:
            return offered
        if self.is_mine(known) and known.epoch == self._epoch:
            offered = offered & known.lost
        return offered - known.held - known.receipted

    def lacks(self, journal: JournalId, number: int) -> bool:
        """As `lacking`, of one number."""
        known = self.journals.get(journal)
        if known is None:
            return True
        if number in known.held or number in known.receipted:
            return False
        return number in known.lost or not (self.is_mine(known) and known.epoch == self._epoch)

    def offers(self) -> Iterator[Held]:
        """Of each journal that has something on offer: what."""
        for journal in self.journals.values():
            if journal.on_offer:
                yield self.held(journal)

    def held(self, journal: Journal) -> Held:
        """What is on offer of one journal."""
        return Held(journal.id, journal.on_offer, journal.serial, self.is_for_me(journal))

    # --- bundles ------------------------------------------------------------------------------------------------

    def open(self, header: Header, journal_id: JournalId) -> Journal:
        """The journal of this header, made known if it was not."""
        journal = self.journals.get(journal_id)
        if journal is None:
            journal = self.journals[journal_id] = Journal(journal_id)
        if journal.source is None:
            journal.source = header.source
            journal.destination = header.destination
            journal.epoch = header.epoch
        journal.previous = journal.previous or header.previous
        return journal

    def close(self, journal: Journal) -> None:
        """Forget a journal of which nothing is here and nothing is known: nobody shall fill the memory with names."""
        if not journal.entries and journal.receipt is None and not journal.lost:
            self.journals.pop(journal.id, None)

    def add(self, journal: Journal, entries: dict[int, Entry]) -> None:
        """These bundles are durable now."""
        new = {number: entry for number, entry in entries.items() if number not in journal.entries}
        journal.entries.update(new)
        expires_s = min((entry.born_s + entry.lifetime_s for entry in new.values()), default=inf)
        self._count(journal, Ranges.of(new), sum(entry.size for entry in new.values()), expires_s)

    def _count(self, journal: Journal, new: Ranges, size: int, expires_s: float) -> None:
        journal.held |= new
        journal.expires_s = min(journal.expires_s, expires_s)
        self._weigh(journal, len(new), size)

    def _weigh(self, journal: Journal, count: int, size: int) -> None:
        """So many bundles and bytes more."""
        if not self.is_foreign(journal):
            return
        assert journal.source is not None
        self.foreign_size += size
        self.foreign_count += count
        total = self.foreign_bytes.get(journal.source, 0) + size
        if total:
            self.foreign_bytes[journal.source] = total
        else:
            self.foreign_bytes.pop(journal.source, None)

    def drop(self, journal: Journal, ranges: Ranges) -> Ranges:
        """Let go of these; what of them was held. An own bundle stays unless it is receipted."""
        self.shrunk += 1
        gone = ranges & journal.held
        if self.is_mine(journal):
            gone = gone & journal.receipted
        journal.held -= gone
        self._weigh(journal, -len(gone), -journal.entries.remove(gone))
        return gone

    def forget_rotten(self, journal: Journal, number: int) -> None:
        """A bundle turned out not to be here any more, whoever wrote it: a fact, not a decision."""
        entry = journal.entries.pop(number, None)
        if entry is not None:
            journal.held -= Ranges.single(number)
            journal.lost |= Ranges.single(number)
            self.shrunk += 1
            self._weigh(journal, -1, -entry.size)

    def expired(self, now_s: float) -> Iterator[tuple[Journal, Ranges]]:
        """Others' bundles that have outlived what their source asked for."""
        for journal in self.journals.values():
            if journal.expires_s < now_s and self.is_foreign(journal):
                old, journal.expires_s = journal.entries.expired(now_s)
                if old:
                    yield journal, old

    # --- receipts -----------------------------------------------------------------------------------------------

    def apply(self, receipt: Receipt, at_s: float) -> Ranges | None:
        """Take a verified receipt in; None if it says nothing new. Otherwise what it makes droppable here at once:
        others' bundles. Own ones are kept for some days (`outlived`)."""
        journal = self.journals.setdefault(receipt.journal, Journal(receipt.journal))
        if receipt.serial <= journal.serial and receipt.ranges <= journal.receipted:
            return None
        fresh = (receipt.ranges - journal.receipted) & journal.held
        journal.receipted |= receipt.ranges
        if receipt.serial > journal.serial:
            bucket = receipt.journal[0]
            if journal.receipt is None:
                self.signed_for[receipt.endpoint] += 1
            else:
                self._buckets[bucket] ^= _digest(receipt.journal, journal.serial)
            journal.receipt = receipt
            self._buckets[bucket] ^= _digest(receipt.journal, receipt.serial)
        if self.is_mine(journal):
            if fresh:
                journal.kept.append((at_s, fresh))
            return NONE
        return journal.held & journal.receipted

    def held_in_vain(self, journal: Journal) -> Ranges:
        """Others' bundles that were receipted while they were on their way to the disk."""
        return NONE if self.is_mine(journal) else journal.held & journal.receipted

    def outlived(self, journal: Journal, before_s: float) -> Ranges:
        """Own bundles that were receipted before `before_s`; each is named once."""
        if not journal.kept:
            return NONE
        due = [ranges for at_s, ranges in journal.kept if at_s < before_s]
        journal.kept = [(at_s, ranges) for at_s, ranges in journal.kept if at_s >= before_s]
        return Ranges(pair for ranges in due for pair in ranges.pairs)

    # --- finished journals --------------------------------------------------------------------------------------

    def digest_buckets(self, listed: Iterable[JournalId]) -> list[int]:
        """A digest for each bucket over all journals with a receipt but those `listed` in this contact's HAVEs."""
        buckets = list(self._buckets)
        for journal_id in listed:
            journal = self.journals.get(journal_id)
            if journal and journal.serial:
                buckets[journal_id[0]] ^= _digest(journal_id, journal.serial)
        return buckets

    def finished_in(self, buckets: set[int], listed: Iterable[JournalId]) -> Iterator[Held]:
        """The journals that those digests sum up, with what is on offer by now."""
        skip = set(listed)
        for journal in self.journals.values():
            if journal.serial and journal.id[0] in buckets and journal.id not in skip:
                yield self.held(journal)


def digest_bytes(buckets: Iterable[int]) -> tuple[bytes, ...]:
    """Bucket digests as FINISHED carries them."""
    return tuple(value.to_bytes(DIGEST_SIZE, "big") for value in buckets)


def digest_total(buckets: Iterable[int]) -> int:
    """One digest of all buckets."""
    total = 0
    for value in buckets:
        total ^= value
    return total

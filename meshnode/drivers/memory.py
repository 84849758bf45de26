"""A store in memory, for simulations: the contract of `core.rows.Store` with dictionaries instead of a disk.

What was committed outlives a crash as long as the object does: a simulated device that starts again loads from the
same store. Rows are immutable, so they are kept as they came; only what a loader may change is copied.
"""

from __future__ import annotations

from dataclasses import replace

from meshnode.core.bundle import Bundle, journal_id
from meshnode.core.identity import Certificate, DeviceId, JournalId
from meshnode.core.rows import (
    DropBundles,
    DropDay,
    DropRuns,
    Entry,
    JournalRecord,
    PutAddress,
    PutBundle,
    PutCarried,
    PutCertificate,
    PutClock,
    PutCustody,
    PutDay,
    PutEncounter,
    PutMessage,
    PutOpening,
    PutReceipt,
    PutRun,
    PutSeen,
    Row,
    Snapshot,
    StoredBundle,
)


class MemoryStore:
    """`core.rows.Store` on dictionaries. Nothing blocks and nothing fails."""

    def __init__(self) -> None:
        self._clock_s = 0.0
        self._size_bytes = 0
        self._journals: dict[JournalId, JournalRecord] = {}
        self._bundles: dict[tuple[JournalId, int], PutBundle] = {}
        self._receipts: dict[JournalId, PutReceipt] = {}
        self._certificates: dict[DeviceId, Certificate] = {}
        self._openings: dict[JournalId, PutOpening] = {}
        self._messages: dict[tuple[JournalId, int], PutMessage] = {}
        self._custody: dict[tuple[JournalId, DeviceId], PutCustody] = {}
        self._addresses: dict[str, PutAddress] = {}
        self._encounters: dict[DeviceId, PutEncounter] = {}
        self._runs: dict[int, PutRun] = {}
        self._seen: dict[DeviceId, PutSeen] = {}
        self._carried: dict[tuple[int, DeviceId, DeviceId], PutCarried] = {}
        self._days: dict[int, PutDay] = {}

    def load(self) -> Snapshot:
        """Everything but payloads."""
        return Snapshot(
            clock_s=self._clock_s,
            journals=[replace(record, entries=record.entries.copy()) for record in self._journals.values()],
            receipts=[(row.receipt, row.at_s) for _, row in sorted(self._receipts.items())],
            certificates=[certificate.der for _, certificate in sorted(self._certificates.items())],
            openings=[row for _, row in sorted(self._openings.items())],
            messages=list(self._messages.values()),
            custody=[row for _, row in sorted(self._custody.items())],
            addresses=[row for _, row in sorted(self._addresses.items())],
            encounters=[row for _, row in sorted(self._encounters.items())],
            runs=[row for _, row in sorted(self._runs.items())],
            seen=[row for _, row in sorted(self._seen.items())],
            carried=[row for _, row in sorted(self._carried.items())],
            days=[row for _, row in sorted(self._days.items())],
        )

    def read(self, journal: JournalId, number: int) -> StoredBundle | None:
        """One bundle, or None if it is not here."""
        put = self._bundles.get((journal, number))
        if put is None:
            return None
        bundle = put.bundle
        return StoredBundle(bundle.header_bytes, bundle.signature, bundle.payload, put.born_s, put.arrived_ms)

    def commit(self, rows: list[Row], clock_s: float) -> None:
        """Keep rows, all or none, in order."""
        for row in rows:
            if isinstance(row, PutBundle):
                header = row.bundle.header
                assert row.journal == journal_id(header.source, header.destination, header.epoch)
        for row in rows:
            self._apply(row)
        self._clock_s = clock_s

    @property
    def size_bytes(self) -> int:
        """What all bundles weigh: their payloads, as their headers declare them."""
        return self._size_bytes

    def copy(self) -> MemoryStore:
        """A backup."""
        other = MemoryStore()
        other._clock_s = self._clock_s
        other._size_bytes = self._size_bytes
        other._journals = {key: replace(r, entries=r.entries.copy()) for key, r in self._journals.items()}
        other._bundles = dict(self._bundles)
        other._receipts = dict(self._receipts)
        other._certificates = dict(self._certificates)
        other._openings = dict(self._openings)
        other._messages = dict(self._messages)
        other._custody = dict(self._custody)
        other._addresses = dict(self._addresses)
        other._encounters = dict(self._encounters)
        other._runs = dict(self._runs)
        other._seen = dict(self._seen)
        other._carried = dict(self._carried)
        other._days = dict(self._days)
        return other

    def close(self) -> None:
        """Nothing to let go of: what was committed stays for the next load."""

    def spoil(self, journal: JournalId, number: int) -> None:
        """Bit rot: one bit of a bundle's payload turns over."""
        put = self._bundles[journal, number]
        rotten = bytes((put.bundle.payload[0] ^ 1,)) + put.bundle.payload[1:]
        bundle = Bundle(put.bundle.header, put.bundle.header_bytes, put.bundle.signature, rotten)
        self._bundles[journal, number] = replace(put, bundle=bundle)

    def _apply(self, row: Row) -> None:
        match row:
            case PutBundle():
                self._put_bundle(row)
            case DropBundles():
                self._drop_bundles(row)
            case PutReceipt():
                self._receipts[row.receipt.journal] = row
            case PutCertificate(certificate):
                self._certificates[certificate.device] = certificate
            case PutOpening():
                self._openings[row.journal] = row
            case PutMessage():
                self._openings.pop(row.journal, None)
                self._messages.pop((row.journal, row.first), None)
                self._messages[row.journal, row.first] = row
            case PutCustody(journal, peer, ranges):
                self._custody.pop((journal, peer), None)
                if ranges:
                    self._custody[journal, peer] = row
            case PutAddress():
                self._addresses[row.address] = row
            case PutEncounter():
                self._encounters[row.peer] = row
            case PutClock():
                pass  # every commit does
            case _:
                self._remember(row)

    def _remember(self, row: PutRun | DropRuns | PutSeen | PutCarried | PutDay | DropDay) -> None:
        match row:
            case PutRun():
                self._runs[row.number] = row
            case DropRuns(numbers):
                for number in numbers:
                    self._runs.pop(number, None)
            case PutSeen():
                self._seen[row.device] = row
            case PutCarried():
                self._carried[row.day, row.carrier, row.source] = row
            case PutDay():
                self._days[row.day] = row
            case DropDay(day):
                self._days.pop(day, None)
                for place in [place for place in self._carried if place[0] == day]:
                    del self._carried[place]

    def _drop_bundles(self, row: DropBundles) -> None:
        record = self._journals.get(row.journal)
        if record is not None:
            for number in row.ranges & record.entries.ranges:
                self._size_bytes -= record.entries.pop(number).size
                del self._bundles[row.journal, number]
        opening = self._openings.get(row.journal)
        if opening is not None and opening.first in row.ranges:
            del self._openings[row.journal]

    def _put_bundle(self, row: PutBundle) -> None:
        header = row.bundle.header
        record = self._journals.get(row.journal)
        if record is None:
            record = JournalRecord(row.journal, header.source, header.destination, header.epoch)
            self._journals[row.journal] = record
        if (before := record.entries.get(header.number)) is not None:
            self._size_bytes -= before.size
        self._size_bytes += header.payload_size
        record.previous = header.previous or record.previous
        record.entries[header.number] = Entry(
            header.payload_size, header.priority, header.first, header.parts, row.born_s, header.lifetime_s
        )
        self._bundles[row.journal, header.number] = row

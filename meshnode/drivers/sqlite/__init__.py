"""The store of a device: a SQLite file, write-ahead log, every commit synced (synchronous=FULL), and one of slots.

One transaction keeps everything together: a bundle, the message it completes, the receipt that frees it. `entry` has
what the brain needs at start and is small and dense; `bundle` has the bytes, which only sending reads. Of bundles with
large payloads it has nothing: those are in a slot each, in a file beside the database, which `entry` names.

Disks rot, and SQLite sees only what breaks its own structure. So all that does not prove itself (a payload by the
digest in its header, a certificate by its signature, a journal by its id) has a checksum beside it: header and
signature of a bundle, receipts, messages, summaries. At start each row is checked but the bytes of bundles, and the
entries within a block that has a summary: these are when they are read. Damaged rows are left out and counted. A page
that the start needs and SQLite cannot read stops it (`StoreDamaged`), and `meshnode store salvage` helps. There is no
check of the whole file, which would take minutes.

    schema     the tables                     loading    what the brain needs at start, checked
    summaries  the same of many entries at once
    slots      large payloads, written once   heads      what a slot says of itself
    swapping   one store in place of another  pages      rows out of what is left of a damaged file
    remembering  what happened and when, and the sums of days
    versions   which program wrote it         connecting  a connection, and a file that is ready for one

One connection writes, one reads; both may be used from any thread, one at a time. What is dropped is given back to
the disk by `tidy`, a bit at a time, when there is nothing else to do (incremental auto-vacuum; slots move forward);
summaries are written then too.
"""

from __future__ import annotations

import sqlite3
import threading
import time
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from meshnode.core.bundle import journal_id
from meshnode.core.errors import StoreTrouble
from meshnode.core.identity import JournalId
from meshnode.core.rows import (
    DropBundles,
    JournalRecord,
    PutAddress,
    PutBundle,
    PutCertificate,
    PutClock,
    PutCustody,
    PutEncounter,
    PutMessage,
    PutOpening,
    PutReceipt,
    Rotten,
    Row,
    Snapshot,
    StoredBundle,
)
from meshnode.core.words import say
from meshnode.drivers.sqlite import loading, remembering
from meshnode.drivers.sqlite.connecting import connect, make_private, prepare
from meshnode.drivers.sqlite.heads import Head
from meshnode.drivers.sqlite.schema import (
    PAGE_SIZE,
    SCHEMA_VERSION,
    StoreDamaged,
    checksum,
    is_damage,
    is_slot,
    is_unreadable,
    slotted_size,
)
from meshnode.drivers.sqlite.slots import SLOTTED_SIZE, find_slots, move_slots
from meshnode.drivers.sqlite.summaries import Summaries

__all__ = ["PAGE_SIZE", "SCHEMA_VERSION", "SqliteStore", "StoreDamaged"]

#: Pages that one step of `tidy` gives back.
TIDY_PAGES: Final = 256
#: And slots that it moves.
TIDY_SLOTS: Final = 8
#: A bundle that the disk does not give back for so long is lost to it, as far as this process is concerned.
UNREADABLE_S: Final = 60.0


class SqliteStore:
    """`core.rows.Store` on a file. Errors of SQLite and of the disk become StoreTrouble."""

    def __init__(self, path: Path, becomes: Path | None = None) -> None:
        """Open or create. `becomes`: where it is going to be, if it is made to be renamed. Raises StoreTrouble, or
        StoreTooNew if a newer meshnode wrote it."""
        self._path = path
        make_private(path)
        with self._trouble():
            self._writer = connect(path)
            try:
                prepare(self._writer, path)
                self._slots = find_slots(self._writer, path, becomes or path)
                self._reader = connect(path)
            except BaseException:
                self._writer.close()
                raise
            self._reading = threading.Lock()
            row = self._writer.execute("SELECT coalesce(max(id), 0) FROM bundle").fetchone()
        self._next_bundle: int = row[0] + 1
        self._summaries = Summaries(self._writer)
        self._journals: dict[JournalId, int] = {}
        #: Bundles that the disk did not give back: since when.
        self._failing: dict[tuple[JournalId, int], float] = {}
        self._leaves_orphans = False

    @property
    def payloads_path(self) -> Path:
        """Where the large payloads are, if there are any."""
        return self._slots.path

    @contextmanager
    def _trouble(self) -> Iterator[None]:
        try:
            yield
        except UnicodeDecodeError as error:  # SQLite says what is wrong in the words that have rotted
            raise StoreDamaged(path=self._path, problem="malformed database schema") from error
        except sqlite3.Error as error:
            kind = StoreDamaged if is_damage(error) else StoreTrouble
            raise kind(path=self._path, problem=str(error)) from error
        except OSError as error:  # of slots
            raise StoreTrouble(path=self._path, problem=error.strerror or str(error)) from error

    def close(self) -> None:
        """Merge the log and let go of the files."""
        with self._trouble(), self._reading:
            self._reader.close()
            self._writer.close()
            self._slots.close()

    # --- reading ------------------------------------------------------------------------------------------------

    def load(self) -> Snapshot:
        """Everything but payloads, and but what is damaged."""
        damaged: Counter[str] = Counter()
        with self._trouble():
            records = loading.load_journals(self._writer, self._summaries, damaged)
            self._journals = {record.id: row for row, record in records.items()}
            snapshot = Snapshot(
                clock_s=loading.load_clock_s(self._writer),
                journals=list(records.values()),
                receipts=loading.load_receipts(self._writer, damaged),
                certificates=loading.load_certificates(self._writer, damaged),
                openings=loading.load_openings(self._writer, damaged),
                messages=loading.load_messages(self._writer, damaged),
                custody=loading.load_custody(self._writer, damaged),
                addresses=loading.load_addresses(self._writer, damaged),
                encounters=loading.load_encounters(self._writer, damaged),
            )
            remembering.load(self._writer, snapshot, damaged)
        snapshot.damaged = dict(+damaged)
        return snapshot

    def read(self, journal: JournalId, number: int) -> StoredBundle | None:
        """One bundle, or None if it is not here. Blocks; from any thread. Raises Rotten, or StoreTrouble if it may be
        there another time."""
        place = journal, number
        try:
            with self._trouble():
                row = self._read(place)
        except StoreDamaged as damage:
            raise Rotten(**damage.fields) from damage
        except StoreTrouble as trouble:
            since_s = self._failing.setdefault(place, time.monotonic())
            if time.monotonic() - since_s > UNREADABLE_S:
                raise Rotten(**trouble.fields) from trouble
            raise
        self._failing.pop(place, None)
        if row is None:
            return None
        header, signature, payload, born_s, arrived_ms, crc = row
        whole = type(header) is type(signature) is type(payload) is bytes and type(arrived_ms) is int
        if not whole or type(born_s) is not float or crc not in (None, zlib.crc32(header + signature)):
            wrong = say("number {number} of journal {journal}", number=number, journal=journal.hex())
            raise Rotten(path=self._path, problem=wrong)
        return StoredBundle(header, signature, payload, born_s, arrived_ms)

    def _read(self, place: tuple[JournalId, int]) -> Any:
        """Header, signature, payload, born_s, arrived_ms, crc."""
        before = None
        while (row := self._read_row(place)) is not None:
            slot, size, *stored, born_s, arrived_ms, crc = row
            if slot is None:
                return None if arrived_ms is None else (*stored, born_s, arrived_ms, crc)
            if is_slot(slot):
                head, payload = self._slots.read(slot, slotted_size(size))
                if head is not None and head.checksum == crc:
                    return head.header, head.signature, payload, born_s, head.arrived_ms, crc
            if row == before:
                raise StoreDamaged(
                    path=self._path, problem=say("slot {slot} is not what it should be", slot=slot)
                )
            before = row  # another may have come into its slot meanwhile: then its row is gone, or names another slot
        return None

    def _read_row(self, place: tuple[JournalId, int]) -> Any:
        ask = (
            "SELECT slot, size, header, signature, payload, born_s, arrived_ms, crc"
            " FROM entry LEFT JOIN bundle ON id = bundle AND slot IS NULL"
            " WHERE journal = (SELECT id FROM journal WHERE journal = ?) AND number = ?"
        )
        with self._reading:
            try:
                return self._reader.execute(ask, place).fetchone()
            except sqlite3.OperationalError as error:
                if is_damage(error):
                    raise
                return self._reader.execute(ask, place).fetchone()  # it may have been busy, or woken up

    # --- writing ------------------------------------------------------------------------------------------------

    def commit(self, rows: list[Row], clock_s: float) -> None:
        """Make rows durable, all or none, in order.

        To remove a bundle SQLite has to read all of it. What is rotten may not be readable, and must not keep all the
        others from being written: so its bytes are left behind then, without an entry."""
        with self._trouble():
            try:
                self._commit(rows, clock_s)
            except sqlite3.Error as error:
                if not is_unreadable(error) or not any(
                    isinstance(row, PutBundle | DropBundles) for row in rows
                ):
                    raise
                self._leaves_orphans = True
                try:
                    self._commit(rows, clock_s)
                finally:
                    self._leaves_orphans = False

    def _commit(self, rows: list[Row], clock_s: float) -> None:
        with self._transaction():
            for row in rows:
                self._apply(row)
            self._writer.execute("INSERT OR REPLACE INTO meta VALUES ('clock_s', ?)", (clock_s,))

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._writer.execute("BEGIN IMMEDIATE")
        is_committing = False
        try:
            yield
            self._slots.flush()
            is_committing = True
            self._writer.execute("COMMIT")
        except BaseException:
            self._journals.clear()  # some may have been made in what is now undone
            self._summaries.forget()
            try:
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
            finally:
                self._slots.undo(in_doubt=is_committing)
            raise
        self._slots.done()

    def know(self, journals: Iterable[JournalRecord]) -> None:
        """Make journals known of which no bundle is put, as a salvaged store has to."""
        with self._trouble():
            self._writer.executemany(
                "INSERT OR IGNORE INTO journal (journal, source, destination, epoch, previous, previous_last)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                [
                    (it.id, it.source, it.destination, it.epoch)
                    + ((it.previous.journal, it.previous.last) if it.previous else (None, None))
                    for it in journals
                ],
            )

    def _apply(self, row: Row) -> None:
        do = self._writer.execute
        match row:
            case PutBundle():
                self._put_bundle(row)
            case DropBundles():
                self._drop(row)
            case PutReceipt(receipt, at_s):
                proof = receipt.body, receipt.signature
                do(
                    "INSERT OR REPLACE INTO receipt VALUES (?, ?, ?, ?, ?)",
                    (receipt.journal, at_s, *proof, checksum(*proof)),
                )
            case PutCertificate(certificate):
                do("INSERT OR REPLACE INTO certificate VALUES (?, ?)", (certificate.device, certificate.der))
            case PutOpening(journal, first):
                do("INSERT OR REPLACE INTO opening VALUES (?, ?)", (journal, first))
            case PutMessage():
                do("DELETE FROM opening WHERE journal = ?", (row.journal,))
                said = (row.journal, row.first, row.last, row.size_bytes, row.submitted_ms, row.label)
                do(
                    "INSERT OR REPLACE INTO message (journal, first, last, size_bytes, submitted_ms, label, crc)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (*said, checksum(*said)),
                )
            case PutCustody(journal, peer, ranges):
                do("DELETE FROM custody WHERE journal = ? AND peer = ?", (journal, peer))
                self._writer.executemany(
                    "INSERT INTO custody VALUES (?, ?, ?, ?)",
                    [(journal, peer, first, last) for first, last in ranges.pairs],
                )
            case PutAddress(address, device, at_s):
                do("INSERT OR REPLACE INTO address VALUES (?, ?, ?)", (address, device, at_s))
            case PutEncounter(peer, since_s, meetings, last_s, told_s):
                met = peer, since_s, meetings, last_s, told_s
                do("INSERT OR REPLACE INTO encounter VALUES (?, ?, ?, ?, ?)", met)
            case PutClock():
                pass  # every commit does
            case _:
                remembering.apply(self._writer, row)

    def _journal_row(self, put: PutBundle) -> int:
        row = self._journals.get(put.journal)
        if row is None:
            header = put.bundle.header
            assert put.journal == journal_id(header.source, header.destination, header.epoch)
            self._writer.execute(
                "INSERT OR IGNORE INTO journal (journal, source, destination, epoch) VALUES (?, ?, ?, ?)",
                (put.journal, header.source, header.destination, header.epoch),
            )
            found = self._writer.execute("SELECT id FROM journal WHERE journal = ?", (put.journal,))
            row = self._journals[put.journal] = int(found.fetchone()[0])
        return row

    def _put_bundle(self, put: PutBundle) -> None:
        do = self._writer.execute
        header = put.bundle.header
        journal = self._journal_row(put)
        place = journal, header.number
        self._summaries.touch(journal, header.number, header.number)
        if do("SELECT 1 FROM entry WHERE journal = ? AND number = ?", place).fetchone():
            # A number that was given up and is used again takes the place of what a failed removal left behind.
            self._drop_range(journal, header.number, header.number)
        if header.previous is not None:
            previous = header.previous.journal, header.previous.last, journal
            do("UPDATE journal SET previous = ?, previous_last = ? WHERE id = ?", previous)
        bundle, slot = self._put_bytes(put)
        do(
            "INSERT INTO entry VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *place,
                bundle,
                header.payload_size,
                header.priority,
                header.first,
                header.parts,
                put.born_s,
                header.lifetime_s,
                zlib.crc32(put.bundle.header_bytes + put.bundle.signature),
                slot,
            ),
        )

    def _put_bytes(self, put: PutBundle) -> tuple[int, int | None]:
        """The row that has them, or 0 and the slot."""
        header, signature, payload = put.bundle.header_bytes, put.bundle.signature, put.bundle.payload
        if len(payload) > SLOTTED_SIZE:
            return 0, self._slots.put(Head(header, signature, put.born_s, put.arrived_ms), payload)
        bundle = self._next_bundle
        self._next_bundle += 1
        self._writer.execute(
            "INSERT INTO bundle VALUES (?, ?, ?, ?, ?)", (bundle, put.arrived_ms, header, signature, payload)
        )
        return bundle, None

    def _drop(self, drop: DropBundles) -> None:
        found = self._writer.execute("SELECT id FROM journal WHERE journal = ?", (drop.journal,)).fetchone()
        for first, last in drop.ranges.pairs:
            gone = (drop.journal, first, last)
            self._writer.execute("DELETE FROM opening WHERE journal = ? AND first BETWEEN ? AND ?", gone)
            if found is not None:
                self._drop_range(found[0], first, last)

    def _drop_range(self, journal: int, first: int, last: int) -> None:
        do = self._writer.execute
        self._summaries.touch(journal, first, last)
        span = (journal, first, last)
        ask = "SELECT slot FROM entry WHERE journal = ? AND number BETWEEN ? AND ? AND slot IS NOT NULL"
        for (slot,) in do(ask, span):
            if is_slot(slot):
                self._slots.drop(slot)
        if not self._leaves_orphans:
            do(
                "DELETE FROM bundle WHERE id IN"
                " (SELECT bundle FROM entry WHERE journal = ? AND number BETWEEN ? AND ?)",
                span,
            )
        do("DELETE FROM entry WHERE journal = ? AND number BETWEEN ? AND ?", span)

    # --- space --------------------------------------------------------------------------------------------------

    def sizes(self) -> tuple[int, int]:
        """(bytes of the database and of the slots, bytes of them that are free for reuse)."""
        with self._trouble(), self._reading:
            pages = self._reader.execute("PRAGMA page_count").fetchone()[0]
            free = self._reader.execute("PRAGMA freelist_count").fetchone()[0]
            size = self._reader.execute("PRAGMA page_size").fetchone()[0]
            slots_size, slots_free = self._slots.sizes()
        return pages * size + slots_size, free * size + slots_free

    def tidy(self) -> bool:
        """Give some free pages and slots back to the disk, or write down a block of entries; whether there is more to
        do. Blocks for some milliseconds."""
        with self._trouble():
            # `execute` would step once, and give back one page: it takes a statement without columns to be over then
            self._writer.executescript(f"PRAGMA incremental_vacuum({TIDY_PAGES})")
            if self._writer.execute("PRAGMA freelist_count").fetchone()[0]:
                return True
            self._slots.cut()
            if moving := self._slots.last(TIDY_SLOTS):
                with self._transaction():
                    move_slots(self._writer, self._slots, moving)
                self._slots.cut()
                return True
            if block := self._summaries.due():
                with self._transaction():
                    self._summaries.write(block)
                return True
            self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            return False

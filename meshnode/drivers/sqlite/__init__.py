"""The store of a device: one SQLite file, write-ahead log, every commit synced (synchronous=FULL).

Payloads are small, so they live in the database and one transaction keeps everything together: a bundle, the message
it completes, the receipt that frees it. `entry` has what the brain needs at start and is small and dense; `bundle` has
the bytes, which only sending reads.

Disks rot, and SQLite sees only what breaks its own structure. So all that does not prove itself (a payload by the
digest in its header, a certificate by its signature, a journal by its id) has a checksum beside it: header and
signature of a bundle, receipts, messages. At start each row is checked but the bytes of bundles, which are when they
are read; damaged rows are left out and counted. A page that SQLite cannot read at all stops the start
(`StoreDamaged`), and `meshnode store salvage` helps. There is no check of the whole file, which would take minutes.

    schema     the tables                     loading    what the brain needs at start, checked
    swapping   one store in place of another  pages      rows out of what is left of a damaged file

One connection writes, one reads; both may be used from any thread, one at a time. What is dropped is given back to
the disk by `tidy`, a bit at a time, when there is nothing else to do (incremental auto-vacuum).
"""

from __future__ import annotations

import os
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
from meshnode.core.errors import StoreTooNew, StoreTrouble
from meshnode.core.identity import JournalId
from meshnode.core.limits import MIB
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
from meshnode.drivers.sqlite import loading
from meshnode.drivers.sqlite.schema import (
    FORMAT_MAX,
    PAGE_SIZE,
    SCHEMA,
    SCHEMA_VERSION,
    UPGRADES,
    StoreDamaged,
    checksum,
    is_damage,
    is_unreadable,
)
from meshnode.drivers.sqlite.swapping import finish_swap

__all__ = ["PAGE_SIZE", "SCHEMA_VERSION", "SqliteStore", "StoreDamaged"]

#: The log is merged into the file when it has grown to this, and cut back to it.
LOG_SIZE: Final = 8 * MIB
#: Pages that one step of `tidy` gives back.
TIDY_PAGES: Final = 256
BUSY_S: Final = 30.0
#: A bundle that the disk does not give back for so long is lost to it, as far as this process is concerned.
UNREADABLE_S: Final = 60.0


class SqliteStore:
    """`core.rows.Store` on a file. Errors of SQLite and of the disk become StoreTrouble."""

    def __init__(self, path: Path) -> None:
        """Open or create. Raises StoreTrouble, or StoreTooNew if a newer meshnode wrote it."""
        self._path = path
        self._create_private()
        with self._trouble():
            self._writer = self._connect()
            try:
                self._prepare()
                self._reader = self._connect()
            except BaseException:
                self._writer.close()
                raise
            self._reading = threading.Lock()
            row = self._writer.execute("SELECT coalesce(max(id), 0) FROM bundle").fetchone()
        self._next_bundle: int = row[0] + 1
        self._journals: dict[JournalId, int] = {}
        #: Bundles that the disk did not give back: since when.
        self._failing: dict[tuple[JournalId, int], float] = {}
        self._leaves_orphans = False

    def _create_private(self) -> None:
        """SQLite would let the umask decide who may read; its log files take over what this one has."""
        try:
            finish_swap(self._path)
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        except OSError as error:
            raise StoreTrouble(path=self._path, problem=error.strerror or str(error)) from None

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path, timeout=BUSY_S, isolation_level=None, check_same_thread=False
        )
        connection.execute("PRAGMA synchronous = FULL")
        connection.create_function("checksum", -1, checksum, deterministic=True)
        connection.text_factory = lambda text: text.decode(errors="replace")
        return connection

    def _prepare(self) -> None:
        version = self._writer.execute("PRAGMA user_version").fetchone()[0]
        if not 0 <= version < FORMAT_MAX:
            raise StoreDamaged(path=self._path, problem=f"its format is said to be {version}")
        if version > SCHEMA_VERSION:
            raise StoreTooNew(path=self._path, theirs=version, ours=SCHEMA_VERSION)
        if version == 0:
            self._writer.execute(f"PRAGMA page_size = {PAGE_SIZE}")
            self._writer.execute("PRAGMA auto_vacuum = INCREMENTAL")
        self._writer.execute("PRAGMA journal_mode = WAL")
        self._writer.execute(f"PRAGMA wal_autocheckpoint = {LOG_SIZE // PAGE_SIZE}")
        self._writer.execute(f"PRAGMA journal_size_limit = {LOG_SIZE}")
        if version == 0:
            self._writer.executescript(f"BEGIN;{SCHEMA}PRAGMA user_version = {SCHEMA_VERSION};COMMIT;")
        for older in range(version or SCHEMA_VERSION, SCHEMA_VERSION):
            self._writer.executescript(f"BEGIN;{UPGRADES[older]}PRAGMA user_version = {older + 1};COMMIT;")

    @contextmanager
    def _trouble(self) -> Iterator[None]:
        try:
            yield
        except UnicodeDecodeError as error:  # SQLite says what is wrong in the words that have rotted
            raise StoreDamaged(path=self._path, problem="malformed database schema") from error
        except sqlite3.Error as error:
            kind = StoreDamaged if is_damage(error) else StoreTrouble
            raise kind(path=self._path, problem=str(error)) from error

    def close(self) -> None:
        """Merge the log and let go of the file."""
        with self._trouble(), self._reading:
            self._reader.close()
            self._writer.close()

    # --- reading ------------------------------------------------------------------------------------------------

    def load(self) -> Snapshot:
        """Everything but payloads, and but what is damaged."""
        damaged: Counter[str] = Counter()
        with self._trouble():
            records = loading.load_journals(self._writer, damaged)
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
        snapshot.damaged = dict(+damaged)
        return snapshot

    def read(self, journal: JournalId, number: int) -> StoredBundle | None:
        """One bundle, or None if it is not here. Blocks; from any thread. Raises Rotten, or StoreTrouble if it may be
        there another time."""
        place = journal, number
        try:
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
        *stored, crc = row
        header, signature, payload, born_s, arrived_ms = stored
        whole = type(header) is type(signature) is type(payload) is bytes and type(arrived_ms) is int
        if not whole or type(born_s) is not float or crc not in (None, zlib.crc32(header + signature)):
            raise Rotten(path=self._path, problem=f"number {number} of journal {journal.hex()}")
        return StoredBundle(header, signature, payload, born_s, arrived_ms)

    def _read(self, place: tuple[JournalId, int]) -> Any:
        ask = (
            "SELECT header, signature, payload, born_s, arrived_ms, crc FROM entry JOIN bundle ON id = bundle"
            " WHERE journal = (SELECT id FROM journal WHERE journal = ?) AND number = ?"
        )
        with self._trouble(), self._reading:
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
        self._writer.execute("BEGIN IMMEDIATE")
        try:
            for row in rows:
                self._apply(row)
            self._writer.execute("INSERT OR REPLACE INTO meta VALUES ('clock_s', ?)", (clock_s,))
            self._writer.execute("COMMIT")
        except BaseException:
            self._journals.clear()  # some may have been made in what is now undone
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
            raise

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
        # A number that was given up and is used again takes the place of what a failed removal left behind.
        self._drop_range(journal, header.number, header.number)
        if header.previous is not None:
            previous = header.previous.journal, header.previous.last, journal
            do("UPDATE journal SET previous = ?, previous_last = ? WHERE id = ?", previous)
        bundle = self._next_bundle
        self._next_bundle += 1
        do(
            "INSERT INTO bundle VALUES (?, ?, ?, ?, ?)",
            (bundle, put.arrived_ms, put.bundle.header_bytes, put.bundle.signature, put.bundle.payload),
        )
        do(
            "INSERT INTO entry VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                journal,
                header.number,
                bundle,
                header.payload_size,
                header.priority,
                header.first,
                header.parts,
                put.born_s,
                header.lifetime_s,
                zlib.crc32(put.bundle.header_bytes + put.bundle.signature),
            ),
        )

    def _drop(self, drop: DropBundles) -> None:
        found = self._writer.execute("SELECT id FROM journal WHERE journal = ?", (drop.journal,)).fetchone()
        for first, last in drop.ranges.pairs:
            gone = (drop.journal, first, last)
            self._writer.execute("DELETE FROM opening WHERE journal = ? AND first BETWEEN ? AND ?", gone)
            if found is not None:
                self._drop_range(found[0], first, last)

    def _drop_range(self, journal: int, first: int, last: int) -> None:
        do = self._writer.execute
        span = (journal, first, last)
        if not self._leaves_orphans:
            do(
                "DELETE FROM bundle WHERE id IN"
                " (SELECT bundle FROM entry WHERE journal = ? AND number BETWEEN ? AND ?)",
                span,
            )
        do("DELETE FROM entry WHERE journal = ? AND number BETWEEN ? AND ?", span)

    # --- space --------------------------------------------------------------------------------------------------

    def sizes(self) -> tuple[int, int]:
        """(bytes of the database, bytes of it that are free for reuse)."""
        with self._trouble(), self._reading:
            pages = self._reader.execute("PRAGMA page_count").fetchone()[0]
            free = self._reader.execute("PRAGMA freelist_count").fetchone()[0]
            size = self._reader.execute("PRAGMA page_size").fetchone()[0]
        return pages * size, free * size

    def tidy(self) -> bool:
        """Give some free pages back to the disk; whether there are more. Blocks for some milliseconds."""
        with self._trouble():
            # `execute` would step once, and give back one page: it takes a statement without columns to be over then
            self._writer.executescript(f"PRAGMA incremental_vacuum({TIDY_PAGES})")
            if self._writer.execute("PRAGMA freelist_count").fetchone()[0]:
                return True
            self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            return False

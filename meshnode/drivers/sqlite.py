"""The store of a device: one SQLite file, write-ahead log, every commit synced (synchronous=FULL).

Payloads are small, so they live in the database and one transaction keeps everything together: a bundle, the message
it completes, the receipt that frees it. `entry` has what the brain needs at start and is small and dense; `bundle` has
the bytes, which only sending reads.

One connection writes, one reads; both may be used from any thread, one at a time. What is dropped is given back to
the disk by `tidy`, a bit at a time, when there is nothing else to do (incremental auto-vacuum).
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from meshnode.core.bundle import journal_id
from meshnode.core.errors import StoreTooNew, StoreTrouble
from meshnode.core.identity import DeviceId, JournalId
from meshnode.core.intervals import Ranges
from meshnode.core.limits import KIB, MIB
from meshnode.core.ports import (
    DropBundles,
    Entry,
    JournalRecord,
    PutAddress,
    PutBundle,
    PutCertificate,
    PutClock,
    PutCustody,
    PutMessage,
    PutOpening,
    PutReceipt,
    Row,
    Snapshot,
    StoredBundle,
)
from meshnode.core.receipt import read_receipt

SCHEMA_VERSION: Final = 2
#: Large pages suit payloads of 8 to 256 KiB: of the sizes that SQLite takes, 32 and 64 KiB were fastest for both ends,
#: and 16 KiB the worst, since only one bundle of 8 KiB fits into such a page.
PAGE_SIZE: Final = 32 * KIB
#: The log is merged into the file when it has grown to this, and cut back to it.
LOG_SIZE: Final = 8 * MIB
#: Pages that one step of `tidy` gives back.
TIDY_PAGES: Final = 256
BUSY_S: Final = 30.0

_SCHEMA: Final = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID;
CREATE TABLE journal (
    id INTEGER PRIMARY KEY, journal BLOB NOT NULL UNIQUE,
    source BLOB NOT NULL, destination BLOB NOT NULL, epoch BLOB NOT NULL
);
CREATE TABLE entry (
    journal INTEGER NOT NULL, number INTEGER NOT NULL, bundle INTEGER NOT NULL, size INTEGER NOT NULL,
    priority INTEGER NOT NULL, first INTEGER NOT NULL, parts INTEGER NOT NULL, born_s REAL NOT NULL,
    lifetime_s INTEGER NOT NULL, PRIMARY KEY (journal, number)
) WITHOUT ROWID;
CREATE TABLE bundle (
    id INTEGER PRIMARY KEY, arrived_ms INTEGER NOT NULL, header BLOB NOT NULL, signature BLOB NOT NULL,
    payload BLOB NOT NULL
);
CREATE TABLE receipt (journal BLOB PRIMARY KEY, at_s REAL NOT NULL, body BLOB NOT NULL, signature BLOB NOT NULL);
CREATE TABLE certificate (device BLOB PRIMARY KEY, der BLOB NOT NULL);
CREATE TABLE message (
    id INTEGER PRIMARY KEY, journal BLOB NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL,
    size_bytes INTEGER NOT NULL, submitted_ms INTEGER NOT NULL, label BLOB NOT NULL, UNIQUE (journal, first)
);
CREATE TABLE opening (journal BLOB PRIMARY KEY, first INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE custody (
    journal BLOB NOT NULL, peer BLOB NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL,
    PRIMARY KEY (journal, peer, first)
) WITHOUT ROWID;
CREATE TABLE address (address TEXT PRIMARY KEY, device BLOB NOT NULL, at_s REAL NOT NULL) WITHOUT ROWID;
"""
#: What leads from each older version to the next one.
_UPGRADES: Final = {
    1: "CREATE TABLE opening (journal BLOB PRIMARY KEY, first INTEGER NOT NULL) WITHOUT ROWID;",
}


class SqliteStore:
    """`core.ports.Store` on a file. Errors of SQLite and of the disk become StoreTrouble."""

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

    def _create_private(self) -> None:
        """SQLite would let the umask decide who may read; its log files take over what this one has."""
        try:
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        except OSError as error:
            raise StoreTrouble(path=self._path, problem=error.strerror or str(error)) from None

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path, timeout=BUSY_S, isolation_level=None, check_same_thread=False
        )
        connection.execute("PRAGMA synchronous = FULL")
        return connection

    def _prepare(self) -> None:
        version = self._writer.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA_VERSION:
            raise StoreTooNew(path=self._path, theirs=version, ours=SCHEMA_VERSION)
        if version == 0:
            self._writer.execute(f"PRAGMA page_size = {PAGE_SIZE}")
            self._writer.execute("PRAGMA auto_vacuum = INCREMENTAL")
        self._writer.execute("PRAGMA journal_mode = WAL")
        self._writer.execute(f"PRAGMA wal_autocheckpoint = {LOG_SIZE // PAGE_SIZE}")
        self._writer.execute(f"PRAGMA journal_size_limit = {LOG_SIZE}")
        if version == 0:
            self._writer.executescript(f"BEGIN;{_SCHEMA}PRAGMA user_version = {SCHEMA_VERSION};COMMIT;")
        for older in range(version or SCHEMA_VERSION, SCHEMA_VERSION):
            self._writer.executescript(f"BEGIN;{_UPGRADES[older]}PRAGMA user_version = {older + 1};COMMIT;")

    @contextmanager
    def _trouble(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StoreTrouble(path=self._path, problem=str(error)) from error

    def close(self) -> None:
        """Merge the log and let go of the file."""
        with self._trouble(), self._reading:
            self._reader.close()
            self._writer.close()

    # --- reading ------------------------------------------------------------------------------------------------

    def load(self) -> Snapshot:
        """Everything but payloads."""
        with self._trouble():
            ask = self._writer.execute
            snapshot = Snapshot(clock_s=self._clock_s())
            by_row: dict[int, JournalRecord] = {}
            for row, journal, source, destination, epoch in ask("SELECT * FROM journal ORDER BY id"):
                record = JournalRecord(journal, source, destination, epoch)
                by_row[row] = record
                self._journals[journal] = row
                snapshot.journals.append(record)
            for row, number, *entry in ask(
                "SELECT journal, number, size, priority, first, parts, born_s, lifetime_s FROM entry"
            ):
                by_row[row].entries[number] = Entry(*entry)
            for at_s, body, signature in ask("SELECT at_s, body, signature FROM receipt ORDER BY journal"):
                snapshot.receipts.append((read_receipt(body, signature), at_s))
            snapshot.certificates = [der for (der,) in ask("SELECT der FROM certificate ORDER BY device")]
            snapshot.openings = [PutOpening(*row) for row in ask("SELECT * FROM opening ORDER BY journal")]
            snapshot.messages = [
                PutMessage(*row)
                for row in ask(
                    "SELECT journal, first, last, size_bytes, submitted_ms, label FROM message ORDER BY id"
                )
            ]
            snapshot.custody = self._load_custody()
            snapshot.addresses = [PutAddress(*row) for row in ask("SELECT * FROM address ORDER BY address")]
        return snapshot

    def _clock_s(self) -> float:
        row = self._writer.execute("SELECT value FROM meta WHERE name = 'clock_s'").fetchone()
        return float(row[0]) if row else 0.0

    def _load_custody(self) -> list[PutCustody]:
        pairs: dict[tuple[JournalId, DeviceId], list[tuple[int, int]]] = {}
        for journal, peer, first, last in self._writer.execute("SELECT * FROM custody"):
            pairs.setdefault((journal, peer), []).append((first, last))
        return [PutCustody(journal, peer, Ranges(ranges)) for (journal, peer), ranges in pairs.items()]

    def read(self, journal: JournalId, number: int) -> StoredBundle | None:
        """One bundle, or None if it is not here. Blocks; from any thread."""
        with self._trouble(), self._reading:
            row = self._reader.execute(
                "SELECT header, signature, payload, born_s, arrived_ms FROM entry JOIN bundle ON id = bundle"
                " WHERE journal = (SELECT id FROM journal WHERE journal = ?) AND number = ?",
                (journal, number),
            ).fetchone()
        return StoredBundle(*row) if row else None

    # --- writing ------------------------------------------------------------------------------------------------

    def commit(self, rows: list[Row], clock_s: float) -> None:
        """Make rows durable, all or none, in order."""
        with self._trouble():
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

    def _apply(self, row: Row) -> None:
        do = self._writer.execute
        match row:
            case PutBundle():
                self._put_bundle(row)
            case DropBundles():
                self._drop(row)
            case PutReceipt(receipt, at_s):
                do(
                    "INSERT OR REPLACE INTO receipt VALUES (?, ?, ?, ?)",
                    (receipt.journal, at_s, receipt.body, receipt.signature),
                )
            case PutCertificate(certificate):
                do("INSERT OR REPLACE INTO certificate VALUES (?, ?)", (certificate.device, certificate.der))
            case PutOpening(journal, first):
                do("INSERT OR REPLACE INTO opening VALUES (?, ?)", (journal, first))
            case PutMessage():
                do("DELETE FROM opening WHERE journal = ?", (row.journal,))
                do(
                    "INSERT OR REPLACE INTO message (journal, first, last, size_bytes, submitted_ms, label)"
                    " VALUES (?, ?, ?, ?, ?, ?)",
                    (row.journal, row.first, row.last, row.size_bytes, row.submitted_ms, row.label),
                )
            case PutCustody(journal, peer, ranges):
                do("DELETE FROM custody WHERE journal = ? AND peer = ?", (journal, peer))
                self._writer.executemany(
                    "INSERT INTO custody VALUES (?, ?, ?, ?)",
                    [(journal, peer, first, last) for first, last in ranges.pairs],
                )
            case PutAddress(address, device, at_s):
                do("INSERT OR REPLACE INTO address VALUES (?, ?, ?)", (address, device, at_s))
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
        bundle = self._next_bundle
        self._next_bundle += 1
        do(
            "INSERT INTO bundle VALUES (?, ?, ?, ?, ?)",
            (bundle, put.arrived_ms, put.bundle.header_bytes, put.bundle.signature, put.bundle.payload),
        )
        do(
            "INSERT INTO entry VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
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

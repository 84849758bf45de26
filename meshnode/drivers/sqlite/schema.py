"""The tables of the store, how older ones become these, and what tells that a row is still as it was written."""

from __future__ import annotations

import sqlite3
import zlib
from typing import Final

from meshnode.core.bundle import Previous
from meshnode.core.errors import StoreTrouble
from meshnode.core.fields import pack
from meshnode.core.identity import ID_SIZE, JournalId
from meshnode.core.limits import KIB, NUMBER_MAX, PAYLOAD_SIZE_MAX

SCHEMA_VERSION: Final = 6
#: Format numbers from here on are damage: no meshnode will ever write them.
FORMAT_MAX: Final = 100
#: Large pages suit payloads of 8 to 256 KiB: of the sizes that SQLite takes, 32 and 64 KiB were fastest for both ends,
#: and 16 KiB the worst, since only one bundle of 8 KiB fits into such a page.
PAGE_SIZE: Final = 32 * KIB
#: Seconds beyond which no age or lifetime can be.
INFINITE_S: Final = 2.0**41
#: Results by which SQLite says that the file is not what it wrote: it lacks a table, is malformed, has a value that is
#: too large, is no database.
DAMAGE: Final = frozenset(
    {sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_NOTADB}
)
#: Results by which a page that is damaged or out of reach shows.
UNREADABLE: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_IOERR})

#: Copies of what is in `entry`, a block of BLOCK_SIZE numbers each (`summaries`).
_SUMMARY: Final = """
CREATE TABLE summary (
    journal INTEGER NOT NULL, block INTEGER NOT NULL, data BLOB NOT NULL, crc INTEGER NOT NULL,
    PRIMARY KEY (journal, block)
) WITHOUT ROWID;
"""
#: What happened and when, and the sums of days (`remembering`).
_REMEMBERED: Final = """
CREATE TABLE run (
    id INTEGER PRIMARY KEY, journal BLOB NOT NULL, what INTEGER NOT NULL, peer BLOB NOT NULL,
    first INTEGER NOT NULL, last INTEGER NOT NULL, at_ms INTEGER NOT NULL
);
CREATE TABLE seen (device BLOB PRIMARY KEY, at_ms INTEGER NOT NULL, via BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE carried (
    day INTEGER NOT NULL, carrier BLOB NOT NULL, source BLOB NOT NULL, bundles INTEGER NOT NULL,
    size INTEGER NOT NULL, PRIMARY KEY (day, carrier, source)
) WITHOUT ROWID;
CREATE TABLE day (
    day INTEGER NOT NULL PRIMARY KEY, messages INTEGER NOT NULL, size INTEGER NOT NULL,
    longest_s INTEGER NOT NULL, delays BLOB NOT NULL
) WITHOUT ROWID;
"""
SCHEMA: Final = (
    """
CREATE TABLE meta (name TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID;
CREATE TABLE journal (
    id INTEGER PRIMARY KEY, journal BLOB NOT NULL UNIQUE,
    source BLOB NOT NULL, destination BLOB NOT NULL, epoch BLOB NOT NULL, previous BLOB, previous_last INTEGER
);
CREATE TABLE entry (
    journal INTEGER NOT NULL, number INTEGER NOT NULL, bundle INTEGER NOT NULL, size INTEGER NOT NULL,
    priority INTEGER NOT NULL, first INTEGER NOT NULL, parts INTEGER NOT NULL, born_s REAL NOT NULL,
    lifetime_s INTEGER NOT NULL, crc INTEGER, slot INTEGER, PRIMARY KEY (journal, number)
) WITHOUT ROWID;
CREATE UNIQUE INDEX entry_slot ON entry (slot) WHERE slot IS NOT NULL;
CREATE TABLE bundle (
    id INTEGER PRIMARY KEY, arrived_ms INTEGER NOT NULL, header BLOB NOT NULL, signature BLOB NOT NULL,
    payload BLOB NOT NULL
);
CREATE TABLE receipt (
    journal BLOB PRIMARY KEY, at_s REAL NOT NULL, body BLOB NOT NULL, signature BLOB NOT NULL, crc INTEGER
);
CREATE TABLE certificate (device BLOB PRIMARY KEY, der BLOB NOT NULL);
CREATE TABLE message (
    id INTEGER PRIMARY KEY, journal BLOB NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL,
    size_bytes INTEGER NOT NULL, submitted_ms INTEGER NOT NULL, label BLOB NOT NULL, crc INTEGER,
    UNIQUE (journal, first)
);
CREATE TABLE opening (journal BLOB PRIMARY KEY, first INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE custody (
    journal BLOB NOT NULL, peer BLOB NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL,
    PRIMARY KEY (journal, peer, first)
) WITHOUT ROWID;
CREATE TABLE address (address TEXT PRIMARY KEY, device BLOB NOT NULL, at_s REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE encounter (
    peer BLOB PRIMARY KEY, since_s REAL NOT NULL, meetings REAL NOT NULL, last_s REAL NOT NULL,
    told_s REAL NOT NULL
) WITHOUT ROWID;
"""
    + _SUMMARY
    + _REMEMBERED
)
#: What leads from each older version to the next one.
UPGRADES: Final = {
    1: "CREATE TABLE opening (journal BLOB PRIMARY KEY, first INTEGER NOT NULL) WITHOUT ROWID;",
    # headers of bundles that were here before stay without a checksum, since all of them would have to be read
    2: """
        ALTER TABLE journal ADD COLUMN previous BLOB;
        ALTER TABLE journal ADD COLUMN previous_last INTEGER;
        ALTER TABLE entry ADD COLUMN crc INTEGER;
        ALTER TABLE receipt ADD COLUMN crc INTEGER;
        ALTER TABLE message ADD COLUMN crc INTEGER;
        UPDATE receipt SET crc = checksum(body, signature);
        UPDATE message SET crc = checksum(journal, first, last, size_bytes, submitted_ms, label);
    """,
    3: """
        CREATE TABLE encounter (
            peer BLOB PRIMARY KEY, since_s REAL NOT NULL, meetings REAL NOT NULL, last_s REAL NOT NULL,
            told_s REAL NOT NULL
        ) WITHOUT ROWID;
    """,
    4: """
        ALTER TABLE entry ADD COLUMN slot INTEGER;
        CREATE UNIQUE INDEX entry_slot ON entry (slot) WHERE slot IS NOT NULL;
    """
    + _SUMMARY,
    5: _REMEMBERED,
}


class StoreDamaged(StoreTrouble):
    """The store {path} cannot be used: it is damaged ({problem}). Stop the daemon if it runs, and run `meshnode store
    salvage`, which keeps all that is intact."""


def checksum(*values: object) -> int:
    """CRC-32 of these values, with what tells them apart."""
    return zlib.crc32(pack(values))


def is_damage(error: sqlite3.Error) -> bool:
    """Whether the file is not what SQLite wrote."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in DAMAGE


def is_unreadable(error: sqlite3.Error) -> bool:
    """Whether a page is damaged or out of reach."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in UNREADABLE


def is_slot(value: object) -> bool:
    """Whether this may be the number of a slot: none is beyond 256 TiB."""
    return type(value) is int and 0 <= value < 2**30


def slotted_size(value: object) -> int:
    """How much of a slot an entry says to be its payload; all, if that has rotted."""
    return value if type(value) is int and 0 < value <= PAYLOAD_SIZE_MAX else PAYLOAD_SIZE_MAX


def is_number(value: object) -> bool:
    """Whether this may be a bundle's number."""
    return type(value) is int and 1 <= value <= NUMBER_MAX


def read_previous(journal: object, last: object) -> Previous | None:
    """The journal before, if this says which."""
    if type(journal) is bytes and type(last) is int and is_id(journal) and is_number(last):
        return Previous(JournalId(journal), last)
    return None


def is_id(*values: object) -> bool:
    """Whether each of these may be the id of something."""
    return all(type(value) is bytes and len(value) == ID_SIZE for value in values)

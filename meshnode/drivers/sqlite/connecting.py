"""A connection to a store's file, and the file made ready for one: private, of this format, with its settings."""

from __future__ import annotations

import os
import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Final

from meshnode.core.errors import StoreTrouble
from meshnode.core.limits import MIB
from meshnode.core.words import say
from meshnode.drivers.sqlite.schema import (
    FORMAT_MAX,
    PAGE_SIZE,
    SCHEMA,
    SCHEMA_VERSION,
    UPGRADES,
    StoreDamaged,
    checksum,
)
from meshnode.drivers.sqlite.swapping import finish_swap
from meshnode.drivers.sqlite.versions import refuse_newer, sign

#: The log is merged into the file when it has grown to this, and cut back to it.
LOG_SIZE: Final = 8 * MIB
BUSY_S: Final = 30.0


def make_private(path: Path) -> None:
    """An empty file if there is none: SQLite would let the umask decide who may read; its log files take over what this
    one has. Raises StoreTrouble, or StoreTooNew if a newer meshnode wrote what is there."""
    try:
        finish_swap(path)
        with suppress(FileNotFoundError):
            refuse_newer(path)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise StoreTrouble(path=path, problem=error.strerror or str(error)) from None


def connect(path: Path) -> sqlite3.Connection:
    """A connection that any thread may use, whose commits are synced. Raises sqlite3.Error."""
    connection = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA synchronous = FULL")
    connection.create_function("checksum", -1, checksum, deterministic=True)
    connection.text_factory = lambda text: text.decode(errors="replace")
    return connection


def prepare(writer: sqlite3.Connection, path: Path) -> None:
    """Make the tables, or take over those of an older format. Raises StoreDamaged and sqlite3.Error."""
    version = writer.execute("PRAGMA user_version").fetchone()[0]
    if not 0 <= version < FORMAT_MAX:
        raise StoreDamaged(path=path, problem=say("its format is said to be {version}", version=version))
    if version == 0:
        writer.execute(f"PRAGMA page_size = {PAGE_SIZE}")
        writer.execute("PRAGMA auto_vacuum = INCREMENTAL")
    writer.execute("PRAGMA journal_mode = WAL")
    writer.execute(f"PRAGMA wal_autocheckpoint = {LOG_SIZE // PAGE_SIZE}")
    writer.execute(f"PRAGMA journal_size_limit = {LOG_SIZE}")
    if version == 0:
        writer.executescript(f"BEGIN;{SCHEMA}PRAGMA user_version = {SCHEMA_VERSION};COMMIT;")
    for older in range(version or SCHEMA_VERSION, SCHEMA_VERSION):
        writer.executescript(f"BEGIN;{UPGRADES[older]}PRAGMA user_version = {older + 1};COMMIT;")
    sign(writer)

"""A store says which program wrote it; an older one refuses it by that name, and touches nothing."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from meshnode import __version__
from meshnode.core.errors import StoreTooNew
from meshnode.drivers.sqlite import SCHEMA_VERSION, SqliteStore
from meshnode.drivers.sqlite.versions import sign


def files(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in sorted(folder.iterdir())}


def written_by(path: Path) -> object:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT value FROM meta WHERE name = 'written_by'").fetchone()


def newer(path: Path, version: object) -> None:
    """Make a store one of a program that does not exist yet."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
        connection.execute("UPDATE meta SET value = ? WHERE name = 'written_by'", (version,))
        connection.commit()


def refusal(path: Path) -> str:
    """What it says of the store in a folder, having changed nothing there."""
    before = files(path.parent)
    with pytest.raises(StoreTooNew) as refused:
        SqliteStore(path)
    assert files(path.parent) == before
    return str(refused.value)


def test_a_store_says_which_program_wrote_it_last(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    for before in (None, "0.0.9", b"\xff", 7):
        if before is not None:
            with closing(sqlite3.connect(path)) as connection:
                connection.execute("UPDATE meta SET value = ? WHERE name = 'written_by'", (before,))
                connection.commit()
        SqliteStore(path).close()
        assert written_by(path) == (__version__,)


def test_a_store_of_a_newer_program_is_refused_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    SqliteStore(path).close()
    newer(path, "9.4.0rc1")
    assert refusal(path) == (
        f"The store {path} was written by meshnode 9.4.0rc1 (its format is {SCHEMA_VERSION + 1}, and this meshnode"
        f" {__version__} knows none above {SCHEMA_VERSION}): install that version again, or a newer one; nothing was"
        " changed."
    )


@pytest.mark.parametrize(
    "spoil",
    [
        lambda db: db.execute("UPDATE meta SET value = ? WHERE name = 'written_by'", ("9\n\x1b[2J",)),
        lambda db: db.execute("UPDATE meta SET value = ? WHERE name = 'written_by'", ("9" * 41,)),
        lambda db: db.execute("UPDATE meta SET value = x'00' WHERE name = 'written_by'"),
        lambda db: db.execute("DELETE FROM meta WHERE name = 'written_by'"),
        lambda db: db.execute("DROP TABLE meta"),
    ],
)
def test_a_newer_program_that_does_not_say_its_name(
    tmp_path: Path, spoil: Callable[[sqlite3.Connection], object]
) -> None:
    path = tmp_path / "store.db"
    SqliteStore(path).close()
    newer(path, "9.4.0")
    with closing(sqlite3.connect(path)) as connection:
        spoil(connection)
        connection.commit()
    assert "was written by a newer meshnode (its format is" in refusal(path)


def test_what_a_newer_program_had_not_merged_when_it_was_killed_is_left_alone(tmp_path: Path) -> None:
    """SQLite would merge the log into the file if it only opened that."""
    path, killed = tmp_path / "store.db", tmp_path / "killed"
    killed.mkdir()
    SqliteStore(path).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
        connection.execute("UPDATE meta SET value = '9.4.0' WHERE name = 'written_by'")
        connection.commit()
        for each in tmp_path.glob("store.db*"):
            if not each.name.endswith("-shm"):
                shutil.copy(each, killed)
    assert (killed / "store.db").read_bytes()[60:64] == SCHEMA_VERSION.to_bytes(4, "big"), (
        "it is in the log only"
    )
    assert "meshnode 9.4.0" in refusal(killed / "store.db")


def test_a_disk_that_takes_no_signature_keeps_no_store_from_opening(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    SqliteStore(path).close()
    newer(path, "0.0.1")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA query_only = 1")
        sign(connection)
        assert written_by(path) == ("0.0.1",)
        connection.execute("PRAGMA query_only = 0")
        connection.execute("DROP TABLE meta")
        with pytest.raises(sqlite3.OperationalError, match="no such table"):
            sign(connection)

"""Putting a salvaged store in the place of the damaged one, so that a crash at any instant leaves the one or the other.

A store is several files (SQLite's log lies beside it), so no single rename does it. One rename decides, and names the
number under which the damaged one is kept; what remains to be done is the same whether it is done now or by the next
start of a daemon, which looks for it before it opens anything. The file of the large payloads keeps its name: no two
stores share one, and the database says which is its own.
"""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
from pathlib import Path
from typing import Final

BESIDE: Final = ("-wal", "-shm")
#: The row of `meta` that names the file of the large payloads.
PAYLOADS: Final = "payloads"
_PAYLOADS_NAME: Final = re.compile(r"[^/\0]+-payloads-[0-9a-f]{16}")


def new_payloads_name(path: Path) -> str:
    """A name that no other store has, for the file beside the one at `path`."""
    return f"{path.name}-payloads-{os.urandom(8).hex()}"


def payloads_path(path: Path, name: object) -> Path | None:
    """Where the large payloads of the store at `path` are, if `name` is what its database says."""
    return path.with_name(name) if type(name) is str and _PAYLOADS_NAME.fullmatch(name) else None


def discard(path: Path) -> None:
    """Remove a store that nobody uses, with all of its files. Raises OSError."""
    if path.exists():
        with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(path)) as connection:
            row = connection.execute("SELECT value FROM meta WHERE name = ?", (PAYLOADS,)).fetchone()
            if row and (payloads := payloads_path(path, row[0])):
                payloads.unlink(missing_ok=True)
    for suffix in ("", *BESIDE):
        Path(f"{path}{suffix}").unlink(missing_ok=True)


def begin_swap(path: Path, new: Path) -> Path:
    """Put the closed store `new` (without a log, flushed, in the same folder) in the place of the one at `path`. What
    stood there is kept; its new path. A crash at any instant leaves the one or the other, and the next start of a
    daemon finishes what is left to do. The caller keeps others from using either."""
    number = 1
    while _broken(path, number).exists():
        number += 1
    os.replace(new, path.with_name(f"{path.name}.salvaged-{number}"))  # from here on it is decided
    flush_folder(path.parent)
    finish_swap(path)
    return _broken(path, number)


def finish_swap(path: Path) -> None:
    """Go on with a swap that a crash has cut off, if there is one."""
    for salvaged in path.parent.glob(f"{path.name}.salvaged-*"):
        broken = _broken(path, int(salvaged.name.rpartition("-")[2]))
        for suffix in (*BESIDE, ""):
            with contextlib.suppress(FileNotFoundError):
                os.replace(f"{path}{suffix}", f"{broken}{suffix}")
        flush_folder(path.parent)
        os.replace(salvaged, path)
        flush_folder(path.parent)


def _broken(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.broken-{number}")


def flush_folder(folder: Path) -> None:
    """Make the names of its files durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

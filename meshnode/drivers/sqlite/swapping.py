"""Putting a salvaged store in the place of the damaged one, so that a crash at any instant leaves the one or the other.

A store is several files (SQLite's log lies beside it), so no single rename does it. One rename decides, and names the
number under which the damaged one is kept; what remains to be done is the same whether it is done now or by the next
start of a daemon, which looks for it before it opens anything.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

BESIDE: Final = ("-wal", "-shm")


def begin_swap(path: Path, new: Path) -> Path:
    """Put the closed store `new` (without a log, flushed, in the same folder) in the place of the one at `path`. What
    stood there is kept; its new path. A crash at any instant leaves the one or the other, and the next start of a
    daemon finishes what is left to do. The caller keeps others from using either."""
    number = 1
    while _broken(path, number).exists():
        number += 1
    os.replace(new, path.with_name(f"{path.name}.salvaged-{number}"))  # from here on it is decided
    _flush_folder(path.parent)
    finish_swap(path)
    return _broken(path, number)


def finish_swap(path: Path) -> None:
    """Go on with a swap that a crash has cut off, if there is one."""
    for salvaged in path.parent.glob(f"{path.name}.salvaged-*"):
        broken = _broken(path, int(salvaged.name.rpartition("-")[2]))
        for suffix in (*BESIDE, ""):
            with contextlib.suppress(FileNotFoundError):
                os.replace(f"{path}{suffix}", f"{broken}{suffix}")
        _flush_folder(path.parent)
        os.replace(salvaged, path)
        _flush_folder(path.parent)


def _broken(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.broken-{number}")


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

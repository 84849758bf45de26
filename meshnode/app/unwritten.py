"""Whether somebody still writes a file, as far as the system tells."""

from __future__ import annotations

import os
import signal
import stat
import sys
from pathlib import Path
from typing import Final

from meshnode.core.errors import LocalError

#: How a file is opened that others may have put there: no link is followed, no pipe is waited for.
OPEN: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class StillWritten(LocalError):
    """{name} is still being written."""


def check_unwritten(path: Path) -> None:
    """Raises StillWritten if any process has the file, or one in the folder, open for writing."""
    if path.is_dir() and not path.is_symlink():
        for name in os.listdir(path):
            _check_unwritten_file(path / name)
    else:
        _check_unwritten_file(path)


def _check_unwritten_file(path: Path) -> None:
    try:
        descriptor = os.open(path, OPEN)
    except FileNotFoundError:
        raise StillWritten(name=path.name) from None  # renamed just now
    try:
        if stat.S_ISREG(os.fstat(descriptor).st_mode) and _has_writer(descriptor):
            raise StillWritten(name=path.name)
    finally:
        os.close(descriptor)


def _has_writer(descriptor: int) -> bool:
    """Whether any process has this file open for writing, as far as the system tells. Linux grants a read lease only if
    none has; it does so on files of one's own, and on file systems of its own."""
    if sys.platform != "linux":
        return False
    import fcntl

    try:
        # who opens it for writing right now has us told by a signal, and the usual one would end this process
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False

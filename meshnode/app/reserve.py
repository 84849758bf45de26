"""A little of the disk set aside while there is enough, so that a daemon can start when another program has filled it.

A start needs some room that a running daemon has already: control.json, the store's log and its index. Without it the
node would stay dead exactly when it should say that its disk is full. The reserve is a file in the home; on a full disk
a start gives it up, and it is laid by again as soon as there is room above the floor, and after the end, since what the
end frees is what the start had taken.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import Final

from meshnode.core.limits import MIB

SIZE: Final = 1 * MIB


class Reserve:
    """The file at `path`. Never raises: without a reserve all is as it would be without this module."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def give_up_if_needed(self) -> None:
        """Let a start have it, if there is too little otherwise."""
        with contextlib.suppress(OSError):
            if shutil.disk_usage(self._path.parent).free < SIZE:
                self._path.unlink()

    def lay_by(self, room_bytes: int | None = None) -> None:
        """Set it aside, if it is not and fits into `room_bytes`; without that, into what the disk has free."""
        with contextlib.suppress(OSError):
            if self._path.exists():
                return
            if room_bytes is None:
                room_bytes = shutil.disk_usage(self._path.parent).free
            if room_bytes >= SIZE:
                self._make()

    def _make(self) -> None:
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            # not by posix_fallocate, which not every disk knows; and not zeros, which some disks do not keep
            left = memoryview(os.urandom(SIZE))
            while left:
                left = left[os.write(descriptor, left) :]
        except OSError:
            self._path.unlink()
            raise
        finally:
            os.close(descriptor)

"""Small disks of their own: file systems in files, mounted through loop devices. Root only.

A power cut is the kernel's own: `EXT4_IOC_SHUTDOWN` without a flush of the journal (what the crash tests of Linux file
systems do). From that instant nothing more reaches the device; unmounting forgets the page cache, and mounting again
replays the journal.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

_EXT4_IOC_SHUTDOWN = 0x8004_587D
_NO_FLUSH = struct.pack("I", 2)
#: Nothing is written out early: no commit of the journal for a minute but by a flush, which commits names only and no
#: other file's content, and no rename that flushes by courtesy.
OPTIONS = "commit=60,data=writeback,noauto_da_alloc,errors=remount-ro"
UNMOUNT_S = 30.0

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")


class Disk:
    """A mounted disk at `path`, of so many bytes."""

    def __init__(self, path: Path, size_bytes: int) -> None:
        self.path = path
        self._image = path.with_name(f"{path.name}.img")
        with self._image.open("wb") as file:
            file.truncate(size_bytes)
        _system("mkfs.ext4", "-q", "-m", "0", self._image)
        path.mkdir()
        self.mount()
        path.chmod(0o700)

    def mount(self) -> None:
        """Mount it; what was cut off is recovered."""
        # A device of its own each time: `-o loop` takes the one before if anybody still holds that (another mount
        # namespace may), and with it the file system that was shut down.
        self._device = _system("losetup", "--find", "--show", self._image).strip()
        _system("mount", "-o", OPTIONS, self._device, self.path)

    def unmount(self) -> None:
        """Take it away, as soon as nobody has a file open there: a command may be reading control.json."""
        end_s = time.monotonic() + UNMOUNT_S
        while subprocess.run(["umount", self.path], check=False, capture_output=True).returncode:
            assert time.monotonic() < end_s, f"{self.path} is in use"
        _system("losetup", "--detach", self._device)

    def cut(self) -> None:
        """Cut its power: nothing more reaches it until it is unmounted and mounted again."""
        folder = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(folder, _EXT4_IOC_SHUTDOWN, _NO_FLUSH)
        finally:
            os.close(folder)

    def fail(self) -> None:
        """Let the file system find an error in itself: it becomes read-only until it is mounted again."""
        Path("/sys/fs/ext4", Path(self._device).name, "trigger_fs_error").write_text("1")

    @property
    def free_bytes(self) -> int:
        """As a daemon sees it."""
        return shutil.disk_usage(self.path).free

    @property
    def ballast(self) -> Path:
        """What another program writes here."""
        return self.path / "ballast"

    def fill(self, free_bytes: int) -> None:
        """Let another program take all but so many bytes."""
        with self.ballast.open("ab") as file, contextlib.suppress(OSError):
            excess = self.free_bytes - free_bytes
            if excess > 0:
                os.posix_fallocate(file.fileno(), file.tell(), excess)

    def empty(self) -> None:
        """That program is gone."""
        self.ballast.unlink(missing_ok=True)


@contextlib.contextmanager
def disks(folder: Path, *names: str, size_bytes: int) -> Iterator[dict[str, Disk]]:
    """Disks at `folder`/NAME, by their names. Skips the test if they cannot be made here."""
    made: dict[str, Disk] = {}
    try:
        try:
            for name in names:
                made[name] = Disk(folder / name, size_bytes)
        except (OSError, subprocess.CalledProcessError) as problem:
            said = getattr(problem, "stderr", "").strip() or str(problem)
            pytest.skip(f"no small disk can be mounted here: {said}")
        yield made
    finally:
        for disk in made.values():
            disk.unmount()


def _system(*words: object) -> str:
    return subprocess.run([str(word) for word in words], check=True, capture_output=True, text=True).stdout

"""Writing to a stick, and clearing it of what is delivered, so that it may be pulled out at any moment.

A file that was being written is there as NAME.part then: its whole frames are good, and the next export completes it.
A file that was being cleared is there as it was, beside a NAME.wiping that the next export removes.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

from meshnode.app.files import flush_folder as flush_any_folder
from meshnode.app.files import list_folder
from meshnode.app.stick import END, PART, Piece, Stick, StickOutOfRoom, beside, opened, stick_trouble, walk
from meshnode.core.errors import FileTrouble, MeshnodeError
from meshnode.core.identity import JournalId
from meshnode.core.intervals import NONE, Ranges
from meshnode.core.limits import GIB, MIB
from meshnode.core.stick import HEAD_SIZE, write_head

#: A file in a folder is followed by another when it has grown to this; one that stands alone must stay below FAT32's
#: largest.
FILE_BYTES: Final = 1 * GIB
ALONE_BYTES: Final = 4 * GIB - 1 * MIB
#: What is written at once, and what a stick that is pulled out can cost at most.
WRITE_BYTES: Final = 1 * MIB
SYNC_BYTES: Final = 32 * MIB
_WIPING: Final = ".wiping"
_NAME_SIZE: Final = 24


def flush_folder(folder: Path) -> None:
    """As `files.flush_folder`; there are file systems on sticks that cannot, and do it anyway. Raises OSError."""
    try:
        flush_any_folder(folder)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise


class StickWriter:
    """Writes frames into new files of a folder, or to the end of the one that was named."""

    def __init__(self, stick: Stick, name: str) -> None:
        self._stick = stick
        self._name = name[:_NAME_SIZE].rstrip(".")
        self._number = 0
        self._limit = FILE_BYTES if stick.alone is None else ALONE_BYTES
        self._certificates = bytearray()
        self._descriptor: int | None = None
        self._part = stick.folder
        self._buffer = bytearray()
        self._size = 0
        self._synced = 0
        #: The files that were written.
        self.files: list[str] = []

    def write(self, frame: bytes, *, is_certificate: bool) -> None:
        """Write a frame. Raises StickGone, or FileTrouble: the stick is full or read-only, or an only file too large.
        `abandon` is due then."""
        if self._descriptor is not None and self._size + len(frame) > self._limit:
            if self._stick.alone is not None:
                raise FileTrouble(
                    path=self._stick.alone, problem="has grown too large: name a folder instead"
                )
            self.finish()
        if self._descriptor is None:
            self._begin()
        if is_certificate:
            self._certificates += frame  # each file is to be of use without the others
        self._buffer += frame
        self._size += len(frame)
        if len(self._buffer) >= WRITE_BYTES:
            self._flush()

    def finish(self) -> None:
        """Make the file at hand whole, if there is one. Raises as `write`."""
        if self._descriptor is None:
            return
        self._flush()
        with self._trouble():
            os.fsync(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = None
            complete(self._part)

    def abandon(self) -> None:
        """After an error: what of the file at hand is whole stays, if the stick is still there."""
        if self._descriptor is not None:
            with contextlib.suppress(MeshnodeError):
                self._flush()
            with contextlib.suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = None
            with contextlib.suppress(MeshnodeError):
                mend(self._part)

    @contextlib.contextmanager
    def _trouble(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise stick_trouble(self._stick.path, error, "written") from None

    def _begin(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        with self._trouble():
            if self._stick.alone is not None:
                self._part = beside(self._stick.alone, PART)
                if self._stick.alone.exists():
                    if self._part.exists():
                        raise FileTrouble(path=self._part, problem="is in the way: give it another name")
                    os.replace(self._stick.alone, self._part)
            else:
                self._part = self._free_name()
                flags |= os.O_EXCL
            self._descriptor = os.open(self._part, flags, 0o644)
            self._size = self._synced = _cut(self._part, self._descriptor)
            flush_folder(self._stick.folder)
        self.files.append(self._part.name.removesuffix(PART))
        self._buffer = bytearray(b"" if self._size else write_head(self._stick.fleet)) + self._certificates
        self._size += len(self._buffer)

    def _free_name(self) -> Path:
        while True:
            self._number += 1
            path = self._stick.folder / f"{self._name}-{self._number}{END}"
            part = beside(path, PART)
            if not os.path.lexists(path) and not os.path.lexists(part):
                return part

    def _flush(self) -> None:
        assert self._descriptor is not None
        with self._trouble():
            while self._buffer:
                # what is written is gone from here even if the rest fails, so nothing is ever written twice
                del self._buffer[: os.write(self._descriptor, self._buffer)]
            if self._size - self._synced >= SYNC_BYTES:
                os.fsync(self._descriptor)
                self._synced = self._size


def complete(part: Path) -> None:
    """Give a durable NAME.part its name. Raises OSError."""
    os.replace(part, part.with_name(part.name.removesuffix(PART)))
    flush_folder(part.parent)


def _cut(path: Path, descriptor: int) -> int:
    """Cut off a file behind its last whole frame; its size then, 0 if not even its head is there. Raises OSError,
    StickGone or FileTrouble."""
    size = os.fstat(descriptor).st_size
    whole = HEAD_SIZE if size >= HEAD_SIZE else 0
    with opened(path) as file:
        for piece in walk(file, size):
            whole = piece.offset + (piece.size if isinstance(piece, Piece) else 0)
    if whole < size:
        os.ftruncate(descriptor, whole)
    return whole


def mend(part: Path) -> None:
    """Give what a pull-out left of a file its name, without what is cut off at its end; unless there is a file of that
    name, beside which it can stay. Raises StickGone or FileTrouble."""
    try:
        descriptor = os.open(part, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            size = _cut(part, descriptor)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if not size:
            part.unlink()
        elif not os.path.lexists(part.with_name(part.name.removesuffix(PART))):
            complete(part)
    except OSError as error:
        raise stick_trouble(part, error, "written") from None


def mend_all(stick: Stick) -> None:
    """Clear away what pull-outs have left, before something is written. Raises StickGone or FileTrouble."""
    for path in stick.files:
        if path.name.endswith(PART):
            mend(path)
    wipings = [
        stick.folder / name
        for name in list_folder(stick.folder)
        if not name.startswith(".") and name.endswith((END + _WIPING, END + PART + _WIPING))
    ]
    for path in [*stick.stillborn, *wipings]:
        with contextlib.suppress(OSError):
            path.unlink()


# --- clearing ----------------------------------------------------------------------------------------------------


def wipe(stick: Stick, delivered: dict[JournalId, Ranges]) -> int:
    """Remove these bundles from the stick; how many there were. Raises StickGone or FileTrouble: nothing else is gone
    from it then."""
    count = 0
    for path in stick.files:
        gone = [
            (piece.offset, piece.offset + piece.size)
            for _, piece in stick.pieces(path)
            if isinstance(piece, Piece)
            and piece.stub is not None
            and piece.stub.number in delivered.get(piece.stub.journal, NONE)
        ]
        if gone:
            _cut_out(path, gone)
        count += len(gone)
    return count


def _cut_out(path: Path, gone: list[tuple[int, int]]) -> None:
    """Rewrite a file without these stretches of bytes."""
    copy_path = beside(path, _WIPING)
    try:
        with contextlib.suppress(FileNotFoundError):
            copy_path.unlink()
        with opened(path) as file:
            size = os.fstat(file.fileno()).st_size
            with copy_path.open("xb") as copy:
                at = 0
                for first, last in [*gone, (size, size)]:
                    _copy(file, copy, at, first)
                    at = last
                copy.flush()
                os.fsync(copy.fileno())
        os.replace(copy_path, path)
        flush_folder(path.parent)
    except OSError as error:
        raise stick_trouble(path, error, "written") from None
    except StickOutOfRoom:
        copy_path.unlink()
        raise FileTrouble(
            path=path, problem="cannot be cleared: the stick has no room for a copy of what stays in it"
        ) from None


def _copy(file: BinaryIO, copy: BinaryIO, first: int, last: int) -> None:
    file.seek(first)
    while first < last:
        data = file.read(min(WRITE_BYTES, last - first))
        if not data:
            raise OSError(errno.EIO, os.strerror(errno.EIO))  # it was longer a moment ago
        copy.write(data)
        first += len(data)

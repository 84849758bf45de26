"""The files on a stick: found, and walked through frame by frame. How they are written: `stick_writing`.

A stick is a folder in which `*.meshnode` files lie side by side, one or more from each device that wrote there; or it
is one such file. They are plain files, below 4 GiB and with short names, since sticks are FAT32.

What is no file of this fleet is named with the reason, and left alone. A stick may be pulled out at any moment: what
the system says then becomes a sentence here.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final

from meshnode.app.files import list_folder, trouble
from meshnode.core.errors import FileTrouble, LocalError, MeshnodeError, RemoteError
from meshnode.core.identity import FleetId
from meshnode.core.limits import KIB
from meshnode.core.stick import (
    FRAME_START,
    FRAME_START_SIZE,
    HEAD_SIZE,
    PEEK_SIZE,
    Stub,
    frame_size,
    peek,
    read_head,
    write_head,
)
from meshnode.core.words import Clause, Said, say

END: Final = ".meshnode"
PART: Final = ".part"
_WINDOW_BYTES: Final = 256 * KIB

_GONE: Final = {errno.EIO, errno.ENODEV, errno.ENXIO, errno.ESTALE, errno.EBADMSG, errno.EUCLEAN} | {
    value for name in ("ENOMEDIUM", "ESHUTDOWN") if (value := getattr(errno, name, None)) is not None
}


class StickGone(LocalError):
    """{path} cannot be {action} any more ({problem}), perhaps it was pulled out: what was {action} before is safe, so
    plug it in and run the same again for the rest."""


class StickFull(LocalError):
    """{path} has no room for {left} more bundles ({left_bytes} bytes): what is on it is whole and can be carried, so
    take another one for the rest."""


class StickOutOfRoom(LocalError):
    """{path} is full: what is on it is whole and can be carried; make room with --wipe-delivered, or take another one
    for the rest."""


_ACTIONS: Final = {"read": say("read"), "written": say("written")}


def stick_trouble(path: Path, error: OSError, action: str) -> MeshnodeError:
    """The sentence for `error`, when `path` could not be `action` ('read', 'written')."""
    if error.errno in _GONE:
        return StickGone(path=path, action=_ACTIONS[action], problem=error.strerror)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StickOutOfRoom(path=path)
    return trouble(path, error, action)


# --- walking ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Piece:
    """A whole frame: `size` bytes at `offset`, with its length; `start`: the first of them. `stub`: which bundle."""

    offset: int
    size: int
    start: bytes
    stub: Stub | None


@dataclass(frozen=True, slots=True)
class Gap:
    """No frame begins at `offset`, though more follows: something is damaged."""

    offset: int


def walk(file: BinaryIO, size: int) -> Iterator[Piece | Gap]:
    """The frames of a file of `size` bytes, without their payloads. What is cut off at its end is not named. Where the
    frames lose their thread, the next place that looks like a frame takes it up again."""
    at = HEAD_SIZE
    while at < size:
        file.seek(at)
        start = file.read(PEEK_SIZE)
        length = frame_size(start)
        if length is not None and at + length <= size:
            yield Piece(at, length, start[:length], peek(start[:length]))
            at += length
            continue
        found = _find(file, at + 1, size)
        if found is not None or (length is None and len(start) >= FRAME_START_SIZE):
            yield Gap(at)
        at = size if found is None else found


def _find(file: BinaryIO, at: int, size: int) -> int | None:
    """Where from `at` on something looks like a whole frame."""
    while at < size:
        file.seek(at)
        window = file.read(_WINDOW_BYTES)
        found = FRAME_START.search(window)
        while found is not None:
            length = frame_size(window[found.start() : found.start() + FRAME_START_SIZE])
            if length is not None and at + found.start() + length <= size:
                return at + found.start()
            found = FRAME_START.search(window, found.start() + 1)
        if len(window) < FRAME_START_SIZE:
            return None
        at += len(window) - FRAME_START_SIZE + 1
    return None


# --- the stick --------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Stick:
    """`folder`, and in it `files` of this fleet. `alone`: the one file that was named. `skipped`: files that are left
    alone, and why. `stillborn`: files that were cut off before they held anything."""

    path: Path
    folder: Path
    fleet: FleetId
    alone: Path | None = None
    files: list[Path] = field(default_factory=list)
    skipped: list[tuple[str, Said]] = field(default_factory=list)
    stillborn: list[Path] = field(default_factory=list)

    def pieces(self, path: Path) -> Iterator[tuple[BinaryIO, Piece | Gap]]:
        """What `walk` finds in a file, and the file. Raises StickGone or FileTrouble."""
        with opened(path) as file:
            for piece in walk(file, os.fstat(file.fileno()).st_size):
                yield file, piece


def open_stick(path: Path, fleet: FleetId) -> Stick:
    """The stick at `path`: a folder, or a file that is there or may be made. Raises FileTrouble or StickGone."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        mode = 0
    except OSError as error:
        raise stick_trouble(path, error, "read") from None
    if stat.S_ISDIR(mode):
        stick = Stick(path, path, fleet)
        names = [name for name in list_folder(path) if _is_ours(name)]
        found = [path / name for name in names]
    else:
        if not mode and path.suffix.lower() != END:
            problem = say("does not exist: name a folder, or a file that ends in {end}", end=END)
            raise FileTrouble(path=path, problem=problem)
        stick = Stick(path, path.parent, fleet, path)
        found = [path, beside(path, PART)]
    for each in found:
        _look(stick, each)
    for name, why in stick.skipped:
        if stick.alone is not None and name == path.name:
            raise FileTrouble(path=path, problem=say("is left alone: {problem}", problem=why))
    return stick


def _is_ours(name: str) -> bool:
    return not name.startswith(".") and name.lower().endswith((END, END + PART))


def beside(path: Path, end: str) -> Path:
    """NAME + end."""
    return path.with_name(path.name + end)


def _look(stick: Stick, path: Path) -> None:
    """Whether a file is of this fleet."""
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            stick.skipped.append((path.name, say("it is no plain file")))
            return
    except FileNotFoundError:
        return
    except OSError as error:
        raise stick_trouble(path, error, "read") from None
    with opened(path) as file:
        head = file.read(HEAD_SIZE)
    try:
        if read_head(head) != stick.fleet:
            stick.skipped.append((path.name, say("it is of another fleet")))
            return
    except RemoteError as problem:
        if path.name.endswith(PART) and write_head(stick.fleet).startswith(head):
            stick.stillborn.append(path)
        else:
            stick.skipped.append((path.name, Clause(problem)))
        return
    stick.files.append(path)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """A file of the stick, to read. Raises StickGone or FileTrouble, also for what happens in the block."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb", buffering=8 * KIB) as file:
            yield file
    except OSError as error:
        raise stick_trouble(path, error, "read") from None

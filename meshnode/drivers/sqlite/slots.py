"""Large payloads, each in a slot of a file beside the database, so that they are written once.

SQLite writes all that it is given twice: into its log, and from there into its file. For a photograph that is half of
what the disk can do. So what is larger than SLOTTED_SIZE goes straight to its place, and the database keeps its number.

What no row names is free, and the order of steps is all that makes it safe. Slots are written, then the file is
flushed, then the transaction that names them is committed. A slot that a transaction frees is given out only after that
transaction is durable. So a crash at any instant leaves rows whose slots are whole, and slots that nothing names.

Who reads the payload first and then the head, and finds the head that the row has, has read that payload: a slot is
written from the front, so nobody overwrites a payload whose head still stands.

The heads (`heads`) are for salvage, which may have lost the database. Those of freed slots are wiped, so that nothing
comes back; if a crash undoes that, receipts and entries tell (`salvage`).
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Final

from meshnode.core.bundle import read_header
from meshnode.core.errors import RemoteError
from meshnode.core.limits import KIB
from meshnode.core.words import say
from meshnode.drivers.sqlite.heads import HEAD_SIZE, SLOT_SIZE, WIPED, Head, read_head
from meshnode.drivers.sqlite.schema import StoreDamaged, is_slot, slotted_size
from meshnode.drivers.sqlite.swapping import PAYLOADS, flush_folder, new_payloads_name, payloads_path

#: Smaller payloads stay in the database: a slot that is half empty is a waste, and many small ones are faster as a
#: whole in SQLite's log than in many places.
SLOTTED_SIZE: Final = 128 * KIB

_flush: Final = getattr(os, "fdatasync", os.fsync)  # macOS has none


class Slots:
    """The file of one store; `used`: the slots that its rows name. One thread writes, any may read. All raise OSError.

    Between two commits: `put` and `drop` as it comes, `flush` before the rows are committed, then `done` or `undo`."""

    def __init__(self, path: Path, used: set[int]) -> None:
        """Raises FileNotFoundError if there is no file though it is used; else it is made when it is needed."""
        self.path = path
        self._file = -1
        size_bytes = 0
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            size_bytes = os.fstat(self._file).st_size
        except FileNotFoundError:
            if used:
                raise
        self._count = -(-size_bytes // SLOT_SIZE)
        #: Ascending.
        self._free = [slot for slot in range(self._count) if slot not in used]
        #: Named by rows, but the file ends before: an older or a damaged one. They are never given out.
        self._beyond = {slot for slot in used if slot >= self._count}
        #: What the open transaction has written, and what it lets go of.
        self._taken: list[int] = []
        self._leaving: list[int] = []
        #: Of commits that failed, but may turn out to have succeeded if there is a crash before the next one.
        self._in_doubt: list[int] = []
        self._is_named = False

    def close(self) -> None:
        """Let go of the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def free(self) -> list[int]:
        """Those that no row names."""
        return list(self._free)

    # --- reading ------------------------------------------------------------------------------------------------

    def read(self, slot: int, size: int) -> tuple[Head | None, bytes]:
        """What is there now: the head, and the first `size` bytes of the payload; fewer if the file ends before."""
        if self._file < 0:
            return None, b""
        payload = os.pread(self._file, size, slot * SLOT_SIZE + HEAD_SIZE)
        return read_head(os.pread(self._file, HEAD_SIZE, slot * SLOT_SIZE)), payload

    def sizes(self) -> tuple[int, int]:
        """(bytes on the disk, bytes of them that are free for reuse, at least)."""
        if self._file < 0:
            return 0, 0
        status, free = os.fstat(self._file), len(self._free)
        size = min(status.st_size, status.st_blocks * 512)  # a slot may have a hole behind a smaller payload
        return size, min(max(0, size - (self._count - free) * SLOT_SIZE), free * SLOT_SIZE)

    # --- writing ------------------------------------------------------------------------------------------------

    def put(self, head: Head, payload: bytes) -> int:
        """Write a bundle into a free slot; which one."""
        return self._write([head.page(), payload])

    def _write(self, pieces: list[bytes]) -> int:
        if self._file < 0:
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        slot = self._take()
        at, rest = slot * SLOT_SIZE, [memoryview(piece) for piece in pieces]
        while rest:
            written = os.pwritev(self._file, rest, at)
            at += written
            while rest and written >= len(rest[0]):
                written -= len(rest.pop(0))
            if rest:
                rest[0] = rest[0][written:]
        return slot

    def _take(self) -> int:
        if self._free:
            slot = self._free.pop(0)
        else:
            while self._count in self._beyond:
                self._count += 1
            slot = self._count
            self._count += 1
        self._taken.append(slot)
        return slot

    def drop(self, slot: int) -> None:
        """Free a slot as soon as the open transaction is durable."""
        self._leaving.append(slot)

    def flush(self) -> None:
        """Make durable what was put."""
        if not self._taken:
            return
        _flush(self._file)
        if not self._is_named:  # even if there was a file: whoever made it may have been killed before this
            flush_folder(self.path.parent)
            self._is_named = True

    def done(self) -> None:
        """The transaction is durable."""
        self._beyond.difference_update(self._leaving)
        self._release(self._leaving + self._in_doubt)
        self._taken, self._leaving, self._in_doubt = [], [], []

    def undo(self, *, in_doubt: bool) -> None:
        """The transaction was rolled back; `in_doubt`: only after it began to commit."""
        if in_doubt:
            self._in_doubt += self._taken
        else:
            self._release(self._taken)
        self._taken, self._leaving = [], []
        with suppress(OSError):  # a disk that is full has its space back
            self.cut()

    def _release(self, slots: list[int]) -> None:
        freed = [slot for slot in slots if slot < self._count]
        if freed:
            self._free = sorted({*self._free, *freed})
        for slot in freed:
            with suppress(OSError):
                os.pwrite(self._file, WIPED, slot * SLOT_SIZE)

    # --- giving space back --------------------------------------------------------------------------------------

    def cut(self) -> None:
        """Give free slots at the end back to the disk."""
        count = self._count
        while self._free and self._free[-1] == count - 1:
            count = self._free.pop()
        if count < self._count:
            self._count = count
            os.ftruncate(self._file, count * SLOT_SIZE)

    def last(self, most: int) -> list[int]:
        """Which slots at the end are to move to free ones nearer to the front; none if all are as near as can be."""
        free = set(self._free)
        used = (slot for slot in range(self._count - 1, -1, -1) if slot not in free)
        return [slot for slot, to in zip(islice(used, most), self._free, strict=False) if to < slot]

    def copy(self, slot: int, size: int) -> int:
        """Put what is in a slot, with `size` bytes of payload, into the first free one; which one. Frees the other."""
        data = os.pread(self._file, HEAD_SIZE + size, slot * SLOT_SIZE)
        self.drop(slot)
        return self._write([data])


def find_slots(writer: sqlite3.Connection, path: Path, becomes: Path) -> Slots:
    """Those of the store at `path`, which is going to be at `becomes`. Raises StoreDamaged without its file."""
    rows = writer.execute("SELECT slot FROM entry WHERE slot IS NOT NULL")
    used = {slot for (slot,) in rows if is_slot(slot)}
    row = writer.execute("SELECT value FROM meta WHERE name = ?", (PAYLOADS,)).fetchone()
    there = payloads_path(path, row and row[0])
    if there is None and not used:  # the name is durable before there is such a file
        there = path.with_name(new_payloads_name(becomes))
        writer.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (PAYLOADS, there.name))
    with suppress(FileNotFoundError):
        if there is not None:
            slots = Slots(there, used)
            _check_free(writer, path, slots)
            return slots
    if there is None:
        raise StoreDamaged(
            path=path, problem="the file of its large payloads, whose name is lost, is not there"
        )
    wrong = say("the file of its large payloads, {name}, is not there", name=there.name)
    raise StoreDamaged(path=path, problem=wrong)


def _check_free(writer: sqlite3.Connection, path: Path, slots: Slots) -> None:
    """What is used was read from an index. If that has rotted, a slot that is used is taken for free, and the next one
    who comes would write over it; so what is free but has a head is looked up among the entries themselves."""
    ask = "SELECT slot FROM entry WHERE journal = (SELECT id FROM journal WHERE journal = ?) AND number = ?"
    for slot in slots.free():
        with suppress(OSError, RemoteError):
            head, _ = slots.read(slot, 0)
            header = read_header(head.header) if head else None
            if header and writer.execute(ask, (header.journal, header.number)).fetchone() == (slot,):
                slots.close()
                raise StoreDamaged(path=path, problem="its list of large payloads is not whole")


def move_slots(writer: sqlite3.Connection, slots: Slots, numbers: list[int]) -> None:
    """Move what is in these to free ones, within the open transaction."""
    for slot in numbers:
        row = writer.execute("SELECT size FROM entry WHERE slot = ?", (slot,)).fetchone()
        if row is None:
            slots.drop(slot)
        else:
            moved = slots.copy(slot, slotted_size(row[0])), slot
            writer.execute("UPDATE entry SET slot = ? WHERE slot = ?", moved)

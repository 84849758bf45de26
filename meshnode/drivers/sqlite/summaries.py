"""Summaries: the entries of a block once more, in one row, so that a start need not read a million of them.

A summary is only a copy. It goes in the transaction that puts or drops an entry of its block, and it has a checksum: so
either it says what the rows say, or there is none, and the rows are read. All whole numbers are
little-endian, whatever the machine; a column has as many bytes a value as its largest value needs.

They are written when there is nothing else to do (`tidy`), and never for a block that is still changing: one that grows
would be written again with each bundle. What tells is no clock, but how much has been written elsewhere meanwhile. So
what a start finds without one are a few blocks.
"""

from __future__ import annotations

import sqlite3
import sys
from array import array
from collections import OrderedDict
from collections.abc import Sequence
from math import inf
from operator import le, lt
from typing import Any, Final

from meshnode.core.entries import BLOCK_SIZE, Columns, Lot
from meshnode.core.errors import RemoteError
from meshnode.core.fields import pack, unpack
from meshnode.core.identity import JournalId
from meshnode.core.intervals import ranges_from_wire
from meshnode.core.limits import NUMBER_MAX, PAYLOAD_SIZE_MAX
from meshnode.drivers.sqlite.schema import INFINITE_S, checksum

#: A block with fewer entries is as fast without one.
ENTRIES_MIN: Final = 64
#: A block is written down when so many changes have gone to others since its last one.
QUIET_CHANGES: Final = 4 * BLOCK_SIZE
_FORMAT: Final = 1
_REAL_SIZE: Final = 8
_CODES: Final = {1: "B", 2: "H", 4: "I", 8: "Q"}

#: A journal, by its number in the store, and a block of it.
Place = tuple[int, int]
#: number, size, priority, first, parts, born_s, lifetime_s.
EntryRow = Sequence[Any]


def is_whole(rows: Sequence[EntryRow]) -> bool:
    """Whether all of these could be entries, of ascending numbers. Quick, for thousands."""
    numbers, sizes, priorities, firsts, parts, born_s, lifetimes_s = zip(*rows, strict=True)
    for column in (numbers, sizes, priorities, firsts, parts, lifetimes_s):
        if set(map(type, column)) != {int}:
            return False
    if set(map(type, born_s)) != {float}:
        return False
    return (
        min(sizes) > 0
        and max(sizes) <= PAYLOAD_SIZE_MAX
        and min(priorities) >= 0
        and max(priorities) <= 1
        and min(firsts) >= 1
        and all(map(le, firsts, numbers))
        and all(number < first + count for number, first, count in zip(numbers, firsts, parts, strict=True))
        and max(numbers) <= NUMBER_MAX
        and all(map(lt, numbers, numbers[1:]))
        and min(born_s) > -INFINITE_S
        and max(born_s) < INFINITE_S
        and min(lifetimes_s) > 0
        and max(lifetimes_s) < INFINITE_S
    )


def pack_lot(lot: Lot) -> bytes:
    """A lot of which nothing was taken."""
    columns: list[object] = []
    for column in lot.columns:
        assert isinstance(column, array)
        columns += [column.itemsize, _little_endian(column).tobytes()]
    return pack([_FORMAT, lot.held.to_wire(), lot.size, lot.expires_s, *columns])


def unpack_lot(data: bytes) -> Lot:
    """What `pack_lot` wrote. Raises ValueError for anything else."""
    try:
        format_, ranges, size, expires_s, *packed = unpack(data, "summary")
        held = ranges_from_wire(ranges, "summary.ranges")
    except RemoteError as error:
        raise ValueError(str(error)) from None
    if format_ != _FORMAT or type(size) is not int or type(expires_s) is not float or not expires_s < inf:
        raise ValueError("of another format")
    columns = []
    for at, (item_size, values) in enumerate(zip(packed[::2], packed[1::2], strict=True)):
        is_real = at == Columns._fields.index("born_s")
        column: array[Any] = array("d" if is_real else _CODES.get(item_size, "B"))
        if column.itemsize != item_size or type(values) is not bytes:
            raise ValueError("a column is damaged")
        column.frombytes(values)
        columns.append(_little_endian(column))
    if len(columns) != len(Columns._fields):
        raise ValueError("columns are missing")
    return Lot.restored(Columns(*columns), held, size, expires_s)


def _little_endian(column: array[Any]) -> array[Any]:
    """To or from it."""
    if sys.byteorder != "little":
        column = column[:]
        column.byteswap()
    return column


class Summaries:
    """Those of one store: reads them, and knows which are to be written. All block, and raise sqlite3.Error."""

    def __init__(self, writer: sqlite3.Connection) -> None:
        self._writer = writer
        #: By journal: the blocks that have one. None: not known.
        self._written: dict[int, set[int]] | None = None
        self._changes = 0
        #: Blocks that may need one, by how many changes there had been at their last; the longest quiet first.
        self._waiting: OrderedDict[Place, int] = OrderedDict()

    def load(self, journals: dict[int, JournalId]) -> dict[Place, Lot]:
        """All that are whole, of these journals."""
        found: dict[Place, Lot] = {}
        for journal, block, data, crc in self._writer.execute(
            "SELECT journal, block, data, crc FROM summary"
        ):
            if journal not in journals or type(block) is not int or type(data) is not bytes:
                continue
            if checksum(journals[journal], block, data) != crc:
                continue
            try:
                lot = unpack_lot(data)
            except ValueError:
                continue
            if lot.numbers[0] // BLOCK_SIZE == block == lot.numbers[-1] // BLOCK_SIZE:
                found[journal, block] = lot
        return found

    def lack(self, place: Place) -> None:
        """A block has many entries, and no summary that is whole."""
        if place not in self._waiting:
            self._waiting[place] = -QUIET_CHANGES
            self._waiting.move_to_end(place, last=False)

    def touch(self, journal: int, first: int, last: int) -> None:
        """Entries are put or dropped, in the open transaction."""
        if self._written is None:
            self._written = self._find()
        start, end = first // BLOCK_SIZE, last // BLOCK_SIZE
        if written := self._written.get(journal):
            stale = [start] if start == end and start in written else []
            if start != end:
                stale = [block for block in written if start <= block <= end]
            for block in stale:
                self._writer.execute("DELETE FROM summary WHERE journal = ? AND block = ?", (journal, block))
                written.discard(block)
        self._changes += 1
        for block in {start, end}:
            self._waiting[journal, block] = self._changes
            self._waiting.move_to_end((journal, block))

    def _find(self) -> dict[int, set[int]]:
        found: dict[int, set[int]] = {}
        for journal, block in self._writer.execute("SELECT journal, block FROM summary"):
            found.setdefault(journal, set()).add(block)
        return found

    def forget(self) -> None:
        """The open transaction was undone."""
        self._written = None

    def due(self) -> Place | None:
        """A block that is to be written now."""
        if self._waiting:
            place, at = next(iter(self._waiting.items()))
            if self._changes - at >= QUIET_CHANGES:
                return place
        return None

    def write(self, place: Place) -> None:
        """Write down a block, if that is of use, within the open transaction."""
        journal, block = place
        self._waiting.pop(place, None)
        rows = self._writer.execute(
            "SELECT number, size, priority, first, parts, born_s, lifetime_s FROM entry"
            " WHERE journal = ? AND number BETWEEN ? AND ? ORDER BY number",
            (journal, block * BLOCK_SIZE, (block + 1) * BLOCK_SIZE - 1),
        ).fetchall()
        found = self._writer.execute("SELECT journal FROM journal WHERE id = ?", (journal,)).fetchone()
        if found is None or len(rows) < ENTRIES_MIN or not is_whole(rows):
            return
        data = pack_lot(Lot.of(rows))
        self._writer.execute(
            "INSERT OR REPLACE INTO summary (journal, block, data, crc) VALUES (?, ?, ?, ?)",
            (journal, block, data, checksum(found[0], block, data)),
        )
        if self._written is not None:
            self._written.setdefault(journal, set()).add(block)

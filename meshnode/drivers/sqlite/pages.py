"""Rows out of what is left of a damaged database file, without SQLite, which gives up a whole tree for one bad page.

Every page is looked at by itself: a leaf says where its rows are, so a damaged page costs its own rows and no others,
and neither the tree above them nor the tables' names are needed. The log is read too, and its newest committed pages
stand for those of the file. Freed pages still hold rows that were removed, so they are left out where the list of them
is whole.
Nothing here is believed: whoever asks has to tell by the values what a row is, and whether it is true.

File format: https://www.sqlite.org/fileformat2.html, sections 1.3 to 1.6, 2 and 4.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from meshnode.drivers.sqlite.schema import PAGE_SIZE

#: What of a value is left: NULL, a number, text or bytes.
Value = int | float | str | bytes | None

_TABLE_LEAF: Final = 13
_INDEX_LEAF: Final = 10
_INDEX_INNER: Final = 2
#: First bytes of pages that certainly have no rows: inner nodes of tables, overflow pages, maps of pointers (1 to 5).
_ROWLESS: Final = frozenset({0, 1, 3, 4, 5})
_HEADER_SIZE: Final = 100
_LOG_HEADER_SIZE: Final = 32
_FRAME_HEADER_SIZE: Final = 24
_BLOCK_SIZE: Final = 4096
_WHOLE_IN_TABLE: Final = PAGE_SIZE - 35
_WHOLE_IN_INDEX: Final = (PAGE_SIZE - 12) * 64 // 255 - 23
_LEAST: Final = (PAGE_SIZE - 12) * 32 // 255 - 23
#: No row of a store is larger: a bundle with its header and signature.
_ROW_SIZE_MAX: Final = 1 << 20
#: A row has 11 values at most, each of a type of at most 3 bytes.
_HEAD_SIZE_MAX: Final = 64


class Found(NamedTuple):
    """A row: on which page, whether of an ordinary table (which has a number for each row) or of an index, and the
    values as they are stored: a table's own number is None among them, and a REAL without a fraction is an int."""

    page: int
    in_table: bool
    number: int
    values: list[Value]


class Pages:
    """The pages of a store's file and of its log, for reading; to be closed. Raises OSError if there is no file."""

    def __init__(self, path: Path) -> None:
        self._files = [os.open(path, os.O_RDONLY | os.O_CLOEXEC)]
        #: Where the newest committed version of a page is in the log.
        self._logged: dict[int, int] = {}
        try:
            self._files.append(os.open(f"{path}-wal", os.O_RDONLY | os.O_CLOEXEC))
        except FileNotFoundError:
            pass
        else:
            self._read_log()
        self.count = max(-(-os.fstat(self._files[0]).st_size // PAGE_SIZE), *self._logged, 0)
        #: Pages that could not be read, in part or at all.
        self.unreadable = 0

    def close(self) -> None:
        """Let go of the files."""
        for file in self._files:
            os.close(file)

    def _read(self, file: int, size: int, at: int) -> bytes:
        """What the disk does not give back is zeros."""
        try:
            data = os.pread(file, size, at)
        except OSError:
            if size <= _BLOCK_SIZE:
                return bytes(size)
            self.unreadable += 1
            blocks = range(at, at + size, _BLOCK_SIZE)
            return b"".join(self._read(file, _BLOCK_SIZE, block) for block in blocks)
        return data.ljust(size, b"\0")

    def _read_log(self) -> None:
        self.unreadable = 0
        log, size = self._files[1], os.fstat(self._files[1]).st_size
        salts = b""
        open_: dict[int, int] = {}
        for at in range(_LOG_HEADER_SIZE, size - PAGE_SIZE, _FRAME_HEADER_SIZE + PAGE_SIZE):
            head = self._read(log, _FRAME_HEADER_SIZE, at)
            salts = salts or head[8:16]
            if head[8:16] != salts:
                continue  # of an older log, or damaged
            open_[int.from_bytes(head[:4], "big")] = at + _FRAME_HEADER_SIZE
            if any(head[4:8]):  # the last one of a transaction
                self._logged.update(open_)
                open_.clear()

    def page(self, number: int) -> bytes:
        """PAGE_SIZE bytes; zeros for what is not there. Pages count from 1."""
        if (at := self._logged.get(number)) is not None:
            return self._read(self._files[1], PAGE_SIZE, at)
        return self._read(self._files[0], PAGE_SIZE, (number - 1) * PAGE_SIZE)

    def freed(self) -> set[int]:
        """The pages that nothing uses, as far as their list is whole."""
        trunk = int.from_bytes(self.page(1)[32:36], "big")
        found: set[int] = set()
        while 0 < trunk <= self.count and trunk not in found:
            page = self.page(trunk)
            count = int.from_bytes(page[4:8], "big")
            named = {int.from_bytes(page[at : at + 4], "big") for at in range(8, 8 + 4 * count, 4)}
            if count > PAGE_SIZE // 4 - 2 or not all(0 < number <= self.count for number in named):
                break  # it would have us pass over what is in use
            found |= {trunk, *named}
            trunk = int.from_bytes(page[:4], "big")
        return found

    def rows(self, wanted: Callable[[list[int]], bool], skip: set[int]) -> Iterator[Found]:
        """Every row that is left on pages that are not in `skip`. `wanted` is asked first, with the types of its values
        (section 2.1: 0 NULL, 1 to 6 and 8, 9 int, 7 float, from 12 on 2n+12 n bytes, 2n+13 n bytes of text)."""
        for number in range(1, self.count + 1):
            if number not in skip:
                yield from self._rows_on(number, self.page(number), wanted)

    def small_table(self, name: str) -> list[list[Value]]:
        """The rows of a table WITHOUT ROWID that fits on one page, in a database that is whole; else what is found."""
        schema = self._rows_on(1, self.page(1), lambda types: len(types) == 5)
        roots = [row.values[3] for row in schema if row.values[:2] == ["table", name]]
        numbers = [root for root in roots if isinstance(root, int) and 1 < root <= self.count]
        return [
            row.values for root in numbers for row in self._rows_on(root, self.page(root), lambda _: True)
        ]

    def _rows_on(self, number: int, page: bytes, wanted: Callable[[list[int]], bool]) -> Iterator[Found]:
        base = _HEADER_SIZE if number == 1 else 0
        kind = page[base]
        if kind in _ROWLESS:
            return
        in_table = kind not in (
            _INDEX_LEAF,
            _INDEX_INNER,
        )  # a kind that does not exist is damaged: tables are large
        start = base + (12 if kind == _INDEX_INNER else 8)
        count = min(int.from_bytes(page[base + 3 : base + 5], "big"), (PAGE_SIZE - start) // 2)
        for at in range(start, start + 2 * count, 2):
            cell = int.from_bytes(page[at : at + 2], "big") + (4 if kind == _INDEX_INNER else 0)
            try:
                if (row := self._row(page, cell, in_table, wanted)) is not None:
                    yield Found(number, in_table, *row)
            except (IndexError, ValueError):
                continue

    def _row(
        self, page: bytes, at: int, in_table: bool, wanted: Callable[[list[int]], bool]
    ) -> tuple[int, list[Value]] | None:
        """Raises IndexError or ValueError: it is none."""
        size, at = _varint(page, at)
        number, at = _varint(page, at) if in_table else (0, at)
        if not 0 < size <= _ROW_SIZE_MAX:
            raise ValueError
        here = size
        if size > (_WHOLE_IN_TABLE if in_table else _WHOLE_IN_INDEX):
            here = _LEAST + (size - _LEAST) % (PAGE_SIZE - 4)
            if here > (_WHOLE_IN_TABLE if in_table else _WHOLE_IN_INDEX):
                here = _LEAST
        data = page[at : at + here]
        head_size, next_ = _varint(data, 0)
        if head_size > _HEAD_SIZE_MAX:
            raise ValueError
        types: list[int] = []
        while next_ < head_size:
            kind, next_ = _varint(data, next_)
            types.append(kind)
        if head_size + sum(map(_size, types)) != size:
            raise ValueError  # the surest sign that this is noise
        if not wanted(types):
            return None
        return number, _values(data + self._overflow(page, at + here, size - here), head_size, types)

    def _overflow(self, page: bytes, at: int, size: int) -> bytes:
        pieces = []
        next_ = int.from_bytes(page[at : at + 4], "big") if size else 0
        while size:
            if not 0 < next_ <= self.count:
                raise ValueError
            more = self.page(next_)
            pieces.append(more[4 : 4 + size])
            size -= len(pieces[-1])
            next_ = int.from_bytes(more[:4], "big")
        return b"".join(pieces)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for taken in range(8):
        byte = data[at + taken]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at + taken + 1
    return value << 8 | data[at + 8], at + 9


_INT_SIZES: Final = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}


def _size(kind: int) -> int:
    if kind >= 12:
        return (kind - 12) // 2
    return 8 if kind == 7 else _INT_SIZES.get(kind, 0)


def _values(data: bytes, at: int, types: list[int]) -> list[Value]:
    values: list[Value] = []
    for kind in types:
        piece = data[at : at + _size(kind)]
        at += len(piece)
        if len(piece) < _size(kind):
            raise ValueError
        if kind >= 12:
            values.append(piece if kind % 2 == 0 else piece.decode(errors="replace"))
        elif kind in _INT_SIZES:
            values.append(int.from_bytes(piece, "big", signed=True))
        elif kind == 7:
            values.append(float(struct.unpack(">d", piece)[0]))
        else:
            values.append({8: 0, 9: 1}.get(kind))
    return values

"""How a slot is laid out, and reading slots without the database.

slot       head | payload; all slots are of one size, so any bundle fits wherever there is room
head       one page: magic | CRC-32 of the body | size of the body | body: [header, signature, born_s, arrived_ms]
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from meshnode.core.bundle import read_header
from meshnode.core.errors import RemoteError
from meshnode.core.fields import pack, unpack
from meshnode.core.identity import SIGNATURE_SIZE
from meshnode.core.limits import HEADER_SIZE_MAX, KIB, PAYLOAD_SIZE_MAX
from meshnode.drivers.sqlite.schema import INFINITE_S

HEAD_SIZE: Final = 4 * KIB
SLOT_SIZE: Final = HEAD_SIZE + PAYLOAD_SIZE_MAX
#: What stands in place of the head of a slot that was freed.
WIPED: Final = bytes(HEAD_SIZE)

_MAGIC: Final = b"meshslot"
_START: Final = struct.Struct(">8sIH")


class Head(NamedTuple):
    """What a slot says of itself. `born_s` and `arrived_ms` as in `core.rows`."""

    header: bytes
    signature: bytes
    born_s: float
    arrived_ms: int

    @property
    def checksum(self) -> int:
        """What the row of an entry has of this: CRC-32 of header and signature."""
        return zlib.crc32(self.header + self.signature)

    def page(self) -> bytes:
        """HEAD_SIZE bytes."""
        body = pack(list(self))
        return (_START.pack(_MAGIC, zlib.crc32(body), len(body)) + body).ljust(HEAD_SIZE, b"\0")


def read_head(page: bytes) -> Head | None:
    """None unless it is as it was written."""
    if len(page) < HEAD_SIZE or not page.startswith(_MAGIC):
        return None
    _, crc, size = _START.unpack_from(page)
    body = page[_START.size : _START.size + size]
    if zlib.crc32(body) != crc:
        return None
    try:
        header, signature, born_s, arrived_ms = unpack(body, "slot")
    except (RemoteError, ValueError):
        return None
    is_whole = type(header) is type(signature) is bytes and type(arrived_ms) is int
    if not is_whole or type(born_s) is not float or not abs(born_s) < INFINITE_S:
        return None
    if len(header) > HEADER_SIZE_MAX or len(signature) != SIGNATURE_SIZE:
        return None
    return Head(header, signature, born_s, arrived_ms)


def slots_of(path: Path) -> Iterator[tuple[int, Head, bytes]]:
    """Slot, head and payload of all slots of a file whose heads are whole, whether rows name them or not. What the disk
    does not give back is passed over. Raises OSError if there is no file."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        for slot in range(-(-os.fstat(file).st_size // SLOT_SIZE)):
            with suppress(OSError, RemoteError):
                head = read_head(os.pread(file, HEAD_SIZE, slot * SLOT_SIZE))
                if head is not None:
                    size = read_header(head.header).payload_size
                    yield slot, head, os.pread(file, size, slot * SLOT_SIZE + HEAD_SIZE)
    finally:
        os.close(file)

"""A file on a stick: a recorded contact.

    head    "MESHNODE", the version of the format (1 byte), the fleet's id (16 bytes)
    frames  FLEET, CERT, RECEIPT and BUNDLE, just as `frames` has them, one after another

A certificate stands before the first bundle or receipt that needs it, so each file can be taken by itself, and a file
that was cut off anywhere is worth all its whole frames. What is in it is as sealed and as signed as on the air: who
finds the stick learns which devices have written how much, and nothing else.

To see what a file holds nothing needs to be read but the first bytes of each frame (`peek`), which are believed: who
can forge them could as well wipe the stick.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import msgpack

from meshnode.core.bundle import read_header
from meshnode.core.errors import RemoteError
from meshnode.core.identity import ID_SIZE, SIGNATURE_SIZE, FleetId, JournalId
from meshnode.core.limits import FRAME_SIZE_MAX, HEADER_SIZE_MAX
from meshnode.core.words import say

VERSION: Final = 1
LENGTH_SIZE: Final = 4
_MAGIC: Final = b"MESHNODE"
HEAD_SIZE: Final = len(_MAGIC) + 1 + ID_SIZE
#: Of a frame, what `peek` needs: the length, the kind, the age, and a bundle's header.
PEEK_SIZE: Final = LENGTH_SIZE + HEADER_SIZE_MAX + 32

#: A length of at most FRAME_SIZE_MAX, and how FLEET, RECEIPT, CERT and BUNDLE begin in msgpack.
FRAME_START: Final = re.compile(rb"\0[\0-\x08]..(?:\x93[\x02\x04]|\x92\x05|\x95\x07)", re.DOTALL)
FRAME_START_SIZE: Final = LENGTH_SIZE + 2
_BUNDLE_START: Final = b"\x95\x07"


def write_head(fleet: FleetId) -> bytes:
    """What a file of this fleet begins with."""
    return _MAGIC + bytes([VERSION]) + fleet


def read_head(data: bytes) -> FleetId:
    """Whose a file is that begins so. Raises RemoteError."""
    if len(data) < HEAD_SIZE or not data.startswith(_MAGIC):
        raise RemoteError(say("it"), "is no file of meshnode")
    if data[len(_MAGIC)] != VERSION:
        raise RemoteError(say("it"), "was written by a newer meshnode")
    return FleetId(data[HEAD_SIZE - ID_SIZE : HEAD_SIZE])


def frame_size(start: bytes) -> int | None:
    """The size of the frame that begins so, with its length; None if none of these does. Each holds a signature."""
    if not FRAME_START.match(start):
        return None
    size = int.from_bytes(start[:LENGTH_SIZE], "big")
    return LENGTH_SIZE + size if SIGNATURE_SIZE < size <= FRAME_SIZE_MAX else None


@dataclass(frozen=True, slots=True)
class Stub:
    """Which bundle a frame holds."""

    journal: JournalId
    number: int
    size_bytes: int


def peek(start: bytes) -> Stub | None:
    """Which bundle the frame holds that begins with these PEEK_SIZE bytes (or all that it has); None if it is another
    frame, or damaged."""
    if start[LENGTH_SIZE:FRAME_START_SIZE] != _BUNDLE_START:
        return None
    unpacker = msgpack.Unpacker(raw=False)
    unpacker.feed(start[LENGTH_SIZE:])
    try:
        unpacker.read_array_header()
        _, _, header = (unpacker.unpack() for _ in range(3))
        if type(header) is not bytes:
            return None
        read = read_header(header)
    except (RemoteError, ValueError, TypeError, msgpack.UnpackException, RecursionError):
        return None
    return Stub(read.journal, read.number, read.payload_size)

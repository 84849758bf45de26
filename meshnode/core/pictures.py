"""Whether a picture is whole, by its structure: JPEG, PNG, JPEG 2000 and WSQ, the format of fingerprints.

Each of them is a run of parts that say how long they are, between a mark at its beginning and one at its end. Walking
from part to part finds what happens to pictures in practice: a file that was cut off, is empty, ends in zeros, or is
something else under a wrong name. Of the data of a JPEG 2000 only both ends are looked at; a PNG has checksums too, so
there every wrong bit is found. Nothing is decoded here, so nothing here is large or slow: for that there is Pillow,
where it is installed.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Final, NamedTuple

from meshnode.core.words import Words, say

#: More pixels than any photograph, iris or fingerprint has; what claims more is not decoded.
PIXELS_MAX: Final = 64_000_000

#: By the end of the file's name.
FORMATS: Final = {
    "jpg": "jpeg",
    "jpeg": "jpeg",
    "png": "png",
    "jp2": "jp2",
    "j2k": "jp2",
    "wsq": "wsq",
}
_JP2_START: Final = b"\0\0\0\x0cjP  \r\n\x87\n"
_CODESTREAM: Final = b"\xff\x4f\xff\x51"


class Broken(ValueError):
    """This is no whole picture of that format; `why` says it in words."""

    def __init__(self, why: Words) -> None:
        super().__init__(why)
        self.why = why


class Size(NamedTuple):
    """In pixels."""

    width: int
    height: int


def format_of(name: str) -> str | None:
    """The format that a file of this name has to be in; None if it is no picture that is known here."""
    _, dot, end = name.rpartition(".")
    return FORMATS.get(end.lower()) if dot else None


def size_of(picture: str, data: bytes) -> Size:
    """Walk through a whole picture of this format. Raises Broken."""
    size = _WALKS[picture](data)
    if min(size) < 1 or size.width * size.height > PIXELS_MAX:
        raise Broken(say("its size in pixels cannot be"))
    return size


def _u16(data: bytes, at: int) -> int:
    if at + 2 > len(data):
        raise Broken(say("it is cut off"))
    return int.from_bytes(data[at : at + 2], "big")


def _u32(data: bytes, at: int) -> int:
    if at + 4 > len(data):
        raise Broken(say("it is cut off"))
    return int.from_bytes(data[at : at + 4], "big")


def _jpeg(data: bytes) -> Size:
    frames = [*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0)]
    return _marked(data, b"\xff\xd8", end=0xD9, scan=0xDA, frames=frames, at=(5, 3))


def _wsq(data: bytes) -> Size:
    return _marked(data, b"\xff\xa0", end=0xA1, scan=0xA3, frames=[0xA2], at=(6, 4))


def _marked(
    data: bytes, start: bytes, *, end: int, scan: int, frames: list[int], at: tuple[int, int]
) -> Size:
    """JPEG and WSQ: FF and a letter, two bytes of length, content; after a scan the coded picture, in which FF is
    followed by 00. `at`: where in a frame's segment, from its length on, width and height stand."""
    if not data.startswith(start):
        raise Broken(say("it does not begin as one"))
    size, scanned, here = None, False, 2
    while True:
        while data[here : here + 2] == b"\xff\xff":  # a marker may be preceded by any number of FF
            here += 1
        marker = _u16(data, here)
        if marker >> 8 != 0xFF:
            raise Broken(say("it is damaged"))
        letter = marker & 0xFF
        if letter == end:
            break
        if start == b"\xff\xd8" and (0xD0 <= letter <= 0xD7 or letter == 0x01):  # these have no content
            here = _next_marker(data, here + 2)
            continue
        length = _u16(data, here + 2)
        if length < 2 or here + 2 + length > len(data):
            raise Broken(say("it is cut off"))
        if letter in frames and size is None:
            size = Size(_u16(data, here + 2 + at[0]), _u16(data, here + 2 + at[1]))
        here += 2 + length
        if letter == scan:
            scanned = True
            coded = _next_marker(data, here)
            if coded == here:
                raise Broken(say("it has no picture in it"))
            here = coded
    if size is None or not scanned:
        raise Broken(say("it has no picture in it"))
    return size


def _next_marker(data: bytes, here: int) -> int:
    """Where the next marker stands that is none of coded data."""
    while True:
        here = data.find(b"\xff", here)
        if here < 0 or here + 1 >= len(data):
            raise Broken(say("it is cut off"))
        if data[here + 1] not in (0x00, 0xFF):
            return here
        here += 2 if data[here + 1] == 0 else 1


def _png(data: bytes) -> Size:
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        raise Broken(say("it does not begin as one"))
    here, size, coded = 8, None, False
    while True:
        length, name = _u32(data, here), data[here + 4 : here + 8]
        after = here + 8 + length
        if zlib.crc32(data[here + 4 : after]) != _u32(data, after):
            raise Broken(say("it is damaged"))
        if size is None:
            if name != b"IHDR" or length < 8:
                raise Broken(say("it is damaged"))
            size = Size(_u32(data, here + 8), _u32(data, here + 12))
        coded = coded or (name == b"IDAT" and length > 0)
        if name == b"IEND":
            break
        here = after + 4
    if not coded:
        raise Broken(say("it has no picture in it"))
    return size


def _jp2(data: bytes) -> Size:
    """Boxes with the codestream among them, or the codestream alone."""
    if data.startswith(_CODESTREAM):
        return _codestream(data)
    if not data.startswith(_JP2_START):
        raise Broken(say("it does not begin as one"))
    here = 0
    while here < len(data):
        length, name, head = _u32(data, here), data[here + 4 : here + 8], 8
        if length == 1:
            length, head = (_u32(data, here + 8) << 32) + _u32(data, here + 12), 16
        if length == 0:
            length = len(data) - here
        if length < head or here + length > len(data):
            raise Broken(say("it is cut off"))
        if name == b"jp2c":
            return _codestream(data[here + head : here + length])
        here += length
    raise Broken(say("it has no picture in it"))


def _codestream(data: bytes) -> Size:
    if not data.startswith(_CODESTREAM) or len(data) < 48:
        raise Broken(say("it has no picture in it"))
    if not data.endswith(b"\xff\xd9"):
        raise Broken(say("it is cut off"))
    return Size(_u32(data, 8) - _u32(data, 16), _u32(data, 12) - _u32(data, 20))


_WALKS: Final[dict[str, Callable[[bytes], Size]]] = {"jpeg": _jpeg, "png": _png, "jp2": _jp2, "wsq": _wsq}

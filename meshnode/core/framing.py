"""A stream of bytes, cut into frames: a length of four bytes, big-endian, then so many bytes for `frames.decode`."""

from __future__ import annotations

from collections.abc import Iterator

from meshnode.core.errors import RemoteError
from meshnode.core.frames import LENGTH_SIZE, Frame, decode
from meshnode.core.limits import FRAME_SIZE_MAX
from meshnode.core.words import say


class FrameReader:
    """Cuts a byte stream into frames. Holds at most one frame of FRAME_SIZE_MAX bytes and what was fed last."""

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that are whole now, in order. Raises RemoteError; the stream is of no use after that."""
        held = self._held
        held += data
        at = 0
        try:
            while len(held) - at >= LENGTH_SIZE:
                size = int.from_bytes(held[at : at + LENGTH_SIZE], "big")
                if size > FRAME_SIZE_MAX:
                    wrong = say(
                        "has {size_bytes} bytes, more than {most}", size_bytes=size, most=FRAME_SIZE_MAX
                    )
                    raise RemoteError("frame", wrong)
                if len(held) - at < LENGTH_SIZE + size:
                    break
                at += LENGTH_SIZE + size
                with memoryview(held) as view, view[at - size : at] as body:  # a payload is copied once
                    frame = decode(body)
                yield frame
        finally:
            del held[:at]

"""A message, and how it becomes consecutive bundles and a message again.

The plaintext of a message is one stream of bytes: a 4-byte big-endian length, the manifest, then the files' bytes in
the manifest's order, nothing between them. The stream is cut into chunks of CHUNK_SIZE; all but the last are full;
each is sealed alone. Both directions work chunk by chunk, so a message of any size needs constant memory.

    manifest   msgpack [1, kind, meta [[key, value], ...], reference, submitted_ms, files [[name, size, type], ...]]

Names are checked on both sides: when a message is taken, since then somebody can still correct it, and when it is
opened, since the sender may be hostile.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from meshnode.core.bundle import MILLISECONDS_MAX
from meshnode.core.errors import BadFileName, BadSubmission, MessageTooLarge, RemoteError
from meshnode.core.fields import Reader, pack, unpack
from meshnode.core.limits import (
    FILE_NAME_SIZE_MAX,
    FILES_MAX,
    KIND_SIZE_MAX,
    MANIFEST_SIZE_MAX,
    MESSAGE_SIZE_MAX,
    REFERENCE_SIZE_MAX,
)
from meshnode.core.sealing import CHUNK_SIZE
from meshnode.core.words import say

VERSION: Final = 1
MANIFEST_NAME: Final = "message.json"
_LENGTH_SIZE: Final = 4
_TYPE_SIZE_MAX: Final = 255


@dataclass(frozen=True, slots=True)
class File:
    """One file of a message: its bare name, its size and its media type (RFC 2046; a guess, for people)."""

    name: str
    size_bytes: int
    type: str = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a message is, and which files follow."""

    kind: str
    meta: tuple[tuple[str, str], ...]
    reference: str
    submitted_ms: int
    files: tuple[File, ...]

    @property
    def files_size(self) -> int:
        """Bytes of all files together."""
        return sum(file.size_bytes for file in self.files)


def check_file_name(name: str) -> str:
    """`name`, if a file can be called so on every system. Raises BadFileName."""
    shown = ascii(name)
    if "/" in name or "\\" in name or name in (".", ".."):
        raise BadFileName(name=shown, problem="a path is not a name; submit the file under its bare name")
    if not name:
        raise BadFileName(name=shown, problem="it is empty")
    if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in name):
        raise BadFileName(name=shown, problem="it holds control characters or bytes that are not UTF-8")
    if len(name.encode()) > FILE_NAME_SIZE_MAX:
        raise BadFileName(
            name=shown, problem=say("it is longer than {limit_bytes} bytes", limit_bytes=FILE_NAME_SIZE_MAX)
        )
    if name.casefold() == MANIFEST_NAME:
        raise BadFileName(
            name=shown, problem="the office keeps its own record under this name; rename the file"
        )
    return name


def check_manifest(manifest: Manifest) -> Manifest:
    """`manifest`, if it can become a message. Raises BadFileName, BadSubmission or MessageTooLarge."""
    if not 1 <= len(manifest.files) <= FILES_MAX:
        wrong = say("it has {n} files; a message has 1 to {limit}", n=len(manifest.files), limit=FILES_MAX)
        raise BadSubmission(problem=wrong)
    texts = [manifest.kind, manifest.reference, *(file.type for file in manifest.files)]
    try:
        "".join([*texts, *(text for pair in manifest.meta for text in pair)]).encode()
    except UnicodeEncodeError:
        raise BadSubmission(problem="it has text that is not UTF-8") from None
    seen: set[str] = set()
    for file in manifest.files:
        name = unicodedata.normalize("NFC", check_file_name(file.name)).casefold()
        if name in seen:
            raise BadFileName(name=ascii(file.name), problem="another file of the message has this name too")
        seen.add(name)
        if file.size_bytes < 0 or len(file.type.encode()) > _TYPE_SIZE_MAX:
            raise BadSubmission(problem=say("the size or type of {file} cannot be", file=file.name))
    if len(manifest.kind.encode()) > KIND_SIZE_MAX:
        raise BadSubmission(
            problem=say("its kind is longer than {limit_bytes} bytes", limit_bytes=KIND_SIZE_MAX)
        )
    if len(manifest.reference.encode()) > REFERENCE_SIZE_MAX:
        wrong = say("its reference is longer than {limit_bytes} bytes", limit_bytes=REFERENCE_SIZE_MAX)
        raise BadSubmission(problem=wrong)
    if len({key for key, _ in manifest.meta}) != len(manifest.meta):
        raise BadSubmission(problem="it names a --meta key twice")
    if manifest.files_size > MESSAGE_SIZE_MAX:
        raise MessageTooLarge(size_bytes=manifest.files_size, limit_bytes=MESSAGE_SIZE_MAX)
    if len(encode_manifest(manifest)) > MANIFEST_SIZE_MAX:
        raise BadSubmission(
            problem=say(
                "its metadata and file names are longer than {limit_bytes} bytes together",
                limit_bytes=MANIFEST_SIZE_MAX,
            )
        )
    return manifest


def encode_manifest(manifest: Manifest) -> bytes:
    """The manifest's bytes, without the length before them."""
    return pack(
        [
            VERSION,
            manifest.kind,
            [list(pair) for pair in manifest.meta],
            manifest.reference,
            manifest.submitted_ms,
            [[file.name, file.size_bytes, file.type] for file in manifest.files],
        ]
    )


def _read_file(reader: Reader) -> File:
    return File(
        reader.text("name", FILE_NAME_SIZE_MAX),
        reader.whole("size", 0, MESSAGE_SIZE_MAX),
        reader.text("type", _TYPE_SIZE_MAX),
    )


def read_manifest(data: bytes) -> Manifest:
    """Decode a manifest strictly. Raises RemoteError."""
    reader = Reader(unpack(data, "manifest"), "manifest", 6)
    reader.whole("version", VERSION, VERSION)

    def pair(row: Reader) -> tuple[str, str]:
        return row.text("key", MANIFEST_SIZE_MAX), row.text("value", MANIFEST_SIZE_MAX)

    manifest = Manifest(
        kind=reader.text("kind", KIND_SIZE_MAX),
        meta=tuple(reader.each("meta", MANIFEST_SIZE_MAX, 2, pair)),
        reference=reader.text("reference", REFERENCE_SIZE_MAX),
        submitted_ms=reader.whole("submitted_ms", 0, MILLISECONDS_MAX),
        files=tuple(reader.each("files", FILES_MAX, 3, _read_file)),
    )
    try:
        return check_manifest(manifest)
    except (BadFileName, BadSubmission, MessageTooLarge) as problem:
        raise RemoteError("manifest", say("cannot be true ({problem})", problem=problem)) from None


def stream_head(manifest: Manifest) -> bytes:
    """What stands in the stream before the files' bytes."""
    encoded = encode_manifest(manifest)
    return len(encoded).to_bytes(_LENGTH_SIZE, "big") + encoded


def stream_size(manifest: Manifest) -> int:
    """Bytes of the whole stream."""
    return len(stream_head(manifest)) + manifest.files_size


def parts_for(size: int) -> int:
    """How many bundles a stream of `size` bytes becomes."""
    return max(1, -(-size // CHUNK_SIZE))


class Chunker:
    """Cuts a stream that comes in pieces of any size into chunks of CHUNK_SIZE."""

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The chunks that are full now. A chunk that may be the last is kept for `rest`."""
        self._held += data
        while len(self._held) > CHUNK_SIZE:
            yield bytes(self._held[:CHUNK_SIZE])
            del self._held[:CHUNK_SIZE]

    def rest(self) -> bytes:
        """The last chunk: what is left."""
        return bytes(self._held)


class Opener:
    """Turns opened chunks, in order, back into a manifest and the bytes of its files."""

    def __init__(self) -> None:
        self.manifest: Manifest | None = None
        self._head = bytearray()
        self._file = 0
        self._left = 0

    def feed(self, chunk: bytes) -> Iterator[tuple[int, memoryview]]:
        """(index of the file, its next bytes) in order. Raises RemoteError if the stream is not a message."""
        data = memoryview(chunk)
        if self.manifest is None:
            self._head += data
            size = int.from_bytes(self._head[:_LENGTH_SIZE], "big")
            if size > MANIFEST_SIZE_MAX:
                raise RemoteError(
                    "manifest", say("has more than {limit_bytes} bytes", limit_bytes=MANIFEST_SIZE_MAX)
                )
            if len(self._head) < _LENGTH_SIZE + size:
                return
            rest = bytes(self._head[_LENGTH_SIZE + size :])
            self.manifest = read_manifest(bytes(self._head[_LENGTH_SIZE : _LENGTH_SIZE + size]))
            self._left = self.manifest.files[0].size_bytes
            data = memoryview(rest)
        files = self.manifest.files
        while data:
            while self._left == 0:
                self._file += 1
                if self._file >= len(files):
                    raise RemoteError("message", "has bytes after its last file")
                self._left = files[self._file].size_bytes
            piece = data[: self._left]
            self._left -= len(piece)
            data = data[len(piece) :]
            yield self._file, piece

    def close(self) -> Manifest:
        """The manifest, once everything was fed. Raises RemoteError if something is missing."""
        if self.manifest is None:
            raise RemoteError("message", "ends within its manifest")
        if self._left or any(file.size_bytes for file in self.manifest.files[self._file + 1 :]):
            raise RemoteError("message", "ends before its last file does")
        return self.manifest

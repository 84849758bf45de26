"""One message from its sealed bundles to a sink: opened, or put aside, or waited for; never half."""

from __future__ import annotations

import hashlib
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from meshnode.core.bundle import Header
from meshnode.core.errors import StoreTrouble
from meshnode.core.fields import pack
from meshnode.core.identity import JournalId
from meshnode.core.message import Manifest, encode_manifest
from meshnode.core.rows import Rotten, StoredBundle
from meshnode.core.sealing import CHUNK_SIZE, SealingKey
from meshnode.office.opening import Message, NotWhole, open_message
from meshnode.office.sinks import Delivery, Envelope, Never, NotNow
from tests.office.world import (
    BUDI,
    EVENING_MS,
    KEYS,
    SEAL,
    SITI,
    Shelf,
    Writer,
    chunks_of,
    manifest_of,
    stream_of,
)

CONTENTS = [("formulir.json", b"{}"), ("foto.jpg", b"f" * 900), ("kosong", b"")]


@dataclass
class Taken:
    """What a sink has taken of one message."""

    envelope: Envelope
    manifest: Manifest
    files: list[bytearray]


@dataclass
class MemorySink:
    """A sink that keeps everything, or answers `answer` at `at`."""

    answer: Exception | None = None
    at: str = ""
    taken: dict[str, Taken] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)

    def step(self, name: str) -> None:
        if not self.log or self.log[-1] != name:
            self.log.append(name)
        if self.answer is not None and name == self.at:
            raise self.answer

    def begin(self, envelope: Envelope, manifest: Manifest) -> Delivery | None:
        self.step("begin")
        if envelope.key in self.taken:
            return None
        return MemoryDelivery(self, Taken(envelope, manifest, [bytearray() for _ in manifest.files]))


@dataclass
class MemoryDelivery:
    sink: MemorySink
    message: Taken

    def write(self, index: int, data: bytes | memoryview) -> None:
        self.sink.step("write")
        self.message.files[index] += data

    def commit(self) -> None:
        self.sink.step("commit")
        self.sink.taken[self.message.envelope.key] = self.message

    def abort(self) -> None:
        self.sink.step("abort")


def shelf_of(
    chunks: list[bytes], change: Callable[[Header], Header] = lambda header: header, before: int = 0
) -> tuple[Shelf, Message]:
    """A store with one message, and which it is. `before`: how many bundles the journal had already."""
    shelf, writer = Shelf(), Writer(SITI, last=before)
    for at, bundle in enumerate(writer.write(chunks, change)):
        shelf.put(bundle, EVENING_MS + (7 * at) % 5)
    return shelf, Message(writer.journal, before + 1, writer.last, SITI.certificate)


def never(shelf: Shelf, message: Message, keys: dict[bytes, SealingKey] = KEYS) -> tuple[str, MemorySink]:
    """The reason for which a message is put aside."""
    sink = MemorySink()
    with pytest.raises(Never) as refusal:
        open_message(message, shelf.read, keys, sink)
    assert sink.taken == {}
    assert sink.log[-1:] in ([], ["abort"])
    return str(refusal.value), sink


# --- what is opened ---


@pytest.mark.parametrize("size", [None, 1, 3, 64, 500])
def test_a_message_arrives_as_it_was_written(size: int | None) -> None:
    shelf, message = shelf_of(chunks_of(stream_of(CONTENTS), size), before=41)
    sink = MemorySink()
    open_message(message, shelf.read, KEYS, sink)
    taken = sink.taken[f"{message.journal.hex()}:42"]
    assert taken.manifest == manifest_of(CONTENTS)
    assert [bytes(data) for data in taken.files] == [data for _, data in CONTENTS]
    last_ms = max(stored.arrived_ms for stored in shelf.bundles.values())
    assert taken.envelope == Envelope(f"{message.journal.hex()}:42", "officer-07", SITI.id, last_ms)
    assert sink.log == ["begin", "write", "commit"]


def test_a_message_that_the_sink_has_is_not_written_again() -> None:
    shelf, message = shelf_of(chunks_of(stream_of(CONTENTS), 100))
    sink = MemorySink()
    open_message(message, shelf.read, KEYS, sink)
    open_message(message, shelf.read, KEYS, sink)
    assert sink.log == ["begin", "write", "commit", "begin"]


def test_why_it_is_held_is_passed_on() -> None:
    shelf, message = shelf_of(chunks_of(stream_of(CONTENTS)))
    sink = MemorySink()
    open_message(replace(message, held="why"), shelf.read, KEYS, sink)
    assert sink.taken[message.key].envelope.held == "why"


def test_a_large_message_needs_the_memory_of_a_few_chunks() -> None:
    contents = [("a.bin", bytes(30 * CHUNK_SIZE)), ("b.bin", bytes(10 * CHUNK_SIZE + 5))]
    shelf, message = shelf_of(chunks_of(stream_of(contents)))
    assert message.last == 41
    sizes = [0, 0]

    class Counting(MemoryDelivery):
        def write(self, index: int, data: bytes | memoryview) -> None:
            sizes[index] += len(data)

    class CountingSink(MemorySink):
        def begin(self, envelope: Envelope, manifest: Manifest) -> Delivery | None:
            return Counting(self, Taken(envelope, manifest, []))

    def read(journal: JournalId, number: int) -> StoredBundle | None:
        stored = shelf.bundles[journal, number]
        return stored._replace(payload=bytes(bytearray(stored.payload)))  # new bytes, as from a disk

    tracemalloc.start()
    try:
        open_message(message, read, KEYS, CountingSink())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sizes == [len(data) for _, data in contents]
    assert peak < 8 * CHUNK_SIZE


# --- what is not there as it came ---


def rot(stored: StoredBundle, part: str) -> StoredBundle:
    parts = {"header": stored.header, "signature": stored.signature, "payload": stored.payload}
    data = bytearray(parts[part])
    data[len(data) // 2] ^= 1
    parts[part] = bytes(data)
    return StoredBundle(**parts, born_s=stored.born_s, arrived_ms=stored.arrived_ms)


@pytest.mark.parametrize("part", ["header", "signature", "payload"])
@pytest.mark.parametrize("number", [1, 3])
def test_a_rotten_bundle_is_named_and_nothing_is_put_aside(part: str, number: int) -> None:
    shelf, message = shelf_of(chunks_of(stream_of(CONTENTS), 400))
    at = message.journal, number
    shelf.bundles[at] = rot(shelf.bundles[at], part)
    sink = MemorySink()
    with pytest.raises(NotWhole) as gone:
        open_message(message, shelf.read, KEYS, sink)
    assert gone.value.number == number
    assert sink.log == []


def test_a_bundle_that_is_gone_or_unreadable_is_named() -> None:
    shelf, message = shelf_of(chunks_of(stream_of(CONTENTS), 400))

    def unreadable(journal: JournalId, number: int) -> StoredBundle | None:
        if number == 2:
            raise trouble(path=Path("store"), problem="database disk image is malformed")
        return shelf.read(journal, number)

    trouble: type[StoreTrouble] = Rotten
    with pytest.raises(NotWhole) as gone:
        open_message(message, unreadable, KEYS, MemorySink())
    assert gone.value.number == 2
    trouble = StoreTrouble  # it may be readable another time
    with pytest.raises(NotNow, match="malformed"):
        open_message(message, unreadable, KEYS, MemorySink())
    del shelf.bundles[message.journal, 3]
    with pytest.raises(NotWhole) as gone:
        open_message(message, shelf.read, KEYS, MemorySink())
    assert gone.value.number == 3


def test_a_bundle_that_goes_while_the_message_is_opened_ends_it() -> None:
    shelf, message = shelf_of(chunks_of(stream_of(CONTENTS), 400))
    reads: list[int] = []

    def read(journal: JournalId, number: int) -> StoredBundle | None:
        reads.append(number)
        return None if reads.count(3) == 2 else shelf.read(journal, number)

    sink = MemorySink()
    with pytest.raises(NotWhole):
        open_message(message, read, KEYS, sink)
    assert sink.log == ["begin", "write", "abort"]
    assert sink.taken == {}


def test_a_bundle_in_anothers_place_is_not_taken_for_it() -> None:
    shelf, message = shelf_of(chunks_of(stream_of(CONTENTS), 400))
    shelf.bundles[message.journal, 2] = shelf.bundles[message.journal, 1]
    with pytest.raises(NotWhole):
        open_message(message, shelf.read, KEYS, MemorySink())


def test_a_bundle_of_another_device_is_not_taken_for_this_ones() -> None:
    shelf, message = shelf_of(chunks_of(stream_of(CONTENTS)))
    with pytest.raises(NotWhole):
        open_message(replace(message, source=BUDI.certificate), shelf.read, KEYS, MemorySink())


# --- what the sink says ---


@pytest.mark.parametrize(
    "answer", [NotNow("the disk is full"), Never("it has too many files"), KeyError("bug")]
)
@pytest.mark.parametrize(
    ("at", "log"),
    [
        ("begin", ["begin"]),
        ("write", ["begin", "write", "abort"]),
        ("commit", ["begin", "write", "commit", "abort"]),
    ],
)
def test_what_the_sink_says_ends_the_delivery(answer: Exception, at: str, log: list[str]) -> None:
    shelf, message = shelf_of(chunks_of(stream_of(CONTENTS), 400))
    sink = MemorySink(answer, at)
    with pytest.raises(type(answer)) as raised:
        open_message(message, shelf.read, KEYS, sink)
    assert raised.value is answer
    assert sink.log == log


# --- what its source has signed and is no message ---


def test_a_key_that_this_office_does_not_have() -> None:
    shelf, message = shelf_of(chunks_of(stream_of(CONTENTS)))
    other = SealingKey(b"o" * 32)
    reason, sink = never(shelf, message, {other.public.key_id: other})
    assert "recipient_key" in reason
    assert sink.log == []


def test_a_payload_that_was_sealed_to_another_key() -> None:
    shelf, message = shelf_of(chunks_of(stream_of(CONTENTS)))
    reason, _ = never(shelf, message, {SEAL.public.key_id: SealingKey(b"o" * 32)})
    assert "does not open" in reason


def test_a_payload_that_was_sealed_for_another_place() -> None:
    shelf, message = shelf_of(
        chunks_of(stream_of(CONTENTS)), lambda header: replace(header, number=2, previous=None)
    )
    reason, _ = never(shelf, replace(message, first=2, last=2))
    assert "does not open" in reason


@pytest.mark.parametrize("size", [0, 1000])
def test_a_payload_of_noise(size: int) -> None:
    writer = Writer(SITI)
    (bundle,) = writer.write([bytes(size)])
    noise = hashlib.shake_256(b"noise").digest(len(bundle.payload))
    shelf, message = shelf_of(
        [bytes(size)], lambda header: replace(header, payload_sha256=hashlib.sha256(noise).digest())
    )
    at = message.journal, 1
    shelf.bundles[at] = shelf.bundles[at]._replace(payload=noise)
    assert "does not open" in never(shelf, message)[0]


def test_a_part_that_says_it_is_of_another_message() -> None:
    shelf, message = shelf_of(
        chunks_of(stream_of(CONTENTS), 400),
        lambda header: replace(header, parts=9) if header.number == 2 else header,
    )
    reason, sink = never(shelf, message)
    assert "header.part" in reason
    assert sink.log == []


@pytest.mark.parametrize(
    "contents",
    [
        [("../../etc/passwd", b"x")],
        [("a/b", b"x")],
        [("..", b"x")],
        [("", b"x")],
        [("message.json", b"x")],
        [("same", b"x"), ("SAME", b"y")],
        [],
    ],
    ids=["path", "slash", "dots", "empty", "record", "twice", "none"],
)
def test_a_manifest_that_cannot_be_is_not_begun(contents: list[tuple[str, bytes]]) -> None:
    reason, sink = never(*shelf_of(chunks_of(stream_of(contents), 300)))
    assert reason.startswith("manifest cannot be true")
    assert not reason.endswith("..")
    assert sink.log == []


GOOD = stream_of(CONTENTS)


@pytest.mark.parametrize(
    ("stream", "log"),
    [
        (b"", []),
        (b"\0\0", []),
        (GOOD[:50], []),
        (b"\xff" * 5000, []),
        ((1).to_bytes(4, "big") + b"\xc0", []),
        ((3).to_bytes(4, "big") + pack([1, 2]), []),
        (GOOD[:-1], ["begin", "write", "abort"]),
        (GOOD + b"x", ["begin", "write", "abort"]),
        (
            len(encode_manifest(manifest_of(CONTENTS))).to_bytes(4, "big") + GOOD[4:],
            ["begin", "write", "commit"],
        ),
    ],
    ids=["nothing", "two", "half-manifest", "huge", "nil", "array", "one-short", "one-over", "right"],
)
@pytest.mark.parametrize("size", [None, 100])
def test_a_stream_that_is_no_message(stream: bytes, log: list[str], size: int | None) -> None:
    shelf, message = shelf_of(chunks_of(stream, size) or [b""])
    if log[-1:] == ["commit"]:
        open_message(message, shelf.read, KEYS, MemorySink())
        return
    _, sink = never(shelf, message)
    assert sink.log in ([], log)  # in one chunk it shows before anything is begun

"""A bundle: one numbered, signed, sealed piece of a journal (after RFC 9171's bundle, much smaller).

    header     msgpack [1, source, destination, recipient_key, epoch, number, part, parts, priority, created_ms,
                        lifetime_s, previous, payload_size, payload_sha256]
    signature  Ed25519 by the source over the header's exact bytes
    payload    HPKE ciphertext, at most 256 KiB

The header's bytes are kept as they came and never encoded again, so a carrier passes on just what was signed. `age_s`
travels beside the bundle, outside the signature: each carrier adds its own residence time (design: age, not clocks).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from meshnode.core.errors import RemoteError
from meshnode.core.fields import Reader, pack, unpack
from meshnode.core.identity import ID_SIZE, SIGNATURE_SIZE, DeviceId, JournalId, PublicKey, SigningKey
from meshnode.core.limits import HEADER_SIZE_MAX, LIFETIME_S_MAX, NUMBER_MAX, PARTS_MAX, PAYLOAD_SIZE_MAX
from meshnode.core.sealing import SEAL_OVERHEAD, SEALING_KEY_ID_SIZE, sealing_info
from meshnode.core.words import say

VERSION: Final = 1
EPOCH_SIZE: Final = 8
DIGEST_SIZE: Final = 32
MILLISECONDS_MAX: Final = 2**53
AGE_S_MAX: Final = 2**40

URGENT: Final = 0
ROUTINE: Final = 1
PRIORITIES: Final = {"urgent": URGENT, "routine": ROUTINE}


@lru_cache(maxsize=1024)  # asked for every bundle, and most are of a few journals
def journal_id(source: bytes, destination: bytes, epoch: bytes) -> JournalId:
    """The first 16 bytes of SHA-256(source, destination, epoch)."""
    return JournalId(hashlib.sha256(source + destination + epoch).digest()[:ID_SIZE])


@dataclass(frozen=True, slots=True)
class Previous:
    """Which journal a device wrote before this one, and its last number."""

    journal: JournalId
    last: int


@dataclass(frozen=True, slots=True)
class Header:
    """What is known of a bundle without opening it. `part` counts from 1 to `parts`; `priority` 0 is urgent."""

    source: DeviceId
    destination: bytes
    recipient_key: bytes
    epoch: bytes
    number: int
    part: int
    parts: int
    priority: int
    created_ms: int
    lifetime_s: int
    previous: Previous | None
    payload_size: int
    payload_sha256: bytes

    @property
    def journal(self) -> JournalId:
        """The id of the bundle's journal."""
        return journal_id(self.source, self.destination, self.epoch)

    @property
    def first(self) -> int:
        """The number of the first bundle of the same message."""
        return self.number - self.part + 1

    @property
    def info(self) -> bytes:
        """What the payload was sealed with besides the key."""
        return sealing_info(self.source, self.destination, self.epoch, self.number, self.part, self.parts)

    def encode(self) -> bytes:
        """The bytes that the source signs."""
        return pack(
            [
                VERSION,
                self.source,
                self.destination,
                self.recipient_key,
                self.epoch,
                self.number,
                self.part,
                self.parts,
                self.priority,
                self.created_ms,
                self.lifetime_s,
                None if self.previous is None else [self.previous.journal, self.previous.last],
                self.payload_size,
                self.payload_sha256,
            ]
        )


def _read_previous(value: object, field: str) -> Previous | None:
    if value is None:
        return None
    if type(value) is not list:
        raise RemoteError(field, "is neither nil nor an array")
    reader = Reader(value, field, 2)
    return Previous(JournalId(reader.octets("journal", ID_SIZE)), reader.whole("last", 1, NUMBER_MAX))


def read_header(data: bytes) -> Header:
    """Decode a header strictly. Raises RemoteError that names the field."""
    if len(data) > HEADER_SIZE_MAX:
        raise RemoteError("header", say("has more than {limit_bytes} bytes", limit_bytes=HEADER_SIZE_MAX))
    reader = Reader(unpack(data, "header"), "header", 14)
    reader.whole("version", VERSION, VERSION)
    header = Header(
        source=DeviceId(reader.octets("source", ID_SIZE)),
        destination=reader.octets("destination", ID_SIZE),
        recipient_key=reader.octets("recipient_key", SEALING_KEY_ID_SIZE),
        epoch=reader.octets("epoch", EPOCH_SIZE),
        number=(number := reader.whole("number", 1, NUMBER_MAX)),
        part=(part := reader.whole("part", 1, min(number, PARTS_MAX))),
        parts=reader.whole("parts", part, PARTS_MAX),
        priority=reader.whole("priority", URGENT, ROUTINE),
        created_ms=reader.whole("created_ms", 0, MILLISECONDS_MAX),
        lifetime_s=reader.whole("lifetime_s", 1, LIFETIME_S_MAX),
        previous=_read_previous(*reader.raw("previous")),
        payload_size=reader.whole("payload_size", SEAL_OVERHEAD, PAYLOAD_SIZE_MAX),
        payload_sha256=reader.octets("payload_sha256", DIGEST_SIZE),
    )
    if header.previous is not None and header.number != 1:
        raise RemoteError("header.previous", "stands in a bundle that is not its journal's first")
    return header


@dataclass(frozen=True, slots=True)
class Bundle:
    """A header with its exact bytes, its signature and its payload."""

    header: Header
    header_bytes: bytes
    signature: bytes
    payload: bytes

    def check_payload(self) -> None:
        """Raises RemoteError unless the payload is the one that the header names (bit rot, or a liar)."""
        if len(self.payload) != self.header.payload_size:
            raise RemoteError("payload", "has not the size that its header says")
        if hashlib.sha256(self.payload).digest() != self.header.payload_sha256:
            raise RemoteError("payload", "has not the digest that its header says")

    def verify(self, source: PublicKey) -> None:
        """What every carrier checks before it stores: signature and digest. Raises RemoteError."""
        if source.id != self.header.source:
            raise RemoteError("header.source", "is not the device of this certificate")
        source.verify(self.signature, self.header_bytes, "header")
        self.check_payload()


def read_bundle(header_bytes: bytes, signature: bytes, payload: bytes) -> Bundle:
    """Put a bundle together from its three byte strings, unverified. Raises RemoteError."""
    if len(signature) != SIGNATURE_SIZE:
        raise RemoteError(
            "signature",
            say("has {size_bytes} bytes, not {least}", size_bytes=len(signature), least=SIGNATURE_SIZE),
        )
    return Bundle(read_header(header_bytes), header_bytes, signature, payload)


def sign_bundle(header: Header, payload: bytes, key: SigningKey) -> Bundle:
    """A source's last step: sign the header of a sealed payload."""
    header_bytes = header.encode()
    return Bundle(header, header_bytes, key.sign(header_bytes), payload)

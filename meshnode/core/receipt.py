"""A receipt: an endpoint's signed word on what of one journal it has delivered.

    body       msgpack [1, endpoint, journal id, serial, ranges, issued_ms]            by an office
               msgpack [2, endpoint, journal id, serial, ranges, issued_ms, source, epoch]    by a device
    signature  Ed25519 by the endpoint's signing key over the body's exact bytes

One receipt stands for all deliveries of its journal so far, so the newest replaces the older ones and says for ever
'do not fetch these again'. It is never taken back; what two receipts say is the union of their ranges.

Two nodes compare what they know by the serial alone, so a serial must never stand for two receipts. Several office
nodes may share an endpoint, and the store of one may be restored from an older copy; so a serial is a count in the high
bits and, in the 32 low ones, a part of the epoch of the process that issues it, which was drawn when it started.
Whoever sees another's receipt answers with the union under a higher count.

An office is believed whatever it signs for. A device is believed only of journals that go to it, or any member could
make the fleet forget any journal: so its receipts also say what the journal's id was made from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from meshnode.core.bundle import EPOCH_SIZE, MILLISECONDS_MAX, journal_id
from meshnode.core.errors import RemoteError
from meshnode.core.fields import Reader, pack, unpack
from meshnode.core.identity import (
    ID_SIZE,
    SIGNATURE_SIZE,
    DeviceId,
    EndpointId,
    JournalId,
    PublicKey,
    SigningKey,
)
from meshnode.core.intervals import Ranges, ranges_from_wire
from meshnode.core.limits import FRAME_SIZE_MAX
from meshnode.core.words import say

#: By an office, and by a device.
VERSION: Final = 1
DEVICE_VERSION: Final = 2
SERIAL_MAX: Final = 2**62


@dataclass(frozen=True, slots=True)
class Receipt:
    """`ranges` of `journal` are delivered at `endpoint`; `body` and `signature` are the exact bytes that prove it.
    `is_bound`: it proves by itself that the journal goes to this endpoint."""

    endpoint: EndpointId
    journal: JournalId
    serial: int
    ranges: Ranges
    issued_ms: int
    body: bytes
    signature: bytes
    is_bound: bool = False

    def verify(self, key: PublicKey) -> None:
        """Raises RemoteError unless the endpoint's signing key signed this."""
        key.verify(self.signature, self.body, "receipt")


def next_serial(serial: int, epoch: bytes) -> int:
    """The serial after `serial` (0 for none) of the office process with this epoch."""
    return ((serial >> 32) + 1 << 32) | int.from_bytes(epoch[:4], "big")


@dataclass(frozen=True, slots=True)
class Origin:
    """What the id of a journal is made from, besides where it goes to."""

    source: DeviceId
    epoch: bytes


def issue_receipt(
    key: SigningKey,
    endpoint: EndpointId,
    journal: JournalId,
    serial: int,
    ranges: Ranges,
    issued_ms: int,
    origin: Origin | None = None,
) -> Receipt:
    """Sign for `ranges`, which must already be durable at the endpoint. `origin`: where the endpoint is a device."""
    items: list[object] = [VERSION, endpoint, journal, serial, ranges.to_wire(), issued_ms]
    if origin is not None:
        items = [DEVICE_VERSION, *items[1:], origin.source, origin.epoch]
    body = pack(items)
    return Receipt(endpoint, journal, serial, ranges, issued_ms, body, key.sign(body), origin is not None)


def read_receipt(body: bytes, signature: bytes) -> Receipt:
    """Decode a receipt strictly, unverified. Raises RemoteError that names the field."""
    if len(body) > FRAME_SIZE_MAX:
        raise RemoteError("receipt", say("has more than {limit_bytes} bytes", limit_bytes=FRAME_SIZE_MAX))
    if len(signature) != SIGNATURE_SIZE:
        raise RemoteError(
            "receipt.signature",
            say("has {size_bytes} bytes, not {least}", size_bytes=len(signature), least=SIGNATURE_SIZE),
        )
    items = unpack(body, "receipt")
    is_bound = items[:1] == [DEVICE_VERSION]
    reader = Reader(items, "receipt", 8 if is_bound else 6)
    reader.whole("version", VERSION, DEVICE_VERSION)
    receipt = Receipt(
        endpoint=EndpointId(reader.octets("endpoint", ID_SIZE)),
        journal=JournalId(reader.octets("journal", ID_SIZE)),
        serial=reader.whole("serial", 1, SERIAL_MAX),
        ranges=ranges_from_wire(*reader.raw("ranges")),
        issued_ms=reader.whole("issued_ms", 0, MILLISECONDS_MAX),
        body=body,
        signature=signature,
        is_bound=is_bound,
    )
    if is_bound:
        source, epoch = reader.octets("source", ID_SIZE), reader.octets("epoch", EPOCH_SIZE)
        if journal_id(source, receipt.endpoint, epoch) != receipt.journal:
            raise RemoteError("receipt.journal", "does not go to its endpoint")
    return receipt

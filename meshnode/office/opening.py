"""Opening one whole message: from sealed bundles in the store to a sink, chunk by chunk.

Two rounds over its bundles, each holding one at a time, so memory does not depend on the message's size. The first
checks all of them, so that nothing is begun in vain, and learns when the last one came; the second opens. What the
first has read last is not read again, so a message of one bundle, as most are, is read once.

Every bundle is verified again as it was before it was stored (signature and digest). What fails that was right once,
so it is rot on this disk, and the bundle can be fetched again. What the disk does not give back now is tried later, as
what a sink does not take now. What passes and still makes no message is what the
source has signed: it stays so for ever, and the message is put aside.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from meshnode.core.bundle import Bundle, read_bundle
from meshnode.core.errors import LocalError, RemoteError, StoreTrouble
from meshnode.core.identity import Certificate, JournalId
from meshnode.core.message import Opener
from meshnode.core.rows import Rotten, StoredBundle
from meshnode.core.sealing import SealingKey
from meshnode.core.submitting import message_key
from meshnode.core.words import Clause
from meshnode.office.sinks import Delivery, Envelope, Never, NotNow, Sink

#: As `core.rows.Store.read`: blocks; None if the bundle is not there (any more). Raises StoreTrouble.
Read = Callable[[JournalId, int], StoredBundle | None]


@dataclass(frozen=True, slots=True)
class Message:
    """Which message to open: bundles `first` to `last` of `journal`, all signed by `source`, the device of this
    certificate. `held`: as in the envelope."""

    journal: JournalId
    first: int
    last: int
    source: Certificate
    held: str | None = None

    @property
    def key(self) -> str:
        """The idempotency key."""
        return message_key(self.journal, self.first)


class NotWhole(LocalError):
    """Bundle {number} of journal {journal} is not in the store as it came."""

    def __init__(self, journal: JournalId, number: int) -> None:
        super().__init__(journal=journal.hex(), number=number)
        self.number = number


def open_message(message: Message, read: Read, keys: Mapping[bytes, SealingKey], sink: Sink) -> None:
    """Hand a message on. Blocks. On return the sink has it durably, from now or from before.

    `keys`: the endpoint's sealing keys by `key_id`. Raises NotNow, also for what the store does not give back now;
    Never, if the sink refuses it or what was signed is no message; NotWhole, if a bundle is gone or rotten.
    """
    try:
        received_ms = 0
        for number in reversed(_numbers(message)):
            first, at_ms = _read_part(message, read, number)
            received_ms = max(received_ms, at_ms)
        envelope = Envelope(
            key=message.key,
            source=message.source.name,
            source_id=message.source.device,
            received_ms=received_ms,
            held=message.held,
        )
        _hand_on(message, envelope, first, read, keys, sink)
    except RemoteError as problem:
        raise Never(Clause(problem)) from problem


def _numbers(message: Message) -> range:
    return range(message.first, message.last + 1)


def _read_part(message: Message, read: Read, number: int) -> tuple[Bundle, int]:
    """One bundle, verified, and the wall-clock ms at which it came. Raises NotWhole, or RemoteError if the source has
    signed it for another place, or NotNow."""
    try:
        stored = read(message.journal, number)
        if stored is None:
            raise NotWhole(message.journal, number)
        bundle = read_bundle(stored.header, stored.signature, stored.payload)
        bundle.verify(message.source.key)
    except (RemoteError, Rotten) as problem:
        raise NotWhole(message.journal, number) from problem
    except StoreTrouble as problem:
        raise NotNow(Clause(problem)) from problem
    header = bundle.header
    if (header.journal, header.number) != (message.journal, number):
        raise NotWhole(message.journal, number)
    if header.first != message.first or header.first + header.parts - 1 != message.last:
        raise RemoteError("header.part", "is of another message than its neighbours are")
    return bundle, stored.arrived_ms


def _hand_on(
    message: Message,
    envelope: Envelope,
    first: Bundle,
    read: Read,
    keys: Mapping[bytes, SealingKey],
    sink: Sink,
) -> None:
    opener = Opener()
    delivery: Delivery | None = None
    try:
        for number in _numbers(message):
            bundle = first if number == message.first else _read_part(message, read, number)[0]
            pieces = list(opener.feed(_unseal(bundle, keys)))
            if delivery is None and opener.manifest is not None:
                delivery = sink.begin(envelope, opener.manifest)
                if delivery is None:
                    return
            if delivery is not None:
                for index, piece in pieces:
                    delivery.write(index, piece)
        opener.close()
        assert delivery is not None  # close() insists on a manifest
        delivery.commit()
    except BaseException:
        if delivery is not None:
            delivery.abort()
        raise


def _unseal(bundle: Bundle, keys: Mapping[bytes, SealingKey]) -> bytes:
    key = keys.get(bundle.header.recipient_key)
    if key is None:
        raise RemoteError("header.recipient_key", "is no sealing key that this office has")
    return key.open(bundle.payload, bundle.header.info)

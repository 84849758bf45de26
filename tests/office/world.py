"""An office without a network: devices that seal real messages, a store that is a dictionary, and the brain's state."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import trio

from meshnode.core.bundle import ROUTINE, Bundle, Header, Previous, journal_id, read_header, sign_bundle
from meshnode.core.fleet import Endpoint, FleetDocument
from meshnode.core.identity import (
    Certificate,
    DeviceId,
    EndpointId,
    FleetId,
    JournalId,
    SigningKey,
    found_authority,
    issue_certificate,
    read_certificate,
)
from meshnode.core.intervals import Ranges
from meshnode.core.message import Chunker, File, Manifest, stream_head
from meshnode.core.ports import Instant
from meshnode.core.receipt import Receipt, issue_receipt, next_serial
from meshnode.core.rows import Entry, JournalRecord, Snapshot, StoredBundle
from meshnode.core.sealing import SealingKey, sealing_info
from meshnode.core.state import Identity, OfficeKeys, Settings, State

T = TypeVar("T")

FLEET = "Kabupaten Tasikmalaya"
AUTHORITY = SigningKey.from_seed(b"a" * 32)
AUTHORITY_DER = found_authority(AUTHORITY, FLEET, 1)
ENDPOINT_KEY = SigningKey.from_seed(b"e" * 32)
ENDPOINT = EndpointId(ENDPOINT_KEY.public.id)
SEAL = SealingKey(b"s" * 32)
KEYS = {SEAL.public.key_id: SEAL}
DAY_MS = 24 * 3600 * 1000
#: 2026-03-04T23:59:59Z
EVENING_MS = 1_772_668_799_000


@dataclass(frozen=True)
class Device:
    """An enrolled device and its key."""

    key: SigningKey
    certificate: Certificate

    @property
    def id(self) -> DeviceId:
        return self.certificate.device


def enrolled(name: str, role: str = "officer") -> Device:
    key = SigningKey.from_seed(hashlib.sha256(name.encode()).digest())
    der = issue_certificate(AUTHORITY, FLEET, name, role, key.public, 2)
    return Device(key, read_certificate(der, AUTHORITY.public))


OFFICE = enrolled("office-01", "office")
SITI = enrolled("officer-07")
BUDI = enrolled("officer-08")


def manifest_of(contents: Sequence[tuple[str, bytes]], **fields: object) -> Manifest:
    manifest = Manifest(
        kind="ktp-el",
        meta=(("desa", "Cibalanarik"), ("nik", "3206…")),
        reference="Siti Nurhayati",
        submitted_ms=EVENING_MS - 5000,
        files=tuple(File(name, len(data)) for name, data in contents),
    )
    return replace(manifest, **fields)  # type: ignore[arg-type]


def stream_of(contents: Sequence[tuple[str, bytes]], **fields: object) -> bytes:
    return stream_head(manifest_of(contents, **fields)) + b"".join(data for _, data in contents)


def chunks_of(stream: bytes, size: int | None = None) -> list[bytes]:
    """The stream as devices cut it, or in chunks of `size`, so that small messages have parts too."""
    if size is not None:
        return [stream[at : at + size] for at in range(0, len(stream), size)]
    chunker = Chunker()
    return [*chunker.feed(stream), chunker.rest()]


@dataclass
class Writer:
    """Writes one journal of a device."""

    device: Device
    epoch: bytes = b"epoch--1"
    previous: Previous | None = None
    last: int = 0

    @property
    def journal(self) -> JournalId:
        return journal_id(self.device.id, ENDPOINT, self.epoch)

    def write(
        self, chunks: Sequence[bytes], change: Callable[[Header], Header] = lambda header: header
    ) -> list[Bundle]:
        """The bundles of a message whose stream is these chunks. `change` lies in the header before it is signed."""
        first, parts = self.last + 1, len(chunks)
        self.last += parts
        return [
            self._bundle(number, number - first + 1, parts, chunk, change)
            for number, chunk in enumerate(chunks, first)
        ]

    def _bundle(
        self, number: int, part: int, parts: int, chunk: bytes, change: Callable[[Header], Header]
    ) -> Bundle:
        info = sealing_info(self.device.id, ENDPOINT, self.epoch, number, part, parts)
        payload = SEAL.public.seal(chunk, info)
        header = Header(
            source=self.device.id,
            destination=ENDPOINT,
            recipient_key=SEAL.public.key_id,
            epoch=self.epoch,
            number=number,
            part=part,
            parts=parts,
            priority=ROUTINE,
            created_ms=EVENING_MS - 5000,
            lifetime_s=3600,
            previous=self.previous if number == 1 else None,
            payload_size=len(payload),
            payload_sha256=hashlib.sha256(payload).digest(),
        )
        return sign_bundle(change(header), payload, self.device.key)


@dataclass
class Shelf:
    """A store: bundles and receipts that survive the process."""

    bundles: dict[tuple[JournalId, int], StoredBundle] = field(default_factory=dict)
    receipts: dict[JournalId, Receipt] = field(default_factory=dict)

    def read(self, journal: JournalId, number: int) -> StoredBundle | None:
        return self.bundles.get((journal, number))

    def put(self, bundle: Bundle, arrived_ms: int = EVENING_MS) -> None:
        stored = StoredBundle(bundle.header_bytes, bundle.signature, bundle.payload, 0.0, arrived_ms)
        self.bundles[bundle.header.journal, bundle.header.number] = stored

    def snapshot(self) -> Snapshot:
        records: dict[JournalId, JournalRecord] = {}
        for (journal, number), stored in self.bundles.items():
            header = read_header(stored.header)
            record = records.setdefault(
                journal, JournalRecord(journal, header.source, header.destination, header.epoch)
            )
            record.entries[number] = entry_of(header)
        certificates = [device.certificate.der for device in (SITI, BUDI)]
        receipts = [(receipt, 0.0) for receipt in self.receipts.values()]
        return Snapshot(journals=list(records.values()), receipts=receipts, certificates=certificates)


def entry_of(header: Header) -> Entry:
    return Entry(header.payload_size, header.priority, header.first, header.parts, 0.0, header.lifetime_s)


def document(revoked: Iterable[DeviceId] = ()) -> FleetDocument:
    endpoint = Endpoint((SEAL.public,), ENDPOINT_KEY.public, ())
    return FleetDocument(FleetId(AUTHORITY.public.id), 1, FLEET, (endpoint,), frozenset(revoked), 3600)


class Office:
    """One process of an office node: the state over a shelf, and what the daemon does with a desk's word."""

    def __init__(self, shelf: Shelf, revoked: Iterable[DeviceId] = ()) -> None:
        self.shelf = shelf
        identity = Identity(
            certificate=OFFICE.certificate,
            key=OFFICE.key,
            authority=AUTHORITY.public,
            document=document(revoked),
            office=OfficeKeys(ENDPOINT, ENDPOINT_KEY),
        )
        settings = Settings(epoch=b"epoch-of", port=0, foreign_quota_bytes=0)
        self.state = State(identity, settings, shelf.snapshot(), Instant(0.0, EVENING_MS))
        self.taken: list[tuple[JournalId, Ranges]] = []
        self.rotten: list[tuple[JournalId, int]] = []
        self.lines: list[str] = []

    def arrive(self, bundles: Iterable[Bundle], arrived_ms: int = EVENING_MS) -> None:
        """Bundles are durable here."""
        for bundle in bundles:
            self.shelf.put(bundle, arrived_ms)
            header = bundle.header
            journal = self.state.ledger.open(header, header.journal)
            self.state.ledger.add(journal, {header.number: entry_of(header)})

    def on_taken(self, journal_id: JournalId, ranges: Ranges) -> None:
        """Sign for it, and let go of the bundles, durably."""
        self.taken.append((journal_id, ranges))
        ledger = self.state.ledger
        journal = ledger.journals[journal_id]
        receipt = issue_receipt(
            ENDPOINT_KEY,
            ENDPOINT,
            journal_id,
            next_serial(journal.serial, OFFICE.id),
            journal.receipted | ranges,
            EVENING_MS,
        )
        droppable = ledger.apply(receipt, 0.0)
        self.shelf.receipts[journal_id] = receipt
        for number in ledger.drop(journal, droppable or Ranges()):
            del self.shelf.bundles[journal_id, number]

    def on_rotten(self, journal_id: JournalId, number: int) -> None:
        """Forget it, so that it is fetched again."""
        self.rotten.append((journal_id, number))
        self.state.ledger.forget_rotten(self.state.ledger.journals[journal_id], number)

    def log(self, line: str, **fields: str) -> None:
        self.lines.append(line)


async def inline(sync_fn: Callable[[], T]) -> T:
    """Stands in for worker threads where the test owns the clock."""
    await trio.lowlevel.checkpoint()
    return sync_fn()


def leaves(error: BaseException) -> Iterator[BaseException]:
    """What a group of exceptions is made of."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from leaves(inner)
    else:
        yield error

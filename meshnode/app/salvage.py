"""Rescuing a damaged store: all that proves itself goes into a new one, which then takes the place of the old.

Nothing that a damaged file says is believed. A bundle is kept if its source's signature and its digest are right (of a
source whose certificate is lost, if it still has the checksum that was taken when it came); a receipt and a certificate
if their signatures are; a message of this device if its checksum is, or its label opens with the device key.

Two rounds over the file: the small rows first, then the bundles, one at a time. A row that was removed may turn up
again where the list of free pages is damaged. Of others' bundles that does no harm. Of own ones it would: numbers that
were never announced may have been used again. So of two with the same number the one with an entry counts, then the
later one; and what belongs to no message is left to the rule of every start (`submitting.remains`).

A message of which only bundles are left is listed again, without what the officer called it.

Encounters are not rescued: nothing proves them, and they are learned anew. Until then, for some days, only the order
of sending is worse.
"""

from __future__ import annotations

import os
import shutil
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeGuard

from meshnode.app.home import Home, Membership
from meshnode.app.report import open_label
from meshnode.core.bundle import EPOCH_SIZE, Bundle, journal_id, read_bundle
from meshnode.core.errors import FileTrouble, LocalError, RemoteError, StoreTooNew
from meshnode.core.identity import (
    ID_SIZE,
    SIGNATURE_SIZE,
    Certificate,
    DeviceId,
    JournalId,
    PublicKey,
    read_certificate,
)
from meshnode.core.intervals import NONE, Ranges
from meshnode.core.introducing import EVERYONE
from meshnode.core.limits import MIB
from meshnode.core.receipt import Receipt, read_receipt
from meshnode.core.rows import (
    JournalRecord,
    PutAddress,
    PutBundle,
    PutCertificate,
    PutCustody,
    PutMessage,
    PutOpening,
    PutReceipt,
    Row,
)
from meshnode.core.sealing import SEAL_OVERHEAD, Drawer
from meshnode.core.submitting import message_key
from meshnode.drivers.sqlite import SqliteStore
from meshnode.drivers.sqlite.pages import Found, Pages, Value
from meshnode.drivers.sqlite.schema import (
    FORMAT_MAX,
    SCHEMA_VERSION,
    checksum,
    is_id,
    is_number,
    read_previous,
)
from meshnode.drivers.sqlite.swapping import BESIDE, begin_swap, finish_swap

#: What is committed at once.
BATCH_BYTES: Final = 4 * MIB
_WORKING: Final = "store.db.salvaging"


class NoStore(LocalError):
    """There is no store in {home}, so there is nothing to rescue."""


class NoRoomForStore(LocalError):
    """A rescued store may need {needed_bytes} bytes in {folder}, where {free_bytes} are free: free space there, or name
    a file on another disk with --out."""


class OutExists(LocalError):
    """{path} exists already, and is left as it is: name a new file."""


@dataclass
class Affected:
    """A message of this device that is not known to be delivered, and not whole any more."""

    key: str
    reference: str


@dataclass
class Summary:
    """What was rescued. `lost`: bundles that the store had, and that are neither there nor delivered any more; as far
    as the store still says what it had. `kept`: where the damaged store is now; None if it was not replaced."""

    path: Path
    kept: Path | None = None
    bundles: int = 0
    size_bytes: int = 0
    lost: int = 0
    receipts: int = 0
    messages: int = 0
    certificates: int = 0
    affected: list[Affected] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Entry:
    number: int
    born_s: float
    crc: int | None


@dataclass
class _Small:
    """All but the bundles."""

    clock_s: float = 0.0
    certificates: dict[DeviceId, Certificate] = field(default_factory=dict)
    receipts: dict[JournalId, PutReceipt] = field(default_factory=dict)
    unproven: list[tuple[Receipt, float]] = field(default_factory=list)
    journals: dict[JournalId, JournalRecord] = field(default_factory=dict)
    messages: dict[int, PutMessage] = field(default_factory=dict)
    openings: dict[JournalId, int] = field(default_factory=dict)
    custody: dict[tuple[JournalId, DeviceId], list[tuple[int, int]]] = field(default_factory=dict)
    addresses: list[PutAddress] = field(default_factory=list)
    #: By the number of the row that has the bytes.
    entries: dict[int, _Entry] = field(default_factory=dict)


def salvage(
    home: Home, out: Path | None = None, progress: Callable[[int, int], None] = lambda *_: None
) -> Summary:
    """Rescue the store of a home into a new one, and put that in its place; with `out` only write it there.

    `progress(done, total)` counts pages. Raises HomeBusy while a daemon runs, what `Home.load` raises, NoStore,
    NoRoomForStore, OutExists, StoreTooNew, or StoreTrouble; then the store is as it was.
    """
    membership = home.load()
    with home.lock():
        finish_swap(home.store_path)
        new = out if out is not None else home.path / _WORKING
        try:
            with closing(Pages(home.store_path)) as pages:
                _check(home, pages, new, is_out=out is not None)
                done = _Salvage(membership, pages, progress).write(new)
        except FileNotFoundError:
            raise NoStore(home=home.path) from None
        if out is None:
            done.path, done.kept = home.store_path, begin_swap(home.store_path, new)
        return done


def _check(home: Home, pages: Pages, new: Path, *, is_out: bool) -> None:
    theirs = int.from_bytes(pages.page(1)[60:64], "big")
    if SCHEMA_VERSION < theirs < FORMAT_MAX:
        raise StoreTooNew(path=home.store_path, theirs=theirs, ours=SCHEMA_VERSION)
    if is_out and os.path.lexists(new):
        raise OutExists(path=new)
    for suffix in ("", *BESIDE):  # what a crash has left of an earlier one
        Path(f"{new}{suffix}").unlink(missing_ok=True)
    needed = sum(
        path.stat().st_size for path in home.path.glob("store.db*") if path.suffix in (".db", ".db-wal")
    )
    try:
        free = shutil.disk_usage(new.parent).free
    except OSError as error:
        raise FileTrouble(path=new.parent, problem=f"cannot be used: {error.strerror}") from None
    if free < needed:
        raise NoRoomForStore(needed_bytes=needed, free_bytes=free, folder=new.parent)


class _Salvage:
    """One rescue."""

    def __init__(self, membership: Membership, pages: Pages, progress: Callable[[int, int], None]) -> None:
        self._membership = membership
        self._me = membership.certificate.device
        self._drawer = Drawer(membership.key.derive(b"labels"))
        self._pages = pages
        self._progress = progress
        self._small = _Small()
        #: What was put of each journal: whether it had an entry, and the number of its row.
        self._put: dict[tuple[JournalId, int], tuple[bool, int]] = {}
        self._found_entries: set[int] = set()

    def write(self, path: Path) -> Summary:
        """Write a new store there, durably."""
        freed = self._pages.freed()
        self._read_small(freed)
        store = SqliteStore(path)
        try:
            summary = self._write(store, freed)
        finally:
            store.close()
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        summary.path = path
        return summary

    # --- the small rows -----------------------------------------------------------------------------------------

    def _read_small(self, freed: set[int]) -> None:
        small = self._small
        openings_at = -1
        own = self._membership.certificate
        small.certificates[own.device] = own
        for found in self._pages.rows(lambda types: not _looks_like_bundle(types), freed):
            self._progress(found.page, 2 * self._pages.count)
            values = found.values
            if found.page == 1 and values[:2] == ["table", "opening"] and type(values[3]) is int:
                openings_at = values[3]
            elif found.in_table:
                self._read_table_row(found)
            elif (
                found.page == openings_at
                and len(values) == 2
                and _is_journal(values[0])
                and is_number(values[1])
            ):
                assert type(values[1]) is int
                small.openings[values[0]] = values[1]
            else:
                self._read_index_row(values)
        for receipt, at_s in small.unproven:
            self._keep_receipt(receipt, at_s)
        if not small.clock_s:
            small.clock_s = max((entry.born_s for entry in small.entries.values()), default=0.0)

    def _read_table_row(self, found: Found) -> None:
        small = self._small
        match found.values:
            case [bytes() as device, bytes() as der] if len(device) == ID_SIZE:
                try:
                    certificate = read_certificate(der, self._membership.authority)
                except RemoteError:
                    return
                small.certificates[certificate.device] = certificate
            case [bytes(), int() | float() as at_s, bytes() as body, bytes() as signature, *_]:
                try:
                    small.unproven.append((read_receipt(body, signature), float(at_s)))
                except RemoteError:
                    return
            case [
                None,
                bytes() as journal,
                bytes() as source,
                bytes() as destination,
                bytes() as epoch,
                *more,
            ]:
                if len(epoch) == EPOCH_SIZE and journal_id(source, destination, epoch) == journal:
                    previous = read_previous(*more) if len(more) == 2 else None
                    place = JournalId(journal), DeviceId(source), destination, epoch
                    small.journals[place[0]] = JournalRecord(*place, previous=previous)
            case [None, bytes() as journal, int(), int(), int(), int(), bytes(), *crc]:
                said = found.values[1:7]
                if is_id(journal) and (checksum(*said) == crc[0] if crc else self._opens(said[-1])):
                    small.messages[found.number] = PutMessage(*said)  # type: ignore[arg-type]

    def _opens(self, label: Value) -> bool:
        try:
            assert isinstance(label, bytes)
            self._drawer.open(label)
        except ValueError:
            return False
        return True

    def _keep_receipt(self, receipt: Receipt, at_s: float) -> None:
        endpoint = self._membership.document.endpoint(receipt.endpoint)
        certificate = self._small.certificates.get(DeviceId(receipt.endpoint))
        key: PublicKey | None = endpoint.signing_key if endpoint else certificate.key if certificate else None
        before = self._small.receipts.get(receipt.journal)
        try:
            if key is None or (before is not None and before.receipt.serial >= receipt.serial):
                return
            receipt.verify(key)
        except RemoteError:
            return
        self._small.receipts[receipt.journal] = PutReceipt(receipt, at_s)

    def _read_index_row(self, values: list[Value]) -> None:
        small = self._small
        match values:
            case ["clock_s", int() | float() as clock_s]:
                small.clock_s = float(clock_s)
            case [str() as address, bytes() as device, int() | float() as at_s] if is_id(device):
                small.addresses.append(PutAddress(address, DeviceId(device), float(at_s)))
            case [bytes() as journal, bytes() as peer, int() as first, int() as last]:
                if is_id(journal, peer) and is_number(first) and is_number(last) and first <= last:
                    place = JournalId(journal), DeviceId(peer)
                    small.custody.setdefault(place, []).append((first, last))
            case [int(), int() as number, int() as bundle, int(), int(), int(), int(), born_s, int(), *crc]:
                if isinstance(born_s, int | float) and abs(born_s) < 2.0**41:
                    known = crc[0] if crc and type(crc[0]) is int else None
                    small.entries[bundle] = _Entry(number, float(born_s), known)

    # --- the bundles --------------------------------------------------------------------------------------------

    def _write(self, store: SqliteStore, freed: set[int]) -> Summary:
        small, summary = self._small, Summary(Path())
        store.know(small.journals.values())
        small_rows: list[Row] = [
            PutCertificate(it) for it in small.certificates.values() if it.device != self._me
        ]
        small_rows.extend(small.receipts.values())
        store.commit(small_rows, small.clock_s)
        own: dict[JournalId, dict[int, Bundle]] = {}
        rows: list[Row] = []
        size = 0
        for put in self._bundles(freed):
            header = put.bundle.header
            if header.source == self._me and header.destination != EVERYONE:
                light = Bundle(header, b"", b"", b"")
                own.setdefault(put.journal, {})[header.number] = light
            rows.append(put)
            size += header.payload_size
            if size >= BATCH_BYTES:
                store.commit(rows, small.clock_s)
                rows, size = [], 0
        messages = [message for _, message in sorted(small.messages.items())]
        messages.extend(self._rebuilt(own, messages))
        rows.extend(messages)
        rows.extend(PutOpening(journal, first) for journal, first in small.openings.items())
        rows.extend(PutCustody(*place, Ranges(ranges)) for place, ranges in small.custody.items())
        rows.extend(small.addresses)
        store.commit(rows, small.clock_s)
        summary.bundles, summary.size_bytes = len(self._put), store.sizes()[0]
        summary.lost = len(small.entries) - len(self._found_entries)
        summary.receipts, summary.certificates = len(small.receipts), len(small.certificates)
        summary.messages = len(messages)
        summary.affected = list(self._affected(messages))
        return summary

    def _bundles(self, freed: set[int]) -> Iterator[PutBundle]:
        """Those that are worth keeping. One may come again in a better version, which replaces the first."""
        small = self._small
        for found in self._pages.rows(_looks_like_bundle, freed):
            self._progress(self._pages.count + found.page, 2 * self._pages.count)
            _, arrived_ms, header_bytes, signature, payload = found.values
            assert type(header_bytes) is type(signature) is type(payload) is bytes
            assert type(arrived_ms) is int
            entry = small.entries.get(found.number)
            bundle = self._proven(header_bytes, signature, payload, entry)
            if bundle is None:
                continue
            header = bundle.header
            place = header.journal, header.number
            if entry is not None and entry.number != header.number:
                entry = None
            if entry is not None:
                self._found_entries.add(found.number)
            is_own = header.source == self._me
            is_done = header.number in self._receipted(place[0])
            if is_done and (entry is None or not is_own):
                continue
            rank = entry is not None, found.number
            if rank <= self._put.get(place, (False, -1)):
                continue
            self._put[place] = rank
            yield PutBundle(bundle, place[0], entry.born_s if entry else small.clock_s, arrived_ms)

    def _proven(self, header: bytes, signature: bytes, payload: bytes, entry: _Entry | None) -> Bundle | None:
        try:
            bundle = read_bundle(header, signature, payload)
            certificate = self._small.certificates.get(bundle.header.source)
            if certificate is not None:
                bundle.verify(certificate.key)
            else:
                bundle.check_payload()
                if entry is None or entry.crc != zlib.crc32(header + signature):
                    return None
        except RemoteError:
            return None
        return bundle

    def _receipted(self, journal: JournalId) -> Ranges:
        put = self._small.receipts.get(journal)
        return put.receipt.ranges if put else NONE

    # --- own messages -------------------------------------------------------------------------------------------

    def _rebuilt(
        self, own: dict[JournalId, dict[int, Bundle]], messages: list[PutMessage]
    ) -> Iterator[PutMessage]:
        """Messages of which no row is left, from their bundles."""
        said: dict[JournalId, Ranges] = {}
        for message in messages:
            span = Ranges.span(message.first, message.last)
            said[message.journal] = said.get(message.journal, NONE) | span
        for journal, bundles in own.items():
            torn_from = self._small.openings.get(journal)
            for first in sorted({bundle.header.first for bundle in bundles.values()}):
                parts = [b.header for b in bundles.values() if b.header.first == first]
                is_torn = torn_from is not None and first >= torn_from
                if first in said.get(journal, NONE) or is_torn:
                    continue
                last = first + parts[0].parts - 1
                size = sum(part.payload_size - SEAL_OVERHEAD for part in parts)
                yield PutMessage(journal, first, last, size, parts[0].created_ms, b"")

    def _affected(self, messages: list[PutMessage]) -> Iterator[Affected]:
        numbers: dict[JournalId, list[int]] = {message.journal: [] for message in messages}
        for journal, number in self._put:
            if journal in numbers:
                numbers[journal].append(number)
        there = {journal: Ranges.of(some) | self._receipted(journal) for journal, some in numbers.items()}
        for message in messages:
            known = there[message.journal]
            if not known.covers(message.first, message.last):
                reference = open_label(self._drawer, message.label)["reference"]
                yield Affected(message_key(message.journal, message.first), reference)


def _is_journal(value: Value) -> TypeGuard[JournalId]:
    return is_id(value)


def _looks_like_bundle(types: list[int]) -> bool:
    """NULL, a whole number, header, signature, payload."""
    return (
        len(types) == 5
        and types[0] == 0
        and (1 <= types[1] <= 6 or types[1] in (8, 9))
        and all(kind >= 12 and kind % 2 == 0 for kind in types[2:])
        and types[3] == 12 + 2 * SIGNATURE_SIZE
    )

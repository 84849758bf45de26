"""What is left of the small rows of a damaged store: all but the bundles (`salvage`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeGuard

from meshnode.app.home import Membership
from meshnode.core.bundle import EPOCH_SIZE, journal_id
from meshnode.core.errors import RemoteError
from meshnode.core.identity import (
    ID_SIZE,
    SIGNATURE_SIZE,
    Certificate,
    DeviceId,
    JournalId,
    PublicKey,
    read_certificate,
)
from meshnode.core.receipt import Receipt, read_receipt
from meshnode.core.rows import (
    JournalRecord,
    PutAddress,
    PutCarried,
    PutDay,
    PutMessage,
    PutReceipt,
    PutRun,
    PutSeen,
)
from meshnode.core.sealing import Drawer
from meshnode.drivers.sqlite.pages import Found, Pages, Value
from meshnode.drivers.sqlite.remembering import read_carried, read_day, read_run, read_seen
from meshnode.drivers.sqlite.schema import INFINITE_S, checksum, is_id, is_number, read_previous
from meshnode.drivers.sqlite.swapping import PAYLOADS, payloads_path


@dataclass(frozen=True, slots=True)
class Entry:
    """What an entry says of its bundle, as far as it is needed. `crc`: of header and signature, when they came."""

    number: int
    born_s: float
    crc: int | None


#: Whether in a slot, and the number of that or of the row.
Where = tuple[bool, int]


@dataclass
class Small:
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
    #: What happened and when, and the sums of days: of each the largest, which is the latest.
    runs: dict[int, PutRun] = field(default_factory=dict)
    seen: dict[DeviceId, PutSeen] = field(default_factory=dict)
    carried: dict[tuple[int, DeviceId, DeviceId], PutCarried] = field(default_factory=dict)
    days: dict[int, PutDay] = field(default_factory=dict)
    #: By the row that has the bytes, or by the slot.
    entries: dict[Where, Entry] = field(default_factory=dict)
    #: What the store calls the file of its slots.
    payloads: Path | None = None


class SmallReader:
    """Tells by the values what a row is, and keeps what proves itself. `path`: the store."""

    def __init__(self, path: Path, membership: Membership, drawer: Drawer) -> None:
        self._path = path
        self._membership = membership
        self._drawer = drawer
        self._small = Small()

    def read(self, pages: Pages, freed: set[int], progress: Callable[[int], None]) -> Small:
        """All that is left of them. `progress` is told the page."""
        small = self._small
        openings_at = -1
        own = self._membership.certificate
        small.certificates[own.device] = own
        for found in pages.rows(lambda types: not looks_like_bundle(types), freed):
            progress(found.page)
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
        return small

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
            case [None, *values]:
                run = read_run((found.number, *values))
                if run is not None and run.last >= small.runs.get(run.number, run).last:
                    small.runs[run.number] = run

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

    def _read_remembered(self, values: list[Value]) -> bool:
        """Whether it is one of these."""
        small = self._small
        if seen := read_seen(values):
            if seen.at_ms >= small.seen.get(seen.device, seen).at_ms:
                small.seen[seen.device] = seen
        elif carried := read_carried(values):
            place = carried.day, carried.carrier, carried.source
            if carried.bundles >= small.carried.get(place, carried).bundles:
                small.carried[place] = carried
        elif day := read_day(values):
            if day.messages >= small.days.get(day.day, day).messages:
                small.days[day.day] = day
        else:
            return False
        return True

    def _read_index_row(self, values: list[Value]) -> None:
        small = self._small
        if self._read_remembered(values):
            return
        match values:
            case ["clock_s", int() | float() as clock_s]:
                small.clock_s = float(clock_s)
            case [name, value] if name == PAYLOADS:
                small.payloads = payloads_path(self._path, value) or small.payloads
            case [str() as address, bytes() as device, int() | float() as at_s] if is_id(device):
                small.addresses.append(PutAddress(address, DeviceId(device), float(at_s)))
            case [bytes() as journal, bytes() as peer, int() as first, int() as last]:
                if is_id(journal, peer) and is_number(first) and is_number(last) and first <= last:
                    place = JournalId(journal), DeviceId(peer)
                    small.custody.setdefault(place, []).append((first, last))
            case [int(), int() as number, int() as bundle, int(), int(), int(), int(), born_s, int(), *more]:
                if isinstance(born_s, int | float) and abs(born_s) < INFINITE_S:
                    crc, slot = (*more, None, None)[:2]
                    where = (True, slot) if isinstance(slot, int) else (False, bundle)
                    known = crc if isinstance(crc, int) else None
                    small.entries[where] = Entry(number, float(born_s), known)


def _is_journal(value: Value) -> TypeGuard[JournalId]:
    return is_id(value)


def looks_like_bundle(types: list[int]) -> bool:
    """NULL, a whole number, header, signature, payload."""
    return (
        len(types) == 5
        and types[0] == 0
        and (1 <= types[1] <= 6 or types[1] in (8, 9))
        and all(kind >= 12 and kind % 2 == 0 for kind in types[2:])
        and types[3] == 12 + 2 * SIGNATURE_SIZE
    )

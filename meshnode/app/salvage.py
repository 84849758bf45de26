"""Rescuing a damaged store: all that proves itself goes into a new one, which then takes the place of the old.

Nothing that a damaged file says is believed. A bundle is kept if its source's signature and its digest are right (of a
source whose certificate is lost, if it still has the checksum that was taken when it came); a receipt and a certificate
if their signatures are; a message of this device if its checksum is, or its label opens with the device key.

Two rounds over the file: the small rows first, then the bundles, one at a time, and those in slots, whose heads say
enough even if there is no database any more. A row that was removed may turn up again where the list of free pages is
damaged, and a slot where a crash has kept it from being wiped. Of others' bundles that does no harm. Of own ones it
would: numbers that were never announced may have been used again. So of two with the same number the one with an entry
counts, then the later one; and what belongs to no message is left to the rule of every start (`submitting.remains`).

A message of which only bundles are left is listed again, without what the officer called it.

Encounters are not rescued: nothing proves them, and they are learned anew. Until then, for some days, only the order
of sending is worse. What happened and when, and the sums of an office's days, are kept where they may be true: nothing
depends on them but what people are told.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from meshnode.app.home import Home, Membership
from meshnode.app.report import open_label
from meshnode.app.salvage_small import Small, SmallReader, Where, looks_like_bundle
from meshnode.core.bundle import Bundle, read_bundle
from meshnode.core.errors import FileTrouble, LocalError, RemoteError
from meshnode.core.identity import JournalId
from meshnode.core.intervals import NONE, Ranges
from meshnode.core.introducing import EVERYONE
from meshnode.core.limits import MIB
from meshnode.core.rows import PutBundle, PutCertificate, PutCustody, PutMessage, PutOpening, Row
from meshnode.core.sealing import SEAL_OVERHEAD, Drawer
from meshnode.core.submitting import message_key
from meshnode.core.words import say
from meshnode.drivers.sqlite import SqliteStore
from meshnode.drivers.sqlite.heads import SLOT_SIZE, Head, slots_of
from meshnode.drivers.sqlite.pages import Pages
from meshnode.drivers.sqlite.swapping import begin_swap, discard, finish_swap
from meshnode.drivers.sqlite.versions import refuse_newer_pages

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
    as the store still says what it had. `kept`: where the damaged store is now; None if it was not replaced. Beside
    each are its large payloads, if it has any: `payloads`, `kept_payloads`."""

    path: Path
    payloads: Path | None = None
    kept: Path | None = None
    kept_payloads: list[Path] = field(default_factory=list)
    bundles: int = 0
    size_bytes: int = 0
    lost: int = 0
    receipts: int = 0
    messages: int = 0
    certificates: int = 0
    affected: list[Affected] = field(default_factory=list)


def salvage(
    home: Home, out: Path | None = None, progress: Callable[[int, int], None] = lambda *_: None
) -> Summary:
    """Rescue the store of a home into a new one, and put that in its place; with `out` only write it there.

    `progress(done, total)` counts pages and slots. Raises HomeBusy while a daemon runs, what `Home.load` raises,
    NoStore, NoRoomForStore, OutExists, StoreTooNew, or StoreTrouble; then the store is as it was.
    """
    membership = home.load()
    with home.lock():
        finish_swap(home.store_path)
        new = out if out is not None else home.path / _WORKING
        try:
            with closing(Pages(home.store_path)) as pages:
                _check(home, pages, new, is_out=out is not None)
                rescue = _Salvage(home, membership, pages, progress)
                _check_room([home.store_path, home.log_path, *rescue.slot_files], new.parent)
                done = rescue.write(new, home.store_path if out is None else new)
        except FileNotFoundError:
            raise NoStore(home=home.path) from None
        if out is None:
            done.path, done.kept = home.store_path, begin_swap(home.store_path, new)
            done.kept_payloads = rescue.slot_files
        return done


def _check(home: Home, pages: Pages, new: Path, *, is_out: bool) -> None:
    refuse_newer_pages(home.store_path, pages)
    if is_out and os.path.lexists(new):
        raise OutExists(path=new)
    discard(new)  # what a crash has left of an earlier one


def _check_room(files: list[Path], folder: Path) -> None:
    needed = sum(path.stat().st_size for path in files if path.exists())
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise FileTrouble(
            path=folder, problem=say("cannot be used: {problem}", problem=error.strerror)
        ) from None
    if free < needed:
        raise NoRoomForStore(needed_bytes=needed, free_bytes=free, folder=folder)


class _Salvage:
    """One rescue."""

    def __init__(
        self, home: Home, membership: Membership, pages: Pages, progress: Callable[[int, int], None]
    ) -> None:
        self._home = home
        self._membership = membership
        self._me = membership.certificate.device
        self._drawer = Drawer(membership.key.derive(b"labels"))
        self._pages = pages
        self._progress = progress
        self._total = 2 * pages.count + sum(it.stat().st_size // SLOT_SIZE for it in home.payload_paths())
        self._freed = pages.freed()
        self._small = self._read_small()
        #: The files in which slots are looked for. If it is not known which it is, those of stores that were damaged
        #: before are read too, which does no harm.
        named = self._small.payloads
        self.slot_files = [named] if named and named.exists() else home.payload_paths()
        #: What was put of each journal: whether it had an entry, when it came, and where it was.
        self._put: dict[tuple[JournalId, int], tuple[bool, int, Where]] = {}
        self._found_entries: set[Where] = set()

    def _read_small(self) -> Small:
        reader = SmallReader(self._home.store_path, self._membership, self._drawer)
        return reader.read(self._pages, self._freed, lambda page: self._progress(page, self._total))

    def write(self, path: Path, becomes: Path) -> Summary:
        """Write a new store there, durably, which is going to be at `becomes`."""
        store = SqliteStore(path, becomes)
        try:
            summary = self._write(store)
            if store.payloads_path.exists():
                summary.payloads = store.payloads_path
        finally:
            store.close()
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        summary.path = path
        return summary

    # --- the bundles --------------------------------------------------------------------------------------------

    def _write(self, store: SqliteStore) -> Summary:
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
        for put in self._bundles():
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
        rows.extend(row for _, row in sorted(small.runs.items()))
        rows.extend((*small.seen.values(), *small.carried.values(), *small.days.values()))
        store.commit(rows, small.clock_s)
        summary.bundles, summary.size_bytes = len(self._put), store.sizes()[0]
        summary.lost = len(small.entries) - len(self._found_entries)
        summary.receipts, summary.certificates = len(small.receipts), len(small.certificates)
        summary.messages = len(messages)
        summary.affected = list(self._affected(messages))
        return summary

    def _bundles(self) -> Iterator[PutBundle]:
        """Those that are worth keeping. One may come again in a better version, which replaces the first."""
        small = self._small
        for found in self._pages.rows(looks_like_bundle, self._freed):
            self._progress(self._pages.count + found.page, self._total)
            _, arrived_ms, header_bytes, signature, payload = found.values
            assert type(header_bytes) is type(signature) is type(payload) is bytes
            assert type(arrived_ms) is int
            where = False, found.number
            entry = small.entries.get(where)
            born_s = entry.born_s if entry else small.clock_s
            head = Head(header_bytes, signature, born_s, arrived_ms)
            yield from self._kept(where, head, payload, entry.crc if entry else None)
        for path in self.slot_files:
            for slot, head, payload in slots_of(path):
                self._progress(2 * self._pages.count + slot, self._total)
                yield from self._kept((True, slot), head, payload, head.checksum)

    def _kept(self, where: Where, head: Head, payload: bytes, crc: int | None) -> Iterator[PutBundle]:
        """The bundle, if it is worth keeping. `crc`: what its header and signature had when it came."""
        bundle = self._proven(head, payload, crc)
        if bundle is None:
            return
        header = bundle.header
        place = header.journal, header.number
        entry = self._small.entries.get(where)
        if entry is not None and (entry.number != header.number or entry.crc not in (None, head.checksum)):
            entry = None
        if entry is not None:
            self._found_entries.add(where)
        is_own = header.source == self._me
        is_done = header.number in self._receipted(place[0])
        if is_done and (entry is None or not is_own):
            return
        rank = entry is not None, head.arrived_ms, where
        before = self._put.get(place)
        if before is None or rank > before:
            self._put[place] = rank
            born_s = entry.born_s if entry else min(head.born_s, self._small.clock_s)
            yield PutBundle(bundle, place[0], born_s, head.arrived_ms)

    def _proven(self, head: Head, payload: bytes, crc: int | None) -> Bundle | None:
        try:
            bundle = read_bundle(head.header, head.signature, payload)
            certificate = self._small.certificates.get(bundle.header.source)
            if certificate is not None:
                bundle.verify(certificate.key)
            else:
                bundle.check_payload()
                if crc != head.checksum:
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

"""The daemon's part of carrying by hand: what is given to a stick, and what is taken from one.

The stick belongs to the user at the terminal, and this process may be another user's; so it sees no file, but frames.

    compare  of what a stick holds: what is known here, and what is delivered
    plan     what a stick lacks, in the order of sending, as far as it fits
    frames   the plan's frames, read from the store a piece at a time
    bring    some frames from a stick; the answer waits until all that was taken is durable

The loop is never held up: what walks over all journals pauses, sorting and reading are done in worker threads, and what
is brought is given to the brain in small portions.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Final, TypeVar

import trio

from meshnode.core.bringing import Tally
from meshnode.core.bundle import AGE_S_MAX, read_bundle
from meshnode.core.contact import first_ranges
from meshnode.core.errors import RemoteError, StoreTrouble
from meshnode.core.fleet import FleetDocument
from meshnode.core.frames import Cert, Fleet, Have, ReceiptFrame, encode, encode_bundle
from meshnode.core.framing import FrameReader
from meshnode.core.identity import DeviceId, JournalId
from meshnode.core.intervals import NONE, Ranges
from meshnode.core.ledger import Journal
from meshnode.core.limits import FRAME_SIZE_MAX, MIB
from meshnode.core.node import Node
from meshnode.core.ports import Brought, Instant
from meshnode.core.receipt import Receipt
from meshnode.core.routing import Order
from meshnode.core.rows import Rotten, StoredBundle
from meshnode.core.stick import LENGTH_SIZE
from meshnode.core.words import say
from meshnode.drivers.writer import RunSync

#: What one event brings: a signature takes a tenth of a millisecond to verify, and the loop has others to serve.
EVENT_FRAMES: Final = 16
EVENT_BYTES: Final = 1 * MIB
#: What is read from the store at once.
READ_BYTES: Final = 1 * MIB
READ_BUNDLES: Final = 256
#: Journals that are looked at between two pauses.
PAUSE_AFTER: Final = 256
#: What a frame of a bundle has besides the payload, and a source's certificate once: never more than this.
OVERHEAD_BYTES: Final = 512
CERTIFICATE_BYTES: Final = 1024

T = TypeVar("T")
Read = Callable[[JournalId, int], StoredBundle | None]
#: Which bundle, how many payload bytes.
Item = tuple[JournalId, int, int]


@dataclass(slots=True)
class Holdings:
    """What a stick holds: of each journal which bundles, and the serial of the newest receipt."""

    ranges: dict[JournalId, Ranges] = field(default_factory=dict)
    serials: dict[JournalId, int] = field(default_factory=dict)


@dataclass(slots=True)
class Plan:
    """What is to be written to a stick. `left`: bundles for which it has no room, and their bytes."""

    document: FleetDocument | None
    receipts: list[Receipt]
    items: list[Item]
    sources: dict[JournalId, DeviceId]
    certificates: dict[DeviceId, bytes]
    size_bytes: int = 0
    left: int = 0
    left_bytes: int = 0


async def _in_pieces(items: Iterable[T]) -> AsyncIterator[T]:
    for at, item in enumerate(items):
        if at % PAUSE_AFTER == 0:
            await trio.lowlevel.checkpoint()
        yield item


async def read_holdings(data: bytes) -> Holdings:
    """What a stick holds, told in HAVE frames. Raises RemoteError."""
    holdings = Holdings()
    reader = FrameReader()
    for frame in reader.feed(data):
        if not isinstance(frame, Have):
            raise RemoteError(say("what the stick holds"), "is not told in HAVE frames")
        await trio.lowlevel.checkpoint()
        for held in frame.journals:
            holdings.ranges[held.journal] = holdings.ranges.get(held.journal, NONE) | held.ranges
            holdings.serials[held.journal] = max(held.serial, holdings.serials.get(held.journal, 0))
    return holdings


def split(data: bytes) -> Iterator[tuple[bytes, ...]]:
    """The bodies of frames, in portions for one event each. Raises RemoteError if `data` is not whole frames."""
    at = size = 0
    portion: list[bytes] = []
    while at < len(data):
        length = int.from_bytes(data[at : at + LENGTH_SIZE], "big")
        body = data[at + LENGTH_SIZE : at + LENGTH_SIZE + length]
        if length > FRAME_SIZE_MAX or len(body) < length or len(data) - at < LENGTH_SIZE:
            raise RemoteError(say("what was brought"), "is not whole frames")
        at += LENGTH_SIZE + length
        portion.append(body)
        size += length
        if len(portion) >= EVENT_FRAMES or size >= EVENT_BYTES:
            yield tuple(portion)
            portion, size = [], 0
    if portion:
        yield tuple(portion)


class Carrying:
    """Carrying by hand, of one daemon."""

    def __init__(
        self,
        node: Node,
        *,
        dispatch: Callable[[Brought], None],
        read: Read,
        on_rotten: Callable[[JournalId, int], None],
        run_sync: RunSync,
        now: Callable[[], Instant],
    ) -> None:
        self._node = node
        self._dispatch = dispatch
        self._read = read
        self._on_rotten = on_rotten
        self.run_sync = run_sync
        self._now = now
        self._lock = trio.Lock()
        self._bringing = 0
        self._written = trio.Event()

    # --- from the stick -----------------------------------------------------------------------------------------

    def written(self) -> None:
        """Some writes have ended, well or not."""
        self._written.set()
        self._written = trio.Event()

    async def bring(self, data: bytes) -> Tally:
        """Take whole frames; what became of them, once that is durable. Raises RemoteError, and then nothing is taken:
        `data` is not whole frames."""
        portions = list(split(data)) or [()]
        async with self._lock:
            self._bringing += 1
            try:
                for portion in portions:
                    self._dispatch(Brought(self._bringing, portion))
                    await trio.lowlevel.checkpoint()
            finally:
                # It is the store that decides now, whether somebody still waits for the answer or not.
                with trio.CancelScope(shield=True):
                    await self._rest()
            return self._node.brought() or Tally()

    async def _rest(self) -> None:
        while self._node.brought() is None:
            await self._written.wait()

    # --- to the stick -------------------------------------------------------------------------------------------

    async def compare(self, stick: Holdings) -> list[list[object]]:
        """Of each of the stick's journals [id in hex, ranges known here, ranges delivered], ranges as on the wire. What
        says nothing is left out."""
        ledger = self._node.state.ledger
        rows: list[list[object]] = []
        async for journal_id, ranges in _in_pieces(stick.ranges.items()):
            known = ranges - ledger.lacking(journal_id, ranges)
            journal = ledger.journals.get(journal_id)
            delivered = ranges & journal.receipted if journal else NONE
            if known or delivered:
                both = (first_ranges(ranges).to_wire() for ranges in (known, delivered))
                rows.append([journal_id.hex(), *both])
        return rows

    async def plan(self, stick: Holdings, fleet_version: int, room_bytes: int) -> Plan:
        """What the stick lacks. `fleet_version`: of the newest document there; `room_bytes`: what fits."""
        state = self._node.state
        document = state.document if state.document.version > fleet_version else None
        plan = Plan(document, [], [], {}, {})
        lots: list[tuple[Journal, Ranges]] = []
        async for journal in _in_pieces(list(state.ledger.journals.values())):
            receipt = self._node.receipt_of(journal)
            if receipt is not None and receipt.serial > stick.serials.get(journal.id, 0):
                plan.receipts.append(receipt)
                self._certify(plan, DeviceId(receipt.endpoint))
            lacking = journal.on_offer - stick.ranges.get(journal.id, NONE)
            if journal.source is None or not lacking or state.ledger.is_for_me(journal):
                continue  # what ends here is of no use elsewhere
            plan.sources[journal.id] = journal.source
            self._certify(plan, journal.source)
            # a copy, since the ledger goes on changing while a worker thread sorts
            lots.append((Journal(journal.id, journal.source, entries=journal.entries.copy()), lacking))
        order = partial(_fill, plan, lots, state.document.revoked, room_bytes, self._now().s)
        await self.run_sync(order)
        return plan

    def _certify(self, plan: Plan, device: DeviceId) -> None:
        if certificate := self._node.state.certificates.get(device):
            plan.certificates[device] = certificate.der

    async def frames(self, plan: Plan) -> AsyncIterator[bytes]:
        """The plan's frames, some of them at a time. A bundle that was delivered or discarded meanwhile is left out."""
        certified: set[DeviceId] = set()

        def certify(device: DeviceId) -> list[bytes]:
            if device in certified or device not in plan.certificates:
                return []
            certified.add(device)
            return [encode(Cert(plan.certificates[device]))]

        if plan.document is not None:
            yield encode(Fleet(plan.document.body, plan.document.signature))
        async for receipt in _in_pieces(plan.receipts):
            frame = encode(ReceiptFrame(receipt.body, receipt.signature))
            yield b"".join([*certify(DeviceId(receipt.endpoint)), frame])
        for items in _batches(plan.items):
            before = [frame for journal, _, _ in items for frame in certify(plan.sources[journal])]
            load = partial(_load, self._read, items, self._now().s)
            data, rotten = await self.run_sync(load)
            for journal, number in rotten:
                self._on_rotten(journal, number)
            yield b"".join([*before, data])


def _fill(
    plan: Plan,
    lots: list[tuple[Journal, Ranges]],
    revoked: frozenset[DeviceId],
    room_bytes: int,
    now_s: float,
) -> None:
    """Put bundles into the plan, the most urgent first, until the stick is full. Runs in a worker thread."""
    room_bytes -= len(plan.document.body) if plan.document else 0
    room_bytes -= CERTIFICATE_BYTES * (1 + len(plan.certificates))
    room_bytes -= sum(len(receipt.body) + OVERHEAD_BYTES for receipt in plan.receipts)
    order = Order.blind(revoked, now_s)
    queue = [
        (order.of_message(journal, entry), journal.id, number, entry.size)
        for journal, ranges in lots
        for number in ranges
        if (entry := journal.entries.get(number)) is not None
    ]
    queue.sort()
    for _, journal_id, number, size in queue:
        if plan.left or plan.size_bytes + size + OVERHEAD_BYTES > room_bytes:
            plan.left += 1
            plan.left_bytes += size + OVERHEAD_BYTES
        else:
            plan.items.append((journal_id, number, size))
            plan.size_bytes += size + OVERHEAD_BYTES


def _batches(items: list[Item]) -> Iterator[list[Item]]:
    batch: list[Item] = []
    size = 0
    for item in items:
        batch.append(item)
        size += item[2]
        if size >= READ_BYTES or len(batch) >= READ_BUNDLES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _load(read: Read, items: list[Item], now_s: float) -> tuple[bytes, list[tuple[JournalId, int]]]:
    """The frames of these bundles, and which have rotted in the store. Runs in a worker thread."""
    frames: list[bytes] = []
    rotten: list[tuple[JournalId, int]] = []
    for journal, number, _ in items:
        try:
            stored = read(journal, number)
            if stored is None:
                continue
            header = read_bundle(stored.header, stored.signature, stored.payload).header
            is_whole = hashlib.sha256(stored.payload).digest() == header.payload_sha256
        except (RemoteError, Rotten):
            is_whole = False
        except StoreTrouble:
            continue  # it may be readable again soon
        if not is_whole or stored is None:
            rotten.append((journal, number))
            continue
        age_s = min(max(0, int(now_s - stored.born_s)), AGE_S_MAX)
        frames.append(encode_bundle(age_s, stored.header, stored.signature, stored.payload))
    return b"".join(frames), rotten

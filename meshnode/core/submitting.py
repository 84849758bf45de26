"""Taking messages: how this device writes its own journals.

A submission gets its numbers when it opens and is written chunk by chunk, sealed at once, so that no plaintext is
kept. Only the commit of the last chunk makes it a message (`PutMessage`): before that nobody is told of its bundles,
and whatever is left of it after a crash or an abort is removed. So numbers that were never announced may be used
again; announced ones never are, because a journal lives only as long as the process (a new epoch at each start).

One submission is open at a time, since the numbers of a message are consecutive.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from meshnode.core.bundle import (
    MILLISECONDS_MAX,
    PRIORITIES,
    Bundle,
    Header,
    Previous,
    journal_id,
    sign_bundle,
)
from meshnode.core.errors import BadSubmission, NoOffice, NoRoom
from meshnode.core.fleet import Endpoint, FleetDocument
from meshnode.core.identity import DeviceId, JournalId, SigningKey
from meshnode.core.intervals import NONE, Ranges
from meshnode.core.limits import LIFETIME_S_MAX, MIB, NUMBER_MAX, PARTS_MAX
from meshnode.core.message import parts_for
from meshnode.core.ports import Instant, SubmissionOpened
from meshnode.core.rows import DropBundles, PutBundle, PutMessage, PutOpening, Row, Snapshot
from meshnode.core.sealing import CHUNK_SIZE, SEAL_OVERHEAD, Sealer, sealing_info

SealerFor = Callable[[Endpoint], Sealer]


def office_sealer(endpoint: Endpoint) -> Sealer:
    """The newest of the endpoint's keys."""
    return endpoint.sealing_keys[0]


def message_key(journal: JournalId, first: int) -> str:
    """`<journal id in hex>:<number of its first bundle>`, what a message is called everywhere."""
    return f"{journal.hex()}:{first}"


def needed_bytes(size: int) -> int:
    """Disk that taking a stream of `size` bytes needs: headers and pages, and the log before it is merged."""
    return size + size // 32 + min(size, 8 * MIB) + MIB // 4


@dataclass(slots=True)
class _Open:
    """The submission that is being written."""

    event: SubmissionOpened
    sealer: Sealer
    destination: bytes
    journal: JournalId
    first: int
    parts: int
    lifetime_s: int
    created_ms: int
    done: int = 0

    @property
    def last(self) -> int:
        return self.first + self.parts - 1


class Submitting:
    """The journals that this process writes: one a destination, all of one epoch."""

    def __init__(self, key: SigningKey, epoch: bytes, snapshot: Snapshot, sealer_for: SealerFor) -> None:
        self._key = key
        self._me = DeviceId(key.public.id)
        self._epoch = epoch
        self._sealer_for = sealer_for
        destination_of = {record.id: record.destination for record in snapshot.journals}
        #: By destination: each endpoint follows the journals to itself.
        self._previous = {
            destination_of[message.journal]: Previous(message.journal, message.last)
            for message in snapshot.messages
            if message.journal in destination_of
        }
        self._last: dict[JournalId, int] = {}
        self._open: _Open | None = None

    def open(
        self,
        event: SubmissionOpened,
        document: FleetDocument,
        free_bytes: int,
        floor_bytes: int,
        now: Instant,
    ) -> None:
        """Begin. Raises NoOffice, NoRoom or BadSubmission, and then nothing has happened."""
        if self._open is not None:
            raise BadSubmission(problem="another message is being taken right now")
        endpoint = event.endpoint or (document.endpoints[0] if document.endpoints else None)
        if endpoint is None:
            raise NoOffice()
        parts = parts_for(event.size)
        lifetime_s = event.lifetime_s or document.lifetime_s
        created_ms = now.wall_ms if event.submitted_ms is None else event.submitted_ms
        if event.size < 1 or parts > PARTS_MAX:
            raise BadSubmission(problem="its size cannot be")
        if not 1 <= lifetime_s <= LIFETIME_S_MAX or event.priority not in PRIORITIES.values():
            raise BadSubmission(problem="its lifetime or priority cannot be")
        needed = needed_bytes(event.size + parts * SEAL_OVERHEAD)
        if needed > free_bytes - floor_bytes:
            free = max(0, free_bytes - floor_bytes)
            raise NoRoom(needed_bytes=needed, free_bytes=free, floor_bytes=floor_bytes)
        journal = journal_id(self._me, endpoint.id, self._epoch)
        self._open = _Open(
            event=event,
            sealer=self._sealer_for(endpoint),
            destination=endpoint.id,
            journal=journal,
            first=self._last.get(journal, 0) + 1,
            parts=parts,
            lifetime_s=lifetime_s,
            created_ms=min(max(0, created_ms), MILLISECONDS_MAX),
        )

    def chunk(self, submission: int, chunk: bytes, now: Instant) -> tuple[tuple[Row, ...], bool]:
        """Seal and sign the next part: the rows to keep, and whether this was the last. Raises BadSubmission."""
        sub = self._require(submission)
        part = sub.done + 1
        left = sub.event.size - sub.done * CHUNK_SIZE
        if len(chunk) != min(left, CHUNK_SIZE):
            raise BadSubmission(problem="it is not as long as it said")
        sub.done = part
        bundle = self._seal(sub, part, chunk)
        rows: list[Row] = [PutBundle(bundle, sub.journal, now.s, now.wall_ms)]
        if part < sub.parts:  # with each: any of them may be the only one that the disk takes
            rows.append(PutOpening(sub.journal, sub.first))
        if part == sub.parts:
            rows.append(
                PutMessage(
                    sub.journal, sub.first, sub.last, sub.event.size_bytes, sub.created_ms, sub.event.label
                )
            )
        return tuple(rows), part == sub.parts

    def _seal(self, sub: _Open, part: int, chunk: bytes) -> Bundle:
        number = sub.first + part - 1
        info = sealing_info(self._me, sub.destination, self._epoch, number, part, sub.parts)
        payload = sub.sealer.seal(chunk, info)
        header = Header(
            source=self._me,
            destination=sub.destination,
            recipient_key=sub.sealer.key_id,
            epoch=self._epoch,
            number=number,
            part=part,
            parts=sub.parts,
            priority=sub.event.priority,
            created_ms=sub.created_ms,
            lifetime_s=sub.lifetime_s,
            previous=self._previous.get(sub.destination) if number == 1 else None,
            payload_size=len(chunk) + SEAL_OVERHEAD,
            payload_sha256=hashlib.sha256(payload).digest(),
        )
        return sign_bundle(header, payload, self._key)

    @property
    def is_busy(self) -> bool:
        """Whether any submission is being taken."""
        return self._open is not None

    def is_open(self, submission: int) -> bool:
        """Whether this is the submission that is being taken."""
        return self._open is not None and self._open.event.submission == submission

    def finish(self, submission: int) -> tuple[JournalId, int, int]:
        """Its last commit is durable: journal, first and last number, which count as used from now on."""
        sub = self._require(submission)
        self._last[sub.journal] = sub.last
        self._open = None
        return sub.journal, sub.first, sub.last

    def abort(self, submission: int) -> DropBundles | None:
        """Give up the open submission: what to remove of it. None if it is not open (any more)."""
        sub = self._open
        if sub is None or sub.event.submission != submission:
            return None
        self._open = None
        return DropBundles(sub.journal, Ranges.span(sub.first, sub.first + sub.done - 1))

    def _require(self, submission: int) -> _Open:
        if self._open is None or self._open.event.submission != submission:
            raise BadSubmission(problem="it is not being taken (any more)")
        return self._open


def remains(snapshot: Snapshot) -> list[DropBundles]:
    """Bundles that belong to no message: a submission was cut off by a crash. They are taken out of the snapshot, and
    are to be removed from the store.

    Bundles of an own journal that others have given back, after this store was replaced by an older copy, are none:
    whoever had them had been told that they are whole messages."""
    whole: dict[JournalId, Ranges] = {}
    for message in snapshot.messages:
        span = Ranges.span(message.first, message.last)
        whole[message.journal] = whole.get(message.journal, NONE) | span
    opened = {opening.journal: opening.first for opening in snapshot.openings}
    out = []
    for record in snapshot.journals:
        if (first := opened.get(record.id)) is not None:
            torn = (record.entries.ranges & Ranges.span(first, NUMBER_MAX)) - whole.get(record.id, NONE)
            record.entries.remove(torn)
            if torn:
                out.append(DropBundles(record.id, torn))
    return out

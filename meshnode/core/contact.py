"""One contact with one peer, from HELLO to loss: what it has said, what it owes, what it is owed.

The receiver decides *which* bundles (its WANTs) and how much may be on its way (its credit); the sender decides *in
which order*, since it alone knows size, priority and age. So this keeps two independent halves:

    receiving   offers (what the peer holds), wanting (asked of it, not here yet), credit granted
    sending     requests (messages asked of us, best first), credit left, bundles handed to the link and not yet sent

Only what the link sends in SEND_AHEAD_S is handed to it at a time: the rest of the queue can still be overtaken.

Either side is alive while bytes come from it, and says PING when it has said nothing for PING_AFTER_S. So a peer that
only receives, over a link so slow that the answer to a PING would stand in a long queue, is still heard from in time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from math import inf

from meshnode.core.bundle import AGE_S_MAX
from meshnode.core.errors import RemoteError
from meshnode.core.frames import Cert, Frame, Have, Held, Hello, Next, Ping, Stored, Want, Wanted, encode
from meshnode.core.framing import FrameReader
from meshnode.core.identity import Certificate, DeviceId, JournalId
from meshnode.core.intervals import NONE, Ranges
from meshnode.core.ledger import Ledger
from meshnode.core.limits import (
    CREDIT_BYTES,
    DEAD_AFTER_S,
    HANDSHAKE_S,
    HOLD_S,
    HUSH_S,
    JOURNALS_PER_FRAME,
    PAYLOAD_SIZE_MAX,
    PEER_JOURNALS_MAX,
    PEER_RANGES_MAX,
    PING_AFTER_S,
    RANGES_MAX,
    SEND_AHEAD_BYTES,
    SEND_AHEAD_FIRST_BYTES,
    SEND_AHEAD_S,
    STALL_BYTES,
    STALL_S,
)
from meshnode.core.ports import Effect, Send, SendBundle
from meshnode.core.requests import Requests
from meshnode.core.routing import Order
from meshnode.core.words import say

#: Range pairs in one frame of several journals; with 18 bytes a pair this stays well below FRAME_SIZE_MAX.
PAIRS_PER_FRAME = 4 * RANGES_MAX
#: What a peer may have sent, or will whatever it is told: ahead of its link, in its kernel, and on the air.
_ON_ITS_WAY_BYTES = SEND_AHEAD_BYTES + 2 * PAYLOAD_SIZE_MAX


class Contact:
    """The state of one contact."""

    def __init__(self, number: int, peer: Certificate, address: str, now_s: float, *, dialled: bool) -> None:
        self.number = number
        self.peer = peer
        self.dialled = dialled
        self.address = address
        self.opened_s = now_s
        self.hello: Hello | None = None
        self._reader = FrameReader()
        self._heard_s = now_s
        self._heard_bytes = 0
        self._said_s = now_s
        # receiving
        self.offers: dict[JournalId, Ranges] = {}
        #: Journals of which nothing was to be asked, and what that followed from (`fetching`).
        self.nothing_of: dict[JournalId, tuple[Ranges, ...]] = {}
        #: How often its offers have grown, and when all of them were looked at last (`fetching`).
        self.grown = 0
        self.looked: tuple[int, int] | None = None
        self._offered_pairs = 0
        #: Journals that go to the peer: what it holds of them has arrived, and is of no use anywhere else.
        self.ends: set[JournalId] = set()
        self.serials: dict[JournalId, int] = {}
        self.listed: set[JournalId] = set()
        self.whole = False
        #: The FINISHED that have come, by how many digests they have.
        self.summed: set[int] = set()
        self.wanting: dict[JournalId, Ranges] = {}
        self.wanting_since_s = now_s
        self.settled_bytes = 0
        self.received_bytes = 0
        self._received_count = 0
        self._credit_told = 0
        # sending
        self.requests = Requests(now_s)
        #: What either side said last to send next.
        self._next_said: Next | None = None
        self._next_heard: Next | None = None
        self._credit = 0
        self._sent_bytes = 0
        self._in_link_bytes = 0
        self._ahead_bytes = SEND_AHEAD_FIRST_BYTES
        self._drained_bytes = 0
        self._drained_s = now_s
        self._certified: set[DeviceId] = set()

    @property
    def device(self) -> DeviceId:
        """Who it is with."""
        return self.peer.device

    # --- frames -------------------------------------------------------------------------------------------------

    def feed(self, data: bytes, now_s: float) -> Iterator[Frame]:
        """The frames in these bytes. Raises RemoteError: whatever comes before HELLO, or is malformed."""
        self._heard_s = now_s
        self._heard_bytes += len(data)
        if self._heard_bytes >= STALL_BYTES:
            self._heard_bytes, self.wanting_since_s = 0, now_s
        for frame in self._reader.feed(data):
            if self.hello is None and not isinstance(frame, Hello):
                raise RemoteError("frame", "came before HELLO")
            yield frame

    def say(self, frame: Frame, now_s: float) -> Send:
        """Send a frame."""
        self._said_s = now_s
        return Send(self.number, encode(frame))

    def check_alive(self, now_s: float) -> str | None:
        """Why this contact is over, or None."""
        if self.hello is None and now_s >= self.opened_s + HANDSHAKE_S:
            return "said no HELLO"
        if now_s >= self._heard_s + DEAD_AFTER_S:
            return "silent"
        return None

    def next_look_s(self) -> float:
        """Before this neither `check_alive` nor `ping_due` has anything to say, whatever happens."""
        dead_s = self._heard_s + DEAD_AFTER_S
        if self.hello is None:
            dead_s = min(dead_s, self.opened_s + HANDSHAKE_S)
        return min(dead_s, self._said_s + PING_AFTER_S)

    def ping_due(self, now_s: float) -> bool:
        """Whether we have been silent for so long that a PING is called for."""
        return now_s >= self._said_s + PING_AFTER_S

    def ping(self, now_s: float) -> Send:
        """Say PING."""
        return self.say(Ping(), now_s)

    # --- what the peer holds ------------------------------------------------------------------------------------

    def note_offer(self, held: Held) -> None:
        """The peer holds just these of a journal. Raises RemoteError when it lists more than anybody has."""
        self.set_offer(held.journal, held.ranges)
        if held.ends and held.ranges:
            self.ends.add(held.journal)
        else:
            self.ends.discard(held.journal)
        if len(self.offers) > PEER_JOURNALS_MAX:
            raise RemoteError("HAVE", say("lists more than {most} journals", most=PEER_JOURNALS_MAX))
        if self._offered_pairs > PEER_RANGES_MAX:
            raise RemoteError("HAVE", say("lists more than {most} ranges", most=PEER_RANGES_MAX))

    def set_offer(self, journal: JournalId, ranges: Ranges) -> None:
        """Of what the peer holds of a journal, just these are worth asking for."""
        self._offered_pairs += len(ranges.pairs) - len(self.offers.get(journal, NONE).pairs)
        self.grown += 1
        if ranges:
            self.offers[journal] = ranges
        else:
            self.offers.pop(journal, None)
            self.nothing_of.pop(journal, None)
            self.ends.discard(journal)

    def note_stored(self, journal: JournalId, ranges: Ranges, *, ends: bool) -> None:
        """The peer holds these too; what is beyond so many gaps is not remembered, as if it had not said it. Raises
        RemoteError as `note_offer`."""
        self.note_offer(Held(journal, first_ranges(self.offers.get(journal, NONE) | ranges), 0, ends))

    # --- receiving ----------------------------------------------------------------------------------------------

    def arrived(self, journal: JournalId, number: int, size: int, now_s: float) -> None:
        """A bundle came. Raises RemoteError if it is more than was granted."""
        self.received_bytes += size
        self._received_count += 1
        if self.received_bytes > self._credit_told:
            raise RemoteError("BUNDLE", "came without credit for it")
        self.wanting_since_s = now_s
        if left := self.wanting.get(journal, NONE).minus(number):
            self.wanting[journal] = left
        else:
            self.wanting.pop(journal, None)

    @property
    def in_flight(self) -> int:
        """How many bundles may be on their way, by what a sender hands on ahead and the mean size so far."""
        mean = self.received_bytes / self._received_count if self._received_count else PAYLOAD_SIZE_MAX
        return int(min(self._credit_told - self.received_bytes, _ON_ITS_WAY_BYTES) / mean)

    @property
    def stalls_s(self) -> float:
        """When what it owes is waited for no longer if another has it, should nothing more come."""
        return min(self.wanting_since_s + STALL_S, max(self.wanting_since_s, self._heard_s) + HUSH_S)

    def want(self, rows: Iterable[Wanted], room_bytes: int, now_s: float) -> Send | None:
        """A WANT with these rows and the credit that there is room for; None when it would say nothing new."""
        rows = tuple(rows)
        granted = max(self._credit_told, self.settled_bytes + min(CREDIT_BYTES, max(0, room_bytes)))
        more = granted - self._credit_told
        starved = self._credit_told - self.received_bytes < PAYLOAD_SIZE_MAX
        if not rows and not (self.wanting and more and (starved or more >= CREDIT_BYTES // 4)):
            return None
        self._credit_told = granted
        return self.say(Want(granted, rows), now_s)

    def certificate_due(self, device: DeviceId) -> bool:
        """Whether the peer is to be sent this certificate now: once in a contact, and not its own."""
        due = device not in self._certified and device != self.device
        self._certified.add(device)
        return due

    # --- sending ------------------------------------------------------------------------------------------------

    def note_want(self, want: Want, ledger: Ledger, order: Order) -> None:
        """Put what the peer asks for into the queue, and take out what it no longer wants. Raises RemoteError if it
        does the one and the other for ever."""
        self._credit = max(self._credit, want.credit)
        for row in want.journals:
            journal = ledger.journals.get(row.journal)
            if journal is not None and journal.source is not None:
                if row.known:
                    self._certified.add(journal.source)
                self.requests.note(row, journal, ledger, self._heard_s)
        self.requests.place(ledger, order)

    def note_sent(self, size: int, now_s: float) -> None:
        """The link has sent bundles of `size` bytes."""
        self._in_link_bytes -= size
        self._drained_bytes += size
        if (passed_s := now_s - self._drained_s) >= SEND_AHEAD_S:
            ahead_bytes = self._drained_bytes * SEND_AHEAD_S / passed_s
            self._ahead_bytes = int(min(SEND_AHEAD_BYTES, max(SEND_AHEAD_FIRST_BYTES, ahead_bytes)))
            self._drained_bytes, self._drained_s = 0, now_s

    def note_unsent(self, size: int) -> None:
        """The link could not send a bundle of `size` bytes: the peer never sees it, so it cost no credit."""
        self._in_link_bytes -= size
        self._sent_bytes -= size

    @property
    def is_trading(self) -> bool:
        """Whether bundles go both ways."""
        return self.requests.best is not None

    def note_next(self, coming: Next) -> None:
        """The peer says what it sends next."""
        self._next_heard = coming

    @property
    def holds_until_s(self) -> float:
        """Until then the peer speaks, if it does: it owes bundles, and its next one is better than what is to be sent,
        or it has not said yet how good it is."""
        ours = self.requests.best
        if ours is None or not self.wanting:
            return -inf
        if self._next_heard is not None:
            theirs = self._next_heard.rank
            if theirs is None or (ours, self.dialled) < (theirs, not self.dialled):
                return -inf
        return self.wanting_since_s + HOLD_S

    def pump(
        self, ledger: Ledger, certificates: dict[DeviceId, Certificate], order: Order, now_s: float
    ) -> Iterator[Effect]:
        """Hand the link the best bundles of the queue, as far as credit and what it sends soon go."""
        self.requests.place(ledger, order)
        while (front := self.requests.front(ledger, order)) is not None:
            if self._in_link_bytes >= self._ahead_bytes or now_s < self.holds_until_s:
                break
            journal_id, number = front
            journal = ledger.journals[journal_id]
            entry = journal.entries[number]
            if self._sent_bytes + entry.size > self._credit:
                break
            self.requests.serve(journal_id, number)
            assert journal.source is not None
            if self.certificate_due(journal.source):
                yield self.say(Cert(certificates[journal.source].der), now_s)
            self._sent_bytes += entry.size
            self._in_link_bytes += entry.size
            self._said_s = now_s
            # A liar may have said that it is older than can be said.
            age_s = min(AGE_S_MAX, max(0, int(now_s - entry.born_s)))
            yield SendBundle(self.number, journal_id, number, entry.size, age_s)
        if self.wanting or self._next_said:
            coming = Next(self.requests.best)
            if coming != self._next_said:
                self._next_said = coming
                yield self.say(coming, now_s)


def have_frames(rows: Iterable[Held], *, whole: bool) -> Iterator[Have]:
    """HAVE frames that name these journals, none too large for a frame; the last one says `whole`."""
    batch: list[Held] = []
    pairs = 0
    for held in rows:
        ranges = first_ranges(held.ranges)
        if len(batch) >= JOURNALS_PER_FRAME or pairs + len(ranges.pairs) > PAIRS_PER_FRAME:
            yield Have(False, tuple(batch))
            batch, pairs = [], 0
        batch.append(replace(held, ranges=ranges))
        pairs += len(ranges.pairs)
    if whole or batch:
        yield Have(whole, tuple(batch))


def stored_frames(rows: Iterable[tuple[JournalId, Ranges, bool]]) -> Iterator[Stored]:
    """STORED frames of these additions, none too large for a frame."""
    batch: list[tuple[JournalId, Ranges, bool]] = []
    for journal, ranges, ends in rows:
        for at in range(0, len(ranges.pairs), RANGES_MAX):
            batch.append((journal, Ranges(ranges.pairs[at : at + RANGES_MAX]), ends))
            if len(batch) >= 4:
                yield Stored(tuple(batch))
                batch = []
    if batch:
        yield Stored(tuple(batch))


def first_ranges(ranges: Ranges, count: int = RANGES_MAX) -> Ranges:
    """As many of the first ranges as a frame may carry; the rest is said when gaps have closed."""
    return ranges if len(ranges.pairs) <= count else Ranges(ranges.pairs[:count])

"""What a peer asks for, in the order of sending.

A queue of messages, the best one first. A message's place is looked up again when its turn comes: with each copy that
others are heard to hold it is worth less, hardly ever more, so the few at the front are all that has to be looked at
(lazy greedy, Minoux 1978).

A peer that lacks a million bundles asks for all of them in one frame. They get their places some at a time, so that
the others of this node are not held up; until then they are not more than ranges.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field

from meshnode.core.errors import RemoteError
from meshnode.core.frames import Rank, Wanted
from meshnode.core.identity import JournalId
from meshnode.core.intervals import NONE, Ranges
from meshnode.core.ledger import Journal, Ledger
from meshnode.core.limits import ASKED_AGAIN_MAX, ASKED_AGAIN_PER_S
from meshnode.core.routing import MessageKey, Order
from meshnode.core.rows import Entry

#: Entries of the queue that were taken back are swept out when they are more than the others and this.
_SWEEP_AFTER = 256
#: Messages whose place is looked up again before a bundle is sent.
_RENEWED_MAX = 8
#: Bundles that are given a place at one event; for one it takes some 20 us.
PLACED_MAX = 512


@dataclass(slots=True)
class _Asked:
    """A message in the queue: where it stands (what else of it is in the queue is out of date), and its bundles in the
    order of sending, the next one last, or none before that is looked up."""

    key: MessageKey
    parts: int
    ready: list[int] = field(default_factory=list)


class Requests:
    """All that one peer asks for."""

    def __init__(self, now_s: float) -> None:
        self._queue: list[MessageKey] = []
        #: Messages in the queue, by journal and first number.
        self._messages: dict[tuple[JournalId, int], _Asked] = {}
        self._queued: dict[JournalId, set[int]] = {}
        #: Asked for, and without a place yet.
        self._unplaced: dict[JournalId, Ranges] = {}
        self._asked_again = 0.0
        self._asked_again_s = now_s

    @property
    def best(self) -> Rank | None:
        """How good the first message of the queue is; None if there is none."""
        return self._queue[0][0] if self._queue else None

    def __len__(self) -> int:
        """Bundles that are asked for."""
        return sum(map(len, self._queued.values())) + sum(map(len, self._unplaced.values()))

    def note(self, row: Wanted, journal: Journal, ledger: Ledger, now_s: float) -> None:
        """The peer asks for some of a journal, and takes back others. Raises RemoteError if it does the one and the
        other for ever."""
        queued = self._queued.setdefault(row.journal, set())
        asked, dropped = row.ranges & journal.on_offer, row.dropped & journal.held
        queued.difference_update(_common(queued, dropped))
        unplaced = self._unplaced.get(row.journal, NONE) - dropped
        new = asked - unplaced - Ranges.of(_common(queued, asked))
        if unplaced or new:
            self._unplaced[row.journal] = unplaced | new
        else:
            self._unplaced.pop(row.journal, None)
        if again := len(dropped) + len(asked) - len(new):
            self._check_asked_again(again, ledger, now_s)

    def place(self, ledger: Ledger, order: Order) -> None:
        """Queue what is asked for, so much at a time that others are not held up."""
        left = PLACED_MAX
        while self._unplaced and left > 0:
            journal_id, ranges = next(iter(self._unplaced.items()))
            journal, some = ledger.journals[journal_id], ranges.head(left)
            left -= len(some)
            entries = {number: entry for number in some if (entry := journal.entries.get(number)) is not None}
            self._queued[journal_id].update(entries)
            for entry in {entry.first: entry for entry in entries.values()}.values():
                self._enqueue(journal, entry, order)
            if rest := ranges - some:
                self._unplaced[journal_id] = rest
            else:
                del self._unplaced[journal_id]
        self._sweep()

    def _enqueue(self, journal: Journal, entry: Entry, order: Order) -> None:
        key = order.of_message(journal, entry)
        asked = self._messages.setdefault(key[-2:], _Asked(key, entry.parts))
        if key <= asked.key:  # it is new, or can become whole only now
            asked.key = key
            heapq.heappush(self._queue, key)

    def _check_asked_again(self, count: int, ledger: Ledger, now_s: float) -> None:
        """A few bytes can ask for everything, or take it back: not for ever."""
        passed_s, self._asked_again_s = now_s - self._asked_again_s, now_s
        self._asked_again = max(0.0, self._asked_again - ASKED_AGAIN_PER_S * passed_s) + count
        if self._asked_again > ASKED_AGAIN_MAX:
            here = sum(len(journal.entries) for journal in ledger.journals.values())
            if self._asked_again > ASKED_AGAIN_MAX + 2 * here:
                raise RemoteError("WANT", "asks for the same again and again")

    def _sweep(self) -> None:
        """A peer that asks and takes back for ever must not make the queue grow."""
        if len(self._queue) > 2 * sum(map(len, self._queued.values())) + _SWEEP_AFTER:
            self._messages = {
                key: asked for key, asked in self._messages.items() if self._is_wanted(*key, asked)
            }
            self._queue = [asked.key for asked in self._messages.values()]
            heapq.heapify(self._queue)

    def _is_wanted(self, journal: JournalId, first: int, asked: _Asked) -> bool:
        queued = self._queued[journal]
        return any(number in queued for number in range(first, first + asked.parts))

    def serve(self, journal: JournalId, number: int) -> None:
        """A bundle is on its way."""
        self._queued[journal].discard(number)

    def front(self, ledger: Ledger, order: Order) -> tuple[JournalId, int] | None:
        """Bring the best message to the front of the queue; its journal and next bundle. None: the queue is
        empty."""
        renewals = _RENEWED_MAX
        while self._queue:
            key = self._queue[0]
            asked = self._messages.get(key[-2:])
            if asked is None or asked.key != key:
                heapq.heappop(self._queue)
                continue
            journal = ledger.journals[key[-2]]
            number = self._next_part(journal, key[-1], asked, order)
            if number is None:
                heapq.heappop(self._queue)
                del self._messages[key[-2:]]
                continue
            renewed = order.of_message(journal, journal.entries[number])
            if renewed <= key or not renewals:
                return key[-2], number
            renewals -= 1
            asked.key = renewed  # others have come to hold it meanwhile
            heapq.heapreplace(self._queue, renewed)
        return None

    def _next_part(self, journal: Journal, first: int, asked: _Asked, order: Order) -> int | None:
        """The next bundle of a message that is still here and wanted."""
        queued = self._queued[journal.id]
        for again in (False, True):
            if again:
                wanted = [number for number in range(first, first + asked.parts) if number in queued]
                asked.ready = order.of_parts(journal, first, wanted)[::-1]
            while asked.ready:
                number = asked.ready[-1]
                entry = journal.entries.get(number)
                # A source that lies may have made it a part of another message meanwhile.
                here = entry is not None and entry.first == first and number not in journal.receipted
                if here and number in queued:
                    return number
                asked.ready.pop()
                queued.discard(number)
        return None


def _common(numbers: set[int], ranges: Ranges) -> list[int]:
    """Those in both, whichever is the larger."""
    if len(numbers) < len(ranges):
        return [number for number in numbers if number in ranges]
    return [number for number in ranges if number in numbers]

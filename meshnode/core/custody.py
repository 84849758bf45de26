"""The messages of this device, and who else holds them (design 1.1: our own copy stays until the office has signed).

A peer's HAVE and STORED tell what it holds of our journals. That is remembered beyond the contact, since it is what
an officer sees: on this device only, carried by N colleagues, safe at the office. A peer that later holds less has
discarded something; what it said last counts. Since when is in the `history`.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass

from meshnode.core.history import HELD, LEFT, History
from meshnode.core.identity import DeviceId, JournalId
from meshnode.core.intervals import NONE, Ranges
from meshnode.core.ledger import Ledger
from meshnode.core.rows import PutCustody, PutMessage, Snapshot

ON_THIS_DEVICE_ONLY = "on_this_device_only"
CARRIED = "carried"
DELIVERED = "delivered"


@dataclass(frozen=True, slots=True)
class MessageState:
    """One message of this device: where it is, and how many other devices hold all of it."""

    message: PutMessage
    state: str
    copies: int


class Custody:
    """All messages that this device has taken, in order, and their holders."""

    def __init__(self, ledger: Ledger, snapshot: Snapshot, history: History) -> None:
        self._ledger = ledger
        self._history = history
        self.messages = list(snapshot.messages)
        self._holders: dict[JournalId, dict[DeviceId, Ranges]] = {}
        self._unsaved: set[tuple[JournalId, DeviceId]] = set()
        for row in snapshot.custody:
            self._holders.setdefault(row.journal, {})[row.peer] = row.ranges

    def note(self, journal_id: JournalId, peer: DeviceId, ranges: Ranges) -> None:
        """`peer` says that it holds just these of a journal; of no interest unless the journal is ours."""
        journal = self._ledger.journals.get(journal_id)
        if journal is None or not self._ledger.is_mine(journal):
            return
        holders = self._holders.setdefault(journal_id, {})
        ranges = ranges & journal.held
        before = holders.get(peer, NONE)
        if before != ranges:
            holders[peer] = ranges
            self._unsaved.add((journal_id, peer))
            self._history.now(journal_id, HELD, peer, ranges - before, mine=True)
            self._history.now(journal_id, LEFT, peer, before - ranges - journal.receipted, mine=True)

    def holders(self, message: PutMessage) -> dict[DeviceId, Ranges]:
        """Who holds how much of a message, as each has said last."""
        span = Ranges.span(message.first, message.last)
        holders = self._holders.get(message.journal, {})
        return {peer: part for peer, ranges in sorted(holders.items()) if (part := ranges & span)}

    def whole(self, peer: DeviceId, journals: Container[JournalId]) -> None:
        """`peer` holds bundles of just these journals: nothing of the others, whatever it said once."""
        for journal_id, holders in self._holders.items():
            if peer in holders and journal_id not in journals:
                self.note(journal_id, peer, NONE)

    @property
    def has_unsaved(self) -> bool:
        """Whether `unsaved` has something to say."""
        return bool(self._unsaved)

    def unsaved(self) -> Iterator[PutCustody]:
        """What has changed since this was last asked."""
        for journal, peer in sorted(self._unsaved):
            yield PutCustody(journal, peer, self._holders[journal][peer])
        self._unsaved.clear()

    def states(self) -> Iterator[MessageState]:
        """Every message, in the order of submission."""
        return map(self.state_of, self.messages)

    def state_of(self, message: PutMessage) -> MessageState:
        """One of them."""
        journal = self._ledger.journals.get(message.journal)
        holders = self._holders.get(message.journal, {})
        copies = sum(1 for ranges in holders.values() if ranges.covers(message.first, message.last))
        if journal is not None and journal.receipted.covers(message.first, message.last):
            state = DELIVERED
        else:
            state = CARRIED if copies else ON_THIS_DEVICE_ONLY
        return MessageState(message, state, copies)

"""What nobody can make a node use up: its disk, its memory, the air time, and the patience of a disk that fails.

Limits come from `core.limits`; what is not fixed there, since no code needs it, is fixed here.
"""

from __future__ import annotations

from collections import Counter, deque
from typing import Final

from meshnode.core.identity import JournalId
from meshnode.core.limits import (
    CONTACTS_MAX,
    CREDIT_BYTES,
    FRAME_SIZE_MAX,
    JOURNALS_PER_FRAME,
    PAYLOAD_SIZE_MAX,
    PEER_JOURNALS_MAX,
    PEER_RANGES_MAX,
    SEND_AHEAD_BYTES,
)
from meshnode.core.ports import Effect, Event, Lost, Received, Send, SendBundle, WriteFailed
from meshnode.core.rows import PutBundle, Row
from meshnode.sim.judges.judge import Judge, name_of
from meshnode.sim.machine import Machine
from meshnode.sim.truth import Truth

#: Frames that wait at one end of a channel: what a peer that reads nothing makes its partner remember.
WAITING_BYTES_MAX: Final = 16 * FRAME_SIZE_MAX
#: Names of journals that one peer may make a node remember.
PEER_NAMES_MAX: Final = 4 * PEER_JOURNALS_MAX
#: What costs more is looked at once in so many times.
_SELDOM: Final = 16
#: How often one bundle may be sent in one contact: room comes and goes.
REPEATS_MAX: Final = 3
#: How often a disk that fails may be tried within a minute: by contacts, receipts and programs.
FAILURES_MAX: Final = 300


class Room(Judge):
    """Others' bundles stay within the quota, and nothing goes below the floor."""

    def committed(self, machine: Machine, rows: list[Row]) -> None:
        """After each commit that adds something."""
        if not any(isinstance(row, PutBundle) for row in rows):
            return
        shelf = self.truth.shelves[machine.name]
        quota = machine.hardware.foreign_quota_bytes
        if shelf.foreign_bytes > quota:
            raise self.broken(f"{machine.name} carries {shelf.foreign_bytes} bytes, its quota is {quota}")
        floor = machine.hardware.floor_bytes
        if machine.free_bytes < floor and machine.name not in self.truth.squeezed:
            raise self.broken(f"{machine.name} leaves {machine.free_bytes} bytes free, its floor is {floor}")


class Bounds(Judge):
    """Frames, credit and what a peer can make a node remember stay within their limits."""

    def __init__(self, truth: Truth) -> None:
        super().__init__(truth)
        self._looks = 0

    def effect(self, machine: Machine, effect: Effect) -> None:
        """No frame is too large."""
        if isinstance(effect, Send) and len(effect.data) > FRAME_SIZE_MAX + 4:
            raise self.broken(f"{machine.name} sends a frame of {len(effect.data)} bytes")

    def handled(self, machine: Machine, event: Event) -> None:
        """No contact takes more than its share."""
        if not isinstance(event, Received):
            return
        state = machine.running.state
        contact = state.contacts.get(event.contact)
        if contact is None:
            return
        self._looks += 1
        bounds = {
            "contacts": (len(state.contacts), CONTACTS_MAX),
            "bytes in the link": (contact._in_link_bytes, SEND_AHEAD_BYTES + PAYLOAD_SIZE_MAX),
            "credit": (contact._credit_told - contact.settled_bytes, CREDIT_BYTES),
            "unsettled bytes": (contact.received_bytes - contact.settled_bytes, CREDIT_BYTES),
            "bytes of a frame": (len(contact._reader._held), FRAME_SIZE_MAX + 4),
            "journals": (len(contact.offers), PEER_JOURNALS_MAX),
        }
        if self._looks % _SELDOM == 0 or len(event.data) > PAYLOAD_SIZE_MAX // 8:
            held = sum(len(journal.held | journal.receipted) for journal in state.ledger.journals.values())
            bounds["requests"] = (len(contact.requests), held + JOURNALS_PER_FRAME)
            bounds["ranges"] = (sum(len(ranges.pairs) for ranges in contact.offers.values()), PEER_RANGES_MAX)
            bounds["names"] = (len(contact.serials) + len(contact.listed), PEER_NAMES_MAX)
            bounds["rooms"] = (state.landing_bytes, len(state.contacts) * CREDIT_BYTES)
        if end := machine.ends.get(event.contact):
            bounds["bytes that wait"] = (end.waiting_bytes, WAITING_BYTES_MAX)
        for what, (value, limit) in bounds.items():
            if not 0 <= value <= limit:
                raise self.broken(f"{machine.name} has {value} {what} of {contact.peer.name}, limit {limit}")


class Thrift(Judge):
    """No bundle is sent over and over again in one contact, and a broken disk is not hammered."""

    def __init__(self, truth: Truth) -> None:
        super().__init__(truth)
        self._failures: dict[str, deque[float]] = {}
        self._sent: dict[tuple[str, int], Counter[tuple[JournalId, int]]] = {}

    def effect(self, machine: Machine, effect: Effect) -> None:
        """Not for the fourth time."""
        if not isinstance(effect, SendBundle) or effect.contact not in machine.ends:
            return
        receiver = machine.ends[effect.contact].across.party
        assert isinstance(receiver, Machine)
        if receiver.name in self.truth.hostile:
            return
        sent = self._sent.setdefault((machine.name, effect.contact), Counter())
        sent[effect.journal, effect.number] += 1
        broken = receiver.name in self.truth.forgetful  # its disk: it may try again now and then
        if sent[effect.journal, effect.number] > (10 if broken else 1) * REPEATS_MAX:
            what = f"{name_of(effect.journal)}:{effect.number}"
            raise self.broken(f"{machine.name} sends {what} to {receiver.name} again and again")

    def handled(self, machine: Machine, event: Event) -> None:
        """Forget what was sent in a contact that is over; count what fails."""
        if isinstance(event, Lost):
            self._sent.pop((machine.name, event.contact), None)
        elif isinstance(event, WriteFailed):
            failures = self._failures.setdefault(machine.name, deque(maxlen=FAILURES_MAX))
            if len(failures) == FAILURES_MAX and machine.engine.now_s - failures[0] < 60.0:
                raise self.broken(
                    f"{machine.name} tries to write {FAILURES_MAX} times within a minute, in vain"
                )
            failures.append(machine.engine.now_s)

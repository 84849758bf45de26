"""The brain of a node: `handle(event, now) -> effects`, and nothing else.

It owns no socket, no disk and no clock, so a fleet of them runs in one process on virtual time. The decisions are
made by its parts, each of which can be read alone:

    state       what the parts share                  ledger      what is held and receipted
    meeting     contacts that open and end            contact     one contact's protocol state
    knowing     holdings, receipts, fleet documents   custody     where this device's messages are
    landing     bundles that come in                  fetching    which bundle is asked of whom
    history     what happened to bundles, and when    book        the sums of an office's days
    bringing    what is brought by hand
    taking      messages of this device               submitting  how they become journals
    dialing     whom to dial, and when                routing     the order of sending, and of discarding

This module only lets them talk. Two rules hold everything together:

1. Nothing is acknowledged before it is durable. STORED, `Accepted` and a receipt of our own are emitted when
   `Written` names the write that holds them, never earlier.
2. Whatever changes what we hold is told to every contact, so a chain of nodes pipelines: STORED when it grows, HAVE
   when it shrinks, RECEIPT when it is delivered, FLEET when the fleet changes.
"""

from __future__ import annotations

from typing import assert_never

from meshnode.core.bringing import Bringing, Tally
from meshnode.core.contact import Contact
from meshnode.core.dialing import CONFIGURED
from meshnode.core.errors import RemoteError
from meshnode.core.fleet import read_document
from meshnode.core.frames import (
    BundleFrame,
    Bye,
    Cert,
    Finished,
    Fleet,
    Frame,
    Have,
    Heard,
    Hello,
    Next,
    Ping,
    Pong,
    ReceiptFrame,
    Stored,
    Want,
)
from meshnode.core.identity import JournalId, read_certificate
from meshnode.core.intervals import NONE
from meshnode.core.knowing import Knowing
from meshnode.core.landing import Landings
from meshnode.core.ledger import Journal
from meshnode.core.limits import HOUSEKEEPING_S, KEEP_RECEIPTED_S, PAYLOAD_SIZE_MAX, STORE_REST_S
from meshnode.core.meeting import Meeting
from meshnode.core.ports import (
    Brought,
    Close,
    Dial,
    DialFailed,
    DocumentGiven,
    Effect,
    Event,
    Gateways,
    Instant,
    Lost,
    NetworkChanged,
    Opened,
    Received,
    Sent,
    Sighted,
    Space,
    SubmissionAborted,
    SubmissionChunk,
    SubmissionOpened,
    Taken,
    Tick,
    Token,
    Unreadable,
    WriteFailed,
    Written,
)
from meshnode.core.receipt import Receipt, read_receipt
from meshnode.core.rows import DropBundles, Entry, PutClock, Row, Snapshot
from meshnode.core.state import Identity, Landing, Pending, Settings, State
from meshnode.core.submitting import Submitting, remains
from meshnode.core.taking import Taking


class Node:
    """One node. Events come one at a time; `state` may be read between them, never written."""

    def __init__(self, identity: Identity, settings: Settings, snapshot: Snapshot, now: Instant) -> None:
        self._torn = remains(snapshot)
        self.state = state = State(identity, settings, snapshot, now)
        self._meeting = Meeting(state)
        self._knowing = Knowing(state)
        self._landing = Landings(state, self._knowing)
        self._bringing = Bringing(state, self._meeting, self._knowing, self._landing)
        self._taking = Taking(state, Submitting(identity.key, settings.epoch, snapshot, settings.sealer_for))
        self._housekeeping_s = now.s
        for row in snapshot.addresses:
            state.dialing.remember(row.address, row.device, row.at_s)
        state.dialing.replace(CONFIGURED, settings.peers, now.s)
        self._knowing.dial_offices()

    # --- the door -----------------------------------------------------------------------------------------------

    def start(self, now: Instant) -> list[Effect]:
        """What is to be done before the first event."""
        state = self.state
        state.begin(now)
        rows: list[Row] = list(self._torn)
        rows.extend(  # what a disk would not let go of before
            DropBundles(journal.id, state.ledger.drop(journal, late))
            for journal in state.ledger.journals.values()
            if (late := state.ledger.held_in_vain(journal))
        )
        if rows:
            state.write(tuple(rows))
        self._taking.introduce()
        return state.effects

    def handle(self, event: Event, now: Instant) -> list[Effect]:
        """What follows from `event` at `now`. The effects are to be carried out in their order."""
        self.state.begin(now)
        self._take(event)
        self._settle()
        return self.state.effects

    def brought(self) -> Tally | None:
        """What became of all that was brought by hand last; None while any of that is on its way to the disk."""
        return self._bringing.result()

    def receipt_of(self, journal: Journal) -> Receipt | None:
        """The newest receipt of a journal that may be given away: it is durable."""
        return self._knowing.presentable(journal)

    def next_tick_s(self) -> float:
        """When the next `Tick` is of use, if nothing happens before."""
        state = self.state
        at_s = self._housekeeping_s + HOUSEKEEPING_S
        due_s = state.dialing.next_due_s(state.connected) if state.dialing.addresses else None
        if due_s is not None:
            at_s = min(at_s, due_s)
        soon_s = state.now.s + 1.0
        if state.rests_until_s:
            at_s = min(at_s, state.rests_until_s)
        if state.custody.has_unsaved or self._knowing.has_failed:
            at_s = min(at_s, soon_s)
        if state.history.due_s is not None:
            at_s = min(at_s, max(soon_s, state.history.due_s))
        for contact in state.contacts.values():
            at_s = min(at_s, contact.next_look_s())
            if contact.holds_until_s > state.now.s:
                at_s = min(at_s, contact.holds_until_s)
            if contact.wanting:
                at_s = min(at_s, max(soon_s, contact.stalls_s))
        return at_s

    def _take(self, event: Event) -> None:  # noqa: C901 - one line an event, and mypy sees that none is missing
        state = self.state
        match event:
            case Received():
                self._received(event)
            case Sent():
                self._sent(event)
            case Written():
                self._written(event)
            case WriteFailed():
                self._write_failed(event)
            case Tick():
                self._tick()
            case Opened():
                self._meeting.opened(event)
            case Lost():
                self._meeting.lost(event.contact, event.reason)
            case Unreadable():
                self._landing.unreadable(event)
            case Sighted():
                state.dialing.note(event.address, event.device, event.source, state.now.s)
            case Gateways():
                hosts_met = {contact.address.rpartition(":")[0] for contact in state.contacts.values()}
                state.dialing.find_gateways(event.addresses, hosts_met, state.now.s)
            case DialFailed():
                state.dialing.failed(event.address, state.now.s)
            case NetworkChanged():
                state.dialing.network_changed(state.now.s)
                # A peer that has given us up meanwhile answers with the end of the connection.
                state.effects.extend(contact.ping(state.now.s) for contact in state.greeted)
            case SubmissionOpened():
                self._taking.opened(event)
            case SubmissionChunk():
                self._taking.chunk(event)
            case SubmissionAborted():
                self._taking.aborted(event)
            case Taken():
                self._knowing.deliver(event.journal, event.ranges)
            case DocumentGiven():
                self._knowing.adopt(event.document)
                self._meeting.end_revoked()
            case Brought():
                self._bringing.take(event)
            case Space():
                self._space(event)
            case _:
                assert_never(event)

    def _settle(self) -> None:
        """Decide what follows from all that has changed: dial, ask, send."""
        state = self.state
        if state.dialing.addresses:
            state.effects.extend(map(Dial, state.dialing.due(state.now.s, state.connected)))
        for number in sorted(state.to_ask):
            if contact := state.contacts.get(number):
                self._ask(contact)
        state.to_ask.clear()
        for number in sorted(state.to_pump):
            if contact := state.contacts.get(number):
                order = state.order(contact)
                state.effects.extend(contact.pump(state.ledger, state.certificates, order, state.now.s))
        state.to_pump.clear()

    def _ask(self, contact: Contact) -> None:
        """Ask a contact for what it has and nobody else was asked for; if that is nothing, help another out."""
        state = self.state
        if contact.hello is None or state.now.s < state.rests_until_s:
            return
        now_s, room = state.now.s, state.room_bytes
        rows = state.fetching.ask(
            contact,
            state.certificates,
            state.foreign_room_bytes,
            room,
            now_s,
            farther=state.is_farther(contact),
        )
        if not rows and not contact.wanting:
            others = [other for other in state.contacts.values() if other.wanting]
            if taken := state.fetching.take_over(contact, others, state.certificates, now_s):
                row, other, withdrawn = taken
                rows = [row]
                state.effects.extend(filter(None, [other.want([withdrawn], room, now_s)]))
        if want := contact.want(rows, room, now_s):
            state.effects.append(want)

    # --- bytes of a contact -------------------------------------------------------------------------------------

    def _received(self, event: Received) -> None:
        contact = self.state.contacts.get(event.contact)
        if contact is None:
            return
        rows: list[Row] = []
        landings: list[Landing] = []
        try:
            for frame in contact.feed(event.data, self.state.now.s):
                if isinstance(frame, BundleFrame):
                    self._landing.bundle(contact, frame, rows, landings)
                else:
                    self._frame(contact, frame)
                if contact.number not in self.state.contacts:
                    break
        except RemoteError as problem:
            self._meeting.fault(contact, problem)
        if rows:
            rows.extend(self.state.history.due())
            self.state.write(tuple(rows), Pending(landings))

    def _frame(self, contact: Contact, frame: Frame) -> None:  # noqa: C901 - one case a frame, and mypy sees all
        state = self.state
        authority = state.identity.authority
        match frame:
            case Hello():
                if self._meeting.greeted(contact, frame):
                    self._knowing.tell_all(contact)
            case Fleet():
                self._knowing.adopt(read_document(frame.body, frame.signature, authority))
                self._meeting.end_revoked()
            case Have():
                self._knowing.have(contact, frame)
            case ReceiptFrame():
                self._knowing.receipt(contact, read_receipt(frame.body, frame.signature))
            case Cert():
                self._knowing.certificate(read_certificate(frame.der, authority))
            case Want():
                contact.note_want(frame, state.ledger, state.order(contact))
                state.to_pump.add(contact.number)
            case Stored():
                self._knowing.stored(contact, frame)
            case Ping():
                state.say(contact, Pong())
            case Pong():
                pass  # that it came is all it says
            case Bye():
                state.effects.append(Close(contact.number, frame.reason))
                self._meeting.lost(contact.number, f"the peer said {frame.reason!r}")
            case Finished():
                self._knowing.finished(contact, frame)
            case Next():
                contact.note_next(frame)
                state.to_pump.add(contact.number)
            case Heard():
                self._knowing.heard(contact, frame)
            case BundleFrame():
                raise AssertionError("bundles are taken in _received, where their writes are gathered")
            case _:
                assert_never(frame)

    def _sent(self, event: Sent) -> None:
        if contact := self.state.contacts.get(event.contact):
            contact.note_sent(event.size, self.state.now.s)
            self.state.to_pump.add(event.contact)

    # --- the store ----------------------------------------------------------------------------------------------

    def _written(self, event: Written) -> None:
        state = self.state
        state.store_problem = None
        grown: dict[JournalId, dict[int, Entry]] = {}
        receipts: list[Receipt] = []
        for token in event.tokens:
            pending = state.written(token)
            for landing in pending.landings:
                grown.setdefault(landing.journal.id, {})[landing.number] = landing.entry
                self._landing.written(landing)
            if pending.submission is not None:
                self._taking.written(pending.submission, pending.final, grown)
            receipts.extend(pending.receipts)
        self._landing.landed(grown)
        self._knowing.written(receipts)
        self._bringing.written(event.tokens)

    def _write_failed(self, event: WriteFailed) -> None:
        state = self.state
        state.rest(STORE_REST_S)
        state.store_problem = event.problem
        state.log(str(event.problem))
        tokens: tuple[Token, ...] = event.tokens
        for token in tokens:
            pending = state.written(token)
            self._landing.failed(pending.landings)
            self._knowing.failed(pending.receipts)
            state.undropped.extend(pending.drops)
            if pending.submission is not None:
                self._taking.failed(pending.submission, event.problem)
        self._bringing.failed(tokens)

    # --- time and space -----------------------------------------------------------------------------------------

    def _space(self, event: Space) -> None:
        state = self.state
        on_its_way = state.unwritten_bytes + self._taking.waiting_bytes  # which the disk does not know of yet
        free_bytes = event.free_bytes - on_its_way
        grown_bytes = free_bytes - state.free_bytes
        state.free_bytes, state.floor_bytes = free_bytes, event.floor_bytes
        if grown_bytes > 0:
            state.room_grew()
        if grown_bytes >= PAYLOAD_SIZE_MAX or state.rests_until_s <= state.now.s:
            self._go_on()  # it was full, and is not any more

    def _go_on(self) -> None:
        """The disk is to be tried again, if it failed at all."""
        state = self.state
        if state.rests_until_s:
            state.rests_until_s = 0.0
            state.room_grew()
        if state.undropped and state.room_bytes >= PAYLOAD_SIZE_MAX and not self._taking.is_busy:
            self._drop_again()

    def _drop_again(self) -> None:
        """Let go of what the disk would not let go of; numbers that are in use again since are not meant any more."""
        state = self.state
        undropped, state.undropped = state.undropped, []
        for drop in undropped:
            journal = state.ledger.journals.get(drop.journal)
            used = state.fetching.landing.get(drop.journal, NONE) | (journal.held if journal else NONE)
            if left := drop.ranges - used:
                state.write((DropBundles(drop.journal, left),))

    def _tick(self) -> None:
        state = self.state
        if state.rests_until_s <= state.now.s:
            self._go_on()
        self._meeting.tick()
        self._knowing.tick()
        self._taking.introduce()
        if rows := (*state.custody.unsaved(), *state.history.unsaved()):
            state.write(rows)
        if state.now.s >= self._housekeeping_s + HOUSEKEEPING_S:  # the very sum that `next_tick_s` names
            self._housekeeping_s = state.now.s
            self._keep_house()

    def _keep_house(self) -> None:
        """Discard what has expired, let go of own bundles delivered long ago, forget who holds what is not here
        any more."""
        state = self.state
        offered = {journal for contact in state.contacts.values() for journal in contact.offers}
        state.holders.keep(offered | {held.journal for held in state.ledger.offers()})
        rows: list[Row] = []
        for journal, ranges in list(state.ledger.expired(state.now.s)):
            self._landing.discard(journal, ranges, rows)
        rows.extend(
            DropBundles(journal.id, state.ledger.drop(journal, old))
            for journal in state.ledger.journals.values()
            if (old := state.ledger.outlived(journal, state.now.s - KEEP_RECEIPTED_S))
        )
        state.write((*rows, PutClock()))

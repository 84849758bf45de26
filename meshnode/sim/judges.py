"""Judges: they stand outside the nodes, see every effect and every commit, and know what really happened.

Each holds the fleet to one promise, at every step and at the moment when it would be broken, so that the first broken
promise of a run is near its cause. They are incremental: what they ask of a step does not depend on how long the run
has been going on. What can only be demanded once everything is healed is in `liveness`.

A judge overrides what it needs of `Judge`; `Bench` calls nobody in vain, and keeps the `Truth` up to date first.
"""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from typing import Final

from meshnode.core.errors import RemoteError
from meshnode.core.frames import Frame, FrameReader, Have, ReceiptFrame, Stored
from meshnode.core.identity import JournalId
from meshnode.core.intervals import NONE, Ranges
from meshnode.core.ledger import Journal
from meshnode.core.limits import (
    CONTACTS_MAX,
    CREDIT_BYTES,
    FRAME_SIZE_MAX,
    HOUSEKEEPING_S,
    JOURNALS_PER_FRAME,
    PAYLOAD_SIZE_MAX,
    PEER_JOURNALS_MAX,
    PEER_RANGES_MAX,
    SEND_AHEAD_BYTES,
)
from meshnode.core.message import Manifest, parts_for, stream_head
from meshnode.core.ports import (
    Accepted,
    DropBundles,
    Effect,
    Event,
    Log,
    Lost,
    PutBundle,
    PutReceipt,
    Received,
    Refused,
    Row,
    Send,
    SendBundle,
    WriteFailed,
)
from meshnode.core.receipt import read_receipt
from meshnode.office.sinks import Envelope
from meshnode.sim.machine import Machine
from meshnode.sim.truth import BrokenPromise, Truth

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
#: An age is a whole number of seconds at each hop.
ROUNDING_S: Final = 1.0
#: Kinds of frames that claim something (`core.frames`); any frame has its kind in its sixth byte.
_CLAIMS: Final = frozenset((3, 4, 8))


class Judge:
    """Holds the fleet to one promise. Raises BrokenPromise."""

    def __init__(self, truth: Truth) -> None:
        self.truth = truth

    def effect(self, machine: Machine, effect: Effect) -> None:
        """An honest machine is about to do this."""

    def said(self, machine: Machine, frame: Frame) -> None:
        """An honest machine says this HAVE, STORED or RECEIPT."""

    def committed(self, machine: Machine, rows: list[Row]) -> None:
        """An honest machine has these on its disk now."""

    def handled(self, machine: Machine, event: Event) -> None:
        """An honest machine has handled this."""

    def booted(self, machine: Machine) -> None:
        """An honest machine is on."""

    def taken(self, envelope: Envelope, manifest: Manifest, files: list[bytes]) -> None:
        """The sink has taken this, as the truth has it already."""

    def broken(self, text: str) -> BrokenPromise:
        """What to raise."""
        return BrokenPromise(type(self).__name__, text)


class Custody(Judge):
    """What a device has acknowledged stays on it until the office has signed for it."""

    def __init__(self, truth: Truth) -> None:
        super().__init__(truth)
        self.kept: dict[str, dict[JournalId, Ranges]] = {}

    def effect(self, machine: Machine, effect: Effect) -> None:
        """Accepted: from now on."""
        if isinstance(effect, Accepted):
            journal, first = split_key(effect.key)
            kept = self.kept.setdefault(machine.name, {})
            kept[journal] = kept.get(journal, NONE) | Ranges.span(first, first + effect.bundles - 1)

    def committed(self, machine: Machine, rows: list[Row]) -> None:
        """Nothing of it is dropped."""
        kept = self.kept.get(machine.name)
        if kept and any(isinstance(row, DropBundles) and row.journal in kept for row in rows):
            self._check(machine, kept, "dropped")

    def handled(self, machine: Machine, event: Event) -> None:
        """The node does not forget it either."""
        kept = self.kept.get(machine.name)
        if not kept:
            return
        ledger = machine.running.state.ledger
        for journal_id, ranges in list(kept.items()):
            left = ranges - self.truth.signed.get(journal_id, NONE)
            if not left:
                del kept[journal_id]
                continue
            kept[journal_id] = left
            left -= self.truth.robbed.get((machine.name, journal_id), NONE)
            held = ledger.journals.get(journal_id, Journal(journal_id)).held
            if not left <= held:
                raise self.broken(f"{machine.name} no longer knows its {name_of(journal_id)}: {left - held}")

    def booted(self, machine: Machine) -> None:
        """It has outlived the night."""
        self._check(machine, self.kept.get(machine.name, {}), "lost")

    def _check(self, machine: Machine, kept: dict[JournalId, Ranges], how: str) -> None:
        for journal_id, ranges in kept.items():
            owed = ranges - self.truth.signed.get(journal_id, NONE)
            owed -= self.truth.robbed.get((machine.name, journal_id), NONE)
            missing = owed - self.truth.shelves[machine.name].of(journal_id)
            if missing:
                raise self.broken(f"{machine.name} has {how} its own {name_of(journal_id)}: {missing}")


class Answers(Judge):
    """A program is told that its message is safe only when it is, and each one is told one thing."""

    def effect(self, machine: Machine, effect: Effect) -> None:
        """Accepted after the commit; refused once and for all."""
        if isinstance(effect, Accepted):
            journal, first = split_key(effect.key)
            span = Ranges.span(first, first + effect.bundles - 1)
            shelf = self.truth.shelves[machine.name]
            if not span <= shelf.of(journal):
                raise self.broken(f"{machine.name} accepts {name_of(journal)}: {span} and has not written it")
            if not span <= shelf.messages.get(journal, NONE):
                raise self.broken(
                    f"{machine.name} accepts {name_of(journal)}: {span}, no message after a crash"
                )
            if effect.key in self.truth.by_key:
                raise self.broken(f"{machine.name} gives the key {effect.key} to two messages")
            self.truth.accept(machine, effect.submission, effect.key, journal, span.pairs[0])
        elif isinstance(effect, Refused):
            self.truth.by_number[machine.name, effect.submission].denied = True


class Sink(Judge):
    """Each message reaches the sink once, under one key, unaltered, and only where it was meant to go."""

    def taken(self, envelope: Envelope, manifest: Manifest, files: list[bytes]) -> None:
        """It is what was submitted."""
        truth = self.truth
        if truth.names[envelope.source_id] in truth.hostile:
            return
        what = f"{envelope.key[:6]}{envelope.key[32:]} of {envelope.source}"
        submitted = truth.submitted.get(manifest.reference)
        if submitted is None or submitted.source != envelope.source:
            raise self.broken(f"{what} was submitted by nobody")
        gone = submitted.number in truth.machines[submitted.source].programs.given_up
        if submitted.denied or gone:
            raise self.broken(f"{what} reaches the sink, and its program was told that it was not taken")
        stream = stream_head(manifest) + b"".join(files)
        if hashlib.sha256(stream).digest() != submitted.stream_sha256:
            raise self.broken(f"{what} was altered")
        if submitted.delivered_as is not None:
            raise self.broken(f"{what} reaches the sink again, after {submitted.delivered_as}")
        if submitted.key is not None and submitted.key != envelope.key:
            raise self.broken(f"{what} was acknowledged as {submitted.key}")
        submitted.delivered_as = envelope.key


class Receipts(Judge):
    """A receipt never covers what the sink has not taken, and is passed on only when it is durable."""

    def committed(self, machine: Machine, rows: list[Row]) -> None:
        """What is kept is true."""
        for row in rows:
            if isinstance(row, PutReceipt):
                untrue = row.receipt.ranges - self.truth.taken.get(row.receipt.journal, NONE)
                if untrue:
                    journal = name_of(row.receipt.journal)
                    raise self.broken(f"{machine.name} keeps a receipt of {journal}: {untrue}, never taken")

    def said(self, machine: Machine, frame: Frame) -> None:
        """What is said is kept."""
        if isinstance(frame, ReceiptFrame):
            receipt = read_receipt(frame.body, frame.signature)
            known = self.truth.shelves[machine.name].receipted.get(receipt.journal, NONE)
            if not receipt.ranges <= known:
                journal = name_of(receipt.journal)
                raise self.broken(f"{machine.name} passes on a receipt of {journal} that it has not written")


class Claims(Judge):
    """STORED and HAVE name only what is on the disk; of its own a node tells only whole messages."""

    def said(self, machine: Machine, frame: Frame) -> None:
        """All that is named is there."""
        if isinstance(frame, Have):
            for held in frame.journals:
                self._check(machine, held.journal, held.ranges)
        elif isinstance(frame, Stored):
            for journal, ranges in frame.journals:
                self._check(machine, journal, ranges)

    def _check(self, machine: Machine, journal: JournalId, ranges: Ranges) -> None:
        shelf = self.truth.shelves[machine.name]
        absent = ranges - shelf.of(journal)
        if absent:
            raise self.broken(f"{machine.name} claims to hold {name_of(journal)}: {absent}")
        if journal in shelf.messages or self.truth.is_own(machine, journal):
            torn = ranges - shelf.messages.get(journal, NONE)
            if torn:
                raise self.broken(f"{machine.name} tells of {name_of(journal)}: {torn}, which is no message")


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
            bounds["requests"] = (sum(map(len, contact._queued.values())), held + JOURNALS_PER_FRAME)
            bounds["ranges"] = (sum(len(ranges.pairs) for ranges in contact.offers.values()), PEER_RANGES_MAX)
            bounds["names"] = (len(contact.serials) + len(contact.listed), PEER_NAMES_MAX)
            bounds["rooms"] = (state.landing_bytes, len(state.contacts) * CREDIT_BYTES)
        if end := machine.ends.get(event.contact):
            bounds["bytes that wait"] = (end.waiting_bytes, WAITING_BYTES_MAX)
        for what, (value, limit) in bounds.items():
            if not 0 <= value <= limit:
                raise self.broken(f"{machine.name} has {value} {what} of {contact.peer.name}, limit {limit}")


class Manners(Judge):
    """No honest node breaks the protocol, whatever it met before."""

    def effect(self, machine: Machine, effect: Effect) -> None:
        """Nobody honest is accused."""
        if isinstance(effect, Log):
            accused, said, _ = effect.text.partition(" broke the protocol: ")
            if said and accused not in self.truth.hostile:
                raise self.broken(f"{machine.name} says: {effect.text}")


class Membership(Judge):
    """Nothing is given to a device that its carrier knows to be revoked."""

    def effect(self, machine: Machine, effect: Effect) -> None:
        """From the moment on when it knows."""
        if isinstance(effect, SendBundle) and effect.contact in machine.ends:
            receiver = machine.ends[effect.contact].across.party
            assert isinstance(receiver, Machine)
            if receiver.device in machine.running.state.document.revoked:
                raise self.broken(f"{machine.name} sends a bundle to {receiver.name}, which is revoked")


class Originals(Judge):
    """One number is one bundle, for ever; and what carriers keep is what its source signed."""

    def __init__(self, truth: Truth) -> None:
        super().__init__(truth)
        self._known: set[tuple[JournalId, int]] = set()

    def effect(self, machine: Machine, effect: Effect) -> None:
        """From now on others know it."""
        if isinstance(effect, SendBundle):
            self._known.add((effect.journal, effect.number))

    def committed(self, machine: Machine, rows: list[Row]) -> None:
        """It is what it was."""
        for row in rows:
            if isinstance(row, PutBundle):
                self._check(machine, row)

    def _check(self, machine: Machine, row: PutBundle) -> None:
        header = row.bundle.header
        source = self.truth.names[header.source]
        place = row.journal, header.number
        if source in self.truth.hostile:
            certificate = self.truth.machines[source].identity.certificate
            try:
                row.bundle.verify(certificate.key)
            except RemoteError as problem:
                raise self.broken(f"{machine.name} keeps of {source} what is false: {problem}") from None
            return
        original = self.truth.written.get(place)
        if source == machine.name and place not in self._known:
            self.truth.written[place] = row.bundle
        elif original is None or row.bundle != original:
            raise self.broken(
                f"{machine.name} keeps as {name_of(row.journal)}:{header.number} what is not it"
            )


class Ages(Judge):
    """A bundle ages on its way by as long as its carriers are on, and others' are not carried beyond their lifetime."""

    def __init__(self, truth: Truth) -> None:
        super().__init__(truth)
        self._kept: dict[tuple[str, JournalId, int], tuple[float, float, int]] = {}
        self._told: dict[tuple[str, JournalId, int], int] = {}
        self._looked_s: dict[str, float] = {}

    def effect(self, machine: Machine, effect: Effect) -> None:
        """What is told is no less than it is."""
        if not isinstance(effect, SendBundle):
            return
        age_s = self._true_age_s(machine, effect)
        if effect.age_s < age_s - ROUNDING_S:
            what = f"{name_of(effect.journal)}:{effect.number}"
            raise self.broken(f"{machine.name} says that {what} is {effect.age_s} s old, it is {age_s:.0f}")
        if end := machine.ends.get(effect.contact):
            receiver = end.across.party
            assert isinstance(receiver, Machine)
            place = receiver.name, effect.journal, effect.number
            self._told[place] = min(effect.age_s, self._told.get(place, effect.age_s))

    def _true_age_s(self, machine: Machine, effect: SendBundle) -> float:
        """Less what its clock may lose at each start: as much as passes between two rounds of housekeeping."""
        kept = self._kept.get((machine.name, effect.journal, effect.number))
        if kept is None or machine.name in self.truth.forgetful:
            return 0.0
        age_s, on_s, boots = kept
        return (
            age_s
            + machine.on_s
            - on_s
            - (machine.boots - boots) * (HOUSEKEEPING_S + machine.hardware.commit_s)
        )

    def committed(self, machine: Machine, rows: list[Row]) -> None:
        """What is kept is no younger than what was told."""
        for row in rows:
            if isinstance(row, PutBundle):
                place = machine.name, row.journal, row.bundle.header.number
                age_s = machine.now().s - row.born_s
                if age_s < self._told.get(place, 0) - ROUNDING_S and not self.truth.hostile:
                    raise self.broken(
                        f"{machine.name} keeps {name_of(row.journal)}:{place[2]} as younger than told"
                    )
                self._kept[place] = age_s, machine.on_s, machine.boots

    def handled(self, machine: Machine, event: Event) -> None:
        """Now and then: nothing has outlived its lifetime by more than two rounds of housekeeping."""
        now_s = machine.now().s
        if now_s - self._looked_s.get(machine.name, 0.0) < HOUSEKEEPING_S:
            return
        self._looked_s[machine.name] = now_s
        for journal in machine.running.state.ledger.journals.values():
            if journal.source is None or journal.source == machine.device or machine.identity.office:
                continue
            for number, entry in journal.entries.items():
                over_s = now_s - entry.born_s - entry.lifetime_s
                if over_s > 2 * HOUSEKEEPING_S:
                    what = f"{name_of(journal.id)}:{number}"
                    raise self.broken(f"{machine.name} carries {what}, expired {over_s:.0f} s ago")


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


JUDGES: Final = (
    Custody,
    Answers,
    Sink,
    Receipts,
    Claims,
    Room,
    Bounds,
    Manners,
    Membership,
    Originals,
    Ages,
    Thrift,
)


class Bench:
    """All judges of a run: a witness of every machine, and of the sink."""

    def __init__(self, truth: Truth) -> None:
        self.truth = truth
        #: Bundles that honest machines have sent.
        self.bundles_sent = 0
        self.judges = [make(truth) for make in JUDGES]
        self._effect = self._who("effect")
        self._said = self._who("said")
        self._committed = self._who("committed")
        self._handled = self._who("handled")
        self._booted = self._who("booted")

    def _who(self, what: str) -> list[Judge]:
        return [judge for judge in self.judges if getattr(type(judge), what) is not getattr(Judge, what)]

    def effect(self, machine: Machine, effect: Effect) -> None:
        """As `Witness`."""
        if machine.name in self.truth.hostile:
            return
        for judge in self._effect:
            judge.effect(machine, effect)
        if isinstance(effect, SendBundle):
            self.bundles_sent += 1
        if isinstance(effect, Send) and effect.data[5] in _CLAIMS:
            for frame in FrameReader().feed(effect.data):
                for judge in self._said:
                    judge.said(machine, frame)

    def committed(self, machine: Machine, rows: list[Row]) -> None:
        """As `Witness`."""
        self.truth.commit(machine, rows)
        if machine.name not in self.truth.hostile:
            for judge in self._committed:
                judge.committed(machine, rows)

    def handled(self, machine: Machine, event: Event) -> None:
        """As `Witness`."""
        if machine.name not in self.truth.hostile:
            for judge in self._handled:
                judge.handled(machine, event)

    def booted(self, machine: Machine) -> None:
        """As `Witness`."""
        if machine.name not in self.truth.hostile:
            for judge in self._booted:
                judge.booted(machine)

    def taken(self, envelope: Envelope, manifest: Manifest, files: list[bytes]) -> None:
        """The sink takes a message."""
        journal, first = split_key(envelope.key)
        parts = parts_for(len(stream_head(manifest)) + manifest.files_size)
        self.truth.take(envelope, journal, (first, first + parts - 1), manifest.reference)
        for judge in self.judges:
            judge.taken(envelope, manifest, files)


def split_key(key: str) -> tuple[JournalId, int]:
    """Journal and first number of a message's key."""
    journal, _, first = key.partition(":")
    return JournalId(bytes.fromhex(journal)), int(first)


def name_of(journal: bytes) -> str:
    """A journal, as far as people can remember it."""
    return f"journal {journal.hex()[:6]}"

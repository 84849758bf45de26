"""The node, wrong in ways in which a developer could get it wrong, to see that the judges bite.

Each mutant changes one method while it is applied, and names the judges that may be the first to see it. `hunt` plays
seeds with it until one of them does. Nothing is a mutant that no promise forbids.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final
from unittest.mock import patch

from meshnode.core import node, submitting
from meshnode.core.bundle import Bundle
from meshnode.core.contact import Contact
from meshnode.core.fetching import Fetching
from meshnode.core.frames import BundleFrame, Held, Stored, Want
from meshnode.core.intervals import Ranges
from meshnode.core.knowing import Knowing
from meshnode.core.landing import Landings
from meshnode.core.ledger import Ledger
from meshnode.core.meeting import Meeting
from meshnode.core.ports import Accepted
from meshnode.core.receipt import Receipt
from meshnode.core.rows import PutReceipt
from meshnode.core.state import Pending, State
from meshnode.core.submitting import Submitting, message_key
from meshnode.core.taking import Taking
from meshnode.office.opening import Message
from meshnode.sim.run import Outcome, Run

Method = Callable[..., Any]
#: From the original method to the wrong one.
Change = Callable[[Method], Method]


@dataclass(frozen=True)
class Mutant:
    """`changes`: which method of what is replaced by what. `judges`: who may see it first."""

    name: str
    judges: frozenset[str]
    changes: tuple[tuple[Any, str, Change], ...]

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The node is wrong."""
        if not self.changes:
            yield
            return
        (owner, name, change), *others = self.changes
        original = vars(owner)[name]
        wrong: Any = change(original)
        if isinstance(original, property):
            assert original.fget is not None
            wrong = property(change(original.fget))
        with patch.object(owner, name, wrong), replace(self, changes=tuple(others)).applied():
            yield


@dataclass(frozen=True)
class Catch:
    """What became of a hunt: after how many seeds a judge saw the mutant, if one did."""

    mutant: str
    seeds: int
    outcome: Outcome | None

    @property
    def judge(self) -> str:
        """Who saw it."""
        return self.outcome.broken.judge if self.outcome and self.outcome.broken else "nobody"


def hunt(mutant: Mutant, seeds: range) -> Catch:
    """Play seeds with the mutant until a promise is broken."""
    for count, seed in enumerate(seeds, 1):
        with mutant.applied():
            outcome = Run(seed).play()
        if outcome.broken is not None:
            return Catch(mutant.name, count, outcome)
    return Catch(mutant.name, len(seeds), None)


# --- what is wrong ----------------------------------------------------------------------------------------------


def _stored_before_commit(bundle: Method) -> Method:
    def wrong(self: Landings, contact: Contact, frame: BundleFrame, rows: Any, landings: list[Any]) -> None:
        before = len(landings)
        bundle(self, contact, frame, rows, landings)
        for landing in landings[before:]:
            stored = Stored(((landing.journal.id, Ranges.single(landing.number), False),))
            self._state.say(contact, stored)

    return wrong


def _accepted_before_commit(write: Method) -> Method:
    def wrong(self: Taking, submission: int, rows: Any, final: bool) -> None:
        write(self, submission, rows, final)
        if final and self._message is not None:
            key = message_key(self._message.journal, self._message.first)
            bundles = self._message.last - self._message.first + 1
            self._state.effects.append(Accepted(submission, key, bundles))

    return wrong


def _receipt_before_sink(landed: Method) -> Method:
    def wrong(self: Landings, grown: Any) -> None:
        landed(self, grown)
        for journal_id, entries in grown.items():
            if self._state.ledger.is_for_me(self._state.ledger.journals[journal_id]):
                self._knowing.deliver(journal_id, Ranges.of(entries))

    return wrong


def _drop_anything(drop: Method) -> Method:
    def wrong(self: Ledger, journal: Any, ranges: Ranges) -> Ranges:
        me, self.me = self.me, type(self.me)(b"nobody")
        try:
            gone: Ranges = drop(self, journal, ranges)
        finally:
            self.me = me
        return gone

    return wrong


def _own_expires(expired: Method) -> Method:
    def wrong(self: Ledger, now_s: float) -> Any:
        for journal in self.journals.values():
            old = Ranges.of(n for n, e in journal.entries.items() if now_s - e.born_s > e.lifetime_s)
            if old:
                yield journal, old

    return wrong


def _receipt_covers_all(apply: Method) -> Method:
    def wrong(self: Ledger, receipt: Receipt, at_s: float) -> Any:
        droppable = apply(self, receipt, at_s)
        return None if droppable is None else self.journals[receipt.journal].held

    return wrong


def _nothing(original: Method) -> Method:
    def wrong(self: Any, *args: Any, **kwargs: Any) -> None:
        return None

    return wrong


def _one_journal_for_ever(init: Method) -> Method:
    def wrong(self: Submitting, key: Any, epoch: bytes, snapshot: Any, sealer_for: Any) -> None:
        init(self, key, b"epoch--1", snapshot, sealer_for)
        for message in snapshot.messages:
            self._last[message.journal] = message.last

    return wrong


def _born_now(bundle: Method) -> Method:
    def wrong(self: Landings, contact: Contact, frame: BundleFrame, rows: Any, landings: Any) -> None:
        bundle(self, contact, BundleFrame(0, frame.bundle), rows, landings)

    return wrong


def _nothing_expires(expired: Method) -> Method:
    def wrong(self: Ledger, now_s: float) -> Any:
        return iter(())

    return wrong


def _no_quota(foreign_room: Method) -> Method:
    def wrong(self: State) -> int:
        return self.room_bytes

    return wrong


def _no_floor(room: Method) -> Method:
    def wrong(self: State) -> int:
        return self.free_bytes

    return wrong


def _no_floor_for_own(open_: Method) -> Method:
    def wrong(self: Any, event: Any, document: Any, free_bytes: int, floor_bytes: int, now: Any) -> None:
        open_(self, event, document, free_bytes, 0, now)

    return wrong


def _release_forgets(release: Method) -> Method:
    def wrong(self: Fetching, contact: Contact) -> None:
        contact.wanting = {}

    return wrong


def _only_the_office_tells(written: Method) -> Method:
    def wrong(self: Knowing, receipts: Any) -> None:
        if self._state.identity.office is not None:
            written(self, receipts)

    return wrong


def _only_the_office_pushes(push: Method) -> Method:
    def wrong(self: Knowing, *args: Any) -> None:
        if self._state.identity.office is not None:
            push(self, *args)

    return wrong


def _last_one_missing(note_offer: Method) -> Method:
    def wrong(self: Contact, held: Held) -> None:
        note_offer(self, replace_ranges(held, held.ranges - Ranges.single(held.ranges.last)))

    return wrong


def replace_ranges(held: Held, ranges: Ranges) -> Held:
    """The same journal with other ranges."""
    return replace(held, ranges=ranges)


def _torn_stays(remains: Method) -> Method:
    return lambda snapshot: []


def _no_receipt_is_written(write: Method) -> Method:
    def wrong(self: State, rows: Any, pending: Pending | None = None) -> None:
        write(self, tuple(row for row in rows if not isinstance(row, PutReceipt)), pending)

    return wrong


def _forgets_what_is_on_its_way(write: Method) -> Method:
    def wrong(self: State, rows: Any, pending: Pending | None = None) -> None:
        write(self, rows, pending)
        if found := self._pending.get(self._token):
            self.unwritten_bytes -= found.payload_bytes
            found.payload_bytes = 0

    return wrong


def _another_key_each_time(key: Method) -> Method:
    offers: list[int] = []

    def wrong(self: Message) -> str:
        offers.append(1)
        return f"{self.journal.hex()}:{self.first + 1000 * len(offers)}"

    return wrong


def _credit_is_endless(note_want: Method) -> Method:
    def wrong(self: Contact, want: Want, ledger: Any, revoked: Any) -> None:
        note_want(self, replace(want, credit=2**50), ledger, revoked)

    return wrong


def _nobody_is_refused(refusal: Method) -> Method:
    def wrong(self: Meeting, device: Any) -> str | None:
        said: str | None = refusal(self, device)
        return None if said == "revoked" else said

    return wrong


def _number_before_message(note: Method) -> Method:
    def wrong(self: Taking, row: Any) -> None:
        note(self, row)
        for contact in self._state.greeted:
            self._state.say(contact, Stored(((row.journal, Ranges.single(row.bundle.header.number), False),)))

    return wrong


def _mutant(name: str, judges: str, *changes: tuple[Any, str, Change]) -> Mutant:
    return Mutant(name, frozenset(judges.split()), changes)


MUTANTS: Final = (
    _mutant("STORED before the commit", "Claims", (Landings, "bundle", _stored_before_commit)),
    _mutant("Accepted before the commit", "Answers", (Taking, "_write", _accepted_before_commit)),
    _mutant("bundles told before they are a message", "Claims", (Taking, "_note", _number_before_message)),
    _mutant("receipt before the sink has taken it", "Receipts", (Landings, "landed", _receipt_before_sink)),
    _mutant(
        "own bundles discarded when they expire",
        "Custody",
        (Ledger, "expired", _own_expires),
        (Ledger, "drop", _drop_anything),
    ),
    _mutant(
        "any receipt frees the whole journal",
        "Custody",
        (Ledger, "apply", _receipt_covers_all),
        (Ledger, "drop", _drop_anything),
    ),
    _mutant("a receipt is believed without its signature", "Receipts", (Receipt, "verify", _nothing)),
    _mutant(
        "the journal goes on after a restart",
        "Originals Answers Sink",
        (Submitting, "__init__", _one_journal_for_ever),
    ),
    _mutant("the age that a bundle comes with is ignored", "Ages", (Landings, "bundle", _born_now)),
    _mutant("nothing expires", "Ages", (Ledger, "expired", _nothing_expires)),
    _mutant("the quota is ignored", "Room", (State, "foreign_room_bytes", _no_quota)),
    _mutant(
        "the floor is ignored",
        "Room",
        (State, "room_bytes", _no_floor),
        (submitting.Submitting, "open", _no_floor_for_own),
    ),
    _mutant(
        "what is on its way to the disk is forgotten", "Room", (State, "write", _forgets_what_is_on_its_way)
    ),
    _mutant("bundles are stored without being verified", "Originals Liveness", (Bundle, "verify", _nothing)),
    _mutant(
        "what a lost contact owed is never asked again", "Liveness", (Fetching, "release", _release_forgets)
    ),
    _mutant(
        "only the office passes receipts on",
        "Liveness",
        (Knowing, "written", _only_the_office_tells),
        (Knowing, "push_receipt", _only_the_office_pushes),
    ),
    _mutant("the last of all ranges is one too low", "Liveness", (Contact, "note_offer", _last_one_missing)),
    _mutant("a torn submission stays in the store", "Liveness Claims", (node, "remains", _torn_stays)),
    _mutant("receipts are not written down", "Receipts", (State, "write", _no_receipt_is_written)),
    _mutant("the sink gets another key at each offer", "Sink", (Message, "key", _another_key_each_time)),
    _mutant("credit is ignored", "Manners", (Contact, "note_want", _credit_is_endless)),
    _mutant(
        "a revoked device is served",
        "Membership",
        (Meeting, "_refusal", _nobody_is_refused),
        (Meeting, "end_revoked", _nothing),
    ),
)

"""What comes by hand: frames from a stick or a memory card, which is nobody, and so cannot be asked or blamed.

A stick holds what a contact would say: fleet documents, certificates, receipts and bundles, as the very same frames.
Each proves itself, so whoever carried it need not be trusted, and each is checked and given room just as if a peer had
sent it. What differs is that nothing was asked for, and that nothing can be asked again: so one bad frame is counted
and passed over, and the others are taken.

The time that a bundle lay on the stick is lost, since no clock here and there can be compared: a bundle is as old as it
was when it was written there, and may be carried that much longer than its source has asked for.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from meshnode.core.errors import RemoteError
from meshnode.core.fleet import read_document
from meshnode.core.frames import BundleFrame, Cert, Fleet, ReceiptFrame, decode
from meshnode.core.identity import read_certificate
from meshnode.core.knowing import Knowing
from meshnode.core.landing import Fate, Landings
from meshnode.core.meeting import Meeting
from meshnode.core.ports import NO_CONTACT, Brought, Token, Write
from meshnode.core.receipt import Receipt, read_receipt
from meshnode.core.rows import Row
from meshnode.core.state import Landing, Pending, State

#: Who "sent" it, in the log.
BEARER: Final = "Somebody by hand"


@dataclass(slots=True)
class Tally:
    """What became of what was brought. Of bundles: `taken`; `known`: here or delivered already; `useless`: expired, or
    of no use to anybody; `no_room`: refused by the quota or the disk. `receipts` that said something new; `damaged`
    frames, or forged ones, of any kind."""

    taken: int = 0
    known: int = 0
    useless: int = 0
    no_room: int = 0
    receipts: int = 0
    damaged: int = 0


class Bringing:
    """Takes what is brought, one bringing at a time."""

    def __init__(self, state: State, meeting: Meeting, knowing: Knowing, landing: Landings) -> None:
        self._state = state
        self._meeting = meeting
        self._knowing = knowing
        self._landing = landing
        self._number = 0
        self._tally = Tally()
        #: Writes on their way: whose they are, and how many bundles each holds.
        self._waiting: dict[Token, tuple[Tally, int]] = {}

    def take(self, event: Brought) -> None:
        """Take some frames."""
        if event.bringing != self._number:
            self._number, self._tally = event.bringing, Tally()
        rows: list[Row] = []
        landings: list[Landing] = []
        for body in event.bodies:
            try:
                self._frame(body, rows, landings)
            except RemoteError:
                self._tally.damaged += 1
        others = self._writes()
        if rows:
            self._state.write(tuple(rows), Pending(landings))
        for token in self._writes():
            self._waiting[token] = (self._tally, 0 if token in others else len(landings))

    def _writes(self) -> set[Token]:
        return {effect.token for effect in self._state.effects if isinstance(effect, Write)}

    def _frame(self, body: bytes, rows: list[Row], landings: list[Landing]) -> None:
        authority = self._state.identity.authority
        match frame := decode(body):
            case BundleFrame():
                self._count(self._landing.land(NO_CONTACT, frame, rows, landings))
            case Cert():
                self._knowing.certificate(read_certificate(frame.der, authority))
            case ReceiptFrame():
                self._receipt(read_receipt(frame.body, frame.signature))
            case Fleet():
                self._knowing.adopt(read_document(frame.body, frame.signature, authority))
                self._meeting.end_revoked()
            case _:
                raise RemoteError("frame", "is of a kind that only a contact has")

    def _count(self, fate: Fate) -> None:
        match fate:
            case Fate.TAKEN:
                self._tally.taken += 1
            case Fate.KNOWN:
                self._tally.known += 1
            case Fate.USELESS:
                self._tally.useless += 1
            case Fate.NO_ROOM:
                self._tally.no_room += 1

    def _receipt(self, receipt: Receipt) -> None:
        known = self._state.ledger.journals.get(receipt.journal)
        if known is not None and receipt.serial <= known.serial and receipt.ranges <= known.receipted:
            return  # There may be thousands, year after year: what says nothing new need not be verified.
        self._tally.receipts += self._knowing.learn(receipt, BEARER)

    def written(self, tokens: Iterable[Token]) -> None:
        """These writes are durable."""
        for token in tokens:
            self._waiting.pop(token, None)

    def failed(self, tokens: Iterable[Token]) -> None:
        """The disk did not take these: for their bundles there was no room after all."""
        for token in tokens:
            tally, bundles = self._waiting.pop(token, (self._tally, 0))
            tally.taken -= bundles
            tally.no_room += bundles

    def result(self) -> Tally | None:
        """What became of the last bringing, once that is certain."""
        return None if self._waiting else self._tally

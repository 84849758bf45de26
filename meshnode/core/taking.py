"""How a message of this device is taken: numbered and sealed by `submitting`, made durable, and only then answered.

What makes bundles a message is written last and alone: the last part waits until all the others are durable. So
whatever fails before can still be taken back, and nothing is ever half a message. Once it is on its way to the disk it
is too late to give it up.
"""

from __future__ import annotations

from meshnode.core.errors import MeshnodeError
from meshnode.core.identity import JournalId
from meshnode.core.introducing import introduce, introduction_journal
from meshnode.core.ports import (
    NO_CONTACT,
    Accepted,
    Refused,
    SubmissionAborted,
    SubmissionChunk,
    SubmissionOpened,
)
from meshnode.core.rows import DropBundles, Entry, PutBundle, PutMessage, Row, entry_of
from meshnode.core.state import Landing, Pending, State
from meshnode.core.submitting import Submitting, message_key


class Taking:
    """Takes messages, one at a time."""

    def __init__(self, state: State, submitting: Submitting) -> None:
        self._state = state
        self._submitting = submitting
        self._entries: dict[int, Entry] = {}
        self._message: PutMessage | None = None
        #: Writes of the submission at hand that are not durable yet, and its last part, which waits for them.
        self._unwritten = 0
        self._last_part: tuple[Row, ...] | None = None
        self._committing = False

    @property
    def is_busy(self) -> bool:
        """Whether a message is being taken, and so uses numbers that are not held yet."""
        return self._submitting.is_busy

    @property
    def waiting_bytes(self) -> int:
        """Payload of a last part that waits for the others: it has its room, and is on no way to the disk yet."""
        rows = self._last_part if self._last_part is not None and not self._committing else ()
        return sum(row.bundle.header.payload_size for row in rows if isinstance(row, PutBundle))

    def introduce(self) -> None:
        """Tell the fleet how to seal to this device, unless that is written down already."""
        state = self._state
        sealing_key = state.settings.sealing_key
        journal_id = introduction_journal(state.identity.device)
        known = state.ledger.journals.get(journal_id)
        is_there = (known is not None and known.held) or journal_id in state.fetching.landing
        if sealing_key is None or is_there or state.now.s < state.rests_until_s:
            return
        bundle = introduce(state.identity.key, sealing_key)
        row = PutBundle(bundle, journal_id, state.now.s, state.now.wall_ms)
        journal = state.ledger.open(bundle.header, journal_id)
        state.fetching.land(journal_id, bundle.header.number)
        landing = Landing(NO_CONTACT, journal, bundle.header.number, entry_of(row))
        state.write((row,), Pending([landing]))

    def opened(self, event: SubmissionOpened) -> None:
        """A program begins a message."""
        state = self._state
        try:
            self._submitting.open(event, state.document, state.free_bytes, state.floor_bytes, state.now)
        except MeshnodeError as problem:
            self.refuse(event.submission, problem)

    def chunk(self, event: SubmissionChunk) -> None:
        """Its next part."""
        if self._committing and self._submitting.is_open(event.submission):
            return  # it has said all that it announced
        state = self._state
        try:
            rows, final = self._submitting.chunk(event.submission, event.chunk, state.now)
        except MeshnodeError as problem:
            self.refuse(event.submission, problem)
            return
        for row in rows:
            match row:
                case PutBundle():
                    self._note(row)
                case PutMessage():
                    self._message = row
        if final and self._unwritten:
            self._last_part = rows
        else:
            self._write(event.submission, rows, final)

    def _write(self, submission: int, rows: tuple[Row, ...], final: bool) -> None:
        self._unwritten += 1
        self._committing = final
        self._state.write(rows, Pending(submission=submission, final=final))

    def _note(self, row: PutBundle) -> None:
        header = row.bundle.header
        self._state.ledger.open(header, row.journal)
        self._state.free_bytes -= header.payload_size
        self._entries[header.number] = entry_of(row)

    def written(self, submission: int, final: bool, grown: dict[JournalId, dict[int, Entry]]) -> None:
        """A part is durable. If that was the last one it is a message now, and `grown` by its bundles."""
        if not self._submitting.is_open(submission):
            return  # given up meanwhile
        self._unwritten -= 1
        if final:
            self._finish(submission, grown)
        elif self._last_part is not None and not self._unwritten:
            self._write(submission, self._last_part, True)

    def _finish(self, submission: int, grown: dict[JournalId, dict[int, Entry]]) -> None:
        assert self._message is not None
        journal_id, first, last = self._submitting.finish(submission)
        self._state.custody.messages.append(self._message)
        grown.setdefault(journal_id, {}).update(self._entries)
        self._forget()
        key = message_key(journal_id, first)
        self._state.effects.append(Accepted(submission, key, last - first + 1))

    def aborted(self, event: SubmissionAborted) -> None:
        """The program went away."""
        if not self._committing:
            self._remove(self._submitting.abort(event.submission))

    def failed(self, submission: int, problem: MeshnodeError) -> None:
        """The disk did not take one of its parts."""
        if self._submitting.is_open(submission):
            self.refuse(submission, problem)

    def refuse(self, submission: int, problem: MeshnodeError) -> None:
        """Answer that it was not taken, and keep nothing of it."""
        self._state.effects.append(Refused(submission, problem))
        self._remove(self._submitting.abort(submission))

    def _remove(self, drop: DropBundles | None) -> None:
        if drop is not None:
            self._forget()
            if drop.ranges:
                self._state.write((drop,))

    def _forget(self) -> None:
        self._entries, self._message = {}, None
        self._unwritten, self._last_part, self._committing = 0, None, False

"""How a message of this device is taken: numbered and sealed by `submitting`, made durable, and only then answered."""

from __future__ import annotations

from meshnode.core.errors import MeshnodeError
from meshnode.core.identity import JournalId
from meshnode.core.ports import (
    Accepted,
    DropBundles,
    Entry,
    PutBundle,
    PutMessage,
    Refused,
    SubmissionAborted,
    SubmissionChunk,
    SubmissionOpened,
)
from meshnode.core.state import Pending, State
from meshnode.core.submitting import Submitting, message_key


class Taking:
    """Takes messages, one at a time."""

    def __init__(self, state: State, submitting: Submitting) -> None:
        self._state = state
        self._submitting = submitting
        self._entries: dict[int, Entry] = {}
        self._message: PutMessage | None = None

    def opened(self, event: SubmissionOpened) -> None:
        """A program begins a message."""
        state = self._state
        try:
            self._submitting.open(event, state.document, state.free_bytes, state.floor_bytes, state.now)
        except MeshnodeError as problem:
            self.refuse(event.submission, problem)

    def chunk(self, event: SubmissionChunk) -> None:
        """Its next part."""
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
        state.write(rows, Pending(submission=event.submission, final=final))

    def _note(self, row: PutBundle) -> None:
        header = row.bundle.header
        self._state.ledger.open(header, row.journal)
        self._state.free_bytes -= header.payload_size
        self._entries[header.number] = Entry(
            header.payload_size, header.priority, header.first, header.parts, row.born_s, header.lifetime_s
        )

    def written(self, submission: int, grown: dict[JournalId, dict[int, Entry]]) -> None:
        """Its last part is durable: it is a message now, and `grown` by its bundles."""
        assert self._message is not None
        journal_id, first, last = self._submitting.finish(submission)
        self._state.custody.messages.append(self._message)
        grown.setdefault(journal_id, {}).update(self._entries)
        self._entries, self._message = {}, None
        key = message_key(journal_id, first)
        self._state.effects.append(Accepted(submission, key, last - first + 1))

    def aborted(self, event: SubmissionAborted) -> None:
        """The program went away."""
        self._remove(self._submitting.abort(event.submission))

    def refuse(self, submission: int, problem: MeshnodeError) -> None:
        """Answer that it was not taken, and keep nothing of it."""
        self._state.effects.append(Refused(submission, problem))
        self._remove(self._submitting.abort(submission))

    def _remove(self, drop: DropBundles | None) -> None:
        if drop is not None:
            self._entries, self._message = {}, None
            if drop.ranges:
                self._state.write((drop,))

"""Which message somebody means: by its key, by the beginning of that, or by what its officer called it.

A message of this device is known for ever. Of others' there is what the ledger has: which numbers are here, which are
missing, and which are delivered. Where a message begins and ends stands with the bundles that are here, and is not
known any more when they are delivered and gone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from meshnode.app.report import open_label
from meshnode.core.custody import MessageState
from meshnode.core.errors import LocalError
from meshnode.core.identity import ID_SIZE, JournalId
from meshnode.core.intervals import Ranges
from meshnode.core.ledger import Journal
from meshnode.core.limits import NUMBER_MAX
from meshnode.core.rows import PutMessage
from meshnode.core.sealing import Drawer
from meshnode.core.state import State
from meshnode.core.submitting import message_key

#: No number of a bundle has more.
_DIGITS_MAX: Final = len(str(NUMBER_MAX))


class NoSuchMessage(LocalError):
    """No message {key} is known here: `meshnode messages` lists those of this device, by key and reference."""


class AmbiguousMessage(LocalError):
    """{key} may be more than one message, as {first} and {second}: give more of the key."""


@dataclass(frozen=True, slots=True)
class Found:
    """Bundles `first` to `last` of `journal`; `last` is None where that is not known. `own`: as custody knows it, if
    this device wrote it."""

    journal: JournalId
    first: int
    last: int | None
    own: MessageState | None = None

    @property
    def key(self) -> str:
        """The message's key."""
        return message_key(self.journal, self.first)

    @property
    def span(self) -> Ranges:
        """Its numbers, as far as they are known."""
        return Ranges.span(self.first, self.first if self.last is None else self.last)


def find_message(state: State, drawer: Drawer, text: str) -> Found:
    """The message that `text` names. Raises NoSuchMessage or AmbiguousMessage."""
    found = _whole_key(state, text) or _one(text, _by_prefix(state, text.lower()))
    found = found or _one(text, _by_reference(state, drawer, text))
    if found is None:
        raise NoSuchMessage(key=repr(text))
    return found


def _one(text: str, candidates: Iterator[Found]) -> Found | None:
    """The only one of these; None if there is none. Raises AmbiguousMessage."""
    first = next(candidates, None)
    second = next(candidates, None)
    if first is not None and second is not None:
        raise AmbiguousMessage(key=repr(text), first=first.key, second=second.key)
    return first


def _own(state: State, message: PutMessage) -> Found:
    own = state.custody.state_of(message)
    return Found(message.journal, message.first, message.last, own)


def _whole_key(state: State, text: str) -> Found | None:
    journal_text, _, number_text = text.partition(":")
    is_number = number_text.isascii() and number_text.isdigit() and len(number_text) <= _DIGITS_MAX
    if not is_number or len(journal_text) != 2 * ID_SIZE:
        return None
    try:
        journal_id = JournalId(bytes.fromhex(journal_text))
    except ValueError:
        return None
    number = int(number_text)
    for message in state.custody.messages:
        if message.journal == journal_id and message.first <= number <= message.last:
            return _own(state, message)
    journal = state.ledger.journals.get(journal_id)
    if journal is None or journal.source is None or state.ledger.is_mine(journal):
        return None
    entry = journal.entries.get(number)
    if entry is not None:
        return Found(journal_id, entry.first, entry.first + entry.parts - 1)
    return _without_entry(state, journal, number)


def _without_entry(state: State, journal: Journal, number: int) -> Found | None:
    """A number of which nothing is here: missing within a message of which something is, or delivered, or not come."""
    for near in (journal.held - Ranges.span(1, number)).head(1) | (
        journal.held & Ranges.span(1, number)
    ).tail(1):
        entry = journal.entries[near]
        if entry.first <= number < entry.first + entry.parts:
            return Found(journal.id, entry.first, entry.first + entry.parts - 1)
    runs = state.history.runs(journal.id)
    known = max([journal.held.last, journal.receipted.last, *(run.last for run in runs)])
    return Found(journal.id, number, None) if 1 <= number <= known else None


def _by_prefix(state: State, text: str) -> Iterator[Found]:
    journal_text, colon, _ = text.partition(":")
    if not text or set(journal_text) - set("0123456789abcdef"):
        return
    for message in state.custody.messages:
        if message_key(message.journal, message.first).startswith(text):
            yield _own(state, message)
    for journal in state.ledger.journals.values():
        name = journal.id.hex()
        is_other = journal.source is not None and not state.ledger.is_mine(journal)
        if is_other and (name == journal_text if colon else name.startswith(text)):
            before = 0
            for number in journal.held:
                entry = journal.entries[number]
                if entry.first != before and message_key(journal.id, entry.first).startswith(text):
                    before = entry.first
                    yield Found(journal.id, entry.first, entry.first + entry.parts - 1)


def _by_reference(state: State, drawer: Drawer, text: str) -> Iterator[Found]:
    for message in state.custody.messages:
        if text and open_label(drawer, message.label)["reference"] == text:
            yield _own(state, message)

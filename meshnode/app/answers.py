"""The verdicts that this office has sent, read off what it calls its own messages.

An answer is a message to the device that asked, sealed to it, so not even the office can read it again. What the office
keeps of it is the label, shut with its device key, and that says which message was answered, and how.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from meshnode.app.received import ANSWER, VERDICTS
from meshnode.app.report import open_label
from meshnode.core.identity import JournalId
from meshnode.core.sealing import Drawer
from meshnode.core.state import State
from meshnode.core.submitting import message_key

#: So much of a reason is kept in the label.
_REASON_MAX = 300


def label_of(key: str, verdict: str, reason: str) -> str:
    """What the office calls its answer: `refused KEY: reason`."""
    return f"{verdict} {key}{': ' if reason else ''}{reason[:_REASON_MAX]}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was said of the message `key`, which is of `journal`, why, and when by the wall clock. `answer`: the key of
    the answer itself."""

    key: str
    journal: JournalId
    verdict: str
    reason: str
    at_ms: int
    answer: str


class Verdicts:
    """All that were sent, the newest of each message. Messages are only ever added, so each label is opened once."""

    def __init__(self, state: State, drawer: Drawer) -> None:
        self._state = state
        self._drawer = drawer
        self._read = 0
        self._by_key: dict[str, Verdict] = {}

    def by_key(self) -> dict[str, Verdict]:
        """By the message that was answered."""
        for verdict in self._new():
            self._by_key[verdict.key] = verdict
        return self._by_key

    def _new(self) -> Iterator[Verdict]:
        messages = self._state.custody.messages
        for message in messages[self._read :]:
            label = open_label(self._drawer, message.label)
            verdict, _, rest = label["reference"].partition(" ")
            if label["kind"] == ANSWER and verdict in VERDICTS:
                key, _, reason = rest.partition(": ")
                try:
                    journal = JournalId(bytes.fromhex(key.partition(":")[0]))
                except ValueError:  # somebody has submitted what only looks like an answer
                    continue
                name = message_key(message.journal, message.first)
                yield Verdict(key, journal, verdict, reason, message.submitted_ms, name)
        self._read = len(messages)

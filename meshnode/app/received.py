"""What the office has written to this device: the folders that its own desk has filled, HOME/received.

The folders are all there is: an officer may look into them, copy files out of them, and delete them. A message of kind
ANSWER says what the registry made of one of this device's messages; the newest answer counts.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from meshnode.core.limits import KIB
from meshnode.core.message import MANIFEST_NAME

FOLDER: Final = "received"
#: The kind of a message that answers another one, and its meta keys.
ANSWER: Final = "answer"
ABOUT, VERDICT, REASON = "about", "verdict", "reason"
VERDICTS: Final = ("accepted", "refused")
#: The file that holds what was written with --text.
TEXT_NAME: Final = "message.txt"
#: So much of a text is shown; the file has all of it.
SHOWN_SIZE: Final = 2 * KIB


@dataclass(frozen=True, slots=True)
class Answer:
    """What the registry made of a message: one of VERDICTS, and why."""

    verdict: str
    reason: str
    at_ms: int


class Inbox:
    """Reads the folders under `root`. `read` blocks."""

    def __init__(self, root: Path) -> None:
        self._root = root
        #: By the key of the message that is answered.
        self.answers: dict[str, Answer] = {}
        self.count = 0

    def read(self) -> list[dict[str, Any]]:
        """All messages, in the order in which they came, as `messages --received --json` shows them."""
        found = sorted(self._messages(), key=lambda message: (message["received_ms"], message["key"]))
        self.count = len(found)
        self.answers = {}
        for message in found:
            meta = message["meta"]
            if message["kind"] == ANSWER and meta.get(VERDICT) in VERDICTS and meta.get(ABOUT):
                answer = Answer(meta[VERDICT], meta.get(REASON, ""), message["received_ms"])
                self.answers[meta[ABOUT]] = answer
        return found

    def _messages(self) -> Iterator[dict[str, Any]]:
        for path in self._root.glob(f"[0-9]*/*/*/{MANIFEST_NAME}"):
            try:
                message = json.loads(path.read_bytes())
                message["path"] = str(path.parent)
                message["text"] = _text_in(path.parent)
                yield {name: message[name] for name in _SHOWN}
            except (OSError, ValueError, LookupError, TypeError):
                continue  # somebody is tidying up, or has put something else there


_SHOWN: Final = ("key", "source", "kind", "reference", "meta", "received_ms", "text", "files", "path")


def _text_in(folder: Path) -> str:
    try:
        with (folder / TEXT_NAME).open("rb") as file:
            return file.read(SHOWN_SIZE).decode("utf-8", "replace")
    except OSError:
        return ""

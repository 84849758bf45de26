"""What is logged cannot forge another line, command a terminal or fill a disk, whoever made us log it.

Texts of others get into the log: why a peer said goodbye, what a web server answered, what a file is called. Control
characters in them are written as escapes. And of a flood of lines only so many are written, with a word on how many
were not; errors are written always.

A line is a sentence for a person, or JSON for a program: then the sentence is its `event`, and what it is about stands
beside it under the names in FIELDS. All of this hangs on one handler, so whoever logs uses `logging` as ever. No line
says what a message holds, what its files are called or what its officer called it, at any level.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections import Counter
from collections.abc import Callable, MutableMapping
from datetime import UTC, datetime
from typing import Any, Final

#: Lines of one level in a minute. A crowd of a hundred devices that all come and go stays below.
LINES_MAX: Final = 600
_MINUTE_S: Final = 60.0
#: Lines in a minute about one kind of trouble, such as the same from different addresses.
ALIKE_MAX: Final = 10

#: The two ways to write a line.
TEXT: Final = "text"
JSON: Final = "json"
FORMATS: Final = (TEXT, JSON)
LEVELS: Final = ("debug", "info", "warning", "error")
#: What a line can be about, besides its sentence.
FIELDS: Final = ("peer", "address", "journal", "number", "key")
#: Libraries that say each thing they do, some with what they were given.
_CHATTY: Final = ("hypercorn", "hypercorn.error", "hypercorn.access", "httpx", "httpcore")

log: Final = logging.getLogger("meshnode")


def escaped(text: str) -> str:
    """This text on one line, with escapes for what is not printable."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text
    )


class OneLine(logging.Formatter):
    """One event, one line; a traceback of our own follows it as it is."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the library's name
        """As the library's, with the message escaped."""
        record.message = escaped(record.message)
        return super().formatMessage(record)


class Flood(logging.Filter):
    """Lets so many lines a minute through, and then says how many it did not."""

    def __init__(self) -> None:
        super().__init__()
        self._since_s = float("-inf")
        self._count: Counter[int] = Counter()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to write it."""
        now_s = time.monotonic()
        if now_s - self._since_s >= _MINUTE_S:
            left_out = sum(max(0, count - LINES_MAX) for count in self._count.values())
            self._since_s = now_s
            self._count.clear()
            if left_out:
                record.msg = f"({left_out} lines were left out before this one) {record.getMessage()}"
                record.args = None
        if record.levelno >= logging.ERROR:
            return True
        self._count[record.levelno] += 1
        return self._count[record.levelno] <= LINES_MAX


class Grumbles:
    """Logs troubles that anybody can cause, each once a minute. `now_s` tells the time."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._said: dict[str, tuple[float, str]] = {}

    def __call__(self, text: str, kind: str = "", **fields: str) -> None:
        """Log this. `kind`: what it is, without saying whose; the text itself if that is all there is. `fields`: of
        FIELDS."""
        now_s, kind = self._now_s(), kind or text
        if text in self._said and now_s - self._said[text][0] <= _MINUTE_S:
            return
        self._said = {old: it for old, it in self._said.items() if now_s - it[0] <= _MINUTE_S}
        alike = sum(other == kind for _, other in self._said.values())
        if alike < ALIKE_MAX and len(self._said) < 100 * ALIKE_MAX:
            self._said[text] = now_s, kind
            log.warning(text, extra=fields)


def log_to_stderr(level: str = "info") -> None:
    """Set up logging for this process, as text; `level` is one of LEVELS."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLine("%(asctime)s %(levelname)s %(message)s"))
    handler.addFilter(Flood())
    logging.basicConfig(level=level.upper(), handlers=[handler])
    for chatty in _CHATTY:
        logging.getLogger(chatty).setLevel(logging.WARNING)


def log_as(style: str) -> None:
    """Write lines in one of FORMATS from now on; in a process that has called `log_to_stderr`."""
    for handler in logging.getLogger().handlers:
        if style == JSON and isinstance(handler.formatter, OneLine):
            handler.setFormatter(json_lines())


def json_lines() -> logging.Formatter:
    """One event, one JSON object in ASCII on one line: time (UTC), level, event, FIELDS, exception if there is one."""
    import structlog  # only for those who ask for it

    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.stdlib.ExtraAdder(FIELDS), structlog.processors.format_exc_info],
        processors=[_ordered, structlog.processors.JSONRenderer(_ascii)],
    )


def _ordered(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    record: logging.LogRecord = event["_record"]
    time_ = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
    line = {"time": time_.replace("+00:00", "Z"), "level": record.levelname.lower(), "event": event["event"]}
    return line | {name: event[name] for name in (*FIELDS, "exception") if name in event}


def _ascii(line: dict[str, object], **_options: object) -> str:
    return json.dumps(line, default=str).replace("\x7f", "\\u007f")

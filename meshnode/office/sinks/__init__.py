"""The port to whatever takes the office's messages: a directory here, an HTTP server or a database elsewhere.

A sink takes each message once, by its key. The office may offer a message again: after a crash, a message that was
taken but not yet receipted comes a second time under the same key, and the sink answers that it has it. So a sink
says one of three things: taken (durably), `NotNow` (everything is kept and offered again later), or `Never` (this
message is put aside, with the reason; others go on).

A sink is called from worker threads, one call at a time, and may block.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from meshnode.core.errors import LocalError
from meshnode.core.identity import DeviceId
from meshnode.core.message import Manifest


class NotNow(LocalError):
    """{problem}."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem=problem)


class Never(LocalError):
    """{reason}."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason=reason)


@dataclass(frozen=True, slots=True)
class Envelope:
    """What the office knows of a message besides its content.

    `key`: `<journal id in hex>:<number of the first bundle>`, the same however often the message is offered.
    `source`: the name of the device that wrote it, safe as a file name; `source_id`: 16 bytes.
    `received_ms`: wall-clock ms at which the last missing bundle came; the same at each offer unless a bundle had to
    be fetched again.
    `held`: why an operator has to decide on the message before anybody uses it; None for nearly all.
    """

    key: str
    source: str
    source_id: DeviceId
    received_ms: int
    held: str | None = None


class Delivery(Protocol):
    """One message on its way into a sink. Ends by `commit`, or by `abort` after any failure, also of `commit`."""

    def write(self, index: int, data: bytes | memoryview) -> None:
        """The next bytes of file `index` of the manifest. Indexes only rise; an empty file is not written at all.
        Raises NotNow or Never."""

    def commit(self) -> None:
        """Everything was written. Returns only when no power cut can take the message away. Raises NotNow or Never."""

    def abort(self) -> None:
        """Forget it. Does not raise: what cannot be removed now is removed when the key or the sink begins again."""


class Sink(Protocol):
    """Takes messages."""

    def begin(self, envelope: Envelope, manifest: Manifest) -> Delivery | None:
        """Begin to take a message. None: it was taken before, durably, and there is nothing to do.

        Raises NotNow or Never.
        """


def make_sink(spec: str, home: Path) -> Sink:
    """The sink that `[office] sink` names: `directory:PATH`, where a relative path is inside `home`.

    Raises ValueError with what is wrong, for people.
    """
    from meshnode.office.sinks.directory import DirectorySink  # it implements this port, so it imports it

    scheme, colon, rest = spec.partition(":")
    if scheme != "directory" or not colon:
        raise ValueError(f'a sink is "directory:PATH", not {spec!r}')
    if not rest or "\0" in rest:
        raise ValueError(f'"directory:" has to name a folder, {spec!r} does not')
    return DirectorySink(home / rest)

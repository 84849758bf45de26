"""The port to whatever takes the office's messages: a directory or an HTTP server here, a database elsewhere.

A sink takes each message once, by its key. The office may offer a message again: after a crash, a message that was
taken but not yet receipted comes a second time under the same key, and the sink answers that it has it. So a sink
says one of three things: taken (durably), `NotNow` (everything is kept and offered again later), or `Never` (this
message is put aside, with the reason; others go on).

A sink is called from worker threads, one call at a time, and may block.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from meshnode.core.errors import LocalError
from meshnode.core.identity import DeviceId
from meshnode.core.message import Manifest
from meshnode.core.words import Said, say

_DIRECTORY: Final = "directory:"
_URL: Final = ("http://", "https://")


class NotNow(LocalError):
    """{problem}."""

    def __init__(self, problem: Said) -> None:
        super().__init__(problem=problem)


class Never(LocalError):
    """{problem}."""

    def __init__(self, reason: Said) -> None:
        super().__init__(problem=reason)


class BadSinkFile(LocalError):
    """`office.http.{key}` in config.toml names {path}, which {problem}."""


class BadProxy(LocalError):
    """The proxy that the environment names cannot be used: {problem}."""


@dataclass(frozen=True, slots=True)
class HttpFiles:
    """The files that an HTTP sink reads, as paths; a relative one is inside the home. None: it does without.

    `token_file`: a bearer token, one line of text. `ca_file`: the only authorities to trust, PEM; without it those that
    this machine trusts. `certificate_file` and `key_file`: how the office shows who it is, PEM; the key may stand in
    the file of the certificate.
    """

    token_file: str | None = None
    ca_file: str | None = None
    certificate_file: str | None = None
    key_file: str | None = None


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


def check_sink(spec: str) -> None:
    """Raises ValueError if `[office] sink` cannot be `spec`, with what it must be instead, as `Words`."""
    if spec.startswith(_URL):
        from meshnode.office.sinks.http import check_url

        check_url(spec)
    elif not spec.startswith(_DIRECTORY) or spec == _DIRECTORY or "\0" in spec:
        raise ValueError(say('must be "directory:PATH", "http://HOST/PATH" or "https://HOST/PATH"'))


def directory_of(spec: str, home: Path) -> Path | None:
    """The folder that `spec` names, where a relative one is inside `home`; None if it names something else."""
    return home / spec.removeprefix(_DIRECTORY) if spec.startswith(_DIRECTORY) else None


def make_sink(
    spec: str, home: Path, files: HttpFiles | None = None, floor_bytes: Callable[[], int] = lambda: 0
) -> Sink:
    """The sink that `[office] sink` names: `directory:PATH`, `http://HOST/PATH` or `https://HOST/PATH`.

    `files` are for HTTP only; `floor_bytes` is for a directory, which leaves so much of its disk free.
    Raises ValueError as `check_sink`; BadSinkFile or BadProxy, if the sink cannot begin.
    """
    # They implement this port, so they import it; and only who needs an HTTP client has to wait for it to load.
    from meshnode.office.sinks.directory import DirectorySink
    from meshnode.office.sinks.http import HttpSink

    check_sink(spec)
    directory = directory_of(spec, home)
    if directory is not None:
        return DirectorySink(directory, floor_bytes)
    return HttpSink(spec, home, files or HttpFiles())

"""The sink that is somebody else's server: each message becomes one HTTP POST of multipart/form-data (RFC 7578).

    Idempotency-Key: <key>                  the same however often the message is offered
    Authorization: Bearer <token>           if there is a token
    part `message`                          message.json, application/json, as the directory sink writes it
    part `file`, once for each file         in the order of message.json, under its own name and type

A form has no way to write every name (a quotation mark becomes %22): the names in message.json are the true ones.
Names and types come from elsewhere. `core.message` has checked the names, the form's encoding escapes them, and what
does not look like a media type is sent as application/octet-stream, so that nothing can end a header too early.

What the server answers:

    2xx, 409                taken: durably, now or before. It has to know the key, since what was answered may be lost
                            on the way, and then the message comes again
    401, 403, 407           not now: the token, the certificate or the proxy's password is wrong or has run out. That
                            is the operator's fault and over some day; 'never' would quarantine all messages of that day
    3xx                     not now: the URL is not the right one. Redirects are not followed, since records would go
                            where nobody has configured them to go
    408, 425, 429           not now, as it says itself
    any other 4xx           never: this message is quarantined with the beginning of what the server says
    all else, or nothing    not now

What is 'not now' is logged, so its sentence holds nothing that the server has said: it may name people.

A message is written to a temporary file first, since its length goes ahead of it and may be MESSAGE_SIZE_MAX. That
file is in the home and never has a name: whenever the process dies, nothing in clear stays to be found. Each message
has a connection of its own: an office has some thousands a day, and an idle one is what a firewall drops silently.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from meshnode.core.limits import KIB
from meshnode.core.message import MANIFEST_NAME, Manifest
from meshnode.core.words import Clause, say
from meshnode.office.sinks import BadProxy, BadSinkFile, Envelope, HttpFiles, Never, NotNow
from meshnode.office.sinks.access import Access, read_access
from meshnode.office.sinks.listing import listing
from meshnode.office.sinks.saying import readable, why

if TYPE_CHECKING:
    import httpx  # takes a while to load, and only an office with such a sink needs it

#: A handshake over a satellite takes 2 s; what takes longer than this is down.
CONNECT_S: Final = 15.0
#: Without a byte going out: a weak uplink pauses, and then goes on.
WRITE_S: Final = 60.0
#: From the last byte sent to the answer: the server writes up to MESSAGE_SIZE_MAX to its disks meanwhile. Less than the
#: 90 s in which systemd expects a service to end, since a message that is on its way is waited for.
ANSWER_S: Final = 60.0

#: What is shown of a refusal, in characters, and what is read for that, in bytes.
REASON_SIZE_MAX: Final = 200
_REASON_READ_MAX: Final = 4 * KIB

_CONFLICT: Final = 409
_DENIED: Final = frozenset({401, 403, 407})
_LATER: Final = frozenset({408, 425, 429})

_WORD: Final = r"[A-Za-z0-9!#$&^_.+-]+"
#: RFC 6838, section 4.2, and parameters that need no quoting.
_MEDIA_TYPE: Final = re.compile(rf"{_WORD}/{_WORD}(; ?{_WORD}={_WORD})*", re.ASCII)
_UNKNOWN_TYPE: Final = "application/octet-stream"

_Part = tuple[str, tuple[str, "bytes | io.BufferedReader[_Stretch]", str]]


def check_url(url: str) -> None:
    """Raises ValueError if messages cannot be posted to this http or https URL, with what it must be instead."""
    import httpx

    try:
        parsed = httpx.URL(url)
        host = parsed.host.encode("idna")  # as the resolver will do it
    except (httpx.InvalidURL, UnicodeError):
        raise ValueError(say("must be a URL, and is not: its host, port or characters are wrong")) from None
    if parsed.userinfo:
        raise ValueError(
            say("must be a URL without a password: name a `token_file` under [office.http] instead")
        )
    if not host or b"%" in host or (parsed.port is not None and not 1 <= parsed.port <= 65535):
        raise ValueError(say('must name a host, and a port if any: "https://HOST:PORT/PATH"'))
    if "#" in url:
        raise ValueError(say("must be a URL without '#': nothing behind that is ever sent"))


class HttpSink:
    """Posts messages to `url`. A message on its way is in a file without a name in `home`.

    `answer_s`: seconds to wait for the server to answer once it has everything.
    """

    def __init__(
        self, url: str, home: Path, files: HttpFiles | None = None, *, answer_s: float = ANSWER_S
    ) -> None:
        """Reads the files. Raises BadSinkFile or BadProxy."""
        self.home = home
        self._url = url
        #: A query may hold a secret.
        self._shown = url.partition("?")[0]
        self._files = files or HttpFiles()
        self._answer_s = answer_s
        #: None: to be read again, since a new token or certificate may be all that was missing.
        self._access: Access | None = read_access(home, self._files)
        # It has a line for each request, with the query.
        logging.getLogger("httpx").setLevel(logging.WARNING)
        self._client(self._access).close()

    def _client(self, access: Access) -> httpx.Client:
        """A client that follows the proxies of the environment. Raises BadProxy."""
        import httpx

        timeout = httpx.Timeout(connect=CONNECT_S, write=WRITE_S, read=self._answer_s, pool=None)
        try:
            return httpx.Client(verify=access.tls, timeout=timeout, headers=access.headers)
        except (ValueError, ImportError, httpx.InvalidURL) as error:
            raise BadProxy(problem=readable(str(error)).partition(". ")[0].rstrip(".")) from None

    def begin(self, envelope: Envelope, manifest: Manifest) -> HttpDelivery:
        """As `Sink.begin`. Whether the server has the message is known only when it is posted."""
        return HttpDelivery(self, envelope, manifest)

    def post(self, key: str, parts: list[_Part]) -> None:
        """Post a form. On return the server has it. Raises NotNow or Never."""
        try:
            self._judge(*self._send(key, parts))
        except NotNow:
            self._access = None
            raise

    def _send(self, key: str, parts: list[_Part]) -> tuple[int, str]:
        """The status of the answer, and what it says if it is a refusal. Raises NotNow."""
        import httpx

        try:
            self._access = access = self._access or read_access(self.home, self._files)
            with (
                self._client(access) as client,
                client.stream(
                    "POST", self._url, files=parts, headers={"Idempotency-Key": key}, follow_redirects=False
                ) as answer,
            ):
                return answer.status_code, _reason(answer) if _is_refusal(answer.status_code) else ""
        except (BadSinkFile, BadProxy) as problem:
            raise NotNow(Clause(problem)) from None
        except httpx.TimeoutException:
            raise NotNow(say("{url} does not answer in time", url=self._shown)) from None
        except httpx.ProtocolError:
            # The text of this error would quote what came, which may be what was sent.
            raise NotNow(say("{url} breaks off, or does not speak HTTP", url=self._shown)) from None
        except (httpx.HTTPError, UnicodeError) as error:
            raise NotNow(
                say("{url} cannot be reached: {problem}", url=self._shown, problem=why(error))
            ) from None
        except OSError as error:
            raise NotNow(
                say("{path} cannot be read: {problem}", path=self.home, problem=why(error))
            ) from None

    def _judge(self, status: int, reason: str) -> None:
        if 200 <= status < 300 or status == _CONFLICT:
            return
        if status in _DENIED:
            raise NotNow(
                say(
                    "{url} refuses this office ({status}): the token, the certificate or the proxy's password is wrong"
                    " or has run out",
                    url=self._shown,
                    status=status,
                )
            )
        if 300 <= status < 400:
            raise NotNow(
                say(
                    "{url} sends elsewhere ({status}): `office.sink` has to be the URL that takes messages",
                    url=self._shown,
                    status=status,
                )
            )
        if _is_refusal(status):
            if reason:
                raise Never(say("the server answers {status}: {reason}", status=status, reason=reason))
            raise Never(say("the server answers {status}", status=status))
        raise NotNow(say("{url} answers {status}", url=self._shown, status=status))


class HttpDelivery:
    """One message on its way: written to a file without a name, then posted from it. As `Delivery`."""

    def __init__(self, sink: HttpSink, envelope: Envelope, manifest: Manifest) -> None:
        """Raises NotNow."""
        self._sink = sink
        self._envelope = envelope
        self._manifest = manifest
        self._hashes = [hashlib.sha256() for _ in manifest.files]
        with _disk(sink.home):
            # mode 0600; on Linux it never had a name (O_TMPFILE), elsewhere it loses that before anything is written
            self._spool = tempfile.TemporaryFile(dir=sink.home)  # noqa: SIM115

    def write(self, index: int, data: bytes | memoryview) -> None:
        """As `Delivery.write`."""
        self._hashes[index].update(data)
        with _disk(self._sink.home):
            self._spool.write(data)

    def commit(self) -> None:
        """As `Delivery.commit`."""
        try:
            with _disk(self._sink.home):
                self._spool.flush()
            self._sink.post(self._envelope.key, list(self._parts()))
        finally:
            self.abort()

    def abort(self) -> None:
        """As `Delivery.abort`."""
        with contextlib.suppress(OSError):  # the disk is full, and this tries once more to write
            self._spool.close()

    def _parts(self) -> Iterator[_Part]:
        digests = [digest.hexdigest() for digest in self._hashes]
        record = listing(self._envelope, self._manifest, digests)
        yield "message", (MANIFEST_NAME, record, "application/json")
        start = 0
        for file in self._manifest.files:
            content = io.BufferedReader(_Stretch(self._spool.fileno(), start, file.size_bytes))
            start += file.size_bytes
            known = _MEDIA_TYPE.fullmatch(file.type)
            yield "file", (file.name, content, file.type if known else _UNKNOWN_TYPE)


class _Stretch(io.RawIOBase):
    """`size` bytes from `start` of an open file, as a file to read. It has no `fileno`: that would be the whole."""

    def __init__(self, descriptor: int, start: int, size: int) -> None:
        self._descriptor = descriptor
        self._start = start
        self._size = size
        self._at = 0

    def readable(self) -> bool:
        """As `io.RawIOBase`."""
        return True

    def seekable(self) -> bool:
        """As `io.RawIOBase`."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As `io.RawIOBase`."""
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        return self._at

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """As `io.RawIOBase`."""
        wanted = min(len(buffer), max(0, self._size - self._at))
        data = os.pread(self._descriptor, wanted, self._start + self._at)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def _is_refusal(status: int) -> bool:
    return 400 <= status < 500 and status != _CONFLICT and status not in _DENIED | _LATER


def _reason(answer: httpx.Response) -> str:
    """The beginning of what the server says, in one line; empty if it does not come."""
    import httpx

    data = b""
    with contextlib.suppress(httpx.HTTPError):
        for piece in answer.iter_raw():
            data += piece[:_REASON_READ_MAX]
            if len(data) >= _REASON_READ_MAX:
                break
    token = answer.request.headers.get("Authorization", "").removeprefix("Bearer ")
    text = data.decode("utf-8", "replace")
    if token:
        text = text.replace(token, "…")  # a server that quotes the request
    return readable(text)[:REASON_SIZE_MAX].rstrip(" .")


@contextlib.contextmanager
def _disk(home: Path) -> Iterator[None]:
    """Trouble of the disk is over some day."""
    try:
        yield
    except OSError as error:
        raise NotNow(say("{path} cannot be written: {problem}", path=home, problem=why(error))) from error

"""A registry: a real HTTP(S) server on loopback that answers as it is told, and what it was sent."""

from __future__ import annotations

import email
import email.policy
import re
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

#: How long a test waits for what should come at once.
DEADLINE_S = 10.0


class Part(NamedTuple):
    """One part of a form, as the bytes say it."""

    name: str
    file_name: str
    type: str
    data: bytes


@dataclass
class Request:
    path: str
    headers: Message
    body: bytes

    def parts(self) -> list[Part]:
        """The form, read by the standard library's parser."""
        head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
        form = email.message_from_bytes(head + self.body, policy=email.policy.compat32)
        assert form.is_multipart()
        assert not form.defects
        return [_part(part) for part in form.get_payload()]  # type: ignore[arg-type]


def _part(part: Message) -> Part:
    headers = {name.lower(): _text(value) for name, value in part._headers}  # type: ignore[attr-defined]
    assert set(headers) == {"content-disposition", "content-type"}
    said = re.fullmatch(r'form-data; name="([a-z]+)"; filename="([^"]*)"', headers["content-disposition"])
    assert said is not None
    data = part.get_payload(decode=True)
    assert isinstance(data, bytes)
    return Part(said[1], said[2].replace("%22", '"'), headers["content-type"], data)


def _text(value: str) -> str:
    return value.encode("ascii", "surrogateescape").decode("utf-8")


@dataclass
class Answer:
    """A status and a body; or instead raw bytes; or nothing at all until the registry closes."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    raw: bytes | None = None
    hang: bool = False


class Registry(ThreadingHTTPServer):
    """Gives the answers in turn, then 200. `answer`, if set, decides instead."""

    daemon_threads = False

    def __init__(self, answers: list[Answer], tls: ssl.SSLContext | None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers = answers
        self.answer: Callable[[Request], Answer] | None = None
        self.requests: list[Request] = []
        self.closing = threading.Event()
        self.troubles: list[BaseException] = []
        self._scheme = "http" if tls is None else "https"
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_side=True)

    @property
    def url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self.server_address[1]}/messages"

    @property
    def keys(self) -> list[str]:
        return [request.headers["Idempotency-Key"] for request in self.requests]

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exc_info()[1]
        assert error is not None
        if not isinstance(error, OSError):  # the client may hang up whenever it knows enough
            self.troubles.append(error)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = DEADLINE_S
    server: Registry

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass

    def do_POST(self) -> None:
        server = self.server
        body = self.rfile.read(int(self.headers["Content-Length"]))
        request = Request(self.path, self.headers, body)
        server.requests.append(request)
        if server.answer is not None:
            answer = server.answer(request)
        else:
            answer = server.answers.pop(0) if server.answers else Answer()
        if answer.hang:
            server.closing.wait(DEADLINE_S)
            answer.raw = b""
        if answer.raw is not None:
            self.wfile.write(answer.raw)
            self.close_connection = True
            return
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)


@contextmanager
def registry(*answers: Answer, tls: ssl.SSLContext | None = None) -> Iterator[Registry]:
    """A registry at work, until the block ends."""
    server = Registry(list(answers), tls)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        server.shutdown()
        thread.join(DEADLINE_S)
        server.server_close()
    assert server.troubles == []

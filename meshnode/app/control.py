"""The local HTTP API: what the command line and other programs on this machine use.

    GET  /v1/status  /v1/messages  /v1/peers     JSON, see `report`
    GET  /v1/received                            what the office has written to this device, see `received`
    GET  /v1/devices                             at an office: to whom it can write
    POST /v1/answers                             at an office: {"key", "verdict", "reason"} of a message
    POST /v1/messages                            take a message: {"key", "bundles", "size_bytes"}
    PUT  /v1/fleet                               adopt a fleet document: {"version", "adopted"}
    POST /v1/compare  /v1/export  /v1/import     carrying by hand, see `carrying_http`
    GET  /v1/messages/{key}                      what became of one message, see `story`
    GET  /v1/officers  and tables                at an office or a gateway: the whole fleet, see `overview`
    POST /v1/quarantine/retry                    at an office: hand a message on that was put aside, see `overview`
    GET  /metrics                                for Prometheus, see `metrics`
    GET  /v1/openapi.json                        the description of all of this for programs, see `openapi`

It listens on a loopback address, and every request must carry the bearer token of control.json, which only this user
can read, or belong to a browser's session (`web.session`). A `Host` that is not loopback is refused, and so is what a
browser sends for a page of another site (`Origin`), so a page that was lured here by a false name gets nothing.

A message is posted as a 4-byte big-endian length, a JSON object {"kind", "meta", "reference", "priority", "to",
"files": [{"name", "size_bytes", "type"}]} and then the files' bytes, one after another. `to` is the name or id of a
device, empty for the office. An error is answered as {"error": sentence, "exit_code": code}.
"""

from __future__ import annotations

import json
import logging
import os
import re
import secrets
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from meshnode.app import carrying_http, report
from meshnode.app.answers import label_of
from meshnode.app.language import ENGLISH, catalogue, of_browser
from meshnode.app.received import ABOUT, ANSWER, REASON, TEXT_NAME, VERDICT, VERDICTS
from meshnode.app.seldom import Seldom
from meshnode.app.web import routes as web_routes
from meshnode.app.web.headers import Chosen, safely
from meshnode.app.web.session import Sessions, elapsed_s, is_open
from meshnode.app.writing import find_device, source_of
from meshnode.core.bundle import PRIORITIES, URGENT
from meshnode.core.errors import BadFleetDocument, BadSubmission, FileTrouble, MeshnodeError, RemoteError
from meshnode.core.fleet import Endpoint, read_document_file
from meshnode.core.limits import DOCUMENT_SIZE_MAX, KIB, MANIFEST_SIZE_MAX
from meshnode.core.message import File, Manifest, check_manifest
from meshnode.core.ports import Accepted
from meshnode.core.words import Words, reading, say

if TYPE_CHECKING:
    from meshnode.app.daemon import Daemon

log: Final = logging.getLogger("meshnode")

_LENGTH_SIZE: Final = 4
_HOSTS: Final = ("127.0.0.1", "localhost", "[::1]")
_MANIFEST_KEYS: Final = {"kind", "meta", "reference", "priority", "to", "files"}
_ANSWER_SIZE_MAX: Final = 64 * KIB


class Guard:
    """Lets only requests through that carry the token, or are of a browser's session, and name a loopback host."""

    def __init__(self, app: ASGIApp, token: str, sessions: Sessions) -> None:
        self._app = app
        self._sessions = sessions
        self._expected = f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] == "http":
            send = safely(send)
            headers = dict(scope["headers"])
            host = headers.get(b"host", b"").decode("latin-1")
            if host.rpartition(":")[0] not in _HOSTS and host not in _HOSTS:
                await _refusal(say("The control interface is for this machine only."), 403)(
                    scope, receive, send
                )
                return
            origin = headers.get(b"origin", b"").decode("latin-1").removeprefix("http://")
            if origin and origin.rpartition(":")[0] not in _HOSTS and origin not in _HOSTS:
                await _refusal(say("Other web pages may not use the control interface."), 403)(
                    scope, receive, send
                )
                return
            if not self._is_let_in(scope["method"], scope["path"], headers):
                text = say("The token is missing or wrong: it stands in control.json in the node's home.")
                await _refusal(text, 401)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _is_let_in(self, method: str, path: str, headers: dict[bytes, bytes]) -> bool:
        return (
            secrets.compare_digest(headers.get(b"authorization", b""), self._expected)
            or is_open(method, path)
            or self._sessions.admits(method, path, headers)
        )


class Speaking:
    """Answers in the language that the node is set to, or else in the one that the request asks for."""

    def __init__(self, app: ASGIApp, language: str | None) -> None:
        self._app = app
        self._language = language

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        accept = dict(scope.get("headers", ())).get(b"accept-language", b"").decode("latin-1")
        with reading(catalogue(self._language or of_browser(accept) or ENGLISH)):
            await self._app(scope, receive, send)


def _refusal(sentence: str | Words, http_status: int, exit_code: int = 1, code: str = "") -> Response:
    # what was asked for may stand in it, with half a character, which JSON may hold and UTF-8 may not
    text = str(sentence).encode(errors="backslashreplace").decode()
    said = {"error": text, "exit_code": exit_code}
    return JSONResponse(said | ({"code": code} if code else {}), http_status)


def code_of(problem: MeshnodeError) -> str:
    """What programs call it: `not-as-its-kind` for NotAsItsKind."""
    return re.sub(r"(?<!^)(?=[A-Z])", "-", type(problem).__name__).lower()


async def _no_such(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _refusal(
        say("The control interface has no such request ({problem}).", problem=error.detail), error.status_code
    )


async def _broken(request: Request, error: Exception) -> Response:
    # The server would swallow it, and it is a fault of ours that an operator must be able to report.
    log.error("the control interface failed at %s", request.url.path, exc_info=error)
    return _refusal(say("The node has made a mistake, which its log describes: report it."), 500)


def make_app(daemon: Daemon, token: str) -> ASGIApp:
    """The API of one daemon."""

    sessions = Sessions(elapsed_s)

    async def get_status(_: Request) -> Response:
        return JSONResponse(daemon.status())

    async def get_messages(_: Request) -> Response:
        return JSONResponse(report.messages(daemon.node.state, daemon.drawer, daemon.inbox.answers))

    async def get_received(_: Request) -> Response:
        return JSONResponse(await daemon.received())

    async def get_devices(_: Request) -> Response:
        return JSONResponse(report.devices(daemon.node.state))

    async def post_answer(request: Request) -> Response:
        return await _answer(daemon, request)

    async def get_peers(_: Request) -> Response:
        return JSONResponse(report.peers(daemon.node.state, daemon.now().s))

    async def post_message(request: Request) -> Response:
        return await _take(daemon, request)

    async def put_fleet(request: Request) -> Response:
        data = bytearray()
        async for piece in request.stream():
            data += piece
            if len(data) > DOCUMENT_SIZE_MAX + 16 * KIB:
                return _refusal(say("This is larger than any fleet document."), 413)
        try:
            document = read_document_file(bytes(data), daemon.node.state.identity.authority)
        except RemoteError as problem:
            return _refusal(str(BadFleetDocument(path=say("what was given"), problem=problem)), 400)
        try:
            adopted = daemon.adopt(document)
        except FileTrouble as problem:
            return _refusal(str(problem), 507, problem.exit_code)
        return JSONResponse({"version": daemon.node.state.document.version, "adopted": adopted})

    app = Starlette(
        routes=[
            Route("/v1/status", get_status),
            Route("/v1/messages", get_messages, methods=["GET"]),
            Route("/v1/messages", post_message, methods=["POST"]),
            Route("/v1/peers", get_peers),
            Route("/v1/received", get_received),
            Route("/v1/devices", get_devices),
            Route("/v1/answers", post_answer, methods=["POST"]),
            Route("/v1/fleet", put_fleet, methods=["PUT"]),
            *carrying_http.routes(daemon),
            *web_routes(daemon, sessions),
        ],
        exception_handlers={HTTPException: _no_such, Exception: _broken},
    )
    app.router.default = Seldom(daemon)
    return Speaking(Guard(Chosen(app), token, sessions), daemon.language)


async def _take(daemon: Daemon, request: Request) -> Response:
    body = aiter(request.stream())
    try:
        manifest, priority, to, rest = await _read_manifest(body)
        endpoint = await daemon.endpoint(find_device(daemon.node.state, to)) if to else None
        accepted = await _submit(daemon, manifest, priority, _chain(rest, body), endpoint)
    except MeshnodeError as problem:
        # The program may still be sending; it reads the answer only when all of that was taken off its hands.
        async for _ in body:
            pass
        return _refusal(str(problem), 422, problem.exit_code, code_of(problem))
    except ClientDisconnect:
        return Response(status_code=400)  # nobody reads this; the message was given up
    answer = {"key": accepted.key, "bundles": accepted.bundles, "size_bytes": manifest.files_size}
    return JSONResponse(answer, 201)


async def _submit(
    daemon: Daemon,
    manifest: Manifest,
    priority: int,
    body: AsyncIterator[bytes],
    endpoint: Endpoint | None,
    called: str = "",
) -> Accepted:
    """`called`: what this device calls it, if not by its reference."""
    label = report.shut_label(daemon.drawer, called or manifest.reference, manifest.kind, os.urandom(12))
    return await daemon.submissions.take(manifest, priority, label, body, endpoint)


async def _answer(daemon: Daemon, request: Request) -> Response:
    """Tell the device that wrote a message what became of it."""
    data = bytearray()
    async for piece in request.stream():
        data += piece
        if len(data) > _ANSWER_SIZE_MAX:
            return _refusal(say("This is longer than any answer."), 413)
    try:
        key, verdict, reason = _read_answer(bytes(data))
        endpoint = await daemon.endpoint(source_of(daemon.node.state, key))
        text = f"{key}: {verdict}{': ' if reason else ''}{reason}\n".encode()
        manifest = Manifest(
            kind=ANSWER,
            meta=((ABOUT, key), (VERDICT, verdict), (REASON, reason)),
            reference="",
            submitted_ms=_now_ms(),
            files=(File(TEXT_NAME, len(text), "text/plain"),),
        )
        called = label_of(key, verdict, reason)
        accepted = await _submit(daemon, check_manifest(manifest), URGENT, _whole(text), endpoint, called)
    except MeshnodeError as problem:
        return _refusal(str(problem), 422, problem.exit_code)
    return JSONResponse({"key": accepted.key}, 201)


def _read_answer(data: bytes) -> tuple[str, str, str]:
    try:
        answer = json.loads(data)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict) or set(answer) - {"key", "verdict", "reason"}:
        raise BadSubmission(problem="an answer is an object of key, verdict and reason")
    key, verdict, reason = (_text(answer, name) for name in ("key", "verdict", "reason"))
    if verdict not in VERDICTS:
        raise BadSubmission(problem=say("its verdict is none of {verdicts}", verdicts=", ".join(VERDICTS)))
    return key, verdict, reason


async def _chain(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    if first:
        yield first
    async for piece in rest:
        yield piece


async def _whole(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def _read_manifest(body: AsyncIterator[bytes]) -> tuple[Manifest, int, str, bytes]:
    """Manifest, priority, to which device (if any), and what has come of the files already. Raises BadSubmission and
    its kin."""
    held = bytearray()
    size = _LENGTH_SIZE
    while len(held) < size:
        piece = await anext(body, None)
        if piece is None:
            raise BadSubmission(problem="it ends within its description")
        held += piece
        if len(held) >= _LENGTH_SIZE:
            size = _LENGTH_SIZE + int.from_bytes(held[:_LENGTH_SIZE], "big")
            if size > 4 * MANIFEST_SIZE_MAX:
                raise BadSubmission(problem="its description is too long")
    try:
        described = json.loads(held[_LENGTH_SIZE:size])
    except (ValueError, RecursionError):
        raise BadSubmission(problem="its description is not JSON") from None
    manifest, priority = manifest_of(described)
    return check_manifest(manifest), priority, _text(described, "to"), bytes(held[size:])


def manifest_of(described: Any) -> tuple[Manifest, int]:
    """The manifest and the priority that a description says, not checked yet. Raises BadSubmission."""
    if not isinstance(described, dict):
        raise BadSubmission(problem="its description is no object")
    try:
        # but for the files' names, of which `check_manifest` says more
        json.dumps({**described, "files": None}, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise BadSubmission(problem="its description holds half a character") from None
    if unknown := set(described) - _MANIFEST_KEYS:
        raise BadSubmission(
            problem=say("its description has unknown keys: {keys}", keys=", ".join(sorted(unknown)))
        )
    meta = described.get("meta", {})
    priority = described.get("priority", "routine")
    files = described.get("files")
    if not isinstance(meta, dict) or not all(isinstance(value, str) for value in meta.values()):
        raise BadSubmission(problem="its meta is not an object of texts")
    if not isinstance(priority, str) or priority not in PRIORITIES:
        raise BadSubmission(
            problem=say("its priority is none of {priorities}", priorities=", ".join(PRIORITIES))
        )
    if not isinstance(files, list):
        raise BadSubmission(problem="its files are not a list")
    manifest = Manifest(
        kind=_text(described, "kind"),
        meta=tuple(meta.items()),
        reference=_text(described, "reference"),
        submitted_ms=_now_ms(),
        files=tuple(_file(item) for item in files),
    )
    return manifest, PRIORITIES[priority]


def _now_ms() -> int:
    return max(0, time.time_ns() // 1_000_000)


def _text(described: dict[str, Any], key: str) -> str:
    value = described.get(key, "")
    if not isinstance(value, str):
        raise BadSubmission(problem=say("its {key} is not a text", key=key))
    return value


def _file(item: Any) -> File:
    if not isinstance(item, dict) or set(item) - {"name", "size_bytes", "type"}:
        raise BadSubmission(problem="a file is not described by name, size_bytes and type")
    size = item.get("size_bytes")
    if type(size) is not int or not isinstance(item.get("name"), str):
        raise BadSubmission(problem="a file has no name or no size_bytes")
    return File(item["name"], size, _text(item, "type") or "application/octet-stream")

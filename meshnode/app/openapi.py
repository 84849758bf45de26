"""The description of the control interface for programs: OpenAPI 3.1, at `GET /v1/openapi.json`.

It is made from the one table below; `docs/openapi.json` is a copy of it to read, which `python -m meshnode.app.openapi`
prints. A test holds the table against the real routes, and real answers against the shapes.
"""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass, field
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from meshnode import __version__
from meshnode.app.openapi_shapes import KEY, SHAPES, TEXT, Shape, many, ref

_JSON: Final = "application/json"
_BINARY: Final = "application/octet-stream"
_CSV: Final = "text/csv"
_EVENTS: Final = "text/event-stream"
_HTML: Final = "text/html"
_PLAIN: Final = "text/plain"
_WHOLE: Final[Shape] = {"type": "integer", "minimum": 0}


@dataclass(frozen=True, slots=True)
class Operation:
    """One request: what it does, what it takes, and what it answers when all is well. `shape` None: no body.
    `refusals`: the statuses of errors, besides those that every request can have."""

    method: str
    path: str
    name: str
    summary: str
    shape: Shape | None = None
    status: int = 200
    media: str = _JSON
    body: Shape | None = None
    body_media: str = _JSON
    refusals: tuple[int, ...] = ()
    query: dict[str, Shape] = field(default_factory=dict)
    description: str = ""
    is_open: bool = False

    def described(self) -> dict[str, Any]:
        """As OpenAPI has it."""
        content = {} if self.shape is None else {"content": {self.media: {"schema": self.shape}}}
        said: dict[str, Any] = {
            "operationId": self.name,
            "summary": self.summary,
            "responses": {
                str(self.status): {"description": "done", **content},
                **{str(status): _REFUSED[status] for status in sorted((*self.refusals, *self._always))},
            },
        }
        if self.description:
            said["description"] = self.description
        if parameters := [*self._parameters()]:
            said["parameters"] = parameters
        if self.body is not None:
            said["requestBody"] = {"required": True, "content": {self.body_media: {"schema": self.body}}}
        if self.is_open:
            said["security"] = []
        return said

    @property
    def _always(self) -> tuple[int, ...]:
        return (403,) if self.is_open else (401, 403)

    def _parameters(self) -> Any:
        for name in re.findall(r"\{(\w+)\}", self.path):
            yield {"name": name, "in": "path", "required": True, "schema": TEXT}
        for name, shape in self.query.items():
            yield {"name": name, "in": "query", "required": True, "schema": shape}


def _refused(description: str) -> dict[str, Any]:
    return {"description": description, "content": {_JSON: {"schema": ref("Error")}}}


_REFUSED: Final = {
    401: _refused("the token is missing or wrong"),
    403: _refused("asked by another machine, or by a page of another site"),
    404: _refused("there is none"),
    409: _refused("it may be more than one"),
    413: _refused("it is too large"),
    400: _refused("it is not true"),
    422: _refused("it was not taken, and nothing of it was kept"),
    503: _refused("too many ask for this at once"),
    507: _refused("the disk does not take it"),
}

_SUBMIT: Final = (
    "The body is a 4-byte big-endian length, so many bytes of JSON (the schema `Submission`), and then the files' bytes"
    " one after another. The answer comes once the message is durable; a program that sends nothing for a minute is"
    " given up."
)
_STICK: Final = "HAVE frames, which say what the stick holds: docs/protocol.md."
_STREAM: Final[Shape] = {"type": "string", "format": "binary"}

OPERATIONS: Final = (
    Operation("GET", "/v1/status", "getStatus", "How the node is", ref("Status")),
    Operation(
        "GET", "/v1/messages", "getMessages", "The messages of this device, in order", many(ref("Message"))
    ),
    Operation(
        "POST",
        "/v1/messages",
        "postMessage",
        "Take a message",
        ref("Taken"),
        201,
        body=_STREAM,
        body_media=_BINARY,
        refusals=(422,),
        description=_SUBMIT,
    ),
    Operation(
        "GET",
        "/v1/messages/{key}",
        "getMessage",
        "What became of one message",
        ref("Story"),
        refusals=(404, 409),
        description="`key` is a whole key, the beginning of one, or the reference of exactly one message.",
    ),
    Operation("GET", "/v1/peers", "getPeers", "Who is in contact, by name", many(ref("Contact"))),
    Operation(
        "GET", "/v1/received", "getReceived", "What the office wrote to this device", many(ref("Received"))
    ),
    Operation("GET", "/v1/devices", "getDevices", "At an office: to whom it can write", many(ref("Device"))),
    Operation(
        "POST",
        "/v1/answers",
        "postAnswer",
        "At an office: tell a device what became of its message",
        ref("Answered"),
        201,
        body=ref("Answer"),
        refusals=(413, 422),
    ),
    Operation(
        "PUT",
        "/v1/fleet",
        "putFleet",
        "Adopt a fleet document",
        ref("Adopted"),
        body=_STREAM,
        body_media=_BINARY,
        refusals=(400, 413, 507),
    ),
    Operation(
        "POST",
        "/v1/compare",
        "postCompare",
        "What is known here of what a stick holds",
        ref("Compared"),
        body=_STREAM,
        body_media=_BINARY,
        refusals=(422,),
        description=_STICK,
    ),
    Operation(
        "POST",
        "/v1/export",
        "postExport",
        "What a stick lacks",
        _STREAM,
        media=_BINARY,
        body=_STREAM,
        body_media=_BINARY,
        refusals=(422,),
        query={"fleet": _WHOLE, "room": _WHOLE},
        description=f"{_STICK} Answers a 4-byte length, JSON of what follows, and frames.",
    ),
    Operation(
        "POST",
        "/v1/import",
        "postImport",
        "Take whole frames from a stick",
        ref("Imported"),
        body=_STREAM,
        body_media=_BINARY,
        refusals=(422,),
    ),
    Operation(
        "GET",
        "/v1/officers",
        "getOfficers",
        "At an office or gateway: the whole fleet",
        ref("Overview"),
        refusals=(404,),
    ),
    *(
        Operation(
            "GET",
            f"/v1/{name}.csv",
            f"get{name.capitalize()}Table",
            f"A table for a spreadsheet: {what}",
            TEXT,
            media=_CSV,
            refusals=() if name == "messages" else (404,),
        )
        for name, what in (
            ("officers", "officers, as /v1/officers"),
            ("days", "what was handed on each day, and how late"),
            ("carried", "who has brought how much of whom"),
            ("messages", "the messages of this device"),
        )
    ),
    Operation(
        "POST",
        "/v1/quarantine/retry",
        "postRetry",
        "At an office: hand a message that is kept apart to the sink again",
        ref("Retried"),
        body=ref("Retry"),
        refusals=(404, 413, 422),
    ),
    Operation(
        "GET",
        "/v1/events",
        "getEvents",
        "What changes, while one listens",
        TEXT,
        media=_EVENTS,
        refusals=(503,),
        description="Server-sent events: `messages` a list of Message, `status` a Status, `officers` an Overview,"
        " `ready` once all was told.",
    ),
    Operation("GET", "/v1/openapi.json", "getOpenApi", "This description", ref("OpenApi")),
    Operation("GET", "/metrics", "getMetrics", "Metrics for Prometheus", TEXT, media=_PLAIN),
    Operation("GET", "/web", "getWeb", "The web page", None, 303, is_open=True),
    Operation(
        "GET",
        "/web/{name}",
        "getWebFile",
        "A file of the web page",
        TEXT,
        media=_HTML,
        refusals=(404,),
        is_open=True,
    ),
    Operation(
        "POST",
        "/web/{name}",
        "postWeb",
        "`link`: a link that opens the web page once",
        ref("Link"),
        201,
        refusals=(404,),
        description="`key` and `leave` are what the page itself needs, with its cookie.",
    ),
)


def document() -> dict[str, Any]:
    """The whole description."""
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = operation.described()
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "meshnode",
            "version": __version__,
            "summary": "The control interface of a node, for programs on the same machine.",
            "description": "The address and the token stand in HOME/control.json, which only the node's user can read."
            " Sentences are in the language that the node is set to, or else in the one of Accept-Language.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "http://127.0.0.1:7767"}],
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": SHAPES | {"Key": KEY},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def text() -> str:
    """The description as it is published."""
    return json.dumps(document(), indent=1, ensure_ascii=False) + "\n"


def routes() -> list[Route]:
    """The one request."""

    async def get_openapi(_: Request) -> Response:
        return Response(text(), media_type=_JSON)

    return [Route("/v1/openapi.json", get_openapi)]


if __name__ == "__main__":
    sys.stdout.write(text())

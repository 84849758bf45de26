"""Carrying by hand in the local HTTP API (`control`): what `meshnode export` and `import` ask of the daemon.

POST /v1/compare                 HAVE frames: what a stick holds. Answers {"journals": [[id, known, delivered]...]},
                                 the last two as ranges on the wire
POST /v1/export?fleet=V&room=B   HAVE frames again, the version of the fleet document there, and the bytes that fit.
                                 Answers 4 bytes of length, a JSON object {"bundles", "receipts", "size_bytes",
                                 "left", "left_bytes"}, and the frames that the stick lacks, as a stream
POST /v1/import                  whole frames, at most IMPORT_BYTES_MAX. Answers what became of them once all is
                                 durable, so whoever sends portion after portion knows at any time what is safe
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Final

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from meshnode.app.carrying import Plan, read_holdings
from meshnode.core.errors import LocalError, RemoteError
from meshnode.core.fleet import DOCUMENT_VERSION_MAX
from meshnode.core.limits import MIB
from meshnode.core.words import say

if TYPE_CHECKING:
    from meshnode.app.daemon import Daemon

#: One portion of an import, and what a stick holds, told.
IMPORT_BYTES_MAX: Final = 8 * MIB
HOLDINGS_BYTES_MAX: Final = 32 * MIB


class BadCarrying(LocalError):
    """This is not what a stick holds ({problem})."""


async def _read(request: Request, size_max: int) -> bytes:
    data = bytearray()
    async for piece in request.stream():
        data += piece
        if len(data) > size_max:
            raise BadCarrying(problem=say("it has more than {limit_bytes} bytes", limit_bytes=size_max))
    return bytes(data)


def _whole(request: Request, name: str, most: int) -> int:
    text = request.query_params.get(name, "")
    if not (text.isascii() and text.isdigit()) or len(text) > 20 or int(text) > most:
        raise BadCarrying(problem=say("{name} is not a number up to {most}", name=name, most=most))
    return int(text)


def _refusal(problem: Exception) -> Response:
    return JSONResponse({"error": str(problem), "exit_code": 1}, 422)


def routes(daemon: Daemon) -> list[Route]:
    """The three requests."""

    async def compare(request: Request) -> Response:
        try:
            stick = await read_holdings(await _read(request, HOLDINGS_BYTES_MAX))
        except (BadCarrying, RemoteError) as problem:
            return _refusal(problem)
        except ClientDisconnect:
            return Response(status_code=400)  # nobody reads this
        rows = await daemon.carrying.compare(stick)
        answer = await daemon.carrying.run_sync(partial(json.dumps, {"journals": rows}))
        return Response(answer, media_type="application/json")

    async def export(request: Request) -> Response:
        try:
            version = _whole(request, "fleet", DOCUMENT_VERSION_MAX)
            room_bytes = _whole(request, "room", 2**63)
            stick = await read_holdings(await _read(request, HOLDINGS_BYTES_MAX))
        except (BadCarrying, RemoteError) as problem:
            return _refusal(problem)
        except ClientDisconnect:
            return Response(status_code=400)
        plan = await daemon.carrying.plan(stick, version, room_bytes)
        return StreamingResponse(_stream(daemon, plan), media_type="application/octet-stream")

    async def bring(request: Request) -> Response:
        try:
            tally = await daemon.carrying.bring(await _read(request, IMPORT_BYTES_MAX))
        except (BadCarrying, RemoteError) as problem:
            return _refusal(problem)
        except ClientDisconnect:
            return Response(status_code=400)
        version = daemon.node.state.document.version
        return JSONResponse({**asdict(tally), "fleet_version": version})

    return [
        Route("/v1/compare", compare, methods=["POST"]),
        Route("/v1/export", export, methods=["POST"]),
        Route("/v1/import", bring, methods=["POST"]),
    ]


async def _stream(daemon: Daemon, plan: Plan) -> AsyncIterator[bytes]:
    about = {
        "bundles": len(plan.items),
        "receipts": len(plan.receipts),
        "size_bytes": plan.size_bytes,
        "left": plan.left,
        "left_bytes": plan.left_bytes,
    }
    head = json.dumps(about).encode()
    yield len(head).to_bytes(4, "big") + head
    async for data in daemon.carrying.frames(plan):
        if data:
            yield data

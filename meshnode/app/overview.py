"""What an office or a gateway sees of the whole fleet: `GET /v1/officers`, `meshnode officers`, and tables for a
spreadsheet.

    GET  /v1/officers           {"now_ms", "officers", "carried", "days", "quarantine", "refused"}, see `officers`
    GET  /v1/officers.csv  /v1/carried.csv  /v1/days.csv  /v1/messages.csv
    POST /v1/quarantine/retry   {"key"}: hand a message that is kept apart to the sink again. Answers {"key", "state"},
                                state delivered, quarantined (again), or waiting (not known within some seconds)

Officers' numbers count bundles, over all journals of a device (`counting`). `carried` and `days` come from the `book`:
who brought how many bundles of whom, over all days that are kept (the CSV says it day by day), and how many messages
were handed on here, their sealed bytes, and their age then. `messages.csv` lists the messages of this device itself, as
`GET /v1/messages` does; what others wrote is sealed, and lies with the sink.

`quarantine` is what this office keeps and does not hand on; `refused` are the verdicts that it has sent to officers.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from meshnode.app import report
from meshnode.app.counting import Progress, progress
from meshnode.app.happenings import Names
from meshnode.core.book import Book
from meshnode.core.errors import LocalError
from meshnode.core.history import CAME
from meshnode.core.identity import DeviceId, JournalId
from meshnode.core.rows import NOBODY, PutRun
from meshnode.core.state import State
from meshnode.core.submitting import message_key
from meshnode.core.words import Words, say
from meshnode.office.desk import CONTRADICTS, NotQuarantined, SetAside

if TYPE_CHECKING:
    from meshnode.app.daemon import Daemon

_EPOCH: Final = date(1970, 1, 1)
_RETRY_SIZE_MAX: Final = 4096
#: What a spreadsheet would take for a formula.
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")

_BY_HAND: Final = say("by hand")


class NoOverview(LocalError):
    """Only an office or a gateway has an overview of the fleet, and this node is of role {role}: ask there."""


class BadRetry(LocalError):
    """This names no message: give an object with the key of one that is kept apart."""


def officers(daemon: Daemon) -> dict[str, Any]:
    """The whole answer. Raises NoOverview."""
    state = daemon.node.state
    book = _book(state)
    now_ms = daemon.now().wall_ms
    return {
        "now_ms": now_ms,
        "officers": [_officer(daemon, book, row, now_ms) for row in progress(state)],
        "carried": list(_carried(state, book)),
        "days": list(_days(book)),
        "quarantine": list(_quarantine(state, daemon.desks.set_aside())),
        "refused": list(_refused(daemon)),
    }


def _book(state: State) -> Book:
    """With all that has come by now. Raises NoOverview."""
    book = state.history.book
    if book is None:
        raise NoOverview(role=state.identity.certificate.role)
    state.history.settle()
    return book


# --- officers ---------------------------------------------------------------------------------------------------


def _officer(daemon: Daemon, book: Book, row: Progress, now_ms: int) -> dict[str, Any]:
    state, device = daemon.node.state, row.certificate.device
    since = [lack.since_ms for lack in row.lacks if lack.since_ms is not None]
    seen_ms, via = book.seen.get(device, (None, device))
    if any(contact.device == device for contact in state.greeted):
        seen_ms, via = now_ms, device
    return {
        "name": row.certificate.name,
        "id": device.hex(),
        "role": row.certificate.role,
        "revoked": device in state.document.revoked,
        "recorded": row.recorded,
        "here": row.here,
        "on_the_way": row.on_the_way,
        "delivered": row.delivered,
        "missing": [list(pair) for lack in row.lacks for pair in lack.missing.pairs],
        "journals": [
            {"journal": lack.journal.hex(), "missing": [list(pair) for pair in lack.missing.pairs]}
            for lack in row.lacks
        ],
        "missing_text": str(row.missing_text()),
        "oldest_missing_s": max(0, (now_ms - min(since)) // 1000) if since else None,
        "last_seen_ms": seen_ms,
        "last_seen_via": None if via == device else _name(state, via),
        "restored": row.restored or device in daemon.desks.restored_devices,
    }


def _name(state: State, device: DeviceId) -> str:
    return str(_BY_HAND) if device == NOBODY else Names(state).of(device)


# --- carried, days ----------------------------------------------------------------------------------------------


def _carried(state: State, book: Book) -> Iterator[dict[str, Any]]:
    """The most first."""
    for (carrier, source), sums in sorted(book.totals.items(), key=lambda row: (-row[1].bundles, row[0])):
        yield {
            "carrier": _name(state, carrier),
            "source": _name(state, source),
            "itself": carrier == source,
            "bundles": sums.bundles,
            "bytes": sums.size_bytes,
        }


def _day_text(day: int) -> str:
    try:
        return (_EPOCH + timedelta(days=day)).isoformat()
    except OverflowError:  # a clock that is wrong beyond all calendars
        return str(day)


def _days(book: Book) -> Iterator[dict[str, Any]]:
    """The oldest first."""
    for day, it in sorted(book.days.items()):
        yield {
            "day": _day_text(day),
            "messages": it.messages,
            "bytes": it.size_bytes,
            "delay_p50_s": it.delays.quantile_s(0.5),
            "delay_p90_s": it.delays.quantile_s(0.9),
            "delay_max_s": it.delays.longest_s,
        }


# --- what was not taken -----------------------------------------------------------------------------------------


def _quarantine(state: State, aside: Iterable[SetAside]) -> Iterator[dict[str, Any]]:
    arrived: dict[JournalId, list[PutRun]] = {}  # once a journal, since many may be put aside of one
    for it in aside:
        if it.journal not in arrived:
            arrived[it.journal] = [run for run in state.history.runs(it.journal) if run.what == CAME]
        yield _set_aside(state, it, arrived[it.journal])


def _set_aside(state: State, it: SetAside, arrived: list[PutRun]) -> dict[str, Any]:
    journal = state.ledger.journals[it.journal]
    came = [run.at_ms for run in arrived if run.first <= it.last and run.last >= it.first]
    source = journal.source
    return {
        "key": message_key(it.journal, it.first),
        "source": "" if source is None else _name(state, source),
        "reason": str(it.reason),
        "code": it.code,
        # since it was whole here, which outlives a restart; else since this process has put it aside
        "since_ms": max(came, default=it.at_ms),
        "can_retry": it.code != CONTRADICTS,
    }


def _refused(daemon: Daemon) -> Iterator[dict[str, Any]]:
    """The newest first."""
    state = daemon.node.state
    for it in sorted(daemon.verdicts.by_key().values(), key=lambda verdict: -verdict.at_ms):
        if it.verdict == "refused":
            journal = state.ledger.journals.get(it.journal)
            source = journal.source if journal else None
            yield {
                "key": it.key,
                "source": "" if source is None else _name(state, source),
                "reason": it.reason,
                "code": it.verdict,
                "at_ms": it.at_ms,
                "answer_key": it.answer,
            }


# --- tables -----------------------------------------------------------------------------------------------------

_OFFICERS: Final = (
    "name",
    "id",
    "role",
    "revoked",
    "recorded",
    "here",
    "on_the_way",
    "delivered",
    "missing_text",
    "oldest_missing_s",
    "last_seen_ms",
    "last_seen_via",
    "restored",
)
_CARRIED: Final = ("day", "carrier", "source", "bundles", "bytes")
_DAYS: Final = ("day", "messages", "bytes", "delay_p50_s", "delay_p90_s", "delay_max_s")
_MESSAGES: Final = (
    "key",
    "to",
    "reference",
    "kind",
    "size_bytes",
    "submitted_ms",
    "state",
    "reason",
    "copies",
)


def _cell(value: object) -> object:
    """What a spreadsheet shows as it is: a text that it would compute gets an apostrophe in front."""
    if value is None:
        return ""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def table(heads: tuple[str, ...], rows: Iterable[dict[str, Any]]) -> str:
    """CSV (RFC 4180) with a row of heads."""
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    writer.writerow(heads)
    writer.writerows([_cell(row[head]) for head in heads] for row in rows)
    return out.getvalue()


def _carried_by_day(state: State, book: Book) -> Iterator[dict[str, Any]]:
    for (day, carrier, source), sums in sorted(book.carried.items()):
        yield {
            "day": _day_text(day),
            "carrier": _name(state, carrier),
            "source": _name(state, source),
            "bundles": sums.bundles,
            "bytes": sums.size_bytes,
        }


def _table_of(daemon: Daemon, name: str) -> str:
    """Raises NoOverview."""
    state = daemon.node.state
    if name == "messages":
        return table(_MESSAGES, report.messages(state, daemon.drawer, daemon.inbox.answers))
    book = _book(state)
    if name == "carried":
        return table(_CARRIED, _carried_by_day(state, book))
    if name == "days":
        return table(_DAYS, _days(book))
    return table(_OFFICERS, officers(daemon)["officers"])


# --- the requests -----------------------------------------------------------------------------------------------


def _refusal(problem: LocalError | Words, code: str, http_status: int) -> Response:
    return JSONResponse({"error": str(problem), "code": code, "exit_code": 1}, http_status)


def routes(daemon: Daemon) -> list[Route]:
    """All of them."""

    async def get_officers(_: Request) -> Response:
        try:
            return JSONResponse(officers(daemon))
        except NoOverview as problem:
            return _refusal(problem, "no-overview", 404)

    async def get_table(request: Request) -> Response:
        name = request.url.path.removeprefix("/v1/").removesuffix(".csv")
        try:
            text = _table_of(daemon, name)
        except NoOverview as problem:
            return _refusal(problem, "no-overview", 404)
        headers = {"Content-Disposition": f'attachment; filename="{name}.csv"'}
        return Response(text.encode(), media_type="text/csv; charset=utf-8", headers=headers)

    async def retry(request: Request) -> Response:
        data = bytearray()
        async for piece in request.stream():
            data += piece
            if len(data) > _RETRY_SIZE_MAX:
                return _refusal(BadRetry(), "bad-request", 413)
        try:
            key = _read_key(bytes(data))
            return JSONResponse({"key": key, "state": await daemon.desks.retry(key)})
        except BadRetry as problem:
            return _refusal(problem, "bad-request", 422)
        except NotQuarantined as problem:
            return _refusal(problem, "not-quarantined", 404)

    tables = ("officers", "days", "carried", "messages")
    return [
        Route("/v1/officers", get_officers, methods=["GET"]),
        *(Route(f"/v1/{name}.csv", get_table, methods=["GET"]) for name in tables),
        Route("/v1/quarantine/retry", retry, methods=["POST"]),
    ]


def _read_key(data: bytes) -> str:
    try:
        asked = json.loads(data)
    except (ValueError, RecursionError):
        raise BadRetry from None
    if not isinstance(asked, dict) or set(asked) != {"key"} or not isinstance(asked["key"], str):
        raise BadRetry
    return asked["key"]

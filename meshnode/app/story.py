"""What became of one message, as a person would tell it: `GET /v1/messages/{key}`, which `meshnode why` shows.

    {"key", "reference", "kind", "source", "to", "size_bytes", "bundles", "state", "copies", "priority",
     "story": [{"at_ms", "code", "text", "peer", "bundles"}, ...], "now", "now_code"}

KEY is `<journal>:<first number>`, the beginning of that, or the reference of exactly one message (`lookup`). An event's
`code` is one of: taken, sealed, carried_part, carried, arrived (an office has it), discarded, came, set_aside,
delivered, answered. `at_ms` is of this device's wall clock, right within some seconds; null if it happened before times
were kept, or while their row was on no disk yet. The oldest comes first; what has no time stands where it belongs.

Of others' messages this node tells what it has seen itself: which bundles came and with whom, what is missing, when a
receipt came. Their reference and kind are sealed, so they are empty. Sizes are of sealed bundles there, and null when
nothing of the message is here any more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from meshnode.app.lookup import AmbiguousMessage, NoSuchMessage, find_message
from meshnode.app.others_story import OthersStory
from meshnode.app.own_story import OwnStory
from meshnode.app.received import Answer
from meshnode.app.report import open_label
from meshnode.core.errors import StoreTrouble
from meshnode.core.identity import JournalId

if TYPE_CHECKING:
    from meshnode.app.daemon import Daemon


async def story(daemon: Daemon, text: str) -> dict[str, Any]:
    """The answer for the message that `text` names. Raises NoSuchMessage or AmbiguousMessage."""
    state = daemon.node.state
    found = find_message(state, daemon.drawer, text)
    if found.own is not None:
        label = open_label(daemon.drawer, found.own.message.label)
        sealed_ms = await _arrived_ms(daemon, found.journal, found.own.message.last)
        return OwnStory(state, found, label, sealed_ms, daemon.inbox.answers.get(found.key)).as_json()
    aside = next(
        (
            it
            for it in daemon.desks.set_aside(own=True)
            if it.journal == found.journal and it.first <= found.first <= it.last
        ),
        None,
    )
    given = daemon.verdicts.by_key().get(found.key)
    answer = Answer(given.verdict, given.reason, given.at_ms) if given else None
    return OthersStory(state, found, aside, answer).as_json()


async def _arrived_ms(daemon: Daemon, journal: JournalId, number: int) -> int | None:
    """When a bundle was put into the store, if it is still there."""
    try:
        stored = await daemon.read(journal, number)
    except StoreTrouble:
        return None
    return stored.arrived_ms if stored else None


def routes(daemon: Daemon) -> list[Route]:
    """The one request."""

    async def get_story(request: Request) -> Response:
        try:
            return JSONResponse(await story(daemon, request.path_params["key"]))
        except (NoSuchMessage, AmbiguousMessage) as problem:
            code = "unknown" if isinstance(problem, NoSuchMessage) else "ambiguous"
            status = 404 if code == "unknown" else 409
            return JSONResponse({"error": str(problem), "code": code, "exit_code": 1}, status)

    return [Route("/v1/messages/{key:path}", get_story, methods=["GET"])]

"""The web page of the node, for the officer or the office at this machine.

    GET  /web/                       the page; /web/words.json its sentences in a language
    POST /web/link                   with the bearer token: {"url"}, a link that opens the page once, see `session`
    GET  /web/enter?token=...        what such a link leads to
    POST /web/key                    with the cookie: {"key"}, the page's own half of its session, once
    POST /web/leave                  ends the session
    GET  /v1/events                  what changes, as server-sent events, see `events`

The page is a few files without a build step, in `static`; it asks for nothing that is not on this machine. Only
`session` is loaded when the daemon starts: the rest comes with the first request, as most nodes are never looked at.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from meshnode.app.web.session import Sessions

if TYPE_CHECKING:
    from meshnode.app.daemon import Daemon
    from meshnode.app.web.events import Listeners


def routes(daemon: Daemon, sessions: Sessions) -> list[Route]:
    """The page and the events of one daemon, for the control interface."""
    listeners: Listeners | None = None

    async def page(request: Request) -> Response:
        from meshnode.app.web.pages import answer

        return answer(sessions, daemon.language, request)

    async def events(_: Request) -> Response:
        nonlocal listeners
        if listeners is None:
            from meshnode.app.web.events import Listeners

            listeners = Listeners()
        return listeners.listen(daemon)

    return [
        Route("/web", page, methods=["GET"]),
        Route("/web/{name:path}", page, methods=["GET", "POST"]),
        Route("/v1/events", events),
    ]

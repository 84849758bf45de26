"""Requests that few nodes are ever asked. What answers them is loaded when the first one comes, since memory is short
on the devices that officers carry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.routing import Route, Router
from starlette.types import Receive, Scope, Send

if TYPE_CHECKING:
    from meshnode.app.daemon import Daemon


def routes(daemon: Daemon) -> list[Route]:
    """The story of a message, the overview of the fleet, the metrics, the description for programs."""
    from meshnode.app import metrics, openapi, overview, story

    return [
        *overview.routes(daemon),
        *story.routes(daemon),
        *metrics.routes(daemon),
        *openapi.routes(),
    ]


class Seldom:
    """ASGI: answers these requests, and that there is no such one for any other."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._router: Router | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if self._router is None:
            self._router = Router(routes(self._daemon))
        await self._router(scope, receive, send)

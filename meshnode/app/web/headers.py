"""Headers between a browser and the control interface.

Every answer says that a browser asks nobody else, runs nothing but the page's own files, shows it in no other page, and
remembers nothing of what it was told. The page says in which language a person wants to read there, which counts for
more than what the node is set to.
"""

from __future__ import annotations

from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from meshnode.app.language import catalogue, known
from meshnode.core.words import reading

LANGUAGE_HEADER: Final = b"meshnode-language"

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self';"
    " form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_SAFE: Final = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)


def safely(send: Send) -> Send:
    """The same, with these headers; what says nothing of being kept is not kept."""

    async def send_safely(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = [*message.get("headers", ()), *_SAFE]
            if not any(name.lower() == b"cache-control" for name, _ in headers):
                headers.append((b"cache-control", b"no-store"))
            message = {**message, "headers": headers}
        await send(message)

    return send_safely


class Chosen:
    """Answers in the language that the page names, if it names one."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        named = known(dict(scope.get("headers", ())).get(LANGUAGE_HEADER, b"").decode("latin-1"))
        if named is None:
            await self._app(scope, receive, send)
        else:
            with reading(catalogue(named)):
                await self._app(scope, receive, send)

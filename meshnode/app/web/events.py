"""GET /v1/events: what changes at this node, as server-sent events, while somebody listens.

    event: messages     a list of messages as /v1/messages has them: at first all, in portions, then each that changed
    event: status       as /v1/status
    event: peers        as /v1/peers
    event: officers     as /v1/officers, at an office or gateway
    event: ready        {}: all that there is was told once; from here on come changes

Nobody is told of anything that he could not have asked for: a listener has been let in as for any other request, and
reads in his own language. A listener costs two looks a second at one number, how many events the brain has handled;
only when that has moved is there a comparison, and after one that took long the next waits longer (`SHARE`). What the
brain does not hear of, as an office's server that is down, is seen at the next look, `LOOK_S` later at most.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import trio
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from meshnode.app import report
from meshnode.core.submitting import message_key
from meshnode.core.words import say

if TYPE_CHECKING:
    from meshnode.app.daemon import Daemon
    from meshnode.core.custody import MessageState

SPACING_S: Final = 0.5
LOOK_S: Final = 5.0
#: Ages grow without anything happening: so often they are told again.
AGES_S: Final = 60.0
KEEP_ALIVE_S: Final = 15.0
#: At most this part of the time goes into comparing.
SHARE: Final = 0.05
LISTENERS_MAX: Final = 8
#: Messages in one event: what is made in one go.
PORTION: Final = 200


class Watch:
    """What one listener was told last, and so what is new for him."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._messages: dict[tuple[Any, int], tuple[str, int, str, str]] = {}
        self._told: dict[str, tuple[str, float]] = {}

    def changes(self, now_s: float) -> Iterator[tuple[str, Any]]:
        """(event, its data) of all that is not as it was told last; portion by portion, as it is asked for."""
        changed = list(self._changed())
        for at in range(0, len(changed), PORTION):
            yield "messages", self._rows(changed[at : at + PORTION])
        status = self._daemon.status()
        yield from self._if_new(
            "status", status, _lasting(status, "oldest_waiting_s", "store", "contacts"), now_s
        )
        peers = status["contacts"]
        yield from self._if_new("peers", peers, [_lasting(peer, "since_s") for peer in peers], now_s)
        if self._daemon.node.state.history.book is not None:
            from meshnode.app.overview import officers

            overview = officers(self._daemon)
            rows = [_lasting(row, "oldest_missing_s", "last_seen_ms") for row in overview["officers"]]
            lasting = _lasting(overview, "now_ms") | {"officers": rows}
            yield from self._if_new("officers", overview, lasting, now_s)

    def _changed(self) -> Iterator[MessageState]:
        answers = self._daemon.inbox.answers
        for seen in self._daemon.node.state.custody.states():
            place = seen.message.journal, seen.message.first
            # most messages are never answered, and a key is dear to make
            answer = answers.get(message_key(*place)) if answers else None
            now = seen.state, seen.copies, answer.verdict if answer else "", answer.reason if answer else ""
            if self._messages.get(place) != now:
                self._messages[place] = now
                yield seen

    def _rows(self, changed: list[MessageState]) -> list[dict[str, Any]]:
        daemon = self._daemon
        return report.messages(daemon.node.state, daemon.drawer, daemon.inbox.answers, changed)

    def _if_new(self, name: str, data: Any, lasting: Any, now_s: float) -> Iterator[tuple[str, Any]]:
        text = json.dumps(lasting)
        before, told_s = self._told.get(name, ("", 0.0))
        if text != before or now_s - told_s >= AGES_S:
            self._told[name] = text, now_s
            yield name, data


def _lasting(row: dict[str, Any], *passing: str) -> dict[str, Any]:
    """The same without what changes by itself, as ages and the bytes of the disk, or is told elsewhere."""
    return {name: value for name, value in row.items() if name not in passing}


class Listeners:
    """Counts who listens, so that they stay few."""

    def __init__(self) -> None:
        self.count = 0

    def listen(self, daemon: Daemon) -> Response:
        """The answer to one more listener."""
        if self.count >= LISTENERS_MAX:
            sentence = say("Too many pages look at this node at once: close some of them.")
            return JSONResponse({"code": "crowd", "error": str(sentence), "exit_code": 1}, 503)
        return _Events(self, daemon)


class _Events(Response):
    """A stream that ends when the listener goes or the node ends."""

    def __init__(self, listeners: Listeners, daemon: Daemon) -> None:
        super().__init__(media_type="text/event-stream")
        del self.headers["content-length"]
        self._listeners = listeners
        self._daemon = daemon

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        self._listeners.count += 1
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._until_gone, receive, nursery.cancel_scope)
                await send(
                    {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
                )
                await self._tell(send)
        finally:
            self._listeners.count -= 1

    async def _until_gone(self, receive: Receive, scope: trio.CancelScope) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        scope.cancel()

    async def _tell(self, send: Send) -> None:
        spoke_s = 0.0

        async def say_event(name: str, data: Any) -> None:
            await write(f"event: {name}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n")

        async def write(text: str) -> None:
            nonlocal spoke_s
            await send({"type": "http.response.body", "body": text.encode(), "more_body": True})
            spoke_s = trio.current_time()

        watch = Watch(self._daemon)
        turns, looked_s, is_ready = -1, float("-inf"), False
        while True:
            wait_s = SPACING_S
            now_s = trio.current_time()
            if self._daemon.turns != turns or now_s - looked_s >= LOOK_S:
                turns, looked_s = self._daemon.turns, now_s
                took_s, began_s = 0.0, time.perf_counter()
                for name, data in watch.changes(now_s):
                    took_s += time.perf_counter() - began_s
                    await say_event(name, data)
                    began_s = time.perf_counter()
                wait_s = max(SPACING_S, (took_s + time.perf_counter() - began_s) / SHARE)
            if not is_ready:
                is_ready = True
                await say_event("ready", {})
            if now_s - spoke_s >= KEEP_ALIVE_S:
                await write(": still here\n\n")
            await trio.sleep(wait_s)

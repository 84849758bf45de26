"""Takes messages from programs: a stream of bytes becomes chunks, the chunks become events, the answer comes back.

Numbers of a message are consecutive, so one message is taken at a time; a program that stalls is given up. What a kind
of messages has to be (`kinds`) is looked at before the last part is handed on, so what is refused was never a message.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Final

import trio

from meshnode.app.kinds import Check, Kinds
from meshnode.core.errors import BadSubmission
from meshnode.core.fleet import Endpoint
from meshnode.core.message import Chunker, Manifest, stream_head, stream_size
from meshnode.core.ports import Accepted, Refused, SubmissionAborted, SubmissionChunk, SubmissionOpened
from meshnode.core.words import say
from meshnode.drivers.writer import RunSync, Writer

#: A program that sends nothing for so long loses its turn.
STALL_S: Final = 60.0

Dispatch = Callable[[SubmissionOpened | SubmissionChunk | SubmissionAborted], None]


class _Answer:
    """What the brain will say of one submission."""

    def __init__(self) -> None:
        self._said: Accepted | Refused | None = None
        self._event = trio.Event()

    def say(self, said: Accepted | Refused) -> None:
        self._said = self._said or said  # what is refused after a first refusal has only that for a reason
        self._event.set()

    @property
    def is_there(self) -> bool:
        return self._said is not None

    async def wait(self) -> None:
        await self._event.wait()

    def result(self) -> Accepted:
        if isinstance(self._said, Refused):
            raise self._said.problem
        assert self._said is not None
        return self._said


class Submissions:
    """All submissions of one daemon."""

    def __init__(
        self,
        dispatch: Dispatch,
        writer: Writer,
        kinds: Kinds | None = None,
        run_sync: RunSync = trio.to_thread.run_sync,
    ) -> None:
        self._dispatch = dispatch
        self._writer = writer
        self._kinds = kinds
        self._run_sync = run_sync
        self._lock = trio.Lock()
        self._numbers = itertools.count(1)
        self._answers: dict[int, _Answer] = {}

    def answer(self, said: Accepted | Refused) -> None:
        """The brain has decided."""
        if answer := self._answers.get(said.submission):
            answer.say(said)

    async def take(
        self,
        manifest: Manifest,
        priority: int,
        label: bytes,
        body: AsyncIterator[bytes],
        endpoint: Endpoint | None = None,
    ) -> Accepted:
        """Take one message whose files' bytes are `body`, for `endpoint`, or the office without one. Raises
        MeshnodeError, and then nothing of it is kept."""
        check = None
        if self._kinds is not None and manifest.kind and endpoint is None:
            check = await self._run_sync(partial(self._kinds.check, manifest))
        async with self._lock:
            number = next(self._numbers)
            self._answers[number] = answer = _Answer()
            try:
                size = stream_size(manifest)
                self._dispatch(
                    SubmissionOpened(
                        number,
                        size,
                        manifest.files_size,
                        priority,
                        label,
                        submitted_ms=manifest.submitted_ms,
                        endpoint=endpoint,
                    )
                )
                if not answer.is_there:
                    await self._feed(number, answer, stream_head(manifest), body, check)
                return await self._decided(answer)
            except BaseException:
                if not answer.is_there:
                    self._dispatch(SubmissionAborted(number))
                raise
            finally:
                del self._answers[number]

    async def _feed(
        self, number: int, answer: _Answer, head: bytes, body: AsyncIterator[bytes], check: Check | None
    ) -> None:
        chunker = Chunker()
        for chunk in chunker.feed(head):
            self._dispatch(SubmissionChunk(number, chunk))
        while True:
            with trio.move_on_after(STALL_S) as scope:
                piece = await anext(body, None)
            if scope.cancelled_caught:
                wrong = say("nothing more of it came for {seconds} s", seconds=round(STALL_S))
                raise BadSubmission(problem=wrong)
            if piece is None:
                break
            if check is not None:
                check.feed(piece)
            for chunk in chunker.feed(piece):
                await self._writer.room()
                if answer.is_there:
                    return
                self._dispatch(SubmissionChunk(number, chunk))
        if check is not None and check.is_whole:
            await self._run_sync(check.finish)
        self._dispatch(SubmissionChunk(number, chunker.rest()))

    async def _decided(self, answer: _Answer) -> Accepted:
        # The last part is on its way to the disk: from here on it is the store that decides, not the program.
        with trio.CancelScope(shield=True):
            await answer.wait()
        return answer.result()

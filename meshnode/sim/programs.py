"""Programs on a simulated device that hand messages to its node, one after the other, as `app.submissions` does.

A program may be slow, so that a message is cut off half-way by a power cut, or may go away before it has said all.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from meshnode.core.errors import MeshnodeError
from meshnode.core.ports import Accepted, Refused, SubmissionAborted, SubmissionChunk, SubmissionOpened
from meshnode.core.sealing import CHUNK_SIZE
from meshnode.sim.engine import Engine

Dispatch = Callable[[SubmissionOpened | SubmissionChunk | SubmissionAborted], None]


@dataclass(frozen=True, slots=True)
class Submission:
    """One message: its stream, the pause after each part, and after how many parts its program goes away, if it does
    (before the last)."""

    opened: SubmissionOpened
    stream: bytes | memoryview
    pace_s: float = 0.0
    gives_up_after: int | None = None

    def chunk(self, part: int) -> bytes:
        """Part `part`, from 0 on."""
        return bytes(self.stream[part * CHUNK_SIZE : (part + 1) * CHUNK_SIZE])


class Programs:
    """All that want to submit on one device, in a row. `ready` says whether its node is awake, and prepares it."""

    def __init__(self, engine: Engine, ready: Callable[[], bool], dispatch: Dispatch) -> None:
        self.accepted: dict[int, Accepted] = {}
        self.refused: dict[int, MeshnodeError] = {}
        #: Whose program went away.
        self.given_up: set[int] = set()
        self._engine = engine
        self._ready = ready
        self._dispatch = dispatch
        self._queue: deque[Submission] = deque()
        self._busy: int | None = None

    def put(self, submission: Submission) -> None:
        """Another one wants to submit."""
        self._queue.append(submission)
        self._next()

    def forget(self) -> None:
        """The power went off: whoever waited for an answer never gets one."""
        self._queue.clear()
        self._busy = None

    def answered(self, answer: Accepted | Refused) -> None:
        """The node has decided."""
        if isinstance(answer, Accepted):
            self.accepted[answer.submission] = answer
        else:
            self.refused[answer.submission] = answer.problem
        self._go_on()

    def _go_on(self) -> None:
        self._busy = None
        self._engine.after(0.0, self._next)

    def _next(self) -> None:
        if self._busy is None and self._queue and self._ready():
            submission = self._queue.popleft()
            self._busy = submission.opened.submission
            self._dispatch(submission.opened)
            self._feed(submission, 0)

    def _feed(self, submission: Submission, part: int) -> None:
        number = submission.opened.submission
        while self._busy == number and part * CHUNK_SIZE < len(submission.stream):
            if submission.gives_up_after == part:
                self.given_up.add(number)
                self._dispatch(SubmissionAborted(number))
                self._go_on()
                return
            self._dispatch(SubmissionChunk(number, submission.chunk(part)))
            part += 1
            if submission.pace_s:
                self._engine.after(submission.pace_s, partial(self._feed, submission, part))
                return

"""Virtual time: a heap of what is due, one source of chance, and a trace that proves that two runs were the same.

Nothing here sleeps and nothing knows the real time. Actions due at the same instant run in the order in which they
were asked for, and every draw comes from the seed, so a run is a function of its seed: its trace has the same bytes in
any process. Whoever iterates a set sorts it.
"""

from __future__ import annotations

import hashlib
import heapq
import random
from collections.abc import Callable

Action = Callable[[], None]


class Timer:
    """An action that is due; `cancel` makes it nothing."""

    __slots__ = ("action",)

    def __init__(self, action: Action) -> None:
        self.action: Action | None = action

    def cancel(self) -> None:
        """It will not happen."""
        self.action = None


class Trace:
    """What happened, line by line: always as a digest, as text only when somebody wants to read it (`is_read`)."""

    def __init__(self, write: Callable[[str], None] | None = None) -> None:
        self._write = write
        self._digest = hashlib.sha256()

    @property
    def is_read(self) -> bool:
        """Whether it is worth putting into words what only `mix` needs."""
        return self._write is not None

    def mix(self, data: bytes) -> None:
        """Something happened that nobody reads about: exactly these bytes."""
        self._digest.update(data)

    def tell(self, now_s: float, line: str) -> None:
        """For readers only: what `mix` was given, in words."""
        if self._write is not None:
            self._write(f"{now_s:14.3f} {line}")

    def note(self, now_s: float, line: str) -> None:
        """Something happened. `line` must not depend on anything but the seed."""
        text = f"{now_s:14.3f} {line}"
        self._digest.update(text.encode() + b"\n")
        if self._write is not None:
            self._write(text)

    @property
    def digest(self) -> str:
        """SHA-256 of all lines so far, in hex."""
        return self._digest.hexdigest()


class Engine:
    """The clock and the heap. `now_s` is the true time of the simulated world, from 0 on."""

    def __init__(self, seed: int, trace: Trace | None = None) -> None:
        self.now_s = 0.0
        self.random = random.Random(seed)
        self.trace = trace if trace is not None else Trace()
        self.steps = 0
        #: Called after every action: the judges.
        self.watchers: list[Action] = []
        self._heap: list[tuple[float, int, Timer]] = []
        self._count = 0

    def note(self, line: str) -> None:
        """A line of the trace, at the present instant."""
        self.trace.note(self.now_s, line)

    def at(self, due_s: float, action: Action) -> Timer:
        """Do `action` at `due_s`, at once if that is past."""
        timer = Timer(action)
        self._count += 1
        heapq.heappush(self._heap, (max(due_s, self.now_s), self._count, timer))
        return timer

    def after(self, delay_s: float, action: Action) -> Timer:
        """Do `action` in `delay_s` seconds."""
        return self.at(self.now_s + delay_s, action)

    def run_until(self, end_s: float) -> None:
        """Let everything happen that is due up to `end_s`, and leave the clock there."""
        while self._heap and self._heap[0][0] <= end_s:
            self.now_s, _, timer = heapq.heappop(self._heap)
            if timer.action is None:
                continue
            self.steps += 1
            timer.action()
            for watch in self.watchers:
                watch()
        self.now_s = max(self.now_s, end_s)

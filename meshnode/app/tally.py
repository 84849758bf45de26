"""What a daemon counts while it runs, for its metrics: bundles that came and went, commits, peers turned away.

The brain keeps no history, so this listens: the daemon tells it events and effects as they pass. All of it starts at
zero with the process, as counters of Prometheus do, and none of it decides anything.

A bundle counts as received once it is durable here, and as sent once the link has sent it. The link says how many bytes
it has sent and not of which bundles; it sends them in the order in which it was given them, so the oldest that fit into
those bytes are the ones.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter, deque
from typing import Final

from meshnode.app.watching import Watch
from meshnode.core.ports import (
    ContactNumber,
    DialFailed,
    Event,
    Lost,
    Opened,
    SendBundle,
    Sent,
    Token,
    Unreadable,
    Write,
    WriteFailed,
    Written,
)
from meshnode.core.rows import PutBundle, Row
from meshnode.core.state import State
from meshnode.drivers.writer import TidyStore

#: Upper bounds of the buckets, in seconds: from an SSD's sync to a disk that is dying.
COMMIT_BOUNDS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
LAG_BOUNDS_S: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0)
#: From a minute to two weeks: what lies between a recording and the office.
AGE_BOUNDS_S: Final = (
    60.0,
    300.0,
    900.0,
    3600.0,
    10_800.0,
    21_600.0,
    43_200.0,
    86_400.0,
    172_800.0,
    345_600.0,
    604_800.0,
    1_209_600.0,
)

#: Why a peer was refused: no certificate of this fleet, too many connections, its membership has ended, or it is not to
#: be met now (it broke the protocol a moment ago, or is met already).
REFUSALS: Final = ("certificate", "crowd", "revoked", "other")


class Histogram:
    """How many values were up to each of the ascending `bounds`, and their sum. One thread adds at a time."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.sum = 0.0
        self._counts = [0] * (len(bounds) + 1)

    def add(self, value: float) -> None:
        """One more value; a clock that went back a little has measured nothing."""
        value = max(0.0, value)
        self._counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    @property
    def count(self) -> int:
        """How many values there were."""
        return sum(self._counts)

    def cumulative(self) -> list[tuple[float | None, int]]:
        """(bound, how many were up to it), ascending; the last is (None, all)."""
        rows: list[tuple[float | None, int]] = []
        total = 0
        for bound, count in zip((*self.bounds, None), self._counts, strict=True):
            total += count
            rows.append((bound, total))
        return rows


class TimedStore:
    """A store for the writer, whose commits are timed."""

    def __init__(self, store: TidyStore, commits: Histogram) -> None:
        self._store = store
        self._commits = commits
        self.load, self.read, self.close = store.load, store.read, store.close
        self.tidy, self.sizes = store.tidy, store.sizes

    def commit(self, rows: list[Row], clock_s: float) -> None:
        """As `Store.commit`; one that fails has taken its time too."""
        began_s = time.perf_counter()
        try:
            self._store.commit(rows, clock_s)
        finally:
            self._commits.add(time.perf_counter() - began_s)


class _Coming:
    """Others' bundles of one write that is not durable yet; `ages_s` of those that end here."""

    __slots__ = ("ages_s", "bundles", "size_bytes")

    def __init__(self) -> None:
        self.bundles = self.size_bytes = 0
        self.ages_s: list[float] = []


class Tally:
    """The counts of one daemon. Sizes are payload bytes."""

    def __init__(self) -> None:
        self.received_bundles = self.received_bytes = 0
        self.sent_bundles = self.sent_bytes = 0
        self.opened = self.dial_failures = self.commit_failures = 0
        self.refused: Counter[str] = Counter()
        self.commits = Histogram(COMMIT_BOUNDS_S)
        self.lag = Histogram(LAG_BOUNDS_S)
        self.arrival_age = Histogram(AGE_BOUNDS_S)
        self.watch = Watch()
        self._coming: dict[Token, _Coming] = {}
        self._in_link: dict[ContactNumber, deque[int]] = {}
        self._drained: Counter[ContactNumber] = Counter()

    def write(self, effect: Write, state: State) -> None:
        """These rows are on their way to the disk."""
        coming: _Coming | None = None
        for row in effect.rows:
            if isinstance(row, PutBundle) and row.bundle.header.source != state.identity.device:
                coming = coming or _Coming()
                coming.bundles += 1
                coming.size_bytes += row.bundle.header.payload_size
                if row.bundle.header.destination in state.endpoints:
                    coming.ages_s.append(state.now.s - row.born_s)
        if coming is not None:
            self._coming[effect.token] = coming

    def send(self, effect: SendBundle) -> None:
        """A link was given a bundle."""
        self._in_link.setdefault(effect.contact, deque()).append(effect.size)

    def heard(self, event: Event, state: State) -> None:
        """The brain has taken this event in."""
        match event:
            case Sent():
                self._sent(event)
            case Written():
                for token in event.tokens:
                    if coming := self._coming.pop(token, None):
                        self._received(coming)
            case WriteFailed():
                self.commit_failures += 1
                for token in event.tokens:
                    self._coming.pop(token, None)
            case Unreadable():
                queue = self._in_link.get(event.contact)
                if queue and event.size in queue:
                    queue.remove(event.size)
            case Opened():
                self._opened(event, state)
            case Lost():
                self._in_link.pop(event.contact, None)
                self._drained.pop(event.contact, None)
            case DialFailed():
                self.dial_failures += 1
            case _:
                pass

    def _sent(self, event: Sent) -> None:
        self.sent_bytes += event.size
        queue = self._in_link.get(event.contact)
        left = self._drained[event.contact] + event.size
        while queue and queue[0] <= left:
            left -= queue.popleft()
            self.sent_bundles += 1
        self._drained[event.contact] = left

    def _received(self, coming: _Coming) -> None:
        self.received_bundles += coming.bundles
        self.received_bytes += coming.size_bytes
        for age_s in coming.ages_s:
            self.arrival_age.add(age_s)

    def _opened(self, event: Opened, state: State) -> None:
        if event.contact in state.contacts:
            self.opened += 1
        else:
            self.refused["revoked" if event.peer.device in state.document.revoked else "other"] += 1

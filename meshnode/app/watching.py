"""How an office's officers are, for those who watch from afar: the figures of `overview`, under names of their own.

What is a person's name in the overview is a label of a series here, so two devices of one name have to be told apart,
and those that were revoked are left out: nobody waits for them.

A device begins a journal with each start. After years there are thousands, and to count them all takes long enough that
contacts would wait, while a scrape comes every few seconds. So what was counted is told again for REST_SHARE times as
long as the counting took: moments, at any office of today.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Final

from meshnode.app.counting import Progress, progress
from meshnode.core.state import State

#: At most a hundredth of the time goes into counting.
REST_SHARE: Final = 100


@dataclass(frozen=True, slots=True)
class Officer:
    """One device that writes to this office. `seen_s`: how long ago it was heard of, None if that is not known.
    `delivered`, `waiting` (here, and not handed on), `missing`: bundles; `gaps`: runs of missing ones; `oldest_gap_s`:
    since when the first of them is known to be missing, 0 without any, None if that is not known."""

    name: str
    role: str
    seen_s: float | None
    delivered: int
    waiting: int
    missing: int
    gaps: int
    oldest_gap_s: float | None


def officers(state: State) -> list[Officer]:
    """All members that are known at this office, by name; none at any other node."""
    book = state.history.book
    if state.identity.office is None or book is None:
        return []
    state.history.settle()
    rows = [row for row in progress(state) if row.certificate.device not in state.document.revoked]
    times = Counter(row.certificate.name for row in rows)
    there = {contact.device for contact in state.greeted}
    found = []
    for row in rows:
        device, name = row.certificate.device, row.certificate.name
        seen_ms = state.now.wall_ms if device in there else book.seen.get(device, (None,))[0]
        found.append(
            Officer(
                name=name if times[name] == 1 else f"{name} ({device.hex()[:8]})",
                role=row.certificate.role,
                seen_s=None if seen_ms is None else _age_s(state, seen_ms),
                delivered=row.delivered,
                waiting=row.here,
                missing=row.on_the_way,
                gaps=sum(len(lack.missing.pairs) for lack in row.lacks),
                oldest_gap_s=_oldest_gap_s(state, row),
            )
        )
    return found


class Watch:
    """`officers` for those who ask often. `timer_s` measures how long the counting takes."""

    def __init__(self, timer_s: Callable[[], float] = time.perf_counter) -> None:
        self._timer_s = timer_s
        self._told: list[Officer] = []
        self._until_s = -inf

    def officers(self, state: State) -> list[Officer]:
        """As they are, or were when they were counted last."""
        began_s = self._timer_s()
        if began_s >= self._until_s:
            self._told = officers(state)
            ended_s = self._timer_s()
            self._until_s = ended_s + REST_SHARE * (ended_s - began_s)
        return self._told


def _age_s(state: State, at_ms: int) -> float:
    """Clocks may be set back."""
    return max(0.0, (state.now.wall_ms - at_ms) / 1000)


def _oldest_gap_s(state: State, row: Progress) -> float | None:
    if not row.lacks:
        return 0.0
    since_ms = [lack.since_ms for lack in row.lacks if lack.since_ms is not None]
    return _age_s(state, min(since_ms)) if since_ms else None

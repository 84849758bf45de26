"""What happened to bundles, and when: the times behind `meshnode why`, and the sums behind an office's overview.

The ledger and `custody` know how things are, and the time does not matter to any decision. A person asks since when.
So this remembers runs: numbers of one journal to which the same happened through the same peer within moments. A
contact that takes over three hundred records makes one run, and a message's story is read off the runs that it is in.

    HELD       a peer has said that it holds these own bundles
    LEFT       a peer that held these own bundles has said that it does not any more
    CAME       these bundles came to rest here; the peer brought them
    DISCARDED  others' bundles had to make room here, or expired
    DELIVERED  a receipt for them was learned here; the peer brought it. This device itself: they were handed on here

A number is in one run of a kind and peer at most, the first. Times are of the wall clock, which may be wrong, and right
within RUN_MS. There are at most RUNS_MAX runs of own journals and as many of others, so that a peer with many journals
cannot make a device forget about its own; the oldest go first.

Runs are written with what is committed anyway, or a moment later: a power cut costs the last seconds of the story, and
no bundle waits for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

from meshnode.core.book import Book
from meshnode.core.identity import DeviceId, JournalId
from meshnode.core.intervals import NONE, Pair, Ranges
from meshnode.core.ledger import Journal
from meshnode.core.rows import DropRuns, PutRun, Row, Snapshot

HELD: Final = 1
LEFT: Final = 2
CAME: Final = 3
DISCARDED: Final = 4
DELIVERED: Final = 5
KINDS: Final = frozenset({HELD, LEFT, CAME, DISCARDED, DELIVERED})

#: What happens within this counts as one.
RUN_MS: Final = 10_000
#: Some 2 MB on the disk, and weeks of a busy device.
RUNS_MAX: Final = 20_000
#: So old are changes at most before they are written, if there is a commit, or else the ticker's turn.
FLUSH_S: Final = 1.0
WAIT_S: Final = 5.0


class _Coming(NamedTuple):
    """Bundles of one journal from one peer that have come in these seconds."""

    journal: Journal
    at_ms: int
    numbers: list[int]
    sizes: list[int]


@dataclass(slots=True)
class _Story:
    """Of one journal: its runs by their numbers, and of each kind and peer all that was ever in one, and the newest."""

    runs: dict[int, PutRun] = field(default_factory=dict)
    ever: dict[tuple[int, DeviceId], Ranges] = field(default_factory=dict)
    newest: dict[tuple[int, DeviceId], int] = field(default_factory=dict)


class History:
    """Runs, and the book if this node keeps one, of what `counts` by where it goes to. `me` is this device. `wall_ms`
    and `now_s` are set at each event."""

    def __init__(
        self,
        me: DeviceId,
        snapshot: Snapshot,
        book: Book | None = None,
        counts: Callable[[bytes], bool] = lambda destination: True,
        runs_max: int = RUNS_MAX,
    ) -> None:
        self._me = me
        self._runs_max = runs_max
        self._counts = counts
        self.book = book
        self.wall_ms = 0
        self.now_s = 0.0
        self._stories: dict[JournalId, _Story] = {}
        #: The oldest first: of which journal each run is. Own ones, and those of others.
        self._order: tuple[dict[int, JournalId], dict[int, JournalId]] = ({}, {})
        self._coming: dict[tuple[JournalId, DeviceId], _Coming] = {}
        self._unsaved: dict[int, PutRun] = {}
        self._dropped: list[int] = []
        #: Since when something is not written.
        self._since_s: float | None = None
        own = {record.id for record in snapshot.journals if record.source == me}
        self._next = 1
        for run in snapshot.runs:
            self._keep(run, mine=run.journal in own)
        for story in self._stories.values():
            pairs: dict[tuple[int, DeviceId], list[Pair]] = {}
            for run in story.runs.values():
                pairs.setdefault((run.what, run.peer), []).append((run.first, run.last))
            story.ever = {key: Ranges(some) for key, some in pairs.items()}

    # --- what happens -------------------------------------------------------------------------------------------

    def note(
        self, journal: JournalId, what: int, peer: DeviceId, ranges: Ranges, *, mine: bool, at_ms: int
    ) -> None:
        """Something has happened to these bundles, unless it has before. `mine`: the journal is this device's own."""
        key = what, peer
        story = self._stories.get(journal) or _Story()
        if not (fresh := ranges - story.ever.get(key, NONE)):
            return
        for first, last in fresh.pairs:
            before = story.runs.get(story.newest.get(key, 0))
            if before and before.last + 1 == first and 0 <= at_ms - before.at_ms < RUN_MS:
                run = replace(before, last=last)
            else:
                run = PutRun(self._next, journal, what, peer, first, last, at_ms)
            self._unsaved[run.number] = run
            story = self._keep(run, mine=mine)
        story.ever[key] = story.ever.get(key, NONE) | fresh
        self._changed()

    def now(self, journal: JournalId, what: int, peer: DeviceId, ranges: Ranges, *, mine: bool) -> None:
        """As `note`, at this event's time."""
        self.note(journal, what, peer, ranges, mine=mine, at_ms=self.wall_ms)

    def came(self, journal: Journal, number: int, size: int, peer: DeviceId) -> None:
        """A bundle has come to rest here. Called for each, so it only adds it to the others."""
        place = journal.id, peer
        coming = self._coming.get(place)
        if coming is None or self.wall_ms - coming.at_ms > RUN_MS:
            self._settle(place)
            coming = self._coming[place] = _Coming(journal, self.wall_ms, [], [])
            self._changed()
        coming.numbers.append(number)
        coming.sizes.append(size)

    def met(self, device: DeviceId) -> None:
        """A contact with this device has begun or ended."""
        if self.book is not None:
            self.book.heard_of(device, device, self.wall_ms)
            self._changed()

    def handed_on(self, size_bytes: int, delay_s: float) -> None:
        """A message for the office was handed on here."""
        if self.book is not None:
            self.book.handed_on(size_bytes, delay_s, self.wall_ms)
            self._changed()

    def _settle(self, place: tuple[JournalId, DeviceId]) -> None:
        coming = self._coming.pop(place, None)
        if coming is None:
            return
        journal, peer = coming.journal, place[1]
        assert journal.source is not None
        mine = journal.source == self._me
        self.note(journal.id, CAME, peer, Ranges.of(coming.numbers), mine=mine, at_ms=coming.at_ms)
        if self.book is not None and not mine:
            size = sum(coming.sizes)
            if self._counts(journal.destination):
                self.book.brought(peer, journal.source, len(coming.numbers), size, coming.at_ms)
            self.book.heard_of(journal.source, peer, coming.at_ms)

    def _changed(self) -> None:
        if self._since_s is None:
            self._since_s = self.now_s

    def _keep(self, run: PutRun, *, mine: bool) -> _Story:
        """The story that it is in now."""
        self._next = max(self._next, run.number + 1)
        story = self._stories.setdefault(run.journal, _Story())
        story.runs[run.number] = run
        story.newest[run.what, run.peer] = run.number
        order = self._order[not mine]
        order[run.number] = run.journal
        while len(order) > self._runs_max:
            self._forget(order, next(iter(order)))
        return story

    def _forget(self, order: dict[int, JournalId], number: int) -> None:
        journal = order.pop(number)
        runs = self._stories[journal].runs
        del runs[number]
        self._unsaved.pop(number, None)
        self._dropped.append(number)
        if not runs:
            del self._stories[journal]

    # --- what is to be written ----------------------------------------------------------------------------------

    @property
    def due_s(self) -> float | None:
        """When `unsaved` is to be written at the latest; None if there is nothing."""
        return None if self._since_s is None else self._since_s + WAIT_S

    def due(self) -> list[Row]:
        """What a commit that is made anyway takes along: mostly nothing, since that waits for more of its kind."""
        if self._since_s is None or self.now_s - self._since_s < FLUSH_S:
            return []
        return list(self.unsaved())

    def unsaved(self) -> Iterator[Row]:
        """What has changed since this was last asked."""
        for place in list(self._coming):
            self._settle(place)
        yield from self._unsaved.values()
        if self._dropped:
            yield DropRuns(tuple(self._dropped))
        if self.book is not None:
            yield from self.book.unsaved()
        self._unsaved.clear()
        self._dropped.clear()
        self._since_s = None

    # --- what is asked ------------------------------------------------------------------------------------------

    def runs(self, journal: JournalId) -> list[PutRun]:
        """All that is remembered of a journal, the oldest first."""
        for place in [place for place in self._coming if place[0] == journal]:
            self._settle(place)
        story = self._stories.get(journal)
        return list(story.runs.values()) if story else []

    def settle(self) -> None:
        """Let the book have all that has come by now."""
        for place in list(self._coming):
            self._settle(place)

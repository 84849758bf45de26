"""The book of an office or a gateway: who brought what of whom, how long it took, and of whom was heard when.

A day has one row a pair of carrier and source, and one row for all that was handed on. So the book's size follows from
how many devices there are and how many days are kept, and not from how much passes. Nothing is written here for a
bundle: sums grow in memory, and whoever commits anyway takes along the rows that have changed.

How long it took is the age of a message's first bundle when it was handed on. Each carrier adds to that age what the
bundle has spent with it, so no two clocks are compared; what is lost is the time on a stick, and while a carrier was
switched off. Ages are counted in classes, eight in a doubling, so a quantile is right within 5 %; the longest is exact.

What was lost because a disk failed is missing from the book, and from nowhere else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import ceil, log2
from typing import Final

from meshnode.core.errors import RemoteError
from meshnode.core.fields import pack, unpack
from meshnode.core.identity import DeviceId
from meshnode.core.rows import DropDay, PutCarried, PutDay, PutSeen, Row, Snapshot

#: The newest days that have anything are kept: a clock that was wrong once makes a day too many, and removes none.
DAYS_MAX: Final = 400
DAY_MS: Final = 24 * 3600 * 1000
#: Classes of ages in a doubling, and how many there are: up to 2**40 s.
_CLASSES_PER_DOUBLING: Final = 8
_CLASSES: Final = 40 * _CLASSES_PER_DOUBLING + 2


class Delays:
    """How many messages took how long. Class 0 is less than a second."""

    def __init__(self, counts: Counter[int] | None = None, longest_s: int = 0) -> None:
        self._counts: Counter[int] = Counter() if counts is None else counts
        self.longest_s = longest_s
        self._told: dict[float, int | None] = {}

    def add(self, delay_s: float) -> None:
        """One more."""
        self._told.clear()
        self.longest_s = max(self.longest_s, int(delay_s))
        place = 0 if delay_s < 1 else 1 + int(_CLASSES_PER_DOUBLING * log2(delay_s))
        self._counts[min(place, _CLASSES - 1)] += 1

    def quantile_s(self, share: float) -> int | None:
        """What this share of all took at most, in seconds; None if there are none."""
        if share not in self._told:
            self._told[share] = self._quantile_s(share)
        return self._told[share]

    def _quantile_s(self, share: float) -> int | None:
        left = ceil(share * self._counts.total())
        for place, many in sorted(self._counts.items()):
            left -= many
            if left <= 0:
                middle_s = 0.0 if place == 0 else 2 ** ((place - 0.5) / _CLASSES_PER_DOUBLING)
                return min(round(middle_s), self.longest_s)
        return None

    def to_bytes(self) -> bytes:
        """As a row has them."""
        return pack([[place, many] for place, many in sorted(self._counts.items())])

    @classmethod
    def of(cls, row: PutDay) -> Delays:
        """As a row has them. Raises ValueError if it is none."""
        counts: Counter[int] = Counter()
        try:
            pairs = unpack(row.delays, "delays")
        except RemoteError as problem:
            raise ValueError(str(problem)) from None
        for pair in pairs:
            match pair:
                case [int() as place, int() as many] if 0 <= place < _CLASSES and many > 0:
                    counts[place] += many
                case _:
                    raise ValueError("delays")
        if counts.total() != row.messages:
            raise ValueError("messages")
        return cls(counts, row.delay_max_s)


@dataclass(slots=True)
class Day:
    """What was handed on here on one day."""

    messages: int = 0
    size_bytes: int = 0
    delays: Delays = field(default_factory=Delays)


@dataclass(slots=True)
class Carried:
    """What somebody brought of a source on one day."""

    bundles: int = 0
    size_bytes: int = 0


class Book:
    """Sums of the days. `offset_s`: by how much the time of day here is ahead of UTC."""

    def __init__(self, snapshot: Snapshot, offset_s: int = 0) -> None:
        self._offset_ms = 1000 * offset_s
        #: By day, carrier and source.
        self.carried = {
            (row.day, row.carrier, row.source): Carried(row.bundles, row.size_bytes)
            for row in snapshot.carried
        }
        #: The same of all days together, by carrier and source.
        self.totals: dict[tuple[DeviceId, DeviceId], Carried] = {}
        for (_, carrier, source), sums in self.carried.items():
            self._total(carrier, source, sums.bundles, sums.size_bytes)
        self.days = {row.day: Day(row.messages, row.size_bytes, Delays.of(row)) for row in snapshot.days}
        #: When each device was heard of last, and by whom.
        self.seen = {row.device: (row.at_ms, row.via) for row in snapshot.seen}
        self._known_days = {day for day, _, _ in self.carried} | set(self.days)
        self._unsaved_carried: set[tuple[int, DeviceId, DeviceId]] = set()
        self._unsaved_days: set[int] = set()
        self._unsaved_seen: set[DeviceId] = set()
        self._dropped: list[int] = []

    def brought(self, carrier: DeviceId, source: DeviceId, bundles: int, size_bytes: int, at_ms: int) -> None:
        """So much of a source has come with a carrier."""
        place = self._day(at_ms), carrier, source
        sums = self.carried.setdefault(place, Carried())
        sums.bundles += bundles
        sums.size_bytes += size_bytes
        self._total(carrier, source, bundles, size_bytes)
        self._unsaved_carried.add(place)
        self._know(place[0])

    def handed_on(self, size_bytes: int, delay_s: float, at_ms: int) -> None:
        """A message has been handed on, so long after it was recorded."""
        number = self._day(at_ms)
        day = self.days.setdefault(number, Day())
        day.messages += 1
        day.size_bytes += size_bytes
        day.delays.add(max(0.0, delay_s))
        self._unsaved_days.add(number)
        self._know(number)

    def heard_of(self, device: DeviceId, via: DeviceId, at_ms: int) -> None:
        """A device was in contact (`via` itself), or something of it has come."""
        self.seen[device] = at_ms, via
        self._unsaved_seen.add(device)

    def unsaved(self) -> Iterator[Row]:
        """What has changed since this was last asked."""
        for day, carrier, source in sorted(self._unsaved_carried):
            sums = self.carried[day, carrier, source]
            yield PutCarried(day, carrier, source, sums.bundles, sums.size_bytes)
        for number in sorted(self._unsaved_days):
            it = self.days[number]
            yield PutDay(number, it.messages, it.size_bytes, it.delays.longest_s, it.delays.to_bytes())
        for device in sorted(self._unsaved_seen):
            yield PutSeen(device, *self.seen[device])
        yield from map(DropDay, self._dropped)
        self._unsaved_carried.clear()
        self._unsaved_days.clear()
        self._unsaved_seen.clear()
        self._dropped.clear()

    def _total(self, carrier: DeviceId, source: DeviceId, bundles: int, size_bytes: int) -> None:
        sums = self.totals.setdefault((carrier, source), Carried())
        sums.bundles += bundles
        sums.size_bytes += size_bytes
        if not sums.bundles:
            del self.totals[carrier, source]

    def _day(self, at_ms: int) -> int:
        return (at_ms + self._offset_ms) // DAY_MS

    def _know(self, day: int) -> None:
        if day in self._known_days:
            return
        self._known_days.add(day)
        while len(self._known_days) > DAYS_MAX:
            oldest = min(self._known_days)
            self._known_days.discard(oldest)
            self.days.pop(oldest, None)
            for place in [place for place in self.carried if place[0] == oldest]:
                gone = self.carried.pop(place)
                self._total(place[1], place[2], -gone.bundles, -gone.size_bytes)
                self._unsaved_carried.discard(place)
            self._unsaved_days.discard(oldest)
            self._dropped.append(oldest)

"""A made-up fleet to plan with: a week of 12 officers on 7 motorbikes among hamlets without internet, as two CSV files.

Five motorbikes carry two officers. Each day one leaves its base office or where it spent the night, stops in some
hamlets of its own area or, now and then, of another's, sometimes passes an office on the way, and mostly comes back in
the evening. Some of the offices have internet, and their nodes are gateways; the others have a node that only carries.
Whoever is at one place at a time is in contact there, though phones that stand side by side still lose each other.
Every record is made by an officer during a stop in a hamlet. All draws come from the seed.
"""

from __future__ import annotations

import csv
import math
import random
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Final

from meshnode.core.errors import FileTrouble
from meshnode.core.words import say

_MINUTE: Final = 60.0
_HOUR: Final = 60 * _MINUTE
_DAY: Final = 24 * _HOUR

DAYS: Final = 7
#: Records are made on the first five; the others are there for what is still under way.
RECORDING_DAYS: Final = 5
RECORDS_A_DAY: Final = 300
RECORD_BYTES: Final = (100_000, 2_000_000)
#: Phones on one Wi-Fi, from the far end of a yard to the same table.
RATES_BYTES_PER_S: Final = (500_000, 1_000_000, 2_000_000, 4_000_000)

CONTACTS: Final = "contacts.csv"
WORKLOAD: Final = "workload.csv"

_OFFICERS: Final = [f"officer-{at:02d}" for at in range(1, 13)]
_CREWS: Final = [_OFFICERS[at : at + 2] for at in range(0, 10, 2)] + [[_OFFICERS[10]], [_OFFICERS[11]]]
_OFFICES: Final = [f"office-{at:02d}" for at in range(1, 16)]
_BASES: Final = _OFFICES[:4]
_GATEWAYS: Final = 5
_HAMLETS_EACH: Final = 6

Row = tuple[float | int | str, ...]


@dataclass(frozen=True, slots=True)
class Stay:
    """A motorbike at a place."""

    place: str
    start_s: float
    end_s: float
    bike: int


class _Week:
    """All motorbikes, day by day."""

    def __init__(self, seed: int) -> None:
        self.chance = chance = random.Random(seed)
        self.stays = [stay for bike in range(len(_CREWS)) for stay in self._bike(bike)]
        # Two bases have no internet, so that not everything ends there each evening.
        passed = sorted({stay.place for stay in self.stays}.intersection(_OFFICES[len(_BASES) :]))
        self.gateways = sorted(
            chance.sample(_BASES, 2) + chance.sample(passed, min(len(passed), _GATEWAYS - 2))
        )

    def _bike(self, bike: int) -> Iterator[Stay]:
        base = _BASES[bike % len(_BASES)]
        at_base = True
        for day in range(DAYS):
            start_s = day * _DAY + self.chance.uniform(7, 8) * _HOUR
            if at_base:
                leave_s = start_s + self.chance.uniform(10, 40) * _MINUTE
                yield Stay(base, start_s, leave_s, bike)
                start_s = leave_s
            at_base = not at_base or self.chance.random() < 0.7  # nobody stays out twice
            home_s = day * _DAY + self.chance.uniform(15.5, 17) * _HOUR
            yield from self._tour(bike, start_s, home_s)
            if at_base:
                yield Stay(
                    base, home_s + self.chance.uniform(20, 60) * _MINUTE, (day * 24 + 18.5) * _HOUR, bike
                )

    def _tour(self, bike: int, now_s: float, end_s: float) -> Iterator[Stay]:
        area = self.chance.randrange(len(_CREWS)) if self.chance.random() < 0.15 else bike
        stops = [
            f"hamlet-{area}{self.chance.randrange(_HAMLETS_EACH)}" for _ in range(self.chance.randint(2, 4))
        ]
        if self.chance.random() < 0.4:
            stops.insert(self.chance.randrange(len(stops) + 1), self.chance.choice(_OFFICES[len(_BASES) :]))
        for place in stops:
            now_s += self.chance.uniform(15, 50) * _MINUTE
            length = (
                self.chance.uniform(45, 140) if place.startswith("hamlet") else self.chance.uniform(3, 20)
            )
            leave_s = min(now_s + length * _MINUTE, end_s)
            if leave_s - now_s < _MINUTE:
                return
            yield Stay(place, now_s, leave_s, bike)
            now_s = leave_s

    # --- who is in contact ----------------------------------------------------------------------------------------

    def contacts(self) -> list[Row]:
        """Rows of the contacts, ascending."""
        at: defaultdict[str, list[tuple[str, float, float]]] = defaultdict(list)
        for stay in self.stays:
            at[stay.place] += [(officer, stay.start_s, stay.end_s) for officer in _CREWS[stay.bike]]
        for office in _OFFICES:
            at[office].append((office, 0.0, DAYS * _DAY))
        rows: list[Row] = []
        for place in sorted(at):
            for (left, start, end), (right, start2, end2) in combinations(at[place], 2):
                if left != right:
                    rows.extend(self._meetings(left, right, max(start, start2), min(end, end2)))
        return sorted(rows)

    def _meetings(self, left: str, right: str, now_s: float, end_s: float) -> Iterator[Row]:
        """Two phones at one place: contacts of half a minute to an hour, with pauses."""
        now_s += self.chance.uniform(5, 60)
        while end_s - now_s > 30:
            length_s = min(math.exp(self.chance.uniform(math.log(30), math.log(_HOUR))), end_s - now_s)
            rate = self.chance.choice(RATES_BYTES_PER_S)
            yield round(now_s, 1), round(now_s + length_s, 1), left, right, rate
            now_s += length_s + self.chance.expovariate(1 / (20 * _MINUTE)) + 1

    # --- what is recorded -----------------------------------------------------------------------------------------

    def workload(self) -> list[Row]:
        """Rows of the workload, ascending; sizes are log-uniform."""
        rows: list[Row] = []
        for day in range(RECORDING_DAYS):
            stops = [s for s in self.stays if s.place.startswith("hamlet") and s.start_s // _DAY == day]
            weights = [len(_CREWS[stop.bike]) * (stop.end_s - stop.start_s) for stop in stops]
            for stop in self.chance.choices(stops, weights, k=RECORDS_A_DAY):
                at_s = self.chance.uniform(stop.start_s, stop.end_s)
                size = math.exp(self.chance.uniform(*map(math.log, RECORD_BYTES)))
                rows.append((round(at_s, 1), self.chance.choice(_CREWS[stop.bike]), int(size)))
        return sorted(rows)


def write_example(folder: Path, seed: int) -> list[str]:
    """Write `contacts.csv` and `workload.csv` into `folder`; the names of the gateways. Raises FileTrouble: one of the
    files is there already, or cannot be written."""
    week = _Week(seed)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write(
            folder / CONTACTS, ("start_s", "end_s", "node_a", "node_b", "rate_bytes_per_s"), week.contacts()
        )
        _write(folder / WORKLOAD, ("t_s", "source", "size_bytes"), week.workload())
    except FileExistsError as error:
        raise FileTrouble(path=error.filename, problem="is there already: nothing was changed") from None
    except OSError as error:
        raise FileTrouble(
            path=folder, problem=say("cannot be written: {problem}", problem=error.strerror)
        ) from None
    return week.gateways


def _write(path: Path, header: Row, rows: Iterable[Row]) -> None:
    with path.open("x", encoding="utf-8", newline="") as file:
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow(header)
        lines.writerows(rows)

"""The tables of `core.history` and `core.book` in a store: what happened to bundles and when, and the sums of days.

Nothing depends on them but what people are told, so a row that is not as a store writes it is left out and counted, and
that is all. A day's row that is put again replaces the one before, and so does a run's.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, Final, TypeVar

from meshnode.core.book import Delays
from meshnode.core.history import KINDS
from meshnode.core.rows import DropDay, DropRuns, PutCarried, PutDay, PutRun, PutSeen, Row, Snapshot
from meshnode.drivers.sqlite.schema import is_id, is_number

#: Beyond this no wall clock is, in milliseconds, and no day.
_MS_MAX: Final = 2**53
_DAY_MAX: Final = 10**8
#: No sum is larger.
_SUM_MAX: Final = 2**62

RowT = TypeVar("RowT", PutRun, PutSeen, PutCarried, PutDay)


def apply(writer: sqlite3.Connection, row: Row) -> None:
    """Write one of these rows; nothing for any other."""
    do = writer.execute
    match row:
        case PutRun():
            run = row.number, row.journal, row.what, row.peer, row.first, row.last, row.at_ms
            do("INSERT OR REPLACE INTO run VALUES (?, ?, ?, ?, ?, ?, ?)", run)
        case DropRuns(numbers):
            writer.executemany("DELETE FROM run WHERE id = ?", [(number,) for number in numbers])
        case PutSeen(device, at_ms, via):
            do("INSERT OR REPLACE INTO seen VALUES (?, ?, ?)", (device, at_ms, via))
        case PutCarried(day, carrier, source, bundles, size_bytes):
            sums = day, carrier, source, bundles, size_bytes
            do("INSERT OR REPLACE INTO carried VALUES (?, ?, ?, ?, ?)", sums)
        case PutDay(day, messages, size_bytes, delay_max_s, delays):
            said = day, messages, size_bytes, delay_max_s, delays
            do("INSERT OR REPLACE INTO day VALUES (?, ?, ?, ?, ?)", said)
        case DropDay(day):
            do("DELETE FROM carried WHERE day = ?", (day,))
            do("DELETE FROM day WHERE day = ?", (day,))
        case _:
            pass


def load(writer: sqlite3.Connection, snapshot: Snapshot, damaged: Counter[str]) -> None:
    """Add all of them to a snapshot."""
    ask = writer.execute
    runs = ask("SELECT id, journal, what, peer, first, last, at_ms FROM run ORDER BY id")
    snapshot.runs = _whole(runs, read_run, "run", damaged)
    seen = ask("SELECT device, at_ms, via FROM seen ORDER BY device")
    snapshot.seen = _whole(seen, read_seen, "seen", damaged)
    carried = ask("SELECT day, carrier, source, bundles, size FROM carried ORDER BY day, carrier, source")
    snapshot.carried = _whole(carried, read_carried, "carried", damaged)
    days = ask("SELECT day, messages, size, longest_s, delays FROM day ORDER BY day")
    snapshot.days = _whole(days, read_day, "day", damaged)


def _whole(
    rows: Iterable[Any], read: Callable[[Any], RowT | None], kind: str, damaged: Counter[str]
) -> list[RowT]:
    found = []
    for values in rows:
        row = read(values)
        if row is None:
            damaged[kind] += 1
        else:
            found.append(row)
    return found


def read_run(values: Any) -> PutRun | None:
    """A run, if that is what these values are."""
    match values:
        case (int() as number, journal, int() as what, peer, first, last, int() as at_ms):
            times = number > 0 and abs(at_ms) < _MS_MAX and what in KINDS
            if times and is_id(journal, peer) and is_number(first) and is_number(last) and first <= last:
                return PutRun(number, journal, what, peer, first, last, at_ms)
    return None


def read_seen(values: Any) -> PutSeen | None:
    """When a device was heard of, if that is what these values are."""
    match values:
        case (device, int() as at_ms, via) if is_id(device, via) and abs(at_ms) < _MS_MAX:
            return PutSeen(device, at_ms, via)
    return None


def read_carried(values: Any) -> PutCarried | None:
    """A sum of a day, if that is what these values are."""
    match values:
        case (int() as day, carrier, source, int() as bundles, int() as size):
            if is_id(carrier, source) and abs(day) < _DAY_MAX and _are_sums(bundles, size):
                return PutCarried(day, carrier, source, bundles, size)
    return None


def read_day(values: Any) -> PutDay | None:
    """What was handed on, if that is what these values are."""
    match values:
        case (int() as day, int() as messages, int() as size, int() as longest_s, bytes() as delays):
            row = PutDay(day, messages, size, longest_s, delays)
            if abs(day) < _DAY_MAX and _are_sums(messages, size, longest_s):
                try:
                    Delays.of(row)
                except ValueError:
                    return None
                return row
    return None


def _are_sums(*values: int) -> bool:
    return all(0 <= value < _SUM_MAX for value in values)

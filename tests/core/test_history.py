"""What is remembered of bundles and when, and the sums of an office's days: `core.history` and `core.book`."""

from __future__ import annotations

from dataclasses import replace
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshnode.core.book import DAY_MS, DAYS_MAX, Book, Delays
from meshnode.core.history import CAME, DELIVERED, FLUSH_S, HELD, RUN_MS, WAIT_S, History
from meshnode.core.identity import DeviceId, JournalId
from meshnode.core.intervals import Ranges
from meshnode.core.ledger import Journal
from meshnode.core.rows import DropDay, DropRuns, JournalRecord, PutCarried, PutDay, PutRun, PutSeen, Snapshot
from meshnode.drivers.memory import MemoryStore

ME, SITI, BUDI = (DeviceId(bytes((n,)) * 16) for n in (1, 2, 3))
OWN, THEIRS = JournalId(b"o" * 16), JournalId(b"t" * 16)
OFFICE = b"K" * 16


def snapshot_of(store: MemoryStore) -> Snapshot:
    """What a start reads, of a device that has written OWN."""
    snapshot = store.load()
    snapshot.journals.append(JournalRecord(OWN, ME, OFFICE, b"e" * 8))
    return snapshot


def fresh(book: Book | None = None, runs_max: int = 100) -> History:
    return History(ME, Snapshot(), book, runs_max=runs_max)


def told(history: History, journal: JournalId = OWN) -> list[tuple[int, DeviceId, int, int, int]]:
    return [(run.what, run.peer, run.first, run.last, run.at_ms) for run in history.runs(journal)]


def test_what_happens_within_moments_is_one_run_and_later_another() -> None:
    history = fresh()
    for at_ms, numbers in ((0, (1, 2)), (RUN_MS - 1, (3, 3)), (RUN_MS, (4, 6))):
        history.note(OWN, HELD, SITI, Ranges([numbers]), mine=True, at_ms=at_ms)
    history.note(OWN, HELD, BUDI, Ranges([(1, 1), (5, 6)]), mine=True, at_ms=RUN_MS)
    assert told(history) == [
        (HELD, SITI, 1, 3, 0),
        (HELD, SITI, 4, 6, RUN_MS),
        (HELD, BUDI, 1, 1, RUN_MS),
        (HELD, BUDI, 5, 6, RUN_MS),
    ]


def test_a_clock_that_goes_back_begins_another_run() -> None:
    history = fresh()
    history.note(OWN, HELD, SITI, Ranges.single(1), mine=True, at_ms=5000)
    history.note(OWN, HELD, SITI, Ranges.single(2), mine=True, at_ms=4000)
    assert [run.at_ms for run in history.runs(OWN)] == [5000, 4000]


def test_what_was_noted_once_keeps_its_time() -> None:
    history = fresh()
    history.note(OWN, HELD, SITI, Ranges.span(1, 5), mine=True, at_ms=1)
    assert len(list(history.unsaved())) == 1
    history.note(OWN, HELD, SITI, Ranges.span(2, 4), mine=True, at_ms=99_000)
    assert history.due_s is None
    assert list(history.unsaved()) == []
    assert told(history) == [(HELD, SITI, 1, 5, 1)]


def test_a_start_goes_on_where_the_last_one_ended() -> None:
    store, history = MemoryStore(), fresh()
    history.note(OWN, HELD, SITI, Ranges.span(1, 2), mine=True, at_ms=1000)
    history.note(THEIRS, CAME, BUDI, Ranges.span(1, 9), mine=False, at_ms=1000)
    store.commit(list(history.unsaved()), 1.0)
    again = History(ME, snapshot_of(store))
    assert told(again) == [(HELD, SITI, 1, 2, 1000)]
    again.note(OWN, HELD, SITI, Ranges.span(1, 4), mine=True, at_ms=2000)
    store.commit(list(again.unsaved()), 2.0)
    assert told(History(ME, snapshot_of(store))) == [(HELD, SITI, 1, 4, 1000)]
    again.note(OWN, DELIVERED, BUDI, Ranges.span(1, 4), mine=True, at_ms=3000)
    store.commit(list(again.unsaved()), 2.0)
    assert [row.number for row in store.load().runs] == [1, 2, 3]


def test_a_row_is_written_when_something_is_committed_anyway_or_a_moment_later() -> None:
    history = fresh()
    history.now_s = 50.0
    history.note(OWN, HELD, SITI, Ranges.single(1), mine=True, at_ms=1)
    assert history.due() == []
    assert history.due_s == 50.0 + WAIT_S
    history.now_s = 50.0 + FLUSH_S
    assert history.due() == [PutRun(1, OWN, HELD, SITI, 1, 1, 1)]
    assert history.due() == []
    assert history.due_s is None


def test_bundles_that_come_are_one_row_however_many_they_are() -> None:
    book = Book(Snapshot())
    history, journal = fresh(book), Journal(THEIRS, SITI, OFFICE)
    for number in range(1, 3001):
        history.wall_ms = number
        history.came(journal, number, 8192, BUDI)
    rows = list(history.unsaved())
    assert rows == [
        PutRun(1, THEIRS, CAME, BUDI, 1, 3000, 1),
        PutCarried(0, BUDI, SITI, 3000, 3000 * 8192),
        PutSeen(SITI, 1, BUDI),
    ]
    history.wall_ms += RUN_MS + 1
    history.came(journal, 3001, 10, BUDI)
    history.wall_ms += RUN_MS + 1
    history.came(journal, 3003, 10, BUDI)
    assert told(history, THEIRS)[1:] == [
        (CAME, BUDI, 3001, 3001, 3000 + RUN_MS + 1),
        (CAME, BUDI, 3003, 3003, 3000 + 2 * RUN_MS + 2),
    ]


def test_what_does_not_go_to_the_office_is_not_carried_for_it_and_is_heard_of() -> None:
    book = Book(Snapshot())
    history = History(ME, Snapshot(), book, lambda destination: destination == OFFICE)
    history.came(Journal(THEIRS, SITI, b"x" * 16), 1, 10, BUDI)
    history.settle()
    assert book.carried == {}
    assert book.seen == {SITI: (0, BUDI)}


def test_there_are_only_so_many_runs_and_others_do_not_push_out_own_ones() -> None:
    store, history = MemoryStore(), fresh(runs_max=3)
    history.note(OWN, HELD, SITI, Ranges.single(1), mine=True, at_ms=0)
    for number in range(20):
        journal = JournalId(bytes((100 + number,)) * 16)
        history.note(journal, CAME, BUDI, Ranges.single(1), mine=False, at_ms=number)
        if number % 7 == 0:
            store.commit(list(history.unsaved()), 1.0)
    rows = list(history.unsaved())
    assert any(isinstance(row, DropRuns) for row in rows)
    store.commit(rows, 2.0)
    kept = store.load().runs
    assert [(run.journal, run.at_ms) for run in kept] == [
        (OWN, 0),
        *((JournalId(bytes((100 + number,)) * 16), number) for number in (17, 18, 19)),
    ]
    assert [history.runs(run.journal) for run in kept] == [[run] for run in kept]
    assert history.runs(JournalId(bytes((110,)) * 16)) == []


def test_more_runs_than_there_may_be_are_dropped_at_a_start() -> None:
    store = MemoryStore()
    store.commit([PutRun(number, THEIRS, CAME, BUDI, number, number, number) for number in range(1, 9)], 1.0)
    history = History(ME, snapshot_of(store), runs_max=2)
    assert [run.number for run in history.runs(THEIRS)] == [7, 8]
    store.commit(list(history.unsaved()), 2.0)
    assert [run.number for run in store.load().runs] == [7, 8]


# --- the book ---------------------------------------------------------------------------------------------------


def test_a_day_is_a_day_where_the_office_is() -> None:
    jakarta = Book(Snapshot(), 7 * 3600)
    for hour in (0, 16, 17, 40):  # UTC; midnight in Jakarta is at 17
        jakarta.handed_on(1000, 60.0, hour * 3_600_000)
    assert {day: it.messages for day, it in jakarta.days.items()} == {0: 2, 1: 2}


def test_the_book_is_the_same_after_a_start() -> None:
    store, book = MemoryStore(), Book(Snapshot())
    for delay_s in (0.2, 5.0, 86_400.0):
        book.handed_on(500, delay_s, 3 * DAY_MS)
    book.brought(BUDI, SITI, 3, 1500, 3 * DAY_MS)
    book.brought(BUDI, SITI, 2, 500, 4 * DAY_MS)
    book.heard_of(SITI, BUDI, 77)
    store.commit(list(book.unsaved()), 1.0)
    assert list(book.unsaved()) == []
    again = Book(store.load())
    assert (again.carried, again.totals, again.seen) == (book.carried, book.totals, book.seen)
    assert (again.totals[BUDI, SITI].bundles, again.totals[BUDI, SITI].size_bytes) == (5, 2000)
    again.handed_on(1, 1.0, 3 * DAY_MS)
    (row,) = (row for row in again.unsaved() if isinstance(row, PutDay))
    assert (row.messages, row.size_bytes, row.delay_max_s) == (4, 1501, 86_400)


def test_the_oldest_days_go_and_a_clock_that_was_wrong_once_takes_only_one() -> None:
    book = Book(Snapshot())
    book.brought(BUDI, SITI, 1, 10, 99_999 * DAY_MS)  # in the year 2243
    for day in range(DAYS_MAX):
        book.brought(BUDI, SITI, 1, 10, day * DAY_MS)
        book.handed_on(10, 1.0, day * DAY_MS)
    assert min(book.days) == 1
    assert len({day for day, _, _ in book.carried}) == DAYS_MAX
    assert book.totals[BUDI, SITI].bundles == DAYS_MAX
    rows = list(book.unsaved())
    assert rows[-1] == DropDay(0)
    assert not any(isinstance(row, PutCarried | PutDay) and row.day == 0 for row in rows)


@given(st.lists(st.floats(0, 1e9), min_size=1, max_size=60), st.sampled_from([0.1, 0.5, 0.9, 1.0]))
def test_a_quantile_of_delays_is_right_within_its_class(delays_s: list[float], share: float) -> None:
    delays = Delays()
    for delay_s in delays_s:
        delays.add(delay_s)
    row = PutDay(0, len(delays_s), 0, delays.longest_s, delays.to_bytes())
    exact = sorted(delays_s)[ceil(share * len(delays_s)) - 1]
    for each in (delays, Delays.of(row)):
        found = each.quantile_s(share)
        assert found is not None
        assert abs(found - exact) <= 0.05 * exact + 1
    assert delays.longest_s == int(max(delays_s))


def test_there_is_no_quantile_of_nothing() -> None:
    assert Delays().quantile_s(0.5) is None


@pytest.mark.parametrize("change", [{"delays": b""}, {"delays": b"\x91\x01"}, {"messages": 2}])
def test_delays_that_are_none(change: dict[str, object]) -> None:
    delays = Delays()
    delays.add(3.0)
    row = PutDay(0, 1, 5, 3, delays.to_bytes())
    Delays.of(row)
    with pytest.raises(ValueError, match=r"delays|messages"):
        Delays.of(replace(row, **change))  # type: ignore[arg-type]

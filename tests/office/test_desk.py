"""The desk: every whole message is handed on once, and receipted; whatever does not go is kept, and said."""

from __future__ import annotations

import json
import os
import random
import shutil
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from meshnode.core.bundle import Bundle, Previous
from meshnode.core.errors import StoreTrouble
from meshnode.core.identity import Certificate, JournalId
from meshnode.core.intervals import NONE, Ranges
from meshnode.core.message import Manifest
from meshnode.core.rows import StoredBundle
from meshnode.office import desk as desk_module
from meshnode.office.desk import Desk
from meshnode.office.opening import Read
from meshnode.office.sinks import Delivery, Envelope, Never, NotNow, Sink
from meshnode.office.sinks.directory import INCOMING, DirectorySink
from tests.office.disk import Disk, Killed
from tests.office.world import (
    BUDI,
    DAY_MS,
    ENDPOINT,
    EVENING_MS,
    KEYS,
    SITI,
    Device,
    Office,
    Shelf,
    Writer,
    chunks_of,
    inline,
    leaves,
    stream_of,
)

Contents = list[tuple[str, bytes]]


def contents_of(number: int) -> Contents:
    """What message `number` of a journal holds: different for each."""
    return [("foto.jpg", b"%d" % number * (50 + number)), ("formulir.json", b'{"n":%d}' % number)]


def messages(writer: Writer, count: int, size: int | None = 90) -> list[list[Bundle]]:
    return [writer.write(chunks_of(stream_of(contents_of(number)), size)) for number in range(1, count + 1)]


class ScriptedSink:
    """Takes messages into memory; `says` may answer otherwise."""

    def __init__(self, says: Callable[[Envelope], None] = lambda envelope: None) -> None:
        self.says = says
        self.offered: list[str] = []
        self.taken: dict[str, Envelope] = {}

    def begin(self, envelope: Envelope, manifest: Manifest) -> Delivery | None:
        self.offered.append(envelope.key)
        self.says(envelope)
        assert envelope.key not in self.taken, "offered again without need"
        return _Taking(self, envelope)


class _Taking:
    def __init__(self, sink: ScriptedSink, envelope: Envelope) -> None:
        self._sink = sink
        self._envelope = envelope

    def write(self, index: int, data: bytes | memoryview) -> None:
        pass

    def commit(self) -> None:
        self._sink.taken[self._envelope.key] = self._envelope

    def abort(self) -> None:
        pass


def desk_for(
    office: Office,
    sink: Sink,
    read: Read | None = None,
    threads: bool = False,
    endpoint: bytes = ENDPOINT,
    refuses: Callable[[Certificate], str | None] = lambda _: None,
) -> Desk:
    """A desk on this office; without `threads` in one thread, as a test needs that owns the clock."""
    wiring = (office.state, endpoint, KEYS, sink, read or office.shelf.read, office.on_taken, office.log)
    if threads:
        return Desk(*wiring, refuses=refuses, on_rotten=office.on_rotten)
    return Desk(*wiring, refuses=refuses, on_rotten=office.on_rotten, run_sync=inline)


@asynccontextmanager
async def working(desk: Desk) -> AsyncIterator[None]:
    """The desk at work, until the block ends."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(desk.run)
        yield
        nursery.cancel_scope.cancel()


def wake(desk: Desk, bundles: Iterable[Bundle]) -> None:
    for journal in {bundle.header.journal: None for bundle in bundles}:
        desk.wake(journal)


def flat(groups: Iterable[Iterable[Bundle]]) -> list[Bundle]:
    return [bundle for group in groups for bundle in group]


def problem_of(desk: Desk) -> str | None:
    # asked anew each time, which a type checker does not expect
    return None if desk.problem is None else str(desk.problem)


def quarantined(desk: Desk) -> dict[str, str]:
    return {key: str(why) for key, why in desk.quarantined.items()}


def key(writer: Writer, first: int) -> str:
    return f"{writer.journal.hex()}:{first}"


# --- the way of a message ---


async def test_what_arrives_is_handed_on_and_signed_for(tmp_path: Path) -> None:
    office, writer = Office(Shelf()), Writer(SITI)
    whole = messages(writer, 3)
    desk = desk_for(office, DirectorySink(tmp_path), threads=True)
    told = trio.Event()
    office_on_taken = office.on_taken

    def on_taken(journal: JournalId, ranges: Ranges) -> None:
        office_on_taken(journal, ranges)
        if office.state.ledger.journals[journal].receipted == Ranges.span(1, writer.last):
            told.set()

    desk._on_taken = on_taken
    with trio.fail_after(10):
        async with working(desk):
            office.arrive(flat(whole))
            wake(desk, flat(whole))
            await told.wait()
    assert office.shelf.bundles == {}
    assert in_clear(tmp_path) == {
        key(writer, group[0].header.number): dict(contents_of(number))
        for number, group in enumerate(whole, 1)
    }
    assert office.lines == []


async def test_what_was_there_before_the_start_is_looked_at(autojump_clock: MockClock) -> None:
    shelf, writers = Shelf(), [Writer(SITI), Writer(BUDI)]
    for writer in writers:
        for bundle in flat(messages(writer, 2)):
            shelf.put(bundle)
    office, sink = Office(shelf), ScriptedSink()
    async with working(desk_for(office, sink)):
        await wait_all_tasks_blocked()
    assert len(sink.taken) == 4
    assert shelf.bundles == {}


async def test_a_message_waits_for_its_last_part(autojump_clock: MockClock) -> None:
    office, sink, writer = Office(Shelf()), ScriptedSink(), Writer(SITI)
    first, second = messages(writer, 2)
    desk = desk_for(office, sink)
    async with working(desk):
        office.arrive([*second[1:], *first], EVENING_MS - 100)
        wake(desk, first)
        await wait_all_tasks_blocked()
        assert list(sink.taken) == [key(writer, 1)]
        assert desk.gaps() == {writer.journal: Ranges.single(second[0].header.number)}
        office.arrive(second[:1], EVENING_MS)
        wake(desk, second)
        await wait_all_tasks_blocked()
    assert sink.taken[key(writer, second[0].header.number)].received_ms == EVENING_MS
    assert desk.gaps() == {}


async def test_receipts_flow_in_small_batches(autojump_clock: MockClock) -> None:
    office, sink, writer = Office(Shelf()), ScriptedSink(), Writer(SITI)
    office.arrive(flat(messages(writer, 2 * desk_module.BATCH + 5, None)))
    async with working(desk_for(office, sink)):
        await wait_all_tasks_blocked()
    assert [len(ranges) for _, ranges in office.taken] == [64, 64, 5]


async def test_what_is_taken_is_not_offered_again_while_the_receipt_is_on_its_way(
    autojump_clock: MockClock,
) -> None:
    office, sink, writer = Office(Shelf()), ScriptedSink(), Writer(SITI)
    desk = desk_for(office, sink)
    told: list[Ranges] = []
    desk._on_taken = lambda journal, ranges: told.append(ranges)
    async with working(desk):
        for group in messages(writer, 3):
            office.arrive(group)
            wake(desk, group)
            await wait_all_tasks_blocked()
    assert len(sink.offered) == len(told) == 3


async def test_another_office_node_was_faster(autojump_clock: MockClock) -> None:
    office, writer = Office(Shelf()), Writer(SITI)
    first, second, third = messages(writer, 3)
    second_numbers = Ranges.of(bundle.header.number for bundle in second)

    def says(envelope: Envelope) -> None:
        if envelope.key.endswith(":1"):
            office.on_taken(writer.journal, second_numbers)

    office.arrive([*first, *second, *third])
    before = Shelf(dict(office.shelf.bundles))  # the store has not yet let go of what the ledger has
    sink = ScriptedSink(says)
    async with working(desk_for(office, sink, before.read)):
        await wait_all_tasks_blocked()
    assert list(sink.taken) == [key(writer, 1), key(writer, third[0].header.number)]


async def test_journals_that_are_not_for_this_office_are_left_alone(autojump_clock: MockClock) -> None:
    office, sink, writer = Office(Shelf()), ScriptedSink(), Writer(SITI)
    office.arrive(flat(messages(writer, 1)))
    desk = desk_for(office, sink, endpoint=b"another endpoint")
    async with working(desk):
        desk.wake(writer.journal)
        desk.wake(JournalId(b"never heard of.."))
        await wait_all_tasks_blocked()
    assert sink.offered == []


# --- not now ---


async def test_a_sink_that_cannot_take_is_asked_again_ever_less_often(autojump_clock: MockClock) -> None:
    asked: list[float] = []
    problems = ["the disk is full"]

    def says(envelope: Envelope) -> None:
        asked.append(trio.current_time())
        for problem in problems:
            raise NotNow(problem)

    office, sink, writer = Office(Shelf()), ScriptedSink(says), Writer(SITI)
    (message,) = messages(writer, 1)
    office.arrive(message)
    desk = desk_for(office, sink)
    start = trio.current_time()
    async with working(desk):
        await trio.sleep(2000)
        assert problem_of(desk) == "the disk is full."
        rests = [after - before for before, after in pairwise(asked)]
        assert rests[:9] == [1, 2, 4, 8, 16, 32, 64, 128, 256]
        assert set(rests[9:]) == {300}
        assert asked[0] == start
        assert office.lines == ["messages wait here: the disk is full."]
        assert office.taken == []
        assert len(office.shelf.bundles) == len(message)
        problem = problems.pop()
        await trio.sleep(300)
        assert problem_of(desk) is None
        assert office.lines[1:] == ["messages are handed on again"]
        assert list(sink.taken) == [key(writer, 1)]
        # and the next trouble begins with a short rest again
        asked.clear()
        problems.append(problem)
        (second,) = messages(writer, 1)
        office.arrive(second)
        wake(desk, second)
        await trio.sleep(2)
        assert [after - before for before, after in pairwise(asked)] == [1]


async def test_what_comes_during_a_rest_is_remembered_and_does_not_end_it(autojump_clock: MockClock) -> None:
    office, writer, other = Office(Shelf()), Writer(SITI), Writer(BUDI)

    def says(envelope: Envelope) -> None:
        if trio.current_time() < start + 7:
            raise NotNow("the disk is full")

    sink = ScriptedSink(says)
    desk = desk_for(office, sink)
    start = trio.current_time()
    async with working(desk):
        first, *rest = messages(writer, 4)
        office.arrive(first)
        wake(desk, first)
        await trio.sleep(3.5)
        asked = len(sink.offered)
        late = [*flat(rest), *flat(messages(other, 2))]
        office.arrive(late)
        wake(desk, late)
        await trio.sleep(1)
        assert len(sink.offered) == asked
        await trio.sleep(10)
        assert len(sink.taken) == 6
    assert office.shelf.bundles == {}
    assert office.lines == ["messages wait here: the disk is full.", "messages are handed on again"]


async def test_one_message_that_cannot_go_now_does_not_hold_up_the_others(autojump_clock: MockClock) -> None:
    fits = False

    def says(envelope: Envelope) -> None:
        if envelope.key == large and not fits:
            raise NotNow("too large for what is free")

    office, sink, writer, other = Office(Shelf()), ScriptedSink(says), Writer(SITI), Writer(BUDI)
    large = key(writer, 1)
    office.arrive([*flat(messages(writer, 5)), *flat(messages(other, 5))])
    desk = desk_for(office, sink)
    async with working(desk):
        await trio.sleep(1.5)
        assert len(sink.taken) == 9
        assert problem_of(desk) == "too large for what is free."
        assert office.state.ledger.journals[other.journal].on_offer == NONE
        await trio.sleep(1000)
        assert sink.offered.count(large) < 15
        assert office.lines == ["messages wait here: too large for what is free."]
        fits = True
        await trio.sleep(300)
        assert large in sink.taken
        assert problem_of(desk) is None


async def test_a_message_that_waited_and_went_elsewhere_leaves_no_alarm(autojump_clock: MockClock) -> None:
    def says(envelope: Envelope) -> None:
        raise NotNow("the disk is full")

    office, sink, writer = Office(Shelf()), ScriptedSink(says), Writer(SITI)
    office.arrive(flat(messages(writer, 1)))
    desk = desk_for(office, sink)
    async with working(desk):
        await trio.sleep(0.5)
        office.on_taken(writer.journal, Ranges.span(1, writer.last))  # by another node of this office
        await trio.sleep(10)
        assert problem_of(desk) is None


# --- never ---


async def test_a_refused_message_is_put_aside_once_and_the_others_go_on(autojump_clock: MockClock) -> None:
    def says(envelope: Envelope) -> None:
        if envelope.key == refused:
            raise Never("the registry does not know its kind")

    office, sink, writer = Office(Shelf()), ScriptedSink(says), Writer(SITI)
    groups = messages(writer, 3)
    refused = key(writer, groups[1][0].header.number)
    desk = desk_for(office, sink)
    async with working(desk):
        for group in groups:
            office.arrive(group)
            wake(desk, group)
            await wait_all_tasks_blocked()
        wake(desk, groups[0])
        await wait_all_tasks_blocked()
    assert quarantined(desk) == {refused: "the registry does not know its kind."}
    assert sink.offered.count(refused) == 1
    assert len(sink.taken) == 2
    assert office.lines == [f"message {refused} of officer-07 is quarantined; the status says why"]
    numbers = Ranges.of(bundle.header.number for bundle in groups[1])
    assert office.state.ledger.journals[writer.journal].on_offer == numbers
    assert problem_of(desk) is None
    # another node of the office may deliver it
    kept = Shelf(dict(office.shelf.bundles), dict(office.shelf.receipts))
    office.on_taken(writer.journal, numbers)
    assert quarantined(desk) == {}
    # a daemon that starts again tries once more
    again = ScriptedSink()
    async with working(desk_for(Office(kept), again)):
        await wait_all_tasks_blocked()
    assert list(again.taken) == [refused]


async def test_what_does_not_open_is_put_aside_and_its_name_stays_out_of_the_log(
    autojump_clock: MockClock,
) -> None:
    office, sink, writer = Office(Shelf()), ScriptedSink(), Writer(SITI)
    office.arrive(writer.write(chunks_of(stream_of([("../Siti Nurhayati.jpg", b"x")]))))
    office.arrive(flat(messages(writer, 1)))
    desk = desk_for(office, sink)
    async with working(desk):
        await wait_all_tasks_blocked()
    assert list(desk.quarantined) == [key(writer, 1)]
    assert "Siti Nurhayati" in quarantined(desk)[key(writer, 1)]
    assert not any("Siti" in line for line in office.lines)
    assert list(sink.taken) == [key(writer, 2)]


async def test_numbers_that_contradict_each_other_are_said_once_and_kept(autojump_clock: MockClock) -> None:
    office, sink, writer = Office(Shelf()), ScriptedSink(), Writer(SITI)
    whole, liar, last = messages(writer, 3)
    lie = liar[1].header.number
    writer.last = lie - 1
    (liar[1],) = writer.write([b"x"])
    desk = desk_for(office, sink)
    async with working(desk):
        office.arrive([*whole, *liar, *last])
        for _ in range(2):
            wake(desk, whole)
            await wait_all_tasks_blocked()
    numbers = Ranges.of(bundle.header.number for bundle in liar)
    assert len(sink.taken) == 2
    assert quarantined(desk) == {f"{writer.journal.hex()}:{numbers}": "its bundles contradict each other"}
    assert office.lines == [
        f"journal {writer.journal.hex()} has bundles that contradict each other: {numbers}"
    ]


# --- what the store does not give back ---


async def test_a_rotten_bundle_is_reported_and_the_message_comes_when_it_was_fetched_again(
    autojump_clock: MockClock,
) -> None:
    office, sink, writer = Office(Shelf()), ScriptedSink(), Writer(SITI)
    (message,) = messages(writer, 1)
    office.arrive(message)
    at = writer.journal, 2
    office.shelf.bundles[at] = office.shelf.bundles[at]._replace(payload=b"rot")
    desk = desk_for(office, sink)
    async with working(desk):
        await wait_all_tasks_blocked()
        assert office.rotten == [at]
        assert quarantined(desk) == {}
        assert desk.gaps() == {writer.journal: Ranges.single(2)}
        office.arrive([message[1]])
        wake(desk, message)
        await wait_all_tasks_blocked()
    assert list(sink.taken) == [key(writer, 1)]


async def test_a_bundle_that_was_let_go_of_in_between_is_no_rot(autojump_clock: MockClock) -> None:
    office, sink, writer = Office(Shelf()), ScriptedSink(), Writer(SITI)
    (message,) = messages(writer, 1)
    office.arrive(message)
    desk_reads: list[int] = []

    def read(journal: JournalId, number: int) -> StoredBundle | None:
        desk_reads.append(number)
        if len(desk_reads) == 3:
            office.on_taken(journal, Ranges.span(1, writer.last))  # another node of this office
        return office.shelf.read(journal, number)

    async with working(desk_for(office, sink, read)):
        await wait_all_tasks_blocked()
    assert office.rotten == []
    assert sink.taken == {}


async def test_a_store_in_trouble_loses_no_message(autojump_clock: MockClock) -> None:
    office, sink, writer = Office(Shelf()), ScriptedSink(), Writer(SITI)
    (message,) = messages(writer, 1)
    office.arrive(message)
    broken = True

    def read(journal: JournalId, number: int) -> StoredBundle | None:
        if broken:
            raise StoreTrouble(path=Path("store"), problem="disk I/O error")
        return office.shelf.read(journal, number)

    desk = desk_for(office, sink, read)
    async with working(desk):
        await wait_all_tasks_blocked()
        assert office.rotten == []
        assert "disk I/O error" in str(desk.problem)
        broken = False
        await trio.sleep(3)
    assert list(sink.taken) == [key(writer, 1)]


# --- who wrote it ---


async def test_a_revoked_source_is_held_apart_from_the_moment_it_is_known(autojump_clock: MockClock) -> None:
    office, sink, writer = Office(Shelf()), ScriptedSink(), Writer(SITI)
    before, after = messages(writer, 2)
    desk = desk_for(office, sink)
    async with working(desk):
        office.arrive(before)
        wake(desk, before)
        await wait_all_tasks_blocked()
        office.state.document = replace(office.state.document, revoked=frozenset({SITI.id}))
        office.arrive(after)
        wake(desk, after)
        await wait_all_tasks_blocked()
    assert [envelope.held for envelope in sink.taken.values()] == [None, "the source device was revoked"]
    assert office.shelf.bundles == {}


async def test_a_restored_device_is_reported_once_and_all_it_wrote_is_delivered(
    autojump_clock: MockClock,
) -> None:
    office, sink = Office(Shelf()), ScriptedSink()
    old = Writer(SITI, b"epoch--0")
    office.arrive(flat(messages(old, 1)))
    previous = Previous(old.journal, old.last + 2)
    writers = [Writer(SITI, epoch, previous) for epoch in (b"epoch--1", b"epoch--2", b"epoch--3")]
    # Budi's word on a journal of Siti's says nothing
    writers.append(Writer(BUDI, b"epoch--1", Previous(old.journal, old.last + 9)))
    desk = desk_for(office, sink)
    async with working(desk):
        for at, writer in enumerate(writers):
            group = flat(messages(writer, 1))
            office.arrive(group)
            wake(desk, group)
            await wait_all_tasks_blocked()
            assert len(desk.restored) == (1 if at else 0)
    assert len(sink.taken) == 5
    (text,) = map(str, desk.restored)
    assert text.startswith("restored device: the store of officer-07 ")
    assert office.lines == [text]
    # the successors also prove that two numbers of the old journal are still missing
    assert desk.gaps() == {old.journal: Ranges.span(old.last + 1, old.last + 2)}


# --- being cancelled ---


async def test_a_message_in_a_thread_is_finished_and_signed_for_when_the_desk_is_cancelled() -> None:
    office, writer = Office(Shelf()), Writer(SITI)
    office.arrive(flat(messages(writer, 2)))
    entered, leave = trio.Event(), threading.Event()

    def says(envelope: Envelope) -> None:
        trio.from_thread.run_sync(entered.set)
        assert leave.wait(10)

    sink = ScriptedSink(says)
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(desk_for(office, sink, threads=True).run)
            await entered.wait()
            nursery.cancel_scope.cancel()
            leave.set()
    assert list(sink.taken) == [key(writer, 1)]
    numbers = [bundle for journal, bundle in office.shelf.bundles]
    assert [ranges for _, ranges in office.taken] == [Ranges.span(1, min(numbers) - 1)]


# --- whatever happens, once ---


@dataclass(frozen=True)
class Plan:
    """Journals (device, epoch, messages: files' contents, and how the stream is cut), at which steps a process dies,
    and a seed for the order of arrival."""

    journals: list[tuple[Device, bytes, list[tuple[list[bytes], int | None]]]]
    deaths: list[int]
    seed: int

    def write(self) -> dict[str, tuple[Contents, list[Bundle]]]:
        """By key: what was written, and its bundles."""
        written: dict[str, tuple[Contents, list[Bundle]]] = {}
        for device, epoch, drawn in self.journals:
            writer = Writer(device, epoch)
            for files, size in drawn:
                contents = [(f"{at}.bin", data) for at, data in enumerate(files)]
                first = writer.last + 1
                written[key(writer, first)] = contents, writer.write(chunks_of(stream_of(contents), size))
        return written


drawn_messages = st.tuples(
    st.lists(st.binary(max_size=300), min_size=1, max_size=3), st.sampled_from([None, 100, 250])
)
plans = st.builds(
    Plan,
    st.lists(
        st.tuples(
            st.sampled_from([SITI, BUDI]),
            st.sampled_from([b"epoch--1", b"epoch--2"]),
            st.lists(drawn_messages, min_size=1, max_size=3),
        ),
        min_size=1,
        max_size=3,
        unique_by=lambda journal: (journal[0].id, journal[1]),
    ),
    st.lists(st.integers(1, 120), max_size=4),
    st.integers(0, 999),
)


def in_clear(root: Path) -> dict[str, dict[str, bytes]]:
    """All that a program sees in the sink's folder: by key, the files' bytes by name."""
    found: dict[str, dict[str, bytes]] = {}
    for path in root.rglob("message.json"):
        if INCOMING not in path.relative_to(root).parts:
            record = json.loads(path.read_text("utf-8"))
            assert record["key"] not in found
            found[record["key"]] = {
                file["name"]: (path.parent / file["name"]).read_bytes() for file in record["files"]
            }
    return found


class Forgetful(Office):
    """An office whose receipts are lost, some of them, if the process dies before it comes to rest."""

    def __init__(self, shelf: Shelf, chance: random.Random) -> None:
        super().__init__(shelf)
        self._chance = chance
        self._waiting: list[tuple[JournalId, Ranges]] = []

    def on_taken(self, journal_id: JournalId, ranges: Ranges) -> None:
        if self._chance.random() < 0.5:
            self._waiting.append((journal_id, ranges))
        else:
            super().on_taken(journal_id, ranges)

    def rest(self) -> None:
        for journal_id, ranges in self._waiting:
            super().on_taken(journal_id, ranges)
        self._waiting.clear()


async def one_process(office: Forgetful, root: Path, arriving: list[Bundle], chance: random.Random) -> None:
    """Start, let some bundles arrive in small groups, and come to rest. Raises Killed, in a group."""
    desk = desk_for(office, DirectorySink(root))
    async with working(desk):
        await wait_all_tasks_blocked()
        while arriving:
            count = chance.randint(1, 4)
            group = arriving[:count]
            del arriving[:count]
            office.arrive(group, EVENING_MS + chance.randint(0, 3 * DAY_MS))
            wake(desk, group)
            await wait_all_tasks_blocked()
        office.rest()


@settings(max_examples=50, deadline=None)
@given(plans)
def test_every_message_is_there_once_whatever_the_order_and_whenever_the_office_dies(plan: Plan) -> None:
    chance = random.Random(plan.seed)
    written = plan.write()
    expected = {at: dict(contents) for at, (contents, _) in written.items()}
    arriving = flat(bundles for _, bundles in written.values())
    chance.shuffle(arriving)
    shelf, base = Shelf(), Path(tempfile.mkdtemp())
    try:
        disk = Disk(base)
        for kill_at in [*plan.deaths, 0]:
            with disk.run(kill_at=kill_at):
                try:
                    trio.run(one_process, Forgetful(shelf, chance), base / "inbox", arriving, chance)
                except BaseException as error:
                    if not all(isinstance(leaf, Killed) for leaf in leaves(error)):
                        raise
            assert in_clear(base / "inbox").items() <= expected.items()
        assert in_clear(base / "inbox") == expected
        incoming = base / "inbox" / INCOMING
        assert not incoming.exists() or os.listdir(incoming) == []
        assert shelf.bundles == {}
    finally:
        shutil.rmtree(base)


async def test_whom_the_desk_refuses_is_put_aside_unopened(autojump_clock: MockClock) -> None:
    office, sink, writer = Office(Shelf()), ScriptedSink(), Writer(SITI)
    office.arrive(flat(messages(writer, 1)))
    desk = desk_for(office, sink, refuses=lambda source: f"{source.name} may not write here")
    async with working(desk):
        await wait_all_tasks_blocked()
    assert sink.offered == []
    (reason,) = quarantined(desk).values()
    assert reason.endswith("may not write here.")

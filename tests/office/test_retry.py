"""Trying a message again that was put aside: what becomes of it, and what the desk says of those that are kept."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from meshnode.office.desk import (
    CONTRADICTS,
    DELIVERED,
    QUARANTINED,
    REFUSED,
    RETRY_S,
    UNREADABLE,
    UNWELCOME,
    WAITING,
    NotQuarantined,
)
from meshnode.office.sinks import Envelope, Never, NotNow
from tests.office.test_desk import ScriptedSink, desk_for, flat, key, messages, wake, working
from tests.office.world import SITI, Office, Shelf, Writer, chunks_of, stream_of


class Moody:
    """A sink's answers, as they are now."""

    def __init__(self) -> None:
        self.answer: Never | NotNow | None = Never("no such village")

    def says(self, _: Envelope) -> None:
        if self.answer is not None:
            raise self.answer


async def test_what_was_refused_is_handed_on_when_it_is_tried_again(autojump_clock: MockClock) -> None:
    moody = Moody()
    office, sink, writer = Office(Shelf()), ScriptedSink(moody.says), Writer(SITI)
    groups = messages(writer, 2)
    first, second = (key(writer, group[0].header.number) for group in groups)
    desk = desk_for(office, sink)
    async with working(desk):
        office.arrive(flat(groups))
        wake(desk, flat(groups))
        await wait_all_tasks_blocked()
        assert sink.offered == [first, second]
        assert [(it.first, it.last, str(it.reason), it.code) for it in desk.refused()] == [
            (group[0].header.number, group[-1].header.number, "no such village.", REFUSED) for group in groups
        ]
        began_s = trio.current_time()
        assert await desk.retry(second) == QUARANTINED
        assert sink.offered == [first, second, second]
        moody.answer = None
        assert await desk.retry(second) == DELIVERED
        assert trio.current_time() == began_s, "nobody waits for nothing"
        assert list(sink.taken) == [second]
        await wait_all_tasks_blocked()
        assert [it.first for it in desk.refused()] == [groups[0][0].header.number]
        for unknown in (second, "nothing", ""):
            with pytest.raises(NotQuarantined):
                await desk.retry(unknown)


async def test_a_sink_that_takes_nothing_now_is_not_waited_for_long(autojump_clock: MockClock) -> None:
    moody = Moody()
    office, sink, writer = Office(Shelf()), ScriptedSink(moody.says), Writer(SITI)
    (group,) = messages(writer, 1)
    name = key(writer, group[0].header.number)
    desk = desk_for(office, sink)
    async with working(desk):
        office.arrive(group)
        wake(desk, group)
        await wait_all_tasks_blocked()
        moody.answer = NotNow("the disk is full")
        began_s = trio.current_time()
        assert await desk.retry(name) == WAITING
        assert trio.current_time() - began_s <= RETRY_S
        assert desk.refused() == []
        moody.answer = None
        await trio.sleep(60)
        assert list(sink.taken) == [name]


async def test_why_messages_are_kept_is_told_apart(autojump_clock: MockClock) -> None:
    office, sink, writer = Office(Shelf()), ScriptedSink(), Writer(SITI)
    unreadable = writer.write(chunks_of(stream_of([("../Siti.jpg", b"x")])))
    desk = desk_for(office, sink)
    async with working(desk):
        office.arrive(unreadable)
        wake(desk, unreadable)
        await wait_all_tasks_blocked()
        assert [it.code for it in desk.refused()] == [UNREADABLE]
    unwelcome = desk_for(office, sink, refuses=lambda source: "not here")
    async with working(unwelcome):
        await wait_all_tasks_blocked()
        assert [(it.code, str(it.reason)) for it in unwelcome.refused()] == [(UNWELCOME, "not here.")]
    assert sink.offered == []


async def test_contradictions_cannot_be_tried_again(autojump_clock: MockClock) -> None:
    office, sink, writer = Office(Shelf()), ScriptedSink(), Writer(SITI)
    whole = flat(messages(writer, 1, size=200))
    writer.last = whole[0].header.number  # and once more from the second number on
    liar = flat(messages(writer, 1, size=200))
    desk = desk_for(office, sink)
    async with working(desk):
        office.arrive([whole[0], *liar])
        wake(desk, liar)
        await wait_all_tasks_blocked()
        found = desk.contradictions()
        assert {it.code for it in found} == {CONTRADICTS}
        with pytest.raises(NotQuarantined):
            await desk.retry(key(writer, found[0].first))

"""The door: who gets a place, and whose place another takes."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
import trio
import trio.testing

from meshnode.app.door import COOL_S, PLACES_MAX, PLACES_PER_HOUSE_MAX, Door, house_of


async def stand(door: Door, host: str, entered: list[bool]) -> None:
    with door.place(host) as place:
        entered.append(place is not None)
        if place is not None:
            await trio.sleep_forever()


async def crowd(nursery: trio.Nursery, door: Door, host: str, count: int) -> int:
    """So many come from there; how many get a place."""
    entered: list[bool] = []
    for _ in range(count):
        nursery.start_soon(stand, door, host, entered)
    await trio.testing.wait_all_tasks_blocked()
    return sum(entered)


async def test_one_house_has_only_some_of_the_places(nursery: trio.Nursery) -> None:
    door = Door()
    assert await crowd(nursery, door, "10.0.0.1", 100) == PLACES_PER_HOUSE_MAX
    assert await crowd(nursery, door, "10.0.0.2", 100) == PLACES_PER_HOUSE_MAX
    nursery.cancel_scope.cancel()


async def test_when_all_are_taken_a_newcomer_takes_one_of_the_fullest_house(nursery: trio.Nursery) -> None:
    door = Door()
    for number in range(PLACES_MAX // PLACES_PER_HOUSE_MAX):
        assert await crowd(nursery, door, f"10.0.0.{number}", 100) == PLACES_PER_HOUSE_MAX
    assert await crowd(nursery, door, "10.9.9.9", 5) == 5
    standing = sorted(map(len, door._standing.values()))
    assert sum(standing) == PLACES_MAX
    assert standing[0] == 5
    nursery.cancel_scope.cancel()


async def test_a_crowd_of_houses_with_one_each_is_full_when_it_is_full(nursery: trio.Nursery) -> None:
    door = Door()
    for number in range(PLACES_MAX):
        assert await crowd(nursery, door, f"10.1.{number}.1", 1) == 1
    assert await crowd(nursery, door, "10.9.9.9", 1) == 0
    nursery.cancel_scope.cancel()


async def test_who_is_put_out_is_told(nursery: trio.Nursery) -> None:
    door = Door()
    with ExitStack() as others:
        first = others.enter_context(door.place("10.0.0.1"))
        assert first is not None
        for number in range(PLACES_MAX - 1):
            assert others.enter_context(door.place(f"10.{number % 100}.0.1")) is not None
        with door.place("10.200.0.1") as place:
            assert place is not None
        assert sum(each.cancel_called for standing in door._standing.values() for each in standing) == 1


async def test_handshakes_of_one_house_are_counted_for_a_moment_after(
    autojump_clock: trio.testing.MockClock,
) -> None:
    door = Door()
    for _ in range(3):
        for _ in range(PLACES_PER_HOUSE_MAX):
            with door.place("10.0.0.1") as place:
                assert place is not None
        with door.place("10.0.0.1") as place:
            assert place is None
        with door.place("10.0.0.2") as place:
            assert place is not None
        await trio.sleep(COOL_S)
    await trio.sleep(COOL_S)
    door._cool()
    assert (door._standing, door._cooling, len(door._left)) == ({}, {}, 0)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("10.0.0.1", "10.0.0.2", False),
        ("::ffff:10.0.0.1", "10.0.0.1", True),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2%eth0", False),
        ("ana", "budi", False),
    ],
)
def test_what_is_one_house(one: str, other: str, *, same: bool) -> None:
    assert (house_of(one) == house_of(other)) is same

"""What a message's story says of a day of meetings, to the minute: real daemons on virtual time."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import trio

from meshnode.core.history import RUN_MS
from meshnode.core.limits import KIB
from meshnode.sim.places import WALL_START_MS
from tests.simulation.test_daemons_on_virtual_time import (
    PHOTO,
    Program,
    Village,
    _carries_nothing,
    _is,
    _later,
    homes,
    play,
    until,
)

__all__ = ["homes", "play"]

#: All happens at multiples of this: an hour would tell no more, and take six times as long.
UNIT_S = 600


async def story_of(program: Program, key: str) -> dict[str, Any]:
    """As `meshnode why --json`."""
    told: dict[str, Any] = await program.get(f"messages/{key}")
    return told


def events(told: dict[str, Any]) -> list[tuple[str, str | None, int | None, float | None]]:
    """(code, peer, bundles, units since the start, to a tenth)."""
    return [
        (
            event["code"],
            event["peer"],
            event["bundles"],
            None if event["at_ms"] is None else round((event["at_ms"] - WALL_START_MS) / (1000 * UNIT_S), 1),
        )
        for event in told["story"]
    ]


async def sleep_until(units: float) -> None:
    """Until so much after the start."""
    await trio.sleep(units * UNIT_S - trio.current_time())


async def over_a_day(village: Village) -> None:
    """Ana's photo goes to budi in two meetings, in a third one to the office, and the receipt comes home."""
    places, ana, budi, office = village.places, village.ana, village.budi, village.office
    await sleep_until(1)
    key = await ana.submit({"photo.jpg": PHOTO}, kind="surat", reference="Siti")
    told = await story_of(ana, key)
    assert (told["state"], told["now_code"]) == ("on_this_device_only", "on_this_device_only")
    assert "on this device only" in told["now"]
    assert (told["bundles"], told["size_bytes"], told["priority"]) == (5, len(PHOTO), "routine")
    # whoever submits looks at the real clock
    assert [event["code"] for event in told["story"]] == ["taken", "sealed"]
    assert told["story"][1]["bundles"] == 5

    await sleep_until(2)
    await village.met("ana", "budi")
    (pipe,) = places.pipes("ana", "budi")
    pipe.cut_after(300_001 - pipe.sent_bytes)
    await until(_later(lambda: pipe.is_over), 60, step_s=0.001)
    places.part("ana", "budi")
    await until(partial(_is, ana.contacts, []), 1)
    await until(partial(_is, budi.contacts, []), 60)
    await sleep_until(5)
    await village.met("ana", "budi")
    await until(partial(_is, ana.states, ["carried"]), 60)
    places.part("ana", "budi")
    told = await story_of(ana, key)
    part = told["story"][2]["bundles"]
    assert part in (1, 2), "of 300 kB: a large one, and perhaps the small last one"
    assert events(told)[2:] == [("carried_part", "budi", part, 2.0), ("carried", "budi", 5, 5.0)]
    assert told["now"].startswith("1 other device has all of it (budi)")
    (came,) = (await story_of(budi, key))["story"]
    assert (came["code"], came["peer"], came["bundles"]) == ("came", "ana", 5)
    assert came["at_ms"] - WALL_START_MS - 2 * UNIT_S * 1000 in range(60_000)

    await sleep_until(9)
    await village.met("budi", "office")
    await until(partial(_carries_nothing, budi), 60)
    places.part("budi", "office")
    await until(partial(_is, budi.contacts, []), 60)
    assert (await story_of(ana, key))["state"] == "carried", "nobody has told it"
    assert events(await story_of(office, key)) == [
        ("came", "budi", None, 9.0),
        ("delivered", None, None, 9.0),
    ]
    came_first, left = events(await story_of(budi, key))
    assert came_first[:3] == ("came", "ana", None)
    assert came_first[3] in (2.0, 5.0), "whenever the first of its bundles came"
    assert left == ("delivered", "office", None, 9.0)

    await sleep_until(12)
    await village.met("ana", "budi")
    await until(partial(_is, ana.states, ["delivered"]), 60)
    await trio.sleep(RUN_MS / 1000)
    told = await story_of(ana, key)
    assert events(told)[4:] == [("delivered", "budi", None, 12.0)]
    assert told["now"] == "It is safe at the office: there is nothing to do."

    overview = await office.get("officers")
    (row,) = (row for row in overview["officers"] if row["name"] == "ana")
    assert (row["recorded"], row["delivered"], row["last_seen_via"]) == (5, 5, "budi")
    assert round((row["last_seen_ms"] - WALL_START_MS) / 1000 / UNIT_S, 1) == 9.0
    (day,) = overview["days"]
    assert day["messages"] == 1
    assert 8 * UNIT_S - 60 <= day["delay_max_s"] <= 8.1 * UNIT_S
    assert abs(day["delay_p50_s"] - 8 * UNIT_S) < 0.05 * 8 * UNIT_S
    (carried,) = overview["carried"]
    assert (carried["carrier"], carried["source"], carried["bundles"]) == ("budi", "ana", 5)


async def with_a_wrong_clock(village: Village) -> None:
    """The office's clock is two years ahead, and ana's a day behind: how long it took is told all the same."""
    village.places.at("office").wall_offset_ms = 730 * 24 * 3_600_000
    village.places.at("ana").wall_offset_ms = -24 * 3_600_000
    await village.ana.submit({"form.json": bytes(10 * KIB)})
    await sleep_until(3)
    await village.met("ana", "budi")
    await until(partial(_is, village.ana.states, ["carried"]), 60)
    await sleep_until(7)
    await village.met("budi", "office")
    await until(partial(_is, village.ana.states, ["delivered"]), 60)
    (day,) = (await village.office.get("officers"))["days"]
    assert day["day"] == "2028-01-01"
    assert 7 * UNIT_S - 60 <= day["delay_max_s"] <= 7.1 * UNIT_S


@pytest.mark.parametrize("story", [over_a_day, with_a_wrong_clock], ids=lambda story: story.__name__)
def test_what_is_told(play: Callable[..., list[str]], story: Callable[..., Any]) -> None:
    play(story)

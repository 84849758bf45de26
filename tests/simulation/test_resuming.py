"""A device that was suspended looks for the others at once, and does not wait for what it had planned before."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio

from meshnode.app.daemon import ASLEEP_S, TURN_MAX_S
from meshnode.core.identity import Certificate
from meshnode.core.limits import BACKOFF_FIRST_S, BACKOFF_REMEMBERED_MAX_S
from meshnode.sim.places import PORT
from tests.simulation.test_daemons_on_virtual_time import (
    Play,
    Village,
    homes,  # noqa: F401 - a fixture
    play,  # noqa: F401 - a fixture
)

HOUR_S = 3600.0


def _story(asleep_s: float, dialled_s: list[float]) -> Callable[[Village], Awaitable[None]]:
    """Budi, out of range of somebody whom he remembers, is suspended; when he dials then, in seconds."""

    async def story(village: Village) -> None:
        await village.met("ana", "budi")  # Ana has dialled
        village.places.part("ana", "budi")
        await trio.sleep(2 * HOUR_S)
        budi = village.places.at("budi")
        planned, dial = trio.Event(), budi.dial

        async def counted(host: str, port: int) -> tuple[trio.abc.Stream, Certificate]:
            planned.set()
            if (host, port) == ("ana", PORT):
                dialled_s.append(trio.current_time() - resumed_s)
            return await dial(host, port)

        with pytest.MonkeyPatch.context() as patch:
            resumed_s = 0.0
            patch.setattr(budi, "dial", counted)
            while not dialled_s:
                planned = trio.Event()
                await planned.wait()
            await trio.sleep(60)
            dialled_s.clear()
            resumed_s = trio.current_time()
            budi.slept_s += asleep_s
            await trio.sleep(BACKOFF_REMEMBERED_MAX_S / 2)

    return story


@pytest.mark.parametrize("asleep_s", [ASLEEP_S + 0.1, 8 * HOUR_S])
def test_after_a_suspension_all_is_dialled_at_once(play: Play, asleep_s: float) -> None:  # noqa: F811
    dialled_s: list[float] = []
    lines = play(_story(asleep_s, dialled_s))
    assert dialled_s[0] <= TURN_MAX_S + BACKOFF_FIRST_S
    assert len(dialled_s) > 2, "and soon again"
    assert [line for line in lines if f"was suspended for {asleep_s:.0f} s" in line]


def test_a_hiccup_is_no_suspension(play: Play) -> None:  # noqa: F811
    dialled_s: list[float] = []
    lines = play(_story(ASLEEP_S - 0.1, dialled_s))
    assert dialled_s == [], "as planned"
    assert not [line for line in lines if "suspended" in line]

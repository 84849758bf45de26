"""A member that takes everything, hands nothing on and says that it stands beside an office: what it costs others.

siti meets dedi each morning, then budi, who is the only one that goes to the office. Budi takes two messages a day, and
siti records two each day, so what is not sent today competes with what is new tomorrow, for as long as she records.
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean

import pytest

from meshnode.core.encounters import LEAST_S
from meshnode.core.routing import AGEING_S, Candidate, Worth, gain
from meshnode.sim.carrying import Carried, carry
from meshnode.sim.figures import delay_s
from meshnode.sim.machine import Machine
from meshnode.sim.plan import Plan, PlannedContact, PlannedMessage
from meshnode.sim.takers import Boaster, Taker

HOUR_S = 3600.0
DAY_S = 24 * HOUR_S
SIZE = 200_000
RATE = 100_000.0
RECORDING_DAYS = 24
#: Messages that dedi takes: there is one of them on each of the first days.
TAKEN = 2


def plan_of(*, liar: bool) -> Plan:
    contacts: list[PlannedContact] = []
    messages: list[PlannedMessage] = []
    for day in range(RECORDING_DAYS + 4):
        dawn_s = day * DAY_S
        if liar:
            contacts.append(
                PlannedContact(dawn_s + 9 * HOUR_S, dawn_s + 9 * HOUR_S + 10, "dedi", "siti", 1e6)
            )
        noon_s = dawn_s + 10 * HOUR_S
        contacts.append(PlannedContact(noon_s, noon_s + 2.1 * SIZE / RATE, "budi", "siti", RATE))
        contacts.append(PlannedContact(noon_s + 6 * HOUR_S, noon_s + 6 * HOUR_S + 10, "budi", "kantor", 1e6))
        if day < TAKEN:
            messages.append(PlannedMessage(dawn_s + 8 * HOUR_S, "siti", SIZE))
        if day < RECORDING_DAYS:
            messages += [PlannedMessage(dawn_s + 9.5 * HOUR_S + at, "siti", SIZE) for at in range(2)]
    return Plan(tuple(sorted(contacts)), tuple(messages), ("kantor",))


def run(kinds: Mapping[str, type[Machine]], worth: Worth = gain) -> list[float]:
    """The delays (s) of all messages, all of which arrive."""
    carried = carry(plan_of(liar=bool(kinds)), store_bytes=10**9, worth=worth, kinds=kinds)
    assert carried.broken_off == 0
    assert [fate.gateway for fate in carried.fates] == ["kantor"] * len(carried.fates)
    return [delay_s(fate, carried.end_s) for fate in carried.fates]


def gullible(message: Candidate) -> float:
    """The node's own order without doubt and without age."""
    if message.peer_away_s <= 0:
        return 1 / message.lacking_bytes
    rate = sum(1 / max(away_s, LEAST_S) for away_s in (message.own_away_s, *message.others_away_s))
    return (1 / rate - 1 / (rate + 1 / message.peer_away_s)) / message.lacking_bytes


@pytest.mark.parametrize("kind", [Taker, Boaster])
def test_all_arrives_and_nothing_waits_without_end(kind: type[Machine]) -> None:
    alone, beside = run({}), run({"dedi": kind})
    assert max(alone) < 2 * DAY_S
    # What dedi took is doubted the longer the older it is; what goes in its stead is somebody else's gain.
    assert max(beside) < AGEING_S
    assert fmean(beside) < 1.05 * fmean(alone)


def test_who_believed_it_would_wait_until_nothing_new_is_recorded() -> None:
    assert max(run({"dedi": Boaster}, gullible)) > (RECORDING_DAYS - TAKEN) * DAY_S


# --- what such a machine does -------------------------------------------------------------------------------------


def relayed(kind: type[Machine]) -> Carried:
    """dedi alone meets the office."""
    contacts = (PlannedContact(10, 20, "dedi", "siti", 1e6), PlannedContact(30, 40, "dedi", "kantor", 1e6))
    messages = (PlannedMessage(0, "siti", SIZE), PlannedMessage(1, "dedi", SIZE))
    return carry(Plan(contacts, messages, ("kantor",)), store_bytes=10**9, kinds={"dedi": kind})


@pytest.mark.parametrize(("kind", "hands_on"), [(Machine, True), (Taker, False), (Boaster, False)])
def test_it_takes_and_sends_only_its_own(kind: type[Machine], hands_on: bool) -> None:
    carried = relayed(kind)
    assert carried.broken_off == 0
    assert {fate.message.source: fate.delivered_s is not None for fate in carried.fates} == {
        "siti": hands_on,
        "dedi": True,
    }
    assert carried.moved["siti", "dedi"].bundles == 1

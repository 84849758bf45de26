"""The real node over small plans whose outcome can be worked out by hand, and what a run comes down to."""

from __future__ import annotations

import math

import pytest

from meshnode.core.limits import KIB, MIB, PAYLOAD_SIZE_MAX
from meshnode.core.sealing import CHUNK_SIZE
from meshnode.sim.carrying import Carried, Fate, Load, NothingRecorded, carry
from meshnode.sim.figures import delay_s, figures_of, percentile
from meshnode.sim.plan import Plan, PlannedContact, PlannedMessage

#: HELLO and what is held, certificates and headers: what a contact of a few bundles needs besides payloads, at most.
TALK = 20_000

Contact = tuple[float, float, str, str, float]
Message = tuple[float, str, int]


def plan_of(contacts: list[Contact], messages: list[Message], *gateways: str) -> Plan:
    return Plan(
        tuple(sorted(PlannedContact(*row) for row in contacts)),
        tuple(sorted((PlannedMessage(*row) for row in messages), key=lambda message: message.at_s)),
        tuple(sorted(gateways or ("office",))),
    )


def run(
    contacts: list[Contact],
    messages: list[Message],
    *gateways: str,
    store_bytes: int = 10**9,
    until_s: float | None = None,
) -> Carried:
    carried = carry(plan_of(contacts, messages, *gateways), store_bytes=store_bytes, until_s=until_s)
    assert carried.broken_off == 0
    return carried


def delays(carried: Carried) -> list[float | None]:
    return [None if f.delivered_s is None else f.delivered_s - f.message.at_s for f in carried.fates]


def delivered(carried: Carried) -> list[bool]:
    return [fate.delivered_s is not None for fate in carried.fates]


# --- one contact ------------------------------------------------------------------------------------------------


def test_a_message_takes_what_its_bytes_take() -> None:
    size = 3 * MIB
    carried = run([(100, 200, "siti", "office", 1e6)], [(40, "siti", size)])
    assert delays(carried) == [pytest.approx(60 + size / 1e6, abs=0.1)]
    (fate,) = carried.fates
    assert (fate.gateway, fate.copies) == ("office", 1.0)
    assert size < carried.bytes_moved < size + TALK
    assert (carried.end_s, carried.contacts) == (200, 1)
    assert carried.moved == {}


def test_no_more_than_the_contact_carries() -> None:
    messages: list[Message] = [(0, "siti", 100_000) for _ in range(20)]
    carried = run([(10, 20, "siti", "office", 100_000)], messages)
    assert sum(delivered(carried)) == 9  # the tenth has its bytes and no time for the header
    assert 950_000 < carried.bytes_moved <= 1_000_000


def test_what_is_recorded_in_a_contact_goes_at_once() -> None:
    carried = run([(0, 100, "siti", "office", 1e6)], [(50, "siti", 200_000)])
    assert delays(carried) == [pytest.approx(0.2, abs=0.1)]


def test_both_ways_share_one_channel() -> None:
    there: list[Message] = [(0, "siti", MIB)]
    back: list[Message] = [(0, "budi", MIB)]
    contacts: list[Contact] = [(10, 30, "siti", "budi", 1e5), (40, 60, "budi", "office", 1e6)]
    assert delivered(run(contacts, there)) == [True]
    both = run(contacts, there + back)
    # 20 s of 100 kB/s hold neither all of both, nor is one way served first
    assert both.moved["siti", "budi"].bytes == pytest.approx(MIB, rel=0.3)
    assert both.moved["budi", "siti"].bytes == pytest.approx(MIB, rel=0.3)
    assert both.bytes_moved < 2e6 + 2 * MIB + TALK


def test_a_slow_contact_is_not_taken_for_dead() -> None:
    """One bundle takes a minute here, four times as long as a node bears silence."""
    carried = run([(0, 1000, "siti", "office", 4_000)], [(10, "siti", 3 * CHUNK_SIZE)])
    assert delays(carried) == [pytest.approx(3 * PAYLOAD_SIZE_MAX / 4_000, rel=0.02)]


def test_overlapping_rows_add_up() -> None:
    size = MIB
    contacts: list[Contact] = [(100, 200, "siti", "office", 1e5), (102, 104, "office", "siti", 3e5)]
    carried = run(contacts, [(100, "siti", size)])
    assert delays(carried) == [pytest.approx(4 + (size - 2e5 - 2 * 4e5) / 1e5, abs=0.2)]
    assert carried.contacts == 1


def test_a_new_row_goes_on_where_the_last_one_was_cut() -> None:
    """Whole bundles stay; the one on the air begins again."""
    first: Contact = (0, 10, "siti", "office", 1e5)
    messages: list[Message] = [(0, "siti", 7 * CHUNK_SIZE)]
    assert delivered(run([first], messages)) == [False]
    carried = run([first, (10, 25, "siti", "office", 1e5)], messages)
    assert delays(carried) == [pytest.approx(10 + (7 - 3) * PAYLOAD_SIZE_MAX / 1e5, abs=0.2)]
    assert carried.bytes_moved > 7 * PAYLOAD_SIZE_MAX + 1e5


def test_what_has_the_most_worth_goes_first() -> None:
    messages = [PlannedMessage(at, "siti", size) for at, size in enumerate([30_000, 90_000, 60_000])]
    plan = Plan((PlannedContact(10, 11, "siti", "office", 1e5),), tuple(messages), ("office",))
    assert delivered(carry(plan, store_bytes=0)) == [True, False, True]
    assert delivered(carry(plan, store_bytes=0, worth=lambda message: message.lacking_bytes)) == [
        False,
        True,
        False,
    ]
    assert delivered(carry(plan, store_bytes=0, worth=lambda message: message.age_s)) == [True, False, False]


# --- carriers ---------------------------------------------------------------------------------------------------

CHAIN: list[Contact] = [(10, 20, "siti", "budi", 1e6), (100, 110, "budi", "office", 1e6)]


def test_a_colleague_carries() -> None:
    carried = run(CHAIN, [(0, "siti", 300_000)])
    assert delays(carried) == [pytest.approx(100.3, abs=0.1)]
    assert carried.fates[0].copies == 2.0
    assert carried.moved.keys() == {("siti", "budi")}
    assert carried.moved["siti", "budi"].bundles == 2


def test_later_than_the_last_chance() -> None:
    carried = run(CHAIN, [(15, "siti", 1000), (25, "siti", 1000), (95, "budi", 1000)])
    assert delivered(carried) == [True, False, True]


def test_a_receipt_frees_the_carriers() -> None:
    messages: list[Message] = [(0, "siti", 300_000)]
    again: Contact = (120, 121, "budi", "siti", 1e6)
    other: Contact = (30, 40, "siti", "agus", 1e6)
    carried = run([*CHAIN, other, again], messages)
    assert carried.on_board["budi"] == Load(0, 0)
    assert carried.on_board["agus"].bundles == 2
    carried = run([*CHAIN, other, again, (130, 131, "siti", "agus", 1e6)], messages)
    assert carried.on_board["agus"] == Load(0, 0)


def test_a_store_holds_no_more_than_it_may() -> None:
    messages: list[Message] = [(at, "siti", 200_000) for at in range(9)]
    room = 5 * PAYLOAD_SIZE_MAX
    carried = run(CHAIN, messages, store_bytes=room)
    assert 0 < sum(delivered(carried)) < 9
    assert carried.moved["siti", "budi"].bytes <= room
    assert sum(delivered(run(CHAIN, messages, store_bytes=0))) == 0
    assert sum(delivered(run(CHAIN, messages))) == 9


def test_what_a_node_records_itself_needs_no_store() -> None:
    carried = run(CHAIN, [(0, "budi", 10 * MIB // 2)], store_bytes=0)
    assert delivered(carried) == [True]


# --- gateways ---------------------------------------------------------------------------------------------------


def test_what_a_gateway_records_is_delivered_at_once() -> None:
    carried = run(CHAIN, [(3, "office", 5 * MIB), (4, "siti", 1)])
    assert delays(carried)[0] == 0.0
    assert carried.fates[0].copies == 0.0
    assert carried.moved.keys() == {("siti", "budi")}, "and nobody carries it"


def test_one_gateway_must_hold_all_of_it() -> None:
    size = 8 * CHUNK_SIZE
    contacts: list[Contact] = [(0, 12, "siti", "office", 1e5), (20, 32, "siti", "ridge", 1e5)]
    parted = run(contacts, [(0, "siti", size)], "office", "ridge")
    assert delivered(parted) == [False]
    assert parted.fates[0].copies == 1.0, "four bundles at each"
    again: Contact = (40, 60, "siti", "ridge", 1e5)
    carried = run([*contacts, again], [(0, "siti", size)], "office", "ridge")
    assert delays(carried) == [pytest.approx(40 + 4 * PAYLOAD_SIZE_MAX / 1e5, abs=0.3)]
    assert carried.fates[0].gateway == "ridge"


def test_the_first_gateway_counts() -> None:
    contacts: list[Contact] = [(10, 11, "siti", "ridge", 1e6), (20, 21, "siti", "office", 1e6)]
    carried = run(contacts, [(0, "siti", 1000)], "office", "ridge")
    assert (carried.fates[0].gateway, carried.fates[0].copies) == ("ridge", 1.0)


# --- the end ----------------------------------------------------------------------------------------------------


def test_the_end_may_be_sooner() -> None:
    messages: list[Message] = [(0, "siti", 1000), (80, "siti", 1000), (120, "siti", 1000)]
    carried = run([*CHAIN, (95, 150, "siti", "budi", 1e6)], messages, until_s=99.0)
    assert delivered(carried) == [False, False], "and the third is not recorded yet"
    assert [delay_s(fate, carried.end_s) for fate in carried.fates] == [99.0, 19.0]
    assert carried.bytes_moved > 0
    assert carried.contacts == 2
    with pytest.raises(NothingRecorded, match=r"by second 0\.5: give"):
        carry(plan_of(CHAIN, [(1, "siti", 1)]), store_bytes=0, until_s=0.5)


def test_the_end_may_be_later() -> None:
    carried = run(CHAIN, [(0, "siti", 1000), (50, "siti", 1000)], until_s=1000.0)
    assert [delay_s(fate, carried.end_s) for fate in carried.fates] == [pytest.approx(100, abs=0.1), 950.0]


def test_what_comes_after_the_last_contact_counts() -> None:
    carried = run(CHAIN, [(0, "siti", 1000), (200, "siti", 1000), (300, "office", 1000)])
    assert delivered(carried) == [True, False, True]
    assert carried.end_s == 110
    assert [delay_s(fate, carried.end_s) for fate in carried.fates][1:] == [0.0, 0.0]


# --- figures ----------------------------------------------------------------------------------------------------


def made(*fates: Fate) -> Carried:
    messages: list[Message] = [(f.message.at_s, f.message.source, f.message.size_bytes) for f in fates]
    return Carried(plan_of([(0, 100, "siti", "office", 1)], messages), 100.0, list(fates))


def fate(at_s: float, size: int, delivered_s: float | None, copies: float, source: str = "siti") -> Fate:
    gateway = "office" if delivered_s is not None else None
    return Fate(PlannedMessage(at_s, source, size), delivered_s, gateway, copies)


def test_the_figures() -> None:
    carried = made(
        fate(0, 100, 10, 2.0),
        fate(20, 300, None, 1.5),
        fate(50, 100, 90, 3.0),
        fate(90, 500, 90, 0, "office"),
    )
    carried.moved = {("siti", "budi"): Load(3, 70), ("office", "budi"): Load(1, 7)}
    carried.bytes_moved = 1234
    figures = figures_of(carried)
    assert (figures.messages, figures.delivered) == (4, 3)
    assert figures.delivered_share == 0.75
    assert figures.delivered_byte_share == 0.7
    assert figures.mean_delay_s == (10 + 80 + 40 + 0) / 4
    assert figures.median_delay_s == 25
    assert figures.p95_delay_s == 80
    assert figures.copies_per_delivered == 6.5 / 3
    assert figures.bytes_moved == 1234
    office, siti = figures.nodes
    assert (siti.submitted, siti.delivered) == (3, 2)
    assert siti.mean_delay_s == pytest.approx(130 / 3)
    assert (office.gateway, office.submitted, office.taken_in) == (True, 1, 2)


def test_figures_of_nothing_delivered() -> None:
    figures = figures_of(made(fate(10, 5, None, 0.0)))
    assert (figures.delivered_share, figures.delivered_byte_share) == (0.0, 0.0)
    assert figures.copies_per_delivered is None
    assert figures.mean_delay_s == figures.median_delay_s == figures.p95_delay_s == 90.0


@pytest.mark.parametrize(
    ("share", "value"), [(0.0, 1), (0.05, 1), (0.051, 2), (0.5, 10), (0.95, 19), (1.0, 20)]
)
def test_percentiles_are_of_the_nearest_rank(share: float, value: int) -> None:
    assert percentile(range(1, 21), share) == value


def test_nodes_as_carriers() -> None:
    carried = run(CHAIN, [(0, "siti", 300_000), (50, "siti", 10)])
    budi, office, siti = figures_of(carried).nodes
    assert (budi.name, budi.submitted, budi.mean_delay_s) == ("budi", 0, None)
    assert (budi.carried_bundles, budi.carried_for) == (2, 1)
    assert 300_000 < budi.carried_bytes < 300_000 + 4 * KIB
    assert (office.taken_in, office.carried_bundles, siti.carried_bytes) == (1, 0, 0)
    assert (siti.submitted, siti.delivered) == (2, 1)


def test_every_message_has_a_fate() -> None:
    messages: list[Message] = [
        (at, who, 50_000) for at in range(0, 100, 7) for who in ("siti", "budi", "office")
    ]
    carried = run([*CHAIN, (30, 33, "budi", "siti", 1e5)], messages)
    assert sorted((f.message.at_s, f.message.source) for f in carried.fates) == sorted(
        m[:2] for m in messages
    )
    assert math.isclose(figures_of(carried).delivered_share, sum(delivered(carried)) / len(messages))

"""How near a way out is, from meetings alone."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshnode.core.encounters import LEAST_S, MEETING_GAP_S, WATCHED_S, Encounters, is_there
from meshnode.core.identity import DeviceId
from meshnode.core.limits import AWAY_S_MAX
from meshnode.core.rows import PutEncounter
from tests.core.fleets import Fleet

AGUS, SITI, OFFICE = (DeviceId(letter * 16) for letter in (b"a", b"s", b"o"))
PEERS = [AGUS, SITI, OFFICE]
HOUR_S, DAY_S = 3600.0, 24 * 3600.0
#: The number is worked out again when it is so old.
STALE_S = 61.0


def officer(*rows: PutEncounter, now_s: float = 0.0) -> Encounters:
    """A node that is no office, started at `now_s`."""
    return Encounters(rows, now_s, at_office=False)


def meet(node: Encounters, peer: DeviceId, told_s: float, now_s: float, lasts_s: float = 0.0) -> PutEncounter:
    """One contact; the row that it leaves, as it is known when the contact is over."""
    row = node.met(peer, told_s, now_s)
    node.parted(peer, now_s + lasts_s)
    return replace(row, since_s=row.since_s + lasts_s, last_s=now_s + lasts_s)


def live(
    node: Encounters, now_s: float, meetings: list[Meeting]
) -> tuple[dict[DeviceId, PutEncounter], float]:
    """One meeting after another; the last row of each peer, and the time after it."""
    rows: dict[DeviceId, PutEncounter] = {}
    for peer, gap_s, lasts_s, told_s in meetings:
        now_s += gap_s
        rows[peer] = meet(node, peer, told_s, now_s, lasts_s)
        now_s += lasts_s
    return rows, now_s


@pytest.mark.parametrize(("role", "there"), [("office", True), ("gateway", True), ("officer", False)])
def test_who_is_there_follows_from_what_it_was_admitted_as(role: str, there: bool) -> None:
    assert is_there(Fleet().certificate("agus", role)) is there


def test_at_an_office_the_way_is_no_way_whomever_it_meets() -> None:
    node = Encounters([], 0.0, at_office=True)
    meet(node, AGUS, 5 * DAY_S, 10.0)
    assert node.away_s(1e9) == 0.0
    assert node.told_s(AGUS) == 5 * DAY_S, "its peers' numbers are known all the same"


def test_nobody_can_be_farther_than_who_has_learned_nothing() -> None:
    node = officer()
    assert node.away_s(0.0) == node.away_s(1e9) == AWAY_S_MAX
    assert node.told_s(AGUS) == AWAY_S_MAX
    node.parted(AGUS, 0.0)
    assert node.away_s(1e9) == AWAY_S_MAX, "a contact without HELLO was no meeting"
    meet(node, AGUS, AWAY_S_MAX, 1e9)
    assert node.away_s(1e9) == AWAY_S_MAX


def test_the_mean_time_between_meetings_and_what_the_peer_still_has_before_it() -> None:
    node = officer()
    for day in (1, 2, 3, 4):
        meet(node, AGUS, 7000.0, day * DAY_S)
    assert node.away_s(4 * DAY_S) == DAY_S + 7000.0
    meet(node, AGUS, 500.0, 4 * DAY_S + 10)
    assert node.away_s(4 * DAY_S + 10) == pytest.approx(DAY_S + 500, abs=10), "what it told last counts"


def test_the_best_way_of_all() -> None:
    node = officer()
    for day in range(1, 9):
        meet(node, AGUS, 3 * DAY_S, day * DAY_S)
        if not day % 4:
            meet(node, OFFICE, 0.0, day * DAY_S + 60)
    assert node.away_s(8 * DAY_S + 60) == pytest.approx(4 * DAY_S, abs=61), (
        "1 day + 3 days by agus, 4 days by office"
    )
    meet(node, AGUS, 2 * DAY_S, 8 * DAY_S + 120)
    assert node.away_s(8 * DAY_S + 120) == pytest.approx(3 * DAY_S, abs=61)


#: With whom, how long after the last one, for how long, and what is told.
Meeting = tuple[DeviceId, float, float, int]
peers = st.sampled_from(PEERS)
meetings = st.lists(
    st.tuples(peers, st.floats(0, 3 * DAY_S), st.floats(0, 5 * HOUR_S), st.integers(0, AWAY_S_MAX)),
    max_size=30,
)


@given(meetings, st.floats(0, 30 * DAY_S))
def test_the_least_over_all_peers(meetings: list[Meeting], later_s: float) -> None:
    """The rows that contacts leave say all that the number follows from: only the time apart counts."""
    node = officer()
    rows, now_s = live(node, 0.0, meetings)
    now_s += STALE_S + later_s
    ways = [max(MEETING_GAP_S, (now_s - row.since_s) / row.meetings) + row.told_s for row in rows.values()]
    assert node.away_s(now_s) == pytest.approx(min([AWAY_S_MAX, *ways]))
    assert all(row.meetings > 0 and row.since_s <= row.last_s for row in rows.values())


# --- what a meeting is ------------------------------------------------------------------------------------------


def test_contacts_in_one_yard_are_one_meeting() -> None:
    node, once = officer(), officer()
    meet(once, AGUS, 0.0, DAY_S)
    row = meet(node, AGUS, 0.0, DAY_S)
    for again in range(1, 11):
        row = meet(node, AGUS, 0.0, DAY_S + again * (MEETING_GAP_S - 1))
    assert row.meetings == 1.0
    now_s = 2 * DAY_S
    assert node.away_s(now_s) == once.away_s(now_s)


def test_the_gap_begins_when_the_contact_ends() -> None:
    node = officer()
    meet(node, AGUS, 0.0, DAY_S, lasts_s=8 * HOUR_S)
    assert meet(node, AGUS, 0.0, DAY_S + 9 * HOUR_S).meetings == 1.0
    assert meet(node, AGUS, 0.0, DAY_S + 10 * HOUR_S + 1).meetings == 2.0


def test_a_night_in_one_yard_is_no_time_apart() -> None:
    node = officer()
    node.met(AGUS, 0.0, 4 * HOUR_S)
    assert node.away_s(14 * HOUR_S) == 4 * HOUR_S
    node.parted(AGUS, 16 * HOUR_S)
    assert node.away_s(17 * HOUR_S) == 5 * HOUR_S
    meet(node, AGUS, 0.0, 20 * HOUR_S)
    assert node.away_s(20 * HOUR_S) == 4 * HOUR_S, "apart for four hours, and for four again"


def test_what_a_peer_says_again_in_one_contact_is_no_other_meeting() -> None:
    """HELLO comes again when the way to the internet opens or closes."""
    node = officer()
    rows = [node.met(AGUS, 1000.0 * hour, DAY_S + hour * HOUR_S) for hour in (0, 2, 4, 6)]
    assert [(row.meetings, row.told_s) for row in rows] == [(1.0, 0.0), (1.0, 2e3), (1.0, 4e3), (1.0, 6e3)]


def test_however_often_they_meet_the_mean_is_an_hour_at_least() -> None:
    node = officer(now_s=5 * DAY_S)
    meet(node, OFFICE, 0.0, 5 * DAY_S + 1)
    assert node.away_s(5 * DAY_S + 1) == MEETING_GAP_S
    assert LEAST_S <= MEETING_GAP_S


# --- time -------------------------------------------------------------------------------------------------------


def test_it_grows_while_the_peer_stays_away() -> None:
    node = officer()
    for day in range(1, 8):
        meet(node, OFFICE, 0.0, day * DAY_S)
    numbers = [node.away_s(day * DAY_S) for day in range(7, 400)]
    assert numbers[0] == DAY_S
    assert all(before < after for before, after in pairwise(numbers))
    assert numbers[21] == pytest.approx(4 * DAY_S), "four weeks, seven meetings"


def test_a_meeting_once_is_soon_no_way_out() -> None:
    node = officer(now_s=DAY_S)
    meet(node, OFFICE, 0.0, DAY_S + 600)
    for day in range(2, 30):
        meet(node, AGUS, 2 * DAY_S, day * DAY_S)
    assert node.away_s(29 * DAY_S) == pytest.approx(3 * DAY_S, rel=0.05), (
        "agus, not the office of four weeks ago"
    )


def test_what_is_older_than_two_weeks_counts_less_and_less() -> None:
    """Somebody who moved to a kecamatan with a gateway, and has met it daily since."""
    node = officer()
    day = 0
    for day in range(28, 140, 28):
        meet(node, OFFICE, 0.0, day * DAY_S)
    assert node.away_s(day * DAY_S) > 20 * DAY_S
    week: list[float] = []
    for now_s in ((day + more) * DAY_S for more in range(1, 57)):
        row = meet(node, OFFICE, 0.0, now_s)
        week.append(node.away_s(now_s))
        assert now_s - row.since_s <= WATCHED_S + 28 * DAY_S
    assert all(before >= after for before, after in pairwise(week[:14]))
    assert week[-1] < 1.3 * DAY_S, "without it, 168 days and 60 meetings: 2.8 days"


def test_who_is_new_is_taken_to_have_been_away_no_longer_than_was_watched() -> None:
    node = officer(now_s=100 * DAY_S)
    meet(node, AGUS, 0.0, 102 * DAY_S)
    assert node.away_s(102 * DAY_S) == 2 * DAY_S
    node = officer(now_s=100 * DAY_S)
    meet(node, AGUS, 0.0, 200 * DAY_S)
    assert node.away_s(200 * DAY_S) == WATCHED_S


def test_the_number_is_kept_for_a_minute_unless_somebody_is_met() -> None:
    node = officer()
    meet(node, AGUS, 0.0, DAY_S)
    first = node.away_s(DAY_S)
    assert node.away_s(DAY_S + 59) == first
    assert node.away_s(DAY_S + STALE_S) == first + STALE_S
    meet(node, OFFICE, 0.0, DAY_S + STALE_S + HOUR_S)
    assert node.away_s(DAY_S + STALE_S + HOUR_S) == pytest.approx(DAY_S, abs=2 * HOUR_S)


# --- circles ----------------------------------------------------------------------------------------------------


def circle(gaps: list[float]) -> list[tuple[float, float, float]]:
    """Agus and Siti meet each other, and nobody else any more; Agus has been at the office. At each meeting: the time,
    and the number of each after it."""
    agus, siti = officer(), officer()
    meet(agus, OFFICE, 0.0, DAY_S)
    said: list[tuple[float, float, float]] = []
    now_s = DAY_S
    for gap_s in gaps:
        now_s += gap_s
        told_agus, told_siti = agus.away_s(now_s), siti.away_s(now_s)
        meet(agus, SITI, told_siti, now_s)
        meet(siti, AGUS, told_agus, now_s)
        said.append((now_s, agus.away_s(now_s), siti.away_s(now_s)))
    return said


def test_two_who_meet_only_each_other_think_ever_less_of_themselves() -> None:
    said = circle([DAY_S] * 60)
    for (_, agus, siti), (_, agus_after, siti_after) in pairwise(said):
        assert agus_after > agus or siti_after > siti
        assert agus_after >= agus
    assert max(said[-1]) > 14 * DAY_S


@given(st.lists(st.floats(MEETING_GAP_S + 1, 5 * DAY_S), min_size=1, max_size=60))
def test_what_leans_on_each_other_never_comes_nearer(gaps: list[float]) -> None:
    """Whatever the rhythm: the nearer of the two is as near as the office that was left, or by an hour a meeting
    farther than before."""
    nearest_s = 0.0
    for now_s, agus, siti in circle(gaps):
        left_s = now_s  # the mean of the office: watched since 0, met once
        assert min(agus, siti) >= min(left_s, nearest_s + MEETING_GAP_S) - 0.001
        nearest_s = min(agus, siti)


# --- rows and hearsay -------------------------------------------------------------------------------------------


@given(meetings, meetings, st.floats(0, 30 * DAY_S))
def test_a_restart_changes_nothing(before: list[Meeting], after: list[Meeting], later_s: float) -> None:
    """Of peers that were met; but for how long the last contacts were, which is not written."""
    before = [(peer, gap_s, 0.0, told_s) for peer, gap_s, _, told_s in before]
    before = [(peer, HOUR_S, 0.0, 0) for peer in PEERS] + before
    node = officer()
    rows, now_s = live(node, 0.0, before)
    restarted = officer(*rows.values(), now_s=now_s)
    assert restarted.away_s(now_s + later_s) == pytest.approx(node.away_s(now_s + later_s), abs=60)
    assert [restarted.told_s(peer) for peer in PEERS] == [node.told_s(peer) for peer in PEERS]
    assert live(restarted, now_s, after) == live(node, now_s, after)


def test_hearsay_is_of_those_alone_who_were_never_met() -> None:
    node = officer()
    node.heard(AGUS, 5000.0)
    assert node.told_s(AGUS) == 5000.0
    node.heard(AGUS, 4000.0)
    assert node.told_s(AGUS) == 4000.0
    assert node.away_s(0.0) == AWAY_S_MAX, "and no way out: it is not met"
    meet(node, AGUS, 9000.0, 10.0)
    node.heard(AGUS, 1.0)
    assert node.told_s(AGUS) == 9000.0
    node = officer(PutEncounter(AGUS, 0.0, 1.0, 5.0, 9000.0), now_s=10.0)
    node.heard(AGUS, 1.0)
    assert node.told_s(AGUS) == 9000.0, "not after a restart either"

"""Whom to dial, and when."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshnode.core.dialing import (
    CONFIGURED,
    GATEWAY,
    HEAD_START_S,
    OFFICE,
    PROBE,
    REMEMBERED,
    SIGHTED,
    Dialing,
)
from meshnode.core.identity import DeviceId
from meshnode.core.limits import (
    BACKOFF_FIRST_S,
    BACKOFF_MAX_S,
    BACKOFF_REMEMBERED_MAX_S,
    DIALLED_MAX,
    POLITE_S,
    REMEMBERED_MAX,
)

ME = DeviceId(b"m" * 16)
LOWER = DeviceId(b"a" * 16)
HIGHER = DeviceId(b"z" * 16)
A, B, C = "10.0.0.1:7766", "10.0.0.2:7766", "10.0.0.3:7766"


def fail(dialing: Dialing, text: str, now_s: float) -> float:
    """Dial `text`, which must be due, in vain; how long until it is due again."""
    assert text in dialing.due(now_s, set())
    dialing.failed(text, now_s)
    due_s = dialing.addresses[text].next_s
    assert dialing.due(due_s - 0.001, set()) == []
    return due_s - now_s


@pytest.mark.parametrize("source", [CONFIGURED, OFFICE, GATEWAY, SIGHTED, PROBE])
def test_a_named_address_is_dialled_at_once_and_once(source: str) -> None:
    dialing = Dialing(ME)
    dialing.note(A, None, source, 5.0)
    assert dialing.next_due_s(set()) == 5.0
    assert dialing.due(5.0, set()) == [A]
    assert dialing.due(500.0, set()) == [], "it is being dialled"
    assert dialing.next_due_s(set()) is None


def test_backoff_doubles_and_is_capped() -> None:
    dialing = Dialing(ME)
    dialing.note(A, None, CONFIGURED, 0.0)
    now_s = 0.0
    for failure in range(100):
        waited_s = fail(dialing, A, now_s)
        expected_s = min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2.0**failure)
        assert 0.75 * expected_s <= waited_s <= 1.25 * expected_s
        now_s += waited_s
    assert A in dialing.addresses, "a configured address is never given up"


@pytest.mark.parametrize("source", [REMEMBERED, GATEWAY])
def test_an_address_that_is_only_a_guess_is_tried_less_often(source: str) -> None:
    dialing = Dialing(ME)
    dialing.note(A, HIGHER, source, 0.0)
    for failure in range(1, 20):
        waited_s = fail(dialing, A, 10_000.0 * failure)
    assert BACKOFF_MAX_S * 1.25 < waited_s <= 1.25 * BACKOFF_REMEMBERED_MAX_S
    dialing.note(A, HIGHER, CONFIGURED, 10**6)
    for failure in range(1, 20):
        waited_s = fail(dialing, A, 10**6 + 10_000.0 * failure)
    assert waited_s <= 1.25 * BACKOFF_MAX_S


def test_jitter_differs_by_address_and_by_device() -> None:
    waits: dict[tuple[bytes, str], float] = {}
    for me in (ME, LOWER, HIGHER):
        for text in (A, B, "10.0.0.3:7766"):
            dialing = Dialing(me)
            dialing.note(text, None, CONFIGURED, 0.0)
            waits[me, text] = fail(dialing, text, 0.0)
    assert len(set(waits.values())) > 6


@pytest.mark.parametrize("source", [CONFIGURED, OFFICE, GATEWAY, REMEMBERED])
def test_what_lasts_is_never_given_up(source: str) -> None:
    dialing = Dialing(ME)
    dialing.note(A, HIGHER, source, 0.0)
    for failure in range(1, 200):
        fail(dialing, A, 1000.0 * failure)
    assert dialing.next_due_s(set()) is not None


@pytest.mark.parametrize("source", [SIGHTED, PROBE])
def test_a_sighting_alone_is_given_up_after_some_failures(source: str) -> None:
    dialing = Dialing(ME)
    dialing.note(A, HIGHER, source, 0.0)
    for failure in range(1, 12):
        assert dialing.due(100.0 * failure, set()) == [A]
        dialing.failed(A, 100.0 * failure)
    assert dialing.addresses == {}
    dialing.note(A, HIGHER, source, 2000.0)
    assert dialing.due(2000.0, set()) == [A]


@pytest.mark.parametrize("source", [SIGHTED, PROBE])
def test_a_new_sighting_makes_it_fast_again(source: str) -> None:
    dialing = Dialing(ME)
    dialing.note(A, HIGHER, source, 0.0)
    for failure in range(1, 8):
        fail(dialing, A, 100.0 * failure)
    dialing.note(A, HIGHER, source, 700.0)
    assert fail(dialing, A, 700.0) <= 1.25 * BACKOFF_FIRST_S


def test_of_several_addresses_of_a_device_each_has_a_head_start() -> None:
    dialing = Dialing(ME)
    for text in (A, B, C):
        dialing.note(text, HIGHER, SIGHTED, 5.0)
    assert dialing.due(5.0, set()) == [A]
    assert dialing.next_due_s(set()) == 5.0 + HEAD_START_S
    assert dialing.due(4.9 + HEAD_START_S, set()) == []
    assert dialing.due(6.0, set()) == [B], "the first one hangs"
    assert dialing.due(6.1, set()) == []
    dialing.failed(B, 6.1)
    assert dialing.due(6.1, set()) == [C], "the first one has had its time"
    dialing.opened(C, HIGHER)
    assert dialing.next_due_s({HIGHER}) is None


def test_where_a_device_is_heard_it_is_dialled_before_and_besides_where_it_was_once() -> None:
    dialing = Dialing(ME)
    dialing.remember(A, HIGHER, 1.0)
    dialing.remember(B, HIGHER, 2.0)
    assert dialing.due(5.0, set()) == [B], "the latest memory first"
    dialing.note(C, HIGHER, PROBE, 5.1)
    assert dialing.due(5.1, set()) == [C]
    assert dialing.due(5.1 + HEAD_START_S, set()) == [A]
    dialing = Dialing(ME)
    dialing.remember(A, HIGHER, 1.0)
    dialing.note(C, HIGHER, PROBE, 5.0)
    assert dialing.due(5.0, set()) == [C]


def test_one_that_fails_at_once_does_not_hold_the_others_up() -> None:
    dialing = Dialing(ME)
    for text in (A, B):
        dialing.note(text, HIGHER, SIGHTED, 5.0)
    assert dialing.due(5.0, set()) == [A]
    dialing.failed(A, 5.01)
    assert dialing.due(5.01, set()) == [B]


def test_the_gateways_are_those_of_now_and_may_be_anybody() -> None:
    dialing = Dialing(ME)
    dialing.remember(A, HIGHER, 0.0)
    dialing.find_gateways([A], set(), 1.0)
    assert dialing.due(1.0, {HIGHER}) == [A], "there are as many hotspots at this address as phones"
    dialing.opened(A, LOWER)
    dialing.failed(A, 2.0)
    dialing.find_gateways([A], {"10.0.0.1"}, 3.0)
    assert dialing.due(9.0, {LOWER}) == [], "he is there still"
    dialing.find_gateways([B], set(), 10.0)
    assert dialing.due(10.0, {LOWER, HIGHER}) == [B]
    assert dialing.addresses[A].sources == {REMEMBERED}
    dialing.find_gateways([], set(), 11.0)
    dialing.failed(B, 12.0)
    assert B not in dialing.addresses


def test_a_change_of_network_makes_it_fast_again() -> None:
    dialing = Dialing(ME)
    dialing.note(A, None, CONFIGURED, 0.0)
    for failure in range(1, 8):
        fail(dialing, A, 100.0 * failure)
    dialing.network_changed(700.5)
    due_s = dialing.next_due_s(set())
    assert due_s is not None
    assert 700.5 <= due_s <= 700.5 + BACKOFF_FIRST_S
    assert fail(dialing, A, due_s) <= 1.25 * BACKOFF_FIRST_S


def test_the_lower_id_dials_first() -> None:
    dialing = Dialing(ME)
    dialing.note(A, HIGHER, SIGHTED, 5.0)
    dialing.note(B, LOWER, SIGHTED, 5.0)
    assert dialing.due(5.0, set()) == [A]
    assert dialing.due(5.0 + POLITE_S, {LOWER}) == [], "the lower one has dialled by now"
    assert dialing.due(5.0 + POLITE_S, set()) == [B], "or it could not"


def test_repeated_sightings_do_not_put_the_polite_off_for_ever() -> None:
    dialing = Dialing(ME)
    dialed = []
    for tenth in range(30):
        dialing.note(A, LOWER, SIGHTED, tenth / 10)
        dialed += dialing.due(tenth / 10, set())
    assert dialed == [A]


def test_who_is_connected_is_not_dialled() -> None:
    dialing = Dialing(ME)
    dialing.note(A, HIGHER, CONFIGURED, 0.0)
    assert dialing.due(9.0, {HIGHER}) == []
    assert dialing.next_due_s({HIGHER}) is None
    assert dialing.due(9.0, set()) == [A]
    dialing.opened(A, HIGHER)
    assert dialing.due(99.0, {HIGHER}) == []
    dialing.failed(A, 99.0)
    assert dialing.due(100.0, set()) == [A]


def test_this_device_is_never_dialled_twice() -> None:
    dialing = Dialing(ME)
    dialing.note(A, ME, SIGHTED, 0.0)
    assert dialing.addresses == {}
    dialing.note(B, None, CONFIGURED, 0.0)
    assert dialing.due(0.0, set()) == [B]
    dialing.opened(B, ME)
    dialing.failed(B, 0.0)
    assert dialing.due(9999.0, set()) == []


def test_an_address_that_changes_hands_is_dialled_for_the_new_one() -> None:
    dialing = Dialing(ME)
    dialing.note(A, LOWER, REMEMBERED, 0.0)
    dialing.note(A, HIGHER, SIGHTED, 1.0)
    assert dialing.due(1.0, {LOWER}) == [A]


def test_a_contact_that_works_resets_the_backoff_and_one_that_does_not_keeps_it() -> None:
    dialing = Dialing(ME)
    dialing.note(A, None, CONFIGURED, 0.0)
    for failure in range(6):
        fail(dialing, A, 100.0 * failure)
    assert dialing.due(600.0, set()) == [A]
    dialing.opened(A, HIGHER)
    dialing.failed(A, 600.0)
    assert dialing.addresses[A].next_s - 600.0 > 10.0
    assert dialing.due(700.0, set()) == [A]
    dialing.opened(A, HIGHER)
    dialing.succeeded(A)
    dialing.failed(A, 900.0)
    assert dialing.addresses[A].next_s - 900.0 <= 1.25 * BACKOFF_FIRST_S


def test_a_source_may_name_other_addresses() -> None:
    dialing = Dialing(ME)
    dialing.replace(OFFICE, [A, B], 0.0)
    assert sorted(dialing.due(0.0, set())) == [A, B]
    assert dialing.is_office(A)
    dialing.failed(A, 0.0)
    dialing.failed(B, 0.0)
    dialing.replace(OFFICE, [B], 0.0)
    assert not dialing.is_office(A)
    assert list(dialing.addresses) == [B]
    assert dialing.addresses[B].failures == 1, "one that stays keeps its backoff"
    dialing.note(B, None, CONFIGURED, 0.0)
    dialing.replace(OFFICE, [], 0.0)
    assert list(dialing.addresses) == [B], "somebody else still names it"
    assert not dialing.is_office(B)


def test_an_address_that_nobody_names_any_more_is_not_dialled_again() -> None:
    dialing = Dialing(ME)
    dialing.replace(OFFICE, [A], 0.0)
    assert dialing.due(0.0, set()) == [A]
    dialing.replace(OFFICE, [], 1.0)
    dialing.failed(A, 10.0)
    assert dialing.due(9999.0, set()) == []
    dialing.failed(A, 20.0)  # it may be told late


def test_memory_is_bounded_and_the_oldest_goes() -> None:
    dialing = Dialing(ME)
    dialing.note("10.1.0.0:1", None, CONFIGURED, 0.0)
    for n in range(REMEMBERED_MAX + 10):
        dialing.remember(f"10.1.0.{n}:1", HIGHER, float(n))
    assert "10.1.0.0:1" in dialing.addresses, "it is configured, too"
    assert REMEMBERED not in dialing.addresses["10.1.0.0:1"].sources
    assert "10.1.0.9:1" not in dialing.addresses
    assert "10.1.0.10:1" in dialing.addresses
    assert sum(REMEMBERED in a.sources for a in dialing.addresses.values()) == REMEMBERED_MAX
    dialing.remember("10.1.0.10:1", HIGHER, 1000.0)
    dialing.remember("10.2.0.0:1", HIGHER, 1001.0)
    assert "10.1.0.10:1" in dialing.addresses, "met again"
    assert "10.1.0.11:1" not in dialing.addresses


deeds = st.lists(
    st.tuples(
        st.sampled_from(["note", "due", "failed", "opened", "lost", "changed", "remember", "replace"]),
        st.sampled_from([A, B]),
        st.sampled_from([None, LOWER, HIGHER]),
        st.floats(0, 40),
    ),
    max_size=60,
)


@given(deeds)
def test_a_configured_address_is_always_tried_again(
    some: list[tuple[str, str, DeviceId | None, float]],
) -> None:
    dialing = Dialing(ME)
    dialing.note(A, None, CONFIGURED, 0.0)
    now_s = 0.0
    busy: set[str] = set()
    for deed, text, device, seconds in some:
        now_s += seconds
        match deed:
            case "note":
                dialing.note(text, device, SIGHTED, now_s)
            case "due":
                due = dialing.due(now_s, set())
                assert not busy & set(due), "dialled twice at once"
                busy |= set(due)
            case "failed" if text in busy:
                busy.discard(text)
                dialing.failed(text, now_s)
            case "opened" if text in busy:
                busy.discard(text)
                dialing.opened(text, device or HIGHER)
                dialing.failed(text, now_s)
            case "changed":
                dialing.network_changed(now_s)
            case "remember":
                dialing.remember(text, device or LOWER, now_s)
            case "replace":
                dialing.replace(OFFICE, [text], now_s)
    for text in busy:
        dialing.failed(text, now_s)
    due_s = min(address.next_s for address in dialing.addresses.values() if address.text == A)
    assert due_s <= now_s + 1.25 * BACKOFF_MAX_S
    then_s = max(now_s, due_s)
    assert A in dialing.due(then_s, set()) + dialing.due(then_s + HEAD_START_S, set())


# --- crowds -----------------------------------------------------------------------------------------------------


class Crowd:
    """Devices in one place, where every dial succeeds at once."""

    def __init__(self, names: Iterable[int]) -> None:
        self.all = {DeviceId(hashlib.sha256(b"%d" % name).digest()[:16]) for name in names}
        self.dialing = {device: Dialing(device) for device in self.all}
        self.contacts: set[frozenset[DeviceId]] = set()
        self.dials: Counter[DeviceId] = Counter()
        self.now_s = 0.0

    def join(self, other: Crowd) -> None:
        """The other crowd comes into the same place."""
        self.all |= other.all
        self.dialing |= other.dialing
        self.contacts |= other.contacts
        self.dials += other.dials

    def hear(self, chance: random.Random) -> None:
        """Each hears all others, in any order, and dials as soon as it may."""
        heard = [(one, other) for one in sorted(self.all) for other in sorted(self.all) if one != other]
        chance.shuffle(heard)
        for one, other in heard:
            self.dialing[one].note(other.hex(), other, SIGHTED, self.now_s)
            self.dial(one)
        for wait_s in (POLITE_S, POLITE_S + HEAD_START_S):
            self.now_s += wait_s
            for one in sorted(self.all):
                self.dial(one)

    def dial(self, one: DeviceId) -> None:
        for text in self.dialing[one].due(self.now_s, self.met_by(one)):
            other = DeviceId(bytes.fromhex(text))
            self.dialing[one].opened(text, other)
            self.dialing[one].succeeded(text)
            self.dials[one] += 1
            self.contacts.add(frozenset((one, other)))

    def met_by(self, one: DeviceId) -> set[DeviceId]:
        return {other for pair in self.contacts if one in pair for other in pair - {one}}

    def reach_of_one(self) -> set[DeviceId]:
        """Whom the first reaches, over others."""
        reached: set[DeviceId] = set()
        fresh = {min(self.all)}
        while fresh:
            reached |= fresh
            fresh = set().union(*map(self.met_by, fresh)) - reached
        return reached


@pytest.mark.parametrize("seed", range(3))
def test_a_few_are_all_in_contact(seed: int) -> None:
    crowd = Crowd(range(DIALLED_MAX + 1))
    crowd.hear(random.Random(seed))
    assert len(crowd.contacts) == (DIALLED_MAX + 1) * DIALLED_MAX // 2


@pytest.mark.parametrize("seed", range(3))
def test_a_crowd_is_one_and_nobody_dials_everybody(seed: int) -> None:
    crowd = Crowd(range(60))
    crowd.hear(random.Random(seed))
    assert crowd.reach_of_one() == crowd.all
    assert len(crowd.contacts) < 60 * (DIALLED_MAX + 3) < 60 * 59 / 2
    for one in crowd.all:
        assert crowd.dialing[one].due(1e6, crowd.met_by(one)) == []
        assert crowd.dialing[one].next_due_s(crowd.met_by(one)) is None, "nothing to wake up for"


def test_two_crowds_that_come_together_are_one() -> None:
    chance = random.Random(1)
    here, there = Crowd(range(30)), Crowd(range(30, 60))
    for crowd in (here, there):
        crowd.hear(chance)
        # each has dialled as many as it may, so that none would dial one of the others for lack of contacts
        for one in crowd.all:
            for number in range(DIALLED_MAX):
                elsewhere = DeviceId(one[:-1] + b"%c" % number)
                crowd.dialing[one].remember(elsewhere.hex(), elsewhere, 1.0)
                crowd.dialing[one].opened(elsewhere.hex(), elsewhere)
                crowd.contacts.add(frozenset((one, elsewhere)))
    here.join(there)
    here.hear(chance)
    assert here.reach_of_one() >= here.all


def full(dialing: Dialing) -> set[DeviceId]:
    """Let it dial as many of a crowd as it may, and one that follows it; with whom it is in contact then."""
    nearest = DeviceId(ME[:-1] + b"n")
    dialing.note("nearest", nearest, SIGHTED, 0.0)
    connected = {nearest}
    for number in range(DIALLED_MAX):
        device = DeviceId(b"x%15d" % number)
        dialing.note(f"crowd {number}", device, SIGHTED, 0.0)
        assert dialing.due(0.0, connected) == [f"crowd {number}"]
        dialing.opened(f"crowd {number}", device)
        connected.add(device)
    dialing.note(A, HIGHER, SIGHTED, 0.0)
    assert dialing.due(1e6, connected) == []
    assert dialing.next_due_s(connected) is None
    return connected


@pytest.mark.parametrize("source", [CONFIGURED, OFFICE, GATEWAY])
def test_who_is_named_is_dialled_from_any_crowd(source: str) -> None:
    dialing = Dialing(ME)
    connected = full(dialing)
    dialing.note(B, None, source, 1.0)
    assert dialing.due(1.0, connected) == [B]
    dialing.note(A, HIGHER, source, 1.0)
    assert dialing.due(1.0, connected) == [A]


def test_when_one_of_the_crowd_goes_another_is_dialled() -> None:
    dialing = Dialing(ME)
    connected = full(dialing)
    dialing.failed("crowd 3", 9.0)
    assert dialing.due(9.0, connected - {DeviceId(b"x%15d" % 3)}) == [A]


def test_who_follows_in_the_ring_is_dialled_from_any_crowd_and_the_next_if_that_fails() -> None:
    dialing = Dialing(ME)
    connected = full(dialing) - {DeviceId(ME[:-1] + b"n")}
    dialing.replace(SIGHTED, [text for text in dialing.addresses if text != "nearest"], 1.0)
    first, second = DeviceId(ME[:-1] + b"o"), DeviceId(ME[:-1] + b"p")
    dialing.note(C, second, SIGHTED, 1.0)
    dialing.note(B, first, SIGHTED, 1.0)
    assert dialing.due(1.0, connected) == [B]
    assert dialing.due(1.1, connected) == []
    dialing.failed(B, 2.0)
    assert dialing.due(2.0, connected) == [C]

"""Who else holds what, against a model that forgets nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshnode.core.holders import COPIES_MAX, HOLDERS_MAX, HOLDERS_MIN, NEAREST_MAX, ROWS_MAX, Holders
from meshnode.core.identity import DeviceId, JournalId
from meshnode.core.intervals import NONE, Ranges

J, K, L = (JournalId(letter * 16) for letter in (b"j", b"k", b"l"))
FEW = [DeviceId(letter * 16) for letter in (b"a", b"b", b"c", b"d")]
A, B, C, D = FEW
#: Two are equally near, and nobody is where its id says.
AWAY_S = {A: 300.0, B: 100.0, C: 200.0, D: 100.0}
NUMBERS = range(1, 9)


def device(number: int) -> DeviceId:
    """One of many."""
    return DeviceId(number.to_bytes(16, "big"))


def by_number(each: DeviceId) -> float:
    """How far one of many is: the one with the lowest number is nearest."""
    return float(int.from_bytes(each, "big"))


class Both:
    """What is tested, and the model: sets of numbers by journal and device."""

    def __init__(self) -> None:
        self.holders = Holders(AWAY_S.__getitem__)
        self.seen: dict[tuple[JournalId, DeviceId], set[int]] = {}
        self.heard: dict[tuple[JournalId, DeviceId], set[int]] = {}
        self.arrived: dict[JournalId, set[int]] = {}

    def see(self, journal: JournalId, who: DeviceId, what: set[int], ends: bool) -> None:
        """It says so of itself."""
        self.holders.see(journal, who, Ranges.of(what), ends=ends)
        self.heard.pop((journal, who), None)
        self.seen[journal, who] = what
        if not what:
            del self.seen[journal, who]
        if ends:
            self.arrived[journal] = what

    def hear(self, journal: JournalId, who: DeviceId, what: set[int]) -> None:
        """Another one says so."""
        self.holders.hear(journal, who, Ranges.of(what))
        if (journal, who) not in self.seen:
            self.heard[journal, who] = what
            if not what:
                del self.heard[journal, who]

    def see_whole(self, who: DeviceId, these: set[JournalId]) -> None:
        """It holds nothing but of these."""
        self.holders.see_whole(who, these)
        for known in (self.seen, self.heard):
            for key in [key for key in known if key[1] == who and key[0] not in these]:
                del known[key]

    def keep(self, these: set[JournalId]) -> None:
        """Nothing else is of use."""
        self.holders.keep(these)
        for known in (self.seen, self.heard):
            for key in [key for key in known if key[0] not in these]:
                del known[key]
        self.arrived = {journal: what for journal, what in self.arrived.items() if journal in these}

    def of(self, journal: JournalId) -> dict[DeviceId, set[int]]:
        """What each device holds of a journal."""
        both = [*self.heard.items(), *self.seen.items()]
        return {who: what for (of, who), what in both if of == journal}

    def nearest(self, journal: JournalId, of: set[int], within_s: float) -> dict[DeviceId, set[int]]:
        """Of each number the two nearest that hold it and are near enough."""
        chosen: dict[DeviceId, set[int]] = {}
        for number in of:
            holding = [who for who, what in self.of(journal).items() if number in what]
            near = [who for who in holding if AWAY_S[who] < within_s]
            for who in sorted(near, key=lambda who: (AWAY_S[who], who))[:NEAREST_MAX]:
                chosen.setdefault(who, set()).add(number)
        return chosen

    def layers(self, journal: JournalId) -> list[set[int]]:
        """What at least one was seen to hold, what at least two, and so on."""
        seen = [what for (of, _), what in self.seen.items() if of == journal]
        counts = {number: sum(number in what for what in seen) for number in NUMBERS}
        deepest = max(counts.values())
        return [{number for number in NUMBERS if counts[number] > depth} for depth in range(deepest)]


Deed = Callable[[Both], None]
journals, devices = st.sampled_from([J, K, L]), st.sampled_from(FEW)
numbers = st.sets(st.sampled_from(list(NUMBERS)))


def _deed(name: str, *args: st.SearchStrategy[object]) -> st.SearchStrategy[Deed]:
    return st.tuples(*args).map(lambda drawn: lambda both: getattr(both, name)(*drawn))


deeds = st.lists(
    _deed("see", journals, devices, numbers, st.booleans())
    | _deed("see", journals, devices, numbers, st.just(False))
    | _deed("hear", journals, devices, numbers)
    | _deed("see_whole", devices, st.sets(journals))
    | _deed("keep", st.sets(journals, min_size=2)),
    max_size=25,
)


@given(deeds, numbers, st.sampled_from([50.0, 100.0, 150.0, 201.0, 1000.0]))
def test_whatever_is_said_all_answers_are_those_of_the_model(
    deeds: list[Deed], of: set[int], within_s: float
) -> None:
    both = Both()
    holders = both.holders
    for deed in deeds:
        deed(both)
        for journal in (J, K, L):  # after each, since answers are kept
            rows = list(holders.of(journal))
            assert len({who for who, _ in rows}) == len(rows), "no device twice"
            assert {who: set(what) for who, what in rows} == both.of(journal)
            assert [set(layer) for layer in holders.layers(journal)] == both.layers(journal)
            assert set(holders.arrived(journal)) == both.arrived.get(journal, set())
            near = list(holders.nearest(journal, Ranges.of(of), within_s))
            chosen = both.nearest(journal, of, within_s)
            # Whoever is named is named with all of `of` that it holds, which says no less.
            assert [who for who, _ in near] == sorted(chosen, key=lambda who: (AWAY_S[who], who))
            for who, what in near:
                assert chosen[who] <= set(what) <= both.of(journal)[who] & of
        assert len(holders) == len(both.seen) + len(both.heard)


def test_seen_is_believed_rather_than_heard() -> None:
    both = Both()
    holders = both.holders
    holders.hear(J, A, Ranges.span(1, 9))
    assert list(holders.of(J)) == [(A, Ranges.span(1, 9))]
    assert holders.layers(J) == (), "and what is only heard is no reason to give anything up"
    holders.see(J, A, Ranges.span(2, 3))
    holders.hear(J, A, Ranges.span(1, 9))
    assert list(holders.of(J)) == [(A, Ranges.span(2, 3))]
    holders.see(J, A, NONE)
    assert list(holders.of(J)) == []
    assert len(holders) == 0


def test_a_device_that_never_held_it_may_say_so_too() -> None:
    holders = Holders(AWAY_S.__getitem__)
    holders.hear(J, A, Ranges.single(1))
    holders.see(J, A, NONE)
    assert list(holders.of(J)) == []
    holders.see_whole(A, [])
    assert len(holders) == 0


def test_what_has_arrived_is_what_its_end_said_last() -> None:
    holders = Holders(AWAY_S.__getitem__)
    holders.see(J, A, Ranges.span(1, 5), ends=True)
    holders.see(J, B, Ranges.span(1, 9))
    holders.hear(J, C, Ranges.span(1, 9))
    assert holders.arrived(J) == Ranges.span(1, 5)
    holders.see(J, A, Ranges.span(1, 6), ends=True)
    assert holders.arrived(J) == Ranges.span(1, 6)
    assert holders.arrived(K) == NONE


# --- no more than the nearest -----------------------------------------------------------------------------------


@given(st.permutations(range(3 * HOLDERS_MAX // 2)))
@settings(max_examples=25)
def test_the_nearest_are_kept_in_whatever_order_they_come(order: list[int]) -> None:
    holders = Holders(by_number)
    for number in order:
        holders.see(J, device(number), Ranges.span(1, number + 1))
        holders.hear(K, device(number), Ranges.span(1, number + 1))
    nearest = {device(number): Ranges.span(1, number + 1) for number in range(HOLDERS_MAX)}
    assert dict(holders.of(J)) == nearest
    assert dict(holders.of(K)) == nearest
    assert holders.layers(J)[-1] == Ranges.span(1, HOLDERS_MAX - COPIES_MAX + 1)
    assert len(holders.layers(J)) == COPIES_MAX


def test_who_is_heard_of_takes_no_place_of_who_was_seen() -> None:
    """Or a liar could invent near holders, and make a node forget what it knows."""
    holders = Holders(by_number)
    for number in range(1000, 1000 + HOLDERS_MAX):
        holders.see(J, device(number), Ranges.single(1))
    for number in range(2 * HOLDERS_MAX):
        holders.hear(J, device(number), Ranges.single(1))
    assert len(holders.layers(J)) == COPIES_MAX
    assert len(holders) == 2 * HOLDERS_MAX


def test_one_that_comes_nearer_takes_the_place_of_another() -> None:
    away_s = {device(number): float(number) for number in range(1, HOLDERS_MAX + 2)}
    holders = Holders(away_s.__getitem__)
    for each in away_s:
        holders.see(J, each, Ranges.single(1))
    farthest, second = device(HOLDERS_MAX + 1), device(HOLDERS_MAX)
    assert farthest not in dict(holders.of(J))
    away_s[farthest] = 0.0
    holders.see(J, farthest, Ranges.single(1))
    assert farthest in dict(holders.of(J))
    assert second not in dict(holders.of(J))


@pytest.mark.slow
def test_the_cost_grows_with_the_journals_and_not_with_the_fleet() -> None:
    """500 devices that hold some of 500 journals, with gaps: no more rows than 2 * HOLDERS_MAX a journal."""
    fleet, count = 500, 500
    gappy = [Ranges((first, first + 1) for first in range(1 + of, 40, 3 + of % 4)) for of in range(7)]
    ids = [JournalId(number.to_bytes(16, "big")) for number in range(count)]
    many = {device(number): float(number) for number in range(fleet)}
    holders = Holders(many.__getitem__)
    for at, each in enumerate(many):
        for of, journal in enumerate(ids):
            if (at + of) % 3:
                holders.hear(journal, each, gappy[(at + of) % 7])
            else:
                holders.see(journal, each, gappy[(at + of) % 7])
    rows = sum(1 for journal in ids for _ in holders.of(journal))
    assert rows == len(holders) == 2 * HOLDERS_MAX * count, "all that there is room for, and no more"
    for journal in ids:
        assert len(holders.layers(journal)) <= COPIES_MAX
    holders.keep(ids[:3])
    assert len(holders) <= 2 * HOLDERS_MAX * 3


def test_of_very_many_journals_fewer_devices_are_remembered() -> None:
    """As many rows as ever, and of each journal the nearest few."""
    holders = Holders(by_number)
    journals = [JournalId(number.to_bytes(16, "big")) for number in range(ROWS_MAX // 8)]
    for _ in range(2):
        for number in reversed(range(HOLDERS_MIN + 2)):
            for journal in journals:
                holders.see(journal, device(number), Ranges.single(1))
    assert len(holders) <= ROWS_MAX // 2
    nearest = {device(number) for number in range(ROWS_MAX // (2 * len(journals)))}
    assert {each for each, _ in holders.of(journals[-1])} == nearest

"""One contact where bundles go both ways: who waits for whom."""

from __future__ import annotations

from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from meshnode.core.bundle import ROUTINE, URGENT
from meshnode.core.contact import Contact
from meshnode.core.frames import (
    Next,
    Want,
    Wanted,
)
from meshnode.core.intervals import NONE, Ranges
from meshnode.core.limits import (
    HOLD_S,
)
from meshnode.core.ports import Effect, Send, SendBundle
from tests.core.contacts import (
    CERTIFICATES,
    FLEET,
    HELLO,
    ORDER,
    PLENTY,
    carrying,
    frame,
    sizes,
)


class End:
    """One end of a contact, with messages of (size, priority, parts) that the other asks for."""

    def __init__(self, name: str, other: str, messages: list[tuple[int, int, int]], *, dialled: bool) -> None:
        self.contact = Contact(1, FLEET.certificate(other), "", 0.0, dialled=dialled)
        self.contact.hello = HELLO
        self.ledger, self.journal = carrying(*messages, source=FLEET.device(name))
        #: On the way from this end: frames and bundles, in order; and what its link has not reported sent yet.
        self.line: deque[Effect] = deque()
        self.standing: deque[int] = deque()
        self.nexts: list[Next] = []
        #: The sizes of all bundles that either end has sent, in order.
        self.air: list[int] = []

    def pump(self, now_s: float = 0.0) -> list[int]:
        """Send what may be sent; the numbers of the bundles among it."""
        effects = list(self.contact.pump(self.ledger, CERTIFICATES, ORDER, now_s))
        for effect in effects:
            self.line.append(effect)
            if isinstance(effect, SendBundle):
                self.standing.append(effect.size)
                self.air.append(effect.size)
            elif isinstance(said := frame(effect), Next):
                self.nexts.append(said)
        return [effect.number for effect in effects if isinstance(effect, SendBundle)]

    def ask(self, other: End, numbers: Ranges) -> None:
        """Ask the other end for these."""
        self.contact.wanting[other.journal.id] = numbers
        rows = [Wanted(other.journal.id, numbers, NONE, True)]
        self.line.append(self.contact.want(rows, PLENTY, 0.0) or Send(1, b""))

    def take(self, effect: Effect, now_s: float = 0.0) -> None:
        """Something came from the other end, and a node would do this."""
        match effect:
            case SendBundle():
                self.contact.arrived(effect.journal, effect.number, effect.size, now_s)
                self.contact.settled_bytes += effect.size
                if want := self.contact.want([], PLENTY, now_s):
                    self.line.append(want)
            case Send():
                said = frame(effect)
                if isinstance(said, Want):
                    self.contact.note_want(said, self.ledger, ORDER)
                    self.pump(now_s)
                elif isinstance(said, Next):
                    self.contact.note_next(said)
                    self.pump(now_s)

    def sent(self, now_s: float = 0.0) -> None:
        """The link has sent a bundle."""
        self.contact.note_sent(self.standing.popleft(), now_s)
        self.pump(now_s)


def meet(ours: list[tuple[int, int, int]], theirs: list[tuple[int, int, int]]) -> tuple[End, End]:
    """Two that have just asked each other for everything."""
    siti, wati = End("siti", "wati", ours, dialled=True), End("wati", "siti", theirs, dialled=False)
    wati.air = siti.air
    for end, other in ((siti, wati), (wati, siti)):
        if other.journal.held:
            end.ask(other, other.journal.held)
    return siti, wati


def settle(*ends: End) -> None:
    """Carry all frames over, but report no bundle as sent."""
    while any(end.line for end in ends):
        for end, other in zip(ends, reversed(ends), strict=True):
            while end.line:
                other.take(end.line.popleft())


ranks = st.lists(st.tuples(sizes, st.integers(0, 1), st.integers(1, 3)), max_size=6)


@given(ranks, ranks, st.data())
def test_two_that_trade_never_wait_for_each_other(
    ours: list[tuple[int, int, int]], theirs: list[tuple[int, int, int]], data: st.DataObject
) -> None:
    """In whatever order frames, bundles and the links' reports come, with equal ranks too: all gets through in no time,
    and of two that know of each other what comes next exactly one waits."""
    ends = siti, wati = meet(ours, theirs)
    while True:
        moves = [(end, what) for end in ends for what in ("line", "standing") if getattr(end, what)]
        if not moves:
            break
        end, what = data.draw(st.sampled_from(moves))
        if what == "line":
            (wati if end is siti else siti).take(end.line.popleft())
        else:
            end.sent()
        on_the_way = [frame(effect) for end in ends for effect in end.line if isinstance(effect, Send)]
        trading = all(end.contact.requests._queue and end.contact.wanting for end in ends)
        known = all(end.nexts and end.contact._next_heard for end in ends)
        if trading and known and not any(isinstance(said, (Next, Want)) for said in on_the_way):
            assert sum(end.contact.holds_until_s > 0.0 for end in ends) == 1
    assert [end.contact.wanting for end in ends] == [{}, {}]
    assert [end.contact.requests._queue for end in ends] == [[], []]


def test_whoever_has_the_lesser_bundle_waits_until_the_better_ones_are_through() -> None:
    siti, wati = meet(
        [(9000, ROUTINE, 1), (30_000, URGENT, 1)],
        [(2000, URGENT, 1), (3000, ROUTINE, 1), (20_000, ROUTINE, 1)],
    )
    settle(siti, wati)
    while siti.standing or wati.standing:
        for end in (siti, wati):
            if end.standing:
                end.sent()
        settle(siti, wati)
    assert siti.air == [2000, 30_000, 3000, 9000, 20_000]
    assert siti.nexts[0] == Next((0, -1 / 30_000))
    assert wati.nexts[0] == Next((0, -1 / 2000))


def test_equal_bundles_go_from_the_one_that_was_dialled_first() -> None:
    siti, wati = meet([(2000, ROUTINE, 1)], [(2000, ROUTINE, 1)])
    siti.take(wati.line.popleft())
    wati.take(siti.line.popleft())
    assert (list(siti.standing), list(wati.standing)) == ([], []), "neither knows yet what the other has"
    wati.take(siti.line.popleft())
    siti.take(wati.line.popleft())
    assert (list(siti.standing), list(wati.standing)) == ([], [2000])


def test_nothing_is_said_of_what_comes_next_where_bundles_go_one_way() -> None:
    siti, wati = meet([(2000, ROUTINE, 1)] * 9, [])
    settle(siti, wati)
    while siti.standing:
        siti.sent()
        settle(siti, wati)
    assert not wati.contact.wanting
    assert siti.nexts == []
    assert wati.nexts == []


def test_what_comes_next_is_said_when_it_changes_and_at_the_end() -> None:
    siti, wati = meet([(9000, ROUTINE, 1), (9000, ROUTINE, 1)], [(300_000, ROUTINE, 1)])
    settle(siti, wati)
    while siti.standing or wati.standing:
        for end in (siti, wati):
            if end.standing:
                end.sent()
        settle(siti, wati)
    assert siti.nexts == [Next((2, -1 / 9000)), Next(None)]
    assert wati.nexts == [Next((2, -1 / 300_000)), Next(None)]


def test_nobody_waits_longer_than_for_some_of_what_is_owed() -> None:
    siti, wati = meet([(9000, ROUTINE, 1)], [(2000, ROUTINE, 1), (3000, ROUTINE, 1)])
    siti.take(wati.line.popleft())
    siti.contact.note_next(Next((2, -1 / 2000)))
    assert siti.contact.holds_until_s == HOLD_S
    assert siti.pump(HOLD_S - 0.1) == []
    siti.contact.arrived(wati.journal.id, 1, 2000, 4.0)
    assert siti.pump(HOLD_S) == [], "some of it came"
    assert siti.pump(4.0 + HOLD_S - 0.1) == []
    assert siti.pump(4.0 + HOLD_S) == [1]


def test_nobody_waits_for_who_owes_nothing_or_has_nothing() -> None:
    for next_heard, owes, waits in (
        (None, True, True),
        (None, False, False),
        (Next(None), True, False),
        (Next((0, -1.0)), True, True),
        (Next((0, -1.0)), False, False),
        (Next((2, -1 / 9001)), True, False),
    ):
        siti, wati = meet([(9000, ROUTINE, 1)], [(2000, ROUTINE, 1)])
        if not owes:
            siti.contact.wanting = {}
        if next_heard:
            siti.contact.note_next(next_heard)
        siti.take(wati.line.popleft())
        assert (siti.contact.holds_until_s > 0.0) is waits
        assert list(siti.standing) == ([] if waits else [9000])

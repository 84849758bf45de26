"""The story of a message that another device wrote, as far as this node knows it (`story`)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from meshnode.app.happenings import Happening, Names, by_peer, in_order, signed, verdict_text
from meshnode.app.lookup import Found
from meshnode.app.received import Answer
from meshnode.core.bundle import URGENT
from meshnode.core.custody import DELIVERED
from meshnode.core.history import CAME, DISCARDED
from meshnode.core.identity import DeviceId
from meshnode.core.intervals import Ranges
from meshnode.core.rows import NOBODY
from meshnode.core.state import State
from meshnode.core.words import Clause, Said, count, say
from meshnode.office.desk import SetAside

#: States of others' messages, besides DELIVERED.
QUARANTINED: Final = "quarantined"
WAITING: Final = "waiting"
INCOMPLETE: Final = "incomplete"
CARRIED_HERE: Final = "carried_here"
NOT_HERE: Final = "not_here"


class OthersStory:
    """What this node knows of a message that another device wrote. `aside`: why the desk keeps it apart, if it does;
    `answer`: what this office has answered."""

    def __init__(self, state: State, found: Found, aside: SetAside | None, answer: Answer | None) -> None:
        self._state = state
        self._found = found
        self._aside = aside
        self._answer = answer
        self._names = Names(state)
        self._journal = state.ledger.journals[found.journal]
        assert self._journal.source is not None
        self._source = self._journal.source
        self._runs = state.history.runs(found.journal)
        self._here = self._journal.held & found.span
        self._is_done = found.span <= self._journal.receipted

    def as_json(self) -> dict[str, Any]:
        """The whole answer."""
        entry = self._journal.entries.get(self._here.pairs[0][0]) if self._here else None
        code, now = self._now()
        return {
            "key": self._found.key,
            "reference": "",
            "kind": "",
            "source": self._names.of(self._source),
            "to": self._names.destination(self._journal),
            "size_bytes": self._journal.entries.size_of(self._here) if self._here else None,
            "bundles": None if self._found.last is None else len(self._found.span),
            "state": code,
            "copies": 0,
            "priority": None if entry is None else "urgent" if entry.priority == URGENT else "routine",
            "missing": [list(pair) for pair in self._missing.pairs],
            "story": [it.as_json() for it in in_order(self._happenings())],
            "now": str(now),
            "now_code": code,
        }

    @property
    def _missing(self) -> Ranges:
        return self._found.span - self._journal.held - self._journal.receipted

    def _happenings(self) -> Iterator[Happening]:
        came = by_peer(self._runs, CAME, self._found.span)
        for peer, parts in came.items():
            yield self._came(peer, parts[0][0], sum(len(part) for _, part in parts))
        if untold := self._here - _all(came):
            text = count("{n} bundle came.", "{n} bundles came.", len(untold))
            yield Happening("came", text, None, None, len(untold))
        gone = by_peer(self._runs, DISCARDED, self._found.span)
        for at_ms, part in gone.get(NOBODY, []):
            text = count(
                "{n} bundle had to make room here, or had expired.",
                "{n} bundles had to make room here, or had expired.",
                len(part),
            )
            yield Happening("discarded", text, at_ms, None, len(part))
        if self._aside is not None:
            text = say("It was put aside, and not handed on: {reason}.", reason=Clause(self._aside.reason))
            yield Happening("set_aside", text, self._aside.at_ms)
        if self._is_done:
            yield self._delivered()
        if self._answer is not None:
            yield Happening("answered", verdict_text(self._answer), self._answer.at_ms)

    def _came(self, peer: DeviceId, at_ms: int, n: int) -> Happening:
        if self._found.last is None:  # how many it were is not known any more
            return self._came_once(peer, at_ms)
        if peer == NOBODY:
            text = count("{n} bundle came by hand.", "{n} bundles came by hand.", n)
            return Happening("came", text, at_ms, None, n)
        name = self._names.of(peer)
        if peer == self._source:
            text = count(
                "{n} bundle came from {name} itself.", "{n} bundles came from {name} itself.", n, name=name
            )
        else:
            text = count("{n} bundle came with {name}.", "{n} bundles came with {name}.", n, name=name)
        return Happening("came", text, at_ms, name, n)

    def _came_once(self, peer: DeviceId, at_ms: int) -> Happening:
        if peer == NOBODY:
            return Happening("came", say("It came by hand."), at_ms)
        name = self._names.of(peer)
        if peer == self._source:
            return Happening("came", say("It came from {name} itself.", name=name), at_ms, name)
        return Happening("came", say("It came with {name}.", name=name), at_ms, name)

    def _delivered(self) -> Happening:
        at_ms, peer = signed(self._runs, self._found.span)
        if peer == self._state.identity.device:
            return Happening("delivered", say("It was handed on here, and signed for."), at_ms)
        if peer is None or peer == NOBODY:
            return Happening("delivered", say("A receipt for it came."), at_ms)
        name = self._names.of(peer)
        return Happening("delivered", say("A receipt for it came with {name}.", name=name), at_ms, name)

    def _now(self) -> tuple[str, Said]:
        is_for_me = self._state.ledger.is_for_me(self._journal)
        if self._is_done:
            if is_for_me:
                return DELIVERED, say("It was handed on and signed for: there is nothing to do.")
            return DELIVERED, say("It was delivered: there is nothing to do.")
        if self._aside is not None:
            return QUARANTINED, say(
                "It is kept apart here: look at the reason, and then try it again, or have it recorded again."
            )
        source, n = self._names.of(self._source), len(self._here)
        if self._found.last is None or not n:
            return NOT_HERE, say(
                "Nothing of it is here now: it is with {source}, or with who carries for that device.",
                source=source,
            )
        if self._missing:
            code = INCOMPLETE if is_for_me else CARRIED_HERE
            return code, count(
                "{here} of {all} bundles are here; number {numbers} is still out: {source} has it, until it is signed"
                " for.",
                "{here} of {all} bundles are here; numbers {numbers} are still out: {source} has them, until they are"
                " signed for.",
                len(self._missing),
                here=n,
                all=len(self._found.span),
                numbers=str(self._missing),
                source=source,
            )
        if is_for_me:
            return WAITING, say(
                "All of it is here, and waits to be handed on; `meshnode status` says what is wrong."
            )
        return CARRIED_HERE, say(
            "All of it is carried here, until a receipt for it comes: there is nothing to do."
        )


def _all(came: dict[DeviceId, list[tuple[int, Ranges]]]) -> Ranges:
    return Ranges(pair for parts in came.values() for _, part in parts for pair in part.pairs)

"""The story of a message that this device wrote (`story`)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from meshnode.app.happenings import Happening, Names, by_peer, in_order, signed, verdict_text
from meshnode.app.lookup import Found
from meshnode.app.received import Answer
from meshnode.core.bundle import URGENT
from meshnode.core.custody import CARRIED, DELIVERED, MessageState
from meshnode.core.history import HELD, LEFT
from meshnode.core.identity import DeviceId
from meshnode.core.intervals import NONE
from meshnode.core.rows import NOBODY
from meshnode.core.state import State
from meshnode.core.words import Clause, Said, count, say

#: Who has all of a message so soon after its first part has taken it over at once, to a person.
_AT_ONCE_MS: Final = 60_000


class OwnStory:
    """The story of a message that this device wrote. `sealed_ms`: when its last bundle was put here, if that is known;
    `answer`: what the registry made of it."""

    def __init__(
        self, state: State, found: Found, label: dict[str, str], sealed_ms: int | None, answer: Answer | None
    ) -> None:
        assert found.own is not None
        self._state = state
        self._own: MessageState = found.own
        self._found = found
        self._label = label
        self._sealed_ms = sealed_ms
        self._answer = answer if found.own.state == DELIVERED else None
        self._names = Names(state)
        self._journal = state.ledger.journals.get(found.journal)
        self._runs = state.history.runs(found.journal)
        self._holders = state.custody.holders(found.own.message)

    def as_json(self) -> dict[str, Any]:
        """The whole answer."""
        message = self._own.message
        entry = self._journal.entries.get(message.first) if self._journal else None
        code, now = self._now()
        return {
            "key": self._found.key,
            "reference": self._label["reference"],
            "kind": self._label["kind"],
            "source": self._state.identity.certificate.name,
            "to": self._names.destination(self._journal),
            "size_bytes": message.size_bytes,
            "bundles": self._count,
            "state": self._answer.verdict if self._answer else self._own.state,
            "copies": self._own.copies,
            "priority": None if entry is None else "urgent" if entry.priority == URGENT else "routine",
            "story": [it.as_json() for it in (*self._begun(), *in_order(self._went_on()))],
            "now": str(now),
            "now_code": code,
        }

    @property
    def _count(self) -> int:
        return self._own.message.last - self._own.message.first + 1

    def _begun(self) -> Iterator[Happening]:
        """What was first, whatever the clock said then."""
        message, n = self._own.message, self._count
        at_ms = message.submitted_ms
        yield Happening("taken", say("This device took it."), at_ms)
        sealed = count(
            "It was sealed into {n} bundle, and was safe on this disk.",
            "It was sealed into {n} bundles, and was safe on this disk.",
            n,
        )
        yield Happening("sealed", sealed, max(at_ms, self._sealed_ms or at_ms), bundles=n)

    def _went_on(self) -> Iterator[Happening]:
        yield from self._carried()
        if self._own.state == DELIVERED:
            yield self._delivered()
        if self._answer is not None:
            yield Happening("answered", verdict_text(self._answer), self._answer.at_ms)

    def _carried(self) -> Iterator[Happening]:
        held = by_peer(self._runs, HELD, self._found.span)
        for peer, part in self._holders.items():
            if peer not in held:  # since before times were kept
                yield self._took(peer, None, len(part))
        for peer, parts in held.items():
            first_ms, first = parts[0]
            ever = NONE
            for at_ms, part in parts:
                ever |= part
                if ever == self._found.span:
                    if at_ms - first_ms >= _AT_ONCE_MS:
                        yield self._took(peer, first_ms, len(first))
                    yield self._took(peer, at_ms, self._count)
                    break
            else:
                yield self._took(peer, first_ms, len(ever))
        if self._own.state != DELIVERED:
            left = by_peer(self._runs, LEFT, self._found.span)
            for peer in left.keys() - self._holders.keys():
                text = say("{name} had to let go of it, before it was delivered.", name=self._names.of(peer))
                yield Happening("discarded", text, left[peer][-1][0], self._names.of(peer))

    def _took(self, peer: DeviceId, at_ms: int | None, n: int) -> Happening:
        name = self._names.of(peer)
        if n < self._count:
            text = count(
                "{name} took over {n} bundle of {all}.",
                "{name} took over {n} bundles of {all}.",
                n,
                name=name,
                all=self._count,
            )
            return Happening("carried_part", text, at_ms, name, n)
        if self._names.is_office(peer):
            return Happening("arrived", say("All of it was at the office {name}.", name=name), at_ms, name, n)
        return Happening("carried", say("{name} took over all of it.", name=name), at_ms, name, n)

    def _delivered(self) -> Happening:
        at_ms, peer = signed(self._runs, self._found.span)
        name = None if peer is None or peer == NOBODY else self._names.of(peer)
        to = self._names.destination(self._journal)
        if to != "office":
            text = say("{to} has signed for it; this device knows it from {name}.", to=to, name=name or "-")
            return Happening(
                "delivered", text if name else say("{to} has signed for it.", to=to), at_ms, name
            )
        if name is None:
            by_hand = peer == NOBODY
            text = say("The office has signed for it; its receipt came by hand.")
            return Happening("delivered", text if by_hand else say("The office has signed for it."), at_ms)
        if self._names.is_office(DeviceId(peer or NOBODY)):
            text = say("The office has signed for it, and told this device itself.")
        else:
            text = say("The office has signed for it; its receipt came with {name}.", name=name)
        return Happening("delivered", text, at_ms, name)

    def _now(self) -> tuple[str, Said]:
        if self._answer is not None:
            if self._answer.verdict == "accepted":
                return "accepted", say("The registry has accepted it: there is nothing to do.")
            reason = Clause(self._answer.reason)
            refused = say("The registry has REFUSED it ({reason}): record it again.", reason=reason)
            bare = say("The registry has REFUSED it: record it again.")
            return "refused", refused if self._answer.reason else bare
        if self._own.state == DELIVERED:
            to = self._names.destination(self._journal)
            if to != "office":
                return DELIVERED, say("It was delivered to {to}: there is nothing to do.", to=to)
            return DELIVERED, say("It is safe at the office: there is nothing to do.")
        if rotten := sum((self._found.journal, number) in self._state.rotten for number in self._found.span):
            return "rotten", count(
                "{n} bundle of it is damaged on this disk. It comes back by itself if a colleague has it; if not,"
                " record the message again, and have the disk checked.",
                "{n} bundles of it are damaged on this disk. They come back by themselves if a colleague has them; if"
                " not, record the message again, and have the disk checked.",
                rotten,
            )
        whole = [peer for peer, held in self._holders.items() if held == self._found.span]
        if self._own.state == CARRIED:
            return CARRIED, count(
                "{n} other device has all of it ({names}), and this one keeps it until the office has signed: there is"
                " nothing to do.",
                "{n} other devices have all of it ({names}), and this one keeps it until the office has signed: there"
                " is nothing to do.",
                len(whole),
                names=", ".join(sorted(map(self._names.of, whole))),
            )
        if self._holders:
            return "partly_carried", say(
                "Only a part of it is with {names}: keep this device safe, and meet a colleague or come near the"
                " office.",
                names=", ".join(sorted(map(self._names.of, self._holders))),
            )
        return self._own.state, say(
            "It is on this device only: keep the device safe, and meet a colleague or come near the office."
        )

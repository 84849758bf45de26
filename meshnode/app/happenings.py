"""What happened to a message, line by line: what the stories of own and of others' messages are made of."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from meshnode.app.received import Answer
from meshnode.core.history import DELIVERED
from meshnode.core.identity import Certificate, DeviceId
from meshnode.core.intervals import Ranges
from meshnode.core.ledger import Journal
from meshnode.core.rows import PutRun
from meshnode.core.state import State
from meshnode.core.words import Said, say


@dataclass(frozen=True, slots=True)
class Happening:
    """One line of a story."""

    code: str
    text: Said
    at_ms: int | None = None
    peer: str | None = None
    bundles: int | None = None

    def as_json(self) -> dict[str, Any]:
        """As the answer has it."""
        return {
            "at_ms": self.at_ms,
            "code": self.code,
            "text": str(self.text),
            "peer": self.peer,
            "bundles": self.bundles,
        }


def in_order(happenings: Iterable[Happening]) -> list[Happening]:
    """The oldest first. What has no time stays behind what it was told after."""
    placed: list[tuple[int, int, Happening]] = []
    before_ms = 0
    for at, it in enumerate(happenings):
        if it.at_ms is not None:
            before_ms = it.at_ms
        placed.append((before_ms, at, it))
    return [it for _, _, it in sorted(placed, key=lambda place: place[:2])]


class Names:
    """What people call devices."""

    def __init__(self, state: State) -> None:
        self._state = state

    def of(self, device: DeviceId) -> str:
        """A device's name, or the beginning of its id while nobody has told who that is."""
        certificate = self._state.certificates.get(device) or self._met(device)
        return certificate.name if certificate else device.hex()[:8]

    def _met(self, device: DeviceId) -> Certificate | None:
        return next((it.peer for it in self._state.contacts.values() if it.device == device), None)

    def is_office(self, device: DeviceId) -> bool:
        """Whether it is known to be an office."""
        certificate = self._state.certificates.get(device) or self._met(device)
        return bool(certificate and certificate.role == "office")

    def destination(self, journal: Journal | None) -> str:
        """`office`, or the device's name."""
        certificate = self._state.certificates.get(DeviceId(journal.destination)) if journal else None
        return certificate.name if certificate else "office"


def by_peer(runs: list[PutRun], what: int, span: Ranges) -> dict[DeviceId, list[tuple[int, Ranges]]]:
    """(when, which of the span) of each peer, the oldest first."""
    found: dict[DeviceId, list[tuple[int, Ranges]]] = {}
    for run in runs:
        part = Ranges.span(run.first, run.last) & span
        if run.what == what and part:
            found.setdefault(run.peer, []).append((run.at_ms, part))
    return {peer: sorted(parts, key=lambda part: part[0]) for peer, parts in found.items()}


def signed(runs: list[PutRun], span: Ranges) -> tuple[int | None, DeviceId | None]:
    """When a receipt for all of the span was known here first, and who brought it."""
    signed = [
        (at_ms, peer)
        for peer, it in by_peer(runs, DELIVERED, span).items()
        for at_ms, part in it
        if part == span
    ]
    return min(signed, default=(None, None), key=lambda each: each[0])


def verdict_text(answer: Answer) -> Said:
    """What the registry made of it, and why."""
    if answer.verdict == "accepted":
        said = say("The registry accepted it: {reason}", reason=answer.reason)
        return said if answer.reason else say("The registry accepted it.")
    said = say("The registry REFUSED it: {reason}", reason=answer.reason)
    return said if answer.reason else say("The registry REFUSED it.")

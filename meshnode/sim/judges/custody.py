"""What a device promises its officer: what it has acknowledged is safe, stays safe, and is answered for once."""

from __future__ import annotations

from meshnode.core.identity import JournalId
from meshnode.core.intervals import NONE, Ranges
from meshnode.core.ledger import Journal
from meshnode.core.ports import Accepted, Effect, Event, Refused
from meshnode.core.rows import DropBundles, Row
from meshnode.sim.judges.judge import Judge, name_of, split_key
from meshnode.sim.machine import Machine
from meshnode.sim.truth import Truth


class Custody(Judge):
    """What a device has acknowledged stays on it until the office has signed for it."""

    def __init__(self, truth: Truth) -> None:
        super().__init__(truth)
        self.kept: dict[str, dict[JournalId, Ranges]] = {}

    def effect(self, machine: Machine, effect: Effect) -> None:
        """Accepted: from now on."""
        if isinstance(effect, Accepted):
            journal, first = split_key(effect.key)
            kept = self.kept.setdefault(machine.name, {})
            kept[journal] = kept.get(journal, NONE) | Ranges.span(first, first + effect.bundles - 1)

    def committed(self, machine: Machine, rows: list[Row]) -> None:
        """Nothing of it is dropped."""
        kept = self.kept.get(machine.name)
        if kept and any(isinstance(row, DropBundles) and row.journal in kept for row in rows):
            self._check(machine, kept, "dropped")

    def handled(self, machine: Machine, event: Event) -> None:
        """The node does not forget it either."""
        kept = self.kept.get(machine.name)
        if not kept:
            return
        ledger = machine.running.state.ledger
        for journal_id, ranges in list(kept.items()):
            left = ranges - self.truth.signed.get(journal_id, NONE)
            if not left:
                del kept[journal_id]
                continue
            kept[journal_id] = left
            left -= self.truth.robbed.get((machine.name, journal_id), NONE)
            held = ledger.journals.get(journal_id, Journal(journal_id)).held
            if not left <= held:
                raise self.broken(f"{machine.name} no longer knows its {name_of(journal_id)}: {left - held}")

    def booted(self, machine: Machine) -> None:
        """It has outlived the night."""
        self._check(machine, self.kept.get(machine.name, {}), "lost")

    def _check(self, machine: Machine, kept: dict[JournalId, Ranges], how: str) -> None:
        for journal_id, ranges in kept.items():
            owed = ranges - self.truth.signed.get(journal_id, NONE)
            owed -= self.truth.robbed.get((machine.name, journal_id), NONE)
            missing = owed - self.truth.shelves[machine.name].of(journal_id)
            if missing:
                raise self.broken(f"{machine.name} has {how} its own {name_of(journal_id)}: {missing}")


class Answers(Judge):
    """A program is told that its message is safe only when it is, and each one is told one thing."""

    def effect(self, machine: Machine, effect: Effect) -> None:
        """Accepted after the commit; refused once and for all."""
        if isinstance(effect, Accepted):
            journal, first = split_key(effect.key)
            span = Ranges.span(first, first + effect.bundles - 1)
            shelf = self.truth.shelves[machine.name]
            if not span <= shelf.of(journal):
                raise self.broken(f"{machine.name} accepts {name_of(journal)}: {span} and has not written it")
            if not span <= shelf.messages.get(journal, NONE):
                raise self.broken(
                    f"{machine.name} accepts {name_of(journal)}: {span}, no message after a crash"
                )
            if effect.key in self.truth.by_key:
                raise self.broken(f"{machine.name} gives the key {effect.key} to two messages")
            self.truth.accept(machine, effect.submission, effect.key, journal, span.pairs[0])
        elif isinstance(effect, Refused):
            self.truth.by_number[machine.name, effect.submission].denied = True

"""What carriers promise: what they say they hold they hold, as its source has made it, and no longer than it lives."""

from __future__ import annotations

from typing import Final

from meshnode.core.bundle import AGE_S_MAX
from meshnode.core.errors import RemoteError
from meshnode.core.frames import Frame, Have, Stored
from meshnode.core.identity import JournalId
from meshnode.core.intervals import NONE, Ranges
from meshnode.core.introducing import introduction_journal
from meshnode.core.limits import HOUSEKEEPING_S
from meshnode.core.ports import Effect, Event, SendBundle
from meshnode.core.rows import PutBundle, Row
from meshnode.sim.judges.judge import Judge, name_of
from meshnode.sim.machine import Machine
from meshnode.sim.truth import Truth

#: An age is a whole number of seconds at each hop.
ROUNDING_S: Final = 1.0


class Claims(Judge):
    """STORED and HAVE name only what is on the disk; of its own a node tells only whole messages."""

    def said(self, machine: Machine, frame: Frame) -> None:
        """All that is named is there."""
        if isinstance(frame, Have):
            for held in frame.journals:
                self._check(machine, held.journal, held.ranges)
        elif isinstance(frame, Stored):
            for journal, ranges, _ in frame.journals:
                self._check(machine, journal, ranges)

    def _check(self, machine: Machine, journal: JournalId, ranges: Ranges) -> None:
        shelf = self.truth.shelves[machine.name]
        absent = ranges - shelf.of(journal)
        if absent:
            raise self.broken(f"{machine.name} claims to hold {name_of(journal)}: {absent}")
        if self.truth.is_own(machine, journal) and journal != introduction_journal(machine.device):
            torn = ranges - self.truth.whole.get(journal, NONE)
            if torn:
                raise self.broken(f"{machine.name} tells of {name_of(journal)}: {torn}, which is no message")


class Originals(Judge):
    """One number is one bundle, for ever; and what carriers keep is what its source signed."""

    def __init__(self, truth: Truth) -> None:
        super().__init__(truth)
        self._known: set[tuple[JournalId, int]] = set()

    def effect(self, machine: Machine, effect: Effect) -> None:
        """From now on others know it."""
        if isinstance(effect, SendBundle):
            self._known.add((effect.journal, effect.number))

    def committed(self, machine: Machine, rows: list[Row]) -> None:
        """It is what it was."""
        for row in rows:
            if isinstance(row, PutBundle):
                self._check(machine, row)

    def _check(self, machine: Machine, row: PutBundle) -> None:
        header = row.bundle.header
        source = self.truth.names[header.source]
        place = row.journal, header.number
        if source in self.truth.hostile:
            certificate = self.truth.machines[source].identity.certificate
            try:
                row.bundle.verify(certificate.key)
            except RemoteError as problem:
                raise self.broken(f"{machine.name} keeps of {source} what is false: {problem}") from None
            return
        original = self.truth.written.get(place)
        if source == machine.name and place not in self._known:
            self.truth.written[place] = row.bundle
        elif original is None or row.bundle != original:
            raise self.broken(
                f"{machine.name} keeps as {name_of(row.journal)}:{header.number} what is not it"
            )


class Ages(Judge):
    """A bundle ages on its way by as long as its carriers are on, and others' are not carried beyond their lifetime."""

    def __init__(self, truth: Truth) -> None:
        super().__init__(truth)
        self._kept: dict[tuple[str, JournalId, int], tuple[float, float, int]] = {}
        self._told: dict[tuple[str, JournalId, int], int] = {}
        self._looked_s: dict[str, float] = {}

    def effect(self, machine: Machine, effect: Effect) -> None:
        """What is told is no less than it is."""
        if not isinstance(effect, SendBundle):
            return
        age_s = self._true_age_s(machine, effect)
        if effect.age_s < min(age_s, AGE_S_MAX) - ROUNDING_S:
            what = f"{name_of(effect.journal)}:{effect.number}"
            raise self.broken(f"{machine.name} says that {what} is {effect.age_s} s old, it is {age_s:.0f}")
        if end := machine.ends.get(effect.contact):
            receiver = end.across.party
            assert isinstance(receiver, Machine)
            place = receiver.name, effect.journal, effect.number
            self._told[place] = min(effect.age_s, self._told.get(place, effect.age_s))

    def _true_age_s(self, machine: Machine, effect: SendBundle) -> float:
        """Less what its clock may lose at each start: as much as passes between two rounds of housekeeping."""
        kept = self._kept.get((machine.name, effect.journal, effect.number))
        if kept is None or machine.name in self.truth.forgetful:
            return 0.0
        age_s, on_s, boots = kept
        return (
            age_s
            + machine.on_s
            - on_s
            - (machine.boots - boots) * (HOUSEKEEPING_S + machine.hardware.commit_s)
        )

    def committed(self, machine: Machine, rows: list[Row]) -> None:
        """What is kept is no younger than what was told."""
        for row in rows:
            if isinstance(row, PutBundle):
                place = machine.name, row.journal, row.bundle.header.number
                age_s = machine.now().s - row.born_s
                if age_s < self._told.get(place, 0) - ROUNDING_S and not self.truth.hostile:
                    raise self.broken(
                        f"{machine.name} keeps {name_of(row.journal)}:{place[2]} as younger than told"
                    )
                self._kept[place] = age_s, machine.on_s, machine.boots

    def handled(self, machine: Machine, event: Event) -> None:
        """Now and then: nothing has outlived its lifetime by more than two rounds of housekeeping."""
        now_s = machine.now().s
        if now_s - self._looked_s.get(machine.name, 0.0) < HOUSEKEEPING_S:
            return
        self._looked_s[machine.name] = now_s
        ledger = machine.running.state.ledger
        for journal in ledger.journals.values():
            if journal.source is None or not ledger.is_foreign(journal):
                continue
            for number, entry in journal.entries.items():
                over_s = now_s - entry.born_s - entry.lifetime_s
                if over_s > 2 * HOUSEKEEPING_S:
                    what = f"{name_of(journal.id)}:{number}"
                    raise self.broken(f"{machine.name} carries {what}, expired {over_s:.0f} s ago")

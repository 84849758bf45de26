"""What is demanded once everything is healed: that all that can arrive has arrived, and that everybody knows.

`missing` says what is still to come; a run waits for a bounded virtual time until it says nothing. What faults have
taken away for good is excused, and nothing else: a message is owed if its source still has it, or if the devices that
are left have all of it together.
"""

from __future__ import annotations

from collections.abc import Iterator

from meshnode.core.identity import DeviceId, JournalId
from meshnode.core.intervals import NONE, Ranges
from meshnode.core.introducing import introduction_journal
from meshnode.core.submitting import message_key
from meshnode.sim.judges.judge import name_of, split_key
from meshnode.sim.machine import Machine
from meshnode.sim.office import SimSink
from meshnode.sim.truth import Shelf, Submitted, Truth


class Healed:
    """Asks after a healed fleet."""

    def __init__(self, truth: Truth, sink: SimSink) -> None:
        self._truth = truth
        self._sink = sink
        self._left: dict[JournalId, Ranges] = {}

    def missing(self) -> str | None:
        """The first thing that is still owed; None when all is well."""
        self._left = self._intact()
        asked = (
            self._undelivered,
            self._receipts_not_home,
            self._disagreement,
            self._space_not_free,
            self._strangers,
            self._books_wrong,
        )
        return next((text for ask in asked for text in ask()), None)

    def _intact(self) -> dict[JournalId, Ranges]:
        """All bundles that those who are left have together."""
        left: dict[JournalId, Ranges] = {}
        for machine in self._truth.surviving:
            for journal, ranges in self._truth.shelves[machine.name].held.items():
                left[journal] = left.get(journal, NONE) | (ranges - self._rotten(machine, journal))
        return left

    def _rotten(self, machine: Machine, journal: JournalId) -> Ranges:
        places = self._truth.rotten
        return (
            Ranges.of(n for name, j, n in places if name == machine.name and j == journal) if places else NONE
        )

    # --- messages -----------------------------------------------------------------------------------------------

    def _undelivered(self) -> Iterator[str]:
        for key, submitted in self._truth.by_key.items():
            if submitted.source in self._truth.hostile or key in self._truth.delivered:
                continue
            gone = self._truth.lost | self._truth.revoked
            if submitted.to not in gone and key not in self._sink.refused and self._is_owed(submitted):
                yield f"{submitted.reference} ({key[:6]}:{key[33:]}) is not delivered"

    def _is_owed(self, submitted: Submitted) -> bool:
        assert submitted.journal is not None
        gone = self._truth.lost | self._truth.revoked
        robbed = self._truth.robbed.get((submitted.source, submitted.journal), NONE)
        if submitted.source not in gone and not robbed & Ranges.span(*submitted.span):
            return True
        return self._left.get(submitted.journal, NONE).covers(*submitted.span)

    def _receipts_not_home(self) -> Iterator[str]:
        for machine in self._truth.surviving:
            for key, reference in self._truth.delivered.items():
                submitted = self._truth.submitted.get(reference)
                if submitted is None or submitted.source != machine.name:
                    continue
                journal, first = split_key(key)
                known = machine.running.state.ledger.journals.get(journal)
                if known is None or first not in known.receipted:
                    yield f"{machine.name} does not know that {reference} is delivered"
                if first not in self._truth.shelves[machine.name].receipted.get(journal, NONE):
                    yield f"{machine.name} has not written that {reference} is delivered"

    # --- what everybody knows -----------------------------------------------------------------------------------

    def _disagreement(self) -> Iterator[str]:
        machines = list(self._truth.surviving)
        first = machines[0].running.state.ledger
        for machine in machines[1:]:
            ledger = machine.running.state.ledger
            if ledger.digest_buckets(()) != first.digest_buckets(()):
                yield f"{machine.name} and {machines[0].name} know different receipts"
            for journal in sorted(set(ledger.journals) | set(first.journals)):
                mine, theirs = ledger.journals.get(journal), first.journals.get(journal)
                if (mine.receipted if mine else NONE) != (theirs.receipted if theirs else NONE):
                    yield f"{machine.name} and {machines[0].name} disagree about {name_of(journal)}"

    def _space_not_free(self) -> Iterator[str]:
        gone = self._truth.lost | self._truth.revoked
        for machine in self._truth.surviving:
            shelf = self._truth.shelves[machine.name]
            for (journal, number), put in shelf.puts.items():
                if not self._truth.is_foreign(machine, put):
                    continue
                if self._truth.names[put.bundle.header.source] in self._truth.hostile:
                    continue
                header = put.bundle.header
                whole = self._left[journal].covers(header.first, header.first + header.parts - 1)
                refused = message_key(journal, header.first) in self._sink.refused
                never = self._truth.names.get(DeviceId(header.destination)) in gone
                if number in self._truth.taken.get(journal, NONE) or (whole and not refused and not never):
                    yield f"{machine.name} still carries {name_of(journal)}:{number}"

    def _strangers(self) -> Iterator[str]:
        for machine in self._truth.surviving:
            for other in self._truth.surviving:
                if not self._truth.shelves[machine.name].of(introduction_journal(other.device)):
                    yield f"{machine.name} does not know how to seal to {other.name}"

    def _books_wrong(self) -> Iterator[str]:
        for machine in self._truth.surviving:
            yield from self._books_of(machine, self._truth.shelves[machine.name])

    def _books_of(self, machine: Machine, shelf: Shelf) -> Iterator[str]:
        state = machine.running.state
        if state.landing_bytes or state.fetching.landing:
            yield f"{machine.name} believes that something is still on its way to the disk"
        for journal in sorted(set(shelf.held) | set(state.ledger.journals)):
            known = state.ledger.journals.get(journal)
            on_disk = shelf.of(journal) - self._rotten(machine, journal)
            believed = known.held if known else NONE
            if believed - self._rotten(machine, journal) != on_disk:
                yield f"{machine.name} believes to hold {believed} of {name_of(journal)}, it has {on_disk}"
            torn = self._truth.is_own(machine, journal) and on_disk - self._truth.whole.get(journal, NONE)
            if torn and journal != introduction_journal(machine.device):
                yield f"{machine.name} keeps the remains of a torn submission in {name_of(journal)}"
        if state.ledger.foreign_size > shelf.foreign_bytes:
            counted = state.ledger.foreign_size
            yield f"{machine.name} counts {counted} bytes of others, and carries {shelf.foreign_bytes}"

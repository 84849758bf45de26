"""How far the journals of each device have come, for the office's overview (`overview`).

Everything is counted in **bundles**, a journal's numbers, since that is all there is to see of what has not come:
whether number 13 is a message of its own or a part of one, nobody knows who does not have it. A device starts a new
journal with each start of its daemon, so its numbers here are the sums over all its journals that go to the office:

    recorded    all numbers that are known to exist: up to the highest that was seen here, the rest of a message of
                which a part is here, and what the next journal's first bundle says was this one's last,
                also if nothing else of that one has come
    delivered   numbers that are signed for
    here        numbers that are here and not signed for yet
    on the way  the others, which are the missing ones

What a device has recorded since, and of which nothing has come, is not known here and counts nowhere.

How long something is missing is told from when it was known to be: when the first bundle behind it came, by the
office's own clock. That needs the `history`; for what came before there was one it is not told.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from meshnode.core.history import CAME
from meshnode.core.identity import Certificate, DeviceId, JournalId
from meshnode.core.intervals import NONE, Ranges
from meshnode.core.ledger import Journal
from meshnode.core.state import State
from meshnode.core.words import Said, count, say
from meshnode.office.reassembly import restored_devices


@dataclass(frozen=True, slots=True)
class Lack:
    """What is missing of a journal, and since when that is known, by the wall clock; None if it is not."""

    journal: JournalId
    missing: Ranges
    since_ms: int | None


@dataclass(slots=True)
class Progress:
    """How far one device is."""

    certificate: Certificate
    recorded: int = 0
    delivered: int = 0
    here: int = 0
    lacks: list[Lack] = field(default_factory=list)
    restored: bool = False

    @property
    def on_the_way(self) -> int:
        """Numbers that are neither here nor signed for."""
        return sum(len(lack.missing) for lack in self.lacks)

    def missing_text(self) -> Said:
        """What is still out, in a sentence."""
        name, there = self.certificate.name, self.recorded - self.on_the_way
        if not self.recorded:
            return say("{name}: nothing has come yet", name=name)
        if not self.lacks:
            return count("{name}: all {n} are here", "{name}: all {n} are here", self.recorded, name=name)
        if len(self.lacks) == 1:
            return count(
                "{name}: {there} of {recorded}, number {numbers} still out",
                "{name}: {there} of {recorded}, numbers {numbers} still out",
                self.on_the_way,
                name=name,
                there=there,
                recorded=self.recorded,
                numbers=str(self.lacks[0].missing),
            )
        # each start of a device counts from 1 again, so numbers alone would not say which
        return say(
            "{name}: {there} of {recorded}, {out} still out, of {starts} starts of that device",
            name=name,
            there=there,
            recorded=self.recorded,
            out=self.on_the_way,
            starts=len(self.lacks),
        )


def progress(state: State) -> list[Progress]:
    """Of each officer's device and gateway that is known here, and of all others that write to the office; by name."""
    found: dict[DeviceId, Progress] = {
        device: Progress(certificate)
        for device, certificate in state.certificates.items()
        if certificate.role in ("officer", "gateway") and device != state.identity.device
    }
    journals = list(_to_office(state))
    followers = _followers(state, journals)
    for journal in (*journals, *_unseen(state, followers)):
        assert journal.source is not None
        certificate = state.certificates.get(journal.source)
        if certificate is not None:
            row = found.setdefault(journal.source, Progress(certificate))
            _add(state, row, journal, followers.get(journal.id, []))
    claims = [
        (journal.id, journal.source, journal.previous)
        for journal in journals
        if journal.source is not None and journal.previous is not None
    ]
    for restored in restored_devices(claims):
        if restored.source in found:
            found[restored.source].restored = True
    return sorted(found.values(), key=lambda row: (row.certificate.name, row.certificate.device))


def _to_office(state: State) -> Iterator[Journal]:
    for journal in state.ledger.journals.values():
        is_others = journal.source is not None and journal.source != state.identity.device
        if is_others and state.is_office(journal.destination):
            yield journal


def _followers(state: State, journals: list[Journal]) -> dict[JournalId, list[Journal]]:
    """Which journals say that they come after which one of the same device."""
    found: dict[JournalId, list[Journal]] = {}
    for journal in journals:
        if journal.previous is not None:
            before = state.ledger.journals.get(journal.previous.journal)
            if before is None or before.source in (None, journal.source):
                found.setdefault(journal.previous.journal, []).append(journal)
    return found


def _unseen(state: State, followers: dict[JournalId, list[Journal]]) -> Iterator[Journal]:
    """Journals of which nothing has come, or only a receipt, and others say that they exist: as if they were known."""
    for journal_id, after in followers.items():
        known = state.ledger.journals.get(journal_id)
        if known is None or known.source is None:
            unseen = Journal(journal_id, after[0].source)
            unseen.receipted = known.receipted if known else NONE
            yield unseen


def _add(state: State, row: Progress, journal: Journal, followers: list[Journal]) -> None:
    highest = max(
        journal.held.last,
        journal.receipted.last,
        *(follower.previous.last for follower in followers if follower.previous),
        0,
    )
    if journal.held:
        entry = journal.entries[journal.held.last]
        highest = max(highest, entry.first + entry.parts - 1)
    row.recorded += highest
    row.delivered += len(journal.receipted)
    row.here += len(journal.on_offer)
    if highest == len(journal.receipted) + len(journal.on_offer):
        return
    missing = Ranges.span(1, highest) - journal.held - journal.receipted
    row.lacks.append(Lack(journal.id, missing, _since_ms(state, journal, missing, followers)))


def _since_ms(state: State, journal: Journal, missing: Ranges, followers: list[Journal]) -> int | None:
    """When the oldest of these was known to exist."""
    runs = state.history.runs(journal.id)
    oldest = missing.pairs[0][0]
    behind = [run.at_ms for run in runs if run.what == CAME and run.last > oldest]
    behind += [
        run.at_ms
        for follower in followers
        for run in state.history.runs(follower.id)
        if run.what == CAME and run.first == 1
    ]
    if behind:
        return min(behind)
    # the rest of a message of which the beginning is here
    return max((run.at_ms for run in runs if run.what == CAME), default=None)

"""Which messages are whole: read off a journal's numbers, without opening anything.

Each header names its place, `part` of `parts`, so each number claims a span of numbers as its message. A message is
whole when every number of the span is here and claims just that span. An honest source's spans never overlap; where
two do, or where one reaches into what is already receipted (receipts cover whole messages), the source has signed
things that contradict each other. Nobody can tell which of them is meant, so none of those numbers becomes a message:
they are kept, and reported.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from meshnode.core.bundle import Previous
from meshnode.core.identity import DeviceId, JournalId
from meshnode.core.intervals import NONE, Pair, Ranges
from meshnode.core.ledger import Journal
from meshnode.core.rows import Entry


def _claim(entry: Entry) -> Pair:
    return entry.first, entry.first + entry.parts - 1


def _claims(journal: Journal) -> dict[Pair, int]:
    """The spans that numbers on offer claim, ascending, and how many numbers claim each."""
    return dict(sorted(Counter(_claim(journal.entries[number]) for number in journal.on_offer).items()))


def _contradicting(journal: Journal, spans: list[Pair]) -> set[Pair]:
    """Of these ascending, distinct spans those that overlap another one, or what is receipted."""
    bad: set[Pair] = set()
    reached = 0
    for at, (first, last) in enumerate(spans):
        overlaps_next = at + 1 < len(spans) and spans[at + 1][0] <= last
        if first <= reached or overlaps_next:
            bad.add((first, last))
        reached = max(reached, last)
    if Ranges(spans) & journal.receipted:
        bad.update(span for span in spans if Ranges.span(*span) & journal.receipted)
    return bad


def whole_messages(journal: Journal, skip: Ranges = NONE) -> list[Pair]:
    """(first, last) of each message whose bundles are all here, ascending; neither receipted nor in `skip`.

    `skip` is what the caller is done with already: numbers of whole messages.
    """
    claims = _claims(journal)
    bad = _contradicting(journal, list(claims))
    return [
        (first, last)
        for (first, last), count in claims.items()
        if count == last - first + 1 and (first, last) not in bad and first not in skip
    ]


def inconsistent(journal: Journal) -> Ranges:
    """Numbers here that contradict another one, and so never become a message. The source's fault."""
    bad = _contradicting(journal, list(_claims(journal)))
    if not bad:
        return NONE
    return Ranges.of(number for number in journal.on_offer if _claim(journal.entries[number]) in bad)


def gaps(journal: Journal, last: int = 0) -> Ranges:
    """Numbers that are known to exist and are neither here nor receipted: still on their way.

    Known to exist is all below the highest number seen, the rest of a message of which a part is here, and whatever
    is up to `last`: what the source's next journal says was this one's end.
    """
    claimed = max((_claim(entry)[1] for entry in journal.entries.values()), default=0)
    highest = max(last, claimed, journal.held.last, journal.receipted.last)
    return Ranges.span(1, highest) - journal.held - journal.receipted


class Restored(NamedTuple):
    """A device that wrote two or more `journals` (ascending), each as the one after `predecessor`."""

    source: DeviceId
    predecessor: JournalId
    journals: tuple[JournalId, ...]


def restored_devices(claims: Iterable[tuple[JournalId, DeviceId, Previous]]) -> Iterator[Restored]:
    """Which devices' stores went back in time, from (journal, its source, what its first bundle names as previous).

    The journals have to be of one endpoint: a daemon that writes to two starts two journals after the same one.
    """
    followers: defaultdict[tuple[DeviceId, JournalId], set[JournalId]] = defaultdict(set)
    for journal, source, previous in claims:
        followers[source, previous.journal].add(journal)
    for (source, predecessor), journals in followers.items():
        if len(journals) > 1:
            yield Restored(source, predecessor, tuple(sorted(journals)))

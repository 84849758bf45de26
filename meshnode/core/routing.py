"""The order of sending, and what to discard when space is short. Pure functions of what is known of bundles.

Sending. By priority class; then what a revoked device signed goes last, since nobody can tell when it signed; then
the smallest message first, since a contact may end at any moment and small messages are whole sooner (shortest
remaining work first minimises the mean); a message's parts stay together, in order; older first among equals.

Discarding. Receipted bundles are discarded as soon as the receipt is seen, expired ones by the clock; both elsewhere.
When the quota is full, each source has a fair claim: a bundle of a source that takes less may displace bundles of the
source that takes most, never the other way round, so one busy device cannot push out the others.
"""

from __future__ import annotations

from collections.abc import Iterator

from meshnode.core.identity import DeviceId
from meshnode.core.intervals import Ranges
from meshnode.core.ledger import Journal, Ledger
from meshnode.core.limits import PAYLOAD_SIZE_MAX
from meshnode.core.rows import Entry

SendKey = tuple[bool, int, int, float, bytes, int]


def send_key(journal: Journal, number: int, entry: Entry, *, revoked: bool) -> SendKey:
    """Sorts what is sent first to the front."""
    message_size = entry.size if entry.parts == 1 else entry.parts * PAYLOAD_SIZE_MAX
    # The age of a message is that of its first part: ages are rounded at each hop, so they differ from part to part.
    born_s = journal.entries.get(entry.first, entry).born_s
    return revoked, entry.priority, message_size, born_s, journal.id, number


def heaviest_source(ledger: Ledger) -> tuple[DeviceId | None, int]:
    """The source whose bundles take up most of what is carried for others, and its bytes."""
    if not ledger.foreign_bytes:
        return None, 0
    source = max(ledger.foreign_bytes, key=lambda device: (ledger.foreign_bytes[device], device))
    return source, ledger.foreign_bytes[source]


def claim(ledger: Ledger, source: DeviceId, room_bytes: int) -> int:
    """Bytes that `source` may still add: the room that is left, and what the heaviest source has more than it."""
    heaviest, most = heaviest_source(ledger)
    if heaviest is None or heaviest == source:
        return max(0, room_bytes)
    return max(0, room_bytes) + max(0, most - ledger.foreign_bytes.get(source, 0)) // 2


def to_displace(ledger: Ledger, needed_bytes: int) -> Iterator[tuple[Journal, Ranges]]:
    """Bundles of the heaviest source to discard so that `needed_bytes` fit: largest messages first, newest first,
    whole messages, since a part alone is worth nothing."""
    source, _ = heaviest_source(ledger)
    candidates: dict[tuple[bytes, int], tuple[int, float, Journal, int, int]] = {}
    for journal in ledger.journals.values():
        if journal.source == source and ledger.is_foreign(journal):
            for number, entry in journal.entries.items():
                if number == entry.first or entry.first not in journal.entries:
                    last = entry.first + entry.parts - 1
                    candidate = (-entry.parts, -entry.born_s, journal, entry.first, last)
                    candidates[journal.id, entry.first] = candidate
    freed = 0
    for _, _, journal, first, last in sorted(candidates.values(), key=lambda c: (c[0], c[1], c[2].id, c[3])):
        if freed >= needed_bytes:
            return
        ranges = Ranges.span(first, last) & journal.held
        freed += sum(journal.entries[number].size for number in ranges)
        if ranges:
            yield journal, ranges

"""What the brain needs at start, read row by row: what is damaged is left out and counted, and never believed.

A journal proves itself by its id, receipts and messages by a checksum; of the others each value has to be one that it
could be. Whether a certificate's signature is right, is for who knows the authority to say.

Entries are read block by block, in their order; where there is a summary, only the rows at the ends of its block are,
and have to be those that it names. A key that has rotted leads SQLite astray when it looks for a place, but then it is
next to that place. So whatever is not as it must be there, or in any row that is read, has all rows read one by one.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator
from itertools import groupby
from math import inf
from typing import Any, Final

from meshnode.core.bundle import journal_id
from meshnode.core.entries import BLOCK_SIZE, Entries, Lot
from meshnode.core.errors import RemoteError
from meshnode.core.identity import DeviceId, JournalId
from meshnode.core.intervals import Ranges
from meshnode.core.limits import AWAY_S_MAX, NUMBER_MAX, PAYLOAD_SIZE_MAX
from meshnode.core.receipt import Receipt, read_receipt
from meshnode.core.rows import (
    Entry,
    JournalRecord,
    PutAddress,
    PutCustody,
    PutEncounter,
    PutMessage,
    PutOpening,
)
from meshnode.drivers.sqlite.schema import INFINITE_S, checksum, is_id, is_number, read_previous
from meshnode.drivers.sqlite.summaries import ENTRIES_MIN, EntryRow, Place, Summaries, is_whole


def load_clock_s(writer: sqlite3.Connection) -> float:
    """The last instant that the store has seen; 0 if it does not say."""
    row = writer.execute("SELECT value FROM meta WHERE name = 'clock_s'").fetchone()
    clock_s = row[0] if row else 0.0
    return float(clock_s) if type(clock_s) in (int, float) and abs(clock_s) < INFINITE_S else 0.0


_ENTRIES: Final = "SELECT journal, number, size, priority, first, parts, born_s, lifetime_s FROM entry"
_ORDER: Final = " ORDER BY journal, number"
_BACKWARDS: Final = " ORDER BY journal DESC, number DESC LIMIT 1"


class _Odd(Exception):
    """Some entries are not as a store writes them."""


def load_journals(
    writer: sqlite3.Connection, summaries: Summaries, damaged: Counter[str]
) -> dict[int, JournalRecord]:
    """By the number that stands for each within the store."""
    by_row: dict[int, JournalRecord] = {}
    ask = writer.execute
    for row, journal, source, destination, epoch, *previous in ask(
        "SELECT id, journal, source, destination, epoch, previous, previous_last FROM journal ORDER BY id"
    ):
        whole = is_id(journal, source, destination) and type(epoch) is bytes
        if not whole or journal_id(source, destination, epoch) != journal:
            damaged["journal"] += 1
            continue
        by_row[row] = JournalRecord(journal, source, destination, epoch, previous=read_previous(*previous))
    try:
        _load_blocks(writer, summaries, by_row)
    except (_Odd, KeyError, TypeError, ValueError):
        _load_entries(writer, by_row, damaged)
    return by_row


def _load_blocks(writer: sqlite3.Connection, summaries: Summaries, by_row: dict[int, JournalRecord]) -> None:
    """Raises _Odd, KeyError, TypeError or ValueError if anything is damaged."""
    whole = summaries.load({row: record.id for row, record in by_row.items()})
    lots: dict[int, list[Lot]] = {row: [] for row in by_row}
    few: dict[int, dict[int, Entry]] = {row: {} for row in by_row}
    for place, rows in _blocks(writer, whole):
        if isinstance(rows, Lot):
            lots[place[0]].append(rows)
        elif not is_whole(rows):
            raise _Odd
        elif len(rows) < ENTRIES_MIN:
            few[place[0]].update((number, Entry(*entry)) for number, *entry in rows)
        else:
            lots[place[0]].append(Lot.of(rows))
            summaries.lack(place)
    for row, record in by_row.items():
        record.entries = Entries(few[row], lots[row])


def _blocks(
    writer: sqlite3.Connection, summaries: dict[Place, Lot]
) -> Iterator[tuple[Place, Lot | list[EntryRow]]]:
    """Every block that has entries, in order: its summary, or the rows. Raises _Odd."""
    rows = writer.execute(_ENTRIES + _ORDER)
    before: Place = -1, -1
    end: Any = None
    while True:
        is_whole_table = end is None
        for place, block in groupby(rows, lambda row: (row[0], row[1] // BLOCK_SIZE)):
            if place <= before:
                raise _Odd
            before = place
            if (lot := summaries.get(place)) is not None:
                end = _pass_over(writer, place, lot, next(block))
                after = place[0], (place[1] + 1) * BLOCK_SIZE
                # a pair as a bound would silently leave out what has rotted behind it
                rows = writer.execute(_ENTRIES + " WHERE journal = ? AND number >= ?" + _ORDER, after)
                yield place, lot
                break
            some = list(block)
            yield place, [row[1:] for row in some]
            if not is_whole_table:
                end = some[-1]
        else:
            if is_whole_table:
                return
            journal = (before[0],)
            upto = writer.execute(_ENTRIES + " WHERE journal <= ?" + _BACKWARDS, journal)
            if upto.fetchone() != end:
                raise _Odd
            end = None
            rows = writer.execute(_ENTRIES + " WHERE journal > ?" + _ORDER, journal)


def _pass_over(writer: sqlite3.Connection, place: Place, lot: Lot, row: EntryRow) -> EntryRow:
    """The last row of a block that begins with `row`. Raises _Odd if its summary has other ends."""
    first, last = lot.held.pairs[0][0], lot.held.last
    after = place[0], (place[1] + 1) * BLOCK_SIZE
    end: EntryRow = writer.execute(
        _ENTRIES + " WHERE journal = ? AND number < ?" + _BACKWARDS, after
    ).fetchone()
    if row != (place[0], first, *lot[first]) or end != (place[0], last, *lot[last]):
        raise _Odd
    return end


def _load_entries(
    writer: sqlite3.Connection, by_row: dict[int, JournalRecord], damaged: Counter[str]
) -> None:
    """All rows, one by one."""
    for record in by_row.values():
        record.entries = Entries()
    for row, number, size, priority, first, parts, born_s, lifetime_s in writer.execute(_ENTRIES):
        try:
            if not (
                0 < size <= PAYLOAD_SIZE_MAX
                and 0 <= priority <= 1
                and 1 <= first <= number < first + parts
                and number <= NUMBER_MAX
                and -INFINITE_S < born_s < INFINITE_S
                and 0 < lifetime_s < INFINITE_S
            ):
                raise ValueError
            by_row[row].entries[number] = Entry(size, priority, first, parts, born_s, lifetime_s)
        except (KeyError, TypeError, ValueError):
            damaged["bundle"] += 1


def load_receipts(writer: sqlite3.Connection, damaged: Counter[str]) -> list[tuple[Receipt, float]]:
    """Each with when it was learned."""
    receipts: list[tuple[Receipt, float]] = []
    rows = writer.execute("SELECT journal, at_s, body, signature, crc FROM receipt ORDER BY journal")
    for journal, at_s, body, signature, crc in rows:
        try:
            if checksum(body, signature) != crc or type(at_s) is not float:
                raise ValueError
            receipt = read_receipt(body, signature)
            if receipt.journal != journal:
                raise ValueError
        except (RemoteError, ValueError):
            damaged["receipt"] += 1
        else:
            receipts.append((receipt, at_s))
    return receipts


def load_certificates(writer: sqlite3.Connection, damaged: Counter[str]) -> list[bytes]:
    """Their bytes."""
    rows = writer.execute("SELECT der FROM certificate ORDER BY device").fetchall()
    whole = [der for (der,) in rows if type(der) is bytes]
    damaged["certificate"] += len(rows) - len(whole)
    return whole


def load_openings(writer: sqlite3.Connection, damaged: Counter[str]) -> list[PutOpening]:
    """All of them."""
    rows = writer.execute("SELECT journal, first FROM opening ORDER BY journal").fetchall()
    whole = [row for row in rows if is_id(row[0]) and is_number(row[1])]
    damaged["opening"] += len(rows) - len(whole)
    return [PutOpening(*row) for row in whole]


def load_messages(writer: sqlite3.Connection, damaged: Counter[str]) -> list[PutMessage]:
    """In the order of submission."""
    rows = writer.execute(
        "SELECT journal, first, last, size_bytes, submitted_ms, label, crc FROM message ORDER BY id"
    ).fetchall()
    whole = [row[:-1] for row in rows if checksum(*row[:-1]) == row[-1]]
    damaged["message"] += len(rows) - len(whole)
    return [PutMessage(*row) for row in whole]


def load_custody(writer: sqlite3.Connection, damaged: Counter[str]) -> list[PutCustody]:
    """One a journal and peer."""
    pairs: dict[tuple[JournalId, DeviceId], list[tuple[int, int]]] = {}
    for journal, peer, first, last in writer.execute("SELECT * FROM custody"):
        if is_id(journal, peer) and is_number(first) and is_number(last) and first <= last:
            pairs.setdefault((journal, peer), []).append((first, last))
        else:
            damaged["custody"] += 1
    return [PutCustody(journal, peer, Ranges(ranges)) for (journal, peer), ranges in pairs.items()]


def load_addresses(writer: sqlite3.Connection, damaged: Counter[str]) -> list[PutAddress]:
    """By address."""
    rows = writer.execute("SELECT address, device, at_s FROM address ORDER BY address").fetchall()
    whole = [row for row in rows if type(row[0]) is str and is_id(row[1]) and type(row[2]) is float]
    damaged["address"] += len(rows) - len(whole)
    return [PutAddress(*row) for row in whole]


def load_encounters(writer: sqlite3.Connection, damaged: Counter[str]) -> list[PutEncounter]:
    """One a peer, by peer."""
    whole: list[PutEncounter] = []
    for peer, *met in writer.execute(
        "SELECT peer, since_s, meetings, last_s, told_s FROM encounter ORDER BY peer"
    ):
        try:
            since_s, meetings, last_s, told_s = met
            if not (
                is_id(peer)
                and -INFINITE_S < since_s < INFINITE_S
                and 0 < meetings < inf
                and -INFINITE_S < last_s < INFINITE_S
                and 0 <= told_s <= AWAY_S_MAX
            ):
                raise ValueError
        except (TypeError, ValueError):
            damaged["encounter"] += 1
        else:
            whole.append(PutEncounter(peer, *met))
    return whole

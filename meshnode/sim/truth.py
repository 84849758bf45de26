"""What really happened in a run, as nobody in the fleet knows it: the judges' only source.

It is written from outside the nodes: by the scenario (what was submitted), by the faults (what was broken, so that
nobody is blamed for it), by the sink (what was taken), and by what goes to the disks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from meshnode.core.bundle import Bundle, read_bundle
from meshnode.core.identity import DeviceId, JournalId
from meshnode.core.intervals import NONE, Pair, Ranges
from meshnode.core.introducing import EVERYONE
from meshnode.core.rows import DropBundles, PutBundle, PutMessage, PutReceipt, Row
from meshnode.office.sinks import Envelope
from meshnode.sim.machine import Machine


class BrokenPromise(Exception):
    """A judge has found that the fleet does not keep its word."""

    def __init__(self, judge: str, text: str) -> None:
        super().__init__(judge, text)  # so that it can be pickled
        self.judge = judge
        self.text = text

    def __str__(self) -> str:
        return f"{self.judge}: {self.text}"


@dataclass(slots=True)
class Submitted:
    """A message that a program wanted to hand over. `reference` is its name in the manifest, unique in a run."""

    reference: str
    source: str
    number: int
    stream_sha256: bytes
    key: str | None = None
    journal: JournalId | None = None
    span: Pair = (0, 0)
    #: The node has said no, or the program went away.
    denied: bool = False
    #: The device that it is for; None: the office.
    to: str | None = None
    delivered_as: str | None = None


@dataclass(slots=True)
class Shelf:
    """What is on the disk of one machine."""

    held: dict[JournalId, Ranges] = field(default_factory=dict)
    puts: dict[tuple[JournalId, int], PutBundle] = field(default_factory=dict)
    receipted: dict[JournalId, Ranges] = field(default_factory=dict)
    messages: dict[JournalId, Ranges] = field(default_factory=dict)
    foreign_bytes: int = 0

    def of(self, journal: JournalId) -> Ranges:
        """Which bundles of a journal are there."""
        return self.held.get(journal, NONE)


class Truth:
    """Everything that judges need to know."""

    def __init__(self) -> None:
        self.machines: dict[str, Machine] = {}
        self.shelves: dict[str, Shelf] = {}
        self.names: dict[DeviceId, str] = {}
        self.submitted: dict[str, Submitted] = {}
        self.by_number: dict[tuple[str, int], Submitted] = {}
        self.by_key: dict[str, Submitted] = {}
        #: What the sink has taken, by journal, and each message's reference by key.
        self.taken: dict[JournalId, Ranges] = {}
        self.delivered: dict[str, str] = {}
        self.hostile: set[str] = set()
        self.lost: set[str] = set()
        self.revoked: set[str] = set()
        #: Own bundles that a fault took from their source: (machine, journal).
        self.robbed: dict[tuple[str, JournalId], Ranges] = {}
        #: Bundles that lie rotten on a disk: (machine, journal, number).
        self.rotten: set[tuple[str, JournalId, int]] = set()
        #: Machines whose disk another program has filled.
        self.squeezed: set[str] = set()
        #: Machines whose clock may have been turned back, since their disk failed or was replaced.
        self.forgetful: set[str] = set()
        #: What each source has made a message of, and so may have told.
        self.whole: dict[JournalId, Ranges] = {}
        #: What each honest source has written under a number.
        self.written: dict[tuple[JournalId, int], Bundle] = {}
        #: Who wrote a journal, and what those to whom it goes have signed for of it.
        self.sources: dict[JournalId, str] = {}
        self.signed: dict[JournalId, Ranges] = {}

    def add(self, machine: Machine, *, hostile: bool = False) -> None:
        """A device of the run."""
        self.machines[machine.name] = machine
        self.names[machine.device] = machine.name
        self.shelves[machine.name] = Shelf()
        if hostile:
            self.hostile.add(machine.name)

    @property
    def honest(self) -> Iterator[Machine]:
        """The devices that follow the rules, lost or not."""
        return (machine for name, machine in self.machines.items() if name not in self.hostile)

    @property
    def surviving(self) -> Iterator[Machine]:
        """The devices that the office owes everything: honest, not lost, not revoked."""
        gone = self.lost | self.revoked
        return (machine for machine in self.honest if machine.name not in gone)

    # --- messages -----------------------------------------------------------------------------------------------

    def submit(self, submitted: Submitted) -> None:
        """A program begins to hand over a message."""
        self.submitted[submitted.reference] = submitted
        self.by_number[submitted.source, submitted.number] = submitted

    def accept(self, machine: Machine, number: int, key: str, journal: JournalId, span: Pair) -> None:
        """Its program is told that it is safe."""
        submitted = self.by_number[machine.name, number]
        submitted.key, submitted.journal, submitted.span = key, journal, span
        self.by_key[key] = submitted

    def take(self, envelope: Envelope, journal: JournalId, span: Pair, reference: str) -> None:
        """The sink has it."""
        self.taken[journal] = self.taken.get(journal, NONE) | Ranges.span(*span)
        self.delivered[envelope.key] = reference

    def is_own(self, machine: Machine, journal: JournalId) -> bool:
        """Whether this machine writes this journal."""
        return self.sources.get(journal) == machine.name

    # --- what goes to the disks ---------------------------------------------------------------------------------

    def is_foreign(self, machine: Machine, put: PutBundle) -> bool:
        """Whether a bundle counts against the quota of `machine`."""
        header = put.bundle.header
        here = header.destination in machine.identity.endpoints or header.destination == EVERYONE
        return machine.device != header.source and not here

    def commit(self, machine: Machine, rows: list[Row]) -> None:
        """These rows are on its disk now."""
        shelf = self.shelves[machine.name]
        for row in rows:
            match row:
                case PutBundle():
                    self._put(machine, shelf, row)
                case DropBundles():
                    self._drop(machine, shelf, row)
                case PutReceipt():
                    self._note_receipt(machine, shelf, row)
                case PutMessage():
                    span = Ranges.span(row.first, row.last)
                    shelf.messages[row.journal] = shelf.messages.get(row.journal, NONE) | span
                    self.whole[row.journal] = self.whole.get(row.journal, NONE) | span

    def _note_receipt(self, machine: Machine, shelf: Shelf, row: PutReceipt) -> None:
        journal, ranges = row.receipt.journal, row.receipt.ranges
        shelf.receipted[journal] = shelf.receipted.get(journal, NONE) | ranges
        if row.receipt.endpoint in machine.identity.endpoints and machine.name not in self.hostile:
            self.signed[journal] = self.signed.get(journal, NONE) | ranges

    def _put(self, machine: Machine, shelf: Shelf, row: PutBundle) -> None:
        place = row.journal, row.bundle.header.number
        if place in shelf.puts:
            self._drop(machine, shelf, DropBundles(row.journal, Ranges.single(place[1])))
        shelf.puts[place] = row
        self.sources.setdefault(row.journal, self.names[row.bundle.header.source])
        shelf.held[row.journal] = shelf.of(row.journal) | Ranges.single(place[1])
        self.rotten.discard((machine.name, *place))
        if self.is_foreign(machine, row):
            shelf.foreign_bytes += row.bundle.header.payload_size

    def _drop(self, machine: Machine, shelf: Shelf, row: DropBundles) -> None:
        gone = row.ranges & shelf.of(row.journal)
        shelf.held[row.journal] = shelf.of(row.journal) - gone
        for number in gone:
            put = shelf.puts.pop((row.journal, number))
            self.rotten.discard((machine.name, row.journal, number))
            if self.is_foreign(machine, put):
                shelf.foreign_bytes -= put.bundle.header.payload_size

    def replace_disk(self, machine: Machine) -> None:
        """Its disk holds something else now: look at all of it."""
        self.shelves[machine.name] = shelf = Shelf()
        snapshot = machine.store.load()
        rows: list[Row] = [PutReceipt(receipt, at_s) for receipt, at_s in snapshot.receipts]
        rows.extend(snapshot.messages)
        self.rotten = {place for place in self.rotten if place[0] != machine.name}
        self.commit(machine, rows)
        for record in snapshot.journals:
            for number in record.entries:
                stored = machine.store.read(record.id, number)
                assert stored is not None
                bundle = read_bundle(stored.header, stored.signature, stored.payload)
                self._put(machine, shelf, PutBundle(bundle, record.id, stored.born_s, stored.arrived_ms))
                if hashlib.sha256(bundle.payload).digest() != bundle.header.payload_sha256:
                    self.rotten.add((machine.name, record.id, number))

    def rob(self, machine: Machine, journal: JournalId, ranges: Ranges) -> None:
        """A fault has taken these own bundles from their source."""
        place = machine.name, journal
        self.robbed[place] = self.robbed.get(place, NONE) | ranges

"""What a store keeps and gives back: rows, and the port to whatever keeps them.

A row is one fact; a commit takes several, all or none, in order. At a start the store gives back a `Snapshot`: all that
it knows, but for the payloads. Nothing here does anything.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol

from meshnode.core.bundle import Bundle, Previous
from meshnode.core.entries import Entries
from meshnode.core.entries import Entry as Entry
from meshnode.core.errors import StoreTrouble
from meshnode.core.identity import ID_SIZE, Certificate, DeviceId, JournalId
from meshnode.core.intervals import Ranges
from meshnode.core.receipt import Receipt

#: Stands where a device would, if there was none: a stick, or nobody in contact.
NOBODY: Final = DeviceId(bytes(ID_SIZE))

# --- rows: what a store keeps -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PutBundle:
    """Keep a bundle. `born_s` is the instant at which its age was 0."""

    bundle: Bundle
    journal: JournalId
    born_s: float
    arrived_ms: int


@dataclass(frozen=True, slots=True)
class DropBundles:
    """Discard these bundles, and the opening that began with one of them."""

    journal: JournalId
    ranges: Ranges


@dataclass(frozen=True, slots=True)
class PutReceipt:
    """Keep a receipt instead of the older one of its journal. `at_s`: when it was learned."""

    receipt: Receipt
    at_s: float


@dataclass(frozen=True, slots=True)
class PutCertificate:
    """Keep a device's certificate."""

    certificate: Certificate


@dataclass(frozen=True, slots=True)
class PutOpening:
    """A submission of several parts begins at `first`: until its PutMessage, what is there from `first` on is the
    remains of one that was never acknowledged, if the process ends. Goes with each part but the last."""

    journal: JournalId
    first: int


@dataclass(frozen=True, slots=True)
class PutMessage:
    """Remember a message of this device: bundles `first` to `last` of `journal`, and end its opening. `label` is what
    the officer called it, shut with the device key."""

    journal: JournalId
    first: int
    last: int
    size_bytes: int
    submitted_ms: int
    label: bytes


@dataclass(frozen=True, slots=True)
class PutCustody:
    """Remember what of an own journal another device has said to hold."""

    journal: JournalId
    peer: DeviceId
    ranges: Ranges


@dataclass(frozen=True, slots=True)
class PutAddress:
    """Remember where a device was met."""

    address: str
    device: DeviceId
    at_s: float


@dataclass(frozen=True, slots=True)
class PutEncounter:
    """Remember how often a device is met: `meetings` since `since_s`, the last one at `last_s`, and the delay to an
    office that it told then (`encounters`)."""

    peer: DeviceId
    since_s: float
    meetings: float
    last_s: float
    told_s: float


@dataclass(frozen=True, slots=True)
class PutClock:
    """Remember how late it is, as every commit does, though there is nothing else to write: what is carried by a node
    that writes nothing for hours has aged by these hours when it starts again."""


@dataclass(frozen=True, slots=True)
class PutRun:
    """Remember what happened to bundles `first` to `last` of a journal (`history`): `what`, by whom (`peer`, or
    NOBODY), and when by the wall clock. `number` stands for the run: put again under it, it is longer."""

    number: int
    journal: JournalId
    what: int
    peer: DeviceId
    first: int
    last: int
    at_ms: int


@dataclass(frozen=True, slots=True)
class DropRuns:
    """Forget these runs, by their numbers."""

    numbers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PutSeen:
    """Remember when a device was heard of last, by the wall clock: by its bundles that `via` brought; `via` is the
    device itself if it was in contact, NOBODY if they came by hand."""

    device: DeviceId
    at_ms: int
    via: DeviceId


@dataclass(frozen=True, slots=True)
class PutCarried:
    """Remember how much of `source` a `carrier` (or NOBODY, by hand) has brought on a day so far. `day`: days since
    1970-01-01 where this node is."""

    day: int
    carrier: DeviceId
    source: DeviceId
    bundles: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class PutDay:
    """Remember how many messages were handed on here on a day so far, their bytes, and how old they were: the oldest,
    and how many of each age (`book.Delays`)."""

    day: int
    messages: int
    size_bytes: int
    delay_max_s: int
    delays: bytes


@dataclass(frozen=True, slots=True)
class DropDay:
    """Forget who carried what on a day, and what was handed on."""

    day: int


Row = (
    PutBundle
    | DropBundles
    | PutReceipt
    | PutCertificate
    | PutOpening
    | PutMessage
    | PutCustody
    | PutAddress
    | PutEncounter
    | PutClock
    | PutRun
    | DropRuns
    | PutSeen
    | PutCarried
    | PutDay
    | DropDay
)


# --- what a store gives back at start ---------------------------------------------------------------------------


def entry_of(row: PutBundle) -> Entry:
    """What is known of a bundle that is about to be held."""
    header = row.bundle.header
    return Entry(
        header.payload_size, header.priority, header.first, header.parts, row.born_s, header.lifetime_s
    )


@dataclass(slots=True)
class JournalRecord:
    """A journal as stored: who wrote it for whom, and its bundles that are here. `previous`: what its first bundle
    names, known from when that was put, for ever."""

    id: JournalId
    source: DeviceId
    destination: bytes
    epoch: bytes
    entries: Entries = field(default_factory=Entries)
    previous: Previous | None = None


@dataclass(slots=True)
class Snapshot:
    """All that a store knows, but for the payloads. `clock_s`: the last instant that the store has seen. `damaged`: how
    many rows were not as they were put there, and are left out, by what they were (`receipt`, `message`, ...)."""

    clock_s: float = 0.0
    journals: list[JournalRecord] = field(default_factory=list)
    receipts: list[tuple[Receipt, float]] = field(default_factory=list)
    certificates: list[bytes] = field(default_factory=list)
    openings: list[PutOpening] = field(default_factory=list)
    messages: list[PutMessage] = field(default_factory=list)
    custody: list[PutCustody] = field(default_factory=list)
    addresses: list[PutAddress] = field(default_factory=list)
    encounters: list[PutEncounter] = field(default_factory=list)
    runs: list[PutRun] = field(default_factory=list)
    seen: list[PutSeen] = field(default_factory=list)
    carried: list[PutCarried] = field(default_factory=list)
    days: list[PutDay] = field(default_factory=list)
    damaged: dict[str, int] = field(default_factory=dict)


class StoredBundle(NamedTuple):
    """A bundle's bytes as a store gives them back."""

    header: bytes
    signature: bytes
    payload: bytes
    born_s: float
    arrived_ms: int


class Rotten(StoreTrouble):
    """A bundle in the store {path} is not as it was put there: {problem}."""


class Store(Protocol):
    """Keeps rows. Two implementations under one contract: SQLite for devices, memory for simulations.

    `load` at start; `commit` makes rows durable, all or none, in order; `read` gives a bundle back or None. All block.
    Errors of the disk are `StoreTrouble`; after one nothing of that commit is there, and what could not be read may be
    readable later. `Rotten`: it never will be.
    """

    def load(self) -> Snapshot:
        """Everything but payloads."""

    def commit(self, rows: list[Row], clock_s: float) -> None:
        """Make rows durable. Returns only when a power cut can no longer undo them."""

    def read(self, journal: JournalId, number: int) -> StoredBundle | None:
        """One bundle. Header and signature are as they were put, or it raises Rotten; the payload's digest is for the
        reader to check."""

    def close(self) -> None:
        """Let go of the store."""

"""What the brain and the outside say to each other: events in, effects out.

`core.node` is a function of these. A driver turns what happens (bytes, commits, sightings) into an event and carries
out the effects that come back, in their order. Nothing here does anything.

Contacts and pending writes are named by small numbers that live as long as the process.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple

from meshnode.core.errors import MeshnodeError
from meshnode.core.fleet import Endpoint, FleetDocument
from meshnode.core.identity import Certificate, DeviceId, JournalId
from meshnode.core.intervals import Ranges
from meshnode.core.rows import Row

ContactNumber = int
#: No contact has this number: what happened to a bundle without one.
NO_CONTACT: Final = 0
Token = int


class Instant(NamedTuple):
    """`s`: seconds that never run backwards, also across restarts. `wall_ms`: what the wall clock claims."""

    s: float
    wall_ms: int


# --- events -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Opened:
    """TLS with an authenticated peer stands. `dialled`: this side opened it, at `address`."""

    contact: ContactNumber
    peer: Certificate
    dialled: bool
    address: str


@dataclass(frozen=True, slots=True)
class Received:
    """Bytes of a contact."""

    contact: ContactNumber
    data: bytes


@dataclass(frozen=True, slots=True)
class Sent:
    """The link has sent bundles of `size` payload bytes together."""

    contact: ContactNumber
    size: int


@dataclass(frozen=True, slots=True)
class Lost:
    """A contact has ended."""

    contact: ContactNumber
    reason: str


@dataclass(frozen=True, slots=True)
class Written:
    """These writes are durable."""

    tokens: tuple[Token, ...]


@dataclass(frozen=True, slots=True)
class WriteFailed:
    """Nothing of these writes was kept."""

    tokens: tuple[Token, ...]
    problem: MeshnodeError


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A bundle that was to be sent, of `size` payload bytes, is gone from the store, or `rotten` there."""

    contact: ContactNumber
    journal: JournalId
    number: int
    size: int
    rotten: bool


@dataclass(frozen=True, slots=True)
class Sighted:
    """Somebody of this fleet may answer at `address`. `source`: how we know (dns-sd, probe)."""

    address: str
    device: DeviceId | None
    source: str


@dataclass(frozen=True, slots=True)
class Gateways:
    """The default gateways of this machine are at just these addresses; any may be the colleague with the hotspot."""

    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DialFailed:
    """Nobody of this fleet answers at `address`."""

    address: str
    problem: str


@dataclass(frozen=True, slots=True)
class NetworkChanged:
    """Addresses or links of this machine have changed."""


@dataclass(frozen=True, slots=True)
class SubmissionOpened:
    """A program begins a message: `size` bytes of stream (`core.message`), then `SubmissionChunk` for each part.

    `submitted_ms`: what the manifest in that stream says; None for now. `endpoint`: where it goes to; None for the
    office."""

    submission: int
    size: int
    size_bytes: int
    priority: int
    label: bytes
    lifetime_s: int | None = None
    submitted_ms: int | None = None
    endpoint: Endpoint | None = None


@dataclass(frozen=True, slots=True)
class SubmissionChunk:
    """The next part's plaintext."""

    submission: int
    chunk: bytes


@dataclass(frozen=True, slots=True)
class SubmissionAborted:
    """The program went away before its message was whole."""

    submission: int


@dataclass(frozen=True, slots=True)
class Taken:
    """The sink of the endpoint where a journal goes to has taken these of its messages durably."""

    journal: JournalId
    ranges: Ranges


@dataclass(frozen=True, slots=True)
class DocumentGiven:
    """A fleet document, verified, came by hand."""

    document: FleetDocument


@dataclass(frozen=True, slots=True)
class Brought:
    """Frames came by hand: `bodies` as of `frames.decode`, each FLEET, CERT, RECEIPT or BUNDLE or else damaged. Few
    enough that the brain is not busy with them for long. Those of one `bringing` are counted together, see
    `Node.brought`."""

    bringing: int
    bodies: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Space:
    """What the disk has free, besides what the store can reuse within itself, and what must stay free."""

    free_bytes: int
    floor_bytes: int


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed. Due when `Node.next_tick_s` said so after the last one, or since, if that is sooner."""


Event = (
    Opened
    | Received
    | Sent
    | Lost
    | Written
    | WriteFailed
    | Unreadable
    | Sighted
    | Gateways
    | DialFailed
    | NetworkChanged
    | SubmissionOpened
    | SubmissionChunk
    | SubmissionAborted
    | Taken
    | DocumentGiven
    | Brought
    | Space
    | Tick
)


# --- effects ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Send:
    """Send a frame, ahead of any bundle that still waits."""

    contact: ContactNumber
    data: bytes


@dataclass(frozen=True, slots=True)
class SendBundle:
    """Read a bundle and send it; then say `Sent`, or `Unreadable`."""

    contact: ContactNumber
    journal: JournalId
    number: int
    size: int
    age_s: int


@dataclass(frozen=True, slots=True)
class Close:
    """End a contact once its frames are sent; then say `Lost`."""

    contact: ContactNumber
    reason: str


@dataclass(frozen=True, slots=True)
class Dial:
    """Try to open a contact; then say `Opened` or `DialFailed`."""

    address: str


@dataclass(frozen=True, slots=True)
class Write:
    """Make rows durable; then say `Written` or `WriteFailed` with the token."""

    token: Token
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Accepted:
    """A submission is safe on disk."""

    submission: int
    key: str
    bundles: int


@dataclass(frozen=True, slots=True)
class Refused:
    """A submission was not taken, and nothing of it is kept."""

    submission: int
    problem: MeshnodeError


@dataclass(frozen=True, slots=True)
class Adopt:
    """Keep a newer fleet document, before anything that follows."""

    document: FleetDocument


@dataclass(frozen=True, slots=True)
class Arrived:
    """Bundles for this office are durable here: `journal` is worth a look."""

    journal: JournalId


@dataclass(frozen=True, slots=True)
class Log:
    """A line for the operator. Names no person and no content. `fields`: what of it a program may ask for, by name."""

    text: str
    fields: dict[str, str] = field(default_factory=dict)


Effect = Send | SendBundle | Close | Dial | Write | Accepted | Refused | Adopt | Arrived | Log

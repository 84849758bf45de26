"""One node for tests: with its store in memory, the writes that it has not committed yet, and puppets for peers."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

from meshnode.core.bundle import ROUTINE, Bundle, journal_id, read_bundle
from meshnode.core.errors import MeshnodeError, StoreTrouble
from meshnode.core.fleet import Endpoint
from meshnode.core.frames import BundleFrame, Cert, Frame, Have, Hello, Want, encode
from meshnode.core.framing import FrameReader
from meshnode.core.identity import Certificate, DeviceId, JournalId
from meshnode.core.intervals import NONE, Ranges
from meshnode.core.ledger import Journal
from meshnode.core.limits import GIB
from meshnode.core.node import Node
from meshnode.core.ports import (
    Accepted,
    Adopt,
    Arrived,
    Close,
    Dial,
    Effect,
    Event,
    Instant,
    Log,
    Lost,
    Opened,
    Received,
    Refused,
    Send,
    SendBundle,
    Sent,
    Space,
    SubmissionChunk,
    SubmissionOpened,
    Tick,
    Write,
    WriteFailed,
    Written,
)
from meshnode.core.sealing import CHUNK_SIZE, SealingKey
from meshnode.core.state import Settings
from meshnode.drivers.memory import MemoryStore
from tests.core.fleets import Fleet, StandIn, seed

PORT = 7766

FrameT = TypeVar("FrameT", bound=Frame)


@dataclass
class Clock:
    """The time of a world."""

    s: float = 1000.0
    wall_ms: int | None = None

    @property
    def instant(self) -> Instant:
        """Now; unless it is set, the wall clock tells the same time, in another year."""
        wall_ms = 1_700_000_000_000 + int(self.s * 1000) if self.wall_ms is None else self.wall_ms
        return Instant(self.s, wall_ms)


class Line(Protocol):
    """The far end of a contact."""

    def send(self, data: bytes) -> None:
        """A frame for it."""

    def send_bundle(self, effect: SendBundle) -> None:
        """A bundle for it."""

    def close(self, reason: str) -> None:
        """The contact is ended from here, once the frames are sent."""


class Host:
    """A device: a node, its store, what it has not committed yet, and what it has said so far."""

    def __init__(
        self,
        fleet: Fleet,
        name: str = "siti",
        role: str = "officer",
        *,
        clock: Clock | None = None,
        quota_bytes: int = GIB,
        free_bytes: int = GIB,
        floor_bytes: int = 0,
        peers: tuple[str, ...] = (),
        store: MemoryStore | None = None,
        introduces: bool = False,
    ) -> None:
        self.fleet = fleet
        self.name = name
        self.clock = clock or Clock()
        self.identity = fleet.identity(name, role)
        self.store = store or MemoryStore()
        self.space = Space(free_bytes, floor_bytes)
        self.accepted: dict[int, Accepted] = {}
        self.refused: dict[int, MeshnodeError] = {}
        self.logs: list[str] = []
        self.dials: list[str] = []
        self.arrived: list[JournalId] = []
        self.pending: list[Write] = []
        self.lines: dict[int, Line] = {}
        self.starts = 0
        self._quota_bytes = quota_bytes
        self._peers = peers
        self._sealing_key = SealingKey(seed("sealing", name)).public if introduces else None
        self._follow_up: deque[Event] = deque()
        self._submission = 0
        self._waiting: deque[tuple[int, bytes, int, Endpoint | None]] = deque()
        self._taking: int | None = None
        self.node = self._start()

    @property
    def device(self) -> DeviceId:
        """Its id."""
        return self.identity.device

    @property
    def epoch(self) -> bytes:
        """The epoch of the process that runs now."""
        return seed(self.name, self.starts)[:8]

    @property
    def own_journal(self) -> JournalId:
        """The journal that the process that runs now writes."""
        return journal_id(self.device, self.fleet.endpoint, self.epoch)

    def journal(self, journal: JournalId) -> Journal:
        """What the node knows of a journal."""
        return self.node.state.ledger.journals.get(journal) or Journal(journal)

    def stored(self, journal: JournalId) -> Ranges:
        """What the store has of a journal."""
        found = [Ranges.of(record.entries) for record in self.store.load().journals if record.id == journal]
        return found[0] if found else NONE

    def _start(self) -> Node:
        self.starts += 1
        settings = Settings(
            epoch=self.epoch,
            port=PORT,
            foreign_quota_bytes=self._quota_bytes,
            peers=self._peers,
            sealing_key=self._sealing_key,
            sealer_for=lambda _: StandIn(),
        )
        self.node = Node(self.identity, settings, self.store.load(), self.clock.instant)
        for effect in self.node.start(self.clock.instant):
            self._carry_out(effect)
        self.handle(self.space)
        return self.node

    def restart(self) -> None:
        """A crash: what was not committed is gone, and so are all contacts."""
        self.pending.clear()
        self.lines.clear()
        self._waiting.clear()
        self._taking = None
        self._start()

    def handle(self, event: Event) -> list[Effect]:
        """Let the node handle an event, and whatever follows from its effects at once. The effects of `event`."""
        effects = self.node.handle(event, self.clock.instant)
        for effect in effects:
            self._carry_out(effect)
        self._drain()
        self._next_submission()
        return effects

    def _drain(self) -> None:
        while self._follow_up:
            self.handle(self._follow_up.popleft())

    def _carry_out(self, effect: Effect) -> None:
        match effect:
            case Write():
                self.pending.append(effect)
            case Accepted():
                self.accepted[effect.submission] = effect
                self._answered(effect.submission)
            case Refused():
                self.refused.setdefault(effect.submission, effect.problem)
                self._answered(effect.submission)
            case Send():
                self.lines[effect.contact].send(effect.data)
            case SendBundle():
                self.lines[effect.contact].send_bundle(effect)
            case Close():
                self.lines.pop(effect.contact).close(effect.reason)
                self._follow_up.append(Lost(effect.contact, effect.reason))
            case Dial():
                self.dials.append(effect.address)
            case Adopt():
                self.identity = replace(self.identity, document=effect.document)
            case Arrived():
                self.arrived.append(effect.journal)
            case Log():
                self.logs.append(effect.text)

    def commit(self, count: int | None = None) -> list[Effect]:
        """Make the first `count` writes durable, all of them without one."""
        writes = self.pending[:count]
        del self.pending[: len(writes)]
        if not writes:
            return []
        self.store.commit([row for write in writes for row in write.rows], self.clock.s)
        return self.handle(Written(tuple(write.token for write in writes)))

    def settle(self) -> None:
        """Commit until there is nothing left to commit."""
        while self.pending:
            self.commit()

    def fail(self, count: int | None = None) -> list[Effect]:
        """The disk refuses the first `count` writes."""
        writes = self.pending[:count]
        del self.pending[: len(writes)]
        problem = StoreTrouble(path="store.db", problem="disk I/O error")
        return self.handle(WriteFailed(tuple(write.token for write in writes), problem))

    def pass_time(self, seconds: float, *, ticks: float = 1.0) -> None:
        """Turn the clock, with a tick every so many seconds and the free space told anew."""
        until_s = self.clock.s + seconds
        while self.clock.s < until_s:
            self.clock.s = min(until_s, self.clock.s + ticks)
            self.handle(Tick())
        self.handle(self.space)

    def submit(self, data: bytes = b"record", priority: int = ROUTINE, *, to: Endpoint | None = None) -> int:
        """Hand in a stream, once those before it are answered; its number."""
        self._submission += 1
        self._waiting.append((self._submission, data, priority, to))
        self._next_submission()
        return self._submission

    def _next_submission(self) -> None:
        if self._taking is None and self._waiting:
            number, data, priority, endpoint = self._waiting.popleft()
            self._taking = number
            self._follow_up.append(
                SubmissionOpened(number, len(data), len(data), priority, b"label", endpoint=endpoint)
            )
            for at in range(0, len(data), CHUNK_SIZE):
                self._follow_up.append(SubmissionChunk(number, data[at : at + CHUNK_SIZE]))
            self._drain()

    def _answered(self, submission: int) -> None:
        if submission == self._taking:
            self._taking = None

    def meet(self, name: str, *, greet: bool = True, dialled: bool = False, role: str = "officer") -> Puppet:
        """Open a contact with a puppet of that name, which says HELLO and an empty HAVE if it is to `greet`."""
        puppet = Puppet(self, name, self.fleet.certificate(name, role), dialled=dialled)
        if greet and puppet.closed is None:
            puppet.greet()
        return puppet


class Puppet:
    """The other end of one contact of a host, which says what a test lets it say."""

    _numbers = 0

    def __init__(self, host: Host, name: str, certificate: Certificate, *, dialled: bool = False) -> None:
        Puppet._numbers += 1
        self.number = Puppet._numbers
        self.host = host
        self.name = name
        self.certificate = certificate
        self.closed: str | None = None
        self.heard: list[Frame] = []
        self.heard_bytes = 0
        self.owed: list[SendBundle] = []
        self._reader = FrameReader()
        host.lines[self.number] = self
        port = PORT if dialled else 50_000
        host.handle(Opened(self.number, certificate, dialled, f"{name}:{port}"))

    def send(self, data: bytes) -> None:
        """As `Line`."""
        self.heard_bytes += len(data)
        self.heard.extend(self._reader.feed(data))

    def send_bundle(self, effect: SendBundle) -> None:
        """As `Line`."""
        self.owed.append(effect)

    def close(self, reason: str) -> None:
        """As `Line`."""
        self.closed = reason

    def ended(self) -> str | None:
        """Why the host has ended the contact, if it has."""
        return self.closed

    def lose(self) -> None:
        """The connection breaks."""
        self.host.lines.pop(self.number, None)
        self.host.handle(Lost(self.number, "broken"))

    def says(self, *frames: Frame) -> list[Effect]:
        """Say these, in one piece."""
        return self.writes(b"".join(encode(frame) for frame in frames))

    def writes(self, data: bytes) -> list[Effect]:
        """Write any bytes."""
        return self.host.handle(Received(self.number, data))

    def greet(self, *, fleet_version: int = 1, have: Have | None = None) -> None:
        """Say HELLO and what is held: nothing, or `have`."""
        hello = Hello(self.name, (self.certificate.role,), PORT, fleet_version, 1_700_000_000_000, False, GIB)
        self.says(hello, have or Have(True, ()))

    def gives(self, *bundles: Bundle, age_s: int = 0, certify: bool = True) -> list[Effect]:
        """Send bundles, after the certificates of their sources."""
        sources = {bundle.header.source: None for bundle in bundles} if certify else {}
        names = {self.host.fleet.device(name): name for name in list(self.host.fleet._certificates)}
        certs = [Cert(self.host.fleet.certificate(names[source]).der) for source in sources]
        return self.says(*certs, *(BundleFrame(age_s, bundle) for bundle in bundles))

    def link_sends(self, count: int | None = None) -> list[Bundle]:
        """The link reads and sends the first `count` bundles that it was handed, one by one."""
        sent: list[Bundle] = []
        while self.owed and (count is None or len(sent) < count):
            effect = self.owed.pop(0)
            stored = self.host.store.read(effect.journal, effect.number)
            assert stored is not None
            sent.append(read_bundle(stored.header, stored.signature, stored.payload))
            self.host.handle(Sent(self.number, effect.size))
        return sent

    def take(self, kind: type[FrameT]) -> list[FrameT]:
        """The frames of a kind that were heard and not taken yet."""
        taken: list[FrameT] = [frame for frame in self.heard if isinstance(frame, kind)]
        self.heard = [frame for frame in self.heard if not isinstance(frame, kind)]
        return taken

    def asked(self) -> dict[JournalId, Ranges]:
        """What the host has asked of this puppet since it was last looked, less what it has taken back."""
        asked: dict[JournalId, Ranges] = {}
        for want in self.take(Want):
            for row in want.journals:
                left = (asked.get(row.journal, NONE) | row.ranges) - row.dropped
                asked[row.journal] = left
        return {journal: ranges for journal, ranges in asked.items() if ranges}

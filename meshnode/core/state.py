"""What the parts of the brain share: the state of the node, and the effects of the event at hand.

Each part (`meeting`, `knowing`, `landing`, `taking`) is given this and the parts it talks to, changes it, and says
what is to be done by `say`, `write` and `log`. It decides nothing itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from meshnode.core.book import Book
from meshnode.core.contact import Contact
from meshnode.core.custody import Custody
from meshnode.core.dialing import Dialing
from meshnode.core.encounters import LEAST_S, Encounters, is_there
from meshnode.core.errors import MeshnodeError, RemoteError
from meshnode.core.fetching import Fetching
from meshnode.core.fleet import FleetDocument
from meshnode.core.frames import Frame
from meshnode.core.history import History
from meshnode.core.holders import Holders
from meshnode.core.identity import (
    Certificate,
    DeviceId,
    EndpointId,
    JournalId,
    PublicKey,
    SigningKey,
    read_certificate,
)
from meshnode.core.intervals import NONE, Ranges
from meshnode.core.ledger import Journal, Ledger
from meshnode.core.limits import PAYLOAD_SIZE_MAX
from meshnode.core.ports import Effect, Instant, Log, Token, Write
from meshnode.core.receipt import Receipt
from meshnode.core.routing import Order, Worth, gain
from meshnode.core.rows import NOBODY, DropBundles, Entry, PutBundle, Row, Snapshot
from meshnode.core.sealing import SealingPublicKey
from meshnode.core.submitting import SealerFor, office_sealer


@dataclass(frozen=True, slots=True)
class OfficeKeys:
    """What a node needs to sign for an endpoint."""

    endpoint: EndpointId
    key: SigningKey


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this node is, and whom it trusts."""

    certificate: Certificate
    key: SigningKey
    authority: PublicKey
    document: FleetDocument
    office: OfficeKeys | None = None

    @property
    def device(self) -> DeviceId:
        """This device's id."""
        return self.certificate.device

    @property
    def roles(self) -> tuple[str, ...]:
        """What it is to others: what it was admitted as, and an office if it holds an office's keys."""
        role = self.certificate.role
        return (role,) if self.office is None or role == "office" else (role, "office")

    @property
    def endpoints(self) -> dict[bytes, SigningKey]:
        """The endpoints that end here, and what signs for each: every device is one, an office is two."""
        endpoints = {bytes(self.device): self.key}
        if self.office is not None:
            endpoints[bytes(self.office.endpoint)] = self.office.key
        return endpoints


@dataclass(frozen=True, slots=True)
class Settings:
    """`epoch`: 8 random bytes, new at each start. `port`: where this node listens, told to peers. `sealing_key`: with
    which others seal to this device; without one it is not introduced, and nobody can write to it.

    `stand_ins`: payloads are declared by their headers and do not exist, so nothing is verified. For planning with the
    real node over gigabytes; no daemon sets it.

    `day_offset_s`: by how much the time of day here is ahead of UTC, so that a day of the book is a day of people."""

    epoch: bytes
    port: int
    foreign_quota_bytes: int
    peers: tuple[str, ...] = ()
    sealing_key: SealingPublicKey | None = None
    sealer_for: SealerFor = office_sealer
    stand_ins: bool = False
    worth: Worth = gain
    day_offset_s: int = 0


@dataclass(slots=True)
class Landing:
    """A bundle of a contact on its way to the disk. `bringer`: the peer, or NOBODY."""

    contact: int
    journal: Journal
    number: int
    entry: Entry
    bringer: DeviceId = NOBODY


@dataclass(slots=True)
class Pending:
    """What is to be done when a write is durable: bundles to count and acknowledge, a submission to answer, receipts
    to pass on. `drops`: what is to be let go of again if it was not taken."""

    landings: list[Landing] = field(default_factory=list)
    submission: int | None = None
    final: bool = False
    receipts: list[Receipt] = field(default_factory=list)
    drops: list[DropBundles] = field(default_factory=list)
    payload_bytes: int = 0


class State:
    """The node's state. `free_bytes` is the disk as last told, less what has been taken since."""

    def __init__(self, identity: Identity, settings: Settings, snapshot: Snapshot, now: Instant) -> None:
        self.endpoints = identity.endpoints
        self.identity = identity
        self.settings = settings
        self.document: FleetDocument = identity.document
        #: Rows of the store that are left out since they are damaged: how many, by what they were.
        self.damaged = Counter(snapshot.damaged)
        self.certificates = self._read_certificates(snapshot)
        self.ledger = Ledger.restore(identity.device, frozenset(self.endpoints), snapshot, settings.epoch)
        self.history = self._make_history(snapshot)
        self.custody = Custody(self.ledger, snapshot, self.history)
        self.dialing = Dialing(identity.device)
        at_office = is_there(identity.certificate) or identity.office is not None
        self.encounters = Encounters(snapshot.encounters, now.s, at_office=at_office)
        self.holders = Holders(self.encounters.told_s)
        self.fetching = Fetching(self.ledger, self.holders)
        self.contacts: dict[int, Contact] = {}
        #: Those that no store has yet: each is written with the first bundle that needs it.
        self.unsaved_certificates: set[DeviceId] = set()
        self.free_bytes = 0
        self.floor_bytes = 0
        self.store_problem: MeshnodeError | None = None
        #: The disk has just failed: until then nothing is asked of anybody. 0: it has not.
        self.rests_until_s = 0.0
        #: Not held any more, and still on the disk, which was too full to let go of them.
        self.undropped: list[DropBundles] = []
        #: Bytes of others' bundles on their way to the disk, and of all bundles.
        self.landing_bytes = 0
        self.unwritten_bytes = 0
        #: Bundles that were here and are not any more, and not delivered as far as is known.
        self.rotten: set[tuple[JournalId, int]] = set(self._torn_out(snapshot))
        #: Another process has written with this device's key while this one was running.
        self.has_twin = False
        #: Version of a fleet document that takes revocations back, and so is not followed; 0: none was offered.
        self.forgiving_version = 0
        #: Contacts that were ended since their peer broke the protocol.
        self.faults = 0
        self.started = now
        self.uplink = identity.office is not None
        self.now = now
        self.effects: list[Effect] = []
        #: Contacts for which it is time to decide what to ask, and what to send.
        self.to_ask: set[int] = set()
        self.to_pump: set[int] = set()
        self._pending: dict[Token, Pending] = {}
        self._token = 0

    def _read_certificates(self, snapshot: Snapshot) -> dict[DeviceId, Certificate]:
        """Those that are whole. Bundles whose source has none are not held: nobody could be shown that they are true.
        They come again from others, with the certificate."""
        certificates = {self.identity.device: self.identity.certificate}
        for der in snapshot.certificates:
            try:
                certificate = read_certificate(der, self.identity.authority)
            except RemoteError:
                self.damaged["certificate"] += 1
                continue
            certificates[certificate.device] = certificate
        for record in snapshot.journals:
            if record.source not in certificates and record.entries:
                self.damaged["bundle"] += len(record.entries)
                record.entries.clear()
        return certificates

    def _make_history(self, snapshot: Snapshot) -> History:
        """An office and a gateway, where many come by, keep a book of what passes."""
        keeps_book = is_there(self.identity.certificate) or self.identity.office is not None
        book = Book(snapshot, self.settings.day_offset_s) if keeps_book else None
        return History(self.identity.device, snapshot, book, self.is_office)

    def is_office(self, destination: bytes) -> bool:
        """Whether what goes there is for the office."""
        return self.document.endpoint(EndpointId(destination)) is not None

    def _torn_out(self, snapshot: Snapshot) -> Iterator[tuple[JournalId, int]]:
        """Parts of this device's messages that the store has lost."""
        there: dict[JournalId, Ranges] = {}
        for message in snapshot.messages:
            if message.journal not in there:
                journal = self.ledger.journals.get(message.journal)
                there[message.journal] = journal.held | journal.receipted if journal else NONE
            if not there[message.journal].covers(message.first, message.last):
                for number in Ranges.span(message.first, message.last) - there[message.journal]:
                    yield message.journal, number

    def begin(self, now: Instant) -> None:
        """A new event."""
        self.now = now
        self.history.wall_ms, self.history.now_s = now.wall_ms, now.s
        self.effects = []

    def say(self, contact: Contact, frame: Frame) -> None:
        """Send a frame."""
        self.effects.append(contact.say(frame, self.now.s))

    def write(self, rows: tuple[Row, ...], pending: Pending | None = None) -> None:
        """Make rows durable, and then do what is `pending`."""
        self._token += 1
        if drops := [row for row in rows if isinstance(row, DropBundles)]:
            pending = pending or Pending()
            pending.drops = drops
        if size := sum(row.bundle.header.payload_size for row in rows if isinstance(row, PutBundle)):
            pending = pending or Pending()
            pending.payload_bytes = size
            self.unwritten_bytes += size
        if pending is not None:
            self._pending[self._token] = pending
        self.effects.append(Write(self._token, rows))

    def written(self, token: Token) -> Pending:
        """What was pending on this write, which has ended well or not."""
        pending = self._pending.pop(token, None) or Pending()
        self.unwritten_bytes -= pending.payload_bytes
        return pending

    def log(self, text: str, **fields: str) -> None:
        """A line for the operator; `fields` as `Log` has them."""
        self.effects.append(Log(text, fields))

    @property
    def connected(self) -> set[DeviceId]:
        """Devices with which a contact is open."""
        return {contact.device for contact in self.contacts.values()}

    @property
    def greeted(self) -> list[Contact]:
        """Contacts whose peer has said HELLO, and so has been told what we hold."""
        return [contact for contact in self.contacts.values() if contact.hello is not None]

    @property
    def away_s(self) -> float:
        """This node's own delay to an office."""
        return self.encounters.away_s(self.now.s)

    def away_of(self, contact: Contact) -> float:
        """The delay of a peer: what it told, but none with an office, a gateway, or an uplink."""
        there = is_there(contact.peer) or (contact.hello is not None and contact.hello.uplink)
        return 0.0 if there else max(LEAST_S, self.encounters.told_s(contact.device))

    def is_farther(self, contact: Contact) -> bool:
        """Whether a peer is farther from an office than this node."""
        return self.away_s < self.away_of(contact)

    def order(self, contact: Contact) -> Order:
        """The order of sending to a peer, as things are now."""
        return Order(
            peer=contact.device,
            devices=self.certificates,
            peer_away_s=self.away_of(contact),
            own_away_s=self.away_s,
            offers=contact.offers,
            holders=self.holders,
            told_s=self.encounters.told_s,
            revoked=self.document.revoked,
            now_s=self.now.s,
            worth=self.settings.worth,
        )

    @property
    def room_bytes(self) -> int:
        """Bytes above the floor."""
        return self.free_bytes - self.floor_bytes

    @property
    def foreign_room_bytes(self) -> int:
        """Bytes of others' bundles that may still come: by the quota and by the floor."""
        carried_bytes = self.ledger.foreign_size + self.landing_bytes
        return min(self.settings.foreign_quota_bytes - carried_bytes, self.room_bytes)

    @property
    def is_full(self) -> bool:
        """Whether others' bundles come only in place of others."""
        return self.foreign_room_bytes < PAYLOAD_SIZE_MAX

    def rest(self, seconds: float) -> None:
        """Ask for nothing for a while."""
        self.rests_until_s = self.now.s + seconds

    def ask_all(self) -> None:
        """What we lack, or who has it, has changed."""
        self.to_ask.update(self.contacts)

    def room_grew(self) -> None:
        """What was declined for lack of room may be asked for again."""
        self.fetching.declined.clear()
        self.fetching.loosened += 1
        self.ask_all()

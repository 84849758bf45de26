"""A device on virtual time: the real brain, a store, a disk that takes its time, and clocks that may be wrong.

It does what `app.daemon` does, on a heap instead of a scheduler. Because the brain is pure, a power cut can fall
between any two effects: what was not committed is gone, what was committed is there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol, assert_never

from meshnode.core.bundle import EPOCH_SIZE, ROUTINE
from meshnode.core.errors import MeshnodeError, StoreTrouble
from meshnode.core.fleet import FleetDocument
from meshnode.core.identity import DeviceId, JournalId
from meshnode.core.limits import FOREIGN_QUOTA_BYTES, GIB
from meshnode.core.node import Node
from meshnode.core.ports import (
    Accepted,
    Adopt,
    Arrived,
    Close,
    Dial,
    DropBundles,
    Effect,
    Event,
    Instant,
    Log,
    PutBundle,
    Refused,
    Row,
    Send,
    SendBundle,
    Space,
    StoredBundle,
    SubmissionChunk,
    SubmissionOpened,
    Tick,
    Write,
    WriteFailed,
    Written,
)
from meshnode.core.sealing import CHUNK_SIZE
from meshnode.core.state import Identity, Settings
from meshnode.core.submitting import SealerFor
from meshnode.drivers.memory import MemoryStore
from meshnode.sim.channel import End
from meshnode.sim.engine import Engine, Timer


@dataclass(slots=True)
class Hardware:
    """What a device is like. `wall`: what its wall clock shows (ms) at a true time (s)."""

    foreign_quota_bytes: int = FOREIGN_QUOTA_BYTES
    disk_bytes: int = 100 * GIB
    floor_bytes: int = 0
    commit_s: float = 0.005
    wall: Callable[[float], int] = lambda true_s: 1_700_000_000_000 + int(true_s * 1000)


class Witness(Protocol):
    """Sees all that a machine does, before it happens to anybody else. What judges implement."""

    def effect(self, machine: Machine, effect: Effect) -> None:
        """The brain asks for this."""

    def committed(self, machine: Machine, rows: list[Row]) -> None:
        """These rows are on the disk now."""

    def handled(self, machine: Machine, event: Event) -> None:
        """The brain has handled this, and its effects are carried out."""


class PowerCut(Exception):
    """The power went off here and now."""


class Machine:
    """One device."""

    def __init__(
        self,
        engine: Engine,
        identity: Identity,
        sealer_for: SealerFor,
        *,
        hardware: Hardware | None = None,
        on_dial: Callable[[Machine, str], None] = lambda machine, address: None,
        on_arrived: Callable[[Machine, JournalId], None] = lambda machine, journal: None,
        stand_ins: bool = False,
    ) -> None:
        self.engine = engine
        self.identity = identity
        self.hardware = hardware or Hardware()
        self.store = MemoryStore()
        self.node: Node | None = None
        self.ends: dict[int, End] = {}
        self.witnesses: list[Witness] = []
        self.accepted: dict[int, Accepted] = {}
        self.refused: dict[int, MeshnodeError] = {}
        #: The power goes off before so many more effects.
        self.effects_left: int | None = None
        self.disk_fails = False
        self._sealer_for = sealer_for
        self._on_dial = on_dial
        self._on_arrived = on_arrived
        self._stand_ins = stand_ins
        self._contact = 0
        self._submission = 0
        self._submitting: deque[tuple[SubmissionOpened, bytes | memoryview]] = deque()
        self._busy: int | None = None
        self._queue: deque[Write] = deque()
        self._disk: Timer | None = None
        self._clock: Timer | None = None
        self._clock_base_s = 0.0

    @property
    def name(self) -> str:
        """What people call it."""
        return self.identity.certificate.name

    @property
    def device(self) -> DeviceId:
        """Its id."""
        return self.identity.device

    @property
    def running(self) -> Node:
        """Its brain, which must be awake."""
        assert self.node is not None
        return self.node

    def now(self) -> Instant:
        """What its clocks say."""
        return Instant(self._clock_base_s + self.engine.now_s, self.hardware.wall(self.engine.now_s))

    # --- on and off ---------------------------------------------------------------------------------------------

    def boot(self) -> None:
        """Switch it on: everything is as the disk says."""
        snapshot = self.store.load()
        self._clock_base_s = snapshot.clock_s - self.engine.now_s
        settings = Settings(
            epoch=self.engine.random.randbytes(EPOCH_SIZE),
            port=1,
            foreign_quota_bytes=self.hardware.foreign_quota_bytes,
            sealer_for=self._sealer_for,
            stand_ins=self._stand_ins,
        )
        self.node = Node(self.identity, settings, snapshot, self.now())
        self._carry_out(self.node.start(self.now()))
        self.look_at_space()
        for record in snapshot.journals:
            if record.destination in self.running.state.ledger.endpoints:
                self._on_arrived(self, record.id)
        self._set_clock()

    def power_cut(self) -> None:
        """Switch it off without a word: contacts, queues and everything not committed are gone."""
        self.node = None
        self.effects_left = None
        self._busy = None
        self._queue.clear()
        self._submitting.clear()
        for timer in (self._disk, self._clock):
            if timer is not None:
                timer.cancel()
        self._disk = self._clock = None
        self.ends.clear()

    # --- the brain ----------------------------------------------------------------------------------------------

    def dispatch(self, event: Event) -> None:
        """Tell the brain, if it is on, and do what it says."""
        if self.node is None:
            return
        try:
            self._carry_out(self.node.handle(event, self.now()))
            for witness in self.witnesses:
                witness.handled(self, event)
        except PowerCut:
            self.engine.note(f"{self.name} loses power")
            self.power_cut()
            return
        self._set_clock()

    def _carry_out(self, effects: list[Effect]) -> None:
        for effect in effects:
            if self.effects_left is not None:
                self.effects_left -= 1
                if self.effects_left < 0:
                    raise PowerCut
            for witness in self.witnesses:
                witness.effect(self, effect)
            self._do(effect)

    def _do(self, effect: Effect) -> None:
        match effect:
            case Send(contact, data):
                if end := self.ends.get(contact):
                    end.send(data)
            case SendBundle():
                if end := self.ends.get(effect.contact):
                    end.send_bundle(effect)
            case Close(contact, reason):
                if end := self.ends.pop(contact, None):
                    end.close(reason)
            case Write():
                self._queue.append(effect)
                self._write_soon()
            case Dial(address):
                self._on_dial(self, address)
            case Accepted():
                self.accepted[effect.submission] = effect
                self._answered()
            case Refused():
                self.refused[effect.submission] = effect.problem
                self._answered()
            case Adopt(document):
                self.identity = replace(self.identity, document=document)
            case Arrived(journal):
                self._on_arrived(self, journal)
            case Log(text):
                self.engine.note(f"{self.name}: {text}")
            case _:
                assert_never(effect)

    def _set_clock(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
        if self.node is not None:
            due_s = self.node.next_tick_s() - self._clock_base_s
            self._clock = self.engine.at(max(due_s, self.engine.now_s + 0.01), lambda: self.dispatch(Tick()))

    def adopt_by_hand(self, document: FleetDocument) -> None:
        """The document is put into its home while it is off, or told to its daemon."""
        from meshnode.core.ports import DocumentGiven

        if self.node is None:
            self.identity = replace(self.identity, document=document)
        else:
            self.dispatch(DocumentGiven(document))

    # --- contacts -----------------------------------------------------------------------------------------------

    def new_contact(self) -> int:
        """A number that no contact of this machine has had."""
        self._contact += 1
        return self._contact

    def read(self, journal: JournalId, number: int) -> StoredBundle | None:
        """Read the store."""
        return self.store.read(journal, number)

    # --- the disk -----------------------------------------------------------------------------------------------

    @property
    def free_bytes(self) -> int:
        """What the disk has left."""
        return self.hardware.disk_bytes - self.store.size_bytes

    def look_at_space(self) -> None:
        """Tell the brain what the disk has left."""
        self.dispatch(Space(self.free_bytes, self.hardware.floor_bytes))

    def _write_soon(self) -> None:
        if self._disk is None and self._queue:
            batch = list(self._queue)
            self._queue.clear()
            self._disk = self.engine.after(self.hardware.commit_s, lambda: self._commit(batch))

    def _commit(self, batch: list[Write]) -> None:
        self._disk = None
        tokens = tuple(write.token for write in batch)
        rows = [row for write in batch for row in write.rows]
        size = sum(row.bundle.header.payload_size for row in rows if isinstance(row, PutBundle))
        if self.disk_fails or size > max(0, self.free_bytes):
            problem = StoreTrouble(path=self.name, problem="database or disk is full")
            self.dispatch(WriteFailed(tokens, problem))
        else:
            self.store.commit(rows, self.now().s)
            for witness in self.witnesses:
                witness.committed(self, rows)
            self.dispatch(Written(tokens))
            if any(isinstance(row, DropBundles) for row in rows):
                self.look_at_space()
        self._write_soon()

    # --- messages -----------------------------------------------------------------------------------------------

    def submit(self, stream: bytes | memoryview, size_bytes: int, priority: int = ROUTINE) -> int:
        """A program hands over a message; its number, under which `accepted` or `refused` will have the answer."""
        self._submission += 1
        opened = SubmissionOpened(self._submission, len(stream), size_bytes, priority, b"")
        self._submitting.append((opened, stream))
        self._next_submission()
        return self._submission

    def _answered(self) -> None:
        self._busy = None
        self.engine.after(0.0, self._next_submission)

    def _next_submission(self) -> None:
        if self._busy is not None or not self._submitting or self.node is None:
            return
        opened, stream = self._submitting.popleft()
        self._busy = opened.submission
        self.look_at_space()
        self.dispatch(opened)
        for at in range(0, len(stream), CHUNK_SIZE):
            if self._busy == opened.submission:
                self.dispatch(SubmissionChunk(opened.submission, bytes(stream[at : at + CHUNK_SIZE])))

"""A device on virtual time: the real brain, a store, a disk that takes its time, and clocks that may be wrong.

It does what `app.daemon` does, on a heap instead of a scheduler. Because the brain is pure, a power cut can fall
between any two effects: what was not committed is gone, what was committed is there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, Protocol, assert_never

from meshnode.core.bundle import EPOCH_SIZE, ROUTINE
from meshnode.core.errors import MeshnodeError, StoreTrouble
from meshnode.core.fleet import Endpoint, FleetDocument
from meshnode.core.identity import DeviceId, JournalId
from meshnode.core.limits import FOREIGN_QUOTA_BYTES, GIB, KIB
from meshnode.core.node import Node
from meshnode.core.ports import (
    Accepted,
    Adopt,
    Arrived,
    Close,
    Dial,
    DialFailed,
    DocumentGiven,
    Effect,
    Event,
    Instant,
    Log,
    Lost,
    NetworkChanged,
    Opened,
    Refused,
    Send,
    SendBundle,
    Sighted,
    Space,
    SubmissionOpened,
    Tick,
    Write,
    WriteFailed,
    Written,
)
from meshnode.core.routing import Worth, gain
from meshnode.core.rows import DropBundles, PutBundle, Row, StoredBundle
from meshnode.core.sealing import SealingKey
from meshnode.core.state import Identity, Settings
from meshnode.core.submitting import SealerFor
from meshnode.drivers.memory import MemoryStore
from meshnode.sim.channel import End
from meshnode.sim.engine import Engine, Timer
from meshnode.sim.programs import Programs, Submission
from meshnode.sim.telling import effect_bytes, effect_text

#: Between two looks at the free disk, as in the daemon.
SPACE_S: Final = 5.0
#: What any commit needs besides payloads, so that a disk that is quite full takes nothing at all.
COMMIT_BYTES: Final = 4 * KIB

#: After these the next tick may be due earlier.
_RETICK = Opened | Lost | DialFailed | Sighted | NetworkChanged | DocumentGiven | WriteFailed | Tick


@dataclass(slots=True)
class Hardware:
    """What a device is like. `wall`: what its wall clock shows (ms) at a true time (s). `look_s`: between two looks at
    the free disk, besides those that have a reason."""

    foreign_quota_bytes: int = FOREIGN_QUOTA_BYTES
    disk_bytes: int = 100 * GIB
    floor_bytes: int = 0
    commit_s: float = 0.005
    look_s: float = SPACE_S
    wall: Callable[[float], int] = lambda true_s: 1_700_000_000_000 + int(true_s * 1000)


class Witness(Protocol):
    """Sees all that a machine does, before it happens to anybody else. What judges implement."""

    def effect(self, machine: Machine, effect: Effect) -> None:
        """The brain asks for this."""

    def committed(self, machine: Machine, rows: list[Row]) -> None:
        """These rows are on the disk now."""

    def handled(self, machine: Machine, event: Event) -> None:
        """The brain has handled this, and its effects are carried out."""

    def booted(self, machine: Machine) -> None:
        """It is on, with what its disk has."""


class PowerCut(Exception):
    """The power went off here and now."""


class Machine:
    """One device. `on_power_lost` is told when the power went off by `effects_left`."""

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
        worth: Worth = gain,
    ) -> None:
        self.engine = engine
        self.identity = identity
        self.hardware = hardware or Hardware()
        self.store = MemoryStore()
        self.node: Node | None = None
        self.ends: dict[int, End] = {}
        self.witnesses: list[Witness] = []
        self.programs = Programs(engine, self._ready, self.dispatch)
        #: The power goes off before so many more effects.
        self.effects_left: int | None = None
        self.on_power_lost: Callable[[Machine], None] = lambda machine: None
        self.disk_fails = False
        self.boots = 0
        self._on_s = 0.0
        self._on_since_s = 0.0
        self._sealer_for = sealer_for
        self._on_dial = on_dial
        self._on_arrived = on_arrived
        self._stand_ins = stand_ins
        self._worth = worth
        # Only planned fleets, whose payloads do not exist, are not introduced.
        self._sealing_key = None if stand_ins else SealingKey(identity.key.derive(b"sealing")).public
        self._contact = 0
        self._submission = 0
        self._queue: deque[Write] = deque()
        self._disk: Timer | None = None
        self._clock: Timer | None = None
        self._clock_due_s = 0.0
        self._clock_base_s = 0.0
        self._space_s = 0.0
        self._told = (0, 0)

    @property
    def name(self) -> str:
        """What people call it."""
        return self.identity.certificate.name

    @property
    def device(self) -> DeviceId:
        """Its id."""
        return self.identity.device

    @property
    def on_s(self) -> float:
        """How long it has been on, all in all."""
        return self._on_s + (0.0 if self.node is None else self.engine.now_s - self._on_since_s)

    @property
    def running(self) -> Node:
        """Its brain, which must be awake."""
        assert self.node is not None
        return self.node

    @property
    def accepted(self) -> dict[int, Accepted]:
        """Submissions that were taken."""
        return self.programs.accepted

    @property
    def refused(self) -> dict[int, MeshnodeError]:
        """Submissions that were not taken, and why."""
        return self.programs.refused

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
            sealing_key=self._sealing_key,
            sealer_for=self._sealer_for,
            stand_ins=self._stand_ins,
            worth=self._worth,
        )
        self.node = Node(self.identity, settings, snapshot, self.now())
        self.boots += 1
        self._on_since_s = self.engine.now_s
        for witness in self.witnesses:
            witness.booted(self)
        try:
            self._carry_out(self.node.start(self.now()))
        except PowerCut:
            self.lose_power()
            return
        self.look_at_space()
        for record in snapshot.journals:
            if record.destination in self.identity.endpoints:
                self._on_arrived(self, record.id)
        self._set_clock()

    def power_cut(self, *, silent: bool = False) -> None:
        """Switch it off without a word: contacts, queues and everything not committed are gone. `silent`: its peers
        are not told by their radios either."""
        if self.node is not None:
            self._on_s += self.engine.now_s - self._on_since_s
        self.node = None
        self.effects_left = None
        self._queue.clear()
        self.programs.forget()
        for timer in (self._disk, self._clock):
            if timer is not None:
                timer.cancel()
        self._disk = self._clock = None
        ends, self.ends = self.ends, {}
        for end in ends.values():
            end.channel.lose(end, silent=silent)

    def lose_power(self) -> None:
        """The power goes off at just this point."""
        self.engine.note(f"{self.name} loses power")
        self.power_cut()
        self.on_power_lost(self)

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
            self.lose_power()
            return
        if isinstance(event, _RETICK):
            self._set_clock()

    def _carry_out(self, effects: list[Effect]) -> None:
        trace = self.engine.trace
        for effect in effects:
            if self.effects_left is not None:
                self.effects_left -= 1
                if self.effects_left < 0:
                    raise PowerCut
            trace.mix(effect_bytes(effect))
            if trace.is_read and (text := effect_text(effect)):
                trace.tell(self.engine.now_s, f"  {self.name} {self._towards(effect)}{text}")
            for witness in self.witnesses:
                witness.effect(self, effect)
            self._do(effect)

    def _towards(self, effect: Effect) -> str:
        contact = getattr(effect, "contact", None)
        party = self.ends[contact].across.party if contact in self.ends else None
        return f"-> {party.name}: " if isinstance(party, Machine) else ""

    def _do(self, effect: Effect) -> None:
        match effect:
            case Send(contact, data):
                if end := self.ends.get(contact):
                    end.send(data)
            case SendBundle():
                if end := self.ends.get(effect.contact):
                    end.send_bundle(effect)
            case Close(contact, reason):
                if end := self.ends.get(contact):
                    end.close(reason)
            case Write():
                self._queue.append(effect)
                self._write_soon()
            case Dial(address):
                self._on_dial(self, address)
            case Accepted() | Refused():
                self.programs.answered(effect)
            case Adopt(document):
                self.identity = replace(self.identity, document=document)
            case Arrived(journal):
                self._on_arrived(self, journal)
            case Log(text=text):
                self.engine.note(f"{self.name}: {text}")
            case _:
                assert_never(effect)

    def _set_clock(self) -> None:
        if self.node is None:
            return
        due_s = max(self.node.next_tick_s() - self._clock_base_s, self.engine.now_s + 0.02)
        if self._clock is not None:
            if self._clock_due_s <= due_s:
                return
            self._clock.cancel()
        self._clock_due_s = due_s
        self._clock = self.engine.at(due_s, self._tick)

    def _tick(self) -> None:
        self._clock = None
        told = self.free_bytes, self.hardware.floor_bytes
        if told != self._told and self.engine.now_s - self._space_s >= self.hardware.look_s:
            self.look_at_space()
        self.dispatch(Tick())

    def adopt_by_hand(self, document: FleetDocument) -> None:
        """The document is put into its home while it is off, or told to its daemon."""
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
        self._space_s = self.engine.now_s
        self._told = self.free_bytes, self.hardware.floor_bytes
        self.dispatch(Space(max(0, self.free_bytes), self.hardware.floor_bytes))

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
        if self.disk_fails or size + COMMIT_BYTES > self.free_bytes:
            self.engine.note(f"{self.name}: a write fails")
            problem = StoreTrouble(path=self.name, problem="database or disk is full")
            self.dispatch(WriteFailed(tokens, problem))
            self.look_at_space()
        else:
            self.store.commit(rows, self.now().s)
            for witness in self.witnesses:
                witness.committed(self, rows)
            self.dispatch(Written(tokens))
            if any(isinstance(row, DropBundles) for row in rows):
                self.look_at_space()
        self._write_soon()

    # --- messages -----------------------------------------------------------------------------------------------

    @property
    def next_submission(self) -> int:
        """The number that the next call of `submit` will give."""
        return self._submission + 1

    def submit(
        self,
        stream: bytes | memoryview,
        size_bytes: int,
        priority: int = ROUTINE,
        *,
        lifetime_s: int | None = None,
        pace_s: float = 0.0,
        gives_up_after: int | None = None,
        endpoint: Endpoint | None = None,
    ) -> int:
        """A program hands over a message; its number, under which `accepted` or `refused` will have the answer."""
        self._submission += 1
        opened = SubmissionOpened(
            self._submission, len(stream), size_bytes, priority, b"", lifetime_s, endpoint=endpoint
        )
        self.programs.put(Submission(opened, stream, pace_s, gives_up_after))
        return self._submission

    def _ready(self) -> bool:
        self.look_at_space()
        return self.node is not None

"""The real node over a plan: what is carried where, and what comes to a gateway.

Payloads are stand-ins: a header declares what its payload weighs, the channel takes the time that it would take, and
nothing of it exists. Everything else is the node that officers have. Gateways are nodes of role office and share one
endpoint, so what they hold is for them and counts against no quota; a whole message is signed for at once, as by an
office whose sink is never in trouble, and the receipts travel in later contacts.

A message is delivered when one gateway holds all of it durably. What a gateway records itself is delivered at once.
A contact is open from its first to its last second: finding each other and the handshake are left out, as the plan is
taken to say when two nodes can already talk. The seed draws the keys and epochs of the nodes and nothing else; they
decide ties, such as which of two like journals is named first.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Final

from meshnode.core.errors import LocalError
from meshnode.core.identity import JournalId
from meshnode.core.intervals import Ranges
from meshnode.core.ports import Effect, Event, Taken
from meshnode.core.routing import Worth, gain
from meshnode.core.rows import PutBundle, Row
from meshnode.office.reassembly import whole_messages
from meshnode.sim.channel import Channel
from meshnode.sim.engine import Engine
from meshnode.sim.machine import Hardware, Machine
from meshnode.sim.plan import Plan, PlannedMessage, Stretch
from meshnode.sim.standins import WeightlessSeal
from meshnode.sim.world import Link, World

#: Disks are large enough for everything that a node records itself: the plan asks about space for others' bundles.
_DISK_BYTES: Final = 2**50

#: Longer than a commit takes.
_SETTLE_S: Final = 1.0

#: What happens first of all that happens at one instant.
_END, _RATE, _RECORD, _START = range(4)

_Action = tuple[float, int, Callable[[], None]]


class NothingRecorded(LocalError):
    """No message of the workload is recorded by second {until_s}: give --until-s a later one."""

    exit_code = 2


@dataclass(slots=True)
class Load:
    """Bundles and their payload bytes."""

    bundles: int = 0
    bytes: int = 0

    def add(self, size: int) -> None:
        """One more."""
        self.bundles += 1
        self.bytes += size


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of a message: when it was whole at which gateway, if it was, and how many copies were made of it
    beyond its source's own (a copy of half its bundles is half a copy)."""

    message: PlannedMessage
    delivered_s: float | None
    gateway: str | None
    copies: float


@dataclass(slots=True)
class Carried:
    """A run. `moved`: (source, carrier) and what the carrier took of it, gateways not counted as carriers; `on_board`:
    others' bundles that a node still holds at the end; `broken_off`: contacts that the nodes ended before the plan."""

    plan: Plan
    end_s: float
    fates: list[Fate] = field(default_factory=list)
    moved: dict[tuple[str, str], Load] = field(default_factory=dict)
    on_board: dict[str, Load] = field(default_factory=dict)
    bytes_moved: int = 0
    contacts: int = 0
    broken_off: int = 0


@dataclass(slots=True)
class _Message:
    """What has been seen of a message: copies of its bundles, and which of them each gateway holds."""

    bundles: int = 0
    at_gateways: defaultdict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    delivered_s: float | None = None
    gateway: str | None = None


class _Ledger:
    """Writes down what comes to rest where; a `Witness` of every machine."""

    def __init__(self, run: Carried, engine: Engine) -> None:
        self.messages: defaultdict[tuple[JournalId, int], _Message] = defaultdict(_Message)
        self.names: dict[bytes, str] = {}
        self._run = run
        self._engine = engine
        self._gateways = frozenset(run.plan.gateways)

    def committed(self, machine: Machine, rows: list[Row]) -> None:
        """Bundles have come to rest."""
        for row in rows:
            if isinstance(row, PutBundle) and row.bundle.header.source != machine.device:
                self._landed(machine.name, row)

    def _landed(self, name: str, row: PutBundle) -> None:
        header = row.bundle.header
        message = self.messages[row.journal, header.first]
        message.bundles += 1
        if name not in self._gateways:
            self._run.moved.setdefault((self.names[header.source], name), Load()).add(header.payload_size)
            return
        held = message.at_gateways[name]
        held.add(header.part)
        if len(held) == header.parts and message.delivered_s is None:
            message.delivered_s = self._engine.now_s
            message.gateway = name

    def effect(self, machine: Machine, effect: Effect) -> None:
        """Of no interest."""

    def handled(self, machine: Machine, event: Event) -> None:
        """Of no interest."""

    def booted(self, machine: Machine) -> None:
        """Of no interest."""


class _Run:
    """One run over a plan."""

    def __init__(
        self,
        plan: Plan,
        store_bytes: int,
        until_s: float | None,
        seed: int,
        worth: Worth,
        kinds: Mapping[str, type[Machine]],
    ) -> None:
        self.plan = plan
        self.out = Carried(plan, plan.end_s if until_s is None else until_s)
        self.engine = Engine(seed)
        self.ledger = _Ledger(self.out, self.engine)
        self._in_hand: set[tuple[str, JournalId]] = set()
        seal = WeightlessSeal()
        self.world = World(
            self.engine,
            stand_ins=True,
            worth=worth,
            sealer_for=lambda endpoint: seal,
            on_arrived=self._arrived,
        )
        for name in plan.nodes:
            gateway = name in plan.gateways
            quota = _DISK_BYTES if gateway else store_bytes
            hardware = Hardware(foreign_quota_bytes=quota, disk_bytes=_DISK_BYTES, look_s=math.inf)
            role = "office" if gateway else "officer"
            machine = self.world.add(name, role, hardware, kinds.get(name, Machine))
            machine.witnesses.append(self.ledger)
            self.ledger.names[machine.device] = name
            machine.boot()
        # Without --until-s all messages count, also those that come after the last contact.
        recorded_s = math.inf if until_s is None else until_s
        self.messages = [message for message in plan.messages if message.at_s <= recorded_s]
        self._stream = memoryview(bytes(max((m.size_bytes for m in self.messages), default=0)))
        self._submitted: list[tuple[PlannedMessage, Machine, int]] = []

    @property
    def last_s(self) -> float:
        """When all that counts has happened, and what came last has come to rest."""
        contacts_s = min(self.plan.end_s, self.out.end_s)
        return max([contacts_s, *(message.at_s for message in self.messages)]) + _SETTLE_S

    # --- what the plan says -------------------------------------------------------------------------------------

    def schedule(self, on_contact: Callable[[], None]) -> None:
        """Put the whole plan on the heap; `on_contact` is called as each contact ends."""
        actions: list[_Action] = [(m.at_s, _RECORD, partial(self._record, m)) for m in self.messages]
        for stretch in self.plan.stretches(self.out.end_s):
            self.out.contacts += 1
            actions.extend(self._contact(stretch, on_contact))
        for at_s, _, action in sorted(actions, key=lambda item: item[:2]):
            self.engine.at(at_s, action)

    def _contact(self, stretch: Stretch, on_contact: Callable[[], None]) -> list[_Action]:
        channel: Channel | None = None

        def start() -> None:
            nonlocal channel
            left, right = self.world.machines[stretch.left], self.world.machines[stretch.right]
            link = Link(stretch.rates[0][1], latency_s=0.0)
            channel = self.world.open_contact(left, right, link, addressed=False)

        def change(rate: float) -> None:
            assert channel is not None
            channel.set_rate(rate)

        def end() -> None:
            assert channel is not None
            self.out.broken_off += not channel.open
            channel.cut()
            self.out.bytes_moved += channel.left.sent_bytes + channel.right.sent_bytes
            on_contact()

        changes = [(at_s, _RATE, partial(change, rate)) for at_s, rate in stretch.rates[1:]]
        end_s = min(stretch.end_s, self.out.end_s)
        return [(stretch.start_s, _START, start), *changes, (end_s, _END, end)]

    def _record(self, message: PlannedMessage) -> None:
        machine = self.world.machines[message.source]
        number = machine.submit(self._stream[: message.size_bytes], message.size_bytes)
        self._submitted.append((message, machine, number))

    # --- what gateways do ---------------------------------------------------------------------------------------

    def _arrived(self, machine: Machine, journal: JournalId) -> None:
        if (machine.name, journal) not in self._in_hand:
            self._in_hand.add((machine.name, journal))
            self.engine.after(0.0, lambda: self._hand_on(machine, journal))

    def _hand_on(self, machine: Machine, journal: JournalId) -> None:
        """Sign for what is whole."""
        self._in_hand.discard((machine.name, journal))
        if spans := whole_messages(machine.running.state.ledger.journals[journal]):
            machine.dispatch(Taken(journal, Ranges(spans)))

    # --- the end ------------------------------------------------------------------------------------------------

    def finish(self) -> Carried:
        """What has become of everything."""
        for message, machine, number in self._submitted:
            if problem := machine.refused.get(number):
                raise problem
            self.out.fates.append(self._fate(message, machine, number))
        for machine in self.world.machines.values():
            ledger = machine.running.state.ledger
            self.out.on_board[machine.name] = Load(ledger.foreign_count, ledger.foreign_size)
        return self.out

    def _fate(self, message: PlannedMessage, machine: Machine, number: int) -> Fate:
        accepted = machine.accepted.get(number)
        if machine.name in self.plan.gateways:
            return Fate(message, message.at_s, machine.name, 0.0)
        if accepted is None:  # within the last moment
            return Fate(message, None, None, 0.0)
        journal, _, first = accepted.key.partition(":")
        seen = self.ledger.messages[JournalId(bytes.fromhex(journal)), int(first)]
        return Fate(message, seen.delivered_s, seen.gateway, seen.bundles / accepted.bundles)


def carry(
    plan: Plan,
    *,
    store_bytes: int,
    until_s: float | None = None,
    seed: int = 0,
    worth: Worth = gain,
    kinds: Mapping[str, type[Machine]] = MappingProxyType({}),
    on_contact: Callable[[], None] = lambda: None,
) -> Carried:
    """Run the node over `plan` until `until_s` (the last contact's end).

    `store_bytes` is what each node but the gateways holds of others' bundles at most. `worth` decides what every node
    sends first. `kinds`: nodes that are another kind of machine, as those that lie. `on_contact` is called as each
    contact (`Plan.stretches`) ends. The same arguments give the same result in any process. Raises NothingRecorded.
    """
    run = _Run(plan, store_bytes, until_s, seed, worth, kinds)
    if not run.messages:
        raise NothingRecorded(until_s=until_s)
    run.schedule(on_contact)
    run.engine.run_until(run.last_s)
    return run.finish()

"""One seed, from the first boot to the demand that everything has arrived.

`Run(seed).play()` draws a plan and faults, lets it all happen on virtual time under the eyes of the judges, heals
everything, and demands liveness. The outcome is a function of the seed: same trace, byte for byte, in any process.
"""

from __future__ import annotations

import hashlib
import random
import traceback
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

from meshnode.core.fleet import Endpoint
from meshnode.core.identity import JournalId
from meshnode.core.introducing import device_endpoint, introduction_journal
from meshnode.core.limits import FOREIGN_QUOTA_BYTES, GIB
from meshnode.sim.channel import Channel
from meshnode.sim.engine import Engine, Trace
from meshnode.sim.faults import draw
from meshnode.sim.hostile import Hostile
from meshnode.sim.judges import Bench
from meshnode.sim.liveness import Healed
from meshnode.sim.machine import Machine
from meshnode.sim.office import SimDesk, SimSink
from meshnode.sim.scenario import Meeting, Message, Plan, draw_plan, draw_week
from meshnode.sim.stage import Air, Stage
from meshnode.sim.truth import BrokenPromise, Submitted, Truth
from meshnode.sim.world import World

#: A healed fleet has this long, and is looked at so often.
HEALED_S: Final = 3600.0
LOOK_S: Final = 5.0
#: Then nothing moves any more.
SPREAD_S: Final = 60.0
REST_S: Final = 15.0
#: What a brain that has gone wrong raises; nothing of a peer's making may.
CRASHES: Final = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one seed. `broken`: the first broken promise."""

    seed: int
    digest: str
    virtual_s: float
    steps: int
    devices: int
    faults: tuple[str, ...]
    accepted: int
    delivered: int
    bundles_sent: int
    broken: BrokenPromise | None


class Run:
    """One seed."""

    def __init__(self, seed: int, trace: Trace | None = None, plan: Plan | None = None) -> None:
        self.seed = seed
        self.plan = plan or draw_plan(seed)
        self.engine = Engine(seed, trace)
        self.chance = random.Random(f"faults {seed}")
        self.world = World(self.engine, on_arrived=self._arrived, on_contact=self._contact)
        self.truth = Truth()
        self.bench = Bench(self.truth)
        self.sink = SimSink(self.bench.taken)
        #: By name: those of the office's nodes, and everybody's own.
        self.desks: dict[str, SimDesk] = {}
        self.own_desks: dict[str, SimDesk] = {}
        self.faults: list[str] = []
        self._add_people()
        self.stage = Stage(
            self.engine, self.world, self.truth, self.plan, self.sink, self.desks, self.chance, Air()
        )
        for machine in self.truth.machines.values():
            machine.on_power_lost = self.stage.restart_later

    def _add_people(self) -> None:
        for person in self.plan.people:
            kind = Hostile if person.hostile else Machine
            machine = self.world.add(person.name, person.role, replace(person.hardware), kind)
            if isinstance(machine, Hostile):
                machine.chance = random.Random(f"hostile {self.seed}")
            self.truth.add(machine, hostile=person.hostile)
            machine.witnesses.append(self.bench)
            seal = self.world.fleet.seal
            self.own_desks[person.name] = SimDesk(machine, machine.device, seal, self.sink)
            if person.role == "office":
                self.desks[person.name] = SimDesk(machine, self.world.fleet.endpoint, seal, self.sink)

    def _arrived(self, machine: Machine, journal: JournalId) -> None:
        self.own_desks[machine.name].wake(journal)
        if desk := self.desks.get(machine.name):
            desk.wake(journal)

    def _contact(self, channel: Channel) -> None:
        if not self.stage.calm:
            self.stage.air.touch(channel, self.chance)

    # --- the run ------------------------------------------------------------------------------------------------

    def play(self, *, with_faults: bool = True) -> Outcome:
        """Let it happen."""
        broken: BrokenPromise | None = None
        try:
            self._schedule()
            if with_faults:
                self.faults = draw(self.stage)
                self.engine.note(f"faults: {', '.join(self.faults) or 'none'}")
            self.engine.run_until(self.plan.end_s)
            self._check_opened()
            self._heal()
            self._demand_liveness()
            self._demand_rest()
        except BrokenPromise as problem:
            broken = problem
        except CRASHES as crash:
            where = traceback.extract_tb(crash.__traceback__)[-1]
            broken = BrokenPromise("Crash", f"{where.name}, line {where.lineno}: {crash!r}")
            broken.__cause__ = crash
        if broken is not None:
            self.engine.note(f"BROKEN PROMISE {broken}")
        return self._outcome(broken)

    def _outcome(self, broken: BrokenPromise | None) -> Outcome:
        return Outcome(
            seed=self.seed,
            digest=self.engine.trace.digest,
            virtual_s=self.engine.now_s,
            steps=self.engine.steps,
            devices=len(self.plan.people),
            faults=tuple(self.faults),
            accepted=len(self.truth.by_key),
            delivered=len(self.truth.delivered),
            bundles_sent=self.bench.bundles_sent,
            broken=broken,
        )

    def _schedule(self) -> None:
        for at_s, name, on in self.plan.shifts:
            self._at_shift(at_s, name, on)
        for meeting in self.plan.meetings:
            self._at_meeting(meeting)
        for message in self.plan.messages:
            self._at_message(message)

    def _at_shift(self, at_s: float, name: str, on: bool) -> None:
        switch = self.stage.switch_on if on else self.world.switch_off
        self.engine.at(at_s, lambda: switch(name))

    def _at_meeting(self, meeting: Meeting) -> None:
        pair = meeting.left, meeting.right

        def meet() -> None:
            self.world.meet(*pair, meeting.rate_bytes_per_s, meeting.latency_s)

        self.engine.at(meeting.from_s, meet)
        self.engine.at(meeting.until_s, lambda: self.world.part(*pair, silent=self.chance.random() < 0.5))

    def _at_message(self, message: Message) -> None:
        machine = self.world.machines[message.name]

        def submit() -> None:
            endpoint = None if message.to is None else self._endpoint(machine, message.to)
            if machine.node is None or (message.to is not None and endpoint is None):
                return
            digest = hashlib.sha256(message.stream).digest()
            number = machine.next_submission
            self.truth.submit(Submitted(message.reference, message.name, number, digest, to=message.to))
            what = f"{message.reference}, {len(message.stream)} bytes"
            self.engine.note(f"{message.name} submits {what}, to {message.to or 'the office'}")
            machine.submit(
                message.stream,
                message.size_bytes,
                message.priority,
                lifetime_s=message.lifetime_s,
                pace_s=message.pace_s,
                gives_up_after=message.gives_up_after,
                endpoint=endpoint,
            )

        self.engine.at(message.at_s, submit)

    def _endpoint(self, machine: Machine, to: str) -> Endpoint | None:
        """Where messages to this device go, if `machine` has heard of it."""
        device = self.world.machines[to].device
        certificate = machine.node and machine.running.state.certificates.get(device)
        introduction = machine.store.read(introduction_journal(device), 1)
        if not certificate or introduction is None:
            return None
        return device_endpoint(certificate, introduction.payload)

    # --- the end ------------------------------------------------------------------------------------------------

    def _heal(self) -> None:
        """Everything works from now on, and everybody can reach everybody, if only over others."""
        self.engine.note("HEALED")
        self.stage.calm = True
        self.sink.problem = None
        self.sink.commits_to_fail = 0
        for pair in sorted(self.world.links):
            self.world.part(*pair)
        shapes = ["mesh", "star", "chain"]
        if any(message.lifetime_s for message in self.plan.messages):
            shapes.remove("chain")  # what has expired is carried by nobody: its source has to meet the office
        shape = self.chance.choice(shapes)
        for machine in self.truth.machines.values():
            self._mend(machine, roomy=shape == "chain")
        for desk in self.desks.values():
            desk.kill_after = None
        pairs = _pairs([m.name for m in self.truth.surviving], shape, self.chance)
        strangers = self.truth.revoked - self.truth.lost
        if self.chance.random() < 0.5:
            strangers |= self.truth.hostile
        pairs += [(name, stranger) for stranger in sorted(strangers) for name in _some(pairs, self.chance)]
        for left, right in pairs:
            self.world.meet(left, right, self.chance.choice([50_000.0, 1_000_000.0]))

    def _mend(self, machine: Machine, *, roomy: bool) -> None:
        if machine.name in self.truth.lost:
            return
        machine.effects_left = None
        machine.disk_fails = False
        machine.hardware.disk_bytes = 100 * GIB
        if roomy and machine.hardware.foreign_quota_bytes != FOREIGN_QUOTA_BYTES:
            machine.hardware.foreign_quota_bytes = FOREIGN_QUOTA_BYTES
            self.world.switch_off(machine.name)
        self.truth.squeezed.discard(machine.name)
        self.world.switch_on(machine.name)
        machine.look_at_space()

    def _demand_liveness(self) -> None:
        healed = Healed(self.truth, self.sink)
        until_s = self.engine.now_s + HEALED_S
        while missing := healed.missing():
            if self.engine.now_s >= until_s:
                raise BrokenPromise("Liveness", f"{missing}, {HEALED_S:.0f} s after everything was healed")
            self.engine.run_until(self.engine.now_s + LOOK_S)
        self.engine.note("everything has arrived")

    def _demand_rest(self) -> None:
        """What cannot be delivered has soon spread as far as it goes; then nothing is sent any more, unless somebody
        hostile stirs."""
        self.engine.run_until(self.engine.now_s + SPREAD_S)
        before = self.bench.bundles_sent
        self.engine.run_until(self.engine.now_s + REST_S)
        self._check_opened()
        if self.bench.bundles_sent > before and not self.truth.hostile:
            raise BrokenPromise("Rest", f"{self.bench.bundles_sent - before} bundles were sent for nothing")

    def _check_opened(self) -> None:
        """Nobody has opened a bundle but those to whom it goes."""
        opened = sum(desk.opened for desk in [*self.desks.values(), *self.own_desks.values()])
        if self.world.fleet.seal.opened != opened:
            raise BrokenPromise(
                "Secrecy", f"{self.world.fleet.seal.opened - opened} bundles opened elsewhere"
            )


def _pairs(names: list[str], shape: str, chance: random.Random) -> list[tuple[str, str]]:
    """Who is in range of whom in a healed fleet; the first is an office."""
    if shape == "mesh":
        return [(left, right) for at, left in enumerate(names) for right in names[at + 1 :]]
    if shape == "star":
        return [(names[0], name) for name in names[1:]]
    chance.shuffle(names)
    return list(pairwise(names))


def _some(pairs: list[tuple[str, str]], chance: random.Random) -> list[str]:
    """Two of those that are in range of others."""
    return sorted({name for pair in chance.sample(pairs, min(len(pairs), 2)) for name in pair})


def play(seed: int, trace: Trace | None = None) -> Outcome:
    """The outcome of a seed."""
    return Run(seed, trace).play()


def play_week(seed: int, trace: Trace | None = None) -> Outcome:
    """The outcome of a week of the whole fleet (`draw_week`), with the faults of a seed."""
    return Run(seed, trace, draw_week(seed)).play()

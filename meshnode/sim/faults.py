"""Everything that goes wrong, each a small class that draws when and to whom from the seed.

A seed gets a random subset of the kinds (`draw`), so that rare combinations are tried and simple ones are not hidden
by a crowd of others. What a fault takes away by force it tells the truth, so that no node is blamed for it.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

from meshnode.core.identity import JournalId
from meshnode.core.intervals import Ranges
from meshnode.core.limits import KIB, MIB
from meshnode.drivers.memory import MemoryStore
from meshnode.sim.channel import Channel
from meshnode.sim.engine import Engine
from meshnode.sim.machine import Machine
from meshnode.sim.office import SimDesk, SimSink
from meshnode.sim.scenario import EPOCH_MS, Plan, log_uniform
from meshnode.sim.truth import Truth
from meshnode.sim.world import World


@dataclass(slots=True)
class Air:
    """What the air does to contacts that open."""

    cut_share: float = 0.0
    silent_share: float = 0.0
    one_way_share: float = 0.0

    def touch(self, channel: Channel, chance: random.Random) -> None:
        """A contact has opened."""
        if chance.random() < self.cut_share:
            channel.cut_after_bytes = int(log_uniform(chance, 1, 2_000_000))
            channel.cut_silently = chance.random() < self.silent_share
        if chance.random() < self.one_way_share:
            chance.choice([channel.left, channel.right]).mute = True


@dataclass(slots=True)
class Stage:
    """What faults may touch."""

    engine: Engine
    world: World
    truth: Truth
    plan: Plan
    sink: SimSink
    desks: dict[str, SimDesk]
    chance: random.Random
    air: Air
    #: Nothing goes wrong any more.
    calm: bool = False

    def a_moment(self) -> float:
        """A time at which something is going on, or any other."""
        busy = self.plan.busy_s
        if busy and self.chance.random() < 0.8:
            return self.chance.choice(busy) + log_uniform(self.chance, 0.01, 60)
        return self.chance.uniform(0, self.plan.end_s)

    def a_machine(self) -> Machine:
        """Any device that follows the rules."""
        return self.chance.choice(list(self.truth.honest))

    def restart_later(self, machine: Machine) -> None:
        """Its owner notices that it is off."""
        delay_s = log_uniform(self.chance, 0.5, 7200)
        self.engine.after(delay_s, lambda: self.switch_on(machine.name))

    def switch_on(self, name: str) -> None:
        """Unless it is lost."""
        if name not in self.truth.lost:
            self.world.switch_on(name)


class Fault:
    """Something goes wrong. `share`: in how many of the runs."""

    share = 0.3

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.chance = stage.chance

    def schedule(self) -> None:
        """Draw what will happen."""
        for _ in range(self.count()):
            self._strike_at(self.stage.a_moment(), self.victim())

    def _strike_at(self, at_s: float, machine: Machine) -> None:
        def strike() -> None:
            if not self.stage.calm:
                self.strike(machine)

        self.stage.engine.at(at_s, strike)

    def count(self) -> int:
        """How often."""
        return self.chance.choice([1, 1, 2, 5])

    def victim(self) -> Machine:
        """To whom."""
        return self.stage.a_machine()

    def strike(self, machine: Machine) -> None:
        """It happens."""

    def note(self, text: str) -> None:
        """A line of the trace."""
        self.stage.engine.note(f"FAULT {text}")


class Cuts(Fault):
    """Contacts are cut at any byte, sometimes so that nobody is told."""

    share = 0.5

    def schedule(self) -> None:
        """For all contacts."""
        self.stage.air.cut_share = self.chance.choice([0.1, 0.4, 0.8])
        self.stage.air.silent_share = self.chance.choice([0.0, 0.3, 1.0])


class OneWay(Fault):
    """What one side says is not heard by the other."""

    share = 0.2

    def schedule(self) -> None:
        """For all contacts."""
        self.stage.air.one_way_share = self.chance.choice([0.05, 0.3])


class Duplicates(Fault):
    """A pair that is in contact gets another one, as when both dial, or one has not noticed that the first is dead."""

    share = 0.25

    def count(self) -> int:
        """As often as contacts are."""
        return self.chance.choice([5, 20])

    def strike(self, machine: Machine) -> None:
        """Between any two in range."""
        links = self.stage.world.links
        if links:
            names = self.chance.choice(sorted(links))
            left, right = (self.stage.world.machines[name] for name in self.chance.sample(names, 2))
            if left.node is not None and right.node is not None:
                self.note(f"{left.name} dials {right.name} once more")
                self.stage.world.open_contact(left, right, links[names])


class PowerCuts(Fault):
    """The power goes off before any effect, and comes back."""

    share = 0.5

    def count(self) -> int:
        """Often: there are many effects."""
        return self.chance.choice([1, 3, 8])

    def strike(self, machine: Machine) -> None:
        """Some effects from now, or when nothing more comes."""
        if machine.node is not None:
            machine.effects_left = left = self.chance.choice([0, 1, 2, 3, 5, 9, 20])
            self.note(f"{machine.name} will lose power before {left} more effects")
            self.stage.engine.after(self.chance.uniform(0, 60), lambda: self._pull(machine))

    def _pull(self, machine: Machine) -> None:
        if machine.node is not None and machine.effects_left is not None:
            self.stage.world.switch_off(machine.name, silent=self.chance.random() < 0.5)
            self.stage.restart_later(machine)


class Restores(Fault):
    """A store is replaced by an older copy of itself."""

    share = 0.25

    def count(self) -> int:
        """Seldom."""
        return self.chance.choice([1, 1, 2])

    def strike(self, machine: Machine) -> None:
        """Copy now, come back to it later."""
        copy = machine.store.copy()
        self.note(f"{machine.name} is copied")
        delay_s = log_uniform(self.chance, 10, 2 * 86400)
        if self.stage.engine.now_s + delay_s < self.stage.plan.end_s:
            self.stage.engine.after(delay_s, lambda: self._restore(machine, copy))

    def _restore(self, machine: Machine, copy: MemoryStore) -> None:
        truth = self.stage.truth
        if machine.name in truth.lost or self.stage.calm:
            return
        self.note(f"{machine.name} is restored from the copy")
        self.stage.world.switch_off(machine.name)
        before = {j: r for j, r in truth.shelves[machine.name].held.items() if truth.is_own(machine, j)}
        machine.store = copy.copy()
        truth.forgetful.add(machine.name)
        truth.replace_disk(machine)
        for journal, ranges in before.items():
            gone = ranges - truth.shelves[machine.name].of(journal)
            if gone:
                truth.rob(machine, journal, gone)
        self.stage.restart_later(machine)


class FullDisks(Fault):
    """Another program fills the disk, and lets go of it again."""

    share = 0.25

    def strike(self, machine: Machine) -> None:
        """Next to nothing is left."""
        if machine.name in self.stage.truth.squeezed:
            return
        before = machine.hardware.disk_bytes
        left = self.chance.choice([0, 2 * KIB, 300 * KIB, 2 * MIB])
        machine.hardware.disk_bytes = min(before, machine.store.size_bytes + left)
        self.stage.truth.squeezed.add(machine.name)
        self.stage.truth.forgetful.add(machine.name)
        self.note(f"the disk of {machine.name} is full but for {left} bytes")
        self.stage.engine.after(log_uniform(self.chance, 1, 20_000), lambda: self._free(machine, before))

    def _free(self, machine: Machine, disk_bytes: int) -> None:
        machine.hardware.disk_bytes = disk_bytes
        self.stage.truth.squeezed.discard(machine.name)
        self.note(f"the disk of {machine.name} has room again")


class FailingWrites(Fault):
    """The disk refuses to write, for a moment or for hours."""

    share = 0.25

    def strike(self, machine: Machine) -> None:
        """From now on."""
        machine.disk_fails = True
        self.stage.truth.forgetful.add(machine.name)
        self.note(f"the disk of {machine.name} fails")
        self.stage.engine.after(log_uniform(self.chance, 0.01, 5000), lambda: self._mend(machine))

    def _mend(self, machine: Machine) -> None:
        machine.disk_fails = False
        self.note(f"the disk of {machine.name} works")


class Rot(Fault):
    """A payload rots on a disk."""

    share = 0.25

    def strike(self, machine: Machine) -> None:
        """Any bundle that is there."""
        truth = self.stage.truth
        rotten = {place[1:] for place in truth.rotten if place[0] == machine.name}
        places = sorted(set(truth.shelves[machine.name].puts) - rotten)
        if not places:
            return
        journal, number = self.chance.choice(places)
        machine.store.spoil(journal, number)
        truth.rotten.add((machine.name, journal, number))
        self.note(f"bundle {journal.hex()[:6]}:{number} rots on the disk of {machine.name}")
        if truth.is_own(machine, journal):
            truth.rob(machine, JournalId(journal), Ranges.single(number))


class LostDevice(Fault):
    """A device falls into a river."""

    share = 0.2

    def count(self) -> int:
        """Once."""
        return 1

    def victim(self) -> Machine:
        """An officer's; the office keeps its server."""
        officers = [m for m in self.stage.truth.honest if m.identity.office is None]
        return self.chance.choice(officers)

    def strike(self, machine: Machine) -> None:
        """It never comes back."""
        self.note(f"{machine.name} is lost for good")
        self.stage.truth.lost.add(machine.name)
        self.stage.world.switch_off(machine.name, silent=True)


class Revoked(Fault):
    """A device is revoked; the document that says so is given to one other by hand."""

    share = 0.2

    def count(self) -> int:
        """Once."""
        return 1

    def victim(self) -> Machine:
        """An officer's, the hostile one before all others."""
        officers = [m for m in self.stage.truth.machines.values() if m.identity.office is None]
        hostile = [machine for machine in officers if machine.name in self.stage.truth.hostile]
        return self.chance.choice(hostile or officers)

    def strike(self, machine: Machine) -> None:
        """To anybody but that one."""
        self.stage.truth.revoked.add(machine.name)
        document = self.stage.world.fleet.write_document(frozenset({machine.device}))
        others = [m for m in self.stage.truth.honest if m is not machine]
        first = self.chance.choice(others)
        self.note(f"{machine.name} is revoked, says the document that {first.name} is given")
        first.adopt_by_hand(document)


class OfficeKilled(Fault):
    """The office loses power when the sink has taken a message, and before it has signed for it."""

    share = 0.35

    def victim(self) -> Machine:
        """An office."""
        return self.stage.world.machines[self.chance.choice(sorted(self.stage.desks))]

    def strike(self, machine: Machine) -> None:
        """At the next message."""
        self.stage.desks[machine.name].kill_after = self.chance.choice([1, 1, 2])


class SinkTrouble(Fault):
    """The sink says 'not now' for hours, fails at the last moment, or never wants some message."""

    share = 0.35

    def schedule(self) -> None:
        """Some messages it never takes."""
        references = [message.reference for message in self.stage.plan.messages]
        if references and self.chance.random() < 0.5:
            self.stage.sink.unwanted.update(self.chance.sample(references, min(len(references), 2)))
        super().schedule()

    def strike(self, machine: Machine) -> None:
        """Not now."""
        sink = self.stage.sink
        if self.chance.random() < 0.5:
            sink.commits_to_fail += self.chance.choice([1, 4])
            self.note("the sink fails at the last moment")
            return
        sink.problem = "the database is down"
        self.note("the sink takes nothing")
        self.stage.engine.after(log_uniform(self.chance, 1, 20_000), self._recover)

    def _recover(self) -> None:
        self.stage.sink.problem = None
        self.note("the sink takes messages again")


class Clocks(Fault):
    """Wall clocks that are at 1970 or 2100, drift, or jump."""

    share = 0.4

    def schedule(self) -> None:
        """From the start, on some devices."""
        for machine in self.stage.truth.machines.values():
            if self.chance.random() < 0.6:
                kind = self.chance.choice(["1970", "2100", "drifts", "jumps"])
                self.note(f"the clock of {machine.name}: {kind}")
                machine.hardware.wall = self._wall(kind)

    def _wall(self, kind: str) -> _Wall:
        year_ms = 365 * 86_400_000
        if kind == "1970":
            return _Wall(-20 * 3_600_000, 1.0, ())
        if kind == "2100":
            return _Wall(130 * year_ms, 1.0, ())
        if kind == "drifts":
            return _Wall(EPOCH_MS, self.chance.choice([0.9, 0.999, 1.001, 1.2]), ())
        jumps = [
            (self.chance.uniform(0, self.stage.plan.end_s), self.chance.randint(-60 * year_ms, year_ms))
            for _ in range(5)
        ]
        return _Wall(EPOCH_MS, 1.0, tuple(jumps))


@dataclass(frozen=True, slots=True)
class _Wall:
    """What a wall clock shows: `start_ms` at the start, its rate, and (when, by how much) it jumps."""

    start_ms: int
    rate: float
    jumps: tuple[tuple[float, int], ...]

    def __call__(self, true_s: float) -> int:
        jumped_ms = sum(by_ms for at_s, by_ms in self.jumps if at_s <= true_s)
        return self.start_ms + int(true_s * 1000 * self.rate) + jumped_ms


FAULTS: Final[tuple[type[Fault], ...]] = (
    Cuts,
    OneWay,
    Duplicates,
    PowerCuts,
    Restores,
    FullDisks,
    FailingWrites,
    Rot,
    LostDevice,
    Revoked,
    OfficeKilled,
    SinkTrouble,
    Clocks,
)


def draw(stage: Stage) -> list[str]:
    """Let a random subset of all faults happen; their names."""
    if stage.chance.random() < 0.05:
        return []
    chosen = [kind for kind in FAULTS if stage.chance.random() < kind.share]
    for kind in chosen:
        kind(stage).schedule()
    return [kind.__name__ for kind in chosen]

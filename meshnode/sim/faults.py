"""Everything that goes wrong, each a small class that draws when and to whom from the seed.

A seed gets a random subset of the kinds (`draw`), so that rare combinations are tried and simple ones are not hidden
by a crowd of others. What a fault takes away by force it tells the truth, so that no node is blamed for it. What goes
wrong with disks is in `disks`; a hostile member is no fault but one of the people (`hostile`, `scenario`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from meshnode.core.message import parts_for
from meshnode.sim.disks import FailingWrites, FullDisks, Restores, Rot
from meshnode.sim.machine import Machine
from meshnode.sim.scenario import EPOCH_MS, log_uniform
from meshnode.sim.stage import Fault, Stage


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


class TornSubmissions(Fault):
    """The power goes off while a message is being written."""

    share = 0.3

    def schedule(self) -> None:
        """Somewhere within a message of several bundles, if there is one."""
        for message in self.stage.plan.messages:
            machine = self.stage.world.machines[message.name]
            parts = parts_for(len(message.stream))
            if parts > 1 and self.chance.random() < 0.5:
                takes_s = parts * (message.pace_s + machine.hardware.commit_s)
                self._strike_at(message.at_s + self.chance.uniform(0, takes_s), machine)

    def strike(self, machine: Machine) -> None:
        """Now."""
        if machine.node is not None and machine.name not in self.stage.truth.hostile:
            self.note(f"{machine.name} loses power as it writes")
            self.stage.world.switch_off(machine.name)
            self.stage.restart_later(machine)


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
    TornSubmissions,
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

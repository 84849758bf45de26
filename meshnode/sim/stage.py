"""What faults may touch, and what they have in common: when they strike, whom, and how often."""

from __future__ import annotations

import random
from dataclasses import dataclass

from meshnode.sim.channel import Channel
from meshnode.sim.engine import Engine
from meshnode.sim.machine import Machine
from meshnode.sim.office import SimDesk, SimSink
from meshnode.sim.scenario import Plan, log_uniform
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

"""What goes wrong with disks: they are full, fail, rot, and are replaced by an older copy of themselves."""

from __future__ import annotations

from meshnode.core.identity import JournalId
from meshnode.core.intervals import Ranges
from meshnode.core.limits import KIB, MIB
from meshnode.drivers.memory import MemoryStore
from meshnode.sim.machine import Machine
from meshnode.sim.scenario import log_uniform
from meshnode.sim.stage import Fault


class Restores(Fault):
    """A store is replaced by an older copy of itself."""

    share = 0.25

    def schedule(self) -> None:
        """Once or twice: any device at any time, or so that a message falls between the copy and its return."""
        for _ in range(self.chance.choice([1, 1, 2])):
            machine = self.victim()
            submits_s = [m.at_s for m in self.stage.plan.messages if m.name == machine.name]
            if submits_s and self.chance.random() < 0.7:
                at_s = self.chance.choice(submits_s)
                copy_s = at_s - log_uniform(self.chance, 1, 3600)
                restore_s = at_s + log_uniform(self.chance, 1, 3600)
            else:
                copy_s = self.stage.a_moment()
                restore_s = copy_s + log_uniform(self.chance, 10, 2 * 86400)
            if restore_s < self.stage.plan.end_s:
                self._copy_at(copy_s, restore_s, machine)

    def _copy_at(self, copy_s: float, restore_s: float, machine: Machine) -> None:
        def copy() -> None:
            self.note(f"{machine.name} is copied")
            store = machine.store.copy()
            self.stage.engine.at(restore_s, lambda: self._restore(machine, store))

        self.stage.engine.at(copy_s, copy)

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

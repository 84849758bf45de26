"""How members treat each other: nobody honest is accused, and nobody revoked is served."""

from __future__ import annotations

from meshnode.core.ports import Effect, Log, SendBundle
from meshnode.sim.judges.judge import Judge
from meshnode.sim.machine import Machine


class Manners(Judge):
    """No honest node breaks the protocol, whatever it met before."""

    def effect(self, machine: Machine, effect: Effect) -> None:
        """Nobody honest is accused."""
        if isinstance(effect, Log):
            accused, said, _ = effect.text.partition(" broke the protocol: ")
            if said and accused not in self.truth.hostile:
                raise self.broken(f"{machine.name} says: {effect.text}")


class Membership(Judge):
    """Nothing is given to a device that its carrier knows to be revoked."""

    def effect(self, machine: Machine, effect: Effect) -> None:
        """From the moment on when it knows."""
        if isinstance(effect, SendBundle) and effect.contact in machine.ends:
            receiver = machine.ends[effect.contact].across.party
            assert isinstance(receiver, Machine)
            if receiver.device in machine.running.state.document.revoked:
                raise self.broken(f"{machine.name} sends a bundle to {receiver.name}, which is revoked")

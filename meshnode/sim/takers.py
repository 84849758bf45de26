"""A member that takes what others give it and hands nothing on: a carrier that is never heard of again.

Its node runs as all others do and keeps every promise of the protocol but one, so nobody can tell: what it holds it
names truthfully, and so each of its copies stands in for one elsewhere. What it records itself it sends like anybody.
A `Boaster` also says that it stands beside an office, so all would rather give to it than to those who carry.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from meshnode.core.frames import Hello, encode
from meshnode.core.framing import FrameReader
from meshnode.core.ports import Effect, Send, SendBundle, Sent
from meshnode.sim.machine import Machine

#: Until its node believes that a bundle was sent.
_PRETENDS_S: Final = 0.1


class Taker(Machine):
    """It hands on no bundle of others."""

    def _do(self, effect: Effect) -> None:
        if isinstance(effect, SendBundle) and not self._is_own(effect):
            sent = Sent(effect.contact, effect.size)
            self.engine.after(_PRETENDS_S, lambda: self.dispatch(sent))
            return
        super()._do(effect)

    def _is_own(self, effect: SendBundle) -> bool:
        return self.running.state.ledger.journals[effect.journal].source == self.device


class Boaster(Taker):
    """It hands nothing on, and says that it is no time away from an office."""

    def _do(self, effect: Effect) -> None:
        if isinstance(effect, Send):
            (frame,) = FrameReader().feed(effect.data)
            if isinstance(frame, Hello):
                effect = Send(effect.contact, encode(replace(frame, away_s=0)))
        super()._do(effect)

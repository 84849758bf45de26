"""Machines that come near each other: who is in range of whom, at what rate, and what dialling then leads to.

Two machines in range sight each other and dial as on a real network, so collisions, collapsed contacts and backoff
happen here too. Each contact is a `Channel`; when two go out of range all channels between them are cut.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from meshnode.core.dialing import SIGHTED
from meshnode.core.identity import JournalId
from meshnode.core.ports import DialFailed, Opened, Sighted
from meshnode.core.routing import Worth, gain
from meshnode.core.submitting import SealerFor
from meshnode.sim.channel import Channel
from meshnode.sim.engine import Engine
from meshnode.sim.machine import Hardware, Machine
from meshnode.sim.standins import SimFleet

#: TCP and TLS on a local network, and until a dial to nobody is given up.
HANDSHAKE_S = 0.05
NO_ANSWER_S = 3.0


@dataclass(slots=True)
class Link:
    """Two machines in range: what their channels are like, and which there are."""

    rate_bytes_per_s: float
    latency_s: float
    channels: list[Channel] = field(default_factory=list)


class World:
    """All machines of a run."""

    def __init__(
        self,
        engine: Engine,
        *,
        stand_ins: bool = False,
        worth: Worth = gain,
        sealer_for: SealerFor | None = None,
        on_arrived: Callable[[Machine, JournalId], None] = lambda machine, journal: None,
        on_contact: Callable[[Channel], None] = lambda channel: None,
    ) -> None:
        self.engine = engine
        self.fleet = SimFleet(engine.random)
        self.machines: dict[str, Machine] = {}
        self.links: dict[tuple[str, str], Link] = {}
        self._stand_ins = stand_ins
        self._worth = worth
        self._sealer_for = sealer_for or (lambda _: self.fleet.seal)
        self._on_arrived = on_arrived
        self._on_contact = on_contact

    def add(
        self,
        name: str,
        role: str = "officer",
        hardware: Hardware | None = None,
        kind: type[Machine] = Machine,
    ) -> Machine:
        """A new device, switched off."""
        machine = kind(
            self.engine,
            self.fleet.enroll(name, role),
            self._sealer_for,
            hardware=hardware,
            on_dial=self._dial,
            on_arrived=self._on_arrived,
            stand_ins=self._stand_ins,
            worth=self._worth,
        )
        self.machines[name] = machine
        return machine

    # --- who is in range ----------------------------------------------------------------------------------------

    @staticmethod
    def _pair(left: str, right: str) -> tuple[str, str]:
        return (left, right) if left < right else (right, left)

    def meet(self, left: str, right: str, rate_bytes_per_s: float, latency_s: float = 0.005) -> Link:
        """Two devices come into range, and see each other."""
        link = self.links[self._pair(left, right)] = Link(rate_bytes_per_s, latency_s)
        self.engine.note(f"{left} meets {right} at {rate_bytes_per_s:.0f} B/s")
        self.sight(left, right)
        self.sight(right, left)
        return link

    def sight(self, left: str, right: str) -> None:
        """`left` hears the announcement of `right`, if both are on."""
        seen = self.machines[right]
        if seen.node is not None:
            self.machines[left].dispatch(Sighted(f"{right}:1", seen.device, SIGHTED))

    def part(self, left: str, right: str, *, silent: bool = False) -> None:
        """They go out of range."""
        link = self.links.pop(self._pair(left, right), None)
        if link is not None:
            self.engine.note(f"{left} and {right} part")
            for channel in list(link.channels):
                channel.cut(silent=silent)

    def open_contact(self, left: Machine, right: Machine, link: Link, *, addressed: bool = True) -> Channel:
        """A contact stands: `left` has dialled. Not `addressed`: there is nothing that could be dialled again."""
        numbers = left.new_contact(), right.new_contact()
        channel = Channel(
            self.engine,
            (left, numbers[0]),
            (right, numbers[1]),
            rate_bytes_per_s=link.rate_bytes_per_s,
            latency_s=link.latency_s,
            stand_ins=self._stand_ins,
            on_end=lambda: self._ended(link, channel),
        )
        link.channels.append(channel)
        self._on_contact(channel)
        left.ends[numbers[0]] = channel.left
        right.ends[numbers[1]] = channel.right
        addresses = (f"{right.name}:1", f"{left.name}:0") if addressed else ("", "")
        left.dispatch(Opened(numbers[0], right.identity.certificate, True, addresses[0]))
        right.dispatch(Opened(numbers[1], left.identity.certificate, False, addresses[1]))
        return channel

    def _ended(self, link: Link, channel: Channel) -> None:
        if channel in link.channels:
            link.channels.remove(channel)
        for end in (channel.left, channel.right):
            machine = end.party
            assert isinstance(machine, Machine)
            machine.ends.pop(end.contact, None)

    def _dial(self, machine: Machine, address: str) -> None:
        name = address.rpartition(":")[0]
        self.engine.after(HANDSHAKE_S, lambda: self._answer(machine, name, address))

    def _answer(self, machine: Machine, name: str, address: str) -> None:
        link = self.links.get(self._pair(machine.name, name))
        other = self.machines.get(name)
        if machine.node is None:
            return
        if link is None or other is None or other.node is None:
            wait_s = NO_ANSWER_S - HANDSHAKE_S
            self.engine.after(wait_s, lambda: machine.dispatch(DialFailed(address, "no answer")))
        else:
            self.open_contact(machine, other, link)

    # --- on and off ---------------------------------------------------------------------------------------------

    def switch_on(self, name: str) -> None:
        """Boot it, if it is off; whoever is in range hears it, and it hears them."""
        machine = self.machines[name]
        if machine.node is not None:
            return
        self.engine.note(f"{name} is switched on")
        machine.boot()
        for pair in sorted(self.links):
            if name in pair:
                self.sight(*pair)
                self.sight(*pair[::-1])

    def switch_off(self, name: str, *, silent: bool = False) -> None:
        """A power cut: its contacts break for the others, who notice at once or, if nothing tells them, later."""
        machine = self.machines[name]
        if machine.node is not None:
            self.engine.note(f"{name} is off")
            machine.power_cut(silent=silent)

"""A crowd on one Wi-Fi: all in range of all at once, as on the day when everybody is called to the office's yard.

What a crowd costs is counted where it is sent: frames by their kind, bundles by the contact that they go into.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable
from itertools import combinations

import pytest

from meshnode.core.identity import JournalId
from meshnode.core.introducing import introduction_journal
from meshnode.core.limits import DIALLED_MAX
from meshnode.core.ports import Effect, Event, Opened, Send, SendBundle
from meshnode.core.rows import Row
from meshnode.sim.engine import Engine
from meshnode.sim.machine import Machine
from meshnode.sim.office import SimDesk, SimSink
from meshnode.sim.scenario import make_message
from meshnode.sim.world import World

#: Another number, as a hundred, which take more than a minute of CPU: MESHNODE_CROWD=100.
NODES = int(os.environ.get("MESHNODE_CROWD", "30"))
SOURCES = min(10, NODES - 1)
MESSAGES = 5
RATE_BYTES_PER_S = 1e6
#: For all to know each other, and for all to be delivered; and until then nothing moves any more.
WITHIN_S = 5.0
CALM_S = 10.0
STEP_S = 0.25
#: The second byte of a frame's body.
KINDS = dict(
    enumerate(
        [
            "HELLO",
            "FLEET",
            "HAVE",
            "RECEIPT",
            "CERT",
            "WANT",
            "BUNDLE",
            "STORED",
            "PING",
            "PONG",
            "BYE",
            "FINISHED",
            "HEARD",
            "NEXT",
        ],
        start=1,
    )
)


class Counts:
    """What all machines send, and how many contacts open."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Begin again."""
        self.frames: Counter[str] = Counter()
        self.bytes = 0
        self.bundles = 0
        self.opened = 0

    def __str__(self) -> str:
        frames = ", ".join(f"{count} {kind}" for kind, count in sorted(self.frames.items()))
        return f"{self.bytes} bytes, {self.bundles} BUNDLE, {frames}, {self.opened / 2} contacts opened"

    def effect(self, machine: Machine, effect: Effect) -> None:
        match effect:
            case Send(_, data):
                self.frames[KINDS[data[5]]] += 1
                self.bytes += len(data)
            case SendBundle():
                self.bundles += 1
                self.bytes += effect.size
            case _:
                pass

    def committed(self, machine: Machine, rows: list[Row]) -> None:
        pass

    def handled(self, machine: Machine, event: Event) -> None:
        self.opened += isinstance(event, Opened)

    def booted(self, machine: Machine) -> None:
        pass


class Crowd:
    """So many devices, the first of them the office, all in one place."""

    def __init__(self, nodes: int, seed: int = 1) -> None:
        self.engine = Engine(seed)
        self.world = World(self.engine, on_arrived=self._arrived)
        self.counts = Counts()
        self.sink = SimSink()
        self.names = ["office", *(f"officer-{number}" for number in range(1, nodes))]
        for name in self.names:
            machine = self.world.add(name, "office" if name == "office" else "officer")
            machine.witnesses.append(self.counts)
        self._desk = SimDesk(
            self.world.machines["office"], self.world.fleet.endpoint, self.world.fleet.seal, self.sink
        )

    def _arrived(self, machine: Machine, journal: JournalId) -> None:
        if machine.name == "office":
            self._desk.wake(journal)

    def gather(self) -> None:
        """All are switched on, and hear each other."""
        for name in self.names:
            self.world.switch_on(name)
        pairs = list(combinations(self.names, 2))
        self.engine.random.shuffle(pairs)
        for left, right in pairs:
            self.world.meet(left, right, RATE_BYTES_PER_S)

    def until(self, what: str, done: Callable[[], bool], within_s: float) -> float:
        """Let it go on until `done()`; how long that took."""
        began_s = self.engine.now_s
        while not done():
            assert self.engine.now_s < began_s + within_s, f"not within {within_s} s: {what}"
            self.engine.run_until(self.engine.now_s + STEP_S)
        return self.engine.now_s - began_s

    def contacts(self) -> list[int]:
        """How many each has."""
        return [len(machine.running.state.contacts) for machine in self.world.machines.values()]

    def is_introduced(self) -> bool:
        """Whether each has everybody's introduction."""
        machines = self.world.machines.values()
        wanted = [introduction_journal(machine.device) for machine in machines]
        return all(
            journal in (known := machine.running.state.ledger.journals) and known[journal].held
            for machine in machines
            for journal in wanted
        )

    def journals(self) -> dict[JournalId, int]:
        """Those of the officers' messages, and their last numbers."""
        found: dict[JournalId, int] = {}
        for machine in self.world.machines.values():
            for message in machine.running.state.custody.messages:
                found[message.journal] = max(message.last, found.get(message.journal, 0))
        return found

    def is_all_receipted(self) -> bool:
        """Whether each knows that all is delivered."""
        journals = self.journals()
        for machine in self.world.machines.values():
            known = machine.running.state.ledger.journals
            for journal, last in journals.items():
                if journal not in known or not known[journal].receipted.covers(1, last):
                    return False
        return True

    def accepted(self) -> int:
        """How many messages were taken."""
        return sum(len(machine.accepted) for machine in self.world.machines.values())

    def submit(self) -> None:
        """Some record some messages each, all at once."""
        for name in self.names[1 : 1 + SOURCES]:
            for number in range(MESSAGES):
                message = make_message(0, name, f"{name}/{number}", [bytes(2000)])
                self.world.machines[name].submit(message.stream, message.size_bytes)


@pytest.mark.slow
def test_a_crowd_on_one_wifi(record_property: Callable[[str, object], None]) -> None:
    began_s = time.process_time()
    crowd = Crowd(NODES)
    counts = crowd.counts

    crowd.gather()
    met_s = crowd.until("all are introduced to all", crowd.is_introduced, WITHIN_S)
    crowd.engine.run_until(CALM_S)
    contacts = crowd.contacts()
    assert min(contacts) >= min(DIALLED_MAX, NODES - 1)
    assert counts.opened == sum(contacts), "none was opened in vain"
    assert counts.opened / 2 <= NODES * (DIALLED_MAX + 3)
    assert counts.bundles == NODES * (NODES - 1), "each introduction came to each once"
    record_property("met", f"{met_s} s, {min(contacts)} to {max(contacts)} contacts each, {counts}")

    counts.clear()
    crowd.engine.run_until(2 * CALM_S)
    assert counts.frames.keys() <= {"PING", "PONG"}
    assert counts.opened == 0

    counts.clear()
    crowd.submit()
    crowd.until("all is taken", lambda: crowd.accepted() == SOURCES * MESSAGES, WITHIN_S)
    delivered_s = crowd.until("all is delivered, and everybody knows", crowd.is_all_receipted, WITHIN_S)
    assert len(crowd.sink.taken) == SOURCES * MESSAGES
    assert counts.bundles <= 1.05 * SOURCES * MESSAGES * (NODES - 1), "each bundle came to each about once"
    frames = counts.frames.total() / counts.bundles
    record_property("delivered", f"{delivered_s} s, {frames:.1f} frames for each bundle sent, {counts}")
    assert frames <= 2 * max(contacts)
    record_property("CPU", f"{time.process_time() - began_s:.1f} s")

"""All judges of a run together, as its witness. It calls nobody in vain, and keeps the `Truth` up to date first."""

from __future__ import annotations

from typing import Final

from meshnode.core.framing import FrameReader
from meshnode.core.message import Manifest, parts_for, stream_head
from meshnode.core.ports import Effect, Event, Send, SendBundle
from meshnode.core.rows import Row
from meshnode.office.sinks import Envelope
from meshnode.sim.judges.bounds import Bounds, Room, Thrift
from meshnode.sim.judges.carriers import Ages, Claims, Originals
from meshnode.sim.judges.custody import Answers, Custody
from meshnode.sim.judges.judge import Judge, split_key
from meshnode.sim.judges.membership import Manners, Membership
from meshnode.sim.judges.office import Receipts, Sink
from meshnode.sim.machine import Machine
from meshnode.sim.truth import Truth

#: Kinds of frames that claim something (`core.frames`); any frame has its kind in its sixth byte.
_CLAIMS: Final = frozenset((3, 4, 8))

JUDGES: Final = (
    Custody,
    Answers,
    Sink,
    Receipts,
    Claims,
    Room,
    Bounds,
    Manners,
    Membership,
    Originals,
    Ages,
    Thrift,
)


class Bench:
    """All judges of a run: a witness of every machine, and of the sink."""

    def __init__(self, truth: Truth) -> None:
        self.truth = truth
        #: Bundles that honest machines have sent.
        self.bundles_sent = 0
        self.judges = [make(truth) for make in JUDGES]
        self._effect = self._who("effect")
        self._said = self._who("said")
        self._committed = self._who("committed")
        self._handled = self._who("handled")
        self._booted = self._who("booted")

    def _who(self, what: str) -> list[Judge]:
        return [judge for judge in self.judges if getattr(type(judge), what) is not getattr(Judge, what)]

    def effect(self, machine: Machine, effect: Effect) -> None:
        """As `Witness`."""
        if machine.name in self.truth.hostile:
            return
        for judge in self._effect:
            judge.effect(machine, effect)
        if isinstance(effect, SendBundle):
            self.bundles_sent += 1
        if isinstance(effect, Send) and effect.data[5] in _CLAIMS:
            for frame in FrameReader().feed(effect.data):
                for judge in self._said:
                    judge.said(machine, frame)

    def committed(self, machine: Machine, rows: list[Row]) -> None:
        """As `Witness`."""
        self.truth.commit(machine, rows)
        if machine.name not in self.truth.hostile:
            for judge in self._committed:
                judge.committed(machine, rows)

    def handled(self, machine: Machine, event: Event) -> None:
        """As `Witness`."""
        if machine.name not in self.truth.hostile:
            for judge in self._handled:
                judge.handled(machine, event)

    def booted(self, machine: Machine) -> None:
        """As `Witness`."""
        if machine.name not in self.truth.hostile:
            for judge in self._booted:
                judge.booted(machine)

    def taken(self, envelope: Envelope, manifest: Manifest, files: list[bytes]) -> None:
        """The sink takes a message."""
        journal, first = split_key(envelope.key)
        parts = parts_for(len(stream_head(manifest)) + manifest.files_size)
        self.truth.take(envelope, journal, (first, first + parts - 1), manifest.reference)
        for judge in self.judges:
            judge.taken(envelope, manifest, files)

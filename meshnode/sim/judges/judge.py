"""What a judge is: it stands outside the nodes, sees every effect and every commit, and knows what really happened.

A judge overrides what it needs of `Judge`, and raises at the moment when its promise would be broken.
"""

from __future__ import annotations

from meshnode.core.frames import Frame
from meshnode.core.identity import JournalId
from meshnode.core.message import Manifest
from meshnode.core.ports import Effect, Event
from meshnode.core.rows import Row
from meshnode.office.sinks import Envelope
from meshnode.sim.machine import Machine
from meshnode.sim.truth import BrokenPromise, Truth


class Judge:
    """Holds the fleet to one promise. Raises BrokenPromise."""

    def __init__(self, truth: Truth) -> None:
        self.truth = truth

    def effect(self, machine: Machine, effect: Effect) -> None:
        """An honest machine is about to do this."""

    def said(self, machine: Machine, frame: Frame) -> None:
        """An honest machine says this HAVE, STORED or RECEIPT."""

    def committed(self, machine: Machine, rows: list[Row]) -> None:
        """An honest machine has these on its disk now."""

    def handled(self, machine: Machine, event: Event) -> None:
        """An honest machine has handled this."""

    def booted(self, machine: Machine) -> None:
        """An honest machine is on."""

    def taken(self, envelope: Envelope, manifest: Manifest, files: list[bytes]) -> None:
        """The sink has taken this, as the truth has it already."""

    def broken(self, text: str) -> BrokenPromise:
        """What to raise."""
        return BrokenPromise(type(self).__name__, text)


def split_key(key: str) -> tuple[JournalId, int]:
    """Journal and first number of a message's key."""
    journal, _, first = key.partition(":")
    return JournalId(bytes.fromhex(journal)), int(first)


def name_of(journal: bytes) -> str:
    """A journal, as far as people can remember it."""
    return f"journal {journal.hex()[:6]}"

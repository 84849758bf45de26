"""A contact as physics sees it: a channel of some bytes a second between two machines, until it is cut.

One half-duplex channel: the two ends share its rate and take turns, a unit at a time. A unit is a run of frames, which
go first, or one bundle, which is read from the store when its turn comes, as the real link does. A cut delivers the
bytes that were through by then, wherever that is in a frame, and both ends lose the contact; a silent cut tells
nobody, and the nodes have to notice.

A bundle may be a stand-in: it weighs what its header declares and is delivered without its payload, so gigabytes cost
nothing.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable
from typing import Protocol

from meshnode.core.bundle import read_bundle
from meshnode.core.errors import RemoteError
from meshnode.core.frames import encode_bundle
from meshnode.core.identity import JournalId
from meshnode.core.ports import Lost, Received, SendBundle, Sent, StoredBundle, Unreadable
from meshnode.sim.engine import Engine, Timer

Read = Callable[[JournalId, int], StoredBundle | None]


class Party(Protocol):
    """A machine, as a channel sees it."""

    def dispatch(self, event: Received | Sent | Unreadable | Lost) -> None:
        """Tell its node."""

    def read(self, journal: JournalId, number: int) -> StoredBundle | None:
        """Read its store."""


class End:
    """One end of a channel: what its machine wants sent over it."""

    def __init__(self, channel: Channel, party: Party, contact: int) -> None:
        self.party = party
        self.contact = contact
        #: Nothing that this end sends arrives (a one-way link).
        self.mute = False
        self.sent_bytes = 0
        self._channel = channel
        self._frames: deque[bytes] = deque()
        self._bundles: deque[SendBundle] = deque()
        self._closing: str | None = None

    def send(self, data: bytes) -> None:
        """Send a frame, before any bundle that waits."""
        self._frames.append(data)
        self._channel.wake()

    def send_bundle(self, effect: SendBundle) -> None:
        """Send a bundle, after those that wait."""
        self._bundles.append(effect)
        self._channel.wake()

    def close(self, reason: str) -> None:
        """End the contact once the frames that wait are through."""
        self._closing = self._closing or reason
        self._bundles.clear()
        self._channel.wake()

    def next_unit(self) -> _Unit | None:
        """What this end sends next."""
        if self._frames:
            data = b"".join(self._frames)
            self._frames.clear()
            return _Unit(self, data, len(data), None)
        while self._bundles and self._closing is None:
            effect = self._bundles.popleft()
            if unit := self._load(effect):
                return unit
        return None

    @property
    def closing(self) -> str | None:
        """Why this end is over, if it is and has nothing left to say."""
        return self._closing if not self._frames else None

    def _load(self, effect: SendBundle) -> _Unit | None:
        stored = self.party.read(effect.journal, effect.number)
        rotten = False
        declared = 0
        if stored is not None:
            try:
                header = read_bundle(stored.header, stored.signature, stored.payload).header
                if stored.payload or not self._channel.stand_ins:
                    rotten = hashlib.sha256(stored.payload).digest() != header.payload_sha256
                else:
                    declared = header.payload_size
            except RemoteError:
                rotten = True
        if stored is None or rotten:
            unreadable = Unreadable(effect.contact, effect.journal, effect.number, effect.size, rotten)
            self._channel.engine.after(0.0, lambda: self._channel.tell(self, unreadable))
            return None
        data = encode_bundle(effect.age_s, stored.header, stored.signature, stored.payload)
        return _Unit(self, data, len(data) + declared, effect)


class _Unit:
    """What travels at once: bytes, what they weigh, and the bundle if it is one."""

    __slots__ = ("bundle", "data", "end", "weight")

    def __init__(self, end: End, data: bytes, weight: int, bundle: SendBundle | None) -> None:
        self.end = end
        self.data = data
        self.weight = weight
        self.bundle = bundle


class Channel:
    """One contact between two machines."""

    def __init__(
        self,
        engine: Engine,
        left: tuple[Party, int],
        right: tuple[Party, int],
        *,
        rate_bytes_per_s: float,
        latency_s: float = 0.0,
        stand_ins: bool = False,
        on_end: Callable[[], None] = lambda: None,
    ) -> None:
        self.engine = engine
        self.stand_ins = stand_ins
        self.left = End(self, *left)
        self.right = End(self, *right)
        self.open = True
        self._rate = rate_bytes_per_s
        self._latency_s = latency_s
        self._on_end = on_end
        self._turn = self.left
        self._travelling: tuple[_Unit, float, Timer] | None = None
        self._awake = False

    def other(self, end: End) -> End:
        """The end across."""
        return self.right if end is self.left else self.left

    def wake(self) -> None:
        """There may be something to send."""
        if not self._awake and self._travelling is None and self.open:
            self._awake = True
            self.engine.after(0.0, self._begin)

    def _begin(self) -> None:
        self._awake = False
        if not self.open or self._travelling is not None:
            return
        for end in (self._turn, self.other(self._turn)):
            unit = end.next_unit()
            if unit is not None:
                self._turn = self.other(end)
                done = self.engine.after(unit.weight / self._rate, self._through)
                self._travelling = (unit, self.engine.now_s, done)
                return
        for end in (self.left, self.right):
            if end.closing is not None:
                self._finish(end.closing)
                return

    def _through(self) -> None:
        assert self._travelling is not None
        unit, _, _ = self._travelling
        self._travelling = None
        unit.end.sent_bytes += unit.weight
        self.engine.after(self._latency_s, lambda: self._arrive(unit.end, unit.data))
        if unit.bundle is not None:
            self.tell(unit.end, Sent(unit.end.contact, unit.bundle.size))
        self.wake()

    def _arrive(self, sender: End, data: bytes) -> None:
        receiver = self.other(sender)
        if data and not sender.mute:
            self.tell(receiver, Received(receiver.contact, data))

    def tell(self, end: End, event: Received | Sent | Unreadable | Lost) -> None:
        """Tell the machine at `end`, unless the contact is over."""
        if self.open:
            end.party.dispatch(event)

    def cut(self, reason: str = "out of range", *, silent: bool = False) -> None:
        """The contact ends now, with whatever is on the air partly through. `silent`: nobody is told."""
        if not self.open:
            return
        if self._travelling is not None:
            unit, began_s, done = self._travelling
            self._travelling = None
            done.cancel()
            through = int((self.engine.now_s - began_s) * self._rate)
            unit.end.sent_bytes += min(through, unit.weight)
            self._arrive(unit.end, unit.data[: min(through, len(unit.data) - 1)])
        if silent:
            self.left.mute = self.right.mute = True
        else:
            self._finish(reason)

    def _finish(self, reason: str) -> None:
        if not self.open:
            return
        if self._travelling is not None:
            self._travelling[2].cancel()
            self._travelling = None
        for end in (self.left, self.right):
            self.tell(end, Lost(end.contact, reason))
        self.open = False
        self._on_end()

"""A contact as physics sees it: a channel of some bytes a second between two machines, until it is cut.

One half-duplex channel: the two ends share its rate and take turns, a unit at a time. A unit is a run of frames, which
go first, or one bundle, which is read from the store when its turn comes, as the real link does. What takes long goes
in slices, and between two of them the frames of the other end have their turn, as a radio shares by the packet. A cut
delivers the bytes that were through by then, wherever that is in a frame, and both ends lose the contact; a silent cut
tells nobody, and the nodes have to notice.

A bundle may be a stand-in: it weighs what its header declares and is delivered without its payload, so gigabytes cost
nothing.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from meshnode.core.bundle import read_bundle
from meshnode.core.errors import RemoteError
from meshnode.core.frames import encode_bundle
from meshnode.core.identity import JournalId
from meshnode.core.ports import Lost, Received, SendBundle, Sent, Unreadable
from meshnode.core.rows import StoredBundle
from meshnode.sim.engine import Engine, Timer

Read = Callable[[JournalId, int], StoredBundle | None]

#: What one end sends without a break at most. A node takes silence for loss after some seconds.
SLICE_S: Final = 4.0


class Party(Protocol):
    """A machine, as a channel sees it."""

    def dispatch(self, event: Received | Sent | Unreadable | Lost) -> None:
        """Tell its node."""

    def read(self, journal: JournalId, number: int) -> StoredBundle | None:
        """Read its store."""


class End:
    """One end of a channel: what its machine wants sent over it."""

    def __init__(self, channel: Channel, party: Party, contact: int) -> None:
        self.channel = channel
        self.party = party
        self.contact = contact
        #: Nothing that this end sends arrives (a one-way link).
        self.mute = False
        #: Its machine has left the contact, or has no power any more.
        self.gone = False
        self.sent_bytes = 0
        self._frames: deque[bytes] = deque()
        self._bundles: deque[SendBundle] = deque()
        self._closing: str | None = None
        #: What is partly through, and goes on when this end has its turn again.
        self._begun: Unit | None = None

    @property
    def is_halfway(self) -> bool:
        """Whether a unit of this end is partly through."""
        return self._begun is not None

    @property
    def waiting_bytes(self) -> int:
        """Frames that wait to be sent."""
        return sum(map(len, self._frames))

    @property
    def across(self) -> End:
        """The other end."""
        return self.channel.other(self)

    def send(self, data: bytes) -> None:
        """Send a frame, before any bundle that waits."""
        self._frames.append(data)
        self.channel.wake()

    def send_bundle(self, effect: SendBundle) -> None:
        """Send a bundle, after those that wait."""
        self._bundles.append(effect)
        self.channel.wake()

    def close(self, reason: str) -> None:
        """End the contact once the frames that wait are through."""
        self._closing = self._closing or reason
        self._bundles.clear()
        self.channel.wake()

    def leave(self) -> None:
        """Say and hear no more."""
        self.gone = True
        self._begun = None
        self._frames.clear()
        self._bundles.clear()

    def put_back(self, unit: Unit) -> None:
        """A slice of it is through."""
        self._begun = unit

    def next_unit(self, *, frames_only: bool = False) -> Unit | None:
        """What this end sends next."""
        if (begun := self._begun) is not None:
            self._begun = None
            return begun
        if self._frames:
            data = b"".join(self._frames)
            self._frames.clear()
            return Unit(self, data, len(data), None)
        while self._bundles and self._closing is None and not frames_only:
            effect = self._bundles.popleft()
            if unit := self._load(effect):
                return unit
        return None

    @property
    def closing(self) -> str | None:
        """Why this end is over, if it is and has nothing left to say."""
        return self._closing if not (self._frames or self._begun or self.gone) else None

    def _load(self, effect: SendBundle) -> Unit | None:
        stored = self.party.read(effect.journal, effect.number)
        rotten = False
        declared = 0
        if stored is not None and not stored.payload and self.channel.stand_ins:
            declared = effect.size
        elif stored is not None:
            try:
                header = read_bundle(stored.header, stored.signature, stored.payload).header
                rotten = hashlib.sha256(stored.payload).digest() != header.payload_sha256
            except RemoteError:
                rotten = True
        if stored is None or rotten:
            unreadable = Unreadable(effect.contact, effect.journal, effect.number, effect.size, rotten)
            self.channel.engine.after(0.0, lambda: self.channel.tell(self, unreadable))
            return None
        data = encode_bundle(effect.age_s, stored.header, stored.signature, stored.payload)
        return Unit(self, data, len(data) + declared, effect)


class Unit:
    """What travels in one piece: bytes, what they weigh, and the bundle if it is one. `sent`: how much of the weight is
    through."""

    __slots__ = ("_told", "bundle", "data", "end", "sent", "weight")

    def __init__(self, end: End, data: bytes, weight: int, bundle: SendBundle | None) -> None:
        self.end = end
        self.data = data
        self.weight = weight
        self.bundle = bundle
        self.sent = 0
        self._told = 0

    def piece(self) -> bytes:
        """The bytes that have come through since this was last asked."""
        upto = len(self.data) * self.sent // self.weight
        piece, self._told = self.data[self._told : upto], upto
        return piece


class Channel:
    """One contact between two machines. `on_end` is called once, when both ends are out of it."""

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
        #: Cut within the unit that would take the channel beyond so many bytes, just there.
        self.cut_after_bytes: int | None = None
        self.cut_silently = False
        self._severed = False
        self._rate = rate_bytes_per_s
        self._latency_s = latency_s
        self._on_end = on_end
        self._turn = self.left
        self._through_bytes = 0
        #: A unit, how much of it in this slice, since when, and until when.
        self._travelling: tuple[Unit, int, float, Timer] | None = None
        self._flying: deque[tuple[End, bytes]] = deque()
        self._awake = False

    def other(self, end: End) -> End:
        """The end across."""
        return self.right if end is self.left else self.left

    # --- sending ------------------------------------------------------------------------------------------------

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
            if unit := end.next_unit(frames_only=end.across.is_halfway):
                self._turn = self.other(end)
                self._travel(unit)
                return
        for end in (self.left, self.right):
            if end.closing is not None:
                self._close(end, end.closing)

    def _travel(self, unit: Unit) -> None:
        size = min(unit.weight - unit.sent, max(1, int(self._rate * SLICE_S)))
        left_bytes, action = size, self._through
        if self.cut_after_bytes is not None and self._through_bytes + size > self.cut_after_bytes:
            left_bytes, action = self.cut_after_bytes - self._through_bytes, self._break
        timer = self.engine.after(left_bytes / self._rate, action)
        self._travelling = (unit, size, self.engine.now_s, timer)

    def _count(self, unit: Unit, size: int) -> None:
        unit.sent += size
        unit.end.sent_bytes += size
        self._through_bytes += size

    def set_rate(self, rate_bytes_per_s: float) -> None:
        """From now on it is so fast, also for what is on the air."""
        unit = self._stop()
        self._rate = rate_bytes_per_s
        if unit is not None:
            self._travel(unit)

    def _break(self) -> None:
        self.cut_after_bytes = None
        self.cut(silent=self.cut_silently)

    def _through(self) -> None:
        assert self._travelling is not None
        unit, size, _, _ = self._travelling
        self._travelling = None
        self._count(unit, size)
        self._flying.append((unit.end, unit.piece()))
        self.engine.after(self._latency_s, self._land)
        if unit.sent < unit.weight:
            unit.end.put_back(unit)
        elif unit.bundle is not None:
            self.tell(unit.end, Sent(unit.end.contact, unit.bundle.size))
        self.wake()

    def _land(self) -> None:
        if self._flying:
            self._arrive(*self._flying.popleft())

    def _arrive(self, sender: End, data: bytes) -> None:
        receiver = sender.across
        if data and not sender.mute:
            self.tell(receiver, Received(receiver.contact, data))

    def tell(self, end: End, event: Received | Sent | Unreadable | Lost) -> None:
        """Tell the machine at `end`, unless it is out of the contact."""
        if self.open and not end.gone:
            end.party.dispatch(event)

    # --- ending -------------------------------------------------------------------------------------------------

    def cut(self, reason: str = "out of range", *, silent: bool = False) -> None:
        """The contact ends now, with whatever is on the air partly through. `silent`: nobody is told."""
        if not self.open:
            return
        flying, self._flying = self._flying, deque()
        for sender, data in flying:
            self._arrive(sender, data)
        self._stop_halfway()
        if silent:
            self._severed = True
            self.left.mute = self.right.mute = True
            self.wake()
        else:
            self._finish(reason)

    def lose(self, end: End, *, silent: bool) -> None:
        """The machine at `end` has no power any more. Not `silent`: the other one is told by its radio."""
        end.leave()
        if silent and not end.across.gone:
            self.cut(silent=True)
        else:
            self.cut("the connection broke")

    def _stop_halfway(self) -> None:
        if unit := self._stop():
            unit.sent = min(unit.sent, unit.weight - 1)
            self._arrive(unit.end, unit.piece())

    def _stop(self) -> Unit | None:
        """Take off the air what is on it; what of it is through counts."""
        if self._travelling is None:
            return None
        unit, size, began_s, done = self._travelling
        self._travelling = None
        done.cancel()
        self._count(unit, min(int((self.engine.now_s - began_s) * self._rate + 0.5), size))
        return unit

    def _close(self, end: End, reason: str) -> None:
        """An end has said its last word."""
        if not self._severed:
            self._finish(reason)
            return
        end.leave()
        end.party.dispatch(Lost(end.contact, reason))
        if end.across.gone:
            self._finish(reason)

    def _finish(self, reason: str) -> None:
        if not self.open:
            return
        self.open = False
        if self._travelling is not None:
            self._travelling[3].cancel()
            self._travelling = None
        for end in (self.left, self.right):
            if not end.gone:
                end.leave()
                end.party.dispatch(Lost(end.contact, reason))
        self._on_end()

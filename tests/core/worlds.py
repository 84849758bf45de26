"""A world of nodes for tests, that dial each other by name on one clock.

Contacts are pipes that deliver as many bytes as a test allows and break when it wants; what a node claims can be
watched, and the office takes what arrives.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from meshnode.core.bundle import read_bundle
from meshnode.core.frames import Have, ReceiptFrame, Stored, encode_bundle
from meshnode.core.framing import FrameReader
from meshnode.core.identity import JournalId
from meshnode.core.intervals import NONE, Ranges
from meshnode.core.limits import GIB
from meshnode.core.ports import (
    Accepted,
    DialFailed,
    Effect,
    Lost,
    Opened,
    Received,
    Send,
    SendBundle,
    Sent,
    Taken,
    Tick,
    Unreadable,
)
from meshnode.drivers.memory import MemoryStore
from tests.core.fleets import Fleet, StandIn
from tests.core.hosts import PORT, Clock, Host


@dataclass
class End:
    """One end of a pipe: what a host sends into it. Frames overtake bundles, which are read when they are sent."""

    host: Host
    number: int
    address: str
    frames: deque[bytes] = field(default_factory=deque)
    bundles: deque[SendBundle] = field(default_factory=deque)
    wire: bytearray = field(default_factory=bytearray)
    ready: bool = True
    closing: bool = False
    gone: bool = False

    def send(self, data: bytes) -> None:
        """As `Line`."""
        self.frames.append(data)

    def send_bundle(self, effect: SendBundle) -> None:
        """As `Line`."""
        self.bundles.append(effect)

    def close(self, _: str) -> None:
        """As `Line`."""
        self.bundles.clear()
        self.closing = True

    def draw(self, size: int) -> bytes:
        """The next bytes to travel, at most `size`."""
        while len(self.wire) < size and (self.frames or self.bundles):
            if self.frames:
                self.wire += self.frames.popleft()
            else:
                self._send_bundle(self.bundles.popleft())
        data = bytes(self.wire[:size])
        del self.wire[:size]
        return data

    def _send_bundle(self, effect: SendBundle) -> None:
        stored = self.host.store.read(effect.journal, effect.number)
        rotten = False
        if stored is not None:
            bundle = read_bundle(stored.header, stored.signature, stored.payload)
            rotten = hashlib.sha256(bundle.payload).digest() != bundle.header.payload_sha256
        if stored is None or rotten:
            self.host.handle(Unreadable(effect.contact, effect.journal, effect.number, effect.size, rotten))
            return
        self.wire += encode_bundle(effect.age_s, stored.header, stored.signature, stored.payload)
        self.host.handle(Sent(effect.contact, effect.size))


class Pipe:
    """A connection: two ends, either of which may end it; whatever breaks it loses what is on its way."""

    def __init__(self, near: End, far: End) -> None:
        self.ends = (near, far)
        self.silent = False
        self.carried_bytes = 0

    @property
    def over(self) -> bool:
        """Whether both sides know that it has ended."""
        return all(end.gone or (end.closing and self.silent) for end in self.ends)

    def deliver(self, side: int, size: int) -> int:
        """Let at most `size` bytes of that side arrive at the other. How many did."""
        end, other = self.ends[side], self.ends[1 - side]
        if self.silent or not other.ready or (end.gone and not end.closing):
            return 0
        data = end.draw(size)
        self.carried_bytes += len(data)
        if data and not other.gone and not other.closing:
            other.host.handle(Received(other.number, data))
        if end.closing and not (end.wire or end.frames):
            self.cut()
        return len(data)

    def cut(self) -> None:
        """Break it; each host that still has it is told."""
        for end in self.ends:
            if not end.gone:
                end.gone = True
                if end.host.lines.pop(end.number, None) is not None:
                    end.host.handle(Lost(end.number, "broken"))


class World:
    """Hosts that can dial each other by name, on one clock."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.clock = Clock()
        self.hosts: dict[str, Host] = {}
        self.pipes: list[Pipe] = []
        self.links: set[frozenset[str]] = set()
        self.steps = 0
        self.watch: Callable[[Host, Effect], None] | None = None
        self._numbers = 0

    def add(
        self,
        name: str,
        role: str = "officer",
        *,
        quota_bytes: int = GIB,
        free_bytes: int = GIB,
        store: MemoryStore | None = None,
        introduces: bool = False,
    ) -> Host:
        """A new device."""
        host = _Watched(self, name, role, quota_bytes, free_bytes, store, introduces=introduces)
        self.hosts[name] = host
        return host

    def link(self, one: str, other: str) -> None:
        """From now on these two can reach each other."""
        self.links.add(frozenset((one, other)))

    def unlink(self, one: str, other: str) -> None:
        """They no longer can; a contact that they have is cut."""
        self.links.discard(frozenset((one, other)))
        for pipe in self.pipes:
            if {end.host.name for end in pipe.ends} == {one, other}:
                pipe.cut()

    def answer_dials(self) -> int:
        """Open or refuse what was dialled. How many."""
        count = 0
        for host in self.hosts.values():
            dials, host.dials = host.dials, []
            for address in dials:
                count += 1
                other = self.hosts.get(address.rpartition(":")[0])
                if other is None or (other is not host and {host.name, other.name} not in self.links):
                    host.handle(DialFailed(address, "no route"))
                else:
                    self.open(host, other, address)
        return count

    def open(self, dialler: Host, other: Host, address: str | None = None) -> Pipe:
        """A connection that `dialler` made."""
        self._numbers += 2
        near = End(dialler, self._numbers, address or f"{other.name}:{PORT}")
        far = End(other, self._numbers + 1, f"{dialler.name}:{50_000 + self._numbers}")
        pipe = Pipe(near, far)
        self.pipes.append(pipe)
        for end, peer, dialled in ((near, other, True), (far, dialler, False)):
            end.host.lines[end.number] = end
            end.host.handle(Opened(end.number, peer.identity.certificate, dialled, end.address))
        return pipe

    def restart(self, name: str) -> None:
        """A device crashes and comes back; its peers see their contacts break."""
        host = self.hosts[name]
        for pipe in self.pipes:
            for end in pipe.ends:
                if end.host is host:
                    end.gone = True
        host.restart()
        for pipe in self.pipes:
            if any(end.host is host for end in pipe.ends):
                pipe.cut()

    def step(self) -> bool:
        """Carry out everything that is under way, once. Whether anything was."""
        moved = self.answer_dials()
        for pipe in list(self.pipes):
            for side in (0, 1):
                moved += pipe.deliver(side, 1 << 20)
        self.pipes = [pipe for pipe in self.pipes if not pipe.over]
        for host in self.hosts.values():
            if host.pending:
                moved += 1
                host.commit()
        self.steps += 1
        return moved > 0

    def run(self, steps_max: int = 1000) -> None:
        """Carry out everything until nothing is under way; no time passes."""
        for _ in range(steps_max):
            if not self.step():
                return
        raise AssertionError(f"not quiet after {steps_max} steps")

    def pass_time(self, seconds: float, *, run: bool = True) -> None:
        """Turn the clock by whole seconds, and carry out what comes of each."""
        for _ in range(int(seconds)):
            self.clock.s += 1.0
            for host in self.hosts.values():
                host.handle(Tick())
            if run:
                self.run()
        for host in self.hosts.values():
            host.handle(host.space)
        if run:
            self.run()


class _Watched(Host):
    """A host of a world: what it does is shown to the world's watch first."""

    def __init__(
        self,
        world: World,
        name: str,
        role: str,
        quota_bytes: int,
        free_bytes: int,
        store: MemoryStore | None,
        *,
        introduces: bool,
    ) -> None:
        self._world = world
        super().__init__(
            world.fleet,
            name,
            role,
            clock=world.clock,
            quota_bytes=quota_bytes,
            free_bytes=free_bytes,
            store=store,
            introduces=introduces,
        )

    def _carry_out(self, effect: Effect) -> None:
        if self._world.watch is not None:
            self._world.watch(self, effect)
        super()._carry_out(effect)


def check_durable(host: Host, effect: Effect) -> None:
    """A watch: whatever a node claims to hold, to have signed or to have taken is in its store already."""
    if isinstance(effect, Accepted):
        journal = JournalId(bytes.fromhex(effect.key.partition(":")[0]))
        first = int(effect.key.partition(":")[2])
        message = next(m for m in host.store.load().messages if (m.journal, m.first) == (journal, first))
        assert host.stored(journal).covers(first, message.last)
        assert message.last - first + 1 == effect.bundles
    if not isinstance(effect, Send):
        return
    (frame,) = FrameReader().feed(effect.data)
    claimed: list[tuple[JournalId, Ranges]] = []
    match frame:
        case Stored():
            claimed = [(journal, ranges) for journal, ranges, _ in frame.journals]
        case Have():
            claimed = [(held.journal, held.ranges) for held in frame.journals]
        case ReceiptFrame():
            assert frame.body in {receipt.body for receipt, _ in host.store.load().receipts}
    for journal, ranges in claimed:
        assert ranges <= host.stored(journal), "claims to hold what is not in its store"


class Office:
    """What the office does with what arrives: takes whole messages, once each, and says so."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.taken: dict[str, bytes] = {}

    def look(self) -> int:
        """Take every message that is whole and not signed for. How many were new."""
        new = 0
        for journal in list(self.host.node.state.ledger.journals.values()):
            if journal.destination != self.host.fleet.endpoint:
                continue
            ready = NONE
            for number in journal.on_offer:
                entry = journal.entries[number]
                last = number + entry.parts - 1
                if entry.first == number and journal.held.covers(number, last):
                    ready |= Ranges.span(number, last)
                    new += self._take(journal.id, number, last)
            if ready:
                self.host.handle(Taken(journal.id, ready))
        return new

    def _take(self, journal: JournalId, first: int, last: int) -> int:
        key = f"{journal.hex()}:{first}"
        if key in self.taken:
            return 0
        data = b""
        for number in range(first, last + 1):
            stored = self.host.store.read(journal, number)
            assert stored is not None
            bundle = read_bundle(stored.header, stored.signature, stored.payload)
            bundle.check_payload()
            data += StandIn().open(bundle.payload, bundle.header.info)
        self.taken[key] = data
        return 1

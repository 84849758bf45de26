"""Where simulated daemons live, and who is in range of whom.

`Places` is the switchboard. Each daemon has a `Place`, its whole outside (`meshnode.app.outside.Outside`): dialling
`name:7766` gives a pipe if the other is in range and listens. Who the peer is, the switchboard says; there is no TLS,
and no thread. All times are those of the running trio clock; chance comes from the seed and the place's name.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, TypeVar

import trio

from meshnode.core.identity import Certificate
from meshnode.core.limits import GIB, HANDSHAKE_S
from meshnode.drivers.network import LocalNetwork
from meshnode.drivers.tls import NoContact
from meshnode.sim.pinned import call_here
from meshnode.sim.pipes import Nature, Pipe, pipe_pair

T = TypeVar("T")

PORT: Final = 7766
#: Callers that were connected and not yet accepted.
BACKLOG: Final = 16
#: 2026-01-01 UTC.
WALL_START_MS: Final = 1_767_225_600_000


class Listener(trio.abc.Listener[Pipe]):
    """Where one daemon is called. When it is closed, callers are refused."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._callers, self._next = trio.open_memory_channel[Pipe](BACKLOG)

    def take(self, pipe: Pipe) -> None:
        """Connect a caller. Raises NoContact if nobody listens any more."""
        try:
            self._callers.send_nowait(pipe)
        except (trio.WouldBlock, trio.BrokenResourceError):
            raise NoContact(problem="connection refused") from None

    async def accept(self) -> Pipe:
        """As `trio.abc.Listener`."""
        try:
            return await self._next.receive()
        except trio.EndOfChannel:
            raise trio.ClosedResourceError from None

    async def aclose(self) -> None:
        """As `trio.abc.AsyncResource`."""
        if self._place.listener is self:
            self._place.listener = None
        self._next.close()
        self._callers.close()
        await trio.lowlevel.checkpoint()


class Place:
    """The outside of one daemon, as `Outside` describes it. Make it with `Places.settle`.

    What may be changed while the daemon runs: `free_bytes`, for a disk that fills; `wall_offset_ms`, for a wrong clock;
    `slept_s`, for a device that was suspended.
    """

    def __init__(self, places: Places, name: str, certificate: Certificate, seed: int) -> None:
        self.name = name
        self.certificate = certificate
        self.total_bytes = 64 * GIB
        self.free_bytes = 32 * GIB
        self.wall_offset_ms = 0
        self.slept_s = 0.0
        self.listener: Listener | None = None
        self._places = places
        self._random = random.Random(f"{seed} {name}")
        self._on_change: Callable[[], None] | None = None
        self._port = 50_000

    def listen(self) -> Listener:
        """Be there for callers, until it is closed; one at a time."""
        assert self.listener is None
        self.listener = Listener(self)
        return self.listener

    def run_sync(self, sync_fn: Callable[[], T], /) -> Awaitable[T]:
        """As `Outside.run_sync`: in place."""
        return call_here(sync_fn)

    def caller(self, stream: trio.abc.Stream) -> tuple[str, int] | None:
        """As `Outside.caller`."""
        return _pipe(stream).far

    async def accept(self, stream: trio.abc.Stream) -> tuple[trio.abc.Stream, Certificate]:
        """As `Outside.accept`."""
        await trio.lowlevel.checkpoint()
        return stream, self._places.at(_pipe(stream).far[0]).certificate

    async def dial(self, host: str, port: int) -> tuple[trio.abc.Stream, Certificate]:
        """As `Outside.dial`: a call out of range goes unanswered, unless the other comes into range meanwhile."""
        self._port += 1
        return await self._places.connect(self, (self.name, self._port), (host, port))

    def local_host(self, stream: trio.abc.Stream) -> str | None:
        """As `Outside.local_host`: places have names only."""
        return None

    async def watch(
        self, on_change: Callable[[], None], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """As `Outside.watch`: `notice` is a change."""
        self._on_change = on_change
        task_status.started()
        try:
            await trio.sleep_forever()
        finally:
            self._on_change = None

    def notice(self) -> None:
        """The network of this place has changed."""
        if self._on_change is not None:
            self._on_change()

    def own_hosts(self) -> list[str]:
        """As `Outside.own_hosts`."""
        return []

    def local_networks(self) -> list[LocalNetwork]:
        """As `Outside.local_networks`: places have names only."""
        return []

    def gateways(self) -> list[str]:
        """As `Outside.gateways`."""
        return []

    def asleep_s(self) -> float:
        """As `Outside.asleep_s`."""
        return self.slept_s

    def disk(self, path: Path) -> tuple[int, int]:
        """As `Outside.disk`."""
        return self.total_bytes, self.free_bytes

    def wall_ms(self) -> int:
        """As `Outside.wall_ms`."""
        return WALL_START_MS + self.wall_offset_ms + int(trio.current_time() * 1000)

    def entropy(self, size: int) -> bytes:
        """As `Outside.entropy`: from the seed."""
        return self._random.randbytes(size)


class Places:
    """All places, who is in range of whom, and the pipes between them. At first nobody is in range of anybody."""

    def __init__(self, seed: int = 0, nature: Nature | None = None) -> None:
        self._seed = seed
        self._nature = nature or Nature()
        self._places: dict[str, Place] = {}
        self._natures: dict[frozenset[str], Nature] = {}
        self._pipes: dict[frozenset[str], list[Pipe]] = {}
        self._changed = trio.Event()

    def settle(self, name: str, certificate: Certificate) -> Place:
        """A new place, for the device of this certificate. Its address is `name:7766`."""
        assert name not in self._places
        self._places[name] = Place(self, name, certificate, self._seed)
        return self._places[name]

    def at(self, name: str) -> Place:
        """The place of this name."""
        return self._places[name]

    def meet(self, one: str, other: str, nature: Nature | None = None) -> None:
        """They come into range, and see that their network has changed."""
        self._natures[frozenset((one, other))] = nature or self._nature
        self._changed.set()
        self._changed = trio.Event()
        self._notice(one, other)

    def part(self, one: str, other: str) -> None:
        """They go out of range and notice it: their pipes break, with all that is on its way."""
        self._natures.pop(frozenset((one, other)), None)
        for pipe in self.pipes(one, other):
            pipe.cut()
        self._notice(one, other)

    def fade(self, one: str, other: str) -> None:
        """They go out of range, and nothing tells them: their pipes fall silent."""
        self._natures.pop(frozenset((one, other)), None)
        for pipe in self.pipes(one, other):
            pipe.fall_silent()

    def _notice(self, *names: str) -> None:
        for name in names:
            self._places[name].notice()

    def pipes(self, one: str, other: str) -> list[Pipe]:
        """The open pipes between two, as the ends of `one`, oldest first."""
        pair = frozenset((one, other))
        self._pipes[pair] = [pipe for pipe in self._pipes.get(pair, ()) if not pipe.is_over]
        return [pipe for pipe in self._pipes[pair] if pipe.near[0] == one]

    async def connect(
        self, place: Place, near: tuple[str, int], far: tuple[str, int]
    ) -> tuple[trio.abc.Stream, Certificate]:
        """A pipe from `place` to where it dials. Raises NoContact."""
        pair = frozenset((near[0], far[0]))
        with trio.move_on_after(HANDSHAKE_S):
            while pair not in self._natures:
                await self._changed.wait()
            nature = self._natures[pair]
            await trio.sleep(2 * nature.latency_s)
            listener = self._places[far[0]].listener if far[1] == PORT else None
            if listener is None or pair not in self._natures:
                raise NoContact(problem="connection refused")
            here, there = pipe_pair(nature, near, far)
            listener.take(there)
            self.pipes(*sorted(pair))  # forgets those that are over
            self._pipes[pair] += [here, there]
            return here, self._places[far[0]].certificate
        raise NoContact(problem="no answer")


def _pipe(stream: trio.abc.Stream) -> Pipe:
    assert isinstance(stream, Pipe)
    return stream

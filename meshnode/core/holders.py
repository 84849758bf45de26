"""Who else holds what: the copies of a bundle that this node knows of, by journal and device, as number ranges.

Two kinds of knowledge, kept apart. *Seen*: a device said of itself, in a contact with this node, that it holds them.
*Heard*: another device says so of it (HEARD); two carriers of the same bundles that never meet each other learn in this
way, through whom they both meet, not to carry the same half. What was heard only ever changes the order of sending;
what is discarded follows from what was seen, so nobody can talk a node into giving something up.

Not complete, and it need not be: of each journal the HOLDERS_MAX devices nearest to an office are remembered, fewer
where there are very many journals, since the delay of a bundle follows from its nearest copies. So the cost is bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Final

from meshnode.core.identity import DeviceId, JournalId
from meshnode.core.intervals import NONE, Ranges

#: Devices remembered of each journal at most and at least, seen and heard of each; and all such rows, of both. A row
#: with a dozen gaps takes a kilobyte.
HOLDERS_MAX: Final = 32
HOLDERS_MIN: Final = 3
ROWS_MAX: Final = 32 * 1024
#: More copies than this are all alike.
COPIES_MAX: Final = 8
#: Holders of a bundle that are passed on: more hardly change a delay.
NEAREST_MAX: Final = 2

_Known = dict[JournalId, dict[DeviceId, Ranges]]


class Holders:
    """Copies elsewhere. `away_s` tells how far a device is from an office."""

    def __init__(self, away_s: Callable[[DeviceId], float]) -> None:
        self._away_s = away_s
        self._seen: _Known = {}
        self._heard: _Known = {}
        #: What the journal's own end has said to hold: it has arrived, even if it is not signed for yet.
        self._arrived: dict[JournalId, Ranges] = {}
        self._layers: dict[JournalId, tuple[Ranges, ...]] = {}

    # --- what is said -------------------------------------------------------------------------------------------

    def see(self, journal: JournalId, device: DeviceId, ranges: Ranges, *, ends: bool = False) -> None:
        """A device says that it holds just these of a journal. `ends`: it is where they go to."""
        self._note(self._seen, journal, device, ranges)
        self._layers.pop(journal, None)
        if ends:
            self._arrived[journal] = ranges
        self._note(self._heard, journal, device, NONE)

    def hear(self, journal: JournalId, device: DeviceId, ranges: Ranges) -> None:
        """Somebody says it of a device that has not said anything of this journal itself."""
        if device not in self._seen.get(journal, ()):
            self._note(self._heard, journal, device, ranges)

    def _note(self, known: _Known, journal: JournalId, device: DeviceId, ranges: Ranges) -> None:
        if not ranges:
            devices = known.get(journal)
            if devices is not None:
                devices.pop(device, None)
                if not devices:
                    del known[journal]
            return
        devices = known.setdefault(journal, {})
        devices[device] = ranges
        while len(devices) > max(HOLDERS_MIN, min(HOLDERS_MAX, ROWS_MAX // (2 * len(known)))):
            del devices[max(devices, key=lambda each: (self._away_s(each), each))]

    def see_whole(self, device: DeviceId, journals: Collection[JournalId]) -> None:
        """A device holds bundles of just these journals."""
        for journal, devices in list(self._seen.items()):
            if device in devices and journal not in journals:
                self.see(journal, device, NONE)
        for journal, devices in list(self._heard.items()):
            if device in devices and journal not in journals:
                self._note(self._heard, journal, device, NONE)

    def keep(self, journals: Collection[JournalId]) -> None:
        """Forget all but these journals."""
        for known in (self._seen, self._heard, self._arrived, self._layers):
            for journal in [journal for journal in known if journal not in journals]:
                del known[journal]

    # --- what is known ------------------------------------------------------------------------------------------

    def of(self, journal: JournalId) -> Iterator[tuple[DeviceId, Ranges]]:
        """All devices that are known to hold some of a journal, and what."""
        if (seen := self._seen.get(journal)) is not None:
            yield from seen.items()
        if (heard := self._heard.get(journal)) is not None:
            yield from heard.items()

    def nearest(self, journal: JournalId, of: Ranges, within_s: float) -> Iterator[tuple[DeviceId, Ranges]]:
        """Of each bundle in `of` the NEAREST_MAX holders nearest to an office, if they are nearer than `within_s`."""
        #: What still has no holder, what has one at most, and so on.
        lacking = [of] * NEAREST_MAX
        known = dict(self.of(journal))
        for away_s, device in sorted((self._away_s(device), device) for device in known):
            if away_s >= within_s:
                return
            rest = known[device]
            if found := rest & lacking[-1]:
                yield device, found
            for depth, ranges in enumerate(lacking):
                lacking[depth], rest = ranges - rest, rest - ranges

    def arrived(self, journal: JournalId) -> Ranges:
        """What of a journal its end has said to hold."""
        return self._arrived.get(journal, NONE)

    def layers(self, journal: JournalId) -> tuple[Ranges, ...]:
        """What of a journal at least one other device was seen to hold, what at least two, and so on to COPIES_MAX."""
        layers = self._layers.get(journal)
        if layers is None:
            layers = self._layers[journal] = _layered(self._seen.get(journal, {}).values())
        return layers

    def __len__(self) -> int:
        return sum(len(devices) for known in (self._seen, self._heard) for devices in known.values())


def _layered(many: Collection[Ranges]) -> tuple[Ranges, ...]:
    layers: list[Ranges] = []
    for ranges in many:
        rest = ranges
        for depth, layer in enumerate(layers):
            layers[depth], rest = layer | rest, layer & rest
        if rest and len(layers) < COPIES_MAX:
            layers.append(rest)
    return tuple(layers)

"""Which network interfaces may lead to the office, and how many bytes a day the metered ones may cost.

The day is a sliding one, by the node's own clock, which nobody can set back: what was spent counts for 24 hours, and
then no more. It is kept in slots of `SLOT_S`; a slot leaves the window as a whole, when its end is a day old, so that
never more than the limit falls into any 24 hours.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final

from meshnode.core.uplink import Failure

DAY_S: Final = 24 * 3600.0
SLOT_S: Final = 600.0


class Budget:
    """At most `limit_bytes` in any 24 hours; None: as many as one likes. 0: none ever."""

    def __init__(self, limit_bytes: int | None, spent: Iterable[tuple[int, int]] = ()) -> None:
        self._limit_bytes = limit_bytes
        self._slots: dict[int, int] = {}
        for slot, size_bytes in spent:
            self._slots[slot] = self._slots.get(slot, 0) + size_bytes

    def add(self, size_bytes: int, now_s: float) -> None:
        """So many bytes were spent just now."""
        slot = int(now_s // SLOT_S)
        self._slots[slot] = self._slots.get(slot, 0) + size_bytes

    def spent(self, now_s: float) -> int:
        """Bytes spent within the last day."""
        current = int(now_s // SLOT_S)
        for slot in [slot for slot in self._slots if (slot + 1) * SLOT_S <= now_s - DAY_S]:
            del self._slots[slot]
        # A crash may have taken the clock back a little: what was spent 'later' was spent now.
        for slot in [slot for slot in self._slots if slot > current]:
            self._slots[current] = self._slots.get(current, 0) + self._slots.pop(slot)
        return sum(self._slots.values())

    def is_open(self, now_s: float) -> bool:
        """Whether anything may still be spent."""
        return self._limit_bytes is None or self.spent(now_s) < self._limit_bytes

    def to_rows(self) -> list[tuple[int, int]]:
        """(number of the slot, bytes), as `__init__` takes them."""
        return sorted(self._slots.items())


@dataclass(frozen=True, slots=True)
class Rules:
    """Names of interfaces or patterns (`wlan*`): by which the office may be reached (none: any), which are metered."""

    interfaces: tuple[str, ...] = ()
    metered: tuple[str, ...] = ()

    def is_metered(self, name: str) -> bool:
        """Whether bytes cost on this interface."""
        return _matches(name, self.metered)

    def forbids(self, name: str, *, budget_open: bool) -> Failure | None:
        """Why this interface may not lead to the office now; None if it may."""
        if self.interfaces and not _matches(name, self.interfaces):
            return Failure.INTERFACE
        if not budget_open and self.is_metered(name):
            return Failure.BUDGET
        return None


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)

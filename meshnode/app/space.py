"""How much room a home's disk has left: what the disk says, less what the store's log may still grow to."""

from __future__ import annotations

import contextlib
from math import inf
from typing import Final

from meshnode.app.home import Home
from meshnode.app.outside import Outside
from meshnode.core.errors import StoreTrouble
from meshnode.core.limits import FLOOR_BYTES, FLOOR_SHARE
from meshnode.core.ports import Space
from meshnode.drivers.sqlite import SqliteStore
from meshnode.drivers.sqlite.connecting import LOG_SIZE
from meshnode.drivers.writer import BATCH_BYTES

#: Between two looks at the free disk, which others fill too; and while this node is writing.
SPACE_S: Final = 5.0
WRITING_SPACE_S: Final = 0.5


class DiskSpace:
    """Looks at the disk of one home. `floor_bytes` None: what `limits` says of floors."""

    def __init__(self, home: Home, store: SqliteStore, outside: Outside, floor_bytes: int | None) -> None:
        self._home = home
        self._store = store
        self._outside = outside
        self._floor_bytes = floor_bytes
        self._sizes = 0, 0
        #: When it was looked at last.
        self.looked_s = -inf

    def is_due(self, now_s: float, *, writing: bool = False) -> bool:
        """Whether it is time to look again."""
        return now_s - self.looked_s >= (WRITING_SPACE_S if writing else SPACE_S)

    def sizes(self) -> tuple[int, int]:
        """As `SqliteStore.sizes`; what was last known while the disk does not say: a commit will tell why."""
        with contextlib.suppress(StoreTrouble):
            self._sizes = self._store.sizes()
        return self._sizes

    def look(self) -> Space:
        """What is free now, and what must stay free. Raises OSError."""
        total_bytes, free_bytes = self._outside.disk(self._home.path)
        floor = self._floor_bytes
        if floor is None:
            floor = min(FLOOR_BYTES, int(total_bytes * FLOOR_SHARE))
        _, reusable_bytes = self.sizes()
        return Space(free_bytes + reusable_bytes - self._log_to_come(), floor)

    def _log_to_come(self) -> int:
        """Bytes by which the store's log may still grow: to its full size, and by the one commit that finds it so."""
        size_bytes = 0
        with contextlib.suppress(OSError):
            size_bytes = self._home.log_path.stat().st_size
        return max(0, LOG_SIZE + BATCH_BYTES - size_bytes)

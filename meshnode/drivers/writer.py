"""Group commit: whatever is to be written while one commit runs goes into the next, for all contacts together.

One worker thread at a time uses the store's writing side. A sync to disk costs milliseconds, whether it carries one
bundle or a hundred, so the busier the node, the fewer syncs a bundle. When there is nothing to write, the store is
tidied: after bundles were dropped, and now and then while many come.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, Protocol, TypeVar

import trio

from meshnode.core.errors import StoreTrouble
from meshnode.core.limits import MIB
from meshnode.core.ports import Token, Write, WriteFailed, Written
from meshnode.core.rows import DropBundles, PutBundle, Row, Store

#: A commit takes at most so many payload bytes, so that no acknowledgement waits long and the log stays small.
BATCH_BYTES: Final = 4 * MIB
BATCH_ROWS: Final = 512
#: Submitters wait while more than this is queued.
BACKLOG_BYTES: Final = 8 * MIB
#: After so many bundles a store may have something to tidy, though none was dropped.
UNTIDY_BUNDLES: Final = 4096


T = TypeVar("T")


class RunSync(Protocol):
    """Runs what blocks: `trio.to_thread.run_sync`, or a stand-in where tests own the clock."""

    def __call__(self, sync_fn: Callable[[], T], /) -> Awaitable[T]:
        """The function's result; not to be cancelled while it runs."""


class TidyStore(Store, Protocol):
    """A store that can give space back."""

    def tidy(self) -> bool:
        """As `SqliteStore.tidy`."""

    def sizes(self) -> tuple[int, int]:
        """As `SqliteStore.sizes`."""


def _size(write: Write) -> int:
    return sum(len(row.bundle.payload) for row in write.rows if isinstance(row, PutBundle))


class Writer:
    """Carries out `Write` effects and answers with `Written` or `WriteFailed`."""

    def __init__(
        self,
        store: TidyStore,
        clock_s: Callable[[], float],
        run_sync: RunSync = trio.to_thread.run_sync,
    ) -> None:
        self._store = store
        self._clock_s = clock_s
        self._run_sync = run_sync
        self._queue: deque[Write] = deque()
        self._queued_bytes = 0
        self._work = trio.Event()
        self._room = trio.Event()
        self._untidy = True
        self._untidied = 0

    def put(self, write: Write) -> None:
        """Queue a write."""
        self._queue.append(write)
        self._queued_bytes += _size(write)
        self._work.set()

    async def room(self) -> None:
        """Wait until the queue is short enough for more."""
        while self._queued_bytes > BACKLOG_BYTES:
            await self._room.wait()

    async def run(self, answer: Callable[[Written | WriteFailed], None]) -> None:
        """Commit for ever. When cancelled it finishes the commit at hand and what is queued, and answers."""
        try:
            while True:
                if self._queue:
                    await self._commit(answer)
                elif self._untidy:
                    await self._tidy()
                else:
                    self._work = trio.Event()
                    await self._work.wait()
        finally:
            with trio.CancelScope(shield=True):
                while self._queue:
                    await self._commit(answer)

    async def _commit(self, answer: Callable[[Written | WriteFailed], None]) -> None:
        rows: list[Row] = []
        tokens: list[Token] = []
        size = 0
        while self._queue and size < BATCH_BYTES and len(rows) < BATCH_ROWS:
            write = self._queue.popleft()
            rows.extend(write.rows)
            tokens.append(write.token)
            size += _size(write)
        problem: StoreTrouble | None = None
        if rows:
            try:
                # shielded: an acknowledged row must not depend on whether somebody still waits for it
                with trio.CancelScope(shield=True):
                    await self._run_sync(partial(self._store.commit, rows, self._clock_s()))
            except StoreTrouble as trouble:
                problem = trouble
        self._queued_bytes -= size
        self._room.set()
        self._room = trio.Event()  # a new one here, not where one waits: several may wait for the same
        self._note_untidy(rows)
        answer(Written(tuple(tokens)) if problem is None else WriteFailed(tuple(tokens), problem))

    def _note_untidy(self, rows: list[Row]) -> None:
        self._untidied += sum(isinstance(row, PutBundle) for row in rows)
        if self._untidied >= UNTIDY_BUNDLES or any(isinstance(row, DropBundles) for row in rows):
            self._untidy = True
            self._untidied = 0

    async def _tidy(self) -> None:
        try:
            self._untidy = await self._run_sync(self._store.tidy)
        except StoreTrouble:
            self._untidy = False  # what is in the way will be told by the next commit

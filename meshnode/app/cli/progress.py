"""How far something is that takes a while: a bar on the terminal's stderr, and silence anywhere else."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from meshnode.core.words import Words

if TYPE_CHECKING:
    from rich.progress import Progress

#: What is over sooner needs no bar, and does not wait for one to be loaded.
AFTER_S: Final = 0.5

#: So much is done, of so much altogether: bytes, or whatever is counted.
Show = Callable[[int, int], None]


class _Bar:
    """A bar that comes into being when it is worth it."""

    def __init__(self, what: Words, *, is_bytes: bool) -> None:
        self._what = what
        self._is_bytes = is_bytes
        self._began_s = time.monotonic()
        self._shown: Progress | None = None

    def show(self, done: int, total: int) -> None:
        """How far it is."""
        if self._shown is None:
            if time.monotonic() - self._began_s < AFTER_S:
                return
            self._shown = self._make()
            self._shown.start()
        self._shown.update(self._shown.task_ids[0], completed=done, total=total)

    def end(self) -> None:
        """Nothing of it is left on the screen."""
        if self._shown is not None:
            self._shown.refresh()
            self._shown.stop()

    def _make(self) -> Progress:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        columns = [
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            DownloadColumn() if self._is_bytes else MofNCompleteColumn(),
            TimeRemainingColumn(compact=True),
        ]
        shown = Progress(*columns, console=Console(stderr=True), transient=True)
        shown.add_task(str(self._what))
        return shown


@contextmanager
def progress(what: Words, *, is_bytes: bool = True) -> Iterator[Show]:
    """Show how far `what` is, as the block says by calling what it is given."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    bar = _Bar(what, is_bytes=is_bytes)
    try:
        yield bar.show
    finally:
        bar.end()

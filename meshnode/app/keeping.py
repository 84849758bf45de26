"""The newest fleet document, kept in the home. What a full disk does not take is followed all the same, and written
when there is space again."""

from __future__ import annotations

from collections.abc import Callable

from meshnode.app.home import Home
from meshnode.core.errors import FileTrouble
from meshnode.core.fleet import FleetDocument


class KeptDocument:
    """What of it is in the home. `grumble` is told why something newer is not."""

    def __init__(self, home: Home, version: int, grumble: Callable[[str], None]) -> None:
        self._home = home
        self._version = version
        self._grumble = grumble
        #: Why the newest one is not kept.
        self.problem: FileTrouble | None = None

    def keep(self, document: FleetDocument) -> None:
        """Write it, unless that was done."""
        if document.version == self._version:
            return
        try:
            self._home.save_document(document)
        except FileTrouble as problem:
            self.problem = problem
            self._grumble(str(problem))
        else:
            self.problem = None
            self._version = document.version

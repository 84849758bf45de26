"""Which program wrote a store, and whether this one may touch it.

A store goes up with the program and never down: an older program would drop what it does not know. So it has to refuse
one of a newer format, and touch nothing: already opening a database, SQLite would merge the log into it. This reads the
files as they lie there, and with them the version of the program that wrote them last, which the sentence names.
"""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

from meshnode import __version__
from meshnode.core.errors import StoreTooNew
from meshnode.core.words import Words, say
from meshnode.drivers.sqlite.pages import Pages
from meshnode.drivers.sqlite.schema import FORMAT_MAX, SCHEMA_VERSION, is_damage

#: The row of `meta` that names the version of the program.
WRITTEN_BY: Final = "written_by"
#: Where a database says its format (user_version; https://www.sqlite.org/fileformat2.html, section 1.3).
_FORMAT: Final = slice(60, 64)
_VERSION: Final = re.compile(r"[0-9][0-9A-Za-z.+!-]{0,39}", re.ASCII)


def refuse_newer(path: Path) -> None:
    """Raises StoreTooNew if a newer meshnode wrote the store at `path`; touches nothing. OSError if it is not there."""
    with closing(Pages(path)) as pages:
        refuse_newer_pages(path, pages)


def refuse_newer_pages(path: Path, pages: Pages) -> None:
    """The same, of a store whose files are open already."""
    theirs = int.from_bytes(pages.page(1)[_FORMAT], "big")
    if SCHEMA_VERSION < theirs < FORMAT_MAX:
        program = _written_by(pages)
        raise StoreTooNew(path=path, program=program, theirs=theirs, version=__version__, ours=SCHEMA_VERSION)


def _written_by(pages: Pages) -> str | Words:
    for name, value, *_ in pages.small_table("meta"):
        if name == WRITTEN_BY and isinstance(value, str) and _VERSION.fullmatch(value):
            return f"meshnode {value}"
    return say("a newer meshnode")


def sign(writer: sqlite3.Connection) -> None:
    """Put this program's version into the store, if another one's stands there. A disk that does not take it now is no
    reason not to start: the next start does it. Raises sqlite3.Error if the store is damaged."""
    try:
        row = writer.execute("SELECT value FROM meta WHERE name = ?", (WRITTEN_BY,)).fetchone()
        if row is None or row[0] != __version__:
            writer.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (WRITTEN_BY, __version__))
    except sqlite3.OperationalError as error:
        if is_damage(error):
            raise

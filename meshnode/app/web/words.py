"""The sentences of the page: they stand in its scripts, as t("...") and tn("one", "many", n), and are found there."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Final

from meshnode.core.words import Catalogue

STATIC: Final[Traversable] = files(__package__) / "static"

_TEXT: Final = r'("(?:[^"\\\n]|\\.)*")'
_ONE: Final = re.compile(rf"\bt\(\s*{_TEXT}")
_COUNTED: Final = re.compile(rf"\btn\(\s*{_TEXT},\s*{_TEXT}")


def sentences() -> list[tuple[str, str]]:
    """Each sentence once, in the order of the files: (sentence, ""), or (for one, for many) where it has a number."""
    found: dict[tuple[str, str], None] = {}
    for script in sorted(STATIC.iterdir(), key=lambda file: file.name):
        if not script.name.endswith(".js"):
            continue
        text = script.read_text("utf-8")
        marked = [(match.start(), (json.loads(match[1]), "")) for match in _ONE.finditer(text)]
        marked += [
            (match.start(), (json.loads(match[1]), json.loads(match[2]))) for match in _COUNTED.finditer(text)
        ]
        found |= dict.fromkeys(pair for _, pair in sorted(marked))
    return list(found)


def dictionary(catalogue: Catalogue | None) -> dict[str, str]:
    """English: in another language, for all sentences of the page; {} for English."""
    if catalogue is None:
        return {}
    known: dict[str, str] = {}
    for one, many in sentences():
        if many:
            known[one] = catalogue.ngettext(one, many, 1)
            known[many] = catalogue.ngettext(one, many, 2)
        else:
            known[one] = catalogue.gettext(one)
    return known

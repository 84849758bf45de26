"""Which language a reader gets: Indonesian or English.

A person at the terminal gets what `language` in config.toml says, else what the locale says (LANGUAGE, LC_ALL,
LC_MESSAGES, LANG, in this order); a browser what it asks for (Accept-Language), unless config.toml says. The log is
English: who reads it may be far away, and searches it for what the documentation says.
"""

from __future__ import annotations

import gettext
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Final

from meshnode.core.words import Catalogue

ENGLISH: Final = "en"
INDONESIAN: Final = "id"
LANGUAGES: Final = (INDONESIAN, ENGLISH)
DOMAIN: Final = "meshnode"
FOLDER: Final = Path(__file__).parents[1] / "locale"

#: Indonesian was `in` in the standards until 1989, and still is in some systems.
_ALSO: Final = {"in": INDONESIAN, "ind": INDONESIAN, "eng": ENGLISH}


@cache
def catalogue(language: str) -> Catalogue | None:
    """The sentences of a language. None: English, which stands in the code."""
    if language == ENGLISH:
        return None
    return gettext.translation(DOMAIN, FOLDER, [language])


def known(tag: str) -> str | None:
    """The language of a tag such as `id_ID.UTF-8` or `en-GB`, if there are sentences in it."""
    name = tag.replace("_", "-").partition(".")[0].partition("-")[0].strip().lower()
    name = _ALSO.get(name, name)
    return name if name in LANGUAGES else None


def of_locale(environ: Mapping[str, str] = os.environ) -> str:
    """The language of whoever has these variables of the environment."""
    for name in ("LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG"):
        if text := environ.get(name, ""):
            for tag in text.split(":"):
                if language := known(tag):
                    return language
            if name != "LANGUAGE":
                break
    return ENGLISH


def of_browser(accept: str) -> str | None:
    """The language that a reader likes best of those that there are, by Accept-Language (RFC 9110 section 12.5.4)."""
    best: tuple[float, str] | None = None
    for item in accept.split(","):
        tag, _, rest = item.partition(";")
        language = known(tag)
        quality = 1.0
        if (weight := rest.strip().lower()).startswith("q="):
            try:
                quality = float(weight.removeprefix("q="))
            except ValueError:
                continue
        if language and quality > 0 and (best is None or quality > best[0]):
            best = quality, language
    return best[1] if best else None

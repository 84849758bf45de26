"""Sentences for people, in the language of whoever reads them.

Who makes a sentence does not know who reads it: an error that the daemon raises is read by the officer at the terminal,
by another in a browser, and in the log. So a sentence is kept as what it says, `Words`, and put into a language only
when it becomes a text, by `str`. The language is whatever `reading` says around that: each request to the daemon has
its own. Without one it is English, as it stands in the code.

What is marked with `say` or `count`, the docstrings of errors and the help of commands are collected by
`scripts/words`; a test fails when one of them is missing in another language.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Final, Protocol


class Catalogue(Protocol):
    """A language: as `gettext.NullTranslations`, which is English."""

    def gettext(self, message: str) -> str:
        """The sentence; the English one if there is none."""

    def info(self) -> dict[str, str]:
        """What it says of itself, such as its `language`."""

    def ngettext(self, msgid1: str, msgid2: str, n: int) -> str:
        """The sentence for so many."""


_catalogue: Final[ContextVar[Catalogue | None]] = ContextVar("catalogue", default=None)


@contextmanager
def reading(catalogue: Catalogue | None) -> Iterator[None]:
    """What becomes a text in this block becomes one in this language. None: English."""
    before = _catalogue.set(catalogue)
    try:
        yield
    finally:
        _catalogue.reset(before)


@dataclass(frozen=True, slots=True)
class Words:
    """A sentence that is not a text yet. `fields` stand in braces in it; `many`: what it is for any `n` but 1."""

    one: str
    fields: dict[str, object]
    many: str = ""
    n: int = 1

    def __str__(self) -> str:
        if self.many:
            catalogue = _catalogue.get()
            chosen = self.one if self.n == 1 else self.many
            sentence = catalogue.ngettext(self.one, self.many, self.n) if catalogue else chosen
        else:
            sentence = translated(self.one)
        return filled(sentence, self.fields)

    def about(self, **fields: object) -> Words:
        """The same sentence with these fields, for one that was written out elsewhere."""
        return replace(self, fields={**self.fields, **fields})


@dataclass(frozen=True, slots=True)
class Clause:
    """A sentence, be it of an error, as part of another one: without its full stop."""

    sentence: object

    def __str__(self) -> str:
        return str(self.sentence).rstrip(".")


#: What can stand in an error or be shown to a person. It becomes a text by `str`, as late as can be.
Said = Words | Clause | str


def say(sentence: str, /, **fields: object) -> Words:
    """A sentence. It has to be written out here, since it is looked for in the code: no f-string, no variable."""
    return Words(sentence, fields)


def count(one: str, many: str, n: int, /, **fields: object) -> Words:
    """A sentence with a number, which stands in it as {n}."""
    return Words(one, {"n": n, **fields}, many, n)


def language() -> str | None:
    """What `reading` said last, as a language tag; None: English, or none that has a tag."""
    catalogue = _catalogue.get()
    return catalogue.info().get("language") if catalogue else None


#: Fields that say in words what was wrong. What is written out where an error is raised, and what an operating system
#: says, is in the catalogues.
IN_WORDS: Final = ("problem", "purpose", "what")


def filled(sentence: str, fields: Mapping[str, object]) -> str:
    """A sentence of a language with its fields."""
    texts = {name: str(value) for name, value in fields.items()}
    return sentence.format(**{name: translated(it) if name in IN_WORDS else it for name, it in texts.items()})


def translated(sentence: str) -> str:
    """A sentence of which only the text is known, as it stands in the catalogue; unchanged if it does not."""
    catalogue = _catalogue.get()
    return catalogue.gettext(sentence) if catalogue and sentence else sentence

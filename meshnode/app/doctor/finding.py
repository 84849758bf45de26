"""One thing that `meshnode doctor` found out, in words for people, with what to do about it."""

from __future__ import annotations

from dataclasses import dataclass

from meshnode.core.errors import MeshnodeError
from meshnode.core.words import Said


@dataclass(frozen=True, slots=True)
class Finding:
    """`ok`: nothing needs doing, though `text` may be worth knowing. `what_to_do` is empty where there is nothing.
    Both are in the language of whoever is at the terminal, since findings are made there."""

    code: str
    ok: bool
    text: str
    what_to_do: str = ""


def well(code: str, text: Said, what_to_do: Said = "") -> Finding:
    """All is well there, or it is only to be known."""
    return Finding(code, True, str(text), str(what_to_do))


def bad(code: str, text: Said, what_to_do: Said) -> Finding:
    """Something needs doing."""
    return Finding(code, False, str(text), str(what_to_do))


def of_error(code: str, error: MeshnodeError, what_to_do: Said = "") -> Finding:
    """An error of ours, whose sentence says after a colon what to do, unless `what_to_do` says it."""
    return bad(code, str(error), what_to_do) if what_to_do else of_sentence(code, str(error))


def of_sentence(code: str, sentence: Said) -> Finding:
    """As `of_error`, of an alarm or a problem that is a sentence already."""
    text, colon, rest = str(sentence).partition(": ")
    return bad(code, f"{text}." if colon else text, f"{rest[:1].upper()}{rest[1:]}")

"""One thing that `meshnode doctor` found out, in words for people, with what to do about it."""

from __future__ import annotations

from dataclasses import dataclass

from meshnode.core.errors import MeshnodeError


@dataclass(frozen=True, slots=True)
class Finding:
    """`ok`: nothing needs doing, though `text` may be worth knowing. `what_to_do` is empty where there is nothing."""

    code: str
    ok: bool
    text: str
    what_to_do: str = ""


def well(code: str, text: str, what_to_do: str = "") -> Finding:
    """All is well there, or it is only to be known."""
    return Finding(code, True, text, what_to_do)


def bad(code: str, text: str, what_to_do: str) -> Finding:
    """Something needs doing."""
    return Finding(code, False, text, what_to_do)


def of_error(code: str, error: MeshnodeError, what_to_do: str = "") -> Finding:
    """An error of ours, whose sentence says after a colon what to do, unless `what_to_do` says it."""
    sentence = str(error)
    if what_to_do:
        return bad(code, sentence, what_to_do)
    text, colon, rest = sentence.partition(": ")
    return bad(code, f"{text}." if colon else text, f"{rest[:1].upper()}{rest[1:]}")


def of_sentence(code: str, sentence: str) -> Finding:
    """As `of_error`, of an alarm or a problem that is a sentence already."""
    text, colon, rest = sentence.partition(": ")
    return bad(code, f"{text}." if colon else text, f"{rest[:1].upper()}{rest[1:]}")

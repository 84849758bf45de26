"""Sentences for people: collected from the code, kept in catalogues (gettext), compiled.

English stands in the code and is the key. meshnode/locale/LANGUAGE/LC_MESSAGES/meshnode.po is where it is translated;
the .mo beside it is made from that and is what a node reads.
"""

from __future__ import annotations

import ast
import errno
import importlib
import io
import os
import pkgutil
import re
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from string import Formatter
from typing import Final

import click
from babel.messages.catalog import Catalog
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po

import meshnode
from meshnode.app.cli import COMMANDS, main
from meshnode.app.cli.language import help_texts
from meshnode.app.language import DOMAIN, FOLDER, INDONESIAN
from meshnode.core.errors import MeshnodeError, sentence_of
from meshnode.core.words import IN_WORDS

PACKAGE: Final = Path(meshnode.__file__).parent
#: What a disk or a network says, as Python has it from the C library; some sentences begin with it.
_ERRNOS: Final = (
    *(
        "EACCES",
        "EADDRINUSE",
        "EADDRNOTAVAIL",
        "ECONNREFUSED",
        "ECONNRESET",
        "EDQUOT",
        "EEXIST",
        "EHOSTUNREACH",
    ),
    *(
        "EINVAL",
        "EIO",
        "EISDIR",
        "ELOOP",
        "EMFILE",
        "ENAMETOOLONG",
        "ENETDOWN",
        "ENETUNREACH",
        "ENOENT",
        "ENOSPC",
    ),
    *("ENOTDIR", "ENOTEMPTY", "EPERM", "EPIPE", "EROFS", "ETIMEDOUT"),
)
#: Modules of click whose sentences a user of the command line may see.
_CLICK: Final = (
    "core",
    "decorators",
    "exceptions",
    "formatting",
    "parser",
    "termui",
    "types",
    "shell_completion",
)

#: In the file that a node reads, so that the same sentences make the same file.
_NO_DATE: Final = datetime.fromtimestamp(0, UTC)

#: A sentence, and what it is for many if it has a number: where it stands.
Sentences = dict[tuple[str, str], set[str]]


def sentences() -> Sentences:
    """All sentences for people that there are."""
    found: Sentences = {}

    def note(where: str, one: str, many: str = "") -> None:
        if one.strip():
            found.setdefault((one, many), set()).add(where)

    errors = {error.__name__ for error in _errors()}
    for path in sorted(PACKAGE.rglob("*.py")):
        where = path.relative_to(PACKAGE.parent).as_posix()
        for call in ast.walk(ast.parse(path.read_text())):
            if isinstance(call, ast.Call):
                for one, many in _said(call, errors):
                    note(where, one, many)
    for error in _errors():
        note(error.__module__.replace(".", "/") + ".py", sentence_of(error))
    for name, (_, text) in COMMANDS.items():
        note("meshnode/app/cli/__init__.py", text)
        command = _command(name)
        for help_text in help_texts(command):
            note(f"meshnode {name} --help", help_text)
    for text in help_texts(main):
        note("meshnode --help", text)
    for one, many in _click_says():
        note("click", one, many)
    for name in _ERRNOS:
        text = os.strerror(getattr(errno, name))
        note("errno", text)
        note("errno", text.lower())
    for one, many, where in _page_says():
        note(where, one, many)
    return found


def _errors() -> Iterator[type[MeshnodeError]]:
    for module in pkgutil.walk_packages(meshnode.__path__, "meshnode."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    waiting: list[type[MeshnodeError]] = [MeshnodeError]
    seen: set[type[MeshnodeError]] = set()
    while waiting:
        error = waiting.pop()
        if error not in seen and error.__module__.startswith("meshnode."):
            seen.add(error)
            waiting += error.__subclasses__()
    yield from sorted(seen, key=lambda error: (error.__module__, error.__qualname__))


def _name(call: ast.Call) -> str:
    function = call.func
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def _text(node: ast.expr) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def _said(call: ast.Call, errors: set[str]) -> Iterator[tuple[str, str]]:
    name, texts = _name(call), [_text(argument) for argument in call.args]
    if name == "say" and texts and texts[0]:
        yield texts[0], ""
    elif name == "count" and len(texts) > 1 and texts[0] and texts[1]:
        yield texts[0], texts[1]
    elif name in errors:
        for text in texts if name != "RemoteError" else texts[1:]:
            if text:
                yield text, ""
        for keyword in call.keywords:
            if keyword.arg in IN_WORDS and (text := _text(keyword.value)):
                yield text, ""


def _command(name: str) -> click.Command:
    module, _, attribute = COMMANDS[name][0].partition(":")
    command = getattr(importlib.import_module(module), attribute)
    assert isinstance(command, click.Command)
    return command


def _click_says() -> Iterator[tuple[str, str]]:
    folder = Path(click.__file__).parent
    for module in _CLICK:
        for call in ast.walk(ast.parse((folder / f"{module}.py").read_text())):
            if isinstance(call, ast.Call):
                texts = [_text(argument) for argument in call.args]
                if _name(call) == "_" and texts and texts[0]:
                    yield texts[0], ""
                elif _name(call) == "ngettext" and len(texts) > 1 and texts[0] and texts[1]:
                    yield texts[0], texts[1]


def _page_says() -> Iterator[tuple[str, str, str]]:
    """What the web page says: (one, many or "", where)."""
    try:
        from meshnode.app.web.words import sentences as of_page
    except ImportError:
        return

    for one, many in of_page():
        yield one, many, "meshnode/app/web/static"


# --- catalogues -------------------------------------------------------------------------------------------------


def po_path(language: str) -> Path:
    """Where a language is translated."""
    return FOLDER / language / "LC_MESSAGES" / f"{DOMAIN}.po"


def read(language: str) -> Catalog:
    """The catalogue as it is."""
    path = po_path(language)
    if not path.exists():
        return Catalog(language, DOMAIN, fuzzy=False)
    with path.open("rb") as file:
        return read_po(file, language, DOMAIN)


def updated(language: str) -> Catalog:
    """The catalogue with the sentences that there are, and no others; what was translated stays so."""
    old = read(language)
    header = "# Sentences of meshnode; made by scripts/words, translated by hand."
    new = Catalog(
        language,
        DOMAIN,
        header_comment=header,
        project=DOMAIN,
        version="-",
        fuzzy=False,
        last_translator="the meshnode authors",
        language_team="Indonesian",
    )
    found = sentences()
    for (one, many), where in sorted(found.items(), key=lambda item: (min(item[1]), item[0])):
        known = old.get(one)
        string = known.string if known is not None and bool(many) == known.pluralizable else ""
        if many and not isinstance(string, tuple):
            string = ("",)
        new.add((one, many) if many else one, string, locations=[(min(where), 0)])
    return new


def po_text(catalogue: Catalog) -> bytes:
    """The catalogue as a file, without what changes at each writing."""
    file = io.BytesIO()
    write_po(file, catalogue, width=110, include_lineno=False)
    lines = file.getvalue().splitlines(keepends=True)
    dates = b'"POT-Creation-Date', b'"PO-Revision-Date', b'"Generated-By', b'"Report-Msgid'
    return b"".join(line for line in lines if not line.startswith(dates))


def mo_bytes(catalogue: Catalog) -> bytes:
    """The catalogue as a node reads it."""
    file = io.BytesIO()
    made = read_po(io.BytesIO(po_text(catalogue)), str(catalogue.locale), DOMAIN)
    made.creation_date = _NO_DATE
    write_mo(file, made)
    return file.getvalue()


def missing(catalogue: Catalog) -> list[str]:
    """What is not translated, or with other fields in braces than the English has."""
    wrong = []
    for message in catalogue:
        if not message.id:
            continue
        ids, strings = _all(message.id), _all(message.string)
        if not all(strings):
            wrong.append(f"not translated: {ids[0]!r}")
        elif {field for text in strings for field in _fields(text)} != _fields(ids[-1]):
            wrong.append(f"other fields than in English: {ids[0]!r}")
        elif strings[0] == ids[0] and not _may_be_same(ids[0]):
            wrong.append(f"still English: {ids[0]!r}")
    return wrong


def _all(texts: str | Sequence[str] | None) -> list[str]:
    return [texts or ""] if isinstance(texts, str) or texts is None else list(texts)


def _fields(text: str) -> set[str]:
    if "%" in text and "{" not in text:
        return set(re.findall(r"%\(\w+\)s", text))
    return {name for _, name, _, _ in Formatter().parse(text) if name is not None}


def _may_be_same(text: str) -> bool:
    """A sentence is translated; a word or two may be the same in both, and so may commands."""
    return text.startswith("\b") or len(re.sub(r"\{\w+\}|%\(\w+\)s|`[^`]*`", "", text).split()) < 3


def main_() -> None:
    """Write the catalogue."""
    catalogue = updated(INDONESIAN)
    path = po_path(INDONESIAN)
    path.write_bytes(po_text(catalogue))
    path.with_suffix(".mo").write_bytes(mo_bytes(catalogue))
    left = missing(catalogue)
    print(f"{path}: {len(catalogue)} sentences, {len(left)} to be translated")
    for each in left:
        print(f"  {each}")
    sys.exit(1 if left else 0)


if __name__ == "__main__":
    main_()

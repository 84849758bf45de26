"""Finds sentences for people that are not marked for translation: read off the source, nothing is run.

A text is a literal, an f-string, a sum of texts or a `format` of one, with a space and a letter in what is written out.
It is unmarked

- as what is said at once: an argument of `click.echo` and its kin, or of the errors of click;
- in a module of screens, as what a function returns or appends to what it returns;
- as a part of an error of ours: made at run time (an f-string, a sum), so that `scripts/words` cannot find it, or in a
  field that is not looked up in the catalogue, or kept in a name first;
- as an argument of functions of ours that only hand it on (`CARRIERS`);
- as what `say` and `count` are given, if it is anything but a literal.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Final

from meshnode.core.words import IN_WORDS

#: What shows its arguments to a person: functions and errors of click.
SAYING: Final = frozenset({"echo", "secho", "style", "confirm", "prompt", "progressbar"})
SAYING_ERRORS: Final = frozenset({"UsageError", "BadParameter", "ClickException"})
#: Functions and errors of ours that take a sentence and put it where a person reads it.
CARRIERS: Final = frozenset(
    {"well", "bad", "of_sentence", "_warn", "_WrongError", "_Wrong", "_refusal", "Broken"}
)


@dataclass(frozen=True, slots=True)
class Unmarked:
    """A text that nobody translates: in which line, and how it stands there."""

    line: int
    code: str


def unmarked(source: str, errors: Collection[str], *, is_screen: bool = False) -> list[Unmarked]:
    """Those of one module. `errors`: the names of the errors of ours; `is_screen`: it makes texts for people."""
    tree = ast.parse(source)
    kept = _kept(tree)
    found: dict[int, Unmarked] = {}
    for at in ast.walk(tree):
        if isinstance(at, ast.Call):
            for node in _wrong(at, errors, kept):
                found[id(node)] = Unmarked(node.lineno, ast.unparse(node))
        if is_screen:
            for node in _handed_back(at):
                found[id(node)] = Unmarked(node.lineno, ast.unparse(node))
    return sorted(found.values(), key=lambda it: (it.line, it.code))


def _kept(tree: ast.AST) -> frozenset[str]:
    """Names to which a text is given somewhere in the module."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None and _is_text(node.value):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return frozenset(names)


def _wrong(call: ast.Call, errors: Collection[str], kept: frozenset[str]) -> Iterator[ast.expr]:
    name = _name(call)
    if name in SAYING or name in SAYING_ERRORS or name in CARRIERS:
        yield from (node for node in _given(call) if _is_text(node) or _names(node) & kept)
    elif name in errors:
        yield from _wrong_in_error(call, name, kept)
    elif isinstance(call.func, ast.Name) and name in ("say", "count"):
        literals = call.args[: 1 if name == "say" else 2]
        yield from (node for node in literals if not isinstance(node, ast.Constant))


def _wrong_in_error(call: ast.Call, name: str, kept: frozenset[str]) -> Iterator[ast.expr]:
    for at, node in enumerate(call.args):
        looked_up = isinstance(node, ast.Constant) and not (name == "RemoteError" and at == 0)
        if (_is_text(node) and not looked_up) or _names(node) & kept:
            yield node
    for keyword in call.keywords:
        looked_up = isinstance(keyword.value, ast.Constant) and keyword.arg in IN_WORDS
        if (_is_text(keyword.value) and not looked_up) or _names(keyword.value) & kept:
            yield keyword.value


def _handed_back(node: ast.AST) -> Iterator[ast.expr]:
    given: list[ast.expr] = []
    if isinstance(node, ast.Return | ast.Yield) and node.value is not None:
        given = node.value.elts if isinstance(node.value, ast.List | ast.Tuple) else [node.value]
    elif isinstance(node, ast.Call) and _name(node) in ("append", "extend"):
        given = _given(node)
    yield from (value for value in given if _is_text(value))


def _given(call: ast.Call) -> list[ast.expr]:
    return [*call.args, *(keyword.value for keyword in call.keywords)]


def _name(call: ast.Call) -> str:
    function = call.func
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def _names(node: ast.expr) -> set[str]:
    """The name that this is, if it is no more than a name, or one of two."""
    if isinstance(node, ast.IfExp):
        return _names(node.body) | _names(node.orelse)
    return {node.id} if isinstance(node, ast.Name) else set()


def _is_text(node: ast.expr) -> bool:
    return any(" " in text and re.search(r"[^\W\d_]", text) is not None for text in _written(node))


def _written(node: ast.expr) -> Iterator[str]:
    """What is written out of a text, for each way in which it may turn out."""
    match node:
        case ast.Constant(value=str() as text):
            yield text
        case ast.JoinedStr(values=values):
            yield "".join(
                text for value in values if isinstance(value, ast.Constant) for text in _written(value)
            )
            for value in values:
                if isinstance(value, ast.FormattedValue):
                    yield from _written(value.value)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            yield " ".join((*_written(left), *_written(right)))
        case ast.IfExp(body=body, orelse=orelse):
            yield from _written(body)
            yield from _written(orelse)
        case ast.Call(func=ast.Attribute(value=value, attr="format" | "rstrip" | "upper" | "lower")):
            yield from _written(value)

"""The schema of a kind of messages: a JSON Schema (draft 2020-12) of its form, and what a JSON Schema cannot say.

    x-form      the file that holds the form, as "form.json"; without it the form is what --meta says
    x-same      {meta key: field of the form}: what --meta says has to be what the form says
    x-nik       the field that holds a NIK, the fields that it has to agree with, the regions that there are
    x-files     the files that have to be there, each {"names", "each", "types", "excusable", "optional"}
    x-missing   the field of the form that says why files are missing: {"fingerprint-03": "amputated"}

A schema is read once, when a message of its kind first comes; one that is named in config.toml when the node starts.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from meshnode.app.files import read_file
from meshnode.core.errors import BadSchema
from meshnode.core.limits import MIB
from meshnode.core.nik import nik_problems
from meshnode.core.words import Words, count, say

if TYPE_CHECKING:
    from jsonschema.exceptions import ValidationError

FOLDER: Final = Path(__file__).parents[1] / "kinds"
_SCHEMA_SIZE_MAX: Final = MIB
_PLACE: Final = "{}"


def packaged(kind: str) -> Path | None:
    """The schema of a kind that comes with the program."""
    path = FOLDER / f"{kind}.schema.json"
    return path if path.name in _PACKAGED else None


_PACKAGED: Final = frozenset(path.name for path in FOLDER.glob("*.schema.json"))


@dataclass(frozen=True, slots=True)
class Nik:
    """`x-nik`. `regions` None: any."""

    field: str
    born: str = ""
    sex: str = ""
    female: str = ""
    male: str = ""
    regions: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """One file that has to be there: `slot` is how x-missing calls it, `names` what it may be called."""

    slot: str
    names: frozenset[str]
    shown: str
    excusable: bool


@dataclass(frozen=True, slots=True)
class Schema:
    """What a message of one kind has to be."""

    rules: dict[str, Any]
    form: str = ""
    same: dict[str, str] = field(default_factory=dict)
    nik: Nik | None = None
    missing: str = ""
    wanted: tuple[Wanted, ...] = ()

    def form_problems(self, form: Any, meta: dict[str, str]) -> Iterator[Words]:
        """What is wrong with the form, field by field."""
        yield from _rule_problems(self.rules, form)
        if not isinstance(form, dict):
            return
        for key, name in self.same.items():
            if key in meta and form.get(name) != meta[key]:
                yield say(
                    "--meta {key} is not what the form says as {field}: correct one of them",
                    key=key,
                    field=name,
                )
        if self.nik is not None:
            yield from _nik_problems(self.nik, form)

    def file_problems(self, names: set[str], form: Any) -> Iterator[Words]:
        """Which files are missing, of those with these `names`."""
        reasons = form.get(self.missing) if isinstance(form, dict) else None
        excused = {slot for slot, why in reasons.items() if why} if isinstance(reasons, dict) else set()
        lacking = [
            it for it in self.wanted if not it.names & names and not (it.excusable and it.slot in excused)
        ]
        if needed := [it.shown for it in lacking if not it.excusable or not self.missing]:
            files = ", ".join(needed)
            yield count(
                "{files} is missing: record it", "{files} are missing: record them", len(needed), files=files
            )
        if excusable := [it for it in lacking if it.excusable and self.missing]:
            yield count(
                "{files} is missing: record it, or write into the form under {field} why that cannot be",
                "{files} are missing: record them, or write into the form under {field} why that cannot be",
                len(excusable),
                files=", ".join(it.shown for it in excusable),
                field=", ".join(f"{self.missing}.{it.slot}" for it in excusable[:2])
                + (", ..." if len(excusable) > 2 else ""),
            )


def read_schema(path: Path) -> Schema:
    """The schema in this file. Raises BadSchema or FileTrouble."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError

    try:
        rules = json.loads(read_file(path, _SCHEMA_SIZE_MAX))
        Draft202012Validator.check_schema(rules)
        if not isinstance(rules, dict):
            raise BadSchema(path=path, problem="it is no object")
        nik = rules.get("x-nik")
        return Schema(
            rules=rules,
            form=_typed(rules, "x-form", str, ""),
            same=_typed(rules, "x-same", dict, {}),
            nik=None if nik is None else _read_nik(nik),
            missing=_typed(rules, "x-missing", str, ""),
            wanted=tuple(it for group in _typed(rules, "x-files", list, []) for it in _read_group(group)),
        )
    except SchemaError as error:
        raise BadSchema(path=path, problem=f"{error.json_path}: {error.message}") from None
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise BadSchema(path=path, problem=str(error) or type(error).__name__) from None


def _typed(table: dict[str, Any], key: str, kind: type, default: Any) -> Any:
    value = table.get(key, default)
    if not isinstance(value, kind):
        raise TypeError(f"{key} is not of the type {kind.__name__}")
    return value


def _read_nik(table: dict[str, Any]) -> Nik:
    regions = table.get("regions")
    return Nik(
        field=_typed(table, "field", str, "nik"),
        born=_typed(table, "born", str, ""),
        sex=_typed(table, "sex", str, ""),
        female=_typed(table, "female", str, ""),
        male=_typed(table, "male", str, ""),
        regions=None if regions is None else frozenset(map(str, regions)),
    )


def _read_group(group: dict[str, Any]) -> Iterator[Wanted]:
    names, types = _typed(group, "names", list, []), _typed(group, "types", list, [])
    if not names or not types:
        raise ValueError("each of x-files needs names and types")
    if _typed(group, "optional", bool, False):
        return
    for each in _typed(group, "each", list, [""]):
        stems = [name.replace(_PLACE, each) for name in names]
        allowed = frozenset(f"{stem}.{end}".casefold() for stem in stems for end in types)
        yield Wanted(stems[0], allowed, f"{stems[0]}.{types[0]}", _typed(group, "excusable", bool, False))


def _nik_problems(nik: Nik, form: dict[str, Any]) -> Iterator[Words]:
    number, born, sex = (form.get(name) if name else None for name in (nik.field, nik.born, nik.sex))
    if not isinstance(number, str):
        return  # the rules say so already
    try:
        said = date.fromisoformat(born) if isinstance(born, str) else None
    except ValueError:
        said = None
    female = {nik.female: True, nik.male: False}.get(sex) if isinstance(sex, str) and sex else None
    yield from nik_problems(number, nik.regions, said, female)


def _rule_problems(rules: dict[str, Any], form: Any) -> Iterator[Words]:
    from jsonschema import Draft202012Validator

    lacking: list[str] = []
    validator = Draft202012Validator(rules, format_checker=Draft202012Validator.FORMAT_CHECKER)
    for error in sorted(validator.iter_errors(form), key=lambda error: error.json_path):
        if error.validator == "required" and isinstance(error.instance, dict):
            names = [name for name in error.validator_value if name not in error.instance]
            lacking += [place for name in names if (place := _place(error, name)) not in lacking]
        else:
            yield _sentence(error)
    if lacking:
        yield say("the form lacks {field}: fill it in", field=", ".join(lacking))


def _place(error: ValidationError, *more: str) -> str:
    return ".".join([*map(str, error.absolute_path), *more])


def _sentence(error: ValidationError) -> Words:
    """One failure for the officer; the library's own sentences are for programmers, and English."""
    place = _place(error)
    shown = json.dumps(error.instance, ensure_ascii=False)[:60]
    if not place:
        return say("the form is no list of named fields: make it again")
    match error.validator:
        case "type":
            return say(
                "{field} in the form is {value}, which is of another type: correct it",
                field=place,
                value=shown,
            )
        case "enum" | "const":
            value: Any = error.validator_value
            choice = ", ".join(map(str, value if error.validator == "enum" else [value]))
            return say(
                "{field} in the form is {value}, and can be: {choice}",
                field=place,
                value=shown,
                choice=choice,
            )
        case "minLength" | "minItems" | "minProperties":
            return say("{field} in the form is empty or too short: fill it in", field=place)
        case "maxLength" | "maxItems" | "maxProperties":
            return say("{field} in the form is too long: shorten it", field=place)
    example = error.schema.get("examples") if isinstance(error.schema, dict) else None
    if isinstance(example, list) and example:
        return say(
            "{field} in the form is {value}, which cannot be: write it as {example}",
            field=place,
            value=shown,
            example=example[0],
        )
    if not str(error.instance).strip():
        return say("{field} in the form is empty or too short: fill it in", field=place)
    return say("{field} in the form is {value}, which cannot be: correct it", field=place, value=shown)

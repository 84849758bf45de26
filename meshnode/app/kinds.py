"""Checks a message while the citizen still stands there, before it is taken.

What a kind asks for stands in its schema (`schemas`): one comes with the program, for `ktp-el`; `[kinds]` in
config.toml names others, or another one for it. A kind without a schema is taken as it is, and so is what an office
writes.

The files are looked at as they pass. The form and the pictures are small and are kept until the last byte has come, and
then, before the last part is handed on, all is checked together; everything else just passes. So a message that is
refused was never whole in the store, and memory is bounded, whatever a program sends.

Pictures are walked through by their structure always (`core.pictures`), and decoded too where Pillow is installed
(`pip install meshnode[pictures]`): a device without it is spared 20 MB, and still finds what was cut off.

What is wrong is told to who submits, with names and numbers in it, and to nobody else: nothing of it is logged.
"""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from meshnode.app.schemas import Schema, packaged, read_schema
from meshnode.core.errors import NotAsItsKind
from meshnode.core.limits import KIB, MIB
from meshnode.core.message import Manifest
from meshnode.core.pictures import Broken, format_of, size_of
from meshnode.core.words import Words, count, say

#: A form and a picture of a kind that is checked have at most so much, and all of a message together.
FORM_SIZE_MAX: Final = 256 * KIB
PICTURE_SIZE_MAX: Final = 8 * MIB
CHECKED_SIZE_MAX: Final = 32 * MIB
#: So many problems are named at once.
NAMED_MAX: Final = 5

#: What Pillow calls the formats; it has none for WSQ.
_PILLOW: Final = {"jpeg": "JPEG", "png": "PNG", "jp2": "JPEG2000"}


class Problems:
    """Several problems as one sentence, in the language of who reads it."""

    def __init__(self, problems: list[Words]) -> None:
        self.problems = problems

    def __str__(self) -> str:
        named = "; ".join(map(str, self.problems[:NAMED_MAX]))
        more = len(self.problems) - NAMED_MAX
        return f"{named}; {count('and {n} more', 'and {n} more', more)}" if more > 0 else named


class Check:
    """The check of one message."""

    def __init__(self, kind: str, schema: Schema, manifest: Manifest) -> None:
        self._kind = kind
        self._schema = schema
        self._manifest = manifest
        self._wanted = [self._is_looked_at(file.name) for file in manifest.files]
        self._data: list[bytearray] = [bytearray() for _ in manifest.files]
        self._at = 0
        self._left = manifest.files[0].size_bytes
        if problems := list(self._size_problems()):
            raise NotAsItsKind(kind=kind, problem=Problems(problems))

    def _is_looked_at(self, name: str) -> bool:
        return format_of(name) is not None or name == self._schema.form

    def _size_problems(self) -> Iterator[Words]:
        total = 0
        for file, wanted in zip(self._manifest.files, self._wanted, strict=True):
            largest = FORM_SIZE_MAX if file.name == self._schema.form else PICTURE_SIZE_MAX
            total += file.size_bytes if wanted else 0
            if wanted and file.size_bytes > largest:
                size = file.size_bytes
                yield say(
                    "{file} has {size} bytes, at most {largest} can be",
                    file=file.name,
                    size=size,
                    largest=largest,
                )
        if total > CHECKED_SIZE_MAX:
            largest = CHECKED_SIZE_MAX
            yield say("its pictures have {size} bytes, at most {largest} can be", size=total, largest=largest)

    def feed(self, piece: bytes) -> None:
        """The next bytes of the files."""
        data = memoryview(piece)
        while data:
            while not self._left:
                self._at += 1
                if self._at >= len(self._data):
                    return  # more than it said: the store refuses that
                self._left = self._manifest.files[self._at].size_bytes
            part = data[: self._left]
            if self._wanted[self._at]:
                self._data[self._at] += part
            self._left -= len(part)
            data = data[len(part) :]

    @property
    def is_whole(self) -> bool:
        """Whether all of the files has come."""
        return not self._left and not any(file.size_bytes for file in self._manifest.files[self._at + 1 :])

    def finish(self) -> None:
        """Look at everything; blocks. Raises NotAsItsKind."""
        problems: list[Words] = []
        for problem in self._problems():
            if problem not in problems:
                problems.append(problem)
        if problems:
            raise NotAsItsKind(kind=self._kind, problem=Problems(problems))

    def _problems(self) -> Iterator[Words]:
        meta = dict(self._manifest.meta)
        form: Any = meta
        names = {file.name.casefold() for file in self._manifest.files}
        contents = {file.name: data for file, data in zip(self._manifest.files, self._data, strict=True)}
        if name := self._schema.form:
            form = None
            if name not in contents:
                yield say("{file} is missing: the form has to be among the files", file=name)
            else:
                try:
                    form = json.loads(contents[name].decode("utf-8-sig"))
                except (ValueError, RecursionError):
                    yield say("{file} cannot be read: it is not JSON in UTF-8", file=name)
                else:
                    yield from self._schema.form_problems(form, meta)
        else:
            yield from self._schema.form_problems(form, meta)
        yield from self._schema.file_problems(names, form)
        for name, data in contents.items():
            if (picture := format_of(name)) is not None and (why := picture_problem(picture, bytes(data))):
                yield say("{file} is no good picture, {why}: take it again", file=name, why=why)


def picture_problem(picture: str, data: bytes) -> Words | None:
    """Why these bytes are no picture of this format; None if they are."""
    if not data:
        return say("it is empty")
    try:
        size_of(picture, data)
    except Broken as broken:
        return broken.why
    return (
        say("it cannot be decoded")
        if picture in _PILLOW and not _is_decoded(_PILLOW[picture], data)
        else None
    )


def _is_decoded(name: str, data: bytes) -> bool:
    try:
        from PIL import Image
    except ImportError:
        return True
    try:
        with Image.open(io.BytesIO(data), formats=[name]) as image:
            image.load()
    except (
        OSError,
        SyntaxError,
        ValueError,
        LookupError,
        TypeError,
        struct.error,
        Image.DecompressionBombError,
    ):
        return False
    return True


class Kinds:
    """The schemas of one node. `named`: kind to path, from config.toml."""

    def __init__(self, named: Mapping[str, Path], *, check: bool = True) -> None:
        self._check = check
        self._schemas: dict[str, Schema] = {}
        for kind, path in named.items() if check else ():
            self._schemas[kind] = read_schema(path)

    def check(self, manifest: Manifest) -> Check | None:
        """What checks this message; None if nothing has to. Raises NotAsItsKind."""
        kind = manifest.kind
        if not self._check or not kind:
            return None
        if kind not in self._schemas:
            if (path := packaged(kind)) is None:
                return None
            self._schemas[kind] = read_schema(path)
        return Check(kind, self._schemas[kind], manifest)

"""`meshnode submit`, the part that is not the terminal: look at the files, describe them, stream them to the daemon.

Everything that can be wrong with the files is found before the first byte is sent.
"""

from __future__ import annotations

import contextlib
import json
import mimetypes
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final

from meshnode.app.client import Client
from meshnode.app.home import Home
from meshnode.app.received import TEXT_NAME
from meshnode.core.errors import BadSubmission, FileTrouble
from meshnode.core.limits import FILES_MAX, KIB
from meshnode.core.message import File, Manifest, check_manifest
from meshnode.core.words import say

_PIECE: Final = 256 * KIB


@dataclass(frozen=True, slots=True)
class Outgoing:
    """What is said of a message besides its files. `text` becomes the file TEXT_NAME. `to`: a device, or the office."""

    kind: str = ""
    meta: dict[str, str] = field(default_factory=dict)
    reference: str = ""
    priority: str = "routine"
    text: str = ""
    to: str = ""


#: Told (bytes done, bytes altogether).
Progress = Callable[[int, int], None]


def _unwatched(_: int, __: int) -> None:
    """Nobody looks."""


def submit(home: Home, paths: list[Path], said: Outgoing, progress: Progress = _unwatched) -> dict[str, Any]:
    """Hand one message to the daemon: {"key", "bundles", "size_bytes"}. Raises MeshnodeError; nothing is taken then."""
    if len(paths) > FILES_MAX:
        problem = say("it has {n} files; a message has 1 to {limit}", n=len(paths), limit=FILES_MAX)
        raise BadSubmission(problem=problem)
    with contextlib.ExitStack() as stack:
        opened = [_open(stack, path) for path in paths]
        files = tuple(_describe(path, file) for path, file in zip(paths, opened, strict=True))
        text = said.text.encode()
        if text:
            files = (*files, File(TEXT_NAME, len(text), "text/plain"))
        manifest = check_manifest(Manifest(said.kind, tuple(said.meta.items()), said.reference, 0, files))
        described = {
            "kind": said.kind,
            "meta": said.meta,
            "reference": said.reference,
            "priority": said.priority,
            "to": said.to,
            "files": [{"name": f.name, "size_bytes": f.size_bytes, "type": f.type} for f in files],
        }
        head = json.dumps(described).encode()
        head = len(head).to_bytes(4, "big") + head
        body = _stream(head, paths, opened, files, text, progress)
        answer: dict[str, Any] = Client(home).request(
            "POST", "/v1/messages", body, len(head) + manifest.files_size
        )
    return answer


def _open(stack: contextlib.ExitStack, path: Path) -> BinaryIO:
    try:
        # a pipe that nobody writes to is not waited for
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        file = stack.enter_context(os.fdopen(descriptor, "rb"))
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise FileTrouble(
                path=path, problem="is not a file that can be read twice: save it as a file first"
            )
        return file
    except FileNotFoundError:
        raise FileTrouble(path=path, problem="does not exist") from None
    except IsADirectoryError:
        raise FileTrouble(path=path, problem="is a folder: name the files in it") from None
    except PermissionError:
        raise FileTrouble(path=path, problem="cannot be read: you have no permission for it") from None
    except (OSError, ValueError) as error:
        text = error.strerror if isinstance(error, OSError) else say("no file can have this name")
        raise FileTrouble(path=path, problem=say("cannot be read: {problem}", problem=text)) from None


def _describe(path: Path, file: BinaryIO) -> File:
    size = os.fstat(file.fileno()).st_size
    kind, encoding = mimetypes.guess_type(path.name)
    return File(path.name, size, kind if kind and not encoding else "application/octet-stream")


def _stream(
    head: bytes,
    paths: list[Path],
    opened: list[BinaryIO],
    files: tuple[File, ...],
    text: bytes,
    progress: Progress,
) -> Iterator[bytes]:
    done, total = 0, sum(file.size_bytes for file in files)
    yield head
    for path, file, described in zip(paths, opened, files, strict=False):
        left = described.size_bytes
        while left:
            try:
                piece = file.read(min(left, _PIECE))
            except OSError as error:
                raise FileTrouble(
                    path=path, problem=say("cannot be read: {problem}", problem=error.strerror)
                ) from None
            if not piece:
                raise FileTrouble(path=path, problem="became shorter while it was read; nothing was taken")
            left -= len(piece)
            yield piece
            done += len(piece)
            progress(done, total)
    if text:
        yield text

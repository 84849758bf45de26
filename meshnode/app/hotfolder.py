"""A hot folder on the disk: looking, claiming, answering. All of this blocks; what to do is decided in `core.outbox`.

**Neither lost nor twice.** Between the commit that makes a message durable and the `.taken` that says so, the machine
may die. So an entry is first renamed into a folder of its own, `.taking/TICKET/it/`, under a random ticket, and all of
its files are written down in `.taking/TICKET/claim.json`; both are synced before the first byte is read. The ticket is
part of the message's label, in the same commit as the message. Whatever is found in `.taking` at the next look is
therefore either a message, by its ticket, and is answered and removed; or it is none, and goes back under its name.
Nothing is compared that could be alike by chance, and it does not matter what has been put there in the meantime.

Only the files in the claim are removed, and only if they are still what was read: what somebody added to the folder
meanwhile goes back.

**Who else may write here** may be another user, but no other node: what is in `.taking` is this node's. Nothing is
opened through a symbolic link, no pipe is waited for, and an answer replaces a link instead of following it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import json
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from meshnode.app.files import flush_folder, read_file, read_optional, sweep
from meshnode.app.unwritten import OPEN, StillWritten, check_unwritten
from meshnode.core.errors import BadSubmission, FileTrouble, LocalError
from meshnode.core.limits import FILES_MAX, MANIFEST_SIZE_MAX
from meshnode.core.message import MANIFEST_NAME
from meshnode.core.outbox import (
    REFUSED,
    TAKEN,
    Seen,
    Take,
    description_of,
    is_calm,
    is_litter,
    is_of_no_concern,
    is_unfinished,
)
from meshnode.core.words import Words, say

TAKING: Final = ".taking"
_INSIDE: Final = "it"
_CLAIM: Final = "claim.json"
_ANSWER_SIZE_MAX: Final = 64 * 1024
#: Of a file's name, in bytes.
_NAME_SIZE_MAX: Final = 255


@dataclass(frozen=True, slots=True)
class Part:
    """One file of an entry, and what it was when it was claimed. `path` is relative to the claim."""

    name: str
    path: str
    inode: int
    size_bytes: int
    mtime_ns: int

    def is_still(self, status: os.stat_result) -> bool:
        """Whether this is that file, unchanged."""
        return self.inode == status.st_ino and self.is_like(status)

    def is_like(self, status: os.stat_result) -> bool:
        """Whether it may be: some file systems number their files anew each time that they are mounted."""
        was = (self.size_bytes, self.mtime_ns)
        return stat.S_ISREG(status.st_mode) and was == (status.st_size, status.st_mtime_ns)


@dataclass(slots=True)
class Claim:
    """An entry that is being taken: its ticket, its own name, its files, and the file that describes it."""

    ticket: str
    place: Path
    name: str
    parts: tuple[Part, ...] = ()
    description: Part | None = None

    @property
    def inside(self) -> Path:
        """The folder that holds the entry."""
        return self.place / _INSIDE

    def said(self) -> dict[str, Any]:
        """What the file beside it, or the one in it, says of the message. Raises BadSubmission or FileTrouble."""
        if self.description is None:
            return {}
        try:
            said = json.loads(read_file(self.inside / self.description.path, 4 * MANIFEST_SIZE_MAX))
        except (ValueError, RecursionError):
            said = None
        if not isinstance(said, dict) or "files" in said:
            raise BadSubmission(
                problem="what describes it is no JSON object of kind, reference, meta, priority"
            )
        return said


@dataclass(slots=True)
class Look:
    """What is there: entries, how those looked that were refused, and claims that are open."""

    seen: dict[str, Seen] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    claims: list[Claim] = field(default_factory=list)

    @property
    def is_calm(self) -> bool:
        """Whether nothing here waits for anything."""
        return not self.claims and is_calm(self.seen, self.refused)


class HotFolder:
    """One hot folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._taking = root / TAKING
        self._read: dict[str, tuple[tuple[int, int], str]] = {}
        self._calm: tuple[int, int] | None = None
        self._before: tuple[int, int] | None = None

    # --- looking ---

    def look(self, *, thorough: bool = False) -> Look | None:
        """What lies here; None if there is no such folder. As long as nothing was added or renamed since nothing
        waited, it is not listed again, unless `thorough`. Raises OSError."""
        try:
            status = os.stat(self.root)
            now = status.st_ino, status.st_mtime_ns
            if now == self._calm and not thorough:
                return Look()
            look = Look()
            if self._before is None:
                self._sweep()
            names = os.listdir(self.root)
        except (FileNotFoundError, NotADirectoryError):
            return None
        for name in names:
            if name.endswith(REFUSED) and (of := self._refused_as(name)):
                look.refused[name.removesuffix(REFUSED)] = of
            if not is_of_no_concern(name) and (seen := self._see(name)) is not None:
                look.seen[name] = seen
        for name in look.seen:
            if (refusal := look.refused.get(_answer_name(name, ""))) is not None:
                look.refused[name] = refusal
        for name, seen in look.seen.items():
            if (described := description_of(name, look.seen)) is not None:
                beside = look.seen[described]
                both = f"{seen.looks}+{beside.looks}"
                look.seen[name] = Seen(both, seen.is_folder, seen.unfinished, seen.bad or beside.bad, seen.at)
        if TAKING in names:
            look.claims.extend(self._open_claims())
        # a change within the same tick of the file system's clock is seen by the second look
        self._calm = now if look.is_calm and now == self._before else None
        self._before = now
        return look

    def _sweep(self) -> None:
        """What a crash has left of an answer that was being written."""
        with contextlib.suppress(FileTrouble):
            sweep(self.root)

    def _see(self, name: str) -> Seen | None:
        path = self.root / name
        try:
            status = path.lstat()
            if stat.S_ISDIR(status.st_mode):
                return self._see_folder(path)
        except FileNotFoundError:
            return None
        except OSError as error:
            return Seen(
                f"error {error.errno}", bad=say("it cannot be read: {problem}", problem=error.strerror)
            )
        return Seen(_looks(status), bad=_bad(status), at=status.st_mtime_ns)

    def _see_folder(self, path: Path) -> Seen:
        rows, bad, unfinished, latest, count = [], None, None, 0, 0
        descriptor = os.open(path, OPEN | os.O_DIRECTORY)
        try:
            for name in sorted(os.listdir(descriptor)):
                if is_litter(name):
                    continue
                status = os.lstat(name, dir_fd=descriptor)
                rows.append(f"{name}\0{_looks(status)}")
                latest = max(latest, status.st_mtime_ns)
                count += 1
                if is_unfinished(name):
                    unfinished = say("{file} in it is not finished: finish it or remove it", file=name)
                elif (why := _bad(status)) is not None and bad is None:
                    bad = say("{file} in it cannot be taken: {why}", file=name, why=why)
        finally:
            os.close(descriptor)
        if not count:
            unfinished = say("it is empty: put files into it or remove it")
        if count > FILES_MAX + 1:
            bad = say("it has {n} files; a message has 1 to {limit}", n=count, limit=FILES_MAX)
        looks = hashlib.sha256("\n".join(rows).encode(errors="surrogateescape")).hexdigest()[:32]
        return Seen(looks, is_folder=True, unfinished=unfinished, bad=bad, at=latest)

    def _refused_as(self, answer: str) -> str:
        """How the entry looked that this answer refuses."""
        try:
            status = (self.root / answer).lstat()
            stamp = status.st_ino, status.st_mtime_ns
            if (known := self._read.get(answer)) is not None and known[0] == stamp:
                return known[1]
            descriptor = os.open(self.root / answer, OPEN)
            with os.fdopen(descriptor, "rb") as file:
                of = str(json.loads(file.read(_ANSWER_SIZE_MAX))["of"])
        except (OSError, ValueError, LookupError, TypeError, RecursionError):
            return ""
        self._read[answer] = stamp, of
        return of

    # --- claiming ---

    def claim(self, take: Take) -> Claim:
        """Move an entry aside, for good or until `put_back`. Raises StillWritten, BadSubmission or OSError."""
        check_unwritten(self.root / take.name)
        # others may have been taken since the look, for minutes
        seen = [self._see(name) for name in (take.name, take.beside) if name is not None]
        if "+".join(it.looks if it else "gone" for it in seen) != take.looks:
            raise StillWritten(name=take.name)
        claim = Claim(os.urandom(16).hex(), Path(), take.name)
        claim.place = self._taking / claim.ticket
        with contextlib.suppress(FileExistsError):
            os.mkdir(self._taking, 0o700)
        self._check_own()
        os.mkdir(claim.place, 0o700)
        try:
            os.mkdir(claim.inside, 0o700)
            os.rename(self.root / take.name, claim.inside / take.name)
            if take.beside is not None:
                os.rename(self.root / take.beside, claim.inside / take.beside)
            for folder in (claim.inside, claim.place, self._taking, self.root):
                flush_folder(folder)
            self._write_down(claim, take.beside)
        except BaseException:
            with contextlib.suppress(OSError):  # the next look finds what could not be put back
                self.put_back(claim)
            raise
        return claim

    def _check_own(self) -> None:
        """Raises PermissionError if `.taking` is another user's, who could put anything there."""
        status = self._taking.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
            raise PermissionError(errno.EPERM, f"{TAKING} in it is no folder of this user")

    def _write_down(self, claim: Claim, beside: str | None) -> None:
        path = claim.inside / claim.name
        check_unwritten(path)
        if path.is_dir() and not path.is_symlink():
            names = [name for name in sorted(os.listdir(path)) if not is_litter(name)]
            parts = [_part(claim.inside, f"{claim.name}/{name}") for name in names if name != MANIFEST_NAME]
            inner = f"{claim.name}/{MANIFEST_NAME}" if MANIFEST_NAME in names else None
        else:
            parts, inner = [_part(claim.inside, claim.name)], None
        claim.parts = tuple(parts)
        if (described := inner or beside) is not None:
            claim.description = _part(claim.inside, described)
        rows = [list(_row(part)) for part in parts]
        said = {"name": claim.name, "parts": rows, "description": _row(claim.description)}
        _write(claim.place, _CLAIM, json.dumps(said).encode())

    def _open_claims(self) -> Iterator[Claim]:
        self._check_own()
        for ticket in sorted(os.listdir(self._taking)):
            claim = Claim(ticket, self._taking / ticket, "")
            try:
                data = read_optional(claim.place / _CLAIM, 1024 * 1024)
            except LocalError:
                continue  # it cannot be read now, so nobody knows whether it is a message
            try:
                said = json.loads(data or b"")
                claim.name = said["name"]
                claim.parts = tuple(Part(*row) for row in said["parts"])
                claim.description = Part(*said["description"]) if said["description"] else None
            except (ValueError, LookupError, TypeError):
                pass  # cut off before it was written down, most likely: so it is no message
            yield claim

    def put_back(self, claim: Claim) -> None:
        """It was not taken. Raises OSError."""
        if claim.inside.is_dir():
            for name, path in self._free(claim.name, os.listdir(claim.inside)).items():
                os.rename(claim.inside / name, path)
            flush_folder(self.root)
            os.rmdir(claim.inside)
        self._close(claim)

    def _free(self, entry: str, names: list[str]) -> dict[str, Path]:
        """Where they can go: under their own names, unless there is another one by now. What describes an entry stays
        beside it."""
        first = entry if entry in names else min(names, key=len, default="")
        for number in itertools.count(1):
            moved = first if number == 1 else f"{Path(first).stem}-{number}{Path(first).suffix}"
            rest = {name: name.removeprefix(first) for name in names}
            paths = {name: self.root / f"{moved}{rest[name]}" for name in names if name.startswith(first)}
            paths |= {
                name: self.root / f"{name}{'' if number == 1 else f'-{number}'}"
                for name in names
                if name not in paths
            }
            if not any(map(os.path.lexists, paths.values())):
                break
        return paths

    def _close(self, claim: Claim) -> None:
        for name in os.listdir(claim.place):
            os.unlink(claim.place / name)
        os.rmdir(claim.place)
        flush_folder(self._taking)

    # --- answering ---

    def finish(self, claim: Claim, answer: dict[str, Any]) -> bool:
        """It is a message: say so and remove it. False if something came in meanwhile, which was put back. Raises
        OSError; then it is tried again."""
        _write(self.root, _answer_name(claim.name, TAKEN), _text(answer))
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.root / _answer_name(claim.name, REFUSED))
        for part in (*claim.parts, claim.description):
            if part is not None:
                with contextlib.suppress(FileNotFoundError):
                    path = claim.inside / part.path
                    if part.is_like(path.lstat()):
                        os.unlink(path)
        folder = claim.inside / claim.name
        if folder.is_dir() and not folder.is_symlink():
            for name in os.listdir(folder):
                if is_litter(name):
                    with contextlib.suppress(OSError):  # a folder, which goes back
                        os.unlink(folder / name)
            with contextlib.suppress(OSError):
                os.rmdir(folder)
        left = bool(claim.inside.is_dir() and os.listdir(claim.inside))
        self.put_back(claim)
        return not left

    def refuse(self, name: str, looks: str, code: str, reason: str) -> None:
        """Say why it is not taken; it stays where it is. Raises OSError."""
        _write(self.root, _answer_name(name, REFUSED), _text({"code": code, "reason": reason, "of": looks}))


def _text(answer: dict[str, Any]) -> bytes:
    # half a character, which JSON may hold, is written as JSON writes it
    return json.dumps(answer, ensure_ascii=False, indent=1).encode(errors="backslashreplace") + b"\n"


def _answer_name(name: str, ending: str) -> str:
    """The name of an answer: that of the entry, cut where it would be too long for a file system."""
    encoded, size_max = os.fsencode(name), _NAME_SIZE_MAX - len(REFUSED)
    return (name if len(encoded) <= size_max else encoded[:size_max].decode(errors="ignore")) + ending


def _looks(status: os.stat_result) -> str:
    return f"{status.st_mode:o}:{status.st_ino}:{status.st_size}:{status.st_mtime_ns}"


def _bad(status: os.stat_result) -> Words | None:
    if stat.S_ISREG(status.st_mode):
        return None
    if stat.S_ISLNK(status.st_mode):
        return say("it is a symbolic link: put the file itself here")
    if stat.S_ISDIR(status.st_mode):
        return say("it is a folder within a folder: a message has files only")
    return say("it is neither a file nor a folder")


def _part(inside: Path, path: str) -> Part:
    status = os.lstat(inside / path)
    if not stat.S_ISREG(status.st_mode):
        raise StillWritten(name=path)  # it has changed since the look
    return Part(Path(path).name, path, status.st_ino, status.st_size, status.st_mtime_ns)


def _row(part: Part | None) -> tuple[str | int, ...]:
    return (part.name, part.path, part.inode, part.size_bytes, part.mtime_ns) if part else ()


def _write(folder: Path, name: str, data: bytes) -> None:
    """A file of this name, whole and synced, instead of whatever is there; links are not followed."""
    temporary = folder / f".meshnode-{os.urandom(8).hex()}.tmp"
    descriptor = os.open(
        temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666
    )
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, folder / name)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    flush_folder(folder)

"""Reading and writing files: a crash leaves the old file or the new one, and trouble becomes a sentence.

A write goes to a temporary file in the same folder (`.meshnode-XXXX.tmp`, mode 0600), is flushed to the disk,
and is renamed over the old file; then the folder is flushed. What a crash leaves of it, `sweep` takes away.
Every problem is a `FileTrouble` with the path and what is wrong with it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from meshnode.core.errors import FileTrouble, HomeOfOther, HomeReadable
from meshnode.core.words import say

PRIVATE: Final = 0o600
PUBLIC: Final = 0o644

_TEMPORARY_START: Final = ".meshnode-"
_TEMPORARY_END: Final = ".tmp"

_PROBLEMS: Final = {
    errno.ENOENT: say("does not exist"),
    errno.EISDIR: say("is a folder"),
    errno.ENOTDIR: say("leads through something that is not a folder"),
    errno.ELOOP: say("is a symbolic link that leads nowhere"),
    errno.ENAMETOOLONG: say("has a name that is too long"),
    errno.ENOSPC: say("cannot be written: the disk is full"),
    errno.EDQUOT: say("cannot be written: the disk quota is used up"),
    errno.EROFS: say("cannot be written: the disk is read-only"),
}
_CANNOT: Final = {
    "read": say("cannot be read: {problem}"),
    "written": say("cannot be written: {problem}"),
    "removed": say("cannot be removed: {problem}"),
    "locked": say("cannot be locked: {problem}"),
}


def trouble(path: Path, error: OSError, action: str) -> FileTrouble:
    """The sentence for `error`, when `path` could not be `action` ('read', 'written', 'removed', 'locked')."""
    problem = _PROBLEMS.get(error.errno or 0)
    if problem is None:
        why = "permission denied" if isinstance(error, PermissionError) else error.strerror or str(error)
        problem = _CANNOT[action].about(problem=why)
    return FileTrouble(path=path, problem=problem)


def is_temporary(name: str) -> bool:
    """Whether a file of this name is what a crash left of a write."""
    return name.startswith(_TEMPORARY_START) and name.endswith(_TEMPORARY_END)


def sweep(directory: Path) -> None:
    """Take away what a crash left of earlier writes. The caller keeps others from writing meanwhile."""
    for name in list_folder(directory):
        if is_temporary(name):
            with contextlib.suppress(OSError):
                (directory / name).unlink()


def list_folder(directory: Path) -> list[str]:
    """The names in a folder, sorted. Raises FileTrouble."""
    try:
        return sorted(os.listdir(directory))
    except NotADirectoryError:
        raise FileTrouble(path=directory, problem="is a file, not a folder") from None
    except OSError as error:
        raise trouble(directory, error, "read") from None


def read_file(path: Path, size_max: int) -> bytes:
    """The whole file. Raises FileTrouble, also when it has more than `size_max` bytes."""
    data = read_optional(path, size_max)
    if data is None:
        raise FileTrouble(path=path, problem="does not exist")
    return data


def read_optional(path: Path, size_max: int) -> bytes | None:
    """As `read_file`; None if there is no such file."""
    try:
        with path.open("rb") as file:
            data = file.read(size_max + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise trouble(path, error, "read") from None
    if len(data) > size_max:
        raise FileTrouble(
            path=path, problem=say("is too large: more than {limit_bytes} bytes", limit_bytes=size_max)
        )
    return data


def write_file(path: Path, data: bytes, mode: int = PRIVATE) -> None:
    """Write the whole file durably, in place of an older one if there is one.

    Raises FileTrouble; then the older one is still there, unless it was the folder that could not be flushed.
    """
    try:
        # a link stays a link, and only a file is replaced: renaming over /dev/stdout would remove it
        target = Path(os.path.realpath(path))
        _refuse_special(path, target)
        temporary = target.with_name(f"{_TEMPORARY_START}{os.urandom(8).hex()}{_TEMPORARY_END}")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fchmod(file.fileno(), mode)
                os.fsync(file.fileno())
            os.replace(temporary, target)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        flush_folder(target.parent)
    except OSError as error:
        raise trouble(path, error, "written") from None


def check_replaceable(path: Path) -> None:
    """Raises FileTrouble if `path` cannot be written as a file: asked before what cannot be taken back."""
    target = Path(os.path.realpath(path))
    try:
        _refuse_special(path, target)
    except OSError as error:
        raise trouble(path, error, "written") from None
    if not target.parent.is_dir():
        wrong = say("cannot be written: there is no folder {folder}", folder=target.parent)
        raise FileTrouble(path=path, problem=wrong)


def _refuse_special(path: Path, target: Path) -> None:
    try:
        kind = target.lstat().st_mode
    except FileNotFoundError:
        return
    if stat.S_ISDIR(kind):
        raise FileTrouble(path=path, problem="is a folder")
    if not stat.S_ISREG(kind):
        raise FileTrouble(path=path, problem="is not a file that can be replaced")


def flush_folder(directory: Path) -> None:
    """Make renames and removals in a folder durable. Raises OSError."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_private_folder(directory: Path) -> None:
    """Make a folder, and those above it, or take an existing one, and set its mode 0700. Raises FileTrouble."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory.chmod(0o700)
        flush_folder(directory.parent)
    except FileExistsError:
        raise FileTrouble(path=directory, problem="is a file, not a folder") from None
    except OSError as error:
        raise trouble(directory, error, "written") from None


def check_private(path: Path) -> None:
    """Raises HomeReadable if others have any right to `path`, HomeOfOther if it is another user's (not root's).

    What is not there is private.
    """
    try:
        status = path.stat()
    except FileNotFoundError:
        return
    except OSError as error:
        raise trouble(path, error, "read") from None
    if status.st_uid not in (os.geteuid(), 0):
        raise HomeOfOther(path=path, owner=_user_name(status.st_uid))
    if stat.S_IMODE(status.st_mode) & 0o077:
        raise HomeReadable(path=path, mode="700" if stat.S_ISDIR(status.st_mode) else "600")


def _user_name(uid: int) -> str:
    import pwd  # only on the way to an error

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


@contextlib.contextmanager
def locked_folder(directory: Path) -> Iterator[None]:
    """Hold the folder alone, waiting for whoever holds it. The kernel drops the lock when its holder ends."""
    import fcntl

    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise trouble(directory, error, "read") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)

"""A disk that fails on command: the process dies at a step, a step fails, the power goes.

Every call that changes something (open to create, write, fsync, mkdir, rename, unlink, rmdir) is a step. Death is
before a step, or in the middle of a write; from then on no call does anything, so no `finally` cleans up.

What survives a power cut is modelled pessimistically: of a file what was there when it was last flushed, of a folder
the names that were there when it was last flushed. A rename of a folder that is not wholly flushed is an error at
once, since a disk may keep the rename and lose the content.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

_REAL = {
    name: getattr(os, name)
    for name in ("open", "close", "write", "fsync", "mkdir", "rename", "unlink", "rmdir", "scandir", "stat")
}


class Killed(BaseException):
    """The process has died."""


class Disk:
    """Everything below `base`."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.steps = 0
        self._kill_at = 0
        self._fail_at = 0
        self._errno = 0
        self._dead = False
        self._paths: dict[int, Path] = {}
        self._files: dict[int, bytes] = {}
        self._folders: dict[int, dict[str, tuple[int, bool]]] = {}

    @contextmanager
    def run(self, kill_at: int = 0, fail_at: int = 0, errno: int = 0) -> Iterator[None]:
        """One process. It dies before step `kill_at`, counted from 1; step `fail_at` fails with `errno`."""
        self.steps, self._dead = 0, False
        self._kill_at, self._fail_at, self._errno = kill_at, fail_at, errno
        try:
            with ExitStack() as patches:
                for name in _REAL:
                    patches.enter_context(patch.object(os, name, self._wrapped(name)))
                yield
        finally:
            for descriptor in self._paths:
                _REAL["close"](descriptor)
            self._paths.clear()

    def _wrapped(self, name: str) -> Callable[..., Any]:
        real = _REAL[name]
        special = getattr(self, f"_{name}", real)

        def call(*args: Any, **kwargs: Any) -> Any:
            if self._dead:
                raise Killed
            return special(*args, **kwargs)

        return call

    def _step(self, before_death: Callable[[], object] = lambda: None) -> None:
        self.steps += 1
        if self.steps == self._kill_at:
            before_death()
            self._dead = True
            raise Killed
        if self.steps == self._fail_at:
            raise OSError(self._errno, os.strerror(self._errno))

    def _path(self, path: Any, dir_fd: int | None = None) -> Path:
        return Path(path) if dir_fd is None else self._paths[dir_fd] / path

    # --- calls --------------------------------------------------------------------------------------------------

    def _open(self, path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if flags & os.O_CREAT:
            self._step()
        descriptor: int = _REAL["open"](path, flags, mode, dir_fd=dir_fd)
        self._paths[descriptor] = self._path(path, dir_fd)
        if flags & os.O_CREAT:
            self._files.pop(os.fstat(descriptor).st_ino, None)
        return descriptor

    def _close(self, descriptor: int) -> None:
        self._paths.pop(descriptor, None)
        _REAL["close"](descriptor)

    def _write(self, descriptor: int, data: Any) -> int:
        part = memoryview(data)[: max(1, len(data) // 2)]
        self._step(lambda: _REAL["write"](descriptor, part))
        written: int = _REAL["write"](descriptor, part)  # a short write, as the system may do
        return written

    def _fsync(self, descriptor: int) -> None:
        self._step()
        status, path = os.fstat(descriptor), self._paths[descriptor]
        if path.is_dir():
            self._folders[status.st_ino] = self._names(path)
        else:
            self._files[status.st_ino] = self._content(path)

    def _mkdir(self, path: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        self._step()
        _REAL["mkdir"](path, mode, dir_fd=dir_fd)
        self._folders.pop(self._path(path, dir_fd).stat().st_ino, None)

    def _rename(self, source: Any, target: Any) -> None:
        self._step()
        self._must_be_flushed(Path(source))
        _REAL["rename"](source, target)

    def _unlink(self, path: Any, *, dir_fd: int | None = None) -> None:
        self._step()
        _REAL["unlink"](path, dir_fd=dir_fd)

    def _rmdir(self, path: Any, *, dir_fd: int | None = None) -> None:
        self._step()
        _REAL["rmdir"](path, dir_fd=dir_fd)

    # --- power --------------------------------------------------------------------------------------------------

    @staticmethod
    def _names(folder: Path) -> dict[str, tuple[int, bool]]:
        with _REAL["scandir"](folder) as entries:
            return {entry.name: (entry.inode(), entry.is_dir()) for entry in entries}

    @staticmethod
    def _content(path: Path) -> bytes:
        descriptor = _REAL["open"](path, os.O_RDONLY)
        try:
            return os.pread(descriptor, os.fstat(descriptor).st_size, 0)
        finally:
            _REAL["close"](descriptor)

    def _must_be_flushed(self, folder: Path) -> None:
        names = self._names(folder)
        assert self._folders.get(folder.stat().st_ino) == names, "the folder was not flushed"
        for name, (inode, _) in names.items():
            assert self._files.get(inode) == self._content(folder / name), f"{name} was not flushed"

    def power_cut(self, image: Path) -> Path:
        """Write what a power cut would leave now to the folder `image`."""
        image.mkdir()
        self._restore(self.base.stat().st_ino, image)
        return image

    def _restore(self, inode: int, target: Path) -> None:
        for name, (inner, is_folder) in self._folders.get(inode, {}).items():
            if is_folder:
                (target / name).mkdir()
                self._restore(inner, target / name)
            else:
                (target / name).write_bytes(self._files.get(inner, b""))

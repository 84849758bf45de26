"""A machine to install on: the files of this one, and whatever is changed there is gone with it.

An overlay over / in a mount namespace of its own, with a tmpfs above. Its home folders, /tmp and the checkout are
empty, so that what is installed cannot lean on them. It has this machine's network, and no systemd that runs.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any, Self

_MAKE = """
set -e
root="$1/root"
mount -t tmpfs tmpfs "$1"
mkdir "$1/upper" "$1/work" "$root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$root"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
shift
for hidden in run tmp "$@"; do
    if [ -d "$root/$hidden" ]; then mount -t tmpfs -o mode=1777 tmpfs "$root/$hidden"; fi
done
echo made
exec cat >/dev/null  # until whoever asked for it lets go
"""


def why_not() -> str:
    """Why there can be no such root here; empty if there can."""
    if os.geteuid() != 0:
        return "only root can install"
    for tool in (
        "unshare",
        "nsenter",
        "chroot",
        "setpriv",
        "dpkg",
        "dpkg-deb",
        "deb-systemd-helper",
        "useradd",
    ):
        if shutil.which(tool) is None:
            return f"{tool} is not here"
    trial = (
        "mount -t tmpfs tmpfs /tmp; mkdir /tmp/u /tmp/w /tmp/m;"
        " mount -t overlay overlay -o lowerdir=/,upperdir=/tmp/u,workdir=/tmp/w /tmp/m"
    )
    tried = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-ec", trial],
        capture_output=True,
        text=True,
        check=False,
    )
    return f"there can be no overlay over / here: {tried.stderr.strip()}" if tried.returncode else ""


class CleanRoot:
    """One such machine; a context manager. `place`: an empty folder. `hidden`: folders that are empty there."""

    def __init__(self, place: Path, *hidden: Path) -> None:
        self._place = place
        self._hidden = [str(path).lstrip("/") for path in (Path("/root"), Path("/home"), *hidden)]
        self._holder: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self._holder = subprocess.Popen(
            [
                "unshare",
                "--mount",
                "--propagation",
                "private",
                "sh",
                "-c",
                _MAKE,
                "sh",
                str(self._place),
                *self._hidden,
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == "made\n"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._holder is not None
        self._holder.communicate()  # closes its input, and with it goes the namespace

    def command(self, *words: object, user: str = "") -> list[str]:
        """What runs this there, as the same process all the way."""
        assert self._holder is not None
        who = (
            ["setpriv", "--reuid", user, "--regid", user, "--clear-groups", "--inh-caps=-all"] if user else []
        )
        there = ["nsenter", f"--mount=/proc/{self._holder.pid}/ns/mnt", "chroot", str(self._place / "root")]
        return [*there, *who, *map(str, words)]

    def run(self, *words: object, user: str = "", **more: Any) -> subprocess.CompletedProcess[str]:
        """Run this there, to its end."""
        return subprocess.run(
            self.command(*words, user=user),
            capture_output=True,
            text=True,
            check=False,
            env={
                "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
                "LANGUAGE": "en",
                "DEBIAN_FRONTEND": "noninteractive",
            },
            cwd="/",
            **more,
        )

    def do(self, *words: object, user: str = "", **more: Any) -> str:
        """The same where it has to succeed; what it says."""
        done = self.run(*words, user=user, **more)
        assert done.returncode == 0, f"{words}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def put(self, path: str, data: bytes) -> None:
        """A file there."""
        self.do("sh", "-c", f"cat >{path}", input=data.decode("latin-1"))

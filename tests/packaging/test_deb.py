"""The Debian package: built, installed, upgraded, removed and purged on a machine of its own; records outlive it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from meshnode import __version__
from tests.packaging.roots import CleanRoot, why_not

ROOT = Path(__file__).parents[2]
PYTHON = f"/usr/bin/python3.{sys.version_info.minor}"
HOME = "/var/lib/meshnode"
NEWER = "9.4.0"
CONFIG = 'listen = "127.0.0.1:0"\ncontrol = "127.0.0.1:0"\ndiscovery = false\n'


def _owner_of_python() -> bool:
    return subprocess.run(["dpkg", "-S", PYTHON], capture_output=True, check=False).returncode == 0


WHY_NOT = why_not() or (
    "" if _owner_of_python() else f"this Python is not the system's, {PYTHON} of a package"
)
pytestmark = [pytest.mark.skipif(WHY_NOT != "", reason=WHY_NOT), pytest.mark.slow]


def build(out: Path, source: Path) -> Path:
    """By the script itself, without the check of .venv that its wrapper begins with."""
    done = subprocess.run(
        [sys.executable, ROOT / "scripts/deb.py", "--out", out, "--source", source, "--compress", "none"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"SOURCE_DATE_EPOCH": "1700000000"},
    )
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())


def checkout(folder: Path, version: str) -> Path:
    """This checkout as it is now, in another version; others may go on working in this one."""
    for name in ("meshnode", "docs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.jsonl"))
    for name in ("README.md", "SECURITY.md", "CHANGELOG.md", "LICENSE", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    init = folder / "meshnode/__init__.py"
    init.write_text(init.read_text().replace(f'"{__version__}"', f'"{version}"'))
    return folder


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Of this version and of a newer one."""
    folder = tmp_path_factory.mktemp("packages")
    (now := folder / "now").mkdir()
    (newer := folder / "newer").mkdir()
    return build(folder, checkout(now, __version__)), build(folder, checkout(newer, NEWER))


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory, packages: tuple[Path, Path]) -> Iterator[CleanRoot]:
    shared = packages[0].parent
    with CleanRoot(tmp_path_factory.mktemp("machine"), ROOT) as machine:
        for package in packages:  # it sees nothing of ours, so they are handed in
            with package.open("rb") as file:
                subprocess.run(
                    machine.command("sh", "-c", f"cat >/run/{package.name}"), stdin=file, check=True
                )
        assert "meshnode" not in machine.run("ls", shared).stdout
        yield machine


@contextmanager
def daemon(machine: CleanRoot) -> Iterator[None]:
    """The node runs there, as its own user, from ready to its end."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("")
        manager.settimeout(30.0)
        process = subprocess.Popen(
            machine.command("meshnode", "--home", HOME, "run", user="meshnode"),
            env={
                "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
                "NOTIFY_SOCKET": "@" + manager.getsockname()[1:].decode(),
            },
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            try:
                assert manager.recv(4096).startswith(b"READY=1\n")
            except TimeoutError:
                process.kill()
                pytest.fail(f"the daemon was not ready in time; it logged: {process.communicate()[1]}")
            yield
            process.send_signal(signal.SIGTERM)
            _, log = process.communicate(timeout=20.0)
            assert process.returncode == 0, log
            assert "Traceback" not in log
        finally:
            process.kill()
            process.wait()


def node(machine: CleanRoot, *words: object) -> str:
    return machine.do("meshnode", "--home", HOME, *words, user="meshnode")


def messages(machine: CleanRoot) -> list[tuple[str, str]]:
    return [(it["key"], it["state"]) for it in json.loads(node(machine, "messages", "--json"))]


def content(machine: CleanRoot) -> list[str]:
    """A line for each file of the home: its digest and its name."""
    return sorted(machine.do("find", HOME, "-type", "f", "-exec", "sha256sum", "{}", "+").splitlines())


def version(machine: CleanRoot) -> str:
    return machine.do("meshnode", "--version").strip()


def test_the_same_checkout_gives_the_same_bytes(packages: tuple[Path, Path]) -> None:
    """With the libraries as they were compiled before, which is what takes time."""
    before = hashlib.sha256(packages[0].read_bytes()).hexdigest()
    assert build(packages[0].parent, packages[0].parent / "now") == packages[0]
    assert hashlib.sha256(packages[0].read_bytes()).hexdigest() == before


def test_it_says_what_it_needs(packages: tuple[Path, Path]) -> None:
    said = subprocess.check_output(["dpkg-deb", "--field", packages[0]], text=True)
    assert f"Version: {__version__}\n" in said
    assert f"Depends: {Path(PYTHON).name}, passwd, init-system-helpers, libc6 (>= 2." in said
    listed = subprocess.check_output(["dpkg-deb", "--contents", packages[0]], text=True)
    assert all(re.match(r"\S+ root/root ", line) for line in listed.splitlines())
    for path in (
        "/usr/bin/meshnode",
        "/usr/lib/systemd/system/meshnode.service",
        "/usr/share/bash-completion/completions/meshnode",
        "/usr/share/zsh/vendor-completions/_meshnode",
        "/usr/share/fish/vendor_completions.d/meshnode.fish",
        "/usr/share/doc/meshnode/copyright",
        "/usr/share/man/man1/meshnode.1.gz",
    ):
        assert f" .{path}\n" in listed


def test_from_the_first_installation_to_the_last_purge(
    machine: CleanRoot, packages: tuple[Path, Path]
) -> None:
    """One story, since each step begins where the one before ended."""
    old, new = (f"/run/{package.name}" for package in packages)

    said = machine.do("dpkg", "--install", old)
    assert "belongs to no fleet yet" in said
    assert version(machine) == f"meshnode {__version__}"
    assert machine.do("dpkg", "--verify", "meshnode") == ""
    assert machine.do("stat", "-c", "%U:%G %a", HOME).strip() == "meshnode:meshnode 700"
    assert machine.do("systemctl", "is-enabled", "meshnode.service").strip() == "enabled"
    complete = ". /usr/share/bash-completion/completions/meshnode; complete -p meshnode"
    assert "_meshnode_completion meshnode" in machine.do("bash", "-c", complete)

    # the office and a device of a fleet, with the authority on the same machine
    for name, role, home in (("kantor", "office", "/run/kantor"), ("siti", "officer", HOME)):
        machine.do("install", "-d", "-m", "700", "-o", "meshnode", "-g", "meshnode", home)
        machine.do("meshnode", "--home", home, "init", "--name", name, "--role", role, user="meshnode")
        if role == "office":
            machine.do("meshnode", "authority", "init", "/run/authority", "--fleet", "Tasikmalaya")
        welcome = f"/tmp/{name}.welcome"
        machine.do(
            "meshnode", "authority", "enroll", "/run/authority", f"{home}/{name}.request", "--out", welcome
        )
        machine.do("chown", "meshnode", welcome)
        machine.do("meshnode", "--home", home, "join", welcome, user="meshnode")
    machine.put(f"{HOME}/config.toml", CONFIG.encode())
    machine.put("/tmp/form.json", b"{}")
    with daemon(machine):
        key = json.loads(node(machine, "submit", "--json", "/tmp/form.json"))["key"]

    said = machine.do("dpkg", "--install", new)
    assert "belongs to no fleet" not in said
    assert version(machine) == f"meshnode {NEWER}"
    with daemon(machine):
        assert messages(machine) == [(key, "on_this_device_only")]

    # removed, then purged: the records stay, and it is said how they would go
    before = content(machine)
    machine.do("dpkg", "--remove", "meshnode")
    assert machine.run("meshnode", "--version").returncode != 0
    assert machine.run("ls", "/usr/lib/meshnode").returncode != 0, "nothing was left behind"
    said = machine.do("dpkg", "--purge", "meshnode")
    assert f"meshnode: {HOME} stays as it is." in said
    assert f"rm -r {HOME} && userdel meshnode" in said
    assert content(machine) == before
    assert any("store.db" in line for line in before)
    assert machine.run("systemctl", "is-enabled", "meshnode.service").stdout.strip() != "enabled"
    # installed again it is the same node; and where there is nothing to keep, nothing is left
    assert "belongs to no fleet" not in machine.do("dpkg", "--install", new)
    assert content(machine) == before
    machine.do("find", HOME, "-mindepth", "1", "-delete")
    assert "stays as it is" not in machine.do("dpkg", "--purge", "meshnode")
    assert machine.run("ls", "-d", HOME).returncode != 0
    assert machine.run("id", "meshnode").returncode != 0

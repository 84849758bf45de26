"""What the shell offers at TAB, asked for as the shell asks."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.app.fleets import Fleet, Node, environment

COMMAND = Path(sys.executable).with_name("meshnode")


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with Fleet(tmp_path_factory.mktemp("fleet")) as fleet:
        office, siti = fleet.enroll("kantor", "office"), fleet.enroll("siti")
        siti.configure(peers=[office.address])
        fleet.start(office, siti)
        fleet.until("siti is known", lambda: [it["name"] for it in office.get("devices")] == ["siti"])
        office.give({"letter.txt": b"x"}, reference="Surat", to="siti")
        yield office


def run(variables: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    """The command, as it is installed, with these variables too."""
    env = {**environment(), **variables}
    return subprocess.run([COMMAND, *words], env=env, capture_output=True, text=True, check=False)


def offered(*words: str | Path) -> list[str]:
    """What is offered for the last of these words."""
    typed = ["meshnode", *map(str, words)]
    asked = {"_MESHNODE_COMPLETE": "bash_complete", "COMP_WORDS": " ".join(typed)}
    done = run({**asked, "COMP_CWORD": str(len(typed) - 1)})
    assert not done.stderr
    return [line.partition(",")[2] for line in done.stdout.splitlines() if line]


def test_commands_and_options() -> None:
    assert {"status", "submit", "store"} <= set(offered("s"))
    assert offered("status", "--wa") == ["--watch"]


def test_devices_and_keys(office: Node) -> None:
    home = "--home", str(office.home)
    assert offered(*home, "submit", "--to", "s") == ["siti"]
    assert offered(*home, "submit", "--to", "a") == ["all"]
    (message,) = office.get("messages")
    assert offered(*home, "answer", message["key"][:4]) == [message["key"]]
    assert offered(*home, "answer", "zz") == []


def test_no_daemon_no_suggestions(tmp_path: Path) -> None:
    assert offered("--home", tmp_path, "answer", "a") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_for_each_shell(shell: str) -> None:
    done = run({}, "completion", shell)
    assert f"_MESHNODE_COMPLETE={shell}_complete" in done.stdout
    assert done.returncode == 0


def test_a_shell_that_is_not_known() -> None:
    done = run({"SHELL": "/bin/ksh"}, "completion")
    assert done.returncode == 2
    assert "Name the shell: bash, zsh, fish." in done.stderr

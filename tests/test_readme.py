"""The README says what is so: the commands it names exist, the files it points at are there, its numbers are ours."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from meshnode.app.cli import COMMANDS, main
from meshnode.core.limits import KIB, PAYLOAD_SIZE_MAX
from tests.command_lines import assert_is_one

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
COMMAND_LINES = re.findall(r"^ {4}(meshnode .+?)(?:\s{2,}#.*)?$", README, re.MULTILINE)


def test_it_shows_commands() -> None:
    assert len(COMMAND_LINES) > 10


@pytest.mark.parametrize("line", COMMAND_LINES)
def test_each_command_line_is_one(line: str) -> None:
    assert_is_one(line)


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`((?:tests|meshnode|scripts)/[\w/.]+)`", README))))
def test_each_path_is_there(path: str) -> None:
    assert (ROOT / path).exists()


@pytest.mark.parametrize(
    ("folder", "names"), re.findall(r"^\| `(meshnode/\w+|scripts)` \| .*? \| (.*) \|$", README, re.MULTILINE)
)
def test_each_starting_point_is_there(folder: str, names: str) -> None:
    for name in re.findall(r"`([\w./]+)`", names):
        assert (ROOT / folder / name).exists()


def test_numbers() -> None:
    assert f"at most {PAYLOAD_SIZE_MAX // KIB} KiB" in README


def test_help_names_every_command_as_the_command_does() -> None:
    context = click.Context(main)
    for name, (_, text) in COMMANDS.items():
        command = main.get_command(context, name)
        assert command is not None
        assert (command.help or "").splitlines()[0] == text

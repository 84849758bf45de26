"""The manual page: it is as the commands are, complete, and roff that nothing warns of."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import click
import pytest

from meshnode.app.cli import main
from meshnode.core import errors
from meshnode.core.errors import MeshnodeError

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "meshnode.1"


def manual(*words: object, language: str = "") -> subprocess.CompletedProcess[str]:
    """`scripts/manual`, with this Python."""
    return subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "manual.py"), *map(str, words)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "LANGUAGE": language},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """Its functions."""
    spec = importlib.util.spec_from_file_location("manual", ROOT / "scripts" / "manual.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_up_to_date() -> None:
    done = manual("--check")
    assert done.returncode == 0, done.stderr


def test_a_stale_page_is_named_and_written_again_whatever_the_language(tmp_path: Path) -> None:
    page = tmp_path / "meshnode.1"
    page.write_text(PAGE.read_text().replace("peers", "friends"))
    done = manual("--check", "--page", page)
    assert done.returncode == 1
    assert done.stderr == f"{page} is out of date: run scripts/manual\n"
    assert manual("--page", page, language="id").returncode == 0
    assert page.read_text() == PAGE.read_text()


def below(command: click.Command, path: str) -> list[tuple[str, click.Command]]:
    """A command and all below it that can be run."""
    if not isinstance(command, click.Group):
        return [(path, command)]
    found = []
    context = click.Context(command)
    for name in command.list_commands(context):
        each = command.get_command(context, name)
        assert each is not None
        found += below(each, f"{path} {name}")
    return found


def plain(roff: str) -> str:
    """Without what means something to roff."""
    return re.sub(r"\\f[BIR]|\\&", "", roff).replace("\\-", "-").replace("\\e", "\\")


def test_every_command_and_option_is_in_it() -> None:
    page = plain(PAGE.read_text())
    found = below(main, "meshnode")
    assert len(found) > 15
    for path, command in found:
        section = page.partition(f'.SS "{path}')[2].partition("\n.S")[0]
        assert section, path
        for parameter in command.params:
            if isinstance(parameter, click.Option) and not parameter.hidden:
                assert any(opt in section for opt in parameter.opts), f"{path} {parameter.opts}"
            elif isinstance(parameter, click.Argument):
                assert parameter.make_metavar(click.Context(command)) in section, f"{path} {parameter.name}"


def test_every_section_is_in_it_in_the_usual_order() -> None:
    wanted = "NAME SYNOPSIS DESCRIPTION OPTIONS COMMANDS FILES ENVIRONMENT"
    sections = re.findall(r"^\.SH (.+)$", PAGE.read_text(), re.MULTILINE)
    assert sections == [*wanted.split(), "EXIT STATUS", "SEE ALSO"]


def test_every_variable_of_the_environment_that_is_read_is_explained() -> None:
    page = PAGE.read_text().partition(".SH ENVIRONMENT")[2]
    read = set()
    for path in (ROOT / "meshnode").rglob("*.py"):
        text = path.read_text()
        read |= set(re.findall(r"environ(?:ment)?(?:\.get\(|\[)\s*\"([A-Z_]+)\"", text))
        read |= set(re.findall(r"envvar=\"([A-Z_]+)\"", text))
        read |= set(re.findall(r"\"(MESHNODE_[A-Z_]+)\"", text))
    assert {"MESHNODE_HOME", "MESHNODE_PASSPHRASE_FILE", "NOTIFY_SOCKET"} <= read
    assert not [name for name in sorted(read) if name not in page], "explain them in scripts/manual.py"


def test_every_exit_code_of_an_error_is_explained() -> None:
    page = PAGE.read_text().partition(".SH EXIT STATUS")[2]
    classes = [it for it in vars(errors).values() if isinstance(it, type) and issubclass(it, MeshnodeError)]
    codes = {it.exit_code for it in classes}
    assert codes == {1, 2, 3}
    for code in codes | {0, 130}:
        assert f"\\fB{code}\\fR" in page


@pytest.mark.parametrize(
    "command",
    [
        ("groff", "-man", "-ww", "-z"),
        ("mandoc", "-Tlint", "-Wwarning"),
        ("man", "--warnings=w", "-E", "UTF-8", "-l", "-Tutf8", "-Z"),
    ],
    ids=lambda command: command[0],
)
def test_nothing_warns_of_it(command: tuple[str, ...]) -> None:
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    done = subprocess.run([*command, str(PAGE)], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    if command[0] == "mandoc":
        assert done.stdout == ""


def test_groff_does_warn_of_bad_roff(tmp_path: Path) -> None:
    if shutil.which("groff") is None:
        pytest.skip("groff is not installed")
    page = tmp_path / "bad.1"
    page.write_text(PAGE.read_text() + ".NOSUCHMACRO\n")
    done = subprocess.run(
        ["groff", "-man", "-ww", "-z", str(page)], capture_output=True, text=True, check=False, timeout=60
    )
    assert "NOSUCHMACRO" in done.stderr


def test_what_means_something_to_roff_is_escaped(script: ModuleType) -> None:
    assert script.escaped(r".ds 'a' \fB -x") == r"\&.ds 'a' \efB \-x"
    assert script.escaped("'tis") == r"\&'tis"
    assert script.escaped("Siti · Budi") == r"Siti \[u00B7] Budi"
    assert script.running("run `meshnode init`\n now") == r"run \fBmeshnode init\fR now"
    assert list(script.paragraphs("One.\n\n\b\na\n  b\n\nTwo.")) == [
        *(".PP", "One.", ".PP", ".nf", "a", "  b", ".fi", ".PP", "Two.")
    ]
    assert script.option_name("-h, --home DIR") == r"\fB\-h\fR, \fB\-\-home\fR \fIDIR\fR"
    assert script.option_name("--all / --some") == r"\fB\-\-all\fR / \fB\-\-some\fR"

"""Writes the manual page `docs/meshnode.1` from the commands, their options, and what the code says of a home.

scripts/manual             write it
scripts/manual --check     say whether it is up to date

What the commands do not say of themselves is written here: the description, the environment, the exit codes.
"""

from __future__ import annotations

import argparse
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click

import meshnode
from meshnode.app import home
from meshnode.app.cli import main as meshnode_command

ROOT: Final = Path(__file__).resolve().parents[1]
PAGE: Final = ROOT / "docs" / "meshnode.1"
#: When what is written by hand here was last looked at.
LOOKED_AT: Final = "2026-11-28"

DESCRIPTION: Final = (
    """meshnode carries records from places without internet to an office. Each device is a node; nodes that meet on the
    same Wi-Fi swap what they carry, sealed so that nobody but the office can read it; whoever first reaches the office,
    or the internet, delivers for all. A device keeps its own records until the office has signed for them.""",
    """All of one node is in one folder, its home. A device becomes a node with `meshnode init`, and a member of a fleet
    with `meshnode join` and the welcome that the authority has written for it; from then on `meshnode run` is all that
    has to go on. The other commands talk to the node that runs on the same home.""",
)
#: A test fails when the code reads another one.
ENVIRONMENT: Final = {
    "MESHNODE_HOME": """The home, if --home is not given. Without either it is the folder for data of meshnode that the
    platform gives each user.""",
    "MESHNODE_PASSPHRASE_FILE": """A file with the passphrase of the node's keys, if they have one. As a service it may
    be the credential `meshnode-passphrase` instead, in CREDENTIALS_DIRECTORY.""",
    "CREDENTIALS_DIRECTORY": "Where systemd puts a service's credentials.",
    "https_proxy, all_proxy, http_proxy, no_proxy": """The HTTP proxy through which the office is reached, and for which
    hosts none is used.""",
    "LANGUAGE, LC_ALL, LC_MESSAGES, LANG": "The language of what is said, unless config.toml names one.",
    "NO_COLOR, TERM": """Where NO_COLOR is set, or TERM is dumb, the screen of `meshnode status --watch` is plain.""",
    "NOTIFY_SOCKET, WATCHDOG_USEC, WATCHDOG_PID": """How systemd hears that a service has started, how it is, and that
    it lives.""",
    "XDG_CONFIG_HOME": "Where a user's units of systemd are.",
    "SHELL": "For which shell `meshnode completion` writes, unless it is named.",
}
#: In a home besides what its module says.
FOLDERS: Final = {
    "inbox": "At an office: what was delivered, a folder for each message, unless config.toml names another sink.",
    "received": "What the office has written to this device, a folder for each message.",
}
EXIT_STATUS: Final = {
    0: "Done.",
    1: "Refused or failed; why is said in one sentence on standard error.",
    2: "Wrong usage.",
    3: "The node is not running, or does not answer.",
    130: "Interrupted.",
}
SEE_ALSO: Final = """README.md says how a fleet is founded, and docs/protocol.md what nodes say to each other. Every
    command takes --help."""


# --- roff -------------------------------------------------------------------------------------------------------


def escaped(text: str) -> str:
    """Text in which nothing means anything to roff."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    text = "".join(letter if letter.isascii() else f"\\[u{ord(letter):04X}]" for letter in text)
    return f"\\&{text}" if text.startswith((".", "'")) else text


def running(text: str) -> str:
    """A paragraph; what stands between backticks is bold."""
    pieces = escaped(" ".join(text.split())).split("`")
    return "".join(f"\\fB{piece}\\fR" if at % 2 else piece for at, piece in enumerate(pieces))


def paragraphs(text: str) -> Iterator[str]:
    """A help text. A paragraph that begins with \\b keeps its lines, as click has it."""
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        if paragraph.startswith("\b"):
            yield from [".PP", ".nf", *map(escaped, paragraph.splitlines()[1:]), ".fi"]
        elif paragraph.strip():
            yield from [".PP", running(paragraph)]


def option_name(said: str) -> str:
    """`-h, --home DIR` with the names bold and the rest in italics."""
    names = []
    for name in re.split(r"(, | / )", said):
        word, space, rest = name.partition(" ") if name.startswith("-") else (name, "", "")
        if not word.startswith("-"):
            names.append(escaped(word))
            continue
        names.append(f"\\fB{escaped(word)}\\fR{space}" + (f"\\fI{escaped(rest)}\\fR" if rest else ""))
    return "".join(names)


# --- the commands -----------------------------------------------------------------------------------------------


def options(command: click.Command, context: click.Context) -> Iterator[str]:
    """Each option, but --help."""
    for parameter in command.get_params(context):
        if not isinstance(parameter, click.Option) or "--help" in parameter.opts:
            continue
        if record := parameter.get_help_record(context):
            name, text = record
            yield from [".TP", option_name(name), running(text) or "\\&"]


def commands(command: click.Command, context: click.Context) -> Iterator[str]:
    """A command and those below it, each with its options."""
    if isinstance(command, click.Group):
        if context.parent is not None and command.help:
            yield from [f'.SS "{escaped(context.command_path)}"', *list(paragraphs(command.help))[1:]]
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            if below is not None and not below.hidden:
                yield from commands(below, click.Context(below, context, name))
        return
    usage = [piece for piece in command.collect_usage_pieces(context) if piece]
    yield f'.SS "{" ".join(map(escaped, [context.command_path, *usage]))}"'
    yield from list(paragraphs(command.help or ""))[1:]
    yield from options(command, context)


def files() -> Iterator[str]:
    """What is in a home, as its module says."""
    rows: list[list[str]] = []
    for line in (home.__doc__ or "").splitlines():
        if found := re.fullmatch(r" {4}(\S.*?) {2,}(\S.*)", line):
            rows.append([found[1], found[2]])
        elif rows and (more := re.fullmatch(r" {30,}(\S.*)", line)):
            rows[-1][1] += f" {more[1]}"
    if not rows:
        raise ValueError("meshnode/app/home.py does not say any more what is in a home")
    yield "In the home:"
    for name, text in rows:
        yield from [".TP", f"\\fI{escaped(name)}\\fR", running(f"{text[:1].upper()}{text[1:]}.")]
    for name, text in FOLDERS.items():
        yield from [".TP", f"\\fI{name}\\fR", running(text)]


def manual() -> str:
    """The page."""
    with click.Context(meshnode_command, info_name="meshnode") as context:
        said = [
            '.\\" Made by scripts/manual; not to be edited.',
            f'.TH MESHNODE 1 "{LOOKED_AT}" "meshnode {meshnode.__version__}" "User Commands"',
            ".SH NAME",
            f"meshnode \\- {running((meshnode_command.help or '').rstrip('.').lower())}",
            ".SH SYNOPSIS",
            "\\fBmeshnode\\fR [\\fB\\-\\-home\\fR \\fIDIR\\fR] \\fICOMMAND\\fR [\\fIARGUMENT\\fR]...",
            ".SH DESCRIPTION",
            "\n.PP\n".join(map(running, DESCRIPTION)),
            ".SH OPTIONS",
            *options(meshnode_command, context),
            ".SH COMMANDS",
            *commands(meshnode_command, context),
            ".SH FILES",
            *files(),
            ".SH ENVIRONMENT",
        ]
    for name, text in ENVIRONMENT.items():
        said += [".TP", f"\\fB{escaped(name)}\\fR", running(text)]
    said.append(".SH EXIT STATUS")
    for code, text in EXIT_STATUS.items():
        said += [".TP", f"\\fB{code}\\fR", running(text)]
    said += [".SH SEE ALSO", running(SEE_ALSO)]
    return "\n".join(said) + "\n"


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="scripts/manual", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit code 1 if the page is out of date"
    )
    parser.add_argument("--page", type=Path, default=PAGE, help="the page (docs/meshnode.1)")
    said = parser.parse_args()
    page = manual()
    if said.page.exists() and said.page.read_text() == page:
        return
    if said.check:
        sys.exit(f"{said.page} is out of date: run scripts/manual")
    said.page.write_text(page)
    print(f"{said.page} is written")


if __name__ == "__main__":
    main()

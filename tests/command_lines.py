"""Whether what a document shows as a command line is one."""

from __future__ import annotations

import shlex

import click

from meshnode.app.cli import main


def assert_is_one(line: str) -> None:
    """`meshnode ...` with its options and arguments; nothing runs."""
    command: click.Command = main
    context = click.Context(main)
    words = shlex.split(line)[1:]
    if words == ["--version"]:
        return
    if words[0] == "--home":
        words = words[2:]
    while isinstance(command, click.Group):
        found = command.get_command(context, words.pop(0))
        assert found is not None, line
        command = found
    # parses options and counts arguments, and runs nothing
    command.make_context(command.name, words)

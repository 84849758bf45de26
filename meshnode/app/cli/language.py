"""The command line in the reader's language: help texts, and what click itself says."""

from __future__ import annotations

import copy
import gettext
import inspect
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

from meshnode.app.language import DOMAIN, FOLDER, catalogue, known, of_locale
from meshnode.core.words import reading, translated


@contextmanager
def in_language(language: str) -> Iterator[None]:
    """All that is said in this block is in this language, by us and by click."""
    before = gettext.textdomain(), os.environ.get("LANGUAGE")
    gettext.bindtextdomain(DOMAIN, str(FOLDER))
    gettext.textdomain(DOMAIN)
    os.environ["LANGUAGE"] = language
    try:
        with reading(catalogue(language)):
            yield
    finally:
        gettext.textdomain(before[0])
        if before[1] is None:
            del os.environ["LANGUAGE"]
        else:
            os.environ["LANGUAGE"] = before[1]


def language_of(arguments: Sequence[str], default_home: Callable[[], Path]) -> str:
    """What the home's config.toml says, or else the locale. Anything wrong with that file is for others to say."""
    home: Path | None = None
    for at, argument in enumerate(arguments):
        if argument == "--home" and at + 1 < len(arguments):
            home = Path(arguments[at + 1])
        elif argument.startswith("--home="):
            home = Path(argument.removeprefix("--home="))
    try:
        text = ((home or default_home()) / "config.toml").read_text()
    except (OSError, ValueError):
        return of_locale()
    if "language" in text:
        import tomllib

        try:
            said = tomllib.loads(text).get("language")
        except ValueError:
            said = None
        if isinstance(said, str) and (language := known(said)):
            return language
    return of_locale()


def help_texts(command: click.Command) -> Iterator[str]:
    """What a command and those below it say of themselves, paragraph by paragraph, as it stands in the catalogues."""
    yield from _paragraphs(command.help)
    for parameter in command.params:
        if isinstance(parameter, click.Option) and parameter.help:
            yield parameter.help
    if isinstance(command, click.Group):
        for each in command.commands.values():
            yield from help_texts(each)


C = TypeVar("C", bound=click.Command)


def translated_command(command: C) -> C:
    """A copy of a command with the help in the reader's language."""
    command = copy.copy(command)
    if command.help:
        command.help = "\n\n".join(map(translated, _paragraphs(command.help)))
    command.params = [_translated_parameter(parameter) for parameter in command.params]
    if isinstance(command, click.Group):
        command.commands = {name: translated_command(each) for name, each in command.commands.items()}
    return command


def _translated_parameter(parameter: click.Parameter) -> click.Parameter:
    if isinstance(parameter, click.Option) and (text := parameter.help):
        parameter = copy.copy(parameter)
        parameter.help = translated(text)
    return parameter


def _paragraphs(text: str | None) -> list[str]:
    """As click shows them: lines run together, but where a line `\\b` keeps them as they are."""
    paragraphs = inspect.cleandoc(text or "").split("\n\n")
    return [it if it.startswith("\b") else " ".join(it.split()) for it in paragraphs if it.strip()]


class Speaking(click.Group):
    """A group that speaks the reader's language, whatever it is asked."""

    def main(self, args: Sequence[str] | None = None, *more: Any, **kwargs: Any) -> Any:
        """As click's."""
        arguments = list(sys.argv[1:] if args is None else args)
        with in_language(language_of(arguments, self.home_of_words)):
            return click.Group.main(translated_command(self), arguments, *more, **kwargs)

    def home_of_words(self) -> Path:
        """Where config.toml may say the language, if no --home is given."""
        raise NotImplementedError

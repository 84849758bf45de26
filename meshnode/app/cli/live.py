"""A screen that is drawn again and again, without flicker: on a terminal in its place, in a pipe one below another."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Final

import click

from meshnode.core.errors import MeshnodeError

WATCH_S: Final = 1.0


def watch(draw: Callable[[], str]) -> None:
    """Show what `draw` makes, every second, until interrupted. Raises what the first drawing raises; if a later one
    fails, the reason is shown until it is over, as when the daemon is started again."""
    first = draw()
    if sys.stdout.isatty():
        _in_place(first, draw)
    click.echo(first)
    while True:
        time.sleep(WATCH_S)
        click.echo(_drawn(draw))


def _in_place(first: str, draw: Callable[[], str]) -> None:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console = Console(highlight=False)
    with Live(Text.from_ansi(first), console=console, screen=True, auto_refresh=False) as live:
        while True:
            time.sleep(WATCH_S)
            live.update(Text.from_ansi(_drawn(draw)), refresh=True)


def _drawn(draw: Callable[[], str]) -> str:
    try:
        return draw()
    except MeshnodeError as problem:
        return str(problem)

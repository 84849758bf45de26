"""`meshnode completion`, and what the shell offers after TAB: the names of devices and the keys of messages.

The shell asks at every TAB, so whatever goes wrong then is an answer without suggestions, never an error.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

import click
from click.shell_completion import CompletionItem, get_completion_class

from meshnode.core.errors import MeshnodeError
from meshnode.core.words import say

SHELLS: Final = ("bash", "zsh", "fish")
#: What the shell sets when it asks.
VARIABLE: Final = "_MESHNODE_COMPLETE"


def _asked(ctx: click.Context, what: str) -> list[dict[str, Any]]:
    from meshnode.app.cli import default_home
    from meshnode.app.client import Client
    from meshnode.app.home import Home

    said = ctx.find_root().params.get("home")
    try:
        told: list[dict[str, Any]] = Client(Home(said or default_home())).request("GET", what)
    except MeshnodeError:
        return []
    return told


def devices(ctx: click.Context, _: click.Parameter, begun: str) -> list[CompletionItem]:
    """Devices that an office can write to, whose names begin so."""
    names = [device["name"] for device in _asked(ctx, "/v1/devices")]
    return [CompletionItem(name) for name in [*names, "all"] if name.startswith(begun)]


def keys(ctx: click.Context, _: click.Parameter, begun: str) -> list[CompletionItem]:
    """Messages of this device, whose keys begin so, and what they are called."""
    found = [message for message in _asked(ctx, "/v1/messages") if message["key"].startswith(begun)]
    return [CompletionItem(message["key"], help=message["reference"]) for message in found]


@click.command()
@click.argument("shell", type=click.Choice(SHELLS), required=False)
@click.pass_context
def completion(ctx: click.Context, shell: str | None) -> None:
    """Print what makes the shell complete commands at TAB.

    SHELL is the one in use, if it is not named. For bash put this into ~/.bashrc:

    \b
        eval "$(meshnode completion bash)"

    for zsh the same with zsh into ~/.zshrc, and for fish:

    \b
        meshnode completion fish > ~/.config/fish/completions/meshnode.fish
    """
    shell = shell or Path(os.environ.get("SHELL", "")).name
    known = get_completion_class(shell) if shell in SHELLS else None
    if known is None:
        raise click.UsageError(str(say("Name the shell: {shells}.", shells=", ".join(SHELLS))))
    click.echo(known(ctx.find_root().command, {}, "meshnode", VARIABLE).source())

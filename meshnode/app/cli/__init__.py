"""The command `meshnode`.

The table below names each command's module and says its one-line help, so that `meshnode --help` loads nothing
else; a test compares it with what the commands say of themselves. All errors become one sentence and an exit
code here, and nowhere else: 1 refused or failed, 2 wrong usage, 3 the node is not running, 130 interrupted.
"""

from __future__ import annotations

import importlib
import os
from gettext import gettext
from pathlib import Path
from typing import Any, Final

import click

from meshnode import __version__
from meshnode.app.cli.language import Speaking, translated_command
from meshnode.core.errors import MeshnodeError
from meshnode.core.words import say, translated

#: Name of the command: where it is, what it does.
COMMANDS: Final = {
    "authority": ("meshnode.app.cli.authority:authority", "Found a fleet and admit its devices."),
    "init": ("meshnode.app.cli.membership:init", "Make a node: its keys and its request to join a fleet."),
    "join": ("meshnode.app.cli.membership:join", "Become a member of the fleet with its welcome."),
    "fleet": ("meshnode.app.cli.membership:fleet", "Adopt a newer fleet document by hand."),
    "run": ("meshnode.app.cli.run:run", "Run the node in the foreground."),
    "submit": ("meshnode.app.cli.messages:submit", "Hand over one message; returns when it is safe on disk."),
    "status": ("meshnode.app.cli.messages:status", "Say how this node is and what it carries."),
    "messages": (
        "meshnode.app.cli.messages:messages",
        "List the messages of this device and where they are.",
    ),
    "why": ("meshnode.app.cli.why:why", "Tell what became of a message, and what to do."),
    "officers": (
        "meshnode.app.cli.officers:officers",
        "List all devices, what came of each, and what is still out.",
    ),
    "devices": ("meshnode.app.cli.messages:devices", "List the devices that an office can write to."),
    "answer": (
        "meshnode.app.cli.messages:answer",
        "Tell the officer what the registry made of a message.",
    ),
    "peers": ("meshnode.app.cli.messages:peers", "List the nodes in contact."),
    "web": ("meshnode.app.cli.web:web", "Open the node's page in the browser."),
    "export": ("meshnode.app.cli.carrying:export", "Write to a stick what it lacks of what is carried here."),
    "import": ("meshnode.app.cli.carrying:import_", "Take what is on a stick."),
    "store": ("meshnode.app.cli.store:store", "Rescue what a damaged store still holds."),
    "service": ("meshnode.app.cli.service:service", "Run the node as a service of systemd."),
    "doctor": ("meshnode.app.cli.doctor:doctor", "Find out why nobody is met or nothing delivered."),
    "completion": (
        "meshnode.app.cli.completion:completion",
        "Print what makes the shell complete commands at TAB.",
    ),
    "simulate": (
        "meshnode.app.cli.simulate:simulate",
        "Say what a fleet would deliver, by running the real node over a plan of contacts.",
    ),
}

INTERRUPTED: Final = 130


class LazyGroup(Speaking):
    """A group that imports a command when it is called, and turns errors into sentences."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the table's order."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of this name, imported now."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return translated_command(command)

    def home_of_words(self) -> Path:
        """The home that is used without --home."""
        said = os.environ.get("MESHNODE_HOME")
        return Path(said) if said else default_home()

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The section of commands in the help, from the table alone."""
        with formatter.section(gettext("Commands")):
            formatter.write_dl([(name, translated(text)) for name, (_, text) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command. Its errors end here."""
        try:
            return super().invoke(ctx)
        except MeshnodeError as error:
            click.echo(f"meshnode: {error}", err=True)
            code = error.exit_code
        except (KeyboardInterrupt, click.Abort):
            click.echo(err=True)  # closes the line with the terminal's ^C
            code = INTERRUPTED
        raise click.exceptions.Exit(code)


def default_home() -> Path:
    """The platform's folder for this user's data of meshnode."""
    import platformdirs

    return Path(platformdirs.user_data_dir("meshnode", appauthor=False))


def _home(ctx: click.Context, parameter: click.Parameter, value: str | None) -> Path | None:
    if value == "":
        raise click.BadParameter(str(say("the folder's name is empty")), ctx, parameter)
    return None if value is None else Path(value).absolute()


@click.group(
    cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.option(
    "--home",
    metavar="DIR",
    envvar="MESHNODE_HOME",
    callback=_home,
    help="The folder that holds all of this node; without it MESHNODE_HOME, else the platform's data folder.",
)
@click.version_option(__version__, message="%(prog)s %(version)s")
@click.pass_context
def main(ctx: click.Context, home: Path | None) -> None:
    """Carry sealed records from device to device until they reach the office."""
    ctx.obj = home if home is not None else default_home()

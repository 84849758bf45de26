"""`meshnode submit`, `status`, `messages` and `peers`: what an officer sees many times a day."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from meshnode.app.cli.completion import devices as devices_at_tab
from meshnode.app.cli.completion import keys
from meshnode.app.cli.screen import (
    Look,
    devices_screen,
    json_text,
    messages_screen,
    peers_screen,
    received_screen,
)
from meshnode.app.cli.status import status_screen
from meshnode.core.words import say

_JSON = click.option("--json", "as_json", is_flag=True, help="For programs: JSON instead of text.")


_PLAIN = click.option("--plain", is_flag=True, help="No colours and nothing drawn, as for a screen reader.")


def _say(value: Any) -> None:
    click.echo(json_text(value))


def _ask(path: Path, what: str) -> Any:
    from meshnode.app.client import Client
    from meshnode.app.home import Home

    return Client(Home(path)).request("GET", what)


def _pairs(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for value in values:
        key, equals, text = value.partition("=")
        if not (key and equals):
            raise click.BadParameter(str(say("{value} is not KEY=VALUE", value=repr(value))))
        if key in pairs:
            raise click.BadParameter(str(say("{key} is named twice", key=repr(key))))
        pairs[key] = text
    return pairs


@click.command()
@click.argument("files", metavar="FILE...", nargs=-1, type=click.Path(path_type=Path, readable=False))
@click.option("--kind", default="", metavar="K", help="What it is, as ktp-el.")
@click.option(
    "--meta",
    multiple=True,
    metavar="KEY=VALUE",
    callback=_pairs,
    help="A fact about it; sealed like the files. May be given several times.",
)
@click.option(
    "--reference", default="", metavar="TEXT", help="What you call it; shown by `meshnode messages`."
)
@click.option(
    "--priority",
    type=click.Choice(["routine", "urgent"]),
    default="routine",
    show_default=True,
    help="Urgent messages are sent before all others.",
)
@click.option("--text", default="", help="A text to send as message.txt, with files or without.")
@click.option(
    "--to",
    default="",
    metavar="DEVICE",
    shell_complete=devices_at_tab,
    help="At an office: write to this device, or to `all` that are known.",
)
@_JSON
@click.pass_obj
def submit(
    path: Path,
    files: tuple[Path, ...],
    kind: str,
    meta: dict[str, str],
    reference: str,
    priority: str,
    text: str,
    to: str,
    as_json: bool,
) -> None:
    """Hand over one message; returns when it is safe on disk.

    All FILEs together are one message, of at most 256 MiB. They are sealed to the office at once (or to the device that
    an office writes to): not even this device can read them again, and the files themselves stay where they are.
    """
    from meshnode.app.cli.progress import progress
    from meshnode.app.home import Home
    from meshnode.app.outgoing import Outgoing
    from meshnode.app.outgoing import submit as hand_over

    if not files and not text:
        raise click.UsageError(str(say("Name at least one FILE, or give a --text.")))
    names = [device["id"] for device in _ask(path, "/v1/devices")] if to == "all" else [to]
    taken = []
    for name in names:
        outgoing = Outgoing(kind, meta, reference, priority, text, name)
        with progress(say("Handing over")) as show:
            taken.append(hand_over(Home(path), list(files), outgoing, show))
        if not as_json:
            key = taken[-1]["key"]
            named = say("Safe on this device ({reference}): {key}", reference=reference, key=key)
            click.echo(named if reference else say("Safe on this device: {key}", key=key))
    if as_json:
        _say(taken if to == "all" else taken[0])
    elif not taken:
        click.echo(say("No device is known here yet."))


@click.command()
@click.argument("key", shell_complete=keys)
@click.argument("verdict", type=click.Choice(["accepted", "refused"]))
@click.option("--reason", default="", metavar="TEXT", help="What its officer should know, or do.")
@click.pass_obj
def answer(path: Path, key: str, verdict: str, reason: str) -> None:
    """Tell the officer what the registry made of a message.

    At an office: KEY is what message.json says. The answer goes to the device that wrote the message, and is shown
    there as the message's state.
    """
    from meshnode.app.client import Client
    from meshnode.app.home import Home

    body = json.dumps({"key": key, "verdict": verdict, "reason": reason}).encode()
    Client(Home(path)).request("POST", "/v1/answers", body)
    accepted = say("On its way: {key} was accepted.", key=key)
    click.echo(accepted if verdict == "accepted" else say("On its way: {key} was refused.", key=key))


@click.command()
@_JSON
@click.pass_obj
def devices(path: Path, as_json: bool) -> None:
    """List the devices that an office can write to."""
    told = _ask(path, "/v1/devices")
    _say(told) if as_json else click.echo(devices_screen(told, Look.of_terminal()))


@click.command()
@_JSON
@_PLAIN
@click.option("--watch", is_flag=True, help="Show it again every second, until interrupted.")
@click.option(
    "--check",
    is_flag=True,
    help="For monitors such as Nagios: one line, and as exit code 0 if all is well, 1 for a warning, 2 if it is"
    " critical or the node does not run, 3 if it cannot be told.",
)
@click.pass_obj
def status(path: Path, as_json: bool, plain: bool, watch: bool, check: bool) -> None:
    """Say how this node is and what it carries."""
    if check:
        from meshnode.app.cli.checking import check_node

        if as_json or watch:
            raise click.UsageError(str(say("Give --check alone.")))
        line, code = check_node(path)
        click.echo(line)
        raise click.exceptions.Exit(code)

    def draw() -> str:
        told = _ask(path, "/v1/status")
        return json_text(told) if as_json else status_screen(told, Look.of_terminal(plain=plain))

    if watch:
        from meshnode.app.cli.live import watch as draw_again

        draw_again(draw)
    click.echo(draw())


@click.command()
@_JSON
@click.option("--received", is_flag=True, help="What the office has written to this device instead.")
@click.pass_obj
def messages(path: Path, as_json: bool, received: bool) -> None:
    """List the messages of this device and where they are."""
    told = _ask(path, "/v1/received" if received else "/v1/messages")
    screen = received_screen if received else messages_screen
    _say(told) if as_json else click.echo(screen(told, Look.of_terminal()))


@click.command()
@_JSON
@click.pass_obj
def peers(path: Path, as_json: bool) -> None:
    """List the nodes in contact."""
    told = _ask(path, "/v1/peers")
    _say(told) if as_json else click.echo(peers_screen(told, Look.of_terminal()))

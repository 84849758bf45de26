"""`meshnode why`: what became of one message, and what to do about it."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from meshnode.app.cli.completion import keys
from meshnode.app.cli.screen import Look, json_text, moment, plain, size
from meshnode.core.words import count, say


@click.command()
@click.argument("key", shell_complete=keys)
@click.option("--json", "as_json", is_flag=True, help="For programs: JSON instead of text.")
@click.pass_obj
def why(path: Path, key: str, as_json: bool) -> None:
    """Tell what became of a message, and what to do.

    KEY is what `meshnode messages` and message.json say, or the beginning of it; or the reference of a message of this
    device. At the office, and where a message is carried, it tells what is known there.
    """
    from meshnode.app.client import Client
    from meshnode.app.home import Home

    told = Client(Home(path)).request("GET", f"/v1/messages/{quote(key, safe='')}")
    click.echo(json_text(told) if as_json else story_screen(told, Look.of_terminal()))


def story_screen(told: dict[str, Any], look: Look | None = None) -> str:
    """The screen of `meshnode why`: a line an event, then where it is now."""
    look = look or Look()
    lines = look.wrap(_head(told))
    for event in told["story"]:
        at = moment(event["at_ms"]) if event["at_ms"] is not None else 16 * " "
        lines.extend(look.wrap(plain(event["text"]), f"  {at}  ", 20 * " "))
    lines.extend(look.wrap(say("Now: {sentence}", sentence=plain(told["now"])), rest="  "))
    return "\n".join(lines)


def _head(told: dict[str, Any]) -> str:
    what = plain(told["reference"]) or plain(told["kind"]) or told["key"]
    parts = [str(say("{what}, from {source} to {to}", what=what, source=told["source"], to=told["to"]))]
    if told["bundles"] is not None:
        parts.append(str(count("{n} bundle", "{n} bundles", told["bundles"])))
    if told["size_bytes"] is not None:
        parts.append(size(told["size_bytes"]))
    if told["priority"] == "urgent":
        parts.append(str(say("urgent")))
    if what != told["key"]:
        parts.append(told["key"])
    return ", ".join(parts)

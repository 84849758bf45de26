"""`meshnode store`: what a person does with a damaged store."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import click

from meshnode.app.cli.progress import progress
from meshnode.app.cli.screen import json_text, plain, size
from meshnode.core.words import Words, count, say

if TYPE_CHECKING:
    from meshnode.app.salvage import Summary


@click.group()
def store() -> None:
    """Rescue what a damaged store still holds."""


@store.command("salvage")
@click.option(
    "--out", metavar="FILE", type=click.Path(path_type=Path), help="Write the rescued store there instead."
)
@click.option("--json", "as_json", is_flag=True, help="For programs: JSON instead of text.")
@click.pass_obj
def salvage_(path: Path, out: Path | None, as_json: bool) -> None:
    """Rescue all that is intact into a new store.

    The new store takes the place of the old one, which is kept beside it as store.db.broken-1. The daemon must not run.
    It needs as much free space as the store has, here or where --out names a file. What was lost of colleagues' records
    comes again by itself; own messages that are not whole any more are named.
    """
    from meshnode.app.home import Home
    from meshnode.app.salvage import salvage

    with progress(say("Reading")) as show:
        done = salvage(Home(path), out, show)
    if as_json:
        click.echo(json_text(dataclasses.asdict(done)))
        return
    click.echo(salvage_screen(done))


def salvage_screen(done: Summary) -> str:
    """What was rescued, what was lost, and where it all is now."""
    rescued = say(
        "Rescued {bundles}, {messages}, {receipts} and {certificates} ({size}); {lost}.",
        bundles=count("{n} bundle", "{n} bundles", done.bundles),
        messages=count("{n} message of this device", "{n} messages of this device", done.messages),
        receipts=count("{n} receipt", "{n} receipts", done.receipts),
        certificates=count("{n} certificate", "{n} certificates", done.certificates),
        size=size(done.size_bytes),
        lost=count("{n} bundle lost", "{n} bundles lost", done.lost),
    )
    lines: list[Words | str] = [rescued]
    if done.affected:
        lines.append(say("Not whole any more, and not known to be at the office:"))
        lines.extend(
            f"  {plain(it.reference)} ({it.key})" if it.reference else f"  {it.key}" for it in done.affected
        )
        lines.append(say("They come back if a colleague carries them; if they do not, record them again."))
    if done.kept is None:
        where = _files(done.path, [done.payloads] if done.payloads else [])
        lines.append(say("The rescued store is {store}; that of this node is as it was.", store=where))
    else:
        where = _files(done.kept, done.kept_payloads)
        lines.append(
            say("The damaged store is kept as {store}; this node can be started again.", store=where)
        )
    return "\n".join(map(str, lines))


def _files(path: Path, payloads: list[Path]) -> Words | str:
    """Where a store is, with its large payloads, which belong in the same folder under the same name."""
    if not payloads:
        return plain(str(path))
    names = ", ".join(plain(each.name) for each in payloads)
    return say("{store} with {payloads} beside it", store=plain(str(path)), payloads=names)

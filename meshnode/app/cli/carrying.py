"""`meshnode export` and `import`: what a person does with a stick."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from meshnode.app.cli.progress import progress
from meshnode.app.cli.screen import json_text, plain, size
from meshnode.core.words import count, say

if TYPE_CHECKING:
    from meshnode.app.byhand import Exported, Imported

_STICK = click.argument("stick", metavar="DIR|FILE", type=click.Path(path_type=Path, readable=False))
_WIPE = click.option(
    "--wipe-delivered", "wipes", is_flag=True, help="Remove from the stick what is known to be delivered."
)
_JSON = click.option("--json", "as_json", is_flag=True, help="For programs: JSON instead of text.")


@click.command()
@_STICK
@_WIPE
@_JSON
@click.pass_obj
def export(path: Path, stick: Path, wipes: bool, as_json: bool) -> None:
    """Write to a stick what it lacks of what is carried here.

    In a folder it makes files of its own beside those of other devices; a FILE ends in .meshnode. All on it is sealed.
    A stick that was pulled out too soon is completed by running this again.
    """
    from meshnode.app.byhand import export_to
    from meshnode.app.home import Home

    with progress(say("Writing")) as show:
        done, problem = export_to(Home(path), stick, wipes=wipes, progress=show)
    _say(done, as_json, exported_screen(done))
    if problem is not None:
        raise problem


@click.command("import")
@_STICK
@_WIPE
@_JSON
@click.pass_obj
def import_(path: Path, stick: Path, wipes: bool, as_json: bool) -> None:
    """Take what is on a stick.

    All that is said to be taken is safe on this device's disk. A stick that was pulled out too soon is read to its end
    by running this again. Files of other fleets stay as they are.
    """
    from meshnode.app.byhand import import_from
    from meshnode.app.home import Home

    with progress(say("Reading")) as show:
        done, problem = import_from(Home(path), stick, wipes=wipes, progress=show)
    _say(done, as_json, imported_screen(done))
    if problem is not None:
        raise problem


def _say(done: Exported | Imported, as_json: bool, screen: str) -> None:
    from meshnode.app.byhand import as_json as told

    if as_json:
        click.echo(json_text(told(done)))
        return
    for skipped in done.skipped:
        text = say("{file} is left as it is: {problem}.", file=plain(skipped["file"]), problem=skipped["why"])
        click.echo(text, err=True)
    click.echo(screen)


def exported_screen(done: Exported) -> str:
    """What was written."""
    written = count(
        "{n} bundle ({size}) written",
        "{n} bundles ({size}) written",
        done.bundles,
        size=size(done.size_bytes),
    )
    if done.files:
        files = ", ".join(plain(name) for name in done.files)
        written = say("{written} to {files}", written=written, files=files)
    parts = [written]
    if done.known:
        parts.append(say("{n} there already", n=done.known))
    if done.receipts:
        parts.append(count("{n} receipt", "{n} receipts", done.receipts))
    if done.wiped:
        parts.append(say("{n} delivered and removed", n=done.wiped))
    return ", ".join(map(str, parts)) + "."


def imported_screen(done: Imported) -> str:
    """What was taken, what not and why."""
    parts = [count("{n} bundle taken", "{n} bundles taken", done.bundles)]
    for number, what in (
        (done.known, say("{n} known already")),
        (done.no_room, say("{n} refused for lack of room")),
        (done.useless, say("{n} expired or of no use")),
        (done.damaged, say("{n} damaged")),
        (done.wiped, say("{n} delivered and removed from it")),
    ):
        if number:
            parts.append(what.about(n=number))
    parts.append(count("{n} new receipt", "{n} new receipts", done.receipts))
    taken = ", ".join(map(str, parts))
    return str(
        say("{taken}; the fleet document is version {version}.", taken=taken, version=done.fleet_version)
    )

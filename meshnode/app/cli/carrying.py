"""`meshnode export` and `import`: what a person does with a stick."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from meshnode.app.cli.screen import amount, json_text, plain, size

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

    with _Line("written") as line:
        done, problem = export_to(Home(path), stick, wipes=wipes, progress=line.show)
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

    with _Line("read") as line:
        done, problem = import_from(Home(path), stick, wipes=wipes, progress=line.show)
    _say(done, as_json, imported_screen(done))
    if problem is not None:
        raise problem


def _say(done: Exported | Imported, as_json: bool, text: str) -> None:
    from meshnode.app.byhand import as_json as told

    if as_json:
        click.echo(json_text(told(done)))
        return
    for skipped in done.skipped:
        click.echo(f"{plain(skipped['file'])} is left as it is: {skipped['why']}.", err=True)
    click.echo(text)


def exported_screen(done: Exported) -> str:
    """What was written."""
    where = f" to {', '.join(plain(name) for name in done.files)}" if done.files else ""
    parts = [f"{amount(done.bundles, 'bundle')} ({size(done.size_bytes)}) written{where}"]
    if done.known:
        parts.append(f"{done.known} there already")
    if done.receipts:
        parts.append(amount(done.receipts, "receipt"))
    if done.wiped:
        parts.append(f"{done.wiped} delivered and removed")
    return ", ".join(parts) + "."


def imported_screen(done: Imported) -> str:
    """What was taken, what not and why."""
    parts = [f"{amount(done.bundles, 'bundle')} taken"]
    for count, what in (
        (done.known, "known already"),
        (done.no_room, "refused for lack of room"),
        (done.useless, "expired or of no use"),
        (done.damaged, "damaged"),
        (done.wiped, "delivered and removed from it"),
    ):
        if count:
            parts.append(f"{count} {what}")
    parts.append(amount(done.receipts, "new receipt"))
    return ", ".join(parts) + f"; the fleet document is version {done.fleet_version}."


class _Line:
    """A line of progress, at a terminal only."""

    def __init__(self, verb: str) -> None:
        self._verb = verb
        self._shown = -1
        self._is_terminal = sys.stderr.isatty()

    def __enter__(self) -> _Line:
        return self

    def __exit__(self, *_: Any) -> None:
        if self._shown >= 0:
            click.echo("\r\x1b[K", nl=False, err=True)

    def show(self, done: int, total: int) -> None:
        """So many bytes of so many."""
        percent = 100 * done // max(1, total)
        if self._is_terminal and percent != self._shown:
            self._shown = percent
            click.echo(f"\r\x1b[K{size(done)} of {size(total)} {self._verb}", nl=False, err=True)

"""`meshnode store`: what a person does with a damaged store."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import click

from meshnode.app.cli.carrying import _Line
from meshnode.app.cli.screen import amount, json_text, plain, size

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

    with _Line("read") as line:
        done = salvage(Home(path), out, line.show)
    if as_json:
        click.echo(json_text(dataclasses.asdict(done)))
        return
    click.echo(salvage_screen(done))


def salvage_screen(done: Summary) -> str:
    """What was rescued, what was lost, and where it all is now."""
    lines = [
        f"Rescued {amount(done.bundles, 'bundle')}, {amount(done.messages, 'message')} of this device,"
        f" {amount(done.receipts, 'receipt')} and {amount(done.certificates, 'certificate')}"
        f" ({size(done.size_bytes)}); {amount(done.lost, 'bundle')} lost.",
    ]
    if done.affected:
        lines.append("Not whole any more, and not known to be at the office:")
        lines.extend(
            f"  {plain(it.reference)} ({it.key})" if it.reference else f"  {it.key}" for it in done.affected
        )
        lines.append("They come back if a colleague carries them; if they do not, record them again.")
    if done.kept is None:
        where = _files(done.path, [done.payloads] if done.payloads else [])
        lines.append(f"The rescued store is {where}; that of this node is as it was.")
    else:
        where = _files(done.kept, done.kept_payloads)
        lines.append(f"The damaged store is kept as {where}; this node can be started again.")
    return "\n".join(lines)


def _files(path: Path, payloads: list[Path]) -> str:
    """Where a store is, with its large payloads, which belong in the same folder under the same name."""
    if not payloads:
        return plain(str(path))
    return f"{plain(str(path))} with {' and '.join(plain(each.name) for each in payloads)} beside it"

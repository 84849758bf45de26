"""`meshnode doctor`: what to do where no peer is found, or nothing is delivered."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.option("--json", "as_json", is_flag=True, help="For programs: JSON instead of text.")
@click.pass_obj
def doctor(path: Path, as_json: bool) -> None:
    """Find out why nobody is met or nothing delivered.

    Works whether the node runs or not, takes less than 10 seconds, and changes nothing. Exit code 1: something needs
    doing.
    """
    import trio

    from meshnode.app.doctor import diagnose, render, to_json
    from meshnode.app.home import Home

    findings = trio.run(diagnose, Home(path))
    click.echo(to_json(findings) if as_json else render(findings))
    if not all(finding.ok for finding in findings):
        raise click.exceptions.Exit(1)

"""`meshnode officers`: the fleet as an office or a gateway sees it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from meshnode.app.cli.screen import Look, duration, json_text, plain, roles, table
from meshnode.core.words import count, say


@click.command()
@click.option("--json", "as_json", is_flag=True, help="For programs: JSON instead of text.")
@click.pass_obj
def officers(path: Path, as_json: bool) -> None:
    """List all devices, what came of each, and what is still out.

    At an office or a gateway. Numbers count bundles; a small message is one.
    """
    from meshnode.app.client import Client
    from meshnode.app.home import Home

    told = Client(Home(path)).request("GET", "/v1/officers")
    click.echo(json_text(told) if as_json else officers_screen(told, Look.of_terminal()))


def officers_screen(told: dict[str, Any], look: Look | None = None) -> str:
    """The screen of `meshnode officers`."""
    if not told["officers"]:
        return str(say("No device has been heard of here yet."))
    heads = [
        str(head)
        for head in (
            say("name"),
            say("role"),
            say("recorded"),
            say("here or delivered"),
            say("still out"),
            say("out for"),
            say("last heard of"),
        )
    ]
    rows = [_row(officer, told["now_ms"]) for officer in told["officers"]]
    parts = [table(heads, rows, look)]
    out = [f"  {plain(it['missing_text'])}" for it in told["officers"] if it["on_the_way"]]
    if out:
        parts.append("\n".join([str(say("Still out:")), *out]))
    if kept := told["quarantine"]:
        lines = [f"  {it['key']} ({it['source']}): {plain(it['reason'])}" for it in kept]
        head = count("{n} message is kept apart:", "{n} messages are kept apart:", len(kept))
        parts.append("\n".join([str(head), *lines]))
    return "\n\n".join(parts)


def _row(officer: dict[str, Any], now_ms: int) -> list[str]:
    name = plain(officer["name"])
    if officer["revoked"]:
        name = str(say("{name} (revoked)", name=name))
    elif officer["restored"]:
        name = str(say("{name} (restored from a copy)", name=name))
    waits = officer["oldest_missing_s"]
    return [
        name,
        roles([officer["role"]]),
        str(officer["recorded"]),
        str(officer["recorded"] - officer["on_the_way"]),
        str(officer["on_the_way"]),
        "-" if waits is None else duration(waits),
        _heard_of(officer, now_ms),
    ]


def _heard_of(officer: dict[str, Any], now_ms: int) -> str:
    if officer["last_seen_ms"] is None:
        return "-"
    ago = duration(max(0, (now_ms - officer["last_seen_ms"]) // 1000))
    if officer["last_seen_via"] is None:
        return str(say("{duration} ago", duration=ago))
    return str(say("{duration} ago, by {name}", duration=ago, name=officer["last_seen_via"]))

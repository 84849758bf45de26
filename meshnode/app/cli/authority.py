"""`meshnode authority ...`: found a fleet, admit and revoke devices, publish the fleet document.

What scripts need (the path of a welcome or a published document) goes to stdout alone; what a person does next goes
to stderr. A command that signs holds the folder, so that two at once do not spoil it.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from meshnode.app.addresses import parse_address
from meshnode.app.authority import Authority, found, needs_passphrase, read_key
from meshnode.app.cli.screen import roles
from meshnode.app.files import PUBLIC, check_replaceable, locked_folder, read_file, write_file
from meshnode.app.home import PAPER_SIZE_MAX
from meshnode.app.passphrase import read_passphrase
from meshnode.core.errors import BadRequest, RemoteError
from meshnode.core.fleet import read_request
from meshnode.core.words import say

_PATH = click.Path(path_type=Path, readable=False)  # a file that is not is a FileTrouble
_directory = click.argument("directory", metavar="DIR", type=_PATH)
_passphrase_file = click.option(
    "--passphrase-file", metavar="FILE", type=_PATH, help="Holds the passphrase of the authority's key."
)


@click.group()
def authority() -> None:
    """Found a fleet and admit its devices.

    DIR holds the authority. Keep it on a disk of its own, offline, with a copy in a safe: who has it can admit
    devices, and without it nobody can.
    """


@authority.command()
@_directory
@click.option("--fleet", required=True, metavar="NAME", help="What people call the fleet.")
@_passphrase_file
def init(directory: Path, fleet: str, passphrase_file: Path | None) -> None:
    """Found a fleet in DIR, a new or empty folder."""
    passphrase = None if passphrase_file is None else read_passphrase(passphrase_file)
    made = found(directory, fleet, passphrase)
    founded = say(
        "The fleet {name} ({id}) is founded in {directory}.",
        name=made.fleet_name,
        id=made.public.id.hex(),
        directory=directory,
    )
    click.echo(founded)
    if passphrase is None:
        click.echo(say("Its key is not encrypted: whoever copies the folder can admit devices."), err=True)


@authority.command()
@_directory
@click.argument("request", metavar="REQUEST", type=_PATH)
@click.option("--out", metavar="WELCOME", type=_PATH, help="Default: NAME.welcome beside the request.")
@_passphrase_file
def enroll(directory: Path, request: Path, out: Path | None, passphrase_file: Path | None) -> None:
    """Admit the device that made REQUEST; writes its welcome and prints where.

    An office's endpoint also enters the fleet document. The same request again gives the same welcome.
    """
    data = read_file(request, PAPER_SIZE_MAX)
    try:
        asked = read_request(data)
    except RemoteError as error:
        raise BadRequest(path=request, problem=error) from None
    out = request.with_name(f"{asked.name}.welcome") if out is None else out
    check_replaceable(out)
    with _signing(directory, passphrase_file) as opened:
        version = opened.document.version
        welcome = opened.enroll(asked, request, time.time_ns() // 1_000_000)
    write_file(out, welcome, PUBLIC)
    click.echo(os.fsencode(out))
    click.echo(
        say("Next: take this file to {name} and run `meshnode join` there.", name=asked.name), err=True
    )
    if opened.document.version != version:
        _announce(opened)


@authority.command()
@_directory
@click.argument("addresses", metavar="HOST:PORT...", nargs=-1, required=True)
@_passphrase_file
def address(directory: Path, addresses: tuple[str, ...], passphrase_file: Path | None) -> None:
    """Say where the office is reached over the internet, in place of what was said before."""
    parsed = tuple(dict.fromkeys(str(parse_address(text)) for text in addresses))
    with _signing(directory, passphrase_file) as opened:
        version = opened.document.version
        opened.set_addresses(parsed)
    click.echo(say("The office is reached at {addresses}.", addresses=", ".join(parsed)))
    if not opened.document.endpoints:
        click.echo(say("No office is enrolled yet; one that is enrolled later gets this address."), err=True)
    elif opened.document.version != version:
        _announce(opened)


@authority.command()
@_directory
@click.argument("device", metavar="DEVICE")
@_passphrase_file
def revoke(directory: Path, device: str, passphrase_file: Path | None) -> None:
    """End the membership of DEVICE, a name or an id, for good."""
    with _signing(directory, passphrase_file) as opened:
        entry = opened.find(device)
        had_office = bool(opened.document.endpoints)
        revoked = opened.revoke(entry, time.time_ns() // 1_000_000)
    if not revoked:
        click.echo(say("{name} ({id}) was revoked already.", name=entry.name, id=entry.id.hex()))
        return
    click.echo(say("{name} ({id}) is revoked.", name=entry.name, id=entry.id.hex()))
    if had_office and not opened.document.endpoints:
        click.echo(say("The fleet has no office any more: enroll another one."), err=True)
    _announce(opened)


@authority.command()
@_directory
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def show(directory: Path, as_json: bool) -> None:
    """List the devices and what the fleet document says."""
    opened = Authority(directory)
    click.echo(json.dumps(_summary(opened), indent=2) if as_json else _table(opened))


@authority.command()
@_directory
@click.option("--out", metavar="FILE", type=_PATH, help="Default: DIR/NAME-vVERSION.fleet.")
def publish(directory: Path, out: Path | None) -> None:
    """Write the newest fleet document to a file and print where."""
    opened = Authority(directory)
    document = opened.document
    out = directory / f"{document.name}-v{document.version}.fleet" if out is None else out
    write_file(out, document.to_file(), PUBLIC)
    click.echo(os.fsencode(out))
    click.echo(
        say("Next: run `meshnode fleet update` with it on any one node; contacts carry it further."), err=True
    )


@contextlib.contextmanager
def _signing(directory: Path, passphrase_file: Path | None) -> Iterator[Authority]:
    """The authority with its key, held alone. A person at a terminal is asked for a passphrase that is missing."""
    passphrase = None if passphrase_file is None else read_passphrase(passphrase_file)
    if needs_passphrase(directory) and passphrase is None and sys.stdin.isatty():
        asked: str = click.prompt(str(say("Passphrase of the authority's key")), hide_input=True, err=True)
        passphrase = asked.encode()
    key = read_key(directory, passphrase)
    with locked_folder(directory):
        yield Authority(directory, key)


def _announce(opened: Authority) -> None:
    text = say(
        "The fleet document is now version {version}: write it to a file with `meshnode authority publish` and take it"
        " to one node.",
        version=opened.document.version,
    )
    click.echo(text, err=True)


def _summary(opened: Authority) -> dict[str, Any]:
    document = opened.document
    return {
        "fleet": document.name,
        "id": document.fleet.hex(),
        "version": document.version,
        "endpoints": [
            {
                "id": endpoint.id.hex(),
                "sealing_keys": [key.key_id.hex() for key in endpoint.sealing_keys],
                "addresses": list(endpoint.addresses),
            }
            for endpoint in document.endpoints
        ],
        "addresses": list(opened.addresses),
        "lifetime_s": document.lifetime_s,
        "revoked": sorted(device.hex() for device in document.revoked),
        "devices": [device.to_json() for device in opened.devices.values()],
    }


def _table(opened: Authority) -> str:
    document = opened.document
    offices = [endpoint.id.hex() for endpoint in document.endpoints] or [str(say("none enrolled yet"))]
    about = say("version {version}, {n} revoked", version=document.version, n=len(document.revoked))
    addresses = ", ".join(opened.addresses) or say("none given yet")
    facts = [
        (str(say("fleet")), f"{document.name} ({document.fleet.hex()})"),
        (str(say("document")), str(about)),
        *((str(say("office")), office) for office in offices),
        (str(say("addresses")), str(addresses)),
    ]
    width = max(len(name) for name, _ in facts)
    lines = [*(f"{name:{width}}  {fact}" for name, fact in facts), ""]
    heads = (say("DEVICE"), say("ROLE"), say("ID"), say("ENROLLED"), say("REVOKED"))
    rows = [tuple(map(str, heads))]
    for device in sorted(opened.devices.values(), key=lambda it: it.name):
        times = (
            _when(device.enrolled_ms),
            _when(device.revoked_ms) if device.revoked_ms is not None else "-",
        )
        rows.append((device.name, roles([device.role]), device.id.hex(), *times))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines += [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    return "\n".join(lines)


def _when(wall_ms: int) -> str:
    return datetime.fromtimestamp(wall_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")

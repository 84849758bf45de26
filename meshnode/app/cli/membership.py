"""`meshnode init`, `join` and `fleet update`: from a new device to a member with the newest fleet document.

What scripts need (the path of the request) goes to stdout alone; what a person does next goes to stderr. A welcome
or a document that is refused changes nothing.
"""

from __future__ import annotations

import os
from pathlib import Path

import click

from meshnode.app.files import read_file
from meshnode.app.home import PAPER_SIZE_MAX, Home, Membership, a_role
from meshnode.core.errors import (
    BadFleetDocument,
    BadFleetName,
    BadWelcome,
    HomeBusy,
    NotAnswering,
    OlderFleetDocument,
    OtherFleet,
    RemoteError,
    RevocationsMissing,
    WelcomeForOther,
)
from meshnode.core.fields import unpack
from meshnode.core.fleet import FleetDocument, Welcome, read_document_file, read_welcome
from meshnode.core.identity import ID_SIZE, ROLES, PublicKey, check_fleet_name
from meshnode.core.words import say


@click.command()
@click.option("--name", required=True, metavar="NAME", help="What people call this device, as officer-07.")
@click.option("--role", type=click.Choice(ROLES), default="officer", show_default=True, help="What it does.")
@click.pass_obj
def init(path: Path, name: str, role: str) -> None:
    """Make a node: its keys and its request to join a fleet.

    Prints where the request is. Run again with the same name and role, it writes a lost request again.
    """
    request = Home(path).create(name, role)
    click.echo(os.fsencode(request))
    text = say(
        "Next: take this file to the authority, where `meshnode authority enroll` makes a welcome of it, and run"
        " `meshnode join` here with that."
    )
    click.echo(text, err=True)


@click.command()
@click.argument("welcome", metavar="WELCOME", type=click.Path(path_type=Path, readable=False))
@click.pass_obj
def join(path: Path, welcome: Path) -> None:
    """Become a member of the fleet with its welcome.

    WELCOME is the file that `meshnode authority enroll` made of this node's request.
    """
    click.echo(join_fleet(Home(path), welcome))


@click.group()
def fleet() -> None:
    """Adopt a newer fleet document by hand."""


@fleet.command()
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path, readable=False))
@click.pass_obj
def update(path: Path, file: Path) -> None:
    """Adopt the fleet document in FILE; nodes that this one meets get it from here."""
    click.echo(fleet_update(Home(path), file))


def join_fleet(home: Home, path: Path) -> str:
    """Make the node a member by the welcome at `path`, or renew its membership. What to say about it.

    Raises BadWelcome, WelcomeForOther, OtherFleet, NoNode, HomeBusy or FileTrouble; then nothing has changed.
    """
    data = read_file(path, PAPER_SIZE_MAX)
    try:
        welcome = read_welcome(data)
    except RemoteError as error:
        raise BadWelcome(path=path, problem=error) from None
    _check_welcome(home, path, welcome)
    with home.lock():
        joined = home.fleet()
        if joined is not None and joined[1] != welcome.authority:
            theirs = _fleet_name(welcome.fleet_name, welcome.authority.id)
            raise OtherFleet(path=path, theirs=theirs, ours=_fleet_name(joined[0], joined[1].id))
        home.save_welcome(welcome)
    became = say("{name} is now {role} of the fleet {fleet}.")
    if joined is not None:
        became = say("{name} stays {role} of the fleet {fleet}.")
    certificate = welcome.certificate
    return str(became.about(name=certificate.name, role=a_role(certificate.role), fleet=welcome.fleet_name))


def _check_welcome(home: Home, path: Path, welcome: Welcome) -> None:
    home.check_private()
    identity = home.identity()
    certificate = welcome.certificate
    if certificate.key != identity.key.public:
        own = identity.key.public.id.hex()
        raise WelcomeForOther(path=path, name=certificate.name, device=certificate.device.hex(), own=own)
    if identity.role and certificate.role != identity.role:
        problem = say(
            "it says {theirs}, and this node was made as {ours}",
            theirs=a_role(certificate.role),
            ours=a_role(identity.role),
        )
        raise BadWelcome(path=path, problem=problem)
    if certificate.role == "office" and welcome.document.endpoint(home.office_keys().endpoint.id) is None:
        raise BadWelcome(path=path, problem="its fleet document does not know this office")


def fleet_update(home: Home, path: Path) -> str:
    """Adopt the document at `path`, through the daemon if that runs. What to say about it.

    A document that revokes this very device is adopted too: it is the truth, and others have to learn it.
    Raises BadFleetDocument, OtherFleet, OlderFleetDocument, RevocationsMissing, NoNode, NotJoined, NotAnswering or
    FileTrouble.
    """
    data = read_file(path, PAPER_SIZE_MAX)
    membership, document = _compare(home, path, data)
    version = document.version
    adopted = version > membership.document.version
    if adopted:
        try:
            with home.lock():
                # what was newer a moment ago may not be now that nobody else writes
                membership, document = _compare(home, path, data)
                home.save_document(document)
        except HomeBusy:
            adopted, version = _tell_daemon(home, data)
    is_revoked = membership.certificate.device in document.revoked
    if adopted and is_revoked:
        has = say("{name} now has version {version} of the fleet document, which revokes it.")
    elif adopted:
        has = say("{name} now has version {version} of the fleet document.")
    elif is_revoked:
        has = say("{name} already has version {version} of the fleet document, which revokes it.")
    else:
        has = say("{name} already has version {version} of the fleet document.")
    return str(has.about(name=membership.certificate.name, version=version))


def _compare(home: Home, path: Path, data: bytes) -> tuple[Membership, FleetDocument]:
    """What the node has, and the document, which is not older. Raises what is wrong with it."""
    membership = home.load()
    try:
        document = read_document_file(data, membership.authority)
    except RemoteError as error:
        theirs = _foreign_fleet(data, membership.authority)
        if theirs is not None:
            ours = _fleet_name(membership.fleet_name, membership.authority.id)
            raise OtherFleet(path=path, theirs=theirs, ours=ours) from None
        raise BadFleetDocument(path=path, problem=error) from None
    ours_version = membership.document.version
    if document.version < ours_version:
        raise OlderFleetDocument(path=path, theirs=document.version, ours=ours_version)
    if forgiven := document.forgives(membership.document):
        raise RevocationsMissing(path=path, theirs=document.version, ours=ours_version, n=forgiven)
    return membership, document


def _foreign_fleet(data: bytes, authority: PublicKey) -> str | None:
    """The fleet that an unverified document says it is of, for people, unless it says this one or nothing sane."""
    try:
        body, _ = unpack(data, "document")
        _, fleet_id, _, name, *_ = unpack(body, "document")
        if type(fleet_id) is not bytes or len(fleet_id) != ID_SIZE or fleet_id == authority.id:
            return None
        return _fleet_name(check_fleet_name(name), fleet_id)
    except (RemoteError, BadFleetName, ValueError, TypeError):
        return None


def _fleet_name(name: str, fleet_id: bytes) -> str:
    """Name and id, since two fleets may have one name."""
    return f"{name} ({fleet_id.hex()[:8]})"


def _tell_daemon(home: Home, data: bytes) -> tuple[bool, int]:
    """Hand the document to the daemon that holds the home: whether it was news to it, the version it has now."""
    from meshnode.app.client import Client

    if not home.control_path.exists():
        raise NotAnswering(home=home.path, problem="it is just starting or ending; try again")
    answer = Client(home).request("PUT", "/v1/fleet", data)
    return bool(answer["adopted"]), int(answer["version"])

"""`meshnode service`: let systemd start the node at boot, watch it and start it again."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from meshnode.core.words import say

if TYPE_CHECKING:
    from meshnode.app.service import Unit

#: How long one step of systemctl may take.
_STEP_S: Final = 60.0

_user = click.option(
    "--user", "for_user", is_flag=True, help="This user's own service, instead of the machine's."
)
_root = click.option(
    "--root",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="The machine's service of a system that lies in DIR, such as an image.",
)


@click.group()
def service() -> None:
    """Run the node as a service of systemd."""


@service.command("install")
@_user
@_root
@click.option(
    "--passphrase-file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="The passphrase of the node's keys, which systemd hands over.",
)
@click.option("--print", "--dry-run", "only_print", is_flag=True, help="Show the unit, and change nothing.")
@click.option(
    "--replace", is_flag=True, help="Also where a unit lies that meshnode did not write; it is kept."
)
@click.pass_context
def install(
    ctx: click.Context,
    for_user: bool,
    root: Path | None,
    passphrase_file: Path | None,
    only_print: bool,
    replace: bool,
) -> None:
    """Write the unit, and have systemd start it from now on.

    The machine's service runs as the user meshnode with the home /var/lib/meshnode, unless --home names another; with
    --user it is yours, on your home. Where systemd does not run, or with --root, what is left to do is said.
    """
    from meshnode.app.passphrase import read_passphrase
    from meshnode.app.service import UnitOfPackage, check_reach, packaged_unit, this_program

    if for_user and root is not None:
        raise click.UsageError(str(say("--root is for the machine's service, so not with --user")))
    unit, home = _unit(ctx, for_user, root, passphrase_file)
    if only_print:
        click.echo(unit.text, nl=False)
        return
    if root is None and not for_user:
        check_reach(Path(this_program()[0]), Path(sys.executable))
    if passphrase_file is not None and root is None:
        read_passphrase(passphrase_file)
    if not for_user and not replace and (packaged := packaged_unit(root or Path("/"))):
        raise UnitOfPackage(path=packaged, folder=unit.path.parent)
    kept = unit.install(replace=replace)
    if kept is not None:
        click.echo(str(say("What was there before is now {kept}.", kept=kept)))
    click.echo(str(say("Written: {path}", path=unit.path)))
    rest = _do(_steps(for_user, root), may=root is None)
    _tell([*rest, *_first_steps(for_user, home, passphrase_file)])


@service.command("uninstall")
@_user
@_root
@click.pass_context
def uninstall(ctx: click.Context, for_user: bool, root: Path | None) -> None:
    """Stop the service and take its unit away.

    The home with its keys and records stays, and so does a unit that meshnode did not write.
    """
    unit, home = _unit(ctx, for_user, root, None)
    from meshnode.app.service import Standing

    if unit.standing() is Standing.OURS:
        _tell(_do([_systemctl(for_user, root, "disable", *([] if root else ["--now"]))], may=root is None))
    if not unit.remove():
        click.echo(str(say("There is no unit {path}: nothing was done.", path=unit.path)))
        return
    click.echo(str(say("Removed: {path}. The home {home} is as it was.", path=unit.path, home=home)))
    if root is None:
        _tell(_do([_systemctl(for_user, root, "daemon-reload")], may=True))


@service.command("status")
@_user
@click.pass_context
def status(ctx: click.Context, for_user: bool) -> None:
    """Say whether there is a unit, whose it is, and what systemd says of it.

    Exit code 3: the service does not run.
    """
    from meshnode.app.service import Standing, packaged_unit, systemd_runs

    unit, _ = _unit(ctx, for_user, None, None)
    said = {
        Standing.ABSENT: say("There is no unit {path}.", path=unit.path),
        Standing.OURS: say("{path} is as meshnode wrote it.", path=unit.path),
        Standing.EDITED: say("{path} was changed by hand since meshnode wrote it.", path=unit.path),
        Standing.OTHER: say("{path} was not written by meshnode.", path=unit.path),
    }
    click.echo(str(said[unit.standing()]))
    if not for_user and (packaged := packaged_unit(Path("/"))):
        click.echo(str(say("The package has brought {path}.", path=packaged)))
    if not systemd_runs():
        click.echo(str(say("systemd does not run this machine.")))
        raise click.exceptions.Exit(3)
    show = _systemctl(for_user, None, "show", "--property=ActiveState,SubState,UnitFileState,StatusText")
    answer = subprocess.run(show, capture_output=True, text=True, timeout=_STEP_S, check=False)
    if answer.returncode != 0:
        click.echo(answer.stderr.strip(), err=True)
        raise click.exceptions.Exit(3)
    click.echo(answer.stdout.strip())
    if "ActiveState=active" not in answer.stdout.splitlines():
        raise click.exceptions.Exit(3)


def _unit(
    ctx: click.Context, for_user: bool, root: Path | None, passphrase_file: Path | None
) -> tuple[Unit, Path]:
    """The unit that is meant, and the home that its node has."""
    from meshnode.app.service import SYSTEM_HOME, system_unit, this_program, user_unit

    passphrase = None if passphrase_file is None else passphrase_file.absolute()
    if for_user:
        home: Path = ctx.obj
        return user_unit(this_program(), home, passphrase), home
    home = ctx.obj if ctx.find_root().params.get("home") is not None else SYSTEM_HOME
    return system_unit(this_program(), home, passphrase, root or Path("/")), home


def _systemctl(for_user: bool, root: Path | None, verb: str, *options: str) -> list[str]:
    scope = ["--user"] if for_user else [] if root is None else [f"--root={root}"]
    unit = [] if verb == "daemon-reload" else ["meshnode.service"]
    return ["systemctl", *scope, verb, *options, *unit]


def _steps(for_user: bool, root: Path | None) -> list[list[str]]:
    """What systemd needs to be told of a new unit."""
    from meshnode.app.service import SYSTEM_HOME, USER

    steps = []
    if not for_user and (root is not None or not _has_user(USER)):
        place = [] if root is None else ["--root", str(root)]
        made = ["--system", "--user-group", "--home-dir", str(SYSTEM_HOME), "--shell", "/usr/sbin/nologin"]
        steps.append(["useradd", *place, *made, USER])
    if root is None:
        steps.append(_systemctl(for_user, root, "daemon-reload"))
    steps.append(_systemctl(for_user, root, "enable"))
    return steps


def _first_steps(for_user: bool, home: Path, passphrase_file: Path | None) -> list[list[str]]:
    """What makes a node of the home, if it is none, and starts it."""
    from meshnode.app.service import USER, this_program

    start = _systemctl(for_user, None, "start")
    if (home / "device.crt").exists():
        return [start]
    who = [] if for_user else ["runuser", "-u", USER, "--"]
    named = (
        [] if passphrase_file is None else ["env", f"MESHNODE_PASSPHRASE_FILE={passphrase_file.absolute()}"]
    )
    node = [*who, *named, *this_program(), "--home", str(home)]
    make = [] if for_user else [["install", "-d", "-m", "700", "-o", USER, "-g", USER, str(home)]]
    return [*make, [*node, "init", "--name", "NAME"], [*node, "join", "NAME.welcome"], start]


def _has_user(name: str) -> bool:
    import pwd

    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def _do(steps: list[list[str]], *, may: bool) -> list[list[str]]:
    """Run these where systemd runs, one after the other; those that are left for a person."""
    from meshnode.app.service import systemd_runs

    if not may or not systemd_runs():
        return steps
    for at, step in enumerate(steps):
        click.echo(f"$ {shlex.join(step)}")
        try:
            code = subprocess.run(step, timeout=_STEP_S, check=False).returncode
        except (OSError, subprocess.TimeoutExpired) as error:
            click.echo(f"meshnode: {error}", err=True)
            return steps[at:]
        if code != 0:
            return steps[at:]
    return []


def _tell(steps: list[list[str]]) -> None:
    if steps:
        click.echo(str(say("What is left to do:")))
        for step in steps:
            click.echo(f"  {shlex.join(step)}")

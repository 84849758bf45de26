"""The unit is one that systemd takes, is written over only when a person says so, and the daemon does what it asks."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from meshnode.app.cli import main
from meshnode.app.service import (
    UNIT,
    BadUnitPath,
    ProgramOutOfReach,
    Standing,
    check_reach,
    system_unit,
    user_unit,
)
from tests.app.fleets import Fleet

PROGRAM = ["/usr/bin/meshnode"]
HOME = Path("/var/lib/meshnode")
#: What the documentation says of the machine's service; the scale is 0 to 10, and less is better.
EXPOSURE_MAX = 1.2

needs_analyze = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not here, which judges units"
)


def meshnode(*arguments: object) -> Result:
    return CliRunner(env={"LANGUAGE": "en"}).invoke(main, [str(each) for each in arguments])


def install(root: Path, *more: object) -> Result:
    return meshnode("service", "install", "--root", root, *more)


def unit_in(root: Path) -> Path:
    return root / "etc/systemd/system" / UNIT


def analyzed(folder: Path, verb: str, *options: str) -> subprocess.CompletedProcess[str]:
    """What systemd says of the unit in a folder. The program that it starts has to be there."""
    return subprocess.run(
        ["systemd-analyze", verb, *options, str(folder / UNIT)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"XDG_RUNTIME_DIR": str(folder)},
    )


# --- what stands in it ---


@needs_analyze
@pytest.mark.parametrize(
    "home", [HOME, Path("/home/siti/meshnode"), Path('/srv/a "b" 100% $c\\d')], ids=["var", "home", "odd"]
)
@pytest.mark.parametrize("passphrase", [None, Path("/etc/meshnode 1%.pass")])
@pytest.mark.parametrize("whose", ["--system", "--user"])
def test_systemd_understands_every_line(
    tmp_path: Path, home: Path, passphrase: Path | None, whose: str
) -> None:
    program = ["/bin/true"]
    make = (
        system_unit(program, home, passphrase)
        if whose == "--system"
        else user_unit(program, home, passphrase)
    )
    (tmp_path / UNIT).write_text(make.text)
    done = analyzed(tmp_path, "verify", whose, "--man=no")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@needs_analyze
def test_a_wrong_line_would_be_seen(tmp_path: Path) -> None:
    text = system_unit(["/bin/true"], HOME, None).text
    (tmp_path / UNIT).write_text(text.replace("PrivateTmp=true", "PrivateTemp=true"))
    assert "PrivateTemp" in analyzed(tmp_path, "verify", "--man=no").stderr


@needs_analyze
def test_the_service_sees_little_of_the_machine(tmp_path: Path) -> None:
    (tmp_path / UNIT).write_text(system_unit(["/bin/true"], HOME, None).text)
    done = analyzed(tmp_path, "security", "--offline=true", "--no-pager")
    if "unrecognized option" in done.stderr:
        pytest.skip("this systemd-analyze judges only units that are loaded (it is older than 250)")
    said = re.search(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
    assert said is not None, done.stderr
    assert float(said[1]) <= EXPOSURE_MAX


def test_a_home_elsewhere_is_all_that_can_be_written() -> None:
    assert "StateDirectory=meshnode\n" in system_unit(PROGRAM, HOME, None).text
    there = system_unit(PROGRAM, Path("/srv/mesh"), None).text
    assert "ReadWritePaths=/srv/mesh\nProtectHome=true\n" in there
    assert "StateDirectory" not in there
    assert (
        "ProtectHome=tmpfs\nBindPaths=/home/siti/mesh\n"
        in system_unit(PROGRAM, Path("/home/siti/mesh"), None).text
    )


def test_special_characters_are_only_characters() -> None:
    text = system_unit(["/opt/a b/mesh$node"], Path("/srv/100%"), Path("/etc/a b%")).text
    assert 'ExecStart="/opt/a b/mesh$$node" --home "/srv/100%%" run\n' in text
    assert "ConditionPathExists=/srv/100%%/device.crt\n" in text
    assert "LoadCredential=meshnode-passphrase:/etc/a b%%\n" in text


@pytest.mark.parametrize("path", ["/srv/a:b", "/srv/a\nExecStart=/bin/sh", "/srv/\udcff"])
def test_a_path_that_would_say_something_else_is_refused(path: str) -> None:
    for make in (system_unit, user_unit):
        with pytest.raises(BadUnitPath):
            make(PROGRAM, Path(path), None)
        with pytest.raises(BadUnitPath):
            make(PROGRAM, HOME, Path(path))


def test_a_program_in_a_users_folder_cannot_be_the_machines(tmp_path: Path) -> None:
    check_reach(Path("/usr/bin/meshnode"), Path("/homestead/bin/python3"))
    with pytest.raises(ProgramOutOfReach, match=r"/home/siti/\.local/bin/meshnode"):
        check_reach(Path("/usr/bin/meshnode"), Path("/home/siti/.local/bin/meshnode"))
    link = tmp_path / "python3"
    link.symlink_to("/root/.local/bin/python3")
    with pytest.raises(ProgramOutOfReach, match=r"/root/\.local/bin/python3"):
        check_reach(link)


# --- writing it ---


@pytest.mark.parametrize("option", ["--print", "--dry-run"])
def test_print_changes_nothing(tmp_path: Path, option: str) -> None:
    done = install(tmp_path, option)
    assert done.exit_code == 0
    assert "[Service]\nType=notify\n" in done.output
    assert list(tmp_path.iterdir()) == []


def test_it_is_written_and_what_is_left_to_do_is_said(tmp_path: Path) -> None:
    done = install(tmp_path, "--passphrase-file", "/etc/meshnode.pass")
    assert done.exit_code == 0, done.output
    unit = unit_in(tmp_path)
    assert unit.stat().st_mode & 0o777 == 0o644
    assert "LoadCredential=meshnode-passphrase:/etc/meshnode.pass\n" in unit.read_text()
    for command in (
        f"  useradd --root {tmp_path} --system",
        f"  systemctl --root={tmp_path} enable meshnode.service\n",
        "MESHNODE_PASSPHRASE_FILE=/etc/meshnode.pass",
        " --home /var/lib/meshnode init --name NAME\n",
        "  systemctl start meshnode.service\n",
    ):
        assert command in done.output


@pytest.mark.skipif(shutil.which("systemctl") is None, reason="systemctl is not here")
def test_the_command_that_is_said_enables_it(tmp_path: Path) -> None:
    said = install(tmp_path).output
    enable = next(line.split() for line in said.splitlines() if " enable " in line)
    subprocess.run(enable, check=True, capture_output=True)
    wanted = tmp_path / "etc/systemd/system/multi-user.target.wants" / UNIT
    assert wanted.is_symlink()


def test_a_unit_of_ours_is_renewed_without_a_word(tmp_path: Path) -> None:
    install(tmp_path)
    before = unit_in(tmp_path).read_text()
    done = install(tmp_path, "--passphrase-file", "/etc/meshnode.pass")
    assert done.exit_code == 0
    assert "was there before" not in done.output
    assert unit_in(tmp_path).read_text() != before
    assert [path.name for path in unit_in(tmp_path).parent.iterdir()] == [UNIT]


@pytest.mark.parametrize("whose", ["of another", "edited", "a link to nowhere"])
def test_what_meshnode_did_not_write_is_left_until_a_person_says_so(tmp_path: Path, whose: str) -> None:
    unit = unit_in(tmp_path)
    install(tmp_path)
    if whose == "edited":
        unit.write_text(unit.read_text().replace("RestartSec=10", "RestartSec=11"))
    elif whose == "of another":
        unit.write_text("[Service]\nExecStart=/usr/local/bin/mine\n")
    else:
        unit.unlink()
        unit.symlink_to("/nowhere")
    before = os.readlink(unit) if unit.is_symlink() else unit.read_text()
    for refused in (install(tmp_path), meshnode("service", "uninstall", "--root", tmp_path)):
        assert refused.exit_code == 1
        assert f"meshnode: {unit} was " in refused.output
        assert refused.output.endswith("nothing was changed.\n")
        assert (os.readlink(unit) if unit.is_symlink() else unit.read_text()) == before
    kept = unit.with_name(f"{UNIT}.old-1")
    done = install(tmp_path, "--replace")
    assert done.exit_code == 0, done.output
    assert f"What was there before is now {kept}." in done.output
    assert (os.readlink(kept) if kept.is_symlink() else kept.read_text()) == before
    assert system_unit(PROGRAM, HOME, None, tmp_path).standing() is Standing.OURS


def test_a_packages_unit_is_not_overridden_unasked(tmp_path: Path) -> None:
    packaged = tmp_path / "usr/lib/systemd/system" / UNIT
    packaged.parent.mkdir(parents=True)
    packaged.write_text("[Service]\n")
    refused = install(tmp_path)
    assert refused.exit_code == 1
    assert f"The package has brought a unit, {packaged}:" in refused.output
    assert not unit_in(tmp_path).exists()
    assert install(tmp_path, "--replace").exit_code == 0
    assert packaged.read_text() == "[Service]\n"


def test_uninstall_takes_the_unit_and_leaves_the_home(tmp_path: Path) -> None:
    install(tmp_path)
    done = meshnode("service", "uninstall", "--root", tmp_path)
    assert done.exit_code == 0
    assert f"Removed: {unit_in(tmp_path)}. The home /var/lib/meshnode is as it was." in done.output
    assert not unit_in(tmp_path).exists()
    again = meshnode("service", "uninstall", "--root", tmp_path)
    assert again.exit_code == 0
    assert "There is no unit" in again.output


def test_an_officers_own_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("DBUS_SESSION_BUS_ADDRESS", raising=False)
    unit = tmp_path / "config/systemd/user" / UNIT
    done = meshnode("--home", tmp_path / "mesh", "service", "install", "--user")
    assert done.exit_code == 0, done.output
    assert f"--home {tmp_path}/mesh run\n" in unit.read_text()
    assert "User=" not in unit.read_text()
    assert f"  systemctl --user start {UNIT}\n" in done.output
    assert meshnode("service", "install", "--user", "--root", tmp_path).exit_code == 2
    said = meshnode("service", "status", "--user")
    assert said.exit_code == 3
    assert f"{unit} is as meshnode wrote it.\n" in said.output


def test_a_passphrase_that_is_none_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    empty = tmp_path / "empty"
    empty.write_bytes(b"\n")
    for path, said in ((empty, "holds no passphrase"), (tmp_path / "none", "does not exist")):
        done = meshnode("service", "install", "--user", "--passphrase-file", path)
        assert done.exit_code == 1
        assert said in done.output
    assert not (tmp_path / "systemd").exists()


# --- what the daemon tells ---


@contextlib.contextmanager
def service_manager() -> Iterator[tuple[socket.socket, dict[str, str]]]:
    """A socket as systemd's, and what a service finds in its environment."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("")
        manager.settimeout(20.0)
        yield manager, {"NOTIFY_SOCKET": "@" + manager.getsockname()[1:].decode(), "WATCHDOG_USEC": "600000"}


def test_a_daemon_is_ready_when_it_can_be_reached_then_lives_and_stops(tmp_path: Path) -> None:
    with service_manager() as (manager, variables), Fleet(tmp_path) as fleet:
        fleet.enroll("office", "office")
        ana = fleet.enroll("ana")
        ana.variables = variables
        ana.begin()
        ready = manager.recv(4096).decode().split("\n")
        assert ready == [
            "READY=1",
            "STATUS=in contact with 0, the office is not reached, 0 own messages wait, 0 bundles of others are carried",
        ]
        socket.create_connection((ana.host, ana.port), 5.0).close()
        assert ana.get("status")["device"]["name"] == "ana"
        assert [manager.recv(4096) for _ in range(3)] == [b"WATCHDOG=1"] * 3
        ana.give({"form.json": b"{}"})
        while (said := manager.recv(4096).decode()) == "WATCHDOG=1":
            pass
        assert "1 own messages wait" in said
        ana.stop()
        left = []
        manager.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                left.append(manager.recv(4096))
        assert left[-1] == b"STOPPING=1"
        assert set(left[:-1]) <= {b"WATCHDOG=1"}


def test_a_daemon_without_a_manager_tells_nobody(tmp_path: Path) -> None:
    with Fleet(tmp_path) as fleet:
        ana = fleet.enroll("ana")
        ana.variables = {"NOTIFY_SOCKET": str(tmp_path / "nobody"), "WATCHDOG_USEC": "1000000"}
        fleet.start(ana)
        assert ana.get("status")["device"]["name"] == "ana"
        ana.stop()

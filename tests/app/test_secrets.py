"""What is secret stays so: keys under a passphrase, no secret in a log, an error, a process list or a core file."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from meshnode.app.home import Home
from meshnode.app.passphrase import CREDENTIAL, FILE_VARIABLE, node_passphrase
from meshnode.core.errors import EmptyPassphrase, FileTrouble, KeyLocked, WrongPassphrase
from tests.app.fleets import Fleet, assert_refused, call

SECRET = "a long sentence that nobody guesses"


@pytest.fixture
def secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "passphrase"
    path.write_text(f"{SECRET}\n")
    monkeypatch.setenv(FILE_VARIABLE, str(path))
    return path


@pytest.mark.parametrize("role", ["officer", "office"])
def test_keys_are_made_and_read_under_the_passphrase(
    role: str, secret: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(tmp_path / "home")
    home.create("ana", role)
    key = home.identity().key
    seed = home.office_keys().sealing_key.seed if role == "office" else b""
    raw = b"".join(path.read_bytes() for path in home.path.iterdir())
    assert b"BEGIN PRIVATE KEY" not in raw
    assert not seed or seed.hex().encode() not in raw
    home.create("ana", role)  # a lost request is written again
    monkeypatch.delenv(FILE_VARIABLE)
    with pytest.raises(KeyLocked, match=FILE_VARIABLE):
        home.identity()
    secret.write_text("another one\n")
    monkeypatch.setenv(FILE_VARIABLE, str(secret))
    with pytest.raises(WrongPassphrase, match=r"device\.key"):
        home.identity()
    folder = tmp_path / "credentials"
    folder.mkdir()
    (folder / CREDENTIAL).write_text(SECRET)
    monkeypatch.delenv(FILE_VARIABLE)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(folder))
    assert home.identity().key.public == key.public, "as a service gets it"
    assert not seed or home.office_keys().sealing_key.seed == seed


def test_passphrases_that_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    assert node_passphrase() is None
    monkeypatch.setenv(FILE_VARIABLE, str(tmp_path / "missing"))
    with pytest.raises(FileTrouble, match="does not exist"):
        node_passphrase()
    (tmp_path / "missing").write_text("\n")
    with pytest.raises(EmptyPassphrase):
        node_passphrase()


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with Fleet(tmp_path / "fleet") as fleet:
        yield fleet


def test_a_fleet_under_passphrases_delivers_and_tells_nobody(
    fleet: Fleet, secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the daemons get the variable as every program of this user does
    monkeypatch.setattr("tests.app.fleets.environment", lambda: dict(os.environ))
    office, ana = fleet.enroll("kantor", "office"), fleet.enroll("ana")
    ana.configure(peers=[office.address])
    fleet.start(office, ana)
    token = ana.door()[2]
    ana.give({"nik": b"3206010101010001"}, reference="Ibu Aminah")
    fleet.until("delivered", lambda: ana.states() == ["delivered"])
    for node in (office, ana):
        assert node.process is not None
        proc = Path(f"/proc/{node.process.pid}")
        assert SECRET.encode() not in (proc / "cmdline").read_bytes() + (proc / "environ").read_bytes()
        limits = (proc / "limits").read_text()
        (core,) = [line for line in limits.splitlines() if line.startswith("Max core file size")]
        assert core.split()[4:6] == ["0", "0"], "no core file holds a key"
        for told in (SECRET, token, "3206010101010001", "Aminah"):
            assert told not in node.log()
    monkeypatch.delenv(FILE_VARIABLE)
    ana.stop()
    assert_refused(ana.run("run"), "has a passphrase")


def test_init_says_nothing_secret(tmp_path: Path, secret: Path) -> None:
    done = call(tmp_path / "home", "init", "--name", "ana")
    assert SECRET not in done.stdout + done.stderr


def test_this_process_may_write_core_files() -> None:
    """Or the test above would prove nothing."""
    assert resource.getrlimit(resource.RLIMIT_CORE)[1] != 0

"""From a new folder to a member with the newest fleet document; what is refused changes nothing."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import types
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from meshnode import __version__
from meshnode.app.cli import COMMANDS, default_home, main
from meshnode.app.config import Config, read_config
from meshnode.app.files import write_file
from meshnode.app.home import Home
from meshnode.core.errors import (
    FileTrouble,
    HomeBusy,
    HomeOfOther,
    HomeReadable,
    NoNode,
    NotJoined,
    NotRunning,
)
from meshnode.core.fleet import (
    Endpoint,
    FleetDocument,
    read_document_file,
    read_request,
    write_welcome,
)
from meshnode.core.identity import DeviceId, FleetId, SigningKey, found_authority, issue_certificate
from meshnode.core.limits import LIFETIME_S

MEMBER_FILES = [
    "authority.crt",
    "config.toml",
    "device.crt",
    "device.key",
    "fleet.document",
    "lock",
    "ana.request",
]


class Crash(BaseException):
    """The power went."""


class Fleet:
    """An authority that signs whatever a test asks for."""

    def __init__(self, name: str, seed: bytes) -> None:
        self.key = SigningKey.from_seed(seed * 32)
        self.name = name
        self.der = found_authority(self.key, name, 1)
        self.document = FleetDocument(
            fleet=FleetId(self.key.public.id),
            version=3,
            name=name,
            endpoints=(),
            revoked=frozenset(),
            lifetime_s=LIFETIME_S,
        ).signed(self.key)

    def at(self, version: int, revoked: tuple[bytes, ...] = ()) -> FleetDocument:
        ids = frozenset(map(DeviceId, revoked))
        return replace(self.document, version=version, revoked=ids).signed(self.key)

    def welcome(
        self, request: Path, out: Path, *, version: int = 3, role: str | None = None, endpoint: bool = True
    ) -> Path:
        asked = read_request(request.read_bytes())
        serial = int.from_bytes(os.urandom(8), "big") | 1
        der = issue_certificate(self.key, self.name, asked.name, role or asked.role, asked.key, serial)
        endpoints: tuple[Endpoint, ...] = (asked.endpoint,) if asked.endpoint and endpoint else ()
        document = replace(self.document, version=version, endpoints=endpoints).signed(self.key)
        out.write_bytes(write_welcome(self.key, self.der, der, document))
        return out


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test pulls the plug, so none needs to wait for the disk."""
    monkeypatch.setattr("meshnode.app.files.os.fsync", lambda descriptor: None)


FLEET = Fleet("Tasikmalaya", b"a")
OTHER = Fleet("Garut", b"b")


def run(home: Path, *arguments: object) -> Result:
    return CliRunner().invoke(main, ["--home", str(home), *map(str, arguments)], prog_name="meshnode")


def do(home: Path, *arguments: object) -> str:
    result = run(home, *arguments)
    assert result.exit_code == 0, result.stderr
    return result.stdout


def refuse(home: Path, says: str, *arguments: object, code: int = 1) -> None:
    """The command is refused by one sentence, and nothing in the home has changed."""
    before = snapshot(home)
    result = run(home, *arguments)
    assert result.exit_code == code, result.output
    assert says in result.stderr
    if code != 2:
        assert result.stderr.startswith("meshnode: ")
        assert result.stderr.count("\n") == 1
    assert result.stdout == ""
    assert snapshot(home) == before


def snapshot(path: Path) -> dict[str, tuple[int, bytes]] | None:
    """What is in a home, without the empty file that is only there to be locked."""
    if path.is_file():
        return {"": (path.stat().st_mode, path.read_bytes())}
    if not path.exists():
        return None
    found = {".": (path.stat().st_mode, b"")}
    for entry in path.iterdir():
        if entry.name != "lock":
            found[entry.name] = (entry.stat().st_mode, entry.read_bytes() if entry.is_file() else b"")
    return found


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A node without a fleet."""
    path = tmp_path / "home"
    do(path, "init", "--name", "ana")
    return path


@pytest.fixture
def welcome(home: Path, tmp_path: Path) -> Path:
    return FLEET.welcome(home / "ana.request", tmp_path / "ana.welcome")


@pytest.fixture
def member(home: Path, welcome: Path) -> Path:
    do(home, "join", welcome)
    return home


@pytest.fixture
def office(tmp_path: Path) -> Path:
    path = tmp_path / "office"
    request = Path(do(path, "init", "--name", "kantor", "--role", "office").strip())
    do(path, "join", FLEET.welcome(request, tmp_path / "kantor.welcome"))
    return path


@pytest.fixture
def crash_at_write(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Let the power go just before the write of this number takes effect; 0 mends it."""
    replace_file = os.replace

    def arrange(number: int) -> None:
        writes = 0

        def write(source: Path, target: Path) -> None:
            nonlocal writes
            writes += 1
            if writes == number:
                raise Crash
            replace_file(source, target)

        monkeypatch.setattr("meshnode.app.files.os.replace", write)

    return arrange


# --- the command --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", COMMANDS)
def test_the_table_says_what_the_commands_say(name: str) -> None:
    command = main.get_command(click.Context(main), name)
    assert command is not None
    assert command.name == name
    assert command.get_short_help_str(200) == COMMANDS[name][1]
    assert name in CliRunner().invoke(main, ["--help"]).stdout


def test_help_loads_little() -> None:
    program = (
        "import sys\n"
        "from meshnode.app.cli import main\n"
        "try:\n    main(['--help'])\n"
        "except SystemExit:\n    pass\n"
        "heavy = {'cryptography', 'trio', 'msgpack', 'zeroconf', 'sqlite3', 'ssl', 'rich', 'tomllib'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_version() -> None:
    assert CliRunner().invoke(main, ["--version"], prog_name="meshnode").stdout == f"meshnode {__version__}\n"


def test_wrong_usage_is_2(tmp_path: Path) -> None:
    refuse(tmp_path, "No such command 'fly'", "fly", code=2)
    refuse(tmp_path, "Missing option '--name'", "init", code=2)
    refuse(tmp_path, "'--role'", "init", "--name", "ana", "--role", "admiral", code=2)
    refuse(tmp_path, "Missing argument 'WELCOME'", "join", code=2)
    refuse(tmp_path, "Missing argument 'FILE'", "fleet", "update", code=2)
    assert "the folder's name is empty" in CliRunner().invoke(main, ["--home", "", "run"]).stderr


def test_errors_become_exit_codes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail_with(error: BaseException) -> Result:
        def fail() -> None:
            raise error

        monkeypatch.setattr("meshnode.app.cli.membership.init", click.Command("init", callback=fail))
        return run(tmp_path, "init")

    result = fail_with(NotRunning(home="/h"))
    assert (result.exit_code, result.stderr) == (
        3,
        "meshnode: The node in /h is not running: start it with `meshnode run`.\n",
    )
    assert fail_with(KeyboardInterrupt()).exit_code == 130
    assert fail_with(click.Abort()).exit_code == 130
    assert fail_with(BrokenPipeError(32, "Broken pipe")).stderr == ""


def test_the_home_is_told_or_in_the_environment_or_the_platforms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MESHNODE_HOME", str(tmp_path / "b"))
    monkeypatch.chdir(tmp_path)
    told = do(Path("a"), "init", "--name", "ana")
    assert told == f"{tmp_path / 'a' / 'ana.request'}\n"
    CliRunner().invoke(main, ["init", "--name", "ana"])
    assert (tmp_path / "b" / "ana.request").exists()
    monkeypatch.delenv("MESHNODE_HOME")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert default_home().name == "meshnode"
    if sys.platform == "linux":
        CliRunner().invoke(main, ["init", "--name", "ana"])
        assert (tmp_path / "data" / "meshnode" / "ana.request").exists()


# --- init ---------------------------------------------------------------------------------------------------------


def test_init_makes_a_node(tmp_path: Path) -> None:
    home = tmp_path / "deep" / "home"
    result = run(home, "init", "--name", "ana")
    assert result.exit_code == 0
    assert result.stdout == f"{home / 'ana.request'}\n"
    assert "meshnode authority enroll" in result.stderr
    request = read_request((home / "ana.request").read_bytes())
    assert (request.name, request.role, request.endpoint) == ("ana", "officer", None)
    assert request.key == Home(home).identity().key.public
    assert mode(home) == 0o700
    assert {entry.name: mode(entry) for entry in home.iterdir()} == dict.fromkeys(
        ["config.toml", "device.key", "ana.request", "lock"], 0o600
    )
    assert read_config(home / "config.toml") == Config()


def test_init_of_an_office_makes_its_endpoint(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    do(home.path, "init", "--name", "kantor", "--role", "office")
    request = read_request(home.request_path("kantor").read_bytes())
    assert request.endpoint is not None
    assert request.endpoint.id == home.office_keys().endpoint.id
    assert request.endpoint.sealing_keys[0].raw == home.office_keys().sealing_key.public.raw
    assert mode(home.office_key_path) == mode(home.office_seal_path) == 0o600


def test_init_takes_an_empty_folder_and_one_with_a_config(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o755)
    (home / "config.toml").write_text("discovery = false\n")
    (home / ".meshnode-0011223344556677.tmp").write_bytes(b"half")
    do(home, "init", "--name", "ana")
    assert mode(home) == 0o700
    assert (home / "config.toml").read_text() == "discovery = false\n"
    assert not (home / ".meshnode-0011223344556677.tmp").exists()


def test_init_leaves_other_folders_alone(tmp_path: Path) -> None:
    (tmp_path / "cat.jpg").write_bytes(b"meow")
    tmp_path.chmod(0o755)
    refuse(tmp_path, "holds other files", "init", "--name", "ana")
    refuse(tmp_path / "cat.jpg", "is a file, not a folder", "init", "--name", "ana")


@pytest.mark.parametrize("name", ["", "../ana", "a/b", ".ana", "-ana", "a b", "x" * 64])
def test_init_refuses_other_names(tmp_path: Path, name: str) -> None:
    refuse(tmp_path / "home", "cannot be a device's name", "init", f"--name={name}")


def test_a_lost_request_is_written_again(home: Path) -> None:
    before = snapshot(home)
    (home / "ana.request").unlink()
    assert do(home, "init", "--name", "ana") == f"{home / 'ana.request'}\n"
    assert snapshot(home) == before


def test_a_lost_request_of_an_office_is_written_again(tmp_path: Path) -> None:
    request = Path(do(tmp_path / "home", "init", "--name", "kantor", "--role", "office").strip())
    first = request.read_bytes()
    request.unlink()
    do(tmp_path / "home", "init", "--name", "kantor", "--role", "office")
    assert request.read_bytes() == first


def test_a_node_is_not_made_twice(home: Path, welcome: Path) -> None:
    refuse(home, "There already is a node in", "init", "--name", "budi")
    refuse(home, "named ana", "init", "--name", "ana", "--role", "gateway")
    do(home, "join", welcome)
    refuse(home, "named ana", "init", "--name", "ana")


def test_an_office_can_have_the_keys_of_another(office: Path, tmp_path: Path) -> None:
    second = tmp_path / "second"
    second.mkdir()
    for name in ("office.key", "office.seal"):
        (second / name).write_bytes((office / name).read_bytes())
        (second / name).chmod(0o600)
    refuse(second, "holds other files", "init", "--name", "kantor-2")
    do(second, "init", "--name", "kantor-2", "--role", "office")
    assert Home(second).office_keys().endpoint.id == Home(office).office_keys().endpoint.id
    assert Home(second).identity().key.public != Home(office).identity().key.public


@pytest.mark.parametrize(
    ("role", "write", "writes"),
    [*(("officer", write, 3) for write in range(1, 4)), *(("office", write, 5) for write in range(1, 6))],
)
def test_after_a_crash_init_begins_again(
    tmp_path: Path, crash_at_write: Callable[[int], None], role: str, write: int, writes: int
) -> None:
    home = tmp_path / "home"
    crash_at_write(write)
    with pytest.raises(Crash):
        run(home, "init", "--name", "ana", "--role", role)
    crash_at_write(0)
    if write < writes:
        with pytest.raises(NoNode):
            Home(home).load()
    request = Path(do(home, "init", "--name", "ana", "--role", role).strip())
    assert read_request(request.read_bytes()).key == Home(home).identity().key.public
    do(home, "join", FLEET.welcome(request, tmp_path / "welcome"))
    Home(home).load()


# --- load, privacy, lock ------------------------------------------------------------------------------------------


def test_load_before_there_is_anything(tmp_path: Path) -> None:
    with pytest.raises(NoNode, match="There is no node in"):
        Home(tmp_path / "nothing").load()
    with pytest.raises(NoNode):
        Home(tmp_path).load()


def test_load_before_joining(home: Path) -> None:
    with pytest.raises(NotJoined) as refusal:
        Home(home).load()
    assert str(home / "ana.request") in str(refusal.value)


def test_load_gives_all(member: Path, office: Path) -> None:
    membership = Home(member).load()
    assert (membership.certificate.name, membership.certificate.role) == ("ana", "officer")
    assert membership.certificate.key == membership.key.public
    assert (membership.authority, membership.authority_der) == (FLEET.key.public, FLEET.der)
    assert membership.fleet_name == membership.document.name == "Tasikmalaya"
    assert membership.document.version == 3
    assert membership.office is None
    at_office = Home(office).load()
    assert at_office.office is not None
    assert at_office.document.endpoint(at_office.office.signing_key.public.id) is not None


@pytest.mark.parametrize("name", ["device.key", "device.crt", "authority.crt", "fleet.document"])
@pytest.mark.parametrize(
    "content", [b"", b"junk", b"-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n"]
)
def test_a_damaged_file_is_named(member: Path, name: str, content: bytes) -> None:
    (member / name).write_bytes(content)
    with pytest.raises(FileTrouble, match="is damaged") as refusal:
        Home(member).load()
    assert str(refusal.value).startswith(str(member / name))


@pytest.mark.parametrize("name", ["office.key", "office.seal"])
@pytest.mark.parametrize("content", [b"", b"zz", b"\xff", b"00" * 31])
def test_damaged_office_keys_are_named(office: Path, name: str, content: bytes) -> None:
    (office / name).write_bytes(content)
    with pytest.raises(FileTrouble, match="is damaged"):
        Home(office).load()
    (office / name).unlink()
    with pytest.raises(FileTrouble, match=f"{name} does not exist"):
        Home(office).load()


def test_a_certificate_of_another_key_is_not_this_nodes(member: Path, home: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    request = Path(do(other, "init", "--name", "ana").strip())
    do(other, "join", FLEET.welcome(request, tmp_path / "w"))
    (member / "device.crt").write_bytes((other / "device.crt").read_bytes())
    with pytest.raises(FileTrouble, match=r"device\.crt is damaged"):
        Home(member).load()


@pytest.mark.parametrize(
    "name",
    [
        "",
        "device.key",
        "office.key",
        "office.seal",
        "store.db",
        "store.db-wal",
        "store.db-payloads-0123456789abcdef",
        "control.json",
    ],
)
@pytest.mark.parametrize("right", [0o040, 0o020, 0o010, 0o004, 0o002, 0o001])
def test_what_others_may_reach_is_refused(office: Path, name: str, right: int) -> None:
    path = office / name
    if not path.exists():
        path.touch(0o600)
    Home(office).check_private()
    path.chmod(mode(path) | right)
    for refused in (Home(office).check_private, Home(office).load):
        with pytest.raises(HomeReadable) as refusal:
            refused()
        assert f"`chmod {'600' if name else '700'} {path}`" in str(refusal.value)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to somebody else")
def test_the_home_of_somebody_else_is_refused(member: Path, tmp_path: Path) -> None:
    newer = tmp_path / "newer"
    newer.write_bytes(FLEET.at(9).to_file())
    for path in (member / "device.key", member):
        os.chown(path, 12345, -1)
        with pytest.raises(HomeOfOther, match="belongs to the user 12345"):
            Home(member).load()
        refuse(member, "belongs to the user 12345", "fleet", "update", newer)
        os.chown(path, 0, -1)
    Home(member).load()


def test_one_holds_the_lock(member: Path) -> None:
    with Home(member).lock(), pytest.raises(HomeBusy), Home(member).lock():
        pass
    with Home(member).lock():
        pass


def test_the_lock_ends_with_its_holder(member: Path) -> None:
    program = (
        "import sys, pathlib\n"
        "from meshnode.app.home import Home\n"
        "with Home(pathlib.Path(sys.argv[1])).lock():\n"
        "    print('held', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", program, str(member)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(HomeBusy), Home(member).lock():
            pass
        holder.kill()
        holder.wait(10)
    with Home(member).lock():
        pass


def test_no_lock_of_a_home_that_others_reach(member: Path) -> None:
    member.chmod(0o750)
    with pytest.raises(HomeReadable), Home(member).lock():
        pass


def test_no_lock_without_a_home(tmp_path: Path) -> None:
    with pytest.raises(NoNode), Home(tmp_path / "nothing").lock():
        pass


def test_a_file_is_on_the_disk_before_it_has_its_name_and_the_name_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    replace_file = os.replace

    def flush(descriptor: int) -> None:
        status = os.fstat(descriptor)
        done.append("folder" if stat.S_ISDIR(status.st_mode) else f"{status.st_size} bytes")

    def rename(source: Path, target: Path) -> None:
        replace_file(source, target)
        done.append("name")

    monkeypatch.setattr("meshnode.app.files.os.fsync", flush)
    monkeypatch.setattr("meshnode.app.files.os.replace", rename)
    write_file(tmp_path / "file", b"text")
    assert done == ["4 bytes", "name", "folder"]
    assert mode(tmp_path / "file") == 0o600


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("meshnode.app.files.os.fsync", full)
    with pytest.raises(FileTrouble, match=r"file cannot be written: the disk is full\.$"):
        write_file(tmp_path / "file", b"new")
    assert [(entry.name, entry.read_bytes()) for entry in tmp_path.iterdir()] == [("file", b"old")]


# --- join ---------------------------------------------------------------------------------------------------------


def test_join_makes_a_member(home: Path, welcome: Path) -> None:
    assert do(home, "join", welcome) == "ana is now an officer of the fleet Tasikmalaya.\n"
    assert sorted(entry.name for entry in home.iterdir()) == sorted(MEMBER_FILES)
    assert all(mode(entry) == 0o600 for entry in home.iterdir())
    assert (home / "device.crt").read_bytes().startswith(b"-----BEGIN CERTIFICATE-----\n")


def test_join_again_renews(member: Path, tmp_path: Path) -> None:
    before = (member / "device.crt").read_bytes()
    Home(member).save_document(FLEET.at(8))
    renewed = FLEET.welcome(member / "ana.request", tmp_path / "renewed", version=7)
    assert do(member, "join", renewed) == "ana stays an officer of the fleet Tasikmalaya.\n"
    assert (member / "device.crt").read_bytes() != before
    assert Home(member).load().document.version == 8
    do(member, "join", FLEET.welcome(member / "ana.request", tmp_path / "renewed", version=9))
    assert Home(member).load().document.version == 9


def test_join_mends_a_damaged_membership(member: Path, welcome: Path) -> None:
    for name in ("authority.crt", "device.crt", "fleet.document"):
        (member / name).write_bytes(b"junk")
        do(member, "join", welcome)
        Home(member).load()


def test_a_welcome_that_is_not_whole_is_refused(home: Path, welcome: Path, tmp_path: Path) -> None:
    data = welcome.read_bytes()
    middle = bytearray(data)
    middle[len(data) // 2] ^= 1
    for spoiled in (b"", b"junk", data[:-1], data + b"\0", bytes(middle)):
        welcome.write_bytes(spoiled)
        refuse(home, f"{welcome} is not a whole welcome (", "join", welcome)
    welcome.write_bytes(bytes(300_000))
    refuse(home, "is too large", "join", welcome)
    refuse(home, "does not exist", "join", tmp_path / "nothing")
    refuse(home, "is a folder", "join", tmp_path)
    refuse(home, "is not a whole welcome (", "join", home / "ana.request")


def test_the_welcome_of_another_is_refused(home: Path, tmp_path: Path) -> None:
    request = Path(do(tmp_path / "other", "init", "--name", "budi").strip())
    theirs = FLEET.welcome(request, tmp_path / "budi.welcome")
    refuse(home, "welcomes the device budi", "join", theirs)
    refuse(home, Home(home).identity().key.public.id.hex(), "join", theirs)


def test_a_welcome_to_another_role_is_refused(home: Path, tmp_path: Path) -> None:
    for role, called in (("gateway", "a gateway"), ("office", "an office")):
        welcome = FLEET.welcome(home / "ana.request", tmp_path / "welcome", role=role)
        refuse(home, f"it says {called}, and this node was made as an officer", "join", welcome)


def test_a_welcome_that_does_not_know_the_office_is_refused(tmp_path: Path) -> None:
    office = tmp_path / "office"
    request = Path(do(office, "init", "--name", "kantor", "--role", "office").strip())
    welcome = FLEET.welcome(request, tmp_path / "welcome", endpoint=False)
    refuse(office, "its fleet document does not know this office", "join", welcome)


def test_a_member_stays_in_its_fleet(member: Path, tmp_path: Path) -> None:
    other = OTHER.welcome(member / "ana.request", tmp_path / "other")
    refuse(member, f"is of the fleet Garut ({OTHER.key.public.id.hex()[:8]})", "join", other)
    refuse(member, "belongs to the fleet Tasikmalaya (", "join", other)


def test_join_needs_a_node_that_nobody_holds(home: Path, welcome: Path, tmp_path: Path) -> None:
    refuse(tmp_path / "nothing", "There is no node in", "join", welcome)
    with Home(home).lock():
        refuse(home, "A daemon already runs on", "join", welcome)
    home.chmod(0o755)
    refuse(home, "chmod 700", "join", welcome)


@pytest.mark.parametrize("write", [1, 2, 3])
def test_after_a_crash_join_begins_again(
    home: Path, welcome: Path, tmp_path: Path, crash_at_write: Callable[[int], None], write: int
) -> None:
    crash_at_write(write)
    with pytest.raises(Crash):
        run(home, "join", welcome)
    crash_at_write(0)
    with pytest.raises(NotJoined):
        Home(home).load()
    # it was no member yet, so it may as well go elsewhere
    do(home, "join", OTHER.welcome(home / "ana.request", tmp_path / "other"))
    assert Home(home).load().fleet_name == "Garut"


# --- fleet update -------------------------------------------------------------------------------------------------


@pytest.fixture
def paper(tmp_path: Path) -> Callable[[bytes], Path]:
    def write(data: bytes) -> Path:
        path = tmp_path / "paper.fleet"
        path.write_bytes(data)
        return path

    return write


def test_a_newer_document_is_adopted(member: Path, paper: Callable[[bytes], Path]) -> None:
    newer = FLEET.at(4)
    said = do(member, "fleet", "update", paper(newer.to_file()))
    assert said == "ana now has version 4 of the fleet document.\n"
    assert (member / "fleet.document").read_bytes() == newer.to_file()
    assert mode(member / "fleet.document") == 0o600


def test_revocations_are_not_taken_back(member: Path, paper: Callable[[bytes], Path]) -> None:
    gone = [SigningKey.from_seed(bytes([at]) * 32).public.id for at in (1, 2)]
    do(member, "fleet", "update", paper(FLEET.at(4, revoked=tuple(map(DeviceId, gone))).to_file()))
    before = snapshot(member)
    forgiving = paper(FLEET.at(9, revoked=(DeviceId(gone[0]),)).to_file())
    refuse(member, "lets devices in that version 4 revokes (there are 1)", "fleet", "update", forgiving)
    assert snapshot(member) == before


def test_the_same_version_changes_nothing(member: Path, paper: Callable[[bytes], Path]) -> None:
    before = snapshot(member)
    said = do(member, "fleet", "update", paper(FLEET.at(3).to_file()))
    assert said == "ana already has version 3 of the fleet document.\n"
    assert snapshot(member) == before


def test_documents_that_are_refused(member: Path, paper: Callable[[bytes], Path], tmp_path: Path) -> None:
    refuse(member, "is version 2, older than version 3", "fleet", "update", paper(FLEET.at(2).to_file()))
    theirs = f"is of the fleet Garut ({OTHER.key.public.id.hex()[:8]}), but this node belongs to"
    refuse(member, theirs, "fleet", "update", paper(OTHER.at(9).to_file()))
    data = FLEET.at(9).to_file()
    for spoiled in (
        b"",
        b"junk",
        data[:-1],
        data + b"\0",
        data[:-1] + bytes([data[-1] ^ 1]),
        b"\x92\x01\x02",
    ):
        refuse(member, "is not a true fleet document of this fleet (", "fleet", "update", paper(spoiled))
    refuse(member, "does not exist", "fleet", "update", tmp_path / "nothing")
    refuse(member, "is a folder", "fleet", "update", tmp_path)


def test_an_update_needs_a_member(home: Path, tmp_path: Path, paper: Callable[[bytes], Path]) -> None:
    newer = paper(FLEET.at(4).to_file())
    refuse(home, "belongs to no fleet yet", "fleet", "update", newer)
    refuse(tmp_path / "nothing", "There is no node in", "fleet", "update", newer)


def test_its_own_revocation_is_adopted(member: Path, paper: Callable[[bytes], Path]) -> None:
    own = Home(member).load().certificate.device
    said = do(member, "fleet", "update", paper(FLEET.at(4, revoked=(own,)).to_file()))
    assert said == "ana now has version 4 of the fleet document, which revokes it.\n"
    assert own in Home(member).load().document.revoked


@pytest.mark.parametrize(
    ("adopted", "version", "says"), [(True, 4, "now has version 4"), (False, 5, "already has version 5")]
)
def test_a_daemon_is_told(
    member: Path,
    paper: Callable[[bytes], Path],
    monkeypatch: pytest.MonkeyPatch,
    adopted: bool,
    version: int,
    says: str,
) -> None:
    told = []

    class Client:
        def __init__(self, home: Home) -> None:
            assert home.path == member

        def request(self, method: str, path: str, body: bytes) -> dict[str, object]:
            told.append((method, path, read_document_file(body, FLEET.key.public).version))
            return {"version": version, "adopted": adopted}

    client = types.ModuleType("meshnode.app.client")
    monkeypatch.setattr(client, "Client", Client, raising=False)
    monkeypatch.setitem(sys.modules, "meshnode.app.client", client)
    (member / "control.json").touch(0o600)
    before = snapshot(member)
    with Home(member).lock():
        assert says in do(member, "fleet", "update", paper(FLEET.at(4).to_file()))
        assert told == [("PUT", "/v1/fleet", 4)]
        # what is wrong is said with the file's name, before the daemon is asked
        refuse(member, "older than version 3", "fleet", "update", paper(FLEET.at(2).to_file()))
    assert len(told) == 1
    assert snapshot(member) == before


def test_a_daemon_that_is_just_starting_is_not_told(
    member: Path, paper: Callable[[bytes], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "meshnode.app.client", types.SimpleNamespace(Client=None))
    with Home(member).lock():
        refuse(member, "does not answer", "fleet", "update", paper(FLEET.at(4).to_file()), code=3)

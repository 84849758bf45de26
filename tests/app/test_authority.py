"""Founding a fleet, admitting and revoking devices: what is done is all there, what is refused changes nothing."""

from __future__ import annotations

import json
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from meshnode.app.authority import Authority, read_key
from meshnode.app.cli import main
from meshnode.app.files import locked_folder
from meshnode.core.errors import FileTrouble, HomeReadable, NoAuthority
from meshnode.core.fleet import Endpoint, Request, read_document_file, read_request, read_welcome
from meshnode.core.identity import SigningKey
from meshnode.core.sealing import SealingKey


class Crash(BaseException):
    """The power went."""


class Desk:
    """The authority's desk: its folder, and the requests that devices bring."""

    def __init__(self, path: Path) -> None:
        self.directory = path / "authority"
        self.papers = path / "papers"
        self.papers.mkdir()

    def run(self, command: str, *arguments: object) -> Result:
        words = ["authority", command, str(self.directory), *map(str, arguments)]
        return CliRunner().invoke(main, words, prog_name="meshnode")

    def do(self, command: str, *arguments: object) -> str:
        result = self.run(command, *arguments)
        assert result.exit_code == 0, result.stderr
        return result.stdout

    def refuse(self, says: str, command: str, *arguments: object, code: int = 1) -> None:
        """The command is refused by one sentence, and not one byte or mode has changed."""
        before = snapshot(self.directory), snapshot(self.papers)
        result = self.run(command, *arguments)
        assert result.exit_code == code, result.output
        assert says in result.stderr
        if code == 1:
            assert result.stderr.startswith("meshnode: ")
            assert result.stderr.count("\n") == 1
        assert result.stdout == ""
        assert (snapshot(self.directory), snapshot(self.papers)) == before

    def request(
        self, name: str, role: str = "officer", seed: str | None = None, office: str | None = None
    ) -> Path:
        device = device_key(seed or name)
        endpoint = None
        if role == "office":
            endpoint = Endpoint(
                (SealingKey(seed_of(office or name)).public,), office_key(office or name).public, ()
            )
        path = self.papers / f"{name}.request"
        path.write_bytes(Request(name, role, device.public, endpoint).to_file(device))
        return path

    def enroll(self, name: str, role: str = "officer", **more: str) -> Path:
        return Path(self.do("enroll", self.request(name, role, **more)).removesuffix("\n"))

    @property
    def now(self) -> Authority:
        return Authority(self.directory)

    def shown(self) -> dict[str, Any]:
        shown: dict[str, Any] = json.loads(self.do("show", "--json"))
        return shown


def seed_of(text: str) -> bytes:
    return text.encode().ljust(32, b".")


def device_key(name: str) -> SigningKey:
    return SigningKey.from_seed(seed_of(name))


def office_key(name: str) -> SigningKey:
    return SigningKey.from_seed(seed_of(f"office {name}"))


def snapshot(path: Path) -> dict[str, tuple[int, bytes]] | None:
    if path.is_file():
        return {"": (path.stat().st_mode, path.read_bytes())}
    if not path.exists():
        return None
    found = {".": (path.stat().st_mode, b"")}
    for entry in path.iterdir():
        found[entry.name] = (entry.stat().st_mode, entry.read_bytes() if entry.is_file() else b"")
    return found


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test pulls the plug, so none needs to wait for the disk."""
    monkeypatch.setattr("meshnode.app.files.os.fsync", lambda descriptor: None)


@pytest.fixture
def unfounded(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


@pytest.fixture
def desk(unfounded: Desk) -> Desk:
    unfounded.do("init", "--fleet", "Tasikmalaya")
    return unfounded


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "passphrase"
    path.write_text("correct horse\n")
    return path


@pytest.fixture
def crash_at_write(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Let the power go just before the write of this number takes effect; 0 mends it."""
    replace = os.replace

    def arrange(number: int) -> None:
        writes = 0

        def write(source: Path, target: Path) -> None:
            nonlocal writes
            writes += 1
            if writes == number:
                raise Crash
            replace(source, target)

        monkeypatch.setattr("meshnode.app.files.os.replace", write)

    return arrange


# --- init -------------------------------------------------------------------------------------------------------


def test_init_founds_a_fleet(unfounded: Desk) -> None:
    unfounded.directory = unfounded.directory / "deep" / "er"
    said = unfounded.do("init", "--fleet", "Kabupaten Tasikmalaya")
    now = unfounded.now
    assert said.startswith(f"The fleet Kabupaten Tasikmalaya ({now.public.id.hex()}) is founded in ")
    assert (now.document.version, now.document.name) == (1, "Kabupaten Tasikmalaya")
    assert (now.document.endpoints, now.document.revoked, now.devices, now.addresses) == (
        (),
        frozenset(),
        {},
        (),
    )
    assert mode(unfounded.directory) == 0o700
    assert {entry.name: mode(entry) for entry in unfounded.directory.iterdir()} == dict.fromkeys(
        ["authority.key", "authority.crt", "fleet.document", "addresses.json", "devices.json"], 0o600
    )


def test_init_takes_an_empty_folder(unfounded: Desk) -> None:
    unfounded.directory.mkdir(mode=0o755)
    unfounded.do("init", "--fleet", "Tasikmalaya")
    assert mode(unfounded.directory) == 0o700


def test_init_leaves_other_folders_alone(desk: Desk, tmp_path: Path) -> None:
    desk.refuse("already holds files", "init", "--fleet", "Second")
    desk.directory = tmp_path / "photos"
    desk.directory.mkdir(mode=0o755)
    (desk.directory / "cat.jpg").write_bytes(b"meow")
    desk.refuse("already holds files", "init", "--fleet", "Second")
    desk.directory = desk.directory / "cat.jpg"
    desk.refuse("is a file, not a folder", "init", "--fleet", "Second")


@pytest.mark.parametrize("name", ["", " a", "a/b", "-", "x" * 64])
def test_init_refuses_other_names(unfounded: Desk, name: str) -> None:
    unfounded.refuse("cannot be a fleet's name", "init", "--fleet", name)


def test_usage(unfounded: Desk) -> None:
    unfounded.refuse("Missing option '--fleet'", "init", code=2)
    unfounded.refuse("Missing argument 'HOST:PORT...'", "address", code=2)


@pytest.mark.parametrize("write", range(1, 7))
def test_a_crash_while_founding_lets_init_begin_again(
    unfounded: Desk, crash_at_write: Callable[[int], None], write: int
) -> None:
    crash_at_write(write)
    with pytest.raises(Crash):
        unfounded.run("init", "--fleet", "First")
    crash_at_write(0)
    with pytest.raises(NoAuthority):
        Authority(unfounded.directory)
    (unfounded.directory / ".meshnode-0011223344556677.tmp").write_bytes(b"half")
    unfounded.do("init", "--fleet", "Second")
    assert unfounded.now.document.name == "Second"
    assert len(list(unfounded.directory.iterdir())) == 5


# --- the passphrase ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["", "\n", "\r\n"])
def test_an_encrypted_key_takes_its_passphrase(unfounded: Desk, secret: Path, ending: str) -> None:
    unfounded.do("init", "--fleet", "Tasikmalaya", "--passphrase-file", secret)
    assert b"BEGIN ENCRYPTED PRIVATE KEY" in (unfounded.directory / "authority.key").read_bytes()
    secret.write_bytes(b"correct horse" + ending.encode())
    unfounded.do("enroll", unfounded.request("officer-1"), "--passphrase-file", secret)
    unfounded.do("address", "h:1", "--passphrase-file", secret)
    unfounded.do("revoke", "officer-1", "--passphrase-file", secret)
    unfounded.do("show")
    unfounded.do("publish")


def test_an_encrypted_key_stays_shut_otherwise(unfounded: Desk, secret: Path, tmp_path: Path) -> None:
    unfounded.do("init", "--fleet", "Tasikmalaya", "--passphrase-file", secret)
    request = unfounded.request("officer-1")
    for command in (("enroll", request), ("address", "h:1"), ("revoke", "officer-1")):
        unfounded.refuse("name the file with its passphrase", *command)
        secret.write_text("wrong\n")
        unfounded.refuse("The passphrase does not open", *command, "--passphrase-file", secret)
        secret.write_text("\n")
        unfounded.refuse("holds no passphrase", *command, "--passphrase-file", secret)
        secret.write_text("x" * 1024)
        unfounded.refuse("is too large", *command, "--passphrase-file", secret)
        unfounded.refuse("does not exist", *command, "--passphrase-file", tmp_path / "nothing")
        unfounded.refuse("is a folder", *command, "--passphrase-file", tmp_path)


def test_an_unusable_passphrase_founds_nothing(unfounded: Desk, secret: Path) -> None:
    for content in ("", "\n", "\r\n", "x" * 1024):
        secret.write_text(content)
        result = unfounded.run("init", "--fleet", "Tasikmalaya", "--passphrase-file", secret)
        assert result.exit_code == 1
        assert not unfounded.directory.exists()


def test_the_longest_passphrase(unfounded: Desk, secret: Path) -> None:
    secret.write_text("x" * 1023 + "\r\n")
    unfounded.do("init", "--fleet", "Tasikmalaya", "--passphrase-file", secret)
    unfounded.do("address", "h:1", "--passphrase-file", secret)


def test_a_passphrase_that_is_not_needed_is_not_looked_at(desk: Desk, secret: Path) -> None:
    desk.do("address", "h:1", "--passphrase-file", secret)


# --- enroll -----------------------------------------------------------------------------------------------------


def test_enroll_admits_a_device(desk: Desk) -> None:
    request = desk.request("officer-1")
    result = desk.run("enroll", request)
    out = desk.papers / "officer-1.welcome"
    assert result.stdout == f"{out}\n"
    assert "meshnode join" in result.stderr
    welcome = read_welcome(out.read_bytes())
    assert welcome.authority == desk.now.public
    assert (welcome.certificate.name, welcome.certificate.role) == ("officer-1", "officer")
    assert welcome.certificate.key == device_key("officer-1").public
    assert welcome.document.version == desk.now.document.version == 1
    assert mode(out) == 0o644
    assert mode(desk.directory / "devices.json") == 0o600
    (device,) = desk.shown()["devices"]
    assert (device["id"], device["name"], device["role"], device["revoked_ms"]) == (
        device_key("officer-1").public.id.hex(),
        "officer-1",
        "officer",
        None,
    )
    assert device["enrolled_ms"] > 1_600_000_000_000


def test_enroll_writes_where_it_is_told(desk: Desk, tmp_path: Path) -> None:
    out = tmp_path / "w"
    out.write_text("older")
    link = tmp_path / "link"
    link.symlink_to(out)
    assert desk.do("enroll", desk.request("officer-1"), "--out", link) == f"{link}\n"
    assert link.is_symlink()
    assert read_welcome(out.read_bytes()).certificate.name == "officer-1"


def test_enroll_of_an_office_enters_its_endpoint(desk: Desk) -> None:
    out = desk.enroll("office", "office")
    document = read_welcome(out.read_bytes()).document
    assert document.version == desk.now.document.version == 2
    (endpoint,) = document.endpoints
    assert endpoint.id == office_key("office").public.id
    assert endpoint.sealing_keys[0].raw == SealingKey(seed_of("office")).public.raw


def test_the_same_request_again_gives_the_same_welcome(desk: Desk) -> None:
    for name, role in (("officer-1", "officer"), ("office", "office")):
        first = desk.enroll(name, role).read_bytes()
        before = snapshot(desk.directory)
        assert desk.enroll(name, role).read_bytes() == first
        assert snapshot(desk.directory) == before
    again = read_welcome(desk.enroll("officer-1").read_bytes())
    assert again.document.version == 2
    assert len(desk.shown()["devices"]) == 2


def test_a_name_belongs_to_one_living_key(desk: Desk) -> None:
    desk.enroll("officer-1")
    desk.refuse("already has a device named officer-1", "enroll", desk.request("officer-1", seed="other"))
    desk.refuse("already has a device named officer-1", "enroll", desk.request("Officer-1", seed="other"))
    desk.do("revoke", "officer-1")
    desk.enroll("officer-1", seed="other")


def test_a_revoked_key_stays_out(desk: Desk) -> None:
    desk.enroll("officer-1")
    desk.do("revoke", "officer-1")
    desk.refuse("officer-1 was revoked", "enroll", desk.request("officer-1"))
    desk.refuse("officer-1 was revoked", "enroll", desk.request("officer-2", seed="officer-1"))


def test_one_key_has_one_name_and_role(desk: Desk) -> None:
    desk.enroll("officer-1")
    desk.refuse(
        "knows its key as officer-1, role officer", "enroll", desk.request("officer-2", seed="officer-1")
    )
    desk.refuse("knows its key as officer-1", "enroll", desk.request("officer-1", "gateway"))
    desk.enroll("office", "office")
    desk.refuse("knows its office with another key", "enroll", desk.request("office", "office", office="new"))


def test_two_nodes_can_be_one_office(desk: Desk) -> None:
    desk.enroll("office-1", "office", office="shared")
    desk.enroll("office-2", "office", office="shared")
    assert desk.now.document.version == 2
    assert len(desk.shown()["endpoints"]) == 1
    desk.do("revoke", "office-1")
    assert len(desk.shown()["endpoints"]) == 1
    desk.do("revoke", "office-2")
    assert not desk.now.document.endpoints


def test_an_office_key_with_another_sealing_key_is_refused(desk: Desk) -> None:
    desk.enroll("office", "office")
    device = device_key("impostor")
    endpoint = Endpoint((SealingKey(seed_of("impostor")).public,), office_key("office").public, ())
    path = desk.papers / "impostor.request"
    path.write_bytes(Request("impostor", "office", device.public, endpoint).to_file(device))
    desk.refuse("knows its office with another sealing key", "enroll", path)


def test_a_fleet_has_at_most_so_many_offices(desk: Desk) -> None:
    for number in range(16):
        desk.enroll(f"office-{number}", "office")
    desk.refuse("holds at most 16 offices", "enroll", desk.request("office-16", "office"))


def test_a_request_that_is_not_whole_is_refused(desk: Desk, tmp_path: Path) -> None:
    request = desk.request("officer-1")
    data = request.read_bytes()
    for spoiled in (b"", b"junk", data[:-1], data + b"\0", data.replace(b"officer-1", b"officer-2")):
        request.write_bytes(spoiled)
        desk.refuse(f"{request} is not a whole enrolment request (request", "enroll", request)
    request.write_bytes(bytes(300_000))
    desk.refuse(f"{request} is too large", "enroll", request)
    desk.refuse("does not exist", "enroll", desk.papers / "nothing")
    desk.refuse("is a folder", "enroll", tmp_path)


def test_a_welcome_that_cannot_be_written_enrols_nobody(desk: Desk, tmp_path: Path) -> None:
    request = desk.request("officer-1")
    desk.refuse("is a folder", "enroll", request, "--out", tmp_path)
    desk.refuse("there is no folder", "enroll", request, "--out", tmp_path / "no" / "where")
    desk.refuse("is not a file that can be replaced", "enroll", request, "--out", "/dev/null")
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


def test_without_an_authority_nothing_is_done(unfounded: Desk) -> None:
    request = unfounded.request("officer-1")
    for command in (("enroll", request), ("address", "h:1"), ("revoke", "x"), ("show",), ("publish",)):
        unfounded.refuse("There is no authority in", *command)
    unfounded.directory.mkdir()
    unfounded.refuse("There is no authority in", "enroll", request)


# --- address, revoke --------------------------------------------------------------------------------------------


def test_addresses_are_those_of_all_offices(desk: Desk) -> None:
    desk.enroll("office-1", "office")
    desk.do("address", "office.example:7766", "[2001:db8::1]:1", "office.example:7766")
    assert desk.now.document.version == 3
    desk.enroll("office-2", "office")
    assert [endpoint.addresses for endpoint in desk.now.document.endpoints] == [
        ("office.example:7766", "[2001:db8::1]:1")
    ] * 2
    desk.do("address", "10.0.0.1:7766")
    assert [endpoint.addresses for endpoint in desk.now.document.endpoints] == [("10.0.0.1:7766",)] * 2
    assert desk.now.document.version == 5
    desk.do("address", "10.0.0.1:7766")
    assert desk.now.document.version == 5


def test_an_address_given_before_there_is_an_office_is_remembered(desk: Desk) -> None:
    result = desk.run("address", "office.example:7766")
    assert "No office is enrolled yet" in result.stderr
    desk.enroll("office", "office")
    assert desk.now.document.endpoints[0].addresses == ("office.example:7766",)


@pytest.mark.parametrize("address", ["h", "h:0", "h:65536", "::1:80", "a b:1"])
def test_what_is_no_address_is_wrong_usage(desk: Desk, address: str) -> None:
    desk.refuse("is not an address: write HOST:PORT", "address", "good:1", address, code=2)


def test_at_most_so_many_addresses(desk: Desk) -> None:
    desk.enroll("office", "office")
    desk.do("address", *(f"h:{port}" for port in range(1, 33)))
    desk.refuse("holds at most 32 addresses", "address", *(f"h:{port}" for port in range(1, 34)))


def test_revoke_by_name_or_id(desk: Desk) -> None:
    for number in range(3):
        desk.enroll(f"officer-{number}")
    identity = device_key("officer-1").public.id
    assert desk.do("revoke", "officer-0").startswith("officer-0 (")
    assert desk.do("revoke", identity.hex().upper()) == f"officer-1 ({identity.hex()}) is revoked.\n"
    assert desk.now.document.version == 3
    assert desk.now.document.revoked == {device_key("officer-0").public.id, identity}
    assert [device["revoked_ms"] is None for device in desk.shown()["devices"]] == [False, False, True]


def test_revoking_twice_says_so(desk: Desk) -> None:
    desk.enroll("officer-1")
    desk.do("revoke", "officer-1")
    before = snapshot(desk.directory)
    assert desk.do("revoke", "officer-1").endswith("was revoked already.\n")
    assert snapshot(desk.directory) == before


def test_an_unknown_device_cannot_be_revoked(desk: Desk) -> None:
    desk.enroll("officer-1")
    for device in ("officer", "officer-11", "", "00" * 16):
        desk.refuse(f"has no device {device}:", "revoke", device)


def test_a_name_means_the_living_device(desk: Desk) -> None:
    desk.enroll("officer-1", seed="first")
    desk.do("revoke", "officer-1")
    desk.enroll("officer-1", seed="second")
    desk.do("revoke", "officer-1")
    assert desk.now.document.revoked == {device_key(seed).public.id for seed in ("first", "second")}
    assert "was revoked already" in desk.do("revoke", "officer-1")


def test_revoking_an_office_ends_its_endpoint(desk: Desk) -> None:
    desk.enroll("office-1", "office")
    desk.enroll("office-2", "office")
    desk.do("revoke", "office-1")
    assert [endpoint.id for endpoint in desk.now.document.endpoints] == [office_key("office-2").public.id]
    result = desk.run("revoke", "office-2")
    assert "no office any more" in result.stderr


# --- show, publish ----------------------------------------------------------------------------------------------


def test_show_says_all(desk: Desk, secret: Path) -> None:
    desk.enroll("office", "office")
    desk.enroll("officer-1")
    desk.enroll("officer-2")
    desk.do("address", "office.example:7766")
    desk.do("revoke", "officer-2")
    shown = desk.shown()
    now = desk.now
    assert (shown["fleet"], shown["id"], shown["version"]) == ("Tasikmalaya", now.public.id.hex(), 4)
    assert shown["revoked"] == [device_key("officer-2").public.id.hex()]
    assert shown["addresses"] == ["office.example:7766"]
    (endpoint,) = shown["endpoints"]
    assert (endpoint["id"], endpoint["addresses"]) == (
        office_key("office").public.id.hex(),
        ["office.example:7766"],
    )
    assert [device["name"] for device in shown["devices"]] == ["office", "officer-1", "officer-2"]
    table = desk.do("show")
    for text in ("Tasikmalaya", "version 4, 1 revoked", "office.example:7766", now.public.id.hex()):
        assert text in table
    rows = [line.split() for line in table.splitlines() if line.startswith("officer-")]
    assert [(row[0], row[1], row[2]) for row in rows] == [
        (name, "officer", device_key(name).public.id.hex()) for name in ("officer-1", "officer-2")
    ]
    assert [row[-1] for row in rows] == ["-", "UTC"]


def test_show_of_an_empty_fleet(desk: Desk) -> None:
    assert "none enrolled yet" in desk.do("show")


def test_publish_writes_the_newest_document(desk: Desk, tmp_path: Path) -> None:
    desk.enroll("office", "office")
    out = desk.directory / "Tasikmalaya-v2.fleet"
    result = desk.run("publish")
    assert result.stdout == f"{out}\n"
    assert read_document_file(out.read_bytes(), desk.now.public).version == 2
    assert mode(out) == 0o644
    elsewhere = tmp_path / "d"
    elsewhere.write_text("older")
    assert desk.do("publish", "--out", elsewhere) == f"{elsewhere}\n"
    assert elsewhere.read_bytes() == out.read_bytes()
    desk.refuse("is a folder", "publish", "--out", tmp_path)
    desk.do("revoke", "office")
    assert desk.do("publish") == f"{desk.directory / 'Tasikmalaya-v3.fleet'}\n"


# --- crashes, damage, several at once ---------------------------------------------------------------------------


def commands(desk: Desk) -> dict[str, tuple[object, ...]]:
    return {
        "enroll": ("enroll", desk.request("officer-2")),
        "office": ("enroll", desk.request("office-2", "office")),
        "address": ("address", "new.example:1"),
        "revoke": ("revoke", "office-1"),
    }


@pytest.mark.parametrize("name", ["enroll", "office", "address", "revoke"])
@pytest.mark.parametrize("write", [1, 2, 3])
def test_after_a_crash_the_same_command_again_does_the_whole(
    desk: Desk, crash_at_write: Callable[[int], None], name: str, write: int
) -> None:
    desk.do("address", "old.example:1")
    desk.enroll("office-1", "office")
    desk.enroll("officer-1")
    command = commands(desk)[name]
    crash_at_write(write)
    try:
        desk.run(*command)  # type: ignore[arg-type]
        crashed = False
    except Crash:
        crashed = True
    crash_at_write(0)
    version = desk.now.document.version
    known = {device.endpoint for device in desk.now.devices.values()}
    assert {endpoint.id for endpoint in desk.now.document.endpoints} <= known, (
        "an office that nobody can revoke"
    )
    if crashed and name == "revoke" and version == 3:
        # the document is out: the device counts as revoked already, and shows as such
        assert desk.shown()["devices"][0]["revoked_ms"] is not None
    desk.do(*command)  # type: ignore[arg-type]
    shown = desk.shown()
    names = [device["name"] for device in shown["devices"]]
    added = {"enroll": ["officer-2"], "office": ["office-2"]}.get(name, [])
    assert names == ["office-1", "officer-1", *added]
    assert len(shown["endpoints"]) == {"office": 2, "revoke": 0}.get(name, 1)
    assert shown["version"] == (2 if name == "enroll" else 3)
    registry = json.loads((desk.directory / "devices.json").read_text())
    assert (registry[0]["revoked_ms"] is not None) == (name == "revoke")
    expected = "new.example:1" if name == "address" else "old.example:1"
    assert all(endpoint["addresses"] == [expected] for endpoint in shown["endpoints"])


def test_the_next_document_says_what_a_crash_kept_back(
    desk: Desk, crash_at_write: Callable[[int], None]
) -> None:
    desk.enroll("office", "office")
    crash_at_write(2)
    with pytest.raises(Crash):
        desk.run("address", "new.example:1")
    crash_at_write(0)
    desk.enroll("officer-1")
    assert desk.now.document.endpoints[0].addresses == ("new.example:1",)


def test_a_revocation_outlives_an_older_copy_of_the_document(desk: Desk) -> None:
    desk.enroll("officer-1")
    older = (desk.directory / "fleet.document").read_bytes()
    desk.do("revoke", "officer-1")
    (desk.directory / "fleet.document").write_bytes(older)
    desk.refuse("officer-1 was revoked", "enroll", desk.request("officer-1"))
    desk.enroll("officer-2")
    assert desk.now.document.revoked == {device_key("officer-1").public.id}


@pytest.mark.parametrize(
    "name", ["authority.key", "authority.crt", "fleet.document", "devices.json", "addresses.json"]
)
@pytest.mark.parametrize("content", [b"", b"junk", b"\xff", b"{}", b"[1]", b"[[]]", b"[" * 100_000])
def test_a_damaged_file_is_named(desk: Desk, name: str, content: bytes) -> None:
    path = desk.directory / name
    path.write_bytes(content)
    trouble = (
        f"{path} is too large"
        if content[1:] and len(content) > 16384 and name[-3:] in ("key", "crt")
        else str(path)
    )
    desk.refuse(trouble, "address", "h:1")
    if name != "authority.key":
        desk.refuse(trouble, "show")


@pytest.mark.parametrize("name", ["authority.key", "fleet.document", "devices.json", "addresses.json"])
def test_a_missing_file_is_named(desk: Desk, name: str) -> None:
    (desk.directory / name).unlink()
    desk.refuse(f"{desk.directory / name} does not exist", "address", "h:1")


def test_devices_json_is_read_strictly(desk: Desk) -> None:
    desk.enroll("officer-1")
    path = desk.directory / "devices.json"
    (good,) = json.loads(path.read_text())
    for key in good:
        values: tuple[object, ...] = ("", "zz", [], {})
        for value in values:
            path.write_text(json.dumps([{**good, key: value}]))
            if (key, value) != ("name", "zz"):
                with pytest.raises(FileTrouble, match=r"devices\.json is damaged"):
                    Authority(desk.directory)
        path.write_text(json.dumps([{it: good[it] for it in good if it != key}]))
        with pytest.raises(FileTrouble, match=r"devices\.json is damaged"):
            Authority(desk.directory)


def test_the_key_of_another_authority_is_refused(desk: Desk, tmp_path: Path) -> None:
    other = tmp_path / "other"
    CliRunner().invoke(main, ["authority", "init", str(other), "--fleet", "Other"])
    (desk.directory / "authority.key").write_bytes((other / "authority.key").read_bytes())
    desk.refuse("authority.key is damaged", "address", "h:1")


def test_a_key_that_others_may_read_is_not_used(desk: Desk) -> None:
    key = desk.directory / "authority.key"
    key.chmod(0o640)
    desk.refuse(f"run `chmod 600 {key}`", "address", "h:1")
    key.chmod(0o600)
    desk.directory.chmod(0o750)
    with pytest.raises(HomeReadable, match="chmod 700"):
        read_key(desk.directory, None)
    desk.do("show")


def test_several_at_once_lose_nobody(desk: Desk) -> None:
    """Each reads all devices and writes all devices: without the lock the last one would win."""
    key = read_key(desk.directory, None)
    requests = [desk.request(f"officer-{number}") for number in range(8)]
    begin = threading.Barrier(len(requests))

    def enroll(path: Path) -> None:
        begin.wait()
        with locked_folder(desk.directory):
            Authority(desk.directory, key).enroll(read_request(path.read_bytes()), path, 1)

    threads = [threading.Thread(target=enroll, args=(path,)) for path in requests]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(desk.now.devices) == len(requests)


def test_what_leaves_the_folder_holds_no_secret(desk: Desk) -> None:
    out = desk.enroll("office", "office").read_bytes() + Path(desk.do("publish").strip()).read_bytes()
    seeds = [seed_of("office"), seed_of("office office")]
    assert not any(seed in out or seed.hex().encode() in out for seed in seeds)
    assert b"PRIVATE" not in out

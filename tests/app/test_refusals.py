"""What the real commands and daemons refuse: one sentence, the right exit code, and nothing has changed."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from meshnode.core.limits import MESSAGE_SIZE_MAX, MIB
from meshnode.core.sealing import SEAL_OVERHEAD
from tests.app.fleets import Fleet, Node, assert_refused, call, connect, content_of, free_port, posted, run

NOBODY = 65534
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user, or mount a disk")


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with Fleet(tmp_path_factory.mktemp("fleet")) as fleet:
        fleet.enroll("office", "office")
        ana = fleet.enroll("ana")
        fleet.start(ana)
        yield fleet


@pytest.fixture
def ana(fleet: Fleet) -> Iterator[Node]:
    """A node that runs; the test has not made it take anything."""
    node = fleet.nodes["ana"]
    before = node.get("messages"), node.get("status")["store"]["bytes"]
    yield node
    assert (node.get("messages"), node.get("status")["store"]["bytes"]) == before


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Fleet]:
    with Fleet(tmp_path) as fleet:
        yield fleet


# --- files that cannot be submitted ---


def test_a_file_that_is_not_there(ana: Node, tmp_path: Path) -> None:
    (tmp_path / "there").write_bytes(b"1")
    for missing in ("missing", "there/below", "x" * 300, ""):
        path = tmp_path / missing if missing else "-"
        assert_refused(ana.call("submit", tmp_path / "there", path), str(path))


def test_a_folder(ana: Node, tmp_path: Path) -> None:
    assert_refused(ana.call("submit", tmp_path), f"{tmp_path} is a folder: name the files in it.")


def test_what_is_no_file(ana: Node, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/null")):
        done = ana.run("submit", path, within_s=20)
        assert_refused(done, f"{path} is not a file that can be read twice: save it as a file first.")


@root_only
def test_a_file_that_only_others_may_read(fresh: Fleet) -> None:
    with tempfile.TemporaryDirectory() as folder:
        ana = fresh.enroll("ana")
        home = Path(shutil.move(ana.home, folder))
        os.chmod(folder, 0o755)
        for path in [home, *home.rglob("*")]:
            os.chown(path, NOBODY, NOBODY)
        secret = Path(folder) / "secret"
        secret.write_bytes(b"1")
        secret.chmod(0o600)
        done = run(home, "submit", secret, user=NOBODY)
        assert_refused(done, f"{secret} cannot be read: you have no permission for it.")


def test_more_than_the_limit(ana: Node, tmp_path: Path) -> None:
    for sizes in ([MESSAGE_SIZE_MAX + 1], [200 * MIB, 57 * MIB]):
        files = []
        for number, size in enumerate(sizes):
            files.append(tmp_path / f"file{number}")
            with files[-1].open("wb") as file:
                file.truncate(size)
        done = ana.call("submit", *files)
        assert_refused(done, f"has {sum(sizes)} bytes, and at most {MESSAGE_SIZE_MAX} fit into one.")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (b"message.json", "rename the file"),
        (b"a\\b", "a path is not a name"),
        (b"a\nb", "control characters"),
        (b"a\xffb", "not UTF-8"),
    ],
)
def test_names_that_are_none_everywhere(ana: Node, tmp_path: Path, name: bytes, says: str) -> None:
    path = os.fsencode(tmp_path) + b"/" + name
    with open(path, "wb"):
        pass
    assert_refused(ana.call("submit", path), says)


def test_the_same_name_twice(ana: Node, tmp_path: Path) -> None:
    for folder in ("one", "other"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "foto.jpg").write_bytes(b"1")
    files = tmp_path / "one/foto.jpg", tmp_path / "other/foto.jpg"
    assert_refused(ana.call("submit", *files), "another file of the message has this name too")


def test_too_many_files(ana: Node, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"1")
    assert_refused(ana.call("submit", *[tmp_path / "f"] * 257), "257 files; a message has 1 to 256")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--kind", "k" * 65], "its kind is longer than 64 bytes"),
        (["--kind", b"k\xff"], "not UTF-8"),
        (["--reference", "r" * 1025], "its reference is longer than 1024 bytes"),
        (["--reference", b"r\xff"], "not UTF-8"),
        (["--meta", b"a=\xff"], "not UTF-8"),
        (["--meta", b"\xff=a"], "not UTF-8"),
        (["--meta", "a=" + "b" * 65536], "longer than 65536 bytes together"),
    ],
)
def test_words_that_do_not_fit(ana: Node, tmp_path: Path, arguments: list[str | bytes], says: str) -> None:
    (tmp_path / "f").write_bytes(b"1")
    assert_refused(ana.call("submit", *arguments, tmp_path / "f"), says)


@pytest.mark.parametrize(
    "arguments",
    [
        ["submit"],
        ["submit", "--priority", "very", "f"],
        ["submit", "--meta", "no equals sign", "f"],
        ["submit", "--meta", "=value", "f"],
        ["submit", "--meta", "a=1", "--meta", "a=2", "f"],
        ["submit", "--colour", "red", "f"],
        ["status", "now"],
        ["messages", "--xml"],
        ["peers", "ana"],
        ["run", "fast"],
        ["dance"],
        ["fleet"],
        ["fleet", "update"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_2(ana: Node, arguments: list[str]) -> None:
    done = ana.call(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Usage: " in done.stderr
    assert "Traceback" not in done.stderr


# --- a node that is none, or not yet, or does not run ---


@pytest.fixture(scope="module")
def resting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A member that does not run."""
    with Fleet(tmp_path_factory.mktemp("resting")) as fleet:
        fleet.enroll("office", "office")
        yield fleet.enroll("ana")


COMMANDS = [["status"], ["messages"], ["peers"], ["status", "--json"], ["submit", "{file}"]]


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_a_node_that_does_not_run_is_3(resting: Node, tmp_path: Path, arguments: list[str]) -> None:
    (tmp_path / "f").write_bytes(b"1")
    words = [word.format(file=tmp_path / "f") for word in arguments]
    before = content_of(resting.home)
    says = f"The node in {resting.home} is not running: start it with `meshnode run`."
    assert_refused(resting.call(*words), says, code=3)
    assert content_of(resting.home) == before


def test_a_node_that_has_not_joined(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (tmp_path / "f").write_bytes(b"1")

    def refuses(says: str) -> None:
        assert_refused(call(home, "status"), says)
        assert_refused(call(home, "submit", tmp_path / "f"), says)
        assert_refused(run(home, "run"), says)

    refuses(f"There is no node in {home}: make one")
    assert not home.exists()
    assert call(home, "init", "--name", "budi").returncode == 0
    before = content_of(home)
    refuses("belongs to no fleet yet: take")
    assert content_of(home) == before


CONTROL = '{{"address": "127.0.0.1:{port}", "token": "t", "pid": 1}}'


@pytest.mark.parametrize(
    "text",
    ["", "junk", "[]", "3", "null", "{}", '{"address": 3}', '{"address": "x", "token": "t"}', "\xff",
     '{"address": "127.0.0.1:99999", "token": "t"}', '{"address": "127.0.0.1:x", "token": "t"}',
     '{"address": "127.0.0.1:1", "token": "\\n"}', '{"address": "127.0.0.1:1", "token": "\\u1234"}'],
)  # fmt: skip
def test_a_control_file_that_says_nothing_is_3(resting: Node, text: str) -> None:
    path = resting.home / "control.json"
    path.write_text(text, "latin-1")
    path.chmod(0o600)
    try:
        done = resting.call("status")
    finally:
        path.unlink()
    assert_refused(done, f"The node in {resting.home} ", code=3)


@pytest.mark.slow
def test_after_a_power_cut_the_old_control_file_is_3(fresh: Fleet, tmp_path: Path) -> None:
    fresh.enroll("office", "office")
    ana, budi = fresh.enroll("ana"), fresh.enroll("budi")
    fresh.start(ana)
    (tmp_path / "f").write_bytes(b"1")
    ana.kill()
    stale = json.loads((ana.home / "control.json").read_bytes())
    for words in (["status"], ["submit", tmp_path / "f"]):
        assert_refused(ana.call(*words), "is not running: start it with `meshnode run`.", code=3)

    # by now another node has that port, and its token is not this one's
    budi.home.joinpath("config.toml").write_text(
        f'listen = "{budi.address}"\ncontrol = "{stale["address"]}"\ndiscovery = false\n'
    )
    fresh.start(budi)
    for words in (["status"], ["submit", tmp_path / "f"]):
        assert_refused(ana.call(*words), f"The node in {ana.home} ", code=3)
    assert budi.get("messages") == []

    fresh.start(ana)
    assert json.loads((ana.home / "control.json").read_bytes())["token"] != stale["token"]
    assert ana.call("status").returncode == 0


def test_something_else_at_the_old_address_is_3(resting: Node) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            with contextlib.suppress(OSError):
                while True:
                    program, _ = server.accept()
                    with program:
                        program.recv(1000)
                        program.sendall(b"220 mail.example ESMTP\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        path = resting.home / "control.json"
        path.write_text(CONTROL.format(port=server.getsockname()[1]))
        path.chmod(0o600)
        try:
            assert_refused(resting.call("status"), "does not answer", code=3)
        finally:
            path.unlink()
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


# --- a daemon that cannot start ---


def cannot_run(node: Node, says: str) -> None:
    """`meshnode run` ends by itself with one sentence, and has touched nothing but the lock."""
    before = content_of(node.home)
    done = node.run("run", within_s=20)
    assert_refused(done, says)
    after = content_of(node.home)
    after.pop("lock", None)
    before.pop("lock", None)
    assert after == before


@pytest.mark.parametrize("key", ["listen", "control"])
def test_a_port_that_is_taken(resting: Node, key: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        addresses = {"listen": f"127.0.0.1:{free_port()}", "control": "127.0.0.1:0"} | {key: taken}
        (resting.home / "config.toml").write_text(
            "".join(f'{name} = "{address}"\n' for name, address in addresses.items())
        )
        cannot_run(resting, f"cannot use {taken} (address already in use): change `{key}` in config.toml")


def test_an_address_of_another_machine(resting: Node) -> None:
    (resting.home / "config.toml").write_text('listen = "192.0.2.1:7766"\ncontrol = "127.0.0.1:0"\n')
    cannot_run(resting, "cannot use 192.0.2.1:7766 (")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[store]\nquota = 3", "`store.quota` is not a key"),
        ('control = "0.0.0.0:1"', "`control` must be an address that only this machine reaches"),
    ],
)
def test_a_setting_that_cannot_be(resting: Node, text: str, says: str) -> None:
    (resting.home / "config.toml").write_text(text + "\n")
    cannot_run(resting, says)


def test_a_home_that_others_may_read(resting: Node) -> None:
    resting.configure()
    resting.home.chmod(0o750)
    try:
        cannot_run(resting, f"Other users of this machine may read {resting.home}")
        done = resting.call("status")
        assert_refused(done, f"run `chmod 700 {resting.home}` and try again.")
    finally:
        resting.home.chmod(0o700)


def test_a_store_that_others_may_read(resting: Node) -> None:
    resting.configure()
    store = resting.home / "store.db"
    store.touch(0o644)
    store.chmod(0o644)
    try:
        cannot_run(resting, f"Other users of this machine may read {store}")
    finally:
        store.unlink()


@pytest.mark.parametrize(
    "content",
    [b"this is no database, however long one looks at it" * 100, b"SQLite format 3\0" + bytes(5000)],
)
def test_a_store_that_is_none(resting: Node, content: bytes) -> None:
    resting.configure()
    store = resting.home / "store.db"
    store.write_bytes(content)
    store.chmod(0o600)
    try:
        cannot_run(resting, f"The store {store} cannot be used: ")
    finally:
        store.unlink()


def test_two_daemons_on_one_home(ana: Node) -> None:
    before = content_of(ana.home)
    assert_refused(ana.run("run", within_s=20), f"A daemon already runs on {ana.home}")
    after = content_of(ana.home)
    assert after.keys() == before.keys()
    assert after["control.json"] == before["control.json"]
    assert ana.get("status")["device"]["name"] == "ana"


@root_only
def test_the_home_of_another_user(ana: Node, fresh: Fleet, tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        home = Path(shutil.move(fresh.enroll("budi").home, folder))
        owner = NOBODY - 1
        for path in [home, *home.rglob("*")]:
            os.chown(path, owner, owner)
        for command in ("status", "run"):
            done = run(home, command, user=NOBODY)
            assert_refused(done, f"{home} belongs to the user {owner} of this machine")


@pytest.mark.parametrize("name", ["a/b", "../b", "/b", "", "a b"])
def test_a_device_name_with_a_path_in_it(tmp_path: Path, name: str) -> None:
    home = tmp_path / "home"
    assert_refused(call(home, "init", "--name", name), "cannot be a device's name")
    assert list(tmp_path.iterdir()) == []


def test_papers_that_are_not_for_this_node(resting: Node, fresh: Fleet, tmp_path: Path) -> None:
    fresh.enroll("ana")
    before = content_of(resting.home)
    welcome = fresh.folder / "ana.welcome"
    assert_refused(resting.call("join", welcome), "not this one")
    assert_refused(resting.call("fleet", "update", fresh.publish()), "is of the fleet Tasikmalaya (")
    assert content_of(resting.home) == before


def test_papers_of_which_any_bit_was_turned_over(resting: Node, tmp_path: Path) -> None:
    folder = resting.home.parent
    whole = (folder / "ana.welcome").read_bytes()
    document = (resting.home / "fleet.document").read_bytes()
    before = content_of(resting.home)
    for command, data in ((["join"], whole), (["fleet", "update"], document)):
        for at in (0, len(data) // 3, len(data) - 1):
            paper = tmp_path / "paper"
            paper.write_bytes(data[:at] + bytes((data[at] ^ 4,)) + data[at + 1 :])
            assert_refused(resting.call(*command, paper), f"{paper} is not a ")
    assert content_of(resting.home) == before


def test_a_wrong_passphrase(tmp_path: Path) -> None:
    for name in ("right", "wrong"):
        (tmp_path / name).write_text(f"{name} passphrase\n")
    authority, home = tmp_path / "authority", tmp_path / "home"
    secret = ["--passphrase-file", tmp_path / "right"]
    assert call(home, "authority", "init", authority, "--fleet", "Tasikmalaya", *secret).returncode == 0
    assert call(home, "init", "--name", "ana").returncode == 0
    before = content_of(authority)
    enroll = ["authority", "enroll", authority, home / "ana.request"]
    assert_refused(
        call(home, *enroll, "--passphrase-file", tmp_path / "wrong"), "The passphrase does not open"
    )
    assert_refused(call(home, *enroll), "is encrypted: name the file with its passphrase")
    assert content_of(authority) == before
    assert not (home / "ana.welcome").exists()
    assert call(home, *enroll, *secret).returncode == 0


# --- a disk that is full ---

DISK_SIZE = 48 * MIB


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own."""
    disk = tmp_path / "disk"
    disk.mkdir()
    options = f"size={DISK_SIZE},mode=700"
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "meshnode-test", disk],
        check=False,
        capture_output=True,
        text=True,
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a small disk: {mounted.stderr.strip()}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


def fill(path: Path) -> None:
    """Take all that is free."""
    with path.open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(MIB if shutil.disk_usage(path.parent).free > MIB else 4096))


@pytest.mark.slow
@root_only
def test_a_full_disk(small_disk: Path, tmp_path: Path) -> None:
    with Fleet(small_disk) as fleet:
        office, ana = fleet.enroll("office", "office"), fleet.enroll("ana")
        fleet.start(ana)
        large, small, ballast = tmp_path / "large", tmp_path / "small", small_disk / "ballast"
        large.write_bytes(os.urandom(DISK_SIZE))
        small.write_bytes(os.urandom(3 * MIB))

        # more than there is room for: refused before anything is taken
        size_bytes = ana.store_size()
        done = ana.call("submit", large)
        assert_refused(done, "free space on this disk and submit again.")
        assert ana.store_size() == size_bytes
        kept = [ana.submit(small)["key"]]

        # another program fills the disk
        fill(ballast)
        assert_refused(ana.call("submit", small), "free above the floor")
        assert [alarm["code"] for alarm in ana.get("status")["alarms"]] == ["disk-full"]
        assert len(ana.get("messages")) == 1
        ballast.unlink()
        kept.append(ana.submit(small)["key"])
        assert ana.get("status")["alarms"] == []

        # ... and does so while a message is being taken
        host, port, token = ana.door()
        body = posted({"torn": os.urandom(16 * MIB)})
        with connect(host, port) as program:
            head = f"POST /v1/messages HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n"
            program.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body[: 4 * MIB])
            fleet.until("some is on the disk", lambda: ana.store_size() > 9 * MIB)
            fill(ballast)
            program.sendall(body[4 * MIB :])
            answer = b""
            while b"exit_code" not in answer and (piece := program.recv(4096)):
                answer += piece
        assert b" 422 " in answer, answer
        assert b"The store" in answer
        assert len(ana.get("messages")) == 2
        ballast.unlink()
        kept.append(ana.submit(small)["key"])
        numbers = [int(key.partition(":")[2]) for key in kept]
        each = -(-3 * MIB // (256 * 1024 - SEAL_OVERHEAD))
        assert numbers == [1, each + 1, 2 * each + 1]
        fleet.until("nothing of it remains", lambda: ana.get("status")["store"]["bytes"] < 10 * MIB)

        # all that was acknowledged is still there
        ana.kill()
        ana.configure(peers=[office.address])
        office.configure(sink=f"directory:{tmp_path / 'inbox'}")
        fleet.start(ana, office)
        fleet.until("all are delivered", lambda: ana.states() == ["delivered"] * 3)


@pytest.mark.slow
@root_only
def test_a_newer_fleet_document_on_a_full_disk(small_disk: Path, tmp_path: Path) -> None:
    with Fleet(tmp_path / "fleet") as fleet:
        ana, budi = fleet.enroll("ana"), fleet.enroll("budi")
        fleet.enroll("office", "office")
        newest = fleet.publish()
        ana.home = Path(shutil.move(ana.home, small_disk))
        ana.configure()
        budi.configure(peers=[ana.address])
        fleet.start(ana, budi)
        fleet.until("they meet", lambda: ana.contacts() == ["budi"])
        fill(small_disk / "ballast")
        assert_refused(ana.call("fleet", "update", newest), "the disk is full")
        assert budi.call("fleet", "update", newest).returncode == 0
        fleet.until("it follows the document all the same",
                    lambda: ana.get("status")["device"]["fleet_version"] == 2)  # fmt: skip
        assert ana.contacts() == ["budi"]
        (small_disk / "ballast").unlink()
        ana.stop()
        fleet.start(ana)
        fleet.until("it has it", lambda: ana.get("status")["device"]["fleet_version"] == 2)
        ana.stop()
        fleet.start(ana)
        assert ana.get("status")["device"]["fleet_version"] == 2

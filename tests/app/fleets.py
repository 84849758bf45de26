"""Fleets of real nodes: each a home in a folder, and a daemon that is a process of its own.

A fleet is founded in this process, by the functions that the commands use; daemons and commands are the real
programs. Everything listens on loopback, or in a network namespace if a node is put into one.

    with Fleet(tmp_path) as fleet:
        office, ana = fleet.enroll("office", "office"), fleet.enroll("ana")
        ana.configure(peers=[office.address])
        fleet.start(office, ana)
        key = ana.submit(photo)["key"]
        fleet.until("delivered", lambda: ana.states() == ["delivered"])

Waiting is done in `Fleet.until` alone: it asks again until its deadline, and between two questions it waits for the
end of a daemon, which is a failure at once. Leaving the `with` kills every daemon by its process id, and fails if one
of them has logged an error.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import ctypes
import http.client
import json
import os
import random
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from click.testing import CliRunner

from meshnode.app.authority import Authority, found
from meshnode.app.cli import main
from meshnode.app.cli.membership import join_fleet
from meshnode.app.home import Home
from meshnode.core.fleet import FleetDocument, read_request

POLL_S = 0.05
START_S = 20.0  # a Python starts, on a busy machine
STOP_S = 10.0
WITHIN_S = 30.0

T = TypeVar("T")


def command(home: Path) -> list[str]:
    """`meshnode --home HOME`."""
    return [sys.executable, "-m", "meshnode", "--home", str(home)]


_LEADING = ("MESHNODE_", "LANG", "LC_")


def environment() -> dict[str, str]:
    """This process's environment without what would lead a node elsewhere, or have it speak another language."""
    return {name: value for name, value in os.environ.items() if not name.startswith(_LEADING)}


#: The command for a user who may not read where this Python is: all is loaded, and then the rights are given up.
_AS_USER = """
import importlib, os, sys
from meshnode.app.cli import COMMANDS, main
for name in ["meshnode.app.client", "meshnode.app.outgoing", "meshnode.app.serving", "pwd", "mimetypes"]:
    importlib.import_module(name)
for where, _ in COMMANDS.values():
    importlib.import_module(where.partition(":")[0])
user = int(sys.argv[1])
os.setgroups([])
os.setgid(user)
os.setuid(user)
main(sys.argv[2:], prog_name="meshnode")
"""


def run(
    home: Path, *arguments: object, user: int | None = None, within_s: float = 60.0
) -> subprocess.CompletedProcess[str]:
    """The real command, to its end; as another user if one is named, which needs root."""
    words = [argument if isinstance(argument, bytes) else str(argument) for argument in arguments]
    python = command(home)
    if user is not None:
        python[1:3] = ["-c", _AS_USER, str(user)]
    return subprocess.run(
        [*python, *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        text=True,
        timeout=within_s,
        env=environment(),
    )


def call(home: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """The command in this process, which is faster, and not for what may hang or changes the process."""
    words = [
        os.fsdecode(argument) if isinstance(argument, bytes) else str(argument) for argument in arguments
    ]
    result = CliRunner(env={"LANGUAGE": "en"}).invoke(
        main, ["--home", str(home), *words], prog_name="meshnode"
    )
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return subprocess.CompletedProcess(words, result.exit_code, result.stdout, result.stderr)


def assert_refused(done: subprocess.CompletedProcess[str], says: str, code: int = 1) -> None:
    """The command said no: its exit code, one sentence on stderr, nothing on stdout."""
    assert done.returncode == code, done.stdout + done.stderr
    assert says in done.stderr
    assert done.stderr.startswith("meshnode: ")
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.endswith("\n")
    assert done.stdout == ""


def content_of(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Everything below a folder: modes, and the bytes of files."""
    return {
        str(path.relative_to(folder)): (path.lstat().st_mode, path.read_bytes() if path.is_file() else b"")
        for path in sorted(folder.rglob("*"))
    }


#: One for each port that this process has given out of late: other tests that run now leave these alone.
CLAIMS_MAX = 200
_CLAIMS: list[socket.socket] = []


def free_port() -> int:
    """A loopback port that nobody has now, below those that the system gives to outgoing connections."""
    while True:
        port = random.randrange(20_000, 32_000)
        claim = socket.socket(socket.AF_UNIX)
        try:
            claim.bind(f"\0meshnode-test-port-{port}")  # a name that ends with the process
        except OSError:
            claim.close()
            continue
        _CLAIMS.append(claim)
        if len(_CLAIMS) > CLAIMS_MAX:
            _CLAIMS.pop(0).close()
        with socket.socket() as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                trial.bind(("127.0.0.1", port))
                return port


def connect(host: str, port: int, namespace: str | None = None, within_s: float = 20.0) -> socket.socket:
    """A TCP connection, made in a network namespace if one is named."""
    if namespace is None:
        return socket.create_connection((host, port), within_s)

    def make() -> socket.socket:
        clone_newnet = 0x40000000
        with open(f"/run/netns/{namespace}") as place:
            if ctypes.CDLL(None, use_errno=True).setns(place.fileno(), clone_newnet):
                raise OSError(ctypes.get_errno(), "setns")
        return socket.create_connection((host, port), within_s)

    # A namespace is a thread's, and the socket stays where it was made: so a thread of its own.
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        return thread.submit(make).result()


class NotUp(Exception):
    """The daemon does not answer (yet)."""


class Node:
    """One node: its home, where it listens, and its daemon while that runs."""

    def __init__(self, name: str, role: str, home: Path) -> None:
        self.name = name
        self.role = role
        self.home = home
        self.host = "127.0.0.1"
        self.port = free_port()
        self.namespace: str | None = None
        #: Of `meshnode run`, and what its daemon finds in its environment besides.
        self.options: list[str] = []
        self.variables: dict[str, str] = {}
        self.log_path = home.parent / f"{name}.log"
        self.process: subprocess.Popen[bytes] | None = None
        self._old_door = b""

    @property
    def address(self) -> str:
        """Where other nodes reach it."""
        return f"{self.host}:{self.port}"

    @property
    def device(self) -> str:
        """Its id, in hex."""
        return Home(self.home).load().certificate.device.hex()

    def configure(
        self,
        *,
        peers: Iterable[str] = (),
        store: dict[str, int] | None = None,
        sink: str | None = None,
    ) -> None:
        """Write config.toml: no discovery, so that only those meet who are told to."""
        lines = [
            f'listen = "{self.address}"',
            'control = "127.0.0.1:0"',
            "discovery = false",
            f"peers = {json.dumps(list(peers))}",
            "[store]",
            *(f"{key} = {value}" for key, value in (store or {}).items()),
            "[office]",
            *([f"sink = {json.dumps(sink)}"] if sink is not None else []),
        ]
        (self.home / "config.toml").write_text("\n".join(lines) + "\n")

    # --- the daemon ---

    def begin(self) -> None:
        """Start the daemon; `Fleet.start` also waits until it answers."""
        assert self.process is None
        control = self.home / "control.json"
        self._old_door = control.read_bytes() if control.exists() else b""
        prefix = [] if self.namespace is None else ["ip", "netns", "exec", self.namespace]
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [*prefix, *command(self.home), "run", *self.options],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment() | self.variables,
            )

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End the daemon with a signal that it knows; it ends well."""
        assert self.process is not None
        self.process.send_signal(number)
        code = self.process.wait(STOP_S)
        self._forget()
        assert code == 0, self.tail()

    def kill(self) -> None:
        """Take the battery out."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self._forget()

    def signal(self, number: int) -> None:
        """Send the daemon a signal, as SIGSTOP."""
        assert self.process is not None
        self.process.send_signal(number)

    def _forget(self) -> None:
        assert self.process is not None
        assert self.process.stdout is not None
        assert self.process.stdout.read() == b"", "a daemon prints nothing"
        self.process.stdout.close()
        self.process = None

    def log(self) -> str:
        """All that its daemons have logged."""
        return self.log_path.read_text() if self.log_path.exists() else ""

    def logged(self, text: str, since: int = 0) -> bool:
        """Whether there is a line with this text, after the first `since` characters."""
        return text in self.log()[since:]

    def tail(self) -> str:
        """The end of the log, for a failure."""
        return "\n".join([f"--- {self.name}", *self.log().splitlines()[-15:]])

    # --- talking to it ---

    def door(self) -> tuple[str, int, str]:
        """Host, port and token of its control interface. Raises NotUp."""
        try:
            data = (self.home / "control.json").read_bytes()
        except FileNotFoundError:
            raise NotUp from None
        if data == self._old_door:
            raise NotUp
        door = json.loads(data)
        host, _, port = door["address"].rpartition(":")
        return host, int(port), door["token"]

    def request(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> tuple[int, Any]:
        """One request to the control interface: the status and the JSON. Raises NotUp."""
        host, port, token = self.door()
        connection = http.client.HTTPConnection(host, port)
        try:
            connection.sock = connect(host, port, self.namespace)
            connection.request(method, path, body, {"Authorization": f"Bearer {token}"} | (headers or {}))
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        except ConnectionError:
            raise NotUp from None
        finally:
            connection.close()

    def get(self, what: str) -> Any:
        """`status`, `messages` or `peers`. Raises NotUp."""
        status, answer = self.request("GET", f"/v1/{what}")
        assert status == 200, answer
        return answer

    def give(self, files: dict[str, bytes], **more: Any) -> dict[str, Any]:
        """Submit a message through the control interface, which is faster than the command."""
        status, answer = self.request("POST", "/v1/messages", posted(files, **more))
        assert status == 201, answer
        assert isinstance(answer, dict)
        return answer

    def states(self) -> list[str]:
        """Where its messages are, in the order of submission."""
        return [message["state"] for message in self.get("messages")]

    def contacts(self) -> list[str]:
        """With whom it is in contact."""
        return [contact["name"] for contact in self.get("status")["contacts"]]

    def run(self, *arguments: object, within_s: float = 60.0) -> subprocess.CompletedProcess[str]:
        """The real command on this home."""
        return run(self.home, *arguments, within_s=within_s)

    def call(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        """The command on this home, in this process."""
        return call(self.home, *arguments)

    def submit(self, *arguments: object) -> dict[str, Any]:
        """The real `meshnode submit --json`."""
        done = self.run("submit", "--json", *arguments)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    # --- its disk ---

    def store_size(self) -> int:
        """Bytes of the store's files."""
        return sum(path.stat().st_size for path in self.home.glob("store.db*"))

    def inbox(self) -> dict[str, Path]:
        """An office's messages: key to folder. Fails if one is there twice."""
        folders = [path.parent for path in (self.home / "inbox").glob("*/*/*/message.json")]
        found = {json.loads((folder / "message.json").read_bytes())["key"]: folder for folder in folders}
        assert len(found) == len(folders), "a message was delivered twice"
        return found


def posted(files: dict[str, bytes], **more: Any) -> bytes:
    """The body of a POST of one message."""
    described = {"files": [{"name": name, "size_bytes": len(data)} for name, data in files.items()], **more}
    head = json.dumps(described).encode()
    return len(head).to_bytes(4, "big") + head + b"".join(files.values())


class Fleet:
    """An authority and its nodes in one folder."""

    def __init__(self, folder: Path, name: str = "Tasikmalaya") -> None:
        self.folder = folder
        self.directory = folder / "authority"
        self.nodes: dict[str, Node] = {}
        self._key = found(self.directory, name, None)._signing_key()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for node in self.nodes.values():
            node.kill()
        if kind is None:
            for node in self.nodes.values():
                assert "Traceback" not in node.log(), node.log()
                assert " ERROR " not in node.log(), node.log()

    # --- the authority ---

    def authority(self) -> Authority:
        """As it stands now."""
        return Authority(self.directory, self._key)

    def enroll(self, name: str, role: str = "officer") -> Node:
        """Make a node and admit it; it is configured to meet nobody."""
        node = Node(name, role, self.folder / name)
        request = Home(node.home).create(name, role)
        asked = read_request(request.read_bytes())
        welcome = self.folder / f"{name}.welcome"
        welcome.write_bytes(self.authority().enroll(asked, request, time.time_ns() // 1_000_000))
        join_fleet(Home(node.home), welcome)
        node.configure()
        self.nodes[name] = node
        return node

    def revoke(self, node: Node) -> FleetDocument:
        """End a membership; the document that says so."""
        authority = self.authority()
        authority.revoke(authority.find(node.name), time.time_ns() // 1_000_000)
        return authority.document

    def publish(self) -> Path:
        """The newest document, in a file."""
        path = self.folder / "newest.fleet"
        path.write_bytes(self.authority().document.to_file())
        return path

    # --- waiting ---

    def start(self, *nodes: Node) -> None:
        """Start daemons at once and wait until they answer."""
        for node in nodes:
            node.begin()
        for node in nodes:
            self.until(f"{node.name} is up", partial(node.get, "status"), START_S)

    def until(self, what: str, probe: Callable[[], T], within_s: float = WITHIN_S) -> T:
        """What `probe` says once that is true; a daemon that does not answer yet has said nothing."""
        end_s = time.monotonic() + within_s
        while True:
            with contextlib.suppress(NotUp):
                if value := probe():
                    return value
            if time.monotonic() >= end_s:
                raise AssertionError("\n".join([f"not within {within_s} s: {what}", *self._tails()]))
            self.watch()

    def watch(self, within_s: float = POLL_S) -> None:
        """Wait for the end of any daemon, which nobody has asked for; for so long at most."""
        running = {
            node.process.stdout: node
            for node in self.nodes.values()
            if node.process is not None and node.process.stdout is not None
        }
        ended, _, _ = select.select(list(running), [], [], within_s)
        if ended:
            raise AssertionError("\n".join([f"{running[ended[0]].name} ended by itself", *self._tails()]))

    def _tails(self) -> Iterator[str]:
        return (node.tail() for node in self.nodes.values())

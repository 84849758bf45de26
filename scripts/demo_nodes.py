"""Real nodes on this machine, driven as an officer's programs drive them: by the command `meshnode` alone.

A `Fleet` is a folder with an authority and one home per node. It ends every daemon that it started, by
process id, however the program that uses it ends. Waiting means asking a node again until a deadline, and is
done in one place: `Fleet.wait`.
"""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

COMMAND = Path(sys.executable).with_name("meshnode")
NOT_RUNNING = 3  # the exit code of the command when there is no daemon to answer
CALL_MAX_S = 60.0
STOP_MAX_S = 20.0
POLL_S = 0.1

T = TypeVar("T")


class DemoFailed(Exception):
    """What was promised did not happen; the text says what, for people."""


class NotRunningYet(Exception):
    """The node's daemon does not answer, or not yet."""


@dataclass
class Node:
    """One node: a home, the port where it listens, and its daemon while that runs."""

    name: str
    role: str
    home: Path
    port: int
    log: Path
    process: subprocess.Popen[bytes] | None = None

    def call(self, *arguments: str | Path) -> str:
        """Run `meshnode --home HOME ARGUMENTS` to its end and give what it printed."""
        return meshnode("--home", self.home, *arguments)

    def ask(self, *arguments: str | Path) -> Any:
        """The same with `--json`, decoded."""
        said = self.call(*arguments, "--json")
        try:
            return json.loads(said)
        except ValueError:
            raise DemoFailed(f"meshnode {arguments[0]} --json printed no JSON: {said[:200]!r}") from None

    def configure(self, peers: Iterable[Node], sink: Path | None = None) -> None:
        """Write config.toml: loopback only, no discovery, so that who meets whom is the story's choice."""
        lines = [
            f'listen = "127.0.0.1:{self.port}"',
            'control = "127.0.0.1:0"',
            "discovery = false",
            f"peers = {json.dumps([f'127.0.0.1:{peer.port}' for peer in peers])}",
        ]
        if sink is not None:
            lines += ["", "[office]", f"sink = {json.dumps(f'directory:{sink}')}"]
        (self.home / "config.toml").write_text("\n".join(lines) + "\n")

    def start(self) -> None:
        """Switch the device on: its daemon runs until `stop` or `kill`."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [COMMAND, "--home", self.home, "run"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment(),
                start_new_session=True,  # Ctrl-C is for the demo, which then ends its nodes itself
            )

    def stop(self) -> None:
        """Ask the daemon to end (SIGTERM); a daemon that does not end cleanly is a failure."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            code = self.process.wait(STOP_MAX_S)
        except subprocess.TimeoutExpired:
            raise DemoFailed(f"{self.name} did not end within {STOP_MAX_S:.0f} s of SIGTERM") from None
        self.process = None
        if code != 0:
            raise DemoFailed(f"{self.name} ended with exit code {code} on SIGTERM\n{self.log_tail()}")

    def kill(self) -> None:
        """Take the battery out (SIGKILL): the daemon gets no chance to write anything."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def check_alive(self) -> None:
        """Fail when the daemon ended by itself."""
        if self.process is not None and (code := self.process.poll()) is not None:
            self.process = None
            raise DemoFailed(f"the daemon of {self.name} ended with exit code {code}\n{self.log_tail()}")

    def log_tail(self, line_count: int = 8) -> str:
        """The end of what the daemon logged, for a failure's report."""
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return "\n".join([f"  {self.name}'s log ends:", *(f"    {line}" for line in lines[-line_count:])])


class Fleet:
    """An authority and its nodes in one folder; a context manager that leaves no process behind."""

    def __init__(self, folder: Path, members: dict[str, str]) -> None:
        """`members` maps the name of each node to its role. Nothing is made before `found`."""
        self.folder = folder
        self.authority = folder / "authority"
        (folder / "homes").mkdir()
        (folder / "logs").mkdir()
        self.nodes = {
            name: Node(name, role, folder / "homes" / name, port, folder / "logs" / f"{name}.log")
            for (name, role), port in zip(members.items(), free_ports(len(members)), strict=True)
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        for node in self.nodes.values():
            node.kill()

    def __getitem__(self, name: str) -> Node:
        return self.nodes[name]

    def found(self, name: str) -> None:
        """Found the fleet and make every node a member, the office first: its endpoint is in all welcomes."""
        meshnode("authority", "init", self.authority, "--fleet", name)
        for node in sorted(self.nodes.values(), key=lambda node: node.role != "office"):
            node.call("init", "--name", node.name, "--role", node.role)
            request, welcome = node.home / f"{node.name}.request", self.folder / f"{node.name}.welcome"
            meshnode("authority", "enroll", self.authority, request, "--out", welcome)
            node.call("join", welcome)

    def wait(self, what: str, probe: Callable[[], T | None], deadline_s: float = 60.0) -> T:
        """Ask `probe` until it gives something; fail when a daemon ends, or at the deadline."""
        end_s = time.monotonic() + deadline_s
        while True:
            for node in self.nodes.values():
                node.check_alive()
            try:
                value = probe()
            except NotRunningYet:
                value = None
            if value:
                return value
            if time.monotonic() > end_s:
                tails = [node.log_tail() for node in self.nodes.values() if node.process is not None]
                raise DemoFailed("\n".join([f"not within {deadline_s:.0f} s: {what}", *tails]))
            time.sleep(POLL_S)

    def switch_on(self, name: str) -> dict[str, Any]:
        """Start a node's daemon, wait until it answers, and give its first status."""
        node = self.nodes[name]
        node.start()
        status: dict[str, Any] = self.wait(f"{name} is up", lambda: node.ask("status"))
        return status


def meshnode(*arguments: str | Path) -> str:
    """Run the command to its end; its stdout. Raises DemoFailed with its own sentence when it fails."""
    words = [str(word) for word in arguments]
    try:
        done = subprocess.run(
            [COMMAND, *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            text=True,
            timeout=CALL_MAX_S,
            env=environment(),
        )
    except FileNotFoundError:
        raise DemoFailed(f"{COMMAND} is missing: run scripts/venv demo") from None
    except subprocess.TimeoutExpired:
        raise DemoFailed(f"no end after {CALL_MAX_S:.0f} s: meshnode {' '.join(words)}") from None
    if done.returncode == NOT_RUNNING:
        raise NotRunningYet(done.stderr.strip())
    if done.returncode != 0:
        raise DemoFailed(f"exit code {done.returncode}: meshnode {' '.join(words)}\n  {done.stderr.strip()}")
    return done.stdout


def environment() -> dict[str, str]:
    """This process's environment without what would lead a node elsewhere."""
    return {name: value for name, value in os.environ.items() if not name.startswith("MESHNODE_")}


def free_ports(count: int) -> list[int]:
    """Loopback ports that nobody has now.

    They lie below the range from which the system draws the ports of outgoing connections (and answers a
    request for port 0): one of those could be gone again before its node starts.
    """
    ports: list[int] = []
    while len(ports) < count:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                trial.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in ports:
            ports.append(port)
    return ports

"""Two real daemons for the benchmarks, a relay that counts what passes between them, and one timed contact.

How a contact is timed. It begins when the sender logs `contact with`: its stderr is a pipe, and a line counts from
when it arrives here. It ends when the sender itself counts all messages as carried. Asking the sender for that costs
it milliseconds a time, so the receiver is asked instead how many bundles it carries (a count that it keeps anyway),
each time after half of what the rest should take; only when it has all of them is the sender asked. `polls` and
`poll_ms` say what that cost.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import limits
from bench.limits import KIB, MIB
from demo_nodes import COMMAND, environment, free_ports

START_MAX_S = 120.0  # with a million bundles
STOP_MAX_S = 20.0
CONTACT_MAX_S = 300.0
POLL_MIN_S, POLL_MAX_S = 0.005, 0.1
QUIET_S = 1.0
KEEP_ALIVE_S = 3.0  # the daemon closes a connection that was idle for 5 s


class BenchFailed(Exception):
    """A daemon did not do what is to be measured."""


def random_pieces(size: int) -> Iterator[bytes]:
    """So many random bytes, a MiB at a time: what starts programs has to stay small, see `command_use`."""
    for at in range(0, size, MIB):
        yield os.urandom(min(MIB, size - at))


class Node:
    """A home and its daemon, whose log is read as it comes."""

    def __init__(self, name: str, home: Path) -> None:
        self.name = name
        self.home = home
        self.port = 0
        #: The network namespace where it runs, if not where this process does.
        self.namespace: str | None = None
        self.started_s = 0.0
        self._process: subprocess.Popen[str] | None = None
        self._heard = threading.Condition()
        self._lines: list[tuple[float, str]] = []
        self._door: dict[str, Any] = {}
        self._api: http.client.HTTPConnection | None = None
        self._asked_s = 0.0

    @property
    def pid(self) -> int:
        """The running daemon's process."""
        assert self._process is not None
        return self._process.pid

    def start(
        self, *peer_ports: int, watch: Path | None = None, discovery: bool = False, wait: bool = True
    ) -> None:
        """Start the daemon, on a port that no peer remembers, and wait until it answers. `watch`: where to write how
        long its steps took (`watching`). `discovery`: with the settings of a new node instead."""
        config = 'control = "127.0.0.1:0"\n'
        if not discovery:
            (self.port,) = free_ports(1)
            peers = json.dumps([f"127.0.0.1:{port}" for port in peer_ports])
            config += f'listen = "127.0.0.1:{self.port}"\ndiscovery = false\npeers = {peers}\n'
        (self.home / "config.toml").write_text(config)
        words = ["ip", "netns", "exec", self.namespace] if self.namespace else []
        if watch is None:
            words.append(str(COMMAND))
        else:
            words += [sys.executable, str(Path(__file__).with_name("watching.py")), str(watch)]
        self._lines = []
        self.started_s = time.monotonic()
        self._process = process = subprocess.Popen(
            [*words, "--home", str(self.home), "run"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
            start_new_session=True,  # Ctrl-C is for the bench, which then ends its nodes itself
        )
        threading.Thread(target=self._read_log, args=(process, self._lines), daemon=True).start()
        end_s = time.monotonic() + START_MAX_S
        while wait and self._door.get("pid") != process.pid:
            with contextlib.suppress(FileNotFoundError):
                self._door = json.loads((self.home / "control.json").read_bytes())
            if process.poll() is not None or time.monotonic() > end_s:
                raise BenchFailed(f"{self.name} did not start: {self._lines}")
            time.sleep(0.005)

    def _read_log(self, process: subprocess.Popen[str], lines: list[tuple[float, str]]) -> None:
        assert process.stderr is not None
        for line in process.stderr:
            with self._heard:
                lines.append((time.monotonic(), line.rstrip()))
                self._heard.notify_all()

    def logged_s(self, text: str) -> float:
        """When this run first logged a line with this text; waits for it."""

        def logged() -> list[float]:
            return [at_s for at_s, line in self._lines if text in line]

        with self._heard:
            if not self._heard.wait_for(logged, START_MAX_S):
                raise BenchFailed(f"{self.name} did not log {text!r}: {self._lines}")
            return logged()[0]

    def listens_s(self) -> float:
        """When this run began to listen."""
        return self.logged_s(" listens on ")

    def contact_s(self) -> float:
        """When this run's first contact opened; waits for it."""
        return self.logged_s("contact with")

    def ask(
        self, path: str, method: str = "GET", body: bytes | Iterable[bytes] = b"", size: int | None = None
    ) -> Any:
        """The control interface's answer, over a connection that is kept. `size`: of a body that comes in pieces."""
        if self._api is None or time.monotonic() - self._asked_s > KEEP_ALIVE_S:
            host, _, port = self._door["address"].rpartition(":")
            self._api = http.client.HTTPConnection(host, int(port), timeout=120)
        headers = {"Authorization": f"Bearer {self._door['token']}"}
        if size is not None:
            headers["Content-Length"] = str(size)
        self._api.request(method, path, body, headers)
        response = self._api.getresponse()
        answer = json.loads(response.read())
        self._asked_s = time.monotonic()
        if response.status >= 400:
            raise BenchFailed(f"{self.name} answered {method} {path}: {answer}")
        return answer

    def submit(self, sizes: list[int]) -> tuple[list[float], int]:
        """Hand over messages of one file each, one after another: seconds until each was acknowledged, and how many
        bundles they became."""
        data = os.urandom(min(MIB, max(sizes)))
        took_s, bundles = [], 0
        for size in sizes:
            file = {"name": "record.bin", "size_bytes": size}
            head = json.dumps({"kind": "bench", "files": [file]}).encode()
            head = len(head).to_bytes(4, "big") + head
            whole = size <= len(data)
            body = head + data[:size] if whole else itertools.chain([head], random_pieces(size))
            start_s = time.monotonic()
            told = self.ask("/v1/messages", "POST", body, None if whole else len(head) + size)
            took_s.append(time.monotonic() - start_s)
            bundles += told["bundles"]
        return took_s, bundles

    def messages(self, state: str) -> int:
        """How many messages of this device are `carried`, `delivered`, ..."""
        count: int = self.ask("/v1/status")["messages"][state]
        return count

    def carrying(self) -> tuple[int, int]:
        """Bundles that this node carries for others, and their bytes."""
        told = self.ask("/v1/status")["carrying"]
        return told["bundles"], told["bytes"]

    def stop(self) -> None:
        """End the daemon; the hard way when it does not listen."""
        process, self._process, self._api = self._process, None, None
        if process is not None:
            process.terminate()
            try:
                process.wait(STOP_MAX_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


class Relay:
    """Passes TCP on to a port, and counts the bytes of either direction."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self.sizes = [0, 0]  # from who dialled, to who dialled
        self._opened_s: list[float] = []
        self._last_s = 0.0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # until the server is closed
            while True:
                near, _ = self._server.accept()
                self._opened_s.append(time.monotonic())
                far = socket.create_connection(("127.0.0.1", self._target))
                for way, ends in enumerate([(near, far), (far, near)]):
                    threading.Thread(target=self._pass, args=(way, *ends), daemon=True).start()

    def _pass(self, way: int, source: socket.socket, sink: socket.socket) -> None:
        with source, contextlib.suppress(OSError):
            while data := source.recv(256 * KIB):
                self.sizes[way] += len(data)
                self._last_s = time.monotonic()
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def wait_quiet(self) -> float:
        """Wait until nothing came for QUIET_S: seconds from the connection to the last byte."""
        while not self._last_s or time.monotonic() - self._last_s < QUIET_S:
            time.sleep(0.05)
        self._server.close()
        if len(self._opened_s) != 1:
            raise BenchFailed(f"there were {len(self._opened_s)} connections through the relay, not 1")
        return self._last_s - self._opened_s[0]


# --- one contact ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """One contact, from its beginning to the moment when the sender knew that all was stored.

    `cpu_s` and `peak_mib` are the sender's and the receiver's; `other_cpus` includes this bench and the kernel.
    `start_s`: when it began.
    """

    seconds: float
    bundles: int
    payload_bytes: int
    submit_s: float
    submit_peak_mib: float
    start_s: float
    polls: int
    poll_ms: float
    other_cpus: float
    cpu_s: list[float]
    peak_mib: list[float]


def run_contact(
    sender: Node,
    receiver: Node,
    sizes: list[int],
    watch: tuple[Path, Path] | tuple[None, None] = (None, None),
) -> Run:
    """Submit everything while the sender is alone, then bring the receiver, and wait. `watch` as in `Node.start`."""
    sender.start(watch=watch[0])
    took_s, bundles = sender.submit(sizes)
    submit_peak_mib = limits.memory_mib(sender.pid, "VmHWM")
    time.sleep(0.5)  # what the last commit leaves to do
    receiver.start(sender.port, watch=watch[1])
    start_s = sender.contact_s()
    pids = sender.pid, receiver.pid
    before_s, busy_s = [limits.cpu_s(pid) for pid in pids], limits.busy_s()
    polls, polling_s, done = 0, 0.0, 0
    while done < bundles or sender.messages("carried") < len(sizes):
        passed_s = time.monotonic() - start_s
        if passed_s > CONTACT_MAX_S:
            raise BenchFailed(f"{done} of {bundles} bundles after {CONTACT_MAX_S} s")
        rest_s = passed_s * (bundles - done) / done if done else POLL_MAX_S
        time.sleep(min(POLL_MAX_S, max(POLL_MIN_S, rest_s / 2)))
        ask_s = time.monotonic()
        done, payload_bytes = receiver.carrying()
        polls, polling_s = polls + 1, polling_s + time.monotonic() - ask_s
    seconds = time.monotonic() - start_s
    cpu_s = [limits.cpu_s(pid) - used_s for pid, used_s in zip(pids, before_s, strict=True)]
    return Run(
        seconds=seconds,
        bundles=bundles,
        payload_bytes=payload_bytes,
        submit_s=sum(took_s),
        submit_peak_mib=submit_peak_mib,
        start_s=start_s,
        polls=polls,
        poll_ms=1000 * polling_s / polls,
        other_cpus=max(0.0, limits.busy_s() - busy_s - sum(cpu_s)) / seconds,
        cpu_s=cpu_s,
        peak_mib=[limits.memory_mib(pid, "VmHWM") for pid in pids],
    )

"""The fleet that is tortured, and the book of what it has promised.

Ana submits all the time, by the control interface and by the command (which is killed now and then), messages of 1 kB
to 1 MB; Budi carries; the office takes. Nobody knows a shorter way. Each attempt has a reference of its own and bytes
that follow from it, so that the inbox can be judged alone:

- an attempt that was acknowledged (HTTP 201, exit code 0) is there once, under the key that was told, byte for byte;
- an attempt that was not is there once or not at all, and whole: its answer may be what was lost;
- what Ana calls delivered is there.

Submitting pauses while more than `AHEAD_BYTES` are on their way, so that the inbox grows with the rounds.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import random
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.app.fleets import Fleet, Node, NotUp, command, environment, posted
from tests.torture.outcome import Outcome

AHEAD_BYTES = 6_000_000
#: No message that was submitted after a fault is at the office so long after its end: something hangs.
STALL_S = 60.0
RETRY_S = 0.05
#: What no start may log.
UNCLEAN = ("Traceback", " ERROR ", " CRITICAL ", "cannot be used")


@dataclass
class Attempt:
    """One message that was tried. `key`: once it was acknowledged; `at_s`: when that was."""

    reference: str
    content: str
    size_bytes: int
    key: str | None = None
    at_s: float = 0.0


def content_of(reference: str, size_bytes: int) -> bytes:
    """The bytes of a message."""
    return random.Random(reference).randbytes(size_bytes)


class Field:
    """Three nodes and two that submit. `homes`: where the homes are, if not beside each other in `folder`.
    `says_store_trouble`: the store may be in trouble, and then a daemon says so."""

    def __init__(
        self,
        folder: Path,
        seed: int,
        outcome: Outcome,
        homes: Callable[[str], Path] | None = None,
        *,
        says_store_trouble: bool = False,
    ) -> None:
        self.folder = folder
        self.draw = random.Random(seed)
        self.outcome = outcome
        self.fleet = Fleet(folder)
        self._homes = homes
        self.office, self.budi, self.ana = (
            self._enroll("office", "office"),
            self._enroll("budi"),
            self._enroll("ana"),
        )
        self.nodes = [self.ana, self.budi, self.office]
        self.ana.host, self.budi.host, self.office.host = "127.0.0.2", "127.0.0.3", "127.0.0.4"
        self.ana.configure(peers=[self.budi.address])
        self.budi.configure(peers=[self.office.address])
        self.inbox = self.office.home / "inbox"
        self.office.configure(sink=f"directory:{self.inbox}")
        self._unclean = UNCLEAN[: -1 if says_store_trouble else None]
        self.attempts: dict[str, Attempt] = {}
        self._arrived: dict[str, str] = {}
        self._began: dict[str, int] = {}
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._paused = threading.Event()
        self._threads = [
            threading.Thread(
                target=self._submit, args=(give, random.Random(f"{seed} {give.__name__}")), daemon=True
            )
            for give in (self._by_http, self._by_command)
        ]

    def _enroll(self, name: str, role: str = "officer") -> Node:
        node = self.fleet.enroll(name, role)
        if self._homes is not None:
            node.home = Path(shutil.move(node.home, self._homes(name) / name))
        return node

    def __enter__(self) -> Self:
        for node in self.nodes:
            subprocess.run(["sync", "-f", node.home], check=True)  # what made it here did not flush it
            self.begin(node)
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()
        for node in self.nodes:
            node.kill()

    # --- daemons ---

    def begin(self, node: Node) -> None:
        """Start a daemon, and do not wait for it."""
        self._began[node.name] = len(node.log())
        node.begin()

    def check_log(self, node: Node, until: int | None = None) -> None:
        """What it has logged since it began, up to the character `until` of its log, is clean."""
        text = node.log()[self._began[node.name] : until]
        self._began[node.name] += len(text)
        if any(word in text for word in self._unclean):
            self.outcome.troubles.append(f"{node.name} logged:\n{text[-3000:]}")

    def end(self, node: Node) -> None:
        """SIGKILL."""
        node.kill()
        self.check_log(node)

    # --- submitting ---

    def _submit(self, give: Callable[[Attempt, random.Random], None], draw: random.Random) -> None:
        turn = 0
        while not self._ended.is_set():
            if self._paused.is_set() or self._ahead_bytes() > AHEAD_BYTES:
                self._ended.wait(RETRY_S)
                continue
            turn += 1
            reference = f"{give.__name__.removeprefix('_by_')}-{turn}"
            size_bytes = int(10 ** draw.uniform(3, 6))
            digest = hashlib.sha256(content_of(reference, size_bytes)).hexdigest()
            attempt = Attempt(reference, digest, size_bytes)
            with self._lock:
                self.attempts[reference] = attempt
            give(attempt, draw)
            if attempt.key is None:
                self._ended.wait(RETRY_S)

    def _ahead_bytes(self) -> int:
        with self._lock:
            return sum(
                it.size_bytes
                for it in self.attempts.values()
                if it.key is not None and it.reference not in self._arrived
            )

    def _acknowledged(self, attempt: Attempt, key: str) -> None:
        with self._lock:
            attempt.key, attempt.at_s = key, time.monotonic()

    def _by_http(self, attempt: Attempt, draw: random.Random) -> None:
        body = posted(
            {"record": content_of(attempt.reference, attempt.size_bytes)}, reference=attempt.reference
        )
        with contextlib.suppress(NotUp, http.client.HTTPException, OSError, ValueError):
            status, answer = self.ana.request("POST", "/v1/messages", body)
            if status == 201:
                self._acknowledged(attempt, answer["key"])

    def _by_command(self, attempt: Attempt, draw: random.Random) -> None:
        file = self.folder / "record"
        file.write_bytes(content_of(attempt.reference, attempt.size_bytes))
        impatient = draw.random() < 0.3
        with subprocess.Popen(
            [*command(self.ana.home), "submit", "--json", "--reference", attempt.reference, file],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment(),
        ) as process:
            try:
                said, _ = process.communicate(timeout=draw.uniform(0.2, 0.8) if impatient else 60.0)
            except subprocess.TimeoutExpired:
                process.kill()
                return
        if process.returncode == 0:
            self._acknowledged(attempt, json.loads(said)["key"])

    def pause(self, paused: bool) -> None:
        """Stop submitting, or go on."""
        (self._paused.set if paused else self._paused.clear)()

    @property
    def acknowledged(self) -> list[Attempt]:
        """As of now."""
        with self._lock:
            return [attempt for attempt in self.attempts.values() if attempt.key is not None]

    # --- judging ---

    def look(self) -> int:
        """Note what has come to the inbox, each message judged once; how many there are."""
        known = set(self._arrived.values())
        for path in self.inbox.glob("[0-9]*/*/*"):
            if path.name not in known:
                self._judge(path)
        return len(self._arrived)

    def _judge(self, folder: Path) -> None:
        told = json.loads((folder / "message.json").read_bytes())
        reference, name = told["reference"], folder.name
        attempt = self.attempts[reference]
        if reference in self._arrived:
            self.outcome.duplicates.append(f"{reference}: {self._arrived[reference]} and {name}")
        elif hashlib.sha256((folder / "record").read_bytes()).hexdigest() != attempt.content:
            self.outcome.losses.append(f"{reference}: its bytes are others ({name})")
        with self._lock:
            self._arrived[reference] = name

    def judge_all(self, *, at_end: bool) -> None:
        """Look at the whole inbox anew, as after a cut; at the end everything that was acknowledged must be there."""
        before = self._arrived
        with self._lock:
            self._arrived = {}
        self.look()
        due = {attempt.reference: attempt for attempt in self.acknowledged} if at_end else {}
        for reference in (set(before) | set(due)) - set(self._arrived):
            self.outcome.losses.append(f"{reference}: not at the office")
        for reference, attempt in due.items():
            found = self._arrived.get(reference)
            if found is not None and attempt.key is not None and found != attempt.key.replace(":", "-"):
                self.outcome.losses.append(f"{reference}: acknowledged as {attempt.key}, came as {found}")

    def judge_ana(self, before: list[Attempt]) -> None:
        """Ana has all that was acknowledged `before` she last began, and what she calls delivered is at the office."""
        rows = self.fleet.until("ana answers", lambda: self.ana.get("messages"), STALL_S)
        states = {row["key"]: row["state"] for row in rows}
        self.look()
        arrived = set(self._arrived.values())
        for attempt in before:
            assert attempt.key is not None
            if attempt.key not in states:
                self.outcome.losses.append(f"{attempt.reference}: Ana has it no more")
            elif states[attempt.key] == "delivered" and attempt.key.replace(":", "-") not in arrived:
                self.outcome.losses.append(f"{attempt.reference}: receipted, and not at the office")

    def recover(self, since_s: float) -> float:
        """Wait until a message that was acknowledged after `since_s` is at the office; seconds since then."""

        def fresh() -> bool:
            self.look()
            return any(it.at_s > since_s and it.reference in self._arrived for it in self.acknowledged)

        self.fleet.until("something goes on", fresh, STALL_S)
        took_s = time.monotonic() - since_s
        self.outcome.recovery_s = max(self.outcome.recovery_s, took_s)
        return took_s

    def finish(self) -> None:
        """Submit no more; everything arrives, every receipt comes home, the carrier is free; judge."""
        self._ended.set()
        for thread in self._threads:
            thread.join()
        due = self.acknowledged
        until = self.fleet.until
        until("all has arrived", lambda: self.look() >= len(due) and self._has(due), STALL_S)
        until("all receipts are home", lambda: set(self.ana.states()) <= {"delivered"}, STALL_S)
        for node in (self.budi, self.office):
            until(
                f"{node.name} is free",
                partial(_is_free, node),
                STALL_S,
            )
        self.judge_ana(due)
        self.judge_all(at_end=True)
        for node in self.nodes:
            if alarms := node.get("status")["alarms"]:
                self.outcome.troubles.append(f"{node.name} ends with an alarm: {alarms}")
            self.check_log(node)
        self.outcome.messages = len(due)

    def _has(self, due: list[Attempt]) -> bool:
        return all(attempt.reference in self._arrived for attempt in due)


def _is_free(node: Node) -> bool:
    return not node.get("status")["carrying"]["bundles"]

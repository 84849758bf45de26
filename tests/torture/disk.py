"""Disk: a disk that is full, at its floor, read-only, broken, or that refuses the office's inbox.

Each home is on an ext4 of its own. A round does one of these to the disk of one node, while everything runs:

- `floor`: another program leaves a little more than the floor. The daemon's own use must not cross it.
- `full`: another program leaves next to nothing. The node says so (an alarm), refuses submissions in a sentence, and
  stays in contact. Now and then it is also killed and has to start there.
- `readonly`: the file system finds an error in itself and becomes read-only. An alarm; after a new mount all goes on.
- `broken`: every access fails with an I/O error. The same.
- `sink` (the office): the inbox cannot be written, because it is immutable. An alarm, and receipts wait.

Then it is healed, and the fleet has to recover by itself; after `readonly` and `broken` the machine is switched on
again. No daemon may end by itself meanwhile, and none may log a traceback.

Not covered: a disk that hangs, and one that fails for single blocks (`rot`).
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from meshnode.core.limits import KIB, MIB
from tests.app.fleets import Node
from tests.torture.disks import Disk, disks
from tests.torture.field import Field
from tests.torture.outcome import Outcome, Say

#: Its floor is 5 % of it, some 50 MB.
DISK_BYTES = 1024 * MIB
#: A fault lasts so long at most, after the node has noticed it.
LASTS_S = 2.0
NOTICE_S = 20.0
#: What a daemon may write below its floor to tell of it: SQLite's log, and what lets go of bundles.
SLACK_BYTES = 2 * MIB


class Faults:
    """What can be done to a disk. Each method is one kind, and returns what heals it."""

    def __init__(self, field: Field, of: dict[str, Disk]) -> None:
        self._field = field
        self._of = of
        #: Bytes by which a daemon has gone below its floor, at worst.
        self.crossed_bytes = 0

    def floor(self, node: Node) -> None:
        """As the module says."""
        disk = self._of[node.name]
        if self._field.draw.random() < 0.5:  # which has it begin a new log
            node.stop()
            self._field.check_log(node)
            self._field.begin(node)
            self._field.fleet.until(f"{node.name} is up", partial(node.get, "status"))
        floor_bytes = node.get("status")["store"]["floor_bytes"]
        disk.fill(floor_bytes + self._field.draw.randrange(64 * KIB, 8 * MIB))
        least_bytes = self._last(disk)
        crossed_bytes = floor_bytes - least_bytes
        self.crossed_bytes = max(self.crossed_bytes, crossed_bytes)
        if crossed_bytes > SLACK_BYTES:
            self._field.outcome.troubles.append(f"{node.name} went {crossed_bytes} bytes below its floor")
        disk.empty()

    def full(self, node: Node) -> None:
        """As the module says."""
        field, disk = self._field, self._of[node.name]
        disk.fill(field.draw.choice([0, 0, 4 * KIB, 300 * KIB, 3 * MIB]))
        self._wait_for_alarm(node, "disk-full")
        if node is field.ana:
            self._submit_in_vain()
        self._last(disk)
        if field.draw.random() < 0.5:
            field.end(node)
            disk.fill(0)
            field.begin(node)
            self._wait_for_alarm(node, "disk-full")
        disk.empty()

    def readonly(self, node: Node) -> None:
        """As the module says."""
        self._break(node, self._of[node.name].fail)

    def broken(self, node: Node) -> None:
        """As the module says."""
        self._break(node, self._of[node.name].cut)

    def sink(self, node: Node) -> None:
        """As the module says; always at the office."""
        office, inbox = self._field.office, self._field.inbox
        folders = [inbox, *inbox.glob("[0-9]*"), *inbox.glob("[0-9]*/*"), *inbox.glob(".incoming")]
        subprocess.run(["chattr", "+i", *folders], check=True)
        try:
            self._wait_for_alarm(office, "sink")
            self._last(self._of["office"])
        finally:
            subprocess.run(["chattr", "-i", *folders], check=True)

    def _break(self, node: Node, how: Callable[[], None]) -> None:
        field, disk = self._field, self._of[node.name]
        door = node.door()  # it cannot be read afterwards
        how()
        node.door = lambda: door  # type: ignore[method-assign]
        try:
            self._wait_for_alarm(node, "store", "sink")
            field.fleet.watch(field.draw.uniform(0, 1))
        finally:
            del node.door
        field.end(node)
        disk.unmount()
        disk.mount()
        field.begin(node)

    def _wait_for_alarm(self, node: Node, *codes: str) -> None:
        def alarms() -> list[dict[str, Any]]:
            return [alarm for alarm in node.get("status")["alarms"] if alarm["code"] in codes]

        found = self._field.fleet.until(f"{node.name} raises an alarm: {codes}", alarms, NOTICE_S)
        assert all(alarm["text"].endswith(".") for alarm in found), found

    def _submit_in_vain(self) -> None:
        file = self._field.folder / "refused"
        file.write_bytes(bytes(1000))
        done = self._field.ana.run("submit", file)
        if (done.returncode, done.stdout) != (1, "") or done.stderr.count("\n") != 1:
            self._field.outcome.troubles.append(f"submit on a full disk: {done}")

    def _last(self, disk: Disk) -> int:
        """Let it last; the fewest free bytes of that time."""
        end_s = time.monotonic() + self._field.draw.uniform(0.5, LASTS_S)
        least_bytes = disk.free_bytes
        while time.monotonic() < end_s:
            self._field.fleet.watch(0.02)
            least_bytes = min(least_bytes, disk.free_bytes)
        return least_bytes


KINDS = ("floor", "full", "readonly", "broken", "sink")


def torture(rounds: int, seed: int, folder: Path, say: Say) -> Outcome:
    """As the package says."""
    outcome = Outcome("disk")
    with disks(folder, "disk-office", "disk-budi", "disk-ana", size_bytes=DISK_BYTES) as places:
        of = {name.removeprefix("disk-"): disk for name, disk in places.items()}
        with Field(folder, seed, outcome, homes=lambda name: of[name].path, says_store_trouble=True) as field:
            faults = Faults(field, of)
            field.recover(time.monotonic())
            kinds: list[str] = []
            for number in range(1, rounds + 1):
                if not kinds:
                    kinds = field.draw.sample(KINDS, len(KINDS))
                kind = kinds.pop()
                node = field.office if kind == "sink" else field.draw.choice(field.nodes)
                before = field.acknowledged
                getattr(faults, kind)(node)
                since_s = time.monotonic()
                if node is field.ana:
                    field.judge_ana(before)
                took_s = field.recover(since_s)
                outcome.rounds = number
                say(f"{number}: {kind} at {node.name}, goes on after {took_s:.1f} s,"
                    f" {len(field.acknowledged)} acknowledged, {field.look()} at the office")  # fmt: skip
            say(f"at worst {faults.crossed_bytes} bytes below the floor")
            field.finish()
    return outcome

"""Power: the power of a machine fails, so that all that its kernel had not flushed is gone.

Each home is on an ext4 of its own (the office's inbox too). A round shuts one, two or all of these file systems down at
a random instant, without a flush of the journal, then kills the daemons there, unmounts, mounts and starts again. Each
time it is judged at once: Ana still has all that was acknowledged before the cut, what the office had signed for is in
the inbox whole, and what had been seen in the inbox after the cut before stays.

Covered: data and names that were written and never flushed; a flush in the wrong order; a file without its name, a name
without its content (the journal keeps names only, and commits them when it likes). Not covered: a disk that loses what
it said it had flushed, that writes half a sector, or another file system that keeps less of the names than ext4, which
commits all of them with any flush: `tests/office/test_directory.py` cuts the inbox under that stricter model.
"""

from __future__ import annotations

import time
from pathlib import Path

from meshnode.core.limits import MIB
from tests.app.fleets import Node
from tests.torture.disks import Disk, disks
from tests.torture.field import Field
from tests.torture.outcome import Outcome, Say

DISK_BYTES = 4096 * MIB
#: A cut comes within this after the machines have started.
MOMENT_S = 1.5


def torture(rounds: int, seed: int, folder: Path, say: Say) -> Outcome:
    """As the package says."""
    outcome = Outcome("power")
    with disks(folder, "disk-office", "disk-budi", "disk-ana", size_bytes=DISK_BYTES) as places:
        of = {name.removeprefix("disk-"): disk for name, disk in places.items()}
        with Field(folder, seed, outcome, homes=lambda name: of[name].path) as field:
            field.recover(time.monotonic())
            for number in range(1, rounds + 1):
                one_round(field, of)
                outcome.rounds = number
                if number % 10 == 0:
                    say(f"{number} rounds, {len(field.acknowledged)} acknowledged, {field.look()} at the office,"
                        f" worst recovery {outcome.recovery_s:.1f} s")  # fmt: skip
            field.finish()
    return outcome


def one_round(field: Field, of: dict[str, Disk]) -> None:
    """The power of some machines fails and comes back."""
    draw = field.draw
    field.fleet.watch(draw.uniform(0, MOMENT_S))
    victims = draw.sample(field.nodes, draw.choice([1, 1, 1, 2, 3]))
    for node in victims:
        cut(field, node, of[node.name])
    before = field.acknowledged
    for node in victims:
        of[node.name].unmount()
        of[node.name].mount()
    if field.office in victims:
        field.judge_all(at_end=False)
    for node in victims:
        field.begin(node)
    since_s = time.monotonic()
    if draw.random() < 0.6:
        field.judge_ana(before)
        field.recover(since_s)


def cut(field: Field, node: Node, disk: Disk) -> None:
    """Everything of one machine ends; what its daemon logs of a disk that is gone already does not count."""
    logged = len(node.log())
    disk.cut()
    node.kill()
    field.check_log(node, logged)

"""Kill: a daemon gets SIGKILL at a random instant, and is started again at once.

A round kills one daemon, now and then two, or all. After every second round the fleet has to recover, that is to bring
a message that was submitted after the start to the office; after the others the next one is killed within a moment, so
that starting is interrupted too. The kernel lives on: what it had taken is on the disk (`power` takes that away).
"""

from __future__ import annotations

import time
from pathlib import Path

from tests.torture.field import Field
from tests.torture.outcome import Outcome, Say

#: The next victim is hit within this, after a round that does not wait.
MOMENT_S = 1.0


def torture(rounds: int, seed: int, folder: Path, say: Say) -> Outcome:
    """As the package says."""
    outcome = Outcome("kill")
    with Field(folder, seed, outcome) as field:
        field.recover(time.monotonic())
        for number in range(1, rounds + 1):
            one_round(field)
            outcome.rounds = number
            if number % 10 == 0:
                arrived = field.look()
                say(f"{number} rounds, {len(field.acknowledged)} acknowledged, {arrived} at the office,"
                    f" worst recovery {outcome.recovery_s:.1f} s")  # fmt: skip
        field.recover(time.monotonic())
        field.finish()
    return outcome


def one_round(field: Field) -> None:
    """Some daemons die and are started again."""
    draw = field.draw
    victims = draw.sample(field.nodes, draw.choice([1, 1, 1, 1, 2, 3]))
    for node in victims:
        field.end(node)
    before = field.acknowledged
    for node in victims:
        field.begin(node)
    since_s = time.monotonic()
    if draw.random() < 0.5:
        if field.ana in victims:
            field.judge_ana(before)
        field.recover(since_s)
    field.fleet.watch(draw.uniform(0, MOMENT_S))

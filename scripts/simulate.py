"""Plays seeds of the fleet in a box (`meshnode.sim.run`) on all cores, and says what became of them.

    scripts/simulate --seeds 0:500     a summary, and for each broken promise the command that plays that seed again
    scripts/simulate --seed 123 --trace    what happened in one of them, line by line
    scripts/simulate --week --seed 1       a week of 12 officers and an office, 300 registrations a day, on one core
    scripts/simulate --mutants --seeds 0:40    within how many seeds each wrong node is caught, and by which judge

Exit code 1 when a promise was broken, or when a mutant was not caught.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]

from meshnode.sim.engine import Trace  # noqa: E402 - found only through the line above
from meshnode.sim.run import Outcome, play, play_week  # noqa: E402
from tests.simulation.mutants import MUTANTS, Catch, hunt  # noqa: E402

DAY_S = 86_400


def seeds_of(text: str) -> range:
    """`A:B` as a range, B not included."""
    first, _, end = text.partition(":")
    try:
        found = range(int(first), int(end))
    except ValueError:
        found = range(0)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is not A:B with A below B")
    return found


def play_all(seeds: range) -> int:
    """Play all of them in parallel; how many broke a promise."""
    began_s = time.monotonic()
    outcomes: list[Outcome] = []
    with multiprocessing.Pool() as pool:
        for outcome in pool.imap_unordered(play, seeds):
            outcomes.append(outcome)
            if outcome.broken is not None:
                print(f"seed {outcome.seed}: {outcome.broken}", flush=True)
                print(f"    again: ./scripts/simulate --seed {outcome.seed} --trace", flush=True)
    print(summary(outcomes, time.monotonic() - began_s))
    return sum(outcome.broken is not None for outcome in outcomes)


def summary(outcomes: list[Outcome], seconds: float) -> str:
    """What was played, in one paragraph."""
    days = sum(outcome.virtual_s for outcome in outcomes) / DAY_S
    broken = sum(outcome.broken is not None for outcome in outcomes)
    steps = sum(outcome.steps for outcome in outcomes)
    accepted = sum(outcome.accepted for outcome in outcomes)
    seeds = "seed" if len(outcomes) == 1 else "seeds"
    return (
        f"{len(outcomes)} {seeds}, {days:.0f} virtual days, {steps} steps, {accepted} messages accepted, in"
        f" {seconds:.0f} s: {broken} broke a promise."
    )


def play_one(seed: int, trace: Trace | None, *, week: bool) -> int:
    """Play this one seed and say what became of it; 1 if it broke a promise."""
    began_s = time.process_time()
    outcome = (play_week if week else play)(seed, trace)
    print(outcome)
    print(summary([outcome], time.process_time() - began_s))
    return outcome.broken is not None


def _hunt(job: tuple[int, range]) -> tuple[int, Catch]:
    at, seeds = job
    return at, hunt(MUTANTS[at], seeds)


def hunt_all(seeds: range) -> int:
    """Try every mutant; how many were not caught by a judge that should."""
    jobs: Iterable[tuple[int, range]] = [(at, seeds) for at in range(len(MUTANTS))]
    missed = 0
    with multiprocessing.Pool() as pool:
        for at, catch in pool.imap(_hunt, jobs):
            right = catch.judge in MUTANTS[at].judges
            missed += not right
            mark = "" if right else "   <- not by the judge that should"
            print(f"{catch.mutant:48} {catch.judge:12} {catch.seeds:4} seeds{mark}", flush=True)
    return missed


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="scripts/simulate", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seeds", type=seeds_of, default=range(100), metavar="A:B", help="which seeds")
    parser.add_argument("--seed", type=int, metavar="N", help="just this one")
    parser.add_argument("--trace", action="store_true", help="with --seed: print what happens")
    parser.add_argument(
        "--week", action="store_true", help="a week of the whole fleet instead of a drawn plan"
    )
    parser.add_argument(
        "--mutants", action="store_true", help="play wrong nodes, to see that the judges bite"
    )
    said = parser.parse_args()
    if said.seed is not None or said.week:
        trace = Trace(print) if said.trace else None
        sys.exit(play_one(1 if said.seed is None else said.seed, trace, week=said.week))
    sys.exit((hunt_all if said.mutants else play_all)(said.seeds) > 0)


if __name__ == "__main__":
    main()

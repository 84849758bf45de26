"""Fleets in a box: seeds that must keep every promise, and that are the same in every process."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from meshnode.sim.run import play

#: Plays fast enough for every run of the tests; `scripts/simulate` plays as many as one likes.
FIXED = range(6)
FRESH = [int.from_bytes(os.urandom(4), "big") for _ in range(2)]


@pytest.mark.parametrize("seed", [*FIXED])
def test_a_fixed_seed_keeps_every_promise(seed: int) -> None:
    outcome = play(seed)
    assert outcome.broken is None, f"again: ./scripts/simulate --seed {seed} --trace"


def test_fresh_seeds_keep_every_promise() -> None:
    for seed in FRESH:
        outcome = play(seed)
        assert outcome.broken is None, f"again: ./scripts/simulate --seed {seed} --trace"


def test_a_seed_is_the_same_run_in_any_process() -> None:
    program = "from meshnode.sim.run import play; print(play(3).digest)"
    digests = {play(3).digest}
    for hash_seed in ("0", "77"):
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        )
        digests.add(done.stdout.strip())
    assert len(digests) == 1


def test_two_seeds_are_two_runs() -> None:
    assert play(3).digest != play(4).digest

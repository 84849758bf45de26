"""The judges bite: each way in which a developer could get the node wrong is seen, by a judge whose promise it is."""

from __future__ import annotations

import pytest

from tests.simulation.mutants import MUTANTS, Mutant, hunt

#: A seed that showed it once, to be tried first: most of them show at seed 0.
HINTS = {
    "bundles told before they are a message": 11,
    "own bundles discarded when they expire": 5,
    "a receipt is believed without its signature": 7,
    "nothing expires": 5,
    "the quota is ignored": 15,
    "bundles are stored without being verified": 21,
    "only the office passes receipts on": 3,
    "a torn submission stays in the store": 16,
    "a revoked device is served": 34,
}
SEEDS_MAX = 60


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_is_caught(mutant: Mutant) -> None:
    hint = HINTS.get(mutant.name, 0)
    catch = hunt(mutant, range(hint, hint + 1))
    if catch.outcome is None:
        catch = hunt(mutant, range(SEEDS_MAX))
    assert catch.judge in mutant.judges, catch

"""The judges bite: each way in which a developer could get the node wrong is seen, by a judge whose promise it is."""

from __future__ import annotations

import pytest

from tests.simulation.mutants import MUTANTS, Mutant, hunt

#: A seed that showed it once, to be tried first: most of them show at seed 0.
HINTS = {
    "own bundles discarded when they expire": 1,
    "a receipt is believed without its signature": 12,
    "the journal goes on after a restart": 1,
    "the age that a bundle comes with is ignored": 1,
    "nothing expires": 1,
    "the quota is ignored": 39,
    "the floor is ignored": 2,
    "only the office passes receipts on": 1,
    "a torn submission stays in the store": 1,
    "what is on its way to the disk is forgotten": 951,
    "credit is ignored": 2,
    "a revoked device is served": 4,
}
SEEDS_MAX = 60


#: Of these each hunt takes long.
SLOW = {
    "what a lost contact owed is never asked again",
    "only the office passes receipts on",
    "the last of all ranges is one too low",
    "a torn submission stays in the store",
}


@pytest.mark.parametrize(
    "mutant",
    [pytest.param(it, id=it.name, marks=[pytest.mark.slow] if it.name in SLOW else []) for it in MUTANTS],
)
def test_a_mutant_is_caught(mutant: Mutant) -> None:
    hint = HINTS.get(mutant.name, 0)
    catch = hunt(mutant, range(hint, hint + 1))
    if catch.outcome is None:
        catch = hunt(mutant, range(SEEDS_MAX))
    assert catch.judge in mutant.judges, catch

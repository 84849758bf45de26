"""What metered interfaces may cost, over a day that slides, and which interfaces may be used."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshnode.core.metering import DAY_S, SLOT_S, Budget, Rules
from meshnode.core.uplink import Failure

RULES = Rules(interfaces=("wlan*", "wwan0"), metered=("wwan*", "ppp?"))


def test_a_budget_is_used_up_and_comes_back() -> None:
    budget = Budget(1000)
    assert budget.is_open(5.0)
    budget.add(999, 5.0)
    assert budget.is_open(6.0)
    budget.add(1, SLOT_S + 6.0)
    assert not budget.is_open(SLOT_S + 7.0)
    assert not budget.is_open(DAY_S + SLOT_S - 0.1)
    assert budget.is_open(DAY_S + SLOT_S)
    assert budget.spent(DAY_S + SLOT_S) == 1
    assert budget.spent(DAY_S + 2 * SLOT_S) == 0


def test_none_is_no_limit_and_0_is_never() -> None:
    budget = Budget(None)
    budget.add(10**15, 0.0)
    assert budget.is_open(0.0)
    assert not Budget(0).is_open(0.0)


def test_a_clock_that_a_crash_took_back() -> None:
    budget = Budget(1000, [(10, 1000)])
    assert not budget.is_open(5 * SLOT_S)
    assert budget.to_rows() == [(5, 1000)]


@given(
    st.lists(st.tuples(st.floats(0, 3 * DAY_S), st.integers(0, 400)), max_size=60),
    st.floats(0, 2 * DAY_S),
)
def test_no_24_hours_cost_more_than_the_limit(wishes: list[tuple[float, int]], began_s: float) -> None:
    budget, spent = Budget(1000), list[tuple[float, int]]()
    for at_s, size_bytes in sorted(wishes):
        if budget.is_open(at_s):
            budget.add(size_bytes, at_s)
            spent.append((at_s, size_bytes))
            budget = Budget(1000, budget.to_rows())  # a restart changes nothing
    # the piece that used it up goes beyond, once
    window = sum(size_bytes for at_s, size_bytes in spent if began_s <= at_s < began_s + DAY_S)
    assert window < 1000 + 400


@pytest.mark.parametrize(
    ("name", "open_", "closed"),
    [
        ("wlan0", None, None),
        ("wlan1", None, None),
        ("wwan0", None, Failure.BUDGET),
        ("wwan1", Failure.INTERFACE, Failure.INTERFACE),
        ("eth0", Failure.INTERFACE, Failure.INTERFACE),
        ("WLAN0", Failure.INTERFACE, Failure.INTERFACE),
    ],
)
def test_rules(name: str, open_: Failure | None, closed: Failure | None) -> None:
    assert RULES.forbids(name, budget_open=True) is open_
    assert RULES.forbids(name, budget_open=False) is closed


def test_without_names_any_interface_will_do() -> None:
    assert Rules().forbids("anything", budget_open=False) is None
    assert Rules(metered=("wwan*",)).forbids("wwan0", budget_open=False) is Failure.BUDGET
    assert Rules(metered=("wwan*",)).is_metered("wwan0")
    assert not Rules(metered=("wwan*",)).is_metered("wlan0")

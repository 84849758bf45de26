"""Plans are drawn from the seed alone, and the week is the week that officers have."""

from __future__ import annotations

from collections import Counter

from meshnode.sim.scenario import DAY_S, draw_plan, draw_week


def test_the_week_is_that_of_the_fleet() -> None:
    plan = draw_week(1)
    assert Counter(person.role for person in plan.people) == {"officer": 12, "office": 1}
    a_day = Counter(int(message.at_s // DAY_S) for message in plan.messages)
    assert a_day == dict.fromkeys(range(7), 300)
    assert set(Counter(message.name for message in plan.messages).values()) == {175}


def test_a_plan_is_drawn_from_its_seed() -> None:
    assert draw_plan(5) == draw_plan(5) != draw_plan(6)
    assert draw_week(5) == draw_week(5) != draw_week(6)

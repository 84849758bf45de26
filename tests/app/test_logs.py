"""What is logged is one line, whatever is in it, and a flood of lines is cut."""

from __future__ import annotations

import logging

import pytest

from meshnode.app.logs import ALIKE_MAX, LINES_MAX, Flood, Grumbles, OneLine, escaped


def record(text: str, level: int = logging.INFO, **more: object) -> logging.LogRecord:
    return logging.LogRecord("meshnode", level, "x.py", 1, text, None, None, **more)  # type: ignore[arg-type]


def test_control_characters_are_escaped_and_the_rest_is_left() -> None:
    assert escaped("Siti, Cipatujah ✓") == "Siti, Cipatujah ✓"
    assert escaped("a\nb\r\x1b[2J\x9b\u202e\u2028\ud800") == r"a\nb\r\x1b[2J\x9b\u202e\u2028\ud800"


def test_a_line_cannot_be_forged() -> None:
    line = OneLine("%(levelname)s %(message)s").format(record("bye\nERROR the disk is broken\x1b]0;x\x07"))
    assert line == r"INFO bye\nERROR the disk is broken\x1b]0;x\x07"
    assert line.isprintable()


def test_our_own_traceback_is_left_as_it_is() -> None:
    try:
        raise ValueError("a mistake")
    except ValueError as error:
        told = record("it failed", logging.ERROR)
        told.exc_info = (type(error), error, error.__traceback__)
    lines = OneLine("%(message)s").format(told).splitlines()
    assert lines[:2] == ["it failed", "Traceback (most recent call last):"]


def test_a_flood_is_cut_by_level_and_never_errors() -> None:
    flood = Flood()
    assert sum(flood.filter(record("again")) for _ in range(3 * LINES_MAX)) == LINES_MAX
    assert flood.filter(record("something else", logging.WARNING))
    assert all(flood.filter(record("broken", logging.ERROR)) for _ in range(2 * LINES_MAX))
    flood._since_s -= 61.0
    after = record("%s")
    after.args = ("100 % later",)
    assert flood.filter(after)
    assert after.getMessage() == f"({2 * LINES_MAX} lines were left out before this one) 100 % later"
    assert flood.filter(plain := record("quiet"))
    assert plain.getMessage() == "quiet"


def test_the_same_trouble_is_told_once_a_minute_and_few_of_a_kind(caplog: pytest.LogCaptureFixture) -> None:
    now_s = 0.0
    grumble = Grumbles(lambda: now_s)
    for _ in range(2000):
        grumble("10.0.0.1 was turned away: http request", "http request")
    assert len(caplog.messages) == 1
    for host in range(100):
        grumble(f"10.0.0.{host} was turned away: http request", "http request")
    assert len(caplog.messages) == ALIKE_MAX
    grumble("10.0.0.1 was turned away: no certificate", "no certificate")
    assert len(caplog.messages) == ALIKE_MAX + 1, "a flood of one kind does not hide another"
    now_s = 61.0
    grumble("10.0.0.1 was turned away: http request", "http request")
    assert len(caplog.messages) == ALIKE_MAX + 2
    for kind in range(5000):
        grumble(f"{kind}", f"{kind}")
    assert len(grumble._said) == 100 * ALIKE_MAX

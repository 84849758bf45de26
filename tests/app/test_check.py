"""`meshnode status --check`: the line and the exit code that a monitor gets."""

from __future__ import annotations

import ast
import copy
import inspect
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshnode.app import report
from meshnode.app.cli import checking
from meshnode.app.cli.checking import CRITICAL, OK, UNKNOWN, WARNING, check, check_node, check_with
from meshnode.app.client import Client
from meshnode.app.home import Home
from meshnode.app.report import SEVERITIES
from meshnode.core.errors import NoNode, NotAnswering, NotRunning
from meshnode.core.uplink import SIGN_IN
from tests.app.fleets import Fleet, Node

STATUS: dict[str, Any] = {
    "device": {"name": "siti"},
    "messages": {"submitted": 14, "delivered": 12},
    "oldest_waiting_s": 7200,
    "contacts": [{}],
    "carrying": {"bundles": 3, "bytes": 4096, "sources": 1},
    "store": {"bytes": 1, "free_bytes": 5000, "floor_bytes": 1000, "quota_bytes": 9000},
    "alarms": [],
}
FIGURES = "submitted=14 waiting=2 oldest_waiting=7200s contacts=1 carried=4096B free=5000B;;1000:"


def told(*alarms: tuple[str, str]) -> dict[str, Any]:
    """A status with alarms, each (severity, text)."""
    rows = [{"code": "x", "text": text, "severity": severity} for severity, text in alarms]
    return {**copy.deepcopy(STATUS), "alarms": rows}


def test_all_is_well() -> None:
    line = f"MESHNODE OK - siti: 12 of 14 messages are safe at the office | {FIGURES}"
    assert check(STATUS) == (line, OK)
    new = {**STATUS, "messages": {"submitted": 0, "delivered": 0}, "oldest_waiting_s": None}
    line, code = check(new)
    assert code == OK
    assert line.startswith(
        "MESHNODE OK - siti: nothing was submitted here yet | submitted=0 waiting=0 oldest_waiting=0s"
    )


@pytest.mark.parametrize(
    ("alarms", "code", "begins"),
    [
        ([("warning", "Look.")], WARNING, "MESHNODE WARNING - siti: Look. | "),
        ([("critical", "Act.")], CRITICAL, "MESHNODE CRITICAL - siti: Act. | "),
        (
            [("warning", "Look."), ("critical", "Act."), ("critical", "Too.")],
            CRITICAL,
            "MESHNODE CRITICAL - siti: Act. (2 more alarms) | ",
        ),
        (
            [("critical", "Act."), ("warning", "Look.")],
            CRITICAL,
            "MESHNODE CRITICAL - siti: Act. (1 more alarm) | ",
        ),
        ([("of a newer daemon", "What?")], WARNING, "MESHNODE WARNING - siti: What? | "),
    ],
)
def test_the_worst_alarm_is_named(alarms: list[tuple[str, str]], code: int, begins: str) -> None:
    line, exit_code = check(told(*alarms))
    assert exit_code == code
    assert line == begins + FIGURES


@given(st.text())
def test_it_is_one_line_with_one_bar_whatever_an_alarm_says(text: str) -> None:
    line, _ = check(told(("warning", text)))
    assert line.isprintable()
    assert line.count("|") == 1


@pytest.mark.parametrize(
    ("problem", "code", "begins"),
    [
        (NotRunning(home="/h"), CRITICAL, "MESHNODE CRITICAL - The node in /h is not running"),
        (NotAnswering(home="/h", problem="timed out"), CRITICAL, "MESHNODE CRITICAL - "),
        (NoNode(home="/h"), UNKNOWN, "MESHNODE UNKNOWN - There is no node in /h"),
    ],
)
def test_what_cannot_be_asked(problem: Exception, code: int, begins: str) -> None:
    def ask() -> dict[str, Any]:
        raise problem

    line, exit_code = check_with(ask)
    assert exit_code == code
    assert line.startswith(begins)


def test_each_alarm_has_a_weight() -> None:
    """Codes stand as texts beside `found.append` and the like, but for the one that is a name."""
    tree = ast.parse(inspect.getsource(report))
    codes = {
        pair.elts[0].value
        for function in tree.body
        if isinstance(function, ast.FunctionDef) and function.name.endswith("alarms")
        for pair in ast.walk(function)
        if isinstance(pair, ast.Tuple) and pair.elts and isinstance(pair.elts[0], ast.Constant)
    }
    assert len(codes) >= 11
    assert codes | {SIGN_IN} == set(SEVERITIES)
    assert set(SEVERITIES.values()) == {"warning", "critical"}


# --- the real command ---


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with Fleet(tmp_path) as fleet:
        yield fleet


def checked(node: Node) -> tuple[int, str]:
    done = node.run("status", "--check")
    assert done.stderr == ""
    assert done.stdout.count("\n") == 1
    return done.returncode, done.stdout


def test_a_node_through_its_life(fleet: Fleet) -> None:
    ana = fleet.enroll("ana")
    code, line = checked(ana)
    assert (code, line.partition(" - ")[0]) == (2, "MESHNODE CRITICAL")
    fleet.start(ana)
    code, line = checked(ana)  # its fleet document names no office yet
    assert (code, line.partition(" - ")[0]) == (1, "MESHNODE WARNING")
    assert [it["severity"] for it in ana.get("status")["alarms"]] == ["warning"]
    fleet.enroll("kantor", "office")
    assert ana.request("PUT", "/v1/fleet", fleet.publish().read_bytes())[0] == 200
    ana.give({"f": b"1"})
    code, line = checked(ana)
    assert (code, line.partition(" | ")[0]) == (0, "MESHNODE OK - ana: 0 of 1 message is safe at the office")
    assert "waiting=1 " in line
    for more in ("--json", "--watch"):
        done = ana.run("status", "--check", more)
        assert done.returncode == 2
        assert "Give --check alone." in done.stderr


def test_a_node_that_hangs_is_given_up_in_time(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    ana = fleet.enroll("ana")
    fleet.start(ana)
    monkeypatch.setattr(checking, "WITHIN_S", 0.2)
    ana.signal(signal.SIGSTOP)
    line, code = check_node(ana.home)
    ana.signal(signal.SIGCONT)
    assert code == CRITICAL
    assert line.startswith("MESHNODE CRITICAL - ")
    assert Client(Home(ana.home)).request("GET", "/v1/status")["device"]["name"] == "ana"


def test_where_there_is_no_node(tmp_path: Path) -> None:
    line, code = check_node(tmp_path)
    assert code == UNKNOWN
    assert line.startswith("MESHNODE UNKNOWN - ")

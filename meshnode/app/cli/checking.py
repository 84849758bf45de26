"""`meshnode status --check`: one line and an exit code, as Nagios, Icinga and their kin want of a plugin.

    0 OK         nothing is wrong
    1 WARNING    an alarm that says that something should be looked at
    2 CRITICAL   an alarm that needs somebody to act, or the node does not run or does not answer
    3 UNKNOWN    it cannot be told: no node in this home, not a member yet, files that may not be read

So the codes are not those of all other commands, where 3 is a node that does not run: whoever watches a node wants to
be woken by that. How bad an alarm is says the daemon (`report.SEVERITIES`). After a `|` follow figures, in the format
of the plugins: `label=value[unit]`. Labels, units and the first two words are for programs and are never translated.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from meshnode.app.cli.screen import plain
from meshnode.core.errors import MeshnodeError, NotAnswering, NotRunning
from meshnode.core.words import Words, count, say

OK, WARNING, CRITICAL, UNKNOWN = range(4)
_WORDS: Final = ("OK", "WARNING", "CRITICAL", "UNKNOWN")
_CODES: Final = {"warning": WARNING, "critical": CRITICAL}
#: A plugin is given up after 10 seconds; a node that does not answer in this time hangs.
WITHIN_S: Final = 8.0


def check(told: dict[str, Any]) -> tuple[str, int]:
    """The line and the exit code for what `meshnode status --json` says. The worst alarm is the one that is named."""
    # an alarm of unknown weight comes from a newer daemon
    alarms = [(_CODES.get(alarm.get("severity"), WARNING), str(alarm["text"])) for alarm in told["alarms"]]
    code = max((weight for weight, _ in alarms), default=OK)
    if not alarms:
        said = str(_well(told))
    else:
        said = next(text for weight, text in alarms if weight == code)
        if more := len(alarms) - 1:
            said = f"{said} {count('({n} more alarm)', '({n} more alarms)', more)}"
    return f"{_line(code, told['device']['name'], said)} | {_figures(told)}", code


def check_with(ask: Callable[[], dict[str, Any]]) -> tuple[str, int]:
    """The same for what `ask` answers, or for the error that it raises."""
    try:
        return check(ask())
    except (NotRunning, NotAnswering) as problem:
        return _line(CRITICAL, "", str(problem)), CRITICAL
    except MeshnodeError as problem:
        return _line(UNKNOWN, "", str(problem)), UNKNOWN


def check_node(home: Path) -> tuple[str, int]:
    """The same for the node on this home."""
    from meshnode.app.client import Client
    from meshnode.app.home import Home

    def ask() -> dict[str, Any]:
        told: dict[str, Any] = Client(Home(home), WITHIN_S).request("GET", "/v1/status")
        return told

    return check_with(ask)


def _well(told: dict[str, Any]) -> Words:
    counts = told["messages"]
    if not counts["submitted"]:
        return say("nothing was submitted here yet")
    return count(
        "{delivered} of {n} message is safe at the office",
        "{delivered} of {n} messages are safe at the office",
        counts["submitted"],
        delivered=counts["delivered"],
    )


def _line(code: int, name: str, said: str) -> str:
    """One line; a `|` in a text would begin the figures."""
    named = f"{name}: " if name else ""
    return plain(" ".join(f"MESHNODE {_WORDS[code]} - {named}{said}".split())).replace("|", "/")


def _figures(told: dict[str, Any]) -> str:
    counts, store = told["messages"], told["store"]
    figures = {
        "submitted": str(counts["submitted"]),
        "waiting": str(counts["submitted"] - counts["delivered"]),
        "oldest_waiting": f"{told['oldest_waiting_s'] or 0}s",
        "contacts": str(len(told["contacts"])),
        "carried": f"{told['carrying']['bytes']}B",
        # free space, and the space below which it is critical
        "free": f"{store['free_bytes']}B;;{store['floor_bytes']}:",
    }
    return " ".join(f"{label}={value}" for label, value in figures.items())

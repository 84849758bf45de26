"""Figures: what the benchmarks print, one JSON line each, and how lines are read and told apart.

    {"figure": name, "value": v, "unit": u, "limit": what the machine could do or null, "ratio": v / limit, ...}

Several lines may have one name; what they are of (`TELLING`) is then among the rest. The last line of a run says on
what machine it was made: {"figure": "machine", ...}.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

Figure = dict[str, Any]

ROOT: Final = Path(__file__).resolve().parents[2]
MACHINE: Final = "machine"
#: What tells lines of one name apart.
TELLING: Final = ("node", "messages", "contacts", "row_bytes", "rows_per_commit", "size", "part")


class BadLines(Exception):
    """What should be a run's lines cannot be read; the text is for people."""


def figure(name: str, value: float | None, unit: str, limit: float | None = None, **more: Any) -> Figure:
    """One line."""
    ratio = value / limit if value is not None and limit else None
    return {"figure": name, "value": value, "unit": unit, "limit": limit, "ratio": ratio, **more}


def rounded(value: Any) -> Any:
    """Four digits are more than any of these is worth."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, list) else value


def to_line(line: Figure) -> str:
    """As it is printed."""
    return json.dumps(rounded(line))


def key_of(line: Figure) -> tuple[str, ...]:
    """What a line is of: its name, and what tells it from others of that name."""
    return (line["figure"], *(str(line[word]) for word in TELLING if word in line))


def is_rate(line: Figure) -> bool:
    """Whether more is better: of so many a second, but for those that are a burden."""
    return str(line["unit"]).endswith("/s") and line["unit"] != "1/s"


def read_lines(source: Iterable[str], name: str) -> list[Figure]:
    """A run's lines. Raises BadLines."""
    lines: list[Figure] = []
    for number, text in enumerate(source, 1):
        if not text.strip():
            continue
        try:
            line = json.loads(text)
        except ValueError:
            raise BadLines(f"line {number} of {name} is not JSON") from None
        if not isinstance(line, dict) or not isinstance(line.get("figure"), str):
            raise BadLines(f"line {number} of {name} is not a figure")
        if line["figure"] != MACHINE and not (
            isinstance(line.get("value"), int | float | None) and isinstance(line.get("unit"), str)
        ):
            raise BadLines(f"line {number} of {name} has no value and unit")
        lines.append(line)
    if not lines:
        raise BadLines(f"{name} has no figures")
    return lines


def read_file(path: Path) -> list[Figure]:
    """The lines in a file. Raises BadLines."""
    try:
        with path.open(encoding="utf-8") as source:
            return read_lines(source, str(path))
    except OSError as error:
        raise BadLines(f"{path} cannot be read: {(error.strerror or str(error)).lower()}") from None
    except UnicodeDecodeError:
        raise BadLines(f"{path} is not text") from None


def machine(rounds: int) -> Figure:
    """On what this runs, and of how many rounds its values are medians."""
    model = "unknown"
    for row in Path("/proc/cpuinfo").read_text().splitlines():
        if row.startswith("model name"):
            model = row.partition(":")[2].strip()
            break
    words = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    try:
        told = subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip()
    except FileNotFoundError:
        told = ""
    return {
        "figure": MACHINE,
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "kernel": f"{platform.system()} {platform.release()}",
        "commit": told or "unknown",
        "rounds": rounds,
    }

"""Two runs beside each other: what each figure was, what it is, and what got worse.

A figure that has a limit is compared by its share of the limit too: on a machine that is slower or busier than before,
the shares stay.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from bench.figures import MACHINE, Figure, is_rate, key_of

#: A figure that is worse by more than this is marked.
WORSE_PERCENT: Final = 10.0
COLUMNS: Final = ("figure", "unit", "before", "after", "change", "ratio", "")


def shown(value: float | None) -> str:
    """Three digits, or all that stand before the point."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def change_percent(before: float | None, after: float | None) -> float | None:
    """From one to the other; None where that says nothing."""
    return None if not before or after is None else 100 * (after - before) / before


def is_worse(line: Figure, before: Figure) -> bool:
    """Whether this got worse by more than WORSE_PERCENT, or cannot be measured any more."""
    if line["value"] is None or before["value"] is None:
        return before["value"] is not None
    percent = change_percent(before["value"], line["value"])
    if percent is None:
        return bool(line["value"] > 0 and not is_rate(line))  # there was nothing
    return (-percent if is_rate(line) else percent) > WORSE_PERCENT


def _signed(percent: float | None) -> str:
    return "" if percent is None else f"{percent:+.0f} %"


def compare(before: Iterable[Figure], after: Iterable[Figure], *, some: bool = False) -> list[str]:
    """The table, a string a row. `some`: not all was measured again, so nothing is said of what was not."""
    old = {key_of(line): line for line in before if line["figure"] != MACHINE}
    rows = [COLUMNS]
    for line in after:
        if line["figure"] == MACHINE:
            continue
        key = key_of(line)
        was = old.pop(key, None)
        name = " ".join(key)
        if was is None:
            rows.append((name, line["unit"], "-", shown(line["value"]), "", "", "new"))
            continue
        change = _signed(change_percent(was["value"], line["value"]))
        ratio = _signed(change_percent(was.get("ratio"), line.get("ratio")))
        mark = "WORSE" if is_worse(line, was) else ""
        rows.append((name, line["unit"], shown(was["value"]), shown(line["value"]), change, ratio, mark))
    if not some:
        rows.extend(
            (" ".join(key), was["unit"], shown(was["value"]), "-", "", "", "gone") for key, was in old.items()
        )
    widths = [max(len(row[at]) for row in rows) for at in range(len(COLUMNS))]
    return [
        "  ".join(
            cell.ljust(width) if at in (0, 1, 6) else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]

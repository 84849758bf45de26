"""A run as a picture: above, what was recorded and what was delivered over time; below, who carried how much for whom.

The map has a row for each node that recorded something that others carried, and a column for each carrier; the darker
a cell, the more bytes. Gateways are where things end, so they are no columns.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

from meshnode.core.words import count, say
from meshnode.sim.canvas import Canvas, Point
from meshnode.sim.carrying import Carried

_WIDTH: Final = 960.0
_LEFT: Final = 90.0
_RIGHT: Final = 30.0
_TOP: Final = 60.0
_CURVES: Final = 260.0
_CELL_MAX: Final = 26.0
_CELL_MIN: Final = 9.0
_LABELS: Final = 90.0

_GREY: Final = "#9aa5b1"
_FAINT: Final = "#e4e8ec"
_BLUE: Final = "#0b5394"
#: Points of a curve at most.
_STEPS: Final = 600
_UNITS: Final = (
    (say("days"), 86400.0),
    (say("hours"), 3600.0),
    (say("minutes"), 60.0),
    (say("seconds"), 1.0),
)


def draw(run: Carried, make: Callable[[float, float], Canvas]) -> bytes:
    """The picture's bytes, on a canvas that `make` gives for a width and a height in points."""
    sources = sorted({source for source, _ in run.moved})
    carriers = sorted({carrier for _, carrier in run.moved})
    space = _WIDTH - _LEFT - _RIGHT
    cell = max(_CELL_MIN, min(_CELL_MAX, space / max(1, len(carriers))))
    map_top = _TOP + _CURVES + 90.0
    width = max(_WIDTH, _LEFT + cell * len(carriers) + _RIGHT)
    height = map_top + _LABELS + cell * len(sources) + 30.0
    canvas = make(width, height)
    _curves(run, canvas)
    _map(run, canvas, sources, carriers, cell, map_top)
    return canvas.encode()


# --- over time --------------------------------------------------------------------------------------------------


def _curves(run: Carried, canvas: Canvas) -> None:
    recorded = sorted(fate.message.at_s for fate in run.fates)
    delivered = sorted(fate.delivered_s for fate in run.fates if fate.delivered_s is not None)
    end_s = max([run.end_s, *recorded[-1:], *delivered[-1:]])
    top = _TOP
    bottom = top + _CURVES
    share = len(delivered) / len(run.fates)
    head = count(
        "{delivered} of {n} message delivered",
        "{delivered} of {n} messages delivered",
        len(run.fates),
        delivered=len(delivered),
    )
    canvas.text(_LEFT, top - 30, str(head), size=16)
    canvas.text(_LEFT + 1, top - 10, str(say("recorded")), fill=_GREY)
    canvas.text(_LEFT + 65, top - 10, str(say("delivered ({share})", share=f"{share:.1%}")), fill=_BLUE)

    def place(at_s: float, height: float) -> Point:
        x = _LEFT + (_WIDTH - _LEFT - _RIGHT) * at_s / end_s
        return x, bottom - _CURVES * height / len(run.fates)

    unit, unit_s = next((u for u in _UNITS if end_s >= 3 * u[1]), _UNITS[-1])
    step = _step(end_s / unit_s)
    for at in range(int(end_s / unit_s / step) + 1):
        x, _ = place(at * step * unit_s, 0)
        canvas.line([(x, top), (x, bottom)], _FAINT)
        canvas.text(x, bottom + 16, f"{at * step:g}", anchor="middle")
    canvas.text(_WIDTH - _RIGHT, bottom + 32, str(unit), anchor="end")
    step = _step(len(run.fates))
    for at in range(int(len(run.fates) / step) + 1):
        _, y = place(0, at * step)
        canvas.line([(_LEFT, y), (_WIDTH - _RIGHT, y)], _FAINT)
        canvas.text(_LEFT - 8, y + 4, f"{at * step:g}", anchor="end")
    canvas.line([place(*at) for at in _stairs(recorded, end_s)], _GREY, 1.5)
    canvas.line([place(*at) for at in _stairs(delivered, end_s)], _BLUE, 2.0)


def _stairs(moments: Sequence[float], end_s: float) -> list[Point]:
    """How many of these ascending moments have passed, over time."""
    points: list[Point] = [(0.0, 0.0)]
    every = max(1, len(moments) // _STEPS)
    for passed, at_s in enumerate(moments, 1):
        if passed % every == 0 or passed == len(moments):
            points += [(at_s, points[-1][1]), (at_s, float(passed))]
    return [*points, (end_s, points[-1][1])]


def _step(most: float) -> float:
    """A round step that leads to `most` in at most ten."""
    power = 10.0 ** math.floor(math.log10(max(most, 1e-9) / 10))
    return next(power * factor for factor in (1, 2, 5, 10, 20) if most <= 10 * power * factor)


# --- who for whom -----------------------------------------------------------------------------------------------


def _map(
    run: Carried, canvas: Canvas, sources: Sequence[str], carriers: Sequence[str], cell: float, top: float
) -> None:
    if not run.moved:
        canvas.text(_LEFT, top, str(say("Nobody carried anything for anybody.")), size=14)
        return
    most = max(load.bytes for load in run.moved.values())
    head = say(
        "Who carried for whom: a row a source, a column a carrier, up to {most} MB", most=f"{most / 1e6:.1f}"
    )
    canvas.text(_LEFT, top, str(head), size=14)
    top += _LABELS
    size = min(11.0, cell - 1)
    for at, carrier in enumerate(carriers):
        canvas.text(_LEFT + (at + 0.5) * cell + size / 3, top - 6, carrier, size=size, upright=True)
    for row, source in enumerate(sources):
        y = top + row * cell
        canvas.text(_LEFT - 8, y + cell / 2 + size / 3, source, size=size, anchor="end")
        for at, carrier in enumerate(carriers):
            load = run.moved.get((source, carrier))
            fill = _shade(load.bytes / most) if load else "#f7f8f9"
            canvas.rect(_LEFT + at * cell, y, cell - 1, cell - 1, fill)


def _shade(share: float) -> str:
    """From nearly white to dark blue; by the square root, so that little is still seen beside much."""
    share = math.sqrt(share)
    light, dark = (222, 235, 247), (8, 48, 107)
    return "#" + "".join(f"{round(a + (b - a) * share):02x}" for a, b in zip(light, dark, strict=True))

"""What it costs to know who else holds what: the memory of `core.holders`, as a fleet fills it that has seen no office
for ten days.

    {"figure": "holders_bytes", "value": v, "unit": "B", "fleet": devices, "journals": j, "rows": r, "ranges": n}
    {"figure": "layers_bytes_per_journal", ...}

Every device has started a journal of 300 bundles on each day, and every other device holds half of each, in RUNS runs:
contacts were cut everywhere. A node has met half of the others and heard of the rest, which is the worst there is, as
either kind of knowledge has a bound of its own. `rows` are journals times devices. Bytes are by tracemalloc.
"""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Iterator
from typing import Any, Final

from meshnode.core.holders import HOLDERS_MAX, Holders
from meshnode.core.identity import DeviceId, JournalId
from meshnode.core.intervals import Ranges
from meshnode.core.limits import AWAY_S_MAX

FLEETS: Final = (50, 500)
DAYS: Final = 10
BUNDLES: Final = 300
RUNS: Final = 15
#: Journals whose layers are made, which a node does of those that it has to choose from when it is full.
LAYERED: Final = 100
#: Different ways in which a journal is cut into runs.
_CUTS: Final = 257


def memory() -> Iterator[dict[str, Any]]:
    """The figures."""
    for fleet in FLEETS:
        chance = random.Random(fleet)
        cuts = [sorted(chance.sample(range(1, BUNDLES + 1), 2 * RUNS)) for _ in range(_CUTS)]
        away_s = {DeviceId(chance.randbytes(16)): chance.randrange(AWAY_S_MAX) for _ in range(fleet)}
        journals = [JournalId(chance.randbytes(16)) for _ in range(fleet * DAYS)]
        tracemalloc.start()
        holders = fill(away_s, journals, cuts)
        held, _ = tracemalloc.get_traced_memory()
        for journal in journals[:LAYERED]:
            holders.layers(journal)
        with_layers, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        ranges = sum(len(each.pairs) for journal in journals for _, each in holders.of(journal))
        facts = {"fleet": fleet, "journals": len(journals), "rows": len(holders), "ranges": ranges}
        yield {"figure": "holders_bytes", "value": held, "unit": "B"} | facts
        yield {
            "figure": "layers_bytes_per_journal",
            "value": (with_layers - held) // LAYERED,
            "unit": "B",
        } | facts


def fill(away_s: dict[DeviceId, int], journals: list[JournalId], cuts: list[list[int]]) -> Holders:
    """What a node knows that has heard of everything from everybody."""
    holders = Holders(lambda device: away_s[device])
    # Of those that are farther away nothing would be kept.
    nearest = sorted(away_s, key=lambda device: away_s[device])[: 2 * HOLDERS_MAX]
    for at, device in enumerate(nearest):
        note = holders.see if at % 2 else holders.hear
        for number, journal in enumerate(journals):
            cut = cuts[(at * len(journals) + number) % len(cuts)]
            note(journal, device, Ranges(zip(cut[::2], cut[1::2], strict=True)))
    return holders

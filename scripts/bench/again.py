"""Two nodes that hold the same many bundles: how long such a node takes to start, and what it costs to meet again."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import Final

from bench import limits
from bench.figures import Figure, figure
from bench.grounds import Grounds
from bench.limits import KIB
from bench.nodes import Node, Relay
from bench.shelves import JOURNALS, PAIR, shelf

SIZES: Final = {"10k": 10_000, "100k": 100_000, "1m": 1_000_000}
NEW: Final = 10
#: After this long, what a start still leaves to do is done.
SETTLE_S: Final = 1.0


def start(name: str, grounds: Grounds) -> Iterator[Figure]:
    """From the process's start until it listens, the first start left out; and the memory it has then."""
    folder = shelf(grounds, SIZES[name])
    listens, answers, resident, peak = [], [], [], []
    with grounds.nodes("siti", homes=folder) as (node,):
        for _ in range(1 + grounds.rounds):
            node.start()
            answers.append(time.monotonic() - node.started_s)
            listens.append(node.listens_s() - node.started_s)
            time.sleep(SETTLE_S)
            resident.append(limits.memory_mib(node.pid, "VmRSS"))
            peak.append(limits.memory_mib(node.pid, "VmHWM"))
            node.stop()
    more = {"bundles": SIZES[name], "answers_s": median(answers[1:])}
    yield figure(f"start_{name}", median(listens[1:]), "s", **more)
    yield figure(f"start_{name}_memory", median(resident[1:]), "MiB", peak_mib=median(peak[1:]))


def recontact(name: str, grounds: Grounds) -> Iterator[Figure]:
    """They meet again, first with nothing new, then with ten new messages of 1 KiB."""
    with grounds.nodes(*PAIR, homes=shelf(grounds, SIZES[name])) as (siti, budi):
        held = {"bundles": SIZES[name], "journals": JOURNALS}
        _meet(budi, siti, 0)  # caches, and what either remembers of the other from then on
        met = [_meet(budi, siti, 0) for _ in range(grounds.rounds)]
        outward, homeward = (median(way[at] for _, way in met) for at in (0, 1))
        ways = {"from_dialler": outward, "to_dialler": homeward}
        yield figure(f"recontact_{name}_bytes", max(outward, homeward), "bytes", **ways, **held)
        took_ms = [1000 * seconds for seconds, _ in met]
        yield figure(f"recontact_{name}_ms", median(took_ms), "ms", worst=max(took_ms), **held)

        beyond, took_ms = [], []
        for _ in range(grounds.rounds):
            seconds, way = _meet(budi, siti, NEW)
            own = _newest_size(budi.home / "store.db", NEW)
            beyond.append(sum(way) - own)
            took_ms.append(1000 * seconds)
        more = {
            "new": NEW,
            "own_bytes": own,
            "ms": median(took_ms),
            "from_dialler": way[0],
            "to_dialler": way[1],
        }
        yield figure(f"recontact_{name}_new_bytes", median(beyond), "bytes", **more, **held)


def _meet(dialler: Node, listener: Node, new: int) -> tuple[float, list[int]]:
    """Seconds from the connection to the last byte, and the bytes from and to who dialled, TLS included."""
    listener.start()
    if new:
        listener.submit([KIB] * new)
    relay = Relay(listener.port)
    dialler.start(relay.port)
    for node in (dialler, listener):
        node.contact_s()
    seconds = relay.wait_quiet()
    dialler.stop()
    listener.stop()
    return seconds, list(relay.sizes)


def _newest_size(store: Path, count: int) -> int:
    """Bytes of the bundles that came last."""
    with contextlib.closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True)) as reading:
        (size,) = reading.execute(
            "SELECT sum(length(header) + length(signature) + length(payload))"
            " FROM (SELECT * FROM bundle ORDER BY id DESC LIMIT ?)",
            (count,),
        ).fetchone()
    return int(size)


def at_each(
    measure: Callable[[str, Grounds], Iterator[Figure]],
) -> dict[str, Callable[[Grounds], Iterator[Figure]]]:
    """The same at each of SIZES, by the figure's name."""
    return {f"{measure.__name__}_{name}": partial(measure, name) for name in SIZES}

"""For how long an event loop was ever busy with one thing while contacts wait (`watching`): worst, and 99.9 of 100.

Steps count that begin between the contact's beginning and its end, so what a start takes is left out, but where it is
what is told.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from math import ceil, inf
from pathlib import Path
from typing import Any, Final

from bench.again import SIZES
from bench.figures import Figure, figure
from bench.grounds import Grounds
from bench.limits import KIB
from bench.nodes import run_contact
from bench.offices import KINDS, deliver
from bench.shelves import shelf
from bench.trading import MANY_8K, MANY_512K, ONE_256M

WORST_SHOWN: Final = 3
CONTACTS: Final = {"2,000 of 8 KiB": MANY_8K, "200 of 512 KiB": MANY_512K, "1 of 256 MiB": ONE_256M}


def _told(path: Path, from_s: float, to_s: float, name: str = "loop_blocked", **more: Any) -> Figure:
    """The line of what a watch has written, between two moments of the monotonic clock."""
    told = json.loads(path.read_text())
    steps = zip(told["ends_s"], told["took_s"], strict=True)
    took_ms = sorted(1000 * took_s for end_s, took_s in steps if from_s <= end_s - took_s <= to_s)
    slow = [each for each in told["long"] if from_s <= each[0] - each[1] <= to_s]
    slow.sort(key=lambda each: -each[1])
    worst = [
        {"ms": 1000 * took_s, "cpu_ms": 1000 * cpu_s, "task": task.removeprefix("meshnode.")}
        for _, took_s, cpu_s, task in slow[:WORST_SHOWN]
    ]
    at = ceil(0.999 * len(took_ms)) - 1
    value = took_ms[-1] if took_ms else None
    p999_ms = took_ms[at] if took_ms else None
    return figure(name, value, "ms", p999_ms=p999_ms, steps=len(took_ms), worst=worst, **more)


def loop_blocked(grounds: Grounds) -> Iterator[Figure]:
    """Sender and receiver, the office, and a start with 100,000 bundles. One round each: the worst is asked for."""
    paths = grounds.folder / "watch-1.json", grounds.folder / "watch-2.json"
    for what, sizes in CONTACTS.items():
        with grounds.nodes("siti", "budi") as (sender, receiver):
            run = run_contact(sender, receiver, list(sizes), paths)
            for node in (sender, receiver):
                node.stop()
        for side, path in zip(("sender", "receiver"), paths, strict=True):
            yield _told(path, run.start_s, run.start_s + run.seconds, node=side, messages=what)
    for what, name in (("1,000 of 8 KiB", "8k"), ("1 of 256 MiB", "256m")):
        with grounds.nodes("siti", "kantor") as (sender, office):
            met = deliver(sender, office, KINDS[name], paths)
            for node in (sender, office):
                node.stop()
        yield _told(paths[1], met.start_s, met.start_s + met.seconds, node="office", messages=what)
    yield from _starting(grounds, paths[0])


def _starting(grounds: Grounds, path: Path) -> Iterator[Figure]:
    """Up to when it listens, when nobody is served yet, and from then on."""
    with grounds.nodes("siti", homes=shelf(grounds, SIZES["100k"])) as (node,):
        node.start(watch=path)
        listens_s = node.listens_s()
        node.submit([KIB])
        node.stop()
    what = {"node": "just started", "messages": "100,000 in store"}
    yield _told(path, node.started_s, listens_s, "loop_blocked_before_listening", **what)
    yield _told(path, listens_s, inf, **what)

"""What the routing policy delivers: the real node over plans of contacts, beside other orders and what physics allows.

    {"scenario": name, "order": o, "conduct": c, "store_bytes": n, "seeds": [...], "delivered_share": v,
     "delivered_share_spread": w, "mean_delay_h": v, ...}

A FOLDER holds `contacts.csv`, `workload.csv` and `gateways.txt` (a name a line), or folders that do. Each value is the
mean over the seeds, its spread the greatest less the least. Delays are of all messages: one that is not delivered
counts as waiting to the end. A seed draws the nodes' keys, which decide ties, the liars, and the order `random`.

`--liars N` asks what members cost that take everything and hand nothing on. They are drawn from those that record
least, and the plan is run as each conduct has it:

    honest     like everybody
    absent     they are not there
    taking     they take, and tell the truth otherwise
    boasting   they also say that they stand beside an office

All four count the same messages: those of everybody else. So boasting against taking is the harm of the lie alone.

`oracle.json`, where it lies beside a plan, has bounds: `schedule` is a feasible schedule with foresight, `instant` what
infinite bandwidth would deliver; each with `ratio` (delivered share) and `mean_all` (seconds, as above).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any, Final

from bench.orders import ORDERS
from bench.routing_memory import memory

from meshnode.core.errors import MeshnodeError
from meshnode.sim.carrying import carry
from meshnode.sim.example import CONTACTS, WORKLOAD, write_example
from meshnode.sim.figures import figures_of
from meshnode.sim.machine import Machine
from meshnode.sim.plan import Plan, read_plan
from meshnode.sim.takers import Boaster, Taker

GATEWAYS: Final = "gateways.txt"
ORACLE: Final = "oracle.json"
STORE_BYTES: Final = 50_000_000
#: Liars are drawn from so many times as many, those that record least.
QUIET: Final = 3
KINDS: Final[dict[str, type[Machine]]] = {"honest": Machine, "taking": Taker, "boasting": Boaster}
CONDUCTS: Final = ["honest", "absent", "taking", "boasting"]
#: Names in `oracle.json`, and what the table calls them.
BOUNDS: Final = {"schedule": "foresight", "instant": "infinite"}

Figure = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Scenario:
    """A plan, and what `oracle.json` says of it if it is there."""

    name: str
    plan: Plan
    oracle: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Case:
    """What one line is about."""

    scenario: Scenario
    order: str
    conduct: str
    liars: int
    store_bytes: int


# --- one run --------------------------------------------------------------------------------------------------------


def liars_of(plan: Plan, count: int, seed: int) -> list[str]:
    """Who lies."""
    recorded = Counter(message.source for message in plan.messages)
    officers = [name for name in plan.nodes if name not in plan.gateways]
    quiet = sorted(officers, key=lambda name: (recorded[name], name))[: QUIET * count]
    return sorted(random.Random(seed).sample(quiet, min(count, len(quiet))))


def without(plan: Plan, names: Iterable[str]) -> Plan:
    """The plan as if nobody of these names were there."""
    gone = frozenset(names)
    return replace(
        plan,
        contacts=tuple(each for each in plan.contacts if not gone & {each.left, each.right}),
        messages=tuple(each for each in plan.messages if each.source not in gone),
    )


def run(case: Case, seed: int) -> dict[str, float]:
    """In a process of its own: run a plan once."""
    began_s = time.process_time()
    plan = case.scenario.plan
    liars = liars_of(plan, case.liars, seed)
    there = without(plan, liars) if case.conduct == "absent" else plan
    if not there.contacts:
        raise SystemExit(f"{case.scenario.name}: nobody meets but {', '.join(liars)}")
    try:
        carried = carry(
            there,
            store_bytes=case.store_bytes,
            until_s=plan.end_s,
            seed=seed,
            worth=ORDERS[case.order](seed),
            kinds=dict.fromkeys(liars, KINDS.get(case.conduct, Machine)),
        )
    except MeshnodeError as problem:  # such errors do not pass between processes
        raise SystemExit(f"{case.scenario.name}: {problem}") from None
    if carried.broken_off:
        raise SystemExit(
            f"{case.scenario.name}: {carried.broken_off} contacts were broken off: a fault of the nodes"
        )
    carried.fates = [fate for fate in carried.fates if fate.message.source not in liars]
    if not carried.fates:
        raise SystemExit(f"{case.scenario.name}: nobody but {', '.join(liars)} records anything")
    figures = figures_of(carried)
    return {
        "delivered_share": figures.delivered_share,
        "mean_delay_h": figures.mean_delay_s / 3600,
        "delivered_byte_share": figures.delivered_byte_share,
        "copies_per_delivered": figures.copies_per_delivered or 0.0,
        "moved_mb": figures.bytes_moved / 1e6,
        "cpu_s": time.process_time() - began_s,
    }


# --- all runs -------------------------------------------------------------------------------------------------------


def figures(cases: list[Case], seeds: list[int], jobs: int) -> Iterator[tuple[Case, Figure]]:
    """The lines, in the order of the cases, each as soon as it is known."""
    with ProcessPoolExecutor(jobs) as pool:
        futures = [[pool.submit(run, case, seed) for seed in seeds] for case in cases]
        for case, of_seeds in zip(cases, futures, strict=True):
            yield case, line(case, seeds, [future.result() for future in of_seeds])


def line(case: Case, seeds: list[int], runs: list[dict[str, float]]) -> Figure:
    """One line."""
    said: Figure = {"scenario": case.scenario.name, "order": case.order}
    if case.liars:
        said |= {"conduct": case.conduct, "liars": case.liars}
    said |= {"store_bytes": case.store_bytes, "seeds": seeds}
    for name in runs[0]:
        values = [each[name] for each in runs]
        said[name] = round(fmean(values), 4)
        if len(seeds) > 1 and name != "cpu_s":
            said[f"{name}_spread"] = round(max(values) - min(values), 4)
    return said


def scenarios(folders: list[Path]) -> Iterator[Scenario]:
    """The plans in these folders. Raises MeshnodeError or OSError: one cannot be read."""
    for folder in folders:
        found = [each for each in (folder, *sorted(folder.glob("*"))) if (each / CONTACTS).is_file()]
        if not found:
            raise SystemExit(f"scripts/bench/routing: no {CONTACTS} in {folder}, nor in a folder there")
        for each in found:
            plan = read_plan(each / CONTACTS, each / WORKLOAD, (each / GATEWAYS).read_text().split())
            oracle = each / ORACLE
            yield Scenario(each.name, plan, json.loads(oracle.read_text()) if oracle.is_file() else {})


def example(folder: Path) -> Path:
    """A made-up fleet."""
    gateways = write_example(folder, 0)
    (folder / GATEWAYS).write_text("\n".join(gateways) + "\n")
    return folder


# --- the table ------------------------------------------------------------------------------------------------------


def table(lines: list[tuple[Case, Figure]]) -> str:
    """All lines side by side; delivered share and mean hours also of the bounds."""
    heads = ["scenario", "order", "conduct", "delivered", "mean", "bytes", "copies", "moved", "CPU"]
    shown = [bound for bound in BOUNDS if any(bound in case.scenario.oracle for case, _ in lines)]
    rows = [heads + [BOUNDS[bound] for bound in shown]]
    for case, said in lines:
        cells = [case.scenario.name, case.order, case.conduct if case.liars else "-"]
        cells += [spread(said, "delivered_share", "%"), spread(said, "mean_delay_h", "h")]
        cells += [f"{said['delivered_byte_share']:.1%}", f"{said['copies_per_delivered']:.2f}"]
        cells += [f"{said['moved_mb']:.0f} MB", f"{said['cpu_s']:.0f} s"]
        rows.append(cells + [bounds(case.scenario.oracle.get(bound)) for bound in shown])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if at < 3 else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


def spread(said: Figure, name: str, unit: str) -> str:
    """A value, and how far its seeds are apart."""
    scale = 100 if unit == "%" else 1
    text = f"{said[name] * scale:.1f}"
    apart = said.get(f"{name}_spread")
    return f"{text} {unit}" if apart is None else f"{text} ({apart * scale:.1f}) {unit}"


def bounds(oracle: dict[str, float] | None) -> str:
    """What a bound says."""
    return f"{oracle['ratio']:.1%}  {oracle['mean_all'] / 3600:.1f} h" if oracle else "-"


# --- the command line -----------------------------------------------------------------------------------------------


def names(text: str) -> list[str]:
    """Orders, with commas."""
    found = list(ORDERS) if text == "all" else text.split(",")
    if unknown := set(found) - set(ORDERS):
        raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: not of {', '.join(ORDERS)}, all")
    return found


def numbers(text: str) -> list[int]:
    """Whole numbers, with commas."""
    return [natural(each) for each in text.split(",")]


def natural(text: str) -> int:
    """A whole number from 0 on."""
    if (number := int(text)) < 0:
        raise ValueError
    return number


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="scripts/bench/routing", description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "folders", nargs="*", type=Path, metavar="FOLDER", help="a plan, or a folder of plans"
    )
    parser.add_argument(
        "--orders", type=names, default=["gain"], metavar="A,B", help=f"{', '.join(ORDERS)}, all"
    )
    parser.add_argument(
        "--store-bytes", type=natural, default=STORE_BYTES, metavar="N", help="what each node carries"
    )
    parser.add_argument(
        "--seeds", type=numbers, default=[0], metavar="A,B", help="mean and spread are over these"
    )
    parser.add_argument(
        "--liars", type=natural, default=0, metavar="N", help="members that take and hand nothing on"
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="processes")
    parser.add_argument("--table", action="store_true", help="a table for people instead of JSON")
    parser.add_argument("--memory", action="store_true", help="instead, what it costs to know who holds what")
    said = parser.parse_args()
    if said.memory:
        for figure in memory():
            print(json.dumps(figure), flush=True)
        return
    conducts = CONDUCTS if said.liars else ["honest"]
    try:
        with tempfile.TemporaryDirectory() as made:
            plans = list(scenarios(said.folders or [example(Path(made) / "example")]))
    except (MeshnodeError, OSError, ValueError) as problem:
        sys.exit(f"scripts/bench/routing: {problem}")
    cases = [Case(*each, said.liars, said.store_bytes) for each in product(plans, said.orders, conducts)]
    lines: list[tuple[Case, Figure]] = []
    for case, figure in figures(cases, said.seeds, said.jobs):
        lines.append((case, figure))
        if not said.table:
            print(json.dumps(figure), flush=True)
    if said.table:
        print(table(lines))


if __name__ == "__main__":
    main()

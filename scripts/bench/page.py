"""The page `docs/speed.md`, made from the lines of a run; never edited by hand.

scripts/bench/page FILE      keep FILE as docs/speed.jsonl, and write the page from it
scripts/bench/page           write the page again from docs/speed.jsonl

Beside these figures stand some from before the last work on speed, as docs/speed-before.jsonl keeps them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from bench.comparing import shown
from bench.figures import MACHINE, ROOT, BadLines, Figure, key_of, read_file, to_line
from bench.goals import CARRIER, GOALS, LIMITS_THERE, OTHERS, PARTS, WHERE

LINES: Final = "speed.jsonl"
BEFORE: Final = "speed-before.jsonl"
PAGE: Final = "speed.md"


class Run:
    """The lines by their figure."""

    def __init__(self, lines: Iterable[Figure]) -> None:
        self.lines = [line for line in lines if line["figure"] != MACHINE]
        self.machine = next((line for line in lines if line["figure"] == MACHINE), None)

    def of(self, name: str) -> list[Figure]:
        """All of one name."""
        return [line for line in self.lines if line["figure"] == name]

    def shown(self, name: str) -> str:
        """The value of the one line of this name."""
        return next((shown(line["value"]) for line in self.of(name)), "-")


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]], right: Iterable[int]) -> Iterator[str]:
    """Markdown, numbers to the right."""
    yield f"| {' | '.join(head)} |"
    yield f"| {' | '.join('---:' if at in right else '---' for at in range(len(head)))} |"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def percent(ratio: float | None) -> str:
    """Of the limit."""
    return "" if ratio is None else f"{100 * ratio:.0f} %"


def named(line: Figure) -> list[str]:
    """What a line is of, for people, without its name."""
    if "contacts" in line:
        return ["in contact" if line["contacts"] else "alone"]
    return list(key_of(line)[1:])


def measured(line: Figure) -> str:
    """Its value, and what most are below where that is the worst."""
    most = line.get("p999_ms")
    most = "" if most in (None, line["value"]) else f" (99.9 % below {shown(most)})"
    return f"{shown(line['value'])} {line['unit']}{most}"


def shares(line: Figure) -> tuple[str, str]:
    """Of the limit, and of SQLite, where that is another one."""
    return percent(line.get("ratio")), percent(line.get("sqlite_ratio"))


def _goal_rows(run: Run) -> Iterator[tuple[str, ...]]:
    for goal in GOALS:
        wanted = f"{'at least' if goal.least else 'below'} {shown(goal.value)}"
        for line in run.of(goal.figure):
            said = "skipped" if line["value"] is None else "yes" if goal.is_reached(line) else "**no**"
            what = ", ".join([goal.what, *named(line)])
            yield what, measured(line), wanted, said, *shares(line)
        if not run.of(goal.figure):
            yield goal.what, "not measured", wanted, "", "", ""


def _skipped(run: Run) -> Iterator[str]:
    for line in run.lines:
        if line["value"] is None:
            yield f"\n`{line['figure']}` was skipped: {line.get('skipped', 'no reason is told')}."


def goals(run: Run) -> Iterator[str]:
    """The goals beside what was measured."""
    yield "## Goals\n"
    yield "The last columns: of what the machine itself could do at best, as the next table has it.\n"
    head = ("", "measured", "goal", "reached", "of raw TLS", "of raw SQLite")
    yield from table(head, _goal_rows(run), (1, 2, 4, 5))
    yield from _skipped(run)


def limits(run: Run) -> Iterator[str]:
    """What nothing can be faster than."""
    yield "\n## What the machine can do\n"
    names = {
        "raw_tls": "TLS 1.3 from one plain process to another",
        "raw_aead": "AES-256-GCM on one core, a TLS record at a time",
        "raw_sqlite": "rows that SQLite makes durable",
        "raw_files": "new files of 8 KiB that become durable, one after another",
        "raw_verify": "signatures verified on one core",
    }
    rows = []
    for name, what in names.items():
        for line in run.of(name):
            told = (
                f", {line['row_bytes'] // 1024} KiB each, {line['rows_per_commit']} a commit"
                if "row_bytes" in line
                else ""
            )
            rows.append((what + told, f"{shown(line['value'])} {line['unit']}"))
    yield from table(("", "measured"), rows, (1,))


def others(run: Run, before: Run) -> Iterator[str]:
    """Beside other systems."""
    yield "\n## Beside other systems\n"
    yield f"The others: {WHERE}; limits there: {LIMITS_THERE}. meshnode: this run.\n"
    again = "-"
    for line in run.of("recontact_10k_new_bytes"):
        again = f"{(line['own_bytes'] + line['value']) / 1000:.0f} kB, {line['ms'] / 1000:.2g} s"
    secured = "sealed and TLS, fsync"
    names = ("bundles_8k", "messages_512k_data", "message_256m_data")
    rows = [("**meshnode**", *map(run.shown, names), again, secured)]
    if before.lines:
        rows.append(("meshnode, before", *map(before.shown, names), "-", secured))
    rows += [(it.name, it.small, it.middle, it.large, it.again, it.kept) for it in OTHERS]
    head = (
        "",
        "8 KiB x 2,000: 1/s",
        "512 KiB x 200: MiB/s",
        "1 x 256 MiB: MiB/s",
        "10 new beside 10,000 in common",
        "secured, synced",
    )
    yield from table(head, rows, (1, 2, 3))


def microseconds(run: Run, before: Run) -> Iterator[str]:
    """Where a bundle's time goes."""
    cells = {(line["size"], line["part"]): dict(line) for line in run.of("profile")}
    for line in before.of("profile"):
        cells[line["size"], line["part"]]["before_us"] = line["cpu_us"]
    sizes = sorted({size for size, _ in cells})
    if not sizes:
        return
    yield "\n## Where one bundle's microseconds go\n"
    yield (
        "At who receives it, by parts in one process without sockets (`scripts/bench/profile`): of the clock, and"
        " of the CPU.\n"
    )

    heads = {"before_us": "before: CPU us", "cpu_us": "CPU us", "value": "us"}
    keys = [key for key in heads if all(key in cell for cell in cells.values())]

    def row(what: str, parts: tuple[str, ...]) -> tuple[str, ...]:
        of = [(size, key) for size in sizes for key in keys]
        return (what, *(shown(sum(cells[size, part][key] for part in parts)) for size, key in of))

    rows = [row(PARTS[part], (part,)) for part in CARRIER]
    rows.append(row("**all that a carrier does**", CARRIER))
    rows += [row(what, (part,)) for part, what in PARTS.items() if part not in CARRIER]
    head = ("", *(f"{size // 1024} KiB, {heads[key]}" for size in sizes for key in keys))
    yield from table(head, rows, range(1, len(head)))


def office(run: Run) -> Iterator[str]:
    """What an office sustains, and where its time goes."""
    kinds = {
        "office_8k": "messages of 8 KiB",
        "office_1mb": "messages of 1 MB",
        "office_256m": "one message of 256 MiB",
    }
    rows = []
    for name, what in kinds.items():
        for line in run.of(name):
            of_clock = (
                f"{100 * line[key] / line['seconds']:.0f} %" for key in ("cpu_s_loop", "cpu_s_threads")
            )
            data, messages = (f"{shown(line[key])}" for key in ("data_mib_s", "messages_s"))
            rows.append(
                (
                    what,
                    shown(line["value"]),
                    messages,
                    data,
                    *of_clock,
                    shown(line["written_mib"]),
                    percent(line.get("ratio")),
                )
            )
    if not rows:
        return
    yield "\n## The office\n"
    yield (
        "From the contact to the last receipt known to the sender: verify, store, open, hand to the directory sink,"
        " sign. A message of one file is two that have to be flushed. What neither its event loop nor its threads"
        " need a core for, it waits for the disk.\n"
    )
    head = (
        "",
        "bundles/s",
        "messages/s",
        "MiB/s",
        "loop: CPU",
        "threads: CPU",
        "MiB to the disk",
        "of raw files",
    )
    yield from table(head, rows, range(1, 8))


def rest(run: Run) -> Iterator[str]:
    """Every other line."""
    told = {goal.figure for goal in GOALS} | {"profile", "office_8k", "office_1mb", "office_256m"}
    rows = [
        (", ".join([line["figure"], *named(line)]), measured(line), *shares(line))
        for line in run.lines
        if line["figure"] not in told and not line["figure"].startswith("raw_")
    ]
    if rows:
        yield "\n## What else was measured\n"
        yield from table(("", "measured", "of the limit", "of raw SQLite"), rows, (1, 2, 3))


def write_page(lines: list[Figure], earlier: list[Figure]) -> str:
    """The page."""
    run, before = Run(lines), Run(earlier)
    said = ["# How fast meshnode is\n"]
    said.append(
        "Made by `scripts/bench/page` from `docs/speed.jsonl`, a run of `scripts/bench/run`; not to be edited. Two"
        " real daemons on loopback. What a figure is, `scripts/bench/contact.py` and its"
        " neighbours say.\n"
    )
    if run.machine is not None:
        told = run.machine
        said.append(
            f"Measured on {told['cores']} cores ({told['cpu']}), {told['kernel']}, Python {told['python']}, at"
            f" {told['commit']}; medians of {told['rounds']}.\n"
        )
    said.extend([*goals(run), *limits(run), *others(run, before), *microseconds(run, before)])
    said.extend([*office(run), *rest(run)])
    return "\n".join(said) + "\n"


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="scripts/bench/page", description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "lines", metavar="FILE", type=Path, nargs="?", help="a run's lines; kept beside the page"
    )
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", help="the folder of both (docs)")
    said = parser.parse_args()
    kept, earlier = said.docs / LINES, said.docs / BEFORE
    try:
        lines = read_file(said.lines or kept)
        before = read_file(earlier) if earlier.exists() else []
        said.docs.mkdir(parents=True, exist_ok=True)
        if said.lines is not None:
            kept.write_text("".join(f"{to_line(line)}\n" for line in lines))
        (said.docs / PAGE).write_text(write_page(lines, before))
    except BadLines as problem:
        sys.exit(f"scripts/bench/page: {problem}")
    except KeyError as problem:
        sys.exit(f"scripts/bench/page: a line lacks {problem}: it was made by another version")
    except OSError as problem:
        sys.exit(f"scripts/bench/page: cannot write to {said.docs}: {(problem.strerror or '').lower()}")


if __name__ == "__main__":
    main()

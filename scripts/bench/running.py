"""The whole set: every figure of `contact`, the parts of `profile`, and on what machine; and what has changed.

Lines go to stdout, so that `scripts/bench/run > FILE` keeps a run; the table of --against goes to stderr, or to stdout
where nothing is measured (--lines).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from bench.comparing import compare
from bench.contact import FIGURES, Measure, add_arguments, ground
from bench.figures import BadLines, Figure, machine, read_file, read_lines, to_line
from bench.grounds import Grounds
from bench.nodes import BenchFailed
from bench.profiling import profile


def _profile(grounds: Grounds) -> Iterator[Figure]:
    return profile(grounds.folder, grounds.rounds)


ALL: dict[str, Measure] = {**FIGURES, "profile": _profile}


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="scripts/bench/run", description="All figures, and what has changed."
    )
    parser.add_argument("--only", nargs="+", metavar="FIGURE", choices=ALL, help=", ".join(ALL))
    parser.add_argument(
        "--without", nargs="+", metavar="FIGURE", choices=ALL, default=[], help="leave these out"
    )
    add_arguments(parser)
    parser.add_argument(
        "--against", metavar="FILE", help="an earlier run's lines, to compare with; - for stdin"
    )
    parser.add_argument("--lines", metavar="FILE", type=Path, help="compare these instead of measuring")
    wanted = parser.parse_args()
    if wanted.lines is not None and wanted.against is None:
        parser.error("--lines says what to compare, and --against with what")
    return wanted


def measure(wanted: argparse.Namespace) -> Iterator[Figure]:
    """The lines, as they are measured. What could not be measured is said, and the rest goes on. Raises BenchFailed in
    the end, if there was any."""
    problems = []
    with ground(wanted) as grounds:
        for each in dict.fromkeys(ALL[name] for name in wanted.only or ALL if name not in wanted.without):
            try:
                yield from each(grounds)
            except BenchFailed as problem:
                problems.append(str(problem))
    yield machine(wanted.rounds)
    if problems:
        raise BenchFailed("; ".join(problems))


def main() -> None:
    """Measure, and compare."""
    wanted = arguments()
    try:
        before = None
        if wanted.against is not None:
            stdin = wanted.against == "-"
            before = read_lines(sys.stdin, "stdin") if stdin else read_file(Path(wanted.against))
        if wanted.lines is not None and before is not None:
            print("\n".join(compare(before, read_file(wanted.lines))))
            return
        lines = []
        for line in measure(wanted):
            print(to_line(line), flush=True)
            lines.append(line)
        if before is not None:
            some = bool(wanted.only or wanted.without)
            print(*compare(before, lines, some=some), sep="\n", file=sys.stderr)
    except (BadLines, BenchFailed) as problem:
        sys.exit(f"scripts/bench/run: {problem}")


if __name__ == "__main__":
    main()

"""What a contact costs: real daemons on loopback, measured from outside. One JSON line a figure (`figures`).

Values are medians of the rounds. Each round of a contact has two nodes that never met, on copies of two homes. How a
contact is timed, `nodes` says. `other_cpus` is what other programs took meanwhile: the clock of a busy machine says
little, the CPU seconds of either daemon say more.

    trading    much passes: bundles a second, MiB/s, memory       again     many bundles in common: start, contact
    first      until the first bundle has passed                  offices   until the last receipt is known
    blocking   how long an event loop is busy with one thing      resting   nothing happens; commands; the disk
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from bench import again, blocking, first, offices, resting, trading
from bench.figures import Figure, to_line
from bench.grounds import Grounds
from bench.nodes import BenchFailed

Measure = Callable[[Grounds], Iterator[Figure]]

#: What --only takes, in the order of running; some are measured together.
FIGURES: Final[dict[str, Measure]] = {
    **dict.fromkeys(("raw_tls", "raw_sqlite", "raw_files", "raw_aead", "raw_verify"), trading.raw),
    "bundles_8k": trading.bundles_8k,
    "submit_8k": trading.bundles_8k,
    "bundles_mixed": trading.bundles_mixed,
    "messages_512k": trading.messages_512k,
    "message_256m": trading.message_256m,
    "busy_memory": trading.busy_memory,
    "submit_1mb": trading.submit_1mb,
    "submit_256m": trading.submit_256m,
    "office": offices.office,
    "first_bundle_known": first.known,
    "first_bundle_mdns": first.mdns,
    **again.at_each(again.start),
    **again.at_each(again.recontact),
    "loop_blocked": blocking.loop_blocked,
    "help_cpu": resting.commands,
    "status_cpu": resting.commands,
    "idle": resting.idle,
    "installed_mib": resting.installed_mib,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How to measure."""
    parser.add_argument("--rounds", type=int, default=3, help="a figure is the median of so many (3)")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long `idle` looks (60)")
    parser.add_argument(
        "--dir",
        type=Path,
        help="where the homes are made: the disk that is measured; stores of many bundles stay there for the next time",
    )


@contextlib.contextmanager
def ground(wanted: argparse.Namespace) -> Iterator[Grounds]:
    """What the arguments say, ready to measure on; nothing is left behind but what --dir keeps."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    # An installed meshnode has its byte code; this checkout may be told not to write any.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    with tempfile.TemporaryDirectory(prefix="meshnode-bench-", dir=wanted.dir) as folder:
        os.environ["PYTHONPYCACHEPREFIX"] = f"{folder}/bytecode"
        yield Grounds(Path(folder), wanted.rounds, wanted.seconds, wanted.dir)


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(prog="scripts/bench/contact", description="What a contact costs.")
    parser.add_argument("--only", nargs="+", metavar="FIGURE", choices=FIGURES, help=", ".join(FIGURES))
    add_arguments(parser)
    wanted = parser.parse_args()
    try:
        with ground(wanted) as grounds:
            for measure in dict.fromkeys(FIGURES[name] for name in wanted.only or FIGURES):
                for line in measure(grounds):
                    print(to_line(line), flush=True)
    except BenchFailed as problem:
        sys.exit(f"scripts/bench/contact: {problem}")


if __name__ == "__main__":
    main()

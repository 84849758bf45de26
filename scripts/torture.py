"""Ill-treats a fleet of real daemons for many rounds, judges it, and says what became of it in one line of a table.

    scripts/torture kill --rounds 500     SIGKILL at random instants
    scripts/torture power --rounds 100    power cuts: what was not flushed is gone (root only)
    scripts/torture disk --rounds 50      disks that are full, read-only or broken (root only)
    scripts/torture rot --rounds 50       bytes that turn over and pages that are lost in a store at rest
    scripts/torture restore --rounds 20   stores that go back in time
    scripts/torture revoke --rounds 20    devices that are revoked while they work
    scripts/torture strangers --rounds 21    floods, forgers and fools at the door

The seed is printed first, and the same one draws the same faults. Exit code 1 when something was lost or came twice.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]

from tests.torture.outcome import HEADINGS, Outcome  # noqa: E402 - found only through the line above

#: Name to the module that has its `torture`.
TORTURES = {
    "kill": "tests.torture.kill",
    "power": "tests.torture.power",
    "disk": "tests.torture.disk",
    "rot": "tests.torture.rot",
    "restore": "tests.torture.restore",
    "revoke": "tests.torture.revoke",
    "strangers": "tests.torture.strangers",
}


@contextlib.contextmanager
def place(keep: Path | None) -> Iterator[Path]:
    """A new folder to work in, taken away afterwards unless it is to be kept."""
    if keep is not None:
        keep.mkdir(parents=True)
        yield keep
        return
    with tempfile.TemporaryDirectory(prefix="torture-") as folder:
        yield Path(folder)


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(prog="scripts/torture", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("name", choices=TORTURES)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="work in this new folder, and leave it")
    options = parser.parse_args()
    print(f"{options.name}, {options.rounds} rounds, seed {options.seed}", flush=True)
    torture = importlib.import_module(TORTURES[options.name]).torture
    with place(options.keep) as folder:
        outcome: Outcome = torture(options.rounds, options.seed, folder, lambda text: print(text, flush=True))
    for text in [*outcome.losses, *outcome.duplicates, *outcome.troubles]:
        print(text)
    print(" | ".join(HEADINGS))
    print(outcome.line())
    return 0 if outcome.is_good else 1


if __name__ == "__main__":
    sys.exit(main())

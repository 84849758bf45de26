"""Feeds one reader with bytes made up by atheris, which keeps those that reach something new.

    scripts/fuzz frame --runs 200000       one target (scripts/fuzz --list names them)
    scripts/fuzz node --seconds 60         a whole node

It begins with tests/corpus/TARGET; what it finds on the way it keeps in build/fuzz/TARGET, and an input that breaks
something there as crash-*. Put that into the corpus with the repair: the tests replay it for ever.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]


def main() -> int:
    """The exit code; atheris ends the process itself."""
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("target", nargs="?")
    parser.add_argument("--list", action="store_true", help="name the targets")
    parser.add_argument("--runs", type=int, default=-1)
    parser.add_argument("--seconds", type=int, default=0)
    parser.add_argument("--size", type=int, default=4096, help="longest input, in bytes")
    options = parser.parse_args()

    import atheris  # type: ignore[import-not-found, import-untyped, unused-ignore]

    with atheris.instrument_imports(include=["meshnode.core", "meshnode.drivers", "msgpack"]):
        from tests.targets import CORPUS, TARGETS, check

    if options.list or options.target not in TARGETS:
        print(*TARGETS, sep="\n")
        return 0 if options.list else 2
    target, found = TARGETS[options.target], ROOT / "build" / "fuzz" / options.target
    found.mkdir(parents=True, exist_ok=True)
    words = [
        f"-runs={options.runs}",
        f"-max_total_time={options.seconds}",
        f"-max_len={options.size}",
        f"-artifact_prefix={found}/",
        "-rss_limit_mb=1024",
        "-timeout=10",
        str(found),
        str(CORPUS / options.target),
    ]
    atheris.Setup([sys.argv[0], *words], lambda data: check(target, data))
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())

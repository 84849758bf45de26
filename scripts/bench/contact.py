"""What a contact costs: two real daemons on loopback, measured from outside. One JSON line a figure.

    {"figure": name, "value": v, "unit": u, "limit": what the machine could do or null, "ratio": v / limit, ...}

Values are medians of the rounds. Each round of a contact has two nodes that never met, on copies of two homes.

How a contact is timed, `nodes` says. `other_cpus` is what other programs took meanwhile: the clock of a busy machine
says little, the CPU seconds of either daemon say more.

Discovery is off and everything stays on loopback, so `idle_*` are without multicast.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

from bench import limits
from bench.limits import COPY_SIZE, KIB, MIB
from bench.nodes import CONTACT_MAX_S, BenchFailed, Node, Relay, Run, run_contact
from demo_nodes import COMMAND, Fleet

ROOT = Path(__file__).resolve().parents[2]
MEMBERS = {"kantor": "office", "siti": "officer", "budi": "officer"}
SETTLE_S = 5.0
#: What a payload of 8 KiB leaves for a file, beside the seal and the manifest.
FILE_8K = 8 * KIB - 1136 - 64
#: A daemon starts a journal each time it starts; two devices write half of these each.
SAME_JOURNALS = 12
SAME_PER_JOURNAL = 834

Figure = dict[str, Any]


# --- the figures ----------------------------------------------------------------------------------------------------


def figure(name: str, value: float | None, unit: str, limit: float | None = None, **more: Any) -> Figure:
    """One line."""
    ratio = value / limit if value is not None and limit else None
    return {"figure": name, "value": value, "unit": unit, "limit": limit, "ratio": ratio, **more}


class Bench:
    """The figures. Limits and runs that several of them need are measured once."""

    def __init__(self, folder: Path, rounds: int, seconds: float) -> None:
        """Found a fleet in the folder; its homes are what every run's nodes are copied from."""
        self.folder = folder
        self.rounds = rounds
        self.seconds = seconds
        self._numbers = itertools.count(1)
        self._fleet = Fleet(folder, MEMBERS)
        self._fleet.found("bench")

    @contextlib.contextmanager
    def _nodes(self, *names: str) -> Iterator[list[Node]]:
        nodes = []
        for name in names:
            home = self.folder / f"{name}-{next(self._numbers)}"
            shutil.copytree(self._fleet[name].home, home)
            nodes.append(Node(name, home))
        try:
            yield nodes
        finally:
            for node in nodes:
                node.stop()
                shutil.rmtree(node.home)

    @cache  # noqa: B019 - there is one Bench
    def _tls_mib_s(self) -> float:
        home = self._fleet["siti"].home
        member = limits.Credentials(home / "device.crt", home / "device.key", home / "authority.crt")
        return median(limits.tls_mib_s(member) for _ in range(self.rounds))

    @cache  # noqa: B019
    def _sqlite_rows_s(self, rows: int, size: int, at_once: int) -> float:
        return median(limits.sqlite_rows_s(self.folder, rows, size, at_once) for _ in range(self.rounds))

    @cache  # noqa: B019
    def _runs(self, sizes: tuple[int, ...]) -> list[Run]:
        runs = []
        for _ in range(self.rounds):
            with self._nodes("siti", "budi") as (sender, receiver):
                runs.append(run_contact(sender, receiver, list(sizes)))
        return runs

    def raw_tls(self) -> Iterator[Figure]:
        """TLS 1.3 from one plain process to another."""
        yield figure("raw_tls", self._tls_mib_s(), "MiB/s", copied_mib=COPY_SIZE // MIB)

    def raw_sqlite(self) -> Iterator[Figure]:
        """Rows that become durable."""
        for rows, size, at_once in ((4096, 8 * KIB, 64), (512, 256 * KIB, 16), (512, 8 * KIB, 1)):
            rate = self._sqlite_rows_s(rows, size, at_once)
            more = {"row_bytes": size, "rows_per_commit": at_once, "mib_s": rate * size / MIB}
            yield figure("raw_sqlite", rate, "rows/s", **more)

    def _contact(self, name: str, sizes: tuple[int, ...], sqlite_mib_s: float) -> Iterator[Figure]:
        """Bundles a second, and what of people's files; the limit is TLS at the same sizes."""
        runs = self._runs(sizes)
        bundles, seconds = runs[0].bundles, median(run.seconds for run in runs)
        payload_mib = runs[0].payload_bytes / MIB
        more = {
            "rounds_s": [run.seconds for run in runs],
            "payload_bytes": runs[0].payload_bytes / bundles,
            "sqlite_ratio": payload_mib / seconds / sqlite_mib_s,
            "cpu_s_sender": median(run.cpu_s[0] for run in runs),
            "cpu_s_receiver": median(run.cpu_s[1] for run in runs),
            "other_cpus": max(run.other_cpus for run in runs),
            "polls": median(run.polls for run in runs),
            "poll_ms": median(run.poll_ms for run in runs),
        }
        tls_mib_s = self._tls_mib_s()
        yield figure(name, bundles / seconds, "bundles/s", tls_mib_s * bundles / payload_mib, **more)
        yield figure(f"{name}_data", sum(sizes) / MIB / seconds, "MiB/s", tls_mib_s)

    def bundles_8k(self) -> Iterator[Figure]:
        """Many small messages of one size, and how fast they were taken before."""
        sizes = (FILE_8K,) * 2000
        yield from self._contact("bundles_8k", sizes, self._sqlite_rows_s(4096, 8 * KIB, 64) / 128)
        submit_s = median(run.submit_s for run in self._runs(sizes))
        yield figure("submit_8k", len(sizes) / submit_s, "messages/s", self._sqlite_rows_s(512, 8 * KIB, 1))

    def bundles_mixed(self) -> Iterator[Figure]:
        """As many, of sizes that all differ: the smallest go first, so their numbers come in no order."""
        sizes = tuple(FILE_8K - 2500 + at * 7919 % 5000 for at in range(2000))
        yield from self._contact("bundles_mixed", sizes, self._sqlite_rows_s(4096, 8 * KIB, 64) / 128)

    def messages_512k(self) -> Iterator[Figure]:
        """Messages of several bundles."""
        sizes = (512 * KIB,) * 200
        yield from self._contact("messages_512k", sizes, self._sqlite_rows_s(512, 256 * KIB, 16) / 4)

    def busy_memory(self) -> Iterator[Figure]:
        """The most memory that either daemon ever had: with many messages, and with a large one."""
        for what, sizes in (("200 of 512 KiB", (512 * KIB,) * 200), ("1 of 64 MiB", (64 * MIB,))):
            for side, at in (("sender", 0), ("receiver", 1)):
                peak_mib = median(run.peak_mib[at] for run in self._runs(sizes))
                yield figure("busy_memory", peak_mib, "MiB", node=side, messages=what)

    def submit_1mb(self) -> Iterator[Figure]:
        """One message of 1 MB until it is acknowledged."""
        with self._nodes("siti") as (node,):
            node.start()
            took_s, _ = node.submit([1_000_000] * 20 * self.rounds)
        yield figure("submit_1mb", 1000 * median(took_s), "ms", worst=1000 * max(took_s))

    def recontact(self) -> Iterator[Figure]:
        """Two nodes that hold the same bundles meet again, first with nothing new, then with ten new of 1 KiB."""
        with self._nodes("siti", "budi") as (siti, budi):
            self._make_same(siti, budi)
            yield self._meet_again("recontact_bytes", budi, siti, [])
            yield self._meet_again("recontact_bytes_10_new", budi, siti, [KIB] * 10)

    def _make_same(self, siti: Node, budi: Node) -> None:
        for journals in range(1, SAME_JOURNALS // 2 + 1):
            siti.start()
            budi.start(siti.port)
            pair = (siti, budi)
            work = [threading.Thread(target=node.submit, args=([KIB] * SAME_PER_JOURNAL,)) for node in pair]
            for thread in work:
                thread.start()
            for thread in work:
                thread.join()
            end_s = time.monotonic() + CONTACT_MAX_S
            while any(node.carrying()[0] < journals * SAME_PER_JOURNAL for node in pair):
                if time.monotonic() > end_s:
                    raise BenchFailed("the two do not come to hold the same")
                time.sleep(0.1)
            siti.stop()
            budi.stop()

    def _meet_again(self, name: str, dialler: Node, listener: Node, new: list[int]) -> Figure:
        """The limit is the payload of what is new."""
        took_s, outward, homeward, payload_bytes = [], [], [], 0
        for _ in range(self.rounds):
            listener.start()
            if new:
                listener.submit(new)
            relay = Relay(listener.port)
            dialler.start(relay.port)
            _, before_bytes = dialler.carrying()
            took_s.append(relay.wait_quiet())
            outward.append(relay.sizes[0])
            homeward.append(relay.sizes[1])
            payload_bytes = dialler.carrying()[1] - before_bytes
            dialler.stop()
            listener.stop()
        more = {"from_dialler": median(outward), "to_dialler": median(homeward), "seconds": median(took_s)}
        held = {"bundles": SAME_JOURNALS * SAME_PER_JOURNAL, "journals": SAME_JOURNALS, "new": len(new)}
        size = more["from_dialler"] + more["to_dialler"]
        return figure(name, size, "bytes", payload_bytes or None, **more, **held)

    def idle(self) -> Iterator[Figure]:
        """A daemon that has nothing to do, alone and with one contact, in the same minute."""
        with self._nodes("siti", "siti", "budi") as (lone, siti, budi):
            lone.start()
            siti.start()
            budi.start(siti.port)
            siti.contact_s()
            time.sleep(SETTLE_S)
            pids = (lone.pid, siti.pid)
            before = [(limits.cpu_s(pid), limits.switches(pid)) for pid in pids]
            time.sleep(self.seconds)
            for contacts, pid in enumerate(pids):
                cpu_s, switches = before[contacts]
                switched = sum(n - switches.get(task, 0) for task, n in limits.switches(pid).items())
                cpu = 100 * (limits.cpu_s(pid) - cpu_s) / self.seconds
                yield figure("idle_cpu", cpu, "%", contacts=contacts)
                yield figure("idle_memory", limits.memory_mib(pid, "VmRSS"), "MiB", contacts=contacts)
                yield figure("idle_switches", switched / self.seconds, "1/s", contacts=contacts)

    def commands(self) -> Iterator[Figure]:
        """CPU seconds of commands that are called many times a day."""
        with self._nodes("siti") as (node,):
            node.start()
            status = ["--home", str(node.home), "status"]
            for name, words in (("help_cpu", ["--help"]), ("status_cpu", status)):
                used_s = [limits.command_cpu_s([str(COMMAND), *words]) for _ in range(6)]
                yield figure(name, median(used_s[1:]), "s")  # the first one fills caches

    def installed_mib(self) -> Iterator[Figure]:
        """Disk that an installation takes, besides Python and pip."""
        empty, full = self.folder / "empty", self.folder / "full"
        for venv in (empty, full):
            subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
        words = [str(full / "bin" / "python"), "-m", "pip", "install", "--no-input", "--quiet", str(ROOT)]
        plain = {name: value for name, value in os.environ.items() if name != "PYTHONPYCACHEPREFIX"}
        done = subprocess.run(words, capture_output=True, text=True, check=False, env=plain)
        if done.returncode != 0:
            reason = (done.stderr.strip().splitlines() or ["pip failed"])[-1]
            yield figure("installed_mib", None, "MiB", skipped=reason)
            return
        size_mib = (limits.disk_size(full) - limits.disk_size(empty)) / MIB
        old, new = (next(venv.glob("lib/python*/site-packages")) for venv in (empty, full))
        parts = [part for part in new.iterdir() if part.is_dir() and not (old / part.name).exists()]
        sizes = sorted(((limits.disk_size(part) / MIB, part.name) for part in parts), reverse=True)
        yield figure(
            "installed_mib", size_mib, "MiB", largest={name: rounded(mib) for mib, name in sizes[:6]}
        )


#: What --only takes, in the order of running; some are measured together.
FIGURES: dict[str, Callable[[Bench], Iterator[Figure]]] = {
    "raw_tls": Bench.raw_tls,
    "raw_sqlite": Bench.raw_sqlite,
    "bundles_8k": Bench.bundles_8k,
    "submit_8k": Bench.bundles_8k,
    "bundles_mixed": Bench.bundles_mixed,
    "messages_512k": Bench.messages_512k,
    "busy_memory": Bench.busy_memory,
    "submit_1mb": Bench.submit_1mb,
    "recontact_bytes": Bench.recontact,
    "recontact_bytes_10_new": Bench.recontact,
    "help_cpu": Bench.commands,
    "status_cpu": Bench.commands,
    "idle": Bench.idle,
    "installed_mib": Bench.installed_mib,
}


def rounded(value: Any) -> Any:
    """Four digits are more than any of these is worth."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    return [rounded(item) for item in value] if isinstance(value, list) else value


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="scripts/bench/contact", description="What a contact costs.")
    parser.add_argument("--only", nargs="+", metavar="FIGURE", choices=FIGURES, help=", ".join(FIGURES))
    parser.add_argument("--rounds", type=int, default=3, help="a figure is the median of so many (3)")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long `idle` looks (60)")
    parser.add_argument("--dir", type=Path, help="where the homes are made: the disk that is measured")
    return parser.parse_args()


def main() -> None:
    """Measure, and leave nothing behind."""
    wanted = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    # An installed meshnode has its byte code; this checkout may be told not to write any.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    with tempfile.TemporaryDirectory(prefix="meshnode-bench-", dir=wanted.dir) as folder:
        os.environ["PYTHONPYCACHEPREFIX"] = f"{folder}/bytecode"
        try:
            bench = Bench(Path(folder), wanted.rounds, wanted.seconds)
            for measure in dict.fromkeys(FIGURES[name] for name in wanted.only or FIGURES):
                for line in measure(bench):
                    print(json.dumps({key: rounded(value) for key, value in line.items()}), flush=True)
        except BenchFailed as problem:
            sys.exit(f"scripts/bench/contact: {problem}")


if __name__ == "__main__":
    main()

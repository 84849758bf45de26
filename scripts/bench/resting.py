"""What a node costs that nothing happens to, what its commands cost, and what an installation takes of a disk.

Discovery is off and everything stays on loopback, so `idle_*` are without multicast (`alone` has that).
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from statistics import median

from bench import limits
from bench.figures import ROOT, Figure, figure, rounded
from bench.grounds import Grounds
from bench.limits import MIB
from demo_nodes import COMMAND

SETTLE_S = 5.0


def idle(grounds: Grounds) -> Iterator[Figure]:
    """A daemon that has nothing to do, alone and with one contact, in the same minute."""
    with grounds.nodes("siti", "siti", "budi") as (lone, siti, budi):
        lone.start()
        siti.start()
        budi.start(siti.port)
        siti.contact_s()
        time.sleep(SETTLE_S)
        pids = (lone.pid, siti.pid)
        before = [(limits.cpu_s(pid), limits.switches(pid)) for pid in pids]
        time.sleep(grounds.seconds)
        for contacts, pid in enumerate(pids):
            cpu_s, switches = before[contacts]
            switched = sum(n - switches.get(task, 0) for task, n in limits.switches(pid).items())
            cpu = 100 * (limits.cpu_s(pid) - cpu_s) / grounds.seconds
            yield figure("idle_cpu", cpu, "%", contacts=contacts)
            yield figure("idle_memory", limits.memory_mib(pid, "VmRSS"), "MiB", contacts=contacts)
            yield figure("idle_switches", switched / grounds.seconds, "1/s", contacts=contacts)


def commands(grounds: Grounds) -> Iterator[Figure]:
    """CPU seconds of commands that are called many times a day."""
    with grounds.nodes("siti") as (node,):
        node.start()
        status = ["--home", str(node.home), "status"]
        for name, words in (("help_cpu", ["--help"]), ("status_cpu", status)):
            used_s = [limits.command_cpu_s([str(COMMAND), *words]) for _ in range(6)]
            yield figure(name, median(used_s[1:]), "s")  # the first one fills caches


def installed_mib(grounds: Grounds) -> Iterator[Figure]:
    """Disk that an installation takes, besides Python and pip."""
    empty, full = grounds.folder / "empty", grounds.folder / "full"
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
    yield figure("installed_mib", size_mib, "MiB", largest={name: rounded(mib) for mib, name in sizes[:6]})

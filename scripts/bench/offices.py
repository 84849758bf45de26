"""An officer's node brings messages to the office: from the contact until the officer's node has the last receipt.

Between lies all that an office does: verify, store, open, hand to the sink (the default one, a directory), sign. The
officer's node is asked only now and then how many messages are delivered, after half of what the rest should take.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

from bench import limits
from bench.figures import Figure, figure
from bench.grounds import Grounds
from bench.limits import MIB
from bench.nodes import CONTACT_MAX_S, POLL_MAX_S, POLL_MIN_S, BenchFailed, Node
from bench.trading import FILE_8K, ONE_256M

KINDS: Final[dict[str, tuple[int, ...]]] = {
    "8k": (FILE_8K,) * 1000,
    "1mb": (1_000_000,) * 60,
    "256m": ONE_256M,
}


@dataclass(frozen=True)
class Delivery:
    """One contact with the office. `loop_cpu_s`: CPU of the office's event loop, `threads_cpu_s`: of its threads, which
    read, open, hand to the sink and commit. `written_mib`: what the office wrote to the disk."""

    start_s: float
    seconds: float
    bundles: int
    cpu_s_sender: float
    loop_cpu_s: float
    threads_cpu_s: float
    written_mib: float
    peak_mib: float


def deliver(
    sender: Node,
    office: Node,
    sizes: tuple[int, ...],
    watch: tuple[Path, Path] | tuple[None, None] = (None, None),
) -> Delivery:
    """Submit everything while the sender is alone, then bring the office, and wait."""
    sender.start(watch=watch[0])
    _, bundles = sender.submit(list(sizes))
    time.sleep(0.5)  # what the last commit leaves to do
    office.start(sender.port, watch=watch[1])
    start_s = sender.contact_s()
    cpu_s, loop_s, written = (
        limits.cpu_s(sender.pid),
        limits.threads_cpu_s(office.pid),
        limits.written_mib(office.pid),
    )
    done = 0
    while done < len(sizes):
        passed_s = time.monotonic() - start_s
        if passed_s > CONTACT_MAX_S:
            raise BenchFailed(f"{done} of {len(sizes)} messages are delivered after {CONTACT_MAX_S} s")
        rest_s = passed_s * (len(sizes) - done) / done if done else POLL_MAX_S
        time.sleep(min(POLL_MAX_S, max(POLL_MIN_S, rest_s / 2)))
        done = sender.messages("delivered")
    seconds = time.monotonic() - start_s
    after_s = limits.threads_cpu_s(office.pid)
    return Delivery(
        start_s=start_s,
        seconds=seconds,
        bundles=bundles,
        cpu_s_sender=limits.cpu_s(sender.pid) - cpu_s,
        loop_cpu_s=after_s[0] - loop_s[0],
        threads_cpu_s=after_s[1] - loop_s[1],
        written_mib=limits.written_mib(office.pid) - written,
        peak_mib=limits.memory_mib(office.pid, "VmHWM"),
    )


def office(grounds: Grounds) -> Iterator[Figure]:
    """Many messages of one bundle, messages of a registration's size, and the largest."""
    for name, sizes in KINDS.items():
        took = []
        for _ in range(grounds.rounds):
            with grounds.nodes("siti", "kantor") as (sender, receiver):
                took.append(deliver(sender, receiver, sizes))
        seconds = median(each.seconds for each in took)
        more = {
            "data_mib_s": sum(sizes) / MIB / seconds,
            "messages_s": len(sizes) / seconds,
            "cpu_s_sender": median(each.cpu_s_sender for each in took),
            "cpu_s_loop": median(each.loop_cpu_s for each in took),
            "cpu_s_threads": median(each.threads_cpu_s for each in took),
            "seconds": seconds,
            "written_mib": median(each.written_mib for each in took),
        }
        # a message becomes files, of which each has to be flushed: here one bundle's is one file, and its message.json
        limit = grounds.files_s() / 2 if name == "8k" else None
        yield figure(f"office_{name}", took[0].bundles / seconds, "bundles/s", limit, **more)
        peak_mib = median(each.peak_mib for each in took)
        what = {"8k": "1,000 of 8 KiB", "1mb": "60 of 1 MB", "256m": "1 of 256 MiB"}[name]
        yield figure("busy_memory", peak_mib, "MiB", node="office", messages=what)

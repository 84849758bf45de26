"""Contacts in which much passes: how fast, and how much memory that takes. And how fast messages were taken before."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from bench import limits
from bench.figures import Figure, figure
from bench.grounds import Grounds
from bench.limits import COPY_SIZE, KIB, MIB
from bench.nodes import Node, random_pieces
from demo_nodes import COMMAND, environment

#: What a payload of 8 KiB leaves for a file, beside the seal and the manifest.
FILE_8K = 8 * KIB - 1136 - 64
MANY_8K = (FILE_8K,) * 2000
MANY_512K = (512 * KIB,) * 200
ONE_256M = (256 * MIB,)


def raw(grounds: Grounds) -> Iterator[Figure]:
    """What the machine can do: TLS between plain processes, rows and files that become durable, cryptography."""
    yield figure("raw_tls", grounds.tls_mib_s(), "MiB/s", copied_mib=COPY_SIZE // MIB)
    for rows, size, at_once in ((4096, 8 * KIB, 64), (512, 256 * KIB, 16), (512, 8 * KIB, 1)):
        rate = grounds.sqlite_rows_s(rows, size, at_once)
        more = {"row_bytes": size, "rows_per_commit": at_once, "mib_s": rate * size / MIB}
        yield figure("raw_sqlite", rate, "rows/s", **more)
    yield figure("raw_files", grounds.files_s(), "files/s")
    yield figure("raw_aead", median(limits.aead_mib_s() for _ in range(grounds.rounds)), "MiB/s")
    yield figure("raw_verify", median(limits.verify_s() for _ in range(grounds.rounds)), "verifications/s")


def _contact(grounds: Grounds, name: str, sizes: tuple[int, ...], sqlite_mib_s: float) -> Iterator[Figure]:
    """Bundles a second, and what of people's files; the limit is TLS at the same sizes."""
    runs = grounds.runs(sizes)
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
    tls_mib_s = grounds.tls_mib_s()
    yield figure(name, bundles / seconds, "bundles/s", tls_mib_s * bundles / payload_mib, **more)
    data_mib_s = sum(sizes) / MIB / seconds
    yield figure(f"{name}_data", data_mib_s, "MiB/s", tls_mib_s, sqlite_ratio=data_mib_s / sqlite_mib_s)


def bundles_8k(grounds: Grounds) -> Iterator[Figure]:
    """Many small messages of one size, and how fast they were taken before."""
    yield from _contact(grounds, "bundles_8k", MANY_8K, grounds.sqlite_rows_s(4096, 8 * KIB, 64) / 128)
    submit_s = median(run.submit_s for run in grounds.runs(MANY_8K))
    limit = grounds.sqlite_rows_s(512, 8 * KIB, 1)
    yield figure("submit_8k", len(MANY_8K) / submit_s, "messages/s", limit)


def bundles_mixed(grounds: Grounds) -> Iterator[Figure]:
    """As many, of sizes that all differ: the smallest go first, so their numbers come in no order."""
    sizes = tuple(FILE_8K - 2500 + at * 7919 % 5000 for at in range(2000))
    yield from _contact(grounds, "bundles_mixed", sizes, grounds.sqlite_rows_s(4096, 8 * KIB, 64) / 128)


def messages_512k(grounds: Grounds) -> Iterator[Figure]:
    """Messages of several bundles."""
    yield from _contact(grounds, "messages_512k", MANY_512K, grounds.sqlite_rows_s(512, 256 * KIB, 16) / 4)


def message_256m(grounds: Grounds) -> Iterator[Figure]:
    """The largest message that there is."""
    yield from _contact(grounds, "message_256m", ONE_256M, grounds.sqlite_rows_s(512, 256 * KIB, 16) / 4)


def busy_memory(grounds: Grounds) -> Iterator[Figure]:
    """The most memory that either daemon ever had: with many messages, and with the largest."""
    for what, sizes in (("200 of 512 KiB", MANY_512K), ("1 of 256 MiB", ONE_256M)):
        runs = grounds.runs(sizes)
        peaks = {
            "submitter": [run.submit_peak_mib for run in runs],
            "sender": [run.peak_mib[0] for run in runs],
            "receiver": [run.peak_mib[1] for run in runs],
        }
        for side, peak_mib in peaks.items():
            yield figure("busy_memory", median(peak_mib), "MiB", node=side, messages=what)


def submit_1mb(grounds: Grounds) -> Iterator[Figure]:
    """One message of 1 MB until it is acknowledged."""
    with grounds.nodes("siti") as (node,):
        node.start()
        took_s, _ = node.submit([1_000_000] * 20 * grounds.rounds)
    yield figure("submit_1mb", 1000 * median(took_s), "ms", worst=1000 * max(took_s))


def submit_256m(grounds: Grounds) -> Iterator[Figure]:
    """The largest message by the command, and the most memory that the command ever had."""
    path = grounds.folder / "record.bin"
    with path.open("wb") as file:
        file.writelines(random_pieces(256 * MIB))
    rates, peaks = [], []
    for _ in range(grounds.rounds):
        with grounds.nodes("siti") as (node,):
            node.start()
            took_s, peak_mib = _submit_by_command(node, path)
            rates.append(256 / took_s)
            peaks.append(peak_mib)
    path.unlink()
    yield figure("submit_256m", median(rates), "MiB/s")
    yield figure("busy_memory", median(peaks), "MiB", node="meshnode submit", messages="1 of 256 MiB")


def _submit_by_command(node: Node, path: Path) -> tuple[float, float]:
    """Seconds until it returned, and the most memory in MiB that it ever had."""
    words = [str(COMMAND), "--home", str(node.home), "submit", str(path)]
    quiet = subprocess.DEVNULL
    seconds, used = limits.command_use(words, env=environment(), stdin=quiet, stdout=quiet)
    # what a program is given at its start by the one that starts it counts too, so that has to be small
    return seconds, used.ru_maxrss / KIB

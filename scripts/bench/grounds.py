"""What all figures of contacts stand on: a fleet whose homes are copied, and what the machine can do at best."""

from __future__ import annotations

import contextlib
import itertools
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from statistics import median

from bench import limits
from bench.nodes import Node, Run, run_contact
from demo_nodes import Fleet

MEMBERS = {"kantor": "office", "siti": "officer", "budi": "officer"}


class Grounds:
    """A fleet, and limits and runs that several figures need, measured once. `keep`: a folder for what is costly to
    make and outlives this run, if there is one."""

    def __init__(self, folder: Path, rounds: int, seconds: float, keep: Path | None = None) -> None:
        """Found a fleet in the folder; its homes are what every run's nodes are copied from."""
        self.folder = folder
        self.keep = keep or folder
        self.rounds = rounds
        self.seconds = seconds
        self._numbers = itertools.count(1)
        self._fleet = Fleet(folder, MEMBERS)
        self._fleet.found("bench")

    def home(self, name: str) -> Path:
        """A member's home, to be copied."""
        return self._fleet[name].home

    @contextlib.contextmanager
    def nodes(self, *names: str, homes: Path | None = None) -> Iterator[list[Node]]:
        """New nodes on copies of these homes (of those below `homes`, if given), which are gone in the end."""
        nodes = []
        for name in names:
            home = self.folder / f"{name}-{next(self._numbers)}"
            shutil.copytree(self.home(name) if homes is None else homes / name, home)
            nodes.append(Node(name, home))
        try:
            yield nodes
        finally:
            for node in nodes:
                node.stop()
                shutil.rmtree(node.home)

    @cache  # noqa: B019 - there is one
    def tls_mib_s(self) -> float:
        """TLS 1.3 from one plain process to another."""
        home = self.home("siti")
        member = limits.Credentials(home / "device.crt", home / "device.key", home / "authority.crt")
        return median(limits.tls_mib_s(member) for _ in range(self.rounds))

    @cache  # noqa: B019
    def sqlite_rows_s(self, rows: int, size: int, at_once: int) -> float:
        """Rows that become durable."""
        return median(limits.sqlite_rows_s(self.folder, rows, size, at_once) for _ in range(self.rounds))

    @cache  # noqa: B019
    def files_s(self) -> float:
        """Files that become durable."""
        return median(limits.files_s(self.folder) for _ in range(self.rounds))

    @cache  # noqa: B019
    def runs(self, sizes: tuple[int, ...]) -> list[Run]:
        """Contacts in which messages of these sizes pass."""
        runs = []
        for _ in range(self.rounds):
            with self.nodes("siti", "budi") as (sender, receiver):
                runs.append(run_contact(sender, receiver, list(sizes)))
        return runs

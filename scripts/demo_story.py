"""A day in the hamlets, with four real nodes on this machine; `scripts/demo` runs it.

Siti registers people where there is no internet. Budi passes by and carries her records to the office; her
battery dies meanwhile. Dewi meets the office, later Siti, and brings her the proof that all arrived. Every
step is checked: byte for byte at the office, and by a search of the raw bytes of whatever the officers'
devices hold. Exits with 0 only when all of it came true.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from demo_checks import KIND, Record, find, handed_on, office_problems, secrets_of
from demo_nodes import DemoFailed, Fleet, Node, NotRunningYet
from demo_people import People

MEMBERS = {"kantor": "office", "siti": "officer", "budi": "officer", "dewi": "officer"}
MEETS = {"siti": "budi dewi", "budi": "siti kantor", "dewi": "siti kantor", "kantor": "budi dewi"}


class Story:
    """The four chapters, in order, and what is known so far."""

    def __init__(self, folder: Path, fleet: Fleet, registration_count: int, seed: int) -> None:
        self.started_s = time.monotonic()
        self.started_ms = time.time_ns() // 1_000_000
        self.folder = folder
        self.fleet = fleet
        self.sink = folder / "office-sink"
        self.people = People(seed)
        self.registration_count = registration_count
        self.records: dict[str, Record] = {}
        self.device_ids: dict[str, str] = {}

    def tell(self) -> None:
        """All of it; raises DemoFailed at the first thing that is not as promised."""
        self.found()
        self.alone_in_the_hamlet()
        self.budi_passes_by()
        self.budi_reaches_the_office()
        self.dewi_brings_the_proof()
        self.nobody_else_could_read_it()
        self.fleet["siti"].stop()
        self.fleet["dewi"].stop()
        self.table()

    # --- the chapters ---------------------------------------------------------------------------------

    def found(self) -> None:
        """The fleet is founded; who may meet whom is written into each config.toml."""
        self.say("The authority founds the fleet and admits one office and three officers.", heading=True)
        self.fleet.found("tasikmalaya")
        for name, others in MEETS.items():
            peers = [self.fleet[other] for other in others.split()]
            self.fleet[name].configure(peers, self.sink if name == "kantor" else None)

    def alone_in_the_hamlet(self) -> None:
        """Siti takes all registrations with nobody near."""
        count = self.registration_count
        self.say(f"{self.people.place}: no internet, no colleague. Siti takes {count} registrations.", True)
        siti = self.switch_on("siti")
        for _ in range(count):
            self.take(siti)
        status = siti.ask("status")
        self.expect_messages(
            "siti", status, submitted=count, on_this_device_only=count, carried=0, delivered=0
        )
        size_bytes = sum(record.registration.size_bytes for record in self.records.values())
        bundles = sum(record.bundles for record in self.records.values())
        self.say(f"Siti: {counts(status)} ({size_bytes / 1e6:.1f} MB in {bundles} bundles)")

    def budi_passes_by(self) -> None:
        """Budi's daemon comes up; everything is copied to it, and it can read none of it."""
        self.say("Budi passes by on his motorbike. Nobody presses a button.", heading=True)
        siti, budi = self.fleet["siti"], self.switch_on("budi")
        self.wait_for_state(siti, "carried", "carried")
        status = siti.ask("status")
        count = self.registration_count
        self.expect_messages(
            "siti", status, submitted=count, on_this_device_only=0, carried=count, delivered=0
        )
        self.say(f"Siti: {counts(status)}")
        carrying = budi.ask("status")["carrying"]
        bundles = sum(record.bundles for record in self.records.values())
        if (carrying["bundles"], carrying["sources"]) != (bundles, 1):
            raise DemoFailed(f"Budi should carry {bundles} bundles from 1 source, but carries {carrying}")
        self.say(f"Budi: carries {bundles} bundles, {carrying['bytes'] / 1e6:.1f} MB, for 1 colleague")
        self.say(f"searched every byte in both devices: {self.search('siti', 'budi')}")

    def budi_reaches_the_office(self) -> None:
        """Siti's device is dead; the office gets everything from Budi, whole and once."""
        self.say("Siti's battery dies. Budi rides on and reaches the office.", heading=True)
        self.fleet["siti"].kill()
        budi = self.fleet["budi"]
        self.switch_on("kantor")
        self.wait_for_office()
        self.check_office()
        count = len(self.records)
        self.say(f"office: {count} of {count} registrations, each once, all files identical")
        self.fleet.wait(
            "Budi has nothing left to carry", lambda: budi.ask("status")["carrying"]["bundles"] == 0
        )
        self.say("Budi: has the office's receipts, carries nothing any more, and his space is free again")

    def dewi_brings_the_proof(self) -> None:
        """Dewi learns the receipts at the office and hands them to Siti, who meets nobody else."""
        self.say("Dewi hands in a registration of her own at the office, and hears what else arrived.", True)
        dewi = self.switch_on("dewi")
        own = self.take(dewi)
        self.wait_for_office()
        self.wait_for_state(dewi, "delivered", "confirmed")
        self.check_office()
        self.say(f"Dewi: {own.registration.reference} is safe at the office")
        self.fleet["kantor"].stop()
        self.fleet["budi"].stop()

        self.say("The office closes and Budi goes home. Siti has power again and meets Dewi.", heading=True)
        siti = self.switch_on("siti")
        self.wait_for_state(siti, "delivered", "confirmed")
        status, count = siti.ask("status"), self.registration_count
        self.expect_messages(
            "siti", status, submitted=count, on_this_device_only=0, carried=0, delivered=count
        )
        self.say(f"Siti: {counts(status)}")
        self.check_office()

    def nobody_else_could_read_it(self) -> None:
        """Search every officer's device again, and the office's folder, to know that the search can find."""
        self.say("Who can read it?", heading=True)
        self.say(f"the officers' devices: {self.search('siti', 'budi', 'dewi')}")
        pieces = secrets_of(self.records.values())
        found, _ = find(self.sink, pieces)
        if missing := pieces.keys() - {what for what, _ in found}:
            raise DemoFailed(f"the same search should find all in {self.sink}, but not {min(missing)}")
        self.say(f"the office's folder:   the same search finds all {len(pieces)}")

    # --- what the chapters do -------------------------------------------------------------------------

    def switch_on(self, name: str) -> Node:
        """Start a node and remember its device id."""
        device = self.fleet.switch_on(name)["device"]
        if device["name"] != name:
            raise DemoFailed(f"the node of {name} says that it is {device['name']}")
        self.device_ids[name] = device["id"]
        return self.fleet[name]

    def take(self, node: Node) -> Record:
        """Register one person on a device; the originals are deleted once the node has taken them."""
        registration = self.people.registration(len(self.records) + 1, self.folder / "originals" / node.name)
        answer = node.ask(
            "submit",
            *registration.files,
            "--kind",
            KIND,
            "--meta",
            f"nik={registration.person.nik}",
            "--reference",
            registration.reference,
        )
        record = Record(registration, node.name, self.device_ids[node.name], answer["key"], answer["bundles"])
        if record.key in self.records:
            raise DemoFailed(f"two messages have the same key {record.key}")
        self.records[record.key] = record
        record.times_s["taken"] = self.elapsed_s()
        shutil.rmtree(registration.folder)
        return record

    def wait_for_state(self, node: Node, state: str, column: str) -> None:
        """Until `meshnode messages` on that node shows all of its own in `state`; notes when, in `column`."""
        own = {key: record for key, record in self.records.items() if record.officer == node.name}

        def all_there() -> bool:
            rows = {row["key"]: row for row in node.ask("messages")}
            if lost := own.keys() - rows.keys():
                raise DemoFailed(f"{node.name} no longer knows of {min(lost)}, {len(lost)} in all")
            for key, record in own.items():
                if rows[key]["state"] == state:
                    record.times_s.setdefault(column, self.elapsed_s())
            return all(column in record.times_s for record in own.values())

        self.fleet.wait(f"all {len(own)} messages of {node.name} are {state}", all_there)

    def wait_for_office(self) -> None:
        """Until the office's folder has every record; notes when."""

        def all_there() -> bool:
            for document, _ in handed_on(self.sink):
                if document["key"] in self.records:
                    self.records[document["key"]].times_s.setdefault("at the office", self.elapsed_s())
            return all("at the office" in record.times_s for record in self.records.values())

        self.fleet.wait(f"the office has all {len(self.records)} registrations", all_there)

    def check_office(self) -> None:
        """Every registration lies there once, byte for byte, with all that was said of it."""
        for problem in office_problems(self.sink, self.records, self.started_ms):
            raise DemoFailed(problem)

    def expect_messages(self, name: str, status: dict[str, Any], **expected: int) -> None:
        """The counts of `status` are exactly these."""
        if {word: status["messages"][word] for word in expected} != expected:
            raise DemoFailed(f"{name} should show {expected}, but shows {status['messages']}")

    def search(self, *names: str) -> str:
        """Fail if anything of a registration is readable in these nodes' homes; else the story's words."""
        pieces = secrets_of(self.records.values())
        size_bytes = 0
        for name in names:
            found, home_bytes = find(self.fleet[name].home, pieces)
            for what, path in found:
                raise DemoFailed(f"{what} is readable in {path}")
            size_bytes += home_bytes
        return f"none of {len(pieces)} names, numbers and pieces of files, in {size_bytes / 1e6:.1f} MB"

    # --- what the reader sees -------------------------------------------------------------------------

    def elapsed_s(self) -> float:
        """Seconds since the demo began."""
        return time.monotonic() - self.started_s

    def say(self, text: str, heading: bool = False) -> None:
        """One line of the story."""
        if heading:
            print(f"\n{bold(f'{self.elapsed_s():5.1f} s  {text}')}", flush=True)
        else:
            print(f"         {text}", flush=True)

    def table(self) -> None:
        """Every registration and when it was where, in seconds since the demo began."""
        moments = ("taken", "carried", "at the office", "confirmed")
        head = ["no", "officer", "person", "kind", "size", *moments]
        rows = [
            [
                str(record.registration.number),
                record.officer,
                record.registration.person.name,
                KIND,
                f"{record.registration.size_bytes / 1000:.0f} kB",
                *(f"{record.times_s[name]:.1f} s" if name in record.times_s else "-" for name in moments),
            ]
            for record in self.records.values()
        ]
        widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
        left = {1, 2, 3}

        def line(cells: list[str]) -> str:
            pairs = enumerate(zip(cells, widths, strict=True))
            return "  ".join(cell.ljust(w) if i in left else cell.rjust(w) for i, (cell, w) in pairs).rstrip()

        print("\n" + "\n".join([bold(line(head)), *map(line, rows)]))
        print(
            f"\n{green('All true:')} {len(rows)} registrations taken, {len(rows)} at the office once and "
            f"identical, {len(rows)} confirmed, 0 readable on the way, in {self.elapsed_s():.1f} s."
        )


def counts(status: dict[str, Any]) -> str:
    """An officer's line: where her messages are."""
    words = {
        "on_this_device_only": "on this device only",
        "carried": "carried",
        "delivered": "safe at the office",
    }
    messages = status["messages"]
    parts = [f"{messages['submitted']} taken", *(f"{messages[key]} {word}" for key, word in words.items())]
    return ", ".join(parts)


def coloured() -> bool:
    """Whether stdout is a terminal whose reader has not asked for plain text."""
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"


def bold(text: str) -> str:
    """The text, bold where that can be shown."""
    return f"\x1b[1m{text}\x1b[0m" if coloured() else text


def green(text: str) -> str:
    """The text, green where that can be shown."""
    return f"\x1b[32m{text}\x1b[0m" if coloured() else text


@contextlib.contextmanager
def workplace(keep: Path | None) -> Iterator[Path]:
    """A folder for all files of the demo: a temporary one, or one that stays."""
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="meshnode-demo-") as folder:
            yield Path(folder)
        return
    keep.mkdir(parents=True, exist_ok=True)
    if any(keep.iterdir()):
        raise DemoFailed(f"{keep} is not empty: give --keep a new folder")
    try:
        yield keep.resolve()
    finally:
        print(f"Kept in {keep}: homes, logs, authority, and what the office got.")


def ended(number: int, frame: object) -> NoReturn:
    """A signal ends the demo as an exception, so that its nodes are ended too."""
    raise SystemExit(128 + number)


def main() -> int:
    """Run the demo; the exit code."""
    parser = argparse.ArgumentParser(
        prog="scripts/demo", description="A day in the hamlets, with four real nodes."
    )
    parser.add_argument(
        "--keep", type=Path, metavar="DIR", help="work in DIR (new or empty) and leave all there"
    )
    parser.add_argument("--registrations", type=int, default=12, metavar="N", help="how many Siti takes (12)")
    parser.add_argument("--seed", type=int, default=3206, help="other people for another number")
    arguments = parser.parse_args()
    if not 1 <= arguments.registrations <= 999:
        parser.error("--registrations is from 1 to 999")
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, ended)
    try:
        with workplace(arguments.keep) as folder, Fleet(folder, MEMBERS) as fleet:
            print(f"meshnode demo: four real nodes on loopback, all files in {folder}")
            Story(folder, fleet, arguments.registrations, arguments.seed).tell()
    except (DemoFailed, NotRunningYet) as exc:
        print(f"\nscripts/demo failed: {exc}", file=sys.stderr)
        if arguments.keep is None:
            print("scripts/demo --keep DIR leaves all files in DIR, to look into", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nscripts/demo: interrupted; all of its nodes are ended", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Disks that rot: bytes of a store turn over and pages of it are lost, at rest, and then it is started and salvaged.

`Shelf` is a home whose store was filled without a daemon, so that hundreds of bundles take a second; of each it knows
on which pages of the file it lies, and so what has to be rescued whatever happens to the others. `torture` does the
same to the home of a real daemon whose colleague carries all that it has submitted.
"""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from meshnode.app.home import Home
from meshnode.app.report import shut_label
from meshnode.app.salvage import Summary, salvage
from meshnode.core.bundle import ROUTINE, Bundle, Header, journal_id, sign_bundle
from meshnode.core.errors import StoreTooNew, StoreTrouble
from meshnode.core.identity import JournalId, SigningKey, issue_certificate, read_certificate
from meshnode.core.intervals import Ranges
from meshnode.core.limits import LIFETIME_S
from meshnode.core.receipt import issue_receipt
from meshnode.core.rows import (
    DropBundles,
    PutBundle,
    PutCertificate,
    PutMessage,
    PutReceipt,
    Row,
    StoredBundle,
)
from meshnode.core.sealing import Drawer
from meshnode.drivers.sqlite import SqliteStore
from meshnode.drivers.sqlite.heads import HEAD_SIZE, SLOT_SIZE, slots_of
from meshnode.drivers.sqlite.pages import Pages
from meshnode.drivers.sqlite.schema import PAGE_SIZE
from tests.app.fleets import Fleet, Node, posted
from tests.torture.outcome import Outcome, Say

Place = tuple[JournalId, int]
#: A file, and a stretch of PAGE_SIZE in it; they count from 1.
Page = tuple[Path, int]


class _Watched(Pages):
    """Notes which pages were looked at."""

    def __init__(self, path: Path) -> None:
        self.seen: list[int] = []
        super().__init__(path)

    def page(self, number: int) -> bytes:
        self.seen.append(number)
        return super().page(number)


@dataclass
class Lot:
    """What one source has written into a store."""

    key: SigningKey
    journal: JournalId
    epoch: bytes
    parts: int


class Shelf:
    """A home with a store full of bundles: of this device, and of `sources` others."""

    def __init__(self, fleet: Fleet, dice: random.Random, *, messages: int, sources: int = 8) -> None:
        node = fleet.enroll(f"shelf-{dice.randrange(10**9)}")
        self.home = Home(node.home)
        self.node = node
        self.membership = self.home.load()
        self.dice = dice
        document = fleet.authority().document
        self.endpoint = document.endpoints[0]
        self.certificates = [node.device]
        self.bundles: dict[Place, Bundle] = {}
        self.own: dict[Place, PutMessage] = {}
        self.delivered: set[Place] = set()
        self._fill(fleet, messages, sources)
        self.data = {path: path.read_bytes() for path in self.files}
        self.pages = dict(self._lie())

    @property
    def path(self) -> Path:
        """The store."""
        return self.home.store_path

    @property
    def files(self) -> list[Path]:
        """Its files."""
        return files_of(self.home.path)

    def _lots(self, fleet: Fleet, sources: int, store: SqliteStore) -> Iterator[Lot]:
        for at in range(sources + 1):
            key = self.membership.key if at == 0 else SigningKey.from_seed(self.dice.randbytes(32))
            if at:
                der = issue_certificate(
                    fleet._key, fleet.authority().document.name, f"source-{at}", "officer", key.public, at
                )
                certificate = read_certificate(der, self.membership.authority)
                store.commit([PutCertificate(certificate)], 1.0)
            epoch = self.dice.randbytes(8)
            yield Lot(key, journal_id(key.public.id, self.endpoint.id, epoch), epoch, 1)

    def _fill(self, fleet: Fleet, messages: int, sources: int) -> None:
        office = Home(fleet.nodes["office"].home).office_keys()
        store = SqliteStore(self.path)
        drawer = Drawer(self.membership.key.derive(b"labels"))
        for lot in self._lots(fleet, sources, store):
            number = 0
            for at in range(messages):
                first, parts = number + 1, self.dice.choice([1, 1, 1, 2, 4])
                rows: list[Row] = []
                for part in range(1, parts + 1):
                    number += 1
                    bundle = self._bundle(lot, number, part, parts)
                    rows.append(PutBundle(bundle, lot.journal, 100.0 + number, 5))
                    self.bundles[lot.journal, number] = bundle
                if lot.key is self.membership.key:
                    label = shut_label(drawer, f"ref-{at}", "test", self.dice.randbytes(12))
                    message = PutMessage(lot.journal, first, number, 1000, 7, label)
                    self.own[lot.journal, first] = message
                    rows.append(message)
                store.commit(rows, 200.0 + number)
            done = Ranges.span(1, max(1, number // 10))
            receipt = issue_receipt(office.signing_key, self.endpoint.id, lot.journal, 1 << 33, done, 9)
            rows = [PutReceipt(receipt, 250.0)]
            if lot.key is not self.membership.key:
                rows.append(DropBundles(lot.journal, done))
                for gone in done:
                    del self.bundles[lot.journal, gone]
            self.delivered.update((lot.journal, each) for each in done)
            store.commit(rows, 300.0 + number)
        store.close()

    def _bundle(self, lot: Lot, number: int, part: int, parts: int) -> Bundle:
        size = self.dice.choice([1300, 3000, 9000, 40_000, 120_000, 200_000, 262_144])
        payload = self.dice.randbytes(size)
        header = Header(
            source=lot.key.public.id,  # type: ignore[arg-type]
            destination=self.endpoint.id,
            recipient_key=bytes(8),
            epoch=lot.epoch,
            number=number,
            part=part,
            parts=parts,
            priority=ROUTINE,
            created_ms=1_700_000_000_000,
            lifetime_s=LIFETIME_S,
            previous=None,
            payload_size=size,
            payload_sha256=hashlib.sha256(payload).digest(),
        )
        return sign_bundle(header, payload, lot.key)

    def _lie(self) -> Iterator[tuple[Place, set[Page]]]:
        """On which pages of the whole files each bundle lies."""
        by_digest = {bundle.payload: place for place, bundle in self.bundles.items()}
        for path in self.files[1:]:
            for slot, _, slotted in slots_of(path):
                at = slot * SLOT_SIZE
                end = at + HEAD_SIZE + len(slotted)
                yield (
                    by_digest[slotted],
                    {(path, n) for n in range(at // PAGE_SIZE + 1, -(-end // PAGE_SIZE) + 1)},
                )
        with closing(_Watched(self.path)) as pages:
            for found in pages.rows(lambda types: len(types) == 5, pages.freed()):
                used = {found.page, *pages.seen[pages.seen.index(found.page) + 1 :]}
                pages.seen = [found.page]
                payload = found.values[-1]
                if isinstance(payload, bytes) and payload in by_digest:
                    yield by_digest[payload], {(self.path, page) for page in used}

    # --- damage -------------------------------------------------------------------------------------------------

    def restore(self) -> None:
        """The store as it was filled."""
        for path in self.home.path.glob("store.db*"):
            path.unlink()
        for path, data in self.data.items():
            path.write_bytes(data)
            path.chmod(0o600)

    def hurt(self, *, bytes_: int = 0, pages: int = 0) -> set[Page]:
        """Overwrite random bytes, and fill random pages with zeros or noise; the pages that were touched."""
        return hurt(self.files, self.dice, bytes_=bytes_, pages=pages)

    def check(self, hurt: set[Page]) -> tuple[Summary, float]:
        """Salvage, and judge: all that lies on whole pages is there, and nothing that was never there. What was done,
        and the share of all bundles that was rescued."""
        done = salvage(self.home)
        store = SqliteStore(self.path)
        try:
            snapshot = store.load()
            assert not snapshot.damaged, snapshot.damaged
            held = {(record.id, number) for record in snapshot.journals for number in record.entries}
            assert held <= self.bundles.keys()
            for place in held:
                bundle, stored = self.bundles[place], store.read(*place)
                assert isinstance(stored, StoredBundle)
                assert (stored.header, stored.signature, stored.payload) == (
                    bundle.header_bytes,
                    bundle.signature,
                    bundle.payload,
                )
        finally:
            store.close()
        intact = {place for place, pages in self.pages.items() if not pages & hurt}
        own = {
            place
            for place in self.bundles
            if self.bundles[place].header.source == self.membership.key.public.id
        }
        certified = len(snapshot.certificates) == 8
        missing = {place for place in intact - held if certified or place in own}
        assert not missing, f"{len(missing)} of {len(intact)} intact bundles were not rescued"
        receipted = {(receipt.journal, n) for receipt, _ in snapshot.receipts for n in receipt.ranges}
        affected = {it.key for it in done.affected}
        for message in snapshot.messages:
            numbers = {(message.journal, n) for n in range(message.first, message.last + 1)}
            key = f"{message.journal.hex()}:{message.first}"
            assert (key in affected) == bool(numbers - held - receipted), key
        return done, len(held) / len(self.bundles)


def files_of(home: Path) -> list[Path]:
    """The store of a home, and its large payloads, if there are any: no others are written after a salvage."""
    payloads = sorted(Home(home).payload_paths(), key=lambda path: path.stat().st_mtime_ns)
    return [Home(home).store_path, *payloads[-1:]]


def hurt(files: Sequence[Path], dice: random.Random, *, bytes_: int = 0, pages: int = 0) -> set[Page]:
    """Overwrite random bytes of files, and fill random pages with zeros or noise; the pages that were touched."""
    touched: set[Page] = set()
    sizes = [path.stat().st_size for path in files]
    for _ in range(bytes_):
        path = dice.choices(files, sizes)[0]
        with path.open("r+b") as file:
            at = dice.randrange(path.stat().st_size)
            file.seek(at)
            old = file.read(1)[0]
            file.seek(at)
            file.write(bytes((old ^ dice.randrange(1, 256),)))
        touched.add((path, at // PAGE_SIZE + 1))
    for _ in range(pages):
        path = dice.choices(files, sizes)[0]
        with path.open("r+b") as file:
            number = dice.randrange(path.stat().st_size // PAGE_SIZE)
            file.seek(number * PAGE_SIZE)
            file.write(dice.choice([bytes(PAGE_SIZE), dice.randbytes(PAGE_SIZE)]))
        touched.add((path, number + 1))
    return touched


def starts(path: Path) -> str:
    """What a daemon would find: `whole`, `damaged` rows, or that it `refuses`."""
    try:
        store = SqliteStore(path)
    except (StoreTrouble, StoreTooNew):
        return "refuses"
    try:
        return "damaged" if store.load().damaged else "whole"
    except (StoreTrouble, StoreTooNew):
        return "refuses"
    finally:
        store.close()


# --- real daemons -----------------------------------------------------------------------------------------------


def salvaged(node: Node) -> str:
    """The real command on a stopped node; what it said."""
    done = node.run("store", "salvage")
    assert done.returncode == 0, done.stderr
    return done.stdout


def start_whatever_it_takes(fleet: Fleet, node: Node) -> bool:
    """Start a daemon on a store that may be damaged; whether it had to be salvaged."""
    log_size = len(node.log())
    node.begin()
    assert node.process is not None
    try:
        fleet.until("it is up", lambda: node.get("status"), within_s=20)
    except AssertionError:
        said = node.log()[log_size:]
        node.kill()
        assert "store salvage" in said or "was written by a newer meshnode" in said, said
    else:
        if not any(alarm["code"] in ("damaged", "store") for alarm in node.get("status")["alarms"]):
            return False
        node.stop()
    salvaged(node)
    fleet.start(node)
    return True


def torture(rounds: int, seed: int, folder: Path, say: Say) -> Outcome:
    """Rot the store of a device at rest, again and again, while a colleague carries all that it has submitted; start
    it, salvage it if need be, and in the end let the office have everything."""
    dice = random.Random(seed)
    outcome = Outcome("rot", rounds)
    keys: list[str] = []
    with Fleet(folder) as fleet:
        office, ana, budi = fleet.enroll("office", "office"), fleet.enroll("ana"), fleet.enroll("budi")
        budi.configure(peers=[ana.address])
        fleet.start(ana, budi)
        for round_ in range(rounds):
            for _ in range(dice.randrange(1, 5)):
                keys.append(_give(fleet, ana, dice.randbytes(dice.choice([100, 9000, 300_000]))))  # noqa: PERF401
            try:
                fleet.until("they are carried", lambda: set(ana.states()) == {"carried"}, within_s=15)
            except AssertionError:
                say(str(ana.get("status")))
                raise
            ana.stop()
            kind = dice.choice([{"bytes_": 1}, {"bytes_": 10}, {"bytes_": 100}, {"pages": 1}, {"pages": 5}])
            hurt(files_of(ana.home), dice, **kind)
            began_s = time.monotonic()
            had_to = start_whatever_it_takes(fleet, ana)
            fleet.until("they meet", lambda: "ana" in budi.contacts(), within_s=60)
            try:
                fleet.until("all is back", partial(_is_whole, ana), within_s=60)
            except AssertionError as trouble:
                outcome.troubles.append(f"round {round_}: {str(trouble)[:2000]}")
                break
            outcome.recovery_s = max(outcome.recovery_s, time.monotonic() - began_s)
            say(f"round {round_}: {kind}, {'salvaged' if had_to else 'started'}")
        ana.stop()
        ana.configure(peers=[office.address])
        fleet.start(office, ana)
        wanted_keys = set(keys)
        try:
            fleet.until("the office has all", lambda: wanted_keys <= set(office.inbox()), within_s=60)
        except AssertionError:
            outcome.losses.extend(sorted(wanted_keys - set(office.inbox())))
        outcome.messages = len(keys)
    return outcome


def _give(fleet: Fleet, node: Node, data: bytes) -> str:
    """The key of a new message; a node whose store turns out to be damaged only now refuses it, and is helped first."""
    status, answer = node.request("POST", "/v1/messages", posted({"f": data}))
    if status != 201:
        assert "store salvage" in answer["error"], answer
        node.stop()
        salvaged(node)
        fleet.start(node)
        status, answer = node.request("POST", "/v1/messages", posted({"f": data}))
    assert status == 201, answer
    return str(answer["key"])


def _is_whole(node: Node) -> bool:
    """Whether nothing is missing on this node's disk, as far as it knows."""
    alarms = {alarm["code"] for alarm in node.get("status")["alarms"]}
    return "rotten" not in alarms

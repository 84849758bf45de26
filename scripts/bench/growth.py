"""What a carrier's history costs: store, memory, start and contact after 10,000, 100,000 and 1,000,000 bundles.

The node and the store are the real ones; the contacts are frames handed over in this process, so that years pass in
minutes. An officer's journal of 100 small bundles comes, is made durable, and is receipted; then the next one.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)]

from meshnode.core.bundle import ROUTINE, Bundle, Header, journal_id, sign_bundle  # noqa: E402 - found through the line above
from meshnode.core.frames import BundleFrame, Cert, Frame, Have, Hello, ReceiptFrame, Stored, encode  # noqa: E402
from meshnode.core.identity import JournalId  # noqa: E402
from meshnode.core.intervals import Ranges  # noqa: E402
from meshnode.core.limits import GIB, LIFETIME_S  # noqa: E402
from meshnode.core.node import Node  # noqa: E402
from meshnode.core.ports import (  # noqa: E402
    Close,
    Effect,
    Event,
    Instant,
    Lost,
    Opened,
    Received,
    Send,
    Space,
    Write,
    Written,
)
from meshnode.core.receipt import issue_receipt  # noqa: E402
from meshnode.core.sealing import SEAL_OVERHEAD  # noqa: E402
from meshnode.core.state import Identity, Settings  # noqa: E402
from meshnode.drivers.sqlite import SqliteStore  # noqa: E402
from meshnode.sim.standins import SimFleet  # noqa: E402

JOURNAL_BUNDLES = 100
PAYLOAD = bytes(SEAL_OVERHEAD + 64)
DIGEST = hashlib.sha256(PAYLOAD).digest()
SETTINGS = Settings(epoch=b"carrier1", port=7766, foreign_quota_bytes=8 * GIB)
SEED = 1


class Carrier:
    """A node on its store, and a contact with it."""

    def __init__(self, path: Path, identity: Identity) -> None:
        began_s = time.perf_counter()
        self.store = SqliteStore(path)
        snapshot = self.store.load()
        self.node = Node(identity, SETTINGS, snapshot, self._now())
        self.started_s = time.perf_counter() - began_s
        self.said_bytes = 0
        self._do(self.node.start(self._now()))
        self.handle(Space(100 * GIB, GIB))

    @staticmethod
    def _now() -> Instant:
        return Instant(time.monotonic(), 1_700_000_000_000)

    def handle(self, event: Event) -> None:
        """Tell the node, and carry out what it says."""
        self._do(self.node.handle(event, self._now()))

    def _do(self, effects: list[Effect]) -> None:
        writes = [effect for effect in effects if isinstance(effect, Write)]
        for effect in effects:
            if isinstance(effect, Send):
                self.said_bytes += len(effect.data)
            elif isinstance(effect, Close):
                raise SystemExit(f"the carrier ended the contact: {effect.reason}")
        if writes:
            self.store.commit([row for write in writes for row in write.rows], self._now().s)
            self.handle(Written(tuple(write.token for write in writes)))

    def says(self, contact: int, *frames: Frame) -> None:
        """A peer says these."""
        self.handle(Received(contact, b"".join(map(encode, frames))))


def journal_of(fleet: SimFleet, officer: Identity, day: int) -> tuple[JournalId, list[Bundle]]:
    """An officer's bundles of one day."""
    epoch = day.to_bytes(8, "big")
    return journal_id(officer.device, fleet.endpoint, epoch), [
        sign_bundle(
            Header(
                source=officer.device,
                destination=fleet.endpoint,
                recipient_key=bytes(8),
                epoch=epoch,
                number=number,
                part=1,
                parts=1,
                priority=ROUTINE,
                created_ms=0,
                lifetime_s=LIFETIME_S,
                previous=None,
                payload_size=len(PAYLOAD),
                payload_sha256=DIGEST,
            ),
            PAYLOAD,
            officer.key,
        )
        for number in range(1, JOURNAL_BUNDLES + 1)
    ]


def hello(name: str, version: int) -> Hello:
    """What a peer says first."""
    return Hello(name, ("officer",), 7766, version, 0, False, GIB)


def resident_mib() -> float:
    """This process's memory now."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


def look(path: Path) -> None:
    """In a process of its own: start on the store, meet a peer, and say what that cost until all was said."""
    fleet = SimFleet(random.Random(SEED))
    carrier = Carrier(path, fleet.enroll("carrier", "officer"))
    peer = fleet.enroll("peer", "officer")
    began_s = time.perf_counter()
    carrier.handle(Opened(1, peer.certificate, True, "peer:7766"))
    carrier.says(1, hello("peer", 1), Have(True, ()))
    contact_s = time.perf_counter() - began_s
    print(
        json.dumps(
            {
                "start_s": round(carrier.started_s, 3),
                "resident_mib": round(resident_mib(), 1),
                "contact_said_bytes": carrier.said_bytes,
                "contact_cpu_s": round(contact_s, 4),
                "known_journals": len(carrier.node.state.ledger.journals),
            }
        )
    )


def grow(path: Path, bundles: int) -> Iterator[tuple[int, float]]:
    """Let so many bundles pass; at each power of ten from 10,000 on: how many have, and how many a second."""
    fleet = SimFleet(random.Random(SEED))
    carrier = Carrier(path, fleet.enroll("carrier", "officer"))
    fleet.enroll("peer", "officer")
    officers = [fleet.enroll(f"officer-{number:02}", "officer") for number in range(12)]
    marks = [10**power for power in range(4, 10) if 10**power <= bundles]
    done, began_s = 0, time.perf_counter()
    carrier.handle(Opened(1, officers[0].certificate, True, "officer:7766"))
    carrier.says(1, hello("officer", 1), Have(True, ()))
    for mark in marks:
        while done < mark:
            day, which = divmod(done // JOURNAL_BUNDLES, len(officers))
            officer = officers[which]
            journal, batch = journal_of(fleet, officer, day)
            whole = Ranges.span(1, JOURNAL_BUNDLES)
            carrier.says(1, Stored(((journal, whole, False),)), Cert(officer.certificate.der))
            carrier.says(1, *(BundleFrame(0, bundle) for bundle in batch))
            receipt = issue_receipt(fleet.endpoint_key, fleet.endpoint, journal, 1 << 32, whole, 0)
            carrier.says(1, ReceiptFrame(receipt.body, receipt.signature))
            done += JOURNAL_BUNDLES
        yield done, done / (time.perf_counter() - began_s)
    carrier.handle(Lost(1, "the end"))
    carrier.store.close()


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="scripts/bench/growth", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--bundles", type=int, default=100_000, help="at most so many")
    parser.add_argument("--look", type=Path, help=argparse.SUPPRESS)
    said = parser.parse_args()
    if said.look is not None:
        look(said.look)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "store.db"
        for done, rate in grow(path, said.bundles):
            size = sum(file.stat().st_size for file in Path(folder).iterdir())
            seen = subprocess.run(
                [sys.executable, __file__, "--look", str(path)], capture_output=True, text=True, check=True
            )
            figures = {"bundles": done, "bundles_per_s": round(rate), "store_mib": round(size / 2**20, 1)}
            print(json.dumps(figures | json.loads(seen.stdout)), flush=True)


if __name__ == "__main__":
    main()

"""Stores that go back in time: the home's store is put back as it was, again and again, while the officer goes on.

Each round the officer submits, a colleague carries, the store is copied, more is submitted and carried, and the copy is
put back. Judged: no key is given out twice, the office has every message once, the officer knows that all are
delivered (those that the restored store has forgotten included, as far as others had them), and the office tells of
a restored device.
"""

from __future__ import annotations

import random
import time
from pathlib import Path

from tests.app.fleets import Fleet, Node
from tests.torture.outcome import Outcome, Say


def torture(rounds: int, seed: int, folder: Path, say: Say) -> Outcome:
    """So many times back."""
    chance = random.Random(seed)
    outcome = Outcome("restore")
    with Fleet(folder) as fleet:
        office, ana, budi = fleet.enroll("office", "office"), fleet.enroll("ana"), fleet.enroll("budi")
        ana.configure(peers=[budi.address])
        budi.configure(peers=[office.address])
        fleet.start(budi)
        keys: list[str] = []
        for number in range(1, rounds + 1):
            outcome.rounds = number
            _go_back(fleet, ana, chance, keys)
            say(f"{number} rounds, {len(keys)} messages")
        began_s = time.monotonic()
        fleet.start(ana, office)
        fleet.until("the office has all", lambda: set(keys) <= set(office.inbox()), 60)
        fleet.until("all are known to be delivered", lambda: set(ana.states()) == {"delivered"}, 60)
        outcome.recovery_s = time.monotonic() - began_s
        outcome.messages = len(keys)
        outcome.losses = sorted(set(keys) - set(office.inbox()))
        outcome.duplicates = sorted({key for key in keys if keys.count(key) > 1})
        if not any(alarm["code"] == "restored" for alarm in office.get("status")["alarms"]):
            outcome.troubles.append("the office does not tell of a restored device")
    return outcome


def _go_back(fleet: Fleet, ana: Node, chance: random.Random, keys: list[str]) -> None:
    fleet.start(ana)
    sizes = [chance.choice([10, 300_000]) for _ in range(chance.randint(1, 3))]
    keys.extend(ana.give({"f": chance.randbytes(size)})["key"] for size in sizes)
    fleet.until("a colleague carries them", lambda: "on_this_device_only" not in ana.states())
    ana.stop()
    copy = {path.name: path.read_bytes() for path in ana.home.glob("store.db*")}
    fleet.start(ana)
    keys.extend(ana.give({"f": chance.randbytes(100)})["key"] for _ in range(chance.randint(1, 3)))
    fleet.until("and those too", lambda: "on_this_device_only" not in ana.states())
    ana.stop()
    for path in ana.home.glob("store.db*"):
        path.unlink()
    for name, data in copy.items():
        (ana.home / name).write_bytes(data)
        (ana.home / name).chmod(0o600)

"""Devices that are revoked: each round one more, at a random moment of its work, by a document given to one colleague.

Judged: the document reaches the others by contacts, the revoked device is refused wherever it meets somebody who knows,
and what it submitted before is at the office, once, held apart.
"""

from __future__ import annotations

import json
import random
import time
from pathlib import Path

from tests.app.fleets import Fleet, Node
from tests.torture.outcome import Outcome, Say


def torture(rounds: int, seed: int, folder: Path, say: Say) -> Outcome:
    """So many devices."""
    chance = random.Random(seed)
    outcome = Outcome("revoke")
    with Fleet(folder) as fleet:
        office = fleet.enroll("office", "office")
        budi, citra = fleet.enroll("budi"), fleet.enroll("citra")
        budi.configure(peers=[office.address, citra.address])
        fleet.start(office, budi, citra)
        fleet.until("they are in contact", lambda: len(budi.contacts()) == 2)
        for number in range(1, rounds + 1):
            outcome.rounds = number
            _revoke_one(fleet, number, budi, citra, office, chance, outcome)
            say(f"{number} devices revoked, {outcome.messages} messages")
    return outcome


def _revoke_one(
    fleet: Fleet,
    number: int,
    budi: Node,
    citra: Node,
    office: Node,
    chance: random.Random,
    outcome: Outcome,
) -> None:
    thief = fleet.enroll(f"thief-{number}")
    thief.configure(peers=[budi.address])
    office_is_near = chance.random() < 0.5
    if not office_is_near:
        office.stop()
    fleet.start(thief)
    key = thief.give({"before": chance.randbytes(chance.choice([50, 400_000]))})["key"]
    outcome.messages += 1
    fleet.until("it is out of its hands", lambda: thief.states() != ["on_this_device_only"])
    began_s = time.monotonic()
    version = fleet.revoke(thief).version
    assert citra.run("fleet", "update", fleet.publish()).returncode == 0
    fleet.until("it is refused", lambda: budi.logged(f"contact with {thief.name} ended: revoked"))
    if not office_is_near:
        fleet.start(office)
    fleet.until("the office knows", lambda: office.get("status")["device"]["fleet_version"] == version, 60)
    outcome.recovery_s = max(outcome.recovery_s, time.monotonic() - began_s)

    def found() -> list[Path]:
        every = (office.home / "inbox").glob("**/message.json")
        return [path for path in every if json.loads(path.read_bytes())["key"] == key]

    places = fleet.until("what it wrote before is at the office", found)
    if len(places) != 1:
        outcome.duplicates.append(key)
    if thief.name in budi.contacts():
        outcome.troubles.append(f"{thief.name} is in contact")
    thief.stop()

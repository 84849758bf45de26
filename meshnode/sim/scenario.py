"""What happens in a seeded run when nothing goes wrong: who there is, where they are, what they submit, and when.

Officers move between places, a few times a day, and meet whoever is there at the same time; the office and the
gateways stay where they are, and have the internet between them now and then. Most laptops are off at night. All of it
is drawn before the run, from a source of chance of its own, so that a change of the node does not change the plan.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Final

from meshnode.core.bundle import ROUTINE, URGENT
from meshnode.core.limits import FOREIGN_QUOTA_BYTES, GIB, KIB, MIB
from meshnode.core.message import File, Manifest, parts_for, stream_head
from meshnode.sim.machine import Hardware

DAY_S: Final = 24 * 3600.0
MORNING_S: Final = 7 * 3600.0
EVENING_S: Final = 17 * 3600.0
#: When people are on the road, in hours of the day.
ROUNDS_H: Final = (7.5, 9.5, 12.0, 14.5, 16.5)
OFFICE_PLACE: Final = "kecamatan"
NAMES: Final = (
    "siti budi dewi eko fitri gita hadi indah joko kartini lestari maman".split()  # noqa: SIM905 - a list to read
)
WEEK_DAYS: Final = 7
REGISTRATIONS_A_DAY: Final = 300
EPOCH_MS: Final = 1_700_000_000_000


@dataclass(frozen=True, slots=True)
class Person:
    """A device and where it belongs. `place`: where it stays; None for those who move."""

    name: str
    role: str
    hardware: Hardware
    place: str | None = None
    hostile: bool = False
    sleeps: bool = True


@dataclass(frozen=True, slots=True)
class Visit:
    """Somebody is at a place."""

    name: str
    place: str
    from_s: float
    until_s: float


@dataclass(frozen=True, slots=True)
class Meeting:
    """Two devices are in range."""

    left: str
    right: str
    from_s: float
    until_s: float
    rate_bytes_per_s: float
    latency_s: float


@dataclass(frozen=True, slots=True)
class Message:
    """Somebody submits something."""

    at_s: float
    name: str
    reference: str
    stream: bytes
    size_bytes: int
    priority: int
    lifetime_s: int | None
    pace_s: float
    gives_up_after: int | None
    to: str | None = None


@dataclass(slots=True)
class Plan:
    """All that is to happen, and until when."""

    end_s: float
    people: list[Person] = field(default_factory=list)
    meetings: list[Meeting] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    shifts: list[tuple[float, str, bool]] = field(default_factory=list)

    @property
    def busy_s(self) -> list[float]:
        """Moments at which something begins: when faults hurt most."""
        return sorted([m.from_s for m in self.meetings] + [m.at_s for m in self.messages])


def log_uniform(chance: random.Random, low: float, high: float) -> float:
    """Anything from `low` to `high`, small as often as large."""
    return float(low * (high / low) ** chance.random())


def draw_plan(seed: int) -> Plan:
    """The plan of a seed."""
    chance = random.Random(f"plan {seed}")
    days = chance.choice([1.5, 2, 2, 2.5, 3] * 3 + [9])
    plan = Plan(end_s=days * DAY_S)
    mood = chance.choice(["plenty"] * 6 + ["tight"] * 4 + ["heavy"])
    plan.people = _draw_people(chance, mood)
    places = [OFFICE_PLACE, *(f"kampung-{n}" for n in range(1, chance.randint(2, 4)))]
    visits = sorted(_draw_visits(chance, plan, places), key=lambda visit: (visit.from_s, visit.name))
    slowest = 500_000.0 if mood == "heavy" else 2_000.0
    plan.meetings = [*_meetings(chance, visits, slowest), *_draw_windows(chance, plan)]
    large = chance.choice({"plenty": [0.0, 0.05, 0.3], "tight": [0.1, 0.6], "heavy": [0.9]}[mood])
    plan.messages = list(
        _draw_messages(chance, plan, large, 8 if mood == "heavy" else chance.choice([1, 3, 8]))
    )
    plan.shifts = sorted(_draw_shifts(chance, plan))
    plan.messages.extend(_draw_letters(random.Random(f"letters {seed}"), plan))
    return plan


def draw_week(seed: int) -> Plan:
    """A working week of the whole regency: 12 officers, one office, 300 registrations a day.

    Each is one bundle, so that what is measured and judged is the nodes' work and not the copying of photographs.
    """
    chance = random.Random(f"week {seed}")
    plan = Plan(end_s=WEEK_DAYS * DAY_S)
    office = Person("kantor", "office", _draw_hardware(chance, "plenty"), OFFICE_PLACE, sleeps=False)
    plan.people = [
        office,
        *(Person(name, "officer", _draw_hardware(chance, "plenty")) for name in NAMES),
    ]
    places = [OFFICE_PLACE, *(f"kampung-{n}" for n in range(1, 5))]
    visits = sorted(_draw_visits(chance, plan, places), key=lambda visit: (visit.from_s, visit.name))
    plan.meetings = list(_meetings(chance, visits, 100_000.0))
    for day in range(WEEK_DAYS):
        for number in range(REGISTRATIONS_A_DAY):
            name = NAMES[number % len(NAMES)]
            at_s = day * DAY_S + chance.uniform(MORNING_S + 1800, EVENING_S - 1800)
            form = chance.randbytes(int(log_uniform(chance, 500, 8_000)))
            plan.messages.append(make_message(at_s, name, f"{name}-{day}-{number}", [form]))
    plan.shifts = sorted(_draw_shifts(chance, plan))
    return plan


# --- people -----------------------------------------------------------------------------------------------------


def _draw_people(chance: random.Random, mood: str) -> list[Person]:
    count = chance.choice([3, 4] if mood == "heavy" else [3, 3, 4, 4, 5, 5, 6, 6, 7, 8, 10, 12])
    of_office = mood if mood == "heavy" or chance.random() < 0.2 else "plenty"
    offices = 2 if count > 3 and chance.random() < 0.3 else 1
    gateways = 1 if count > 4 and chance.random() < 0.4 else 0
    officers = count - offices - gateways
    hostile = chance.randrange(officers) if officers > 2 and chance.random() < 0.45 else None
    people = [Person("kantor", "office", _draw_hardware(chance, of_office), OFFICE_PLACE, sleeps=False)]
    if offices == 2:
        people.append(
            Person("kantor-2", "office", _draw_hardware(chance, of_office), "kabupaten", sleeps=False)
        )
    if gateways:
        people.append(Person("gerbang", "gateway", _draw_hardware(chance, mood), "cipatujah", sleeps=False))
    for at, name in enumerate(NAMES[:officers]):
        sleeps = chance.random() < 0.9
        people.append(
            Person(name, "officer", _draw_hardware(chance, mood), None, hostile=at == hostile, sleeps=sleeps)
        )
    return people


def _draw_hardware(chance: random.Random, mood: str) -> Hardware:
    """`tight`: little room for others, or on the whole disk. `heavy`: much is on its way to a slow disk at once, while
    not much room is left on it."""
    hardware = Hardware(commit_s=log_uniform(chance, 0.001, 0.5))
    if mood == "heavy":
        hardware.commit_s = chance.uniform(0.5, 2.0)
        hardware.look_s = 0.1
        if chance.random() < 0.6:
            hardware.disk_bytes = 8 * MIB
            hardware.floor_bytes = hardware.disk_bytes - chance.choice([1500 * KIB, 3 * MIB])
    if mood == "tight":
        hardware.foreign_quota_bytes = chance.choice([300 * KIB, 600 * KIB, 2 * MIB, FOREIGN_QUOTA_BYTES])
        hardware.disk_bytes = chance.choice([2 * MIB, 3 * MIB, 5 * MIB, 100 * GIB])
        room_bytes = chance.choice([400 * KIB, 700 * KIB, 1500 * KIB, hardware.disk_bytes])
        hardware.floor_bytes = min(hardware.disk_bytes - room_bytes, 5 * MIB)
    return hardware


# --- movement ---------------------------------------------------------------------------------------------------


def _draw_visits(chance: random.Random, plan: Plan, places: list[str]) -> Iterator[Visit]:
    for person in plan.people:
        if person.place is not None:
            yield Visit(person.name, person.place, 0.0, plan.end_s)
            continue
        for round_s in _rounds(plan.end_s):
            if chance.random() < 0.75:
                from_s = round_s + chance.uniform(0, 300)
                until_s = from_s + log_uniform(chance, 20, 600)
                place = places[0] if chance.random() < 0.3 else chance.choice(places)
                yield Visit(person.name, place, from_s, until_s)


def _rounds(end_s: float) -> Iterator[float]:
    for day in range(int(end_s // DAY_S) + 1):
        for hour in ROUNDS_H:
            if (round_s := day * DAY_S + hour * 3600.0) + 1000.0 < end_s:
                yield round_s


def _meetings(chance: random.Random, visits: list[Visit], slowest_bytes_per_s: float) -> Iterator[Meeting]:
    """Whoever is at one place at one time is in range."""
    for at, visit in enumerate(visits):
        for other in visits[at + 1 :]:
            if other.from_s >= visit.until_s:
                break
            until_s = min(visit.until_s, other.until_s)
            if visit.place == other.place and visit.name != other.name and until_s - other.from_s > 1.0:
                rate = log_uniform(chance, slowest_bytes_per_s, 5_000_000)
                left, right = sorted((visit.name, other.name))
                latency_s = log_uniform(chance, 0.001, 0.3)
                yield Meeting(left, right, other.from_s, until_s, rate, latency_s)


def _draw_windows(chance: random.Random, plan: Plan) -> Iterator[Meeting]:
    """The internet comes and goes between those who stay where they are."""
    fixed = [person.name for person in plan.people if person.place is not None]
    for left, right in pairwise(fixed):
        at_s = chance.uniform(0, 6 * 3600)
        while at_s < plan.end_s - 1200:
            until_s = at_s + log_uniform(chance, 10, 900)
            rate = log_uniform(chance, 10_000, 2_000_000)
            yield Meeting(
                min(left, right), max(left, right), at_s, until_s, rate, log_uniform(chance, 0.01, 0.6)
            )
            at_s = until_s + log_uniform(chance, 600, 12 * 3600)


def _draw_shifts(chance: random.Random, plan: Plan) -> Iterator[tuple[float, str, bool]]:
    """When who switches on and off."""
    for person in plan.people:
        if not person.sleeps:
            yield chance.uniform(0, 60), person.name, True
            continue
        for day in range(int(plan.end_s // DAY_S) + 1):
            yield day * DAY_S + MORNING_S + chance.uniform(-1800, 1800), person.name, True
            yield day * DAY_S + EVENING_S + chance.uniform(-1800, 7200), person.name, False


# --- messages ---------------------------------------------------------------------------------------------------


def _draw_messages(chance: random.Random, plan: Plan, large: float, mean: int) -> Iterator[Message]:
    """`mean` messages from each device; `large`: the share of those that have several bundles."""
    short_lived = chance.random() < 0.3
    for person in plan.people:
        if person.role == "office":
            continue
        met = [meeting for meeting in plan.meetings if person.name in (meeting.left, meeting.right)]
        for number in range(chance.randint(0, 2 * mean)):
            day = chance.randrange(max(1, int(plan.end_s // DAY_S)))
            at_s = day * DAY_S + chance.uniform(MORNING_S + 1800, EVENING_S - 1800)
            if met and chance.random() < 0.4:  # while it is in contact
                meeting = chance.choice(met)
                at_s = chance.uniform(meeting.from_s, meeting.until_s)
            if at_s >= plan.end_s - 60:
                continue
            sizes = _draw_sizes(chance, large)
            contents = [chance.randbytes(size) for size in sizes]
            reference = f"{person.name}-{number}"
            lifetime_s = chance.choice([3600, 6 * 3600, 30 * 3600]) if short_lived else None
            yield make_message(
                at_s,
                person.name,
                reference,
                contents,
                priority=URGENT if chance.random() < 0.2 else ROUTINE,
                lifetime_s=lifetime_s,
                pace_s=chance.choice([0.0, 0.0, 0.0, 0.3, 5.0]),
                gives_up=chance.random() if chance.random() < 0.1 else None,
            )


def _draw_letters(chance: random.Random, plan: Plan) -> Iterator[Message]:
    """What offices write to devices. They can only once they have heard of them, so it is not too early."""
    offices = [person.name for person in plan.people if person.role == "office"]
    others = [person.name for person in plan.people if person.role != "office" and not person.hostile]
    for number in range(chance.choice([0, 1, 3, 6])):
        at_s = chance.uniform(DAY_S / 3, plan.end_s - 60)
        letter = make_message(at_s, chance.choice(offices), f"letter-{number}", [chance.randbytes(300)])
        yield replace(letter, to=chance.choice(others))


def _draw_sizes(chance: random.Random, large: float) -> list[int]:
    """The files of one message: mostly small, so that a run is quick, some of several bundles."""
    files = chance.choice([1, 1, 2, 4])
    sizes = [chance.choice([0, 1, int(log_uniform(chance, 10, 8_000))]) for _ in range(files)]
    if chance.random() < large:
        sizes[-1] = int(log_uniform(chance, 100 * KIB, 1200 * KIB))
    return sizes


def make_message(
    at_s: float,
    name: str,
    reference: str,
    contents: list[bytes],
    *,
    priority: int = ROUTINE,
    lifetime_s: int | None = None,
    pace_s: float = 0.0,
    gives_up: float | None = None,
) -> Message:
    """A message of these files. `gives_up`: after which share of its parts its program goes away."""
    files = tuple(File(f"{at}.bin", len(data)) for at, data in enumerate(contents))
    manifest = Manifest(
        "ktp-el", (("sha", hashlib.sha256(b"".join(contents)).hexdigest()[:8]),), reference, 0, files
    )
    stream = stream_head(manifest) + b"".join(contents)
    gives_up_after = None if gives_up is None else int(gives_up * parts_for(len(stream)))
    return Message(
        at_s,
        name,
        reference,
        stream,
        manifest.files_size,
        priority,
        lifetime_s,
        pace_s,
        gives_up_after,
    )

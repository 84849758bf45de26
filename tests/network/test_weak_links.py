"""Real daemons and contacts that die without a word, crawl, stall, or last for seconds only.

Each contact goes through a relay of the test's own on loopback (`shaper`). The seconds are real: they are what officers
wait.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import monotonic

import pytest

from meshnode.core.limits import DEAD_AFTER_S
from meshnode.core.message import parts_for
from tests.app.fleets import Fleet, Node
from tests.network.shaper import BACK, THERE, Nature, Shaper
from tests.network.test_daemons import measured, noted

Record = Callable[[str, object], None]

#: The weak links are busy from the first test on, and asked for last: they take most of a minute.
pytestmark = [pytest.mark.usefixtures("weak"), pytest.mark.slow]

#: What a daemon takes to act on what it has noticed, on a busy machine.
ACTS_S = 1.0
STARTS_S = 10.0
MB = 1_000_000


class Village:
    """A fleet whose members are in reach of those only that a test puts them in reach of: they listen where nobody
    looks who has met them through a relay, which is at another address."""

    def __init__(self, folder: Path) -> None:
        self._exit = ExitStack()
        self.fleet = self._exit.enter_context(Fleet(folder))
        self.fleet.enroll("office", "office")

    def __enter__(self) -> Village:
        return self

    def __exit__(self, *problem: object) -> None:
        self._exit.__exit__(*problem)  # type: ignore[arg-type]

    def enroll(self, *names: str) -> list[Node]:
        """New members; not started."""
        nodes = [self.fleet.enroll(name) for name in names]
        for node in nodes:
            node.host = "127.0.0.2"
            node.configure()
        return nodes

    def link(self, target: Node, nature: Nature | None = None) -> Shaper:
        """A way to a node."""
        return self._exit.enter_context(Shaper(target.address, nature))

    def pair(self, name: str, nature: Nature) -> Pair:
        """Two new members, and the way from the first to the second; not started."""
        near, far = self.enroll(f"{name}-1", f"{name}-2")
        link = self.link(far, nature)
        near.configure(peers=[link.address])
        return Pair(self.fleet, near, far, link)


class Pair:
    """Two with a weak link between them, whose messages are waited for in a thread of their own (`took_s`)."""

    def __init__(self, fleet: Fleet, near: Node, far: Node, link: Shaper) -> None:
        self.fleet = fleet
        self.near = near
        self.far = far
        self.link = link

    def carry(self, sizes: tuple[int, ...], within_s: float) -> float:
        """The first submits a message of each size; how long it takes until the second has one of them."""
        began_s = monotonic()
        for size in sizes:
            self.near.give({"photo": bytes(size)})
        self.fleet.until("one is carried", lambda: "carried" in self.near.states(), within_s)
        return monotonic() - began_s

    def hurry(self, within_s: float) -> tuple[float, list[str]]:
        """While large ones are under way, an urgent one is submitted: how long it takes, and where the others are."""
        self.fleet.until("they are under way", lambda: self.link.taken_bytes[THERE] > 100_000, within_s)
        began_s = monotonic()
        self.near.give({"form": bytes(1000)}, priority="urgent")
        self.fleet.until("it is carried", lambda: self.near.states()[-1] == "carried", within_s)
        took_s = monotonic() - began_s
        return took_s, self.near.states()[:-1]

    def was_never_lost(self) -> bool:
        """Whether it was one contact all the time."""
        return self.link.connections == 1 and not self.near.logged("ended")


@pytest.fixture
def village(tmp_path: Path) -> Iterator[Village]:
    with Village(tmp_path) as made:
        yield made


@dataclass
class Weak:
    """Pairs with weak links, all busy at once, and how long each takes."""

    crawl: Pair
    far: Pair
    lossy: Pair
    brief: Pair
    took_s: dict[str, Future[float]]
    hurried: Future[tuple[float, list[str]]]


@pytest.fixture(scope="module")
def weak(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Weak]:
    lossy = Nature(rate_bytes_per_s=1_000_000, delay_s=0.02, stall_s=1.5, stall_every_bytes=300_000)
    with Village(tmp_path_factory.mktemp("village")) as village, ThreadPoolExecutor() as threads:
        pairs = {
            "crawl": village.pair("crawl", Nature(rate_bytes_per_s=20_000)),
            "far": village.pair("far", Nature(delay_s=1.0)),
            "lossy": village.pair("lossy", lossy),
            "brief": village.pair("brief", Nature(rate_bytes_per_s=500_000, cut_after_s=5.0)),
        }
        village.fleet.start(*(node for pair in pairs.values() for node in (pair.near, pair.far)))
        sizes = {"crawl": (MB, MB), "far": (MB,), "lossy": (4 * MB,), "brief": (4 * MB,)}
        took_s = {name: threads.submit(pair.carry, sizes[name], 90.0) for name, pair in pairs.items()}
        yield Weak(**pairs, took_s=took_s, hurried=threads.submit(pairs["crawl"].hurry, 90.0))


# --- contacts that die ------------------------------------------------------------------------------------------


def test_contacts_that_die_without_a_word(village: Village, record_property: Record) -> None:
    fleet = village.fleet
    ana, *others = village.enroll("ana", "budi", "citra", "dewi", "eko")
    links = [village.link(other) for other in others]
    ana.configure(peers=[link.address for link in links])
    fleet.start(ana, *others)
    fleet.until("all meet", lambda: len(ana.contacts()) == len(others), STARTS_S)
    budi, citra, dewi, eko = others

    citra.signal(signal.SIGSTOP)
    links[0].silence()
    links[2].silence(THERE)
    links[3].silence(BACK)
    began_s = monotonic()
    ends = {
        "a dead link, at the one end": lambda: "budi" not in ana.contacts(),
        "a dead link, at the other end": lambda: budi.contacts() == [],
        "a hung peer": lambda: "citra" not in ana.contacts(),
        "a peer that does not hear, at the one end": lambda: "dewi" not in ana.contacts(),
        "a peer that does not hear, at the other end": lambda: dewi.contacts() == [],
        "a peer that is not heard, at the one end": lambda: "eko" not in ana.contacts(),
        "a peer that is not heard, at the other end": lambda: eko.contacts() == [],
    }
    noticed: set[str] = set()

    def all_noticed() -> bool:
        for what in sorted(ends.keys() - noticed):
            if ends[what]():
                noticed.add(what)
                measured(record_property, what, began_s)
        return noticed == ends.keys()

    fleet.until("all is noticed", all_noticed, DEAD_AFTER_S + ACTS_S)

    began_s = monotonic()
    citra.signal(signal.SIGCONT)
    for link in links:
        link.flow()
    fleet.until("all meet again", lambda: len(ana.contacts()) == len(others), 2 * STARTS_S)
    measured(record_property, "from the return of all to contacts", began_s)


# --- several contacts -------------------------------------------------------------------------------------------


def test_another_holder_takes_over_when_one_stalls(village: Village, record_property: Record) -> None:
    fleet = village.fleet
    ana, budi, citra = village.enroll("ana", "budi", "citra")
    ana.configure(peers=[budi.address])
    fleet.start(ana, budi)
    ana.give({"photo": bytes(4 * MB)})
    fleet.until("both hold it", lambda: ana.states() == ["carried"])
    links = {node: village.link(node, Nature(rate_bytes_per_s=MB)) for node in (ana, budi)}
    citra.configure(peers=[link.address for link in links.values()])
    fleet.start(citra)
    fleet.until("both are met", lambda: len(citra.contacts()) == 2)

    def busiest() -> Node:
        return max(links, key=lambda node: links[node].taken_bytes[BACK])

    fleet.until("one of them sends", lambda: links[busiest()].taken_bytes[BACK] > MB / 2)
    stopped = busiest()
    stopped.signal(signal.SIGSTOP)
    began_s = monotonic()
    bundles = parts_for(4 * MB)
    fleet.until("all has come", lambda: citra.get("status")["carrying"]["bundles"] >= bundles)
    took_s = measured(record_property, "the rest, from another holder than the one that stalls", began_s)
    stopped.signal(signal.SIGCONT)
    assert took_s < 2 / 3 * DEAD_AFTER_S


def test_nobody_starves(village: Village, record_property: Record) -> None:
    fleet = village.fleet
    ana, budi, citra = village.enroll("ana", "budi", "citra")
    slow = village.link(budi, Nature(rate_bytes_per_s=200_000))
    fast = village.link(citra, Nature(rate_bytes_per_s=2_000_000))
    ana.configure(peers=[slow.address, fast.address])
    fleet.start(ana, budi, citra)
    fleet.until("both are met", lambda: len(ana.contacts()) == 2)
    began_s = monotonic()
    for _ in range(10):
        ana.give({"photo": bytes(200_000)})

    def carried(node: Node) -> int:
        return int(node.get("status")["carrying"]["bundles"])

    fleet.until("the fast one has all", partial(_all_carried, citra, 10))
    took_s = measured(record_property, "2 MB at 2 MB/s, beside a slow one", began_s)
    assert took_s < 4.0
    assert carried(budi) > 0
    fleet.until("the slow one has all", partial(_all_carried, budi, 10))
    took_s = measured(record_property, "2 MB at 200 kB/s, beside a fast one", began_s)
    assert took_s < 15.0


def _all_carried(node: Node, bundles: int) -> bool:
    return int(node.get("status")["carrying"]["bundles"]) >= bundles


# --- contacts that are weak ----------------------------------------------------------------------------------------


def test_round_trips_of_two_seconds(weak: Weak, record_property: Record) -> None:
    assert noted(record_property, "1 MB and round trips of 2 s: s", weak.took_s["far"].result()) < 15
    assert weak.far.was_never_lost()


def test_a_link_that_loses_packets(weak: Weak, record_property: Record) -> None:
    assert noted(record_property, "4 MB over a lossy link: s", weak.took_s["lossy"].result()) < 40
    assert weak.lossy.was_never_lost()


def test_a_link_that_lasts_for_seconds(weak: Weak, record_property: Record) -> None:
    took_s = noted(record_property, "4 MB at 500 kB/s, cut every 5 s: s", weak.took_s["brief"].result())
    assert took_s < 20
    assert weak.brief.link.connections >= 2
    sent = weak.brief.link.taken_bytes[THERE] / (4 * MB)
    assert noted(record_property, "bytes sent for each of the message", sent) < 1.5


def test_a_crawl_and_what_is_urgent(weak: Weak, record_property: Record) -> None:
    took_s, others = weak.hurried.result()
    noted(record_property, "an urgent message at 20 kB/s, behind 2 MB: s", took_s)
    assert others[1] != "carried"
    noted(record_property, "1 MB at 20 kB/s: s", weak.took_s["crawl"].result())
    assert weak.crawl.was_never_lost()

"""Power cuts: a daemon is killed in the middle of things; what was acknowledged is delivered, once.

Ana's messages travel to Budi through a relay, and from him to the office through another. A relay carries just so
many bytes and holds the rest, so that a daemon dies at a chosen byte of a transfer. The points are drawn from a seed.
"""

from __future__ import annotations

import contextlib
import random
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from meshnode.core.limits import MIB
from tests.app.fleets import Fleet, Node, assert_refused, command, environment
from tests.app.relay import Relay

SEED = 20_260_801
#: A transfer of the messages of one round.
ROUND_BYTES = 3 * MIB


@dataclass
class Chain:
    """Ana, Budi, the office, the relays between them, and what was acknowledged."""

    fleet: Fleet
    ana: Node
    budi: Node
    office: Node
    to_budi: Relay
    to_office: Relay
    acknowledged: dict[str, bytes] = field(default_factory=dict)

    def give(self, seed: object, size: int) -> None:
        content = random.Random(repr(seed)).randbytes(size)
        self.acknowledged[self.ana.give({"record": content})["key"]] = content

    def check_delivered(self) -> None:
        """Everything that was acknowledged arrives, and Ana hears of it; nothing arrives twice, and nothing else."""
        self.fleet.until("the office has all", lambda: len(self.office.inbox()) >= len(self.acknowledged))
        self.fleet.until("Ana knows", lambda: set(self.ana.states()) == {"delivered"})
        inbox = self.office.inbox()
        assert set(inbox) == set(self.acknowledged)
        for key, content in self.acknowledged.items():
            assert (inbox[key] / "record").read_bytes() == content
        assert {row["key"] for row in self.ana.get("messages")} == set(self.acknowledged)
        nodes = (self.budi, self.office)
        self.fleet.until(
            "nothing is carried",
            lambda: not any(node.get("status")["carrying"]["bundles"] for node in nodes),
        )
        assert self.office.get("status")["alarms"] == []


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    with contextlib.ExitStack() as stack:
        fleet = stack.enter_context(Fleet(tmp_path_factory.mktemp("fleet")))
        office, ana, budi = fleet.enroll("office", "office"), fleet.enroll("ana"), fleet.enroll("budi")
        # Nobody finds a shorter way than the relays, whose own address is 127.0.0.1.
        ana.host, budi.host, office.host = "127.0.0.2", "127.0.0.3", "127.0.0.4"
        to_budi = stack.enter_context(Relay(budi.address))
        to_office = stack.enter_context(Relay(office.address))
        ana.configure(peers=[to_budi.address])
        budi.configure(peers=[to_office.address])
        office.configure()
        fleet.start(office, budi, ana)
        yield Chain(fleet, ana, budi, office, to_budi, to_office)


def points() -> list[tuple[str, str, int]]:
    """Who is killed, while which transfer is at how many bytes."""
    draw = random.Random(SEED)
    cases = [("ana", "to_budi"), ("budi", "to_budi"), ("budi", "to_office"), ("office", "to_office")]
    return [(*case, draw.randrange(ROUND_BYTES)) for case in cases]


@pytest.mark.parametrize(("victim", "transfer", "at_bytes"), points())
def test_killed_in_the_middle_of_a_transfer(chain: Chain, victim: str, transfer: str, at_bytes: int) -> None:
    relay: Relay = getattr(chain, transfer)
    node: Node = getattr(chain, victim)
    relay.hold_after(at_bytes)
    for number, size in enumerate((1_500_000, 900_000, 20_000, 900_000)):
        chain.give((victim, transfer, at_bytes, number), size)
    relay.wait_held()
    node.kill()
    relay.cut()
    chain.fleet.start(node)
    chain.check_delivered()


def test_killed_as_soon_as_a_message_is_in_the_inbox(chain: Chain) -> None:
    before = len(chain.office.inbox())
    for number in range(8):
        chain.give(("inbox", number), 400_000)
    chain.fleet.until("the first is there", lambda: len(chain.office.inbox()) > before)
    chain.office.kill()
    chain.fleet.start(chain.office)
    chain.check_delivered()


def test_killed_right_after_the_answer(chain: Chain) -> None:
    for turn in range(2):
        chain.give(("answer", turn), 300_000 * turn)
        chain.ana.kill()
        chain.fleet.start(chain.ana)
    chain.check_delivered()


def test_all_killed_at_once(chain: Chain) -> None:
    for number in range(5):
        chain.give(("all", number), 700_000)
    for node in (chain.ana, chain.budi, chain.office):
        node.kill()
    chain.fleet.start(chain.ana, chain.budi, chain.office)
    chain.check_delivered()


def bundles_on_disk(node: Node) -> int:
    with contextlib.closing(sqlite3.connect(f"file:{node.home}/store.db?mode=ro", uri=True)) as store:
        count: int = store.execute("SELECT count(*) FROM entry").fetchone()[0]
    return count


@pytest.mark.parametrize("at_bundles", [1, random.Random(SEED).randrange(2, 100)])
def test_killed_during_a_submission(chain: Chain, tmp_path: Path, at_bundles: int) -> None:
    ana = chain.ana
    large = tmp_path / "large"
    large.write_bytes(random.Random(at_bundles).randbytes(32 * MIB))
    chain.give(("before", at_bundles), 1000)
    before = bundles_on_disk(ana)
    with subprocess.Popen(
        [*command(ana.home), "submit", large],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    ) as submitting:
        chain.fleet.until("some of it is on the disk", lambda: bundles_on_disk(ana) >= before + at_bundles)
        ana.kill()
        said, refused = submitting.communicate(timeout=20)
    done = subprocess.CompletedProcess([], submitting.returncode, said, refused)
    assert_refused(done, "does not answer", code=3)
    chain.fleet.start(ana)
    chain.fleet.until("nothing of it remains", lambda: bundles_on_disk(ana) <= before)
    chain.give(("after", at_bundles), 1000)
    chain.check_delivered()


def test_the_command_is_killed_during_its_submission(chain: Chain, tmp_path: Path) -> None:
    ana = chain.ana
    large = tmp_path / "large"
    large.write_bytes(random.Random(0).randbytes(32 * MIB))
    before = bundles_on_disk(ana)
    with subprocess.Popen([*command(ana.home), "submit", large], env=environment()) as submitting:
        chain.fleet.until("some of it is on the disk", lambda: bundles_on_disk(ana) >= before + 5)
        submitting.send_signal(signal.SIGKILL)
    chain.fleet.until("nothing of it remains", lambda: bundles_on_disk(ana) <= before)
    chain.give("next", 1000)
    chain.check_delivered()

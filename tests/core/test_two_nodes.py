"""Nodes over pipes that deliver any bytes and break anywhere, on disks that fail and machines that crash.

While the faults go on, safety: nobody claims what is not on its disk, nobody is blamed, nothing is asked of two peers
at once. Then everything heals, and liveness: in little time all that was accepted is at the office, once, and every
node knows it and has freed the space.
"""

from __future__ import annotations

from hypothesis import HealthCheck, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from meshnode.core.bundle import ROUTINE, URGENT
from meshnode.core.custody import DELIVERED
from meshnode.core.identity import JournalId
from meshnode.core.intervals import NONE, Ranges
from meshnode.core.limits import DEAD_AFTER_S, GIB, PAYLOAD_SIZE_MAX
from meshnode.core.ports import NetworkChanged, Sighted
from meshnode.core.sealing import CHUNK_SIZE
from tests.core.fleets import Fleet
from tests.core.hosts import PORT, Host
from tests.core.worlds import Office, World, check_durable

FLEET = Fleet()

#: A single bundle, a larger one, two bundles, and three of which the last is nearly empty.
SIZES = [20, 9000, CHUNK_SIZE + 20, 2 * CHUNK_SIZE + 1]
#: Bytes that travel before the next thing happens: less than a frame, about one, a bundle, everything.
STRIDES = [1, 30, 200, 4000, 270_000, 10_000_000]

which = st.integers(0, 5)


class Nodes(RuleBasedStateMachine):
    """Some nodes in a world; `links` says who may reach whom."""

    names: tuple[str, ...] = ("siti", "office")
    links: tuple[tuple[str, str], ...] = (("siti", "office"),)
    quota_bytes = GIB

    def __init__(self) -> None:
        super().__init__()
        self.world = World(FLEET)
        self.world.watch = check_durable
        self.submitted: dict[tuple[str, int], bytes] = {}

    @initialize()
    def begin(self) -> None:
        for name in self.names:
            role = "office" if name == "office" else "officer"
            self.world.add(name, role, quota_bytes=self.quota_bytes)
        self.office = Office(self.world.hosts["office"])
        for one, other in self.links:
            self.world.link(one, other)
            self.sighted(one, other)

    def host(self, number: int) -> Host:
        return self.world.hosts[self.names[number % len(self.names)]]

    def sighted(self, one: str, other: str) -> None:
        for name, peer in ((one, other), (other, one)):
            device = self.world.hosts[peer].device
            self.world.hosts[name].handle(Sighted(f"{peer}:{PORT}", device, "dns-sd"))

    # --- what happens -------------------------------------------------------------------------------------------

    @rule(who=which, size=st.sampled_from(SIZES), urgent=st.booleans())
    def submit(self, who: int, size: int, urgent: bool) -> None:
        host = self.host(who)
        number = len(self.submitted)
        data = f"{host.name} {number} ".encode().ljust(size, b".")
        submission = host.submit(data, URGENT if urgent else ROUTINE)
        self.submitted[host.name, submission] = data

    @rule()
    def dial(self) -> None:
        self.world.answer_dials()

    @precondition(lambda self: self.world.pipes)
    @rule(pipe=which, side=st.integers(0, 1), size=st.sampled_from(STRIDES))
    def deliver(self, pipe: int, side: int, size: int) -> None:
        self.world.pipes[pipe % len(self.world.pipes)].deliver(side, size)

    @rule(rounds=st.integers(1, 6))
    def deliver_everything(self, rounds: int) -> None:
        for _ in range(rounds):
            self.world.step()

    @precondition(lambda self: self.world.pipes)
    @rule(pipe=which)
    def cut(self, pipe: int) -> None:
        self.world.pipes.pop(pipe % len(self.world.pipes)).cut()

    @precondition(lambda self: self.world.pipes)
    @rule(pipe=which)
    def fall_silent(self, pipe: int) -> None:
        """Nothing arrives any more, and nobody is told."""
        self.world.pipes[pipe % len(self.world.pipes)].silent = True

    @rule(link=which)
    def network_goes(self, link: int) -> None:
        self.world.unlink(*self.links[link % len(self.links)])

    @rule(link=which)
    def network_comes(self, link: int) -> None:
        one, other = self.links[link % len(self.links)]
        self.world.link(one, other)
        for name in (one, other):
            self.world.hosts[name].handle(NetworkChanged())
        self.sighted(one, other)

    @rule(who=which, count=st.integers(1, 4))
    def commit(self, who: int, count: int) -> None:
        self.host(who).commit(count)

    @rule(who=which, count=st.integers(1, 4))
    def disk_fails(self, who: int, count: int) -> None:
        self.host(who).fail(count)

    @rule(who=which)
    def crash(self, who: int) -> None:
        self.restart(self.host(who))

    @rule(who=which, count=st.integers(1, 4))
    def crash_right_after_a_commit(self, who: int, count: int) -> None:
        """It is on disk, but the node never heard of that."""
        host = self.host(who)
        rows = [row for write in host.pending[:count] for row in write.rows]
        host.store.commit(rows, self.world.clock.s)
        self.restart(host)

    def restart(self, host: Host) -> None:
        self.world.restart(host.name)
        for link in self.links:
            if host.name in link and frozenset(link) in self.world.links:
                self.sighted(*link)

    @rule(seconds=st.sampled_from([1, 3, int(DEAD_AFTER_S) + 1, 61]))
    def time_passes(self, seconds: int) -> None:
        self.world.pass_time(seconds, run=False)

    @rule()
    def office_takes(self) -> None:
        self.office.look()

    @rule(who=which, pick=which)
    def rot(self, who: int, pick: int) -> None:
        """What is carried for others may rot: its source has it still."""
        host = self.host(who)
        carried = [
            (journal.id, number)
            for journal in host.node.state.ledger.journals.values()
            if host.node.state.ledger.is_foreign(journal)
            for number in sorted(host.stored(journal.id) & journal.on_offer)
        ]
        if carried:
            host.store.spoil(*carried[pick % len(carried)])

    # --- what must be true all the time -------------------------------------------------------------------------

    @invariant()
    def nobody_is_blamed(self) -> None:
        for host in self.world.hosts.values():
            assert not [line for line in host.logs if "broke the protocol" in line], host.logs[-3:]

    @invariant()
    def nothing_is_asked_of_two_at_once(self) -> None:
        for host in self.world.hosts.values():
            seen: dict[JournalId, Ranges] = {}
            for contact in host.node.state.contacts.values():
                for journal, ranges in contact.wanting.items():
                    assert not ranges & seen.get(journal, NONE)
                    seen[journal] = seen.get(journal, NONE) | ranges

    @invariant()
    def the_ledger_is_the_store(self) -> None:
        """Once nothing is on its way to the disk."""
        for host in self.world.hosts.values():
            if host.pending:
                continue
            for record in host.store.load().journals:
                journal = host.journal(record.id)
                state = host.node.state
                left = Ranges.of(number for journal_id, number in state.rotten if journal_id == record.id)
                for drop in state.undropped:
                    left |= drop.ranges if drop.journal == record.id else NONE
                assert journal.held <= Ranges.of(record.entries) <= journal.held | left

    @invariant()
    def what_was_accepted_is_kept_by_its_source_until_it_is_taken(self) -> None:
        for host in self.world.hosts.values():
            for submission, accepted in host.accepted.items():
                if accepted.key not in self.office.taken:
                    journal, _, first = accepted.key.partition(":")
                    last = int(first) + accepted.bundles - 1
                    assert host.stored(JournalId(bytes.fromhex(journal))).covers(int(first), last), submission

    @invariant()
    def quotas_are_kept(self) -> None:
        for host in self.world.hosts.values():
            state = host.node.state
            assert state.ledger.foreign_size + state.landing_bytes <= self.quota_bytes

    # --- and in the end -----------------------------------------------------------------------------------------

    def teardown(self) -> None:
        if not self.world.hosts:
            return
        self.heal()
        self.check_end()

    def heal(self) -> None:
        self.world.watch = None  # it is slow, and has seen enough
        for one, other in self.links:
            self.network_comes(self.links.index((one, other)))
        for _ in range(150):
            self.world.pass_time(1)
            self.office.look()
            self.world.run()
            if self.settled():
                break
        for host in self.world.hosts.values():
            note(f"{host.name}: {host.logs[-12:]}")
        assert self.settled(), "not everything has arrived"

    def settled(self) -> bool:
        """Whether everybody knows that everything has arrived."""
        for host in self.world.hosts.values():
            state = host.node.state
            if any(message.state != DELIVERED for message in state.custody.states()):
                return False
            if state.ledger.foreign_size or list(state.ledger.offers()):
                return False
        digests = [host.node.state.ledger.digest_buckets([]) for host in self.world.hosts.values()]
        return all(digest == digests[0] for digest in digests)

    def check_end(self) -> None:
        hosts = self.world.hosts.values()
        for host in hosts:
            for submission, accepted in host.accepted.items():
                assert self.office.taken[accepted.key] == self.submitted[host.name, submission]
        taken = list(self.office.taken.values())
        assert len(set(taken)) == len(taken), "arrived twice"
        assert set(taken) <= set(self.submitted.values())
        for host in hosts:
            state = host.node.state
            assert state.ledger.foreign_bytes == {}
            assert state.landing_bytes == 0
            assert all(not contact.wanting for contact in state.contacts.values())
            assert state.fetching.landing == {}
        steps, carried = self.world.steps, sum(pipe.carried_bytes for pipe in self.world.pipes)
        self.world.pass_time(30)
        idle_bytes = sum(pipe.carried_bytes for pipe in self.world.pipes) - carried
        assert idle_bytes <= len(self.world.pipes) * 30 * 40, "there is nothing left to say but PING"
        assert self.world.steps < steps + 200


class Chain(Nodes):
    """An officer that never sees the office, and one who carries for it."""

    names = ("siti", "agus", "office")
    links = (("siti", "agus"), ("agus", "office"))


class Strait(Chain):
    """A chain through a device that has room for hardly more than one message."""

    quota_bytes = 3 * PAYLOAD_SIZE_MAX


class Triangle(Nodes):
    """Everybody meets everybody."""

    names = ("siti", "agus", "office")
    links = (("siti", "agus"), ("agus", "office"), ("siti", "office"))


def test_a_message_larger_than_a_carriers_room_passes_through_it() -> None:
    world = World(FLEET)
    siti, agus = world.add("siti"), world.add("agus", quota_bytes=3 * PAYLOAD_SIZE_MAX)
    office = Office(world.add("office", "office"))
    world.open(siti, agus)
    world.open(agus, office.host)
    siti.submit(bytes(5 * CHUNK_SIZE))
    for _ in range(60):
        world.pass_time(1)
        office.look()
        world.run()
    assert list(office.taken.values()) == [bytes(5 * CHUNK_SIZE)]


def budget(examples: int) -> settings:
    """Enough to find what there is to find, in seconds."""
    return settings(
        max_examples=examples,
        stateful_step_count=40,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


TestTwo = Nodes.TestCase
TestTwo.settings = budget(40)
TestChain = Chain.TestCase
TestChain.settings = budget(40)
TestStrait = Strait.TestCase
TestStrait.settings = budget(40)
TestTriangle = Triangle.TestCase
TestTriangle.settings = budget(40)

"""How nodes come to know the same: finished journals by digest, receipts, and several offices of one endpoint."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshnode.core.frames import BUCKETS, Finished, Have, Held, Hello, ReceiptFrame
from meshnode.core.identity import JournalId
from meshnode.core.intervals import NONE, Ranges
from meshnode.core.knowing import RECEIPT_AGAIN_S
from meshnode.core.ledger import Ledger, digest_bytes, digest_total
from meshnode.core.limits import JOURNALS_PER_FRAME, PEER_JOURNALS_MAX, RANGES_MAX
from meshnode.core.ports import Sighted, Taken, Tick
from meshnode.core.receipt import Receipt, read_receipt
from meshnode.core.rows import PutReceipt, Row
from meshnode.drivers.memory import MemoryStore
from tests.core.fleets import Fleet, Source, seed
from tests.core.hosts import PORT, Host
from tests.core.worlds import Office, World, check_durable

FLEET = Fleet()
DEWI = Source(FLEET, "dewi")


def finished(count: int) -> list[Receipt]:
    """Receipts of as many journals."""
    journals = [JournalId(seed("finished", number)[:16]) for number in range(count)]
    return [FLEET.receipt(journal, Ranges.span(1, 40)) for journal in journals]


def knowing(receipts: list[Receipt]) -> MemoryStore:
    """A store with these."""
    store = MemoryStore()
    rows: list[Row] = [PutReceipt(receipt, 0.0) for receipt in receipts]
    store.commit(rows, 0.0)
    return store


FINISHED = finished(5000)


@pytest.mark.parametrize("count", [0, 1, 50, 5000])
def test_finished_journals_in_common_cost_next_to_nothing(count: int) -> None:
    world = World(FLEET)
    siti, agus = (world.add(name, store=knowing(FINISHED[:count])) for name in ("siti", "agus"))
    pipe = world.open(siti, agus)
    world.run()
    assert pipe.carried_bytes < 300
    assert len(siti.node.state.ledger.journals) == len(agus.node.state.ledger.journals) == count


@pytest.mark.parametrize("deed", ["lacks one", "knows an older one", "both"])
def test_the_one_receipt_that_differs_is_found_and_exchanged(deed: str) -> None:
    newer = FLEET.receipt(FINISHED[77].journal, Ranges.span(1, 41), 2 << 16)
    other = FLEET.receipt(FINISHED[4000].journal, Ranges.span(1, 41), 2 << 16)
    mine = {
        "lacks one": FINISHED,
        "knows an older one": [*FINISHED[:77], newer, *FINISHED[78:]],
        "both": [*FINISHED[:77], newer, *FINISHED[78:]],
    }[deed]
    theirs = {
        "lacks one": FINISHED[1:],
        "knows an older one": FINISHED,
        "both": [*FINISHED[:4000], other, *FINISHED[4001:]],
    }[deed]
    world = World(FLEET)
    siti, agus = world.add("siti", store=knowing(mine)), world.add("agus", store=knowing(theirs))
    pipe = world.open(siti, agus)
    world.run()
    buckets_bytes = 2 * 256 * 10
    assert pipe.carried_bytes < buckets_bytes + 6000
    known = [{r.journal: r.serial for r, _ in host.store.load().receipts} for host in (siti, agus)]
    assert known[0] == known[1]
    assert len(known[0]) == 5000
    assert sum(serial == 2 << 16 for serial in known[0].values()) == {"lacks one": 0, "both": 2}.get(deed, 1)


def test_a_new_device_learns_everything() -> None:
    world = World(FLEET)
    siti, agus = world.add("siti", store=knowing(FINISHED[:500])), world.add("agus")
    world.open(agus, siti)
    world.run()
    assert {r.journal for r, _ in agus.store.load().receipts} == {r.journal for r in FINISHED[:500]}


@given(
    st.dictionaries(st.integers(0, 5), st.integers(1, 3)),
    st.dictionaries(st.integers(0, 5), st.integers(1, 3)),
)
@settings(max_examples=40)
def test_any_two_nodes_know_the_newest_after_meeting(one: dict[int, int], other: dict[int, int]) -> None:
    """Journals 0 to 2 share a bucket."""
    journals = [JournalId(bytes((max(0, n - 2), n)) + bytes(14)) for n in range(6)]
    world = World(FLEET)
    world.watch = check_durable
    for name, known in (("siti", one), ("agus", other)):
        receipts = [FLEET.receipt(journals[n], Ranges.span(1, serial), serial) for n, serial in known.items()]
        world.add(name, store=knowing(receipts))
    world.open(world.hosts["siti"], world.hosts["agus"])
    world.run()
    newest = {journals[n]: max(one.get(n, 0), other.get(n, 0)) for n in {*one, *other}}
    for host in world.hosts.values():
        assert {receipt.journal: receipt.serial for receipt, _ in host.store.load().receipts} == newest


def test_listed_journals_are_not_in_the_digest() -> None:
    host = Host(FLEET, store=knowing(FINISHED[:3]))
    agus = host.meet("agus", greet=False)
    agus.greet(have=Have(True, (Held(FINISHED[0].journal, Ranges.single(50), 1 << 16),)))
    rest = Ledger(host.device)
    for receipt in FINISHED[1:3]:
        rest.apply(receipt, 0.0)
    (said,) = agus.take(Finished)
    assert said == Finished(digest_bytes([digest_total(rest.digest_buckets([]))]))
    assert agus.take(ReceiptFrame) == []


def test_a_digest_that_differs_is_answered_by_buckets_and_buckets_by_journals() -> None:
    host = Host(FLEET, store=knowing(FINISHED[:3]))
    wati = host.meet("wati")
    (total,) = wati.take(Finished)
    wati.says(total)
    assert wati.take(Finished) == []
    agus = host.meet("agus")
    agus.take(Finished)
    agus.says(Finished((b"\0" * 8,)))
    (buckets,) = agus.take(Finished)
    assert len(buckets.buckets) == BUCKETS
    at = FINISHED[1].journal[0]
    theirs = list(buckets.buckets)
    theirs[at] = b"\0" * 8
    agus.take(Have)
    agus.says(Finished(tuple(theirs)))
    (have,) = agus.take(Have)
    assert have == Have(False, (Held(FINISHED[1].journal, NONE, 1 << 16),))
    agus.says(Have(False, (Held(FINISHED[1].journal, NONE, 0),)))
    (receipt,) = agus.take(ReceiptFrame)
    assert receipt == ReceiptFrame(FINISHED[1].body, FINISHED[1].signature)


def test_a_newer_receipt_is_asked_for() -> None:
    host = Host(FLEET, store=knowing(FINISHED[:1]))
    agus = host.meet("agus")
    agus.take(Have)
    journal = FINISHED[0].journal
    agus.says(Have(False, (Held(journal, NONE, 2 << 16), Held(DEWI.journal, NONE, 1))))
    (have,) = agus.take(Have)
    assert have.journals == (Held(journal, NONE, 1 << 16), Held(DEWI.journal, NONE, 0))


def test_a_bundle_that_comes_while_receipts_are_compared_is_still_fetched() -> None:
    """The journal was finished when the lists were exchanged, and is not any more when the digests are."""
    world = World(FLEET)
    siti, agus = world.add("siti"), world.add("agus")
    siti.submit(b"one")
    world.run()
    receipt = FLEET.receipt(siti.own_journal, Ranges.single(1))
    world.hosts["siti"].store.commit([PutReceipt(receipt, 0.0)], 0.0)
    siti.node.state.ledger.apply(receipt, 0.0)
    pipe = world.open(siti, agus)
    for _ in range(4):  # HELLO, HAVE
        pipe.deliver(0, 1 << 20)
        pipe.deliver(1, 1 << 20)
        if agus.node.state.greeted and siti.node.state.greeted:
            break
    siti.submit(b"two")
    siti.settle()
    world.run()
    assert agus.stored(siti.own_journal) == Ranges.single(2)
    assert agus.journal(siti.own_journal).receipted == Ranges.single(1)


# --- several offices --------------------------------------------------------------------------------------------


def test_two_offices_of_one_endpoint_come_to_say_the_same() -> None:
    world = World(FLEET)
    world.watch = check_durable
    main, branch = world.add("office", "office"), world.add("branch", "office")
    siti = world.add("siti")
    siti.submit(b"one")
    siti.submit(b"two")
    journal = siti.own_journal
    siti.settle()
    offices = [Office(main), Office(branch)]
    for office in offices:  # each is met alone, and takes both
        pipe = world.open(siti, office.host)
        pipe.deliver(0, 1 << 20)
        for _ in range(6):
            pipe.deliver(1, 1 << 20)
            pipe.deliver(0, 1 << 20)
            office.host.settle()
        office.look()
        office.host.settle()
        pipe.cut()
    assert siti.journal(journal).receipted == NONE
    world.pipes.clear()
    world.open(main, branch)
    world.open(siti, branch)
    world.run()
    serials = {host.journal(journal).serial for host in world.hosts.values()}
    assert len(serials) == 1
    for host in world.hosts.values():
        assert host.journal(journal).receipted == Ranges.span(1, 2)
        (receipt,) = [receipt for receipt, _ in host.store.load().receipts]
        assert receipt.ranges == Ranges.span(1, 2)


def test_two_offices_that_took_different_messages_sign_for_both() -> None:
    world = World(FLEET)
    main, branch = world.add("office", "office"), world.add("branch", "office")
    for host, number in ((main, 1), (branch, 2)):
        agus = host.meet("agus")
        agus.says(Have(False, (Held(DEWI.journal, Ranges.single(number), 0),)))
        agus.gives(DEWI.bundle(number))
        host.settle()
        host.handle(Taken(DEWI.journal, Ranges.single(number)))
        host.settle()
        agus.lose()
    world.open(main, branch)
    world.run()
    for host in (main, branch):
        journal = host.journal(DEWI.journal)
        assert journal.receipt is not None
        assert journal.receipted == journal.receipt.ranges == Ranges.span(1, 2)
        assert journal.receipt.serial >> 32 == 2
    assert main.journal(DEWI.journal).serial == branch.journal(DEWI.journal).serial
    world.pass_time(10)
    assert world.steps < 200, "they do not sign against each other for ever"


def test_a_receipt_never_has_more_ranges_than_anybody_reads() -> None:
    """A source that leaves every other number out gets what is beyond the last readable gap signed later."""
    office = Host(FLEET, "office", "office")
    agus = office.meet("agus")
    agus.says(Have(False, (Held(DEWI.journal, Ranges.single(1), 0),)))
    agus.gives(DEWI.bundle(1))
    office.settle()
    gappy = Ranges((2 * n + 1, 2 * n + 1) for n in range(RANGES_MAX + 9))
    office.handle(Taken(DEWI.journal, gappy))
    office.settle()
    (said,) = agus.take(ReceiptFrame)
    assert read_receipt(said.body, said.signature).ranges == Ranges(gappy.pairs[:RANGES_MAX])
    office.restart()
    assert len(office.journal(DEWI.journal).receipted) == RANGES_MAX


# --- a disk that does not take receipts -------------------------------------------------------------------------


def receipts_pending(host: Host) -> list[Ranges]:
    """What those say that are on their way to the disk."""
    rows = (row for write in host.pending for row in write.rows)
    return [row.receipt.ranges for row in rows if isinstance(row, PutReceipt)]


def office_that_took(count: int) -> Host:
    """An office that holds as many bundles, each in a journal of its own, of which nothing is signed yet."""
    office = Host(FLEET, "office", "office")
    agus = office.meet("agus")
    for source in SOURCES[:count]:
        agus.says(Have(False, (Held(source.journal, Ranges.single(1), 0),)))
        agus.gives(source.bundle(1))
    office.settle()
    agus.lose()
    return office


SOURCES = [Source(FLEET, name) for name in ("dewi", "budi", "eko")]


def test_a_receipt_that_the_disk_did_not_take_is_written_again_a_second_later() -> None:
    office = office_that_took(1)
    office.handle(Taken(DEWI.journal, Ranges.single(1)))
    for _ in range(3):
        office.fail()
        failed_s = office.clock.s
        assert office.node.next_tick_s() <= failed_s + RECEIPT_AGAIN_S
        office.pass_time(RECEIPT_AGAIN_S - 0.01, ticks=0.1)
        assert receipts_pending(office) == []
        office.clock.s = failed_s + RECEIPT_AGAIN_S
        office.handle(Tick())
        assert receipts_pending(office) == [Ranges.single(1)]
        office.pass_time(5 * RECEIPT_AGAIN_S)
        assert receipts_pending(office) == [Ranges.single(1)], "the disk has it already"
    office.settle()
    office.pass_time(5 * RECEIPT_AGAIN_S)
    assert office.pending == []
    assert [receipt.ranges for receipt, _ in office.store.load().receipts] == [Ranges.single(1)]


@pytest.mark.parametrize("count", [1, 3])
def test_however_often_it_ticks_a_broken_disk_is_tried_once_a_second(count: int) -> None:
    office = office_that_took(count)
    for source in SOURCES[:count]:
        office.handle(Taken(source.journal, Ranges.single(1)))
    tried = 0
    for _ in range(100):
        office.clock.s += RECEIPT_AGAIN_S / 10
        office.handle(Tick())
        tried += len(receipts_pending(office))
        if office.pending:
            office.fail()
    assert count * 8 <= tried <= count * 11
    office.pass_time(2 * RECEIPT_AGAIN_S)
    office.settle()
    assert len(office.store.load().receipts) == count


# --- greetings --------------------------------------------------------------------------------------------------


def test_a_contact_of_two_idle_nodes_costs_little() -> None:
    world = World(FLEET)
    siti, agus = world.add("siti"), world.add("agus")
    world.link("siti", "agus")
    siti.handle(Sighted(f"agus:{PORT}", agus.device, "dns-sd"))
    agus.handle(Sighted(f"siti:{PORT}", siti.device, "dns-sd"))
    world.run()
    (pipe,) = world.pipes
    before = pipe.carried_bytes
    assert before < 300
    world.pass_time(60)
    assert world.pipes == [pipe]
    assert pipe.carried_bytes - before <= 2 * 12 * 2 * 6, "PING and PONG"
    assert not [host.name for host in world.hosts.values() if host.node.state.greeted == []]
    assert Hello("x", (), 0, 0, 0, False, 0).version_max == 1


# --- a peer that lists for ever ---------------------------------------------------------------------------------


def listing(first: int, count: int, ranges: Ranges, serial: int) -> Have:
    """A list of as many journals that do not exist."""
    journals = (JournalId((first + number).to_bytes(16, "big")) for number in range(count))
    return Have(False, tuple(Held(journal, ranges, serial) for journal in journals))


def test_finished_journals_named_without_end_are_answered_and_forgotten() -> None:
    host = Host(FLEET)
    agus = host.meet("agus")
    for at in range(20):
        agus.says(listing(at * JOURNALS_PER_FRAME, JOURNALS_PER_FRAME, NONE, 5))
    (contact,) = host.node.state.contacts.values()
    assert len(contact.serials) == len(contact.offers) == len(contact.listed) == 0
    assert len(host.node.state.ledger.journals) == 0
    assert agus.closed is None


@pytest.mark.parametrize(("ranges", "serial"), [(NONE, 5), (Ranges.single(1), 0)])
def test_a_first_list_without_end_is_a_fault(ranges: Ranges, serial: int) -> None:
    host = Host(FLEET)
    agus = host.meet("agus", greet=False)
    agus.greet(have=Have(False, ()))
    for at in range(2 * PEER_JOURNALS_MAX // JOURNALS_PER_FRAME + 1):
        if agus.closed is None:
            agus.says(listing(at * JOURNALS_PER_FRAME, JOURNALS_PER_FRAME, ranges, serial))
    assert agus.closed == f"HAVE lists more than {PEER_JOURNALS_MAX} journals."

"""The node: what it acknowledges and when, what it makes room for, what it keeps and for how long."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshnode.core.bundle import URGENT
from meshnode.core.custody import CARRIED, DELIVERED, ON_THIS_DEVICE_ONLY
from meshnode.core.errors import NoRoom
from meshnode.core.frames import Cert, Have, Held, Hello, Ping, Pong, ReceiptFrame, Stored, Want, Wanted
from meshnode.core.frames import Fleet as FleetFrame
from meshnode.core.intervals import NONE, Ranges
from meshnode.core.limits import (
    CREDIT_BYTES,
    DEAD_AFTER_S,
    GIB,
    HANDSHAKE_S,
    HOUSEKEEPING_S,
    KEEP_RECEIPTED_S,
    KIB,
    MIB,
    PAYLOAD_SIZE_MAX,
    PING_AFTER_S,
    SEND_AHEAD_BYTES,
    STORE_REST_S,
)
from meshnode.core.ports import Arrived, Event, SendBundle, Sighted, Space, Taken, Tick, Unreadable
from meshnode.core.rows import PutBundle
from meshnode.core.sealing import CHUNK_SIZE
from tests.core.fleets import Fleet, Source
from tests.core.hosts import Clock, Host, Puppet

FLEET = Fleet()
DAY_S = 24 * 3600


def offer(puppet: Puppet, source: Source, *numbers: int, whole: bool = False) -> None:
    """The puppet says that it holds these of the journal of `source`."""
    puppet.says(Have(whole, (Held(source.journal, Ranges.of(numbers), 0),)))


def fetch(puppet: Puppet, source: Source, *numbers: int, size: int = 2000, age_s: int = 0) -> None:
    """Offer bundles, hand over what is asked for until nothing is, and let it be written."""
    offer(puppet, source, *numbers)
    while asked := puppet.asked().get(source.journal, NONE):
        puppet.gives(*(source.bundle(number, size=size) for number in asked), age_s=age_s)
        puppet.host.settle()


def want_all(puppet: Puppet, source: Source, *numbers: int, credit: int = CREDIT_BYTES) -> None:
    """The puppet asks for these."""
    puppet.says(Want(credit, (Wanted(source.journal, Ranges.of(numbers), NONE, False),)))


# --- nothing is acknowledged before it is durable ---------------------------------------------------------------


def test_stored_is_said_to_everybody_once_it_is_written() -> None:
    host = Host(FLEET)
    agus, wati = host.meet("agus"), host.meet("wati")
    dewi = Source(FLEET, "dewi")
    offer(agus, dewi, 1, 2)
    assert agus.asked() == {dewi.journal: Ranges.span(1, 2)}
    assert wati.asked() == {}
    agus.gives(dewi.bundle(1), dewi.bundle(2))
    assert agus.take(Stored) == wati.take(Stored) == []
    assert host.journal(dewi.journal).held == NONE
    host.commit()
    assert agus.take(Stored) == wati.take(Stored) == [Stored(((dewi.journal, Ranges.span(1, 2), False),))]
    assert host.journal(dewi.journal).held == host.stored(dewi.journal) == Ranges.span(1, 2)


def test_a_submission_is_offered_once_it_is_written() -> None:
    host = Host(FLEET)
    agus = host.meet("agus")
    host.submit(b"record")
    assert agus.take(Stored) == []
    wati = host.meet("wati")
    assert wati.take(Have) == [Have(True, ())]
    host.commit()
    for puppet in (agus, wati):
        assert puppet.take(Stored) == [Stored(((host.own_journal, Ranges.single(1), False),))]


def test_the_office_signs_and_says_so_once_that_is_written() -> None:
    office = Host(FLEET, "office", "office")
    agus = office.meet("agus")
    dewi = Source(FLEET, "dewi")
    offer(agus, dewi, 1, 2)
    effects = agus.gives(dewi.bundle(1), dewi.bundle(2))
    assert not [effect for effect in effects if isinstance(effect, Arrived)]
    assert Arrived(dewi.journal) in office.commit()
    office.handle(Taken(dewi.journal, Ranges.single(1)))
    wati = office.meet("wati")  # who comes in the meantime must not hear of it either
    wati.says(Have(False, (Held(dewi.journal, Ranges.single(1), 0),)))
    assert agus.take(ReceiptFrame) == wati.take(ReceiptFrame) == []
    office.commit()
    receipts = agus.take(ReceiptFrame)
    assert receipts == wati.take(ReceiptFrame)
    assert len(receipts) == 1
    assert receipts[0].body == office.store.load().receipts[0][0].body
    assert office.journal(dewi.journal).held == Ranges.single(2)


def test_a_receipt_that_the_disk_refuses_is_written_and_said_later() -> None:
    office = Host(FLEET, "office", "office")
    agus = office.meet("agus")
    dewi = Source(FLEET, "dewi")
    fetch(agus, dewi, 1)
    office.handle(Taken(dewi.journal, Ranges.single(1)))
    office.fail()
    assert agus.take(ReceiptFrame) == []
    office.pass_time(1)
    office.fail()
    office.pass_time(1)
    assert agus.take(ReceiptFrame) == []
    office.commit()
    assert len(agus.take(ReceiptFrame)) == 1
    assert [receipt.ranges for receipt, _ in office.store.load().receipts] == [Ranges.single(1)]
    office.pass_time(5)
    assert office.pending == []


def test_what_is_taken_twice_is_signed_once() -> None:
    office = Host(FLEET, "office", "office")
    agus = office.meet("agus")
    dewi = Source(FLEET, "dewi")
    fetch(agus, dewi, 1, 2)
    for _ in range(3):
        office.handle(Taken(dewi.journal, Ranges.single(1)))
        office.settle()
    assert len(agus.take(ReceiptFrame)) == 1
    office.handle(Taken(dewi.journal, Ranges.single(2)))
    office.settle()
    assert office.journal(dewi.journal).receipted == Ranges.span(1, 2)


def test_what_the_disk_refuses_is_not_acknowledged_and_asked_for_again_when_there_is_room() -> None:
    host = Host(FLEET)
    agus = host.meet("agus")
    dewi = Source(FLEET, "dewi")
    offer(agus, dewi, 1)
    agus.asked()
    agus.gives(dewi.bundle(1))
    host.fail()
    assert agus.take(Stored) == []
    assert agus.asked() == {}
    assert str(host.node.state.store_problem) == "The store store.db cannot be used: disk I/O error."
    assert host.journal(dewi.journal).held == NONE
    host.handle(Space(2 * GIB, 0))
    assert agus.asked() == {dewi.journal: Ranges.single(1)}
    agus.gives(dewi.bundle(1))
    host.commit()
    assert agus.take(Stored) == [Stored(((dewi.journal, Ranges.single(1), False),))]
    assert host.node.state.store_problem is None


def test_the_certificate_of_a_source_is_kept_with_its_first_bundle() -> None:
    """Also when the disk refused it at first: a bundle without it could never be passed on."""
    host = Host(FLEET)
    agus = host.meet("agus")
    dewi = Source(FLEET, "dewi")
    offer(agus, dewi, 1, 2)
    agus.gives(dewi.bundle(1))
    host.fail()
    agus.gives(dewi.bundle(2), certify=False)
    host.commit()
    host.restart()
    wati = host.meet("wati")
    assert wati.take(Have) == [Have(True, (Held(dewi.journal, Ranges.single(2), 0),))]
    want_all(wati, dewi, 2)
    assert wati.take(Cert) == [Cert(dewi.certificate.der)]
    assert wati.link_sends() == [dewi.bundle(2)]


def test_a_bundle_that_comes_twice_is_written_once() -> None:
    host = Host(FLEET)
    agus, wati = host.meet("agus"), host.meet("wati")
    dewi = Source(FLEET, "dewi")
    for puppet in (agus, wati):
        offer(puppet, dewi, 1, 2, 3)
        puppet.says(Have(False, ()))
    wati.says(Have(False, (Held(dewi.journal, Ranges.span(1, 4), 0),)))
    agus.gives(dewi.bundle(1), dewi.bundle(1))
    wati.gives(dewi.bundle(1), dewi.bundle(4))
    host.settle()
    wati.gives(dewi.bundle(1))
    assert host.pending == []
    assert agus.closed is wati.closed is None
    assert host.journal(dewi.journal).held == Ranges.of([1, 4])


# --- what others need -------------------------------------------------------------------------------------------


def test_a_chain_pipelines_what_is_new() -> None:
    host = Host(FLEET)
    agus, wati = host.meet("agus"), host.meet("wati")
    dewi = Source(FLEET, "dewi")
    fetch(agus, dewi, 1)
    assert wati.take(Stored) == [Stored(((dewi.journal, Ranges.single(1), False),))]
    want_all(wati, dewi, 1)
    assert wati.take(Cert) == [Cert(dewi.certificate.der)]
    assert wati.owed == [SendBundle(wati.number, dewi.journal, 1, 2000, 0)]
    host.handle(Taken(dewi.journal, Ranges.single(1)))  # not an office: nothing happens
    assert host.pending == []


def test_age_grows_by_the_time_that_a_bundle_rests_here() -> None:
    host = Host(FLEET)
    agus = host.meet("agus")
    dewi = Source(FLEET, "dewi")
    fetch(agus, dewi, 1, age_s=1000)
    agus.lose()
    host.pass_time(60)
    host.restart()
    host.pass_time(40)
    wati = host.meet("wati")
    want_all(wati, dewi, 1)
    assert [effect.age_s for effect in wati.owed] == [1100]


def test_a_receipt_frees_space_and_is_passed_on_and_nothing_comes_back() -> None:
    host = Host(FLEET)
    agus, wati = host.meet("agus"), host.meet("wati")
    dewi = Source(FLEET, "dewi")
    fetch(agus, dewi, 1, 2, 3)
    receipt = FLEET.receipt(dewi.journal, Ranges.span(1, 2))
    agus.says(ReceiptFrame(receipt.body, receipt.signature))
    assert wati.take(ReceiptFrame) == []
    host.settle()
    assert wati.take(ReceiptFrame) == [ReceiptFrame(receipt.body, receipt.signature)]
    assert agus.take(ReceiptFrame) == []
    assert host.stored(dewi.journal) == host.journal(dewi.journal).held == Ranges.single(3)
    assert host.node.state.ledger.foreign_size == 2000
    offer(wati, dewi, 1, 2, 3)
    assert wati.asked() == {}
    host.restart()
    offer(host.meet("wati"), dewi, 1, 2)
    assert wati.asked() == {}


def test_a_receipt_that_overtakes_its_bundles() -> None:
    host = Host(FLEET)
    agus = host.meet("agus")
    dewi = Source(FLEET, "dewi")
    offer(agus, dewi, 1, 2)
    agus.gives(dewi.bundle(1))
    receipt = FLEET.receipt(dewi.journal, Ranges.span(1, 2))
    agus.says(ReceiptFrame(receipt.body, receipt.signature))
    agus.gives(dewi.bundle(2))
    host.settle()
    assert host.stored(dewi.journal) == host.journal(dewi.journal).held == NONE
    assert host.node.state.ledger.foreign_size == host.node.state.landing_bytes == 0
    (contact,) = host.node.state.contacts.values()
    assert contact.wanting == contact.offers == {}


def test_what_a_lost_contact_owed_is_asked_of_another() -> None:
    host = Host(FLEET)
    agus, wati = host.meet("agus"), host.meet("wati")
    dewi = Source(FLEET, "dewi")
    offer(agus, dewi, 1, 2, 3)
    offer(wati, dewi, 2, 3)
    assert agus.asked() == {dewi.journal: Ranges.span(1, 3)}
    assert wati.asked() == {}
    agus.gives(dewi.bundle(2))
    agus.lose()
    assert wati.asked() == {dewi.journal: Ranges.single(3)}


def test_what_a_stalled_contact_owes_is_asked_of_another() -> None:
    host = Host(FLEET)
    agus, wati = host.meet("agus"), host.meet("wati")
    dewi = Source(FLEET, "dewi")
    offer(agus, dewi, 1, 2, 3)
    offer(wati, dewi, 2, 3)
    agus.asked()
    for _ in range(22):
        host.pass_time(1)
        for puppet in (agus, wati):
            puppet.says(Have(False, ()))
    assert wati.asked() == {dewi.journal: Ranges.span(2, 3)}
    (want,) = agus.take(Want)
    assert want.journals == (Wanted(dewi.journal, NONE, Ranges.span(2, 3), False),)


def test_a_second_holder_takes_over_half() -> None:
    host = Host(FLEET)
    agus, wati = host.meet("agus"), host.meet("wati")
    dewi = Source(FLEET, "dewi")
    offer(agus, dewi, *range(1, 201))
    offer(wati, dewi, *range(1, 201))
    taken = wati.asked()[dewi.journal]
    assert len(taken) == (200 - SEND_AHEAD_BYTES // PAYLOAD_SIZE_MAX - 2) // 2
    assert agus.asked()[dewi.journal] == Ranges.span(1, 200) - taken


# --- room -------------------------------------------------------------------------------------------------------


def test_the_quota_is_never_crossed_even_by_what_is_on_its_way_to_the_disk() -> None:
    host = Host(FLEET, quota_bytes=MIB)
    agus = host.meet("agus")
    dewi = Source(FLEET, "dewi")
    offer(agus, dewi, *range(1, 11))
    assert agus.asked() == {dewi.journal: Ranges.span(1, 10)}
    agus.gives(*(dewi.bundle(number, size=PAYLOAD_SIZE_MAX) for number in range(1, 11)))
    host.settle()
    assert host.node.state.ledger.foreign_size == MIB
    assert host.stored(dewi.journal) == Ranges.span(1, 4)
    offer(agus, dewi, *range(1, 12))
    assert agus.asked() == {}, "there is no room"


def test_with_the_quota_full_own_messages_are_taken() -> None:
    host = Host(FLEET, quota_bytes=0)
    agus = host.meet("agus")
    offer(agus, Source(FLEET, "dewi"), 1)
    assert agus.asked() == {}
    host.submit(bytes(600_000))
    host.settle()
    assert list(host.accepted) == [1]


def test_with_the_quota_full_the_office_takes_what_is_for_it() -> None:
    office = Host(FLEET, "office", "office", quota_bytes=0)
    dewi = Source(FLEET, "dewi")
    fetch(office.meet("agus"), dewi, 1, 2)
    assert office.stored(dewi.journal) == Ranges.span(1, 2)
    assert office.node.state.ledger.foreign_size == 0


def test_with_the_quota_full_a_light_source_displaces_a_heavy_one_and_not_the_other_way_round() -> None:
    host = Host(FLEET, quota_bytes=MIB)
    agus, wati = host.meet("agus"), host.meet("wati")
    heavy, light = Source(FLEET, "dewi"), Source(FLEET, "budi")
    fetch(agus, heavy, 1, 2, 3, 4, size=PAYLOAD_SIZE_MAX)
    wati.take(Have)
    fetch(agus, light, 1, 2, 3, size=PAYLOAD_SIZE_MAX)
    ledger = host.node.state.ledger
    assert ledger.foreign_bytes == {heavy.device: MIB // 2, light.device: MIB // 2}
    assert len(host.stored(heavy.journal)) == len(host.stored(light.journal)) == 2
    shrunk = [held.ranges for have in wati.take(Have) for held in have.journals]
    assert shrunk[-1] == host.stored(heavy.journal), "what is gone is no longer offered"
    assert agus.asked() == {}
    offer(agus, heavy, *range(1, 9))
    offer(wati, light, *range(1, 9))
    assert agus.asked() == wati.asked() == {}, "both have their share"


def test_the_floor_holds_for_everybody() -> None:
    office = Host(FLEET, "office", "office", free_bytes=10 * MIB, floor_bytes=10 * MIB - 100 * KIB)
    agus = office.meet("agus")
    offer(agus, Source(FLEET, "dewi"), 1)
    assert agus.asked() == {}
    office.submit(b"record")
    assert isinstance(office.refused[1], NoRoom)
    assert "100 KiB" not in str(office.refused[1])
    office.handle(Space(20 * MIB, 10 * MIB))
    assert agus.asked() != {}
    office.submit(b"record")
    office.settle()
    assert list(office.accepted) == [2]


def test_room_that_grows_is_used() -> None:
    host = Host(FLEET, quota_bytes=MIB)
    agus = host.meet("agus")
    dewi = Source(FLEET, "dewi")
    fetch(agus, dewi, *range(1, 7), size=PAYLOAD_SIZE_MAX)
    assert host.stored(dewi.journal) == Ranges.span(1, 4)
    receipt = FLEET.receipt(dewi.journal, Ranges.span(1, 2))
    agus.says(ReceiptFrame(receipt.body, receipt.signature))
    assert agus.asked() == {dewi.journal: Ranges.span(5, 6)}


def pending_bytes(host: Host) -> int:
    """Payload bytes on their way to the disk."""
    rows = (row for write in host.pending for row in write.rows)
    return sum(row.bundle.header.payload_size for row in rows if isinstance(row, PutBundle))


@pytest.mark.parametrize("looks", [0, 1, 5])
@pytest.mark.parametrize("end", ["written", "failed"])
def test_free_space_counts_what_is_on_its_way_to_the_disk(looks: int, end: str) -> None:
    """The disk says how much is free while it does not know yet of what was promised to others."""
    room_bytes = 3 * PAYLOAD_SIZE_MAX
    host = Host(FLEET, free_bytes=GIB, floor_bytes=GIB - room_bytes)
    agus, wati = host.meet("agus"), host.meet("wati")
    dewi, budi = Source(FLEET, "dewi"), Source(FLEET, "budi")
    offer(agus, dewi, 1, 2, 3, 4)
    offer(wati, budi, 1, 2, 3, 4)
    agus.gives(*(dewi.bundle(number, size=PAYLOAD_SIZE_MAX) for number in (1, 2, 3)))
    agus.asked()
    agus.take(Want)
    for _ in range(looks):
        host.handle(host.space)
    assert agus.take(Want) == [], "no more credit, since there is no more room"
    wati.gives(*(budi.bundle(number, size=PAYLOAD_SIZE_MAX) for number in (1, 2, 3)))
    assert pending_bytes(host) == room_bytes
    host.submit(b"record")
    assert isinstance(host.refused[1], NoRoom)
    if end == "written":
        host.settle()
        host.handle(Space(GIB - room_bytes, GIB - room_bytes))
        assert host.node.state.room_bytes == 0
        assert host.stored(dewi.journal) == Ranges.span(1, 3)
    else:
        host.fail()
        host.handle(host.space)
        assert host.node.state.room_bytes == room_bytes
    assert host.node.state.unwritten_bytes == 0


@pytest.mark.parametrize(
    ("parts", "looks"),
    [
        (1, 0),
        (1, 1),
        (1, 5),
        (2, 0),
        (2, 1),
    ],
)
def test_free_space_counts_own_messages_on_their_way_too(parts: int, looks: int) -> None:
    room_bytes = 6 * PAYLOAD_SIZE_MAX
    host = Host(FLEET, free_bytes=GIB, floor_bytes=GIB - room_bytes)
    agus = host.meet("agus")
    dewi = Source(FLEET, "dewi")
    offer(agus, dewi, *range(1, 7))
    host.submit(bytes(parts * CHUNK_SIZE))
    for _ in range(looks):
        host.handle(host.space)
    agus.gives(*(dewi.bundle(number, size=PAYLOAD_SIZE_MAX) for number in range(1, 7)))
    assert host.node.state.landing_bytes == room_bytes - parts * PAYLOAD_SIZE_MAX
    host.settle()
    assert list(host.accepted) == [1]
    assert len(host.stored(host.own_journal)) + len(host.stored(dewi.journal)) == 6
    assert host.node.state.unwritten_bytes == 0


# --- a disk that fails ------------------------------------------------------------------------------------------

FREE = Space(GIB, 0)


@pytest.mark.parametrize(
    ("after_s", "event", "goes_on"),
    [
        (STORE_REST_S - 0.01, Tick(), False),
        (STORE_REST_S - 0.01, FREE, False),
        (1.0, Space(GIB + PAYLOAD_SIZE_MAX - 1, 0), False),
        (1.0, Space(GIB + PAYLOAD_SIZE_MAX, 0), True),
        (STORE_REST_S, Tick(), True),
        (STORE_REST_S, FREE, True),
    ],
)
def test_after_a_failed_write_things_go_on_when_room_has_grown_or_the_rest_is_over(
    after_s: float, event: Event, goes_on: bool
) -> None:
    host = Host(FLEET)
    agus, wati = host.meet("agus"), host.meet("wati")
    dewi, budi = Source(FLEET, "dewi"), Source(FLEET, "budi")
    fetch(agus, dewi, 1, 2)
    host.handle(FREE)
    offer(agus, dewi, 1, 2, 3)
    agus.asked()
    agus.gives(dewi.bundle(3))
    host.fail()
    receipt = FLEET.receipt(dewi.journal, Ranges.span(1, 2))
    wati.says(ReceiptFrame(receipt.body, receipt.signature))
    host.fail()  # neither to take a bundle nor to let go of others
    assert host.stored(dewi.journal) == Ranges.span(1, 2)
    offer(wati, budi, 1)
    assert agus.asked() == wati.asked() == {}
    assert host.node.next_tick_s() <= host.clock.s + STORE_REST_S
    failed_s = host.clock.s
    for _ in range(int(after_s // DEAD_AFTER_S)):
        host.clock.s += DEAD_AFTER_S - 1
        agus.says(Pong())
        wati.says(Pong())
    assert agus.asked() == wati.asked() == {}
    host.clock.s = failed_s + after_s
    host.handle(event)
    assert agus.asked() == ({dewi.journal: Ranges.single(3)} if goes_on else {})
    assert wati.asked() == ({budi.journal: Ranges.single(1)} if goes_on else {})
    host.settle()
    assert host.stored(dewi.journal) == (NONE if goes_on else Ranges.span(1, 2))


def test_what_a_full_disk_would_not_let_go_of_goes_as_soon_as_there_is_room() -> None:
    """Also when the rest was over before."""
    host = Host(FLEET)
    agus = host.meet("agus")
    dewi = Source(FLEET, "dewi")
    fetch(agus, dewi, 1, 2)
    receipt = FLEET.receipt(dewi.journal, Ranges.span(1, 2))
    agus.says(ReceiptFrame(receipt.body, receipt.signature))
    host.fail()
    full = Space(GIB, GIB - PAYLOAD_SIZE_MAX + 1)
    host.handle(full)
    host.clock.s += STORE_REST_S
    for event in (Tick(), full):
        host.handle(event)
        host.settle()
        assert host.stored(dewi.journal) == Ranges.span(1, 2)
    host.handle(Space(GIB + 1, GIB - PAYLOAD_SIZE_MAX + 1))
    host.settle()
    assert host.stored(dewi.journal) == NONE
    host.handle(FREE)
    assert host.pending == [], "once"


# --- how long ---------------------------------------------------------------------------------------------------


def test_what_outlives_its_lifetime_is_discarded_and_no_longer_offered() -> None:
    host = Host(FLEET)
    agus = host.meet("agus")
    dewi = Source(FLEET, "dewi")
    offer(agus, dewi, 1, 2)
    agus.gives(dewi.bundle(1, lifetime_s=100), dewi.bundle(2, lifetime_s=10_000), age_s=90)
    host.settle()
    agus.asked()
    agus.take(Have)
    for _ in range(int(HOUSEKEEPING_S) // 10 + 1):
        agus.says(Have(False, ()))
        host.pass_time(10)
    host.settle()
    assert host.stored(dewi.journal) == host.journal(dewi.journal).held == Ranges.single(2)
    assert agus.take(Have) == [Have(False, (Held(dewi.journal, Ranges.single(2), 0),))]
    assert agus.asked() == {}


def test_what_is_too_old_already_is_not_taken() -> None:
    host = Host(FLEET)
    agus = host.meet("agus")
    dewi = Source(FLEET, "dewi")
    offer(agus, dewi, 1)
    host.settle()
    agus.gives(dewi.bundle(1, lifetime_s=100), age_s=101)
    assert host.pending == []
    assert agus.closed is None


def test_an_office_takes_what_is_for_it_however_old() -> None:
    office = Host(FLEET, "office", "office")
    dewi = Source(FLEET, "dewi")
    fetch(office.meet("agus"), dewi, 1, age_s=2**35)
    office.pass_time(2 * HOUSEKEEPING_S)
    assert office.stored(dewi.journal) == Ranges.single(1)


def test_own_messages_are_kept_until_the_office_has_signed_and_some_days_more() -> None:
    host = Host(FLEET)
    host.submit(b"one")
    host.submit(b"two")
    host.settle()
    journal = host.own_journal
    host.clock.s += 20 * 365 * DAY_S
    host.pass_time(2 * HOUSEKEEPING_S)
    assert host.stored(journal) == Ranges.span(1, 2), "older than any lifetime, and nobody has signed"
    agus = host.meet("agus")
    receipt = FLEET.receipt(journal, Ranges.single(1))
    agus.says(ReceiptFrame(receipt.body, receipt.signature))
    host.settle()
    agus.lose()
    host.clock.s += KEEP_RECEIPTED_S - 2 * HOUSEKEEPING_S
    host.pass_time(HOUSEKEEPING_S)
    host.settle()
    host.restart()
    assert host.stored(journal) == Ranges.span(1, 2), "in case the office has to ask again"
    host.pass_time(3 * HOUSEKEEPING_S)
    host.settle()
    assert host.stored(journal) == host.journal(journal).held == Ranges.single(2)


# --- rot --------------------------------------------------------------------------------------------------------


def test_a_rotten_bundle_is_fetched_again_from_another() -> None:
    host = Host(FLEET)
    agus, wati = host.meet("agus"), host.meet("wati")
    dewi = Source(FLEET, "dewi")
    fetch(agus, dewi, 1, 2)
    want_all(wati, dewi, 1, 2)
    host.store.spoil(dewi.journal, 1)
    (first, second) = wati.owed
    host.handle(Unreadable(wati.number, dewi.journal, first.number, first.size, True))
    wati.owed = [second]
    wati.link_sends()
    assert host.journal(dewi.journal).held == Ranges.single(2)
    assert host.node.state.rotten == {(dewi.journal, 1)}
    assert wati.take(Have)[-1] == Have(False, (Held(dewi.journal, Ranges.single(2), 0),))
    assert agus.asked() == {dewi.journal: Ranges.single(1)}
    agus.gives(dewi.bundle(1))
    host.settle()
    assert host.node.state.rotten == set()
    assert wati.take(Stored)[-1] == Stored(((dewi.journal, Ranges.single(1), False),))
    want_all(wati, dewi, 1)
    assert wati.link_sends() == [dewi.bundle(1)]


def test_an_own_bundle_that_rotted_is_fetched_from_who_carries_it() -> None:
    host = Host(FLEET)
    host.submit(b"record")
    host.settle()
    journal = host.own_journal
    agus = host.meet("agus")
    agus.says(Want(CREDIT_BYTES, (Wanted(journal, Ranges.single(1), NONE, True),)))
    (bundle,) = agus.link_sends()
    agus.says(Stored(((journal, Ranges.single(1), False),)))
    assert agus.asked() == {}
    host.store.spoil(journal, 1)
    host.handle(Unreadable(agus.number, journal, 1, bundle.header.payload_size, True))
    assert agus.asked() == {journal: Ranges.single(1)}
    agus.gives(bundle, certify=False)
    host.settle()
    stored = host.store.read(journal, 1)
    assert stored is not None
    assert stored.payload == bundle.payload


def test_bundles_dropped_while_they_wait_to_be_sent_cost_nothing() -> None:
    """The peer counts what it receives; if our count differed from it the contact would starve."""
    host = Host(FLEET)
    agus, wati = host.meet("agus"), host.meet("wati")
    dewi = Source(FLEET, "dewi")
    for serial in range(1, 40):
        fetch(agus, dewi, serial, size=PAYLOAD_SIZE_MAX)
        want_all(wati, dewi, serial, credit=PAYLOAD_SIZE_MAX)
        (owed,) = wati.owed
        receipt = FLEET.receipt(dewi.journal, Ranges.span(1, serial), serial << 16)
        agus.says(ReceiptFrame(receipt.body, receipt.signature))
        host.settle()
        wati.owed.clear()
        host.handle(Unreadable(wati.number, dewi.journal, owed.number, owed.size, False))


def test_own_bundles_that_the_store_forgot_are_taken_back_and_stay() -> None:
    """A store restored from an old backup: colleagues carry what it has forgotten."""
    host = Host(FLEET)
    forgotten = Source(FLEET, host.name)
    agus = host.meet("agus")
    offer(agus, forgotten, 1, 2)
    agus.asked()
    agus.gives(forgotten.bundle(1), forgotten.bundle(2), certify=False)
    host.settle()
    assert agus.closed is None
    assert host.stored(forgotten.journal) == host.journal(forgotten.journal).held == Ranges.span(1, 2)
    assert agus.take(Stored) == [Stored(((forgotten.journal, Ranges.span(1, 2), False),))]
    host.restart()
    assert host.journal(forgotten.journal).held == Ranges.span(1, 2), "they are no remains of a submission"
    assert host.node.state.ledger.foreign_size == 0


def test_own_bundles_of_this_process_are_not_taken_from_others() -> None:
    host = Host(FLEET)
    forged = Source(FLEET, host.name, host.epoch)
    agus = host.meet("agus")
    offer(agus, forged, 1, 2)
    agus.asked()
    agus.gives(forged.bundle(1), certify=False)
    host.settle()
    assert agus.closed is None
    assert host.stored(forged.journal) == NONE
    offer(agus, forged, 1, 2, 3)
    assert agus.asked() == {}


# --- what people see --------------------------------------------------------------------------------------------


def test_where_a_message_is() -> None:
    host = Host(FLEET)
    host.submit(bytes(600_000))
    host.settle()
    journal = host.own_journal

    def state() -> tuple[str, int]:
        (only,) = host.node.state.custody.states()
        return only.state, only.copies

    agus, wati = host.meet("agus"), host.meet("wati")
    assert state() == (ON_THIS_DEVICE_ONLY, 0)
    agus.says(Stored(((journal, Ranges.span(1, 2), False),)))
    assert state() == (ON_THIS_DEVICE_ONLY, 0)
    agus.says(Stored(((journal, Ranges.single(3), False),)))
    assert state() == (CARRIED, 1)
    wati.says(Have(False, (Held(journal, Ranges.span(1, 9), 0),)))
    assert state() == (CARRIED, 2)
    host.pass_time(1)
    host.settle()
    host.restart()
    assert state() == (CARRIED, 2), "it is remembered"
    wati = host.meet("wati", greet=False)
    wati.greet(have=Have(True, (Held(journal, Ranges.span(1, 2), 0),)))
    assert state() == (CARRIED, 1), "what a peer said last counts"
    host.meet("agus")
    assert state() == (ON_THIS_DEVICE_ONLY, 0), "also when it says nothing of it any more"
    receipt = FLEET.receipt(journal, Ranges.span(1, 3))
    wati.says(ReceiptFrame(receipt.body, receipt.signature))
    assert state()[0] == DELIVERED


def test_urgent_messages_overtake() -> None:
    host = Host(FLEET)
    host.submit(bytes(3 * MIB))
    host.settle()
    agus = host.meet("agus")
    journal = host.own_journal
    agus.says(Want(GIB, (Wanted(journal, Ranges.span(1, 99), NONE, True),)))
    before = [bundle.header.number for bundle in agus.link_sends(2)]
    host.submit(b"urgent", URGENT)
    host.settle()
    agus.says(Want(GIB, (Wanted(journal, Ranges.single(14), NONE, True),)))
    numbers = [bundle.header.number for bundle in agus.link_sends()]
    assert numbers.index(14) == 1, "behind what the link had already"
    assert sorted([*before, *numbers]) == list(range(1, 15))


def test_what_a_revoked_device_signed_travels_last() -> None:
    host = Host(FLEET)
    agus = host.meet("agus")
    dewi, budi = Source(FLEET, "dewi"), Source(FLEET, "budi")
    for source in (dewi, budi):
        offer(agus, source, 1)
    agus.gives(dewi.bundle(1, priority=URGENT), budi.bundle(1, size=100_000))
    host.settle()
    document = FLEET.write_document(2, revoked=["dewi"])
    agus.says(FleetFrame(document.body, document.signature))
    wati = host.meet("wati")
    rows = tuple(Wanted(source.journal, Ranges.single(1), NONE, False) for source in (dewi, budi))
    wati.says(Want(GIB, rows))
    assert [bundle.header.source for bundle in wati.link_sends()] == [budi.device, dewi.device]


# --- the way to the office --------------------------------------------------------------------------------------


def test_an_uplink_is_told_to_everybody_as_long_as_it_is_there() -> None:
    fleet = Fleet(addresses=["office:7766"])
    host = Host(fleet)
    agus = host.meet("agus")
    assert [hello.uplink for hello in agus.take(Hello)] == [False]
    assert host.dials == ["office:7766"]
    office = host.meet("office", dialled=True, role="office")
    assert [hello.uplink for hello in agus.take(Hello)] == [True]
    assert office.take(Hello)[-1].uplink
    assert host.node.state.uplink
    office.lose()
    assert [hello.uplink for hello in agus.take(Hello)] == [False]


def test_an_office_met_on_the_way_is_no_uplink() -> None:
    host = Host(Fleet(addresses=["elsewhere:7766"]))
    agus = host.meet("agus")
    host.meet("office", dialled=True, role="office")
    assert [hello.uplink for hello in agus.take(Hello)] == [False]


def test_the_office_is_its_own_uplink() -> None:
    office = Host(Fleet(addresses=["office:7766"]), "office", "office")
    assert [hello.uplink for hello in office.meet("agus").take(Hello)] == [True]
    assert office.dials == []


# --- time -------------------------------------------------------------------------------------------------------


def test_the_next_tick() -> None:
    host = Host(FLEET)
    now_s = host.clock.s
    assert host.node.next_tick_s() == now_s + HOUSEKEEPING_S
    host.handle(Sighted("agus:7766", None, "configured"))
    assert host.dials == ["agus:7766"]
    assert host.node.next_tick_s() == now_s + HOUSEKEEPING_S, "it is being dialled"
    agus = host.meet("agus")
    assert host.node.next_tick_s() == now_s + PING_AFTER_S
    agus.lose()
    host.clock.s += HOUSEKEEPING_S
    host.handle(Tick())
    assert host.node.next_tick_s() <= host.clock.s + HOUSEKEEPING_S


def tick_until(host: Host, until_s: float) -> None:
    """Turn the clock with the ticks that the node asks for and no others; each must be worth it."""
    while (due_s := host.node.next_tick_s()) < until_s and host.node.state.contacts:
        host.clock.s = max(host.clock.s, due_s)
        host.handle(Tick())
        assert host.node.next_tick_s() > host.clock.s, "the same tick again"
    host.clock.s = max(host.clock.s, until_s) if host.node.state.contacts else host.clock.s


@given(st.floats(0, 1e9), st.lists(st.floats(0.01, DEAD_AFTER_S - 0.01), max_size=6), st.booleans())
def test_the_ticks_that_are_asked_for_are_enough(start_s: float, pauses: list[float], greet: bool) -> None:
    """Nothing is noticed late, and time moves on whatever floating point makes of a sum."""
    host = Host(FLEET, clock=Clock(start_s))
    agus = host.meet("agus", greet=greet)
    if greet:
        offer(agus, Source(FLEET, "dewi"), 1)
    heard_s = host.clock.s
    for pause_s in pauses if greet else []:
        tick_until(host, heard_s + pause_s)
        agus.says(Pong())
        heard_s = host.clock.s
    agus.take(Ping)
    tick_until(host, math.inf)
    assert agus.ended() == ("silent" if greet else "said no HELLO")
    assert host.clock.s == heard_s + (DEAD_AFTER_S if greet else HANDSHAKE_S)
    assert len(agus.take(Ping)) >= (2 if greet else 1)


@pytest.mark.parametrize("wall_ms", [0, -(10**15), 2**53 - 1])
def test_the_wall_clock_may_be_anything(wall_ms: int) -> None:
    office = Host(FLEET, "office", "office", clock=Clock(1000.0, wall_ms))
    agus = office.meet("agus")
    office.submit(b"record")
    office.settle()
    assert list(office.accepted) == [1]
    office.handle(Taken(office.own_journal, Ranges.single(1)))
    office.settle()
    assert [hello.wall_ms for hello in agus.take(Hello)] == [max(0, wall_ms)]
    assert len(agus.take(ReceiptFrame)) == 1

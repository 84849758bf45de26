"""Devices as endpoints: how they become known to the fleet, and how messages to them travel, end and are signed for."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from meshnode.core.bundle import EPOCH_SIZE, Bundle, journal_id, read_header, sign_bundle
from meshnode.core.errors import RemoteError
from meshnode.core.fleet import Endpoint
from meshnode.core.frames import Cert, Have, Held, ReceiptFrame
from meshnode.core.identity import EndpointId
from meshnode.core.intervals import NONE, Ranges
from meshnode.core.introducing import (
    EVERYONE,
    device_endpoint,
    introduce,
    introduction_journal,
    is_misplaced,
)
from meshnode.core.limits import DEVICE_JOURNALS_MAX
from meshnode.core.ports import Taken
from meshnode.core.receipt import Origin, issue_receipt, read_receipt
from meshnode.core.sealing import SealingKey
from tests.core.fleets import Fleet, Source, seed
from tests.core.hosts import Host
from tests.core.worlds import World

FLEET = Fleet()
SITI = FLEET.device("siti")


def endpoint_of(fleet: Fleet, host: Host, name: str) -> Endpoint:
    """The endpoint of a device, as `host` knows it from its introduction."""
    stored = host.store.read(introduction_journal(fleet.device(name)), 1)
    assert stored is not None, f"{name} is unknown to {host.name}"
    return device_endpoint(host.node.state.certificates[fleet.device(name)], stored.payload)


def chain(*names: str) -> World:
    """An office and officers, each in reach of the next only."""
    world = World(Fleet())
    for name in names:
        world.add(name, "office" if name == "kantor" else "officer", introduces=True)
    for left, right in pairwise(names):
        world.link(left, right)
        world.open(world.hosts[left], world.hosts[right])
    world.run()
    return world


# --- introductions ----------------------------------------------------------------------------------------------


def test_an_introduction_is_the_same_whenever_it_is_made() -> None:
    sealing = SealingKey(seed("s")).public
    one, other = introduce(FLEET.key("siti"), sealing), introduce(FLEET.key("siti"), sealing)
    assert (one.header_bytes, one.signature, one.payload) == (
        other.header_bytes,
        other.signature,
        other.payload,
    )
    one.verify(FLEET.key("siti").public)
    assert read_header(one.header_bytes).journal == introduction_journal(SITI)
    assert not is_misplaced(one.header)
    assert device_endpoint(FLEET.certificate("siti"), one.payload).sealing_keys[0].raw == sealing.raw


@pytest.mark.parametrize("change", [{"number": 2}, {"epoch": b"epoch--9"}, {"payload_size": 2000}])
def test_anything_else_that_goes_to_everyone_is_misplaced(change: dict[str, Any]) -> None:
    header = introduce(FLEET.key("siti"), SealingKey(seed("s")).public).header
    assert is_misplaced(replace(header, **change))
    assert not is_misplaced(replace(header, destination=FLEET.endpoint, **change))


def test_what_is_misplaced_is_not_kept_and_its_bearer_is_not_blamed() -> None:
    host = Host(FLEET, "siti")
    agus = host.meet("agus")
    header = replace(introduce(FLEET.key("dewi"), SealingKey(seed("d")).public).header, epoch=b"epoch--9")
    FLEET.certificate("dewi")
    bundle = sign_bundle(header, SealingKey(seed("d")).public.raw, FLEET.key("dewi"))
    agus.says(Have(False, (Held(header.journal, Ranges.single(1), 0),)))
    agus.gives(bundle)
    host.settle()
    assert host.stored(header.journal) == NONE
    assert agus.closed is None
    host.pass_time(5)
    assert header.journal not in host.node.state.contacts[agus.number].wanting, "nor is it asked for again"


def test_everybody_comes_to_know_everybody() -> None:
    world = chain("kantor", "siti", "budi", "dewi")
    for host in world.hosts.values():
        for name in world.hosts:
            endpoint_of(world.fleet, host, name)


def test_a_device_that_starts_again_is_known_already() -> None:
    host = Host(FLEET, "siti", introduces=True)
    host.settle()
    journal = introduction_journal(SITI)
    assert host.stored(journal) == Ranges.single(1)
    host.restart()
    assert not host.pending, "nothing is written again, nor removed as the remains of a submission"
    assert host.journal(journal).on_offer == Ranges.single(1)


def test_without_a_sealing_key_nobody_is_introduced() -> None:
    host = Host(FLEET, "siti")
    host.settle()
    assert host.stored(introduction_journal(SITI)) == NONE


# --- messages to a device ---------------------------------------------------------------------------------------


def test_a_message_to_a_device_goes_over_others_and_its_receipt_comes_home() -> None:
    world = chain("kantor", "siti", "budi", "dewi")
    office, dewi = world.hosts["kantor"], world.hosts["dewi"]
    number = office.submit(b"left iris unreadable", to=endpoint_of(world.fleet, office, "dewi"))
    world.run()
    journal = journal_id(office.device, dewi.device, office.epoch)
    assert number in office.accepted
    assert dewi.stored(journal) == world.hosts["budi"].stored(journal) == Ranges.single(1)
    assert journal in dewi.arrived
    assert not dewi.node.state.ledger.is_foreign(dewi.journal(journal)), "it counts against no quota there"
    dewi.handle(Taken(journal, Ranges.single(1)))
    world.run()
    for host in world.hosts.values():
        assert host.journal(journal).receipted == Ranges.single(1), host.name
    for name in ("siti", "budi"):
        assert world.hosts[name].stored(journal) == NONE, "space for others is free again"
    world.restart("siti")
    assert world.hosts["siti"].journal(journal).receipted == Ranges.single(1), "for ever"


def test_an_office_that_is_asked_gives_what_goes_elsewhere_and_not_what_ends_there() -> None:
    world = chain("kantor", "siti", "budi")
    office, siti, budi = (world.hosts[name] for name in ("kantor", "siti", "budi"))
    siti.submit(b"record")
    world.run()
    ended = siti.own_journal
    office_contact = next(c for c in siti.node.state.contacts.values() if c.device == office.device)
    assert ended in office_contact.ends
    wati = world.add("wati", introduces=True)
    world.link("wati", "kantor")
    world.open(wati, office)
    office.submit(b"for all", to=endpoint_of(world.fleet, office, "budi"))
    world.run()
    assert wati.stored(ended) == NONE, "the office has not signed yet, and nobody is to carry it back"
    assert wati.stored(journal_id(office.device, budi.device, office.epoch)) == Ranges.single(1)


def test_journals_of_one_device_follow_those_to_the_same_destination() -> None:
    world = chain("kantor", "budi")
    office, budi = world.hosts["kantor"], world.hosts["budi"]
    to_budi = endpoint_of(world.fleet, office, "budi")
    for text, to in ((b"one", to_budi), (b"two", None)):
        office.submit(text, to=to)
        world.run()
    before = office.epoch
    world.restart("kantor")
    office.submit(b"three", to=to_budi)
    office.submit(b"four")
    world.run()
    for destination in (budi.device, world.fleet.endpoint):
        stored = office.store.read(journal_id(office.device, destination, office.epoch), 1)
        assert stored is not None
        previous = read_header(stored.header).previous
        assert previous is not None
        assert previous.journal == journal_id(office.device, destination, before)


# --- receipts of devices ----------------------------------------------------------------------------------------


def test_a_device_signs_only_for_journals_that_go_to_it() -> None:
    dewi = Source(FLEET, "dewi")
    key, endpoint = FLEET.key("siti"), EndpointId(SITI)
    origin = Origin(dewi.device, dewi.epoch)
    stolen = issue_receipt(key, endpoint, dewi.journal, 1, Ranges.span(1, 9), 0, origin)
    with pytest.raises(RemoteError, match="does not go to its endpoint"):
        read_receipt(stolen.body, stolen.signature)
    unbound = issue_receipt(key, endpoint, dewi.journal, 1, Ranges.span(1, 9), 0)
    host = Host(FLEET, "budi")
    siti = host.meet("siti")
    siti.says(Cert(FLEET.certificate("siti").der), ReceiptFrame(unbound.body, unbound.signature))
    assert host.journal(dewi.journal).receipted == NONE
    assert host.logs[-1] == "siti sent a receipt of an endpoint that is not known here"


def test_a_receipt_of_a_device_is_bound_and_read_again() -> None:
    epoch = bytes(EPOCH_SIZE)
    journal = journal_id(FLEET.device("kantor"), SITI, epoch)
    made = issue_receipt(
        FLEET.key("siti"),
        EndpointId(SITI),
        journal,
        7,
        Ranges.span(1, 3),
        5,
        Origin(FLEET.device("kantor"), epoch),
    )
    read = read_receipt(made.body, made.signature)
    assert read == made
    assert read.is_bound
    read.verify(FLEET.key("siti").public)


def test_a_device_cannot_invent_journals_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    assert DEVICE_JOURNALS_MAX > 1000
    monkeypatch.setattr("meshnode.core.knowing.DEVICE_JOURNALS_MAX", 3)
    host = Host(FLEET, "budi")
    siti = host.meet("siti")
    siti.says(Cert(FLEET.certificate("siti").der))
    for number in range(5):
        epoch = number.to_bytes(EPOCH_SIZE, "big")
        journal = journal_id(FLEET.device("kantor"), SITI, epoch)
        origin = Origin(FLEET.device("kantor"), epoch)
        receipt = issue_receipt(FLEET.key("siti"), EndpointId(SITI), journal, 1, Ranges.single(1), 0, origin)
        siti.says(ReceiptFrame(receipt.body, receipt.signature))
    assert host.node.state.ledger.signed_for[SITI] == 3


def test_everyone_is_nobody() -> None:
    assert len(EVERYONE) == len(SITI)
    assert EVERYONE not in Host(FLEET, "siti").node.state.endpoints


# --- who may write to a device ----------------------------------------------------------------------------------


def bundle_to(source: Source, device: str) -> Bundle:
    """A bundle that goes to a device."""
    header = replace(source.bundle(1).header, destination=source.fleet.device(device))
    return sign_bundle(header, source.bundle(1).payload, source.fleet.key(source.name))


def test_what_a_colleague_addresses_to_this_device_is_not_kept() -> None:
    """It would count against no quota, and nobody would ever take it."""
    host = Host(FLEET, "siti")
    agus, dewi = host.meet("agus"), Source(FLEET, "dewi")
    bundle = bundle_to(dewi, "siti")
    agus.says(Have(False, (Held(bundle.header.journal, Ranges.single(1), 0),)))
    agus.gives(bundle)
    host.settle()
    assert host.stored(bundle.header.journal) == NONE
    assert agus.closed is None
    carrier = Host(FLEET, "budi")
    agus = carrier.meet("agus")
    agus.says(Have(False, (Held(bundle.header.journal, Ranges.single(1), 0),)))
    agus.gives(bundle)
    carrier.settle()
    assert carrier.stored(bundle.header.journal) == Ranges.single(1), (
        "a carrier cannot tell what offices there are"
    )


def test_journals_for_which_there_is_no_room_leave_no_trace() -> None:
    host = Host(FLEET, "siti", quota_bytes=300_000)
    agus = host.meet("agus")
    known = len(host.node.state.ledger.journals)
    sources = [Source(FLEET, "dewi", bytes([number]) * EPOCH_SIZE) for number in range(5)]
    agus.says(Have(False, tuple(Held(dewi.journal, Ranges.single(1), 0) for dewi in sources)))
    assert len(agus.asked()) == 5, "there was room when it asked"
    agus.gives(*(dewi.bundle(1, size=200_000) for dewi in sources))
    host.settle()
    assert host.node.state.ledger.foreign_count == 1
    assert len(host.node.state.ledger.journals) == known + 1

"""What comes by hand: taken as from a peer, counted one by one, and answered when it is durable."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from meshnode.core.bringing import Tally
from meshnode.core.bundle import sign_bundle
from meshnode.core.frames import BundleFrame, Cert, Fleet, Frame, Ping, ReceiptFrame, Stored, encode
from meshnode.core.identity import EndpointId
from meshnode.core.intervals import NONE, Ranges
from meshnode.core.introducing import introduce
from meshnode.core.ports import Brought, Taken
from meshnode.core.receipt import Origin, Receipt, issue_receipt
from meshnode.core.sealing import SealingKey
from meshnode.core.stick import (
    HEAD_SIZE,
    LENGTH_SIZE,
    PEEK_SIZE,
    Stub,
    frame_size,
    peek,
    read_head,
    write_head,
)
from tests.core.fleets import Fleet as Founded
from tests.core.fleets import Source, seed
from tests.core.hosts import Host

FLEET = Founded()
BUDI = Source(FLEET, "budi")
CERT = Cert(BUDI.certificate.der)


def bodies(*frames: Frame) -> tuple[bytes, ...]:
    return tuple(encode(frame)[LENGTH_SIZE:] for frame in frames)


def bring(host: Host, *frames: Frame, bringing: int = 1) -> None:
    host.handle(Brought(bringing, bodies(*frames)))


def result(host: Host) -> Tally:
    tally = host.node.brought()
    assert tally is not None
    return tally


def bundles(*numbers: int, size: int = 2000, age_s: int = 0) -> list[BundleFrame]:
    return [BundleFrame(age_s, BUDI.bundle(number, size=size)) for number in numbers]


def receipt_frame(receipt: Receipt) -> ReceiptFrame:
    return ReceiptFrame(receipt.body, receipt.signature)


# --- bundles ----------------------------------------------------------------------------------------------------


def test_what_is_brought_is_taken_once_it_is_durable() -> None:
    host = Host(FLEET)
    bring(host, CERT, *bundles(1, 2))
    assert host.node.brought() is None, "the answer waits for the disk"
    assert host.stored(BUDI.journal) == NONE
    host.settle()
    assert result(host) == Tally(taken=2)
    assert host.stored(BUDI.journal) == Ranges.span(1, 2)
    host.restart()
    assert host.journal(BUDI.journal).on_offer == Ranges.span(1, 2)
    assert BUDI.device in host.node.state.certificates, "what carries a bundle must be able to vouch for it"


def test_one_bringing_may_come_in_several_events() -> None:
    host = Host(FLEET)
    bring(host, CERT, *bundles(1))
    bring(host, *bundles(2, 3))
    host.commit(1)
    assert host.node.brought() is None
    host.settle()
    assert result(host) == Tally(taken=3)
    bring(host, bringing=2)
    assert result(host) == Tally()


def test_what_is_known_is_nothing() -> None:
    host = Host(FLEET)
    bring(host, CERT, *bundles(1, 1))
    bring(host, *bundles(1))
    host.settle()
    bring(host, *bundles(1))
    assert not host.pending
    assert result(host) == Tally(taken=1, known=3)


def test_every_contact_is_told_at_once_what_was_brought() -> None:
    host = Host(FLEET)
    agus = host.meet("agus")
    bring(host, CERT, *bundles(1))
    assert not agus.take(Stored)
    host.settle()
    (stored,) = agus.take(Stored)
    assert stored.journals == ((BUDI.journal, Ranges.single(1), False),)


def test_what_a_contact_owes_and_a_stick_brings_is_kept_once() -> None:
    host = Host(FLEET)
    agus = host.meet("agus")
    agus.says(*[Stored(((BUDI.journal, Ranges.span(1, 2), False),))])
    assert agus.asked() == {BUDI.journal: Ranges.span(1, 2)}
    bring(host, CERT, *bundles(1))
    agus.gives(BUDI.bundle(1), BUDI.bundle(2))
    host.settle()
    assert host.stored(BUDI.journal) == Ranges.span(1, 2)
    assert agus.closed is None


def test_an_office_takes_what_is_brought_to_its_desk() -> None:
    office = Host(FLEET, "kantor", "office", quota_bytes=0)
    bring(office, CERT, *bundles(1))
    office.settle()
    assert office.arrived == [BUDI.journal]


def test_own_bundles_that_the_store_forgot_come_back() -> None:
    host = Host(FLEET, "budi")
    bring(host, CERT, *bundles(1))
    host.settle()
    assert result(host) == Tally(taken=1)
    host.restart()
    assert host.journal(BUDI.journal).held == Ranges.single(1)


def test_bundles_without_room_are_refused_and_counted() -> None:
    host = Host(FLEET, quota_bytes=5000)
    bring(host, CERT, *bundles(1, 2, 3))
    host.settle()
    assert result(host) == Tally(taken=2, no_room=1)


def test_a_disk_that_fails_has_taken_nothing() -> None:
    host = Host(FLEET)
    bring(host, CERT, *bundles(1, 2))
    host.fail()
    assert result(host) == Tally(no_room=2)
    assert host.journal(BUDI.journal).held == NONE
    bring(host, *bundles(1), bringing=2)
    host.settle()
    assert result(host) == Tally(taken=1)


def test_the_age_that_a_bundle_had_goes_on_and_what_is_too_old_is_not_taken() -> None:
    host = Host(FLEET)
    young = BundleFrame(50, BUDI.bundle(1, lifetime_s=60))
    old = BundleFrame(61, BUDI.bundle(2, lifetime_s=60))
    bring(host, CERT, young, old)
    host.settle()
    assert result(host) == Tally(taken=1, useless=1)
    assert host.journal(BUDI.journal).entries[1].born_s == host.clock.s - 50


# --- what proves nothing ----------------------------------------------------------------------------------------


def test_a_bad_frame_is_counted_and_the_others_are_taken() -> None:
    good = BUDI.bundle(3)
    altered = replace(BUDI.bundle(1), payload=bytes(2000))
    short = replace(BUDI.bundle(2), payload=b"")
    forged = sign_bundle(BUDI.bundle(4).header, BUDI.bundle(4).payload, FLEET.key("agus"))
    stranger = Cert(Founded().certificate("eve").der[:-1] + b"\0")
    host = Host(FLEET)
    frames: list[Frame] = [CERT, stranger, Ping()]
    frames += [BundleFrame(0, bundle) for bundle in (altered, short, good, forged)]
    host.handle(Brought(1, (b"", b"\xc1", *bodies(*frames), bodies(CERT)[0] + b"\0")))
    host.settle()
    assert result(host) == Tally(taken=1, damaged=8)
    assert host.stored(BUDI.journal) == Ranges.single(3)


def test_a_bundle_of_a_source_without_a_certificate_is_not_taken() -> None:
    host = Host(FLEET)
    bring(host, *bundles(1), CERT)
    assert result(host) == Tally(damaged=1)


def test_what_goes_to_everyone_and_introduces_nobody_is_of_no_use() -> None:
    right = introduce(FLEET.key("budi"), SealingKey(seed("b")).public)
    flood = sign_bundle(replace(right.header, number=2), right.payload, FLEET.key("budi"))
    host = Host(FLEET)
    bring(host, CERT, BundleFrame(0, flood), BundleFrame(0, right))
    host.settle()
    assert result(host) == Tally(taken=1, useless=1)
    assert host.stored(right.header.journal) == Ranges.single(1)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_no_bytes_break_the_node(data: st.DataObject) -> None:
    host = Host(FLEET)
    good = bodies(CERT, *bundles(1, size=1500), receipt_frame(FLEET.receipt(BUDI.journal, Ranges.single(9))))
    spoilt = []
    for body in good:
        at = data.draw(st.integers(0, min(len(body) - 1, 600)))
        spoilt.append(
            body[:at] + data.draw(st.binary(max_size=4)) + body[at + data.draw(st.integers(0, 4)) :]
        )
    host.handle(Brought(1, (*spoilt, *data.draw(st.lists(st.binary(max_size=40), max_size=3)))))
    bring(host, CERT, *bundles(2))
    host.settle()
    assert 2 in host.stored(BUDI.journal)


# --- papers -----------------------------------------------------------------------------------------------------


def test_a_receipt_frees_what_it_names_and_reaches_every_contact() -> None:
    host = Host(FLEET)
    agus = host.meet("agus")
    bring(host, CERT, *bundles(1, 2))
    host.settle()
    receipt = FLEET.receipt(BUDI.journal, Ranges.single(1))
    bring(host, receipt_frame(receipt), *bundles(1), bringing=2)
    assert host.node.brought() is None, "a receipt is durable before it is answered for"
    host.settle()
    assert result(host) == Tally(known=1, receipts=1)
    assert host.stored(BUDI.journal) == Ranges.single(2)
    assert [frame.body for frame in agus.take(ReceiptFrame)] == [receipt.body]
    bring(host, receipt_frame(receipt), bringing=3)
    assert result(host) == Tally(), "it says nothing new"


def test_a_receipt_that_its_endpoint_did_not_sign_is_damaged() -> None:
    receipt = FLEET.receipt(BUDI.journal, Ranges.single(1))
    host = Host(FLEET)
    bring(host, CERT, *bundles(1), ReceiptFrame(receipt.body, FLEET.key("budi").sign(receipt.body)))
    host.settle()
    assert result(host) == Tally(taken=1, damaged=1)
    assert host.journal(BUDI.journal).receipted == NONE


def test_a_device_signs_for_what_goes_to_it_and_its_certificate_comes_along() -> None:
    dewi = FLEET.certificate("dewi")
    header = replace(BUDI.bundle(1).header, destination=dewi.device)
    origin = Origin(BUDI.device, BUDI.epoch)
    endpoint = EndpointId(dewi.device)
    receipt = issue_receipt(FLEET.key("dewi"), endpoint, header.journal, 1, Ranges.single(1), 0, origin)
    host = Host(FLEET)
    bring(host, receipt_frame(receipt))
    assert result(host) == Tally(), "nobody knows dewi"
    bring(host, Cert(dewi.der), receipt_frame(receipt))
    host.settle()
    assert result(host) == Tally(receipts=1)
    host.restart()
    assert host.journal(header.journal).receipted == Ranges.single(1)
    assert dewi.device in host.node.state.certificates


def test_a_newer_fleet_document_is_followed_and_passed_on() -> None:
    host = Host(FLEET)
    agus, eve = host.meet("agus"), host.meet("eve")
    document = FLEET.write_document(2, revoked=["eve"])
    bring(host, Fleet(document.body, document.signature))
    assert host.identity.document.version == 2
    assert eve.closed is not None
    assert [frame.body for frame in agus.take(Fleet)] == [document.body]
    bring(host, Fleet(document.body, FLEET.key("eve").sign(document.body)))
    assert result(host) == Tally(damaged=1)


def test_a_receipt_of_our_own_is_given_away_only_when_it_is_durable() -> None:
    office = Host(FLEET, "kantor", "office")
    bring(office, CERT, *bundles(1))
    office.settle()
    office.handle(Taken(BUDI.journal, Ranges.single(1)))
    journal = office.journal(BUDI.journal)
    assert journal.receipt is not None
    assert office.node.receipt_of(journal) is None
    office.settle()
    assert office.node.receipt_of(journal) is journal.receipt


# --- the file ---------------------------------------------------------------------------------------------------


def test_a_file_says_whose_it_is() -> None:
    fleet = FLEET.document.fleet
    assert read_head(write_head(fleet) + b"more") == fleet
    assert len(write_head(fleet)) == HEAD_SIZE


def test_a_frame_is_known_by_its_first_bytes() -> None:
    frame = encode(BundleFrame(2**40, BUDI.bundle(7, size=5000)))
    assert frame_size(frame[:6]) == len(frame)
    assert peek(frame[:PEEK_SIZE]) == Stub(BUDI.journal, 7, 5000)
    assert peek(encode(CERT)) is None
    assert frame_size(encode(Ping())) is None
    for end in range(200):
        peek(frame[:end])
    document = Fleet(FLEET.document.body, FLEET.document.signature)
    for other in (CERT, document, receipt_frame(FLEET.receipt(BUDI.journal, Ranges.single(1)))):
        assert frame_size(encode(other)) == len(encode(other))


@given(st.binary(max_size=64))
def test_no_bytes_break_a_look(data: bytes) -> None:
    frame = encode(BundleFrame(0, BUDI.bundle()))
    peek(frame[:LENGTH_SIZE] + b"\x95\x07" + data)
    frame_size(data)

"""A member that floods: what it makes a node remember and compute is bounded, and where no sane peer would do so, it is
dropped, by name, and left alone for a while."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from itertools import count

import pytest

from meshnode.core.bundle import journal_id
from meshnode.core.frames import (
    BUCKETS,
    Bye,
    Cert,
    Finished,
    Frame,
    Have,
    Held,
    Hello,
    Ping,
    Pong,
    ReceiptFrame,
    Stored,
    Want,
    Wanted,
)
from meshnode.core.frames import Fleet as FleetFrame
from meshnode.core.identity import JournalId
from meshnode.core.intervals import NONE, Ranges
from meshnode.core.limits import (
    ASKED_AGAIN_MAX,
    ASKED_AGAIN_PER_S,
    DEVICE_JOURNALS_MAX,
    DEVICE_RANGES_MAX,
    JOURNALS_PER_FRAME,
    NUMBER_MAX,
    PEER_JOURNALS_MAX,
    PEER_RANGES_MAX,
    RANGES_MAX,
    SHUN_S,
)
from meshnode.core.receipt import Origin, issue_receipt
from meshnode.core.rows import Entry
from tests.core.fleets import Fleet, Source
from tests.core.hosts import Host, Puppet

FLEET = Fleet()
DEWI = Source(FLEET, "dewi")
EVERYTHING = Ranges.span(1, NUMBER_MAX)
GAPS = Ranges((1 + 2 * at, 1 + 2 * at) for at in range(RANGES_MAX))
#: One frame takes no longer, ten times what was measured.
FRAME_S = 1.5


def named(*label: object) -> JournalId:
    """A journal that nobody has."""
    return JournalId(hashlib.sha256(repr(label).encode()).digest()[:16])


def carrier(bundles: int) -> Host:
    """A node that carries so many bundles of dewi's."""
    host = Host(FLEET)
    ledger = host.node.state.ledger
    host.node.state.certificates[DEWI.device] = DEWI.certificate
    journal = ledger.open(DEWI.bundle(1).header, DEWI.journal)
    entry = Entry(2000, 1, 1, 1, host.clock.s, 10**7)
    ledger.add(journal, dict.fromkeys(range(1, bundles + 1), entry))
    return host


def held_by(host: Host, puppet: Puppet) -> dict[str, int]:
    """How large everything is that a contact makes a node keep."""
    contact = host.node.state.contacts[puppet.number]
    state = host.node.state
    return {
        "offers": len(contact.offers),
        "ranges": sum(len(ranges.pairs) for ranges in contact.offers.values()),
        "ends": len(contact.ends),
        "serials": len(contact.serials),
        "listed": len(contact.listed),
        "wanting": len(contact.wanting),
        "nothing_of": len(contact.nothing_of),
        "queue": len(contact.requests._queue),
        "queued": len(contact.requests),
        "asked": len(state.fetching._asked),
        "journals": len(state.ledger.journals),
        "certificates": len(state.certificates),
        "unsaved": len(state.unsaved_certificates),
        "logs": len(host.logs),
    }


def names_and_takes_back() -> Iterator[Frame]:
    for at in count():
        names = [named(at, n) for n in range(JOURNALS_PER_FRAME)]
        yield Have(False, tuple(Held(name, Ranges.single(1), 5, True) for name in names))
        yield Have(False, tuple(Held(name, NONE, 5, True) for name in names))


def replays_certificates() -> Iterator[Frame]:
    while True:
        yield Cert(DEWI.certificate.der)


def replays_the_document() -> Iterator[Frame]:
    while True:
        yield FleetFrame(FLEET.document.body, FLEET.document.signature)


def pings() -> Iterator[Frame]:
    while True:
        yield Ping()


def says_hello_again() -> Iterator[Frame]:
    for at in count():
        yield Hello("agus\x1b[2J\nmallory", ("office",), at % 65536, at, 0, bool(at % 2), 0)


def stores_what_it_has_said() -> Iterator[Frame]:
    for at in count():
        yield Stored(((named("one"), Ranges.single(1 + 2 * (at % 9)), bool(at % 2)),))


def signs_for_journals_it_invents() -> Iterator[Frame]:
    key, device = FLEET.key("agus"), FLEET.device("agus")
    yield Cert(FLEET.certificate("agus").der)
    for at in count():
        origin = Origin(FLEET.device("dewi"), at.to_bytes(8, "big"))
        journal = journal_id(origin.source, device, origin.epoch)
        receipt = issue_receipt(key, device, journal, 1, Ranges.single(1), 0, origin)  # type: ignore[arg-type]
        yield ReceiptFrame(receipt.body, receipt.signature)


def brings_receipts_of_nobody() -> Iterator[Frame]:
    key, nobody = FLEET.key("nobody"), FLEET.device("nobody")
    for at in count():
        receipt = issue_receipt(key, nobody, named(at), 1, Ranges.single(1), 0)  # type: ignore[arg-type]
        yield ReceiptFrame(receipt.body, receipt.signature)


FLOODS: list[tuple[Callable[[], Iterator[Frame]], int]] = [
    (names_and_takes_back, 12),
    (replays_certificates, 500),
    (replays_the_document, 500),
    (pings, 3000),
    (says_hello_again, 500),
    (stores_what_it_has_said, 500),
    (signs_for_journals_it_invents, 400),
    (brings_receipts_of_nobody, 500),
]


@pytest.mark.parametrize(("flood", "frames"), FLOODS, ids=[flood.__name__ for flood, _ in FLOODS])
def test_what_a_flood_makes_a_node_remember_does_not_grow_with_it(
    flood: Callable[[], Iterator[Frame]], frames: int
) -> None:
    host = Host(FLEET)
    agus, wati = host.meet("agus"), host.meet("wati")
    source = flood()
    host.node.state.ledger.signed_for[bytes(FLEET.device("agus"))] = DEVICE_JOURNALS_MAX - 100
    for _ in range(frames // 2):
        agus.says(next(source))
    host.settle()
    first = held_by(host, agus)
    for _ in range(frames - frames // 2):
        agus.says(next(source))
    host.settle()
    assert agus.ended() is None
    last = held_by(host, agus)
    assert last == first
    assert len(host.logs) < 10, "trouble is told once"
    if flood is signs_for_journals_it_invents:
        assert last["journals"] == 100
    agus.take(Pong)
    wati.says(Ping())
    assert wati.take(Pong) == [Pong()]


# --- who is dropped ---------------------------------------------------------------------------------------------


def invents_journals(agus: Puppet) -> None:
    for at in range(PEER_JOURNALS_MAX // JOURNALS_PER_FRAME + 1):
        rows = tuple(Held(named(at, n), Ranges.single(1), 0) for n in range(JOURNALS_PER_FRAME))
        agus.says(Have(False, rows))


def invents_gaps(agus: Puppet) -> None:
    for at in range(PEER_RANGES_MAX // RANGES_MAX + 1):
        agus.says(Stored(((named(at), GAPS, False),)))


def asks_and_takes_back(agus: Puppet) -> None:
    ask = Want(0, (Wanted(DEWI.journal, EVERYTHING, NONE, True),))
    back = Want(0, (Wanted(DEWI.journal, NONE, EVERYTHING, True),))
    for _ in range(20):
        agus.says(ask, back)


def asks_for_the_same(agus: Puppet) -> None:
    agus.says(Want(0, (Wanted(DEWI.journal, EVERYTHING, NONE, True),) * JOURNALS_PER_FRAME))


def sums_up_again(agus: Puppet) -> None:
    agus.says(Finished((b"12345678",)), Finished((b"12345678",)))


def sums_up_again_by_buckets(agus: Puppet) -> None:
    agus.says(Finished((b"12345678",) * BUCKETS), Finished((b"12345678",) * BUCKETS))


BREACHES: dict[Callable[[Puppet], None], str] = {
    invents_journals: f"HAVE lists more than {PEER_JOURNALS_MAX} journals.",
    invents_gaps: f"HAVE lists more than {PEER_RANGES_MAX} ranges.",
    asks_and_takes_back: "WANT asks for the same again and again.",
    asks_for_the_same: "WANT asks for the same again and again.",
    sums_up_again: "FINISHED came again.",
    sums_up_again_by_buckets: "FINISHED came again.",
}


@pytest.mark.parametrize(("breach", "problem"), BREACHES.items(), ids=[each.__name__ for each in BREACHES])
def test_a_flood_that_no_sane_peer_makes_ends_the_contact(
    breach: Callable[[Puppet], None], problem: str
) -> None:
    host = carrier(20_000)
    agus, wati = host.meet("agus"), host.meet("wati")
    breach(agus)
    assert agus.closed == problem
    assert [contact.peer.name for contact in host.node.state.contacts.values()] == ["wati"]
    assert host.node.state.fetching._asked == {}, "what it owed is asked of others"
    assert host.meet("agus").closed == "it broke the protocol a moment ago"
    host.clock.s += SHUN_S + 1
    wati.says(Ping())
    assert host.meet("agus").closed is None


def test_a_peer_may_take_back_all_of_it_and_ask_again_now_and_then() -> None:
    """As one does that shares the work among two carriers, of which one comes and goes."""
    host = carrier(5_000)
    agus = host.meet("agus")
    ask = Want(0, (Wanted(DEWI.journal, EVERYTHING, NONE, True),))
    back = Want(0, (Wanted(DEWI.journal, NONE, EVERYTHING, True),))
    for _ in range(30):
        agus.says(ask, back)
        host.clock.s += 5_000 / ASKED_AGAIN_PER_S + 0.1
    assert agus.ended() is None
    for _ in range(2 + ASKED_AGAIN_MAX // 5_000):
        agus.says(ask, back)
    assert agus.ended() is None


# --- what one frame costs ---------------------------------------------------------------------------------------

COSTLY: dict[str, list[Frame]] = {
    "every journal with a few gaps": [
        Have(False, tuple(Held(named(n), Ranges(GAPS.pairs[:10]), 0) for n in range(JOURNALS_PER_FRAME)))
    ],
    "one journal with every gap": [Have(False, (Held(named(0), GAPS, 0),))] * 10,
    "one number again and again in a journal with every gap": [
        Stored(((named(0), GAPS, False),)),
        Stored(((named(0), Ranges.single(1), False),) * JOURNALS_PER_FRAME),
    ],
    "all that is here": [Want(0, (Wanted(DEWI.journal, EVERYTHING, NONE, True),))],
    "all that is here, and not, by numbers": [Want(0, (Wanted(DEWI.journal, GAPS, GAPS, True),))] * 5,
}


@pytest.mark.parametrize("frames", COSTLY.values(), ids=COSTLY)
def test_what_one_frame_costs(frames: list[Frame]) -> None:
    host = carrier(20_000)
    agus = host.meet("agus")
    began_s = time.process_time()
    agus.says(*frames)
    assert time.process_time() - began_s < FRAME_S
    assert agus.ended() is None


# --- a device's receipts ----------------------------------------------------------------------------------------


def test_a_device_signs_for_no_more_gaps_than_others_remember() -> None:
    gappy = Ranges((1 + 2 * at, 1 + 2 * at) for at in range(DEVICE_RANGES_MAX + 1))
    host = Host(FLEET)
    agus = host.meet("agus")
    agus.says(Cert(FLEET.certificate("agus").der))
    device = FLEET.device("agus")
    origin = Origin(DEWI.device, DEWI.epoch)
    journal = journal_id(origin.source, device, origin.epoch)
    for ranges, known in ((gappy, NONE), (Ranges(gappy.pairs[1:]), Ranges(gappy.pairs[1:]))):
        receipt = issue_receipt(FLEET.key("agus"), device, journal, 1, ranges, 0, origin)  # type: ignore[arg-type]
        agus.says(ReceiptFrame(receipt.body, receipt.signature))
        assert host.journal(journal).receipted == known
    assert agus.ended() is None


# --- what goes into the log -------------------------------------------------------------------------------------


def test_what_a_peer_says_cannot_forge_a_line() -> None:
    host = Host(FLEET)
    agus = host.meet("agus", greet=False)
    agus.says(Hello("agus\n\x1b[2Jroot", ("officer",), 1, 1, 0, False, 0))
    agus.says(Bye("bye\n2026-01-01 INFO contact with mallory\x1b[2J\u202e"))
    assert agus.ended() is not None
    for line in host.logs:
        assert line.isprintable(), line
        assert "root" not in line

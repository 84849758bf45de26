"""The state tables of docs/protocol.md: a real node is sent each frame in each state, and what it does is noted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final
from unittest.mock import patch

from meshnode.core.frames import (
    BundleFrame,
    Bye,
    Cert,
    Finished,
    Fleet,
    Frame,
    Have,
    Heard,
    Held,
    Hello,
    Next,
    Ping,
    Pong,
    ReceiptFrame,
    Stored,
    Want,
    Wanted,
    encode,
)
from meshnode.core.framing import FrameReader
from meshnode.core.identity import EndpointId
from meshnode.core.intervals import NONE, Ranges
from meshnode.core.limits import CREDIT_BYTES, GIB
from meshnode.core.receipt import Receipt, issue_receipt, read_receipt
from meshnode.core.sealing import CHUNK_SIZE
from tests.core.fleets import Fleet as Founded
from tests.core.fleets import Source
from tests.core.hosts import PORT, Host, Puppet
from tests.core.worlds import End, Office, World

WALL_MS: Final = 1_700_000_000_000


@dataclass(frozen=True)
class Case:
    """A frame that a peer sends, once `before` was sent, and `told` by another peer earlier."""

    what: str
    data: bytes
    before: tuple[Frame, ...] = ()
    told: tuple[Frame, ...] = ()


def _cases(fleet: Founded) -> Iterator[Case]:
    dewi = Source(fleet, "dewi")
    bundle, some = dewi.bundle(), Ranges.single(1)
    receipt, newer = fleet.receipt(dewi.journal, some), fleet.write_document(2)
    offer = Have(False, (Held(dewi.journal, some, 0),))
    altered = replace(bundle, payload=bytes([bundle.payload[0] ^ 1]) + bundle.payload[1:])
    stranger = issue_receipt(fleet.key("eko"), EndpointId(fleet.device("eko")), dewi.journal, 1, some, 0)
    cert, asked = Cert(dewi.certificate.der), (Cert(dewi.certificate.der), offer)

    def case(what: str, frame: Frame, *before: Frame) -> Case:
        return Case(what, encode(frame), before)

    yield case("HELLO", _hello("agus"))
    yield case("HELLO that speaks other versions only", replace(_hello("agus"), version_min=2, version_max=9))
    yield case("FLEET, the same version", Fleet(fleet.document.body, fleet.document.signature))
    yield case("FLEET, a newer version", Fleet(newer.body, newer.signature))
    yield case("FLEET, falsely signed", Fleet(newer.body, fleet.document.signature))
    yield case("HAVE, not the last", offer)
    yield case("HAVE, whole", Have(True, ()))
    yield Case("HAVE, of what is receipted here", encode(offer), (), (_frame(receipt),))
    ahead = Have(False, (Held(dewi.journal, NONE, receipt.serial),))
    yield case("HAVE, of a receipt that is not known here", ahead)
    yield case("RECEIPT", _frame(receipt))
    yield case("RECEIPT of an endpoint that is not known", ReceiptFrame(stranger.body, stranger.signature))
    yield case("RECEIPT, falsely signed", ReceiptFrame(receipt.body, stranger.signature))
    yield case("CERT", cert)
    yield case("WANT, of what is not here", Want(CREDIT_BYTES, (Wanted(dewi.journal, some, NONE, False),)))
    yield case("BUNDLE beyond the credit", BundleFrame(0, bundle), cert)
    yield case("BUNDLE that was asked for", BundleFrame(0, bundle), *asked)
    yield case("BUNDLE that is too old", BundleFrame(bundle.header.lifetime_s + 1, bundle), *asked)
    yield case("BUNDLE with an altered payload", BundleFrame(0, altered), *asked)
    yield case("BUNDLE without its CERT", BundleFrame(0, bundle), offer)
    yield case("STORED", Stored(((dewi.journal, some, False),)))
    yield case("PING", Ping())
    yield case("PONG", Pong())
    yield case("BYE", Bye("done"))
    yield case("FINISHED, the same total", Finished((bytes(8),)))
    yield case("FINISHED, another total", Finished((bytes(range(8)),)))
    yield case("FINISHED, a total again", Finished((bytes(8),)), Finished((bytes(8),)))
    yield case("FINISHED, buckets", Finished((bytes(8),) * 256))
    yield case("HEARD", Heard(()))
    yield case("NEXT", Next(None))
    yield Case("any other kind", bytes.fromhex("00000002910f"))
    yield Case("no msgpack", bytes.fromhex("00000001c1"))


def _frame(receipt: Receipt) -> ReceiptFrame:
    return ReceiptFrame(receipt.body, receipt.signature)


def _hello(name: str) -> Hello:
    return Hello(name, ("officer",), PORT, 1, WALL_MS, False, GIB)


def _outcome(puppet: Puppet) -> str:
    said: list[str] = []
    for frame in puppet.heard:
        name = type(frame).__name__.removesuffix("Frame").upper()
        if name not in said:
            said.append(name)
    if puppet.closed is not None:
        return f"ends: {puppet.closed}"
    return f"answers {', '.join(said)}" if said else "takes it"


def _try(case: Case, *prelude: Frame, after_hello: bool) -> str:
    fleet = Founded()
    host = Host(fleet)
    host.meet("wati").says(*case.told)
    host.settle()
    puppet = host.meet("agus", greet=False)
    puppet.says(*prelude)
    if after_hello:
        puppet.says(*case.before)
    host.settle()
    puppet.heard.clear()
    if puppet.closed is None:
        puppet.writes(case.data)
        host.settle()
    return _outcome(puppet)


def contact_states() -> Iterator[str]:
    """What a node does with each frame, in each state of a contact."""
    phases: dict[str, tuple[Frame, ...]] = {
        "before its HELLO": (),
        "after its HELLO": (_hello("agus"),),
        "after its whole HAVE": (_hello("agus"), Have(True, ())),
    }
    yield f"| the peer sends | {' | '.join(phases)} |"
    yield f"| --- |{' --- |' * len(phases)}"
    for case in _cases(Founded()):
        outcomes = (_try(case, *prelude, after_hello=bool(prelude)) for prelude in phases.values())
        yield f"| {case.what} | {' | '.join(outcomes)} |"


def message_states() -> Iterator[str]:
    """Where a message of two bundles is, while one thing after another becomes known at its source."""
    fleet = Founded()
    host = Host(fleet)
    host.submit(b"x" * (CHUNK_SIZE + 1))
    host.settle()
    journal = host.own_journal

    def holds(puppet: Puppet, ranges: Ranges) -> Callable[[], object]:
        return lambda: puppet.says(Have(False, (Held(journal, ranges, 0),)))

    both, budi, wati = Ranges.span(1, 2), host.meet("budi"), host.meet("wati")
    office = host.meet("kantor", role="office")
    steps: list[tuple[str, Callable[[], object]]] = [
        ("submitted, and durable", lambda: None),
        ("budi: HAVE 1", holds(budi, Ranges.single(1))),
        ("budi: STORED 2", lambda: budi.says(Stored(((journal, Ranges.single(2), False),)))),
        ("wati: HAVE 1-2", holds(wati, both)),
        ("the contact with wati is lost", wati.lose),
        ("budi: HAVE none", holds(budi, NONE)),
        ("office: STORED 1-2, ends", lambda: office.says(Stored(((journal, both, True),)))),
        ("RECEIPT 1-2", lambda: office.says(_frame(fleet.receipt(journal, both)))),
        ("budi: HAVE 1-2", holds(budi, both)),
    ]
    yield "| it becomes known | state | copies |"
    yield "| --- | --- | ---: |"
    for what, step in steps:
        step()
        host.settle()
        (it,) = host.node.state.custody.states()
        yield f"| {what} | `{it.state}` | {it.copies} |"


def transcript() -> Iterator[str]:
    """A contact of two real nodes, frame by frame: siti has written a message of two bundles, kantor is the office."""
    world = World(Founded())
    siti, kantor = world.add("siti"), world.add("kantor", role="office")
    siti.submit(b"x" * (CHUNK_SIZE + 1))
    world.run()
    rows: list[str] = []
    draw = End.draw

    def drawn(end: End, size: int) -> bytes:
        data = draw(end, size)
        for frame in readers[end.host.name].feed(data):
            name = type(frame).__name__.removesuffix("Frame").upper()
            rows.append(f"| {end.host.name} | {name} | {_told(frame)} |")
        return data

    readers = {host.name: FrameReader() for host in (siti, kantor)}
    with patch.object(End, "draw", drawn):
        world.open(siti, kantor)
        world.run()
        Office(kantor).look()
        world.run()
    yield "| who | says | |"
    yield "| --- | --- | --- |"
    yield from rows


def _told(frame: Frame) -> str:
    """What a frame says, in a few words."""
    match frame:
        case Hello():
            return f"version {frame.version_min}, fleet document {frame.fleet_version}, away_s {frame.away_s}"
        case Have():
            journals = (f"{held.ranges}, serial {held.serial}" for held in frame.journals)
            return f"{'whole' if frame.whole else 'not whole'}: {'; '.join(journals) or 'no journals'}"
        case Want():
            return f"credit {frame.credit}: {'; '.join(str(row.ranges) for row in frame.journals)}"
        case BundleFrame():
            header = frame.bundle.header
            place = f"number {header.number}, part {header.part} of {header.parts}"
            return f"{place}, {header.payload_size} bytes, age_s {frame.age_s}"
        case Stored():
            return "; ".join(f"{ranges}{', ends' if ends else ''}" for _, ranges, ends in frame.journals)
        case Finished():
            return f"{frame.buckets[0].hex()}"
        case ReceiptFrame():
            receipt = read_receipt(frame.body, frame.signature)
            return f"{receipt.ranges}, serial {receipt.serial:#x}"
        case Next():
            return "nothing" if frame.rank is None else f"class {frame.rank[0]}"
    return ""

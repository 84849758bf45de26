"""Frames: what two nodes say to each other in a contact, and nothing else.

A frame is a 4-byte big-endian length and a msgpack array whose first item is its kind. `encode` writes one,
`FrameReader` cuts a stream of bytes into them, whatever pieces it comes in; anything else is a `RemoteError`.

    HELLO    [1, version_min, version_max, name, roles, port, fleet version, wall_ms, uplink, free_bytes,
              away_s]
    FLEET    [2, body, signature]
    HAVE     [3, whole, [[journal, ranges, serial, ends], ...]]   whole: the last of a complete list
    RECEIPT  [4, body, signature]
    CERT     [5, der]
    WANT     [6, credit, [[journal, ranges, ranges no longer wanted, certificate known], ...]]
    BUNDLE   [7, age_s, header, signature, payload]
    STORED   [8, [[journal, ranges, ends], ...]]
    PING     [9]        PONG [10]
    BYE      [11, reason]
    FINISHED [12, [digest of all] or [digest of bucket 0, ... of bucket 255]]
    HEARD    [13, [[device, away_s, [[journal, ranges], ...]], ...]]
    NEXT     [14, class, worth]      class 0 to 7, 0 is best; 8: nothing

HELLO comes first and may come again when what it says has changed. HAVE replaces what was said before of each journal
that it names; STORED adds to it. What `ends` at a node is not to be asked of it, since nobody else has a use for it.
Each number in a WANT is one request, answered by one BUNDLE unless it is taken back first. `credit` counts the bundle
payload bytes that may have been sent since the contact began. FINISHED sums up the journals that neither side has
listed in HAVE, see `ledger`. HEARD is hearsay: what other devices have said to hold, see `holders`. NEXT tells how good
the bundle is that comes next, where bundles go both ways, see `routing`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from meshnode.core.bundle import AGE_S_MAX, MILLISECONDS_MAX, Bundle, read_bundle
from meshnode.core.errors import RemoteError
from meshnode.core.fields import Reader, pack, unpack
from meshnode.core.identity import ID_SIZE, ROLES, SIGNATURE_SIZE, DeviceId, JournalId
from meshnode.core.intervals import Ranges, ranges_from_wire
from meshnode.core.limits import (
    AWAY_S_MAX,
    CERTIFICATE_SIZE_MAX,
    DOCUMENT_SIZE_MAX,
    FRAME_SIZE_MAX,
    HEADER_SIZE_MAX,
    JOURNALS_PER_FRAME,
    NAME_SIZE_MAX,
    PAYLOAD_SIZE_MAX,
)
from meshnode.core.receipt import SERIAL_MAX
from meshnode.core.words import say

PROTOCOL: Final = 1
ALPN: Final = "meshnode/1"
DIGEST_SIZE: Final = 8
BUCKETS: Final = 256
LENGTH_SIZE: Final = 4
_BYTES_MAX: Final = 2**63 - 1

#: How good a message is: class and -worth (`routing`). Of two the smaller goes first.
Rank = tuple[int, float]
_NOTHING: Final[Rank] = (8, -0.0)


@dataclass(frozen=True, slots=True)
class Hello:
    """Who I am and how I am. `away_s`: how long what I carry takes to an office, as far as I know (`encounters`)."""

    name: str
    roles: tuple[str, ...]
    port: int
    fleet_version: int
    wall_ms: int
    uplink: bool
    free_bytes: int
    away_s: int = AWAY_S_MAX
    version_min: int = PROTOCOL
    version_max: int = PROTOCOL


@dataclass(frozen=True, slots=True)
class Fleet:
    """A fleet document, newer than the one that you have."""

    body: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Held:
    """Of one journal: what I hold, the serial of the newest receipt that I know (0: none), and whether I am where it
    goes to."""

    journal: JournalId
    ranges: Ranges
    serial: int
    ends: bool = False


@dataclass(frozen=True, slots=True)
class Have:
    """What I hold that is not receipted. `whole`: with this frame you know all of it."""

    whole: bool
    journals: tuple[Held, ...]


@dataclass(frozen=True, slots=True)
class ReceiptFrame:
    """A receipt that you lack."""

    body: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Cert:
    """The certificate of a source whose bundles follow."""

    der: bytes


@dataclass(frozen=True, slots=True)
class Wanted:
    """Of one journal: the numbers to send me, those not to send after all, and whether I have the source's
    certificate."""

    journal: JournalId
    ranges: Ranges
    dropped: Ranges
    known: bool


@dataclass(frozen=True, slots=True)
class Want:
    """Send me these, until `credit` payload bytes have been sent since the contact began."""

    credit: int
    journals: tuple[Wanted, ...]


@dataclass(frozen=True, slots=True)
class BundleFrame:
    """One bundle, `age_s` old."""

    age_s: int
    bundle: Bundle


@dataclass(frozen=True, slots=True)
class Stored:
    """These are durable here now: journal, ranges, and whether the journal ends here."""

    journals: tuple[tuple[JournalId, Ranges, bool], ...]


@dataclass(frozen=True, slots=True)
class Ping:
    """Are you there?"""


@dataclass(frozen=True, slots=True)
class Pong:
    """I am."""


@dataclass(frozen=True, slots=True)
class Bye:
    """I end this contact, and why."""

    reason: str


@dataclass(frozen=True, slots=True)
class Finished:
    """One digest of all finished journals, or one for each bucket of them (by the first byte of the id)."""

    buckets: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """Of one device: its delay to an office, and what it holds of some journals."""

    device: DeviceId
    away_s: int
    journals: tuple[tuple[JournalId, Ranges], ...]


@dataclass(frozen=True, slots=True)
class Heard:
    """What other devices have said of themselves, to me or to those who told me."""

    devices: tuple[Elsewhere, ...]


@dataclass(frozen=True, slots=True)
class Next:
    """How good the next bundle is that I send you: its class, of which the smallest is best, and its worth; None if I
    have nothing for you now."""

    rank: Rank | None


Frame = (
    Hello
    | Fleet
    | Have
    | ReceiptFrame
    | Cert
    | Want
    | BundleFrame
    | Stored
    | Ping
    | Pong
    | Bye
    | Finished
    | Heard
    | Next
)


def _frame(items: list[object]) -> bytes:
    body = pack(items)
    return len(body).to_bytes(LENGTH_SIZE, "big") + body


def encode(frame: Frame) -> bytes:
    """The frame's bytes, with the length before them."""
    match frame:
        case Hello():
            return _frame(
                [
                    1,
                    frame.version_min,
                    frame.version_max,
                    frame.name,
                    list(frame.roles),
                    frame.port,
                    frame.fleet_version,
                    frame.wall_ms,
                    frame.uplink,
                    frame.free_bytes,
                    frame.away_s,
                ]
            )
        case Fleet():
            return _frame([2, frame.body, frame.signature])
        case Have():
            rows = [[held.journal, held.ranges.to_wire(), held.serial, held.ends] for held in frame.journals]
            return _frame([3, frame.whole, rows])
        case ReceiptFrame():
            return _frame([4, frame.body, frame.signature])
        case Cert():
            return _frame([5, frame.der])
        case Want():
            wants = [
                [want.journal, want.ranges.to_wire(), want.dropped.to_wire(), want.known]
                for want in frame.journals
            ]
            return _frame([6, frame.credit, wants])
        case BundleFrame():
            return encode_bundle(
                frame.age_s, frame.bundle.header_bytes, frame.bundle.signature, frame.bundle.payload
            )
        case Stored():
            return _frame(
                [8, [[journal, ranges.to_wire(), ends] for journal, ranges, ends in frame.journals]]
            )
        case Ping():
            return _frame([9])
        case Pong():
            return _frame([10])
        case Bye():
            return _frame([11, frame.reason])
        case Finished():
            return _frame([12, list(frame.buckets)])
        case Heard():
            return _frame([13, [_elsewhere_items(each) for each in frame.devices]])
        case Next():
            rank = frame.rank or _NOTHING
            return _frame([14, rank[0], -rank[1]])


def _elsewhere_items(each: Elsewhere) -> list[object]:
    return [each.device, each.away_s, [[journal, ranges.to_wire()] for journal, ranges in each.journals]]


def encode_bundle(age_s: int, header: bytes, signature: bytes, payload: bytes) -> bytes:
    """A BUNDLE frame from stored bytes, without decoding the header first."""
    return bundle_head(age_s, header, signature, len(payload)) + payload


def bundle_head(age_s: int, header: bytes, signature: bytes, payload_size: int) -> bytes:
    """What stands in a BUNDLE frame before its payload, which comes last and need not be copied for its sake."""
    # an array of four, made one of five, and the head of a byte string: "bin 8", "bin 16" or "bin 32"
    width = 0 if payload_size < 2**8 else 1 if payload_size < 2**16 else 2
    body = b"\x95" + pack([7, age_s, header, signature])[1:]
    body += bytes((0xC4 + width,)) + payload_size.to_bytes(2**width, "big")
    return (len(body) + payload_size).to_bytes(LENGTH_SIZE, "big") + body


def _hello(reader: Reader) -> Hello:
    version_min = reader.whole("version_min", 0, 2**16)
    version_max = reader.whole("version_max", version_min, 2**16)
    name = reader.text("name", NAME_SIZE_MAX)
    roles = reader.items("roles", len(ROLES))
    if not all(role in ROLES for role in roles if type(role) is str) or not all(
        type(role) is str for role in roles
    ):
        raise RemoteError("HELLO.roles", "names an unknown role")
    return Hello(
        name=name,
        roles=tuple(roles),
        port=reader.whole("port", 0, 65535),
        fleet_version=reader.whole("fleet_version", 0, 2**32),
        wall_ms=reader.whole("wall_ms", 0, MILLISECONDS_MAX),
        uplink=reader.flag("uplink"),
        free_bytes=reader.whole("free_bytes", 0, _BYTES_MAX),
        away_s=reader.whole("away_s", 0, AWAY_S_MAX),
        version_min=version_min,
        version_max=version_max,
    )


def _signed(reader: Reader, size_max: int) -> tuple[bytes, bytes]:
    return reader.octets("body", 1, size_max), reader.octets("signature", SIGNATURE_SIZE)


def _held(reader: Reader) -> Held:
    return Held(
        JournalId(reader.octets("journal", ID_SIZE)),
        ranges_from_wire(*reader.raw("ranges")),
        reader.whole("serial", 0, SERIAL_MAX),
        reader.flag("ends"),
    )


def _have(reader: Reader) -> Have:
    return Have(
        reader.flag("whole"),
        tuple(reader.each("journals", JOURNALS_PER_FRAME, 4, _held)),
    )


def _wanted(reader: Reader) -> Wanted:
    return Wanted(
        JournalId(reader.octets("journal", ID_SIZE)),
        ranges_from_wire(*reader.raw("ranges")),
        ranges_from_wire(*reader.raw("dropped")),
        reader.flag("known"),
    )


def _want(reader: Reader) -> Want:
    return Want(
        reader.whole("credit", 0, _BYTES_MAX),
        tuple(reader.each("journals", JOURNALS_PER_FRAME, 4, _wanted)),
    )


def _bundle(reader: Reader) -> BundleFrame:
    age_s = reader.whole("age_s", 0, AGE_S_MAX)
    bundle = read_bundle(
        reader.octets("header", 1, HEADER_SIZE_MAX),
        reader.octets("signature", SIGNATURE_SIZE),
        reader.octets("payload", 0, PAYLOAD_SIZE_MAX),
    )
    return BundleFrame(age_s, bundle)


def _stored(reader: Reader) -> Stored:
    def row(item: Reader) -> tuple[JournalId, Ranges, bool]:
        journal = JournalId(item.octets("journal", ID_SIZE))
        return journal, ranges_from_wire(*item.raw("ranges")), item.flag("ends")

    return Stored(tuple(reader.each("journals", JOURNALS_PER_FRAME, 3, row)))


def _finished(reader: Reader) -> Finished:
    buckets = reader.items("buckets", BUCKETS)
    if len(buckets) not in (1, BUCKETS) or not all(
        type(bucket) is bytes and len(bucket) == DIGEST_SIZE for bucket in buckets
    ):
        raise RemoteError("FINISHED.buckets", say("is not 1 or {most} digests", most=BUCKETS))
    return Finished(tuple(buckets))


def _elsewhere(reader: Reader) -> Elsewhere:
    def row(item: Reader) -> tuple[JournalId, Ranges]:
        return JournalId(item.octets("journal", ID_SIZE)), ranges_from_wire(*item.raw("ranges"))

    return Elsewhere(
        DeviceId(reader.octets("device", ID_SIZE)),
        reader.whole("away_s", 0, AWAY_S_MAX),
        tuple(reader.each("journals", JOURNALS_PER_FRAME, 2, row)),
    )


def _next(reader: Reader) -> Next:
    number = reader.whole("class", 0, _NOTHING[0])
    worth = reader.real("worth")
    if number == _NOTHING[0] and worth:
        raise RemoteError("NEXT.worth", "is not 0 though nothing comes")
    return Next(None if number == _NOTHING[0] else (number, -worth))


#: kind: (name, items with the kind, how to read the rest)
_KINDS: Final[dict[int, tuple[str, int, Callable[[Reader], Frame]]]] = {
    1: ("HELLO", 11, _hello),
    2: ("FLEET", 3, lambda r: Fleet(*_signed(r, DOCUMENT_SIZE_MAX))),
    3: ("HAVE", 3, _have),
    4: ("RECEIPT", 3, lambda r: ReceiptFrame(*_signed(r, FRAME_SIZE_MAX))),
    5: ("CERT", 2, lambda r: Cert(r.octets("der", 1, CERTIFICATE_SIZE_MAX))),
    6: ("WANT", 3, _want),
    7: ("BUNDLE", 5, _bundle),
    8: ("STORED", 2, _stored),
    9: ("PING", 1, lambda _: Ping()),
    10: ("PONG", 1, lambda _: Pong()),
    11: ("BYE", 2, lambda r: Bye(r.text("reason", 200))),
    12: ("FINISHED", 2, _finished),
    13: ("HEARD", 2, lambda r: Heard(tuple(r.each("devices", JOURNALS_PER_FRAME, 3, _elsewhere)))),
    14: ("NEXT", 3, _next),
}


def decode(body: bytes | memoryview) -> Frame:
    """Read one frame's body (without its length). Raises RemoteError that names the field."""
    items: list[Any] = unpack(body, "frame")
    if not items or type(items[0]) is not int or items[0] not in _KINDS:
        raise RemoteError("frame", "is of an unknown kind")
    name, count, read = _KINDS[items[0]]
    reader = Reader(items, name, count)
    reader.whole("kind", 1, len(_KINDS))
    return read(reader)

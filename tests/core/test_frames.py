"""Frames: each sample read whole, byte by byte and with the next one behind it; whatever else comes is refused."""

from __future__ import annotations

import contextlib
import copy
import math
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from meshnode.core.errors import RemoteError
from meshnode.core.fields import pack, unpack
from meshnode.core.frames import (
    BUCKETS,
    BundleFrame,
    Bye,
    Cert,
    Elsewhere,
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
    decode,
    encode,
    encode_bundle,
)
from meshnode.core.framing import FrameReader
from meshnode.core.identity import DeviceId, JournalId
from meshnode.core.intervals import NONE, Ranges
from meshnode.core.limits import (
    AWAY_S_MAX,
    FRAME_SIZE_MAX,
    HEARD_MAX,
    HEARD_RANGES_MAX,
    JOURNALS_PER_FRAME,
    NUMBER_MAX,
    PAYLOAD_SIZE_MAX,
)
from tests.core import fleets

FLEET = fleets.Fleet()
SITI = fleets.Source(FLEET, "siti")
BUNDLE = SITI.bundle(3, size=1500)
AGUS, WATI = DeviceId(b"a" * 16), DeviceId(b"w" * 16)
J, K = JournalId(b"j" * 16), JournalId(b"k" * 16)
SOME = Ranges([(1, 57), (60, 60)])
RECEIPT = FLEET.receipt(J, SOME)

SAMPLES: dict[str, Frame] = {
    "hello": Hello("siti", ("officer",), 7766, 3, 1_700_000_000_000, True, 2**40),
    "hello of everything": Hello(
        "agus-2.b", ("gateway", "office"), 0, 0, 0, False, 0, away_s=0, version_min=1, version_max=9
    ),
    "fleet": Fleet(FLEET.document.body, FLEET.document.signature),
    "have": Have(False, (Held(J, SOME, 7 << 16), Held(K, NONE, 0, True))),
    "have nothing": Have(True, ()),
    "receipt": ReceiptFrame(RECEIPT.body, RECEIPT.signature),
    "cert": Cert(SITI.certificate.der),
    "want": Want(8 << 20, (Wanted(J, SOME, NONE, True), Wanted(K, NONE, SOME, False))),
    "want credit": Want(1, ()),
    "bundle": BundleFrame(12, BUNDLE),
    "large bundle": BundleFrame(0, SITI.bundle(4, size=PAYLOAD_SIZE_MAX)),
    "stored": Stored(((J, SOME, False), (K, Ranges.single(1), True))),
    "ping": Ping(),
    "pong": Pong(),
    "bye": Bye("revoked"),
    "finished": Finished((b"12345678",)),
    "finished buckets": Finished((b"12345678",) * BUCKETS),
    "heard": Heard((Elsewhere(AGUS, 86_400, ((J, SOME), (K, NONE))), Elsewhere(WATI, AWAY_S_MAX, ()))),
    "heard nothing": Heard(()),
    "next": Next((5, -0.015625)),
    "next best of all": Next((0, -1.7976931348623157e308)),
    "next worth nothing": Next((7, -0.0)),
    "next nothing": Next(None),
}
samples = pytest.mark.parametrize("frame", SAMPLES.values(), ids=SAMPLES)


def body(frame: Frame) -> list[Any]:
    """The array inside."""
    return unpack(encode(frame)[4:], "frame")


@samples
def test_read_whole(frame: Frame) -> None:
    data = encode(frame)
    assert int.from_bytes(data[:4], "big") == len(data) - 4 <= FRAME_SIZE_MAX
    assert decode(data[4:]) == frame
    assert decode(memoryview(data)[4:]) == frame
    assert list(FrameReader().feed(data)) == [frame]


@samples
def test_read_byte_by_byte(frame: Frame) -> None:
    reader = FrameReader()
    data = encode(frame)
    if len(data) > 10_000:  # the middle of a payload in one piece
        pieces = [data[at : at + 1] for at in range(2000)] + [data[2000:-2000]]
        pieces += [data[at : at + 1] for at in range(len(data) - 2000, len(data))]
    else:
        pieces = [data[at : at + 1] for at in range(len(data))]
    for piece in pieces[:-1]:
        assert list(reader.feed(piece)) == []
    assert list(reader.feed(pieces[-1])) == [frame]
    assert list(reader.feed(encode(Ping()))) == [Ping()]


@samples
@pytest.mark.parametrize("size", [1, 4, 5])
def test_read_with_the_next_one_behind(frame: Frame, size: int) -> None:
    reader = FrameReader()
    data, following = encode(frame), encode(SAMPLES["want"])
    assert list(reader.feed(data + following[:size])) == [frame]
    assert list(reader.feed(following[size:])) == [SAMPLES["want"]]


@given(st.lists(st.sampled_from(sorted(SAMPLES)), max_size=8), st.data())
def test_any_frames_in_any_pieces(names: list[str], data: st.DataObject) -> None:
    frames = [SAMPLES[name] for name in names]
    stream = b"".join(encode(frame) for frame in frames)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=10)))
    reader = FrameReader()
    read: list[Frame] = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        read += reader.feed(stream[start:end])
    assert read == frames


def test_a_bundle_frame_is_written_from_stored_bytes_alone() -> None:
    stored = encode_bundle(12, BUNDLE.header_bytes, BUNDLE.signature, BUNDLE.payload)
    assert stored == encode(SAMPLES["bundle"])


def test_a_bundle_keeps_its_exact_header() -> None:
    items = unpack(BUNDLE.header_bytes, "header")
    long = b"\x9e" + b"".join(
        b"\xcf" + item.to_bytes(8, "big") if type(item) is int else pack(item) for item in items
    )
    (frame,) = FrameReader().feed(encode_bundle(0, long, BUNDLE.signature, BUNDLE.payload))
    assert isinstance(frame, BundleFrame)
    assert frame.bundle.header_bytes == long
    assert frame.bundle.header == BUNDLE.header


# --- what is refused --------------------------------------------------------------------------------------------


def feed(data: bytes) -> list[Frame]:
    """Feed a reader; nothing but RemoteError may come of it."""
    return list(FrameReader().feed(data))


@given(st.binary(max_size=400))
@example(b"\0\0\0\0")
@example(b"\0\0\0\1\x90")
@example(b"\0\0\0\1\xc0")
@example(b"\0\0\0\2\x91\xc3")
@example(b"\0\0\0\2\x91\x00")
@example(b"\0\0\0\2\x91\x0d")
@example(b"\0\0\0\2\x91\x0f")
def test_any_stream_is_read_or_refused(data: bytes) -> None:
    try:
        feed(data)
    except RemoteError as problem:
        assert str(problem)  # noqa: PT017 - a stream may also be the beginning of a frame


@given(st.integers(0, 15), st.binary(max_size=300))
def test_any_body_is_read_or_refused(kind: int, rest: bytes) -> None:
    with contextlib.suppress(RemoteError):
        decode(b"\x9a" + bytes((kind,)) + rest)


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 2)
    | st.integers(-(2**63), 2**64 - 1)
    | st.sampled_from([0, 1, 2**16, 2**32, 2**40, 2**53, 2**62, 2**63, 2**64 - 1])
    | st.floats().map(lambda number: number or 0.0)  # of the two zeros only the one that is written
    | st.text(max_size=70)
    | st.binary(max_size=70)
    | st.sampled_from([b"j" * 16, b"s" * 64, b"12345678"]),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=8,
)


def spoil(items: list[Any], data: st.DataObject) -> None:
    """Change one thing somewhere in an array: an item, its type, its length, its place, or the number of items."""
    at = data.draw(st.integers(0, max(0, len(items) - 1)))
    deed = data.draw(st.sampled_from(["replace", "remove", "add", "swap", "longer", "shorter", "deeper"]))
    item: Any = items[at] if items else None
    if deed == "deeper" and type(item) is list:
        spoil(item, data)
    elif deed == "remove" and items:
        del items[at]
    elif deed == "add":
        items.insert(at, data.draw(values))
    elif deed == "swap" and items:
        other = data.draw(st.integers(0, len(items) - 1))
        items[at], items[other] = items[other], items[at]
    elif deed == "longer" and type(item) in (bytes, str, list):
        items[at] = item + item[:1]
    elif deed == "shorter" and type(item) in (bytes, str, list):
        items[at] = item[:-1]
    elif items:
        items[at] = data.draw(values)


@given(st.sampled_from(sorted(SAMPLES)), st.integers(1, 3), st.data())
@settings(max_examples=400)
def test_any_spoilt_frame_is_read_or_refused(name: str, deeds: int, data: st.DataObject) -> None:
    items = copy.deepcopy(body(SAMPLES[name]))
    for _ in range(deeds):
        spoil(items, data)
    packed = pack(items)
    try:
        frame = decode(packed)
    except RemoteError as problem:
        assert " " in str(problem)  # noqa: PT017 - some deeds do no harm
    else:
        assert encode(frame)[4:] == packed, "a frame has one encoding only"


def row(**changes: object) -> list[Any]:
    """A HELLO with some items changed."""
    names = [
        "version_min",
        "version_max",
        "name",
        "roles",
        "port",
        "fleet_version",
        "wall_ms",
        "uplink",
        "free",
        "away_s",
    ]
    items = body(SAMPLES["hello"])
    for name, value in changes.items():
        items[names.index(name) + 1] = value
    return items


REFUSED: list[tuple[list[Any], str]] = [
    ([], "frame is of an unknown kind"),
    ([0], "frame is of an unknown kind"),
    ([15], "frame is of an unknown kind"),
    ([True], "frame is of an unknown kind"),
    ([[9]], "frame is of an unknown kind"),
    ([9, 1], "PING has 2 items instead of 1"),
    ([10, None], "PONG has 2 items instead of 1"),
    (row(version_max=0), r"HELLO\.version_max is 0"),
    (row(name="x" * 64), r"HELLO\.name has more than 63 bytes"),
    (row(roles=["king"]), r"HELLO\.roles names an unknown role"),
    (row(roles=[["officer"]]), r"HELLO\.roles names an unknown role"),
    (row(roles=["officer"] * 4), r"HELLO\.roles has more than 3 items"),
    (row(port=65536), r"HELLO\.port"),
    (row(fleet_version=-1), r"HELLO\.fleet_version"),
    (row(wall_ms=2**53 + 1), r"HELLO\.wall_ms"),
    (row(uplink=1), r"HELLO\.uplink is neither true nor false"),
    (row(free=2**63), r"HELLO\.free_bytes"),
    (row(away_s=-1), r"HELLO\.away_s is -1, not from 0 to 15552000"),
    (row(away_s=AWAY_S_MAX + 1), r"HELLO\.away_s is 15552001, not from 0 to 15552000"),
    (row(away_s=600.0), r"HELLO\.away_s is not a whole number"),
    (body(SAMPLES["hello"])[:-1], "HELLO has 10 items instead of 11"),
    ([2, b"", b"s" * 64], r"FLEET\.body"),
    ([2, b"x", b"s" * 63], r"FLEET\.signature"),
    ([3, 0, []], r"HAVE\.whole"),
    ([3, True, [[J, [5, 4], 0, False]]], r"HAVE\.journals\[0\]\.ranges"),
    ([3, True, [[J, [], -1, False]]], r"HAVE\.journals\[0\]\.serial"),
    ([3, True, [[J, [], 1, 0]]], r"HAVE\.journals\[0\]\.ends"),
    ([3, True, [[J[1:], [], 0, True]]], r"HAVE\.journals\[0\]\.journal"),
    ([3, True, [[J, [], 0]] * (JOURNALS_PER_FRAME + 1)], r"HAVE\.journals has more than 1024 items"),
    ([4, b"x", b""], r"RECEIPT\.signature"),
    ([5, b""], r"CERT\.der"),
    ([5, bytes(3000)], r"CERT\.der"),
    ([6, -1, []], r"WANT\.credit"),
    ([6, 2**63, []], r"WANT\.credit"),
    ([6, 0, [[J, [1, 2], [2, 1], True]]], r"WANT\.journals\[0\]\.dropped"),
    ([6, 0, [[J, [1, 2], [], None]]], r"WANT\.journals\[0\]\.known"),
    ([7, -1, *body(SAMPLES["bundle"])[2:]], r"BUNDLE\.age_s"),
    ([7, 0, b"", b"s" * 64, b""], r"BUNDLE\.header"),
    ([7, 0, b"\x90", b"s" * 64, b""], "header has 0 items"),
    ([7, 0, BUNDLE.header_bytes, b"s" * 64, bytes(PAYLOAD_SIZE_MAX + 1)], r"BUNDLE\.payload"),
    ([8, [[J, [0, 1], False]]], r"STORED\.journals\[0\]\.ranges"),
    ([8, [[J, [1, 1]]]], r"STORED\.journals\[0\] has 2 items"),
    ([11, "x" * 201], r"BYE\.reason"),
    ([11, b"x"], r"BYE\.reason"),
    ([12, []], r"FINISHED\.buckets"),
    ([12, [b"12345678"] * 2], r"FINISHED\.buckets"),
    ([12, [b"12345678"] * 257], r"FINISHED\.buckets"),
    ([12, [b"1234567"]], r"FINISHED\.buckets"),
    ([13], "HEARD has 1 items instead of 2"),
    ([13, [AGUS]], r"HEARD\.devices has an item that is not an array"),
    ([13, [[AGUS, 0, []]] * (JOURNALS_PER_FRAME + 1)], r"HEARD\.devices has more than 1024 items"),
    ([13, [[AGUS[1:], 0, []]]], r"HEARD\.devices\[0\]\.device"),
    ([13, [[AGUS, -1, []]]], r"HEARD\.devices\[0\]\.away_s"),
    ([13, [[AGUS, AWAY_S_MAX + 1, []]]], r"HEARD\.devices\[0\]\.away_s"),
    ([13, [[AGUS, 0, []], [WATI, 0]]], r"HEARD\.devices\[1\] has 2 items instead of 3"),
    ([13, [[AGUS, 0, [[J]]]]], r"HEARD\.devices\[0\]\.journals\[0\] has 1 items instead of 2"),
    ([13, [[AGUS, 0, [[J[1:], []]]]]], r"HEARD\.devices\[0\]\.journals\[0\]\.journal"),
    ([13, [[AGUS, 0, [[J, [2, 1]]]]]], r"HEARD\.devices\[0\]\.journals\[0\]\.ranges"),
    ([13, [[AGUS, 0, [[J, []]] * (JOURNALS_PER_FRAME + 1)]]], r"HEARD\.devices\[0\]\.journals has more"),
    ([14, 0], "NEXT has 2 items instead of 3"),
    ([14, -1, 0.5], r"NEXT\.class is -1, not from 0 to 8"),
    ([14, 9, 0.5], r"NEXT\.class is 9, not from 0 to 8"),
    ([14, 0.0, 0.5], r"NEXT\.class is not a whole number"),
    ([14, 0, 1], r"NEXT\.worth is not a finite number from 0 on"),
    ([14, 0, -0.5], r"NEXT\.worth"),
    ([14, 0, math.inf], r"NEXT\.worth"),
    ([14, 0, math.nan], r"NEXT\.worth"),
    ([14, 8, math.nan], r"NEXT\.worth"),
    ([14, 8, 0.5], r"NEXT\.worth"),
]


@pytest.mark.parametrize(("items", "problem"), REFUSED)
def test_refused_by_name(items: list[Any], problem: str) -> None:
    with pytest.raises(RemoteError, match=f"^{problem}"):
        decode(pack(items))


def test_the_least_away_s_and_the_greatest() -> None:
    for away_s in (0, AWAY_S_MAX):
        frame = decode(pack(row(away_s=away_s)))
        assert isinstance(frame, Hello)
        assert frame.away_s == away_s


@given(
    st.integers(0, 7),
    st.floats(0, allow_infinity=False),
    st.integers(0, 7),
    st.floats(0, allow_infinity=False),
)
def test_of_two_ranks_the_same_goes_first_at_both_ends(one: int, worth: float, two: int, more: float) -> None:
    """Whoever waits for whom follows from it, so not a bit may be lost."""
    ranks = [(one, -worth), (two, -more)]
    frames = list(FrameReader().feed(b"".join(encode(Next(rank)) for rank in ranks)))
    assert frames == [Next(rank) for rank in ranks]


def test_hearsay_of_one_contact_fits_into_a_frame() -> None:
    """However it is spread over devices, with numbers that take as many bytes as numbers can."""
    gappy = Ranges((NUMBER_MAX - 2 * at, NUMBER_MAX - 2 * at) for at in range(HEARD_RANGES_MAX))
    rows = ((J, gappy),) * JOURNALS_PER_FRAME
    devices = (Elsewhere(AGUS, AWAY_S_MAX, rows),) * (HEARD_MAX // JOURNALS_PER_FRAME)
    assert len(encode(Heard(devices))) <= 4 + FRAME_SIZE_MAX


def test_too_large_is_refused_by_its_length_alone() -> None:
    with pytest.raises(RemoteError, match="frame has 524289 bytes, more than 524288"):
        feed((FRAME_SIZE_MAX + 1).to_bytes(4, "big"))
    assert feed(FRAME_SIZE_MAX.to_bytes(4, "big")) == []


def test_frames_before_a_bad_one_are_read() -> None:
    frames = FrameReader().feed(encode(Ping()) + b"\0\0\0\1\x90" + encode(Pong()))
    assert next(frames) == Ping()
    with pytest.raises(RemoteError, match="unknown kind"):
        next(frames)

"""Bundles: the header's codec, and what a signature covers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshnode.core.bundle import (
    MILLISECONDS_MAX,
    Bundle,
    Header,
    Previous,
    journal_id,
    read_bundle,
    read_header,
    sign_bundle,
)
from meshnode.core.errors import RemoteError
from meshnode.core.fields import pack, unpack
from meshnode.core.identity import DeviceId, JournalId
from meshnode.core.limits import (
    HEADER_SIZE_MAX,
    LIFETIME_S_MAX,
    NUMBER_MAX,
    PARTS_MAX,
    PAYLOAD_SIZE_MAX,
)
from meshnode.core.sealing import SEAL_OVERHEAD, sealing_info
from tests.core.fleets import Fleet, Source

FLEET = Fleet()
SITI = Source(FLEET, "siti")
BUNDLE = SITI.bundle(5, part=2, parts=3)


@st.composite
def headers(draw: st.DrawFn) -> Header:
    """Any header that may be."""
    number = draw(st.integers(1, NUMBER_MAX))
    part = draw(st.integers(1, min(number, PARTS_MAX)))
    before = st.builds(
        Previous, st.binary(min_size=16, max_size=16).map(JournalId), st.integers(1, NUMBER_MAX)
    )
    return Header(
        source=draw(st.binary(min_size=16, max_size=16).map(DeviceId)),
        destination=draw(st.binary(min_size=16, max_size=16)),
        recipient_key=draw(st.binary(min_size=8, max_size=8)),
        epoch=draw(st.binary(min_size=8, max_size=8)),
        number=number,
        part=part,
        parts=draw(st.integers(part, PARTS_MAX)),
        priority=draw(st.integers(0, 1)),
        created_ms=draw(st.integers(0, MILLISECONDS_MAX)),
        lifetime_s=draw(st.integers(1, LIFETIME_S_MAX)),
        previous=draw(st.none() | before) if number == 1 else None,
        payload_size=draw(st.integers(SEAL_OVERHEAD, PAYLOAD_SIZE_MAX)),
        payload_sha256=draw(st.binary(min_size=32, max_size=32)),
    )


@given(headers())
def test_round_trip(header: Header) -> None:
    encoded = header.encode()
    assert len(encoded) <= HEADER_SIZE_MAX
    assert read_header(encoded) == header
    assert header.journal == journal_id(header.source, header.destination, header.epoch)
    assert header.info == sealing_info(
        header.source, header.destination, header.epoch, header.number, header.part, header.parts
    )


def test_layout() -> None:
    """The array that the module's docstring promises, to the byte."""
    header = replace(SITI.bundle(1).header, previous=Previous(JournalId(b"j" * 16), 9))
    assert msgpack.unpackb(header.encode()) == [
        1,
        header.source,
        header.destination,
        b"standin!",
        b"epoch--1",
        1,
        1,
        1,
        1,
        1_700_000_000_000,
        header.lifetime_s,
        [b"j" * 16, 9],
        2000,
        header.payload_sha256,
    ]


def test_first_names_the_message() -> None:
    assert [SITI.bundle(n, part=n - 3, parts=3).header.first for n in (4, 5, 6)] == [4, 4, 4]


@given(st.binary(max_size=600))
def test_any_bytes_are_a_header_or_refused(data: bytes) -> None:
    with pytest.raises(RemoteError, match="header"):
        read_header(data)


SPOILT: list[tuple[int, Any, str]] = [
    (0, 2, "version"),
    (1, b"s" * 15, "source"),
    (1, "s" * 16, "source"),
    (2, b"d" * 17, "destination"),
    (3, b"k" * 7, "recipient_key"),
    (4, b"e" * 9, "epoch"),
    (5, 0, "number"),
    (5, NUMBER_MAX + 1, "number"),
    (5, 1, "part"),  # the second part cannot be the first of its journal
    (6, 0, "part"),
    (6, 4, "parts"),
    (7, PARTS_MAX + 1, "parts"),
    (7, 1, "parts"),
    (8, 2, "priority"),
    (8, True, "priority"),
    (9, -1, "created_ms"),
    (9, 2.0, "created_ms"),
    (10, 0, "lifetime_s"),
    (10, LIFETIME_S_MAX + 1, "lifetime_s"),
    (11, [b"j" * 16, 9], "previous"),  # not in a journal's first bundle
    (11, [b"j" * 16], "previous"),
    (11, [b"j" * 15, 9], "previous"),
    (11, [b"j" * 16, 0], "previous"),
    (11, b"j", "previous"),
    (12, SEAL_OVERHEAD - 1, "payload_size"),
    (12, PAYLOAD_SIZE_MAX + 1, "payload_size"),
    (13, b"h" * 31, "payload_sha256"),
]


@pytest.mark.parametrize(("at", "value", "field"), SPOILT)
def test_refused_by_name(at: int, value: object, field: str) -> None:
    items = unpack(BUNDLE.header_bytes, "header")
    items[at] = value
    with pytest.raises(RemoteError, match=rf"^header\.{field}"):
        read_header(pack(items))


def test_items_missing_or_too_many() -> None:
    items = unpack(BUNDLE.header_bytes, "header")
    for spoilt in (items[:-1], [*items, None]):
        with pytest.raises(RemoteError, match="instead of 14"):
            read_header(pack(spoilt))
    with pytest.raises(RemoteError, match=f"more than {HEADER_SIZE_MAX} bytes"):
        read_header(BUNDLE.header_bytes + bytes(HEADER_SIZE_MAX))


# --- signatures -------------------------------------------------------------------------------------------------


def verify(bundle: Bundle) -> None:
    """As a carrier does, from three byte strings."""
    read_bundle(bundle.header_bytes, bundle.signature, bundle.payload).verify(SITI.certificate.key)


def test_a_true_bundle_verifies() -> None:
    verify(BUNDLE)


def test_the_exact_bytes_are_what_counts() -> None:
    """A header written in another way is not written again when it is read: its bytes are signed as they are."""
    items = unpack(BUNDLE.header_bytes, "header")
    parts = [b"\xcf" + item.to_bytes(8, "big") if type(item) is int else pack(item) for item in items]
    long = b"\x9e" + b"".join(parts)
    assert long != BUNDLE.header_bytes
    signature = FLEET.key("siti").sign(long)
    bundle = read_bundle(long, signature, BUNDLE.payload)
    assert bundle.header == BUNDLE.header
    assert bundle.header_bytes == long
    verify(bundle)
    with pytest.raises(RemoteError, match="false signature"):
        read_bundle(BUNDLE.header_bytes, signature, BUNDLE.payload).verify(SITI.certificate.key)


def test_every_bit_of_the_header_is_signed() -> None:
    for bit in range(8 * len(BUNDLE.header_bytes)):
        with pytest.raises(RemoteError):
            verify(replace(BUNDLE, header_bytes=flip(BUNDLE.header_bytes, bit)))


def test_every_bit_of_the_signature_counts() -> None:
    for bit in range(8 * len(BUNDLE.signature)):
        with pytest.raises(RemoteError, match="false signature"):
            verify(replace(BUNDLE, signature=flip(BUNDLE.signature, bit)))


@given(st.integers(0, 8 * 2000 - 1))
@settings(max_examples=50)
def test_every_bit_of_the_payload_counts(bit: int) -> None:
    with pytest.raises(RemoteError, match="payload has not the digest"):
        verify(replace(BUNDLE, payload=flip(BUNDLE.payload, bit)))


@pytest.mark.parametrize("payload", [b"", BUNDLE.payload[:-1], BUNDLE.payload + b"\0"])
def test_the_size_of_the_payload_counts(payload: bytes) -> None:
    with pytest.raises(RemoteError, match="payload has not the size"):
        verify(replace(BUNDLE, payload=payload))


@pytest.mark.parametrize("size", [0, 63, 65])
def test_the_size_of_the_signature_counts(size: int) -> None:
    with pytest.raises(RemoteError, match=f"signature has {size} bytes, not 64"):
        read_bundle(BUNDLE.header_bytes, bytes(size), BUNDLE.payload)


def test_nobody_else_can_be_the_source() -> None:
    with pytest.raises(RemoteError, match="not the device of this certificate"):
        BUNDLE.verify(FLEET.certificate("agus").key)
    forged = sign_bundle(BUNDLE.header, BUNDLE.payload, FLEET.key("agus"))
    with pytest.raises(RemoteError, match="false signature"):
        verify(forged)


def flip(data: bytes, bit: int) -> bytes:
    """`data` with one bit turned over."""
    altered = bytearray(data)
    altered[bit // 8] ^= 1 << bit % 8
    return bytes(altered)

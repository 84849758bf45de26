"""Receipts: codec, signature, serials."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshnode.core.bundle import EPOCH_SIZE, MILLISECONDS_MAX
from meshnode.core.errors import RemoteError
from meshnode.core.fields import pack, unpack
from meshnode.core.identity import JournalId
from meshnode.core.intervals import Ranges
from meshnode.core.limits import FRAME_SIZE_MAX
from meshnode.core.receipt import SERIAL_MAX, Receipt, issue_receipt, next_serial, read_receipt
from tests.core.fleets import Fleet

FLEET = Fleet()
JOURNAL = JournalId(b"j" * 16)
RANGES = Ranges([(1, 57), (60, 60)])
RECEIPT = FLEET.receipt(JOURNAL, RANGES)

epochs = st.binary(min_size=EPOCH_SIZE, max_size=EPOCH_SIZE)


@given(
    st.sets(st.integers(1, 60)).map(Ranges.of),
    st.integers(1, SERIAL_MAX),
    st.integers(0, MILLISECONDS_MAX),
)
def test_round_trip(ranges: Ranges, serial: int, issued_ms: int) -> None:
    receipt = issue_receipt(FLEET.endpoint_key, FLEET.endpoint, JOURNAL, serial, ranges, issued_ms)
    read = read_receipt(receipt.body, receipt.signature)
    assert read == receipt
    read.verify(FLEET.endpoint_key.public)


def test_layout() -> None:
    assert msgpack.unpackb(RECEIPT.body) == [
        1,
        FLEET.endpoint,
        JOURNAL,
        1 << 16,
        [1, 57, 60, 60],
        1_700_000_000_000,
    ]


def test_every_bit_of_the_body_is_signed() -> None:
    for bit in range(8 * len(RECEIPT.body)):
        altered = bytearray(RECEIPT.body)
        altered[bit // 8] ^= 1 << bit % 8
        with pytest.raises(RemoteError):
            read_receipt(bytes(altered), RECEIPT.signature).verify(FLEET.endpoint_key.public)


def test_the_exact_bytes_are_what_counts() -> None:
    items = unpack(RECEIPT.body, "receipt")
    long = b"\x96" + b"".join(
        b"\xcf" + item.to_bytes(8, "big") if type(item) is int else pack(item) for item in items
    )
    receipt = read_receipt(long, FLEET.endpoint_key.sign(long))
    assert receipt.body == long != RECEIPT.body
    assert (receipt.serial, receipt.ranges) == (RECEIPT.serial, RECEIPT.ranges)
    receipt.verify(FLEET.endpoint_key.public)


def test_only_the_endpoint_signs() -> None:
    with pytest.raises(RemoteError, match="receipt has a false signature"):
        RECEIPT.verify(FLEET.key("siti").public)
    forged = replace(RECEIPT, signature=FLEET.key("siti").sign(RECEIPT.body))
    with pytest.raises(RemoteError, match="receipt has a false signature"):
        forged.verify(FLEET.endpoint_key.public)


SPOILT: list[tuple[int, Any, str]] = [
    (0, 0, "version"),
    (1, b"e" * 15, "endpoint"),
    (2, b"j" * 17, "journal"),
    (3, 0, "serial"),
    (3, SERIAL_MAX + 1, "serial"),
    (4, [5, 4], "ranges"),
    (4, None, "ranges"),
    (5, -1, "issued_ms"),
    (5, MILLISECONDS_MAX + 1, "issued_ms"),
]


@pytest.mark.parametrize(("at", "value", "field"), SPOILT)
def test_refused_by_name(at: int, value: object, field: str) -> None:
    items = unpack(RECEIPT.body, "receipt")
    items[at] = value
    with pytest.raises(RemoteError, match=rf"^receipt\.{field}"):
        read_receipt(pack(items), RECEIPT.signature)


def test_refused_by_size() -> None:
    with pytest.raises(RemoteError, match=r"receipt\.signature has 63 bytes"):
        read_receipt(RECEIPT.body, bytes(63))
    with pytest.raises(RemoteError, match="receipt has more than"):
        read_receipt(bytes(FRAME_SIZE_MAX + 1), RECEIPT.signature)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_receipt_or_refused(body: bytes) -> None:
    with pytest.raises(RemoteError, match="receipt"):
        read_receipt(body, bytes(64))


# --- serials ----------------------------------------------------------------------------------------------------


@given(st.integers(0, 2**61), epochs)
def test_the_next_serial_is_higher_and_names_the_process(serial: int, epoch: bytes) -> None:
    following = next_serial(serial, epoch)
    assert serial < following <= serial + 2**33
    assert following & 0xFFFFFFFF == int.from_bytes(epoch[:4], "big")
    assert following >> 32 == (serial >> 32) + 1
    assert Receipt(FLEET.endpoint, JOURNAL, following, RANGES, 0, b"", b"").serial <= SERIAL_MAX, (
        "serials do not run out"
    )


@given(st.integers(0, 2**61), epochs, epochs)
def test_two_offices_and_one_before_and_after_a_restart_do_not_give_out_the_same(
    serial: int, one: bytes, other: bytes
) -> None:
    if one[:4] != other[:4]:
        assert next_serial(serial, one) != next_serial(serial, other)

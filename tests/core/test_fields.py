"""Strict reading of msgpack."""

from __future__ import annotations

from collections.abc import Callable
from math import inf, nan

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshnode.core.errors import RemoteError
from meshnode.core.fields import Reader, pack, unpack

scalars = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=8) | st.binary(max_size=8)
)
arrays = st.lists(st.recursive(scalars, lambda inner: st.lists(inner, max_size=4), max_leaves=10), max_size=5)


@given(arrays)
def test_what_is_packed_is_unpacked(value: list[object]) -> None:
    assert unpack(pack(value), "thing") == value


@given(st.binary(max_size=200))
def test_any_bytes_are_an_array_or_refused(data: bytes) -> None:
    try:
        value = unpack(data, "thing")
    except RemoteError as problem:
        assert str(problem).startswith("thing ")  # noqa: PT017 - some bytes are an array
    else:
        assert type(value) is list


@given(arrays, st.data())
def test_truncated_is_refused(value: list[object], data: st.DataObject) -> None:
    packed = pack(value)
    size = data.draw(st.integers(0, len(packed) - 1))
    with pytest.raises(RemoteError, match="not well-formed"):
        unpack(packed[:size], "thing")


@given(arrays, st.binary(min_size=1, max_size=4))
def test_bytes_after_the_end_are_refused(value: list[object], more: bytes) -> None:
    with pytest.raises(RemoteError, match="bytes after its end"):
        unpack(pack(value) + more, "thing")


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (msgpack.packb({}), "is not an array"),
        (msgpack.packb(5), "is not an array"),
        (msgpack.packb([{"a": 1}]), "not well-formed"),
        (msgpack.packb([msgpack.ExtType(7, b"x")]), "not well-formed"),
        (msgpack.packb([msgpack.Timestamp(1, 2)]), "not well-formed"),
        (b"\xdd\xff\xff\xff\xff", "not well-formed"),  # an array of 4 G items in 5 bytes
        (b"\x91\xc6\xff\xff\xff\xff", "not well-formed"),  # 4 GB of bytes
        (b"\x91\xa2\xff\xff", "not well-formed"),  # not UTF-8
        (b"\x91\xc1", "not well-formed"),  # never used in msgpack
        (b"\x91" * 5000 + b"\xc0", "not well-formed"),  # nested too deep
        (b"\x91\xc7\x00\xff", "not well-formed"),  # an empty timestamp
        (b"", "not well-formed"),
    ],
)
def test_what_never_occurs_is_refused(data: bytes, problem: str) -> None:
    with pytest.raises(RemoteError, match=f"thing.*{problem}"):
        unpack(data, "thing")


def reader(item: object) -> Reader:
    return Reader([item], "thing", 1)


def test_each_item_is_read() -> None:
    items = Reader([7, 0.5, b"ab", "č", True, [1], [[1], [2]], None], "thing", 8)
    assert items.whole("number", 7, 7) == 7
    assert items.real("share") == 0.5
    assert items.octets("bytes", 2) == b"ab"
    assert items.text("text", 2) == "č"
    assert items.flag("flag") is True
    assert items.items("list", 1) == [1]
    assert items.each("rows", 2, 1, lambda row: row.whole("n", 1, 2)) == [1, 2]
    assert items.raw("raw") == (None, "thing.raw")


@given(st.floats(0, allow_infinity=False))
def test_a_real_number_comes_as_it_was_written(number: float) -> None:
    assert Reader(unpack(pack([number]), "thing"), "thing", 1).real("f") == number


@pytest.mark.parametrize("count", [0, 2])
def test_the_number_of_items(count: int) -> None:
    with pytest.raises(RemoteError, match=f"thing has 1 items instead of {count}"):
        Reader([1], "thing", count)


@pytest.mark.parametrize(
    ("item", "read", "problem"),
    [
        (True, lambda r: r.whole("f", 0, 9), "f is not a whole number"),
        (1.0, lambda r: r.whole("f", 0, 9), "f is not a whole number"),
        (None, lambda r: r.whole("f", 0, 9), "f is not a whole number"),
        (10, lambda r: r.whole("f", 0, 9), "f is 10, not from 0 to 9"),
        (-1, lambda r: r.whole("f", 0, 9), "f is -1, not from 0 to 9"),
        (1, lambda r: r.real("f"), "f is not a finite number from 0 on"),
        (True, lambda r: r.real("f"), "f is not a finite number from 0 on"),
        (None, lambda r: r.real("f"), "f is not a finite number from 0 on"),
        ("1.0", lambda r: r.real("f"), "f is not a finite number from 0 on"),
        (-0.5, lambda r: r.real("f"), "f is not a finite number from 0 on"),
        (-5e-324, lambda r: r.real("f"), "f is not a finite number from 0 on"),
        (inf, lambda r: r.real("f"), "f is not a finite number from 0 on"),
        (-inf, lambda r: r.real("f"), "f is not a finite number from 0 on"),
        (nan, lambda r: r.real("f"), "f is not a finite number from 0 on"),
        ("ab", lambda r: r.octets("f", 2), "f is not a byte string"),
        (b"abc", lambda r: r.octets("f", 2), "f has 3 bytes, not 2 to 2"),
        (b"abc", lambda r: r.octets("f", 4, 9), "f has 3 bytes, not 4 to 9"),
        (b"ab", lambda r: r.text("f", 9), "f is not text"),
        ("čč", lambda r: r.text("f", 3), "f has more than 3 bytes"),
        (1, lambda r: r.flag("f"), "f is neither true nor false"),
        ("ab", lambda r: r.items("f", 9), "f is not a list"),
        ([1, 2], lambda r: r.items("f", 1), "f has more than 1 items"),
        ([1], lambda r: r.each("f", 9, 1, lambda row: row), "f has an item that is not an array"),
        ([[1], []], lambda r: r.each("f", 9, 1, lambda row: row), r"f\[1\] has 0 items instead of 1"),
        ([[1], ["x"]], lambda r: r.each("f", 9, 1, lambda row: row.whole("n", 0, 1)), r"f\[1\].n is not"),
    ],
)
def test_refused_by_name(item: object, read: Callable[[Reader], object], problem: str) -> None:
    with pytest.raises(RemoteError, match=rf"^thing\.{problem}"):
        read(reader(item))

"""Strict reading of msgpack: right type, right length, right range, nothing trailing.

All that comes from outside is an array of scalars, byte strings and lists. `unpack` reads the array, `Reader` takes
its items one after another and names the one that is wrong. Maps and extension types do not occur, so they
are refused. A `RemoteError` says `<what>.<field> <problem>`.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any, TypeVar

import msgpack

from meshnode.core.errors import RemoteError
from meshnode.core.limits import ITEMS_MAX
from meshnode.core.words import Said, say

T = TypeVar("T")


def pack(value: object) -> bytes:
    """Write lists, whole numbers, byte strings, text, booleans and None."""
    packed: bytes = msgpack.packb(value, use_bin_type=True)
    return packed


def unpack(data: bytes | bytearray | memoryview, what: str) -> list[Any]:
    """Read one msgpack array that fills `data` wholly. Raises RemoteError naming `what`."""
    size = len(data)
    try:
        value = msgpack.unpackb(
            data,
            raw=False,
            strict_map_key=True,
            max_str_len=size,
            max_bin_len=size,
            max_array_len=min(size, ITEMS_MAX),
            max_map_len=0,
            max_ext_len=0,
        )
    except msgpack.ExtraData:
        raise RemoteError(what, "has bytes after its end") from None
    except (ValueError, TypeError, msgpack.UnpackException, RecursionError):
        # msgpack reports truncation, bad UTF-8, nesting, long lists and forbidden types by various subclasses of these
        raise RemoteError(what, "is not well-formed msgpack") from None
    if type(value) is not list:
        raise RemoteError(what, "is not an array")
    return value


class Reader:
    """Takes the items of an array in order; each method reads one item and names it in its complaint."""

    def __init__(self, items: list[Any], what: str, count: int) -> None:
        self._items = items
        self._what = what
        self._at = 0
        if len(items) != count:
            raise RemoteError(what, say("has {n} items instead of {wanted}", n=len(items), wanted=count))

    def _next(self) -> Any:
        item = self._items[self._at]
        self._at += 1
        return item

    def _refusal(self, field: str, problem: Said) -> RemoteError:
        return RemoteError(f"{self._what}.{field}", problem)

    def whole(self, field: str, least: int, most: int) -> int:
        """A whole number from `least` to `most`."""
        item = self._next()
        if type(item) is not int:
            raise self._refusal(field, say("is not a whole number"))
        if not least <= item <= most:
            raise self._refusal(
                field, say("is {item}, not from {least} to {most}", item=item, least=least, most=most)
            )
        return item

    def real(self, field: str) -> float:
        """A finite number that is not negative."""
        item = self._next()
        if type(item) is not float or not 0 <= item < inf:
            raise self._refusal(field, say("is not a finite number from 0 on"))
        return item

    def octets(self, field: str, least: int, most: int | None = None) -> bytes:
        """A byte string of `least` to `most` bytes; exactly `least` without `most`."""
        item = self._next()
        if type(item) is not bytes:
            raise self._refusal(field, say("is not a byte string"))
        most = least if most is None else most
        if not least <= len(item) <= most:
            wrong = say(
                "has {size_bytes} bytes, not {least} to {most}", size_bytes=len(item), least=least, most=most
            )
            raise self._refusal(field, wrong)
        return item

    def text(self, field: str, size_max: int) -> str:
        """Text of at most `size_max` bytes of UTF-8."""
        item = self._next()
        if type(item) is not str:
            raise self._refusal(field, say("is not text"))
        if len(item.encode()) > size_max:
            raise self._refusal(field, say("has more than {limit_bytes} bytes", limit_bytes=size_max))
        return item

    def flag(self, field: str) -> bool:
        """True or false."""
        item = self._next()
        if type(item) is not bool:
            raise self._refusal(field, say("is neither true nor false"))
        return item

    def items(self, field: str, count_max: int) -> list[Any]:
        """A list of at most `count_max` items, unread."""
        item = self._next()
        if type(item) is not list:
            raise self._refusal(field, say("is not a list"))
        if len(item) > count_max:
            raise self._refusal(field, say("has more than {most} items", most=count_max))
        return item

    def each(self, field: str, count_max: int, count: int, read: Callable[[Reader], T]) -> list[T]:
        """A list of at most `count_max` arrays of `count` items, each read by `read`."""
        name = f"{self._what}.{field}"
        rows = self.items(field, count_max)
        if not all(type(row) is list for row in rows):
            raise RemoteError(name, "has an item that is not an array")
        return [read(Reader(row, f"{name}[{at}]", count)) for at, row in enumerate(rows)]

    def raw(self, field: str) -> tuple[Any, str]:
        """The item as it is, with its full name, for a codec of its own."""
        return self._next(), f"{self._what}.{field}"

"""The forms of meshnode's protocol as docs/protocol.md has them: notation and layouts. No code of meshnode is used.

A layout is what each item of an array has to be, by name. The numbers in comments are the page's sections.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from math import inf
from typing import Any

import msgpack

Check = Callable[[Any], bool]
NUMBER_MAX, FRAME_SIZE_MAX, PAYLOAD_SIZE_MAX, OVERHEAD, DAYS_180 = 2**40, 2**19, 2**18, 1136, 180 * 86400
ROLES = ("officer", "gateway", "office")


class Refused(Exception):
    """What was read is not as the page says."""


def need(holds: bool, what: str) -> None:
    """Raises Refused unless it holds."""
    if not holds:
        raise Refused(what)


# --- 1: notation ------------------------------------------------------------------------------------------------


def first(size: int, data: bytes) -> bytes:
    """first(n, H(x))."""
    return hashlib.sha256(data).digest()[:size]


def whole(least: int, most: int) -> Check:
    """A whole number."""
    return lambda it: type(it) is int and least <= it <= most


def octets(least: int, most: int | None = None) -> Check:
    """A byte string."""
    return lambda it: type(it) is bytes and least <= len(it) <= (least if most is None else most)


def text(most: int) -> Check:
    """Text."""
    return lambda it: type(it) is str and len(it.encode()) <= most


def flag(it: Any) -> bool:
    """A bool."""
    return type(it) is bool


def real(it: Any) -> bool:
    """A float that is finite and not negative."""
    return type(it) is float and 0 <= it < inf


def ranges(it: Any) -> bool:
    """1.2."""
    if type(it) is not list or len(it) % 2 or len(it) > 2 * 4096 or not all(type(n) is int for n in it):
        return False
    gaps = all(it[at + 1] + 1 < it[at + 2] for at in range(0, len(it) - 2, 2))
    ordered = all(it[at] <= it[at + 1] for at in range(0, len(it), 2))
    return gaps and ordered and (not it or (it[0] >= 1 and it[-1] <= NUMBER_MAX))


def each(most: int, *checks: Check) -> Check:
    """A list: of arrays if there are several checks."""
    one = checks[0] if len(checks) == 1 else row(*checks)
    return lambda it: type(it) is list and len(it) <= most and all(map(one, it))


def row(*checks: Check) -> Check:
    """An array of just these."""
    return lambda it: (
        type(it) is list and len(it) == len(checks) and all(c(i) for c, i in zip(checks, it, strict=True))
    )


def unpack(data: bytes, what: str, layout: dict[str, Check] | None = None) -> Any:
    """1.1: an array; with a layout, of just these items, by name."""
    try:
        it = msgpack.unpackb(data, strict_map_key=True, max_array_len=32768, max_map_len=0, max_ext_len=0)
    except (ValueError, TypeError, msgpack.UnpackException, RecursionError) as error:
        raise Refused(f"{what} is no msgpack: {error}") from None
    need(type(it) is list, f"{what} is no array")
    if layout is None:
        return it
    need(len(it) == len(layout), f"{what} has {len(it)} items")
    for (name, check), item in zip(layout.items(), it, strict=True):
        need(check(item), f"{what}.{name} is not as it should be")
    return dict(zip(layout, it, strict=True))


ID, SIGNATURE, MS = octets(16), octets(64), whole(0, 2**53)
PREVIOUS, SERIAL, SIGNED_FILE = (
    row(ID, whole(1, NUMBER_MAX)),
    whole(0, 2**62),
    {"body": octets(1, 2**19), "signature": SIGNATURE},
)
ENDPOINT = row(ID, each(8, octets(1216)), octets(32), each(32, text(270)))
DOCUMENT = {
    "v": whole(1, 1),
    "fleet": ID,
    "version": whole(1, 2**32),
    "name": text(63),
    "endpoints": each(16, ENDPOINT),
}
DOCUMENT |= {"revoked": each(8192, ID), "policy": row(whole(60, 315360000))}
HEADER = {"v": whole(1, 1), "source": ID, "destination": ID, "recipient_key": octets(8), "epoch": octets(8)}
HEADER |= {
    "number": whole(1, NUMBER_MAX),
    "part": whole(1, 2048),
    "parts": whole(1, 2048),
    "priority": whole(0, 1),
}
HEADER |= {
    "created_ms": MS,
    "lifetime_s": whole(1, 315360000),
    "previous": lambda it: it is None or PREVIOUS(it),
}
HEADER |= {"payload_size": whole(OVERHEAD, PAYLOAD_SIZE_MAX), "payload_sha256": octets(32)}
MANIFEST = {
    "v": whole(1, 1),
    "kind": text(64),
    "meta": each(65536, text(65536), text(65536)),
    "reference": text(1024),
}
MANIFEST |= {"submitted_ms": MS, "files": each(256, text(255), whole(0, 2**28), text(255))}
RECEIPT = {
    "v": whole(1, 1),
    "endpoint": ID,
    "journal": ID,
    "serial": whole(1, 2**62),
    "ranges": ranges,
    "issued_ms": MS,
}
RECEIPTS = {1: RECEIPT, 2: RECEIPT | {"v": whole(2, 2), "source": ID, "epoch": octets(8)}}
HELLO = {
    "version_min": whole(0, 2**16),
    "version_max": whole(0, 2**16),
    "name": text(63),
    "roles": each(3, ROLES.__contains__),
}
HELLO |= {"port": whole(0, 65535), "fleet_version": whole(0, 2**32), "wall_ms": MS, "uplink": flag}
HELLO |= {"free_bytes": whole(0, 2**63 - 1), "away_s": whole(0, DAYS_180)}
BUNDLE = {
    "age_s": whole(0, 2**40),
    "header": octets(1, 512),
    "signature": SIGNATURE,
    "payload": octets(0, PAYLOAD_SIZE_MAX),
}
JOURNALS = 1024
KINDS: dict[int, tuple[str, dict[str, Check]]] = {  # 11
    1: ("HELLO", HELLO),
    2: ("FLEET", {"body": octets(1, 2**18), "signature": SIGNATURE}),
    3: ("HAVE", {"whole": flag, "journals": each(JOURNALS, ID, ranges, SERIAL, flag)}),
    4: ("RECEIPT", {"body": octets(1, FRAME_SIZE_MAX), "signature": SIGNATURE}),
    5: ("CERT", {"der": octets(1, 2048)}),
    6: ("WANT", {"credit": whole(0, 2**63 - 1), "journals": each(JOURNALS, ID, ranges, ranges, flag)}),
    7: ("BUNDLE", BUNDLE),
    8: ("STORED", {"journals": each(JOURNALS, ID, ranges, flag)}),
    9: ("PING", {}),
    10: ("PONG", {}),
    11: ("BYE", {"reason": text(200)}),
    12: ("FINISHED", {"buckets": lambda it: each(256, octets(8))(it) and len(it) in (1, 256)}),
    13: ("HEARD", {"devices": each(JOURNALS, ID, whole(0, DAYS_180), each(JOURNALS, ID, ranges))}),
    14: ("NEXT", {"class": whole(0, 8), "worth": real}),
}


def plain(it: Any) -> Any:
    """As JSON, byte strings as 0x..."""
    if isinstance(it, bytes):
        return f"0x{it.hex()}"
    if isinstance(it, dict):
        return {name: plain(item) for name, item in it.items()}
    return [plain(item) for item in it] if isinstance(it, list) else it

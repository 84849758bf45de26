"""What a device says of itself by DNS-SD, and how it is read: strictly, since anybody can say it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from zeroconf.asyncio import AsyncServiceInfo

TYPE: Final = "_meshnode._tcp.local."

_TEXT_VERSION: Final = b"1"
_HEX_ID: Final = re.compile(rb"[0-9a-f]{32}")
_ROLES: Final = re.compile(rb"(?:[a-z]+(?:,[a-z]+)*)?")


@dataclass(frozen=True)
class Announcement:
    """What a device tells of itself: ids of 16 bytes, its roles, whether it has an uplink, its TCP port."""

    fleet: bytes
    device: bytes
    roles: tuple[str, ...]
    uplink: bool
    port: int


@dataclass(frozen=True)
class Sighting:
    """A device of the fleet was heard, and says that it can be reached at this IP address and port.

    A link-local IPv6 address comes with its zone, as `fe80::1%wlan0`.
    """

    fleet: bytes
    device: bytes
    address: tuple[str, int]
    roles: tuple[str, ...]
    uplink: bool


def text_of(announcement: Announcement, n: str) -> dict[str, str]:
    """The TXT record of an announcement, as keys and values; `n` tells it from those before."""
    return {
        "v": _TEXT_VERSION.decode(),
        "fleet": announcement.fleet.hex(),
        "id": announcement.device.hex(),
        "roles": ",".join(announcement.roles),
        "uplink": str(int(announcement.uplink)),
        "n": n,
    }


def announcement_in(text: bytes, port: int | None) -> Announcement | None:
    """The announcement in the bytes of a TXT record, with the port of the SRV record; None if there is none.

    Unknown keys are for later versions and are ignored (RFC 6763 section 6.4).
    """
    says = AsyncServiceInfo(TYPE, TYPE, properties=text).properties
    fleet, device, roles = says.get(b"fleet") or b"", says.get(b"id") or b"", says.get(b"roles") or b""
    uplink = says.get(b"uplink")
    if (
        says.get(b"v") != _TEXT_VERSION
        or not _HEX_ID.fullmatch(fleet)
        or not _HEX_ID.fullmatch(device)
        or not _ROLES.fullmatch(roles)
        or uplink not in (b"0", b"1")
        or not port
    ):
        return None
    return Announcement(
        fleet=bytes.fromhex(fleet.decode()),
        device=bytes.fromhex(device.decode()),
        roles=tuple(roles.decode().split(",")) if roles else (),
        uplink=uplink == b"1",
        port=port,
    )

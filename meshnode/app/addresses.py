"""HOST:PORT and [IPv6]:PORT, as people write them in settings and at the command line."""

from __future__ import annotations

import ipaddress
import re
from typing import Final, NamedTuple

from meshnode.core.errors import BadAddress

HOST_SIZE_MAX: Final = 253
PORT_MAX: Final = 65535
_HOST: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9.])?", re.ASCII)
_PORT: Final = re.compile(r"[0-9]{1,5}", re.ASCII)


class Address(NamedTuple):
    """Where a socket listens or leads: host name or IP address without brackets, and port."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def parse_address(text: str, port_min: int = 1) -> Address:
    """Read HOST:PORT or [IPv6]:PORT. `port_min` 0 also takes port 0, 'any port'. Raises BadAddress."""
    host, _, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        good = _is_ipv6(host)
    else:
        good = bool(_HOST.fullmatch(host)) and len(host) <= HOST_SIZE_MAX
        # what consists of numbers only is meant as an IPv4 address: 10.0.0.256 is no name
        if good and re.fullmatch(r"[0-9.]+", host):
            good = _is_ipv4(host)
    if not (good and _PORT.fullmatch(port) and port_min <= int(port) <= PORT_MAX):
        raise BadAddress(text=repr(text), port_min=port_min)
    return Address(host, int(port))


def _is_ipv4(host: str) -> bool:
    try:
        ipaddress.IPv4Address(host)
    except ValueError:
        return False
    return True


def _is_ipv6(host: str) -> bool:
    try:
        zone = ipaddress.IPv6Address(host).scope_id
    except ValueError:
        return False
    return zone is None or re.fullmatch(r"[A-Za-z0-9._-]{1,15}", zone, re.ASCII) is not None

"""The door: how many strangers may stand in it at once, and how many of one house.

Who has connected costs memory and a file until it has shown a certificate or was sent away, and anybody can connect.
So there are places for so many, and one address has only some of them. When all are taken, whoever comes from a house
that has few in the door takes the place of the one that has stood there longest of those from the fullest house. So a
flood from one machine, or from a hundred, stands in its own way and not in that of a colleague. In IPv6 a machine has
as many addresses as it likes within its network, so that network is one house.

A place counts against its house for a moment longer than it is taken, whether its holder was let in or sent away. That
bounds the handshakes that anybody can make this node compute.
"""

from __future__ import annotations

import contextlib
import ipaddress
from collections import Counter, deque
from collections.abc import Iterator
from typing import Final

import trio

from meshnode.core.limits import CONTACTS_MAX

#: Places in all; each takes some 100 KB while the handshake goes on.
PLACES_MAX: Final = CONTACTS_MAX
#: Places for one house. Behind the one address of a mobile network or an office's proxy may be a dozen devices, each of
#: which needs its place for a second.
PLACES_PER_HOUSE_MAX: Final = 32
#: A place counts against its house for so long after it was left.
COOL_S: Final = 1.0
_IPV6_NETWORK_SIZE: Final = 64


class Door:
    """Knows those who have connected and have not shown yet who they are, by house, who came first first."""

    def __init__(self) -> None:
        self._standing: dict[str, list[trio.CancelScope]] = {}
        self._left: deque[tuple[float, str]] = deque()
        self._cooling: Counter[str] = Counter()

    @contextlib.contextmanager
    def place(self, host: str) -> Iterator[trio.CancelScope | None]:
        """A place for a connection from this IP address, for as long as the block lasts, which is cancelled when
        another needs the place more; None if there is none."""
        house = house_of(host)
        self._cool()
        if not self._makes_room(house):
            yield None
            return
        place = trio.CancelScope()
        self._standing.setdefault(house, []).append(place)
        try:
            with place:
                yield place
        finally:
            self._standing[house].remove(place)
            if not self._standing[house]:
                del self._standing[house]
            self._left.append((trio.current_time(), house))
            self._cooling[house] += 1

    def _cool(self) -> None:
        while self._left and self._left[0][0] <= trio.current_time() - COOL_S:
            _, house = self._left.popleft()
            self._cooling[house] -= 1
            if not self._cooling[house]:
                del self._cooling[house]

    def _makes_room(self, house: str) -> bool:
        mine = len(self._standing.get(house, ()))
        if mine + self._cooling[house] >= PLACES_PER_HOUSE_MAX:
            return False
        if sum(map(len, self._standing.values())) < PLACES_MAX:
            return True
        fullest = max(self._standing.values(), key=len)
        if len(fullest) <= mine + 1:
            return False
        # Those that were told to go and have not gone yet are out of the way already.
        leaving = next((place for place in fullest if not place.cancel_called), None)
        if leaving is not None:
            leaving.cancel()
        return leaving is not None


def house_of(host: str) -> str:
    """What shares its places with this IP address: the address itself, or its network in IPv6."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:  # a name, as in a simulated place
        return host
    if isinstance(address, ipaddress.IPv4Address) or address.is_link_local:
        return host  # all that is link-local is one network, and all neighbours are in it
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((int(address), _IPV6_NETWORK_SIZE), strict=False))

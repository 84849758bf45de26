"""The links of a daemon, by the number of their contact: opened for a stream whose peer is known, until it ends.

A link is given up, too, when the address that it stands on is this machine's no more: it would take the peer's silence
to notice, and the address may be another's by now.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable

import trio

from meshnode.app.outside import Outside
from meshnode.app.uplink import Uplink
from meshnode.core.identity import Certificate
from meshnode.core.ports import DialFailed, Lost, Opened, Received, Sent, Unreadable
from meshnode.drivers.link import Link, Read
from meshnode.drivers.tls import NoContact

Dispatch = Callable[[DialFailed | Opened | Received | Sent | Unreadable | Lost], None]


class Links:
    """Those that are open. `uplink` decides about contacts with an office, if there is one."""

    def __init__(self, outside: Outside, read: Read, dispatch: Dispatch, uplink: Uplink | None) -> None:
        self._outside = outside
        self._read = read
        self._dispatch = dispatch
        self._uplink = uplink
        self._open: dict[int, Link] = {}
        self._locals: dict[int, str] = {}
        self._last = 0

    def get(self, contact: int) -> Link | None:
        """That of a contact, if it is open still."""
        return self._open.get(contact)

    def leave(self, own_hosts: set[str]) -> None:
        """End those that stand on an address that is not among these."""
        for number, local in list(self._locals.items()):
            if own_hosts and local not in own_hosts and not ipaddress.ip_address(local).is_loopback:
                self._open[number].close("this device has another address now")

    async def carry(
        self, stream: trio.abc.Stream, certificate: Certificate, address: str, *, dialled: bool
    ) -> None:
        """Open a contact over a stream, and run it to its end."""
        if self._uplink is not None and certificate.role == "office":
            try:
                stream = await self._uplink.admit(stream)
            except NoContact as problem:
                if dialled:
                    self._dispatch(DialFailed(address, str(problem)))
                return
        self._last += 1
        number = self._last
        link = self._open[number] = Link(number, stream, self._read, self._dispatch, self._outside.run_sync)
        if local := self._outside.local_host(stream):
            self._locals[number] = local
        if self._uplink is not None:
            self._uplink.hold(stream, link.close)
        try:
            self._dispatch(Opened(number, certificate, dialled, address))
            await link.run()
        finally:
            del self._open[number]
            self._locals.pop(number, None)
            if self._uplink is not None:
                self._uplink.let_go(stream)

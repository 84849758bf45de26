"""Whom to dial, and when: every address that may lead to a colleague or the office, with a backoff of its own.

An address is not a peer: who answers is known only after TLS, and is remembered then. No address is ever given up
while its reason lasts; failures only make it slower (doubling, capped, with a jitter that is drawn from the address
itself, so that the core needs no randomness). A change of network or a new sighting makes it fast again.

Of two devices that see each other at once, the one with the lower id dials; the other waits a moment in case the
first cannot, and dials then. A device that can be met at several addresses is dialled at one after another, each a
moment after the one before: several contacts with it would only have to be ended again, by both sides alike.

In a crowd not everybody dials everybody: each new bundle is announced over every contact, so that with n devices in one
Wi-Fi it would take n squared announcements. Beyond DIALLED_MAX contacts that this device has dialled, it dials but one
more, the heard device that follows it in a ring of all ids; it takes every contact that others dial. Which of the crowd
are dialled is drawn from the ids, so a bundle is everywhere after a few hops; and the ring closes, so the crowd is
one, whoever has chosen whom.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

from meshnode.core.identity import DeviceId
from meshnode.core.limits import (
    BACKOFF_FIRST_S,
    BACKOFF_MAX_S,
    BACKOFF_REMEMBERED_MAX_S,
    DIALLED_MAX,
    POLITE_S,
    REMEMBERED_MAX,
)

CONFIGURED = "configured"
OFFICE = "office"
SIGHTED = "dns-sd"
PROBE = "probe"
GATEWAY = "gateway"
REMEMBERED = "remembered"

#: The port of every node, unless its operator chooses another: where a gateway is dialled, and where probes are heard.
MESH_PORT = 7766

#: Somebody was heard there. That is believed until it has failed so often; all other reasons last until somebody takes
#: them back.
_HEARD = frozenset({SIGHTED, PROBE})
_HEARD_FAILURES_MAX = 10
#: Nobody has said that a node is there now. There may be many of them, for ever, and a battery.
_GUESSED = frozenset({REMEMBERED, GATEWAY})
#: Somebody has said that just these are to be met, however many there are.
_NAMED = frozenset({CONFIGURED, OFFICE, GATEWAY})
#: A dial has this long until another address of the same device is tried too: what a handshake takes on a slow Wi-Fi.
HEAD_START_S = 0.5


@dataclass(slots=True)
class Address:
    """One address and its record. `device` is who answered last, or who was announced there."""

    text: str
    device: DeviceId | None = None
    sources: set[str] = field(default_factory=set)
    next_s: float = 0.0
    failures: int = 0
    busy: bool = False
    open: bool = False
    dialled_s: float = 0.0
    met_s: float = 0.0

    @property
    def is_guess(self) -> bool:
        """Whether nobody has said that a node is there now."""
        return self.sources <= _GUESSED

    @property
    def is_of_crowd(self) -> bool:
        """Whether DIALLED_MAX is about it."""
        return _NAMED.isdisjoint(self.sources)

    @property
    def counts(self) -> bool:
        """Whether it counts against DIALLED_MAX: a guess not before somebody has answered."""
        return (self.open or (self.busy and not self.is_guess)) and self.is_of_crowd


class _Started:
    """When the last of the dials began that are on their way to a device. What is no guess does not wait for guesses:
    a device that was met in many places is dialled at once where it is heard."""

    def __init__(self) -> None:
        self._last_s: dict[tuple[DeviceId, bool], float] = {}

    def add(self, address: Address) -> None:
        if address.device is not None:
            for for_guess in (True,) if address.is_guess else (True, False):
                key = address.device, for_guess
                self._last_s[key] = max(address.dialled_s, self._last_s.get(key, 0.0))

    def from_s(self, address: Address) -> float:
        """When this address may be dialled."""
        if address.device is None:
            return address.next_s
        last_s = self._last_s.get((address.device, address.is_guess))
        return address.next_s if last_s is None else max(address.next_s, last_s + HEAD_START_S)


class Dialing:
    """All addresses of one node."""

    def __init__(self, me: DeviceId) -> None:
        self.me = me
        self.addresses: dict[str, Address] = {}

    def note(self, text: str, device: DeviceId | None, source: str, now_s: float) -> None:
        """Somebody may answer at `text`: try soon, however often it failed before."""
        if device == self.me:
            return
        polite_s = POLITE_S if device is not None and device < self.me else 0.0
        address = self.addresses.setdefault(text, Address(text, next_s=now_s + polite_s))
        address.sources.add(source)
        address.failures = 0
        if device is not None:
            address.device = device
        if not address.busy:
            address.next_s = min(address.next_s, now_s + polite_s)

    def replace(self, source: str, texts: Iterable[str], now_s: float) -> None:
        """`source` names just these addresses now."""
        wanted = set(texts)
        for text, address in list(self.addresses.items()):
            if source in address.sources and text not in wanted:
                address.sources.discard(source)
                self._forget_if_unfounded(address)
        for text in sorted(wanted):
            known = self.addresses.get(text)
            if known is None or source not in known.sources:
                self.note(text, None, source, now_s)

    def find_gateways(self, texts: Iterable[str], hosts_met: set[str], now_s: float) -> None:
        """The gateways are at just these addresses now; `hosts_met` are those with which there is a contact.

        Who answered at a gateway's address before need not be there now: every phone's hotspot has the same one.
        """
        texts = tuple(texts)
        self.replace(GATEWAY, texts, now_s)
        for text in texts:
            if text.rpartition(":")[0] not in hosts_met:
                self.addresses[text].device = None

    def remember(self, text: str, device: DeviceId, met_s: float) -> None:
        """`device` was met at `text`; the oldest memories go when there are too many."""
        address = self.addresses.setdefault(text, Address(text))
        address.device = device
        address.sources.add(REMEMBERED)
        address.met_s = max(address.met_s, met_s)
        remembered = [a for a in self.addresses.values() if REMEMBERED in a.sources]
        surplus = max(0, len(remembered) - REMEMBERED_MAX)
        for old in sorted(remembered, key=lambda a: (a.met_s, a.text))[:surplus]:
            old.sources.discard(REMEMBERED)
            self._forget_if_unfounded(old)

    def due(self, now_s: float, connected: set[DeviceId]) -> list[str]:
        """The addresses to dial now; each counts as being dialled until `opened` or `failed`."""
        out: list[str] = []
        idle = self._idle(connected)
        if not idle:
            return out
        started, room, follower = self._started(), self._crowd_room(), self._follower(connected)
        for address in sorted(idle, key=lambda a: (a.is_guess, self._rank(a), -a.met_s)):
            if address.is_of_crowd and room <= 0 and address.device != follower:
                continue
            if started.from_s(address) <= now_s:
                address.busy = True
                address.dialled_s = now_s
                started.add(address)
                out.append(address.text)
                room -= address.counts
        return out

    def next_due_s(self, connected: set[DeviceId]) -> float | None:
        """When `due` will next have something to say."""
        started = self._started()
        return min(map(started.from_s, self._idle(connected)), default=None)

    def _idle(self, connected: set[DeviceId]) -> list[Address]:
        """What may be dialled, if it is time."""
        idle = [a for a in self.addresses.values() if not a.busy and self._worth(a, connected)]
        if not idle or self._crowd_room() > 0:
            return idle
        follower = self._follower(connected)
        return [a for a in idle if a.device == follower or not a.is_of_crowd]

    def _crowd_room(self) -> int:
        """How many of the crowd may be dialled besides those that were."""
        return DIALLED_MAX - sum(a.counts for a in self.addresses.values() if a.open or a.busy)

    def _follower(self, connected: set[DeviceId]) -> DeviceId | None:
        """Who comes after this device in the ring of all that are heard and were not dialled in vain since."""
        ring = {
            address.device
            for address in self.addresses.values()
            if address.device is not None
            and (not address.failures or address.device in connected)
            and not _HEARD.isdisjoint(address.sources)
        }
        return min((device for device in ring if device > self.me), default=min(ring, default=None))

    def _rank(self, address: Address) -> bytes:
        """Every device prefers others."""
        return b"" if address.device is None else hashlib.sha256(self.me + address.device).digest()

    def _started(self) -> _Started:
        started = _Started()
        for address in self.addresses.values():
            if address.busy:
                started.add(address)
        return started

    def _worth(self, address: Address, connected: set[DeviceId]) -> bool:
        return address.device is None or (address.device != self.me and address.device not in connected)

    def opened(self, text: str, device: DeviceId) -> None:
        """`device` answered at `text`. The backoff stays until it has proved to be of use (`succeeded`)."""
        address = self.addresses.get(text)
        if address is not None:
            address.busy = False
            address.open = True
            address.device = device

    def succeeded(self, text: str) -> None:
        """The contact that was dialled at `text` works."""
        if address := self.addresses.get(text):
            address.failures = 0

    def failed(self, text: str, now_s: float) -> None:
        """Nobody answered at `text`, or the contact did not last: later again."""
        address = self.addresses.get(text)
        if address is None:
            return
        address.busy = address.open = False
        if address.failures >= _HEARD_FAILURES_MAX:
            address.sources -= _HEARD  # whoever was heard there has gone
        longest_s = BACKOFF_REMEMBERED_MAX_S if address.is_guess else BACKOFF_MAX_S
        delay_s = min(longest_s, BACKOFF_FIRST_S * 2 ** min(address.failures, 16))
        address.next_s = now_s + delay_s * (0.75 + 0.5 * self._jitter(address))
        address.failures += 1
        if not address.sources:
            del self.addresses[text]

    def network_changed(self, now_s: float) -> None:
        """What failed before may work now."""
        for address in self.addresses.values():
            address.failures = 0
            if not address.busy:
                address.next_s = min(address.next_s, now_s + BACKOFF_FIRST_S * self._jitter(address))

    def is_office(self, text: str) -> bool:
        """Whether the fleet document names this address as the office's."""
        address = self.addresses.get(text)
        return address is not None and OFFICE in address.sources

    def _jitter(self, address: Address) -> float:
        seed = self.me + address.failures.to_bytes(4, "big") + address.text.encode()
        return hashlib.sha256(seed).digest()[0] / 255

    def _forget_if_unfounded(self, address: Address) -> None:
        if not address.sources and not address.busy:
            self.addresses.pop(address.text, None)

"""Who is met: contacts that open, collapse, fall silent and end, and what is said of this node in HELLO."""

from __future__ import annotations

from collections.abc import Iterator

from meshnode.core.contact import Contact
from meshnode.core.errors import RemoteError
from meshnode.core.frames import PROTOCOL, Bye, Hello
from meshnode.core.identity import DeviceId
from meshnode.core.limits import CONTACTS_MAX, DUPLICATE_WINDOW_S, SHUN_S
from meshnode.core.ports import Close, Opened
from meshnode.core.rows import PutAddress, Row
from meshnode.core.state import State
from meshnode.core.words import say


class Meeting:
    """Opens, keeps and ends contacts."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._shunned: dict[DeviceId, float] = {}

    def opened(self, event: Opened) -> None:
        """TLS stands: keep the contact and say HELLO, or close it and say why."""
        state = self._state
        device = event.peer.device
        if event.dialled:
            state.dialing.opened(event.address, device)
        refusal = self._refusal(device)
        if refusal is None and (rival := self._rival(device)):
            refusal = self._collapse(rival, event)
        if refusal is not None:
            state.effects.append(Close(event.contact, refusal))
            said = f"no contact with {event.peer.name} at {event.address}: {refusal}"
            state.log(said, peer=event.peer.name, address=event.address)
            if event.dialled:
                state.dialing.failed(event.address, state.now.s)
            return
        contact = Contact(event.contact, event.peer, event.address, state.now.s, dialled=event.dialled)
        state.contacts[event.contact] = contact
        state.say(contact, self._hello())
        said = f"contact with {event.peer.name} at {event.address}"
        state.log(said, peer=event.peer.name, address=event.address)

    def _refusal(self, device: DeviceId) -> str | None:
        state = self._state
        if device == state.identity.device:
            return "this is myself"
        if device in state.document.revoked:
            return "revoked"
        if self._shunned.get(device, 0.0) > state.now.s:
            return "it broke the protocol a moment ago"
        if len(state.contacts) >= CONTACTS_MAX:
            return "too many contacts"
        return None

    def _rival(self, device: DeviceId) -> Contact | None:
        return next((contact for contact in self._state.contacts.values() if contact.device == device), None)

    def _collapse(self, old: Contact, new: Opened) -> str | None:
        """Of two contacts with one peer keep one, so that both sides choose the same: the one that the lower id
        dialled if both dialled at once, else the new one, since whoever opened it has lost the old one."""
        state = self._state
        at_once = old.dialled != new.dialled and state.now.s - old.opened_s < DUPLICATE_WINDOW_S
        lower = state.identity.device < new.peer.device
        if at_once and old.dialled == lower:
            return "duplicate"
        self.end(old, "duplicate")
        return None

    def greeted(self, contact: Contact, hello: Hello) -> bool:
        """Take a HELLO in; whether it was the first. Raises RemoteError: no version in common."""
        if not hello.version_min <= PROTOCOL <= hello.version_max:
            raise RemoteError("HELLO.version", say("does not include {version}", version=PROTOCOL))
        first = contact.hello is None
        contact.hello = hello
        rows: list[Row] = [self._state.encounters.met(contact.device, hello.away_s, self._state.now.s)]
        if first:
            rows.extend(self._remember(contact, hello))
            self._state.history.met(contact.device)
            self._state.write(tuple(rows))
            self.check_uplink()
        return first

    def _remember(self, contact: Contact, hello: Hello) -> Iterator[Row]:
        """Where a peer was met."""
        state = self._state
        address = contact.address
        if not address:
            return  # met without one, as in a plan of contacts
        if contact.dialled:
            state.dialing.succeeded(address)
        elif hello.port:
            address = f"{address.rpartition(':')[0]}:{hello.port}"
        else:
            return
        state.dialing.remember(address, contact.device, state.now.s)
        yield PutAddress(address, contact.device, state.now.s)

    def _hello(self) -> Hello:
        state = self._state
        return Hello(
            name=state.identity.certificate.name,
            roles=state.identity.roles,
            port=state.settings.port,
            fleet_version=state.document.version,
            wall_ms=max(0, state.now.wall_ms),
            uplink=state.uplink,
            free_bytes=max(0, state.foreign_room_bytes),
            away_s=int(state.away_s),
        )

    def check_uplink(self) -> None:
        """Say HELLO again where the way to the office has opened or closed."""
        state = self._state
        uplink = state.identity.office is not None or any(
            contact.dialled and state.dialing.is_office(contact.address) for contact in state.greeted
        )
        if uplink != state.uplink:
            state.uplink = uplink
            for contact in state.greeted:
                state.say(contact, self._hello())

    def end(self, contact: Contact, reason: str) -> None:
        """End a contact from our side."""
        if contact.hello is not None:
            self._state.say(contact, Bye(reason))
        self._state.effects.append(Close(contact.number, reason))
        self.lost(contact.number, reason)

    def lost(self, number: int, reason: str) -> None:
        """A contact is over: what it owed is asked of others, and its address is dialled again."""
        state = self._state
        contact = state.contacts.pop(number, None)
        if contact is None:
            return
        if contact.hello is not None:
            state.encounters.parted(contact.device, state.now.s)
            state.history.met(contact.device)
        state.fetching.release(contact)
        state.ask_all()
        if contact.dialled:
            state.dialing.failed(contact.address, state.now.s)
        said = f"contact with {contact.peer.name} ended: {reason}"
        state.log(said, peer=contact.peer.name, address=contact.address)
        self.check_uplink()

    def fault(self, contact: Contact, problem: RemoteError) -> None:
        """A member broke the protocol: drop it, say why, and leave it alone for a while."""
        state = self._state
        self._shunned[contact.device] = state.now.s + SHUN_S
        state.faults += 1
        said = f"{contact.peer.name} broke the protocol: {problem}"
        state.log(said, peer=contact.peer.name, address=contact.address)
        self.end(contact, str(problem)[:200])

    def end_revoked(self) -> None:
        """The fleet document has changed."""
        for contact in list(self._state.contacts.values()):
            if contact.device in self._state.document.revoked:
                self.end(contact, "revoked")

    def tick(self) -> None:
        """Notice the dead, keep the living awake, and wait no longer for the stalled."""
        state = self._state
        for contact in list(state.contacts.values()):
            if reason := contact.check_alive(state.now.s):
                self.end(contact, reason)
            elif contact.ping_due(state.now.s):
                state.effects.append(contact.ping(state.now.s))
            elif contact.wanting and state.now.s >= contact.stalls_s:
                state.ask_all()
            state.to_pump.add(contact.number)

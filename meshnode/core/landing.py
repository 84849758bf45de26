"""How a bundle from elsewhere comes to rest here: checked, given room, made durable, and only then acknowledged.

It comes over a contact (`Landings.bundle`), or is brought by hand (`bringing`); what is checked is the same (`land`).
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum

from meshnode.core import routing
from meshnode.core.bundle import Header
from meshnode.core.contact import Contact, stored_frames
from meshnode.core.errors import RemoteError
from meshnode.core.frames import BundleFrame
from meshnode.core.history import DISCARDED
from meshnode.core.identity import Certificate, JournalId
from meshnode.core.intervals import NONE, Ranges
from meshnode.core.introducing import EVERYONE, is_misplaced
from meshnode.core.knowing import Knowing
from meshnode.core.ledger import Journal
from meshnode.core.ports import Arrived, ContactNumber, Unreadable
from meshnode.core.rows import NOBODY, DropBundles, Entry, PutBundle, PutCertificate, Row, entry_of
from meshnode.core.state import Landing, State


class Fate(Enum):
    """What became of a bundle that came."""

    TAKEN = "on its way to the disk"
    KNOWN = "here or delivered already"
    USELESS = "misplaced, or expired"
    NO_ROOM = "no room for it"


class Landings:
    """Receives bundles."""

    def __init__(self, state: State, knowing: Knowing) -> None:
        self._state = state
        self._knowing = knowing

    def bundle(self, contact: Contact, frame: BundleFrame, rows: list[Row], landings: list[Landing]) -> None:
        """A bundle came: add to `rows` what is to be written, and to `landings` what then rests here. Raises
        RemoteError: not asked for by credit, from an unknown source, falsely signed, or altered."""
        state = self._state
        header = frame.bundle.header
        journal_id, number, size = header.journal, header.number, header.payload_size
        if len(frame.bundle.payload) != size and not state.settings.stand_ins:
            raise RemoteError(
                "BUNDLE.payload", "has not the size that its header says"
            )  # which counts as credit
        contact.arrived(journal_id, number, size, state.now.s)
        state.fetching.arrived(journal_id, number)
        if contact.is_trading:
            state.to_pump.add(contact.number)
        match self.land(contact.number, frame, rows, landings):
            case Fate.TAKEN:
                return
            case Fate.USELESS:
                state.fetching.loosened += 1
                # Not asked of this peer again. Another one is asked: it may be younger there, or this one has lied.
                contact.set_offer(journal_id, contact.offers.get(journal_id, NONE) - Ranges.single(number))
            case Fate.NO_ROOM:
                state.fetching.decline(journal_id, number)
            case Fate.KNOWN:
                pass
        self.settled(contact, size)

    def land(
        self,
        contact: ContactNumber,
        frame: BundleFrame,
        rows: list[Row],
        landings: list[Landing],
    ) -> Fate:
        """Check a bundle, and if it is taken add to `rows` and `landings` as `bundle` does. Raises RemoteError: of an
        unknown source, falsely signed, or altered."""
        state = self._state
        header = frame.bundle.header
        journal_id, number, size = header.journal, header.number, header.payload_size
        certificate = state.certificates.get(header.source)
        if certificate is None:
            raise RemoteError("BUNDLE", "came before the certificate of its source")
        if not state.fetching.lacks(journal_id, number):
            return Fate.KNOWN
        if not state.settings.stand_ins:
            frame.bundle.verify(certificate.key)
        if is_misplaced(header) or self._is_intruding(header, certificate):
            return Fate.USELESS
        journal = state.ledger.open(header, journal_id)
        if not state.fetching.lacks(journal_id, number):  # an own one, known only now that it is open
            return Fate.KNOWN
        if state.ledger.is_foreign(journal) and frame.age_s > header.lifetime_s:
            return Fate.USELESS
        if not self._make_room(contact, journal, number, size, rows):
            if journal_id not in state.fetching.landing:
                state.ledger.close(journal)
            return Fate.NO_ROOM
        born_s = state.now.s - frame.age_s
        self._look_for_twin(journal, header.created_ms, born_s)
        row = PutBundle(frame.bundle, journal_id, born_s, state.now.wall_ms)
        state.free_bytes -= size
        self._count(journal, size)
        state.fetching.land(journal_id, number)
        if header.source in state.unsaved_certificates:
            rows.append(PutCertificate(certificate))
        rows.append(row)
        met = state.contacts.get(contact)
        landings.append(Landing(contact, journal, number, entry_of(row), met.device if met else NOBODY))
        return Fate.TAKEN

    def _is_intruding(self, header: Header, certificate: Certificate) -> bool:
        """Only an office writes to devices; what others address to this one counts against no quota, and nobody would
        ever take it."""
        return header.destination == self._state.identity.device and certificate.role != "office"

    def _look_for_twin(self, journal: Journal, created_ms: int, born_s: float) -> None:
        """An own bundle of another process, which is younger than this process: somebody else has this device's key.
        Its age leaves out the time that it was on a stick, and clocks are often wrong, so both have to say so."""
        state = self._state
        started = state.started
        if state.has_twin or not state.ledger.is_mine(journal):
            return
        if born_s > started.s and created_ms > started.wall_ms:
            state.has_twin = True
            state.log(
                "another machine writes with the key of this device: its home is a copy, or this one is"
            )

    def _count(self, journal: Journal, size: int) -> None:
        if self._state.ledger.is_foreign(journal):
            self._state.landing_bytes += size

    def settled(self, contact: Contact, size: int) -> None:
        """A bundle is off our hands: its credit can be granted again."""
        contact.settled_bytes += size
        self._state.to_ask.add(contact.number)

    def _make_room(
        self, bringer: ContactNumber, journal: Journal, number: int, size: int, rows: list[Row]
    ) -> bool:
        """Whether there is room for a bundle, after discarding what it may displace."""
        state = self._state
        if not state.ledger.is_foreign(journal):
            return state.room_bytes >= size
        assert journal.source is not None
        room = state.foreign_room_bytes
        if room >= size:
            return True
        if routing.claim(state.ledger, journal.source, room) >= size:
            copies_min = 0
        else:
            contact = state.contacts.get(bringer)
            is_farther = contact is not None and state.is_farther(contact)
            copies = routing.copies_of(state.holders, journal.id, number)
            copies_min = copies + 1 if is_farther else routing.ARRIVED
        for victim, ranges in routing.to_displace(state.ledger, state.holders, size - room, copies_min):
            self.discard(victim, ranges, rows)
        return state.foreign_room_bytes >= size

    def discard(self, journal: Journal, ranges: Ranges, rows: list[Row]) -> None:
        """Let go of others' bundles, tell every contact, and do not ask for them at once again."""
        state = self._state
        gone_bytes = journal.entries.size_of(ranges)
        gone = state.ledger.drop(journal, ranges)
        state.free_bytes += gone_bytes
        rows.append(DropBundles(journal.id, gone))
        state.history.now(journal.id, DISCARDED, NOBODY, gone, mine=False)
        state.fetching.declined[journal.id] = state.fetching.declined.get(journal.id, NONE) | gone
        self._knowing.tell_shrunk(journal)

    def written(self, landing: Landing) -> None:
        """A bundle from elsewhere, and the certificate that it needs, are durable."""
        state = self._state
        self._count(landing.journal, -landing.entry.size)
        if landing.journal.source is not None:
            state.unsaved_certificates.discard(landing.journal.source)
        if landing.journal.destination != EVERYONE:
            state.history.came(landing.journal, landing.number, landing.entry.size, landing.bringer)
        if contact := state.contacts.get(landing.contact):
            self.settled(contact, landing.entry.size)

    def landed(self, grown: dict[JournalId, dict[int, Entry]]) -> None:
        """These bundles are durable: count them, and acknowledge them to every contact at once."""
        state = self._state
        for journal_id, entries in grown.items():
            journal = state.ledger.journals[journal_id]
            state.ledger.add(journal, entries)
            state.rotten.difference_update((journal_id, number) for number in entries)
            state.fetching.landed(journal_id, Ranges.of(entries))
            if state.ledger.is_mine(journal):
                self._note_givers(journal_id)
            if late := state.ledger.held_in_vain(journal):
                state.write((DropBundles(journal_id, state.ledger.drop(journal, late)),))
            if state.ledger.is_for_me(journal):
                state.effects.append(Arrived(journal_id))
        rows = []
        for journal_id, entries in grown.items():
            ends = state.ledger.is_for_me(state.ledger.journals[journal_id])
            rows.append((journal_id, Ranges.of(entries), ends))
        for frame in stored_frames(rows):
            for contact in state.greeted:
                state.say(contact, frame)

    def _note_givers(self, journal_id: JournalId) -> None:
        """Own bundles are here again: what others said to hold of them counts only from now on."""
        for contact in self._state.greeted:
            if (offer := contact.offers.get(journal_id)) is not None:
                self._state.custody.note(journal_id, contact.device, offer)

    def failed(self, landings: Iterable[Landing]) -> None:
        """The disk did not take these: they are not here, and not asked for until there is room again."""
        state = self._state
        for landing in landings:
            state.fetching.landed(landing.journal.id, Ranges.single(landing.number))
            state.fetching.decline(landing.journal.id, landing.number)
            self._count(landing.journal, -landing.entry.size)
            state.free_bytes += landing.entry.size
            if contact := state.contacts.get(landing.contact):
                self.settled(contact, landing.entry.size)

    def unreadable(self, event: Unreadable) -> None:
        """A bundle could not be sent: dropped in the meantime, or lost to the disk, which makes it lacking again."""
        state = self._state
        if contact := state.contacts.get(event.contact):
            contact.note_unsent(event.size)
            state.to_pump.add(event.contact)
        journal = state.ledger.journals.get(event.journal)
        if journal is None or event.number not in journal.entries:
            return
        own = "own " if state.ledger.is_mine(journal) else ""
        state.ledger.forget_rotten(journal, event.number)
        state.rotten.add((event.journal, event.number))
        said = f"{own}bundle {event.number} of journal {event.journal.hex()} is rotten in the store"
        state.log(said, journal=event.journal.hex(), number=str(event.number))
        self._knowing.tell_shrunk(journal)
        state.ask_all()

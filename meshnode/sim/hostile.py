"""A hostile member: enrolled, so nobody can keep it out, with a real brain and a mouth that lies.

Its node runs as all others do, so that it is trusted and contacts get far; what it says is bent on the way out. Each
contact gets one trick, drawn from its own source of chance. None of them may cost anybody else a record.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from meshnode.core.bundle import AGE_S_MAX, ROUTINE, Bundle, Header, journal_id, sign_bundle
from meshnode.core.errors import RemoteError
from meshnode.core.frames import (
    BundleFrame,
    Cert,
    Fleet,
    Have,
    Held,
    Hello,
    Ping,
    ReceiptFrame,
    Stored,
    Want,
    Wanted,
    encode,
    encode_bundle,
)
from meshnode.core.framing import FrameReader
from meshnode.core.identity import JournalId
from meshnode.core.intervals import NONE, Ranges
from meshnode.core.limits import FRAME_SIZE_MAX, LIFETIME_S, NUMBER_MAX, RANGES_MAX
from meshnode.core.ports import Effect, Event, Received, Send, SendBundle, Sent
from meshnode.core.receipt import issue_receipt
from meshnode.core.sealing import SEAL_OVERHEAD
from meshnode.sim.channel import End
from meshnode.sim.machine import Machine

#: What it says on its own, and how often in one contact.
SPEECHES_MAX: Final = 3
_OVERHEARD_MAX: Final = 200


class Hostile(Machine):
    """A machine that lies. `chance` decides how."""

    chance = random.Random(0)

    def boot(self) -> None:
        """As any machine."""
        self._tricks: dict[int, str] = {}
        self._speeches: dict[int, int] = {}
        self._readers: dict[int, FrameReader] = {}
        self._overheard: list[bytes] = []
        self._false = _FalseJournal(self)
        super().boot()

    def trick(self, contact: int) -> str:
        """How it cheats in this contact."""
        if contact not in self._tricks:
            self._tricks[contact] = name = self.chance.choice(sorted(_SPEECHES) + _BENDINGS)
            if end := self.ends.get(contact):
                party = end.across.party
                assert isinstance(party, Machine)
                self.engine.note(f"{self.name} will cheat {party.name}: {name}")
        return self._tricks[contact]

    # --- what it hears ------------------------------------------------------------------------------------------

    def dispatch(self, event: Event) -> None:
        """Listen in, and now and then say something of its own."""
        if isinstance(event, Received) and self.node is not None:
            self._listen(event)
        super().dispatch(event)
        if isinstance(event, Received) and event.contact in self.ends:
            self._speak(event.contact)

    def _listen(self, event: Received) -> None:
        reader = self._readers.setdefault(event.contact, FrameReader())
        try:
            frames = list(reader.feed(event.data))
        except RemoteError:
            return
        for frame in frames:
            if len(self._overheard) < _OVERHEARD_MAX:
                self._overheard.append(encode(frame))
            if isinstance(frame, Want) and event.contact in self.ends:
                for data in self._false.answer(frame, event.contact):
                    self.ends[event.contact].send(data)

    def _speak(self, contact: int) -> None:
        said = self._speeches.get(contact, 0)
        speech = _SPEECHES.get(self.trick(contact))
        if speech is None or said >= SPEECHES_MAX or self.chance.random() < 0.5:
            return
        self._speeches[contact] = said + 1
        for data in speech(self):
            self.ends[contact].send(data)

    # --- what it says -------------------------------------------------------------------------------------------

    def _do(self, effect: Effect) -> None:
        contact = getattr(effect, "contact", None)
        if contact is None or contact not in self.ends:
            super()._do(effect)
            return
        end, trick = self.ends[contact], self.trick(contact)
        if isinstance(effect, Send) and trick == "boast" and effect.data[5] == 3:
            super()._do(Send(contact, self._boast(effect.data)))
        elif isinstance(effect, Send) and trick == "mute":
            return
        elif isinstance(effect, SendBundle) and trick in ("withhold", "alter", "age"):
            self._cheat(end, effect, trick)
        else:
            super()._do(effect)

    def _cheat(self, end: End, effect: SendBundle, trick: str) -> None:
        """Do something else with a bundle than send it, and let the node believe that it was sent."""
        stored = self.store.read(effect.journal, effect.number)
        self.engine.after(0.1, lambda: self.dispatch(Sent(effect.contact, effect.size)))
        if trick == "withhold" or stored is None:
            return
        header, signature, payload, age_s = stored.header, stored.signature, stored.payload, effect.age_s
        if trick == "age":
            age_s = self.chance.choice([0, LIFETIME_S - 1, LIFETIME_S + 1, AGE_S_MAX])
        elif self.chance.random() < 0.5:
            payload = payload[:-1] + bytes((payload[-1] ^ 1,))
        else:
            signature = self.identity.key.sign(header)
        end.send(encode_bundle(age_s, header, signature, payload))

    def _boast(self, data: bytes) -> bytes:
        """It holds everything that anybody ever wrote, and more."""
        (have,) = FrameReader().feed(data)
        assert isinstance(have, Have)
        rows = {held.journal: held for held in have.journals}
        for journal in self.running.state.ledger.journals.values():
            last = max(journal.held.last, journal.receipted.last, 1) + self.chance.choice([0, 1, 50])
            serial = journal.serial + self.chance.choice([0, 1 << 32])
            rows[journal.id] = Held(journal.id, Ranges.span(1, last), serial)
        for _ in range(self.chance.randrange(5)):
            unheard = JournalId(self.chance.randbytes(16))
            rows[unheard] = Held(unheard, Ranges.span(1, self.chance.choice([1, 1000, NUMBER_MAX])), 0)
        return encode(Have(have.whole, tuple(rows.values())[:1000]))

    # --- speeches -----------------------------------------------------------------------------------------------

    def _known(self) -> list[JournalId]:
        return sorted(self.running.state.ledger.journals)

    def speak_stored(self) -> list[bytes]:
        """It has stored all that it ever heard of."""
        return [encode(Stored(((journal, Ranges.span(1, 1000), False),))) for journal in self._known()]

    def speak_names(self) -> list[bytes]:
        """Thousands of journals that nobody has."""
        rows = tuple(
            Held(JournalId(self.chance.randbytes(16)), self.chance.choice([NONE, Ranges.span(1, 9)]), 1)
            for _ in range(1000)
        )
        return [encode(Have(False, rows)) for _ in range(self.chance.choice([1, 1, 1, 1, 30]))]

    def speak_ranges(self) -> list[bytes]:
        """One journal with all the gaps that can be."""
        journal = self.chance.choice([*self._known(), JournalId(self.chance.randbytes(16))])
        frames = []
        for at in range(self.chance.choice([1, 3, 24])):
            first = 1 + 2 * at * RANGES_MAX
            gaps = Ranges((first + 2 * n, first + 2 * n) for n in range(RANGES_MAX))
            frames.append(encode(Stored(((journal, gaps, False),))))
        return frames

    def speak_wants(self) -> list[bytes]:
        """Everything, again and again, with all the credit in the world."""
        everything = Ranges.span(1, NUMBER_MAX)
        ask = tuple(Wanted(journal, everything, NONE, True) for journal in self._known()[:1000])
        back = tuple(Wanted(journal, NONE, everything, True) for journal in self._known()[:1000])
        return [encode(Want(2**62, rows)) for _ in range(20) for rows in (ask, back)] + [
            encode(Want(2**62, ask))
        ]

    def speak_pings(self) -> list[bytes]:
        """Are you there? Are you there?"""
        return [encode(Ping()) * 2000]

    def speak_garbage(self) -> list[bytes]:
        """Bytes that mean nothing, or too much."""
        size = self.chance.choice([1, 7, 4000])
        bent = bytearray(self.chance.choice(self._overheard or [encode(Ping())]))
        bent[self.chance.randrange(len(bent))] ^= 1 << self.chance.randrange(8)
        huge = (FRAME_SIZE_MAX + 1).to_bytes(4, "big")
        return [self.chance.choice([self.chance.randbytes(size), bytes(bent), huge])]

    def speak_replay(self) -> list[bytes]:
        """What others have said to it."""
        count = min(len(self._overheard), self.chance.choice([1, 10, 50]))
        return self.chance.sample(self._overheard, count)

    def speak_hello(self) -> list[bytes]:
        """It is somebody else, with another version and another clock."""
        return [encode(Hello("kantor", ("office",), 1, 2**32, 0, True, 2**60))]

    def speak_receipts(self) -> list[bytes]:
        """Everything is delivered, says the office, or somebody like it."""
        frames = []
        for journal in self.running.state.ledger.journals.values():
            endpoint = self.running.state.document.endpoints[0].id
            ranges = Ranges.span(1, max(journal.held.last, 1) + 100)
            serial = journal.serial + (1 << 32)
            false = issue_receipt(self.identity.key, endpoint, journal.id, serial, ranges, 0)
            signature = false.signature
            if journal.receipt is not None and self.chance.random() < 0.5:
                signature = journal.receipt.signature
            frames.append(encode(ReceiptFrame(false.body, signature)))
        return self.chance.sample(frames, min(len(frames), 3))

    def speak_document(self) -> list[bytes]:
        """The authority has revoked everybody else."""
        others = frozenset(self.running.state.certificates) - {self.device}
        document = replace(self.identity.document, version=2**31, revoked=others).signed(self.identity.key)
        return [encode(Fleet(document.body, document.signature))]

    def speak_certificate(self) -> list[bytes]:
        """A certificate of its own making."""
        der = self.identity.certificate.der
        return [encode(Cert(der[:-1] + bytes((der[-1] ^ 1,))))]

    def speak_push(self) -> list[bytes]:
        """Bundles that nobody asked for."""
        rows = self.running.state.ledger.offers()
        places = [(held.journal, number) for held in rows for number in held.ranges][:20]
        found = filter(None, (self.store.read(*place) for place in places))
        return [encode_bundle(0, stored.header, stored.signature, stored.payload) for stored in found]

    def speak_false_journal(self) -> list[bytes]:
        """A journal of its own, in which one number is two bundles and messages contradict each other."""
        return self._false.offer()


_SPEECHES: Final[dict[str, Callable[[Hostile], list[bytes]]]] = {
    "says that it has stored everything": Hostile.speak_stored,
    "names journals that nobody has": Hostile.speak_names,
    "names more ranges than there are": Hostile.speak_ranges,
    "wants everything": Hostile.speak_wants,
    "floods with pings": Hostile.speak_pings,
    "sends garbage": Hostile.speak_garbage,
    "replays": Hostile.speak_replay,
    "says HELLO as the office": Hostile.speak_hello,
    "signs receipts": Hostile.speak_receipts,
    "signs a fleet document": Hostile.speak_document,
    "makes a certificate": Hostile.speak_certificate,
    "pushes bundles": Hostile.speak_push,
    "gives one number to two bundles": Hostile.speak_false_journal,
}
_BENDINGS: Final = ["boast", "withhold", "alter", "age"] * 3 + ["mute"]


class _FalseJournal:
    """A journal that its device has signed twice."""

    def __init__(self, machine: Hostile) -> None:
        self._machine = machine
        chance = machine.chance
        self._epoch = chance.randbytes(8)
        endpoint = machine.identity.document.endpoints[0].id
        self.id = journal_id(machine.device, endpoint, self._epoch)
        self._faces = [{number: self._sign(number, endpoint) for number in range(1, 5)} for _ in range(2)]

    def _sign(self, number: int, endpoint: bytes) -> Bundle:
        machine, chance = self._machine, self._machine.chance
        payload = chance.randbytes(chance.choice([40, 3000]) + SEAL_OVERHEAD)
        part = chance.randint(1, number)
        header = Header(
            source=machine.device,
            destination=endpoint,
            recipient_key=b"standin!",
            epoch=self._epoch,
            number=number,
            part=part,
            parts=chance.randint(part, 4),
            priority=ROUTINE,
            created_ms=0,
            lifetime_s=LIFETIME_S,
            previous=None,
            payload_size=len(payload),
            payload_sha256=hashlib.sha256(payload).digest(),
        )
        return sign_bundle(header, payload, machine.identity.key)

    def offer(self) -> list[bytes]:
        """That it has them."""
        return [encode(Have(False, (Held(self.id, Ranges.span(1, 4), 0),)))]

    def answer(self, want: Want, contact: int) -> list[bytes]:
        """What this contact gets of what it wants."""
        face = self._faces[contact % 2]
        numbers = [
            n for row in want.journals if row.journal == self.id for n in row.ranges & Ranges.span(1, 4)
        ]
        certificate = encode(Cert(self._machine.identity.certificate.der))
        return [certificate, *(encode(BundleFrame(0, face[number])) for number in numbers)] if numbers else []

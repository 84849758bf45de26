"""Contacts, ledgers and orders for tests of one contact."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from hypothesis import strategies as st

from meshnode.core.bundle import Header
from meshnode.core.contact import Contact
from meshnode.core.frames import Frame, Hello, Want, Wanted
from meshnode.core.framing import FrameReader
from meshnode.core.holders import Holders
from meshnode.core.identity import DeviceId, JournalId
from meshnode.core.intervals import NONE, Ranges
from meshnode.core.ledger import Journal, Ledger
from meshnode.core.limits import (
    AWAY_S_MAX,
    CREDIT_BYTES,
    KIB,
    PAYLOAD_SIZE_MAX,
)
from meshnode.core.ports import Effect, Send, SendBundle
from meshnode.core.routing import Order
from meshnode.core.rows import Entry
from tests.core.fleets import Fleet

FLEET = Fleet()
ME = FLEET.device("siti")
SOURCE = FLEET.device("agus")
CERTIFICATES = {FLEET.device(name): FLEET.certificate(name) for name in ("siti", "agus", "wati")}
HELLO = Hello("wati", ("officer",), 7766, 1, 0, False, 0)
J = JournalId(b"j" * 16)
PLENTY = 1 << 40
#: Of bundles.
sizes = st.sampled_from([1136, 2000, 100 * KIB, PAYLOAD_SIZE_MAX])


def contact(now_s: float = 0.0, *, greeted: bool = True) -> Contact:
    """A contact that opened at `now_s`."""
    made = Contact(1, FLEET.certificate("wati"), "10.0.0.1:7766", now_s, dialled=True)
    if greeted:
        made.hello = HELLO
    return made


def frame(effect: Effect | None) -> Frame:
    """What a Send says."""
    assert isinstance(effect, Send)
    (said,) = FrameReader().feed(effect.data)
    return said


def wanting(peer: Contact, numbers: Ranges | None = None) -> list[Wanted]:
    """Ask for these, or for the first thousand."""
    numbers = numbers or Ranges.span(1, 1000)
    peer.wanting[J] = numbers
    return [Wanted(J, numbers, NONE, False)]


def carrying(*messages: tuple[int, int, int], source: DeviceId = SOURCE) -> tuple[Ledger, Journal]:
    """A ledger with messages of (size, priority, parts), numbered from 1 on."""
    ledger = Ledger(ME)
    header = Header(source, b"o" * 16, b"k" * 8, b"e" * 8, 1, 1, 1, 1, 0, 60, None, 2000, b"h" * 32)
    journal = ledger.open(header, header.journal)
    first = 1
    for size, priority, parts in messages:
        ledger.add(journal, {first + n: Entry(size, priority, first, parts, 0.0, 60) for n in range(parts)})
        first += parts
    return ledger, journal


def order_to(
    peer_away_s: float = 0.0, told_s: Mapping[DeviceId, float] | None = None, holders: Holders | None = None
) -> Order:
    """The order of sending to a peer at this distance from an office, 0: there. `told_s`: that of others."""
    told = told_s or {}

    def away_s(device: DeviceId) -> float:
        return told.get(device, AWAY_S_MAX)

    return Order(
        peer=FLEET.device("wati"),
        devices=CERTIFICATES,
        peer_away_s=peer_away_s,
        own_away_s=AWAY_S_MAX,
        offers={},
        holders=holders or Holders(away_s),
        told_s=away_s,
        revoked=(),
        now_s=0.0,
    )


#: To an office: the smallest first.
ORDER = order_to()


def ask(
    peer: Contact, ledger: Ledger, numbers: Iterable[int], credit: int = CREDIT_BYTES, *, known: bool = True
) -> None:
    """The peer wants these of the only journal."""
    (journal_id,) = ledger.journals
    want = Want(credit, (Wanted(journal_id, Ranges.of(numbers), NONE, known),))
    peer.note_want(want, ledger, ORDER)


def pump(peer: Contact, ledger: Ledger, now_s: float = 0.0, order: Order = ORDER) -> list[int]:
    """The numbers that are handed to the link now."""
    effects = list(peer.pump(ledger, CERTIFICATES, order, now_s))
    return [effect.number for effect in effects if isinstance(effect, SendBundle)]


def drain(peer: Contact, ledger: Ledger, order: Order = ORDER) -> list[int]:
    """The numbers that are sent when the link sends as fast as it gets them."""
    sent: list[int] = []
    while numbers := pump(peer, ledger, order=order):
        (journal,) = ledger.journals.values()
        for number in numbers:
            peer.note_sent(journal.entries[number].size, 0.0)
        sent += numbers
    return sent

"""What to send first, and what to discard when space is short. Pure functions of what is known of bundles and peers.

Sending
    A contact may end at any moment, so the order decides what gets through. What a revoked device signed goes last of
    all, since nobody can tell when it signed; else by priority class; then first the messages that can become whole at
    the peer from here; then by gain a byte (RAPID, Balasubramanian et al., SIGCOMM 2007; GBSD, Krifa et al., SECON
    2008):

        worth = (delay now - delay with one more copy at the peer) / bytes of the message that the peer lacks

    Every holder of a copy is taken to reach an office after a time of its own, exponential with the mean that it tells
    (`encounters`); the first of several is there after 1 / (sum of 1 / mean). So with

        R = 1 / own number + sum of 1 / number, over all others that hold what the peer lacks (`holders`)
        delay now = 1 / R          with a copy at the peer: 1 / (R + 1 / its number)

    a copy is worth much while there are few and far away ones, and little when somebody near has it already. To an
    office, a gateway or an uplink every message is worth its arrival, so there the smallest remainder goes first, as
    everywhere before numbers are learned: shortest remaining work first minimises the mean.

    What is told may be wrong or a lie. A message that has grown old and is still not delivered shows that its holders
    are not that near: no number counts for less than a share of the message's age (DOUBT). And age itself weighs
    (AGEING_S), so that nothing starves, however large it is or whatever is said of it.

    A message's parts stay together. Those of which the fewest others hold a copy go first, and among equals they begin
    at a place that is the peer's own, so two carriers of one large message do not carry the same half.

Who speaks
    Radio is half-duplex: what one end sends, the other cannot. So the two queues are merged: both ends tell how good
    their next bundle is (NEXT), and whoever has the lesser one waits (`contact`).

Discarding
    Receipted bundles are discarded as soon as the receipt is seen, expired ones by the clock; both elsewhere. When the
    quota is full, a bundle that comes has to be better placed here than what it displaces:

        of a source that takes less than the heaviest one         whatever is given up for it, up to a fair share
        of any source, if who brings it is farther from an office  than what more others hold than it
        of any source                                              than what has arrived, and is not signed for yet

    It displaces bundles of the heaviest source, so one busy device cannot push out the others: the most widely copied
    first, then the largest messages. Only copies that were seen count here, not those that were heard of, so nobody can
    talk a node into giving something up. The peer learns from our WANT, before it sends anything.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from meshnode.core.encounters import LEAST_S
from meshnode.core.frames import Rank
from meshnode.core.holders import Holders
from meshnode.core.identity import DeviceId, JournalId
from meshnode.core.intervals import NONE, Ranges
from meshnode.core.ledger import Journal, Ledger
from meshnode.core.limits import AWAY_S_MAX, PAYLOAD_SIZE_MAX
from meshnode.core.rows import Entry

#: The share of a message's age below which the number of a holder is not believed.
DOUBT: Final = 0.5
#: A message so old weighs twice as much as a new one, one of twice the age five times.
AGEING_S: Final = 14 * 24 * 3600.0
#: Ages count in steps: two messages of about the same age are worth the same whenever either was looked at, so the
#: older one stays in front.
AGE_STEP_S: Final = 3600.0
#: Copies of what has arrived at its end: more than anything else has.
ARRIVED: Final = 2**30


class Candidate(NamedTuple):
    """A message that a peer asks for, as an order of sending sees it: bytes of it that the peer lacks; the peer's delay
    to an office and this node's (0: there); that of each other device which holds all that the peer lacks; its age."""

    lacking_bytes: int
    peer_away_s: float
    own_away_s: float
    others_away_s: tuple[float, ...]
    age_s: float


#: What sending a message is worth; the greatest goes first.
Worth = Callable[[Candidate], float]
#: Sorts what is sent first to the front: how good it is, when it was born, journal, first number.
MessageKey = tuple[Rank, float, JournalId, int]


def gain(message: Candidate) -> float:
    """Seconds of delay saved by a byte, or messages there by a byte."""
    weight = (1 + (message.age_s / AGEING_S) ** 2) / message.lacking_bytes
    if message.peer_away_s <= 0:
        return weight
    least_s = max(LEAST_S, DOUBT * message.age_s)
    rate = 1 / max(message.own_away_s, LEAST_S)
    for away_s in message.others_away_s:
        rate += 1 / max(away_s, least_s)
    return weight * (1 / rate - 1 / (rate + 1 / message.peer_away_s))


@dataclass(frozen=True, slots=True)
class Order:
    """The order of sending to one peer: all that it depends on. `devices`: all that are known; `peer_away_s`: the delay
    from the peer to an office, 0 for an office, a gateway or an uplink; `offers`: what the peer holds; `told_s`: the
    delay that a device has told."""

    peer: DeviceId
    devices: Container[bytes]
    peer_away_s: float
    own_away_s: float
    offers: Mapping[JournalId, Ranges]
    holders: Holders
    told_s: Callable[[DeviceId], float]
    revoked: Container[DeviceId]
    now_s: float
    worth: Worth = gain

    @classmethod
    def blind(cls, revoked: Container[DeviceId], now_s: float) -> Order:
        """To whoever comes: the smallest messages first."""
        nobody = DeviceId(b"")
        return cls(
            nobody, (), 0.0, 0.0, {}, Holders(lambda _: AWAY_S_MAX), lambda _: AWAY_S_MAX, revoked, now_s
        )

    def of_message(self, journal: Journal, entry: Entry) -> MessageKey:
        """Where a message stands; `entry` is of any of its bundles."""
        span = Ranges.span(entry.first, entry.first + entry.parts - 1)
        lacking = span - self.offers.get(journal.id, NONE)
        # A message is as old as its first part: ages are rounded at each hop, so they differ from part to part.
        born_s = journal.entries.get(entry.first, entry).born_s
        peer_away_s, others_s = self._ways(journal, lacking)
        candidate = Candidate(
            lacking_bytes=max(1, len(lacking)) * (entry.size if entry.parts == 1 else PAYLOAD_SIZE_MAX),
            peer_away_s=peer_away_s,
            own_away_s=self.own_away_s,
            others_away_s=others_s,
            age_s=max(0.0, (self.now_s - born_s) // AGE_STEP_S * AGE_STEP_S),
        )
        is_revoked, is_incomplete = journal.source in self.revoked, not lacking <= journal.held
        rank = 4 * is_revoked + 2 * entry.priority + is_incomplete, -self.worth(candidate)
        return rank, born_s, journal.id, entry.first

    def _ways(self, journal: Journal, lacking: Ranges) -> tuple[float, tuple[float, ...]]:
        """The delays from the peer, and from the others that hold what it lacks. Numbers say nothing of the way to a
        device, unless it is the peer: there all nodes are alike."""
        if journal.destination == self.peer:
            return 0.0, ()
        if journal.destination in self.devices:
            return max(LEAST_S, self.own_away_s), ()
        others_s = (
            self.told_s(device)
            for device, ranges in self.holders.of(journal.id)
            if device != self.peer and lacking <= ranges
        )
        return self.peer_away_s, tuple(others_s)

    def of_parts(self, journal: Journal, first: int, numbers: list[int]) -> list[int]:
        """These bundles of one message, in ascending order, in the order of sending."""
        if len(numbers) < 2 or self.peer_away_s <= 0:
            return numbers
        others = [ranges for device, ranges in self.holders.of(journal.id) if device != self.peer]
        parts = numbers[-1] - first + 1
        own_place = first + int.from_bytes(self.peer[:4], "big") % parts

        def place(number: int) -> tuple[int, int]:
            return sum(number in ranges for ranges in others), (number - own_place) % parts

        return sorted(numbers, key=place)


def heaviest_source(ledger: Ledger) -> tuple[DeviceId | None, int]:
    """The source whose bundles take up most of what is carried for others, and its bytes."""
    if not ledger.foreign_bytes:
        return None, 0
    source = max(ledger.foreign_bytes, key=lambda device: (ledger.foreign_bytes[device], device))
    return source, ledger.foreign_bytes[source]


def claim(ledger: Ledger, source: DeviceId, room_bytes: int) -> int:
    """Bytes that `source` may still add: the room that is left, and what the heaviest source has more than it."""
    heaviest, most = heaviest_source(ledger)
    if heaviest is None or heaviest == source:
        return max(0, room_bytes)
    return max(0, room_bytes) + max(0, most - ledger.foreign_bytes.get(source, 0)) // 2


def most_copies(ledger: Ledger, holders: Holders) -> int:
    """How many others hold the most widely copied bundle of the heaviest source; ARRIVED if its end does."""
    source, _ = heaviest_source(ledger)
    most = 0
    for journal in ledger.journals.values():
        if journal.source == source and journal.held and ledger.is_foreign(journal):
            if holders.arrived(journal.id) & journal.held:
                return ARRIVED
            layers = holders.layers(journal.id)
            while len(layers) > most and layers[most] & journal.held:
                most += 1
    return most


def better_placed(
    holders: Holders, journal: JournalId, offered: Ranges, most: int, *, farther: bool
) -> Ranges:
    """Which bundles of a journal are better placed here than some of those with `most_copies`. `farther`: who offers
    them is farther from an office than this node."""
    if most <= 0 or not (farther or most == ARRIVED):
        return NONE
    layers = holders.layers(journal)
    fewer = offered - layers[most - 1] if len(layers) >= most else offered
    return fewer - holders.arrived(journal)


def to_displace(
    ledger: Ledger, holders: Holders, needed_bytes: int, copies_min: int = 0
) -> list[tuple[Journal, Ranges]]:
    """Bundles of the heaviest source to discard so that `needed_bytes` fit; none if they do not suffice. Whole
    messages, since a part alone is worth nothing, which at least `copies_min` others hold: the most widely copied
    first, then the largest, then the newest."""
    source, _ = heaviest_source(ledger)
    candidates: dict[tuple[JournalId, int], tuple[int, int, float, JournalId, int, Ranges]] = {}
    for journal in ledger.journals.values():
        if journal.source == source and ledger.is_foreign(journal):
            for entry in journal.entries.values():
                if (journal.id, entry.first) not in candidates:
                    ranges = Ranges.span(entry.first, entry.first + entry.parts - 1) & journal.held
                    copies = _copies(holders, journal.id, ranges)
                    key = -copies, -entry.parts, -entry.born_s, journal.id, entry.first, ranges
                    candidates[journal.id, entry.first] = key
    found: list[tuple[Journal, Ranges]] = []
    for copies, *_, journal_id, _, ranges in sorted(candidates.values(), key=lambda key: key[:5]):
        if needed_bytes <= 0 or -copies < copies_min:
            break
        journal = ledger.journals[journal_id]
        needed_bytes -= journal.entries.size_of(ranges)
        found.append((journal, ranges))
    return found if needed_bytes <= 0 else []


def _copies(holders: Holders, journal: JournalId, ranges: Ranges) -> int:
    """How many others hold all of these."""
    if ranges <= holders.arrived(journal):
        return ARRIVED
    return sum(1 for layer in holders.layers(journal) if ranges <= layer)


def copies_of(holders: Holders, journal: JournalId, number: int) -> int:
    """How many others hold a bundle; ARRIVED if its end does."""
    return _copies(holders, journal, Ranges.single(number))

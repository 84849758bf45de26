"""Which bundle is asked of whom.

A bundle is asked of one contact at a time. Whatever a contact offers that we lack, that is not on its way to the disk
and not asked of another, is asked of it; a contact that has nothing left to give while another still owes much takes
over half of that, so that two holders on one Wi-Fi share the work, and a slow one holds nothing up. What a lost or
stalled contact owed is asked of the others.

Room is decided before bytes flow: a receiver whose quota is full asks only for what is for itself, of sources that take
less than their fair share, or better placed here than what it would give up (`routing`). Of a journal that is not known
yet, and so may be of such a source, it asks for one bundle to see.
"""

from __future__ import annotations

from collections.abc import Iterable

from meshnode.core.contact import PAIRS_PER_FRAME, Contact, first_ranges
from meshnode.core.frames import Wanted
from meshnode.core.holders import Holders
from meshnode.core.identity import DeviceId, JournalId
from meshnode.core.intervals import NONE, Ranges
from meshnode.core.ledger import Ledger
from meshnode.core.limits import JOURNALS_PER_FRAME, PAYLOAD_SIZE_MAX, TAKE_OVER_MIN
from meshnode.core.routing import better_placed, claim, most_copies


class Fetching:
    """What is on its way to this node, by whom."""

    def __init__(self, ledger: Ledger, holders: Holders) -> None:
        self._ledger = ledger
        self._holders = holders
        #: How often something asked of a contact has become free to be asked of another.
        self.loosened = 0
        #: Arrived, on the way to the disk.
        self.landing: dict[JournalId, Ranges] = {}
        #: Came, but there was no room; not asked for again until there is.
        self.declined: dict[JournalId, Ranges] = {}
        self._asked: dict[JournalId, Ranges] = {}

    # --- bookkeeping --------------------------------------------------------------------------------------------

    def arrived(self, journal: JournalId, number: int) -> None:
        """A bundle came; it is asked of nobody any more."""
        self._put(self._asked, journal, self._asked.get(journal, NONE).minus(number))

    def land(self, journal: JournalId, number: int) -> None:
        """It goes to the disk now."""
        self.landing[journal] = self.landing.get(journal, NONE).plus(number)

    def landed(self, journal: JournalId, ranges: Ranges) -> None:
        """It is there, or writing it failed."""
        self._shrink(self.landing, journal, ranges)

    def decline(self, journal: JournalId, number: int) -> None:
        """There is no room for it."""
        self.declined[journal] = self.declined.get(journal, NONE).plus(number)

    def lacks(self, journal: JournalId, number: int) -> bool:
        """Whether a bundle is of use here: neither held, delivered nor on its way to the disk."""
        return self._ledger.lacks(journal, number) and number not in self.landing.get(journal, NONE)

    def release(self, contact: Contact) -> None:
        """Nothing is owed by this contact any more."""
        self.loosened += 1
        for journal, ranges in contact.wanting.items():
            self._shrink(self._asked, journal, ranges)
        contact.wanting = {}

    def withdraw(self, contact: Contact, journal: JournalId) -> None:
        """The peer no longer offers some of what it owed."""
        owed = contact.wanting.get(journal, NONE)
        lost = owed - contact.offers.get(journal, NONE)
        if lost:
            self.loosened += 1
            self._shrink(contact.wanting, journal, lost)
            self._shrink(self._asked, journal, lost)

    def delivered(self, contact: Contact, journal: JournalId) -> bool:
        """A receipt of this journal came: what it names is neither offered nor owed by the contact any more. Whether
        that frees it of something it owed."""
        known = self._ledger.journals.get(journal)
        if known is None or journal not in contact.offers:
            return False
        before = contact.wanting.get(journal, NONE)
        contact.set_offer(journal, contact.offers[journal] - known.receipted)
        self.withdraw(contact, journal)
        return contact.wanting.get(journal, NONE) != before

    @classmethod
    def _shrink(cls, table: dict[JournalId, Ranges], journal: JournalId, ranges: Ranges) -> None:
        cls._put(table, journal, table.get(journal, NONE) - ranges)

    @staticmethod
    def _put(table: dict[JournalId, Ranges], journal: JournalId, left: Ranges) -> None:
        if left:
            table[journal] = left
        else:
            table.pop(journal, None)

    # --- decisions ----------------------------------------------------------------------------------------------

    def ask(
        self,
        contact: Contact,
        certified: Iterable[DeviceId],
        room_bytes: int,
        own_room_bytes: int,
        now_s: float,
        *,
        farther: bool = False,
    ) -> list[Wanted]:
        """What to ask of this contact that is asked of nobody yet. `room_bytes`: for others' bundles;
        `own_room_bytes`: for bundles that end here; `farther`: the peer is farther from an office than this node."""
        # When there is room, only what was loosened or is offered since can be asked for that was not the last time.
        is_full = room_bytes < PAYLOAD_SIZE_MAX
        looking = self.loosened + self._ledger.shrunk, contact.grown
        if contact.looked == looking and not is_full:
            return []
        contact.looked = None if is_full or own_room_bytes < PAYLOAD_SIZE_MAX else looking
        rows: list[Wanted] = []
        most = most_copies(self._ledger, self._holders) if is_full else 0
        pairs = 0
        known = set(certified)
        for journal_id, offered in contact.offers.items():
            if len(rows) >= JOURNALS_PER_FRAME or pairs >= PAIRS_PER_FRAME:
                contact.looked = None
                break
            if journal_id in contact.ends and not self._ends_here_too(journal_id):
                continue  # it waits there for the rest of its message, and is of no use anywhere else
            if lacking := self._unasked(contact, journal_id, offered):
                fitting = self._fitting(journal_id, lacking, room_bytes, own_room_bytes)
                if is_full and not fitting and self._is_foreign(journal_id):
                    fitting = better_placed(self._holders, journal_id, lacking, most, farther=farther)
                lacking = first_ranges(fitting)
                if lacking != fitting:
                    contact.looked = None
            if lacking:
                pairs += len(lacking.pairs)
                rows.append(self._assign(contact, journal_id, lacking, known, now_s))
        return rows

    def _is_foreign(self, journal_id: JournalId) -> bool:
        """Whether a journal is known to be carried for others."""
        known = self._ledger.journals.get(journal_id)
        return known is not None and known.source is not None and self._ledger.is_foreign(known)

    def _ends_here_too(self, journal_id: JournalId) -> bool:
        """Whether a journal that ends at the peer ends here as well: both are nodes of one office."""
        known = self._ledger.journals.get(journal_id)
        if known is None or known.source is None:
            return self._ledger.is_office
        return self._ledger.is_for_me(known)

    def _unasked(self, contact: Contact, journal_id: JournalId, offered: Ranges) -> Ranges:
        """What of `offered` is lacking here and asked of nobody. Nothing, mostly, and then it is not worked out again
        while none of what it follows from has changed."""
        known = self._ledger.journals.get(journal_id)
        landing = self.landing.get(journal_id, NONE)
        asked = self._asked.get(journal_id, NONE)
        declined = self.declined.get(journal_id, NONE)
        held, receipted, lost = (known.held, known.receipted, known.lost) if known else (NONE, NONE, NONE)
        follows_from = (offered, held, receipted, lost, landing, asked, declined)
        if contact.nothing_of.get(journal_id) == follows_from:
            return NONE
        lacking = self._ledger.lacking(journal_id, offered) - landing - asked - declined
        if not lacking:
            contact.nothing_of[journal_id] = follows_from
        return lacking

    def _fitting(
        self, journal_id: JournalId, lacking: Ranges, room_bytes: int, own_room_bytes: int
    ) -> Ranges:
        """What of `lacking` there may be room for."""
        journal = self._ledger.journals.get(journal_id)
        if journal is not None and journal.source is not None:
            foreign = self._ledger.is_foreign(journal)
            room = claim(self._ledger, journal.source, room_bytes) if foreign else own_room_bytes
            return lacking if room >= PAYLOAD_SIZE_MAX else NONE
        # Of an unknown journal we cannot tell whose it is: ask if there is room; an office has use for any.
        if (own_room_bytes if self._ledger.is_office else room_bytes) >= PAYLOAD_SIZE_MAX:
            return lacking
        probed = journal_id in self._asked or journal_id in self.landing
        if probed or claim(self._ledger, DeviceId(b""), room_bytes) < PAYLOAD_SIZE_MAX:
            return NONE
        return Ranges.single(lacking.pairs[0][0])

    def _assign(
        self, contact: Contact, journal_id: JournalId, ranges: Ranges, known: set[DeviceId], now_s: float
    ) -> Wanted:
        if not contact.wanting:
            contact.wanting_since_s = now_s
        contact.wanting[journal_id] = contact.wanting.get(journal_id, NONE) | ranges
        self._asked[journal_id] = self._asked.get(journal_id, NONE) | ranges
        journal = self._ledger.journals.get(journal_id)
        certified = journal is not None and journal.source in known
        return Wanted(journal_id, ranges, NONE, certified)

    def take_over(
        self, idle: Contact, others: Iterable[Contact], certified: Iterable[DeviceId], now_s: float
    ) -> tuple[Wanted, Contact, Wanted] | None:
        """Half of what the busiest other contact owes and the idle one holds too: what to ask of the idle one, and
        what to take back from whom."""
        best: tuple[int, Contact, JournalId, Ranges] | None = None
        for other in others:
            if other is idle:
                continue
            stalled = now_s >= other.stalls_s
            for journal_id, owed in other.wanting.items():
                common = owed & idle.offers.get(journal_id, NONE)
                # What is already on its way would come twice.
                share = common if stalled else common.tail((len(common) - other.in_flight) // 2)
                if len(share) >= (1 if stalled else TAKE_OVER_MIN) and (best is None or len(share) > best[0]):
                    best = (len(share), other, journal_id, share)
        if best is None:
            return None
        _, other, journal_id, share = best
        share = first_ranges(share)
        self._shrink(other.wanting, journal_id, share)
        asked = self._assign(idle, journal_id, share, set(certified), now_s)
        return asked, other, Wanted(journal_id, NONE, share, asked.known)

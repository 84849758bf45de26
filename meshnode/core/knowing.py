"""What is known of journals, and how two nodes come to know the same: HAVE, RECEIPT, FINISHED, CERT and FLEET.

After HELLO each side names the journals that have something on offer. With the other's whole list at hand it sends
the receipts that the other lacks, and one digest of all journals that neither has listed. Those are finished, many,
and nearly always equal; only where the digests differ are they compared bucket by bucket.

Receipts and fleet documents carry their own proof, so it does not matter who brings them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from meshnode.core.contact import Contact, first_ranges, have_frames
from meshnode.core.dialing import OFFICE
from meshnode.core.errors import RemoteError
from meshnode.core.fleet import FleetDocument
from meshnode.core.frames import Cert, Elsewhere, Finished, Fleet, Have, Heard, Held, ReceiptFrame, Stored
from meshnode.core.history import DELIVERED
from meshnode.core.identity import Certificate, DeviceId, EndpointId, JournalId, PublicKey
from meshnode.core.intervals import NONE, Ranges
from meshnode.core.ledger import Journal, digest_bytes, digest_total
from meshnode.core.limits import (
    DEVICE_JOURNALS_MAX,
    DEVICE_RANGES_MAX,
    HEARD_MAX,
    HEARD_RANGES_MAX,
    PEER_JOURNALS_MAX,
    RANGES_MAX,
)
from meshnode.core.ports import Adopt
from meshnode.core.receipt import Origin, Receipt, issue_receipt, next_serial
from meshnode.core.rows import NOBODY, DropBundles, PutCertificate, PutReceipt, Row
from meshnode.core.state import Pending, State
from meshnode.core.words import say

#: A receipt that the disk did not take is written again after so long: it is small, and everybody waits for it.
RECEIPT_AGAIN_S: Final = 1.0
#: That somebody brings receipts which nobody here can check is logged once in this time.
UNKNOWN_AGAIN_S: Final = 600.0


class Knowing:
    """Exchanges knowledge with every contact."""

    def __init__(self, state: State) -> None:
        self._state = state
        #: Journals whose newest receipt is on its way to the disk, and those where that failed.
        self._unwritten: set[JournalId] = set()
        self._failed: set[JournalId] = set()
        self._again_s = 0.0
        #: When it was logged last that this bearer's receipts cannot be checked.
        self._told_unknown_s: dict[str, float] = {}

    # --- holdings -----------------------------------------------------------------------------------------------

    def tell_all(self, contact: Contact) -> None:
        """The peer has said HELLO: the fleet document first, then all that we hold."""
        state = self._state
        assert contact.hello is not None
        if contact.hello.fleet_version < state.document.version:
            state.say(contact, Fleet(state.document.body, state.document.signature))
        rows = list(state.ledger.offers())
        contact.listed.update(held.journal for held in rows)
        for frame in have_frames(rows, whole=True):
            state.say(contact, frame)

    def tell_shrunk(self, journal: Journal) -> None:
        """Tell every contact what is left of a journal here."""
        for contact in self._state.greeted:
            for frame in have_frames([self._state.ledger.held(journal)], whole=False):
                self._state.say(contact, frame)

    def have(self, contact: Contact, frame: Have) -> None:
        """The peer says what it holds. Raises RemoteError: more than anybody holds."""
        state = self._state
        answers: list[Held] = []
        for held in frame.journals:
            contact.note_offer(held)
            if held.ranges or not contact.whole:  # of finished ones there may be very many
                contact.serials[held.journal] = max(held.serial, contact.serials.get(held.journal, 0))
            elif held.journal not in state.ledger.journals:
                contact.serials.pop(held.journal, None)
            state.fetching.withdraw(contact, held.journal)
            state.custody.note(held.journal, contact.device, held.ranges)
            self._see(contact, held.journal)
            journal = state.ledger.journals.get(held.journal)
            if not contact.whole:
                contact.listed.add(held.journal)
                if len(contact.listed) > 2 * PEER_JOURNALS_MAX:  # ours and theirs
                    raise RemoteError("HAVE", say("lists more than {most} journals", most=PEER_JOURNALS_MAX))
            elif held.serial > (journal.serial if journal else 0):
                answers.append(state.ledger.held(journal) if journal else Held(held.journal, NONE, 0))
            self.push_receipt(contact, held.journal, held.serial)
        for answer in have_frames(answers, whole=False):
            state.say(contact, answer)
        if frame.whole and not contact.whole:
            contact.whole = True
            state.custody.whole(contact.device, contact.offers)
            state.holders.see_whole(contact.device, contact.offers)
            if state.is_full:
                state.room_grew()  # what is less widely copied may be here now
            self._tell_heard(contact)
            for journal_id in sorted(contact.listed):
                self.push_receipt(contact, journal_id)
            total = digest_total(state.ledger.digest_buckets(contact.listed))
            state.say(contact, Finished(digest_bytes([total])))
        state.to_ask.add(contact.number)

    def finished(self, contact: Contact, frame: Finished) -> None:
        """The peer sums up what neither has listed: answer with the buckets, or with the journals of those buckets
        that differ. Raises RemoteError when it does so again: the answer may be a thousand times as long."""
        state = self._state
        if len(frame.buckets) in contact.summed:
            raise RemoteError("FINISHED", "came again")
        contact.summed.add(len(frame.buckets))
        mine = state.ledger.digest_buckets(contact.listed)
        if len(frame.buckets) == 1:
            if digest_bytes([digest_total(mine)]) != frame.buckets:
                state.say(contact, Finished(digest_bytes(mine)))
            return
        differing = {at for at, digest in enumerate(digest_bytes(mine)) if digest != frame.buckets[at]}
        for answer in have_frames(state.ledger.finished_in(differing, contact.listed), whole=False):
            state.say(contact, answer)

    def stored(self, contact: Contact, frame: Stored) -> None:
        """The peer holds more than before. Raises RemoteError as `have`."""
        state = self._state
        for journal_id, ranges, ends in frame.journals:
            contact.note_stored(journal_id, ranges, ends=ends)
            state.custody.note(journal_id, contact.device, contact.offers.get(journal_id, NONE))
            self._see(contact, journal_id)
        state.to_ask.add(contact.number)

    def _see(self, contact: Contact, journal_id: JournalId) -> None:
        """The peer holds just what it offers of a journal."""
        ranges = contact.offers.get(journal_id, NONE)
        # Where it ends is believed of those alone who could be that.
        ends = journal_id in contact.ends and contact.peer.role == "office"
        holders = self._state.holders
        before = holders.arrived(journal_id)
        holders.see(journal_id, contact.device, ranges, ends=ends)
        if holders.arrived(journal_id) != before and self._state.is_full:
            self._state.room_grew()  # it can be given up for something else

    def _tell_heard(self, contact: Contact) -> None:
        """Tell a peer where else the bundles are that we have on offer: those few that are nearer to an office than we
        are, and so take away what the peer's copy would gain."""
        state = self._state
        devices: dict[DeviceId, list[tuple[JournalId, Ranges]]] = {}
        for journal in state.ledger.journals.values():
            if on_offer := journal.on_offer:
                for device, ranges in state.holders.nearest(journal.id, on_offer, state.away_s):
                    if device != contact.device:
                        devices.setdefault(device, []).append((journal.id, ranges))
        left = HEARD_MAX
        rows: list[Elsewhere] = []
        for away_s, device in sorted((state.encounters.told_s(device), device) for device in devices):
            journals = tuple(row for row in devices[device][:left] if len(row[1].pairs) <= HEARD_RANGES_MAX)
            left -= len(journals)
            if journals:
                rows.append(Elsewhere(device, int(away_s), journals))
        if rows:
            state.say(contact, Heard(tuple(rows)))

    def heard(self, contact: Contact, frame: Heard) -> None:
        """The peer tells of others. What it says of devices that are not known here is nothing to go by, since it might
        invent them; and nobody needs to be told of itself."""
        state = self._state
        for told in frame.devices:
            if told.device == state.identity.device or told.device not in state.certificates:
                continue
            state.encounters.heard(told.device, told.away_s)
            for journal_id, ranges in told.journals:
                if journal_id in state.ledger.journals or journal_id in contact.offers:
                    state.holders.hear(journal_id, told.device, ranges)

    def certificate(self, certificate: Certificate) -> None:
        """Remember a source's certificate; it is kept with the first of its bundles."""
        state = self._state
        if certificate.device not in state.certificates:
            state.certificates[certificate.device] = certificate
            state.unsaved_certificates.add(certificate.device)

    # --- receipts -----------------------------------------------------------------------------------------------

    def presentable(self, journal: Journal) -> Receipt | None:
        """The newest receipt of a journal, if it may be shown to others: it is durable."""
        return None if journal.id in self._unwritten else journal.receipt

    def push_receipt(self, contact: Contact, journal_id: JournalId, theirs: int = 0) -> None:
        """Send the newest receipt of a journal to a peer that knows none, or an older one (it says `theirs`), unless it
        is not durable yet: then all are told when it is."""
        journal = self._state.ledger.journals.get(journal_id)
        if journal is None or journal.receipt is None or journal_id in self._unwritten:
            return
        if max(theirs, contact.serials.get(journal_id, 0)) < journal.serial:
            contact.serials[journal_id] = journal.serial
            device = DeviceId(journal.receipt.endpoint)
            certificate = self._state.certificates.get(device)
            if certificate is not None and contact.certificate_due(device):
                self._state.say(contact, Cert(certificate.der))
            self._state.say(contact, ReceiptFrame(journal.receipt.body, journal.receipt.signature))

    def receipt(self, contact: Contact, receipt: Receipt) -> None:
        """A receipt came. Raises RemoteError as `learn`."""
        if self.learn(receipt, contact.peer.name, contact.device):
            contact.serials[receipt.journal] = max(receipt.serial, contact.serials.get(receipt.journal, 0))

    def learn(self, receipt: Receipt, bearer: str, device: DeviceId = NOBODY) -> bool:
        """Take in a receipt that `bearer` brought, which is `device` if it was met; whether its signer is known here.
        Raises RemoteError: not signed by an endpoint, or not by the journal's own."""
        state = self._state
        signer = self._signer(receipt)
        if signer is None:
            if state.now.s - self._told_unknown_s.get(bearer, -UNKNOWN_AGAIN_S) >= UNKNOWN_AGAIN_S:
                self._told_unknown_s[bearer] = state.now.s
                state.log(f"{bearer} sent a receipt of an endpoint that is not known here", peer=bearer)
            return False
        receipt.verify(signer)
        journal = state.ledger.journals.get(receipt.journal)
        if journal and journal.source is not None and journal.destination != receipt.endpoint:
            raise RemoteError("receipt.endpoint", "is not where its journal goes")
        self._apply(receipt, device)
        self._answer_other_office(receipt)
        return True

    def _signer(self, receipt: Receipt) -> PublicKey | None:
        """Whose receipt it should be: an office's, or a known device's for a journal that goes to it. No more than so
        many of a device, which might invent journals without end, and gaps in them."""
        state = self._state
        endpoint = state.document.endpoint(receipt.endpoint)
        if endpoint is not None:
            return endpoint.signing_key
        certificate = state.certificates.get(DeviceId(receipt.endpoint))
        known = state.ledger.journals.get(receipt.journal)
        fresh = known is None or known.receipt is None
        many = state.ledger.signed_for[receipt.endpoint] >= DEVICE_JOURNALS_MAX
        gappy = len(receipt.ranges.pairs) > DEVICE_RANGES_MAX
        if certificate is None or not receipt.is_bound or gappy or (fresh and many):
            return None
        return certificate.key

    def _answer_other_office(self, receipt: Receipt) -> None:
        """Another node that signs for our endpoint knows less than we both together: say so."""
        journal = self._state.ledger.journals[receipt.journal]
        ours = receipt.endpoint in self._state.endpoints
        if ours and journal.receipt is not None and not journal.receipted <= journal.receipt.ranges:
            self.deliver(journal.id, NONE)

    def deliver(self, journal_id: JournalId, ranges: Ranges) -> None:
        """The sink has taken these: sign for them, together with all that was signed for before."""
        state = self._state
        journal = state.ledger.journals.get(journal_id)
        if journal is None or journal.source is None or journal.destination not in state.endpoints:
            return
        serial = next_serial(journal.serial, state.settings.epoch)
        wall_ms = max(0, state.now.wall_ms)
        # What is beyond so many gaps is signed for when they have closed; only a source that leaves them waits.
        is_device = journal.destination == state.identity.device
        signed = first_ranges(journal.receipted | ranges, DEVICE_RANGES_MAX if is_device else RANGES_MAX)
        if journal.receipt is not None and signed <= journal.receipt.ranges:
            return
        endpoint = EndpointId(journal.destination)
        origin = Origin(journal.source, journal.epoch) if is_device else None
        key = state.endpoints[endpoint]
        self._count(journal, signed - journal.receipted)
        receipt = issue_receipt(key, endpoint, journal_id, serial, signed, wall_ms, origin)
        self._apply(receipt, state.identity.device)

    def _count(self, journal: Journal, fresh: Ranges) -> None:
        """Write down how long the messages took that have just been handed on."""
        state = self._state
        if not state.is_office(journal.destination):
            return
        for number in fresh & journal.held:
            entry = journal.entries[number]
            if entry.first == number:
                size = journal.entries.size_of(Ranges.span(number, number + entry.parts - 1))
                state.history.handed_on(size, state.now.s - entry.born_s)

    def _apply(self, receipt: Receipt, bearer: DeviceId) -> None:
        """Keep a receipt and free what it frees; it is passed on once that is durable."""
        state = self._state
        known = state.ledger.journals.get(receipt.journal)
        fresh = receipt.ranges - known.receipted if known is not None else NONE
        droppable = state.ledger.apply(receipt, state.now.s)
        if droppable is None:
            return
        journal = state.ledger.journals[receipt.journal]
        if journal.source is not None:
            mine = state.ledger.is_mine(journal)
            state.history.now(journal.id, DELIVERED, bearer, fresh, mine=mine)
        rows: list[Row] = []
        if journal.receipt is receipt:
            signer = DeviceId(receipt.endpoint)
            if signer in state.unsaved_certificates:
                rows.append(PutCertificate(state.certificates[signer]))
            rows.append(PutReceipt(receipt, state.now.s))
            self._unwritten.add(journal.id)
        for contact in state.contacts.values():
            if state.fetching.delivered(contact, journal.id):
                state.to_ask.add(contact.number)
        if droppable:
            rows.append(DropBundles(journal.id, state.ledger.drop(journal, droppable)))
            state.room_grew()
        state.write(tuple(rows), Pending(receipts=[receipt]))

    def written(self, receipts: Iterable[Receipt]) -> None:
        """These are durable: pass them on."""
        state = self._state
        for receipt in receipts:
            journal = state.ledger.journals[receipt.journal]
            state.unsaved_certificates.discard(DeviceId(receipt.endpoint))
            if journal.receipt is receipt:
                self._unwritten.discard(journal.id)
            for contact in state.greeted:
                self.push_receipt(contact, journal.id)

    @property
    def has_failed(self) -> bool:
        """Whether a receipt waits to be written again."""
        return bool(self._failed)

    def failed(self, receipts: Iterable[Receipt]) -> None:
        """The disk did not take these: try again later (`tick`)."""
        self._failed.update(receipt.journal for receipt in receipts)
        self._again_s = self._state.now.s + RECEIPT_AGAIN_S

    def tick(self) -> None:
        """Write again what could not be written."""
        state = self._state
        if state.now.s < self._again_s:
            return
        for journal_id in sorted(self._failed):
            receipt = state.ledger.journals[journal_id].receipt
            if receipt is not None and journal_id in self._unwritten:
                state.write((PutReceipt(receipt, state.now.s),), Pending(receipts=[receipt]))
        self._failed.clear()

    # --- the fleet document -------------------------------------------------------------------------------------

    def adopt(self, document: FleetDocument) -> None:
        """Follow a newer fleet document, and pass it on; not one that takes revocations back."""
        state = self._state
        if document.version <= state.document.version:
            return
        if document.forgives(state.document):
            if document.version != state.forgiving_version:
                state.log(
                    f"version {document.version} of the fleet document takes revocations back: not followed"
                )
            state.forgiving_version = document.version
            return
        state.forgiving_version = 0
        state.document = document
        state.effects.append(Adopt(document))
        state.log(f"the fleet document is now version {document.version}")
        self.dial_offices()
        for contact in state.greeted:
            state.say(contact, Fleet(document.body, document.signature))

    def dial_offices(self) -> None:
        """Try the office's addresses, unless this is the office."""
        state = self._state
        addresses: set[str] = set()
        if state.identity.office is None:
            addresses = {a for endpoint in state.document.endpoints for a in endpoint.addresses}
        state.dialing.replace(OFFICE, addresses, state.now.s)

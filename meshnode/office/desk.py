"""The office's desk: it looks at journals, hands on what is whole, and says what the sink has taken.

One message at a time, in a worker thread that is never abandoned: cancelling `run` ends it between two messages. What
the sink has taken is told in small batches, so that receipts flow while a large backlog is worked off. Nothing here
needs to be durable: a desk that starts again looks at every journal, and the sink knows by the key what it has.

A message that the sink cannot take now is put off, behind all others: one that is too large for what the disk has free
does not hold up the small ones. Then the desk rests, longer each time until something is taken. The store keeps
all that waits.

A source's first bundle names the journal before it. Two journals after the same one mean that the device's store was
restored from a copy, so that records may be missing or have two numbers: the office is told, and delivers both. That
is kept with the journal, so that it is known after a restart too, when that bundle has long been let go of.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Final, Protocol, TypeVar

import trio

from meshnode.core.bundle import Previous, read_header
from meshnode.core.errors import RemoteError, StoreTrouble
from meshnode.core.identity import Certificate, DeviceId, JournalId
from meshnode.core.intervals import NONE, Pair, Ranges
from meshnode.core.ledger import Journal
from meshnode.core.sealing import SealingKey
from meshnode.core.state import State
from meshnode.core.submitting import message_key
from meshnode.office.opening import Message, NotWhole, Read, open_message
from meshnode.office.reassembly import gaps, inconsistent, restored_devices, whole_messages
from meshnode.office.sinks import Never, NotNow, Sink

#: Messages that one call of `on_taken` tells of at most.
BATCH: Final = 64
REST_FIRST_S: Final = 1.0
REST_MAX_S: Final = 300.0
REVOKED: Final = "the source device was revoked"

T = TypeVar("T")


class RunSync(Protocol):
    """Runs what blocks: `trio.to_thread.run_sync`, or a stand-in where tests own the clock."""

    def __call__(self, sync_fn: Callable[[], T], /) -> Awaitable[T]:
        """The function's result; not to be cancelled while it runs."""


class Desk:
    """Hands on the messages of one endpoint, whose sealing keys are `keys` (by `key_id`).

    `refuses`: why messages of a source are put aside without being opened; None for those that are welcome.
    `state` is read only, and only in trio's thread; `read` and `sink` are called in worker threads. In trio's thread,
    between events of the brain, and also while `run` is being cancelled, are called: `on_taken` with numbers of whole
    messages that the sink has durably; `on_rotten` with a bundle that the store should have and does not give back as
    it came, so that it is fetched again; `log` with a line that names no content.
    """

    def __init__(
        self,
        state: State,
        endpoint: bytes,
        keys: Mapping[bytes, SealingKey],
        sink: Sink,
        read: Read,
        on_taken: Callable[[JournalId, Ranges], None],
        log: Callable[[str], None],
        *,
        refuses: Callable[[Certificate], str | None] = lambda source: None,
        on_rotten: Callable[[JournalId, int], None] | None = None,
        run_sync: RunSync = trio.to_thread.run_sync,
    ) -> None:
        self._state = state
        self._endpoint = endpoint
        self._refuses = refuses
        self._keys = keys
        self._sink = sink
        self._read = read
        self._on_taken = on_taken
        self._on_rotten = on_rotten
        self._log = log
        self._run_sync = run_sync
        #: What keeps the sink from taking messages; None if nothing does.
        self.problem: str | None = None
        self._restored: dict[tuple[DeviceId, JournalId], str] = {}
        self._queue: dict[JournalId, None] = {}
        self._woken = trio.Event()
        self._rest_s = REST_FIRST_S
        self._put_off: set[tuple[JournalId, int]] = set()
        #: Done with, until the ledger knows the receipt.
        self._taken: dict[JournalId, Ranges] = {}
        self._refused: dict[JournalId, dict[Pair, str]] = {}
        self._inconsistent: dict[JournalId, Ranges] = {}
        self._previous: dict[JournalId, tuple[DeviceId, Previous | None]] = {}

    # --- what others ask ----------------------------------------------------------------------------------------

    def wake(self, journal: JournalId) -> None:
        """Bundles of this journal have come. Does not end a rest."""
        self._queue[journal] = None
        self._woken.set()

    @property
    def quarantined(self) -> dict[str, str]:
        """What is kept and never handed on, and why: messages by their key; numbers that contradict each other by
        `<journal id in hex>:<ranges>`. A start of the daemon tries each once more."""
        found: dict[str, str] = {}
        for journal_id, refused in self._refused.items():
            done = self._state.ledger.journals[journal_id].receipted  # by another node of this office
            for (first, _), reason in refused.items():
                if first not in done:
                    found[message_key(journal_id, first)] = reason
        for journal_id, ranges in self._inconsistent.items():
            found[f"{journal_id.hex()}:{ranges}"] = "its bundles contradict each other"
        return found

    def gaps(self) -> dict[JournalId, Ranges]:
        """Of each journal for this office: what is known to exist and has not come yet."""
        ledger = self._state.ledger
        last: dict[JournalId, int] = {}
        for source, previous in self._previous.values():
            journal = ledger.journals.get(previous.journal) if previous else None
            if previous and journal and journal.source == source:
                last[journal.id] = max(previous.last, last.get(journal.id, 0))
        found = {
            journal.id: gaps(journal, last.get(journal.id, 0))
            for journal in ledger.journals.values()
            if journal.destination == self._endpoint
        }
        return {journal_id: missing for journal_id, missing in found.items() if missing}

    # --- working ------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Work until cancelled."""
        for journal in self._state.ledger.journals.values():
            self._queue[journal.id] = None
        while True:
            if not self._queue and self._put_off:
                self._queue.update((journal_id, None) for journal_id, _ in sorted(self._put_off))
                self._put_off.clear()
            if not self._queue:
                self._set_problem(None)
                self._woken = trio.Event()
                await self._woken.wait()
            journal_id = next(iter(self._queue))
            del self._queue[journal_id]
            if not await self._look(journal_id):
                self._queue[journal_id] = None
                await trio.sleep(self._rest_s)
                self._rest_s = min(2 * self._rest_s, REST_MAX_S)

    async def _look(self, journal_id: JournalId) -> bool:
        """Hand on what is whole of one journal. False if the sink said 'not now'."""
        journal = self._state.ledger.journals.get(journal_id)
        if journal is None or journal.destination != self._endpoint:
            return True
        await self._note_previous(journal)
        self._note_inconsistent(journal)
        taken: list[Pair] = []
        try:
            for span in whole_messages(journal, self._done(journal)):
                if (journal_id, span[0]) in self._put_off:
                    continue
                if await self._hand_on(journal, span):
                    taken.append(span)
                if len(taken) >= BATCH:
                    self._tell(journal_id, taken)
        except NotNow as problem:
            self._set_problem(str(problem))
            return False
        finally:
            self._tell(journal_id, taken)
        return True

    def _done(self, journal: Journal) -> Ranges:
        """What is not to be opened (again)."""
        waiting = self._taken.pop(journal.id, NONE) - journal.receipted
        if waiting:
            self._taken[journal.id] = waiting
        return waiting | Ranges(self._refused.get(journal.id, ()))

    def _tell(self, journal_id: JournalId, taken: list[Pair]) -> None:
        if taken:
            ranges = Ranges(taken)
            taken.clear()
            self._taken[journal_id] = self._taken.get(journal_id, NONE) | ranges
            self._on_taken(journal_id, ranges)

    async def _hand_on(self, journal: Journal, span: Pair) -> bool:
        """Whether the sink has taken this message. Raises NotNow."""
        first, last = span
        if not journal.on_offer.covers(first, last):
            return False  # another node of this office was faster
        assert journal.source is not None
        source = self._state.certificates[journal.source]
        held = REVOKED if journal.source in self._state.document.revoked else None
        message = Message(journal.id, first, last, source, held)
        try:
            if reason := self._refuses(source):
                raise Never(reason)
            await self._run_sync(partial(open_message, message, self._read, self._keys, self._sink))
        except NotNow:
            self._put_off.add((journal.id, first))
            raise
        except Never as refusal:
            self._refused.setdefault(journal.id, {})[span] = str(refusal)
            self._log(f"message {message.key} of {source.name} is quarantined; the status says why")
            return False
        except NotWhole as gone:
            if self._on_rotten is not None and gone.number in journal.on_offer:
                self._on_rotten(journal.id, gone.number)
            return False
        self._rest_s = REST_FIRST_S
        if not self._put_off:
            self._set_problem(None)
        return True

    def _set_problem(self, problem: str | None) -> None:
        if problem != self.problem:
            self.problem = problem
            self._log("messages are handed on again" if problem is None else f"messages wait here: {problem}")

    # --- what is odd --------------------------------------------------------------------------------------------

    def _note_inconsistent(self, journal: Journal) -> None:
        found = inconsistent(journal)
        if found != self._inconsistent.get(journal.id, NONE):
            self._log(f"journal {journal.id.hex()} has bundles that contradict each other: {found}")
        if found:
            self._inconsistent[journal.id] = found
        else:
            self._inconsistent.pop(journal.id, None)

    async def _note_previous(self, journal: Journal) -> None:
        """Learn from a journal's first bundle which one came before it."""
        if journal.id in self._previous or journal.source is None:
            return
        source, previous = journal.source, journal.previous
        if previous is None and 1 not in journal.on_offer:
            return
        if previous is None:  # there is none, or it came before stores kept it
            try:
                previous = await self._run_sync(partial(_read_previous, self._read, journal.id))
            except (RemoteError, StoreTrouble, NotWhole):
                return  # opening it will say so
        self._previous[journal.id] = source, previous
        if previous is not None:
            self._note_restored(source, previous.journal)

    def _note_restored(self, source: DeviceId, predecessor: JournalId) -> None:
        claims = [
            (journal_id, source, previous)
            for journal_id, (author, previous) in self._previous.items()
            if author == source and previous is not None and previous.journal == predecessor
        ]
        for found in restored_devices(claims):
            certificate = self._state.certificates.get(source)
            text = (
                f"restored device: the store of {certificate.name if certificate else source.hex()} seems to be a"
                f" copy of an older one, since more than one journal follows {found.predecessor.hex()}; what it wrote"
                " after the copy was made may be missing. Ask its officer what was recorded that is not here, and"
                " whether two machines use one home. Then enroll that device anew and revoke its old key, which ends"
                " this alarm."
            )
            if (source, predecessor) not in self._restored:
                self._restored[source, predecessor] = text
                self._log(text)

    @property
    def restored(self) -> list[str]:
        """A sentence for each device that seems to have been restored from a copy, and is still a member."""
        revoked = self._state.document.revoked
        return [text for (source, _), text in self._restored.items() if source not in revoked]


def _read_previous(read: Read, journal: JournalId) -> Previous | None:
    """What bundle 1 names. Raises RemoteError, StoreTrouble or NotWhole."""
    stored = read(journal, 1)
    if stored is None:
        raise NotWhole(journal, 1)
    return read_header(stored.header).previous

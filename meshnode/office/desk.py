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
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol, TypeVar

import trio

from meshnode.core.bundle import Previous, read_header
from meshnode.core.errors import LocalError, RemoteError, StoreTrouble, bare
from meshnode.core.identity import Certificate, DeviceId, JournalId
from meshnode.core.intervals import NONE, Pair, Ranges
from meshnode.core.ledger import Journal
from meshnode.core.sealing import SealingKey
from meshnode.core.state import State
from meshnode.core.submitting import message_key
from meshnode.core.words import Said, Words, say
from meshnode.office.opening import Message, NotWhole, Read, open_message
from meshnode.office.reassembly import gaps, inconsistent, restored_devices, whole_messages
from meshnode.office.sinks import Never, NotNow, Sink

#: Messages that one call of `on_taken` tells of at most.
BATCH: Final = 64
REST_FIRST_S: Final = 1.0
REST_MAX_S: Final = 300.0
REVOKED: Final = "the source device was revoked"
#: Why a message is put aside: its source may not write here; the sink refuses it; what was signed is no message; or its
#: numbers contradict those of another one.
UNWELCOME, REFUSED, UNREADABLE, CONTRADICTS = "unwelcome", "refused", "unreadable", "contradicts"
#: So long is waited for what becomes of a message that is tried again.
RETRY_S: Final = 10.0
#: What may have become of it.
DELIVERED, QUARANTINED, WAITING = "delivered", "quarantined", "waiting"

T = TypeVar("T")


class NotQuarantined(LocalError):
    """No message {key} is kept apart here, so there is nothing to try again."""


@dataclass(frozen=True, slots=True)
class SetAside:
    """Bundles `first` to `last` of a journal that are kept and never handed on, why, and when that was decided by the
    wall clock of this process. `code`: UNWELCOME or another of these."""

    journal: JournalId
    first: int
    last: int
    reason: Never | Words
    code: str
    at_ms: int


@dataclass(slots=True)
class _Retry:
    """Somebody waits for what becomes of a message."""

    done: trio.Event
    taken: bool = False


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
    it came, so that it is fetched again; `log` with a line that names no content, and its fields by name.
    """

    def __init__(
        self,
        state: State,
        endpoint: bytes,
        keys: Mapping[bytes, SealingKey],
        sink: Sink,
        read: Read,
        on_taken: Callable[[JournalId, Ranges], None],
        log: Callable[..., None],
        *,
        refuses: Callable[[Certificate], Said | None] = lambda source: None,
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
        self.problem: NotNow | None = None
        self._restored: dict[tuple[DeviceId, JournalId], Words] = {}
        self._queue: dict[JournalId, None] = {}
        self._woken = trio.Event()
        self._rest_s = REST_FIRST_S
        self._put_off: set[tuple[JournalId, int]] = set()
        #: Done with, until the ledger knows the receipt.
        self._taken: dict[JournalId, Ranges] = {}
        self._refused: dict[JournalId, dict[Pair, SetAside]] = {}
        self._retried: dict[tuple[JournalId, int], _Retry] = {}
        self._inconsistent: dict[JournalId, Ranges] = {}
        self._previous: dict[JournalId, tuple[DeviceId, Previous | None]] = {}

    # --- what others ask ----------------------------------------------------------------------------------------

    def wake(self, journal: JournalId) -> None:
        """Bundles of this journal have come. Does not end a rest."""
        self._queue[journal] = None
        self._woken.set()

    @property
    def quarantined(self) -> dict[str, Never | Words]:
        """What is kept and never handed on, and why: messages by their key; numbers that contradict each other by
        `<journal id in hex>:<ranges>`. A start of the daemon tries each once more."""
        found = {message_key(it.journal, it.first): it.reason for it in self.refused()}
        for journal_id, ranges in self._inconsistent.items():
            found[f"{journal_id.hex()}:{ranges}"] = say("its bundles contradict each other")
        return found

    def refused(self) -> list[SetAside]:
        """Messages that are kept and not handed on, each with the reason."""
        found: list[SetAside] = []
        for journal_id, refused in self._refused.items():
            done = self._state.ledger.journals[journal_id].receipted  # by another node of this office
            found.extend(it for (first, _), it in refused.items() if first not in done)
        return found

    def contradictions(self) -> list[SetAside]:
        """Numbers that contradict each other, so that nobody can tell which message they are."""
        reason = say("its bundles contradict each other")
        return [
            SetAside(journal_id, first, last, reason, CONTRADICTS, self._state.now.wall_ms)
            for journal_id, ranges in self._inconsistent.items()
            for first, last in ranges.pairs
        ]

    async def retry(self, key: str) -> str:
        """Hand a message that was put aside to the sink again, before all others; what became of it: DELIVERED,
        QUARANTINED, or WAITING if that is not known within RETRY_S. Raises NotQuarantined."""
        found = next((it for it in self.refused() if message_key(it.journal, it.first) == key), None)
        if found is None:
            raise NotQuarantined(key=key)
        del self._refused[found.journal][found.first, found.last]
        place = found.journal, found.first
        retry = self._retried[place] = _Retry(trio.Event())
        self._queue = {found.journal: None, **self._queue}
        self._woken.set()
        with trio.move_on_after(RETRY_S):
            await retry.done.wait()
        if self._retried.get(place) is retry:
            del self._retried[place]
        if retry.taken:
            return DELIVERED
        is_back = (found.first, found.last) in self._refused.get(found.journal, {})
        return QUARANTINED if is_back else WAITING

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
                if await self._try(journal, span):
                    taken.append(span)
                if len(taken) >= BATCH:
                    self._tell(journal_id, taken)
        except NotNow as problem:
            self._set_problem(problem)
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

    async def _try(self, journal: Journal, span: Pair) -> bool:
        """As `_hand_on`; whoever waits for that is told."""
        taken = False
        try:
            taken = await self._hand_on(journal, span)
        finally:
            if retry := self._retried.pop((journal.id, span[0]), None):
                retry.taken = taken
                retry.done.set()
        return taken

    async def _hand_on(self, journal: Journal, span: Pair) -> bool:
        """Whether the sink has taken this message. Raises NotNow."""
        first, last = span
        if not journal.on_offer.covers(first, last):
            return False  # another node of this office was faster
        assert journal.source is not None
        source = self._state.certificates[journal.source]
        held = REVOKED if journal.source in self._state.document.revoked else None
        message = Message(journal.id, first, last, source, held)
        code = UNWELCOME
        try:
            if reason := self._refuses(source):
                raise Never(reason)
            code = REFUSED
            await self._run_sync(partial(open_message, message, self._read, self._keys, self._sink))
        except NotNow:
            self._put_off.add((journal.id, first))
            raise
        except Never as refusal:
            if isinstance(refusal.__cause__, RemoteError):
                code = UNREADABLE
            at_ms = self._state.now.wall_ms
            aside = SetAside(journal.id, first, last, bare(refusal), code, at_ms)
            self._refused.setdefault(journal.id, {})[span] = aside
            said = f"message {message.key} of {source.name} is quarantined; the status says why"
            self._log(said, key=message.key, peer=source.name)
            return False
        except NotWhole as gone:
            if self._on_rotten is not None and gone.number in journal.on_offer:
                self._on_rotten(journal.id, gone.number)
            return False
        self._rest_s = REST_FIRST_S
        if not self._put_off:
            self._set_problem(None)
        return True

    def _set_problem(self, problem: NotNow | None) -> None:
        is_news = str(problem) != str(self.problem)
        self.problem = problem and bare(problem)
        if is_news:
            self._log("messages are handed on again" if problem is None else f"messages wait here: {problem}")

    # --- what is odd --------------------------------------------------------------------------------------------

    def _note_inconsistent(self, journal: Journal) -> None:
        found = inconsistent(journal)
        if found != self._inconsistent.get(journal.id, NONE):
            said = f"journal {journal.id.hex()} has bundles that contradict each other: {found}"
            self._log(said, journal=journal.id.hex())
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
            text = say(
                "restored device: the store of {name} seems to be a copy of an older one, since more than one journal"
                " follows {journal}; what it wrote after the copy was made may be missing. Ask its officer what was"
                " recorded that is not here, and whether two machines use one home. Then enroll that device anew and"
                " revoke its old key, which ends this alarm.",
                name=certificate.name if certificate else source.hex(),
                journal=found.predecessor.hex(),
            )
            if (source, predecessor) not in self._restored:
                self._restored[source, predecessor] = text
                self._log(str(text))

    @property
    def restored_devices(self) -> set[DeviceId]:
        """The devices that `restored` has a sentence for."""
        revoked = self._state.document.revoked
        return {source for source, _ in self._restored if source not in revoked}

    @property
    def restored(self) -> list[Words]:
        """A sentence for each device that seems to have been restored from a copy, and is still a member."""
        revoked = self._state.document.revoked
        return [text for (source, _), text in self._restored.items() if source not in revoked]


def _read_previous(read: Read, journal: JournalId) -> Previous | None:
    """What bundle 1 names. Raises RemoteError, StoreTrouble or NotWhole."""
    stored = read(journal, 1)
    if stored is None:
        raise NotWhole(journal, 1)
    return read_header(stored.header).previous

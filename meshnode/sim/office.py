"""The office, and whom it writes to, in a simulation: the real reassembly and opening, and a sink that can be told to
fail.

`SimDesk` does in one action what `office.desk` does in worker threads: it hands on what is whole of a journal, and then
says what was taken. The power may go off between the two. All office nodes of a run share one sink, as they would
share a database.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, cast

from meshnode.core.identity import JournalId
from meshnode.core.intervals import NONE, Pair, Ranges
from meshnode.core.ledger import Journal
from meshnode.core.message import Manifest
from meshnode.core.node import Node
from meshnode.core.ports import Taken, Unreadable
from meshnode.core.sealing import SealingKey
from meshnode.office.opening import Message, NotWhole, open_message
from meshnode.office.reassembly import whole_messages
from meshnode.office.sinks import Envelope, Never, NotNow
from meshnode.sim.engine import Timer
from meshnode.sim.machine import Machine
from meshnode.sim.standins import StandInSeal

#: What handing on a journal's messages takes.
WORK_S: Final = 0.05
REST_FIRST_S: Final = 1.0
REST_MAX_S: Final = 300.0
REVOKED: Final = "the source device was revoked"

OnTaken = Callable[[Envelope, Manifest, list[bytes]], None]


class SimSink:
    """Takes each message once, by its key, unless it is told to fail. `on_taken` sees what it takes."""

    def __init__(self, on_taken: OnTaken = lambda envelope, manifest, files: None) -> None:
        self.taken: set[str] = set()
        #: Why it takes nothing now.
        self.problem: str | None = None
        #: It says 'not now' at the end of so many messages more, when all was written.
        self.commits_to_fail = 0
        #: References of messages that it never takes.
        self.unwanted: set[str] = set()
        #: Keys that it has refused for ever.
        self.refused: set[str] = set()
        self._on_taken = on_taken

    def begin(self, envelope: Envelope, manifest: Manifest) -> Delivery | None:
        """As `office.sinks.Sink`."""
        if self.problem is not None:
            raise NotNow(self.problem)
        if manifest.reference in self.unwanted:
            self.refused.add(envelope.key)
            raise Never("nobody wants it")
        if envelope.key in self.taken:
            return None
        return Delivery(self, envelope, manifest)

    def take(self, envelope: Envelope, manifest: Manifest, files: list[bytes]) -> None:
        """All of a message is here: take it for good, or fail."""
        if self.commits_to_fail > 0:
            self.commits_to_fail -= 1
            raise NotNow("its disk is full")
        self.taken.add(envelope.key)
        self._on_taken(envelope, manifest, files)


class Delivery:
    """As `office.sinks.Delivery`."""

    def __init__(self, sink: SimSink, envelope: Envelope, manifest: Manifest) -> None:
        self._sink = sink
        self._envelope = envelope
        self._manifest = manifest
        self._files = [bytearray() for _ in manifest.files]

    def write(self, index: int, data: bytes | memoryview) -> None:
        """The next bytes of a file."""
        self._files[index] += data

    def commit(self) -> None:
        """Take it."""
        self._sink.take(self._envelope, self._manifest, [bytes(file) for file in self._files])

    def abort(self) -> None:
        """Forget it."""


class SimDesk:
    """The desk of one endpoint on one machine."""

    def __init__(self, machine: Machine, endpoint: bytes, seal: StandInSeal, sink: SimSink) -> None:
        self.machine = machine
        self._endpoint = endpoint
        #: Bundles opened here.
        self.opened = 0
        #: The power goes off when the sink has taken so many more, before anybody is told.
        self.kill_after: int | None = None
        self._seal = seal
        self._keys = cast("Mapping[bytes, SealingKey]", {seal.key_id: seal})
        self._sink = sink
        self._node: Node | None = None
        self._queue: dict[JournalId, None] = {}
        self._put_off: set[tuple[JournalId, int]] = set()
        self._done: dict[JournalId, Ranges] = {}
        self._rest_s = REST_FIRST_S
        self._timer: Timer | None = None

    def wake(self, journal: JournalId) -> None:
        """Bundles of this journal have come, or the node has just started."""
        if self.machine.node is not self._node:
            self._start_again()
        self._queue[journal] = None
        self._work_in(WORK_S)

    def _start_again(self) -> None:
        """What the desk knows lives as long as its process."""
        self._node = self.machine.node
        self._queue.clear()
        self._put_off.clear()
        self._done.clear()
        self._rest_s = REST_FIRST_S
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _work_in(self, delay_s: float) -> None:
        if self._timer is None:
            self._timer = self.machine.engine.after(delay_s, self._work)

    def _work(self) -> None:
        self._timer = None
        node = self.machine.node
        if node is None or node is not self._node:
            return
        if not self._queue:
            self._queue.update((journal, None) for journal, _ in sorted(self._put_off))
            self._put_off.clear()
        if not self._queue:
            return
        journal_id = next(iter(self._queue))
        del self._queue[journal_id]
        journal = node.state.ledger.journals[journal_id]
        if journal.destination != self._endpoint or self._look(node, journal):
            self._work_in(WORK_S)
        else:
            self._queue[journal_id] = None
            self._work_in(self._rest_s)
            self._rest_s = min(2 * self._rest_s, REST_MAX_S)

    def _look(self, node: Node, journal: Journal) -> bool:
        """Hand on what is whole of one journal, and say what was taken. False if the sink said 'not now'."""
        taken: list[Pair] = []
        go_on = True
        for span in whole_messages(journal, self._done.get(journal.id, NONE)):
            if (journal.id, span[0]) in self._put_off:
                continue
            try:
                if self._hand_on(node, journal, span):
                    taken.append(span)
                    self._rest_s = REST_FIRST_S
            except NotNow:
                self._put_off.add((journal.id, span[0]))
                go_on = False
                break
            if self.kill_after == 0:
                self.kill_after = None
                self.machine.lose_power()
                return True
        if taken:
            self._finish(journal.id, Ranges(taken))
            self.machine.dispatch(Taken(journal.id, Ranges(taken)))
        return go_on

    def _finish(self, journal: JournalId, ranges: Ranges) -> None:
        self._done[journal] = self._done.get(journal, NONE) | ranges

    def _hand_on(self, node: Node, journal: Journal, span: Pair) -> bool:
        """Whether the sink has this message. Raises NotNow."""
        first, last = span
        if not journal.on_offer.covers(first, last):
            return False  # another node of this office was faster
        assert journal.source is not None
        source = node.state.certificates[journal.source]
        held = REVOKED if journal.source in node.state.document.revoked else None
        before, had = self._seal.opened, len(self._sink.taken)
        try:
            message = Message(journal.id, first, last, source, held)
            open_message(message, self.machine.store.read, self._keys, self._sink)
        except Never:
            self._finish(journal.id, Ranges.span(first, last))
            return False
        except NotWhole as gone:
            rotten = Unreadable(0, journal.id, gone.number, 0, rotten=True)
            self.machine.engine.after(0.0, lambda: self.machine.dispatch(rotten))
            return False
        finally:
            self.opened += self._seal.opened - before
        if self.kill_after is not None and len(self._sink.taken) > had:
            self.kill_after -= 1
        return True

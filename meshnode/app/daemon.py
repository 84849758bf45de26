"""The daemon: the one place where the brain meets its sockets, its disk and its clock.

`dispatch` gives the brain an event and carries out what it answers; it never waits. Everything that waits is a task:
links, dials, the writer, the office's desk, discovery, the ticker and the control interface. The writer outlives all
the others, so that whatever was promised on the way down is still written.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Final, assert_never

import trio

from meshnode.app import report
from meshnode.app.addresses import Address, parse_address
from meshnode.app.answers import Verdicts
from meshnode.app.carrying import Carrying
from meshnode.app.config import Config
from meshnode.app.desks import Desks
from meshnode.app.door import Door
from meshnode.app.finding import Finding
from meshnode.app.home import Home, Membership
from meshnode.app.keeping import KeptDocument
from meshnode.app.kinds import Kinds
from meshnode.app.links import Links
from meshnode.app.logs import Grumbles
from meshnode.app.outside import Outside, Sockets, allow_files, credentials_of, identity_of
from meshnode.app.received import Inbox
from meshnode.app.space import DiskSpace
from meshnode.app.submissions import Submissions
from meshnode.app.tally import Tally, TimedStore
from meshnode.app.uplink import BUDGET_FILE, Uplink
from meshnode.app.writing import endpoint_of
from meshnode.core.bundle import EPOCH_SIZE
from meshnode.core.errors import MeshnodeError
from meshnode.core.fleet import Endpoint, FleetDocument
from meshnode.core.identity import Certificate, JournalId
from meshnode.core.intervals import Ranges
from meshnode.core.node import Node
from meshnode.core.ports import (
    NO_CONTACT,
    Accepted,
    Adopt,
    Arrived,
    Brought,
    Close,
    Dial,
    DialFailed,
    DocumentGiven,
    Effect,
    Event,
    Gateways,
    Instant,
    Log,
    Lost,
    NetworkChanged,
    Opened,
    Refused,
    Send,
    SendBundle,
    Sighted,
    SubmissionOpened,
    Taken,
    Tick,
    Unreadable,
    Write,
    WriteFailed,
    Written,
)
from meshnode.core.rows import StoredBundle
from meshnode.core.sealing import Drawer
from meshnode.core.state import Settings
from meshnode.drivers.dnssd import Announcement
from meshnode.drivers.sqlite import SqliteStore
from meshnode.drivers.tls import NoContact, Tls
from meshnode.drivers.writer import Writer

log: Final = logging.getLogger("meshnode")

#: The ticker turns at least so often, to notice that the machine was suspended. Few enough for a battery.
TURN_MAX_S: Final = 30.0
#: A machine that was suspended for longer has other neighbours, and peers who have given it up.
ASLEEP_S: Final = 5.0

#: A task that says when it is ready.
Service = Callable[..., Awaitable[None]]


def _note(text: str, **fields: str) -> None:
    """A line of the log; the fields are for a log of JSON."""
    log.info(text, extra=fields)


class Daemon:
    """One running node on one home. Make it with `open_daemon`."""

    def __init__(
        self,
        home: Home,
        membership: Membership,
        config: Config,
        store: SqliteStore,
        port: int,
        outside: Outside,
        tls: Tls | None,
    ) -> None:
        self.home = home
        self._outside = outside
        self._uplink = (
            None if tls is None else Uplink(tls, config.uplink, home.path / BUDGET_FILE, lambda: self.now().s)
        )
        self.drawer = Drawer(membership.key.derive(b"labels"))
        self._config = config
        self.language = config.language
        self._store = store
        self._links = Links(outside, store.read, self.dispatch, self._uplink)
        #: How many events there were, for whoever asks whether anything may have changed.
        self.turns = 0
        self._door = Door()
        self._grumble = Grumbles(trio.current_time)
        self._space = DiskSpace(home, store, outside, config.store.floor_bytes)
        self._kept = KeptDocument(home, membership.document.version, self._grumble)
        self._retick = trio.Event()
        snapshot = store.load()
        self._clock_base_s = snapshot.clock_s - trio.current_time()
        self.tally = Tally()
        timed = TimedStore(store, self.tally.commits)
        self._writer = Writer(timed, lambda: self.now().s, outside.run_sync)
        self.submissions = Submissions(
            self.dispatch,
            self._writer,
            Kinds(config.kinds.paths(home.path), check=config.kinds.check),
            outside.run_sync,
        )
        settings = Settings(
            epoch=outside.entropy(EPOCH_SIZE),
            port=port,
            foreign_quota_bytes=config.store.quota_bytes(membership.certificate.role),
            peers=tuple(map(str, config.peers)),
            sealing_key=membership.sealing_key.public,
            day_offset_s=time.localtime().tm_gmtoff,
        )
        self.node = Node(identity_of(membership), settings, snapshot, self.now())
        self.carrying = self._make_carrying()
        self.verdicts = Verdicts(self.node.state, self.drawer)
        self._desks = self._make_desks(membership)
        self._finding = self._make_finding(port)
        self._asleep_s = outside.asleep_s()
        self._nursery: trio.Nursery | None = None

    def _make_desks(self, membership: Membership) -> Desks:
        return Desks(
            self.home,
            membership,
            self._config.office,
            self.node.state,
            self._outside,
            read=self._store.read,
            on_taken=self._on_taken,
            on_rotten=self._on_rotten,
            log=_note,
        )

    def _make_carrying(self) -> Carrying:
        return Carrying(
            self.node,
            dispatch=self.dispatch,
            read=self._store.read,
            on_rotten=self._on_rotten,
            run_sync=self._outside.run_sync,
            now=self.now,
        )

    def _make_finding(self, port: int) -> Finding | None:
        if not self._config.discovery:
            return None
        return Finding(
            self._announcement(port), self._outside, self.dispatch, lambda: not self.node.state.contacts
        )

    def _announcement(self, port: int) -> Announcement:
        certificate = self.node.state.identity.certificate
        return Announcement(
            fleet=self.node.state.document.fleet,
            device=certificate.device,
            roles=self.node.state.identity.roles,
            uplink=self.node.state.uplink,
            port=port,
        )

    # --- the brain ----------------------------------------------------------------------------------------------

    def now(self) -> Instant:
        """Seconds that go on from where the last run ended, and the wall clock."""
        return Instant(self._clock_base_s + trio.current_time(), self._outside.wall_ms())

    def dispatch(self, event: Event) -> None:
        """Tell the brain, and do what it says."""
        self.turns += 1
        writing = isinstance(event, Written) and self._space.is_due(trio.current_time(), writing=True)
        if writing or isinstance(event, SubmissionOpened | Brought | Opened):
            self._look_at_space()
        uplink = self.node.state.uplink
        effects = self.node.handle(event, self.now())
        self.tally.heard(event, self.node.state)
        self._do(effects)
        if uplink != self.node.state.uplink and self._finding is not None:
            self._finding.announce(self._announcement(self.node.state.settings.port))
        if isinstance(
            event,
            Opened
            | Lost
            | DialFailed
            | Sighted
            | Gateways
            | NetworkChanged
            | DocumentGiven
            | Brought
            | WriteFailed,
        ):
            self._retick.set()
        if isinstance(event, WriteFailed):
            self._space.looked_s = float("-inf")
        if isinstance(event, Written | WriteFailed):
            self.carrying.written()

    def _do(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Send(contact, data):
                    if link := self._links.get(contact):
                        link.send(data)
                case SendBundle():
                    if link := self._links.get(effect.contact):
                        link.send_bundle(effect)
                        self.tally.send(effect)
                case Close(contact, reason):
                    if link := self._links.get(contact):
                        link.close(reason)
                case Write():
                    self._writer.put(effect)
                    self.tally.write(effect, self.node.state)
                case Dial(address):
                    self._start(self._dial, address)
                case Accepted() | Refused():
                    self.submissions.answer(effect)
                case Adopt(document):
                    self._kept.keep(document)
                case Arrived(journal):
                    self._desks.wake(journal)
                case Log(text, fields):
                    log.info(text, extra=fields)
                case _:
                    assert_never(effect)

    def _start(self, task: Any, *args: object) -> None:
        if self._nursery is not None:
            self._nursery.start_soon(task, *args)

    async def endpoint(self, certificate: Certificate) -> Endpoint:
        """Where messages to this device go. Raises BadSubmission."""
        return await self._outside.run_sync(partial(endpoint_of, certificate, self._store.read))

    async def read(self, journal: JournalId, number: int) -> StoredBundle | None:
        """A bundle of the store. Raises StoreTrouble."""
        return await self._outside.run_sync(partial(self._store.read, journal, number))

    def adopt(self, document: FleetDocument) -> bool:
        """Follow a verified fleet document that came by hand; whether it is newer. Raises FileTrouble if it cannot be
        kept: it is followed all the same, until this daemon ends."""
        before = self.node.state.document.version
        self.dispatch(DocumentGiven(document))
        self._kept.keep(self.node.state.document)
        if self._kept.problem is not None:
            raise self._kept.problem
        return self.node.state.document.version > before

    @property
    def inbox(self) -> Inbox:
        """What the office has written to this device."""
        return self._desks.inbox

    @property
    def desks(self) -> Desks:
        """What hands on the messages that end here."""
        return self._desks

    async def received(self) -> list[dict[str, Any]]:
        """`meshnode messages --received --json`."""
        return await self._outside.run_sync(self.inbox.read)

    def status(self) -> dict[str, Any]:
        """`meshnode status --json`."""
        self._look_at_space()
        store = report.StoreView(*self._space.sizes())
        office = self._desks.office_view()
        problem = None
        if self._uplink is not None:
            endpoints = self.node.state.document.endpoints
            problem = self._uplink.problem(address for each in endpoints for address in each.addresses)
        return report.status(self.node.state, store, office, self.inbox, self.now().s, problem)

    # --- what happens -------------------------------------------------------------------------------------------

    def _on_taken(self, journal: JournalId, ranges: Ranges) -> None:
        self.dispatch(Taken(journal, ranges))

    def _on_rotten(self, journal: JournalId, number: int) -> None:
        self.dispatch(Unreadable(NO_CONTACT, journal, number, 0, rotten=True))

    def _on_network_change(self) -> None:
        self._links.leave(set(self._outside.own_hosts()))
        if self._uplink is not None:
            self._uplink.network_changed()
        self.dispatch(NetworkChanged())
        if self._finding is not None:
            self._finding.network_changed()

    def _look_at_sleep(self) -> None:
        before, self._asleep_s = self._asleep_s, self._outside.asleep_s()
        if self._asleep_s - before > ASLEEP_S:
            log.info(f"was suspended for {self._asleep_s - before:.0f} s")
            self._on_network_change()

    def _look_at_space(self) -> None:
        try:
            space = self._space.look()
        except OSError as error:
            self._grumble(f"cannot ask how much of the disk is free: {error.strerror}")
            return
        self._do(self.node.handle(space, self.now()))
        self._space.looked_s = trio.current_time()
        self._kept.keep(self.node.state.document)

    # --- tasks --------------------------------------------------------------------------------------------------

    async def run(self, listeners: Sequence[trio.abc.Listener[Any]], *services: Service) -> None:
        """Serve until cancelled, `services` too; then write what is still to be written."""
        # What cancels all the others does not reach the writer, so that their last words are written too.
        until_last_word = trio.CancelScope(shield=True)
        async with trio.open_nursery() as writing:
            writing.start_soon(self._write, until_last_word)
            try:
                async with trio.open_nursery() as nursery:
                    self._nursery = nursery
                    await self._start_all(nursery)
                    for service in services:
                        await nursery.start(service)
                    await trio.serve_listeners(self._serve, list(listeners))
            finally:
                self._nursery = None
                self.dispatch(Tick())
                if self._uplink is not None:
                    self._uplink.save()
                until_last_word.cancel()

    async def _write(self, scope: trio.CancelScope) -> None:
        with scope:
            await self._writer.run(self.dispatch)

    async def _start_all(self, nursery: trio.Nursery) -> None:
        self._look_at_space()
        self._do(self.node.start(self.now()))
        await nursery.start(self._outside.watch, self._on_network_change)
        if self._finding is not None:
            await nursery.start(self._finding.run)
        nursery.start_soon(self._desks.run)
        nursery.start_soon(self._tick)

    async def _tick(self) -> None:
        while True:
            self._look_at_sleep()
            self.dispatch(Tick())
            if self._space.is_due(trio.current_time()):
                self._look_at_space()
            self._retick = trio.Event()
            wait_s = min(TURN_MAX_S, self.node.next_tick_s() - self.now().s)
            with trio.move_on_after(max(0.02, wait_s)) as waiting:
                await self._retick.wait()
            if waiting.cancelled_caught:
                self.tally.lag.add(trio.current_time() - waiting.deadline)

    async def _serve(self, stream: trio.abc.Stream) -> None:
        async with stream:
            caller = self._outside.caller(stream)
            if caller is None:
                return
            host, port = caller
            with self._door.place(host) as place:
                if place is None:
                    self.tally.refused["crowd"] += 1
                    said = f"too many connections at once from {host}, some were turned away"
                    self._grumble(said, "crowd", address=host)
                    return
                met = await self._admit(stream, host)
                if met is None:
                    return
            if place.cancelled_caught:
                self.tally.refused["crowd"] += 1
                self._grumble("too many connections at once, some were turned away")
                return
            await self._links.carry(*met, str(Address(host, port)), dialled=False)

    async def _admit(self, stream: trio.abc.Stream, host: str) -> tuple[trio.abc.Stream, Certificate] | None:
        # On its own, so that the error and all that it holds is gone at once.
        try:
            return await self._outside.accept(stream)
        except NoContact as problem:
            self.tally.refused["certificate"] += 1
            self._grumble(f"{host} was turned away: {problem}", str(problem), address=host)
            return None

    async def _dial(self, address: str) -> None:
        uplink = self._uplink if self.node.state.dialing.is_office(address) else None
        try:
            host, port = parse_address(address)
            stream, certificate = await (uplink or self._outside).dial(host, port)
        except MeshnodeError as problem:
            self.dispatch(DialFailed(address, str(problem)))
            if uplink is not None:
                await uplink.examine(address, problem)
            return
        await self._links.carry(stream, certificate, address, dialled=True)


@contextlib.asynccontextmanager
async def open_daemon(
    home: Home, membership: Membership, config: Config, port: int, outside: Outside | None = None
) -> AsyncIterator[Daemon]:
    """A daemon on an opened store. The caller holds the home's lock. Raises StoreTrouble."""
    tls = None
    if outside is None:
        allow_files()
        outside = sockets = Sockets(credentials_of(home, membership))
        tls = sockets.tls
    store = await outside.run_sync(partial(SqliteStore, home.store_path))
    try:
        yield Daemon(home, membership, config, store, port, outside, tls)
    finally:
        store.close()

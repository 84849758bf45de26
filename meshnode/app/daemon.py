"""The daemon: the one place where the brain meets its sockets, its disk and its clock.

`dispatch` gives the brain an event and carries out what it answers; it never waits. Everything that waits is a task:
links, dials, the writer, the office's desk, discovery, the ticker and the control interface. The writer outlives all
the others, so that whatever was promised on the way down is still written.
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Final, assert_never

import trio

from meshnode.app import report
from meshnode.app.config import Config, parse_address
from meshnode.app.home import Home, Membership
from meshnode.app.outside import Outside, Sockets
from meshnode.app.submissions import Submissions
from meshnode.core.bundle import EPOCH_SIZE
from meshnode.core.dialing import GATEWAY, SIGHTED
from meshnode.core.errors import FileTrouble, MeshnodeError
from meshnode.core.fleet import FleetDocument
from meshnode.core.identity import Certificate, DeviceId, JournalId
from meshnode.core.intervals import Ranges
from meshnode.core.limits import CONTACTS_MAX, FLOOR_BYTES, FLOOR_SHARE
from meshnode.core.node import Node
from meshnode.core.ports import (
    Accepted,
    Adopt,
    Arrived,
    Close,
    Dial,
    DialFailed,
    DocumentGiven,
    Effect,
    Event,
    Instant,
    Log,
    Lost,
    NetworkChanged,
    Opened,
    Refused,
    Send,
    SendBundle,
    Sighted,
    Snapshot,
    Space,
    SubmissionOpened,
    Taken,
    Tick,
    Unreadable,
    Write,
    WriteFailed,
)
from meshnode.core.sealing import Drawer
from meshnode.core.state import Identity, OfficeKeys, Settings
from meshnode.drivers.dnssd import Announcement, Discovery, Sighting
from meshnode.drivers.link import Link
from meshnode.drivers.sqlite import SqliteStore
from meshnode.drivers.tls import Credentials, NoContact
from meshnode.drivers.writer import Writer
from meshnode.office.desk import Desk
from meshnode.office.sinks import make_sink

log: Final = logging.getLogger("meshnode")

#: Where a colleague's hotspot would answer: a gateway of the local network that is a node too.
MESHNODE_PORT: Final = 7766
#: No contact has this number: a bundle turned out rotten without one.
NO_CONTACT: Final = 0
#: Between two looks at the free disk.
SPACE_S: Final = 5.0
#: Handshakes at once; who comes in a flood is turned away at the door.
HANDSHAKES_MAX: Final = CONTACTS_MAX
#: The same trouble is logged once in this time.
GRUMBLE_S: Final = 60.0

#: A task that says when it is ready.
Service = Callable[..., Awaitable[None]]


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
    ) -> None:
        self.home = home
        self._outside = outside
        self.drawer = Drawer(membership.key.derive(b"labels"))
        self._config = config
        self._store = store
        self._fleet = membership.document.fleet
        self._links: dict[int, Link] = {}
        self._locals: dict[int, str] = {}
        self._contact = 0
        self._handshakes = 0
        self._grumbled: dict[str, float] = {}
        self._space_s = float("-inf")
        self._kept_version = membership.document.version
        self._document_problem: FileTrouble | None = None
        self._retick = trio.Event()
        snapshot = store.load()
        self._clock_base_s = snapshot.clock_s - trio.current_time()
        self._writer = Writer(store, lambda: self.now().s, outside.run_sync)
        self.submissions = Submissions(self.dispatch, self._writer)
        self.node = self._make_node(membership, snapshot, port)
        self._desk = self._make_desk(membership)
        self._discovery = self._make_discovery(port)
        self._nursery: trio.Nursery | None = None

    def _make_node(self, membership: Membership, snapshot: Snapshot, port: int) -> Node:
        office = None
        if membership.office is not None:
            office = OfficeKeys(membership.office.endpoint.id, membership.office.signing_key)
        identity = Identity(
            membership.certificate, membership.key, membership.authority, membership.document, office
        )
        settings = Settings(
            epoch=self._outside.entropy(EPOCH_SIZE),
            port=port,
            foreign_quota_bytes=self._config.store.foreign_quota_bytes,
            peers=tuple(str(peer) for peer in self._config.peers),
        )
        return Node(identity, settings, snapshot, self.now())

    def _make_desk(self, membership: Membership) -> Desk | None:
        if membership.office is None:
            return None
        key = membership.office.sealing_key
        return Desk(
            state=self.node.state,
            keys={key.public.key_id: key},
            sink=make_sink(self._config.office.sink, self.home.path),
            read=self._store.read,
            on_taken=self._on_taken,
            on_rotten=self._on_rotten,
            log=log.info,
            run_sync=self._outside.run_sync,
        )

    def _make_discovery(self, port: int) -> Discovery | None:
        if not self._config.discovery:
            return None
        return Discovery(self._announcement(port), self._on_sighting, self._outside.own_hosts)

    def _announcement(self, port: int) -> Announcement:
        certificate = self.node.state.identity.certificate
        return Announcement(
            fleet=self._fleet,
            device=certificate.device,
            roles=(certificate.role,),
            uplink=self.node.state.uplink,
            port=port,
        )

    # --- the brain ----------------------------------------------------------------------------------------------

    def now(self) -> Instant:
        """Seconds that go on from where the last run ended, and the wall clock."""
        return Instant(self._clock_base_s + trio.current_time(), self._outside.wall_ms())

    def dispatch(self, event: Event) -> None:
        """Tell the brain, and do what it says."""
        if isinstance(event, SubmissionOpened):
            self._look_at_space()
        uplink = self.node.state.uplink
        self._do(self.node.handle(event, self.now()))
        if uplink != self.node.state.uplink and self._discovery is not None:
            self._discovery.update(self._announcement(self.node.state.settings.port))
        if isinstance(
            event, Opened | Lost | DialFailed | Sighted | NetworkChanged | DocumentGiven | WriteFailed
        ):
            self._retick.set()
        if isinstance(event, WriteFailed):
            self._space_s = float("-inf")

    def _do(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Send(contact, data):
                    if link := self._links.get(contact):
                        link.send(data)
                case SendBundle():
                    if link := self._links.get(effect.contact):
                        link.send_bundle(effect)
                case Close(contact, reason):
                    if link := self._links.get(contact):
                        link.close(reason)
                case Write():
                    self._writer.put(effect)
                case Dial(address):
                    self._start(self._dial, address)
                case Accepted() | Refused():
                    self.submissions.answer(effect)
                case Adopt(document):
                    self._keep(document)
                case Arrived(journal):
                    if self._desk is not None:
                        self._desk.wake(journal)
                case Log(text):
                    log.info(text)
                case _:
                    assert_never(effect)

    def _start(self, task: Any, *args: object) -> None:
        if self._nursery is not None:
            self._nursery.start_soon(task, *args)

    def adopt(self, document: FleetDocument) -> bool:
        """Follow a verified fleet document that came by hand; whether it is newer. Raises FileTrouble if it cannot be
        kept: it is followed all the same, until this daemon ends."""
        before = self.node.state.document.version
        self.dispatch(DocumentGiven(document))
        self._keep(self.node.state.document)
        if self._document_problem is not None:
            raise self._document_problem
        return self.node.state.document.version > before

    def _keep(self, document: FleetDocument) -> None:
        """Keep the newest document. What a full disk does not take is tried again with each look at the space."""
        if document.version == self._kept_version:
            return
        try:
            self.home.save_document(document)
        except FileTrouble as problem:
            self._document_problem = problem
            self.grumble(str(problem))
        else:
            self._document_problem = None
            self._kept_version = document.version

    def status(self) -> dict[str, Any]:
        """`meshnode status --json`."""
        self._look_at_space()
        size_bytes, reusable_bytes = self._store.sizes()
        office = None
        if self._desk is not None:
            office = report.OfficeView(
                self._desk.problem, dict(self._desk.quarantined), list(self._desk.restored)
            )
        store = report.StoreView(size_bytes, reusable_bytes)
        return report.status(self.node.state, store, office, self.now().s)

    # --- what happens -------------------------------------------------------------------------------------------

    def _on_taken(self, journal: JournalId, ranges: Ranges) -> None:
        self.dispatch(Taken(journal, ranges))

    def _on_rotten(self, journal: JournalId, number: int) -> None:
        self.dispatch(Unreadable(NO_CONTACT, journal, number, 0, rotten=True))

    def _on_sighting(self, sighting: Sighting) -> None:
        if sighting.fleet == self._fleet:
            host, port = sighting.address
            self.dispatch(Sighted(f"{host}:{port}", DeviceId(sighting.device), SIGHTED))

    def _on_network_change(self) -> None:
        own = set(self._outside.own_hosts())
        for number, local in list(self._locals.items()):
            address = ipaddress.ip_address(local)
            if own and address.version == 4 and not address.is_loopback and local not in own:
                # It would take the peer's silence to notice, and the address may be another's by now.
                self._links[number].close("this device has another address now")
        self.dispatch(NetworkChanged())
        if self._discovery is not None:
            self._discovery.network_changed()
        self._try_gateway()

    def _try_gateway(self) -> None:
        if self._config.discovery and (gateway := self._outside.gateway()):
            self.dispatch(Sighted(f"{gateway}:{MESHNODE_PORT}", None, GATEWAY))

    def _look_at_space(self) -> None:
        try:
            total_bytes, free_bytes = self._outside.disk(self.home.path)
        except OSError as error:
            self.grumble(f"cannot ask how much of the disk is free: {error.strerror}")
            return
        floor = self._config.store.floor_bytes
        if floor is None:
            floor = min(FLOOR_BYTES, int(total_bytes * FLOOR_SHARE))
        _, reusable = self._store.sizes()
        self._do(self.node.handle(Space(free_bytes + reusable, floor), self.now()))
        self._space_s = trio.current_time()
        self._keep(self.node.state.document)

    def grumble(self, text: str) -> None:
        """Log a trouble that strangers can cause, once a minute."""
        now_s = trio.current_time()
        for old, at_s in list(self._grumbled.items()):
            if now_s - at_s > GRUMBLE_S:
                del self._grumbled[old]
        if text not in self._grumbled and len(self._grumbled) < 100:
            self._grumbled[text] = now_s
            log.warning(text)

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
                until_last_word.cancel()

    async def _write(self, scope: trio.CancelScope) -> None:
        with scope:
            await self._writer.run(self.dispatch)

    async def _start_all(self, nursery: trio.Nursery) -> None:
        self._look_at_space()
        self._do(self.node.start(self.now()))
        await nursery.start(self._outside.watch, self._on_network_change)
        if self._discovery is not None:
            await nursery.start(self._discovery.run)
            self._try_gateway()
        if self._desk is not None:
            nursery.start_soon(self._desk.run)
        nursery.start_soon(self._tick)

    async def _tick(self) -> None:
        while True:
            self.dispatch(Tick())
            if trio.current_time() - self._space_s >= SPACE_S:
                self._look_at_space()
            self._retick = trio.Event()
            with trio.move_on_after(max(0.02, self.node.next_tick_s() - self.now().s)):
                await self._retick.wait()

    async def _serve(self, stream: trio.abc.Stream) -> None:
        async with stream:
            if self._handshakes >= HANDSHAKES_MAX:
                self.grumble("too many connections at once, some were turned away")
                return
            caller = self._outside.caller(stream)
            if caller is None:
                return
            host, port = caller
            self._handshakes += 1
            try:
                met, certificate = await self._outside.accept(stream)
            except NoContact as problem:
                self.grumble(f"{host} was turned away: {problem}")
                return
            finally:
                self._handshakes -= 1
            await self._carry(met, certificate, f"{_bracketed(host)}:{port}", dialled=False)

    async def _dial(self, address: str) -> None:
        try:
            host, port = parse_address(address)
            stream, certificate = await self._outside.dial(host, port)
        except MeshnodeError as problem:
            self.dispatch(DialFailed(address, str(problem)))
            return
        await self._carry(stream, certificate, address, dialled=True)

    async def _carry(
        self, stream: trio.abc.Stream, certificate: Certificate, address: str, *, dialled: bool
    ) -> None:
        self._contact += 1
        number = self._contact
        link = self._links[number] = Link(
            number, stream, self._store.read, self.dispatch, self._outside.run_sync
        )
        if local := self._outside.local_host(stream):
            self._locals[number] = local
        try:
            self.dispatch(Opened(number, certificate, dialled, address))
            await link.run()
        finally:
            del self._links[number]
            self._locals.pop(number, None)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def new_token() -> str:
    """The bearer token of one run of the control interface."""
    return secrets.token_urlsafe(32)


@contextlib.asynccontextmanager
async def open_daemon(
    home: Home, membership: Membership, config: Config, port: int, outside: Outside | None = None
) -> AsyncIterator[Daemon]:
    """A daemon on an opened store. The caller holds the home's lock. Raises StoreTrouble."""
    if outside is None:
        papers = home.device_key_path, home.certificate_path, home.authority_path
        outside = Sockets(Credentials(*papers, membership.authority))
    store = await outside.run_sync(partial(SqliteStore, home.store_path))
    try:
        yield Daemon(home, membership, config, store, port, outside)
    finally:
        store.close()

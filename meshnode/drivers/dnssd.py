"""Finds the devices of the same fleet on the local network, and is found: DNS-SD over mDNS (RFC 6762, 6763).

A device is the service instance `<device id>._meshnode._tcp.local.` on the host `<device id>.local.`. Its
TXT record says `v=1`, `fleet` and `id` in hexadecimal, `roles` separated by commas, and `uplink` 0 or 1.
Anybody on the network can read and forge all of it: a sighting is a reason to dial, no more. A last key, `n`,
is drawn anew for each announcement, so that news is never taken for a repetition of what was said before.

A **sighting** is told whenever somebody is heard, not only when the set of known services changes. Who left
without a goodbye and comes back announces what is still in everybody's cache, and is to be dialled at once
all the same. What is heard again unchanged is told once in `REPEAT_S`.

After a **change of the network** everything is made anew: the multicast memberships, which the kernel
forgets with an interface; the announcement, with the present addresses; and the question, without the
answers known from before, since known answers silence those who are still here. There is no goodbye, because
it would reach those who stay. There is no probing (RFC 6762 section 8.1), which takes 1.5 s: names are
unique by construction. Lost packets, and switches that forward nothing in their first 30 s, are made up for
by asking again every `ASK_AGAIN_S`, with the known answers.

A network that misbehaves costs a line in the log; what failed is tried again at the next change or question.
IPv4 only. zeroconf lives on asyncio, so `Discovery` gives it a loop in a thread of its own; all that touches
zeroconf is in `_Responder`, which runs on that loop only.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import secrets
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any

import trio
import zeroconf
from zeroconf import (  # type: ignore[attr-defined] # records are public, but not in __all__
    DNSAddress,
    DNSPointer,
    IPVersion,
    RecordUpdate,
    RecordUpdateListener,
    Zeroconf,
)
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

TYPE = "_meshnode._tcp.local."
REPEAT_S = 1.0
ASK_AGAIN_S = 60.0

_TEXT_VERSION = b"1"
_HEX_ID = re.compile(rb"[0-9a-f]{32}")
_ROLES = re.compile(rb"(?:[a-z]+(?:,[a-z]+)*)?")
_INSTANCE = re.compile(r"[0-9a-f]{32}\." + re.escape(TYPE))
#: Of a flood of invented devices, no more than this is kept in memory, heard and not yet read.
_TOLD_MAX = _UNREAD_MAX = 1024

_log = logging.getLogger("meshnode.dnssd")


@dataclass(frozen=True)
class Announcement:
    """What a device tells of itself: ids of 16 bytes, its roles, whether it has an uplink, its TCP port."""

    fleet: bytes
    device: bytes
    roles: tuple[str, ...]
    uplink: bool
    port: int


@dataclass(frozen=True)
class Sighting:
    """A device of the fleet was heard, and says that it can be reached at this IPv4 address and port."""

    fleet: bytes
    device: bytes
    address: tuple[str, int]
    roles: tuple[str, ...]
    uplink: bool


def text_of(announcement: Announcement, n: str) -> dict[str, str]:
    """The TXT record of an announcement, as keys and values; `n` tells it from those before."""
    return {
        "v": _TEXT_VERSION.decode(),
        "fleet": announcement.fleet.hex(),
        "id": announcement.device.hex(),
        "roles": ",".join(announcement.roles),
        "uplink": str(int(announcement.uplink)),
        "n": n,
    }


def announcement_in(text: bytes, port: int | None) -> Announcement | None:
    """The announcement in the bytes of a TXT record, with the port of the SRV record; None if there is none.

    Unknown keys are for later versions and are ignored (RFC 6763 section 6.4).
    """
    says = AsyncServiceInfo(TYPE, TYPE, properties=text).properties
    fleet, device, roles = says.get(b"fleet") or b"", says.get(b"id") or b"", says.get(b"roles") or b""
    uplink = says.get(b"uplink")
    if (
        says.get(b"v") != _TEXT_VERSION
        or not _HEX_ID.fullmatch(fleet)
        or not _HEX_ID.fullmatch(device)
        or not _ROLES.fullmatch(roles)
        or uplink not in (b"0", b"1")
        or not port
    ):
        return None
    return Announcement(
        fleet=bytes.fromhex(fleet.decode()),
        device=bytes.fromhex(device.decode()),
        roles=tuple(roles.decode().split(",")) if roles else (),
        uplink=uplink == b"1",
        port=port,
    )


class Discovery:
    """Announces this device and tells of the others of its fleet, while `run` runs.

    `on_sighting` is called in the task that runs `run`. `addresses` gives the IPv4 addresses to be found at;
    it is called from another thread, at the start and after each change, and may raise OSError.
    """

    def __init__(
        self,
        announcement: Announcement,
        on_sighting: Callable[[Sighting], None],
        addresses: Callable[[], Iterable[str]],
    ) -> None:
        self._announcement = announcement
        self._on_sighting = on_sighting
        self._addresses = addresses
        self._running: tuple[asyncio.AbstractEventLoop, _Responder] | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Be found and find, until cancelled; then say goodbye, which takes a quarter of a second."""
        token = trio.lowlevel.current_trio_token()
        send, receive = trio.open_memory_channel[Sighting](_UNREAD_MAX)

        def hear(sighting: Sighting) -> None:
            # Whoever floods us loses sightings; one that comes too late is nobody's any more.
            with contextlib.suppress(trio.WouldBlock, trio.BrokenResourceError, trio.ClosedResourceError):
                send.send_nowait(sighting)

        def tell(sighting: Sighting) -> None:
            token.run_sync_soon(hear, sighting)

        runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        loop = runner.get_loop()
        responder = _Responder(self._announcement, self._addresses, tell)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_run_in_thread, runner, responder)
            self._running = loop, responder
            task_status.started()
            with send, receive:
                try:
                    async for sighting in receive:
                        self._on_sighting(sighting)
                finally:
                    self._running = None
                    if not loop.is_closed():
                        loop.call_soon_threadsafe(responder.stop)

    def network_changed(self) -> None:
        """Announce and ask anew: call it whenever the network may have become another one."""
        if self._running is not None:
            loop, responder = self._running
            loop.call_soon_threadsafe(responder.network_changed)

    def update(self, announcement: Announcement) -> None:
        """Announce this from now on. The ids and the port must be what they were."""
        self._announcement = announcement
        if self._running is not None:
            loop, responder = self._running
            loop.call_soon_threadsafe(responder.update, announcement)


async def _run_in_thread(runner: asyncio.Runner, responder: _Responder) -> None:
    def run() -> None:
        with runner:
            runner.get_loop().set_exception_handler(_log_from_loop)
            runner.run(responder.run())

    # `stop` ends it, not cancellation: the loop is to be run, say goodbye and be closed in any case.
    with trio.CancelScope(shield=True):
        await trio.to_thread.run_sync(run, limiter=trio.CapacityLimiter(1))


def _log_from_loop(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    _log.error("%s: %r", context["message"], context.get("exception"))


class _OneLine(logging.Filter):
    """Takes the tracebacks out of what zeroconf logs: an odd network is no defect."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.exc_info = None
        record.name = _log.name
        return True


logging.getLogger("zeroconf").addFilter(_OneLine())


class _Responder(RecordUpdateListener):
    """What runs on the asyncio loop: announcing, asking, hearing."""

    def __init__(
        self,
        announcement: Announcement,
        addresses: Callable[[], Iterable[str]],
        tell: Callable[[Sighting], None],
    ) -> None:
        self._announcement = announcement
        self._addresses = addresses
        self._tell = tell
        self._wake = asyncio.Event()
        self._stopping = False
        self._network_changed = True
        self._announcement_changed = False
        self._zeroconf: AsyncZeroconf | None = None
        self._service: AsyncServiceInfo | None = None
        self._announcing: asyncio.Future[object] | None = None
        self._browser: AsyncServiceBrowser | None = None
        self._told_s: dict[tuple[object, ...], float] = {}
        self._packet: list[RecordUpdate] = []
        self._packet_ms = 0.0

    def network_changed(self) -> None:
        self._network_changed = True
        self._wake.set()

    def update(self, announcement: Announcement) -> None:
        self._announcement = announcement
        self._announcement_changed = True
        self._wake.set()

    def stop(self) -> None:
        self._stopping = True
        self._wake.set()

    async def run(self) -> None:
        try:
            while not self._stopping:
                await self._freshen()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(ASK_AGAIN_S):
                        await self._wake.wait()
                self._wake.clear()
        finally:
            await self._close()

    async def _freshen(self) -> None:
        network_changed, self._network_changed = self._network_changed, False
        announcement_changed, self._announcement_changed = self._announcement_changed, False
        try:
            if network_changed or self._zeroconf is None:
                await self._begin_anew()
            elif self._service is not None and announcement_changed:
                self._service = self._service_at(self._service.parsed_addresses())
                self._announce(await self._zeroconf.async_update_service(self._service))
            elif self._service is not None:
                await self._ask(self._zeroconf)
        except (OSError, zeroconf.Error) as error:
            _log.warning("cannot be found or find others on this network: %r", error)
            await self._close()

    # --- announcing and asking ---

    async def _begin_anew(self) -> None:
        addresses = sorted(set(self._addresses()))
        await self._fall_silent()
        if self._zeroconf is None:
            self._zeroconf = AsyncZeroconf(interfaces=[], ip_version=IPVersion.V4Only)
            self._zeroconf.zeroconf.async_add_listener(self, None)
        if self._service is not None:
            # Not async_unregister_service, which says goodbye.
            self._zeroconf.zeroconf.registry.async_remove(self._service)
            self._service = None
        cache = self._zeroconf.zeroconf.cache
        cache.async_remove_records(cache.async_entries_with_name(TYPE))
        self._told_s.clear()
        # Leaving comes first because an address that stayed would otherwise be left as it is.
        await self._zeroconf.async_update_interfaces([])
        await self._join(self._zeroconf, addresses)
        if addresses:
            self._service = self._service_at(addresses)
            # Cooperating responders are those that share a name, which zeroconf does not probe for.
            self._announce(
                await self._zeroconf.async_register_service(self._service, cooperating_responders=True)
            )
            await self._ask(self._zeroconf)

    async def _join(self, zeroconf_: AsyncZeroconf, addresses: list[str]) -> None:
        joined: list[str] = []
        for address in addresses:
            try:
                await zeroconf_.async_update_interfaces([*joined, address])
                joined.append(address)
            except OSError as error:  # such as ENODEV, when the address has gone by now
                _log.warning("cannot be found or find others at %s: %r", address, error)

    def _service_at(self, addresses: list[str]) -> AsyncServiceInfo:
        name = self._announcement.device.hex()
        return AsyncServiceInfo(
            TYPE,
            f"{name}.{TYPE}",
            port=self._announcement.port,
            properties=text_of(self._announcement, secrets.token_hex(4)),
            server=f"{name}.local.",
            parsed_addresses=addresses,
        )

    def _announce(self, announcing: Awaitable[object]) -> None:
        # Three packets over half a second, which nothing waits for.
        if self._announcing is not None:
            self._announcing.cancel()
        self._announcing = asyncio.ensure_future(announcing)

    async def _ask(self, zeroconf_: AsyncZeroconf) -> None:
        if self._browser is not None:
            await self._browser.async_cancel()
        # The browser only asks; it would not tell of those who come back while they are in the cache.
        self._browser = AsyncServiceBrowser(zeroconf_.zeroconf, TYPE, handlers=[lambda **_: None])

    async def _fall_silent(self) -> None:
        if self._announcing is not None:
            self._announcing.cancel()
            self._announcing = None
        if self._browser is not None:
            await self._browser.async_cancel()
            self._browser = None

    async def _close(self) -> None:
        await self._fall_silent()
        closing, self._zeroconf, self._service = self._zeroconf, None, None
        if closing is not None:
            try:
                await closing.async_close()
            except (OSError, zeroconf.Error) as error:
                _log.warning("cannot say goodbye on this network: %r", error)

    # --- hearing ---

    def async_update_records(self, zc: Zeroconf, now: float, records: list[RecordUpdate]) -> None:
        """Keep the records of one packet until they are in the cache."""
        self._packet = [update for update in records if not update.new.is_expired(now)]
        self._packet_ms = now

    def async_update_records_complete(self) -> None:
        """Tell of the instances that the packet is about."""
        if self._zeroconf is None:
            return
        cache = self._zeroconf.zeroconf.cache
        names: set[str] = set()
        for record in (update.new for update in self._packet):
            if isinstance(record, DNSPointer):
                names.add(record.alias)
                odd = record.key == TYPE and not _INSTANCE.fullmatch(record.alias)
                if odd and cache.async_get_unique(record) is not None:
                    # It would become a known answer, and a name that cannot be encoded ends zeroconf's asking.
                    cache.async_remove_records([record])
            elif isinstance(record, DNSAddress):
                names.update(service.name for service in cache.async_entries_with_server(record.name))
            else:
                names.add(record.name)
        for name in filter(_INSTANCE.fullmatch, names):
            service = AsyncServiceInfo(TYPE, name)
            # What lacks a record is told with the packet that brings it. What is in both is as the packet says.
            if service.load_from_cache(self._zeroconf.zeroconf):
                service.async_update_records(self._zeroconf.zeroconf, self._packet_ms, self._packet)
                self._sight(service)

    def _sight(self, service: AsyncServiceInfo) -> None:
        own, said = self._announcement, announcement_in(service.text, service.port)
        if said is None or said.fleet != own.fleet or said.device == own.device:
            return
        # If the packet has addresses, any others in the cache are about to expire.
        in_packet = {
            update.new.address
            for update in self._packet
            if isinstance(update.new, DNSAddress) and update.new.key == service.server_key
        }
        for ip in service.ip_addresses_by_version(IPVersion.V4Only):
            current = not in_packet or ip.packed in in_packet
            dialable = not (ip.is_unspecified or ip.is_loopback or ip.is_multicast or ip.is_reserved)
            if current and dialable and self._is_news(service.text, str(ip), said.port):
                address = str(ip), said.port
                self._tell(Sighting(said.fleet, said.device, address, said.roles, said.uplink))

    def _is_news(self, *heard: object) -> bool:
        now_s = asyncio.get_running_loop().time()
        if now_s - self._told_s.get(heard, -REPEAT_S) < REPEAT_S:
            return False
        if len(self._told_s) >= _TOLD_MAX:
            self._told_s.clear()
        self._told_s[heard] = now_s
        return True

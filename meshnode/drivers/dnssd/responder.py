"""The side of DNS-SD that lives on asyncio: announces, asks and hears, by zeroconf."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import secrets
import socket
from collections.abc import Awaitable, Callable, Iterable
from ipaddress import IPv4Address, IPv6Address
from typing import Final

import zeroconf
from zeroconf import (  # type: ignore[attr-defined] # records are public, but not in __all__
    DNSAddress,
    DNSOutgoing,
    DNSPointer,
    DNSQuestion,
    IPVersion,
    RecordUpdate,
    RecordUpdateListener,
    Zeroconf,
    current_time_millis,
)
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf
from zeroconf.const import _CLASS_IN, _FLAGS_QR_QUERY, _TYPE_PTR

from meshnode.drivers.dnssd.announcement import TYPE, Announcement, Sighting, announcement_in, text_of

REPEAT_S = 1.0
ASK_AGAIN_S = 60.0

_INSTANCE: Final = re.compile(r"[0-9a-f]{32}\." + re.escape(TYPE))
#: Of a flood of invented devices, no more than this is kept in memory.
_TOLD_MAX = 1024

_log = logging.getLogger("meshnode.dnssd")


class _OneLine(logging.Filter):
    """Takes the tracebacks out of what zeroconf logs: an odd network is no defect."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.exc_info = None
        record.name = _log.name
        return True


logging.getLogger("zeroconf").addFilter(_OneLine())


class Responder(RecordUpdateListener):
    """What runs on the asyncio loop: announcing, asking, hearing. `tell` is called there too."""

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
        """Begin anew."""
        self._network_changed = True
        self._wake.set()

    def update(self, announcement: Announcement) -> None:
        """Announce this from now on."""
        self._announcement = announcement
        self._announcement_changed = True
        self._wake.set()

    def stop(self) -> None:
        """Say goodbye, and end `run`."""
        self._stopping = True
        self._wake.set()

    async def run(self) -> None:
        """Be found and find, until stopped."""
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
                self._ask_again(self._zeroconf.zeroconf)
        except (OSError, zeroconf.Error) as error:
            _log.warning("cannot be found or find others on this network: %r", error)
            await self._close()

    # --- announcing and asking ---

    async def _begin_anew(self) -> None:
        addresses = sorted(set(self._addresses()), key=lambda address: (":" in address, address))
        await self._fall_silent()
        if self._zeroconf is None:
            # With the first IPv6 address it makes itself ready for IPv6 too.
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
        await self._join(self._zeroconf, _to_speak_from(addresses))
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
            parsed_addresses=[address.partition("%")[0] for address in addresses],
        )

    def _announce(self, announcing: Awaitable[object]) -> None:
        # Three packets over half a second, which nothing waits for.
        if self._announcing is not None:
            self._announcing.cancel()
        self._announcing = asyncio.ensure_future(announcing)

    async def _ask(self, zeroconf_: AsyncZeroconf) -> None:
        # Four packets over a quarter of a minute. The browser only asks; it would not tell of those who come back
        # while they are in the cache.
        self._browser = AsyncServiceBrowser(zeroconf_.zeroconf, TYPE, handlers=[lambda **_: None])

    def _ask_again(self, zc: Zeroconf) -> None:
        question = DNSOutgoing(_FLAGS_QR_QUERY)
        question.add_question(DNSQuestion(TYPE, _TYPE_PTR, _CLASS_IN))
        now_ms = current_time_millis()
        for known in zc.cache.get_all_by_details(TYPE, _TYPE_PTR, _CLASS_IN):
            if not known.is_stale(now_ms):
                question.add_answer_at_time(known, now_ms)
        zc.async_send(question)

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
        for ip in service.ip_addresses_by_version(IPVersion.All):
            current = not in_packet or ip.packed in in_packet
            host = _dialable(ip) if current else None
            if host is not None and self._is_news(service.text, host, said.port):
                address = host, said.port
                self._tell(Sighting(said.fleet, said.device, address, said.roles, said.uplink))

    def _is_news(self, *heard: object) -> bool:
        now_s = asyncio.get_running_loop().time()
        if now_s - self._told_s.get(heard, -REPEAT_S) < REPEAT_S:
            return False
        if len(self._told_s) >= _TOLD_MAX:
            self._told_s.clear()
        self._told_s[heard] = now_s
        return True


def _to_speak_from(addresses: list[str]) -> list[str]:
    """One address of each interface and IP version, as far as can be told. In IPv6 it is the link-local one: only to
    what comes from there does the receiver's system add the link on which it came."""
    return [each for each in addresses if ":" not in each or "%" in each]


def _dialable(ip: IPv4Address | IPv6Address) -> str | None:
    """The address as it is dialled; None if nobody can be there, or nobody can say on which link."""
    if ip.is_unspecified or ip.is_loopback or ip.is_multicast or ip.is_reserved:
        return None
    if isinstance(ip, IPv4Address) or not ip.is_link_local:
        return str(ip)
    if ip.scope_id is None:  # heard over IPv4, or forged
        return None
    plain, _, index = str(ip).partition("%")
    try:
        return f"{plain}%{socket.if_indextoname(int(index))}"
    except OSError:  # the interface has gone by now
        return None

"""The way to the office over the internet: through a proxy, by the interfaces that may be used, within their budget;
and why there is no way.

`dial` takes the proxy that the system names, or goes directly where there is none or it is not there. Where not every
interface may be used, the connection is bound to those that may; where the system does not let us, it is closed again
at once if it turns out to go another way. Connections over metered interfaces are counted, and closed when the day's
bytes are used up; so are those by which the office has come to us, or was met as a neighbour.

After a failed dial `examine` finds out why, for the status. It looks at the office's web port for that (see
`core.uplink`), at most once in `EXAMINE_S` and once after each change of the network.

Loopback is this machine itself, and is always allowed. What runs over a VPN counts for the VPN's interface.
"""

from __future__ import annotations

import ipaddress
import json
import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

import trio

from meshnode.app.addresses import Address, parse_address
from meshnode.app.config import UplinkConfig
from meshnode.app.files import read_optional, write_file
from meshnode.core.errors import FileTrouble, MeshnodeError
from meshnode.core.identity import Certificate
from meshnode.core.limits import HANDSHAKE_S, KIB
from meshnode.core.metering import Budget, Rules
from meshnode.core.uplink import Failure, Problem, Web, classify, most_telling, needs_web
from meshnode.core.words import Clause, say
from meshnode.drivers import network
from meshnode.drivers.link import shorten_kernel_queue
from meshnode.drivers.proxy import Proxy, ProxyTrouble, system_proxy, tunnel
from meshnode.drivers.tls import NoContact, Tls, TlsStream, unreached
from meshnode.drivers.uplink import (
    CannotBindError,
    Counted,
    connect,
    connect_by_any,
    interface_of,
    look_at_web,
    socket_of,
)

log: Final = logging.getLogger("meshnode")

#: Between two looks at the office's web port.
EXAMINE_S: Final = 60.0
#: A proxy that is not there leaves time to try without it.
PROXY_S: Final = 5.0
WEB_PORT: Final = 80
#: Of what was spent, at most so much is forgotten in a crash.
SAVE_BYTES: Final = 256 * KIB
#: A row of the budget has some 20 bytes, and there are 145 of them at most.
BUDGET_FILE_SIZE_MAX: Final = 64 * KIB
#: Its name in the home.
BUDGET_FILE: Final = "metered.json"

_OVER: Final = say("the day's bytes for metered networks are used up")
_NOT_ALLOWED: Final = {
    Failure.INTERFACE: say("no interface is there that `uplink.interfaces` allows"),
    Failure.BUDGET: _OVER,
}


class Meter:
    """The budget of a home, remembered in a file. `now_s` is the node's own clock."""

    def __init__(self, limit_bytes: int | None, path: Path, now_s: Callable[[], float]) -> None:
        self._path = path
        self._now_s = now_s
        self._unsaved_bytes = 0
        self._budget = Budget(limit_bytes, _read_spent(path) if limit_bytes else ())
        self.counts = bool(limit_bytes)

    def add(self, size_bytes: int) -> None:
        """So many bytes were spent."""
        self._budget.add(size_bytes, self._now_s())
        self._unsaved_bytes += size_bytes
        if self._unsaved_bytes >= SAVE_BYTES:
            self.save()

    def is_open(self) -> bool:
        """Whether anything may be spent now."""
        return self._budget.is_open(self._now_s())

    def save(self) -> None:
        """Remember what was spent. A disk that does not take it keeps nobody from working."""
        if not self._unsaved_bytes:
            return
        self._unsaved_bytes = 0
        try:
            write_file(self._path, json.dumps({"metered": self._budget.to_rows()}).encode() + b"\n")
        except FileTrouble as problem:
            log.warning(str(problem))


def _read_spent(path: Path) -> list[tuple[int, int]]:
    try:
        data = read_optional(path, BUDGET_FILE_SIZE_MAX)
        rows: Any = [] if data is None else json.loads(data)["metered"]
        return [(int(slot), max(0, int(size_bytes))) for slot, size_bytes in rows]
    except (FileTrouble, ValueError, LookupError, TypeError):
        log.warning(f"{path} is damaged: what was spent on metered networks is counted anew")
        return []


class Uplink:
    """Dials the office for one daemon. `budget_path` is the file of what was spent."""

    def __init__(
        self,
        tls: Tls,
        config: UplinkConfig,
        budget_path: Path,
        now_s: Callable[[], float],
        web_port: int = WEB_PORT,
    ) -> None:
        self._tls = tls
        self._rules = Rules(config.interfaces, config.metered)
        self._meter = Meter(config.metered_bytes_a_day, budget_path, now_s)
        self._web_port = web_port
        self._open: dict[Counted, Callable[[str], None]] = {}
        self._problems: dict[str, Problem] = {}
        self._webs: dict[str, Web | None] = {}
        self._examined_s = float("-inf")

    # --- dialling -------------------------------------------------------------------------------------------

    async def dial(self, host: str, port: int) -> tuple[trio.abc.Stream, Certificate]:
        """Connect with the office there, and authenticate it. Raises NoContact."""
        stream = await self._through_proxy(host, port)
        if stream is None:
            stream = await self._connect(host, port, HANDSHAKE_S)
        shorten_kernel_queue(socket_of(stream))
        tls, certificate = await self._tls.greet(stream)
        self._problems.pop(str(Address(host, port)), None)
        return tls, certificate

    async def admit(self, stream: trio.abc.Stream) -> trio.abc.Stream:
        """A contact with the office that came about in another way: counted like those that were dialled here.

        Raises NoContact, with the stream closed, if its bytes are used up.
        """
        interface = interface_of(socket_of(stream), _own_addresses())
        if interface is None or _counted(stream) is not None or not self._rules.is_metered(interface):
            return stream
        if not self._meter.is_open():
            await trio.aclose_forcefully(stream)
            raise _not_allowed([Failure.BUDGET])
        return Counted(stream, self._on_bytes) if self._meter.counts else stream

    async def _through_proxy(self, host: str, port: int) -> trio.SocketStream | Counted | None:
        """A tunnel to there; None if no proxy is to be used, or it is not there."""
        try:
            proxy = system_proxy(host, port)
            if proxy is None:
                return None
            stream = await self._reach(proxy)
            if stream is not None:
                await tunnel(stream, proxy, host, port)
        except ProxyTrouble as problem:
            raise NoContact(Clause(problem), Failure.PROXY) from None
        return stream

    async def _reach(self, proxy: Proxy) -> trio.SocketStream | Counted | None:
        try:
            return await self._connect(proxy.host, proxy.port, PROXY_S)
        except NoContact as problem:
            if problem.failure in (Failure.INTERFACE, Failure.BUDGET):
                raise
            return None

    async def _connect(self, host: str, port: int, within_s: float) -> trio.SocketStream | Counted:
        """A TCP connection as the rules want it. Raises NoContact."""
        with trio.move_on_after(within_s):
            try:
                return await self._connect_by_rules(host, port)
            except (OSError, UnicodeError) as error:
                raise unreached(error) from None
        raise NoContact("no answer", Failure.SILENT)

    async def _connect_by_rules(self, host: str, port: int) -> trio.SocketStream | Counted:
        present = sorted({name for name, _ in _own_addresses()})
        forbidden = {name: why for name in present if (why := self._forbids(name))}
        if not forbidden or _is_loopback(host):
            return await self._checked(await connect(host, port))
        allowed = [name for name in present if name not in forbidden]
        if not allowed:
            raise _not_allowed(forbidden.values())
        try:
            stream = await connect_by_any(host, port, allowed)
        except CannotBindError:
            stream = await connect(host, port)
        return await self._checked(stream)

    def _forbids(self, interface: str) -> Failure | None:
        return self._rules.forbids(interface, budget_open=self._meter.is_open())

    async def _checked(self, stream: trio.SocketStream) -> trio.SocketStream | Counted:
        """The connection, counted if it is to be; closed if it may not be used. Raises NoContact."""
        interface = interface_of(stream, _own_addresses())
        if interface is None:
            return stream
        if why := self._forbids(interface):
            await trio.aclose_forcefully(stream)
            raise _not_allowed([why])
        if self._meter.counts and self._rules.is_metered(interface):
            return Counted(stream, self._on_bytes)
        return stream

    # --- the budget -----------------------------------------------------------------------------------------

    def _on_bytes(self, size_bytes: int) -> None:
        self._meter.add(size_bytes)
        if self._open and not self._meter.is_open():
            for close in list(self._open.values()):
                close(str(_OVER))

    def hold(self, stream: trio.abc.Stream, close: Callable[[str], None]) -> None:
        """A contact with the office is open on `stream`: `close(reason)` is called when its bytes are used up."""
        if (counted := _counted(stream)) is not None:
            self._open[counted] = close

    def let_go(self, stream: trio.abc.Stream) -> None:
        """The contact on `stream` is over."""
        if (counted := _counted(stream)) is not None:
            self._open.pop(counted, None)

    def save(self) -> None:
        """Remember what was spent, before the end."""
        self._meter.save()

    # --- why not --------------------------------------------------------------------------------------------

    def problem(self, addresses: Iterable[str]) -> Problem | None:
        """Why the office is not reached at these addresses, of those that were tried."""
        return most_telling(self._problems[each] for each in addresses if each in self._problems)

    def network_changed(self) -> None:
        """What was found out holds no longer."""
        self._problems.clear()
        self._webs.clear()
        self._examined_s = float("-inf")

    async def examine(self, address: str, failed: MeshnodeError) -> None:
        """Find out why the dial of `address` failed."""
        if not isinstance(failed, NoContact):
            return  # what is no address was not dialled
        host = parse_address(address).host
        connected = _is_loopback(host) or any(not _is_link_local(ip) for _, ip in _own_addresses())
        self._conclude(address, failed, connected=connected)
        if connected and needs_web(failed.failure) and trio.current_time() - self._examined_s >= EXAMINE_S:
            self._examined_s = began_s = trio.current_time()
            web = await self._web(host)
            if self._examined_s != began_s:
                return  # the network has changed meanwhile
            self._webs[host] = web
            self._conclude(address, failed, connected=connected)

    def _conclude(self, address: str, failed: NoContact, *, connected: bool) -> None:
        host = parse_address(address).host
        self._problems[address] = classify(
            failed.failure, failed, host, connected=connected, web=self._webs.get(host)
        )

    async def _web(self, host: str) -> Web | None:
        try:
            stream = await self._connect(host, self._web_port, PROXY_S)
        except NoContact:
            return None
        return await look_at_web(stream, host)


def _not_allowed(reasons: Iterable[Failure]) -> NoContact:
    why = Failure.BUDGET if Failure.BUDGET in reasons else Failure.INTERFACE
    return NoContact(_NOT_ALLOWED[why], why)


def _own_addresses() -> list[tuple[str, str]]:
    """(interface, IP address) of all interfaces but loopback; nothing where the system cannot say."""
    try:
        return [(each.name, each.ip) for each in network.addresses()]
    except OSError:
        return []


def _is_link_local(ip: str) -> bool:
    """Whether an address came about without anybody's doing; such a network leads nowhere."""
    return ipaddress.ip_address(ip.partition("%")[0]).is_link_local


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _counted(stream: trio.abc.Stream) -> Counted | None:
    inner = stream.transport_stream if isinstance(stream, TlsStream) else stream
    return inner if isinstance(inner, Counted) else None

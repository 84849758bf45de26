"""What a daemon stands in: the network, the disk's size, threads, the wall clock and chance.

`Daemon` reaches all of these through one `Outside`, so that the same daemon runs in a simulated place on virtual time.
`Sockets` is the real one: TCP and TLS, worker threads, the system's clock and randomness.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import trio

from meshnode.app.home import Home, Membership
from meshnode.app.passphrase import node_passphrase
from meshnode.core.identity import Certificate
from meshnode.core.state import Identity, OfficeKeys
from meshnode.drivers import network
from meshnode.drivers.link import shorten_kernel_queue
from meshnode.drivers.network import LocalNetwork
from meshnode.drivers.tls import Credentials, Tls
from meshnode.drivers.uplink import socket_of

#: Open files at most: contacts, those at the door, and each of them once more while it is being closed. A Mac gives
#: 256 to a process that does not ask.
FILES: Final = 2048

T = TypeVar("T")


class Outside(Protocol):
    """Everything around one daemon. Called in trio's thread only."""

    def run_sync(self, sync_fn: Callable[[], T], /) -> Awaitable[T]:
        """Run what blocks; not to be cancelled while it runs."""

    def caller(self, stream: trio.abc.Stream) -> tuple[str, int] | None:
        """Host and port from which a stream came in; None if it has hung up before we looked."""

    async def accept(self, stream: trio.abc.Stream) -> tuple[trio.abc.Stream, Certificate]:
        """Authenticate who has connected. Raises NoContact."""

    async def dial(self, host: str, port: int) -> tuple[trio.abc.Stream, Certificate]:
        """Connect and authenticate. Raises NoContact."""

    def local_host(self, stream: trio.abc.Stream) -> str | None:
        """This device's own IP address on an authenticated stream; None where it has none that could change."""

    async def watch(self, on_change: Callable[[], None], *, task_status: trio.TaskStatus[None]) -> None:
        """Call `on_change` after each change of the network, until cancelled; none is missed after the start."""

    def own_hosts(self) -> list[str]:
        """All IP addresses that this device has now; nothing when the system cannot say."""

    def local_networks(self) -> list[LocalNetwork]:
        """Where neighbours can be: this device's addresses there, with their networks. Called in any thread. Raises
        OSError."""

    def gateways(self) -> list[str]:
        """The default gateways' IP addresses."""

    def asleep_s(self) -> float:
        """How long this machine has been suspended in all; always 0 where the system cannot say."""

    def disk(self, path: Path) -> tuple[int, int]:
        """(bytes in all, bytes free) of the disk under `path`. Raises OSError."""

    def wall_ms(self) -> int:
        """The wall clock, which may be wrong: ms since 1970."""

    def entropy(self, size: int) -> bytes:
        """So many random bytes."""


def identity_of(membership: Membership) -> Identity:
    """What the brain needs of a home's papers."""
    office = membership.office
    keys = None if office is None else OfficeKeys(office.endpoint.id, office.signing_key)
    return Identity(membership.certificate, membership.key, membership.authority, membership.document, keys)


def credentials_of(home: Home, membership: Membership) -> Credentials:
    """What TLS needs of a home. Raises EmptyPassphrase or FileTrouble."""
    papers = home.device_key_path, home.certificate_path, home.authority_path
    return Credentials(*papers, membership.authority, node_passphrase())


class Sockets:
    """The real `Outside` of a device with these credentials."""

    def __init__(self, credentials: Credentials) -> None:
        self.tls = Tls(credentials)

    def run_sync(self, sync_fn: Callable[[], T], /) -> Awaitable[T]:
        """In a worker thread."""
        return trio.to_thread.run_sync(sync_fn)

    def caller(self, stream: trio.abc.Stream) -> tuple[str, int] | None:
        """As `Outside.caller`."""
        try:
            name = socket_of(stream).socket.getpeername()
        except OSError:
            return None
        return _host_in(name), name[1]

    async def accept(self, stream: trio.abc.Stream) -> tuple[trio.abc.Stream, Certificate]:
        """As `Outside.accept`."""
        tls, certificate = await self.tls.accept(socket_of(stream))
        shorten_kernel_queue(tls.transport_stream)
        return tls, certificate

    async def dial(self, host: str, port: int) -> tuple[trio.abc.Stream, Certificate]:
        """As `Outside.dial`."""
        tls, certificate = await self.tls.dial(host, port)
        shorten_kernel_queue(tls.transport_stream)
        return tls, certificate

    def local_host(self, stream: trio.abc.Stream) -> str | None:
        """As `Outside.local_host`."""
        return _host_in(socket_of(stream).socket.getsockname())

    async def watch(self, on_change: Callable[[], None], *, task_status: trio.TaskStatus[None]) -> None:
        """As `Outside.watch`."""
        await network.watch(on_change, task_status=task_status)

    def own_hosts(self) -> list[str]:
        """As `Outside.own_hosts`."""
        try:
            return [address.ip for address in network.addresses()]
        except OSError:
            return []

    def local_networks(self) -> list[LocalNetwork]:
        """As `Outside.local_networks`."""
        return network.local_networks()

    def gateways(self) -> list[str]:
        """As `Outside.gateways`."""
        return network.default_gateways()

    def asleep_s(self) -> float:
        """As `Outside.asleep_s`: of two clocks of Linux, one stands still meanwhile."""
        if sys.platform != "linux":
            return 0.0
        return time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic()

    def disk(self, path: Path) -> tuple[int, int]:
        """As `Outside.disk`."""
        usage = shutil.disk_usage(path)
        return usage.total, usage.free

    def wall_ms(self) -> int:
        """As `Outside.wall_ms`."""
        return time.time_ns() // 1_000_000

    def entropy(self, size: int) -> bytes:
        """From the system's source."""
        return os.urandom(size)


def allow_files() -> None:
    """Have the system let this process open so many files as its contacts can need; it mostly does."""
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _host_in(name: tuple[Any, ...]) -> str:
    """The IP address in what a socket says of one of its ends, with its zone, without which it leads nowhere."""
    host: str = name[0]
    return f"{host}%{network.zone_of(name[3])}" if len(name) == 4 and name[3] else host

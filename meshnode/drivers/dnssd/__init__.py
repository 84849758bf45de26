"""Finds the devices of the same fleet on the local network, and is found: DNS-SD over mDNS (RFC 6762, 6763).

A device is the service instance `<device id>._meshnode._tcp.local.` on the host `<device id>.local.`. Its
TXT record says `v=1`, `fleet` and `id` in hexadecimal, `roles` separated by commas, and `uplink` 0 or 1.
Anybody on the network can read and forge all of it: a sighting is a reason to dial, no more. A last key, `n`,
is drawn anew for each announcement, so that news is never taken for a repetition of what was said before.
Over IPv6 as over IPv4: a network may have either, and link-local addresses are enough.

A **sighting** is told whenever somebody is heard, not only when the set of known services changes. Who left
without a goodbye and comes back announces what is still in everybody's cache, and is to be dialled at once
all the same. What is heard again unchanged is told once in `REPEAT_S`.

After a **change of the network** everything is made anew: the multicast memberships, which the kernel
forgets with an interface; the announcement, with the present addresses; and the question, without the
answers known from before, since known answers silence those who are still here. There is no goodbye, because
it would reach those who stay. There is no probing (RFC 6762 section 8.1), which takes 1.5 s: names are
unique by construction. Lost packets, and switches that forward nothing in their first 30 s, are made up for
by asking again every `ASK_AGAIN_S`, once, with the known answers.

A network that misbehaves costs a line in the log; what failed is tried again at the next change or question.
zeroconf lives on asyncio, so `Discovery` gives it a loop in a thread of its own; all that touches zeroconf is in
`responder`, which runs on that loop only. What is said is in `announcement`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable
from typing import Any

import trio

from meshnode.drivers.dnssd.announcement import Announcement, Sighting
from meshnode.drivers.dnssd.responder import Responder

__all__ = ["Announcement", "Discovery", "Sighting"]

#: Of a flood of invented devices, no more than this is kept in memory, heard and not yet read.
_UNREAD_MAX = 1024

_log = logging.getLogger("meshnode.dnssd")


class Discovery:
    """Announces this device and tells of the others of its fleet, while `run` runs.

    `on_sighting` is called in the task that runs `run`. `addresses` gives the IP addresses to be found at, with
    zones; it is called from another thread, at the start and after each change, and may raise OSError.
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
        self._running: tuple[asyncio.AbstractEventLoop, Responder] | None = None

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
        responder = Responder(self._announcement, self._addresses, tell)
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


async def _run_in_thread(runner: asyncio.Runner, responder: Responder) -> None:
    def run() -> None:
        with runner:
            runner.get_loop().set_exception_handler(_log_from_loop)
            runner.run(responder.run())

    # `stop` ends it, not cancellation: the loop is to be run, say goodbye and be closed in any case.
    with trio.CancelScope(shield=True):
        await trio.to_thread.run_sync(run, limiter=trio.CapacityLimiter(1))


def _log_from_loop(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    _log.error("%s: %r", context["message"], context.get("exception"))

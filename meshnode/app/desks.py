"""The desks of one daemon: one for messages to this device, and at an office one for the office's.

Both hand messages to a sink and sign for them; they differ in the keys, in where messages go, and in whose are taken.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import trio

from meshnode.app.config import OfficeConfig
from meshnode.app.home import Home, Membership
from meshnode.app.outside import Outside
from meshnode.app.received import FOLDER, Inbox
from meshnode.app.report import OfficeView
from meshnode.core.identity import Certificate, DeviceId, JournalId
from meshnode.core.intervals import Ranges
from meshnode.core.sealing import SealingKey
from meshnode.core.state import State
from meshnode.core.words import Words, say
from meshnode.office.desk import Desk, NotQuarantined, SetAside
from meshnode.office.opening import Read
from meshnode.office.sinks import make_sink
from meshnode.office.sinks.directory import DirectorySink

OnTaken = Callable[[JournalId, Ranges], None]


class Desks:
    """`inbox` is what the office has written to this device."""

    def __init__(
        self,
        home: Home,
        membership: Membership,
        config: OfficeConfig,
        state: State,
        outside: Outside,
        *,
        read: Read,
        on_taken: OnTaken,
        on_rotten: Callable[[JournalId, int], None],
        log: Callable[..., None],
    ) -> None:
        self._outside = outside
        self._on_taken = on_taken
        self._came = trio.Event()
        self.inbox = Inbox(home.path / FOLDER)
        make = partial(Desk, state=state, read=read, on_rotten=on_rotten, log=log, run_sync=outside.run_sync)
        own = membership.sealing_key
        self._own = make(
            endpoint=membership.certificate.device,
            keys={own.public.key_id: own},
            sink=DirectorySink(home.path / FOLDER, lambda: state.floor_bytes),
            on_taken=self._received,
            refuses=_refuses,
        )
        self._office: Desk | None = None
        if membership.office is not None:
            key: SealingKey = membership.office.sealing_key
            self._office = make(
                endpoint=membership.office.endpoint.id,
                keys={key.public.key_id: key},
                sink=make_sink(config.sink, home.path, config.http, lambda: state.floor_bytes),
                on_taken=on_taken,
            )

    def wake(self, journal: JournalId) -> None:
        """Bundles that end here have come."""
        self._own.wake(journal)
        if self._office is not None:
            self._office.wake(journal)

    def office_view(self) -> OfficeView | None:
        """What the office's desk has to say, at an office."""
        desk = self._office
        if desk is None:
            return None
        return OfficeView(desk.problem, dict(desk.quarantined), list(desk.restored))

    def set_aside(self, *, own: bool = False) -> list[SetAside]:
        """At an office: what is kept and not handed on, what can be tried again first. `own`: with what was written to
        this device."""
        desks = [desk for desk in (self._office, self._own if own else None) if desk is not None]
        refused = [it for desk in desks for it in desk.refused()]
        return refused + [it for desk in desks for it in desk.contradictions()]

    @property
    def restored_devices(self) -> set[DeviceId]:
        """Devices whose store seems to be a copy of an older one."""
        return set() if self._office is None else self._office.restored_devices

    async def retry(self, key: str) -> str:
        """As `Desk.retry`, of the office's desk. Raises NotQuarantined."""
        if self._office is None:
            raise NotQuarantined(key=key)
        return await self._office.retry(key)

    async def run(self) -> None:
        """Work until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._own.run)
            if self._office is not None:
                nursery.start_soon(self._office.run)
            await self._keep_inbox()

    def _received(self, journal: JournalId, ranges: Ranges) -> None:
        self._on_taken(journal, ranges)
        self._came.set()

    async def _keep_inbox(self) -> None:
        while True:
            await self._outside.run_sync(self.inbox.read)
            await self._came.wait()
            self._came = trio.Event()


def _refuses(source: Certificate) -> Words | None:
    return (
        None
        if source.role == "office"
        else say("{name} is no office, and only an office writes to devices", name=source.name)
    )

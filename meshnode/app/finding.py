"""Everything that looks for neighbours: DNS-SD, probes, and the gateways of the network.

What each of them hears becomes an event for the brain: an address where somebody may answer, and no more.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Interface

import trio

from meshnode.app.addresses import Address
from meshnode.app.outside import Outside
from meshnode.core.dialing import MESH_PORT, PROBE, SIGHTED
from meshnode.core.identity import DeviceId
from meshnode.core.ports import Event, Gateways, Sighted
from meshnode.drivers.dnssd import Announcement, Discovery, Sighting
from meshnode.drivers.probe import Probe, Prober


class Finding:
    """Finds others for one device and lets it be found, while `run` runs.

    `is_alone`: whether this device has no contact, and so a reason to look harder.
    """

    def __init__(
        self,
        own: Announcement,
        outside: Outside,
        dispatch: Callable[[Event], None],
        is_alone: Callable[[], bool],
    ) -> None:
        self._outside = outside
        self._dispatch = dispatch
        self._discovery = Discovery(own, self._on_sighting, self._local_hosts)
        self._prober = Prober(
            Probe(own.fleet, own.device, own.port), self._on_probe, self._local_ipv4, is_alone, MESH_PORT
        )

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Find and be found, until cancelled."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self._discovery.run)
            await nursery.start(self._prober.run)
            self._find_gateways()
            task_status.started()

    def network_changed(self) -> None:
        """Look anew: the network may have become another one."""
        self._discovery.network_changed()
        self._prober.network_changed()
        self._find_gateways()

    def announce(self, own: Announcement) -> None:
        """Tell others this of the device from now on. The ids and the port must be what they were."""
        self._discovery.update(own)

    def _find_gateways(self) -> None:
        own = self._outside.own_hosts()  # the phone that runs the hotspot is its own gateway
        gateways = [host for host in self._outside.gateways() if host not in own]
        self._dispatch(Gateways(tuple(str(Address(host, MESH_PORT)) for host in gateways)))

    def _on_sighting(self, sighting: Sighting) -> None:
        self._heard(sighting.address, sighting.device, SIGHTED)

    def _on_probe(self, device: bytes, address: tuple[str, int]) -> None:
        self._heard(address, device, PROBE)

    def _heard(self, address: tuple[str, int], device: bytes, source: str) -> None:
        self._dispatch(Sighted(str(Address(*address)), DeviceId(device), source))

    # Called in discovery's own thread, too.

    def _local_hosts(self) -> list[str]:
        return [str(each).partition("/")[0] for each in self._outside.local_networks()]

    def _local_ipv4(self) -> list[IPv4Interface]:
        return [each for each in self._outside.local_networks() if isinstance(each, IPv4Interface)]

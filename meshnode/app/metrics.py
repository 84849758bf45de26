"""What a node tells Prometheus: the list of all metrics, and where they are served.

    GET /metrics    on the control interface, with its token; and without a token on `[metrics] listen`, if that is set

Names begin with `meshnode_`, say their unit last (`_seconds`, `_bytes`; what is counted, as `_bundles`, where there is
none), and end with `_total` if they only grow while the daemon runs. Yes and no are 1 and 0. `METRICS` is the whole
list: the exposition refuses what does not stand there, and docs/metrics.md is checked against it.

How many series there are does not depend on what others send: labels are codes of this program, and at an office the
names of devices that the authority has admitted. Nothing else that is about a person is in here, and no content.

The library is loaded at the first scrape: a device in the field is never asked.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import trio
from hypercorn.config import Config as ServerConfig
from hypercorn.trio import serve
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

if TYPE_CHECKING:
    from meshnode.app.daemon import Daemon

GAUGE, COUNTER, HISTOGRAM = "gauge", "counter", "histogram"
#: An answer on the open address is given again for so long, whoever asks how often.
KEPT_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric: `text` says what it is. `office`: only an office has it."""

    name: str
    kind: str
    text: str
    labels: tuple[str, ...] = ()
    office: bool = False

    @property
    def samples(self) -> tuple[str, ...]:
        """The names under which Prometheus keeps it."""
        if self.kind == HISTOGRAM:
            return tuple(f"{self.name}_{end}" for end in ("bucket", "count", "sum"))
        return (self.name,)


def _office(name: str, text: str, *labels: str, kind: str = GAUGE) -> Metric:
    return Metric(f"meshnode_{name}", kind, text, labels, office=True)


def _gauge(name: str, text: str, *labels: str) -> Metric:
    return Metric(f"meshnode_{name}", GAUGE, text, labels)


def _counter(name: str, text: str, *labels: str) -> Metric:
    return Metric(f"meshnode_{name}", COUNTER, text, labels)


def _histogram(name: str, text: str) -> Metric:
    return Metric(f"meshnode_{name}", HISTOGRAM, text)


METRICS: Final = (
    _gauge("build_info", "Always 1; which version runs, and in which roles.", "version", "roles"),
    _gauge("uptime_seconds", "Since the daemon started."),
    _gauge("fleet_document_version", "Of the fleet document that is followed."),
    _gauge("alarm", "1 while `meshnode status` shows this alarm.", "code", "severity"),
    _histogram("event_loop_lag_seconds", "How late timers went off, since the node was busy."),
    _gauge("uplink", "1 while the office is reached from here."),
    _gauge("uplink_problem", "1 for what keeps the office from being reached, as far as is known.", "code"),
    _gauge("contacts", "Peers in contact."),
    _counter("contacts_opened_total", "Contacts that began."),
    _counter("dial_failures_total", "Attempts to reach a peer that failed; nobody being there is normal."),
    _counter(
        "refused_peers_total",
        "Peers refused: no certificate of this fleet, too many connections, revoked, or not to be met just now.",
        "reason",
    ),
    _counter(
        "peer_faults_total",
        "Contacts ended since the peer broke the protocol: a false signature, an altered bundle, a malformed frame.",
    ),
    _gauge("messages", "Messages submitted on this device, by where they are.", "state"),
    _gauge("answered_messages", "Messages of this device that the registry has answered.", "verdict"),
    _gauge("oldest_waiting_seconds", "Age of the oldest own message that is not delivered; 0 without any."),
    _gauge("inbox_messages", "Messages that the office has written to this device."),
    _gauge("carried_bundles", "Bundles carried for others."),
    _gauge("carried_bytes", "Payload bytes carried for others."),
    _gauge("carried_sources", "Devices whose bundles are carried."),
    _counter("received_bundles_total", "Bundles of other devices that came and are durable here."),
    _counter("received_payload_bytes_total", "Their payload bytes."),
    _counter("sent_bundles_total", "Bundles that were sent to peers."),
    _counter("sent_payload_bytes_total", "Their payload bytes."),
    _histogram(
        "arrival_age_seconds",
        "How old bundles for this node were as they came here: the delay from a device's disk to the office's.",
    ),
    _gauge("store_bytes", "Bytes of the store on disk, without what it can reuse."),
    _gauge("store_quota_bytes", "What may be carried for others at most."),
    _gauge("store_rotten_bundles", "Bundles that this disk has spoilt and that have not come again."),
    _gauge("disk_free_bytes", "Free for this node, the floor included."),
    _gauge("disk_floor_bytes", "What stays free whatever happens."),
    _histogram("commit_duration_seconds", "How long the disk took for each commit of the store."),
    _counter("commit_failures_total", "Commits that the disk did not take."),
    _office("office_sink_trouble", "1 while messages cannot be handed on and wait here."),
    _office(
        "office_quarantined_messages", "Messages that were refused by the sink or by checks, kept apart."
    ),
    _office("office_restored_devices", "Devices whose store seems to be a copy of an older one."),
    _office(
        "officer_last_seen_seconds",
        "Since a device was in contact here or something of it came by others; absent if that is not known.",
        "device",
        "role",
    ),
    _office("officer_delivered_bundles", "Bundles of a device that are delivered.", "device", "role"),
    _office(
        "officer_waiting_bundles",
        "Bundles of a device that are here and not handed on yet.",
        "device",
        "role",
    ),
    _office(
        "officer_missing_bundles",
        "Bundles of a device that are known to exist and have not come.",
        "device",
        "role",
    ),
    _office("officer_gaps", "Runs of missing bundles of a device.", "device", "role"),
    _office(
        "officer_oldest_gap_seconds",
        "How long this office has known that the oldest of them exists; 0 without any, absent if that is not known.",
        "device",
        "role",
    ),
)


def table() -> str:
    """The list as docs/metrics.md has it."""
    lines = ["| metric | kind | labels | what it is |", "| --- | --- | --- | --- |"]
    for it in METRICS:
        labels = ", ".join(f"`{label}`" for label in it.labels)
        where = "At an office. " if it.office else ""
        lines.append(f"| `{it.name}` | {it.kind} | {labels} | {where}{it.text} |")
    return "\n".join(lines) + "\n"


Expose = Callable[[str], tuple[bytes, str]]


def _exposed_by(daemon: Daemon) -> Expose:
    """Given an `Accept` header: the metrics as they are now, and their media type."""
    made: list[Expose] = []

    def expose(accept: str) -> tuple[bytes, str]:
        if not made:
            from meshnode.app.exposition import Exposition

            made.append(Exposition(daemon).expose)
        return made[0](accept)

    return expose


def routes(daemon: Daemon) -> list[Route]:
    """For the control interface."""
    expose = _exposed_by(daemon)

    async def get_metrics(request: Request) -> Response:
        body, media_type = expose(request.headers.get("accept", ""))
        return Response(body, headers={"Content-Type": media_type})

    return [Route("/metrics", get_metrics)]


class Kept:
    """Asks `expose` at most once in KEPT_S for each format, and gives the same answer again meanwhile."""

    def __init__(self, expose: Expose, now_s: Callable[[], float] = trio.current_time) -> None:
        self._expose = expose
        self._now_s = now_s
        self._kept: dict[bool, tuple[float, tuple[bytes, str]]] = {}

    def __call__(self, accept: str) -> tuple[bytes, str]:
        """As `Expose`; of an `Accept` header only whether OpenMetrics is welcome counts, so that few are kept."""
        is_open = "application/openmetrics-text" in accept
        now_s = self._now_s()
        if is_open not in self._kept or now_s - self._kept[is_open][0] >= KEPT_S:
            answer = self._expose("application/openmetrics-text;version=1.0.0" if is_open else "")
            self._kept[is_open] = now_s, answer
        return self._kept[is_open][1]


def make_open_app(daemon: Daemon) -> Starlette:
    """For `[metrics] listen`: the metrics, nothing else, to whoever can reach that address."""
    expose = Kept(_exposed_by(daemon))

    async def get_metrics(request: Request) -> Response:
        if request.headers.get("origin"):
            return PlainTextResponse("Other web pages may not read this.\n", 403)
        body, media_type = expose(request.headers.get("accept", ""))
        return Response(body, headers={"Content-Type": media_type})

    return Starlette(routes=[Route("/metrics", get_metrics)])


async def serve_open(daemon: Daemon, listening: socket.socket, task_status: trio.TaskStatus[None]) -> None:
    """Serve `make_open_app` on this socket until cancelled."""
    server = ServerConfig()
    server.bind = [f"fd://{listening.detach()}"]  # the server closes it
    server.accesslog = server.errorlog = None
    server.graceful_timeout = 1.0
    async with trio.open_nursery() as nursery:
        await nursery.start(serve, make_open_app(daemon), server)
        task_status.started()

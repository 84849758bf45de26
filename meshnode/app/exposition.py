"""The metrics of one daemon in the formats of Prometheus, read off its state at each scrape.

Loaded at the first scrape (`metrics`). What `meshnode status --json` says is taken from there, so that both say the
same; the rest comes from the daemon's tally and, at an office, from its desk and its ledger.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector, CollectorRegistry

from meshnode import __version__
from meshnode.app.metrics import COUNTER, HISTOGRAM, METRICS
from meshnode.app.report import SEVERITIES, WARNING
from meshnode.app.tally import REFUSALS, Histogram
from meshnode.app.watching import Officer
from meshnode.core.custody import CARRIED, DELIVERED, ON_THIS_DEVICE_ONLY
from meshnode.core.uplink import CODES

if TYPE_CHECKING:
    from meshnode.app.daemon import Daemon

_KINDS = {COUNTER: CounterMetricFamily, HISTOGRAM: HistogramMetricFamily}


class _Families:
    """Metric families by name, of those in METRICS; each is told its samples here."""

    def __init__(self) -> None:
        self._labels = {it.name: len(it.labels) for it in METRICS}
        self._families = {
            it.name: _KINDS.get(it.kind, GaugeMetricFamily)(it.name, it.text, labels=it.labels)
            for it in METRICS
        }

    def put(self, name: str, value: float | Histogram, *labels: str) -> None:
        """One sample of `meshnode_<name>`."""
        name = f"meshnode_{name}"
        assert len(labels) == self._labels[name], name
        family = self._families[name]
        if isinstance(value, Histogram):
            rows = value.cumulative()
            buckets = [("+Inf" if bound is None else str(bound), count) for bound, count in rows]
            family.add_metric(labels, buckets, value.sum)
        else:
            family.add_metric(labels, value)

    def told(self) -> Iterator[Metric]:
        """Those that have samples."""
        return (family for family in self._families.values() if family.samples)


class _DaemonCollector(Collector):
    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    def describe(self) -> Iterable[Metric]:
        """None: the names are in METRICS, and a state is read at scrapes only."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """All families, as things are now."""
        families = _Families()
        status = self._daemon.status()
        _put_status(families, status)
        _put_alarms(families, {alarm["code"] for alarm in status["alarms"]})
        _put_tally(families, self._daemon)
        _put_office(families, self._daemon)
        return families.told()


class Exposition:
    """What is told of one daemon and of its process (`process_*`, where the system says it)."""

    def __init__(self, daemon: Daemon) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_DaemonCollector(daemon))
        ProcessCollector(registry=self._registry)

    def expose(self, accept: str) -> tuple[bytes, str]:
        """The metrics in a format that an HTTP `Accept` header allows, and its media type."""
        encode, media_type = choose_encoder(accept)
        return encode(self._registry), media_type


def _put_status(families: _Families, status: dict[str, Any]) -> None:
    """What stands in `meshnode status --json`."""
    put, device, messages = families.put, status["device"], status["messages"]
    put("build_info", 1, __version__, ",".join(device["roles"]))
    put("fleet_document_version", device["fleet_version"])
    put("uplink", status["uplink"])
    problem = status["uplink_problem"]
    for code in CODES:
        put("uplink_problem", problem is not None and problem["code"] == code, code)
    put("contacts", len(status["contacts"]))
    for state in (ON_THIS_DEVICE_ONLY, CARRIED, DELIVERED):
        put("messages", messages[state], state)
    for verdict in ("accepted", "refused"):
        put("answered_messages", messages[verdict], verdict)
    put("oldest_waiting_seconds", status["oldest_waiting_s"] or 0)
    put("inbox_messages", status["received"])
    for what, count in status["carrying"].items():
        if what in ("bundles", "bytes", "sources"):
            put(f"carried_{what}", count)
    store = status["store"]
    put("store_bytes", store["bytes"])
    put("store_quota_bytes", store["quota_bytes"])
    put("disk_free_bytes", store["free_bytes"])
    put("disk_floor_bytes", store["floor_bytes"])


def _put_alarms(families: _Families, codes: set[str]) -> None:
    for code in [*SEVERITIES, *sorted(codes - SEVERITIES.keys())]:
        families.put("alarm", code in codes, code, SEVERITIES.get(code, WARNING))


def _put_tally(families: _Families, daemon: Daemon) -> None:
    """What was counted since the daemon started."""
    put, tally, state = families.put, daemon.tally, daemon.node.state
    put("uptime_seconds", daemon.now().s - state.started.s)
    put("event_loop_lag_seconds", tally.lag)
    put("contacts_opened_total", tally.opened)
    put("dial_failures_total", tally.dial_failures)
    for reason in REFUSALS:
        put("refused_peers_total", tally.refused[reason], reason)
    put("peer_faults_total", state.faults)
    put("received_bundles_total", tally.received_bundles)
    put("received_payload_bytes_total", tally.received_bytes)
    put("sent_bundles_total", tally.sent_bundles)
    put("sent_payload_bytes_total", tally.sent_bytes)
    put("arrival_age_seconds", tally.arrival_age)
    put("store_rotten_bundles", len(state.rotten))
    put("commit_duration_seconds", tally.commits)
    put("commit_failures_total", tally.commit_failures)


def _put_office(families: _Families, daemon: Daemon) -> None:
    """What only an office knows."""
    view, put = daemon.desks.office_view(), families.put
    if view is None:
        return
    put("office_sink_trouble", view.problem is not None)
    put("office_quarantined_messages", len(view.quarantined))
    put("office_restored_devices", len(view.restored))
    for officer in daemon.tally.watch.officers(daemon.node.state):
        _put_officer(families, officer)


def _put_officer(families: _Families, officer: Officer) -> None:
    labels = officer.name, officer.role
    if officer.seen_s is not None:
        families.put("officer_last_seen_seconds", officer.seen_s, *labels)
    families.put("officer_delivered_bundles", officer.delivered, *labels)
    families.put("officer_waiting_bundles", officer.waiting, *labels)
    families.put("officer_missing_bundles", officer.missing, *labels)
    families.put("officer_gaps", officer.gaps, *labels)
    if officer.oldest_gap_s is not None:
        families.put("officer_oldest_gap_seconds", officer.oldest_gap_s, *labels)

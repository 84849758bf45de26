"""What a node tells Prometheus: real daemons are scraped, and the documents beside it are held to the code's list."""

from __future__ import annotations

import contextlib
import http.client
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text

from meshnode.app.addresses import Address
from meshnode.app.config import parse_config
from meshnode.app.metrics import KEPT_S, METRICS, Kept
from meshnode.app.report import SEVERITIES
from meshnode.app.tally import Histogram, Tally, TimedStore
from meshnode.app.watching import Officer, Watch, officers
from meshnode.core.bundle import Bundle
from meshnode.core.errors import BadConfig, StoreTrouble
from meshnode.core.frames import Have, Held
from meshnode.core.identity import JournalId
from meshnode.core.intervals import Ranges
from meshnode.core.ports import Lost, SendBundle, Sent, Taken, Tick, Unreadable
from meshnode.core.rows import Row
from meshnode.drivers.sqlite import SqliteStore
from tests.app.fleets import Fleet, Node, connect, free_port
from tests.core.fleets import Fleet as Members
from tests.core.fleets import Source
from tests.core.hosts import Clock, Host

OPENMETRICS = "application/openmetrics-text;version=1.0.0"
#: Of the process, where the system tells; the documents use two of them.
PROCESS = {
    "process_start_time_seconds",
    "process_resident_memory_bytes",
    "process_virtual_memory_bytes",
    "process_cpu_seconds_total",
    "process_open_fds",
    "process_max_fds",
}
JOURNAL = JournalId(b"j" * 16)
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def fetch(address: tuple[str, int], path: str = "/metrics", **headers: str) -> tuple[int, str, bytes]:
    """Status, media type and body."""
    connection = http.client.HTTPConnection(*address, timeout=20)
    try:
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        return response.status, response.headers["content-type"], response.read()
    finally:
        connection.close()


def page(node: Node, **headers: str) -> tuple[int, str, bytes]:
    """By the control interface, with its token."""
    host, port, token = node.door()
    return fetch((host, port), Authorization=f"Bearer {token}", **headers)


def scraped(node: Node) -> Samples:
    status, _, body = page(node)
    assert status == 200, body
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in read_text(body.decode())
        for sample in family.samples
    }


def value(node: Node, name: str, **labels: str) -> float:
    return scraped(node)[f"meshnode_{name}", tuple(sorted(labels.items()))]


def open_address(node: Node) -> tuple[str, int]:
    match = re.search(r"the metrics are at http://([0-9.]+):([0-9]+)/metrics", node.log())
    assert match is not None, node.log()
    return match[1], int(match[2])


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """An office, and ana, whose one record is delivered."""
    with Fleet(tmp_path_factory.mktemp("fleet")) as fleet:
        office, ana = fleet.enroll("kantor", "office"), fleet.enroll("ana")
        ana.configure(peers=[office.address])
        with (office.home / "config.toml").open("a") as config:
            config.write(f'[metrics]\nlisten = "127.0.0.1:{free_port()}"\n')
        fleet.start(office, ana)
        ana.give({"Aminah.pdf": bytes(600_000)}, kind="surat", meta={"nik": "3206"}, reference="Ibu Aminah")
        fleet.until("it is delivered", lambda: ana.states() == ["delivered"])
        yield fleet


@pytest.fixture
def ana(fleet: Fleet) -> Node:
    return fleet.nodes["ana"]


@pytest.fixture
def office(fleet: Fleet) -> Node:
    return fleet.nodes["kantor"]


# --- what is told ---


@pytest.mark.parametrize(
    ("accept", "media_type", "read"),
    [
        ("", "text/plain; version=0.0.4", read_text),
        ("*/*", "text/plain; version=0.0.4", read_text),
        (OPENMETRICS, "application/openmetrics-text; version=1.0.0", read_openmetrics),
    ],
)
def test_what_is_told_is_what_the_list_says(
    office: Node, accept: str, media_type: str, read: Callable[[str], Iterator[Metric]]
) -> None:
    status, told_type, body = page(office, Accept=accept)
    assert status == 200
    assert told_type.startswith(media_type)
    families = {
        family.name + ("_total" if family.type == "counter" else ""): family for family in read(body.decode())
    }
    listed = {it.name: it for it in METRICS}
    # an office that has met somebody has all there is
    assert {name for name in families if name.startswith("meshnode_")} == set(listed)
    assert families.keys() - listed.keys() <= PROCESS
    for name, it in listed.items():
        assert families[name].type == it.kind
        assert families[name].documentation == it.text
        assert {sample.name for sample in families[name].samples} == set(it.samples)
        for sample in families[name].samples:
            assert set(sample.labels) - {"le"} == set(it.labels)


def test_only_an_office_has_what_is_of_an_office_and_names_devices(fleet: Fleet, ana: Node) -> None:
    told = scraped(ana)
    names = {name for name, _ in told if name.startswith("meshnode_")}
    assert names == {name for it in METRICS if not it.office for name in it.samples}
    words = {word for _, labels in told for _, word in labels}
    for node in fleet.nodes.values():
        assert not words & {node.name, node.device, "Tasikmalaya"}


def test_the_figures_of_a_delivery(fleet: Fleet, office: Node, ana: Node) -> None:
    # three bundles of the record, and one each by which they introduce themselves
    fleet.until("the office has all", lambda: value(office, "received_bundles_total") == 4)
    fleet.until("ana has the office's", lambda: value(ana, "received_bundles_total") == 1)
    fleet.until("ana knows what it has sent", lambda: value(ana, "sent_bundles_total") == 4)
    own, others = ana.get("status"), scraped(office)
    told = scraped(ana)
    state = {
        key: told["meshnode_messages", (("state", key),)] for key in ("on_this_device_only", "delivered")
    }
    assert state == {"on_this_device_only": 0, "delivered": 1}
    assert told["meshnode_contacts", ()] == 1
    assert told["meshnode_contacts_opened_total", ()] >= 1
    assert told["meshnode_store_quota_bytes", ()] == own["store"]["quota_bytes"]
    assert told["meshnode_disk_floor_bytes", ()] == own["store"]["floor_bytes"]
    assert told["meshnode_uplink", ()] == own["uplink"]
    assert others["meshnode_received_payload_bytes_total", ()] > 600_000
    assert (
        told["meshnode_sent_payload_bytes_total", ()] == others["meshnode_received_payload_bytes_total", ()]
    )
    assert others["meshnode_arrival_age_seconds_count", ()] == 3
    assert others["meshnode_arrival_age_seconds_bucket", (("le", "300.0"),)] == 3
    assert others["meshnode_commit_duration_seconds_count", ()] > 0
    assert others["meshnode_commit_duration_seconds_sum", ()] > 0
    device = (("device", "ana"), ("role", "officer"))
    assert others["meshnode_officer_delivered_bundles", device] == 3
    assert others["meshnode_officer_last_seen_seconds", device] == 0
    assert others["meshnode_officer_missing_bundles", device] == 0
    assert others["meshnode_officer_waiting_bundles", device] == 0
    assert {labels for name, labels in others if name.startswith("meshnode_officer_")} == {device}


def test_nothing_of_what_is_recorded_is_told(office: Node, ana: Node) -> None:
    for node in (office, ana):
        body = page(node)[2]
        for word in (b"Aminah", b"3206", b"surat"):
            assert word not in body


def test_alarms_are_told_by_their_codes(ana: Node) -> None:
    told = scraped(ana)
    up = {alarm["code"] for alarm in ana.get("status")["alarms"]}
    for code, severity in SEVERITIES.items():
        assert told["meshnode_alarm", (("code", code), ("severity", severity))] == (code in up)


def test_a_stranger_is_counted(fleet: Fleet, office: Node) -> None:
    before = value(office, "refused_peers_total", reason="certificate")
    with connect(office.host, office.port) as stranger:
        stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
        fleet.until(
            "he was refused",
            lambda: value(office, "refused_peers_total", reason="certificate") == before + 1,
        )


def test_who_was_away_is_known_after_a_start(tmp_path: Path) -> None:
    with Fleet(tmp_path) as fleet:
        office, ana = fleet.enroll("kantor", "office"), fleet.enroll("ana")
        ana.configure(peers=[office.address])
        fleet.start(office, ana)
        ana.give({"f": b"1"})
        fleet.until("it is delivered", lambda: ana.states() == ["delivered"])
        ana.stop()
        office.stop()
        fleet.start(office)
        told = scraped(office)
        device = (("device", "ana"), ("role", "officer"))
        assert 0 <= told["meshnode_officer_last_seen_seconds", device] < 60
        assert told["meshnode_officer_delivered_bundles", device] == 1
        assert told["meshnode_received_bundles_total", ()] == 0


# --- who is told ---


def test_on_the_control_interface_the_token_is_asked_for(ana: Node) -> None:
    host, port, token = ana.door()
    assert fetch((host, port))[0] == 401
    assert fetch((host, port), Authorization=f"Bearer {token}x")[0] == 401
    assert fetch((host, port), Authorization=f"Bearer {token}", Host="evil.example")[0] == 403


def test_on_the_open_address_there_are_the_metrics_and_nothing_else(office: Node) -> None:
    address = open_address(office)
    for headers in ({}, {"Host": "office.example:9776"}, {"Accept": OPENMETRICS}):
        status, _, body = fetch(address, **headers)
        assert status == 200
        assert b"meshnode_build_info" in body
    token = office.door()[2]
    for path in ("/", "/v1/status", "/v1/messages", "/metrics/", "/metrics/x"):
        assert fetch(address, path, Authorization=f"Bearer {token}")[0] in (307, 404)
    assert fetch(address, Origin="http://evil.example")[0] == 403
    connection = http.client.HTTPConnection(*address, timeout=20)
    connection.request("POST", "/metrics", b"x")
    assert connection.getresponse().status == 405
    connection.close()


def test_who_asks_the_open_address_often_gets_the_same_answer() -> None:
    asked: list[str] = []
    now_s = [100.0]

    def expose(accept: str) -> tuple[bytes, str]:
        asked.append(accept)
        return str(len(asked)).encode(), "text"

    kept = Kept(expose, lambda: now_s[0])
    assert [kept(accept)[0] for accept in ("", "text/plain", OPENMETRICS, f"a, {OPENMETRICS}", "")] == [
        b"1",
        b"1",
        b"2",
        b"2",
        b"1",
    ]
    now_s[0] += KEPT_S - 0.01
    assert kept("")[0] == b"1"
    now_s[0] += 0.01
    assert kept("")[0] == b"3"
    assert asked == ["", OPENMETRICS, ""]


def test_both_pages_are_the_same(office: Node) -> None:
    def names(body: bytes) -> set[str]:
        return {sample.name for family in read_text(body.decode()) for sample in family.samples}

    assert names(fetch(open_address(office))[2]) == names(page(office)[2])


def test_an_address_that_is_taken_is_a_sentence(tmp_path: Path) -> None:
    with Fleet(tmp_path) as fleet, socket.create_server(("127.0.0.1", 0)) as taken:
        ana = fleet.enroll("ana")
        with (ana.home / "config.toml").open("a") as config:
            config.write(f'[metrics]\nlisten = "127.0.0.1:{taken.getsockname()[1]}"\n')
        done = ana.run("run")
        assert done.returncode == 1
        assert "metrics.listen" in done.stderr
        assert done.stderr.splitlines()[-1].startswith("meshnode: ")


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("", None),
        ("[metrics]", None),
        ('[metrics]\nlisten = ""', None),
        ('[metrics]\nlisten = "10.20.0.5:9776"', Address("10.20.0.5", 9776)),
        ('[metrics]\nlisten = "[::1]:0"', Address("::1", 0)),
    ],
)
def test_the_open_address_is_off_unless_it_is_set(text: str, address: Address | None) -> None:
    assert parse_config(text, Path("config.toml")).metrics.listen == address


@pytest.mark.parametrize("written", ["9776", '"9776"', '"10.20.0.5"', "true", '" "'])
def test_an_address_that_is_none_is_refused(written: str) -> None:
    with pytest.raises(BadConfig, match=r"`metrics\.listen`"):
        parse_config(f"[metrics]\nlisten = {written}", Path("config.toml"))


@pytest.mark.parametrize(
    ("modules", "absent"),
    [
        ("meshnode.app.serving", "prometheus_client"),
        ("meshnode.app.cli.messages, meshnode.app.cli.checking, meshnode.app.client", "prometheus_client"),
        ("meshnode.app.cli.messages, meshnode.app.cli.checking, meshnode.app.client", "meshnode.app.metrics"),
    ],
)
def test_the_library_is_loaded_at_the_first_scrape_only(modules: str, absent: str) -> None:
    code = f"import sys, {modules}; print({absent!r} in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "False\n"


# --- counting ---


@given(st.lists(st.floats(-1.0, 20.0)))
def test_a_histogram_counts_each_value_once(values: list[float]) -> None:
    histogram = Histogram((0.1, 1.0, 10.0))
    for each in values:
        histogram.add(each)
    kept = [max(0.0, each) for each in values]
    assert histogram.cumulative() == [
        *((bound, sum(each <= bound for each in kept)) for bound in histogram.bounds),
        (None, len(kept)),
    ]
    assert histogram.count == len(kept)
    assert histogram.sum == pytest.approx(sum(kept))


def bundle(number: int, size: int, contact: int = 1) -> SendBundle:
    return SendBundle(contact, JOURNAL, number, size, 0)


def test_sent_bundles_are_told_from_the_bytes_that_went() -> None:
    tally, state = Tally(), Kantor().host.node.state
    for number, size in enumerate((100, 0, 50, 70), 1):
        tally.send(bundle(number, size))
    tally.send(bundle(1, 1000, contact=2))
    tally.heard(Sent(1, 100), state)
    assert (tally.sent_bundles, tally.sent_bytes) == (2, 100)
    tally.heard(Unreadable(1, JOURNAL, 3, 50, rotten=True), state)
    tally.heard(Sent(1, 70), state)
    assert (tally.sent_bundles, tally.sent_bytes) == (3, 170)
    tally.heard(Lost(2, "silent"), state)  # with a bundle that never went
    tally.heard(Sent(1, 0), state)
    assert (tally.sent_bundles, tally.sent_bytes) == (3, 170)


def test_a_bundle_that_the_link_puts_off_counts_in_the_end() -> None:
    tally, state = Tally(), Kantor().host.node.state
    for number, size in enumerate((500, 60, 60), 1):
        tally.send(bundle(number, size))
    for size in (120, 500):
        tally.heard(Sent(1, size), state)
    assert (tally.sent_bundles, tally.sent_bytes) == (3, 620)


class FullStore(SqliteStore):
    def commit(self, rows: list[Row], clock_s: float) -> None:
        raise StoreTrouble(path="store.db", problem="the disk is full")


def test_commits_are_timed_those_that_fail_too(tmp_path: Path) -> None:
    commits = Histogram((10.0,))
    with contextlib.closing(SqliteStore(tmp_path / "store.db")) as store:
        TimedStore(store, commits).commit([], 1.0)
    assert commits.count == 1
    with contextlib.closing(FullStore(tmp_path / "store.db")) as store, pytest.raises(StoreTrouble):
        TimedStore(store, commits).commit([], 1.0)
    assert commits.count == 2


# --- officers ---


class Kantor:
    """An office's brain and store, and what colleagues bring."""

    def __init__(self, role: str = "office") -> None:
        self.members = Members()
        self.clock = Clock()
        self.host = Host(self.members, "kantor", role, clock=self.clock)

    def brings(self, name: str, *bundles: Bundle) -> None:
        """A colleague comes, hands these over, and goes."""
        numbers: dict[JournalId, Ranges] = {}
        for bundle in bundles:
            header = bundle.header
            numbers[header.journal] = numbers.get(header.journal, Ranges()) | Ranges.single(header.number)
        puppet = self.host.meet(name, greet=False)
        puppet.greet(have=Have(True, tuple(Held(journal, ranges, 0) for journal, ranges in numbers.items())))
        puppet.gives(*bundles)
        self.host.settle()
        puppet.lose()

    def officers(self) -> dict[str, Officer]:
        """All that are told, now."""
        self.host.handle(Tick())
        return {officer.name: officer for officer in officers(self.host.node.state)}


def test_officers_of_an_office() -> None:
    kantor = Kantor()
    siti = Source(kantor.members, "siti")
    kantor.brings("budi", *(siti.bundle(number) for number in (1, 3, 6)))
    kantor.clock.s += 250
    told = kantor.officers()
    # she was not here herself, and is heard of all the same; of budi nothing has come, not even his introduction
    assert list(told) == ["siti"]
    assert told["siti"] == Officer("siti", "officer", 250.0, 0, 3, 3, 2, 250.0)

    kantor.host.handle(Taken(siti.journal, Ranges.of([1, 3])))
    kantor.brings("siti", siti.bundle(2))
    assert kantor.officers()["siti"] == Officer("siti", "officer", 0.0, 2, 2, 2, 1, 250.0)
    kantor.host.settle()
    kantor.host.restart()
    kantor.clock.s += 50
    assert kantor.officers()["siti"] == Officer("siti", "officer", 50.0, 2, 2, 2, 1, 300.0)

    kantor.brings("budi", siti.bundle(4), siti.bundle(5))
    assert kantor.officers()["siti"].oldest_gap_s == 0.0


def test_who_is_in_contact_is_seen_now_and_a_clock_that_was_set_back_makes_nobody_younger_than_that() -> None:
    kantor = Kantor()
    kantor.brings("budi", Source(kantor.members, "budi").bundle())
    kantor.clock.s += 500
    assert kantor.officers()["budi"].seen_s == 500.0
    puppet = kantor.host.meet("budi")
    kantor.clock.s += 5
    assert kantor.officers()["budi"].seen_s == 0.0
    puppet.lose()
    kantor.clock.wall_ms = 5
    assert kantor.officers()["budi"].seen_s == 0.0


def test_what_took_long_to_count_is_told_again_for_a_hundred_times_as_long() -> None:
    kantor, moments = Kantor(), [0.0, 0.5, 50.0, 50.5, 51.0]
    watch = Watch(lambda: moments.pop(0))
    state = kantor.host.node.state
    assert watch.officers(state) == []  # counted until 0.5 s, so told until 50.5 s
    kantor.brings("budi", Source(kantor.members, "budi").bundle())
    assert watch.officers(state) == []
    assert [officer.name for officer in watch.officers(state)] == ["budi"]
    assert moments == []


def test_only_an_office_tells_of_officers() -> None:
    kantor = Kantor("gateway")
    kantor.brings("budi", Source(kantor.members, "budi").bundle())
    assert kantor.host.node.state.history.book is not None
    assert kantor.officers() == {}

"""What an office sees of its fleet: how far each device is, who carried what, how long it took, and what is kept."""

from __future__ import annotations

import csv
import http.client
import io
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from meshnode.app.counting import Progress, progress
from meshnode.app.overview import table
from meshnode.core.bundle import Bundle, Previous
from meshnode.core.frames import BundleFrame, Cert, Frame, Have, Held, encode
from meshnode.core.intervals import Ranges
from meshnode.core.ports import Brought, Taken
from meshnode.core.rows import NOBODY, PutCarried, PutDay
from meshnode.core.stick import LENGTH_SIZE
from tests.app.fleets import Fleet, Node, assert_refused
from tests.core.fleets import Fleet as Members
from tests.core.fleets import Source
from tests.core.hosts import Clock, Host
from tests.office.registry import Answer, Request, registry

#: The wall clock of `Clock` at 0 s.
WALL_MS = 1_700_000_000_000


class Office:
    """An office's brain and store, and what colleagues bring."""

    def __init__(self, role: str = "office") -> None:
        self.members = Members()
        self.clock = Clock()
        self.host = Host(self.members, "kantor", role, clock=self.clock)

    def brings(self, name: str, *bundles: Bundle, age_s: int = 0) -> None:
        """A colleague comes, hands these over, and goes."""
        offers: dict[bytes, Ranges] = {}
        for bundle in bundles:
            journal = bundle.header.journal
            offers[journal] = offers.get(journal, Ranges()) | Ranges.single(bundle.header.number)
        puppet = self.host.meet(name, greet=False)
        puppet.greet(have=Have(True, tuple(Held(journal, it, 0) for journal, it in offers.items())))  # type: ignore[arg-type]
        puppet.gives(*bundles, age_s=age_s)
        self.host.settle()
        puppet.lose()

    def takes(self, source: Source, *numbers: int) -> None:
        """The sink takes these."""
        self.host.handle(Taken(source.journal, Ranges.of(numbers)))
        self.host.settle()

    def of(self, name: str) -> Progress:
        """How far that device is."""
        return next(row for row in progress(self.host.node.state) if row.certificate.name == name)

    def restart(self) -> None:
        """A clean end, and a start on the same store."""
        self.host.pass_time(1.0)
        self.host.settle()
        self.host.restart()


def numbers(row: Progress) -> tuple[int, int, int, int]:
    return row.recorded, row.delivered, row.here, row.on_the_way


def test_a_gap_is_named_with_its_device_and_closes() -> None:
    office = Office()
    siti = Source(office.members, "siti")
    office.brings("budi", *(siti.bundle(number) for number in range(1, 43) if number != 13))
    row = office.of("siti")
    assert numbers(row) == (42, 0, 41, 1)
    assert str(row.missing_text()) == "siti: 41 of 42, number 13 still out"
    office.takes(siti, *(number for number in range(1, 43) if number != 13))
    assert numbers(office.of("siti")) == (42, 41, 0, 1)
    office.restart()
    assert numbers(office.of("siti")) == (42, 41, 0, 1)
    office.brings("siti", siti.bundle(13))
    row = office.of("siti")
    assert numbers(row) == (42, 41, 1, 0)
    assert str(row.missing_text()) == "siti: all 42 are here"
    assert row.lacks == []


def test_the_rest_of_a_message_and_several_numbers_are_out() -> None:
    office = Office()
    siti = Source(office.members, "siti")
    office.brings("budi", siti.bundle(1), siti.bundle(4, part=2, parts=4))
    row = office.of("siti")
    assert numbers(row) == (6, 0, 2, 4)
    assert str(row.missing_text()) == "siti: 2 of 6, numbers 2-3, 5-6 still out"


def test_a_later_journal_says_what_is_missing_at_the_end_of_the_one_before() -> None:
    office = Office()
    first = Source(office.members, "siti")
    second = Source(office.members, "siti", b"epoch--2")
    office.brings("budi", first.bundle(1), first.bundle(2))
    assert numbers(office.of("siti")) == (2, 0, 2, 0)
    office.clock.s += 5000
    office.brings("agus", second.bundle(1, previous=Previous(first.journal, 5)))
    row = office.of("siti")
    assert numbers(row) == (6, 0, 3, 3)
    assert row.lacks[0].missing == Ranges.span(3, 5)
    assert row.lacks[0].since_ms == WALL_MS + 6_000_000
    assert not row.restored


def test_a_journal_of_which_nothing_has_come_is_missing_whole() -> None:
    office = Office()
    first, second = Source(office.members, "siti"), Source(office.members, "siti", b"epoch--2")
    office.brings("agus", second.bundle(1, previous=Previous(first.journal, 7)), second.bundle(3))
    row = office.of("siti")
    assert numbers(row) == (10, 0, 2, 8)
    assert str(row.missing_text()) == "siti: 2 of 10, 8 still out, of 2 starts of that device"
    office.brings("agus", first.bundle(7))
    assert numbers(office.of("siti")) == (10, 0, 3, 7)


def test_how_long_something_is_out_is_known_after_a_start_too() -> None:
    office = Office()
    siti = Source(office.members, "siti")
    office.brings("budi", siti.bundle(1))
    office.clock.s += 3600
    office.brings("budi", siti.bundle(3))
    office.clock.s += 3600
    office.brings("agus", siti.bundle(5))
    for _ in range(2):
        (lack,) = office.of("siti").lacks
        assert lack.missing == Ranges([(2, 2), (4, 4)])
        assert lack.since_ms == WALL_MS + 4_600_000
        office.restart()


def test_a_device_that_was_restored_from_a_copy_is_marked() -> None:
    office = Office()
    first = Source(office.members, "siti")
    after = [Source(office.members, "siti", epoch) for epoch in (b"epoch--2", b"epoch--3")]
    office.brings("budi", first.bundle(1))
    for source in after:
        assert not office.of("siti").restored
        office.brings("budi", source.bundle(1, previous=Previous(first.journal, 1)))
    assert office.of("siti").restored
    assert numbers(office.of("siti")) == (3, 0, 3, 0)


def test_who_carried_for_whom_and_how_long_it_took_is_kept() -> None:
    office = Office()
    siti, agus = Source(office.members, "siti"), Source(office.members, "agus")
    office.brings("budi", siti.bundle(1, size=5000), agus.bundle(1), agus.bundle(2), age_s=7200)
    office.brings("siti", siti.bundle(2), age_s=60)
    office.takes(siti, 1, 2)
    office.takes(agus, 1)
    office.restart()
    book = office.host.node.state.history.book
    assert book is not None
    device = office.members.device
    assert {pair: (it.bundles, it.size_bytes) for pair, it in book.totals.items()} == {
        (device("budi"), siti.device): (1, 5000),
        (device("budi"), agus.device): (2, 4000),
        (siti.device, siti.device): (1, 2000),
    }
    ((_, day),) = book.days.items()
    assert (day.messages, day.size_bytes, day.delays.longest_s) == (3, 9000, 7200)
    assert day.delays.quantile_s(0.5) == pytest.approx(7200, rel=0.05)
    assert day.delays.quantile_s(0.3) == pytest.approx(60, rel=0.05)
    assert {name: book.seen[device(name)][1] for name in ("siti", "agus", "budi")} == {
        "siti": device("siti"),
        "agus": device("budi"),
        "budi": device("budi"),
    }


def test_a_message_of_many_bundles_is_one_and_counts_from_its_first() -> None:
    office = Office()
    siti = Source(office.members, "siti")
    office.brings("budi", *(siti.bundle(number, part=number, parts=3) for number in (1, 2)), age_s=100)
    office.clock.s += 900
    office.brings("agus", siti.bundle(3, part=3, parts=3), age_s=2000)
    office.takes(siti, 1, 2, 3)
    book = office.host.node.state.history.book
    assert book is not None
    (day,) = book.days.values()
    assert (day.messages, day.size_bytes, day.delays.longest_s) == (1, 6000, 1000)


def test_many_bundles_are_a_few_rows_in_commits_that_are_made_anyway() -> None:
    office = Office()
    siti = Source(office.members, "siti")
    puppet = office.host.meet("budi", greet=False)
    puppet.greet(have=Have(True, (Held(siti.journal, Ranges.span(1, 300), 0),)))
    office.host.settle()
    written = []
    for number in range(1, 301):
        office.clock.s += 0.01
        puppet.gives(siti.bundle(number), certify=number == 1)
        assert len(office.host.pending) == 1, "no write of its own"
        written += [row for write in office.host.pending for row in write.rows]
        office.host.settle()
    sums = [row for row in written if isinstance(row, PutCarried)]
    assert [row.bundles for row in sums] == sorted(row.bundles for row in sums)
    assert 2 <= len(sums) <= 4, "three seconds"
    assert sum(isinstance(row, PutDay) for row in written) == 0


def test_what_comes_by_hand_was_carried_by_nobody() -> None:
    office = Office()
    siti = Source(office.members, "siti")
    frames: list[Frame] = [Cert(siti.certificate.der)]
    frames += [BundleFrame(0, siti.bundle(number)) for number in (1, 2)]
    office.host.handle(Brought(1, tuple(encode(frame)[LENGTH_SIZE:] for frame in frames)))
    office.host.settle()
    office.restart()
    book = office.host.node.state.history.book
    assert book is not None
    assert {pair: it.bundles for pair, it in book.totals.items()} == {(NOBODY, siti.device): 2}
    assert book.seen[siti.device][1] == NOBODY


def test_only_offices_and_gateways_keep_a_book() -> None:
    for role, keeps in (("office", True), ("gateway", True), ("officer", False)):
        office = Office(role)
        siti = Source(office.members, "siti")
        office.brings("budi", siti.bundle(1))
        office.restart()
        assert (office.host.node.state.history.book is not None) == keeps
        assert bool(office.host.store.load().carried) == keeps
        assert len(office.host.store.load().runs) == 1, "when it came is known everywhere"


# --- tables -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["=1+1", "+62811", "-1", "@SUM(A1)", "\t=1", "\r=1"])
def test_a_spreadsheet_shows_what_it_would_compute(text: str) -> None:
    rows = list(csv.reader(io.StringIO(table(("a", "b"), [{"a": text, "b": -5}]), newline="")))
    assert rows == [["a", "b"], [f"'{text}", "-5"]]


def test_a_table_keeps_what_is_awkward_in_it() -> None:
    told = table(("a", "b"), [{"a": 'Siti "Ibu", Aminah\nCibalong é', "b": None}])
    assert list(csv.reader(io.StringIO(told, newline=""))) == [
        ["a", "b"],
        ['Siti "Ibu", Aminah\nCibalong é', ""],
    ]


# --- real daemons -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with Fleet(tmp_path_factory.mktemp("fleet")) as fleet:
        yield fleet


def csv_of(node: Node, name: str) -> list[dict[str, str]]:
    host, port, token = node.door()
    connection = http.client.HTTPConnection(host, port, timeout=20)
    connection.request("GET", f"/v1/{name}.csv", headers={"Authorization": f"Bearer {token}"})
    response = connection.getresponse()
    assert response.status == 200
    assert response.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert f'filename="{name}.csv"' in response.headers["Content-Disposition"]
    rows = list(csv.DictReader(io.StringIO(response.read().decode("utf-8"), newline="")))
    connection.close()
    return rows


def test_an_office_sees_its_officers_and_tries_again_what_was_refused(fleet: Fleet, tmp_path: Path) -> None:
    refuses = True

    def decide(_: Request) -> Answer:
        return Answer(422, b"no such village") if refuses else Answer()

    office, ana, budi = fleet.enroll("kantor", "office"), fleet.enroll("ana"), fleet.enroll("budi")
    gateway = fleet.enroll("cipatujah", "gateway")
    with registry() as server:
        server.answer = decide
        office.configure(sink=server.url)
        for node in (office, ana, budi, gateway):
            assert node.call("fleet", "update", fleet.publish()).returncode == 0
        budi.configure(peers=[ana.address, office.address])
        gateway.configure(peers=[office.address])
        fleet.start(office, ana, budi, gateway)
        key = ana.give({"photo.jpg": bytes(600_000)}, reference="=Ibu Aminah")["key"]
        (kept,) = fleet.until("it is refused", lambda: office.get("officers")["quarantine"])
        assert kept["key"] == key
        assert (kept["source"], kept["code"], kept["can_retry"]) == ("ana", "refused", True)
        assert "no such village" in kept["reason"]
        assert abs(kept["since_ms"] - time.time() * 1000) < 60_000
        told = json.loads(office.call("why", "--json", key).stdout)
        assert (told["state"], told["source"], told["bundles"]) == ("quarantined", "ana", 3)
        assert [event["code"] for event in told["story"]] == ["came", "set_aside"]
        assert "kept apart" in office.call("officers").stdout

        body = json.dumps({"key": key}).encode()
        assert office.request("POST", "/v1/quarantine/retry", body) == (
            200,
            {"key": key, "state": "quarantined"},
        )
        assert len(server.keys) >= 2
        refuses = False
        assert office.request("POST", "/v1/quarantine/retry", body) == (
            200,
            {"key": key, "state": "delivered"},
        )
        fleet.until("it is delivered", lambda: ana.states() == ["delivered"])
        assert office.get("officers")["quarantine"] == []
        status, answer = office.request("POST", "/v1/quarantine/retry", body)
        assert (status, answer["code"]) == (404, "not-quarantined")
        for wrong in (b"", b"[]", b'{"key": 1}', b'{"key": "a", "more": 1}'):
            status, answer = office.request("POST", "/v1/quarantine/retry", wrong)
            assert (status, answer["code"]) == (422, "bad-request")

        check_overview(fleet, office, key)
        check_tables(office, ana)
        status, answer = ana.request("GET", "/v1/officers")
        assert (status, answer["code"]) == (404, "no-overview")
        assert_refused(ana.call("officers"), "this node is of role officer: ask there.")
        status, answer = ana.request("GET", "/v1/days.csv")
        assert status == 404
        assert [row["name"] for row in gateway.get("officers")["officers"]] == ["ana", "budi"]
        check_after_a_start(fleet, office, key)


def check_overview(fleet: Fleet, office: Node, key: str) -> None:
    fleet.until("all are known", lambda: len(office.get("officers")["officers"]) == 3)
    told = office.get("officers")
    rows = {row["name"]: row for row in told["officers"]}
    ana = rows["ana"]
    assert (ana["role"], ana["revoked"], ana["restored"]) == ("officer", False, False)
    assert (ana["recorded"], ana["delivered"], ana["on_the_way"], ana["missing"]) == (3, 3, 0, [])
    assert ana["last_seen_via"] == "budi"
    assert rows["budi"]["last_seen_via"] is None
    assert rows["budi"]["last_seen_ms"] >= told["now_ms"] - 1000
    assert rows["cipatujah"]["role"] == "gateway"
    (carried,) = told["carried"]
    assert (carried["carrier"], carried["source"], carried["bundles"]) == ("budi", "ana", 3)
    assert carried["bytes"] > 600_000
    (day,) = told["days"]
    assert (day["messages"], day["bytes"]) == (1, carried["bytes"])
    assert day["delay_p50_s"] <= day["delay_p90_s"] <= day["delay_max_s"] < 120
    assert told["refused"] == []
    screen = office.call("officers").stdout
    assert "ana" in screen
    assert "cipatujah" in screen
    done = office.call("answer", key, "refused", "--reason", "left iris unreadable")
    assert done.returncode == 0, done.stderr
    (refused,) = office.get("officers")["refused"]
    assert (refused["key"], refused["source"], refused["reason"]) == (key, "ana", "left iris unreadable")
    assert json.loads(office.call("officers", "--json").stdout)["refused"] == [refused]
    told = json.loads(office.call("why", "--json", key).stdout)
    assert [event["code"] for event in told["story"]] == ["came", "delivered", "answered"]


def check_tables(office: Node, ana: Node) -> None:
    assert [row["name"] for row in csv_of(office, "officers")] == ["ana", "budi", "cipatujah"]
    (day,) = csv_of(office, "days")
    (carried,) = csv_of(office, "carried")
    assert (day["day"], carried["carrier"]) == (carried["day"], "budi")
    (message,) = csv_of(ana, "messages")
    assert message["reference"] == "'=Ibu Aminah"
    (answer,) = csv_of(office, "messages")
    assert (answer["kind"], answer["to"]) == ("answer", "ana")


def check_after_a_start(fleet: Fleet, office: Node, key: str) -> None:
    """And after one on a store that was rescued."""
    before, story = office.get("officers"), office.get(f"messages/{key}")["story"]
    for salvaged in (False, True):
        office.stop()
        if salvaged:
            done = office.call("store", "salvage")
            assert done.returncode == 0, done.stderr
        fleet.start(office)
        after = office.get("officers")
        for what in ("carried", "days", "refused"):
            assert after[what] == before[what]
        ana = next(row for row in after["officers"] if row["name"] == "ana")
        assert (ana["recorded"], ana["delivered"], ana["last_seen_via"]) == (3, 3, "budi")
        assert office.get(f"messages/{key}")["story"] == story

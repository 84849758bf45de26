"""What a store promises, kept by both: the one in SQLite, and the one in memory that simulations use."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshnode.core.book import Delays
from meshnode.core.bundle import Bundle
from meshnode.core.entries import Entries
from meshnode.core.errors import StoreTooNew
from meshnode.core.identity import JournalId
from meshnode.core.intervals import NONE, Ranges
from meshnode.core.limits import AWAY_S_MAX, NUMBER_MAX, PAYLOAD_SIZE_MAX
from meshnode.core.rows import (
    NOBODY,
    DropBundles,
    DropDay,
    DropRuns,
    Entry,
    JournalRecord,
    PutAddress,
    PutBundle,
    PutCarried,
    PutCertificate,
    PutCustody,
    PutDay,
    PutEncounter,
    PutMessage,
    PutOpening,
    PutReceipt,
    PutRun,
    PutSeen,
    Row,
    Snapshot,
    Store,
    StoredBundle,
)
from meshnode.drivers.memory import MemoryStore
from meshnode.drivers.sqlite import SCHEMA_VERSION, SqliteStore
from tests.core.fleets import Fleet, Source

FLEET = Fleet()
SITI, AGUS = Source(FLEET, "siti"), Source(FLEET, "agus")
J = SITI.journal


def put(bundle: Bundle, born_s: float = 5.5, arrived_ms: int = 77) -> PutBundle:
    """The row of a bundle."""
    return PutBundle(bundle, bundle.header.journal, born_s, arrived_ms)


class Device:
    """A store that can be closed and opened again."""

    def __init__(self, make: Callable[[], Store]) -> None:
        self._make = make
        self.store = make()

    def restart(self) -> Store:
        """The same device, later."""
        self.store.close()
        self.store = self._make()
        return self.store


@pytest.fixture(params=["sqlite", "memory"])
def device(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Device]:
    """One of either kind."""
    memory = MemoryStore()
    made = Device(lambda: memory if request.param == "memory" else SqliteStore(tmp_path / "store.db"))
    yield made
    made.store.close()


@pytest.fixture
def store(device: Device) -> Store:
    """A new store."""
    return device.store


def entries(snapshot: Snapshot) -> dict[JournalId, list[int]]:
    """The numbers that are there."""
    return {record.id: sorted(record.entries) for record in snapshot.journals}


def test_a_new_store_is_empty(store: Store) -> None:
    assert store.load() == Snapshot()
    assert store.read(J, 1) is None


def test_a_bundle_comes_back_as_it_was_put(device: Device) -> None:
    bundle = SITI.bundle(7, part=2, parts=3, size=PAYLOAD_SIZE_MAX, priority=0, lifetime_s=99)
    device.store.commit([put(bundle, -12.25, -5)], 1.0)
    for restart in (False, True):
        store = device.restart() if restart else device.store
        expected = StoredBundle(bundle.header_bytes, bundle.signature, bundle.payload, -12.25, -5)
        assert store.read(J, 7) == expected
        assert store.read(J, 6) is store.read(AGUS.journal, 7) is None
        (record,) = store.load().journals
        entry = Entry(PAYLOAD_SIZE_MAX, 0, 6, 3, -12.25, 99)
        assert record == JournalRecord(J, SITI.device, FLEET.endpoint, SITI.epoch, Entries({7: entry}))


def test_what_is_put_again_is_replaced(store: Store) -> None:
    store.commit([put(SITI.bundle(1))], 1.0)
    for at, size in enumerate((3000, 200_000, 250_000, 4000)):
        again = SITI.bundle(1, size=size, lifetime_s=60)
        store.commit([put(again, 9.0)], 2.0 + at)
        stored = store.read(J, 1)
        assert stored is not None
        assert (stored.header, stored.payload) == (again.header_bytes, again.payload)
        assert store.load().journals[0].entries == {1: Entry(size, 1, 1, 1, 9.0, 60)}


@pytest.mark.parametrize("size", [2000, 200_000])
def test_dropped_bundles_are_gone_and_their_journal_is_still_known(device: Device, size: int) -> None:
    rows: list[Row] = [
        put(source.bundle(number, size=size)) for source in (SITI, AGUS) for number in range(1, 7)
    ]
    device.store.commit(rows, 1.0)
    device.store.commit([DropBundles(J, Ranges([(2, 3), (5, NUMBER_MAX)]))], 2.0)
    device.store.commit([DropBundles(JournalId(b"x" * 16), Ranges.single(1)), DropBundles(J, NONE)], 3.0)
    for restart in (False, True):
        store = device.restart() if restart else device.store
        assert entries(store.load()) == {J: [1, 4], AGUS.journal: [1, 2, 3, 4, 5, 6]}
        assert [store.read(J, number) is not None for number in range(1, 7)] == [1, 0, 0, 1, 0, 0]
    device.store.commit([DropBundles(J, Ranges.span(1, 9))], 4.0)
    assert device.restart().load().journals[0] == JournalRecord(J, SITI.device, FLEET.endpoint, SITI.epoch)


@pytest.mark.parametrize("size", [3000, 200_000])
def test_rows_are_kept_in_their_order(store: Store, size: int) -> None:
    one, two = SITI.bundle(1, size=size - 1000), SITI.bundle(1, size=size)
    store.commit([put(one), DropBundles(J, Ranges.single(1)), put(two)], 1.0)
    assert entries(store.load()) == {J: [1]}
    assert store.load().journals[0].entries[1].size == size
    store.commit([put(one), DropBundles(J, Ranges.single(1))], 1.0)
    assert entries(store.load()) == {J: []}
    assert store.read(J, 1) is None


def test_the_largest_numbers(device: Device) -> None:
    bundle = SITI.bundle(NUMBER_MAX, lifetime_s=10 * 365 * 24 * 3600)
    receipt = FLEET.receipt(J, Ranges.span(1, NUMBER_MAX), 2**62)
    message = PutMessage(J, NUMBER_MAX, NUMBER_MAX, 2**40, 2**53, b"")
    rows: list[Row] = [put(bundle), PutReceipt(receipt, 2.0**40), message]
    device.store.commit(rows, 2.0**40)
    snapshot = device.restart().load()
    assert entries(snapshot) == {J: [NUMBER_MAX]}
    assert (snapshot.receipts, snapshot.messages) == ([(receipt, 2.0**40)], [message])
    assert snapshot.clock_s == 2.0**40


def test_the_newest_receipt_of_a_journal_is_kept(device: Device) -> None:
    receipts = [FLEET.receipt(J, Ranges.span(1, serial), serial) for serial in (1, 2, 3)]
    other = FLEET.receipt(AGUS.journal, Ranges.single(1))
    for receipt in [*receipts, other]:
        device.store.commit([PutReceipt(receipt, float(receipt.serial))], 1.0)
    kept = dict(device.restart().load().receipts)
    assert kept == {receipts[-1]: 3.0, other: float(other.serial)}
    for receipt in kept:
        receipt.verify(FLEET.endpoint_key.public)


def test_messages_keep_their_order(device: Device) -> None:
    messages = [
        PutMessage(journal, first, first + 1, 900, 5, bytes((first,)))
        for journal, first in ((AGUS.journal, 9), (J, 1), (J, 4), (AGUS.journal, 1), (J, 3))
    ]
    device.store.commit(list(messages[:2]), 1.0)
    device.store.commit(list(messages[2:]), 1.0)
    assert device.restart().load().messages == messages


def test_an_opening_lasts_until_its_message_or_its_end(device: Device) -> None:
    store = device.store
    store.commit([put(SITI.bundle(4, part=1, parts=2)), PutOpening(J, 4)], 1.0)
    store = device.restart()
    assert store.load().openings == [PutOpening(J, 4)]
    store.commit([DropBundles(J, Ranges.span(5, 9))], 2.0)
    assert store.load().openings == [PutOpening(J, 4)]
    store.commit([DropBundles(J, Ranges.single(4))], 3.0)
    assert store.load().openings == []
    store.commit([put(SITI.bundle(4, part=1, parts=2)), PutOpening(J, 4)], 4.0)
    store.commit([PutMessage(J, 4, 5, 10, 0, b"")], 5.0)
    assert device.restart().load().openings == []


#: What leads back from each version to the one before.
DOWNGRADES = {
    6: "DROP TABLE run; DROP TABLE seen; DROP TABLE carried; DROP TABLE day;",
    5: """
        DROP INDEX entry_slot;
        ALTER TABLE entry DROP COLUMN slot;
        DELETE FROM meta WHERE name = 'payloads';
        DROP TABLE summary;
    """,
    4: "DROP TABLE encounter;",
    3: """
        ALTER TABLE journal DROP COLUMN previous;
        ALTER TABLE journal DROP COLUMN previous_last;
        ALTER TABLE entry DROP COLUMN crc;
        ALTER TABLE receipt DROP COLUMN crc;
        ALTER TABLE message DROP COLUMN crc;
    """,
    2: "DROP TABLE opening;",
}


def columns(path: Path) -> dict[str, list[tuple[object, ...]]]:
    """What each table of a store consists of."""
    with closing(sqlite3.connect(path)) as connection:
        tables = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
        return {
            name: connection.execute("SELECT * FROM pragma_table_info(?)", (name,)).fetchall()
            for (name,) in tables
        }


@pytest.mark.parametrize("older", range(1, SCHEMA_VERSION))
def test_a_store_of_an_older_version_is_taken_over(tmp_path: Path, older: int) -> None:
    path = tmp_path / "store.db"
    kept: list[Row] = [
        put(SITI.bundle(1)),
        PutMessage(J, 1, 1, 10, 0, b""),
        PutReceipt(FLEET.receipt(J, Ranges.span(1, 1)), 1.0),
        PutCertificate(SITI.certificate),
        PutCustody(J, AGUS.device, Ranges.single(1)),
        PutAddress("a:1", AGUS.device, 1.0),
    ]
    with closing(SqliteStore(path)) as store:
        store.commit(kept, 1.0)
        before = store.load()
    new = columns(path)
    with closing(sqlite3.connect(path)) as connection:
        for version in range(SCHEMA_VERSION, older, -1):
            connection.executescript(DOWNGRADES[version])
        connection.execute(f"PRAGMA user_version = {older}")
    assert columns(path) != new
    with closing(SqliteStore(path)) as store:
        assert store.load() == before
        assert store.read(J, 1) is not None
        store.commit([put(SITI.bundle(2, size=200_000))], 2.0)
        assert store.read(J, 2) is not None
        later: list[Row] = [PutOpening(J, 2), PutEncounter(AGUS.device, 1.0, 2.0, 3.0, 4.0), *remembered()]
        store.commit(later, 2.0)
        snapshot = store.load()
        assert [*snapshot.openings, *snapshot.encounters, *all_remembered(snapshot)] == later
    assert columns(path) == new


def test_a_store_of_a_newer_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    SqliteStore(path).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    data = path.read_bytes()
    with pytest.raises(StoreTooNew, match=f"{SCHEMA_VERSION + 1}"):
        SqliteStore(path)
    assert path.read_bytes() == data


def test_certificates_addresses_and_custody(device: Device) -> None:
    rows: list[Row] = [
        PutCertificate(SITI.certificate),
        PutCertificate(AGUS.certificate),
        PutCertificate(SITI.certificate),
        PutAddress("10.0.0.1:7766", SITI.device, 1.5),
        PutAddress("[fe80::1]:7766", SITI.device, 2.5),
        PutAddress("10.0.0.1:7766", AGUS.device, 3.5),
        PutCustody(J, SITI.device, Ranges([(1, 5), (9, 9)])),
        PutCustody(J, AGUS.device, Ranges.single(2)),
        PutCustody(J, SITI.device, Ranges([(2, 2), (7, 8)])),
        PutCustody(AGUS.journal, SITI.device, Ranges.single(1)),
        PutCustody(AGUS.journal, SITI.device, NONE),
    ]
    device.store.commit(rows, 1.0)
    snapshot = device.restart().load()
    assert sorted(snapshot.certificates) == sorted([SITI.certificate.der, AGUS.certificate.der])
    assert sorted(snapshot.addresses, key=lambda row: row.address) == [rows[5], rows[4]]
    assert sorted(snapshot.custody, key=lambda row: row.peer) == sorted(
        [row for row in (rows[7], rows[8]) if isinstance(row, PutCustody)], key=lambda row: row.peer
    )


def test_the_newest_encounter_of_a_peer_is_kept(device: Device) -> None:
    siti = [PutEncounter(SITI.device, -7.5, 1.0, 2.5, 0.0), PutEncounter(SITI.device, -3.0, 2.5, 9.5, 600.25)]
    agus = PutEncounter(AGUS.device, 1.0, 1.0, 1.0, AWAY_S_MAX)
    device.store.commit([siti[0], agus], 1.0)
    device.store.commit([siti[1]], 2.0)
    for restart in (False, True):
        snapshot = (device.restart() if restart else device.store).load()
        assert sorted(snapshot.encounters, key=lambda row: row.peer) == sorted(
            [siti[1], agus], key=lambda row: row.peer
        )
        assert snapshot.damaged == {}


@pytest.mark.parametrize(
    "damage",
    [
        "peer = x'00'",
        "peer = 'sixteen letters!'",
        "since_s = 'x'",
        "since_s = -1e300",
        "meetings = 0",
        "meetings = -1.0",
        "meetings = 9e999",
        "meetings = x'01'",
        "last_s = 1e300",
        "last_s = 'x'",
        "told_s = -1.0",
        f"told_s = {AWAY_S_MAX + 1}",
        "told_s = 'x'",
    ],
)
def test_a_damaged_encounter_is_left_out_and_counted_and_can_be_put_again(
    tmp_path: Path, damage: str
) -> None:
    path = tmp_path / "store.db"
    siti, agus = (PutEncounter(peer, 1.0, 2.0, 3.0, 4.0) for peer in (SITI.device, AGUS.device))
    with closing(SqliteStore(path)) as store:
        store.commit([siti, agus], 1.0)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"UPDATE encounter SET {damage} WHERE peer = ?", (SITI.device,))  # noqa: S608 - of this test
        connection.commit()
    with closing(SqliteStore(path)) as store:
        snapshot = store.load()
        assert (snapshot.encounters, snapshot.damaged) == ([agus], {"encounter": 1})
        store.commit([siti], 2.0)
        assert siti in store.load().encounters


def day_of(day: int, *delays_s: float) -> PutDay:
    """A day on which so many messages were handed on."""
    delays = Delays()
    for delay_s in delays_s:
        delays.add(delay_s)
    return PutDay(day, len(delays_s), 1000 * len(delays_s), delays.longest_s, delays.to_bytes())


def remembered() -> list[Row]:
    """One row of each kind that `remembering` has, as a snapshot lists them."""
    return [
        PutRun(1, J, 1, AGUS.device, 3, 9, 1_700_000_000_000),
        PutSeen(SITI.device, 1_700_000_000_001, NOBODY),
        PutCarried(19_700, AGUS.device, SITI.device, 7, 7000),
        day_of(19_700, 0.5, 80.0, 1e7),
    ]


def all_remembered(snapshot: Snapshot) -> list[Row]:
    """What a store has of these."""
    return [*snapshot.runs, *snapshot.seen, *snapshot.carried, *snapshot.days]


def test_what_happened_is_remembered_and_the_latest_counts(device: Device) -> None:
    run = PutRun(7, J, 1, AGUS.device, 3, 5, 99)
    other = PutRun(8, AGUS.journal, 5, NOBODY, 1, 1, -5)
    later = PutCarried(3, NOBODY, SITI.device, 9, 900)
    device.store.commit(
        [run, other, *remembered(), PutSeen(SITI.device, 1, AGUS.device), day_of(3, 1.0)], 1.0
    )
    device.store.commit([replace(run, last=NUMBER_MAX), later, day_of(3, 1.0, 2.0)], 2.0)
    first, _, carried, day = remembered()
    for restart in (False, True):
        snapshot = (device.restart() if restart else device.store).load()
        assert snapshot.runs == [first, replace(run, last=NUMBER_MAX), other]
        assert snapshot.seen == [PutSeen(SITI.device, 1, AGUS.device)]
        assert snapshot.carried == [later, carried]
        assert snapshot.days == [day_of(3, 1.0, 2.0), day]
        assert snapshot.damaged == {}
    device.store.commit([DropRuns((7, 1, 4000)), DropDay(3)], 3.0)
    snapshot = device.restart().load()
    assert snapshot.runs == [other]
    assert (snapshot.carried, snapshot.days) == ([carried], [day])


@pytest.mark.parametrize(
    ("table", "damage"),
    [
        ("run", "journal = x'00'"),
        ("run", "what = 6"),
        ("run", "what = 'x'"),
        ("run", "peer = 'sixteen letters!'"),
        ("run", "first = 0"),
        ("run", "first = 10"),
        ("run", "last = 'x'"),
        ("run", "at_ms = 1.5"),
        ("run", f"at_ms = {2**60}"),
        ("seen", "device = x'01'"),
        ("seen", "at_ms = 'x'"),
        ("seen", "via = x''"),
        ("carried", "day = 'x'"),
        ("carried", "carrier = x'01'"),
        ("carried", "bundles = -1"),
        ("carried", "size = 1.5"),
        ("day", "day = 1.5"),
        ("day", "messages = 4"),
        ("day", "size = -1"),
        ("day", "longest_s = 'x'"),
        ("day", "delays = x'c1'"),
        ("day", "delays = x'91920004'"),  # four of class 0, and there were three messages
        ("day", "delays = x'9192cd100003'"),
        ("day", "delays = 'text'"),
    ],
)
def test_what_is_damaged_of_it_is_left_out_and_counted(tmp_path: Path, table: str, damage: str) -> None:
    path = tmp_path / "store.db"
    with closing(SqliteStore(path)) as store:
        store.commit(remembered(), 1.0)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"UPDATE {table} SET {damage}")  # noqa: S608 - of this test
        connection.commit()
    with closing(SqliteStore(path)) as store:
        snapshot = store.load()
        assert snapshot.damaged == {table: 1}
        assert len(all_remembered(snapshot)) == 3
        store.commit(remembered(), 2.0)
        assert set(map(repr, remembered())) <= set(map(repr, all_remembered(store.load())))


def test_the_clock_is_kept(device: Device) -> None:
    device.store.commit([], 12.75)
    assert device.store.load().clock_s == 12.75
    device.store.commit([put(SITI.bundle(1))], 13.5)
    assert device.restart().load().clock_s == 13.5


def test_all_rows_of_a_commit_or_none(device: Device) -> None:
    device.store.commit([put(SITI.bundle(1, size=200_000)), PutAddress("a:1", SITI.device, 1.0)], 1.0)
    before = device.store.load()
    rows: list[Row] = [
        put(SITI.bundle(2, size=200_000)),
        put(AGUS.bundle(1)),
        DropBundles(J, Ranges.single(1)),
        PutMessage(J, 1, 2, 3, 4, b""),
        replace(put(AGUS.bundle(2)), journal=JournalId(b"x" * 16)),  # not its journal: a mistake in the node
    ]
    with pytest.raises(AssertionError):
        device.store.commit(rows, 9.0)
    assert device.store.load() == before
    assert device.store.read(J, 1) is not None
    assert device.store.read(J, 2) is None
    device.store.commit([*rows[:2], PutAddress("b:1", SITI.device, 1.0)], 10.0)
    snapshot = device.restart().load()
    assert entries(snapshot) == {J: [1, 2], AGUS.journal: [1]}
    assert len(snapshot.addresses) == 2


def test_a_snapshot_is_the_loaders_own(store: Store) -> None:
    rows: list[Row] = [put(SITI.bundle(1)), put(SITI.bundle(2)), PutMessage(J, 1, 2, 3, 4, b"")]
    store.commit(rows, 1.0)
    snapshot = store.load()
    snapshot.journals[0].entries.clear()
    snapshot.messages.clear()
    assert entries(store.load()) == {J: [1, 2]}
    assert len(store.load().messages) == 1


# --- both are the same ------------------------------------------------------------------------------------------

BUNDLES = [
    source.bundle(number, size=size)
    for source in (SITI, AGUS)
    for number in (1, 2, 3, 4)
    for size in (1200, 1300, 140_000)
]
RECEIPTS = [FLEET.receipt(j, Ranges.span(1, serial), serial) for j in (J, AGUS.journal) for serial in (1, 2)]

journals = st.sampled_from([J, AGUS.journal, JournalId(b"x" * 16)])
peers = st.sampled_from([SITI.device, AGUS.device])
ranges = st.sets(st.integers(1, 6), max_size=4).map(Ranges.of)
instants = st.floats(-1e6, 1e6)
rows = st.one_of(
    st.builds(put, st.sampled_from(BUNDLES), instants, st.integers(-5, 5)),
    st.builds(put, st.sampled_from(BUNDLES), instants, st.integers(-5, 5)),
    st.builds(DropBundles, journals, ranges | st.just(Ranges.span(2, NUMBER_MAX))),
    st.builds(PutReceipt, st.sampled_from(RECEIPTS), instants),
    st.sampled_from([SITI.certificate, AGUS.certificate]).map(PutCertificate),
    st.builds(
        PutMessage,
        journals,
        st.integers(1, 3),
        st.integers(3, 4),
        st.just(9),
        st.just(9),
        st.binary(max_size=2),
    ),
    st.builds(PutCustody, journals, peers, ranges),
    st.builds(PutOpening, journals, st.integers(1, 6)),
    st.builds(PutAddress, st.sampled_from(["a:1", "b:2"]), peers, instants),
    st.builds(PutEncounter, peers, instants, st.floats(1.0, 1e6), instants, st.floats(0.0, AWAY_S_MAX)),
    st.builds(
        PutRun,
        st.integers(1, 5),
        journals,
        st.integers(1, 5),
        peers,
        st.integers(1, 3),
        st.integers(3, 4),
        st.integers(-9, 9),
    ),
    st.builds(DropRuns, st.sets(st.integers(1, 6)).map(tuple)),
    st.builds(PutSeen, peers, st.integers(-9, 9), peers),
    st.builds(PutCarried, st.integers(-1, 2), peers, peers, st.integers(0, 9), st.integers(0, 9)),
    st.builds(day_of, st.integers(-1, 2), st.floats(0, 1e6)),
    st.builds(DropDay, st.integers(-1, 2)),
)


@given(st.lists(st.tuples(st.lists(rows, max_size=8), instants, st.booleans()), max_size=6))
@settings(max_examples=30, deadline=None)
def test_both_stores_keep_the_same(commits: list[tuple[list[Row], float, bool]]) -> None:
    memory = MemoryStore()
    with tempfile.TemporaryDirectory() as folder:
        sqlite = SqliteStore(Path(folder) / "store.db")
        try:
            for some, clock_s, restart in commits:
                memory.commit(list(some), clock_s)
                sqlite.commit(list(some), clock_s)
                if restart:
                    sqlite.close()
                    sqlite = SqliteStore(Path(folder) / "store.db")
                assert sqlite.load() == memory.load()
            for bundle in BUNDLES:
                place = bundle.header.journal, bundle.header.number
                assert sqlite.read(*place) == memory.read(*place)
            for _ in range(9):
                sqlite.tidy()
            for bundle in BUNDLES:
                place = bundle.header.journal, bundle.header.number
                assert sqlite.read(*place) == memory.read(*place)
            pages_size, _ = sqlite.sizes()
            assert pages_size > 0
            assert memory.size_bytes == sum(
                entry.size for record in memory.load().journals for entry in record.entries.values()
            )
        finally:
            sqlite.close()


def test_rot_in_memory_is_found_by_the_digest() -> None:
    """What simulations use to let bits turn over."""
    memory = MemoryStore()
    bundle = SITI.bundle(1)
    memory.commit([put(bundle)], 1.0)
    copy = memory.copy()
    memory.spoil(J, 1)
    stored = memory.read(J, 1)
    assert stored is not None
    assert len(stored.payload) == len(bundle.payload)
    assert stored.payload != bundle.payload
    assert copy.read(J, 1) == StoredBundle(bundle.header_bytes, bundle.signature, bundle.payload, 5.5, 77)
    assert copy.load() == memory.load()

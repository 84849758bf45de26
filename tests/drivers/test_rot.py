"""What rots in a store: found before anybody believes it, and in the way of nothing else."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from meshnode.core.errors import StoreTrouble
from meshnode.core.intervals import Ranges
from meshnode.core.ports import Instant
from meshnode.core.rows import (
    DropBundles,
    PutAddress,
    PutBundle,
    PutCertificate,
    PutMessage,
    PutReceipt,
    Rotten,
)
from meshnode.core.state import Settings, State
from meshnode.drivers.sqlite import SqliteStore, StoreDamaged
from meshnode.drivers.sqlite.swapping import begin_swap
from tests.core.fleets import Fleet, Source

FLEET = Fleet()
SITI, AGUS = Source(FLEET, "siti"), Source(FLEET, "agus")
J = SITI.journal


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store with three bundles, a certificate, a message, an address and two receipts."""
    path = tmp_path / "store.db"
    with closing(SqliteStore(path)) as store:
        store.commit([PutBundle(SITI.bundle(n, size=50_000), J, 1.0, 1) for n in (1, 2, 3)], 5.0)
        store.commit([PutCertificate(SITI.certificate), PutAddress("a:1", SITI.device, 1.5)], 5.0)
        store.commit([PutMessage(AGUS.journal, 1, 2, 9, 9, b"shut label")], 5.0)
        store.commit([PutReceipt(FLEET.receipt(j, Ranges.single(9)), 1.5) for j in (J, AGUS.journal)], 5.0)
    return path


def turn(path: Path, piece: bytes, at: int = 0) -> None:
    """Turn one bit of these bytes over in the file."""
    data = path.read_bytes()
    assert data.count(piece) == 1
    where = data.index(piece) + at
    with path.open("r+b") as file:
        file.seek(where)
        file.write(bytes((data[where] ^ 4,)))


@pytest.mark.parametrize("part", ["header", "signature"])
def test_a_header_that_has_rotted_is_not_given_back(path: Path, part: str) -> None:
    bundle = SITI.bundle(2, size=50_000)
    turn(path, bundle.header_bytes if part == "header" else bundle.signature, 20)
    with closing(SqliteStore(path)) as store:
        assert store.load().damaged == {}
        assert store.read(J, 1) is not None
        with pytest.raises(Rotten):
            store.read(J, 2)
        store.commit([PutBundle(bundle, J, 1.0, 1)], 6.0)
        assert store.read(J, 2) is not None


def test_a_large_payload_that_has_rotted_is_found_by_its_digest(path: Path) -> None:
    bundles = [SITI.bundle(n, size=200_000) for n in (4, 5, 6)]
    with closing(SqliteStore(path)) as store:
        store.commit([PutBundle(bundle, J, 1.0, 1) for bundle in bundles], 6.0)
    turn(store.payloads_path, bundles[1].payload, 150_000)
    with closing(SqliteStore(path)) as store:
        assert store.load().damaged == {}
        for bundle in bundles:
            stored = store.read(J, bundle.header.number)
            assert stored is not None
            assert (hashlib.sha256(stored.payload).digest() == bundle.header.payload_sha256) == (
                bundle is not bundles[1]
            )


def state_of(store: SqliteStore) -> State:
    settings = Settings(epoch=b"epoch--9", port=1, foreign_quota_bytes=1 << 30)
    return State(FLEET.identity("agus"), settings, store.load(), Instant(9.0, 9))


@pytest.mark.parametrize(
    ("piece", "kind"),
    [
        (FLEET.receipt(J, Ranges.single(9)).signature, "receipt"),
        (FLEET.receipt(J, Ranges.single(9)).body, "receipt"),
        (b"shut label", "message"),
        (SITI.certificate.der, "certificate"),
    ],
    ids=["signature of a receipt", "receipt", "message", "certificate"],
)
def test_a_row_that_has_rotted_is_left_out_and_counted(path: Path, piece: bytes, kind: str) -> None:
    turn(path, piece, len(piece) - 3)
    with closing(SqliteStore(path)) as store:
        state = state_of(store)
        assert state.damaged[kind] == 1
        journal = state.ledger.journals[J]
        # whose certificate is lost, can be shown to nobody
        assert len(journal.held) == (0 if kind == "certificate" else 3)
        assert (journal.receipt is None) == (kind == "receipt")


def test_parts_of_own_messages_that_a_store_has_lost_are_known_at_start(path: Path) -> None:
    with closing(SqliteStore(path)) as store:
        assert state_of(store).rotten == {(AGUS.journal, 1), (AGUS.journal, 2)}


class _Moody:
    """A connection that fails for a while."""

    def __init__(self, connection: sqlite3.Connection, failures: int) -> None:
        self.connection, self.failures = connection, failures

    def execute(self, *words: Any) -> Any:
        if self.failures:
            self.failures -= 1
            raise sqlite3.OperationalError("disk I/O error")
        return self.connection.execute(*words)

    def close(self) -> None:
        self.connection.close()


def test_a_disk_that_fails_for_a_while_is_no_rot(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 1000.0
    monkeypatch.setattr("meshnode.drivers.sqlite.time.monotonic", lambda: now_s)
    with closing(SqliteStore(path)) as store:
        moody = _Moody(store._reader, 1)
        monkeypatch.setattr(store, "_reader", moody)
        assert store.read(J, 1) is not None, "one failure is not noticed"
        moody.failures = 4
        for wait_s in (0.0, 30.0):
            now_s += wait_s
            with pytest.raises(StoreTrouble) as trouble:
                store.read(J, 1)
            assert not isinstance(trouble.value, Rotten)
        assert store.read(J, 1) is not None
        moody.failures = 4
        with pytest.raises(StoreTrouble):
            store.read(J, 1)
        now_s += 61.0
        with pytest.raises(Rotten):
            store.read(J, 1)
        assert store.read(J, 1) is not None, "and is tried again all the same"


def test_what_cannot_be_removed_is_in_the_way_of_nothing(path: Path) -> None:
    # the chain of pages that holds a payload leads nowhere: SQLite cannot remove that row any more
    bundle = SITI.bundle(2, size=50_000)
    payload = bundle.payload
    data = bytearray(path.read_bytes())
    begin = data.index(bundle.header_bytes + bundle.signature) + len(bundle.header_bytes + bundle.signature)
    here = next(size for size in range(len(payload)) if data[begin + size] != payload[size])
    data[begin + here : begin + here + 4] = b"\0\7\0\7"
    path.write_bytes(data)
    with closing(SqliteStore(path)) as store:
        with pytest.raises(Rotten):
            store.read(J, 2)
        store.commit([DropBundles(J, Ranges.single(2)), PutBundle(AGUS.bundle(1), AGUS.journal, 1.0, 1)], 7.0)
        assert store.read(J, 2) is None
        assert store.read(AGUS.journal, 1) is not None
        store.commit([PutBundle(SITI.bundle(2), J, 1.0, 1)], 8.0)
        assert store.read(J, 2) is not None


def lose_a_page(data: bytearray) -> None:
    data[2 * 32768 : 3 * 32768] = b"\xff" * 32768


def lose_the_head(data: bytearray) -> None:
    data[:16] = bytes(16)


@pytest.mark.parametrize("damage", [lose_a_page, lose_the_head])
def test_a_store_that_sqlite_does_not_read_says_what_helps(
    path: Path, damage: Callable[[bytearray], None]
) -> None:
    data = bytearray(path.read_bytes())
    damage(data)
    path.write_bytes(data)
    with pytest.raises(StoreDamaged, match="meshnode store salvage"), closing(SqliteStore(path)) as store:
        store.load()


@pytest.mark.parametrize("steps", range(6))
def test_a_swap_that_is_cut_off_anywhere_is_finished_by_the_next_start(
    path: Path, tmp_path: Path, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    old = path.read_bytes()
    (tmp_path / "store.db-wal").write_bytes(b"")
    new = tmp_path / "new.db"
    with closing(SqliteStore(new)) as store:
        store.commit([PutAddress("new:1", SITI.device, 1.0)], 1.0)
    left = steps
    replace = os.replace

    def cut(*places: Any) -> None:
        nonlocal left
        if left == 0:
            raise InterruptedError
        left -= 1
        replace(*places)

    with monkeypatch.context() as patch:
        patch.setattr("meshnode.drivers.sqlite.swapping.os.replace", cut)
        with suppress(InterruptedError):
            begin_swap(path, new)
    with closing(SqliteStore(path)) as store:
        addresses = [row.address for row in store.load().addresses]
    if steps == 0:
        assert addresses == ["a:1"], "nothing was decided yet"
    else:
        assert addresses == ["new:1"]
        assert (tmp_path / "store.db.broken-1").read_bytes() == old

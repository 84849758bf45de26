"""Large payloads in slots: written once, and as safe as all that is in the database."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from meshnode.core.bundle import Bundle
from meshnode.core.errors import StoreTrouble
from meshnode.core.intervals import Ranges
from meshnode.core.limits import PAYLOAD_SIZE_MAX
from meshnode.core.rows import DropBundles, PutBundle, Rotten
from meshnode.drivers.sqlite import SqliteStore, StoreDamaged
from meshnode.drivers.sqlite.heads import HEAD_SIZE, SLOT_SIZE, Head, read_head, slots_of
from meshnode.drivers.sqlite.slots import SLOTTED_SIZE, Slots
from meshnode.drivers.sqlite.swapping import discard
from tests.core.fleets import Fleet, Source

FLEET = Fleet()
SITI = Source(FLEET, "siti")
J = SITI.journal


def large(number: int, size: int = PAYLOAD_SIZE_MAX) -> Bundle:
    """A bundle that goes into a slot."""
    return SITI.bundle(number, size=size)


def put(*numbers: int) -> list[Any]:
    """Rows of large bundles."""
    return [PutBundle(large(number), J, 1.5, number) for number in numbers]


def drop(*numbers: int) -> DropBundles:
    """The row that drops them."""
    return DropBundles(J, Ranges.of(numbers))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(path)
    yield store
    store.close()


def places(store: SqliteStore) -> dict[int, int]:
    """The slot of each number."""
    with closing(sqlite3.connect(store._path)) as connection:
        return dict(connection.execute("SELECT number, slot FROM entry WHERE slot IS NOT NULL"))


def names(path: Path) -> list[int]:
    """The numbers of all whole heads of the file, in its order."""
    return [head.arrived_ms for _, head, _ in slots_of(path)]


def tidy(store: SqliteStore) -> None:
    """To the end."""
    while store.tidy():
        pass


def intact(store: SqliteStore, *numbers: int) -> bool:
    """Whether exactly these are there, and right."""
    assert sorted(n for record in store.load().journals for n in record.entries) == list(numbers)
    for number in numbers:
        stored, bundle = store.read(J, number), large(number)
        assert stored is not None
        assert stored == (bundle.header_bytes, bundle.signature, bundle.payload, 1.5, number)
    return True


# --- one slot ---------------------------------------------------------------------------------------------------


def test_a_head_comes_back_whole_or_not_at_all() -> None:
    bundle = large(1)
    head = Head(bundle.header_bytes, bundle.signature, -1.5, 7)
    page = head.page()
    assert len(page) == HEAD_SIZE
    assert read_head(page) == head
    assert read_head(page[:-1]) is None
    for at in range(len(page.rstrip(b"\0"))):
        assert read_head(page[:at] + bytes((page[at] ^ 16,)) + page[at + 1 :]) is None, at


def test_only_what_is_large_goes_into_a_slot_and_only_there(store: SqliteStore) -> None:
    store.commit([PutBundle(large(1, SLOTTED_SIZE), J, 1.5, 1)], 1.0)
    assert not store.payloads_path.exists()
    store.commit([PutBundle(large(2, SLOTTED_SIZE + 1), J, 1.5, 2)], 2.0)
    assert places(store) == {2: 0}
    assert store.payloads_path.stat().st_mode & 0o777 == 0o600
    assert len(store.payloads_path.read_bytes()) == HEAD_SIZE + SLOTTED_SIZE + 1
    assert large(2, SLOTTED_SIZE + 1).payload[:5000] not in store._path.read_bytes()


def test_short_writes_are_gone_on_with(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    pwritev, calls = os.pwritev, 0

    def short(file: int, pieces: list[memoryview], at: int) -> int:
        nonlocal calls
        calls += 1
        return pwritev(file, [b"".join(pieces)[: 1 + calls * 1000]], at)

    monkeypatch.setattr("meshnode.drivers.sqlite.slots.os.pwritev", short)
    store.commit(put(1, 2), 1.0)
    assert calls > 20
    assert intact(store, 1, 2)


# --- order and durability ---------------------------------------------------------------------------------------


def test_slots_are_flushed_once_before_the_commit_and_only_if_there_are_any(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(
        "meshnode.drivers.sqlite.slots._flush", lambda _: said.append(f"flush, {places(store)}")
    )
    monkeypatch.setattr("meshnode.drivers.sqlite.slots.flush_folder", lambda _: said.append("folder"))
    store.commit(put(1, 2, 3), 1.0)
    assert said == ["flush, {}", "folder"]
    store.commit([drop(1)], 2.0)
    assert len(said) == 2
    store.commit(put(4), 3.0)
    assert said[2:] == ["flush, {2: 1, 3: 2}"], "the folder once for each process"


def test_a_slot_is_used_again_only_after_its_end_is_durable(store: SqliteStore, path: Path) -> None:
    store.commit(put(1, 2), 1.0)
    store.commit([drop(1), *put(3)], 2.0)
    assert places(store) == {2: 1, 3: 2}, "never in the same commit"
    assert names(store.payloads_path) == [2, 3], "what was dropped does not come back"
    store.commit(put(4), 3.0)
    assert places(store) == {4: 0, 2: 1, 3: 2}
    store.commit(put(2), 4.0)
    assert places(store) == {4: 0, 3: 2, 2: 3}, "what is put again, too"
    store.close()
    store.__init__(path)  # type: ignore[misc]
    store.commit(put(5), 5.0)
    assert places(store) == {4: 0, 5: 1, 3: 2, 2: 3}, "what is free is known at start"
    assert intact(store, 2, 3, 4, 5)


def fail(code: int) -> Callable[..., Any]:
    """Stands for a call to the disk."""

    def failing(*_: object) -> Any:
        raise OSError(code, os.strerror(code))

    return failing


@pytest.mark.parametrize("what", ["os.pwritev", "_flush", "flush_folder"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_commit_that_fails_takes_no_slot(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch, what: str, code: int
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(f"meshnode.drivers.sqlite.slots.{what}", fail(code))
        with pytest.raises(StoreTrouble, match=os.strerror(code)):
            store.commit(put(1, 2, 3), 1.0)
    assert intact(store)
    assert store.payloads_path.stat().st_size == 0, "and the disk has its space back"
    store.commit(put(1), 2.0)
    assert places(store) == {1: 0}
    with monkeypatch.context() as patch:
        patch.setattr("meshnode.drivers.sqlite.slots._flush", fail(code))
        with pytest.raises(StoreTrouble):
            store.commit([drop(1), *put(2)], 3.0)
    assert intact(store, 1), "what it dropped is still there"
    store.commit(put(2), 4.0)
    assert intact(store, 1, 2)


class _Doubtful:
    """A connection that fails to commit, as if the log could not be flushed."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection

    def execute(self, words: str, *more: Any) -> Any:
        if words == "COMMIT":
            raise sqlite3.OperationalError("disk I/O error")
        return self.connection.execute(words, *more)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.connection, name)


def test_slots_of_a_commit_in_doubt_wait_for_the_next_one(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.commit(put(1), 1.0)
    with monkeypatch.context() as patch:
        patch.setattr(store, "_writer", _Doubtful(store._writer))
        with pytest.raises(StoreTrouble):
            store.commit(put(2), 2.0)
    store.commit(put(3), 3.0)
    assert places(store) == {1: 0, 3: 2}, "a crash might have brought the failed one back until then"
    store.commit(put(4), 4.0)
    assert places(store) == {1: 0, 4: 1, 3: 2}
    assert intact(store, 1, 3, 4)


# --- reading beside writing -------------------------------------------------------------------------------------


def during_reading(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch, do: Callable[[], None], *, between: bool = False
) -> None:
    """Have `do` happen once after the row was read; `between`: after the payload and before the head, too."""
    read, pread, left = Slots.read, os.pread, [do]

    def meanwhile(slots: Slots, slot: int, size: int) -> Any:
        if left and not between:
            left.pop()()
        return read(slots, slot, size)

    def after(file: int, size: int, at: int) -> bytes:
        data = pread(file, size, at)
        if left and size > HEAD_SIZE:
            left.pop()()
        return data

    monkeypatch.setattr(store._slots.__class__, "read", meanwhile)
    if between:
        monkeypatch.setattr("meshnode.drivers.sqlite.slots.os.pread", after)


@pytest.mark.parametrize("between", [False, True])
def test_what_is_dropped_and_overwritten_while_it_is_read_is_not_here(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch, between: bool
) -> None:
    store.commit(put(1, 2), 1.0)

    def reuse() -> None:
        store.commit([drop(1)], 2.0)
        store.commit(put(3), 3.0)
        assert places(store)[3] == 0

    during_reading(store, monkeypatch, reuse, between=between)
    assert store.read(J, 1) is None
    assert intact(store, 2, 3)


@pytest.mark.parametrize("between", [False, True])
def test_what_moves_while_it_is_read_is_read_where_it_is(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch, between: bool
) -> None:
    store.commit(put(1, 2, 3), 1.0)
    store.commit([drop(1)], 2.0)
    during_reading(store, monkeypatch, lambda: tidy(store), between=between)
    stored = store.read(J, 3)
    assert stored is not None
    assert stored.payload == large(3).payload
    assert places(store) == {3: 0, 2: 1}


# --- damage -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [3, 12, 40, HEAD_SIZE - 4000])
def test_a_head_that_has_rotted_is_not_believed(store: SqliteStore, at: int) -> None:
    store.commit(put(1, 2, 3), 1.0)
    with store.payloads_path.open("r+b") as file:
        file.seek(SLOT_SIZE + at)
        byte = file.read(1)[0]
        file.seek(SLOT_SIZE + at)
        file.write(bytes((byte ^ 4,)))
    with pytest.raises(Rotten, match="slot 1"):
        store.read(J, 2)
    assert store.read(J, 1) is not None
    store.commit([drop(2)], 2.0)
    store.commit(put(2), 3.0)
    assert intact(store, 1, 2, 3)


def test_a_disk_that_does_not_give_a_slot_back_is_no_rot_at_first(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 1000.0
    monkeypatch.setattr("meshnode.drivers.sqlite.time.monotonic", lambda: now_s)
    store.commit(put(1), 1.0)
    with monkeypatch.context() as patch:
        patch.setattr("meshnode.drivers.sqlite.slots.os.pread", fail(errno.EIO))
        with pytest.raises(StoreTrouble, match=os.strerror(errno.EIO)) as trouble:
            store.read(J, 1)
        assert not isinstance(trouble.value, Rotten)
        now_s += 61.0
        with pytest.raises(Rotten):
            store.read(J, 1)
    assert intact(store, 1)


def test_without_its_file_a_store_does_not_start_if_it_needs_it(store: SqliteStore, path: Path) -> None:
    payloads = store.payloads_path
    store.commit(put(1), 1.0)
    store.close()
    payloads.unlink()
    with pytest.raises(StoreDamaged, match=f"{payloads.name}, is not there"):
        SqliteStore(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE meta SET value = '../x' WHERE name = 'payloads'")
        connection.commit()
    with pytest.raises(StoreDamaged, match="whose name is lost"):
        SqliteStore(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DELETE FROM entry")
        connection.commit()
    store.__init__(path)  # type: ignore[misc]
    store.commit(put(2), 2.0)
    assert intact(store, 2)


def test_a_slot_that_a_rotten_index_has_lost_is_not_written_over(store: SqliteStore, path: Path) -> None:
    store.commit(put(1, 2), 5.0)
    store.close()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        sql = connection.execute("SELECT sql FROM sqlite_master WHERE name = 'entry_slot'").fetchone()[0]
        connection.execute("DROP INDEX entry_slot")
        connection.execute(f"{sql} AND slot <> 0")
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("UPDATE sqlite_master SET sql = ? WHERE name = 'entry_slot'", (sql,))
    with pytest.raises(StoreDamaged, match="its list of large payloads is not whole"):
        SqliteStore(path)


def test_an_older_copy_beside_newer_slots_does_no_harm(store: SqliteStore, path: Path) -> None:
    store.commit(put(1, 2, 3, 4, 5), 1.0)
    store.close()
    copy = path.read_bytes()
    store.__init__(path)  # type: ignore[misc]
    store.commit([drop(2, 5)], 2.0)
    store.commit(put(6), 3.0)
    tidy(store)  # which cuts off what 5 was in
    store.close()
    path.write_bytes(copy)
    store.__init__(path)  # type: ignore[misc]
    for number in (1, 3, 4):
        assert store.read(J, number) is not None
    for number in (2, 5):
        with pytest.raises(Rotten):
            store.read(J, number)
    store.commit(put(7), 4.0)
    assert places(store) == {1: 0, 2: 1, 3: 2, 4: 3, 5: 4, 7: 5}, "nothing goes where a row says that 5 is"
    store.commit([drop(2, 5)], 5.0)
    store.commit(put(8, 9), 6.0)
    tidy(store)
    assert intact(store, 1, 3, 4, 7, 8, 9)


# --- space ------------------------------------------------------------------------------------------------------


def test_what_is_free_counts_as_reusable_and_goes_back_to_the_disk(store: SqliteStore) -> None:
    empty = store.sizes()[0]
    store.commit(put(*range(1, 41)), 1.0)
    size, free = store.sizes()
    assert size >= empty + 40 * SLOT_SIZE
    store.commit([drop(*range(1, 41, 2), 40)], 2.0)
    assert store.sizes()[1] >= free + 20 * SLOT_SIZE
    steps = 0
    while store.tidy():
        steps += 1
    assert 1 < steps < 9, "a bit at a time"
    left = list(range(2, 40, 2))
    assert store.payloads_path.stat().st_size == len(left) * SLOT_SIZE
    assert sorted(places(store).values()) == list(range(len(left)))
    assert intact(store, *left)
    assert sorted(names(store.payloads_path)) == left
    store.commit([drop(*left)], 3.0)
    tidy(store)
    assert store.payloads_path.stat().st_size == 0


def test_an_entry_whose_size_has_rotted_moves_all_the_same(store: SqliteStore, path: Path) -> None:
    store.commit(put(1, 2), 1.0)
    store.commit([drop(1)], 2.0)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE entry SET size = x'00'")
        connection.commit()
    tidy(store)
    stored = store.read(J, 2)
    assert stored is not None
    assert stored.payload == large(2).payload
    assert places(store) == {2: 0}


def test_a_move_that_fails_leaves_all_where_it_is(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.commit(put(1, 2, 3), 1.0)
    store.commit([drop(1)], 2.0)
    for what in ("os.pwritev", "_flush"):
        with monkeypatch.context() as patch:
            patch.setattr(f"meshnode.drivers.sqlite.slots.{what}", fail(errno.EIO))
            with pytest.raises(StoreTrouble):
                tidy(store)
        assert places(store) == {2: 1, 3: 2}
        assert intact(store, 2, 3)
    tidy(store)
    assert places(store) == {3: 0, 2: 1}
    assert intact(store, 2, 3)


def test_a_hole_behind_a_smaller_payload_is_not_counted(store: SqliteStore) -> None:
    store.commit([PutBundle(large(n, SLOTTED_SIZE + 1), J, 1.5, n) for n in range(1, 5)], 1.0)
    store.commit([drop(1, 2)], 2.0)
    size, free = store._slots.sizes()
    assert size < 4 * SLOT_SIZE
    assert free < 2 * SLOT_SIZE, "the disk would have to find the rest"


# --- the files of a store ---------------------------------------------------------------------------------------


def test_a_store_is_removed_with_its_slots(store: SqliteStore, path: Path) -> None:
    other = path.with_name("other.db")
    with closing(SqliteStore(other, becomes=path)) as new:
        new.commit(put(1), 1.0)
        assert new.payloads_path.name.startswith("store.db-payloads-")
    store.commit(put(2), 1.0)
    discard(other)
    assert {it for it in path.parent.iterdir() if "wal" not in it.name and "shm" not in it.name} == {
        path,
        store.payloads_path,
    }
    discard(other)
    assert intact(store, 2)

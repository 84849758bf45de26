"""Disks that rot, copies that are restored, and homes that are copied: with real daemons and the real command."""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from meshnode.app.salvage import salvage
from meshnode.core.bundle import Bundle
from meshnode.core.errors import HomeReadable
from meshnode.core.rows import PutBundle
from meshnode.drivers.sqlite import SqliteStore
from meshnode.drivers.sqlite.heads import HEAD_SIZE, SLOT_SIZE, slots_of
from meshnode.drivers.sqlite.slots import SLOTTED_SIZE
from tests.app.fleets import Fleet, Node, assert_refused, free_port
from tests.torture.rot import Shelf, salvaged, starts


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with Fleet(tmp_path) as fleet:
        yield fleet


def alarms(node: Node) -> dict[str, str]:
    """Text by code."""
    return {alarm["code"]: alarm["text"] for alarm in node.get("status")["alarms"]}


def large(shelf: Shelf) -> list[Bundle]:
    """What of it lies in slots."""
    return [bundle for bundle in shelf.bundles.values() if bundle.header.payload_size > SLOTTED_SIZE]


def turn_over(node: Node, key: str, column: str) -> None:
    """Turn a bit of one bundle over, in the file and behind SQLite's back; its daemon may run."""
    path = node.home / "store.db"
    journal, _, number = key.partition(":")
    with closing(sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)) as connection:
        (piece,) = connection.execute(
            f"SELECT {column} FROM entry JOIN bundle ON id = bundle WHERE number = ? AND journal ="  # noqa: S608 - a column of this test
            " (SELECT id FROM journal WHERE journal = ?)",
            (int(number), bytes.fromhex(journal)),
        ).fetchone()
    data = path.read_bytes()
    at = data.index(piece[:200]) + len(piece[:200]) // 2
    with path.open("r+b") as file:
        file.seek(at)
        file.write(bytes((data[at] ^ 1,)))


@pytest.mark.slow
def test_what_rots_is_found_before_it_is_sent_and_comes_again(fleet: Fleet) -> None:
    office, ana, budi = fleet.enroll("office", "office"), fleet.enroll("ana"), fleet.enroll("budi")
    ana.configure(peers=[budi.address])
    fleet.start(ana, budi)
    keys = [ana.give({"f": bytes(2000)}, reference=f"form {at}")["key"] for at in range(4)]
    fleet.until("budi carries them", lambda: ana.states() == ["carried"] * 4)
    alone = [ana, budi]
    for node in alone:
        node.stop()  # which merges the log into the file
    # one that only ana has, for which there is no help
    ana.configure(peers=[])
    fleet.start(ana)
    keys.append(ana.give({"f": bytes(2000)}, reference="form 4")["key"])
    ana.stop()
    turn_over(ana, keys[0], "payload")
    ana.configure(peers=[office.address])
    fleet.start(ana)
    for key, column in zip(keys[1:4], ("header", "signature", "payload"), strict=True):
        turn_over(ana, key, column)  # while it runs
    turn_over(ana, keys[4], "header")
    fleet.start(office)
    fleet.until("all that is rotten is found", lambda: "form 4" in alarms(ana).get("rotten", ""))
    for at, key in enumerate(keys):
        assert f"form {at} ({key})" in alarms(ana)["rotten"]
    assert ana.contacts() == ["office"], "nobody takes it amiss"
    assert not office.logged("broke the protocol")
    fleet.start(budi)
    budi.stop()
    budi.configure(peers=[ana.address])
    fleet.start(budi)
    fleet.until("four come again", lambda: ana.states() == ["delivered"] * 4 + ["on_this_device_only"])
    text = alarms(ana)["rotten"]
    assert keys[4] in text
    assert "form 0" not in text
    assert set(office.inbox()) == set(keys[:4])


@pytest.mark.slow
def test_a_broken_store_is_refused_salvaged_and_made_whole_by_others(fleet: Fleet) -> None:
    office, ana, budi = fleet.enroll("office", "office"), fleet.enroll("ana"), fleet.enroll("budi")
    ana.configure(peers=[budi.address])
    fleet.start(ana, budi)
    keys = [
        ana.give({"f": random.Random(at).randbytes(90_000)}, reference=f"form {at}")["key"]
        for at in range(12)
    ]
    fleet.until("budi carries them", lambda: ana.states() == ["carried"] * 12)
    assert_refused(ana.call("store", "salvage"), "A daemon already runs on")
    ana.stop()
    path = ana.home / "store.db"
    data = bytearray(path.read_bytes())
    data[:16] = bytes(16)  # no database any more
    data[24 * 32768 : 29 * 32768] = random.Random(1).randbytes(5 * 32768)
    path.write_bytes(data)
    assert_refused(ana.run("run"), "run `meshnode store salvage`, which keeps all that is intact.")
    said = salvaged(ana)
    assert "12 messages of this device" in said
    assert "Not whole any more" in said
    assert (ana.home / "store.db.broken-1").read_bytes() == data
    budi.stop()  # it remembers where ana is, and would make her whole at once
    ana.configure()
    fleet.start(ana)
    assert "form" in alarms(ana)["rotten"]
    ana.stop()
    ana.configure(peers=[budi.address, office.address])
    fleet.start(ana, budi, office)
    fleet.until("budi has made it whole", lambda: ana.states() == ["delivered"] * 12)
    assert alarms(ana) == {}
    assert set(office.inbox()) == set(keys)


def test_all_that_is_intact_is_rescued(fleet: Fleet) -> None:
    fleet.enroll("office", "office")
    shelf = Shelf(fleet, random.Random(3), messages=12, sources=8)
    for kind in ({}, {"bytes_": 1}, {"bytes_": 10}, {"bytes_": 100}, {"pages": 1}, {"pages": 10}):
        shelf.restore()
        done, share = shelf.check(shelf.hurt(**kind))
        assert done.kept is not None
        assert done.kept.exists()
        assert (share == 1) if not kind else share > 0.5, kind
        assert starts(shelf.path) == "whole"


@pytest.mark.slow
def test_slots_are_rescued_whatever_happens_to_the_others_and_to_the_database(fleet: Fleet) -> None:
    fleet.enroll("office", "office")
    shelf = Shelf(fleet, random.Random(5), messages=8, sources=4)
    database, payloads = shelf.files
    slots = {slot: (head, payload) for slot, head, payload in slots_of(payloads)}
    assert len(slots) > 15

    # bits of a head and of a payload
    for slot, at in ((1, 40), (4, HEAD_SIZE + 100_000)):
        data = bytearray(payloads.read_bytes())
        data[slot * SLOT_SIZE + at] ^= 4
        payloads.write_bytes(data)
    done = salvage(shelf.home)
    assert (done.bundles, done.lost) == (len(shelf.bundles) - 2, 2)
    assert done.kept_payloads == [payloads]
    assert starts(shelf.path) == "whole"

    # nothing is left of the database, and a crash has cut off an earlier rescue
    shelf.restore()
    database.write_bytes(random.Random(6).randbytes(database.stat().st_size))
    one = large(shelf)[0]
    with closing(SqliteStore(shelf.home.path / "store.db.salvaging", becomes=database)) as left:
        left.commit([PutBundle(one, one.header.journal, 1.0, 1)], 1.0)
    assert left.payloads_path.exists()
    done = salvage(shelf.home)
    assert done.bundles == len(slots)
    assert done.kept_payloads == [payloads]
    assert not left.payloads_path.exists()
    with closing(SqliteStore(database)) as store:
        for bundle in large(shelf):
            stored = store.read(bundle.header.journal, bundle.header.number)
            assert stored is not None
            assert stored.payload == bundle.payload
    assert len(shelf.home.payload_paths()) == 2, "the new one and that of the damaged store"


def test_a_store_that_is_rescued_elsewhere_comes_with_its_payloads(fleet: Fleet, tmp_path: Path) -> None:
    fleet.enroll("office", "office")
    shelf = Shelf(fleet, random.Random(7), messages=6, sources=1)
    out = tmp_path / "elsewhere.db"
    said = shelf.node.run("store", "salvage", "--out", out)
    assert said.returncode == 0, said.stderr
    (payloads,) = tmp_path.glob("elsewhere.db-payloads-*")
    assert f"The rescued store is {out} with {payloads.name} beside it" in said.stdout
    for path in shelf.home.path.glob("store.db*"):
        path.unlink()
    out.rename(shelf.path)
    payloads.rename(shelf.home.path / payloads.name)
    (there,) = shelf.home.payload_paths()
    there.chmod(0o640)
    with pytest.raises(HomeReadable, match=there.name):
        shelf.home.check_private()
    there.chmod(0o600)
    done, share = shelf.check(set())
    assert share == 1
    assert done.kept_payloads == [shelf.home.path / payloads.name]


@pytest.mark.slow
def test_a_copy_that_is_put_back_loses_nothing_that_others_have(fleet: Fleet) -> None:
    office, ana, budi = fleet.enroll("office", "office"), fleet.enroll("ana"), fleet.enroll("budi")
    ana.configure(peers=[budi.address])
    fleet.start(ana, budi)
    keys = [ana.give({"f": b"0"})["key"]]
    ana.stop()
    copy = (ana.home / "store.db").read_bytes()
    for at in (1, 2):
        fleet.start(ana)
        keys.append(ana.give({"f": b"%d" % at})["key"])
        fleet.until("budi carries it", lambda: set(ana.states()) == {"carried"})
        ana.stop()
        (ana.home / "store.db").write_bytes(copy)
    assert len(set(keys)) == 3
    assert len({key.partition(":")[0] for key in keys}) == 3, "a new journal each time"
    fleet.start(ana)
    bundles = "SELECT count(*) FROM entry"
    fleet.until("all comes back", lambda: _count(ana, bundles) >= 4)  # and the introduction
    assert "twin" not in alarms(ana)
    budi.stop()
    ana.stop()
    ana.configure(peers=[office.address])
    fleet.start(ana, office)
    fleet.until("the office has all", lambda: set(office.inbox()) == set(keys))
    fleet.until("it says so", lambda: "ana" in alarms(office).get("restored", ""))
    assert "revoke its old key" in alarms(office)["restored"]
    office.stop()
    fleet.start(office)
    fleet.until("it still knows", lambda: "ana" in alarms(office).get("restored", ""))
    fleet.revoke(ana)
    assert office.call("fleet", "update", fleet.publish()).returncode == 0
    fleet.until("it is settled", lambda: "restored" not in alarms(office))


def _count(node: Node, query: str) -> int:
    with closing(sqlite3.connect(node.home / "store.db", timeout=20)) as connection:
        return int(connection.execute(query).fetchone()[0])


@pytest.mark.slow
def test_two_machines_with_one_home_are_told(fleet: Fleet) -> None:
    office, ana, budi = fleet.enroll("office", "office"), fleet.enroll("ana"), fleet.enroll("budi")
    fleet.start(ana)
    keys = [ana.give({"f": b"before"})["key"]]
    ana.stop()
    twin = Node("twin", "officer", ana.home.parent / "twin")
    shutil.copytree(ana.home, twin.home)
    fleet.nodes["twin"] = twin
    twin.port = free_port()
    for each in (ana, twin):
        each.configure(peers=[budi.address])
    fleet.start(ana, twin, budi)
    keys.extend(each.give({"f": each.name.encode()})["key"] for each in (ana, twin))
    # budi is in contact with one of them at a time, whoever came last
    fleet.until("one of them knows", lambda: "twin" in alarms(ana) or "twin" in alarms(twin))
    told = ana if "twin" in alarms(ana) else twin
    assert "meshnode init" in alarms(told)["twin"]
    budi.stop()
    for each in (ana, twin):
        each.stop()
        each.configure(peers=[office.address])
    fleet.start(office, ana)
    fleet.until("the office has one's", lambda: len(office.inbox()) >= 2)
    ana.stop()
    fleet.start(twin)
    fleet.until("the office has both", lambda: set(office.inbox()) == set(keys))
    fleet.until("and says so", lambda: "ana" in alarms(office).get("restored", ""))


@pytest.mark.slow
def test_a_device_that_is_replaced_leaves_nothing_behind(fleet: Fleet) -> None:
    office, old, budi = fleet.enroll("office", "office"), fleet.enroll("ana"), fleet.enroll("budi")
    old.configure(peers=[budi.address])
    fleet.start(old, budi)
    keys = [old.give({"f": b"old"})["key"]]
    fleet.until("budi carries it", lambda: old.states() == ["carried"])
    old.stop()
    new = fleet.enroll("ana-2")
    new.configure(peers=[budi.address])
    fleet.start(new)
    keys.append(new.give({"f": b"new"})["key"])
    fleet.until("budi carries it too", lambda: new.states() == ["carried"])
    new.stop()
    budi.stop()
    budi.configure(peers=[office.address])
    fleet.start(budi, office)
    fleet.until("the office has both", lambda: set(office.inbox()) == set(keys))
    names = sorted(folder.parent.name for folder in office.inbox().values())
    assert names == ["ana", "ana-2"]
    assert alarms(office) == {}

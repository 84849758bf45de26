"""The hot folder: what is put there is taken once, whatever happens, and answered."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from meshnode.app.hotfolder import TAKING, HotFolder
from meshnode.app.unwritten import StillWritten
from meshnode.core.errors import FileTrouble
from meshnode.core.limits import MIB
from meshnode.core.outbox import (
    AGAIN_S,
    FOLDER_SETTLE_S,
    GIVEN_UP_S,
    SETTLE_S,
    Patience,
    Refuse,
    Seen,
    Take,
    described_by,
    is_calm,
    is_of_no_concern,
)
from meshnode.core.words import say
from tests.app.fleets import Fleet, Node

# --- what to do, decided ---


def test_a_file_is_taken_once_it_has_settled() -> None:
    patience = Patience()
    assert patience.decide({"a": Seen("1")}, {}, 100) == []
    assert patience.decide({"a": Seen("2")}, {}, 100 + SETTLE_S) == [], "it has changed"
    assert patience.decide({"a": Seen("2")}, {}, 99.9 + 2 * SETTLE_S) == []
    assert patience.decide({"a": Seen("2")}, {}, 100 + 2 * SETTLE_S) == [Take("a", "2")]
    patience.changed("a")
    assert patience.decide({"a": Seen("2")}, {}, 200) == [], "somebody has it open"
    assert patience.decide({"a": Seen("2")}, {}, 200 + SETTLE_S) == [Take("a", "2")]
    patience.put_off("a", 300)
    assert patience.decide({"a": Seen("2")}, {}, 299 + AGAIN_S) == []
    assert patience.decide({"a": Seen("2")}, {}, 300 + AGAIN_S) == [Take("a", "2")]


def test_what_went_away_and_came_again_settles_again() -> None:
    patience = Patience()
    patience.decide({"a": Seen("1")}, {}, 0)
    patience.decide({}, {}, 1)
    assert patience.decide({"a": Seen("1")}, {}, 10) == []


def test_a_folder_has_more_time_and_is_finished_first() -> None:
    patience, waits = Patience(), say("{file} in it is not finished: finish it or remove it", file="x.part")
    seen = {"f": Seen("1", is_folder=True, unfinished=waits)}
    assert patience.decide(seen, {}, 0) == []
    assert patience.decide(seen, {}, GIVEN_UP_S - 1) == []
    assert patience.decide(seen, {}, GIVEN_UP_S) == [Refuse("f", "1", "unfinished", waits)]
    seen = {"f": Seen("2", is_folder=True)}
    assert patience.decide(seen, {}, 1000) == []
    assert patience.decide(seen, {}, 1000 + SETTLE_S) == []
    assert patience.decide(seen, {}, 1000 + FOLDER_SETTLE_S) == [Take("f", "2")]


def test_the_oldest_first_and_what_was_refused_not_again() -> None:
    patience = Patience()
    seen = {"b": Seen("1", at=1), "a": Seen("2", at=2), "c": Seen("3", at=0)}
    patience.decide(seen, {}, 0)
    assert patience.decide(seen, {"c": "3"}, 10) == [Take("b", "1"), Take("a", "2")]
    assert patience.decide(seen, {"c": "other"}, 20)[0] == Take("c", "3"), "it has changed since"
    assert not is_calm(seen, {"c": "3"})
    assert is_calm(seen, {"a": "2", "b": "1", "c": "3"})


def test_what_describes_is_taken_with_what_it_describes() -> None:
    patience = Patience()
    alone = {"p.jpg.json": Seen("1")}
    assert patience.decide(alone, {}, 0) == []
    assert patience.decide(alone, {}, GIVEN_UP_S - 1) == []
    (refused,) = patience.decide(alone, {}, GIVEN_UP_S)
    assert isinstance(refused, Refuse)
    assert (refused.code, str(refused.why)) == (
        "alone",
        "it describes p.jpg, which is not here: put that beside it",
    )
    both = alone | {"p.jpg": Seen("2+1")}
    patience.decide(both, {}, 1000)
    assert patience.decide(both, {}, 1000 + SETTLE_S) == [Take("p.jpg", "2+1", "p.jpg.json")]


@pytest.mark.parametrize(
    ("name", "described"),
    [("a.jpg.json", "a.jpg"), ("form.json", None), ("a.jpg", None), (".a.json", None), ("a.b.json", "a.b")],
)
def test_which_names_describe(name: str, described: str | None) -> None:
    assert described_by(name) == described


@pytest.mark.parametrize(
    ("name", "ignored"),
    [
        (".x", True), ("x.part", True), ("x.PART", True), ("x.tmp", True), ("x.crdownload", True), ("x~", True),
        ("x.taken", True), ("x.refused", True), ("Thumbs.db", True), ("._x", True), ("x", False),
        ("part", False), ("x.partial.jpg", False),
    ],
)  # fmt: skip
def test_which_names_are_left_alone(name: str, ignored: bool) -> None:
    assert is_of_no_concern(name) is ignored


# --- the folder ---


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "outbox"
    root.mkdir()
    return root


def claim_of(folder: HotFolder, name: str, beside: str | None = None) -> Any:
    look = folder.look()
    assert look is not None
    return folder.claim(Take(name, look.seen[name].looks, beside))


def names_in(root: Path) -> list[str]:
    return sorted(os.listdir(root))


def test_no_folder_is_no_trouble_and_none_is_made(tmp_path: Path) -> None:
    assert HotFolder(tmp_path / "none").look() is None
    (tmp_path / "file").write_bytes(b"")
    assert HotFolder(tmp_path / "file").look() is None
    assert names_in(tmp_path) == ["file"]


def test_a_calm_folder_is_not_listed_again(root: Path) -> None:
    folder = HotFolder(root)
    (root / "x.taken").write_bytes(b"{}")
    assert folder.look() is not None
    calm = [folder._calm]
    for _ in range(2):
        folder.look()
        calm.append(folder._calm)
    assert [it is not None for it in calm] == [False, True, True], "the second look makes sure"
    (root / "new").write_bytes(b"1")
    look = folder.look()
    assert look is not None
    assert list(look.seen) == ["new"]


def test_what_changed_since_the_look_is_not_claimed(root: Path) -> None:
    folder = HotFolder(root)
    (root / "a.jpg").write_bytes(b"1")
    look = folder.look()
    assert look is not None
    (root / "new").write_bytes(b"half of ano")
    os.replace(root / "new", root / "a.jpg")
    with pytest.raises(StillWritten):
        folder.claim(Take("a.jpg", look.seen["a.jpg"].looks, None))
    assert names_in(root) == ["a.jpg"]


def test_a_claim_that_cannot_be_read_now_is_left_alone(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = HotFolder(root)
    (root / "a.jpg").write_bytes(b"1")
    claim = claim_of(folder, "a.jpg")

    def unreadable(path: Path, size_max: int) -> bytes:
        raise FileTrouble(path=path, problem="too many open files")

    with monkeypatch.context() as patch:
        patch.setattr("meshnode.app.hotfolder.read_optional", unreadable)
        look = folder.look(thorough=True)
        assert look is not None
        assert look.claims == []
    look = folder.look(thorough=True)
    assert look is not None
    assert [it.parts for it in look.claims] == [claim.parts]


def test_files_that_are_numbered_anew_are_removed_once_they_are_taken(root: Path) -> None:
    folder = HotFolder(root)
    (root / "a.jpg").write_bytes(b"1")
    claim = claim_of(folder, "a.jpg")
    (part,) = claim.parts
    claim.parts = (replace(part, inode=part.inode + 1),)
    assert folder.finish(claim, {"key": "k"})
    assert names_in(root) == [".taking", "a.jpg.taken"]


@pytest.mark.parametrize("name", ["x" * 255, "é" * 127])
def test_the_longest_names_are_answered(root: Path, name: str) -> None:
    folder = HotFolder(root)
    (root / name).write_bytes(b"1")
    look = folder.look()
    assert look is not None
    folder.refuse(name, look.seen[name].looks, "code", "why")
    look = folder.look(thorough=True)
    assert look is not None
    assert look.refused[name] == look.seen[name].looks, "it is not refused again"
    assert folder.finish(claim_of(folder, name), {"key": "k"})
    (answer,) = (it for it in names_in(root) if it != ".taking")
    assert answer.endswith(".taken")


def test_what_describes_goes_back_beside_what_it_describes(root: Path) -> None:
    folder = HotFolder(root)
    for name in ("a.jpg", "a.jpg.json"):
        (root / name).write_text(f"old {name}")
    look = folder.look()
    assert look is not None
    claim = folder.claim(Take("a.jpg", look.seen["a.jpg"].looks, "a.jpg.json"))
    (root / "a.jpg").write_text("new")
    folder.put_back(claim)
    assert names_in(root) == [".taking", "a-2.jpg", "a-2.jpg.json", "a.jpg"]
    assert (root / "a-2.jpg.json").read_text() == "old a.jpg.json"


def test_half_a_character_can_be_answered(root: Path) -> None:
    (root / "a").write_bytes(b"1")
    HotFolder(root).refuse("a", "looks", "code", "unknown keys: \ud800")
    assert json.loads((root / "a.refused").read_bytes())["reason"] == "unknown keys: \ud800"


def test_links_pipes_and_folders_in_folders_are_never_opened(root: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    (root / "link").symlink_to(secret)
    (root / "away").symlink_to(tmp_path)
    os.mkfifo(root / "pipe")
    for name, make in (("deep", os.mkdir), ("piped", os.mkfifo)):
        (root / name).mkdir()
        make(root / name / "inner")
    (root / "linked").mkdir()
    (root / "linked" / "l").symlink_to(secret)
    look = HotFolder(root).look()
    assert look is not None
    assert {name: str(seen.bad) for name, seen in look.seen.items()} == {
        "link": "it is a symbolic link: put the file itself here",
        "away": "it is a symbolic link: put the file itself here",
        "pipe": "it is neither a file nor a folder",
        "deep": "inner in it cannot be taken: it is a folder within a folder: a message has files only",
        "piped": "inner in it cannot be taken: it is neither a file nor a folder",
        "linked": "l in it cannot be taken: it is a symbolic link: put the file itself here",
    }


def test_a_file_that_somebody_writes_is_not_taken(root: Path) -> None:
    folder = HotFolder(root)
    (root / "f").mkdir()
    with (root / "f" / "a").open("wb", buffering=0) as writer:
        writer.write(b"1")
        with pytest.raises(StillWritten):
            claim_of(folder, "f")
        assert names_in(root) == ["f"], "it was not even moved"
    claim = claim_of(folder, "f")
    assert [part.name for part in claim.parts] == ["a"]


def test_a_claim_goes_back_as_it_was(root: Path) -> None:
    folder = HotFolder(root)
    (root / "p.jpg").write_bytes(b"1")
    (root / "p.jpg.json").write_bytes(b"{}")
    before = folder.look()
    claim = claim_of(folder, "p.jpg", "p.jpg.json")
    assert names_in(root) == [TAKING]
    found = HotFolder(root).look()
    assert found is not None
    assert [(it.ticket, it.name, it.parts) for it in found.claims] == [(claim.ticket, "p.jpg", claim.parts)]
    folder.put_back(found.claims[0])
    assert names_in(root) == [TAKING, "p.jpg", "p.jpg.json"]
    assert names_in(root / TAKING) == []
    after = folder.look()
    assert before is not None
    assert after is not None
    assert after.seen == before.seen, "it does not have to settle again, and a refusal of it still stands"


def test_what_goes_back_replaces_nothing(root: Path) -> None:
    folder = HotFolder(root)
    (root / "a.jpg").write_bytes(b"old")
    claim = claim_of(folder, "a.jpg")
    (root / "a.jpg").write_bytes(b"new")
    folder.put_back(claim)
    assert (root / "a.jpg").read_bytes() == b"new"
    assert (root / "a-2.jpg").read_bytes() == b"old"


@pytest.mark.parametrize("cut", ["place", "inside", "entry"])
def test_a_claim_that_was_cut_off_goes_back(root: Path, cut: str) -> None:
    place = root / TAKING / "00"
    (place / "it" if cut != "place" else place).mkdir(parents=True)
    if cut == "entry":
        (place / "it" / "a").write_bytes(b"1")
    folder = HotFolder(root)
    look = folder.look()
    assert look is not None
    assert not look.is_calm
    (claim,) = look.claims
    assert claim.parts == ()
    folder.put_back(claim)
    assert names_in(root) == [TAKING, *(["a"] if cut == "entry" else [])]
    assert names_in(root / TAKING) == []


def test_what_came_in_meanwhile_is_not_removed(root: Path) -> None:
    folder = HotFolder(root)
    (root / "f").mkdir()
    for name in ("a", "b", ".DS_Store"):
        (root / "f" / name).write_bytes(b"1")
    claim = claim_of(folder, "f")
    (claim.inside / "f" / "late").write_bytes(b"2")
    (claim.inside / "f" / "b").write_bytes(b"22")
    assert folder.finish(claim, {"key": "k"}) is False
    assert names_in(root) == [TAKING, "f", "f.taken"]
    assert names_in(root / "f") == ["b", "late"]


def test_what_a_crash_left_of_an_answer_is_swept_away_once(root: Path) -> None:
    for name in (".meshnode-00.tmp", "a.tmp"):
        (root / name).write_bytes(b"")
    folder = HotFolder(root)
    folder.look()
    assert names_in(root) == ["a.tmp"]
    (root / ".meshnode-00.tmp").write_bytes(b"")
    folder.look()
    assert names_in(root) == [".meshnode-00.tmp", "a.tmp"], "that one is being written"


def test_an_answer_does_not_follow_a_link(root: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_bytes(b"precious")
    (root / "a.refused").symlink_to(precious)
    HotFolder(root).refuse("a", "1", "code", "why")
    assert precious.read_bytes() == b"precious"
    assert json.loads((root / "a.refused").read_bytes()) == {"code": "code", "reason": "why", "of": "1"}


# --- a real node ---


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with Fleet(tmp_path) as fleet:
        yield fleet


@pytest.fixture
def ana(fleet: Fleet) -> Node:
    fleet.enroll("office", "office")
    ana = fleet.enroll("ana")
    (ana.home / "outbox").mkdir()
    return ana


def put(box: Path, name: str, files: dict[str, bytes] | bytes) -> None:
    """As a careful program does: aside, then under the name."""
    aside = box / f".{name}"
    if isinstance(files, bytes):
        aside.write_bytes(files)
    else:
        aside.mkdir()
        for each, data in files.items():
            (aside / each).write_bytes(data)
    aside.rename(box / name)


def answer(fleet: Fleet, box: Path, name: str) -> dict[str, Any]:
    """What is said of it, once it is."""
    fleet.until(f"{name} is there", (box / name).exists)
    said: dict[str, Any] = json.loads((box / name).read_bytes())
    return said


def test_files_and_folders_arrive(fleet: Fleet, ana: Node) -> None:
    office, box = fleet.nodes["office"], ana.home / "outbox"
    ana.configure(peers=[office.address])
    with (ana.home / "config.toml").open("a") as file:
        file.write('[outbox]\nkind = "umum"\n')
    big = os.urandom(3 * MIB)
    put(box, "scan.pdf", big)
    said = {"kind": "surat", "reference": "Ibu Aminah", "meta": {"desa": "Ciheras"}, "priority": "urgent"}
    put(
        box,
        "0001",
        {"a.txt": b"1", "b.txt": b"2", ".DS_Store": b"x", "message.json": json.dumps(said).encode()},
    )
    put(box, "c.bin.json", json.dumps({"kind": "lain"}).encode())
    put(box, "c.bin", b"")
    (box / "d.part").write_bytes(b"never")
    fleet.start(office, ana)
    taken = {name: answer(fleet, box, f"{name}.taken") for name in ("scan.pdf", "0001", "c.bin")}
    assert taken["scan.pdf"]["size_bytes"] == len(big)
    assert taken["scan.pdf"]["bundles"] == 13
    fleet.until("all are delivered", lambda: ana.states() == ["delivered"] * 3)
    inbox = office.inbox()
    records = {
        name: json.loads((inbox[it["key"]] / "message.json").read_bytes()) for name, it in taken.items()
    }
    assert (inbox[taken["scan.pdf"]["key"]] / "scan.pdf").read_bytes() == big
    assert names_in(inbox[taken["0001"]["key"]]) == ["a.txt", "b.txt", "message.json"]
    assert {key: records["0001"][key] for key in ("kind", "reference", "meta")} == {
        "kind": "surat",
        "reference": "Ibu Aminah",
        "meta": {"desa": "Ciheras"},
    }
    assert records["c.bin"]["kind"] == "lain"
    assert (records["scan.pdf"]["kind"], records["scan.pdf"]["reference"]) == ("umum", "scan.pdf")
    assert names_in(inbox[taken["c.bin"]["key"]]) == ["c.bin", "message.json"]
    fleet.until("the claims are gone", lambda: not names_in(box / TAKING))
    assert names_in(box) == [TAKING, "0001.taken", "c.bin.taken", "d.part", "scan.pdf.taken"]
    assert "scan" not in ana.log()
    assert "Aminah" not in ana.log()


@pytest.mark.slow
def test_what_is_refused_stays_and_is_tried_again_when_it_changes(fleet: Fleet, ana: Node) -> None:
    box = ana.home / "outbox"
    with (ana.home / "config.toml").open("r+") as file:
        text = file.read()
        file.seek(0)
        file.write(f'language = "id"\n{text}')
    put(box, "reg", {"form.json": b"{}", "message.json": b'{"kind": "ktp-el"}'})
    put(box, "odd", {"a": b"", "message.json": b'{"kin": "x"}'})
    (box / "link").symlink_to(ana.home / "device.key")
    (box / os.fsdecode(b"\xff.bin")).write_bytes(b"1")
    fleet.start(ana)
    refused = answer(fleet, box, "reg.refused")
    assert refused["code"] == "not-as-its-kind"
    assert "photo.jpg" in refused["reason"]
    assert answer(fleet, box, "odd.refused")["code"] == "bad-submission"
    assert answer(fleet, box, "link.refused")["code"] == "not-a-file"
    assert answer(fleet, box, os.fsdecode(b"\xff.bin.refused"))["code"] == "bad-file-name"
    fleet.until("they are back", lambda: names_in(box / TAKING) == [])
    assert names_in(box / "reg") == ["form.json", "message.json"]
    assert ana.get("messages") == []
    ana.stop()
    stamp = (box / "reg.refused").stat().st_mtime_ns
    (box / "odd" / "message.json").write_bytes(b'{"kind": "x"}')
    fleet.start(ana)
    answer(fleet, box, "odd.taken")
    assert not (box / "odd.refused").exists()
    assert (box / "reg.refused").stat().st_mtime_ns == stamp, "that one was left alone"
    assert [row["kind"] for row in ana.get("messages")] == ["x"]


def bundles_on_disk(node: Node) -> int:
    with contextlib.closing(sqlite3.connect(f"file:{node.home}/store.db?mode=ro", uri=True)) as store:
        count: int = store.execute("SELECT count(*) FROM entry").fetchone()[0]
        return count


@pytest.mark.slow
def test_killed_while_it_is_taken(fleet: Fleet, ana: Node) -> None:
    box = ana.home / "outbox"
    fleet.start(ana)
    before = bundles_on_disk(ana)
    content = os.urandom(64 * MIB)
    put(box, "big", content)
    fleet.until("a part of it is written", lambda: bundles_on_disk(ana) > before + 4)
    ana.kill()
    assert not (box / "big.taken").exists(), "it was too fast to be killed in the middle"
    (place,) = (box / TAKING).iterdir()
    assert (place / "it" / "big").read_bytes() == content
    fleet.start(ana)
    said = answer(fleet, box, "big.taken")
    assert [row["key"] for row in ana.get("messages")] == [said["key"]]
    fleet.until("the claim is gone", lambda: not names_in(box / TAKING))


def test_killed_between_the_commit_and_the_answer(fleet: Fleet, ana: Node) -> None:
    box = ana.home / "outbox"
    fleet.start(ana)
    for name in ("a", "f"):  # nothing can be renamed over a folder, so both wait here with their answers
        (box / f"{name}.taken").mkdir()
    put(box, "a", b"1")
    put(box, "f", {"x": b"2", "y": b"3"})
    fleet.until("both are messages", lambda: len(ana.get("messages")) == 2)
    fleet.until("the answers fail", lambda: ana.logged("cannot answer"))
    keys = {row["reference"]: row["key"] for row in ana.get("messages")}
    ana.kill()
    put(box, "a", b"another of the same name")
    fleet.start(ana)
    fleet.until("they fail again", lambda: ana.log().count("cannot answer") == 2)
    ana.kill()
    for name in ("a", "f"):
        (box / f"{name}.taken").rmdir()
    fleet.start(ana)
    assert answer(fleet, box, "f.taken")["key"] == keys["f"]
    fleet.until("the other a too", lambda: len(ana.get("messages")) == 3)
    fleet.until("all claims are gone", lambda: not names_in(box / TAKING))
    assert names_in(box) == [TAKING, "a.taken", "f.taken"]
    rows = ana.get("messages")
    assert [row["reference"] for row in rows].count("f") == 1
    assert sorted(row["size_bytes"] for row in rows) == [1, 2, 24]


@pytest.mark.slow
def test_a_full_disk_leaves_it_there(fleet: Fleet, ana: Node) -> None:
    box = ana.home / "outbox"
    ana.configure(store={"floor_bytes": 2**60})
    put(box, "a", b"1")
    fleet.start(ana)
    fleet.until("it is said", lambda: ana.logged("stays there for now"))
    fleet.until("it is back", lambda: names_in(box) == [TAKING, "a"])
    assert ana.log().count("stays there for now") == 1
    ana.stop()
    ana.configure()
    fleet.start(ana)
    answer(fleet, box, "a.taken")
    assert len(ana.get("messages")) == 1

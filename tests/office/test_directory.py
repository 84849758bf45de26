"""The directory sink: the layout, exactly once whatever dies when, and names that nobody should trust."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from meshnode.core.message import File, Manifest
from meshnode.office.sinks import Envelope, Never, NotNow, make_sink
from meshnode.office.sinks.directory import INCOMING, DirectorySink
from tests.office.disk import Disk, Killed
from tests.office.world import DAY_MS, EVENING_MS, SITI, manifest_of

KEY = "00112233445566778899aabbccddeeff:12"
NAME = KEY.replace(":", "-")
PLACE = f"2026-03-04/officer-07/{NAME}"
ENVELOPE = Envelope(KEY, "officer-07", SITI.id, EVENING_MS)
CONTENTS = [("foto.jpg", b"\xff\xd8" + b"f" * 5000), ("kosong.txt", b""), ("tanda tangan.png", b"t" * 70)]

Contents = list[tuple[str, bytes]]


def deliver(
    sink: DirectorySink, envelope: Envelope = ENVELOPE, contents: Contents = CONTENTS, **fields: object
) -> bool:
    """Hand a message on as the office does. Whether the sink took it now (False: it had it)."""
    delivery = sink.begin(envelope, manifest_of(contents, **fields))
    if delivery is None:
        return False
    try:
        for index, (_, data) in enumerate(contents):
            for at in range(0, len(data), 2000):
                delivery.write(index, memoryview(data)[at : at + 2000])
        delivery.commit()
    except BaseException:
        delivery.abort()
        raise
    return True


def messages_in(root: Path) -> dict[str, Path]:
    """Each message folder that a program can see, by its place."""
    found = [path for path in root.rglob(NAME) if INCOMING not in path.relative_to(root).parts]
    return {str(path.relative_to(root)): path for path in found}


def assert_whole(folder: Path, contents: Contents = CONTENTS) -> None:
    record = json.loads((folder / "message.json").read_text("utf-8"))
    assert record["key"] == KEY
    assert {path.name for path in folder.iterdir()} == {"message.json", *(name for name, _ in contents)}
    for (name, data), file in zip(contents, record["files"], strict=True):
        assert (folder / name).read_bytes() == data
        assert file == {
            "name": name,
            "size_bytes": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
            "type": "application/octet-stream",
        }


def no_leftovers(root: Path) -> bool:
    return not (root / INCOMING).exists() or os.listdir(root / INCOMING) == []


# --- the layout ---


def test_a_message_becomes_a_folder_with_its_files_and_its_record(tmp_path: Path) -> None:
    assert deliver(DirectorySink(tmp_path / "new" / "inbox"))
    root = tmp_path / "new" / "inbox"
    assert list(messages_in(root)) == [PLACE]
    assert_whole(root / PLACE)
    assert no_leftovers(root)
    text = (root / PLACE / "message.json").read_text("utf-8")
    assert text.endswith("}\n")
    assert "3206…" in text
    record = json.loads(text)
    assert list(record) == [
        "key",
        "source",
        "kind",
        "meta",
        "reference",
        "submitted_ms",
        "received_ms",
        "files",
    ]
    assert record["source"] == {"name": "officer-07", "id": SITI.id.hex()}
    assert record["kind"] == "ktp-el"
    assert record["meta"] == {"desa": "Cibalanarik", "nik": "3206…"}
    assert record["reference"] == "Siti Nurhayati"
    assert record["submitted_ms"] == EVENING_MS - 5000
    assert record["received_ms"] == EVENING_MS


def test_nobody_else_may_read_it_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        deliver(DirectorySink(tmp_path / "inbox"))
        deliver(DirectorySink(tmp_path / "inbox"), replace(ENVELOPE, key=KEY + "0", held="why"))
    finally:
        os.umask(before)
    for path in (tmp_path / "inbox").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_what_an_operator_has_to_decide_on_is_held_apart(tmp_path: Path) -> None:
    deliver(DirectorySink(tmp_path), replace(ENVELOPE, held="the source device was revoked"))
    assert list(messages_in(tmp_path)) == [f"held/{PLACE}"]
    record = json.loads((tmp_path / "held" / PLACE / "message.json").read_text("utf-8"))
    assert record["held"] == "the source device was revoked"


@pytest.mark.parametrize(
    ("received_ms", "date"),
    [(EVENING_MS + 999, "2026-03-04"), (EVENING_MS + 1000, "2026-03-05"), (0, "1970-01-01")],
)
def test_the_date_is_that_of_utc(tmp_path: Path, received_ms: int, date: str) -> None:
    deliver(DirectorySink(tmp_path), replace(ENVELOPE, received_ms=received_ms))
    assert [place.split("/")[0] for place in messages_in(tmp_path)] == [date]


def test_a_message_of_empty_files_only(tmp_path: Path) -> None:
    empty: Contents = [("a", b""), ("b", b""), ("c", b"")]
    deliver(DirectorySink(tmp_path), contents=empty)
    assert_whole(tmp_path / PLACE, empty)


# --- exactly once ---


@pytest.mark.parametrize(
    "again",
    [
        ENVELOPE,
        replace(ENVELOPE, received_ms=EVENING_MS + DAY_MS),
        replace(ENVELOPE, received_ms=EVENING_MS - DAY_MS, held="revoked meanwhile"),
    ],
    ids=["same-day", "next-day", "held"],
)
@pytest.mark.parametrize("held", [None, "revoked"])
def test_a_key_is_taken_once_whenever_it_comes_again(
    tmp_path: Path, again: Envelope, held: str | None
) -> None:
    sink = DirectorySink(tmp_path)
    assert deliver(sink, replace(ENVELOPE, held=held))
    assert not deliver(sink, again)
    assert not deliver(DirectorySink(tmp_path), again)
    assert len(messages_in(tmp_path)) == 1


def test_another_key_of_the_same_device_and_day_is_another_message(tmp_path: Path) -> None:
    sink = DirectorySink(tmp_path)
    assert deliver(sink)
    assert deliver(sink, replace(ENVELOPE, key=KEY[:-1]))
    assert deliver(sink, replace(ENVELOPE, source="officer-08"))


def test_leftovers_are_removed_at_the_start_and_when_their_key_begins(tmp_path: Path) -> None:
    def leave(name: str) -> None:
        (tmp_path / INCOMING / name / "inner").mkdir(parents=True)
        (tmp_path / INCOMING / name / "foto.jpg").write_bytes(b"half")

    leave("stale")
    sink = DirectorySink(tmp_path)
    assert no_leftovers(tmp_path)
    leave(NAME)
    assert deliver(sink)
    assert_whole(tmp_path / PLACE)
    assert no_leftovers(tmp_path)


def test_an_aborted_message_leaves_nothing_and_can_come_again(tmp_path: Path) -> None:
    sink = DirectorySink(tmp_path)
    delivery = sink.begin(ENVELOPE, manifest_of(CONTENTS))
    assert delivery is not None
    delivery.write(0, b"half")
    delivery.abort()
    assert no_leftovers(tmp_path)
    assert messages_in(tmp_path) == {}
    assert deliver(sink)


# --- deaths, at every step ---


def every_step(tmp_path: Path, act: Callable[[Path], object]) -> Iterator[tuple[int, Disk]]:
    """(step, a fresh disk) for each step that `act` takes."""
    measured = Disk(tmp_path / "measured")
    measured.base.mkdir()
    with measured.run():
        act(measured.base / "inbox")
    assert measured.steps > 20
    for step in range(1, measured.steps + 1):
        disk = Disk(tmp_path / f"disk-{step}")
        disk.base.mkdir()
        yield step, disk


@contextmanager
def dying() -> Iterator[None]:
    with pytest.raises(Killed):
        yield


def start_and_deliver(root: Path, envelope: Envelope = ENVELOPE) -> bool:
    return deliver(DirectorySink(root), envelope)


def test_killed_at_any_step_and_started_again_it_is_there_once(tmp_path: Path) -> None:
    later = replace(ENVELOPE, received_ms=EVENING_MS + DAY_MS)
    for step, disk in every_step(tmp_path, start_and_deliver):
        root = disk.base / "inbox"
        with disk.run(kill_at=step), dying():
            start_and_deliver(root)
        for folder in messages_in(root).values():
            assert_whole(folder)
        with disk.run():
            start_and_deliver(root, later)
            (folder,) = messages_in(root).values()
            assert_whole(folder)
            assert no_leftovers(root)
            assert not start_and_deliver(root)


def test_a_power_cut_at_any_step_leaves_all_or_nothing_and_nothing_that_was_taken_is_lost(
    tmp_path: Path,
) -> None:
    for step, disk in every_step(tmp_path, start_and_deliver):
        with disk.run(kill_at=step), dying():
            start_and_deliver(disk.base / "inbox")
        root = disk.power_cut(tmp_path / f"image-{step}") / "inbox"
        for folder in messages_in(root).values():
            assert_whole(folder)
        with Disk(root.parent).run():
            start_and_deliver(root)
        (folder,) = messages_in(root).values()
        assert_whole(folder)


def test_what_counts_as_taken_survives_a_power_cut_also_if_an_earlier_process_was_killed(
    tmp_path: Path,
) -> None:
    """The first process may die between renaming and flushing; the second must not just find the folder."""
    found = 0
    for step, disk in every_step(tmp_path, start_and_deliver):
        root = disk.base / "inbox"
        with disk.run(kill_at=step), dying():
            start_and_deliver(root)
        with disk.run():
            found += not start_and_deliver(root)
        image = disk.power_cut(tmp_path / f"image-{step}") / "inbox"
        (folder,) = messages_in(image).values()
        assert_whole(folder)
    assert found > 3


def test_killed_twice_at_any_two_steps(tmp_path: Path) -> None:
    for step, disk in every_step(tmp_path, start_and_deliver):
        root = disk.base / "inbox"
        for kill_at in (step, max(1, step // 2)):
            with disk.run(kill_at=kill_at), suppress(Killed):
                start_and_deliver(root)
        with disk.run():
            start_and_deliver(root)
        (folder,) = messages_in(root).values()
        assert_whole(folder)
        assert no_leftovers(root)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_disk_that_fails_at_any_step_means_not_now_and_later_it_is_there_once(
    tmp_path: Path, code: int
) -> None:
    refused = 0
    for step, disk in every_step(tmp_path, start_and_deliver):
        root = disk.base / "inbox"
        with disk.run(fail_at=step, errno=code):
            sink = DirectorySink(root)
            try:
                deliver(sink)
            except NotNow:
                refused += 1
                assert no_leftovers(root)
        with disk.run():
            deliver(sink)
        (folder,) = messages_in(disk.power_cut(tmp_path / f"image-{step}") / "inbox").values()
        assert_whole(folder)
        assert len(messages_in(root)) == 1
    assert refused > 20


def test_a_disk_that_cannot_flush_folders_is_good_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fsync

    def fsync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    assert deliver(DirectorySink(tmp_path / "inbox"))


# --- folders that are not there ---


def test_a_folder_that_goes_away_is_waited_for_and_not_made_anew(tmp_path: Path) -> None:
    root = tmp_path / "inbox"
    sink = DirectorySink(root)
    root.rename(tmp_path / "unmounted")
    with pytest.raises(NotNow, match="no such file or directory"):
        deliver(sink)
    assert not root.exists()
    (tmp_path / "unmounted").rename(root)
    assert deliver(sink)


def test_a_file_in_the_folders_place_is_waited_away(tmp_path: Path) -> None:
    root = tmp_path / "inbox"
    root.write_text("not a folder")
    sink = DirectorySink(root)
    with pytest.raises(NotNow):
        deliver(sink)
    root.unlink()
    assert deliver(sink)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_is_waited_for(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        sink = DirectorySink(tmp_path / "inbox")
        with pytest.raises(NotNow, match="permission denied"):
            deliver(sink)
    finally:
        tmp_path.chmod(0o700)
    assert deliver(sink)


def test_a_date_that_cannot_be_looked_into_is_not_taken_for_an_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = DirectorySink(tmp_path)
    deliver(sink)
    real = os.stat

    def broken(path: Any, *args: Any, **kwargs: Any) -> os.stat_result:
        if str(path).endswith(NAME):
            raise OSError(errno.EIO, "Input/output error")
        return real(path, *args, **kwargs)

    monkeypatch.setattr(os, "stat", broken)
    with pytest.raises(NotNow):
        deliver(sink, replace(ENVELOPE, received_ms=EVENING_MS + DAY_MS))
    monkeypatch.undo()
    assert list(messages_in(tmp_path)) == [PLACE]


# --- names ---


def hostile(*names: str) -> Manifest:
    """What core.message would refuse."""
    return Manifest("kind", (), "", 0, tuple(File(name, 1) for name in names))


@pytest.mark.parametrize(
    "names",
    [
        ("../../escaped",),
        ("/etc/cron.d/escaped",),
        ("ok.txt", "a/b"),
        ("..",),
        (".",),
        ("",),
        ("a\0b",),
        ("..\\..\\escaped",),
        ("twice", "twice"),
        ("message.json",),
        ("x" * 256,),
    ],
)
def test_a_name_that_is_no_name_is_refused_for_ever_and_touches_nothing(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    sink = DirectorySink(tmp_path / "inbox")
    delivery = sink.begin(ENVELOPE, hostile(*names))
    assert delivery is not None
    with pytest.raises(Never) as refusal:  # noqa: PT012
        for index in range(len(names)):
            delivery.write(index, b"x")
        delivery.commit()
    delivery.abort()
    assert not any(name and name in str(refusal.value) for name in names if len(name) > 2)
    assert {path.name for path in tmp_path.rglob("*")} == {"inbox", INCOMING}
    assert deliver(sink)


@pytest.mark.parametrize(
    "envelope",
    [replace(ENVELOPE, source="../x"), replace(ENVELOPE, source=".."), replace(ENVELOPE, key="a/../../b:1")],
)
def test_a_device_or_key_that_is_a_path_is_refused_for_ever(tmp_path: Path, envelope: Envelope) -> None:
    with pytest.raises(Never):
        deliver(DirectorySink(tmp_path / "inbox"), envelope)
    assert {path.name for path in tmp_path.rglob("*")} <= {"inbox", INCOMING}


def test_a_link_in_the_way_is_not_followed(tmp_path: Path) -> None:
    sink = DirectorySink(tmp_path / "inbox")
    delivery = sink.begin(ENVELOPE, manifest_of(CONTENTS))
    assert delivery is not None
    (tmp_path / "victim").write_bytes(b"safe")
    (tmp_path / "inbox" / INCOMING / NAME / "foto.jpg").symlink_to(tmp_path / "victim")
    with pytest.raises(Never):
        delivery.write(0, b"overwritten")
    delivery.abort()
    assert (tmp_path / "victim").read_bytes() == b"safe"


# --- configuration ---


def test_a_relative_folder_is_inside_the_home_and_an_absolute_one_where_it_says(tmp_path: Path) -> None:
    for spec in ("directory:inbox", f"directory:{tmp_path / 'else where'}"):
        sink = make_sink(spec, tmp_path / "home")
        assert isinstance(sink, DirectorySink)
        assert deliver(sink)
    assert_whole(tmp_path / "home" / "inbox" / PLACE)
    assert_whole(tmp_path / "else where" / PLACE)


@pytest.mark.parametrize(
    "spec", ["", "inbox", "directory", "directory:", "http://", "ftp://x", "directory:a\0b"]
)
def test_a_sink_that_is_none_is_refused_in_a_sentence(tmp_path: Path, spec: str) -> None:
    with pytest.raises(ValueError, match="must "):
        make_sink(spec, tmp_path)

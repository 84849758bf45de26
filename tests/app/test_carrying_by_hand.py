"""Carrying by hand: real daemons that meet nobody, and a stick that goes from one to the other."""

from __future__ import annotations

import errno
import io
import json
import os
import random
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshnode.app.byhand import Stock
from meshnode.app.stick import Gap, Piece, StickOutOfRoom, open_stick, walk
from meshnode.app.stick_writing import StickWriter, mend_all, wipe
from meshnode.core.errors import FileTrouble
from meshnode.core.frames import BundleFrame, Cert, Fleet, ReceiptFrame, encode
from meshnode.core.identity import JournalId
from meshnode.core.intervals import Ranges
from meshnode.core.limits import MIB
from meshnode.core.stick import HEAD_SIZE, write_head
from tests.app.fleets import Fleet as Devices
from tests.app.fleets import Node, assert_refused, connect
from tests.core.fleets import Fleet as Founded
from tests.core.fleets import Source

PHOTO = random.Random(7).randbytes(600_000)


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Devices]:
    with Devices(tmp_path) as fleet:
        yield fleet


@pytest.fixture
def stick(tmp_path: Path) -> Path:
    folder = tmp_path / "stick"
    folder.mkdir()
    return folder


def carry(node: Node, *words: object) -> dict[str, Any]:
    """`meshnode export` or `import`, all well."""
    done = node.call(*words, "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert isinstance(told, dict)
    return told


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- the way of a message ---------------------------------------------------------------------------------------


def test_a_message_goes_to_the_office_and_its_receipt_comes_home_on_one_stick(
    fleet: Devices, stick: Path
) -> None:
    office, ana, budi = fleet.enroll("office", "office"), fleet.enroll("ana"), fleet.enroll("budi")
    fleet.start(office, ana, budi)
    key = ana.give({"photo.jpg": PHOTO}, reference="Siti")["key"]

    done = carry(ana, "export", stick)
    assert (done["bundles"], done["known"], done["files"]) == (4, 0, ["ana-1.meshnode"])
    assert names(stick) == ["ana-1.meshnode"]
    sealed = (stick / "ana-1.meshnode").read_bytes()
    assert PHOTO[:64] not in sealed
    assert b"Siti" not in sealed
    assert ana.states() == ["on_this_device_only"], "a stick is not a colleague"
    again = carry(ana, "export", stick)
    assert (again["bundles"], again["known"], again["files"]) == (0, 4, [])

    done = carry(budi, "import", stick)
    assert (done["bundles"], done["known"], done["damaged"]) == (4, 0, 0)
    assert done["fleet_version"] == fleet.authority().document.version
    assert budi.get("status")["carrying"]["bundles"] == 3
    assert carry(budi, "import", stick)["known"] == 4
    other = stick.parent / "card.meshnode"
    done = carry(budi, "export", other)
    assert done["bundles"] == 5, "and that budi is there"
    assert names(stick) == ["ana-1.meshnode"]

    assert carry(office, "import", other, "--wipe-delivered")["bundles"] == 5
    fleet.until("it is at the office", lambda: list(office.inbox()) == [key])
    photo = office.inbox()[key] / "photo.jpg"
    assert photo.read_bytes() == PHOTO
    done = carry(office, "export", stick, "--wipe-delivered")
    assert (done["wiped"], done["receipts"]) == (3, 1)
    assert (stick / "ana-1.meshnode").stat().st_size < 10_000

    done = carry(ana, "import", stick)
    assert done["receipts"] == 1
    assert ana.states() == ["delivered"]
    assert carry(budi, "import", stick)["receipts"] == 1
    assert budi.get("status")["carrying"]["bundles"] == 0
    assert carry(office, "import", stick)["bundles"] == 0
    assert list(office.inbox()) == [key]

    office.give({"note.txt": b"left iris unreadable"}, to="ana")
    assert carry(office, "export", stick)["bundles"] == 1
    assert carry(ana, "import", stick)["bundles"] == 1
    fleet.until("ana has it", lambda: len(ana.get("received")) == 1)
    assert carry(ana, "export", stick, "--wipe-delivered")["wiped"] == 1
    assert carry(office, "import", stick)["receipts"] == 1
    assert office.states() == ["delivered"]


def test_what_is_said_is_said_in_sentences(fleet: Devices, stick: Path) -> None:
    office, ana = fleet.enroll("office", "office"), fleet.enroll("ana")
    assert_refused(ana.call("export", stick), "is not running", 3)
    assert_refused(ana.call("import", stick), "is not running", 3)
    fleet.start(office, ana)
    ana.give({"photo.jpg": PHOTO})
    assert_refused(ana.call("export", stick / "no"), "does not exist: name a folder, or a file that ends")
    assert_refused(ana.call("import", stick), "holds nothing of this fleet")
    assert_refused(ana.call("import", stick / "no.meshnode"), "does not exist")
    done = ana.call("export", stick)
    assert done.stdout == "4 bundles (607 kB) written to ana-1.meshnode.\n"
    (stick / "eve.meshnode").write_bytes(write_head(b"x" * 16) + b"theirs")  # type: ignore[arg-type]
    (stick / "holiday.meshnode").write_bytes(b"\xff\xd8")
    (stick / "._ana-1.meshnode").write_bytes(b"a Macintosh was here")
    done = office.call("import", stick)
    assert done.stdout == "4 bundles taken, 0 new receipts; the fleet document is version 2.\n"
    assert done.stderr.splitlines() == [
        "eve.meshnode is left as it is: it is of another fleet.",
        "holiday.meshnode is left as it is: it is no file of meshnode.",
    ]
    assert_refused(office.call("import", stick / "eve.meshnode"), "is left alone: it is of another fleet")
    assert_refused(office.call("export", stick / "holiday.meshnode"), "it is no file of meshnode")
    assert (stick / "holiday.meshnode").read_bytes() == b"\xff\xd8"


def test_a_stick_pulled_out_in_the_middle_is_read_as_far_as_it_is_whole_and_completed(
    fleet: Devices, stick: Path
) -> None:
    office, ana = fleet.enroll("office", "office"), fleet.enroll("ana")
    fleet.start(office, ana)
    ana.give({"photo.jpg": PHOTO})
    carry(ana, "export", stick)
    whole = stick / "ana-1.meshnode"
    part = stick / "ana-1.meshnode.part"
    data = whole.read_bytes()
    whole.unlink()
    part.write_bytes(data[:400_000])
    (stick / "ana-2.meshnode.part").write_bytes(data[:10])
    (stick / "ana-1.meshnode.wiping").write_bytes(data[:300_000])
    assert carry(office, "import", stick)["bundles"] == 2
    assert part.read_bytes() == data[:400_000], "who only reads changes nothing"
    done = carry(ana, "export", stick)
    assert (done["known"], done["bundles"]) == (2, 2)
    assert names(stick) == ["ana-1.meshnode", "ana-2.meshnode"]
    done = carry(office, "import", stick)
    assert (done["known"], done["bundles"], done["damaged"]) == (2, 2, 0)
    fleet.until("it is at the office", lambda: len(office.inbox()) == 1)

    alone = stick.parent / "card.meshnode"
    alone.with_name("card.meshnode.part").write_bytes(data[:400_000])
    done = carry(ana, "export", alone)
    assert (done["known"], done["bundles"]) == (2, 2)
    assert carry(office, "import", alone)["known"] == 4


def test_a_daemon_survives_any_stick(fleet: Devices, stick: Path) -> None:
    office, ana = fleet.enroll("office", "office"), fleet.enroll("ana")
    fleet.start(office, ana)
    ana.give({"photo.jpg": PHOTO})
    carry(ana, "export", stick)
    file = stick / "ana-1.meshnode"
    data = file.read_bytes()
    dice = random.Random(5)
    for _ in range(12):
        spoilt = bytearray(data)
        for _ in range(dice.randrange(1, 40)):
            at = dice.randrange(HEAD_SIZE, len(spoilt))
            spoilt[at : at + dice.randrange(3)] = dice.randbytes(dice.randrange(3))
        file.write_bytes(spoilt)
        carry(office, "import", stick)
    file.write_bytes(data[:HEAD_SIZE] + dice.randbytes(2 * MIB) + data[HEAD_SIZE:])
    assert carry(office, "import", stick)["damaged"] > 0
    fleet.until("it is at the office", lambda: len(office.inbox()) == 1)
    for path, body in (
        ("import", b"\0\0"),
        ("import", b"\xff\xff\xff\xff"),
        ("import", bytes(9 * MIB)),
        ("compare", b"\0\0\0\x02\x91\x09"),
        ("compare", b"\xff" * 99),
        ("export", b""),
        ("export?fleet=1&room=-1", b""),
    ):
        status, answer = office.request("POST", f"/v1/{path}", body)
        assert status == 422, answer
        assert answer["exit_code"] == 1
    assert office.request("POST", "/v1/import", dice.randbytes(4)[:0] + b"\0\0\0\x01\xc1")[1]["damaged"] == 1
    assert office.get("status")["contacts"] == []


class Pulled(io.BufferedReader):
    """A file on a stick that is pulled out when so much was read."""

    left = 300_000

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        Pulled.left -= len(data)
        if Pulled.left < 0:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return data


def test_a_stick_pulled_out_while_it_is_read_costs_nothing_that_was_counted(
    fleet: Devices, stick: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    office, ana = fleet.enroll("office", "office"), fleet.enroll("ana")
    fleet.start(office, ana)
    ana.give({"photo.jpg": PHOTO})
    carry(ana, "export", stick)
    with monkeypatch.context() as patched:
        patched.setattr(os, "fdopen", lambda descriptor, *_, **__: Pulled(io.FileIO(descriptor)))
        done = office.call("import", stick, "--json")
    told = json.loads(done.stdout)
    assert done.returncode == 1
    assert "cannot be read any more (Input/output error), perhaps it was pulled out" in done.stderr
    assert (told["bundles"], told["damaged"]) == (2, 0)
    rest = carry(office, "import", stick)
    assert (rest["known"], rest["bundles"]) == (2, 2)


def test_a_reader_that_goes_away_is_no_trouble(fleet: Devices) -> None:
    ana, office = fleet.enroll("ana"), fleet.enroll("office", "office")
    fleet.start(ana, office)
    ana.call("fleet", "update", fleet.publish())
    ana.give({"large": PHOTO * 10})
    host, port, token = ana.door()
    body = Stock().told()
    head = (
        f"POST /v1/export?fleet=0&room={1 << 40} HTTP/1.1\r\nHost: {host}\r\n"
        f"Authorization: Bearer {token}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    for _ in range(3):
        with connect(host, port) as reader:
            reader.sendall(head.encode() + body)
            assert reader.recv(1000).startswith(b"HTTP/1.1 200")
    assert ana.get("status")["messages"]["submitted"] == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small tmpfs, which takes root")
def test_a_full_stick_keeps_what_fits_and_says_so(fleet: Devices, stick: Path) -> None:
    office, ana = fleet.enroll("office", "office"), fleet.enroll("ana")
    fleet.start(office, ana)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", stick], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.decode()}")
    try:
        ana.give({"large": PHOTO * 2})
        ana.give({"small": b"first"}, priority="urgent")
        done = ana.call("export", stick, "--json")
        told = json.loads(done.stdout)
        assert done.returncode == 1
        assert (told["bundles"], told["left"]) == (5, 2)
        assert "has no room for 2 more bundles" in done.stderr
        assert carry(office, "import", stick)["damaged"] == 0
        fleet.until("the urgent one is at the office", lambda: len(office.inbox()) == 1)
        assert names(stick) == ["ana-1.meshnode"]
        subprocess.run(["mount", "-o", "remount,ro", stick], check=True)
        assert carry(office, "import", stick)["bundles"] == 0
        done = office.call("import", stick, "--wipe-delivered")
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)
        assert "ana-1.meshnode cannot be written: the disk is read-only" in done.stderr
        subprocess.run(["mount", "-o", "remount,rw", stick], check=True)
        (stick / "ana-1.meshnode").unlink()
        subprocess.run(["mount", "-o", "remount,ro", stick], check=True)
        assert "cannot be written: the disk is read-only" in ana.call("export", stick).stderr
        subprocess.run(["mount", "-o", "remount,rw", stick], check=True)

        source = Source(Founded(), "budi")
        there = open_stick(stick, Founded().document.fleet)
        writer = StickWriter(there, "budi")
        bundles = [BundleFrame(0, source.bundle(number, size=250_000)) for number in range(1, 9)]
        with pytest.raises(StickOutOfRoom, match="is full: what is on it is whole"):
            write(writer, *map(encode, bundles))
        writer.abandon()
        assert names(stick) == ["budi-1.meshnode"]
        with pytest.raises(FileTrouble, match="no room for a copy"):
            wipe(open_stick(stick, FOUNDED.document.fleet), {source.journal: Ranges.single(1)})
        data = (stick / "budi-1.meshnode").read_bytes()
        assert [piece.stub.number for piece in whole_of(data) if piece.stub] == [1, 2, 3, 4]
    finally:
        subprocess.run(["umount", stick], check=True)


# --- the bytes --------------------------------------------------------------------------------------------------


FOUNDED = Founded()
BUDI = Source(FOUNDED, "budi")
RECEIPT = FOUNDED.receipt(BUDI.journal, Ranges.single(9))
FRAMES = [
    encode(Fleet(FOUNDED.document.body, FOUNDED.document.signature)),
    encode(ReceiptFrame(RECEIPT.body, RECEIPT.signature)),
    encode(Cert(BUDI.certificate.der)),
    *(encode(BundleFrame(number, BUDI.bundle(number, size=1200 + number))) for number in range(1, 6)),
]
FILE = write_head(FOUNDED.document.fleet) + b"".join(FRAMES)


def write(writer: StickWriter, *frames: bytes) -> None:
    for frame in frames:
        writer.write(frame, is_certificate=frame[4:6] == b"\x92\x05")


def pieces_of(data: bytes) -> list[Piece | Gap]:
    return list(walk(io.BytesIO(data), len(data)))


def whole_of(data: bytes) -> list[Piece]:
    return [piece for piece in pieces_of(data) if isinstance(piece, Piece)]


def frames_of(data: bytes) -> list[bytes]:
    return [data[piece.offset : piece.offset + piece.size] for piece in whole_of(data)]


def borders() -> list[int]:
    ends = [HEAD_SIZE]
    for frame in FRAMES:
        ends.append(ends[-1] + len(frame))
    return ends


@pytest.mark.parametrize("border", range(len(FRAMES) + 1))
def test_a_file_that_is_cut_off_is_worth_its_whole_frames(border: int, tmp_path: Path) -> None:
    for off in range(-8, 9):
        end = borders()[border] + off
        if not HEAD_SIZE <= end <= len(FILE):
            continue
        whole = sum(HEAD_SIZE < at <= end for at in borders())
        assert frames_of(FILE[:end]) == FRAMES[:whole]
        assert all(isinstance(piece, Piece) for piece in pieces_of(FILE[:end])), "cut off is not damaged"
        (tmp_path / "budi-1.meshnode.part").write_bytes(FILE[:end])
        mend_all(open_stick(tmp_path, FOUNDED.document.fleet))
        mended = tmp_path / "budi-1.meshnode"
        assert mended.read_bytes() == FILE[: borders()[whole]]
        mended.unlink()


@settings(max_examples=300, deadline=None)
@given(at=st.integers(HEAD_SIZE, len(FILE) - 1), noise=st.binary(min_size=1, max_size=2000))
def test_damage_costs_only_the_frames_that_it_hits(at: int, noise: bytes) -> None:
    spoilt = FILE[:at] + noise + FILE[at + len(noise) :]
    last = min(len(FILE), at + len(noise))
    found = frames_of(spoilt)
    untouched = [
        frame
        for frame, first in zip(FRAMES, borders(), strict=False)
        if not (first < last and at < first + len(frame))
    ]
    missing = [frame for frame in untouched if frame not in found]
    assert len(missing) <= 1, "a false length may swallow the start of the next frame, and no more"


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=3000))
def test_any_bytes_can_be_walked_through(data: bytes) -> None:
    pieces = whole_of(FILE[:HEAD_SIZE] + data)
    for before, after in pairwise(pieces):
        assert before.offset + before.size <= after.offset
    assert all(piece.offset + piece.size <= HEAD_SIZE + len(data) for piece in pieces)


def test_wiping_takes_out_what_is_delivered_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "budi-1.meshnode"
    file.write_bytes(FILE[:-3])
    stick = open_stick(tmp_path, FOUNDED.document.fleet)
    assert wipe(stick, {BUDI.journal: Ranges.single(2) | Ranges.single(4), JournalId(b"?" * 16): RANGE}) == 2
    assert file.read_bytes() == FILE[:HEAD_SIZE] + b"".join(FRAMES[:4] + FRAMES[5:6] + FRAMES[7:])[:-3]
    assert wipe(stick, {BUDI.journal: Ranges.single(2)}) == 0
    assert names(tmp_path) == ["budi-1.meshnode"]


RANGE = Ranges.span(1, 9)


def test_a_file_that_was_cut_off_is_written_on_behind_its_last_whole_frame(tmp_path: Path) -> None:
    file = tmp_path / "card.meshnode"
    file.write_bytes(FILE[: borders()[5] - 700])
    writer = StickWriter(open_stick(file, FOUNDED.document.fleet), "budi")
    write(writer, *FRAMES[4:])
    writer.finish()
    assert file.read_bytes() == FILE
    assert names(tmp_path) == ["card.meshnode"]


def test_a_file_that_grows_too_large_is_followed_by_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("meshnode.app.stick_writing.FILE_BYTES", 4000)
    monkeypatch.setattr("meshnode.app.stick_writing.ALONE_BYTES", 4000)
    writer = StickWriter(open_stick(tmp_path, FOUNDED.document.fleet), "budi")
    write(writer, *FRAMES[2:])
    writer.finish()
    files = writer.files
    assert files == ["budi-1.meshnode", "budi-2.meshnode", "budi-3.meshnode"]
    for name in files:
        data = (tmp_path / name).read_bytes()
        assert len(data) <= 4000
        assert frames_of(data)[0] == FRAMES[2], "each file can vouch for what it holds"
    alone = StickWriter(open_stick(tmp_path / "only.meshnode", FOUNDED.document.fleet), "budi")
    with pytest.raises(FileTrouble, match="too large"):
        write(alone, *FRAMES[2:])
    alone.abandon()
    assert len(frames_of((tmp_path / "only.meshnode").read_bytes())) == 3

"""`meshnode export` and `import`, the part that is not the terminal: between the stick's files and the daemon.

Both look first at what the stick holds, which takes the first bytes of each frame; so what is there already is not
written again, and what is known here already is not even read.

Papers (fleet document, certificates, receipts) are small and go first, from all files: a receipt may save many bundles.
Bundles go in portions, each durable before the next is read, so a stick that is pulled out costs nothing that was
counted.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final

from meshnode.app.client import Client
from meshnode.app.files import locked_folder
from meshnode.app.home import Home, Membership
from meshnode.app.stick import Gap, Piece, Stick, StickFull, open_stick, stick_trouble
from meshnode.app.stick_writing import ALONE_BYTES, StickWriter, mend_all, wipe
from meshnode.core.contact import have_frames
from meshnode.core.errors import FileTrouble, MeshnodeError, RemoteError
from meshnode.core.fleet import read_document
from meshnode.core.frames import Fleet, ReceiptFrame, decode, encode
from meshnode.core.frames import Held as HeldFrame
from meshnode.core.identity import JournalId
from meshnode.core.intervals import NONE, Ranges, ranges_from_wire
from meshnode.core.limits import FRAME_SIZE_MAX, KIB, MIB
from meshnode.core.receipt import read_receipt
from meshnode.core.stick import LENGTH_SIZE
from meshnode.core.words import say

#: What one request of an import carries.
PORTION_BYTES: Final = 4 * MIB
#: What a file system needs for itself.
SLACK_BYTES: Final = 128 * KIB
_CERTIFICATE_START: Final = b"\x92\x05"

#: Told (bytes done, bytes altogether).
Progress = Callable[[int, int], None]


@dataclass(slots=True)
class Stock:
    """What a stick holds. `bundles` counts each once, however many files have it."""

    ranges: dict[JournalId, Ranges] = field(default_factory=dict)
    serials: dict[JournalId, int] = field(default_factory=dict)
    fleet_version: int = 0
    gaps: int = 0
    size_bytes: int = 0

    @property
    def bundles(self) -> int:
        """How many there are."""
        return sum(len(ranges) for ranges in self.ranges.values())

    def told(self) -> bytes:
        """It all, as HAVE frames."""
        journals = {**dict.fromkeys(self.ranges), **dict.fromkeys(self.serials)}
        rows = [HeldFrame(id_, self.ranges.get(id_, NONE), self.serials.get(id_, 0)) for id_ in journals]
        return b"".join(encode(frame) for frame in have_frames(rows, whole=True))


@dataclass(slots=True)
class Imported:
    """What became of an import, see `bringing.Tally`; `bundles` were taken. `wiped`: removed from the stick."""

    bundles: int = 0
    known: int = 0
    useless: int = 0
    no_room: int = 0
    damaged: int = 0
    receipts: int = 0
    fleet_version: int = 0
    files: list[str] = field(default_factory=list)
    skipped: list[dict[str, str]] = field(default_factory=list)
    wiped: int = 0

    def count(self, answer: dict[str, Any]) -> None:
        """Add what the daemon said of a portion."""
        self.bundles += answer["taken"]
        self.fleet_version = answer["fleet_version"]
        for name in ("known", "useless", "no_room", "damaged", "receipts"):
            setattr(self, name, getattr(self, name) + answer[name])


@dataclass(slots=True)
class Exported:
    """What became of an export. `known`: bundles that the stick had already; `left`: for which it has no room."""

    bundles: int = 0
    receipts: int = 0
    size_bytes: int = 0
    known: int = 0
    left: int = 0
    left_bytes: int = 0
    files: list[str] = field(default_factory=list)
    skipped: list[dict[str, str]] = field(default_factory=list)
    wiped: int = 0


@dataclass(slots=True)
class _Hand:
    """What both directions share."""

    client: Client
    membership: Membership
    stick: Stick
    progress: Progress

    def take_stock(self, on_paper: Callable[[bytes], None] | None = None) -> Stock:
        """Look through all files; `on_paper` is given each frame that is no bundle, once. Raises StickGone and kin."""
        stock = Stock()
        seen: set[int] = set()
        for path in self.stick.files:
            numbers: dict[JournalId, list[int]] = {}
            for file, piece in self.stick.pieces(path):
                if isinstance(piece, Gap):
                    stock.gaps += 1
                    continue
                stock.size_bytes += piece.size
                if piece.stub is not None:
                    numbers.setdefault(piece.stub.journal, []).append(piece.stub.number)
                elif piece.start[LENGTH_SIZE : LENGTH_SIZE + 2] != b"\x95\x07":
                    frame = _read(path, file, piece)
                    if hash(frame) not in seen:
                        seen.add(hash(frame))
                        self._note(stock, frame)
                        if on_paper is not None:
                            on_paper(frame)
            for journal, found in numbers.items():
                stock.ranges[journal] = stock.ranges.get(journal, NONE) | Ranges.of(found)
        return stock

    def _note(self, stock: Stock, data: bytes) -> None:
        with contextlib.suppress(RemoteError):
            frame = decode(data[LENGTH_SIZE:])
            if isinstance(frame, ReceiptFrame):
                receipt = read_receipt(frame.body, frame.signature)
                stock.serials[receipt.journal] = max(receipt.serial, stock.serials.get(receipt.journal, 0))
            elif isinstance(frame, Fleet):
                document = read_document(frame.body, frame.signature, self.membership.authority)
                stock.fleet_version = max(stock.fleet_version, document.version)

    def compare(self, stock: Stock) -> tuple[dict[JournalId, Ranges], dict[JournalId, Ranges]]:
        """What of the stick's bundles is known here, and what is delivered."""
        known: dict[JournalId, Ranges] = {}
        delivered: dict[JournalId, Ranges] = {}
        for name, here, there in self.client.request("POST", "/v1/compare", stock.told())["journals"]:
            journal = JournalId(bytes.fromhex(name))
            known[journal] = ranges_from_wire(here, "known")
            delivered[journal] = ranges_from_wire(there, "delivered")
        return known, delivered

    def skipped(self) -> list[dict[str, str]]:
        """The files that are left alone."""
        return [{"file": name, "why": str(why)} for name, why in self.stick.skipped]


def _read(path: Path, file: BinaryIO, piece: Piece) -> bytes:
    try:
        file.seek(piece.offset)
        data = file.read(piece.size)
    except OSError as error:
        raise stick_trouble(path, error, "read") from None
    # shorter than a moment ago: the frame is told as damaged
    return data.ljust(piece.size, b"\0")


@contextlib.contextmanager
def _hand(home: Home, path: Path, progress: Progress) -> Iterator[_Hand]:
    """A stick at hand and a daemon that answers. Raises MeshnodeError; nothing is touched then."""
    client = Client(home)
    client.request("POST", "/v1/compare", Stock().told())
    membership = home.load()
    stick = open_stick(path, membership.document.fleet)
    with locked_folder(stick.folder):
        yield _Hand(client, membership, stick, progress)


# --- import -----------------------------------------------------------------------------------------------------


class _Portions:
    """Gathers frames and hands them over together."""

    def __init__(self, client: Client, done: Imported) -> None:
        self._client = client
        self._done = done
        self._frames = bytearray()

    def add(self, frame: bytes) -> None:
        if len(self._frames) + len(frame) > PORTION_BYTES:
            self.hand_over()
        self._frames += frame

    def hand_over(self) -> None:
        """Returns when all of it is durable here."""
        self._done.count(self._client.request("POST", "/v1/import", bytes(self._frames)))
        self._frames.clear()


def import_from(
    home: Home, path: Path, *, wipes: bool, progress: Progress
) -> tuple[Imported, MeshnodeError | None]:
    """Take what is on a stick; what became of it, and what ended it early, if anything did. Raises MeshnodeError:
    nothing was taken."""
    done = Imported()
    with _hand(home, path, progress) as hand:
        stick = hand.stick
        done.skipped, done.files = hand.skipped(), [file.name for file in stick.files]
        if not stick.files:
            if stick.alone is not None:
                raise FileTrouble(path=path, problem="does not exist")
            if not stick.skipped:
                raise FileTrouble(path=path, problem="holds nothing of this fleet")
            name, why = stick.skipped[0]
            wrong = say("holds nothing of this fleet: {file} {problem}", file=name, problem=why)
            raise FileTrouble(path=path, problem=wrong)
        try:
            portions = _Portions(hand.client, done)
            try:
                stock = hand.take_stock(portions.add)
            finally:
                portions.hand_over()
            done.damaged += stock.gaps
            _bring_bundles(hand, stock, portions, done)
            if wipes:
                _, delivered = hand.compare(stock)
                done.wiped = wipe(stick, delivered)
        except MeshnodeError as problem:
            return done, problem
    return done, None


def _bring_bundles(hand: _Hand, stock: Stock, portions: _Portions, done: Imported) -> None:
    known, _ = hand.compare(stock)
    at = 0
    try:
        for path in hand.stick.files:
            for file, piece in hand.stick.pieces(path):
                if isinstance(piece, Gap):
                    continue
                at += piece.size
                hand.progress(at, stock.size_bytes)
                stub = piece.stub
                if stub is not None and stub.number in known.get(stub.journal, NONE):
                    done.known += 1
                elif piece.start[LENGTH_SIZE : LENGTH_SIZE + 2] == b"\x95\x07":
                    portions.add(_read(path, file, piece))
    finally:
        portions.hand_over()  # what was read before the stick was pulled out


# --- export -----------------------------------------------------------------------------------------------------


def export_to(
    home: Home, path: Path, *, wipes: bool, progress: Progress
) -> tuple[Exported, MeshnodeError | None]:
    """Write to a stick what it lacks; what became of it, and what ended it early, if anything did. Raises
    MeshnodeError: nothing was written."""
    done = Exported()
    with _hand(home, path, progress) as hand:
        mend_all(hand.stick)
        hand.stick = stick = open_stick(path, hand.stick.fleet)
        done.skipped = hand.skipped()
        stock = hand.take_stock()
        if wipes:
            _, delivered = hand.compare(stock)
            done.wiped = wipe(stick, delivered)
            stock = hand.take_stock() if done.wiped else stock
        done.known = stock.bundles
        writer = StickWriter(stick, hand.membership.certificate.name)
        try:
            _write(hand, stock, writer, done)
        except MeshnodeError as problem:
            writer.abandon()
            done.files = writer.files
            done.bundles = max(0, _count(hand, path) - stock.bundles)
            return done, problem
    done.files = writer.files
    if done.left:
        return done, StickFull(path=path, left=done.left, left_bytes=done.left_bytes)
    return done, None


def _count(hand: _Hand, path: Path) -> int:
    """Bundles that are whole on the stick; none if it is gone."""
    with contextlib.suppress(MeshnodeError):
        hand.stick = open_stick(path, hand.stick.fleet)
        return hand.take_stock().bundles
    return 0


def _write(hand: _Hand, stock: Stock, writer: StickWriter, done: Exported) -> None:
    room_bytes = _room_bytes(hand.stick)
    what = f"/v1/export?fleet={stock.fleet_version}&room={room_bytes}"
    with hand.client.stream("POST", what, stock.told()) as response:
        about = json.loads(_exactly(response, int.from_bytes(_exactly(response, 4), "big")))
        done.left, done.left_bytes = about["left"], about["left_bytes"]
        while start := response.read(LENGTH_SIZE):
            size = int.from_bytes(start, "big")
            if size > FRAME_SIZE_MAX:
                raise http.client.HTTPException("it sent no frame")
            body = _exactly(response, size)
            writer.write(start + body, is_certificate=body.startswith(_CERTIFICATE_START))
            done.size_bytes += LENGTH_SIZE + size
            done.bundles += body.startswith(b"\x95\x07")
            done.receipts += body.startswith(b"\x93\x04")
            hand.progress(done.size_bytes, max(about["size_bytes"], done.size_bytes))
        writer.finish()


def _room_bytes(stick: Stick) -> int:
    try:
        room_bytes = shutil.disk_usage(stick.folder).free - SLACK_BYTES
        if stick.alone is not None:
            size = stick.alone.stat().st_size if stick.alone.exists() else 0
            room_bytes = min(room_bytes, ALONE_BYTES - size)
    except OSError as error:
        raise stick_trouble(stick.folder, error, "written") from None
    return max(0, room_bytes)


def _exactly(response: http.client.HTTPResponse, size: int) -> bytes:
    data = response.read(size) if size else b""
    if len(data) < size:
        raise http.client.IncompleteRead(data, size - len(data))
    return data


def as_json(done: Imported | Exported) -> dict[str, Any]:
    """For programs."""
    return asdict(done)

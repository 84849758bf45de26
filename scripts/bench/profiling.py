"""Where one bundle's microseconds go at who receives it, and then at an office. One JSON line a part:

    {"figure": "profile", "size": payload bytes, "part": name, "value": v, "unit": "us", "cpu_us": c}

The parts that a daemon joins by an event loop and threads are called here one after another, in one process without
sockets, with a real node, a real store on the disk and real keys; so this leaves out what the loop, the kernel and two
processes on few cores add. `value` is of the clock, which for what waits for the disk is more than its CPU.

    tls        decrypting, a record at a time        verify     the source's signature
    frames     cutting and decoding frames           digest     SHA-256 of the payload
    header     decoding the bundle's header          brain      all else that the node does with the bytes
    commit     rows that become durable, as many at a time as the daemon's writer takes
    stored     counting what is durable, and saying STORED
    open       at an office: unsealing one bundle    sink       its file, handed to the directory sink
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import random
import ssl
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final, TypeVar

from bench.figures import Figure, to_line
from bench.limits import KIB, Credentials

from meshnode.core.bundle import ROUTINE, Bundle, Header, journal_id, read_header, sign_bundle
from meshnode.core.frames import BundleFrame, Cert, Frame, Have, Held, Hello, encode
from meshnode.core.framing import FrameReader
from meshnode.core.identity import to_pem
from meshnode.core.intervals import Ranges
from meshnode.core.limits import GIB, LIFETIME_S
from meshnode.core.message import File, Manifest
from meshnode.core.node import Node
from meshnode.core.ports import Close, Effect, Event, Instant, Opened, Received, Space, Write, Written
from meshnode.core.sealing import SEAL_OVERHEAD, SealingKey
from meshnode.core.state import Identity, Settings
from meshnode.drivers.link import RECEIVE_SIZE
from meshnode.drivers.sqlite import SqliteStore
from meshnode.drivers.tls import TRANSPORT_SIZE
from meshnode.drivers.writer import BATCH_BYTES
from meshnode.office.sinks import Envelope
from meshnode.office.sinks.directory import DirectorySink
from meshnode.sim.standins import SimFleet

#: Payload bytes of a bundle, and how many bundles.
SIZES: Final = {8 * KIB: 2048, 256 * KIB: 128}
SETTINGS: Final = Settings(epoch=b"profiled", port=7766, foreign_quota_bytes=8 * GIB)
#: Files that the sink is given: each is flushed to the disk.
FILES: Final = 64

T = TypeVar("T")


@dataclass(frozen=True)
class Took:
    """Seconds of the clock and of this thread's CPU."""

    s: float = 0.0
    cpu_s: float = 0.0

    def __add__(self, other: Took) -> Took:
        return Took(self.s + other.s, self.cpu_s + other.cpu_s)

    def __sub__(self, other: Took) -> Took:
        return Took(self.s - other.s, self.cpu_s - other.cpu_s)


def timed(work: Callable[[T], object], items: Iterable[T]) -> Took:
    """Do it with each of these."""
    cpu_s, began_s = time.thread_time(), time.perf_counter()
    for item in items:
        work(item)
    return Took(time.perf_counter() - began_s, time.thread_time() - cpu_s)


def pieces(data: bytes, size: int) -> list[bytes]:
    """As a socket gives them, or a link."""
    return [data[at : at + size] for at in range(0, len(data), size)]


class Profile:
    """Bundles of one size from one officer, and a node that receives them."""

    def __init__(self, folder: Path, size: int, count: int) -> None:
        self.folder = folder
        self.size = size
        fleet = SimFleet(random.Random(size))
        self.fleet = fleet
        self.me = fleet.enroll("budi", "officer")
        self.peer = fleet.enroll("siti", "officer")
        self.sealing = SealingKey(os.urandom(32))
        self.epoch = os.urandom(8)
        self.journal = journal_id(self.peer.device, fleet.endpoint, self.epoch)
        self.bundles = [self._bundle(number) for number in range(1, count + 1)]
        at_once = max(1, min(64, BATCH_BYTES // size))
        self.batches = [self.bundles[at : at + at_once] for at in range(0, count, at_once)]

    def _bundle(self, number: int) -> Bundle:
        header = Header(
            source=self.peer.device,
            destination=self.fleet.endpoint,
            recipient_key=self.sealing.public.key_id,
            epoch=self.epoch,
            number=number,
            part=1,
            parts=1,
            priority=ROUTINE,
            created_ms=0,
            lifetime_s=LIFETIME_S,
            previous=None,
            payload_size=self.size,
            payload_sha256=bytes(32),
        )
        payload = self.sealing.public.seal(os.urandom(self.size - SEAL_OVERHEAD), header.info)
        digest = hashlib.sha256(payload).digest()
        values = {name: getattr(header, name) for name in header.__slots__} | {"payload_sha256": digest}
        return sign_bundle(Header(**values), payload, self.peer.key)

    # --- parts --------------------------------------------------------------------------------------------------

    def tls(self) -> Took:
        """Of what arrives as records, decrypted."""
        mine, theirs = _tls_pair(self.folder, self.fleet, self.me, self.peer)
        total = Took()
        for batch in self.batches:
            theirs.object.write(b"".join(encode(BundleFrame(0, bundle)) for bundle in batch))
            total += timed(mine.take, pieces(theirs.outgoing.read(), TRANSPORT_SIZE))
        return total

    def receiving(self) -> dict[str, Took]:
        """All that the node does with bytes, whole and by parts, and the store."""
        took: dict[str, Took] = dict.fromkeys(
            ("whole", "feed", "header", "verify", "digest", "commit", "stored"), Took()
        )
        receiver = Receiver(self.folder / f"store-{self.size}.db", self.me)
        receiver.meet(self)
        reader = FrameReader()
        key = self.peer.certificate.key

        def verify(bundle: Bundle) -> None:
            key.verify(bundle.signature, bundle.header_bytes, "header")

        for batch in self.batches:
            data = pieces(b"".join(encode(BundleFrame(0, bundle)) for bundle in batch), RECEIVE_SIZE)
            took["feed"] += timed(lambda piece: list(reader.feed(piece)), data)
            took["header"] += timed(lambda bundle: read_header(bundle.header_bytes), batch)
            took["verify"] += timed(verify, batch)
            took["digest"] += timed(lambda bundle: hashlib.sha256(bundle.payload).digest(), batch)
            took["whole"] += timed(receiver.hears, data)
            took["commit"] += timed(Receiver.commit, [receiver])
            took["stored"] += timed(Receiver.written, [receiver])
        receiver.store.close()
        return took

    def office(self) -> dict[str, Took]:
        """Unsealing, and handing on one file a message."""
        opened = timed(lambda bundle: self.sealing.open(bundle.payload, bundle.header.info), self.bundles)
        sink = DirectorySink(self.folder / f"sink-{self.size}")
        data = os.urandom(self.size - SEAL_OVERHEAD)
        manifest = Manifest("bench", (), "", 0, (File("record.bin", len(data), ""),))

        def hand_on(number: int) -> None:
            envelope = Envelope(f"{self.journal.hex()}:{number}", "siti", self.peer.device, 0, None)
            delivery = sink.begin(envelope, manifest)
            assert delivery is not None
            delivery.write(0, data)
            delivery.commit()

        return {"open": opened, "sink": timed(hand_on, range(FILES))}

    def lines(self) -> Iterator[Figure]:
        """All parts."""
        count = len(self.bundles)
        whole = self.receiving()
        parts = {
            "tls": self.tls(),
            "frames": whole["feed"] - whole["header"],
            "header": whole["header"],
            "verify": whole["verify"],
            "digest": whole["digest"],
            "brain": whole["whole"] - whole["feed"] - whole["verify"] - whole["digest"],
            "commit": whole["commit"],
            "stored": whole["stored"],
        }
        for name, took in parts.items():
            yield self._line(name, took, count)
        for name, took in self.office().items():
            yield self._line(name, took, FILES if name == "sink" else count)

    def _line(self, part: str, took: Took, count: int) -> Figure:
        us = {"value": 1e6 * took.s / count, "unit": "us", "cpu_us": 1e6 * took.cpu_s / count}
        return {"figure": "profile", "size": self.size, "part": part, **us}


class Receiver:
    """A node on a store, whose effects wait until they are asked for."""

    def __init__(self, path: Path, identity: Identity) -> None:
        self.store = SqliteStore(path)
        self.node = Node(identity, SETTINGS, self.store.load(), self._now())
        self._writes: list[Write] = []
        self._take(self.node.start(self._now()))
        self.handle(Space(100 * GIB, GIB))

    @staticmethod
    def _now() -> Instant:
        return Instant(time.monotonic(), 1_700_000_000_000)

    def meet(self, profile: Profile) -> None:
        """Somebody comes who has all the bundles."""
        peer = profile.peer.certificate
        self.handle(Opened(1, peer, True, "peer:7766"))
        whole = Ranges.span(1, len(profile.bundles))
        hello = Hello("siti", ("officer",), 7766, profile.fleet.document.version, 0, False, GIB)
        said: list[Frame] = [hello, Cert(peer.der), Have(True, (Held(profile.journal, whole, 0),))]
        self.hears(b"".join(map(encode, said)))
        self.commit()
        self.written()

    def hears(self, data: bytes) -> None:
        """The peer's bytes."""
        self.handle(Received(1, data))

    def handle(self, event: Event) -> None:
        """Tell the node."""
        self._take(self.node.handle(event, self._now()))

    def _take(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Close):
                raise SystemExit(f"scripts/bench/profile: the node ended the contact: {effect.reason}")
            if isinstance(effect, Write):
                self._writes.append(effect)

    def commit(self) -> None:
        """Make durable what is to be written."""
        if self._writes:
            self.store.commit([row for write in self._writes for row in write.rows], self._now().s)

    def written(self) -> None:
        """Say so."""
        writes, self._writes = self._writes, []
        if writes:
            self.handle(Written(tuple(write.token for write in writes)))


# --- TLS without sockets --------------------------------------------------------------------------------------------


class _TlsEnd:
    """One end, whose bytes are carried by hand."""

    def __init__(self, context: ssl.SSLContext, *, server: bool) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.object = context.wrap_bio(self.incoming, self.outgoing, server_side=server)
        self._buffer = bytearray(RECEIVE_SIZE)

    def take(self, sealed: bytes) -> None:
        """Decrypt what has come, into a buffer and out of it again, as the driver does; and forget it."""
        self.incoming.write(sealed)
        size = 0
        with memoryview(self._buffer) as view, contextlib.suppress(ssl.SSLWantReadError):
            while True:
                taken: int = self.object.read(RECEIVE_SIZE - size, view[size:])  # type: ignore[assignment]
                size += taken
                if size == RECEIVE_SIZE:
                    bytes(view)
                    size = 0
        bytes(self._buffer[:size])


def _tls_pair(folder: Path, fleet: SimFleet, me: Identity, peer: Identity) -> tuple[_TlsEnd, _TlsEnd]:
    """Two ends that have shaken hands; the first is the server."""
    ends = []
    authority = folder / "authority.crt"
    authority.write_text(to_pem(fleet.authority_der))
    for identity, purpose in ((me, ssl.PROTOCOL_TLS_SERVER), (peer, ssl.PROTOCOL_TLS_CLIENT)):
        name = identity.certificate.name
        certificate, key = folder / f"{name}.crt", folder / f"{name}.key"
        certificate.write_text(to_pem(identity.certificate.der))
        key.write_bytes(identity.key.to_pem())
        context = Credentials(certificate, key, authority).context(purpose)
        ends.append(_TlsEnd(context, server=purpose == ssl.PROTOCOL_TLS_SERVER))
    server, client = ends
    for _ in range(4):
        for end, other in ((client, server), (server, client)):
            with contextlib.suppress(ssl.SSLWantReadError):
                end.object.do_handshake()
            other.incoming.write(end.outgoing.read())
    return server, client


def profile(folder: Path, rounds: int) -> Iterator[Figure]:
    """The lines of each size, medians of the rounds."""
    for size, count in SIZES.items():
        told = []
        for _ in range(rounds):
            with tempfile.TemporaryDirectory(dir=folder) as inside:
                told.append(list(Profile(Path(inside), size, count).lines()))
        for lines in zip(*told, strict=True):
            middle = {key: median(line[key] for line in lines) for key in ("value", "cpu_us")}
            yield lines[0] | middle


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="scripts/bench/profile", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3, help="a figure is the median of so many (3)")
    parser.add_argument("--dir", type=Path, help="where the store is made: the disk that is measured")
    said = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="meshnode-bench-", dir=said.dir) as folder:
        for line in profile(Path(folder), said.rounds):
            print(to_line(line), flush=True)


if __name__ == "__main__":
    main()

"""What can be fuzzed: every function that reads bytes of strangers, as `target(data)`, which may raise RemoteError.

`scripts/fuzz` drives them with made-up bytes, the tests with those of `tests/corpus`. Nothing here may take long or
much memory, whatever the bytes are: `check` says so.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from meshnode.core.bundle import read_header
from meshnode.core.errors import RemoteError
from meshnode.core.fields import pack
from meshnode.core.fleet import Request, read_document, read_request, read_welcome, write_welcome
from meshnode.core.frames import (
    BundleFrame,
    Bye,
    Cert,
    Elsewhere,
    Finished,
    Frame,
    Have,
    Heard,
    Held,
    Hello,
    Next,
    Ping,
    ReceiptFrame,
    Stored,
    Want,
    Wanted,
    decode,
    encode,
)
from meshnode.core.frames import Fleet as FleetFrame
from meshnode.core.framing import FrameReader
from meshnode.core.identity import ID_SIZE, SIGNATURE_SIZE, FleetId, _load, read_certificate
from meshnode.core.intervals import NONE, Ranges
from meshnode.core.message import File, Manifest, encode_manifest, read_manifest
from meshnode.core.receipt import read_receipt
from meshnode.core.stick import PEEK_SIZE, frame_size, peek, read_head, write_head
from meshnode.drivers import probe
from meshnode.drivers.dnssd.announcement import TYPE, Announcement, announcement_in, text_of
from tests.core.fleets import Fleet, Source
from tests.core.hosts import Host

CORPUS: Final = Path(__file__).parent / "corpus"
#: No input, of at most 512 KiB, takes longer; most take a thousandth.
INPUT_S: Final = 2.0

FLEET: Final = Fleet()
DEWI: Final = Source(FLEET, "dewi")
SOME: Final = Ranges([(1, 57), (60, 60)])


def _frames(data: bytes) -> None:
    frame = decode(data)
    assert decode(encode(frame)[4:]) == frame


def _stream(data: bytes) -> None:
    list(FrameReader().feed(data))


def _signed(data: bytes) -> tuple[bytes, bytes]:
    return data[SIGNATURE_SIZE:], data[:SIGNATURE_SIZE].ljust(SIGNATURE_SIZE, b"\0")


def _receipt(data: bytes) -> None:
    read_receipt(*_signed(data))


def _document(data: bytes) -> None:
    """As if the authority had signed it: a stolen key, or a mistake, must do no harm either."""
    read_document(data, FLEET.authority.sign(data), FLEET.authority.public)


def _certificate(data: bytes) -> None:
    """Before the signature, and what comes after it."""
    try:
        read_certificate(data, FLEET.authority.public)
    except RemoteError:
        _load(data, "certificate")


def _request(data: bytes) -> None:
    try:
        read_request(data)
    except RemoteError:
        read_request(pack([data, FLEET.key("dewi").sign(data)]))


def _welcome(data: bytes) -> None:
    try:
        read_welcome(data)
    except RemoteError:
        read_welcome(pack([data, FLEET.authority.sign(data)]))


def _probe(data: bytes) -> None:
    probe.decode(data)


def _announcement(data: bytes) -> None:
    said = announcement_in(data, 7766)
    assert said is None or len(said.device) == ID_SIZE


def _stick(data: bytes) -> None:
    peek(data[:PEEK_SIZE])
    frame_size(data)
    read_head(data)


def _node(data: bytes) -> None:
    """A whole node, a member that says these bytes, and another one who is served after that as before."""
    host = Host(FLEET)
    agus, wati = host.meet("agus"), host.meet("wati")
    agus.says(Cert(DEWI.certificate.der))
    agus.writes(data)
    host.settle()
    host.pass_time(2.0)
    wati.heard.clear()
    wati.says(Ping())
    assert wati.heard, "the node goes on"
    assert all(line.isprintable() for line in host.logs)


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    "frame": _frames,
    "stream": _stream,
    "receipt": _receipt,
    "document": _document,
    "certificate": _certificate,
    "request": _request,
    "welcome": _welcome,
    "header": lambda data: _ignore(read_header(data)),
    "manifest": lambda data: _ignore(read_manifest(data)),
    "probe": _probe,
    "announcement": _announcement,
    "stick": _stick,
    "node": _node,
}


def _ignore(_: object) -> None:
    """A lambda's result."""


def check(target: Callable[[bytes], None], data: bytes) -> None:
    """Raises whatever the target raises but RemoteError, and AssertionError if it takes too long."""
    began_s = time.process_time()
    try:
        target(data)
    except RemoteError as problem:
        said = str(problem)
    else:
        said = ""
    assert said.isprintable(), "it can be logged"
    assert time.process_time() - began_s < INPUT_S


# --- what the corpus begins with --------------------------------------------------------------------------------

RECEIPT = FLEET.receipt(DEWI.journal, SOME)
HELLO = Hello("agus", ("officer",), 7766, 1, 1_700_000_000_000, True, 2**40)


def sample_frames() -> list[Frame]:
    """One of each kind."""
    return [
        HELLO,
        FleetFrame(FLEET.document.body, FLEET.document.signature),
        Have(True, (Held(DEWI.journal, SOME, 7 << 16), Held(DEWI.journal, NONE, 0, True))),
        ReceiptFrame(RECEIPT.body, RECEIPT.signature),
        Cert(DEWI.certificate.der),
        Want(8 << 20, (Wanted(DEWI.journal, SOME, NONE, True),)),
        BundleFrame(12, DEWI.bundle(1)),
        Stored(((DEWI.journal, SOME, False),)),
        Bye("revoked"),
        Finished((b"12345678",)),
        Heard((Elsewhere(DEWI.device, 3600, ((DEWI.journal, SOME),)),)),
        Next((2, -1.5)),
        Next(None),
    ]


def samples() -> dict[str, list[bytes]]:
    """Valid inputs of each target, in which its readers get far."""
    frames = [encode(frame) for frame in sample_frames()]
    dewi = FLEET.key("dewi")
    request = Request("dewi", "officer", dewi.public, None).to_file(dewi)
    welcome = write_welcome(FLEET.authority, FLEET.authority_der, DEWI.certificate.der, FLEET.document)
    manifest = Manifest("ktp-el", (("desa", "Cipatujah"),), "Siti", 0, (File("a.jpg", 3, "image/jpeg"),))
    said = Announcement(bytes(16), bytes(range(16)), ("officer",), False, 7766)
    from zeroconf.asyncio import AsyncServiceInfo

    text = AsyncServiceInfo(TYPE, TYPE, properties=text_of(said, "0")).text
    return {
        "frame": [frame[4:] for frame in frames],
        "stream": [b"".join(frames[:1] + frames[2:4]), b"".join(frames[4:])],
        "receipt": [RECEIPT.signature + RECEIPT.body],
        "document": [FLEET.document.body],
        "certificate": [DEWI.certificate.der, FLEET.authority_der],
        "request": [request],
        "welcome": [welcome],
        "header": [DEWI.bundle(1).header_bytes],
        "manifest": [encode_manifest(manifest)],
        "probe": [probe.encode(probe.Probe(bytes(16), bytes(16), 7766))],
        "announcement": [text],
        "stick": [write_head(FleetId(bytes(16))), frames[6][:600], frames[3]],
        "node": [*frames, b"".join(frames)],
    }

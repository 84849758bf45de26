"""meshnode and the second reader side by side: what the one takes the other takes, and what the one refuses the other
refuses. From the corpus of the fuzzer, the test vectors, and small changes of these."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshnode.core.bundle import read_header
from meshnode.core.errors import RemoteError
from meshnode.core.fields import unpack
from meshnode.core.frames import decode
from meshnode.core.identity import read_authority, read_certificate
from meshnode.core.intervals import ranges_from_wire
from meshnode.core.message import Opener
from meshnode.core.receipt import read_receipt
from meshnode.drivers import probe

ROOT = Path(__file__).parents[2]
VECTORS = ROOT / "tests" / "vectors"
CORPUS = ROOT / "tests" / "corpus"


@contextmanager
def scripts_in_path() -> Iterator[None]:
    """`scripts` is no package: its modules find each other by the path."""
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        yield
    finally:
        sys.path.remove(str(ROOT / "scripts"))


with scripts_in_path():
    FORMS = importlib.import_module("decode_forms")
    READER = importlib.import_module("decode_reader")


def rows(name: str) -> Any:
    return json.loads((VECTORS / f"{name}.json").read_text())


AUTHORITY_DER = bytes.fromhex(rows("certificates")[0]["der"])
_, AUTHORITY = read_authority(AUTHORITY_DER)
Read = Callable[[bytes], object]


def theirs(what: str) -> Read:
    """The second reader's."""

    def device_certificate(data: bytes) -> None:
        reader = READER.Reader()
        reader.certificate(AUTHORITY_DER)
        FORMS.need("role" in reader.certificate(data), "no device")

    readers: dict[str, Read] = {
        "header": READER.Reader().header,
        "frame": lambda data: READER.Reader().frame(data),
        "ranges": lambda data: FORMS.need(FORMS.ranges(FORMS.unpack(data, "ranges")), "ranges"),
        "datagram": READER.datagram,
        "receipt": lambda data: READER.Reader().receipt(data, bytes(64)),
        "certificate": device_certificate,
        "message": READER.message,
    }
    return readers[what]


def _message(data: bytes) -> None:
    opener = Opener()
    list(opener.feed(data))
    opener.close()


def _datagram(data: bytes) -> None:
    if probe.decode(data) is None:
        raise RemoteError("datagram", "is ignored")


OURS: dict[str, Read] = {
    "header": read_header,
    "frame": decode,
    "ranges": lambda data: ranges_from_wire(unpack(data, "ranges"), "ranges"),
    "datagram": _datagram,
    "receipt": lambda data: read_receipt(data, bytes(64)),
    "certificate": lambda data: read_certificate(data, AUTHORITY),
    "message": _message,
}
#: What these hold is read by meshnode after the frame, and by the second reader with it.
DEEP = {2, 4, 5, 7}


def takes(read: Read, data: bytes) -> bool:
    try:
        read(data)
    except (RemoteError, FORMS.Refused):
        return False
    return True


def compare(what: str, data: bytes) -> None:
    one, other = takes(OURS[what], data), takes(theirs(what), data)
    if what == "frame" and one and unpack(data, "frame")[0] in DEEP:
        return
    assert one == other, f"meshnode {'takes' if one else 'refuses'} {what} {data.hex()}"


def samples() -> dict[str, list[bytes]]:
    bundles = rows("bundles")
    return {
        "header": [bytes.fromhex(row["header"]) for row in bundles],
        "frame": [bytes.fromhex(row["frame"])[4:] for row in rows("frames")],
        "ranges": [bytes.fromhex(row["packed"]) for row in rows("ranges")],
        "datagram": [bytes.fromhex(row["datagram"]) for row in rows("datagrams")["datagrams"]],
        "receipt": [bytes.fromhex(row["body"]) for row in rows("receipts")],
        "certificate": [bytes.fromhex(row["der"]) for row in rows("certificates")],
        "message": [bytes.fromhex(row["plaintext"]) for row in bundles if "plaintext" in row],
    }


SAMPLES = samples()


@pytest.mark.parametrize("what", OURS)
def test_they_agree_on_the_samples(what: str) -> None:
    taken = [takes(theirs(what), data) for data in SAMPLES[what]]
    assert taken == [takes(OURS[what], data) for data in SAMPLES[what]]
    assert sum(taken) >= len(taken) - 1, "all but the authority's certificate, which is no device's"


@pytest.mark.parametrize("what", ["header", "frame", "receipt", "certificate"])
def test_they_agree_on_what_the_fuzzer_has_found(what: str) -> None:
    found = sorted(path for path in (CORPUS / what).iterdir() if path.is_file())
    assert found
    for path in found:
        data = path.read_bytes()
        compare(what, data[64:] if what == "receipt" else data)


@pytest.mark.parametrize("what", OURS)
@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_they_agree_on_any_small_change(what: str, data: st.DataObject) -> None:
    sample = bytearray(data.draw(st.sampled_from(SAMPLES[what])))
    for _ in range(data.draw(st.integers(1, 2))):
        at = data.draw(st.integers(0, min(len(sample), 200) - 1))
        match data.draw(st.sampled_from(["flip", "set", "cut", "put"])):
            case "flip":
                sample[at] ^= 1 << data.draw(st.integers(0, 7))
            case "set":
                sample[at] = data.draw(
                    st.sampled_from([0, 1, 0x7F, 0x80, 0x90, 0xA0, 0xC0, 0xC2, 0xC4, 0xCB, 0xFF])
                )
            case "cut" if at:
                del sample[at:]
            case _:
                sample[at:at] = data.draw(st.binary(min_size=1, max_size=3))
    compare(what, bytes(sample))


@pytest.mark.parametrize("row", rows("refused"), ids=lambda row: f"{row['kind']}: {row['why']}")
def test_they_agree_on_what_is_to_be_refused(row: dict[str, str]) -> None:
    what = row["kind"].removeprefix("device ")
    if what != "stick":
        compare(what, bytes.fromhex(row["bytes"]))

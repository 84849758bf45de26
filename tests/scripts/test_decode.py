"""The second reader of the protocol, as the program that it is: over the test vectors, over what real daemons write,
and in a contact with one, in which this test is the other node, with nothing but the page, msgpack and TLS."""

from __future__ import annotations

import ast
import hashlib
import json
import random
import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgpack
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, MLKEM768X25519PublicKey, Suite
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from tests.app.fleets import Fleet, Node

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "scripts"
VECTORS = ROOT / "tests" / "vectors"
PHOTO = random.Random(11).randbytes(300_000)


def decode(*words: object, within_s: float = 60.0) -> subprocess.CompletedProcess[str]:
    """`scripts/decode`, with this Python."""
    return subprocess.run(
        [sys.executable, str(SCRIPTS / "decode.py"), *map(str, words)],
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
        timeout=within_s,
    )


def said_by(*words: object) -> list[dict[str, Any]]:
    """What it says, all well."""
    done = decode(*words)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def refused_by(*words: object) -> str:
    """What it says against it, in one sentence."""
    done = decode(*words)
    assert done.returncode == 1, done.stdout
    assert done.stderr.startswith("scripts/decode: refused: "), done.stderr
    assert done.stderr.count("\n") == 1
    return done.stderr


def test_it_shares_no_code_with_meshnode() -> None:
    allowed = {"msgpack", "cryptography", *sys.stdlib_module_names}
    files = sorted(SCRIPTS.glob("decode*.py"))
    assert [path.stem for path in files] == ["decode", "decode_forms", "decode_reader", "decode_vectors"]
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                top = name.partition(".")[0]
                assert top in allowed or top.startswith("decode_"), f"{path.name} imports {name}"


# --- the vectors ------------------------------------------------------------------------------------------------


def test_all_vectors_are_right_and_each_flipped_byte_of_what_is_signed_is_refused() -> None:
    done = decode("--vectors", VECTORS, "--flips")
    assert done.returncode == 0, done.stderr
    right, flipped = done.stdout.splitlines()
    assert int(right.split()[0]) >= 90
    assert int(flipped.split()[0]) >= 10_000


ALTERED = {
    "keys": lambda rows: flip(rows["signing"][2], "id"),
    "certificates": lambda rows: flip(rows[1], "der"),
    "documents": lambda rows: flip(rows["documents"][1], "file"),
    "bundles": lambda rows: flip(rows[0], "payload"),
    "receipts": lambda rows: flip(rows[2], "signature"),
    "frames": lambda rows: flip(rows[0], "frame"),
    "digests": lambda rows: flip(rows[1], "total"),
    "ranges": lambda rows: flip(rows[2], "packed"),
    "datagrams": lambda rows: flip(rows["datagrams"][0], "datagram"),
    "stick": lambda rows: flip(rows["message"]["files_sha256"], 0),
}


def flip(row: Any, name: Any) -> None:
    """Change the last hexadecimal digit."""
    row[name] = row[name][:-1] + f"{int(row[name][-1], 16) ^ 1:x}"


@pytest.mark.parametrize("name", ALTERED)
def test_an_altered_vector_is_noticed(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "vectors"
    shutil.copytree(VECTORS, folder)
    path = folder / f"{name}.json"
    rows = json.loads(path.read_text())
    ALTERED[name](rows)
    path.write_text(json.dumps(rows))
    refused_by("--vectors", folder)


# --- what real daemons write ------------------------------------------------------------------------------------


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with Fleet(tmp_path) as fleet:
        yield fleet


def export(node: Node, folder: Path) -> Path:
    folder.mkdir()
    done = node.call("export", folder)
    assert done.returncode == 0, done.stderr
    (path,) = folder.iterdir()
    return path


def test_a_stick_of_real_daemons(fleet: Fleet, tmp_path: Path) -> None:
    office, ana = fleet.enroll("office", "office"), fleet.enroll("ana")
    fleet.start(office, ana)
    key = ana.give({"photo.jpg": PHOTO}, kind="surat", reference="Siti", meta={"nik": "32"})["key"]
    path = export(ana, tmp_path / "one")
    trusting = ("--trust", ana.home / "authority.crt")
    seal = ("--open", office.home / "office.seal")

    frames = said_by("stick", path, *trusting, *seal)
    assert [it["frame"] for it in frames if it["frame"] != "BUNDLE"] == ["FLEET", "CERT"]
    assert all(it["verified"] for it in frames)
    introductions = [it["introduces"] for it in frames if it.get("introduces")]
    assert len(introductions) == 1
    parts = [it for it in frames if it.get("key") == key]
    assert sorted(it["part"] for it in parts) == [1, 2]
    (message,) = (it["message"] for it in parts if "message" in it)
    assert message["files_sha256"] == [hashlib.sha256(PHOTO).hexdigest()]
    _, kind, meta, reference, _, ((name, size, _),) = message["manifest"]
    assert (kind, meta, reference) == ("surat", [["nik", "32"]], "Siti")
    assert (name, size) == ("photo.jpg", len(PHOTO))

    without = said_by("stick", path, *trusting)
    assert not any("message" in it or "plaintext_sha256" in it for it in without), "it is sealed"
    flipped = said_by("stick", path, *trusting, "--flips")[-1]["flipped_bytes_refused"]
    assert flipped > 3000

    assert office.call("import", tmp_path / "one").returncode == 0
    fleet.until("delivered", lambda: key in office.inbox())
    fleet.until("signed", lambda: _receipts(office, tmp_path))


def _receipts(office: Node, folder: Path) -> bool:
    """Whether the office's receipt is on a stick by now; it is true then."""
    place = folder / "two"
    shutil.rmtree(place, ignore_errors=True)
    frames = said_by("stick", export(office, place), "--trust", office.home / "authority.crt")
    receipts = [it for it in frames if it["frame"] == "RECEIPT"]
    assert all(it["verified"] for it in receipts)
    return [it["ranges"] for it in receipts] == [[1, 2]]


def test_flipped_bytes_of_a_stick_are_refused_by_the_program(fleet: Fleet, tmp_path: Path) -> None:
    ana = fleet.enroll("ana")
    fleet.start(ana)
    path = export(ana, tmp_path / "stick")
    data = path.read_bytes()
    trusting = ("--trust", ana.home / "authority.crt")
    assert [it["frame"] for it in said_by("stick", path, *trusting)] == ["FLEET", "CERT", "BUNDLE"]
    document = 25 + 4 + int.from_bytes(data[25:29], "big")
    for place in (0, 8, 9, 24, 60, document - 1, document + 40, len(data) - 1):
        flipped = bytearray(data)
        flipped[place] ^= 4
        path.write_bytes(flipped)
        refused_by("stick", path, *trusting)
    path.write_bytes(data[:-1])
    assert "cut off" in refused_by("stick", path, *trusting)


# --- a second node ----------------------------------------------------------------------------------------------


def packed(*items: object) -> bytes:
    """A frame, as section 11.1 has it."""
    body: bytes = msgpack.packb(list(items))
    return len(body).to_bytes(4, "big") + body


class SecondNode:
    """A device that speaks as the page says, and keeps all that it hears."""

    def __init__(self, device: Node, to: Node) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False
        context.load_verify_locations(device.home / "authority.crt")
        context.load_cert_chain(device.home / "device.crt", device.home / "device.key")
        context.set_alpn_protocols(["meshnode/1"])
        plain = socket.create_connection((to.host, to.port), 20.0)
        self.socket = context.wrap_socket(plain)
        assert self.socket.selected_alpn_protocol() == "meshnode/1"
        self.heard = bytearray()
        self._at = 0

    def close(self) -> None:
        """Hang up."""
        self.socket.close()

    def says(self, *items: object) -> None:
        """Send a frame."""
        self.socket.sendall(packed(*items))

    def hears(self, *kinds: int) -> list[Any]:
        """The next frame of one of these kinds."""
        while True:
            while (frame := self._next()) is None:
                data = self.socket.recv(65536)
                assert data, "the node has closed the contact"
                self.heard += data
            if frame[0] == 9:
                self.says(10)
            if frame[0] in kinds:
                return frame

    def _next(self) -> list[Any] | None:
        size = int.from_bytes(self.heard[self._at : self._at + 4], "big")
        if len(self.heard) < self._at + 4 or len(self.heard) < self._at + 4 + size:
            return None
        body = bytes(self.heard[self._at + 4 : self._at + 4 + size])
        self._at += 4 + size
        frame: list[Any] = msgpack.unpackb(body)
        return frame


def test_a_second_node_that_knows_nothing_but_the_page_carries_a_message(
    fleet: Fleet, tmp_path: Path
) -> None:
    office, ana, budi = fleet.enroll("office", "office"), fleet.enroll("ana"), fleet.enroll("budi")
    fleet.start(ana)
    key = ana.give({"photo.jpg": PHOTO}, kind="surat")["key"]
    journal, first = bytes.fromhex(key.partition(":")[0]), 1
    assert key.endswith(":1")

    with closing(SecondNode(budi, ana)) as node:
        node.says(1, 1, 1, "budi", ["officer"], 0, 3, 0, False, 2**30, 15_552_000)
        node.says(3, True, [])
        assert node.hears(1)[3] == "ana"
        _, whole, rows = node.hears(3)
        held = {row[0]: row for row in rows}
        assert whole
        assert held[journal][1:] == [[1, 2], 0, False]
        assert node.hears(12)[1] == [bytes(8)], "nothing is receipted yet: the XOR of nothing"

        node.says(6, 8 * 2**20, [[row[0], row[1], [], False] for row in rows])
        bundles = [node.hears(7) for _ in range(3)]  # two parts and an introduction
        assert ana.states() == ["on_this_device_only"], "not said to be stored yet"
        node.says(8, [[journal, [1, 2], False]])
        node.says(9)
        node.hears(10)
        assert ana.states() == ["carried"]

        heard = tmp_path / "heard"
        heard.write_bytes(node.heard)
        trusting = ("--trust", budi.home / "authority.crt", "--open", office.home / "office.seal")
        said = said_by("frames", heard, *trusting)
        assert {"HELLO", "HAVE", "CERT", "BUNDLE", "FINISHED", "PONG"} <= {it["frame"] for it in said}
        assert sum(it["frame"] == "BUNDLE" and it["verified"] for it in said) == len(bundles)
        (message,) = (it["message"] for it in said if it.get("message"))
        assert message["files_sha256"] == [hashlib.sha256(PHOTO).hexdigest()]
        assert first in {it.get("number") for it in said}

        node.says(12, [bytes(8)])
        node.says(12, [bytes(8)])
        assert "FINISHED" in node.hears(11)[1], "a fault is answered by BYE with the reason"
        assert node.socket.recv(65536) == b"", "and then it is closed"


def digest(size: int, *data: bytes) -> bytes:
    """first(n, H(a || b || ...))."""
    return hashlib.sha256(b"".join(data)).digest()[:size]


def sealed_and_signed(device: Node, epoch: bytes, content: bytes) -> tuple[bytes, bytes, bytes, bytes]:
    """Journal id, header, signature and payload of a message of one part to the office, as sections 2 to 7 have it."""
    document = msgpack.unpackb(msgpack.unpackb((device.home / "fleet.document").read_bytes())[0])
    office, (sealing, *_), _, _ = document[4][0]
    key = load_pem_private_key((device.home / "device.key").read_bytes(), None)
    assert isinstance(key, Ed25519PrivateKey)
    source = digest(16, key.public_key().public_bytes_raw())
    manifest = msgpack.packb(
        [1, "surat", [["nik", "32"]], "", 5000, [["form.txt", len(content), "text/plain"]]]
    )
    stream = len(manifest).to_bytes(4, "big") + manifest + content
    public = MLKEM768X25519PublicKey(
        MLKEM768PublicKey.from_public_bytes(sealing[:1184]), X25519PublicKey.from_public_bytes(sealing[1184:])
    )
    info = b"meshnode/1 bundle" + source + office + epoch + b"".join(n.to_bytes(8, "big") for n in (1, 1, 1))
    payload = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM).encrypt(stream, public, info=info)
    place = [1, source, office, digest(8, sealing), epoch, 1, 1, 1]
    header = msgpack.packb([*place, 1, 5000, 3600, None, len(payload), digest(32, payload)])
    return digest(16, source, office, epoch), header, key.sign(header), payload


def test_a_second_node_that_knows_nothing_but_the_page_writes_to_the_office(
    fleet: Fleet, tmp_path: Path
) -> None:
    office, budi = fleet.enroll("office", "office"), fleet.enroll("budi")
    fleet.start(office)
    journal, *bundle = sealed_and_signed(budi, b"an epoch", b"from a second node")
    pem = (budi.home / "device.crt").read_text()
    with closing(SecondNode(budi, office)) as node:
        node.says(1, 1, 1, "budi", ["officer"], 0, 3, 0, False, 2**30, 15_552_000)
        node.says(3, True, [[journal, [1, 1], 0, False]])
        _, credit, ((wanted, ranges, dropped, known),) = node.hears(6)
        assert (wanted, ranges, dropped, known) == (journal, [1, 1], [], False)
        assert credit >= len(bundle[2])
        node.says(5, ssl.PEM_cert_to_DER_cert(pem))
        node.says(7, 60, *bundle)
        assert node.hears(8)[1] == [[journal, [1, 1], True]], "it is durable there, and ends there"
        _, body, _ = node.hears(4)
        assert msgpack.unpackb(body)[2] == journal
        assert msgpack.unpackb(body)[4] == [1, 1]
        heard = tmp_path / "heard"
        heard.write_bytes(node.heard)
        trusting = [
            word for name in ("authority.crt", "fleet.document") for word in ("--trust", budi.home / name)
        ]
        receipts = [it for it in said_by("frames", heard, *trusting) if it["frame"] == "RECEIPT"]
        assert [it["verified"] for it in receipts] == [True]
        key = f"{journal.hex()}:1"
        (folder,) = office.inbox().values()
        assert (folder / "form.txt").read_bytes() == b"from a second node"
        told = json.loads((folder / "message.json").read_bytes())
        assert (told["key"], told["source"]["name"], told["meta"]) == (key, "budi", {"nik": "32"})

"""docs/protocol.md and the test vectors: they are as the code has them, and meshnode itself reads every vector so."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from meshnode.core.bundle import Bundle, read_bundle, read_header
from meshnode.core.errors import RemoteError
from meshnode.core.fields import pack, unpack
from meshnode.core.fleet import FleetDocument, read_document_file, read_request, read_welcome
from meshnode.core.frames import BundleFrame, Cert, ReceiptFrame, decode, encode
from meshnode.core.frames import Fleet as FleetFrame
from meshnode.core.framing import FrameReader
from meshnode.core.identity import (
    Certificate,
    DeviceId,
    JournalId,
    PublicKey,
    SigningKey,
    read_authority,
    read_certificate,
)
from meshnode.core.intervals import Ranges, ranges_from_wire
from meshnode.core.introducing import device_endpoint, introduce, is_misplaced
from meshnode.core.ledger import Ledger, digest_bytes, digest_total
from meshnode.core.message import Manifest, Opener
from meshnode.core.receipt import Receipt, read_receipt
from meshnode.core.sealing import SealingKey
from meshnode.core.stick import HEAD_SIZE, read_head
from meshnode.core.submitting import message_key
from meshnode.drivers import probe
from meshnode.drivers.dnssd.announcement import announcement_in

ROOT = Path(__file__).parents[2]
VECTORS = ROOT / "tests" / "vectors"


def rows(name: str) -> Any:
    return json.loads((VECTORS / f"{name}.json").read_text())


def protocol(*words: object) -> subprocess.CompletedProcess[str]:
    """`scripts/protocol`, with this Python."""
    return subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "protocol.py"), *map(str, words)],
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'scripts'}:{ROOT}"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


# --- the page ---------------------------------------------------------------------------------------------------


def test_the_page_and_the_vectors_are_up_to_date() -> None:
    done = protocol("--check")
    assert done.returncode == 0, f"run scripts/protocol\n{done.stdout}{done.stderr}"


def test_a_stale_page_is_named_and_written_again(tmp_path: Path) -> None:
    page, vectors = tmp_path / "protocol.md", tmp_path / "vectors"
    shutil.copytree(VECTORS, vectors)
    true = (ROOT / "docs" / "protocol.md").read_text()
    page.write_text(true.replace("| 7 | BUNDLE |", "| 9 | BUNDLE |"))
    (vectors / "ranges.json").write_text("[]\n")
    where = ("--page", page, "--vectors", vectors)
    assert page.read_text() != true

    done = protocol("--check", *where)
    assert done.returncode == 1
    assert done.stdout == f"{page} is out of date\n{vectors / 'ranges.json'} is out of date\n"
    assert page.read_text() != true, "nothing is written"

    assert protocol(*where).returncode == 0
    assert page.read_text() == true
    for path in VECTORS.iterdir():
        assert (vectors / path.name).read_bytes() == path.read_bytes(), path.name


def test_a_page_without_one_of_its_marks_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "protocol.md"
    page.write_text((ROOT / "docs" / "protocol.md").read_text().replace("scripts/protocol: NEXT", "NEXT"))
    done = protocol("--check", "--page", page)
    assert done.returncode == 1
    assert "'NEXT'" in done.stderr


@pytest.mark.parametrize("said", ["261,008", "7766 unless", "meshnode/1 bundle", "_meshnode._tcp.local."])
def test_a_number_or_a_name_in_the_text_that_the_code_has_otherwise_is_refused(
    said: str, tmp_path: Path
) -> None:
    page = tmp_path / "protocol.md"
    true = (ROOT / "docs" / "protocol.md").read_text()
    assert said in true
    page.write_text(true.replace(said, said[1:]))
    done = protocol("--check", "--page", page)
    assert done.returncode == 1
    assert "as the code has it" in done.stderr


def test_without_the_vectors_sealing_is_done_anew_and_all_else_is_the_same(tmp_path: Path) -> None:
    page = tmp_path / "protocol.md"
    shutil.copy(ROOT / "docs" / "protocol.md", page)
    assert protocol("--page", page, "--vectors", tmp_path / "vectors").returncode == 0
    for name in ("keys", "certificates", "documents", "receipts", "digests", "ranges", "datagrams"):
        assert (tmp_path / "vectors" / f"{name}.json").read_bytes() == (VECTORS / f"{name}.json").read_bytes()
    assert (tmp_path / "vectors" / "bundles.json").read_bytes() != (VECTORS / "bundles.json").read_bytes()


# --- the vectors, read by meshnode ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority() -> PublicKey:
    (row,) = (row for row in rows("certificates") if row["role"] is None)
    name, key = read_authority(bytes.fromhex(row["der"]))
    assert (name, key.id.hex()) == (row["name"], row["id"])
    return key


@pytest.fixture(scope="module")
def certificates(authority: PublicKey) -> dict[bytes, Certificate]:
    known = {}
    for row in rows("certificates"):
        if row["role"] is not None:
            it = read_certificate(bytes.fromhex(row["der"]), authority)
            assert (it.name, it.role, it.device.hex()) == (row["name"], row["role"], row["id"])
            known[bytes(it.device)] = it
    assert len(known) == 3
    return known


@pytest.fixture(scope="module")
def documents(authority: PublicKey) -> list[FleetDocument]:
    return [
        read_document_file(bytes.fromhex(row["file"]), authority) for row in rows("documents")["documents"]
    ]


@pytest.fixture(scope="module")
def seals() -> dict[bytes, SealingKey]:
    keys = [SealingKey(bytes.fromhex(row["seed"])) for row in rows("keys")["sealing"]]
    return {key.public.key_id: key for key in keys}


def stick_frames() -> list[Any]:
    return list(FrameReader().feed((VECTORS / "stick.meshnode").read_bytes()[HEAD_SIZE:]))


def whole_bundle(row: dict[str, Any]) -> Bundle:
    header, signature = bytes.fromhex(row["header"]), bytes.fromhex(row["signature"])
    if "payload" in row:
        return read_bundle(header, signature, bytes.fromhex(row["payload"]))
    (bundle,) = (
        it.bundle for it in stick_frames() if isinstance(it, BundleFrame) and it.bundle.header_bytes == header
    )
    assert isinstance(bundle, Bundle)
    return bundle


def plain(value: object) -> object:
    if isinstance(value, bytes):
        return f"0x{value.hex()}"
    return [plain(item) for item in value] if isinstance(value, list) else value


def test_keys() -> None:
    assert rows("keys")["note"].startswith("TEST KEYS")
    for row in rows("keys")["signing"]:
        key = SigningKey.from_seed(bytes.fromhex(row["seed"]))
        assert (key.public.raw.hex(), key.public.id.hex()) == (row["public"], row["id"])
    for row in rows("keys")["sealing"]:
        public = SealingKey(bytes.fromhex(row["seed"])).public
        assert (public.raw.hex(), public.key_id.hex()) == (row["public"], row["key_id"])


def test_documents(documents: list[FleetDocument], certificates: dict[bytes, Certificate]) -> None:
    for document, row in zip(documents, rows("documents")["documents"], strict=True):
        assert (document.version, document.body.hex()) == (row["version"], row["body"])
        assert plain(unpack(document.body, "vector")) == row["says"]
    assert [certificates[bytes(device)].name for device in documents[1].revoked] == ["budi"]
    for row in rows("documents")["requests"]:
        assert read_request(bytes.fromhex(row["file"])).key.id.hex() == row["device"]
    for row in rows("documents")["welcomes"]:
        welcome = read_welcome(bytes.fromhex(row["file"]))
        assert (welcome.certificate.device.hex(), welcome.document.version) == (row["device"], row["version"])


def test_bundles(certificates: dict[bytes, Certificate], seals: dict[bytes, SealingKey]) -> None:
    for row in rows("bundles"):
        bundle = whole_bundle(row)
        header = bundle.header
        bundle.verify(certificates[header.source].key)
        assert plain(unpack(bundle.header_bytes, "vector")) == row["says"]
        assert header.encode() == bundle.header_bytes
        assert (header.journal.hex(), header.info.hex()) == (row["journal"], row["info"])
        assert message_key(header.journal, header.first) == row["key"]
        assert not is_misplaced(header)
        if "opens_with" not in row:
            continue
        key = seals[header.recipient_key]
        assert key.seed.hex() == row["opens_with"]
        plaintext = key.open(bundle.payload, header.info)
        assert hashlib.sha256(plaintext).hexdigest() == row["plaintext_sha256"]
        if header.parts == 1:
            assert plaintext.hex() == row["plaintext"]
            opener = Opener()
            list(opener.feed(plaintext))
            assert plain(_items(opener.close())) == row["manifest"]


def _items(manifest: Manifest) -> list[object]:
    files = [[file.name, file.size_bytes, file.type] for file in manifest.files]
    return [1, manifest.kind, [*map(list, manifest.meta)], manifest.reference, manifest.submitted_ms, files]


def test_the_introduction_is_what_meshnode_would_write(certificates: dict[bytes, Certificate]) -> None:
    (row,) = (row for row in rows("bundles") if row["name"] == "an introduction")
    seeds = {
        each["name"]: bytes.fromhex(each["seed"])
        for kind in ("signing", "sealing")
        for each in rows("keys")[kind]
    }
    key = SigningKey.from_seed(seeds["device siti"])
    made = introduce(key, SealingKey(seeds["sealing siti"]).public)
    assert made == whole_bundle(row)
    assert device_endpoint(certificates[key.public.id], made.payload).id == key.public.id


def by_hand(row: dict[str, Any]) -> bytes:
    """HPKE as RFC 9180 has it, with the numbers of the page, and none of the library that meshnode seals with."""
    seed, payload, info = (bytes.fromhex(row[name]) for name in ("opens_with", "payload", "info"))
    stretched = hashlib.shake_256(seed).digest(96)
    exchange = X25519PrivateKey.from_private_bytes(stretched[64:])
    theirs = payload[1088:1120]
    secrets = MLKEM768PrivateKey.from_seed_bytes(stretched[:64]).decapsulate(payload[:1088])
    secrets += exchange.exchange(X25519PublicKey.from_public_bytes(theirs))
    secrets += theirs + exchange.public_key().public_bytes_raw()
    shared = hashlib.sha3_256(secrets + rb"\.//^\ "[:-1]).digest()
    suite = b"HPKE-v1HPKE" + bytes.fromhex("647a00010002")

    def extract(salt: bytes, label: bytes, data: bytes) -> bytes:
        return hmac.digest(salt or bytes(32), suite + label + data, "sha256")

    def expand(secret: bytes, label: bytes, data: bytes, size: int) -> bytes:
        wanted = size.to_bytes(2, "big") + suite + label + data
        return hmac.digest(secret, wanted + b"\1", "sha256")[:size]  # no more than one block is needed

    context = b"\0" + extract(b"", b"psk_id_hash", b"") + extract(b"", b"info_hash", info)
    secret = extract(shared, b"secret", b"")
    key, nonce = expand(secret, b"key", context, 32), expand(secret, b"base_nonce", context, 12)
    return AESGCM(key).decrypt(nonce, payload[1120:], b"")


def test_sealing_is_what_the_rfc_says_with_the_numbers_of_the_page() -> None:
    sealed = [row for row in rows("bundles") if "plaintext" in row]
    assert len(sealed) == 3
    for row in sealed:
        assert by_hand(row).hex() == row["plaintext"], row["name"]


def signer(
    receipt: Receipt, documents: list[FleetDocument], certificates: dict[bytes, Certificate]
) -> PublicKey:
    endpoint = documents[0].endpoint(receipt.endpoint)
    return endpoint.signing_key if endpoint else certificates[receipt.endpoint].key


def test_receipts(documents: list[FleetDocument], certificates: dict[bytes, Certificate]) -> None:
    for row in rows("receipts"):
        receipt = read_receipt(bytes.fromhex(row["body"]), bytes.fromhex(row["signature"]))
        receipt.verify(signer(receipt, documents, certificates))
        assert (receipt.endpoint.hex(), receipt.journal.hex()) == (row["by"], row["journal"])
        assert receipt.is_bound == (row["name"] == "device")
        assert plain(unpack(receipt.body, "vector")) == row["says"]


def test_frames() -> None:
    kinds = set()
    for row in rows("frames"):
        data = bytes.fromhex(row["frame"])
        (frame,) = FrameReader().feed(data)
        assert encode(frame) == data
        assert plain(unpack(data[4:], "vector")) == row["says"]
        kinds.add(row["says"][0])
    assert kinds == set(range(1, 15)), "one of each kind, and a new kind needs one"


def test_digests() -> None:
    for row in rows("digests"):
        ledger = Ledger(DeviceId(bytes(16)))
        for journal, serial in row["journals"]:
            it = JournalId(bytes.fromhex(journal))
            ledger.apply(Receipt(_NOBODY, it, serial, Ranges.single(1), 0, b"", b""), 0.0)
        buckets = ledger.digest_buckets(())
        told = {f"{at:02x}": it.hex() for at, it in enumerate(digest_bytes(buckets)) if any(it)}
        assert (told, digest_bytes([digest_total(buckets)])[0].hex()) == (row["buckets"], row["total"])


_NOBODY: Any = bytes(16)


def test_ranges() -> None:
    for row in rows("ranges"):
        it = ranges_from_wire(unpack(bytes.fromhex(row["packed"]), "vector"), "vector")
        assert (str(it), it.to_wire(), pack(it.to_wire()).hex()) == (
            row["numbers"],
            row["says"],
            row["packed"],
        )


def test_datagrams() -> None:
    for row in rows("datagrams")["datagrams"]:
        said = probe.decode(bytes.fromhex(row["datagram"]))
        assert said is not None
        told = {"asks": said.asks, "fleet": said.fleet.hex(), "device": said.device.hex(), "port": said.port}
        assert told == row["says"]
        assert probe.encode(said).hex() == row["datagram"]
    for row in rows("datagrams")["txt"]:
        heard = announcement_in(bytes.fromhex(row["txt"]), 7766)
        assert heard is not None
        assert (heard.fleet.hex(), heard.device.hex()) == (row["says"]["fleet"], row["says"]["id"])
        assert (",".join(heard.roles), heard.uplink) == (row["says"]["roles"], False)


def test_the_stick(
    authority: PublicKey,
    documents: list[FleetDocument],
    certificates: dict[bytes, Certificate],
    seals: dict[bytes, SealingKey],
) -> None:
    row, data = rows("stick"), (VECTORS / "stick.meshnode").read_bytes()
    assert hashlib.sha256(data).hexdigest() == row["sha256"]
    assert read_head(data).hex() == row["fleet"] == authority.id.hex()
    assert row["frames"][-1]["offset"] + row["frames"][-1]["size"] == len(data)
    opener, digest = Opener(), hashlib.sha256()
    for frame in stick_frames():
        match frame:
            case FleetFrame():
                assert frame.body == documents[0].body
            case Cert():
                assert read_certificate(frame.der, authority).name == "siti"
            case ReceiptFrame():
                receipt = read_receipt(frame.body, frame.signature)
                receipt.verify(signer(receipt, documents, certificates))
            case BundleFrame():
                header = frame.bundle.header
                frame.bundle.verify(certificates[header.source].key)
                key = seals[header.recipient_key]
                assert key.seed.hex() == row["message"]["opens_with"]
                for _, piece in opener.feed(key.open(frame.bundle.payload, header.info)):
                    digest.update(piece)
    assert plain(_items(opener.close())) == row["message"]["manifest"]
    assert [digest.hexdigest()] == row["message"]["files_sha256"]


def test_what_is_to_be_refused_is_refused(authority: PublicKey) -> None:
    def no_probe(data: bytes) -> None:
        if probe.decode(data) is None:
            raise RemoteError("datagram", "is ignored")

    readers: dict[str, Callable[[bytes], object]] = {
        "header": read_header,
        "device certificate": lambda data: read_certificate(data, authority),
        "ranges": lambda data: ranges_from_wire(unpack(data, "vector"), "vector"),
        "frame": decode,
        "datagram": no_probe,
        "stick": read_head,
    }
    refused = rows("refused")
    assert {row["kind"] for row in refused} == set(readers)
    for row in refused:
        with pytest.raises(RemoteError):
            readers[row["kind"]](bytes.fromhex(row["bytes"]))

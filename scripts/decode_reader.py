"""A second reader of meshnode's protocol, written from docs/protocol.md alone; no code of meshnode is used.

`Reader` knows whom to trust and what opens, and each of its methods reads one thing of the page: what is not as the
page says raises Refused. The numbers in comments are the page's sections.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, MLKEM768X25519PrivateKey, Suite
from decode_forms import (
    DOCUMENT,
    FRAME_SIZE_MAX,
    HEADER,
    KINDS,
    MANIFEST,
    RECEIPTS,
    ROLES,
    SIGNATURE,
    SIGNED_FILE,
    Refused,
    first,
    need,
    octets,
    row,
    text,
    unpack,
    whole,
)

Said = dict[str, Any]
ROLE = x509.ObjectIdentifier("2.25.196387254107342291164519093218734162017")
SUITE = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
EVERYONE = bytes(16)
DEVICE_NAME, FLEET_NAME = (
    r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}(?<!\.)",
    r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,62}(?<! )",
)


class Reader:
    """Reads, and remembers whom it has come to trust."""

    def __init__(self) -> None:
        self.authority: bytes | None = None
        self.devices: dict[bytes, bytes] = {}
        self.roles: dict[bytes, str] = {}
        self.offices: dict[bytes, bytes] = {}
        self.seals: dict[bytes, MLKEM768X25519PrivateKey] = {}
        #: What was verified: which method has read it, and from what.
        self.signed: list[tuple[Callable[..., object], tuple[bytes, ...]]] = []
        self._chunks: dict[tuple[bytes, int], dict[int, bytes]] = {}

    def _verify(self, key: bytes | None, signature: bytes, data: bytes, what: str) -> bool:
        if key is None:
            need(self.authority is None, f"{what} is of somebody who is not known")
            return False
        try:
            Ed25519PublicKey.from_public_bytes(key).verify(signature, data)
        except (InvalidSignature, ValueError):
            raise Refused(f"{what} has a false signature") from None
        return True

    def _note(self, read: Callable[..., object], *data: bytes) -> None:
        if self.authority is not None:
            self.signed.append((read, data))

    def open_with(self, seed: bytes) -> None:
        """6: the private key of a seed."""
        need(len(seed) == 32, "a sealing seed has 32 bytes")
        stretched = hashlib.shake_256(seed).digest(96)
        kem, exchange = (
            MLKEM768PrivateKey.from_seed_bytes(stretched[:64]),
            X25519PrivateKey.from_private_bytes(stretched[64:]),
        )
        public = kem.public_key().public_bytes_raw() + exchange.public_key().public_bytes_raw()
        self.seals[first(8, public)] = MLKEM768X25519PrivateKey(kem, exchange)

    def certificate(self, der: bytes) -> Said:
        """3."""
        size, fixed = len(der), bytes.fromhex("300506032b6570034100")
        head = b"\x30\x82" + (size - 4 & 0xFFFF).to_bytes(2, "big")
        need(256 <= size <= 2048 and der[:4] == head and der[-74:-64] == fixed, "this is no certificate")
        signed, signature = der[4:-74], der[-64:]
        if self.authority is not None:
            self._verify(self.authority, signature, signed, "certificate")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # such as of a serial number that is negative
                it = x509.load_der_x509_certificate(der)
            (name,) = (str(a.value) for a in it.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME))
            public = it.public_key()
            roles = [e.value for e in it.extensions if e.oid == ROLE]
        except (ValueError, TypeError, Warning) as error:
            raise Refused(f"certificate: {error}") from None
        need(isinstance(public, Ed25519PublicKey), "certificate is not for an Ed25519 key")
        assert isinstance(public, Ed25519PublicKey)
        key = public.public_bytes_raw()
        if not roles and it.subject == it.issuer:
            self._verify(key, signature, signed, "authority certificate")
            need(bool(re.fullmatch(FLEET_NAME, name, re.ASCII)), "certificate.name")
            self.authority = self.authority or key
            return {"fleet": name, "id": first(16, key)}
        role = (
            roles[0].value.decode("ascii", "replace")
            if isinstance(roles[0], x509.UnrecognizedExtension)
            else ""
        )
        need(
            role in ROLES and bool(re.fullmatch(DEVICE_NAME, name, re.ASCII)),
            "certificate has no such name or role",
        )
        device = first(16, key)
        self._note(self.certificate, der)
        self.devices[device], self.roles[device] = key, role
        return {"name": name, "role": role, "id": device, "verified": self.authority is not None}

    def document(self, body: bytes, signature: bytes) -> Said:
        """4."""
        need(len(body) <= 2**18, "document is too long")
        verified = self._verify(self.authority, signature, body, "document")
        it: Said = unpack(body, "document", DOCUMENT)
        need(bool(re.fullmatch(FLEET_NAME, it["name"], re.ASCII)), "document.name")
        need(self.authority is None or it["fleet"] == first(16, self.authority), "document of another fleet")
        for endpoint, sealing, key, addresses in it["endpoints"]:
            need(bool(sealing) and endpoint == first(16, key), "document.endpoints")
            for address in addresses:
                host, _, port = address.rpartition(":")
                sane = port.isascii() and port.isdigit() and 1 <= int(port) <= 65535
                need(bool(host) and sane and all("!" <= c <= "~" for c in host), "document.addresses")
            self.offices[endpoint] = key
        self._note(self.document, body, signature)
        return {**it, "verified": verified}

    def file(self, data: bytes, what: str = "document") -> Said:
        """4: a document, a request or a welcome."""
        signed = unpack(data, what, SIGNED_FILE)
        body, signature = signed["body"], signed["signature"]
        if what == "document":
            return self.document(body, signature)
        if what == "request":
            sizes = row(whole(1, 1), text(63), ROLES.__contains__, octets(32), octets(0, 32), octets(0, 1216))
            it = unpack(body, what)
            need(sizes(it), "request is not as it should be")
            office = it[2] == "office"
            need(bool(re.fullmatch(DEVICE_NAME, it[1], re.ASCII)), "request.name")
            need((len(it[4]), len(it[5])) == ((32, 1216) if office else (0, 0)), "request.keys")
            self._verify(it[3], signature, body, what)
            return {"name": it[1], "role": it[2], "id": first(16, it[3])}
        it = unpack(body, what)
        need(row(whole(1, 1), octets(1, 2048), octets(1, 2048), octets(1, 2**18), SIGNATURE)(it), "welcome")
        self.certificate(it[1])
        self._verify(self.authority, signature, body, what)
        return {"certificate": self.certificate(it[2]), "document": self.document(it[3], it[4])}

    def header(self, header: bytes) -> Said:
        """5."""
        need(len(header) <= 512, "header is too long")
        it: Said = unpack(header, "header", HEADER)
        need(it["part"] <= min(it["number"], it["parts"]), "header.part")
        need(it["previous"] is None or it["number"] == 1, "header.previous")
        return it

    def bundle(self, header: bytes, signature: bytes, payload: bytes) -> Said:
        """5 to 8."""
        it = self.header(header)
        number, part, parts = it["number"], it["part"], it["parts"]
        verified = self._verify(self.devices.get(it["source"]), signature, header, "bundle")
        need(len(payload) == it["payload_size"], "payload has another size")
        need(first(32, payload) == it["payload_sha256"], "payload has another digest")
        self._note(self.bundle, header, signature, payload)
        journal = first(16, it["source"] + it["destination"] + it["epoch"])
        said = {**it, "journal": journal, "key": f"{journal.hex()}:{number - part + 1}", "verified": verified}
        if it["destination"] == EVERYONE:
            need(
                (it["epoch"], number, len(payload)) == (bytes(8), 1, 1216), "to EVERYONE and no introduction"
            )
            return {**said, "introduces": first(8, payload)}
        key = self.seals.get(it["recipient_key"])
        if key is not None:
            place = b"".join(n.to_bytes(8, "big") for n in (number, part, parts))
            info = b"meshnode/1 bundle" + it["source"] + it["destination"] + it["epoch"] + place
            try:
                plaintext = SUITE.decrypt(payload, key, info=info)
            except (InvalidTag, ValueError):
                raise Refused("payload does not open") from None
            said |= {"info": info, "plaintext_sha256": hashlib.sha256(plaintext).hexdigest()}
            chunks = self._chunks.setdefault((journal, number - part + 1), {})
            chunks[part] = plaintext
            if len(chunks) == parts:
                said["message"] = message(b"".join(chunks[at] for at in sorted(chunks)))
        return said

    def receipt(self, body: bytes, signature: bytes) -> Said:
        """9."""
        (version, *_) = unpack(body, "receipt") or [0]
        need(type(version) is int and version in RECEIPTS, "receipt of an unknown version")
        it: Said = unpack(body, "receipt", RECEIPTS[version])
        keys = self.offices if version == 1 else self.devices
        if version == 2:
            need(first(16, it["source"] + it["endpoint"] + it["epoch"]) == it["journal"], "receipt.journal")
        verified = self._verify(keys.get(it["endpoint"]), signature, body, "receipt")
        self._note(self.receipt, body, signature)
        return {**it, "verified": verified}

    def frame(self, body: bytes) -> Said:
        """11."""
        items = unpack(body, "frame")
        need(bool(items) and type(items[0]) is int and items[0] in KINDS, "frame of an unknown kind")
        name, layout = KINDS[items[0]]
        it = unpack(body, name, {"kind": lambda _: True, **layout})
        match name:
            case "HELLO":
                need(it["version_min"] <= it["version_max"], "HELLO.version_max")
            case "NEXT":
                need(it["class"] < 8 or not it["worth"], "NEXT.worth")
            case "FLEET":
                it = self.document(it["body"], it["signature"])
            case "CERT":
                it = self.certificate(it["der"])
            case "RECEIPT":
                it = self.receipt(it["body"], it["signature"])
            case "BUNDLE":
                it = {"age_s": it["age_s"], **self.bundle(it["header"], it["signature"], it["payload"])}
        it.pop("kind", None)
        return {"frame": name, **it}

    def frames(self, data: bytes) -> Iterator[Said]:
        """11.1: a stream."""
        for body in bodies(data):
            yield self.frame(body)

    def stick(self, data: bytes) -> Iterator[Said]:
        """14, of a file that is whole."""
        need(len(data) >= 25 and data[:9] == b"MESHNODE\1", "this is no stick file")
        need(self.authority is None or data[9:25] == first(16, self.authority), "a stick of another fleet")
        for said in self.frames(data[25:]):
            need(said["frame"] in ("FLEET", "CERT", "RECEIPT", "BUNDLE"), "a frame that only a contact has")
            yield said


def bodies(data: bytes) -> Iterator[bytes]:
    """11.1: what stands after each length."""
    at = 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        need(size <= FRAME_SIZE_MAX, "frame is too long")
        need(at + 4 + size <= len(data), "frame is cut off")
        yield data[at + 4 : at + 4 + size]
        at += 4 + size


def message(stream: bytes) -> Said:
    """7: the manifest, and the digest of each file."""
    size = int.from_bytes(stream[:4], "big")
    need(size <= 2**16 and 4 + size <= len(stream), "manifest is too long")
    manifest: Said = unpack(stream[4 : 4 + size], "manifest", MANIFEST)
    names = [name for name, _, _ in manifest["files"]]
    keys = [key for key, _ in manifest["meta"]]
    alike = {unicodedata.normalize("NFC", name).casefold() for name in names}
    need(
        0 < len(names) == len(alike) and len(keys) == len(set(keys)),
        "manifest names something twice, or nothing",
    )
    for name in names:
        odd = any(unicodedata.category(c) in ("Cc", "Cs") or c in "/\\" for c in name)
        need(not odd and name not in ("", ".", "..") and name.casefold() != "message.json", "manifest.files")
    at, digests = 4 + size, []
    for _, length, _ in manifest["files"]:
        digests.append(hashlib.sha256(stream[at : at + length]).hexdigest())
        at += length
    need(at == len(stream), "message is not as long as its files")
    return {"manifest": list(manifest.values()), "files_sha256": digests}


def datagram(data: bytes) -> Said:
    """13."""
    need(len(data) == 45 and data[:10] == b"meshnode/1" and data[10] < 2, "this is no datagram of meshnode")
    port = int.from_bytes(data[43:], "big")
    need(port > 0, "port 0")
    return {"asks": data[10] == 0, "fleet": data[11:27].hex(), "device": data[27:43].hex(), "port": port}


def txt(data: bytes) -> Said:
    """13: a TXT record, as RFC 6763 lays it out."""
    said: dict[str, str] = {}
    at = 0
    while at < len(data):
        name, _, value = data[at + 1 : at + 1 + data[at]].partition(b"=")
        said.setdefault(name.decode(), value.decode())
        at += 1 + data[at]
    ids = all(re.fullmatch("[0-9a-f]{32}", said.get(name, "")) for name in ("fleet", "id"))
    need(said.get("v") == "1" and ids and "roles" in said and said.get("uplink") in ("0", "1"), "TXT record")
    return said


def buckets(journals: list[tuple[bytes, int]]) -> list[int]:
    """11.9."""
    out = [0] * 256
    for journal, serial in journals:
        out[journal[0]] ^= int.from_bytes(first(8, journal + serial.to_bytes(8, "big")), "big")
    return out

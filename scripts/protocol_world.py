"""The fleet of test keys that the test vectors come from: fixed keys, epochs and ages, and all that is made of them.

All keys are made from labels that anybody can read, so they are good for nothing but tests. What is made twice is the
same twice, but for the sealing, which draws a key of its own for each payload: what is kept in the folder is taken
again as long as it opens to what it should hold.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from meshnode.core import frames as f
from meshnode.core.bundle import ROUTINE, URGENT, Bundle, Header, Previous, journal_id, sign_bundle
from meshnode.core.errors import RemoteError
from meshnode.core.fleet import Endpoint, FleetDocument, Request, write_welcome
from meshnode.core.framing import FrameReader
from meshnode.core.identity import (
    Certificate,
    DeviceId,
    EndpointId,
    FleetId,
    JournalId,
    SigningKey,
    found_authority,
    issue_certificate,
    read_certificate,
)
from meshnode.core.intervals import NONE, Ranges
from meshnode.core.introducing import introduce
from meshnode.core.ledger import Ledger, digest_bytes, digest_total
from meshnode.core.limits import AWAY_S_MAX, LIFETIME_S, MIB
from meshnode.core.message import Chunker, File, Manifest, stream_head
from meshnode.core.receipt import Origin, Receipt, issue_receipt, next_serial
from meshnode.core.sealing import SEAL_OVERHEAD, SealingKey, sealing_info
from meshnode.core.stick import HEAD_SIZE, write_head
from meshnode.core.submitting import message_key

STICK: Final = "stick.meshnode"
WALL_MS: Final = 1_700_000_000_000
EPOCHS: Final = (b"epoch--1", b"epoch--2")
OFFICE_EPOCH: Final = b"epoch--k"


def seed(label: str) -> bytes:
    """The 32 bytes of a test key."""
    return hashlib.sha256(f"meshnode TEST KEY {label}".encode()).digest()


class World:
    """A fleet of test keys, and all that is made in it. `kept`: sealed payloads from before, by their `info`."""

    def __init__(self, kept: dict[bytes, bytes]) -> None:
        self._kept = kept
        self.authority = SigningKey.from_seed(seed("authority"))
        self.office = SigningKey.from_seed(seed("office endpoint"))
        self.devices = {
            name: SigningKey.from_seed(seed(f"device {name}")) for name in ("kantor", "siti", "budi")
        }
        self.sealing = {
            name: SealingKey(seed(f"sealing {name}")) for name in ("office", "office before", "siti")
        }
        self.fleet_name = "Kabupaten Tasikmalaya"
        self.fleet = FleetId(self.authority.public.id)
        self.endpoint = EndpointId(self.office.public.id)
        self.authority_der = found_authority(self.authority, self.fleet_name, 1)
        self.roles = {"kantor": "office", "siti": "officer", "budi": "gateway"}
        self.certificates = {name: self._certificate(name, at) for at, name in enumerate(self.devices)}
        self.documents = [
            self._document(1, (), ()),
            self._document(2, ("office.example.go.id:7766", "[2001:db8::1]:7766"), ("budi",)),
        ]
        self.siti = DeviceId(self.devices["siti"].public.id)
        self.journals = [journal_id(self.siti, self.endpoint, epoch) for epoch in EPOCHS]
        self.bundles = dict(self._bundles())
        self.receipts = dict(self._receipts())

    def _certificate(self, name: str, at: int) -> Certificate:
        key = self.devices[name].public
        der = issue_certificate(self.authority, self.fleet_name, name, self.roles[name], key, 1001 + at)
        return read_certificate(der, self.authority.public)

    def _document(self, version: int, addresses: tuple[str, ...], revoked: tuple[str, ...]) -> FleetDocument:
        keys = [self.sealing["office"].public, self.sealing["office before"].public]
        return FleetDocument(
            fleet=self.fleet,
            version=version,
            name=self.fleet_name,
            endpoints=(Endpoint(tuple(keys[: len(addresses) or 1]), self.office.public, addresses),),
            revoked=frozenset(DeviceId(self.devices[name].public.id) for name in revoked),
            lifetime_s=LIFETIME_S,
        ).signed(self.authority)

    # --- bundles ------------------------------------------------------------------------------------------------

    def _seal(self, key: SealingKey, plaintext: bytes, info: bytes) -> bytes:
        if info in self._kept:
            try:
                if key.open(self._kept[info], info) == plaintext:
                    return self._kept[info]
            except RemoteError:
                pass  # of other keys than today's
        return key.public.seal(plaintext, info)

    def _message(
        self,
        source: str,
        destination: bytes,
        sealed_to: str,
        manifest: Manifest,
        content: bytes,
        *,
        epoch: bytes,
        first: int = 1,
        priority: int = ROUTINE,
        previous: Previous | None = None,
    ) -> list[Bundle]:
        chunker = Chunker()
        chunks = [*chunker.feed(stream_head(manifest) + content), chunker.rest()]
        device, key = self.devices[source], self.sealing[sealed_to]
        bundles = []
        for at, chunk in enumerate(chunks):
            where = DeviceId(device.public.id), destination, epoch, first + at, at + 1, len(chunks)
            payload = self._seal(key, chunk, sealing_info(*where))
            header = Header(
                source=where[0],
                destination=destination,
                recipient_key=key.public.key_id,
                epoch=epoch,
                number=first + at,
                part=at + 1,
                parts=len(chunks),
                priority=priority,
                created_ms=manifest.submitted_ms,
                lifetime_s=LIFETIME_S,
                previous=previous if first + at == 1 else None,
                payload_size=len(chunk) + SEAL_OVERHEAD,
                payload_sha256=hashlib.sha256(payload).digest(),
            )
            bundles.append(sign_bundle(header, payload, device))
        return bundles

    def _bundles(self) -> Iterator[tuple[str, Bundle]]:
        form = b'{"nik": "3206000000000001"}'
        meta = (("nik", "3206000000000001"), ("desa", "Cipatujah"))
        files = (File("form.json", len(form), "application/json"), File("note.txt", 3, "text/plain"))
        one = Manifest("ktp-el", meta, "Ibu Aminah", WALL_MS, files)
        yield (
            "one part",
            self._message("siti", self.endpoint, "office", one, form + b"ok\n", epoch=EPOCHS[0])[0],
        )
        photo = hashlib.shake_256(b"meshnode test photo").digest(270_000)
        two = Manifest("ktp-el", meta[:1], "", WALL_MS + 1000, (File("photo.jpg", len(photo), "image/jpeg"),))
        parts = self._message("siti", self.endpoint, "office", two, photo, epoch=EPOCHS[0], first=2)
        yield "part 1 of 2", parts[0]
        yield "part 2 of 2", parts[1]
        third = Manifest("ktp-el", (), "", WALL_MS + 86_400_000, (File("empty", 0),))
        before = Previous(self.journals[0], 3)
        to_office = self.endpoint, "office", third, b""
        urgent = self._message("siti", *to_office, epoch=EPOCHS[1], priority=URGENT, previous=before)
        yield "urgent, the first of a later journal", urgent[0]
        key = message_key(self.journals[0], 1)
        told = (("about", key), ("verdict", "refused"), ("reason", "left iris unreadable"))
        text = f"{key}: refused: left iris unreadable\n".encode()
        answer = Manifest(
            "answer", told, "", WALL_MS + 7_200_000, (File("message.txt", len(text), "text/plain"),)
        )
        to_siti = self.siti, "siti", answer, text
        yield (
            "an answer to a device",
            self._message("kantor", *to_siti, epoch=OFFICE_EPOCH, priority=URGENT)[0],
        )
        yield "an introduction", introduce(self.devices["siti"], self.sealing["siti"].public)

    def _receipts(self) -> Iterator[tuple[str, Receipt]]:
        serial = next_serial(0, b"\x01\x02\x03\x04rest")
        signed = Ranges([(1, 57), (60, 60)])
        at_ms = WALL_MS + 3_600_000
        yield "office", issue_receipt(self.office, self.endpoint, self.journals[0], serial, signed, at_ms)
        again = next_serial(serial, b"\xff\xfe\xfd\xfcrest")
        yield (
            "office, again",
            issue_receipt(self.office, self.endpoint, self.journals[0], again, signed.plus(58), at_ms),
        )
        kantor = DeviceId(self.devices["kantor"].public.id)
        to_siti = journal_id(kantor, self.siti, OFFICE_EPOCH)
        yield (
            "device",
            issue_receipt(
                self.devices["siti"],
                EndpointId(self.siti),
                to_siti,
                serial,
                Ranges.single(1),
                at_ms,
                Origin(kantor, OFFICE_EPOCH),
            ),
        )

    # --- frames -------------------------------------------------------------------------------------------------

    def frames(self) -> Iterator[tuple[str, f.Frame]]:
        """Every kind, some twice."""
        receipt, document = self.receipts["office"], self.documents[0]
        first, later = self.journals
        some = Ranges([(1, 57), (60, 60)])
        digests = digest_bytes(finished_ledger(self).digest_buckets(()))
        device = DeviceId(self.devices["budi"].public.id)
        yield (
            "HELLO",
            f.Hello("siti", ("officer",), 7766, 1, WALL_MS, False, 2**33, away_s=AWAY_S_MAX),
        )
        yield "FLEET", f.Fleet(document.body, document.signature)
        yield "HAVE", f.Have(True, (f.Held(first, some, receipt.serial), f.Held(later, NONE, 0, True)))
        yield "HAVE, of nothing", f.Have(True, ())
        yield "RECEIPT", f.ReceiptFrame(receipt.body, receipt.signature)
        yield "CERT", f.Cert(self.certificates["siti"].der)
        yield "WANT", f.Want(8 * MIB, (f.Wanted(first, Ranges.span(1, 3), Ranges.single(60), True),))
        yield "BUNDLE", f.BundleFrame(12, self.bundles["one part"])
        yield "STORED", f.Stored(((first, some, False),))
        yield "PING", f.Ping()
        yield "PONG", f.Pong()
        yield "BYE", f.Bye("revoked")
        yield "FINISHED", f.Finished(digest_bytes([digest_total(map(_number, digests))]))
        yield "FINISHED, by bucket", f.Finished(digests)
        yield "HEARD", f.Heard((f.Elsewhere(device, 3600, ((first, some),)),))
        yield "NEXT", f.Next((2, -1.5))
        yield "NEXT, nothing", f.Next(None)

    def papers(self) -> list[bytes]:
        """A request of an officer, one of an office, and a welcome."""
        office = Endpoint((self.sealing["office"].public,), self.office.public, ())
        asked = [("siti", None), ("kantor", office)]
        requests = [
            Request(name, self.roles[name], self.devices[name].public, endpoint).to_file(self.devices[name])
            for name, endpoint in asked
        ]
        siti = self.certificates["siti"]
        return [*requests, write_welcome(self.authority, self.authority_der, siti.der, self.documents[0])]

    def manifest(self) -> bytes:
        """What the plaintext of the message of one part begins with: the manifest and its length."""
        bundle = self.bundles["one part"]
        stream = self.sealing["office"].open(bundle.payload, bundle.header.info)
        return stream[: 4 + int.from_bytes(stream[:4], "big")]

    def stick(self) -> bytes:
        """A file on a stick."""
        document, receipt = self.documents[0], self.receipts["office"]
        parts = [self.bundles[name] for name in ("part 1 of 2", "part 2 of 2")]
        recorded: list[f.Frame] = [
            f.Fleet(document.body, document.signature),
            f.ReceiptFrame(receipt.body, receipt.signature),
            f.Cert(self.certificates["siti"].der),
            *(f.BundleFrame(3600 + at, bundle) for at, bundle in enumerate(parts)),
        ]
        return write_head(self.fleet) + b"".join(map(f.encode, recorded))


def _number(digest: bytes) -> int:
    return int.from_bytes(digest, "big")


def finished_ledger(world: World) -> Ledger:
    """A ledger with three finished journals."""
    ledger = Ledger(DeviceId(bytes(16)))
    for at in range(3):
        journal = JournalId(
            hashlib.sha256(b"finished %d" % (at // 2)).digest()[: 15 + at % 2].ljust(16, b"\0")
        )
        serial = next_serial(0, bytes([at]) * 8)
        ledger.apply(issue_receipt(world.office, world.endpoint, journal, serial, Ranges.single(1), 0), 0.0)
    return ledger


def kept_payloads(folder: Path) -> dict[bytes, bytes]:
    """The sealed payloads that the vectors in this folder hold, by their `info`."""
    kept: dict[bytes, bytes] = {}
    path = folder / "bundles.json"
    if path.exists():
        for row in json.loads(path.read_text()):
            if "payload" in row:
                kept[bytes.fromhex(row["info"])] = bytes.fromhex(row["payload"])
    path = folder / STICK
    if path.exists():
        for frame in FrameReader().feed(path.read_bytes()[HEAD_SIZE:]):
            if isinstance(frame, f.BundleFrame):
                kept[frame.bundle.header.info] = frame.bundle.payload
    return kept

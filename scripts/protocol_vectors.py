"""The test vectors of the protocol, as JSON: what goes in and what comes out. They are made from `protocol_world`."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Final

from protocol_world import STICK, World, finished_ledger, seed

from meshnode.core import frames as f
from meshnode.core.fields import pack, unpack
from meshnode.core.identity import DeviceId
from meshnode.core.intervals import NONE, Ranges
from meshnode.core.ledger import Ledger, digest_bytes, digest_total
from meshnode.core.limits import NUMBER_MAX
from meshnode.core.sealing import SEAL_OVERHEAD
from meshnode.core.stick import HEAD_SIZE
from meshnode.core.submitting import message_key
from meshnode.drivers import probe
from meshnode.drivers.dnssd.announcement import Announcement, text_of

NOTE: Final = "TEST KEYS. Their seeds are public: never use one of them in a fleet."

Json = dict[str, Any]


def plain(value: object) -> object:
    """A msgpack value as JSON: byte strings become 0x..."""
    if isinstance(value, bytes):
        return f"0x{value.hex()}"
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value


def says(data: bytes) -> object:
    """What msgpack bytes say, as JSON."""
    return plain(unpack(data, "vector"))


def _keys(world: World) -> Json:
    signing = {"authority": world.authority, "office endpoint": world.office}
    signing.update({f"device {name}": key for name, key in world.devices.items()})
    return {
        "note": NOTE,
        "signing": [
            {
                "name": name,
                "seed": seed(name).hex(),
                "public": key.public.raw.hex(),
                "id": key.public.id.hex(),
            }
            for name, key in signing.items()
        ],
        "sealing": [
            {
                "name": f"sealing {name}",
                "seed": key.seed.hex(),
                "public": key.public.raw.hex(),
                "key_id": key.public.key_id.hex(),
            }
            for name, key in world.sealing.items()
        ],
    }


def _certificates(world: World) -> list[Json]:
    rows: list[Json] = [
        {"name": world.fleet_name, "role": None, "id": world.fleet.hex(), "der": world.authority_der.hex()}
    ]
    rows.extend(
        {"name": each.name, "role": each.role, "id": each.device.hex(), "der": each.der.hex()}
        for each in world.certificates.values()
    )
    return rows


def _documents(world: World) -> Json:
    documents = [
        {
            "version": each.version,
            "file": each.to_file().hex(),
            "body": each.body.hex(),
            "signature": each.signature.hex(),
            "says": says(each.body),
        }
        for each in world.documents
    ]
    *asked, welcome = world.papers()
    requests = [
        {"file": file.hex(), "says": says(_body(file)), "device": world.devices[name].public.id.hex()}
        for file, name in zip(asked, ("siti", "kantor"), strict=True)
    ]
    device = world.certificates["siti"].device.hex()
    told = {"file": welcome.hex(), "device": device, "version": 1}
    return {"documents": documents, "requests": requests, "welcomes": [told]}


def _body(file: bytes) -> bytes:
    body = unpack(file, "vector")[0]
    assert isinstance(body, bytes)
    return body


def _bundles(world: World) -> list[Json]:
    rows = []
    for name, bundle in world.bundles.items():
        header = bundle.header
        row = {
            "name": name,
            "header": bundle.header_bytes.hex(),
            "signature": bundle.signature.hex(),
            "says": says(bundle.header_bytes),
            "journal": header.journal.hex(),
            "key": message_key(header.journal, header.first),
            "info": header.info.hex(),
        }
        opened_by = [key for key in world.sealing.values() if key.public.key_id == header.recipient_key]
        if name.startswith("part"):
            row["payload_in"] = STICK
        else:
            row["payload"] = bundle.payload.hex()
        if opened_by:
            plaintext = opened_by[0].open(bundle.payload, header.info)
            row["opens_with"] = opened_by[0].seed.hex()
            row["plaintext_sha256"] = hashlib.sha256(plaintext).hexdigest()
            if header.parts == 1:
                size = int.from_bytes(plaintext[:4], "big")
                row["plaintext"], row["manifest"] = plaintext.hex(), says(plaintext[4 : 4 + size])
        rows.append(row)
    return rows


def _receipts(world: World) -> list[Json]:
    return [
        {
            "name": name,
            "by": receipt.endpoint.hex(),
            "journal": receipt.journal.hex(),
            "body": receipt.body.hex(),
            "signature": receipt.signature.hex(),
            "says": says(receipt.body),
        }
        for name, receipt in world.receipts.items()
    ]


def _frames(world: World) -> list[Json]:
    return [
        {"name": name, "frame": f.encode(frame).hex(), "says": says(f.encode(frame)[4:])}
        for name, frame in world.frames()
    ]


def _digests(world: World) -> list[Json]:
    rows = []
    for ledger in (Ledger(DeviceId(bytes(16))), finished_ledger(world)):
        buckets = ledger.digest_buckets(())
        rows.append(
            {
                "journals": [[each.id.hex(), each.serial] for each in ledger.journals.values()],
                "buckets": {f"{at:02x}": digest_bytes([it])[0].hex() for at, it in enumerate(buckets) if it},
                "total": digest_bytes([digest_total(buckets)])[0].hex(),
            }
        )
    return rows


def _ranges() -> list[Json]:
    sets = (NONE, Ranges.single(1), Ranges([(1, 57), (60, 60)]), Ranges([(NUMBER_MAX - 1, NUMBER_MAX)]))
    return [{"numbers": str(it), "packed": pack(it.to_wire()).hex(), "says": it.to_wire()} for it in sets]


def _datagrams(world: World) -> Json:
    rows = []
    for name, asks in (("siti", True), ("budi", False)):
        said = probe.Probe(world.fleet, world.devices[name].public.id, 7766, asks=asks)
        told = {"asks": asks, "fleet": said.fleet.hex(), "device": said.device.hex(), "port": said.port}
        rows.append({"datagram": probe.encode(said).hex(), "says": told})
    announcement = Announcement(world.fleet, world.siti, ("officer",), False, 7766)
    text = text_of(announcement, "0badcafe")
    packed = b"".join(bytes([len(pair)]) + pair for pair in (f"{k}={v}".encode() for k, v in text.items()))
    return {"datagrams": rows, "txt": [{"txt": packed.hex(), "says": text}]}


def _stick(world: World) -> Json:
    data = world.stick()
    rows, at = [], HEAD_SIZE
    while at < len(data):
        size = 4 + int.from_bytes(data[at : at + 4], "big")
        rows.append({"offset": at, "size": size, "kind": data[at + 5]})
        at += size
    one, two = world.bundles["part 1 of 2"], world.bundles["part 2 of 2"]
    key = world.sealing["office"]
    stream = key.open(one.payload, one.header.info) + key.open(two.payload, two.header.info)
    size = int.from_bytes(stream[:4], "big")
    return {
        "file": STICK,
        "sha256": hashlib.sha256(data).hexdigest(),
        "fleet": world.fleet.hex(),
        "frames": rows,
        "message": {
            "key": message_key(one.header.journal, one.header.first),
            "opens_with": key.seed.hex(),
            "manifest": says(stream[4 : 4 + size]),
            "files_sha256": [hashlib.sha256(stream[4 + size :]).hexdigest()],
        },
    }


def _refused(world: World) -> list[Json]:
    """What a reader must not take."""
    header = unpack(world.bundles["one part"].header_bytes, "vector")
    hello = unpack(f.encode(next(frame for name, frame in world.frames() if name == "HELLO"))[4:], "vector")
    der = world.certificates["siti"].der

    def put(items: list[Any], at: int, value: object) -> bytes:
        return pack([*items[:at], value, *items[at + 1 :]])

    cases: list[tuple[str, bytes, str]] = [
        ("header", put(header, 0, 2), "another version"),
        ("header", put(header, 5, 0), "numbers begin with 1"),
        ("header", put(header, 6, 2), "part 2 of the bundle with number 1"),
        ("header", put(header, 7, 0), "no parts"),
        ("header", put(header, 5, True), "a bool is no number"),
        ("header", put(header, 8, 2), "no such priority"),
        ("header", put(header, 11, [bytes(16), 0]), "previous ended before it began"),
        (
            "header",
            pack([*header[:5], 2, *header[6:11], [bytes(16), 1], *header[12:]]),
            "previous, not in bundle 1",
        ),
        ("header", put(header, 12, SEAL_OVERHEAD - 1), "too short to be sealed"),
        ("header", pack(header) + b"\0", "a byte after its end"),
        ("header", pack(header[:-1]), "an item is missing"),
        ("device certificate", der[:-1], "cut off"),
        ("device certificate", der + b"\0", "a byte after its end"),
        ("device certificate", world.authority_der, "the authority is no device"),
        ("ranges", pack([1, 5, 6, 9]), "they touch"),
        ("ranges", pack([5, 1]), "backwards"),
        ("ranges", pack([7, 7, 1, 2]), "not ascending"),
        ("ranges", pack([0, 1]), "numbers begin with 1"),
        ("ranges", pack([1, NUMBER_MAX + 1]), "beyond the largest number"),
        ("ranges", pack([1]), "half a range"),
        ("frame", pack([15]), "no such kind"),
        ("frame", pack([]), "no kind"),
        ("frame", pack([9, 0]), "PING says nothing"),
        ("frame", put(hello, 4, ["boss"]), "no such role"),
        ("frame", put(hello, 2, 0), "versions backwards"),
        ("frame", put(hello, 8, 1), "a number is no bool"),
        ("frame", pack([12, [bytes(8)] * 2]), "neither 1 nor 256 digests"),
        ("frame", pack([14, 8, 0.5]), "nothing, and yet of worth"),
        ("frame", pack([14, 2, -1.0]), "worth less than nothing"),
        ("frame", pack([14, 2, 1]), "a whole number is no float"),
        ("frame", b"\x92\x0b\xa2\xff\xfe", "text that is not UTF-8"),
        ("frame", b"\x92\x0b\x80", "a map"),
        ("frame", pack([11, "x" * 201]), "a reason of 201 bytes"),
        ("datagram", probe.encode(probe.Probe(bytes(16), bytes(16), 0)), "port 0"),
        ("datagram", probe.encode(probe.Probe(bytes(16), bytes(16), 1))[:-1], "44 bytes"),
        ("stick", b"MESHNODE\2" + bytes(16), "another version of the format"),
        ("stick", b"MESHNODE\1" + bytes(15), "not its whole head"),
    ]
    return [{"kind": kind, "bytes": data.hex(), "why": why} for kind, data, why in cases]


def vectors(world: World) -> dict[str, bytes]:
    """The files by name."""
    told: dict[str, object] = {
        "keys": _keys(world),
        "certificates": _certificates(world),
        "documents": _documents(world),
        "bundles": _bundles(world),
        "receipts": _receipts(world),
        "frames": _frames(world),
        "digests": _digests(world),
        "ranges": _ranges(),
        "datagrams": _datagrams(world),
        "stick": _stick(world),
        "refused": _refused(world),
    }
    files = {f"{name}.json": (json.dumps(it, indent=1) + "\n").encode() for name, it in told.items()}
    return {**files, STICK: world.stick()}

"""Checks the test vectors with the second reader. Nothing of meshnode is used here either."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import msgpack
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from decode_forms import Refused, first, need, plain, ranges, unpack
from decode_reader import Reader, bodies, buckets, datagram, txt

Row = dict[str, Any]


def _same(one: object, other: object, what: str) -> None:
    need(one == other, f"{what}: {one!r} is not {other!r}")


def trusting(folder: Path) -> Reader:
    """A reader that trusts the test authority, knows all devices and offices of the vectors, and opens all."""
    reader = Reader()
    for row in _rows(folder, "certificates"):
        reader.certificate(bytes.fromhex(row["der"]))
    for row in _rows(folder, "documents")["documents"]:
        reader.document(bytes.fromhex(row["body"]), bytes.fromhex(row["signature"]))
    for row in _rows(folder, "keys")["sealing"]:
        reader.open_with(bytes.fromhex(row["seed"]))
    return reader


def _rows(folder: Path, name: str) -> Any:
    return json.loads((folder / f"{name}.json").read_text())


def _keys(reader: Reader, rows: Row) -> Iterator[str]:
    for row in rows["signing"]:
        key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(row["seed"])).public_key().public_bytes_raw()
        _same((key.hex(), first(16, key).hex()), (row["public"], row["id"]), row["name"])
        yield row["name"]
    for row in rows["sealing"]:
        _same(first(8, bytes.fromhex(row["public"])).hex(), row["key_id"], row["name"])
        need(bytes.fromhex(row["key_id"]) in reader.seals, f"{row['name']}: its seed gives another key")
        yield row["name"]


def _certificates(reader: Reader, rows: list[Row]) -> Iterator[str]:
    for row in rows:
        said = reader.certificate(bytes.fromhex(row["der"]))
        _same(said["id"].hex(), row["id"], row["name"])
        _same(said.get("role"), row["role"], row["name"])
        yield row["name"]


def _documents(reader: Reader, rows: Row) -> Iterator[str]:
    for row in rows["documents"]:
        said = reader.file(bytes.fromhex(row["file"]))
        need(said.pop("verified"), "document is not verified")
        _same(plain(list(said.values())), row["says"], "document")
        yield f"version {row['version']}"
    for row in rows["requests"]:
        _same(reader.file(bytes.fromhex(row["file"]), "request")["id"].hex(), row["device"], "request")
        yield "request"
    for row in rows["welcomes"]:
        said = reader.file(bytes.fromhex(row["file"]), "welcome")
        _same(
            (said["certificate"]["id"].hex(), said["document"]["version"]),
            (row["device"], row["version"]),
            "welcome",
        )
        yield "welcome"


def _bundles(reader: Reader, rows: list[Row]) -> Iterator[str]:
    for row in rows:
        header, signature = bytes.fromhex(row["header"]), bytes.fromhex(row["signature"])
        _same(plain(list(reader.header(header).values())), row["says"], row["name"])
        if "payload" in row:
            said = reader.bundle(header, signature, bytes.fromhex(row["payload"]))
            need(said["verified"], f"{row['name']} is not verified")
            _same((said["journal"].hex(), said["key"]), (row["journal"], row["key"]), row["name"])
            if "opens_with" in row:
                _same(
                    (said["info"].hex(), said["plaintext_sha256"]),
                    (row["info"], row["plaintext_sha256"]),
                    "opened",
                )
                _same(plain(said["message"]["manifest"]), row["manifest"], row["name"])
        yield row["name"]


def _receipts(reader: Reader, rows: list[Row]) -> Iterator[str]:
    for row in rows:
        said = reader.receipt(bytes.fromhex(row["body"]), bytes.fromhex(row["signature"]))
        need(said.pop("verified"), "receipt is not verified")
        _same(plain(list(said.values())), row["says"], row["name"])
        yield row["name"]


def _frames(reader: Reader, rows: list[Row]) -> Iterator[str]:
    for row in rows:
        data = bytes.fromhex(row["frame"])
        (body,) = bodies(data)
        (said,) = reader.frames(data)
        need(row["name"].startswith(said["frame"]), f"{row['name']} is {said['frame']}")
        _same(plain(unpack(body, row["name"])), row["says"], row["name"])
        need(
            msgpack.packb(unpack(body, row["name"])) == body, f"{row['name']} is not in its shortest encoding"
        )
        yield row["name"]


def _digests(_: Reader, rows: list[Row]) -> Iterator[str]:
    for row in rows:
        out = buckets([(bytes.fromhex(journal), serial) for journal, serial in row["journals"]])
        _same({f"{at:02x}": f"{it:016x}" for at, it in enumerate(out) if it}, row["buckets"], "buckets")
        total = 0
        for it in out:
            total ^= it
        _same(f"{total:016x}", row["total"], "total")
        yield row["total"]


def _ranges(_: Reader, rows: list[Row]) -> Iterator[str]:
    for row in rows:
        it = unpack(bytes.fromhex(row["packed"]), "ranges")
        need(ranges(it), row["numbers"])
        _same(it, row["says"], row["numbers"])
        yield row["numbers"]


def _datagrams(_: Reader, rows: Row) -> Iterator[str]:
    for row in rows["datagrams"]:
        _same(datagram(bytes.fromhex(row["datagram"])), row["says"], "datagram")
        yield row["datagram"]
    for row in rows["txt"]:
        _same(txt(bytes.fromhex(row["txt"])), row["says"], "TXT record")
        yield row["txt"]


def _refused(reader: Reader, rows: list[Row]) -> Iterator[str]:
    kinds: dict[str, Callable[[bytes], object]] = {
        "header": reader.header,
        "device certificate": lambda data: need("role" in reader.certificate(data), "no role"),
        "frame": reader.frame,
        "datagram": datagram,
        "stick": lambda data: list(reader.stick(data)),
        "ranges": lambda data: need(ranges(unpack(data, "ranges")), "ranges"),
    }
    for row in rows:
        try:
            kinds[row["kind"]](bytes.fromhex(row["bytes"]))
        except Refused:
            yield row["why"]
        else:
            raise Refused(f"{row['kind']} was taken, though: {row['why']}")


def _stick(reader: Reader, row: Row, folder: Path) -> Iterator[str]:
    data = (folder / row["file"]).read_bytes()
    _same(hashlib.sha256(data).hexdigest(), row["sha256"], "stick")
    said = list(reader.stick(data))
    sizes, at = [], 25
    for body in bodies(data[25:]):
        sizes.append({"offset": at, "size": 4 + len(body), "kind": body[1]})
        at += 4 + len(body)
    _same(sizes, row["frames"], "stick")
    told, opened = row["message"], said[-1]["message"]
    _same(said[-1]["key"], told["key"], "stick")
    _same(
        (plain(opened["manifest"]), opened["files_sha256"]),
        (told["manifest"], told["files_sha256"]),
        "message",
    )
    yield from (it["frame"] for it in said)


def check_vectors(folder: Path) -> int:
    """How many there are. Raises Refused for the first that is not right."""
    checks = {
        "keys": _keys,
        "certificates": _certificates,
        "documents": _documents,
        "bundles": _bundles,
        "receipts": _receipts,
        "frames": _frames,
        "digests": _digests,
        "ranges": _ranges,
        "datagrams": _datagrams,
        "refused": _refused,
    }
    count = 0
    for name, check in checks.items():
        each = cast(Callable[[Reader, Any], Iterator[str]], check)
        count += sum(1 for _ in each(trusting(folder), _rows(folder, name)))
    return count + sum(1 for _ in _stick(trusting(folder), _rows(folder, "stick"), folder))


#: So many bytes of one long byte string are flipped, evenly spread; of a shorter one each.
FLIPPED_MAX = 2048


def check_flips(reader: Reader) -> int:
    """Flip a bit of each byte of all that the reader has verified; how many. Raises Refused if one is not refused."""
    count = 0
    for read, data in list(reader.signed):
        for at, whole in enumerate(data):
            for place in range(0, len(whole), 1 + len(whole) // FLIPPED_MAX):
                flipped = bytearray(whole)
                flipped[place] ^= 1 << place % 8
                try:
                    read(*data[:at], bytes(flipped), *data[at + 1 :])
                except Refused:
                    count += 1
                else:
                    raise Refused(f"{read.__name__} has taken byte {place} flipped")
    return count

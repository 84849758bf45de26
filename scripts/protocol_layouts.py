"""The layouts of docs/protocol.md, as meshnode's own readers tell them, and examples byte by byte.

Nothing here knows a type or a bound: `recorded` reads the test vectors with the readers of meshnode.core, and notes
what each of them asks of `fields.Reader`. Only what a field means is written here, and one that nobody has explained,
or that is not there any more, is an error.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Final
from unittest.mock import patch

import msgpack
from protocol_world import World

from meshnode.core import frames
from meshnode.core.bundle import read_header
from meshnode.core.fields import Reader
from meshnode.core.fleet import read_document_file, read_request, read_welcome
from meshnode.core.limits import NUMBER_MAX
from meshnode.core.message import read_manifest
from meshnode.core.receipt import read_receipt

#: What each field means, by layout. A layout is named by what its reader calls it, and how many items it has.
MEANINGS: Final[dict[str, dict[str, str]]] = {
    "document 2": {"body": "the next table, as msgpack", "signature": "the authority's, over the body"},
    "document 7": {
        "version of the format": "",
        "fleet": "fleet id",
        "version": "the higher one wins",
        "name": "of the fleet",
        "endpoints": "the table after this one",
        "revoked": "device ids of 16 bytes, ascending",
        "policy": "the last table",
    },
    "document.endpoints[] 4": {
        "id": "endpoint id",
        "sealing_keys": "public keys of 1,216 bytes, the newest first, at least one",
        "signing_key": "Ed25519 public key",
        "addresses": "text, HOST:PORT",
    },
    "document.policy 1": {"lifetime_s": "that bundles get unless somebody says otherwise"},
    "request 2": {"body": "the next table, as msgpack", "signature": "the device's own, over the body"},
    "request 6": {
        "version": "",
        "name": "of the device",
        "role": "one of officer, gateway, office",
        "key": "the device's public key",
        "endpoint_signing_key": "an office: 32 bytes; else empty",
        "sealing_key": "an office: 1,216 bytes; else empty",
    },
    "welcome 2": {"body": "the next table, as msgpack", "signature": "the authority's, over the body"},
    "welcome 5": {
        "version": "",
        "authority": "its certificate, DER",
        "certificate": "the device's, DER",
        "document": "body of the fleet document of that day",
        "document signature": "its signature",
    },
    "header 14": {
        "version": "",
        "source": "device id of who signs",
        "destination": "endpoint id, or EVERYONE",
        "recipient_key": "sealing key id",
        "epoch": "of the source's process",
        "number": "in the journal",
        "part": "of the message, not more than number",
        "parts": "of the message, not less than part",
        "priority": "0 urgent, 1 routine",
        "created_ms": "when the message was submitted, by the source's clock",
        "lifetime_s": "when its age exceeds this, others may discard it",
        "previous": "",
        "payload_size": "bytes",
        "payload_sha256": "",
    },
    "header.previous 2": {"journal": "journal id", "last": "its last number"},
    "manifest 6": {
        "version": "",
        "kind": "what it is, for the registry",
        "meta": "key and value, no key twice",
        "reference": "the officer's own words",
        "submitted_ms": "by the source's clock",
        "files": "the table after the next",
    },
    "manifest.meta[] 2": {"key": "", "value": ""},
    "manifest.files[] 3": {"name": "bare name", "size": "bytes", "type": "media type, a guess"},
    "receipt 6": {
        "version": "1: by an office",
        "endpoint": "endpoint id of who signs",
        "journal": "journal id",
        "serial": "see below",
        "ranges": "delivered",
        "issued_ms": "by the endpoint's clock",
    },
    "receipt 8": {
        "version": "2: by a device",
        "endpoint": "device id of who signs",
        "journal": "journal id",
        "serial": "see below",
        "ranges": "delivered",
        "issued_ms": "by the device's clock",
        "source": "device id of who wrote the journal",
        "epoch": "of the journal",
    },
    "HELLO 11": {
        "version_min": "lowest version spoken",
        "version_max": "highest, not below version_min",
        "name": "of the device",
        "roles": "text, each one of officer, gateway, office",
        "port": "TCP port at which this node listens, 0 if it does not",
        "fleet_version": "of its fleet document",
        "wall_ms": "its wall clock, informative",
        "uplink": "whether it can reach an office now, or is one",
        "free_bytes": "room for bundles of others",
        "away_s": "expected time to an office; 0 there, the largest if unknown",
    },
    "FLEET 3": {"body": "of the fleet document", "signature": "the authority's"},
    "HAVE 3": {"whole": "the last frame of the complete list", "journals": "the next table"},
    "HAVE.journals[] 4": {
        "journal": "journal id",
        "ranges": "held and not receipted",
        "serial": "of the newest receipt known, 0 for none",
        "ends": "the journal goes to the sender",
    },
    "RECEIPT 3": {"body": "section 9", "signature": "the endpoint's"},
    "CERT 2": {"der": "a device certificate"},
    "WANT 3": {"credit": "payload bytes since the contact began", "journals": "the next table"},
    "WANT.journals[] 4": {
        "journal": "journal id",
        "ranges": "to be sent",
        "dropped": "not to be sent after all",
        "known": "the source's certificate is here",
    },
    "BUNDLE 5": {
        "age_s": "section 12",
        "header": "section 5, as it was signed",
        "signature": "the source's",
        "payload": "section 6",
    },
    "STORED 2": {"journals": "the next table"},
    "STORED.journals[] 3": {
        "journal": "journal id",
        "ranges": "durable here now",
        "ends": "the journal goes to the sender",
    },
    "PING 1": {},
    "PONG 1": {},
    "BYE 2": {"reason": "a sentence"},
    "FINISHED 2": {"buckets": "1 digest or 256, of 8 bytes each"},
    "HEARD 2": {"devices": "the next table"},
    "HEARD.devices[] 3": {
        "device": "device id",
        "away_s": "its expected time to an office",
        "journals": "the last table",
    },
    "HEARD.devices[].journals[] 2": {"journal": "journal id", "ranges": "held there"},
    "NEXT 3": {"class": "0 is best, 8: nothing comes", "worth": "not negative; 0 in class 8"},
}
#: Read by codecs of their own.
RAW: Final = {"ranges": "ranges", "dropped": "ranges", "previous": "nil, or array of 2"}
CONSTANT: Final = ("version", "version of the format")


def number(value: int) -> str:
    """A whole number, as a power of two where it is one and large."""
    for power in range(20, 64):
        for less, text in ((0, f"2^{power}"), (1, f"2^{power}-1")):
            if value == 2**power - less:
                return text
    return str(value)


@dataclass(slots=True)
class Layout:
    """One array: its fields in order, name and type. `kind`: of a frame."""

    name: str
    count: int
    fields: dict[str, str] = field(default_factory=dict)


@contextlib.contextmanager
def _recording() -> Iterator[dict[str, Layout]]:
    """What is asked of each Reader in the block."""
    seen: dict[str, Layout] = {}

    def layout(reader: Any) -> Layout:
        name = re.sub(r"\[\d+\]", "[]", reader._what)
        key = f"{name} {len(reader._items)}"
        return seen.setdefault(key, Layout(name, len(reader._items)))

    def record(method: str, tell: Callable[..., str]) -> Any:
        original = getattr(Reader, method)

        def wrapped(self: Any, name: str, *words: Any) -> Any:
            said = layout(self).fields
            said.setdefault(name, tell(name, *words))
            return original(self, name, *words)

        return patch.object(Reader, method, wrapped)

    def made(self: Any, items: list[Any], what: str, count: int) -> None:
        original_init(self, items, what, count)
        layout(self)

    def octets(_: str, least: int, most: int | None = None) -> str:
        return f"bin, {least}" if most in (None, least) else f"bin, {least} to {number(most or 0)}"

    def whole(_: str, least: int, most: int) -> str:
        return f"{least}" if least == most else f"{number(least)} to {number(most)}"

    def rows(_: str, most: int, count: int, __: object) -> str:
        return f"at most {number(most)} arrays of {count}"

    def text(_: str, most: int) -> str:
        return f"str, at most {number(most)} bytes"

    def items(_: str, most: int) -> str:
        return f"array of at most {number(most)}"

    methods: dict[str, Callable[..., str]] = {
        "whole": whole,
        "octets": octets,
        "real": lambda _: "float 64, finite, not negative",
        "text": text,
        "flag": lambda _: "bool",
        "items": items,
        "raw": RAW.__getitem__,
        "each": rows,
    }
    original_init = Reader.__init__
    with contextlib.ExitStack() as stack:
        stack.enter_context(patch.object(Reader, "__init__", made))
        for method, tell in methods.items():
            stack.enter_context(record(method, tell))
        yield seen


def recorded(world: World) -> dict[str, Layout]:
    """Every layout, read off the readers."""
    authority = world.authority.public
    with _recording() as seen:
        read_document_file(world.documents[1].to_file(), authority)
        *requests, welcome = world.papers()
        for data in requests[::-1]:  # the office's first: its keys have a size
            read_request(data)
        read_welcome(welcome)
        widest = replace(world.bundles["one part"].header, number=NUMBER_MAX)
        read_header(widest.encode())  # the bound of its part follows from its number
        for bundle in world.bundles.values():
            read_header(bundle.header_bytes)
        read_manifest(world.manifest()[4:])
        for receipt in world.receipts.values():
            read_receipt(receipt.body, receipt.signature)
        hello = frames.Hello("", (), 0, 0, 0, False, 0, version_min=0)
        for frame in (hello, *(frame for _, frame in world.frames())):
            frames.decode(frames.encode(frame)[4:])
    return seen


def kinds() -> Iterator[tuple[int, str, list[str]]]:
    """Each kind of frame: number, name, names of its items."""
    for kind, (name, count, _) in frames._KINDS.items():
        yield kind, name, [*MEANINGS[f"{name} {count}"]]


def table(layouts: dict[str, Layout], key: str) -> Iterator[str]:
    """A layout as Markdown."""
    layout, meanings = layouts[key], MEANINGS[key]
    of_kind = {name: kind for kind, name, _ in kinds()}
    has_kind = layout.name in of_kind
    told = dict(layout.fields)
    if has_kind:
        del told["kind"]
    if list(told) != list(meanings):
        raise ValueError(f"{key}: the fields are {list(told)}, explained are {list(meanings)}")
    yield f"`{layout.name}`, array of {layout.count}:\n"
    yield "| | field | type and range | |"
    yield "| ---: | --- | --- | --- |"
    if has_kind:
        yield f"| 0 | kind | {of_kind[layout.name]} | |"
    for at, (name, kind_told) in enumerate(told.items()):
        yield f"| {at + has_kind} | {name.replace(' ', '_')} | {kind_told} | {meanings[name]} |"
    yield ""


# --- byte by byte -----------------------------------------------------------------------------------------------

_SHOWN: Final = 12
_LINES_MAX: Final = 16


def _hex(data: bytes) -> str:
    shown = data[:_SHOWN].hex(" ")
    return shown if len(data) <= _SHOWN else f"{shown} ..."


def line(data: bytes, says: str) -> str:
    """Some bytes, and what they say."""
    return f"    {_hex(data):<40}{says}"


def _told(value: object) -> str:
    match value:
        case bytes():
            return f"{len(value)} bytes"
        case str():
            return f'"{value}"' if len(value) < 48 else f"text of {len(value.encode())} bytes"
        case None:
            return "nil"
        case bool():
            return "true" if value else "false"
    return str(value)


def _names(path: str, count: int) -> list[str]:
    """Of the fields of an array, if that is a layout."""
    names = MEANINGS.get(f"{path} {count}")
    if names is None:
        return []
    return ["kind", *names] if len(names) < count else [*names]


def annotated(data: bytes, path: str = "", depth: int = 0) -> Iterator[str]:
    """A msgpack array, an item a line. `path`: what its layout is called."""
    unpacker = msgpack.Unpacker(raw=False)
    unpacker.feed(data)
    count = unpacker.read_array_header()
    at = unpacker.tell()
    yield line(data[:at], f"{'  ' * depth}array of {count}")
    names = _names(path, count)
    for place in range(count):
        value = unpacker.unpack()
        end = unpacker.tell()
        name = names[place] if names else ""
        if isinstance(value, list) and value:
            inner = list(annotated(data[at:end], f"{path}.{name}" if name else f"{path}[]", depth + 1))
            inner[0] += f": {name}" if name else ""
            yield from inner[:_LINES_MAX]
            if len(inner) > _LINES_MAX:
                yield f"    {'':<40}{'  ' * (depth + 1)}and so on"
        else:
            told = "array of 0" if isinstance(value, list) else _told(value)
            yield line(data[at:end], f"{'  ' * (depth + 1)}{f'{name}: ' if name else ''}{told}")
        at = end


def framed(data: bytes, name: str) -> Iterator[str]:
    """A frame, an item a line."""
    yield line(data[:4], f"length: {len(data) - 4}")
    yield from annotated(data[4:], name)

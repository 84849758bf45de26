"""Writes what stands between marks in docs/protocol.md, and the test vectors, from the code.

scripts/protocol             write them
scripts/protocol --check     say whether they are up to date

A mark is a comment `scripts/protocol: NAME`; the text around the marks is written by hand and stays as it is.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

from protocol_layouts import annotated, framed, kinds, line, number, recorded, table
from protocol_states import contact_states, message_states, transcript
from protocol_vectors import vectors
from protocol_world import EPOCHS, STICK, World, finished_ledger, kept_payloads

from meshnode.app import received
from meshnode.app.stick import END
from meshnode.core import dialing, fleet, frames, identity, introducing, limits, message, sealing, stick
from meshnode.core.fields import pack
from meshnode.core.intervals import Ranges
from meshnode.core.ledger import digest_bytes, digest_total
from meshnode.drivers import probe
from meshnode.drivers.dnssd.announcement import TYPE, Announcement, text_of

ROOT: Final = Path(__file__).resolve().parents[1]
PAGE: Final = ROOT / "docs" / "protocol.md"
VECTORS: Final = ROOT / "tests" / "vectors"
_MARK: Final = re.compile(r"(<!-- scripts/protocol: ([^>]+) -->\n).*?(<!-- end -->)", re.DOTALL)

#: What a peer must keep to, or may rely on.
LIMITS: Final = {
    "PAYLOAD_SIZE_MAX": "sealed payload of one bundle",
    "MESSAGE_SIZE_MAX": "files of one message together",
    "PARTS_MAX": "bundles of one message",
    "MANIFEST_SIZE_MAX": "manifest, before sealing",
    "FILES_MAX": "files of one message",
    "FILE_NAME_SIZE_MAX": "a file's name",
    "KIND_SIZE_MAX": "a message's kind",
    "REFERENCE_SIZE_MAX": "a message's reference",
    "HEADER_SIZE_MAX": "a bundle's header",
    "CERTIFICATE_SIZE_MAX": "a certificate",
    "DOCUMENT_SIZE_MAX": "body of a fleet document",
    "ENDPOINTS_MAX": "endpoints of a fleet",
    "ADDRESSES_MAX": "addresses of an endpoint",
    "REVOKED_MAX": "revoked devices",
    "NAME_SIZE_MAX": "a device's or a fleet's name",
    "NUMBER_MAX": "numbers in a journal",
    "RANGES_MAX": "ranges in one set",
    "FRAME_SIZE_MAX": "body of a frame",
    "JOURNALS_PER_FRAME": "rows of journals in one frame",
    "ITEMS_MAX": "items of any one array",
    "LIFETIME_S_MAX": "what a source may ask for",
    "AWAY_S_MAX": "the longest way that can be told; it means unknown",
    "HANDSHAKE_S": "for TLS, and again for HELLO",
    "PING_AFTER_S": "of own silence, then PING is due",
    "DEAD_AFTER_S": "without a byte from the peer, then the contact is over",
    "DUPLICATE_WINDOW_S": "two contacts that opened within it came from both sides dialling",
    "PEER_JOURNALS_MAX": "journals on offer in one contact",
    "PEER_RANGES_MAX": "ranges on offer in one contact",
    "DEVICE_JOURNALS_MAX": "journals that one device may sign for",
    "DEVICE_RANGES_MAX": "ranges in a device's receipt",
    "ASKED_AGAIN_MAX": "numbers asked for again, or taken back, besides twice what is held",
    "ASKED_AGAIN_PER_S": "of these forgiven in a second",
    "SHUN_S": "after a fault no contact with that device",
    "CONTACTS_MAX": "contacts of one node at once",
    "HEARD_MAX": "journal rows of HEARD that are sent in one contact",
    "HEARD_RANGES_MAX": "ranges in each of them",
    "HOLD_S": "that the one with the lesser bundle waits",
}
#: What each node chooses for itself.
CHOICES: Final = {
    "CREDIT_BYTES": "granted beyond what is settled",
    "STALL_S": "what is owed for so long without a bundle is asked of others",
    "HUSH_S": "and so if nothing at all was heard for so long",
    "LIFETIME_S": "of a bundle, unless the document says otherwise",
    "KEEP_RECEIPTED_S": "own bundles are kept after their receipt",
    "BACKOFF_FIRST_S": "first pause after a dial that failed",
    "BACKOFF_MAX_S": "longest pause",
    "BACKOFF_REMEMBERED_MAX_S": "longest pause, of an address that is only remembered",
    "POLITE_S": "that the device with the higher id waits before it dials",
    "DIAL_TIMEOUT_S": "for TCP",
    "DIALLED_MAX": "contacts in a crowd that one device dials",
    "FOREIGN_QUOTA_BYTES": "carried for others",
}


def _amount(name: str, value: float) -> str:
    if name.endswith(("_S", "_S_MAX")):
        days, rest = divmod(value, 86400)
        return f"{value:g} s" + (f" ({days:g} days)" if days >= 1 and not rest else "")
    if "SIZE" in name or "BYTES" in name:
        return f"{number(int(value))} bytes"
    return number(int(value))


def _limits(chosen: dict[str, str]) -> Iterator[str]:
    yield "| constant | value | of what |"
    yield "| --- | ---: | --- |"
    for name, what in chosen.items():
        yield f"| `{name}` | {_amount(name, getattr(limits, name))} | {what} |"


def _kinds() -> Iterator[str]:
    yield "| kind | name | body |"
    yield "| ---: | --- | --- |"
    for kind, name, items in kinds():
        yield f"| {kind} | {name} | `[{', '.join([str(kind), *items])}]` |"


def _block(title: str, lines: Iterable[str]) -> Iterator[str]:
    yield f"{title}\n"
    yield from lines
    yield ""


class Page:
    """What stands between the marks."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._layouts = recorded(world)
        self._frames = dict(world.frames())

    def parts(self) -> dict[str, Callable[[], Iterable[str]]]:
        """How to write each of them."""
        parts: dict[str, Callable[[], Iterable[str]]] = {
            "ranges": self._ranges,
            "identities": self._identities,
            "certificates": self._certificates,
            "document": self._document,
            "papers": lambda: self._tables("request 2", "request 6", "welcome 2", "welcome 5"),
            "header": self._header,
            "sealing": self._sealing,
            "manifest": self._manifest,
            "introduction": self._introduction,
            "receipt": self._receipt,
            "message states": message_states,
            "frames": _kinds,
            "contact states": contact_states,
            "transcript": transcript,
            "digests": self._digests,
            "txt": self._txt,
            "datagrams": self._datagram,
            "stick": self._stick,
            "limits": lambda: _limits(LIMITS),
            "choices": lambda: _limits(CHOICES),
        }
        names = [name for _, name, _ in kinds()]
        for name in names:
            parts[name] = lambda name=name: self._frame(name)  # type: ignore[misc]
        parts["PING"] = lambda: [*self._frame("PING"), *self._frame("PONG")]
        del parts["PONG"]
        return parts

    def _tables(self, *keys: str) -> Iterator[str]:
        for key in keys:
            yield from table(self._layouts, key)

    def _frame(self, name: str) -> Iterator[str]:
        keys = [key for key in self._layouts if key.split()[0].split(".")[0] == name]
        yield from self._tables(*keys)
        yield from _block("Example:", framed(frames.encode(self._frames[name]), name))

    def _ranges(self) -> Iterator[str]:
        yield from _block("The set 1-57, 60:", annotated(pack(Ranges([(1, 57), (60, 60)]).to_wire())))

    def _identities(self) -> Iterator[str]:
        key = self._world.devices["siti"].public
        yield "Example, with the keys of `tests/vectors/keys.json`:\n"
        yield f"    public key of siti      {key.raw.hex()}"
        yield f"    its device id           {key.id.hex()}"
        yield f"    the office's id         {self._world.endpoint.hex()}"
        yield f"    epoch                   {EPOCHS[0].hex()}"
        yield f"    journal id              {self._world.journals[0].hex()}"
        yield f"    key of its message 1    {self._world.journals[0].hex()}:1\n"

    def _certificates(self) -> Iterator[str]:
        der = self._world.certificates["siti"].der
        yield "Example, a device's:\n"
        yield line(der[:4], f"{len(der) - 4} bytes follow")
        yield line(der[4:-74], f"{len(der) - 78} bytes, which are signed")
        yield line(der[-74:-64], "fixed")
        yield f"{line(der[-64:], 'signature, 64 bytes')}\n"

    def _document(self) -> Iterator[str]:
        yield from self._tables("document 2", "document 7", "document.endpoints[] 4", "document.policy 1")
        document = self._world.documents[1]
        yield from _block("Example, version 2, a file:", annotated(document.to_file(), "document"))
        yield from _block("Its body:", annotated(document.body, "document"))

    def _header(self) -> Iterator[str]:
        yield from self._tables("header 14", "header.previous 2")
        header = self._world.bundles["urgent, the first of a later journal"].header_bytes
        yield from _block(
            "Example, the first bundle of a device's second journal:", annotated(header, "header")
        )

    def _sealing(self) -> Iterator[str]:
        one = self._world.bundles["one part"]
        key = self._world.sealing["office"]
        info, payload = one.header.info, one.payload
        plaintext = key.open(payload, info)
        yield "Example, `one part` of `tests/vectors/bundles.json`:\n"
        yield f"    seed                    {key.seed.hex()}"
        yield f"    sealing key id          {key.public.key_id.hex()}"
        for name, at, size in (
            ("label", 0, 17),
            ("source", 17, 16),
            ("destination", 33, 16),
            ("epoch", 49, 8),
        ):
            yield f"    info: {name:<18}{info[at : at + size].hex()}"
        yield f"    info: number, part, parts {info[57:].hex(' ', 8)}"
        yield f"    payload                 {len(payload)} bytes: {payload[:16].hex()}..."
        yield f"    opens to                {len(plaintext)} bytes: {plaintext[:16].hex()}...\n"

    def _manifest(self) -> Iterator[str]:
        yield from self._tables("manifest 6", "manifest.meta[] 2", "manifest.files[] 3")
        data = self._world.manifest()
        head = line(data[:4], f"length: {len(data) - 4}")
        yield from _block(
            "Example:", [head, *annotated(data[4:], "manifest"), line(b'{"nik": "3', "the first file begins")]
        )

    def _introduction(self) -> Iterator[str]:
        it = self._world.bundles["an introduction"]
        yield from _block("Example, its header:", annotated(it.header_bytes, "header"))

    def _receipt(self) -> Iterator[str]:
        yield from self._tables("receipt 6", "receipt 8")
        it = self._world.receipts["office"]
        yield from _block("Example, the body of an office's:", annotated(it.body, "receipt"))
        yield line(it.signature, "signature, 64 bytes")
        yield ""

    def _datagram(self) -> Iterator[str]:
        said = probe.Probe(self._world.fleet, self._world.siti, 7766)
        data = probe.encode(said)
        yield "Example, siti asks:\n"
        for at, size, says in ((0, 10, "meshnode/1"), (10, 1, "asks"), (11, 16, "fleet"), (27, 16, "siti")):
            yield line(data[at : at + size], says)
        yield f"{line(data[43:], f'TCP port {said.port}')}\n"

    def _digests(self) -> Iterator[str]:
        ledger = finished_ledger(self._world)
        yield "Example: these journals, with the serial of the newest receipt, and the digest of each\n"
        for journal in ledger.journals.values():
            digest = hashlib.sha256(journal.id + journal.serial.to_bytes(8, "big")).digest()[:8]
            yield f"    {journal.id.hex()}  {journal.serial:#018x}  {digest.hex()}"
        buckets = digest_bytes(ledger.digest_buckets(()))
        yield "\nmake these buckets, all others being zero, and this total:\n"
        yield from (f"    bucket {at:<3} {digest.hex()}" for at, digest in enumerate(buckets) if any(digest))
        yield f"    total      {digest_bytes([digest_total(ledger.digest_buckets(()))])[0].hex()}\n"

    def _txt(self) -> Iterator[str]:
        text = text_of(
            Announcement(self._world.fleet, self._world.siti, ("officer",), False, 7766), "0badcafe"
        )
        yield "Example, siti announces itself; in the record each of these has its length, 1 byte, before it:\n"
        yield from (f"    {len(name) + 1 + len(value):02x}  {name}={value}" for name, value in text.items())
        yield ""

    def _stick(self) -> Iterator[str]:
        data = self._world.stick()
        yield f"Example, `tests/vectors/{STICK}`:\n"
        yield line(data[:8], "MESHNODE")
        yield line(data[8:9], "version")
        yield line(data[9:25], "fleet")
        names = {kind: name for kind, name, _ in kinds()}
        at = 25
        while at < len(data):
            size = 4 + int.from_bytes(data[at : at + 4], "big")
            yield line(data[at : at + 6], f"{names[data[at + 5]]}, {size} bytes with its length")
            at += size
        yield ""


def filled(text: str, page: Page) -> str:
    """The page with its marks filled. Raises ValueError: a mark is unknown, or one is missing."""
    parts = page.parts()
    wanted = [name for _, name, _ in _MARK.findall(text)]
    if sorted(wanted) != sorted(parts):
        raise ValueError(f"the marks of {PAGE.name} are not as they should be: {set(wanted) ^ set(parts)}")

    def fill(mark: re.Match[str]) -> str:
        return "\n".join([mark[1], *parts[mark[2]](), "", mark[3]])

    return re.sub(r"\n{3,}", "\n\n", _MARK.sub(fill, text))


def _phrases() -> Iterator[str]:
    """What the hand-written text says of numbers and names, as the code has them."""
    yield f"`{identity.ROLE_OID.dotted_string}`"
    yield f"`{identity._DEVICE_NAME.pattern}` without a dot"
    yield f"`{identity._FLEET_NAME.pattern}` without a blank"
    yield f"`{identity._ED25519_SIGNED.hex(' ')}`"
    yield f"At least one sealing key, at most {fleet.SEALING_KEYS_MAX}, of {sealing.SEALING_PUBLIC_SIZE:,} bytes"
    yield f"at most {fleet.ADDRESS_SIZE_MAX} letters in all"
    yield f"is {sealing.SEAL_OVERHEAD:,} bytes longer than what it holds"
    yield f"chunks of {sealing.CHUNK_SIZE:,} bytes"
    yield f'"{sealing._INFO_LABEL.decode()}" ({len(sealing._INFO_LABEL)} bytes ASCII)'
    yield f"does not open. {len(sealing.sealing_info(bytes(16), bytes(16), bytes(8), 1, 1, 1))} bytes:"
    yield f"| payload_size, payload | {sealing.SEALING_PUBLIC_SIZE:,}; the device's"
    yield f"EVERYONE is the destination of {len(introducing.EVERYONE)} zero bytes"
    yield f"ALPN `{frames.ALPN}` on both sides"
    yield f"`version_min` to `version_max` **must** include {frames.PROTOCOL}."
    yield f"XOR of all {frames.BUCKETS} buckets"
    yield f"first({frames.DIGEST_SIZE}, H(journal id || serial"
    yield f"{frames._NOTHING[0]} with worth 0: nothing"
    yield f"on a TCP port, {dialing.MESH_PORT} unless"
    yield f"UDP port {dialing.MESH_PORT}"
    yield f"service `{TYPE}`"
    yield f"one answer in {probe.PER_SOURCE_S} s are taken in"
    yield f"and {probe.PER_S} datagrams a second in all. {probe._FORM.size} bytes:"
    yield f"| 0 | {len(probe._MAGIC)} | `{probe._MAGIC.decode()}` in ASCII |"
    yield f"a head of {stick.HEAD_SIZE} bytes"
    yield f"| 0 | {len(stick._MAGIC)} | `{stick._MAGIC.decode()}` in ASCII |"
    yield f"version of the format: {stick.VERSION} |"
    yield f"Files end in `{END}`"
    yield f"and more than {identity.SIGNATURE_SIZE}, then `93 02`, `93 04`, `92 05` or `95 07`"
    yield f"| `{received.ANSWER}` | `{received.ABOUT}`: key of the message; `{received.VERDICT}`:"
    yield " or ".join(f"`{verdict}`" for verdict in received.VERDICTS) + f"; `{received.REASON}`:"
    yield f"`{message.MANIFEST_NAME}` in any case"


def _check_phrases(text: str) -> None:
    """Raises ValueError where the text has a number or a name otherwise than the code."""
    told = " ".join(_MARK.sub("", text).split())
    for phrase in _phrases():
        if phrase not in told:
            raise ValueError(f"{PAGE.name} does not say '{phrase}', as the code has it")


def wanted(page: Path = PAGE, folder: Path = VECTORS) -> dict[Path, bytes]:
    """What all the files should hold. Raises ValueError: the page and the code do not fit each other."""
    text = page.read_text()
    _check_phrases(text)
    world = World(kept_payloads(folder))
    files = {folder / name: data for name, data in vectors(world).items()}
    return {page: filled(text, Page(world)).encode(), **files}


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="scripts/protocol", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit code 1 if something is out of date"
    )
    parser.add_argument("--page", type=Path, default=PAGE, help="the page (docs/protocol.md)")
    parser.add_argument("--vectors", type=Path, default=VECTORS, help="the folder (tests/vectors)")
    said = parser.parse_args()
    try:
        files = wanted(said.page, said.vectors)
    except ValueError as problem:
        sys.exit(f"scripts/protocol: {problem}")
    stale = [path for path, data in files.items() if not path.exists() or path.read_bytes() != data]
    for path in stale:
        print(f"{path} {'is out of date' if said.check else 'is written'}")
        if not said.check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(files[path])
    sys.exit(1 if said.check and stale else 0)


if __name__ == "__main__":
    main()

"""Says what is in the bytes of meshnode's protocol, as JSON, without any code of meshnode.

What is written where: `decode_forms` has the layouts of docs/protocol.md, `decode_reader` reads and checks by them, and
`decode_vectors` checks the test vectors.
"""

from __future__ import annotations

import argparse
import base64
import json
import re
import sys
from pathlib import Path

from decode_forms import SIGNED_FILE, Refused, plain, unpack
from decode_reader import Reader, Said, datagram, txt
from decode_vectors import check_flips, check_vectors, trusting


def source(named: str) -> bytes:
    """The bytes of a file (PEM becomes DER), of standard input, or in hexadecimal."""
    data = sys.stdin.buffer.read() if named == "-" else b""
    if named != "-" and re.fullmatch("(?:[0-9a-f]{2})+", named):
        return bytes.fromhex(named)
    data = data or Path(named).read_bytes()
    if data.startswith(b"-----BEGIN"):
        return base64.b64decode(b"".join(data.split(b"-----")[2].split()))
    is_hex = re.fullmatch(rb"\s*(?:[0-9a-f]{2})+\s*", data)
    return bytes.fromhex(data.decode()) if is_hex else data


def read(reader: Reader, kind: str, data: bytes) -> list[Said]:
    """All that is in there."""
    match kind:
        case "frames" | "bundle":
            return list(reader.frames(data))
        case "stick":
            return list(reader.stick(data))
        case "certificate":
            return [reader.certificate(data)]
        case "document" | "request" | "welcome":
            return [reader.file(data, kind)]
        case "receipt":
            signed = unpack(data, kind, SIGNED_FILE)
            return [reader.receipt(signed["body"], signed["signature"])]
        case "txt":
            return [txt(data)]
        case _:
            return [datagram(data)]


KNOWN = (
    "frames",
    "bundle",
    "certificate",
    "document",
    "request",
    "welcome",
    "receipt",
    "datagram",
    "txt",
    "stick",
)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="scripts/decode", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("kind", nargs="?", choices=KNOWN)
    parser.add_argument("source", nargs="?", help="a file, hexadecimal, or -")
    parser.add_argument(
        "--trust",
        action="append",
        default=[],
        metavar="FILE",
        help="certificates and documents, the authority's first",
    )
    parser.add_argument(
        "--open",
        action="append",
        default=[],
        metavar="SEED",
        help="a sealing seed, 64 hex digits, or a file that holds them",
    )
    parser.add_argument("--vectors", type=Path, metavar="DIR", help="check the test vectors in there")
    parser.add_argument(
        "--flips", action="store_true", help="flip each byte of what is signed, and see it refused"
    )
    said = parser.parse_args()
    reader = Reader()
    try:
        if said.vectors is not None:
            print(f"{check_vectors(said.vectors)} vectors are right")
            if said.flips:
                reader = trusting(said.vectors)
                for row in json.loads((said.vectors / "frames.json").read_text()):
                    read(reader, "frames", bytes.fromhex(row["frame"]))
                read(reader, "stick", (said.vectors / "stick.meshnode").read_bytes())
                print(f"{check_flips(reader)} flipped bytes are refused")
            return
        if said.kind is None or said.source is None:
            parser.error("say what to read, and where it is")
        for named in said.trust:
            data = source(named)
            read(reader, "certificate" if data.startswith(b"\x30\x82") else "document", data)
        for seed in said.open:
            reader.open_with(source(seed))
        for it in read(reader, said.kind, source(said.source)):
            print(json.dumps(plain(it)))
        if said.flips:
            print(json.dumps({"flipped_bytes_refused": check_flips(reader)}))
    except Refused as problem:
        sys.exit(f"scripts/decode: refused: {problem}")
    except (OSError, ValueError) as problem:
        sys.exit(f"scripts/decode: {problem}")


if __name__ == "__main__":
    main()

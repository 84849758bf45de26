"""The office door: whatever a message is called, it stays in its folder, and message.json stays JSON.

What a peer may send is anything that the codec lets through, so names and texts are drawn from all of it: Windows'
devices, dots, spaces, separators of other systems, every alphabet, 255 bytes. What may not be a name at all is refused
where the message is read, before the sink sees it.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st

from meshnode.core.errors import MeshnodeError
from meshnode.core.identity import DeviceId
from meshnode.core.message import File, Manifest, encode_manifest, read_manifest
from meshnode.office.sinks import Envelope, Never
from meshnode.office.sinks.directory import DirectorySink

ODD = [
    "CON",
    "nul.txt",
    "a:b",
    "C:evil",
    "x.",
    "x ",
    " x",
    "...",
    "..",
    ".",
    "-rf",
    "~",
    "$(id)",
    "a|b",
    "%2e%2e%2f",
]
ODD += [
    "LPT1",
    "a" * 255,
    "é" * 127,
    "\u202egpj.exe",
    "\u2028",
    "\ufeff",
    "message.json",
    ".incoming",
    "held",
]
ODD += ["a/b", "a\\b"]
names = st.one_of(st.sampled_from(ODD), st.text(min_size=1, max_size=80))
texts = st.text(max_size=60)
KEY = "ab" * 16 + ":1"
ENVELOPE = Envelope(KEY, "officer-07", DeviceId(b"d" * 16), 1_700_000_000_000)


def everything_in(folder: Path) -> set[Path]:
    return {Path(where) / name for where, folders, files in os.walk(folder) for name in folders + files}


@given(
    st.lists(names, min_size=1, max_size=4),
    texts,
    texts,
    st.dictionaries(texts, texts, max_size=3),
    texts,
)
@example(ODD[:4], 'k"}', "ref\n", {"__proto__": "\x00", '"': "\\"}, "text/html\r\nX: y")
@settings(max_examples=150, deadline=None)
def test_nothing_leaves_the_folder_and_the_record_is_json(
    wanted: list[str], kind: str, reference: str, meta: dict[str, str], media: str
) -> None:
    sent = Manifest(
        kind, tuple(meta.items()), reference, 5, tuple(File(name, len(name), media) for name in wanted)
    )
    try:
        manifest = read_manifest(encode_manifest(sent))
    except (MeshnodeError, UnicodeEncodeError):
        return  # refused before any sink sees it
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "inbox"
        sink = DirectorySink(root)
        beside = everything_in(Path(folder)) - everything_in(root)
        delivery = sink.begin(ENVELOPE, manifest)
        assert delivery is not None
        try:
            for at, file in enumerate(manifest.files):
                if file.size_bytes:
                    delivery.write(at, b"x" * file.size_bytes)
            delivery.commit()
        except Never:
            delivery.abort()
        assert everything_in(Path(folder)) - everything_in(root) == beside, "something is outside"
        for path in root.glob("*/*/*/message.json"):
            check(path.parent, manifest)


def check(folder: Path, manifest: Manifest) -> None:
    record = json.loads((folder / "message.json").read_bytes())
    assert record["key"] == KEY
    assert (record["kind"], record["reference"]) == (manifest.kind, manifest.reference)
    assert record["meta"] == dict(manifest.meta)
    assert {path.name for path in folder.iterdir()} == {
        "message.json",
        *(file.name for file in manifest.files),
    }
    for described, file in zip(record["files"], manifest.files, strict=True):
        data = (folder / file.name).read_bytes()
        assert described["name"] == file.name
        assert described["sha256"] == hashlib.sha256(data).hexdigest()
        assert (folder / file.name).stat().st_mode & 0o777 == 0o600

"""What the demo believes only after it has looked: the office's folder, and the raw bytes of every device."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from demo_people import Registration

KIND = "ktp-el"


@dataclass
class Record:
    """One submitted registration and when what happened to it, in seconds since the demo began."""

    registration: Registration
    officer: str
    device_id: str
    key: str
    bundles: int
    times_s: dict[str, float] = field(default_factory=dict)


def handed_on(sink: Path) -> list[tuple[dict[str, Any], Path]]:
    """Each finished message in the office's folder: its message.json and where it lies."""
    return [
        (json.loads(path.read_text()), path.parent)
        for path in sorted(sink.glob("*/*/*/message.json"))
        if not any(part.startswith(".") for part in path.relative_to(sink).parts)
    ]


def office_problems(sink: Path, records: dict[str, Record], since_ms: int) -> Iterator[str]:
    """Why the office's folder has not every record once, byte for byte; nothing when all is well."""
    messages = handed_on(sink)
    times = Counter(document["key"] for document, _ in messages)
    yield from (f"the office lacks {key}" for key in records if key not in times)
    yield from (f"the office has {key}, which nobody submitted" for key in times if key not in records)
    yield from (f"the office has {key} {count} times" for key, count in times.items() if count > 1)
    for document, folder in messages:
        if document["key"] not in records:
            continue
        for problem in message_problems(document, folder, records[document["key"]], since_ms):
            yield f"{folder}: {problem}"


def message_problems(document: dict[str, Any], folder: Path, record: Record, since_ms: int) -> Iterator[str]:
    """What is wrong with one message in the office's folder, as phrases."""
    registration = record.registration
    expected = {
        "source": {"name": record.officer, "id": record.device_id},
        "kind": KIND,
        "meta": {"nik": registration.person.nik},
        "reference": registration.reference,
    }
    for name, value in expected.items():
        if document[name] != value:
            yield f"message.json says {name} = {document[name]!r} instead of {value!r}"
    submitted_ms, received_ms = document["submitted_ms"], document["received_ms"]
    if not since_ms <= submitted_ms <= received_ms <= time.time_ns() // 1_000_000:
        yield f"submitted_ms {submitted_ms} and received_ms {received_ms} cannot be"
    date, *rest = folder.parts[-3:]
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", date) or rest != [record.officer, record.key.replace(":", "-")]:
        yield "the folder is not DATE/SOURCE/KEY"

    contents = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "message.json"}
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    if digests != registration.sha256:
        yield "the files are not those that were submitted"
    listed = {file["name"]: (file["size_bytes"], file["sha256"]) for file in document["files"]}
    if listed != {name: (len(content), digests[name]) for name, content in contents.items()}:
        yield "message.json lists other files than the folder holds"
    if not all(isinstance(file["type"], str) for file in document["files"]):
        yield "message.json lists a file without a type"


def secrets_of(records: Iterable[Record]) -> dict[str, bytes]:
    """What must be readable nowhere but at the office: names, numbers, and a piece of every file."""
    pieces: dict[str, bytes] = {}
    for record in records:
        registration = record.registration
        label = registration.reference
        pieces[f"the name of {label}"] = registration.person.name.encode()
        pieces[f"the NIK of {label}"] = registration.person.nik.encode()
        for file, sample in registration.samples.items():
            pieces[f"a piece of {file} of {label}"] = sample
    return pieces


def find(folder: Path, pieces: dict[str, bytes]) -> tuple[list[tuple[str, Path]], int]:
    """Search the raw bytes of all files below the folder: which piece is in which file, of how many bytes."""
    found: list[tuple[str, Path]] = []
    size_bytes = 0
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            continue  # a running daemon may take a file away between listing and reading
        size_bytes += len(content)
        found += [(what, path) for what, piece in pieces.items() if piece in content]
    return found, size_bytes

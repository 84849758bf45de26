"""message.json: what a sink says of a message besides its files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from meshnode.core.message import File, Manifest
from meshnode.office.sinks import Envelope


def listing(envelope: Envelope, manifest: Manifest, digests: Sequence[str]) -> bytes:
    """The bytes of message.json. `digests`: SHA-256 in hex of each file, in the manifest's order."""
    record: dict[str, Any] = {
        "key": envelope.key,
        "source": {"name": envelope.source, "id": envelope.source_id.hex()},
        "kind": manifest.kind,
        "meta": dict(manifest.meta),
        "reference": manifest.reference,
        "submitted_ms": manifest.submitted_ms,
        "received_ms": envelope.received_ms,
        "files": [_file_record(file, digest) for file, digest in zip(manifest.files, digests, strict=True)],
    }
    if envelope.held is not None:
        record["held"] = envelope.held
    return json.dumps(record, ensure_ascii=False, indent=2).encode() + b"\n"


def _file_record(file: File, sha256: str) -> dict[str, Any]:
    return {"name": file.name, "size_bytes": file.size_bytes, "sha256": sha256, "type": file.type}

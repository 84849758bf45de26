"""The directory sink leaves free what the system needs."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import patch

import pytest

from meshnode.core.identity import DeviceId
from meshnode.core.limits import FLOOR_SHARE, GIB, MIB
from meshnode.core.message import File, Manifest
from meshnode.office.sinks import Envelope, NotNow
from meshnode.office.sinks.directory import STORE_BYTES, DirectorySink

ENVELOPE = Envelope(key="aa" * 16 + ":1", source="ana", source_id=DeviceId(bytes(16)), received_ms=1)


def manifest_of(size_bytes: int) -> Manifest:
    return Manifest(kind="", meta=(), reference="", submitted_ms=1, files=(File("record", size_bytes, ""),))


def begins(root: Path, size_bytes: int, *, free_bytes: int, floor_bytes: int, total_bytes: int) -> bool:
    sink = DirectorySink(root, lambda: floor_bytes)
    with patch("shutil.disk_usage") as usage:
        usage.return_value.free, usage.return_value.total = free_bytes, total_bytes
        try:
            delivery = sink.begin(ENVELOPE, manifest_of(size_bytes))
        except NotNow:
            return False
    assert delivery is not None
    delivery.abort()
    return True


@pytest.mark.parametrize(
    ("size_bytes", "floor_bytes", "total_bytes", "expected"),
    [
        (1 * MIB, 8 * MIB, 64 * GIB, True),
        (2 * MIB, 8 * MIB, 64 * GIB, False),  # with what surrounds it
        (0, 10 * MIB, 64 * GIB, False),
        (0, 9 * MIB, 64 * GIB, True),
        (0, 256 * MIB, int(9 * MIB / FLOOR_SHARE), True),  # a small disk
        (0, 256 * MIB, int(11 * MIB / FLOOR_SHARE), False),
    ],
)
def test_what_would_go_below_the_floor_waits(
    tmp_path: Path, size_bytes: int, floor_bytes: int, total_bytes: int, expected: bool
) -> None:
    took = begins(
        tmp_path,
        size_bytes,
        free_bytes=10 * MIB + STORE_BYTES,
        floor_bytes=floor_bytes,
        total_bytes=total_bytes,
    )
    assert took is expected
    assert list(tmp_path.glob(".incoming/*")) == []


def test_what_was_taken_before_is_known_on_a_full_disk(tmp_path: Path) -> None:
    sink = DirectorySink(tmp_path)
    delivery = sink.begin(ENVELOPE, manifest_of(0))
    assert delivery is not None
    delivery.commit()
    full = DirectorySink(tmp_path, lambda: 100 * MIB)
    with patch("shutil.disk_usage") as usage:
        usage.return_value.free, usage.return_value.total = 0, GIB
        assert full.begin(ENVELOPE, manifest_of(0)) is None

"""Registrations for tests: real pictures of every format, and forms that are right."""

from __future__ import annotations

import io
import json
import random
from functools import cache
from typing import Any

import wsq  # noqa: F401 - it teaches Pillow the format
from PIL import Image

FORM: dict[str, Any] = {
    "nik": "3206014506890001",
    "nama": "Siti Aminah",
    "jenis_kelamin": "PEREMPUAN",
    "tanggal_lahir": "1989-06-05",
    "alamat": "Kp. Babakan RT 03 RW 07",
    "kecamatan": "Cipatujah",
}


@cache
def picture(form: str, seed: int = 0) -> bytes:
    """A small grey picture, as Pillow writes the format."""
    buffer = io.BytesIO()
    Image.frombytes("L", (60, 80), random.Random(seed).randbytes(4800)).save(buffer, form)
    return buffer.getvalue()


def registration(without: str = "", **fields: Any) -> dict[str, bytes]:
    """A whole registration; `fields` of the form are replaced, or left out if they are None. `without`: the beginning
    of the names of files that are left out."""
    form = {key: value for key, value in (FORM | fields).items() if value is not None}
    files = {
        "form.json": json.dumps(form).encode(),
        "photo.jpg": picture("JPEG"),
        "signature.png": picture("PNG"),
        **{f"fingerprint-{finger:02d}.wsq": picture("WSQ", finger) for finger in range(1, 11)},
        "iris-left.jp2": picture("JPEG2000"),
        "iris-right.jp2": picture("JPEG2000", 1),
    }
    return {name: data for name, data in files.items() if not (without and name.startswith(without))}

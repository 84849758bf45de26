"""Pictures by their structure: real ones are whole, and every cut is seen."""

from __future__ import annotations

import contextlib
import io
import random

import pytest
import wsq
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from meshnode.core.pictures import FORMATS, Broken, format_of, size_of

PILLOW = {"jpeg": "JPEG", "png": "PNG", "jp2": "JPEG2000", "wsq": "WSQ"}


def picture(form: str, width: int = 61, height: int = 47, **more: object) -> bytes:
    assert wsq.__name__ == "wsq", "it teaches Pillow the format"
    noise = random.Random(f"{form}{width}").randbytes(width * height)
    buffer = io.BytesIO()
    Image.frombytes("L", (width, height), noise).save(buffer, PILLOW[form], **more)
    return buffer.getvalue()


WHOLE = {form: picture(form) for form in PILLOW}
MORE = [
    ("jpeg", picture("jpeg", progressive=True)),
    ("jpeg", picture("jpeg", restart_marker_rows=1)),
    ("jpeg", picture("jpeg", comment=b"\xff\xd9 is not the end here")),
    ("png", picture("png", optimize=True)),
    ("jp2", picture("jp2", no_jp2=True)),
    ("wsq", picture("wsq", 512, 480)),
]


@pytest.mark.parametrize("form", PILLOW)
def test_real_ones_are_whole(form: str) -> None:
    assert size_of(form, WHOLE[form]) == (61, 47)


@pytest.mark.parametrize(("form", "data"), MORE, ids=range(len(MORE)))
def test_other_kinds_of_them_too(form: str, data: bytes) -> None:
    assert min(size_of(form, data)) >= 47


@pytest.mark.parametrize("form", PILLOW)
def test_every_cut_is_seen(form: str) -> None:
    for end in range(len(WHOLE[form])):
        with pytest.raises(Broken):
            size_of(form, WHOLE[form][:end])


@pytest.mark.parametrize("form", PILLOW)
def test_one_is_not_another_and_zeros_are_none(form: str) -> None:
    for other in set(PILLOW) - {form}:
        with pytest.raises(Broken, match="does not begin as one"):
            size_of(form, WHOLE[other])
    for size in (0, 1, 10, 100_000):
        with pytest.raises(Broken):
            size_of(form, bytes(size))


@pytest.mark.parametrize("form", PILLOW)
def test_an_end_that_was_filled_with_zeros_is_seen(form: str) -> None:
    data = WHOLE[form]
    with pytest.raises(Broken):
        size_of(form, data[: len(data) // 2] + bytes(len(data) - len(data) // 2))


@given(st.data())
def test_every_wrong_bit_of_a_png_is_seen(data: st.DataObject) -> None:
    damaged = bytearray(WHOLE["png"])
    damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(Broken):
        size_of("png", bytes(damaged))


@settings(max_examples=300)
@given(st.sampled_from(sorted(PILLOW)), st.data())
def test_damage_is_seen_or_not_but_never_breaks_the_check(form: str, data: st.DataObject) -> None:
    damaged = bytearray(WHOLE[form])
    for _ in range(data.draw(st.integers(1, 5))):
        damaged[data.draw(st.integers(0, min(len(damaged) - 1, 900)))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(Broken):
        assert min(size_of(form, bytes(damaged))) > 0


def test_what_claims_to_be_huge_is_not_believed() -> None:
    data = bytearray(WHOLE["jp2"])
    at = data.index(b"\xff\x4f\xff\x51")
    data[at + 8 : at + 12] = b"\x7f\xff\xff\xff"
    with pytest.raises(Broken, match="size in pixels"):
        size_of("jp2", bytes(data))


@pytest.mark.parametrize(
    ("name", "form"),
    [("a.JPG", "jpeg"), ("a.b.png", "png"), ("x.wsq", "wsq"), ("x.bin", None), ("jpg", None), ("", None)],
)
def test_the_name_says_the_format(name: str, form: str | None) -> None:
    assert format_of(name) == form
    assert set(FORMATS.values()) == set(PILLOW)

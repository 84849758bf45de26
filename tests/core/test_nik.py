"""The NIK: what cannot be is refused with a sentence, what can be is not."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import meshnode
from meshnode.core.nik import nik_problems

SCHEMA = Path(meshnode.__file__).parent / "kinds" / "ktp-el.schema.json"
REGIONS: dict[str, str] = json.loads(SCHEMA.read_bytes())["x-nik"]["regions"]
TASIKMALAYA = sorted(code for code in REGIONS if code.startswith("3206") and len(code) == 6)

births = st.dates(date(1920, 1, 1), date(2019, 12, 31))
regions = st.sampled_from([*TASIKMALAYA, "327301", "110101", "960212"])
serials = st.integers(1, 9999)


def made(region: str, born: date, female: bool, serial: int) -> str:
    return f"{region}{born.day + 40 * female:02d}{born:%m%y}{serial:04d}"


def problems(
    nik: str, born: date | None = None, female: bool | None = None, known: dict[str, str] | None = REGIONS
) -> list[str]:
    return [str(problem) for problem in nik_problems(nik, known, born, female)]


def test_all_kecamatan_of_the_kabupaten_are_known() -> None:
    assert [f"3206{number:02d}" for number in range(1, 40)] == TASIKMALAYA
    assert REGIONS["320601"] == "Cipatujah"
    assert REGIONS["320624"] == "Singaparna"
    assert REGIONS["320639"] == "Sukaresik"


@given(regions, births, st.booleans(), serials)
def test_a_number_that_agrees_with_the_form_is_taken(
    region: str, born: date, female: bool, serial: int
) -> None:
    assert problems(made(region, born, female, serial), born, female) == []


@given(regions, births, births, st.booleans(), serials)
def test_another_birth_date_is_seen(region: str, born: date, said: date, female: bool, serial: int) -> None:
    found = problems(made(region, born, female, serial), said, female)
    differs = (born.day, born.month, born.year % 100) != (said.day, said.month, said.year % 100)
    assert len(found) == differs
    assert all(f"{said:%d-%m-%Y}" in text and f"{born:%d-%m-%y}" in text for text in found)


@given(regions, births, st.booleans(), serials)
def test_the_other_sex_is_seen(region: str, born: date, female: bool, serial: int) -> None:
    (problem,) = problems(made(region, born, female, serial), born, not female)
    assert ("a woman, and the form says a man" in problem) is female


@given(regions, births, st.booleans(), serials, st.integers(0, 15), st.integers(1, 9))
def test_one_wrong_digit_in_the_birth_date_is_always_seen(
    region: str, born: date, female: bool, serial: int, at: int, more: int
) -> None:
    nik = made(region, born, female, serial)
    wrong = f"{nik[:at]}{(int(nik[at]) + more) % 10}{nik[at + 1 :]}"
    if 6 <= at < 12:
        assert problems(wrong, born, female)
    for text in problems(wrong, born, female):
        assert text.startswith(f"NIK {wrong}: ")


@given(st.text(max_size=20))
def test_anything_else_is_no_nik(text: str) -> None:
    found = problems(text)
    assert found or (len(text) == 16 and text.isascii() and text.isdecimal())


@given(st.text("0123456789", min_size=16, max_size=16))
def test_sixteen_digits_are_taken_only_with_a_date(digits: str) -> None:
    day = int(digits[6:8])
    possible = 1 <= day <= 31 or 41 <= day <= 71
    if not problems(digits, known=None):
        assert possible
        assert 1 <= int(digits[8:10]) <= 12
        assert digits[12:] != "0000"


@pytest.mark.parametrize(
    ("nik", "says"),
    [
        ("3206014513890001", "the birth date 45-13-89 does not exist"),
        ("3206013002890001", "the birth date 30-02-89 does not exist"),
        ("3206012902010001", "the birth date 29-02-01 does not exist"),
        ("3206010001890001", "the birth date 00-01-89 does not exist"),
        ("3206014001890001", "the birth date 40-01-89 does not exist"),
        ("3206017201890001", "the birth date 72-01-89 does not exist"),
        ("3206010506890000", "cannot be 0000"),
        ("3206400506890001", "no region 320640"),
        ("3206000506890001", "no region 320600"),
        ("3200010506890001", "no region 320001"),
        ("9901010506890001", "no region 990101"),
        ("320601050689000", "has 16 digits and nothing else"),
        ("32060105068900011", "has 16 digits and nothing else"),
        ("3206 01050689001", "has 16 digits and nothing else"),
        ("٣٢٠٦٠١٠٥٠٦٨٩٠٠٠١", "has 16 digits and nothing else"),
    ],
)
def test_what_is_said(nik: str, says: str) -> None:
    (problem,) = problems(nik)
    assert says in problem
    assert problem.startswith(f"NIK {nik}: ")


@pytest.mark.parametrize("nik", ["3206012902000001", "3206016902960001", "3273010506890001"])
def test_what_can_be(nik: str) -> None:
    assert problems(nik) == []


def test_regions_can_be_only_ones_own_or_any() -> None:
    elsewhere = "3273010506890001"
    assert problems(elsewhere, known={"3206": "Tasikmalaya"}) != []
    assert problems("3206990506890001", known={"3206": "Tasikmalaya"}) == []
    assert problems("9999990506890001", known=None) == []

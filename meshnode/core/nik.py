"""The NIK, the 16-digit number of a person in Indonesia, and what can be known to be wrong with one.

    3206 01 | 45 06 89 | 0001
    region    birth      serial

The region is province, regency and kecamatan, two digits each, where the number was given out. The birth date is day,
month and year, two digits each; for women 40 is added to the day. The serial begins with 0001. There is no check digit,
so what a wrong key changes is found only by what else the form says: the birth date and the sex.

A number keeps its region when its person moves, so numbers of other regencies are usual everywhere. The regions that
are accepted are a table of codes of two, four or six digits: `32` is a whole province, `3206` a whole regency. A code
with longer ones below it stands for just those.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import date
from typing import Final

from meshnode.core.words import Words, say

SIZE: Final = 16
#: What is added to the day of birth of a woman.
FEMALE: Final = 40
_DIGITS: Final = frozenset("0123456789")


def nik_problems(
    nik: str,
    regions: Collection[str] | None = None,
    born: date | None = None,
    female: bool | None = None,
) -> Iterator[Words]:
    """What is wrong with this number, nothing if it can be. `regions` None: any; `born` and `female`: what the
    form says beside it, if it does."""
    if len(nik) != SIZE or not _DIGITS.issuperset(nik):
        yield say("NIK {nik}: a NIK has 16 digits and nothing else: type it again", nik=nik)
        return
    if regions is not None and not _is_known(nik[:6], regions):
        yield say(
            "NIK {nik}: there is no region {region}: look at the first six digits", nik=nik, region=nik[:6]
        )
    if nik[12:] == "0000":
        yield say("NIK {nik}: the last four digits cannot be 0000: type it again", nik=nik)
    yield from _birth_problems(nik, born, female)


def _birth_problems(nik: str, born: date | None, female: bool | None) -> Iterator[Words]:
    day, month, year = int(nik[6:8]), int(nik[8:10]), int(nik[10:12])
    said_female = day > FEMALE
    day -= FEMALE if said_female else 0
    if not any(_exists(century + year, month, day) for century in (1900, 2000)):
        shown = f"{nik[6:8]}-{nik[8:10]}-{nik[10:12]}"
        yield say(
            "NIK {nik}: the birth date {date} does not exist: look at digits 7 to 12", nik=nik, date=shown
        )
        return
    if born is not None and (day, month, year) != (born.day, born.month, born.year % 100):
        shown = f"{day:02d}-{month:02d}-{year:02d}"
        said = f"{born.day:02d}-{born.month:02d}-{born.year:04d}"
        yield say(
            "NIK {nik}: it says that the person was born on {date}, and the form says {said}: correct one of them",
            nik=nik,
            date=shown,
            said=said,
        )
    if female is not None and said_female and not female:
        yield say(
            "NIK {nik}: it is the number of a woman, and the form says a man: correct one of them", nik=nik
        )
    if female is not None and female and not said_female:
        yield say(
            "NIK {nik}: it is the number of a man, and the form says a woman: correct one of them", nik=nik
        )


def _exists(year: int, month: int, day: int) -> bool:
    try:
        date(year, month, day)
    except ValueError:
        return False
    return True


def _is_known(region: str, regions: Collection[str]) -> bool:
    if "00" in (region[:2], region[2:4], region[4:]):
        return False
    for size in (6, 4, 2):
        prefix = region[:size]
        if prefix in regions:
            return True
        # a longer code beside this one that begins alike: its table is complete, so this one would be in it
        if any(code.startswith(prefix[:-2]) and len(code) == size for code in regions if size > 2):
            return False
    return False

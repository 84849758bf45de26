"""Invented people of Kabupaten Tasikmalaya, and the files that a registration for an identity card needs.

Nobody here exists: names and streets come from Faker (id_ID), the face is drawn, fingerprints (WSQ) and irises
(JPEG 2000) are rings with noise. All of it follows from one seed, so that a run can be repeated.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import random
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import wsq  # noqa: F401 - it teaches Pillow the format
from faker import Faker
from PIL import Image, ImageDraw, ImageFont

KECAMATAN = {"01": "Cipatujah", "02": "Karangnunggal", "03": "Cikalong", "05": "Cikatomas", "06": "Cibalong"}
HAMLETS = ("Babakan", "Cikadu", "Gunungsari", "Neglasari", "Pasirhuni", "Sindangraja")
WORK = ("Petani", "Nelayan", "Pedagang", "Guru", "Buruh tani", "Ibu rumah tangga", "Pelajar")
SKIN = ((241, 203, 168), (222, 178, 138), (198, 150, 112))
SHIRT = ((250, 250, 250), (70, 90, 150), (90, 130, 90), (170, 120, 60), (130, 60, 90))


@dataclass(frozen=True)
class Person:
    """Who is registered; `nik` is the 16-digit number: district, date of birth (women: day + 40), serial."""

    name: str
    nik: str
    female: bool
    born: date
    hamlet: str
    kecamatan: str
    address: str
    work: str

    def form(self) -> dict[str, Any]:
        """The form as the office's programs expect it."""
        return {
            "nik": self.nik,
            "nama": self.name,
            "jenis_kelamin": "PEREMPUAN" if self.female else "LAKI-LAKI",
            "tanggal_lahir": self.born.isoformat(),
            "alamat": self.address,
            "dusun": self.hamlet,
            "kecamatan": self.kecamatan,
            "kabupaten": "Tasikmalaya",
            "pekerjaan": self.work,
        }


@dataclass(frozen=True)
class Registration:
    """One person's files in a folder of their own; `sha256` has the digest (hex) of each, by file name."""

    number: int
    person: Person
    folder: Path
    sha256: dict[str, str]
    size_bytes: int
    samples: dict[
        str, bytes
    ]  # 24 bytes from the middle of each file but the form: enough to find it anywhere

    @property
    def files(self) -> list[Path]:
        """The files, in the order of the form."""
        return [self.folder / name for name in self.sha256]

    @property
    def reference(self) -> str:
        """What the officer's program calls it; names nobody."""
        return f"REG-{self.number:04d}"


class People:
    """Makes people and their registrations, the same for the same seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._faker = Faker("id_ID")
        self._faker.seed_instance(seed)
        self._names: set[str] = set()
        self._district = self._random.choice(sorted(KECAMATAN))
        self._hamlet = self._random.choice(HAMLETS)

    @property
    def place(self) -> str:
        """The hamlet where all of them live."""
        return f"{self._hamlet}, Kecamatan {KECAMATAN[self._district]}"

    def registration(self, number: int, parent: Path) -> Registration:
        """Draw one person and write the files into a new folder in `parent`; 0.4 to 0.6 MB."""
        person = self._person(number)
        files = self._files(person)
        folder = parent / f"{number:04d}"
        folder.mkdir(parents=True)
        for name, content in files.items():
            (folder / name).write_bytes(content)
        return Registration(
            number=number,
            person=person,
            folder=folder,
            sha256={name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
            size_bytes=sum(map(len, files.values())),
            samples={n: c[len(c) // 2 :][:24] for n, c in files.items() if n != "form.json"},
        )

    def _person(self, number: int) -> Person:
        draw = self._random
        female = draw.random() < 0.5
        name = ""
        while not name or name in self._names:
            first = self._faker.first_name_female() if female else self._faker.first_name_male()
            name = f"{first} {self._faker.last_name()}"
        self._names.add(name)
        born = date(1950, 1, 1) + timedelta(days=draw.randrange(57 * 365))
        day = born.day + (40 if female else 0)
        return Person(
            name=name,
            nik=f"3206{self._district}{day:02d}{born:%m%y}{number:04d}",
            female=female,
            born=born,
            hamlet=self._hamlet,
            kecamatan=KECAMATAN[self._district],
            address=self._faker.street_address(),
            work=draw.choice(WORK),
        )

    def _files(self, person: Person) -> dict[str, bytes]:
        draw = self._random
        files = {
            "form.json": json.dumps(person.form(), ensure_ascii=False, indent=2).encode(),
            "photo.jpg": photo(person, draw),
            "signature.png": signature(draw),
        }
        for finger in range(1, 11):
            files[f"fingerprint-{finger:02d}.wsq"] = rings(draw, 400, "WSQ")
        for side in ("left", "right"):
            files[f"iris-{side}.jp2"] = rings(draw, draw.randrange(200, 300), "JPEG2000")
        return files


def photo(person: Person, draw: random.Random) -> bytes:
    """A drawn portrait as a JPEG of 100 to 300 kB; red behind those born in odd years, else blue."""
    width, height = 600, 800
    backdrop = (190, 30, 35) if person.born.year % 2 else (35, 80, 170)
    skin, shirt, hair = draw.choice(SKIN), draw.choice(SHIRT), (30, 24, 22)
    image = Image.new("RGB", (width, height), backdrop)
    pen = ImageDraw.Draw(image)
    tilt = draw.randrange(-14, 15)
    pen.ellipse((60, 560, 540, 1100), fill=shirt)
    pen.rectangle((255, 500, 345, 620), fill=tuple(c - 15 for c in skin))
    if person.female:  # a kerudung
        pen.ellipse((150, 130, 450, 640), fill=shirt)
        pen.ellipse((195 + tilt, 200, 405 + tilt, 510), fill=skin)
    else:
        pen.ellipse((178 + tilt, 150, 422 + tilt, 480), fill=hair)
        pen.ellipse((190 + tilt, 205, 410 + tilt, 540), fill=skin)
    for x in (255 + tilt, 345 + tilt):
        pen.ellipse((x - 20, 325, x + 20, 349), fill=(250, 250, 250))
        pen.ellipse((x - 9, 328, x + 9, 346), fill=hair)
        pen.arc((x - 30, 292, x + 30, 336), 200, 340, fill=hair, width=6)
    pen.line((300 + tilt, 345, 292 + tilt, 405, 308 + tilt, 408), fill=tuple(c - 40 for c in skin), width=4)
    pen.arc((260 + tilt, 405, 340 + tilt, 465), 20, 160, fill=(150, 60, 60), width=6)
    pen.rectangle((0, 752, width, height), fill=(245, 245, 245))
    pen.text((16, 757), person.name, fill=(20, 20, 20), font=ImageFont.load_default(size=30))
    grain = Image.frombytes("L", (width, height), draw.randbytes(width * height)).convert("RGB")
    buffer = io.BytesIO()
    Image.blend(image, grain, 0.1).save(buffer, "JPEG", quality=88)
    return buffer.getvalue()


def rings(draw: random.Random, size: int, form: str) -> bytes:
    """Dark rings around a point, as ridges or an iris, with noise; grey, `size` pixels high and wide."""
    image = Image.new("L", (size, size), 235)
    pen = ImageDraw.Draw(image)
    x, y = (draw.randrange(size // 3, 2 * size // 3) for _ in range(2))
    for radius in range(size, 2, -draw.randrange(7, 11)):
        pen.ellipse((x - radius, y - radius * 1.2, x + radius, y + radius * 1.2), outline=60, width=3)
    grain = Image.frombytes("L", (size, size), draw.randbytes(size * size))
    buffer = io.BytesIO()
    Image.blend(image, grain, 0.3).save(buffer, form)
    return buffer.getvalue()


def signature(draw: random.Random) -> bytes:
    """A scrawl in blue ink, 400 x 150, as a PNG of a few kB."""
    image = Image.new("RGB", (400, 150), (255, 255, 255))
    pen = ImageDraw.Draw(image)
    swing = [(draw.uniform(10, 45), draw.uniform(0.02, 0.09), draw.uniform(0, 6)) for _ in range(3)]
    line = [(x, 75 + sum(a * math.sin(f * x + p) for a, f, p in swing) / 1.6) for x in range(30, 370, 2)]
    pen.line(line, fill=(25, 35, 120), width=4, joint="curve")
    pen.line((40, 128, 360, draw.randrange(112, 132)), fill=(25, 35, 120), width=3)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()

"""What is submitted as ktp-el is looked at before it is taken, by whichever way it comes."""

from __future__ import annotations

import builtins
import contextlib
import json
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from meshnode.app.config import parse_config
from meshnode.app.kinds import NAMED_MAX, PICTURE_SIZE_MAX, Check, Kinds
from meshnode.core.errors import BadConfig, BadSchema, NotAsItsKind
from meshnode.core.limits import KIB, MIB
from meshnode.core.message import File, Manifest
from tests.app.fleets import Fleet, Node, assert_refused, posted
from tests.app.registrations import FORM, picture, registration


def checked(
    files: dict[str, bytes], meta: dict[str, str] | None = None, kind: str = "ktp-el", of: Kinds | None = None
) -> list[str]:
    """What is wrong with it, in whatever pieces it comes."""
    described = tuple(File(name, len(data)) for name, data in files.items())
    manifest = Manifest(kind, tuple((meta or {}).items()), "", 0, described)
    data = b"".join(files.values())
    said = set()
    for size in (max(1, len(data)), 1000):
        try:
            check = (of or Kinds({})).check(manifest)
            assert check is not None
            for start in range(0, len(data), size):
                assert not check.is_whole
                check.feed(data[start : start + size])
            assert check.is_whole
            check.finish()
            said.add("")
        except NotAsItsKind as problem:
            said.add(str(problem.fields["problem"]))
    (sentence,) = said
    return sentence.split("; ") if sentence else []


def test_a_whole_registration_is_taken() -> None:
    assert checked(registration()) == []
    assert checked(registration(), {"nik": FORM["nik"], "petugas": "7"}) == []
    assert checked(registration("signature")) == []
    assert checked({**registration(), "surat.pdf": b"anything", "big.bin": bytes(40 * MIB)}) == []


def test_files_may_have_other_names_and_formats() -> None:
    files = registration()
    files["foto.PNG"] = picture("PNG")
    files["finger-01.png"] = picture("PNG")
    for name in ("photo.jpg", "fingerprint-01.wsq"):
        del files[name]
    assert checked(files) == []


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        (
            {"nik": "3206014513890001"},
            ["NIK 3206014513890001: the birth date 45-13-89 does not exist: look at digits 7 to 12"],
        ),
        ({"nik": None}, ["the form lacks nik: fill it in"]),
        ({"nik": 3206}, ["nik in the form is 3206, which is of another type: correct it"]),
        ({"nama": None, "alamat": None}, ["the form lacks nama, alamat: fill it in"]),
        ({"nama": ""}, ["nama in the form is empty or too short: fill it in"]),
        ({"nama": "   "}, ["nama in the form is empty or too short: fill it in"]),
        ({"nama": "x" * 101}, ["nama in the form is too long: shorten it"]),
        ({"jenis_kelamin": "F"}, ['jenis_kelamin in the form is "F", and can be: LAKI-LAKI, PEREMPUAN']),
        (
            {"tanggal_lahir": "5 Juni"},
            ['tanggal_lahir in the form is "5 Juni", which cannot be: write it as 1989-06-05'],
        ),
        ({"rt": "tiga"}, ['rt in the form is "tiga", which cannot be: write it as 003']),
        ({"tidak_ada": {"iris-left": ""}}, ["tidak_ada.iris-left in the form is empty or too short: fill it in"]),
        (
            {"jenis_kelamin": "LAKI-LAKI"},
            ["NIK 3206014506890001: it is the number of a woman, and the form says a man: correct one of them"],
        ),
        (
            {"tanggal_lahir": "1988-06-05"},
            [
                "NIK 3206014506890001: it says that the person was born on 05-06-89, and the form says 05-06-1988:"
                " correct one of them"
            ],
        ),
    ],
)  # fmt: skip
def test_the_form(fields: dict[str, Any], says: list[str]) -> None:
    assert checked(registration(**fields)) == says


def test_the_form_has_to_be_there_and_readable() -> None:
    files = registration()
    for broken in (b"", b"{", b"\xff", b"[1]", b"1" * 5000):
        (first, *_) = checked({**files, "form.json": broken})
        assert first in (
            "form.json cannot be read: it is not JSON in UTF-8",
            "the form is no list of named fields: make it again",
        )
    assert checked(registration("form")) == ["form.json is missing: the form has to be among the files"]
    assert checked({**files, "form.json": b"\xef\xbb\xbf" + files["form.json"]}) == [], "as Windows writes it"


def test_meta_has_to_say_what_the_form_says() -> None:
    assert checked(registration(), {"nik": "3206014506890002"}) == [
        "--meta nik is not what the form says as nik: correct one of them"
    ]


def test_missing_files_and_reasons_for_them() -> None:
    assert checked(registration("photo")) == ["photo.jpg is missing: record it"]
    assert checked(registration("iris-left")) == [
        "iris-left.jp2 is missing: record it, or write into the form under tidak_ada.iris-left why that cannot be"
    ]
    (said,) = checked(registration("finger"))
    assert said.startswith("fingerprint-01.wsq, fingerprint-02.wsq, ")
    assert said.endswith("under tidak_ada.fingerprint-01, tidak_ada.fingerprint-02, ... why that cannot be")
    reasons = {f"fingerprint-{finger:02d}": "amputasi" for finger in range(1, 11)}
    assert checked(registration("finger", tidak_ada=reasons)) == []
    assert checked(registration("photo", tidak_ada={"photo": "no camera"})) == [
        "photo.jpg is missing: record it"
    ]


@pytest.mark.parametrize("name", sorted(set(registration()) - {"form.json"}))
def test_each_picture_has_to_be_whole(name: str) -> None:
    files = registration()
    cut = checked({**files, name: files[name][:-2]})
    assert cut == [f"{name} is no good picture, it is cut off: take it again"]
    assert checked({**files, name: b""}) == [f"{name} is no good picture, it is empty: take it again"]
    assert checked({**files, name: b"GIF89a" + bytes(100)}) == [
        f"{name} is no good picture, it does not begin as one: take it again"
    ]


def test_pillow_sees_more_and_is_not_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    files = registration()
    whole = files["photo.jpg"]
    at = whole.index(b"\xff\xc4") + 5  # within a table of codes: the structure is right, the tables are not
    files["photo.jpg"] = whole[:at] + b"\xfe" * 12 + whole[at + 12 :]
    assert checked(files) == ["photo.jpg is no good picture, it cannot be decoded: take it again"]
    real = builtins.__import__

    def without_pillow(name: str, *rest: Any) -> Any:
        if name == "PIL":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without_pillow)
    assert checked(files) == []
    assert checked({**files, "photo.jpg": whole[:-2]}) != []


def test_a_few_problems_are_named_and_the_others_counted() -> None:
    said = checked({name: b"" if name != "form.json" else data for name, data in registration().items()})
    assert len(said) == NAMED_MAX + 1
    assert said[-1] == "and 9 more"


def test_memory_is_bounded() -> None:
    def check(*sizes: int) -> Check | None:
        files = tuple(File(f"{n}.jpg", size) for n, size in enumerate(sizes))
        return Kinds({}).check(Manifest("ktp-el", (), "", 0, files))

    with pytest.raises(NotAsItsKind, match=r"0\.jpg has 8388609 bytes, at most 8388608 can be"):
        check(PICTURE_SIZE_MAX + 1)
    with pytest.raises(NotAsItsKind, match="its pictures have 33554433 bytes, at most 33554432 can be"):
        check(8 * MIB, 8 * MIB, 8 * MIB, 8 * MIB, 1)
    with pytest.raises(NotAsItsKind, match=r"form\.json has"):
        Kinds({}).check(Manifest("ktp-el", (), "", 0, (File("form.json", 256 * KIB + 1),)))
    passing = Kinds({}).check(Manifest("ktp-el", (), "", 0, (File("a.bin", 200 * MIB),)))
    assert passing is not None
    for _ in range(200):
        passing.feed(bytes(MIB))
    assert passing.is_whole
    assert sum(map(len, passing._data)) == 0


# --- other schemas ---


def schema(path: Path, **rules: Any) -> Path:
    path.write_text(json.dumps(rules))
    return path


def test_another_schema_replaces_it_and_other_kinds_can_have_one(tmp_path: Path) -> None:
    own = schema(tmp_path / "own", required=["desa"], **{"x-form": "isian.json"})
    birth = schema(tmp_path / "birth", required=["anak"], properties={"anak": {"minLength": 2}})
    both = Kinds({"ktp-el": own, "akta": birth})
    assert checked({"isian.json": b'{"desa": "Ciheras"}'}, of=both) == []
    assert checked({"isian.json": b"{}"}, of=both) == ["the form lacks desa: fill it in"]
    assert checked({"a": b""}, {"anak": "Asep"}, "akta", both) == []
    assert checked({"a": b""}, {"anak": "A"}, "akta", both) == [
        "anak in the form is empty or too short: fill it in"
    ]
    assert both.check(Manifest("surat", (), "", 0, (File("a", 1),))) is None
    assert Kinds({}, check=False).check(Manifest("ktp-el", (), "", 0, (File("a", 1),))) is None


def test_regions_can_be_restricted(tmp_path: Path) -> None:
    nik = {"x-nik": {"field": "nik", "regions": ["3206"]}, "x-form": "form.json"}
    here = Kinds({"ktp-el": schema(tmp_path / "s", **nik)})
    assert checked({"form.json": b'{"nik": "3206990506890001"}'}, of=here) == []
    (said,) = checked({"form.json": b'{"nik": "3273010506890001"}'}, of=here)
    assert "there is no region 327301" in said


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "{", '{"type": "what"}', '{"x-form": 1}', '{"x-files": [{}]}', '{"x-files": [1]}',
        '{"x-nik": 1}', '{"x-nik": {"field": 1}}', '{"x-same": []}', '{"properties": []}', "\xff",
    ],
)  # fmt: skip
def test_a_schema_that_is_none_is_refused_at_once(tmp_path: Path, text: str) -> None:
    path = tmp_path / "schema"
    path.write_text(text, "latin-1")
    with pytest.raises(BadSchema, match=re.escape(str(path))):
        Kinds({"x": path})


def test_the_settings(tmp_path: Path) -> None:
    config = parse_config('[kinds]\ncheck = false\nktp-el = "a.json"\nakta = "/b.json"\n', Path("c"))
    assert config.kinds.check is False
    assert config.kinds.paths(tmp_path) == {"ktp-el": tmp_path / "a.json", "akta": Path("/b.json")}
    assert parse_config("", Path("c")).kinds.check is True
    for wrong in ("check = 1", "x = 1", 'x = ""'):
        with pytest.raises(BadConfig):
            parse_config(f"[kinds]\n{wrong}\n", Path("c"))


def test_nothing_of_it_is_loaded_before_it_is_needed() -> None:
    code = "import sys, meshnode.app.serving; print({'jsonschema', 'PIL'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "set()\n"


# --- a real node ---


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with Fleet(tmp_path_factory.mktemp("fleet")) as fleet:
        fleet.enroll("office", "office")
        fleet.start(fleet.enroll("ana"))
        yield fleet


@pytest.fixture
def ana(fleet: Fleet) -> Node:
    return fleet.nodes["ana"]


def rows_on_disk(node: Node) -> tuple[int, ...]:
    with contextlib.closing(sqlite3.connect(f"file:{node.home}/store.db?mode=ro", uri=True)) as store:
        tables = ("entry", "message")
        return tuple(store.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables)  # noqa: S608


def test_nothing_is_taken_of_what_is_refused(fleet: Fleet, ana: Node) -> None:
    before = rows_on_disk(ana)
    files = {"large.bin": bytes(4 * MIB), **registration(nik="3206014513890001")}
    for _ in range(3):
        status, answer = ana.request("POST", "/v1/messages", posted(files, kind="ktp-el"))
        assert (status, answer["code"], answer["exit_code"]) == (422, "not-as-its-kind", 1)
        assert answer["error"] == (
            "The message was not taken, because it is not as the kind ktp-el has to be: NIK 3206014513890001:"
            " the birth date 45-13-89 does not exist: look at digits 7 to 12."
        )
    fleet.until("what was written of it is gone", lambda: rows_on_disk(ana) == before)
    assert ana.get("messages") == []
    assert ana.give(files)["bundles"] > 1, "without a kind it is anything"
    assert "3206" not in ana.log()


def test_the_command_says_it_too(ana: Node, tmp_path: Path) -> None:
    def paths(files: dict[str, bytes], folder: Path) -> list[Path]:
        folder.mkdir()
        for name, data in files.items():
            (folder / name).write_bytes(data)
        return [folder / name for name in files]

    bad = paths(registration("photo"), tmp_path / "bad")
    assert_refused(ana.run("submit", *bad, "--kind", "ktp-el"), "photo.jpg is missing: record it.")
    good = paths(registration(), tmp_path / "good")
    assert ana.submit(*good, "--kind", "ktp-el", "--meta", f"nik={FORM['nik']}")["bundles"] == 1


def test_a_message_that_is_cut_short_is_told_so(ana: Node) -> None:
    body = posted(registration(nik="1"), kind="ktp-el")[:-1]
    status, answer = ana.request("POST", "/v1/messages", body)
    assert (status, "not as long as it said" in answer["error"]) == (422, True)


def test_a_schema_in_the_settings_that_is_none_stops_the_start(ana: Node, tmp_path: Path) -> None:
    with Fleet(tmp_path) as fleet:
        budi = fleet.enroll("budi")
        with (budi.home / "config.toml").open("a") as file:
            file.write('[kinds]\nktp-el = "none.json"\n')
        done = budi.run("run")
        assert_refused(done, "none.json does not exist")

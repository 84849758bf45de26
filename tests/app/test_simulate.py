"""`meshnode simulate`: what planners type, and what they and their programs get."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from meshnode.app.cli import main
from meshnode.core.limits import FOREIGN_QUOTA_BYTES
from tests.app.fleets import environment

CONTACTS = """start_s,end_s,node_a,node_b,rate_bytes_per_s
10,20,siti,budi,1000000
15,25,siti,agus,500000
100,110,budi,office,1000000
120,130,agus,ridge,200000
"""
WORKLOAD = """t_s,source,size_bytes
0.5,siti,300000
1,siti,1500000
12,budi,40000
105,siti,1000
90,office,5000
"""
KEYS = {
    "delivered_share",
    "delivered_byte_share",
    "mean_delay_s",
    "median_delay_s",
    "p95_delay_s",
    "copies_per_delivered",
    "bytes_moved",
    "messages",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "contacts.csv").write_text(CONTACTS)
    (tmp_path / "workload.csv").write_text(WORKLOAD)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def words(*more: object, gateways: str = "office,ridge") -> list[str]:
    given = ["--contacts", "contacts.csv", "--workload", "workload.csv", "--gateways", gateways]
    return ["simulate", *given, *map(str, more)]


def call(*more: object, gateways: str = "office,ridge") -> Result:
    return CliRunner().invoke(main, words(*more, gateways=gateways), prog_name="meshnode")


def told(*more: object) -> dict[str, Any]:
    done = call("--json", *more)
    assert (done.exit_code, done.stderr) == (0, "")
    answer = json.loads(done.stdout)
    assert isinstance(answer, dict)
    return answer


# --- figures ----------------------------------------------------------------------------------------------------


def test_programs_get_figures(folder: Path) -> None:
    figures = told()
    assert figures.keys() >= KEYS
    assert all(isinstance(figures[key], int | float) for key in KEYS)
    assert (figures["messages"], figures["delivered"], figures["delivered_share"]) == (5, 4, 0.8)
    assert figures["delivered_byte_share"] == pytest.approx(1 - 1000 / 1_846_000)
    assert figures["end_s"] == 130
    assert figures["seed"] == 0
    assert figures["store_bytes"] == FOREIGN_QUOTA_BYTES
    assert figures["gateways"] == ["office", "ridge"]
    assert 0 <= figures["median_delay_s"] <= figures["p95_delay_s"] <= 130
    assert figures["bytes_moved"] > 1_800_000
    assert figures["copies_per_delivered"] >= 1
    nodes = {node["name"]: node for node in figures["nodes"]}
    assert list(nodes) == ["agus", "budi", "office", "ridge", "siti"]
    assert (nodes["siti"]["submitted"], nodes["siti"]["delivered"]) == (3, 2)
    assert nodes["office"]["gateway"]
    assert nodes["budi"]["carried_bytes"] > 1_000_000


def test_people_get_a_table(folder: Path) -> None:
    done = call()
    assert (done.exit_code, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "4 of 5 messages delivered (80.0%; 99.9% of the bytes)"
    siti = next(line for line in lines if line.startswith("siti"))
    assert siti.split()[1:3] == ["3", "2"]
    assert [line.split()[0] for line in lines[-2:]] == ["office", "ridge"]


def test_options_have_an_effect(folder: Path) -> None:
    assert told("--store-bytes", 0)["delivered_share"] == 0.4, "the office's own, and budi's"
    assert told("--until-s", 50)["delivered"] == 0
    assert told("--until-s", 50)["messages"] == 3
    assert told("--until-s", 1e15)["mean_delay_s"] > 1e14
    assert told("--seed", 7)["seed"] == 7
    assert call("--json", gateways=" ridge , ").exit_code == 0


def test_a_gateway_where_nobody_passes(folder: Path) -> None:
    done = call("--json", gateways="office,hilltop")
    assert done.exit_code == 0
    assert done.stderr == "meshnode: the gateway hilltop occurs in no contact\n"
    assert json.loads(done.stdout)["gateways"] == ["hilltop", "office"]


@pytest.mark.slow
def test_the_same_in_any_process(folder: Path) -> None:
    """A made-up fleet's first days, whose stores are too small: whatever is chosen, is chosen alike."""
    made = CliRunner().invoke(main, ["simulate", "--example", "fleet", "--seed", "5"], prog_name="meshnode")
    gateways = made.stdout.split()[-1]
    said = set()
    for hash_seed in ("0", "4711"):
        done = subprocess.run(
            [
                *(sys.executable, "-m", "meshnode", "simulate", "--gateways", gateways, "--json"),
                *("--contacts", "fleet/contacts.csv", "--workload", "fleet/workload.csv"),
                *("--store-bytes", "20000000", "--until-s", "120000", "--seed", "3"),
            ],
            env=environment() | {"PYTHONHASHSEED": hash_seed},
            capture_output=True,
            check=True,
            timeout=300,
        )
        assert done.stderr == b"", "silent where nobody watches"
        said.add(done.stdout)
    assert len(said) == 1
    figures = json.loads(said.pop())
    assert figures["messages"] > 300
    assert 0 < figures["delivered_share"] < 1


# --- pictures ---------------------------------------------------------------------------------------------------


def test_pictures(folder: Path) -> None:
    assert call("--plot", "run.svg").exit_code == 0
    assert "4 of 5 messages delivered" in "".join(ElementTree.parse("run.svg").getroot().itertext())
    assert call("--json", "--plot", "run.png").exit_code == 0
    with Image.open("run.png") as image:
        assert image.format == "PNG"


def test_pictures_that_cannot_be(folder: Path) -> None:
    done = call("--plot", "run.pdf")
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == "meshnode: run.pdf cannot be drawn: a picture's name ends in .svg or .png.\n"
    done = call("--plot", "nowhere/run.svg")
    assert done.exit_code == 1
    assert done.stderr == "meshnode: nowhere/run.svg cannot be written: No such file or directory.\n"
    assert "4 of 5" in done.stdout, "what took so long is not lost"


def test_a_png_without_pillow(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL.ImageDraw", None)
    done = call("--plot", "run.png")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "needs the library Pillow" in done.stderr


# --- refusals ---------------------------------------------------------------------------------------------------


def test_a_wrong_row_is_named(folder: Path) -> None:
    (folder / "contacts.csv").write_text(CONTACTS + "7,x,siti,budi,1\n")
    done = call("--json")
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == "meshnode: contacts.csv, line 6: end_s is 'x', not a number.\n"


@pytest.mark.parametrize(
    ("more", "gateways", "says"),
    [
        ((), "offce", "None of the gateways ('offce') occurs in the plan"),
        ((), " , ", "it names no node"),
        (("--until-s", "0"), "office", "it must be more than 0 seconds"),
        (("--until-s", "-5"), "office", "it must be more than 0 seconds"),
        (("--store-bytes", "-1"), "office", "is not in the range"),
        (("--store-bytes", "lots"), "office", "is not a valid integer"),
        (("--until-s", "nan"), "office", "it must be more than 0 seconds"),
        (("--until-s", "inf"), "office", "it must be more than 0 seconds"),
        (("--until-s", "soon"), "office", "is not a valid float"),
        (("--until-s", "1e-3"), "agus", "No message of the workload is recorded by second 0.001"),
    ],
)
def test_wrong_usage(folder: Path, more: tuple[str, ...], gateways: str, says: str) -> None:
    done = call(*more, gateways=gateways)
    assert (done.exit_code, done.stdout) == (2, "")
    assert says in done.stderr


@pytest.mark.parametrize("missing", ["--contacts", "--workload", "--gateways"])
def test_what_it_needs(folder: Path, missing: str) -> None:
    given = words()
    at = given.index(missing)
    done = CliRunner().invoke(main, given[:at] + given[at + 2 :], prog_name="meshnode")
    assert done.exit_code == 2
    assert "It needs --contacts, --workload and --gateways" in done.stderr


def test_files_that_are_not_there(folder: Path) -> None:
    (folder / "workload.csv").unlink()
    done = call()
    assert done.exit_code == 1
    assert done.stderr == "meshnode: workload.csv cannot be read: No such file or directory.\n"


# --- the example ------------------------------------------------------------------------------------------------


def example(*more: str) -> Result:
    return CliRunner().invoke(main, ["simulate", "--example", *more], prog_name="meshnode")


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_an_example_to_start_from(folder: Path) -> None:
    done = example("deep/fleet")
    assert done.exit_code == 0
    command = done.stdout.splitlines()[-1].split()
    assert command[:2] == ["meshnode", "simulate"]
    tried = CliRunner().invoke(main, [*command[1:], "--until-s", "40000", "--json"], prog_name="meshnode")
    assert (tried.exit_code, tried.stderr) == (0, "")
    assert json.loads(tried.stdout)["messages"] > 100
    workload = rows(folder / "deep/fleet/workload.csv")
    assert len(workload) == 5 * 300
    assert len({row["source"] for row in workload}) == 12
    assert all(100_000 <= int(row["size_bytes"]) <= 2_000_000 for row in workload)
    contacts = rows(folder / "deep/fleet/contacts.csv")
    assert all(float(row["start_s"]) < float(row["end_s"]) for row in contacts)
    assert "hamlet" not in "".join(row["node_a"] + row["node_b"] for row in contacts)


def test_an_example_is_of_its_seed(folder: Path) -> None:
    for name, seed in (("one", "1"), ("same", "1"), ("two", "2")):
        assert example(name, "--seed", seed).exit_code == 0
    for file in ("contacts.csv", "workload.csv"):
        one, same, two = ((folder / name / file).read_bytes() for name in ("one", "same", "two"))
        assert one == same
        assert one != two


def test_an_example_overwrites_nothing(folder: Path) -> None:
    done = example(".")
    assert done.exit_code == 1
    assert done.stderr == "meshnode: contacts.csv is there already: nothing was changed.\n"
    assert (folder / "contacts.csv").read_text() == CONTACTS

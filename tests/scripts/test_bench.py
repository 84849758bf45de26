"""What the benchmarks make of their lines: the page, the comparison, and what a watched event loop tells."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.app.fleets import Fleet, environment

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
MACHINE = {
    "figure": "machine",
    "cpu": "c",
    "cores": 2,
    "python": "3",
    "kernel": "k",
    "commit": "0",
    "rounds": 1,
}


def bench(module: str, *words: object, said: str | None = None) -> subprocess.CompletedProcess[str]:
    """`scripts/bench/...`, with this Python."""
    return subprocess.run(
        [sys.executable, "-m", f"bench.{module}", *map(str, words)],
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'scripts'}:{ROOT}"},
        input=said,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def line(figure: str, value: float | None, unit: str, **more: Any) -> dict[str, Any]:
    return {"figure": figure, "value": value, "unit": unit, "limit": None, "ratio": None, **more}


def write(path: Path, *lines: dict[str, Any]) -> Path:
    path.write_text("".join(f"{json.dumps(each)}\n" for each in lines))
    return path


BEFORE = (
    line("bundles_8k", 2000.0, "bundles/s", ratio=0.05),
    line("submit_1mb", 30.0, "ms"),
    line("idle_switches", 1.0, "1/s", contacts=0),
    line("idle_switches", 1.0, "1/s", contacts=1),
    line("first_bundle_mdns", 0.5, "s"),
    line("old", 1.0, "s"),
    MACHINE,
)
AFTER = (
    line("bundles_8k", 1700.0, "bundles/s", ratio=0.06),  # fewer
    line("submit_1mb", 32.9, "ms"),  # more, but not by 10 %
    line("idle_switches", 0.5, "1/s", contacts=0),
    line("idle_switches", 1.2, "1/s", contacts=1),  # a burden, not a speed
    line("first_bundle_mdns", None, "s", skipped="needs root"),
    line("fresh", 1.0, "s"),
    MACHINE,
)


def rows(table: str) -> dict[str, str]:
    return {row.split("  ")[0]: row for row in table.splitlines()[1:]}


def test_the_page_is_made_from_the_lines_beside_it(tmp_path: Path) -> None:
    for name in ("speed.jsonl", "speed-before.jsonl"):
        shutil.copy(DOCS / name, tmp_path)
    done = bench("page", "--docs", tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "speed.md").read_text() == (DOCS / "speed.md").read_text(), "run scripts/bench/page"


def test_a_page_of_a_run_keeps_its_lines(tmp_path: Path) -> None:
    run = write(
        tmp_path / "run",
        line("bundles_8k", 4100.0, "bundles/s", ratio=0.1),
        line("submit_1mb", 61.0, "ms"),
        line("first_bundle_mdns", None, "s", skipped="needs root"),
        MACHINE,
    )
    done = bench("page", run, "--docs", tmp_path / "docs")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "docs" / "speed.jsonl").read_text() == run.read_text()
    page = (tmp_path / "docs" / "speed.md").read_text()
    assert "| 4,100 bundles/s | at least 4,000 | yes | 10 % |" in page
    assert "| 61 ms | below 60 | **no** |" in page
    assert "`first_bundle_mdns` was skipped: needs root." in page
    assert "| **meshnode** | 4,100 | - | - |" in page


@pytest.mark.parametrize("stdin", [False, True])
def test_against_an_earlier_run(tmp_path: Path, stdin: bool) -> None:
    before, after = write(tmp_path / "before", *BEFORE), write(tmp_path / "after", *AFTER)
    said = before.read_text() if stdin else None
    done = bench("running", "--against", "-" if stdin else before, "--lines", after, said=said)
    assert done.returncode == 0, done.stderr
    table = rows(done.stdout)
    assert table["bundles_8k"].split() == [
        "bundles_8k",
        "bundles/s",
        "2,000",
        "1,700",
        "-15",
        "%",
        "+20",
        "%",
        "WORSE",
    ]
    assert {name for name, row in table.items() if row.endswith("WORSE")} == {
        "bundles_8k",
        "idle_switches 1",
        "first_bundle_mdns",
    }
    assert table["fresh"].endswith("new")
    assert table["old"].endswith("gone")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "cannot be read: no such file or directory"),
        (b"", "has no figures"),
        (b"# speed\n", "is not JSON"),
        (b"[1]\n", "is not a figure"),
        (b'{"figure": "a"}\n', "has no value and unit"),
        (b"\xff\xfe\n", "is not text"),
    ],
)
@pytest.mark.parametrize("module", ["running", "page"])
def test_a_file_of_something_else_is_one_sentence(
    tmp_path: Path, module: str, content: bytes | None, says: str
) -> None:
    path = tmp_path / "run"
    if content is not None:
        path.write_bytes(content)
    words = ["--against", path] if module == "running" else [path, "--docs", tmp_path / "docs"]
    done = bench(module, *words)
    assert done.returncode == 1
    assert done.stdout == ""
    assert says in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert not (tmp_path / "docs").exists()


def test_a_watch_tells_of_every_step(tmp_path: Path) -> None:
    told = tmp_path / "told.json"
    watching = ROOT / "scripts" / "bench" / "watching.py"
    with Fleet(tmp_path) as fleet:
        fleet.enroll("office", "office")
        ana = fleet.enroll("ana")
        ana.configure()
        daemon = subprocess.Popen(
            [sys.executable, watching, told, "--home", ana.home, "run"],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment(),
        )
        try:
            fleet.until("it answers", (ana.home / "control.json").exists)
            daemon.send_signal(signal.SIGTERM)
            assert daemon.wait(20) == 0
        finally:
            daemon.kill()
            daemon.wait()
    steps = json.loads(told.read_text())
    assert len(steps["ends_s"]) == len(steps["took_s"]) > 10
    assert steps["ends_s"] == sorted(steps["ends_s"])
    assert any("run_node" in task for *_, task in steps["long"]), "a store is opened and loaded in one step"

"""An older program on the home of a newer one refuses to start, says which one is wanted, and touches nothing."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from meshnode import __version__
from meshnode.drivers.sqlite import SCHEMA_VERSION
from tests.app.fleets import Fleet, Node, assert_refused


def content(home: Path) -> dict[str, bytes]:
    return {str(path.relative_to(home)): path.read_bytes() for path in home.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of a node that has run, and holds a message that nobody has signed for."""
    with Fleet(tmp_path_factory.mktemp("fleet")) as fleet:
        fleet.enroll("office", "office")
        ana = fleet.enroll("ana")
        fleet.start(ana)
        ana.give({"form.json": b"{}"})
        ana.stop()
    return ana.home


@pytest.fixture
def ana(tmp_path: Path, kept: Path) -> Node:
    """The same node in a folder of its own."""
    return Node("ana", "officer", shutil.copytree(kept, tmp_path / "ana"))


def upgrade_store(ana: Node) -> None:
    with closing(sqlite3.connect(ana.home / "store.db")) as connection:
        connection.execute("UPDATE meta SET value = '9.4.0' WHERE name = 'written_by'")
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
        connection.commit()


@pytest.mark.parametrize("command", ["run", "store salvage"])
def test_a_newer_store(ana: Node, command: str) -> None:
    upgrade_store(ana)
    before = content(ana.home)
    assert_refused(
        ana.run(*command.split()),
        f"The store {ana.home}/store.db was written by meshnode 9.4.0 (its format is {SCHEMA_VERSION + 1}, and this"
        f" meshnode {__version__} knows none above {SCHEMA_VERSION}): install that version again, or a newer one;"
        " nothing was changed.",
    )
    assert content(ana.home) == before


def newer_config(ana: Node) -> str:
    config = ana.home / "config.toml"
    config.write_text("satellite = true\n" + config.read_text())
    return "`satellite` is not a key"


def newer_section(ana: Node) -> str:
    config = ana.home / "config.toml"
    config.write_text(config.read_text() + "\n[satellite]\nmetered = true\n")
    return "`satellite` is not a key"


def newer_format(ana: Node) -> str:
    config = ana.home / "config.toml"
    config.write_text('log = "xml"\n' + config.read_text())
    return '`log` must be "text" or "json"'


@pytest.mark.parametrize("make", [newer_config, newer_section, newer_format])
def test_settings_of_a_newer_program(ana: Node, make: Callable[[Node], str]) -> None:
    said = make(ana)
    before = content(ana.home)
    done = ana.run("run")
    assert_refused(done, f"{ana.home}/config.toml: {said}")
    assert content(ana.home) == before


def test_what_a_newer_daemon_says_of_itself_in_other_fields_is_understood(ana: Node, tmp_path: Path) -> None:
    """control.json lives as long as its daemon: only a command of another version meets it."""
    with Fleet(tmp_path / "more") as fleet:
        fleet.nodes["ana"] = ana
        fleet.start(ana)
        control = ana.home / "control.json"
        control.write_text(control.read_text().replace("{", '{"sockets": ["a"], "version": "9.4.0", ', 1))
        done = ana.run("status", "--json")
        assert done.returncode == 0, done.stderr
        ana.stop()

"""What is logged is one line, whatever is in it, and a flood is cut; no line says what messages hold."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from meshnode.app.logs import (
    ALIKE_MAX,
    FORMATS,
    JSON,
    LINES_MAX,
    Flood,
    Grumbles,
    OneLine,
    escaped,
    json_lines,
)
from tests.app.fleets import Fleet


def record(text: str, level: int = logging.INFO, **more: object) -> logging.LogRecord:
    return logging.LogRecord("meshnode", level, "x.py", 1, text, None, None, **more)  # type: ignore[arg-type]


def test_control_characters_are_escaped_and_the_rest_is_left() -> None:
    assert escaped("Siti, Cipatujah ✓") == "Siti, Cipatujah ✓"
    assert escaped("a\nb\r\x1b[2J\x9b\u202e\u2028\ud800") == r"a\nb\r\x1b[2J\x9b\u202e\u2028\ud800"


def test_a_line_cannot_be_forged() -> None:
    line = OneLine("%(levelname)s %(message)s").format(record("bye\nERROR the disk is broken\x1b]0;x\x07"))
    assert line == r"INFO bye\nERROR the disk is broken\x1b]0;x\x07"
    assert line.isprintable()


def test_our_own_traceback_is_left_as_it_is() -> None:
    try:
        raise ValueError("a mistake")
    except ValueError as error:
        told = record("it failed", logging.ERROR)
        told.exc_info = (type(error), error, error.__traceback__)
    lines = OneLine("%(message)s").format(told).splitlines()
    assert lines[:2] == ["it failed", "Traceback (most recent call last):"]


def test_a_flood_is_cut_by_level_and_never_errors() -> None:
    flood = Flood()
    assert sum(flood.filter(record("again")) for _ in range(3 * LINES_MAX)) == LINES_MAX
    assert flood.filter(record("something else", logging.WARNING))
    assert all(flood.filter(record("broken", logging.ERROR)) for _ in range(2 * LINES_MAX))
    flood._since_s -= 61.0
    after = record("%s")
    after.args = ("100 % later",)
    assert flood.filter(after)
    assert after.getMessage() == f"({2 * LINES_MAX} lines were left out before this one) 100 % later"
    assert flood.filter(plain := record("quiet"))
    assert plain.getMessage() == "quiet"


def test_the_same_trouble_is_told_once_a_minute_and_few_of_a_kind(caplog: pytest.LogCaptureFixture) -> None:
    now_s = 0.0
    grumble = Grumbles(lambda: now_s)
    for _ in range(2000):
        grumble("10.0.0.1 was turned away: http request", "http request")
    assert len(caplog.messages) == 1
    for host in range(100):
        grumble(f"10.0.0.{host} was turned away: http request", "http request")
    assert len(caplog.messages) == ALIKE_MAX
    grumble("10.0.0.1 was turned away: no certificate", "no certificate")
    assert len(caplog.messages) == ALIKE_MAX + 1, "a flood of one kind does not hide another"
    now_s = 61.0
    grumble("10.0.0.1 was turned away: http request", "http request")
    assert len(caplog.messages) == ALIKE_MAX + 2
    for kind in range(5000):
        grumble(f"{kind}", f"{kind}")
    assert len(grumble._said) == 100 * ALIKE_MAX


def written(style: str, *records: logging.LogRecord) -> list[str]:
    """The lines of a process that logs so."""
    formatter = json_lines() if style == JSON else OneLine("%(levelname)s %(message)s")
    return [formatter.format(each) for each in records]


def test_a_line_of_json_says_when_how_grave_what_and_what_about() -> None:
    told = record("contact with siti", logging.WARNING)
    told.created = 1_700_000_000.25
    told.__dict__ |= {"peer": "siti", "address": "10.0.0.1:7766", "token": "secret"}
    assert [json.loads(line) for line in written(JSON, told)] == [
        {
            "time": "2023-11-14T22:13:20.250Z",
            "level": "warning",
            "event": "contact with siti",
            "peer": "siti",
            "address": "10.0.0.1:7766",
        }
    ]


def test_a_line_of_json_is_one_line_that_no_terminal_obeys() -> None:
    text = 'bye"\nERROR\x1b]0;x\x07\x7f\x9b\u202e\u2028 50 % of Siti ✓'
    (line,) = written(JSON, record(text))
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line)["event"] == text


def test_a_traceback_is_within_its_object() -> None:
    try:
        raise ValueError("a mistake")
    except ValueError as error:
        told = record("it failed", logging.ERROR)
        told.exc_info = (type(error), error, error.__traceback__)
    (line,) = written(JSON, told)
    said = json.loads(line)
    assert said["exception"].startswith("Traceback (most recent call last):")
    assert said["exception"].endswith("ValueError: a mistake")


class TestADaemon:
    """What real daemons log while a message goes from an officer to the office."""

    SECRETS = (
        "Rahasia-Aminah",
        "3206129012340001",
        "sidik-jari-kanan.wsq",
        "nomor-nik",
        "ktp-istimewa",
        "ISI-BERKAS",
    )

    @pytest.mark.parametrize("style", FORMATS)
    def test_says_nothing_of_what_it_carries(self, tmp_path: Path, style: str) -> None:
        reference, nik, name, key, kind, content = self.SECRETS
        with Fleet(tmp_path) as fleet:
            office, ana = fleet.enroll("office", "office"), fleet.enroll("ana")
            ana.configure(peers=[office.address])
            for node in (office, ana):
                node.options = ["--log-format", style, "--log-level", "debug"]
            fleet.start(office, ana)
            path = tmp_path / name
            path.write_bytes(content.encode() * 1000)
            said = ["--meta", f"{key}={nik}", "--reference", reference, "--kind", kind]
            told = ana.submit(path, *said)["key"]
            fleet.until("it is delivered", lambda: ana.states() == ["delivered"])
            # trouble is told too: with a folder that is in the way of a message, and a file that is not taken
            assert ana.run("submit", tmp_path / f"{name}.none", *said).returncode == 1
            refused = office.run("answer", told, "refused", "--reason", reference)
            assert refused.returncode == 0, refused.stderr
            fleet.until("it is answered", lambda: ana.states() == ["refused"])
            ana.stop()
            office.stop()
            for node in (office, ana):
                lines = node.log().splitlines()
                assert any("contact with" in line for line in lines)
                assert [word for word in self.SECRETS if word in node.log()] == []
                if style == JSON:
                    objects = [json.loads(line) for line in lines]
                    assert all({"time", "level", "event"} <= set(it) for it in objects)
                    other = ({"office", "ana"} - {node.name}).pop()
                    met = [it for it in objects if it["event"].startswith("contact with")]
                    assert {it["peer"] for it in met} == {other}
                    assert all("127.0.0.1:" in it["address"] for it in met)
                else:
                    assert " INFO " in lines[0]

    def test_config_toml_says_how(self, tmp_path: Path) -> None:
        with Fleet(tmp_path) as fleet:
            ana = fleet.enroll("ana")
            config = ana.home / "config.toml"
            config.write_text('log = "json"\n' + config.read_text())
            fleet.start(ana)
            ana.stop()
            events = [json.loads(line)["event"] for line in ana.log().splitlines()]
            assert any("listens on" in event for event in events)
            assert events[-1] == "ended"

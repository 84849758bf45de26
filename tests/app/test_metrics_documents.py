"""The documents beside the metrics are held to the code's list: the table, the dashboard and the alert rules."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from meshnode.app.metrics import HISTOGRAM, METRICS, table
from tests.app.test_metrics import PROCESS

DOCS = Path(__file__).parents[2] / "docs"


def by_sample() -> dict[str, set[str]]:
    """The names that Prometheus keeps, and their labels."""
    names: dict[str, set[str]] = {name: set() for name in PROCESS}
    for it in METRICS:
        for name in it.samples:
            names[name] = {*it.labels, *(["le"] if it.kind == HISTOGRAM else [])}
    return names | {"up": set()}


def assert_known(expression: str) -> None:
    """Each metric of this PromQL is there, and so are the labels that it is chosen by."""
    known = by_sample()
    names = set(re.findall(r"\b(?:meshnode|process)_[a-z_]+", expression))
    assert names or "up{" in expression, expression
    assert names <= known.keys(), expression
    for name, matchers in re.findall(r"\b([a-z_]+)\{([^}]*)\}", expression):
        labels = set(re.findall(r'([a-z]+)\s*(?:=~|!~|!=|=)\s*"', matchers))
        assert labels <= known[name] | {"job", "instance"}, expression


def test_names_are_as_the_house_says() -> None:
    assert len({it.name for it in METRICS}) == len(METRICS)
    for it in METRICS:
        assert re.fullmatch(r"meshnode_[a-z]+(_[a-z]+)*", it.name)
        assert it.name.endswith("_total") == (it.kind == "counter"), it.name
        assert it.text.endswith("."), it.name


def test_the_list_in_the_documents_is_the_code_s() -> None:
    text = (DOCS / "metrics.md").read_text()
    start, _, rest = text.partition("a test compares it -->\n")
    assert start
    assert rest.partition("<!-- end of table -->")[0] == table()


def panels() -> list[dict[str, Any]]:
    dashboard = json.loads((DOCS / "operations" / "grafana-dashboard.json").read_text())
    assert dashboard["uid"] == "meshnode-fleet"
    assert dashboard["id"] is None
    assert [it["name"] for it in dashboard["templating"]["list"]] == ["datasource", "job", "instance"]
    return list(dashboard["panels"])


def test_the_dashboard_asks_for_what_there_is() -> None:
    asked = [target for panel in panels() for target in panel.get("targets", ())]
    assert len(asked) > 30
    for target in asked:
        assert target["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert_known(target["expr"])
    text = (DOCS / "operations" / "grafana-dashboard.json").read_text()
    used = set(re.findall(r"meshnode_[a-z_]+", text))
    for about in ("messages", "officer_last_seen", "officer_missing", "disk_free", "arrival_age", "alarm"):
        assert any(name.startswith(f"meshnode_{about}") for name in used), about


def test_the_dashboard_s_panels_stand_side_by_side() -> None:
    places: set[tuple[int, int]] = set()
    ids = [panel["id"] for panel in panels()]
    assert len(set(ids)) == len(ids)
    for panel in panels():
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        mine = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not mine & places, panel["title"]
        places |= mine
        refs = [target["refId"] for target in panel.get("targets", ())]
        assert len(set(refs)) == len(refs)


def rules() -> list[dict[str, Any]]:
    read = yaml.safe_load((DOCS / "operations" / "alerts.yml").read_text())
    return [rule for group in read["groups"] for rule in group["rules"]]


def test_the_alerts_watch_what_there_is_and_say_what_to_do() -> None:
    headings = {
        line.removeprefix("### ").lower()
        for line in (DOCS / "metrics.md").read_text().splitlines()
        if line.startswith("### ")
    }
    tested = (DOCS / "operations" / "alerts-test.yml").read_text()
    assert len({rule["alert"] for rule in rules()}) == len(rules()) >= 8
    for rule in rules():
        assert_known(rule["expr"])
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert set(rule["annotations"]) == {"summary", "description", "runbook"}
        document, _, anchor = rule["annotations"]["runbook"].partition("#")
        assert document == "docs/metrics.md"
        assert anchor in headings
        assert rule["alert"] in tested


def promtool() -> Callable[..., None]:
    path = shutil.which("promtool")
    if path is None:
        pytest.skip("promtool is not installed: the rules are checked for their names and not run")

    def run(*words: object) -> None:
        done = subprocess.run(
            [path, *map(str, words)], capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 0, done.stdout + done.stderr

    return run


def test_the_alerts_ring_when_they_should() -> None:
    run = promtool()
    run("check", "rules", DOCS / "operations" / "alerts.yml")
    run("test", "rules", DOCS / "operations" / "alerts-test.yml")


def test_prometheus_can_read_what_the_dashboard_asks(tmp_path: Path) -> None:
    run = promtool()
    asked = [target["expr"] for panel in panels() for target in panel.get("targets", ())]
    spans = partial(re.sub, r"\$__(rate_interval|range)", "5m")
    listed = [{"record": f"asked_{at}", "expr": spans(expression)} for at, expression in enumerate(asked)]
    (tmp_path / "asked.yml").write_text(json.dumps({"groups": [{"name": "asked", "rules": listed}]}))
    run("check", "rules", tmp_path / "asked.yml")

"""The published description is true: of every route, and of what a real node answers."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator, validate
from starlette.applications import Starlette
from starlette.routing import Route

from meshnode.app import seldom
from meshnode.app.config import Config
from meshnode.app.control import make_app
from meshnode.app.daemon import open_daemon
from meshnode.app.home import Home
from meshnode.app.openapi import OPERATIONS, document, text
from tests.app.fleets import Fleet, Node, posted

PUBLISHED = Path(__file__).parents[2] / "docs" / "openapi.json"


def test_it_is_openapi() -> None:
    validate(document(), cls=OpenAPIV31SpecValidator)


def test_the_published_copy_is_this_one() -> None:
    assert PUBLISHED.read_text() == text(), "python -m meshnode.app.openapi > docs/openapi.json"


def test_every_shape_is_used() -> None:
    everything = text()
    used = set(re.findall(r"#/components/schemas/(\w+)", everything))
    assert set(document()["components"]["schemas"]) - used == {"Submission", "Key"}, "and these by the text"
    assert "`Submission`" in everything


async def test_every_route_is_described_and_no_other(tmp_path: Path) -> None:
    with Fleet(tmp_path) as fleet:
        home = Home(fleet.enroll("ana").home)
    async with open_daemon(home, home.load(), Config(discovery=False), 0) as daemon:
        app: Any = make_app(daemon, "token")
        while not isinstance(app, Starlette):
            app = app._app
        there = [*app.routes, *seldom.routes(daemon)]
        routes = [route for route in there if isinstance(route, Route)]
        assert len(routes) == len(there)
    real = {
        (method, re.sub(r":\w+\}", "}", route.path))
        for route in routes
        for method in set(route.methods or ()) - {"HEAD"}
    }
    described = {(operation.method, operation.path) for operation in OPERATIONS}
    assert sorted(real - described) == [], "these are not described in meshnode/app/openapi.py"
    assert sorted(described - real) == [], "these are described, and there are none"


# --- what a real node answers ---


def strict(shape: Any) -> Any:
    """The shape without anything that it does not name: the description must not lag behind."""
    if isinstance(shape, list):
        return [strict(item) for item in shape]
    if not isinstance(shape, dict):
        return shape
    inner = {name: strict(value) for name, value in shape.items()}
    if isinstance(shape.get("properties"), dict):
        inner.setdefault("additionalProperties", False)
    return inner


STRICT = strict(document())


class Asked:
    """Asks nodes, and holds each answer against the description."""

    def __init__(self) -> None:
        self.seen: set[tuple[str, str, int]] = set()

    def ask(
        self,
        node: Node,
        method: str,
        path: str,
        body: bytes = b"",
        status: int = 200,
        template: str = "",
        **headers: str,
    ) -> Any:
        """The answer, as JSON if it is said to be that."""
        host, port, token = node.door()
        with contextlib.closing(http.client.HTTPConnection(host, port, timeout=30)) as connection:
            connection.request(method, path, body, {"Authorization": f"Bearer {token}"} | headers)
            with connection.getresponse() as response:
                media = (response.getheader("Content-Type") or "").partition(";")[0]
                data = response.read1(16) if media == "text/event-stream" else response.read()
        assert response.status == status, data
        template = template or path.partition("?")[0]
        self.seen.add((method, template, status))
        described = STRICT["paths"][template][method.lower()]["responses"][str(status)].get("content", {})
        assert (media in described) == bool(data), (media, described)
        if media != "application/json":
            return data
        answer = json.loads(data)
        schema = {**described[media]["schema"], "components": STRICT["components"]}
        problems = [
            f"{it.json_path}: {it.message}" for it in Draft202012Validator(schema).iter_errors(answer)
        ]
        assert problems == [], f"{method} {path}"
        return answer


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with Fleet(tmp_path) as fleet:
        yield fleet


def test_real_answers_are_as_described(fleet: Fleet) -> None:
    office, ana = fleet.enroll("office", "office"), fleet.enroll("ana")
    ana.configure(peers=[office.address])
    fleet.start(office, ana)
    asked = Asked()
    ask = asked.ask
    key = ask(
        ana, "POST", "/v1/messages", posted({"a": b"1"}, reference="Siti", kind="x", meta={"a": "b"}), 201
    )["key"]
    ask(ana, "POST", "/v1/messages", posted({}), 422)
    fleet.until("it is delivered", lambda: ana.states() == ["delivered"])
    fleet.until("ana is known", lambda: ask(office, "GET", "/v1/devices") != [])
    ask(
        office,
        "POST",
        "/v1/answers",
        json.dumps({"key": key, "verdict": "refused", "reason": "blurred"}).encode(),
        201,
    )
    ask(office, "POST", "/v1/answers", b"{}", 422)
    ask(office, "POST", "/v1/answers", bytes(70_000), 413)
    fleet.until("ana has the answer", lambda: ana.states() == ["refused"])
    for node in (ana, office):
        (contact,) = ask(node, "GET", "/v1/peers")
        assert contact["name"] != node.name
        ask(node, "GET", "/v1/status")
        for path in (
            "/v1/messages",
            "/v1/received",
            "/v1/devices",
            "/v1/messages.csv",
            "/metrics",
            "/v1/events",
        ):
            ask(node, "GET", path)
        told = ask(node, "GET", f"/v1/messages/{key}", template="/v1/messages/{key}")
        assert told["story"] != []
        assert ask(node, "GET", "/v1/openapi.json") == document()
    ask(ana, "GET", "/v1/messages/none", status=404, template="/v1/messages/{key}")
    (refused,) = ask(office, "GET", "/v1/officers")["refused"]
    assert refused["key"] == key
    ask(ana, "GET", "/v1/officers", status=404)
    for name in ("officers", "days", "carried"):
        ask(office, "GET", f"/v1/{name}.csv")
        ask(ana, "GET", f"/v1/{name}.csv", status=404)
    ask(office, "POST", "/v1/quarantine/retry", json.dumps({"key": key}).encode(), 404)
    ask(office, "POST", "/v1/quarantine/retry", b"", 422)
    ask(ana, "PUT", "/v1/fleet", (ana.home / "fleet.document").read_bytes())
    ask(ana, "PUT", "/v1/fleet", b"nonsense", 400)
    ask(ana, "PUT", "/v1/fleet", bytes(1_000_000), 413)
    ask(ana, "POST", "/v1/compare", b"")
    ask(ana, "POST", "/v1/compare", b"nonsense", 422)
    ask(ana, "POST", "/v1/export?fleet=0&room=1000000", b"")
    ask(ana, "POST", "/v1/export?fleet=x&room=1", b"", 422)
    ask(ana, "POST", "/v1/import", b"")
    ask(ana, "POST", "/v1/import", b"nonsense", 422)
    ask(ana, "GET", "/web", status=303)
    ask(ana, "GET", "/web/", template="/web/{name}")
    ask(ana, "POST", "/web/link", status=201, template="/web/{name}")
    ask(ana, "GET", "/v1/status", status=401, Authorization="Bearer wrong")
    ask(ana, "GET", "/v1/status", status=403, Host="example.org")
    asked_for = {(method, path) for method, path, _ in asked.seen}
    assert sorted({(it.method, it.path) for it in OPERATIONS} - asked_for) == [], "these were not asked for"


def test_the_shape_of_a_submission_is_the_one_that_is_read() -> None:
    schema = {**STRICT["components"]["schemas"]["Submission"], "components": STRICT["components"]}
    body = posted({"a": b"1"}, kind="k", meta={"a": "b"}, reference="r", priority="urgent", to="")
    described = json.loads(body[4:-1])
    assert list(Draft202012Validator(schema).iter_errors(described)) == []
    assert list(Draft202012Validator(schema).iter_errors({**described, "x": 1})) != []

"""The page's door at a real daemon: what is served to whom, with which headers, and the events."""

from __future__ import annotations

import contextlib
import http.client
import json
import subprocess
import time
from collections.abc import Iterator
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

import pytest

from meshnode.app.web.events import LISTENERS_MAX
from meshnode.app.web.headers import POLICY
from tests.app.fleets import Fleet, Node, command, environment, posted
from tests.web.browsers import link


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with Fleet(tmp_path_factory.mktemp("fleet")) as fleet:
        fleet.enroll("kantor", "office")
        ana = fleet.enroll("ana")
        fleet.start(ana)
        yield fleet


@pytest.fixture
def ana(fleet: Fleet) -> Node:
    return fleet.nodes["ana"]


class Visit:
    """A browser's requests to a node, with what it has of a session."""

    def __init__(self, node: Node) -> None:
        host, port, _ = node.door()
        self.place = f"{host}:{port}"
        self._address = host, port
        self.headers: dict[str, str] = {}

    def ask(
        self, method: str, path: str, body: bytes = b"", **headers: str
    ) -> tuple[http.client.HTTPResponse, bytes]:
        connection = http.client.HTTPConnection(*self._address, timeout=20)
        try:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, self.headers | named)
            response = connection.getresponse()
            return response, response.read()
        finally:
            connection.close()

    def status(self, method: str, path: str, body: bytes = b"", **headers: str) -> int:
        return self.ask(method, path, body, **headers)[0].status

    def enter(self, node: Node) -> None:
        entered, _ = self.ask("GET", link(node).partition(self.place)[2])
        cookie = SimpleCookie(entered.headers["set-cookie"])
        [(name, morsel)] = cookie.items()
        self.headers = {"Cookie": f"{name}={morsel.value}", "Origin": f"http://{self.place}"}
        answer, body = self.ask("POST", "/web/key")
        assert answer.status == 201
        self.headers["Meshnode-Key"] = json.loads(body)["key"]


@pytest.fixture
def visit(ana: Node) -> Visit:
    visit = Visit(ana)
    visit.enter(ana)
    return visit


def test_the_link_enters_once_and_leaves_no_token_behind(ana: Node) -> None:
    visit = Visit(ana)
    path = link(ana).partition(visit.place)[2]
    assert ana.door()[2] not in path
    entered, body = visit.ask("GET", path)
    assert (entered.status, entered.headers["location"], body) == (303, "/web/", b"")
    said = entered.headers["set-cookie"]
    for part in ("HttpOnly", "SameSite=strict", "Path=/", "Max-Age=43200"):
        assert part in said
    assert path.partition("token=")[2] not in said
    again, page = visit.ask("GET", path)
    assert again.status == 403
    assert again.headers["set-cookie"] is None
    assert b"Run `meshnode web` again" in page
    assert visit.status("GET", "/web/enter") == 403


def test_a_cookie_alone_opens_nothing(ana: Node, visit: Visit) -> None:
    assert visit.status("GET", "/v1/status") == 200
    key = visit.headers.pop("Meshnode-Key")
    for path in ("/v1/status", "/v1/messages", "/v1/events"):
        assert visit.status("GET", path) == 401
    assert visit.status("POST", "/web/key") == 401, "the key is given once"
    cookie = visit.headers.pop("Cookie")
    assert visit.status("GET", "/v1/status", Meshnode_Key=key) == 401
    assert visit.status("GET", "/v1/status", Meshnode_Key=key, Cookie=cookie) == 200


def test_only_the_page_itself_changes_anything(ana: Node, visit: Visit) -> None:
    before = ana.get("messages")
    own = visit.headers.pop("Origin")
    body = posted({"f": b"1"})
    assert visit.status("POST", "/v1/messages", body) == 401
    for origin in (
        "null",
        "http://evil.example",
        "http://127.0.0.1:1",
        own.replace("127.0.0.1", "localhost"),
    ):
        assert visit.status("POST", "/v1/messages", body, Origin=origin) in (401, 403)
    assert ana.get("messages") == before
    assert visit.status("POST", "/v1/messages", body, Origin=own) == 201
    assert visit.status("PUT", "/v1/fleet", b"", Origin=own) == 401
    assert visit.status("POST", "/v1/import", b"", Origin=own) == 401


def test_a_false_name_gets_nothing(visit: Visit) -> None:
    for path in ("/web/", "/web/app.js", "/web/enter?token=x", "/v1/status"):
        answer, body = visit.ask("GET", path, Host="evil.example")
        assert answer.status == 403
        assert json.loads(body)["exit_code"] == 1
    assert visit.status("GET", "/web/", Origin="http://evil.example") == 403


def test_what_was_left_is_shut(visit: Visit) -> None:
    assert visit.status("POST", "/web/leave") == 204
    assert visit.status("GET", "/v1/status") == 401


@pytest.mark.parametrize(
    "path", ["/web/", "/web/app.js", "/web/nowhere", "/web/enter?token=x", "/v1/status", "/x"]
)
def test_every_answer_is_kept_within_bounds(visit: Visit, path: str) -> None:
    answer, _ = visit.ask("GET", path)
    assert answer.headers["content-security-policy"] == POLICY
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    is_file = answer.status == 200 and path.startswith("/web/")
    assert answer.headers["cache-control"] == ("no-cache" if is_file else "no-store")


def test_files_are_asked_for_again_only_when_they_changed(visit: Visit) -> None:
    for name in ("", "app.js", "style.css", "icon.svg", "words.json?lang=id"):
        answer, body = visit.ask("GET", f"/web/{name}")
        assert answer.status == 200
        assert len(body) == int(answer.headers["content-length"]) > 0
        again, nothing = visit.ask("GET", f"/web/{name}", If_None_Match=answer.headers["etag"])
        assert (again.status, nothing) == (304, b"")


@pytest.mark.parametrize(
    "name", ["../pages.py", "%2e%2e/pages.py", "..%2fpages.py", "static", "app.js/", "%00", ".", "app.js%00"]
)
def test_nothing_else_is_served(visit: Visit, name: str) -> None:
    assert visit.status("GET", f"/web/{name}") == 404


def test_the_language_that_the_page_names_counts(visit: Visit) -> None:
    visit.headers["Meshnode-Language"] = "id"
    answer, _ = visit.ask("GET", "/web/words.json?lang=id")
    assert answer.headers["content-language"] == "id"
    answer, body = visit.ask("GET", "/web/words.json", Accept_Language="id,en;q=0.5")
    assert answer.headers["content-language"] == "id"
    assert isinstance(json.loads(body), dict)
    assert visit.ask("GET", "/web/words.json?lang=fr")[0].headers["content-language"] == "en"


# --- events ---


@contextlib.contextmanager
def listening(visit: Visit) -> Iterator[http.client.HTTPResponse]:
    connection = http.client.HTTPConnection(*visit._address, timeout=20)
    try:
        connection.request("GET", "/v1/events", headers=visit.headers)
        yield connection.getresponse()
    finally:
        connection.close()


def next_event(stream: http.client.HTTPResponse) -> tuple[str, Any]:
    name = ""
    while line := stream.readline().decode().rstrip("\n"):
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            return name, json.loads(line.removeprefix("data: ")) if stream.readline() else None
    raise AssertionError("the stream has ended")


def until(stream: http.client.HTTPResponse, wanted: str) -> Any:
    while True:
        name, data = next_event(stream)
        if name == wanted:
            return data


def test_a_listener_hears_all_and_then_what_changes(ana: Node, visit: Visit) -> None:
    first = ana.give({"f": b"1"}, reference="one")["key"]
    with listening(visit) as stream:
        assert stream.status == 200
        assert stream.headers["content-type"].startswith("text/event-stream")
        rows: dict[str, Any] = {}
        while (event := next_event(stream))[0] != "ready":
            if event[0] == "messages":
                rows |= {row["key"]: row for row in event[1]}
            elif event[0] == "peers":
                assert event[1] == []
            else:
                assert event[0] == "status"
                assert event[1]["device"]["name"] == "ana"
        assert list(rows.values()) == ana.get("messages")
        assert rows[first]["state"] == "on_this_device_only"
        second = ana.give({"f": b"2"}, reference="two")["key"]
        assert [(row["key"], row["reference"]) for row in until(stream, "messages")] == [(second, "two")]
        assert until(stream, "status")["messages"]["submitted"] == len(rows) + 1


def test_listeners_are_few_and_make_room_when_they_go(fleet: Fleet, ana: Node, visit: Visit) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(LISTENERS_MAX):
            assert until(stack.enter_context(listening(visit)), "ready") == {}
        answer, body = visit.ask("GET", "/v1/events")
        assert (answer.status, json.loads(body)["code"]) == (503, "crowd")

    def is_let_in() -> bool:
        with listening(visit) as stream:
            return stream.status == 200

    assert fleet.until("there is room again", is_let_in)


def test_a_listener_does_not_keep_the_node_from_ending(tmp_path: Path) -> None:
    with Fleet(tmp_path) as fleet:
        fleet.enroll("kantor", "office")
        budi = fleet.enroll("budi")
        fleet.start(budi)
        visit = Visit(budi)
        visit.enter(budi)
        with listening(visit) as stream:
            assert until(stream, "ready") == {}
            began_s = time.monotonic()
            budi.stop()
            assert time.monotonic() - began_s < 5
            with contextlib.suppress(http.client.IncompleteRead):
                assert stream.read() == b""


# --- the command ---


def test_the_command_opens_a_file_and_tells_nobody_else(ana: Node, tmp_path: Path) -> None:
    """A browser is started by a program that writes down its arguments, and they have no token in them."""
    told = tmp_path / "told"
    fake = tmp_path / "browser"
    fake.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {told}\n')
    fake.chmod(0o755)
    done = subprocess.run(
        [*command(ana.home), "web"],
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
        env=environment() | {"BROWSER": f"{fake} %s"},
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    door = ana.home / "web.html"
    assert told.read_text() == f"{door.as_uri()}\n"
    assert door.stat().st_mode & 0o777 == 0o600
    leads_to = door.read_text().partition("url=")[2].partition('"')[0]
    visit = Visit(ana)
    assert visit.status("GET", leads_to.partition(visit.place)[2]) == 303


def test_without_a_daemon_there_is_no_page(fleet: Fleet) -> None:
    done = fleet.nodes["kantor"].call("web", "--print")
    assert done.returncode == 3
    assert "is not running" in done.stderr

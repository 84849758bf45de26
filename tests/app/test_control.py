"""The local HTTP API of a real daemon: who is let in, what is refused, and that a failed submission leaves nothing."""

from __future__ import annotations

import concurrent.futures
import contextlib
import http.client
import json
import socket
import sqlite3
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from meshnode.app.submissions import STALL_S, Submissions
from meshnode.core.errors import BadSubmission, MeshnodeError
from meshnode.core.limits import MANIFEST_SIZE_MAX, MESSAGE_SIZE_MAX, MIB
from meshnode.core.message import File, Manifest
from meshnode.core.ports import Accepted, SubmissionAborted, SubmissionChunk, SubmissionOpened
from meshnode.drivers.memory import MemoryStore
from meshnode.drivers.writer import Writer
from tests.app.fleets import Fleet, Node, connect, posted


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with Fleet(tmp_path_factory.mktemp("fleet")) as fleet:
        fleet.enroll("office", "office")
        ana = fleet.enroll("ana")
        fleet.start(ana)
        yield fleet


@pytest.fixture
def ana(fleet: Fleet) -> Node:
    return fleet.nodes["ana"]


def ask(node: Node, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, Any]:
    """A request with just these headers."""
    host, port, _ = node.door()
    connection = http.client.HTTPConnection(host, port, timeout=20)
    try:
        connection.putrequest(method, path, skip_host=True)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            connection.putheader(name, value)
        connection.endheaders(body)
        response = connection.getresponse()
        text = response.read()
        return response.status, json.loads(text) if text.startswith((b"{", b"[")) else text
    finally:
        connection.close()


def bearer(node: Node) -> str:
    return f"Bearer {node.door()[2]}"


def first_number(answer: dict[str, Any]) -> int:
    return int(answer["key"].partition(":")[2])


def bundles_on_disk(node: Node) -> int:
    with contextlib.closing(sqlite3.connect(f"file:{node.home}/store.db?mode=ro", uri=True)) as store:
        count: int = store.execute("SELECT count(*) FROM entry").fetchone()[0]
        assert (
            count
            == store.execute(
                "SELECT (SELECT count(*) FROM bundle) + (SELECT count(*) FROM entry WHERE slot IS NOT NULL)"
            ).fetchone()[0]
        )
    return count


# --- who is let in ---


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer wrong",
        "Basic YTpi",
        "bearer {token}",
        "Bearer {token}x",
        "{token}",
    ],
)
@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/v1/status"), ("POST", "/v1/messages"), ("PUT", "/v1/fleet"), ("GET", "/nowhere")],
)
def test_without_the_token_nothing_is_said(
    ana: Node, method: str, path: str, authorization: str | None
) -> None:
    before = ana.get("messages")
    headers = {"Host": "127.0.0.1"}
    if authorization is not None:
        headers["Authorization"] = authorization.format(token=ana.door()[2])
    status, answer = ask(ana, method, path, posted({"f": b"1"}), **headers)
    assert status == 401
    assert answer == {
        "error": "The token is missing or wrong: it stands in control.json in the node's home.",
        "exit_code": 1,
    }
    assert ana.get("messages") == before


@pytest.mark.parametrize(
    "host",
    [
        None,
        "",
        "evil.example",
        "evil.example:{port}",
        "127.0.0.1.evil.example",
        "127.0.0.1:{port}:{port}",
        "localhost.evil.example:{port}",
        "192.168.1.4:{port}",
    ],
)
def test_a_page_with_a_false_name_gets_nothing(ana: Node, host: str | None) -> None:
    _, port, token = ana.door()
    named = b"" if host is None else f"Host: {host.format(port=port)}\r\n".encode()
    with socket.create_connection(("127.0.0.1", port), 20) as program:
        version = b"1.0" if host is None else b"1.1"
        program.sendall(
            b"GET /v1/status HTTP/"
            + version
            + b"\r\n"
            + named
            + f"Connection: close\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
        )
        program.shutdown(socket.SHUT_WR)
        said = b""
        while piece := program.recv(4096):
            said += piece
    assert b" 403 " in said.splitlines()[0], said
    assert b"for this machine only" in said


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "http://evil.example", "null", "http://127.0.0.1.evil.example:80"]
)
def test_a_page_of_another_site_gets_nothing_even_with_the_token(ana: Node, origin: str) -> None:
    status, answer = ask(ana, "GET", "/v1/status", Host="127.0.0.1", Authorization=bearer(ana), Origin=origin)
    assert (status, answer["exit_code"]) == (403, 1)
    own = f"http://127.0.0.1:{ana.door()[1]}"
    assert ask(ana, "GET", "/v1/status", Host="127.0.0.1", Authorization=bearer(ana), Origin=own)[0] == 200


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "localhost:{port}", "[::1]:{port}"])
def test_names_of_this_machine_are_taken(ana: Node, host: str) -> None:
    status, answer = ask(
        ana, "GET", "/v1/status", Host=host.format(port=ana.door()[1]), Authorization=bearer(ana)
    )
    assert (status, answer["device"]["name"]) == (200, "ana")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/v1/message", 404),
        ("DELETE", "/v1/messages", 405),
        ("POST", "/v1/status", 405),
    ],
)
def test_what_there_is_not(ana: Node, method: str, path: str, status: int) -> None:
    assert ask(ana, method, path, Host="127.0.0.1", Authorization=bearer(ana))[0] == status


def test_what_is_not_http_or_wants_a_web_socket(ana: Node) -> None:
    host, port, _ = ana.door()
    upgrade = (
        b"GET /v1/status HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    for says in (bytes(range(256)), upgrade, b"\x16\x03\x01" + bytes(500)):
        with connect(host, port) as program:
            program.sendall(says)
            program.shutdown(socket.SHUT_WR)
            said = b""
            with contextlib.suppress(ConnectionResetError):
                while piece := program.recv(4096):
                    said += piece
        assert b"101" not in said
        assert b"200" not in said
    assert ana.get("peers") == []


# --- what is no message ---


def described(**more: Any) -> bytes:
    return raw(json.dumps({"files": [{"name": "f", "size_bytes": 3}], **more}).encode()) + b"abc"


def raw(head: bytes) -> bytes:
    return len(head).to_bytes(4, "big") + head


def of_files(*files: object) -> bytes:
    return raw(json.dumps({"files": files}).encode()) + b"abc"


MALFORMED = {
    "nothing": b"",
    "a cut length": b"\0\0\0",
    "a cut description": raw(b'{"files": []}')[:-3],
    "a description without an end": b"\xff\xff\xff\xff" + b" " * 1000,
    "a long description": raw(b" " * (4 * MANIFEST_SIZE_MAX)),
    "no JSON": raw(b"files"),
    "no UTF-8": raw(b'{"kind": "\xff"}'),
    "a deep JSON": raw(b"[" * 100_000),
    "a list": raw(b"[]"),
    "a null": raw(b"null"),
    "no files": described(files=[]),
    "files that are no list": described(files={"f": 3}),
    "no files key": raw(b"{}"),
    "an unknown key": described(color="red"),
    "kind is no text": described(kind=3),
    "kind is null": described(kind=None),
    "kind too long": described(kind="k" * 65),
    "reference is no text": described(reference=["r"]),
    "reference too long": described(reference="r" * 1025),
    "meta is no object": described(meta=[["a", "b"]]),
    "meta is null": described(meta=None),
    "meta holds a number": described(meta={"a": 1}),
    "meta too long": described(meta={"a": "b" * MANIFEST_SIZE_MAX}),
    "priority unknown": described(priority="very"),
    "priority is a number": described(priority=0),
    "priority is a list": described(priority=["urgent"]),
    "priority is an object": described(priority={}),
    "priority is null": described(priority=None),
    "half a letter in kind": described(kind="\ud800"),
    "half a letter in reference": described(reference="\ud800"),
    "half a letter in meta": described(meta={"a": "\udfff"}),
    "half a letter in a key": described(meta={"\udfff": "a"}),
    "half a letter in a name": of_files({"name": "\ud800", "size_bytes": 3}),
    "half a letter in a type": of_files({"name": "f", "size_bytes": 3, "type": "\ud800"}),
    "a file is text": of_files("f"),
    "a file is null": of_files(None),
    "a file without name": of_files({"size_bytes": 3}),
    "a file without size": of_files({"name": "f"}),
    "a file with more": of_files({"name": "f", "size_bytes": 3, "path": "/etc/passwd"}),
    "a size as text": of_files({"name": "f", "size_bytes": "3"}),
    "a size with a point": of_files({"name": "f", "size_bytes": 3.0}),
    "a size that is true": of_files({"name": "f", "size_bytes": True}),
    "a size below 0": of_files({"name": "f", "size_bytes": -1}),
    "a size beyond all": of_files({"name": "f", "size_bytes": 10**30}),
    "a size above the limit": of_files({"name": "f", "size_bytes": MESSAGE_SIZE_MAX + 1}),
    "sizes above the limit": of_files(
        {"name": "f", "size_bytes": MESSAGE_SIZE_MAX}, {"name": "g", "size_bytes": 1}
    ),
    "a type too long": of_files({"name": "f", "size_bytes": 3, "type": "t" * 256}),
    "a name that climbs": of_files({"name": "../x", "size_bytes": 3}),
    "a name with a path": of_files({"name": "a/b", "size_bytes": 3}),
    "a name with another path": of_files({"name": "a\\b", "size_bytes": 3}),
    "an absolute name": of_files({"name": "/etc/passwd", "size_bytes": 3}),
    "an empty name": of_files({"name": "", "size_bytes": 3}),
    "a dot": of_files({"name": ".", "size_bytes": 3}),
    "two dots": of_files({"name": "..", "size_bytes": 3}),
    "a name with a NUL": of_files({"name": "a\0b", "size_bytes": 3}),
    "a name with a line's end": of_files({"name": "a\nb", "size_bytes": 3}),
    "a name too long": of_files({"name": "n" * 256, "size_bytes": 3}),
    "the office's own name": of_files({"name": "Message.JSON", "size_bytes": 3}),
    "a name twice": of_files({"name": "Foto", "size_bytes": 1}, {"name": "foto", "size_bytes": 2}),
    "too many files": of_files(*({"name": f"f{n}", "size_bytes": 0} for n in range(257))),
    "fewer bytes than said": of_files({"name": "f", "size_bytes": 4}),
    "many fewer bytes than said": of_files({"name": "f", "size_bytes": 4 * MIB}),
    "more bytes than said": of_files({"name": "f", "size_bytes": 2}),
    "many more bytes than said": of_files({"name": "f", "size_bytes": 3}) + bytes(2 * MIB),
}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED.keys())
def test_what_is_no_message_is_refused_and_leaves_nothing(ana: Node, body: bytes) -> None:
    before = first_number(ana.give({"before": b""}))
    rows, on_disk = ana.get("messages"), bundles_on_disk(ana)
    status, answer = ana.request("POST", "/v1/messages", body)
    assert status == 422, answer
    assert sorted(answer) == ["code", "error", "exit_code"]
    assert answer["exit_code"] == 1
    assert answer["error"].endswith(".")
    assert "\n" not in answer["error"]
    assert ana.get("messages") == rows
    assert first_number(ana.give({"after": b""})) == before + 1
    assert bundles_on_disk(ana) == on_disk + 1


def test_the_largest_of_everything_is_taken(ana: Node) -> None:
    files = {"n" * 255: b"abc", **{f"f{n}": b"" for n in range(255)}}
    meta = {"m" * 1000: "x" * 10_000}
    answer = ana.give(files, kind="k" * 64, reference="r" * 1024, meta=meta, priority="urgent")
    assert answer["size_bytes"] == 3
    assert ana.get("messages")[-1]["reference"] == "r" * 1024


def test_a_body_in_pieces_of_any_size(ana: Node) -> None:
    body = posted({"f": bytes(range(256)) * 2500})
    host, port, token = ana.door()
    for size in (1000, 70_000):
        pieces = (body[at : at + size] for at in range(0, len(body), size))
        connection = http.client.HTTPConnection(host, port, timeout=20)
        headers = {"Authorization": f"Bearer {token}"}
        connection.request("POST", "/v1/messages", pieces, headers, encode_chunked=True)
        assert connection.getresponse().status == 201
        connection.close()


# --- programs that go away, wait, or come together ---


@contextlib.contextmanager
def begun(fleet: Fleet, node: Node, name: str) -> Iterator[socket.socket]:
    """A program that has sent the half of a message, some of which is on the disk by now."""
    host, port, token = node.door()
    body = posted({name: bytes(8 * MIB)})
    on_disk = bundles_on_disk(node)
    with connect(host, port) as program:
        head = f"POST /v1/messages HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n"
        program.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body[: 4 * MIB])
        fleet.until("half of it is on the disk", lambda: bundles_on_disk(node) >= on_disk + 12)
        yield program


def test_a_program_that_goes_away_leaves_nothing(fleet: Fleet, ana: Node) -> None:
    before = ana.give({"before": b""})
    on_disk = bundles_on_disk(ana)
    with begun(fleet, ana, "torn"):
        assert ana.get("messages")[-1]["key"] == before["key"]
    fleet.until("nothing remains", lambda: bundles_on_disk(ana) == on_disk)
    assert ana.get("messages")[-1]["key"] == before["key"]
    assert first_number(ana.give({"after": bytes(600_000)})) == first_number(before) + 1
    assert ana.get("messages")[-1]["size_bytes"] == 600_000


def test_while_one_waits_the_node_answers_and_the_next_has_its_turn(fleet: Fleet, ana: Node) -> None:
    before = first_number(ana.give({"before": b""}))
    with concurrent.futures.ThreadPoolExecutor() as programs:
        with begun(fleet, ana, "stalled"):
            waiting = programs.submit(ana.give, {"next": b"next"})
            assert ana.get("status")["device"]["name"] == "ana"
            assert not waiting.done()
        assert first_number(waiting.result(20)) == before + 1


def test_two_at_once(ana: Node) -> None:
    before = first_number(ana.give({"before": b""}))
    with concurrent.futures.ThreadPoolExecutor() as programs:
        both = [programs.submit(ana.give, {f"f{n}": bytes(3 * MIB)}) for n in range(2)]
        answers = sorted((each.result(20) for each in both), key=first_number)
    bundles = answers[0]["bundles"]
    assert [answer["bundles"] for answer in answers] == [bundles, bundles]
    assert [first_number(answer) for answer in answers] == [before + 1, before + 1 + bundles]


def test_half_a_character_is_refused_by_a_sentence(ana: Node) -> None:
    head = b'{"kind": "x", "\\ud800": 1, "files": [{"name": "f", "size_bytes": 1}]}'
    status, answer = ana.request("POST", "/v1/messages", len(head).to_bytes(4, "big") + head + b"1")
    assert (status, answer["error"]) == (
        422,
        "The message was not taken: its description holds half a character.",
    )


class Brain:
    """Says of every submission that is whole that it is accepted."""

    def __init__(self) -> None:
        self.heard: list[object] = []
        self.submissions = Submissions(self.dispatch, Writer(MemoryStore(), trio.current_time))  # type: ignore[arg-type]

    def dispatch(self, event: SubmissionOpened | SubmissionChunk | SubmissionAborted) -> None:
        self.heard.append(type(event).__name__)
        if isinstance(event, SubmissionChunk) and len(event.chunk) < 1000:
            self.submissions.answer(Accepted(event.submission, "journal:1", 1))

    async def take(self, body: AsyncIterator[bytes]) -> Accepted:
        manifest = Manifest("", (), "", 1, (File("f", 3),))
        return await self.submissions.take(manifest, 1, b"", body)


async def stalled(pieces: int) -> AsyncIterator[bytes]:
    for _ in range(pieces):
        await trio.sleep(STALL_S - 1)
        yield b"1"
    await trio.sleep_forever()


@pytest.mark.parametrize("pieces", [0, 2])
async def test_a_program_that_stalls_loses_its_turn(
    pieces: int, autojump_clock: trio.testing.MockClock
) -> None:
    brain = Brain()
    taken: list[Accepted | MeshnodeError] = []

    async def give(body: AsyncIterator[bytes]) -> None:
        try:
            taken.append(await brain.take(body))
        except BadSubmission as problem:
            taken.append(problem)

    async def whole() -> AsyncIterator[bytes]:
        yield b"123"

    async with trio.open_nursery() as nursery:
        nursery.start_soon(give, stalled(pieces))
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(give, whole())
    refused, accepted = taken
    assert str(refused) == "The message was not taken: nothing more of it came for 60 s."
    assert accepted == Accepted(2, "journal:1", 1)
    assert trio.current_time() == pytest.approx(pieces * (STALL_S - 1) + STALL_S)
    assert brain.heard == ["SubmissionOpened", "SubmissionAborted", "SubmissionOpened", "SubmissionChunk"]


# --- fleet documents ---


def test_documents_by_hand(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with Fleet(tmp_path) as fleet, Fleet(tmp_path / "other", "Garut") as others:
        ana = fleet.enroll("ana")
        oldest = fleet.publish().read_bytes()
        fleet.start(ana)
        fleet.enroll("office", "office")
        newest = fleet.publish().read_bytes()
        flipped = newest[:100] + bytes((newest[100] ^ 1,)) + newest[101:]
        for document in (
            b"",
            b"junk",
            bytes(1000),
            newest[:-1],
            newest + b"\0",
            flipped,
            others.publish().read_bytes(),
        ):
            status, answer = ana.request("PUT", "/v1/fleet", document)
            assert status == 400
            assert answer["error"].startswith("what was given is not a true fleet document of this fleet (")
        status, answer = ana.request("PUT", "/v1/fleet", bytes(300 * 1024))
        assert (status, answer["exit_code"]) == (413, 1)
        assert ana.get("status")["device"]["fleet_version"] == 1
        assert ana.request("PUT", "/v1/fleet", newest) == (200, {"version": 2, "adopted": True})
        assert (ana.home / "fleet.document").read_bytes() == newest
        for old in (newest, oldest):
            assert ana.request("PUT", "/v1/fleet", old) == (200, {"version": 2, "adopted": False})
        assert (ana.home / "fleet.document").read_bytes() == newest


def test_what_there_is_not_is_refused_in_json_too(ana: Node) -> None:
    for method, path, status in (("GET", "/v1/nowhere", 404), ("DELETE", "/v1/status", 405)):
        host, port, token = ana.door()
        answer = ask(ana, method, path, Host=f"{host}:{port}", Authorization=f"Bearer {token}")
        assert answer[0] == status
        assert answer[1]["exit_code"] == 1

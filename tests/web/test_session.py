"""Who is let in from a browser: links, and sessions of two halves, on a clock of the test's own."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import pytest

from meshnode.app.web.session import (
    LINK_S,
    LINKS_MAX,
    SESSION_S,
    SESSIONS_MAX,
    Sessions,
    cookie_name,
    is_open,
)

HOST = b"127.0.0.1:7767"
OWN = b"http://127.0.0.1:7767"


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def sessions(clock: Clock) -> Sessions:
    numbers: Iterator[int] = count(1)
    return Sessions(clock, lambda: f"secret-{next(numbers)}")


def from_page(cookie: str | None, key: str | None = None, origin: bytes | None = OWN) -> dict[bytes, bytes]:
    headers = {b"host": HOST, b"cookie": f"other=1; meshnode-7767={cookie}".encode()}
    if key is not None:
        headers[b"meshnode-key"] = key.encode()
    if origin is not None:
        headers[b"origin"] = origin
    return headers


def enter(sessions: Sessions) -> tuple[str, str]:
    cookie = sessions.enter(sessions.link())
    assert cookie is not None
    key = sessions.key(from_page(cookie))
    assert key is not None
    return cookie, key


def test_a_link_works_once_and_for_a_minute(sessions: Sessions, clock: Clock) -> None:
    first, second, third = (sessions.link() for _ in range(3))
    assert len({first, second, third}) == 3
    assert sessions.enter(first) is not None
    assert sessions.enter(first) is None
    clock.now_s += LINK_S
    assert sessions.enter(second) is not None
    clock.now_s += 0.1
    assert sessions.enter(third) is None
    assert sessions.enter("") is None


def test_links_are_few(sessions: Sessions) -> None:
    links = [sessions.link() for _ in range(LINKS_MAX + 1)]
    assert sessions.enter(links[0]) is None
    assert sessions.enter(links[1]) is not None


def test_both_halves_are_needed(sessions: Sessions) -> None:
    cookie, key = enter(sessions)
    assert sessions.admits("GET", "/v1/status", from_page(cookie, key))
    assert not sessions.admits("GET", "/v1/status", from_page(cookie))
    assert not sessions.admits("GET", "/v1/status", from_page(cookie, ""))
    assert not sessions.admits("GET", "/v1/status", from_page(cookie, cookie))
    assert not sessions.admits("GET", "/v1/status", from_page("", key))
    assert not sessions.admits("GET", "/v1/status", from_page(key, key))
    other_cookie, _ = enter(sessions)
    assert not sessions.admits("GET", "/v1/status", from_page(other_cookie, key))


def test_the_key_is_given_once_and_only_to_the_page_itself(sessions: Sessions) -> None:
    cookie = sessions.enter(sessions.link())
    for origin in (
        None,
        b"null",
        b"http://127.0.0.1:9999",
        b"https://127.0.0.1:7767",
        b"http://localhost:7767",
    ):
        assert sessions.key(from_page(cookie, origin=origin)) is None
    assert sessions.key(from_page("wrong")) is None
    assert sessions.key(from_page(cookie)) is not None
    assert sessions.key(from_page(cookie)) is None


@pytest.mark.parametrize(
    ("method", "path", "may"),
    [
        ("GET", "/v1/messages/x:1", True),
        ("GET", "/v1/events", True),
        ("POST", "/v1/messages", True),
        ("POST", "/v1/quarantine/retry", True),
        ("GET", "/metrics", False),
        ("PUT", "/v1/fleet", False),
        ("POST", "/v1/answers", False),
        ("POST", "/v1/import", False),
        ("POST", "/v1/export", False),
        ("POST", "/web/link", False),
        ("DELETE", "/v1/messages", False),
    ],
)
def test_a_session_may_do_what_the_page_does_and_no_more(
    sessions: Sessions, method: str, path: str, may: bool
) -> None:
    assert sessions.admits(method, path, from_page(*enter(sessions))) is may


@pytest.mark.parametrize("origin", [None, b"null", b"http://127.0.0.1:9999", b"http://127.0.0.1"])
def test_what_changes_something_comes_from_the_page_itself(sessions: Sessions, origin: bytes | None) -> None:
    cookie, key = enter(sessions)
    assert not sessions.admits("POST", "/v1/messages", from_page(cookie, key, origin))


def test_a_session_ends_by_itself_or_when_it_is_left(sessions: Sessions, clock: Clock) -> None:
    left, stays = enter(sessions), enter(sessions)
    sessions.leave(from_page(left[0]))
    assert not sessions.admits("GET", "/v1/status", from_page(*left))
    clock.now_s += SESSION_S - 0.1
    assert sessions.admits("GET", "/v1/status", from_page(*stays))
    clock.now_s += 0.1
    assert not sessions.admits("GET", "/v1/status", from_page(*stays))


def test_sessions_are_few(sessions: Sessions) -> None:
    entered = [enter(sessions) for _ in range(SESSIONS_MAX + 1)]
    admitted = [sessions.admits("GET", "/v1/status", from_page(*halves)) for halves in entered]
    assert admitted == [False] + [True] * SESSIONS_MAX


def test_each_port_has_a_cookie_of_its_own() -> None:
    assert cookie_name("127.0.0.1:7767") == "meshnode-7767"
    assert cookie_name("[::1]:7768") == "meshnode-7768"
    assert cookie_name("localhost") == "meshnode-80"


@pytest.mark.parametrize(
    ("method", "path", "is_for_all"),
    [
        ("GET", "/web/", True),
        ("HEAD", "/web/app.js", True),
        ("POST", "/web/key", True),
        ("POST", "/web/link", False),
        ("POST", "/web/leave", False),
        ("GET", "/website", False),
        ("GET", "/v1/events", False),
    ],
)
def test_what_is_for_everybody_at_this_machine(method: str, path: str, is_for_all: bool) -> None:
    assert is_open(method, path) is is_for_all

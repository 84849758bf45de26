"""Who may use the control interface from a browser.

A browser cannot read control.json, so `meshnode web` asks the daemon for a link. Its token is good once, and for a
minute; what it opens is a session of two halves, both random, both only in memory:

- the cookie, which no script can read and which is not sent for pages of other sites (HttpOnly, SameSite=Strict);
- the key, which the page asks for once, keeps in its own storage and sends in a header.

The cookie alone would not do: a browser sends it to every port of this machine, so to a server of another user too.
What a page stores is for its own port only. And what changes something must also say, by `Origin`, that it comes
from this very address, which no page of another address can make a browser say.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

LINK_S: Final = 60.0
SESSION_S: Final = 12 * 3600.0
#: Older links and sessions than so many end.
LINKS_MAX: Final = 8
SESSIONS_MAX: Final = 16

KEY_HEADER: Final = b"meshnode-key"
#: Of what changes something, all that a session may do; the rest is for programs.
WRITES: Final = ("/v1/messages", "/v1/quarantine/retry", "/web/leave")

Headers = Mapping[bytes, bytes]


def elapsed_s() -> float:
    """A clock that goes on while this machine is suspended, where there is one."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


@dataclass(slots=True)
class _Session:
    cookie: str
    key: str
    until_s: float
    key_given: bool = False


class Sessions:
    """The links and sessions of one daemon. `now_s` is a clock that only goes forward."""

    def __init__(self, now_s: Callable[[], float], draw: Callable[[], str] = secrets.token_urlsafe) -> None:
        self._now_s = now_s
        self._draw = draw
        self._links: list[tuple[str, float]] = []
        self._sessions: list[_Session] = []

    def link(self) -> str:
        """A token that `enter` takes once."""
        token = self._draw()
        self._links = [*self._links[1 - LINKS_MAX :], (token, self._now_s() + LINK_S)]
        return token

    def enter(self, token: str) -> str | None:
        """The cookie of a new session, for the token of a link; None if that is used, too old or none."""
        found = [link for link in self._links if _same(link[0], token)]
        self._links = [link for link in self._links if link not in found]
        if not found or found[0][1] < self._now_s():
            return None
        session = _Session(self._draw(), self._draw(), self._now_s() + SESSION_S)
        self._sessions = [*self._sessions[1 - SESSIONS_MAX :], session]
        return session.cookie

    def key(self, headers: Headers) -> str | None:
        """The other half of the session with this cookie, for the page that asks first."""
        session = self._find(headers)
        if session is None or session.key_given or not is_own_origin(headers):
            return None
        session.key_given = True
        return session.key

    def leave(self, headers: Headers) -> None:
        """End the session with this cookie."""
        session = self._find(headers)
        self._sessions = [each for each in self._sessions if each is not session]

    def admits(self, method: str, path: str, headers: Headers) -> bool:
        """Whether these headers belong to a session that may do this."""
        session = self._find(headers)
        if session is None or not _same(session.key, headers.get(KEY_HEADER, b"").decode("latin-1")):
            return False
        if method == "GET":
            return path.startswith("/v1/")
        return method == "POST" and path in WRITES and is_own_origin(headers)

    def _find(self, headers: Headers) -> _Session | None:
        self._sessions = [each for each in self._sessions if each.until_s > self._now_s()]
        cookie = _cookie(headers)
        return next((each for each in self._sessions if _same(each.cookie, cookie)), None)


def cookie_name(host: str) -> str:
    """Cookies are shared by all ports of this machine, where several nodes may run: so the port is in the name."""
    port = host.rpartition(":")[2]
    return f"meshnode-{port if port.isdecimal() else 80}"


def is_own_origin(headers: Headers) -> bool:
    """Whether a browser says that this request comes from a page of the address that it is for."""
    origin, host = headers.get(b"origin", b""), headers.get(b"host", b"")
    return bool(host) and origin == b"http://" + host


def is_open(method: str, path: str) -> bool:
    """What tells nothing of this node, and is for everybody at this machine: the page itself, and its door."""
    if method in ("GET", "HEAD"):
        return path == "/web" or path.startswith("/web/")
    return method == "POST" and path == "/web/key"  # asks for the cookie itself


def _cookie(headers: Headers) -> str:
    name = cookie_name(headers.get(b"host", b"").decode("latin-1"))
    for pair in headers.get(b"cookie", b"").decode("latin-1").split(";"):
        key, _, value = pair.strip().partition("=")
        if key == name:
            return value
    return ""


def _same(one: str, other: str) -> bool:
    return secrets.compare_digest(one.encode(), other.encode())

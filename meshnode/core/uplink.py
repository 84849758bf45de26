"""Why the office is not reached, told apart so that a person can do something about it.

A dial that fails ends in a `Failure`. Several causes end in the same one: where a host refuses the connection, the
office may be down, or the Wi-Fi may want a sign-in first and refuse everything until then. So what answers on the web
port of the same host is asked too (`Web`), for a page that cannot be there: what has one all the same, or sends the
reader to another host, is a sign-in page. `classify` makes a `Problem` of both. Nothing here is certain: a network
can lie in any way it likes.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from meshnode.core.words import Clause, Said, say


class Failure(enum.StrEnum):
    """How a dial failed, as far as it matters what to do next."""

    NO_NAME = "no-name"
    """The host's name was not resolved."""
    NO_ROUTE = "no-route"
    """This device has no way to there."""
    SILENT = "silent"
    """Nothing came back."""
    REFUSED = "refused"
    """The host is there, and nobody listens."""
    NOT_TLS = "not-tls"
    """Something answered that is no node."""
    OTHER_FLEET = "other-fleet"
    """Who answered has no certificate of this fleet."""
    BROKE = "broke"
    """The handshake began, and the other side ended it."""
    PROXY = "proxy"
    """The system's proxy does not let us through."""
    INTERFACE = "interface"
    """No network interface that is there may be used."""
    BUDGET = "budget"
    """None but metered ones are there, and their budget is used up."""


@dataclass(frozen=True, slots=True)
class Web:
    """What answered on the web port: the status of HTTP and its `Location`, which may be empty."""

    status: int
    location: str = ""


@dataclass(frozen=True, slots=True)
class Problem:
    """`code` is for programs, one of `CODES`; `text` says to people what is so and what to do."""

    code: str
    text: Said


#: The problem that an officer can do something about on the spot.
SIGN_IN: Final = "portal"

#: Of several addresses of the office, the problem is told that says most; these are in that order.
CODES: Final = (
    SIGN_IN,
    "proxy",
    "other-fleet",
    "refused",
    "office-down",
    "metered-budget",
    "interface",
    "no-internet",
    "no-network",
)

#: The web port says nothing more where one of these was the failure.
_CLEAR: Final = frozenset(
    {
        Failure.NO_NAME,
        Failure.NO_ROUTE,
        Failure.NOT_TLS,
        Failure.PROXY,
        Failure.INTERFACE,
        Failure.BUDGET,
    }
)

_TEXTS: Final = {
    SIGN_IN: say(
        "This network wants a sign-in before it lets anything through: open a web page in the browser and sign in."
    ),
    "no-network": say(
        "This device is in no network that leads to the office: switch on Wi-Fi or mobile data."
    ),
    "no-internet": say(
        "This network has no internet now, or the office is cut off from it: nothing to do here, colleagues carry the"
        " messages."
    ),
    "office-down": say("The internet works, but the office does not answer at {host}: tell the office."),
    "proxy": say(
        "The proxy of this network does not let us through to the office ({said}): ask whoever runs the network."
    ),
    "other-fleet": say(
        "What answers at {host} belongs to another fleet: have the office's address checked by the authority."
    ),
    "refused": say(
        "The office at {host} breaks the connection off ({said}): ask the office whether it admits this device."
    ),
    "interface": say(
        "Only networks are there that `uplink.interfaces` in config.toml does not allow for the office."
    ),
    "metered-budget": say(
        "The day's bytes for metered networks are used up: Wi-Fi still works, and the budget comes back by itself."
    ),
}

_CODES_OF: Final = {
    Failure.NO_NAME: "no-internet",
    Failure.NO_ROUTE: "no-network",
    Failure.SILENT: "no-internet",
    Failure.REFUSED: "office-down",
    Failure.NOT_TLS: SIGN_IN,
    Failure.OTHER_FLEET: "other-fleet",
    Failure.BROKE: "refused",
    Failure.PROXY: "proxy",
    Failure.INTERFACE: "interface",
    Failure.BUDGET: "metered-budget",
}


def needs_web(failure: Failure) -> bool:
    """Whether it is worth asking on the web port of the same host."""
    return failure not in _CLEAR


def is_sign_in(web: Web, host: str) -> bool:
    """Whether this is a sign-in page's answer for a page that `host` cannot have."""
    if web.status == 511 or 200 <= web.status < 300:  # 511: Network Authentication Required, RFC 6585
        return True
    if not 300 <= web.status < 400:
        return False
    try:
        there = urlsplit(web.location)
        # many a server sends everybody on to its own HTTPS
        return not (there.scheme == "https" and there.hostname == host.lower())
    except ValueError:
        return True


def classify(
    failure: Failure, said: object, host: str, *, connected: bool, web: Web | None = None
) -> Problem:
    """Why the office at `host` was not reached.

    `said` is the failure as a sentence or part of one, or its error; `connected` says whether this device has an
    address in any network; `web` is what answered on the web port if that was asked.
    """
    code = _CODES_OF[failure]
    if not connected:
        code = "no-network"
    elif web is not None and needs_web(failure):
        if is_sign_in(web, host):
            code = SIGN_IN
        elif failure is Failure.SILENT:
            code = "office-down"
    return Problem(code, _TEXTS[code].about(host=host, said=Clause(said)))


def most_telling(problems: Iterable[Problem]) -> Problem | None:
    """The one to show, of those of several addresses."""
    return min(problems, key=lambda problem: CODES.index(problem.code), default=None)

"""Why there is no uplink, from what a dial and a look at the web port have ended in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshnode.core.uplink import (
    CODES,
    Failure,
    Problem,
    Web,
    classify,
    is_sign_in,
    most_telling,
    needs_web,
)

HOST = "office.example"
PORTAL = Web(302, "http://login.hotspot.example/?next=office")
SERVER = Web(404)


@pytest.mark.parametrize(
    ("web", "is_one"),
    [
        (Web(200), True),
        (Web(511), True),
        (PORTAL, True),
        (Web(307, "/login"), True),
        (Web(302, ""), True),
        (Web(302, "https://[broken"), True),
        (Web(301, "http://office.example/x"), True),
        (Web(301, "https://office.example/meshnode-uplink-check"), False),
        (Web(301, "https://OFFICE.example:443/"), False),
        (Web(404), False),
        (Web(403), False),
        (Web(503), False),
        (Web(100), False),
    ],
)
def test_a_sign_in_page(web: Web, is_one: bool) -> None:
    assert is_sign_in(web, HOST) is is_one
    assert is_sign_in(web, HOST.upper()) is is_one


@pytest.mark.parametrize(
    ("failure", "web", "code"),
    [
        (Failure.NO_NAME, None, "no-internet"),
        (Failure.NO_ROUTE, None, "no-network"),
        (Failure.SILENT, None, "no-internet"),
        (Failure.SILENT, SERVER, "office-down"),
        (Failure.SILENT, PORTAL, "portal"),
        (Failure.REFUSED, None, "office-down"),
        (Failure.REFUSED, SERVER, "office-down"),
        (Failure.REFUSED, PORTAL, "portal"),
        (Failure.NOT_TLS, None, "portal"),
        (Failure.OTHER_FLEET, None, "other-fleet"),
        (
            Failure.OTHER_FLEET,
            PORTAL,
            "portal",
        ),  # which answers for the office, with a certificate of its own
        (Failure.BROKE, None, "refused"),
        (Failure.BROKE, SERVER, "refused"),
        (Failure.BROKE, PORTAL, "portal"),
        (Failure.PROXY, None, "proxy"),
        (Failure.INTERFACE, None, "interface"),
        (Failure.BUDGET, PORTAL, "metered-budget"),
    ],
)
def test_what_is_wrong(failure: Failure, web: Web | None, code: str) -> None:
    assert classify(failure, "it failed.", HOST, connected=True, web=web).code == code


@given(st.sampled_from(Failure), st.none() | st.builds(Web, st.integers(100, 599), st.text(max_size=20)))
def test_every_failure_has_a_sentence(failure: Failure, web: Web | None) -> None:
    problem = classify(failure, "it failed.", HOST, connected=True, web=web)
    assert problem.code in CODES
    text = str(problem.text)
    assert text.endswith(".")
    assert "{" not in text
    assert classify(failure, "it failed.", HOST, connected=False, web=web).code == "no-network"


def test_a_sentence_says_what_was_said() -> None:
    text = classify(Failure.PROXY, "the proxy 10.0.0.1:3128 refuses.", HOST, connected=True).text
    assert "(the proxy 10.0.0.1:3128 refuses)" in str(text)


def test_the_web_is_asked_only_where_it_says_more() -> None:
    assert {each for each in Failure if needs_web(each)} == {
        Failure.SILENT,
        Failure.REFUSED,
        Failure.OTHER_FLEET,
        Failure.BROKE,
    }


def test_the_most_telling_of_several() -> None:
    assert most_telling([]) is None
    problems = [Problem(code, code) for code in ("no-network", "office-down", "no-internet")]
    told = most_telling(problems)
    assert told is not None
    assert told.code == "office-down"

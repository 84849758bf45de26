"""Strangers against a real daemon, a small round of each kind: it goes on serving, and grows no more than so much."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial

import pytest

from meshnode.core.limits import MIB
from tests.app.fleets import Fleet, assert_refused
from tests.torture.outcome import Outcome
from tests.torture.siege import Siege
from tests.torture.strangers import Besieged, allow_files, one_round

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="attackers need 127.66.0.1, /proc tells the memory"
)

#: At the places that there are, 100 KB each; a deaf member's pile does not come about in so short a time.
GROWTH_BYTES = 64 * MIB


@pytest.fixture(scope="module")
def besieged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Besieged]:
    allow_files(1000)
    folder = tmp_path_factory.mktemp("siege")
    with Fleet(folder / "ours") as fleet, Fleet(folder / "theirs", "Garut") as others:
        yield Besieged(fleet, others)


ROUNDS = [
    ("half open", 400, 1),
    ("half open", 400, 20),
    ("handshakes by the byte", 300, 20),
    ("a port scan", 100, 4),
    ("garbage", 100, 4),
    ("false papers", 100, 4),
    ("a member by the byte", 4, 4),
    ("a deaf member", 1, 1),
]


@pytest.mark.parametrize(("what", "attackers", "houses"), ROUNDS)
def test_it_goes_on_serving(besieged: Besieged, what: str, attackers: int, houses: int) -> None:
    outcome, said = Outcome("strangers"), list[str]()
    one_round(besieged, what, attackers, houses, outcome, said.append, 0.2)
    outcome.check()
    assert besieged.memory_bytes() - besieged.base_bytes < GROWTH_BYTES, said


def test_the_log_says_what_it_was_and_not_a_thousand_times(besieged: Besieged) -> None:
    ana = besieged.ana
    says = {
        "garbage": ["http request"],
        "false papers": ["did not return", "verify failed", "unsupported protocol", "does not speak"],
        "half open": ["too many connections"],
    }
    for what, texts in says.items():
        attackers = 100 if what == "half open" else 8
        with Siege((ana.host, ana.port), besieged.deeds[what], attackers, 3, 0.2):
            for text in texts:
                besieged.fleet.until(f"it says {text!r}", partial(ana.logged, text))
    besieged.fleet.until("the stolen one is refused", partial(ana.logged, "no contact with dewi"))
    log = ana.log()
    assert log.count("no contact with dewi") == log.count(": revoked")
    assert log.count("turned away") < 150


def test_a_request_with_a_hostile_name_is_not_enrolled(besieged: Besieged) -> None:
    from meshnode.core.fields import pack
    from meshnode.core.identity import SigningKey

    key = SigningKey.from_seed(bytes(32))
    for name in ("../../x", "x\x1b[2J\ny", "x" * 65_536):
        body = pack([1, name, "officer", key.public.raw, b"", b""])
        path = besieged.fleet.folder / "evil.request"
        path.write_bytes(pack([body, key.sign(body)]))
        done = besieged.ana.call("authority", "enroll", besieged.fleet.directory, path)
        assert_refused(done, "not a whole enrolment request")
        assert "\x1b" not in done.stderr
        assert len(done.stderr) < 500
        found = {each.name for each in besieged.fleet.folder.rglob("*") if not each.name.isprintable()}
        assert not found
        assert not (besieged.fleet.folder.parent / "x").exists()
        assert not list(besieged.fleet.folder.rglob("x*"))

"""Real daemons and their ways to the office: through a proxy only, and by interfaces of which one costs.

The hamlet's network leads nowhere but to a proxy, or to the office by `wwan0`, which is mobile data.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.app.fleets import Fleet, Node
from tests.network import netns

WITHIN_S = 15.0
SMALL = {"form": bytes(1000)}
LARGE = {"photo": bytes(range(256)) * 3000}


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[netns.Lab, Fleet]]:
    if reason := netns.why_not():
        pytest.skip(reason)
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    with netns.Lab() as lab, Fleet(tmp_path) as fleet:
        yield lab, fleet


def settle(fleet: Fleet, name: str, host: netns.Host, role: str = "officer", settings: str = "") -> Node:
    """A member in a host that looks for nobody, so that only the office's addresses lead anywhere."""
    node = fleet.enroll(name, role)
    (node.home / "config.toml").write_text(f"discovery = false\n{settings}")
    node.namespace = host.namespace
    return node


def second_link(host: netns.Host, place: netns.Place, name: str, address: str) -> None:
    """Another interface of a host, into a place."""
    port = f"{name}p"
    host.ip("link", "add", name, "type", "veth", "peer", "name", port, "netns", place.namespace)
    host.ip("address", "add", address, "dev", name)
    host.ip("link", "set", name, "up")
    place.adopt(port)


def problem_of(node: Node) -> str | None:
    problem = node.get("status")["uplink_problem"]
    return None if problem is None else str(problem["code"])


def test_an_office_behind_a_proxy(
    world: tuple[netns.Lab, Fleet], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lab, fleet = world
    hamlet, internet = lab.place(), lab.place()
    gate = lab.host("10.1.0.1/24", hamlet)
    second_link(gate, internet, "eth1", "10.9.0.1/24")  # it forwards nothing
    proxy = gate.start(sys.executable, "-m", "tests.drivers.proxies", "10.1.0.1", "3128")
    proxy.expect("ready", WITHIN_S)
    office = settle(fleet, "office", lab.host("10.9.0.2/24", internet), "office")
    fleet.authority().set_addresses(("10.9.0.2:7766",))
    ana = settle(fleet, "ana", lab.host("10.1.0.2/24", hamlet))

    fleet.start(office)
    monkeypatch.setenv("https_proxy", "http://10.1.0.1:3128")
    fleet.start(ana)
    ana.give(LARGE)
    fleet.until("it is delivered", lambda: ana.states() == ["delivered"], WITHIN_S)
    assert ana.get("status")["uplink"] is True
    assert problem_of(ana) is None
    proxy.expect("10.9.0.2:7766", WITHIN_S)


def test_mobile_data_is_used_up_and_then_there_is_wifi(world: tuple[netns.Lab, Fleet]) -> None:
    lab, fleet = world
    internet = lab.place()
    office = settle(fleet, "office", lab.host("10.9.0.2/16", internet), "office")
    fleet.authority().set_addresses(("10.9.0.2:7766",))
    phone = lab.host()  # its Wi-Fi, eth0, is in no network yet
    second_link(phone, internet, "wwan0", "10.9.7.7/16")
    ana = settle(fleet, "ana", phone, settings="[uplink]\nmetered_bytes_a_day = 300_000\n")
    fleet.start(office, ana)

    ana.give(SMALL)
    fleet.until("the small one is delivered", lambda: ana.states() == ["delivered"], WITHIN_S)
    ana.give(LARGE)
    fleet.until("the budget is used up", lambda: problem_of(ana) == "metered-budget", WITHIN_S)
    assert ana.logged("contact with office ended: the day's bytes for metered networks are used up")
    assert ana.get("status")["uplink"] is False
    ana.stop()
    fleet.start(ana)
    fleet.until("a new start changes nothing", lambda: problem_of(ana) == "metered-budget", WITHIN_S)
    assert ana.states()[0] == "delivered"
    assert ana.states()[1] != "delivered"

    # wwan0 still has a route to there, of the same length
    phone.plug(internet)
    phone.set_address("10.9.0.7/16")
    fleet.until("all is delivered", lambda: ana.states() == ["delivered"] * 2, WITHIN_S)
    status = ana.get("status")
    assert status["uplink_problem"] is None
    spoken = subprocess.run(
        ["ip", "netns", "exec", phone.namespace, "ss", "-tnH", "state", "established"],
        check=False,
        capture_output=True,
        text=True,
    )
    assert "10.9.7.7" not in spoken.stdout


def test_no_network_and_then_one_that_is_not_allowed(world: tuple[netns.Lab, Fleet]) -> None:
    lab, fleet = world
    internet = lab.place()
    office = settle(fleet, "office", lab.host("10.9.0.2/24", internet), "office")
    fleet.authority().set_addresses(("10.9.0.2:7766",))
    host = lab.host()
    ana = settle(fleet, "ana", host, settings='[uplink]\ninterfaces = ["wlan*"]\n')
    fleet.start(office, ana)
    fleet.until("it is in no network", lambda: problem_of(ana) == "no-network", WITHIN_S)
    host.plug(internet)
    host.set_address("10.9.0.7/24")
    fleet.until("it is in the wrong one", lambda: problem_of(ana) == "interface", WITHIN_S)
    second_link(host, internet, "wlan0", "10.9.0.8/24")
    fleet.until("the office is reached", lambda: ana.get("status")["uplink"], WITHIN_S)
    (contact,) = ana.get("peers")
    assert contact["name"] == "office"
    assert problem_of(ana) is None

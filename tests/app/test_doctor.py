"""What the doctor says of nodes that are broken in one way each, and of one that is well.

Without namespaces discovery is off, so that nothing is said outside of loopback.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from meshnode.app.addresses import Address
from meshnode.app.config import Config
from meshnode.app.doctor import Finding, render
from meshnode.app.doctor.neighbourhood import Heard, judge_firewall, judge_hearing
from meshnode.app.doctor.papers import check_clock, check_disk, check_port
from meshnode.app.doctor.reaching import Answer, check_office, judge_peers, make_tls, remembered
from meshnode.app.home import Home
from meshnode.core.uplink import Failure
from meshnode.drivers.tls import NoContact
from tests.app.fleets import Fleet, Node, call, command, environment, run
from tests.network import netns

pytestmark = pytest.mark.slow

WITHIN_S = 10.0


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with Fleet(tmp_path / "fleet") as fleet:
        yield fleet


@pytest.fixture
def lab() -> Iterator[netns.Lab]:
    if reason := netns.why_not():
        pytest.skip(reason)
    with netns.Lab() as lab:
        yield lab


Told = dict[str, dict[str, Any]]


def told(done: subprocess.CompletedProcess[str]) -> Told:
    """The findings of `doctor --json`, by code; the exit code must be right."""
    findings = json.loads(done.stdout)
    assert done.stderr == ""
    for finding in findings:
        assert set(finding) == {"code", "ok", "text", "what_to_do"}
        assert finding["ok"] or finding["what_to_do"], "what is not well says what to do"
    assert done.returncode == (0 if all(finding["ok"] for finding in findings) else 1)
    return {finding["code"]: finding for finding in findings}


def ask(home: Path) -> Told:
    began_s = time.monotonic()
    done = call(home, "doctor", "--json")
    assert time.monotonic() - began_s < WITHIN_S
    return told(done)


def ask_in(namespace: str, home: Path) -> Told:
    done = subprocess.run(
        ["ip", "netns", "exec", namespace, *command(home), "doctor", "--json"],
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
        env=environment(),
    )
    return told(done)


def wrong(findings: Told) -> set[str]:
    return {code for code, finding in findings.items() if not finding["ok"]}


def configure(node: Node, *, peers: tuple[str, ...] = (), more: str = "") -> None:
    node.configure(peers=peers)
    path = node.home / "config.toml"
    path.write_text(path.read_text() + more)


# --- the home ---


def test_no_node(tmp_path: Path) -> None:
    findings = ask(tmp_path / "nowhere")
    assert "no-node" in wrong(findings)
    assert "meshnode init" in findings["no-node"]["what_to_do"]


def test_not_joined(tmp_path: Path) -> None:
    home = tmp_path / "home"
    Home(home).create("ana", "officer")
    findings = ask(home)
    assert "not-joined" in wrong(findings)
    assert "meshnode join" in findings["not-joined"]["what_to_do"]


def test_a_home_that_others_may_read(fleet: Fleet) -> None:
    ana = fleet.enroll("ana")
    (ana.home / "device.key").chmod(0o644)
    findings = ask(ana.home)
    assert "permissions" in wrong(findings)
    assert "chmod 600" in findings["permissions"]["what_to_do"]


def test_a_wrong_setting(fleet: Fleet) -> None:
    ana = fleet.enroll("ana")
    (ana.home / "config.toml").write_text("colour = 1\n")
    assert "`colour` is not a key" in ask(ana.home)["config"]["text"]


def test_a_device_that_knows_that_it_was_revoked(fleet: Fleet) -> None:
    fleet.enroll("office", "office")
    ana = fleet.enroll("ana")
    fleet.revoke(ana)
    assert call(ana.home, "fleet", "update", fleet.publish()).returncode == 0
    findings = ask(ana.home)
    assert {"revoked", "not-running"} <= wrong(findings)


def test_a_port_that_somebody_else_has(fleet: Fleet) -> None:
    ana = fleet.enroll("ana")
    with socket.create_server((ana.host, ana.port)):
        findings = ask(ana.home)
    assert "not-running" in wrong(findings)
    assert f"cannot listen at {ana.address} (another program holds it)" in findings["port"]["text"]


def test_for_people(fleet: Fleet) -> None:
    ana = fleet.enroll("ana")
    done = run(ana.home, "doctor")
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert lines[0] == "ok  ana is an officer of the fleet Tasikmalaya."
    at = lines.index("!!  The node is not running, so nothing is carried or delivered.")
    assert lines[at + 1] == "    Start it with `meshnode run`, or its service."
    assert lines[-1] == "1 of these needs something to be done."
    assert render([Finding("a", True, "Good.")]) == "ok  Good.\n\nAll is well."


# --- peers and the office ---


def test_all_is_well(fleet: Fleet) -> None:
    office, ana = fleet.enroll("office", "office"), fleet.enroll("ana")
    fleet.authority().set_addresses((office.address,))
    assert call(ana.home, "fleet", "update", fleet.publish()).returncode == 0
    fleet.start(office, ana)
    fleet.until("they are in contact", lambda: ana.get("status")["uplink"])
    since = len(ana.log())
    findings = ask(ana.home)
    assert wrong(findings) <= {"firewall"}, findings  # it listens on loopback only
    assert findings["office"]["text"] == "The office is reached from here."
    assert findings["running"]["text"] == "The node runs; devices in contact: 1."
    assert remembered(ana.home / "store.db", []) == [office.address]
    assert remembered(ana.home / "store.db", [office.device]) == []
    assert ask(office.home)["running"]["ok"]
    assert not ana.logged("ended", since), "the doctor disturbs nobody"


def test_who_is_away_is_no_illness_and_an_office_that_is_there(fleet: Fleet) -> None:
    office, ana, budi = fleet.enroll("office", "office"), fleet.enroll("ana"), fleet.enroll("budi")
    fleet.authority().set_addresses((office.address,))
    assert call(ana.home, "fleet", "update", fleet.publish()).returncode == 0
    configure(ana, peers=(budi.address,))
    fleet.start(office)
    findings = ask(ana.home)
    assert wrong(findings) == {"not-running"}
    assert findings["office"]["text"] == f"The office answers at {office.address}."
    assert findings["peers"]["text"] == "Nobody answered where nodes may be: 1 tried."
    assert findings["clock"]["text"] == "The clock agrees with those of others."


def test_a_peer_of_another_fleet(fleet: Fleet, tmp_path: Path) -> None:
    with Fleet(tmp_path / "other", "Garut") as other:
        stranger, ana = other.enroll("stranger"), fleet.enroll("ana")
        configure(ana, peers=(stranger.address,))
        other.start(stranger)
        findings = ask(ana.home)
    assert "other-fleet" in wrong(findings)
    assert stranger.address in findings["other-fleet"]["text"]


def test_a_device_that_does_not_know_that_it_was_revoked(fleet: Fleet) -> None:
    office, ana, budi = fleet.enroll("office", "office"), fleet.enroll("ana"), fleet.enroll("budi")
    fleet.authority().set_addresses((office.address,))
    assert call(ana.home, "fleet", "update", fleet.publish()).returncode == 0
    fleet.revoke(ana)
    for node in (office, budi):
        assert call(node.home, "fleet", "update", fleet.publish()).returncode == 0
    configure(ana, peers=(budi.address,))
    fleet.start(office, budi)
    findings = ask(ana.home)
    assert {"refused", "office-refused"} <= wrong(findings)
    assert f"budi ({budi.address})" in findings["refused"]["text"]


def test_an_office_that_is_down(fleet: Fleet) -> None:
    office, ana = fleet.enroll("office", "office"), fleet.enroll("ana")
    fleet.authority().set_addresses((office.address,))
    assert call(ana.home, "fleet", "update", fleet.publish()).returncode == 0
    fleet.start(ana)
    fleet.until("it knows", lambda: ana.get("status")["uplink_problem"])
    assert ana.get("status")["uplink_problem"]["code"] == "office-down"
    findings = ask(ana.home)
    assert "office-office-down" in wrong(findings)
    assert "tell the office" in findings["office-office-down"]["what_to_do"].lower()


@pytest.mark.parametrize(
    ("code", "contacts", "ok"),
    [
        ("no-internet", ["budi"], True),  # he carries it
        ("no-internet", [], False),
        ("portal", ["budi"], False),
    ],
)
async def test_an_uplink_that_a_hamlet_does_not_have(
    fleet: Fleet, code: str, contacts: list[str], ok: bool
) -> None:
    fleet.enroll("office", "office")
    fleet.authority().set_addresses(("192.0.2.1:7766",))
    home = Home(fleet.enroll("ana").home)
    membership = home.load()
    status = {
        "uplink": False,
        "contacts": contacts,
        "uplink_problem": {"code": code, "text": "So it is: wait."},
    }
    told, _ = await check_office(make_tls(home, membership), home, membership, Config(), status)
    assert told == Finding(f"office-{code}", ok, "So it is.", "Wait.")


# --- in networks of their own ---


def settle(fleet: Fleet, name: str, host: netns.Host, settings: str = "") -> Node:
    node = fleet.enroll(name)
    (node.home / "config.toml").write_text(settings)
    node.namespace = host.namespace
    return node


def test_no_address(fleet: Fleet, lab: netns.Lab) -> None:
    host = lab.host()
    ana = settle(fleet, "ana", host)
    assert "no-address" in wrong(ask_in(host.namespace, ana.home))


def test_nobody_is_heard_but_the_gateway(fleet: Fleet, lab: netns.Lab) -> None:
    place = lab.place()
    lab.host("10.77.0.1/24", place)
    host = lab.host("10.77.0.2/24", place)
    host.ip("route", "add", "default", "via", "10.77.0.1")
    ana = settle(fleet, "ana", host, 'peers = ["10.77.0.3:7766"]\n')
    findings = ask_in(host.namespace, ana.home)
    assert wrong(findings) == {"not-running", "neighbours", "isolation"}
    assert findings["neighbours"]["text"].startswith("No node of the fleet was heard")
    assert findings["isolation"]["text"].startswith("The gateway answers, and 1 device that ")


@pytest.mark.parametrize("multicast", [True, False])
def test_multicast(fleet: Fleet, lab: netns.Lab, multicast: bool) -> None:
    place = lab.place(multicast=multicast)
    here, there = lab.host("10.77.0.1/24", place), lab.host("10.77.0.2/24", place)
    ana, budi = settle(fleet, "ana", here), settle(fleet, "budi", there)
    fleet.start(budi)
    findings = ask_in(here.namespace, ana.home)
    assert wrong(findings) == {"not-running"}
    assert findings["neighbours"]["text"] == "Nodes of the fleet that answered in this network: 1."
    expected = "Multicast works" if multicast else "This network does not forward multicast"
    assert findings["multicast"]["text"].startswith(expected)


PORTAL = """
import http.server, sys

class Portal(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(302)
        self.send_header("Location", "http://login.hotspot.example/")
        self.end_headers()
server = http.server.HTTPServer(("10.9.0.2", 80), Portal)
print("ready", flush=True)
server.serve_forever()
"""


def test_a_portal(fleet: Fleet, lab: netns.Lab) -> None:
    place = lab.place()
    here, gate = lab.host("10.9.0.1/24", place), lab.host("10.9.0.2/24", place)
    gate.start(sys.executable, "-c", PORTAL).expect("ready", WITHIN_S)
    fleet.enroll("office", "office")
    fleet.authority().set_addresses(("10.9.0.2:7766",))
    ana = settle(fleet, "ana", here, "discovery = false\n")
    findings = ask_in(here.namespace, ana.home)
    assert "office-portal" in wrong(findings)

    fleet.start(ana)
    fleet.until("it is an alarm", lambda: [it["code"] for it in ana.get("status")["alarms"]] == ["portal"])
    assert ana.get("status")["uplink_problem"]["code"] == "portal"
    findings = ask_in(here.namespace, ana.home)
    assert "office-portal" in wrong(findings)
    assert "sign in" in findings["office-portal"]["what_to_do"]


# --- the parts ---


def test_hearing() -> None:
    own = ["10.0.0.1"]

    def codes(heard: Heard, *, in_contact: bool = False) -> dict[str, bool]:
        return {it.code: it.ok for it in judge_hearing(heard, own, in_contact=in_contact)}

    assert codes(Heard()) == {"multicast": False, "neighbours": False}
    assert codes(Heard(echoes={"10.0.0.1"})) == {"neighbours": False}
    assert codes(Heard(echoes={"10.0.0.1"}), in_contact=True) == {"neighbours": True}
    assert codes(Heard({"10.0.0.1"}, {"10.0.0.2"}, {"10.0.0.2"})) == {"multicast": True, "neighbours": True}
    heard = Heard(deaf={"10.0.0.1": "operation not permitted"})
    assert "10.0.0.1 (operation not permitted)" in judge_hearing(heard, own, in_contact=False)[0].text


@pytest.mark.parametrize(
    ("rules", "note"),
    [
        ("", False),
        ("-P INPUT ACCEPT\n-A INPUT -p tcp --dport 22 -j DROP", False),
        ("-P INPUT DROP\n-A INPUT -p tcp --dport 22 -j ACCEPT", True),
        ("-P INPUT DROP\n-A INPUT -p tcp --dport 7766 -j ACCEPT", False),
        ("chain input {\n type filter hook input priority filter; policy drop;\n tcp dport 22 accept", True),
        ("chain input {\n type filter hook input priority 0; policy accept;", False),
        ("type filter hook forward priority 0; policy drop;", False),
    ],
)
def test_firewall_rules(rules: str, note: bool) -> None:
    finding = judge_firewall(rules, 7766)
    assert (finding is not None) is note
    assert finding is None or finding.ok


def test_clocks() -> None:
    now_ms = time.time_ns() // 1_000_000
    assert check_clock([now_ms]).text == "The clock agrees with those of others."
    fast = check_clock([now_ms - 3_600_000, now_ms - 3_600_000, now_ms])
    assert fast.text == "The clock is 60 min fast, by the clocks of others."
    assert fast.ok, "nothing depends on it"
    assert "slow" in check_clock([now_ms + 3_600_000]).text


def test_disks(tmp_path: Path) -> None:
    assert check_disk(tmp_path, 0).ok
    assert check_disk(tmp_path, 2**60).code == "disk-full"
    assert check_disk(tmp_path / "gone", 0).code == "disk"
    if os.geteuid() == 0:
        assert check_disk(Path("/proc"), 0).code in ("disk-read-only", "disk-full")


def test_an_address_that_this_machine_does_not_have() -> None:
    assert "cannot assign" in check_port(Address("192.0.2.1", 7766), "listen").text


def test_a_store_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    assert remembered(path, []) == []
    path.write_bytes(b"no database" * 100)
    assert remembered(path, []) == []


def test_peers() -> None:
    silent = Answer("10.0.0.2:7766", problem=NoContact("no answer", Failure.SILENT))
    assert [it.code for it in judge_peers([])] == []
    assert [(it.code, it.ok) for it in judge_peers([silent])] == [("peers", True)]

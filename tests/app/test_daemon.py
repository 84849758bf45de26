"""Real daemons over loopback: whom they meet, whom they turn away, what they learn of each other, and how they end."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import ssl
import stat
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from meshnode.core.frames import ALPN
from meshnode.core.limits import MIB
from tests.app.fleets import Fleet, Node, connect, posted
from tests.app.relay import Relay

LINGER = struct.pack("ii", 1, 0)  # struct linger: on, 0 s, so that close() resets


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with Fleet(tmp_path) as fleet:
        yield fleet


def in_contact(fleet: Fleet, one: Node, *others: Node) -> None:
    """Wait until `one` is in contact with just these, and they with it."""
    names = sorted(other.name for other in others)
    fleet.until(f"{one.name} is in contact with {names}", lambda: sorted(one.contacts()) == names)
    for other in others:
        fleet.until(f"{other.name} too", lambda other=other: one.name in other.contacts())  # type: ignore[misc]


# --- its life ---


def test_a_daemon_starts_says_what_it_is_and_ends(fleet: Fleet) -> None:
    ana = fleet.enroll("ana")
    control = ana.home / "control.json"
    for number in (signal.SIGTERM, signal.SIGINT):
        fleet.start(ana)
        assert stat.S_IMODE(control.stat().st_mode) == 0o600
        assert ana.process is not None
        assert json.loads(control.read_bytes())["pid"] == ana.process.pid
        assert ana.logged(f"ana (officer of Tasikmalaya) listens on {ana.address}")
        check_status_of_a_new_device(ana)
        began_s = time.monotonic()
        ana.stop(number)
        assert time.monotonic() - began_s < 3
        assert not control.exists()
        assert ana.log().endswith("ended\n")


def check_status_of_a_new_device(ana: Node) -> None:
    status = ana.get("status")
    store = status.pop("store")
    assert store["quota_bytes"] == 8 << 30
    assert 0 < store["floor_bytes"] <= 256 * MIB
    assert store["free_bytes"] > 0
    assert 0 < store["bytes"] < MIB
    (alarm,) = status.pop("alarms")
    assert alarm["code"] == "no-office"
    assert status == {
        "device": {
            "name": "ana",
            "id": ana.device,
            "roles": ["officer"],
            "fleet": "Tasikmalaya",
            "fleet_version": 1,
        },
        "uplink": False,
        "uplink_problem": None,
        "messages": {
            "submitted": 0,
            "on_this_device_only": 0,
            "carried": 0,
            "delivered": 0,
            "accepted": 0,
            "refused": 0,
        },
        "received": 0,
        "oldest_waiting_s": None,
        "carrying": {"bundles": 0, "bytes": 0, "sources": 0},
        "contacts": [],
    }
    assert ana.get("messages") == []
    assert ana.get("peers") == []


@pytest.mark.slow
def test_what_is_known_outlives_a_restart(fleet: Fleet) -> None:
    office, ana, budi = fleet.enroll("office", "office"), fleet.enroll("ana"), fleet.enroll("budi")
    ana.configure(peers=[budi.address])
    fleet.start(ana, budi)
    first = ana.give({"photo": bytes(300_000)}, reference="Siti", kind="surat")
    fleet.until("it is carried", lambda: ana.states() == ["carried"])
    rows, carrying = ana.get("messages"), budi.get("status")["carrying"]
    ana.stop()
    budi.stop()
    fleet.start(ana)
    assert ana.get("messages") == rows
    assert ana.get("status")["contacts"] == []
    assert ana.get("status")["oldest_waiting_s"] is not None
    second = ana.give({"photo": b"2"})
    assert second["key"].endswith(":1"), "a new start is a new journal"
    assert second["key"] != first["key"]
    fleet.start(budi)
    in_contact(fleet, ana, budi)
    fleet.until("the second too", lambda: ana.states() == ["carried", "carried"])
    assert budi.get("status")["carrying"]["bundles"] == carrying["bundles"] + 1
    ana.stop()
    office.configure(peers=[budi.address])
    fleet.start(office)
    fleet.until("both are at the office", lambda: len(office.inbox()) == 2)
    assert office.get("status")["alarms"] == []
    fleet.start(ana)
    fleet.until("the source hears of it", lambda: ana.states() == ["delivered", "delivered"])


def test_ending_during_a_submission_leaves_nothing_of_it(fleet: Fleet) -> None:
    fleet.enroll("office", "office")
    ana = fleet.enroll("ana")
    fleet.start(ana)
    ana.give({"whole": b"1"})
    empty_bytes = ana.get("status")["store"]["bytes"]
    host, port, token = ana.door()
    body = posted({"torn": bytes(8 * MIB)})
    with connect(host, port) as program:
        head = f"POST /v1/messages HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n"
        program.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body[: 6 * MIB])
        fleet.until("it is on its way to the disk", lambda: ana.store_size() > 4 * MIB)
        ana.stop()
        fleet.start(ana)
    assert len(ana.get("messages")) == 1
    assert ana.get("status")["store"]["bytes"] < empty_bytes + MIB
    fleet.until("the disk has its space back", lambda: ana.store_size() < 2 * MIB)


# --- strangers ---


def reset(address: tuple[str, int]) -> None:
    with socket.create_connection(address) as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER)


def say(data: bytes) -> Callable[[tuple[str, int]], None]:
    def stranger(address: tuple[str, int]) -> None:
        with socket.create_connection(address) as talking:
            talking.settimeout(10)
            talking.sendall(data)
            try:
                while talking.recv(1000):
                    pass
            except ConnectionResetError:
                pass

    return stranger


def shake(
    alpn: str | None, maximum: ssl.TLSVersion, member: Node | None
) -> Callable[[tuple[str, int]], None]:
    def stranger(address: tuple[str, int]) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.maximum_version = maximum
        if alpn:
            context.set_alpn_protocols([alpn])
        if member is not None:
            context.load_cert_chain(member.home / "device.crt", member.home / "device.key")
        with socket.create_connection(address) as plain:
            plain.settimeout(10)
            try:
                with context.wrap_socket(plain) as tls:
                    assert tls.recv(1) == b""
            except (ssl.SSLError, ConnectionResetError):
                pass

    return stranger


@pytest.fixture(scope="module")
def open_house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Ana, who runs, and Budi, who does not yet."""
    with Fleet(tmp_path_factory.mktemp("open")) as fleet:
        ana, budi = fleet.enroll("ana"), fleet.enroll("budi")
        budi.configure(peers=[ana.address])
        fleet.start(ana)
        yield fleet


def is_open(ana: Node, budi: Node) -> bool:
    """Whether a member is greeted."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(ana.home / "authority.crt")
    context.load_cert_chain(budi.home / "device.crt", budi.home / "device.key")
    context.set_alpn_protocols([ALPN])
    try:
        with socket.create_connection((ana.host, ana.port), 10) as plain, context.wrap_socket(plain) as tls:
            return b"ana" in tls.recv(1000)
    except (ConnectionError, ssl.SSLError):
        return False


def test_strangers_are_turned_away_and_it_goes_on_serving(open_house: Fleet, tmp_path: Path) -> None:
    ana, budi = open_house.nodes["ana"], open_house.nodes["budi"]
    newest = ssl.TLSVersion.MAXIMUM_SUPPORTED
    with Fleet(tmp_path, "Garut") as others:
        foreigner = others.enroll("foreigner")
        strangers = {
            "HTTP": say(b"GET / HTTP/1.1\r\nHost: ana\r\n\r\n"),
            "garbage": say(bytes(range(256)) * 256),
            "a reset": reset,
            "no certificate": shake(ALPN, newest, None),
            "another fleet": shake(ALPN, newest, foreigner),
            "TLS 1.2": shake(ALPN, ssl.TLSVersion.TLSv1_2, budi),
            "no ALPN": shake(None, newest, budi),
            "another ALPN": shake("h2", newest, budi),
        }
        for what, stranger in strangers.items():
            stranger((ana.host, ana.port))
            assert ana.get("status")["contacts"] == [], what
            assert is_open(ana, budi), what
        for says in ("http request", "peer did not return", "verify failed", "unsupported protocol", ALPN):
            open_house.until(f"it says {says!r}", partial(ana.logged, says))
        lines = [line for line in ana.log().splitlines() if "was turned away" in line]
        assert len(lines) <= len(strangers)

        with Relay(ana.address, record=True) as relay:
            foreigner.configure(peers=[relay.address])
            others.start(foreigner)
            others.until("the foreigner has tried", lambda: all(relay.recorded))
            assert foreigner.contacts() == ana.contacts() == []
        assert not ana.logged("contact with foreigner")


def test_who_has_hung_up_before_it_looks_does_no_harm(open_house: Fleet) -> None:
    ana, budi = open_house.nodes["ana"], open_house.nodes["budi"]
    host, port, _ = ana.door()
    ana.signal(signal.SIGSTOP)
    for address in ((ana.host, ana.port), (host, port)):
        reset(address)
        socket.create_connection(address).close()
    ana.signal(signal.SIGCONT)
    assert ana.get("status")["contacts"] == []
    assert is_open(ana, budi)
    open_house.watch(0)


def test_a_crowd_of_strangers_does_not_end_a_contact(open_house: Fleet) -> None:
    ana, budi = open_house.nodes["ana"], open_house.nodes["budi"]
    citra = open_house.enroll("citra")
    open_house.start(budi)
    in_contact(open_house, ana, budi)
    with ExitStack() as crowd:
        for _ in range(300):
            crowd.enter_context(socket.create_connection((ana.host, ana.port)))
        open_house.until("it is too much", lambda: ana.logged("too many connections at once"))
        assert ana.contacts() == ["budi"]
    open_house.until("there is room again", lambda: is_open(ana, citra))


# --- one peer, one contact ---


def test_two_contacts_collapse_to_one(fleet: Fleet) -> None:
    fleet.enroll("office", "office")
    ana, budi = fleet.enroll("ana"), fleet.enroll("budi")
    # Each listens where the other will not find it by the address of a relay, which is 127.0.0.1.
    ana.host, budi.host = "127.0.0.2", "127.0.0.3"
    with Relay(budi.address) as to_budi, Relay(ana.address) as to_ana:
        ana.configure(peers=[to_budi.address])
        budi.configure(peers=[to_ana.address])
        for relay in (to_budi, to_ana):
            relay.hold_after(0)
        fleet.start(ana, budi)
        for turn in range(1, 4):
            said = len(ana.log()), len(budi.log())
            for relay in (to_budi, to_ana):
                relay.wait_held()
            for relay in (to_budi, to_ana):
                relay.flow()
            in_contact(fleet, ana, budi)
            ana.give({"a": bytes(600_000)})
            budi.give({"b": bytes(600_000)})
            fleet.until("both are carried", lambda: {*ana.states(), *budi.states()} == {"carried"})
            for node, since in zip((ana, budi), said, strict=True):
                assert len(node.contacts()) == 1
                opened = node.log()[since:].count(f"contact with {'budi' if node is ana else 'ana'} at")
                assert opened <= 2, node.log()
            assert ana.logged("duplicate", said[0]) or budi.logged("duplicate", said[1]), turn
            for relay in (to_budi, to_ana):
                relay.cut()
                relay.hold_after(0)


def test_it_does_not_meet_itself_nor_stumble_over_a_name_that_is_none(fleet: Fleet) -> None:
    ana, budi = fleet.enroll("ana"), fleet.enroll("budi")
    ana.configure(
        peers=["a..b:7766", f"{'x' * 64}.example:7766", "[::1]:9", ana.address, budi.address],
    )
    fleet.start(ana, budi)
    fleet.until("it notices", lambda: ana.logged("this is myself"))
    in_contact(fleet, ana, budi)
    assert ana.log().count(f"no contact with ana at {ana.address}: this is myself") == 1


# --- the fleet document ---


def version_on_disk(node: Node) -> int:
    from meshnode.app.home import Home

    return Home(node.home).load().document.version


@pytest.mark.slow
def test_a_revocation_spreads_and_ends_contacts_at_once(fleet: Fleet) -> None:
    office = fleet.enroll("office", "office")
    ana, budi, citra = fleet.enroll("ana"), fleet.enroll("budi"), fleet.enroll("citra")
    ana.configure(peers=[budi.address])
    citra.configure(peers=[budi.address])
    fleet.start(ana, budi, citra)
    in_contact(fleet, budi, ana, citra)

    fleet.revoke(citra)
    said = ana.run("fleet", "update", fleet.publish())
    assert (said.returncode, said.stdout) == (0, "ana now has version 3 of the fleet document.\n")
    fleet.until("the contact ends", lambda: budi.contacts() == ["ana"])
    assert budi.logged("contact with citra ended: revoked")
    for node in (ana, budi, citra):
        fleet.until(
            f"{node.name} has it",
            lambda node=node: node.get("status")["device"]["fleet_version"] == 3,  # type: ignore[misc]
        )
        assert version_on_disk(node) == 3
    assert [alarm["code"] for alarm in citra.get("status")["alarms"]] == ["revoked"]
    fleet.until("it is refused when it comes again", lambda: budi.logged("no contact with citra"))
    assert citra.contacts() == []
    assert budi.contacts() == ["ana"]

    # a node that has been away refuses it as soon as it knows
    office.configure(peers=[budi.address])
    citra.stop()
    citra.configure(peers=[office.address])
    fleet.start(office)
    in_contact(fleet, budi, ana, office)
    fleet.until("the office has it", lambda: version_on_disk(office) == 3)
    fleet.start(citra)
    fleet.until("the office refuses it", lambda: office.logged("no contact with citra"))
    assert citra.contacts() == []


@pytest.mark.slow
def test_what_a_revoked_device_submitted_before_still_arrives_and_is_held_apart(fleet: Fleet) -> None:
    office = fleet.enroll("office", "office")
    budi, citra = fleet.enroll("budi"), fleet.enroll("citra")
    budi.configure(peers=[office.address])
    citra.configure(peers=[budi.address])
    fleet.start(budi, citra)
    in_contact(fleet, budi, citra)
    assert budi.run("fleet", "update", fleet.publish()).returncode == 0  # which names the office
    fleet.until("citra has it", lambda: not citra.get("status")["alarms"])
    key = citra.give({"before": b"before it was stolen"})["key"]
    fleet.until("budi carries it", lambda: budi.get("status")["carrying"]["bundles"] == 1)
    citra.stop()
    fleet.revoke(citra)
    assert office.run("fleet", "update", fleet.publish()).returncode == 0
    fleet.start(office)
    held = fleet.until(
        "it arrives", lambda: list((office.home / "inbox/held").glob("*/citra/*/message.json"))
    )
    record = json.loads(held[0].read_bytes())
    assert (record["key"], record["held"]) == (key, "the source device was revoked")
    fleet.until("budi is free", lambda: budi.get("status")["carrying"]["bundles"] == 0)


def test_an_older_or_false_document_changes_nothing_in_a_running_node(fleet: Fleet, tmp_path: Path) -> None:
    ana = fleet.enroll("ana")
    oldest = fleet.publish().read_bytes()
    fleet.enroll("office", "office")
    fleet.start(ana)
    newest = fleet.publish()
    assert ana.run("fleet", "update", newest).returncode == 0
    (tmp_path / "old").write_bytes(oldest)
    done = ana.run("fleet", "update", tmp_path / "old")
    assert done.returncode == 1
    assert "older than version 2" in done.stderr
    again = ana.run("fleet", "update", newest)
    assert again.stdout == "ana already has version 2 of the fleet document.\n"
    assert ana.get("status")["device"]["fleet_version"] == 2
    assert ana.get("status")["alarms"] == []


@pytest.mark.slow
def test_who_was_enrolled_before_the_office_learns_of_it_in_a_contact(fleet: Fleet, tmp_path: Path) -> None:
    ana = fleet.enroll("ana")
    office = fleet.enroll("office", "office")
    budi = fleet.enroll("budi")
    (tmp_path / "photo").write_bytes(b"photo")
    fleet.start(ana)
    refused = ana.run("submit", tmp_path / "photo")
    assert refused.returncode == 1
    assert "names no office yet" in refused.stderr
    assert [alarm["code"] for alarm in ana.get("status")["alarms"]] == ["no-office"]

    ana.stop()
    ana.configure(peers=[budi.address])
    budi.configure(peers=[office.address])
    fleet.start(ana, budi, office)
    in_contact(fleet, ana, budi)
    fleet.until("it knows the office", lambda: ana.get("status")["alarms"] == [])
    key = ana.submit(tmp_path / "photo")["key"]
    fleet.until("it arrives", lambda: key in office.inbox())
    fleet.until("it is delivered", lambda: ana.states() == ["delivered"])


# --- a peer that ends ---


@pytest.mark.slow
def test_the_end_of_a_peer_is_noticed_at_once_and_its_return_soon(fleet: Fleet) -> None:
    ana, budi = fleet.enroll("ana"), fleet.enroll("budi")
    ana.configure(peers=[budi.address])
    fleet.start(ana, budi)
    for end in (budi.stop, budi.kill):
        in_contact(fleet, ana, budi)
        end()
        fleet.until("it is noticed", lambda: ana.contacts() == [], within_s=2)
        fleet.start(budi)
    in_contact(fleet, ana, budi)


@pytest.mark.slow
def test_the_store_of_a_restored_copy_is_noticed_by_the_office_and_nothing_is_lost(fleet: Fleet) -> None:
    office, ana = fleet.enroll("office", "office"), fleet.enroll("ana")
    ana.configure(peers=[office.address])
    fleet.start(office, ana)
    keys = [ana.give({"before": b"1"})["key"]]
    fleet.until("it is delivered", lambda: ana.states() == ["delivered"])
    ana.stop()
    copy = (ana.home / "store.db").read_bytes()
    for what in (b"lost with the copy", b"after the copy"):
        fleet.start(ana)
        keys.append(ana.give({"f": what})["key"])
        fleet.until("it is delivered", lambda: set(ana.states()) == {"delivered"})
        ana.stop()
        (ana.home / "store.db").write_bytes(copy)
    assert set(office.inbox()) == set(keys)
    assert len(set(keys)) == 3
    fleet.until("the office says so", lambda: office.get("status")["alarms"])
    (alarm,) = office.get("status")["alarms"]
    assert alarm["code"] == "restored"
    assert "ana" in alarm["text"]


# --- gateways ---


def test_a_gateway_with_the_offices_keys_hands_on_and_signs(fleet: Fleet) -> None:
    gateway = fleet.enroll("gerbang", "gateway")
    office, ana = fleet.enroll("kantor", "office"), fleet.enroll("ana")
    gateway.configure(sink="directory:inbox")
    ana.configure(peers=[gateway.address])
    for name in ("office.key", "office.seal"):
        shutil.copy(office.home / name, gateway.home / name)
    fleet.start(gateway)
    assert gateway.get("status")["device"]["roles"] == ["gateway"], "its document knows of no office yet"
    gateway.stop()
    assert gateway.run("fleet", "update", fleet.publish()).returncode == 0
    fleet.start(gateway, ana)
    status = gateway.get("status")
    assert status["device"]["roles"] == ["gateway", "office"]
    assert status["store"]["quota_bytes"] == 64 << 30
    assert status["uplink"] is True
    fleet.until("ana is in contact", lambda: ana.contacts() == ["gerbang"])
    assert ana.get("peers")[0]["roles"] == ["gateway", "office"]
    key = ana.give({"photo.jpg": bytes(300_000)})["key"]
    fleet.until("it is delivered by a gateway", lambda: ana.states() == ["delivered"])
    assert list(gateway.inbox()) == [key]

"""Who is met: contacts that open, collapse, fall silent, break the protocol and end."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshnode.app.report import alarms
from meshnode.core.bundle import sign_bundle
from meshnode.core.frames import (
    BUCKETS,
    BundleFrame,
    Bye,
    Cert,
    Finished,
    Frame,
    Have,
    Held,
    Hello,
    Ping,
    Pong,
    ReceiptFrame,
    Stored,
    Want,
    Wanted,
    encode,
    encode_bundle,
)
from meshnode.core.frames import Fleet as FleetFrame
from meshnode.core.identity import JournalId, SigningKey, issue_certificate
from meshnode.core.intervals import Ranges
from meshnode.core.limits import CONTACTS_MAX, DEAD_AFTER_S, HANDSHAKE_S, PING_AFTER_S, SHUN_S
from meshnode.core.ports import DocumentGiven, Lost, Opened, Sighted, Tick
from meshnode.core.receipt import issue_receipt
from tests.core.fleets import Fleet, Source, seed
from tests.core.hosts import PORT, Host, Puppet
from tests.core.worlds import End, Pipe, World

FLEET = Fleet()
DEWI = Source(FLEET, "dewi")


# --- opening and greeting ---------------------------------------------------------------------------------------


def test_hello_comes_first_then_what_is_held() -> None:
    host = Host(FLEET)
    host.submit(b"record")
    host.settle()
    agus = host.meet("agus", greet=False)
    assert [type(frame) for frame in agus.heard] == [Hello], "until the peer has said it, too"
    (hello,) = agus.take(Hello)
    assert hello == Hello("siti", ("officer",), PORT, 1, host.clock.instant.wall_ms, False, hello.free_bytes)
    assert hello.free_bytes > 0
    agus.greet()
    (have,) = agus.take(Have)
    assert have == Have(True, (Held(host.own_journal, Ranges.single(1), 0),))


def test_the_fleet_document_comes_before_anything_else() -> None:
    host = Host(FLEET)
    host.handle(DocumentGiven(FLEET.write_document(3)))
    agus = host.meet("agus")
    assert [type(frame) for frame in agus.heard[:3]] == [Hello, FleetFrame, Have]
    assert FleetFrame not in [type(frame) for frame in host.meet("wati", greet=False).heard]


def test_where_a_peer_was_met_is_remembered() -> None:
    host = Host(FLEET)
    host.meet("agus")
    host.meet("wati", dialled=True)
    host.meet("dewi", greet=False)
    host.settle()
    host.restart()
    assert sorted(host.dials) == [f"agus:{PORT}", f"wati:{PORT}"]


def test_a_version_that_is_not_spoken_here() -> None:
    host = Host(FLEET)
    agus = host.meet("agus", greet=False)
    agus.says(Hello("agus", ("officer",), PORT, 1, 0, False, 0, version_min=2, version_max=9))
    assert agus.closed == "HELLO.version does not include 1."
    wati = host.meet("wati", greet=False)
    wati.says(Hello("wati", ("officer",), PORT, 1, 0, False, 0, version_min=0, version_max=9))
    assert wati.closed is None


def test_hello_may_come_again() -> None:
    host = Host(FLEET)
    agus = host.meet("agus")
    agus.heard.clear()
    agus.says(Hello("agus", ("gateway",), PORT, 1, 0, True, 0))
    assert agus.heard == []
    (contact,) = host.node.state.contacts.values()
    assert contact.hello is not None
    assert contact.hello.uplink


def test_this_device_is_no_peer() -> None:
    host = Host(FLEET)
    assert host.meet(host.name, dialled=True).closed == "this is myself"


def test_as_many_contacts_as_there_may_be() -> None:
    host = Host(FLEET)
    host.meet("agus")
    contacts = host.node.state.contacts
    (contact,) = contacts.values()
    for number in range(1, CONTACTS_MAX):
        contacts[-number] = contact
    assert host.meet("wati").closed == "too many contacts"
    del contacts[-1]
    assert host.meet("wati").closed is None


# --- liveness ---------------------------------------------------------------------------------------------------


def test_a_ping_after_silence_and_an_answer_to_one() -> None:
    host = Host(FLEET)
    agus = host.meet("agus")
    host.pass_time(PING_AFTER_S - 1)
    assert agus.take(Ping) == []
    host.pass_time(1)
    assert agus.take(Ping) == [Ping()]
    agus.says(Ping())
    assert agus.take(Pong) == [Pong()]
    host.pass_time(PING_AFTER_S - 1)
    assert agus.take(Ping) == []


def test_a_silent_peer_is_given_up_and_dialled_again() -> None:
    host = Host(FLEET)
    agus = host.meet("agus")
    host.pass_time(DEAD_AFTER_S - 1)
    assert agus.ended() is None
    host.pass_time(1)
    assert agus.ended() == "silent"
    assert agus.take(Bye) == [Bye("silent")]
    assert host.node.state.contacts == {}
    assert f"agus:{PORT}" in host.dials


@pytest.mark.parametrize("frame", [Pong(), Have(False, ()), Want(0, ())])
def test_whatever_a_peer_says_keeps_it_alive(frame: Frame) -> None:
    host = Host(FLEET)
    agus = host.meet("agus")
    for _ in range(10):
        host.pass_time(DEAD_AFTER_S - 1)
        agus.says(frame)
    assert agus.closed is None


def test_a_peer_that_never_greets() -> None:
    host = Host(FLEET)
    agus = host.meet("agus", greet=False)
    host.pass_time(HANDSHAKE_S + 1)
    assert agus.closed == "said no HELLO"
    assert agus.take(Bye) == [], "it would not understand"


def test_bye_ends_it() -> None:
    host = Host(FLEET)
    agus = host.meet("agus")
    agus.says(Bye("going home"), Ping())
    assert agus.take(Pong) == [], "it would go nowhere"
    assert agus.closed == "going home"
    assert host.node.state.contacts == {}
    assert any("going home" in line for line in host.logs)
    assert host.meet("agus").closed is None, "that is no fault"


def test_what_comes_late_for_a_contact_that_is_over_is_ignored() -> None:
    host = Host(FLEET)
    agus = host.meet("agus")
    agus.lose()
    assert agus.writes(b"whatever") == []
    assert host.handle(Lost(agus.number, "broken")) == []


# --- who breaks the protocol ------------------------------------------------------------------------------------

WRONG_KEY = SigningKey.from_seed(seed("nobody"))
FORGED = sign_bundle(DEWI.bundle(1).header, DEWI.bundle(1).payload, WRONG_KEY)
FALSE_RECEIPT = issue_receipt(WRONG_KEY, FLEET.endpoint, DEWI.journal, 1, Ranges.single(1), 0)
STRANGER = issue_certificate(WRONG_KEY, "Tasikmalaya", "eve", "officer", WRONG_KEY.public, 1)
FALSE_DOCUMENT = FLEET.write_document(9).signed(WRONG_KEY)


def ready(agus: Puppet) -> None:
    """Have a bundle of dewi's asked for, so that there is credit."""
    agus.says(Cert(DEWI.certificate.der), Have(False, (Held(DEWI.journal, Ranges.span(1, 3), 0),)))


def says(*frames: Frame) -> Callable[[Puppet], None]:
    """Say these after making ready."""

    def deed(agus: Puppet) -> None:
        ready(agus)
        agus.says(*frames)

    return deed


def rotten(agus: Puppet) -> None:
    """A bundle that is altered on the way."""
    ready(agus)
    data = encode(BundleFrame(0, DEWI.bundle(1)))
    agus.writes(data[:-1] + bytes((data[-1] ^ 1,)))


def shortened(agus: Puppet) -> None:
    """A bundle that takes less, or more, than it costs in credit."""
    ready(agus)
    bundle = DEWI.bundle(1)
    agus.writes(encode_bundle(0, bundle.header_bytes, bundle.signature, bundle.payload + b"x"))


FAULTS: dict[str, tuple[Callable[[Puppet], None], str]] = {
    "garbage": (lambda agus: _ignore(agus.writes(b"\0\0\0\1\xc1")), "not well-formed"),
    "too large": (lambda agus: _ignore(agus.writes(b"\xff" * 4)), "frame has 4294967295 bytes"),
    "unknown kind": (lambda agus: _ignore(agus.writes(b"\0\0\0\2\x91\x63")), "unknown kind"),
    "uncertified": (lambda agus: _ignore(agus.gives(DEWI.bundle(1), certify=False)), "without credit"),
    "no credit": (lambda agus: _ignore(agus.gives(DEWI.bundle(1))), "without credit"),
    "forged": (says(BundleFrame(0, FORGED)), "header has a false signature"),
    "altered": (rotten, "payload has not the digest"),
    "longer": (shortened, "payload has not the size"),
    "false receipt": (says(ReceiptFrame(FALSE_RECEIPT.body, FALSE_RECEIPT.signature)), "false signature"),
    "no receipt": (says(ReceiptFrame(b"\x90", bytes(64))), "receipt has 0 items"),
    "false certificate": (says(Cert(STRANGER)), "device certificate has a false signature"),
    "no certificate": (says(Cert(b"x")), "not an X.509 certificate"),
    "false document": (says(FleetFrame(FALSE_DOCUMENT.body, FALSE_DOCUMENT.signature)), "false signature"),
}


def _ignore(_: object) -> None:
    """A lambda's result."""


@pytest.mark.parametrize(("deed", "problem"), FAULTS.values(), ids=FAULTS)
def test_a_fault_ends_that_contact_only_and_its_peer_is_left_alone_for_a_while(
    deed: Callable[[Puppet], None], problem: str
) -> None:
    host = Host(FLEET)
    agus, wati = host.meet("agus", dialled=True), host.meet("wati")
    deed(agus)
    host.settle()
    assert agus.closed is not None
    assert problem in agus.closed
    assert agus.take(Bye) == [Bye(agus.closed)]
    assert wati.closed is None
    assert [contact.peer.name for contact in host.node.state.contacts.values()] == ["wati"]
    assert any(line.startswith("agus broke the protocol") for line in host.logs)
    host.clock.s += SHUN_S - 1
    wati.says(Ping())
    assert host.meet("agus").closed == "it broke the protocol a moment ago"
    host.clock.s += 2
    wati.says(Ping())
    assert host.meet("agus").closed is None
    assert wati.closed is None


def test_a_bundle_before_the_certificate_of_its_source() -> None:
    host = Host(FLEET)
    agus = host.meet("agus")
    agus.says(Have(False, (Held(DEWI.journal, Ranges.single(1), 0),)))
    agus.gives(DEWI.bundle(1), certify=False)
    assert agus.closed == "BUNDLE came before the certificate of its source."


def test_a_receipt_of_an_endpoint_that_is_not_the_journals() -> None:
    """An endpoint signs for what goes to it, and for nothing else."""
    host = Host(FLEET)
    agus = host.meet("agus")
    ready(agus)
    agus.gives(DEWI.bundle(1))
    host.settle()
    other = FLEET.write_document(2)
    key = SigningKey.from_seed(seed("another endpoint"))
    endpoint = type(other.endpoints[0])((FLEET.sealing.public,), key.public, ())
    both = type(other)(
        other.fleet, 2, other.name, (*other.endpoints, endpoint), other.revoked, other.lifetime_s
    ).signed(FLEET.authority)
    receipt = issue_receipt(key, endpoint.id, DEWI.journal, 1, Ranges.single(1), 0)
    agus.says(ReceiptFrame(receipt.body, receipt.signature))
    assert agus.ended() is None, "an endpoint that this node has not heard of may be a new one"
    agus.says(FleetFrame(both.body, both.signature))
    agus.says(ReceiptFrame(receipt.body, receipt.signature))
    assert agus.ended() == "receipt.endpoint is not where its journal goes."
    assert host.journal(DEWI.journal).held == Ranges.single(1)


def test_what_came_before_a_fault_in_the_same_breath_is_kept() -> None:
    host = Host(FLEET)
    agus, wati = host.meet("agus"), host.meet("wati")
    ready(agus)
    agus.writes(
        encode(BundleFrame(0, DEWI.bundle(1))) + b"\0\0\0\1\xc1" + encode(BundleFrame(0, DEWI.bundle(2)))
    )
    assert agus.closed is not None
    host.settle()
    assert host.stored(DEWI.journal) == Ranges.single(1)
    assert wati.take(Stored) == [Stored(((DEWI.journal, Ranges.single(1), False),))]


def test_what_a_faulty_peer_owed_is_asked_of_others() -> None:
    host = Host(FLEET)
    agus, wati = host.meet("agus"), host.meet("wati")
    for puppet in (agus, wati):
        ready(puppet)
    assert wati.asked() == {}
    agus.writes(b"\xff" * 4)
    assert wati.asked() == {DEWI.journal: Ranges.span(1, 3)}


OWN = Host(FLEET).own_journal
some_ranges = st.sets(st.integers(1, 6), max_size=5).map(Ranges.of)
some_journal = st.sampled_from([DEWI.journal, OWN, JournalId(b"j" * 16)])
serials = st.sampled_from([0, 1, 1 << 16, 2**62])
held = st.builds(Held, some_journal, some_ranges, serials)
wanted = st.builds(Wanted, some_journal, some_ranges, some_ranges, st.booleans())
bundles = [DEWI.bundle(1), DEWI.bundle(2, part=1, parts=2), FORGED, Source(FLEET, "siti").bundle(1)]
receipts = [*(FLEET.receipt(j, Ranges.span(1, 2)) for j in (DEWI.journal, OWN)), FALSE_RECEIPT]
documents = [FLEET.document, FLEET.write_document(2), FLEET.write_document(3, revoked=["agus"])]


def some_hello(port: int, version: int, uplink: bool) -> Hello:
    """A HELLO of agus."""
    return Hello("agus", ("officer",), port, version, 0, uplink, 0)


#: Any frame that a member may write, whether it makes sense or not.
frames: st.SearchStrategy[Frame] = st.one_of(
    st.builds(some_hello, st.sampled_from([0, PORT]), st.integers(0, 3), st.booleans()),
    st.sampled_from([FleetFrame(document.body, document.signature) for document in documents]),
    st.builds(Have, st.booleans(), st.lists(held, max_size=3).map(tuple)),
    st.sampled_from([ReceiptFrame(receipt.body, receipt.signature) for receipt in receipts]),
    st.sampled_from([DEWI.certificate.der, FLEET.certificate("siti").der, STRANGER]).map(Cert),
    st.builds(Want, st.sampled_from([0, 2000, 2**63 - 1]), st.lists(wanted, max_size=3).map(tuple)),
    st.builds(BundleFrame, st.sampled_from([0, 2**40]), st.sampled_from(bundles)),
    st.lists(st.tuples(some_journal, some_ranges, st.booleans()), max_size=3).map(
        lambda rows: Stored(tuple(rows))
    ),
    st.sampled_from([Ping(), Pong(), Bye("enough")]),
    st.sampled_from([1, BUCKETS]).map(lambda count: Finished((b"12345678",) * count)),
)


@given(st.data())
@settings(max_examples=150)
def test_whatever_a_member_says_the_node_lives_on(data: st.DataObject) -> None:
    """No frame, however senseless, does more than end its own contact."""
    host = Host(FLEET, role="office") if data.draw(st.booleans()) else Host(FLEET)
    host.submit(b"record")
    host.settle()
    wati = host.meet("wati")
    agus = host.meet("agus")
    for _ in range(data.draw(st.integers(1, 12))):
        if agus.closed is not None:
            break
        agus.says(data.draw(frames))
        match data.draw(st.integers(0, 5)):
            case 0:
                host.commit()
            case 1:
                host.fail()
            case 2:
                host.handle(Tick())
            case 3:
                host.clock.s += 30.0
                wati.says(Ping())
    host.settle()
    assert wati.closed is None
    wati.says(Ping())
    assert wati.take(Pong)[-1] == Pong()
    assert host.stored(host.own_journal) == Ranges.single(1)
    (entry,) = host.journal(host.own_journal).entries.values()
    assert entry.first == 1


# --- revocation and the fleet document --------------------------------------------------------------------------


def test_a_revoked_peer_is_refused_at_once() -> None:
    host = Host(FLEET)
    agus, wati = host.meet("agus"), host.meet("wati")
    host.handle(DocumentGiven(FLEET.write_document(2, revoked=["agus"])))
    assert agus.closed == "revoked"
    assert agus.take(FleetFrame) != [], "it is told why"
    assert wati.closed is None
    again = host.meet("agus", greet=False)
    assert again.closed == "revoked"
    assert again.heard == []
    host.restart()
    assert host.meet("agus").closed == "revoked"


def test_a_newer_document_is_adopted_and_spread_and_an_older_one_is_not() -> None:
    host = Host(FLEET)
    agus, wati = host.meet("agus"), host.meet("wati")
    newer, newest = FLEET.write_document(5, addresses=["office:1"]), FLEET.write_document(6)
    agus.says(FleetFrame(newer.body, newer.signature))
    assert host.identity.document.version == 5
    assert wati.take(FleetFrame) == [FleetFrame(newer.body, newer.signature)]
    assert host.dials == ["office:1"]
    for old in (FLEET.document, newer):
        agus.says(FleetFrame(old.body, old.signature))
    assert host.identity.document.version == 5
    assert wati.take(FleetFrame) == []
    wati.says(FleetFrame(newest.body, newest.signature))
    assert host.identity.document.version == 6
    host.pass_time(3600, ticks=60)
    assert host.dials.count("office:1") == 1, "the office has no address any more"


def test_a_document_travels_along_a_chain() -> None:
    world = World(FLEET)
    names = ["siti", "agus", "wati", "dewi"]
    for name in names:
        world.add(name)
    for one, other in itertools.pairwise(names):
        world.link(one, other)
        world.open(world.hosts[one], world.hosts[other])
    world.run()
    world.hosts["siti"].handle(DocumentGiven(FLEET.write_document(2)))
    world.run()
    assert [world.hosts[name].identity.document.version for name in names] == [2, 2, 2, 2]


# --- two contacts with one peer ---------------------------------------------------------------------------------

LOW, HIGH = FLEET.by_id("siti", "agus")


def pair() -> tuple[World, Host, Host]:
    """A world of the device with the lower id and the one with the higher."""
    world = World(FLEET)
    low, high = world.add(LOW), world.add(HIGH)
    world.link(LOW, HIGH)
    return world, low, high


def connect(world: World, dialler: Host, other: Host) -> tuple[Pipe, list[tuple[End, Host, bool]]]:
    """A connection of which neither side knows yet, and the two openings."""
    world._numbers += 2
    near = End(dialler, world._numbers, f"{other.name}:{PORT}")
    far = End(other, world._numbers + 1, f"{dialler.name}:{50_000 + world._numbers}")
    near.ready = far.ready = False
    pipe = Pipe(near, far)
    world.pipes.append(pipe)
    return pipe, [(near, other, True), (far, dialler, False)]


def open_end(end: End, peer: Host, dialled: bool) -> None:
    """One side's TLS stands."""
    end.ready = True
    if not end.gone:
        end.host.lines[end.number] = end
        end.host.handle(Opened(end.number, peer.identity.certificate, dialled, end.address))


def numbers(host: Host) -> list[int]:
    """Its contacts."""
    return sorted(host.node.state.contacts)


ORDERS = list(itertools.permutations(range(4)))
DIALS = {"both at once": (LOW, HIGH), "the lower twice": (LOW, LOW), "the higher twice": (HIGH, HIGH)}


@pytest.mark.parametrize("diallers", DIALS.values(), ids=DIALS)
@pytest.mark.parametrize("run_after", range(5))
def test_two_contacts_collapse_to_one_whatever_the_order(diallers: tuple[str, str], run_after: int) -> None:
    for order in ORDERS:
        world, low, high = pair()
        openings: list[tuple[End, Host, bool]] = []
        for name in diallers:
            openings += connect(world, world.hosts[name], high if name == LOW else low)[1]
        for at, which in enumerate(order):
            open_end(*openings[which])
            if at + 1 == run_after:
                world.run()
        world.run()
        world.pass_time(10)
        before = numbers(low), numbers(high)
        assert len(before[0]) == len(before[1]) == 1
        (pipe,) = world.pipes
        assert sorted(end.number for end in pipe.ends) == sorted(before[0] + before[1]), "the same one"
        for host in (low, high):
            (contact,) = host.node.state.contacts.values()
            assert contact.hello is not None
            assert not [line for line in host.logs if "broke the protocol" in line]
        world.pass_time(20)
        assert (numbers(low), numbers(high)) == before, "and it stays"


def test_of_two_dialled_at_once_the_lower_ids_is_kept_at_once() -> None:
    for order in ORDERS:
        world, low, high = pair()
        kept, first = connect(world, low, high)
        _, second = connect(world, high, low)
        openings = [*first, *second]
        for which in order:
            open_end(*openings[which])
        world.run()
        assert numbers(low) == [kept.ends[0].number]
        assert numbers(high) == [kept.ends[1].number]


@pytest.mark.parametrize("dialler", [LOW, HIGH])
def test_who_has_lost_its_contact_replaces_it(dialler: str) -> None:
    """The network vanished without a word: one side knows, the other still waits."""
    world, low, high = pair()
    old = world.open(low, high)
    world.run()
    old.silent = True
    loser = world.hosts[dialler]
    other = high if loser is low else low
    world.pass_time(5)
    loser.handle(Lost(next(end.number for end in old.ends if end.host is loser), "no route"))
    world.open(loser, other)
    world.run()
    assert len(numbers(low)) == len(numbers(high)) == 1
    assert old.ends[0].number not in numbers(low)


def test_a_restarted_peer_is_met_again() -> None:
    world, low, high = pair()
    low.handle(Sighted(f"{HIGH}:{PORT}", high.device, "dns-sd"))
    world.run()
    for name in (HIGH, LOW):
        world.restart(name)
        world.pass_time(5)
        assert len(numbers(low)) == len(numbers(high)) == 1


def test_the_newest_of_several_is_kept() -> None:
    host = Host(FLEET)
    first, second, third = (host.meet("agus", dialled=True) for _ in range(3))
    assert [puppet.closed for puppet in (first, second, third)] == ["duplicate", "duplicate", None]
    assert numbers(host) == [third.number]


def test_a_document_that_takes_revocations_back_is_not_followed() -> None:
    host = Host(FLEET)
    agus = host.meet("agus")
    host.handle(DocumentGiven(FLEET.write_document(2, revoked=["dewi"])))
    agus.take(FleetFrame)
    forgiving = FLEET.write_document(9)
    agus.says(FleetFrame(forgiving.body, forgiving.signature))
    assert host.node.state.document.version == 2
    assert host.node.state.forgiving_version == 9
    assert [code for code, _ in alarms(host.node.state, None, None)] == ["old-authority"]
    assert not agus.take(FleetFrame)
    assert FLEET.device("dewi") in host.node.state.document.revoked
    # the authority has been told, and has caught up
    host.handle(DocumentGiven(FLEET.write_document(10, revoked=["dewi", "budi"])))
    assert host.node.state.document.version == 10
    assert host.node.state.forgiving_version == 0
    assert alarms(host.node.state, None, None) == []

"""What a probe says, how strictly it is read, when it is sent, and what floods and strangers get from it."""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Callable
from ipaddress import IPv4Interface

import pytest
import trio
import trio.testing
from hypothesis import example, given
from hypothesis import strategies as st

from meshnode.drivers import probe
from meshnode.drivers.probe import (
    ACCOMPANIED_S,
    ALONE_S,
    PER_S,
    PER_SOURCE_S,
    Probe,
    Prober,
    Restraint,
    decode,
    encode,
)

FLEET, OTHER_FLEET = b"f" * 16, b"o" * 16
ANA, BUDI, EVE = b"a" * 16, b"b" * 16, b"e" * 16
LOOPBACK = IPv4Interface("127.0.0.1/8")

identifiers = st.binary(min_size=16, max_size=16)
probes = st.builds(
    Probe, fleet=identifiers, device=identifiers, port=st.integers(1, 65535), asks=st.booleans()
)


@given(probes)
def test_what_is_said_is_understood_and_answers_are_not_larger(said: Probe) -> None:
    assert decode(encode(said)) == said
    assert len(encode(Probe(said.fleet, said.device, said.port, asks=False))) == len(encode(said)) == 45


GOOD = encode(Probe(FLEET, ANA, 7766))


@given(st.binary(max_size=100))
@example(GOOD[:-1])
@example(GOOD + b"\0")
@example(b"meshnode/2" + GOOD[10:])
@example(GOOD[:10] + b"\2" + GOOD[11:])
@example(GOOD[:-2] + b"\0\0")
@example(b"")
def test_anything_else_is_nothing(data: bytes) -> None:
    assert decode(data) is None


# --- floods ---


def test_a_source_is_heard_once_in_a_while() -> None:
    restraint = Restraint()
    assert restraint.allows("10.0.0.1", True, 0.0)
    assert not restraint.allows("10.0.0.1", True, PER_SOURCE_S - 0.01)
    assert restraint.allows("10.0.0.1", False, 0.1), "its answer is another thing"
    assert restraint.allows("10.0.0.2", True, 0.1)
    assert restraint.allows("10.0.0.1", True, PER_SOURCE_S)


@given(st.lists(st.tuples(st.integers(0, 300), st.floats(0, 0.1)), max_size=300))
def test_a_flood_is_not_heard_and_not_remembered(flood: list[tuple[int, float]]) -> None:
    restraint = Restraint()
    now_s, taken_s = 100.0, []
    for source, later_s in flood:
        now_s += later_s
        if restraint.allows(f"10.0.0.{source}", True, now_s):
            taken_s.append(now_s)
        assert len(restraint._taken) <= 2 * PER_S
    for at_s in taken_s:
        assert sum(at_s <= other_s < at_s + 1.0 for other_s in taken_s) <= 2 * PER_S


# --- asking ---


@pytest.fixture
def asked_s(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """When a question left; nothing is sent."""
    times: list[float] = []

    async def send(_through: object, data: bytes, _host: str, _port: int) -> None:
        assert decode(data) == Probe(FLEET, ANA, 7766)
        times.append(trio.current_time())
        await trio.lowlevel.checkpoint()

    monkeypatch.setattr(probe, "_send", send)
    return times


def prober(
    device: bytes = ANA,
    on_heard: Callable[[bytes, tuple[str, int]], None] = lambda *_: None,
    port: int = 0,
    near: IPv4Interface = LOOPBACK,
    alone: bool = True,
) -> Prober:
    return Prober(Probe(FLEET, device, 7766), on_heard, lambda: [near], lambda: alone, port or free_port())


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as trial:
        trial.bind(("127.0.0.1", 0))
        port: int = trial.getsockname()[1]
        return port


@pytest.mark.parametrize(("alone", "every_s"), [(True, ALONE_S), (False, ACCOMPANIED_S)])
async def test_a_burst_at_first_and_after_each_change_then_now_and_then(
    asked_s: list[float], autojump_clock: trio.testing.MockClock, alone: bool, every_s: float
) -> None:
    asker = prober(alone=alone)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(asker.run)
        await trio.sleep(3 + 2.5 * every_s)
        assert asked_s == pytest.approx([0, 1, 3, 3 + every_s, 3 + 2 * every_s])
        asked_s.clear()
        changed_s = trio.current_time()
        asker.network_changed()
        await trio.sleep(10)
        assert asked_s == pytest.approx([changed_s, changed_s + 1, changed_s + 3])
        nursery.cancel_scope.cancel()


async def test_a_network_that_cannot_be_asked_about_is_not_asked(
    asked_s: list[float], autojump_clock: trio.testing.MockClock
) -> None:
    def refuse() -> list[IPv4Interface]:
        raise PermissionError

    with trio.move_on_after(100):
        await Prober(Probe(FLEET, ANA, 7766), lambda *_: None, refuse, bool, free_port()).run()
    with trio.move_on_after(100):
        await prober(near=IPv4Interface("10.0.0.1/31")).run()
    assert asked_s == []


# --- hearing, on loopback ---


async def test_both_hear_of_each_other_and_of_nobody_else() -> None:
    port = free_port()
    send, receive = trio.open_memory_channel[tuple[bytes, bytes, tuple[str, int]]](100)

    def hear(listener: bytes) -> Callable[[bytes, tuple[str, int]], None]:
        return lambda device, address: send.send_nowait((listener, device, address))

    heard: set[tuple[bytes, bytes, tuple[str, int]]] = set()
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(prober(ANA, hear(ANA), port).run)
            nursery.start_soon(prober(BUDI, hear(BUDI), port).run)
            while len(heard) < 2:
                heard.add(await receive.receive())
            nursery.cancel_scope.cancel()
    assert heard == {(ANA, BUDI, ("127.0.0.1", 7766)), (BUDI, ANA, ("127.0.0.1", 7766))}


def udp(host: str) -> socket.socket:
    new = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    new.bind((host, 0))
    new.setblocking(False)
    return new


def received(through: socket.socket) -> list[tuple[Probe | None, tuple[str, int]]]:
    """All that has come."""
    out = []
    with contextlib.suppress(BlockingIOError):
        while True:
            data, whence = through.recvfrom(100)
            out.append((decode(data), whence))
    return out


async def test_who_is_answered() -> None:
    """One of the fleet, in the own network, once however often he asks; nobody else, and no answer."""
    to = "127.0.0.1", free_port()
    heard: list[tuple[bytes, tuple[str, int]]] = []
    near = IPv4Interface("127.0.0.1/29")
    asker = prober(ANA, lambda device, address: heard.append((device, address)), to[1], near)
    with udp("127.0.0.6") as budi, udp("127.0.0.5") as last, udp("127.0.0.66") as far, trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            await nursery.start(asker.run)
            far.sendto(encode(Probe(FLEET, EVE, 1)), to)
            budi.sendto(encode(Probe(OTHER_FLEET, EVE, 2)), to)
            budi.sendto(encode(Probe(FLEET, ANA, 3)), to)
            budi.sendto(b"meshnode/1", to)
            for number in range(4, 40):
                budi.sendto(encode(Probe(FLEET, BUDI, number)), to)
            budi.sendto(encode(Probe(FLEET, BUDI, 99, asks=False)), to)
            last.sendto(encode(Probe(FLEET, BUDI, 100)), to)
            await trio.lowlevel.wait_readable(last)
            nursery.cancel_scope.cancel()
        answer = Probe(FLEET, ANA, 7766, asks=False), to
        assert received(budi) == received(last) == [answer]
        assert received(far) == []
    assert heard == [(BUDI, ("127.0.0.6", 4)), (BUDI, ("127.0.0.6", 99)), (BUDI, ("127.0.0.5", 100))]


async def test_a_port_that_somebody_else_has_is_one_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    taken = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    taken.bind(("", 0))
    port = taken.getsockname()[1]
    with trio.fail_after(5), trio.socket.from_stdlib_socket(taken) as other:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(prober(port=port).run)
            data, _whence = await other.recvfrom(100)
            assert decode(data) == Probe(FLEET, ANA, 7766), "it asks all the same"
            nursery.cancel_scope.cancel()
    lines = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert lines == [f"does not hear probes at UDP port {port}: Address already in use"]

"""One contact's bytes: what goes out in which order, what comes in, what is said at the end."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any, NoReturn

import pytest
import trio
from trio.testing import MemoryReceiveStream, MemorySendStream, lockstep_stream_pair, memory_stream_pair

from meshnode.core.errors import StoreTrouble
from meshnode.core.frames import Bye, Ping, encode, encode_bundle
from meshnode.core.identity import JournalId
from meshnode.core.limits import PAYLOAD_SIZE_MAX
from meshnode.core.ports import Lost, Received, SendBundle, Sent, Unreadable
from meshnode.core.rows import Rotten, StoredBundle
from meshnode.drivers.link import (
    AGAIN_S,
    BATCH_COUNT,
    BATCH_SIZE,
    FLUSH_S,
    KERNEL_QUEUE_SIZE,
    Link,
    shorten_kernel_queue,
)
from tests.core.fleets import Fleet, Source

CONTACT = 5
SOURCE = Source(Fleet(), "ana")
DEADLINE_S = 10.0

Said = Received | Sent | Unreadable | Lost


class Shelf:
    """Bundles that a link may read, and what it has read."""

    def __init__(self, size: int = 2000) -> None:
        self.size = size
        self.read: list[int] = []
        self.changed: dict[int, Callable[[StoredBundle], StoredBundle | None]] = {}

    def __call__(self, journal: JournalId, number: int) -> StoredBundle | None:
        assert journal == SOURCE.journal
        self.read.append(number)
        bundle = SOURCE.bundle(number, size=self.size)
        stored = StoredBundle(bundle.header_bytes, bundle.signature, bundle.payload, 0.0, 1)
        return self.changed[number](stored) if number in self.changed else stored

    def send(self, number: int) -> SendBundle:
        return SendBundle(CONTACT, SOURCE.journal, number, self.size, age_s=number)

    def frame(self, number: int) -> bytes:
        bundle = SOURCE.bundle(number, size=self.size)
        return encode_bundle(number, bundle.header_bytes, bundle.signature, bundle.payload)


class Rig:
    """A link on one end of a pair of streams, the other end, and what the link has said."""

    def __init__(self, near: trio.abc.Stream, far: trio.abc.Stream, shelf: Shelf | None = None) -> None:
        self.shelf = shelf or Shelf()
        self.near, self.far = near, far
        self.said: list[Said] = []
        self.link = Link(CONTACT, near, self.shelf, self._hear)
        self._heard = trio.Event()

    def _hear(self, said: Said) -> None:
        assert not any(isinstance(earlier, Lost) for earlier in self.said), "Lost is the last word"
        self.said.append(said)
        self._heard.set()

    async def until(self, *said: Said) -> None:
        """Wait until just this was said."""
        with trio.fail_after(DEADLINE_S):
            while len(self.said) < len(said):
                self._heard = trio.Event()
                await self._heard.wait()
        assert self.said == list(said)

    async def receive(self, size: int) -> bytes:
        """So many bytes at the other end, fewer if it was closed."""
        data = bytearray()
        with trio.fail_after(DEADLINE_S):
            while len(data) < size and (piece := await self.far.receive_some(size - len(data))):
                data += piece
        return bytes(data)


@pytest.fixture
def pair() -> Rig:
    return Rig(*memory_stream_pair())


@pytest.fixture
def slow() -> Rig:
    """A link that sends only what the other end takes; each bundle is a batch."""
    return Rig(*lockstep_stream_pair(), Shelf(PAYLOAD_SIZE_MAX))


async def test_what_comes_in_is_told_in_order(pair: Rig, nursery: trio.Nursery) -> None:
    nursery.start_soon(pair.link.run)
    for data in (b"one", b"two"):
        await pair.far.send_all(data)
        await trio.testing.wait_all_tasks_blocked()
    await pair.far.aclose()
    await pair.until(
        Received(CONTACT, b"one"), Received(CONTACT, b"two"), Lost(CONTACT, "the peer closed it")
    )


async def test_bundles_are_framed_with_their_age(pair: Rig, nursery: trio.Nursery) -> None:
    nursery.start_soon(pair.link.run)
    pair.link.send_bundle(pair.shelf.send(1))
    pair.link.send_bundle(pair.shelf.send(2))
    expected = pair.shelf.frame(1) + pair.shelf.frame(2)
    assert await pair.receive(len(expected)) == expected
    await pair.until(Sent(CONTACT, 4000))


async def test_frames_overtake_bundles(slow: Rig, nursery: trio.Nursery) -> None:
    size = len(slow.shelf.frame(1))
    for number in range(1, 6):
        slow.link.send_bundle(slow.shelf.send(number))
    nursery.start_soon(slow.link.run)
    assert await slow.receive(size // 2) == slow.shelf.frame(1)[: size // 2]
    slow.link.send(encode(Ping()))
    slow.link.send(encode(Bye("later")))
    frames = encode(Ping()) + encode(Bye("later"))
    rest = slow.shelf.frame(1)[size // 2 :]
    assert await slow.receive(len(rest)) == rest
    assert await slow.receive(len(frames) + size) == frames + slow.shelf.frame(2)


async def test_bundles_wait_in_the_store_and_not_in_memory(slow: Rig, nursery: trio.Nursery) -> None:
    for number in range(1, 100):
        slow.link.send_bundle(slow.shelf.send(number))
    nursery.start_soon(slow.link.run)
    size = len(slow.shelf.frame(1))
    for number in range(1, 5):
        assert await slow.receive(size) == slow.shelf.frame(number)
        assert len(slow.shelf.read) <= number + 1
        assert slow.said == [Sent(CONTACT, PAYLOAD_SIZE_MAX)] * (number - 1)


async def test_small_bundles_share_a_batch(nursery: trio.Nursery) -> None:
    rig = Rig(*memory_stream_pair(), Shelf(1200))
    for number in range(1, BATCH_COUNT + 2):
        rig.link.send_bundle(rig.shelf.send(number))
    nursery.start_soon(rig.link.run)
    await rig.until(Sent(CONTACT, BATCH_COUNT * 1200), Sent(CONTACT, 1200))
    assert BATCH_COUNT * 1200 < BATCH_SIZE


def spoil(stored: StoredBundle) -> StoredBundle:
    return stored._replace(payload=stored.payload[:-1] + bytes((stored.payload[-1] ^ 1,)))


def fail(stored: StoredBundle) -> NoReturn:
    raise StoreTrouble(path="store.db", problem="disk I/O error")


def give_up(stored: StoredBundle) -> NoReturn:
    raise Rotten(path="store.db", problem="disk I/O error")


@pytest.mark.parametrize(
    ("change", "rotten"),
    [
        (lambda stored: None, False),
        (spoil, True),
        (lambda stored: stored._replace(payload=stored.payload[:-1]), True),
        (lambda stored: stored._replace(header=stored.header[:-1]), True),
        (lambda stored: stored._replace(header=b""), True),
        (lambda stored: stored._replace(signature=b""), True),
        (give_up, True),
        (lambda stored: stored._replace(header=SOURCE.bundle(3).header_bytes), True),
    ],
    ids=["gone", "rotten", "cut", "header cut", "no header", "no signature", "given up", "another"],
)
async def test_what_cannot_be_read_is_told_and_never_travels(
    pair: Rig,
    nursery: trio.Nursery,
    change: Callable[[StoredBundle], StoredBundle | None],
    rotten: bool,
) -> None:
    pair.shelf.changed[2] = change
    for number in (1, 2, 3):
        pair.link.send_bundle(pair.shelf.send(number))
    nursery.start_soon(pair.link.run)
    await pair.until(Unreadable(CONTACT, SOURCE.journal, 2, 2000, rotten), Sent(CONTACT, 4000))
    expected = pair.shelf.frame(1) + pair.shelf.frame(3)
    assert await pair.receive(len(expected)) == expected


async def test_what_the_disk_does_not_give_back_now_is_sent_later(
    pair: Rig, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    async def at_once(load: Callable[[], Any]) -> Any:
        return load()  # a worker thread takes no time that this clock would know of

    pair.link = Link(CONTACT, pair.near, pair.shelf, pair._hear, at_once)
    pair.shelf.changed[2] = fail
    for number in (1, 2, 3):
        pair.link.send_bundle(pair.shelf.send(number))
    nursery.start_soon(pair.link.run)
    expected = pair.shelf.frame(1) + pair.shelf.frame(3)
    assert await pair.receive(len(expected)) == expected
    await trio.sleep(AGAIN_S / 2)
    del pair.shelf.changed[2]
    expected = pair.shelf.frame(2)
    assert await pair.receive(len(expected)) == expected
    assert trio.current_time() >= AGAIN_S
    await pair.until(Sent(CONTACT, 4000), Sent(CONTACT, 2000))


async def test_a_batch_of_which_nothing_can_be_read_sends_nothing(pair: Rig, nursery: trio.Nursery) -> None:
    pair.shelf.changed[1] = lambda stored: None
    pair.link.send_bundle(pair.shelf.send(1))
    nursery.start_soon(pair.link.run)
    await pair.until(Unreadable(CONTACT, SOURCE.journal, 1, 2000, False))
    pair.link.send(b"after")
    assert await pair.receive(5) == b"after"
    assert pair.said == [Unreadable(CONTACT, SOURCE.journal, 1, 2000, False)]


async def test_close_sends_the_goodbye_and_no_more_bundles(slow: Rig, nursery: trio.Nursery) -> None:
    for number in (1, 2, 3):
        slow.link.send_bundle(slow.shelf.send(number))
    nursery.start_soon(slow.link.run)
    first = slow.shelf.frame(1)
    assert await slow.receive(1000) == first[:1000]
    slow.link.send(encode(Bye("duplicate")))
    slow.link.close("duplicate")
    slow.link.close("a second reason")
    expected = first[1000:] + encode(Bye("duplicate"))
    assert await slow.receive(len(expected) + 1) == expected
    await slow.until(Sent(CONTACT, PAYLOAD_SIZE_MAX), Lost(CONTACT, "duplicate"))


async def test_close_before_it_runs(pair: Rig) -> None:
    pair.link.send(encode(Bye("revoked")))
    pair.link.close("revoked")
    await pair.link.run()
    assert pair.said == [Lost(CONTACT, "revoked")]
    assert await pair.receive(1000) == encode(Bye("revoked"))


async def test_close_does_not_wait_for_a_peer_that_takes_nothing(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    rig = Rig(*lockstep_stream_pair())
    nursery.start_soon(rig.link.run)
    rig.link.send(encode(Bye("silent")))
    rig.link.close("silent")
    began_s = trio.current_time()
    with trio.fail_after(60):
        while not rig.said:
            rig._heard = trio.Event()
            await rig._heard.wait()
    assert rig.said == [Lost(CONTACT, "silent")]
    assert trio.current_time() - began_s == pytest.approx(FLUSH_S)


async def test_cancelled_it_says_so_and_closes(pair: Rig) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pair.link.run)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert pair.said == [Lost(CONTACT, "this node is ending")]
    assert await pair.receive(1) == b""


async def broken() -> None:
    raise trio.BrokenResourceError


async def test_a_connection_that_breaks(nursery: trio.Nursery) -> None:
    near = trio.StapledStream(MemorySendStream(), MemoryReceiveStream(receive_some_hook=broken))
    rig = Rig(near, memory_stream_pair()[1])
    nursery.start_soon(rig.link.run)
    await rig.until(Lost(CONTACT, "the connection broke"))


async def test_a_connection_that_breaks_while_sending(nursery: trio.Nursery) -> None:
    # Nothing comes in any more, not even an end: only sending finds out.
    near = trio.StapledStream(MemorySendStream(send_all_hook=broken), MemoryReceiveStream())
    rig = Rig(near, memory_stream_pair()[1])
    rig.link.send(b"anything")
    nursery.start_soon(rig.link.run)
    await rig.until(Lost(CONTACT, "the connection broke"))


async def test_the_kernels_queue_is_kept_short() -> None:
    option = getattr(socket, "TCP_NOTSENT_LOWAT", None)
    if option is None:
        pytest.skip("this system has no TCP_NOTSENT_LOWAT")
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener, await trio.open_tcp_stream(*listener.socket.getsockname()) as stream:
        shorten_kernel_queue(stream)
        assert stream.getsockopt(socket.IPPROTO_TCP, option) == KERNEL_QUEUE_SIZE

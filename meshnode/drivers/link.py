"""One contact's bytes: what the brain wants sent goes out, what comes in goes to the brain.

Two lanes go out. Frames (receipts, wants, acknowledgements) overtake bundles; bundles are read from the store while
those before them are sent, so a queue of them costs no memory, and they are checked then, so that what has rotted on
disk never travels: a receiver would blame this node. What the disk only does not give back now is tried again some
seconds later, behind all others; the store says when it has given up. On Linux the kernel is asked to keep its own
queue short, since nothing overtakes there.

A peer is a member, and may still be a fool or a thief. Whoever asks and does not take the answers is given up, before
they fill the memory; and what makes the brain think for long is followed by as long a rest, so that others get their
turn.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import socket
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

import trio

from meshnode.core.bundle import read_bundle
from meshnode.core.errors import RemoteError, StoreTrouble
from meshnode.core.frames import bundle_head
from meshnode.core.identity import JournalId
from meshnode.core.limits import KIB, MIB
from meshnode.core.ports import ContactNumber, Lost, Received, SendBundle, Sent, Unreadable
from meshnode.core.rows import Rotten, StoredBundle

Read = Callable[[JournalId, int], StoredBundle | None]
Deliver = Callable[[Received | Sent | Unreadable | Lost], None]

RECEIVE_SIZE: Final = 256 * KIB
#: Bundles are read and sent together up to this size, so that small ones share system calls and records.
BATCH_SIZE: Final = 256 * KIB
BATCH_COUNT: Final = 64
#: Pieces that are smaller in the mean are joined; larger ones are not worth the copy.
JOINED_SIZE: Final = 32 * KIB
#: Frames that may wait for a peer to take them. One that was away for years is told some 20 MB at once.
WAITING_SIZE_MAX: Final = 64 * MIB
#: What a waiting frame costs besides its bytes.
_FRAME_COST: Final = 64
#: What came in took the brain so long that others have waited; most takes it a thousandth of that.
REST_AFTER_S: Final = 0.02
#: A goodbye has this long to get out.
FLUSH_S: Final = 2.0
#: Unsent bytes that the kernel holds before it stops taking more.
KERNEL_QUEUE_SIZE: Final = 256 * KIB

#: Between two attempts to read what the disk does not give back.
AGAIN_S: Final = 10.0

#: What a stream raises when its other end, or the way to it, is gone.
_GONE: Final = (trio.BrokenResourceError, trio.ClosedResourceError)


def shorten_kernel_queue(stream: trio.SocketStream) -> None:
    """Ask the kernel not to queue more than it must (Linux and macOS know how)."""
    option = getattr(socket, "TCP_NOTSENT_LOWAT", None)
    if option is not None:
        with contextlib.suppress(OSError):  # macOS refuses when the peer has hung up; reading will tell
            stream.setsockopt(socket.IPPROTO_TCP, option, KERNEL_QUEUE_SIZE)


@dataclass(frozen=True, slots=True)
class _Batch:
    """Bundle frames ready to send in pieces, what they hold, and those that could not be read, or not now."""

    pieces: list[bytes]
    size: int
    unreadable: tuple[Unreadable, ...]
    put_off: tuple[SendBundle, ...]


def _load(read: Read, wanted: list[SendBundle]) -> _Batch:
    """Read and frame bundles. Blocks; runs in a worker thread."""
    pieces: list[bytes] = []
    unreadable: list[Unreadable] = []
    put_off: list[SendBundle] = []
    size = 0
    for want in wanted:
        rotten = False
        try:
            stored = read(want.journal, want.number)
            if stored is not None:
                rotten = not _is_whole(want, stored)
        except (RemoteError, Rotten):
            stored, rotten = None, True
        except StoreTrouble:
            put_off.append(want)
            continue
        if stored is None or rotten:
            unreadable.append(Unreadable(want.contact, want.journal, want.number, want.size, rotten))
            continue
        head = bundle_head(want.age_s, stored.header, stored.signature, len(stored.payload))
        pieces += head, stored.payload
        size += want.size
    if pieces and size < len(pieces) * JOINED_SIZE:
        pieces = [b"".join(pieces)]
    return _Batch(pieces, size, tuple(unreadable), tuple(put_off))


def _is_whole(want: SendBundle, stored: StoredBundle) -> bool:
    """Whether this is the bundle that it should be, with its own payload. Raises RemoteError: not even a bundle."""
    header = read_bundle(stored.header, stored.signature, stored.payload).header
    if (header.journal, header.number) != (want.journal, want.number):
        return False
    return hashlib.sha256(stored.payload).digest() == header.payload_sha256


#: Runs what blocks, as `trio.to_thread.run_sync` does.
RunSync = Callable[[Callable[[], _Batch]], Awaitable[_Batch]]


class Link:
    """Drives one stream for one contact."""

    def __init__(
        self,
        number: ContactNumber,
        stream: trio.abc.Stream,
        read: Read,
        deliver: Deliver,
        run_sync: RunSync = trio.to_thread.run_sync,
    ) -> None:
        self._number = number
        self._stream = stream
        self._read = read
        self._deliver = deliver
        self._run_sync = run_sync
        self._frames: deque[bytes] = deque()
        self._waiting_size = 0
        self._bundles: deque[SendBundle] = deque()
        #: What the disk did not give back, to be tried again from then on.
        self._put_off: deque[SendBundle] = deque()
        self._again_s = math.inf
        #: Read, and not sent yet.
        self._loaded: _Batch | None = None
        self._may_load = trio.Event()
        self._closing: str | None = None
        self._wake = trio.Event()
        self._scope = trio.CancelScope()

    def send(self, data: bytes) -> None:
        """Send a frame, before any bundle that waits; or give up, if the peer does not take those before it."""
        if self._scope.cancel_called:
            return
        self._frames.append(data)
        self._waiting_size += len(data) + _FRAME_COST
        if self._waiting_size > WAITING_SIZE_MAX:
            self._closing = self._closing or "it takes nothing in"
            self._frames.clear()
            self._scope.cancel()
        self._wake.set()

    def send_bundle(self, bundle: SendBundle) -> None:
        """Send a bundle, after those that wait."""
        self._bundles.append(bundle)
        self._may_load.set()

    def close(self, reason: str) -> None:
        """Send the frames that wait, then end."""
        self._closing = self._closing or reason
        self._bundles.clear()
        self._put_off.clear()
        self._scope.deadline = min(self._scope.deadline, trio.current_time() + FLUSH_S)
        self._wake.set()

    async def run(self) -> None:
        """Carry bytes until either side ends; then say `Lost`, once."""
        reason = "this node is ending"
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._send_all, nursery.cancel_scope)
                    nursery.start_soon(self._load_all)
                    reason = await self._receive_all()
                    nursery.cancel_scope.cancel()
        finally:
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(self._stream)
            self._deliver(Lost(self._number, self._closing or reason))

    async def _receive_all(self) -> str:
        try:
            while data := await self._stream.receive_some(RECEIVE_SIZE):
                began_s = trio.current_time()
                self._deliver(Received(self._number, bytes(data)))
                took_s = trio.current_time() - began_s
                if took_s > REST_AFTER_S:
                    await trio.sleep(took_s)
        except _GONE:
            return "the connection broke"
        return "the peer closed it"

    async def _send_all(self, whole: trio.CancelScope) -> None:
        try:
            while True:
                if self._frames:
                    await self._send_frames()
                elif self._closing is not None:
                    break
                elif self._again_s <= trio.current_time():
                    self._again_s = math.inf
                    self._bundles.extend(self._put_off)
                    self._put_off.clear()
                    self._may_load.set()
                elif self._loaded is not None:
                    batch, self._loaded = self._loaded, None
                    self._may_load.set()
                    await self._send_bundles(batch)
                else:
                    self._wake = trio.Event()
                    with trio.move_on_at(self._again_s):
                        await self._wake.wait()
        except _GONE:
            self._closing = self._closing or "the connection broke"
        whole.cancel()

    async def _send_frames(self) -> None:
        data = bytearray()
        while self._frames and len(data) < BATCH_SIZE:
            frame = self._frames.popleft()
            data += frame
            self._waiting_size -= len(frame) + _FRAME_COST
        await self._stream.send_all(data)

    async def _load_all(self) -> None:
        while True:
            if self._bundles and self._loaded is None:
                wanted: list[SendBundle] = []
                size = 0
                while self._bundles and len(wanted) < BATCH_COUNT and size < BATCH_SIZE:
                    wanted.append(self._bundles.popleft())
                    size += wanted[-1].size
                self._loaded = await self._run_sync(partial(_load, self._read, wanted))
                self._wake.set()
            else:
                self._may_load = trio.Event()
                await self._may_load.wait()

    async def _send_bundles(self, batch: _Batch) -> None:
        for unreadable in batch.unreadable:
            self._deliver(unreadable)
        if batch.put_off:
            self._put_off.extend(batch.put_off)
            self._again_s = min(self._again_s, trio.current_time() + AGAIN_S)
        if batch.pieces:
            while self._frames:
                await self._send_frames()
            for piece in batch.pieces:
                await self._stream.send_all(piece)
            self._deliver(Sent(self._number, batch.size))

"""One contact's bytes: what the brain wants sent goes out, what comes in goes to the brain.

Two lanes go out. Frames (receipts, wants, acknowledgements) overtake bundles; bundles are read from the store just
before they are sent, so a queue of them costs no memory, and their digest is checked then, so that what has rotted on
disk never travels. On Linux the kernel is asked to keep its own queue short, since nothing overtakes there.
"""

from __future__ import annotations

import contextlib
import hashlib
import socket
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

import trio

from meshnode.core.bundle import read_bundle
from meshnode.core.errors import RemoteError, StoreTrouble
from meshnode.core.frames import encode_bundle
from meshnode.core.identity import JournalId
from meshnode.core.limits import KIB
from meshnode.core.ports import ContactNumber, Lost, Received, SendBundle, Sent, StoredBundle, Unreadable

Read = Callable[[JournalId, int], StoredBundle | None]
Deliver = Callable[[Received | Sent | Unreadable | Lost], None]

RECEIVE_SIZE: Final = 256 * KIB
#: Bundles are read and sent together up to this size, so that small ones share system calls and records.
BATCH_SIZE: Final = 256 * KIB
BATCH_COUNT: Final = 64
#: A goodbye has this long to get out.
FLUSH_S: Final = 2.0
#: Unsent bytes that the kernel holds before it stops taking more.
KERNEL_QUEUE_SIZE: Final = 256 * KIB

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
    """Bundle frames ready to send, what they hold, and those that could not be read."""

    data: bytes
    size: int
    unreadable: tuple[Unreadable, ...]


def _load(read: Read, wanted: list[SendBundle]) -> _Batch:
    """Read and frame bundles. Blocks; runs in a worker thread."""
    frames: list[bytes] = []
    unreadable: list[Unreadable] = []
    size = 0
    for want in wanted:
        rotten = False
        try:
            stored = read(want.journal, want.number)
            if stored is not None:
                bundle = read_bundle(stored.header, stored.signature, stored.payload)
                rotten = hashlib.sha256(stored.payload).digest() != bundle.header.payload_sha256
        except (RemoteError, StoreTrouble):
            stored, rotten = None, True
        if stored is None or rotten:
            unreadable.append(Unreadable(want.contact, want.journal, want.number, want.size, rotten))
            continue
        frames.append(encode_bundle(want.age_s, stored.header, stored.signature, stored.payload))
        size += want.size
    return _Batch(b"".join(frames), size, tuple(unreadable))


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
        self._bundles: deque[SendBundle] = deque()
        self._closing: str | None = None
        self._wake = trio.Event()
        self._scope = trio.CancelScope()

    def send(self, data: bytes) -> None:
        """Send a frame, before any bundle that waits."""
        self._frames.append(data)
        self._wake.set()

    def send_bundle(self, bundle: SendBundle) -> None:
        """Send a bundle, after those that wait."""
        self._bundles.append(bundle)
        self._wake.set()

    def close(self, reason: str) -> None:
        """Send the frames that wait, then end."""
        self._closing = self._closing or reason
        self._bundles.clear()
        self._scope.deadline = min(self._scope.deadline, trio.current_time() + FLUSH_S)
        self._wake.set()

    async def run(self) -> None:
        """Carry bytes until either side ends; then say `Lost`, once."""
        reason = "this node is ending"
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._send_all, nursery.cancel_scope)
                    reason = await self._receive_all()
                    nursery.cancel_scope.cancel()
        finally:
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(self._stream)
            self._deliver(Lost(self._number, self._closing or reason))

    async def _receive_all(self) -> str:
        try:
            while data := await self._stream.receive_some(RECEIVE_SIZE):
                self._deliver(Received(self._number, bytes(data)))
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
                elif self._bundles:
                    await self._send_bundles()
                else:
                    self._wake = trio.Event()
                    await self._wake.wait()
        except _GONE:
            self._closing = self._closing or "the connection broke"
        whole.cancel()

    async def _send_frames(self) -> None:
        data = b"".join(self._frames)
        self._frames.clear()
        await self._stream.send_all(data)

    async def _send_bundles(self) -> None:
        wanted: list[SendBundle] = []
        size = 0
        while self._bundles and len(wanted) < BATCH_COUNT and size < BATCH_SIZE:
            wanted.append(self._bundles.popleft())
            size += wanted[-1].size
        batch = await self._run_sync(partial(_load, self._read, wanted))
        for unreadable in batch.unreadable:
            self._deliver(unreadable)
        if batch.data:
            await self._send_frames_first()
            await self._stream.send_all(batch.data)
            self._deliver(Sent(self._number, batch.size))

    async def _send_frames_first(self) -> None:
        if self._frames:
            await self._send_frames()

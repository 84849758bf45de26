"""Attackers of one daemon, in a thread of their own: `with Siege(...)` they go on.

They come from as many houses as they are told to (127.66.0.1 and on, so Linux only), each of so many attackers
connects again as soon as it was thrown out, after a pause. Nothing here is a member's right but `mumble` and `deaf`,
which have the papers of one.
"""

from __future__ import annotations

import itertools
import math
import socket
import ssl
import struct
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

import trio
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID

from meshnode.core.frames import ALPN, Hello, Ping, encode

PAUSE_S = 1.0
_LINGER = struct.pack("ii", 1, 0)  # struct linger: on, 0 s, so that close() resets
_GONE = (OSError, trio.BrokenResourceError, trio.ClosedResourceError)

HELLO = encode(Hello("wati", ("officer",), 7766, 1, 0, False, 0))


@dataclass(frozen=True)
class Papers:
    """Certificate and key (PEM) of somebody; none: shows none."""

    certificate: Path | None = None
    key: Path | None = None
    alpn: str | None = ALPN
    maximum: ssl.TLSVersion = ssl.TLSVersion.MAXIMUM_SUPPORTED

    def context(self) -> ssl.SSLContext:
        """A client that believes anybody."""
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
        made.maximum_version = self.maximum
        if self.certificate is not None:
            made.load_cert_chain(self.certificate, self.key)
        if self.alpn is not None:
            made.set_alpn_protocols([self.alpn])
        return made


def signed_by(folder: Path, name: str, key: Ed25519PrivateKey, issuer: Ed25519PrivateKey) -> Papers:
    """A certificate that has long expired, by this issuer, in files."""
    called = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(called)
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Tasikmalaya")]))
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(datetime(2001, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2002, 1, 1, tzinfo=UTC))
        .sign(issuer, None)
    )
    papers = Papers(folder / f"{name}.crt", folder / f"{name}.key")
    assert papers.certificate is not None
    assert papers.key is not None
    papers.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    papers.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return papers


#: What one attacker does with one connection, until it is thrown out.
Deed = Callable[[trio.SocketStream, int], Awaitable[None]]


async def nothing(stream: trio.SocketStream, number: int) -> None:
    """Say nothing."""
    await stream.receive_some(1)


async def trickle(stream: trio.SocketStream, number: int) -> None:
    """Begin a handshake, one byte a second."""
    hello = bytes.fromhex("1603010200010001fc0303") + bytes(500)
    for byte in hello:
        await stream.send_all(bytes((byte,)))
        with trio.move_on_after(1.0):
            if not await stream.receive_some(1):
                return


async def scan(stream: trio.SocketStream, number: int) -> None:
    """Be gone again, every other time with a reset."""
    if number % 2:
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER)


_BABBLE = (
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    bytes(range(256)) * 300,
    b"\x16\x03\x01\xff\xff",
    b"SSH-2.0-x\r\n",
)


async def babble(stream: trio.SocketStream, number: int) -> None:
    """Say something else than TLS."""
    await stream.send_all(_BABBLE[number % len(_BABBLE)])
    while await stream.receive_some(4096):
        pass


def forge(papers: list[Papers]) -> Deed:
    """Shake hands with these papers in turn."""
    contexts = [each.context() for each in papers]

    async def deed(stream: trio.SocketStream, number: int) -> None:
        tls = trio.SSLStream(stream, contexts[number % len(contexts)], https_compatible=True)
        await tls.do_handshake()
        assert await tls.receive_some(1) == b"", "a stranger was let in"

    return deed


def mumble(papers: Papers) -> Deed:
    """As a member: say HELLO, or what comes after it, one byte a second."""
    context = papers.context()

    async def deed(stream: trio.SocketStream, number: int) -> None:
        tls = trio.SSLStream(stream, context, https_compatible=True)
        await tls.do_handshake()
        if number % 2:
            await tls.send_all(HELLO)
        for byte in itertools.chain(HELLO, itertools.repeat(0)):
            await tls.send_all(bytes((byte,)))
            with trio.move_on_after(1.0):
                while await tls.receive_some(65536):
                    pass
                return

    return deed


def deaf(papers: Papers) -> Deed:
    """As a member: ask without end and take no answer."""
    context = papers.context()

    async def deed(stream: trio.SocketStream, number: int) -> None:
        tls = trio.SSLStream(stream, context, https_compatible=True)
        await tls.do_handshake()
        await tls.send_all(HELLO)
        while True:
            await tls.send_all(encode(Ping()) * 2000)

    return deed


class Siege:
    """So many attackers of a daemon, from so many houses."""

    def __init__(
        self, target: tuple[str, int], deed: Deed, count: int, houses: int = 1, pause_s: float = PAUSE_S
    ) -> None:
        self._target = target
        self._deed = deed
        self._count = count
        self._houses = houses
        self._pause_s = pause_s
        self.connections = 0
        self._begun = threading.Event()
        self._scope = trio.CancelScope()
        self._token: trio.lowlevel.TrioToken | None = None
        self._problem: BaseException | None = None
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._begun.wait(60.0), "the attackers do not come through"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._token is not None
        self._token.run_sync_soon(self._scope.cancel)
        self._thread.join()
        if self._problem is not None and kind is None:
            raise self._problem

    def _run(self) -> None:
        try:
            trio.run(self._attack)
        except BaseExceptionGroup as problem:
            self._problem = problem
        finally:
            self._begun.set()

    async def _attack(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        with self._scope:
            async with trio.open_nursery() as nursery:
                for number in range(self._count):
                    nursery.start_soon(self._attacker, number)

    async def _attacker(self, number: int) -> None:
        house = f"127.66.0.{number % self._houses + 1}"
        for turn in itertools.count():
            try:
                with trio.socket.socket() as made:
                    await made.bind((house, 0))
                    with trio.fail_after(30.0):
                        await made.connect(self._target)
                    self._one_more()
                    await self._deed(trio.SocketStream(made), number + turn)
            except (*_GONE, trio.TooSlowError):
                pass
            await trio.sleep(self._pause_s if math.isfinite(self._pause_s) else 0)

    def _one_more(self) -> None:
        self.connections += 1
        if self.connections == self._count:
            self._begun.set()

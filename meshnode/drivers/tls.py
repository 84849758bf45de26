"""TLS 1.3 between members: both sides show a certificate of the authority, and speak `meshnode/1`.

Host names mean nothing here, addresses even less: who a peer is, its certificate says, so names are not checked. A
peer without a certificate, of another fleet, with an older TLS or without our ALPN does not get past the handshake.
Whether a member is revoked is for the brain to say.

`TlsStream` hands on all records that have come at once. A stream that gives one record of 16 KiB after another makes
the scheduler and the brain run as often, which costs more than the decryption.
"""

from __future__ import annotations

import errno
import socket
import ssl
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Generic, TypeVar

import trio
from trio.lowlevel import cancel_shielded_checkpoint, checkpoint_if_cancelled

from meshnode.core.errors import MeshnodeError, RemoteError
from meshnode.core.frames import ALPN
from meshnode.core.identity import Certificate, PublicKey, read_certificate
from meshnode.core.limits import HANDSHAKE_S, KIB
from meshnode.core.uplink import Failure
from meshnode.core.words import Clause, Said, say

S = TypeVar("S", bound=trio.abc.Stream)

#: What is taken from the transport at once.
TRANSPORT_SIZE: Final = 256 * KIB

#: What a handshake can end with when the other side, or the way to it, is not as it should be.
_FAILURES: Final = (trio.BrokenResourceError, trio.ClosedResourceError, ssl.SSLError, OSError)


class NoContact(MeshnodeError):
    """{problem}."""

    def __init__(self, problem: Said, failure: Failure = Failure.BROKE) -> None:
        super().__init__(problem=problem)
        self.failure = failure


@dataclass(frozen=True, slots=True)
class Credentials:
    """Files of this device's key and certificate, the authority's certificate (PEM), and its key. `passphrase`: of the
    device's key, if it has one."""

    key_path: Path
    certificate_path: Path
    authority_path: Path
    authority: PublicKey
    passphrase: bytes | None = field(default=None, repr=False)

    def context(self, *, server: bool) -> ssl.SSLContext:
        """The TLS settings of one side."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(self.authority_path)
        context.load_cert_chain(self.certificate_path, self.key_path, self.passphrase or b"")
        context.set_alpn_protocols([ALPN])
        if server:
            context.num_tickets = 0  # a contact is opened once and kept; resuming one saves nothing
        return context


class TlsStream(trio.abc.Stream, Generic[S]):
    """TLS on another stream. To be shaken hands on first; then one task may send while another receives.

    Whoever is cut off while sending leaves a stream that is only good for closing. The end of the transport counts as
    the end of the stream, with or without a goodbye of TLS: frames say themselves where they end.
    """

    def __init__(self, transport_stream: S, context: ssl.SSLContext, *, server_side: bool = False) -> None:
        self.transport_stream = transport_stream
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=server_side)
        self._flushing = trio.Lock()
        self._buffer = bytearray()
        #: Why nothing more will come: an SSLError, or the end.
        self._end: Exception | None = None

    async def do_handshake(self) -> None:
        """Shake hands. Raises BrokenResourceError: the other side does not, or not as it should."""
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                await self._fill()
            except ssl.SSLError as error:
                with suppress(trio.BrokenResourceError):
                    await self._flush()  # the alert that tells the peer why
                raise trio.BrokenResourceError from error
            else:
                return await self._flush()

    def version(self) -> str | None:
        """That of TLS."""
        return self._tls.version()

    def selected_alpn_protocol(self) -> str | None:
        """What both sides have agreed to speak."""
        return self._tls.selected_alpn_protocol()

    def peer_certificate(self) -> bytes | None:
        """The peer's certificate (DER)."""
        return self._tls.getpeercert(binary_form=True)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypt and send."""
        try:
            if data:
                self._tls.write(data)
        except ssl.SSLError as error:
            raise trio.BrokenResourceError from error
        await self._flush()

    async def wait_send_all_might_not_block(self) -> None:
        """As the transport's."""
        async with self._flushing:
            await self.transport_stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """All that has come, up to `max_bytes`; b"" at the end. Raises BrokenResourceError."""
        await checkpoint_if_cancelled()
        has_waited = False
        while not (data := self._decrypt(max_bytes or TRANSPORT_SIZE)) and self._end is None:
            await self._fill()
            has_waited = True
        if self._outgoing.pending and self._end is None:
            # The peer has changed its key, and is told that this was seen. Of the end and of damage it is told nothing:
            # it may not read any more, and then whoever waits here would not learn of it.
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):  # reading will tell
                await self._flush()
        elif not has_waited:
            await cancel_shielded_checkpoint()
        if not data and isinstance(self._end, ssl.SSLError):
            raise trio.BrokenResourceError from self._end
        return data

    def _decrypt(self, size_max: int) -> bytes:
        """The records that are whole; `_end` says if nothing comes after them."""
        if len(self._buffer) < size_max:
            self._buffer = bytearray(size_max)
        size = 0
        with memoryview(self._buffer) as view:
            try:
                while size < size_max and self._end is None:
                    # with a buffer it says how many, whatever typeshed says
                    taken: int = self._tls.read(size_max - size, view[size:])  # type: ignore[assignment]
                    size += taken
                    if not taken:
                        self._end = EOFError()
            except ssl.SSLWantReadError:
                pass
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                self._end = EOFError()
            except ssl.SSLError as error:
                self._end = error
            return bytes(view[:size])

    async def _fill(self) -> None:
        if data := await self.transport_stream.receive_some(TRANSPORT_SIZE):
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    async def _flush(self) -> None:
        # Whoever comes first sends what others have written too, in the order in which it was written.
        async with self._flushing:
            if data := self._outgoing.read():
                await self.transport_stream.send_all(data)

    async def aclose(self) -> None:
        """Close the transport."""
        await self.transport_stream.aclose()


class Tls:
    """Opens authenticated streams, in both directions."""

    def __init__(self, credentials: Credentials) -> None:
        self._authority = credentials.authority
        self._client = credentials.context(server=False)
        self._server = credentials.context(server=True)

    async def dial(self, host: str, port: int) -> tuple[TlsStream[trio.SocketStream], Certificate]:
        """Connect and shake hands. Raises NoContact."""
        with trio.move_on_after(HANDSHAKE_S):
            try:
                stream = await trio.open_tcp_stream(host, port)
            except (OSError, UnicodeError) as error:  # the latter: no name can have such a label
                raise unreached(error) from None
            return await self.greet(stream)
        raise NoContact("no answer", Failure.SILENT)

    async def greet(self, stream: S) -> tuple[TlsStream[S], Certificate]:
        """Shake hands with whom an open stream leads to. Raises NoContact; the stream is closed then."""
        with trio.move_on_after(HANDSHAKE_S):
            return await self._shake(TlsStream(stream, self._client))
        raise NoContact("no answer", Failure.SILENT)

    async def accept(self, stream: trio.SocketStream) -> tuple[TlsStream[trio.SocketStream], Certificate]:
        """Shake hands with whoever has connected. Raises NoContact."""
        with trio.move_on_after(HANDSHAKE_S):
            return await self._shake(TlsStream(stream, self._server, server_side=True))
        raise NoContact("it did not finish the handshake")

    async def _shake(self, stream: TlsStream[S]) -> tuple[TlsStream[S], Certificate]:
        try:
            await stream.do_handshake()
            if stream.selected_alpn_protocol() != ALPN:
                raise NoContact(say("it does not speak {protocol}", protocol=ALPN), Failure.NOT_TLS)
            der = stream.peer_certificate()
            if der is None:
                raise NoContact("it showed no certificate")
            return stream, read_certificate(der, self._authority)
        except _FAILURES as error:
            await trio.aclose_forcefully(stream)
            raise NoContact(_plain(error), _failure_of_handshake(error)) from None
        except RemoteError as error:
            await trio.aclose_forcefully(stream)
            raise NoContact(Clause(error), Failure.OTHER_FLEET) from None
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise


def unreached(error: Exception) -> NoContact:
    """What is to be said of a connection that did not come about, however many addresses were tried."""
    failures = {_failure_of(each) for each in _innermost_all(error)}
    return NoContact(_plain(error), next(failure for failure in _MOST_TELLING if failure in failures))


_MOST_TELLING: Final = (
    Failure.REFUSED,
    Failure.BROKE,
    Failure.SILENT,
    Failure.NO_NAME,
    Failure.NO_ROUTE,
)
_FAILURES_OF: Final = {
    errno.ECONNREFUSED: Failure.REFUSED,
    errno.ECONNRESET: Failure.BROKE,
    errno.ENETUNREACH: Failure.NO_ROUTE,
    errno.ENETDOWN: Failure.NO_ROUTE,
    errno.EADDRNOTAVAIL: Failure.NO_ROUTE,
}


def _failure_of(error: BaseException) -> Failure:
    if isinstance(error, socket.gaierror | UnicodeError):
        return Failure.NO_NAME
    number = error.errno if isinstance(error, OSError) else None
    return _FAILURES_OF.get(number or 0, Failure.SILENT)


def _failure_of_handshake(error: BaseException) -> Failure:
    inner = _innermost_all(error)[0]
    if isinstance(inner, ssl.SSLCertVerificationError):
        return Failure.OTHER_FLEET
    if isinstance(inner, ssl.SSLError) and inner.reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"):
        return Failure.NOT_TLS
    return Failure.BROKE


def _innermost_all(error: BaseException) -> list[BaseException]:
    """The reasons below all layers."""
    if error.__cause__ is not None:
        return _innermost_all(error.__cause__)
    if isinstance(error, BaseExceptionGroup):
        return [inner for each in error.exceptions for inner in _innermost_all(each)]
    return [error]


def _plain(error: BaseException) -> str:
    """The innermost reason, without the layers above it."""
    error = _innermost_all(error)[0]
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.lower().replace("_", " ")
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error) or type(error).__name__

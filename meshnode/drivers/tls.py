"""TLS 1.3 between members: both sides show a certificate of the authority, and speak `meshnode/1`.

Host names mean nothing here, addresses even less: who a peer is, its certificate says, so names are not checked. A
peer without a certificate, of another fleet, with an older TLS or without our ALPN does not get past the handshake.
Whether a member is revoked is for the brain to say.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trio

from meshnode.core.errors import MeshnodeError, RemoteError
from meshnode.core.frames import ALPN
from meshnode.core.identity import Certificate, PublicKey, read_certificate
from meshnode.core.limits import HANDSHAKE_S

TlsStream = trio.SSLStream[trio.SocketStream]

#: What a handshake can end with when the other side, or the way to it, is not as it should be.
_FAILURES: Final = (trio.BrokenResourceError, trio.ClosedResourceError, ssl.SSLError, OSError)


class NoContact(MeshnodeError):
    """{problem}."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """Files of this device's key and certificate, the authority's certificate (PEM), and its key."""

    key_path: Path
    certificate_path: Path
    authority_path: Path
    authority: PublicKey

    def context(self, *, server: bool) -> ssl.SSLContext:
        """The TLS settings of one side."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(self.authority_path)
        context.load_cert_chain(self.certificate_path, self.key_path)
        context.set_alpn_protocols([ALPN])
        if server:
            context.num_tickets = 0  # a contact is opened once and kept; resuming one saves nothing
        return context


class Tls:
    """Opens authenticated streams, in both directions."""

    def __init__(self, credentials: Credentials) -> None:
        self._authority = credentials.authority
        self._client = credentials.context(server=False)
        self._server = credentials.context(server=True)

    async def dial(self, host: str, port: int) -> tuple[TlsStream, Certificate]:
        """Connect and shake hands. Raises NoContact."""
        with trio.move_on_after(HANDSHAKE_S):
            try:
                stream = await trio.open_tcp_stream(host, port)
            except (OSError, UnicodeError) as error:  # the latter: no name can have such a label
                raise NoContact(problem=_plain(error)) from None
            return await self._shake(trio.SSLStream(stream, self._client, https_compatible=True))
        raise NoContact(problem="no answer")

    async def accept(self, stream: trio.SocketStream) -> tuple[TlsStream, Certificate]:
        """Shake hands with whoever has connected. Raises NoContact."""
        with trio.move_on_after(HANDSHAKE_S):
            tls = trio.SSLStream(stream, self._server, server_side=True, https_compatible=True)
            return await self._shake(tls)
        raise NoContact(problem="it did not finish the handshake")

    async def _shake(self, stream: TlsStream) -> tuple[TlsStream, Certificate]:
        try:
            await stream.do_handshake()
            if stream.selected_alpn_protocol() != ALPN:
                raise NoContact(problem=f"it does not speak {ALPN}")
            der = stream.getpeercert(binary_form=True)
            if der is None:
                raise NoContact(problem="it showed no certificate")
            return stream, read_certificate(der, self._authority)
        except _FAILURES as error:
            await trio.aclose_forcefully(stream)
            raise NoContact(problem=_plain(error)) from None
        except RemoteError as error:
            await trio.aclose_forcefully(stream)
            raise NoContact(problem=str(error)) from None
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise


def _plain(error: BaseException) -> str:
    """The innermost reason, without the layers above it."""
    while error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, BaseExceptionGroup):
        return _plain(error.exceptions[0])
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.lower().replace("_", " ")
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error) or type(error).__name__

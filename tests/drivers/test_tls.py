"""Who gets past the handshake: only members, in both directions; and nobody keeps the others from it."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trio
from cryptography import x509

from meshnode.core.frames import ALPN
from meshnode.core.identity import Certificate, SigningKey, found_authority, issue_certificate, to_pem
from meshnode.core.limits import HANDSHAKE_S
from meshnode.drivers.tls import Credentials, NoContact, Tls, TlsStream
from tests.core.fleets import seed

DEADLINE_S = 10.0
LAST_SECOND = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)


class Papers:
    """A fleet's authority, and the files of its members."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder / name
        self.folder.mkdir()
        self.name = name
        self.key = SigningKey.from_seed(seed("authority", name))
        self.authority_path = self._write("authority.crt", to_pem(found_authority(self.key, name, 1)))

    def _write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_text(text)
        return path

    def member(self, name: str, issuer: SigningKey | None = None) -> Credentials:
        """A member's files; not really one if the issuer is not the authority."""
        key = SigningKey.from_seed(seed("device", self.name, name))
        der = issue_certificate(issuer or self.key, self.name, name, "officer", key.public, 7)
        return Credentials(
            self._write(f"{name}.key", key.to_pem().decode()),
            self._write(f"{name}.crt", to_pem(der)),
            self.authority_path,
            self.key.public,
        )


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    return Papers(tmp_path_factory.mktemp("ours"), "Tasikmalaya")


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    return Papers(tmp_path_factory.mktemp("theirs"), "Garut")


Result = tuple[TlsStream[trio.SocketStream], Certificate] | NoContact


class Door:
    """A listening member, and how each connection ended."""

    def __init__(self, tls: Tls) -> None:
        self._tls = tls
        self._send, self.results = trio.open_memory_channel[Result](100)
        self.host, self.port = "", 0

    async def answer(self, stream: trio.SocketStream) -> None:
        async with stream:
            try:
                tls, certificate = await self._tls.accept(stream)
            except NoContact as problem:
                await self._send.send(problem)
                return
            await self._send.send((tls, certificate))
            while data := await tls.receive_some(100):
                await tls.send_all(data)

    async def result(self) -> Result:
        with trio.fail_after(DEADLINE_S):
            return await self.results.receive()


@asynccontextmanager
async def listening(
    answer: Callable[[trio.SocketStream], Awaitable[object]],
) -> AsyncIterator[tuple[str, int]]:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    host, port = listener.socket.getsockname()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, answer, [listener])
        yield host, port
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def door_of(credentials: Credentials) -> AsyncIterator[Door]:
    door = Door(Tls(credentials))
    async with listening(door.answer) as (door.host, door.port):
        yield door


async def prove_open(door: Door, credentials: Credentials, name: str) -> None:
    """A member gets in, and bytes flow."""
    with trio.fail_after(DEADLINE_S):
        stream, peer = await Tls(credentials).dial(door.host, door.port)
        assert peer.name == "budi"
        result = await door.result()
        assert isinstance(result, tuple)
        assert result[1].name == name
        await stream.send_all(b"hello")
        assert await stream.receive_some(5) == b"hello"
        await stream.aclose()


async def test_two_members_meet(ours: Papers) -> None:
    async with door_of(ours.member("budi")) as door:
        ana = ours.member("ana")
        with trio.fail_after(DEADLINE_S):
            stream, peer = await Tls(ana).dial(door.host, door.port)
        result = await door.result()
        assert isinstance(result, tuple)
        for tls, certificate, path in (
            (stream, peer, ours.member("budi").certificate_path),
            (result[0], result[1], ana.certificate_path),
        ):
            assert tls.version() == "TLSv1.3"
            assert tls.selected_alpn_protocol() == ALPN
            assert to_pem(certificate.der) == path.read_text()
            assert certificate.role == "officer"
        await stream.aclose()


# --- who is turned away at the door ---


def context(credentials: Credentials | None, alpn: str | None = ALPN) -> ssl.SSLContext:
    """A client that believes anybody."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = False
    made.verify_mode = ssl.CERT_NONE
    if credentials is not None:
        made.load_cert_chain(credentials.certificate_path, credentials.key_path)
    if alpn is not None:
        made.set_alpn_protocols([alpn])
    return made


async def shake(door: Door, made: ssl.SSLContext) -> None:
    """Shake hands as this client, and wait for what the server does about it."""
    stream = await trio.open_ssl_over_tcp_stream(door.host, door.port, ssl_context=made)
    try:
        await stream.do_handshake()
        await stream.receive_some(1)
    except trio.BrokenResourceError:
        pass
    finally:
        await trio.aclose_forcefully(stream)


async def send(door: Door, data: bytes) -> None:
    """Say this instead of a handshake."""
    async with await trio.open_tcp_stream(door.host, door.port) as stream:
        await stream.send_all(data)
        with trio.move_on_after(DEADLINE_S):
            try:
                while await stream.receive_some(1000):
                    pass
            except trio.BrokenResourceError:
                pass


async def no_certificate(door: Door, ours: Papers, theirs: Papers) -> None:
    await shake(door, context(None))


async def another_fleets(door: Door, ours: Papers, theirs: Papers) -> None:
    await shake(door, context(theirs.member("ana")))


async def self_signed(door: Door, ours: Papers, theirs: Papers) -> None:
    # with our authority's name as the issuer, but not by its key
    await shake(door, context(ours.member("mallory", SigningKey.from_seed(seed("mallory")))))


async def tls_1_2(door: Door, ours: Papers, theirs: Papers) -> None:
    made = context(ours.member("ana"))
    made.maximum_version = ssl.TLSVersion.TLSv1_2
    await shake(door, made)


async def no_alpn(door: Door, ours: Papers, theirs: Papers) -> None:
    await shake(door, context(ours.member("ana"), None))


async def wrong_alpn(door: Door, ours: Papers, theirs: Papers) -> None:
    await shake(door, context(ours.member("ana"), "h2"))


async def plain_http(door: Door, ours: Papers, theirs: Papers) -> None:
    await send(door, b"GET / HTTP/1.1\r\nHost: office\r\n\r\n")


async def garbage(door: Door, ours: Papers, theirs: Papers) -> None:
    await send(door, bytes(range(256)) * 300)


async def nothing(door: Door, ours: Papers, theirs: Papers) -> None:
    stream = await trio.open_tcp_stream(door.host, door.port)
    await stream.aclose()


async def half_a_hello(door: Door, ours: Papers, theirs: Papers) -> None:
    async with await trio.open_tcp_stream(door.host, door.port) as stream:
        await stream.send_all(bytes.fromhex("1603010200010001fc0303") + bytes(40))


async def test_a_stranger_is_turned_away_and_the_door_stays_open(ours: Papers, theirs: Papers) -> None:
    says = {
        no_certificate: "peer did not return a certificate",
        another_fleets: "certificate verify failed",
        self_signed: "certificate verify failed",
        tls_1_2: "unsupported protocol",
        no_alpn: f"it does not speak {ALPN}",
        wrong_alpn: f"it does not speak {ALPN}",
        plain_http: "http request",
        garbage: "",
        nothing: "",
        half_a_hello: "",
    }
    async with door_of(ours.member("budi")) as door:
        for stranger, problem in says.items():
            with trio.fail_after(DEADLINE_S):
                await stranger(door, ours, theirs)
            result = await door.result()
            assert isinstance(result, NoContact), stranger.__name__
            assert problem in str(result), (stranger.__name__, str(result))
            assert "\n" not in str(result)
            await prove_open(door, ours.member("ana"), "ana")


async def test_who_does_not_finish_is_not_waited_for(
    ours: Papers, autojump_clock: trio.testing.MockClock
) -> None:
    tls = Tls(ours.member("budi"))
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener, await trio.open_tcp_stream(*listener.socket.getsockname()):
        began_s = trio.current_time()
        with pytest.raises(NoContact, match="did not finish the handshake"):
            await tls.accept(await listener.accept())
        assert trio.current_time() - began_s == pytest.approx(HANDSHAKE_S)


# --- whom a member does not take for one when it dials ---


def server_context(credentials: Credentials) -> ssl.SSLContext:
    """A server that lets anybody in."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(credentials.certificate_path, credentials.key_path)
    made.set_alpn_protocols([ALPN])
    return made


async def dial(ours: Papers, made: ssl.SSLContext) -> str:
    """Dial a server of this kind; why it is no member."""

    async def answer(stream: trio.SocketStream) -> None:
        tls = trio.SSLStream(stream, made, server_side=True)
        try:
            await tls.do_handshake()
            await tls.receive_some(1)
        except trio.BrokenResourceError:
            pass
        finally:
            await trio.aclose_forcefully(tls)

    async with listening(answer) as (host, port):
        with trio.fail_after(DEADLINE_S), pytest.raises(NoContact) as refused:
            await Tls(ours.member("ana")).dial(host, port)
    return str(refused.value)


async def test_dialling_another_fleet(ours: Papers, theirs: Papers) -> None:
    assert "certificate verify failed" in await dial(ours, server_context(theirs.member("budi")))


async def test_dialling_a_forged_member(ours: Papers) -> None:
    forged = ours.member("mallory", SigningKey.from_seed(seed("mallory")))
    assert "certificate verify failed" in await dial(ours, server_context(forged))


async def test_dialling_one_with_an_older_tls(ours: Papers) -> None:
    made = server_context(ours.member("budi"))
    made.maximum_version = ssl.TLSVersion.TLSv1_2
    assert await dial(ours, made)  # what it says depends on how much of the alert comes through


@pytest.mark.parametrize("protocols", [[], ["h2"]])
async def test_dialling_one_that_does_not_speak_it(ours: Papers, protocols: list[str]) -> None:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    member = ours.member("budi")
    made.load_cert_chain(member.certificate_path, member.key_path)
    if protocols:
        made.set_alpn_protocols(protocols)
    assert await dial(ours, made) == f"it does not speak {ALPN}."


@pytest.mark.parametrize(
    "says", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-OpenSSH_9.6\r\n", bytes(5000)]
)
async def test_dialling_something_else(ours: Papers, says: bytes) -> None:
    async def answer(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some(1)
            if says:
                await stream.send_all(says)

    async with listening(answer) as (host, port):
        with trio.fail_after(DEADLINE_S), pytest.raises(NoContact) as refused:
            await Tls(ours.member("ana")).dial(host, port)
    assert "\n" not in str(refused.value)


async def test_dialling_where_nobody_listens(ours: Papers) -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    host, port = listener.socket.getsockname()
    await listener.aclose()
    with trio.fail_after(DEADLINE_S), pytest.raises(NoContact, match="connection refused"):
        await Tls(ours.member("ana")).dial(host, port)


@pytest.mark.parametrize("host", ["a..b", "x" * 64 + ".example"])
async def test_dialling_what_cannot_be_a_name(ours: Papers, host: str) -> None:
    with trio.fail_after(DEADLINE_S), pytest.raises(NoContact):
        await Tls(ours.member("ana")).dial(host, 7766)


async def test_dialling_one_that_says_nothing(ours: Papers, autojump_clock: trio.testing.MockClock) -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        with pytest.raises(NoContact, match="no answer"):
            await Tls(ours.member("ana")).dial(*listener.socket.getsockname())


# --- no clock ends a membership ---


def test_certificates_are_valid_whatever_the_clock_says(ours: Papers) -> None:
    for path in (ours.member("ana").certificate_path, ours.authority_path):
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
        assert certificate.not_valid_before_utc == datetime(1970, 1, 1, tzinfo=UTC)
        assert certificate.not_valid_after_utc == LAST_SECOND


@pytest.mark.parametrize(
    "at",
    [
        datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC),
        datetime(2038, 1, 20, tzinfo=UTC),
        LAST_SECOND - timedelta(seconds=1),
    ],
)
@pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl to ask")
def test_openssl_agrees_at_any_time(ours: Papers, at: datetime) -> None:
    command = ["openssl", "verify", "-x509_strict", "-attime", str(int(at.timestamp())), "-CAfile"]
    done = subprocess.run(
        [*command, ours.authority_path, ours.member("ana").certificate_path],
        capture_output=True,
        check=False,
        text=True,
    )
    assert done.returncode == 0, done.stderr

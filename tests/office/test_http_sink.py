"""The HTTP sink: what a server is sent, byte for byte; what each of its answers means; and who it must be."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import socket
import ssl
import stat
import subprocess
import sys
import tempfile
import threading
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from trio.testing import MockClock, wait_all_tasks_blocked

from meshnode.core.errors import LocalError
from meshnode.core.message import File
from meshnode.office.desk import Desk
from meshnode.office.sinks import BadProxy, BadSinkFile, Envelope, HttpFiles, Never, NotNow, Sink, make_sink
from meshnode.office.sinks.directory import DirectorySink
from meshnode.office.sinks.http import HttpSink
from tests.office.registry import DEADLINE_S, Answer, Part, Request, registry
from tests.office.world import (
    ENDPOINT,
    EVENING_MS,
    KEYS,
    SITI,
    Office,
    Shelf,
    Writer,
    chunks_of,
    inline,
    manifest_of,
    stream_of,
)

KEY = "00112233445566778899aabbccddeeff:12"
ENVELOPE = Envelope(KEY, "officer-07", SITI.id, EVENING_MS)
CONTENTS = [
    ("foto.jpg", b"\xff\xd8" + bytes(range(256)) * 300),
    ("kosong.txt", b""),
    ('tanda "tangan" – 写真.png', b"\r\n--x\r\nends with a line\r\n"),
    ("kosong juga", b""),
    ("%22;=é", b"\r"),
]
TOKEN = "s3cret-Token~1=="

Contents = list[tuple[str, bytes]]


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def deliver(
    sink: Sink, envelope: Envelope = ENVELOPE, contents: Contents = CONTENTS, **fields: object
) -> None:
    """Hand a message on as the office does."""
    delivery = sink.begin(envelope, manifest_of(contents, **fields))
    assert delivery is not None
    try:
        for index, (_, data) in enumerate(contents):
            for at in range(0, len(data), 2000):
                delivery.write(index, memoryview(data)[at : at + 2000])
        delivery.commit()
    except BaseException:
        delivery.abort()
        raise


def plain(data: bytes) -> Contents:
    return [("a.txt", data)]


# --- what is sent ---


def test_the_form_has_the_listing_and_every_file_byte_for_byte(tmp_path: Path) -> None:
    with registry() as server:
        deliver(HttpSink(server.url + "?office=1", tmp_path))
    (request,) = server.requests
    assert request.path == "/messages?office=1"
    assert request.headers["Idempotency-Key"] == KEY
    assert request.headers["Content-Length"] == str(len(request.body))
    assert "Transfer-Encoding" not in request.headers
    assert "Authorization" not in request.headers
    listing, *files = request.parts()
    assert listing[:3] == ("message", "message.json", "application/json")
    assert [part.data for part in files] == [data for _, data in CONTENTS]
    assert [part.type for part in files] == ["application/octet-stream"] * len(CONTENTS)
    assert {part.name for part in files} == {"file"}
    # a form cannot tell a quotation mark from %22; the listing can
    assert [part.file_name for part in files] == [name.replace("%22", '"') for name, _ in CONTENTS]
    assert [file["name"] for file in json.loads(listing.data)["files"]] == [name for name, _ in CONTENTS]
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("held", [None, "the source device was revoked"])
def test_the_listing_is_the_one_that_the_directory_sink_writes(tmp_path: Path, held: str | None) -> None:
    envelope = replace(ENVELOPE, held=held)
    deliver(DirectorySink(tmp_path / "inbox"), envelope)
    (written,) = (tmp_path / "inbox").rglob("message.json")
    with registry() as server:
        deliver(HttpSink(server.url, tmp_path), envelope)
    assert server.requests[0].parts()[0].data == written.read_bytes()
    assert json.loads(written.read_bytes()).get("held") == held


@pytest.mark.parametrize(
    ("said", "sent"),
    [
        ("image/jpeg", "image/jpeg"),
        ("text/plain; charset=utf-8", "text/plain; charset=utf-8"),
        ("image/svg+xml", "image/svg+xml"),
        ("", "application/octet-stream"),
        ("photo", "application/octet-stream"),
        ("a/b\r\nX-Evil: 1", "application/octet-stream"),
        ("a/b\r\n\r\nbody", "application/octet-stream"),
        ("a/b\n", "application/octet-stream"),
        ("gambar/é", "application/octet-stream"),
    ],
)
def test_a_type_is_sent_if_it_is_one(tmp_path: Path, said: str, sent: str) -> None:
    with registry() as server:
        deliver(HttpSink(server.url, tmp_path), contents=plain(b"x"), files=(File("a.txt", 1, said),))
    assert server.requests[0].parts()[1] == Part("file", "a.txt", sent, b"x")


def test_what_is_on_its_way_has_no_name_and_only_this_user_reads_it(tmp_path: Path) -> None:
    with registry() as server:
        delivery = HttpSink(server.url, tmp_path).begin(ENVELOPE, manifest_of(plain(b"x" * 100_000)))
        delivery.write(0, b"x" * 100_000)
        spool = delivery._spool
        status = os.fstat(spool.fileno())
        assert stat.S_IMODE(status.st_mode) == 0o600
        assert status.st_nlink == 0
        assert status.st_size > 50_000
        assert status.st_dev == tmp_path.stat().st_dev
        assert os.listdir(tmp_path) == []
        delivery.commit()
        assert spool.closed
    assert server.requests[0].parts()[1].data == b"x" * 100_000


def test_a_message_that_is_given_up_is_never_sent(tmp_path: Path) -> None:
    with registry() as server:
        delivery = HttpSink(server.url, tmp_path).begin(ENVELOPE, manifest_of(CONTENTS))
        delivery.write(0, b"half")
        delivery.abort()
        delivery.abort()
        assert delivery._spool.closed
    assert server.requests == []


def test_a_large_message_needs_little_memory(tmp_path: Path) -> None:
    piece, count = os.urandom(1 << 20), 32
    expected = hashlib.sha256(piece * count).hexdigest()
    listener = socket.create_server(("127.0.0.1", 0))
    seen: list[int] = []

    def drain() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(DEADLINE_S)
            head = b""
            while b"\r\n\r\n" not in head:
                head += connection.recv(4096)
            head, _, rest = head.partition(b"\r\n\r\n")
            (length,) = (
                int(row[16:]) for row in head.split(b"\r\n") if row.lower().startswith(b"content-length: ")
            )
            seen.append(length)
            buffer = bytearray(65536)
            left = length - len(rest)
            while left:
                left -= connection.recv_into(buffer, min(left, len(buffer)))
            connection.sendall(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")

    thread = threading.Thread(target=drain)
    thread.start()
    with listener:
        sink = HttpSink(f"http://127.0.0.1:{listener.getsockname()[1]}/", tmp_path)
        tracemalloc.start()
        try:
            manifest = manifest_of([], files=(File("large", len(piece) * count),))
            delivery = sink.begin(ENVELOPE, manifest)
            for _ in range(count):
                delivery.write(0, piece)
            delivery.commit()
            _, peak_bytes = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
            thread.join(DEADLINE_S)
    assert seen[0] > len(piece) * count
    assert delivery._hashes[0].hexdigest() == expected
    assert peak_bytes < 4 << 20


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_means_not_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with registry() as server:
        sink = HttpSink(server.url, tmp_path)
        monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: open("/dev/full", "w+b"))  # noqa: SIM115
        for size in (10, 100_000):  # found when flushing, and when writing
            with pytest.raises(NotNow, match="cannot be written: no space left on device"):
                deliver(sink, contents=plain(b"x" * size))
        monkeypatch.undo()
        deliver(sink)
    assert len(server.requests) == 1


def test_a_home_that_is_gone_means_not_now(tmp_path: Path) -> None:
    with registry() as server:
        sink = HttpSink(server.url, tmp_path / "gone")
        with pytest.raises(NotNow, match="cannot be written: no such file or directory"):
            deliver(sink)


# --- what the answers mean ---


@pytest.mark.parametrize("status", [200, 201, 202, 204, 409])
def test_taken(tmp_path: Path, status: int) -> None:
    with registry(Answer(status)) as server:
        deliver(HttpSink(server.url, tmp_path))
    assert server.keys == [KEY]


@pytest.mark.parametrize("status", [400, 404, 413, 415, 422, 499])
def test_never(tmp_path: Path, status: int) -> None:
    with registry(Answer(status, b"NIK is wrong.\n")) as server, pytest.raises(Never) as refusal:
        deliver(HttpSink(server.url, tmp_path))
    assert str(refusal.value) == f"the server answers {status}: NIK is wrong."


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        (b"", ""),
        (b"\n\n", ""),
        (b'{\n  "error": "no such desa"\n}', ': { "error": "no such desa" }'),
        (b"\x1b[31mred\x07\x00 \xe2\x80\xaeevil", ": [31mred evil"),
        (b"\xff\xfe", ": ��"),
        ("é".encode() * 5000, ": " + "é" * 200),
        (f"you sent Bearer {TOKEN}".encode(), ": you sent Bearer …"),
        (b"{key} %s", ": {key} %s"),
    ],
)
def test_what_a_refusal_says_is_shown_in_one_harmless_line(tmp_path: Path, body: bytes, shown: str) -> None:
    (tmp_path / "token").write_text(TOKEN)
    with registry(Answer(400, body)) as server, pytest.raises(Never) as refusal:
        deliver(HttpSink(server.url, tmp_path, HttpFiles(token_file="token")))
    assert str(refusal.value) == f"the server answers 400{shown}."


def test_a_refusal_whose_words_do_not_come_is_one_all_the_same(tmp_path: Path) -> None:
    raw = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 100\r\n\r\nshort"
    with registry(Answer(raw=raw)) as server, pytest.raises(Never, match=r"answers 400: short\."):
        deliver(HttpSink(server.url, tmp_path))


@pytest.mark.parametrize(
    ("status", "says"),
    [
        (401, r"/messages refuses this office \(401\): the token, the certificate"),
        (403, r"refuses this office \(403\)"),
        (407, r"refuses this office \(407\)"),
        (408, r"/messages answers 408\.$"),
        (425, "answers 425"),
        (429, "answers 429"),
        (500, r"/messages answers 500\.$"),
        (503, "answers 503"),
        (599, "answers 599"),
        (300, r"sends elsewhere \(300\)"),
        (304, r"sends elsewhere \(304\)"),
    ],
)
def test_not_now(tmp_path: Path, status: int, says: str) -> None:
    with registry(Answer(status, b"about Siti")) as server:
        sink = HttpSink(server.url + "?secret=1", tmp_path)
        with pytest.raises(NotNow, match=says) as problem:
            deliver(sink)
        assert "Siti" not in str(problem.value)
        assert "secret" not in str(problem.value)
        deliver(sink)
    assert server.keys == [KEY, KEY]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(tmp_path: Path, status: int) -> None:
    with (
        registry() as other,
        registry(Answer(status, headers={"Location": other.url})) as server,
        pytest.raises(NotNow, match=rf"sends elsewhere \({status}\): `office.sink` has to be"),
    ):
        deliver(HttpSink(server.url, tmp_path))
    assert len(server.requests) == 1
    assert other.requests == []


@pytest.mark.parametrize(
    "raw", [b"", b"\x00\xff garbage\r\n\r\n", b"SSH-2.0-x\r\n", b"HTTP/1.1 2", b"HTTP/1.1 999999 x\r\n\r\n"]
)
def test_an_answer_that_is_none(tmp_path: Path, raw: bytes) -> None:
    with registry(Answer(raw=raw)) as server:
        with pytest.raises(NotNow, match=r"/messages breaks off, or does not speak HTTP\.$"):
            deliver(HttpSink(server.url, tmp_path))
        assert len(server.requests) == 1


def test_a_server_that_echoes_does_not_bring_the_token_into_the_log(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(TOKEN)
    with registry(Answer(raw=f"Bearer {TOKEN}\r\n\r\n".encode())) as server, pytest.raises(NotNow) as problem:
        deliver(HttpSink(server.url, tmp_path, HttpFiles(token_file="token")))
    assert TOKEN not in str(problem.value)


def test_a_server_that_hangs(tmp_path: Path) -> None:
    with registry(Answer(hang=True)) as server:
        sink = HttpSink(server.url, tmp_path, answer_s=0.1)
        with pytest.raises(NotNow, match="/messages does not answer in time"):
            deliver(sink)


def test_an_answer_that_comes_before_everything_was_sent_counts(tmp_path: Path) -> None:
    """Most servers refuse what is too large without reading it."""
    listener = socket.create_server(("127.0.0.1", 0))

    def refuse() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(DEADLINE_S)
            connection.recv(1024)
            connection.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 9\r\n\r\ntoo large")
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65536):
                pass

    thread = threading.Thread(target=refuse)
    thread.start()
    with listener:
        sink = HttpSink(f"http://127.0.0.1:{listener.getsockname()[1]}/", tmp_path)
        with pytest.raises(Never, match="413: too large"):
            deliver(sink, contents=plain(b"x" * 5_000_000))
        thread.join(DEADLINE_S)


def test_nobody_there(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(NotNow, match=rf"http://127.0.0.1:{port}/ cannot be reached: connection refused"):
        deliver(HttpSink(f"http://127.0.0.1:{port}/", tmp_path))


def test_a_host_that_nobody_knows(tmp_path: Path) -> None:
    with pytest.raises(NotNow, match=r"http://nowhere\.invalid/ cannot be reached: \S+"):
        deliver(HttpSink("http://nowhere.invalid/", tmp_path))


# --- who the server is, and who the office is ---


@dataclass(frozen=True)
class Authority:
    """A certificate authority of a test, and the folder with its papers."""

    folder: Path
    name: str
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @property
    def path(self) -> Path:
        return self.folder / f"{self.name}.pem"

    def issue(self, name: str, passphrase: bytes | None = None) -> tuple[Path, Path]:
        """A certificate for 127.0.0.1, and its key, as files."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(name, self.name, key, self.key).add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False
        )
        paths = self.folder / f"{name}.crt", self.folder / f"{name}.key"
        paths[0].write_bytes(_pem(builder.sign(self.key, hashes.SHA256())))
        paths[1].write_bytes(_key_pem(key, passphrase))
        return paths


def _builder(
    name: str, issuer: str, key: ec.EllipticCurvePrivateKey, by: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(by.public_key()), critical=False)
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey, passphrase: bytes | None) -> bytes:
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase is not None:
        encryption = serialization.BestAvailableEncryption(passphrase)
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


def authority(folder: Path, name: str) -> Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    usage = x509.KeyUsage(
        False, False, False, False, False, True, True, False, False
    )  # signs certificates and CRLs
    certificate = (
        _builder(name, name, key, key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .sign(key, hashes.SHA256())
    )
    found = Authority(folder, name, key, certificate)
    found.path.write_bytes(_pem(certificate))
    return found


def server_tls(by: Authority, clients: Authority | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*by.issue("registry"))
    if clients is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(clients.path)
    return context


def test_a_private_authority_is_trusted_where_it_is_named(tmp_path: Path) -> None:
    private, other = authority(tmp_path, "private"), authority(tmp_path, "other")
    with registry(tls=server_tls(private)) as server:
        deliver(HttpSink(server.url, tmp_path, HttpFiles(ca_file="private.pem")))
        for files in (HttpFiles(), HttpFiles(ca_file=str(other.path))):
            with pytest.raises(NotNow, match="cannot be reached: certificate verify failed"):
                deliver(HttpSink(server.url, tmp_path, files))
        elsewhere = server.url.replace("127.0.0.1", "localhost")
        with pytest.raises(NotNow, match="Hostname mismatch"):
            deliver(HttpSink(elsewhere, tmp_path, HttpFiles(ca_file="private.pem")))
    assert len(server.requests) == 1
    assert server.requests[0].parts()[1].data == CONTENTS[0][1]


def test_plain_http_where_tls_is_spoken_and_the_other_way_round(tmp_path: Path) -> None:
    private = authority(tmp_path, "private")
    with registry(tls=server_tls(private)) as server, pytest.raises(NotNow):
        deliver(HttpSink(server.url.replace("https", "http"), tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(DEADLINE_S)
                connection.recv(1024)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(NotNow, match="cannot be reached"):
            deliver(HttpSink(f"https://127.0.0.1:{listener.getsockname()[1]}/", tmp_path))
        thread.join(DEADLINE_S)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_the_office_shows_its_certificate(tmp_path: Path, version: ssl.TLSVersion) -> None:
    private, clients = authority(tmp_path, "private"), authority(tmp_path, "clients")
    clients.issue("office")
    private.issue("stranger")
    both = (tmp_path / "office.crt").read_bytes() + (tmp_path / "office.key").read_bytes()
    (tmp_path / "both.pem").write_bytes(both)
    tls = server_tls(private, clients)
    tls.minimum_version = tls.maximum_version = version
    trust = HttpFiles(ca_file="private.pem")
    with registry(tls=tls) as server:
        known = replace(trust, certificate_file="office.crt", key_file="office.key")
        deliver(HttpSink(server.url, tmp_path, known))
        deliver(HttpSink(server.url, tmp_path, replace(trust, certificate_file="both.pem")))
        stranger = replace(trust, certificate_file="stranger.crt", key_file="stranger.key")
        for files in (trust, stranger):
            with pytest.raises(NotNow):
                deliver(HttpSink(server.url, tmp_path, files))
    assert len(server.requests) == 2


def test_the_token_is_sent_and_a_new_one_needs_no_new_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\n")
    with registry() as server:
        server.answer = lambda request: Answer(
            200 if request.headers["Authorization"] == f"Bearer {TOKEN}" else 401
        )
        sink = HttpSink(server.url, tmp_path, HttpFiles(token_file="token"))
        deliver(sink)
        path.write_text("other")
        deliver(sink)  # the old one is good as long as it is taken
        path.unlink()
        server.answer = lambda request: Answer(401)
        with pytest.raises(NotNow, match="refuses this office"):
            deliver(sink)
        with pytest.raises(
            NotNow, match=r"`office\.http\.token_file` in config\.toml names .*/token, which does not"
        ):
            deliver(sink)
        server.answer = lambda request: Answer(
            200 if request.headers["Authorization"] == "Bearer new" else 401
        )
        path.write_text("new")
        deliver(sink)
    assert len(server.requests) == 4
    assert TOKEN not in caplog.text + repr(sink.__dict__)
    assert caplog.text == ""


# --- what is wrong is said at the start ---


@pytest.mark.parametrize("key", ["token_file", "ca_file", "certificate_file", "key_file"])
def test_a_file_that_is_not_there_or_not_what_it_should_be(tmp_path: Path, key: str) -> None:
    certificate, _ = authority(tmp_path, "private").issue("office")
    extra = {"certificate_file": str(certificate)} if key == "key_file" else {}
    files = HttpFiles(**{**extra, key: "named"})
    named = tmp_path / "named"

    def refusal() -> str:
        with pytest.raises(BadSinkFile) as refused:
            make_sink("https://registry.example/", tmp_path, files)
        assert isinstance(refused.value, LocalError)
        assert refused.value.exit_code == 1
        return str(refused.value)

    assert refusal() == f"`office.http.{key}` in config.toml names {named}, which does not exist."
    named.mkdir()
    assert (
        refusal()
        == f"`office.http.{key}` in config.toml names {named}, which cannot be read: is a directory."
    )
    named.rmdir()
    for content in (b"", b"two words\x00", TOKEN.encode() + b"\n\xff", b"x" * (2 << 20)):
        named.write_bytes(content)
        said = refusal()
        assert "`office.http." in said
        assert TOKEN not in said


def test_a_key_that_does_not_fit_or_needs_a_passphrase_is_refused_and_nobody_is_asked(tmp_path: Path) -> None:
    private = authority(tmp_path, "private")
    private.issue("office")
    private.issue("other")
    private.issue("locked", b"passphrase")
    for files in (
        HttpFiles(certificate_file="office.crt", key_file="other.key"),
        HttpFiles(certificate_file="locked.crt", key_file="locked.key"),
        HttpFiles(certificate_file="office.crt"),
    ):
        with pytest.raises(BadSinkFile, match=r"certificate_file` .* is no certificate in PEM with its key"):
            HttpSink("https://registry.example/", tmp_path, files)


def test_a_proxy_that_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "gopher://user:hidden@proxy:1")
    with pytest.raises(BadProxy, match="proxy that the environment names cannot be used: ") as refused:
        HttpSink("http://registry.example/", tmp_path)
    assert "hidden" not in str(refused.value)


def test_the_proxy_of_the_environment_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with registry() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url.removesuffix("/messages"))
        deliver(HttpSink("http://registry.invalid/messages", tmp_path))
    assert proxy.requests[0].path == "http://registry.invalid/messages"


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("http://", "must name a host"),
        ("https:///path", "must name a host"),
        ("https://user:pw@registry.example/", "without a password"),
        ("https://user@registry.example/", "without a password"),
        ("https://registry.example/#top", "without '#'"),
        ("https://registry.example/#", "without '#'"),
        ("https://registry.example:0/", "must name a host, and a port"),
        ("https://registry.example:99999/", "must name a host, and a port"),
        ("https://registry.example:x/", "is not"),
        ("https://registry..example/", "is not"),
        (f"https://{'a' * 64}.example/", "is not"),
        ("https://regis try/", "must name a host"),
        ("https://registry.example/\n", "is not"),
        ("HTTPS://registry.example/", "directory:"),
        ("ftp://registry.example/", "directory:"),
    ],
)
def test_a_url_that_cannot_be_posted_to(tmp_path: Path, spec: str, says: str) -> None:
    with pytest.raises(ValueError, match=says) as refused:
        make_sink(spec, tmp_path)
    assert "pw" not in str(refused.value).replace("password", "")


def test_who_has_no_such_sink_does_not_load_a_client() -> None:
    code = (
        "import sys; from pathlib import Path; import meshnode.app.daemon, meshnode.app.cli;"
        "from meshnode.office.sinks import make_sink; make_sink('directory:inbox', Path(sys.argv[1]));"
        "print('httpx' in sys.modules)"
    )
    with tempfile.TemporaryDirectory() as folder:
        ran = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, check=True)
    assert ran.stdout == "False\n"


# --- at the desk ---


def desk_for(office: Office, sink: Sink) -> Desk:
    return Desk(
        office.state, ENDPOINT, KEYS, sink, office.shelf.read, office.on_taken, office.log, run_sync=inline
    )


@asynccontextmanager
async def working(desk: Desk) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(desk.run)
        yield
        nursery.cancel_scope.cancel()


def arrived(count: int) -> tuple[Office, Writer, list[str]]:
    """An office with so many whole messages, and their keys."""
    office, writer, keys = Office(Shelf()), Writer(SITI), []
    for number in range(count):
        keys.append(f"{writer.journal.hex()}:{writer.last + 1}")
        office.arrive(writer.write(chunks_of(stream_of([*CONTENTS, ("n", b"%d" % number)]), 40_000)))
    return office, writer, keys


async def test_what_the_server_cannot_take_now_comes_again_under_the_same_key(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    office, writer, keys = arrived(2)
    with registry(Answer(503)) as server:
        desk = desk_for(office, HttpSink(server.url, tmp_path))
        async with working(desk):
            await wait_all_tasks_blocked()
            assert str(desk.problem) == f"{server.url} answers 503."
            assert office.taken == []
            await trio.sleep(10)
            assert desk.quarantined == {}
    assert server.keys[0] == keys[0]
    assert sorted(server.keys[1:]) == sorted(keys)
    assert server.requests[0].parts() == server.requests[server.keys.index(keys[0], 1)].parts()
    assert office.shelf.bundles == {}
    assert office.state.ledger.journals[writer.journal].receipted.covers(1, writer.last)
    assert office.lines[-1] == "messages are handed on again"


async def test_what_the_server_refuses_is_quarantined_and_the_others_go_on(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    office, _, keys = arrived(3)

    def answer(request: Request) -> Answer:
        bad = request.headers["Idempotency-Key"] == keys[1]
        return Answer(422, b"NIK of Siti is wrong") if bad else Answer(201)

    with registry() as server:
        server.answer = answer
        desk = desk_for(office, HttpSink(server.url, tmp_path))
        async with working(desk):
            await wait_all_tasks_blocked()
            await trio.sleep(10)
            assert desk.problem is None
            (refused, why), *others = desk.quarantined.items()
            assert (refused, str(why), others) == (
                keys[1],
                "the server answers 422: NIK of Siti is wrong.",
                [],
            )
    assert server.keys == keys
    assert not any("Siti" in line for line in office.lines)
    assert [part.data for part in server.requests[2].parts()[1:]] == [*(data for _, data in CONTENTS), b"2"]


async def test_a_message_of_a_revoked_device_says_so(autojump_clock: MockClock, tmp_path: Path) -> None:
    office = Office(Shelf(), revoked=[SITI.id])
    office.arrive(Writer(SITI).write(chunks_of(stream_of(CONTENTS))))
    with registry() as server:
        async with working(desk_for(office, HttpSink(server.url, tmp_path))):
            await wait_all_tasks_blocked()
    assert json.loads(server.requests[0].parts()[0].data)["held"] == "the source device was revoked"

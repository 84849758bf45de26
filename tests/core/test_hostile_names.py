"""A certificate or a request with a name that is a path, a command to a terminal, or a book: refused and not repeated.

The authority's own signature does not help it."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.x509.oid import NameOID

from meshnode.core.errors import RemoteError
from meshnode.core.fields import pack
from meshnode.core.fleet import read_request
from meshnode.core.identity import ROLE_OID, read_authority, read_certificate
from tests.core.fleets import Fleet, seed

FLEET = Fleet()
AUTHORITY = Ed25519PrivateKey.from_private_bytes(seed("authority"))

NAMES = [
    "../../etc/cron.d/x",
    "/etc/passwd",
    "C:\\x",
    "..",
    ".",
    "siti.",
    "-rf",
    "",
    " siti",
    "siti\n2026-01-01 INFO contact with mallory",
    "siti\x1b[2J",
    "siti\x07",
    "siti\x00",
    "siti\x9b31m",
    "siti\u202e",
    "ｓiti",
    "siti\u0301",
    "x" * 64,
    "x" * 1900,
    "x" * 65_536,
]
#: A fleet's may end with a dot, and no file is called after it.
FLEET_NAMES = [name for name in NAMES if name != "siti."]
pytestmark = pytest.mark.filterwarnings("ignore:Attribute's length")
ids = [repr(name)[:30] for name in NAMES]


def certified(name: str, role: bytes = b"officer") -> bytes:
    """A certificate that the authority has signed, whatever it says."""
    attribute = x509.NameAttribute(NameOID.COMMON_NAME, name, _validate=False)
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, FLEET.name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([attribute]))
        .issuer_name(issuer)
        .public_key(Ed25519PublicKey.from_public_bytes(FLEET.key("siti").public.raw))
        .serial_number(7)
        .not_valid_before(_time(1970))
        .not_valid_after(_time(9999))
        .add_extension(x509.UnrecognizedExtension(ROLE_OID, role), critical=False)
    )
    return builder.sign(AUTHORITY, None).public_bytes(serialization.Encoding.DER)


def _time(year: int) -> datetime:
    return datetime(year, 1, 1, tzinfo=UTC)


def refused(problem: RemoteError, name: str) -> None:
    text = str(problem)
    assert text.isprintable()
    assert len(text) < 200
    assert len(name) < 3 or name not in text


def test_a_good_name_passes() -> None:
    padded = "siti-of-the-southern-hills-and-the-long-beach.2"
    assert read_certificate(certified(padded), FLEET.authority.public).name == padded


@pytest.mark.parametrize("name", NAMES, ids=ids)
def test_a_certificate(name: str) -> None:
    try:
        der = certified(name)
    except ValueError:
        pytest.skip("no certificate can be made with this name here")
    with pytest.raises(RemoteError) as caught:
        read_certificate(der, FLEET.authority.public)
    refused(caught.value, name)


@pytest.mark.parametrize("role", [b"", b"king", b"officer\0", b"\xff\x1b[2J", b"x" * 500])
def test_a_role(role: bytes) -> None:
    with pytest.raises(RemoteError) as caught:
        read_certificate(certified("siti-of-the-southern-hills", role), FLEET.authority.public)
    refused(caught.value, "king")


@pytest.mark.parametrize("name", NAMES, ids=ids)
def test_a_request(name: str) -> None:
    key = FLEET.key("siti")
    body = pack([1, name, "officer", key.public.raw, b"", b""])
    with pytest.raises(RemoteError) as caught:
        read_request(pack([body, key.sign(body)]))
    refused(caught.value, name)


@pytest.mark.parametrize("name", FLEET_NAMES, ids=[repr(name)[:30] for name in FLEET_NAMES])
def test_an_authority(name: str) -> None:
    try:
        attribute = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name, _validate=False)])
        der = (
            x509.CertificateBuilder()
            .subject_name(attribute)
            .issuer_name(attribute)
            .public_key(AUTHORITY.public_key())
            .serial_number(7)
            .not_valid_before(_time(1970))
            .not_valid_after(_time(9999))
            .add_extension(x509.UnrecognizedExtension(ROLE_OID, bytes(120)), critical=False)
            .sign(AUTHORITY, None)
            .public_bytes(serialization.Encoding.DER)
        )
    except ValueError:
        pytest.skip("no certificate can be made with this name here")
    with pytest.raises(RemoteError) as caught:
        read_authority(der)
    refused(caught.value, name)

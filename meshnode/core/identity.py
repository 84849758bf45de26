"""Who is who: keys, ids and certificates.

A device is an Ed25519 key; its id is the first 16 bytes of SHA-256 of the public key, so an id cannot be taken by
another. The authority, an Ed25519 key too, admits a device by an X.509 certificate (RFC 5280, RFC 8410), because
TLS wants one: subject CN is the device's name, a private extension holds its role. Certificates are valid from 1970 to
9999: a tablet whose clock fell back must still work, so a membership ends by revocation and never by a clock.

This module and `sealing` are the only ones that touch `cryptography`; signatures are checked here by libsodium, in half
the time, which is most of what a bundle costs its carriers. Keys are made from seeds that the caller draws.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, NewType

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier
from nacl.bindings import crypto_sign_open
from nacl.exceptions import BadSignatureError

from meshnode.core.errors import BadFleetName, BadName, RemoteError
from meshnode.core.limits import CERTIFICATE_SIZE_MAX, NAME_SIZE_MAX
from meshnode.core.words import Said, say

DeviceId = NewType("DeviceId", bytes)
EndpointId = NewType("EndpointId", bytes)
FleetId = NewType("FleetId", bytes)
JournalId = NewType("JournalId", bytes)

ID_SIZE: Final = 16
KEY_SIZE: Final = 32
SIGNATURE_SIZE: Final = 64

ROLES: Final = ("officer", "gateway", "office")

#: The role extension, in the arc that RFC 4122 / X.667 gives to UUIDs (this one was drawn for meshnode).
ROLE_OID: Final = ObjectIdentifier("2.25.196387254107342291164519093218734162017")

#: What stands between a certificate's body and its 64-byte signature: Ed25519 (RFC 8410), a bit string.
_ED25519_SIGNED: Final = bytes.fromhex("300506032b6570034100")

_NOT_BEFORE: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NOT_AFTER: Final = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
_DEVICE_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", re.ASCII)
_FLEET_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,62}", re.ASCII)


def check_device_name(name: str) -> str:
    """`name`, if it can be one. Raises BadName. The rule makes it safe as a file name, a CN and a log word."""
    if not _DEVICE_NAME.fullmatch(name) or name.endswith("."):
        raise BadName(name=repr(name))
    return name


def check_fleet_name(name: str) -> str:
    """`name`, if it can name a fleet. Raises BadFleetName."""
    if not _FLEET_NAME.fullmatch(name) or name != name.strip():
        raise BadFleetName(name=repr(name))
    return name


def digest_id(key: bytes) -> bytes:
    """The 16-byte id of a 32-byte public key."""
    return hashlib.sha256(key).digest()[:ID_SIZE]


class PublicKey:
    """An Ed25519 public key (RFC 8032); `raw` is its 32 bytes, `id` that of whoever holds the private key."""

    __slots__ = ("id", "raw")

    def __init__(self, raw: bytes) -> None:
        """Raises RemoteError if `raw` is no key."""
        if len(raw) != KEY_SIZE:
            raise RemoteError(say("public key"), "is not an Ed25519 key")
        self.raw = raw
        self.id = digest_id(raw)

    def verify(self, signature: bytes, data: bytes, what: Said) -> None:
        """Raises RemoteError naming `what` unless `signature` (64 bytes) over `data` was made with this key."""
        try:
            if len(signature) != SIGNATURE_SIZE:
                raise BadSignatureError
            crypto_sign_open(signature + data, self.raw)
        except BadSignatureError:
            raise RemoteError(what, "has a false signature") from None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PublicKey) and self.raw == other.raw

    def __hash__(self) -> int:
        return hash(self.raw)


class SigningKey:
    """An Ed25519 private key (RFC 8032)."""

    __slots__ = ("_key", "public")

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public = PublicKey(key.public_key().public_bytes_raw())

    @classmethod
    def from_seed(cls, seed: bytes) -> SigningKey:
        """The key of a seed of 32 random bytes, which the caller draws from the system's source."""
        return cls(Ed25519PrivateKey.from_private_bytes(seed))

    @classmethod
    def from_pem(cls, pem: bytes, passphrase: bytes | None = None) -> SigningKey:
        """Read PKCS#8 (RFC 5958). Raises ValueError or TypeError: not a key, or not with this passphrase."""
        try:
            key = serialization.load_pem_private_key(pem, passphrase)
        except UnsupportedAlgorithm as error:
            raise ValueError(str(error)) from None
        if not isinstance(key, Ed25519PrivateKey):
            raise ValueError("not an Ed25519 key")
        return cls(key)

    def to_pem(self, passphrase: bytes | None = None) -> bytes:
        """PKCS#8 in PEM, encrypted if a passphrase is given."""
        encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
        if passphrase is not None:
            encryption = serialization.BestAvailableEncryption(passphrase)
        return self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
        )

    def sign(self, data: bytes) -> bytes:
        """A signature of 64 bytes over `data`."""
        return self._key.sign(data)

    def derive(self, label: bytes) -> bytes:
        """32 secret bytes bound to this key and `label`, for what only this device needs to read again."""
        return hashlib.sha256(b"meshnode/1 derive\0" + label + b"\0" + self._key.private_bytes_raw()).digest()


@dataclass(frozen=True, slots=True)
class Certificate:
    """A device's verified membership: its exact bytes (`der`), name, role and public key."""

    der: bytes
    name: str
    role: str
    key: PublicKey

    @property
    def device(self) -> DeviceId:
        """The device's id."""
        return DeviceId(self.key.id)


def _subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _builder(subject: str, issuer: str, key: bytes, serial: int) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(_subject(subject))
        .issuer_name(_subject(issuer))
        .public_key(Ed25519PublicKey.from_public_bytes(key))
        .serial_number(serial)
        .not_valid_before(_NOT_BEFORE)
        .not_valid_after(_NOT_AFTER)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def found_authority(key: SigningKey, fleet_name: str, serial: int) -> bytes:
    """The authority's self-signed certificate (DER) for a fleet of this name."""
    builder = (
        _builder(fleet_name, fleet_name, key.public.raw, serial)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier(key.public.id), critical=False)
    )
    return builder.sign(key._key, None).public_bytes(serialization.Encoding.DER)


def issue_certificate(
    authority: SigningKey, fleet_name: str, name: str, role: str, key: PublicKey, serial: int
) -> bytes:
    """Admit a device: its certificate (DER), for TLS on both sides."""
    builder = (
        _builder(name, fleet_name, key.raw, serial)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]),
            critical=False,
        )
        .add_extension(x509.SubjectKeyIdentifier(key.id), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier(authority.public.id, None, None), critical=False)
        .add_extension(x509.UnrecognizedExtension(ROLE_OID, role.encode()), critical=False)
    )
    return builder.sign(authority._key, None).public_bytes(serialization.Encoding.DER)


def _split(der: bytes, what: Said) -> tuple[bytes, bytes]:
    """What is signed in a certificate, and the signature.

    Every byte around them is fixed, also the outer name of the algorithm, which the signature does not cover:
    so a certificate has one encoding only, and is verified before an X.509 parser sees a stranger's bytes.
    """
    size = len(der)
    if size > CERTIFICATE_SIZE_MAX:
        raise RemoteError(what, say("has more than {limit_bytes} bytes", limit_bytes=CERTIFICATE_SIZE_MAX))
    opening = b"\x30\x82" + (size - 4 & 0xFFFF).to_bytes(2, "big")
    if size < 256 or der[:4] != opening or der[-74:-64] != _ED25519_SIGNED:
        raise RemoteError(what, "is not an X.509 certificate signed with Ed25519")
    return der[4:-74], der[-64:]


def _load(der: bytes, what: Said) -> tuple[x509.Certificate, str, PublicKey]:
    try:
        certificate = x509.load_der_x509_certificate(der)
        names = [str(a.value) for a in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
        key = certificate.public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion):
        raise RemoteError(what, "is not an X.509 certificate") from None
    if not isinstance(key, Ed25519PublicKey):
        raise RemoteError(what, "is not for an Ed25519 key")
    if len(names) != 1 or len(names[0]) > NAME_SIZE_MAX:
        raise RemoteError(what, "does not have one name")
    return certificate, names[0], PublicKey(key.public_bytes_raw())


def read_authority(der: bytes) -> tuple[str, PublicKey]:
    """The fleet's name and the authority's key from its self-signed certificate. Raises RemoteError."""
    what = say("authority certificate")
    signed, signature = _split(der, what)
    _, name, key = _load(der, what)
    key.verify(signature, signed, what)
    try:
        return check_fleet_name(name), key
    except BadFleetName:
        raise RemoteError(what, "names a fleet that cannot be") from None


def read_certificate(der: bytes, authority: PublicKey) -> Certificate:
    """A device certificate that the authority signed. Raises RemoteError for anything else."""
    what = say("device certificate")
    signed, signature = _split(der, what)
    authority.verify(signature, signed, what)
    certificate, name, key = _load(der, what)
    try:
        extension = certificate.extensions.get_extension_for_oid(ROLE_OID).value
        check_device_name(name)
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        raise RemoteError(what, "has no role") from None
    except BadName:
        raise RemoteError(what, "has a name that no device can have") from None
    role = (
        extension.value.decode("ascii", "replace")
        if isinstance(extension, x509.UnrecognizedExtension)
        else ""
    )
    if role not in ROLES:
        raise RemoteError(what, "has an unknown role")
    return Certificate(der, name, role, key)


def to_pem(der: bytes) -> str:
    """A certificate as PEM, as TLS libraries want it in files."""
    return x509.load_der_x509_certificate(der).public_bytes(serialization.Encoding.PEM).decode("ascii")


def from_pem(pem: bytes) -> bytes:
    """The DER of a certificate in PEM. Raises ValueError."""
    try:
        return x509.load_pem_x509_certificate(pem).public_bytes(serialization.Encoding.DER)
    except x509.InvalidVersion as error:
        raise ValueError(str(error)) from None

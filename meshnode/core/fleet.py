"""The papers of a fleet: the fleet document, the enrolment request and the welcome.

All three are files as well as values: msgpack `[body, signature]` with the body's exact bytes signed.

    fleet document  by the authority: [1, fleet, version, name, endpoints, revoked, policy]
                    endpoint: [id, sealing keys (newest first), signing key, addresses]; policy: [lifetime_s]
    request         by the device:    [1, name, role, device key, endpoint signing key, sealing key]
    welcome         by the authority: [1, authority certificate, device certificate, document body, signature]

A fleet's id is the id of the authority's key; an endpoint's id is the id of its signing key. The higher version of a
document wins. It is checked against the authority's key, so whoever carries it need not be trusted.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from meshnode.core.errors import BadFleetName, BadName, RemoteError
from meshnode.core.fields import Reader, pack, unpack
from meshnode.core.identity import (
    ID_SIZE,
    KEY_SIZE,
    ROLES,
    SIGNATURE_SIZE,
    Certificate,
    DeviceId,
    EndpointId,
    FleetId,
    PublicKey,
    SigningKey,
    check_device_name,
    check_fleet_name,
    read_authority,
    read_certificate,
)
from meshnode.core.limits import (
    ADDRESSES_MAX,
    CERTIFICATE_SIZE_MAX,
    DOCUMENT_SIZE_MAX,
    ENDPOINTS_MAX,
    LIFETIME_S_MAX,
    NAME_SIZE_MAX,
    REVOKED_MAX,
)
from meshnode.core.sealing import SEALING_PUBLIC_SIZE, SealingPublicKey
from meshnode.core.words import say

VERSION: Final = 1
DOCUMENT_VERSION_MAX: Final = 2**32
SEALING_KEYS_MAX: Final = 8
ADDRESS_SIZE_MAX: Final = 270


def _check_address(text: str) -> None:
    """Cheap sanity of `HOST:PORT` or `[IPv6]:PORT`; whether it leads anywhere only dialling tells."""
    host, colon, port = text.rpartition(":")
    if not (host and colon and port.isascii() and port.isdigit() and 1 <= int(port) <= 65535):
        raise RemoteError("document.endpoints.addresses", "has one that is not HOST:PORT")
    if not all("!" <= letter <= "~" for letter in host):
        raise RemoteError("document.endpoints.addresses", "has one with letters that no address has")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where bundles go: how to seal to it, how to check what it signs, where it is reached."""

    sealing_keys: tuple[SealingPublicKey, ...]
    signing_key: PublicKey
    addresses: tuple[str, ...]

    @property
    def id(self) -> EndpointId:
        """The endpoint's id: 16 bytes."""
        return EndpointId(self.signing_key.id)


@dataclass(frozen=True, slots=True)
class FleetDocument:
    """The authority's word on the fleet. `endpoints[0]` is the office that messages go to by default."""

    fleet: FleetId
    version: int
    name: str
    endpoints: tuple[Endpoint, ...]
    revoked: frozenset[DeviceId]
    lifetime_s: int
    body: bytes = b""
    signature: bytes = b""

    def endpoint(self, endpoint: bytes) -> Endpoint | None:
        """The endpoint of this id, if the fleet has it."""
        return next((e for e in self.endpoints if e.id == endpoint), None)

    def forgives(self, before: FleetDocument) -> int:
        """How many devices `before` revokes and this one does not. There are none in a true successor, since who was
        revoked stays so: it was made with an old copy of the authority, and to follow it would let them in again."""
        return len(before.revoked - self.revoked)

    def signed(self, authority: SigningKey) -> FleetDocument:
        """This document with its body written and signed."""
        endpoints = [
            [e.id, [k.raw for k in e.sealing_keys], e.signing_key.raw, list(e.addresses)]
            for e in self.endpoints
        ]
        body = pack(
            [
                VERSION,
                self.fleet,
                self.version,
                self.name,
                endpoints,
                sorted(self.revoked),
                [self.lifetime_s],
            ]
        )
        return replace(self, body=body, signature=authority.sign(body))

    def to_file(self) -> bytes:
        """The document as a file."""
        return pack([self.body, self.signature])


def _read_endpoint(reader: Reader) -> Endpoint:
    endpoint = reader.octets("id", ID_SIZE)
    keys = reader.items("sealing_keys", SEALING_KEYS_MAX)
    if not keys or not all(type(key) is bytes for key in keys):
        raise RemoteError("document.endpoints.sealing_keys", "is not a list of keys")
    read = Endpoint(
        sealing_keys=tuple(SealingPublicKey(key) for key in keys),
        signing_key=PublicKey(reader.octets("signing_key", KEY_SIZE)),
        addresses=tuple(reader.items("addresses", ADDRESSES_MAX)),
    )
    for address in read.addresses:
        if type(address) is not str or len(address) > ADDRESS_SIZE_MAX:
            raise RemoteError("document.endpoints.addresses", "has one that is not text of sane length")
        _check_address(address)
    if read.id != endpoint:
        raise RemoteError("document.endpoints.id", "is not the id of its signing key")
    return read


def read_document(body: bytes, signature: bytes, authority: PublicKey) -> FleetDocument:
    """Decode and verify a fleet document. Raises RemoteError that names the field."""
    if len(body) > DOCUMENT_SIZE_MAX:
        raise RemoteError("document", say("has more than {limit_bytes} bytes", limit_bytes=DOCUMENT_SIZE_MAX))
    authority.verify(signature, body, "document")
    reader = Reader(unpack(body, "document"), "document", 7)
    reader.whole("version of the format", VERSION, VERSION)
    fleet = FleetId(reader.octets("fleet", ID_SIZE))
    version = reader.whole("version", 1, DOCUMENT_VERSION_MAX)
    try:
        name = check_fleet_name(reader.text("name", NAME_SIZE_MAX))
    except BadFleetName:
        raise RemoteError("document.name", "is not a fleet's name") from None
    endpoints = reader.each("endpoints", ENDPOINTS_MAX, 4, _read_endpoint)
    revoked = reader.items("revoked", REVOKED_MAX)
    if not all(type(device) is bytes and len(device) == ID_SIZE for device in revoked):
        raise RemoteError("document.revoked", "is not a list of device ids")
    policy = Reader(reader.items("policy", 1), "document.policy", 1)
    if fleet != authority.id:
        raise RemoteError("document.fleet", "is another fleet")
    return FleetDocument(
        fleet=fleet,
        version=version,
        name=name,
        endpoints=tuple(endpoints),
        revoked=frozenset(DeviceId(device) for device in revoked),
        lifetime_s=policy.whole("lifetime_s", 60, LIFETIME_S_MAX),
        body=body,
        signature=signature,
    )


def _read_signed(data: bytes, what: str) -> tuple[bytes, bytes]:
    reader = Reader(unpack(data, what), what, 2)
    return reader.octets("body", 1, DOCUMENT_SIZE_MAX + 8192), reader.octets("signature", SIGNATURE_SIZE)


def read_document_file(data: bytes, authority: PublicKey) -> FleetDocument:
    """The document in a file. Raises RemoteError."""
    return read_document(*_read_signed(data, "document"), authority)


@dataclass(frozen=True, slots=True)
class Request:
    """A device asks to be admitted. An office also brings its endpoint's two public keys."""

    name: str
    role: str
    key: PublicKey
    endpoint: Endpoint | None

    def to_file(self, device: SigningKey) -> bytes:
        """The request as a file, signed by the device, which proves that it has the key."""
        signing = self.endpoint.signing_key.raw if self.endpoint else b""
        sealing = self.endpoint.sealing_keys[0].raw if self.endpoint else b""
        body = pack([VERSION, self.name, self.role, self.key.raw, signing, sealing])
        return pack([body, device.sign(body)])


def read_request(data: bytes) -> Request:
    """Decode and verify a request. Raises RemoteError."""
    body, signature = _read_signed(data, "request")
    reader = Reader(unpack(body, "request"), "request", 6)
    reader.whole("version", VERSION, VERSION)
    try:
        name = check_device_name(reader.text("name", NAME_SIZE_MAX))
    except BadName:
        raise RemoteError("request.name", "is not a device's name") from None
    role = reader.text("role", 16)
    if role not in ROLES:
        raise RemoteError("request.role", say("is none of {roles}", roles=", ".join(ROLES)))
    key = PublicKey(reader.octets("key", KEY_SIZE))
    size = KEY_SIZE if role == "office" else 0
    signing = reader.octets("endpoint_signing_key", size)
    sealing = reader.octets("sealing_key", SEALING_PUBLIC_SIZE if role == "office" else 0)
    endpoint = Endpoint((SealingPublicKey(sealing),), PublicKey(signing), ()) if role == "office" else None
    key.verify(signature, body, "request")
    return Request(name, role, key, endpoint)


@dataclass(frozen=True, slots=True)
class Welcome:
    """What an admitted device brings home: whom to trust, its certificate, and the fleet document of that day."""

    fleet_name: str
    authority: PublicKey
    authority_der: bytes
    certificate: Certificate
    document: FleetDocument


def write_welcome(
    authority: SigningKey, authority_der: bytes, device_der: bytes, document: FleetDocument
) -> bytes:
    """The welcome as a file."""
    body = pack([VERSION, authority_der, device_der, document.body, document.signature])
    return pack([body, authority.sign(body)])


def read_welcome(data: bytes) -> Welcome:
    """Decode a welcome and verify all that is in it against the authority that it names. Raises RemoteError."""
    body, signature = _read_signed(data, "welcome")
    reader = Reader(unpack(body, "welcome"), "welcome", 5)
    reader.whole("version", VERSION, VERSION)
    authority_der = reader.octets("authority", 1, CERTIFICATE_SIZE_MAX)
    fleet_name, authority = read_authority(authority_der)
    authority.verify(signature, body, "welcome")
    certificate = read_certificate(reader.octets("certificate", 1, CERTIFICATE_SIZE_MAX), authority)
    document = read_document(
        reader.octets("document", 1, DOCUMENT_SIZE_MAX),
        reader.octets("document signature", SIGNATURE_SIZE),
        authority,
    )
    return Welcome(fleet_name, authority, authority_der, certificate, document)

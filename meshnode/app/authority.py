"""The authority: the folder whose key founds a fleet and admits devices, kept offline.

    authority.key     its key, PKCS#8 in PEM, encrypted if there is a passphrase
    authority.crt     its own certificate
    fleet.document    the newest fleet document
    addresses.json    where the office is reached, also one that is enrolled later
    devices.json      who was admitted, and who was revoked when

A command that changes two files may be cut short between them. Enrolling writes devices.json first: nobody is in the
document whom `revoke` does not know, and the same request again finishes what is missing, with the same certificate.
Revoking writes the document first, since that is what ends a membership. A device counts as revoked if either file
says so, and the next document that is signed says so too, as it says the newest addresses. While a folder is being
founded it holds the file `.founding`, and is no authority.

Revoking an office also takes its endpoint out of the document, unless another office node still has it: nobody
shall seal to a key that may be in the wrong hands, nor believe receipts of that key.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from meshnode.app.addresses import parse_address
from meshnode.app.files import (
    check_private,
    flush_folder,
    is_temporary,
    list_folder,
    locked_folder,
    make_private_folder,
    read_file,
    sweep,
    trouble,
    write_file,
)
from meshnode.app.home import PAPER_SIZE_MAX, SEED_SIZE, SMALL_FILE_SIZE_MAX
from meshnode.core.errors import (
    AuthorityExists,
    BadAddress,
    BadName,
    BadPassphrase,
    BadRequest,
    DeviceRevoked,
    DocumentFull,
    FileTrouble,
    NameTaken,
    NoAuthority,
    NoPassphrase,
    RemoteError,
    UnknownDevice,
)
from meshnode.core.fleet import Endpoint, FleetDocument, Request, read_document_file, write_welcome
from meshnode.core.identity import (
    ID_SIZE,
    ROLES,
    DeviceId,
    EndpointId,
    FleetId,
    SigningKey,
    check_device_name,
    check_fleet_name,
    found_authority,
    from_pem,
    issue_certificate,
    read_authority,
    to_pem,
)
from meshnode.core.limits import ADDRESSES_MAX, DOCUMENT_SIZE_MAX, ENDPOINTS_MAX, LIFETIME_S, MIB, REVOKED_MAX
from meshnode.core.words import say

KEY_NAME: Final = "authority.key"
CERTIFICATE_NAME: Final = "authority.crt"
DOCUMENT_NAME: Final = "fleet.document"
ADDRESSES_NAME: Final = "addresses.json"
DEVICES_NAME: Final = "devices.json"
FOUNDING_NAME: Final = ".founding"

REGISTRY_SIZE_MAX: Final = 64 * MIB
SERIAL_SIZE: Final = 19  # bytes, of the at most 20 that RFC 5280 gives a serial number with its sign

_BROKEN: Final = say("is damaged: bring back a copy of it")


@dataclass(frozen=True, slots=True)
class Device:
    """One line of devices.json. `serial` is its certificate's, `endpoint` an office's; times in wall-clock ms."""

    id: DeviceId
    name: str
    role: str
    serial: int
    endpoint: EndpointId | None
    enrolled_ms: int
    revoked_ms: int | None

    def to_json(self) -> dict[str, Any]:
        """As in devices.json: ids and serial in hex."""
        endpoint = self.endpoint.hex() if self.endpoint is not None else None
        return {**asdict(self), "id": self.id.hex(), "serial": f"{self.serial:x}", "endpoint": endpoint}


def _read_device(item: dict[str, Any]) -> Device:
    """Raises ValueError, KeyError, TypeError or BadName."""
    endpoint, revoked_ms = item["endpoint"], item["revoked_ms"]
    device = Device(
        id=DeviceId(bytes.fromhex(item["id"])),
        name=check_device_name(item["name"]),
        role=item["role"],
        serial=int(item["serial"], 16),
        endpoint=None if endpoint is None else EndpointId(bytes.fromhex(endpoint)),
        enrolled_ms=int(item["enrolled_ms"]),
        revoked_ms=None if revoked_ms is None else int(revoked_ms),
    )
    ids = (device.id,) if device.endpoint is None else (device.id, device.endpoint)
    if device.role not in ROLES or device.serial < 1 or any(len(it) != ID_SIZE for it in ids):
        raise ValueError("no such device")
    if (device.endpoint is None) != (device.role != "office"):
        raise ValueError("an endpoint is what an office has")
    return device


# --- the key --------------------------------------------------------------------------------------------------


def needs_passphrase(directory: Path) -> bool:
    """Whether the authority's key is encrypted. Raises NoAuthority or FileTrouble."""
    _require_authority(directory)
    return b"BEGIN ENCRYPTED" in read_file(directory / KEY_NAME, SMALL_FILE_SIZE_MAX)


def read_key(directory: Path, passphrase: bytes | None) -> SigningKey:
    """The authority's key; a passphrase that is not needed is not looked at.

    Raises NoAuthority, NoPassphrase, BadPassphrase, HomeReadable or FileTrouble.
    """
    path = directory / KEY_NAME
    encrypted = needs_passphrase(directory)
    check_private(directory)
    check_private(path)
    if encrypted and passphrase is None:
        raise NoPassphrase(path=path)
    pem = read_file(path, SMALL_FILE_SIZE_MAX)
    try:
        return SigningKey.from_pem(pem, passphrase if encrypted else None)
    except (ValueError, TypeError):
        if encrypted:
            raise BadPassphrase(path=path) from None
        raise FileTrouble(path=path, problem=_BROKEN) from None


# --- the folder -----------------------------------------------------------------------------------------------


def _require_authority(directory: Path) -> None:
    found = list_folder(directory) if os.path.lexists(directory) else []
    if CERTIFICATE_NAME not in found or FOUNDING_NAME in found:
        raise NoAuthority(directory=directory)


def _require_vacancy(directory: Path) -> None:
    found = list_folder(directory) if os.path.lexists(directory) else []
    if FOUNDING_NAME not in found and not all(map(is_temporary, found)):
        raise AuthorityExists(directory=directory)


def found(directory: Path, fleet_name: str, passphrase: bytes | None) -> Authority:
    """Found a fleet in a new or empty folder. Raises BadFleetName, AuthorityExists or FileTrouble."""
    check_fleet_name(fleet_name)
    _require_vacancy(directory)
    make_private_folder(directory)
    with locked_folder(directory):
        _require_vacancy(directory)
        write_file(directory / FOUNDING_NAME, b"")
        sweep(directory)
        key = SigningKey.from_seed(os.urandom(SEED_SIZE))
        document = FleetDocument(
            fleet=FleetId(key.public.id),
            version=1,
            name=fleet_name,
            endpoints=(),
            revoked=frozenset(),
            lifetime_s=LIFETIME_S,
        ).signed(key)
        write_file(directory / KEY_NAME, key.to_pem(passphrase))
        der = found_authority(key, fleet_name, _draw_serial())
        write_file(directory / CERTIFICATE_NAME, to_pem(der).encode())
        write_file(directory / DOCUMENT_NAME, document.to_file())
        _write_json(directory / ADDRESSES_NAME, [])
        _write_json(directory / DEVICES_NAME, [])
        try:
            (directory / FOUNDING_NAME).unlink()
            flush_folder(directory)
        except OSError as error:
            raise trouble(directory / FOUNDING_NAME, error, "removed") from None
        return Authority(directory, key)


def _draw_serial() -> int:
    return int.from_bytes(os.urandom(SERIAL_SIZE), "big") | 1


def _write_json(path: Path, value: object) -> None:
    write_file(path, (json.dumps(value, indent=1) + "\n").encode())


def _read_json(path: Path) -> list[Any]:
    try:
        value = json.loads(read_file(path, REGISTRY_SIZE_MAX).decode("utf-8"))
    except (ValueError, RecursionError):
        value = None
    if type(value) is not list:
        raise FileTrouble(path=path, problem=_BROKEN)
    return value


class Authority:
    """What the folder says, read at once. Without a key it can only be looked at.

    Who changes it holds the folder (`locked_folder`) from before the reading until after the change.
    """

    def __init__(self, directory: Path, key: SigningKey | None = None) -> None:
        """Raises NoAuthority, or FileTrouble for a file that is damaged."""
        _require_authority(directory)
        self.directory = directory
        self._key = key
        path = directory / CERTIFICATE_NAME
        try:
            self.der = from_pem(read_file(path, SMALL_FILE_SIZE_MAX))
            self.fleet_name, self.public = read_authority(self.der)
            path = directory / KEY_NAME
            if key is not None and key.public != self.public:
                raise ValueError("another authority's")
            path = directory / DOCUMENT_NAME
            self.document = read_document_file(read_file(path, PAPER_SIZE_MAX), self.public)
        except (RemoteError, ValueError):
            raise FileTrouble(path=path, problem=_BROKEN) from None
        self.addresses = self._read_addresses()
        self.devices = self._read_devices()

    def _read_addresses(self) -> tuple[str, ...]:
        path = self.directory / ADDRESSES_NAME
        try:
            return tuple(str(parse_address(address)) for address in _read_json(path))
        except (BadAddress, TypeError, AttributeError):
            raise FileTrouble(path=path, problem=_BROKEN) from None

    def _read_devices(self) -> dict[DeviceId, Device]:
        path = self.directory / DEVICES_NAME
        try:
            devices = {device.id: device for device in map(_read_device, _read_json(path))}
        except (ValueError, KeyError, TypeError, BadName):
            raise FileTrouble(path=path, problem=_BROKEN) from None
        for device in devices.values():
            if device.id in self.document.revoked and device.revoked_ms is None:
                devices[device.id] = replace(device, revoked_ms=self._document_ms())
        return devices

    def _document_ms(self) -> int:
        """When the document was written: when a revocation happened that devices.json does not know yet."""
        path = self.directory / DOCUMENT_NAME
        try:
            return path.stat().st_mtime_ns // 1_000_000
        except OSError as error:
            raise trouble(path, error, "read") from None

    # --- changing it --------------------------------------------------------------------------------------

    def enroll(self, request: Request, path: Path, now_ms: int) -> bytes:
        """Admit a device; its welcome. The same request again gives the same certificate and changes nothing.

        `path` is where the request came from. Raises NameTaken, DeviceRevoked, BadRequest, DocumentFull, FileTrouble.
        """
        key = self._signing_key()
        device = self._device_of(request, path, now_ms)
        endpoints = self.document.endpoints
        if request.endpoint is not None:
            endpoints = self._with_endpoint(request.endpoint, path)
        document = self._next_document(endpoints=endpoints)
        self._remember(device)
        self._keep(document)
        certificate = issue_certificate(
            key, self.fleet_name, device.name, device.role, request.key, device.serial
        )
        return write_welcome(key, self.der, certificate, self.document)

    def set_addresses(self, addresses: tuple[str, ...]) -> None:
        """Where all office endpoints are reached from now on. Raises DocumentFull or FileTrouble."""
        if len(addresses) > ADDRESSES_MAX:
            raise DocumentFull(limit=ADDRESSES_MAX, what="addresses")
        self.addresses = addresses
        document = self._next_document()
        _write_json(self.directory / ADDRESSES_NAME, list(addresses))
        self._keep(document)

    def find(self, device: str) -> Device:
        """The device of this id in hex or of this name: the live one, else the last revoked. Raises UnknownDevice."""
        by_id = [it for it in self.devices.values() if it.id.hex() == device.lower()]
        by_name = sorted(
            (it for it in self.devices.values() if it.name == device),
            key=lambda it: (it.revoked_ms is None, it.revoked_ms or 0),
        )
        if not by_id and not by_name:
            raise UnknownDevice(device=device)
        return (by_id or by_name)[-1]

    def revoke(self, device: Device, now_ms: int) -> bool:
        """End a membership for good; False if it had ended already. Raises DocumentFull or FileTrouble."""
        already = device.id in self.document.revoked
        if not already:
            endpoints = self._without_endpoint(device)
            self._keep(self._next_document(endpoints=endpoints, revoked=frozenset({device.id})))
        self._remember(replace(device, revoked_ms=device.revoked_ms or now_ms))
        return not already

    def _signing_key(self) -> SigningKey:
        assert self._key is not None, "this authority was opened to be looked at"
        return self._key

    def _device_of(self, request: Request, path: Path, now_ms: int) -> Device:
        device_id = DeviceId(request.key.id)
        endpoint = request.endpoint.id if request.endpoint is not None else None
        known = self.devices.get(device_id)
        revoked = known is not None and known.revoked_ms is not None
        if revoked or device_id in self.document.revoked:
            raise DeviceRevoked(name=known.name if known is not None else request.name)
        if known is None:
            for other in self.devices.values():
                # names become folders at the office, where some disks take no notice of case
                if other.revoked_ms is None and other.name.casefold() == request.name.casefold():
                    raise NameTaken(name=other.name)
            return Device(device_id, request.name, request.role, _draw_serial(), endpoint, now_ms, None)
        if (known.name, known.role) != (request.name, request.role):
            problem = say("the fleet knows its key as {name}, role {role}", name=known.name, role=known.role)
            raise BadRequest(path=path, problem=problem)
        if known.endpoint != endpoint:
            raise BadRequest(path=path, problem="the fleet knows its office with another key")
        return known

    def _with_endpoint(self, endpoint: Endpoint, path: Path) -> tuple[Endpoint, ...]:
        known = self.document.endpoint(endpoint.id)
        if known is None:
            if len(self.document.endpoints) >= ENDPOINTS_MAX:
                raise DocumentFull(limit=ENDPOINTS_MAX, what="offices")
            return (*self.document.endpoints, endpoint)
        if endpoint.sealing_keys[0].raw not in [key.raw for key in known.sealing_keys]:
            raise BadRequest(path=path, problem="the fleet knows its office with another sealing key")
        return self.document.endpoints

    def _without_endpoint(self, device: Device) -> tuple[Endpoint, ...]:
        shared = any(
            other.endpoint == device.endpoint
            for other in self.devices.values()
            if other.id != device.id and other.revoked_ms is None
        )
        if shared:
            return self.document.endpoints
        return tuple(it for it in self.document.endpoints if it.id != device.endpoint)

    def _next_document(
        self, endpoints: tuple[Endpoint, ...] | None = None, revoked: frozenset[DeviceId] = frozenset()
    ) -> FleetDocument:
        """The next version, signed; this version if nothing in it is new. `revoked` are added to those before."""
        now = self.document
        known = frozenset(it.id for it in self.devices.values() if it.revoked_ms is not None)
        new = replace(
            now,
            version=now.version + 1,
            endpoints=tuple(
                replace(endpoint, addresses=self.addresses)
                for endpoint in (now.endpoints if endpoints is None else endpoints)
            ),
            revoked=now.revoked | known | revoked,
        )
        if (new.endpoints, new.revoked) == (now.endpoints, now.revoked):
            return now
        if len(new.revoked) > REVOKED_MAX:
            raise DocumentFull(limit=REVOKED_MAX, what="revoked devices")
        new = new.signed(self._signing_key())
        if len(new.body) > DOCUMENT_SIZE_MAX:
            raise DocumentFull(limit=DOCUMENT_SIZE_MAX, what="bytes")
        return new

    def _keep(self, document: FleetDocument) -> None:
        if document is not self.document:
            write_file(self.directory / DOCUMENT_NAME, document.to_file())
            self.document = document

    def _remember(self, device: Device) -> None:
        if self.devices.get(device.id) != device or device.revoked_ms is not None:
            self.devices[device.id] = device
            _write_json(self.directory / DEVICES_NAME, [it.to_json() for it in self.devices.values()])

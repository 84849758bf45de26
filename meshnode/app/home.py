"""The home: the one folder that holds all of a node.

    config.toml                    settings
    device.key                     the device's key, PKCS#8 in PEM; above it stand its name and role
    NAME.request                   what the authority needs to admit it
    authority.crt fleet.document device.crt     membership: whom to trust, the fleet, this device's certificate
    office.key office.seal         an office or its gateway: the endpoint's signing key (PEM) and sealing seed (hex)
    metered.json                   what was spent of the day's bytes on mobile data
    store.db store.db-payloads-*   what the daemon keeps: the database, and beside it the large payloads
    control.json lock              what it says of itself, and holds while it runs
    reserve                        a little space for a start on a full disk

The keys may be encrypted, with one passphrase for all of them (`passphrase`).

A crash at any instant leaves one of three states, told apart by one file each. No device.key: no node; `create` may
begin again. device.key but no device.crt: a node without a fleet; its request can be written again. device.crt: a
member; it is written after all that it needs. Whoever changes a home holds its lock, and every file is 0600.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from meshnode.app.config import default_text
from meshnode.app.files import (
    PRIVATE,
    check_private,
    is_temporary,
    list_folder,
    make_private_folder,
    read_file,
    read_optional,
    sweep,
    trouble,
    write_file,
)
from meshnode.app.passphrase import node_passphrase
from meshnode.core.errors import (
    FileTrouble,
    HomeBusy,
    HomeNotEmpty,
    KeyLocked,
    NodeExists,
    NoNode,
    NotJoined,
    RemoteError,
    WrongPassphrase,
)
from meshnode.core.fleet import Endpoint, FleetDocument, Request, Welcome, read_document_file
from meshnode.core.identity import (
    ROLES,
    Certificate,
    PublicKey,
    SigningKey,
    check_device_name,
    from_pem,
    read_authority,
    read_certificate,
    to_pem,
)
from meshnode.core.limits import DOCUMENT_SIZE_MAX, KIB
from meshnode.core.sealing import SEALING_SEED_SIZE, Drawer, SealingKey
from meshnode.core.words import Words, say

SEED_SIZE: Final = 32
#: Keys and certificates are below 2 KiB.
SMALL_FILE_SIZE_MAX: Final = 16 * KIB
#: A document, request or welcome as a file: at most one document and what wraps it.
PAPER_SIZE_MAX: Final = DOCUMENT_SIZE_MAX + 16 * KIB

_ENCRYPTED: Final = b"BEGIN ENCRYPTED"
#: How an encrypted office.seal begins, and what its key is derived with.
_SHUT: Final = "shut "
_SEAL_LABEL: Final = b"office seal"
_BROKEN_KEY: Final = say("is damaged: bring back a copy of it, or make a new node in another folder")
_BROKEN_MEMBERSHIP: Final = say("is damaged or missing: run `meshnode join` with the welcome again")
_A_ROLE: Final = {"office": say("an office"), "officer": say("an officer"), "gateway": say("a gateway")}


def a_role(role: str) -> Words:
    """What a node of this role is called in a sentence."""
    return _A_ROLE[role]


@dataclass(frozen=True, slots=True)
class Identity:
    """What a node is before it belongs to a fleet. `name` and `role` are empty if the key file does not say."""

    name: str
    role: str
    key: SigningKey


@dataclass(frozen=True, slots=True)
class OfficeKeys:
    """The private side of an endpoint: signs receipts, opens bundles."""

    signing_key: SigningKey
    sealing_key: SealingKey

    @property
    def endpoint(self) -> Endpoint:
        """The public side, without addresses."""
        return Endpoint((self.sealing_key.public,), self.signing_key.public, ())


@dataclass(frozen=True, slots=True)
class Membership:
    """All that a node needs to take part: its key and certificate, whom it trusts, the newest document it has.
    `office`: an office has it, and a gateway that was given the keys of an office which is in that document."""

    key: SigningKey
    certificate: Certificate
    fleet_name: str
    authority: PublicKey
    authority_der: bytes
    document: FleetDocument
    office: OfficeKeys | None

    @property
    def sealing_key(self) -> SealingKey:
        """What opens messages to this device: made from its key, so that there is nothing more to keep."""
        return SealingKey(self.key.derive(b"sealing"))


class Home:
    """One node's folder at `path`. Nothing is read before it is asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config_path = path / "config.toml"
        self.device_key_path = path / "device.key"
        self.certificate_path = path / "device.crt"
        self.authority_path = path / "authority.crt"
        self.document_path = path / "fleet.document"
        self.office_key_path = path / "office.key"
        self.office_seal_path = path / "office.seal"
        self.store_path = path / "store.db"
        self.log_path = path / "store.db-wal"
        self.control_path = path / "control.json"
        self.lock_path = path / "lock"
        self.reserve_path = path / "reserve"

    def payload_paths(self) -> list[Path]:
        """The files of large payloads: of the store, and of damaged ones that are kept."""
        return sorted(self.path.glob("*-payloads-" + 16 * "[0-9a-f]"))

    def request_path(self, name: str) -> Path:
        """Where the enrolment request of a device of this name is."""
        return self.path / f"{name}.request"

    # --- making a node ------------------------------------------------------------------------------------

    def create(self, name: str, role: str) -> Path:
        """Make a node here and write its request; the path of that. A lost request is written again.

        An office takes the keys of an endpoint that it finds here, so that several nodes can be one office.
        Raises BadName, NodeExists, HomeNotEmpty, HomeBusy or FileTrouble.
        """
        check_device_name(name)
        self._survey(name, role)
        make_private_folder(self.path)
        with self.lock():
            identity = self._survey(name, role)
            sweep(self.path)
            if read_optional(self.config_path, PAPER_SIZE_MAX) is None:
                write_file(self.config_path, default_text().encode())
            passphrase = node_passphrase()
            office = self._make_office_keys(passphrase) if role == "office" else None
            if identity is None:
                identity = Identity(name, role, SigningKey.from_seed(os.urandom(SEED_SIZE)))
                said = f"Device: {name}\nRole: {role}\n".encode()
                write_file(self.device_key_path, said + identity.key.to_pem(passphrase))
            request = Request(name, role, identity.key.public, office.endpoint if office else None)
            write_file(self.request_path(name), request.to_file(identity.key))
        return self.request_path(name)

    def _survey(self, name: str, role: str) -> Identity | None:
        """What `create` may go on with. Raises NodeExists or HomeNotEmpty."""
        if not os.path.lexists(self.path):
            return None
        found = set(list_folder(self.path))
        if self.device_key_path.name in found:
            identity = self.identity()
            if self.certificate_path.name in found or (identity.name, identity.role) != (name, role):
                raise NodeExists(home=self.path, name=identity.name or say("without a name"))
            return identity
        usual = {self.config_path.name, self.lock_path.name}
        if role == "office":
            usual |= {self.office_key_path.name, self.office_seal_path.name}
        if any(not is_temporary(entry) for entry in found - usual):
            raise HomeNotEmpty(home=self.path)
        return None

    def _make_office_keys(self, passphrase: bytes | None) -> OfficeKeys:
        if read_optional(self.office_key_path, SMALL_FILE_SIZE_MAX) is None:
            write_file(self.office_key_path, SigningKey.from_seed(os.urandom(SEED_SIZE)).to_pem(passphrase))
        if read_optional(self.office_seal_path, SMALL_FILE_SIZE_MAX) is None:
            seed = os.urandom(SEALING_SEED_SIZE).hex()
            if passphrase is not None:  # no format of its own: whoever opens office.key opens this too
                drawer = Drawer(_read_key(self.office_key_path).derive(_SEAL_LABEL))
                seed = _SHUT + drawer.close(seed, os.urandom(12)).hex()
            write_file(self.office_seal_path, seed.encode() + b"\n")
        return self.office_keys()

    # --- reading it ---------------------------------------------------------------------------------------

    def check_private(self) -> None:
        """Raises HomeReadable (or its kind HomeOfOther) unless only this user and root reach what is secret here."""
        for path in (
            self.path,
            self.device_key_path,
            self.office_key_path,
            self.office_seal_path,
            self.store_path,
            self.log_path,
            self.path / f"{self.store_path.name}-shm",
            *self.payload_paths(),
            self.control_path,
        ):
            check_private(path)

    def identity(self) -> Identity:
        """The device's key, name and role. Raises NoNode or FileTrouble."""
        data = read_optional(self.device_key_path, SMALL_FILE_SIZE_MAX)
        if data is None:
            raise NoNode(home=self.path)
        said, begin, _ = data.partition(b"-----BEGIN")
        fields = dict(
            line.split(": ", 1) for line in said.decode("ascii", "replace").splitlines() if ": " in line
        )
        role = fields.get("Role", "")
        if not begin or (role and role not in ROLES):
            raise FileTrouble(path=self.device_key_path, problem=_BROKEN_KEY)
        return Identity(fields.get("Device", ""), role, _read_key(self.device_key_path))

    def load(self) -> Membership:
        """All of the node's papers, checked. Raises NoNode, NotJoined, HomeReadable or FileTrouble."""
        self.check_private()
        identity = self.identity()
        if read_optional(self.certificate_path, SMALL_FILE_SIZE_MAX) is None:
            request = self.request_path(identity.name or "NAME")
            raise NotJoined(home=self.path, request=request)
        path = self.authority_path
        try:
            authority_der = from_pem(read_file(path, SMALL_FILE_SIZE_MAX))
            fleet_name, authority = read_authority(authority_der)
            path = self.certificate_path
            certificate = read_certificate(from_pem(read_file(path, SMALL_FILE_SIZE_MAX)), authority)
            if certificate.key != identity.key.public:
                raise ValueError("another device's")
            path = self.document_path
            document = read_document_file(read_file(path, PAPER_SIZE_MAX), authority)
        except (RemoteError, ValueError):
            raise FileTrouble(path=path, problem=_BROKEN_MEMBERSHIP) from None
        office = self.office_keys() if self._is_office(certificate.role) else None
        if office is not None and certificate.role != "office" and not document.endpoint(office.endpoint.id):
            office = None  # a gateway is a node of an office that the fleet has, or of none
        return Membership(identity.key, certificate, fleet_name, authority, authority_der, document, office)

    def _is_office(self, role: str) -> bool:
        """A gateway may hold the keys of an office, and is a node of it then."""
        return role == "office" or (role == "gateway" and self.office_key_path.exists())

    def fleet(self) -> tuple[str, PublicKey] | None:
        """Name and authority of the fleet that this node belongs to; None without one, or if they are damaged."""
        if not self.certificate_path.is_file():
            return None
        try:
            return read_authority(from_pem(read_file(self.authority_path, SMALL_FILE_SIZE_MAX)))
        except (FileTrouble, RemoteError, ValueError):
            return None

    def office_keys(self) -> OfficeKeys:
        """The keys of the endpoint that this node is an office of. Raises FileTrouble."""
        key = _read_key(self.office_key_path)
        try:
            text = read_file(self.office_seal_path, SMALL_FILE_SIZE_MAX).decode("ascii").strip()
            if text.startswith(_SHUT):
                text = Drawer(key.derive(_SEAL_LABEL)).open(bytes.fromhex(text.removeprefix(_SHUT)))
            seed = bytes.fromhex(text)
        except ValueError:
            seed = b""
        if len(seed) != SEALING_SEED_SIZE:
            raise FileTrouble(path=self.office_seal_path, problem=_BROKEN_KEY)
        return OfficeKeys(key, SealingKey(seed))

    # --- changing it --------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the home alone until the block or the process ends, however it ends. Raises HomeBusy at once."""
        # also keeps root from leaving files in a service's home that the service cannot read
        check_private(self.path)
        try:
            descriptor = os.open(self.lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE)
        except FileNotFoundError:
            raise NoNode(home=self.path) from None
        except OSError as error:
            raise trouble(self.lock_path, error, "written") from None
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise HomeBusy(home=self.path) from None
            except OSError as error:
                raise trouble(self.lock_path, error, "locked") from None
            yield
        finally:
            os.close(descriptor)

    def save_document(self, document: FleetDocument) -> None:
        """Keep a fleet document, durable when this returns. The caller holds the lock and has compared versions."""
        write_file(self.document_path, document.to_file())

    def save_welcome(self, welcome: Welcome) -> None:
        """Become a member by a checked welcome, or renew that. The caller holds the lock.

        Of two documents of the same fleet the newer one stays.
        """
        newest = welcome.document
        with contextlib.suppress(RemoteError):
            data = read_optional(self.document_path, PAPER_SIZE_MAX)
            if data is not None:
                newest = max(newest, read_document_file(data, welcome.authority), key=lambda it: it.version)
        write_file(self.authority_path, to_pem(welcome.authority_der).encode())
        self.save_document(newest)
        write_file(self.certificate_path, to_pem(welcome.certificate.der).encode())


def _read_key(path: Path) -> SigningKey:
    data = read_file(path, SMALL_FILE_SIZE_MAX)
    passphrase = node_passphrase() if _ENCRYPTED in data else None
    if _ENCRYPTED in data and passphrase is None:
        raise KeyLocked(path=path)
    try:
        return SigningKey.from_pem(data, passphrase)
    except (ValueError, TypeError):
        if passphrase is not None:
            raise WrongPassphrase(path=path) from None
        raise FileTrouble(path=path, problem=_BROKEN_KEY) from None

"""A fleet made from names, for tests: its keys come from names and nothing else, so every run sees the same ids."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from meshnode.core.bundle import ROUTINE, Bundle, Header, Previous, journal_id, sign_bundle
from meshnode.core.fleet import Endpoint, FleetDocument
from meshnode.core.identity import (
    Certificate,
    DeviceId,
    EndpointId,
    FleetId,
    JournalId,
    SigningKey,
    found_authority,
    issue_certificate,
    read_certificate,
)
from meshnode.core.intervals import Ranges
from meshnode.core.limits import LIFETIME_S
from meshnode.core.receipt import Receipt, issue_receipt
from meshnode.core.rows import Entry
from meshnode.core.sealing import SEAL_OVERHEAD, SealingKey
from meshnode.core.state import Identity, OfficeKeys


def seed(*label: object) -> bytes:
    """32 bytes that only the label decides."""
    return hashlib.sha256(repr(label).encode()).digest()


class StandIn:
    """Seals nothing, but takes as many bytes as sealing does, and always the same ones."""

    key_id = b"standin!"

    def seal(self, plaintext: bytes | memoryview, info: bytes) -> bytes:
        """The plaintext, and what it is bound to in place of the secrets."""
        return bytes(plaintext) + hashlib.sha256(info).digest().ljust(SEAL_OVERHEAD, b"\0")

    def open(self, payload: bytes, info: bytes) -> bytes:
        """The plaintext again."""
        assert payload[-SEAL_OVERHEAD:] == self.seal(b"", info), "moved from its place"
        return payload[:-SEAL_OVERHEAD]


class Fleet:
    """An authority, one office endpoint, and as many devices as are named."""

    def __init__(self, *, addresses: Sequence[str] = (), lifetime_s: int = LIFETIME_S) -> None:
        self.name = "Tasikmalaya"
        self.authority = SigningKey.from_seed(seed("authority"))
        self.authority_der = found_authority(self.authority, self.name, 1)
        self.endpoint_key = SigningKey.from_seed(seed("endpoint"))
        self.endpoint = EndpointId(self.endpoint_key.public.id)
        self.sealing = SealingKey(seed("sealing"))
        self._keys: dict[str, SigningKey] = {}
        self._certificates: dict[str, Certificate] = {}
        self._lifetime_s = lifetime_s
        self.document = self.write_document(1, addresses=addresses)

    def write_document(
        self, version: int, *, addresses: Sequence[str] = (), revoked: Iterable[str] = ()
    ) -> FleetDocument:
        """A signed document of that version; `revoked` by name."""
        endpoint = Endpoint((self.sealing.public,), self.endpoint_key.public, tuple(addresses))
        return FleetDocument(
            fleet=FleetId(self.authority.public.id),
            version=version,
            name=self.name,
            endpoints=(endpoint,),
            revoked=frozenset(self.device(name) for name in revoked),
            lifetime_s=self._lifetime_s,
        ).signed(self.authority)

    def key(self, name: str) -> SigningKey:
        """The device key of that name."""
        if name not in self._keys:
            self._keys[name] = SigningKey.from_seed(seed("device", name))
        return self._keys[name]

    def device(self, name: str) -> DeviceId:
        """Its id."""
        return DeviceId(self.key(name).public.id)

    def certificate(self, name: str, role: str = "officer") -> Certificate:
        """Its certificate; the role is the one that was asked for first."""
        if name not in self._certificates:
            serial = int.from_bytes(self.device(name)[:8], "big") >> 1 | 1
            der = issue_certificate(self.authority, self.name, name, role, self.key(name).public, serial)
            self._certificates[name] = read_certificate(der, self.authority.public)
        return self._certificates[name]

    def identity(self, name: str, role: str = "officer") -> Identity:
        """All that a node of that name is given; an office gets the endpoint's key."""
        return Identity(
            certificate=self.certificate(name, role),
            key=self.key(name),
            authority=self.authority.public,
            document=self.document,
            office=OfficeKeys(self.endpoint, self.endpoint_key) if role == "office" else None,
        )

    def by_id(self, *names: str) -> list[str]:
        """These names, the lowest device id first."""
        return sorted(names, key=self.device)

    def receipt(self, journal: JournalId, ranges: Ranges, serial: int = 1 << 16) -> Receipt:
        """What the office would sign."""
        return issue_receipt(self.endpoint_key, self.endpoint, journal, serial, ranges, 1_700_000_000_000)


class Source:
    """A journal written by hand, of which bundles come from elsewhere."""

    def __init__(self, fleet: Fleet, name: str, epoch: bytes = b"epoch--1") -> None:
        self.fleet = fleet
        self.name = name
        self.epoch = epoch
        self.device = fleet.device(name)
        self.certificate = fleet.certificate(name)
        self.journal = journal_id(self.device, fleet.endpoint, epoch)

    def bundle(
        self,
        number: int = 1,
        *,
        part: int = 1,
        parts: int = 1,
        size: int = 2000,
        priority: int = ROUTINE,
        lifetime_s: int = LIFETIME_S,
        previous: Previous | None = None,
    ) -> Bundle:
        """A signed bundle of `size` payload bytes."""
        payload = hashlib.sha256(repr((self.name, self.epoch, number)).encode()).digest() * (size // 32 + 1)
        payload = payload[:size]
        header = Header(
            source=self.device,
            destination=self.fleet.endpoint,
            recipient_key=StandIn.key_id,
            epoch=self.epoch,
            number=number,
            part=part,
            parts=parts,
            priority=priority,
            created_ms=1_700_000_000_000,
            lifetime_s=lifetime_s,
            previous=previous,
            payload_size=size,
            payload_sha256=hashlib.sha256(payload).digest(),
        )
        return sign_bundle(header, payload, self.fleet.key(self.name))


def entry_of(bundle: Bundle, born_s: float = 0.0) -> Entry:
    """What a ledger keeps of a bundle."""
    header = bundle.header
    return Entry(header.payload_size, header.priority, header.first, header.parts, born_s, header.lifetime_s)

"""What takes the place of secrets in a simulation: keys from a seed, and a seal that draws no randomness.

HPKE draws its own, so two runs of one seed would differ. The stand-in has the sizes and the rules of the real one
(opens only with the right key and at the right place) and hides nothing; both pass the same contract tests. Device
keys, certificates and signatures are real.
"""

from __future__ import annotations

import hashlib
import hmac
import random

from meshnode.core.errors import RemoteError
from meshnode.core.fleet import Endpoint, FleetDocument
from meshnode.core.identity import (
    Certificate,
    DeviceId,
    EndpointId,
    FleetId,
    PublicKey,
    SigningKey,
    found_authority,
    issue_certificate,
    read_certificate,
)
from meshnode.core.limits import LIFETIME_S
from meshnode.core.sealing import SEAL_OVERHEAD, SEALING_KEY_ID_SIZE, SealingKey
from meshnode.core.state import Identity, OfficeKeys
from meshnode.core.words import Said


class StandInSeal:
    """Both halves of an endpoint's sealing key. `opened` counts what was opened with it."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self.key_id = hashlib.sha256(b"stand-in" + secret).digest()[:SEALING_KEY_ID_SIZE]
        self.opened = 0

    def _tag(self, plaintext: bytes | memoryview, info: bytes) -> bytes:
        """As long as what HPKE adds; binds both, and where the one ends and the other begins."""
        bound = len(info).to_bytes(8, "big") + info + plaintext
        return hmac.digest(self._secret, bound, "sha256").rjust(SEAL_OVERHEAD, b"\0")

    def seal(self, plaintext: bytes | memoryview, info: bytes) -> bytes:
        """As `SealingPublicKey.seal`, but the same at each call, and readable."""
        return bytes(plaintext) + self._tag(plaintext, info)

    def open(self, payload: bytes, info: bytes) -> bytes:
        """As `SealingKey.open`. Raises RemoteError."""
        plaintext = payload[:-SEAL_OVERHEAD]
        if not hmac.compare_digest(payload[-SEAL_OVERHEAD:], self._tag(plaintext, info)):
            raise RemoteError("payload", "does not open with this endpoint's key")
        self.opened += 1
        return plaintext


class WeightlessSeal:
    """Seals to nothing: the header declares what the payload would weigh (`Settings.stand_ins`)."""

    key_id = b"weightls"

    def seal(self, plaintext: bytes | memoryview, info: bytes) -> bytes:
        """No bytes."""
        return b""


class RememberingKey(PublicKey):
    """A public key that all nodes of a run have in common, and that verifies the same signature only once."""

    __slots__ = ("_verified",)

    def __init__(self, raw: bytes) -> None:
        super().__init__(raw)
        self._verified: set[tuple[bytes, bytes]] = set()

    def verify(self, signature: bytes, data: bytes, what: Said) -> None:
        """As `PublicKey.verify`."""
        if (signature, data) not in self._verified:
            super().verify(signature, data, what)
            self._verified.add((signature, data))


class SimFleet:
    """An authority, its office endpoint, and devices by name, all from one source of chance."""

    def __init__(self, chance: random.Random, name: str = "Tasikmalaya") -> None:
        self._chance = chance
        self.name = name
        self.authority = SigningKey.from_seed(chance.randbytes(32))
        self.authority_der = found_authority(self.authority, name, 1)
        self.endpoint_key = SigningKey.from_seed(chance.randbytes(32))
        self.endpoint = EndpointId(self.endpoint_key.public.id)
        self._endpoint_public = RememberingKey(self.endpoint_key.public.raw)
        self.seal = StandInSeal(chance.randbytes(32))
        self._sealing_public = SealingKey(chance.randbytes(32)).public
        self._devices: dict[str, tuple[SigningKey, Certificate]] = {}
        self._version = 0
        self.document = self.write_document(frozenset())

    def write_document(self, revoked: frozenset[DeviceId]) -> FleetDocument:
        """The next version of the fleet document, which devices that are enrolled from now on get."""
        self._version += 1
        self.document = FleetDocument(
            fleet=FleetId(self.authority.public.id),
            version=self._version,
            name=self.name,
            endpoints=(Endpoint((self._sealing_public,), self._endpoint_public, ()),),
            revoked=revoked,
            lifetime_s=LIFETIME_S,
        ).signed(self.authority)
        return self.document

    def enroll(self, name: str, role: str) -> Identity:
        """A device of this name: new, or as it was enrolled before, with the newest document."""
        if name not in self._devices:
            key = SigningKey.from_seed(self._chance.randbytes(32))
            serial = self._chance.getrandbits(64) | 1
            der = issue_certificate(self.authority, self.name, name, role, key.public, serial)
            self._devices[name] = (key, read_certificate(der, self.authority.public))
        key, certificate = self._devices[name]
        office = OfficeKeys(self.endpoint, self.endpoint_key) if role == "office" else None
        return Identity(certificate, key, self.authority.public, self.document, office)

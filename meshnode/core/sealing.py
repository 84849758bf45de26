"""Sealing: only the endpoint reads what it is sent, today and when quantum computers exist.

HPKE base mode (RFC 9180) with the KEM MLKEM768-X25519 (X-Wing, draft-connolly-cfrg-xwing-kem), HKDF-SHA-256 and
AES-256-GCM, one-shot: every bundle has its own encapsulated key, so that each opens alone, whichever way and in
whichever order it came, and the sender keeps nothing that could open it. `info` binds a payload to its place in its
journal: a payload moved to another number, or to another source, does not open.

A private key is the 32-byte X-Wing seed; SHAKE-256 stretches it to the ML-KEM seed and the X25519 scalar, as the draft
says. A public key is ML-KEM's 1,184 bytes and X25519's 32.
"""

from __future__ import annotations

import hashlib
from typing import Final, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hpke import (
    AEAD,
    KDF,
    KEM,
    MLKEM768X25519PrivateKey,
    MLKEM768X25519PublicKey,
    Suite,
)

from meshnode.core.errors import RemoteError
from meshnode.core.limits import PAYLOAD_SIZE_MAX
from meshnode.core.words import say

_MLKEM_PUBLIC_SIZE: Final = 1184
SEALING_PUBLIC_SIZE: Final = _MLKEM_PUBLIC_SIZE + 32
SEALING_SEED_SIZE: Final = 32
SEALING_KEY_ID_SIZE: Final = 8

#: ML-KEM ciphertext (1,088), X25519 ephemeral key (32), AES-GCM tag (16).
SEAL_OVERHEAD: Final = 1136
#: Plaintext bytes that fill one bundle.
CHUNK_SIZE: Final = PAYLOAD_SIZE_MAX - SEAL_OVERHEAD

_INFO_LABEL: Final = b"meshnode/1 bundle"
_SUITE: Final = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


class SealingPublicKey:
    """An endpoint's public key (`raw`: 1,216 bytes); `key_id` (8 bytes) names it in headers."""

    __slots__ = ("_key", "key_id", "raw")

    def __init__(self, raw: bytes) -> None:
        """Raises RemoteError if `raw` is no key."""
        if len(raw) != SEALING_PUBLIC_SIZE:
            wrong = say("has {size_bytes} bytes, not {least}", size_bytes=len(raw), least=SEALING_PUBLIC_SIZE)
            raise RemoteError(say("sealing key"), wrong)
        try:
            self._key = MLKEM768X25519PublicKey(
                MLKEM768PublicKey.from_public_bytes(raw[:_MLKEM_PUBLIC_SIZE]),
                X25519PublicKey.from_public_bytes(raw[_MLKEM_PUBLIC_SIZE:]),
            )
        except ValueError:
            raise RemoteError(say("sealing key"), "is not an X-Wing key") from None
        self.raw = raw
        self.key_id = hashlib.sha256(raw).digest()[:SEALING_KEY_ID_SIZE]

    def seal(self, plaintext: bytes | memoryview, info: bytes) -> bytes:
        """Seal at most CHUNK_SIZE bytes; the result is SEAL_OVERHEAD bytes longer and differs at each call."""
        return _SUITE.encrypt(plaintext, self._key, info=info)


class SealingKey:
    """An endpoint's private key, made from its 32-byte seed."""

    __slots__ = ("_key", "public", "seed")

    def __init__(self, seed: bytes) -> None:
        stretched = hashlib.shake_256(seed).digest(96)
        kem = MLKEM768PrivateKey.from_seed_bytes(stretched[:64])
        exchange = X25519PrivateKey.from_private_bytes(stretched[64:])
        self.seed = seed
        self._key = MLKEM768X25519PrivateKey(kem, exchange)
        self.public = SealingPublicKey(
            kem.public_key().public_bytes_raw() + exchange.public_key().public_bytes_raw()
        )

    def open(self, payload: bytes, info: bytes) -> bytes:
        """The plaintext. Raises RemoteError: not sealed to this key, altered, or moved from its place."""
        try:
            return _SUITE.decrypt(payload, self._key, info=info)
        except (InvalidTag, ValueError):
            raise RemoteError("payload", "does not open with this endpoint's key") from None


class Sealer(Protocol):
    """What seals a payload to an endpoint: `SealingPublicKey`, or a seeded stand-in in simulations."""

    @property
    def key_id(self) -> bytes:
        """Which of the endpoint's keys: 8 bytes."""

    def seal(self, plaintext: bytes | memoryview, info: bytes) -> bytes:
        """As `SealingPublicKey.seal`."""


def sealing_info(
    source: bytes, destination: bytes, epoch: bytes, number: int, part: int, parts: int
) -> bytes:
    """The HPKE `info` of one bundle: label, source (16), destination (16), epoch (8), then three 8-byte numbers."""
    place = number.to_bytes(8, "big") + part.to_bytes(8, "big") + parts.to_bytes(8, "big")
    return _INFO_LABEL + source + destination + epoch + place


class Drawer:
    """Keeps small local texts (an officer's own reference) unreadable on disk to who lacks the device key.

    AES-256-GCM under a key derived from the device key. `nonce` is 12 bytes, unique for each text.
    """

    __slots__ = ("_box",)

    def __init__(self, secret: bytes) -> None:
        self._box = AESGCM(secret)

    def close(self, text: str, nonce: bytes) -> bytes:
        """The text, shut: nonce, ciphertext, tag."""
        return nonce + self._box.encrypt(nonce, text.encode(), None)

    def open(self, shut: bytes) -> str:
        """The text again. Raises ValueError if it was altered or shut by another device."""
        try:
            return self._box.decrypt(shut[:12], shut[12:], None).decode()
        except InvalidTag:
            raise ValueError("not shut by this device") from None

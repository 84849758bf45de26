"""How a device tells the whole fleet with which key to seal to it: one bundle that is the same for ever.

The office writes to devices that it may never meet, so each device's sealing key has to be known far away. It travels
as everything else does: as a bundle, number 1 of the journal from the device to EVERYONE, whose payload is the public
key itself. Nothing in it depends on when it is made, so a store that is restored or wiped makes the same bundle again.
It is carried, compared and verified like any other, is never receipted, and tells every node the device's certificate.

A journal to EVERYONE can hold nothing else: it would never be delivered, and so never be freed.
"""

from __future__ import annotations

import hashlib
from typing import Final

from meshnode.core.bundle import EPOCH_SIZE, ROUTINE, Bundle, Header, journal_id, sign_bundle
from meshnode.core.fleet import Endpoint
from meshnode.core.identity import ID_SIZE, Certificate, DeviceId, JournalId, SigningKey
from meshnode.core.limits import LIFETIME_S_MAX
from meshnode.core.sealing import SEALING_KEY_ID_SIZE, SEALING_PUBLIC_SIZE, SealingPublicKey

EVERYONE: Final = bytes(ID_SIZE)
_EPOCH: Final = bytes(EPOCH_SIZE)
_NUMBER: Final = 1


def introduction_journal(device: DeviceId) -> JournalId:
    """The journal that holds the introduction of this device, as number 1."""
    return journal_id(device, EVERYONE, _EPOCH)


def introduce(key: SigningKey, sealing_key: SealingPublicKey) -> Bundle:
    """The introduction of the device with this key."""
    header = Header(
        source=DeviceId(key.public.id),
        destination=EVERYONE,
        recipient_key=bytes(SEALING_KEY_ID_SIZE),
        epoch=_EPOCH,
        number=_NUMBER,
        part=1,
        parts=1,
        priority=ROUTINE,
        created_ms=0,
        lifetime_s=LIFETIME_S_MAX,
        previous=None,
        payload_size=SEALING_PUBLIC_SIZE,
        payload_sha256=hashlib.sha256(sealing_key.raw).digest(),
    )
    return sign_bundle(header, sealing_key.raw, key)


def is_misplaced(header: Header) -> bool:
    """Whether a bundle goes to EVERYONE and is no introduction: nobody has a use for it."""
    fits = (header.epoch, header.number, header.payload_size) == (_EPOCH, _NUMBER, SEALING_PUBLIC_SIZE)
    return header.destination == EVERYONE and not fits


def device_endpoint(certificate: Certificate, payload: bytes) -> Endpoint:
    """The endpoint of a device, from the verified payload of its introduction. Raises RemoteError: not a key."""
    return Endpoint((SealingPublicKey(payload),), certificate.key, ())

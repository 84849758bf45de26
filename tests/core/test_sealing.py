"""Sealing: checked against an independent reading of the draft and of RFC 9180, and against moving and altering."""

from __future__ import annotations

import hashlib
import hmac

import pytest
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st

from meshnode.core.errors import RemoteError
from meshnode.core.limits import PAYLOAD_SIZE_MAX
from meshnode.core.sealing import (
    CHUNK_SIZE,
    SEAL_OVERHEAD,
    SEALING_KEY_ID_SIZE,
    SEALING_PUBLIC_SIZE,
    Drawer,
    SealingKey,
    SealingPublicKey,
    sealing_info,
)
from tests.core.fleets import seed

KEY = SealingKey(seed("sealing"))
PLACE = (b"s" * 16, b"d" * 16, b"e" * 8, 7, 2, 3)
INFO = sealing_info(*PLACE)

#: The first test vector of draft-connolly-cfrg-xwing-kem, appendix C: seed, public key (digest), ciphertext, secret.
XWING_SEED = bytes.fromhex("7f9c2ba4e88f827d616045507605853ed73b8093f6efbc88eb1a6eacfa66ef26")
XWING_PUBLIC_SHA256 = "2e816deebcd76c5c80d0cd2d174478871658e8e2ff42bc9d4a6e486372e856bb"
XWING_CIPHERTEXT = bytes.fromhex(
    """
    b83aa828d4d62b9a83ceffe1d3d3bb1ef31264643c070c5798927e41fb07914a273f8f96e7826cd5375a283d7da885304c5de0
    516a0f0654243dc5b97f8bfeb831f68251219aabdd723bc6512041acbaef8af44265524942b902e68ffd23221cda70b1b55d77
    6a92d1143ea3a0c475f63ee6890157c7116dae3f62bf72f60acd2bb8cc31ce2ba0de364f52b8ed38c79d719715963a5dd3842d
    8e8b43ab704e4759b5327bf027c63c8fa857c4908d5a8a7b88ac7f2be394d93c3706ddd4e698cc6ce370101f4d0213254238b4
    a2e8821b6e414a1cf20f6c1244b699046f5a01caa0a1a55516300b40d2048c77cc73afba79afeea9d2c0118bdf2adb8870dc32
    8c5516cc45b1a2058141039e2c90a110a9e16b318dfb53bd49a126d6b73f215787517b8917cc01cabd107d06859854ee8b4f98
    61c226d3764c87339ab16c3667d2f49384e55456dd40414b70a6af841585f4c90c68725d57704ee8ee7ce6e2f9be582dbee985
    e038ffc346ebfb4e22158b6c84374a9ab4a44e1f91de5aac5197f89bc5e5442f51f9a5937b102ba3beaebf6e1c58380a4a5fed
    ce4a4e5026f88f528f59ffd2db41752b3a3d90efabe463899b7d40870c530c8841e8712b733668ed033adbfafb2d49d37a44d4
    064e5863eb0af0a08d47b3cc888373bc05f7a33b841bc2587c57eb69554e8a3767b7506917b6b70498727f16eac1a36ec8d8cf
    af751549f2277db277e8a55a9a5106b23a0206b4721fa9b3048552c5bd5b594d6e247f38c18c591aea7f56249c72ce7b117afc
    c3a8621582f9cf71787e183dee09367976e98409ad9217a497df888042384d7707a6b78f5f7fb8409e3b535175373461b77600
    2d799cbad62860be70573ecbe13b246e0da7e93a52168e0fb6a9756b895ef7f0147a0dc81bfa644b088a9228160c0f9acf1379
    a2941cd28c06ebc80e44e17aa2f8177010afd78a97ce0868d1629ebb294c5151812c583daeb88685220f4da9118112e07041fc
    c24d5564a99fdbde28869fe0722387d7a9a4d16e1cc8555917e09944aa5ebaaaec2cf62693afad42a3f518fce67d273cc6c9fb
    5472b380e8573ec7de06a3ba2fd5f931d725b493026cb0acbd3fe62d00e4c790d965d7a03a3c0b4222ba8c2a9a16e2ac658f57
    2ae0e746eafc4feba023576f08942278a041fb82a70a595d5bacbf297ce2029898a71e5c3b0d1c6228b485b1ade509b35fbca7
    eca97b2132e7cb6bc465375146b7dceac969308ac0c2ac89e7863eb8943015b24314cafb9c7c0e85fe543d56658c213632599e
    fabfc1ec49dd8c88547bb2cc40c9d38cbd3099b4547840560531d0188cd1e9c23a0ebee0a03d5577d66b1d2bcb4baaf21cc7fe
    f1e03806ca96299df0dfbc56e1b2b43e4fc20c37f834c4af62127e7dae86c3c25a2f696ac8b589dec71d595bfbe94b5ed4bc07
    d800b330796fda89edb77be0294136139354eb8cd37591578f9c600dd9be8ec6219fdd507adf3397ed4d68707b8d13b24ce4cd
    8fb22851bfe9d632407f31ed6f7cb1600de56f17576740ce2a32fc5145030145cfb97e63e0e41d354274a079d3e6fb2e15
    """
)
XWING_SECRET = "d2df0522128f09dd8e2c92b1e905c793d8f57a54c3da25861f10bf4ca613e384"


def decapsulate(secret: bytes, ciphertext: bytes) -> bytes:
    """X-Wing's decapsulation, word for word from the draft, section 5.5."""
    stretched = hashlib.shake_256(secret).digest(96)
    kem = MLKEM768PrivateKey.from_seed_bytes(stretched[:64])
    exchange = X25519PrivateKey.from_private_bytes(stretched[64:])
    kem_part, exchange_part = ciphertext[:1088], ciphertext[1088:]
    combined = (
        kem.decapsulate(kem_part)
        + exchange.exchange(X25519PublicKey.from_public_bytes(exchange_part))
        + exchange_part
        + exchange.public_key().public_bytes_raw()
        + rb"\.//^"
        + b"\\"
    )
    return hashlib.sha3_256(combined).digest()


def hpke_open(secret: bytes, payload: bytes, info: bytes) -> bytes:
    """RFC 9180, base mode, single shot, KEM 0x647a, KDF 1 (HKDF-SHA256), AEAD 2 (AES-256-GCM)."""
    suite = b"HPKE" + bytes.fromhex("647a00010002")

    def extract(salt: bytes, label: bytes, material: bytes) -> bytes:
        return hmac.digest(salt or bytes(32), b"HPKE-v1" + suite + label + material, "sha256")

    def expand(key: bytes, label: bytes, context: bytes, size: int) -> bytes:
        labelled = size.to_bytes(2, "big") + b"HPKE-v1" + suite + label + context
        return hmac.digest(key, labelled + b"\x01", "sha256")[:size]

    context = b"\0" + extract(b"", b"psk_id_hash", b"") + extract(b"", b"info_hash", info)
    root = extract(decapsulate(secret, payload[:1120]), b"secret", b"")
    box = AESGCM(expand(root, b"key", context, 32))
    return box.decrypt(expand(root, b"base_nonce", context, 12), payload[1120:], b"")


def test_the_drafts_vector() -> None:
    key = SealingKey(XWING_SEED)
    assert hashlib.sha256(key.public.raw).hexdigest() == XWING_PUBLIC_SHA256
    assert key.public.raw.hex().startswith("e2236b35a8c24b39b10aa1323a96a919a2ced88400633a7b07131713fc14b2b5")
    assert key.public.raw.hex().endswith("859edb06eff389b27dce59844570216223593d4ba32d9abac8cd049040ef6534")
    assert decapsulate(XWING_SEED, XWING_CIPHERTEXT).hex() == XWING_SECRET


def test_a_key_is_ml_kem_and_x25519_from_one_seed() -> None:
    stretched = hashlib.shake_256(KEY.seed).digest(96)
    kem = MLKEM768PrivateKey.from_seed_bytes(stretched[:64]).public_key().public_bytes_raw()
    exchange = X25519PrivateKey.from_private_bytes(stretched[64:]).public_key().public_bytes_raw()
    assert KEY.public.raw == kem + exchange
    assert len(KEY.public.raw) == SEALING_PUBLIC_SIZE == 1216
    assert KEY.public.key_id == hashlib.sha256(KEY.public.raw).digest()[:SEALING_KEY_ID_SIZE]


def test_another_implementation_opens_it() -> None:
    assert hpke_open(KEY.seed, KEY.public.seal(b"a record", INFO), INFO) == b"a record"


@given(st.binary(max_size=300))
@settings(max_examples=20)
def test_opens_again(plaintext: bytes) -> None:
    payload = KEY.public.seal(plaintext, INFO)
    assert len(payload) == len(plaintext) + SEAL_OVERHEAD
    assert KEY.open(payload, INFO) == plaintext


def test_overhead_fills_a_bundle_exactly() -> None:
    assert SEAL_OVERHEAD == 1136
    payload = KEY.public.seal(memoryview(bytes(CHUNK_SIZE)), INFO)
    assert len(payload) == PAYLOAD_SIZE_MAX


def test_each_sealing_differs() -> None:
    assert KEY.public.seal(b"same", INFO) != KEY.public.seal(b"same", INFO)


def test_the_sender_cannot_open() -> None:
    public = SealingPublicKey(KEY.public.raw)
    assert not hasattr(public, "open")
    assert not hasattr(public._key, "decrypt")
    assert set(type(public).__slots__) == {"_key", "key_id", "raw"}
    with pytest.raises(RemoteError, match="does not open"):
        SealingKey(seed("another")).open(public.seal(b"secret", INFO), INFO)


MOVED = [
    (b"S" * 16, *PLACE[1:]),
    (PLACE[0], b"D" * 16, *PLACE[2:]),
    (*PLACE[:2], b"E" * 8, *PLACE[3:]),
    (*PLACE[:3], 8, 2, 3),
    (*PLACE[:3], 7, 1, 3),
    (*PLACE[:3], 7, 2, 4),
]


@pytest.mark.parametrize("place", MOVED, ids=["source", "destination", "epoch", "number", "part", "parts"])
def test_moved_does_not_open(place: tuple[bytes, bytes, bytes, int, int, int]) -> None:
    payload = KEY.public.seal(b"secret", INFO)
    with pytest.raises(RemoteError, match="payload does not open"):
        KEY.open(payload, sealing_info(*place))


def test_what_is_bound() -> None:
    expected = b"meshnode/1 bundle" + b"s" * 16 + b"d" * 16 + b"e" * 8
    assert expected + bytes.fromhex("000000000000000700000000000000020000000000000003") == INFO


@pytest.mark.parametrize("at", [0, 500, 1087, 1088, 1119, 1120, -17, -16, -1])
def test_altered_does_not_open(at: int) -> None:
    payload = bytearray(KEY.public.seal(b"secret", INFO))
    payload[at] ^= 1
    with pytest.raises(RemoteError, match="payload does not open"):
        KEY.open(bytes(payload), INFO)


@given(st.binary(max_size=1200))
@settings(max_examples=50)
def test_any_payload_opens_or_is_refused(payload: bytes) -> None:
    with pytest.raises(RemoteError):
        KEY.open(payload, INFO)


@pytest.mark.parametrize("size", [0, 32, 1184, 1215, 1217])
def test_no_key_of_another_size(size: int) -> None:
    with pytest.raises(RemoteError, match=f"has {size} bytes, not 1216"):
        SealingPublicKey(bytes(size))


def test_no_key_of_impossible_numbers() -> None:
    with pytest.raises(RemoteError, match="not an X-Wing key"):
        SealingPublicKey(b"\xff" * 1216)


# --- the drawer -------------------------------------------------------------------------------------------------


@given(st.text(max_size=50))
def test_a_drawer_opens_for_its_device_only(text: str) -> None:
    shut = Drawer(seed("one")).close(text, bytes(12))
    assert Drawer(seed("one")).open(shut) == text
    with pytest.raises(ValueError, match="not shut by this device"):
        Drawer(seed("other")).open(shut)
    altered = shut[:-1] + bytes((shut[-1] ^ 1,))
    with pytest.raises(ValueError, match="not shut by this device"):
        Drawer(seed("one")).open(altered)


@pytest.mark.parametrize("size", [0, 5, 12, 27])
def test_a_drawer_refuses_what_is_too_short(size: int) -> None:
    with pytest.raises(ValueError, match=r"not shut|Nonce"):
        Drawer(seed("one")).open(bytes(size))

"""Keys, ids and certificates: what was signed reads back, and nothing else does."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshnode.core.errors import BadFleetName, BadName, RemoteError
from meshnode.core.identity import (
    ROLES,
    PublicKey,
    SigningKey,
    check_device_name,
    check_fleet_name,
    digest_id,
    found_authority,
    from_pem,
    issue_certificate,
    read_authority,
    read_certificate,
    to_pem,
)
from meshnode.core.limits import CERTIFICATE_SIZE_MAX

AUTHORITY = SigningKey.from_seed(b"a" * 32)
OTHER = SigningKey.from_seed(b"o" * 32)
DEVICE = SigningKey.from_seed(b"d" * 32)
AUTHORITY_DER = found_authority(AUTHORITY, "Kabupaten Tasikmalaya", 4711)
DEVICE_DER = issue_certificate(
    AUTHORITY, "Kabupaten Tasikmalaya", "officer-07", "officer", DEVICE.public, 4712
)

seeds = st.binary(min_size=32, max_size=32)
serials = st.integers(min_value=1, max_value=2**152 - 1)
device_names = st.builds("x{}7".format, st.text("abzABZ019._-", max_size=61))


def read_device(der: bytes) -> object:
    return read_certificate(der, AUTHORITY.public)


def every_bit_flipped(data: bytes) -> list[bytes]:
    flipped = []
    for bit in range(len(data) * 8):
        copy = bytearray(data)
        copy[bit // 8] ^= 1 << bit % 8
        flipped.append(bytes(copy))
    return flipped


@given(seeds, seeds, device_names, st.sampled_from(ROLES), serials)
def test_a_certificate_says_what_was_issued(
    authority_seed: bytes, seed: bytes, name: str, role: str, serial: int
) -> None:
    authority, device = SigningKey.from_seed(authority_seed), SigningKey.from_seed(seed)
    der = issue_certificate(authority, "Fleet 1", name, role, device.public, serial)
    read = read_certificate(der, authority.public)
    assert (read.der, read.name, read.role, read.key) == (der, name, role, device.public)
    assert read.device == device.public.id
    assert len(der) < 512


@given(seeds, serials)
def test_an_authority_says_its_fleet(seed: bytes, serial: int) -> None:
    key = SigningKey.from_seed(seed)
    assert read_authority(found_authority(key, "Fleet 1", serial)) == ("Fleet 1", key.public)


def test_the_same_serial_gives_the_same_certificate() -> None:
    again = issue_certificate(
        AUTHORITY, "Kabupaten Tasikmalaya", "officer-07", "officer", DEVICE.public, 4712
    )
    assert again == DEVICE_DER


def test_a_certificate_of_another_authority_is_refused() -> None:
    der = issue_certificate(OTHER, "Kabupaten Tasikmalaya", "officer-07", "officer", DEVICE.public, 1)
    with pytest.raises(RemoteError, match="device certificate has a false signature"):
        read_device(der)


def test_an_authority_is_not_a_device() -> None:
    with pytest.raises(RemoteError, match="device certificate has no role"):
        read_device(AUTHORITY_DER)


def test_a_device_is_not_an_authority() -> None:
    with pytest.raises(RemoteError, match="authority certificate has a false signature"):
        read_authority(DEVICE_DER)


def test_an_unknown_role_is_refused() -> None:
    with pytest.raises(RemoteError, match="has an unknown role"):
        read_device(issue_certificate(AUTHORITY, "Fleet", "officer-07", "admiral", DEVICE.public, 1))


@pytest.mark.parametrize("name", ["../x", "a/b", "-a", "a b"])
def test_a_certificate_with_an_unsafe_name_is_refused(name: str) -> None:
    with pytest.raises(RemoteError, match="has a name that no device can have"):
        read_device(issue_certificate(AUTHORITY, "Fleet", name, "officer", DEVICE.public, 1))


@pytest.mark.parametrize(("der", "read"), [(DEVICE_DER, read_device), (AUTHORITY_DER, read_authority)])
@pytest.mark.filterwarnings("ignore:Parsed a serial number")
def test_every_flipped_bit_and_every_cut_is_refused(der: bytes, read: Callable[[bytes], object]) -> None:
    read(der)
    for spoiled in [*every_bit_flipped(der), *(der[:size] for size in range(len(der))), der + b"\0"]:
        with pytest.raises(RemoteError):
            read(spoiled)


@given(st.binary(max_size=CERTIFICATE_SIZE_MAX + 10))
@pytest.mark.filterwarnings("ignore:Parsed a serial number")
def test_any_bytes_are_refused_as_certificates(data: bytes) -> None:
    for read in (read_device, read_authority):
        with pytest.raises(RemoteError):
            read(data)


@given(st.binary(max_size=512))
@pytest.mark.filterwarnings("ignore:Parsed a serial number")
def test_any_bytes_in_the_frame_of_a_certificate_are_refused(inside: bytes) -> None:
    """Past the fixed bytes and, for an own key, past the signature too: the X.509 parser's errors do not escape."""
    rest = bytes.fromhex("300506032b6570034100")
    signature = AUTHORITY.sign(inside)
    size = len(inside) + len(rest) + len(signature)
    framed = b"\x30\x82" + size.to_bytes(2, "big") + inside + rest + signature
    for read in (read_device, read_authority):
        with pytest.raises(RemoteError):
            read(framed)


def test_pem_holds_the_same_certificate() -> None:
    assert from_pem(to_pem(DEVICE_DER).encode()) == DEVICE_DER


@pytest.mark.parametrize("pem", [b"", b"junk", to_pem(DEVICE_DER).replace("M", "N").encode()])
def test_a_damaged_pem_is_a_value_error(pem: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - whatever it says, it becomes a sentence of the caller's
        from_pem(pem)


def test_a_key_goes_through_pem() -> None:
    assert SigningKey.from_pem(DEVICE.to_pem()).public == DEVICE.public
    assert SigningKey.from_pem(DEVICE.to_pem(b"secret"), b"secret").public == DEVICE.public
    assert b"ENCRYPTED" in DEVICE.to_pem(b"secret")


@pytest.mark.parametrize("passphrase", [None, b"guess"])
def test_an_encrypted_key_stays_shut(passphrase: bytes | None) -> None:
    with pytest.raises((ValueError, TypeError)):
        SigningKey.from_pem(DEVICE.to_pem(b"secret"), passphrase)


@given(st.binary(max_size=64))
def test_any_bytes_are_no_key_file(junk: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        SigningKey.from_pem(b"-----BEGIN PRIVATE KEY-----\n" + junk + b"\n-----END PRIVATE KEY-----\n")


def test_ids_are_digests_of_keys() -> None:
    assert DEVICE.public.id == digest_id(DEVICE.public.raw)
    assert len(DEVICE.public.id) == 16
    assert DEVICE.public.id != OTHER.public.id


@given(st.binary(max_size=100), st.binary(max_size=100))
def test_a_signature_is_of_one_key_and_one_text(data: bytes, other: bytes) -> None:
    signature = DEVICE.sign(data)
    DEVICE.public.verify(signature, data, "thing")
    with pytest.raises(RemoteError, match="thing has a false signature"):
        OTHER.public.verify(signature, data, "thing")
    if other != data:
        with pytest.raises(RemoteError):
            DEVICE.public.verify(signature, other, "thing")


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_key_of_another_size_is_refused(size: int) -> None:
    with pytest.raises(RemoteError, match="public key is not an Ed25519 key"):
        PublicKey(bytes(size))


def test_derived_secrets_differ_by_key_and_label() -> None:
    secrets = {DEVICE.derive(b"a"), DEVICE.derive(b"b"), OTHER.derive(b"a")}
    assert len(secrets) == 3
    assert all(len(secret) == 32 for secret in secrets)
    assert DEVICE.derive(b"a") == SigningKey.from_seed(b"d" * 32).derive(b"a")


@pytest.mark.parametrize("name", ["a", "officer-07", "Tablet_3.kec", "9", "a" * 63])
def test_device_names(name: str) -> None:
    assert check_device_name(name) == name


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "-a", "_a", ".a", "a.", "a b", "a/b", "a\\b", "a\n", "a\0", "ä", "a" * 64, "٣"],
)
def test_what_no_device_is_called(name: str) -> None:
    with pytest.raises(BadName):
        check_device_name(name)


@pytest.mark.parametrize("name", ["Tasikmalaya", "Kabupaten Tasikmalaya 2", "a" * 63])
def test_fleet_names(name: str) -> None:
    assert check_fleet_name(name) == name


@pytest.mark.parametrize("name", ["", " a", "a ", "a\tb", "a/b", "ä", "a" * 64, "a\n"])
def test_what_no_fleet_is_called(name: str) -> None:
    with pytest.raises(BadFleetName):
        check_fleet_name(name)

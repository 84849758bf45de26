"""The papers of a fleet: each reads back as written, and not one changed bit is believed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshnode.core.errors import RemoteError
from meshnode.core.fields import pack
from meshnode.core.fleet import (
    DOCUMENT_VERSION_MAX,
    Endpoint,
    FleetDocument,
    Request,
    read_document_file,
    read_request,
    read_welcome,
    write_welcome,
)
from meshnode.core.identity import DeviceId, FleetId, SigningKey, found_authority, issue_certificate
from meshnode.core.limits import LIFETIME_S, LIFETIME_S_MAX
from meshnode.core.sealing import SealingKey

AUTHORITY = SigningKey.from_seed(b"a" * 32)
OTHER = SigningKey.from_seed(b"o" * 32)
DEVICE = SigningKey.from_seed(b"d" * 32)
OFFICE = SigningKey.from_seed(b"e" * 32)
SEALING = SealingKey(b"s" * 32)
AUTHORITY_DER = found_authority(AUTHORITY, "Tasikmalaya", 1)
DEVICE_DER = issue_certificate(AUTHORITY, "Tasikmalaya", "officer-07", "officer", DEVICE.public, 2)
ENDPOINT = Endpoint((SEALING.public,), OFFICE.public, ("office.example:7766", "[2001:db8::1]:7766"))
UNSIGNED = FleetDocument(
    fleet=FleetId(AUTHORITY.public.id),
    version=1,
    name="Tasikmalaya",
    endpoints=(),
    revoked=frozenset({DeviceId(b"r" * 16)}),
    lifetime_s=LIFETIME_S,
)
DOCUMENT = UNSIGNED.signed(AUTHORITY)
WELCOME = write_welcome(AUTHORITY, AUTHORITY_DER, DEVICE_DER, DOCUMENT)
OFFICER_REQUEST = Request("officer-07", "officer", DEVICE.public, None).to_file(DEVICE)
OFFICE_REQUEST = Request("office", "office", DEVICE.public, ENDPOINT).to_file(DEVICE)


def read_document(data: bytes) -> object:
    return read_document_file(data, AUTHORITY.public)


PAPERS = {
    "document": (DOCUMENT.to_file(), read_document),
    "document with an office": (
        replace(UNSIGNED, endpoints=(ENDPOINT,)).signed(AUTHORITY).to_file(),
        read_document,
    ),
    "request": (OFFICER_REQUEST, read_request),
    "request of an office": (OFFICE_REQUEST, read_request),
    "welcome": (WELCOME, read_welcome),
}
every_paper = pytest.mark.parametrize(("data", "read"), PAPERS.values(), ids=PAPERS.keys())

ids = st.binary(min_size=16, max_size=16)


@given(
    version=st.integers(1, DOCUMENT_VERSION_MAX),
    offices=st.integers(0, 2),
    revoked=st.frozensets(ids, max_size=5),
    lifetime_s=st.integers(60, LIFETIME_S_MAX),
)
def test_a_document_reads_back(
    version: int, offices: int, revoked: frozenset[bytes], lifetime_s: int
) -> None:
    second = Endpoint((SealingKey(b"t" * 32).public, SEALING.public), OTHER.public, ())
    written = replace(
        UNSIGNED,
        version=version,
        endpoints=(ENDPOINT, second)[:offices],
        revoked=frozenset(DeviceId(it) for it in revoked),
        lifetime_s=lifetime_s,
    ).signed(AUTHORITY)
    read = read_document_file(written.to_file(), AUTHORITY.public)
    assert (read.fleet, read.version, read.name) == (written.fleet, version, "Tasikmalaya")
    assert (read.revoked, read.lifetime_s) == (revoked, lifetime_s)
    assert (read.body, read.signature) == (written.body, written.signature)
    for office, original in zip(read.endpoints, written.endpoints, strict=True):
        assert office.id == original.id == original.signing_key.id
        assert [key.raw for key in office.sealing_keys] == [key.raw for key in original.sealing_keys]
        assert (office.signing_key, office.addresses) == (original.signing_key, original.addresses)
        assert read.endpoint(original.id) is office
    assert read.endpoint(b"?" * 16) is None


def test_a_request_reads_back() -> None:
    assert read_request(OFFICER_REQUEST) == Request("officer-07", "officer", DEVICE.public, None)
    office = read_request(OFFICE_REQUEST)
    assert office.endpoint is not None
    assert (office.name, office.role, office.endpoint.id) == ("office", "office", ENDPOINT.id)
    assert office.endpoint.sealing_keys[0].raw == SEALING.public.raw


def test_a_welcome_reads_back() -> None:
    welcome = read_welcome(WELCOME)
    assert (welcome.fleet_name, welcome.authority, welcome.authority_der) == (
        "Tasikmalaya",
        AUTHORITY.public,
        AUTHORITY_DER,
    )
    assert welcome.certificate.der == DEVICE_DER
    assert welcome.certificate.key == DEVICE.public
    assert welcome.document.to_file() == DOCUMENT.to_file()


@pytest.mark.parametrize(
    ("data", "read"),
    [PAPERS["document"], PAPERS["request"], PAPERS["welcome"]],
    ids=["document", "request", "welcome"],
)
@pytest.mark.filterwarnings("ignore:Parsed a serial number")
def test_every_flipped_bit_is_refused(data: bytes, read: Callable[[bytes], object]) -> None:
    read(data)
    for bit in range(len(data) * 8):
        spoiled = bytearray(data)
        spoiled[bit // 8] ^= 1 << bit % 8
        with pytest.raises(RemoteError):
            read(bytes(spoiled))


@pytest.mark.parametrize("paper", ["document with an office", "request of an office"])
def test_a_flipped_bit_in_each_byte_of_a_longer_paper_is_refused(paper: str) -> None:
    data, read = PAPERS[paper]
    for at in range(len(data)):
        spoiled = bytearray(data)
        spoiled[at] ^= 1 << at % 8
        with pytest.raises(RemoteError):
            read(bytes(spoiled))


@every_paper
def test_every_cut_and_everything_trailing_is_refused(data: bytes, read: Callable[[bytes], object]) -> None:
    for spoiled in [*(data[:size] for size in range(len(data))), data + b"\0", data + data]:
        with pytest.raises(RemoteError):
            read(spoiled)


@every_paper
@given(junk=st.binary(max_size=300))
def test_any_bytes_are_refused(data: bytes, read: Callable[[bytes], object], junk: bytes) -> None:
    with pytest.raises(RemoteError):
        read(junk)


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_nan=False),
    st.binary(max_size=40),
    ids,
    st.sampled_from([DEVICE.public.raw, AUTHORITY_DER, DEVICE_DER, SEALING.public.raw, DOCUMENT.body]),
    st.text(max_size=20),
    st.sampled_from(["officer", "office", "officer-07", "h:1", "h:0", ":1", "h"]),
)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=7), max_leaves=20)


@given(st.lists(values, max_size=8))
def test_whatever_is_truly_signed_is_a_value_or_a_remote_error(items: list[object]) -> None:
    """The signature is no protection against who holds a key: the codecs alone have to stand."""
    for body in (pack(items), pack([1, *items])):
        for key, read in ((AUTHORITY, read_document), (DEVICE, read_request), (AUTHORITY, read_welcome)):
            with pytest.raises(RemoteError):
                read(pack([body, key.sign(body)]))


def with_item(at: int, value: object) -> bytes:
    """A truly signed document with one item changed."""
    office = [ENDPOINT.id, [SEALING.public.raw], OFFICE.public.raw, ["h:1"]]
    items: list[object] = [1, AUTHORITY.public.id, 1, "Tasikmalaya", [office], [b"r" * 16], [LIFETIME_S]]
    items[at] = value
    body = pack(items)
    return pack([body, AUTHORITY.sign(body)])


def office_with(at: int, value: object) -> list[object]:
    office: list[object] = [ENDPOINT.id, [SEALING.public.raw], OFFICE.public.raw, ["h:1"]]
    office[at] = value
    return [office]


def test_the_document_that_the_next_test_spoils_is_good() -> None:
    read_document(with_item(0, 1))


@pytest.mark.parametrize(
    ("at", "value", "says"),
    [
        (0, 2, "document.version of the format is 2"),
        (0, True, "document.version of the format is not a whole number"),
        (1, OTHER.public.id, "document.fleet is another fleet"),
        (1, b"short", "document.fleet has 5 bytes"),
        (2, 0, "document.version is 0"),
        (2, 2**32 + 1, "document.version is"),
        (3, "", "document.name is not a fleet's name"),
        (3, b"Tasikmalaya", "document.name is not text"),
        (4, [[]], r"document.endpoints\[0\] has 0 items"),
        (4, [1], "document.endpoints has an item that is not an array"),
        (4, office_with(0, b"i" * 16), "document.endpoints.id is not the id of its signing key"),
        (4, office_with(1, []), "document.endpoints.sealing_keys is not a list of keys"),
        (4, office_with(1, [b"k"]), "sealing key has 1 bytes"),
        (4, office_with(2, b"k" * 31), r"document.endpoints\[0\].signing_key has 31 bytes"),
        (4, office_with(3, ["h"]), "addresses has one that is not HOST:PORT"),
        (4, office_with(3, ["h:0"]), "addresses has one that is not HOST:PORT"),
        (4, office_with(3, ["h:65536"]), "addresses has one that is not HOST:PORT"),
        (4, office_with(3, ["a b:1"]), "addresses has one with letters that no address has"),
        (4, office_with(3, [1]), "addresses has one that is not text of sane length"),
        (4, office_with(3, ["h:1"] * 33), r"addresses has more than 32 items"),
        (4, office_with(3, ["h" * 300 + ":1"]), "addresses has one that is not text of sane length"),
        (5, [b"r"], "document.revoked is not a list of device ids"),
        (5, None, "document.revoked is not a list"),
        (6, [59], "document.policy.lifetime_s is 59"),
        (6, [], "document.policy has 0 items"),
    ],
)
def test_a_signed_document_that_is_wrong_names_the_field(at: int, value: object, says: str) -> None:
    with pytest.raises(RemoteError, match=says):
        read_document(with_item(at, value))


def test_a_document_of_another_fleet_is_refused() -> None:
    other = replace(UNSIGNED, fleet=FleetId(OTHER.public.id)).signed(OTHER)
    with pytest.raises(RemoteError, match="document has a false signature"):
        read_document(other.to_file())


def test_a_request_of_another_key_than_it_names_is_refused() -> None:
    with pytest.raises(RemoteError, match="request has a false signature"):
        read_request(Request("officer-07", "officer", DEVICE.public, None).to_file(OTHER))


def test_an_officer_brings_no_endpoint_and_an_office_does() -> None:
    for request in (
        Request("officer-07", "officer", DEVICE.public, ENDPOINT),
        Request("office", "office", DEVICE.public, None),
    ):
        with pytest.raises(RemoteError, match="endpoint_signing_key"):
            read_request(request.to_file(DEVICE))


@pytest.mark.parametrize(
    ("authority_der", "device_der", "document"),
    [
        (found_authority(OTHER, "Tasikmalaya", 1), DEVICE_DER, DOCUMENT),
        (AUTHORITY_DER, issue_certificate(OTHER, "Tasikmalaya", "x", "officer", DEVICE.public, 2), DOCUMENT),
        (AUTHORITY_DER, DEVICE_DER, replace(UNSIGNED, fleet=FleetId(OTHER.public.id)).signed(OTHER)),
        (DEVICE_DER, DEVICE_DER, DOCUMENT),
    ],
    ids=["authority", "device", "document", "no authority"],
)
def test_a_welcome_with_a_part_of_another_fleet_is_refused(
    authority_der: bytes, device_der: bytes, document: FleetDocument
) -> None:
    with pytest.raises(RemoteError):
        read_welcome(write_welcome(AUTHORITY, authority_der, device_der, document))

"""What takes the place of secrets in a simulation keeps the contract of the real thing: whoever relies on the one is
right about the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshnode.core.errors import RemoteError
from meshnode.core.identity import PublicKey, SigningKey
from meshnode.core.limits import PAYLOAD_SIZE_MAX
from meshnode.core.sealing import (
    CHUNK_SIZE,
    SEAL_OVERHEAD,
    SEALING_KEY_ID_SIZE,
    Sealer,
    SealingKey,
    sealing_info,
)
from meshnode.sim.standins import RememberingKey, StandInSeal
from tests.core.fleets import seed

INFO = sealing_info(b"s" * 16, b"d" * 16, b"e" * 8, 7, 2, 3)


class Opener(Protocol):
    """The private half of a sealing key."""

    def open(self, payload: bytes, info: bytes) -> bytes:
        """As `SealingKey.open`."""


@dataclass(frozen=True)
class Pair:
    """Both halves of one sealing key."""

    public: Sealer
    private: Opener


def real(label: str) -> Pair:
    """HPKE's."""
    key = SealingKey(seed(label))
    return Pair(key.public, key)


def stand_in(label: str) -> Pair:
    """The simulation's."""
    key = StandInSeal(seed(label))
    return Pair(key, key)


def refuses(pair: Pair, payload: bytes, info: bytes = INFO) -> bool:
    """Whether it does, and by the error that is promised."""
    with pytest.raises(RemoteError, match=r"^payload does not open with this endpoint's key"):
        pair.private.open(payload, info)
    return True


KINDS = {"real": (real("one"), real("other")), "stand-in": (stand_in("one"), stand_in("other"))}
either = pytest.mark.parametrize(("one", "other"), KINDS.values(), ids=KINDS)

texts = st.binary(max_size=300)
infos = st.binary(max_size=100)


# --- seals ------------------------------------------------------------------------------------------------------


@either
@given(texts, infos)
@settings(max_examples=30)
def test_opens_again_and_only_with_its_key(one: Pair, other: Pair, text: bytes, info: bytes) -> None:
    payload = one.public.seal(text, info)
    assert type(payload) is bytes
    assert len(payload) == len(text) + SEAL_OVERHEAD
    assert one.private.open(payload, info) == text
    assert one.private.open(payload, info) == text, "as often as it is asked"
    assert refuses(other, payload, info)


@either
@pytest.mark.parametrize("size", [0, 1, CHUNK_SIZE])
def test_any_size_that_a_bundle_takes(one: Pair, other: Pair, size: int) -> None:
    text = b"r" * size
    payload = one.public.seal(memoryview(text), INFO)
    assert len(payload) == size + SEAL_OVERHEAD <= PAYLOAD_SIZE_MAX
    assert one.private.open(payload, INFO) == text
    assert refuses(other, payload)


@either
@given(texts, infos, infos)
@settings(max_examples=30)
def test_opens_only_at_its_place(one: Pair, other: Pair, text: bytes, info: bytes, elsewhere: bytes) -> None:
    payload = one.public.seal(text, info)
    if elsewhere != info:
        assert refuses(one, payload, elsewhere)
    assert refuses(one, payload, info + b"\0")
    assert refuses(one, payload, b"\0" + info)


@either
@given(st.binary(min_size=1, max_size=50), infos, st.data())
@settings(max_examples=30)
def test_what_is_cut_off_the_text_is_not_made_up_for_by_the_place(
    one: Pair, other: Pair, text: bytes, info: bytes, data: st.DataObject
) -> None:
    payload = one.public.seal(text, info)
    cut = data.draw(st.integers(1, len(text)))
    assert refuses(one, payload[cut:], info + text[:cut])


@either
@pytest.mark.parametrize("text", [b"", b"r", b"record" * 9], ids=["empty", "short", "longer"])
def test_no_byte_can_be_altered(one: Pair, other: Pair, text: bytes) -> None:
    payload = one.public.seal(text, INFO)
    for at in range(len(payload)):
        altered = bytearray(payload)
        altered[at] ^= 1 << at % 8
        assert refuses(one, bytes(altered)), at


@either
@pytest.mark.parametrize("text", [b"", b"record"], ids=["empty", "longer"])
def test_nothing_can_be_cut_off_or_added(one: Pair, other: Pair, text: bytes) -> None:
    payload = one.public.seal(text, INFO)
    for size in range(len(payload)):
        assert refuses(one, payload[:size]), size
        assert refuses(one, payload[len(payload) - size :]), -size
    for longer in (payload + b"\0", b"\0" + payload, payload + payload):
        assert refuses(one, longer)


@either
@given(st.binary(max_size=1200))
@settings(max_examples=30)
def test_what_nobody_sealed_is_refused(one: Pair, other: Pair, payload: bytes) -> None:
    assert refuses(one, payload)


@pytest.mark.parametrize("make", [real, stand_in])
def test_key_ids_name_keys(make: Callable[[str], Pair]) -> None:
    ids = {label: make(label).public.key_id for label in ("one", "other", "third")}
    assert {len(key_id) for key_id in ids.values()} == {SEALING_KEY_ID_SIZE}
    assert len(set(ids.values())) == 3
    assert make("one").public.key_id == ids["one"], "the same after a restart"


def test_the_stand_in_draws_nothing_and_counts_what_it_opened() -> None:
    """What it is there for: two runs of one seed do not differ."""
    one, again = StandInSeal(seed("one")), StandInSeal(seed("one"))
    payload = one.seal(b"record", INFO)
    assert payload == one.seal(b"record", INFO) == again.seal(b"record", INFO)
    again.open(payload, INFO)
    assert refuses(Pair(again, again), payload[:-1])
    assert (one.opened, again.opened) == (0, 1)


# --- public keys ------------------------------------------------------------------------------------------------

SIGNER, STRANGER = SigningKey.from_seed(seed("signer")), SigningKey.from_seed(seed("stranger"))
DATA = [b"", b"one", b"two"]
SIGNATURES = [
    *(key.sign(data) for key in (SIGNER, STRANGER) for data in DATA),
    SIGNER.sign(b"one")[:-1],
    bytes(64),
    b"",
]


def answer(key: PublicKey, signature: bytes, data: bytes, what: str) -> str | None:
    """What it says against a signature."""
    try:
        key.verify(signature, data, what)
    except RemoteError as problem:
        return str(problem)
    return None


@given(
    st.lists(
        st.tuples(st.sampled_from(SIGNATURES), st.sampled_from(DATA), st.sampled_from(["receipt", "bundle"])),
        max_size=40,
    )
)
def test_a_remembering_key_always_says_what_a_public_key_says(asked: list[tuple[bytes, bytes, str]]) -> None:
    key, remembering = PublicKey(SIGNER.public.raw), RememberingKey(SIGNER.public.raw)
    for signature, data, what in [*asked, *asked]:
        said = answer(remembering, signature, data, what)
        assert said == answer(key, signature, data, what)
        assert said in (None, f"{what} has a false signature."), "and not of anything that was asked before"
        assert (said is None) == (signature == SIGNER.sign(data))


def test_a_remembering_key_stands_wherever_a_public_key_does() -> None:
    key, remembering = PublicKey(SIGNER.public.raw), RememberingKey(SIGNER.public.raw)
    assert key == remembering
    assert remembering == key
    assert remembering != STRANGER.public
    assert hash(remembering) == hash(key)
    assert (remembering.raw, remembering.id) == (key.raw, key.id)


@pytest.mark.parametrize("raw", [b"", bytes(31), bytes(33)])
def test_what_is_no_key_is_none_of_either(raw: bytes) -> None:
    for make in (PublicKey, RememberingKey):
        with pytest.raises(RemoteError, match=r"^public key is not an Ed25519 key"):
            make(raw)


def test_a_remembering_key_verifies_once_and_does_not_remember_what_was_false(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What it is there for: a run verifies each signature once, however many nodes ask."""
    verified: list[bytes] = []
    verify = PublicKey.verify

    def counted(self: PublicKey, signature: bytes, data: bytes, what: str) -> None:
        verified.append(data)
        verify(self, signature, data, what)

    monkeypatch.setattr(PublicKey, "verify", counted)
    remembering = RememberingKey(SIGNER.public.raw)
    for _ in range(3):
        assert answer(remembering, SIGNER.sign(b"one"), b"one", "receipt") is None
        assert answer(remembering, SIGNER.sign(b"one"), b"two", "receipt") is not None
    assert verified.count(b"one") == 1
    assert verified.count(b"two") == 3

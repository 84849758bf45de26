"""All that the fuzzer began with and has found once, again, without it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshnode.core.fields import pack
from tests.targets import CORPUS, TARGETS, check, samples

FILES = sorted(path for path in CORPUS.glob("*/*") if path.is_file())
#: A whole node takes a hundred times longer.
READERS = sorted(set(TARGETS) - {"node"})
SAMPLES = samples()


@pytest.mark.parametrize("path", FILES, ids=[f"{path.parent.name}-{path.name}" for path in FILES])
def test_again(path: Path) -> None:
    check(TARGETS[path.parent.name], path.read_bytes())


def test_every_target_has_a_corpus_and_it_is_small() -> None:
    assert {path.parent.name for path in FILES} == set(TARGETS) == set(SAMPLES)
    for name in TARGETS:
        assert sum(path.stat().st_size for path in FILES if path.parent.name == name) < 32_768, name


@pytest.mark.parametrize("name", READERS)
@given(data=st.binary(max_size=600))
@settings(max_examples=60)
def test_any_bytes(name: str, data: bytes) -> None:
    check(TARGETS[name], data)


@pytest.mark.parametrize("name", READERS)
@given(data=st.data())
@settings(max_examples=60)
def test_any_small_change(name: str, data: st.DataObject) -> None:
    sample = bytearray(data.draw(st.sampled_from(SAMPLES[name])))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(sample) - 1))
        match data.draw(st.sampled_from(["flip", "cut", "put", "double"])):
            case "flip":
                sample[at] ^= 1 << data.draw(st.integers(0, 7))
            case "cut":
                del sample[at + 1 :]
            case "put":
                sample[at:at] = data.draw(st.binary(min_size=1, max_size=9))
            case "double":
                sample[at:at] = sample[at:]
    check(TARGETS[name], bytes(sample))


BOMBS = {
    "lists of lists": b"\x91" * 500_000,
    "lists that say they are long": (b"\xdd" + (2**19).to_bytes(4, "big")) * 100_000,
    "lists that say they are as long as may be": (b"\xdd" + (32_768).to_bytes(4, "big")) * 100_000,
    "long lists of nothing": b"\xdd" + (524_000).to_bytes(4, "big") + b"\xc0" * 524_000,
    "lists of empty lists": pack([[[]] * 30_000] * 15),
    "a text that says it is long": b"\xdb\xff\xff\xff\xff",
    "bytes that say they are long": b"\xc6\xff\xff\xff\xff",
    "maps": b"\x81" * 400_000,
    "extensions": b"\xc9\xff\xff\xff\xff\x01",
    "a time": b"\xc7\x0c\xff" + bytes(12),
    "numbers that are none": b"\x9a" + b"\xcb\x7f\xf8" + bytes(6) + b"\xca\x7f\x80\0\0",
    "the largest number": pack([2**64 - 1] * 10),
    "the smallest number": pack([-(2**63)] * 10),
    "a text that is no UTF-8": b"\x91\xa4\xff\xfe\xed\xa0",
    "half a letter": b"\x92\x0b" + b"\xa3\xed\xa0\x80",
}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
def test_bombs(name: str, bomb: bytes) -> None:
    check(TARGETS[name], bomb)


@given(st.data())
@settings(max_examples=25)
def test_any_small_change_of_what_a_member_says_to_a_node(data: st.DataObject) -> None:
    sample = bytearray(data.draw(st.sampled_from(SAMPLES["node"])))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(sample) - 1))
        sample[at] = data.draw(st.integers(0, 255))
    check(TARGETS["node"], bytes(sample))

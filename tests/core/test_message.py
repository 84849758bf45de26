"""Messages: to bundles and back, whatever the sizes; names; and what a hostile sender may try."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshnode.core.errors import BadFileName, BadSubmission, MeshnodeError, MessageTooLarge, RemoteError
from meshnode.core.fields import pack, unpack
from meshnode.core.limits import (
    FILE_NAME_SIZE_MAX,
    FILES_MAX,
    KIND_SIZE_MAX,
    MANIFEST_SIZE_MAX,
    MESSAGE_SIZE_MAX,
    PARTS_MAX,
    PAYLOAD_SIZE_MAX,
    REFERENCE_SIZE_MAX,
)
from meshnode.core.message import (
    Chunker,
    File,
    Manifest,
    Opener,
    check_file_name,
    check_manifest,
    encode_manifest,
    parts_for,
    read_manifest,
    stream_head,
    stream_size,
)
from meshnode.core.sealing import CHUNK_SIZE, SealingKey, sealing_info
from tests.core.fleets import seed

KEY = SealingKey(seed("sealing"))


def manifest_of(*files: File, **changes: object) -> Manifest:
    """A manifest with these files."""
    manifest = Manifest("ktp-el", (("nik", "3206"),), "Ibu Siti", 1_700_000_000_000, files)
    return replace(manifest, **changes)  # type: ignore[arg-type]


def content(index: int, size: int) -> bytes:
    """The bytes of the file of that index."""
    return hashlib.shake_128(index.to_bytes(2, "big")).digest(size) if size else b""


def named(sizes: Sequence[int]) -> Manifest:
    """A manifest of files of these sizes."""
    return manifest_of(*(File(f"file-{index}", size) for index, size in enumerate(sizes)))


def open_all(chunks: Sequence[bytes], count: int) -> tuple[Manifest, list[bytes]]:
    """What an office reads from opened chunks."""
    opener = Opener()
    files = [bytearray() for _ in range(count)]
    for chunk in chunks:
        for index, piece in opener.feed(chunk):
            files[index] += piece
    return opener.close(), [bytes(file) for file in files]


# --- there and back ---------------------------------------------------------------------------------------------

#: Sizes at and around what fills chunks, and small ones.
sizes = st.sampled_from([0, 0, 1, 2, 100, CHUNK_SIZE - 1, CHUNK_SIZE, CHUNK_SIZE + 1]) | st.integers(0, 5000)


@given(st.lists(sizes, min_size=1, max_size=4), st.sampled_from([1 << 16, 100_003, CHUNK_SIZE, 1 << 20]))
@settings(max_examples=40)
def test_any_files_through_sealed_bundles(file_sizes: list[int], piece: int) -> None:
    manifest = named(file_sizes)
    stream = stream_head(manifest) + b"".join(content(*pair) for pair in enumerate(file_sizes))
    assert len(stream) == stream_size(manifest)
    chunker = Chunker()
    chunks = [chunk for at in range(0, len(stream), piece) for chunk in chunker.feed(stream[at : at + piece])]
    chunks.append(chunker.rest())
    parts = parts_for(len(stream))
    assert len(chunks) == parts
    sealed = []
    for part, chunk in enumerate(chunks, 1):
        info = sealing_info(b"s" * 16, b"d" * 16, b"e" * 8, 10 + part, part, parts)
        sealed.append((KEY.public.seal(chunk, info), info))
    assert all(len(payload) <= PAYLOAD_SIZE_MAX for payload, _ in sealed)
    opened = [KEY.open(payload, info) for payload, info in sealed]
    read, files = open_all(opened, len(file_sizes))
    assert read == manifest
    assert files == [content(*pair) for pair in enumerate(file_sizes)]


@given(st.lists(st.integers(0, 40), min_size=1, max_size=5), st.integers(1, 9))
def test_pieces_of_any_size_are_the_same_message(file_sizes: list[int], piece: int) -> None:
    manifest = named(file_sizes)
    stream = stream_head(manifest) + b"".join(content(*pair) for pair in enumerate(file_sizes))
    pieces = [stream[at : at + piece] for at in range(0, len(stream), piece)]
    read, files = open_all(pieces, len(file_sizes))
    assert (read, files) == (manifest, [content(*pair) for pair in enumerate(file_sizes)])


@pytest.mark.parametrize("more", [-1, 0, 1])
@pytest.mark.parametrize("chunks", [1, 2])
def test_streams_that_fill_chunks_exactly(chunks: int, more: int) -> None:
    head = len(stream_head(named([CHUNK_SIZE])))
    manifest = named([chunks * CHUNK_SIZE + more - head])
    head = len(stream_head(manifest))
    manifest = named([chunks * CHUNK_SIZE + more - head])
    size = stream_size(manifest)
    assert size == chunks * CHUNK_SIZE + more
    chunker = Chunker()
    cut = [*chunker.feed(bytes(size)), chunker.rest()]
    assert [len(chunk) for chunk in cut[:-1]] == [CHUNK_SIZE] * (len(cut) - 1)
    assert len(cut) == parts_for(size) == chunks + (more > 0)
    assert 0 < len(cut[-1]) <= CHUNK_SIZE
    assert b"".join(cut) == bytes(size)


def test_the_largest_message_has_few_enough_parts() -> None:
    assert parts_for(4 + MANIFEST_SIZE_MAX + MESSAGE_SIZE_MAX) <= PARTS_MAX
    assert parts_for(1) == parts_for(CHUNK_SIZE) == 1
    assert parts_for(CHUNK_SIZE + 1) == 2


def test_layout() -> None:
    """What the module's docstring promises, to the byte."""
    manifest = manifest_of(File("form.pdf", 5, "application/pdf"), File("empty", 0))
    head = stream_head(manifest)
    assert int.from_bytes(head[:4], "big") == len(head) - 4
    assert unpack(head[4:], "manifest") == [
        1,
        "ktp-el",
        [["nik", "3206"]],
        "Ibu Siti",
        1_700_000_000_000,
        [["form.pdf", 5, "application/pdf"], ["empty", 0, "application/octet-stream"]],
    ]


# --- names and limits: the user's fault -------------------------------------------------------------------------

GOOD_NAMES = [
    "a",
    "form.pdf",
    "Kartu Keluarga (1).jpg",
    "ñandú",
    "写真.png",
    "a" * 255,
    ".hidden",
    "..a",
    "é" * 127,
]
BAD_NAMES = [
    ("", "it is empty"),
    (".", "a path is not a name"),
    ("..", "a path is not a name"),
    ("/etc/passwd", "a path is not a name"),
    ("a/b", "a path is not a name"),
    ("..\\..\\boot.ini", "a path is not a name"),
    ("C:\\x", "a path is not a name"),
    ("a\0b", "control characters"),
    ("a\nb", "control characters"),
    ("a\x7fb", "control characters"),
    ("a\x85b", "control characters"),
    ("a\ud800b", "not UTF-8"),
    ("a\udcffb", "not UTF-8"),
    ("a" * 256, "longer than 255 bytes"),
    ("é" * 128, "longer than 255 bytes"),
    ("message.json", "the office keeps its own record"),
    ("MESSAGE.json", "the office keeps its own record"),
]


@pytest.mark.parametrize("name", GOOD_NAMES)
def test_good_names(name: str) -> None:
    assert check_file_name(name) == name
    assert read_manifest(encode_manifest(manifest_of(File(name, 1)))).files[0].name == name


@pytest.mark.parametrize(("name", "problem"), BAD_NAMES, ids=range(len(BAD_NAMES)))
def test_bad_names(name: str, problem: str) -> None:
    with pytest.raises(BadFileName, match=problem) as caught:
        check_file_name(name)
    assert str(caught.value).isprintable()
    with pytest.raises(BadFileName):
        check_manifest(manifest_of(File(name, 1)))


@given(st.text(max_size=300))
def test_a_good_name_is_a_file_in_its_folder(name: str) -> None:
    try:
        check_file_name(name)
    except BadFileName as problem:
        assert str(problem).isprintable()  # noqa: PT017 - most names are good
    else:
        assert name not in ("", ".", "..")
        assert not {"/", "\\", "\0"} & set(name)
        assert len(name.encode()) <= FILE_NAME_SIZE_MAX


@pytest.mark.parametrize(
    "pair", [("a", "a"), ("a.JPG", "A.jpg"), ("caf\u00e9", "cafe\u0301"), ("stra\u00dfe", "STRASSE")]
)
def test_two_files_of_one_name(pair: tuple[str, str]) -> None:
    with pytest.raises(BadFileName, match="another file of the message has this name too"):
        check_manifest(manifest_of(*(File(name, 1) for name in pair)))


BAD_MANIFESTS: list[tuple[Manifest, type[MeshnodeError], str]] = [
    (manifest_of(), BadSubmission, "it has 0 files"),
    (named([0] * (FILES_MAX + 1)), BadSubmission, "it has 257 files"),
    (manifest_of(File("a", -1)), BadSubmission, "size or type"),
    (manifest_of(File("a", 1, "x" * 256)), BadSubmission, "size or type"),
    (manifest_of(File("a", MESSAGE_SIZE_MAX + 1)), MessageTooLarge, "at most 268435456 fit"),
    (named([MESSAGE_SIZE_MAX, 1]), MessageTooLarge, "it has 268435457 bytes"),
    (manifest_of(File("a", 1), kind="k" * (KIND_SIZE_MAX + 1)), BadSubmission, "kind is longer"),
    (
        manifest_of(File("a", 1), reference="r" * (REFERENCE_SIZE_MAX + 1)),
        BadSubmission,
        "reference is longer",
    ),
    (manifest_of(File("a", 1), meta=(("k", "1"), ("k", "2"))), BadSubmission, "key twice"),
    (manifest_of(File("a", 1), meta=(("k", "v" * MANIFEST_SIZE_MAX),)), BadSubmission, "longer than 65536"),
    (manifest_of(File("a", 1), kind="\ud800"), BadSubmission, "not UTF-8"),
    (manifest_of(File("a", 1), reference="\udcff"), BadSubmission, "not UTF-8"),
    (manifest_of(File("a", 1), meta=(("\ud800", "v"),)), BadSubmission, "not UTF-8"),
    (manifest_of(File("a", 1), meta=(("k", "\ud800"),)), BadSubmission, "not UTF-8"),
    (manifest_of(File("a", 1, "text/\ud800")), BadSubmission, "not UTF-8"),
]


@pytest.mark.parametrize(("manifest", "error", "problem"), BAD_MANIFESTS, ids=range(len(BAD_MANIFESTS)))
def test_bad_manifests(manifest: Manifest, error: type[MeshnodeError], problem: str) -> None:
    with pytest.raises(error, match=problem):
        check_manifest(manifest)


def test_the_largest_manifests() -> None:
    check_manifest(named([1] * FILES_MAX))
    check_manifest(named([MESSAGE_SIZE_MAX, 0]))
    check_manifest(
        manifest_of(File("a", 1), kind="k" * KIND_SIZE_MAX, reference="é" * (REFERENCE_SIZE_MAX // 2))
    )
    room = (
        MANIFEST_SIZE_MAX - len(encode_manifest(manifest_of(File("a", 1), meta=(("k", "v" * 1000),)))) + 1000
    )
    largest = manifest_of(File("a", 1), meta=(("k", "v" * (room - 2)),))
    assert len(encode_manifest(check_manifest(largest))) <= MANIFEST_SIZE_MAX
    assert read_manifest(encode_manifest(largest)) == largest


# --- what a hostile sender may try ------------------------------------------------------------------------------


@given(st.binary(max_size=200))
def test_any_manifest_is_read_or_refused(data: bytes) -> None:
    with pytest.raises(RemoteError, match="manifest"):
        read_manifest(data)


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (0, 2),
        (1, "k" * 65),
        (1, b"kind"),
        (2, [["k", "1"], ["k", "2"]]),
        (2, [["k"]]),
        (2, {}),
        (3, "r" * 1025),
        (4, -1),
        (5, []),
        (5, [["../../etc/cron.d/x", 1, "t"]]),
        (5, [["a\0", 1, "t"]]),
        (5, [["message.json", 1, "t"]]),
        (5, [["A", 1, "t"], ["a", 1, "t"]]),
        (5, [["a", -1, "t"]]),
        (5, [["a", MESSAGE_SIZE_MAX + 1, "t"]]),
        (5, [["a", MESSAGE_SIZE_MAX, "t"], ["b", 1, "t"]]),
        (5, [["a", 1, "t" * 256]]),
        (5, [["a", 1]]),
        (5, [[f"{n}", 1, "t"] for n in range(257)]),
    ],
)
def test_hostile_manifests(at: int, value: object) -> None:
    items = unpack(encode_manifest(manifest_of(File("a", 1))), "manifest")
    items[at] = value
    encoded = pack(items)
    with pytest.raises(RemoteError, match="manifest"):
        read_manifest(encoded)
    with pytest.raises(RemoteError, match="manifest"):
        list(Opener().feed(len(encoded).to_bytes(4, "big") + encoded + b"x"))


def test_a_manifest_longer_than_any_is_refused_by_its_length() -> None:
    with pytest.raises(RemoteError, match="manifest has more than 65536 bytes"):
        list(Opener().feed((MANIFEST_SIZE_MAX + 1).to_bytes(4, "big")))


@given(st.lists(st.integers(0, 5), min_size=1, max_size=4), st.data())
def test_a_stream_that_ends_early_or_late(file_sizes: list[int], data: st.DataObject) -> None:
    manifest = named(file_sizes)
    stream = stream_head(manifest) + b"".join(content(*pair) for pair in enumerate(file_sizes))
    size = data.draw(st.integers(0, len(stream) - 1))
    with pytest.raises(RemoteError, match=r"ends within its manifest|ends before its last file"):
        open_all([stream[:size]], len(file_sizes))
    with pytest.raises(RemoteError, match="bytes after its last file"):
        open_all([stream + b"x"], len(file_sizes))
    with pytest.raises(RemoteError, match="bytes after its last file"):
        open_all([stream, b"x"], len(file_sizes))


@given(st.lists(st.binary(max_size=50), max_size=5))
def test_any_stream_is_a_message_or_refused(chunks: list[bytes]) -> None:
    with pytest.raises(RemoteError, match="manifest"):
        open_all(chunks, 1)

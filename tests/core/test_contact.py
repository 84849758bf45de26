"""One contact: who is alive, what may be on its way, and what is told of many journals."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshnode.core.contact import first_ranges, have_frames, stored_frames
from meshnode.core.errors import RemoteError
from meshnode.core.frames import Have, Held, Ping, Pong, Want, Wanted, encode
from meshnode.core.framing import FrameReader
from meshnode.core.identity import JournalId
from meshnode.core.intervals import NONE, Ranges
from meshnode.core.limits import (
    CREDIT_BYTES,
    DEAD_AFTER_S,
    FRAME_SIZE_MAX,
    HANDSHAKE_S,
    JOURNALS_PER_FRAME,
    KIB,
    NUMBER_MAX,
    PAYLOAD_SIZE_MAX,
    PEER_JOURNALS_MAX,
    PEER_RANGES_MAX,
    PING_AFTER_S,
    RANGES_MAX,
    STALL_BYTES,
)
from tests.core.contacts import (
    HELLO,
    PLENTY,
    J,
    contact,
    frame,
    sizes,
    wanting,
)

# --- liveness ---------------------------------------------------------------------------------------------------


def test_nothing_but_hello_comes_first() -> None:
    for early in (Ping(), Have(True, ())):
        with pytest.raises(RemoteError, match="before HELLO"):
            list(contact(greeted=False).feed(encode(early) + encode(HELLO), 0.0))
    assert list(contact(greeted=False).feed(encode(HELLO), 0.0)) == [HELLO]


def test_a_peer_that_says_no_hello_is_not_waited_for() -> None:
    silent = contact(100.0, greeted=False)
    list(silent.feed(b"\0", 99.0 + HANDSHAKE_S))  # bytes are no HELLO
    assert silent.check_alive(99.9 + HANDSHAKE_S) is None
    assert silent.next_look_s() <= 100.0 + HANDSHAKE_S
    assert silent.check_alive(100.0 + HANDSHAKE_S) == "said no HELLO"


def test_silence_is_death_and_any_byte_is_life() -> None:
    peer = contact(100.0)
    assert peer.check_alive(99.9 + DEAD_AFTER_S) is None
    assert peer.check_alive(100.0 + DEAD_AFTER_S) == "silent"
    list(peer.feed(b"\0", 114.0))  # the beginning of a frame that takes its time
    assert peer.check_alive(113.9 + DEAD_AFTER_S) is None
    assert peer.check_alive(114.0 + DEAD_AFTER_S) == "silent"


def test_a_ping_after_own_silence_only() -> None:
    peer = contact(100.0)
    assert not peer.ping_due(99.9 + PING_AFTER_S)
    assert peer.ping_due(100.0 + PING_AFTER_S)
    list(peer.feed(encode(Ping()), 105.0))
    assert peer.ping_due(105.0), "that the peer talks does not mean that it hears us"
    assert frame(peer.ping(105.0)) == Ping()
    assert not peer.ping_due(104.9 + PING_AFTER_S)
    peer.say(Pong(), 109.0)
    assert not peer.ping_due(113.9)
    assert peer.ping_due(114.0)


def test_a_ping_is_said_well_before_the_peer_gives_up() -> None:
    assert 2 * PING_AFTER_S < DEAD_AFTER_S


# --- receiving: credit ------------------------------------------------------------------------------------------


def test_the_first_want_grants_credit_for_as_much_as_there_is_room() -> None:
    for room, granted in ((PLENTY, CREDIT_BYTES), (5000, 5000), (0, 0), (-1, 0)):
        said = frame(contact().want(wanting(contact()), room, 0.0))
        assert said == Want(granted, (Wanted(J, Ranges.span(1, 1000), NONE, False),))


def test_more_than_was_granted_is_the_peers_fault() -> None:
    peer = contact()
    peer.want(wanting(peer), 5000, 0.0)
    peer.arrived(J, 1, 3000, 0.0)
    peer.arrived(J, 2, 2000, 0.0)
    with pytest.raises(RemoteError, match="BUNDLE came without credit"):
        peer.arrived(J, 3, 1, 0.0)


def test_a_bundle_without_any_want_is_the_peers_fault() -> None:
    with pytest.raises(RemoteError, match="BUNDLE came without credit"):
        contact().arrived(J, 1, 1136, 0.0)


def test_nothing_is_said_that_is_not_new() -> None:
    peer = contact()
    assert peer.want([], PLENTY, 0.0) is None, "nothing is wanted"
    assert peer.want(wanting(peer), PLENTY, 0.0) is not None
    assert peer.want([], PLENTY, 0.0) is None, "no new credit"
    peer.arrived(J, 1, 2000, 0.0)
    peer.settled_bytes += 2000
    assert peer.want([], PLENTY, 0.0) is None, "hardly any"


@given(st.lists(st.tuples(sizes, st.integers(0, 3)), max_size=80), st.sampled_from([0, 700 * KIB, PLENTY]))
@settings(max_examples=60)
def test_a_sender_that_obeys_is_never_stuck_and_never_too_much_is_on_its_way(
    arrivals: list[tuple[int, int]], room: int
) -> None:
    """Bundles come as far as credit goes, and are settled some later; each asks anew."""
    peer = contact()
    peer.want(wanting(peer), room or PLENTY, 0.0)
    credit = peer._credit_told
    unsettled: list[int] = []
    for number, (size, settle) in enumerate(arrivals, 1):
        if peer.received_bytes + size <= credit:
            peer.arrived(J, number, size, 0.0)
            unsettled.append(size)
        for _ in range(min(settle, len(unsettled))):
            peer.settled_bytes += unsettled.pop(0)
        if said := peer.want([], room or PLENTY, 0.0):
            want = frame(said)
            assert isinstance(want, Want)
            assert want.credit > credit
            credit = want.credit
        assert credit - peer.settled_bytes <= CREDIT_BYTES
    peer.settled_bytes += sum(unsettled)
    said = peer.want([], PLENTY, 0.0)
    if said is not None:
        credit = frame(said).credit  # type: ignore[union-attr]
    assert credit - peer.received_bytes >= PAYLOAD_SIZE_MAX, "the next bundle may come"


def test_credit_waits_for_room() -> None:
    peer = contact()
    peer.want(wanting(peer), PAYLOAD_SIZE_MAX, 0.0)
    peer.arrived(J, 1, PAYLOAD_SIZE_MAX, 0.0)
    peer.settled_bytes += PAYLOAD_SIZE_MAX
    assert peer.want([], 0, 0.0) is None
    assert frame(peer.want([], 1000, 0.0)) == Want(PAYLOAD_SIZE_MAX + 1000, ())


def test_what_is_owed_shrinks_with_each_arrival() -> None:
    peer = contact()
    peer.want(wanting(peer, Ranges.of([1, 2, 4])), PLENTY, 0.0)
    peer.arrived(J, 2, 2000, 7.0)
    assert peer.wanting == {J: Ranges.of([1, 4])}
    assert peer.wanting_since_s == 7.0
    for number in (4, 1):
        peer.arrived(J, number, 2000, 8.0)
    assert peer.wanting == {}


def test_a_good_piece_counts_as_an_arrival_however_it_comes_and_less_does_not() -> None:
    piece = bytes(STALL_BYTES)
    frame_head = (FRAME_SIZE_MAX).to_bytes(4, "big")
    peer = contact(100.0)
    list(peer.feed((frame_head + piece)[: STALL_BYTES - 1], 105.0))
    assert peer.wanting_since_s == 100.0
    list(peer.feed(piece[:1], 106.0))
    assert peer.wanting_since_s == 106.0
    for at in range(1, 8):
        list(peer.feed(piece[: STALL_BYTES // 8], 106.0 + at))
        assert peer.wanting_since_s == 106.0, "the next piece is counted from nothing"
    list(peer.feed(piece[: STALL_BYTES // 8], 114.0))
    assert peer.wanting_since_s == 114.0


def test_offers_replace_and_add_and_are_bounded() -> None:
    peer = contact()
    peer.note_offer(Held(J, Ranges.span(1, 9), 0))
    peer.note_stored(J, Ranges.span(12, 13), ends=False)
    assert peer.offers == {J: Ranges([(1, 9), (12, 13)])}
    peer.note_offer(Held(J, Ranges.single(5), 0))
    assert peer.offers == {J: Ranges.single(5)}
    peer.note_offer(Held(J, NONE, 0))
    peer.note_stored(J, NONE, ends=False)
    assert peer.offers == {}
    for number in range(PEER_JOURNALS_MAX):
        peer.note_stored(JournalId(number.to_bytes(16, "big")), Ranges.single(1), ends=False)
    with pytest.raises(RemoteError, match="lists more than"):
        peer.note_stored(J, Ranges.single(1), ends=False)


@pytest.mark.slow
def test_the_ranges_of_all_offers_together_are_bounded() -> None:
    peer = contact()
    for _ in range(PEER_RANGES_MAX // RANGES_MAX):  # what is replaced does not count
        peer.note_offer(Held(J, Ranges.single(1), 0))
        peer.note_offer(Held(J, gappy(RANGES_MAX), 0))
        peer.set_offer(J, NONE)
    for journal in journal_ids(PEER_RANGES_MAX // RANGES_MAX):
        peer.note_stored(journal, gappy(PEER_RANGES_MAX), ends=False)
        assert len(peer.offers[journal].pairs) == RANGES_MAX, "no more of one journal than a HAVE could say"
    with pytest.raises(RemoteError, match="lists more than 131072 ranges"):
        peer.note_stored(JournalId(b"x" * 16), Ranges.single(1), ends=False)


# --- frames of several journals ---------------------------------------------------------------------------------


def gappy(pairs: int) -> Ranges:
    """As many ranges, with numbers that take as many bytes as numbers can."""
    return Ranges((NUMBER_MAX - 2 * at, NUMBER_MAX - 2 * at) for at in range(pairs))


def journal_ids(count: int) -> list[JournalId]:
    """As many ids."""
    return [JournalId(number.to_bytes(16, "big")) for number in range(count)]


@given(
    st.lists(st.sampled_from([0, 1, 2, 500, RANGES_MAX - 1, RANGES_MAX, RANGES_MAX + 5]), max_size=8),
    st.booleans(),
)
@settings(max_examples=30)
def test_have_frames_name_every_journal_and_fit(pairs: list[int], whole: bool) -> None:
    rows = [Held(j, gappy(n), 2**62) for j, n in zip(journal_ids(len(pairs)), pairs, strict=True)]
    frames = list(have_frames(rows, whole=whole))
    assert all(len(encode(said)) <= 4 + FRAME_SIZE_MAX for said in frames)
    said = [held for have in frames for held in have.journals]
    assert said == [Held(held.journal, first_ranges(held.ranges), held.serial) for held in rows]
    assert [have.whole for have in frames[:-1]] == [False] * (len(frames) - 1)
    assert bool(frames) == (whole or bool(rows))
    assert not frames or frames[-1].whole == whole


def test_have_frames_of_many_journals() -> None:
    rows = [Held(j, Ranges.span(1, 9), 1 << 16) for j in journal_ids(2 * JOURNALS_PER_FRAME + 1)]
    frames = list(have_frames(rows, whole=True))
    assert [len(have.journals) for have in frames] == [JOURNALS_PER_FRAME, JOURNALS_PER_FRAME, 1]
    assert [have.whole for have in frames] == [False, False, True]
    assert list(FrameReader().feed(b"".join(encode(have) for have in frames))) == frames


@given(st.lists(st.sampled_from([1, 2, RANGES_MAX, 2 * RANGES_MAX + 5]), max_size=12))
@settings(max_examples=20)
def test_stored_frames_say_everything_and_fit(pairs: list[int]) -> None:
    rows = [(j, gappy(n), n > 1) for j, n in zip(journal_ids(len(pairs)), pairs, strict=True)]
    frames = list(stored_frames(rows))
    said: dict[JournalId, Ranges] = {}
    assert list(FrameReader().feed(b"".join(encode(stored) for stored in frames))) == frames
    for stored in frames:
        for journal, ranges, ends in stored.journals:
            said[journal] = said.get(journal, NONE) | ranges
            assert (journal, ends) in {(row[0], row[2]) for row in rows}
    assert said == {journal: ranges for journal, ranges, _ in rows}


def test_first_ranges() -> None:
    assert first_ranges(gappy(5)) == gappy(5)
    assert first_ranges(gappy(RANGES_MAX + 1)).pairs == gappy(RANGES_MAX + 1).pairs[:RANGES_MAX]

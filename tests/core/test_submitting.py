"""How this device writes its journals: numbers, chains of journals, and submissions that come to nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshnode.core.bundle import MILLISECONDS_MAX, ROUTINE, URGENT, Previous, journal_id, read_header
from meshnode.core.errors import BadSubmission, NoOffice, NoRoom, StoreTrouble
from meshnode.core.intervals import NONE, Ranges
from meshnode.core.limits import GIB, LIFETIME_S, LIFETIME_S_MAX, MESSAGE_SIZE_MAX, MIB, PARTS_MAX
from meshnode.core.message import parts_for
from meshnode.core.ports import (
    Accepted,
    Instant,
    Refused,
    SubmissionAborted,
    SubmissionChunk,
    SubmissionOpened,
)
from meshnode.core.rows import DropBundles, JournalRecord, PutBundle, PutMessage, Snapshot
from meshnode.core.sealing import CHUNK_SIZE, SEAL_OVERHEAD, SealingKey
from meshnode.core.submitting import Submitting, message_key, needed_bytes, office_sealer, remains
from tests.core.fleets import Fleet, StandIn, seed
from tests.core.hosts import Host

FLEET = Fleet()
EPOCH = b"epoch--1"
NOW = Instant(100.0, 1_700_000_000_000)
JOURNAL = journal_id(FLEET.device("siti"), FLEET.endpoint, EPOCH)


def submitting(snapshot: Snapshot | None = None, epoch: bytes = EPOCH) -> Submitting:
    """What writes siti's journals, with a stand-in that does not seal."""
    return Submitting(FLEET.key("siti"), epoch, snapshot or Snapshot(), lambda _: StandIn())


def opened(size: int, submission: int = 1, **changes: object) -> SubmissionOpened:
    """A submission of that size."""
    event = SubmissionOpened(submission, size, size, ROUTINE, b"label")
    return replace(event, **changes)  # type: ignore[arg-type]


def begin(sub: Submitting, event: SubmissionOpened, free_bytes: int = GIB, floor_bytes: int = 0) -> None:
    """Open a submission."""
    sub.open(event, FLEET.document, free_bytes, floor_bytes, NOW)


def take(sub: Submitting, data: bytes, submission: int = 1) -> tuple[list[PutBundle], PutMessage]:
    """Take a whole message."""
    begin(sub, opened(len(data), submission))
    bundles: list[PutBundle] = []
    for at in range(0, len(data), CHUNK_SIZE):
        rows, final = sub.chunk(submission, data[at : at + CHUNK_SIZE], NOW)
        assert final == (at + CHUNK_SIZE >= len(data))
        bundles += [row for row in rows if isinstance(row, PutBundle)]
    message = rows[-1]
    assert isinstance(message, PutMessage)
    sub.finish(submission)
    return bundles, message


# --- numbers ----------------------------------------------------------------------------------------------------


def test_messages_are_numbered_one_after_another() -> None:
    sub = submitting()
    spans = []
    for number, size in enumerate((5, 2 * CHUNK_SIZE + 1, CHUNK_SIZE), 1):
        bundles, message = take(sub, bytes(size), number)
        spans.append((message.first, message.last))
        assert [row.bundle.header.number for row in bundles] == list(range(message.first, message.last + 1))
        assert [row.bundle.header.part for row in bundles] == list(range(1, len(bundles) + 1))
        assert {row.bundle.header.parts for row in bundles} == {parts_for(size)}
        assert {row.journal for row in bundles} == {message.journal} == {JOURNAL}
    assert spans == [(1, 1), (2, 4), (5, 5)]


def test_what_a_bundle_says() -> None:
    (row,), message = take(submitting(), b"record")
    row.bundle.verify(FLEET.certificate("siti").key)
    header = row.bundle.header
    assert read_header(row.bundle.header_bytes) == header
    assert header.destination == FLEET.endpoint
    assert header.recipient_key == StandIn.key_id
    assert (header.created_ms, header.lifetime_s) == (NOW.wall_ms, LIFETIME_S)
    assert StandIn().open(row.bundle.payload, header.info) == b"record"
    assert (row.born_s, row.arrived_ms) == (NOW.s, NOW.wall_ms)
    assert message == PutMessage(JOURNAL, 1, 1, 6, NOW.wall_ms, b"label")


def test_sealed_for_the_office_at_once() -> None:
    sub = Submitting(FLEET.key("siti"), EPOCH, Snapshot(), office_sealer)
    (row,), _ = take(sub, b"record")
    header = row.bundle.header
    assert header.recipient_key == FLEET.sealing.public.key_id
    assert FLEET.sealing.open(row.bundle.payload, header.info) == b"record"
    assert b"record" not in row.bundle.payload


@pytest.mark.parametrize("priority", [URGENT, ROUTINE])
def test_what_the_program_chooses(priority: int) -> None:
    sub = submitting()
    begin(sub, opened(4, priority=priority, lifetime_s=77, submitted_ms=1234))
    (row, _), _ = sub.chunk(1, b"data", NOW)
    assert isinstance(row, PutBundle)
    header = row.bundle.header
    assert (header.priority, header.lifetime_s, header.created_ms) == (priority, 77, 1234)


@pytest.mark.parametrize("wall_ms", [-5, 2**60])
def test_an_impossible_clock_makes_a_possible_header(wall_ms: int) -> None:
    sub = submitting()
    sub.open(opened(4), FLEET.document, GIB, 0, Instant(0.0, wall_ms))
    (row, _), _ = sub.chunk(1, b"data", Instant(0.0, wall_ms))
    assert isinstance(row, PutBundle)
    assert 0 <= read_header(row.bundle.header_bytes).created_ms <= MILLISECONDS_MAX


def test_a_new_journal_names_the_one_before() -> None:
    messages = [PutMessage(JOURNAL, 1, 3, 1, 0, b""), PutMessage(JOURNAL, 4, 9, 1, 0, b"")]
    record = JournalRecord(JOURNAL, FLEET.device("siti"), FLEET.endpoint, EPOCH)
    sub = submitting(Snapshot(journals=[record], messages=messages), b"epoch--2")
    first, _ = take(sub, bytes(CHUNK_SIZE + 1))
    second, _ = take(sub, b"x", 2)
    assert [row.bundle.header.previous for row in first] == [Previous(JOURNAL, 9), None]
    assert second[0].bundle.header.previous is None
    assert first[0].journal != JOURNAL


def test_the_first_journal_names_none() -> None:
    assert take(submitting(), b"x")[0][0].bundle.header.previous is None


def test_key() -> None:
    assert message_key(JOURNAL, 7) == f"{JOURNAL.hex()}:7"


# --- refusals ---------------------------------------------------------------------------------------------------


def test_without_an_office_there_is_nowhere_to_send() -> None:
    with pytest.raises(NoOffice):
        submitting().open(opened(4), replace(FLEET.document, endpoints=()), GIB, 0, NOW)


@given(st.integers(1, MESSAGE_SIZE_MAX), st.integers(0, GIB))
def test_what_does_not_fit_is_refused_before_anything_is_taken(size: int, floor: int) -> None:
    needed = needed_bytes(size + parts_for(size) * SEAL_OVERHEAD)
    assert needed > size + parts_for(size) * SEAL_OVERHEAD
    sub = submitting()
    with pytest.raises(NoRoom, match=f"needs {needed} bytes and {needed - 1} are free"):
        begin(sub, opened(size), needed + floor - 1, floor)
    begin(sub, opened(size), needed + floor, floor)


@pytest.mark.parametrize(
    "event",
    [
        opened(0),
        opened(PARTS_MAX * CHUNK_SIZE + 1),
        opened(4, lifetime_s=-1),
        opened(4, lifetime_s=LIFETIME_S_MAX + 1),
        opened(4, priority=2),
        opened(4, priority=-1),
    ],
)
def test_what_no_peer_would_take_is_refused(event: SubmissionOpened) -> None:
    sub = submitting()
    with pytest.raises(BadSubmission, match="cannot be"):
        begin(sub, event, 1 << 50)
    begin(sub, opened(4))


def test_one_at_a_time() -> None:
    sub = submitting()
    begin(sub, opened(4))
    with pytest.raises(BadSubmission, match="another message"):
        begin(sub, opened(4, 2))
    assert sub.is_open(1)
    assert not sub.is_open(2)


@pytest.mark.parametrize("chunk", [b"", b"abc", b"abcde", bytes(CHUNK_SIZE)])
def test_a_chunk_that_is_not_as_long_as_announced(chunk: bytes) -> None:
    sub = submitting()
    begin(sub, opened(4))
    with pytest.raises(BadSubmission, match="not as long as it said"):
        sub.chunk(1, chunk, NOW)


def test_a_chunk_of_nothing() -> None:
    sub = submitting()
    with pytest.raises(BadSubmission, match="not being taken"):
        sub.chunk(1, b"data", NOW)
    begin(sub, opened(4))
    with pytest.raises(BadSubmission, match="not being taken"):
        sub.chunk(2, b"data", NOW)
    with pytest.raises(BadSubmission, match="not being taken"):
        sub.finish(2)


def test_numbers_of_what_was_given_up_are_used_again() -> None:
    sub = submitting()
    take(sub, b"first")
    begin(sub, opened(3 * CHUNK_SIZE, 2))
    for _ in range(2):
        sub.chunk(2, bytes(CHUNK_SIZE), NOW)
    assert sub.abort(99) is None
    assert sub.abort(2) == DropBundles(JOURNAL, Ranges.span(2, 3))
    assert sub.abort(2) is None
    _, message = take(sub, b"again", 3)
    assert (message.first, message.last) == (2, 2)


def test_nothing_to_remove_of_what_had_not_begun() -> None:
    sub = submitting()
    begin(sub, opened(4))
    assert sub.abort(1) == DropBundles(JOURNAL, NONE)


def test_remains() -> None:
    """What a crash left at the end of an own journal; others' bundles are whole in themselves."""
    host = Host(FLEET)
    host.submit(b"whole")
    host.settle()
    host.submit(bytes(2 * CHUNK_SIZE + 1))
    host.commit(2)
    snapshot = host.store.load()
    assert remains(snapshot) == [DropBundles(host.own_journal, Ranges.span(2, 3))]
    (record,) = snapshot.journals
    assert list(record.entries) == [1]
    assert remains(snapshot) == []


# --- taken by a node --------------------------------------------------------------------------------------------

BIG = bytes(2 * CHUNK_SIZE + 7)


def parts_of(host: Host, data: bytes) -> None:
    """Open submission 1 and hand in its chunks."""
    host.handle(opened(len(data)))
    for at in range(0, len(data), CHUNK_SIZE):
        host.handle(SubmissionChunk(1, data[at : at + CHUNK_SIZE]))


def answers(host: Host) -> tuple[list[int], list[int]]:
    """The submissions that were accepted, and refused."""
    return sorted(host.accepted), sorted(host.refused)


def test_accepted_only_when_it_is_durable() -> None:
    host = Host(FLEET)
    host.submit(b"record")
    assert answers(host) == ([], [])
    assert host.journal(host.own_journal).held == NONE
    host.commit()
    assert host.accepted[1] == Accepted(1, f"{host.own_journal.hex()}:1", 1)
    assert host.journal(host.own_journal).held == Ranges.single(1)
    assert [state.message.first for state in host.node.state.custody.states()] == [1]


def test_the_last_part_waits_until_all_others_are_durable() -> None:
    """So that a message is never in the store without all of its bundles."""
    host = Host(FLEET)
    parts_of(host, BIG)
    while host.pending:
        assert not host.accepted
        assert host.store.load().messages == []
        host.commit(1)
    assert host.accepted[1].bundles == 3
    assert host.stored(host.own_journal) == Ranges.span(1, 3)


@pytest.mark.parametrize("written", range(4))
def test_a_crash_leaves_a_whole_message_or_nothing(written: int) -> None:
    host = Host(FLEET)
    parts_of(host, BIG)
    journal = host.own_journal
    for _ in range(written):
        host.commit(1)
    whole = bool(host.accepted)
    host.restart()
    host.settle()
    expected = Ranges.span(1, 3) if whole else NONE
    assert host.stored(journal) == host.journal(journal).held == expected
    assert len(host.store.load().messages) == whole
    host.submit(b"next")
    host.settle()
    header = read_header(host.store.read(host.own_journal, 1).header)  # type: ignore[union-attr]
    assert header.previous == (Previous(journal, 3) if whole else None)


@pytest.mark.parametrize("failing", range(3))
@pytest.mark.parametrize("rest", ["fails", "is written"])
def test_a_disk_that_refuses_a_part(failing: int, rest: str) -> None:
    """Refused, nothing kept, and the numbers are used again, whatever becomes of the parts behind it."""
    host = Host(FLEET)
    parts_of(host, BIG)
    for _ in range(failing):
        host.commit(1)
    host.fail(1)
    assert isinstance(host.refused[1], StoreTrouble)
    if rest == "fails":
        host.fail(max(0, len(host.pending) - 1))
    host.settle()
    assert answers(host) == ([], [1])
    assert host.stored(host.own_journal) == host.journal(host.own_journal).held == NONE
    assert host.store.load().messages == []
    host.handle(opened(4, 2))
    host.handle(SubmissionChunk(2, b"next"))
    host.settle()
    assert host.accepted[2].key == f"{host.own_journal.hex()}:1"
    assert host.store.read(host.own_journal, 1).payload[:4] == b"next"  # type: ignore[union-attr]


@pytest.mark.parametrize("chunks", [0, 1, 2])
@pytest.mark.parametrize("written", [0, 1, 2])
def test_a_program_that_goes_away_leaves_nothing(chunks: int, written: int) -> None:
    host = Host(FLEET)
    host.handle(opened(len(BIG)))
    for _ in range(chunks):
        host.handle(SubmissionChunk(1, bytes(CHUNK_SIZE)))
    for _ in range(written):
        host.commit(1)
    host.handle(SubmissionAborted(1))
    host.settle()
    host.handle(SubmissionAborted(1))
    assert answers(host) == ([], [])
    assert host.stored(host.own_journal) == NONE
    assert host.store.load().messages == []
    host.handle(opened(4, 2))
    host.handle(SubmissionChunk(2, b"next"))
    host.settle()
    assert host.accepted[2].key == f"{host.own_journal.hex()}:1"


def test_what_the_disk_would_not_remove_is_removed_later_unless_the_number_is_in_use_again() -> None:
    host = Host(FLEET)
    host.handle(opened(len(BIG)))
    for _ in range(2):
        host.handle(SubmissionChunk(1, bytes(CHUNK_SIZE)))
    host.settle()
    host.handle(SubmissionAborted(1))
    host.fail()
    assert host.stored(host.own_journal) == Ranges.span(1, 2)
    host.handle(opened(4, 2))
    host.handle(host.space)
    host.handle(SubmissionChunk(2, b"next"))
    host.settle()
    assert list(host.accepted) == [2]
    host.handle(host.space)
    host.settle()
    assert host.stored(host.own_journal) == host.journal(host.own_journal).held == Ranges.single(1)
    assert host.store.read(host.own_journal, 1).payload[:4] == b"next"  # type: ignore[union-attr]


def test_a_program_that_goes_away_before_the_last_part_is_on_its_way() -> None:
    host = Host(FLEET)
    parts_of(host, BIG)
    host.handle(SubmissionAborted(1))
    host.settle()
    assert answers(host) == ([], [])
    assert host.stored(host.own_journal) == NONE
    assert host.store.load().messages == []


def test_a_program_that_goes_away_too_late_has_submitted() -> None:
    host = Host(FLEET)
    parts_of(host, b"data")
    host.handle(SubmissionAborted(1))
    host.settle()
    assert answers(host) == ([1], [])
    assert host.stored(host.own_journal) == Ranges.single(1)


def test_a_program_that_says_more_than_it_announced() -> None:
    host = Host(FLEET)
    parts_of(host, b"data")
    host.handle(SubmissionChunk(1, b"more"))
    host.settle()
    assert answers(host) == ([1], [])
    host.handle(SubmissionChunk(1, b"more"))
    assert isinstance(host.refused[1], BadSubmission)
    host.settle()
    assert host.stored(host.own_journal) == Ranges.single(1), "what is taken stays taken"


def test_a_wrong_chunk_is_refused_and_the_next_program_is_served() -> None:
    host = Host(FLEET)
    host.handle(opened(4))
    effects = host.handle(SubmissionChunk(1, b"too long"))
    assert isinstance(effects[0], Refused)
    host.handle(opened(4, 2))
    host.handle(SubmissionChunk(2, b"fine"))
    host.settle()
    assert answers(host) == ([2], [1])


def test_a_second_program_at_once_is_refused_and_the_first_is_served() -> None:
    host = Host(FLEET)
    host.handle(opened(4))
    host.handle(opened(4, 2))
    host.handle(SubmissionChunk(2, b"late"))
    host.handle(SubmissionChunk(1, b"fine"))
    host.settle()
    assert answers(host) == ([1], [2])


def test_no_space_known_no_message_taken() -> None:
    host = Host(FLEET, free_bytes=10 * MIB, floor_bytes=10 * MIB - 1000)
    host.submit(b"record")
    assert isinstance(host.refused[1], NoRoom)
    assert host.pending == []


deeds = st.lists(
    st.tuples(st.sampled_from(["small", "big", "commit", "fail", "abort", "crash"]), st.integers(1, 3)),
    max_size=25,
)


@given(deeds)
@settings(max_examples=80)
def test_whatever_happens_accepted_is_kept_and_nothing_else(some: list[tuple[str, int]]) -> None:
    """Whole messages only, each accepted one, in one chain of journals without reused numbers."""
    host = Host(FLEET)
    accepted: list[tuple[str, int]] = []
    submission = 0
    taking = 0

    def note() -> None:
        nonlocal taking
        accepted.extend((answer.key, answer.bundles) for answer in host.accepted.values())
        if taking in host.accepted or taking in host.refused:
            taking = 0
        host.accepted.clear()
        host.refused.clear()

    for deed, count in some:
        match deed:
            case "small" | "big" if not taking:
                submission += 1
                taking = submission
                data = (b"s" if deed == "small" else b"b" * (CHUNK_SIZE + 1)) + bytes(submission)
                host.handle(opened(len(data), submission))
                for at in range(0, len(data), CHUNK_SIZE):
                    host.handle(SubmissionChunk(submission, data[at : at + CHUNK_SIZE]))
            case "commit":
                host.commit(count)
            case "fail":
                host.fail(count)
            case "abort" if taking:
                host.handle(SubmissionAborted(taking))
                taking = taking if host.node._taking._submitting.is_open(taking) else 0
            case "crash":
                host.restart()
                taking = 0
        note()
    host.settle()
    note()
    host.restart()
    host.settle()
    snapshot = host.store.load()
    kept = [(message_key(m.journal, m.first), m.last - m.first + 1) for m in snapshot.messages]
    assert set(accepted) <= set(kept), "lost what was accepted"
    assert len(set(kept)) == len(kept)
    for record in snapshot.journals:
        spans = [Ranges.span(m.first, m.last) for m in snapshot.messages if m.journal == record.id]
        assert Ranges.of(record.entries) == Ranges(pair for span in spans for pair in span.pairs)
        assert sum(map(len, spans)) == len(record.entries), "numbers are used once"
        assert Ranges.of(record.entries).pairs in ((), ((1, len(record.entries)),)), "and without gaps"
    before: tuple[bytes, int] | None = None
    for message in snapshot.messages:
        if message.first == 1:
            stored = host.store.read(message.journal, 1)
            assert stored is not None
            previous = read_header(stored.header).previous
            assert (previous and (previous.journal, previous.last)) == before
        before = (message.journal, message.last)


def test_the_real_thing_takes_as_many_bytes_as_the_stand_in() -> None:
    key = SealingKey(seed("sealing")).public
    assert len(key.seal(b"x" * 99, b"i")) == len(StandIn().seal(b"x" * 99, b"i"))


def test_a_later_part_that_the_disk_takes_alone_is_no_message() -> None:
    """The first part's write failed, the second one's did not, and then the power went off."""
    host = Host(FLEET)
    host.submit(bytes(2 * CHUNK_SIZE + 1))
    host.fail(1)
    host.commit(1)
    host.restart()
    host.settle()
    assert not any(record.entries for record in host.store.load().journals)

"""What a program is told when the disk fails while it is still sending."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import pytest

from meshnode.app.submissions import Dispatch, Submissions
from meshnode.core.errors import BadSubmission, StoreTrouble
from meshnode.core.limits import MIB
from meshnode.core.message import File, Manifest
from meshnode.core.ports import Refused, SubmissionAborted, SubmissionChunk, SubmissionOpened
from meshnode.drivers.writer import Writer

TROUBLE = StoreTrouble(path=Path("store.db"), problem="database or disk is full")


class BusyWriter:
    """Says while there is no room that the disk has failed."""

    async def room(self) -> None:
        submissions.answer(Refused(1, TROUBLE))


chunks: list[SubmissionChunk] = []


def dispatch(event: SubmissionOpened | SubmissionChunk | SubmissionAborted) -> None:
    """As the brain: what comes after the refusal is refused too, for that reason."""
    assert not isinstance(event, SubmissionAborted)
    if isinstance(event, SubmissionChunk):
        chunks.append(event)
        submissions.answer(Refused(1, BadSubmission(problem="it is not being taken (any more)")))


submissions = Submissions(cast(Dispatch, dispatch), cast(Writer, BusyWriter()))


async def test_the_first_refusal_is_the_one_that_is_told() -> None:
    async def body() -> AsyncIterator[bytes]:
        yield bytes(4 * MIB)

    manifest = Manifest(kind="", meta=(), reference="", submitted_ms=1, files=(File("a", 4 * MIB, ""),))
    with pytest.raises(StoreTrouble):
        await submissions.take(manifest, 1, b"", body())
    assert chunks == []

"""What is kept of an error, and what of it is not."""

from __future__ import annotations

from meshnode.core.errors import FileTrouble, LocalError, RemoteError, bare
from meshnode.core.words import Clause, say


def test_an_error_that_is_kept_holds_nothing_that_was_being_worked_on() -> None:
    def work(payload: bytes) -> None:
        try:
            raise RemoteError("payload", "does not open")
        except RemoteError as problem:
            raise FileTrouble(path="x", problem=say("{why}", why=Clause(problem))) from problem

    try:
        work(b"secret" * 1000)
    except LocalError as problem:
        kept = bare(problem)
    inner = kept.fields["problem"].fields["why"].sentence  # type: ignore[attr-defined]
    for error in (kept, inner):
        assert (error.__traceback__, error.__cause__, error.__context__) == (None, None, None)
    assert str(kept) == "x payload does not open."

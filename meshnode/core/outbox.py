"""What to do with what lies in a hot folder: pure decisions, from look to look.

Software that knows nothing of meshnode puts files there, and nobody tells when one is finished. So an entry is taken
when it looked the same for SETTLE_S, a folder for FOLDER_SETTLE_S. A name that says that it is not finished (`.x`,
`x.part`) is waited for; whoever writes so and renames at the end is never misunderstood.

`x.jpg.json` describes `x.jpg` and is taken with it. It may come first, so alone it is waited for. A name without a dot,
`x`, cannot be described in this way, since `x.json` may well be a form.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from meshnode.core.words import Words, say

#: A file is finished when it has not changed for so long.
SETTLE_S: Final = 2.0
#: A folder: between two files of it there may be a pause.
FOLDER_SETTLE_S: Final = 5.0
#: What is unfinished, and does not change for so long, is said to be so.
GIVEN_UP_S: Final = 600.0
#: What could not be taken for now is tried again after so long.
AGAIN_S: Final = 30.0

TAKEN: Final = ".taken"
REFUSED: Final = ".refused"
SIDECAR: Final = ".json"
_UNFINISHED: Final = (".part", ".partial", ".tmp", ".temp", ".crdownload", ".filepart", ".swp", "~")
#: What systems leave in folders.
_LITTER: Final = frozenset({".ds_store", ".directory", "thumbs.db", "desktop.ini", ".localized"})


def is_litter(name: str) -> bool:
    """Whether a system has left this, and nobody misses it."""
    return name.lower() in _LITTER or name.startswith("._")


def is_unfinished(name: str) -> bool:
    """Whether the name says that somebody still writes it."""
    return name.startswith(".") or name.lower().endswith(_UNFINISHED)


def is_of_no_concern(name: str) -> bool:
    """Whether an entry of a hot folder is none that is to be taken: an answer, litter, or not finished."""
    return is_unfinished(name) or is_litter(name) or name.endswith((TAKEN, REFUSED))


def described_by(name: str) -> str | None:
    """Which entry a file of this name describes: `x.jpg` for `x.jpg.json`; None if it stands for itself."""
    if not name.endswith(SIDECAR):
        return None
    stem = name.removesuffix(SIDECAR)
    return stem if "." in stem[1:] else None


def description_of(name: str, names: Container[str]) -> str | None:
    """Which of these names describes the entry `name`, if there is one."""
    beside = name + SIDECAR
    return beside if beside in names and described_by(beside) == name else None


@dataclass(frozen=True, slots=True)
class Seen:
    """One entry at one look. `looks` is equal as long as nothing changes of it or of what describes it. `unfinished`:
    why this folder is not ready; `bad`: why it can never be taken; `at`: when it was changed, to sort by."""

    looks: str
    is_folder: bool = False
    unfinished: Words | None = None
    bad: Words | None = None
    at: int = 0


@dataclass(frozen=True, slots=True)
class Take:
    """Take this entry, with the one beside it that describes it, if there is one."""

    name: str
    looks: str
    beside: str | None = None


@dataclass(frozen=True, slots=True)
class Refuse:
    """Say that this entry cannot be taken, and why: a code for programs, and words."""

    name: str
    looks: str
    code: str
    why: Words


class Patience:
    """Remembers since when each entry has looked as it does. Times are seconds that never go back."""

    def __init__(self) -> None:
        self._since: dict[str, tuple[str, float]] = {}
        self._not_before: dict[str, float] = {}

    def put_off(self, name: str, now_s: float) -> None:
        """It could not be taken now, for a reason that will pass."""
        self._not_before[name] = now_s + AGAIN_S

    def changed(self, name: str) -> None:
        """It is being written to: wait until it settles again."""
        self._since.pop(name, None)

    def decide(
        self, seen: Mapping[str, Seen], refused: Mapping[str, str], now_s: float
    ) -> list[Take | Refuse]:
        """What to do now, the oldest first. `refused`: how entries looked that were refused; they are left alone as
        long as they look so."""
        since, not_before = self._since, self._not_before
        self._since = {name: since[name] for name in since if name in seen}
        self._not_before = {name: not_before[name] for name in not_before if not_before[name] > now_s}
        for name, entry in seen.items():
            if name not in self._since or self._since[name][0] != entry.looks:
                self._since[name] = entry.looks, now_s
                self._not_before.pop(name, None)
        order = sorted(seen, key=lambda name: (seen[name].at, name))
        waiting = [name for name in order if refused.get(name) != seen[name].looks]
        return [what for name in waiting for what in self._decide(name, seen, now_s)]

    def _decide(self, name: str, seen: Mapping[str, Seen], now_s: float) -> Iterator[Take | Refuse]:
        entry = seen[name]
        since_s = now_s - self._since[name][1]
        if name in self._not_before or since_s < (FOLDER_SETTLE_S if entry.is_folder else SETTLE_S):
            return
        described = described_by(name)
        if entry.bad is not None:
            yield Refuse(name, entry.looks, "not-a-file", entry.bad)
        elif entry.unfinished is not None:
            if since_s >= GIVEN_UP_S:
                yield Refuse(name, entry.looks, "unfinished", entry.unfinished)
        elif described is None:
            yield Take(name, entry.looks, description_of(name, seen))
        elif described not in seen and since_s >= GIVEN_UP_S:
            why = say("it describes {file}, which is not here: put that beside it", file=described)
            yield Refuse(name, entry.looks, "alone", why)


def is_calm(seen: Mapping[str, Seen], refused: Mapping[str, str]) -> bool:
    """Whether nothing here waits for anything: all of it was refused, or describes what was."""
    return all(
        refused.get(name) == entry.looks or (not entry.is_folder and described_by(name) in refused)
        for name, entry in seen.items()
    )

"""What became of a torture: the figures, and the line of a table that says them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

#: Says one line while it goes on.
Say = Callable[[str], None]

HEADINGS = ("fault", "rounds", "messages", "losses", "duplicates", "worst recovery")


@dataclass
class Outcome:
    """`losses`: acknowledged messages that are not at the office whole; `duplicates`: those that are there twice;
    `troubles`: whatever else must not be, as a traceback; `recovery_s`: the longest time from the end of a fault until
    a message submitted after it was at the office."""

    fault: str
    rounds: int = 0
    messages: int = 0
    losses: list[str] = field(default_factory=list)
    duplicates: list[str] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)
    recovery_s: float = 0.0

    @property
    def is_good(self) -> bool:
        """Whether nothing was lost, doubled or otherwise wrong."""
        return not (self.losses or self.duplicates or self.troubles)

    def line(self) -> str:
        """One row of the table."""
        figures = (self.rounds, self.messages, len(self.losses), len(self.duplicates))
        cells = [self.fault, *map(str, figures), f"{self.recovery_s:.1f} s"]
        return " | ".join(cell.rjust(len(head)) for cell, head in zip(cells, HEADINGS, strict=True))

    def check(self) -> None:
        """Raises AssertionError with all that was wrong."""
        wrong = [
            *(f"lost: {text}" for text in self.losses),
            *(f"twice: {text}" for text in self.duplicates),
            *self.troubles,
        ]
        assert not wrong, "\n".join(wrong)

"""A plan: who meets whom and when, what is recorded where, and which nodes are ways out. Two CSV files, read strictly.

    contacts    start_s,end_s,node_a,node_b[,rate_bytes_per_s]    one contact a row: a half-duplex channel of its rate
    workload    t_s,source,size_bytes                             one message a row

Columns may stand in any order and rows too; times are seconds from the start of the plan. A mistake is a `BadPlan` that
names the file, the line and what is wrong, since a plan that is quietly read otherwise than it was meant misleads.

Rows of one pair that overlap are one contact, whose rate is at each moment the sum of theirs: two nodes keep only one
contact with each other, and would let the rest of the capacity go unused. Rows that only touch stay two contacts, so
what is on the air between them is cut, as at any end.
"""

from __future__ import annotations

import csv
import io
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, TypeVar

from meshnode.core.errors import BadName, FileTrouble, LocalError
from meshnode.core.identity import check_device_name
from meshnode.core.limits import MESSAGE_SIZE_MAX
from meshnode.core.words import Clause, say

#: Of contacts whose row names none: what two phones in the open reach.
RATE_BYTES_PER_S: Final = 1_000_000

_CONTACTS: Final = ("start_s", "end_s", "node_a", "node_b")
_RATE: Final = "rate_bytes_per_s"
_WORKLOAD: Final = ("t_s", "source", "size_bytes")
_SHOWN_MAX: Final = 40

T = TypeVar("T")


class BadPlan(LocalError):
    """{path}, line {line}: {problem}."""


class UnknownGateways(LocalError):
    """None of the gateways ({names}) occurs in the plan: --gateways takes names of nodes in {path}, with commas."""

    exit_code = 2


@dataclass(frozen=True, slots=True, order=True)
class PlannedContact:
    """One row of the contacts."""

    start_s: float
    end_s: float
    left: str
    right: str
    rate_bytes_per_s: float


@dataclass(frozen=True, slots=True)
class PlannedMessage:
    """One row of the workload."""

    at_s: float
    source: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Stretch:
    """Two nodes in range without a break until `end_s`: `rates` are (from when, bytes a second), ascending."""

    left: str
    right: str
    rates: tuple[tuple[float, float], ...]
    end_s: float

    @property
    def start_s(self) -> float:
        """When they meet."""
        return self.rates[0][0]


@dataclass(frozen=True, slots=True)
class Plan:
    """Contacts and messages in order of time; gateways that occur in them and those that do not, since nobody passes
    there, ascending."""

    contacts: tuple[PlannedContact, ...]
    messages: tuple[PlannedMessage, ...]
    gateways: tuple[str, ...]
    gateways_unvisited: tuple[str, ...] = ()

    @property
    def nodes(self) -> list[str]:
        """All names, ascending."""
        ends = {name for contact in self.contacts for name in (contact.left, contact.right)}
        return sorted(ends | {message.source for message in self.messages})

    @property
    def end_s(self) -> float:
        """When the last contact ends."""
        return max(contact.end_s for contact in self.contacts)

    def stretches(self, until_s: float | None = None) -> list[Stretch]:
        """The contacts as the nodes have them, in order of time: of one pair, those that overlap as one. Only what
        begins before `until_s`."""
        pairs: defaultdict[tuple[str, str], list[PlannedContact]] = defaultdict(list)
        for contact in self.contacts:
            left, right = sorted((contact.left, contact.right))
            if contact.start_s < (contact.end_s if until_s is None else min(contact.end_s, until_s)):
                pairs[left, right].append(contact)
        found = [_join(pair, group) for pair, rows in pairs.items() for group in _overlapping(rows)]
        return sorted(
            found, key=lambda stretch: (stretch.start_s, stretch.end_s, stretch.left, stretch.right)
        )


def _overlapping(rows: list[PlannedContact]) -> Iterator[list[PlannedContact]]:
    """Cut ascending rows of one pair where nobody is in range."""
    group: list[PlannedContact] = []
    end_s = -math.inf
    for row in rows:
        if group and row.start_s >= end_s:
            yield group
            group = []
        group.append(row)
        end_s = max(end_s, row.end_s)
    yield group


def _join(pair: tuple[str, str], group: list[PlannedContact]) -> Stretch:
    moments = sorted({moment for row in group for moment in (row.start_s, row.end_s)})
    rates = tuple(
        (moment, math.fsum(row.rate_bytes_per_s for row in group if row.start_s <= moment < row.end_s))
        for moment in moments[:-1]
    )
    return Stretch(*pair, rates, moments[-1])


# --- reading ----------------------------------------------------------------------------------------------------


class _Wrong(Exception):
    """What is wrong with a row."""


def read_plan(contacts: Path, workload: Path, gateways: Iterable[str]) -> Plan:
    """The plan of two files. Raises BadPlan, FileTrouble (a file that cannot be read) or UnknownGateways."""
    plan = Plan(
        contacts=tuple(sorted(_read(contacts, _CONTACTS, (_RATE,), _contact))),
        messages=tuple(sorted(_read(workload, _WORKLOAD, (), _message), key=lambda message: message.at_s)),
        gateways=(),
    )
    names, known = set(gateways), set(plan.nodes)
    if not names & known:
        raise UnknownGateways(names=_shown(", ".join(sorted(names))), path=contacts)
    return replace(
        plan, gateways=tuple(sorted(names & known)), gateways_unvisited=tuple(sorted(names - known))
    )


def _read(
    path: Path, needed: tuple[str, ...], optional: tuple[str, ...], make: Callable[[dict[str, str]], T]
) -> list[T]:
    lines = csv.reader(io.StringIO(_text(path), newline=""), strict=True)
    made: list[T] = []
    names: list[str] | None = None
    try:
        for line in lines:
            if not line:
                continue
            cells = [cell.strip() for cell in line]
            if names is None:
                names = _header(cells, needed, optional)
            elif len(cells) != len(names):
                raise _Wrong(
                    say(
                        "it has {cells} cells, and the first line names {columns} columns",
                        cells=len(cells),
                        columns=len(names),
                    )
                )
            else:
                made.append(make(dict(zip(names, cells, strict=True))))
    except (_Wrong, csv.Error) as problem:
        raise BadPlan(path=path, line=lines.line_num, problem=problem) from None
    if not made:
        what = say("no row follows the header, which is {header}", header=",".join(needed))
        raise BadPlan(path=path, line=max(1, lines.line_num), problem=what)
    return made


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise FileTrouble(
            path=path, problem=say("cannot be read: {problem}", problem=error.strerror)
        ) from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise BadPlan(path=path, line=line, problem="it is not UTF-8 text") from None


def _header(cells: list[str], needed: tuple[str, ...], optional: tuple[str, ...]) -> list[str]:
    missing = [name for name in needed if name not in cells]
    if missing and len(cells) == 1 and ";" in cells[0]:
        raise _Wrong(say("its columns are parted by semicolons: save it with commas between them"))
    if missing:
        raise _Wrong(
            say(
                "the header must be {header}, and {missing} is missing",
                header=",".join(needed),
                missing=", ".join(missing),
            )
        )
    for name in cells:
        if name not in needed + optional:
            raise _Wrong(say("it names a column {name} that means nothing here", name=_shown(name)))
        if cells.count(name) > 1:
            raise _Wrong(say("it names the column {name} twice", name=name))
    return cells


def _contact(row: dict[str, str]) -> PlannedContact:
    start_s, end_s = _seconds(row, "start_s"), _seconds(row, "end_s")
    left, right = _name(row, "node_a"), _name(row, "node_b")
    rate = _number(row, _RATE) if row.get(_RATE) else RATE_BYTES_PER_S
    if end_s < start_s:
        raise _Wrong(
            say(
                "it ends at {end_s}, before it starts at {start_s}",
                end_s=row["end_s"],
                start_s=row["start_s"],
            )
        )
    if left == right:
        raise _Wrong(say("{name} cannot meet itself", name=left))
    if rate <= 0:
        raise _Wrong(
            say(
                "{column} is {value}, and a contact carries something: leave out rows that do not",
                column=_RATE,
                value=row[_RATE],
            )
        )
    return PlannedContact(start_s, end_s, left, right, rate)


def _message(row: dict[str, str]) -> PlannedMessage:
    try:
        size_bytes = int(row["size_bytes"])
    except ValueError:
        raise _Wrong(
            say(
                "{column} is {value}, not a whole number",
                column="size_bytes",
                value=_shown(row["size_bytes"]),
            )
        ) from None
    if not 1 <= size_bytes <= MESSAGE_SIZE_MAX:
        raise _Wrong(
            say(
                "{column} is {value}, and a message has 1 to {most} bytes",
                column="size_bytes",
                value=row["size_bytes"],
                most=MESSAGE_SIZE_MAX,
            )
        )
    return PlannedMessage(_seconds(row, "t_s"), _name(row, "source"), size_bytes)


def _number(row: dict[str, str], column: str) -> float:
    try:
        value = float(row[column])
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise _Wrong(say("{column} is {value}, not a number", column=column, value=_shown(row[column])))
    return value


def _seconds(row: dict[str, str], column: str) -> float:
    value = _number(row, column)
    if value < 0:
        raise _Wrong(say("{column} is {value}, and a plan starts at 0", column=column, value=row[column]))
    return value


def _name(row: dict[str, str], column: str) -> str:
    try:
        return check_device_name(row[column])
    except BadName as problem:
        raise _Wrong(say("{column}: {name}", column=column, name=Clause(problem))) from None


def _shown(text: str) -> str:
    return ascii(text if len(text) <= _SHOWN_MAX else text[:_SHOWN_MAX] + "...")

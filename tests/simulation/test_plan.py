"""Plans as people write them: what is read, what is refused and where, and what becomes of contacts that overlap."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshnode.core.errors import FileTrouble
from meshnode.core.limits import MESSAGE_SIZE_MAX
from meshnode.sim.plan import (
    RATE_BYTES_PER_S,
    BadPlan,
    Plan,
    PlannedContact,
    PlannedMessage,
    UnknownGateways,
    read_plan,
)

CONTACTS = "start_s,end_s,node_a,node_b,rate_bytes_per_s\n10,20,siti,office,5000\n"
WORKLOAD = "t_s,source,size_bytes\n1,siti,100\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "contacts.csv").write_text(CONTACTS)
    (tmp_path / "workload.csv").write_text(WORKLOAD)
    return tmp_path


def read(folder: Path, *gateways: str) -> Plan:
    return read_plan(folder / "contacts.csv", folder / "workload.csv", gateways or ("office",))


# --- reading ----------------------------------------------------------------------------------------------------


def test_a_plan_is_read(folder: Path) -> None:
    plan = read(folder)
    assert plan.contacts == (PlannedContact(10.0, 20.0, "siti", "office", 5000.0),)
    assert plan.messages == (PlannedMessage(1.0, "siti", 100),)
    assert plan.gateways == ("office",)
    assert plan.nodes == ["office", "siti"]
    assert plan.end_s == 20.0


def test_rows_and_columns_may_stand_in_any_order(folder: Path) -> None:
    (folder / "contacts.csv").write_text(
        "node_b, rate_bytes_per_s ,node_a,end_s,start_s\noffice,1e3,budi,9,8.5\n\noffice,,siti,5,4\n"
    )
    (folder / "workload.csv").write_text("size_bytes,t_s,source\n7,3,budi\n5,1,siti\n6,3,siti\n")
    plan = read(folder)
    assert plan.contacts == (
        PlannedContact(4.0, 5.0, "siti", "office", RATE_BYTES_PER_S),
        PlannedContact(8.5, 9.0, "budi", "office", 1000.0),
    )
    assert [message.size_bytes for message in plan.messages] == [5, 7, 6]


def test_the_rate_may_be_left_out(folder: Path) -> None:
    (folder / "contacts.csv").write_text("start_s,end_s,node_a,node_b\n0,1,siti,office\n")
    assert read(folder).contacts[0].rate_bytes_per_s == RATE_BYTES_PER_S


def test_what_a_spreadsheet_writes(folder: Path) -> None:
    (folder / "contacts.csv").write_bytes(b"\xef\xbb\xbf" + CONTACTS.replace("\n", "\r\n").encode())
    (folder / "workload.csv").write_text('"t_s","source","size_bytes"\r\n"1","siti","100"\r\n')
    assert len(read(folder).contacts) == len(read(folder).messages) == 1


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("10,20,siti", "it has 3 cells, and the first line names 5 columns"),
        ("10,20,siti,office,5000,", "it has 6 cells"),
        ("ten,20,siti,office,5000", "start_s is 'ten', not a number"),
        ("10,,siti,office,5000", "end_s is '', not a number"),
        ("10,inf,siti,office,5000", "end_s is 'inf', not a number"),
        ("nan,20,siti,office,5000", "start_s is 'nan', not a number"),
        ("-1,20,siti,office,5000", "start_s is -1, and a plan starts at 0"),
        ("30,20,siti,office,5000", "it ends at 20, before it starts at 30"),
        ("10,20,siti,siti,5000", "siti cannot meet itself"),
        ("10,20,siti,,5000", "node_b: '' cannot be a device's name"),
        ("10,20,ibu siti,office,5000", "node_a: 'ibu siti' cannot be a device's name"),
        ("10,20,siti,office,0", "rate_bytes_per_s is 0, and a contact carries something"),
        ("10,20,siti,office,-5", "rate_bytes_per_s is -5"),
        ("10,20,siti,office,fast", "rate_bytes_per_s is 'fast', not a number"),
        ('10,20,siti,"office,5000', "unexpected end of data"),
        (f"{'9' * 99}x,20,siti,office,5000", "start_s is '" + "9" * 40 + "...', not a number"),
    ],
)
def test_a_wrong_contact_is_refused_by_its_line(folder: Path, row: str, problem: str) -> None:
    path = folder / "contacts.csv"
    path.write_text(CONTACTS + row + "\n")
    with pytest.raises(BadPlan) as refused:
        read(folder)
    assert str(refused.value).startswith(f"{path}, line 3: ")
    assert problem in str(refused.value)
    assert str(refused.value).endswith(".")
    assert not str(refused.value).endswith("..")


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("1,siti,0", f"size_bytes is 0, and a message has 1 to {MESSAGE_SIZE_MAX} bytes"),
        (f"1,siti,{MESSAGE_SIZE_MAX + 1}", "and a message has 1 to"),
        ("1,siti,1.5", "size_bytes is '1.5', not a whole number"),
        ("-3,siti,1", "t_s is -3, and a plan starts at 0"),
        ("x,siti,1", "t_s is 'x', not a number"),
        ("1,../siti,1", "source: '../siti' cannot be a device's name"),
        ("1,siti", "it has 2 cells, and the first line names 3 columns"),
    ],
)
def test_a_wrong_message_is_refused_by_its_line(folder: Path, row: str, problem: str) -> None:
    path = folder / "workload.csv"
    path.write_text(WORKLOAD + "\n" + row + "\n2,siti,5\n")
    with pytest.raises(BadPlan) as refused:
        read(folder)
    assert str(refused.value).startswith(f"{path}, line 4: ")
    assert problem in str(refused.value)


@pytest.mark.parametrize(
    ("header", "problem"),
    [
        ("", "line 1: no row follows the header, which is start_s,end_s,node_a,node_b"),
        ("start_s,end_s,node_a,node_b", "line 1: no row follows the header"),
        (
            "start_s,end_s,a,b",
            "line 1: the header must be start_s,end_s,node_a,node_b, and node_a, node_b is missing",
        ),
        ("1,2,siti,office", "line 1: the header must be"),
        ("start_s;end_s;node_a;node_b", "line 1: its columns are parted by semicolons"),
        ("start_s,end_s,node_a,node_b,rate", "line 1: it names a column 'rate' that means nothing here"),
        ("start_s,end_s,node_a,node_b,end_s", "line 1: it names the column end_s twice"),
    ],
)
def test_a_wrong_header_is_refused(folder: Path, header: str, problem: str) -> None:
    path = folder / "contacts.csv"
    path.write_text(header + "\n")
    with pytest.raises(BadPlan) as refused:
        read(folder)
    assert f"{path}, {problem}" in str(refused.value)


def test_what_is_no_text_is_refused_by_its_line(folder: Path) -> None:
    (folder / "workload.csv").write_bytes(WORKLOAD.encode() + b"2,s\xe9ti,5\n")
    with pytest.raises(BadPlan, match=r"workload\.csv, line 3: it is not UTF-8 text"):
        read(folder)
    (folder / "workload.csv").write_bytes(WORKLOAD.encode() + b"2,si\0ti,5\n")
    with pytest.raises(BadPlan, match=r"workload\.csv, line 3: "):
        read(folder)


def test_a_file_that_is_not_there(folder: Path) -> None:
    (folder / "workload.csv").unlink()
    with pytest.raises(FileTrouble, match=r"workload\.csv cannot be read: No such file"):
        read(folder)


def test_gateways_are_nodes_of_the_plan(folder: Path) -> None:
    with pytest.raises(
        UnknownGateways, match=r"None of the gateways \('hilltop, offce'\) occurs in the plan"
    ):
        read(folder, "offce", "hilltop")
    plan = read(folder, "office", "hilltop", "office", "siti")
    assert plan.gateways == ("office", "siti")
    assert plan.gateways_unvisited == ("hilltop",)
    assert plan.nodes == ["office", "siti"]


def test_a_node_that_meets_nobody_has_its_place(folder: Path) -> None:
    (folder / "workload.csv").write_text(WORKLOAD + "1,budi,5\n")
    assert read(folder).nodes == ["budi", "office", "siti"]


# --- contacts that overlap --------------------------------------------------------------------------------------


def plan_of(*contacts: tuple[float, float, str, str, float]) -> Plan:
    return Plan(tuple(sorted(PlannedContact(*row) for row in contacts)), (), ())


def test_what_overlaps_adds_up() -> None:
    plan = plan_of((0, 100, "a", "b", 10), (50, 150, "b", "a", 5), (140, 160, "a", "b", 1))
    (stretch,) = plan.stretches()
    assert (stretch.left, stretch.right, stretch.start_s, stretch.end_s) == ("a", "b", 0, 160)
    assert stretch.rates == ((0, 10), (50, 15), (100, 5), (140, 6), (150, 1))


def test_what_only_touches_stays_apart() -> None:
    plan = plan_of((0, 10, "a", "b", 1), (10, 20, "a", "b", 2), (10, 20, "a", "c", 3))
    assert [(s.start_s, s.right, s.rates[0][1]) for s in plan.stretches()] == [
        (0, "b", 1),
        (10, "b", 2),
        (10, "c", 3),
    ]


def test_what_has_no_length_carries_nothing() -> None:
    assert plan_of((5, 5, "a", "b", 1)).stretches() == []


def test_what_begins_later_is_left_out() -> None:
    plan = plan_of((0, 10, "a", "b", 1), (10, 20, "a", "b", 2), (5, 30, "a", "c", 3))
    assert [stretch.start_s for stretch in plan.stretches(10)] == [0, 5]


ROWS = st.lists(
    st.tuples(st.integers(0, 30), st.integers(1, 10), st.sampled_from(["ab", "ba", "ac"]), st.integers(1, 9)),
    min_size=1,
    max_size=12,
)


@given(ROWS)
def test_no_capacity_is_lost_and_none_is_made(rows: list[tuple[int, int, str, int]]) -> None:
    plan = plan_of(*((start, start + length, *pair, rate) for start, length, pair, rate in rows))
    capacity = 0.0
    last: dict[str, float] = {}
    for stretch in plan.stretches():
        pair = stretch.left + stretch.right
        assert last.get(pair, -math.inf) <= stretch.start_s < stretch.end_s
        last[pair] = stretch.end_s
        moments = [*(at_s for at_s, _ in stretch.rates), stretch.end_s]
        for (at_s, rate), until_s in zip(stretch.rates, moments[1:], strict=True):
            assert at_s < until_s
            assert rate > 0
            capacity += rate * (until_s - at_s)
    assert capacity == pytest.approx(sum(length * rate for _, length, _, rate in rows))

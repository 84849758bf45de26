"""A service manager is told what it wants to know: on a real socket, at the times of a clock that the test owns."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from meshnode.drivers.notify import STATUS_SIZE_MAX, TURN_S, Notify


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.setblocking(False)
        yield manager


def said(manager: socket.socket) -> list[list[str]]:
    """All datagrams that have come, each as its lines."""
    heard = []
    while True:
        try:
            heard.append(manager.recv(4096).decode().split("\n"))
        except BlockingIOError:
            return heard


def environment(manager: socket.socket, **more: str) -> dict[str, str]:
    return {"NOTIFY_SOCKET": manager.getsockname(), **more}


def test_each_thing_is_a_line_of_one_datagram(manager: socket.socket) -> None:
    Notify.from_environment(environment(manager)).tell(READY="1", STATUS="all is well")
    assert said(manager) == [["READY=1", "STATUS=all is well"]]


def test_the_socket_may_have_an_abstract_name() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("")  # the kernel chooses one
        manager.setblocking(False)
        name = "@" + manager.getsockname()[1:].decode()
        Notify.from_environment({"NOTIFY_SOCKET": name}).tell(READY="1")
        assert said(manager) == [["READY=1"]]


@pytest.mark.parametrize("address", [None, "", "relative", "vsock:2:9999"])
async def test_where_nobody_asks_nothing_is_said(address: str | None, autojump_clock: MockClock) -> None:
    notify = Notify.from_environment({} if address is None else {"NOTIFY_SOCKET": address})
    notify.tell(READY="1")
    with trio.fail_after(1):
        await notify.run(lambda: pytest.fail("nobody wants to know"))


@pytest.mark.parametrize(
    ("wanted", "process", "turn_s"),
    [
        ("30000000", str(os.getpid()), 10.0),
        ("30000000", "", 10.0),
        ("300000000000", "", TURN_S),
        ("30000000", "1", TURN_S),
        ("0", "", TURN_S),
        ("-3", "", TURN_S),
        ("soon", "", TURN_S),
        ("", "", TURN_S),
    ],
)
def test_how_often_a_sign_of_life_is_wanted(
    manager: socket.socket, wanted: str, process: str, turn_s: float
) -> None:
    asked = environment(manager, WATCHDOG_USEC=wanted, WATCHDOG_PID=process)
    assert Notify.from_environment(asked).turn_s == turn_s


async def test_a_service_is_ready_lives_and_stops(
    manager: socket.socket, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    """Every line at its time, in an hour of the clock; a status only when it is another."""
    notify = Notify.from_environment(environment(manager, WATCHDOG_USEC="60000000"))
    status = "nobody is met"
    scope = await nursery.start(in_scope, notify, lambda: status)
    await trio.testing.wait_all_tasks_blocked()
    assert said(manager) == [["READY=1", "STATUS=nobody is met"]]
    mock_clock.jump(19.9)
    await trio.testing.wait_all_tasks_blocked()
    assert said(manager) == []
    mock_clock.jump(0.2)
    await trio.testing.wait_all_tasks_blocked()
    assert said(manager) == [["WATCHDOG=1"]]
    status = "one is met\nREADY=0"
    mock_clock.jump(20.0)
    await trio.testing.wait_all_tasks_blocked()
    assert said(manager) == [["STATUS=one is met READY=0", "WATCHDOG=1"]]
    for _ in range(180):
        mock_clock.jump(20.0)
        await trio.testing.wait_all_tasks_blocked()
        assert said(manager) == [["WATCHDOG=1"]]
    scope.cancel()
    await trio.testing.wait_all_tasks_blocked()
    assert said(manager) == [["STOPPING=1"]]


async def test_without_a_watchdog_only_news_is_told(
    manager: socket.socket, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    status = "a" * 1000
    await nursery.start(in_scope, Notify.from_environment(environment(manager)), lambda: status)
    await trio.testing.wait_all_tasks_blocked()
    assert said(manager) == [["READY=1", f"STATUS={'a' * STATUS_SIZE_MAX}"]]
    for _ in range(100):
        mock_clock.jump(TURN_S)
        await trio.testing.wait_all_tasks_blocked()
    assert said(manager) == []
    status = "b"
    mock_clock.jump(TURN_S)
    await trio.testing.wait_all_tasks_blocked()
    assert said(manager) == [["STATUS=b"]]
    nursery.cancel_scope.cancel()


async def test_a_manager_that_is_away_is_told_when_it_is_back(
    tmp_path: Path, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    """As systemd is while it starts itself anew."""
    path = tmp_path / "notify"
    await nursery.start(in_scope, Notify(str(path)), lambda: "well")
    await trio.testing.wait_all_tasks_blocked()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        manager.setblocking(False)
        mock_clock.jump(TURN_S)
        await trio.testing.wait_all_tasks_blocked()
        assert said(manager) == [["READY=1", "STATUS=well"]]
    nursery.cancel_scope.cancel()


def test_a_manager_that_does_not_read_does_not_stop_the_service(manager: socket.socket) -> None:
    notify = Notify.from_environment(environment(manager))
    for number in range(5000):
        notify.tell(STATUS=str(number))
    assert 0 < len(said(manager)) < 5000
    notify.tell()
    assert said(manager) == [["STATUS=4999"]]


async def in_scope(notify: Notify, status: object, task_status: trio.TaskStatus[trio.CancelScope]) -> None:
    assert callable(status)
    with trio.CancelScope() as scope:
        task_status.started(scope)
        await notify.run(status)

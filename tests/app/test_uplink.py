"""The way to the office: proxies, portals and budgets, with real servers on loopback and a member's real TLS."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import click
import pytest
import trio

from meshnode.app.cli.status import status_screen
from meshnode.app.config import UplinkConfig
from meshnode.app.uplink import EXAMINE_S, SAVE_BYTES, Meter, Uplink
from meshnode.core.uplink import Failure
from meshnode.drivers.tls import NoContact, Tls
from meshnode.drivers.uplink import CannotBindError
from tests.app.test_screen import STATUS
from tests.drivers.proxies import ConnectProxy, listening
from tests.drivers.test_tls import Papers, door_of

DEADLINE_S = 10.0
NAME = "office.invalid"
SIGN_IN = b"HTTP/1.1 302 Found\r\nLocation: http://login.example/\r\nContent-Length: 0\r\n\r\n"


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    return Papers(tmp_path_factory.mktemp("ours"), "Tasikmalaya")


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)


def make(papers: Papers, folder: Path, config: UplinkConfig | None = None, web_port: int = 1) -> Uplink:
    return Uplink(
        Tls(papers.member("ana")), config or UplinkConfig(), folder / "metered.json", lambda: 5.0, web_port
    )


async def fails(uplink: Uplink, host: str, port: int) -> NoContact:
    """Dial in vain, and have it examined, as the daemon does."""
    with trio.fail_after(DEADLINE_S):
        with pytest.raises(NoContact) as failed:
            await uplink.dial(host, port)
        await uplink.examine(f"{host}:{port}", failed.value)
    return failed.value


def code(uplink: Uplink, host: str, port: int) -> str | None:
    problem = uplink.problem([f"{host}:{port}"])
    return None if problem is None else problem.code


async def closed_port() -> int:
    async with listening(trio.aclose_forcefully) as (_, port):
        pass
    return port


# --- proxies ---


async def test_through_a_proxy(papers: Papers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with trio.fail_after(DEADLINE_S):
        async with door_of(papers.member("budi")) as door:
            proxy = ConnectProxy({(NAME, 7766): (door.host, door.port)})
            async with proxy.running():
                monkeypatch.setenv("https_proxy", "http://{}:{}".format(*proxy.address))
                stream, certificate = await make(papers, tmp_path).dial(NAME, 7766)
                async with stream:
                    assert certificate.name == "budi"
                    await stream.send_all(b"hello")
                    assert await stream.receive_some(5) == b"hello"
    assert proxy.asked == [f"{NAME}:7766"]


async def test_without_a_proxy_that_is_not_there(
    papers: Papers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{await closed_port()}")
    with trio.fail_after(DEADLINE_S):
        async with door_of(papers.member("budi")) as door:
            stream, certificate = await make(papers, tmp_path).dial(door.host, door.port)
            assert certificate.name == "budi"
            await trio.aclose_forcefully(stream)


async def test_a_proxy_that_wants_a_password(
    papers: Papers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uplink = make(papers, tmp_path)
    proxy = ConnectProxy({}, "Basic other")
    async with proxy.running():
        monkeypatch.setenv("https_proxy", "http://ana:secret@{}:{}".format(*proxy.address))
        problem = await fails(uplink, NAME, 7766)
    assert problem.failure is Failure.PROXY
    told = uplink.problem([f"{NAME}:7766"])
    assert told is not None
    assert told.code == "proxy"
    assert "(407)" in str(told.text)
    assert "secret" not in f"{told.text}{problem}"


async def test_a_proxy_of_another_kind(
    papers: Papers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", "https://proxy.example:3128")
    problem = await fails(make(papers, tmp_path), NAME, 7766)
    assert "only http:// is supported" in str(problem)


# --- why not ---


class WebServer:
    """What answers on the web port."""

    def __init__(self, says: bytes) -> None:
        self.says = says
        self.visits = 0

    async def answer(self, stream: trio.SocketStream) -> None:
        async with stream:
            self.visits += 1
            await stream.receive_some(1000)
            await stream.send_all(self.says)


@pytest.mark.parametrize(
    ("says", "expected"),
    [
        (SIGN_IN, "portal"),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", "office-down"),
        (b"SSH-2.0\r\n", "office-down"),
    ],
)
async def test_nobody_listens(papers: Papers, tmp_path: Path, says: bytes, expected: str) -> None:
    port = await closed_port()
    async with listening(WebServer(says).answer) as (host, web_port):
        uplink = make(papers, tmp_path, web_port=web_port)
        assert code(uplink, host, port) is None
        assert (await fails(uplink, host, port)).failure is Failure.REFUSED
    assert code(uplink, host, port) == expected


async def test_a_sign_in_page_at_the_very_port(papers: Papers, tmp_path: Path) -> None:
    uplink = make(papers, tmp_path)
    async with listening(WebServer(SIGN_IN).answer) as (host, port):
        assert (await fails(uplink, host, port)).failure is Failure.NOT_TLS
    assert code(uplink, host, port) == "portal"


async def test_another_fleet(
    papers: Papers, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    theirs = Papers(tmp_path_factory.mktemp("theirs"), "Garut")
    uplink = make(papers, tmp_path)
    async with door_of(theirs.member("budi")) as door:
        assert (await fails(uplink, door.host, door.port)).failure is Failure.OTHER_FLEET
    assert code(uplink, door.host, door.port) == "other-fleet"


async def test_a_name_that_is_not_resolved(papers: Papers, tmp_path: Path) -> None:
    uplink = make(papers, tmp_path)
    assert (await fails(uplink, "a..b", 7766)).failure is Failure.NO_NAME


async def test_the_web_is_asked_once_a_minute_and_after_a_change(
    papers: Papers, tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    port = await closed_port()
    server = WebServer(SIGN_IN)
    async with listening(server.answer) as (host, web_port):
        uplink = make(papers, tmp_path, web_port=web_port)
        for _ in range(3):
            await fails(uplink, host, port)
            assert code(uplink, host, port) == "portal"
        assert server.visits == 1
        await trio.sleep(EXAMINE_S)
        server.says = b"HTTP/1.1 404 Not Found\r\n\r\n"  # somebody has signed in
        await fails(uplink, host, port)
        assert server.visits == 2
        assert code(uplink, host, port) == "office-down"
        uplink.network_changed()
        assert code(uplink, host, port) is None
        await fails(uplink, host, port)
        assert server.visits == 3


# --- interfaces and their budget ---


@pytest.fixture
def mobile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every connection goes by wwan0, as it seems."""
    monkeypatch.setattr("meshnode.app.uplink.interface_of", lambda *_: "wwan0")


async def test_a_budget_is_used_up(papers: Papers, tmp_path: Path, mobile: None) -> None:
    config = UplinkConfig(metered_bytes_a_day=100_000)
    uplink = make(papers, tmp_path, config)
    reasons: list[str] = []
    with trio.fail_after(DEADLINE_S):
        async with door_of(papers.member("budi")) as door:
            stream, _ = await uplink.dial(door.host, door.port)
            uplink.hold(stream, reasons.append)
            await stream.send_all(bytes(30_000))
            got = 0
            while got < 30_000:
                got += len(await stream.receive_some(30_000))
            assert not reasons, "60 kB and a handshake"
            await stream.send_all(bytes(40_000))
            while got < 70_000:
                got += len(await stream.receive_some(70_000))
            assert set(reasons) == {"the day's bytes for metered networks are used up"}
            uplink.let_go(stream)
            await trio.aclose_forcefully(stream)
            uplink.save()
            for again in (uplink, make(papers, tmp_path, config)):  # a restart forgets nothing
                assert (await fails(again, door.host, door.port)).failure is Failure.BUDGET
                assert code(again, door.host, door.port) == "metered-budget"
    assert stat.S_IMODE((tmp_path / "metered.json").stat().st_mode) == 0o600


async def test_never_over_metered_interfaces(papers: Papers, tmp_path: Path, mobile: None) -> None:
    uplink = make(papers, tmp_path, UplinkConfig(metered_bytes_a_day=0))
    async with door_of(papers.member("budi")) as door:
        assert (await fails(uplink, door.host, door.port)).failure is Failure.BUDGET
    assert not (tmp_path / "metered.json").exists()


async def test_an_interface_that_is_not_allowed(papers: Papers, tmp_path: Path, mobile: None) -> None:
    uplink = make(papers, tmp_path, UplinkConfig(interfaces=("wlan*",)))
    async with door_of(papers.member("budi")) as door:
        assert (await fails(uplink, door.host, door.port)).failure is Failure.INTERFACE
    assert code(uplink, door.host, door.port) == "interface"


@pytest.mark.parametrize(("goes_by", "failure"), [("wlan0", None), ("eth0", Failure.INTERFACE)])
async def test_a_system_that_does_not_let_us_choose(
    papers: Papers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, goes_by: str, failure: Failure | None
) -> None:
    async def cannot(*_: object) -> trio.SocketStream:
        raise CannotBindError

    there = "meshnode.app.uplink"
    monkeypatch.setattr(f"{there}._own_addresses", lambda: [("eth0", "10.0.0.1"), ("wlan0", "10.0.0.2")])
    monkeypatch.setattr(f"{there}._is_loopback", lambda _: False)
    monkeypatch.setattr(f"{there}.connect_by_any", cannot)
    monkeypatch.setattr(f"{there}.interface_of", lambda *_: goes_by)
    uplink = make(papers, tmp_path, UplinkConfig(interfaces=("wlan*",)))
    with trio.fail_after(DEADLINE_S):
        async with door_of(papers.member("budi")) as door:
            if failure is None:
                stream, _ = await uplink.dial(door.host, door.port)
                await trio.aclose_forcefully(stream)
            else:
                assert (await fails(uplink, door.host, door.port)).failure is failure


@pytest.mark.parametrize(
    ("problem", "alarms", "line"),
    [
        (None, [], "Nobody in contact."),
        ("no-internet", [], "The office is not reached from here. Wait."),
        ("portal", [{"code": "portal", "text": "Wait."}], "Nobody in contact."),  # said once, in red
    ],
)
def test_the_screen_says_why(problem: str | None, alarms: list[dict[str, str]], line: str) -> None:
    told = {**STATUS, "alarms": alarms}
    told["uplink_problem"] = None if problem is None else {"code": problem, "text": "Wait."}
    lines = [each.strip() for each in click.unstyle(status_screen(told)).splitlines()]
    assert line in lines


def test_what_was_spent_is_written_now_and_then(tmp_path: Path) -> None:
    path = tmp_path / "metered.json"
    meter = Meter(10 * SAVE_BYTES, path, lambda: 700.0)
    meter.add(SAVE_BYTES - 1)
    assert not path.exists()
    meter.add(1)
    assert json.loads(path.read_bytes()) == {"metered": [[1, SAVE_BYTES]]}


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"metered": 1}', '{"metered": [1]}', '{"metered": [["a", 1]]}']
)
def test_a_damaged_file_is_counted_anew(tmp_path: Path, text: str) -> None:
    path = tmp_path / "metered.json"
    path.write_text(text)
    meter = Meter(100, path, lambda: 5.0)
    assert meter.is_open()
    meter.add(100)
    assert not meter.is_open()


def test_a_disk_that_does_not_take_it(tmp_path: Path) -> None:
    meter = Meter(10 * SAVE_BYTES, tmp_path / "gone" / "metered.json", lambda: 5.0)
    meter.add(SAVE_BYTES)
    assert meter.is_open()

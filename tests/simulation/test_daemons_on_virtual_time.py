"""The real daemon, with its links, writer, store, desk, sink and control interface, on virtual time.

An officer (ana) meets a carrier (budi), who meets the office, over pipes instead of TCP and TLS. Homes, stores and the
sink's folder are real; nothing runs in a thread, and hours cost nothing.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from starlette.types import ASGIApp, Message

from meshnode.app.addresses import Address
from meshnode.app.config import Config
from meshnode.app.control import make_app
from meshnode.app.daemon import Daemon, open_daemon
from meshnode.app.home import Home
from meshnode.core import node
from meshnode.core.limits import DEAD_AFTER_S, HOUSEKEEPING_S, KIB, MIB
from meshnode.sim import pinned
from meshnode.sim.pipes import Nature
from meshnode.sim.places import PORT, Places
from tests.app.fleets import Fleet, posted

TOKEN = "token"
DAY_S = 24 * 3600
#: Whom each dials.
PEERS = {"ana": ("budi",), "budi": ("office",), "office": ()}
#: A field Wi-Fi: 400 kB/s.
WIFI = Nature(rate_bytes_per_s=400_000, latency_s=0.005)
PHOTO = bytes(range(256)) * 4 * KIB  # 1 MiB


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A founded fleet; tests work on copies, so that keys are the same in each."""
    folder = tmp_path_factory.mktemp("fleet")
    with Fleet(folder) as fleet:
        fleet.enroll("office", "office")
        fleet.enroll("ana")
        fleet.enroll("budi")
    return folder


class Program:
    """A program on a device: asks the control interface in process."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self._app: ASGIApp = make_app(daemon, TOKEN)

    async def ask(self, method: str, path: str, body: bytes = b"", token: str = TOKEN) -> tuple[int, Any]:
        """HTTP status and JSON."""
        headers = [(b"host", b"127.0.0.1:7767"), (b"authorization", f"Bearer {token}".encode())]
        pieces = [body[start : start + 64 * KIB] for start in range(0, len(body), 64 * KIB)] or [b""]
        inbox: list[Message] = [
            {"type": "http.request", "body": piece, "more_body": number < len(pieces) - 1}
            for number, piece in enumerate(pieces)
        ]
        outbox: list[Message] = []

        async def receive() -> Message:
            await trio.lowlevel.checkpoint()
            return inbox.pop(0)

        async def send(message: Message) -> None:
            await trio.lowlevel.checkpoint()
            outbox.append(message)

        scope = {"type": "http", "method": method, "path": path, "query_string": b"", "headers": headers}
        await self._app(scope, receive, send)
        answer = b"".join(message.get("body", b"") for message in outbox)
        return outbox[0]["status"], json.loads(answer)

    async def get(self, what: str) -> Any:
        """`status`, `messages` or `peers`."""
        code, answer = await self.ask("GET", f"/v1/{what}")
        assert code == 200, answer
        return answer

    async def submit(self, files: dict[str, bytes], **more: Any) -> str:
        """Take one message; its key."""
        code, answer = await self.ask("POST", "/v1/messages", posted(files, **more))
        assert code == 201, answer
        key: str = answer["key"]
        return key

    async def states(self) -> list[str]:
        """The state of each message, in the order of submission."""
        return [row["state"] for row in await self.get("messages")]

    async def contacts(self) -> list[str]:
        """The names of those in contact."""
        return [peer["name"] for peer in await self.get("peers")]

    async def alarms(self) -> list[str]:
        """The codes of all alarms."""
        return [alarm["code"] for alarm in (await self.get("status"))["alarms"]]


class Village:
    """Ana, budi and the office, each running on a copy of its home."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.places = Places(seed, WIFI)
        self.ana: Program
        self.budi: Program
        self.office: Program

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Everybody runs, out of range of each other."""
        async with AsyncExitStack() as stack:
            for name in PEERS:
                setattr(self, name, await stack.enter_async_context(self._run(name)))
            yield

    @asynccontextmanager
    async def _run(self, name: str) -> AsyncIterator[Program]:
        home = Home(self.folder / name)
        membership = home.load()
        place = self.places.settle(name, membership.certificate)
        config = Config(discovery=False, peers=tuple(Address(peer, PORT) for peer in PEERS[name]))
        async with (
            open_daemon(home, membership, config, PORT, place) as daemon,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(daemon.run, [place.listen()])
            yield Program(daemon)
            nursery.cancel_scope.cancel()

    @property
    def inbox(self) -> Path:
        """The office's folder."""
        return self.folder / "office" / "inbox"

    def delivered(self) -> dict[str, Path]:
        """Key to folder."""
        folders = [path.parent for path in self.inbox.glob("*/*/*/message.json")]
        return {json.loads((folder / "message.json").read_bytes())["key"]: folder for folder in folders}

    async def met(self, one: str, other: str) -> None:
        """Bring two into range, and wait for their contact."""
        self.places.meet(one, other)
        for name, peer in ((one, other), (other, one)):
            await until(partial(_has, getattr(self, name).contacts, peer), 60)


async def _has(ask: Callable[[], Awaitable[list[str]]], wanted: str) -> bool:
    return wanted in await ask()


async def _is(ask: Callable[[], Awaitable[object]], wanted: object) -> bool:
    return await ask() == wanted


async def until(probe: Callable[[], Awaitable[bool]], within_s: float, step_s: float = 0.05) -> None:
    """Ask until it is so; raises trio.TooSlowError after `within_s` of virtual time."""
    with trio.fail_after(within_s):
        while True:
            if await probe():
                return
            await trio.sleep(step_s)


@pytest.fixture
def play(homes: Path, tmp_path: Path) -> Callable[..., list[str]]:
    """Runs a story on a fresh copy of the fleet; what all daemons have logged, with virtual times."""
    runs = 0

    def play_one(story: Callable[[Village], Awaitable[None]], seed: int = 1) -> list[str]:
        nonlocal runs
        runs += 1
        folder = tmp_path / str(runs)
        shutil.copytree(homes, folder)
        lines: list[str] = []

        class Listener(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                text = record.getMessage().replace(str(folder), "FLEET")
                lines.append(f"{trio.current_time():.6f} {record.levelname} {text}")

        async def main() -> None:
            village = Village(folder, seed)
            async with village.open():
                await story(village)

        listener, log = Listener(), logging.getLogger("meshnode")
        level = log.level
        log.addHandler(listener)
        log.setLevel(logging.INFO)
        try:
            pinned.run(seed, main)
        finally:
            log.removeHandler(listener)
            log.setLevel(level)
        return lines

    return play_one


# --- stories ---


def counts(status: dict[str, Any]) -> tuple[int, int, int, int]:
    """How many messages were submitted, and where they are."""
    told = status["messages"]
    return told["submitted"], told["on_this_device_only"], told["carried"], told["delivered"]


async def carried_home(village: Village) -> None:
    """Ana's photo goes to budi over two contacts, the first cut in mid transfer, then to the office; receipts home."""
    places, ana, budi, office = village.places, village.ana, village.budi, village.office
    key = await ana.submit({"photo.jpg": PHOTO, "form.json": b"{}"}, kind="surat", reference="Siti")
    assert await ana.states() == ["on_this_device_only"]
    status = await ana.get("status")
    assert counts(status) == (1, 1, 0, 0)
    assert status["contacts"] == status["alarms"] == []

    await village.met("ana", "budi")
    (pipe,) = places.pipes("ana", "budi")
    pipe.cut_after(500_001 - pipe.sent_bytes)
    await until(_later(lambda: pipe.is_over), 60, step_s=0.001)
    places.part("ana", "budi")
    await until(partial(_is, ana.contacts, []), 1)
    assert await ana.states() == ["on_this_device_only"]
    held = (await budi.get("status"))["carrying"]
    assert held["sources"] == 1
    assert 256 * KIB <= held["bytes"] <= 500_001, "what came whole before the cut is kept, and only that"
    await until(partial(_is, budi.contacts, []), 60)

    await village.met("ana", "budi")
    (pipe,) = places.pipes("ana", "budi")
    await until(partial(_is, ana.states, ["carried"]), 60)
    assert pipe.sent_bytes < len(PHOTO) - 256 * KIB + 64 * KIB, "what was there is not sent again"
    carrying = (await budi.get("status"))["carrying"]
    assert carrying["bundles"] == 5
    assert len(PHOTO) < carrying["bytes"] < len(PHOTO) + 64 * KIB
    places.part("ana", "budi")

    await trio.sleep(3600)
    await village.met("budi", "office")
    await until(partial(_is, budi.states, []), 1)
    await until(partial(_carries_nothing, budi), 60)
    assert (await budi.get("status"))["uplink"] is False
    places.part("budi", "office")
    folder = village.delivered()[key]
    assert (folder / "photo.jpg").read_bytes() == PHOTO
    told = json.loads((folder / "message.json").read_bytes())
    assert told["source"]["name"] == "ana"
    assert told["received_ms"] // 1000 - office.daemon.now().wall_ms // 1000 in range(-10, 1)

    assert await ana.states() == ["carried"], "who was not met has not heard"
    assert (await ana.get("status"))["oldest_waiting_s"] >= 3600
    await village.met("ana", "budi")
    await until(partial(_is, ana.states, ["delivered"]), 60)
    status = await ana.get("status")
    assert counts(status) == (1, 0, 0, 1)
    assert status["oldest_waiting_s"] is None
    assert [peer["name"] for peer in status["contacts"]] == ["budi"]


async def _carries_nothing(program: Program) -> bool:
    carried: int = (await program.get("status"))["carrying"]["bundles"]
    return carried == 0


async def silence(village: Village) -> None:
    """A peer that walks away in mid transfer is given up 15 s after its last byte."""
    places, ana, budi = village.places, village.ana, village.budi
    await village.met("ana", "budi")
    await ana.submit({"video": 4 * PHOTO})
    (pipe,) = places.pipes("ana", "budi")
    (other,) = places.pipes("budi", "ana")
    began_bytes = pipe.sent_bytes
    await until(_later(lambda: pipe.sent_bytes - began_bytes > MIB), 60)
    places.fade("ana", "budi")
    last_s = {"ana": pipe.heard_s, "budi": other.heard_s}
    assert trio.current_time() - last_s["budi"] < 0.1

    ended_s: dict[str, float] = {}
    for name in sorted(last_s, key=last_s.__getitem__):
        await until(partial(_is, getattr(village, name).contacts, []), 60)
        ended_s[name] = trio.current_time() - last_s[name]
    for name in last_s:
        assert DEAD_AFTER_S <= ended_s[name] <= DEAD_AFTER_S + 1, (name, ended_s)
    assert await ana.states() == ["on_this_device_only"]

    await village.met("ana", "budi")
    await until(partial(_is, ana.states, ["carried"]), 60)
    assert (await budi.get("status"))["carrying"]["bundles"] == 17


def _later(probe: Callable[[], bool]) -> Callable[[], Awaitable[bool]]:
    async def ask() -> bool:
        await trio.lowlevel.checkpoint()
        return probe()

    return ask


async def a_sink_that_is_away(village: Village) -> None:
    """For ten minutes the inbox is not a folder: all waits at the office, and nothing is receipted."""
    budi, office = village.budi, village.office
    await budi.submit({"first": b"1"})
    await village.met("budi", "office")
    await until(partial(_is, budi.states, ["delivered"]), 60)
    away = village.inbox.rename(village.folder / "away")
    village.inbox.write_bytes(b"")
    keys = [await budi.submit({"second": b"2"}), await budi.submit({"third": b"3"})]
    await until(partial(_is, office.alarms, ["sink"]), 60)
    await trio.sleep(600)
    assert await office.alarms() == ["sink"]
    assert await budi.states() == ["delivered", "carried", "carried"]

    village.inbox.unlink()
    away.rename(village.inbox)
    await until(partial(_is, budi.states, ["delivered"] * 3), 310, step_s=1)
    assert await office.alarms() == []
    assert set(keys) < set(village.delivered())
    assert len(village.delivered()) == 3


async def a_quiet_day(village: Village) -> None:
    """A day without anybody in range; what was delivered is let go of after the half of it (see the test)."""
    ana, budi, places = village.ana, village.budi, village.places
    await ana.submit({"photo": PHOTO})
    await village.met("ana", "budi")
    await village.met("budi", "office")
    await until(partial(_is, ana.states, ["delivered"]), 60)
    places.part("ana", "budi")
    places.part("budi", "office")
    await trio.sleep(DAY_S / 2 - 60)
    assert (await ana.get("status"))["store"]["bytes"] > len(PHOTO)
    await trio.sleep(HOUSEKEEPING_S + 120)
    assert (await ana.get("status"))["store"]["bytes"] <= 0.75 * len(PHOTO), "the disk has its space back"
    await trio.sleep(DAY_S - trio.current_time())
    for program in (ana, budi, village.office):
        status = await program.get("status")
        assert status["alarms"] == status["contacts"] == []
    assert await ana.states() == ["delivered"], "what it was is remembered"

    second = await ana.submit({"photo": b"2"})
    await village.met("ana", "budi")
    await village.met("budi", "office")
    await until(partial(_is, ana.states, ["delivered", "delivered"]), 60)
    assert second in village.delivered()


async def turned_away(village: Village) -> None:
    """The control interface is the guarded one."""
    assert await village.ana.ask("GET", "/v1/status", token="guessed") == (
        401,
        {
            "error": "The token is missing or wrong: it stands in control.json in the node's home.",
            "exit_code": 1,
        },
    )


STORIES = [carried_home, silence, a_sink_that_is_away, turned_away]

Play = Callable[..., list[str]]


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__)
def test_story(play: Play, story: Callable[[Village], Awaitable[None]]) -> None:
    lines = play(story)
    assert not [line for line in lines if " ERROR " in line]


@pytest.mark.parametrize(
    "story", [carried_home, silence, a_sink_that_is_away], ids=lambda story: story.__name__
)
def test_one_seed_is_one_log(play: Play, story: Callable[[Village], Awaitable[None]]) -> None:
    first = play(story, seed=5)
    assert len(first) > 3
    assert play(story, seed=5) == first


def test_the_order_of_tasks_does_not_matter(play: Play) -> None:
    for seed in range(10, 13):
        play(carried_home, seed=seed)


def test_a_quiet_day(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node, "KEEP_RECEIPTED_S", DAY_S / 2)
    lines = play(a_quiet_day)
    assert len(lines) < 50, "a day without neighbours says nothing"

"""Who answers at the addresses that this node knows: the office, configured peers, and peers met before.

Each is dialled as the daemon does it, up to HELLO. A member that closes before it says HELLO refuses this very device.
Peers that the daemon is in contact with are left alone: a second contact would end the first.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import trio

from meshnode.app.addresses import parse_address
from meshnode.app.config import Config, UplinkConfig
from meshnode.app.doctor.finding import Finding, bad, of_sentence, well
from meshnode.app.home import Home, Membership
from meshnode.app.outside import credentials_of
from meshnode.app.uplink import BUDGET_FILE, Uplink
from meshnode.core.errors import BadAddress, MeshnodeError, RemoteError
from meshnode.core.frames import Hello
from meshnode.core.framing import FrameReader
from meshnode.core.identity import Certificate
from meshnode.core.uplink import Failure
from meshnode.core.words import count, say
from meshnode.drivers.tls import NoContact, Tls

#: Addresses that are tried, the newest first.
TRIED_MAX: Final = 16
PEER_S: Final = 4.0
OFFICE_S: Final = 6.0
_HELLO_S: Final = 2.0

#: Problems of an uplink that hamlets have, and no person's fault.
_USUAL: Final = ("no-network", "no-internet", "metered-budget")

_ASK_AUTHORITY: Final = say("Ask the authority, which sees it with `meshnode authority show`.")

Dial = Callable[[str, int], Awaitable[tuple[trio.abc.Stream, Certificate]]]


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back at an address: a member and its HELLO, or why there was none."""

    address: str
    name: str = ""
    hello: Hello | None = None
    problem: MeshnodeError | None = None

    @property
    def failure(self) -> Failure | None:
        """How the dial failed, if it did."""
        return self.problem.failure if isinstance(self.problem, NoContact) else None

    @property
    def turned_away(self) -> bool:
        """It is a member, and did not greet us."""
        return self.problem is None and self.hello is None


def make_tls(home: Home, membership: Membership) -> Tls:
    """TLS with the papers of this home."""
    return Tls(credentials_of(home, membership))


async def ask(dial: Dial, address: str, within_s: float) -> Answer:
    """Dial, and wait for HELLO."""
    with trio.move_on_after(within_s):
        try:
            host, port = parse_address(address)
            stream, certificate = await dial(host, port)
        except (NoContact, BadAddress) as problem:
            return Answer(address, problem=problem)
        try:
            return Answer(address, certificate.name, await _hello(stream))
        finally:
            await trio.aclose_forcefully(stream)
    return Answer(address, problem=NoContact("no answer", Failure.SILENT))


async def _hello(stream: trio.abc.Stream) -> Hello | None:
    reader = FrameReader()
    try:
        with trio.move_on_after(_HELLO_S):
            while data := await stream.receive_some(65536):
                for frame in reader.feed(bytes(data)):
                    return frame if isinstance(frame, Hello) else None
    except (trio.BrokenResourceError, trio.ClosedResourceError, RemoteError):
        pass
    return None


# --- peers ---


def remembered(store: Path, but: Iterable[str]) -> list[str]:
    """Addresses at which peers were met, the newest first, without those of these devices (ids in hex); blocks."""
    if not store.exists():
        return []
    try:
        with sqlite3.connect(f"{store.as_uri()}?mode=ro", uri=True, timeout=1.0) as database:
            rows = database.execute("SELECT address, hex(device) FROM address ORDER BY at_s DESC").fetchall()
    except sqlite3.Error:
        return []
    known = {each.lower() for each in but}
    return [str(address) for address, device in rows if device.lower() not in known]


async def ask_peers(tls: Tls, addresses: list[str]) -> list[Answer]:
    """Ask at all of these at once."""
    answers: list[Answer] = []

    async def one(address: str) -> None:
        answers.append(await ask(tls.dial, address, PEER_S))

    async with trio.open_nursery() as nursery:
        for address in addresses[:TRIED_MAX]:
            nursery.start_soon(one, address)
    return sorted(answers, key=lambda answer: addresses.index(answer.address))


def judge_peers(answers: list[Answer]) -> list[Finding]:
    """What is to be said of those that were asked."""
    findings = []
    others = [answer for answer in answers if answer.failure is Failure.OTHER_FLEET]
    away = [answer for answer in answers if answer.turned_away]
    if others:
        findings.append(
            bad(
                "other-fleet",
                say("What answers at {addresses} belongs to another fleet.", addresses=_list(others)),
                say(
                    "Compare the fleet that `meshnode status` shows on both devices; the one in the wrong fleet needs a"
                    " new home there and a welcome of the right authority."
                ),
            )
        )
    if away:
        findings.append(
            bad(
                "refused",
                say(
                    "{addresses} closed the contact as soon as it saw this device: most likely this device was"
                    " revoked.",
                    addresses=_list(away),
                ),
                _ASK_AUTHORITY,
            )
        )
    counts = Counter("met" if answer.hello else "not met" for answer in answers)
    if counts["met"]:
        text = count(
            "{met} of {n} known address answered well.",
            "{met} of {n} known addresses answered well.",
            len(answers),
            met=counts["met"],
        )
        findings.append(well("peers", text))
    elif answers and not findings:
        text = say("Nobody answered where nodes may be: {n} tried.", n=len(answers))
        findings.append(well("peers", text))
    return findings


def _list(answers: list[Answer]) -> str:
    return ", ".join(
        f"{answer.name} ({answer.address})" if answer.name else answer.address for answer in answers
    )


# --- the office ---


async def check_office(
    tls: Tls, home: Home, membership: Membership, config: Config, status: dict[str, Any] | None
) -> tuple[Finding | None, list[Answer]]:
    """Whether the office is reached over the internet, and who answered there; None for an office itself."""
    addresses = [address for each in membership.document.endpoints for address in each.addresses]
    if membership.office is not None:
        return None, []
    if status is not None and status["uplink"]:
        return well("office", say("The office is reached from here.")), []
    if not addresses:
        text = say(
            "The fleet document names no address of the office on the internet: it is met in its own network only."
        )
        return well("office", text), []
    if status is not None and (problem := status.get("uplink_problem")):
        found = of_sentence(f"office-{problem['code']}", problem["text"])
        # where there is no internet and colleagues carry the messages, all is as it is meant to be
        return replace(found, ok=problem["code"] in _USUAL and bool(status["contacts"])), []
    uplink = Uplink(tls, _unmetered(config.uplink), home.path / BUDGET_FILE, trio.current_time)
    answers: list[Answer] = []

    async def one(address: str) -> None:
        answer = await ask(uplink.dial, address, OFFICE_S / 2)
        answers.append(answer)
        if answer.problem is not None:
            with trio.move_on_after(OFFICE_S / 2):
                await uplink.examine(address, answer.problem)

    async with trio.open_nursery() as nursery:
        for address in addresses[:TRIED_MAX]:
            nursery.start_soon(one, address)
    return _judge_office(uplink, addresses, answers), answers


def _unmetered(config: UplinkConfig) -> UplinkConfig:
    """To look whether the office is there costs next to nothing: do so unless it is never to be reached that way."""
    return config if config.metered_bytes_a_day == 0 else replace(config, metered_bytes_a_day=None)


def _judge_office(uplink: Uplink, addresses: list[str], answers: list[Answer]) -> Finding:
    if met := next((answer for answer in answers if answer.hello is not None), None):
        return well("office", say("The office answers at {address}.", address=met.address))
    if away := next((answer for answer in answers if answer.turned_away), None):
        return bad(
            "office-refused",
            say(
                "The office at {address} closed the contact as soon as it saw this device: most likely this device was"
                " revoked.",
                address=away.address,
            ),
            _ASK_AUTHORITY,
        )
    problem = uplink.problem(addresses)
    if problem is None:
        text = say("The office did not answer in time.")
        return bad("office", text, say("Try again where the network is better."))
    return of_sentence(f"office-{problem.code}", problem.text)

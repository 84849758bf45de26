"""`meshnode doctor`: why no peer is found, or nothing is delivered, in words for people.

It looks at the home, asks the daemon if one runs, listens in the local network, and dials whom the daemon would dial.
Nothing is changed. Every check has its time limit, and those that wait for others run at once.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any, Final, TypeVar

import trio

from meshnode.app.addresses import parse_address
from meshnode.app.client import Client
from meshnode.app.config import Config
from meshnode.app.doctor.finding import Finding, bad, of_error, of_sentence, well
from meshnode.app.doctor.neighbourhood import (
    check_addresses,
    check_isolation,
    check_own_door,
    judge_firewall,
    judge_hearing,
    listen,
    local_ipv4,
    read_firewall,
)
from meshnode.app.doctor.papers import (
    check_clock,
    check_disk,
    check_port,
    check_probe_port,
    read_papers,
)
from meshnode.app.doctor.reaching import (
    Answer,
    ask_peers,
    check_office,
    judge_peers,
    make_tls,
    remembered,
)
from meshnode.app.home import Home, Membership
from meshnode.app.logs import escaped
from meshnode.core.errors import MeshnodeError, NotRunning
from meshnode.core.uplink import Failure
from meshnode.core.words import count, say
from meshnode.drivers.probe import Probe

T = TypeVar("T")

#: For the daemon's answer, and for all that waits for others.
DAEMON_S: Final = 2.0
NETWORK_S: Final = 7.0


async def diagnose(home: Home) -> list[Finding]:
    """All that is to be said of the node in this home; within 10 s."""
    papers = await _blocking(partial(read_papers, home))
    findings = list(papers.findings)
    if papers.membership is None or papers.config is None:
        return [*findings, check_addresses()]
    config, membership = papers.config, papers.membership
    status, said = await _ask_daemon(home)
    findings.extend(each for each in said if each.code not in {known.code for known in findings})
    if not any(each.code.startswith("disk") for each in findings):
        findings.append(await _blocking(partial(check_disk, home.path, config.store.floor_bytes)))
    if any(each.code == "not-running" for each in said):
        findings.append(check_port(config.listen, "listen"))
        findings.append(check_port(config.control, "control"))
    findings.append(check_addresses())
    findings.extend(await _look_around(home, papers.config, membership, status))
    return findings


def render(findings: list[Finding]) -> str:
    """For people."""
    lines = []
    for finding in findings:
        # What a proxy or a web server has said may be in it.
        lines.append(f"{'ok' if finding.ok else '!!'}  {escaped(finding.text)}")
        if finding.what_to_do:
            lines.append(f"    {escaped(finding.what_to_do)}")
    wrong = sum(not finding.ok for finding in findings)
    summary = say("All is well.")
    if wrong:
        summary = count(
            "{n} of these needs something to be done.", "{n} of these need something to be done.", wrong
        )
    lines += ["", str(summary)]
    return "\n".join(lines)


def to_json(findings: list[Finding]) -> str:
    """For programs: a list of {code, ok, text, what_to_do}."""
    return json.dumps([asdict(finding) for finding in findings], indent=2, ensure_ascii=False)


async def _blocking(work: Callable[[], T]) -> T:
    """In a thread, which is left behind if it takes too long."""
    return await trio.to_thread.run_sync(work, abandon_on_cancel=True)


async def _ask_daemon(home: Home) -> tuple[dict[str, Any] | None, list[Finding]]:
    """What the daemon says of itself, None if it says nothing, and what is to be said of that."""
    with trio.move_on_after(DAEMON_S):
        try:
            status: dict[str, Any] = await _blocking(partial(Client(home).request, "GET", "/v1/status"))
        except NotRunning:
            text = say("The node is not running, so nothing is carried or delivered.")
            return None, [bad("not-running", text, say("Start it with `meshnode run`, or its service."))]
        except MeshnodeError as error:
            return None, [of_error("not-answering", error)]
        text = say("The node runs; devices in contact: {n}.", n=len(status["contacts"]))
        findings = [well("running", text)]
        # a problem of the uplink is told with the office
        told = [alarm for alarm in status["alarms"] if alarm["code"] != "portal"]
        findings.extend(of_sentence(alarm["code"], alarm["text"]) for alarm in told)
        return status, findings
    text = say("The node does not answer.")
    return None, [bad("not-answering", text, say("Look at what its daemon logs."))]


async def _look_around(
    home: Home, config: Config, membership: Membership, status: dict[str, Any] | None
) -> list[Finding]:
    """All that waits for others, at once."""
    tls = make_tls(home, membership)
    contacts = [] if status is None else status["contacts"]
    parts: dict[str, list[Finding]] = {}
    answers: list[Answer] = []

    async def hear() -> None:
        parts["hearing"] = await _hear(config, membership, status)

    async def peers() -> None:
        known = await _blocking(partial(remembered, home.store_path, [each["id"] for each in contacts]))
        # who has come to us is in contact at a port of his own choice, so his whole host is left alone
        hosts = {each["address"].rpartition(":")[0] for each in contacts}
        wanted = dict.fromkeys([*(str(peer) for peer in config.peers), *known])
        met = await ask_peers(tls, [each for each in wanted if each.rpartition(":")[0] not in hosts])
        answers.extend(met)
        parts["peers"] = judge_peers(met)
        silent = [parse_address(each.address).host for each in met if each.failure is Failure.SILENT]
        if not any(each.hello for each in met) and (isolated := await check_isolation(silent)):
            parts["peers"].append(isolated)

    async def office() -> None:
        finding, met = await check_office(tls, home, membership, config, status)
        answers.extend(met)
        parts["office"] = [] if finding is None else [finding]

    async def door() -> None:
        rules = await _blocking(read_firewall)
        found = [judge_firewall(rules, config.listen.port)]
        if status is not None and config.listen.port:
            found.append(await check_own_door(config.listen.port))
        parts["door"] = [each for each in found if each is not None]

    with trio.move_on_after(NETWORK_S) as limit:
        async with trio.open_nursery() as nursery:
            for part in (hear, peers, office, door):
                nursery.start_soon(part)
    findings = [each for name in ("hearing", "door", "peers", "office") for each in parts.get(name, [])]
    if limit.cancelled_caught:
        names = {
            "hearing": say("hearing"),
            "door": say("door"),
            "peers": say("peers"),
            "office": say("office"),
        }
        late = ", ".join(str(said) for name, said in names.items() if name not in parts)
        findings.append(
            bad("unfinished", say("Not finished in time: {parts}.", parts=late), say("Try again."))
        )
    findings.append(check_clock([answer.hello.wall_ms for answer in answers if answer.hello is not None]))
    return findings


async def _hear(config: Config, membership: Membership, status: dict[str, Any] | None) -> list[Finding]:
    if not config.discovery:
        text = say("`discovery` is off in config.toml: only configured peers are met.")
        return [well("discovery", text)]
    networks = local_ipv4()
    found = [check_probe_port()]
    if not networks:
        return found
    device = membership.certificate.device
    heard = await listen(networks, Probe(membership.document.fleet, device, config.listen.port or 1))
    in_contact = membership.office is not None or (
        status is not None and bool(status["contacts"] or status["uplink"])
    )
    return [*found, *judge_hearing(heard, [str(each.ip) for each in networks], in_contact=in_contact)]


__all__ = ["Finding", "diagnose", "render", "to_json"]

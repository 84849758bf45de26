"""What stands in the home: settings, keys, membership; and what they need of this machine: disk, ports, a clock."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import meshnode
from meshnode.app.addresses import Address
from meshnode.app.config import Config, read_config
from meshnode.app.doctor.finding import Finding, bad, of_error, well
from meshnode.app.home import Home, Membership, a_role
from meshnode.core.dialing import MESH_PORT
from meshnode.core.errors import BadConfig, HomeReadable, MeshnodeError, NoNode, NotJoined
from meshnode.core.limits import FLOOR_BYTES, FLOOR_SHARE, MIB, PAYLOAD_SIZE_MAX
from meshnode.core.words import say

#: Two clocks that differ by more are worth a word.
CLOCK_S: Final = 15 * 60.0
_DAY_S: Final = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Papers:
    """What could be read of a home; None where it could not."""

    config: Config | None
    membership: Membership | None
    findings: list[Finding]


def read_papers(home: Home) -> Papers:
    """Read settings and membership, and say what is wrong with them."""
    findings: list[Finding] = []
    config = membership = None
    try:
        membership = home.load()
    except MeshnodeError as error:
        findings.append(of_error(_code_of(error), error))
    else:
        who = membership.certificate
        text = say(
            "{name} is {role} of the fleet {fleet}.",
            name=who.name,
            role=a_role(who.role),
            fleet=membership.fleet_name,
        )
        findings.append(well("home", text))
        if who.device in membership.document.revoked:
            findings.append(
                bad(
                    "revoked",
                    say("This device was revoked: colleagues and the office refuse it."),
                    say(
                        "Bring it to the office with its messages. To work on, make a new node on it, with another"
                        " home."
                    ),
                )
            )
    if findings[0].code != "no-node":
        try:
            config = read_config(home.config_path)
        except BadConfig as error:
            findings.append(of_error("config", error, say("Correct it; without a key its default holds.")))
        except MeshnodeError as error:
            findings.append(of_error("config", error))
    return Papers(config, membership, findings)


def _code_of(error: MeshnodeError) -> str:
    if isinstance(error, NoNode):
        return "no-node"
    if isinstance(error, NotJoined):
        return "not-joined"
    return "permissions" if isinstance(error, HomeReadable) else "keys"


def check_disk(path: Path, floor_bytes: int | None) -> Finding:
    """Whether the disk takes what a node writes."""
    try:
        usage, flags = shutil.disk_usage(path), os.statvfs(path).f_flag
    except OSError as error:
        text = say("The disk of {path} does not answer: {problem}.", path=path, problem=error.strerror)
        return bad("disk", text, say("Have the disk checked."))
    if flags & os.ST_RDONLY or not os.access(path, os.W_OK):
        return bad(
            "disk-read-only",
            say("Nothing can be written to {path}.", path=path),
            say(
                "If its disk was mounted read-only after a fault, have it checked; else give the folder to this user."
            ),
        )
    floor = floor_bytes if floor_bytes is not None else min(FLOOR_BYTES, int(usage.total * FLOOR_SHARE))
    free = say(
        "{free_mib} MiB are free, of which {floor_mib} MiB always stay free",
        free_mib=usage.free // MIB,
        floor_mib=floor // MIB,
    )
    if usage.free < floor + PAYLOAD_SIZE_MAX:
        text = say("The disk is full: {free}.", free=free)
        return bad("disk-full", text, say("Free space on it; messages in the home stay."))
    return well("disk", say("The disk has room: {free}.", free=free))


def check_port(address: Address, key: str) -> Finding:
    """Whether a daemon could listen there. To be asked while none runs."""
    code = "port" if key == "listen" else f"{key}-port"
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        socket.create_server((address.host, address.port), family=family).close()
    except OSError as error:
        taken = error.errno == errno.EADDRINUSE
        why = (error.strerror or str(error)).partition(" (while")[0].lower()
        return bad(
            code,
            say(
                "The node cannot listen at {address} ({problem}).",
                address=address,
                problem=say("another program holds it") if taken else why,
            ),
            say("Stop that program, or change `{key}` in config.toml.", key=key),
        )
    return well(code, say("{address} is free for the node.", address=address))


def check_probe_port() -> Finding:
    """Whether this machine can hear others ask by broadcast."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "SO_REUSEPORT") and not hasattr(socket, "SO_BINDTODEVICE"):
            udp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            udp.bind(("", MESH_PORT))
        except OSError as error:
            return bad(
                "probe-port",
                say(
                    "UDP port {port} cannot be used ({problem}), so colleagues who ask by broadcast are not heard.",
                    port=MESH_PORT,
                    problem=(error.strerror or str(error)).lower(),
                ),
                say("Stop the program that holds it."),
            )
    text = say("UDP port {port} is there for who asks by broadcast.", port=MESH_PORT)
    return well("probe-port", text)


def check_clock(others_ms: list[int]) -> Finding:
    """Whether this machine's clock is far off: from those of others, or before this program was installed."""
    now_s = time.time()
    installed_s = Path(meshnode.__file__).stat().st_mtime
    advice = say("Nothing depends on it but the times that are shown; set the clock when you can.")
    if others_ms:
        off_s = now_s - sorted(others_ms)[len(others_ms) // 2] / 1000
        if abs(off_s) > CLOCK_S:
            text = say("The clock is {minutes} min slow, by the clocks of others.")
            if off_s > 0:
                text = say("The clock is {minutes} min fast, by the clocks of others.")
            return well("clock", text.about(minutes=f"{abs(off_s) / 60:.0f}"), advice)
        return well("clock", say("The clock agrees with those of others."))
    if now_s < installed_s - _DAY_S:
        text = say("The clock is slow: it shows a time before this program was installed.")
        return well("clock", text, advice)
    text = say("The clock shows no impossible time; there was nobody to compare it with.")
    return well("clock", text)

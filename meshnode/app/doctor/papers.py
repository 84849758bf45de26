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
from meshnode.app.config import Address, Config, read_config
from meshnode.app.doctor.finding import Finding, bad, of_error, well
from meshnode.app.home import Home, Membership
from meshnode.core.dialing import MESH_PORT
from meshnode.core.errors import BadConfig, HomeReadable, MeshnodeError, NoNode, NotJoined
from meshnode.core.limits import FLOOR_BYTES, FLOOR_SHARE, MIB, PAYLOAD_SIZE_MAX

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
        findings.append(well("home", f"{who.name} is {_a(who.role)} of the fleet {membership.fleet_name}."))
        if who.device in membership.document.revoked:
            findings.append(
                bad(
                    "revoked",
                    "This device was revoked: colleagues and the office refuse it.",
                    "Bring it to the office with its messages. To work on, make a new node on it, with another home.",
                )
            )
    if findings[0].code != "no-node":
        try:
            config = read_config(home.config_path)
        except BadConfig as error:
            findings.append(of_error("config", error, "Correct it; without a key its default holds."))
        except MeshnodeError as error:
            findings.append(of_error("config", error))
    return Papers(config, membership, findings)


def _code_of(error: MeshnodeError) -> str:
    if isinstance(error, NoNode):
        return "no-node"
    if isinstance(error, NotJoined):
        return "not-joined"
    return "permissions" if isinstance(error, HomeReadable) else "keys"


def _a(role: str) -> str:
    return f"an {role}" if role[0] in "aeiou" else f"a {role}"


def check_disk(path: Path, floor_bytes: int | None) -> Finding:
    """Whether the disk takes what a node writes."""
    try:
        usage, flags = shutil.disk_usage(path), os.statvfs(path).f_flag
    except OSError as error:
        return bad("disk", f"The disk of {path} does not answer: {error.strerror}.", "Have the disk checked.")
    if flags & os.ST_RDONLY or not os.access(path, os.W_OK):
        return bad(
            "disk-read-only",
            f"Nothing can be written to {path}.",
            "If its disk was mounted read-only after a fault, have it checked; else give the folder to this user.",
        )
    floor = floor_bytes if floor_bytes is not None else min(FLOOR_BYTES, int(usage.total * FLOOR_SHARE))
    free = f"{usage.free // MIB} MiB are free, of which {floor // MIB} MiB always stay free"
    if usage.free < floor + PAYLOAD_SIZE_MAX:
        return bad("disk-full", f"The disk is full: {free}.", "Free space on it; messages in the home stay.")
    return well("disk", f"The disk has room: {free}.")


def check_port(address: Address, key: str) -> Finding:
    """Whether a daemon could listen there. To be asked while none runs."""
    code = "port" if key == "listen" else f"{key}-port"
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        socket.create_server((address.host, address.port), family=family).close()
    except OSError as error:
        taken = error.errno == errno.EADDRINUSE
        why = (
            "another program holds it"
            if taken
            else (error.strerror or str(error)).partition(" (while")[0].lower()
        )
        return bad(
            code,
            f"The node cannot listen at {address} ({why}).",
            f"Stop that program, or change `{key}` in config.toml.",
        )
    return well(code, f"{address} is free for the node.")


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
                f"UDP port {MESH_PORT} cannot be used ({(error.strerror or '').lower()}), so colleagues who ask by"
                " broadcast are not heard.",
                "Stop the program that holds it.",
            )
    return well("probe-port", f"UDP port {MESH_PORT} is there for who asks by broadcast.")


def check_clock(others_ms: list[int]) -> Finding:
    """Whether this machine's clock is far off: from those of others, or before this program was installed."""
    now_s = time.time()
    installed_s = Path(meshnode.__file__).stat().st_mtime
    advice = "Nothing depends on it but the times that are shown; set the clock when you can."
    if others_ms:
        off_s = now_s - sorted(others_ms)[len(others_ms) // 2] / 1000
        if abs(off_s) > CLOCK_S:
            way = "fast" if off_s > 0 else "slow"
            return well(
                "clock", f"The clock is {abs(off_s) / 60:.0f} min {way}, by the clocks of others.", advice
            )
        return well("clock", "The clock agrees with those of others.")
    if now_s < installed_s - _DAY_S:
        return well("clock", "The clock is slow: it shows a time before this program was installed.", advice)
    return well("clock", "The clock shows no impossible time; there was nobody to compare it with.")

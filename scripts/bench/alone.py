"""What a node costs that nobody is near: packets on the air and wake-ups of its process, for its battery's sake.

    {"figure": "packets_per_hour", "value": v, "unit": "1/h", "kinds": {...}, "seconds": s}
    {"figure": "wake_ups_per_hour", "value": v, "unit": "1/h", "kinds": {...}, "seconds": s}

A real daemon with the settings of a new node runs in a network namespace whose link leads to an empty network, where
not even its gateway answers. Counting begins when the first questions are over; dials of the gateway become rarer for
ten minutes more. Packets are what its link has sent, the kernel's own too; their kinds are told from what arrives at
the other end. Wake-ups are the voluntary context switches of all threads: one each time that one had gone to sleep.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import ctypes
import json
import socket
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

from demo_nodes import COMMAND, Fleet

from tests.network import netns

#: The burst of questions after a start: DNS-SD asks for 14 s, IPv6 needs some seconds before it begins.
BURST_S: Final = 25.0
START_S: Final = 20.0
GATEWAY: Final = "10.88.0.254"
CONFIG: Final = 'control = "127.0.0.1:0"\npeers = []\n'

ETH_P_ALL: Final = 0x0003
CLONE_NEWNET: Final = 0x40000000


class Air:
    """Everything that arrives at the far end of a link, by kind. `namespace` and `name` say where that end is."""

    def __init__(self, namespace: str, name: str) -> None:
        # A namespace is a thread's, and a socket stays where it was made.
        with concurrent.futures.ThreadPoolExecutor(1) as thread:
            self._tap = thread.submit(self._open, namespace, name).result()

    def _open(self, namespace: str, name: str) -> socket.socket:
        with open(f"/run/netns/{namespace}") as place:
            if ctypes.CDLL(None, use_errno=True).setns(place.fileno(), CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
        tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        tap.bind((name, 0))
        tap.setblocking(False)
        return tap

    def heard(self) -> Counter[str]:
        """What has arrived since the last call."""
        kinds: Counter[str] = Counter()
        with contextlib.suppress(BlockingIOError):
            while True:
                frame, about = self._tap.recvfrom(2048)
                if about[2] != socket.PACKET_OUTGOING:
                    kinds[kind_of(frame)] += 1
        return kinds


def kind_of(frame: bytes) -> str:
    """What an Ethernet frame is for."""
    ether, packet = int.from_bytes(frame[12:14], "big"), frame[14:]
    if ether == 0x0806:
        return "arp"
    if ether == 0x86DD:
        version, protocol, rest = 6, packet[6], packet[40:]
    elif ether == 0x0800:
        version, protocol, rest = 4, packet[9], packet[4 * (packet[0] & 15) :]
    else:
        return f"ether {ether:#06x}"
    port = int.from_bytes(rest[2:4], "big")
    if protocol == socket.IPPROTO_UDP:
        return {5353: f"mdns over IPv{version}", 7766: "probe"}.get(port, f"udp {port}")
    if protocol == socket.IPPROTO_TCP:
        return "dial"
    return f"kernel over IPv{version}"


def switches(pid: int) -> dict[str, int]:
    """Voluntary context switches so far of each thread, by name and number."""
    out = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        status = dict(
            line.split(":\t", 1) for line in (task / "status").read_text().splitlines() if ":\t" in line
        )
        out[f"{status['Name']} {task.name}"] = int(status["voluntary_ctxt_switches"])
    return out


def sent(host: netns.Host) -> int:
    """Packets that its link has sent so far."""
    (link,) = json.loads(host.ip("-json", "-statistics", "link", "show", "dev", "eth0"))
    packets: int = link["stats64"]["tx"]["packets"]
    return packets


def figures(folder: Path, seconds: float) -> list[dict[str, Any]]:
    """Run a daemon alone and look at it for so long."""
    fleet = Fleet(folder, {"kantor": "office", "siti": "officer"})
    fleet.found("bench")
    home = fleet["siti"].home
    (home / "config.toml").write_text(CONFIG)
    with netns.Lab() as lab:
        place = lab.place()
        host = lab.host("10.88.0.1/24", place)
        host.ip("route", "add", "default", "via", GATEWAY)
        air = Air(place.namespace, "br0")
        host.start(str(COMMAND), "--home", str(home), "run").expect("listens on", START_S)
        time.sleep(BURST_S)
        pid = json.loads((home / "control.json").read_bytes())["pid"]
        air.heard()
        began_s, packets, before = time.monotonic(), sent(host), switches(pid)
        time.sleep(seconds)
        kinds, packets, after = air.heard(), sent(host) - packets, switches(pid)
        an_hour = 3600 / (time.monotonic() - began_s)
    woken = {name: after[name] - before.get(name, 0) for name in sorted(after)}

    def figure(name: str, value: float, parts: dict[str, int]) -> dict[str, Any]:
        each = {kind: round(count * an_hour) for kind, count in sorted(parts.items()) if count}
        return {
            "figure": name,
            "value": round(value * an_hour),
            "unit": "1/h",
            "kinds": each,
            "seconds": seconds,
        }

    return [
        figure("packets_per_hour", packets, kinds),
        figure("wake_ups_per_hour", sum(woken.values()), woken),
    ]


def main() -> int:
    """Print the figures."""
    parser = argparse.ArgumentParser(prog="alone", description="What a node costs that nobody is near.")
    parser.add_argument("--seconds", type=float, default=180.0, help="how long to look (180)")
    arguments = parser.parse_args()
    if reason := netns.why_not():
        sys.stderr.write(f"alone: {reason}\n")
        return 1
    with tempfile.TemporaryDirectory() as folder:
        for each in figures(Path(folder), arguments.seconds):
            print(json.dumps(each))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Strangers: all that somebody who is no member, or is one and means ill, can do at the door of a running daemon.

Ana is in contact with Budi, whom her messages reach within a moment. A round draws one way of attacking and how many
come from how many addresses; while it goes on, a message must still reach Budi, a member who was not there before must
be let in, no stranger is, and Ana's memory, open files and log must not grow with the number of attackers.
"""

from __future__ import annotations

import random
import resource
import socket
import ssl
import time
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from meshnode.app.door import PLACES_MAX
from meshnode.core.frames import ALPN
from meshnode.core.limits import MIB
from tests.app.fleets import Fleet, Node
from tests.torture.outcome import Outcome, Say
from tests.torture.siege import (
    Deed,
    Papers,
    Siege,
    babble,
    deaf,
    forge,
    mumble,
    nothing,
    scan,
    signed_by,
    trickle,
)

#: A message reaches a neighbour, and a member is let in, within this, whatever strangers do.
DELIVERY_S = 10.0
#: What a daemon's memory may grow by, first to last and at its worst: the places at the door, some 100 KB each, and
#: what one deaf member may let pile up; Python gives little back.
GROWTH_BYTES = 128 * MIB
#: Of one trouble and one address one line a minute; these are a few addresses and a few troubles.
LINES_MAX = 150
OPEN_FILES = 2 * PLACES_MAX
ATTACKERS = 2000


def papers_of(node: Node, **more: object) -> Papers:
    """A member's."""
    return Papers(node.home / "device.crt", node.home / "device.key", **more)  # type: ignore[arg-type]


class Besieged:
    """Ana, whom Budi knows, and those who mean her ill."""

    def __init__(self, fleet: Fleet, others: Fleet) -> None:
        self.fleet = fleet
        fleet.enroll("office", "office")
        self.ana, self.budi, self.citra = (fleet.enroll(name) for name in ("ana", "budi", "citra"))
        stolen = fleet.enroll("dewi")
        fleet.revoke(stolen)
        for node in (self.ana, self.budi):
            assert node.run("fleet", "update", fleet.publish()).returncode == 0
        wati = fleet.enroll("wati")
        self.ana.host = "127.0.0.2"
        self.ana.configure()
        self.budi.configure(peers=[self.ana.address])
        fleet.start(self.ana, self.budi)
        fleet.until("they are in contact", lambda: self.ana.contacts() == ["budi"])
        authority = Ed25519PrivateKey.from_private_bytes(_raw(fleet))
        forger = Ed25519PrivateKey.generate()
        false = [
            Papers(),
            papers_of(others.enroll("foreigner")),
            papers_of(stolen),
            signed_by(fleet.folder, "expired", Ed25519PrivateKey.generate(), authority),
            signed_by(fleet.folder, "selfmade", forger, forger),
            papers_of(wati, alpn="h2"),
            papers_of(wati, alpn=None),
            papers_of(wati, maximum=ssl.TLSVersion.TLSv1_2),
        ]
        self.deeds: dict[str, Deed] = {
            "half open": nothing,
            "handshakes by the byte": trickle,
            "a port scan": scan,
            "garbage": babble,
            "false papers": forge(false),
            "a member by the byte": mumble(papers_of(wati)),
            "a deaf member": deaf(papers_of(wati)),
        }
        self._messages = 0
        self.deliver_s()
        self.base_bytes = self.memory_bytes()

    def deliver_s(self) -> float:
        """How long a message takes to Budi."""
        self._messages += 1
        began_s = time.monotonic()
        key = self.ana.give({"photo": bytes(100_000)})["key"]
        self.fleet.until(
            "it is carried",
            lambda: {it["key"]: it["state"] for it in self.ana.get("messages")}[key] == "carried",
            within_s=30.0,
        )
        return time.monotonic() - began_s

    def greet_s(self) -> float:
        """How long a member that was not there needs to be greeted."""
        began_s = time.monotonic()
        context = papers_of(self.citra).context()
        plain = socket.create_connection((self.ana.host, self.ana.port), 30.0)
        with plain, context.wrap_socket(plain) as tls:
            assert tls.selected_alpn_protocol() == ALPN
            assert b"ana" in tls.recv(1000)
        return time.monotonic() - began_s

    def _proc(self) -> Path:
        assert self.ana.process is not None
        return Path(f"/proc/{self.ana.process.pid}")

    def memory_bytes(self) -> int:
        """What Ana's daemon takes of the memory now."""
        status = dict(line.split(":", 1) for line in (self._proc() / "status").read_text().splitlines())
        return int(status["VmRSS"].split()[0]) * 1024

    def open_files(self) -> int:
        """How many it has open."""
        return len(list((self._proc() / "fd").iterdir()))


def _raw(fleet: Fleet) -> bytes:
    key = serialization.load_pem_private_key(fleet._key.to_pem(), None)
    assert isinstance(key, Ed25519PrivateKey)
    return key.private_bytes_raw()


def one_round(
    besieged: Besieged,
    what: str,
    attackers: int,
    houses: int,
    outcome: Outcome,
    say: Say,
    lasts_s: float = 1.0,
) -> None:
    """One attack: what it does to the others."""
    ana = besieged.ana
    said = len(ana.log())
    if what == "a deaf member":
        attackers = houses = 1
    pause_s = 0.1 if attackers <= 50 else 1.0
    with Siege((ana.host, ana.port), besieged.deeds[what], attackers, houses, pause_s) as siege:
        end_s = time.monotonic() + lasts_s
        worst_s, most_bytes, most_files = 0.0, 0, 0
        while True:
            worst_s = max(worst_s, besieged.deliver_s(), besieged.greet_s())
            outcome.messages += 1
            most_bytes = max(most_bytes, besieged.memory_bytes())
            most_files = max(most_files, besieged.open_files())
            if time.monotonic() >= end_s:
                break
            besieged.fleet.watch()
    lines = ana.log()[said:].splitlines()
    complaints = [line for line in lines if "turned away" in line]
    grown_bytes = most_bytes - besieged.base_bytes
    say(
        f"{what}: {siege.connections} connections of {attackers} from {houses}, delivered within {worst_s:.2f} s,"
        f" memory {most_bytes / MIB:.0f} MiB ({grown_bytes / MIB:+.0f}), {most_files} files,"
        f" {len(complaints)} complaints in {len(lines)} lines"
    )
    outcome.recovery_s = max(outcome.recovery_s, worst_s)
    wrong = {
        f"took {worst_s:.1f} s": worst_s > DELIVERY_S,
        f"grew by {grown_bytes} bytes": grown_bytes > GROWTH_BYTES,
        f"had {most_files} files open": most_files > OPEN_FILES,
        f"complained {len(complaints)} times": len(complaints) > LINES_MAX,
        "let a stranger in": not {"budi", "citra", "wati"} >= set(ana.contacts()),
        "lost its contact": "contact with budi ended" in "".join(lines),
    }
    outcome.troubles.extend(f"{what}: {text}" for text, is_so in wrong.items() if is_so)


def allow_files(count: int) -> None:
    """Let this process open so many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count if hard < 0 else min(count, hard), hard))


def torture(rounds: int, seed: int, folder: Path, say: Say) -> Outcome:
    """As the package says; `recovery_s` is the longest time that a message or a newcomer took."""
    outcome = Outcome("strangers")
    draw = random.Random(seed)
    allow_files(ATTACKERS + 200)
    with Fleet(folder / "ours") as fleet, Fleet(folder / "theirs", "Garut") as others:
        besieged = Besieged(fleet, others)
        say(f"before: {besieged.base_bytes / MIB:.0f} MiB, a message takes {besieged.deliver_s():.2f} s")
        for number in range(1, rounds + 1):
            what = sorted(besieged.deeds)[number % len(besieged.deeds)]
            attackers = draw.choice([50, 300, ATTACKERS])
            one_round(besieged, what, attackers, draw.choice([1, 8, 100]), outcome, say, draw.uniform(1, 12))
            outcome.rounds = number
        say(f"after: {besieged.memory_bytes() / MIB:.0f} MiB, a message takes {besieged.deliver_s():.2f} s")
    return outcome

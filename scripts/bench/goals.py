"""What meshnode is to reach, and what others reach: data of the page `docs/speed.md`.

The other systems were measured once, on a machine with two cores: two nodes on loopback, medians of 3, random payloads,
their own settings where nothing else is said. What they do differs; the last column says what is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from bench.figures import Figure


@dataclass(frozen=True)
class Goal:
    """Of one figure: at least, or below, so much."""

    figure: str
    what: str
    value: float
    least: bool = False

    def is_reached(self, line: Figure) -> bool:
        """Whether this line of the figure is as it should be."""
        value: float | None = line["value"]
        if value is None:
            return False
        return value >= self.value if self.least else value < self.value


def _of_each(figure: str, what: str, value: float) -> list[Goal]:
    """With so many bundles in common, or in store."""
    sizes = {"10k": "10,000", "100k": "100,000", "1m": "1,000,000"}
    return [Goal(figure.format(name), what.format(bundles), value) for name, bundles in sizes.items()]


GOALS: Final = (
    Goal("bundles_8k", "bundles of 8 KiB, contact to last STORED", 4000, least=True),
    Goal("messages_512k_data", "messages of 512 KiB", 150, least=True),
    Goal("message_256m_data", "one message of 256 MiB", 200, least=True),
    Goal("busy_memory", "the most memory ever", 150),
    *_of_each("recontact_{}_bytes", "meeting again with {} bundles in common, each way", 2000),
    *_of_each("recontact_{}_ms", "meeting again with {} bundles in common, until all is said", 50),
    *_of_each("recontact_{}_new_bytes", "10 new ones beside {}, beyond their own bytes", 3000),
    Goal("first_bundle_mdns", "first bundle after the link came up, by whatever finds the peer first", 1.0),
    Goal("first_bundle_known", "first bundle at a known address, after it listens", 0.3),
    Goal("submit_1mb", "1 MB submitted and acknowledged", 60),
    Goal("status_cpu", "CPU of `meshnode status`", 0.25),
    *_of_each("start_{}", "start to listening with {} bundles in store", 1.0),
    Goal("idle_cpu", "CPU of a node that has nothing to do", 0.5),
    Goal("idle_memory", "memory of a node that has nothing to do", 60),
    Goal("loop_blocked", "the longest that the event loop did one thing", 50),
)


@dataclass(frozen=True)
class System:
    """Another system. `small`: bundles or files of 8 KiB a second, of 2,000; `middle`: MiB/s with 200 of 512 KiB;
    `large`: MiB/s with one of 256 MiB; `again`: what 10 new ones cost beside 10,000 that both have; `kept`: how it is
    secured in transit or at rest, and whether it syncs what it says to have."""

    name: str
    small: str
    middle: str
    large: str
    again: str
    kept: str


OTHERS: Final = (
    System("ION-DTN 4.1 (C), in memory", "1,657", "134", "119", "queues per destination", "no, no"),
    System(
        "ION-DTN 4.1 (C), its default store",
        "183",
        "18",
        "25",
        "12 kB, 0.17 s (queued)",
        "no, logged",
    ),
    System("IBR-DTN 1.0 (C++)", "675", "41", "-", "-", "no, ?"),
    System(
        "Syncthing 1.19 (Go)",
        "283",
        "71",
        "198",
        "19 kB, 0.31 s known pair; 2.1 MB, 1.0 s never met",
        "TLS, fsync",
    ),
    System("NNCP 8.8 (Go)", "310-600", "47", "98-112", "932 kB, 2.0 s re-offered", "sealed, fsync"),
    System(
        "LXMF 1.2 on Reticulum (Python)",
        "17-29",
        "2.9",
        "10.6, 1.5 GB resident",
        "20 kB, 1.3 s",
        "sealed, partly",
    ),
)
WHERE: Final = "two cores, two nodes on loopback, median of 3, random payloads"
LIMITS_THERE: Final = (
    "raw TLS 1.3 between two Python processes 300-800 MiB/s; SQLite group commit 12,900 rows/s of 8 KiB"
    " and 107 MiB/s; Ed25519 verify 5,900 /s on one core"
)

#: The parts of a profile, in the order in which a bundle passes them.
PARTS: Final = {
    "tls": "TLS: decrypting",
    "frames": "cutting and decoding frames",
    "header": "decoding the header",
    "verify": "the signature",
    "digest": "SHA-256 of the payload",
    "brain": "the rest of the brain",
    "commit": "row writing, synced",
    "stored": "counting it, and STORED",
    "open": "at an office: unsealing",
    "sink": "at an office: a file, flushed, in the directory sink",
}
#: What of these a carrier does.
CARRIER: Final = tuple(PARTS)[:8]

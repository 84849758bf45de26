"""Other orders of sending than the node's own, to compare it with: what is sent first is what has the most worth.

smallest    the smallest remainder: shortest work first, deaf to where anybody goes
fewest      what the fewest others hold, then the smallest
oldest      what was recorded first
random      a draw by the message's facts, the same in each run of a seed; it is drawn anew at each peer and hour
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from typing import Final

from meshnode.core.limits import MIB
from meshnode.core.routing import Candidate, Worth, gain

_HOUR_S: Final = 3600


def smallest(message: Candidate) -> float:
    """Messages a byte."""
    return 1 / message.lacking_bytes


def fewest(message: Candidate) -> float:
    """Less than half for each more that holds it; the size weighs less than one holder."""
    return 1 / (1 + len(message.others_away_s) + message.lacking_bytes / (message.lacking_bytes + MIB))


def oldest(message: Candidate) -> float:
    """Seconds."""
    return message.age_s


def lot(message: Candidate, *, seed: int) -> float:
    """From 0 to 1."""
    facts = seed, message.lacking_bytes, message.peer_away_s, message.age_s // _HOUR_S
    return int.from_bytes(hashlib.blake2b(repr(facts).encode(), digest_size=6).digest(), "big") / 2**48


#: By name, of a seed.
ORDERS: Final[dict[str, Callable[[int], Worth]]] = {
    "gain": lambda seed: gain,
    "smallest": lambda seed: smallest,
    "fewest": lambda seed: fewest,
    "oldest": lambda seed: oldest,
    "random": lambda seed: partial(lot, seed=seed),
}

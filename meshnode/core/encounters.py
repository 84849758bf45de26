"""How near a way out is: one number a node, the expected delay to any office or gateway.

It is 0 there. Elsewhere it is the least, over the peers ever met, of the mean time between meetings with that peer and
the peer's own number, as it told it when it was last met: what this node hands over at the next meeting still has that
long to go. Anycast by construction: the number does not say which office, and there is no routing table. Since every
hop adds a time between meetings, numbers that lean on each other in a circle only grow.

    meeting     contacts less than MEETING_GAP_S apart count once: two people in one yard are in contact ten times
    mean        the time apart / the meetings in it; so it grows while a peer stays away, and a peer that is never met
                again is no way out any more. What is older than WATCHED_S counts less and less

A number is a claim. Only an office or a gateway, which is admitted as such, is taken to be there; any other device is
LEAST_S away at least, and `routing` believes its number no longer than the bundles that it took stay undelivered.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import inf
from typing import Final

from meshnode.core.identity import Certificate, DeviceId
from meshnode.core.limits import AWAY_S_MAX
from meshnode.core.rows import PutEncounter

MEETING_GAP_S: Final = 3600.0
#: Habits of this long ago still count for half.
WATCHED_S: Final = 14 * 24 * 3600.0
#: Nobody but an office or a gateway is nearer than this.
LEAST_S: Final = 600.0
#: The number is worked out again after so long: it changes by the hour.
_NEAR_ENOUGH_S: Final = 60.0
#: Roles of those who are there.
_THERE: Final = frozenset({"office", "gateway"})


def is_there(certificate: Certificate) -> bool:
    """Whether a device is an office or a gateway: its number is 0, whatever it says."""
    return certificate.role in _THERE


@dataclass(slots=True)
class _Peer:
    """What is known of one peer: meetings since `since_s`, which moves on while it is met; the last time that it was
    there; the number that it told; and since when it is there now."""

    since_s: float
    meetings: float
    last_s: float
    told_s: float
    there_since_s: float | None = None

    def mean_s(self, now_s: float) -> float:
        """The mean time between meetings."""
        until_s = now_s if self.there_since_s is None else self.there_since_s
        return max(MEETING_GAP_S, (until_s - self.since_s) / self.meetings)


class Encounters:
    """The meetings of one node. `at_office`: it is an office or a gateway itself."""

    def __init__(self, rows: Iterable[PutEncounter], now_s: float, *, at_office: bool) -> None:
        self._at_office = at_office
        self._peers = {row.peer: _Peer(row.since_s, row.meetings, row.last_s, row.told_s) for row in rows}
        self._watched_since_s = min([now_s, *(peer.since_s for peer in self._peers.values())])
        #: The number, and until when it is near enough.
        self._away: tuple[float, float] = (0.0, -inf)
        #: Told by others of devices that were never met.
        self._heard: dict[DeviceId, float] = {}

    def met(self, peer: DeviceId, told_s: float, now_s: float) -> PutEncounter:
        """A peer has told its number, as a contact began or later: what is to be remembered."""
        self._away = (0.0, -inf)
        known = self._peers.get(peer)
        if known is None:
            since_s = max(self._watched_since_s, now_s - WATCHED_S)
            known = self._peers[peer] = _Peer(since_s, 1.0, now_s, told_s)
            self._heard.pop(peer, None)
        elif known.there_since_s is None and now_s - known.last_s > MEETING_GAP_S:
            known.meetings += 1.0
            if now_s - known.since_s > WATCHED_S:
                known.since_s += (now_s - known.since_s) / 2
                known.meetings /= 2
        known.last_s, known.told_s = now_s, told_s
        if known.there_since_s is None:
            known.there_since_s = now_s
        return PutEncounter(peer, known.since_s, known.meetings, known.last_s, known.told_s)

    def parted(self, peer: DeviceId, now_s: float) -> None:
        """A contact is over."""
        self._away = (0.0, -inf)
        known = self._peers.get(peer)
        if known is not None and known.there_since_s is not None:
            known.since_s += now_s - known.there_since_s
            known.last_s, known.there_since_s = now_s, None

    def heard(self, peer: DeviceId, told_s: float) -> None:
        """Somebody says that a device has told this number."""
        if peer not in self._peers:
            self._heard[peer] = told_s

    def told_s(self, peer: DeviceId) -> float:
        """The number of a peer, as it is known here: AWAY_S_MAX if it is not."""
        known = self._peers.get(peer)
        return known.told_s if known is not None else self._heard.get(peer, AWAY_S_MAX)

    def away_s(self, now_s: float) -> float:
        """This node's own number; AWAY_S_MAX before any is learned."""
        if self._at_office:
            return 0.0
        away_s, until_s = self._away
        if now_s >= until_s:
            away_s = min([AWAY_S_MAX, *(peer.mean_s(now_s) + peer.told_s for peer in self._peers.values())])
            self._away = away_s, now_s + _NEAR_ENOUGH_S
        return away_s

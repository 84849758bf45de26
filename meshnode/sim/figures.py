"""What a run over a plan comes down to: the figures that planners compare, and one row a node.

delivered_share        delivered messages / all messages
delivered_byte_share   the same, by the messages' bytes
mean, median, p95      of the delay of all messages, where one that was not delivered counts as waiting to the end, so
                       that nobody looks better by dropping what is slow; p95 is the smallest delay that 95 % of the
                       messages do not exceed
copies_per_delivered   copies that came to rest on other nodes than their source, the gateway's included and those of
                       messages that were never delivered too, / delivered messages (None if there are none)
bytes_moved            all bytes on the air: bundles, also those that were cut or came for nothing, and what nodes
                       say about them
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, median
from typing import Any

from meshnode.sim.carrying import Carried, Fate, Load


@dataclass(frozen=True, slots=True)
class NodeFigures:
    """One node. `carried_*`: others' bundles that it has taken on, as a carrier; `on_board_*`: those that it still
    holds at the end; `taken_in`: messages of others that were whole at this gateway first."""

    name: str
    gateway: bool
    submitted: int
    delivered: int
    mean_delay_s: float | None
    carried_bundles: int
    carried_bytes: int
    carried_for: int
    on_board_bundles: int
    on_board_bytes: int
    taken_in: int


@dataclass(frozen=True, slots=True)
class Figures:
    """A run."""

    messages: int
    delivered: int
    delivered_share: float
    delivered_byte_share: float
    mean_delay_s: float
    median_delay_s: float
    p95_delay_s: float
    copies_per_delivered: float | None
    bytes_moved: int
    contacts: int
    end_s: float
    nodes: tuple[NodeFigures, ...]

    def as_json(self) -> dict[str, Any]:
        """For `json.dumps`."""
        return asdict(self)


def delay_s(fate: Fate, end_s: float) -> float:
    """How long a message took, or waited until the end."""
    until_s = end_s if fate.delivered_s is None else fate.delivered_s
    return max(0.0, until_s - fate.message.at_s)


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of these ascending values that `share` of them do not exceed (nearest rank)."""
    return values[max(0, math.ceil(share * len(values)) - 1)]


def figures_of(run: Carried) -> Figures:
    """The figures of a run that has at least one message."""
    fates = run.fates
    delivered = [fate for fate in fates if fate.delivered_s is not None]
    delays = sorted(delay_s(fate, run.end_s) for fate in fates)
    copies = math.fsum(fate.copies for fate in fates)
    return Figures(
        messages=len(fates),
        delivered=len(delivered),
        delivered_share=len(delivered) / len(fates),
        delivered_byte_share=_size(delivered) / _size(fates),
        mean_delay_s=fmean(delays),
        median_delay_s=median(delays),
        p95_delay_s=percentile(delays, 0.95),
        copies_per_delivered=copies / len(delivered) if delivered else None,
        bytes_moved=run.bytes_moved,
        contacts=run.contacts,
        end_s=run.end_s,
        nodes=tuple(_nodes(run)),
    )


def _size(fates: Iterable[Fate]) -> int:
    return sum(fate.message.size_bytes for fate in fates)


def _nodes(run: Carried) -> Iterable[NodeFigures]:
    own: defaultdict[str, list[Fate]] = defaultdict(list)
    taken_in: defaultdict[str, int] = defaultdict(int)
    for fate in run.fates:
        own[fate.message.source].append(fate)
        if fate.gateway is not None and fate.gateway != fate.message.source:
            taken_in[fate.gateway] += 1
    for name in run.plan.nodes:
        mine = own[name]
        loads = [load for (_, carrier), load in run.moved.items() if carrier == name]
        on_board = run.on_board.get(name, Load())
        yield NodeFigures(
            name=name,
            gateway=name in run.plan.gateways,
            submitted=len(mine),
            delivered=sum(fate.delivered_s is not None for fate in mine),
            mean_delay_s=fmean(delay_s(fate, run.end_s) for fate in mine) if mine else None,
            carried_bundles=sum(load.bundles for load in loads),
            carried_bytes=sum(load.bytes for load in loads),
            carried_for=len(loads),
            on_board_bundles=on_board.bundles,
            on_board_bytes=on_board.bytes,
            taken_in=taken_in[name],
        )

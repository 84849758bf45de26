"""How soon the first bundle has passed: to a peer whose address is known, and to one that has to be found.

The end is the moment when the node that submitted it counts it as carried: the peer's STORED has come. It is asked for
that every few milliseconds, which costs either daemon a part of one core.
"""

from __future__ import annotations

import concurrent.futures
import ctypes
import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from statistics import median
from typing import Final, TypeVar

from bench.figures import Figure, figure
from bench.grounds import Grounds
from bench.limits import KIB
from bench.nodes import CONTACT_MAX_S, BenchFailed, Node

from tests.network import netns

POLL_S: Final = 0.002
CLONE_NEWNET: Final = 0x40000000
#: The rounds of these are short and vary, so there are more of them.
MORE: Final = 4
PAIR: Final = ("siti", "budi")
SETTLE_S: Final = 1.0

T = TypeVar("T")


def _carried_s(node: Node) -> float:
    """When its message was carried."""
    end_s = time.monotonic() + CONTACT_MAX_S
    while not node.messages("carried"):
        if time.monotonic() > end_s:
            raise BenchFailed(f"{node.name}'s message is not carried after {CONTACT_MAX_S} s")
        time.sleep(POLL_S)
    return time.monotonic()


def known(grounds: Grounds) -> Iterator[Figure]:
    """One node runs and has a message. The other one, which knows its address, begins to listen: for the first time, or
    after they have met before, when either knows who is to be expected where."""
    for what, met in (("never met", False), ("met before", True)):
        took_s = []
        for names in _pairs(grounds):
            with grounds.nodes(*names) as (here, comer):
                here.start()
                if met:
                    comer.start(here.port)
                    here.contact_s()
                    comer.contact_s()
                    comer.stop()
                here.submit([KIB])
                comer.start(here.port, wait=False)
                end_s = _carried_s(here)
                took_s.append(end_s - comer.listens_s())
        yield figure("first_bundle_known", median(took_s), "s", worst=max(took_s), node=what)


def _pairs(grounds: Grounds) -> Iterator[tuple[str, str]]:
    """Who is there and who comes: each as often, since the device with the higher id is the more polite one."""
    for at in range(MORE * grounds.rounds):
        yield PAIR if at % 2 else PAIR[::-1]


def mdns(grounds: Grounds) -> Iterator[Figure]:
    """Both run with the settings of a new node, one in a network, and the other one's link comes up there; it counts
    whatever finds the peer first."""
    if reason := netns.why_not():
        yield figure("first_bundle_mdns", None, "s", skipped=reason)
        return
    took_s = []
    for names in _pairs(grounds):
        with netns.Lab() as lab, grounds.nodes(*names) as nodes:
            place = lab.place()
            here, there = lab.host("10.77.0.1/24", place), lab.host("10.77.0.2/24")
            for node, host in zip(nodes, (here, there), strict=True):
                node.namespace = host.namespace
                node.start(discovery=True)
            took_s.append(
                in_namespace(here.namespace, partial(_plugged, nodes[0], partial(there.plug, place)))
            )
            for node in nodes:
                node.stop()
    yield figure("first_bundle_mdns", median(took_s), "s", worst=max(took_s))


def _plugged(node: Node, plug: Callable[[], None]) -> float:
    """From the link to the message's end. Runs where the node is, which only there can be asked."""
    node.submit([KIB])
    time.sleep(SETTLE_S)
    plug()
    began_s = time.monotonic()
    return _carried_s(node) - began_s


def in_namespace(name: str, work: Callable[[], T]) -> T:
    """Do this in a network namespace, which is a thread's, so in one of its own."""

    def inside() -> T:
        with open(f"/run/netns/{name}") as place:
            if ctypes.CDLL(None, use_errno=True).setns(place.fileno(), CLONE_NEWNET):
                code = ctypes.get_errno()
                raise OSError(code, os.strerror(code))
        return work()

    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        return thread.submit(inside).result()

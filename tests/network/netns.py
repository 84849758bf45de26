"""Networks of Linux network namespaces, for tests that need real links, carriers and multicast.

A **place** is where devices hear each other, a Wi-Fi or an office: a bridge in a namespace of its own. A
**host** is a device: a namespace with `lo` and `eth0`, whose other end is plugged into a place, or nowhere.
Plugging is what walking into a Wi-Fi is: `eth0` gains its carrier, and keeps its address. Nothing touches the
machine's own network.

    with Lab() as lab:
        place = lab.place()
        budi, sari = lab.host("10.77.0.1/24", place), lab.host("10.77.0.2/24")
        node = budi.start(sys.executable, "-m", "meshnode", "run")
        sari.plug(place)
        node.expect("sari", within_s=3)

Leaving the `with` kills all processes and deletes all namespaces, also after a failure. Root only:
`why_not()` says why it would not work here.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import shutil
import subprocess
import sys
import time
from functools import cache, cached_property
from types import TracebackType
from typing import Self

_labs = itertools.count(1)


@cache
def why_not() -> str | None:
    """Why namespaces cannot be made here, None if they can: the reason to skip a test."""
    if sys.platform != "linux":
        return "network namespaces exist on Linux only"
    if os.geteuid() != 0:
        return "making network namespaces needs root"
    if shutil.which("ip") is None or shutil.which("bridge") is None:
        return "making network namespaces needs iproute2"
    try:
        with Lab() as lab:
            lab.host("10.77.0.1/24", lab.place())
    except subprocess.CalledProcessError as error:
        return f"cannot make network namespaces: {error.stderr.strip()}"
    return None


class Lab:
    """Makes places and hosts, and deletes them in the end."""

    def __init__(self) -> None:
        self._prefix = f"meshnode-{os.getpid()}-{next(_labs)}"
        self._names = itertools.count(1)
        self._exit = contextlib.ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._exit.close()

    @cached_property
    def _nowhere(self) -> str:
        return self.namespace()

    def place(self, *, multicast: bool = True, broadcast: bool = True) -> Place:
        """A new place. Without `multicast` it is one of the many Wi-Fis that forward none; without `broadcast`, one
        where only those find each other who know each other's link addresses (`Host.knows`)."""
        return Place(self.namespace(), multicast, broadcast)

    def host(self, address: str | None = None, place: Place | None = None, *, ipv6: bool = True) -> Host:
        """A new host, its `eth0` up, with an address such as '10.77.0.1/24' if given, in a place if given.

        With `ipv6` it gets a link-local address too, a second or two after it has a carrier.
        """
        host = Host(self, self.namespace(), self._nowhere, next(self._names), ipv6=ipv6)
        if address is not None:
            host.ip("address", "add", address, "dev", "eth0")
        if place is not None:
            host.plug(place)
        return host

    def namespace(self) -> str:
        """A new, empty namespace; its name."""
        name = f"{self._prefix}-{next(self._names)}"
        _run("ip", "netns", "add", name)
        self._exit.callback(_run, "ip", "netns", "delete", name)
        _run("ip", "-n", name, "link", "set", "lo", "up")
        return name

    def start(self, namespace: str, *command: str) -> Process:
        """Start a program in a namespace."""
        process = Process("ip", "netns", "exec", namespace, *command)
        self._exit.callback(process.kill)
        return process


class Place:
    """A bridge that forwards at once and everywhere."""

    def __init__(self, namespace: str, multicast: bool, broadcast: bool) -> None:
        self.namespace = namespace
        self._multicast = multicast
        self._broadcast = broadcast
        self._ports: set[str] = set()
        options = ("forward_delay", "0", "stp_state", "0", "mcast_snooping", "0")
        self.ip("link", "add", "br0", "type", "bridge", *options)
        self.ip("link", "set", "br0", "up")

    def ip(self, *arguments: str) -> str:
        """Run `ip` in this place; what it prints."""
        return _run("ip", "-n", self.namespace, *arguments)

    def adopt(self, port: str) -> None:
        self._ports.add(port)
        self.ip("link", "set", port, "master", "br0")
        self._flood(port)
        self.ip("link", "set", port, "up")

    def abandon(self, port: str) -> None:
        self._ports.discard(port)

    def set_multicast(self, multicast: bool) -> None:
        """Forward multicast from now on, or do not."""
        self._multicast = multicast
        for port in self._ports:
            self._flood(port)

    def _flood(self, port: str) -> None:
        for kind, flood in (("mcast_flood", self._multicast), ("bcast_flood", self._broadcast)):
            switch = "on" if flood else "off"
            _run("bridge", "-n", self.namespace, "link", "set", "dev", port, kind, switch)


class Host:
    """A device with one link, `eth0`."""

    def __init__(self, lab: Lab, namespace: str, nowhere: str, number: int, *, ipv6: bool) -> None:
        self.namespace = namespace
        self._lab = lab
        self._nowhere = nowhere
        self._port = f"port{number}"
        self._port_in = nowhere
        self._place: Place | None = None
        self.ip("link", "add", "eth0", "type", "veth", "peer", "name", self._port, "netns", nowhere)
        if not ipv6:
            self.set("net.ipv6.conf.eth0.disable_ipv6", 1)
        self.up()

    def ip(self, *arguments: str) -> str:
        """Run `ip` in this host; what it prints."""
        return _run("ip", "-n", self.namespace, *arguments)

    def set(self, key: str, value: int) -> None:
        """Set a parameter of this host's kernel, such as 'net.ipv4.ip_forward'."""
        _run("ip", "netns", "exec", self.namespace, "sysctl", "-q", f"{key}={value}")

    def plug(self, place: Place) -> None:
        """Walk into a place, out of the one before."""
        self.unplug()
        self._move_port(place.namespace)
        self._place = place
        place.adopt(self._port)

    def unplug(self) -> None:
        """Walk out of reach: `eth0` loses its carrier and keeps its address."""
        if self._place is not None:
            self._place.abandon(self._port)
            self._place = None
            self._move_port(self._nowhere)

    def _move_port(self, namespace: str) -> None:
        # The kernel takes a link down that changes its namespace.
        if namespace != self._port_in:
            _run("ip", "-n", self._port_in, "link", "set", self._port, "netns", namespace)
            self._port_in = namespace

    def up(self) -> None:
        """Switch `eth0` on."""
        self.ip("link", "set", "eth0", "up")

    def down(self) -> None:
        """Switch `eth0` off, as a flight mode does: its routes are gone, and come back with `up`."""
        self.ip("link", "set", "eth0", "down")

    def knows(self, other: Host, ip: str) -> None:
        """Find `other` at this address without asking for it by broadcast."""
        link = other.ip("-brief", "link", "show", "dev", "eth0").split()[2]
        self.ip("neighbour", "replace", ip, "lladdr", link, "dev", "eth0", "nud", "permanent")

    def set_address(self, address: str) -> None:
        """Have this address, such as '10.77.0.9/24', instead of the ones before."""
        self.ip("address", "flush", "dev", "eth0")
        self.ip("address", "add", address, "dev", "eth0")

    def start(self, *command: str) -> Process:
        """Start a program in this host."""
        return self._lab.start(self.namespace, *command)


class Process:
    """A running program, what it prints (stdout and stderr), and its stdin."""

    def __init__(self, *command: str) -> None:
        self.printed: list[str] = []
        self._unread = b""
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0
        )

    def expect(self, text: str, within_s: float) -> str:
        """The next line that has `text` in it; AssertionError when none comes in time, or none will."""
        assert self._process.stdout is not None
        deadline_s = time.monotonic() + within_s
        while True:
            while b"\n" in self._unread:
                line, self._unread = self._unread.split(b"\n", 1)
                self.printed.append(line.decode(errors="replace"))
                if text in self.printed[-1]:
                    return self.printed[-1]
            ready, _, _ = select.select([self._process.stdout], [], [], max(0, deadline_s - time.monotonic()))
            data = os.read(self._process.stdout.fileno(), 65536) if ready else b""
            if not data:
                what = "ended" if ready else f"{within_s} s passed"
                raise AssertionError(f"{what} without {text!r}; it printed:\n" + "\n".join(self.printed))
            self._unread += data

    def write(self, text: str) -> None:
        """Write to its stdin."""
        assert self._process.stdin is not None
        self._process.stdin.write(text.encode())

    def end(self, within_s: float) -> int:
        """Close its stdin and wait for its end; its exit code, negative for a signal."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        code = self._process.wait(within_s)
        self.printed += (self._unread + self._process.stdout.read()).decode(errors="replace").splitlines()
        return code

    def kill(self) -> None:
        """End it now, if it still runs."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout

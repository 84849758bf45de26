"""The local network: addresses in it, who is heard by multicast and by broadcast, and what may be in between.

A packet of our own that comes back by multicast proves only this machine's kernel and firewall. That the network
forwards multicast is proved by hearing somebody else; so those who answer a broadcast and are not heard by multicast
prove that it does not.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Interface
from typing import Final

import trio

from meshnode.app.doctor.finding import Finding, bad, well
from meshnode.core.dialing import MESH_PORT
from meshnode.core.words import count, say
from meshnode.drivers import network
from meshnode.drivers.probe import Probe, decode, encode

#: As long as nobody of the fleet is heard, and in any case.
LISTEN_S: Final = 3.0
LISTEN_MIN_S: Final = 1.5
_TOOL_S: Final = 2.0

_MDNS: Final = ("224.0.0.251", 5353)
_MULTICAST_ALL: Final = 49  # IP_MULTICAST_ALL of Linux: also what other programs have joined


@dataclass
class Heard:
    """By multicast: our own echo on these of our addresses, and other hosts. By broadcast: the fleet's other nodes.

    `deaf`: addresses of ours by which nothing could be sent or heard, and why.
    """

    echoes: set[str] = field(default_factory=set)
    others: set[str] = field(default_factory=set)
    nodes: set[str] = field(default_factory=set)
    deaf: dict[str, str] = field(default_factory=dict)
    a_node: trio.Event = field(default_factory=trio.Event)


def local_ipv4() -> list[IPv4Interface]:
    """This machine's addresses where neighbours can be."""
    try:
        return [each for each in network.local_networks() if isinstance(each, IPv4Interface)]
    except OSError:
        return []


def check_addresses() -> Finding:
    """Whether this machine is in any local network."""
    try:
        local = network.local_networks()
    except OSError as error:
        text = say("This system does not tell its addresses: {problem}.", problem=error.strerror)
        return well("addresses", text)
    if not local:
        return bad(
            "no-address",
            say("This device is in no local network, so there are no neighbours."),
            say("Switch on Wi-Fi and join the network where the colleagues are, or open a hotspot for them."),
        )
    told = ", ".join(str(each.ip) for each in local)
    return well("addresses", say("This device is in a network, as {addresses}.", addresses=told))


# --- who is heard ---


async def listen(networks: Iterable[IPv4Interface], own: Probe | None) -> Heard:
    """Ask by multicast, and by broadcast as `own`, and listen for `LISTEN_S` at most."""
    heard = Heard()
    async with trio.open_nursery() as nursery:
        for each in networks:
            nursery.start_soon(_multicast, each, heard)
            if own is not None and each.network.num_addresses > 2:
                nursery.start_soon(_broadcast, each, own, heard)
        await trio.sleep(LISTEN_MIN_S)
        with trio.move_on_after(LISTEN_S - LISTEN_MIN_S):
            await heard.a_node.wait()
        nursery.cancel_scope.cancel()
    return heard


async def _multicast(own: IPv4Interface, heard: Heard) -> None:
    try:
        with _multicast_socket(str(own.ip)) as udp:
            await udp.sendto(_question(), _MDNS)
            while True:
                _, (host, _) = await udp.recvfrom(9000)
                if host == str(own.ip):
                    heard.echoes.add(host)
                elif host not in {str(each.ip) for each in local_ipv4()}:
                    heard.others.add(host)
    except OSError as error:
        heard.deaf[str(own.ip)] = (error.strerror or str(error)).lower()


def _multicast_socket(own: str) -> trio.socket.SocketType:
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        for option in ("SO_REUSEADDR", "SO_REUSEPORT"):
            if hasattr(socket, option):
                udp.setsockopt(socket.SOL_SOCKET, getattr(socket, option), 1)
        if hasattr(socket, "SO_BINDTODEVICE"):
            udp.setsockopt(socket.IPPROTO_IP, _MULTICAST_ALL, 0)
        member = socket.inet_aton(_MDNS[0]) + socket.inet_aton(own)
        udp.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
        udp.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(own))
        udp.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 255)
        udp.bind(("", _MDNS[1]))
    except BaseException:
        udp.close()
        raise
    return trio.socket.from_stdlib_socket(udp)


def _question() -> bytes:
    """One mDNS question for nodes and one that every responder answers (RFC 6762, RFC 6763 section 9)."""
    names = (b"_meshnode._tcp.local", b"_services._dns-sd._udp.local")
    said = struct.pack("!6H", 0, 0, len(names), 0, 0, 0)
    for name in names:
        labels = b"".join(bytes([len(label)]) + label for label in name.split(b"."))
        said += labels + b"\0" + struct.pack("!HH", 12, 1)  # PTR, IN
    return said


async def _broadcast(own: IPv4Interface, probe: Probe, heard: Heard) -> None:
    try:
        with trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            udp.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            await udp.bind((str(own.ip), 0))
            await udp.sendto(encode(probe), (str(own.network.broadcast_address), MESH_PORT))
            while True:
                data, (host, _) = await udp.recvfrom(1000)
                answer = decode(data)
                if answer is not None and answer.fleet == probe.fleet and answer.device != probe.device:
                    heard.nodes.add(host)
                    heard.a_node.set()
    except OSError as error:
        heard.deaf.setdefault(str(own.ip), (error.strerror or str(error)).lower())


def judge_hearing(heard: Heard, own: list[str], *, in_contact: bool) -> list[Finding]:
    """What is to be said of it. `in_contact`: the daemon has a contact or an uplink."""
    findings = []
    deaf = [ip for ip in own if ip not in heard.echoes]
    if deaf:
        mute = say("it does not hear itself")
        told = ", ".join(str(say("{ip} ({problem})", ip=ip, problem=heard.deaf.get(ip, mute))) for ip in deaf)
        findings.append(
            bad(
                "multicast",
                say("Multicast does not leave or reach this device at {addresses}.", addresses=told),
                say("Allow UDP port 5353 (mDNS) in this device's firewall."),
            )
        )
    elif heard.others:
        text = count(
            "Multicast works: {n} other device was heard.",
            "Multicast works: {n} other devices were heard.",
            len(heard.others),
        )
        findings.append(well("multicast", text))
    elif heard.nodes:
        findings.append(
            well(
                "multicast",
                say(
                    "This network does not forward multicast. Nodes find each other by broadcast all the same."
                ),
            )
        )
    if heard.nodes or in_contact:
        text = say("Nodes of the fleet that answered in this network: {n}.", n=len(heard.nodes))
        findings.append(well("neighbours", text))
    elif own:
        findings.append(
            bad(
                "neighbours",
                say(
                    "No node of the fleet was heard in this network within {seconds} s: nobody is here, or the network"
                    " keeps its devices from each other.",
                    seconds=round(LISTEN_S),
                ),
                say(
                    "See that the colleague's node runs and is in the same network. If it is, use the hotspot of a"
                    " phone: one of the two opens it, the other one joins."
                ),
            )
        )
    return findings


# --- what may be in between ---


async def check_own_door(port: int) -> Finding | None:
    """Whether the node that runs answers at an address of its own in a network; None without one."""
    own = local_ipv4()
    if not own:
        return None
    ip = str(own[0].ip)
    try:
        with trio.fail_after(_TOOL_S):
            stream = await trio.open_tcp_stream(ip, port)
        await trio.aclose_forcefully(stream)
    except (OSError, trio.TooSlowError):
        return bad(
            "firewall",
            say(
                "The node runs and cannot be reached at its own address {ip}, TCP port {port}.",
                ip=ip,
                port=port,
            ),
            say(
                "Allow TCP port {port} in this device's firewall, and see that `listen` in config.toml is not an"
                " address of loopback.",
                port=port,
            ),
        )
    text = say("The node answers at its own address {ip}, TCP port {port}.", ip=ip, port=port)
    return well("firewall", text)


def read_firewall() -> str:
    """The rules of this machine's firewall, as far as this user may read them; blocks."""
    said = []
    for command in (["nft", "list", "ruleset"], ["iptables", "-S", "INPUT"]):
        try:
            done = subprocess.run(command, capture_output=True, check=False, text=True, timeout=_TOOL_S)
        except (OSError, subprocess.TimeoutExpired):
            continue
        said.append(done.stdout)
    return "\n".join(said)


def judge_firewall(rules: str, port: int) -> Finding | None:
    """A note if what comes in is dropped unless a rule lets it in, and no rule names our port."""
    drops = "-P INPUT DROP" in rules or any(
        "hook input" in line and "policy drop" in line for line in rules.splitlines()
    )
    if not drops or str(port) in rules.replace("-", " ").split():
        return None
    return well(
        "firewall-rules",
        say("This device's firewall drops what no rule allows, and no rule names port {port}.", port=port),
        say("If colleagues are not met, allow TCP and UDP port {port}, and UDP port 5353.", port=port),
    )


async def check_isolation(silent: list[str]) -> Finding | None:
    """Whether the gateway answers, and neighbours in the same network do not.

    `silent`: hosts where nodes were met before, and nothing came back just now.
    """
    local = local_ipv4()
    near = [host for host in silent if _is_in(host, local)]
    gateways = [host for host in network.default_gateways() if _is_in(host, local) and host not in near]
    if not near or not gateways or not await _is_there(gateways[0]):
        return None
    return bad(
        "isolation",
        count(
            "The gateway answers, and {n} device that was met in this network before does not. Perhaps it is away;"
            " perhaps this network keeps its devices from each other (client isolation).",
            "The gateway answers, and {n} devices that were met in this network before do not. Perhaps they are away;"
            " perhaps this network keeps its devices from each other (client isolation).",
            len(near),
        ),
        say("If the colleagues are here, use the hotspot of a phone, or have the isolation switched off."),
    )


async def _is_there(host: str) -> bool:
    """Whether anything comes back, be it a refusal."""
    try:
        with trio.fail_after(_TOOL_S):
            stream = await trio.open_tcp_stream(host, MESH_PORT)
    except trio.TooSlowError:
        return False
    except OSError as error:
        inner: BaseException = error
        while inner.__cause__ is not None:
            inner = inner.__cause__
        each = inner.exceptions[0] if isinstance(inner, BaseExceptionGroup) else inner
        return isinstance(each, ConnectionRefusedError)
    await trio.aclose_forcefully(stream)
    return True


def _is_in(host: str, local: list[IPv4Interface]) -> bool:
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return False
    return any(ip in each.network for each in local)

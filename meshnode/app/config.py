"""config.toml: what an operator may set. Every key has a default; what is unknown or wrong is refused.

The dataclasses below are the whole truth: their fields are the keys, their defaults the defaults, and the
commented file that `meshnode init` writes is made from them.
"""

from __future__ import annotations

import ipaddress
import json
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from meshnode.app.addresses import PORT_MAX, Address, parse_address
from meshnode.app.files import read_optional
from meshnode.app.language import LANGUAGES
from meshnode.app.logs import FORMATS, TEXT
from meshnode.core.dialing import MESH_PORT
from meshnode.core.errors import BadAddress, BadConfig
from meshnode.core.limits import (
    FLOOR_BYTES,
    FLOOR_SHARE,
    FOREIGN_QUOTA_BYTES,
    GATEWAY_QUOTA_BYTES,
    GIB,
    KIND_SIZE_MAX,
    MIB,
)
from meshnode.core.words import say
from meshnode.office.sinks import HttpFiles, check_sink, directory_of

CONFIG_SIZE_MAX: Final = MIB
SIZE_MAX: Final = 2**62


_LISTEN: Final = Address("0.0.0.0", MESH_PORT)
_CONTROL: Final = Address("127.0.0.1", 7767)


@dataclass(frozen=True, slots=True)
class StoreConfig:
    """`[store]`: sizes in bytes. `foreign_quota_bytes` None: by the node's role. `floor_bytes` None: what `limits` says
    of floors, for the disk at hand."""

    foreign_quota_bytes: int | None = None
    floor_bytes: int | None = None

    def quota_bytes(self, role: str) -> int:
        """What a node of this role carries for others at most."""
        if self.foreign_quota_bytes is not None:
            return self.foreign_quota_bytes
        return GATEWAY_QUOTA_BYTES if role == "gateway" else FOREIGN_QUOTA_BYTES


@dataclass(frozen=True, slots=True)
class OfficeConfig:
    """`[office]`: read by office nodes only. `sink` is `directory:PATH` or a URL; `http` is `[office.http]`."""

    sink: str = "directory:inbox"
    http: HttpFiles = field(default_factory=HttpFiles)

    def directory(self, home: Path) -> Path | None:
        """The folder of the directory sink, a relative one inside the home; None if the sink is no directory."""
        return directory_of(self.sink, home)


@dataclass(frozen=True, slots=True)
class UplinkConfig:
    """`[uplink]`: how the office may be reached. Interfaces are names or patterns (`wlan*`); `interfaces` empty: any.

    `metered_bytes_a_day`: at most so much over `metered` interfaces in any 24 hours. None: no limit; 0: never.
    """

    interfaces: tuple[str, ...] = ()
    metered: tuple[str, ...] = ("wwan*", "rmnet*", "ppp*")
    metered_bytes_a_day: int | None = None


@dataclass(frozen=True, slots=True)
class MetricsConfig:
    """`[metrics]`: where whoever asks gets `/metrics`, without a token. None: nowhere."""

    listen: Address | None = None


@dataclass(frozen=True, slots=True)
class OutboxConfig:
    """`[outbox]`: the folder from which files are taken as messages, and their kind where nothing else says it. Empty:
    none. A folder that is not there is not made."""

    path: str = "outbox"
    kind: str = ""

    def folder(self, home: Path) -> Path | None:
        """The folder, a relative one inside the home."""
        return home / self.path if self.path else None


@dataclass(frozen=True, slots=True)
class KindsConfig:
    """`[kinds]`: whether messages are checked before they are taken, and the schemas (kind, path) that are not those of
    the program."""

    check: bool = True
    schemas: tuple[tuple[str, str], ...] = ()

    def paths(self, home: Path) -> dict[str, Path]:
        """Kind to file, a relative one inside the home."""
        return {kind: home / path for kind, path in self.schemas}


@dataclass(frozen=True, slots=True)
class Config:
    """All of config.toml. `language` None: by the locale, or as the browser asks."""

    listen: Address = _LISTEN
    control: Address = _CONTROL
    discovery: bool = True
    peers: tuple[Address, ...] = ()
    language: str | None = None
    log: str = TEXT
    store: StoreConfig = field(default_factory=StoreConfig)
    office: OfficeConfig = field(default_factory=OfficeConfig)
    uplink: UplinkConfig = field(default_factory=UplinkConfig)
    metrics: MetricsConfig = field(default_factory=MetricsConfig)
    outbox: OutboxConfig = field(default_factory=OutboxConfig)
    kinds: KindsConfig = field(default_factory=KindsConfig)


class _WrongError(Exception):
    """What is allowed instead; becomes a BadConfig where the key is known."""


def _address(value: object, port_min: int = 1) -> Address:
    if type(value) is not str:
        raise _WrongError(say('must be text, "HOST:PORT"'))
    try:
        return parse_address(value, port_min)
    except BadAddress:
        raise _WrongError(
            say(
                'must be "HOST:PORT" or "[IPv6]:PORT" with a port from {port_min} to {port_max}, not {value}',
                port_min=port_min,
                port_max=PORT_MAX,
                value=repr(value),
            )
        ) from None


def _own_address(value: object) -> Address:
    return _address(value, port_min=0)


def _optional_address(value: object) -> Address | None:
    return None if value == "" else _own_address(value)


def _loopback(value: object) -> Address:
    address = _address(value, port_min=0)
    try:
        loopback = ipaddress.ip_address(address.host).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise _WrongError(
            say(
                "must be an address that only this machine reaches, as 127.0.0.1 or [::1], not {address}",
                address=address,
            )
        )
    return address


def _addresses(value: object) -> tuple[Address, ...]:
    if type(value) is not list:
        raise _WrongError(say('must be a list: ["HOST:PORT", ...]'))
    return tuple(dict.fromkeys(_address(item) for item in value))


def _flag(value: object) -> bool:
    if type(value) is not bool:
        raise _WrongError(say("must be true or false"))
    return value


def _language(value: object) -> str:
    if value not in LANGUAGES or not isinstance(value, str):
        raise _WrongError(
            say("must be {languages}", languages=" or ".join(json.dumps(it) for it in LANGUAGES))
        )
    return value


def _log(value: object) -> str:
    if not isinstance(value, str) or value not in FORMATS:
        raise _WrongError(say("must be {formats}", formats=" or ".join(json.dumps(it) for it in FORMATS)))
    return value


def _size(value: object) -> int:
    if type(value) is not int or not 0 <= value <= SIZE_MAX:
        raise _WrongError(say("must be a whole number of bytes, 0 or more"))
    return value


def _sink(value: object) -> str:
    if type(value) is not str:
        raise _WrongError(say("must be text"))
    try:
        check_sink(value)
    except ValueError as problem:
        raise _WrongError(problem) from None
    return value


def _path(value: object) -> str:
    if type(value) is not str or not value or "\0" in value:
        raise _WrongError(say("must be the path of a file"))
    return value


def _optional_path(value: object) -> str:
    return "" if value == "" else _path(value)


def _kind(value: object) -> str:
    if type(value) is not str or len(value.encode()) > KIND_SIZE_MAX:
        raise _WrongError(say("must be a kind of at most {size} bytes", size=KIND_SIZE_MAX))
    return value


def _patterns(value: object) -> tuple[str, ...]:
    if type(value) is not list or not all(type(item) is str and item for item in value):
        raise _WrongError(say('must be a list of names or patterns of network interfaces: ["wlan*", ...]'))
    return tuple(dict.fromkeys(value))


_Readers = dict[str, Callable[[object], Any]]
_TOP: Final[_Readers] = {
    "listen": _own_address,
    "control": _loopback,
    "discovery": _flag,
    "peers": _addresses,
    "language": _language,
    "log": _log,
}
_STORE: Final[_Readers] = {"foreign_quota_bytes": _size, "floor_bytes": _size}
_OFFICE: Final[_Readers] = {"sink": _sink}
_UPLINK: Final[_Readers] = {"interfaces": _patterns, "metered": _patterns, "metered_bytes_a_day": _size}
_METRICS: Final[_Readers] = {"listen": _optional_address}
_OUTBOX: Final[_Readers] = {"path": _optional_path, "kind": _kind}
_HTTP: Final[_Readers] = dict.fromkeys(("token_file", "ca_file", "certificate_file", "key_file"), _path)


def _read_table(
    path: Path, table: object, readers: _Readers, prefix: str, sections: tuple[str, ...]
) -> dict[str, Any]:
    if not isinstance(table, dict):
        wrong = say("`{key}` must be a table, [{key}]", key=prefix.rstrip("."))
        raise BadConfig(path=path, problem=wrong)
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key in sections:
            continue
        if key not in readers:
            known = ", ".join([*readers, *(f"[{prefix}{section}]" for section in sections)])
            unknown = say("`{key}` is not a key; there are {known}", key=prefix + key, known=known)
            raise BadConfig(path=path, problem=unknown)
        try:
            values[key] = readers[key](value)
        except _WrongError as wrong:
            raise BadConfig(
                path=path, problem=say("`{key}` {problem}", key=prefix + key, problem=wrong)
            ) from None
    return values


def parse_config(text: str, path: Path) -> Config:
    """Read the text of config.toml; `path` is for the complaint. Raises BadConfig."""
    try:
        table = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise BadConfig(path=path, problem=say("not TOML: {error}", error=error)) from None
    top = _read_table(path, table, _TOP, "", ("store", "office", "uplink", "metrics", "outbox", "kinds"))
    store = _read_table(path, table.get("store", {}), _STORE, "store.", ())
    office = _read_table(path, table.get("office", {}), _OFFICE, "office.", ("http",))
    uplink = _read_table(path, table.get("uplink", {}), _UPLINK, "uplink.", ())
    metrics = _read_table(path, table.get("metrics", {}), _METRICS, "metrics.", ())
    outbox = _read_table(path, table.get("outbox", {}), _OUTBOX, "outbox.", ())
    kinds = _read_kinds(path, table.get("kinds", {}))
    http = _read_table(path, table.get("office", {}).get("http", {}), _HTTP, "office.http.", ())
    if "key_file" in http and "certificate_file" not in http:
        raise BadConfig(path=path, problem="`office.http.key_file` needs `office.http.certificate_file` too")
    return Config(
        **top,
        store=StoreConfig(**store),
        office=OfficeConfig(**office, http=HttpFiles(**http)),
        uplink=UplinkConfig(**uplink),
        metrics=MetricsConfig(**metrics),
        outbox=OutboxConfig(**outbox),
        kinds=kinds,
    )


def _read_kinds(path: Path, table: object) -> KindsConfig:
    """Each key but `check` is a kind."""
    readers: _Readers = {"check": _flag}
    if isinstance(table, dict):
        readers |= {kind: _path for kind in table if kind != "check"}
    values = _read_table(path, table, readers, "kinds.", ())
    check = values.pop("check", True)
    return KindsConfig(check, tuple(values.items()))


def read_config(path: Path) -> Config:
    """The configuration in the file, or the defaults if there is none. Raises BadConfig or FileTrouble."""
    data = read_optional(path, CONFIG_SIZE_MAX)
    if data is None:
        return Config()
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise BadConfig(path=path, problem=say("not TOML: not UTF-8 (at line {line})", line=line)) from None
    return parse_config(text, path)


def default_text() -> str:
    """A config.toml that says all defaults, each commented out, and what each key is for."""
    config = Config()
    share = f"{FLOOR_SHARE:.0%}"
    return f"""\
# Settings of this node. Each key below shows its default: take away the '#' before it to change it, then
# start the node again. What stands before the first [section] has to stay there.

# Where other nodes reach this one. 0.0.0.0 is every address of this machine, IPv6 too where it has it. Port 0: any free
# port (others then find it by discovery only).
#listen = {json.dumps(str(config.listen))}

# Where programs on this machine reach it; an address that only this machine reaches.
#control = {json.dumps(str(config.control))}

# Look for other nodes on the local network: by DNS-SD (_meshnode._tcp), by a broadcast to UDP port {MESH_PORT}, and
# at the gateway, which may be the phone of a colleague.
#discovery = {json.dumps(config.discovery)}

# Nodes to try always, besides those that are found: ["HOST:PORT", "[IPv6]:PORT"].
#peers = {json.dumps([str(peer) for peer in config.peers])}

# The language of sentences for people: "id" or "en". Without it that of the locale, in a browser that of the browser.
# The log is always English.
#language = "id"

# How the node logs: "text", or "json" for programs, one object a line. Neither says what messages hold.
#log = {json.dumps(config.log)}

[store]
# How much to carry for others: {FOREIGN_QUOTA_BYTES // GIB} GiB, and {GATEWAY_QUOTA_BYTES // GIB} GiB at a gateway.
#foreign_quota_bytes = {FOREIGN_QUOTA_BYTES}

# How much of the disk stays free whatever happens: {FLOOR_BYTES // MIB} MiB, or {share} of a small disk.
#floor_bytes = {FLOOR_BYTES}

[uplink]
# By which network interfaces the office may be reached, names or patterns such as "wlan*"; none: any. Colleagues are
# met by all interfaces whatever stands here.
#interfaces = {json.dumps(config.uplink.interfaces)}

# On which of them every byte costs, and at most how many bytes for the office go over those in any 24 hours, both ways
# together. Without a number there is no limit; 0: none ever. An example: {100 * MIB} (100 MiB).
#metered = {json.dumps(config.uplink.metered)}
#metered_bytes_a_day = {100 * MIB}

[metrics]
# Where Prometheus gets the metrics of this node, http://HOST:PORT/metrics, from whoever can reach that address and
# without a token; at an office they name the devices. Empty: nowhere. An example: "127.0.0.1:9776".
#listen = ""

[outbox]
# A folder for programs that know nothing of this node: as soon as it is there, each file or folder that is put into it
# is taken as a message, and answered by NAME.taken or NAME.refused. A relative path is inside the home. Empty: none.
#path = {json.dumps(config.outbox.path)}
# The kind of what is taken from there, unless a message.json says it.
#kind = {json.dumps(config.outbox.kind)}

[kinds]
# Look at what is submitted before it is taken: "ktp-el" has rules, which docs/ktp-el.md explains.
#check = {json.dumps(config.kinds.check)}
# Other rules, a JSON Schema for each kind; a relative path is inside the home. None is set by default.
#ktp-el = "ktp-el.schema.json"

[office]
# Only for an office: where to put the messages. A relative path is inside the home. Or, instead of a folder, the
# address of a server, to which each message is posted: "https://HOST/PATH". What goes to "http://HOST/PATH" can be read
# by whoever is in between, so that is for a server on this machine.
#sink = {json.dumps(config.office.sink)}

[office.http]
# Only for such a server; a relative path is inside the home. None of them is set by default. What a file holds is read
# again after a message did not go through, so a new token or certificate needs no new start.
# The bearer token that the server asks for, one line of text.
#token_file = "registry.token"
# The only authorities (PEM) that may have issued the server's certificate; otherwise those that this machine trusts.
#ca_file = "registry-ca.pem"
# The certificate (PEM) by which the server knows this office, and its key unless that stands in the same file.
#certificate_file = "registry.crt"
#key_file = "registry.key"
"""

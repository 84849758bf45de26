"""For programs in Python that hand messages to the node on this machine, and ask where they are.

    >>> from meshnode.client import Client
    >>> client = Client(home)
    >>> taken = client.submit([photo], kind="foto", reference="Ibu Aminah", meta={"desa": "Ciheras"})
    >>> taken.bundles
    1
    >>> client.message(taken.key).state
    'on_this_device_only'
    >>> client.status().messages["submitted"]
    1
    >>> client.wait_delivered(taken.key, timeout_s=0)
    Traceback (most recent call last):
    meshnode.core.errors.NotDelivered: The message ... was not at the office within 0 s...

A message is durable once `submit` has returned: the program may delete its files then. Everything that goes wrong is a
`MeshnodeError`, whose text is one sentence for a person, and whose class is for the program: `NotRunning` and
`NotAnswering` pass, `DaemonRefused` and `FileTrouble` mean that this message was not taken.

Each call is a request to the node of its own, and may be made from any thread. Other languages use the same interface:
`GET /v1/openapi.json` describes it. Software that can only write files uses the outbox.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Final, Literal

from meshnode.app.client import TIMEOUT_S, DaemonRefused
from meshnode.app.client import Client as Door
from meshnode.app.home import Home
from meshnode.app.lookup import NoSuchMessage
from meshnode.app.outgoing import Outgoing, submit
from meshnode.core.errors import (
    BadSubmission,
    FileTrouble,
    MeshnodeError,
    NotAnswering,
    NotDelivered,
    NotRunning,
)

__all__ = [
    "Alarm",
    "BadSubmission",
    "Client",
    "DaemonRefused",
    "FileTrouble",
    "MeshnodeError",
    "Message",
    "NoSuchMessage",
    "NotAnswering",
    "NotDelivered",
    "NotRunning",
    "Status",
    "Submitted",
]

#: The states of a message that the office has, whatever it made of it.
ARRIVED: Final = frozenset({"delivered", "accepted", "refused"})
#: Between two questions of `wait_delivered`.
ASK_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Submitted:
    """A message that the node has taken. `key` is its name everywhere, at the office too."""

    key: str
    bundles: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Message:
    """Where a message is. `state`: on_this_device_only, carried, delivered, accepted or refused, and then why, in
    `reason`. `copies`: how many other devices hold all of it. `to`: a device's name, or `office`."""

    key: str
    state: str
    copies: int
    kind: str
    reference: str
    reason: str
    to: str
    size_bytes: int
    submitted_ms: int

    @property
    def has_arrived(self) -> bool:
        """Whether the office has signed for it."""
        return self.state in ARRIVED


@dataclass(frozen=True, slots=True)
class Alarm:
    """Something that a person should do something about: a code for programs, and a sentence."""

    code: str
    text: str


@dataclass(frozen=True, slots=True)
class Status:
    """How the node is. `messages`: how many in which state; `raw`: all that `GET /v1/status` answers."""

    name: str
    device: str
    fleet: str
    uplink: bool
    messages: Mapping[str, int]
    alarms: tuple[Alarm, ...]
    raw: Mapping[str, Any]


class Client:
    """The node whose home is this folder. It has to run; nothing is asked of it before the first call."""

    def __init__(self, home: str | PathLike[str], timeout_s: float = TIMEOUT_S) -> None:
        self._home = Home(Path(home))
        self._door = Door(self._home, timeout_s)

    def submit(
        self,
        files: Iterable[str | PathLike[str]],
        *,
        kind: str = "",
        meta: Mapping[str, str] | None = None,
        reference: str = "",
        priority: Literal["urgent", "routine"] = "routine",
        text: str = "",
        to: str = "",
    ) -> Submitted:
        """Hand over one message; it is durable then. `text` becomes a file of its own; `to` is a device, at an office.

        Raises FileTrouble, BadSubmission or another LocalError: something is wrong with what was given; DaemonRefused:
        the node says no; NotRunning, NotAnswering. Nothing was taken then, but for NotAnswering, which cannot know."""
        said = Outgoing(kind, dict(meta or {}), reference, priority, text, to)
        answer = submit(self._home, [Path(file) for file in files], said)
        return Submitted(answer["key"], answer["bundles"], answer["size_bytes"])

    def messages(self) -> list[Message]:
        """All messages of this device, in the order of submission. Raises NotRunning, NotAnswering."""
        return [_message(row) for row in self._door.request("GET", "/v1/messages")]

    def message(self, key: str) -> Message:
        """One of them. Raises NoSuchMessage, NotRunning, NotAnswering."""
        for message in self.messages():
            if message.key == key:
                return message
        raise NoSuchMessage(key=repr(key))

    def status(self) -> Status:
        """How the node is. Raises NotRunning, NotAnswering."""
        raw = self._door.request("GET", "/v1/status")
        return Status(
            name=raw["device"]["name"],
            device=raw["device"]["id"],
            fleet=raw["device"]["fleet"],
            uplink=raw["uplink"],
            messages=raw["messages"],
            alarms=tuple(Alarm(alarm["code"], alarm["text"]) for alarm in raw["alarms"]),
            raw=raw,
        )

    def wait_delivered(self, key: str, timeout_s: float) -> Message:
        """Wait until the office has signed for a message. Raises NotDelivered after so many seconds; NoSuchMessage; and
        NotRunning or NotAnswering if the node ends meanwhile. The message goes on its way in any case."""
        end_s = time.monotonic() + timeout_s
        while not (message := self.message(key)).has_arrived:
            left_s = end_s - time.monotonic()
            if left_s <= 0:
                raise NotDelivered(key=key, timeout_s=f"{timeout_s:g}", state=message.state)
            time.sleep(min(ASK_S, left_s))
        return message


def _message(row: Mapping[str, Any]) -> Message:
    return Message(**{name: row[name] for name in Message.__slots__})

"""What a service manager is told, as systemd wants it: READY=1, STATUS=, WATCHDOG=1, STOPPING=1 (sd_notify(3)).

It is a datagram to the socket that NOTIFY_SOCKET names, and nothing is lost when nobody reads it; so there is no
library here, of which the Python ones are no longer kept or want a compiler. The sign of life is sent by the event
loop itself: when that hangs, none is sent, and the manager starts the service anew after WATCHDOG_USEC.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from typing import Final

import trio

#: Between two looks at the status where the manager wants no sign of life. Few enough for a battery.
TURN_S: Final = 30.0
#: Signs of life in the time after which the manager loses patience.
SIGNS: Final = 3
#: The status is one line; what is longer is cut.
STATUS_SIZE_MAX: Final = 200


class Notify:
    """A service manager, or nobody: then everything here does nothing."""

    def __init__(self, address: str | bytes | None, watchdog_s: float | None = None) -> None:
        """`address`: of a datagram socket, a path or an abstract name after a zero byte. `watchdog_s`: the manager
        wants a sign of life at least so often."""
        self._address = address
        self.turn_s = TURN_S if watchdog_s is None else min(TURN_S, watchdog_s / SIGNS)
        self._is_watched = watchdog_s is not None
        self._unsent: dict[str, str] = {}
        self._status = ""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Notify:
        """The manager that started this process, if one did and wants to be told."""
        address = environment.get("NOTIFY_SOCKET", "")
        if address.startswith("@"):
            return cls(b"\0" + os.fsencode(address[1:]), _watchdog_s(environment))
        return cls(address, _watchdog_s(environment)) if address.startswith("/") else cls(None)

    def tell(self, **said: str) -> None:
        """Say this, and what could not be said before. Does not block; whoever does not listen is no trouble."""
        if self._address is None:
            return
        self._unsent |= said
        datagram = "\n".join(f"{name}={value}" for name, value in self._unsent.items()).encode()
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
                out.setblocking(False)
                out.sendto(datagram, self._address)
        except OSError:
            return  # said again with the next sign of life
        self._unsent.clear()

    async def run(
        self, status: Callable[[], str], task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Say that the service is ready, then how it is and that it lives; that it stops, when this is cancelled."""
        task_status.started()
        if self._address is None:
            return
        try:
            self.tell(READY="1", **self._news(status()))
            while True:
                await trio.sleep(self.turn_s)
                news = self._news(status()) | ({"WATCHDOG": "1"} if self._is_watched else {})
                if news or self._unsent:
                    self.tell(**news)
        finally:
            self.tell(STOPPING="1")

    def _news(self, status: str) -> dict[str, str]:
        line = " ".join(status.split())[:STATUS_SIZE_MAX]
        if line == self._status:
            return {}
        self._status = line
        return {"STATUS": line}


def _watchdog_s(environment: Mapping[str, str]) -> float | None:
    """How often the manager wants a sign of life of this process; None if it does not."""
    wanted, process = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", "")
    if not (wanted.isascii() and wanted.isdigit()) or int(wanted) == 0:
        return None
    if process and process != str(os.getpid()):
        return None  # it is for another process of this service
    return int(wanted) / 1e6

"""How the command line talks to the daemon on this machine. Blocking, standard library only: it must start fast."""

from __future__ import annotations

import contextlib
import http.client
import json
from collections.abc import Iterable, Iterator
from typing import Any, Final

from meshnode.app.addresses import Address, parse_address
from meshnode.app.home import Home
from meshnode.app.language import ENGLISH
from meshnode.core.errors import BadAddress, MeshnodeError, NotAnswering, NotRunning
from meshnode.core.words import Words, language, say

#: The daemon answers at once, but for a large message that it writes to a slow disk.
TIMEOUT_S: Final = 120.0


class DaemonRefused(MeshnodeError):
    """{sentence}"""

    def __init__(self, sentence: str, exit_code: int) -> None:
        super().__init__(sentence=sentence)
        self.exit_code = exit_code


class Client:
    """The control interface of the daemon that runs on `home`."""

    def __init__(self, home: Home, timeout_s: float = TIMEOUT_S) -> None:
        self._home = home
        self._timeout_s = timeout_s

    def request(self, method: str, path: str, body: bytes | Iterable[bytes] = b"", size: int = 0) -> Any:
        """What the daemon answers, as JSON. `size`: bytes of `body` when that comes in pieces.

        Raises NoNode or NotJoined: there can be no daemon; NotRunning, NotAnswering; DaemonRefused: it said no.
        """
        with self.stream(method, path, body, size) as response:
            return self._json(response)

    @contextlib.contextmanager
    def stream(
        self, method: str, path: str, body: bytes | Iterable[bytes] = b"", size: int = 0
    ) -> Iterator[http.client.HTTPResponse]:
        """What the daemon answers, to be read in the block. Raises as `request`, and so does reading it; an OSError of
        anything else has to be caught within the block, or it is taken for the daemon's."""
        address, token = self._door()
        connection = http.client.HTTPConnection(address.host, address.port, timeout=self._timeout_s)
        length = len(body) if isinstance(body, bytes) else size
        headers = {"Authorization": f"Bearer {token}", "Content-Length": str(length)}
        headers["Accept-Language"] = language() or ENGLISH
        try:
            connection.connect()
        except OSError:
            raise self._absent() from None
        try:
            # If it hangs up before it has all, what it said by then is worth more than that it hung up.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.request(method, path, body, headers)
            response = connection.getresponse()
            self._check(response)
            yield response
        except (OSError, http.client.HTTPException) as error:
            raise self._not_answering(str(error) or type(error).__name__) from None
        finally:
            connection.close()

    def _check(self, response: http.client.HTTPResponse) -> None:
        if response.status == http.HTTPStatus.UNAUTHORIZED:
            # The token is this daemon's own, so this is not the daemon: its address was taken over after a power cut.
            raise self._not_answering(say("another program answers at its address"))
        if response.status >= 400:
            answer = self._json(response)
            if not isinstance(answer, dict) or "error" not in answer:
                raise self._not_answering(say("HTTP status {status}", status=response.status))
            raise DaemonRefused(str(answer["error"]), int(answer.get("exit_code", 1)))

    def _json(self, response: http.client.HTTPResponse) -> Any:
        try:
            return json.loads(response.read())
        except ValueError as error:
            raise self._not_answering(str(error) or type(error).__name__) from None

    def _door(self) -> tuple[Address, str]:
        try:
            door = json.loads(self._home.control_path.read_bytes())
            return parse_address(door["address"]), str(door["token"])
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            raise self._absent() from None
        except OSError as error:
            raise self._not_answering(say("control.json: {problem}", problem=error.strerror)) from None
        except (ValueError, LookupError, TypeError, AttributeError, BadAddress):
            raise self._not_answering(say("control.json is damaged")) from None

    def _not_answering(self, problem: Words | str) -> NotAnswering:
        if isinstance(problem, str):
            problem = " ".join(problem.split())
        return NotAnswering(home=self._home.path, problem=problem)

    def _absent(self) -> MeshnodeError:
        """Why no daemon answers: perhaps there can be none."""
        try:
            self._home.load()
        except MeshnodeError as why:
            return why
        return NotRunning(home=self._home.path)

"""The outbox: files and folders that programs put into a hot folder become messages.

    HOME/outbox/NAME           a file or a folder, taken when it is finished (`core.outbox`)
    HOME/outbox/NAME.json      describes the file NAME, as message.json in a folder describes that: an object of
                               kind, reference, meta, priority and to, as the control interface has them
    HOME/outbox/NAME.taken     it is a message now: {"key", "bundles", "size_bytes", "reference"}; NAME itself is gone
    HOME/outbox/NAME.refused   it is not, and stays: {"code", "reason", "of"}; tried again when NAME changes, or when
                               this is removed

The folder is on as soon as somebody makes it, and is never made here: a node whose owner has not asked for it takes
nothing. What was taken is removed, since it lay there readable, and is safe in the store; what a full disk or a missing
office hinders stays and is tried again. `hotfolder` says why nothing is lost or taken twice whenever the power goes.

The folder is looked at every LOOK_S, for its time of change as long as nothing waits, and for its existence every
ABSENT_S; a folder is watched in this way wherever it lies, on a network drive too. Names of files are names of
citizens, as likely as not: none is logged.
"""

from __future__ import annotations

import contextlib
import logging
import mimetypes
import os
from collections.abc import AsyncGenerator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import trio

from meshnode.app import language
from meshnode.app.control import code_of, manifest_of
from meshnode.app.hotfolder import Claim, HotFolder, Part
from meshnode.app.report import open_label, shut_label
from meshnode.app.unwritten import OPEN, StillWritten
from meshnode.app.writing import find_device
from meshnode.core.errors import BadFileName, BadSubmission, FileTrouble, MeshnodeError, MessageTooLarge
from meshnode.core.limits import KIB, REFERENCE_SIZE_MAX
from meshnode.core.message import Manifest, check_manifest
from meshnode.core.outbox import Patience, Take
from meshnode.core.submitting import message_key
from meshnode.core.words import reading

if TYPE_CHECKING:
    from meshnode.app.daemon import Daemon

log: Final = logging.getLogger("meshnode")

#: Between two looks into the folder, and while something in it waits.
LOOK_S: Final = 2.0
SOON_S: Final = 1.0
#: Between two looks at whether there is a folder by now.
ABSENT_S: Final = 30.0
#: All is listed at least so often, also if the folder seems unchanged.
THOROUGH_S: Final = 60.0
#: Between two attempts to answer what is a message already.
CLAIM_S: Final = 5.0
_PIECE: Final = 256 * KIB
_TICKET: Final = "ticket"
_STAYS: Final = "what is in the outbox stays there for now"


class Outbox:
    """The outbox of one daemon. `spoken`: the language of answers, None for English."""

    def __init__(self, daemon: Daemon, folder: Path, kind: str = "", spoken: str | None = None) -> None:
        self._daemon = daemon
        self._folder = HotFolder(folder)
        self._kind = kind
        self._catalogue = language.catalogue(spoken or language.of_locale())
        self._patience = Patience()
        self._said: set[str] = set()
        self._listed_s = float("-inf")
        self._resume_s: dict[str, float] = {}

    async def run(self, task_status: trio.TaskStatus[None]) -> None:
        """Take what comes, until cancelled."""
        task_status.started()
        wait_s = 0.0
        while True:
            await trio.sleep(wait_s)
            wait_s = await self.turn()

    async def turn(self) -> float:
        """Look once, and take what is finished. In how many seconds to look again."""
        now_s = trio.current_time()
        thorough = now_s - self._listed_s >= THOROUGH_S
        try:
            look = await trio.to_thread.run_sync(partial(self._folder.look, thorough=thorough))
        except OSError as error:
            self._say_once(f"cannot look into the outbox: {error.strerror}")
            return ABSENT_S
        if look is None:
            return ABSENT_S
        if thorough:
            self._listed_s = now_s
        for claim in look.claims:
            if now_s >= self._resume_s.get(claim.ticket, now_s):
                self._resume_s[claim.ticket] = now_s + CLAIM_S
                await self._resume(claim)
        for what in self._patience.decide(look.seen, look.refused, now_s):
            if isinstance(what, Take):
                await self._take(what)
            else:
                with reading(self._catalogue):
                    await self._refuse(what.name, what.looks, what.code, str(what.why))
        return LOOK_S if look.is_calm else SOON_S

    def _say_once(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            log.warning(text)

    # --- one entry ---

    async def _take(self, take: Take) -> None:
        claim: Claim | None = None
        try:
            claim = await trio.to_thread.run_sync(self._folder.claim, take)
            answer = await self._submit(claim)
        except StillWritten:
            self._patience.changed(take.name)
        except (BadSubmission, BadFileName, MessageTooLarge) as problem:
            if await self._put_back(claim):
                with reading(self._catalogue):
                    await self._refuse(take.name, take.looks, code_of(problem), str(problem))
            return
        except (MeshnodeError, OSError) as problem:
            why = str(problem)
            if isinstance(problem, FileTrouble | OSError):  # these name files
                why = "it cannot be read or moved"
            self._say_once(f"{_STAYS}: {why}")
            self._patience.put_off(take.name, trio.current_time())
        except (ValueError, RecursionError, MemoryError) as problem:
            # whatever lies there must not end the node; what it was may hold what nobody should read in a log
            self._say_once(f"{_STAYS}: {type(problem).__name__}")
            self._patience.put_off(take.name, trio.current_time())
        else:
            self._said = {text for text in self._said if not text.startswith(_STAYS)}
            await self._finish(claim, answer)
            return
        await self._put_back(claim)

    async def _put_back(self, claim: Claim | None) -> bool:
        if claim is None:
            return True  # if it was moved, the next look finds it
        try:
            await trio.to_thread.run_sync(self._folder.put_back, claim)
        except OSError as error:
            self._say_once(f"cannot put back what was not taken from the outbox: {error.strerror}")
            return False
        return True

    async def _submit(self, claim: Claim) -> dict[str, Any]:
        """Make it a message: what the answer says. Raises MeshnodeError or OSError."""
        said = await trio.to_thread.run_sync(claim.said)
        to = said.pop("to", "")
        if not isinstance(to, str):
            raise BadSubmission(problem="its to is not a text")
        described = {
            "kind": self._kind,
            "reference": _short(claim.name),
            **said,
            "files": [
                {"name": part.name, "size_bytes": part.size_bytes, "type": _type_of(part.name)}
                for part in claim.parts
            ],
        }
        manifest, priority = manifest_of(described)
        check_manifest(manifest)
        endpoint = await self._daemon.endpoint(find_device(self._daemon.node.state, to)) if to else None
        label = self._label(manifest, claim)
        async with contextlib.aclosing(self._bytes(claim)) as body:
            accepted = await self._daemon.submissions.take(manifest, priority, label, body, endpoint)
        return _answer(accepted.key, accepted.bundles, manifest.files_size, manifest.reference)

    def _label(self, manifest: Manifest, claim: Claim) -> bytes:
        drawer, nonce = self._daemon.drawer, os.urandom(12)
        return shut_label(drawer, manifest.reference, manifest.kind, nonce, **{_TICKET: claim.ticket})

    async def _bytes(self, claim: Claim) -> AsyncGenerator[bytes, None]:
        for part in claim.parts:
            path = claim.inside / part.path
            file = await trio.to_thread.run_sync(os.open, path, OPEN)
            try:
                _check_still(part, file)
                left = part.size_bytes
                while left:
                    piece = await trio.to_thread.run_sync(os.read, file, min(left, _PIECE))
                    if not piece:
                        raise StillWritten(name=part.name)
                    left -= len(piece)
                    yield piece
                _check_still(part, file)
            finally:
                os.close(file)

    async def _finish(self, claim: Claim, answer: dict[str, Any]) -> None:
        try:
            if not await trio.to_thread.run_sync(self._folder.finish, claim, answer):
                log.warning(
                    "something was added to a folder in the outbox after it was taken: it was put back"
                )
        except OSError as error:
            # it lies in the claim, and is answered at one of the next looks
            self._say_once(f"cannot answer what was taken from the outbox: {error.strerror}")
        else:
            log.info(f"took {answer['key']} from the outbox")

    async def _resume(self, claim: Claim) -> None:
        """What was being taken when the node ended, or could not be answered."""
        for message in reversed(self._daemon.node.state.custody.messages):
            label = open_label(self._daemon.drawer, message.label)
            if label.get(_TICKET) == claim.ticket:
                if not claim.parts:
                    self._say_once(
                        "what was taken from the outbox is not described any more: it stays in .taking"
                    )
                    return
                bundles = message.last - message.first + 1
                key = message_key(message.journal, message.first)
                await self._finish(claim, _answer(key, bundles, message.size_bytes, label["reference"]))
                return
        await self._put_back(claim)

    async def _refuse(self, name: str, looks: str, code: str, reason: str) -> None:
        try:
            await trio.to_thread.run_sync(self._folder.refuse, name, looks, code, reason)
        except OSError as error:
            self._say_once(f"cannot say in the outbox what was refused: {error.strerror}")
            self._patience.put_off(name, trio.current_time())
        else:
            log.info(f"refused something in the outbox ({code})")


def _answer(key: str, bundles: int, size_bytes: int, reference: str) -> dict[str, Any]:
    return {"key": key, "bundles": bundles, "size_bytes": size_bytes, "reference": reference}


def _check_still(part: Part, file: int) -> None:
    if not part.is_still(os.fstat(file)):
        raise StillWritten(name=part.name)


def _short(name: str) -> str:
    return name.encode(errors="replace")[:REFERENCE_SIZE_MAX].decode(errors="ignore")


def _type_of(name: str) -> str:
    kind, encoding = mimetypes.guess_type(name)
    return kind if kind and not encoding else "application/octet-stream"

"""To whom a message goes: the office, or a device that has introduced itself to the fleet (`core.introducing`).

Only an office writes to devices, and a device takes messages from an office only: nobody else can tell an officer that
a recording was refused.
"""

from __future__ import annotations

from collections.abc import Callable

from meshnode.core.errors import BadSubmission, LocalError, RemoteError
from meshnode.core.fleet import Endpoint
from meshnode.core.identity import Certificate, JournalId
from meshnode.core.introducing import device_endpoint, introduction_journal
from meshnode.core.rows import StoredBundle
from meshnode.core.state import State
from meshnode.core.words import Clause, say

Read = Callable[[JournalId, int], StoredBundle | None]


class NotAnOffice(LocalError):
    """Only an office writes to devices, and this node is of role {role}: submit it to the office instead."""


class UnknownHere(LocalError):
    """No device {device} has been heard of here yet: `meshnode devices` lists those that have."""


class UnknownMessage(LocalError):
    """No message {key} has come to this office: give its key as message.json has it."""


def known_devices(state: State) -> list[Certificate]:
    """The devices that can be written to: introduced, not revoked, not this one; by name."""
    journals = state.ledger.journals
    found = []
    for device, certificate in state.certificates.items():
        journal = journals.get(introduction_journal(device))
        if journal is not None and journal.held and device not in state.document.revoked:
            found.append(certificate)
    return sorted(
        (it for it in found if it.device != state.identity.device), key=lambda it: (it.name, it.device)
    )


def find_device(state: State, text: str) -> Certificate:
    """The device of this name or id in hex. Raises NotAnOffice or UnknownHere."""
    _check_office(state)
    for certificate in known_devices(state):
        if text in (certificate.name, certificate.device.hex()):
            return certificate
    raise UnknownHere(device=repr(text))


def _check_office(state: State) -> None:
    role = state.identity.certificate.role
    if role != "office":
        raise NotAnOffice(role=role)


def source_of(state: State, key: str) -> Certificate:
    """The device that wrote the message with this key to this office. Raises NotAnOffice or UnknownMessage."""
    journal_text, _, first = key.partition(":")
    try:
        journal = state.ledger.journals.get(JournalId(bytes.fromhex(journal_text)))
    except ValueError:
        journal = None
    _check_office(state)
    known = journal is not None and first.isascii() and first.isdigit()
    if (
        journal is None
        or journal.source is None
        or not known
        or int(first) not in journal.held | journal.receipted
    ):
        raise UnknownMessage(key=repr(key))
    return find_device(state, journal.source.hex())


def endpoint_of(certificate: Certificate, read: Read) -> Endpoint:
    """Where messages to this device go. Blocks. Raises BadSubmission: what it said of itself is unusable."""
    stored = read(introduction_journal(certificate.device), 1)
    try:
        if stored is None:
            raise RemoteError(say("introduction"), "is gone")
        return device_endpoint(certificate, stored.payload)
    except RemoteError as problem:
        wrong = say(
            "nothing can be sealed to {name}: {problem}", name=certificate.name, problem=Clause(problem)
        )
        raise BadSubmission(problem=wrong) from None

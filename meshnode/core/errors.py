"""What can go wrong, as sentences for people.

The docstring of each class is the sentence that a user reads, with the fields of the case in braces. Whose fault it
is decides the family: `LocalError` is this device, its files or its user; `RemoteError` is a peer, a bundle or a
document from elsewhere, and ends that contact only, never the node.
"""

from __future__ import annotations

import inspect
from typing import TypeVar

from meshnode.core.words import Clause, Said, Words, filled, translated

E = TypeVar("E")


def sentence_of(error: type[MeshnodeError]) -> str:
    """The sentence of a class of errors, as it stands in the code."""
    return " ".join(inspect.cleandoc(error.__doc__ or "").split())


class MeshnodeError(Exception):
    """Something went wrong in meshnode."""

    exit_code = 1

    def __init__(self, **fields: object) -> None:
        self.fields = fields
        super().__init__(str(self))

    def __str__(self) -> str:
        return filled(translated(sentence_of(type(self))), self.fields)


def bare(value: E) -> E:
    """An error that is to be kept, without where it happened: the frames there hold what was being worked on, as the
    payload that was opened, for as long as it is kept. What it says stays."""
    if isinstance(value, BaseException):
        value.__traceback__ = value.__cause__ = value.__context__ = None
    inner: object = getattr(value, "fields", None) or getattr(value, "sentence", None)
    for each in inner.values() if isinstance(inner, dict) else [inner]:
        if isinstance(each, BaseException | Words | Clause):
            bare(each)
    return value


class LocalError(MeshnodeError):
    """This device could not do what was asked."""


class RemoteError(MeshnodeError):
    """{field} {problem}."""

    def __init__(self, field: Said, problem: Said) -> None:
        super().__init__(field=field, problem=problem)


# --- homes, keys, configuration ---------------------------------------------------------------------------------


class NoNode(LocalError):
    """There is no node in {home}: make one with `meshnode init --name NAME`, or name its folder with --home."""


class NodeExists(LocalError):
    """There already is a node in {home}, named {name}: choose another --home, nothing was changed."""


class HomeNotEmpty(LocalError):
    """{home} holds other files, so it cannot become a home: give --home a folder of its own."""


class HomeReadable(LocalError):
    """Other users of this machine may read {path}, which holds what must stay private: run `chmod {mode} {path}`
    and try again."""


class HomeOfOther(HomeReadable):
    """{path} belongs to the user {owner} of this machine: run meshnode as that user, or give the folder to yourself
    with `chown`."""


class HomeBusy(LocalError):
    """A daemon already runs on {home}: a second one would spoil its store; stop that one first."""


class NotJoined(LocalError):
    """The node in {home} belongs to no fleet yet: take {request} to the authority and run `meshnode join` with the
    welcome that you get back."""


class NotRunning(LocalError):
    """The node in {home} is not running: start it with `meshnode run`."""

    exit_code = 3


class NotAnswering(LocalError):
    """The node in {home} does not answer ({problem}): look at what its daemon logs."""

    exit_code = 3


class BadConfig(LocalError):
    """{path}: {problem}."""


class PortTaken(LocalError):
    """{purpose} cannot use {address} ({problem}): change `{key}` in config.toml, or stop the program that holds it."""


class BadAddress(LocalError):
    """{text} is not an address: write HOST:PORT, or [IPv6]:PORT, with a port from {port_min} to 65535."""

    exit_code = 2


class BadName(LocalError):
    """{name} cannot be a device's name: use 1 to 63 letters, digits, dots, dashes or underscores, a letter or digit
    first, and no path."""


class FileTrouble(LocalError):
    """{path} {problem}."""


class BadPassphrase(LocalError):
    """The passphrase does not open the authority's key {path}."""


class NoPassphrase(LocalError):
    """The authority's key {path} is encrypted: name the file with its passphrase, with --passphrase-file."""


class KeyLocked(LocalError):
    """The key {path} has a passphrase: name the file that holds it in MESHNODE_PASSPHRASE_FILE."""


class WrongPassphrase(LocalError):
    """The passphrase that was given does not open the key {path}."""


class EmptyPassphrase(LocalError):
    """{path} holds no passphrase: write one line of text into it."""


# --- founding and enrolling -------------------------------------------------------------------------------------


class NoAuthority(LocalError):
    """There is no authority in {directory}: found one with `meshnode authority init`."""


class AuthorityExists(LocalError):
    """{directory} already holds files: an authority is founded in a new or empty folder, nothing was changed."""


class BadFleetName(LocalError):
    """{name} cannot be a fleet's name: use 1 to 63 letters, digits, spaces, dots, dashes or underscores, a letter or
    digit first."""


class NameTaken(LocalError):
    """The fleet already has a device named {name}, with another key: choose another name, or revoke that one first."""


class DeviceRevoked(LocalError):
    """{name} was revoked, and a revoked key stays out for good: make a new node on that device and enroll that."""


class DocumentFull(LocalError):
    """A fleet document holds at most {limit} {what}: nothing was changed."""


class UnknownDevice(LocalError):
    """The fleet has no device {device}: `meshnode authority show` lists them."""


class BadRequest(LocalError):
    """{path} is not a whole enrolment request ({problem}): have the device write it again with `meshnode init`."""


class BadWelcome(LocalError):
    """{path} is not a whole welcome ({problem}): ask the authority for it again, nothing was changed."""


class WelcomeForOther(LocalError):
    """{path} welcomes the device {name} ({device}), not this one ({own}): ask for the welcome of this device."""


class OtherFleet(LocalError):
    """{path} is of the fleet {theirs}, but this node belongs to the fleet {ours}: nothing was changed."""


class BadFleetDocument(LocalError):
    """{path} is not a true fleet document of this fleet ({problem}): ask the authority for it again."""


class OlderFleetDocument(LocalError):
    """{path} is version {theirs}, older than version {ours} that this node already has: nothing was changed."""


class RevocationsMissing(LocalError):
    """{path} is version {theirs} of the fleet document, and lets devices in that version {ours} revokes (there are
    {n}): it was made with an old copy of the authority's folder; revoke them there too and publish again, nothing was
    changed."""


# --- submitting -------------------------------------------------------------------------------------------------


class NoOffice(LocalError):
    """The fleet document names no office yet, so there is nowhere to send: meet a colleague, or run
    `meshnode fleet update` with a newer document."""


class BadFileName(LocalError):
    """{name} cannot be a file's name in a message: {problem}."""


class BadSubmission(LocalError):
    """The message was not taken: {problem}."""


class NotAsItsKind(BadSubmission):
    """The message was not taken, because it is not as the kind {kind} has to be: {problem}."""


class NotDelivered(LocalError):
    """The message {key} was not at the office within {timeout_s} s: it goes on its way, `meshnode messages` says where
    it is."""


class BadSchema(LocalError):
    """{path} is no schema that messages can be checked by: {problem}."""


class MessageTooLarge(LocalError):
    """The message was not taken: it has {size_bytes} bytes, and at most {limit_bytes} fit into one."""


class NoRoom(LocalError):
    """The message was not taken: it needs {needed_bytes} bytes and {free_bytes} are free above the floor that stays
    free ({floor_bytes}): free space on this disk and submit again."""


class StoreTrouble(LocalError):
    """The store {path} cannot be used: {problem}."""


class StoreTooNew(LocalError):
    """The store {path} was written by {program} (its format is {theirs}, and this meshnode {version} knows none above
    {ours}): install that version again, or a newer one; nothing was changed."""

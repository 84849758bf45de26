"""What a node says of itself: the dictionaries behind `status`, `messages` and `peers`.

Pure: read off the brain's state. Keys and units are what programs rely on (the names say the units).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from meshnode.app.received import VERDICTS, Answer, Inbox
from meshnode.app.writing import known_devices
from meshnode.core.custody import CARRIED, DELIVERED, ON_THIS_DEVICE_ONLY, MessageState
from meshnode.core.errors import MeshnodeError
from meshnode.core.identity import DeviceId, JournalId
from meshnode.core.ledger import Journal
from meshnode.core.limits import PAYLOAD_SIZE_MAX
from meshnode.core.sealing import Drawer
from meshnode.core.state import State
from meshnode.core.submitting import message_key
from meshnode.core.uplink import SIGN_IN, Problem
from meshnode.core.words import Said, Words, count, say

#: Messages that one alarm names.
NAMED_MAX: Final = 5

#: What an alarm means to whoever watches many nodes. Critical: records are lost, or nothing is taken or handed on until
#: somebody acts, or it is in doubt who takes part. Warning: it works on, and should be looked at.
CRITICAL, WARNING = "critical", "warning"
SEVERITIES: Final = {
    "revoked": CRITICAL,
    "store": CRITICAL,
    SIGN_IN: WARNING,
    "old-authority": CRITICAL,
    "twin": CRITICAL,
    "rotten": CRITICAL,
    "damaged": CRITICAL,
    "disk-full": CRITICAL,
    "quota-full": WARNING,
    "no-office": WARNING,
    "sink": CRITICAL,
    "quarantine": WARNING,
    "restored": CRITICAL,
}


@dataclass(frozen=True, slots=True)
class OfficeView:
    """What an office's desk has to say: what keeps the sink from taking, what was refused, who was restored."""

    problem: MeshnodeError | None
    quarantined: dict[str, MeshnodeError | Words]
    restored: list[Words]


@dataclass(frozen=True, slots=True)
class StoreView:
    """Bytes of the store, and of them those that are free for reuse."""

    size_bytes: int
    reusable_bytes: int


def status(
    state: State,
    store: StoreView,
    office: OfficeView | None,
    inbox: Inbox,
    now_s: float,
    uplink_problem: Problem | None = None,
) -> dict[str, Any]:
    """The whole of `meshnode status --json`. `uplink_problem`: why the office is not reached, as far as is known."""
    problem = None if state.uplink else uplink_problem
    certificate = state.identity.certificate
    counts = Counter(message.state for message in state.custody.states())
    verdicts = Counter(answer.verdict for answer in inbox.answers.values())
    return {
        "device": {
            "name": certificate.name,
            "id": certificate.device.hex(),
            "roles": list(state.identity.roles),
            "fleet": state.document.name,
            "fleet_version": state.document.version,
        },
        "uplink": state.uplink,
        "uplink_problem": None if problem is None else {"code": problem.code, "text": str(problem.text)},
        "messages": {
            "submitted": counts.total(),
            ON_THIS_DEVICE_ONLY: counts[ON_THIS_DEVICE_ONLY],
            CARRIED: counts[CARRIED],
            DELIVERED: counts[DELIVERED],
            **{verdict: verdicts[verdict] for verdict in VERDICTS},
        },
        "received": inbox.count,
        "oldest_waiting_s": _oldest_waiting_s(state, now_s),
        "carrying": {
            "bundles": state.ledger.foreign_count,
            "bytes": state.ledger.foreign_size,
            "sources": len(state.ledger.foreign_bytes),
        },
        "contacts": peers(state, now_s),
        "store": {
            "bytes": store.size_bytes - store.reusable_bytes,
            "free_bytes": max(0, state.free_bytes),
            "floor_bytes": state.floor_bytes,
            "quota_bytes": state.settings.foreign_quota_bytes,
        },
        "alarms": [
            {"code": code, "text": str(text), "severity": SEVERITIES.get(code, WARNING)}
            for code, text in alarms(state, office, problem)
        ],
    }


def one_line(state: State) -> str:
    """The same in few words, as `systemctl status` shows it; English, as the log."""
    counts = Counter(message.state for message in state.custody.states())
    waiting = counts[ON_THIS_DEVICE_ONLY] + counts[CARRIED]
    return (
        f"in contact with {len(state.contacts)}, the office {'is' if state.uplink else 'is not'} reached,"
        f" {waiting} own messages wait, {state.ledger.foreign_count} bundles of others are carried"
    )


def _oldest_waiting_s(state: State, now_s: float) -> int | None:
    oldest: float | None = None
    for seen in state.custody.states():
        journal = state.ledger.journals.get(seen.message.journal)
        entry = journal.entries.get(seen.message.first) if journal else None
        if seen.state != DELIVERED and entry is not None:
            oldest = entry.born_s if oldest is None else min(oldest, entry.born_s)
    return None if oldest is None else int(now_s - oldest)


def messages(
    state: State,
    drawer: Drawer,
    answers: Mapping[str, Answer],
    among: Iterable[MessageState] | None = None,
) -> list[dict[str, Any]]:
    """`meshnode messages --json`: in the order of submission. A message that was delivered and answered is in the state
    that the answer says. `among`: only of these."""
    rows = []
    for seen in state.custody.states() if among is None else among:
        label = open_label(drawer, seen.message.label)
        key = message_key(seen.message.journal, seen.message.first)
        answer = answers.get(key) if seen.state == DELIVERED else None
        rows.append(
            {
                "key": key,
                "to": _destination(state, seen.message.journal),
                "reference": label["reference"],
                "kind": label["kind"],
                "size_bytes": seen.message.size_bytes,
                "submitted_ms": seen.message.submitted_ms,
                "state": answer.verdict if answer else seen.state,
                "reason": answer.reason if answer else "",
                "copies": seen.copies,
            }
        )
    return rows


def _destination(state: State, journal_id: JournalId) -> str:
    """A device's name, or `office`."""
    journal = state.ledger.journals.get(journal_id)
    certificate = state.certificates.get(DeviceId(journal.destination)) if journal else None
    return certificate.name if certificate else "office"


def devices(state: State) -> list[dict[str, Any]]:
    """`meshnode devices --json`: those that an office can write to, by name."""
    return [{"name": it.name, "id": it.device.hex(), "roles": [it.role]} for it in known_devices(state)]


def peers(state: State, now_s: float) -> list[dict[str, Any]]:
    """`meshnode peers --json`: contacts that are open, by name."""
    rows = []
    for contact in state.greeted:
        assert contact.hello is not None
        rows.append(
            {
                "name": contact.peer.name,
                "id": contact.device.hex(),
                "address": contact.address,
                "roles": list(contact.hello.roles),
                "since_s": int(now_s - contact.opened_s),
                "uplink": contact.hello.uplink,
                "fleet_version": contact.hello.fleet_version,
            }
        )
    return sorted(rows, key=lambda row: (row["name"], row["id"]))


def alarms(
    state: State, office: OfficeView | None, uplink_problem: Problem | None
) -> list[tuple[str, object]]:
    """(code, what is wrong and what to do), the worst first. The latter becomes a text by `str`."""
    found: list[tuple[str, object]] = []
    if state.identity.device in state.document.revoked:
        found.append(
            (
                "revoked",
                say(
                    "This device was revoked, colleagues refuse it: bring it to the office with its messages."
                ),
            )
        )
    if state.store_problem is not None:
        found.append(("store", state.store_problem))
    if uplink_problem is not None and uplink_problem.code == SIGN_IN:
        found.append((uplink_problem.code, uplink_problem.text))
    if state.forgiving_version:
        found.append(("old-authority", _OLD_AUTHORITY.about(version=state.forgiving_version)))
    if state.has_twin:
        found.append(("twin", _TWIN))
    found.extend(_damage_alarms(state))
    if state.room_bytes < PAYLOAD_SIZE_MAX:
        found.append(
            (
                "disk-full",
                say("This disk is full: nothing more is taken or carried until space is freed on it."),
            )
        )
    elif state.foreign_room_bytes < PAYLOAD_SIZE_MAX:
        found.append(
            (
                "quota-full",
                say("The space for colleagues' records is full: meet the office, or raise the quota."),
            )
        )
    if not state.document.endpoints:
        found.append(
            (
                "no-office",
                say(
                    "This fleet document names no office yet, so nothing can be submitted: meet a colleague who has a"
                    " newer one, or run `meshnode fleet update`."
                ),
            )
        )
    if office is not None:
        found.extend(_office_alarms(office))
    return found


_OLD_AUTHORITY: Final = say(
    "Version {version} of the fleet document lets in devices that were revoked, and is not followed: it was made with"
    " an old copy of the authority's folder. Whoever keeps the authority has to revoke them there too, and publish"
    " again."
)
_TWIN: Final = say(
    "Another machine uses the key of this device at the same time: one of the two homes is a copy of the other. Nothing"
    " is lost by that, the office takes the messages of both. Stop the node on one of them, and make a new node there"
    " with `meshnode init` and the authority's welcome."
)


def _damage_alarms(state: State) -> list[tuple[str, object]]:
    """What this disk has spoilt: own messages by their name, of all else how much."""
    found: list[tuple[str, object]] = []
    journals = state.ledger.journals
    lost = {place for place in state.rotten if not _is_delivered(journals.get(place[0]), place[1])}
    drawer = Drawer(state.identity.key.derive(b"labels")) if lost else None
    own = []
    for message in state.custody.messages if drawer else ():
        numbers = range(message.first, message.last + 1)
        if gone := {(message.journal, number) for number in numbers} & lost:
            lost -= gone
            assert drawer is not None
            reference = open_label(drawer, message.label)["reference"]
            key = message_key(message.journal, message.first)
            own.append(f"{reference} ({key})" if reference else key)
    if own:
        names: Said = ", ".join(own[:NAMED_MAX])
        if more := len(own[NAMED_MAX:]):
            names = count("{names} and {n} more", "{names} and {n} more", more, names=names)
        text = say(
            "Damaged on this disk and not known to be at the office: {messages}. They come back by themselves if a"
            " colleague carries them; if this still stands after you have met your colleagues and the office, record"
            " them again. Have the disk checked.",
            messages=names,
        )
        found.append(("rotten", text))
    if lost:
        text = count(
            "{n} bundle is damaged on this disk, and is fetched again from others: have the disk checked, and do not"
            " erase anything before the office has it.",
            "{n} bundles are damaged on this disk, and are fetched again from others: have the disk checked, and do not"
            " erase anything before the office has them.",
            len(lost),
        )
        found.append(("rotten", text))
    if state.damaged:
        text = say(
            "The store has damaged rows, which are left out ({rows}). Most come again from others; to look for what"
            " can be rescued, stop this node and run `meshnode store salvage`. Have the disk checked.",
            rows=", ".join(f"{kind}: {number}" for kind, number in sorted(state.damaged.items())),
        )
        found.append(("damaged", text))
    return found


def _is_delivered(journal: Journal | None, number: int) -> bool:
    return journal is not None and number in journal.receipted


def _office_alarms(office: OfficeView) -> list[tuple[str, object]]:
    found: list[tuple[str, object]] = []
    if office.problem is not None:
        text = say("Messages cannot be handed on now, and wait here: {problem}", problem=office.problem)
        found.append(("sink", text))
    if office.quarantined:
        text = count(
            "{n} message cannot be handed on and is kept apart, because: {problem}",
            "{n} messages cannot be handed on and are kept apart, the first because: {problem}",
            len(office.quarantined),
            problem=next(iter(office.quarantined.values())),
        )
        found.append(("quarantine", text))
    found.extend(("restored", text) for text in office.restored)
    return found


# --- what an officer calls a message -----------------------------------------------------------------------------


def shut_label(drawer: Drawer, reference: str, kind: str, nonce: bytes, **more: str) -> bytes:
    """What `messages` shows of a message besides its state, unreadable without the device key; and `more`."""
    return drawer.close(json.dumps({"reference": reference, "kind": kind, **more}), nonce)


def open_label(drawer: Drawer, label: bytes) -> dict[str, str]:
    """What `shut_label` was given; empty texts if the store was brought here from another device."""
    try:
        opened: dict[str, str] = json.loads(drawer.open(label))
    except ValueError:
        return {"reference": "", "kind": ""}
    return opened

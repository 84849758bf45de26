"""The shapes of what the control interface answers and takes: JSON Schemas, as `openapi` publishes them.

All properties are there always, unless a shape names its `optional` ones. Programs should pass over properties that
they do not know: later versions may add some.
"""

from __future__ import annotations

from typing import Any, Final

Shape = dict[str, Any]

TEXT: Final[Shape] = {"type": "string"}
FLAG: Final[Shape] = {"type": "boolean"}
COUNT: Final[Shape] = {"type": "integer", "minimum": 0}
BYTES: Final[Shape] = {**COUNT, "description": "bytes"}
WALL_MS: Final[Shape] = {**COUNT, "description": "milliseconds since 1970, by the wall clock of that device"}
AGE_S: Final[Shape] = {**COUNT, "description": "seconds"}
TEXTS: Final[Shape] = {"type": "object", "additionalProperties": TEXT}
DEVICE_ID: Final[Shape] = {"type": "string", "pattern": "^[0-9a-f]{32}$"}
KEY: Final[Shape] = {
    "type": "string",
    "pattern": "^[0-9a-f]{32}:[1-9][0-9]*$",
    "description": "journal and number of the first bundle: what a message is called everywhere",
}
ROLE: Final[Shape] = {"enum": ["officer", "gateway", "office"]}


def one_of(*values: str) -> Shape:
    """One of these texts."""
    return {"enum": list(values)}


def many(shape: Shape) -> Shape:
    """A list."""
    return {"type": "array", "items": shape}


def maybe(shape: Shape) -> Shape:
    """That, or null."""
    return {"anyOf": [shape, {"type": "null"}]}


def fields(optional: tuple[str, ...] = (), description: str = "", **shapes: Shape) -> Shape:
    """An object with these properties."""
    shape: Shape = {
        "type": "object",
        "required": [name for name in shapes if name not in optional],
        "properties": shapes,
    }
    return {**shape, "description": description} if description else shape


def ref(name: str) -> Shape:
    """One of SHAPES."""
    return {"$ref": f"#/components/schemas/{name}"}


PAIR: Final[Shape] = {
    "type": "array",
    "prefixItems": [COUNT, COUNT],
    "items": False,
    "minItems": 2,
    "description": "first and last number",
}
STATES: Final = ("on_this_device_only", "carried", "delivered", "accepted", "refused")

SHAPES: Final[dict[str, Shape]] = {
    "Error": fields(
        ("code",),
        "Why a request was not carried out: a sentence for people, in their language, and the exit code of the command"
        " line. `code`, where there is one, is for programs.",
        error=TEXT,
        exit_code=COUNT,
        code=TEXT,
    ),
    "Said": fields(code=TEXT, text=TEXT),
    "Alarm": fields(code=TEXT, text=TEXT, severity=TEXT),
    "Contact": fields(
        name=TEXT,
        id=DEVICE_ID,
        address=TEXT,
        roles=many(ROLE),
        since_s=AGE_S,
        uplink=FLAG,
        fleet_version=COUNT,
    ),
    "Status": fields(
        device=fields(name=TEXT, id=DEVICE_ID, roles=many(ROLE), fleet=TEXT, fleet_version=COUNT),
        uplink={**FLAG, "description": "whether the office is reached"},
        uplink_problem=maybe(ref("Said")),
        messages=fields((), "", submitted=COUNT, **dict.fromkeys(STATES, COUNT)),
        received={**COUNT, "description": "messages from the office"},
        oldest_waiting_s=maybe(AGE_S),
        carrying=fields(bundles=COUNT, bytes=BYTES, sources=COUNT),
        contacts=many(ref("Contact")),
        store=fields(bytes=BYTES, free_bytes=BYTES, floor_bytes=BYTES, quota_bytes=BYTES),
        alarms={**many(ref("Alarm")), "description": "the worst first"},
    ),
    "Message": fields(
        key=KEY,
        to={**TEXT, "description": "a device's name, or office"},
        reference=TEXT,
        kind=TEXT,
        size_bytes=BYTES,
        submitted_ms=WALL_MS,
        state=one_of(*STATES),
        reason={**TEXT, "description": "why it was refused"},
        copies={**COUNT, "description": "other devices that hold all of it"},
    ),
    "Story": fields(
        ("missing",),
        "What became of one message. `state` and `now_code` are those of Message, and some more of others' messages.",
        key=KEY,
        reference=TEXT,
        kind=TEXT,
        source=TEXT,
        to=TEXT,
        size_bytes=maybe(BYTES),
        bundles=maybe(COUNT),
        state=TEXT,
        copies=COUNT,
        priority=maybe(one_of("urgent", "routine")),
        missing=many(PAIR),
        story=many(
            fields(at_ms=maybe(WALL_MS), code=TEXT, text=TEXT, peer=maybe(TEXT), bundles=maybe(COUNT))
        ),
        now=TEXT,
        now_code=TEXT,
    ),
    "Submission": fields(
        ("kind", "meta", "reference", "priority", "to"),
        "What stands before the files' bytes. The bytes follow one after another, in this order.",
        kind={**TEXT, "description": "what it is; some kinds are checked before they are taken, as ktp-el"},
        meta=TEXTS,
        reference=TEXT,
        priority=one_of("urgent", "routine"),
        to={**TEXT, "description": "at an office: the name or id of a device; empty for the office"},
        files=many(fields(("type",), name=TEXT, size_bytes=BYTES, type=TEXT)),
    ),
    "Taken": fields(key=KEY, bundles=COUNT, size_bytes=BYTES),
    "Answer": fields(("reason",), key=KEY, verdict=one_of("accepted", "refused"), reason=TEXT),
    "Answered": fields(key=KEY),
    "Received": fields(
        key=KEY,
        source=fields(name=TEXT, id=DEVICE_ID),
        kind=TEXT,
        reference=TEXT,
        meta=TEXTS,
        received_ms=WALL_MS,
        text=TEXT,
        files=many(fields(name=TEXT, size_bytes=BYTES, type=TEXT, sha256=TEXT)),
        path={**TEXT, "description": "the folder with the files"},
    ),
    "Device": fields(name=TEXT, id=DEVICE_ID, roles=many(ROLE)),
    "Adopted": fields(
        version=COUNT, adopted={**FLAG, "description": "whether it is newer than the one before"}
    ),
    "Compared": fields(
        journals={"type": "array", "description": "[journal, ranges known here, ranges delivered] of each"}
    ),
    "Imported": fields(
        taken=COUNT,
        known=COUNT,
        useless=COUNT,
        no_room=COUNT,
        receipts=COUNT,
        damaged=COUNT,
        fleet_version=COUNT,
    ),
    "Officer": fields(
        name=TEXT,
        id=DEVICE_ID,
        role=ROLE,
        revoked=FLAG,
        recorded=COUNT,
        here=COUNT,
        on_the_way=COUNT,
        delivered=COUNT,
        missing=many(PAIR),
        journals=many(fields(journal=TEXT, missing=many(PAIR))),
        missing_text=TEXT,
        oldest_missing_s=maybe(AGE_S),
        last_seen_ms=maybe(WALL_MS),
        last_seen_via=maybe(TEXT),
        restored=FLAG,
    ),
    "Overview": fields(
        now_ms=WALL_MS,
        officers=many(ref("Officer")),
        carried=many(fields(carrier=TEXT, source=TEXT, itself=FLAG, bundles=COUNT, bytes=BYTES)),
        days=many(
            fields(
                day=TEXT,
                messages=COUNT,
                bytes=BYTES,
                delay_p50_s=maybe({"type": "number"}),
                delay_p90_s=maybe({"type": "number"}),
                delay_max_s=maybe({"type": "number"}),
            )
        ),
        quarantine=many(
            fields(key=KEY, source=TEXT, reason=TEXT, code=TEXT, since_ms=WALL_MS, can_retry=FLAG)
        ),
        refused=many(fields(key=KEY, source=TEXT, reason=TEXT, code=TEXT, at_ms=WALL_MS, answer_key=KEY)),
    ),
    "Retry": fields(key=KEY),
    "Retried": fields(key=KEY, state=one_of("delivered", "quarantined", "waiting")),
    "Link": fields(url=TEXT),
    "OpenApi": {"type": "object", "description": "this document"},
}

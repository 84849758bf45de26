"""How what a node says looks to a person: text made of the JSON that programs get, nothing more.

A screen fits its terminal, however narrow, and says everything in words. Colours and the bar are for who sees them: in
a pipe, on a terminal that is called dumb, with NO_COLOR or with `--plain` (for a screen reader, say) there are none.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import click

from meshnode.core.words import Words, count, say

#: What JSON leaves raw in a string and a terminal may obey: DEL and C1, and what turns the writing direction.
_CONTROLS: Final = re.compile("[\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
#: A text is easiest to read in lines that are not longer.
_WIDTH_MAX: Final = 100
_WIDTH_MIN: Final = 20

ROLES: Final = {"officer": say("officer"), "gateway": say("gateway"), "office": say("office")}


@dataclass(frozen=True, slots=True)
class Look:
    """How wide a screen may be, in letters (None: as wide as it needs), and whether there is anything but text."""

    width: int | None = None
    is_plain: bool = True

    @classmethod
    def of_terminal(cls, *, plain: bool = False) -> Look:
        """That of standard output."""
        if not sys.stdout.isatty():
            return cls()
        width = max(_WIDTH_MIN, min(_WIDTH_MAX, shutil.get_terminal_size().columns))
        bare = plain or os.environ.get("TERM") == "dumb" or bool(os.environ.get("NO_COLOR"))
        return cls(width, bare)

    def style(self, text: str, **how: Any) -> str:
        """In colour, if there are colours."""
        return text if self.is_plain else click.style(text, **how)

    def wrap(self, text: str | Words, first: str = "", rest: str = "") -> list[str]:
        """The lines of a text; `first` and `rest` stand before the first line and before the others."""
        if self.width is None:
            return [f"{first}{text}"]
        lines = textwrap.wrap(
            str(text), self.width, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False
        )
        return lines or [first]


def size(bytes_: int) -> str:
    """Bytes as a person says them: `512 B`, `1.4 MB`."""
    value = float(bytes_)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            break
        value /= 1000
    if unit == "B" or value >= 100:
        return f"{value:.0f} {unit}"
    whole, _, tenth = f"{value:.1f}".partition(".")
    return str(say("{whole}.{tenth} {unit}", whole=whole, tenth=tenth, unit=unit))


def duration(seconds: int) -> str:
    """Seconds as a person says them: `40 s`, `3 min`, `2 h 5 min`, `4 days`."""
    if seconds < 60:
        return str(say("{seconds} s", seconds=seconds))
    if seconds < 3600:
        return str(say("{minutes} min", minutes=seconds // 60))
    if seconds < 48 * 3600:
        return str(say("{hours} h {minutes} min", hours=seconds // 3600, minutes=seconds % 3600 // 60))
    return str(count("{n} day", "{n} days", seconds // 86400))


def moment(wall_ms: int) -> str:
    """When, by this machine's clock and zone: `2026-11-28 14:05`."""
    return datetime.fromtimestamp(wall_ms / 1000).astimezone().strftime("%Y-%m-%d %H:%M")


def roles(names: list[str]) -> str:
    """`officer`, in the reader's language."""
    return ", ".join(str(ROLES.get(name, name)) for name in names)


def plain(text: str) -> str:
    """Text from elsewhere without control characters, which a terminal might obey."""
    return "".join(letter if letter.isprintable() else "�" for letter in text)


def json_text(value: Any) -> str:
    """For programs, and for people who look at it: every letter as it is, but for those that a terminal might obey."""
    text = json.dumps(value, indent=2, ensure_ascii=False, default=str)
    return _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def table(heads: list[str], rows: list[list[str]], look: Look | None = None) -> str:
    """Columns as wide as they need to be; where they do not fit, one below the other."""
    lines = [heads, *rows]
    widths = [max(len(line[at]) for line in lines) for at in range(len(heads))]
    width = None if look is None else look.width
    if width is not None and sum(widths) + 2 * len(widths) - 2 > width:
        assert look is not None
        return "\n\n".join("\n".join(_stacked(heads, row, look)) for row in rows)
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _stacked(heads: list[str], row: list[str], look: Look) -> Iterator[str]:
    for head, cell in zip(heads, row, strict=True):
        yield from look.wrap(f"{head}: {cell}", rest="  ")


# --- lists ------------------------------------------------------------------------------------------------------


def message_state(message: dict[str, Any]) -> str:
    """Where a message of this device is, as `messages` has it."""
    state: Words = {
        "on_this_device_only": say("on this device only"),
        "carried": count("carried by {n} colleague", "carried by {n} colleagues", message["copies"]),
        "delivered": say("safe at the office"),
        "accepted": say("accepted"),
        "refused": say("REFUSED"),
    }[message["state"]]
    if message["to"] != "office":
        if message["state"] == "delivered":
            state = say("delivered")
        return str(say("{state}, to {name}", state=state, name=plain(message["to"])))
    if message["reason"]:
        return f"{state}: {plain(message['reason'])}"
    return str(state)


def messages_screen(told: list[dict[str, Any]], look: Look | None = None) -> str:
    """The screen of `meshnode messages`."""
    if not told:
        return str(say("No messages submitted on this device yet."))
    rows = [
        [
            moment(message["submitted_ms"]),
            message_state(message),
            size(message["size_bytes"]),
            plain(message["kind"]) or "-",
            plain(message["reference"]) or "-",
            message["key"],
        ]
        for message in told
    ]
    heads = (say("submitted"), say("where"), say("size"), say("kind"), say("reference"), say("key"))
    return table(list(map(str, heads)), rows, look)


def received_screen(told: list[dict[str, Any]], look: Look | None = None) -> str:
    """The screen of `meshnode messages --received`: one paragraph a message, the newest last."""
    if not told:
        return str(say("The office has not written to this device."))
    look = look or Look()
    paragraphs = []
    for message in told:
        what = plain(message["reference"]) or plain(message["kind"]) or say("message")
        head = say(
            "{time}  {what}, from {name}",
            time=moment(message["received_ms"]),
            what=what,
            name=message["source"]["name"],
        )
        files = ", ".join(plain(file["name"]) for file in message["files"])
        lines = [look.style(str(head), bold=True)]
        for line in message["text"].splitlines():
            lines += look.wrap(plain(line), "  ", "  ")
        lines += look.wrap(say("{files} in {folder}", files=files, folder=message["path"]), "  ", "  ")
        paragraphs.append("\n".join(lines))
    return "\n\n".join(paragraphs)


def devices_screen(told: list[dict[str, Any]], look: Look | None = None) -> str:
    """The screen of `meshnode devices`."""
    if not told:
        return str(say("No device has been heard of here yet."))
    rows = [[device["name"], roles(device["roles"]), device["id"]] for device in told]
    return table([str(say("name")), str(say("role")), "id"], rows, look)


def peers_screen(told: list[dict[str, Any]], look: Look | None = None) -> str:
    """The screen of `meshnode peers`."""
    if not told:
        return str(say("Nobody in contact."))
    rows = [
        [
            peer["name"],
            roles(peer["roles"]),
            peer["address"],
            duration(peer["since_s"]),
            str(say("yes") if peer["uplink"] else say("no")),
        ]
        for peer in told
    ]
    heads = (say("name"), say("role"), say("address"), say("in contact for"), say("reaches the office"))
    return table(list(map(str, heads)), rows, look)

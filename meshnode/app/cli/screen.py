"""How status, messages and peers look to a person: text from the JSON that programs get, nothing more."""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import Any

import click

#: What JSON leaves raw in a string and a terminal may obey: DEL and C1, and what turns the writing direction.
_CONTROLS = re.compile("[\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")

_STATES = {
    "on_this_device_only": "on this device only",
    "carried": "carried",
    "delivered": "safe at the office",
    "accepted": "accepted",
    "refused": "REFUSED",
}


def amount(count: int, one: str, many: str | None = None) -> str:
    """`1 bundle`, `2 bundles`."""
    return f"{count} {one if count == 1 else many or one + 's'}"


def size(bytes_: int) -> str:
    """Bytes as a person says them: `512 B`, `1.4 MB`."""
    value = float(bytes_)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            break
        value /= 1000
    return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"


def duration(seconds: int) -> str:
    """Seconds as a person says them: `40 s`, `3 min`, `2 h 5 min`, `4 days`."""
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min"
    if seconds < 48 * 3600:
        return f"{seconds // 3600} h {seconds % 3600 // 60} min"
    return f"{seconds // 86400} days"


def plain(text: str) -> str:
    """Text from elsewhere without control characters, which a terminal might obey."""
    return "".join(letter if letter.isprintable() else "�" for letter in text)


def json_text(value: Any) -> str:
    """For programs, and for people who look at it: every letter as it is, but for those that a terminal might obey."""
    text = json.dumps(value, indent=2, ensure_ascii=False, default=str)
    return _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def table(heads: list[str], rows: list[list[str]]) -> str:
    """Columns as wide as they need to be."""
    lines = [heads, *rows]
    widths = [max(len(line[at]) for line in lines) for at in range(len(heads))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def status_screen(told: dict[str, Any]) -> str:
    """The screen of `meshnode status`."""
    device, counts = told["device"], told["messages"]
    roles = ", ".join(device["roles"])
    head = f"{device['name']} · {roles} of {device['fleet']} (fleet document {device['fleet_version']})"
    lines = [click.style(head, bold=True), ""]
    lines.append(f"  {_messages_line(counts)}")
    if told["oldest_waiting_s"] is not None:
        lines.append(f"  The oldest of them waits for {duration(told['oldest_waiting_s'])}.")
    if told["received"]:
        letters = amount(told["received"], "message")
        lines.append(f"  The office has written {letters} to you: `meshnode messages --received`.")
    lines.append(f"  {_carrying_line(told['carrying'])}")
    lines.append(f"  {_contacts_line(told)}")
    store = told["store"]
    free = max(0, store["free_bytes"] - store["floor_bytes"])
    lines.append(f"  {size(store['bytes'])} on disk, {size(free)} free for more.")
    lines.append("")
    lines.extend(click.style(f"! {plain(alarm['text'])}", fg="red") for alarm in told["alarms"])
    lines.append(f"Next: {_advice(told)}")
    return "\n".join(lines)


def _messages_line(counts: dict[str, int]) -> str:
    if not counts["submitted"]:
        return "No messages submitted on this device yet."
    parts = []
    if counts["delivered"]:
        parts.append(click.style(f"{counts['delivered']} safe at the office", fg="green"))
    if counts["carried"]:
        parts.append(f"{counts['carried']} carried by colleagues too")
    if counts["on_this_device_only"]:
        parts.append(click.style(f"{counts['on_this_device_only']} on this device only", fg="yellow"))
    if counts["refused"]:
        parts.append(click.style(f"{counts['refused']} refused by the registry", fg="red"))
    return f"{amount(counts['submitted'], 'message')} submitted: {', '.join(parts)}."


def _carrying_line(carrying: dict[str, int]) -> str:
    if not carrying["bundles"]:
        return "Carrying nothing for colleagues."
    bundles, sources = amount(carrying["bundles"], "bundle"), amount(carrying["sources"], "colleague")
    return f"Carrying {bundles} ({size(carrying['bytes'])}) of {sources}."


def _contacts_line(told: dict[str, Any]) -> str:
    contacts = told["contacts"]
    uplink = " The office is reached from here." if told["uplink"] else _no_uplink(told)
    if not contacts:
        return f"Nobody in contact.{uplink}"
    people = ", ".join(f"{c['name']} ({', '.join(c['roles'])}, {duration(c['since_s'])})" for c in contacts)
    return f"In contact with {people}.{uplink}"


def _no_uplink(told: dict[str, Any]) -> str:
    problem = told.get("uplink_problem")
    if problem is None or any(alarm["code"] == problem["code"] for alarm in told["alarms"]):
        return ""
    return f" The office is not reached from here. {plain(problem['text'])}"


def _advice(told: dict[str, Any]) -> str:
    counts = told["messages"]
    waiting = counts["submitted"] - counts["delivered"]
    if told["alarms"]:
        return "see what is marked with '!' above."
    if counts["refused"]:
        return "see with `meshnode messages` what was refused and why, and record it again."
    if counts["on_this_device_only"] and not told["contacts"]:
        return "keep this device safe, and meet a colleague or come near the office."
    if waiting and told["contacts"]:
        return "nothing; it goes on by itself while you are in contact."
    if waiting:
        return "nothing; colleagues carry it, and this device keeps its copy until the office has signed."
    return "nothing; all is well."


def messages_screen(told: list[dict[str, Any]]) -> str:
    """The screen of `meshnode messages`."""
    if not told:
        return "No messages submitted on this device yet."
    rows = []
    for message in told:
        state = _STATES[message["state"]]
        if message["state"] == "carried":
            state = f"carried by {message['copies']}"
        if message["reason"]:
            state = f"{state}: {plain(message['reason'])}"
        if message["to"] != "office":
            state = f"{'delivered' if message['state'] == 'delivered' else state}, to {message['to']}"
        at = datetime.fromtimestamp(message["submitted_ms"] / 1000).astimezone()
        rows.append(
            [
                at.strftime("%Y-%m-%d %H:%M"),
                state,
                size(message["size_bytes"]),
                plain(message["kind"]) or "-",
                plain(message["reference"]) or "-",
                message["key"],
            ]
        )
    return table(["submitted", "where", "size", "kind", "reference", "key"], rows)


def received_screen(told: list[dict[str, Any]]) -> str:
    """The screen of `meshnode messages --received`: one paragraph a message, the newest last."""
    if not told:
        return "The office has not written to this device."
    paragraphs = []
    for message in told:
        at = datetime.fromtimestamp(message["received_ms"] / 1000).astimezone()
        what = plain(message["reference"]) or plain(message["kind"]) or "message"
        head = f"{at:%Y-%m-%d %H:%M}  {what}, from {message['source']['name']}"
        text = "\n".join(f"  {plain(line)}" for line in message["text"].splitlines())
        files = ", ".join(plain(file["name"]) for file in message["files"])
        lines = [click.style(head, bold=True), text, f"  {files} in {message['path']}"]
        paragraphs.append("\n".join(line for line in lines if line))
    return "\n\n".join(paragraphs)


def devices_screen(told: list[dict[str, Any]]) -> str:
    """The screen of `meshnode devices`."""
    if not told:
        return "No device has been heard of here yet."
    rows = [[device["name"], ", ".join(device["roles"]), device["id"]] for device in told]
    return table(["name", "role", "id"], rows)


def peers_screen(told: list[dict[str, Any]]) -> str:
    """The screen of `meshnode peers`."""
    if not told:
        return "Nobody in contact."
    rows = [
        [
            peer["name"],
            ", ".join(peer["roles"]),
            peer["address"],
            duration(peer["since_s"]),
            "yes" if peer["uplink"] else "no",
        ]
        for peer in told
    ]
    return table(["name", "role", "address", "in contact for", "reaches the office"], rows)

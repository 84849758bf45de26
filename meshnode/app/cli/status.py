"""The screen of `meshnode status`: what is safe, what is not yet, who is near, what to do. In this order, since it is
looked at while somebody waits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from meshnode.app.cli.screen import Look, duration, plain, roles, size
from meshnode.core.words import Words, count, say

#: A bar of less says nothing.
_BAR_MIN: Final = 10
_BAR_MAX: Final = 40


def status_screen(told: dict[str, Any], look: Look | None = None) -> str:
    """The whole of it, as lines."""
    look = look or Look()
    device = told["device"]
    head = say(
        "{name} · {role} of {fleet} (fleet document {version})",
        name=device["name"],
        role=roles(device["roles"]),
        fleet=device["fleet"],
        version=device["fleet_version"],
    )
    lines = [look.style(line, bold=True) for line in look.wrap(head)]
    lines += ["", *_messages(told, look), "", *_facts(told, look), ""]
    for alarm in told["alarms"]:
        lines += [look.style(line, fg="red") for line in look.wrap(plain(alarm["text"]), "! ", "  ")]
    for advice in _advice(told):
        text = look.wrap(say("What to do: {advice}", advice=advice), rest="  ")
        lines += [look.style(line, bold=True) for line in text]
    return "\n".join(lines)


# --- own messages -----------------------------------------------------------------------------------------------


def _messages(told: dict[str, Any], look: Look) -> list[str]:
    counts = told["messages"]
    if not counts["submitted"]:
        return look.wrap(say("No messages submitted on this device yet."), "  ", "  ")
    parts: list[tuple[int, Words, str]] = [
        (counts["delivered"] - counts["refused"], _delivered(told), "green"),
        (counts["carried"], say("carried by colleagues too"), "cyan"),
        (counts["on_this_device_only"], say("on this device only"), "yellow"),
        (counts["refused"], say("refused by the registry"), "red"),
    ]
    width = len(str(max(number for number, _, _ in parts)))
    lines = []
    for number, words, colour in parts:
        if number:
            text = look.wrap(words, f"  {number:{width}}  ", " " * (width + 4))
            lines += [look.style(line, fg=colour) for line in text]
    if not look.is_plain:
        lines += _bar([(number, colour) for number, _, colour in parts], look)
    total = count("{n} message submitted.", "{n} messages submitted.", counts["submitted"])
    if told["oldest_waiting_s"] is not None:
        waits = duration(told["oldest_waiting_s"])
        total = say("{total} The oldest that is not at the office waits for {time}.", total=total, time=waits)
    return [*lines, *look.wrap(total, "  ", "  ")]


def _delivered(told: dict[str, Any]) -> Words:
    """What an office has sent has arrived at the devices."""
    return say("delivered") if "office" in told["device"]["roles"] else say("safe at the office")


def _bar(parts: list[tuple[int, str]], look: Look) -> list[str]:
    """All messages as one line, a colour for each place; whatever is not nothing shows."""
    width = min(_BAR_MAX, (look.width or _BAR_MAX) - 4)
    total = sum(number for number, _ in parts)
    if width < _BAR_MIN or not total:
        return []
    sizes = [max(1, round(number * width / total)) if number else 0 for number, _ in parts]
    sizes[sizes.index(max(sizes))] += width - sum(sizes)
    drawn = zip(sizes, parts, "█▓░▒", strict=True)
    return ["  " + "".join(look.style(sign * length, fg=colour) for length, (_, colour), sign in drawn)]


# --- the rest ---------------------------------------------------------------------------------------------------


def _facts(told: dict[str, Any], look: Look) -> list[str]:
    store = told["store"]
    free = max(0, store["free_bytes"] - store["floor_bytes"])
    facts: list[Words | None] = [
        _letters(told["received"]),
        _contacts(told),
        _office(told),
        _carrying(told["carrying"]),
        say("{used} on disk, {free} free for more.", used=size(store["bytes"]), free=size(free)),
    ]
    return [line for fact in facts if fact for line in look.wrap(fact, "  ", "  ")]


def _letters(number: int) -> Words | None:
    if not number:
        return None
    return count(
        "The office has written {n} message to you: `meshnode messages --received`.",
        "The office has written {n} messages to you: `meshnode messages --received`.",
        number,
    )


def _contacts(told: dict[str, Any]) -> Words:
    if not told["contacts"]:
        return say("Nobody in contact.")
    people = ", ".join(
        f"{it['name']} ({roles(it['roles'])}, {duration(it['since_s'])})" for it in told["contacts"]
    )
    return say("In contact with {people}.", people=people)


def _office(told: dict[str, Any]) -> Words | None:
    if told["uplink"]:
        return say("The office is reached from here.")
    if any("office" in it["roles"] for it in told["contacts"]):
        return None  # by Wi-Fi
    problem = told.get("uplink_problem")
    if problem is None or any(alarm["code"] == problem["code"] for alarm in told["alarms"]):
        return None  # it is said once
    return say("The office is not reached from here. {problem}", problem=plain(problem["text"]))


def _carrying(carrying: dict[str, int]) -> Words:
    if not carrying["bundles"]:
        return say("Carrying nothing for colleagues.")
    return say(
        "Carrying {bundles} ({size}) of {colleagues}.",
        bundles=count("{n} bundle", "{n} bundles", carrying["bundles"]),
        size=size(carrying["bytes"]),
        colleagues=count("{n} colleague", "{n} colleagues", carrying["sources"]),
    )


def _advice(told: dict[str, Any]) -> Iterator[Words]:
    counts = told["messages"]
    if told["alarms"]:
        yield say("see what is marked with '!' above.")
    if counts["on_this_device_only"] and not told["contacts"]:
        yield say("keep this device safe, and meet a colleague or come near the office.")
    if counts["refused"]:
        yield say("see with `meshnode messages` what was refused and why, and record it again.")
    if told["alarms"] or counts["refused"]:
        return
    waiting = counts["submitted"] - counts["delivered"]
    if waiting and told["contacts"]:
        yield say("nothing; it goes on by itself while you are in contact.")
    elif counts["carried"] and not counts["on_this_device_only"]:
        yield say("nothing; colleagues carry it, and this device keeps its copy until the office has signed.")
    elif not waiting:
        yield say("nothing; all is well.")

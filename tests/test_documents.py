"""The documents for people say the same in both languages, and what is so: commands parse, links lead somewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from meshnode.app.cli import main
from meshnode.app.report import SEVERITIES
from meshnode.core.limits import FOREIGN_QUOTA_BYTES, GATEWAY_QUOTA_BYTES, GIB, KEEP_RECEIPTED_S, LIFETIME_S
from tests.command_lines import assert_is_one

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAIRS = ("officer", "handbook")
FILES = [f"{name}.{language}.md" for name in PAIRS for language in ("en", "id")]

DAY_S = 24 * 3600


def text_of(name: str) -> str:
    """A document."""
    return (DOCS / name).read_text()


def headings(text: str) -> list[tuple[int, str]]:
    """Level and words of each heading."""
    return [(len(signs), words) for signs, words in re.findall(r"^(#+) (.+)$", text, re.MULTILINE)]


def blocks(text: str) -> list[list[str]]:
    """The code blocks: what is indented by four more than the text around it, after an empty line."""
    found: list[list[str]] = []
    before, indent = "", 0
    for line in text.splitlines():
        if item := re.match(r"(\d\. |- )", line):
            indent = len(item[0])
        elif line[:1] not in ("", " "):
            indent = 0
        if line.startswith(" " * (indent + 4)):
            if not before:
                found.append([])
            found[-1].append(line.strip())
        before = line.strip()
    return found


def commands(text: str) -> list[str]:
    """The command lines in code blocks, without the remarks behind them."""
    return [re.sub(r"\s{2,}#.*", "", line) for block in blocks(text) for line in block]


def shape(text: str) -> Iterator[tuple[str, int]]:
    """What follows what: headings with their level, code blocks with their length, rows with their cells, items."""
    code = {line for block in blocks(text) for line in block}
    for line in text.splitlines():
        if heading := re.match(r"#+ ", line):
            yield "heading", len(heading[0])
        elif line.strip() in code:
            yield "command", 1
        elif line.startswith("|"):
            yield "row", line.count("|")
        elif item := re.match(r"(\d\.|-) ", line):
            yield item[1], 1


def anchor(heading: str) -> str:
    """What a heading is called in a link."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("name", PAIRS)
def test_both_languages_are_built_alike(name: str) -> None:
    english, indonesian = text_of(f"{name}.en.md"), text_of(f"{name}.id.md")
    assert [level for level, _ in headings(english)] == [level for level, _ in headings(indonesian)]
    assert list(shape(english)) == list(shape(indonesian))
    assert blocks(english) == blocks(indonesian)


def test_the_examples_of_the_reader_are_read() -> None:
    text = (
        "# A\n\nText:\n\n    meshnode a\n    meshnode b  # why\n\n1. One:\n\n       meshnode c\n\n   more\n"
    )
    assert blocks(text) == [["meshnode a", "meshnode b  # why"], ["meshnode c"]]
    assert commands(text) == ["meshnode a", "meshnode b", "meshnode c"]
    assert list(shape(text))[:2] == [("heading", 2), ("command", 1)]


@pytest.mark.parametrize("name", FILES)
def test_there_are_commands_and_nothing_else_in_code(name: str) -> None:
    lines = commands(text_of(name))
    assert len(lines) > 3
    assert all(line.startswith("meshnode ") for line in lines)


@pytest.mark.parametrize("line", sorted({line for name in FILES for line in commands(text_of(name))}))
def test_each_command_line_is_one(line: str) -> None:
    assert_is_one(line)


@pytest.mark.parametrize("name", FILES)
def test_each_command_in_a_sentence_is_one(name: str) -> None:
    named = re.findall(r"`meshnode\s+([a-z]+)(?:\s+([a-z]+))?[^`]*`", text_of(name))
    assert named
    for first, second in named:
        context = click.Context(main)
        command = main.get_command(context, first)
        assert command is not None, first
        if isinstance(command, click.Group) and second:
            assert command.get_command(context, second) is not None, (first, second)


@pytest.mark.parametrize("name", FILES)
def test_each_link_leads_somewhere(name: str) -> None:
    text = text_of(name)
    links = re.findall(r"\[([^\]]+)\]\(([^)\s]+)\)", text)
    assert links
    for words, link in links:
        if words.endswith((".md", ".yml", ".json")):
            assert link.endswith(words), "a link that names a file leads there"
        if link.startswith("#"):
            assert link[1:] in {anchor(heading) for _, heading in headings(text)}, link
        else:
            assert not re.match(r"\w+:", link), "these pages are read offline"
            assert (DOCS / link.partition("#")[0]).resolve().exists(), link


def test_the_handbooks_name_both_alarms_that_follow_a_restore() -> None:
    for name in ("handbook.en.md", "handbook.id.md"):
        named = re.findall(r"^\| `([a-z-]+)` \|", text_of(name), re.MULTILINE)
        assert {"restored", "twin"} <= set(named)
        assert {"restored", "twin"} <= set(SEVERITIES)


def test_numbers() -> None:
    english, indonesian = text_of("handbook.en.md"), text_of("handbook.id.md")
    quotas = GATEWAY_QUOTA_BYTES // GIB, FOREIGN_QUOTA_BYTES // GIB
    assert "up to {} GiB instead of {}".format(*quotas) in english
    assert "sampai {} GiB, bukan {}".format(*quotas) in indonesian
    kept, carried = KEEP_RECEIPTED_S // DAY_S, LIFETIME_S // DAY_S
    assert f"own ones {kept} days more; others' at most {carried} days" in english
    assert f"milik sendiri {kept} hari lagi; titipan paling lama {carried} hari" in indonesian

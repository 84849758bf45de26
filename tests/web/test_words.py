"""The sentences of the page: found in its scripts, all of them, and handed out in a language."""

from __future__ import annotations

import gettext
import re

from meshnode.app.web.words import STATIC, dictionary, sentences

SCRIPTS = {
    file.name: file.read_text("utf-8") for file in STATIC.iterdir() if file.name.endswith((".js", ".html"))
}


class Shouting(gettext.NullTranslations):
    """A language that says the same louder."""

    def gettext(self, message: str) -> str:
        return message.upper()

    def ngettext(self, msgid1: str, msgid2: str, n: int) -> str:
        return (msgid1 if n == 1 else msgid2).upper()


def test_every_call_names_its_sentence() -> None:
    calls = sum(
        len(re.findall(r"(?<!function )\btn?\(", text)) for text in SCRIPTS.values()
    )  # but for their definitions
    literal = sum(len(re.findall(r'\btn?\(\s*"', text)) for text in SCRIPTS.values())
    assert calls == literal > 100


def test_sentences_stand_once_and_are_whole() -> None:
    found = sentences()
    assert len(set(found)) == len(found) > 100
    assert ("safe at the office", "") in found
    assert ("carried by {n} colleague", "carried by {n} colleagues") in found
    for one, many in found:
        assert one.strip() == one != ""
        assert set(re.findall(r"\{\w+\}", one)) <= set(re.findall(r"\{\w+\}", many or one))


def test_the_dictionary_has_each_of_them() -> None:
    assert dictionary(None) == {}
    known = dictionary(Shouting())
    for one, many in sentences():
        assert known[one] == one.upper()
        if many:
            assert known[many] == many.upper()


def test_no_text_of_the_page_is_outside_of_the_sentences() -> None:
    """In the HTML is only what a browser without scripts shows, and no attribute of style or event."""
    html = SCRIPTS["index.html"]
    body = html[html.index("<body>") :].split("<noscript>")[0]
    assert re.sub(r"<[^>]*>", "", body).strip() == ""
    assert not re.search(r"\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)|https?://", html)

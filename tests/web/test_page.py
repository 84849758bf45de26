"""The page in a real browser, on real daemons: what officers and offices do there, in both languages, on a phone and at
a desk. `opened` fails on whatever goes wrong in the browser beside that."""

from __future__ import annotations

import json
import random
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from meshnode.app.language import catalogue
from meshnode.app.web.words import dictionary
from tests.app.fleets import Fleet, Node, command, environment
from tests.office.registry import Answer, Request, registry
from tests.web.browsers import (
    DESKTOP,
    PHONE,
    NoBrowser,
    assert_accessible,
    assert_fits,
    end,
    find_browser,
    link,
    listen_for_trouble,
    opened,
)

LANGUAGES = ("en", "id")
SIZES = {"phone": PHONE, "desktop": DESKTOP}
#: What axe looks at is the same in all four; each language and each size is looked at once.
LOOKED_AT = {("en", "desktop"), ("id", "phone")}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    try:
        path = find_browser()
    except NoBrowser as why:
        pytest.skip(str(why))
    with sync_playwright() as playwright:
        # --no-sandbox: Chromium refuses to run as root otherwise, and it sees nothing here but the node's own page
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """An office, Siti who has delivered, heard back, and has something on her device only; and Ana who has nothing."""
    with Fleet(tmp_path_factory.mktemp("fleet")) as fleet:
        kantor, siti, _ = fleet.enroll("kantor", "office"), fleet.enroll("siti"), fleet.enroll("ana")
        siti.configure(peers=[kantor.address])
        fleet.start(*fleet.nodes.values())
        keys = [siti.give(files(), reference=f"Ibu Aminah {n}", kind="kk")["key"] for n in range(3)]
        fleet.until("the office has all", lambda: siti.states() == ["delivered"] * 3)
        for key, verdict, reason in ((keys[0], "accepted", ""), (keys[1], "refused", "left iris unreadable")):
            said = json.dumps({"key": key, "verdict": verdict, "reason": reason}).encode()
            assert kantor.request("POST", "/v1/answers", said)[0] == 201
        kantor.give({"message.txt": b"Come on Monday."}, to="siti")
        fleet.until("Siti has the letters", lambda: siti.get("status")["received"] == 3)
        yield fleet


def files() -> dict[str, bytes]:
    return {"form.json": b"{}", "photo.jpg": random.Random(1).randbytes(3000)}


@pytest.fixture
def siti(fleet: Fleet) -> Node:
    return fleet.nodes["siti"]


@pytest.fixture
def kantor(fleet: Fleet) -> Node:
    return fleet.nodes["kantor"]


def words(language: str, sentence: str) -> str:
    """A sentence of the page as a reader of this language finds it."""
    return dictionary(catalogue(language)).get(sentence, sentence)


def go(page: Page, route: str) -> None:
    page.evaluate("route => { location.hash = route }", f"#/{route}")


# --- every view ---


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("size", SIZES)
def test_an_officers_views(browser: Browser, siti: Node, language: str, size: str) -> None:
    key = siti.get("messages")[1]["key"]
    look = assert_accessible if (language, size) in LOOKED_AT else assert_fits
    with opened(browser, siti, language, SIZES[size]) as page:
        assert page.locator("html").get_attribute("lang") == language
        for route, heading in (
            ("", None),
            ("send", "Send to the office"),
            ("messages", "My messages"),
            ("received", "From the office"),
            (f"messages/{key}", None),
        ):
            go(page, route)
            if heading:
                expect(page.locator("main h1")).to_have_text(words(language, heading))
            assert page.title().endswith("· siti · meshnode")
            look(page)
        expect(page.locator(".story li").first).to_be_visible()
        expect(page.locator("main")).to_contain_text("left iris unreadable")
        expect(page.locator("main")).to_contain_text(words(language, "refused by the registry"))


@pytest.mark.parametrize(("size", "language"), sorted((size, language) for language, size in LOOKED_AT))
def test_an_offices_views(browser: Browser, kantor: Node, language: str, size: str) -> None:
    look = assert_accessible if (language, size) in LOOKED_AT else assert_fits
    with opened(browser, kantor, language, SIZES[size]) as page:
        row = page.locator("tbody tr", has_text="siti")
        expect(row).to_contain_text(re.compile(r"[1-9]\d* \w+ [1-9]"))
        look(page)
        go(page, "flow")
        expect(page.locator("svg.carriers path.band")).to_have_count(1)
        expect(page.locator("svg .column")).to_have_count(1)
        page.locator("#who ~ details summary").click()
        expect(page.locator("#who ~ details tbody tr")).to_contain_text("siti")
        look(page)
        go(page, "aside")
        expect(page.locator("main")).to_contain_text("left iris unreadable")
        look(page)
        for route in ("near", "messages"):
            go(page, route)
            expect(page.locator("main")).to_contain_text("siti")
            look(page)


def test_dark_is_as_legible(browser: Browser, siti: Node, kantor: Node) -> None:
    for node, routes in ((siti, ("", "send")), (kantor, ("", "flow"))):
        with opened(browser, node, color_scheme="dark") as page:
            for route in routes:
                go(page, route)
                page.wait_for_selector("main h1")
                assert_accessible(page)


def test_a_device_that_is_new(browser: Browser, fleet: Fleet) -> None:
    with opened(browser, fleet.nodes["ana"], size=PHONE) as page:
        expect(page.locator("main h1")).to_have_text("Nothing was sent from this device yet")
        expect(page.locator("#near ~ .empty")).to_contain_text("Nobody is near")
        for route in ("", "messages", "received", "messages/none:1"):
            go(page, route)
            assert_accessible(page)


# --- what an officer does ---


def test_choosing_and_sending_files(browser: Browser, siti: Node, tmp_path: Path) -> None:
    photo, other = tmp_path / "photo.jpg", tmp_path / "more" / "photo.jpg"
    other.parent.mkdir()
    photo.write_bytes(b"1" * 3000)
    other.write_bytes(b"2" * 70_000)
    with opened(browser, siti) as page:
        page.get_by_role("link", name="Send", exact=True).click()
        page.get_by_role("button", name="Send", exact=True).click()
        expect(page.get_by_role("alert")).to_have_text("Choose at least one file, or take a photo.")
        page.get_by_label("Choose files").set_input_files([photo])
        page.get_by_label("Take a photo").set_input_files([other])
        expect(page.locator(".files .name")).to_have_text(["photo.jpg", "photo-2.jpg"])
        expect(page.get_by_role("alert")).to_have_count(0)
        page.get_by_role("button", name="Leave out photo.jpg").click()
        page.get_by_label("What you call it").fill("Pak Dadang")
        page.get_by_label("Note to the office").fill("surat <b>kuasa</b> menyusul")
        assert page.get_by_label("Kind").input_value() == "ktp-el"
        page.get_by_label("Kind").fill("kk")
        page.get_by_role("button", name="Send", exact=True).click()
        expect(page.locator(".done")).to_contain_text("Sealed and safe on this device.")
        page.get_by_role("link", name="See where it is").click()
        expect(page.locator("main h1")).to_have_text("Pak Dadang")
        expect(page.locator(".state .badge")).to_have_text("safe at the office")
    sent = siti.get("messages")[-1]
    assert (sent["reference"], sent["kind"], sent["size_bytes"]) == ("Pak Dadang", "kk", 70_000)


def test_dropping_a_file_and_a_refusal(browser: Browser, siti: Node) -> None:
    with opened(browser, siti, "id", refused=1) as page:
        go(page, "send")
        give = """name => {
            const data = new DataTransfer();
            data.items.add(new File(["abc"], name));
            const drop = new DragEvent("drop", {dataTransfer: data, bubbles: true, cancelable: true});
            document.querySelector(".drop").dispatchEvent(drop);
        }"""
        before = siti.get("messages")
        page.evaluate(give, "message.json")
        page.locator("button.main").click()
        expect(page.locator("main .alarm")).to_contain_text("message.json")
        assert siti.get("messages") == before


def test_states_move_by_themselves(browser: Browser, fleet: Fleet, siti: Node, kantor: Node) -> None:
    kantor.stop()
    fleet.until("nobody is there", lambda: siti.contacts() == [])
    with opened(browser, siti) as page:
        go(page, "messages")
        key = siti.give(files(), reference="Ibu Euis")["key"]
        row = page.locator("li", has_text="Ibu Euis")
        expect(row.locator(".badge")).to_have_text("only on this device")
        page.get_by_label("Search").fill("euis")
        expect(page.locator(".rows li")).to_have_count(1)
        page.locator(".filters a", has_text="only on this device").click()
        expect(page.locator(".rows li")).to_have_count(1)
        assert page.get_by_label("Search").input_value() == "euis"
        go(page, "")
        expect(page.locator("main h1")).to_have_text("1 message is only on this device")
        fleet.start(kantor)
        expect(page.locator(".tile.here .count")).to_have_text("0", timeout=30_000)
        expect(page.locator("#said")).to_have_text("One more message is safe at the office.")
        go(page, f"messages/{key}")
        expect(page.locator(".state .badge")).to_have_text("safe at the office")


def test_with_the_keyboard_alone(browser: Browser, siti: Node) -> None:
    with opened(browser, siti) as page:
        page.keyboard.press("Tab")
        expect(page.locator(":focus")).to_have_text("To the content")
        page.keyboard.press("Enter")
        assert page.evaluate("() => document.activeElement.id") == "main"
        menu = page.get_by_role("link", name="Messages", exact=True)
        menu.focus()
        page.keyboard.press("Enter")
        expect(page.locator(":focus")).to_have_text("My messages")


# --- the door ---


def test_the_language_is_kept(browser: Browser, siti: Node) -> None:
    with opened(browser, siti, "en") as page:
        page.locator(".languages [lang=id]").click()
        expect(page.locator("html")).to_have_attribute("lang", "id")
        expect(page.locator(".link.live")).to_be_attached()
        page.reload()
        expect(page.locator("html")).to_have_attribute("lang", "id")
        expect(page.locator(".menu a").first).to_have_text(words("id", "Overview"))
        assert (
            page.evaluate("() => fetch('/web/words.json').then(a => a.headers.get('content-language'))")
            == "en"
        )


def test_a_session_is_for_one_browser_and_ends(browser: Browser, siti: Node) -> None:
    with opened(browser, siti) as page:
        assert "token" not in page.evaluate("() => location.href + document.referrer")
        assert page.evaluate("() => document.cookie") == ""
    stranger = browser.new_context()
    page = stranger.new_page()
    address = link(siti).partition("enter")[0]
    page.goto(address)
    expect(page.locator("main h1")).to_have_text("This page is closed")
    assert_accessible(page)
    page.goto(f"{address}enter?token=guessed")
    expect(page.locator("main h1")).to_have_text("This link does not open the page any more")
    end(stranger)


def test_the_file_that_the_command_opens_leads_in(browser: Browser, siti: Node) -> None:
    """From a file, a browser takes the page for one of another site, to which a strict cookie is not sent."""
    done = subprocess.run(
        [*command(siti.home), "web"], check=True, timeout=60, env=environment() | {"BROWSER": "true"}
    )
    assert done.returncode == 0
    context = browser.new_context()
    page = context.new_page()
    page.goto((siti.home / "web.html").as_uri())
    expect(page.locator(".link.live")).to_be_attached()
    expect(page.locator(".who strong")).to_have_text("siti")
    end(context)


def test_leaving(browser: Browser, siti: Node) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.goto(link(siti))
    page.get_by_role("button", name="Leave").click()
    expect(page.locator("main h1")).to_have_text("This page is closed")
    page.reload()
    expect(page.locator("main h1")).to_have_text("This page is closed")
    end(context)


def test_text_from_elsewhere_is_text(browser: Browser, siti: Node) -> None:
    evil = "<img src=x onerror=alert(1)><script>alert(2)</script>"
    key = siti.give({"f": b"1"}, reference=evil, kind="<b>k</b>")["key"]
    trouble: list[str] = []
    with opened(browser, siti) as page:
        listen_for_trouble(page, siti, trouble)
        for route in ("", "messages", f"messages/{key}"):
            go(page, route)
            expect(page.locator("main")).to_contain_text(evil)
            assert page.locator("main img, main script, main b").count() == 0
    assert trouble == []


# --- what an office does ---


def test_trying_again_what_was_put_aside(browser: Browser, tmp_path: Path) -> None:
    refuses = [True]

    def decide(_: Request) -> Answer:
        return Answer(422, b"no such village") if refuses else Answer()

    with registry() as server, Fleet(tmp_path) as fleet:
        server.answer = decide
        office, budi = fleet.enroll("kantor", "office"), fleet.enroll("budi")
        office.configure(sink=server.url)
        budi.configure(peers=[office.address])
        fleet.start(office, budi)
        budi.give(files(), reference="Pak Oman")
        fleet.until("it is put aside", lambda: office.get("officers")["quarantine"])
        with opened(browser, office) as page:
            expect(page.locator(".menu .dot")).to_have_text("1")
            expect(page.locator("main h1")).to_have_text("1 bundle waits here to be handed on")
            go(page, "aside")
            expect(page.locator(".card .reason")).to_contain_text("no such village")
            assert_accessible(page)
            page.get_by_role("button", name="Try again").click()
            expect(page.locator(".card")).to_contain_text("It was not taken this time either.")
            refuses.clear()
            page.get_by_role("button", name="Try again").click()
            expect(page.locator("#said")).to_have_text("It was handed on now.")
            expect(page.locator("main")).to_contain_text("Everything that arrived was handed on.")
            expect(page.locator(".menu .dot")).to_have_count(0)


@pytest.mark.parametrize(
    ("route", "button", "name", "first"),
    [
        ("", "Save as a table (CSV)", "officers.csv", "name"),
        ("flow", "Carriers as a table (CSV)", "carried.csv", "day"),
        ("flow", "Days as a table (CSV)", "days.csv", "day"),
        ("aside", "Save all messages as a table (CSV)", "messages.csv", "key"),
    ],
)
def test_tables_are_saved(
    browser: Browser, kantor: Node, route: str, button: str, name: str, first: str
) -> None:
    with opened(browser, kantor) as page:
        go(page, route)
        with page.expect_download() as saved:
            page.get_by_role("button", name=button).click()
        assert saved.value.suggested_filename == name
        assert saved.value.path().read_text("utf-8-sig").startswith(f"{first},")

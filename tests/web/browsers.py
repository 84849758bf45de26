"""A real browser for the tests: Chromium without a window, and what must never happen in it.

Debian's package is used, as playwright's own download needs another server. Where it is missing and this is root on a
Debian, it is installed, once; elsewhere the tests say that they are skipped, and why.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]
from playwright.sync_api import Browser, BrowserContext, Page

from tests.app.fleets import Node

NAMES = ("chromium", "chromium-browser", "google-chrome")
INSTALL_S = 600.0
PHONE, DESKTOP = (360, 740), (1440, 900)


class NoBrowser(Exception):
    """Why there is none."""


@functools.cache
def find_browser() -> str:
    """The path of a Chromium. Raises NoBrowser."""
    if found := _installed():
        return found
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise NoBrowser("no Chromium is installed (Debian: apt install chromium)")
    for words in (
        ["update"],
        ["install", "--yes", "--no-install-recommends", "chromium", "fonts-dejavu-core"],
    ):
        done = subprocess.run(
            ["apt-get", "--quiet", *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            text=True,
            timeout=INSTALL_S,
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        )
        if done.returncode != 0:
            raise NoBrowser(f"apt-get {words[0]} failed: {done.stderr.strip()[-300:]}")
    if found := _installed():
        return found
    raise NoBrowser("apt-get has installed chromium, which is not found")


def _installed() -> str | None:
    return next(filter(None, map(shutil.which, NAMES)), None)


def link(node: Node) -> str:
    """What `meshnode web --print` says."""
    done = node.call("web", "--print")
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@contextlib.contextmanager
def opened(
    browser: Browser,
    node: Node,
    language: str = "en",
    size: tuple[int, int] = DESKTOP,
    refused: int = 0,
    **more: Any,
) -> Iterator[Page]:
    """A node's page, open and up to date, in a browser of its own. Fails if anything went wrong in there: a message of
    the console, a breach of the policy, an error of a script, or a request to anybody else. `refused`: so many of the
    page's requests are, which the console says too."""
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]}, locale=language, reduced_motion="reduce", **more
    )
    context.set_default_timeout(20_000)
    page = context.new_page()
    trouble: list[str] = []
    listen_for_trouble(page, node, trouble)
    page.goto(link(node))
    page.wait_for_selector(".link.live", state="attached")
    try:
        yield page
        said = [text for text in trouble if "the server responded with a status of 422" in text]
        assert len(said) == refused, said
        assert [text for text in trouble if text not in said] == [], trouble
    finally:
        end(context)


def listen_for_trouble(page: Page, node: Node, trouble: list[str]) -> None:
    """Write down all that goes wrong in a page."""
    _, port, _ = node.door()

    def look(address: str) -> None:
        parts = urlsplit(address)
        if parts.scheme != "blob" and parts.netloc != f"127.0.0.1:{port}":
            trouble.append(f"asked {address}")

    page.on("console", lambda said: trouble.append(said.text) if said.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.on("request", lambda request: look(request.url))


def end(context: BrowserContext) -> None:
    """Close it with all its pages."""
    context.close()


def assert_accessible(page: Page) -> None:
    """axe-core finds nothing, and the page is not wider than the screen."""
    found = Axe().run(page)
    assert found.response["violations"] == [], found.generate_report()
    assert_fits(page)


def assert_fits(page: Page) -> None:
    """The page is not wider than the screen."""
    wide = page.evaluate("() => document.documentElement.scrollWidth - innerWidth")
    assert wide <= 0, f"{page.url} is {wide} px wider than the screen"

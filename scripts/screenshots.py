"""The pictures of the page in docs/screenshots, taken from real daemons by a real browser.

Five nodes play a short day: Siti, Budi and Rina record and deliver, the office answers; then Siti is out of reach, Budi
takes some of hers, and Asep, who has little space, the urgent one only, which he brings to the office. So each state is
there, and a gap by number. People and records are invented (`demo_people`).
"""

from __future__ import annotations

import argparse
import contextlib
import io
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from demo_nodes import DemoFailed, Fleet, Node
from demo_people import People
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

OUT = Path(__file__).resolve().parents[1] / "docs" / "screenshots"
SIZE_MAX = 150_000
COLOURS = 128
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
MEMBERS = {
    "kantor": "office",
    "siti": "officer",
    "budi": "officer",
    "asep": "officer",
    "rina": "officer",
}
#: What a node with little space has beyond one message: less than any bundle of another.
LITTLE_BYTES = 40_000

PHONE, DESKTOP = (360, 740), (1440, 900)


class Story:
    """The fleet, and what its officers do."""

    def __init__(self, fleet: Fleet, folder: Path) -> None:
        self.fleet = fleet
        self._people = People(3206)
        self._folder = folder / "people"
        self._number = 0
        self._room_bytes = 0

    def record(self, name: str, count: int, *more: str) -> list[str]:
        """An officer registers some people; the keys of the messages."""
        keys = []
        for _ in range(count):
            self._number += 1
            made = self._people.registration(self._number, self._folder)
            called = f"{made.person.name}, {made.person.hamlet}"
            told = self.fleet[name].ask(
                "submit", *made.files, "--kind", "ktp-el", "--reference", called, *more
            )
            keys.append(told["key"])
        return keys

    def states(self, name: str) -> dict[str, int]:
        """How many messages of this node are in which state."""
        counts: dict[str, int] = self.fleet[name].ask("status")["messages"]
        return counts

    def meet(self, name: str, *others: str, quota_bytes: int | None = None) -> None:
        """Start a node that seeks these others."""
        node = self.fleet[name]
        node.configure([self.fleet[other] for other in others])
        if quota_bytes is not None:
            with (node.home / "config.toml").open("a") as config:
                config.write(f"\n[store]\nforeign_quota_bytes = {quota_bytes}\n")
        self.fleet.switch_on(name)

    def until(self, what: str, name: str, **wanted: int) -> None:
        """Wait until this node's messages are so."""
        self.fleet.wait(what, lambda: all(self.states(name)[key] == n for key, n in wanted.items()))

    def play(self) -> None:
        """All of the day but its end: Siti sits in a hamlet, nobody is near."""
        self.meet("kantor")
        self.meet("siti", "kantor")
        self.meet("budi", "siti")
        self.meet("rina", "kantor")
        keys = self.record("siti", 7)
        self.record("budi", 4)
        self.record("rina", 3)
        self.until("Siti's are at the office", "siti", delivered=7)
        self.until("Budi's are at the office", "budi", delivered=4)
        self.until("Rina's are at the office", "rina", delivered=3)
        kantor = self.fleet["kantor"]
        kantor.call("answer", keys[0], "accepted")
        kantor.call("answer", keys[1], "refused", "--reason", "iris kiri tidak terbaca")
        kantor.call("submit", "--to", "siti", "--text", "KTP Ibu Aminah siap diambil di kantor desa.")
        self.fleet.wait("the letters are there", lambda: self.fleet["siti"].ask("status")["received"] == 3)
        self.fleet["rina"].stop()
        kantor.stop()
        self.record("siti", 3)
        self.until("Budi carries some", "siti", carried=3)
        self.fleet["budi"].stop()
        self.record("siti", 1)
        self.record("siti", 1, "--priority", "urgent")
        urgent: dict[str, Any] = self.fleet["siti"].ask("messages")[-1]
        self._room_bytes = urgent["size_bytes"] + LITTLE_BYTES
        self.meet("asep", "siti", quota_bytes=self._room_bytes)
        self.until("Asep carries the urgent one", "siti", on_this_device_only=1)
        self.fleet["asep"].stop()

    def evening(self) -> None:
        """Budi and Asep come to the office; Siti does not."""
        self.fleet["siti"].stop()
        self.fleet.switch_on("kantor")
        before = self.delivered()
        self.meet("asep", "kantor", quota_bytes=self._room_bytes)
        self.fleet.wait("Asep has brought it", lambda: self.delivered() > before)

    def delivered(self) -> int:
        """Messages in the office's folder."""
        return len(list((self.fleet["kantor"].home / "inbox").glob("*/*/*/message.json")))


@contextlib.contextmanager
def opened(
    browser: Browser, node: Node, language: str, size: tuple[int, int], dark: bool = False
) -> Iterator[Page]:
    """The node's page, as its officer sees it."""
    width, height = size
    context = browser.new_context(
        viewport={"width": width, "height": height},
        device_scale_factor=2 if size == PHONE else 1,
        locale=language,
        color_scheme="dark" if dark else "light",
        reduced_motion="reduce",
    )
    page = context.new_page()
    page.goto(node.call("web", "--print").strip())
    page.wait_for_selector(".link.live")
    yield page
    context.close()


def shoot(page: Page, name: str, route: str = "", waits_for: str = "main h1") -> None:
    """One picture. Fails if it is large."""
    page.evaluate("route => { location.hash = route }", f"#/{route}")
    page.wait_for_selector(waits_for)
    path = OUT / f"{name}.png"
    shot = Image.open(io.BytesIO(page.screenshot()))
    # few colours are enough for a page of text, and make a small file
    shot.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
    said = f"{path.name}: {path.stat().st_size / 1000:.0f} kB"
    print(said)
    if path.stat().st_size > SIZE_MAX:
        raise DemoFailed(f"{said} is more than {SIZE_MAX / 1000:.0f} kB")


def take_all(browser: Browser, story: Story) -> None:
    """Every picture, in the order of the day."""
    siti, kantor = story.fleet["siti"], story.fleet["kantor"]
    with opened(browser, siti, "id", PHONE) as page:
        shoot(page, "officer-phone-id")
        shoot(page, "officer-send-id", "send")
        keys: list[dict[str, Any]] = siti.ask("messages")
        carried = next(row["key"] for row in keys if row["state"] == "carried")
        shoot(page, "officer-message-id", f"messages/{carried}", ".story li")
    with opened(browser, siti, "en", PHONE, dark=True) as page:
        shoot(page, "officer-phone-dark-en", "messages")
    with opened(browser, siti, "en", DESKTOP) as page:
        shoot(page, "officer-desktop-en")
    story.evening()
    with opened(browser, kantor, "id", DESKTOP) as page:
        shoot(page, "office-officers-id", "", ".progress-cell")
        shoot(page, "office-carrying-id", "flow", ".carriers")
    with opened(browser, kantor, "en", PHONE) as page:
        shoot(page, "office-officers-phone-en", "", ".progress-cell")


def main() -> int:
    """Play, and take the pictures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--keep", type=Path, metavar="DIR", help="leave the nodes' homes in this new folder")
    keep = parser.parse_args().keep
    executable = next(filter(None, map(shutil.which, BROWSERS)), None)
    if executable is None:
        print("scripts/screenshots: there is no Chromium (Debian: apt install chromium)", file=sys.stderr)
        return 1
    OUT.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as closing:
        folder = keep or Path(closing.enter_context(tempfile.TemporaryDirectory(prefix="meshnode-")))
        folder.mkdir(parents=True, exist_ok=True)
        fleet = closing.enter_context(Fleet(folder, MEMBERS))
        fleet.found("Kabupaten Tasikmalaya")
        story = Story(fleet, folder)
        try:
            story.play()
            playwright = closing.enter_context(sync_playwright())
            browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
            take_all(browser, story)
            browser.close()
        except DemoFailed as failed:
            print(f"scripts/screenshots: {failed}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Pictures of runs: SVG that is XML with what was run in it, PNG that is a picture, and what is missing for one."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image, ImageChops

from meshnode.sim.canvas import NoPillow, PngCanvas, SvgCanvas, UnknownPicture, canvas_maker
from meshnode.sim.carrying import Carried, Fate, Load
from meshnode.sim.plan import Plan, PlannedContact, PlannedMessage
from meshnode.sim.plot import draw

SVG = "{http://www.w3.org/2000/svg}"


def carried(end_s: float = 300_000.0, messages: int = 1000) -> Carried:
    plan = Plan((PlannedContact(0, end_s, "siti", "office", 1),), (), ("office",))
    run = Carried(plan, end_s)
    for at in range(messages):
        at_s = end_s * at / messages
        done_s = at_s + end_s / 10 if at % 3 else None
        run.fates.append(Fate(PlannedMessage(at_s, "siti", 5), done_s, "office" if done_s else None, 1.0))
    run.moved = {("siti", "budi"): Load(9, 9_000_000), ("agus", "siti"): Load(1, 90_000)}
    return run


def svg(run: Carried) -> ElementTree.Element:
    return ElementTree.fromstring(draw(run, SvgCanvas))


def words(run: Carried) -> list[str]:
    return [text.text or "" for text in svg(run).iter(f"{SVG}text")]


def test_the_picture_says_what_was_run() -> None:
    said = words(carried())
    assert "666 of 1000 messages delivered" in said
    assert "delivered (66.6%)" in said
    assert {"siti", "budi", "agus"} <= set(said), "rows and columns"
    assert "days" in said
    assert any("9.0 MB" in text for text in said)


def test_the_darkest_cell_is_who_carried_most() -> None:
    fills = [rect.get("fill", "") for rect in svg(carried()).iter(f"{SVG}rect")][1:]
    # rows agus, siti; columns budi, siti
    assert len(fills) == 4
    assert fills[2] == "#08306b"
    assert fills[0] == fills[3] == "#f7f8f9"
    assert fills[1] not in fills[2:]


def test_curves_end_where_the_run_ends_and_stay_small() -> None:
    run = carried(messages=20_000)
    curves = [line.get("points", "").split() for line in svg(run).iter(f"{SVG}polyline")][-2:]
    for points in curves:
        assert len(points) < 2000
        heights = [float(point.split(",")[1]) for point in points]
        assert heights == sorted(heights, reverse=True)
    assert curves[0][-1].split(",")[1] == "60.0", "all are recorded: the top"


@pytest.mark.parametrize(
    ("end_s", "unit"), [(50.0, "seconds"), (200.0, "minutes"), (90_000.0, "hours"), (1e7, "days")]
)
def test_the_unit_of_time(end_s: float, unit: str) -> None:
    said = words(carried(end_s))
    assert unit in said
    assert 3 <= sum(text.replace(".", "").isdigit() for text in said) <= 24


def test_one_message_and_nobody_who_carries() -> None:
    run = carried(messages=1)
    run.moved = {}
    assert "Nobody carried anything for anybody." in words(run)
    assert draw(run, PngCanvas)


def test_a_png_is_the_same_picture() -> None:
    root = svg(carried()).attrib
    with Image.open(io.BytesIO(draw(carried(), PngCanvas))) as image:
        assert image.format == "PNG"
        assert image.size == (2 * int(root["width"]), 2 * int(root["height"]))
        colors = image.convert("RGB").getcolors(1 << 24)
    seen = {color for _, color in colors or ()}
    assert seen >= {(8, 48, 107), (11, 83, 148), (154, 165, 177)}, "the darkest cell and both curves"


def test_words_can_stand_upright() -> None:
    canvas = PngCanvas(60, 60)
    canvas.text(30, 55, "iiii", upright=True)
    with Image.open(io.BytesIO(canvas.encode())) as image:
        left, top, right, bottom = ImageChops.invert(image.convert("L")).getbbox() or (0, 0, 0, 0)
    assert bottom - top > right - left
    assert (left + right) / 4 == pytest.approx(27, abs=5), "left of its line, as read from below"
    assert 100 < bottom <= 112


def test_names_are_text_and_not_markup() -> None:
    canvas = SvgCanvas(10, 10)
    canvas.text(1, 1, "<&>")
    assert [text.text for text in ElementTree.fromstring(canvas.encode()).iter(f"{SVG}text")] == ["<&>"]


def test_which_pictures_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    assert canvas_maker(Path("a/b.SVG")) is SvgCanvas
    assert canvas_maker(Path("b.png")) is PngCanvas
    with pytest.raises(
        UnknownPicture, match=r"b\.pdf cannot be drawn: a picture's name ends in \.svg or \.png\."
    ):
        canvas_maker(Path("b.pdf"))
    monkeypatch.setitem(sys.modules, "PIL.ImageDraw", None)
    with pytest.raises(NoPillow, match="needs the library Pillow"):
        canvas_maker(Path("b.png"))
    assert canvas_maker(Path("b.svg")) is SvgCanvas

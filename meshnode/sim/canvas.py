"""A small drawing: rectangles, lines and words, as SVG without any library, or as PNG by Pillow (extra `plot`).

Lengths are in points from the top left corner. Colours are `#rrggbb`.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol
from xml.sax.saxutils import escape

from meshnode.core.errors import LocalError

if TYPE_CHECKING:
    from PIL import ImageFont

#: Pixels of a PNG a point.
_SCALE: Final = 2
_ANCHORS: Final = {"start": "ls", "middle": "ms", "end": "rs"}

Point = tuple[float, float]


class NoPillow(LocalError):
    """A picture as PNG needs the library Pillow: install it with `pip install pillow`, or give the file a name that
    ends in .svg, which needs nothing."""


class UnknownPicture(LocalError):
    """{path} cannot be drawn: a picture's name ends in .svg or .png."""

    exit_code = 2


class Canvas(Protocol):
    """What can be drawn on."""

    def rect(self, x: float, y: float, width: float, height: float, fill: str) -> None:
        """A filled rectangle, from its top left corner."""

    def line(self, points: Sequence[Point], stroke: str, width: float = 1.0) -> None:
        """A line through these points."""

    def text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        size: float = 11.0,
        anchor: str = "start",
        upright: bool = False,
        fill: str = "#222222",
    ) -> None:
        """Words whose line starts, has its middle, or ends at a point; `upright`: read from below."""

    def encode(self) -> bytes:
        """The file's bytes."""


def canvas_maker(path: Path) -> Callable[[float, float], Canvas]:
    """What makes a canvas of some width and height for this file. Raises UnknownPicture or NoPillow."""
    kind = path.suffix.lower()
    if kind == ".svg":
        return SvgCanvas
    if kind != ".png":
        raise UnknownPicture(path=path)
    try:
        import PIL.ImageDraw  # noqa: F401 - whether it is there is all that is asked
    except ImportError:
        raise NoPillow() from None
    return PngCanvas


class SvgCanvas:
    """Scalable Vector Graphics 1.1."""

    def __init__(self, width: float, height: float) -> None:
        self._lines = [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height:g}" '
            f'viewBox="0 0 {width:g} {height:g}" font-family="sans-serif">',
            '<rect width="100%" height="100%" fill="#ffffff"/>',
        ]

    def rect(self, x: float, y: float, width: float, height: float, fill: str) -> None:
        """As `Canvas.rect`."""
        self._lines.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{fill}"/>'
        )

    def line(self, points: Sequence[Point], stroke: str, width: float = 1.0) -> None:
        """As `Canvas.line`."""
        through = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self._lines.append(
            f'<polyline points="{through}" fill="none" stroke="{stroke}" stroke-width="{width:g}"/>'
        )

    def text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        size: float = 11.0,
        anchor: str = "start",
        upright: bool = False,
        fill: str = "#222222",
    ) -> None:
        """As `Canvas.text`."""
        turned = f' transform="rotate(-90 {x:.1f} {y:.1f})"' if upright else ""
        self._lines.append(
            f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size:g}" text-anchor="{anchor}" fill="{fill}"{turned}>'
            f"{escape(text)}</text>"
        )

    def encode(self) -> bytes:
        """As `Canvas.encode`."""
        return "\n".join([*self._lines, "</svg>", ""]).encode()


class PngCanvas:
    """A picture of pixels, by Pillow."""

    def __init__(self, width: float, height: float) -> None:
        from PIL import Image, ImageDraw

        self._image = Image.new("RGB", (round(width * _SCALE), round(height * _SCALE)), "#ffffff")
        self._draw = ImageDraw.Draw(self._image)

    @staticmethod
    def _font(size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
        from PIL import ImageFont

        return ImageFont.load_default(size * _SCALE)

    def rect(self, x: float, y: float, width: float, height: float, fill: str) -> None:
        """As `Canvas.rect`."""
        box = (x * _SCALE, y * _SCALE, (x + width) * _SCALE - 1, (y + height) * _SCALE - 1)
        self._draw.rectangle(box, fill=fill)

    def line(self, points: Sequence[Point], stroke: str, width: float = 1.0) -> None:
        """As `Canvas.line`."""
        through = [(x * _SCALE, y * _SCALE) for x, y in points]
        self._draw.line(through, fill=stroke, width=max(1, round(width * _SCALE)), joint="curve")

    def text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        size: float = 11.0,
        anchor: str = "start",
        upright: bool = False,
        fill: str = "#222222",
    ) -> None:
        """As `Canvas.text`."""
        from PIL import Image, ImageDraw

        font = self._font(size)
        at = (x * _SCALE, y * _SCALE)
        if not upright:
            self._draw.text(at, text, fill=fill, font=font, anchor=_ANCHORS[anchor])
            return
        # Drawn lying on a sheet of its own, with the point in the middle, and turned.
        half = round(self._draw.textlength(text, font=font)) + 4 * _SCALE
        sheet = Image.new("L", (2 * half, 2 * half), 0)
        ImageDraw.Draw(sheet).text((half, half), text, fill=255, font=font, anchor=_ANCHORS[anchor])
        mask = sheet.transpose(Image.Transpose.ROTATE_90)
        corner = (round(at[0]) - half, round(at[1]) - half)
        self._image.paste(fill, (*corner, corner[0] + 2 * half, corner[1] + 2 * half), mask)

    def encode(self) -> bytes:
        """As `Canvas.encode`."""
        out = io.BytesIO()
        self._image.save(out, "PNG", optimize=True)
        return out.getvalue()

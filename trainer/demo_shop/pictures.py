"""The demo shop's pictures: a little poster of each product, drawn with Pillow.

A style is a palette, a pattern and a backdrop, and shows in the picture alone. The outline in front is the
kind of product, which the text names as well and for which nobody has a taste.
"""

from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from shared.errors import UserError

if TYPE_CHECKING:
    from PIL import Image, ImageDraw

SIDE = 96
"""Side of a finished picture, in pixels."""

_CANVAS = 2 * SIDE

_LIGHT = np.tile(np.linspace(255, 205, _CANVAS).astype(np.uint8), (_CANVAS, 1))
"""Light from the left: how much of a product's own colour is left at each pixel, of 255."""

Rgb = tuple[int, int, int]
Plane = NDArray[np.float32]
Mask = NDArray[np.bool_]


class Palette(NamedTuple):
    """Five colours as hex, and plain names for the two that a product can be."""

    wall: str
    backdrop: str
    first: str
    second: str
    ink: str
    names: tuple[str, str]


class Style(NamedTuple):
    """A visible style."""

    palette: Palette
    pattern: str
    backdrop: str


class Mark(NamedTuple):
    """One thing to draw, on a grid of 100 x 100: ``form`` is poly, oval, box, round or line."""

    form: str
    at: tuple[float, ...]
    width: float = 0


class Outline(NamedTuple):
    """A product: what lies behind, the body that carries the pattern, and the details on top."""

    behind: tuple[Mark, ...]
    body: tuple[Mark, ...]
    details: tuple[Mark, ...]


PALETTES = (
    Palette("#e8f3ef", "#9ad1c9", "#17808b", "#f4c95d", "#123a46", ("teal", "yellow")),
    Palette("#fbe9dd", "#f2a97e", "#c8402f", "#f6c453", "#4a1c1a", ("red", "yellow")),
    Palette("#f1f4da", "#b9cf7a", "#5c8a3a", "#fbf3c0", "#2b3e1c", ("green", "cream")),
    Palette("#2a2346", "#5a3f86", "#e56b9a", "#f7c6a3", "#c7aef0", ("pink", "peach")),
    Palette("#eef1f5", "#c3cedb", "#5b7391", "#ffffff", "#222c3a", ("blue", "white")),
    Palette("#fff6c8", "#ffd84a", "#f2811d", "#fffaf0", "#5a3406", ("orange", "cream")),
    Palette("#f9e1ec", "#e69ac0", "#8e2a6b", "#f7dbe8", "#3a0f2e", ("purple", "pink")),
    Palette("#26272d", "#4a4e5a", "#e9e4d8", "#d94a3d", "#8f939f", ("cream", "red")),
    Palette("#efe3d3", "#d7b58f", "#9c5b3a", "#ecd6b2", "#3f2616", ("brown", "cream")),
    Palette("#0f2a4a", "#1d4e86", "#58b4e5", "#f5f7fa", "#ffd36b", ("blue", "white")),
    Palette("#e3f6ff", "#a7e0ff", "#ff6fa5", "#ffe066", "#3b2a57", ("pink", "yellow")),
    Palette("#1c2b24", "#35523f", "#a8c66c", "#f1dfa6", "#6f9a7c", ("green", "cream")),
)

PATTERNS: dict[str, Callable[[Plane, Plane], Mask]] = {
    "vertical stripes": lambda x, y: x % 1 < 0.48,
    "dots": lambda x, y: np.hypot(x % 1 - 0.5, y % 1 - 0.5) < 0.31,
    "chevrons": lambda x, y: (y + 0.8 * np.abs(x * 0.8 % 2 - 1)) % 1 < 0.45,
    "rings": lambda x, y: np.hypot(x, y) % 1 < 0.46,
    "horizontal stripes": lambda x, y: y % 1 < 0.48,
    "checks": lambda x, y: (x * 0.8 % 1 < 0.5) ^ (y * 0.8 % 1 < 0.5),
    "waves": lambda x, y: (y + 0.32 * np.sin(4.6 * x)) % 1 < 0.45,
    "lattice": lambda x, y: ((x + y) * 0.7 % 1 < 0.2) | ((x - y) * 0.7 % 1 < 0.2),
    "slanted stripes": lambda x, y: (x + y) * 0.72 % 1 < 0.46,
    "triangles": lambda x, y: 2 * np.abs((x + 0.5 * np.floor(y)) % 1 - 0.5) < y % 1,
    "terrazzo": lambda x, y: np.sin(4 * x + 1.9 * np.sin(3.1 * y)) + np.sin(4.4 * y + 2.3 * np.sin(2.6 * x)) > 0.8,
    "scallops": lambda x, y: np.hypot((x + 0.5 * np.floor(y)) % 1 - 0.5, y % 1) * 3.4 % 1 < 0.45,
}  # fmt: skip

BACKDROPS = {
    "disc": (Mark("oval", (12, 10, 88, 86)),),
    "arch": (Mark("oval", (18, 6, 82, 70)), Mark("box", (18, 38, 82, 100))),
    "floor": (Mark("box", (0, 66, 100, 100)),),
    "rays": tuple(
        Mark("poly", (50, 56, *(50 + 90 * f(a + d) for d in (-0.13, 0.13) for f in (np.cos, np.sin))))
        for a in np.arange(12) * np.pi / 6
    ),
    "frame": (Mark("line", (6, 6, 94, 6, 94, 94, 6, 94, 6, 3), 7),),
    "hills": (Mark("oval", (-45, 58, 65, 150)), Mark("oval", (38, 66, 140, 150)), Mark("oval", (66, 8, 88, 30))),
    "diamond": (Mark("poly", (50, 2, 98, 50, 50, 98, 2, 50)),),
    "curtains": (Mark("box", (0, 0, 22, 100)), Mark("box", (78, 0, 100, 100))),
}  # fmt: skip

STYLES = tuple(
    Style(PALETTES[k % 12], tuple(PATTERNS)[(5 * k + k // 12 * 3) % 12], tuple(BACKDROPS)[(3 * k + k // 12) % 8])
    for k in range(24)
)
"""Each palette and each pattern serves two styles, so neither alone tells the style."""

OUTLINES = {
    "lamp": Outline(
        (Mark("box", (48, 40, 52, 84)), Mark("round", (34, 82, 66, 88))),
        (Mark("poly", (36, 14, 64, 14, 78, 50, 22, 50)),),
        (Mark("line", (60, 50, 60, 60), 1.5), Mark("oval", (58, 59, 62, 63))),
    ),
    "mug": Outline(
        (Mark("line", (68, 36, 82, 38, 84, 52, 80, 64, 66, 68), 6),),
        (Mark("round", (22, 26, 70, 84)),),
        (Mark("line", (24, 28, 68, 28), 3),),
    ),
    "vase": Outline(
        (Mark("line", (50, 30, 44, 6), 2), Mark("line", (52, 30, 62, 8), 2), Mark("oval", (38, 2, 48, 12)),
         Mark("oval", (58, 3, 69, 14))),
        (Mark("box", (41, 22, 59, 40)), Mark("oval", (26, 34, 74, 88)), Mark("oval", (36, 18, 64, 26))),
        (Mark("line", (38, 22, 62, 22), 2),),
    ),
    "chair": Outline(
        (Mark("line", (28, 58, 22, 90), 4), Mark("line", (70, 58, 78, 90), 4), Mark("line", (40, 62, 38, 84), 3),
         Mark("line", (62, 62, 64, 84), 3)),
        (Mark("round", (26, 10, 74, 48)), Mark("round", (22, 52, 78, 64))),
        (Mark("line", (32, 46, 32, 54), 3), Mark("line", (68, 46, 68, 54), 3)),
    ),
    "clock": Outline(
        (Mark("oval", (16, 16, 84, 84)), Mark("line", (36, 80, 30, 90), 5), Mark("line", (64, 80, 70, 90), 5)),
        (Mark("oval", (20, 20, 80, 80)),),
        (Mark("line", (50, 50, 50, 28), 3.5), Mark("line", (50, 50, 65, 58), 3.5), Mark("oval", (46, 46, 54, 54))),
    ),
    "backpack": Outline(
        (Mark("line", (42, 18, 42, 8, 58, 8, 58, 18), 4), Mark("round", (18, 46, 82, 80))),
        (Mark("round", (26, 16, 74, 88)), Mark("oval", (26, 10, 74, 44))),
        (Mark("line", (28, 42, 72, 42), 2), Mark("line", (34, 56, 66, 56, 66, 78, 34, 78, 34, 55), 2),
         Mark("box", (47, 42, 53, 50))),
    ),
    "teapot": Outline(
        (Mark("line", (72, 42, 90, 44, 90, 64, 72, 70), 5), Mark("poly", (28, 62, 8, 38, 15, 34, 34, 48)),
         Mark("oval", (46, 18, 54, 27))),
        (Mark("oval", (22, 30, 76, 84)), Mark("oval", (36, 24, 62, 38))),
        (Mark("line", (31, 38, 67, 38), 2),),
    ),
    "cushion": Outline(
        (),
        (Mark("poly", (14, 22, 32, 27, 50, 28, 68, 27, 86, 22, 81, 40, 80, 54, 81, 68, 86, 86, 68, 81, 50, 80, 32,
                       81, 14, 86, 19, 68, 20, 54, 19, 40)),),
        (Mark("oval", (47, 51, 53, 57)),),
    ),
    "planter": Outline(
        (Mark("poly", (50, 54, 24, 34, 20, 12, 38, 22)), Mark("poly", (50, 54, 76, 34, 82, 14, 62, 22)),
         Mark("poly", (50, 54, 41, 22, 50, 4, 59, 22)), Mark("box", (49, 40, 51, 56))),
        (Mark("poly", (28, 56, 72, 56, 66, 90, 34, 90)), Mark("round", (24, 50, 76, 60))),
        (),
    ),
    "umbrella": Outline(
        (Mark("line", (50, 40, 50, 82, 46, 88, 40, 87, 37, 81), 3.5), Mark("box", (49, 8, 51, 20))),
        (Mark("poly", (10, 52, 14, 36, 26, 22, 40, 15, 50, 14, 60, 15, 74, 22, 86, 36, 90, 52, 82, 47, 74, 47, 66,
                       52, 58, 47, 50, 46, 42, 47, 34, 52, 26, 47, 18, 47)),),
        (Mark("line", (50, 14, 34, 50), 1), Mark("line", (50, 14, 66, 50), 1)),
    ),
    "notebook": Outline(
        (Mark("round", (28, 16, 80, 88)),),
        (Mark("round", (24, 12, 76, 84)),),
        (Mark("box", (24, 12, 33, 84)), Mark("box", (66, 12, 69, 84))),
    ),
    "shirt": Outline(
        (),
        (Mark("poly", (36, 14, 64, 14, 90, 30, 80, 48, 70, 42, 70, 88, 30, 88, 30, 42, 20, 48, 10, 30)),),
        (Mark("oval", (40, 8, 60, 24)),),
    ),
    "kite": Outline(
        (Mark("line", (50, 74, 58, 82, 48, 88, 56, 96), 2), Mark("poly", (51, 80, 60, 77, 60, 86)),
         Mark("poly", (54, 90, 44, 88, 46, 96))),
        (Mark("poly", (50, 4, 80, 32, 50, 76, 20, 32)),),
        (Mark("line", (50, 4, 50, 76), 1.5), Mark("line", (20, 32, 80, 32), 1.5)),
    ),
    "ukulele": Outline(
        (Mark("box", (46, 10, 54, 52)), Mark("poly", (43, 2, 57, 2, 55, 14, 45, 14))),
        (Mark("oval", (34, 38, 66, 66)), Mark("oval", (28, 54, 72, 94))),
        (Mark("oval", (43, 56, 57, 70)), Mark("box", (41, 80, 59, 83)), Mark("line", (50, 12, 50, 82), 0.8)),
    ),
    "bottle": Outline(
        (Mark("round", (43, 4, 57, 18)),),
        (Mark("poly", (44, 18, 56, 18, 57, 26, 68, 36, 68, 60, 32, 60, 32, 36, 43, 26)),
         Mark("round", (32, 40, 68, 90))),
        (Mark("line", (43, 20, 57, 20), 2),),
    ),
    "birdhouse": Outline(
        (Mark("box", (47, 80, 53, 98)), Mark("poly", (50, 6, 86, 40, 78, 46, 50, 20, 22, 46, 14, 40))),
        (Mark("poly", (50, 18, 74, 42, 74, 82, 26, 82, 26, 42)),),
        (Mark("oval", (41, 42, 59, 60)), Mark("line", (50, 68, 50, 74), 4)),
    ),
}  # fmt: skip


_SHADOW = Mark("oval", (16, 86, 84, 97))
_FAINT = [level // 5 for level in range(256)]


def draw_picture(style: Style, kind: str, colour: int, rng: np.random.Generator) -> "Image.Image":
    """Draw one product as RGB, ``SIDE`` x ``SIDE`` pixels.

    Args:
        style: What a customer may like about it.
        kind: A key of `OUTLINES`.
        colour: 0 or 1, which of the palette's two colours the body has; the other is the pattern's.
        rng: Where each picture's own small differences come from.
    """
    image, _, chops = _pillow()
    wall, shade, first, second, ink = (_tint(code, rng) for code in style.palette[:5])
    base, over = (first, second) if colour == 0 else (second, first)
    size = float(rng.uniform(0.76, 0.9))
    left = float(rng.uniform(0.42, 0.58)) - size / 2
    place = (left, 0.5 - size * 0.47, size)

    print_mask = image.fromarray(_pattern(style.pattern, rng))
    picture = image.new("RGB", (_CANVAS, _CANVAS), wall)
    backdrop = image.new("RGB", picture.size, shade)
    backdrop.paste(_mix(shade, wall, 0.22), mask=print_mask)
    picture.paste(backdrop, mask=_stencil(BACKDROPS[style.backdrop], (0, 0, 1)))

    outline = OUTLINES[kind]
    body = image.new("RGB", picture.size, base)
    body.paste(over, mask=print_mask)
    body = image.composite(body, image.new("RGB", picture.size), image.fromarray(_LIGHT))
    silhouette = _stencil(outline.body, place)
    picture.paste(0, mask=_stencil((_SHADOW,), place).point(_FAINT))
    inked = _stencil(outline.behind, place)
    for across, down in ((-2, 0), (2, 0), (0, -2), (0, 2)):
        inked = chops.lighter(inked, chops.offset(silhouette, across, down))
    picture.paste(ink, mask=inked)
    picture.paste(body, mask=silhouette)
    picture.paste(ink, mask=_stencil(outline.details, place))
    finished: Image.Image = picture.resize((SIDE, SIDE), image.Resampling.BOX)
    return finished


def _pillow() -> tuple[ModuleType, ModuleType, ModuleType]:
    try:
        from PIL import Image, ImageChops, ImageDraw
    except ImportError as error:
        raise UserError("drawing pictures needs Pillow: pip install 'mts4mm[text]'") from error
    return Image, ImageDraw, ImageChops


def _pattern(name: str, rng: np.random.Generator) -> NDArray[np.uint8]:
    """A pattern as a mask of 0 and 255, (canvas, canvas), with its own scale, tilt and phase."""
    tile = _CANVAS / rng.uniform(7.2, 9.0)
    tilt = rng.uniform(-0.1, 0.1)
    axis = (np.arange(_CANVAS, dtype=np.float32) - _CANVAS / 2) / np.float32(tile)
    across, down = axis[None, :], axis[:, None]
    phase = rng.uniform(0, 1, 2)
    x = (across * np.cos(tilt) + down * np.sin(tilt) + phase[0]).astype(np.float32)
    y = (down * np.cos(tilt) - across * np.sin(tilt) + phase[1]).astype(np.float32)
    return np.where(PATTERNS[name](x, y), np.uint8(255), np.uint8(0))


def _stencil(marks: tuple[Mark, ...], place: tuple[float, float, float]) -> "Image.Image":
    """The marks as a mask of 0 and 255; ``place`` is left, top and size as shares of the canvas."""
    image, draw, _ = _pillow()
    mask: Image.Image = image.new("L", (_CANVAS, _CANVAS))
    pen = draw.Draw(mask)
    for mark in marks:
        _stamp(pen, mark, place)
    return mask


def _stamp(pen: "ImageDraw.ImageDraw", mark: Mark, place: tuple[float, float, float]) -> None:
    left, top, size = place
    unit = _CANVAS * size / 100
    offset = (left * _CANVAS, top * _CANVAS)
    at = [value * unit + offset[axis % 2] for axis, value in enumerate(mark.at)]
    if mark.form == "poly":
        pen.polygon(at, fill=255)
    elif mark.form == "oval":
        pen.ellipse(at, fill=255)
    elif mark.form == "box":
        pen.rectangle(at, fill=255)
    elif mark.form == "round":
        pen.rounded_rectangle(at, radius=4 * unit, fill=255)
    else:
        pen.line(at, fill=255, width=max(1, round(mark.width * unit)), joint="curve")


def _tint(code: str, rng: np.random.Generator) -> Rgb:
    """The colour of a hex code, a little off."""
    red, green, blue = (int(code[k : k + 2], 16) for k in (1, 3, 5))
    drift = rng.integers(-9, 10, 3)
    return (
        _byte(red + int(drift[0])),
        _byte(green + int(drift[1])),
        _byte(blue + int(drift[2])),
    )


def _mix(one: Rgb, other: Rgb, share: float) -> Rgb:
    red, green, blue = (_byte(round(a + (b - a) * share)) for a, b in zip(one, other, strict=True))
    return red, green, blue


def _byte(value: int) -> int:
    return min(255, max(0, value))

"""Drawings made at random: what photographs do not show (all our choice).

A codec that saw photographs alone has never met lines one pixel wide, two colours without anything
between them, or half of an image full of stripes, and what its generated kernels become there is
anybody's guess. Screenshots, diagrams and test patterns are made of little else.
"""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]
Rng = np.random.Generator

_LETTERS = "etaoinshrdlcumwfgypbvkETAOINSHRDLU0123456789.,:;()[]{}+-=/*#%& "


def sometimes_drawn(share: float, photograph: np.ndarray, rng: Rng) -> np.ndarray:
    """A crop as it is or, for a share of all, a drawing of its size.

    Args:
        share: Of drawings, 0 to 1.
        photograph: Crop, uint8 `(S, S, 3)`.
        rng: Decides.
    """
    return draw(rng, photograph) if share and rng.random() < share else photograph


def draw(rng: Rng, photograph: np.ndarray) -> np.ndarray:
    """A drawing of the size of a photograph.

    One kind all over, or up to four in tiles as windows lie on a screen. Half of the drawings have
    less than full contrast, so that there is a way from what is easy to what is hard; some keep
    part of the photograph, or fade into it.

    Args:
        rng: Decides.
        photograph: Crop, uint8 `(S, S, 3)`.

    Returns:
        uint8 `(S, S, 3)`.
    """
    size = len(photograph)
    drawing = _one(rng, size, photograph)
    for _ in range(rng.integers(4) if rng.random() < 0.5 else 0):
        top, left = rng.integers(0, size - size // 4, 2)
        height, width = rng.integers(size // 8, size, 2)
        window = slice(top, top + height), slice(left, left + width)
        drawing = drawing.copy()
        drawing[window] = _one(rng, size, photograph)[window]
    if rng.random() < 0.5:
        faded = photograph if rng.random() < 0.3 else np.array(_colour(rng))
        strength = rng.uniform(0.1, 1.0)
        drawing = np.rint(strength * drawing + (1 - strength) * faded).astype(np.uint8)
    return drawing


def _one(rng: Rng, size: int, photograph: np.ndarray) -> np.ndarray:
    kind = _KINDS[rng.integers(len(_KINDS))]
    return photograph if kind is None else kind(rng, size)


def _colour(rng: Rng) -> Colour:
    """Black, white or grey, a corner of the colour cube, or any."""
    kind = rng.random()
    if kind < 0.4:
        value = int(rng.choice((0, 255))) if kind < 0.3 else int(rng.integers(256))
        return value, value, value
    values = rng.integers(0, 2, 3) * 255 if kind < 0.7 else rng.integers(0, 256, 3)
    red, green, blue = map(int, values)
    return red, green, blue


def _colours(rng: Rng) -> Callable[[], Colour]:
    """A palette of one colour to five."""
    palette = [_colour(rng) for _ in range(rng.integers(1, 6))]
    return lambda: palette[rng.integers(len(palette))]


def _canvas(rng: Rng, size: int) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    image = Image.new("RGB", (size, size), _colour(rng))
    return image, ImageDraw.Draw(image)


def lines(rng: Rng, size: int) -> np.ndarray:
    """Straight lines, bent ones and curves, one to six pixels wide.

    Args:
        rng: Decides.
        size: Side of the image, pixels.
    """
    (image, pen), colour = _canvas(rng, size), _colours(rng)
    for _ in range(rng.integers(1, 60)):
        points = rng.integers(-size // 4, size + size // 4, (rng.integers(2, 6), 2))
        width = int(rng.integers(1, 7))
        if rng.random() < 0.3:
            (left, top), (right, bottom) = np.sort(points[:2], axis=0)
            start, end = rng.uniform(0, 360, 2)
            pen.arc((left, top, right, bottom), start, end, fill=colour(), width=width)
        else:
            pen.line([tuple(map(int, p)) for p in points], fill=colour(), width=width)
    return np.asarray(image)


def grid(rng: Rng, size: int) -> np.ndarray:
    """Ruled paper, with curves of a plot.

    Args:
        rng: Decides.
        size: Side of the image, pixels.
    """
    (image, pen), colour = _canvas(rng, size), _colours(rng)
    ruling, width = colour(), int(rng.integers(1, 4))
    for axis in range(2):
        for place in range(int(rng.integers(size)) % 32, size, int(rng.integers(4, 65))):
            ends = [(place, 0), (place, size)]
            pen.line([p[::-1] for p in ends] if axis else ends, fill=ruling, width=width)
    for _ in range(rng.integers(4)):
        x = np.linspace(0, size, 40)
        y = size * (0.5 + 0.3 * np.cumsum(rng.normal(0, 0.2, 40)))
        pen.line(list(zip(x, y, strict=True)), fill=colour(), width=int(rng.integers(1, 5)))
    return np.asarray(image)


def shapes(rng: Rng, size: int) -> np.ndarray:
    """Filled rectangles, ellipses and polygons.

    Args:
        rng: Decides.
        size: Side of the image, pixels.
    """
    (image, pen), colour = _canvas(rng, size), _colours(rng)
    for _ in range(rng.integers(1, 40)):
        start = rng.integers(-size // 8, size, 2)
        end = start + rng.integers(2, size // 2, 2)
        box = (*map(int, start), *map(int, end))
        kind = rng.integers(3)
        if kind == 0:
            pen.rectangle(box, fill=colour())
        elif kind == 1:
            pen.ellipse(box, fill=colour())
        else:
            corners = rng.integers(start, end, (rng.integers(3, 8), 2))
            pen.polygon([tuple(map(int, p)) for p in corners], fill=colour())
    return np.asarray(image)


def text(rng: Rng, size: int) -> np.ndarray:
    """Lines of letters, 8 to 48 pixels high.

    Args:
        rng: Decides.
        size: Side of the image, pixels.
    """
    (image, pen), colour = _canvas(rng, size), _colours(rng)
    height = int(rng.choice((8, 10, 12, 14, 18, 24, 32, 48)))
    font = ImageFont.load_default(height)
    for top in range(int(rng.integers(height)), size, height + int(rng.integers(1, height))):
        if rng.random() < 0.9:
            letters = rng.choice(list(_LETTERS), rng.integers(1, 4 * size // height))
            pen.text((int(rng.integers(size // 3)), top), "".join(letters), colour(), font)
    return np.asarray(image)


def pattern(rng: Rng, size: int) -> np.ndarray:
    """Stripes, checks or waves of a period of 2 to 64 pixels, in two colours.

    Args:
        rng: Decides.
        size: Side of the image, pixels.
    """
    y, x = np.mgrid[:size, :size].astype(np.float64)
    periods = np.exp2(rng.uniform(1, 6, 2))
    if rng.random() < 0.5:
        periods = np.exp2(rng.integers(1, 6, 2))
    if rng.random() < 0.5:
        angle = rng.uniform(0, np.pi)
        x, y = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    waves = np.sin(2 * np.pi * (x + 0.5) / periods[0])
    kind = rng.integers(3)
    if kind == 0:
        other = np.sin(2 * np.pi * (y + 0.5) / (periods[0] if rng.random() < 0.5 else periods[1]))
        waves = waves * other
    elif kind == 1 and rng.random() < 0.5:
        waves = waves.T
    if rng.random() < 0.7:
        waves = np.where(waves > 0, 1.0, -1.0)
    return _between(rng, (waves + 1) / 2)


def noise(rng: Rng, size: int) -> np.ndarray:
    """Random blocks of 1 to 32 pixels, of two colours, grey or coloured.

    Args:
        rng: Decides.
        size: Side of the image, pixels.
    """
    block = 2 ** int(rng.integers(6))
    shape = (-(-size // block), -(-size // block))
    kind = rng.integers(3)
    if kind == 2:
        values = rng.integers(0, 256, (*shape, 3))
        if rng.random() < 0.5:
            values = values // 128 * 255
    else:
        share = rng.random(shape) if kind else rng.random(shape) < rng.uniform(0.05, 0.95)
        values = _between(rng, share)
    blocks = values.repeat(block, 0).repeat(block, 1)
    return blocks[:size, :size].astype(np.uint8)


def gradient(rng: Rng, size: int) -> np.ndarray:
    """One colour, or a slope from one to another.

    Args:
        rng: Decides.
        size: Side of the image, pixels.
    """
    y, x = np.mgrid[:size, :size] / size
    along = rng.uniform(-1, 1, 2) * rng.integers(2)
    return _between(rng, np.clip(0.5 + along[0] * (y - 0.5) + along[1] * (x - 0.5), 0, 1))


def _between(rng: Rng, share: np.ndarray) -> np.ndarray:
    """`(H, W)` from 0 to 1 as `(H, W, 3)` from one colour to another, uint8."""
    colours = np.array([_colour(rng), _colour(rng)], np.float64)
    share = np.asarray(share, np.float64)[..., None]
    return np.rint(colours[0] + share * (colours[1] - colours[0])).astype(np.uint8)


# Those that are hardest come twice. None: the photograph itself, behind windows and faded drawings.
_KINDS: tuple[Callable[[Rng, int], np.ndarray] | None, ...] = (
    lines,
    grid,
    shapes,
    text,
    *(2 * [pattern]),
    *(2 * [noise]),
    gradient,
    None,
)

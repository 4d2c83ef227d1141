"""An image in overlapping windows, so that a gradient of all of it fits into memory.

The networks are local, but for the means that weigh channels. So a window says of its own part what
the whole image says, up to its borders and its means. A margin around the own part takes the
borders. All windows of an image have one size, and so one program. (Our choice.)
"""

import itertools
import math
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Float, Shaped

from llic_jax.ops.sizes import HYPER_STRIDE, LATENT_STRIDE

MARGIN = 1  # blocks of 64 pixels around a window's own part
LEAST_BLOCKS = (2 * MARGIN + 1) ** 2  # of a window that has an own part anywhere
_OF_Y = HYPER_STRIDE // LATENT_STRIDE  # elements of `y` along a block


class Span(NamedTuple):
    """Along one axis, in blocks of 64 pixels.

    Attributes:
        start: Of the window in the image.
        length: Of the window.
        first: Of the own part, in the window.
        last: Behind the own part, in the window.
    """

    start: int
    length: int
    first: int
    last: int

    def window(self, scale: int) -> slice:
        """Of an array of the image.

        Args:
            scale: Elements of the array along a block.
        """
        return slice(scale * self.start, scale * (self.start + self.length))

    def own(self, scale: int) -> slice:
        """Of an array of the window.

        Args:
            scale: Elements of the array along a block.
        """
        return slice(scale * self.first, scale * self.last)


class Window(NamedTuple):
    """A part of an image; what is its own belongs to no other window.

    Attributes:
        rows: From top to bottom.
        columns: From left to right.
    """

    rows: Span
    columns: Span

    def pixels(self, x: Shaped[np.ndarray, "b h w c"]) -> Shaped[np.ndarray, "b own_h own_w c"]:
        """What the window shows of an array of pixels."""
        return self._cut(x, HYPER_STRIDE)

    def latent(
        self, y: Float[np.ndarray, "b h16 w16 m"]
    ) -> Float[np.ndarray, "b own_h16 own_w16 m"]:
        """What the window shows of an image's latent."""
        return self._cut(y, _OF_Y)

    def write(
        self,
        part: Float[Array | np.ndarray, "b own_h16 own_w16 m"],
        whole: Float[np.ndarray, "b h16 w16 m"],
    ) -> None:
        """Writes what is the window's own into an array of the latent's size.

        Args:
            part: Of the window.
            whole: Of the image, which can be written to.
        """
        own = slice(None), self.rows.own(_OF_Y), self.columns.own(_OF_Y)
        self._cut(whole, _OF_Y)[own] = np.asarray(part)[own]

    def own_sum(self, blocks: Float[Array | np.ndarray, "own_h64 own_w64"]) -> float:
        """The sum over what is the window's own.

        Args:
            blocks: A figure for each block of the window.
        """
        return float(np.asarray(blocks)[self.rows.own(1), self.columns.own(1)].sum())

    def _cut(self, x: Any, scale: int) -> Any:
        return x[:, self.rows.window(scale), self.columns.window(scale)]


def windows(rows: int, columns: int, most: int) -> list[Window]:
    """Windows of one size, whose own parts are the image.

    Args:
        rows: Of the image, in blocks.
        columns: Likewise.
        most: Blocks of a window, `LEAST_BLOCKS` at least. An image that has no more is one window.
    """
    if rows * columns <= most:
        return [Window(_whole(rows), _whole(columns))]
    side = math.isqrt(most)
    height = min(rows, max(side, most // columns))
    return [
        Window(of_rows, of_columns)
        for of_rows in _spans(rows, height)
        for of_columns in _spans(columns, most // height)
    ]


def _whole(length: int) -> Span:
    return Span(0, length, 0, length)


def _spans(length: int, most: int) -> list[Span]:
    """As few as can be, of equal length, `most` at most."""
    if length <= most:
        return [_whole(length)]
    count = -(-length // (most - 2 * MARGIN))
    edges = [length * i // count for i in range(count + 1)]
    own = list(itertools.pairwise(edges))
    size = max(stop - start for start, stop in own) + 2 * MARGIN
    spans = []
    for start, stop in own:
        at = min(max(start - MARGIN, 0), length - size)
        spans.append(Span(at, size, start - at, stop - at))
    return spans

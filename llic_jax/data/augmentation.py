"""Random crops: where they lie and how they are varied, first in numbers, then in pixels.

    RandomCrop.plan(shape, rng) -> Crop          numbers alone: needs no pixels, runs anywhere
    cut(image, crop, size)      -> (S, S, 3)     their pixels, here with NumPy
    device_crops.py                              the same pixels, gathered on an accelerator

All arithmetic on pixels is on integers, so both ways give the same crops, to the bit.
"""

import dataclasses
from typing import NamedTuple

import numpy as np
from PIL import Image

_ONE = 256  # a channel's gain of 1, in fixed point


class Crop(NamedTuple):
    """One crop of one photograph.

    Attributes:
        height, width: That the photograph is reduced to before, pixels.
        top, left: Of the crop in it.
        symmetry: Of the square: bit 2 exchanges rows and columns, then bit 1 reverses the rows,
            then bit 0 the columns.
        order: Which channels become red, green and blue.
        gains: Of red, green and blue, in 256ths.
    """

    height: int
    width: int
    top: int
    left: int
    symmetry: int = 0
    order: tuple[int, int, int] = (0, 1, 2)
    gains: tuple[int, int, int] = (_ONE, _ONE, _ONE)


class Window(NamedTuple):
    """A rectangle within a crop: rows from `top` to `bottom`, columns from `left` to `right`."""

    top: int
    bottom: int
    left: int
    right: int


@dataclasses.dataclass(frozen=True)
class RandomCrop:
    """A square crop at a random place, and how it is varied.

    Attributes:
        size: Side of the crop, pixels.
        flip: Mirror half of the crops.
        downsample: First reduce by a random Lanczos factor between 1 and 2, as far as the size
            allows (paper: JPEG sources are reduced to remove their artefacts).
        symmetries: Any of the eight symmetries of the square, in place of mirroring (our choice).
        gain: Multiply each channel by a factor from 1 / (1 + gain) to 1 + gain, drawn uniformly in
            its logarithm (our choice).
        exchange: Probability of a random order of the channels (our choice).

    An image smaller than the crop is extended by mirroring.
    """

    size: int
    flip: bool = True
    downsample: bool = False
    symmetries: bool = False
    gain: float = 0.0
    exchange: float = 0.0

    def plan(self, shape: tuple[int, ...], rng: np.random.Generator) -> Crop:
        """A random crop of a photograph.

        Args:
            shape: Of the photograph, `(H, W, ...)`.
            rng: Decides.
        """
        size = self.size
        height, width = shape[:2]
        if self.downsample:
            factor = rng.uniform(1.0, max(1.0, min(2.0, min(height, width) / size)))
            height, width = (max(size, round(side / factor)) for side in (height, width))
        top = int(rng.integers(max(height, size) - size + 1))
        left = int(rng.integers(max(width, size) - size + 1))
        if self.symmetries:
            symmetry = int(rng.integers(8))
        else:
            symmetry = int(rng.integers(2)) if self.flip else 0
        crop = Crop(height, width, top, left, symmetry)
        if self.exchange and rng.random() < self.exchange:
            first, second, third = map(int, rng.permutation(3))
            crop = crop._replace(order=(first, second, third))
        if self.gain:
            limit = np.log1p(self.gain)
            red, green, blue = np.rint(_ONE * np.exp(rng.uniform(-limit, limit, 3))).astype(int)
            crop = crop._replace(gains=(int(red), int(green), int(blue)))
        return crop

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """A random crop of `image` `(H, W, 3)`, uint8: `(size, size, 3)`."""
        return cut(image, self.plan(image.shape, rng), self.size)


def cut(image: np.ndarray, crop: Crop, size: int) -> np.ndarray:
    """The pixels of a crop `(size, size, 3)` of `image` `(H, W, 3)`, uint8."""
    if image.shape[:2] != (crop.height, crop.width):
        reduced = Image.fromarray(image).resize((crop.width, crop.height), Image.Resampling.LANCZOS)
        image = np.asarray(reduced)
    pixels = image[crop.top : crop.top + size, crop.left : crop.left + size]
    short = [(0, size - side) for side in pixels.shape[:2]]
    if any(missing for _, missing in short):
        pixels = np.pad(pixels, (*short, (0, 0)), mode="symmetric")
    if crop.symmetry & 4:
        pixels = pixels.swapaxes(0, 1)
    if crop.symmetry & 2:
        pixels = pixels[::-1]
    if crop.symmetry & 1:
        pixels = pixels[:, ::-1]
    if crop.order != (0, 1, 2):
        pixels = pixels[..., list(crop.order)]
    if crop.gains != (_ONE, _ONE, _ONE):
        scaled = (pixels.astype(np.int32) * np.array(crop.gains, np.int32) + _ONE // 2) // _ONE
        pixels = np.minimum(scaled, 255).astype(np.uint8)
    return np.ascontiguousarray(pixels)


def random_window(size: int, rng: np.random.Generator) -> Window:
    """A rectangle of a crop that another photograph's crop is pasted into.

    The image then has edges between contents that have nothing in common. The sides are from 1/4 to
    3/4 of the crop's (our choice; cut and paste as Yun et al., "CutMix", ICCV 2019, without their
    labels).

    Args:
        size: Side of the crop, pixels.
        rng: Decides.
    """
    height, width = (int(side) for side in rng.integers(size // 4, size * 3 // 4 + 1, 2))
    top, left = int(rng.integers(size - height + 1)), int(rng.integers(size - width + 1))
    return Window(top, top + height, left, left + width)


def paste(onto: np.ndarray, other: np.ndarray, window: Window) -> np.ndarray:
    """A crop with the window of another one in it.

    Args:
        onto: The crop, `(S, S, 3)`.
        other: The other crop, of the same shape.
        window: What is taken of it.
    """
    pixels = onto.copy()
    rows, columns = slice(window.top, window.bottom), slice(window.left, window.right)
    pixels[rows, columns] = other[rows, columns]
    return pixels

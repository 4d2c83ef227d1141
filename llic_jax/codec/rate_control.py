"""How much an image may take: a quality, or a target that a search over qualities meets."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Bool, UInt8

from llic_jax.bitstream.file import QUALITY_STEPS
from llic_jax.codec.results import Compressed
from llic_jax.errors import InputError
from llic_jax.metrics import distortion

_FINEST = 4  # steps of quality at which the search ends: a 64th of a level


class Quality(NamedTuple):
    """A quality, from 1 to the model's number of levels, continuous.

    Attributes:
        value: None for the middle; a model of one rate takes no other.
    """

    value: float | None = None


MIDDLE = Quality()


class TargetBpp(NamedTuple):
    """The highest quality, to a 64th of a level, whose file has at most `value` bits per pixel."""

    value: float


class TargetPsnr(NamedTuple):
    """The lowest quality, to a 64th of a level, that reaches `value` dB over RGB.

    Attributes:
        value: PSNR, dB.
        visible: Where it is measured; None for everywhere.
    """

    value: float
    visible: Bool[np.ndarray, "h w"] | None = None


def target(
    *,
    bpp: float | None = None,
    psnr: float | None = None,
    visible: Bool[np.ndarray, "h w"] | None = None,
) -> TargetBpp | TargetPsnr:
    """The one target that is given.

    Args:
        bpp: Bits per pixel of the whole file, at most.
        psnr: Decibels, at least.
        visible: Pixels that the PSNR is of; all by default.

    Raises:
        InputError: None is given, or both are.
    """
    if bpp is not None and psnr is None:
        return TargetBpp(bpp)
    if psnr is not None and bpp is None:
        return TargetPsnr(psnr, visible)
    raise InputError("Name one target: bits per pixel or PSNR.")


def search(
    encode: Callable[[float], Compressed],
    reconstruct: Callable[[Compressed], UInt8[Array | np.ndarray, "h w 3"]],
    image: UInt8[Array | np.ndarray, "h w 3"],
    target: TargetBpp | TargetPsnr,
    levels: int,
) -> Compressed:
    """Compresses one image with the quality that meets a target.

    Rate and PSNR are taken to rise with quality; eight to ten encodings are made.

    Args:
        encode: The image at a quality.
        reconstruct: The image that a decoder will make.
        image: To be compressed.
        target: To be met.
        levels: Of quality.

    Raises:
        InputError: A model of one rate, or a target out of the model's reach.
    """
    if levels == 1:
        raise InputError("This model has one rate; a target needs one of several.")
    is_rate = isinstance(target, TargetBpp)

    def attempt(step: int) -> tuple[Compressed, float, bool]:
        """An encoding, its figure, and whether its quality is high enough (or too high)."""
        encoded = encode(step / QUALITY_STEPS)
        if isinstance(target, TargetBpp):
            rate = 8 * len(encoded.data) / (encoded.height * encoded.width)
            return encoded, rate, rate > target.value
        reached = distortion.image_psnr(image, reconstruct(encoded), target.visible)
        return encoded, reached, reached >= target.value

    low, high = QUALITY_STEPS, levels * QUALITY_STEPS
    lowest, lowest_figure, lowest_beyond = attempt(low)
    highest, highest_figure, highest_beyond = attempt(high)
    if is_rate and lowest_beyond:
        raise InputError(
            f"{target.value:g} bpp is out of reach: quality 1 takes {lowest_figure:.4f} bpp for "
            "this image."
        )
    if not is_rate and not highest_beyond:
        raise InputError(
            f"{target.value:g} dB is out of reach: quality {levels} gives "
            f"{highest_figure:.2f} dB for this image."
        )
    if not highest_beyond:
        return highest
    if lowest_beyond:
        return lowest
    below, beyond = lowest, highest
    while high - low > _FINEST:
        middle = (low + high) // 2
        encoded, _, is_beyond = attempt(middle)
        if is_beyond:
            high, beyond = middle, encoded
        else:
            low, below = middle, encoded
    return below if is_rate else beyond

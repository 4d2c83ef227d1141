"""The quality that meets a target: a short search over encodings of one image."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, UInt8

from llic_jax.bitstream.file import QUALITY_STEPS
from llic_jax.codec.codec import Codec
from llic_jax.codec.results import Compressed
from llic_jax.codec.validation import as_image
from llic_jax.errors import InputError
from llic_jax.metrics import distortion

_FINEST = 4  # steps of quality at which the search ends: a 64th of a level


def encode_to_target(
    codec: Codec,
    image: UInt8[np.ndarray, "h w 3"],
    *,
    bpp: float | None = None,
    psnr: float | None = None,
    sections: Mapping[int, bytes] | None = None,
    visible: Bool[np.ndarray, "h w"] | None = None,
) -> Compressed:
    """Compresses with the highest quality whose file has at most `bpp` bits per pixel, or with the
    lowest that reaches `psnr` (dB, over RGB), to a 64th of a quality level.

    visible: where PSNR is measured; everywhere by default.

    Rate and PSNR are taken to rise with quality; eight to ten encodings are made.

    Raises:
      InputError: not exactly one target, a model of one rate, or a target out of the model's reach.
    """
    if (bpp is None) == (psnr is None):
        raise InputError("Name one target: bits per pixel or PSNR.")
    if codec.model.levels == 1:
        raise InputError("This model has one rate; a target needs one of several.")
    image = as_image(image)
    height, width = image.shape[:2]

    def attempt(step: int) -> tuple[Compressed, float, bool]:
        """An encoding, its figure, and whether its quality is high enough (or too high)."""
        encoded = codec.encode(image, step / QUALITY_STEPS, sections)
        if bpp is not None:
            rate = 8 * len(encoded.data) / (height * width)
            return encoded, rate, rate > bpp
        assert psnr is not None
        reached = distortion.image_psnr(image, codec.reconstruct(encoded, height, width), visible)
        return encoded, reached, reached >= psnr

    low, high = QUALITY_STEPS, codec.model.levels * QUALITY_STEPS
    lowest, lowest_figure, lowest_beyond = attempt(low)
    highest, highest_figure, highest_beyond = attempt(high)
    if bpp is not None and lowest_beyond:
        raise InputError(
            f"{bpp:g} bpp is out of reach: quality 1 takes {lowest_figure:.4f} bpp for this image."
        )
    if psnr is not None and not highest_beyond:
        raise InputError(
            f"{psnr:g} dB is out of reach: quality {codec.model.levels} gives "
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
    return below if bpp is not None else beyond

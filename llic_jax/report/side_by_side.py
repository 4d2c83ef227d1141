"""The same part of an image from several codecs, at the size of file that ours needs."""

import base64
import dataclasses
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image as PillowImage

from llic_jax.evaluation.baselines import Baseline
from llic_jax.evaluation.system import CodecUnderTest, Image, Quality
from llic_jax.metrics import distortion


@dataclasses.dataclass(frozen=True)
class Crop:
    """A part of an image, as one codec decodes it.

    Attributes:
      label: The codec's name.
      pixels: The part, uint8 `(h, w, 3)`.
      bpp: Of the whole image; None for the original.
      psnr: Likewise, in dB.
      ms_ssim: Likewise; None also where the image is too small.
    """

    label: str
    pixels: Image
    bpp: float | None = None
    psnr: float | None = None
    ms_ssim: float | None = None

    @property
    def png(self) -> str:
        """The crop as a PNG, base64."""
        buffer = io.BytesIO()
        PillowImage.fromarray(self.pixels).save(buffer, "PNG", optimize=True)
        return base64.b64encode(buffer.getvalue()).decode()


def side_by_side(
    system: CodecUnderTest,
    quality: Quality,
    image: Image,
    others: Sequence[Baseline],
    size: int = 208,
) -> list[Crop]:
    """Codes an image with several codecs into files of about one size.

    Args:
      system: Our codec; its file's size is that of the others.
      quality: Of our codec.
      image: uint8 `(H, W, 3)`.
      others: The other codecs.
      size: Side of the part in pixels, at most.

    Returns:
      The part with the most detail: of the original, of ours, and of the others.
    """
    window = busiest(image, size)
    ours = system.code(image, quality)
    crops = [
        Crop("original", image[window]),
        _crop(system.name, image, ours.image, ours.bytes, window),
    ]
    for other in others:
        _, data = other.at_size(image, ours.bytes)
        crops.append(_crop(other.name, image, other.format.decode(data), len(data), window))
    return crops


def _crop(label: str, image: Image, decoded: Image, size: int, window: tuple[slice, slice]) -> Crop:
    return Crop(
        label,
        decoded[window],
        8 * size / (image.shape[0] * image.shape[1]),
        distortion.image_psnr(image, decoded),
        distortion.image_ms_ssim(image, decoded),
    )


def busiest(image: Image, size: int) -> tuple[slice, slice]:
    """Finds the window with the most detail: the largest sum of differences between neighbours.

    Args:
      image: uint8 `(H, W, 3)`.
      size: Side in pixels; a smaller image is taken whole.

    Returns:
      Rows and columns.
    """
    grey = image.astype(np.float64).mean(-1)
    detail = np.zeros_like(grey)
    detail[:, 1:] += np.abs(np.diff(grey, axis=1))
    detail[1:] += np.abs(np.diff(grey, axis=0))
    rows, columns = (min(size, side) for side in grey.shape)
    sums = np.pad(detail.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    inside = (sums[rows:, columns:] - sums[:-rows, columns:] - sums[rows:, :-columns]) + sums[
        :-rows, :-columns
    ]
    top, left = np.unravel_index(inside.argmax(), inside.shape)
    return slice(int(top), int(top) + rows), slice(int(left), int(left) + columns)

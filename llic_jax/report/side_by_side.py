"""The same part of an image from several codecs, at the size of file or the PSNR of ours."""

import base64
import builtins
import dataclasses
import io
from collections.abc import Sequence
from typing import Literal

import numpy as np
from PIL import Image as PillowImage

from llic_jax.evaluation.baselines import Baseline
from llic_jax.evaluation.system import CodecUnderTest, Image, Quality
from llic_jax.metrics import distortion

Equal = Literal["bytes", "psnr"]


@dataclasses.dataclass(frozen=True)
class Crop:
    """A part of an image, as one codec decodes it.

    Attributes:
      label: The codec's name.
      pixels: The part, uint8 `(h, w, 3)`.
      bpp: Of the whole image; None for the original.
      psnr: Likewise, in dB.
      ms_ssim: Likewise; None also where the image is too small.
      setting: Of the codec, in words.
      bytes: Of its file.
      icc: Profile of the pixels; None: sRGB.
    """

    label: str
    pixels: Image
    bpp: float | None = None
    psnr: float | None = None
    ms_ssim: float | None = None
    setting: str | None = None
    bytes: int | None = None
    icc: builtins.bytes | None = None

    @property
    def uri(self) -> str:
        """The crop as a lossless WebP, in a `data:` URI."""
        buffer = io.BytesIO()
        image = PillowImage.fromarray(self.pixels)
        image.save(buffer, "WEBP", lossless=True, icc_profile=self.icc)
        return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def side_by_side(
    system: CodecUnderTest,
    quality: Quality,
    image: Image,
    others: Sequence[Baseline],
    size: int = 208,
    equal: Equal = "bytes",
) -> list[Crop]:
    """Codes an image with several codecs into files of about one size, or about one PSNR.

    Args:
      system: Our codec; the others are set to what its file is like.
      quality: Of our codec.
      image: uint8 `(H, W, 3)`.
      others: The other codecs.
      size: Side of the part in pixels, at most.
      equal: What the files have in common.

    Returns:
      The part with the most detail: of the original, of ours, and of the others.
    """
    window = busiest(image, size)
    ours = system.code(image, quality)
    crops = [
        Crop("original", image[window]),
        _crop(system, quality, image, ours.image, ours.bytes, window),
    ]
    psnr = distortion.image_psnr(image, ours.image)
    for other in others:
        if equal == "psnr":
            found, data = other.at_psnr(image, psnr)
        else:
            found, data = other.at_size(image, ours.bytes)
        decoded = other.format.decode(data)
        crops.append(_crop(other, found, image, decoded, len(data), window))
    return crops


def _crop(
    codec: CodecUnderTest,
    quality: Quality,
    image: Image,
    decoded: Image,
    size: int,
    window: tuple[slice, slice],
) -> Crop:
    return Crop(
        codec.name,
        decoded[window],
        8 * size / (image.shape[0] * image.shape[1]),
        distortion.image_psnr(image, decoded),
        distortion.image_ms_ssim(image, decoded),
        codec.setting(quality),
        size,
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

"""A photograph: its pixels and what else its file says of it; the formats that are known."""

import dataclasses
import importlib.util
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from llic_jax.errors import ImageFileError

# What is written, and what is looked for in folders.
WRITTEN_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".ppm")
HEIC_SUFFIXES = (".heic", ".heif") if importlib.util.find_spec("pillow_heif") else ()
SUFFIXES = (
    *WRITTEN_SUFFIXES,
    *(".apng", ".jpe", ".jfif", ".pgm", ".pbm", ".pnm"),
    *(".avif", ".gif", ".jp2", ".j2k", ".jpx", ".j2c", ".jpc"),
    *HEIC_SUFFIXES,
)
MAX_PIXELS = 1 << 28  # 16384 x 16384

OPAQUE_SUFFIXES = (
    ".jpg",
    ".jpeg",
    ".bmp",
    ".ppm",
)  # formats without alpha (Pillow's BMP among them)
WITHOUT_PROFILE = (".bmp", ".ppm")
WITHOUT_METADATA = (".bmp", ".ppm")


@dataclasses.dataclass(frozen=True)
class Photograph:
    """An image and what belongs to it.

    Attributes:
        rgb: Pixels `(H, W, 3)`.
        grey: Whether it came from a grey image, and becomes one again.
        alpha: Opacity `(H, W)`, None where everything is opaque.
        icc: The colour profile, None for sRGB. Of a grey image, a grey or an RGB profile.
        exif: EXIF without the orientation, which is applied.
        xmp: The XMP packet.
        dpi: Horizontal and vertical dots per inch.
        notes: What the file holds beyond this, or what was changed in reading, in words.
        comments: Number of texts in the file that are not kept.
        verified: How many of how many steps of a progressive `.llic` file were checked.
    """

    rgb: UInt8[np.ndarray, "h w 3"]
    grey: bool = False
    alpha: UInt8[np.ndarray, "h w"] | None = None
    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None
    notes: tuple[str, ...] = ()
    comments: int = 0
    verified: tuple[int, int] | None = None

    @property
    def visible(self) -> np.ndarray | None:
        """Where alpha is not 0, boolean `(H, W)`; None where all pixels are visible."""
        return None if self.alpha is None else self.alpha > 0

    def described(self) -> str:
        """What metadata it holds, in words; empty if none."""
        names = [name for name, content in (("EXIF", self.exif), ("XMP", self.xmp)) if content]
        if self.dpi:
            names.append(f"{self.dpi[0]:g} x {self.dpi[1]:g} dpi")
        return ", ".join(names)

    def colours_to_code(self) -> UInt8[np.ndarray, "h w 3"]:
        """The pixels, with colours that nobody sees (alpha 0) replaced by smooth ones."""
        return self.rgb if self.alpha is None else fill_hidden(self.rgb, self.alpha)


def fill_hidden(
    rgb: UInt8[np.ndarray, "h w 3"], alpha: UInt8[np.ndarray, "h w"]
) -> UInt8[np.ndarray, "h w 3"]:
    """Replaces colours where alpha is 0: nobody sees them, and noise in them would cost bits.

    Each hidden pixel gets the mean of the visible ones in the smallest square of a pyramid
    (halving sides) that holds any, blended between neighbouring squares. Our choice.

    Args:
        rgb: Pixels.
        alpha: Opacity.

    Returns:
        The pixels; visible ones unchanged.
    """
    hidden = alpha == 0
    if not hidden.any():
        return rgb
    if hidden.all():
        return np.full_like(rgb, 128)
    filled = _filled(rgb.astype(np.float32), (~hidden).astype(np.float32)[..., None])
    return np.where(hidden[..., None], np.clip(filled.round(), 0, 255).astype(np.uint8), rgb)


def _filled(colours: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Colours with those of weight 0 taken from half the resolution."""
    if weights.all():
        return colours
    height, width = weights.shape[:2]
    rows, columns = -(-height // 2), -(-width // 2)
    pad = (0, 2 * rows - height), (0, 2 * columns - width), (0, 0)

    def halved(x: np.ndarray) -> np.ndarray:
        return np.pad(x, pad).reshape(rows, 2, columns, 2, -1).sum((1, 3))

    total = halved(weights)
    means = halved(colours * weights) / np.maximum(total, 1)
    below = _filled(means, (total > 0).astype(np.float32))
    return np.where(weights > 0, colours, _doubled(below)[:height, :width])


def _doubled(x: np.ndarray) -> np.ndarray:
    """Twice the size, by bilinear interpolation."""
    for axis in (0, 1):
        padded = np.concatenate([x.take([0], axis), x, x.take([-1], axis)], axis)
        count = x.shape[axis]
        before, after = (padded.take(range(k, k + count), axis) for k in (0, 2))
        pairs = np.stack([0.75 * x + 0.25 * before, 0.75 * x + 0.25 * after], axis + 1)
        x = pairs.reshape(*x.shape[:axis], 2 * count, *x.shape[axis + 1 :])
    return x


# ---------------------------------------------------------------- writing


def check_suffix(path: Path, suffix: str | None = None) -> None:
    """Raises ImageFileError unless the suffix (the path's by default) can be written."""
    if (path.suffix if suffix is None else suffix).lower() not in WRITTEN_SUFFIXES:
        raise ImageFileError(
            f"{path} has no suffix of an image format that is written; use one of "
            f"{' '.join(WRITTEN_SUFFIXES)}."
        )

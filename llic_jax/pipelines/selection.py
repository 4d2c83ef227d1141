"""Which photographs a training set takes, and the bytes in which it keeps them."""

import dataclasses
import hashlib
import io
from typing import Any

from llic_jax.codec.fallback import is_unlike_photographs
from llic_jax.data.package import Encoding
from llic_jax.errors import ImageFileError, PipelineError
from llic_jax.images.photograph import MAX_PIXELS
from llic_jax.images.read import image_size, read_photograph
from llic_jax.pipelines.work import SkipError

_LOSSLESS: dict[str, dict[str, Any]] = {
    "webp": {"lossless": True, "method": 4, "quality": 50},
    "png": {"optimize": False},
}
_LOSSY = ("avif", "webp", "jpeg")
FORMATS = ("webp", "png", "avif", "jpeg")
_WEBP_SIDE = (1 << 14) - 1  # at most, pixels; what is longer is kept as PNG
_TYPICAL_RATE = 0.5  # bits a pixel, of the file that a drawing is told by


@dataclasses.dataclass(frozen=True)
class Selection:
    """What is taken, and how it is kept.

    Attributes:
        least: Shorter side that a photograph must have, also when reduced, pixels.
        reduce: Lanczos factor, as far as the shorter side stays at `least`. JPEG sources are
            reduced to remove their artefacts (LLIC, arXiv:2304.09571; the factor is our choice).
        max_pixels: Larger photographs are left out before they are decoded.
        drawings: Whether pictures are kept that `codec/fallback.py` would look at as drawings.
        format: One of `FORMATS`.
        quality: Of a lossy format. None for lossless WebP or PNG.

    Raises:
        PipelineError: Format and quality do not go together.
    """

    least: int = 256
    reduce: float = 1.0
    max_pixels: int = MAX_PIXELS
    drawings: bool = True
    format: str = "webp"
    quality: int | None = None

    def __post_init__(self) -> None:
        if self.quality is None and self.format not in _LOSSLESS:
            raise PipelineError(f"{self.format} is lossy; name a --quality, 1 to 100.")
        if self.quality is not None and self.format not in _LOSSY:
            raise PipelineError(f"{self.format} is lossless; leave --quality out.")
        if self.reduce < 1:
            raise PipelineError(f"--reduce is {self.reduce:g}; it takes a factor of 1 or more.")

    def record(self, data: bytes, name: str) -> bytes:
        """The record of a photograph: an encoded image, as `data.source records:` reads it.

        Args:
            data: The photograph's file.
            name: What messages call it.

        Raises:
            SkipError: It is not taken.
        """
        try:
            width, height = image_size(io.BytesIO(data))
        except ImageFileError:
            width, height = self.least, self.least  # the reader below has the better message
        size = f"{width} x {height} pixels"
        if min(width, height) < self.least:
            raise SkipError("too small", f"{size}; the shorter side must have {self.least}")
        if width * height > self.max_pixels:
            raise SkipError("too large", f"{size}; at most {self.max_pixels} are allowed")
        try:
            photograph = read_photograph(io.BytesIO(data), name=name, convert_cmyk=True)
        except ImageFileError as error:
            raise SkipError("cannot be read", str(error).removeprefix(f"{name} ")) from error
        if photograph.alpha is not None:
            raise SkipError("transparent", "transparent pixels; flatten it onto a background first")
        typical = int(width * height * _TYPICAL_RATE / 8)
        if not self.drawings and is_unlike_photographs(photograph.rgb, typical):
            raise SkipError("drawing", "flat or of full contrast, as drawings and patterns are")
        encoding = Encoding(self.format, self.quality, self.reduce, self.least)
        image = encoding.reduced(photograph.rgb)
        if self.quality is not None:
            return encoding.encode(image, self.quality)
        file = io.BytesIO()
        kind = self.format if max(image.size) <= _WEBP_SIDE else "png"
        image.save(file, kind, **_LOSSLESS[kind])
        return file.getvalue()


def digest_of(data: bytes) -> str:
    """What two equal files have in common, and others have not.

    Args:
        data: The file's bytes.
    """
    return hashlib.sha256(data).hexdigest()

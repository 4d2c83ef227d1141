"""A photograph's profile, metadata and opacity, as sections of the file and back.

A reader that does not know one of these may pass over it: the image is in the payload.
"""

import io
import math
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image

from llic_jax.bitstream.file import LlicFile
from llic_jax.bitstream.tags import ALPHA, EXIF, GREY, ICC, RESOLUTION, XMP, inflated
from llic_jax.errors import CorruptError
from llic_jax.images.photograph import Photograph

_DPI = struct.Struct("<2f")


def sections_of(photograph: Photograph, keep_exif: bool = False) -> dict[int, bytes]:
    """The sections that belong to a photograph.

    Args:
        photograph: The photograph.
        keep_exif: Whether metadata goes along: EXIF, XMP and resolution may tell where and by whom
            a photograph was taken.

    Returns:
        Their contents, by tag.
    """
    found: dict[int, bytes] = {}
    if photograph.icc:
        found[ICC] = zlib.compress(photograph.icc, 9)
    if photograph.exif and keep_exif:
        found[EXIF] = zlib.compress(photograph.exif, 9)
    if photograph.xmp and keep_exif:
        found[XMP] = zlib.compress(photograph.xmp, 9)
    if photograph.dpi and keep_exif:
        found[RESOLUTION] = _DPI.pack(*photograph.dpi)
    if photograph.alpha is not None:
        buffer = io.BytesIO()
        Image.fromarray(photograph.alpha).save(buffer, "PNG", optimize=True)
        found[ALPHA] = buffer.getvalue()
    if photograph.grey:
        found[GREY] = b""
    return found


def photograph_fields(file: LlicFile) -> dict[str, Any]:
    """The fields of `Photograph` that a file's sections hold.

    Raises:
        CorruptError: A section cannot be read.
    """
    alpha = file.sections.get(ALPHA)
    shape = file.height, file.width
    opacity = None if alpha is None else decoded_alpha(alpha, shape)
    return {"alpha": opacity, **fields_without_pixels(file)}


def fields_without_pixels(file: LlicFile) -> dict[str, Any]:
    """The fields of `photograph_fields` but for alpha.

    Raises:
        CorruptError: A section cannot be read.
    """
    found = file.sections
    return {
        "grey": GREY in found,
        "icc": inflated(found, ICC),
        "exif": inflated(found, EXIF),
        "xmp": inflated(found, XMP),
        "dpi": _dpi(found[RESOLUTION]) if RESOLUTION in found else None,
    }


def _dpi(content: bytes) -> tuple[float, float]:
    if len(content) != _DPI.size:
        raise CorruptError(
            f"Section {RESOLUTION} (resolution) has {len(content)} bytes; expected {_DPI.size}. "
            "The file is damaged."
        )
    x, y = _DPI.unpack(content)
    if not all(math.isfinite(value) and value > 0 for value in (x, y)):
        raise CorruptError(
            f"Section {RESOLUTION} gives {x:g} x {y:g} dots per inch; expected numbers above 0. "
            "The file is damaged."
        )
    return x, y


def decoded_alpha(content: bytes, shape: tuple[int, ...]) -> np.ndarray:
    """Decodes an alpha section.

    Args:
        content: A grey PNG.
        shape: Of the image, (height, width).

    Returns:
        Opacity, uint8, of this shape.

    Raises:
        CorruptError: It is no such PNG.
    """
    try:
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            # Before a pixel is decoded.
            if image.mode != "L" or image.size != (shape[1], shape[0]):
                raise CorruptError(
                    f"The alpha channel is {image.size} in mode {image.mode}; expected "
                    f"{(shape[1], shape[0])} in mode L."
                )
            return np.array(image)
    except CorruptError:
        raise
    except Exception as error:  # whatever the library makes of damaged bytes
        raise CorruptError(f"The alpha channel cannot be read: {error}") from error

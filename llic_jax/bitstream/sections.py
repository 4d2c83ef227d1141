"""What a photograph needs besides its pixels, as sections of the file and back.

All of these may be passed over by a reader that does not know them: the image is the payload's.
"""

import io
import math
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image

from llic_jax.bitstream.file import LlicFile
from llic_jax.errors import CorruptError
from llic_jax.images.photograph import Photograph

# Tags; 128 and above may be skipped.
ICC = 129  # colour profile, deflated
EXIF = 130  # metadata, deflated
ALPHA = 131  # opacity, a grey PNG of the image's size
GREY = 132  # empty: the image is grey
XMP = 133  # an XMP packet, deflated
RESOLUTION = 134  # horizontal and vertical dots per inch, two float32

_DPI = struct.Struct("<2f")

MAX_METADATA = 1 << 24  # bytes of a profile or of metadata, inflated


def sections_of(photograph: Photograph, keep_exif: bool = False) -> dict[int, bytes]:
    """The sections that go with the pixels; metadata only where it is asked for: it may tell where
    and by whom a photograph was taken."""
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
    """What a file's sections hold, by the fields of `Photograph`."""
    found = file.sections
    return {
        "grey": GREY in found,
        "alpha": decoded_alpha(found[ALPHA], (file.height, file.width)) if ALPHA in found else None,
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


def inflated(found: dict[int, bytes], tag: int) -> bytes | None:
    if tag not in found:
        return None
    inflate = zlib.decompressobj()
    try:
        content = inflate.decompress(found[tag], MAX_METADATA)
    except zlib.error as error:
        raise CorruptError(f"Section {tag} cannot be inflated: {error}.") from error
    if not inflate.eof and len(content) < MAX_METADATA:
        raise CorruptError(
            f"Section {tag} ends within its deflated stream, after {len(found[tag])} bytes; "
            "expected all of it. The file is damaged."
        )
    if not inflate.eof:
        raise CorruptError(
            f"Section {tag} has no end within {MAX_METADATA} bytes, which is the most that is read."
        )
    return content


def decoded_alpha(content: bytes, shape: tuple[int, ...]) -> np.ndarray:
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

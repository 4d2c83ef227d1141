"""Pillow images as photographs."""

from typing import Any

import numpy as np
from PIL import Image

from llic_jax.errors import ImageFileError
from llic_jax.images import metadata
from llic_jax.images.photograph import Photograph
from llic_jax.images.pixels import upright
from llic_jax.images.read import fitting_profile

EIGHT_BIT_MODES = (
    *("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr"),
)


def photograph_of(
    image: Image.Image, *, icc: Any = None, exif: Any = None, xmp: Any = None, dpi: Any = None
) -> Photograph:
    """A Pillow image with what is to be kept of it.

    CMYK is converted without its profile.

    Args:
        image: The image.
        icc: Its colour profile, bytes; None for sRGB.
        exif: Bytes or Pillow's `Exif`. An orientation in it is applied to the pixels.
        xmp: A packet, bytes or text; its orientation counts where EXIF has none.
        dpi: Horizontal and vertical dots per inch.

    Raises:
        ImageFileError: More than 8 bits a channel.
    """
    if image.mode not in EIGHT_BIT_MODES:
        raise ImageFileError(
            f"Found a Pillow image of mode {image.mode}; expected 8 bits a channel. "
            'Convert it first, e.g. image.convert("RGB").'
        )
    grey = image.mode in ("1", "L", "LA", "La")
    alpha = None
    if image.has_transparency_data:
        image = image.convert("RGBA")
        alpha = np.array(image.getchannel("A"))
    profile, _ = fitting_profile(icc or None, image.mode, grey)
    exif = exif.tobytes() if isinstance(exif, Image.Exif) else exif
    xmp = xmp.encode() if isinstance(xmp, str) else xmp
    orientation, exif, xmp = metadata.split_orientation(exif or None, xmp or None)
    resolution = metadata.resolution(dpi)
    return Photograph(
        upright(np.array(image.convert("RGB")), orientation),
        grey,
        None if alpha is None or alpha.min() == 255 else upright(alpha, orientation),
        profile,
        exif,
        xmp,
        resolution[::-1] if resolution and orientation >= 5 else resolution,
    )

"""The pixels of an opened image, as 8 bits: what Pillow gives, and the low bytes that it drops."""

import io
import re
import struct
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from llic_jax.images import png


def read_pixels(
    file: io.BufferedIOBase, image: Image.Image, found: png.Png | None, bits: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """The pixels of an opened image, as they are stored.

    Args:
        file: The image's bytes.
        image: The same, opened by Pillow.
        found: The same, parsed, if it is a PNG.
        bits: Of a channel.

    Returns:
        RGB `(H, W, 3)` and alpha `(H, W)`, 8 bits; None for alpha where there is none.
    """
    low_bytes = None
    if bits > 8 and image.mode in ("RGB", "RGBA"):
        low_bytes = _low_bytes(io.BytesIO(found.pixels) if found else file, image.format)
    if image.format == "TIFF":
        vars(image)["load_end"] = lambda: None  # Pillow's own stumbles over odd metadata
    image.load()
    if image.mode == "I" or image.mode.startswith("I;"):
        # TIFF's values have as many bits as it says; other formats' are stretched to 16 bits.
        largest = (1 << bits) - 1 if image.format == "TIFF" else 65535
        values = np.asarray(image).astype(np.int64)
        grey = _rounded(values, largest)
        return np.repeat(grey[..., None], 3, -1), _alpha_of_key(values[..., None], image)
    if low_bytes is not None:
        image = _combined(image, low_bytes)
    # A copy has the size of its pixels: Pillow's TIFF images have the turned one.
    image = image.copy() if image.format == "TIFF" else image
    alpha = None
    if image.has_transparency_data:
        image = image.convert("RGBA")
        alpha = np.array(image.getchannel("A"))
    return np.array(image.convert("RGB")), alpha


def _low_bytes(file: io.BufferedIOBase, kind: str | None) -> Image.Image | None:
    """The low bytes of 16 bits a channel, of which Pillow gives the high ones.

    Read with the other byte order, the low bytes stand where the high ones do. None where Pillow
    does not know that order.
    """
    if kind not in ("PNG", "TIFF"):
        return None
    file.seek(0)
    image = Image.open(file, formats=[kind])  # type: ignore[arg-type]
    if image.tile and str(image.tile[0].args) == "LA;16B":
        return _low_bytes_of_grey_and_alpha(file)
    native = "L" if struct.pack("=H", 1)[0] else "B"

    def swapped(argument: Any) -> Any:
        match = re.fullmatch(r"(RGBA?|RGBX);16([LBN])", str(argument))
        if match is None:
            return argument
        order = native if match[2] == "N" else match[2]
        return f"{match[1]};16{'B' if order == 'L' else 'L'}"

    changed = []
    for piece in image.tile:
        arguments = piece.args
        other = (
            tuple(map(swapped, arguments)) if isinstance(arguments, tuple) else swapped(arguments)
        )
        if other == arguments:
            return None
        changed.append(piece._replace(args=other))
    image.tile = changed
    vars(image)["load_end"] = lambda: None
    try:
        image.load()
    except ValueError:  # Pillow does not know the other order
        return None
    return image.copy()


def _low_bytes_of_grey_and_alpha(file: io.BufferedIOBase) -> Image.Image:
    """The same for a PNG of grey and alpha.

    Its four bytes a pixel are four channels of 8 bits, if its header says so.
    """
    file.seek(0)
    image = Image.open(io.BytesIO(png.as_rgba(file.read())), formats=["PNG"])
    _, low_grey, _, low_alpha = image.split()
    return Image.merge("RGBA", (low_grey, low_grey, low_grey, low_alpha))


def _combined(high: Image.Image, low: Image.Image) -> Image.Image:
    high = high.copy()
    value = np.asarray(high, np.uint32) << 8 | np.asarray(low, np.uint32)
    eight = Image.fromarray(_rounded(value, 65535))
    if (alpha := _alpha_of_key(value, high)) is not None:
        eight.putalpha(Image.fromarray(alpha))
    return eight


def _alpha_of_key(values: np.ndarray, image: Image.Image) -> UInt8[np.ndarray, "h w"] | None:
    """The opacity of a PNG of 16 bits that names one colour as the transparent one."""
    key = image.info.get("transparency")
    if key is None or image.mode == "RGBA":
        return None
    return np.where((values == key).all(-1), 0, 255).astype(np.uint8)


def _rounded(values: np.ndarray, largest: int) -> UInt8[np.ndarray, "*shape"]:
    """Values from 0 to `largest` as 8 bits, each the nearest."""
    return ((np.clip(values, 0, largest) * 255 + largest // 2) // largest).astype(np.uint8)


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Applies EXIF's orientation.

    Args:
        pixels: `(H, W, ...)`.
        orientation: 1 to 8.
    """
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)

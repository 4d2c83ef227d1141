"""Checks of images and files, made before anything is allocated for them."""

import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import PIL.Image
from jaxtyping import Array, UInt8

from llic_jax.bitstream.file import PICTURE_VERSION, LlicFile
from llic_jax.codec import fallback
from llic_jax.coding.range_coders.registry import CODERS, FORMER_CODERS, coder_by_id
from llic_jax.coding.row_shifts import MIN_SHIFT_RESOLUTION
from llic_jax.coding.tables import Tables
from llic_jax.entropy.gaussian import PRECISION, SCALE_ROWS
from llic_jax.errors import (
    ArgumentTypeError,
    CorruptError,
    DecoderOnlyError,
    ImageSizeError,
    InputError,
    LatentError,
    UnknownCoderError,
    WrongModelError,
)
from llic_jax.ops.sizes import HYPER_STRIDE, LATENT_STRIDE

MAX_LATENT = 1 << 20  # a photograph's have three digits, at the highest rates


def as_image(image: Any) -> UInt8[Array | np.ndarray, "h w 3"]:
    """The pixels of an array `(H, W, 3)` of uint8, or of an opaque Pillow image of 8 bits.

    Args:
        image: An array, a jax.Array, or a Pillow image.

    Returns:
        The array itself, of NumPy or JAX; of NumPy for a Pillow image.

    Raises:
        ArgumentTypeError: Anything else, or an array without values, within `jax.jit`.
        InputError: An array of another shape or type; a Pillow image that is not opaque, or in a
            mode of more than 8 bits.
    """
    if isinstance(image, PIL.Image.Image):
        if image.mode not in ("1", "L", "P", "RGB", "RGBX", "YCbCr") or image.has_transparency_data:
            raise InputError(
                f"Found a Pillow image of mode {image.mode}, or with transparency; expected an "
                "opaque one of 8 bits a channel. Convert it to RGB first."
            )
        image = np.array(image.convert("RGB"))
    elif isinstance(image, jax.core.Tracer):
        raise ArgumentTypeError(
            "Found an array within a function that JAX traces; expected one with values. A file's "
            "size depends on them, so call the codec outside of jax.jit, jax.vmap and the like."
        )
    elif not isinstance(image, np.ndarray | Array):
        raise ArgumentTypeError(
            f"Found {type(image).__name__}; expected an image as an array (height, width, 3) of "
            "uint8, or a Pillow image. Read a file with PIL.Image.open(name)."
        )
    check_image(image)
    return image


def check_image(image: np.ndarray | Array) -> None:
    """Refuses arrays that are no RGB image, `(H, W, 3)` uint8.

    Raises:
        InputError: With the shape and type that were found.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise InputError(
            f"Found an array {image.shape} of {image.dtype}; expected (height, width, 3) "
            "of uint8, at least 1 x 1."
        )


def check_largest(largest: float) -> None:
    """Refuses latents that the networks made too large to be coded, or not finite.

    Args:
        largest: Magnitude in the latents.

    Raises:
        LatentError: With that magnitude.
    """
    if not largest <= MAX_LATENT:
        raise LatentError(
            f"The networks' latent of this image is as large as {largest:.3g} (at most "
            f"{MAX_LATENT} are coded): the image is too far from those that the model has learned "
            "from. Try another quality or model."
        )


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Refuses images that are too large.

    Args:
        width: Pixels.
        height: Pixels.
        max_pixels: Of the padded image, at most.

    Raises:
        ImageSizeError: With both numbers.
    """
    pixels = _padded(width, height)
    if pixels > max_pixels:
        raise ImageSizeError(
            f"{width} x {height} pixels are {pixels} when padded to multiples of {HYPER_STRIDE}; "
            f"at most {max_pixels} are allowed. A larger max_pixels allows more."
        )


def check_can_encode(params: Mapping[str, Any], fingerprint: bytes) -> None:
    """Refuses to encode with a model of which only the decoder's half is installed.

    Args:
        params: Of the model.
        fingerprint: Of the model.

    Raises:
        DecoderOnlyError: With the model's fingerprint.
    """
    if "g_a" not in params:
        raise DecoderOnlyError(
            f"Only the decoder's half of the model {fingerprint.hex()} is installed: it reads "
            "files, and writes none. Encode with the recommended model, or put the whole one back "
            "with `llic models restore`."
        )


def check_header(file: LlicFile, fingerprint: bytes, levels: int) -> None:
    """Refuses a file that another model has written, or a range coder that is not known.

    A file that names no model passes.

    Args:
        file: Parsed.
        fingerprint: Of the model that is loaded.
        levels: Of quality that this model has.

    Raises:
        WrongModelError: The file names another model.
        UnknownCoderError: The file names a range coder that is not known.
        CorruptError: A shift resolution or a quality that no file has.
    """
    if file.version == PICTURE_VERSION:
        return
    if file.fingerprint != fingerprint:
        raise WrongModelError(
            f"The file was written with the model {file.fingerprint.hex()}; loaded is "
            f"{fingerprint.hex()}. Name its folder with --checkpoint."
        )
    if coder_by_id(file.coder) is None:
        known = sorted((pair.coder_id, name) for name, pair in (CODERS | FORMER_CODERS).items())
        raise UnknownCoderError(
            f"The file names range coder {file.coder}; known are "
            f"{', '.join(f'{number} ({name})' for number, name in known)}."
        )
    if 0 < file.shift_resolution < MIN_SHIFT_RESOLUTION:
        raise CorruptError(
            f"The header gives {file.shift_resolution} units (shift resolution); expected 0, or "
            f"{MIN_SHIFT_RESOLUTION} and more. The file is damaged."
        )
    if (file.quality != 0) if levels == 1 else not 1 <= file.quality <= levels:
        expected = "0" if levels == 1 else f"1 to {levels}"
        raise CorruptError(
            f"Quality {file.quality:g} is not one of this model's; expected {expected}. The file "
            "is damaged."
        )


def check_payload(file: LlicFile, bits: tuple[float, float]) -> None:
    """Refuses a payload that is too short for an image of the size that the header gives.

    Unless a section holds the image (`fallback.py`).

    Args:
        file: Parsed.
        bits: Of `least_bits`.

    Raises:
        CorruptError: With both numbers.
    """
    if fallback.coding_of(file) is not None:
        return
    least = least_bytes(file.width, file.height, bits)
    size = len(file.payload) + file.missing
    if size < least:
        raise CorruptError(
            f"{size} bytes of payload cannot hold an image of {file.width} x "
            f"{file.height} pixels; at least {least} were expected."
        )


def least_bits(tables: Tables, latent_channels: int) -> tuple[float, float]:
    """Bits of the cheapest symbols at one position.

    Args:
        tables: Of the range coder.
        latent_channels: M.

    Returns:
        Of all channels of `z`, and of `y`.
    """
    bits = [
        PRECISION - math.log2(np.diff(tables.row(i)).max())
        for i in range(tables.hyper_rows + SCALE_ROWS)
    ]
    z_bits, y_bits = bits[: tables.hyper_rows], bits[tables.hyper_rows :]
    return sum(z_bits), latent_channels * min(y_bits)


def least_bytes(width: int, height: int, bits: tuple[float, float]) -> int:
    """Bytes that an image takes at the very least, every symbol the cheapest.

    Args:
        width: Pixels.
        height: Pixels.
        bits: From `least_bits`.
    """
    z_bits, y_bits = bits
    pixels = _padded(width, height)
    total = pixels / HYPER_STRIDE**2 * z_bits + pixels / LATENT_STRIDE**2 * y_bits
    return int(0.99 * total / 8)  # a coder's own rounding may save a little


def _padded(width: int, height: int) -> int:
    """Pixels to the networks: 1 x 2^20 are 64 x 2^20."""
    return math.prod(side + -side % HYPER_STRIDE for side in (width, height))

"""Reading and writing image files: to and from RGB, 8 bits, upright."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from llic_jax.errors import LlicError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".ppm")


class ImageFileError(LlicError, ValueError):
    """A file that cannot be read as an image, or not without loss; the message says what to do."""


def read_image(path: str | Path) -> UInt8[np.ndarray, "h w 3"]:
    """The image as RGB. Grey and palette images are converted, EXIF orientation is applied.

    Raises:
      ImageFileError: no image; alpha that is not opaque; more than 8 bits a channel; CMYK.
      FileNotFoundError: no such file.
    """
    try:
        with Image.open(path) as opened:
            image = ImageOps.exif_transpose(opened)
            image.load()
    except FileNotFoundError:
        raise
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError, SyntaxError) as error:
        raise ImageFileError(f"{path} cannot be read as an image: {error}") from error
    if image.mode.startswith(("I", "F")):
        raise ImageFileError(
            f"{path} has more than 8 bits a channel (mode {image.mode}); convert it to 8 bits."
        )
    if image.mode == "CMYK":
        raise ImageFileError(f"{path} is CMYK; convert it to sRGB with its colour profile first.")
    if image.has_transparency_data and np.asarray(image.convert("RGBA"))[..., 3].min() < 255:
        raise ImageFileError(
            f"{path} has transparent pixels, which a .llic file does not hold yet; flatten it "
            "onto a background first."
        )
    return np.array(image.convert("RGB"))


def check_suffix(path: Path) -> None:
    """Raises ImageFileError unless the name says a format that can be written."""
    if path.suffix.lower() not in SUFFIXES:
        raise ImageFileError(
            f"{path} has no suffix of a known image format; use one of {' '.join(SUFFIXES)}."
        )


def write_image(path: str | Path, image: UInt8[np.ndarray, "h w 3"]) -> None:
    """Writes in the format of the suffix, lossless where it can; whole or not at all."""
    path = Path(path)
    check_suffix(path)
    options: dict[str, dict[str, Any]] = {
        ".webp": {"lossless": True},
        ".jpg": {"quality": 95},
        ".jpeg": {"quality": 95},
    }
    with whole_file(path) as temporary:
        kind = Image.registered_extensions()[path.suffix.lower()]
        Image.fromarray(image).save(temporary, format=kind, **options.get(path.suffix.lower(), {}))


@contextlib.contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """A temporary name beside `path`, which becomes `path` if the block succeeds, and else goes."""
    path = Path(path)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp's files are private; an output has the permissions of any new file.
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)

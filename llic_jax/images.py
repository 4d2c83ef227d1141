"""Reading and writing image files: to and from RGB, 8 bits, upright."""

import contextlib
import dataclasses
import io
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import ExifTags, Image, ImageCms, ImageOps, UnidentifiedImageError

from llic_jax.errors import LlicError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".ppm")
_OPAQUE = (".jpg", ".jpeg", ".bmp", ".ppm")  # formats without alpha (Pillow's BMP among them)


class ImageFileError(LlicError, ValueError):
    """A file that cannot be read as an image, or not without loss; the message says what to do."""


@dataclasses.dataclass(frozen=True)
class Photograph:
    """An image and what belongs to it.

    rgb: `(H, W, 3)`. grey: whether it came from a grey image, and becomes one again. alpha: opacity
    `(H, W)`, None where everything is opaque. icc: the colour profile, None for sRGB. exif: the
    metadata, without the orientation, which is applied.
    """

    rgb: UInt8[np.ndarray, "h w 3"]
    grey: bool = False
    alpha: UInt8[np.ndarray, "h w"] | None = None
    icc: bytes | None = None
    exif: bytes | None = None


def read_photograph(path: str | Path | io.BytesIO) -> Photograph:
    """The image with its colour profile, its metadata and its alpha channel.

    Raises:
      ImageFileError: no image; more than 8 bits a channel; CMYK.
      FileNotFoundError: no such file.
    """
    image = _open(path)
    alpha = None
    if image.has_transparency_data:
        image = image.convert("RGBA")
        alpha = np.array(image.getchannel("A"))
        alpha = None if alpha.min() == 255 else alpha
    exif = Image.Exif()
    if "exif" in image.info:  # TIFF's own tags are no metadata, and are not there
        exif.load(image.info["exif"])
        exif.pop(ExifTags.Base.Orientation, None)
    return Photograph(
        rgb=np.array(image.convert("RGB")),
        grey=image.mode in ("1", "L"),
        alpha=alpha,
        icc=_profile(image),
        exif=exif.tobytes() if len(exif) else None,
    )


def image_size(path: str | Path) -> tuple[int, int]:
    """Width and height of the upright image, from the file's header alone.

    Raises:
      OSError: no image.
    """
    with Image.open(path) as image:
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) >= 5
        return image.size[::-1] if turned else image.size


def read_image(path: str | Path | io.BytesIO) -> UInt8[np.ndarray, "h w 3"]:
    """The image as RGB. Grey and palette images are converted, EXIF orientation is applied.

    Raises:
      ImageFileError: as `read_photograph`, and pixels that are not opaque.
      FileNotFoundError: no such file.
    """
    photograph = read_photograph(path)
    if photograph.alpha is not None:
        raise ImageFileError(
            f"{path} has transparent pixels, where an opaque image is needed; flatten it onto a "
            "background first."
        )
    return photograph.rgb


def _open(path: str | Path | io.BytesIO) -> Image.Image:
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
    return image


def _profile(image: Image.Image) -> bytes | None:
    """The colour profile, unless it is sRGB's, which is what an image without one has."""
    icc = image.info.get("icc_profile")
    if not icc:
        return None
    try:
        name = ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(icc)))
    except (ImageCms.PyCMSError, OSError):
        return icc  # not ours to judge
    return None if name.strip().startswith("sRGB") else icc


def check_suffix(path: Path) -> None:
    """Raises ImageFileError unless the name says a format that can be written."""
    if path.suffix.lower() not in SUFFIXES:
        raise ImageFileError(
            f"{path} has no suffix of a known image format; use one of {' '.join(SUFFIXES)}."
        )


def write_photograph(path: str | Path, photograph: Photograph) -> None:
    """Writes in the format of the suffix, lossless where it can; whole or not at all.

    Raises:
      ImageFileError: no known suffix, or a format that cannot hold the image.
    """
    path = Path(path)
    check_suffix(path)
    suffix = path.suffix.lower()
    image = Image.fromarray(photograph.rgb)
    if photograph.grey:
        image = image.convert("L")
    if photograph.alpha is not None:
        if suffix in _OPAQUE:
            raise ImageFileError(
                f"The image has transparent pixels, which {suffix} does not hold; write .png."
            )
        if photograph.grey and suffix == ".webp":
            image = image.convert("RGB")
        image.putalpha(Image.fromarray(photograph.alpha))
    options: dict[str, Any] = {"icc_profile": photograph.icc}
    if photograph.exif:
        options["exif"] = photograph.exif
    if suffix == ".webp":
        options["lossless"] = options["exact"] = True
    if suffix in (".jpg", ".jpeg"):
        options["quality"] = 95
    with whole_file(path) as temporary:
        try:
            image.save(temporary, Image.registered_extensions()[suffix], **options)
        except ValueError as error:  # metadata that the format has no room for
            raise ImageFileError(f"{path} cannot be written: {error}") from error


def write_image(path: str | Path, image: UInt8[np.ndarray, "h w 3"]) -> None:
    """Writes an RGB image (see `write_photograph`)."""
    write_photograph(path, Photograph(image))


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

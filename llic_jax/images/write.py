"""Photographs and images to files, whole or not at all."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import ExifTags, Image, PngImagePlugin

from llic_jax.errors import ImageFileError
from llic_jax.images import colour
from llic_jax.images.photograph import (
    OPAQUE_SUFFIXES,
    WITHOUT_METADATA,
    WITHOUT_PROFILE,
    Photograph,
    check_suffix,
)
from llic_jax.system.files import whole_file

_LARGEST_PNG_PROFILE = 1 << 20  # bytes: readers that use Pillow refuse more
_LARGEST_JPEG_SEGMENT = 65533
_LARGEST_JPEG_XMP = _LARGEST_JPEG_SEGMENT - len("http://ns.adobe.com/xap/1.0/\0")


def write_photograph(
    path: str | Path, photograph: Photograph, suffix: str | None = None
) -> list[str]:
    """Writes a photograph, lossless where the format can; whole or not at all.

    Args:
        path: Where to; see `whole_file`.
        photograph: What to write.
        suffix: Names the format, e.g. ".png"; that of the path by default.

    Returns:
        Notes on what the format cannot hold and was left out.

    Raises:
        ImageFileError: No known suffix, or a format that cannot hold the image.
    """
    path = Path(path) if not isinstance(path, Path) else path
    if suffix is None:
        check_suffix(path)
    suffix = (suffix or path.suffix).lower()
    if photograph.alpha is not None and suffix in OPAQUE_SUFFIXES:
        raise ImageFileError(
            f"The image has transparent pixels, which {suffix} does not hold; write .png."
        )
    image, icc, notes = _image_to_write(photograph, suffix)
    options: dict[str, Any] = {"icc_profile": icc}
    notes += _metadata_to_write(photograph, suffix, options)
    if suffix == ".webp":
        options["lossless"] = options["exact"] = True
    if suffix in (".jpg", ".jpeg"):
        options["quality"] = 95
    kind = Image.registered_extensions()[suffix]
    with whole_file(path) as temporary:
        try:
            image.save(temporary, kind, **options)
        except Exception as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # the disk's, not the format's
            raise ImageFileError(
                f"{path} cannot be written: {error}. Another format may hold it (.png)."
            ) from error
    return notes


def write_image(path: str | Path, image: UInt8[np.ndarray, "h w 3"]) -> None:
    """Writes an RGB image (see `write_photograph`).

    Args:
        path: Of the file; its suffix names the format.
        image: The pixels.
    """
    write_photograph(path, Photograph(image))


def _image_to_write(
    photograph: Photograph, suffix: str
) -> tuple[Image.Image, bytes | None, list[str]]:
    """The pixels in the mode that format and profile allow, with the profile; notes."""
    notes = []
    icc = photograph.icc
    if icc and suffix in WITHOUT_PROFILE:
        icc, notes = None, [f"the colour profile is left out: {suffix} holds none"]
    elif icc and suffix == ".png" and len(icc) > _LARGEST_PNG_PROFILE:
        notes = [
            f"the colour profile is left out: many readers of .png refuse {len(icc)} bytes of it; "
            ".tif holds it"
        ]
        icc = None
    given = icc
    icc, grey = profile_to_write(icc, photograph.grey and suffix != ".webp")
    if given and not icc:
        notes.append("the colour profile is left out: it fits grey images alone")
    return as_pillow(photograph, grey), icc, notes


def profile_to_write(icc: bytes | None, grey: bool) -> tuple[bytes | None, bool]:
    """The profile in the form that fits the pixels.

    Args:
        icc: A photograph's.
        grey: Whether one channel is to be written.

    Returns:
        The profile, None without one or where there is no form of it; whether the pixels are
        written as one channel.
    """
    if icc and grey and colour.space(icc) == b"RGB ":
        of_grey = colour.grey_of_rgb(icc)
        return (icc, False) if of_grey is None else (of_grey, True)
    if icc and not grey and colour.space(icc) == b"GRAY":
        return colour.rgb_of_grey(icc), False
    return icc, grey


def as_pillow(photograph: Photograph, grey: bool) -> Image.Image:
    """A photograph's pixels as a Pillow image, with its alpha.

    Args:
        photograph: The photograph.
        grey: Whether they are one channel.

    Returns:
        The image, of mode L, LA, RGB or RGBA.
    """
    image = Image.fromarray(photograph.rgb)
    image = image.convert("L") if grey else image
    if photograph.alpha is not None:
        image.putalpha(Image.fromarray(photograph.alpha))
    return image


def _metadata_to_write(photograph: Photograph, suffix: str, options: dict[str, Any]) -> list[str]:
    """Adds the metadata that the format holds to Pillow's options; notes on the rest."""
    exif, xmp, dpi = photograph.exif, photograph.xmp, photograph.dpi
    lost = []
    if suffix in WITHOUT_METADATA:
        lost = [name for name, content in (("EXIF", exif), ("XMP", xmp)) if content]
        exif, xmp = None, None
    if suffix in (".jpg", ".jpeg"):
        # What is no EXIF at all is left to Pillow, which refuses it.
        if exif and len(exif) > _LARGEST_JPEG_SEGMENT and exif.startswith(b"Exif\0\0"):
            lost.append(f"EXIF of {len(exif)} bytes")
            exif = None
        if xmp and len(xmp) > _LARGEST_JPEG_XMP:
            lost.append(f"XMP of {len(xmp)} bytes")
            xmp = None
    if suffix in (".tif", ".tiff"):
        tags = Image.Exif()
        try:
            if exif:
                tags.load(exif)
                tags.pop(0x0112, None)
                tags = _writable(tags)
        except Exception:  # no EXIF, or damaged
            tags, lost = Image.Exif(), [*lost, "EXIF, which cannot be read,"]
        if xmp:
            tags[700] = xmp
        if len(tags):
            options["exif"] = tags
    elif exif:
        options["exif"] = exif
    if xmp and suffix == ".png":
        information = PngImagePlugin.PngInfo()
        information.add_itxt("XML:com.adobe.xmp", xmp.decode("utf-8", "replace"))
        options["pnginfo"] = information
    elif xmp and suffix not in (".tif", ".tiff"):
        options["xmp"] = xmp
    if dpi and suffix in (".webp", ".ppm"):
        lost.append("the resolution")
    elif dpi:
        options["dpi"] = dpi
    return [f"{what} is left out: {suffix} does not hold it" for what in lost]


def _writable(tags: Image.Exif) -> Image.Exif:
    """The tags, if a TIFF file with them can be written and read; raises whatever goes wrong."""
    for folder in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
        tags.get_ifd(folder)
    trial = io.BytesIO()
    Image.new("L", (1, 1)).save(trial, "TIFF", exif=tags)
    Image.open(trial).load()
    return tags

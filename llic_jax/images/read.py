"""Reads image files: to RGB, 8 bits, upright, with what they say of themselves."""

import io
import re
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError

from llic_jax.errors import ColourError, ImageFileError
from llic_jax.images import colour, metadata, png
from llic_jax.images.opening import (
    beginning,
    bits_a_channel,
    open_image,
    opened,
    stored_size,
    without_pillows_limit,
)
from llic_jax.images.photograph import MAX_PIXELS, Photograph
from llic_jax.images.pixels import read_pixels, upright


def read_photograph(
    source: str | Path | io.BufferedIOBase,
    *,
    name: str | None = None,
    max_pixels: int = MAX_PIXELS,
    to_8bit: bool = False,
    convert_cmyk: bool = False,
) -> Photograph:
    """Reads an image with its colour profile, its metadata and its alpha channel.

    Args:
        source: A path, or a file opened for reading bytes.
        name: What messages call the file; the path by default.
        max_pixels: Refuse larger images before their pixels are decoded.
        to_8bit: Convert images of 10 to 16 bits a channel, which are refused otherwise.
        convert_cmyk: Convert CMYK images, without colour management; they are refused otherwise.

    Raises:
        ImageFileError: No image; more than 8 bits a channel; CMYK; high dynamic range; too many
            pixels; whatever a decoder raises.
        FileNotFoundError: No such file.
    """
    name = str(source) if name is None else name
    try:
        with opened(source) as file, without_pillows_limit():
            return _read(file, name, max_pixels, to_8bit, convert_cmyk)
    except (FileNotFoundError, ImageFileError):
        raise
    except ColourError as error:
        raise ImageFileError(f"{name} cannot be read without loss: {error}.") from error
    except UnidentifiedImageError as error:
        raise ImageFileError(
            f"{name} cannot be read as an image: its format is not known."
        ) from error
    except MemoryError as error:
        raise ImageFileError(f"{name} cannot be read: memory does not suffice.") from error
    except Exception as error:  # decoders raise all kinds: ValueError, struct.error, IndexError ...
        reason = getattr(error, "strerror", None) or error
        raise ImageFileError(f"{name} cannot be read as an image: {reason}") from error


def read_rgb(
    source: str | Path | io.BufferedIOBase,
    *,
    name: str | None = None,
    max_pixels: int = MAX_PIXELS,
    to_8bit: bool = False,
) -> UInt8[np.ndarray, "h w 3"]:
    """Reads the pixels alone, to learn from: upright, CMYK converted, hidden colours filled.

    Args:
        source: As for `read_photograph`.
        name: Likewise.
        max_pixels: Likewise.
        to_8bit: Likewise.

    Raises:
        ImageFileError: As `read_photograph`, CMYK apart.
        FileNotFoundError: No such file.
    """
    return read_photograph(
        source, name=name, max_pixels=max_pixels, to_8bit=to_8bit, convert_cmyk=True
    ).colours_to_code()


def read_image(path: str | Path, *, to_8bit: bool = False) -> UInt8[np.ndarray, "h w 3"]:
    """Reads an opaque image as RGB. Grey and palette images are converted, and turned upright.

    Args:
        path: Of the file.
        to_8bit: Takes files of more bits a channel, too, rounded.

    Raises:
        ImageFileError: As `read_photograph`, and pixels that are not opaque.
        FileNotFoundError: No such file.
    """
    photograph = read_photograph(path, to_8bit=to_8bit)
    if photograph.alpha is not None:
        raise ImageFileError(
            f"{path} has transparent pixels, where an opaque image is needed; flatten it onto a "
            "background first."
        )
    return photograph.rgb


def image_mode(source: str | Path | io.BufferedIOBase) -> str:
    """Pillow's name for the pixels' mode ("RGB", "L", "CMYK" ...), from the file's header alone.

    Args:
        source: A path, or a file that is open for reading.

    Raises:
        ImageFileError: No image.
    """
    return _header(source)[0]


def image_size(source: str | Path | io.BufferedIOBase) -> tuple[int, int]:
    """Width and height of the upright image, from the file's header alone.

    Args:
        source: A path, or a file that is open for reading.

    Raises:
        ImageFileError: No image.
        FileNotFoundError: No such file.
    """
    return _header(source)[1]


def _header(source: str | Path | io.BufferedIOBase) -> tuple[str, tuple[int, int]]:
    try:
        with opened(source) as file, without_pillows_limit():
            image, found = open_image(file, header_only=True)
            width, height = stored_size(image)
            turned = _orientation_and_metadata(image, found)[0] >= 5
            return image.mode, (height, width) if turned else (width, height)
    except FileNotFoundError:
        raise
    except Exception as error:
        raise ImageFileError(f"{source} cannot be read as an image: {error}") from error


def _read(
    file: io.BufferedIOBase, name: str, max_pixels: int, to_8bit: bool, convert_cmyk: bool
) -> Photograph:
    image, found = open_image(file)
    width, height = stored_size(image)
    if width * height > max_pixels:
        raise ImageFileError(
            f"{name} has {width} x {height} pixels; at most {max_pixels} are allowed (max_pixels)."
        )
    if image.mode == "CMYK" and not convert_cmyk:
        raise ImageFileError(f"{name} is CMYK; convert it to sRGB with its colour profile first.")
    bits = bits_a_channel(image, found, file)
    if bits > 16 or image.mode == "F":
        raise ImageFileError(
            f"{name} has {bits} bits a channel, or numbers with a fraction; convert it to 8 bits."
        )
    if bits > 8 and not to_8bit:
        raise ImageFileError(
            f"{name} has more than 8 bits a channel ({bits}); convert it to 8 bits first, or allow "
            "it with --to_8bit (to_8bit=True)."
        )
    notes = list(_further_pictures(image, found))
    grey = found.grey if found else image.mode.startswith(("1", "L", "I")) and image.mode != "LAB"
    icc = _profile(image, found, grey, file)
    orientation, exif, xmp = _orientation_and_metadata(image, found)
    dpi = _dpi(image, found)
    comments = found.comments if found else int("comment" in image.info)
    rgb, alpha = read_pixels(file, image, found, bits)
    if bits > 8:
        notes.append(f"{bits} bits a channel are converted to 8")
    icc, lost = fitting_profile(icc, image.mode, grey)
    notes += lost
    kept: dict[str, bytes | None] = {"icc": icc, "exif": exif, "xmp": xmp}
    for kind, content in kept.items():
        if content is not None and len(content) > metadata.LARGEST:
            notes.append(f"{kind.upper()} of {len(content)} bytes is not kept; it is too large")
            kept[kind] = None
    return Photograph(
        upright(rgb, orientation),
        grey,
        None if alpha is None or alpha.min() == 255 else upright(alpha, orientation),
        kept["icc"],
        kept["exif"],
        kept["xmp"],
        dpi[::-1] if dpi and orientation >= 5 else dpi,
        tuple(notes),
        comments,
    )


def _further_pictures(image: Image.Image, found: png.Png | None) -> Iterator[str]:
    """Notes on frames and pages beside the first."""
    if found is not None:
        animation = found.chunks.get(b"acTL", b"")
        count = int.from_bytes(animation[:4], "big") if len(animation) == 8 else 1
    else:
        try:
            count = getattr(image, "n_frames", 1)
            image.seek(0)
        except Exception:  # a damaged later frame
            count = 2
    if count > 1:
        yield f"only the first of {count} pictures in the file is taken"


def _profile(
    image: Image.Image, found: png.Png | None, grey: bool, file: io.BufferedIOBase
) -> bytes | None:
    """The profile that the file states, in whatever way; None where it states none."""
    if found is not None:
        return colour.of_png(found.chunks, found.profile(), grey)
    icc = image.info.get("icc_profile")
    if icc:
        return bytes(icc)
    head = beginning(file)
    stated = re.search(rb"colrnclx(..)(..)", head, re.DOTALL)
    if stated and image.format in ("AVIF", "HEIF"):
        primaries, transfer = (int.from_bytes(group, "big") for group in stated.groups())
        # Video's curve on sRGB's primaries: cameras and converters mean sRGB.
        usual = primaries in (1, 2) and transfer in (1, 6, 14, 15)
        return None if usual else colour.of_code_points(primaries, transfer, grey)
    if image.format == "JPEG2000" and (match := re.search(rb"colr\x02..", head, re.DOTALL)):
        size = int.from_bytes(head[match.start() - 4 : match.start()], "big")
        return head[match.end() : match.start() - 4 + size] or None
    if image.format == "BMP" and head[14:18] == b"\x7c\0\0\0" and head[70:74] == b"DEBM":
        offset, size = struct.unpack_from("<II", head, 126)
        if 0 < size <= metadata.LARGEST:
            file.seek(14 + offset)
            return file.read(size) or None
    return None


def fitting_profile(icc: bytes | None, mode: str, grey: bool) -> tuple[bytes | None, list[str]]:
    """The profile, if it describes pixels such as these, and is none of sRGB's.

    Args:
        icc: As the file has it.
        mode: Pillow's name of the pixels' mode.
        grey: Whether the pixels are grey.

    Returns:
        The profile, or None for sRGB; notes on what is left out.
    """
    if icc is None or colour.is_srgb(icc):
        return None, []
    space = colour.space(icc)
    # LittleCMS converts Lab, and the pixels are then sRGB's.
    if mode == "LAB":
        return None, ["Lab is converted to sRGB"]
    if mode == "CMYK" or space == b"CMYK":
        return None, ["CMYK is converted without its colour profile"]
    if (space and space not in (b"RGB ", b"GRAY")) or (space == b"GRAY" and not grey):
        return None, [
            f"its colour profile is for {space.decode('latin-1').strip()}, which the pixels are "
            "not, and is left out"
        ]
    return icc, []  # also what is no profile at all: not ours to judge


def _orientation_and_metadata(
    image: Image.Image, found: png.Png | None
) -> tuple[int, bytes | None, bytes | None]:
    """The orientation, 1 to 8, EXIF and XMP without it."""
    if found is not None:
        return metadata.split_orientation(found.chunks.get(b"eXIf"), found.xmp)
    xmp = image.info.get("xmp")
    xmp = xmp.encode() if isinstance(xmp, str) else xmp
    if image.format == "TIFF":
        tags = image.tag_v2  # type: ignore[attr-defined]
        xmp = tags.get(700) if isinstance(tags.get(700), bytes) else None
        said = tags.get(274)
        from_xmp, _, xmp = metadata.split_orientation(None, xmp)
        orientation = said if isinstance(said, int) and 1 <= said <= 8 else from_xmp
        return orientation, metadata.tiff_exif(image), xmp
    exif = image.info.get("exif")
    return metadata.split_orientation(exif if isinstance(exif, bytes) else None, xmp)


def _dpi(image: Image.Image, found: png.Png | None) -> tuple[float, float] | None:
    """The resolution that the file states; Pillow has defaults of its own."""
    if found is not None:
        content = found.chunks.get(b"pHYs", b"")
        if len(content) != 9 or content[8] != 1:  # pixels per metre
            return None
        # Rounded as people write them: 11811 per metre are 300 per inch.
        per_metre = struct.unpack(">II", content[:8])
        return metadata.resolution([round(value * 0.0254, 2) for value in per_metre])
    dpi = metadata.resolution(image.info.get("dpi"))
    if image.format == "TIFF" and 282 not in image.tag_v2:  # type: ignore[attr-defined]
        return None
    if image.format == "JPEG" and dpi == (72, 72) and image.info.get("jfif_unit") not in (1, 2):
        return None
    return dpi

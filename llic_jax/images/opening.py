"""Opens image files with Pillow, past its limits and odd metadata; tells the bits they have."""

import contextlib
import functools
import io
import os
import re
import struct
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from llic_jax.images import png
from llic_jax.images.photograph import HEIC_SUFFIXES

# Pillow's formats of photographs. Others run a program (EPS), or hold drawings and icons.
_FORMATS = [
    "PNG",
    "JPEG",
    "MPO",
    "WEBP",
    "TIFF",
    "BMP",
    "DIB",
    "PPM",
    "GIF",
    "JPEG2000",
    "AVIF",
    "HEIF",
    "TGA",
    "QOI",
]

# Pillow warns of odd metadata and of large images. This module's errors and notes say what matters.
warnings.filterwarnings("ignore", module=r"PIL\.")


@contextlib.contextmanager
def opened(source: str | Path | io.BufferedIOBase) -> Iterator[io.BufferedIOBase]:
    """The file, positioned at its start and able to go back there.

    Args:
        source: A path, or a file that is open for reading.

    Raises:
        OSError: It cannot be opened.
    """
    if not isinstance(source, str | os.PathLike):
        at_start = source.seekable() and source.tell() == 0
        yield source if at_start else io.BytesIO(source.read())
        return
    with Path(source).open("rb") as file:
        yield file if file.seekable() else io.BytesIO(file.read())


_readers, _readers_lock, _pillows_limit = 0, threading.Lock(), Image.MAX_IMAGE_PIXELS


@contextlib.contextmanager
def without_pillows_limit() -> Iterator[None]:
    """Lifts Pillow's limit on pixels, one for all of a process, while files are read here.

    This module has a limit of its own for each call.
    """
    global _readers, _pillows_limit
    with _readers_lock:
        if not _readers:
            _pillows_limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        _readers += 1
    try:
        yield
    finally:
        with _readers_lock:
            _readers -= 1
            if not _readers:
                Image.MAX_IMAGE_PIXELS = _pillows_limit


def open_image(
    file: io.BufferedIOBase, header_only: bool = False
) -> tuple[Image.Image, png.Png | None]:
    """Opens a file with Pillow.

    Args:
        file: At its start.
        header_only: No pixels will be read.

    Returns:
        Pillow's image; and of a PNG file the chunks, of which Pillow does not get all.

    Raises:
        Exception: Whatever Pillow raises for a file that it cannot open.
    """
    head = file.read(64)
    file.seek(0)
    if head.startswith(png.SIGNATURE):
        found = png.split(file, header_only)
        # A header alone is no file to Pillow; an empty IDAT makes one of it.
        pixels = found.pixels + bytes(4) + b"IDAT" + bytes(4) if header_only else found.pixels
        return Image.open(io.BytesIO(pixels), formats=["PNG"]), found
    formats = _formats()
    try:
        return Image.open(file, formats=formats), None  # type: ignore[arg-type]
    except Exception:
        # Metadata that Pillow stumbles over is no reason to refuse the pixels.
        file.seek(0)
        stripped = _without_metadata(file.read())
        if stripped is None:
            raise
        return Image.open(io.BytesIO(stripped), formats=formats), None


@functools.cache
def _formats() -> list[str]:
    """Those of `_FORMATS` that this Pillow, and what is installed beside it, can read."""
    Image.init()
    if HEIC_SUFFIXES:
        import pillow_heif

        pillow_heif.register_heif_opener()
    return [name for name in _FORMATS if name in Image.OPEN]


def _without_metadata(data: bytes) -> bytes | None:
    """A JPEG or AVIF file without the metadata that Pillow fails at.

    Left out are a JPEG's APP1, APP13 and multi-picture segments; an AVIF's EXIF is made such that
    no reader finds it. None for any other file.
    """
    if data[4:8] == b"ftyp":
        return data.replace(b"Exif", b"free") if b"Exif" in data else None
    if not data.startswith(b"\xff\xd8"):
        return None
    kept, position = [data[:2]], 2
    while data[position : position + 1] == b"\xff" and position + 4 <= len(data):
        marker = data[position + 1]
        if marker == 0xDA:
            break
        end = position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        segment = data[position:end]
        if marker not in (0xE1, 0xED) and segment[4:8] != b"MPF\0":
            kept.append(segment)
        position = end
    return b"".join([*kept, data[position:]])


def stored_size(image: Image.Image) -> tuple[int, int]:
    """Width and height before the orientation is applied.

    Args:
        image: From `open_image`.
    """
    if image.format == "TIFF":  # Pillow turns its size by itself
        tags = image.tag_v2  # type: ignore[attr-defined]
        return int(tags[256]), int(tags[257])
    return image.size


def bits_a_channel(image: Image.Image, found: png.Png | None, file: io.BufferedIOBase) -> int:
    """Bits a channel, of the file. Pillow cuts many formats to 8 bits without a word.

    Args:
        image: From `open_image`, as the next.
        found: Its chunks, of a PNG file.
        file: That it was opened from.
    """
    if found is not None:
        return found.bits
    if image.format == "TIFF":
        tags = image.tag_v2  # type: ignore[attr-defined]
        bits, kinds = np.atleast_1d(tags.get(258, 1)), np.atleast_1d(tags.get(339, 1))
        return 32 if {2, 3} & set(kinds.tolist()) else int(bits.max())  # signed, or floating point
    if image.format == "PPM":
        return max(8, _ppm_maximum(file).bit_length())
    if image.format in ("JPEG2000", "AVIF", "HEIF"):
        return max(8, _bits_in_header(image.format, beginning(file)))
    return {"I": 32, "F": 32}.get(image.mode, 16 if image.mode.startswith("I;") else 8)


def beginning(file: io.BufferedIOBase) -> bytes:
    """The first 64 KiB of a file, which stays where it is.

    Args:
        file: Able to go back.
    """
    position = file.tell()
    file.seek(0)
    head = file.read(1 << 16)
    file.seek(position)
    return head


def _ppm_maximum(file: io.BufferedIOBase) -> int:
    """The largest value that a PPM file's header names; 1 for bitmaps."""
    head = re.sub(rb"#[^\r\n]*", b"", beginning(file)[:4096])
    fields = head.split(None, 4)
    if head[:2] in (b"P1", b"P4") or len(fields) < 4 or not fields[3].isdigit():
        return 1
    return int(fields[3])


def _bits_in_header(kind: str, head: bytes) -> int:
    """Bits of the deepest channel that the header names; 0 if it names none."""
    if kind == "JPEG2000":
        start = head.find(b"\xff\x4f\xff\x51")  # SOC, SIZ
        if start < 0 or len(head) < start + 42:
            return 0
        (count,) = struct.unpack_from(">H", head, start + 40)
        return max(
            ((depth & 0x7F) + 1 for depth in head[start + 42 :: 3][: min(count, 16)]), default=0
        )
    found = [0]
    for match in re.finditer(b"av1C|hvcC|pixi", head):
        record = head[match.end() : match.end() + 24]
        if match[0] == b"av1C" and len(record) > 2:
            found.append((12 if record[2] & 0x20 else 10) if record[2] & 0x40 else 8)
        elif match[0] == b"hvcC" and len(record) > 17:
            found.append(8 + (record[17] & 7))
        elif match[0] == b"pixi" and len(record) > 4:
            found += record[5 : 5 + min(record[4], 4)]
    return max(found)

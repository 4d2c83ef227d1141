"""EXIF, XMP and resolution: what is read of them, and how an orientation is taken out.

EXIF is kept byte for byte but for its orientation: writing it anew would lose what a camera hides
behind offsets. What cannot be read is treated as absent.
"""

import contextlib
import math
import re
import struct
from typing import Any

from PIL import ExifTags, Image

LARGEST = 1 << 24  # bytes of a profile or of metadata that are kept

_PREFIX = b"Exif\0\0"
_BYTE_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}
_ORIENTATION = 0x0112
_SHORT = 3
_XMP_ORIENTATION = re.compile(rb"(tiff:Orientation(?:=[\"']|>))([1-8])")
# The tags of a TIFF file that describe a photograph, and not how its pixels are stored.
_TIFF_TAGS = (
    ExifTags.Base.ImageDescription,
    ExifTags.Base.Make,
    ExifTags.Base.Model,
    ExifTags.Base.Software,
    ExifTags.Base.DateTime,
    ExifTags.Base.Artist,
    ExifTags.Base.Copyright,
)


def split_orientation(
    exif: bytes | None, xmp: bytes | None
) -> tuple[int, bytes | None, bytes | None]:
    """Takes the orientation out of the metadata: it is applied to the pixels.

    Args:
        exif: EXIF, with or without its `Exif` prefix; may be anything.
        xmp: An XMP packet; it speaks where EXIF has no orientation.

    Returns:
        The orientation, 1 to 8 (1: upright); EXIF whose orientation is 1, with the prefix, or None
        if nothing else is in it or it is no EXIF; XMP whose orientation is 1.
    """
    orientation, kept = _exif_orientation(exif)
    if xmp is not None and (found := _XMP_ORIENTATION.search(xmp)):
        orientation = orientation or int(found[2])
        xmp = _XMP_ORIENTATION.sub(rb"\g<1>1", xmp)
    return orientation or 1, kept, xmp


def _exif_orientation(exif: bytes | None) -> tuple[int | None, bytes | None]:
    if not exif:
        return None, None
    start = len(_PREFIX) if exif.startswith(_PREFIX) else 0
    tiff = bytearray(exif[start:])
    order = _BYTE_ORDERS.get(bytes(tiff[:4]))
    if order is None:
        return None, None
    try:
        (folder,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, folder)
        orientation = None
        for entry in range(folder + 2, folder + 2 + 12 * count, 12):
            tag, kind, number = struct.unpack_from(f"{order}HHI", tiff, entry)
            if (tag, kind, number) == (_ORIENTATION, _SHORT, 1):
                (value,) = struct.unpack_from(f"{order}H", tiff, entry + 8)
                orientation = value if 1 <= value <= 8 else None
                struct.pack_into(f"{order}H", tiff, entry + 8, 1)
        # The orientation alone, and no thumbnail behind it: nothing is left.
        following = tiff[folder + 2 + 12 * count :][:4]
        if count == 0 or (count == 1 and orientation is not None and not any(following)):
            return orientation, None
    except struct.error:
        return None, None
    return orientation, _PREFIX + bytes(tiff)


def is_exif(exif: bytes) -> bool:
    """Whether bytes start as EXIF does: a TIFF header behind the prefix.

    Args:
        exif: The bytes.
    """
    return exif[len(_PREFIX) :][:4] in _BYTE_ORDERS and exif.startswith(_PREFIX)


def tiff_exif(image: Any) -> bytes | None:
    """EXIF made of the tags of a TIFF file that describe the photograph.

    Args:
        image: The file, opened by Pillow.

    Returns:
        The EXIF; None without such tags.
    """
    exif = Image.Exif()
    with contextlib.suppress(Exception):
        found = image.getexif()
        for tag in _TIFF_TAGS:
            if isinstance(value := found.get(tag), str):
                exif[tag] = value
        for folder in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
            if content := found.get_ifd(folder):
                exif.get_ifd(folder).update(content)
    with contextlib.suppress(Exception):
        return exif.tobytes() if len(exif) else None
    return None


def resolution(dpi: Any) -> tuple[float, float] | None:
    """Horizontal and vertical dots per inch.

    Args:
        dpi: As Pillow found them.

    Returns:
        Both; None where they are not given or absurd.
    """
    try:
        x, y = (float(value) for value in dpi)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    sound = all(math.isfinite(value) and 1 <= value <= 1e6 for value in (x, y))
    return (x, y) if sound else None

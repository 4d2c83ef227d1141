"""The sections' tags, and deflated sections back to bytes. Loads neither JAX nor NumPy."""

import zlib
from collections.abc import Mapping

from llic_jax.errors import CorruptError

# Tags of 128 and above may be skipped by a reader that does not know them.
ICC = 129  # colour profile, deflated
EXIF = 130  # metadata, deflated
ALPHA = 131  # opacity, a grey PNG of the image's size
GREY = 132  # empty: the image is grey
XMP = 133  # an XMP packet, deflated
RESOLUTION = 134  # horizontal and vertical dots per inch, two float32
STEP_CHECKS = 135  # of the symbols up to each step's end, uint16 (`coding/step_checks.py`)

MAX_METADATA = 1 << 24  # bytes of a profile or of metadata, inflated


def inflated(sections: Mapping[int, bytes], tag: int) -> bytes | None:
    """The content of a deflated section; None if the file has none of this tag.

    Args:
        sections: Of a file, by tag.
        tag: Of the section.

    Raises:
        CorruptError: It is no deflated stream, ends too early, or has more than `MAX_METADATA`
            bytes.
    """
    if tag not in sections:
        return None
    inflate = zlib.decompressobj()
    try:
        content = inflate.decompress(sections[tag], MAX_METADATA)
    except zlib.error as error:
        raise CorruptError(f"Section {tag} cannot be inflated: {error}.") from error
    if not inflate.eof and len(content) < MAX_METADATA:
        raise CorruptError(
            f"Section {tag} ends within its deflated stream, after {len(sections[tag])} bytes; "
            "expected all of it. The file is damaged."
        )
    if not inflate.eof:
        raise CorruptError(
            f"Section {tag} has no end within {MAX_METADATA} bytes, which is the most that is read."
        )
    return content

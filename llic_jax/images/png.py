"""The chunks of a PNG file, read without Pillow.

Pillow refuses a photograph for the size of a comment, and passes over most of what a PNG says about
its colours. So Pillow gets the chunks that make the pixels, and this module keeps the others.
"""

import io
import struct
import zlib
from typing import NamedTuple

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_XMP = b"XML:com.adobe.xmp"
_KEPT = (b"iCCP", b"sRGB", b"gAMA", b"cHRM", b"cICP", b"eXIf", b"pHYs", b"acTL")
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
# What decodes the pixels; all other chunks are withheld from Pillow.
_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
_LARGEST = 1 << 24  # bytes of a chunk of metadata, deflated or inflated


class Png(NamedTuple):
    """A PNG file in two parts.

    Attributes:
        pixels: A PNG of the same pixels without any metadata.
        chunks: The first chunk of each kind that says something about colour, resolution, metadata
            or animation, by its type.
        xmp: The XMP packet, None without one.
        comments: Number of other text chunks.
    """

    pixels: bytes
    chunks: dict[bytes, bytes]
    xmp: bytes | None
    comments: int

    @property
    def bits(self) -> int:
        """Bits per channel (per index, for palettes)."""
        return self.pixels[24] if len(self.pixels) > 24 else 0

    @property
    def grey(self) -> bool:
        """Whether the pixels are grey, with or without alpha."""
        return self.pixels[25:26] in (b"\0", b"\4")

    def profile(self) -> bytes | None:
        """The ICC profile in iCCP; None without one, or with one that cannot be inflated."""
        _name, _, content = self.chunks.get(b"iCCP", b"").partition(b"\0")
        return inflate(content[1:], _LARGEST) if content else None


def split(file: io.BufferedIOBase, header_only: bool = False) -> Png:
    """Reads the chunks of a PNG file from its signature on.

    A chunk that is cut short ends the reading; whether pixels are missing is for Pillow to say.

    Args:
        file: Positioned at the signature.
        header_only: Stop at the first pixels.
    """
    pixels = [file.read(len(SIGNATURE))]
    chunks: dict[bytes, bytes] = {}
    xmp, comments = None, 0
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        if header_only and kind == b"IDAT":
            break
        if kind in _PIXELS:
            content = file.read(length + 4)
            pixels += [head, content]
            if kind == b"IEND" or len(content) < length + 4:
                break
            continue
        if (kind not in _KEPT and kind not in _TEXTS) or length > _LARGEST:
            comments += kind in _TEXTS
            if len(_skip(file, length + 4)) < 1:
                break
            continue
        content, checksum = file.read(length), file.read(4)
        if len(checksum) < 4:
            break
        if zlib.crc32(kind + content) != int.from_bytes(checksum, "big"):
            continue  # damaged metadata is none
        if kind in _TEXTS:
            if kind == b"iTXt" and content.startswith(_XMP + b"\0") and xmp is None:
                xmp = _international_text(content[len(_XMP) + 1 :])
            else:
                comments += 1
        else:
            chunks.setdefault(kind, content)
    return Png(b"".join(pixels), chunks, xmp, comments)


def inflate(content: bytes, largest: int) -> bytes | None:
    """Inflates a zlib stream.

    Args:
        content: The stream.
        largest: Bytes that it may make, at most.

    Returns:
        What it makes; None if it is damaged or makes more.
    """
    stream = zlib.decompressobj()
    try:
        inflated = stream.decompress(content, largest)
    except zlib.error:
        return None
    return inflated if stream.eof else None


def _skip(file: io.BufferedIOBase, length: int) -> bytes:
    """Passes over `length` bytes; returns the last one, empty if the file ends before."""
    file.seek(length - 1, 1)
    return file.read(1)


def _international_text(content: bytes) -> bytes | None:
    """The text of an iTXt chunk, from behind its keyword."""
    compressed, rest = content[:1] == b"\1", content[2:]
    text = rest.split(b"\0", 2)[-1]
    return inflate(text, _LARGEST) if compressed else text


def as_rgba(data: bytes) -> bytes:
    """A PNG whose header declares four channels of 8 bits; the pixels' bytes stay as they are.

    Args:
        data: A PNG of four bytes a pixel.
    """
    start = len(SIGNATURE) + 4  # the header's type and content, behind its length
    header = bytearray(data[start : start + 17])
    header[12:14] = 8, 6  # bits, and RGBA
    checksum = struct.pack(">I", zlib.crc32(header))
    return data[:start] + header + checksum + data[start + 21 :]

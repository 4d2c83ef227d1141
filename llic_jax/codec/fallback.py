"""Pictures that the network codes badly, coded another way within the same file.

A codec that has learned from photographs spoils fine patterns of full contrast (stripes, checks,
noise), and codes flat graphics with more bits than a lossless format does. Such a picture becomes a
section of a file that names no model (`bitstream.file.OTHER_CODINGS`):

    network's file spoils it            the smallest of lossless WebP, and WebP and JPEG at the PSNR
                                        that photographs have at this quality
    lossless WebP is smaller            lossless WebP

Synthesizing every image again to find out would cost a photograph a fifth of its time and more. So
`is_unlike_photographs` looks at a sample of the pixels first; what passes as a photograph is not
looked at further. (All our choice. Measured on `benchmarks/drawings.py`'s pictures, 31 photographs
held back from training and 12 of scikit-image's; docs/results.md has the figures.)
"""

import io
import math
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Array, UInt8
from PIL import Image

from llic_jax.bitstream.file import (
    JPEG,
    LOSSLESS,
    OTHER_CODINGS,
    PICTURE_VERSION,
    WEBP,
    LlicFile,
)
from llic_jax.errors import CorruptError
from llic_jax.images.opening import without_pillows_limit
from llic_jax.metrics.distortion import image_psnr

SPOILT = 8.0  # dB below `expected_psnr`; no photograph is more than 6.3 dB below it
# `expected_psnr` over the logarithm of lambda: the medians at four qualities lie within 0.3 dB.
_INTERCEPT, _SLOPE = 43.43, 5.713
_UNKNOWN = 25.0  # dB; where the model's loss has no squared error
_SAMPLE = 1 << 15  # pixels that `is_unlike_photographs` looks at
_STRIP = 8  # rows of these that lie together
_CONTRAST = 40.0  # of neighbours, root mean square, 0 to 255; photographs have up to 38
_FEW_BITS, _MOST_BITS = 1.5, 6.0  # of entropy, a pixel
_BITS_RATIO = 4.0  # lossless WebP takes down to a seventeenth of the entropy of repeated glyphs

_MAX_SIDE = (1 << 14) - 1  # of a WebP image, pixels
_RIFF = struct.Struct("<4sI4s4sI")
_MOST_THOROUGH = 1 << 20  # pixels for WebP's slowest settings, 1 s
_VP8L = struct.Struct("<BI")  # signature; width - 1 and height - 1 in 14 bits each, alpha, version


def expected_psnr(quality: float | None, lambdas: Sequence[float]) -> float:
    """The PSNR that photographs have at a quality, dB: the median, with the released model.

    Args:
        quality: None for a model of one rate.
        lambdas: Weight of the squared error in the model's loss at each quality level; () where it
            was trained for another distortion.
    """
    if not lambdas:
        return _UNKNOWN
    levels = np.arange(1, len(lambdas) + 1)
    return _INTERCEPT + _SLOPE * float(np.interp(quality or 1, levels, np.log10(lambdas)))


def is_unlike_photographs(image: UInt8[Array | np.ndarray, "h w 3"], size: int) -> bool:
    """Whether an image should be compared with what the decoder makes of it.

    A sample of the pixels tells: neighbours that differ as much as in fine patterns of full
    contrast; or an entropy (of colours, of horizontal differences, or of the differences of
    these between rows, whichever is least) so low that a lossless format may be smaller.

    Args:
        image: The pixels.
        size: Of the network's payload, bytes.
    """
    height, width = image.shape[:2]
    x = _sample(image)
    horizontal, vertical = np.diff(x, axis=2), np.diff(x, axis=1)
    squares = [np.mean(np.square(d, dtype=np.float32)) for d in (horizontal, vertical) if d.size]
    if squares and max(squares) > _CONTRAST**2:
        return True
    corners = np.diff(horizontal, axis=1)
    entropy = min(_entropy(part) for part in (x, horizontal, corners) if part.size)
    return entropy < min(_FEW_BITS + _BITS_RATIO * 8 * size / (height * width), _MOST_BITS)


def _sample(image: UInt8[Array | np.ndarray, "h w 3"]) -> np.ndarray:
    """Strips of rows `(strips, rows, W, 3)`, int16, spread at distances without a period."""
    height, width = image.shape[:2]
    columns = min(width, _SAMPLE // _STRIP)  # of very wide images the left part
    count = max(_SAMPLE // (_STRIP * columns), 1)
    if count * _STRIP >= height:
        return np.asarray(image[None, :, :columns]).astype(np.int16)
    places = np.arange(count) * 0.6180339887 % 1  # the golden ratio's multiples
    first = (places * (height - _STRIP)).astype(int)
    rows = first[:, None] + np.arange(_STRIP)
    return np.asarray(image[rows, :columns]).astype(np.int16)  # of JAX's arrays, the sample alone


def _entropy(values: np.ndarray) -> float:
    """Bits of a triple of values, each from -1020 to 1020."""
    triples = values.reshape(-1, 3).astype(np.int64) + 1024
    _, counts = np.unique((triples << [0, 11, 22]).sum(-1), return_counts=True)
    p = counts / counts.sum()
    return float(-np.sum(p * np.log2(p)))


def choose(
    image: UInt8[Array | np.ndarray, "h w 3"],
    sections: Mapping[int, bytes],
    networks: LlicFile | None,
    decoded: Callable[[], UInt8[np.ndarray, "h w 3"]],
    least: float,
    expected: float,
) -> bytes | None:
    """The file that takes the place of the networks'.

    Whole files are compared, with all their sections.

    Args:
        image: The pixels. Those of a JAX array come to the host where the sample is not enough.
        sections: What the file holds beside the picture.
        networks: The networks' file; None where they could not code the image.
        decoded: Makes the image that is decoded from it.
        least: PSNR of the decoded image below which the image is spoilt, dB.
        expected: PSNR that takes its place, dB.

    Returns:
        None where the networks' file is the better one.
    """
    if networks is not None and not is_unlike_photographs(image, len(networks.payload)):
        return None
    pixels = np.asarray(image)
    height, width = pixels.shape[:2]

    def file(tag: int, psnr: float = math.inf) -> list[bytes]:
        content = coded(pixels, tag, psnr)
        if content is None:
            return []
        return [LlicFile.of_picture(width, height, {**sections, tag: content}).to_bytes()]

    lossless = file(LOSSLESS)
    if networks is not None:
        if lossless and len(lossless[0]) < len(networks.to_bytes()):
            return lossless[0]
        if image_psnr(pixels, decoded()) >= least:
            return None
    return min([*lossless, *file(WEBP, expected), *file(JPEG, expected)], key=len, default=None)


def coded(image: UInt8[np.ndarray, "h w 3"], tag: int, psnr: float = math.inf) -> bytes | None:
    """The content of a section that holds a picture.

    Args:
        image: The pixels.
        tag: Of the section, one of `OTHER_CODINGS`.
        psnr: That the decoded image reaches at least, dB; all are reached by lossless WebP.

    Returns:
        The smallest that reaches it; None if the format has none.
    """
    if tag == LOSSLESS:
        return _lossless(image)
    return _smallest(image, "JPEG" if tag == JPEG else "WEBP", psnr)


def _lossless(image: UInt8[np.ndarray, "h w 3"]) -> bytes | None:
    """The lossless WebP's data without what the file's header tells; None if it is too large."""
    height, width = image.shape[:2]
    if max(height, width) > _MAX_SIDE:
        return None
    thorough = {"quality": 100, "method": 6} if height * width <= _MOST_THOROUGH else {}
    whole = _saved(image, "WEBP", lossless=True, **thorough)
    size = _RIFF.unpack_from(whole)[-1]
    content = whole[_RIFF.size + _VP8L.size : _RIFF.size + size]
    # Kept only if the header that the decoder will put before it is the one that was left out.
    return content if _webp(width, height, content) == whole else None


def _webp(width: int, height: int, content: bytes) -> bytes:
    """The lossless WebP file of an opaque image.

    RFC 9649, sections 2.3 (RIFF header), 2.6 (chunk) and 3.4 (image header).

    Args:
        width: Pixels.
        height: Pixels.
        content: What follows the header of the image stream.
    """
    size = _VP8L.size + len(content)
    padding = bytes(size % 2)
    riff = _RIFF.pack(b"RIFF", size + len(padding) + 12, b"WEBP", b"VP8L", size)
    return riff + _VP8L.pack(0x2F, (width - 1) | (height - 1) << 14) + content + padding


def _smallest(image: UInt8[np.ndarray, "h w 3"], kind: str, psnr: float) -> bytes | None:
    """The file of the lowest quality that reaches a PSNR; None if none does, or is written."""
    low, high = 0, 101
    found = None
    while high - low > 1:
        quality = (low + high) // 2
        options = {"subsampling": 0, "optimize": True} if kind == "JPEG" else {"method": 4}
        try:
            content = _saved(image, kind, quality=quality, **options)
        except (OSError, ValueError):  # too large a side; JPEG's buffer with fine noise
            if kind == "WEBP":
                return None
            high = quality
            continue
        if image_psnr(image, _pixels(content, kind)) >= psnr:
            high, found = quality, content
        else:
            low = quality
    return found


def _saved(image: UInt8[np.ndarray, "h w 3"], kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind, **options)
    return buffer.getvalue()


def _pixels(content: bytes, kind: str) -> UInt8[np.ndarray, "h w 3"]:
    with without_pillows_limit(), Image.open(io.BytesIO(content), formats=[kind]) as image:
        return np.array(image.convert("RGB"))


def coding_of(file: LlicFile) -> int | None:
    """The way in which a file holds its picture.

    Args:
        file: Parsed.

    Returns:
        The tag of the section that the picture is in; None: the networks' symbols are the picture.

    Raises:
        CorruptError: Two such sections, a payload beside one, or none in a file without networks.
    """
    tags = [tag for tag in file.sections if tag in OTHER_CODINGS]
    if not tags:
        if file.version == PICTURE_VERSION:
            raise CorruptError(
                f"The file is of version {file.version} and has sections {list(file.sections)}; "
                f"expected one of {list(OTHER_CODINGS)}, the picture. The file is damaged."
            )
        return None
    if file.version != PICTURE_VERSION and file.symbols_crc != zlib.crc32(file.checksummed_header):
        raise CorruptError(
            f"The symbols' checksum is {file.symbols_crc:08x}; a file that holds its picture in "
            f"section {tags[0]} has that of no symbols. The file is damaged."
        )
    if len(tags) > 1 or file.payload:
        raise CorruptError(
            f"The file holds its picture more than once: sections {tags}, and a payload of "
            f"{len(file.payload)} bytes; expected one of them. The file is damaged."
        )
    return tags[0]


def decode(file: LlicFile) -> UInt8[np.ndarray, "h w 3"]:
    """The picture in a file whose `coding_of` is not None.

    Raises:
        CorruptError: It cannot be read, or is of another size than the header tells.
    """
    tag = coding_of(file)
    assert tag is not None
    content, kind = file.sections[tag], "JPEG" if tag == JPEG else "WEBP"
    size = file.width, file.height
    try:
        if tag == LOSSLESS:
            if max(size) > _MAX_SIDE:
                raise CorruptError(f"found {size[0]} x {size[1]} pixels of lossless WebP")
            content = _webp(*size, content)
        with without_pillows_limit(), Image.open(io.BytesIO(content), formats=[kind]) as image:
            # Before a pixel is decoded.
            if image.size != size or image.mode != "RGB" or getattr(image, "n_frames", 1) != 1:
                raise CorruptError(
                    f"found {image.size[0]} x {image.size[1]} pixels in mode {image.mode}; "
                    f"expected one image of {size[0]} x {size[1]} in mode RGB"
                )
            return np.array(image)
    except Exception as error:  # whatever the library makes of damaged bytes
        raise CorruptError(
            f"The picture in section {tag} ({OTHER_CODINGS[tag]}) cannot be read: {error}. "
            "The file is damaged."
        ) from error

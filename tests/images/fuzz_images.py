"""Damages image files in many ways and looks at what the reader makes of them.

    python tests/images/fuzz_images.py --count 20000

Every damaged file must be read, or refused with an ImageFileError; nothing else may be raised, and
nothing may take long. Prints how many ended how, and the slowest.
"""

import argparse
import collections
import io
import struct
import time
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import ExifTags, Image, ImageCms, PngImagePlugin

from llic_jax.errors import ImageFileError
from llic_jax.images.read import read_photograph

MAX_PIXELS = 1 << 20
SLOWEST = 10.0  # seconds


def samples() -> list[bytes]:
    """Sound files of every format, with profile, EXIF, XMP, resolution, comments and frames."""
    rng = np.random.default_rng(0)
    smooth = np.clip(rng.normal(0, 20, (20, 28, 4)) + np.arange(28)[:, None] * 8, 0, 255)
    rgba = smooth.astype(np.uint8)
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "a camera"
    exif[ExifTags.Base.Orientation] = 6
    exif[ExifTags.Base.XResolution] = 300.0
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ISOSpeedRatings] = 200
    exif.get_ifd(ExifTags.IFD.GPSInfo)[1] = "N"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    text = PngImagePlugin.PngInfo()
    text.add_text("comment", "words " * 20, zip=True)
    text.add_itxt("XML:com.adobe.xmp", "<x:xmpmeta tiff:Orientation='6'/>")
    text.add(b"cICP", bytes([12, 13, 0, 1]))
    text.add(b"gAMA", struct.pack(">I", 50000))
    text.add(b"cHRM", struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000))
    metadata = {"exif": exif.tobytes(), "icc_profile": profile}
    xmp = b"<x:xmpmeta tiff:Orientation='6'/>"
    found = []

    def save(pixels: np.ndarray, kind: str, **options) -> None:
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, kind, **options)
        found.append(buffer.getvalue())

    for channels in (3, 4):
        pixels = rgba[..., :channels]
        save(pixels, "PNG", pnginfo=text, dpi=(300, 300), **metadata)
        save(pixels, "WEBP", xmp=xmp, **metadata)
        save(pixels, "TIFF", dpi=(300, 300), **metadata)
        save(pixels, "TIFF", compression="tiff_lzw", icc_profile=profile)
        save(pixels, "AVIF", xmp=xmp, **metadata)
        save(pixels, "JPEG2000")
    save(rgba[..., :3], "JPEG", comment=b"words", xmp=xmp, dpi=(300, 300), **metadata)
    save(rgba[..., :3], "JPEG", progressive=True, **metadata)
    save(rgba[..., 0], "JPEG", **metadata)
    save(rgba[..., 0], "PNG", **metadata)
    save(rgba[..., :2], "PNG", pnginfo=text)
    save(rgba[..., 0].astype(np.uint16) * 257, "PNG", **metadata)
    save(rgba[..., 0].astype(np.uint16) * 257, "TIFF")
    frames = [Image.fromarray(rgba[..., k]) for k in range(1, 3)]
    for kind in ("GIF", "WEBP", "PNG", "TIFF", "MPO", "AVIF"):
        save(rgba[..., 0], kind, save_all=True, append_images=frames)
    save(rgba[..., :3], "BMP")
    save(rgba[..., :3], "PPM")
    return found


def damaged(files: list[bytes], rng: np.random.Generator) -> Iterator[bytes]:
    """Endlessly: what became of a file."""
    while True:
        data = files[rng.integers(len(files))]
        other = files[rng.integers(len(files))]
        position = int(rng.integers(len(data)))
        yield data[:position]
        yield data[:position] + other[int(rng.integers(len(other))) :]
        yield data[:position] + data[position + int(rng.integers(1, 20)) :]
        # Headers and metadata stand in front, and say most.
        for end in (len(data), min(len(data), 400), min(len(data), 60)):
            changed = bytearray(data)
            for _ in range(rng.integers(1, 6)):
                changed[rng.integers(end)] = rng.choice([0, 1, 127, 128, 255, rng.integers(256)])
            yield bytes(changed)
            if data.startswith(b"\x89PNG"):
                yield sealed(bytes(changed))
        changed = bytearray(data)
        at = int(rng.integers(len(changed) - 4))
        extreme = (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFF)[rng.integers(6)]
        changed[at : at + 4] = extreme.to_bytes(4, ("little", "big")[rng.integers(2)])
        yield bytes(changed)


def sealed(data: bytes) -> bytes:
    """A PNG whose chunks' checksums fit."""
    pieces, position = [data[:8]], 8
    while position + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, position)
        if position + 12 + length > len(data):
            break
        content = data[position + 4 : position + 8 + length]
        checksum = struct.pack(">I", zlib.crc32(content))
        pieces.append(data[position : position + 4] + content + checksum)
        position += 12 + length
    return b"".join([*pieces, data[position:]])


def run(count: int, seed: int) -> tuple[collections.Counter, float]:
    """Reads `count` damaged files: how many ended how, and the longest time, seconds.

    Raises:
        AssertionError: A photograph whose parts do not go together, or one that took too long.
    """
    found: collections.Counter = collections.Counter()
    slowest = 0.0
    damages = damaged(samples(), np.random.default_rng(seed))
    for _, data in zip(range(count), damages, strict=False):
        started = time.perf_counter()
        try:
            photograph = read_photograph(
                io.BytesIO(data), name="it", max_pixels=MAX_PIXELS, to_8bit=True
            )
        except ImageFileError as error:
            assert str(error).startswith("it "), error
            found["refused"] += 1
        else:
            size = photograph.rgb.shape[:2]
            assert photograph.rgb.ndim == 3 and photograph.rgb.dtype == np.uint8
            assert photograph.alpha is None or photograph.alpha.shape == size
            photograph.colours_to_code()
            found["read"] += 1
        slowest = max(slowest, time.perf_counter() - started)
        assert slowest < SLOWEST, f"{slowest:.1f} s: {data!r}"
    return found, slowest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    started = time.perf_counter()
    found, slowest = run(args.count, args.seed)
    for kind, number in found.most_common():
        print(f"{number:9}  {kind}")
    minutes = (time.perf_counter() - started) / 60
    print(f"{args.count} files in {minutes:.1f} minutes; the slowest took {slowest:.2f} s")


if __name__ == "__main__":
    main()

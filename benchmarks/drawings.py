"""What a released model makes of drawings and test patterns: where codecs of photographs fail.

    python benchmarks/drawings.py

Codes test patterns that are made here, and scikit-image's pictures of documents and symbols, to
real files. A star marks those that are not coded by the networks (`codec/fallback.py`);
`--strict_llic` codes all by the networks. Beside each PSNR stands that of the best JPEG of no more
bytes, "-" where there is none. A picture below 15 dB is useless: a plain grey one reaches 6 dB
where black and white are mixed.
"""

import argparse
import io
import math
from pathlib import Path

import numpy as np
import skimage.data
from PIL import Image, ImageDraw, ImageFont

from llic_jax.bitstream.file import LlicFile
from llic_jax.errors import InputError
from llic_jax.evaluation import baselines
from llic_jax.execution import program_cache
from llic_jax.metrics import distortion
from llic_jax.zoo.folder import DEFAULT_FOLDER, load_codec

SIDE = 256
USELESS = 15.0  # dB


def patterns() -> dict[str, np.ndarray]:
    """Images `(SIDE, SIDE, 3)`, uint8, by name."""
    y, x = np.mgrid[:SIDE, :SIDE]
    rng = np.random.default_rng(0)
    found = {f"stripes of {n}": x // n % 2 for n in (1, 2, 4, 8)}
    found |= {f"checks of {n}": (x // n + y // n) % 2 for n in (1, 2, 4, 8, 16)}
    found["black and white noise"] = rng.integers(0, 2, (SIDE, SIDE))
    found = {name: 255 * np.repeat(bits[..., None], 3, -1) for name, bits in found.items()}
    found["coloured noise"] = 255 * rng.integers(0, 2, (SIDE, SIDE, 3))
    blocks = 255 * rng.integers(0, 2, (SIDE // 8, SIDE // 8, 3))
    found["coloured blocks of 8"] = blocks.repeat(8, 0).repeat(8, 1)
    colours = np.array([(i & 4, i & 2, i & 1) for i in range(8)], bool) * 255
    found["colour bars"] = colours[x // (SIDE // 8)]
    found["slope"] = np.stack([y, x, 255 - y], axis=-1)
    found["black"], found["magenta"] = (
        np.zeros((SIDE, SIDE, 3)),
        np.full((SIDE, SIDE, 3), colours[5]),
    )
    found = {name: np.asarray(image, np.uint8) for name, image in found.items()}
    return found | {
        "lines on black": _lines("black"),
        "lines on white": _lines("white"),
        "neon grid": _grid(),
        "black text": _text("black", "white", 14),
        "lime text": _text("lime", "black", 10),
    }


def _lines(ground: str) -> np.ndarray:
    image, rng = Image.new("RGB", (SIDE, SIDE), ground), np.random.default_rng(0)
    for _ in range(40):
        colour = tuple(map(int, 255 * rng.integers(0, 2, 3)))
        ends = [tuple(map(int, end)) for end in rng.integers(0, SIDE, (2, 2))]
        ImageDraw.Draw(image).line(ends, fill=colour, width=int(rng.integers(1, 5)))
    return np.asarray(image)


def _grid() -> np.ndarray:
    image = np.zeros((SIDE, SIDE, 3), np.uint8)
    image[::16], image[:, ::16] = (255, 0, 255), (0, 255, 255)
    image[1::16], image[:, 1::16] = (255, 0, 255), (0, 255, 255)
    return image


def _text(colour: str, ground: str, height: int) -> np.ndarray:
    image, font = Image.new("RGB", (SIDE, SIDE), ground), ImageFont.load_default(height)
    for top in range(0, SIDE, height + 4):
        sentence = "Sphinx of black quartz, judge my vow 0123456789 again and again"
        ImageDraw.Draw(image).text((4, top), sentence, colour, font)
    return np.asarray(image)


def documents() -> dict[str, np.ndarray]:
    """scikit-image's pictures that are no photographs of scenes, those that come with it."""
    found = {}
    for name in ("page", "text", "clock", "horse", "logo", "colorwheel"):
        image = np.asarray(getattr(skimage.data, name)())
        if image.dtype == bool:
            image = 255 * image
        image = image[..., None].repeat(3, -1) if image.ndim == 2 else image[..., :3]
        found[name] = np.ascontiguousarray(image[:SIDE, :SIDE], np.uint8)
    return found


def jpeg_within(image: np.ndarray, size: int) -> float | None:
    """PSNR of the best JPEG of no more than `size` bytes; None if there is none."""
    jpeg = baselines.FORMATS["JPEG"]
    for quality in range(95, 0, -1):
        try:
            data = jpeg.encode(image, quality)
        except OSError:  # Pillow's buffer does not hold fine noise at high qualities
            continue
        if len(data) <= size:
            return distortion.image_psnr(image, jpeg.decode(data))
    return None


def lossless_bytes(image: np.ndarray) -> int:
    """Bytes of the lossless WebP, at the slowest setting."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "WEBP", lossless=True, quality=100, method=6)
    return buffer.tell()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=DEFAULT_FOLDER, help="released folder")
    parser.add_argument("--quality", type=float, nargs="+", default=[2.0, 5.0, 8.0])
    parser.add_argument("--strict_llic", action="store_true", help="by the networks, all of them")
    parser.add_argument("--output", type=Path, help="keeps the decoded pictures in this folder")
    args = parser.parse_args()

    program_cache.enable()
    codec = load_codec(args.checkpoint)
    print(f"model {codec.fingerprint.hex()}: bits a pixel, PSNR, in brackets the best JPEG's")
    useless = dict.fromkeys(args.quality, 0)
    images, surplus = patterns() | documents(), (-math.inf, "")
    for name, image in images.items():
        line = f"{name:22}"
        for quality in args.quality:
            try:
                data = codec.compress(image, quality, args.strict_llic)
            except InputError:
                line, useless[quality] = line + f" | {'refused':>20}", useless[quality] + 1
                continue
            decoded = codec.decompress(data)
            surplus = max(surplus, (len(data) - lossless_bytes(image), name))
            star = "*" if LlicFile.from_bytes(data).other_coding else " "
            psnr, jpeg = distortion.image_psnr(image, decoded), jpeg_within(image, len(data))
            useless[quality] += psnr < USELESS
            beside = "-" if jpeg is None else f"{jpeg:.1f}"
            line += f" | {8 * len(data) / image[..., 0].size:6.3f} {psnr:5.1f}{star}({beside:>4})"
            if args.output:
                args.output.mkdir(parents=True, exist_ok=True)
                pair = Image.fromarray(np.concatenate([image, decoded], axis=1))
                pair.save(args.output / f"{name.replace(' ', '_')}_{quality:g}.png")
        print(line, flush=True)
    for quality, count in useless.items():
        print(f"quality {quality:g}: {count} of {len(images)} below {USELESS:g} dB")
    print(f"most bytes more than lossless WebP: {surplus[0]}, {surplus[1]}")


if __name__ == "__main__":
    main()

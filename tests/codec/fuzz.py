"""Damages `.llic` files in many ways and looks at what a decoder makes of them.

    python tests/codec/fuzz.py --count 200000

Every damaged file must end in a `BitstreamError` (or ask for a range coder that is not installed),
or decode to an image with all coded content intact. Only a picture in a section may change, where
the checksum was made anew: nothing else tells. Prints how many ended how, and the slowest.
tests/codec/test_hostile.py runs a few.
"""

import argparse
import collections
import dataclasses
import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from llic_jax.bitstream import file as bitstream
from llic_jax.bitstream.file import LlicFile
from llic_jax.bitstream.sections import ALPHA, sections_of
from llic_jax.codec.codec import Codec
from llic_jax.codec.model import Limits
from llic_jax.codec.rate_control import Quality
from llic_jax.coding.range_coders.registry import CODERS, installed_coders
from llic_jax.errors import BitstreamError, CoderUnavailableError
from llic_jax.images.photograph import Photograph
from llic_jax.zoo.folder import load_codec

MODELS = Path(__file__).parents[1] / "golden" / "models"
MAX_PIXELS = 2 * 64 * 64  # padded: three shapes of images, so that few programs are compiled
EXTREMES = {
    "width": (1, 2, 63, 64, 65, 129, 1 << 16, bitstream.MAX_SIDE),
    "height": (1, 2, 63, 64, 65, 129, 1 << 16, bitstream.MAX_SIDE),
    "quality": (0.0, 1.0, 1.00390625, 2.0, 2.00390625, 255.99609375),
    "coder": (0, 1, 2, 3, 255),
    "shift_resolution": (0, 1, 255, 256, 257, 400, 65535),
    "symbols_crc": (0, 1, 0xFFFFFFFF),
    "version": (1, 2, 3, 4, 5),
    "fingerprint": (bytes(8), b"\xff" * 8),
}


def samples(codecs: dict[str, Codec]) -> list[bytes]:
    """Sound files: plain ones, and one with sections, by every coder; a progressive one; a picture
    in a section."""
    rng = np.random.default_rng(0)
    found = []
    for codec in codecs.values():
        for shape in ((64, 64), (50, 70), (1, 1)):
            smooth = rng.integers(0, 256, (1, 1, 3)) + rng.normal(0, 30, (*shape, 3))
            image = np.clip(smooth, 0, 255).astype(np.uint8)
            whole = Photograph(image, alpha=image[..., 0], icc=b"profile" * 9, exif=b"metadata")
            sections = sections_of(whole, keep_exif=True) if shape == (50, 70) else None
            ways = [codec]
            if sections and CODERS[codec.coder].in_order:
                ways.append(codec.progressive)
            for way in ways:
                found.append(way.encode([image], Quality(1.5), sections=[sections or {}])[0].data)
    checks = 255 * (np.indices((50, 70)).sum(0) % 2).astype(np.uint8)
    found.append(codec.compress(np.repeat(checks[..., None], 3, -1), 1.5))
    return found


def damaged(files: list[bytes], rng: np.random.Generator) -> Iterator[tuple[str, bytes]]:
    """Endlessly: what was done, and what became of a file."""
    while True:
        for _ in range(10):  # what takes little time, more often
            data = files[rng.integers(len(files))]
            other = files[rng.integers(len(files))]
            position = int(rng.integers(len(data)))
            yield "truncated", data[:position]
            yield "truncated, sealed", sealed(data[:position])
            yield "spliced", data[:position] + other[int(rng.integers(len(other))) :]
            flipped = bytearray(data)
            for _ in range(rng.integers(1, 9)):
                flipped[rng.integers(len(flipped))] ^= 1 << rng.integers(8)
            yield "bits flipped", bytes(flipped)
            file = LlicFile.from_bytes(data)
            name = list(EXTREMES)[rng.integers(len(EXTREMES))]
            value = EXTREMES[name][rng.integers(len(EXTREMES[name]))]
            yield f"{name} extreme", dataclasses.replace(file, **{name: value}).to_bytes()
            yield "random header", sealed(data[:13] + rng.bytes(int(rng.integers(40))))
        yield "bits flipped, sealed", sealed(flipped[:-4])
        if not file.payload:
            continue
        payload = bytearray(file.payload)
        for _ in range(rng.integers(1, 4)):
            payload[rng.integers(len(payload))] ^= 1 << rng.integers(8)
        yield "payload flipped", dataclasses.replace(file, payload=bytes(payload)).to_bytes()
        cut = file.payload[: rng.integers(len(payload))] + rng.bytes(int(rng.integers(8)))
        yield "payload cut", dataclasses.replace(file, payload=cut).to_bytes()
        noise = rng.bytes(len(payload))
        yield "payload random", dataclasses.replace(file, payload=noise).to_bytes()
        joined = dataclasses.replace(file, payload=LlicFile.from_bytes(other).payload)
        yield "another's payload", joined.to_bytes()
        sections = {int(rng.integers(1, 256)): rng.bytes(int(rng.integers(64)))}
        if known := file.sections.get(ALPHA):
            broken = bytearray(known)
            broken[rng.integers(len(broken))] ^= 1 << rng.integers(8)
            sections[ALPHA] = bytes(broken)
        yield "sections", dataclasses.replace(file, sections=sections).to_bytes()


def sealed(body: bytes) -> bytes:
    """`body` with the checksum that belongs to it."""
    return bytes(body) + struct.pack("<I", zlib.crc32(body))


def run(
    codecs: dict[str, Codec], count: int, seed: int, every: int = 0
) -> tuple[collections.Counter, float]:
    """Decodes `count` damaged files: how many ended how, and the longest time, seconds. Prints the
    number so far `every` so many.

    Raises:
      AssertionError: an image whose coded content is none of the sound files'.
    """
    files = samples(codecs)
    intact = {coded_content(data) for data in files}
    codec = next(iter(codecs.values()))
    for data in files:  # what is compiled now is not compiled under the clock
        codec.decode_photographs([data])[0]
    found: collections.Counter = collections.Counter()
    slowest = 0.0
    damages = damaged(files, np.random.default_rng(seed))
    for i, (kind, data) in zip(range(count), damages, strict=False):
        if every and i and i % every == 0:
            print(f"{i} files so far: {dict(found)}", flush=True)
        started = time.perf_counter()
        try:
            codec.decode_photographs([data])[0]
        except (BitstreamError, CoderUnavailableError) as error:
            found[type(error).__name__] += 1
        else:
            resealed = "sealed" in kind or "extreme" in kind
            assert coded_content(data) in intact or (
                resealed and LlicFile.from_bytes(data).other_coding
            ), f"an image of a damaged file ({kind}): {data!r}"
            found["decoded, coded content intact"] += 1
        slowest = max(slowest, time.perf_counter() - started)
    return found, slowest


def coded_content(data: bytes) -> tuple:
    """All that decides the image: the checksum that its symbols were found to have, and what goes
    with them. (Another payload may hold the same symbols: with other bytes behind its end.) Or the
    picture's section and the size."""
    file = LlicFile.from_bytes(data)
    if file.other_coding:
        return file.width, file.height, *(file.sections.get(tag) for tag in bitstream.OTHER_CODINGS)
    return file.symbols_crc, file.checksummed_header


def open_codecs(model: str) -> dict[str, Codec]:
    """The golden model's codec for every coder; the first one reads all of their files."""
    limits = Limits(max_pixels=MAX_PIXELS)
    return {name: load_codec(MODELS / model, name, limits) for name in installed_coders()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", default="elic", help="one of tests/golden/models")
    args = parser.parse_args()
    started = time.perf_counter()
    found, slowest = run(open_codecs(args.model), args.count, args.seed, every=10_000)
    for kind, number in found.most_common():
        print(f"{number:9}  {kind}")
    minutes = (time.perf_counter() - started) / 60
    print(f"{args.count} files in {minutes:.1f} minutes; the slowest took {slowest:.2f} s")


if __name__ == "__main__":
    main()

"""What it costs that files decode anywhere: bytes and time, beside the other ways to have it.

    python benchmarks/portability.py --data_dir PHOTOGRAPHS

Bytes: files with row shifts over files without; and what a list of the symbols
near a boundary would take instead, for the same margin (positions and a bit for the side, at their
entropy). Time, of decoding: without row shifts, with them, and with entropy parameters in float64.

Columns: quality, bytes of all files without row shifts, what row shifts add to all of them and to
the one with most, and what the list would add. Below: seconds of decoding, and their ratios.
"""

import argparse
from pathlib import Path
from typing import Any

import jax
import numpy as np
from common import best, codec_in_float64
from scipy.special import gammaln

from llic_jax.bitstream.file import LlicFile
from llic_jax.codec.codec import Codec
from llic_jax.codec.networks import CompiledNetworks
from llic_jax.data.image_files import image_files
from llic_jax.images.read import read_image
from llic_jax.zoo.folder import DEFAULT_FOLDER, load_codec


class Recording(CompiledNetworks):
    """Keeps the positions of all steps that are coded."""

    def __init__(self, *args: Any):
        super().__init__(*args)
        self.found: list[np.ndarray] = []

    def positions(self, scale: Any) -> Any:
        positions = super().positions(scale)
        self.found.append(np.asarray(positions).ravel())
        return positions

    def take(self) -> list[np.ndarray]:
        found, self.found = self.found, []
        return found


def listing_bits(steps: list[np.ndarray], units: int) -> float:
    """A list of the symbols within half a unit of a boundary of any of the 64 rows."""
    bits = 0.0
    for levels in steps:
        distance = np.abs(levels - np.clip(np.floor(levels), 0, 62) - 0.5)
        n, k = levels.size, int((distance < 0.5 / units).sum())
        bits += (gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)) / np.log(2) + k
    return bits


def seconds(codec: Any, files: list[bytes], repeats: int = 3) -> float:
    """The fastest pass over the files, after one to compile."""
    return best(lambda: [codec.decompress(data) for data in files], repeats)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_dir", type=Path, required=True, help="a folder of photographs")
    parser.add_argument("--images", type=int, help="the first ones only")
    parser.add_argument("--checkpoint", type=Path, default=DEFAULT_FOLDER)
    parser.add_argument("--timed", type=int, default=4, help="images to time")
    args = parser.parse_args()
    images = [read_image(path) for path in image_files(args.data_dir)[: args.images]]
    codec = load_codec(args.checkpoint)
    model, options, limits = codec.model, codec.options, codec.limits
    units, levels = options.shift_resolution, Recording(model.network, model.params, 4.0)
    codecs = {
        u: Codec(model, options._replace(shift_resolution=u), limits, levels) for u in (0, units)
    }
    qualities = [float(q) for q in range(1, codec.network.levels + 1)]
    middle: dict[int, list[bytes]] = {0: [], units: []}
    print(f"{len(images)} images, {units} shifts a row")
    print(f"{'quality':>8}{'bytes without':>15}{'row shifts':>11}{'largest':>9}{'listing':>9}")
    for quality in qualities if len(qualities) > 1 else [None]:
        sizes, listed = [], 0.0
        for image in images:
            files = {}
            for u in (0, units):
                levels.take()
                files[u] = codecs[u].compress(image, quality)
            listed += listing_bits(levels.take(), units) / 8
            payloads = [len(LlicFile.from_bytes(files[u]).payload) for u in (0, units)]
            sizes.append((len(files[0]), payloads[1] - payloads[0]))
            if quality == codec.default_quality or quality == np.ceil(codec.default_quality or 0):
                for u in middle:
                    middle[u].append(files[u])
        whole = sum(size for size, _ in sizes)
        largest = max(more / size for size, more in sizes)
        more = sum(more for _, more in sizes) / whole
        print(f"{quality or 0:8g}{whole:15}{more:11.3%}{largest:9.3%}{listed / whole:9.3%}")
    plain, agreed = (seconds(codec, middle[u][: args.timed]) for u in (0, units))
    jax.config.update("jax_enable_x64", True)
    double = seconds(codec_in_float64(args.checkpoint), middle[units][: args.timed], repeats=1)
    print(
        f"decoding {args.timed} images: {plain:.2f} s without row shifts, {agreed:.2f} s with them"
    )
    print(f"(ratio {agreed / plain:.3f}), {double:.2f} s in float64 (ratio {double / plain:.1f})")


if __name__ == "__main__":
    main()

"""What a mixture in the coding tables and the channels' offsets save: bytes of `y`, as coded.

    python benchmarks/tables.py --data_dir PHOTOGRAPHS --fit 12

Central crops of the held-back photographs are coded once with every table, by the range coder that
files are written with. --fit N: first finds the mixture of two Gaussians that codes the symbols of
N photographs of training in the fewest bits, without offsets, and takes that; else the config's.
"""

import sys
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import released_model
from scipy.optimize import minimize
from scipy.special import ndtr

from llic_jax.codec.codec import Codec
from llic_jax.codec.encoder import Encoder
from llic_jax.codec.model import CodecModel
from llic_jax.coding import row_shifts
from llic_jax.coding.range_coders.registry import CODERS
from llic_jax.coding.scale_offsets import ScaleOffsets, offset_costs, with_all_rows
from llic_jax.coding.table_design import build_tables
from llic_jax.coding.tables import CodingTables
from llic_jax.data.photographs import Photographs
from llic_jax.entropy.gaussian import GAUSSIAN, PRECISION, SCALE_ROWS, Mixture, scale_table
from llic_jax.entropy.walk import Step, Walk


class Coded(NamedTuple):
    """What one step codes."""

    step: Step
    symbols: np.ndarray
    positions: np.ndarray


def steps_of(codec: Codec, image: np.ndarray, quality: float) -> list[Coded]:
    """All steps of an image."""
    networks = codec.networks
    tables = with_all_rows(codec.model.tables)
    encoder = Encoder(codec.model, tables, networks, codec.options, codec.limits)
    batch = encoder.batch([image.shape[:2]], quality)
    canvas, latents = batch.canvas, encoder.analyze(batch, [image])
    z_hat, _ = networks.round_hyper(canvas, latents.z)
    hyper = networks.hyper_synthesize(canvas, z_hat, batch.qualities)
    walk, found = Walk(networks.entropy_model(canvas), hyper, latents.y.shape), []
    weight = codec.options.rdoq_weight
    for step, mean, scale in walk:
        symbols, values, _ = networks.quantize(canvas, step, latents.y, mean, scale, weight)
        walk.fill(values)
        positions = networks.positions(scale)
        whole = (canvas.crop(np.asarray(x))[0] for x in (symbols, positions))
        found.append(Coded(step, *whole))
    return found


def coded_bytes(
    tables: CodingTables, steps: list[Coded], units: int, corrected: bool, coder: str
) -> int:
    """Bytes of these steps, with the channels' offsets or without."""
    encoder = CODERS[coder].encoder(tables)
    offsets = ScaleOffsets(tables, offset_costs(tables))
    for step, symbols, positions in steps:
        own = offsets.write(encoder, step, symbols, positions)[0] if corrected else 0
        rows = row_shifts.write_rows(encoder, tables, positions + own, units).rows
        encoder.encode(symbols, rows + tables.scales)
    return len(encoder.finish())


def fitted(steps: list[Coded]) -> Mixture:
    """The mixture of two that codes these symbols in the fewest bits."""
    largest = 255
    counts = np.zeros((SCALE_ROWS, largest + 1))
    for _, symbols, positions in steps:
        rows = row_shifts.nearest_used(positions)
        np.add.at(counts, (rows, np.minimum(np.abs(symbols), largest)), 1)
    magnitude, scales = np.arange(largest + 1), np.asarray(scale_table())[:, None]

    def mixture(x: np.ndarray) -> Mixture:
        weight = 1 / (1 + np.exp(-x[0]))
        return ((weight, float(np.exp(x[1]))), (1 - weight, float(np.exp(x[2]))))

    def bits(x: np.ndarray) -> float:
        parts = [
            weight * (ndtr((0.5 - magnitude) / scale) - ndtr((-0.5 - magnitude) / scale))
            for weight, relative in mixture(x)
            for scale in [relative * scales]
        ]
        return float(-(counts * np.log2(np.maximum(sum(parts), 2.0**-PRECISION))).sum())

    return mixture(minimize(bits, [0.0, -0.2, 0.2], method="Nelder-Mead").x)


def centre(image: np.ndarray, crop: int) -> np.ndarray:
    top, left = ((side - crop) // 2 for side in image.shape[:2])
    return image[top : top + crop, left : left + crop]


def main() -> None:
    parser = released_model.parser(__doc__.splitlines()[0])
    parser.add_argument("--fit", type=int, default=0, help="photographs to fit a mixture to")
    args = parser.parse_args()
    model = released_model.load(args)
    units, coder = model.config["coding"]["shift_resolution"], next(iter(CODERS))
    prior = model.model.prior, model.params["prior"]
    codec_model = CodecModel(model.model, model.params, build_tables(*prior), bytes(8))
    codec = Codec(codec_model, model.options)
    qualities = [float(q) for q in range(1, model.model.levels + 1)]

    def crops(images: Photographs, count: int) -> list[np.ndarray]:
        chosen = [images[i] for i in range(0, len(images), max(1, len(images) // count))]
        sound = [im for im in chosen if im is not None and min(im.shape[:2]) >= args.crop]
        return [centre(image, args.crop) for image in sound[:count]]

    mixture = model.model.mixture
    if args.fit:
        seen = crops(model.seen, args.fit)
        mixture = fitted([s for im in seen for q in qualities for s in steps_of(codec, im, q)])
    print("mixture:", ", ".join(f"{weight:.3f} of {scale:.3f}" for weight, scale in mixture))

    variants = [(m, corrected) for m in (GAUSSIAN, mixture) for corrected in (False, True)]
    tables = [with_all_rows(build_tables(*prior, m)) for m, _ in variants]
    held_back = crops(model.held_back, len(model.held_back))
    print(f"\n{'quality':>8}{'bytes':>10}{'offsets':>10}{'mixture':>10}{'both':>10}")
    for quality in qualities:
        sizes = np.zeros(len(variants))
        for image in held_back:
            steps = steps_of(codec, image, quality)
            sizes += [
                coded_bytes(own, steps, units, corrected, coder)
                for own, (_, corrected) in zip(tables, variants, strict=True)
            ]
        changes = "".join(f"{100 * (size / sizes[0] - 1):>8.2f} %" for size in sizes[1:])
        print(f"{quality:>8.0f}{sizes[0]:>10.0f}{changes}", flush=True)


if __name__ == "__main__":
    main()

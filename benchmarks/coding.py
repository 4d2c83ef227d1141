"""Times coding of the full-size LLIC-ELIC beside PyTorch's transforms, and batches, in one run.

    python benchmarks/coding.py --torch_python TORCH_ENV/bin/python --torch_script SCRIPT

Weights are random, with latents scaled up so that there is something to code. Compressing and
decompressing are whole: from pixels to bytes and back, range coder included. PyTorch's side is its
transforms alone (see benchmarks/transforms.py for SCRIPT): no entropy model, no coder, so the ratio
is the least that a codec in PyTorch could show. The networks are set beside what this machine's
matrix product makes of as many MACs. Sides take turns; the fastest of each counts.

Columns of the first table: seconds, those of PyTorch's one transform, and their ratio. Of the
second: seconds of the networks, their MACs in units of 10^9, seconds of a product of as many, and
the ratio.
"""

import argparse
from pathlib import Path

import jax
import numpy as np
from common import add_torch_arguments, best, least, product_rate, torch_seconds
from full_size import images, random_codec

from llic_jax.models.cost import summarize
from llic_jax.system.memory import keep_freed_memory


def ours(codec, image: np.ndarray, repeats: int) -> dict[str, float]:
    """Seconds of coding, and of the networks in it."""
    data = codec.encode([image])[0].data
    return {
        "compress": best(lambda: codec.encode([image]), repeats),
        "decompress": best(lambda: codec.decode([data]), repeats),
        "networks of compress": min(
            codec.encode([image])[0].network_seconds for _ in range(repeats)
        ),
        "networks of decompress": min(
            codec.decode([data])[0].network_seconds for _ in range(repeats)
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_dir", type=Path, help="a folder of images")
    parser.add_argument("--model", default="llic_elic", help="config name")
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=2)
    add_torch_arguments(parser)
    args = parser.parse_args()
    keep_freed_memory()
    codec, image = random_codec(args.model), images(args.data_dir)[0]
    height, width = image.shape[:2]
    costs = summarize(codec.network, height, width)
    both = costs.h_s.macs + costs.walk.macs
    macs = {
        "networks of compress": costs.g_a.macs + costs.h_a.macs + both,
        "networks of decompress": both + costs.g_s.macs,
    }
    mine: dict[str, float] = {}
    theirs: dict[str, float] = {}
    rate = product_rate(torch_python=args.torch_python)
    for _ in range(args.rounds):
        theirs = least(theirs, torch_seconds(args, height, width, train=False))
        mine = least(mine, ours(codec, image, args.repeats))
    print(f"jax {jax.__version__}, {args.model}, {width} x {height}")
    print(f"matrix product: {1e-9 * rate.value:.0f} GFLOP/s ({rate.library})\n")
    print(f"{'whole':<24}{'s':>8}{'PyTorch g_a / g_s s':>22}{'PyTorch / ours':>16}")
    for part, transform in (("compress", "g_a"), ("decompress", "g_s")):
        other = theirs.get(transform)
        ratio = f"{other:>22.2f}{other / mine[part]:>16.2f}" if other else ""
        print(f"{part:<24}{mine[part]:>8.2f}{ratio}")
    print(f"\n{'networks':<24}{'s':>8}{'GMACs':>8}{'product s':>11}{'ours / product':>16}")
    for part, count in macs.items():
        product = 2 * count / rate.value
        print(
            f"{part:<24}{mine[part]:>8.2f}{count / 1e9:>8.0f}{product:>11.2f}"
            f"{mine[part] / product:>16.2f}"
        )


if __name__ == "__main__":
    main()

"""What a codec needs over each published one, at every rate: a mean (BD-rate) hides where it loses.

    python eval.py --data_dir KODAK --output RESULTS
    python benchmarks/by_rate.py RESULTS/summary.json

Rates are compared at equal PSNR, at equal steps of PSNR between the two that our codec has at the
lowest and the highest rate asked for; a curve that begins later or ends sooner is compared where it
is. Piecewise cubic interpolation.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from llic_jax.evaluation import published, results
from llic_jax.metrics import bd_rate as rd


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("summary", type=Path, help="eval.py's summary.json")
    parser.add_argument("--codec", help="ours (default: the first in it)")
    parser.add_argument("--dataset", default="kodak", help="of the published curves")
    parser.add_argument("--rates", type=float, nargs=2, default=[0.1, 1.0], help="bits per pixel")
    parser.add_argument("--points", type=int, default=7)
    args = parser.parse_args()
    means = json.loads(args.summary.read_text())["codecs"]
    name = args.codec or next(iter(means))
    curves = {}
    for codec, group in means.items():
        points = results.points(group)
        curves[codec] = rd.Curve(codec, points.rates, points.quality)
    own = curves.pop(name)
    for codec, entry in published.curves(args.dataset).items():
        curves[f"{codec}, published"] = entry.curve()
    ends = np.interp(np.log(args.rates), own.log_rates, own.quality)
    print(f"bits of {name} over each codec (%), {args.rates[0]:g} to {args.rates[1]:g} bpp of ours")
    for codec, curve in curves.items():
        psnr, saved = rd.rate_saving(curve, own, "pchip", samples=400)
        at = np.linspace(max(psnr[0], ends[0]), min(psnr[-1], ends[1]), args.points)
        line = " ".join(f"{more:+7.1f}" for more in -np.interp(at, psnr, saved))
        print(f"{codec:36} {at[0]:5.2f} .. {at[-1]:5.2f} dB {line}")


if __name__ == "__main__":
    main()

"""Draws README's picture: rate and PSNR on Kodak, the released model beside published curves.

    python benchmarks/readme_picture.py docs/pictures/kodak.svg

The points of the released model are those of its model card, which `eval.py` measured.
"""

import argparse
import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from llic_jax.evaluation import published
from llic_jax.report import plots
from llic_jax.zoo.folder import DEFAULT_FOLDER

# As they are named in the picture.
OTHERS = {
    "MLIC++": "MLIC++",
    "VTM-17.0 (calibrated)": "VTM-17.0",
    "cheng2020-anchor": "cheng2020-anchor",
    "AV1": "AV1",
    "BPG 4:4:4": "BPG 4:4:4",
    "WebP": "WebP",
    "JPEG 2000": "JPEG 2000",
    "JPEG": "JPEG",
}
WIDEST, LOWEST, HIGHEST = 1.05, 24.0, 40.0  # bits per pixel; dB
APART = 0.62  # dB between two names, at least


def released_points(card: str) -> list[tuple[float, float]]:
    """Bits per pixel and PSNR of each quality in a model card's table."""
    rows = re.findall(r"^\| llic\w+ \| [\d.]+ \| ([\d.]+) \| ([\d.]+) \|", card, re.MULTILINE)
    if not rows:
        raise ValueError("The model card has no table of this model's rates.")
    return [(float(bpp), float(psnr)) for bpp, psnr in rows]


def apart(heights: list[float], least: float) -> list[float]:
    """Heights in the same order, from high to low, that are at least so far from each other."""
    order = sorted(range(len(heights)), key=lambda i: -heights[i])
    clusters: list[list[int]] = []
    centres: list[float] = []
    for i in order:
        clusters.append([i])
        centres.append(heights[i])
        while len(clusters) > 1:  # clusters that overlap become one, in the middle of their members
            room = least * (len(clusters[-1]) + len(clusters[-2])) / 2
            if centres[-2] - centres[-1] >= room:
                break
            last = clusters.pop()
            clusters[-1] += last
            centres.pop()
            centres[-1] = sum(heights[j] for j in clusters[-1]) / len(clusters[-1])
    found = [0.0] * len(heights)
    for members, centre in zip(clusters, centres, strict=True):
        for k, i in enumerate(members):
            found[i] = centre + least * ((len(members) - 1) / 2 - k)
    return found


def end_of(rates: Sequence[float], psnr: Sequence[float]) -> tuple[float, float, float]:
    """Where a line leaves the picture or ends, and its height at the right border.

    A line that ends before goes on as straight, over the logarithm of the rate, as its last part.
    """
    x, last = np.log(rates), math.log(WIDEST)
    if x[-1] >= last:
        height = float(np.interp(last, x, psnr))
        return WIDEST, height, height
    slope = (psnr[-1] - psnr[-2]) / (x[-1] - x[-2])
    return rates[-1], psnr[-1], float(psnr[-1] + slope * (last - x[-1]))


def plot() -> Figure:
    """The picture."""
    with plots.style():
        figure, axes = plots.grid(7.6, 4.4)
        ax = axes[0, 0]
        known = published.curves("kodak")
        curves = {label: known[name].curve() for name, label in OTHERS.items()}
        ends = []  # name, end of its line, colour, weight
        for label, curve in curves.items():
            colour = plots.INK if label == "VTM-17.0" else plots.MUTED
            ax.plot(curve.rates, curve.quality, color=colour, lw=1.2)
            ends.append((label, *end_of(curve.rates, curve.quality), colour, "normal"))
        rates, psnr = zip(*released_points((DEFAULT_FOLDER / "README.md").read_text()), strict=True)
        ax.plot(rates, psnr, "-o", color=plots.OURS[0], lw=2.6, ms=5, zorder=5)
        ends.append(("llic_jax, released", *end_of(rates, psnr), plots.OURS[0], "bold"))
        heights = apart([end[3] for end in ends], APART)
        for (label, bpp, end, _, colour, weight), height in zip(ends, heights, strict=True):
            ax.annotate(
                label,
                (bpp, end),
                (WIDEST + 0.035, height),
                color=colour,
                weight=weight,
                fontsize=9,
                va="center",
                annotation_clip=False,
                arrowprops={"arrowstyle": "-", "color": "#b8c0c8", "lw": 0.8, "shrinkB": 2},
            )
        ax.set(xlim=(0, WIDEST), ylim=(LOWEST, HIGHEST))
        ax.set(xlabel="bits per pixel", ylabel="PSNR (dB)")
        ax.set_title("Kodak, 24 images: the upper left is better")
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path, help="SVG or PNG")
    args = parser.parse_args()
    with plots.style():
        plot().savefig(
            args.output,
            dpi=160,
            metadata={"Date": None} if args.output.suffix == ".svg" else None,
            bbox_inches="tight",
        )


if __name__ == "__main__":
    main()

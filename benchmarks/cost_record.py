"""What each release cost in training, and what it came to: the table and plot of docs/results.md.

    python benchmarks/cost_record.py --plot docs/pictures/cost.svg

`cost_record.json` has the cost of each release, all releases before it included, added up from the
table of its runs in docs/results.md; the registry has its BD-rate over VTM-17.0 on Kodak. PFLOP are
6 per multiplication and pixel, forward and backward, as if every step had trained everything: at
most so many.
"""

import argparse
import json
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from llic_jax.report import plots
from llic_jax.zoo.registry import REGISTRY

RECORD = Path(__file__).with_suffix(".json")


def rows() -> list[dict[str, float]]:
    """Our releases, from the first to the last; rows of the table."""
    models = {model["name"]: model for model in json.loads(REGISTRY.read_text())["models"]}
    found, pflop, gigapixels = [], 0.0, 0.0
    for entry in json.loads(RECORD.read_text())["ours"]:
        new = entry["gigapixels"] - gigapixels
        gigapixels, pflop = entry["gigapixels"], pflop + 6 * entry["kmacs"] * new / 1e3
        model = models[entry["model"]]
        found.append({**entry, "pflop": pflop, "steps": model["steps"]})
        found[-1]["bd_rate"] = model["bd_rate_over_vtm"]
    return found


def plot() -> Figure:
    """BD-rate over crops, ours and others'."""
    figure, axes = plots.grid(7.0, 4.0)
    ax = axes.flat[0]
    ours = rows()
    ax.plot(
        [row["crops"] for row in ours[:-1]],
        [row["bd_rate"] for row in ours[:-1]],
        color=plots.OURS[0], marker="o", ms=4, lw=2, label="LLIC-ELIC small, every rate",
    )  # fmt: skip
    last = ours[-1]
    label = "with drawings among the crops"
    ax.plot(last["crops"], last["bd_rate"], "s", color=plots.OURS[1], ms=5, label=label)
    for other in json.loads(RECORD.read_text())["others"]:
        ax.plot(
            other["crops"], other["bd_rate_over_vtm"],
            color=plots.INK, ls="--", marker=".", label=f"{other['name']}, one rate",
        )  # fmt: skip
    ax.axhline(0, color=plots.MUTED, lw=0.8)
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter(FuncFormatter(lambda crops, _: f"{crops / 1e6:g} million"))
    ax.set_xlabel("crops seen in training (ours of 128 to 384 pixels)")
    ax.set_ylabel("BD-rate over VTM-17.0, Kodak (%)")
    ax.legend()
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plot", type=Path, help="also draws the plot into this file (SVG)")
    args = parser.parse_args()
    print(
        "| release | steps | crops | gigapixels | PFLOP, at most | accelerator minutes | over VTM |"
    )
    print("|---|--:|--:|--:|--:|--:|--:|")
    for row in rows():
        print(
            f"| {row['model']} | {row['steps']:,} | {row['crops']:,} | {row['gigapixels']:.2f} | "
            f"{row['pflop']:.1f} | {row['accelerator_minutes']} | {row['bd_rate']:+.1f} % |"
        )
    for other in json.loads(RECORD.read_text())["others"]:
        for crops, bd_rate in zip(other["crops"], other["bd_rate_over_vtm"], strict=True):
            print(f"| {other['name']} | | {int(crops):,} | | | | {bd_rate:+g} % |")
    if args.plot:
        with plots.style():
            plot().savefig(args.plot)


if __name__ == "__main__":
    main()

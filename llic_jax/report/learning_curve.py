"""Draws a training run's learning curve: `python -m llic_jax.report.learning_curve RUN curve.svg`.

Above the loss, below rate and PSNR, all over steps: what was logged while training (faint, single
batches) and validation on held-out images (strong).
"""

import argparse
import sys
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from llic_jax.errors import NoMetricsError
from llic_jax.report import plots
from llic_jax.system.streams import run_command
from llic_jax.training.log import read_metrics

_PANELS = {"loss": "loss", "bpp": "rate (bpp)", "psnr": "PSNR (dB)"}


def learning_curve(run: str | Path) -> Figure:
    """Draws one run.

    Args:
      run: The run's folder.

    Returns:
      The figure: loss, rate and PSNR over steps.

    Raises:
      NoMetricsError: The folder holds no figures.
    """
    try:
        entries = {kind: read_metrics(run, kind) for kind in ("train", "validation")}
    except OSError as error:
        raise NoMetricsError(f"{run} is no training run: {error}") from error
    if not entries["train"]:
        raise NoMetricsError(f"{run} has no figures yet; train.log_every steps come first.")
    figure, axes = plots.grid(7.0, 7.0, rows=len(_PANELS))
    for ax, (name, label) in zip(axes.flat, _PANELS.items(), strict=True):
        for kind, width, alpha in (("train", 0.8, 0.35), ("validation", 2.0, 1.0)):
            present = [entry for entry in entries[kind] if name in entry]
            if present:
                steps, values = zip(*((e["step"], e[name]) for e in present), strict=True)
                marker = "o" if kind == "validation" else ""
                ax.plot(
                    steps,
                    values,
                    color=plots.OURS[0],
                    lw=width,
                    alpha=alpha,
                    marker=marker,
                    ms=3,
                    label=kind if kind == "train" else "validation (held out)",
                )
        ax.set_ylabel(label)
        if name != "psnr":
            ax.set_yscale("log")
            ax.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
            ax.yaxis.set_major_formatter(plots.PLAIN)
            ax.yaxis.set_minor_formatter(NullFormatter())
        if held_out := [entry[name] for entry in entries["validation"] if name in entry]:
            # Single batches are of single qualities: they may leave the picture.
            low, high = min(held_out), max(held_out)
            ax.set_ylim(*((low - 2, high + 2) if name == "psnr" else (low / 1.3, high * 1.3)))
        ax.set_xlim(0, max(entry["step"] for kind in entries.values() for entry in kind))
    axes.flat[0].legend()
    axes.flat[-1].set_xlabel("step")
    return figure


def main(argv: list[str] | None = None) -> int:
    """Draws a run's learning curve into a file.

    Args:
        argv: The command line; that of the process by default.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(
        prog="python -m llic_jax.report.learning_curve", description="Draws a run's learning curve."
    )
    parser.add_argument("run", type=Path, help="the training run")
    parser.add_argument("file", type=Path, help="picture to write, .svg or .png")
    args = parser.parse_args(argv)

    def work() -> None:
        with plots.style():
            learning_curve(args.run).savefig(args.file, dpi=150)
        print(args.file)

    return run_command("llic_jax.report.learning_curve", work)


if __name__ == "__main__":
    sys.exit(main())

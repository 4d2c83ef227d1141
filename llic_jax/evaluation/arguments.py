"""What is measured, as arguments of a command line. Loads neither JAX nor NumPy."""

import argparse
from pathlib import Path

from llic_jax.system.arguments import not_negative
from llic_jax.system.files import path_argument


def add_measured(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments that name images, models, qualities, other codecs and the output.

    Args:
        parser: Of a command that measures.
    """
    add = parser.add_argument
    add("--data_dir", nargs="+", default=[], help="folders and files (default: scikit-image's)")
    add("--dataset", help="kodak, clic_pro_valid or tecnick: from --data_dir, or else fetched")
    add(
        "--held_back", type=_held_back, default=0, metavar="N|FILE",
        help="evaluate only the N images of --data_dir that training with data.held_back=N leaves "
        "out; or those that a run's held_back.json names, which stay when images are added",
    )  # fmt: skip
    add(
        "--checkpoint", nargs="+", type=path_argument,
        help="released folders (default: the built-in model)",
    )  # fmt: skip
    add("--quality", type=float, nargs="+", help="default: every level")
    add(
        "--effort", type=not_negative, nargs="+", default=[0], metavar="N",
        help="refine the latents of each image with N gradient steps; a curve for each N",
    )  # fmt: skip
    add("--coder", help="range coder: tfc or constriction (default: the first that is installed)")
    add(
        "--codecs", nargs="*",
        help="compare with: jpeg jpeg2000 webp avif avif-slow avif-default jpegxl (default: all)",
    )  # fmt: skip
    add(
        "--output", type=path_argument, default=Path("results"),
        help="a folder (default: ./results); what is measured there already is not measured again",
    )  # fmt: skip


def _held_back(text: str) -> int | Path:
    return int(text) if text.lstrip("-").isdigit() else path_argument(text)

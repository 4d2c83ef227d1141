"""Releases a trained model: the folder that a codec is loaded from.

    python -m llic_jax.release WORKDIR FOLDER    # makes all of it from a training run
    python -m llic_jax.release FOLDER            # makes the card and the golden file anew

What is in the folder: `zoo/folder.py`.
"""

import argparse
import sys
from pathlib import Path

from llic_jax.system.streams import run_command
from llic_jax.training.export import export_run
from llic_jax.zoo.card import read_summary
from llic_jax.zoo.golden import complete


def main(argv: list[str] | None = None) -> int:
    """Releases the weights of a training run, or completes a released folder.

    Args:
        argv: The command line; that of the process by default.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(
        prog="python -m llic_jax.release",
        description="Writes a training run's last moving average as a released folder; or, without "
        "a run, the model card and the golden file of a released folder anew.",
    )
    parser.add_argument("workdir", type=Path, nargs="?", help="the training run")
    parser.add_argument("folder", type=Path, help="the released model")
    parser.add_argument("--step", type=int, help="of the checkpoint (default: the last)")
    parser.add_argument(
        "--mean", type=Path, nargs="+", default=[], help="released folders to take the mean with"
    )
    parser.add_argument("--summary", type=Path, help="eval.py's summary.json, for the card")
    parser.add_argument("--coder", help="of the golden file: one that every user will have")
    args = parser.parse_args(argv)

    def work() -> None:
        if args.workdir is not None:
            export_run(args.workdir, args.folder, args.step, args.mean)
        summary = read_summary(args.summary) if args.summary else None
        codec = complete(args.folder, summary, args.coder)
        print(f"{args.folder}: model {codec.fingerprint.hex()}")

    return run_command("llic_jax.release", work)


if __name__ == "__main__":
    sys.exit(main())

"""Evaluates a codec on real files: `python eval.py --data_dir FOLDER --checkpoint RELEASED_FOLDER`.

Without arguments: the released model on photographs that scikit-image ships.
"""

import argparse
import sys
from pathlib import Path


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data_dir", type=Path, help="folder of images (default: scikit-image's)")
    parser.add_argument("--checkpoint", type=Path, help="released folder (default: the built-in)")
    parser.add_argument("--quality", type=float, nargs="+", help="default: every level")
    parser.add_argument("--coder", help="range coder: tfc or constriction (default: the first there)")
    parser.add_argument("--output", type=Path, default=Path("results"), help="default: ./results")
    parser.add_argument("--save_images", action="store_true", help="keep the decoded images")
    args = parser.parse_args(argv)

    from llic_jax import evaluation, release
    from llic_jax.errors import LlicError

    try:
        codec = release.load_codec(args.checkpoint or release.DEFAULT, args.coder)
        evaluation.run(codec, args.data_dir, args.quality, args.output, args.save_images)
    except LlicError as error:
        print(f"eval.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

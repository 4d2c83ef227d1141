"""Evaluates a codec on real files and writes a report: `python eval.py --data_dir FOLDER`.

Without arguments: the released model on photographs that scikit-image ships.
"""

import argparse
import shlex
import sys
from pathlib import Path

from llic_jax.files import path_argument, print_any_name


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--data_dir", nargs="+", default=[], help="folders and files (default: scikit-image's)")
    add("--dataset", help="kodak, clic_pro_valid or tecnick: from --data_dir, or else fetched")
    add("--held_back", type=int, default=0, help="of that folder, only what training left out of N")
    add(
        "--checkpoint",
        nargs="+",
        type=path_argument,
        help="released folders (default: the built-in model)",
    )
    add("--quality", type=float, nargs="+", help="default: every level")
    add("--effort", type=int, nargs="+", default=[0], help="steps of refining, a curve for each")
    add("--coder", help="range coder: tfc or constriction (default: the first there)")
    add("--codecs", nargs="*", help="compare with: jpeg jpeg2000 webp avif jpegxl (default: all)")
    add(
        "--output",
        type=path_argument,
        default=Path("results"),
        help="default: ./results; goes on there",
    )
    add("--workers", type=int, default=1, help="processes (more than one: times mean less)")
    add("--save_images", action="store_true", help="keep the decoded images")
    add("--no_inspection", action="store_true", help="leave out crops and the inside of the model")
    add("--bd_method", default="pchip", help="pchip, spline, or polynomial (the older cubic)")
    print_any_name()
    args = parser.parse_args(argv)
    from llic_jax import allocation

    allocation.keep_freed_memory()
    from llic_jax import compilation_cache, evaluation, release
    from llic_jax.errors import LlicError

    compilation_cache.enable()
    try:
        evaluation.run(
            args.checkpoint or [release.DEFAULT],
            args.output,
            data_dir=args.data_dir,
            dataset=args.dataset,
            held_back=args.held_back,
            qualities=args.quality,
            coder=args.coder,
            efforts=args.effort,
            codecs=args.codecs,
            workers=args.workers,
            save_images=args.save_images,
            inspect=not args.no_inspection,
            method=args.bd_method,
            command=shlex.join(["python", "eval.py", *(sys.argv[1:] if argv is None else argv)]),
        )
    except LlicError as error:
        print(f"eval.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("eval.py: interrupted; measured figures are kept", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())

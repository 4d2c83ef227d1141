"""Evaluates a codec on real files and writes a report: `python eval.py --data_dir FOLDER`.

`python -m llic_jax.evaluate` does the same without a clone. Without arguments: the
released model on photographs that scikit-image ships.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence

from llic_jax.errors import LlicError
from llic_jax.evaluation.arguments import add_measured
from llic_jax.system import streams
from llic_jax.system.arguments import positive
from llic_jax.system.extras import install_command
from llic_jax.system.files import print_any_name


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the evaluation that the command line names.

    Args:
      argv: The arguments (default: those of the process).

    Returns:
      The exit status: 0, 1 for an error, 130 if interrupted.
    """
    print_any_name()
    argv = sys.argv[1:] if argv is None else list(argv)

    def work() -> None:
        _evaluate(_parser().parse_args(argv), shlex.join(["python", "eval.py", *argv]))

    return streams.run_command("eval.py", work)


def _evaluate(args: argparse.Namespace, command: str) -> None:
    # Heavy imports wait until they are needed: --help answers at once.
    from llic_jax.system.memory import keep_freed_memory

    keep_freed_memory()
    from llic_jax.evaluation import measure
    from llic_jax.evaluation import results as records
    from llic_jax.evaluation import trials as evaluation
    from llic_jax.evaluation.image_sets import load_images
    from llic_jax.evaluation.output import Output
    from llic_jax.execution import program_cache

    try:
        from llic_jax.report.report import ReportOptions, write_report
    except ModuleNotFoundError as error:  # jinja2 or matplotlib
        raise LlicError(
            f"The report needs {error.name}, which is not installed: "
            f"`{install_command('eval')}` brings it."
        ) from error
    from llic_jax.system.files import write_json
    from llic_jax.zoo.folder import DEFAULT_FOLDER

    program_cache.enable()
    images = load_images(args.data_dir, args.dataset, args.held_back)
    trials = evaluation.trials(
        args.checkpoint or [DEFAULT_FOLDER],
        qualities=args.quality,
        coder=args.coder,
        refinements=args.effort,
        codecs=args.codecs,
    )
    output = Output(args.output, images, args.save_images)
    results = measure.measure(trials, images, output, args.workers)
    print(records.table(results))
    summary = output.folder / "summary.json"
    figures = measure.summary(results, images, args.workers)
    write_json(summary, figures)
    options = ReportOptions(not args.no_inspection, args.bd_method, command, args.workers)
    report = write_report(results, images, trials, output, options)
    print(f"figures: {output.results.path}, {summary}\nreport: {report}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="eval.py", description=__doc__)
    add = parser.add_argument
    add_measured(parser)
    add(
        "--workers", type=positive, default=1,
        help="processes (default: 1; with more, they slow each other down, and times mean less)",
    )  # fmt: skip
    add("--save_images", action="store_true", help="keep the decoded images")
    add("--no_inspection", action="store_true", help="leave out crops and the inside of the model")
    add(
        "--bd_method", default="pchip", choices=("pchip", "spline", "polynomial"),
        help="interpolation of BD-rates; polynomial is the older cubic (default: pchip)",
    )  # fmt: skip
    return parser


if __name__ == "__main__":
    sys.exit(main())

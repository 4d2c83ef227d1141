"""`python -m llic_jax.pipelines prepare | compress | evaluate`.

Arguments that are not these commands' own go to Apache Beam: `--runner`, `--direct_num_workers` and
all others of its runners. They come last.
"""

import argparse
import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from llic_jax.errors import PipelineError
from llic_jax.evaluation.arguments import add_measured
from llic_jax.pipelines.work import State, Step, Summary
from llic_jax.system.arguments import above_zero, positive
from llic_jax.system.extras import install_command
from llic_jax.system.files import path_argument, print_any_name
from llic_jax.system.streams import run_command

_EXAMPLES = """\
examples:
  python -m llic_jax.pipelines prepare PHOTOS RECORDS --reduce 1.5 --direct_num_workers 4
  python -m llic_jax.pipelines compress PHOTOS FILES --quality 4
  python -m llic_jax.pipelines evaluate --data_dir PHOTOS --output RESULTS
  python -m llic_jax.pipelines compress PHOTOS FILES --runner FlinkRunner --flink_master HOST:PORT

The same command again does what is missing. Beam's own options come last; without --runner the
work is done on this machine, by --direct_num_workers processes (default: one for each core).
"""
# For work on this machine, where nothing else is named.
_LOCAL = {
    "--direct_running_mode": "multi_processing",
    "--direct_num_workers": str(os.cpu_count() or 1),
    "--default_sdk_harness_log_level": "ERROR",
}


@runtime_checkable
class Plan(Protocol):
    """Work that a command has planned."""

    @property
    def state(self) -> State:
        """Of the runs."""

    @property
    def steps(self) -> list[Step]:
        """What is to be done, in order."""

    def summary(self) -> Summary:
        """What the outputs hold."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
        argv: The arguments (default: those of the process).

    Returns:
        The exit status: 0 if the work is complete, 1 if not, 130 if interrupted.
    """
    print_any_name()

    def work() -> int:
        args, flags = _parser().parse_known_args(argv)
        logging.basicConfig(format="%(message)s")
        return _run(args, flags)

    return run_command("llic_jax.pipelines", work)


def _run(args: argparse.Namespace, flags: Sequence[str]) -> int:
    beam = _beam()
    options = beam.checked_options(local_defaults(flags))
    plan: Plan = args.plan(args)
    counts = beam.run(plan.steps, plan.state, options)
    summary = plan.summary()
    if args.json:
        fields = {
            "found": summary.found,
            "counted": dict(summary.counted),
            **summary.more,
            "missing": summary.missing,
            "this_run": dict(counts),
            "skipped": {one.name: [one.kind, one.message] for one in summary.skipped},
        }
        print(json.dumps(fields))
    else:
        print(table(summary, counts))
    if summary.missing:
        print(
            f"llic_jax.pipelines: {summary.missing} of {summary.found} files are missing from the "
            "output. The same command does them.",
            file=sys.stderr,
        )
    return 1 if summary.missing else 0


def _beam() -> Any:
    """The module that imports Apache Beam."""
    level = logging.root.level
    try:
        # It warns, when it is imported, of what Google's services alone need.
        logging.root.setLevel(logging.ERROR)
        from llic_jax.pipelines import beam
    except ModuleNotFoundError as error:
        if error.name != "apache_beam":
            raise
        raise PipelineError(
            f"This needs Apache Beam, which is not installed: `{install_command('beam')}` "
            "brings it, into an environment of its own (docs/many_machines.md)."
        ) from error
    finally:
        logging.root.setLevel(level)
    return beam


def local_defaults(flags: Sequence[str]) -> list[str]:
    """Beam's flags, completed for work on this machine: processes, one for each core.

    Args:
        flags: As given. With a `--runner` they stay as they are.
    """
    names = {flag.partition("=")[0] for flag in flags}
    if "--runner" in names:
        return list(flags)
    return [*flags, *(f"{name}={value}" for name, value in _LOCAL.items() if name not in names)]


def table(summary: Summary, counts: dict[str, int]) -> str:
    """The counters as text: of the whole output, and of this run.

    Args:
        summary: Of the output.
        counts: Of this run.
    """
    rows = [("", "in all", "this run"), ("found", str(summary.found), "")]
    names = [*summary.counted, *summary.more]
    names += [name for name in counts if name not in names]
    every = {**summary.counted, **summary.more}
    for name in names:
        rows.append((name.replace("_", " "), str(every.get(name, "")), str(counts.get(name, 0))))
    if summary.missing:
        rows.append(("missing", str(summary.missing), ""))
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    lines = [f"{a:<{widths[0]}}  {b:>{widths[1]}}  {c:>{widths[2]}}".rstrip() for a, b, c in rows]
    listed = [f"{one.name}: {one.message}" for one in summary.skipped[:20]]
    if more := len(summary.skipped) - len(listed):
        listed.append(f"and {more} more; --json lists all")
    return "\n".join([*lines, *(["", *listed] if listed else [])])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="llic_jax.pipelines",
        description="Prepares, compresses or evaluates many photographs with Apache Beam.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_prepare(commands.add_parser("prepare", allow_abbrev=False, help="array records"))
    _add_compress(commands.add_parser("compress", allow_abbrev=False, help=".llic files"))
    _add_evaluate(commands.add_parser("evaluate", allow_abbrev=False, help="figures of eval.py"))
    for command in commands.choices.values():
        command.add_argument("--json", action="store_true", help="print one object of JSON")
    return parser


def _add_prepare(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "source", metavar="PHOTOS",
        help="folders of photographs, with commas in between; all folders below them, too",
    )  # fmt: skip
    add("output", metavar="RECORDS", type=path_argument, help="a folder for the shards")
    add("--name", default="photographs", help="what the shards' names begin with")
    add("--shards", type=positive, help="files (default: one for about 128 photographs)")
    add(
        "--least", type=positive, default=256, metavar="PIXELS",
        help="shorter side that a photograph must have; reducing stops there (default: 256)",
    )  # fmt: skip
    add(
        "--reduce", type=above_zero, default=1.0, metavar="FACTOR",
        help="reduce by Lanczos, which removes artefacts of JPEG sources (default: 1, not at all)",
    )  # fmt: skip
    add(
        "--max_pixels", type=positive, default=1 << 28, metavar="N",
        help="leave out larger photographs (default: 2^28)",
    )  # fmt: skip
    add(
        "--no_drawings", dest="drawings", action="store_false",
        help="leave out what looks like a drawing, a screenshot or a pattern",
    )  # fmt: skip
    add(
        "--format", default="webp", choices=("webp", "png", "avif", "jpeg"),
        help="of the records: webp and png are lossless without --quality (default: webp)",
    )  # fmt: skip
    add("--quality", type=positive, metavar="Q", help="of avif, jpeg, or lossy webp, 1 to 100")
    parser.set_defaults(plan=_prepare)


def _prepare(args: argparse.Namespace) -> Plan:
    from llic_jax.pipelines import prepare
    from llic_jax.pipelines.selection import Selection

    whole = Path(args.source).expanduser()
    parts = [whole] if whole.is_dir() else [path_argument(p) for p in args.source.split(",")]
    selection = Selection(
        args.least, args.reduce, args.max_pixels, args.drawings, args.format, args.quality
    )
    prepare.check_output(args.output)
    sources = [part.absolute() for part in parts]
    return prepare.Preparation.begin(
        sources, args.output.absolute(), args.name, args.shards, selection
    )


def _add_compress(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("source", metavar="PHOTOS", type=path_argument, help="a folder, with all below it")
    add("output", metavar="FILES", type=path_argument, help="a folder for the .llic files")
    add("--model", help="name or folder of a released model (default: the recommended one)")
    rate = parser.add_mutually_exclusive_group()
    rate.add_argument("--quality", type=float, metavar="Q", help="default: the middle")
    rate.add_argument("--target_bpp", type=above_zero, metavar="BITS", help="bits per pixel")
    rate.add_argument("--target_psnr", type=above_zero, metavar="DB", help="PSNR, dB")
    add("--keep_exif", action="store_true", help="keep EXIF, XMP and resolution")
    add("--to_8bit", action="store_true", help="convert images of more than 8 bits a channel")
    add("--strict_llic", action="store_true", help="code drawings by the networks, too")
    add("--memory_gb", type=above_zero, default=4.0, metavar="GIB", help="for one image")
    parser.set_defaults(plan=_compress)


def _compress(args: argparse.Namespace) -> Plan:
    from llic_jax.pipelines.compress import Coding, Compression

    coding = Coding(
        args.model,
        args.quality,
        args.target_bpp,
        args.target_psnr,
        args.keep_exif,
        args.to_8bit,
        args.strict_llic,
        args.memory_gb,
    )
    return Compression.begin(args.source.absolute(), args.output.absolute(), coding)


def _add_evaluate(parser: argparse.ArgumentParser) -> None:
    add_measured(parser)
    parser.set_defaults(plan=_evaluate)


def _evaluate(args: argparse.Namespace) -> Plan:
    from llic_jax.pipelines.evaluate import Evaluation, Measured

    def fixed(values: Sequence | None) -> tuple | None:
        return None if values is None else tuple(values)

    checkpoints = [Path(folder).absolute() for folder in args.checkpoint or ()]
    measured = Measured(
        tuple(checkpoints), fixed(args.quality), args.coder, tuple(args.effort), fixed(args.codecs)
    )
    output = args.output.absolute()
    return Evaluation.begin(args.data_dir, args.dataset, args.held_back, output, measured)

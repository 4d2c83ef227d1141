"""The command line: `llic compress`, `decompress`, `info`, `compare`, `models`.

This module and `info` load neither JAX nor NumPy: `--help` and `llic info` answer at once.
"""

import argparse
import contextlib
import logging
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence

from llic_jax.cli.arguments import PrintCompletion, underscored
from llic_jax.cli.info import info
from llic_jax.cli.models import add, list_models, restore
from llic_jax.system import files
from llic_jax.system.arguments import above_zero, effort, positive, seconds
from llic_jax.system.streams import run_command

_EXIT_STATUS = """\
exit status:
  0    every file went through
  1    a file failed, or the arguments do not go together; the rest was done
  2    bad usage
  130  interrupted (Ctrl-C); no half-written file is left
"""

_EXAMPLES = """\
examples:
  llic compress photo.jpg                     writes photo.llic beside it
  llic decompress photo.llic photo.png
  llic compress photos/ compressed/           a folder with all below it
  llic info compressed/*.llic
  llic compare photo.jpg                      a page: LLIC, JPEG, WebP, AVIF, JPEG XL
  eval "$(llic --print-completion bash)"      options complete at TAB

Options may be written with hyphens or underscores.
"""

_COMPRESS_EXAMPLES = """\
examples:
  llic compress photo.png                     writes photo.llic beside it
  llic compress --quality 6 a.jpg b.png compressed/
  llic compress --target-bpp 0.5 --psnr photo.png -o small.llic
  llic compress --json *.jpg                  a line of JSON for each file
  llic compress --skip_existing photos/ compressed/
  curl -s URL | llic compress - - > photo.llic
"""

_DECOMPRESS_EXAMPLES = """\
examples:
  llic decompress photo.llic                  writes photo.png beside it
  llic decompress photo.llic photo.jpg
  llic decompress --format webp compressed/ photos/
  llic decompress photo.llic - --format jpg | display -
  head -c 9000 photo.llic | llic decompress --preview - preview.png
"""

_INFO_EXAMPLES = """\
examples:
  llic info photo.llic
  llic info --json compressed/*.llic | jq .bpp
  cat photo.llic | llic info -
"""

_COMPARE_EXAMPLES = """\
examples:
  llic compare photo.jpg                      at equal size of file, opened in the browser
  llic compare photo.jpg --quality 2 --equal psnr
  llic compare *.png -o page.html --codecs JPEG AVIF --no-open
"""

_MODELS_EXAMPLES = """\
examples:
  llic models
  llic models add runs/released
  llic models restore llic-elic-small-9 --from ~/llic_jax
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
        argv: The arguments after the program's name; those of the process by default.

    Returns:
        The exit status: 0 if every file went through, 1 if not, 130 after an interrupt.

    Raises:
        SystemExit: With status 2 for bad usage, 0 for `--help`.
    """
    files.print_any_name()

    def work() -> int:
        args = _arguments(underscored(sys.argv[1:] if argv is None else argv))
        _log(getattr(args, "loudness", 0))
        try:
            return args.command(args)
        except KeyboardInterrupt:
            return _interrupted()

    return run_command("llic", work)


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Parses the arguments; names may stand between options."""
    parser = _parser()
    args, more = parser.parse_known_args(argv)
    unknown = [name for name in more if name.startswith("-") and name != "-"]
    if unknown or (more and "names" not in args):
        parser.error(f"unrecognized arguments: {' '.join(unknown or more)}")
    if more:
        args.names += more
    return args


def _log(loudness: int) -> None:
    """What the package logs goes to standard error: warnings; with -v, more; with -q, errors."""
    logging.basicConfig(format="llic: %(message)s")
    level = {-1: logging.ERROR, 0: logging.WARNING, 1: logging.INFO}[loudness]
    logging.getLogger("llic_jax").setLevel(level)


def _interrupted() -> int:
    """Ends at once: a worker may be inside a program that takes minutes and cannot be stopped."""
    with contextlib.suppress(ValueError):  # not the main thread
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # once is enough
    files.discard_unfinished()
    print("llic: interrupted", file=sys.stderr)
    deadline = time.monotonic() + 0.2
    while any(thread.name.startswith("llic") for thread in threading.enumerate()):
        if time.monotonic() > deadline:
            sys.stderr.flush()
            files.discard_unfinished()
            os._exit(130)
        time.sleep(0.01)
    return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="llic",
        description="Compresses photographs with a learned codec (LLIC).",
        epilog=f"{_EXAMPLES}\n{_EXIT_STATUS}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    version = sys.modules["llic_jax"].__version__  # a room does not import what is above it
    parser.add_argument("--version", action="version", version=f"llic {version}")
    parser.add_argument(
        "--print_completion", action=PrintCompletion, choices=("bash", "zsh", "tcsh"),
        help="print a script that completes commands and options in a shell",
    )  # fmt: skip
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_compress(commands)
    _add_decompress(commands)
    show = _add_command(
        commands,
        info,
        "info",
        "show what the headers of .llic files say",
        "Shows size, quality and model of .llic files, and how the picture is coded. No model is "
        "loaded.",
        _INFO_EXAMPLES,
    )
    show.add_argument(
        "names", nargs="+", metavar="FILE",
        help="a .llic file, - for standard input",
    )  # fmt: skip
    show.add_argument("--json", action="store_true", help="print a line of JSON for each file")
    _add_compare(commands)
    _add_models(commands)
    return parser


def _add_command(
    commands: argparse._SubParsersAction,
    run: Callable[[argparse.Namespace], int],
    name: str,
    summary: str,
    description: str,
    examples: str,
) -> argparse.ArgumentParser:
    command = commands.add_parser(
        name,
        help=summary,
        description=description,
        epilog=f"{examples}\n{_EXIT_STATUS}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.set_defaults(command=run)
    return command


def _compress(args: argparse.Namespace) -> int:
    from llic_jax.cli.compress import compress

    return compress(args)


def _decompress(args: argparse.Namespace) -> int:
    from llic_jax.cli.decompress import decompress

    return decompress(args)


def _compare(args: argparse.Namespace) -> int:
    from llic_jax.cli.compare import compare

    return compare(args)


def _add_compress(commands: argparse._SubParsersAction) -> None:
    compress = _add_command(
        commands,
        _compress,
        "compress",
        "image files to .llic files",
        "Compresses PNG, JPEG, WebP, TIFF, AVIF and other image files to .llic files.",
        _COMPRESS_EXAMPLES,
    )
    _add_files(compress)
    chosen = compress.add_argument_group("rate (one of these)")
    rate = chosen.add_mutually_exclusive_group()
    rate.add_argument(
        "--quality", type=float, metavar="Q",
        help="1 to the model's levels, continuous (default: the middle)",
    )  # fmt: skip
    rate.add_argument(
        "--target_bpp", type=above_zero, metavar="BITS",
        help="the best quality within so many bits per pixel",
    )  # fmt: skip
    rate.add_argument(
        "--target_psnr", type=above_zero, metavar="DB",
        help="the smallest file that reaches this PSNR (dB)",
    )  # fmt: skip
    coding = compress.add_argument_group("coding")
    coding.add_argument(
        "--effort", type=effort, default=(0, math.inf), metavar="N",
        help="search each image's latents with N gradient steps, or for a time such as 30s: a "
        "smaller file at the same PSNR; at --target_bpp a higher PSNR. A step takes "
        "about as long as decompressing; Ctrl-C keeps the best so far (default: 0)",
    )  # fmt: skip
    coding.add_argument(
        "--effort_seconds", type=seconds, default=math.inf, metavar="S",
        help="the same as --effort Ss; with --effort N: no more than S seconds an image",
    )  # fmt: skip
    coding.add_argument("--coder", help="range coder: tfc or constriction (default: first there)")
    coding.add_argument(
        "--strict_llic", action="store_true",
        help="code every image with the network, also drawings, screenshots and patterns that it "
        "spoils or makes larger than lossless WebP",
    )  # fmt: skip
    coding.add_argument(
        "--progressive", action="store_true",
        help="put profile, alpha, metadata and a check of each step before the pixels: the first "
        "part of the file then shows them, and what it shows is checked (coder tfc)",
    )  # fmt: skip
    kept = compress.add_argument_group("input and report")
    kept.add_argument(
        "--exif", action="store_true",
        help="keep EXIF, XMP and resolution (they may tell where and who); comments are not kept",
    )  # fmt: skip
    kept.add_argument(
        "--to_8bit", action="store_true", help="convert images of more than 8 bits a channel"
    )
    kept.add_argument(
        "--psnr", action="store_true",
        help="print the PSNR of the decoded image, measured where alpha is not 0",
    )  # fmt: skip
    _add_resources(compress)


def _add_decompress(commands: argparse._SubParsersAction) -> None:
    decompress = _add_command(
        commands,
        _decompress,
        "decompress",
        ".llic files to image files",
        "Decompresses .llic files to image files; an output's suffix chooses its format.",
        _DECOMPRESS_EXAMPLES,
    )
    _add_files(decompress)
    decompress.add_argument(
        "--format",
        default="png",
        help="of images in a folder or stream: png, jpg, webp, tif, bmp, ppm (default: png)",
    )
    decompress.add_argument(
        "--preview", action="store_true",
        help="show what there is of a file that was cut or is still arriving",
    )  # fmt: skip
    _add_resources(decompress)


def _add_compare(commands: argparse._SubParsersAction) -> None:
    compare = _add_command(
        commands,
        _compare,
        "compare",
        "a page that shows photographs by several codecs",
        "Codes photographs with LLIC and with the codecs that people use, at equal size of file or "
        "equal PSNR, and makes one HTML page of them, with a slider between any two.",
        _COMPARE_EXAMPLES,
    )
    add = compare.add_argument
    add("names", nargs="+", metavar="PHOTO", help="an image file")
    add(
        "-o", "--output", type=files.path_argument, metavar="PAGE",
        help="the page (default: the first photograph's name with .compared.html, here)",
    )  # fmt: skip
    add("--force", action="store_true", help="replace a page that exists")
    add(
        "--quality", type=float, metavar="Q",
        help="of LLIC, 1 to the model's levels (default: the middle)",
    )  # fmt: skip
    add(
        "--equal", choices=("bytes", "psnr"), default="bytes",
        help="what the files have in common with LLIC's (default: bytes)",
    )  # fmt: skip
    add(
        "--codecs", nargs="+", default=["JPEG", "WebP", "AVIF (default tuning)", "JPEG XL"],
        metavar="CODEC", help="the others (default: JPEG, WebP, AVIF, JPEG XL)",
    )  # fmt: skip
    add(
        "--size", type=positive, default=1024, metavar="PIXELS",
        help="side of the part that the page shows (default: 1024)",
    )  # fmt: skip
    add("--checkpoint", metavar="MODEL", help="a model's name or folder (default: the recommended)")
    add(
        "--no_open", dest="open", action="store_false",
        help="leave the page closed; by default the browser opens it",
    )  # fmt: skip
    compare.set_defaults(loudness=0)


def _add_files(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "names", nargs="+", metavar="FILE",
        help="files, - for standard input, or folders with all below them; then the output, if it "
        "is not named by an option: a file, - for standard output, or a folder (for several "
        "inputs, or with a slash at its end; made if need be). Without an output, each file's lies "
        "beside it",
    )  # fmt: skip
    where = command.add_mutually_exclusive_group()
    where.add_argument("-o", "--output", metavar="FILE", help="the output")
    where.add_argument(
        "--output_dir", dest="output", type=lambda name: f"{name}/", metavar="FOLDER",
        help="a folder for all outputs, made if need be",
    )  # fmt: skip
    depth = command.add_mutually_exclusive_group()
    depth.add_argument(
        "-r", "--recursive", action="store_true", default=True,
        help="a folder stands for the folders in it, too (default)",
    )  # fmt: skip
    depth.add_argument("--no_recursive", action="store_false", dest="recursive", help="it does not")
    command.add_argument(
        "--checkpoint", metavar="MODEL",
        help="name or folder of a released model (default: the recommended one to compress, the "
        "one that wrote the file to decompress)",
    )  # fmt: skip
    group = command.add_argument_group("outputs that exist (an error by default)")
    existing = group.add_mutually_exclusive_group()
    existing.add_argument(
        "--force", action="store_const", dest="existing", const="replace", default="fail",
        help="replace them",
    )  # fmt: skip
    existing.add_argument(
        "--skip_existing", action="store_const", dest="existing", const="skip",
        help="leave them as they are, and make the rest",
    )  # fmt: skip
    said = command.add_argument_group("what is said")
    said.add_argument(
        "--dry_run", action="store_true", help="say what would become of each file, and make none"
    )
    said.add_argument("--json", action="store_true", help="print a line of JSON for each file")
    loudness = said.add_mutually_exclusive_group()
    loudness.add_argument(
        "-q", "--quiet", action="store_const", dest="loudness", const=-1, default=0,
        help="errors only",
    )  # fmt: skip
    loudness.add_argument(
        "-v", "--verbose", action="store_const", dest="loudness", const=1,
        help="also the model, the device, and where programs are kept",
    )  # fmt: skip


def _add_resources(command: argparse.ArgumentParser) -> None:
    resources = command.add_argument_group("time and memory")
    resources.add_argument(
        "--workers", type=positive, default=2, metavar="N",
        help="files worked on at a time (default: 2)",
    )  # fmt: skip
    resources.add_argument(
        "--batch", type=positive, default=1, metavar="N",
        help="files whose images have the same size, rounded up to multiples of 64, that go "
        "through the networks together, for accelerators above all (default: 1)",
    )  # fmt: skip
    resources.add_argument(
        "--memory_gb", type=above_zero, default=4.0, metavar="GIB",
        help="memory for one worker: larger images take longer (default: 4)",
    )  # fmt: skip
    resources.add_argument(
        "--max_pixels", type=positive, metavar="N", help="refuse larger images (default: 2^28)"
    )


def _add_models(commands: argparse._SubParsersAction) -> None:
    models = _add_command(
        commands,
        list_models,
        "models",
        "list and install models",
        "Lists the models that are installed or were ever released. Files of every installed model "
        "can be decompressed.",
        _MODELS_EXAMPLES,
    )
    actions = models.add_subparsers(metavar="ACTION")
    adding = _add_command(
        actions,
        add,
        "add",
        "install the model in a folder",
        "Checks a released model and copies it into the user's data folder.",
        _MODELS_EXAMPLES,
    )
    adding.add_argument("folder", type=files.path_argument, help="a released model")
    adding.add_argument("--name", help="of a model of one's own (default: the folder's name)")
    restoring = _add_command(
        actions,
        restore,
        "restore",
        "install a released model from a clone",
        "Puts a released model back from the history of a git clone of llic_jax's repository.",
        _MODELS_EXAMPLES,
    )
    restoring.add_argument("name", help="of a released model, as `llic models` lists it")
    restoring.add_argument(
        "--from", dest="clone", type=files.path_argument, required=True, metavar="CLONE",
        help="a git clone with the model's commit",
    )  # fmt: skip

"""The command line: `llic compress`, `llic decompress`, `llic info`.

Heavy imports wait until a model is needed, so that `--help` and `info` answer at once.
"""

import argparse
import contextlib
import io
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from llic_jax.cli.info import show_info
from llic_jax.errors import LlicError
from llic_jax.system import files


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; exit status 0 if every file went through, 1 if not, 2 for bad usage."""
    files.print_any_name()
    try:
        args = _parser().parse_args(argv)
        return args.command(args)
    except OSError as error:
        name = f"{error.filename}: " if error.filename is not None else ""
        print(f"llic: {name}{error.strerror or error}", file=sys.stderr)
        return 1
    except LlicError as error:
        print(f"llic: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return _interrupted()


def _interrupted() -> int:
    """Ends at once: a worker may be within a program that takes minutes, and cannot be told."""
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
        prog="llic", description="Compresses photographs with a learned codec (LLIC)."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("input", nargs="+", type=files.path_argument,
        help="files, - for standard input, or folders with all below them",
    )  # fmt: skip
    common.add_argument(
        "output",
        help="a file, - for standard output, or a folder (for several inputs, or with a slash at "
        "its end; made if need be)",
    )
    common.add_argument(
        "--checkpoint", type=files.path_argument, help="released model folder (default: built-in)"
    )
    existing = common.add_mutually_exclusive_group()
    existing.add_argument(
        "--force", action="store_const", dest="existing", const="replace", default="fail",
        help="replace outputs that exist",
    )  # fmt: skip
    existing.add_argument(
        "--skip_existing", action="store_const", dest="existing", const="skip",
        help="leave outputs that exist as they are, and make the rest",
    )  # fmt: skip
    common.add_argument(
        "--workers", type=_positive, default=2, help="files worked on at a time (default: 2)"
    )
    common.add_argument(
        "--batch", type=_positive, default=1,
        help="files whose images have the same size, rounded up to multiples of 64, that go "
        "through the networks together, for accelerators above all (default: 1)",
    )  # fmt: skip
    common.add_argument(
        "--memory_gb", type=_above_zero, default=4.0,
        help="GiB for one worker: larger images take longer (default: 4)",
    )  # fmt: skip
    common.add_argument(
        "--max_pixels",
        type=_positive,
        help="refuse larger images (default: 2^28)",
    )

    compress = commands.add_parser(
        "compress",
        parents=[common],
        help="image files to .llic files",
        description="PNG, JPEG, ...",
    )
    rate = compress.add_mutually_exclusive_group()
    rate.add_argument(
        "--quality", type=float, help="1 to the model's levels, continuous (default: the middle)"
    )
    rate.add_argument("--target_bpp", type=_above_zero, help="the best quality within so many bits")
    rate.add_argument(
        "--target_psnr", type=_above_zero, help="the smallest file of such a PSNR (dB)"
    )
    compress.add_argument(
        "--effort",
        type=int,
        default=0,
        metavar="N",
        help="look for better latents of each image in N steps of gradient descent: smaller files "
        "at equal quality; a step takes two to three times as long as decompressing (default: 0)",
    )
    compress.add_argument(
        "--effort_seconds",
        type=float,
        default=math.inf,
        metavar="S",
        help="with --effort: as many of these steps as S seconds an image allow",
    )
    compress.add_argument("--coder", help="range coder: tfc or constriction (default: first there)")
    compress.add_argument(
        "--exif", action="store_true",
        help="keep EXIF, XMP and resolution (they may tell where and who); comments are not kept",
    )  # fmt: skip
    compress.add_argument(
        "--to_8bit", action="store_true", help="convert images of more than 8 bits a channel"
    )
    compress.add_argument(
        "--psnr",
        action="store_true",
        help="print the PSNR of what is decoded, where alpha is not 0",
    )
    compress.set_defaults(command=compress)

    decompress = commands.add_parser(
        "decompress", parents=[common], help=".llic files to image files"
    )
    decompress.add_argument(
        "--format",
        default="png",
        help="of images in a folder or stream: png, jpg, webp, tif, bmp, ppm (default: png)",
    )
    decompress.set_defaults(command=decompress)

    info = commands.add_parser("info", help="what a .llic file says")
    info.add_argument("file", nargs="+", type=files.path_argument, help="- for standard input")
    info.set_defaults(command=show_info)
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is less than 1")
    return value


def _above_zero(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is no number above 0")
    return value


def check_devices() -> None:
    import jax

    try:
        jax.devices()
    except RuntimeError as error:
        platforms = os.environ.get("JAX_PLATFORMS")
        remedy = f"JAX_PLATFORMS is {platforms}; unset it, or install" if platforms else "Install"
        reason = str(error).splitlines()[0].rstrip(".")
        raise LlicError(
            f"JAX finds no device: {reason}. {remedy} what the device needs."
        ) from error


def check_output(args: argparse.Namespace) -> None:
    if args.output == "-" and sys.stdout.isatty():
        raise LlicError("Standard output is a terminal; redirect it into a file or a pipe.")


def input(path: Path) -> Path | io.BufferedIOBase:
    """What an image is read from: the file, or the bytes of what can be read once."""
    if path is files.STANDARD or files.is_stream(path):
        return io.BytesIO(files.read(path))
    return path

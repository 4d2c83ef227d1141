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
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from llic_jax import files
from llic_jax.errors import LlicError

if TYPE_CHECKING:
    from llic_jax.coding.codec import Codec, Compressed


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
    compress.set_defaults(command=_compress)

    decompress = commands.add_parser(
        "decompress", parents=[common], help=".llic files to image files"
    )
    decompress.add_argument(
        "--format",
        default="png",
        help="of images in a folder or stream: png, jpg, webp, tif, bmp, ppm (default: png)",
    )
    decompress.set_defaults(command=_decompress)

    info = commands.add_parser("info", help="what a .llic file says")
    info.add_argument("file", nargs="+", type=files.path_argument, help="- for standard input")
    info.set_defaults(command=_info)
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


def _codec(args: argparse.Namespace, coder: str | None = None) -> "Codec":
    """The codec that the command line names."""
    from llic_jax import compilation_cache, release

    compilation_cache.enable()
    _check_devices()
    codec = release.load_codec(args.checkpoint or release.DEFAULT, coder, args.memory_gb)
    codec.max_pixels = args.max_pixels or codec.max_pixels
    return codec


def _check_devices() -> None:
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


def _check_output(args: argparse.Namespace) -> None:
    if args.output == "-" and sys.stdout.isatty():
        raise LlicError("Standard output is a terminal; redirect it into a file or a pipe.")


def _input(path: Path) -> Path | io.BufferedIOBase:
    """What an image is read from: the file, or the bytes of what can be read once."""
    if path is files.STANDARD or files.is_stream(path):
        return io.BytesIO(files.read(path))
    return path


def _compress(args: argparse.Namespace) -> int:
    to_target = args.target_bpp is not None or args.target_psnr is not None
    if to_target and args.effort:
        raise LlicError("--effort changes rate and PSNR after a target is met; name a --quality.")
    if args.batch > 1 and (to_target or args.effort):
        raise LlicError("--effort and targets are for each image alone; leave --batch out.")
    if args.effort_seconds != math.inf and not args.effort:
        raise LlicError("--effort_seconds bounds --effort; name its number of steps, too.")
    _check_output(args)
    from tqdm import tqdm

    from llic_jax import batch, folders, images, metrics
    from llic_jax.coding import bitstream, container, effort, search

    def check_target(path: Path) -> None:
        if folders.is_image_suffix(path.suffix):
            raise LlicError(
                f"{path} has the suffix of an image; compressed files end in .llic. Were several "
                "images to be named? Then a folder comes last."
            )

    todo = batch.jobs(
        args.input, args.output, ".llic", images.SUFFIXES, args.existing, check_target
    )
    codec = _codec(args, args.coder)

    def encode(photographs: list[images.Photograph]) -> list["Compressed"]:
        rgb = [photograph.colours_to_code() for photograph in photographs]
        sections = [container.sections(photograph, args.exif) for photograph in photographs]
        if len(rgb) > 1:
            return codec.encode_batch(rgb, args.quality, sections)
        if to_target:
            bpp, psnr = args.target_bpp, args.target_psnr
            return [
                search.encode_to_target(
                    codec, rgb[0], bpp=bpp, psnr=psnr, sections=sections[0],
                    visible=photographs[0].visible,
                )
            ]  # fmt: skip
        no_bar = None if args.effort else True  # None: where standard error is a terminal
        with tqdm(total=args.effort, unit="step", leave=False, disable=no_bar) as bar:
            return [
                effort.encode(
                    codec,
                    rgb[0],
                    args.quality,
                    sections[0],
                    steps=args.effort,
                    seconds=args.effort_seconds,
                    progress=lambda *_: bar.update(),
                )
            ]

    def code(jobs: Sequence[batch.Job]) -> list[batch.Done]:
        started = time.perf_counter()
        photographs = [
            images.read_photograph(
                _input(job.source),
                name=files.name_of(job.source, "standard input"),
                max_pixels=codec.max_pixels,
                to_8bit=args.to_8bit,
            )
            for job in jobs
        ]
        done = []
        for job, photograph, encoded in zip(jobs, photographs, encode(photographs), strict=True):
            with files.whole_file(job.target) as temporary:
                temporary.write_bytes(encoded.data)
            height, width = photograph.rgb.shape[:2]
            size = len(encoded.data)
            line = f"{width}x{height}  {size} bytes  {8 * size / (width * height):.4f} bpp"
            if quality := bitstream.parse(encoded.data).quality:
                line += f"  quality {quality:g}"
            if args.psnr:
                decoded = codec.reconstruct(encoded, height, width)
                psnr = metrics.image_psnr(photograph.rgb, decoded, photograph.visible)
                line += f"  PSNR {psnr:.2f} dB"
            if args.exif:
                line += f"  kept: {photograph.described() or 'no metadata'}"
            line += _seconds(started, len(jobs))
            notes = [*photograph.notes]
            if args.exif and photograph.comments:
                notes.append("comments are not kept")
            done.append(batch.Done(line, width * height, size, notes))
        return done

    return batch.run(todo, code, args.workers, args.batch, _rounded(images.image_size))


def _decompress(args: argparse.Namespace) -> int:
    from llic_jax import batch, images
    from llic_jax.coding import bitstream, container

    _check_output(args)
    suffix = f".{args.format.lstrip('.')}".lower()
    images.check_suffix(Path(f"--format {args.format!r}"), suffix)

    todo = batch.jobs(
        args.input, args.output, suffix, (".llic",), args.existing, images.check_suffix
    )
    codec = _codec(args)

    def size(path: Path) -> tuple[int, int]:
        file = bitstream.parse(path.read_bytes())
        return file.width, file.height

    def format_of(path: Path) -> str:
        stream = path is files.STANDARD or files.is_stream(path)
        return suffix if stream else path.suffix

    def code(jobs: Sequence[batch.Job]) -> list[batch.Done]:
        started = time.perf_counter()
        data = [files.read(job.source) for job in jobs]
        done = []
        for job, file, photograph in zip(
            jobs, data, container.decompress_batch(codec, data), strict=True
        ):
            notes = images.write_photograph(job.target, photograph, format_of(job.target))
            height, width = photograph.rgb.shape[:2]
            line = f"{width}x{height}{_seconds(started, len(jobs))}"
            done.append(batch.Done(line, width * height, len(file), notes))
        return done

    return batch.run(todo, code, args.workers, args.batch, _rounded(size))


def _rounded(size: Callable[[Path], tuple[int, int]]) -> Callable[[Path], tuple[int, int]]:
    """The size of a file's image, (width, height), as the networks see it."""
    from llic_jax.model import DOWNSAMPLING

    def rounded(path: Path) -> tuple[int, int]:
        if path is files.STANDARD or files.is_stream(path):
            raise LlicError("a stream is read once")  # so it makes a batch of its own
        width, height = (-(-side // DOWNSAMPLING) for side in size(path))
        return width, height

    return rounded


def _seconds(started: float, count: int) -> str:
    """A line's end: how long it took, if several files took it together."""
    together = f" ({count} together)" if count > 1 else ""
    return f"  {time.perf_counter() - started:.2f} s{together}"


def _info(args: argparse.Namespace) -> int:
    from llic_jax import folders
    from llic_jax.coding import bitstream

    failures = 0
    for path in args.file:
        name = files.name_of(path, "standard input")
        if folders.is_apple_double(path):
            continue
        try:
            data = files.read(path)
            file = bitstream.parse(data)
        except (LlicError, OSError) as error:
            print(f"llic: {files.said(path, error)}", file=sys.stderr)
            failures += 1
            continue
        quality = f"{file.quality:g}" if file.quality else "of one rate"
        print(
            f"{name}\n"
            f"  image     {file.width} x {file.height}\n"
            f"  size      {len(data)} bytes, {8 * len(data) / (file.width * file.height):.4f} bpp\n"
            f"  format    version {data[4]}, range coder {file.coder}\n"
            f"  model     {file.fingerprint.hex()}, quality {quality}\n"
            f"  payload   {len(file.payload)} bytes, symbols' checksum {file.symbols_crc:08x}\n"
            f"  decodes   {'anywhere' if file.units else 'for certain only where it was made'}"
            + "".join(f"\n  section   {tag}, {len(s)} bytes" for tag, s in file.sections.items())
        )
    return 1 if failures else 0

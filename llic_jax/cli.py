"""The command line: `llic compress`, `llic decompress`, `llic info`.

Heavy imports wait until a model is needed, so that `--help` and `info` answer at once.
"""

import argparse
import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from llic_jax.errors import LlicError

if TYPE_CHECKING:
    from llic_jax.coding.codec import Codec, Compressed


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; exit status 0 if every file went through, 1 if not, 2 for bad usage."""
    parser = _parser()
    args = parser.parse_args(argv)
    try:
        return args.command(args)
    except (LlicError, OSError) as error:
        print(f"llic: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("llic: interrupted", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="llic", description="Compresses photographs with a learned codec (LLIC)."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    files = argparse.ArgumentParser(add_help=False)
    files.add_argument("input", nargs="+", type=Path, help="files, or folders with all below them")
    files.add_argument("output", type=Path, help="a file, or a folder where there are several")
    files.add_argument("--checkpoint", type=Path, help="released model folder (default: built-in)")
    existing = files.add_mutually_exclusive_group()
    existing.add_argument(
        "--force", action="store_const", dest="existing", const="replace", default="fail",
        help="replace outputs that exist",
    )  # fmt: skip
    existing.add_argument(
        "--skip_existing", action="store_const", dest="existing", const="skip",
        help="leave outputs that exist as they are, and make the rest",
    )  # fmt: skip
    files.add_argument(
        "--workers", type=_positive, default=2, help="files worked on at a time (default: 2)"
    )
    files.add_argument(
        "--batch", type=_positive, default=1,
        help="files whose images have the same size, rounded up to multiples of 64, that go "
        "through the networks together, for accelerators above all (default: 1)",
    )  # fmt: skip
    files.add_argument(
        "--memory_gb", type=float, default=4.0,
        help="GiB for one worker: larger images take longer (default: 4)",
    )  # fmt: skip
    files.add_argument("--max_pixels", type=_positive, help="refuse larger images (default: 2^28)")

    compress = commands.add_parser(
        "compress", parents=[files], help="image files to .llic files", description="PNG, JPEG, ..."
    )
    rate = compress.add_mutually_exclusive_group()
    rate.add_argument(
        "--quality", type=float, help="1 to the model's levels, continuous (default: the middle)"
    )
    rate.add_argument("--target_bpp", type=float, help="the best quality within so many bits")
    rate.add_argument("--target_psnr", type=float, help="the smallest file of such a PSNR (dB)")
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
        "--exif", action="store_true", help="keep the metadata (it may tell where and who)"
    )
    compress.add_argument("--psnr", action="store_true", help="print the PSNR of what is decoded")
    compress.set_defaults(command=_compress)

    decompress = commands.add_parser(
        "decompress", parents=[files], help=".llic files to image files"
    )
    decompress.add_argument(
        "--format", default="png", help="of the images in an output folder (default: png)"
    )
    decompress.set_defaults(command=_decompress)

    info = commands.add_parser("info", help="what a .llic file says")
    info.add_argument("file", nargs="+", type=Path)
    info.set_defaults(command=_info)
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is less than 1")
    return value


def _codec(args: argparse.Namespace, coder: str | None = None) -> "Codec":
    """The codec that the command line names."""
    from llic_jax import compilation_cache, release

    compilation_cache.enable()
    codec = release.load_codec(args.checkpoint or release.DEFAULT, coder, args.memory_gb)
    codec.max_pixels = args.max_pixels or codec.max_pixels
    return codec


def _compress(args: argparse.Namespace) -> int:
    to_target = args.target_bpp is not None or args.target_psnr is not None
    if to_target and args.effort:
        raise LlicError("--effort changes rate and PSNR after a target is met; name a --quality.")
    if args.batch > 1 and (to_target or args.effort):
        raise LlicError("--effort and targets are for each image alone; leave --batch out.")
    from tqdm import tqdm

    from llic_jax import batch, images, metrics
    from llic_jax.coding import bitstream, container, effort, search

    todo = batch.jobs(args.input, args.output, ".llic", images.SUFFIXES, args.existing)
    codec = _codec(args, args.coder)

    def encode(photographs: list[images.Photograph]) -> list["Compressed"]:
        rgb = [photograph.rgb for photograph in photographs]
        sections = [container.sections(photograph, args.exif) for photograph in photographs]
        if len(rgb) > 1:
            return codec.encode_batch(rgb, args.quality, sections)
        if to_target:
            bpp, psnr = args.target_bpp, args.target_psnr
            return [
                search.encode_to_target(codec, rgb[0], bpp=bpp, psnr=psnr, sections=sections[0])
            ]
        with tqdm(total=args.effort, unit="step", leave=False, disable=not args.effort) as bar:
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
        photographs = [images.read_photograph(job.source) for job in jobs]
        done = []
        for job, photograph, encoded in zip(jobs, photographs, encode(photographs), strict=True):
            with images.whole_file(job.target) as temporary:
                temporary.write_bytes(encoded.data)
            height, width = photograph.rgb.shape[:2]
            size = len(encoded.data)
            line = f"{width}x{height}  {size} bytes  {8 * size / (width * height):.4f} bpp"
            if quality := bitstream.parse(encoded.data).quality:
                line += f"  quality {quality:g}"
            if args.psnr:
                decoded = codec.reconstruct(encoded, height, width)
                line += f"  PSNR {metrics.image_psnr(photograph.rgb, decoded):.2f} dB"
            line += _seconds(started, len(jobs))
            done.append(batch.Done(line, width * height, size))
        return done

    return batch.run(todo, code, args.workers, args.batch, _rounded(images.image_size))


def _decompress(args: argparse.Namespace) -> int:
    from llic_jax import batch, images
    from llic_jax.coding import bitstream, container

    suffix = f".{args.format.lstrip('.')}"
    todo = batch.jobs(args.input, args.output, suffix, (".llic",), args.existing)
    for job in todo:
        images.check_suffix(job.target)
    codec = _codec(args)

    def size(path: Path) -> tuple[int, int]:
        file = bitstream.parse(path.read_bytes())
        return file.width, file.height

    def code(jobs: Sequence[batch.Job]) -> list[batch.Done]:
        started = time.perf_counter()
        data = [job.source.read_bytes() for job in jobs]
        done = []
        for job, file, photograph in zip(
            jobs, data, container.decompress_batch(codec, data), strict=True
        ):
            images.write_photograph(job.target, photograph)
            height, width = photograph.rgb.shape[:2]
            line = f"{width}x{height}{_seconds(started, len(jobs))}"
            done.append(batch.Done(line, width * height, len(file)))
        return done

    return batch.run(todo, code, args.workers, args.batch, _rounded(size))


def _rounded(size: Callable[[Path], tuple[int, int]]) -> Callable[[Path], tuple[int, int]]:
    """The size of a file's image, (width, height), as the networks see it."""
    from llic_jax.model import DOWNSAMPLING

    def rounded(path: Path) -> tuple[int, int]:
        width, height = (-(-side // DOWNSAMPLING) for side in size(path))
        return width, height

    return rounded


def _seconds(started: float, count: int) -> str:
    """A line's end: how long it took, if several files took it together."""
    together = f" ({count} together)" if count > 1 else ""
    return f"  {time.perf_counter() - started:.2f} s{together}"


def _info(args: argparse.Namespace) -> int:
    from llic_jax.coding import bitstream

    failures = 0
    for path in args.file:
        try:
            data = path.read_bytes()
            file = bitstream.parse(data)
        except (LlicError, OSError) as error:
            print(f"llic: {path}: {error}", file=sys.stderr)
            failures += 1
            continue
        quality = f"{file.quality:g}" if file.quality else "of one rate"
        print(
            f"{path}\n"
            f"  image     {file.width} x {file.height}\n"
            f"  size      {len(data)} bytes, {8 * len(data) / (file.width * file.height):.4f} bpp\n"
            f"  format    version {data[4]}, range coder {file.coder}\n"
            f"  model     {file.fingerprint.hex()}, quality {quality}\n"
            f"  payload   {len(file.payload)} bytes, symbols' checksum {file.symbols_crc:08x}\n"
            f"  decodes   {'anywhere' if file.units else 'for certain only where it was made'}"
            + "".join(f"\n  section   {tag}, {len(s)} bytes" for tag, s in file.sections.items())
        )
    return 1 if failures else 0

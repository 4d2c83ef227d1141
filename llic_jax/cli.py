"""The command line: `llic compress`, `llic decompress`, `llic info`.

Heavy imports wait until a model is needed, so that `--help` and `info` answer at once.
"""

import argparse
import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from llic_jax.errors import LlicError


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
    files.add_argument("input", nargs="+", type=Path, help="one or several files")
    files.add_argument(
        "output", type=Path, help="a file, or a folder (for several inputs, or ending in /)"
    )
    files.add_argument("--checkpoint", type=Path, help="released model folder (default: built-in)")
    files.add_argument("--force", action="store_true", help="replace outputs that exist")

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


def _compress(args: argparse.Namespace) -> int:
    pairs = _outputs(args, ".llic")
    to_target = args.target_bpp is not None or args.target_psnr is not None
    if to_target and args.effort:
        raise LlicError("--effort changes rate and PSNR after a target is met; name a --quality.")
    import numpy as np
    from tqdm import tqdm

    from llic_jax import compilation_cache, images, release
    from llic_jax.coding import bitstream, effort, search

    compilation_cache.enable()
    codec = release.load_codec(args.checkpoint or release.DEFAULT, args.coder)

    def one(source: Path, target: Path) -> str:
        started = time.perf_counter()
        image = images.read_image(source)
        height, width = image.shape[:2]
        if to_target:
            encoded = search.encode_to_target(
                codec, image, bpp=args.target_bpp, psnr=args.target_psnr
            )
        else:
            with tqdm(total=args.effort, unit="step", leave=False, disable=not args.effort) as bar:
                encoded = effort.encode(
                    codec,
                    image,
                    args.quality,
                    steps=args.effort,
                    seconds=args.effort_seconds,
                    progress=lambda *_: bar.update(),
                )
        with images.whole_file(target) as temporary:
            temporary.write_bytes(encoded.data)
        bpp = 8 * len(encoded.data) / (width * height)
        line = f"{width}x{height}  {len(encoded.data)} bytes  {bpp:.4f} bpp"
        if quality := bitstream.parse(encoded.data).quality:
            line += f"  quality {quality:g}"
        if args.psnr:
            decoded = codec.reconstruct(encoded, height, width)
            error = np.mean(np.square(image.astype(np.float64) - decoded))
            line += f"  PSNR {10 * np.log10(255**2 / error) if error else float('inf'):.2f} dB"
        return f"{line}  {time.perf_counter() - started:.2f} s"

    return _each(pairs, one)


def _decompress(args: argparse.Namespace) -> int:
    pairs = _outputs(args, f".{args.format.lstrip('.')}")
    from llic_jax import compilation_cache, images, release

    compilation_cache.enable()
    for _, target in pairs:
        images.check_suffix(target)
    codec = release.load_codec(args.checkpoint or release.DEFAULT)

    def one(source: Path, target: Path) -> str:
        started = time.perf_counter()
        image = codec.decompress(source.read_bytes())
        images.write_image(target, image)
        height, width = image.shape[:2]
        return f"{width}x{height}  {time.perf_counter() - started:.2f} s"

    return _each(pairs, one)


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
            f"  format    version {bitstream.VERSION}, range coder {file.coder}\n"
            f"  model     {file.fingerprint.hex()}, quality {quality}\n"
            f"  payload   {len(file.payload)} bytes, symbols' checksum {file.symbols_crc:08x}"
        )
    return 1 if failures else 0


def _outputs(args: argparse.Namespace, suffix: str) -> list[tuple[Path, Path]]:
    """Each input with its output; everything that can be wrong with them is found before work."""
    to_folder = len(args.input) > 1 or args.output.is_dir()
    pairs = [
        (source, args.output / f"{source.stem}{suffix}" if to_folder else args.output)
        for source in args.input
    ]
    if to_folder:
        if args.output.exists() and not args.output.is_dir():
            raise LlicError(
                f"{args.output} is a file; several inputs need a folder to write into. "
                "Name one as the last argument."
            )
        args.output.mkdir(parents=True, exist_ok=True)
    elif not args.output.parent.is_dir():
        raise LlicError(f"The folder {args.output.parent} does not exist; make it first.")
    by_target: dict[Path, Path] = {}
    for source, target in pairs:
        if target in by_target:
            raise LlicError(
                f"{by_target[target]} and {source} would both become {target}; run them apart."
            )
        by_target[target] = source
        if target.exists() and not args.force:
            raise LlicError(f"{target} exists; --force replaces it.")
    return pairs


def _each(pairs: list[tuple[Path, Path]], one: Callable[[Path, Path], str]) -> int:
    """Runs `one` for every pair; a file's error is reported and the rest go on."""
    from tqdm import tqdm

    failures = 0
    bar = tqdm(pairs, unit="file", disable=len(pairs) == 1)
    for source, target in bar:
        try:
            line = f"{source} -> {target}  {one(source, target)}"
        except (LlicError, OSError) as error:
            failures += 1
            bar.write(f"llic: {source}: {error}", file=sys.stderr)
        else:
            bar.write(line)
    if len(pairs) > 1:
        print(f"{len(pairs) - failures} of {len(pairs)} files done")
    return 1 if failures else 0

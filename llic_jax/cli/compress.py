"""`llic compress`: photographs to .llic files."""

import argparse
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from llic_jax.cli.common import check_output, elapsed, image_source, open_codec, rounded_size
from llic_jax.errors import LlicError
from llic_jax.system import files

if TYPE_CHECKING:
    from llic_jax.codec.results import Compressed


def compress(args: argparse.Namespace) -> int:
    """Compresses the files that the arguments name.

    Args:
        args: Of `llic compress`.

    Returns:
        The exit status.

    Raises:
        LlicError: Arguments that do not go together.
    """
    to_target = args.target_bpp is not None or args.target_psnr is not None
    if to_target and args.effort:
        raise LlicError("--effort changes rate and PSNR after a target is met; name a --quality.")
    if args.batch > 1 and (to_target or args.effort):
        raise LlicError("--effort and targets are for each image alone; leave --batch out.")
    if args.effort_seconds != math.inf and not args.effort:
        raise LlicError("--effort_seconds bounds --effort; name its number of steps, too.")
    check_output(args)
    from tqdm import tqdm

    from llic_jax.bitstream.file import LlicFile
    from llic_jax.bitstream.sections import sections_of
    from llic_jax.cli import batch
    from llic_jax.codec.rate_control import Quality, TargetBpp, TargetPsnr, target
    from llic_jax.codec.refinement import Refinement
    from llic_jax.images import folders
    from llic_jax.images.photograph import SUFFIXES, Photograph
    from llic_jax.images.read import image_size, read_photograph
    from llic_jax.metrics import distortion

    def check_target(path: Path) -> None:
        if folders.is_image_suffix(path.suffix):
            raise LlicError(
                f"{path} has the suffix of an image; compressed files end in .llic. Were several "
                "images to be named? Then a folder comes last."
            )

    found = batch.file_tasks(
        args.input, args.output, ".llic", SUFFIXES, args.existing, check_target
    )
    codec = open_codec(args, args.coder)

    def encode(photographs: list[Photograph]) -> list["Compressed"]:
        rgb = [photograph.colours_to_code() for photograph in photographs]
        sections = [sections_of(photograph, args.exif) for photograph in photographs]
        rate: Quality | TargetBpp | TargetPsnr = Quality(args.quality)
        if to_target:
            visible = photographs[0].visible
            rate = target(bpp=args.target_bpp, psnr=args.target_psnr, visible=visible)
        no_bar = None if args.effort else True  # None: where standard error is a terminal
        with tqdm(total=args.effort, unit="step", leave=False, disable=no_bar) as bar:
            refinement = Refinement(args.effort, args.effort_seconds, lambda *_: bar.update())
            return codec.encode(rgb, rate, refinement, sections, not args.strict_llic)

    def code(tasks: Sequence[batch.FileTask]) -> list[batch.FileResult]:
        started = time.perf_counter()
        photographs = [
            read_photograph(
                image_source(task.source),
                name=files.name_of(task.source, "standard input"),
                max_pixels=codec.limits.max_pixels,
                to_8bit=args.to_8bit,
            )
            for task in tasks
        ]
        done = []
        for task, photograph, encoded in zip(tasks, photographs, encode(photographs), strict=True):
            with files.whole_file(task.target) as temporary:
                temporary.write_bytes(encoded.data)
            height, width = photograph.rgb.shape[:2]
            size = len(encoded.data)
            line = f"{width}x{height}  {size} bytes  {8 * size / (width * height):.4f} bpp"
            if other := LlicFile.from_bytes(encoded.data).other_coding:
                line += f"  as {other}"
            elif encoded.quality is not None:
                line += f"  quality {encoded.quality:g}"
            if args.psnr:
                decoded = codec.reconstruct(encoded)
                psnr = distortion.image_psnr(photograph.rgb, decoded, photograph.visible)
                line += f"  PSNR {psnr:.2f} dB"
            if args.exif:
                line += f"  kept: {photograph.described() or 'no metadata'}"
            line += elapsed(started, len(tasks))
            notes = [*photograph.notes]
            if args.exif and photograph.comments:
                notes.append("comments are not kept")
            done.append(batch.FileResult(line, width * height, size, notes))
        return done

    return batch.run(found, code, args.workers, args.batch, rounded_size(image_size))

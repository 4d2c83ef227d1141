"""`llic compress`: photographs to .llic files."""

import argparse
import dataclasses
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llic_jax.cli.arguments import split_names
from llic_jax.cli.common import check_output, elapsed, image_source, open_codec, rounded_size
from llic_jax.errors import LlicError
from llic_jax.system import files
from llic_jax.system.interrupts import Search

if TYPE_CHECKING:
    from llic_jax.codec.results import Compressed

_BAR = "effort {percentage:3.0f} %|{bar}| {elapsed}, {remaining} left"


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
    steps, time_limit = args.effort
    time_limit = min(time_limit, args.effort_seconds)
    searches = steps > 0 or time_limit < math.inf
    if args.batch > 1 and (to_target or searches):
        raise LlicError("--effort and targets are for each image alone; leave --batch out.")
    from llic_jax.images import folders

    inputs, output = split_names(args.names, args.output, folders.is_image_suffix)
    check_output(output)
    from tqdm import tqdm

    from llic_jax.bitstream.file import LlicFile
    from llic_jax.bitstream.sections import sections_of
    from llic_jax.cli import batch
    from llic_jax.codec.effort import Refinement
    from llic_jax.codec.rate_control import Quality, TargetBpp, TargetPsnr, target
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
        *(inputs, output, ".llic", SUFFIXES, args.existing, check_target),
        recursive=args.recursive,
        make_folders=not args.dry_run,
    )
    if args.dry_run:
        return batch.announce(found)
    codec, search = open_codec(args, args.coder), Search()
    if args.progressive:
        codec = codec.progressive

    def encode(photographs: list[Photograph]) -> list["Compressed"]:
        rgb = [photograph.colours_to_code() for photograph in photographs]
        sections = [sections_of(photograph, args.exif) for photograph in photographs]
        rate: Quality | TargetBpp | TargetPsnr = Quality(args.quality)
        if to_target:
            visible = photographs[0].visible
            rate = target(bpp=args.target_bpp, psnr=args.target_psnr, visible=visible)
        no_bar = None if searches else True  # None: where standard error is a terminal
        with tqdm(total=1.0, bar_format=_BAR, leave=False, disable=no_bar) as bar:

            def progress(share: float) -> bool:
                search.begun.set()
                bar.update(share - bar.n)
                return search.ended.is_set()

            refinement = Refinement(steps, time_limit, progress)
            return codec.encode(rgb, rate, refinement, sections, not args.strict_llic)

    def code(tasks: Sequence[batch.FileTask]) -> list[batch.FileResult]:
        if search.ended.is_set():
            raise KeyboardInterrupt
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
            size, other = len(encoded.data), LlicFile.from_bytes(encoded.data).other_coding
            figures: dict[str, Any] = {"width": width, "height": height, "bytes": size}
            figures |= {"bpp": 8 * size / (width * height), "coded_by": other or "networks"}
            line = f"{width}x{height}  {size} bytes  {figures['bpp']:.4f} bpp"
            if other:
                line += f"  as {other}"
            elif encoded.quality is not None:
                line += f"  quality {encoded.quality:g}"
                figures["quality"] = encoded.quality
            if gained := encoded.effort:
                line += (
                    f"  effort {gained.bytes_before} -> {size} bytes, "
                    f"{gained.psnr_before:.2f} -> {gained.psnr:.2f} dB"
                )
                figures["effort"] = dataclasses.asdict(gained)
            if args.psnr:
                decoded = codec.reconstruct(encoded)
                psnr = distortion.image_psnr(photograph.rgb, decoded, photograph.visible)
                line += f"  PSNR {psnr:.2f} dB"
                figures["psnr"] = psnr if math.isfinite(psnr) else None
            if args.exif:
                line += f"  kept: {photograph.described() or 'no metadata'}"
            line += elapsed(started, len(tasks))
            figures["seconds"] = (time.perf_counter() - started) / len(tasks)
            notes = [*photograph.notes]
            if args.exif and photograph.comments:
                notes.append("comments are not kept")
            if search.ended.is_set():
                notes.append("interrupted; the best file so far is kept")
            if to_target and not other:
                notes += _end_of_range(args, encoded.quality, codec.network.levels, figures["bpp"])
            done.append(batch.FileResult(line, width * height, size, notes, figures))
        return done

    speech = batch.Speech(args.json, args.loudness < 0)
    with search.answers_interrupts():
        status = batch.run(found, code, args.workers, args.batch, rounded_size(image_size), speech)
    if search.ended.is_set():
        raise KeyboardInterrupt
    return status


def _end_of_range(
    args: argparse.Namespace, quality: float | None, levels: int, bpp: float
) -> Iterator[str]:
    """Says that a target lies beyond what the model's qualities reach."""
    if args.target_bpp is not None and quality == levels and bpp < 0.99 * args.target_bpp:
        yield (
            f"the model's range ends at quality {levels}, which takes {bpp:.4f} bpp; "
            f"{args.target_bpp:g} were allowed"
        )
    if args.target_psnr is not None and quality == 1:
        yield (
            f"the model's range begins at quality 1, which reaches {args.target_psnr:g} dB with "
            "bits to spare"
        )

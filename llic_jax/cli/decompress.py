"""`llic decompress`: .llic files to photographs."""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from llic_jax.cli.arguments import split_names
from llic_jax.cli.common import check_output, elapsed, open_library, rounded_size
from llic_jax.system import files


def decompress(args: argparse.Namespace) -> int:
    """Decompresses the files that the arguments name.

    Args:
        args: Of `llic decompress`.

    Returns:
        The exit status.
    """
    from llic_jax.bitstream.file import LlicFile
    from llic_jax.cli import batch
    from llic_jax.images.photograph import check_suffix
    from llic_jax.images.write import write_photograph

    inputs, output = split_names(args.names, args.output, lambda kind: kind.lower() == ".llic")
    check_output(output)
    suffix = f".{args.format.lstrip('.')}".lower()
    check_suffix(Path(f"--format {args.format!r}"), suffix)

    found = batch.file_tasks(
        *(inputs, output, suffix, (".llic",), args.existing, check_suffix),
        recursive=args.recursive,
        make_folders=not args.dry_run,
    )
    if args.dry_run:
        return batch.announce(found)
    library = open_library(args)
    parse = LlicFile.from_start if args.preview else LlicFile.from_bytes

    def size(path: Path) -> tuple[int, int]:
        file = parse(path.read_bytes())
        return file.width, file.height

    def format_of(path: Path) -> str:
        stream = path is files.STANDARD or files.is_stream(path)
        return suffix if stream else path.suffix

    def code(tasks: Sequence[batch.FileTask]) -> list[batch.FileResult]:
        started = time.perf_counter()
        data = [files.read(task.source) for task in tasks]
        done = []
        photographs = library.decode_photographs(data, args.preview)
        for task, file, photograph in zip(tasks, data, photographs, strict=True):
            notes = [
                *photograph.notes,
                *write_photograph(task.target, photograph, format_of(task.target)),
            ]
            height, width = photograph.rgb.shape[:2]
            parsed = parse(file)
            share = parsed.share
            cut = "" if parsed.whole else f", a preview from {share:.1%} of the payload"
            verified = photograph.verified
            if cut and verified:
                cut += f", {verified[0]} of {verified[1]} steps verified"
            line = f"{width}x{height}{cut}{elapsed(started, len(tasks))}"
            seconds = (time.perf_counter() - started) / len(tasks)
            figures = {
                "width": width,
                "height": height,
                "bytes": len(file),
                "share": share,
                "verified": verified,
                "seconds": seconds,
            }
            done.append(batch.FileResult(line, width * height, len(file), notes, figures))
        return done

    speech = batch.Speech(args.json, args.loudness < 0)
    return batch.run(found, code, args.workers, args.batch, rounded_size(size), speech)

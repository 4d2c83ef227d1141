"""One file or many: what is read, what is written, workers, errors that stay with their file."""

import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple

from llic_jax.errors import LlicError


class Job(NamedTuple):
    """One file to make of another."""

    source: Path
    target: Path


class Done(NamedTuple):
    """What became of a job: a line to print, pixels of the image, bytes of the `.llic` file."""

    line: str
    pixels: int
    bytes: int


def jobs(
    inputs: Sequence[Path], output: Path, suffix: str, kinds: Collection[str], existing: str
) -> list[Job]:
    """Each input with its output; everything that can be wrong with them is found before work.

    inputs: files, and folders, which stand for all files below them with a suffix in `kinds`; their
    outputs lie below `output` likewise. existing: what becomes of outputs that exist: "fail",
    "replace", or "skip".

    Raises:
      LlicError: outputs that exist or collide, an output folder that cannot be one, no inputs.
    """
    to_folder = len(inputs) > 1 or inputs[0].is_dir() or output.is_dir()
    if to_folder and output.exists() and not output.is_dir():
        raise LlicError(
            f"{output} is a file; several inputs need a folder to write into. "
            "Name one as the last argument."
        )
    if not to_folder and not output.parent.is_dir():
        raise LlicError(f"The folder {output.parent} does not exist; make it first.")
    found: dict[Path, Path] = {}
    for source, relative in _sources(inputs, kinds):
        target = output / relative.with_suffix(suffix) if to_folder else output
        if target in found:
            raise LlicError(
                f"{found[target]} and {source} would both become {target}; run them apart."
            )
        if target.exists() and existing == "fail":
            raise LlicError(f"{target} exists; --force replaces it, --skip_existing leaves it.")
        found[target] = source
    for folder in {target.parent for target in found}:
        folder.mkdir(parents=True, exist_ok=True)
    return [
        Job(source, target)
        for target, source in found.items()
        if not (existing == "skip" and target.exists())
    ]


def _sources(inputs: Sequence[Path], kinds: Collection[str]) -> Iterator[tuple[Path, Path]]:
    """Every file, and where it lies below its input."""
    for given in inputs:
        if not given.is_dir():
            yield given, Path(given.name)
            continue
        below = sorted(p for p in given.rglob("*") if p.suffix.lower() in kinds and p.is_file())
        if not below:
            raise LlicError(f"No file below {given} ends in {', '.join(sorted(kinds))}.")
        for path in below:
            yield path, path.relative_to(given)


def run(todo: Sequence[Job], one: Callable[[Path, Path], Done], workers: int) -> int:
    """Runs `one` for every job, `workers` at a time; returns the exit status, 1 if a file failed.

    A file's error is reported and the rest go on. Each worker holds one image, so memory is bounded
    by their number. The first file goes alone: what it compiles serves the others.
    """
    from tqdm import tqdm

    done: list[Done] = []
    with (
        tqdm(total=len(todo), unit="file", disable=len(todo) < 2) as bar,
        ThreadPoolExecutor(workers) as pool,
    ):

        def collect(job: Job, future: Future[Done]) -> None:
            try:
                done.append(future.result())
            except (LlicError, OSError) as error:
                bar.write(f"llic: {job.source}: {error}", file=sys.stderr)
            except Exception as error:  # out of memory, mostly
                bar.write(f"llic: {job.source}: {type(error).__name__}: {error}", file=sys.stderr)
            else:
                bar.write(f"{job.source} -> {job.target}  {done[-1].line}")
            bar.update()

        try:
            for job in todo[:1]:
                collect(job, pool.submit(one, *job))
            rest = {pool.submit(one, *job): job for job in todo[1:]}
            for future in as_completed(rest):
                collect(rest[future], future)
        except KeyboardInterrupt:
            pool.shutdown(cancel_futures=True)
            raise
    if len(todo) != 1:
        pixels, size = sum(d.pixels for d in done), sum(d.bytes for d in done)
        rate = f", {size} bytes of .llic, {8 * size / pixels:.4f} bpp" if pixels else ""
        print(f"{len(done)} of {len(todo)} files done{rate}")
    return 0 if len(done) == len(todo) else 1

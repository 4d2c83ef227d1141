"""One file or many: what is read, what is written, workers, batches, errors that stay with their
file."""

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


def run(
    todo: Sequence[Job],
    code: Callable[[Sequence[Job]], list[Done]],
    workers: int,
    together: int = 1,
    size_of: Callable[[Path], tuple[int, int]] | None = None,
) -> int:
    """Runs `code` for every job, `workers` at a time; returns the exit status, 1 if a file failed.

    A file's error is reported and the rest go on. Each worker holds one batch, so memory is bounded
    by their number. The first batch goes alone: what it compiles serves the others.

    together: so many files in a batch, at most. size_of: a source; those of a batch are equal.
    """
    from tqdm import tqdm

    done: list[Done] = []
    batches = _batches(todo, together, size_of)
    with (
        tqdm(total=len(todo), unit="file", disable=len(todo) < 2) as bar,
        ThreadPoolExecutor(workers) as pool,
    ):

        def collect(batch: Sequence[Job], future: Future[list[Done | Exception]]) -> None:
            for job, result in zip(batch, future.result(), strict=True):
                if isinstance(result, Done):
                    done.append(result)
                    bar.write(f"{job.source} -> {job.target}  {result.line}")
                elif isinstance(result, LlicError | OSError):
                    bar.write(f"llic: {job.source}: {result}", file=sys.stderr)
                else:  # out of memory, mostly
                    what = f"{type(result).__name__}: {result}"
                    bar.write(f"llic: {job.source}: {what}", file=sys.stderr)
                bar.update()

        try:
            for batch in batches[:1]:
                collect(batch, pool.submit(_attempt, code, batch))
            rest = {pool.submit(_attempt, code, batch): batch for batch in batches[1:]}
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


def _attempt(
    code: Callable[[Sequence[Job]], list[Done]], batch: Sequence[Job]
) -> list[Done | Exception]:
    """What became of each job; where a batch fails, its files are tried one by one."""
    try:
        return list(code(batch))
    except Exception as error:
        if len(batch) == 1:
            return [error]
    return [result for job in batch for result in _attempt(code, [job])]


def _batches(
    todo: Sequence[Job], together: int, size_of: Callable[[Path], tuple[int, int]] | None
) -> list[list[Job]]:
    """Jobs whose sources have the same size, so many at most; in order of their first ones."""
    if together == 1 or size_of is None:
        return [[job] for job in todo]
    batches: list[list[Job]] = []
    unfilled: dict[tuple[int, int], list[Job]] = {}
    for job in todo:
        try:
            key = size_of(job.source)
        except Exception:  # is reported when it is that file's turn
            batches.append([job])
            continue
        if key not in unfilled:
            unfilled[key] = []
            batches.append(unfilled[key])
        unfilled[key].append(job)
        if len(unfilled[key]) == together:
            del unfilled[key]
    return batches

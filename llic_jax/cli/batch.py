"""One file or many: inputs and outputs, workers, batches; an error stays with its file."""

import json
import os
import stat
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any, NamedTuple

from llic_jax.errors import LlicError
from llic_jax.images import folders
from llic_jax.system.files import STANDARD, is_stream, name_of, path_argument, said


class FileTask(NamedTuple):
    """One file to make of another; `STANDARD` for standard input and output.

    Attributes:
        source: The input.
        target: The output.
    """

    source: Path
    target: Path


class FileResult(NamedTuple):
    """What became of a task.

    Attributes:
        line: To print.
        pixels: Of the image.
        bytes: Of the `.llic` file.
        notes: What was lost, in words.
        figures: The same for programs, by name.
    """

    line: str
    pixels: int
    bytes: int
    notes: Sequence[str] = ()
    figures: Mapping[str, Any] = {}


class Speech(NamedTuple):
    """What a run says of files that went through; errors are always said.

    Attributes:
        as_json: A line of JSON for each file on standard output, and nothing else there.
        quiet: Nothing.
    """

    as_json: bool = False
    quiet: bool = False


TALKATIVE = Speech()


class FileTasks(NamedTuple):
    """What there is to do, and what was found on the way.

    Attributes:
        tasks: One for each file.
        unreadable: Errors of folders that cannot be listed.
        left_out: What was left out of folders, in words.
    """

    tasks: list[FileTask]
    unreadable: list[OSError]
    left_out: list[str]


def file_tasks(
    inputs: Sequence[Path],
    output: str | None,
    suffix: str,
    kinds: Collection[str],
    existing: str,
    check_target: Callable[[Path], None],
    recursive: bool = True,
    make_folders: bool = True,
) -> FileTasks:
    """Each input with its output; everything that can be wrong with them is found before work.

    Args:
        inputs: Files, and folders, which stand for all files below them with a suffix in `kinds`;
            their outputs lie below the output folder likewise.
        output: A file; a folder where there are several inputs, or where it ends in a slash; None
            for files beside their inputs.
        suffix: Of outputs in a folder.
        kinds: Suffixes of inputs in folders.
        existing: What becomes of outputs that exist: "fail", "replace", or "skip".
        check_target: Raises for a single output whose name is not that of such a file.
        recursive: Whether folders stand for the folders in them, too.
        make_folders: Whether folders for the outputs are made.

    Raises:
        LlicError: Outputs that exist, collide or are inputs; an output folder that cannot be one;
            no inputs.
    """
    if beside := output is None:
        if STANDARD in inputs:
            raise LlicError("Standard input has no name; name an output by -o.")
        output = "./"
    path = path_argument(output)
    as_folder = output.endswith(("/", os.sep))
    to_folder = as_folder or len(inputs) > 1 or inputs[0].is_dir() or path.is_dir()
    if to_folder and (path is STANDARD or (path.exists() and not path.is_dir())):
        name = "standard output" if path is STANDARD else path
        raise LlicError(
            f"{name} is a file; several inputs need a folder to write into. "
            "Name one as the last argument."
        )
    if not to_folder and path is not STANDARD and not path.parent.is_dir():
        raise LlicError(f"The folder {path.parent} does not exist; make it first.")
    sources, unreadable, left_out = _sources(inputs, kinds, recursive)
    identities = {identity for source, _ in sources if (identity := _identity(source))}
    found: dict[Path, Path] = {}
    for source, relative in sources:
        beside_source = source.with_suffix(suffix) if beside else None
        target = beside_source or (path / relative.with_suffix(suffix) if to_folder else path)
        if target in found:
            raise LlicError(
                f"{found[target]} and {source} would both become {target}; run them apart."
            )
        found[target] = source
        if target is STANDARD or is_stream(target):
            continue
        if _identity(target) in identities:
            raise LlicError(f"{target} is an input; name another output.")
        if not to_folder:
            check_target(target)
        if target.exists() and existing == "fail":
            raise LlicError(f"{target} exists; --force replaces it, --skip_existing leaves it.")
    for folder in {target.parent for target in found if to_folder and make_folders}:
        folder.mkdir(parents=True, exist_ok=True)
    tasks = [
        FileTask(source, target)
        for target, source in found.items()
        if target is STANDARD or is_stream(target) or existing != "skip" or not target.exists()
    ]
    return FileTasks(tasks, unreadable, left_out)


def _identity(path: Path) -> tuple[int, int] | None:
    """Device and number of an existing regular file: equal for all links to it."""
    if path is STANDARD:
        return None
    try:
        status = path.stat()
    except OSError:
        return None
    return (status.st_dev, status.st_ino) if stat.S_ISREG(status.st_mode) else None


def _sources(
    inputs: Sequence[Path], kinds: Collection[str], recursive: bool
) -> tuple[list[tuple[Path, Path]], list[OSError], list[str]]:
    """Every file, and where it lies below its input; folders' errors; what was left out."""
    sources: list[tuple[Path, Path]] = []
    unreadable: list[OSError] = []
    left_out = []
    if sum(given is STANDARD for given in inputs) > 1:
        raise LlicError("- names standard input twice; it can be read once.")
    for given in inputs:
        if given is STANDARD:
            sources.append((given, Path("stdin")))
        elif not given.is_dir():
            if folders.is_apple_double(given):
                left_out.append(f"{given} (macOS's, no image)")
            else:
                sources.append((given, Path(given.name)))
        else:
            found = folders.scan(given, kinds, ".png" in kinds, recursive)
            if not found.files and not found.unreadable:
                more = f" Left out: {found.summary()}." if found.left_out else ""
                raise LlicError(f"No file below {given} ends in {', '.join(sorted(kinds))}.{more}")
            sources += [(path, path.relative_to(given)) for path in found.files]
            unreadable += found.unreadable
            if found.left_out:
                left_out.append(f"{found.summary()} below {given}")
    return sources, unreadable, left_out


def run(
    found: FileTasks,
    code: Callable[[Sequence[FileTask]], list[FileResult]],
    workers: int,
    batch_size: int = 1,
    size_of: Callable[[Path], tuple[int, int]] | None = None,
    speech: Speech = TALKATIVE,
) -> int:
    """Runs `code` for every task, `workers` batches at a time.

    A file's error is reported and the rest go on. Each worker holds one batch, so memory is bounded
    by their number. The first batch goes alone: what it compiles serves the others.

    Args:
        found: What there is to do.
        code: Makes the outputs of a batch.
        workers: Batches at a time.
        batch_size: Files in a batch, at most.
        size_of: A source's size; those of a batch are equal.
        speech: What is said.

    Returns:
        The exit status: 1 if a file failed, else 0.
    """
    from tqdm import tqdm

    tasks, done = found.tasks, []
    # What goes through standard output is data.
    lines = sys.stderr if any(task.target is STANDARD for task in tasks) else sys.stdout
    batches = _batches(tasks, batch_size, size_of)
    pool = ThreadPoolExecutor(workers, thread_name_prefix="llic")
    no_bar = True if speech.quiet or len(tasks) < 2 else None  # None: where there is a terminal
    with tqdm(total=len(tasks), unit="file", disable=no_bar) as bar:

        def collect(
            batch: Sequence[FileTask], future: Future[list[FileResult | Exception]]
        ) -> None:
            for task, result in zip(batch, future.result(), strict=True):
                if isinstance(result, FileResult):
                    done.append(result)
                for line, stream in _lines(task, result, speech, lines):
                    bar.write(line, file=stream)
                bar.update()

        # Not as a context: after an interrupt nothing waits for what the workers do.
        try:
            for batch in batches[:1]:
                collect(batch, pool.submit(_attempt, code, batch))
            rest = {pool.submit(_attempt, code, batch): batch for batch in batches[1:]}
            for future in as_completed(rest):
                collect(rest[future], future)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    for error in found.unreadable:
        print(
            f"llic: {error.filename}: {error.strerror}; what is in it is missing", file=sys.stderr
        )
    summary = []
    if len(tasks) != 1:
        pixels, size = sum(d.pixels for d in done), sum(d.bytes for d in done)
        rate = f", {size} bytes of .llic, {8 * size / pixels:.4f} bpp" if pixels else ""
        summary.append(f"{len(done)} of {len(tasks)} files done{rate}")
    summary += [f"left out: {what}" for what in found.left_out]
    for line in () if speech.quiet else summary:
        print(line, file=sys.stderr if speech.as_json else lines)
    return 0 if len(done) == len(tasks) and not found.unreadable else 1


def _lines(
    task: FileTask, result: FileResult | Exception, speech: Speech, out: Any
) -> Iterator[tuple[str, Any]]:
    """What is said of a task, and where."""
    source = name_of(task.source, "standard input")
    if isinstance(result, Exception):
        error = said(task.source, result)
        yield f"llic: {error}", sys.stderr
        if speech.as_json:
            yield json.dumps({"source": source, "error": error}), out
        return
    target = name_of(task.target, "standard output")
    if not speech.quiet:
        for note in result.notes:
            yield f"llic: {source}: {note}", sys.stderr
    if speech.as_json:
        figures = {"source": source, "target": target, **result.figures}
        yield json.dumps({**figures, "notes": [*result.notes]}), out
    elif not speech.quiet:
        yield f"{source} -> {target}  {result.line}", out


def announce(found: FileTasks) -> int:
    """Says what would become of which file; returns the exit status, as `run` would."""
    for task in found.tasks:
        target = name_of(task.target, "standard output")
        print(f"{name_of(task.source, 'standard input')} -> {target}")
    for error in found.unreadable:
        print(f"llic: {error.filename}: {error.strerror}", file=sys.stderr)
    for what in found.left_out:
        print(f"left out: {what}")
    return 1 if found.unreadable else 0


def _attempt(
    code: Callable[[Sequence[FileTask]], list[FileResult]], batch: Sequence[FileTask]
) -> list[FileResult | Exception]:
    """What became of each task; where a batch fails, its files are tried one by one."""
    try:
        return list(code(batch))
    except Exception as error:
        if len(batch) == 1:
            return [error]
    return [result for task in batch for result in _attempt(code, [task])]


def _batches(
    tasks: Sequence[FileTask], batch_size: int, size_of: Callable[[Path], tuple[int, int]] | None
) -> list[list[FileTask]]:
    """Batches of tasks whose sources have the same size; in the order of their first ones."""
    if batch_size == 1 or size_of is None:
        return [[task] for task in tasks]
    batches: list[list[FileTask]] = []
    unfilled: dict[tuple[int, int], list[FileTask]] = {}
    for task in tasks:
        try:
            key = size_of(task.source)
        except Exception:  # is reported when it is that file's turn
            batches.append([task])
            continue
        if key not in unfilled:
            unfilled[key] = []
            batches.append(unfilled[key])
        unfilled[key].append(task)
        if len(unfilled[key]) == batch_size:
            del unfilled[key]
    return batches

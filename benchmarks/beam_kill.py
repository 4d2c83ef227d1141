"""Kills Beam pipelines on real photographs and runs them again: nothing lost, nothing twice.

    python benchmarks/beam_kill.py PHOTOS --compress 12

`prepare` makes a training set of the folder with several local workers. SIGKILL ends all of its
processes when a part of the shards is done, once or several times; then it runs to its end.
`compress` does the same with a few of the photographs. After every start the counters are printed
beside the folder's content. At the end these must hold:

    every photograph is in one record or was skipped for one reason, and none is in two
    every record is another one, and decodes
    of a sample, each record is what its photograph gives when it is prepared alone
    what was done before a kill was not touched again
    Beam's counters of the last run, and what was there before it, are the whole
"""

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # for a machine where nothing is installed

from llic_jax.bitstream.file import LlicFile
from llic_jax.data.image_files import image_files
from llic_jax.data.sources import open_source
from llic_jax.errors import LlicError
from llic_jax.pipelines.compress import Coding, Compression
from llic_jax.pipelines.prepare import Preparation
from llic_jax.pipelines.selection import Selection
from llic_jax.pipelines.work import Summary

PATIENCE = 3600.0  # seconds after which a run hangs


class Command:
    """One command that is started again and again.

    Args:
      arguments: After `python -m llic_jax.pipelines`.
      outputs: Lists the outputs that are done.
      summary: Reads the counters from the outputs.
    """

    def __init__(
        self,
        arguments: list[str],
        outputs: Callable[[], Iterable[Path]],
        summary: Callable[[], Summary],
    ):
        self.arguments, self.outputs, self.summary = arguments, outputs, summary

    def done(self) -> dict[str, int]:
        """Outputs, with the time at which each was written."""
        return {path.name: path.stat().st_mtime_ns for path in self.outputs()}

    def start(self) -> subprocess.Popen:
        command = [sys.executable, "-m", "llic_jax.pipelines", *self.arguments, "--json"]
        root = str(Path(__file__).parents[1])
        paths = os.pathsep.join([root, os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
        return subprocess.Popen(
            command,
            env=os.environ | {"PYTHONPATH": paths},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,  # a group of its own, with Beam's workers in it
        )

    def killed(self, count: int) -> float:
        """Starts the command and kills it when there are so many outputs; returns its seconds."""
        process, started = self.start(), time.monotonic()
        while len(self.done()) < count and process.poll() is None:
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return time.monotonic() - started

    def finished(self) -> tuple[dict[str, Any], float]:
        """Runs the command to its end; returns what it prints, and its seconds."""
        started = time.monotonic()
        process = self.start()
        output, _ = process.communicate(timeout=PATIENCE)
        if process.returncode:
            raise SystemExit(f"exit status {process.returncode}: {output}")
        return json.loads(output), time.monotonic() - started


def try_command(command: Command, planned: int, kills: int) -> Iterator[str]:
    """Kills a command several times and lets it finish; yields what is wrong."""
    print(f"{'':<24}{'seconds':>8}  what the outputs hold")
    before: dict[str, int] = {}
    held: dict[str, int] = {}
    for kill in range(kills):
        seconds = command.killed(max(len(before) + 1, planned * (kill + 1) // (kills + 1)))
        summary = command.summary()
        print(f"{f'SIGKILL {kill + 1}':<24}{seconds:>8.1f}  {described(summary)}", flush=True)
        now = command.done()
        yield from untouched(before, now)
        before, held = now, dict(summary.counted)
    printed, seconds = command.finished()
    summary = command.summary()
    print(f"{'to the end':<24}{seconds:>8.1f}  {described(summary)}")
    print(f"{'Beam, last run':<24}{'':>8}  {json.dumps(printed['this_run'])}", flush=True)
    yield from untouched(before, command.done())
    if summary.missing:
        yield f"{summary.missing} photographs are lost"
    for name, count in summary.counted.items():
        by_beam = printed["this_run"].get(name, 0)
        if held.get(name, 0) + by_beam != count:
            yield f"{name}: {held.get(name, 0)} before and {by_beam} by Beam, {count} in all"
    printed, seconds = command.finished()
    print(f"{'once more':<24}{seconds:>8.1f}  {json.dumps(printed['this_run'])}", flush=True)
    yield from untouched(before, command.done())


def described(summary: Summary) -> str:
    """Counters beside the folder's content, in one line."""
    parts = [f"{count} {name}" for name, count in summary.counted.items()]
    parts += [f"{count} {name}" for name, count in summary.more.items() if name != "bytes"]
    return f"{', '.join(parts)}; {summary.missing} missing of {summary.found}"


def untouched(before: dict[str, int], now: dict[str, int]) -> Iterator[str]:
    """What became of outputs that were there."""
    for name, written in before.items():
        if now.get(name) != written:
            yield f"{name} was written again" if name in now else f"{name} is gone"


def check_records(plan: Preparation, photographs: Path, sample: int) -> Iterator[str]:
    """What is wrong with a training set, by the folder and by the records themselves."""
    names = {path.relative_to(photographs).as_posix() for path in image_files(photographs)}
    summary = plan.summary()
    held = [
        name
        for shard in range(plan.shards)
        for name in json.loads(plan.note("shard", shard).read_text())["records"]
    ]
    left_out = [one.name for one in summary.skipped]
    every = held + left_out
    if len(set(every)) < len(every):
        yield f"{len(every) - len(set(every))} photographs are counted twice"
    if set(every) != names:
        yield f"{len(set(every) ^ names)} photographs differ from the folder's content"
    source: Any = open_source(f"records:{plan.output}/{plan.name}-*.array_record")
    digests = {hashlib.sha256(source.source[i]).digest() for i in range(len(source))}
    print(f"{len(source)} records, {len(digests)} of them different, of {len(held)} photographs")
    if not len(source) == len(digests) == len(held):
        yield "records are lost or twice"
    if undecodable := sum(source[i] is None for i in range(len(source))):
        yield f"{undecodable} records do not decode"
    step = max(1, len(held) // sample)
    for index in range(0, len(held), step):
        alone = plan.selection.record(plan.read(held[index]), held[index])
        if source.source[index] != alone:
            yield f"record {index} is not that of {held[index]}"


def check_files(plan: Compression) -> Iterator[str]:
    """What is wrong with compressed files."""
    for path in sorted(plan.output.rglob("*.llic")):
        try:
            LlicFile.from_bytes(path.read_bytes())
        except LlicError as error:
            yield f"{path.name}: {error}"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photographs", type=Path, help="a folder")
    parser.add_argument("--workers", type=int, default=2, help="of Beam, on this machine")
    parser.add_argument("--kills", type=int, default=2, help="of each command")
    parser.add_argument("--shards", type=int, default=16)
    parser.add_argument("--reduce", type=float, default=1.5)
    parser.add_argument("--sample", type=int, default=50, help="records that are made again")
    parser.add_argument("--compress", type=int, default=0, help="photographs, the smallest files")
    args = parser.parse_args()
    problems: list[str] = []
    workers = f"--direct_num_workers={args.workers}"
    with tempfile.TemporaryDirectory() as name:
        photographs, output = args.photographs.absolute(), Path(name) / "records"
        arguments = [str(photographs), str(output), f"--shards={args.shards}"]
        arguments += [f"--reduce={args.reduce}", workers]
        selection = Selection(reduce=args.reduce)

        def prepared() -> Preparation:
            return Preparation.begin([photographs], output, "photographs", args.shards, selection)

        def shards() -> Iterator[Path]:
            # A shard without its note is not done, and is written again.
            for note in output.glob("photographs.state/shard-*.json"):
                (records,) = output.glob(f"photographs-{note.stem[-5:]}-of-*")
                yield records

        command = Command(["prepare", *arguments], shards, lambda: prepared().summary())
        print(f"prepare, {args.workers} workers, {args.shards} shards")
        problems += try_command(command, args.shards, args.kills)
        problems += check_records(prepared(), photographs, args.sample)
        if args.compress:
            some, files = Path(name) / "some", Path(name) / "files"
            some.mkdir()
            smallest = sorted(image_files(photographs), key=lambda path: path.stat().st_size)
            for path in smallest[: args.compress]:
                (some / path.name).symlink_to(path)

            def compressed() -> Compression:
                return Compression.begin(some, files, Coding(quality=4.0))

            coding = ["compress", str(some), str(files), "--quality=4", workers]
            command = Command(coding, lambda: files.rglob("*.llic"), lambda: compressed().summary())
            print(f"\ncompress, {args.workers} workers, {args.compress} photographs")
            problems += try_command(command, args.compress, args.kills)
            problems += check_files(compressed())
    print("\n".join(problems) if problems else "nothing was lost, nothing is there twice")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())

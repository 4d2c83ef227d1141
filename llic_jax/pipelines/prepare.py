"""Photographs to the array records of a training set.

    1. digest    each shard's photographs -> SHA-256 of their files
    2. shard     each shard's photographs -> NAME-00003-of-00016.array_record

A hash of its name decides a photograph's shard. Of files with the same bytes, whatever their
shards, the first by name is taken: hence the step before. A shard is done when the note of what
became of its photographs is there, which is written after it; it is the sum over these notes that
tells what the set holds.
"""

import dataclasses
import functools
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from llic_jax.data.image_files import image_files
from llic_jax.errors import DataError, OutputError, PipelineError
from llic_jax.pipelines.selection import Selection, digest_of
from llic_jax.pipelines.work import (
    Counts,
    SkipError,
    Skipped,
    State,
    Step,
    Summary,
    count_skipped,
    names_digest,
    read_names,
    shard_of,
)
from llic_jax.system.files import whole_file, write_json

_A_SHARD = 128  # photographs, about, unless a number of shards is named


@dataclasses.dataclass(frozen=True)
class Preparation:
    """One training set in the making.

    Attributes:
        sources: Folders of photographs.
        output: The folder of the shards.
        name: That the shards' names begin with.
        shards: Their number.
        count: Of all photographs.
        names: The list of them, as `State.keep_names` wrote it.
        state: Of the runs.
        selection: What is taken.
    """

    sources: tuple[Path, ...]
    output: Path
    name: str
    shards: int
    count: int
    names: Path
    state: State
    selection: Selection

    @classmethod
    def begin(
        cls,
        sources: Sequence[Path],
        output: Path,
        name: str,
        shards: int | None,
        selection: Selection,
    ) -> "Preparation":
        """Lists the photographs and checks that earlier runs were of the same.

        Args:
            sources: Folders of photographs, with all folders below them.
            output: A folder, made if need be.
            name: As above.
            shards: None for about 128 photographs in each.
            selection: As above.

        Raises:
            DataError: A folder has no photographs, or cannot be read.
            PipelineError: An earlier run had other photographs or settings.
        """
        if "/" in name or not name:
            raise PipelineError(f"The name {name!r} cannot begin the names of files.")
        names = list(_names(sources))
        shards = shards or max(1, round(len(names) / _A_SHARD))
        settings: dict[str, Any] = dataclasses.asdict(selection)
        settings |= {"shards": shards, "photographs": f"{len(names)} ({names_digest(names)})"}
        state = State.begin(output, name, settings)
        path = state.keep_names(names)
        return cls(tuple(sources), output, name, shards, len(names), path, state, selection)

    @property
    def steps(self) -> list[Step]:
        """What is to be done, in order."""
        return [Digests(self), Shards(self)]

    def records(self, shard: int) -> Path:
        """The file of a shard.

        Args:
            shard: Its number, from 0.
        """
        return self.output / f"{self.name}-{shard:05d}-of-{self.shards:05d}.array_record"

    def note(self, kind: str, shard: int) -> Path:
        """The note that a step leaves of a shard.

        Args:
            kind: The step's name.
            shard: The shard's number.
        """
        return self.state.folder / f"{kind}-{shard:05d}.json"

    def read(self, name: str) -> bytes:
        """The bytes of a photograph's file.

        Args:
            name: As in the list.
        """
        source = self.sources[0]
        if len(self.sources) > 1:
            number, _, name = name.partition("/")
            source = self.sources[int(number)]
        return (source / name).read_bytes()

    def summary(self) -> Summary:
        """What the shards hold that are done."""
        counted: Counter[str] = Counter()
        skipped: list[Skipped] = []
        size, done = 0, 0
        unfinished = set(Shards(self).missing())
        for shard in range(self.shards):
            if shard not in unfinished:
                note = json.loads(self.note("shard", shard).read_text())
                counted["records"] += len(note["records"])
                skipped += [Skipped(**one) for one in note["skipped"]]
                size += note["bytes"]
                done += 1
        counted += count_skipped(skipped)
        more = {"shards": done, "shards to do": len(unfinished), "bytes": size}
        return Summary(self.count, counted, more, skipped)


def _names(sources: Sequence[Path]) -> Iterator[str]:
    """Names within the source; with several, the source's number comes first."""
    for number, source in enumerate(sources):
        for path in image_files(source):
            name = path.relative_to(source).as_posix()
            yield name if len(sources) == 1 else f"{number}/{name}"


@dataclasses.dataclass(frozen=True)
class Digests:
    """Step 1.

    Attributes:
        plan: The training set.
        name: "digest".
    """

    plan: Preparation
    name: str = "digest"

    def missing(self) -> list[int]:
        shards = range(self.plan.shards)
        return [shard for shard in shards if not self.plan.note(self.name, shard).exists()]

    def open(self) -> "DigestWorker":
        return DigestWorker(self.plan)


class _ShardWorker:
    """Knows which photographs are a shard's."""

    def __init__(self, plan: Preparation):
        self.plan = plan
        self._shards: list[list[str]] = [[] for _ in range(plan.shards)]
        for name in read_names(plan.names):
            self._shards[shard_of(name, plan.shards)].append(name)

    def names(self, shard: int) -> list[str]:
        """The names of a shard's photographs.

        Args:
            shard: Its number.
        """
        return self._shards[shard]


class DigestWorker(_ShardWorker):
    """Reads files and hashes their bytes.

    Args:
        plan: The training set.
    """

    def do(self, unit: int) -> Counts:
        digests, failed = {}, {}
        for name in self.names(unit):
            try:
                digests[name] = digest_of(self.plan.read(name))
            except OSError as error:
                failed[name] = str(error.strerror)
        write_json(self.plan.note("digest", unit), {"digests": digests, "failed": failed})
        return {"files hashed": len(digests), "files that cannot be opened": len(failed)}


@dataclasses.dataclass(frozen=True)
class Shards:
    """Step 2.

    Attributes:
        plan: The training set.
        name: "shard".
    """

    plan: Preparation
    name: str = "shard"

    def missing(self) -> list[int]:
        return [shard for shard in range(self.plan.shards) if not self._is_done(shard)]

    def _is_done(self, shard: int) -> bool:
        try:
            size = json.loads(self.plan.note(self.name, shard).read_text())["bytes"]
            return self.plan.records(shard).stat().st_size == size
        except FileNotFoundError:
            return False

    def open(self) -> "ShardWorker":
        return ShardWorker(self.plan)


class ShardWorker(_ShardWorker):
    """Decodes, selects, reduces and encodes photographs, and writes shards of them.

    Args:
        plan: The training set.
    """

    @functools.cached_property
    def _notes(self) -> tuple[dict[str, str], dict[str, str], dict[str, str]]:
        """By name: digests, reasons of files that cannot be opened; by digest: the first name.

        Not in `__init__`: some runners make workers before the first step has begun.
        """
        digests: dict[str, str] = {}
        failed: dict[str, str] = {}
        for shard in range(self.plan.shards):
            note = json.loads(self.plan.note("digest", shard).read_text())
            digests |= note["digests"]
            failed |= note["failed"]
        first: dict[str, str] = {}
        for name, digest in digests.items():
            first[digest] = min(name, first.get(digest, name))
        return digests, failed, first

    def do(self, unit: int) -> Counts:
        from array_record.python.array_record_module import ArrayRecordWriter

        taken: list[str] = []
        skipped: list[Skipped] = []
        target = self.plan.records(unit)
        with whole_file(target) as temporary:
            # One record a group: training reads them in a random order.
            writer = ArrayRecordWriter(str(temporary), "group_size:1")
            try:
                for name in self.names(unit):
                    try:
                        writer.write(self._record(name))
                        taken.append(name)
                    except SkipError as reason:
                        skipped.append(Skipped(name, reason.kind, reason.message))
            finally:
                writer.close()
            size = temporary.stat().st_size
        note = {
            "records": taken,
            "skipped": [dataclasses.asdict(one) for one in skipped],
            "bytes": size,
        }
        write_json(self.plan.note("shard", unit), note)
        return {"records": len(taken), **count_skipped(skipped), "shards": 1, "bytes": size}

    def _record(self, name: str) -> bytes:
        digests, failed, first = self._notes
        if name in failed:
            raise SkipError("cannot be read", failed[name])
        digest = digests[name]
        if first[digest] != name:
            raise SkipError("duplicate", f"the same bytes as {first[digest]}")
        try:
            data = self.plan.read(name)
        except OSError as error:
            raise DataError(f"{name} was there before: {error.strerror}. Get it back.") from error
        if digest_of(data) != digest:
            raise DataError(
                f"{name} has changed since this training set was begun. Get the earlier file back, "
                f"or remove {self.plan.state.folder} and the shards to begin anew."
            )
        return self.plan.selection.record(data, name)


def check_output(output: Path) -> None:
    """Checks that shards can be written.

    Args:
        output: Their folder.

    Raises:
        OutputError: The package array_record is missing, or the folder cannot be made.
    """
    try:
        import array_record.python.array_record_module  # noqa: F401
    except ImportError as error:
        raise OutputError(
            "Array records need the package array_record; `pip install array_record` brings it."
        ) from error
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{output} cannot be made: {error.strerror}. Name another.") from error

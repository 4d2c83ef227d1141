"""Work in units that can be done in any order, by any process, and again: no Apache Beam here.

A unit writes its outputs whole, under names that the unit alone decides. So a unit that is
repeated, because its process died or because a runner retries it, replaces its own outputs and adds
nothing. A later run does the units whose outputs are missing.
"""

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from llic_jax.errors import DataError, OutputError, PipelineError
from llic_jax.system.files import write_json

Counts = Mapping[str, int]
_PLAN = "plan.json"


@runtime_checkable
class Worker(Protocol):
    """Does units, in one process."""

    def do(self, unit: int) -> Counts:
        """Does a unit and writes its outputs.

        Args:
            unit: Its number.

        Returns:
            What was counted, by name.

        Raises:
            LlicError: The unit cannot be done, also not by another try.
        """


@runtime_checkable
class Step(Protocol):
    """A part of the work whose units do not depend on each other; it pickles small.

    Attributes:
        name: One word.
    """

    @property
    def name(self) -> str:
        """One word."""

    def missing(self) -> list[int]:
        """The units whose outputs are not there."""

    def open(self) -> Worker:
        """What does the units; made once in each process."""


@dataclasses.dataclass(frozen=True)
class Skipped:
    """A file that no output was made of.

    Attributes:
        name: Of the file, in its source.
        kind: The reason in a word or two, the same for all files of this kind.
        message: The reason.
    """

    name: str
    kind: str
    message: str


@dataclasses.dataclass(frozen=True)
class Summary:
    """What the outputs hold, after this run and those before it.

    Attributes:
        found: Files in the source.
        counted: What became of them, by name. Complete work counts every file once.
        more: Other figures of the outputs, by name.
        skipped: The files that no output was made of.
    """

    found: int
    counted: Counts
    more: Counts
    skipped: Sequence[Skipped] = ()

    @property
    def missing(self) -> int:
        """Files that nothing is known of."""
        return self.found - sum(self.counted.values())


class SkipError(Exception):
    """A file that no output is made of.

    Args:
        kind: As of `Skipped`.
        message: Likewise.
    """

    def __init__(self, kind: str, message: str):
        super().__init__(message)
        self.kind, self.message = kind, message


@dataclasses.dataclass(frozen=True)
class State:
    """A folder in the output that holds what the runs of one command must know of each other.

    Attributes:
        folder: The folder.
    """

    folder: Path

    @classmethod
    def begin(cls, output: Path, name: str, settings: Mapping[str, Any]) -> "State":
        """The state of a command's runs; the first one fixes the settings.

        Args:
            output: The folder of the outputs, made if need be.
            name: Of the work.
            settings: Everything that outputs depend on, as JSON has it.

        Raises:
            PipelineError: An earlier run had other settings.
            OutputError: The folder cannot be made or read.
        """
        state = cls(output / f"{name}.state")
        path = state.folder / _PLAN
        try:
            state.folder.mkdir(parents=True, exist_ok=True)
            before = json.loads(path.read_text()) if path.exists() else None
        except (OSError, ValueError) as error:
            raise OutputError(
                f"{state.folder} cannot be used ({error}). Name another output."
            ) from error
        now = json.loads(json.dumps(dict(settings)))  # as a file gives it back
        if before is None:
            write_json(path, now)
        elif before != now:
            changes = [
                f"{field} was {before.get(field)!r} and is {now.get(field)!r}"
                for field in sorted({*before, *now})
                if before.get(field) != now.get(field)
            ]
            raise PipelineError(
                f"{output} was begun with other settings: {'; '.join(changes)}. Outputs of both "
                "would be mixed. Take the earlier settings, or name another output."
            )
        for file in state._failures():
            file.unlink(missing_ok=True)
        return state

    def keep_names(self, names: Sequence[str]) -> Path:
        """Writes a list of names for the workers; lists that differ have different files.

        Args:
            names: Of the files of the source, in order.

        Returns:
            The list's path.
        """
        path = self.folder / f"files-{names_digest(names)}.json"
        if not path.exists():
            write_json(path, {"files": list(names)})
        return path

    def fail(self, step: str, unit: int, message: str) -> None:
        """Notes that a unit cannot be done.

        Args:
            step: Its step's name.
            unit: Its number.
            message: The reason.
        """
        write_json(self.folder / f"failed-{step}-{unit}.json", {"message": message})

    def failures(self) -> list[str]:
        """The reasons why units of this run could not be done."""
        return [json.loads(file.read_text())["message"] for file in self._failures()]

    def _failures(self) -> list[Path]:
        return sorted(self.folder.glob("failed-*.json"))

    def skip(self, skipped: Skipped) -> None:
        """Notes that no output is made of a file, for the next run to know.

        Args:
            skipped: The file, and why.
        """
        write_json(self._note(skipped.name), dataclasses.asdict(skipped))

    def take_back(self, name: str) -> None:
        """Forgets that a file was skipped.

        Args:
            name: Of the file.
        """
        self._note(name).unlink(missing_ok=True)

    def _note(self, name: str) -> Path:
        return self.folder / f"skipped-{hashlib.sha256(_encoded(name)).hexdigest()[:24]}.json"

    def all_skipped(self) -> Iterator[Skipped]:
        """The files that were noted by `skip`."""
        for file in sorted(self.folder.glob("skipped-*.json")):
            yield Skipped(**json.loads(file.read_text()))


def read_names(path: Path) -> list[str]:
    """The names that `State.keep_names` has written.

    Args:
        path: Of the list.

    Raises:
        DataError: The worker's machine does not see it.
    """
    try:
        return json.loads(path.read_text())["files"]
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror}). Source and output must be folders that "
            "every machine sees under the same names."
        ) from error


def names_digest(names: Sequence[str]) -> str:
    """Sixteen digits that stand for a list of names.

    Args:
        names: In order.
    """
    digest = hashlib.sha256()
    for name in names:
        digest.update(_encoded(name) + b"\0")
    return digest.hexdigest()[:16]


def shard_of(name: str, shards: int) -> int:
    """The shard of a file. It depends on nothing but the name.

    Args:
        name: Of the file, in its source.
        shards: Their number.
    """
    return int.from_bytes(hashlib.sha256(_encoded(name)).digest()[:8], "big") % shards


def count_skipped(skipped: Sequence[Skipped]) -> Counter[str]:
    """How many files were skipped, by reason.

    Args:
        skipped: The files.
    """
    return Counter(f"skipped, {one.kind}" for one in skipped)


def _encoded(name: str) -> bytes:
    return name.encode(errors="surrogateescape")  # names need not be text

"""A folder of photographs to a folder of `.llic` files, as `llic compress` makes them.

A unit is a photograph. Its file is written whole, so a file that is there is done.
"""

import dataclasses
import functools
import threading
from collections import Counter
from pathlib import Path
from typing import Any

from llic_jax.cli import batch
from llic_jax.errors import DataError, ImageFileError, InputError
from llic_jax.images.photograph import SUFFIXES
from llic_jax.pipelines.work import (
    Counts,
    SkipError,
    Skipped,
    State,
    Step,
    Summary,
    count_skipped,
    read_names,
)
from llic_jax.system.files import whole_file
from llic_jax.zoo.installed import describe_folder, folder_of
from llic_jax.zoo.registry import PACKAGED, registry


@dataclasses.dataclass(frozen=True)
class Coding:
    """How photographs are compressed; as of `llic compress`.

    Attributes:
        model: Name or folder; None for the recommended one.
        quality: None for the middle, or with a target.
        target_bpp: Bits per pixel.
        target_psnr: dB.
        keep_exif: Whether EXIF, XMP and resolution go along.
        to_8bit: Whether images of more than 8 bits a channel are converted.
        strict_llic: Whether the networks code drawings, too.
        memory_gb: For one image.
    """

    model: str | None = None
    quality: float | None = None
    target_bpp: float | None = None
    target_psnr: float | None = None
    keep_exif: bool = False
    to_8bit: bool = False
    strict_llic: bool = False
    memory_gb: float = 4.0

    def settings(self) -> dict[str, Any]:
        """What the files depend on.

        Raises:
            LlicError: No such model.
        """
        folder = PACKAGED / registry().recommended if self.model is None else folder_of(self.model)
        fields = dataclasses.asdict(self)
        del fields["memory_gb"]
        return fields | {"model": describe_folder(folder).fingerprint}


@dataclasses.dataclass(frozen=True)
class Compression:
    """One folder on its way to `.llic` files; the only step of this work.

    Attributes:
        source: The folder of photographs.
        output: The folder of files.
        names: The list of photographs, as `State.keep_names` wrote it.
        state: Of the runs.
        coding: See there.
        name: "compress".
    """

    source: Path
    output: Path
    names: Path
    state: State
    coding: Coding
    name: str = "compress"

    @classmethod
    def begin(cls, source: Path, output: Path, coding: Coding) -> "Compression":
        """Lists the photographs and checks that earlier runs had the same settings.

        Args:
            source: A folder of photographs, with all folders below it.
            output: A folder, made if need be.
            coding: See `Coding`.

        Raises:
            LlicError: No photographs; two of them would become one file; other settings.
        """
        if not source.is_dir():
            raise DataError(f"{source} is not a folder; name a folder that holds photographs.")
        found = batch.file_tasks([source], f"{output}/", ".llic", SUFFIXES, "replace", _any)
        for error in found.unreadable:
            raise DataError(f"The folder {error.filename} cannot be read ({error.strerror}).")
        state = State.begin(output, "compress", coding.settings())
        names = [task.source.relative_to(source).as_posix() for task in found.tasks]
        return cls(source, output, state.keep_names(names), state, coding)

    @property
    def steps(self) -> list[Step]:
        """What is to be done, in order."""
        return [self]

    def target(self, name: str) -> Path:
        """The file of a photograph.

        Args:
            name: As in the list.
        """
        return self.output / Path(name).with_suffix(".llic")

    def missing(self) -> list[int]:
        names = read_names(self.names)
        return [unit for unit, name in enumerate(names) if not self.target(name).exists()]

    def open(self) -> "CompressionWorker":
        return CompressionWorker(self)

    def summary(self) -> Summary:
        """What has become of the photographs so far."""
        names = read_names(self.names)
        done = {name for name in names if self.target(name).exists()}
        rest = set(names) - done
        skipped = [one for one in self.state.all_skipped() if one.name in rest]
        counted = Counter({"files": len(done)}) + count_skipped(skipped)
        size = sum(self.target(name).stat().st_size for name in done)
        return Summary(len(names), counted, {"bytes": size}, skipped)


def _any(path: Path) -> None:
    """Every name of an output will do."""


class CompressionWorker:
    """Compresses photographs with one codec, loaded when it is first needed.

    Args:
        plan: What is compressed.
    """

    def __init__(self, plan: Compression):
        self.plan = plan
        self._names = read_names(plan.names)
        self._lock = threading.Lock()  # a process may have several threads

    @functools.cached_property
    def _codec(self) -> Any:
        """Not in `__init__`: a process without a photograph loads no model."""
        from llic_jax.codec.model import Limits
        from llic_jax.execution import program_cache
        from llic_jax.zoo.folder import load_codec

        program_cache.enable()
        return load_codec(
            self.plan.coding.model, limits=Limits(memory_gb=self.plan.coding.memory_gb)
        )

    def do(self, unit: int) -> Counts:
        name = self._names[unit]
        target = self.plan.target(name)
        if target.exists():  # a try before this one has come so far
            return {"files found": 1}
        try:
            data = self._compressed(name)
        except SkipError as reason:
            skipped = Skipped(name, reason.kind, reason.message)
            self.plan.state.skip(skipped)
            return count_skipped([skipped])
        with whole_file(target) as temporary:
            temporary.write_bytes(data)
        self.plan.state.take_back(name)
        return {"files": 1, "bytes": len(data)}

    def _compressed(self, name: str) -> bytes:
        from llic_jax.images.read import read_photograph
        from llic_jax.zoo.library import compress

        coding = self.plan.coding
        with self._lock:
            codec = self._codec
        try:
            path = self.plan.source / name
            photograph = read_photograph(path, name=name, to_8bit=coding.to_8bit)
        except (ImageFileError, OSError) as error:
            raise SkipError("cannot be read", str(error).removeprefix(f"{name} ")) from error
        try:
            return compress(
                photograph,
                coding.quality,
                target_bpp=coding.target_bpp,
                target_psnr=coding.target_psnr,
                keep_exif=coding.keep_exif,
                strict_llic=coding.strict_llic,
                model=codec,
            )
        except InputError as error:
            raise SkipError("cannot be coded", str(error)) from error

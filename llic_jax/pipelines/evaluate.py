"""The figures that `eval.py` takes, measured on many images by many processes.

A unit is an image: its figures at all qualities go to a file of its own, and from there to the
`results.jsonl` of the output, once, when the run ends or the next one begins. `eval.py` with the
same arguments finds them there and writes the report.
"""

import dataclasses
import functools
import hashlib
import json
import shutil
import threading
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llic_jax.data.image_files import RESULTS_FILE
from llic_jax.errors import DataError, ImageFileError, OutputError
from llic_jax.evaluation.image_sets import ImageSet, find_files, image_name
from llic_jax.evaluation.output import Output
from llic_jax.evaluation.results import Key, Result, ResultsFile
from llic_jax.pipelines.work import (
    Counts,
    Skipped,
    State,
    Step,
    Summary,
    count_skipped,
    read_names,
)
from llic_jax.system.files import write_json
from llic_jax.zoo.installed import describe_folder, folder_of
from llic_jax.zoo.registry import PACKAGED, registry

_PARTS = "parts"


@dataclasses.dataclass(frozen=True)
class Measured:
    """What is measured with, as of `evaluation.trials.trials`.

    Attributes:
        checkpoints: Released folders; none for the built-in model.
        qualities: None for every level.
        coder: None for the first that is installed.
        refinements: Gradient steps, each number a curve of its own.
        codecs: Those to compare with; None for all.
    """

    checkpoints: tuple[Path, ...] = ()
    qualities: tuple[float, ...] | None = None
    coder: str | None = None
    refinements: tuple[int, ...] = (0,)
    codecs: tuple[str, ...] | None = None

    def digest(self) -> str:
        """Sixteen digits that stand for these settings and models.

        Raises:
            LlicError: No such model.
        """
        folders = self.checkpoints or (PACKAGED / registry().recommended,)
        models = [describe_folder(folder_of(folder)).fingerprint for folder in folders]
        return hashlib.sha256(f"{models} {self}".encode()).hexdigest()[:16]


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """One set of images that is measured; the only step of this work.

    Attributes:
        set_name: Of the images.
        published: See `ImageSet`.
        strict: Whether each file must be an image, as those of a data set.
        output: The folder of the evaluation.
        names: The list of the images' paths, as `State.keep_names` wrote it.
        state: Of the runs.
        measured: See there.
        digest: Of these.
        name: "evaluate".
    """

    set_name: str
    published: str | None
    strict: bool
    output: Path
    names: Path
    state: State
    measured: Measured
    digest: str
    name: str = "evaluate"

    @classmethod
    def begin(
        cls,
        sources: Sequence[Path | str],
        dataset: str | None,
        held_out: int | Path,
        output: Path,
        measured: Measured,
    ) -> "Evaluation":
        """Lists the images and collects what earlier runs have measured.

        Args:
            sources: As of `find_files`.
            dataset: Likewise.
            held_out: Likewise.
            output: The folder, made if need be.
            measured: See `Measured`.

        Raises:
            DataError: No images are named, or as `find_files`.
            OutputError: The folder cannot be used.
            ResultsError: Its results cannot be continued.
        """
        if not sources and dataset is None:
            raise DataError("Name images with --data_dir or --dataset.")
        found = find_files(sources, dataset, held_out)
        files = [path.absolute() for path in found.files]
        state = State.begin(output, "evaluate", {})
        plan = cls(
            found.name,
            found.published,
            dataset is not None,
            output,
            state.keep_names([str(path) for path in files]),
            state,
            measured,
            measured.digest(),
        )
        plan.collect()
        return plan

    @property
    def steps(self) -> list[Step]:
        """What is to be done, in order."""
        return [self]

    def part(self, image: str) -> Path:
        """The folder of an image's figures, until they are collected.

        Args:
            image: Its name.
        """
        digest = hashlib.sha256(image.encode(errors="surrogateescape")).hexdigest()
        return self.state.folder / _PARTS / digest[:24]

    def done(self, image: str) -> Path:
        """The note that an image is measured with these settings.

        Args:
            image: Its name.
        """
        return self.state.folder / f"measured-{self.part(image).name}-{self.digest}.json"

    def missing(self) -> list[int]:
        names = read_names(self.names)
        measured = self._measured([image_name(Path(name)) for name in names])
        return [unit for unit, name in enumerate(names) if image_name(Path(name)) not in measured]

    def _measured(self, images: Sequence[str]) -> dict[str, int]:
        """The images of which `results.jsonl` has all figures, and how many these are."""
        results = ResultsFile(self.output / RESULTS_FILE).results
        found = {}
        for image in images:
            if self.done(image).exists():
                curves = json.loads(self.done(image).read_text())["curves"]
                if all((codec, setting, image) in results for codec, setting in curves):
                    found[image] = len(curves)
        return found

    def open(self) -> "EvaluationWorker":
        return EvaluationWorker(self)

    def collect(self) -> int:
        """Adds the figures of finished and unfinished images to `results.jsonl`, each once.

        Returns:
            How many there were to add.
        """
        added = 0
        try:
            self.output.mkdir(parents=True, exist_ok=True)
            whole = ResultsFile(self.output / RESULTS_FILE)
            for part in sorted((self.state.folder / _PARTS).glob(f"*/{RESULTS_FILE}")):
                for key, result in ResultsFile(part).results.items():
                    if key not in whole.results:
                        whole.add(result)
                        added += 1
                shutil.rmtree(part.parent)
        except OSError as error:
            raise OutputError(f"{self.output} cannot take the results: {error}.") from error
        return added

    def summary(self) -> Summary:
        """What `results.jsonl` holds."""
        self.collect()
        images = [image_name(Path(name)) for name in read_names(self.names)]
        measured = self._measured(images)
        rest = set(images) - set(measured)
        skipped = [one for one in self.state.all_skipped() if one.name in rest]
        counted = Counter({"images": len(measured)}) + count_skipped(skipped)
        return Summary(len(images), counted, {"figures": sum(measured.values())}, skipped)


class EvaluationWorker:
    """Measures images with codecs that are loaded when they are first needed.

    Args:
        plan: What is measured.
    """

    def __init__(self, plan: Evaluation):
        self.plan = plan
        self._files = [Path(name) for name in read_names(plan.names)]
        self._lock = threading.Lock()  # a process may have several threads

    @functools.cached_property
    def _trials(self) -> list[Any]:
        """Not in `__init__`: a process without an image loads no model."""
        from llic_jax.evaluation.trials import trials
        from llic_jax.execution import program_cache
        from llic_jax.zoo.folder import DEFAULT_FOLDER

        program_cache.enable()
        chosen = self.plan.measured
        return trials(
            chosen.checkpoints or [DEFAULT_FOLDER],
            chosen.qualities,
            chosen.coder,
            chosen.refinements,
            chosen.codecs,
        )

    @functools.cached_property
    def _known(self) -> dict[str, dict[Key, Result]]:
        """What was measured before this run, by image."""
        known: dict[str, dict[Key, Result]] = {}
        for key, result in ResultsFile(self.plan.output / RESULTS_FILE).results.items():
            known.setdefault(key[2], {})[key] = result
        return known

    def do(self, unit: int) -> Counts:
        from llic_jax.evaluation.measure import measure
        from llic_jax.images.read import read_image

        path = self._files[unit]
        image = image_name(path)
        try:
            pixels = read_image(path)
        except FileNotFoundError as error:
            raise DataError(f"No file {error.filename}.") from error
        except ImageFileError as error:
            if self.plan.strict:
                raise
            skipped = Skipped(image, "cannot be read", str(error).removeprefix(f"{path} "))
            self.plan.state.skip(skipped)
            return count_skipped([skipped])
        images = ImageSet(self.plan.set_name, self.plan.published, [(image, pixels)])
        output = Output(self.plan.part(image), images)
        with self._lock:
            trials, before = self._trials, self._known.get(image, {})
        output.results.results |= before
        results = measure(trials, images, output, progress=False)
        new = sum(result.key not in before for result in results)
        curves = [result.key[:2] for result in results]
        write_json(self.plan.done(image), {"image": image, "curves": curves})
        self.plan.state.take_back(image)
        return {"images": 1, "figures": new}

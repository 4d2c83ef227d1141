"""Rate and distortion from real files: every image is written, read back and decoded.

image -> encode -> FILE.llic -> read -> decode -> compare with the original and with the
                                                  encoder's own reconstruction

`load_images` and `trials` say what is measured on which images, `Output` where figures go, and
`measure` does it. Each figure goes to `OUTPUT/results.jsonl` as soon as it is measured; a run that
is started again with the same output measures what is missing.
"""

import collections
import dataclasses
import functools
import hashlib
import json
import os
import platform
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from llic_jax import baselines, compilation_cache, datasets, metrics, release
from llic_jax.coding import effort
from llic_jax.coding.codec import Codec
from llic_jax.data import DataError, split_held_back
from llic_jax.errors import LlicError
from llic_jax.files import whole_file
from llic_jax.images import SUFFIXES, ImageFileError, read_image, write_image
from llic_jax.measuring import CodecUnderTest, Image, Measurement, Quality, run_tasks
from llic_jax.provenance import versions
from llic_jax.records import Key, Result, ResultsFile, averages, incomparable
from llic_jax.sources import OUTPUT_FOLDERS, RESULTS_FILE, image_files

# Photographs that scikit-image ships with its package (no download).
EMBEDDED = ("astronaut", "chelsea", "coffee", "motorcycle", "rocket")

Images = list[tuple[str, Image]]


class OutputError(LlicError, OSError):
    """A folder that cannot take the results."""


class TrialError(LlicError, ValueError):
    """Codecs that cannot be measured together."""


@dataclasses.dataclass(frozen=True)
class ImageSet:
    """Images to measure on.

    Attributes:
      name: In words.
      published: The data set's name among published figures. None: it has none.
      images: Name and pixels, uint8 `(H, W, 3)`, of each.
      files: Where they were read from; empty for embedded ones.
    """

    name: str
    published: str | None
    images: Images
    files: tuple[Path, ...] = ()


def load_images(
    sources: Sequence[str | Path] = (), dataset: str | None = None, held_out: int = 0
) -> ImageSet:
    """Loads the images of a data set, of folders and files, or embedded ones.

    Args:
      sources: Folders, searched recursively, and files. None of either: scikit-image's photographs.
      dataset: A name in `datasets.DATASETS`; it is in the only folder in `sources`, if given, and
        else fetched.
      held_out: Takes only those images of the only folder in `sources` that a training run with
        `data.held_back` of that number never sees. 0: takes all.

    Returns:
      The images, read as RGB.

    Raises:
      DataError: Nothing is there, two files have one name, or files are not the data set's;
        `held_out` without a folder.
      ImageFileError: A file of a data set is no RGB image. Others are skipped, with a line each.
    """
    if held_out < 0:
        raise DataError(f"--held_back is {held_out}; it takes a number of photographs.")
    if held_out:
        if dataset is not None or len(sources) != 1 or not Path(sources[0]).is_dir():
            raise DataError("--held_back takes one folder of photographs: name it with --data_dir.")
        photographs = image_files(sources[0])
        _, kept = split_held_back(photographs, held_out)
        files = [photographs[i] for i in kept.indexes]
        return _read(f"{held_out} photographs held back of {_name(Path(sources[0]))}", None, files)
    if dataset is not None:
        if len(sources) > 1:
            raise DataError(f"--dataset {dataset} takes one folder; {len(sources)} are named.")
        files = datasets.dataset_files(dataset, sources[0] if sources else None)
        return _read(dataset, dataset, files, skip=False)
    if not sources:
        return ImageSet("scikit-image's photographs", None, _embedded())
    files = []
    for source in (Path(name).expanduser() for name in sources):
        files += [source] if source.suffix.lower() in SUFFIXES else image_files(source)
    published = datasets.identify(files)
    return _read(published or ", ".join(_name(Path(s)) for s in sources), published, files)


def _read(name: str, published: str | None, files: Sequence[Path], skip: bool = True) -> ImageSet:
    names = [_printable(path.name) for path in files]
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise DataError(f"Several files are called {', '.join(twice)}; rename them, or run apart.")
    images = []
    for file_name, path in zip(names, files, strict=True):
        try:
            images.append((file_name, read_image(path)))
        except FileNotFoundError as error:
            raise DataError(f"No file {error.filename}.") from error
        except ImageFileError as error:
            if not skip:
                raise
            print(f"skipped: {error}", file=sys.stderr)
    if files and not images:
        raise DataError("None of the images can be used; the reasons stand above.")
    return ImageSet(name, published, images, tuple(files))


def _name(path: Path) -> str:
    return _printable(path.resolve().name)


def _printable(name: str) -> str:
    """A file's name as text. Bytes that are not UTF-8 become escapes: no report can hold them."""
    return os.fsencode(name).decode(errors="backslashreplace")


def _embedded() -> Images:
    try:
        from skimage import data
    except ImportError as error:
        raise DataError(
            "The embedded photographs come with scikit-image, which is not installed; install "
            "llic_jax[eval] or name a folder with --data_dir."
        ) from error
    images = {name: getattr(data, name)() for name in EMBEDDED if name != "motorcycle"}
    images["motorcycle"] = data.stereo_motorcycle()[0]
    return [(name, images[name]) for name in EMBEDDED]


class ReleasedModel:
    """The codec in a released folder, loaded when it is first needed; its programs are its own.

    Pickles as its folder's name, so that every process loads it once.

    Args:
      folder: The released folder.
      coder: Range coder (default: the first that is installed).
    """

    def __init__(self, folder: Path, coder: str | None = None):
        self.folder, self.coder = folder, coder
        self._compiled: set[tuple[int, int, bool]] = set()

    def __reduce__(self) -> tuple[Any, ...]:
        return ReleasedModel, (self.folder, self.coder)

    @functools.cached_property
    def codec(self) -> Codec:
        return release.load_codec(self.folder, self.coder)

    @functools.cached_property
    def config(self) -> dict[str, Any]:
        """The config that was released with the weights."""
        return json.loads((self.folder / "config.json").read_text())

    def compile(self, height: int, width: int, refined: bool) -> None:
        """Codes an image of this size once, so that times are those of compiled programs."""
        if (height, width, refined) not in self._compiled:
            black = np.zeros((height, width, 3), np.uint8)
            quality = self.codec.default_quality
            encoded = effort.encode(self.codec, black, quality, steps=int(refined))
            self.codec.decode(encoded.data)
            self._compiled.add((height, width, refined))


@dataclasses.dataclass(frozen=True)
class LlicSystem:
    """A released folder as a codec under test.

    Attributes:
      folder: The released folder.
      coder: Range coder (default: the first that is installed).
      label: Stands for the folder (default: its name).
      curve: Name of the curve (default: the label). Models of one rate each make one together.
      refinement: Gradient steps on the latents of each image (see `effort`).
      separate: See `measuring.CodecUnderTest`.
      model: The folder's codec; given where several systems share it.
    """

    folder: Path
    coder: str | None = None
    label: str | None = None
    curve: str | None = None
    refinement: int = 0
    separate: bool = False
    model: ReleasedModel = dataclasses.field(default=None, repr=False)  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if self.model is None:
            object.__setattr__(self, "model", ReleasedModel(self.folder, self.coder))

    @property
    def codec(self) -> Codec:
        return self.model.codec

    @property
    def name(self) -> str:
        name = self.curve or self.label or _name(self.folder)
        return f"{name}, effort {self.refinement}" if self.refinement else name

    @property
    def model_config(self) -> dict[str, Any]:
        """The model's section of the config (see configs/default.py)."""
        return self.model.config["model"]

    @property
    def version(self) -> str:
        codec = self.codec
        return f"model {codec.fingerprint.hex()}, coder {codec.coder}, jax {jax.__version__}"

    def setting(self, quality: Quality) -> str:
        return self.label or _name(self.folder) if quality is None else f"quality {quality:g}"

    def qualities(self, chosen: Sequence[float] | None) -> list[Quality]:
        """Lists the qualities to measure.

        Args:
          chosen: Some qualities; of equal ones the first counts. None: every level.

        Returns:
          The qualities; [None] for a model of one rate.

        Raises:
          TrialError: The model has no such quality.
        """
        levels = self.codec.model.levels
        if levels == 1:
            return [None]
        for quality in chosen or ():
            if not 1 <= quality <= levels:
                raise TrialError(f"--quality {quality:g}: {self.name} has qualities 1 to {levels}.")
        qualities = map(float, chosen or range(1, levels + 1))
        return list({self.setting(quality): quality for quality in qualities}.values())

    def code(self, image: Image, quality: Quality) -> Measurement:
        codec, (height, width) = self.codec, image.shape[:2]
        self.model.compile(height, width, refined=self.refinement > 0)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "image.llic"
            encoded = effort.encode(codec, image, quality, steps=self.refinement)
            path.write_bytes(encoded.data)
            data = path.read_bytes()
        decoded = codec.decode(data)
        return Measurement(
            bytes=len(data),
            image=decoded.image,
            encode_seconds=encoded.network_seconds + encoded.coder_seconds,
            decode_seconds=decoded.network_seconds + decoded.coder_seconds,
            encode_network_seconds=encoded.network_seconds,
            decode_network_seconds=decoded.network_seconds,
            bits=encoded.bits,
            identical=np.array_equal(decoded.image, codec.reconstruct(encoded, height, width)),
        )


def released_systems(
    folders: Sequence[str | Path], coder: str | None = None, refinements: Sequence[int] = (0,)
) -> list[LlicSystem]:
    """Loads released folders as codecs under test.

    Models of one rate and of equal shape make one curve together. A folder whose name another
    folder or a baseline has as well is named with its model's fingerprint.

    Args:
      folders: Released folders; one that is named twice counts once.
      coder: Range coder (default: the first that is installed).
      refinements: Gradient steps; each number makes curves of its own.

    Returns:
      The systems of the first number of steps, then those of the next.

    Raises:
      ReleaseError: A folder is no released model.
      TrialError: Two folders of one name hold the same model.
    """
    distinct = {Path(folder).resolve(): Path(folder) for folder in folders}
    systems = _labelled([LlicSystem(folder, coder) for folder in distinct.values()])
    groups: dict[str, list[LlicSystem]] = {}
    for system in systems:
        if system.codec.model.levels == 1:
            groups.setdefault(json.dumps(system.model_config), []).append(system)
    curves: dict[Path, str] = {}
    taken = {system.name for system in systems} | set(baselines.FORMATS)
    for group in groups.values():
        if len(group) > 1:
            curve = _common_name([_name(system.folder) for system in group])
            if curve in taken:
                curve = f"{curve} ({_fingerprint(group[0])})"
            taken.add(curve)
            curves.update({system.folder: curve for system in group})
    return [
        dataclasses.replace(system, curve=curves.get(system.folder), refinement=steps)
        for steps in refinements
        for system in systems
    ]


def _labelled(systems: Sequence[LlicSystem]) -> list[LlicSystem]:
    """The systems with distinct labels: names of folders where these are."""
    names = collections.Counter([*baselines.FORMATS, *(_name(s.folder) for s in systems)])
    labelled: dict[str, LlicSystem] = {}
    for system in systems:
        label = _name(system.folder)
        if names[label] > 1:
            label = f"{label} ({_fingerprint(system)})"
        if label in labelled:
            raise TrialError(
                f"{labelled[label].folder} and {system.folder} hold the same model "
                f"({_fingerprint(system)}) and have the same name: their figures could not be told "
                "apart. Name one of them, or rename a folder."
            )
        labelled[label] = dataclasses.replace(system, label=label)
    return list(labelled.values())


def _fingerprint(system: LlicSystem) -> str:
    return system.codec.fingerprint.hex()


def _common_name(names: Sequence[str]) -> str:
    """What names begin with, character by character: llic_0067 and llic_0130 become llic."""
    columns = takewhile(lambda column: len(set(column)) == 1, zip(*names, strict=False))
    return "".join(column[0] for column in columns).rstrip("_-.0123456789") or "LLIC"


@dataclasses.dataclass(frozen=True)
class Trial:
    """A codec and the qualities at which it is measured."""

    system: CodecUnderTest
    qualities: tuple[Quality, ...]


def trials(
    checkpoints: Sequence[str | Path],
    qualities: Sequence[float] | None = None,
    coder: str | None = None,
    refinements: Sequence[int] = (0,),
    codecs: Sequence[str] | None = None,
) -> list[Trial]:
    """Plans what is measured: released models, then other codecs.

    Args:
      checkpoints: Released folders.
      qualities: Of the models with several levels (default: every level).
      coder: Range coder (default: the first that is installed).
      refinements: Gradient steps; each number makes curves of its own.
      codecs: Names of the codecs to compare with (see `baselines.by_names`). None: all.

    Returns:
      The trials, those of the models first.

    Raises:
      ReleaseError: A folder is no released model.
      TrialError: Two folders cannot be told apart.
      BaselineError: A codec's name is not known, or its library is not installed.
    """
    others = baselines.by_names(list(codecs) if codecs is not None else None)
    for other in others:
        _ = other.version  # a library that is missing is named before anything is measured
    systems = released_systems(checkpoints, coder, refinements)
    planned = [Trial(system, tuple(system.qualities(qualities))) for system in systems]
    # One that is named twice counts once.
    return planned + [Trial(other, other.ladder) for other in dict.fromkeys(others)]


class Output:
    """The folder of an evaluation: results, summary, report, figures, decoded images.

    It is made, and written to, before anything is measured.

    Args:
      folder: The folder.
      images: What is to be measured; it must not lie where pictures of the output go.
      save_images: Whether to keep decoded images, as PNGs in `images/CODEC/SETTING/`.

    Attributes:
      folder: The folder.
      save_images: As above.
      results: Its `results.jsonl`.

    Raises:
      OutputError: The folder cannot be made or written to, or has images that are to be measured
        where its own pictures go; or two decoded images would be one file.
      ResultsError: Its results cannot be continued.
    """

    def __init__(self, folder: str | Path, images: ImageSet, save_images: bool = False):
        self.folder, self.save_images = Path(folder), save_images
        own = [(self.folder / name).resolve() for name in OUTPUT_FOLDERS]
        for file in images.files:
            if any(file.resolve().is_relative_to(pictures) for pictures in own):
                raise OutputError(
                    f"{file} is to be measured, and lies where {self.folder} keeps its own "
                    "pictures. Name another --output."
                )
        if save_images:
            self._check_names([name for name, _ in images.images])
        try:
            for name in OUTPUT_FOLDERS if save_images else OUTPUT_FOLDERS[:1]:
                (self.folder / name).mkdir(parents=True, exist_ok=True)
            (self.folder / RESULTS_FILE).open("ab").close()
            self.results = ResultsFile(self.folder / RESULTS_FILE)
        except OSError as error:
            raise OutputError(
                f"{self.folder} cannot take the results: {error}. Name another --output."
            ) from error

    def image_path(self, key: Key) -> Path:
        """Returns where a decoded image is kept."""
        codec, setting, image = (part.replace("%", "%25").replace("/", "%2F") for part in key)
        name = image if image.lower().endswith(".png") else f"{image}.png"
        return self.folder / OUTPUT_FOLDERS[1] / codec / setting.split(",")[0] / name

    def _check_names(self, images: Sequence[str]) -> None:
        names: dict[str, str] = {}
        for image in images:
            # Many file systems do not tell capital letters from small ones.
            path = self.image_path(("codec", "setting", image)).name.lower()
            if (other := names.setdefault(path, image)) != image:
                raise OutputError(
                    f"The decoded images of {other} and {image} would be one file. Rename one of "
                    "them, or leave out --save_images."
                )


def measure(
    planned: Iterable[Trial],
    images: ImageSet,
    output: Output,
    workers: int = 1,
    progress: bool = True,
) -> list[Result]:
    """Measures every trial on every image, where `output` lacks the result.

    Args:
      planned: Codecs and their qualities.
      images: The images.
      output: Takes each result as soon as it is there, and the decoded images.
      workers: Processes.
      progress: Shows a bar for each codec, on a terminal.

    Returns:
      The results by codec, quality and image.

    Raises:
      ResultsError: `output` has figures of other versions, or of other images of the same names.
      WorkerError: A process died.
    """
    digests = {name: hashlib.sha256(image.tobytes()).hexdigest() for name, image in images.images}
    results: dict[Key, Result] = {}
    order: list[Key] = []
    for trial in planned:
        system = trial.system
        version = system.version
        missing: list[tuple[Key, Quality, Image]] = []
        # Image by image: neighbours then share compiled programs.
        for name, image in images.images:
            for quality in trial.qualities:
                key = (system.name, system.setting(quality), name)
                result = output.results.find(key, version, digests[name])
                saved = not output.save_images or output.image_path(key).is_file()
                if result is not None and saved:
                    results[key] = result
                else:
                    missing.append((key, quality, image))
        settings = [system.setting(quality) for quality in trial.qualities]
        order += [(system.name, s, name) for s in settings for name, _ in images.images]
        tasks = [(quality, image) for _, quality, image in missing]
        bar = tqdm(
            total=len(tasks), desc=system.name, unit="image", disable=None if progress else True
        )
        measurements = run_tasks(system, tasks, workers, _process_start(system))
        with bar:
            for (key, quality, image), measurement in zip(missing, measurements, strict=True):
                if output.save_images:
                    path = output.image_path(key)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    write_image(path, measurement.image)
                result = _result(key, version, quality, digests[key[2]], image, measurement)
                output.results.add(result)
                results[key] = result
                bar.update()
    return [results[key] for key in order]


def _process_start(system: CodecUnderTest) -> Any:
    """What a process does before it runs this codec: it finds the compiled programs of this one."""
    if system.separate:
        return None  # JAX must not be imported there
    return functools.partial(_use_compiled, jax.config.values.get("jax_compilation_cache_dir"))


def _use_compiled(folder: str | None) -> None:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = folder or ""
    compilation_cache.enable()


def _result(
    key: Key,
    version: str,
    quality: Quality,
    digest: str,
    image: Image,
    measurement: Measurement,
) -> Result:
    height, width = image.shape[:2]
    similarity = metrics.image_ms_ssim(image, measurement.image)
    bits = measurement.bits
    return Result(
        codec=key[0],
        version=version,
        setting=key[1],
        quality=quality,
        image=key[2],
        digest=digest,
        width=width,
        height=height,
        bytes=measurement.bytes,
        bpp=8 * measurement.bytes / (height * width),
        bpp_estimated=None if bits is None else bits / (height * width),
        psnr=metrics.image_psnr(image, measurement.image),
        psnr_y=metrics.image_psnr_y(image, measurement.image),
        ms_ssim=similarity,
        ms_ssim_db=None if similarity is None else metrics.decibel(similarity),
        encode_seconds=measurement.encode_seconds,
        encode_network_seconds=measurement.encode_network_seconds,
        decode_seconds=measurement.decode_seconds,
        decode_network_seconds=measurement.decode_network_seconds,
        peak_memory=measurement.peak_memory,
        identical=measurement.identical,
    )


def summary(results: Sequence[Result], images: ImageSet, workers: int = 1) -> dict[str, Any]:
    """Averages the results, and states what they were measured on.

    Args:
      results: See `measure`.
      images: The images.
      workers: Processes that measured.

    Returns:
      A tree that is JSON; numbers in it are finite.
    """
    return {
        "images": {"set": images.name, "count": len(images.images)},
        "left_out": {name: sorted(names) for name, names in incomparable(results).items()},
        "versions": versions(),
        "machine": {
            "device": jax.devices()[0].device_kind,
            "cores": os.cpu_count(),
            "platform": f"{platform.system()} {platform.machine()}",
            "workers": workers,
        },
        "codecs": averages(results),
    }


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a file that every reader of JSON takes; whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")

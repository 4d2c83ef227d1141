"""Rate and distortion from real files: every image is written, read back and decoded.

image -> encode -> FILE.llic -> read -> decode -> compare with the original and with the
                                                  encoder's own reconstruction

Each figure goes to `OUTPUT/results.jsonl` as soon as it is measured; a run that is started again
with the same output measures what is missing. `OUTPUT/summary.json` and the report follow.
"""

import dataclasses
import functools
import hashlib
import json
import os
import platform
import sys
import tempfile
from collections.abc import Iterable, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from llic_jax import baselines, datasets, metrics, release
from llic_jax.coding import effort
from llic_jax.coding.codec import Codec
from llic_jax.data import DataError, split_held_back
from llic_jax.images import SUFFIXES, ImageFileError, read_image, write_image
from llic_jax.measuring import Coded, Image, Quality, System, run_jobs
from llic_jax.provenance import versions
from llic_jax.records import Record, RecordFile, averages, table
from llic_jax.sources import image_files

# Photographs that scikit-image ships with its package (no download).
EMBEDDED = ("astronaut", "chelsea", "coffee", "motorcycle", "rocket")

Images = list[tuple[str, Image]]


@dataclasses.dataclass(frozen=True)
class ImageSet:
    """name: in words. published: the data set's name among published figures, None if it has none.
    images: names and pixels."""

    name: str
    published: str | None
    images: Images


def load_images(
    sources: Sequence[str | Path] = (), dataset: str | None = None, held_back: int = 0
) -> ImageSet:
    """The images of a data set (in `sources`, if given), of folders and files, or embedded ones.

    held_back: of the only folder in `sources`, just the images that a training run with
    `data.held_back` of that number never sees.

    Raises:
      DataError: nothing there, two files of one name, or not the data set's files; `held_back`
        without a folder.
      ImageFileError: a file of a data set that is no RGB image. Others are skipped.
    """
    if held_back < 0:
        raise DataError(f"--held_back is {held_back}; it takes a number of photographs.")
    if held_back:
        if dataset is not None or len(sources) != 1 or not Path(sources[0]).is_dir():
            raise DataError("--held_back takes one folder of photographs: name it with --data_dir.")
        photographs = image_files(sources[0])
        _, left_out = split_held_back(photographs, held_back)
        files = [photographs[i] for i in left_out.indexes]
        name = f"{held_back} photographs held back of {Path(sources[0]).resolve().name}"
        return ImageSet(name, None, _read(files))
    if dataset is not None:
        if len(sources) > 1:
            raise DataError(f"--dataset {dataset} takes one folder; {len(sources)} are named.")
        files = datasets.dataset_files(dataset, sources[0] if sources else None)
        return ImageSet(dataset, dataset, _read(files, whole=True))
    if not sources:
        return ImageSet("scikit-image's photographs", None, _embedded())
    files = []
    for source in (Path(name).expanduser() for name in sources):
        files += [source] if source.suffix.lower() in SUFFIXES else image_files(source)
    published = datasets.identify(files)
    return ImageSet(published or ", ".join(Path(s).name for s in sources), published, _read(files))


def _read(files: Sequence[Path], whole: bool = False) -> Images:
    """The images of files. whole: one that cannot be used is an error; else it is skipped, with a
    line that names it."""
    names = [path.name for path in files]
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise DataError(f"Several files are called {', '.join(twice)}; rename them, or run apart.")
    images = []
    for path in files:
        try:
            images.append((_printable(path.name), read_image(path)))
        except FileNotFoundError as error:
            raise DataError(f"No file {error.filename}.") from error
        except ImageFileError as error:
            if whole:
                raise
            print(f"skipped: {error}", file=sys.stderr)
    if files and not images:
        raise DataError("None of the images can be used; the reasons stand above.")
    return images


def _printable(name: str) -> str:
    """A file's name without what is not UTF-8."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


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


@dataclasses.dataclass(frozen=True)
class LlicSystem:
    """A released folder as a system under test. curve: its curve's name, if that is not its own
    (models of one rate each make one curve together). effort: steps of refining (see `effort`)."""

    folder: Path
    coder: str | None = None
    curve: str | None = None
    effort: int = 0
    separate: bool = False

    @property
    def codec(self) -> Codec:
        return _load(self.folder, self.coder)

    @property
    def name(self) -> str:
        name = self.curve or self.folder.resolve().name
        return f"{name}, effort {self.effort}" if self.effort else name

    @property
    def model_config(self) -> dict[str, Any]:
        """The model's section of the config (see configs/default.py)."""
        return json.loads((self.folder / "config.json").read_text())["model"]

    @property
    def version(self) -> str:
        codec = self.codec
        return f"model {codec.fingerprint.hex()}, coder {codec.coder}, jax {jax.__version__}"

    def setting(self, quality: Quality) -> str:
        return self.folder.resolve().name if quality is None else f"quality {quality:g}"

    def qualities(self, chosen: Sequence[float] | None) -> list[Quality]:
        """The chosen ones, or every level; [None] for a model of one rate."""
        levels = self.codec.model.levels
        if levels == 1:
            return [None]
        return list(chosen) if chosen else [float(level) for level in range(1, levels + 1)]

    def code(self, image: Image, quality: Quality) -> Coded:
        codec, (height, width) = self.codec, image.shape[:2]
        _compile(codec, height, width, min(self.effort, 1))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "image.llic"
            encoded = effort.encode(codec, image, quality, steps=self.effort)
            path.write_bytes(encoded.data)
            data = path.read_bytes()
        decoded = codec.decode(data)
        return Coded(
            bytes=len(data),
            image=decoded.image,
            encode_seconds=encoded.network_seconds + encoded.coder_seconds,
            decode_seconds=decoded.network_seconds + decoded.coder_seconds,
            encode_network_seconds=encoded.network_seconds,
            decode_network_seconds=decoded.network_seconds,
            bits=encoded.bits,
            identical=np.array_equal(decoded.image, codec.reconstruct(encoded, height, width)),
        )


@functools.lru_cache(maxsize=8)
def _load(folder: Path, coder: str | None) -> Codec:
    return release.load_codec(folder, coder)


@functools.lru_cache(maxsize=256)
def _compile(codec: Codec, height: int, width: int, steps: int) -> None:
    """Codes an image of this size once, so that times are those of compiled programs."""
    black = np.zeros((height, width, 3), np.uint8)
    codec.decode(effort.encode(codec, black, codec.default_quality, steps=steps).data)


def systems_of(
    folders: Sequence[str | Path], coder: str | None = None, efforts: Sequence[int] = (0,)
) -> list[LlicSystem]:
    """The systems in released folders; those of one rate and equal shape make one curve together.
    Each effort makes curves of its own.

    Raises:
      ReleaseError: a folder that is no released model.
    """
    systems = [LlicSystem(Path(folder), coder) for folder in folders]
    groups: dict[str, list[Path]] = {}
    for system in systems:
        if system.codec.model.levels == 1:
            groups.setdefault(json.dumps(system.model_config), []).append(system.folder)
    named = {}
    for group in groups.values():
        if len(group) > 1:
            # Character by character: llic_0067 and llic_0130 become llic.
            names = [folder.resolve().name for folder in group]
            prefix = "".join(
                c[0] for c in takewhile(lambda c: len(set(c)) == 1, zip(*names, strict=False))
            )
            named.update(dict.fromkeys(group, prefix.rstrip("_-.0123456789") or "LLIC"))
    return [
        dataclasses.replace(system, curve=named.get(system.folder), effort=steps)
        for steps in efforts
        for system in systems
    ]


def evaluate(
    systems: Iterable[tuple[System, Sequence[Quality]]],
    images: Images,
    records: RecordFile,
    workers: int = 1,
    save_images: str | Path | None = None,
    progress: bool = True,
) -> list[Record]:
    """The records of every system at every quality on every image, measured where `records` lacks
    them. `save_images`: a folder that receives the decoded images.

    Raises:
      RecordsError: `records` has figures of other versions or of other images of the same names.
    """
    # Processes that are started find the compilation cache of this one there.
    if cache := jax.config.values.get("jax_compilation_cache_dir"):
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", cache)
    digests = {name: hashlib.sha256(image.tobytes()).hexdigest() for name, image in images}
    found: dict[tuple[str, str, str], Record] = {}
    order: list[tuple[str, str, str]] = []
    for system, qualities in systems:
        version = system.version
        todo = []
        # Image by image: neighbours then share compiled programs.
        for name, image in images:
            for quality in qualities:
                key = (system.name, system.setting(quality), name)
                saved = _saved(save_images, key)
                record = records.find(key, version, digests[name])
                if record is not None and (saved is None or saved.is_file()):
                    found[key] = record
                else:
                    todo.append((key, quality, image))
        order += [(system.name, system.setting(q), name) for q in qualities for name, _ in images]
        bar = tqdm(
            total=len(todo), desc=system.name, unit="image", disable=None if progress else True
        )
        results = run_jobs([(system, quality, image) for _, quality, image in todo], workers)
        with bar:
            for (key, quality, image), coded in zip(todo, results, strict=True):
                saved = _saved(save_images, key)
                if saved is not None:
                    saved.parent.mkdir(parents=True, exist_ok=True)
                    write_image(saved, coded.image)
                found[key] = _measure(key, version, quality, digests[key[2]], image, coded)
                records.add(found[key])
                bar.update()
    return [found[key] for key in order]


def _saved(folder: str | Path | None, key: tuple[str, str, str]) -> Path | None:
    if folder is None:
        return None
    codec, setting, image = (part.replace(" ", "_").replace("/", "_") for part in key)
    return Path(folder) / codec / f"{Path(image).stem}_{setting.split(',')[0]}.png"


def _measure(
    key: tuple[str, str, str],
    version: str,
    quality: Quality,
    digest: str,
    image: Image,
    coded: Coded,
) -> Record:
    height, width = image.shape[:2]
    similarity = metrics.image_ms_ssim(image, coded.image)
    return Record(
        codec=key[0],
        version=version,
        setting=key[1],
        quality=quality,
        image=key[2],
        digest=digest,
        width=width,
        height=height,
        bytes=coded.bytes,
        bpp=8 * coded.bytes / (height * width),
        bpp_estimated=None if coded.bits is None else coded.bits / (height * width),
        psnr=metrics.image_psnr(image, coded.image),
        psnr_y=metrics.image_psnr_y(image, coded.image),
        ms_ssim=similarity,
        ms_ssim_db=None if similarity is None else metrics.decibel(similarity),
        encode_seconds=coded.encode_seconds,
        encode_network_seconds=coded.encode_network_seconds,
        decode_seconds=coded.decode_seconds,
        decode_network_seconds=coded.decode_network_seconds,
        peak_memory=coded.peak_memory,
        identical=coded.identical,
    )


def summary(records: Sequence[Record], images: ImageSet, workers: int) -> dict[str, Any]:
    """The means, with what they were measured on."""
    return {
        "images": {"set": images.name, "count": len(images.images)},
        "versions": versions(),
        "machine": {
            "device": jax.devices()[0].device_kind,
            "cores": os.cpu_count(),
            "platform": f"{platform.system()} {platform.machine()}",
            "workers": workers,
        },
        "codecs": averages(records),
    }


def run(
    checkpoints: Sequence[str | Path],
    output: str | Path,
    *,
    data_dir: Sequence[str | Path] = (),
    dataset: str | None = None,
    held_back: int = 0,
    qualities: Sequence[float] | None = None,
    coder: str | None = None,
    efforts: Sequence[int] = (0,),
    codecs: Sequence[str] | None = None,
    workers: int = 1,
    save_images: bool = False,
    inspect: bool = True,
    method: str = "pchip",
    command: str = "",
) -> Path:
    """The main job: measures, prints the table, writes the report, and returns its path.

    checkpoints: released folders. data_dir: folders and files. dataset: see `datasets`. held_back:
    see `load_images`. efforts: steps of refining, a curve each. codecs: names of the codecs to
    compare with (None: all of `baselines`). inspect: with the pictures of what goes on inside the
    (first) model. method: of BD-rate. command: as the report shows it.
    """
    from llic_jax import report  # matplotlib and jinja2: only where figures become pictures

    output = Path(output)
    image_set = load_images(data_dir, dataset, held_back)
    systems = systems_of(checkpoints, coder, efforts)
    others = baselines.by_names(list(codecs) if codecs is not None else None)
    jobs: list[tuple[System, Sequence[Quality]]] = []
    for system in systems:
        jobs.append((system, system.qualities(qualities)))
    for other in others:
        jobs.append((other, other.ladder))
    records = RecordFile(output / "results.jsonl")
    folder = output / "images" if save_images else None
    found = evaluate(jobs, image_set.images, records, workers, folder)
    print(table(found))
    figures = summary(found, image_set, workers)
    (output / "summary.json").write_text(json.dumps(figures, indent=2) + "\n")
    path = report.write(output, systems, found, figures, image_set, inspect, command, method)
    print(f"figures: {output / 'results.jsonl'}, {output / 'summary.json'}\nreport: {path}")
    return path

"""A package of photographs, made small enough to be carried to a machine without internet.

    photographs.000 ...   encoded photographs, one after the other; none lies in two files
    package.json          of each: name, part ("training" or "validation"), file, place, size;
                          SHA-256 of every file; how they were encoded

Training photographs are encoded anew, reduced if asked to, so that many fit; those of validation
keep their own bytes. A photograph that validation has, too, is left out of training: one of the
same bytes, the same name, or the same picture at another size.
"""

import dataclasses
import functools
import hashlib
import io
import itertools
import json
import logging
import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from llic_jax.data import image_files
from llic_jax.errors import DataError
from llic_jax.system.files import whole_file

PARTS = TRAINING, VALIDATION = "training", "validation"
_INDEX = "package.json"
_QUALITIES = (97, 95, 93, 90, 87, 84, 80, 75, 70, 65, 60, 55, 50)
_OPTIONS: dict[str, dict[str, Any]] = {
    "avif": {"subsampling": "4:4:4", "speed": 8, "max_threads": 1},
    "webp": {"method": 4},
    "jpeg": {"subsampling": "4:4:4", "optimize": True, "progressive": True},
}
_SAMPLE = 24  # photographs that the quality is chosen by
_THUMBNAIL = 16  # pixels a side, of the comparison with validation
_ALIKE = 0.98  # correlation of the thumbnails of one picture at two sizes


@dataclasses.dataclass(frozen=True)
class Encoding:
    """How training photographs are stored.

    Attributes:
        format: "avif", "webp" or "jpeg", without chroma subsampling where the format can.
        quality: Of the format, 1 to 100; None for the best of a list that fits.
        reduce: Lanczos factor, as far as the shorter side stays at `least`.
        least: Shorter side, pixels; smaller photographs are left out.
    """

    format: str = "avif"
    quality: int | None = None
    reduce: float = 1.0
    least: int = 256

    def reduced(self, image: np.ndarray) -> Image.Image:
        """The photograph at the size in which it is stored.

        Args:
            image: uint8 `(H, W, 3)`.
        """
        factor = max(1.0, min(self.reduce, min(image.shape[:2]) / self.least))
        height, width = (round(side / factor) for side in image.shape[:2])
        whole = Image.fromarray(image)
        if factor == 1:
            return whole
        return whole.resize((width, height), Image.Resampling.LANCZOS)

    def encode(self, image: Image.Image, quality: int) -> bytes:
        """The bytes of a file.

        Args:
            image: At the size in which it is stored.
            quality: Of the format.
        """
        file = io.BytesIO()
        image.save(file, self.format, quality=quality, **_OPTIONS[self.format])
        return file.getvalue()


@dataclasses.dataclass(frozen=True)
class Photo:
    """An encoded photograph on its way into a package.

    Attributes:
        name: In its source.
        width: As stored, pixels.
        height: As stored, pixels.
        content: The file's bytes.
    """

    name: str
    width: int
    height: int
    content: bytes


def write_package(
    source: str,
    validation: str,
    folder: str | Path,
    budget_bytes: int,
    piece_bytes: int,
    encoding: Encoding,
    workers: int = 1,
) -> dict[str, Any]:
    """Writes a package into a new folder.

    Photographs that do not fit are left out, which the index tells. A hash of their names decides
    which come first.

    Args:
        source: Folders of image files to learn from, with commas in between.
        validation: Folders of image files to validate with, likewise; "" for none.
        folder: A new or empty one.
        budget_bytes: Of all photographs, at most.
        piece_bytes: Of a file of the package, at most.
        encoding: Of training photographs.
        workers: Processes that decode and encode.

    Returns:
        The index, as in `package.json`.

    Raises:
        DataError: `folder` is not empty; no photograph is there, or none fits.
    """
    folder = Path(folder)
    if folder.exists() and any(folder.iterdir()):
        raise DataError(f"{folder} is not empty; name a new folder.")
    files = sorted(_files(source), key=lambda path: hashlib.sha256(path.name.encode()).digest())
    held = _files(validation) if validation else []
    kept = [_as_it_is(path) for path in held]
    of_validation = [photo for photo in kept if photo is not None]
    left = budget_bytes - sum(len(photo.content) for photo in of_validation)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        marks = pool.map(_marks, [*held, *files], chunksize=8)
        known = [mark for mark in itertools.islice(marks, len(held)) if mark is not None]
        found = [(path, mark) for path, mark in zip(files, marks, strict=True) if mark is not None]
        own = [path for path, mark in found if not _known(mark, known)]
        if not own:
            raise DataError(f"No photograph for training in {source} (validation has the rest).")
        quality = encoding.quality or _quality(own, encoding, left, pool)
        packed: list[Photo] = []
        tasks = functools.partial(_encoded, encoding, quality)
        for photo in pool.map(tasks, own, chunksize=4):
            if photo is not None and len(photo.content) <= left:
                packed.append(photo)
                left -= len(photo.content)
    if not packed:
        raise DataError(f"No photograph of {source} fits into {budget_bytes} bytes.")
    index = {
        "encoding": {**dataclasses.asdict(encoding), "quality": quality},
        "left_out": {
            "in validation": len(found) - len(own),
            "too small, unreadable, or without room": len(files)
            - len(found)
            + len(own)
            - len(packed),
        },
        **_write(folder, {TRAINING: packed, VALIDATION: of_validation}, piece_bytes),
    }
    with whole_file(folder / _INDEX) as temporary:
        temporary.write_text(json.dumps(index) + "\n")
    return index


class PackagedPhotographs:
    """The photographs of one part of a package; random access.

    Args:
        folder: The package.
        part: "training" or "validation".

    Raises:
        DataError: No such package or part, or a file of it is missing or damaged.
    """

    def __init__(self, folder: str | Path, part: str = TRAINING):
        folder = Path(folder)
        try:
            index = json.loads((folder / _INDEX).read_text())
        except (OSError, ValueError) as error:
            raise DataError(f"No package of photographs in {folder}: {error}") from error
        self.entries = [entry for entry in index["photographs"] if entry["part"] == part]
        if not self.entries:
            raise DataError(f"The package {folder} has no part {part!r}; known are {PARTS}.")
        self.notes = image_files.Notes()
        self.contents: dict[str, bytes] = {}
        for name in sorted({entry["file"] for entry in self.entries}):
            path = folder / name
            if not path.is_file():
                raise DataError(f"{path} is missing; the package has {list(index['files'])}.")
            content = path.read_bytes()
            if hashlib.sha256(content).hexdigest() != index["files"][name]:
                raise DataError(f"{path} is damaged (its SHA-256 is another); copy it anew.")
            self.contents[name] = content

    def __len__(self) -> int:
        return len(self.entries)

    def name(self, index: int) -> str:
        """The image's name in the source of the package.

        Args:
            index: Of the image.
        """
        return self.entries[index]["name"]

    def __getitem__(self, index: int) -> np.ndarray | None:
        entry = self.entries[index]
        start = entry["start"]
        content = self.contents[entry["file"]][start : start + entry["bytes"]]
        return image_files.decode(io.BytesIO(content), entry["name"], self.notes)


def _files(source: str) -> list[Path]:
    parts = [source] if Path(source).is_dir() else source.split(",")
    return [path for part in parts for path in image_files.image_files(part.strip())]


def _as_it_is(path: Path) -> Photo | None:
    pixels = _read(path)
    if pixels is None:
        return None
    height, width = pixels.shape[:2]
    return Photo(path.name, width, height, path.read_bytes())


def _read(path: Path) -> np.ndarray | None:
    return image_files.decode(path, str(path), image_files.Notes())


def _marks(path: Path) -> tuple[str, str, np.ndarray] | None:
    """What a photograph is known by: its name, its bytes, and a thumbnail of norm one."""
    pixels = _read(path)
    if pixels is None:
        return None
    grey = Image.fromarray(pixels).convert("L")
    side = (_THUMBNAIL, _THUMBNAIL)
    small = np.asarray(grey.resize(side, Image.Resampling.BOX), np.float64).ravel()
    small -= small.mean()
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return path.stem, digest, small / max(float(np.linalg.norm(small)), 1e-9)


def _known(mark: tuple[str, str, np.ndarray], known: Sequence[Any]) -> bool:
    """Whether a photograph is one of those that are known."""
    stem, digest, small = mark
    for other_stem, other_digest, other in known:
        if stem == other_stem or digest == other_digest or small @ other > _ALIKE:
            logging.info("%s is left out: validation has %s", stem, other_stem)
            return True
    return False


def _encoded(encoding: Encoding, quality: int, path: Path) -> Photo | None:
    pixels = _read(path)
    if pixels is None or min(pixels.shape[:2]) < encoding.least:
        return None
    image = encoding.reduced(pixels)
    return Photo(path.stem, image.width, image.height, encoding.encode(image, quality))


def _quality(
    files: Sequence[Path], encoding: Encoding, budget: int, pool: ProcessPoolExecutor
) -> int:
    """The best quality of which all files are likely to fit; the lowest one if none is."""
    sample = files[:: -(-len(files) // _SAMPLE)]
    for quality in _QUALITIES:
        photos = pool.map(functools.partial(_encoded, encoding, quality), sample)
        sizes = [len(photo.content) for photo in photos if photo is not None]
        needed = sum(sizes) / max(1, len(sample)) * len(files)
        logging.info("quality %d: about %.1f MiB", quality, needed / 2**20)
        if needed <= budget:
            return quality
    return _QUALITIES[-1]


def _write(folder: Path, parts: dict[str, list[Photo]], piece_bytes: int) -> dict[str, Any]:
    """Writes the files; returns their hashes and the list of photographs."""
    folder.mkdir(parents=True, exist_ok=True)
    files: dict[str, str] = {}
    entries: list[dict[str, Any]] = []
    piece = bytearray()

    def close() -> None:
        name = f"photographs.{len(files):03d}"
        (folder / name).write_bytes(piece)
        files[name] = hashlib.sha256(piece).hexdigest()
        piece.clear()

    for part, photos in parts.items():
        for photo in photos:
            if piece and len(piece) + len(photo.content) > piece_bytes:
                close()
            entries.append(
                {
                    "name": photo.name,
                    "part": part,
                    "file": f"photographs.{len(files):03d}",
                    "start": len(piece),
                    "bytes": len(photo.content),
                    "width": photo.width,
                    "height": photo.height,
                }
            )
            piece += photo.content
    close()
    return {"files": files, "photographs": entries}

"""Where photographs come from: folders, array records, TensorFlow Datasets.

    FOLDER                      image files, searched recursively
    records:PATTERN             array record files, e.g. `records:/data/*.array_record*`
    tfds:NAME[:SPLIT]           a data set by name, e.g. `tfds:clic:train`, `tfds:coco/2017`
    tfds:FOLDER[:SPLIT]         a data set that was prepared in that folder
    package:FOLDER[:PART]       a package of photographs (`package.py`), "training" or "validation"
    SOURCE,SOURCE               several of these together

Only those of TensorFlow Datasets need TensorFlow.
"""

import bisect
import glob
import io
import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from llic_jax.data.image_files import SMALLEST, ImageFiles, Notes, decode, image_files
from llic_jax.data.photographs import Photographs
from llic_jax.data.tf_example import bytes_feature
from llic_jax.errors import DataError
from llic_jax.system.extras import install_command

PACKAGE_PREFIX = "package:"
TFDS_PREFIX = "tfds:"
RECORDS_PREFIX = "records:"


class ArrayRecords:
    """The images in array record files.

    A record is an encoded image, or an example as TensorFlow Datasets writes them.

    Args:
        files: Array record files.
        feature: The feature of an example that holds the encoded image.

    Attributes:
        notes: As for `ImageFiles`.

    Raises:
        DataError: The package array_record is not installed.
    """

    def __init__(self, files: Sequence[str], feature: str = "image"):
        try:
            from array_record.python.array_record_data_source import ArrayRecordDataSource
        except ImportError as error:
            raise DataError(
                f"{RECORDS_PREFIX}{files[0]} needs the package array_record; install it."
            ) from error
        self.files, self.feature = list(files), feature
        self.source = ArrayRecordDataSource(self.files)
        self.notes = Notes()

    def name(self, index: int) -> str:
        """How messages call a record.

        Args:
            index: Of the record.
        """
        return f"record {index} of {self.files[0]}" + (" ..." if len(self.files) > 1 else "")

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> np.ndarray | None:
        record = self.source[index]
        name = self.name(index)
        encoded = record if _is_image(record) else bytes_feature(record, self.feature)
        return decode(io.BytesIO(encoded), name, self.notes)


class TfdsImages:
    """The `image` feature of a TensorFlow Datasets data set.

    Args:
        name: `NAME[:SPLIT]`: a data set by name, fetched and prepared if need be; or
            `FOLDER[:SPLIT]`: one that was prepared in that folder. The split is "train" by default.

    Raises:
        DataError: The data set is not there, or has no such feature.
    """

    def __init__(self, name: str):
        try:
            import tensorflow_datasets as tfds  # heavy, and only here
        except ImportError as error:
            raise DataError(
                f"{TFDS_PREFIX}{name} needs TensorFlow Datasets: "
                f"`{install_command('data,tfc')}` brings it."
            ) from error
        self.notes = Notes()
        self.set_name = name
        name, _, split = name.partition(":")
        split = split or "train"
        try:
            if Path(name).is_dir():
                self.source: Any = tfds.builder_from_directory(name).as_data_source(split=split)
            else:
                self.source = tfds.data_source(name, split=split)
        except Exception as error:  # tfds raises many kinds
            raise DataError(
                f"TensorFlow Datasets cannot open split {split!r} of {name!r}: {error}"
            ) from error
        features = self.source.dataset_info.features
        if "image" not in features:
            raise DataError(f"{name} has no feature 'image'; it has {', '.join(features)}.")

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> np.ndarray | None:
        image = np.asarray(self.source[index]["image"])
        if image.dtype != np.uint8:
            self.notes.refuse(self.name(index), f"not 8 bits a channel ({image.dtype})")
            return None
        if min(image.shape[:2]) < SMALLEST:
            height, width = image.shape[:2]
            self.notes.refuse(self.name(index), f"{width} x {height} pixels are too few")
            return None
        if image.shape[-1] not in (1, 3):
            self.notes.refuse(self.name(index), f"{image.shape[-1]} channels; expected 1 or 3")
            return None
        return np.repeat(image, 3, axis=-1) if image.shape[-1] == 1 else image

    def name(self, index: int) -> str:
        """How messages call an image.

        Args:
            index: Of the image.
        """
        return f"image {index} of {self.set_name}"


class Joined:
    """Several sources, one after the other."""

    def __init__(self, sources: Sequence[Any]):
        self.sources = list(sources)
        self.ends = list(itertools.accumulate(len(source) for source in self.sources))

    def __len__(self) -> int:
        return self.ends[-1]

    def _place(self, index: int) -> tuple[Any, int]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        which = bisect.bisect_right(self.ends, index)
        return self.sources[which], index - (self.ends[which - 1] if which else 0)

    def __getitem__(self, index: int) -> np.ndarray | None:
        source, within = self._place(index)
        return source[within]

    def name(self, index: int) -> str:
        """The number of the image's source, and its name there.

        Args:
            index: Of the image.
        """
        source, within = self._place(index)
        return f"{self.sources.index(source)}/{source.name(within)}"

    @property
    def notes(self) -> Notes:
        """Of all sources together."""
        notes = Notes()
        for source in self.sources:
            notes.unusable.update(source.notes.unusable)
            notes.converted.update(source.notes.converted)
        return notes


def open_source(source: str) -> Photographs:
    """The photographs that a source names.

    Args:
        source: See the module.

    Raises:
        DataError: Nothing is named, or it is not there.
    """
    if not source:
        raise DataError(
            "No training data: set --config.data.source to a folder of images, records:PATTERN, or "
            "tfds:NAME."
        )
    whole = Path(os.path.expanduser(source)).is_dir()
    parts = [source] if whole else [part.strip() for part in source.split(",")]
    if not all(parts):
        raise DataError(f"data source {source!r} has an empty part between its commas.")
    return _open_one(parts[0]) if len(parts) == 1 else Joined([_open_one(p) for p in parts])


def _open_one(source: str) -> Photographs:
    if source.startswith(PACKAGE_PREFIX):
        from llic_jax.data.package import PackagedPhotographs

        folder, _, part = _rest(source, PACKAGE_PREFIX).partition(":")
        return PackagedPhotographs(folder, part or "training")
    if source.startswith(TFDS_PREFIX):
        return TfdsImages(_rest(source, TFDS_PREFIX))
    if source.startswith(RECORDS_PREFIX):
        pattern = _rest(source, RECORDS_PREFIX)
        files = sorted(glob.glob(pattern))
        if not files:
            raise DataError(f"No file matches {pattern}; expected array record files.")
        return ArrayRecords(files)
    home = Path(os.path.expanduser(source))
    return ImageFiles(image_files(home), home)


def _rest(source: str, prefix: str) -> str:
    """What follows the prefix; `~` is the home folder."""
    return os.path.expanduser(source.removeprefix(prefix))


def _is_image(record: bytes) -> bool:
    try:
        with Image.open(io.BytesIO(record)):
            return True
    except (OSError, SyntaxError):
        return False

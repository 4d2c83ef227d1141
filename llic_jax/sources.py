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
import dataclasses
import functools
import glob
import io
import itertools
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from llic_jax import folders
from llic_jax.data import DataError, Photographs
from llic_jax.images import SUFFIXES, ImageFileError, image_mode, image_size, read_rgb

PACKAGE_PREFIX = "package:"
TFDS_PREFIX = "tfds:"
RECORDS_PREFIX = "records:"
_SMALLEST = 64  # pixels: what is smaller, on either side, is no photograph
# An evaluation's output: its pictures lie in these folders beside this file.
RESULTS_FILE, OUTPUT_FOLDERS = "results.jsonl", ("figures", "images")


def image_files(folder: str | Path) -> list[Path]:
    """All image files below `folder`, sorted; without the pictures of an evaluation's output.

    Raises:
      DataError: no such folder, no image in it, or a folder below it that cannot be read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; name a folder that holds images.")
    found = folders.scan(folder, SUFFIXES)
    for error in found.unreadable:
        raise DataError(
            f"The folder {error.filename} cannot be read ({error.strerror}); the images in it "
            "would be missing. Allow it, or name another folder."
        )
    outputs = {path.parent / name for path in folder.rglob(RESULTS_FILE) for name in OUTPUT_FOLDERS}
    files = [path for path in found.files if outputs.isdisjoint(path.parents)]
    if found.files and not files:
        raise DataError(
            f"All images in {folder} lie in {' or '.join(OUTPUT_FOLDERS)} beside {RESULTS_FILE}: "
            "they are an evaluation's output. Name a folder of photographs, or that subfolder."
        )
    if not files:
        raise DataError(f"No image in {folder} or below it; looked for {' '.join(SUFFIXES)}.")
    if found.left_out:
        logging.warning("%s: left out are %s", folder, found.summary())
    return files


@dataclasses.dataclass
class Notes:
    """What was found out about single images: name to reason, name to mode before conversion."""

    unusable: dict[str, str] = dataclasses.field(default_factory=dict)
    converted: dict[str, str] = dataclasses.field(default_factory=dict)

    def refuse(self, name: str, reason: str) -> None:
        if name not in self.unusable:
            logging.warning("%s is not used: %s", name, reason)
        self.unusable[name] = reason

    def convert(self, name: str, mode: str) -> None:
        if name not in self.converted:
            logging.info("%s is converted from %s to RGB", name, mode)
        self.converted[name] = mode


class ImageFiles:
    """The images of a list of files; what cannot be used is named in the log once, and skipped.

    Read as everywhere (`images.read_image`): upright, grey and palette images as RGB; CMYK is
    converted, too. Not used are images with more than 8 bits a channel, with transparent pixels, or
    with a side below 64 pixels, and what cannot be read. notes: names of both kinds.
    """

    def __init__(self, files: Sequence[Path], folder: Path = Path()):
        self.files, self.folder = list(files), folder
        self.notes = Notes()

    def name(self, index: int) -> str:
        """The path within the folder, the same wherever that lies."""
        path = self.files[index]
        inside = path.is_relative_to(self.folder)
        return (path.relative_to(self.folder) if inside else path).as_posix()

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> np.ndarray | None:
        path = self.files[index]
        return decode(path, str(path), self.notes)


class ArrayRecords:
    """The images in array record files. A record is an encoded image, or an example as TensorFlow
    Datasets writes them, whose `feature` holds one. notes: as for `ImageFiles`."""

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
        return f"record {index} of {self.files[0]}" + (" ..." if len(self.files) > 1 else "")

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> np.ndarray | None:
        record = self.source[index]
        name = self.name(index)
        encoded = record if _is_image(record) else _feature(record, self.feature)
        return decode(io.BytesIO(encoded), name, self.notes)


class TfdsImages:
    """The `image` feature of a TensorFlow Datasets data set, by name or from a folder.

    Raises:
      DataError: the data set is not there, or has no such feature.
    """

    def __init__(self, name: str):
        try:
            import tensorflow_datasets as tfds  # heavy, and only here
        except ImportError as error:
            raise DataError(
                f"{TFDS_PREFIX}{name} needs TensorFlow Datasets; install llic_jax[data,tfc]."
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
        if min(image.shape[:2]) < _SMALLEST:
            height, width = image.shape[:2]
            self.notes.refuse(self.name(index), f"{width} x {height} pixels are too few")
            return None
        if image.shape[-1] not in (1, 3):
            self.notes.refuse(self.name(index), f"{image.shape[-1]} channels; expected 1 or 3")
            return None
        return np.repeat(image, 3, axis=-1) if image.shape[-1] == 1 else image

    def name(self, index: int) -> str:
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
    """The photographs that `source` names (see the module).

    Raises:
      DataError: nothing is named, or it is not there.
    """
    if not source:
        raise DataError(
            "No training data: set --config.data.source to a folder of images, records:PATTERN, or "
            "tfds:NAME."
        )
    parts = [source] if Path(source).is_dir() else [p.strip() for p in source.split(",")]
    if not all(parts):
        raise DataError(f"data source {source!r} has an empty part between its commas.")
    return _open_one(parts[0]) if len(parts) == 1 else Joined([_open_one(p) for p in parts])


def _open_one(source: str) -> Photographs:
    if source.startswith(PACKAGE_PREFIX):
        from llic_jax.package import PackagedPhotographs

        folder, _, part = source.removeprefix(PACKAGE_PREFIX).partition(":")
        return PackagedPhotographs(folder, part or "training")
    if source.startswith(TFDS_PREFIX):
        return TfdsImages(source.removeprefix(TFDS_PREFIX))
    if source.startswith(RECORDS_PREFIX):
        pattern = source.removeprefix(RECORDS_PREFIX)
        files = sorted(glob.glob(pattern))
        if not files:
            raise DataError(f"No file matches {pattern}; expected array record files.")
        return ArrayRecords(files)
    return ImageFiles(image_files(source), Path(source))


def decode(file: Path | io.BytesIO, name: str, notes: Notes) -> np.ndarray | None:
    """The image in a file `(H, W, 3)`, uint8; None if it cannot be used, which `notes` then tells
    by `name`."""
    if name in notes.unusable:
        return None
    try:
        mode, size = image_mode(file), image_size(file)
        if min(size) < _SMALLEST:
            notes.refuse(name, f"{size[0]} x {size[1]} pixels are too few")
            return None
        pixels = read_rgb(file, name=name)
    except ImageFileError as error:
        # Messages begin with the name, which the note tells already.
        notes.refuse(name, re.sub(rf"^{re.escape(name)} (has |is |cannot )?", r"\1", str(error)))
        return None
    except OSError as error:
        notes.refuse(name, str(error))
        return None
    if mode != "RGB":
        notes.convert(name, mode)
    return pixels


def _is_image(record: bytes) -> bool:
    try:
        with Image.open(io.BytesIO(record)):
            return True
    except (OSError, SyntaxError):
        return False


def _feature(record: bytes, name: str) -> bytes:
    """The bytes of one feature of a serialized `tf.train.Example`; empty if it has none."""
    try:
        example = _example_class().FromString(record)
    except Exception:  # not an example; protobuf's own error has moved between versions
        return b""
    values = example.features.feature[name].bytes_list.value
    return values[0] if values else b""


@functools.cache
def _example_class() -> Any:
    """The message `tf.train.Example`, as far as it holds bytes, without TensorFlow."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(name="llic_example.proto", package="llic")
    kinds = descriptor_pb2.FieldDescriptorProto

    def message(name: str, field: str, number: int, kind: str | None, repeated: bool = False):
        made = file.message_type.add(name=name)
        made.field.add(
            name=field,
            number=number,
            label=kinds.LABEL_REPEATED if repeated else kinds.LABEL_OPTIONAL,
            type=kinds.TYPE_MESSAGE if kind else kinds.TYPE_BYTES,
            type_name=f".llic.{kind}" if kind else None,
        )
        return made

    message("BytesList", "value", 1, None, repeated=True)
    message("Feature", "bytes_list", 1, "BytesList")
    features = message("Features", "feature", 1, "Features.FeatureEntry", repeated=True)
    entry = features.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, label=kinds.LABEL_OPTIONAL, type=kinds.TYPE_STRING)
    entry.field.add(
        name="value",
        number=2,
        label=kinds.LABEL_OPTIONAL,
        type=kinds.TYPE_MESSAGE,
        type_name=".llic.Feature",
    )
    message("Example", "features", 1, "Features")
    file.syntax = "proto3"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("llic.Example"))

"""Where photographs come from: folders, array records, TensorFlow Datasets.

    FOLDER                      image files, searched recursively
    records:PATTERN             array record files, e.g. `records:/data/*.array_record*`
    tfds:NAME[:SPLIT]           a data set by name, e.g. `tfds:clic:train`, `tfds:coco/2017`
    tfds:FOLDER[:SPLIT]         a data set that was prepared in that folder

Only the last two need TensorFlow.
"""

import dataclasses
import functools
import glob
import io
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from llic_jax import folders
from llic_jax.data import DataError, Photographs
from llic_jax.images import SUFFIXES

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

    Grey, palette and CMYK images are converted to RGB. Not used are those with more than 8 bits a
    channel, with a side below 64 pixels, and what cannot be read. notes: names of both kinds.
    """

    def __init__(self, files: Sequence[Path]):
        self.files = list(files)
        self.notes = Notes()

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> np.ndarray | None:
        path = self.files[index]
        return _decode(path, str(path), self.notes)


class ArrayRecords:
    """The images in array record files. A record is an encoded image, or an example as TensorFlow
    Datasets writes them, whose `feature` holds one. notes: as for `ImageFiles`."""

    def __init__(self, files: Sequence[str], feature: str = "image"):
        from array_record.python.array_record_data_source import ArrayRecordDataSource

        self.files, self.feature = list(files), feature
        self.source = ArrayRecordDataSource(self.files)
        self.notes = Notes()

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> np.ndarray | None:
        record = self.source[index]
        name = f"record {index} of {self.files[0]}" + (" ..." if len(self.files) > 1 else "")
        encoded = record if _is_image(record) else _feature(record, self.feature)
        return _decode(io.BytesIO(encoded), name, self.notes)


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
        if image.dtype != np.uint8 or min(image.shape[:2]) < _SMALLEST:
            return None
        return np.repeat(image, 3, axis=-1) if image.shape[-1] == 1 else image[..., :3]


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
    if source.startswith(TFDS_PREFIX):
        return TfdsImages(source.removeprefix(TFDS_PREFIX))
    if source.startswith(RECORDS_PREFIX):
        pattern = source.removeprefix(RECORDS_PREFIX)
        files = sorted(glob.glob(pattern))
        if not files:
            raise DataError(f"No file matches {pattern}; expected array record files.")
        return ArrayRecords(files)
    return ImageFiles(image_files(source))


def _decode(file: Path | io.BytesIO, name: str, notes: Notes) -> np.ndarray | None:
    if name in notes.unusable:
        return None
    try:
        with Image.open(file) as image:
            if image.mode.startswith(("I", "F")):
                notes.refuse(name, f"more than 8 bits a channel (mode {image.mode})")
            elif min(image.size) < _SMALLEST:
                notes.refuse(name, f"{image.width} x {image.height} pixels are too few")
            else:
                pixels = np.asarray(image.convert("RGB"))
                if image.mode != "RGB":
                    notes.convert(name, image.mode)
                return pixels
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        notes.refuse(name, str(error))
    return None


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

"""The images that codecs are evaluated on: files, named sets, or those of scikit-image."""

import dataclasses
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from llic_jax.data.evaluation_sets import dataset_files, identify
from llic_jax.data.image_files import ImageFiles, image_files
from llic_jax.data.photographs import read_held_out, split_held_out
from llic_jax.errors import DataError, ImageFileError
from llic_jax.evaluation.system import Image
from llic_jax.images.photograph import SUFFIXES
from llic_jax.images.read import read_image
from llic_jax.system.extras import install_command

# Photographs that scikit-image ships with its package (no download).
EMBEDDED = ("astronaut", "chelsea", "coffee", "motorcycle", "rocket")

Images = list[tuple[str, Image]]


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


@dataclasses.dataclass(frozen=True)
class FileSet:
    """Files of images to measure on, before they are read.

    Attributes:
      name: As of an `ImageSet`.
      published: Likewise.
      files: Their paths; the names of their images are distinct.
    """

    name: str
    published: str | None
    files: tuple[Path, ...]


def load_images(
    sources: Sequence[str | Path] = (), dataset: str | None = None, held_out: int | Path = 0
) -> ImageSet:
    """Loads the images of a data set, of folders and files, or embedded ones.

    Args:
      sources: As for `find_files`. None and no data set: scikit-image's photographs.
      dataset: As for `find_files`.
      held_out: Likewise.

    Returns:
      The images, read as RGB.

    Raises:
      DataError: As `find_files`, or no image can be used.
      ImageFileError: A file of a data set is no RGB image. Others are skipped, with a line each.
    """
    if not sources and dataset is None and not held_out:
        return ImageSet("scikit-image's photographs", None, _embedded())
    return _read(find_files(sources, dataset, held_out), skip=dataset is None)


def find_files(
    sources: Sequence[str | Path] = (), dataset: str | None = None, held_out: int | Path = 0
) -> FileSet:
    """Finds the files of a data set, or of folders and files.

    Args:
      sources: Folders, searched recursively, and files.
      dataset: A name in `evaluation_sets.DATASETS`; it is in the only folder in `sources`, if
        given, and else fetched.
      held_out: Takes only those images of the only folder in `sources` that a training run with
        `data.held_back` of that number never sees; or those that a run's `held_back.json` names,
        also where photographs were added since. 0: takes all.

    Raises:
      DataError: Nothing is there, two files have one name, or files are not the data set's;
        `held_out` without a folder, or not of this one.
    """
    if isinstance(held_out, int) and held_out < 0:
        raise DataError(f"--held_back is {held_out}; it takes a number of photographs.")
    if held_out:
        folders = [folder for source in sources if (folder := Path(source).expanduser()).is_dir()]
        if dataset is not None or len(sources) != 1 or not folders:
            raise DataError("--held_back takes one folder of photographs: name it with --data_dir.")
        files = _held_out_files(folders[0], held_out)
        name = f"{len(files)} photographs held back of {default_name(folders[0])}"
        return _distinct(name, None, files)
    if dataset is not None:
        if len(sources) > 1:
            raise DataError(f"--dataset {dataset} takes one folder; {len(sources)} are named.")
        files = dataset_files(dataset, sources[0] if sources else None)
        return _distinct(dataset, dataset, files)
    files = []
    for source in (Path(name).expanduser() for name in sources):
        files += [source] if source.suffix.lower() in SUFFIXES else image_files(source)
    published = identify(files)
    name = published or ", ".join(default_name(Path(s)) for s in sources)
    return _distinct(name, published, files)


def _held_out_files(folder: Path, held_out: int | Path) -> list[Path]:
    """The files in a folder that a training run holds out."""
    photographs = ImageFiles(image_files(folder), folder)
    if isinstance(held_out, int):
        _, kept = split_held_out(photographs, held_out)
    else:
        names = read_held_out(held_out)
        _, kept = split_held_out(photographs, 0, names)
        if len(kept) != len(names):
            raise DataError(
                f"{len(names) - len(kept)} of the {len(names)} photographs that {held_out} names "
                f"are not in {folder}. Name the folder that the run was trained on."
            )
    return [photographs.files[i] for i in kept.indexes]


def _distinct(name: str, published: str | None, files: Sequence[Path]) -> FileSet:
    names = [image_name(path) for path in files]
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise DataError(f"Several files are called {', '.join(twice)}; rename them, or run apart.")
    return FileSet(name, published, tuple(files))


def _read(found: FileSet, skip: bool) -> ImageSet:
    images = []
    for path in found.files:
        try:
            images.append((image_name(path), read_image(path)))
        except FileNotFoundError as error:
            raise DataError(f"No file {error.filename}.") from error
        except ImageFileError as error:
            if not skip:
                raise
            print(f"skipped: {error}", file=sys.stderr)
    if found.files and not images:
        raise DataError("None of the images can be used; the reasons stand above.")
    return ImageSet(found.name, found.published, images, found.files)


def image_name(path: Path) -> str:
    """The name of a file's image among results.

    Args:
        path: Of the file.
    """
    return _printable(path.name)


def default_name(path: Path) -> str:
    """The printable name of a folder or file.

    Args:
        path: Of it.
    """
    return _printable(path.resolve().name)


def _printable(name: str) -> str:
    """A file's name as text. Bytes that are not UTF-8 become escapes: no report can hold them."""
    return os.fsencode(name).decode(errors="backslashreplace")


def _embedded() -> Images:
    try:
        from skimage import data
    except ImportError as error:
        raise DataError(
            "The embedded photographs come with scikit-image, which is not installed: "
            f"`{install_command('eval')}` brings it. Or name a folder with --data_dir."
        ) from error
    images = {name: getattr(data, name)() for name in EMBEDDED if name != "motorcycle"}
    images["motorcycle"] = data.stereo_motorcycle()[0]
    return [(name, images[name]) for name in EMBEDDED]

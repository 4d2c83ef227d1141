"""Image files as training data: those of a folder, each decoded by the reader of `images/`."""

import dataclasses
import io
import logging
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from llic_jax.errors import DataError, ImageFileError
from llic_jax.images import folders
from llic_jax.images.photograph import SUFFIXES
from llic_jax.images.read import image_mode, image_size, read_photograph

SMALLEST = 64  # pixels: what is smaller, on either side, is no photograph
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
    """What became of the images that were not simply read.

    Attributes:
        unusable: Images that were skipped, name to reason.
        converted: Images that were converted, name to original mode.
    """

    unusable: dict[str, str] = dataclasses.field(default_factory=dict)
    converted: dict[str, str] = dataclasses.field(default_factory=dict)

    def refuse(self, name: str, reason: str) -> None:
        """Notes, and logs once, that an image is skipped.

        Args:
            name: Of the image.
            reason: In words.
        """
        if name not in self.unusable:
            logging.warning("%s is not used: %s", name, reason)
        self.unusable[name] = reason

    def convert(self, name: str, mode: str) -> None:
        """Notes, and logs once, that an image was converted to RGB.

        Args:
            name: Of the image.
            mode: Its own mode, by Pillow's name.
        """
        if name not in self.converted:
            logging.info("%s is converted from %s to RGB", name, mode)
        self.converted[name] = mode


class ImageFiles:
    """The images of a list of files; what cannot be used is named in the log once, and skipped.

    Read as everywhere (`read.read_image`): upright, grey and palette images as RGB; CMYK is
    converted, too. Not used are images with more than 8 bits a channel, with transparent pixels, or
    with a side below 64 pixels, and what cannot be read.

    Args:
        files: Their paths.
        folder: That names are relative to.

    Attributes:
        notes: Names of the images that were skipped or converted.
    """

    def __init__(self, files: Sequence[Path], folder: Path = Path()):
        self.files, self.folder = list(files), folder
        self.notes = Notes()

    def name(self, index: int) -> str:
        """The path within the folder, the same wherever that lies.

        Args:
            index: Of the image.
        """
        path = self.files[index]
        inside = path.is_relative_to(self.folder)
        return (path.relative_to(self.folder) if inside else path).as_posix()

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> np.ndarray | None:
        path = self.files[index]
        return decode(path, str(path), self.notes)


def decode(file: Path | io.BytesIO, name: str, notes: Notes) -> np.ndarray | None:
    """Reads an image.

    Args:
        file: Its path, or its bytes.
        name: Of the image.
        notes: Tell by the name what could not be used.

    Returns:
        uint8 `(H, W, 3)`; None if it cannot be used.
    """
    if name in notes.unusable:
        return None
    try:
        mode, size = image_mode(_rewound(file)), image_size(_rewound(file))
        if min(size) < SMALLEST:
            notes.refuse(name, f"{size[0]} x {size[1]} pixels are too few")
            return None
        photograph = read_photograph(_rewound(file), name=name, convert_cmyk=True)
    except ImageFileError as error:
        # Messages begin with the name, which the note tells already.
        notes.refuse(name, re.sub(rf"^{re.escape(name)} (has )?", "", str(error)))
        return None
    except OSError as error:
        notes.refuse(name, str(error))
        return None
    if photograph.alpha is not None:
        notes.refuse(name, "transparent pixels; flatten it onto a background first")
        return None
    if mode != "RGB":
        notes.convert(name, mode)
    return photograph.rgb


def _rewound(file: Path | io.BytesIO) -> Path | io.BytesIO:
    """Every reader begins where a file stands."""
    if isinstance(file, io.BytesIO):
        file.seek(0)
    return file

"""Collections of photographs with random access: whole, cached, or in part."""

import json
import logging
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from llic_jax.errors import DataError

HELD_OUT_FILE = "held_back.json"  # in a run: the names of what it holds out


@runtime_checkable
class Photographs(Protocol):
    """Random access to RGB images, `(H, W, 3)` uint8; None for one that cannot be used."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> np.ndarray | None: ...


class Cached:
    """Keeps decoded images in memory, first come, up to `limit_gb`."""

    def __init__(self, images: Photographs, limit_gb: float):
        self.images, self.left = images, int(limit_gb * 2**30)
        self.kept: dict[int, np.ndarray | None] = {}
        self.lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> np.ndarray | None:
        if index in self.kept:
            return self.kept[index]
        image = self.images[index]
        size = image.nbytes if image is not None else 0
        with self.lock:
            if size <= self.left and index not in self.kept:
                self.kept[index] = image
                self.left -= size
        return image


class Subset:
    """Chosen images of a source.

    Args:
        images: The source.
        indexes: Of the images in it.
    """

    def __init__(self, images: Photographs | Sequence[Any], indexes: Sequence[int]):
        self.images, self.indexes = images, indexes

    def __len__(self) -> int:
        return len(self.indexes)

    def __getitem__(self, index: int) -> np.ndarray | None:
        return self.images[self.indexes[index]]

    def name(self, index: int) -> str:
        """The image's name in its source.

        Args:
            index: Of the image in this subset.
        """
        return name_of(self.images, self.indexes[index])


def read_held_out(path: Path) -> list[str]:
    """The names of the photographs that a training run holds out.

    Args:
        path: The run's `held_back.json`.

    Raises:
        DataError: It cannot be read.
    """
    try:
        names = json.loads(path.read_text())
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError("it is no list of names")
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path} cannot be read ({error}). Get it back: without it the run would train on "
            "photographs that it has been validated on."
        ) from error
    return names


def name_of(images: Any, index: int) -> str:
    """The name of an image in its source, or its number where the source has no names.

    Args:
        images: The source.
        index: Of the image.
    """
    return images.name(index) if hasattr(images, "name") else str(index)


def split_held_out(
    images: Photographs | Sequence[Any], count: int, names: Sequence[str] | None = None
) -> tuple[Subset, Subset]:
    """Divides images into those for training and those held out.

    Args:
        images: In an order that does not change.
        count: How many are held out: every n-th, fixed by the order alone.
        names: Holds out the images of these names instead, as many as are there.

    Returns:
        The images for training, and those held out.

    Raises:
        DataError: Too few images to hold any out.
    """
    n = len(images)
    if n <= count:
        raise DataError(f"{n} images, of which {count} are to be held back: none are left.")
    if names is not None:
        wanted = set(names)
        held = {i for i in range(n) if name_of(images, i) in wanted}
    else:
        held = {int(i) for i in np.linspace(0, n - 1, count)} if count else set()
    return Subset(images, [i for i in range(n) if i not in held]), Subset(images, sorted(held))


class Usable:
    """Replaces an image that cannot be used with the next one that can.

    Args:
        images: The source; None stands for an image that cannot be used.
    """

    def __init__(self, images: Photographs):
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> np.ndarray:
        for offset in range(len(self.images)):
            image = self.images[(index + offset) % len(self.images)]
            if image is not None:
                return image
        raise DataError(f"None of the {len(self.images)} images can be read.")


def central_crops(images: Photographs, size: int, what: str) -> list[np.ndarray]:
    """The central crops of the images that are large enough.

    Args:
        images: uint8 `(H, W, 3)`.
        size: Side of the crops, pixels.
        what: Kind of these images, for messages.

    Returns:
        Crops `(size, size, 3)`, uint8.

    Raises:
        DataError: No image is large enough.
    """
    crops = []
    for i in range(len(images)):
        image = images[i]
        if image is not None and min(image.shape[:2]) >= size:
            top, left = ((side - size) // 2 for side in image.shape[:2])
            crops.append(image[top : top + size, left : left + size].copy())
    if images and not crops:
        raise DataError(
            f"None of the {len(images)} {what} images has {size} pixels on both sides, which the "
            "crops of the last stage have (data.crops). Use larger images, name others with "
            "data.validation, or set data.held_back to 0."
        )
    if small := len(images) - len(crops):
        logging.warning(
            "%d of %d %s images are not used: less than %d pixels", small, len(images), what, size
        )
    return crops

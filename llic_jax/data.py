"""Training photographs to batches of random crops, uint8 NHWC.

The batch of a step is a function of the seed and the step alone, so a run that goes on from a
checkpoint sees exactly the data that it would have seen, on any number of hosts. Decoding runs in
threads.

    sources.py --> Photographs (random access, uint8 RGB) --> crop, flip --> batch --> host's share
"""

import dataclasses
import itertools
import threading
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Protocol, runtime_checkable

import grain.python as grain
import numpy as np
from PIL import Image

from llic_jax.drawings import sometimes_drawn
from llic_jax.errors import LlicError


class DataError(LlicError, ValueError):
    """The data that was asked for is not there or is not what it should be."""


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
    """Chosen indexes of a source."""

    def __init__(self, images: Photographs | Sequence[Any], indexes: Sequence[int]):
        self.images, self.indexes = images, indexes

    def __len__(self) -> int:
        return len(self.indexes)

    def __getitem__(self, index: int) -> np.ndarray | None:
        return self.images[self.indexes[index]]


def split_held_back(images: Photographs | Sequence[Any], held_back: int) -> tuple[Subset, Subset]:
    """Training part and held-back part: every n-th image, fixed by the sorted order alone.

    Raises:
      DataError: too few images to hold any back.
    """
    n = len(images)
    if n <= held_back:
        raise DataError(f"{n} images, of which {held_back} are to be held back: none are left.")
    held = {int(i) for i in np.linspace(0, n - 1, held_back)} if held_back else set()
    return Subset(images, [i for i in range(n) if i not in held]), Subset(images, sorted(held))


@dataclasses.dataclass(frozen=True)
class RandomCrop:
    """A square crop at a random place, mirrored half of the time.

    size: of the crop, pixels. flip: mirror. downsample: first reduce by a random Lanczos factor
    between 1 and 2, as far as the size allows (paper: JPEG sources are reduced to remove their
    artefacts). An image smaller than the crop is extended by mirroring.
    """

    size: int
    flip: bool = True
    downsample: bool = False

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        size = self.size
        if self.downsample:
            most = max(1.0, min(2.0, min(image.shape[:2]) / size))
            factor = rng.uniform(1.0, most)
            h, w = (max(size, round(side / factor)) for side in image.shape[:2])
            image = np.asarray(Image.fromarray(image).resize((w, h), Image.Resampling.LANCZOS))
        short = [(0, max(0, size - side)) for side in image.shape[:2]]
        if any(pad for _, pad in short):
            image = np.pad(image, (*short, (0, 0)), mode="symmetric")
        top = rng.integers(image.shape[0] - size + 1)
        left = rng.integers(image.shape[1] - size + 1)
        crop = image[top : top + size, left : left + size]
        if self.flip and rng.integers(2):
            crop = crop[:, ::-1]
        return np.ascontiguousarray(crop)


# Without end, for all that anybody will see; grain's own infinity overflows at a batch of one.
_PASSES = 1 << 32


def training_batches(
    images: Photographs,
    *,
    stages: Sequence[tuple[int, RandomCrop]],
    batch_size: int,
    seed: int,
    first_step: int = 0,
    threads: int = 4,
    drawings: float = 0.0,
    share: tuple[int, int] = (0, 1),
) -> Iterator[np.ndarray]:
    """Endless batches `(batch_size / hosts, size, size, 3)` uint8, from `first_step` on.

    stages: the step from which on each crop holds, ascending, the first 0 (paper: 256 pixels, later
    512). drawings: share of the crops that are drawings in place of photographs, or upon them
    (`drawings.py`; our choice). share: this host's number, and how many there are; together they
    have the whole batch, in order. Each pass over the images is shuffled anew. The k-th batch is
    the same whatever `first_step` the iteration started from.
    """
    host, hosts = share
    ends = [begin for begin, _ in stages[1:]] + [None]
    for (begin, crop), end in zip(stages, ends, strict=True):
        if end is not None and end <= first_step:
            continue
        begin = max(begin, first_step)
        dataset = (
            grain.MapDataset.source(_Usable(images))
            .seed(seed)
            .shuffle()
            .repeat(_PASSES)
            .random_map(crop)
            .random_map(partial(sometimes_drawn, drawings))
            .batch(batch_size // hosts)
        )
        dataset = dataset[begin * hosts + host :: hosts]
        iterator = iter(dataset.to_iter_dataset(grain.ReadOptions(num_threads=threads)))
        yield from iterator if end is None else itertools.islice(iterator, end - begin)


class _Usable:
    """Replaces an image that cannot be used by the next one that can."""

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

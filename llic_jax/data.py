"""Training photographs to batches of random crops, uint8 NHWC.

The batch of a step is a function of the seed and the step alone, so a run that goes on from a
checkpoint sees exactly the data that it would have seen, on any number of hosts. Decoding runs in
threads.

    sources.py --> Photographs (random access, uint8 RGB) --> crops --> batch --> host's share
"""

import dataclasses
import itertools
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from llic_jax.augmentation import Crop, RandomCrop, Window, cut, paste, random_window
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

    def name(self, index: int) -> str:
        """The image's name in its source."""
        return name_of(self.images, self.indexes[index])


def name_of(images: Any, index: int) -> str:
    """The name of an image in its source, or its number where the source has no names."""
    return images.name(index) if hasattr(images, "name") else str(index)


def split_held_back(
    images: Photographs | Sequence[Any], held_back: int, names: Sequence[str] | None = None
) -> tuple[Subset, Subset]:
    """Training part and held-back part: every n-th image, fixed by the sorted order alone; or the
    images of these `names`, as many as are there.

    Raises:
      DataError: too few images to hold any back.
    """
    n = len(images)
    if n <= held_back:
        raise DataError(f"{n} images, of which {held_back} are to be held back: none are left.")
    if names is not None:
        wanted = set(names)
        held = {i for i in range(n) if name_of(images, i) in wanted}
    else:
        held = {int(i) for i in np.linspace(0, n - 1, held_back)} if held_back else set()
    return Subset(images, [i for i in range(n) if i not in held]), Subset(images, sorted(held))


class Draw(NamedTuple):
    """What a sample is made of: a photograph and its crop, and perhaps a second one in a window."""

    photograph: int
    crop: Crop
    second: tuple[int, Crop, Window] | None = None


@dataclasses.dataclass(frozen=True)
class Sampler:
    """Which photographs and crops a batch has: a function of seed, step and place in the batch.

    Args:
      count: of the photographs. Each pass over them is shuffled anew.
      crops: the step from which on each kind of crop holds, ascending, the first 0 (paper: 256
        pixels, later 512).
      batch_size: of all hosts together.
      seed: of the order and of the crops.
      pasted: share of the samples that have a window of another photograph in them.
    """

    count: int
    crops: Sequence[tuple[int, RandomCrop]]
    batch_size: int
    seed: int
    pasted: float = 0.0

    def crop(self, step: int) -> RandomCrop:
        """The kind of crop that holds in the step after `step` steps."""
        return next(crop for begin, crop in reversed(self.crops) if begin <= step)

    def draw(
        self, step: int, place: int, shape: Callable[[int], tuple[int, ...]]
    ) -> tuple[Draw, np.random.Generator]:
        """The sample at a place of a step's batch, and the generator for what else is random in it.
        shape: of the photograph of an index."""
        number = step * self.batch_size + place
        passed, position = divmod(number, self.count)
        index = int(_order(self.count, self.seed, passed)[position])
        rng, crop = _generator(self.seed, 0, number), self.crop(step)
        draw = Draw(index, crop.plan(shape(index), rng))
        if self.pasted and rng.random() < self.pasted:
            other = int(rng.integers(self.count))
            planned = crop.plan(shape(other), rng)
            draw = draw._replace(second=(other, planned, random_window(crop.size, rng)))
        return draw, rng


def _generator(seed: int, purpose: int, number: int) -> np.random.Generator:
    """Independent of that of any other number, and found without going through those before."""
    return np.random.Generator(np.random.Philox(key=[seed, purpose], counter=[0, 0, 0, number]))


@lru_cache(maxsize=4)
def _order(count: int, seed: int, passed: int) -> np.ndarray:
    return _generator(seed, 1, passed).permutation(count)


def training_batches(
    images: Photographs,
    *,
    stages: Sequence[tuple[int, RandomCrop]],
    batch_size: int,
    seed: int,
    first_step: int = 0,
    threads: int = 4,
    drawings: float = 0.0,
    pasted: float = 0.0,
    share: tuple[int, int] = (0, 1),
) -> Iterator[np.ndarray]:
    """Endless batches `(batch_size / hosts, size, size, 3)` uint8, from `first_step` on.

    stages, pasted: see `Sampler`. drawings: share of the crops that are drawings in place of
    photographs, or upon them (`drawings.py`; our choice). share: this host's number, and how many
    there are; together they have the whole batch, in order. The k-th batch is the same whatever
    `first_step` the iteration started from. An image that cannot be used is replaced by the next.
    """
    host, hosts = share
    mine = range(host * (batch_size // hosts), (host + 1) * (batch_size // hosts))
    usable = Usable(images)
    sampler = Sampler(len(images), stages, batch_size, seed, pasted)

    def sample(step: int, place: int) -> np.ndarray:
        decoded: dict[int, np.ndarray] = {}

        def shape(index: int) -> tuple[int, ...]:
            decoded[index] = usable[index]
            return decoded[index].shape

        drawn, rng = sampler.draw(step, place, shape)
        size = sampler.crop(step).size
        pixels = cut(decoded[drawn.photograph], drawn.crop, size)
        if drawn.second is not None:
            other, crop, window = drawn.second
            pixels = paste(pixels, cut(decoded[other], crop, size), window)
        return sometimes_drawn(drawings, pixels, rng)

    pool = ThreadPoolExecutor(threads)
    pending: deque[list[Future[np.ndarray]]] = deque()
    ahead = 1 + -(-2 * threads // len(mine))  # batches: every thread has a sample, and one waits
    try:
        for step in itertools.count(first_step):
            pending.append([pool.submit(sample, step, place) for place in mine])
            if len(pending) > ahead:
                yield np.stack([future.result() for future in pending.popleft()])
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


class Usable:
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


def central_crops(images: Photographs, size: int, what: str) -> list[np.ndarray]:
    """The central crops `(size, size, 3)`, uint8, of the images that are large enough.

    Args:
      what: these images are, for messages.

    Raises:
      DataError: not one of them is.
    """
    found = []
    for i in range(len(images)):
        image = images[i]
        if image is not None and min(image.shape[:2]) >= size:
            top, left = ((side - size) // 2 for side in image.shape[:2])
            found.append(image[top : top + size, left : left + size].copy())
    if images and not found:
        raise DataError(
            f"None of the {len(images)} {what} images has {size} pixels on both sides, which the "
            "crops of the last stage have (data.crops). Use larger images, name others with "
            "data.validation, or set data.held_back to 0."
        )
    if small := len(images) - len(found):
        logging.warning(
            "%d of %d %s images are not used: less than %d pixels", small, len(images), what, size
        )
    return found

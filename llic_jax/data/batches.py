"""Training photographs to batches of random crops, uint8 NHWC.

The batch of a step is a function of the seed and the step alone, so a run that goes on from a
checkpoint sees exactly the data that it would have seen, on any number of hosts. Decoding runs in
threads.

    sources.py --> Photographs (random access, uint8 RGB) --> crops --> batch --> host's share
"""

import dataclasses
import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from llic_jax.data.augmentation import Crop, RandomCrop, Window, cut, paste, random_window
from llic_jax.data.drawings import sometimes_drawn
from llic_jax.data.photographs import Photographs, Usable


class Draw(NamedTuple):
    """A sample in numbers.

    Attributes:
        photograph: Its index.
        crop: Of it.
        second: Another photograph, its crop, and the window of this one that it fills; or None.
    """

    photograph: int
    crop: Crop
    second: tuple[int, Crop, Window] | None = None


@dataclasses.dataclass(frozen=True)
class Sampler:
    """Which photographs and crops a batch has: a function of seed, step and place in the batch.

    Attributes:
        count: Number of photographs. Each pass over them is shuffled anew.
        crops: The step from which on each kind of crop holds, ascending, the first 0 (paper: 256
            pixels, later 512).
        batch_size: Of all hosts together.
        seed: Of the order and of the crops.
        pasted: Share of the samples that have a window of another photograph in them.
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
        """Draws the sample at a place of a step's batch.

        Args:
            step: Number of steps done.
            place: In the batch.
            shape: From a photograph's index to its shape `(H, W, ...)`.

        Returns:
            The sample, and the generator for everything else that is random in it.
        """
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
    """A generator for one number, independent of those of all others.

    It counts, so no other has to be drawn before.
    """
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
    """Batches of random crops, without end. A step's batch is the same whatever step came first.

    Args:
        images: One that cannot be used is replaced with the next.
        stages: `Sampler.crops`.
        batch_size: Of all hosts together.
        seed: Of the order and of the crops.
        first_step: That the first batch is for.
        threads: That decode.
        drawings: Share of the crops that are drawings in place of photographs, or upon them
            (`drawings.py`; our choice).
        pasted: As for `Sampler`.
        share: This host's number, and how many there are. Together they have the whole batch, in
            order: host h of n has places h B / n to (h + 1) B / n - 1.

    Yields:
        uint8 `(batch_size / hosts, size, size, 3)`.
    """
    # Invariant: all randomness of a sample comes from its number, step * batch_size + place, so
    # neither threads nor hosts nor a restart change it.
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

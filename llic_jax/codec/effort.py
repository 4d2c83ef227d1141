"""Effort: a refined file in the place of the plain one, where it is the better of the two.

    quality, target PSNR    fewer bytes at no lower a PSNR
    target rate             a higher PSNR at no more bits

Both files are real: the refined one is coded, and its image is the one that a decoder makes.
"""

import dataclasses
import math
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, UInt8

from llic_jax.codec.rate_control import Quality, TargetBpp, TargetPsnr
from llic_jax.codec.results import Compressed, Effort
from llic_jax.errors import InputError

Visible = Bool[np.ndarray, "h w"] | None
Progress = Callable[[float], object]


class Refinement(NamedTuple):
    """How long to refine.

    Attributes:
        steps: Of gradient descent; 3 gain most of what 30 do. Equal steps make equal files. 0: as
            many as `seconds` allow.
        seconds: For the steps but the first, which compiles where the image's size is new, and for
            the tries that end the search.
        progress: Called after every step with the share of the search that is done, 0 to 1. What it
            returns ends the steps if it is true; a file that meets the goal by then is kept.
    """

    steps: int
    seconds: float = math.inf
    progress: Progress | None = None

    @property
    def is_none(self) -> bool:
        """Whether there is nothing to do: neither steps nor a time, or no time.

        Raises:
            InputError: Steps or seconds below zero.
        """
        if self.steps < 0 or self.seconds < 0:
            raise InputError(
                f"Effort is {self.steps} steps in {self.seconds:g} seconds; neither goes below 0."
            )
        return self.seconds == 0 or (self.steps == 0 and self.seconds == math.inf)


class Goal(NamedTuple):
    """What a refined file has to keep.

    Attributes:
        figure: A file's bits; or the squared error of its image, summed over pixels and channels, 0
            to 255.
        allowed: The most of it.
        is_rate: Whether it is bits. The search is for a smaller error then, else for fewer bits.
    """

    figure: Callable[[Compressed], float]
    allowed: float
    is_rate: bool


def improve(
    image: UInt8[np.ndarray, "h w 3"],
    rate: Quality | TargetBpp | TargetPsnr,
    plain: Compressed,
    refine: Callable[[Goal, Visible], Compressed | None],
    reconstruct: Callable[[Compressed], UInt8[np.ndarray, "h w 3"]],
) -> Compressed:
    """The better file of an image, with what effort gained.

    Args:
        image: The pixels.
        rate: What `plain` was made for.
        plain: Without effort.
        refine: Searches latents that meet a goal, and codes them; None if it finds none.
        reconstruct: The image that a decoder will make.
    """
    visible = rate.visible if isinstance(rate, TargetPsnr) else None
    count = 3 * (image[..., 0].size if visible is None else int(visible.sum()))

    def squared_error(compressed: Compressed) -> float:
        error = np.square(image.astype(np.float64) - reconstruct(compressed))
        return float(error.sum() if visible is None else error[visible].sum())

    def psnr(error: float) -> float:
        return 10 * math.log10(255**2 * count / error) if error else math.inf

    started = time.perf_counter()
    before = squared_error(plain)
    most_bits = rate.value * image[..., 0].size if isinstance(rate, TargetBpp) else math.inf
    allowed = before
    if isinstance(rate, TargetPsnr):
        allowed = 255**2 * count / 10 ** (rate.value / 10)
    if isinstance(rate, TargetBpp):
        goal = Goal(lambda other: 8.0 * len(other.data), most_bits, is_rate=True)
    else:
        goal = Goal(squared_error, allowed, is_rate=False)
    chosen, after, coder_seconds = plain, before, plain.coder_seconds
    other = refine(goal, visible) if before else None  # no error: nothing is to be gained
    if other is not None:
        error, coder_seconds = squared_error(other), coder_seconds + other.coder_seconds
        if isinstance(rate, TargetBpp):
            is_better = 8 * len(other.data) <= most_bits and error < before
        else:
            is_better = len(other.data) < len(plain.data) and error <= allowed
        if is_better:
            chosen, after = other, error
    # The search takes its time whichever file is chosen.
    seconds = plain.seconds + time.perf_counter() - started
    return dataclasses.replace(
        chosen,
        network_seconds=seconds - coder_seconds,
        coder_seconds=coder_seconds,
        effort=Effort(len(plain.data), psnr(before), psnr(after)),
    )

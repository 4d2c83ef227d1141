"""The memory that an image's entropy model and latents take, known before anything is computed.

The transforms keep to a budget by working in bands (`execution/bands.py`); the walk cannot.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from llic_jax.execution.bands import GIB, RESERVED_GIB
from llic_jax.execution.canvas import Canvas
from llic_jax.execution.peak import peak_bytes
from llic_jax.ops.sizes import HYPER_STRIDE, LATENT_STRIDE

_SMALL = 1 << 22  # pixels of images that the reserve of the budget is enough for
_PIXEL_BYTES = 30  # of an image in the encoder: 8 bits twice, float32 twice
_TRACED_BLOCKS = 64  # sides of the latent whose walk is traced, in blocks
_BLOCK_SIDE = HYPER_STRIDE // LATENT_STRIDE  # of a block in the latent


class WalkMemory:
    """Estimates from a trace of the encoder's walk; proportional to the canvas (our choice).

    Args:
        walk: From a canvas and a latent to all that coding keeps; calls compiled programs.
        channels: Of the latent.
        memory_gb: GiB that coding may take.
    """

    def __init__(self, walk: Callable[[Canvas, Array], Any], channels: int, memory_gb: float):
        self._walk, self._channels, self._allowed = walk, channels, memory_gb

    def fits(self, count: int, canvas: Canvas) -> bool:
        """Whether so many images of one canvas may be coded together."""
        pixels = count * math.prod(canvas.blocks) * HYPER_STRIDE**2
        return pixels <= _SMALL or self.needed_gib(count, canvas) <= self._allowed

    def needed_gib(self, count: int, canvas: Canvas) -> float:
        """GiB that coding so many images takes, the reserve included."""
        blocks = count * math.prod(canvas.blocks)
        block_bytes = max(self._walk_bytes, _PIXEL_BYTES * HYPER_STRIDE**2)
        return blocks * block_bytes / GIB + RESERVED_GIB

    @functools.cached_property
    def _walk_bytes(self) -> float:
        """Bytes of the walk for a block of 64 x 64 pixels."""
        canvas, side = Canvas((_TRACED_BLOCKS, _TRACED_BLOCKS)), _TRACED_BLOCKS * _BLOCK_SIDE
        y = jax.ShapeDtypeStruct((1, side, side, self._channels), jnp.float32)
        return peak_bytes(lambda y: self._walk(canvas, y), y) / _TRACED_BLOCKS**2

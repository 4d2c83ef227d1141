"""Window attention and the Swin block, NHWC, for images of any size.

Liu et al., "Swin Transformer: Hierarchical Vision Transformer using Shifted Windows" (ICCV 2021):
attention inside square windows, with a learned bias per relative position; every second block
shifts the windows, so that neighbours meet.

Swin rolls the image and masks what meets only by rolling. Here (our choice) zeros are put before
and after instead, so that window borders fall where the shift wants them, and they are masked.
For sizes that Swin takes the result is the same; a border window simply holds fewer positions, and
sizes that are no multiple of the window, or smaller than it, need no further case.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Bool

from llic_jax.layers.chain import Local, Locality
from llic_jax.layers.convolutions import Conv
from llic_jax.layers.initializers import RESIDUAL_SCALE, normal
from llic_jax.layers.types import Feature


class WindowAttention(Local):
    """Multi-head self-attention inside windows of `window` x `window` positions.

    Windows begin at rows and columns `shift + i window` for all integers i, as far as there are
    positions in them. A position attends to those of its own window only. A call takes `x`
    `(B, H, W, C)` and `covered`, which positions there are; by default all.

    Attributes:
        window: Side of a window, in positions.
        head_dim: Channels of a head; divides C.
        shift: 0 to `window - 1`.
        dtype: Of the products; the softmax is float32.
    """

    window: int
    head_dim: int
    shift: int = 0
    dtype: DTypeLike = jnp.float32

    @property
    def locality(self) -> Locality:
        return Locality(self.window - 1, takes_covered=True)

    @nn.compact
    def __call__(self, x: Feature, covered: Bool[Array, "1 h w 1"] | None = None) -> Feature:
        c, size = x.shape[-1], self.window
        heads = c // self.head_dim
        bias_table = self.param("position_bias", normal(0.02), ((2 * size - 1) ** 2, heads))
        grid = _WindowGrid(x.shape[1], x.shape[2], size, self.shift)

        q, k, v = (
            part.reshape(*part.shape[:-1], heads, self.head_dim)
            for part in jnp.split(
                grid.split(Conv(3 * c, 1, dtype=self.dtype, name="qkv")(x)), 3, axis=-1
            )
        )
        logits = jnp.einsum("bnqhd,bnkhd->bnhqk", q, k, preferred_element_type=jnp.float32)
        bias = bias_table[_relative_positions(size)]  # (size^2, size^2, heads)
        logits = logits / math.sqrt(self.head_dim) + bias.transpose(2, 0, 1)[None, None]
        # A position that only fills up a window gets weight zero. (In a window without any other
        # all weights are the same, and count for nothing.)
        logits = jnp.where(grid.real(covered)[:, None, None, :], logits, jnp.finfo(jnp.float32).min)
        weights = jax.nn.softmax(logits, axis=-1).astype(self.dtype)
        h = jnp.einsum("bnhqk,bnkhd->bnqhd", weights, v)
        h = grid.merge(h.reshape(*h.shape[:-2], c))
        return Conv(c, 1, init_scale=RESIDUAL_SCALE, dtype=self.dtype, name="project")(h)


class SwinBlock(nn.Module):
    """`x + attention(norm(x))`, then `x + mlp(norm(x))` with four times the channels and GELU.

    Attributes:
        window: Side of a window, in positions.
        head_dim: Channels of a head; divides C.
        shifted: Moves the windows by half their side.
        dtype: Of the computation.
    """

    window: int
    head_dim: int
    shifted: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Feature) -> Feature:
        c, dtype = x.shape[-1], self.dtype
        shift = self.window // 2 if self.shifted else 0
        h = nn.LayerNorm(dtype=dtype, name="norm_attention")(x)
        x = x + WindowAttention(self.window, self.head_dim, shift, dtype, name="attention")(h)
        h = nn.LayerNorm(dtype=dtype, name="norm_mlp")(x)
        h = nn.gelu(Conv(4 * c, 1, dtype=dtype, name="expand")(h))
        return x + Conv(c, 1, init_scale=RESIDUAL_SCALE, dtype=dtype, name="reduce")(h)


class _WindowGrid:
    """How an image of `height` x `width` falls into windows."""

    def __init__(self, height: int, width: int, window: int, shift: int):
        self.window = window
        self.rows = _padding(height, window, shift)
        self.columns = _padding(width, window, shift)
        self.height, self.width = height, width

    def split(self, x: Array) -> Array:
        """`(B, H, W, C)` to `(B, windows, window^2, C)`, zeros where there is nothing."""
        x = jnp.pad(x, ((0, 0), self.rows, self.columns, (0, 0)))
        b, h, w, c = x.shape
        size = self.window
        x = x.reshape(b, h // size, size, w // size, size, c)
        return x.transpose(0, 1, 3, 2, 4, 5).reshape(b, -1, size**2, c)

    def merge(self, windows: Array) -> Array:
        """The inverse of `split`."""
        b, _, _, c = windows.shape
        size = self.window
        h, w = sum(self.rows) + self.height, sum(self.columns) + self.width
        x = windows.reshape(b, h // size, w // size, size, size, c)
        x = x.transpose(0, 1, 3, 2, 4, 5).reshape(b, h, w, c)
        top, left = self.rows[0], self.columns[0]
        return x[:, top : top + self.height, left : left + self.width]

    def real(self, covered: Array | None) -> Array:
        """Which positions of the windows are in the image, `(windows, window^2)`."""
        if covered is None:
            covered = jnp.ones((1, self.height, self.width, 1), bool)
        return self.split(covered)[0, :, :, 0]


def _padding(length: int, window: int, shift: int) -> tuple[int, int]:
    """Positions to add before and after, for windows that begin at `shift`."""
    before = -shift % window
    return before, -(before + length) % window


def _relative_positions(size: int) -> np.ndarray:
    """The entry of the bias table for query q and key k of a window: `(size^2, size^2)`."""
    row, column = np.divmod(np.arange(size**2), size)
    down = row[:, None] - row[None, :] + size - 1
    right = column[:, None] - column[None, :] + size - 1
    return down * (2 * size - 1) + right

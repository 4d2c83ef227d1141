"""Pallas kernels of the depth-wise convolution for TPUs, by way of Mosaic (our choice).

Channels lie on the 128 lanes, columns on the sublanes. The image is padded by XLA, so that nothing
needs a mask, and cut into tiles; a tile and what it needs of its neighbours below and to the right
come as four blocks of the same array, which a program joins in a scratch buffer, in float32. Shifts
along a row are then reads at another sublane, shifts along a column at another row.

Shown so far: that this is right when interpreted, and that it lowers. It has seen no TPU.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu

_LANES = 128
_SUBLANES = 8


@partial(jax.jit, static_argnames="interpret")
def convolve(x: Array, kernel: Array, interpret: bool = False) -> Array:
    """Depth-wise convolution.

    Args:
        x: `(B, H, W, C)`.
        kernel: `(K, K, C)` or `(B, K, K, C)`, of the same type.
        interpret: Runs without a TPU, slowly, for tests.

    Returns:
        `(B, H, W, C)`, of the same type.
    """
    _, height, width, channels = x.shape
    size = kernel.shape[-2]
    tiles = _Tiles(x.shape, size)
    per_sample = kernel.ndim == 4
    kernel = kernel if per_sample else kernel[None]
    taps = jnp.pad(kernel.astype(jnp.float32), ((0, 0), (0, 0), (0, 0), (0, tiles.extra_channels)))

    def program(*refs):
        *x_refs, taps_ref, y_ref, joined = refs
        tiles.join(x_refs, joined)

        def row(r, carry):
            def add_tap_row(i, total):
                for j in range(size):
                    values = joined[r + i, pl.ds(j, tiles.columns), :]
                    total += values * taps_ref[0, i, pl.ds(j, 1), :]
                return total

            zeros = jnp.zeros((tiles.columns, _LANES), jnp.float32)
            y_ref[0, r] = lax.fori_loop(0, size, add_tap_row, zeros).astype(y_ref.dtype)
            return carry

        lax.fori_loop(0, tiles.rows, row, 0)

    y = pl.pallas_call(
        program,
        out_shape=jax.ShapeDtypeStruct(tiles.output_shape, x.dtype),
        grid=tiles.grid,
        in_specs=[
            *tiles.input_specs,
            pl.BlockSpec(
                (1, size, size, _LANES), lambda b, c, n, m: (b if per_sample else 0, 0, 0, c)
            ),
        ],
        out_specs=tiles.spec,
        scratch_shapes=[tiles.scratch],
        compiler_params=_params("parallel"),
        interpret=interpret,
    )(*4 * [tiles.pad(x)], taps)
    return y[:, :height, :width, :channels]


@partial(jax.jit, static_argnames=("size", "interpret"))
def correlate(x: Array, dy: Array, size: int, interpret: bool = False) -> Array:
    """The gradient of `convolve` by each sample's kernel. Tiles are added up one after the other.

    Args:
        x: Input of the convolution, `(B, H, W, C)`.
        dy: Upstream gradient, of the same shape and type.
        size: K of the kernel.
        interpret: Runs without a TPU, slowly, for tests.

    Returns:
        `(B, size, size, C)`, float32.
    """
    batch, _, _, channels = x.shape
    tiles = _Tiles(x.shape, size)
    pads = zip(dy.shape, tiles.output_shape, strict=True)
    dy = jnp.pad(dy, [(0, after - before) for before, after in pads])

    def program(*refs):
        *x_refs, dy_ref, dkernel_ref, joined = refs
        tiles.join(x_refs, joined)

        @pl.when((pl.program_id(2) == 0) & (pl.program_id(3) == 0))
        def _():
            dkernel_ref[...] = jnp.zeros_like(dkernel_ref)

        def tap_row(i, carry):
            def add_row(r, sums):
                gradient = dy_ref[0, r].astype(jnp.float32)
                products = (joined[r + i, pl.ds(j, tiles.columns), :] * gradient for j in columns)
                # Whole registers are added; their sublanes only once, at the end.
                folded = (p.reshape(-1, _SUBLANES, _LANES).sum(0) for p in products)
                return [total + part for total, part in zip(sums, folded, strict=True)]

            columns = range(size)
            zeros = [jnp.zeros((_SUBLANES, _LANES), jnp.float32)] * size
            for j, total in enumerate(lax.fori_loop(0, tiles.rows, add_row, zeros)):
                dkernel_ref[0, i, pl.ds(j, 1), :] += total.sum(0, keepdims=True)
            return carry

        lax.fori_loop(0, size, tap_row, 0)

    dkernel = pl.pallas_call(
        program,
        out_shape=jax.ShapeDtypeStruct(
            (batch, size, size, channels + tiles.extra_channels), jnp.float32
        ),
        grid=tiles.grid,
        in_specs=[*tiles.input_specs, tiles.spec],
        out_specs=pl.BlockSpec((1, size, size, _LANES), lambda b, c, n, m: (b, 0, 0, c)),
        scratch_shapes=[tiles.scratch],
        compiler_params=_params("arbitrary"),
        interpret=interpret,
    )(*4 * [tiles.pad(x)], dy)
    return dkernel[..., :channels]


class _Tiles:
    """How an image `(B, H, W, C)` is cut for a kernel of `size` x `size`.

    A tile has `rows` x `columns` outputs, and reaches `below` rows and `right` columns further: the
    powers of two from `size - 1` on, so that a tile's sides are multiples of them.
    """

    def __init__(self, shape: tuple[int, ...], size: int):
        batch, height, width, channels = shape
        self.p = size // 2
        self.below = max(_SUBLANES, pl.next_power_of_2(max(size - 1, 1)))
        self.right = max(2 * _SUBLANES, self.below)  # bfloat16 has twice the sublanes
        self.rows, self.columns = max(16, self.below), max(64, self.right)
        self.extra_channels = -channels % _LANES
        lanes = channels + self.extra_channels
        # Batch, channels, rows, columns: `correlate` adds up over the last two.
        self.grid = (
            batch,
            lanes // _LANES,
            pl.cdiv(height, self.rows),
            pl.cdiv(width, self.columns),
        )
        self.output_shape = (batch, self.grid[2] * self.rows, self.grid[3] * self.columns, lanes)
        self.spec = pl.BlockSpec(
            (1, self.rows, self.columns, _LANES), lambda b, c, n, m: (b, n, m, c)
        )
        self.scratch = tpu.VMEM(
            (self.rows + self.below, self.columns + self.right, _LANES), jnp.float32
        )

    @property
    def input_specs(self) -> list[pl.BlockSpec]:
        """Of the padded image four times: the tile, below it, to its right, and the corner."""

        def spec(down, across):
            rows = self.below if down else self.rows
            columns = self.right if across else self.columns
            row_step, column_step = self.rows // rows, self.columns // columns

            def index(b, c, n, m):
                return b, (n + down) * row_step, (m + across) * column_step, c

            return pl.BlockSpec((1, rows, columns, _LANES), index)

        return [spec(down, across) for down in (0, 1) for across in (0, 1)]

    def pad(self, x: Array) -> Array:
        _, height, width, _ = x.shape
        _, rows, columns, _ = self.output_shape
        return jnp.pad(
            x,
            (
                (0, 0),
                (self.p, rows + self.below - height - self.p),
                (self.p, columns + self.right - width - self.p),
                (0, self.extra_channels),
            ),
        )

    def join(self, refs, joined):
        """The four blocks as one array in `joined`."""
        tile, right, below, corner = (ref[0].astype(jnp.float32) for ref in refs)
        joined[: self.rows, : self.columns] = tile
        joined[: self.rows, self.columns :] = right
        joined[self.rows :, : self.columns] = below
        joined[self.rows :, self.columns :] = corner


def _params(tiles: Any) -> Any:
    """Whether tiles are independent, "parallel", or added up, "arbitrary"."""
    params = getattr(tpu, "CompilerParams", None) or tpu.TPUCompilerParams  # old JAX
    return params(dimension_semantics=("parallel", "parallel", tiles, tiles))

"""Pallas kernels of the depth-wise convolution for CUDA GPUs, by way of Triton (our choice).

A warp takes 64 neighbouring channels, two a thread, so that every access is contiguous, and a strip
of neighbouring columns. Of an input row a thread keeps the whole window that its strip reaches in
registers: a window of `width + K - 1` values serves `width * K` multiplications, and what is left
to read from the caches stays below what they deliver. Rows are taken one by one by the loop over
the kernel's rows: Triton's compile time grows with the cube of what is unrolled.

Triton knows tensors of powers of two only, and no slices of them: strips are lists of tensors
`(strips, channels)`, one for each column of a strip. Arrays are addressed flat, by 32-bit offsets;
whatever lies outside the image or beyond the last channel is masked.

On an H200 it is right, and 14 to 46 times as fast as XLA's grouped convolution
(docs/performance.md); for compute capability 9.0 Triton's compiler spills no register. JAX 0.11
calls its way to Triton deprecated.
"""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

_BAND = 8  # rows that one program of `correlate` adds up


class Blocks(NamedTuple):
    """What one program computes; `channels` and `strips` are powers of two.

    Attributes:
        channels: 32 for each element that a thread holds.
        strips: One for each warp.
        width: Columns of a strip.
        rows: Of the output in `convolve`, of the kernel in `correlate`.
    """

    channels: int
    strips: int
    width: int
    rows: int


def convolve_blocks(shape: tuple[int, ...], size: int) -> Blocks:
    """Blocks of `convolve` for x of `shape` (B, H, W, C) and a kernel of `size` x `size`.

    Small kernels are bound by memory: two rows at once share what they read. Wide strips are best
    for large ones, as long as there remain enough programs for the processors of a large GPU.
    """
    wide = size > 3 and math.prod(shape) >= 2**21
    return _blocks(shape, width=16 if wide else 8, rows=1 if size > 3 else 2)


def correlate_blocks(shape: tuple[int, ...], size: int) -> Blocks:
    """The blocks of `correlate`.

    A program reads its part of x and dy once for all its rows of the kernel, and keeps their sums
    in registers, which suffice for two rows of 11.

    Args:
        shape: Of `x`, `(B, H, W, C)`.
        size: K of the kernel.
    """
    return _blocks(shape, width=8, rows=2 if size > 3 else size)


def _blocks(shape: tuple[int, ...], width: int, rows: int) -> Blocks:
    columns, features = shape[-2:]
    channels = 64 if pl.cdiv(features, 64) * 2 == pl.cdiv(features, 32) else 32
    strips = min((4, 2, 1), key=lambda n: pl.cdiv(columns, n * width) * n)  # least left over
    return Blocks(channels, strips, width, rows)


@partial(jax.jit, static_argnames=("blocks", "interpret"))
def convolve(
    x: Array, kernel: Array, blocks: Blocks | None = None, interpret: bool = False
) -> Array:
    """Depth-wise convolution.

    Args:
        x: `(B, H, W, C)`.
        kernel: `(K, K, C)` or `(B, K, K, C)`, of the same type.
        blocks: What a program computes; by default `convolve_blocks`.
        interpret: Runs without a GPU, slowly, for tests.

    Returns:
        `(B, H, W, C)`, of the same type.
    """
    batch, height, width, channels = x.shape
    size = kernel.shape[-2]
    p = size // 2
    blocks = blocks or convolve_blocks(x.shape, size)
    # The last index runs fastest: programs at work at the same time share rows and columns.
    grid = (
        batch,
        pl.cdiv(height, blocks.rows),
        pl.cdiv(width, blocks.strips * blocks.width),
        pl.cdiv(channels, blocks.channels),
    )
    row_stride = width * channels
    kernel_stride = size * size * channels if kernel.ndim == 4 else 0

    def program(x_ref, kernel_ref, y_ref):
        b, row_block, column_block, channel_block = _unravel(pl.program_id(0), grid)
        strip, c = _strips_and_channels(blocks, channel_block)
        h0 = row_block * blocks.rows
        w0 = (column_block * blocks.strips + strip) * blocks.width
        inside = _inside(w0, c, blocks.width, p, width, channels)
        origin = b * (height * row_stride) + w0 * channels + c

        def window(h, mask):
            return [
                _load(x_ref, origin + h * row_stride + (q - p) * channels, inside[q] & mask)
                for q in range(blocks.width + size - 1)
            ]

        def weights(i):
            start = b * kernel_stride + i * (size * channels) + c
            return [_load(kernel_ref, start + j * channels, c < channels) for j in range(size)]

        def add(sums, values, taps):
            return [
                sum((values[q + j] * tap for j, tap in enumerate(taps)), start=total)
                for q, total in enumerate(sums)
            ]

        zeros = [jnp.zeros(strip.shape, jnp.float32)] * blocks.width
        if blocks.rows == 1:
            # Rows outside the image are left out: bounds instead of masks.
            outputs = [
                lax.fori_loop(
                    jnp.maximum(p - h0, 0),
                    jnp.minimum(size, height + p - h0),
                    lambda i, sums: add(sums, window(h0 + i - p, True), weights(i)),
                    zeros,
                )
            ]
        else:
            taps = [weights(i) for i in range(size)]
            outputs = [zeros] * blocks.rows
            for n in range(blocks.rows + size - 1):
                h = h0 + n - p
                values = window(h, (h >= 0) & (h < height))
                for r in range(max(n - size + 1, 0), min(blocks.rows, n + 1)):
                    outputs[r] = add(outputs[r], values, taps[n - r])
        for r, sums in enumerate(outputs):
            for q, total in enumerate(sums):
                offsets = origin + (h0 + r) * row_stride + q * channels
                _store(y_ref, offsets, total, inside[q + p] & (h0 + r < height))

    return _call(program, grid, blocks, x.shape, x.dtype, interpret)(x, kernel)


@partial(jax.jit, static_argnames=("size", "blocks", "interpret"))
def correlate(
    x: Array, dy: Array, size: int, blocks: Blocks | None = None, interpret: bool = False
) -> Array:
    """The gradient of `convolve` by each sample's kernel.

    Bands of rows are summed apart and then together, in an order that is always the same.

    Args:
        x: Input of the convolution, `(B, H, W, C)`.
        dy: Upstream gradient, of the same shape and type.
        size: K of the kernel.
        blocks: What a program computes; by default `correlate_blocks`.
        interpret: Runs without a GPU, slowly, for tests.

    Returns:
        `(B, size, size, C)`, float32.
    """
    batch, height, width, channels = x.shape
    p = size // 2
    blocks = blocks or correlate_blocks(x.shape, size)
    # All rows of the kernel, one after the other, read the same part of x and dy.
    grid = (
        batch,
        pl.cdiv(height, _BAND),
        pl.cdiv(channels, blocks.channels),
        pl.cdiv(size, blocks.rows),
    )
    row_stride = width * channels

    def program(x_ref, dy_ref, dkernel_ref):
        b, band, channel_block, tap_block = _unravel(pl.program_id(0), grid)
        strip, c = _strips_and_channels(blocks, channel_block)
        i0 = tap_block * blocks.rows

        def add_strips(h, n, sums):
            w0 = (n * blocks.strips + strip) * blocks.width
            inside = _inside(w0, c, blocks.width, p, width, channels)
            origin = (b * height + h) * row_stride + w0 * channels + c
            gradients = [
                _load(dy_ref, origin + q * channels, inside[q + p]) for q in range(blocks.width)
            ]
            totals = []
            for i in range(blocks.rows):
                shift = i0 + i - p
                row = origin + shift * row_stride
                mask = (h + shift >= 0) & (h + shift < height)
                window = [
                    _load(x_ref, row + (q - p) * channels, inside[q] & mask)
                    for q in range(blocks.width + size - 1)
                ]
                totals.append(
                    [
                        sum((window[q + j] * g for q, g in enumerate(gradients)), start=total)
                        for j, total in enumerate(sums[i])
                    ]
                )
            return totals

        def add_row(h, sums):
            steps = pl.cdiv(width, blocks.strips * blocks.width)
            return lax.fori_loop(0, steps, lambda n, sums: add_strips(h, n, sums), sums)

        zeros = [[jnp.zeros(strip.shape, jnp.float32)] * size] * blocks.rows
        last = jnp.minimum((band + 1) * _BAND, height)
        sums = lax.fori_loop(band * _BAND, last, add_row, zeros)
        c = channel_block * blocks.channels + lax.iota(jnp.int32, blocks.channels)
        for i in range(blocks.rows):
            row = ((b * grid[1] + band) * size + i0 + i) * size
            for j in range(size):
                mask = (c < channels) & (i0 + i < size)
                _store(dkernel_ref, (row + j) * channels + c, sums[i][j].sum(0), mask)

    shape = (batch, grid[1], size, size, channels)
    return _call(program, grid, blocks, shape, jnp.float32, interpret)(x, dy).sum(1)


def _call(program, grid, blocks, shape, dtype, interpret):
    """The launch of `program`, over flat arrays, as a function of two arrays."""
    params = getattr(triton, "CompilerParams", None) or triton.TritonCompilerParams  # old JAX

    def run(*operands):
        flat = pl.pallas_call(
            program,
            out_shape=jax.ShapeDtypeStruct((math.prod(shape),), dtype),
            grid=(math.prod(grid),),
            compiler_params=params(num_warps=blocks.strips, num_stages=1),
            interpret=interpret,
        )(*(operand.reshape(-1) for operand in operands))
        return flat.reshape(shape)

    return run


def _unravel(index, shape):
    """A program's number as its indexes into `shape`, the last one fastest."""
    indexes = []
    for side in reversed(shape):
        indexes.append(lax.rem(index, side))
        index = lax.div(index, side)
    return indexes[::-1]


def _strips_and_channels(blocks, channel_block):
    """Number of the strip and of the channel of each element of a block."""
    shape = (blocks.strips, blocks.channels)
    c = channel_block * blocks.channels + lax.broadcasted_iota(jnp.int32, shape, 1)
    return lax.broadcasted_iota(jnp.int32, shape, 0), c


def _inside(w0, c, strip_width, p, width, channels):
    """For each column of a strip's window whether the image has it, and the channel."""
    columns = [w0 + (q - p) for q in range(strip_width + 2 * p)]
    return [(c < channels) & (w >= 0) & (w < width) for w in columns]


def _load(ref, offsets, mask):
    if hasattr(triton, "load"):
        values = triton.load(ref.at[offsets], mask=mask, other=0)
    else:  # old JAX
        values = pl.load(ref, (offsets,), mask=mask, other=0)
    return values.astype(jnp.float32)


def _store(ref, offsets, values, mask):
    values = values.astype(ref.dtype)
    if hasattr(triton, "store"):
        triton.store(ref.at[offsets], values, mask=mask)
    else:  # old JAX
        pl.store(ref, (offsets,), values, mask=mask)

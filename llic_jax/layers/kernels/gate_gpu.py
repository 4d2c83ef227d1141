"""Pallas kernels of the gate for CUDA GPUs, by way of Triton (our choice).

A program takes a block of positions of one sample through all channels, tile by tile: for a tile
of the inner channels it computes both halves, their product, and what the product adds to every
tile of the result, whose sums stay in registers. Nothing in between crosses the device's memory.
Going backward the halves are computed again. What the gradients by the weights are products of is
written, and XLA's products take it from there: a sum over all positions for each of 3 C^2 weights
does not fit into registers, and computing the halves again for each part that does costs more than
reading them (our choice).

Triton knows tensors of powers of two only, so channels are lists of tiles; what lies beyond the
last channel or position is masked. Arrays are addressed flat, by 32-bit offsets. Products take
operands in the arrays' type and add up in float32; of float32 operands a GPU takes TF32, as XLA.

Shown so far: that they are right when interpreted, and that they compile for an H200. They have
run on no GPU.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jaxtyping import Float


class Blocks(NamedTuple):
    """What one program computes at once.

    Attributes:
        rows: Positions; a power of two, at least 16 on a GPU.
        channels: Of a tile; likewise.
        warps: That share the work.
    """

    rows: int
    channels: int
    warps: int


def default_blocks(channels: int) -> Blocks:
    """Blocks for arrays of so many channels.

    The wider tile, unless it leaves more of itself unused. 64 positions are what one group of four
    warps multiplies at once.

    Args:
        channels: Of the gate's input.
    """
    tile = 64 if pl.cdiv(channels, 64) * 2 == pl.cdiv(channels, 32) else 32
    return Blocks(64, tile, 4)


class Gradients(NamedTuple):
    """What `backward` writes.

    Attributes:
        x: The gradient by the input.
        inner: The gradient by both halves, the first one's channels first.
        product: Of the halves, computed again, for the gradient by `project`.
        inner_sums: `inner` summed over the positions of each sample, float32.
        outer_sums: The upstream gradient, likewise.
    """

    x: Float[Array, "b p c"]
    inner: Float[Array, "b p c2"]
    product: Float[Array, "b p c"]
    inner_sums: Float[Array, "b c2"]
    outer_sums: Float[Array, "b c"]


@partial(jax.jit, static_argnames=("limit", "blocks", "interpret"))
def forward(
    x: Float[Array, "b p c"],
    expand: Float[Array, "c c2"],
    expand_bias: Float[Array, "c2"],
    project: Float[Array, "c c"],
    project_bias: Float[Array, "c"],
    gain: Float[Array, "b c"] | None,
    limit: float = 0.0,
    blocks: Blocks | None = None,
    interpret: bool = False,
) -> Float[Array, "b p c"]:
    """A whole gate: `x + gain (project(u v) + project_bias)`.

    `u` and `v` are the halves of `expand(x) + expand_bias`.

    Args:
        x: The input, of the same type as both matrices.
        expand: Matrix to both halves.
        expand_bias: Of both halves, float32.
        project: Matrix of the halves' product.
        project_bias: Added to it, float32.
        gain: Factors by sample and channel, float32; None for one.
        limit: The result is clipped to `[-limit, limit]`; 0: it is not.
        blocks: What a program computes at once; by default what suits the shape.
        interpret: Runs without a GPU, slowly, for tests.

    Returns:
        Of the shape and type of `x`.
    """
    cut = _Cut(x.shape, blocks)

    def program(x_ref, expand_ref, expand_bias_ref, project_ref, bias_ref, *others):
        *gain_ref, y_ref = others
        place = _Place(cut)

        def add_tile(j, sums):
            u, v = place.halves(x_ref, expand_ref, expand_bias_ref, j)
            product = (u * v).astype(x.dtype)
            return [
                total + _dot(product, cut.matrix(project_ref, j, i, cut.channels))
                for i, total in enumerate(sums)
            ]

        zeros = [jnp.zeros((cut.blocks.rows, cut.blocks.channels), jnp.float32)] * cut.tiles
        for i, total in enumerate(lax.fori_loop(0, cut.tiles, add_tile, zeros)):
            total += cut.vector(bias_ref, i)
            if gain_ref:
                total *= place.factors(gain_ref[0], i)
            y = total + place.load(x_ref, i).astype(jnp.float32)
            y = jnp.clip(y, -limit, limit) if limit else y
            place.store(y_ref, i, y)

    gains = () if gain is None else (gain,)
    shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype)]
    run = cut.call(program, shapes, interpret)
    return run(x, expand, expand_bias, project, project_bias, *gains)[0]


@partial(jax.jit, static_argnames=("blocks", "interpret"))
def backward(
    x: Float[Array, "b p c"],
    dy: Float[Array, "b p c"],
    expand: Float[Array, "c c2"],
    expand_bias: Float[Array, "c2"],
    project: Float[Array, "c c"],
    gain: Float[Array, "b c"] | None,
    blocks: Blocks | None = None,
    interpret: bool = False,
) -> Gradients:
    """The gradients of `forward` without a limit.

    Args:
        x: As in `forward`.
        dy: Upstream gradient, of the shape and type of `x`.
        expand: As in `forward`.
        expand_bias: As in `forward`.
        project: As in `forward`.
        gain: As in `forward`.
        blocks: As in `forward`.
        interpret: As in `forward`.
    """
    cut = _Cut(x.shape, blocks)
    c = cut.channels

    def program(x_ref, dy_ref, expand_ref, expand_bias_ref, project_ref, *others):
        *gain_ref, dx_ref, inner_ref, product_ref, inner_sums_ref, outer_sums_ref = others
        place = _Place(cut)

        def scaled(i):
            values = place.load(dy_ref, i)
            if not gain_ref:
                return values
            factors = place.factors(gain_ref[0], i)
            return (values.astype(jnp.float32) * factors).astype(x.dtype)

        def add_tile(j, sums):
            u, v = place.halves(x_ref, expand_ref, expand_bias_ref, j)
            place.store(product_ref, j, u * v)
            by_product = sum(
                _dot(scaled(i), cut.matrix(project_ref, j, i, c), across=True)
                for i in range(cut.tiles)
            )
            for half, gradient in enumerate((by_product * v, by_product * u)):
                place.store(inner_ref, j, gradient, 2 * c, half * c)
                place.store_sum(inner_sums_ref, j, gradient, 2 * c, half * c)
                gradient = gradient.astype(x.dtype)
                sums = [
                    total + _dot(gradient, cut.matrix(expand_ref, i, j, 2 * c, half * c), True)
                    for i, total in enumerate(sums)
                ]
            return sums

        zeros = [jnp.zeros((cut.blocks.rows, cut.blocks.channels), jnp.float32)] * cut.tiles
        for i, total in enumerate(lax.fori_loop(0, cut.tiles, add_tile, zeros)):
            upstream = place.load(dy_ref, i).astype(jnp.float32)
            place.store_sum(outer_sums_ref, i, upstream, c)
            place.store(dx_ref, i, total + upstream)

    batch, positions, _ = x.shape
    shapes = [
        jax.ShapeDtypeStruct(x.shape, x.dtype),
        jax.ShapeDtypeStruct((batch, positions, 2 * c), x.dtype),
        jax.ShapeDtypeStruct(x.shape, x.dtype),
        jax.ShapeDtypeStruct((batch, cut.grid[1], 2 * c), jnp.float32),
        jax.ShapeDtypeStruct((batch, cut.grid[1], c), jnp.float32),
    ]
    gains = () if gain is None else (gain,)
    run = cut.call(program, shapes, interpret)
    dx, inner, product, *sums = run(x, dy, expand, expand_bias, project, *gains)
    return Gradients(dx, inner, product, *(partial_sums.sum(1) for partial_sums in sums))


class _Cut:
    """How arrays `(B, P, C)` fall into the blocks of programs and the tiles of channels."""

    def __init__(self, shape: Sequence[int], blocks: Blocks | None):
        self.batch, self.positions, self.channels = shape
        self.blocks = blocks or default_blocks(self.channels)
        self.tiles = pl.cdiv(self.channels, self.blocks.channels)
        self.grid = (self.batch, pl.cdiv(self.positions, self.blocks.rows))

    def tile(self, i: Any) -> tuple[Array, Array]:
        """The channels of tile `i`, and which of them there are."""
        c = i * self.blocks.channels + lax.iota(jnp.int32, self.blocks.channels)
        return c, c < self.channels

    def matrix(self, ref: Any, i: Any, j: Any, width: int, start: int = 0) -> Array:
        """The rows of tile `i` and the columns of tile `j` of a matrix.

        It has `width` columns; those of the tiles count from column `start`.
        """
        (rows, row_mask), (columns, column_mask) = self.tile(i), self.tile(j)
        offsets = rows[:, None] * width + start + columns[None]
        return _load(ref, offsets, row_mask[:, None] & column_mask[None])

    def vector(self, ref: Any, i: Any, start: Any = 0) -> Array:
        """Tile `i` of a vector as a row, from element `start` on."""
        c, mask = self.tile(i)
        return _load(ref, start + c, mask)[None]

    def call(self, program: Callable, shapes: Sequence[Any], interpret: bool) -> Callable:
        """The launch of `program`, over flat arrays, as a function of arrays."""
        params = getattr(triton, "CompilerParams", None) or triton.TritonCompilerParams  # old JAX

        def run(*operands: Array) -> list[Array]:
            flat = pl.pallas_call(
                program,
                out_shape=[jax.ShapeDtypeStruct((math.prod(s.shape),), s.dtype) for s in shapes],
                grid=self.grid,
                compiler_params=params(num_warps=self.blocks.warps, num_stages=1),
                interpret=interpret,
            )(*(operand.reshape(-1) for operand in operands))
            return [out.reshape(s.shape) for out, s in zip(flat, shapes, strict=True)]

        return run


class _Place:
    """The positions of the program that is running."""

    def __init__(self, cut: _Cut):
        self.cut = cut
        self.sample, self.block = pl.program_id(0), pl.program_id(1)
        position = self.block * cut.blocks.rows + lax.iota(jnp.int32, cut.blocks.rows)
        self.inside = position < cut.positions
        self.rows = self.sample * cut.positions + position

    def _offsets(self, i: Any, width: int, start: int) -> tuple[Array, Array]:
        c, mask = self.cut.tile(i)
        return self.rows[:, None] * width + start + c[None], self.inside[:, None] & mask[None]

    def load(self, ref: Any, i: Any) -> Array:
        """Tile `i` of this block's rows, as it is stored."""
        return _load(ref, *self._offsets(i, self.cut.channels, 0))

    def store(self, ref: Any, i: Any, values: Array, width: int = 0, start: int = 0) -> None:
        """Writes tile `i`, counted from column `start` of `width` (default: the channels)."""
        offsets, mask = self._offsets(i, width or self.cut.channels, start)
        _store(ref, offsets, values, mask)

    def store_sum(self, ref: Any, i: Any, values: Array, width: int, start: int = 0) -> None:
        """Writes the sum of tile `i` over this block's rows."""
        c, mask = self.cut.tile(i)
        row = self.sample * self.cut.grid[1] + self.block
        values = jnp.where(self.inside[:, None], values, 0)
        _store(ref, row * width + start + c, values.sum(0), mask)

    def factors(self, ref: Any, i: Any) -> Array:
        """Tile `i` of this sample's factors, as a row."""
        return self.cut.vector(ref, i, self.sample * self.cut.channels)

    def halves(self, x_ref: Any, expand_ref: Any, bias_ref: Any, j: Any) -> list[Array]:
        """Tile `j` of both halves of the inner channels, float32."""
        cut = self.cut
        halves = []
        for start in (0, cut.channels):
            total = sum(
                _dot(self.load(x_ref, k), cut.matrix(expand_ref, k, j, 2 * cut.channels, start))
                for k in range(cut.tiles)
            )
            halves.append(total + cut.vector(bias_ref, j, start))
        return halves


def _dot(a: Array, b: Array, across: bool = False) -> Array:
    """The product of two matrices, or with `across` of `a` and `b` transposed, float32."""
    dimensions = (((1,), (1 if across else 0,)), ((), ()))
    return lax.dot_general(a, b, dimensions, preferred_element_type=jnp.float32)


def _load(ref: Any, offsets: Array, mask: Array) -> Array:
    if hasattr(triton, "load"):
        return triton.load(ref.at[offsets], mask=mask, other=0)
    return pl.load(ref, (offsets,), mask=mask, other=0)  # old JAX


def _store(ref: Any, offsets: Array, values: Array, mask: Array) -> None:
    values = values.astype(ref.dtype)
    if hasattr(triton, "store"):
        triton.store(ref.at[offsets], values, mask=mask)
    else:  # old JAX
        pl.store(ref, (offsets,), values, mask=mask)

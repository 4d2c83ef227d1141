"""Computes transforms in horizontal bands, so that images of any size fit into a budget of memory.

The layers are local (`layers/chain.py`): a row of the output needs a few rows of the input. SCST
and SCCT are the exception. They make their weights from means over all positions.

So a chain is computed in passes over the image. A pass ends at the input of the next layer that
takes a mean. It adds up that mean, and it stores the input in host memory if the budget has room.
The next pass begins there; without room it begins where this one did, and computes the input again.

A pass is computed band by band. A band's window has more rows than the band, as many as its layers
reach. Where a border of the window cuts through the image, it spoils only these rows. All windows
of a pass have one shape, so they share a program. The result is that of the whole image at once, up
to rounding. (All our choice.)
"""

import itertools
import math
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from llic_jax.execution.canvas import Canvas
from llic_jax.execution.program_cache import cached_jit
from llic_jax.layers.chain import Chain, Local, flat_layers, quality_argument, with_params
from llic_jax.layers.quality import Quality
from llic_jax.ops.sizes import round_up

GIB = 2**30
RESERVED_GIB = 1.0  # of a budget, for libraries, weights and compiled programs
# Of what is left, for a band's program: windows are copied in and out beside it.
BAND_FRACTION = 0.5
# The peak memory of a program is modelled as input + output + this number of times the largest
# activation (fitted on CPUs).
LIVE_BUFFERS = 4

LocalChain = Sequence[tuple[Any, Any]]  # layers (`Local`), each with its parameters


class Banded:
    """A transform within a budget of memory: the whole image at once if that fits, else in bands.

    A transform that is no chain of local layers is always computed as a whole.

    Args:
        transform: `g_a` or `g_s`.
        memory_gb: What the process may hold, GiB, by an estimate that was fitted on a CPU.
        keep: Whether its compiled programs can be stored on disk: the module's `repr` says all.
    """

    def __init__(self, transform: nn.Module, memory_gb: float, keep: bool = False):
        self.transform = transform
        self._layers = list(flat_layers(transform)) if isinstance(transform, Chain) else []
        self._local = bool(self._layers) and all(
            isinstance(layer, Local) and not layer.locality.takes_covered
            for layer, _ in self._layers
        )
        self.budget = max(memory_gb - RESERVED_GIB, 0) * GIB

        def whole(params, canvas, x, *quality):
            return canvas.apply(lambda: transform.apply({"params": params}, x, *quality))

        self._whole = cached_jit(whole, repr(transform) if keep else None)

    def __call__(
        self, params: Any, canvas: Canvas, x: Float[Any, "b h w c"], *quality: Any
    ) -> Float[Any, "b out_h out_w out_c"]:
        """Computes the transform of the image on a canvas.

        Args:
            params: Of the transform.
            canvas: What `x` lies on.
            x: Its input; the sides are multiples of the transform's strides.
            *quality: If the transform takes it.

        Returns:
            The output, float32 if it was computed in bands.
        """
        if self._local and _held(_shapes((layer for layer, _ in self._layers), x)) > self.budget:
            if canvas.used is not None:  # without the canvas, it may fit
                out = self(params, canvas.unpadded(), canvas.crop(np.asarray(x)), *quality)
                return canvas.place(np.asarray(out))
            chain = with_params(self._layers, params)
            out = compute(chain, np.asarray(x), self.budget, *quality)
            return out.astype(np.float32, copy=False)
        return self._whole(params, canvas, x, *quality)


def compute(
    chain: LocalChain,
    x: Float[np.ndarray, "b h w c"],
    budget: float,
    quality: Quality | None = None,
) -> Float[np.ndarray, "b out_h out_w out_c"]:
    """Computes a chain of local layers in bands.

    Args:
        chain: The layers, each with its parameters.
        x: The input. Its height is a multiple of all strides together.
        budget: Bytes. An activation is stored if it takes no more than half of it: the next stage's
            is written while this one is read. Bands get what is left. They do not get so low that
            most of the work is done on the rows around them: a very wide image may exceed a small
            budget.
        quality: For the layers that take it.

    Returns:
        The output of the last layer, in its type.
    """
    shapes = _shapes((layer for layer, _ in chain), x)
    means: dict[int, Array] = {}
    start = 0  # the first of the layers that `x` has not been through
    for stop in range(len(chain) + 1):
        at_end = stop == len(chain)
        if not (at_end or chain[stop][0].locality.uses_global_mean):
            continue
        shape, dtype = shapes[stop].shape, shapes[stop].dtype
        if not at_end and _bytes(shapes[stop]) > budget / 2:
            target = None
        elif start > 0 and (shape, dtype) == (x.shape, x.dtype):
            target = x  # which the caller knows nothing of
        else:
            target = np.empty(shape, dtype)
        stored = x.nbytes + (0 if target is None or target is x else target.nbytes)
        left = BAND_FRACTION * (budget - stored)
        pooled = [means.get(i) for i in range(start, stop)]
        means[stop] = _run_pass(chain[start:stop], pooled, x, target, left, quality)
        if target is not None:
            x, start = target, stop
    return x


def _run_pass(
    part: LocalChain,
    pooled: Sequence[Array | None],
    x: np.ndarray,
    target: np.ndarray | None,
    budget: float,
    quality: Quality | None = None,
) -> Array:
    """Computes one pass.

    Args:
        part: Its layers, each with its parameters.
        pooled: For each layer the mean of its input; None if it does not use it.
        x: The input.
        target: Where the output goes, if it is stored. May be `x`.
        budget: Bytes, for a band's program.
        quality: For the layers that take it.

    Returns:
        The output's mean over positions, `(B, C)`, float32.
    """
    layers = tuple(layer for layer, _ in part)
    params = [params for _, params in part]
    shapes = _shapes(layers, x)
    out_height, out_width = shapes[-1].shape[1:3]
    bands, window = _bands(layers, x.shape[1], out_height, _held(shapes), budget)

    def read(band: _Band) -> np.ndarray:
        # A copy: JAX may compute on NumPy's own memory, and `target` may be the same.
        return x[:, band.first : band.first + window].copy()

    rows, total = read(bands[0]), np.zeros(())
    for band, following in zip(bands, [*bands[1:], None], strict=True):
        out, sums = _window(layers, params, pooled, quality, rows, np.asarray(band.own, np.int32))
        if following is not None:
            rows = read(following)  # which may be rows that are written next
        if target is not None:
            first, last = band.own
            target[:, band.start : band.start + last - first] = np.asarray(out)[:, first:last]
        total = total + np.asarray(sums, np.float64)
        del out  # before the next one is made
    return jnp.asarray(total / (out_height * out_width), jnp.float32)


@partial(jax.jit, static_argnums=0)
def _window(
    layers: tuple[Local, ...],
    params: Any,
    pooled: Any,
    quality: Quality | None,
    x: Array,
    own: Array,
) -> tuple[Array, Array]:
    """One window through the layers, and the sum of its rows `own[0] .. own[1]`, float32.

    A window is computed as if it were an image: the layers see zeros above and below it. Where the
    border cuts through the image that is wrong, and reaches as many rows inwards as the layers do
    together (`_cut` has them as rows around the band). Those rows of the output are thrown away,
    and must not be counted in the sum. `own` is an array, not a constant, so that all bands of a
    pass share one program.
    """
    out: Any = x
    for layer, of_layer, mean in zip(layers, params, pooled, strict=True):
        means = [] if mean is None else [mean]
        out = layer.apply({"params": of_layer}, out, *means, **quality_argument(layer, quality))
    row = jnp.arange(out.shape[1])[:, None, None]
    mine = jnp.where((own[0] <= row) & (row < own[1]), out, jnp.zeros_like(out))
    return out, jnp.sum(mine, axis=(1, 2), dtype=jnp.float32)


class _Band(NamedTuple):
    """One band of a pass.

    Attributes:
        start: The output row that it begins at.
        first: The input row that its window begins at.
        own: Of the rows that come out of the window, those from `own[0]` to `own[1]` are the band.
    """

    start: int
    first: int
    own: tuple[int, int]


def _bands(
    layers: Sequence[Local], height: int, out_height: int, whole: int, budget: float
) -> tuple[list[_Band], int]:
    """The fewest bands whose windows stay within the budget, and the rows of a window.

    whole: bytes that a program of the whole image holds. A window stays smaller than two bands:
    it then begins within the band before, and may be read when those further up are overwritten.
    """
    cut = _cut(layers, height, out_height, 1)
    for count in itertools.count(2):
        bands, window = cut
        if whole * window <= budget * height:
            break
        cut = _cut(layers, height, out_height, count)
        if cut[1] * out_height >= 2 * (out_height // count) * height:
            break
    return bands, window


def _cut(
    layers: Sequence[Local], height: int, out_height: int, count: int
) -> tuple[list[_Band], int]:
    """Cuts the output into bands, and finds the window of input rows that each of them needs.

    Args:
        layers: Of the pass.
        height: Rows of the input.
        out_height: Rows of the output.
        count: Number of bands, which are as equal as can be.

    Returns:
        The bands, and the rows of a window, the same for all.
    """
    local = [layer.locality for layer in layers]
    stride = math.prod(at.stride for at in local)
    edges = [out_height * i // count for i in range(count + 1)]
    needed = []
    for first, last in itertools.pairwise(edges):
        # From the last layer to the first: the input rows that the rows first .. last depend on.
        # These may lie outside the image, where there are zeros.
        for at in reversed(local):
            first = first * at.stride // at.upsampling - at.radius
            last = (last - 1) * at.stride // at.upsampling + at.radius + 1
        # A window begins where a stride does: its strides fall on the same rows as the image's.
        needed.append((first // stride * stride, round_up(last, stride)))
    window = min(height, max(last - first for first, last in needed))
    bands = []
    for (start, stop), (first, _) in zip(itertools.pairwise(edges), needed, strict=True):
        # At the top and the bottom the window is moved into the image; it then ends at the image's
        # true border, and holds more rows on the other side.
        first = min(max(first, 0), height - window)
        # Output rows between the window's first and the band's first.
        skip = start - first * out_height // height
        bands.append(_Band(start, first, (skip, skip + stop - start)))
    return bands, window


def _shapes(layers: Iterable[Any], x: Any) -> list[jax.ShapeDtypeStruct]:
    """Of the activation before every layer, and after the last."""
    shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype)]
    for layer in layers:
        at, (b, h, w, c) = layer.locality, shapes[-1].shape
        h, w = (-(-side * at.upsampling // at.stride) for side in (h, w))
        shapes.append(jax.ShapeDtypeStruct((b, h, w, at.features or c), layer.dtype))
    return shapes


def _held(shapes: Sequence[jax.ShapeDtypeStruct]) -> int:
    """Bytes that a program of layers with these activations holds, as XLA reports for CPUs."""
    sizes = list(map(_bytes, shapes))
    return sizes[0] + LIVE_BUFFERS * max(sizes) + sizes[-1]


def _bytes(x: jax.ShapeDtypeStruct) -> int:
    return math.prod(x.shape) * x.dtype.itemsize

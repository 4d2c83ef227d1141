"""Transforms of images of any size: in horizontal bands, within a budget of memory.

The layers are local (`layers/chain.py`) but for the means over all positions that SCST and SCCT
make their weights from. So a chain is computed in passes over the image, each up to the input of
the next pooling layer. A pass takes that input's mean, and stores it in host memory if the budget
has room; the next pass sets out from there, or else from where this one did, computing it again.

A pass is computed band by band. A band's window has as many rows more than the band as its layers
reach: a border that cuts through the image spoils those only, and true borders are borders of the
window. All windows of a pass have one shape, hence one program. The outcome is that of the whole
image at once, up to rounding. (All our choice.)
"""

import itertools
import math
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from llic_jax.execution.canvas import Canvas
from llic_jax.execution.program_cache import jit
from llic_jax.layers.chain import Chain, Local, flatten, quality_argument
from llic_jax.layers.quality import Quality

GIB = 2**30
LIBRARIES = 1.0  # GiB of a budget that are left to libraries, weights and compiled programs
BAND_SHARE = 0.5  # of what is left for a band's program; windows are copied in and out beside it
BUFFERS = 4  # of its largest activation that a program holds beside its input and its output

LocalChain = Sequence[tuple[Any, Any]]  # layers (`Local`), each with its parameters


class Banded:
    """A transform within a budget of memory: the whole image at once if that fits, else in bands.

    A transform that is no chain of local layers is always computed as a whole.

    memory_gb: what the process may hold, GiB, by an estimate that was fitted on a CPU.
    keep: whether its compiled programs can be kept on disk: the module's `repr` says all.
    """

    def __init__(self, transform: nn.Module, memory_gb: float, keep: bool = False):
        self.transform = transform
        self.budget = max(memory_gb - LIBRARIES, 0) * GIB

        def whole(params, canvas, x, *quality):
            return canvas.apply(lambda: transform.apply({"params": params}, x, *quality))

        self._whole = jit(whole, repr(transform) if keep else None)

    def __call__(
        self, params: Any, canvas: Canvas, x: Float[Any, "b h w c"], *quality: Any
    ) -> Float[Any, "b out_h out_w out_c"]:
        """The transform of the image in `x`, whose sides are as the transform wants them.

        quality: if the transform takes it.
        """
        if isinstance(self.transform, Chain):
            chain = list(flatten(self.transform, params))
            local = all(isinstance(layer, Local) for layer, _ in chain)
            if local and _held(_shapes(chain, x)) > self.budget:
                if canvas.used is not None:  # without the canvas, it may fit
                    out = self(params, canvas.exact(), canvas.crop(x), *quality)
                    return canvas.put(np.asarray(out))
                out = compute(chain, np.asarray(x), self.budget, *quality)
                return out.astype(np.float32, copy=False)
        return self._whole(params, canvas, x, *quality)


def compute(
    chain: LocalChain,
    x: Float[np.ndarray, "b h w c"],
    budget: float,
    quality: Quality | None = None,
) -> Float[np.ndarray, "b out_h out_w out_c"]:
    """What the layers make of `x`, in bands. Its height is a multiple of all strides together.

    budget: bytes. An activation is stored if it takes no more than half of it: the next stage's is
        written while this one is read. Bands get what is left. They do not get so low that most of
        the work is done on the rows around them: a very wide image may exceed a small budget.
    """
    shapes = _shapes(chain, x)
    means: dict[int, Array] = {}
    start = 0  # the first of the layers that `x` has not been through
    for stop in range(len(chain) + 1):
        at_end = stop == len(chain)
        if not (at_end or chain[stop][0].locality.pools):
            continue
        shape, dtype = shapes[stop].shape, shapes[stop].dtype
        if not at_end and _bytes(shapes[stop]) > budget / 2:
            target = None
        elif start > 0 and (shape, dtype) == (x.shape, x.dtype):
            target = x  # which the caller knows nothing of
        else:
            target = np.empty(shape, dtype)
        stored = x.nbytes + (0 if target is None or target is x else target.nbytes)
        left = BAND_SHARE * (budget - stored)
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
    """The mean over positions of what the layers make of `x`, which goes to `target` if there is
    one. `target` may be `x`.

    pooled: for each layer the mean of its input; None if it does not pool.
    """
    layers = tuple(layer for layer, _ in part)
    params = [params for _, params in part]
    shapes = _shapes(part, x)
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
    """One window through the layers, and the sum of its rows `own[0] .. own[1]`, float32."""
    out: Any = x
    for layer, of_layer, mean in zip(layers, params, pooled, strict=True):
        means = [] if mean is None else [mean]
        out = layer.apply({"params": of_layer}, out, *means, **quality_argument(layer, quality))
    row = jnp.arange(out.shape[1])[:, None, None]
    mine = jnp.where((own[0] <= row) & (row < own[1]), out, 0)
    return out, jnp.sum(mine, axis=(1, 2), dtype=jnp.float32)


class _Band(NamedTuple):
    """A band begins at output row `start`; its window begins at input row `first`, and of the
    rows that come out of it `own[0] .. own[1]` are the band."""

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
    """The image in `count` bands, as equal as can be, and the rows of their windows."""
    local = [layer.locality for layer in layers]
    stride = math.prod(at.stride for at in local)
    edges = [out_height * i // count for i in range(count + 1)]
    needed = []
    for first, last in itertools.pairwise(edges):
        for at in reversed(local):
            first = first * at.stride // at.up - at.reach
            last = (last - 1) * at.stride // at.up + at.reach + 1
        # A window begins where a stride does.
        needed.append((first // stride * stride, -(-last // stride) * stride))
    window = min(height, max(last - first for first, last in needed))
    bands = []
    for (start, stop), (first, _) in zip(itertools.pairwise(edges), needed, strict=True):
        first = min(max(first, 0), height - window)
        skip = start - first * out_height // height
        bands.append(_Band(start, first, (skip, skip + stop - start)))
    return bands, window


def _shapes(chain: LocalChain, x: Any) -> list[jax.ShapeDtypeStruct]:
    """Of the activation before every layer, and after the last."""
    shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype)]
    for layer, _ in chain:
        at, (b, h, w, c) = layer.locality, shapes[-1].shape
        h, w = (-(-side * at.up // at.stride) for side in (h, w))
        shapes.append(jax.ShapeDtypeStruct((b, h, w, at.features or c), layer.dtype))
    return shapes


def _held(shapes: Sequence[jax.ShapeDtypeStruct]) -> int:
    """Bytes that a program of layers with these activations holds, as XLA reports for CPUs."""
    sizes = list(map(_bytes, shapes))
    return sizes[0] + BUFFERS * max(sizes) + sizes[-1]


def _bytes(x: jax.ShapeDtypeStruct) -> int:
    return math.prod(x.shape) * x.dtype.itemsize

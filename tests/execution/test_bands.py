import itertools
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llic_jax.codec.codec import Codec
from llic_jax.codec.model import Limits
from llic_jax.execution import bands
from llic_jax.execution.bands import GIB, RESERVED_GIB
from llic_jax.layers.chain import flatten
from llic_jax.layers.convolutions import Conv, PatchEmbedding, SubpixelConv
from llic_jax.layers.initializers import init_params
from llic_jax.transforms.blocks import SCST, BlockStyle, DepthRB, Gate
from llic_jax.transforms.transforms import AnalysisTransform, SynthesisTransform

# Two stages of the paper's four, with its kernels, and both stages of strides 8 and 2.
SIZES = dict(channels=(4, 8), kernel_sizes=(11, 9), depths=(1, 1))
SHAPES = {AnalysisTransform: (1, 212, 20, 3), SynthesisTransform: (1, 53, 5, 8)}
EIGHTH = {AnalysisTransform: (1, 832, 32, 3), SynthesisTransform: (1, 52, 2, 8)}
CASES = [
    *((kind, levels, (2, 2), SHAPES[kind]) for kind, levels in itertools.product(SHAPES, (1, 3))),
    *((kind, 3, (8, 2), shape) for kind, shape in EIGHTH.items()),
]


@pytest.fixture(scope="module", params=CASES)
def case(request):
    """A transform's layers, its input and quality, and what is made of it at once."""
    (kind, levels, strides, shape), quality = request.param, ()
    style = BlockStyle(activation_limit=1.0 if levels > 1 else 0.0)  # the input alone is beyond it
    transform = kind(**SIZES, strides=strides, style=style, levels=levels)
    if levels > 1:
        quality = (jnp.array([1.7]),)
    rng = np.random.default_rng(1)
    params = jax.tree.map(  # away from their start, where the mean hardly has an influence
        lambda p: p + np.float32(0.05) * rng.standard_normal(p.shape, np.float32),
        init_params(transform, 0, jax.ShapeDtypeStruct(shape, jnp.float32), *quality),
    )
    x = rng.standard_normal(shape).astype(np.float32)
    whole = jax.jit(transform.apply)({"params": params}, x, *quality)
    return list(flatten(transform, params)), x, quality, whole


# Nothing stored and bands as low as they get; the larger activations not stored; everything stored.
@pytest.mark.parametrize("budget", [0.0, 3e4, 1e5])
def test_bands_make_what_the_whole_image_makes_with_a_program_for_each_pass(case, budget):
    chain, x, quality, whole = case
    given, before = x.copy(), bands._window._cache_size()
    with mock.patch.object(bands, "_window", wraps=bands._window) as windows:
        banded = bands.compute(chain, x, budget, *quality)
    passes = 1 + sum(layer.locality.uses_global_mean for layer, _ in chain)
    assert windows.call_count >= 2 * passes
    assert bands._window._cache_size() - before <= passes
    np.testing.assert_array_equal(x, given)
    np.testing.assert_allclose(banded, whole, rtol=1e-4, atol=1e-5 * float(jnp.abs(whole).max()))


def test_the_mean_counts_every_row_once():
    x = np.random.default_rng(0).standard_normal((2, 37, 3, 4)).astype(np.float32)
    for budget in (0, x.nbytes, 100 * x.nbytes):
        mean = bands._run_pass([], [], x, None, float(budget))
        np.testing.assert_allclose(mean, x.mean((1, 2), dtype=np.float64), rtol=1e-6, atol=1e-7)


DOWN = (Conv(4, 5, stride=2), DepthRB(), SCST(11), Gate(), Conv(4, 5, stride=2), DepthRB())
UP = (SCST(9), SubpixelConv(4), DepthRB(), SCST(11), SubpixelConv(3))


PATCHES = (PatchEmbedding(4, 8), SCST(11), Conv(4, 5, stride=2))
PIXELS = (SubpixelConv(4), SCST(11), SubpixelConv(3, 8))


@pytest.mark.parametrize(
    ("layers", "rate"),
    [(DOWN, 1 / 4), (UP, 4), ((DepthRB(), Gate()), 1), (PATCHES, 1 / 16), (PIXELS, 16)],
)
@pytest.mark.parametrize("height", [4, 44, 148, 1000])
def test_windows_hold_what_their_bands_need(layers, rate, height):
    height = height * 4 if rate == 1 / 16 else height
    out_height = int(height * rate)
    for count in range(1, min(out_height, 40)):
        cut, window = bands._cut(layers, height, out_height, count)
        rows = []
        for band in cut:
            first, last = band.own
            rows += range(band.start, band.start + last - first)
            assert 0 <= band.first <= height - window and band.first % 4 * (rate < 1) == 0
            # The band's rows where the window's outcome has them, by following one row backwards.
            assert band.start - first == band.first * rate
            for row in (band.start, band.start + last - first - 1):
                seen = reach(layers, row) & set(range(height))
                assert seen <= set(range(band.first, band.first + window))
        assert rows == list(range(out_height))
        low = out_height // count
        if len(cut) > 1 and window * rate < 2 * low:  # what `_bands` sees to
            # So a window may be read when the bands up to the last but one are written.
            for before, band in itertools.pairwise(cut):
                assert band.first * rate >= before.start


def reach(layers, row: int) -> set[int]:
    """The input rows that an output row depends on, by taking the layers one by one."""
    seen = {row}
    for layer in reversed(layers):
        at = layer.locality
        if isinstance(layer, PatchEmbedding):
            seen = {i * layer.patch + j for i in seen for j in range(layer.patch)}
            continue
        middle = {i * at.stride // at.upsampling for i in seen}
        seen = {i + j for i in middle for j in range(-at.radius, at.radius + 1)}
    return seen


def test_a_codec_with_little_memory_has_files_and_images_like_any_other(tiny_codec, photograph):
    image = photograph[:70, :70]
    limits = Limits(memory_gb=RESERVED_GIB + 2e5 / GIB)
    small = Codec(tiny_codec.model, tiny_codec.options, limits)
    with mock.patch.object(bands, "compute", wraps=bands.compute) as compute:
        encoded = small.encode([image])[0]
        decoded = small.decode([encoded.data])[0].image
        assert compute.call_count == 4  # analysis, its back-projection, and synthesis
        np.testing.assert_array_equal(decoded, small.reconstruct(encoded))
        with mock.patch.object(bands, "_held", return_value=0):  # everything fits
            usual = small.decode([encoded.data])[0].image
        assert compute.call_count == 5
        expected = tiny_codec.encode([image])[0]
        assert abs(len(encoded.data) - len(expected.data)) <= 2
    difference = np.abs(decoded.astype(int) - usual)
    assert difference.max() <= 1 and np.mean(difference > 0) < 1e-3

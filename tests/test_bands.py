import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llic_jax import bands
from llic_jax.layers.chain import flatten
from llic_jax.layers.initializers import fresh_params
from llic_jax.transforms import AnalysisTransform, SynthesisTransform

# The paper's kernels and two blocks in one stage, so that every kind of pass occurs.
SIZES = dict(channels=(4, 4, 8, 8), kernel_sizes=(11, 11, 9, 9), depths=(1, 1, 2, 1))


def prepared(transform, like) -> dict:
    """Parameters away from their start, where what is generated hardly depends on the image."""
    rng = np.random.default_rng(1)
    return jax.tree.map(
        lambda p: p + np.float32(0.03) * rng.standard_normal(p.shape, np.float32),
        fresh_params(transform, 0, jax.ShapeDtypeStruct(like, jnp.float32)),
    )


@pytest.fixture(scope="module", params=["g_a", "g_s"])
def case(request):
    """A transform's layers, an input, and the output that is looked for."""
    analysis = request.param == "g_a"
    transform = (AnalysisTransform if analysis else SynthesisTransform)(**SIZES)
    shape = (1, 448, 64, 3) if analysis else (1, 28, 4, 8)
    params = prepared(transform, shape)
    x = np.random.default_rng(2).standard_normal(shape).astype(np.float32)
    return list(flatten(transform, params)), x, jax.jit(transform.apply)({"params": params}, x)


@pytest.mark.parametrize("budget", [0.0, 6e4, 4e5])
def test_bands_make_what_the_whole_image_makes(case, budget):
    chain, x, whole = case
    given = x.copy()
    banded = bands.compute(chain, x, budget)
    np.testing.assert_array_equal(x, given)
    scale = float(jnp.abs(whole).max())
    print(budget, scale, np.abs(banded - whole).max(), bands._window._cache_size())
    np.testing.assert_allclose(banded, whole, atol=1e-5 * scale, rtol=1e-4)

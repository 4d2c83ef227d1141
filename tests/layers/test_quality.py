import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llic_jax.layers.convolutions import Conv
from llic_jax.layers.quality import BranchGain, interpolate_levels


def test_tables_are_linear_between_levels_and_constant_beyond_them():
    table = jnp.array([[0.0, 5.0], [1.0, 3.0], [4.0, 3.0]])
    quality = jnp.array([1.0, 1.25, 2.0, 2.5, 3.0, 0.0, 9.0])
    expected = [[0, 5], [0.25, 4.5], [1, 3], [2.5, 3], [4, 3], [0, 5], [4, 3]]
    np.testing.assert_allclose(interpolate_levels(table, quality), expected, atol=1e-6)
    with pytest.raises(ValueError, match="needs a quality"):
        interpolate_levels(table, None)


def test_branches_are_scaled_by_sample_and_channel_geometrically():
    branch = jnp.asarray(np.random.default_rng(0).standard_normal((3, 2, 4, 2)), jnp.float32)
    gain, quality = BranchGain(levels=2), jnp.array([1.0, 1.5, 2.0])
    fresh = gain.init(jax.random.key(0), 2, quality)
    assert fresh["params"]["branch_gain"].shape == (2, 2)
    np.testing.assert_array_equal(gain.apply(fresh, 2, quality), jnp.ones((3, 2)))
    table = np.log([[1.0, 2.0], [4.0, 0.5]]) / 4
    found = gain.apply({"params": {"branch_gain": jnp.asarray(table, jnp.float32)}}, 2, quality)
    factors = np.array([[1, 2], [2, 1], [4, 0.5]])
    np.testing.assert_allclose(found, factors, rtol=1e-5)
    conv = Conv(2, 1)
    params = conv.init(jax.random.key(1), branch)
    np.testing.assert_allclose(
        conv.apply(params, branch, found),
        conv.apply(params, branch) * factors[:, None, None],
        rtol=1e-5,
    )

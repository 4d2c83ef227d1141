import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit

from llic_jax.entropy.factorized import FactorizedPrior

CHANNELS = 3


@pytest.fixture(scope="module")
def prior():
    module = FactorizedPrior(CHANNELS)
    params = module.init(jax.random.key(0), jnp.zeros((1, CHANNELS)))["params"]
    # Away from the initialization, where the factors are zero.
    rng = np.random.default_rng(0)
    return module, jax.tree.map(
        lambda p: p + 0.3 * rng.standard_normal(p.shape, np.float32), params
    )


def cumulative(params: dict, channel: int, z: np.ndarray) -> np.ndarray:
    """Balle et al. 2018, eq. 33 ff., one channel, float64, written out layer by layer."""
    h = z[None, :].astype(np.float64)
    for i in range(4):
        h = np.log1p(np.exp(np.float64(params[f"matrix_{i}"][channel]))) @ h
        h = h + np.float64(params[f"bias_{i}"][channel])[:, None]
        if i < 3:
            h = h + np.tanh(np.float64(params[f"factor_{i}"][channel]))[:, None] * np.tanh(h)
    return expit(h[0])


def test_bits_against_a_direct_computation(prior):
    module, params = prior
    z = np.linspace(-12, 12, 97)
    bits = module.apply(
        {"params": params}, jnp.tile(jnp.asarray(z, jnp.float32)[:, None], CHANNELS)
    )
    for c in range(CHANNELS):
        p = cumulative(params, c, z + 0.5) - cumulative(params, c, z - 0.5)
        np.testing.assert_allclose(bits[:, c], -np.log2(p), rtol=1e-3, atol=1e-4)


def test_probabilities_of_all_integers_sum_to_one(prior):
    module, params = prior
    z = jnp.tile(jnp.arange(-2000.0, 2001.0)[:, None], CHANNELS)
    np.testing.assert_allclose(
        jnp.sum(2.0 ** -module.apply({"params": params}, z), 0), 1, rtol=1e-3
    )


def test_cumulative_increases(prior):
    module, params = prior
    z = jnp.tile(jnp.linspace(-50, 50, 1001)[:, None], CHANNELS)
    logits = module.apply({"params": params}, z, method="logits_cumulative")
    assert (jnp.diff(logits, axis=0) > 0).all()


def test_far_away_everything_stays_finite(prior):
    module, params = prior
    z = jnp.tile(jnp.array([-1e5, -1e3, 0.0, 1e3, 1e5])[:, None], CHANNELS)
    bits, grad = jax.value_and_grad(lambda z: module.apply({"params": params}, z).sum())(z)
    assert jnp.isfinite(bits) and jnp.isfinite(grad).all()
    by_params = jax.grad(lambda p: module.apply({"params": p}, z).sum())(params)
    assert all(jnp.isfinite(g).all() for g in jax.tree.leaves(by_params))

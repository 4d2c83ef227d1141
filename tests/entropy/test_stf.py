"""STF's entropy model: support, latent residual prediction, hyper-transforms."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llic_jax.configs import default
from llic_jax.entropy.stf import ChannelModel, HyperAnalysis, build, hyper_widths
from llic_jax.entropy.walk import Walk
from llic_jax.errors import ConfigError

MODEL = ChannelModel(slices=3, slice_channels=2, max_support=1, widths=(4,))
SHAPE = (1, 2, 3, 6)


def along(model: ChannelModel, hyper: Any, y: jax.Array) -> tuple[jax.Array, list]:
    """The walk with the decoded values of `y` before they are refined."""
    walk, params = Walk(model, hyper, y.shape), []
    for step, mean, scale in walk:
        params.append((mean, scale))
        walk.fill(step.gather(y))
    return walk.y_hat, params


@pytest.fixture(scope="module")
def setup():
    rng = np.random.default_rng(0)
    mean, scale, y = (jnp.asarray(rng.standard_normal(SHAPE), jnp.float32) for _ in range(3))
    params = MODEL.lazy_init(jax.random.key(0), (mean, scale), y, method=along)["params"]
    run = jax.jit(lambda params, y: MODEL.apply({"params": params}, (mean, scale), y, method=along))
    return run, params, y


def test_the_residual_prediction_moves_by_less_than_half(setup):
    run, params, y = setup
    y_hat, _ = run(params, y)
    moved = np.asarray(y_hat - y)
    assert 0 < np.abs(moved).max() < 0.5
    assert all(np.any(moved[..., i : i + 2]) for i in range(0, 6, 2))


def test_the_residual_prediction_saturates_at_half(setup):
    run, params, y = setup
    last = {
        f"g_lrp_{i}": params[f"g_lrp_{i}"]
        | {"conv_1": {"conv": {"kernel": jnp.zeros((3, 3, 4, 2)), "bias": jnp.array([50.0, 0.0])}}}
        for i in range(3)
    }
    moved = np.asarray(run(params | last, y)[0] - y)
    np.testing.assert_allclose(moved[..., 0::2], 0.5, atol=1e-6)
    np.testing.assert_allclose(moved[..., 1::2], 0, atol=1e-6)


def test_slices_beyond_the_support_are_not_looked_at(setup):
    run, params, y = setup
    _, steps = run(params, y)
    for changed, looked_at in ((0, True), (1, False)):
        other = y.at[..., 2 * changed : 2 * changed + 2].add(1)
        _, others = run(params, other)
        assert bool(np.any(others[2][0] != steps[2][0])) == looked_at


def test_hyper_widths_are_the_papers():
    assert hyper_widths(320, 192) == (320, 288, 256, 224, 192)
    assert hyper_widths(192, 320) == (192, 224, 256, 288, 320)


@pytest.mark.parametrize("side", [4, 8])
def test_the_hyper_latent_is_a_quarter(side: int):
    y = jax.ShapeDtypeStruct((1, side, 2 * side, 8), jnp.float32)
    z, _ = jax.eval_shape(lambda y: HyperAnalysis(6).init_with_output(jax.random.key(0), y), y)
    assert z.shape == (1, side // 4, side // 2, 6)


def test_slices_have_to_divide_the_latent():
    config = default.get_config().model.to_dict() | {"slices": 7}
    with pytest.raises(ConfigError, match=r"320 channels .* model.slices = 7"):
        build(config, jnp.float32)

"""Weights in a larger model: it computes the same at first, and all of it can learn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from llic_jax.configs import smoke_eighth
from llic_jax.errors import ConfigError
from llic_jax.models.build import build_model, initialize
from llic_jax.training.growth import grow
from llic_jax.training.loss import rate_distortion

LARGER = {"channels": (10, 12, 16, 16), "depths": (2, 1, 1, 1)}


@pytest.fixture(scope="module")
def larger(tiny_config):
    return build_model({**tiny_config.model.to_dict(), **LARGER})


@pytest.fixture(scope="module")
def grown(larger, tiny_params):
    return grow(initialize(larger, seed=3), tiny_params)


@pytest.mark.slow
def test_a_larger_model_computes_the_same(larger, grown, tiny_model, tiny_params, photograph):
    x = jnp.asarray(photograph[None, :64, :128], jnp.float32) / 255
    quality = jnp.array([1.4])
    # Fresh blocks are next to nothing; here, nothing at all.
    flat = traverse_util.flatten_dict(grown)
    still = {
        path: jnp.zeros_like(p) if "block_0_1" in path and "conv" in path else p
        for path, p in flat.items()
    }
    wanted = tiny_model.apply({"params": tiny_params}, x, quality)
    found = larger.apply({"params": traverse_util.unflatten_dict(still)}, x, quality)
    assert float(wanted.bits_y[0]) > 100
    np.testing.assert_allclose(found.bits_y, wanted.bits_y, rtol=1e-4)
    np.testing.assert_allclose(found.bits_z, wanted.bits_z, rtol=1e-4)
    np.testing.assert_allclose(found.x_hat, wanted.x_hat, atol=1e-4)
    nearly = larger.apply({"params": grown}, x, quality)
    np.testing.assert_allclose(nearly.bits_y, wanted.bits_y, rtol=0.02)


@pytest.mark.slow
def test_what_is_new_learns(larger, grown, tiny_params, photograph):
    x = jnp.asarray(photograph[None, :64, :64], jnp.float32) / 255

    def loss(params):
        out = larger.apply(
            {"params": params}, x, jnp.ones(1), jax.random.split(jax.random.key(0), 1)
        )
        return rate_distortion(out, x, jnp.full(1, 0.01), "mse")[0]

    gradients = traverse_util.flatten_dict(jax.jit(jax.grad(loss))(grown))
    kernel = gradients["g_a", "down_1", "conv", "kernel"]
    old = tiny_params["g_a"]["down_1"]["conv"]["kernel"].shape
    assert np.all(np.abs(kernel[:, :, old[2] :, : old[3]]).max(axis=(0, 1)) > 0)


def test_the_same_model_gets_the_same_weights(tiny_model, tiny_params):
    same = grow(initialize(tiny_model, seed=3), tiny_params)
    assert jax.tree.structure(same) == jax.tree.structure(tiny_params)
    for found, p in zip(jax.tree.leaves(same), jax.tree.leaves(tiny_params), strict=True):
        np.testing.assert_array_equal(found, p)


def test_branch_gains_may_join_in(tiny_params):
    flat = traverse_util.flatten_dict(tiny_params)
    older = {path: p for path, p in flat.items() if path[-1] != "branch_gain"}
    assert len(older) < len(flat)
    both = grow(jax.tree.map(jnp.zeros_like, tiny_params), traverse_util.unflatten_dict(older))
    for path, p in traverse_util.flatten_dict(both).items():
        np.testing.assert_array_equal(p, older.get(path, 0))


def two_stages(strides, channels, width):
    """A tiny config that works at coarser sizes than the paper's."""
    config = smoke_eighth.get_config().model.to_dict()
    sizes = {"strides": strides, "channels": channels, "kernel_sizes": (3, 3), "depths": (1, 0)}
    return {**config, **sizes, "groups": (4, channels[1] - 4), "generator_width": width}


@pytest.mark.slow
@pytest.mark.parametrize("strides", [(8, 2), (2, 8)])
def test_larger_patches_and_wider_generators_compute_the_same(strides, photograph):
    models = [build_model(two_stages(strides, *size)) for size in (((6, 8), 4), ((9, 8), 6))]
    weights = initialize(models[0], seed=1)
    rng = np.random.default_rng(0)
    weights = jax.tree.map(
        lambda p: p + np.float32(0.05) * rng.standard_normal(p.shape, np.float32), weights
    )
    grown = grow(initialize(models[1], seed=3), weights)
    x = jnp.asarray(photograph[None, :64, :128], jnp.float32) / 255
    wanted, found = (
        jax.jit(model.apply)({"params": p}, x, jnp.array([4.5]))
        for model, p in zip(models, (weights, grown), strict=True)
    )
    assert float(jnp.std(wanted.x_hat)) > 1e-3
    np.testing.assert_allclose(found.bits_y, wanted.bits_y, rtol=1e-4)
    np.testing.assert_allclose(found.x_hat, wanted.x_hat, rtol=1e-4, atol=1e-4)


def test_weights_do_not_grow_to_other_strides(tiny_params):
    four_four, eight_two = (two_stages(s, (8, 8), 4) for s in ((4, 4), (8, 2)))
    for weights, config in (
        (initialize(build_model(four_four)), eight_two),
        (initialize(build_model(eight_two)), four_four),
        (tiny_params, eight_two),
    ):
        with pytest.raises(ConfigError, match=r"train\.start.*same model\.strides"):
            grow(initialize(build_model(config)), weights)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"channels": (6, 8, 12, 16)}, r"g_.* is \(.*8,?\) there and \(.*6,?\) here"),
        ({"kernel_sizes": (7, 5, 3, 3)}, r"fc2.* there and .* here"),
        ({"context_widths": (12, 8)}, r"entropy_model.* there and .* here"),
        ({"depths": (1, 1, 0, 1)}, r"they have g_.\.block_2_0.*, which this model has not"),
        ({"groups": (4, 4, 8)}, r"entropy_model"),
    ],
)
def test_another_model_is_refused(tiny_config, tiny_params, change, message):
    other = build_model({**tiny_config.model.to_dict(), **change})
    with pytest.raises(ConfigError, match=r"train\.start.*" + message):
        grow(initialize(other), tiny_params)

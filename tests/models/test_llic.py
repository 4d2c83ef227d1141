import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llic_jax.configs.upgrade import upgrade
from llic_jax.errors import ConfigError
from llic_jax.layers.quality import Gain
from llic_jax.models.build import build_model


@pytest.fixture(scope="module")
def x(request) -> jax.Array:
    photograph = request.getfixturevalue("photograph")
    return (
        jnp.asarray(np.stack([photograph[:64, :64], photograph[100:164, 64:128]]), jnp.float32)
        / 255
    )


@pytest.mark.slow
def test_training_bits_bound_evaluation_bits(tiny_model, tiny_params, x):
    """The noisy estimate is an upper bound on average (Balle et al. 2018); here: not below, with
    the margin that a few noise draws leave."""
    apply = jax.jit(tiny_model.apply)
    quality = jnp.array([2.0, 2.0])
    coded = apply({"params": tiny_params}, x, quality)
    noisy = [
        apply({"params": tiny_params}, x, quality, jax.random.split(jax.random.key(i), 2))
        for i in range(8)
    ]
    for kind in ("bits_y", "bits_z"):
        training = np.mean([getattr(out, kind) for out in noisy], 0)
        assert (training >= 0.97 * getattr(coded, kind)).all()
    # What is decoded differs from coding only in float rounding.
    np.testing.assert_allclose(noisy[0].x_hat, coded.x_hat, atol=1e-4)


def test_samples_do_not_influence_each_other(tiny_model, tiny_params, x):
    apply = jax.jit(tiny_model.apply)
    quality = jnp.array([1.0, 2.0])
    both = apply({"params": tiny_params}, x, quality)
    swapped = apply({"params": tiny_params}, x[::-1], quality[::-1])
    np.testing.assert_allclose(both.bits_y, swapped.bits_y[::-1], rtol=1e-4)
    np.testing.assert_allclose(both.x_hat, swapped.x_hat[::-1], atol=1e-4)


def test_gains_interpolate_geometrically():
    gain = Gain(levels=3, channels=2)
    rng = np.random.default_rng(0)
    params = {
        k: jnp.asarray(rng.standard_normal((3, 2)), jnp.float32)
        for k in ("log_gain", "log_inverse")
    }
    quality = jnp.array([1.0, 2.0, 2.25, 3.0])
    for inverse, name in ((False, "log_gain"), (True, "log_inverse")):
        out = gain.apply({"params": params}, quality, inverse=inverse)[:, 0, 0]
        table = np.exp(params[name])
        expected = [table[0], table[1], table[1] ** 0.75 * table[2] ** 0.25, table[2]]
        np.testing.assert_allclose(out, expected, rtol=1e-5)


@pytest.mark.slow
def test_the_quality_reaches_both_transforms(tiny_model, tiny_params, x):
    """Beside what the gains of the latent do, sample by sample; fresh branch gains do nothing."""

    def latent_and_image(model, params, qualities):
        apply = functools.partial(model.apply, {"params": params})
        y = apply(x, qualities, method=lambda m, x, q: m.g_a(x, *m.transform_arguments(q)))
        image = apply(
            jnp.ones_like(y), qualities, method=lambda m, y, q: m.g_s(y, *m.transform_arguments(q))
        )
        return y, image

    low, high = (latent_and_image(tiny_model, tiny_params, jnp.full(2, q)) for q in (1.0, 2.0))
    mixed = latent_and_image(tiny_model, tiny_params, jnp.array([1.0, 2.0]))
    without_gains = tiny_model.clone(
        g_a=tiny_model.g_a.clone(levels=1), g_s=tiny_model.g_s.clone(levels=1), takes_quality=False
    )
    fresh = jax.tree_util.tree_map_with_path(
        lambda path, p: 0 * p if "branch_gain" in str(path) else p, tiny_params
    )
    neutral = latent_and_image(tiny_model, fresh, jnp.array([1.3, 2.0]))
    plain = latent_and_image(without_gains, tiny_params, None)
    for a, b, both, one, without in zip(low, high, mixed, neutral, plain, strict=True):
        assert np.abs(a - b).max() > 1e-3 * np.abs(a).max()
        np.testing.assert_allclose(both, jnp.stack([a[0], b[1]]), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(one, without, rtol=1e-4, atol=1e-5)


def test_gains_start_as_inverses(tiny_model):
    gain = Gain(levels=4, channels=5)
    params = gain.init(jax.random.key(0), jnp.ones(1))
    quality = jnp.linspace(1, 4, 7)
    product = gain.apply(params, quality) * gain.apply(params, quality, inverse=True)
    np.testing.assert_allclose(product, 1, rtol=1e-5)
    forward = gain.apply(params, quality)[:, 0, 0, 0]
    np.testing.assert_allclose(forward[-1] / forward[0], np.sqrt(483 / 18), rtol=1e-3)


def test_a_config_without_later_fields_is_the_paper_s_layout(tiny_config):
    """As in the config.json of folders that were released before these fields existed."""
    section = tiny_config.model.to_dict()
    older = {k: section[k] for k in section if k not in ("strides", "generator_width")}
    assert len(older) == len(section) - 2
    assert build_model(upgrade({"model": older})["model"]) == build_model(section)
    assert "strides" not in older
    with pytest.raises(ConfigError, match=r"no model\.strides\. .*upgrade"):
        build_model(older)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("entropy_model", "jpeg", "known are"),
        ("groups", (4, 4), "adds up to 8"),
        ("depths", (1, 1, 1), "four stages"),
        ("strides", (8, 2), r"model\.strides \(has 2\).*four stages"),
        ("strides", (2, 2, 2, 4), r"model\.strides is \(2, 2, 2, 4\).*product 16"),
        ("strides", (16, 1, 1, 1), r"2 or more and their product 16"),
    ],
)
def test_configs_that_do_not_fit_are_refused(tiny_config, field, value, message):
    config = tiny_config.model.copy_and_resolve_references()
    with config.unlocked():
        config[field] = value
    with pytest.raises(ConfigError, match=message):
        build_model(config)

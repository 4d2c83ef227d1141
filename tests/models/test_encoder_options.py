"""Back-projection: nearer to the image where the synthesis inverts the analysis only about."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llic_jax.codec.codec import Codec
from llic_jax.codec.rate_control import Quality
from llic_jax.configs.upgrade import upgrade
from llic_jax.errors import ConfigError, InputError
from llic_jax.models.encoder_options import EncoderOptions, back_project
from llic_jax.ops.sizes import pad_to_multiple


def test_back_projection_shrinks_what_the_synthesis_gets_wrong():
    """Linear transforms: what is wrong is (1 - g_s g_a) of the image, and each step with factor f
    leaves 1 - f g_s g_a of it."""
    rng = np.random.default_rng(0)
    rotation, _ = np.linalg.qr(rng.normal(size=(6, 6)))
    synthesis = rotation * np.linspace(0.6, 1.3, 6)
    y = jnp.asarray(rng.normal(size=(2, 3, 4, 6)))
    image = y @ rotation.T
    seen = (y @ synthesis.T) @ rotation
    gains = np.linspace(0.6, 1.3, 6)
    for factor in (0.0, 0.5, 1.0):
        corrected = back_project(y, seen, jnp.array([factor, 1.0]))
        left = (corrected @ synthesis.T - image) @ rotation
        np.testing.assert_allclose(
            left[0], y[0] * (gains - 1) * (1 - factor * gains), rtol=1e-3, atol=1e-5
        )
        np.testing.assert_allclose(left[1], -y[1] * (gains - 1) ** 2, rtol=1e-3, atol=1e-5)


def test_a_synthesis_that_explodes_does_no_harm(tiny_model, tiny_params, photograph):
    """What it makes of a latent that was not quantized is clipped before it is analyzed again."""
    x = jnp.asarray(photograph[None, :64, :64], jnp.float32) / 255
    params = jax.tree.map(lambda p: p, tiny_params)
    bias = params["g_s"]["up_0"]["expand"]["conv"]["bias"]
    options = EncoderOptions(back_projection=(0.5, 0.5))
    for wrong in (1e30, jnp.nan):
        params["g_s"]["up_0"]["expand"]["conv"]["bias"] = bias + wrong
        y = tiny_model.apply({"params": params}, x, jnp.ones(1), options, method="analyze")
        assert np.all(np.isfinite(y))


@pytest.mark.parametrize("wrong", [np.nan, -np.inf, 3e9])
def test_latents_beyond_all_symbols_are_refused(tiny_codec, photograph, wrong):
    latents = tiny_codec.analyze(photograph, 1.0)
    y = np.array(latents.y)
    y[0, 0, 0, 0] = wrong
    with pytest.raises(InputError, match="too far from those that the model has learned from"):
        tiny_codec.encode_latents(latents._replace(y=y), *photograph.shape[:2], 1.0)


def test_large_latents_that_symbols_can_hold_are_coded(tiny_codec, photograph):
    latents = tiny_codec.analyze(photograph, 1.0)
    y, z = np.array(latents.y), np.array(latents.z)
    y[0, 0, 0, 0], z[0, 0, 0, 0] = 1e6, -1e6
    compressed = tiny_codec.encode_latents(latents._replace(y=y, z=z), *photograph.shape[:2], 1.0)
    decoded = tiny_codec.decompress(compressed.data)
    np.testing.assert_array_equal(decoded, tiny_codec.reconstruct(compressed))


def test_factors_follow_the_quality():
    options = EncoderOptions(0.0, (0.0, 0.5, 0.6))
    np.testing.assert_allclose(
        options.factors(jnp.array([1.0, 1.5, 2.2, 3.0])), [0, 0.25, 0.52, 0.6], rtol=1e-5
    )
    np.testing.assert_allclose(EncoderOptions(back_projection=(0.7,)).factors(None), [0.7])
    assert EncoderOptions(24.0).factors(jnp.ones(2)) is None


def test_options_come_from_a_configs_coding_section():
    assert EncoderOptions.of(upgrade({"coding": {"units": 400}})["coding"], 3) == EncoderOptions()
    coding = {"rdoq_weight": 2.0, "back_projection": [0, 0.5], "shift_resolution": 400}
    assert EncoderOptions.of(coding, 2) == EncoderOptions(2.0, (0.0, 0.5))
    with pytest.raises(ConfigError, match="2 factors and the model 3 quality levels"):
        EncoderOptions.of(coding, 3)
    for wrong in (-0.1, 2.5, float("nan")):
        with pytest.raises(ConfigError, match="not between 0"):
            EncoderOptions.of(coding | {"back_projection": (0.5, wrong)}, 2)


@pytest.mark.slow
def test_the_codec_codes_what_the_model_back_projects(tiny_codec, photograph, request):
    """On a canvas larger than the image, at a quality between two levels."""
    model, params, options = tiny_codec.network, tiny_codec.model.params, tiny_codec.options
    image, quality = np.pad(photograph, ((0, 40), (0, 40), (0, 0)), mode="reflect"), 1.5
    level = jnp.full(1, quality)
    x = jnp.asarray(pad_to_multiple(image[None], 64), jnp.float32) / 255
    y = model.apply({"params": params}, x, level, method="analyze")
    image_of_y = model.apply({"params": params}, y, level, method="synthesize")
    seen = model.apply({"params": params}, jnp.clip(image_of_y, 0, 1), level, method="analyze")
    expected = y + 0.6 * (y - seen)
    found = tiny_codec.analyze(image, quality).y
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * float(np.abs(y).max()))
    assert np.abs(found - y).max() > 0.01 * np.abs(y).max()
    encoded = tiny_codec.encode([image], Quality(quality))[0]
    np.testing.assert_array_equal(
        tiny_codec.decompress(encoded.data), tiny_codec.reconstruct(encoded)
    )
    out = model.apply({"params": params}, x, level, None, options)
    request.getfixturevalue("as_predicted")
    encoded = tiny_codec.encode([image], Quality(quality))[0]
    assert encoded.bits == pytest.approx(float(out.bits_y[0] + out.bits_z[0]), rel=0.02)


def test_a_factor_of_zero_is_no_back_projection(tiny_codec, photograph):
    off, none = (
        Codec(tiny_codec.model, EncoderOptions(20.0, factors)) for factors in ((0.0, 0.8), ())
    )
    assert off.compress(photograph, 1.0) == none.compress(photograph, 1.0)
    assert off.compress(photograph, 2.0) != none.compress(photograph, 2.0)

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llic_jax.models.llic import ModelOutput
from llic_jax.training.loss import rate_distortion
from llic_jax.training.optimizer import learning_rate_schedule
from llic_jax.training.quality_sampling import draw_qualities, quality_weights
from llic_jax.training.settings import TrainSettings


def test_schedules(tiny_config):
    train = dataclasses.replace(
        TrainSettings.of(tiny_config),
        learning_rate=1e-4,
        steps=100,
        warmup_steps=0,
        schedule="steps",
        schedule_boundaries=(50, 80),
        schedule_factors=(0.3, 0.1),
    )
    schedule = learning_rate_schedule(train)
    np.testing.assert_allclose(
        [schedule(s) for s in (0, 49, 51, 79, 81)], [1e-4, 1e-4, 3e-5, 3e-5, 1e-5], rtol=1e-5
    )
    train = dataclasses.replace(train, warmup_steps=10)
    schedule = learning_rate_schedule(train)
    np.testing.assert_allclose(
        [schedule(s) for s in (0, 5, 10, 51)], [0, 5e-5, 1e-4, 3e-5], rtol=1e-5
    )
    train = dataclasses.replace(train, schedule="cosine", final_factor=0.1)
    schedule = learning_rate_schedule(train)
    np.testing.assert_allclose([schedule(s) for s in (5, 10, 100)], [5e-5, 1e-4, 1e-5], rtol=1e-5)


def test_qualities_and_their_lambdas():
    keys, lmbdas = jax.random.split(jax.random.key(0), 1000), (0.01, 0.04, 0.16)
    quality, lmbda = draw_qualities(keys, jnp.arange(1000), 1000, lmbdas)
    np.testing.assert_allclose(lmbda, 0.01 * 4 ** (quality - 1), rtol=1e-4)
    # Each in its own thousandth of the range, and not all at the same place of it.
    place = 1000 * (quality - 1) / 2 - jnp.arange(1000)
    assert jnp.abs(place - 0.5).max() < 0.501 and 0.25 < jnp.std(place) < 0.33
    # A device of several draws for its share of the batch.
    share, _ = draw_qualities(keys[500:], jnp.arange(500, 1000), 1000, lmbdas)
    np.testing.assert_array_equal(share, quality[500:])
    assert draw_qualities(keys, jnp.arange(1000), 1000, (0.02,))[0] is None


def test_weights_of_levels_are_one_on_average_and_favour_low_rates():
    lmbdas = (0.01, 0.04, 0.16)
    keys = jax.random.split(jax.random.key(0), 4000)
    _, lmbda = draw_qualities(keys, jnp.arange(4000), 4000, lmbdas)
    weights = quality_weights(lmbda, lmbdas, 0.5)
    np.testing.assert_allclose(weights.mean(), 1, rtol=0.02)
    np.testing.assert_allclose(
        weights * jnp.sqrt(lmbda), weights[0] * jnp.sqrt(lmbda[0]), rtol=1e-4
    )
    np.testing.assert_array_equal(quality_weights(lmbda, lmbdas, 0.0), 1)


def test_a_density_draws_high_rates_more_often_and_leaves_the_mean_as_it_is():
    """Importance sampling: weights make up for the draws, whatever is averaged."""
    lmbdas = (0.01, 0.02, 0.16)
    keys = jax.random.split(jax.random.key(1), 4000)

    def drawn(balance: float, density: float):
        quality, lmbda = draw_qualities(keys, jnp.arange(4000), 4000, lmbdas, density=density)
        return quality, lmbda, quality_weights(lmbda, lmbdas, balance, density)

    even, lmbda, weights = drawn(-0.1, 0.0)
    often, drawn_lmbda, drawn_weights = drawn(-0.1, 0.5)
    assert 1 <= often.min() < 1.01 and 2.99 < often.max() <= 3
    assert even.mean() < often.mean() - 0.2
    np.testing.assert_allclose(drawn_weights.mean(), 1, rtol=0.01)
    # The density itself: the integral of the root of lambda over each half of the range, where
    # lambda grows twofold and then eightfold.
    halves = [(2**0.5 - 1) / np.log(2), 2**0.5 * (8**0.5 - 1) / np.log(8)]
    np.testing.assert_allclose((often < 2).mean(), halves[0] / sum(halves), atol=0.005)
    # The ratio of two weighted means does not depend on how qualities were drawn.
    for power in (0.5, 1.0):
        np.testing.assert_allclose(
            jnp.mean(drawn_weights * drawn_lmbda**power) / jnp.mean(drawn_weights / drawn_lmbda),
            jnp.mean(weights * lmbda**power) / jnp.mean(weights / lmbda),
            rtol=0.01,
        )
    # What grows with the root of lambda varies least when it is drawn so.
    assert jnp.std(drawn_weights * jnp.sqrt(drawn_lmbda)) < jnp.std(weights * jnp.sqrt(lmbda)) / 2


def test_loss_is_rate_plus_weighted_distortion():
    x = jnp.full((2, 8, 8, 3), 0.5)
    out = ModelOutput(
        x + jnp.array([0.1, 0.2])[:, None, None, None],
        jnp.array([64.0, 128.0]),
        jnp.array([32.0, 0.0]),
    )
    loss, figures = rate_distortion(out, x, jnp.array([0.01, 0.02]))
    expected = np.mean([1.5 + 0.01 * 255**2 * 0.01, 2.0 + 0.02 * 255**2 * 0.04])
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    weighted, plain = rate_distortion(out, x, jnp.array([0.01, 0.02]), weight=jnp.array([2.0, 0.0]))
    np.testing.assert_allclose(weighted, 1.5 + 0.01 * 255**2 * 0.01, rtol=1e-5)
    np.testing.assert_allclose(plain["loss"], loss)
    np.testing.assert_allclose(figures["bpp"], 1.75, rtol=1e-6)
    np.testing.assert_allclose(figures["psnr"], np.mean([20, 20 - 20 * np.log10(2)]), rtol=1e-4)
    with pytest.raises(ValueError, match="known are mse, ms_ssim"):
        rate_distortion(out, x, jnp.ones(2), "vmaf")


def test_beyond_its_knee_a_loss_grows_as_its_logarithm():
    """Continuous with its slope; the figures of a log stay as they are."""
    x = jnp.zeros((3, 4, 4, 3))

    def counted(bits, knee):
        out = ModelOutput(x, 16 * bits, jnp.zeros(3))
        return rate_distortion(out, x, jnp.ones(3), weight=jnp.full(3, 0.5), knee=knee)

    bits = jnp.array([2.0, 7.0, 8000.0])
    loss, figures = counted(bits, 4.0)
    np.testing.assert_allclose(loss, (1 + 3.5 + 4 * (1 + np.log(1000))) / 3, rtol=1e-6)
    np.testing.assert_allclose(figures["loss"], 8009 / 3, rtol=1e-6)
    slopes = jax.grad(lambda b: counted(b, 4.0)[0])(bits)
    np.testing.assert_allclose(slopes, np.array([0.5, 0.5, 0.0005]) / 3, rtol=1e-5)
    np.testing.assert_allclose(counted(bits, 0.0)[0], 4004.5 / 3, rtol=1e-6)

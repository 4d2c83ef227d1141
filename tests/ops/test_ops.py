import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llic_jax.ops.quantization import (
    add_uniform_noise,
    clip_values,
    lower_bound,
    round_straight_through,
)
from llic_jax.ops.shapes import depth_to_space
from llic_jax.ops.sizes import pad_to_multiple


def test_rounding_passes_the_gradient_straight_through():
    x = jnp.array([-1.6, -0.2, 0.4, 2.7])
    np.testing.assert_array_equal(round_straight_through(x), [-2, 0, 0, 3])
    np.testing.assert_array_equal(jax.grad(lambda x: round_straight_through(x).sum())(x), 1)


def test_noise_is_uniform_within_half_a_unit():
    keys = jax.random.split(jax.random.key(0), 2)
    noise = add_uniform_noise(keys, jnp.zeros((2, 20_000)))
    np.testing.assert_array_equal(noise[1:], add_uniform_noise(keys[1:], jnp.zeros((1, 20_000))))
    assert -0.5 <= noise.min() < -0.49 and 0.49 < noise.max() < 0.5
    np.testing.assert_allclose([noise.mean(), noise.var()], [0, 1 / 12], atol=5e-3)


@pytest.mark.parametrize(("x", "upstream", "expected"), [(2, 1, 1), (0.5, 1, 0), (0.5, -1, -1)])
def test_lower_bound_lets_values_climb_back(x, upstream, expected):
    value, pull = jax.vjp(lambda v: lower_bound(v, 1.0), jnp.float32(x))
    assert value == max(x, 1)
    assert pull(jnp.float32(upstream))[0] == expected


@pytest.mark.parametrize(
    ("x", "upstream", "expected"), [(2, 1, 1), (-9, 0.5, 0), (-9, -0.5, -0.5), (9, -1, 0)]
)
def test_values_held_within_a_limit_find_back(x, upstream, expected):
    value, pull = jax.vjp(lambda v: clip_values(v, 4.0), jnp.full((1, 1), x, jnp.float32))
    assert value == np.clip(x, -4, 4)
    assert pull(jnp.full((1, 1), upstream, jnp.float32))[0] == expected


def test_a_sample_s_gradient_stays_finite_and_keeps_its_direction():
    """Whatever the loss's unit: up to 1e6 it passes as it is."""
    pull = jax.vjp(lambda v: clip_values(v, 4.0), jnp.zeros((3, 3, 5)))[1]
    upstream = np.random.default_rng(0).normal(0, 1, (3, 3, 5)).astype(np.float32)
    upstream *= np.array([1e5, 1e30, 0], np.float32)[:, None, None]
    found = pull(jnp.asarray(upstream))[0]
    np.testing.assert_array_equal(found[0], upstream[0])
    largest = np.abs(upstream[1]).max()
    np.testing.assert_allclose(found[1], upstream[1] * (1e6 / largest), rtol=1e-5)
    np.testing.assert_array_equal(found[2], upstream[2])


@pytest.mark.parametrize("side", [1, 63, 64, 65])
def test_padding_replicates_the_edge(side):
    x = np.random.default_rng(0).random((1, side, 3, 2), np.float32)
    padded = np.asarray(pad_to_multiple(x, 64))
    assert padded.shape == (1, 64 if side <= 64 else 128, 64, 2)
    np.testing.assert_array_equal(padded[:, :side, :3], x)
    np.testing.assert_array_equal(
        padded[:, side:, :3], np.repeat(x[:, -1:], padded.shape[1] - side, 1)
    )


def test_depth_to_space_against_a_loop():
    x = np.random.default_rng(0).random((2, 3, 5, 8), np.float32)
    expected = np.zeros((2, 6, 10, 2), np.float32)
    for i in range(6):
        for j in range(10):
            block = (i % 2) * 2 + j % 2
            expected[:, i, j] = x[:, i // 2, j // 2, 2 * block : 2 * block + 2]
    np.testing.assert_array_equal(depth_to_space(jnp.asarray(x)), expected)

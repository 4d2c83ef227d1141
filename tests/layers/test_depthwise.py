"""The depth-wise convolution against XLA's grouped convolution, in value and gradients."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llic_jax.layers.depthwise import depthwise_conv, depthwise_conv_reference

SIZES = [(3, (7, 6)), (5, (8, 5)), (7, (3, 4)), (9, (1, 1)), (11, (13, 9))]


def _inputs(kernel_size, image, per_sample, batch=2, channels=5, dtype=jnp.float32):
    keys = jax.random.split(jax.random.key(kernel_size), 3)
    shape = (batch, *image, channels)
    lead = (batch,) if per_sample else ()
    x = jax.random.normal(keys[0], shape, dtype)
    kernel = jax.random.normal(keys[1], (*lead, kernel_size, kernel_size, channels), dtype)
    return x, kernel, jax.random.normal(keys[2], shape, dtype)


def _value_and_gradients(conv, x, kernel, dy):
    y, pullback = jax.vjp(conv, x, kernel)
    return (y, *pullback(dy))


def _assert_close(actual, expected, tolerance=1e-5):
    for a, e in zip(actual, expected, strict=True):
        assert a.shape == e.shape and a.dtype == e.dtype
        a, e = np.asarray(a, np.float32), np.asarray(e, np.float32)
        np.testing.assert_allclose(a, e, rtol=tolerance, atol=tolerance * np.abs(e).max())


@pytest.mark.parametrize(
    ("kernel_size", "image", "per_sample"),
    [(k, image, per_sample) for (k, image), per_sample in itertools.product(SIZES, (False, True))],
)
def test_matches_reference(kernel_size, image, per_sample):
    inputs = _inputs(kernel_size, image, per_sample)
    _assert_close(
        jax.jit(_value_and_gradients, static_argnums=0)(depthwise_conv, *inputs),
        _value_and_gradients(depthwise_conv_reference, *inputs),
    )

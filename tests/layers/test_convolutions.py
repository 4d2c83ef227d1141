import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llic_jax.layers import conv2d as conv2d_module
from llic_jax.layers.chain import mean_over_positions
from llic_jax.layers.conv2d import conv2d, conv2d_transpose
from llic_jax.layers.convolutions import Conv, add_bias
from llic_jax.ops.shapes import depth_to_space, space_to_depth


def plain(x, kernel, stride):
    pad = kernel.shape[0] // 2
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        ((pad, pad), (pad, pad)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


@pytest.fixture(params=["cpu", "gpu"])
def platform(request, monkeypatch):
    """As a convolution is written for each: the numbers are the same wherever they are computed."""
    monkeypatch.setattr(conv2d_module, "target_platform", lambda: request.param)
    return request.param


@pytest.mark.parametrize(
    ("size", "stride", "shape", "features"),
    [
        (5, 2, (2, 8, 12, 3), 4),  # strided: gradients by parity and by tap
        (3, 2, (1, 6, 4, 5), 2),
        (7, 2, (2, 10, 8, 2), 3),
        (5, 2, (2, 7, 12, 3), 4),
        (3, 1, (2, 6, 7, 40), 3),  # narrow: one product for all taps
        (5, 1, (1, 6, 6, 60), 2),
        (3, 1, (2, 6, 7, 4), 8),
    ],
)
def test_gradients_are_those_of_the_plain_convolution(size, stride, shape, features, platform):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal(shape), jnp.float32)
    kernel = jnp.asarray(rng.standard_normal((size, size, shape[-1], features)), jnp.float32)
    expected, pull_plain = jax.vjp(lambda x, k: plain(x, k, stride), x, kernel)
    found, pull = jax.vjp(lambda x, k: conv2d(x, k, stride), x, kernel)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    g = jnp.asarray(rng.standard_normal(expected.shape), jnp.float32)
    for a, b in zip(pull(g), pull_plain(g), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * float(jnp.abs(b).max()))


def test_a_transposed_convolution_and_its_gradients(platform):
    """By its definition, tap by tap, and by JAX's own derivative."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((2, 3, 4, 5)), jnp.float32)
    kernel = jnp.asarray(rng.standard_normal((5, 5, 5, 6)), jnp.float32)

    def plain(x, kernel):
        return jax.lax.conv_transpose(
            x, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    found, pull = jax.vjp(conv2d_transpose, x, kernel)
    expected = np.zeros((2, 6, 8, 6))
    for row, column, i, j, a, b in np.ndindex(6, 8, 3, 4, 5, 5):
        if row + a - 3 == 2 * i and column + b - 3 == 2 * j:
            expected[:, row, column] += np.asarray(x[:, i, j] @ kernel[a, b])
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    g = jnp.asarray(rng.standard_normal(found.shape), jnp.float32)
    for ours, theirs in zip(pull(g), jax.vjp(plain, x, kernel)[1](g), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("features", [2, 8])
@pytest.mark.parametrize("stride", [1, 2])
def test_training_on_a_gpu_has_no_convolution(stride, features, monkeypatch):
    """cuDNN's can neither be compiled ahead of time nor chosen without minutes of trying."""
    monkeypatch.setattr(conv2d_module, "target_platform", lambda: "gpu")

    def both_ways(x, kernel, transposed):
        y, pull = jax.vjp(
            lambda x, k: conv2d_transpose(conv2d(x, k, stride), transposed), x, kernel
        )
        return pull(y)

    x, kernel = jnp.ones((1, 8, 8, 4)), jnp.ones((5, 5, 4, features))
    program = jax.make_jaxpr(both_ways)(x, kernel, jnp.ones((5, 5, features, 3)))
    assert "dot_general" in str(program)
    assert "conv_general_dilated" not in str(program)


@pytest.mark.parametrize("stride", [1, 2])
def test_a_1x1_convolution_is_a_product_over_channels(stride):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((2, 5, 6, 3)), jnp.float32)
    layer = Conv(4, 1, stride=stride)
    params = layer.init(jax.random.key(0), x)["params"]["conv"]
    params["bias"] = jnp.arange(4.0)
    found = layer.apply({"params": {"conv": params}}, x)
    expected = plain(x, params["kernel"][None, None], stride) + params["bias"]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_bias_and_its_gradient():
    rng = np.random.default_rng(0)
    x, g = (jnp.asarray(rng.standard_normal((2, 3, 4, 5)), jnp.float32) for _ in range(2))
    y, pull = jax.vjp(add_bias, x, jnp.arange(5.0))
    np.testing.assert_array_equal(y, x + jnp.arange(5.0))
    by_x, by_bias = pull(g)
    np.testing.assert_array_equal(by_x, g)
    np.testing.assert_allclose(by_bias, np.sum(g, axis=(0, 1, 2)), rtol=1e-5)


def test_space_and_depth():
    x = jnp.arange(2 * 4 * 6 * 3.0).reshape(2, 4, 6, 3)
    blocks = space_to_depth(x)
    assert blocks.shape == (2, 2, 3, 12)
    np.testing.assert_array_equal(blocks[0, 1, 2, 3:6], x[0, 2, 5])  # row 0, column 1 of a block
    np.testing.assert_array_equal(depth_to_space(blocks), x)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_mean_over_positions_and_its_gradient(dtype):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((2, 5, 7, 3)), dtype)
    mean, pull = jax.vjp(mean_over_positions, x)
    assert mean.dtype == jnp.float32
    np.testing.assert_allclose(mean, np.mean(np.float64(x), axis=(1, 2)), rtol=1e-5, atol=1e-6)
    g = jnp.asarray(rng.standard_normal((2, 3)), jnp.float32)
    (by_x,) = pull(g)
    assert by_x.dtype == dtype
    expected = np.broadcast_to(g[:, None, None] / 35, x.shape)
    np.testing.assert_allclose(
        np.float32(by_x), expected, rtol=1e-2 if dtype == jnp.bfloat16 else 1e-6
    )

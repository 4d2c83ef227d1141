"""Window attention against a loop over single queries, and what follows from its definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llic_jax.layers.attention import SwinBlock, WindowAttention

CHANNELS, HEAD_DIM = 6, 3


def naive(x: np.ndarray, params: dict, window: int, shift: int) -> np.ndarray:
    """One image `(H, W, C)`, one query and one key at a time, as the windows are defined."""
    height, width, c = x.shape
    kernel, bias = (np.asarray(params["qkv"]["conv"][name], float) for name in ("kernel", "bias"))
    q, k, v = np.split(x @ kernel + bias, 3, axis=-1)
    table = np.asarray(params["position_bias"], float)
    mixed = np.zeros_like(x)
    for row in range(height):
        for column in range(width):
            own = (row - shift) // window, (column - shift) // window
            for head in range(c // HEAD_DIM):
                part = slice(head * HEAD_DIM, (head + 1) * HEAD_DIM)
                total, weighted = 0.0, np.zeros(HEAD_DIM)
                for i in range(height):
                    for j in range(width):
                        if ((i - shift) // window, (j - shift) // window) != own:
                            continue
                        down, right = row - i + window - 1, column - j + window - 1
                        bias = table[down * (2 * window - 1) + right, head]
                        logit = q[row, column, part] @ k[i, j, part] / np.sqrt(HEAD_DIM) + bias
                        total += np.exp(logit)
                        weighted += np.exp(logit) * v[i, j, part]
                mixed[row, column, part] = weighted / total
    project = params["project"]["conv"]
    return mixed @ np.asarray(project["kernel"], float) + np.asarray(project["bias"], float)


def random_like(params: dict, seed: int) -> dict:
    """Every parameter drawn anew, biases and the position bias of all entries included."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda p: jnp.asarray(rng.standard_normal(p.shape), jnp.float32), params)


def setup(size: tuple[int, int], window: int, shift: int):
    module = WindowAttention(window, HEAD_DIM, shift)
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((2, *size, CHANNELS)), jnp.float32)
    params = random_like(module.lazy_init(jax.random.key(0), x)["params"], seed=1)
    return jax.jit(lambda x: module.apply({"params": params}, x)), params, x


@pytest.mark.parametrize(
    ("size", "window", "shift"),
    [
        ((8, 8), 4, 0),  # whole windows
        ((8, 8), 4, 2),  # shifted: border windows are halves and quarters
        ((6, 9), 4, 0),  # no multiples of the window
        ((6, 9), 4, 2),
        ((7, 5), 3, 1),  # an odd window
        ((2, 3), 4, 0),  # smaller than a window
        ((2, 3), 4, 2),
        ((1, 1), 8, 4),
    ],
)
def test_is_the_naive_loop(size: tuple[int, int], window: int, shift: int):
    attention, params, x = setup(size, window, shift)
    actual = attention(x)
    for i in range(len(x)):
        expected = naive(np.asarray(x[i], float), params, window, shift)
        np.testing.assert_allclose(actual[i], expected, rtol=1e-4, atol=1e-4)


def test_agrees_with_rolling_and_masking():
    """Swin's own way to shift: roll the image by half a window, mask what met by rolling."""
    size, window, shift = (8, 8), 4, 2
    attention, params, x = setup(size, window, shift)
    plain = WindowAttention(window, HEAD_DIM)
    rolled = jnp.roll(x, (-shift, -shift), axis=(1, 2))
    inner = jnp.roll(plain.apply({"params": params}, rolled), (shift, shift), axis=(1, 2))
    # Only the window that the roll leaves whole: no mask is needed there.
    np.testing.assert_allclose(attention(x)[:, 2:6, 2:6], inner[:, 2:6, 2:6], rtol=1e-4, atol=1e-5)


def test_finite_gradients_even_in_border_windows():
    attention, _, x = setup((5, 3), 4, 2)
    assert np.isfinite(jax.grad(lambda x: jnp.sum(attention(x) ** 2))(x)).all()


def test_half_precision_stays_close():
    _, params, x = setup((6, 6), 4, 2)
    exact, half = (
        WindowAttention(4, HEAD_DIM, 2, dtype=dtype).apply({"params": params}, x)
        for dtype in (jnp.float32, jnp.bfloat16)
    )
    assert half.dtype == jnp.bfloat16
    assert float(jnp.max(jnp.abs(half - exact))) < 0.1 * float(jnp.max(jnp.abs(exact)))


def test_shifted_block_reaches_the_neighbouring_window():
    x = jnp.ones((1, 4, 8, CHANNELS)) + jax.random.normal(jax.random.key(0), (1, 4, 8, CHANNELS))

    def reach(shifted: bool) -> np.ndarray:
        """Columns on which the output at column 3 depends; windows meet between 3 and 4."""
        block = SwinBlock(4, HEAD_DIM, shifted)
        params = block.lazy_init(jax.random.key(1), x)["params"]
        gradient = jax.grad(lambda x: jnp.sum(block.apply({"params": params}, x)[:, 1, 3] ** 2))(x)
        return np.flatnonzero(np.abs(gradient).sum((0, 1, 3)))

    np.testing.assert_array_equal(reach(False), [0, 1, 2, 3])
    np.testing.assert_array_equal(reach(True), [2, 3, 4, 5])

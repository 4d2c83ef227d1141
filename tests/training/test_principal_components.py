import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llic_jax.models.build import build_model, initialize
from llic_jax.training.principal_components import components, start_from_components


@pytest.fixture(scope="module")
def crops(request) -> np.ndarray:
    photograph = request.getfixturevalue("photograph")
    return np.stack([photograph[i : i + 64, i : i + 64] for i in (0, 64, 128)])


PAPER = (2, 2, 2, 2)


def project(
    images: np.ndarray, mean: np.ndarray, matrices: list[np.ndarray], strides: tuple[int, ...]
) -> np.ndarray:
    """Down and up through the cascade, block by block."""
    x = images.astype(np.float32) / 255 - mean
    shapes = []
    for matrix, s in zip(matrices, strides, strict=True):
        b, h, w, c = x.shape
        shapes.append((b, h, w, c, s))
        x = np.stack([x[:, i::s, j::s] for i in range(s) for j in range(s)], axis=3)
        x = x.reshape(b, h // s, w // s, s**2 * c) @ matrix
    for matrix, (b, h, w, c, s) in zip(matrices[::-1], shapes[::-1], strict=True):
        blocks = (x @ matrix.T).reshape(b, h // s, w // s, s**2, c)
        x = np.zeros((b, h, w, c), np.float32)
        for n, (i, j) in enumerate(np.ndindex(s, s)):
            x[:, i::s, j::s] = blocks[:, :, :, n]
    return x + mean


def test_components_are_orthonormal_and_lose_nothing_at_full_rank(crops):
    mean, matrices = components([crops], (12, 48, 192, 768), PAPER)
    assert [m.shape for m in matrices] == [(12, 12), (48, 48), (192, 192), (768, 768)]
    for matrix in matrices:
        np.testing.assert_allclose(matrix.T @ matrix, np.eye(matrix.shape[1]), atol=1e-5)
    np.testing.assert_allclose(project(crops, mean, matrices, PAPER), crops / 255, atol=1e-4)
    _, fewer = components([crops], (32, 16, 16, 16), PAPER)
    assert [m.shape for m in fewer] == [(12, 12), (48, 16), (64, 16), (64, 16)]


def test_components_of_larger_blocks(crops):
    mean, matrices = components([crops], (256, 768), (8, 2))
    assert [m.shape for m in matrices] == [(192, 192), (768, 768)]
    np.testing.assert_allclose(project(crops, mean, matrices, (8, 2)), crops / 255, atol=1e-4)
    _, fewer = components([crops], (24, 16), (8, 2))
    assert [m.shape for m in fewer] == [(192, 24), (96, 16)]


@pytest.mark.parametrize("eighth", [False, True])
def test_a_model_starts_as_this_projection(tiny_config, crops, eighth):
    section, lmbdas = tiny_config.model.to_dict(), tiny_config.train.lmbdas
    if eighth:
        section |= dict(channels=(12, 16), kernel_sizes=(5, 3), depths=(1, 1), strides=(8, 2))
    tiny_model, channels, strides = build_model(section), section["channels"], section["strides"]
    tiny_params = initialize(tiny_model, seed=1)
    before = jax.tree.map(np.array, tiny_params)
    params = start_from_components(tiny_params, [crops], channels, strides, lmbdas)
    jax.tree.map(np.testing.assert_array_equal, tiny_params, before)

    x, quality = jnp.asarray(crops, jnp.float32) / 255, jnp.array([1.0, 1.5, 2.0])
    apply = jax.jit(tiny_model.apply, static_argnames="method")
    y = apply({"params": params}, x, quality, method="analyze")
    x_hat = apply({"params": params}, y, quality, method="synthesize")
    mean, matrices = components([crops], channels, strides)
    expected = project(crops, mean, matrices, strides)
    # What is left of the random start disturbs the projection a little.
    assert np.mean(np.square(x_hat - expected)) < 0.5 * np.mean(np.square(expected - crops / 255))
    # A quarter of lambda doubles the step.
    gains = np.exp(np.asarray(params["gain_y"]["log_gain"]))
    np.testing.assert_allclose(gains[:, 0], np.sqrt(np.asarray(lmbdas) / 4e-4), rtol=1e-5)

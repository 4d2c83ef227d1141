import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llic_jax.pca import components, start_from_components


@pytest.fixture(scope="module")
def crops(request) -> np.ndarray:
    photograph = request.getfixturevalue("photograph")
    return np.stack([photograph[i : i + 64, i : i + 64] for i in (0, 64, 128)])


def project(images: np.ndarray, mean: np.ndarray, matrices: list[np.ndarray]) -> np.ndarray:
    """Down and up through the cascade, block by block."""
    x = images.astype(np.float32) / 255 - mean
    shapes = []
    for matrix in matrices:
        b, h, w, c = x.shape
        shapes.append((b, h, w, c))
        x = np.stack([x[:, i::2, j::2] for i in (0, 1) for j in (0, 1)], axis=3)
        x = x.reshape(b, h // 2, w // 2, 4 * c) @ matrix
    for matrix, (b, h, w, c) in zip(matrices[::-1], shapes[::-1], strict=True):
        blocks = (x @ matrix.T).reshape(b, h // 2, w // 2, 4, c)
        x = np.zeros((b, h, w, c), np.float32)
        for n, (i, j) in enumerate(((0, 0), (0, 1), (1, 0), (1, 1))):
            x[:, i::2, j::2] = blocks[:, :, :, n]
    return x + mean


def test_components_are_orthonormal_and_lose_nothing_at_full_rank(crops):
    mean, matrices = components([crops], (12, 48, 192, 768))
    assert [m.shape for m in matrices] == [(12, 12), (48, 48), (192, 192), (768, 768)]
    for matrix in matrices:
        np.testing.assert_allclose(matrix.T @ matrix, np.eye(matrix.shape[1]), atol=1e-5)
    np.testing.assert_allclose(project(crops, mean, matrices), crops / 255, atol=1e-4)
    _, fewer = components([crops], (32, 16, 16, 16))
    assert [m.shape for m in fewer] == [(12, 12), (48, 16), (64, 16), (64, 16)]


def test_a_model_starts_as_this_projection(tiny_model, tiny_config, tiny_params, crops):
    channels, lmbdas = tiny_config.model.channels, tiny_config.train.lmbdas
    before = np.array(tiny_params["g_a"]["down_0"]["conv"]["kernel"])
    params = start_from_components(tiny_params, [crops], channels, lmbdas)
    np.testing.assert_array_equal(tiny_params["g_a"]["down_0"]["conv"]["kernel"], before)

    x, quality = jnp.asarray(crops, jnp.float32) / 255, jnp.array([1.0, 1.5, 2.0])
    apply = jax.jit(tiny_model.apply, static_argnames="method")
    y = apply({"params": params}, x, quality, method="analyze")
    x_hat = apply({"params": params}, y, quality, method="synthesize")
    mean, matrices = components([crops], channels)
    expected = project(crops, mean, matrices)
    # What is left of the random start disturbs the projection a little.
    assert np.mean(np.square(x_hat - expected)) < 0.5 * np.mean(np.square(expected - crops / 255))
    # A quarter of lambda doubles the step.
    gains = np.exp(np.asarray(params["gain_y"]["log_gain"]))
    np.testing.assert_allclose(gains[:, 0], np.sqrt(np.asarray(lmbdas) / 4e-4), rtol=1e-5)

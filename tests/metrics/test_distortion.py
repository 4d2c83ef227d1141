"""Metrics against independent implementations, on photographs that scikit-image ships."""

import io
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from skimage import color, data
from skimage.metrics import peak_signal_noise_ratio

from llic_jax.metrics import distortion
from llic_jax.ops.shapes import to_uint8


def _pair(height: int, width: int, quality: int, name: str = "astronaut"):
    """A part of a photograph, and what JPEG makes of it."""
    image = np.ascontiguousarray(getattr(data, name)()[:height, :width])
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return image, np.asarray(Image.open(buffer))


def _halving(n: int) -> np.ndarray:
    """The matrix that averages pairs of `n` values; zeros stand around an odd row of them."""
    matrix = np.zeros(((n + 1) // 2, n))
    for row in range(len(matrix)):
        for column in (2 * row - n % 2, 2 * row + 1 - n % 2):
            if 0 <= column < n:
                matrix[row, column] = 0.5
    return matrix


def reference_ms_ssim(a: np.ndarray, b: np.ndarray) -> float:
    """MS-SSIM in double precision, from weighted moments around the mean: scipy's correlation with
    the two-dimensional window, channel by channel, and down-sampling as a product of matrices."""
    offsets = np.arange(-5, 6)
    window = np.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * 1.5**2))
    window /= window.sum()

    def mean(x: np.ndarray) -> np.ndarray:
        return ndimage.correlate(x, window, mode="reflect")[5:-5, 5:-5]

    values = []
    for channel in range(3):
        x, y = (image[..., channel].astype(np.float64) for image in (a, b))
        value = 1.0
        for scale, weight in enumerate((0.0448, 0.2856, 0.3001, 0.2363, 0.1333)):
            if scale:
                x, y = (_halving(z.shape[0]) @ z @ _halving(z.shape[1]).T for z in (x, y))
            mx, my = mean(x), mean(y)
            # Of the sum and the difference: another way to variances and covariance.
            plus, minus = (mean(z**2) - mean(z) ** 2 for z in (x + y, x - y))
            term = ((plus - minus) / 2 + 58.5225) / ((plus + minus) / 2 + 58.5225)
            if scale == 4:
                term = term * (2 * mx * my + 6.5025) / (mx**2 + my**2 + 6.5025)
            value *= max(term.mean(), 0) ** weight
        values.append(value)
    return float(np.mean(values))


@pytest.mark.parametrize(
    ("height", "width", "quality", "name"),
    [(400, 400, 30, "astronaut"), (299, 451, 8, "chelsea"), (161, 203, 75, "coffee")],
)
def test_ms_ssim_equals_an_independent_implementation(height, width, quality, name):
    image, decoded = _pair(height, width, quality, name)
    found = distortion.image_ms_ssim(image, decoded)
    assert found == pytest.approx(reference_ms_ssim(image, decoded), abs=1e-4)
    assert 0.5 < found < 0.999


def test_ms_ssim_does_not_depend_on_the_range_that_values_span():
    image, decoded = _pair(192, 176, 20)
    a, b = (jnp.asarray(x[None], jnp.float32) / 255 for x in (image, decoded))
    found = float(jax.jit(distortion.ms_ssim)(a, b)[0])
    assert found == pytest.approx(distortion.image_ms_ssim(image, decoded), abs=1e-5)


def test_ms_ssim_of_equal_images_is_one_and_falls_with_distortion():
    image, good = _pair(176, 176, 60)
    _, bad = _pair(176, 176, 5)
    values = [distortion.image_ms_ssim(image, other) for other in (image, good, bad)]
    assert values[0] == pytest.approx(1, abs=1e-6)
    assert values[0] > values[1] > values[2]


def test_images_too_small_for_five_scales_are_an_error_that_says_so():
    with pytest.raises(ValueError, match=r"at least 161 pixels.*found 200 x 160"):
        distortion.ms_ssim(jnp.zeros((1, 160, 200, 3)), jnp.zeros((1, 160, 200, 3)))
    small = np.zeros((160, 200, 3), np.uint8)
    assert distortion.image_ms_ssim(small, small) is None


def test_the_gradient_of_ms_ssim_is_finite_where_its_terms_are_cut():
    image, _ = _pair(161, 161, 50)
    x = jnp.asarray(image[None], jnp.float32) / 255
    value, gradient = jax.jit(jax.value_and_grad(lambda y: distortion.ms_ssim(x, y)[0]))(1 - x)
    assert value < 0.1  # the negative: structures are anticorrelated
    assert bool(jnp.all(jnp.isfinite(gradient)))


def test_psnr_equals_scikit_images():
    image, decoded = _pair(333, 257, 40)
    expected = peak_signal_noise_ratio(image, decoded)
    assert distortion.image_psnr(image, decoded) == pytest.approx(expected, abs=1e-4)
    a, b = (jnp.asarray(x[None], jnp.float32) / 255 for x in (image, decoded))
    assert float(distortion.psnr(a, b)[0]) == pytest.approx(expected, abs=1e-3)


def test_psnr_y_is_that_of_bt_601_luma():
    image, decoded = _pair(120, 130, 40)
    # scikit-image's Y of YPbPr is BT.601 over the full range, of values in [0, 1].
    luma = [color.rgb2ypbpr(x)[..., 0] for x in (image, decoded)]
    expected = peak_signal_noise_ratio(*luma, data_range=1.0)
    assert distortion.image_psnr_y(image, decoded) == pytest.approx(expected, abs=1e-4)


def test_equal_images_have_infinite_figures():
    image = np.full((4, 5, 3), 7, np.uint8)
    assert distortion.image_psnr(image, image) == distortion.image_psnr_y(image, image) == math.inf
    assert distortion.to_decibels(0.0) == math.inf
    assert distortion.to_decibels(1 - 0.99) == pytest.approx(20)


def test_to_uint8_rounds_and_clips():
    x = jnp.array([-0.2, 0.0, 0.5 / 255 - 1e-4, 0.5 / 255 + 1e-4, 1.0, 1.7])
    assert to_uint8(x).tolist() == [0, 0, 0, 1, 255, 255]


@pytest.mark.parametrize("size", [(1, 1), (150, 147), (3, 30_000)])
def test_psnr_of_jax_arrays_is_that_of_numpy(size):
    """To the last digit, at the largest differences too."""
    rng = np.random.default_rng(0)
    a = rng.integers(0, 256, (*size, 3), np.uint8)
    where = rng.random(size) < 0.3
    where[0, 0] = True
    for b in (a, 255 - a, 255 * (a < 128).astype(np.uint8), rng.permuted(a)):
        for mask in (None, where, np.zeros_like(where)):
            expected = distortion.image_psnr(a, b, mask)
            for other in (b, jnp.asarray(b)):
                assert distortion.image_psnr(jnp.asarray(a), other, mask) == expected
    black, white = np.zeros((300, 300, 3), np.uint8), np.full((300, 300, 3), 255, np.uint8)
    assert distortion.image_psnr(jnp.asarray(black), white) == 0

"""Distortion metrics and rates. Images are NHWC; `data_range` is the span of their values."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, UInt8, UInt32

MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
_WINDOW, _SIGMA = 11, 1.5
_PART = 1 << 16  # values whose squared differences, up to 255^2, add up to 32 bits
MS_SSIM_MIN_SIDE = (_WINDOW - 1) * 2 ** (len(MS_SSIM_WEIGHTS) - 1) + 1


def mse(a: Float[Array, "b h w c"], b: Float[Array, "b h w c"]) -> Float[Array, "b"]:
    """Computes the mean squared error over positions and channels.

    Args:
      a: Images.
      b: Images.

    Returns:
      The error of each sample.
    """
    return jnp.mean(jnp.square(a - b), axis=(1, 2, 3))


def psnr(
    a: Float[Array, "b h w c"], b: Float[Array, "b h w c"], data_range: float = 1.0
) -> Float[Array, "b"]:
    """Computes the peak signal-to-noise ratio.

    Args:
      a: Images.
      b: Images.
      data_range: Span of their values.

    Returns:
      dB of each sample; infinite for equal images.
    """
    return 10 * jnp.log10(data_range**2 / mse(a, b))


def ms_ssim(
    a: Float[Array, "b h w c"], b: Float[Array, "b h w c"], data_range: float = 1.0
) -> Float[Array, "b"]:
    """Computes the multi-scale structural similarity, averaged over channels.

    Wang, Simoncelli and Bovik, "Multiscale structural similarity for image quality assessment"
    (2003): five scales, a Gaussian window of 11 with sigma 1.5, no padding. Between scales a 2x2
    mean, odd sides padded with zeros, as the implementation does that published figures of this
    field come from (pytorch-msssim). Negative terms are cut to zero.

    Args:
      a: Images.
      b: Images.
      data_range: Span of their values.

    Returns:
      The similarity of each sample, from 0 to 1.

    Raises:
      ValueError: A side is below 161 pixels, which is too small for five scales.
    """
    height, width = a.shape[1:3]
    if min(height, width) < MS_SSIM_MIN_SIDE:
        raise ValueError(
            f"MS-SSIM needs sides of at least {MS_SSIM_MIN_SIDE} pixels for its five scales; "
            f"found {width} x {height}. Use PSNR for such images."
        )
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    terms = []
    for scale in range(len(MS_SSIM_WEIGHTS)):
        if scale:
            a, b = _halve(a), _halve(b)
        # All five maps in one pass: five times faster than one by one on a CPU.
        maps = _blur(jnp.concatenate([a, b, a * a, b * b, a * b], axis=-1))
        mean_a, mean_b, square_a, square_b, product = jnp.split(maps, 5, axis=-1)
        variances = (square_a - mean_a**2) + (square_b - mean_b**2)
        structure = (2 * (product - mean_a * mean_b) + c2) / (variances + c2)
        if scale == len(MS_SSIM_WEIGHTS) - 1:
            structure *= (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
        terms.append(jnp.maximum(jnp.mean(structure, axis=(1, 2)), 0.0))
    # The floor keeps the gradient of a power below one finite where a term is cut.
    powers = [jnp.maximum(t, 1e-9) ** w for t, w in zip(terms, MS_SSIM_WEIGHTS, strict=True)]
    return jnp.mean(math.prod(powers[1:], start=powers[0]), axis=-1)


def _blur(x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
    """Gaussian window, both ways, without padding."""
    offsets = jnp.arange(_WINDOW, dtype=jnp.float32) - _WINDOW // 2
    window = jnp.exp(-(offsets**2) / (2 * _SIGMA**2))
    window = window / jnp.sum(window)
    height, width = x.shape[1] - _WINDOW + 1, x.shape[2] - _WINDOW + 1
    taps = range(1, _WINDOW)
    x = sum((window[i] * x[:, i : i + height] for i in taps), window[0] * x[:, :height])
    return sum((window[i] * x[:, :, i : i + width] for i in taps), window[0] * x[:, :, :width])


def _halve(x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
    pad = [(0, 0), *((side % 2, side % 2) for side in x.shape[1:3]), (0, 0)]
    x = jnp.pad(x, pad)
    x = x[:, : x.shape[1] // 2 * 2, : x.shape[2] // 2 * 2]
    return (x[:, ::2, ::2] + x[:, 1::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, 1::2]) / 4


def image_psnr(
    a: UInt8[Array | np.ndarray, "h w *c"],
    b: UInt8[Array | np.ndarray, "h w *c"],
    where: Bool[np.ndarray, "h w"] | None = None,
) -> float:
    """Computes the PSNR of 8-bit images over all values, in double precision.

    Args:
      a: An image. If it is JAX's, its pixels stay on the device; the figure is the same.
      b: An image of the same shape.
      where: The pixels that count; all of them by default.

    Returns:
      dB; infinite for equal images.
    """
    if where is not None and not where.any():
        return math.inf
    if isinstance(a, Array):
        count = a.size if where is None else where.sum() * (a.size // where.size)
        squares = np.asarray(_square_sums(a, jnp.asarray(b), where))
        return to_decibels(squares.sum(dtype=np.float64) / count / 255**2)
    b = np.asarray(b)
    if where is not None:
        a, b = a[where], b[where]
    return to_decibels(np.mean(np.square(a.astype(np.float64) - b)) / 255**2)


@jax.jit
def _square_sums(
    a: UInt8[Array, "h w *c"], b: UInt8[Array, "h w *c"], where: Bool[Array, "h w"] | None
) -> UInt32[Array, " parts"]:
    """Sums of the squared differences of `_PART` values each; integers, and so exact."""
    squares = jnp.square(a.astype(jnp.int32) - b.astype(jnp.int32)).astype(jnp.uint32)
    if where is not None:
        squares = jnp.where(where.reshape(*where.shape, *[1] * (a.ndim - 2)), squares, 0)
    padded = jnp.pad(squares.ravel(), (0, -a.size % _PART))
    return jnp.sum(padded.reshape(-1, _PART), axis=1, dtype=jnp.uint32)


def image_psnr_y(a: UInt8[np.ndarray, "h w 3"], b: UInt8[np.ndarray, "h w 3"]) -> float:
    """Computes the PSNR of the luma of 8-bit RGB images, which is not rounded.

    Luma as JPEG files have it: BT.601 over the full range, 0.299 R + 0.587 G + 0.114 B.

    Args:
      a: An image.
      b: An image.

    Returns:
      dB; infinite for equal luma.
    """
    weights = np.array([0.299, 0.587, 0.114])
    return to_decibels(np.mean(np.square((a.astype(np.float64) - b) @ weights)) / 255**2)


def image_ms_ssim(a: UInt8[np.ndarray, "h w 3"], b: UInt8[np.ndarray, "h w 3"]) -> float | None:
    """Computes the MS-SSIM of 8-bit images (see `ms_ssim`).

    Args:
      a: An image.
      b: An image.

    Returns:
      The similarity; None where a side is below 161 pixels.
    """
    if min(a.shape[:2]) < MS_SSIM_MIN_SIDE:
        return None
    return float(_ms_ssim_8_bits(a[None].astype(np.float32), b[None].astype(np.float32))[0])


@jax.jit
def _ms_ssim_8_bits(a: Float[Array, "b h w c"], b: Float[Array, "b h w c"]) -> Float[Array, "b"]:
    return ms_ssim(a, b, data_range=255.0)


def to_decibels(error: float) -> float:
    """Converts an error to the scale of figures, `-10 log10(error)`.

    Args:
        error: Mean squared error of values in [0, 1] for PSNR; `1 - MS-SSIM` for MS-SSIM.

    Returns:
        dB; infinite for 0 and below.
    """
    return -10 * math.log10(error) if error > 0 else math.inf

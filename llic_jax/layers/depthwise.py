"""Depth-wise convolution with large kernels, static or one per sample.

LLIC (arXiv 2304.09571) enlarges the receptive field with 11x11 and 9x9 depth-wise convolutions
whose weights are generated from the input, so that every sample of a batch has its own kernel.
XLA's grouped convolution is some twenty times slower than the machine allows on a CPU, and what
automatic differentiation makes of any hand-written forward pass is worse; hence this module (our
choice throughout: the paper does not say how the convolution is computed).

With `p = K // 2`, zero padding and indices outside the image reading as zero::

    y[b, h, w, c]        = sum_{i,j}   x[b, h + i - p, w + j - p, c] kernel[b, i, j, c]
    dx                   = the same convolution of dy with the kernel flipped in i and j
    dkernel[b, i, j, c]  = sum_{h,w}   x[b, h + i - p, w + j - p, c] dy[b, h, w, c]

The two sums are `_convolve` and `_correlate`. Both are computed per platform: on a CPU by the
formulations below, elsewhere by the platform's grouped convolution.
"""

import jax
import jax.numpy as jnp
from jax import Array, lax


def depthwise_conv(x: Array, kernel: Array) -> Array:
    """Same-size, zero-padded depth-wise cross-correlation.

    Args:
        x: `(B, H, W, C)`.
        kernel: `(K, K, C)`, shared by the batch, or `(B, K, K, C)`, one per sample; K odd.

    Returns:
        `(B, H, W, C)` in the promoted type of both; sums are taken in float32.

    Raises:
        ValueError: on any other shape.
    """
    _check_shapes(x, kernel)
    dtype = jnp.result_type(x, kernel)
    return _depthwise_conv(x.astype(dtype), kernel.astype(dtype))


def depthwise_conv_reference(x: Array, kernel: Array) -> Array:
    """The same as `depthwise_conv`, by `vmap` of one sample's grouped convolution: the oracle."""
    _check_shapes(x, kernel)
    dtype = jnp.result_type(x, kernel)
    wide = jnp.promote_types(dtype, jnp.float32)
    return _grouped_conv(x.astype(wide), kernel.astype(wide)).astype(dtype)


def _check_shapes(x: Array, kernel: Array) -> None:
    if x.ndim != 4:
        raise ValueError(f"x has shape {x.shape}; expected (B, H, W, C)")
    if kernel.ndim not in (3, 4):
        raise ValueError(f"kernel has shape {kernel.shape}; expected (K, K, C) or (B, K, K, C)")
    rows, columns, channels = kernel.shape[-3:]
    if rows != columns or rows % 2 == 0:
        raise ValueError(f"kernel is {rows}x{columns}; expected a square of odd side")
    if channels != x.shape[-1]:
        raise ValueError(f"kernel has {channels} channels; expected {x.shape[-1]}, as x has")
    if kernel.ndim == 4 and kernel.shape[0] != x.shape[0]:
        raise ValueError(
            f"kernel holds {kernel.shape[0]} samples' kernels; expected {x.shape[0]}, the batch of "
            "x, or one of shape (K, K, C) for all"
        )


@jax.custom_vjp
def _depthwise_conv(x: Array, kernel: Array) -> Array:
    return _convolve(x, kernel)


def _depthwise_conv_fwd(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return _convolve(x, kernel), (x, kernel)


def _depthwise_conv_bwd(residuals: tuple[Array, Array], dy: Array) -> tuple[Array, Array]:
    x, kernel = residuals
    dx = _convolve(dy, jnp.flip(kernel, (-3, -2)))
    dkernel = _correlate(x, dy, kernel.shape[-2])
    if kernel.ndim == 3:
        dkernel = dkernel.sum(0)
    return dx, dkernel.astype(kernel.dtype)


_depthwise_conv.defvjp(_depthwise_conv_fwd, _depthwise_conv_bwd)


def _convolve(x: Array, kernel: Array) -> Array:
    """`(B, H, W, C)` and `(K, K, C)` or `(B, K, K, C)` -> `(B, H, W, C)`, in the type of `x`."""
    return lax.platform_dependent(x, kernel, cpu=_shifted_products, default=_grouped_conv)


def _correlate(x: Array, dy: Array, size: int) -> Array:
    """Twice `(B, H, W, C)` -> each sample's kernel gradient `(B, size, size, C)`, float32."""

    def stock(x: Array, dy: Array) -> Array:
        kernel = jnp.zeros((x.shape[0], size, size, x.shape[-1]), x.dtype)
        (dkernel,) = jax.linear_transpose(lambda k: _grouped_conv(x, k), kernel)(dy)
        return dkernel.astype(jnp.float32)

    return lax.platform_dependent(
        x, dy, cpu=lambda x, dy: _row_sums(x, dy, size), default=stock
    )


def _grouped_conv(x: Array, kernel: Array) -> Array:
    """XLA's own grouped convolution, sample by sample."""

    def one_sample(x: Array, kernel: Array) -> Array:
        return lax.conv_general_dilated(
            x[None],
            kernel[:, :, None, :],
            window_strides=(1, 1),
            padding="SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=x.shape[-1],
        )[0]

    return jax.vmap(one_sample, in_axes=(0, None if kernel.ndim == 3 else 0))(x, kernel)


def _shifted_products(x: Array, kernel: Array) -> Array:
    """The convolution as one fused sum of K^2 shifted products."""
    _, height, width, _ = x.shape
    size = kernel.shape[-2]
    x_pad = _pad(x.astype(jnp.float32), size)
    kernel = kernel.astype(jnp.float32)
    y = jnp.zeros(x.shape, jnp.float32)
    for i in range(size):
        for j in range(size):
            weight = kernel[..., i, j, :]
            if kernel.ndim == 4:
                weight = weight[:, None, None, :]
            y += x_pad[:, i : i + height, j : j + width] * weight
    return y.astype(x.dtype)


def _row_sums(x: Array, dy: Array, size: int, rows: int = 8) -> Array:
    """The kernel gradient: products summed over `rows` rows in a fusion, then the rest.

    XLA's reductions are slow when anything is fused into them, its elementwise fusions are fast:
    so a fusion takes most of the sum, and a plain reduction finishes the remaining 1 / `rows`.
    """
    _, height, width, _ = x.shape
    rows = min(rows, height)
    blocks = -(-height // rows)
    extra = blocks * rows - height
    x_pad = _pad(x.astype(jnp.float32), size, extra)
    dy = jnp.pad(dy.astype(jnp.float32), ((0, 0), (0, extra), (0, 0), (0, 0)))
    dy_rows = [dy[:, r::rows] for r in range(rows)]

    def kernel_row(i: Array) -> Array:
        window = lax.optimization_barrier(
            lax.dynamic_slice_in_dim(x_pad, i, blocks * rows, axis=1)
        )
        taps = []
        for j in range(size):
            partial = sum(
                window[:, r::rows, j : j + width] * dy_rows[r] for r in range(rows)
            )
            taps.append(lax.optimization_barrier(partial).sum((1, 2)))
        return jnp.stack(taps, 1)

    return jnp.moveaxis(lax.map(kernel_row, jnp.arange(size)), 0, 1)


def _pad(x: Array, size: int, extra_rows: int = 0) -> Array:
    """Zeros around for a kernel of `size`; kept out of the fusions that read the result."""
    p = size // 2
    return lax.optimization_barrier(jnp.pad(x, ((0, 0), (p, p + extra_rows), (p, p), (0, 0))))

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

The two sums are `_convolve` and `_correlate`. On a CPU the native kernel takes them
(`layers/kernels/depthwise_cpu.py`) or, where there is none, `_shifted_products` and
`_block_products`; on CUDA GPUs and TPUs, kernels in Pallas (`layers/kernels/depthwise_gpu.py`,
`layers/kernels/depthwise_tpu.py`). Elsewhere, for what those do not take, and for the oracle
`depthwise_conv_reference`, it is the platform's grouped convolution.
"""

import importlib
import math
import os
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import DTypeLike

from llic_jax.layers.chain import Local, Locality
from llic_jax.layers.convolutions import add_bias
from llic_jax.layers.initializers import normal
from llic_jax.layers.kernels import depthwise_cpu
from llic_jax.layers.platform import target_platform
from llic_jax.layers.types import Feature, at_least_float32
from llic_jax.native import library as native


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
    """The same as `depthwise_conv`, by `vmap` of one sample's grouped convolution: the oracle.

    Args:
        x: `(B, H, W, C)`.
        kernel: `(K, K, C)`, or `(B, K, K, C)` for one kernel per sample.
    """
    _check_shapes(x, kernel)
    dtype = jnp.result_type(x, kernel)
    wide = at_least_float32(dtype)
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
    return dx, _correlate(x, dy, kernel)


_depthwise_conv.defvjp(_depthwise_conv_fwd, _depthwise_conv_bwd)


def _convolve(x: Array, kernel: Array) -> Array:
    """`(B, H, W, C)` and `(K, K, C)` or `(B, K, K, C)` -> `(B, H, W, C)`, in the type of `x`."""

    def on_cpu(x: Array, kernel: Array) -> Array:
        wide = at_least_float32(x.dtype)
        convolve = depthwise_cpu.convolve if _use_native(wide) else _shifted_products
        return convolve(x.astype(wide), kernel.astype(wide)).astype(x.dtype)

    branches = {"cpu": on_cpu}
    for platform, kernels in _accelerator_kernels(x.shape, x.dtype).items():
        branches[platform] = kernels.convolve
    return lax.platform_dependent(x, kernel, **branches, default=_grouped_conv)


def _correlate(x: Array, dy: Array, kernel: Array) -> Array:
    """Twice `(B, H, W, C)` -> the kernel gradient, in shape and type of `kernel`."""
    like = jax.ShapeDtypeStruct(kernel.shape, kernel.dtype)

    def by(correlate: Callable[..., Array], wide: DTypeLike) -> Callable[[Array, Array], Array]:
        def run(x: Array, dy: Array) -> Array:
            dkernel = correlate(x.astype(wide), dy.astype(wide), like.shape[-2])
            return (dkernel.sum(0) if len(like.shape) == 3 else dkernel).astype(like.dtype)

        return run

    def elsewhere(x: Array, dy: Array) -> Array:
        return jax.linear_transpose(lambda kernel: _grouped_conv(x, kernel), like)(dy)[0]

    wide = at_least_float32(x.dtype)
    branches = {"cpu": by(depthwise_cpu.correlate if _use_native(wide) else _block_products, wide)}
    for platform, kernels in _accelerator_kernels(x.shape, x.dtype).items():
        branches[platform] = by(kernels.correlate, x.dtype)
    return lax.platform_dependent(x, dy, **branches, default=elsewhere)


def _accelerator_kernels(shape: tuple[int, ...], dtype: DTypeLike) -> dict[str, Any]:
    """The module of Pallas kernels for the accelerator that is traced for, by platform.

    Nothing where there is none, where they do not take arrays of this shape and type, or with
    `LLIC_PALLAS=0` in the environment.

    For the target platform only: every branch is traced, and old JAX lowers every one, for which
    Pallas has no way on another platform. So with old JAX and an accelerator, what is placed on the
    CPU needs `jax.default_device` or `LLIC_PALLAS=0`.
    """
    kinds = {"gpu": ("cuda", "depthwise_gpu"), "tpu": ("tpu", "depthwise_tpu")}
    target = target_platform()
    # Offsets have 32 bits.
    fits = 0 < math.prod(shape) < 2**31 and dtype in (jnp.float32, jnp.bfloat16)
    if target not in kinds or not fits or os.environ.get("LLIC_PALLAS", "1") == "0":
        return {}
    platform, name = kinds[target]
    try:
        return {platform: importlib.import_module(f"llic_jax.layers.kernels.{name}")}
    except ImportError:  # a JAX without Pallas for this platform
        return {}


def _use_native(dtype: DTypeLike) -> bool:
    return dtype == jnp.float32 and native.enabled()


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
    x_pad = lax.optimization_barrier(_pad(x, size))
    y = jnp.zeros_like(x)
    for i in range(size):
        for j in range(size):
            weight = kernel[..., i, j, :]
            if kernel.ndim == 4:
                weight = weight[:, None, None, :]
            y += x_pad[:, i : i + height, j : j + width] * weight
    return y


def _block_products(x: Array, dy: Array, size: int, block: int = 16) -> Array:
    """Each sample's kernel gradient, `(B, size, size, C)`, as products batched over channels.

    XLA's reductions are slow with anything fused into them, and there would be K^2 of them. So a
    row is cut into blocks of `block` outputs, which see `block + K - 1` inputs: the product of all
    such pairs, summed over rows and blocks, holds the K sums looked for on its diagonals.
    """
    batch, height, width, channels = x.shape
    block = min(block, width)
    blocks = -(-width // block)
    extra = blocks * block - width
    window = block + size - 1

    # The barriers keep the transpositions apart: fused with what follows, they cost more than it.
    x_rows = lax.optimization_barrier(_pad(x, size, extra).transpose(0, 3, 1, 2))
    x_blocks = lax.optimization_barrier(
        jnp.stack([x_rows[..., n * block : n * block + window] for n in range(blocks)], axis=3)
    )
    dy_rows = jnp.pad(dy, ((0, 0), (0, 0), (0, extra), (0, 0))).transpose(0, 3, 1, 2)
    dy_blocks = lax.optimization_barrier(dy_rows).reshape(batch, channels, height * blocks, block)

    output = jnp.arange(block)[:, None]
    taps = []
    for i in range(size):
        x_row = x_blocks[:, :, i : i + height]
        x_row = x_row.reshape(batch, channels, height * blocks, window)
        products = jnp.einsum("bcpt,bcpq->bctq", dy_blocks, x_row, precision=lax.Precision.HIGHEST)
        taps.append(products[..., output, output + jnp.arange(size)].sum(-2))
    return jnp.stack(taps, axis=1).transpose(0, 1, 3, 2)


def _pad(x: Array, size: int, extra: int = 0) -> Array:
    """Zeros around, as a kernel of `size` reads them, and `extra` columns on the right."""
    p = size // 2
    return jnp.pad(x, ((0, 0), (p, p), (p, p + extra), (0, 0)))


class DepthwiseConv(Local):
    """Static K x K depth-wise convolution with bias, zero padding.

    Attributes:
        kernel_size: K, odd.
        dtype: Of the computation and the output; parameters are float32.
    """

    kernel_size: int
    dtype: DTypeLike = jnp.float32

    @property
    def locality(self) -> Locality:
        return Locality(self.kernel_size // 2, leaks=True)

    @nn.compact
    def __call__(self, x: Feature) -> Feature:
        c, k = x.shape[-1], self.kernel_size
        kernel = self.param("kernel", normal(1 / k), (k, k, c))
        bias = self.param("bias", nn.initializers.zeros, (c,))
        x, kernel, bias = x.astype(self.dtype), kernel.astype(self.dtype), bias.astype(self.dtype)
        return add_bias(depthwise_conv(x, kernel), bias)

"""Dense convolutions and the two resamplers, NHWC, each with a bias.

A 1x1 convolution is a matrix product over the channels and is written as one: XLA's product is the
fastest thing it has on every platform.
"""

from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from llic_jax.layers.initializers import fan_in_normal
from llic_jax.ops import depth_to_space


class Conv(nn.Module):
    """K x K convolution with zero padding `K // 2` on every side: `(B, H, W, C)` to
    `(B, ceil(H / stride), ceil(W / stride), features)`.

    init_scale: variance of the initial weights times the fan-in.
    """

    features: int
    kernel_size: int
    stride: int = 1
    init_scale: float = 1.0
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b out_h out_w features"]:
        kernel_init = fan_in_normal(self.init_scale)
        if self.kernel_size == 1 and self.stride == 1:
            return nn.Dense(self.features, dtype=self.dtype, kernel_init=kernel_init, name="conv")(
                x
            )
        pad = self.kernel_size // 2
        return nn.Conv(
            self.features,
            (self.kernel_size, self.kernel_size),
            strides=self.stride,
            padding=((pad, pad), (pad, pad)),
            dtype=self.dtype,
            kernel_init=kernel_init,
            name="conv",
        )(x)


class SubpixelConv(nn.Module):
    """Twice the size: 3x3 convolution to `4 features`, then depth-to-space (our choice)."""

    features: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b out_h out_w features"]:
        return depth_to_space(Conv(4 * self.features, 3, dtype=self.dtype, name="expand")(x))


class TransposedConv(nn.Module):
    """Twice the size: transposed 5x5 convolution with stride 2 (as in ELIC's hyper-synthesis)."""

    features: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b out_h out_w features"]:
        return nn.ConvTranspose(
            self.features,
            (5, 5),
            strides=(2, 2),
            padding="SAME",
            dtype=self.dtype,
            kernel_init=fan_in_normal(4.0),  # a quarter of the taps meets each output
            name="conv",
        )(x)


class ConvStack(nn.Module):
    """Convolutions of one kernel size with an activation between them (none after the last)."""

    features: tuple[int, ...]
    kernel_size: int
    activation: Callable = nn.relu
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w features"]:
        for i, features in enumerate(self.features):
            if i:
                x = self.activation(x)
            x = Conv(features, self.kernel_size, dtype=self.dtype, name=f"conv_{i}")(x)
        return x

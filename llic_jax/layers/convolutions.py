"""Dense convolutions and the two resamplers, NHWC, each with a bias.

A 1x1 convolution is a matrix product over the channels and is written as one: XLA's product is the
fastest thing it has on every platform.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
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
        kernel, bias = Weights(
            (self.kernel_size, self.kernel_size), self.features, self.init_scale, name="conv"
        )(x.shape[-1])
        x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
        if self.kernel_size == 1:
            x = x[:, :: self.stride, :: self.stride]
            # Two axes: the gradient by the kernel is then a plain product too. With four, XLA
            # transposes both factors first, which takes longer than the product on a CPU.
            flat = x.reshape(-1, x.shape[-1]) @ kernel
            x = flat.reshape(*x.shape[:-1], self.features)
        else:
            pad = self.kernel_size // 2
            x = jax.lax.conv_general_dilated(
                x,
                kernel,
                (self.stride, self.stride),
                ((pad, pad), (pad, pad)),
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
            )
        return add_bias(x, bias.astype(self.dtype))


class Weights(nn.Module):
    """Kernel and bias of a dense layer: `(*size, C, features)`, `(C, features)` for size 1 x 1, and
    `(features,)`, zero at first."""

    size: tuple[int, int]
    features: int
    init_scale: float

    @nn.compact
    def __call__(self, channels: int) -> tuple[Array, Array]:
        size = () if self.size == (1, 1) else self.size
        shape = (*size, channels, self.features)
        kernel = self.param("kernel", fan_in_normal(self.init_scale), shape)
        return kernel, self.param("bias", nn.initializers.zeros, (self.features,))


@jax.custom_vjp
def add_bias(x: Float[Array, "*b c"], bias: Float[Array, "c"]) -> Float[Array, "*b c"]:
    """`x + bias`, whose gradient by the bias is a product with ones: a sum over all but the last
    axis takes XLA four times as long on a CPU."""
    return x + bias


def _add_bias_forward(x: Array, bias: Array) -> tuple[Array, None]:
    return x + bias, None


def _add_bias_backward(_: None, g: Array) -> tuple[Array, Array]:
    flat = g.reshape(-1, g.shape[-1])
    ones = jnp.ones((1, len(flat)), g.dtype)
    total = jnp.dot(ones, flat, preferred_element_type=jnp.float32)[0]
    return g, total.astype(g.dtype)


add_bias.defvjp(_add_bias_forward, _add_bias_backward)


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

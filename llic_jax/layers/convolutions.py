"""Dense convolutions and the two resamplers, NHWC, each with a bias.

A 1x1 convolution is a matrix product over the channels and is written as one: XLA's product is the
fastest thing it has on every platform.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from llic_jax.layers.chain import Local, Locality
from llic_jax.layers.conv2d import conv2d, conv2d_transpose
from llic_jax.layers.initializers import fan_in_normal
from llic_jax.layers.platform import target_platform
from llic_jax.layers.types import at_least_float32
from llic_jax.ops.shapes import depth_to_space, space_to_depth


class Conv(Local):
    """K x K convolution with zero padding `K // 2` on every side.

    From `(B, H, W, C)` to `(B, ceil(H / stride), ceil(W / stride), features)`.

    Attributes:
        features: Output channels.
        kernel_size: K, odd.
        stride: In both directions.
        init_scale: Variance of the initial weights times the fan-in.
        dtype: Of the computation and the output; parameters are float32.
    """

    features: int
    kernel_size: int
    stride: int = 1
    init_scale: float = 1.0
    dtype: DTypeLike = jnp.float32

    @property
    def locality(self) -> Locality:
        return Locality(self.kernel_size // 2, self.stride, features=self.features, leaks=True)

    @nn.compact
    def weights(self, channels: int) -> tuple[Any, Any]:
        """Kernel and bias for an input of `channels`, as `Weights` has them, float32."""
        size = (self.kernel_size, self.kernel_size)
        return Weights(size, self.features, self.init_scale, name="conv")(channels)

    def __call__(
        self, x: Float[Array, "b h w c"], scale: Float[Array, "b features"] | None = None
    ) -> Float[Array, "b out_h out_w features"]:
        """The convolution of `x`, times `scale` by sample and channel if it is given."""
        kernel, bias = self.weights(x.shape[-1])
        if scale is not None and self.kernel_size == 1 and prefers_sample_kernels(x, self.features):
            by_sample = SampleConv(self.dtype, parent=None)
            return by_sample(
                x[:, :: self.stride, :: self.stride],
                kernel[None] * scale[:, None],
                bias[None] * scale,
            )
        x, kernel = x.astype(self.dtype), jnp.asarray(kernel, self.dtype)
        if self.kernel_size == 1:
            x = x[:, :: self.stride, :: self.stride]
            # Two axes: the gradient by the kernel is then a plain product too. With four, XLA
            # transposes both factors first, which takes longer than the product on a CPU.
            flat = x.reshape(-1, x.shape[-1]) @ kernel
            x = flat.reshape(*x.shape[:-1], self.features)
        else:
            x = conv2d(x, kernel, self.stride)
        x = add_bias(x, jnp.asarray(bias, self.dtype))
        if scale is None:
            return x
        # In float32 whatever the type of `x`: the gradient of `scale` is a sum over all positions,
        # and bfloat16 loses what is added to a large sum.
        return (x.astype(scale.dtype) * scale[:, None, None, :]).astype(x.dtype)


def prefers_sample_kernels(x: Float[Array, "b h w c"], features: int) -> bool:
    """Whether to scale the kernel of a 1x1 convolution for each sample, not its output.

    The gradients by the factors are then sums over kernels, not over positions: the backward pass
    needs no output and writes no gradient that is scaled again. Kernels and their gradients cross
    the memory some six times, so they have to be smaller than the activations (our choice). On a
    CPU one large product is faster.

    Args:
        x: Input of the convolution.
        features: Its output channels.
    """
    positions = x.shape[1] * x.shape[2]
    return target_platform() != "cpu" and positions >= 2 * max(x.shape[-1], features)


class SampleConv(Local):
    """A 1x1 convolution with a kernel and a bias for each sample, which are given, not learned.

    A call takes `x` `(B, H, W, C)`, kernels `(B, C, features)` and biases `(B, features)`.

    Attributes:
        dtype: Of the output.
    """

    dtype: DTypeLike = jnp.float32

    @property
    def locality(self) -> Locality:
        return Locality(leaks=True)  # its features are those of the kernels given

    def __call__(
        self,
        x: Float[Array, "b h w c"],
        kernels: Float[Array, "b c features"],
        biases: Float[Array, "b features"],
    ) -> Float[Array, "b h w features"]:
        flat = x.astype(self.dtype).reshape(len(x), -1, x.shape[-1])
        flat = jnp.einsum("bpc,bcf->bpf", flat, kernels.astype(self.dtype))
        flat = add_biases(flat, biases.astype(self.dtype))
        return flat.reshape(*x.shape[:3], -1)


class Weights(nn.Module):
    """Kernel and bias of a dense layer, as parameters.

    The kernel is `(*size, C, features)`, or `(C, features)` for size 1 x 1; the bias `(features,)`
    is zero at first. A call takes C and returns both.

    Attributes:
        size: Height and width of the kernel.
        features: Output channels.
        init_scale: Variance of the initial kernel times the fan-in.
    """

    size: tuple[int, int]
    features: int
    init_scale: float

    @nn.compact
    def __call__(self, channels: int) -> tuple[Any, Any]:
        size = () if self.size == (1, 1) else self.size
        shape = (*size, channels, self.features)
        kernel = self.param("kernel", fan_in_normal(self.init_scale), shape)
        return kernel, self.param("bias", nn.initializers.zeros, (self.features,))


@jax.custom_vjp
def add_bias(x: Float[Array, "*b c"], bias: Any) -> Float[Array, "*b c"]:
    """`x + bias`, with a gradient by the bias that is a product with ones on a CPU.

    A sum over all but the last axis takes XLA four times as long there.

    Args:
        x: `(..., c)`.
        bias: `(c,)`.
    """
    return x + jnp.reshape(bias, (1,) * (x.ndim - 1) + (-1,))


def _add_bias_forward(x: Array, bias: Any) -> tuple[Array, None]:
    return add_bias(x, bias), None


def _add_bias_backward(_: None, g: Array) -> tuple[Array, Array]:
    flat = g.reshape(-1, g.shape[-1])
    if target_platform() != "cpu":  # a sum that joins the kernel which computes `g`
        return g, flat.sum(0, dtype=jnp.float32).astype(g.dtype)
    ones = jnp.ones((1, len(flat)), g.dtype)
    total = jnp.dot(ones, flat, preferred_element_type=jnp.float32)[0]
    return g, total.astype(g.dtype)


add_bias.defvjp(_add_bias_forward, _add_bias_backward)


@jax.custom_vjp
def add_biases(x: Float[Array, "b p c"], biases: Float[Array, "b c"]) -> Float[Array, "b p c"]:
    """`x` plus a bias for each sample; the gradient by the biases is summed in float32."""
    return x + biases[:, None]


def _add_biases_forward(x: Array, biases: Array) -> tuple[Array, None]:
    return add_biases(x, biases), None


def _add_biases_backward(_: None, g: Array) -> tuple[Array, Array]:
    return g, g.sum(1, dtype=jnp.float32).astype(g.dtype)


add_biases.defvjp(_add_biases_forward, _add_biases_backward)


class SubpixelConv(Local):
    """`factor` times the size: 3x3 convolution, then depth-to-space (our choice).

    Each block of `factor` x `factor` pixels so depends on its neighbours too, and can meet them
    without a seam; a 1x1 convolution would leave that to the layers before.

    Attributes:
        features: Output channels; the convolution has `factor^2` times as many.
        factor: Output rows for each input row; columns likewise.
        dtype: Of the computation and the output.
    """

    features: int
    factor: int = 2
    dtype: DTypeLike = jnp.float32

    @property
    def locality(self) -> Locality:
        return Locality(radius=1, upsampling=self.factor, features=self.features)

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b out_h out_w features"]:
        expand = Conv(self.factor**2 * self.features, 3, dtype=self.dtype, name="expand")
        return depth_to_space(expand(x), self.factor)


class PatchEmbedding(Local):
    """1 / `patch` of the size: space-to-depth, then a 1x1 convolution (our choice).

    Each `patch` x `patch` patch becomes `features` numbers. The sides are multiples of `patch`.

    Attributes:
        features: Output channels.
        patch: Side of a patch.
        dtype: Of the computation and the output.
    """

    features: int
    patch: int
    dtype: DTypeLike = jnp.float32

    @property
    def locality(self) -> Locality:
        # The rows of a patch, counted from its first one, lie on one side; a radius has two.
        return Locality(self.patch - 1, self.patch, features=self.features)

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b out_h out_w features"]:
        x = space_to_depth(x, self.patch)
        return Conv(self.features, 1, dtype=self.dtype, name="embed")(x)


class TransposedConv(Local):
    """Twice the size: transposed 5x5 convolution with stride 2 (as in ELIC's hyper-synthesis).

    Attributes:
        features: Output channels.
        dtype: Of the computation and the output.
    """

    features: int
    dtype: DTypeLike = jnp.float32

    @property
    def locality(self) -> Locality:
        return Locality(radius=1, upsampling=2, features=self.features, leaks=True)

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b out_h out_w features"]:
        # A quarter of the taps meets each output.
        kernel, bias = Weights((5, 5), self.features, 4.0, name="conv")(x.shape[-1])
        x = conv2d_transpose(x.astype(self.dtype), jnp.asarray(kernel, self.dtype))
        return add_bias(x, jnp.asarray(bias, self.dtype))


class ConvStack(nn.Module):
    """Convolutions of one kernel size with an activation between them (none after the last).

    Attributes:
        features: Output channels of each.
        kernel_size: Of all of them.
        activation: Between two of them.
        float32_out: Computes the last one in float32 at least, whatever `dtype` is.
        dtype: Of the computation.
    """

    features: tuple[int, ...]
    kernel_size: int
    activation: Callable = nn.relu
    float32_out: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w features"]:
        for i, features in enumerate(self.features):
            if i:
                x = self.activation(x)
            widened = self.float32_out and i == len(self.features) - 1
            dtype = at_least_float32(self.dtype) if widened else self.dtype
            x = Conv(features, self.kernel_size, dtype=dtype, name=f"conv_{i}")(x)
        return x

"""The transforms of LLIC: large receptive fields with weights generated from the image.

Jiang et al., "LLIC: Large Receptive Field Transform Coding with Adaptive Weights for Learned Image
Compression", IEEE TMM 2024, arXiv 2304.09571. From the paper: the blocks, their order and counts,
kernel sizes and channels. Our choice, where the paper is silent: the activation (LeakyReLU 0.01),
the widths of the weight generators (C / 4), resampling, how the generators start (see `SCST`), and,
in a model of several quality levels, that the quality may scale every residual branch.

    x -> [down5, STB, CTB]  x4  -> y          g_a, kernels 11 11 9 9, blocks 1 1 3 1
    y -> [CTB, STB, up]     x4  -> x_hat      g_s, the mirror image of the kernels

Our choice beside it: stages of larger strides, such as 8 and 2, with the same blocks. Activations
at 1/2 and 1/4 of the image's size are most of what the paper's layout moves through memory.

Everything is NHWC. `H` and `W` at the input of `g_a` are multiples of 16.
"""

import dataclasses
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from llic_jax.layers.activations import leaky_relu
from llic_jax.layers.chain import Chain, Local, Locality, mean_over_positions
from llic_jax.layers.convolutions import Conv, SampleConv, prefers_sample_kernels
from llic_jax.layers.depthwise import DepthwiseConv, depthwise_conv
from llic_jax.layers.initializers import RESIDUAL_SCALE, Initializer, fan_in_normal, normal
from llic_jax.layers.kernels.gate import fused_kernels, fusing, gated_projection
from llic_jax.layers.platform import target_platform
from llic_jax.layers.quality import BranchGain, Quality
from llic_jax.layers.types import Feature, Pooled
from llic_jax.ops.quantization import clip_values


@dataclasses.dataclass(frozen=True)
class BlockStyle:
    """The switches of the paper's ablations (all on: LLIC), and two sizes that blocks share.

    Attributes:
        self_conditioned: Spatial weights are generated from the input; else learned and fixed.
        channel_transform: SCCT in the channel transform block; else it is left out.
        gate: Gated projection; else a plain feed-forward layer of the same width.
        depth_rb: DepthRB as non-linear embedding; else two 1x1 convolutions.
        activation_limit: See `Gate`; 0: none (paper).
        generator_width: See `WeightGenerator`.
    """

    self_conditioned: bool = True
    channel_transform: bool = True
    gate: bool = True
    depth_rb: bool = True
    activation_limit: float = 0.0
    generator_width: int = 0


def _gain(x: Feature, levels: int, quality: Quality | None) -> Float[Array, "b c"] | None:
    """What the quality scales the channels of a residual branch of `x` by; None: one level."""
    return BranchGain(levels, name="gain")(x.shape[-1], quality) if levels > 1 else None


class DepthRB(Local):
    """Depth-wise residual bottleneck (paper): 1x1, depth-wise 3x3, 1x1, residual.

    Attributes:
        spatial: With the depth-wise convolution; without it, the ablation's 1x1 embedding.
        levels: Of quality, if it scales the residual branch (`BranchGain`); 1: it does not.
        dtype: Of the computation.
    """

    spatial: bool = True
    levels: int = 1
    dtype: DTypeLike = jnp.float32

    @property
    def locality(self) -> Locality:
        return Locality(radius=1 if self.spatial else 0, takes_quality=self.levels > 1)

    @nn.compact
    def __call__(self, x: Feature, *, quality: Quality | None = None) -> Feature:
        c = x.shape[-1]
        h = leaky_relu(Conv(c, 1, dtype=self.dtype, name="conv_in")(x))
        if self.spatial:
            h = leaky_relu(DepthwiseConv(3, dtype=self.dtype, name="depthwise")(h))
        project = Conv(c, 1, init_scale=RESIDUAL_SCALE, dtype=self.dtype, name="conv_out")
        return x + project(h, _gain(x, self.levels, quality))


class WeightGenerator(nn.Module):
    """From the mean over all positions to `features` weights: `fc2(gelu(fc1(pooled)))`.

    It computes in float32, whatever the type of the layer around it.

    Attributes:
        features: Number of weights.
        kernel_init: Of `fc2`'s kernel.
        bias_init: Of `fc2`'s bias.
        width: Of `fc1`'s output; 0: a quarter of the channels (both our choice).
    """

    features: int
    kernel_init: Initializer
    bias_init: Initializer
    width: int = 0

    @nn.compact
    def __call__(self, pooled: Pooled) -> Float[Array, "b features"]:
        width = self.width or pooled.shape[-1] // 4
        h = nn.gelu(nn.Dense(width, kernel_init=fan_in_normal(), name="fc1")(pooled))
        return nn.Dense(
            self.features, kernel_init=self.kernel_init, bias_init=self.bias_init, name="fc2"
        )(h)


class SCST(Local):
    """Self-conditioned spatial transform (paper).

    A K x K depth-wise convolution whose weights are generated from the pooled input, one kernel per
    sample, between two 1x1 convolutions. Our choice: `fc2` starts small, and its bias as an
    ordinary depth-wise initialization, so that training sets out from a static large kernel and
    learns to depart from it.

    Attributes:
        kernel_size: K, odd.
        self_conditioned: False: the kernel is an ordinary parameter (the paper's ablation).
        levels: Of quality, if it scales the residual branch (`BranchGain`); 1: it does not.
        generator_width: See `WeightGenerator`.
        dtype: Of the computation, but for the generator.
    """

    kernel_size: int
    self_conditioned: bool = True
    levels: int = 1
    generator_width: int = 0
    dtype: DTypeLike = jnp.float32

    @property
    def locality(self) -> Locality:
        return Locality(
            self.kernel_size // 2,
            uses_global_mean=self.self_conditioned,
            takes_quality=self.levels > 1,
        )

    @nn.compact
    def __call__(
        self, x: Feature, pooled: Pooled | None = None, *, quality: Quality | None = None
    ) -> Feature:
        b, _, _, c = x.shape
        k = self.kernel_size
        kernel_init = normal(1 / k)
        if self.self_conditioned:
            generator = WeightGenerator(
                k * k * c, fan_in_normal(1e-4), kernel_init, self.generator_width, name="generator"
            )
            weights = generator(mean_over_positions(x) if pooled is None else pooled)
            kernel = weights.reshape(b, k, k, c)
        else:
            kernel = self.param("kernel", kernel_init, (k, k, c))
        self.sow("intermediates", "kernel", kernel)
        h = Conv(c, 1, dtype=self.dtype, name="conv_in")(x)
        h = depthwise_conv(h, kernel.astype(self.dtype))
        project = Conv(c, 1, init_scale=RESIDUAL_SCALE, dtype=self.dtype, name="conv_out")
        return x + project(h, _gain(x, self.levels, quality))


class SCCT(Local):
    """Self-conditioned channel transform (paper).

    Channel importance factors in (0, 1), generated from the pooled input, scale the channels
    between two 1x1 convolutions.

    Attributes:
        levels: Of quality, if it scales the residual branch (`BranchGain`); 1: it does not.
        generator_width: See `WeightGenerator`.
        dtype: Of the computation, but for the generator.
    """

    levels: int = 1
    generator_width: int = 0
    dtype: DTypeLike = jnp.float32

    @property
    def locality(self) -> Locality:
        return Locality(uses_global_mean=True, takes_quality=self.levels > 1)

    @nn.compact
    def __call__(
        self, x: Feature, pooled: Pooled | None = None, *, quality: Quality | None = None
    ) -> Feature:
        c = x.shape[-1]
        generator = WeightGenerator(
            c, fan_in_normal(1.0), nn.initializers.zeros, self.generator_width, name="generator"
        )
        factors = nn.sigmoid(generator(mean_over_positions(x) if pooled is None else pooled))
        self.sow("intermediates", "factors", factors)
        gain = _gain(x, self.levels, quality)
        conv_in = Conv(c, 1, dtype=self.dtype, name="conv_in")
        conv_out = Conv(c, 1, init_scale=RESIDUAL_SCALE, dtype=self.dtype, name="conv_out")
        if prefers_sample_kernels(x, c):
            # Both convolutions and the factors between them are one matrix for each sample.
            (first, first_bias), (last, bias) = conv_in.weights(c), conv_out.weights(c)
            last = factors[:, :, None] * last[None]
            biases = jnp.einsum("c,bcf->bf", first_bias, last) + bias[None]
            if gain is not None:
                last, biases = last * gain[:, None], biases * gain
            first, last = first.astype(self.dtype), last.astype(self.dtype)
            kernels = jnp.einsum("kc,bcf->bkf", first, last)
            return x + SampleConv(self.dtype)(x, kernels, biases)
        h = conv_in(x)
        h = h.astype(factors.dtype) * factors[:, None, None, :]  # in float32, as a scale in `Conv`
        return x + conv_out(h, gain)


@jax.custom_vjp
def multiply_halves(h: Float[Array, "*b c2"]) -> Float[Array, "*b c"]:
    """The first half of the channels times the second.

    Args:
        h: An even number of channels.
    """
    u, v = jnp.split(h, 2, axis=-1)
    return u * v


def _multiply_halves_forward(h: Array) -> tuple[Array, Array]:
    return multiply_halves(h), h


def _multiply_halves_backward(h: Array, g: Array) -> tuple[Array]:
    if target_platform() == "cpu":
        u, v = jnp.split(h, 2, axis=-1)
        return (jnp.concatenate([g * v, g * u], axis=-1),)
    # One elementwise product: XLA would write two halves and put them together in another pass.
    halves = h.reshape(*g.shape[:-1], 2, -1)
    return ((halves[..., ::-1, :] * g[..., None, :]).reshape(h.shape),)


multiply_halves.defvjp(_multiply_halves_forward, _multiply_halves_backward)


class Gate(Local):
    """Gated projection (paper): 1x1 to 2C, the halves multiplied, 1x1 back, residual.

    Attributes:
        gated: False: a feed-forward layer, `conv1(gelu(conv1(x)))`, of the same inner width (the
            paper's ablation).
        levels: Of quality, if it scales the residual branch (`BranchGain`); 1: it does not.
        activation_limit: The output is clipped to `[-activation_limit, activation_limit]`; 0: it is
            not (paper). A gate multiplies two outputs of the same layer, and a generated kernel
            grows with what it is generated from: far from the images of training, each block can
            square what the one before made too large. On photographs values stay below 7 (our
            choice).
        dtype: Of the computation.
    """

    gated: bool = True
    levels: int = 1
    activation_limit: float = 0.0
    dtype: DTypeLike = jnp.float32

    @property
    def locality(self) -> Locality:
        # The fused kernel's biases are no layers of their own, which would be masked.
        return Locality(takes_quality=self.levels > 1, leaks=self.gated and fusing())

    @nn.compact
    def __call__(self, x: Feature, *, quality: Quality | None = None) -> Feature:
        c = x.shape[-1]
        expand = Conv(2 * c, 1, dtype=self.dtype, name="expand")
        project = Conv(c, 1, init_scale=RESIDUAL_SCALE, dtype=self.dtype, name="project")
        gain = _gain(x, self.levels, quality)
        kernels = fused_kernels(x.shape, x.dtype) if self.gated and x.dtype == self.dtype else None
        if kernels is not None:
            weights = *expand.weights(c), *project.weights(c)
            return gated_projection(kernels, x, *weights, gain, self.activation_limit)
        h = expand(x)
        h = multiply_halves(h) if self.gated else nn.gelu(h)
        y = x + project(h, gain)
        return clip_values(y, self.activation_limit) if self.activation_limit else y


class STB(Chain):
    """Spatial transform block (paper): `Gate(SCST(DepthRB(x)))`.

    Attributes:
        kernel_size: Of SCST.
        style: Switches of the parts.
        levels: Of quality, if it scales the residual branches; 1: it does not.
        dtype: Of the computation.
    """

    kernel_size: int
    style: BlockStyle = BlockStyle()
    levels: int = 1
    dtype: DTypeLike = jnp.float32

    @nn.nowrap
    def layers(self) -> Sequence[nn.Module]:
        style, levels, dtype = self.style, self.levels, self.dtype
        width = style.generator_width
        return (
            DepthRB(style.depth_rb, levels, dtype=dtype, name="embed"),
            SCST(self.kernel_size, style.self_conditioned, levels, width, dtype=dtype, name="scst"),
            Gate(style.gate, levels, style.activation_limit, dtype=dtype, name="gate"),
        )


class CTB(Chain):
    """Channel transform block (paper): `Gate(SCCT(DepthRB(x)))`.

    Attributes:
        style: Switches of the parts.
        levels: Of quality, if it scales the residual branches; 1: it does not.
        dtype: Of the computation.
    """

    style: BlockStyle = BlockStyle()
    levels: int = 1
    dtype: DTypeLike = jnp.float32

    @nn.nowrap
    def layers(self) -> Sequence[nn.Module]:
        style, levels, dtype = self.style, self.levels, self.dtype
        embed = DepthRB(style.depth_rb, levels, dtype=dtype, name="embed")
        gate = Gate(style.gate, levels, style.activation_limit, dtype=dtype, name="gate")
        if not style.channel_transform:
            return embed, gate
        scct = SCCT(levels, style.generator_width, dtype=dtype, name="scct")
        return embed, scct, gate


class BasicBlock(Chain):
    """STB then CTB; with `inverse`, CTB then STB (paper).

    Attributes:
        kernel_size: Of STB's SCST.
        inverse: True in `g_s`.
        style: Switches of the parts.
        levels: Of quality, if it scales the residual branches; 1: it does not.
        dtype: Of the computation.
    """

    kernel_size: int
    inverse: bool = False
    style: BlockStyle = BlockStyle()
    levels: int = 1
    dtype: DTypeLike = jnp.float32

    @nn.nowrap
    def layers(self) -> Sequence[nn.Module]:
        stb = STB(self.kernel_size, self.style, self.levels, dtype=self.dtype, name="stb")
        ctb = CTB(self.style, self.levels, dtype=self.dtype, name="ctb")
        return (ctb, stb) if self.inverse else (stb, ctb)

"""TCM's entropy model: STF's channel slices, with window attention over what is decoded.

Liu et al., "Learned Image Compression with Mixed Transformer-CNN Architectures" (CVPR 2023).
Layer table: LLIC-TCM, at M = 320, 5 slices of 64. From that paper: SWAtten on the support of the
mean and of the scale, the mixed blocks of the hyper-transforms, LRP on the attended support. Our
choice: LeakyReLU in the resampling residual blocks where the paper has GDN.

    hyper, decoded slices -> SWAtten -> g_mean -> mean, and g_lrp with the slice's y_hat
                          -> SWAtten -> g_scale -> scale
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from llic_jax.entropy.stf import ChannelModel, Hyper, HyperSynthesis, Latent, slice_channels
from llic_jax.entropy.walk import EntropyParts
from llic_jax.errors import ConfigError
from llic_jax.layers.activations import leaky_relu
from llic_jax.layers.attention import SwinBlock
from llic_jax.layers.convolutions import Conv, SubpixelConv
from llic_jax.layers.initializers import RESIDUAL_SCALE
from llic_jax.layers.types import Feature


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions, each with a LeakyReLU, and a shortcut (paper).

    Attributes:
        features: Channels of the output.
        resample: "down" or "up" for half or twice the size: the first convolution and the shortcut
            then resample. None: the shortcut is the input itself.
        dtype: Of the computation.
    """

    features: int
    resample: str | None = None
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Feature) -> Float[Array, "b out_h out_w features"]:
        c, dtype = self.features, self.dtype
        first: Callable[[Feature], Feature]
        around: Callable[[Feature], Feature]
        if self.resample == "down":
            first = Conv(c, 3, stride=2, dtype=dtype, name="conv_0")
            around = Conv(c, 1, stride=2, dtype=dtype, name="around")
        elif self.resample == "up":
            first = SubpixelConv(c, dtype=dtype, name="conv_0")
            around = SubpixelConv(c, dtype=dtype, name="around")
        else:
            first, around = Conv(c, 3, dtype=dtype, name="conv_0"), lambda x: x
        h = Conv(c, 3, init_scale=RESIDUAL_SCALE, dtype=dtype, name="conv_1")(leaky_relu(first(x)))
        return around(x) + leaky_relu(h)


class MixedBlock(nn.Module):
    """Convolutions and attention side by side (paper: TCM block).

    Half of the channels go through a residual block, half through a Swin block, between two 1x1
    convolutions; residual.

    Attributes:
        window: Side of the Swin block's windows, in positions.
        head_dim: Channels of a head.
        shifted: Moves the windows by half their side.
        dtype: Of the computation.
    """

    window: int
    head_dim: int
    shifted: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Feature) -> Feature:
        c, dtype = x.shape[-1], self.dtype
        local, distant = jnp.split(Conv(c, 1, dtype=dtype, name="conv_in")(x), 2, axis=-1)
        local = ResidualBlock(c // 2, dtype=dtype, name="local")(local)
        distant = SwinBlock(self.window, self.head_dim, self.shifted, dtype, name="swin")(distant)
        both = jnp.concatenate([local, distant], axis=-1)
        return x + Conv(c, 1, init_scale=RESIDUAL_SCALE, dtype=dtype, name="conv_out")(both)


class HyperAnalysis(nn.Module):
    """`h_a`: `y` `(B, H, W, M)` to `z` `(B, H/4, W/4, N)`.

    A residual block down to (M + N) / 2 channels, two mixed blocks, a 3x3 convolution down.

    Attributes:
        channels: N.
        window: Side of the Swin blocks' windows, in positions.
        head_dim: Channels of a head.
        dtype: Of the computation; `z` is float32.
    """

    channels: int
    window: int = 4
    head_dim: int = 32
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, y: Latent) -> Float[Array, "b h4 w4 n"]:
        dtype = self.dtype
        inner = (y.shape[-1] + self.channels) // 2
        x = ResidualBlock(inner, "down", dtype=dtype, name="down_0")(y)
        x = MixedBlock(self.window, self.head_dim, dtype=dtype, name="mixed_0")(x)
        x = MixedBlock(self.window, self.head_dim, shifted=True, dtype=dtype, name="mixed_1")(x)
        return Conv(self.channels, 3, stride=2, dtype=dtype, name="down_1")(x).astype(jnp.float32)


class HyperUpsampling(nn.Module):
    """One of the two halves of `h_s`, the way of `h_a` back: `z_hat` to `(B, H, W, M)`.

    Attributes:
        latent_channels: M.
        window: Side of the Swin blocks' windows, in positions.
        head_dim: Channels of a head.
        dtype: Of the computation; the output is float32.
    """

    latent_channels: int
    window: int = 4
    head_dim: int = 32
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, z_hat: Float[Array, "b h4 w4 n"]) -> Latent:
        dtype = self.dtype
        inner = (z_hat.shape[-1] + self.latent_channels) // 2
        x = ResidualBlock(inner, "up", dtype=dtype, name="up_0")(z_hat)
        x = MixedBlock(self.window, self.head_dim, dtype=dtype, name="mixed_0")(x)
        x = MixedBlock(self.window, self.head_dim, shifted=True, dtype=dtype, name="mixed_1")(x)
        return SubpixelConv(self.latent_channels, dtype=dtype, name="up_1")(x).astype(jnp.float32)


class ResidualUnits(nn.Module):
    """Three bottlenecks 1x1, 3x3, 1x1 at half of the channels, each `relu(x + .)`.

    Attributes:
        dtype: Of the computation.
    """

    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Feature) -> Feature:
        c = x.shape[-1]
        for i in range(3):
            h = nn.relu(Conv(c // 2, 1, dtype=self.dtype, name=f"reduce_{i}")(x))
            h = nn.relu(Conv(c // 2, 3, dtype=self.dtype, name=f"conv_{i}")(h))
            expand = Conv(c, 1, init_scale=RESIDUAL_SCALE, dtype=self.dtype, name=f"expand_{i}")
            x = nn.relu(x + expand(h))
        return x


class SWAtten(nn.Module):
    """Swin attention as a mask: `x + units(x) sigmoid(conv1(units(swin(swin(x)))))` (paper).

    Attributes:
        channels: Inner ones, between a 1x1 convolution from and one back to those of the input.
        window: Side of the attention's windows.
        head_dim: Channels of each head.
        dtype: Of the computation.
    """

    channels: int = 128
    window: int = 8
    head_dim: int = 16
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, support: Feature) -> Feature:
        dtype, window, head_dim = self.dtype, self.window, self.head_dim
        x = Conv(self.channels, 1, dtype=dtype, name="conv_in")(support)
        h = SwinBlock(window, head_dim, dtype=dtype, name="swin_0")(x)
        h = SwinBlock(window, head_dim, shifted=True, dtype=dtype, name="swin_1")(h)
        h = ResidualUnits(dtype=dtype, name="mask_units")(h)
        mask = nn.sigmoid(Conv(self.channels, 1, dtype=dtype, name="mask")(h))
        x = x + ResidualUnits(dtype=dtype, name="units")(x) * mask
        return Conv(support.shape[-1], 1, dtype=dtype, name="conv_out")(x)


class ChannelAttentionModel(ChannelModel):
    """The channel-wise context model with an attention of its own on every support.

    Attributes:
        slices: Their number.
        slice_channels: Channels of each.
        widths: Hidden widths of the networks over the supports.
        attention_channels: Inner channels of SWAtten.
        window: Of SWAtten.
        head_dim: Of SWAtten.
    """

    slices: int = 5
    slice_channels: int = 64
    widths: tuple[int, ...] = (224, 128)
    attention_channels: int = 128
    window: int = 8
    head_dim: int = 16

    def setup(self) -> None:
        super().setup()

        def attentions() -> list[SWAtten]:
            sizes = self.attention_channels, self.window, self.head_dim
            return [SWAtten(*sizes, dtype=self.dtype) for _ in range(self.slices)]

        self.attend_mean, self.attend_scale = attentions(), attentions()

    def supports(self, k: int, hyper: Hyper, y_hat: Latent) -> tuple[Array, Array]:
        """As `ChannelModel.supports`, attended to: only decoded slices are in it.

        Args:
            k: Number of the slice.
            hyper: Both halves of `h_s`'s output.
            y_hat: The decoded latent so far.

        Returns:
            For the mean and for the scale.
        """
        mean_support, scale_support = super().supports(k, hyper, y_hat)
        return self.attend_mean[k](mean_support), self.attend_scale[k](scale_support)


def build(config: Mapping[str, Any], dtype: DTypeLike) -> EntropyParts:
    """The parts of LLIC-TCM.

    Args:
        config: The config's `model` section.
        dtype: Of the networks' computation.

    Raises:
        ConfigError: Slices that do not divide the latent, or heads that do not divide the channels
            that they attend to.
    """
    n, latent, inner = (
        config["hyper_channels"],
        config["channels"][-1],
        config["attention_channels"],
    )
    windows, head_dims = config["window_sizes"], config["head_dims"]
    mixed = (latent + n) // 4  # channels of the Swin half in a mixed block
    if (latent + n) % 4 or mixed % head_dims[0] or inner % head_dims[1]:
        raise ConfigError(
            f"The hyper-transforms attend with (M + N) / 4 = {(latent + n) / 4} channels, SWAtten "
            f"with model.attention_channels = {inner}; model.head_dims {tuple(head_dims)} must "
            "divide them."
        )
    half = partial(HyperUpsampling, latent, windows[0], head_dims[0], dtype=dtype)
    return EntropyParts(
        HyperAnalysis(n, windows[0], head_dims[0], dtype=dtype),
        HyperSynthesis(half),
        ChannelAttentionModel(
            config["slices"],
            slice_channels(config),
            config["max_support"],
            tuple(config["context_widths"]),
            attention_channels=inner,
            window=windows[1],
            head_dim=head_dims[1],
            dtype=dtype,
        ),
        n,
        on_canvas=True,
    )

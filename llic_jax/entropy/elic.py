"""ELIC's entropy model: uneven channel groups, each in two checkerboard passes.

He et al., "ELIC: Efficient Learned Image Compression with Unevenly Grouped Space-Channel Contextual
Adaptive Coding" (CVPR 2022). Layer table: LLIC-ELIC, at M = 320 and groups 16, 16, 32, 64, 192.

    z_hat -> h_s -> hyper ------------------------------+
    decoded groups 0 .. g-1 -> g_ch (5x5 x3) -> channel --> aggregation (1x1 x3) -> mean, scale
    anchors of group g -> g_sp (5x5) -> spatial --------+   (once for anchors, once for the rest)
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from llic_jax.entropy.gaussian import positive_scale
from llic_jax.entropy.walk import Carry, EntropyParts, Step, Values
from llic_jax.errors import ConfigError
from llic_jax.layers.convolutions import Conv, ConvStack, TransposedConv


class HyperAnalysis(nn.Module):
    """`h_a`: `y` `(B, H, W, M)` to `z` `(B, H/4, W/4, N)`.

    Attributes:
        channels: N.
        dtype: Of the computation; `z` is float32.
    """

    channels: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, y: Float[Array, "b h w m"]) -> Float[Array, "b h4 w4 n"]:
        n, dtype = self.channels, self.dtype
        x = nn.relu(Conv(n, 3, dtype=dtype, name="conv_0")(y))
        x = nn.relu(Conv(n, 5, stride=2, dtype=dtype, name="down_1")(x))
        return Conv(n, 5, stride=2, dtype=dtype, name="down_2")(x).astype(jnp.float32)


class HyperSynthesis(nn.Module):
    """`h_s`: `z_hat` `(B, H/4, W/4, N)` to `hyper` `(B, H, W, 2 N)`.

    Attributes:
        channels: N.
        dtype: Of the computation; `hyper` is float32.
    """

    channels: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, z_hat: Float[Array, "b h4 w4 n"]) -> Float[Array, "b h w n2"]:
        n, dtype = self.channels, self.dtype
        x = nn.relu(TransposedConv(n, dtype=dtype, name="up_0")(z_hat))
        x = nn.relu(TransposedConv(n * 3 // 2, dtype=dtype, name="up_1")(x))
        return Conv(2 * n, 3, dtype=dtype, name="conv_2")(x).astype(jnp.float32)


class SpaceChannelModel(nn.Module):
    """The space-channel context model; steps 2g and 2g + 1 code group g's anchors and the rest.

    Attributes:
        groups: Channels of each group, M in all.
        context_widths: Hidden widths of the channel context networks.
        dtype: Of the networks' computation; means and scales are float32.
    """

    groups: tuple[int, ...] = (16, 16, 32, 64, 192)
    context_widths: tuple[int, ...] = (224, 128)
    dtype: DTypeLike = jnp.float32

    @property
    def steps(self) -> tuple[Step, ...]:
        """Two steps a group: the anchors of a checkerboard, then the other half (ELIC)."""
        starts = [sum(self.groups[:g]) for g in range(len(self.groups))]
        return tuple(
            Step(start, start + size, parity)
            for start, size in zip(starts, self.groups, strict=True)
            for parity in (0, 1)
        )

    def setup(self) -> None:
        dtype = self.dtype
        self.g_ch = [  # of every group but the first
            ConvStack((*self.context_widths, 2 * size), 5, dtype=dtype) for size in self.groups[1:]
        ]
        self.g_sp = [Conv(2 * size, 5, dtype=dtype) for size in self.groups]
        self.aggregate = [Aggregation(2 * size, dtype=dtype) for size in self.groups]

    def entropy_params(
        self, k: int, hyper: Float[Array, "b h w n2"], y_hat: Float[Array, "b h w m"], carry: Carry
    ) -> tuple[Values, Values, Carry]:
        """Mean and scale of step k, half of a group (see `EntropyModel`).

        Args:
            k: Number of the step.
            hyper: Output of `h_s`.
            y_hat: The decoded latent so far.
            carry: From the anchors of the same group to its other half: the context of both.
        """
        group, step = k // 2, self.steps[k]
        if step.parity == 0:
            context = [hyper]
            if group:
                context.append(self.g_ch[group - 1](y_hat[..., : step.start]).astype(jnp.float32))
            carry = jnp.concatenate(context, axis=-1)
            spatial = jnp.zeros((*y_hat.shape[:-1], 2 * step.channels), jnp.float32)
        else:
            # The other half of the group is still zero: the convolution sees the anchors alone.
            spatial = self.g_sp[group](step.own_channels(y_hat)).astype(jnp.float32)
        known = jnp.concatenate([step.pack(carry), step.pack(spatial)], axis=-1)
        mean, raw_scale = jnp.split(self.aggregate[group](known), 2, axis=-1)
        return mean, positive_scale(raw_scale), carry


class Aggregation(nn.Module):
    """Three 1x1 convolutions to `features`, ReLU between, widths interpolated linearly.

    Attributes:
        features: Output channels.
        dtype: Of the first two convolutions; the last and the output are float32.
    """

    features: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w features"]:
        c, out = x.shape[-1], self.features
        widths = (c - (c - out) // 3, c - 2 * (c - out) // 3, out)
        stack = ConvStack(widths, 1, float32_out=True, dtype=self.dtype, name="stack")
        return stack(x).astype(jnp.float32)


def build(config: Mapping[str, Any], dtype: DTypeLike) -> EntropyParts:
    """The parts of LLIC-ELIC.

    Args:
        config: The config's `model` section.
        dtype: Of the networks' computation.

    Raises:
        ConfigError: Groups that do not add up to the latent's channels.
    """
    n, groups, latent = config["hyper_channels"], tuple(config["groups"]), config["channels"][-1]
    if sum(groups) != latent:
        raise ConfigError(
            f"model.groups {groups} adds up to {sum(groups)}, but the latent has {latent} channels "
            "(the last of model.channels); make them equal."
        )
    return EntropyParts(
        HyperAnalysis(n, dtype=dtype),
        HyperSynthesis(n, dtype=dtype),
        SpaceChannelModel(groups, tuple(config["context_widths"]), dtype=dtype),
        n,
        on_canvas=True,
    )

"""STF's entropy model: equal channel slices, each conditioned on the first few decoded ones.

Zou et al., "The Devil Is in the Details: Window-based Attention for Image Compression" (CVPR 2022),
after Minnen and Singh, "Channel-wise Autoregressive Entropy Models for Learned Image Compression"
(ICIP 2020). Layer table: LLIC-STF, at M = 320, 10 slices of 32, support of at most 5 slices.

    z_hat -> h_mean, h_scale -> hyper ----------------+-> g_mean -> mean    of slice i
    y_hat of the first min(i, max_support) slices ----+-> g_scale -> scale
                                                      +-> g_lrp <- y_hat of slice i
                                                            |
                              y_hat of slice i + 0.5 tanh(.), the latent residual prediction (LRP)
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from llic_jax.entropy.gaussian import positive_scale
from llic_jax.entropy.walk import Carry, EntropyParts, Step, Values
from llic_jax.errors import ConfigError
from llic_jax.layers.convolutions import Conv, ConvStack, SubpixelConv

Latent = Float[Array, "b h w m"]
Hyper = tuple[Latent, Latent]


def hyper_widths(latent_channels: int, hyper_channels: int) -> tuple[int, ...]:
    """Five widths from y to z, interpolated linearly: the paper's 320 288 256 224 192.

    Args:
        latent_channels: The first width.
        hyper_channels: The last one.
    """
    return tuple(np.linspace(latent_channels, hyper_channels, 5).astype(int).tolist())


class HyperAnalysis(nn.Module):
    """`h_a`: `y` `(B, H, W, M)` to `z` `(B, H/4, W/4, N)`; 3x3 convolutions, GELU between.

    Attributes:
        channels: N.
        dtype: Of the computation; `z` is float32.
    """

    channels: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, y: Latent) -> Float[Array, "b h4 w4 n"]:
        x, strides = y, (1, 1, 2, 1, 2)
        for i, width in enumerate(hyper_widths(y.shape[-1], self.channels)):
            x = nn.gelu(x) if i else x
            x = Conv(width, 3, stride=strides[i], dtype=self.dtype, name=f"conv_{i}")(x)
        return x.astype(jnp.float32)


class HyperUpsampling(nn.Module):
    """One of the two halves of `h_s`: `z_hat` `(B, H/4, W/4, N)` to `(B, H, W, M)`.

    Attributes:
        latent_channels: M.
        dtype: Of the computation; the output is float32.
    """

    latent_channels: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, z_hat: Float[Array, "b h4 w4 n"]) -> Latent:
        x, dtype = z_hat, self.dtype
        widths = hyper_widths(z_hat.shape[-1], self.latent_channels)
        for i, width in enumerate(widths):
            x = nn.gelu(x) if i else x
            if i % 2:
                x = SubpixelConv(width, dtype=dtype, name=f"up_{i}")(x)
            else:
                x = Conv(width, 3, dtype=dtype, name=f"conv_{i}")(x)
        return x.astype(jnp.float32)


class HyperSynthesis(nn.Module):
    """`h_s`: `z_hat` to `hyper`, the outputs of `h_mean` and `h_scale`.

    Attributes:
        half: Makes either network, given its name.
    """

    half: Callable[..., nn.Module]

    @nn.compact
    def __call__(self, z_hat: Float[Array, "b h4 w4 n"]) -> Hyper:
        return self.half(name="mean")(z_hat), self.half(name="scale")(z_hat)


class ChannelModel(nn.Module):
    """The channel-wise context model; step i codes slice i.

    Attributes:
        slices: Their number.
        slice_channels: Channels of each; M in all slices.
        max_support: A slice is conditioned on at most so many of the first slices.
        widths: Hidden widths of the networks for mean, scale and LRP.
        dtype: Of the networks' computation; means and scales are float32.
    """

    slices: int = 10
    slice_channels: int = 32
    max_support: int = 5
    widths: tuple[int, ...] = (224, 176, 128, 64)
    dtype: DTypeLike = jnp.float32

    @property
    def steps(self) -> tuple[Step, ...]:
        """One step for each slice of channels, at all positions."""
        c = self.slice_channels
        return tuple(Step(c * i, c * (i + 1)) for i in range(self.slices))

    def setup(self) -> None:
        def networks() -> list[ConvStack]:
            widths = (*self.widths, self.slice_channels)
            stack = partial(ConvStack, widths, 3, nn.gelu, float32_out=True, dtype=self.dtype)
            return [stack() for _ in range(self.slices)]

        self.g_mean, self.g_scale, self.g_lrp = networks(), networks(), networks()

    def supports(self, k: int, hyper: Hyper, y_hat: Latent) -> tuple[Array, Array]:
        """Inputs of the networks for slice k's mean and scale.

        Args:
            k: Number of the slice.
            hyper: Both halves of `h_s`'s output.
            y_hat: The decoded latent so far.

        Returns:
            For the mean and for the scale, each `(B, H, W, M + decoded channels)`.
        """
        decoded = y_hat[..., : min(k, self.max_support) * self.slice_channels]
        mean, scale = (jnp.concatenate([half, decoded], axis=-1) for half in hyper)
        return mean, scale

    def entropy_params(
        self, k: int, hyper: Hyper, y_hat: Latent, carry: Carry
    ) -> tuple[Values, Values, Carry]:
        """Mean and scale of slice k (see `EntropyModel`).

        Args:
            k: Number of the slice.
            hyper: Both halves of `h_s`'s output.
            y_hat: The decoded latent so far.
            carry: Of the step before; not used.

        Returns:
            Mean, scale, and the support of the mean, which goes on to `refine`.
        """
        mean_support, scale_support = self.supports(k, hyper, y_hat)
        mean = self.g_mean[k](mean_support).astype(jnp.float32)
        raw_scale = self.g_scale[k](scale_support).astype(jnp.float32)
        return mean, positive_scale(raw_scale), mean_support

    def refine(self, k: int, hyper: Hyper, y_hat: Latent, carry: Carry) -> tuple[Latent, Carry]:
        """Adds the predicted rounding error, within (-1/2, 1/2), to slice k (LRP).

        Args:
            k: Number of the slice.
            hyper: Not used: `carry` has what is needed of it.
            y_hat: The decoded latent with slice k in it.
            carry: The support of the mean.

        Returns:
            The corrected latent, and no carry.
        """
        step, mean_support = self.steps[k], carry
        known = jnp.concatenate([mean_support, step.own_channels(y_hat)], axis=-1)
        error = 0.5 * jnp.tanh(self.g_lrp[k](known).astype(jnp.float32))
        return y_hat.at[..., step.start : step.stop].add(error), None


def slice_channels(config: Mapping[str, Any]) -> int:
    """Channels of each slice.

    Args:
        config: The `model` section.

    Raises:
        ConfigError: The latent does not divide into `model.slices`.
    """
    latent, slices = config["channels"][-1], config["slices"]
    if latent % slices:
        raise ConfigError(
            f"The latent has {latent} channels (the last of model.channels), which do not divide "
            f"into model.slices = {slices}; choose a divisor."
        )
    return latent // slices


def build(config: Mapping[str, Any], dtype: DTypeLike) -> EntropyParts:
    """The parts of LLIC-STF.

    Args:
        config: The config's `model` section.
        dtype: Of the networks' computation.

    Raises:
        ConfigError: Slices that do not divide the latent.
    """
    n, latent = config["hyper_channels"], config["channels"][-1]
    return EntropyParts(
        HyperAnalysis(n, dtype=dtype),
        HyperSynthesis(partial(HyperUpsampling, latent, dtype=dtype)),
        ChannelModel(
            config["slices"],
            slice_channels(config),
            config["max_support"],
            tuple(config["context_widths"]),
            dtype=dtype,
        ),
        n,
        on_canvas=True,
    )

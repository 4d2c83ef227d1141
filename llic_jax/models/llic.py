"""The LLIC codec's network as one Flax module, and its construction from a config.

    x -> g_a -> y -> h_a -> z -> round -> z_hat -> h_s -> hyper
                |                                           |
                +--> walk: mean, scale of each step <-------+--> y_hat -> g_s -> x_hat

With several quality levels, gain vectors scale `y` and `z` before they are rounded, and inverse
gains scale them back (Cui et al., "Asymmetric Gained Deep Image Compression", CVPR 2021). With
`model.branch_gains` the transforms know the quality too: it scales their residual branches.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from llic_jax.entropy.factorized import FactorizedPrior
from llic_jax.entropy.gaussian import GAUSSIAN, Mixture
from llic_jax.entropy.walk import Carry, Step, estimate, quantize
from llic_jax.layers.quality import Gain, Quality
from llic_jax.models.encoder_options import PLAIN, EncoderOptions, project_back
from llic_jax.ops.quantization import add_uniform_noise, fold_in, round_straight_through


class ModelOutput(NamedTuple):
    """The output of a pass through the model.

    Attributes:
        x_hat: Decoded images, not clipped.
        bits_y: Estimated bits of `y`, of each sample.
        bits_z: Estimated bits of `z`, of each sample.
    """

    x_hat: Float[Array, "b h w 3"]
    bits_y: Float[Array, "b"]
    bits_z: Float[Array, "b"]


class LLIC(nn.Module):
    """Transforms, hyperprior and entropy model, put together.

    Parts are Flax modules of one's own choice; `build_model` picks the paper's.

    Attributes:
        g_a: Analysis transform, image to latent at 1/16 of its size.
        g_s: Synthesis transform, the way back.
        h_a: Hyper-analysis, y to z at 1/4 of its size.
        h_s: Hyper-synthesis, z_hat to `hyper`.
        entropy_model: Follows `llic_jax.entropy.walk.EntropyModel`.
        prior: Of `z`.
        latent_channels: M.
        mixture: The distribution of a symbol of `y`, given its scale, that the coding tables are
            built for. Training takes a single Gaussian (paper).
        gain_y: For several quality levels, else None.
        gain_z: For several quality levels, else None.
        takes_quality: Whether `g_a` and `g_s` take the quality as a second argument.
        on_canvas: Whether the parts are made of this package's layers alone, so that
            `execution/canvas.py` can confine them to a part of a larger array, and images of many
            sizes share programs.
    """

    g_a: nn.Module
    g_s: nn.Module
    h_a: nn.Module
    h_s: nn.Module
    entropy_model: nn.Module
    prior: FactorizedPrior
    latent_channels: int
    mixture: Mixture = GAUSSIAN
    gain_y: Gain | None = None
    gain_z: Gain | None = None
    takes_quality: bool = False
    on_canvas: bool = False

    @property
    def steps(self) -> tuple[Step, ...]:
        """The entropy model's steps."""
        return self.entropy_model.steps

    @property
    def refines(self) -> bool:
        """Whether the entropy model corrects what a step has decoded."""
        return hasattr(self.entropy_model, "refine")

    @property
    def levels(self) -> int:
        """Quality levels; 1 for a model of one rate."""
        return self.gain_y.levels if self.gain_y is not None else 1

    def analyze(
        self,
        x: Float[Array, "b h w 3"],
        quality: Quality | None = None,
        options: EncoderOptions = PLAIN,
    ) -> Float[Array, "b h16 w16 m"]:
        """Images to the latent `y` that is quantized.

        Args:
            x: Images in [0, 1], sides multiples of 64.
            quality: Of each sample; None for a model of one rate.
            options: Of the encoder: its back-projection.
        """
        y = self.scale_latent(self.g_a(x, *self.transform_arguments(quality)), quality)
        factors = options.factors(quality)
        if factors is None:
            return y
        return project_back(
            y, factors, lambda y: self.synthesize(y, quality), lambda x: self.analyze(x, quality)
        )

    @nn.nowrap
    def transform_arguments(self, quality: Quality | None) -> tuple[Quality | None, ...]:
        """What `g_a` and `g_s` take beside their input: the quality, if they depend on it.

        Args:
            quality: Of each sample; None for a model of one rate.
        """
        return (quality,) if self.takes_quality else ()

    def scale_latent(
        self, y: Float[Array, "b h16 w16 m"], quality: Quality | None, inverse: bool = False
    ) -> Float[Array, "b h16 w16 m"]:
        """`y` times its gain, if the model has any.

        Args:
            y: The latent.
            quality: Of each sample; None for a model of one rate.
            inverse: `y` is decoded, and multiplied by its inverse gain.
        """
        return y * self.gain_y(quality, inverse) if self.gain_y is not None else y

    def hyper_analyze(
        self, y: Float[Array, "b h16 w16 m"], quality: Quality | None = None
    ) -> Float[Array, "b h64 w64 n"]:
        """The latent to the hyper-latent `z` that is quantized.

        Args:
            y: The latent.
            quality: Of each sample; None for a model of one rate.
        """
        z = self.h_a(y)
        return z * self.gain_z(quality) if self.gain_z is not None else z

    def hyper_synthesize(
        self, z_hat: Float[Array, "b h64 w64 n"], quality: Quality | None = None
    ) -> Any:
        """The decoded hyper-latent to what the entropy model conditions on.

        Args:
            z_hat: The rounded hyper-latent.
            quality: Of each sample; None for a model of one rate.
        """
        if self.gain_z is not None:
            z_hat = z_hat * self.gain_z(quality, inverse=True)
        return self.h_s(z_hat)

    def entropy_params(
        self, k: int, hyper: Any, y_hat: Array, carry: Carry
    ) -> tuple[Array, Array, Carry]:
        """Step k of the entropy model; arguments and results as in `EntropyModel`.

        Args:
            k: Number of the step.
            hyper: From `hyper_synthesize`.
            y_hat: The decoded latent so far.
            carry: From the step before.
        """
        return self.entropy_model.entropy_params(k, hyper, y_hat, carry)

    def refine(self, k: int, hyper: Any, y_hat: Array, carry: Carry) -> tuple[Array, Carry]:
        """Step k's refinement, if the entropy model has any; arguments and results as there.

        Args:
            k: Number of the step.
            hyper: From `hyper_synthesize`.
            y_hat: The decoded latent with step k's values in it.
            carry: From `entropy_params`.
        """
        if not self.refines:
            return y_hat, carry
        return self.entropy_model.refine(k, hyper, y_hat, carry)

    def synthesize(
        self, y_hat: Float[Array, "b h16 w16 m"], quality: Quality | None = None
    ) -> Float[Array, "b h w 3"]:
        """The decoded latent to images, not clipped.

        Args:
            y_hat: The decoded latent.
            quality: Of each sample; None for a model of one rate.
        """
        y_hat = self.scale_latent(y_hat, quality, inverse=True)
        return self.g_s(y_hat, *self.transform_arguments(quality))

    def prior_bits(self, z: Float[Array, "*b n"]) -> Float[Array, "*b n"]:
        """Bits of each element of `z` under the factorized prior."""
        return self.prior.bits(z)

    def __call__(
        self,
        x: Float[Array, "b h w 3"],
        quality: Quality | None = None,
        keys: Key[Array, "b"] | None = None,
        options: EncoderOptions = PLAIN,
    ) -> ModelOutput:
        """Reconstruction and estimated rates.

        Args:
            x: Images in [0, 1], sides multiples of 64.
            quality: Of each sample; None for a model of one rate.
            keys: One per sample, for training: noise for the rate, straight-through rounding for
                the values. None: the rate of the symbols that an encoder with these options
                chooses; no gradient then reaches the analysis.
            options: Of that encoder.
        """
        y = self.analyze(x, quality, options if keys is None else PLAIN)
        z = self.hyper_analyze(y, quality)
        if keys is None:
            z_rated = z_hat = jnp.round(z)
        else:
            z_rated, z_hat = add_uniform_noise(fold_in(keys, 1), z), round_straight_through(z)
        bits_z = jnp.sum(self.prior_bits(z_rated), axis=(1, 2, 3))
        hyper = self.hyper_synthesize(z_hat, quality)
        if keys is None:
            y_hat, bits_y = quantize(self, hyper, y, options.rdoq_weight, self.mixture)
        else:
            y_hat, bits_y = estimate(self, hyper, y, fold_in(keys, 0))
        return ModelOutput(self.synthesize(y_hat, quality), bits_y, bits_z)


class Latents(NamedTuple):
    """The latents of images, before they are rounded.

    Attributes:
        y: The latent.
        z: The hyper-latent.
    """

    y: Float[Array | np.ndarray, "b h16 w16 m"]
    z: Float[Array | np.ndarray, "b h64 w64 n"]

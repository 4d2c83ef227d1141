"""What only the encoder needs to know beside the model: how it finds and weighs its symbols."""

import dataclasses
from typing import Any

import jax.numpy as jnp
from jax.lax import stop_gradient
from jaxtyping import Array, Float

from llic_jax.configs.config import Config
from llic_jax.entropy.gaussian import GAUSSIAN, Mixture
from llic_jax.errors import ConfigError
from llic_jax.layers.quality import Quality, interpolate_levels

Latent = Float[Array, "b h16 w16 m"]


@dataclasses.dataclass(frozen=True)
class EncoderOptions:
    """As in a config's `coding` section; the defaults are the paper's encoder.

    rdoq_weight: how symbols are chosen: 0 for the nearest (`gaussian.choose_symbols`).
    back_projection: for each quality level how far `back_project` goes, 0 for not at all; none: at
        no level. Between two levels it is interpolated linearly.
    mixture: what the coding tables take a symbol's distribution for, given its scale.
    """

    rdoq_weight: float = 0.0
    back_projection: tuple[float, ...] = ()
    mixture: Mixture = GAUSSIAN

    @classmethod
    def of(cls, coding: Config, levels: int) -> "EncoderOptions":
        """Those of a config's `coding` section, for a model of so many quality levels.

        Raises:
          ConfigError: a number of factors that is not that of the levels, a factor out of range, or
            what is no mixture.
        """
        factors = tuple(map(float, coding.get("back_projection", ())))  # older configs have none
        if factors and len(factors) != levels:
            raise ConfigError(
                f"coding.back_projection has {len(factors)} factors and the model {levels} quality "
                "levels; give one for each, or () for none."
            )
        if bad := [factor for factor in factors if not 0 <= factor <= 2]:
            raise ConfigError(
                f"coding.back_projection: {bad} are not between 0, no correction, and 2, "
                "beyond which a correction makes the error larger."
            )
        mixture = tuple(tuple(map(float, part)) for part in coding.get("mixture", ())) or GAUSSIAN
        sound = all(len(part) == 2 and min(part) > 0 for part in mixture)
        if not sound or abs(sum(part[0] for part in mixture) - 1) > 1e-6:
            raise ConfigError(
                f"coding.mixture is {mixture}; give pairs (weight, scale relative to the predicted "
                "one), above 0, the weights 1 in all; or () for a single Gaussian."
            )
        return cls(coding.get("rdoq_weight", 0.0), factors, mixture)

    def factors(self, quality: Quality | None) -> Float[Array, "b"] | None:
        """Of `back_project`, for each sample; None if there are none."""
        if not self.back_projection:
            return None
        table = jnp.asarray(self.back_projection)
        return table if quality is None else interpolate_levels(table[:, None], quality)[:, 0]


PLAIN = EncoderOptions()


def as_shown(x_hat: Float[Array, "b h w 3"]) -> Float[Array, "b h w 3"]:
    """Clipped to [0, 1], what is not a number to 0: an image that the analysis can make sense of,
    whatever the synthesis makes of a latent that was never quantized."""
    return jnp.clip(jnp.nan_to_num(x_hat), 0, 1)


def back_project(y: Latent, seen: Any, factors: Float[Array, "b"]) -> Latent:
    """`y`, corrected by what the analysis finds missing when it sees the synthesis of `y`.

    `g_s` inverts `g_a` only about: analyzed again, the synthesis of `y` yields `seen`, and
    `y + f (y - seen)` is nearer to a latent whose synthesis is the image. Irani and Peleg,
    "Improving resolution by image registration" (CVGIP 1991), do it to images, step after step. One
    step is most of what there is to gain where rates are high; where they are low, the details that
    it adds cost more bits than they are worth (our choice: `benchmarks/back_projection.py`).
    """
    return y + factors[:, None, None, None] * stop_gradient(y - seen)

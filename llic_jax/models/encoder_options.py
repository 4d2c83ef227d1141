"""The encoder's options beside the model: how it finds, weighs and codes its symbols."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.lax import stop_gradient
from jaxtyping import Array, Float

from llic_jax.configs.config import Config
from llic_jax.errors import ConfigError
from llic_jax.execution.program_cache import cached_jit
from llic_jax.layers.quality import Quality, interpolate_levels

Latent = Float[Array, "b h16 w16 m"]


# Half a step, 0.00125 rows, is 1.5e-4 of a scale: ten times the largest difference between
# platforms that was measured with full-size models.
SHIFT_RESOLUTION = 400


class EncoderOptions(NamedTuple):
    """What an encoder may choose; no decoder needs to know it.

    Attributes:
        rdoq_weight: Of rate-distortion optimized quantization; 0 for the nearest symbols
            (`gaussian.quantize_rdo`).
        back_projection: For each quality level the factor of `project_back`, 0 for none; () for
            none at any level. Between two levels it is interpolated linearly.
        coder: Name of the range coder; None for the first that is installed. Files of every
            installed coder are read.
        shift_resolution: Row shifts per table row (`coding/row_shifts.py`). With 0, files decode
            reliably only with the software and machine type that wrote them.
        progressive: Write files whose first part has profile, alpha and metadata, and a check
            after each step (version 5, `coding/step_checks.py`).
    """

    rdoq_weight: float = 0.0
    back_projection: tuple[float, ...] = ()
    coder: str | None = None
    shift_resolution: int = SHIFT_RESOLUTION
    progressive: bool = False

    @classmethod
    def of(cls, coding: Config, levels: int) -> "EncoderOptions":
        """The options that a config states.

        Args:
            coding: The `coding` section, with every field (`configs.upgrade.upgrade`).
            levels: Quality levels of the model.

        Raises:
            ConfigError: The number of factors is not that of the levels, or a factor is out of
                range.
        """
        factors = tuple(map(float, coding["back_projection"]))
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
        return cls(coding["rdoq_weight"], factors, shift_resolution=coding["shift_resolution"])

    def factors(self, quality: Quality | None) -> Float[Array, "b"] | None:
        """The factors of `project_back`.

        Args:
            quality: Of each sample; None for a model of one rate.

        Returns:
            One for each sample; None if there are none.
        """
        if not self.back_projection:
            return None
        table = np.array(self.back_projection, np.float32)
        return jnp.asarray(table) if quality is None else _factors(table, quality)


PLAIN = EncoderOptions()


@cached_jit
def _factors(table: Float[Array | np.ndarray, " levels"], quality: Quality) -> Float[Array, "b"]:
    return interpolate_levels(jnp.asarray(table)[:, None], quality)[:, 0]


def project_back(
    y: Latent,
    factors: Float[Array, "b"],
    synthesize: Callable[[Any], Any],
    analyze: Callable[[Any], Any],
) -> Latent:
    """Back-projection: `y`, corrected by what the analysis finds missing in the synthesis of `y`.

    Irani and Peleg, "Improving resolution by image registration" (CVGIP 1991), do it to images,
    step after step. One step is most of what there is to gain where rates are high; where they are
    low, the details that it adds cost more bits than they are worth (our choice:
    `benchmarks/back_projection.py`).

    Args:
        y: Latents of the images.
        factors: How far to go, for each image; 0 for not at all.
        synthesize: Latents to images in [0, 1], not clipped.
        analyze: Images to latents.

    Returns:
        The corrected latents.
    """
    return back_project(y, analyze(displayable(synthesize(y))), factors)


@cached_jit
def displayable(x_hat: Float[Array, "b h w 3"]) -> Float[Array, "b h w 3"]:
    """An image that the analysis can take: clipped to [0, 1], NaN to 0.

    The synthesis may make anything of a latent that was never quantized.

    Args:
        x_hat: Images, not clipped.
    """
    return jnp.clip(jnp.nan_to_num(x_hat), 0, 1)


@cached_jit
def back_project(y: Latent, seen: Latent, factors: Float[Array, "b"]) -> Latent:
    """`y + f (y - seen)`, and `y` itself where f is 0, even if `y - seen` is not finite.

    `g_s` inverts `g_a` only about: analyzed again, the synthesis of `y` yields `seen`, and the sum
    is nearer to a latent whose synthesis is the image.

    Args:
        y: Latents of the images.
        seen: What the analysis makes of their synthesis.
        factors: f of each image.
    """
    f = factors[:, None, None, None]
    return jnp.where(f == 0, y, y + f * stop_gradient(y - seen))

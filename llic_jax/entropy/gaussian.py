"""The conditional Gaussian of the latent `y`: bits, and the ladder of scales that is coded with.

Balle et al. 2018 (hyperprior), app. 6.2: the density is a Gaussian convolved with a unit uniform,
so its integral over a unit interval is the probability of an integer. All float32, any shape.
"""

import math

import jax.numpy as jnp
from jax.scipy.special import log_ndtr
from jaxtyping import Array, Float, Int

from llic_jax.ops import lower_bound

SCALE_MIN = 0.11  # paper's baselines: a smaller scale makes no cheaper symbol
SCALE_MAX = 256.0
SCALE_LEVELS = 64
_LOG_STEP = (math.log(SCALE_MAX) - math.log(SCALE_MIN)) / (SCALE_LEVELS - 1)


def gaussian_bits(
    residual: Float[Array, "*shape"], scale: Float[Array, "*shape"]
) -> Float[Array, "*shape"]:
    """Bits of `residual = y - mean` under a zero-mean Gaussian of standard deviation `scale`.

    `-log2(Phi((r + 1/2) / s) - Phi((r - 1/2) / s))`, evaluated in the logarithmic domain on the
    lower tail, where neither difference nor logarithm loses digits: finite, with finite gradients,
    for residuals up to 1e5. `scale` is the caller's to bound from below.
    """
    r = jnp.abs(residual)
    upper = log_ndtr((0.5 - r) / scale)
    lower = log_ndtr((-0.5 - r) / scale)
    return -(upper + jnp.log1p(-jnp.exp(lower - upper))) / math.log(2)


def positive_scale(raw: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """A network's output to a standard deviation: softplus, bounded by `SCALE_MIN` (our choice)."""
    return lower_bound(jnp.logaddexp(raw, 0.0), SCALE_MIN)


def scale_index(scale: Float[Array, "*shape"]) -> Int[Array, "*shape"]:
    """The level of the ladder nearest to `scale` in the logarithmic domain, 0 .. 63, int32."""
    level = jnp.round((jnp.log(scale) - math.log(SCALE_MIN)) / _LOG_STEP)
    return jnp.clip(level, 0, SCALE_LEVELS - 1).astype(jnp.int32)


def scale_ladder() -> list[float]:
    """The 64 scales in [0.11, 256], evenly spaced in the logarithmic domain, ascending."""
    return [SCALE_MIN * math.exp(_LOG_STEP * i) for i in range(SCALE_LEVELS)]

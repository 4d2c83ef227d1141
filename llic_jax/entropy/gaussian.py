"""The conditional Gaussian of the latent `y`: bits, symbols, and the table of scales.

Balle et al. 2018 (hyperprior), app. 6.2: the density is a Gaussian convolved with a unit uniform,
so its integral over a unit interval is the probability of an integer. All float32, any shape.
"""

import math
from collections.abc import Sequence
from statistics import NormalDist

import jax.numpy as jnp
from jax.scipy.special import erfc, log_ndtr
from jaxtyping import Array, Float, Int

from llic_jax.errors import ConfigError
from llic_jax.ops.quantization import lower_bound

SCALE_MIN = 0.11  # paper's baselines: a smaller scale makes no cheaper symbol
SCALE_MAX = 256.0
SCALE_ROWS = 64  # of the scale table
# What the coder's tables hold (llic_jax/coding/tables.py; our choice).
PRECISION = 16  # bits of a probability; the most that TFC's coder takes
TAIL_MASS = 2.0**-12  # a row leaves at most so much to its escape symbol
Mixture = tuple[tuple[float, ...], ...]  # of zero-mean Gaussians: weights and relative scales
GAUSSIAN: Mixture = ((1.0, 1.0),)
_LEAST = 2.0**-PRECISION  # probability in a table
_LOG_STEP = (math.log(SCALE_MAX) - math.log(SCALE_MIN)) / (SCALE_ROWS - 1)


def gaussian_bits(
    residual: Float[Array, "*shape"], scale: Float[Array, "*shape"]
) -> Float[Array, "*shape"]:
    """Bits of residuals under a zero-mean Gaussian convolved with a unit uniform.

    `-log2(Phi((r + 1/2) / s) - Phi((r - 1/2) / s))`, evaluated in the logarithmic domain on the
    lower tail, where neither difference nor logarithm loses digits: finite, with finite gradients,
    for residuals up to 1e5.

    Args:
        residual: `y - mean`.
        scale: Standard deviations; the caller bounds them from below (`positive_scale`).
    """
    r = jnp.abs(residual)
    upper = log_ndtr((0.5 - r) / scale)
    lower = log_ndtr((-0.5 - r) / scale)
    return -(upper + jnp.log1p(-jnp.exp(lower - upper))) / math.log(2)


def mixture_of(pairs: Sequence[Sequence[float]]) -> Mixture:
    """The mixture that a config's `model.mixture` states.

    Args:
        pairs: A weight and a scale relative to the predicted one, for each Gaussian; empty for a
            single Gaussian of the predicted scale.

    Raises:
        ConfigError: An entry is no pair of positive numbers, or the weights do not add up to 1.
    """
    mixture = tuple(tuple(map(float, part)) for part in pairs) or GAUSSIAN
    sound = all(len(part) == 2 and min(part) > 0 for part in mixture)
    if not sound or abs(sum(part[0] for part in mixture) - 1) > 1e-6:
        raise ConfigError(
            f"model.mixture is {mixture}; give pairs (weight, scale relative to the predicted "
            "one), above 0, the weights 1 in all; or () for a single Gaussian."
        )
    return mixture


def coded_bits(
    symbols: Float[Array, "*shape"], scale: Float[Array, "*shape"], mixture: Mixture = GAUSSIAN
) -> Float[Array, "*shape"]:
    """Bits of symbols as the range coder's tables charge them. For evaluation, not for training.

    No listed symbol costs more than `PRECISION` bits. One beyond the row costs the escape and an
    Elias gamma code of its excess (2 log2 + 1 bits), where the Gaussian's own tail would charge the
    square of the distance.

    Args:
        symbols: Integers, as floats.
        scale: Standard deviations.
        mixture: The distribution that the tables were built for.
    """
    magnitude = jnp.abs(symbols)
    # The row's half width: the first whose two tails weigh no more than TAIL_MASS. Only the widest
    # component of a mixture is used for the tails: those of the others are negligible.
    weight, relative = max(mixture, key=lambda part: part[1])
    widest = relative * scale
    reach = -NormalDist().inv_cdf(TAIL_MASS / 2 / weight)
    half = jnp.maximum(1.0, jnp.ceil(reach * widest - 0.5))
    tail = jnp.maximum(2 * weight * _upper_tail((half + 0.5) / widest), _LEAST)
    excess = jnp.maximum(2 * (magnitude - half) - 1, 1.0)
    escaped = 1 - jnp.log2(tail) + 2 * jnp.floor(jnp.log2(excess))
    # A difference of tails has digits enough for all that is above _LEAST.
    listed = sum(
        part * (_upper_tail((magnitude - 0.5) / s) - _upper_tail((magnitude + 0.5) / s))
        for part, s in ((part, relative * scale) for part, relative in mixture)
    )
    return jnp.where(magnitude > half, escaped, -jnp.log2(jnp.maximum(listed, _LEAST)))


def _upper_tail(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """The probability that a standard Gaussian is above `x`."""
    return 0.5 * erfc(math.sqrt(0.5) * x)


def quantize_rdo(
    residual: Float[Array, "*shape"],
    scale: Float[Array, "*shape"],
    rdoq_weight: float | Float[Array, ""] = 0.0,
) -> Float[Array, "*shape"]:
    """Rate-distortion optimized quantization (RDOQ), as encoders of video do it (our choice).

    The nearest integer (paper), or the next one towards zero where that costs less. The cost of an
    integer is its bits and `rdoq_weight` times its squared distance. Decoders are not affected.

    Args:
        residual: `y - mean`.
        scale: Standard deviations.
        rdoq_weight: Bits that the squared error of one quantization step is worth; 0: the nearest
            integer. Fine uniform quantization, at its best step, values it at `6 / ln 2`, 8.7;
            where most symbols are zero it is worth more.

    Returns:
        Integers, as floats.
    """
    nearest = jnp.round(residual)
    if isinstance(rdoq_weight, float) and not rdoq_weight:
        return nearest
    lower = nearest - jnp.sign(nearest)
    both = jnp.stack([nearest, lower])  # in one call: its program is large
    bits = gaussian_bits(both, jnp.broadcast_to(scale, both.shape))
    saved = jnp.minimum(bits[0], PRECISION) - bits[1]
    lost = rdoq_weight * (jnp.square(residual - lower) - jnp.square(residual - nearest))
    return jnp.where(saved > lost, lower, nearest)


def positive_scale(raw: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """A network's output as a standard deviation: softplus, bounded by `SCALE_MIN` (our choice).

    Args:
        raw: The output, of any sign.
    """
    return lower_bound(jnp.logaddexp(raw, 0.0), SCALE_MIN)


def scale_position(scale: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Positions on the scale table, in the logarithmic domain.

    Args:
        scale: Standard deviations.

    Returns:
        Real numbers: 0 at the table's lowest scale, 63 at its highest.
    """
    return (jnp.log(scale) - math.log(SCALE_MIN)) / _LOG_STEP


def scale_index(scale: Float[Array, "*shape"]) -> Int[Array, "*shape"]:
    """The row of the scale table nearest to `scale` in the logarithmic domain, 0 .. 63, int32."""
    return jnp.clip(jnp.round(scale_position(scale)), 0, SCALE_ROWS - 1).astype(jnp.int32)


def scale_table() -> list[float]:
    """The 64 scales in [0.11, 256], evenly spaced in the logarithmic domain, ascending."""
    return [SCALE_MIN * math.exp(_LOG_STEP * i) for i in range(SCALE_ROWS)]

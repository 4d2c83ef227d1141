"""What depends on the quality: tables of one vector per level, interpolated between levels."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

Quality = Float[Array, "b"]

# Adam moves every parameter by about its rate in each step, whatever it is worth; a factor on a
# whole branch is to change in hundreds of steps, not in thousands (our choice).
_PACE = 4.0


def interpolate_levels(
    table: Float[Array, "levels c"], quality: Quality | None
) -> Float[Array, "b c"]:
    """The row of a table at each sample's quality.

    Level 1 is the first row. Between two levels the rows are mixed linearly; beyond the ends it is
    the last of them.

    Args:
        table: One row for each quality level.
        quality: Of each sample, `(B,)`.

    Raises:
        ValueError: The quality is None.
    """
    if quality is None:
        raise ValueError("A model of several quality levels needs a quality for each sample.")
    levels = len(table)
    position = jnp.clip(quality - 1, 0, levels - 1)
    # Hat functions: interpolation as one small product, the same on every platform.
    rows = jnp.arange(levels, dtype=position.dtype)
    weights = jnp.maximum(1 - jnp.abs(position[:, None] - rows[None]), 0)
    return jnp.sum(weights[:, :, None] * table[None], axis=1)


class BranchGain(nn.Module):
    """The factors of a residual branch, one per channel and quality level (our choice).

    They are interpolated geometrically; all of them are one at first.

    Attributes:
        levels: Number of levels; quality runs continuously from 1 to `levels`.
    """

    levels: int

    @nn.compact
    def __call__(self, features: int, quality: Quality | None) -> Float[Array, "b features"]:
        """The factors of a branch, float32.

        Args:
            features: Channels of the branch.
            quality: Of each sample, `(B,)`.
        """
        table = self.param("branch_gain", nn.initializers.zeros, (self.levels, features))
        return jnp.exp(_PACE * interpolate_levels(table, quality))


class Gain(nn.Module):
    """One gain and one inverse gain vector per quality level, interpolated geometrically.

    A call returns the gains of each sample's quality, or with `inverse` the inverse gains. Cui et
    al., "Asymmetric Gained Deep Image Compression" (CVPR 2021).

    Attributes:
        levels: Number of levels; quality runs continuously from 1 to `levels`.
        channels: Of the latent that is scaled.
        spread: At the start, the logarithm of the last level's gain over the first's. The default
            keeps the quantization error in proportion over the paper's six lambdas,
            log(sqrt(483 / 18)).
    """

    levels: int
    channels: int
    spread: float = 1.645

    def setup(self) -> None:
        ramp = np.linspace(-self.spread / 2, self.spread / 2, self.levels, dtype=np.float32)
        ramp = np.repeat(ramp[:, None], self.channels, axis=1)
        self.log_gain = self.param("log_gain", lambda _: jnp.asarray(ramp))
        self.log_inverse = self.param("log_inverse", lambda _: jnp.asarray(-ramp))

    def __call__(self, quality: Quality | None, inverse: bool = False) -> Float[Array, "b 1 1 c"]:
        table = self.log_inverse if inverse else self.log_gain
        return jnp.exp(interpolate_levels(table, quality))[:, None, None, :]


def lmbda_of_quality(quality: Float[Array, "b"], lmbdas: tuple[float, ...]) -> Float[Array, "b"]:
    """The lambda of each quality: geometric interpolation of the levels' lambdas.

    Args:
        quality: Of each sample; 1 is the first level.
        lmbdas: One for each level.
    """
    levels = jnp.arange(1, len(lmbdas) + 1, dtype=jnp.float32)
    return jnp.exp(jnp.interp(quality, levels, jnp.log(jnp.asarray(lmbdas))))

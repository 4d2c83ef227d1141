"""The factorized prior of the hyper-latent `z`.

Balle et al. 2018 (hyperprior), app. 6.1: per channel, a cumulative distribution made of small
monotone MLPs (filters 3, 3, 3), convolved with a unit uniform.
"""

import math

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from llic_jax.layers.initializers import uniform


class FactorizedPrior(nn.Module):
    """One learned, fully general distribution per channel.

    Attributes:
        channels: Of `z`.
        filters: Widths of the hidden layers of each channel's MLP.
        init_scale: Spread of the distribution before training, in units of `z`.
    """

    channels: int
    filters: tuple[int, ...] = (3, 3, 3)
    init_scale: float = 10.0

    def setup(self) -> None:
        widths = (1, *self.filters, 1)
        layers = len(widths) - 1
        spread = self.init_scale ** (1 / layers)
        self._layers = [
            (
                self.param(
                    f"matrix_{i}",
                    nn.initializers.constant(float(np.log(np.expm1(1 / spread / widths[i + 1])))),
                    (self.channels, widths[i + 1], widths[i]),
                ),
                self.param(
                    f"bias_{i}",
                    # Symmetric around zero: the hidden units differ from the start.
                    uniform(-0.5, 0.5),
                    (self.channels, widths[i + 1]),
                ),
                self.param(f"factor_{i}", nn.initializers.zeros, (self.channels, widths[i + 1]))
                if i < layers - 1
                else None,
            )
            for i in range(layers)
        ]

    def logits_cumulative(self, z: Float[Array, "*batch c"]) -> Float[Array, "*batch c"]:
        """The logit of the cumulative distribution of each channel at `z`; increasing in `z`."""
        h, lead = z[..., None], (1,) * (z.ndim - 1)
        for matrix, bias, factor in self._layers:
            h = jnp.einsum("...ci,coi->...co", h, nn.softplus(matrix))
            h = h + jnp.reshape(bias, lead + bias.shape)
            if factor is not None:
                h = h + jnp.reshape(jnp.tanh(factor), lead + factor.shape) * jnp.tanh(h)
        return h[..., 0]

    def bits(self, z: Float[Array, "*batch c"]) -> Float[Array, "*batch c"]:
        """Bits of each element: `-log2(c(z + 1/2) - c(z - 1/2))`, `c` the cumulative.

        In the logarithmic domain, with `sigmoid(u) - sigmoid(l) = sigmoid(u) sigmoid(-l) (1 -
        exp(l - u))`, which loses no digits in either tail.
        """
        upper = self.logits_cumulative(z + 0.5)
        lower = self.logits_cumulative(z - 0.5)
        # Far out the two meet in float32; 2^-24 is then the smallest difference that it resolves.
        gap = jnp.maximum(upper - lower, 2.0**-24)
        log_p = nn.log_sigmoid(upper) + nn.log_sigmoid(-lower) + jnp.log(-jnp.expm1(-gap))
        return -log_p / math.log(2)

    def __call__(self, z: Float[Array, "*batch c"]) -> Float[Array, "*batch c"]:
        return self.bits(z)

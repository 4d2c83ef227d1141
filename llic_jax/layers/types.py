"""Types of the arrays that layers exchange."""

from jaxtyping import Array, Float

Feature = Float[Array, "b h w c"]
Pooled = Float[Array, "b c"]  # the mean over all positions

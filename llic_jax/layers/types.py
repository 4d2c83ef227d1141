"""Types of the arrays that layers exchange."""

import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

Feature = Float[Array, "b h w c"]
Pooled = Float[Array, "b c"]  # the mean over all positions


def at_least_float32(dtype: DTypeLike) -> DTypeLike:
    """The type itself if it has 32 bits or more, else float32 (also where JAX promotes nothing).

    Args:
        dtype: A floating-point type.
    """
    return dtype if jnp.finfo(dtype).bits >= 32 else jnp.float32

"""Arrays in other shapes and types: space to depth and back, images in 8 bits and as floats."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def depth_to_space(x: Any, block: int = 2) -> Any:
    """Sub-pixel up-sampling: channels become positions.

    Args:
        x: `(B, H, W, block^2 C)`, in NumPy or JAX; channels run over (row, column, C).
        block: Side of the squares that channels are spread over.

    Returns:
        `(B, block H, block W, C)`, an array of the same library.
    """
    b, h, w, c = x.shape
    x = x.reshape(b, h, w, block, block, c // block**2)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(b, h * block, w * block, c // block**2)


def space_to_depth(x: Any, block: int = 2) -> Any:
    """The inverse of `depth_to_space`.

    Args:
        x: `(B, H, W, C)`, in NumPy or JAX; the sides are multiples of `block`.
        block: Side of the squares that become channels.

    Returns:
        `(B, H / block, W / block, block^2 C)`, an array of the same library.
    """
    b, h, w, c = x.shape
    x = x.reshape(b, h // block, block, w // block, block, c)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(b, h // block, w // block, block**2 * c)


def to_float(x: Any) -> Any:
    """Converts 8-bit values to [0, 1].

    Args:
        x: uint8, of any shape, in NumPy or JAX.

    Returns:
        float32 of the same shape, an array of the same library.
    """
    return x.astype(np.float32) / np.float32(255)


def to_uint8(x: Float[Array, "*shape"]) -> jax.Array:
    """Converts values in [0, 1] to 8 bits, rounded and clipped.

    Args:
        x: Of any shape.

    Returns:
        uint8 of the same shape.
    """
    return jnp.clip(jnp.round(x * 255), 0, 255).astype(jnp.uint8)

"""The native CPU kernel of the depth-wise convolution, where it was built and fits.

`setup.py` compiles `native/depthwise_native.cc` if it finds a C++ compiler. Without the library, or
with `LLIC_NATIVE=0` in the environment, `layers/depthwise.py` does the same in JAX, several times
slower.
"""

from collections.abc import Callable
from typing import cast

import jax
import jax.numpy as jnp
from jax import Array

_ROWS = 16  # of a band, as `kRows` in the C++ source


def convolve(x: Array, kernel: Array) -> Array:
    """Depth-wise convolution, float32.

    Args:
        x: `(B, H, W, C)`.
        kernel: `(K, K, C)` or `(B, K, K, C)`.

    Returns:
        `(B, H, W, C)`.
    """
    return _call("llic_depthwise_convolve", x.shape, x, kernel)


def correlate(x: Array, dy: Array, size: int) -> Array:
    """The gradient of `convolve` by each sample's kernel, float32.

    Args:
        x: Input of the convolution, `(B, H, W, C)`.
        dy: Upstream gradient, of the same shape.
        size: K of the kernel.

    Returns:
        `(B, size, size, C)`.
    """
    batch, height, _, channels = x.shape
    bands = -(-height // _ROWS)
    shape = (batch, bands, size, size, channels)
    return _call("llic_depthwise_correlate", shape, x, dy).sum(1)


def _call(target: str, shape: tuple[int, ...], *operands: Array) -> Array:
    result = jax.ShapeDtypeStruct(shape, jnp.float32)
    call = jax.ffi.ffi_call(target, result, vmap_method="broadcast_all")
    return cast(Callable[..., Array], call)(*operands)

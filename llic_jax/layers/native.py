"""The native CPU kernel of the depth-wise convolution, where it was built and fits.

`setup.py` compiles `depthwise_native.cc` if it finds a C++ compiler. Without the library, or with
`LLIC_NATIVE=0` in the environment, `depthwise.py` does the same in JAX, several times slower.
"""

import ctypes
import functools
import importlib.util
import os
import warnings
from collections.abc import Callable
from typing import cast

import jax
import jax.numpy as jnp
from jax import Array

_ROWS = 16  # of a band, as `kRows` in the C++ source


def enabled() -> bool:
    """Whether convolutions traced from now on use the native kernel."""
    return os.environ.get("LLIC_NATIVE", "1") != "0" and _library() is not None


def convolve(x: Array, kernel: Array) -> Array:
    """`(B, H, W, C)` and `(K, K, C)` or `(B, K, K, C)`, float32 -> `(B, H, W, C)`."""
    return _call("llic_depthwise_convolve", x.shape, x, kernel)


def correlate(x: Array, dy: Array, size: int) -> Array:
    """Twice `(B, H, W, C)`, float32 -> each sample's kernel gradient `(B, size, size, C)`."""
    batch, height, _, channels = x.shape
    bands = -(-height // _ROWS)
    shape = (batch, bands, size, size, channels)
    return _call("llic_depthwise_correlate", shape, x, dy).sum(1)


def _call(target: str, shape: tuple[int, ...], *operands: Array) -> Array:
    result = jax.ShapeDtypeStruct(shape, jnp.float32)
    call = jax.ffi.ffi_call(target, result, vmap_method="broadcast_all")
    return cast(Callable[..., Array], call)(*operands)


def limit_instruction_set(name: str | None) -> None:
    """Keeps the kernel to "baseline" or "avx2", None: to the best the machine has; for tests."""
    library = _library()
    assert library is not None
    library.llic_depthwise_limit_instruction_set({None: 0, "baseline": 1, "avx2": 2}[name])


@functools.cache
def _library() -> ctypes.CDLL | None:
    spec = importlib.util.find_spec("llic_jax.layers._depthwise_native")
    if spec is None or spec.origin is None:
        return None
    try:
        # Else JAX puts the registration off until the backend starts, and may fail in that.
        jax.devices("cpu")
    except RuntimeError:
        return None  # JAX was told to do without a CPU
    try:
        library = ctypes.CDLL(spec.origin)
        for name in ("llic_depthwise_convolve", "llic_depthwise_correlate"):
            handler = jax.ffi.pycapsule(getattr(library, name))
            jax.ffi.register_ffi_target(name, handler, platform="cpu")
    except (OSError, AttributeError, ValueError, RuntimeError) as error:
        warnings.warn(
            f"the native depth-wise kernel in {spec.origin} does not load ({error}); continuing "
            "without it, several times slower. Reinstall the package, or set LLIC_NATIVE=0.",
            RuntimeWarning,
            stacklevel=2,
        )
        return None
    return library
